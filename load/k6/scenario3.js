// Joins and polls every few seconds, from a growing number of users. See README.md.
import { check, sleep } from 'k6';
import { bodyOf, flag, joinOrGiveUp, number, poll, randomUser, text } from './lib/boxoffice.js';

const pollMs = number('POLL_MS', 3000);
const pollAsTold = flag('POLL_AS_TOLD');

export const options = {
    scenarios: {
        join_and_poll_ramp: {
            executor: 'ramping-vus',
            startVUs: number('START_VUS', 1),
            stages: [{ target: number('VUS', 1000), duration: text('DURATION', '90s') }],
        },
    },
    thresholds: {
        http_req_failed: [`rate<=${number('FAILED_MAX', 0)}`],
        checks: ['rate==1'],
        http_req_duration: [`p(95)<${number('P95_MS', 8)}`],
    },
};

export default function () {
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
