// The load of an incident, which `lab incident` starts: fans who join, wait, choose a seat and pay, as a browser
// would do it for them; and whatever else comes at that time.
//
//   HOST      where to ask
//   CONCERT, SESSION, FIRST_SEAT, SEATS   what is sold; its price is 0
//   FANS      fans a second, for SECONDS seconds
//   FLOOD     what comes on top, from FLOOD_AT s on for FLOOD_FOR s:
//             seats: FLOOD_PER_S lists of seats a second, asked for by people who are inside
//             holds: FLOOD_PER_S holds a second, by people who are inside and do not care what they are told
//             crowd: FLOOD_PER_S people at once, who join and poll every 3 s
import http from 'k6/http';
import exec from 'k6/execution';
import { sleep } from 'k6';
import { Counter, Rate } from 'k6/metrics';
import {
    bodyOf, count, host, join, number, oneOf, pay, poll, reserve, seats as seatsOf,
} from './lib/boxoffice.js';

const SECONDS = number('SECONDS', 60);
const CONCERT = count('CONCERT', 1, 1);
const SESSION = count('SESSION', 1, 1);
const FIRST_SEAT = count('FIRST_SEAT', 1, 1);
const SEATS = count('SEATS', 1, 1);
const FLOOD = oneOf('FLOOD', 'none', ['none', 'seats', 'holds', 'crowd']);

// Who was let in while fans were still coming, and which of them have a seat in the end. Whoever is interrupted counts
// among the first alone.
const inside = new Counter('inside');
const bought = new Rate('bought');

function flood() {
    const startTime = `${number('FLOOD_AT', 0)}s`;
    const duration = `${number('FLOOD_FOR', 10)}s`;
    const many = count('FLOOD_PER_S', 1, 1);
    const all = { exec: FLOOD, startTime, duration, gracefulStop: '0s' };
    if (FLOOD === 'crowd') {
        return { ...all, executor: 'constant-vus', vus: many };
    }
    return { ...all, executor: 'constant-arrival-rate', timeUnit: '1s', rate: many, preAllocatedVUs: 200, maxVUs: 1000 };
}

export const options = {
    scenarios: {
        fans: {
            executor: 'constant-arrival-rate',
            rate: count('FANS', 20, 1),
            timeUnit: '1s',
            duration: `${SECONDS}s`,
            preAllocatedVUs: 200,
            maxVUs: 3000,
            gracefulStop: '10s',
            exec: 'fan',
        },
        ...(FLOOD === 'none' ? {} : { flood: flood() }),
    },
    summaryTrendStats: [],
};

let users = 0;
// Nobody else has these, in this run.
const user = () => 5_000_000 + __VU * 10_000 + (users++ % 10_000);
const anySeat = () => FIRST_SEAT + Math.floor(Math.random() * SEATS);

// Asks again while the service is away or too busy, after the time that it says. Returns the last answer.
function patiently(tries, ask) {
    for (;;) {
        const response = ask();
        const isAway = response.status === 0 || response.status >= 500;
        if (!isAway || --tries <= 0) return response;
        sleep(Number(response.headers['Retry-After']) || 1);
    }
}

// Joins and waits. Returns the token once they are let in.
function letIn(userId) {
    const { token } = bodyOf(patiently(20, () => join(userId)));
    for (let polls = 0; token && polls < 200; polls++) {
        const { status, pollAfterMs } = bodyOf(poll(token));
        if (status === 'ACTIVATED') return token;
        if (status === 'EXPIRED') return null;
        sleep((pollAfterMs || 1000) / 1000);
    }
    return null;
}

// Holds a seat and pays for it. Returns whether that came about.
function buys(userId, token) {
    seatsOf(CONCERT, SESSION, token);
    sleep(0.5 + Math.random());
    let reservationId = null;
    for (let tries = 0; tries < 20 && !reservationId; tries++) {
        // Another seat where somebody was faster.
        const seat = anySeat();
        const hold = () => reserve(CONCERT, SESSION, userId, [seat], token, [201, 409], `${userId}-${tries}`);
        reservationId = bodyOf(patiently(15, hold)).reservationId;
    }
    if (!reservationId) return false;
    sleep(0.5 + Math.random());
    return patiently(15, () => pay(userId, reservationId, token, [201], `${userId}-pay`)).status === 201;
}

export function fan() {
    const userId = user();
    const token = letIn(userId);
    const isOver = Date.now() > exec.scenario.startTime + SECONDS * 1000;
    if (token === null || isOver) return;
    inside.add(1);
    bought.add(buys(userId, token));
}

// One of a crowd of its own.
let place = null;
export function crowd() {
    if (place === null) {
        place = bodyOf(join(user())).token || null;
    } else {
        poll(place);
    }
    sleep(3);
}

const session = `${host}/api/v1/concerts/${CONCERT}/sessions/${SESSION}`;
const tags = { name: 'flood' };

// Looks at the plan, which anybody who is inside may do as often as they like.
export function seats() {
    const headers = { 'QUEUE-TOKEN': `lab_${1 + (__VU % 100)}` };
    http.get(`${session}/seats`, { headers, responseType: 'none', tags });
}

// Wants a seat, and does not care what it is told.
export function holds() {
    const userId = 1 + (__VU % 1000);
    const headers = { 'Content-Type': 'application/json', 'QUEUE-TOKEN': `lab_${userId}` };
    http.post(`${session}/reservations`, JSON.stringify({ userId, seatIds: [anySeat()] }), { headers, tags });
}
