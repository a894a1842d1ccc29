// Joins and polls every few seconds, from a growing number of users. See README.md.
import { check, sleep } from 'k6';
import {
    bodyOf, count, flag, joinOrGiveUp, number, poll, randomUser, requireService, seconds,
} from './lib/boxoffice.js';
import { closedTest, pace } from './lib/closed.js';

const pollMs = number('POLL_MS', 3000);
const pollAsTold = flag('POLL_AS_TOLD');

export const options = closedTest('join_and_poll_ramp', {
    executor: 'ramping-vus',
    startVUs: count('START_VUS', 1),
    stages: [{ target: count('VUS', 1000, 1), duration: `${seconds('DURATION', '90s', 1)}s` }],
}, { names: ['join', 'poll'], p95Ms: 8 });

export const setup = requireService;

export default function () {
    pace();
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
    } while (status !== 'ACTIVATED' && status !== 'EXPIRED');
    check(status, { 'Let in': (s) => s === 'ACTIVATED' });
}
