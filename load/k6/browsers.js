// A whole sale, as the pages of the service ask for it: each VU is one fan's browser, which loads the documents and what
// they are made of, joins, polls when told to, looks at the hall, takes what it likes or what is best, pays, and looks at
// its ticket. `lab sale` starts it, and holds what each fan was told against the books.
//
//   HOST      where to ask
//   QUEUE, CONCERT, SESSION   what is sold
//   FANS      how many; they are members FIRST_USER, FIRST_USER + 1, …
//   WITHIN    all of them have come after so many seconds
//
// Each fan says in one line of JSON how it ended: `bought` (with what), `sold-out`, or `stuck`; and in a line of its own
// whatever contradicts what it was told before.
import http from 'k6/http';
import encoding from 'k6/encoding';
import { sleep } from 'k6';
import exec from 'k6/execution';
import { bodyOf, count, host, number, seconds, text } from './lib/boxoffice.js';

const QUEUE = text('QUEUE', 'main');
const CONCERT = count('CONCERT', 1, 1);
const SESSION = count('SESSION', 1, 1);
const FANS = count('FANS', 100, 1);
const FIRST_USER = count('FIRST_USER', 1, 1);
const WITHIN = number('WITHIN', 20);
// An instance that was killed is noticed within seconds; nobody gives up before.
const PATIENCE_MS = 60_000;

export const options = {
    scenarios: {
        browsers: {
            executor: 'per-vu-iterations', vus: FANS, iterations: 1, maxDuration: `${seconds('DURATION', '300s', 1)}s`, gracefulStop: '0s',
        },
    },
    // A page is loaded as a browser does it: over connections that are kept.
    discardResponseBodies: false,
    summaryTrendStats: ['avg', 'p(95)', 'p(99)', 'max'],
};

const say = (what) => console.log(JSON.stringify(what));

// What this browser has in its cache: names with digests never change.
const cached = {};
// A page with all that it names, as far as it is not there yet.
function open(path, name) {
    const page = patiently('GET', path, name);
    for (const [asset] of String(page.body).matchAll(/\/assets\/[\w./-]+/g)) {
        if (!cached[asset]) {
            cached[asset] = true;
            patiently('GET', asset, 'asset');
        }
    }
}

// Asks until there is an answer that means something, as the pages do: the same request, with the same key.
function patiently(method, path, name, { token, body, key } = {}) {
    const headers = { 'Accept-Encoding': 'gzip' };
    if (token) headers['QUEUE-TOKEN'] = token;
    if (key) headers['Idempotency-Key'] = key;
    if (body) headers['Content-Type'] = 'application/json';
    const until = Date.now() + PATIENCE_MS;
    for (;;) {
        const response = http.request(method, `${host}${path}`, body ? JSON.stringify(body) : null, { headers, timeout: '10s', tags: { name } });
        // Another instance than the one that let somebody in hears of it a moment later.
        const isLate = response.status === 403 && bodyOf(response).code === 'TOKEN_NOT_ACTIVATED' && Date.now() < until - PATIENCE_MS + 3_000;
        const isUnclear = isLate || response.status === 0 || response.status === 429 || response.status >= 500
            || (response.status === 409 && bodyOf(response).code === 'IDEMPOTENCY_IN_FLIGHT');
        if (!isUnclear || Date.now() > until) return response;
        sleep(Math.max(Number(response.headers['Retry-After']) || 0, 1) * (1 + Math.random() / 2));
    }
}

// Seats by number: 0 free, 1 held, 2 sold, out of two bits each.
function statesOf({ states, count: many }) {
    const bytes = new Uint8Array(encoding.b64decode(states));
    return Array.from({ length: many }, (_, index) => (bytes[index >> 2] >> (2 * (index & 3))) & 3);
}

class Stuck extends Error {}

export default function () {
    const user = FIRST_USER + exec.vu.idInTest - 1;
    sleep(Math.random() * WITHIN);
    try {
        say({ user, ...sale(user) });
    } catch (error) {
        if (!(error instanceof Stuck)) throw error;
        say({ user, end: 'stuck', why: error.message });
    }
}

function sale(user) {
    const wrong = (what) => say({ user, wrong: what });
    const expect = (response, ...statuses) => {
        if (!statuses.includes(response.status)) throw new Stuck(`${response.request.method} ${response.url}: ${response.status} ${response.error} ${String(response.body).slice(0, 200)}`);
        return bodyOf(response);
    };
    open('/', 'page');
    open(`/c/${CONCERT}`, 'page');
    expect(patiently('GET', `/api/v1/concerts/${CONCERT}`, 'concert'), 200);
    open(`/wait/${QUEUE}?c=${CONCERT}`, 'page');
    const joined = patiently('POST', '/api/v1/waiting-queues', 'join', { body: { userId: user, queue: QUEUE }, key: `join-${user}` });
    if (joined.status === 409) return { end: 'sold-out' };
    const { token, waitingNumber } = expect(joined, 200, 201);

    let shown = waitingNumber;
    let place;
    for (;;) {
        place = expect(patiently('GET', '/api/v1/waiting-queues', 'poll', { token }), 200);
        if (place.status !== 'WAITING') break;
        // Instances may differ for a moment; the page shows the smallest number.
        if (shown !== null && place.waitingNumber > shown) {
            sleep(2.5);
            const again = expect(patiently('GET', '/api/v1/waiting-queues', 'poll', { token }), 200);
            if (again.status === 'WAITING' && again.waitingNumber > shown) wrong(`the number grew from ${shown} to ${again.waitingNumber}`);
        }
        if (place.waitingNumber !== null) shown = shown === null ? place.waitingNumber : Math.min(shown, place.waitingNumber);
        if (['SOLD_OUT', 'ENDED'].includes(place.queueState)) {
            // Nobody waits on for seats that may come back: here everybody pays.
            const { sessions } = expect(patiently('GET', `/api/v1/concerts/${CONCERT}`, 'concert'), 200);
            if (sessions.every((it) => it.availableSeatCount === 0)) return { end: 'sold-out' };
        }
        sleep(place.pollAfterMs / 1000);
    }
    if (place.status === 'EXPIRED') {
        if (['SOLD_OUT', 'ENDED'].includes(place.reason)) return { end: 'sold-out' };
        throw new Stuck(`the turn ended unused: ${place.reason}`);
    }

    open(`/c/${CONCERT}/s/${SESSION}`, 'page');
    const { sessions } = expect(patiently('GET', `/api/v1/concerts/${CONCERT}`, 'concert'), 200);
    const { plan } = sessions.find((it) => it.sessionId === SESSION);
    if (plan) expect(patiently('GET', `/api/v1/plans/${plan}`, 'plan'), 200);
    const wanted = 1 + (user % 3);
    const looksAtMap = user % 2 === 0;
    let hold = null;
    for (let tries = 0; !hold; tries++) {
        const all = expect(patiently('GET', `/api/v1/concerts/${CONCERT}/sessions/${SESSION}/seats?since=0`, 'seats', { token }), 200);
        const states = statesOf(all);
        const free = states.map((state, index) => (state === 0 ? index + 1 : 0)).filter(Boolean);
        sleep(0.5 + 2 * Math.random());
        const many = Math.min(wanted, Math.max(1, free.length));
        // Whoever looks at the map takes seats side by side in the fullest rush, like everybody.
        const from = free[Math.floor(Math.random() * Math.max(1, free.length - many + 1))];
        const chosen = free.slice(free.indexOf(from), free.indexOf(from) + many);
        const idOf = (seat) => all.seatIds.map(([first, id, run]) => (seat >= first && seat < first + run ? id + seat - first : 0)).find(Boolean);
        const body = looksAtMap && tries < 3 && free.length > 0
            ? { userId: user, seatIds: chosen.map(idOf) }
            : { userId: user, best: { count: many, together: tries < 3 } };
        const asked = patiently('POST', `/api/v1/concerts/${CONCERT}/sessions/${SESSION}/reservations`, 'hold', { token, body, key: `hold-${user}-${tries}` });
        if (asked.status === 201) hold = bodyOf(asked);
        else if (asked.status === 409 && bodyOf(asked).code === 'NOT_ENOUGH_SEATS' && many === 1) {
            // What others hold may come back; here they pay for it, and the turn ends.
            const now = expect(patiently('GET', '/api/v1/waiting-queues', 'poll', { token }), 200);
            if (now.status === 'EXPIRED' || now.queueState === 'SOLD_OUT') return { end: 'sold-out' };
            sleep(2);
        } else if (asked.status === 403 && bodyOf(asked).code === 'TOKEN_EXPIRED') return { end: 'sold-out' };
        else if (asked.status !== 409) expect(asked, 201);
        if (tries > 60) throw new Stuck('no seat after 60 tries');
    }
    open(`/pay/${hold.reservationId}`, 'page');
    const held = expect(patiently('GET', `/api/v1/reservations/${hold.reservationId}`, 'reservation', { token }), 200);
    if (held.totalPrice !== hold.totalPrice) wrong(`a hold of ${hold.totalPrice} points is one of ${held.totalPrice}`);
    expect(patiently('GET', `/api/v1/users/${user}/points`, 'points'), 200);
    sleep(1 + 2 * Math.random());
    const paid = expect(patiently('POST', '/api/v1/payments', 'pay', { token, body: { userId: user, reservationId: hold.reservationId }, key: `pay-${user}` }), 200, 201);
    if (paid.paymentAmount !== hold.totalPrice) wrong(`${paid.paymentAmount} points were paid for ${hold.totalPrice}`);
    open(`/t/${hold.reservationId}`, 'page');
    return { end: 'bought', reservation: hold.reservationId, payment: paid.paymentId, seats: hold.reservedSeats.map((it) => it.seatId) };
}
