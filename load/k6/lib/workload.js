// What one iteration of the open tests (load, stress, breakpoint, spike) is, and the goods that it
// needs: `prepare` makes them in setup(), `iteration` does one.
import http from 'k6/http';
import { sleep } from 'k6';
import exec from 'k6/execution';
import {
    bodyOf, cancel, count, giveUp, host, join, leave, number, oneOf, pay, poll, requireService, reserve, seats,
    sessions, share, text,
} from './boxoffice.js';
import { errors, fans, queueWait, rejected, sales, slowestAnswer } from './metrics.js';
import { elapsed } from './phases.js';

const KINDS = ['fan', 'join', 'poll', 'buyer', 'mix'];
const NAMES = {
    fan: ['join', 'poll', 'leave', 'sessions', 'seats', 'reserve', 'cancel', 'pay'],
    join: ['join'],
    poll: ['join', 'poll'],
    buyer: ['sessions', 'seats', 'reserve', 'pay'],
    mix: ['join', 'poll', 'sessions', 'seats', 'reserve', 'pay'],
};

const COUNTED = {
    fan: [errors, rejected, fans, sales],
    join: [errors],
    poll: [errors],
    buyer: [errors, rejected, sales],
    mix: [errors, rejected, sales],
};

const adminToken = text('ADMIN_TOKEN', '');
const tokenFormat = text('TOKEN_FORMAT', '');
const tokensGiven = count('TOKENS', 0);
const concertGiven = count('CONCERT', 1, 1);
const userPool = count('USERS', 1000, 1);
const queue = text('QUEUE', undefined);

// The fan's habits.
const think = number('THINK', 1);
const giveUpShare = share('GIVE_UP', 0.05);
const earlyShare = share('EARLY', 0.02);
const abandonShare = share('ABANDON', 0.1);
const poorShare = share('POOR', 0.02);
// The mix.
const polls = count('POLLS', 3);
const buyers = share('BUYERS', 0.3);

// What setup() sells: halls of this size, so many of them to a concert.
const price = 1000;
const hallSeats = count('SESSION_SEATS', 500, 1);
const hallsPerConcert = 10;
const SEATS_EACH = 2;
const JOURNEYS_MAX = 500_000;
const TOKENS_PER_CALL = 100_000;
// Far from anybody's real users.
const FIRST_USER = 1_000_000_000;

// The workload of this run, checked against what the parameters can give.
export function chosen(fallback) {
    const kind = oneOf('WORKLOAD', fallback, KINDS);
    if (tokenFormat !== '' && !tokenFormat.includes('{n}')) {
        throw new Error(`TOKEN_FORMAT=${tokenFormat}: {n} is needed in it, where the number goes`);
    }
    if ((tokenFormat === '') !== (tokensGiven === 0)) {
        throw new Error('TOKEN_FORMAT and TOKENS (how many there are) are needed together');
    }
    const needsTokens = kind === 'buyer' || (kind === 'mix' && buyers > 0);
    return { kind, names: NAMES[kind], counted: COUNTED[kind], needsTokens, sells: kind === 'fan' || needsTokens };
}

// How many users k6 needs for `rate` iterations a second, and `atOnce` more that come together.
export function usersFor(workload, { rate, atOnce }, p95Ms) {
    const needed = workload.kind === 'fan'
        ? rate * (4 + 8 * think) + 50
        // Enough for answers twice as slow as allowed; each iteration sends its requests in turn.
        : rate * (p95Ms / 1000) * 2;
    // A user takes most of a megabyte; without pauses more of them would only wait for each other.
    const bound = workload.kind === 'fan' ? 10_000 : 4000;
    const likely = Math.min(bound, Math.max(50, Math.ceil(needed) + atOnce));
    const preallocated = count('VUS', Math.min(likely, count('MAX_VUS', likely, 1)), 1);
    const most = count('MAX_VUS', workload.kind === 'fan' ? preallocated * 2 : preallocated, 1);
    if (most < preallocated) {
        throw new Error(`MAX_VUS=${most}: at least VUS=${preallocated} is needed`);
    }
    return { preAllocatedVUs: preallocated, maxVUs: most };
}

// ---------------------------------------------------------------- setup

function admin(method, path, body) {
    return [method, `${host}/admin/v1${path}`, JSON.stringify(body), {
        headers: { Authorization: `Bearer ${adminToken}`, 'Content-Type': 'application/json' },
        timeout: '60s',
        tags: { name: 'setup', phase: 'setup' },
    }];
}

function created(response, what) {
    if (response.status === 401) {
        giveUp(`ADMIN_TOKEN is not the admin token of ${host} (setup: ${what})`);
    }
    if (response.status < 200 || response.status > 299) {
        giveUp(`setup could not ${what}: status ${response.status} ${response.error} `
            + String(response.body).slice(0, 300));
    }
    return bodyOf(response);
}

function inBatches(requests, what) {
    const answers = [];
    for (let first = 0; first < requests.length; first += 100) {
        answers.push(...http.batch(requests.slice(first, first + 100)).map((answer) => created(answer, what)));
    }
    return answers;
}

function days(n) {
    return new Date(Date.now() + n * 86_400_000).toISOString();
}

function makeConcerts(run, journeys) {
    const wanted = Math.max(1, Math.ceil((journeys * SEATS_EACH) / hallSeats / hallsPerConcert));
    const concerts = inBatches(
        Array.from({ length: wanted }, (_unused, index) => admin('POST', '/concerts', {
            name: `Load test ${run} ${index + 1}`,
            venue: 'Nowhere',
            reservationOpensAt: days(-1),
            reservationClosesAt: days(7),
            queue,
        })),
        'make a concert',
    ).map((answer) => answer.concertId);
    const halls = [];
    concerts.forEach((id) => {
        for (let n = 0; n < hallsPerConcert; n += 1) {
            halls.push(admin('POST', `/concerts/${id}/sessions`, {
                concertAt: days(30 + n), seatCount: hallSeats, price,
            }));
        }
    });
    inBatches(halls, 'make a session');
    return concerts;
}

function chargeUsers(pool, amount) {
    inBatches(Array.from({ length: pool }, (_unused, index) => [
        'PATCH', `${host}/api/v1/users/${FIRST_USER + index}/points/charge`, JSON.stringify({ amount }), {
            headers: { 'Content-Type': 'application/json' },
            timeout: '60s',
            tags: { name: 'setup', phase: 'setup' },
        }]), 'charge points');
}

// Token k of user u is called load_RUN_u_k, so that nobody needs a list of them.
function issueTokens(run, pool, each, activeSeconds) {
    inBatches(Array.from({ length: pool }, (_unused, index) => admin('POST', '/tokens', {
        count: each,
        format: `load_${run}_${index}_{n}`,
        activated: true,
        // Nobody else is there to guess them.
        guessable: true,
        userId: FIRST_USER + index,
        queue,
        activeSeconds,
    })), 'issue tokens');
}

// `iterations`: how many there can be; `lasts`: seconds.
export function prepare(workload, iterations, lasts) {
    requireService();
    const data = { lasts };
    if (!workload.sells) {
        return data;
    }
    const journeys = Math.ceil(iterations * (workload.kind === 'mix' ? buyers : 1)) + 10;
    if (adminToken === '') {
        if (workload.needsTokens && tokenFormat === '') {
            giveUp(`WORKLOAD=${workload.kind} needs tokens that are let in already. Give ADMIN_TOKEN (the service `
                + 'writes it to admin.token in its data directory), and setup makes concerts, points and tokens; '
                + `or issue ${journeys} tokens yourself (boxoffice token issue --activated --guessable) and give TOKEN_FORMAT `
                + 'and TOKENS.');
        }
        if (workload.needsTokens && tokensGiven < journeys) {
            giveUp(`TOKENS=${tokensGiven}: this run can need ${journeys}, because a payment spends its token`);
        }
        console.warn(`no ADMIN_TOKEN: fans buy from what there is in concert ${concertGiven} as users from 1 to `
            + `${userPool}; once that is sold, journeys end early and count as rejected`);
        return { ...data, concerts: [concertGiven], firstUser: 1, users: userPool };
    }
    if (journeys > JOURNEYS_MAX) {
        giveUp(`this run can have ${journeys} buyers, and setup makes goods for ${JOURNEYS_MAX} at most; `
            + 'choose a lower rate or a shorter time');
    }
    const run = Date.now().toString(36);
    const pool = Math.min(userPool, journeys);
    const each = Math.ceil(journeys / pool);
    if (workload.needsTokens && each > TOKENS_PER_CALL) {
        giveUp(`USERS=${userPool}: too few for ${journeys} tokens; at least ${Math.ceil(journeys / TOKENS_PER_CALL)}`);
    }
    const concerts = makeConcerts(run, journeys);
    // A fan's user is drawn by lot, so some come more often than others.
    chargeUsers(pool, (each * 3 + 100) * SEATS_EACH * price);
    if (workload.needsTokens) {
        issueTokens(run, pool, each, Math.ceil(lasts) + 3600);
    }
    return { ...data, concerts, firstUser: FIRST_USER, users: pool, each, run };
}

// ---------------------------------------------------------------- one iteration

let slowest = 0;

function timed(response) {
    slowest = Math.max(slowest, response.timings.duration);
    return response;
}

function pickOne(list) {
    return list[Math.floor(Math.random() * list.length)];
}

// Ids of one or two seats side by side, without decoding a list of hundreds: in JavaScript that
// would cost more than the whole request. An empty list where nothing is free.
export function someSeats(body, wanted) {
    const text = String(body);
    const from = text.indexOf('"availableSeats":[');
    const end = text.indexOf('"unavailableSeats"', from);
    if (from < 0 || end < from) {
        // Another order of fields: slow, but right.
        const free = bodyOf({ body }).availableSeats || [];
        return free.slice(0, wanted).map((seat) => seat.seatId);
    }
    const found = [];
    let at = text.indexOf('"seatId":', from + Math.floor(Math.random() * (end - from)));
    if (at < 0 || at > end) {
        at = text.indexOf('"seatId":', from);
    }
    while (at >= 0 && at < end && found.length < wanted) {
        found.push(Number.parseInt(text.slice(at + 9, at + 29), 10));
        at = text.indexOf('"seatId":', at + 9);
    }
    return found;
}

// Sorts the answer to a reservation: the reservation's id, or why there is none.
function reserved(response) {
    const answer = bodyOf(response);
    if (response.status === 201) {
        sales.reservations_made.add(1);
        return { id: answer.reservationId };
    }
    if (response.status === 409 && answer.code === 'SEAT_TAKEN') {
        rejected.rejected_seat_taken.add(1);
        return { taken: true };
    }
    if (response.status === 409 && answer.code === 'SEAT_LIMIT_REACHED') {
        rejected.rejected_seat_limit.add(1);
    } else if (response.status === 409) {
        errors.error_4xx.add(1);
        errors.unexpected_answers.add(1);
    }
    return {};
}

function pause(s) {
    // Half to one and a half times as long: people do not click in step.
    if (think > 0) {
        sleep(s * think * (0.5 + Math.random()));
    }
}

function readJson(response, field) {
    return response.status === 200 ? bodyOf(response)[field] || [] : [];
}

// From the list of sessions to the payment. `human` fans pause, try again after a seat was taken,
// and sometimes give the hold back.
function buy(data, token, user, human) {
    const concert = pickOne(data.concerts);
    const open = timed(sessions(concert, token));
    const session = pickOne(readJson(open, 'sessions'));
    if (session === undefined) {
        if (open.status === 200) {
            rejected.rejected_sold_out.add(1);
        }
        return;
    }
    const wanted = Math.random() < 0.5 ? 1 : SEATS_EACH;
    let hold = {};
    for (let attempt = 0; attempt < (human ? 3 : 1); attempt += 1) {
        if (human) {
            pause(attempt === 0 ? 3 : 1);
        }
        const list = timed(seats(concert, session.sessionId, token));
        if (list.status !== 200) {
            return;
        }
        const seatIds = someSeats(list.body, wanted);
        if (seatIds.length === 0) {
            rejected.rejected_sold_out.add(1);
            return;
        }
        if (human) {
            pause(2);
        }
        hold = reserved(timed(reserve(concert, session.sessionId, user, seatIds, token, [201, 409])));
        if (!hold.taken) {
            break;
        }
    }
    if (hold.id === undefined) {
        return;
    }
    if (human) {
        pause(2);
        if (Math.random() < abandonShare) {
            if (timed(cancel(hold.id, token)).status === 204) {
                sales.holds_abandoned.add(1);
            }
            return;
        }
    }
    const paid = timed(pay(user, hold.id, token, [201, 402]));
    if (paid.status === 201) {
        sales.payments_made.add(1);
    } else if (paid.status === 402) {
        rejected.rejected_not_enough_points.add(1);
    }
}

// The ticket of buyer number `n` of this run, and its user.
function ticket(data, n) {
    if (data.run === undefined) {
        if (n >= tokensGiven) {
            exec.test.abort('boxoffice: the tokens have run out');
        }
        return { token: tokenFormat.replace('{n}', String(n + 1)), user: n + 1 };
    }
    const index = n % data.users;
    const which = Math.floor(n / data.users) + 1;
    if (which > data.each) {
        exec.test.abort('boxoffice: the tokens have run out');
    }
    return { token: `load_${data.run}_${index}_${which}`, user: data.firstUser + index };
}

function anyUser(data) {
    const pool = data.users || userPool;
    return (data.firstUser || 1) + Math.floor(Math.random() * pool);
}

// Where all is sold, the queue takes nobody in, and nobody goes on.
function countSoldOut(answer) {
    if (answer.status === 409) {
        rejected.rejected_sold_out.add(1);
    }
}

function oneJoin(data) {
    const answer = timed(join(anyUser(data), [201, 409], queue));
    countSoldOut(answer);
    return answer;
}

// Each user of k6 keeps one ticket and joins again when it has run out.
let pollToken;

function onePoll(data) {
    if (pollToken === undefined) {
        pollToken = bodyOf(oneJoin(data)).token;
        if (pollToken === undefined) {
            return;
        }
    }
    const answer = timed(poll(pollToken));
    if (answer.status !== 200 || String(answer.body).includes('"EXPIRED"')) {
        pollToken = undefined;
    }
}

function oneBuyer(data, n) {
    const { token, user } = ticket(data, n);
    buy(data, token, user, false);
}

function oneMix(data, n) {
    const { token } = bodyOf(oneJoin(data));
    if (token !== undefined) {
        for (let again = 0; again < polls; again += 1) {
            timed(poll(token));
        }
    }
    // Evenly spread, and never more than were prepared.
    const before = Math.floor(n * buyers);
    if (Math.floor((n + 1) * buyers) > before) {
        oneBuyer(data, before);
    }
}

function waitForTurn(data, token, first) {
    const joined = Date.now();
    let { status, reason, pollAfterMs } = first;
    // Some have had enough after a few looks at the number.
    let patience = Math.random() < giveUpShare ? Math.floor(Math.random() * 3) : Infinity;
    while (status === 'WAITING') {
        const wait = (pollAfterMs > 0 ? pollAfterMs : 3000) / 1000;
        if (elapsed() + wait > data.lasts) {
            fans.fans_still_waiting.add(1);
            return false;
        }
        sleep(wait);
        if (patience <= 0) {
            if (timed(leave(token)).status === 204) {
                fans.fans_left.add(1);
            }
            return false;
        }
        patience -= 1;
        const answer = timed(poll(token));
        if (answer.status === 200) {
            ({ status, reason, pollAfterMs } = bodyOf(answer));
        } else {
            // A real client tries again, as late as it is asked to.
            pollAfterMs = Number(answer.headers['Retry-After'] || 3) * 1000;
        }
    }
    if (status !== 'ACTIVATED') {
        (reason === 'SOLD_OUT' ? rejected.rejected_sold_out : fans.fans_expired).add(1);
        return false;
    }
    queueWait.add(Date.now() - joined);
    return true;
}

function oneFan(data) {
    const poor = Math.random() < poorShare;
    // Those users have never charged a point.
    const user = poor ? FIRST_USER + 1_000_000 + Math.floor(Math.random() * 1_000_000) : anyUser(data);
    const answer = timed(join(user, [201, 409], queue));
    fans.fans_arrived.add(1);
    countSoldOut(answer);
    const first = bodyOf(answer);
    if (first.token === undefined) {
        return;
    }
    if (first.status === 'WAITING' && Math.random() < earlyShare) {
        const early = timed(sessions(data.concerts[0], first.token, [200, 403]));
        if (early.status === 403) {
            rejected.rejected_not_your_turn.add(1);
        }
    }
    if (waitForTurn(data, first.token, first)) {
        fans.fans_let_in.add(1);
        buy(data, first.token, user, true);
    }
}

export function iteration(workload, data) {
    slowest = 0;
    switch (workload.kind) {
        case 'join':
            oneJoin(data);
            break;
        case 'poll':
            onePoll(data);
            break;
        case 'buyer':
            oneBuyer(data, exec.scenario.iterationInTest);
            break;
        case 'mix':
            oneMix(data, exec.scenario.iterationInTest);
            break;
        default:
            oneFan(data);
    }
    slowestAnswer.add(slowest);
}
