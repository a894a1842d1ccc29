// The load of an incident, which `lab incident` starts: fans who join, wait, choose a seat and pay, as a browser
// would do it for them; and whatever else comes at that time.
//
//   HOST      where to ask
//   CONCERT, SESSION, FIRST_SEAT, SEATS   what is sold; its price is 0
//   FANS      fans a second, for SECONDS seconds
//   FLOOD     what comes on top, from FLOOD_AT s on for FLOOD_FOR s: FLOOD_PER_S of them a second
//             seats: lists of seats; holds: fans who are inside already and want a seat, whatever they are told
//             crowd: FLOOD_PER_S is how many fans come at once, and poll every 3 s
import http from 'k6/http';
import { sleep } from 'k6';
import { Rate } from 'k6/metrics';

const HOST = __ENV.HOST;
const number = (name, other) => Number(__ENV[name] === undefined ? other : __ENV[name]);
const SECONDS = number('SECONDS', 60);
const CONCERT = __ENV.CONCERT;
const SESSION = __ENV.SESSION;
const FIRST_SEAT = number('FIRST_SEAT', 1);
const SEATS = number('SEATS', 1);
const FLOOD = __ENV.FLOOD || 'none';

// Whether somebody who was let in has a seat in the end.
const bought = new Rate('bought');

const QUEUES = `${HOST}/api/v1/waiting-queues`;
const session = `${HOST}/api/v1/concerts/${CONCERT}/sessions/${SESSION}`;
const JSON_BODY = { 'Content-Type': 'application/json' };

function flood() {
    const startTime = `${number('FLOOD_AT', 0)}s`;
    const duration = `${number('FLOOD_FOR', 10)}s`;
    const rate = number('FLOOD_PER_S', 0);
    if (FLOOD === 'crowd') {
        return { executor: 'constant-vus', exec: 'waits', vus: rate, startTime, duration, gracefulStop: '0s' };
    }
    const open = { executor: 'constant-arrival-rate', timeUnit: '1s', preAllocatedVUs: 200, maxVUs: 1000 };
    return { ...open, exec: FLOOD, rate, startTime, duration, gracefulStop: '0s' };
}

export const options = {
    scenarios: {
        fans: {
            executor: 'constant-arrival-rate',
            rate: number('FANS', 20),
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
    discardResponseBodies: false,
};

let users = 0;
// Nobody else has these, in this run.
const user = () => 5_000_000 + __VU * 10_000 + (users++ % 10_000);
const tag = (name) => ({ tags: { name } });

function told(response) {
    try {
        return response.json();
    } catch (_) {
        return {};
    }
}

// How long to wait before the same is asked again, where that is of use.
function again(response) {
    const after = Number(response.headers['Retry-After']);
    return response.status === 0 || response.status >= 500 ? after || 1 : 0;
}

// Joins and waits. Returns the token once they are let in.
function letIn(userId) {
    let response = { status: 0, headers: {} };
    for (let tries = 0; tries < 20; tries++) {
        response = http.post(QUEUES, JSON.stringify({ userId }), { headers: JSON_BODY, ...tag('join') });
        if (again(response) === 0) break;
        sleep(again(response));
    }
    if (response.status !== 201) return null;
    const { token } = told(response);
    for (let polls = 0; polls < 200; polls++) {
        const place = http.get(QUEUES, { headers: { 'QUEUE-TOKEN': token }, ...tag('poll') });
        const { status, pollAfterMs } = told(place);
        if (status === 'ACTIVATED') return token;
        if (status === 'EXPIRED') return null;
        sleep((pollAfterMs || 1000) / 1000);
    }
    return null;
}

const anySeat = () => FIRST_SEAT + Math.floor(Math.random() * SEATS);

// Holds a seat and pays for it. Returns whether that came about.
function buys(userId, token) {
    const headers = { ...JSON_BODY, 'QUEUE-TOKEN': token };
    http.get(`${session}/seats`, { headers: { 'QUEUE-TOKEN': token }, ...tag('seats') });
    sleep(0.5 + Math.random());
    let reservationId = null;
    for (let tries = 0; tries < 20 && reservationId === null; tries++) {
        const body = JSON.stringify({ userId, seatIds: [anySeat()] });
        const key = `${userId}-${tries}`;
        for (let repeats = 0; repeats < 15; repeats++) {
            const held = http.post(`${session}/reservations`, body, {
                headers: { ...headers, 'Idempotency-Key': key },
                ...tag('reserve'),
            });
            if (held.status === 201) reservationId = told(held).reservationId;
            if (again(held) === 0) break;
            sleep(again(held));
        }
    }
    if (reservationId === null) return false;
    sleep(0.5 + Math.random());
    const body = JSON.stringify({ userId, reservationId });
    for (let repeats = 0; repeats < 15; repeats++) {
        const paid = http.post(`${HOST}/api/v1/payments`, body, {
            headers: { ...headers, 'Idempotency-Key': `${userId}-pay` },
            ...tag('pay'),
        });
        if (paid.status === 201) return true;
        if (again(paid) === 0) return false;
        sleep(again(paid));
    }
    return false;
}

export function fan() {
    const userId = user();
    const token = letIn(userId);
    if (token !== null) bought.add(buys(userId, token));
}

// One of a crowd of its own: joins once, and polls as the original's scenario 1 does.
let place = null;
export function waits() {
    if (place === null) {
        const response = http.post(QUEUES, JSON.stringify({ userId: user() }), { headers: JSON_BODY, ...tag('join') });
        place = response.status === 201 ? told(response).token : null;
    } else {
        http.get(QUEUES, { headers: { 'QUEUE-TOKEN': place }, ...tag('poll') });
    }
    sleep(3);
}

// Looks at the plan, which anybody who is inside may do as often as they like.
export function seats() {
    const headers = { 'QUEUE-TOKEN': `lab_${1 + (__VU % 100)}` };
    http.get(`${session}/seats`, { headers, responseType: 'none', ...tag('flood') });
}

// Wants a seat, and does not care what it is told.
export function holds() {
    const id = 1 + (__VU % 1000);
    const body = JSON.stringify({ userId: id, seatIds: [anySeat()] });
    const headers = { ...JSON_BODY, 'QUEUE-TOKEN': `lab_${id}` };
    http.post(`${session}/reservations`, body, { headers, ...tag('flood') });
}
