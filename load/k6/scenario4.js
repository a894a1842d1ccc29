// Buyers with tokens that were activated beforehand: sessions, seats, reserve, pay. See README.md.
import { check, sleep } from 'k6';
import {
    bodyOf, count, flag, number, pay, requireService, reserve, seats, seconds, sessions, text,
} from './lib/boxoffice.js';
import { closedTest, pace } from './lib/closed.js';
import { errors, rejected, sales } from './lib/metrics.js';

const concertId = count('CONCERT', 1, 1);
const tokenFormat = text('TOKEN_FORMAT', 'queue_token_{n}');
// Multiplies the pauses of 3, 2 and 2 seconds between the steps; 0 means none.
const think = number('THINK', 1);
const payAlways = flag('PAY_ALWAYS');

export const options = closedTest('concert_booking', {
    executor: 'per-vu-iterations',
    vus: count('VUS', 300, 1),
    iterations: 1,
    maxDuration: `${seconds('DURATION', '10m', 1)}s`,
}, {
    names: ['sessions', 'seats', 'reserve', 'pay'],
    p95Ms: 837,
    counted: [errors, rejected, sales],
    thresholds: { 'unexpected_answers{phase:main}': ['count==0'] },
});

export const setup = requireService;

function expected(response, what, ...statuses) {
    const ok = statuses.includes(response.status);
    check(response, { [what]: () => ok });
    return ok;
}

function pickOne(list) {
    return list[Math.floor(Math.random() * list.length)];
}

function pickSeats(list) {
    const wanted = Math.min(Math.floor(Math.random() * 2) + 1, list.length);
    // The original sorts all seats by chance, and so keeps the generator busy instead of the server.
    const chosen = new Set();
    while (chosen.size < wanted) {
        chosen.add(pickOne(list).seatId);
    }
    return [...chosen];
}

function chooseSeats(token) {
    let response = sessions(concertId, token);
    if (!expected(response, 'Concert schedule retrieved', 200)) {
        return null;
    }
    const session = pickOne(bodyOf(response).sessions || []);
    sleep(3 * think);
    if (session === undefined) {
        rejected.rejected_sold_out.add(1);
        return null;
    }
    response = seats(concertId, session.sessionId, token);
    if (!expected(response, 'Seat availability retrieved', 200)) {
        return null;
    }
    const seatIds = pickSeats(bodyOf(response).availableSeats || []);
    sleep(2 * think);
    if (seatIds.length === 0) {
        rejected.rejected_sold_out.add(1);
        return null;
    }
    return { sessionId: session.sessionId, seatIds };
}

function reserveChoice(userId, choice, token) {
    const response = reserve(concertId, choice.sessionId, userId, choice.seatIds, token, [201, 409]);
    if (!expected(response, 'Seat reserved or taken by another', 201, 409)) {
        return undefined;
    }
    if (response.status === 409) {
        const { code } = bodyOf(response);
        (code === 'SEAT_LIMIT_REACHED' ? rejected.rejected_seat_limit : rejected.rejected_seat_taken).add(1);
        return undefined;
    }
    sales.reservations_made.add(1);
    return bodyOf(response).reservationId;
}

export default function () {
    pace();
    const userId = `${__VU}`;
    const token = tokenFormat.replace('{n}', userId);
    const choice = chooseSeats(token);
    if (choice === null) {
        return;
    }
    const reservationId = reserveChoice(userId, choice, token);
    sleep(2 * think);
    if (reservationId === undefined && !payAlways) {
        return;
    }
    const response = pay(userId, reservationId, token, [201, 402]);
    if (!expected(response, 'Paid or not enough points', 201, 402)) {
        return;
    }
    (response.status === 201 ? sales.payments_made : rejected.rejected_not_enough_points).add(1);
}
