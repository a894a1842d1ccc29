// Buyers with tokens that were activated beforehand: sessions, seats, reserve, pay. See README.md.
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { bodyOf, flag, number, pay, reserve, seats, sessions, text } from './lib/boxoffice.js';

const concertId = number('CONCERT', 1);
const tokenFormat = text('TOKEN_FORMAT', 'queue_token_{n}');
// Multiplies the pauses of 3, 2 and 2 seconds between the steps; 0 means none.
const think = number('THINK', 1);
const payAlways = flag('PAY_ALWAYS');

export const options = {
    scenarios: {
        concert_booking: {
            executor: 'per-vu-iterations',
            vus: number('VUS', 300),
            iterations: 1,
            maxDuration: text('DURATION', '10m'),
        },
    },
    thresholds: {
        http_req_failed: [`rate<=${number('FAILED_MAX', 0)}`],
        unexpected_answers: ['count==0'],
        checks: ['rate==1'],
        http_req_duration: [`p(95)<${number('P95_MS', 837)}`],
    },
};

// What the rules forbid is not an error: these say how often it happened.
const reservations = new Counter('reservations_made');
const payments = new Counter('payments_made');
const seatTaken = new Counter('rejected_seat_taken');
const notEnoughPoints = new Counter('rejected_not_enough_points');
const soldOut = new Counter('rejected_sold_out');
// Anything else is one.
const unexpected = new Counter('unexpected_answers');

function expected(response, what, ...statuses) {
    const ok = statuses.includes(response.status);
    check(response, { [what]: () => ok });
    if (!ok) {
        unexpected.add(1);
        console.error(`${what}: status ${response.status} ${response.error} ${String(response.body).slice(0, 300)}`);
    }
    return ok;
}

function pickOne(list) {
    return list[Math.floor(Math.random() * list.length)];
}

function pickSeats(list) {
    const wanted = Math.floor(Math.random() * 2) + 1;
    const shuffled = list.sort(() => 0.5 - Math.random());
    return shuffled.slice(0, Math.min(wanted, shuffled.length)).map((seat) => seat.seatId);
}

function chooseSeats(token) {
    let response = sessions(concertId, token);
    if (!expected(response, 'Concert schedule retrieved', 200)) {
        return null;
    }
    const session = pickOne(bodyOf(response).sessions || []);
    sleep(3 * think);
    if (session === undefined) {
        soldOut.add(1);
        return null;
    }
    response = seats(concertId, session.sessionId, token);
    if (!expected(response, 'Seat availability retrieved', 200)) {
        return null;
    }
    const seatIds = pickSeats(bodyOf(response).availableSeats || []);
    sleep(2 * think);
    if (seatIds.length === 0) {
        soldOut.add(1);
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
        seatTaken.add(1);
        return undefined;
    }
    reservations.add(1);
    return bodyOf(response).reservationId;
}

export default function () {
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
    (response.status === 201 ? payments : notEnoughPoints).add(1);
}
