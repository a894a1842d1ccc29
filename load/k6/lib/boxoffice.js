// The calls that all scripts share, and how their parameters are read from the environment.
import http from 'k6/http';
import { check, fail } from 'k6';
import exec from 'k6/execution';
import { SharedArray } from 'k6/data';
import { countError } from './metrics.js';
import { mark } from './phases.js';

export const host = text('HOST', 'http://localhost:8080').replace(/\/+$/, '');
if (!/^https?:\/\/[^/]/.test(host)) {
    refuse('HOST', host, 'an address such as http://localhost:8080');
}

// Users of the demo data; scenarios draw from them as the original scripts do.
const users = count('USERS', 1000, 1);
let timeout = `${seconds('TIMEOUT', 60, 0.001)}s`;

// How long a request may take where TIMEOUT does not say it.
export function waitAtMost(fallback) {
    timeout = `${seconds('TIMEOUT', fallback, 0.001)}s`;
}

export function text(name, fallback) {
    const value = __ENV[name];
    return value === undefined || value === '' ? fallback : value;
}

function refuse(name, raw, needed) {
    throw new Error(`${name}=${raw}: ${needed} is needed`);
}

export function number(name, fallback) {
    const raw = text(name, String(fallback));
    const value = Number(raw);
    if (!Number.isFinite(value) || value < 0) {
        refuse(name, raw, 'a number that is not negative');
    }
    return value;
}

export function count(name, fallback, least = 0) {
    const value = number(name, fallback);
    if (!Number.isSafeInteger(value) || value < least) {
        refuse(name, text(name, fallback), `a whole number from ${least} up`);
    }
    return value;
}

export function share(name, fallback) {
    const value = number(name, fallback);
    if (value > 1) {
        refuse(name, value, 'a share from 0 to 1');
    }
    return value;
}

export function flag(name) {
    const raw = text(name, '0');
    if (!['0', '1', 'true', 'false'].includes(raw)) {
        refuse(name, raw, '0 or 1');
    }
    return raw === '1' || raw === 'true';
}

// A duration as k6 writes it (1m30s, 500ms), or a bare number of seconds; in seconds.
export function seconds(name, fallback, least = 0) {
    const raw = String(text(name, fallback)).trim();
    const units = { h: 3600, m: 60, s: 1, ms: 0.001 };
    let value = 0;
    if (/^\d+(\.\d+)?$/.test(raw)) {
        value = Number(raw);
    } else if (/^(\d+(\.\d+)?(h|ms|m|s))+$/.test(raw)) {
        raw.replace(/(\d+(?:\.\d+)?)(h|ms|m|s)/g, (_all, amount, unit) => {
            value += Number(amount) * units[unit];
            return '';
        });
    } else {
        refuse(name, raw, 'a duration such as 90s, 2m or 1m30s');
    }
    if (value < least) {
        refuse(name, raw, `at least ${least} s`);
    }
    return value;
}

export function oneOf(name, fallback, known) {
    const raw = text(name, fallback);
    if (!known.includes(raw)) {
        refuse(name, raw, `one of ${known.join(', ')}`);
    }
    return raw;
}

// With PEOPLE, a file with the bearer token of a person in each line: people join and buy with their tokens, and each
// VU is one of them. The service knows who they are (`auth.mode = "jwt"`).
const people = text('PEOPLE', '') === '' ? null : new SharedArray(
    'people',
    () => open(text('PEOPLE', '')).trim().split('\n'),
);

// The person of this VU.
function person() {
    return people[(exec.vu.idInTest - 1) % people.length];
}

export function randomUser() {
    if (people !== null) {
        return undefined;
    }
    return Math.floor(Math.random() * users) + 1;
}

// The JSON body of an answer, or an empty object: an error page must not stop the script.
export function bodyOf(response) {
    try {
        return JSON.parse(response.body) || {};
    } catch (_error) {
        return {};
    }
}

// One request. `statuses` are the answers that the script expects; anything else counts into
// http_req_failed and into the counter of its kind.
function send(method, name, path, { token, body, statuses, key }) {
    const headers = { accept: 'application/json', 'Content-Type': 'application/json' };
    if (token) {
        headers['QUEUE-TOKEN'] = token;
    }
    if (key) {
        headers['Idempotency-Key'] = key;
    }
    // A poll shows its ticket alone.
    if (people !== null && name !== 'poll' && name !== 'leave') {
        headers.Authorization = `Bearer ${person()}`;
    }
    mark();
    const response = http.request(method, `${host}${path}`, body === undefined ? null : JSON.stringify(body), {
        headers,
        timeout,
        responseCallback: http.expectedStatuses(...statuses),
        // A fixed name: otherwise every session id would become a time series of its own.
        tags: { name },
    });
    if (!statuses.includes(response.status)) {
        countError(response, name);
    }
    return response;
}

// A person who has a place already gets it again, with 200.
export function join(userId, statuses = people === null ? [201] : [200, 201], queue = undefined) {
    return send('POST', 'join', '/api/v1/waiting-queues', { body: { userId, queue }, statuses });
}

export function poll(token, statuses = [200]) {
    return send('GET', 'poll', '/api/v1/waiting-queues', { token, statuses });
}

export function leave(token, statuses = [204]) {
    return send('DELETE', 'leave', '/api/v1/waiting-queues', { token, statuses });
}

export function sessions(concertId, token, statuses = [200]) {
    return send('GET', 'sessions', `/api/v1/concerts/${concertId}/sessions`, { token, statuses });
}

export function seats(concertId, sessionId, token, statuses = [200]) {
    return send('GET', 'seats', `/api/v1/concerts/${concertId}/sessions/${sessionId}/seats`, { token, statuses });
}

export function reserve(concertId, sessionId, userId, seatIds, token, statuses = [201], key = undefined) {
    return send('POST', 'reserve', `/api/v1/concerts/${concertId}/sessions/${sessionId}/reservations`, {
        token,
        body: { userId, seatIds },
        statuses,
        key,
    });
}

export function cancel(reservationId, token, statuses = [204]) {
    return send('DELETE', 'cancel', `/api/v1/reservations/${reservationId}`, { token, statuses });
}

export function pay(userId, reservationId, token, statuses = [201], key = undefined) {
    return send('POST', 'pay', '/api/v1/payments', { token, body: { userId, reservationId }, statuses, key });
}

export function points(userId, statuses = [200]) {
    return send('GET', 'points', `/api/v1/users/${userId}/points`, { statuses });
}

// Joins and returns the token; without one there is nothing left to do in this iteration.
export function joinOrGiveUp(userId) {
    const response = join(userId);
    check(response, { 'Queue created successfully': (r) => r.status === 201 || (people !== null && r.status === 200) });
    const { token } = bodyOf(response);
    if (!token) {
        fail(`no token in the answer to a join: status ${response.status} ${response.error}`);
    }
    return token;
}

// Ends the run with a message instead of a stack trace (k6's exit code is 108).
export function giveUp(message) {
    exec.test.abort(`boxoffice: ${message}`);
}

// For setup(): is there a boxoffice at all? One request, so that a wrong HOST is one clear message
// and not ten thousand. (401 is its answer to a token that it never gave; 200 comes from the static
// answers that `loadtest run --baseline` measures.)
export function requireService() {
    const response = http.get(`${host}/api/v1/waiting-queues`, {
        headers: { 'QUEUE-TOKEN': 'is-anybody-there' },
        timeout: '10s',
        responseCallback: http.expectedStatuses(200, 401),
        tags: { name: 'setup', phase: 'setup' },
    });
    if (response.status === 0) {
        giveUp(`nothing answers at HOST=${host}: ${response.error}`);
    }
    if (![200, 401].includes(response.status)) {
        giveUp(`HOST=${host} answers ${response.status} where boxoffice answers 401; is it the right address?`);
    }
}
