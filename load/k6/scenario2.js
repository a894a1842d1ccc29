// Joins only, as fast as they are answered, from a growing number of users. See README.md.
import { check } from 'k6';
import { join, number, randomUser, text } from './lib/boxoffice.js';

export const options = {
    scenarios: {
        join_ramp: {
            executor: 'ramping-vus',
            startVUs: number('START_VUS', 25),
            stages: [{ target: number('VUS', 1000), duration: text('DURATION', '90s') }],
        },
    },
    thresholds: {
        http_req_failed: [`rate<=${number('FAILED_MAX', 0)}`],
        checks: ['rate==1'],
        http_req_duration: [`p(95)<${number('P95_MS', 455)}`],
    },
};

export default function () {
    check(join(randomUser()), { 'Queue created successfully': (r) => r.status === 201 });
}
