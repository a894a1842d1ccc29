// Everybody at once: a constant crowd joins, then polls until it is let in. See README.md.
import { check, sleep } from 'k6';
import {
    bodyOf, count, flag, joinOrGiveUp, number, poll, randomUser, requireService, seconds,
} from './lib/boxoffice.js';
import { closedTest, pace } from './lib/closed.js';

const pollMs = number('POLL_MS', 3000);
const pollAsTold = flag('POLL_AS_TOLD');
const startJitterMs = number('START_JITTER_MS', 0);

export const options = closedTest('peak_test', {
    executor: 'constant-vus',
    vus: count('VUS', 10000, 1),
    duration: `${seconds('DURATION', '2m', 1)}s`,
}, { names: ['join', 'poll'], p95Ms: 1000 });

export const setup = requireService;

export default function () {
    pace();
    if (__ITER === 0 && startJitterMs > 0) {
        sleep((Math.random() * startJitterMs) / 1000);
    }
    const token = joinOrGiveUp(randomUser());
    let waitMs = pollMs;
    let status;
    do {
        sleep(waitMs / 1000);
        const response = poll(token);
        check(response, { 'Queue status retrieved': (r) => r.status === 200 });
        const answer = bodyOf(response);
        status = answer.status;
        if (pollAsTold && answer.pollAfterMs > 0) {
            waitMs = answer.pollAfterMs;
        }
        // A token that ran out is never let in; the original script would poll it for ever.
    } while (status !== 'ACTIVATED' && status !== 'EXPIRED');
    check(status, { 'Let in': (s) => s === 'ACTIVATED' });
}
