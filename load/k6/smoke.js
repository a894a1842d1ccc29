// One fan's whole way, and the doors that must stay shut on it, in a few seconds. See README.md.
import { check, group, sleep } from 'k6';
import {
    bodyOf, join, number, pay, points, poll, requireService, reserve, seats, seconds, sessions,
} from './lib/boxoffice.js';

const concertId = number('CONCERT', 1);
const pollMs = number('POLL_MS', 200);
const fans = number('VUS', 5);

export const options = {
    scenarios: {
        smoke: {
            executor: 'per-vu-iterations',
            vus: fans,
            iterations: number('ITERATIONS', 1),
            maxDuration: `${seconds('DURATION', '60s', 1)}s`,
        },
    },
    thresholds: {
        checks: ['rate==1'],
        http_req_failed: ['rate==0'],
        iterations: [`count==${fans * number('ITERATIONS', 1)}`],
    },
};

export const setup = requireService;

// Stops at the first step that failed: those after it could only repeat the complaint.
function step(response, name, conditions) {
    const named = {};
    Object.keys(conditions).forEach((what) => {
        named[`${name}: ${what}`] = conditions[what];
    });
    if (!check(response, named)) {
        throw new Error(`${name}: status ${response.status} ${response.error} ${String(response.body).slice(0, 300)}`);
    }
    return bodyOf(response);
}

const answers = (status) => ({ [`answers ${status}`]: (r) => r.status === status });

function waitUntilLetIn(userId) {
    const joined = step(join(userId), 'join', {
        ...answers(201),
        'gives a token': (r) => typeof bodyOf(r).token === 'string',
        'gives a request id': (r) => Boolean(r.headers['X-Request-Id']),
    });
    // Nobody has a number before an opening draw, and 0 is none.
    let last = joined.waitingNumber || Infinity;
    for (;;) {
        const place = step(poll(joined.token), 'poll', {
            ...answers(200),
            'is its own user': (r) => bodyOf(r).userId === userId,
            'number never grows': (r) => bodyOf(r).waitingNumber <= last,
            'is waiting or let in': (r) => ['WAITING', 'ACTIVATED'].includes(bodyOf(r).status),
        });
        if (place.status === 'ACTIVATED') {
            return joined.token;
        }
        last = place.waitingNumber === null ? last : place.waitingNumber;
        sleep(pollMs / 1000);
    }
}

// Two seats that no other fan of this run wants: their numbers are congruent to this fan's.
function findSeats(token) {
    const { sessions: open } = step(sessions(concertId, token), 'sessions', {
        ...answers(200),
        'some can be booked': (r) => bodyOf(r).sessions.length > 0,
    });
    const { sessionId } = open[__VU % open.length];
    const list = step(seats(concertId, sessionId, token), 'seats', {
        ...answers(200),
        'add up': (r) => {
            const { totalSeatCount, availableSeats, unavailableSeats } = bodyOf(r);
            return totalSeatCount === availableSeats.length + unavailableSeats.length;
        },
    });
    const own = list.availableSeats.filter((seat) => seat.number % fans === __VU % fans).slice(0, 2);
    return { sessionId, own, price: own.reduce((sum, seat) => sum + seat.price, 0) };
}

export default function () {
    // Each fan is a user of its own, so that the balance afterwards is known.
    const userId = ((__VU - 1) % 1000) + 1;
    let token;
    let choice;
    let reservationId;
    let before;

    group('wait', () => {
        token = waitUntilLetIn(userId);
        step(poll(`${token}x`, [401]), 'poll with a forged token', answers(401));
    });

    group('choose', () => {
        step(sessions(concertId, '', [401]), 'sessions without a token', answers(401));
        choice = findSeats(token);
    });

    group('reserve', () => {
        const seatIds = choice.own.map((seat) => seat.seatId);
        const other = userId === 1 ? 2 : 1;
        step(reserve(concertId, choice.sessionId, other, seatIds, token, [403]), 'reserve for another', answers(403));
        const reserved = step(reserve(concertId, choice.sessionId, String(userId), seatIds, token), 'reserve', {
            ...answers(201),
            'costs what the list said': (r) => bodyOf(r).totalPrice === choice.price,
            'says where it is': (r) => Boolean(r.headers.Location),
        });
        reservationId = reserved.reservationId;
        step(reserve(concertId, choice.sessionId, userId, seatIds, token, [409]), 'reserve again', answers(409));
    });

    group('pay', () => {
        before = step(points(userId), 'points before', answers(200)).totalAmount;
        step(pay(userId, reservationId, token), 'pay', {
            ...answers(201),
            'takes the price': (r) => bodyOf(r).paymentAmount === choice.price,
        });
        step(points(userId), 'points after', {
            ...answers(200),
            'are less by the price': (r) => bodyOf(r).totalAmount === before - choice.price,
        });
        // The payment has spent the token.
        step(sessions(concertId, token, [403]), 'sessions after payment', answers(403));
        step(poll(token), 'poll after payment', {
            ...answers(200),
            'is expired': (r) => bodyOf(r).status === 'EXPIRED',
        });
    });
}
