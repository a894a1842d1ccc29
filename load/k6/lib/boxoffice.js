// The calls that the scenarios share, and how their parameters are read from the environment.
import http from 'k6/http';
import { check, fail } from 'k6';

export const host = text('HOST', 'http://localhost:8080');

// Users of the demo data; scenarios draw from them as the original scripts do.
const users = number('USERS', 1000);

export function text(name, fallback) {
    const value = __ENV[name];
    return value === undefined || value === '' ? fallback : value;
}

export function number(name, fallback) {
    const raw = text(name, String(fallback));
    const value = Number(raw);
    if (!Number.isFinite(value) || value < 0) {
        throw new Error(`${name}=${raw}: a number that is not negative is needed`);
    }
    return value;
}

export function flag(name) {
    const raw = text(name, '0');
    if (!['0', '1', 'true', 'false'].includes(raw)) {
        throw new Error(`${name}=${raw}: 0 or 1 is needed`);
    }
    return raw === '1' || raw === 'true';
}

export function randomUser() {
    return Math.floor(Math.random() * users) + 1;
}

// Answers that the scenario expects; anything else counts into http_req_failed.
export function expecting(...statuses) {
    return http.expectedStatuses(...statuses);
}

function parameters(name, queueToken, statuses) {
    const headers = { accept: 'application/json', 'Content-Type': 'application/json' };
    if (queueToken) {
        headers['QUEUE-TOKEN'] = queueToken;
    }
    // A fixed name: otherwise every session id would become a time series of its own.
    return { headers, responseCallback: expecting(...statuses), tags: { name } };
}

// The JSON body of an answer, or an empty object: an error page must not stop the script.
export function bodyOf(response) {
    try {
        return JSON.parse(response.body) || {};
    } catch (_error) {
        return {};
    }
}

export function join(userId, statuses = [201]) {
    return http.post(
        `${host}/api/v1/waiting-queues`,
        JSON.stringify({ userId }),
        parameters('join', null, statuses),
    );
}

export function poll(queueToken, statuses = [200]) {
    return http.get(`${host}/api/v1/waiting-queues`, parameters('poll', queueToken, statuses));
}

export function sessions(concertId, queueToken, statuses = [200]) {
    return http.get(
        `${host}/api/v1/concerts/${concertId}/sessions`,
        parameters('sessions', queueToken, statuses),
    );
}

export function seats(concertId, sessionId, queueToken, statuses = [200]) {
    return http.get(
        `${host}/api/v1/concerts/${concertId}/sessions/${sessionId}/seats`,
        parameters('seats', queueToken, statuses),
    );
}

export function reserve(concertId, sessionId, userId, seatIds, queueToken, statuses = [201]) {
    return http.post(
        `${host}/api/v1/concerts/${concertId}/sessions/${sessionId}/reservations`,
        JSON.stringify({ userId, seatIds }),
        parameters('reserve', queueToken, statuses),
    );
}

export function pay(userId, reservationId, queueToken, statuses = [201]) {
    return http.post(
        `${host}/api/v1/payments`,
        JSON.stringify({ userId, reservationId }),
        parameters('pay', queueToken, statuses),
    );
}

export function points(userId, statuses = [200]) {
    return http.get(`${host}/api/v1/users/${userId}/points`, parameters('points', null, statuses));
}

// Joins and returns the token; without one there is nothing left to do in this iteration.
export function joinOrGiveUp(userId) {
    const response = join(userId);
    check(response, { 'Queue created successfully': (r) => r.status === 201 });
    const { token } = bodyOf(response);
    if (!token) {
        fail(`no token in the answer to a join: status ${response.status} ${response.error}`);
    }
    return token;
}
