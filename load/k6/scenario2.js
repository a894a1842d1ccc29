// Joins only, as fast as they are answered, from a growing number of users. See README.md.
import { check } from 'k6';
import { count, join, randomUser, requireService, seconds } from './lib/boxoffice.js';
import { closedTest, pace } from './lib/closed.js';

export const options = closedTest('join_ramp', {
    executor: 'ramping-vus',
    startVUs: count('START_VUS', 25),
    stages: [{ target: count('VUS', 1000, 1), duration: `${seconds('DURATION', '90s', 1)}s` }],
}, { names: ['join'], p95Ms: 455 });

export const setup = requireService;

export default function () {
    pace();
    check(join(randomUser()), { 'Queue created successfully': (r) => r.status === 201 });
}
