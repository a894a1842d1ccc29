// Stress test: far beyond capacity, then back. Does it fail in good order, and recover? See README.md.
import { count, seconds } from './lib/boxoffice.js';
import { failedMax, goesWell, openTest, warmup } from './lib/open.js';

const rate = count('RATE', 50, 1);
const beyond = count('STRESS_RATE', rate * 4, 1);
const ramp = seconds('RAMP', '10s');

const test = openTest('stress', {
    workload: 'mix',
    phases: ['main', 'recovery'],
    // Answers may take seconds here, and what is due must still be asked.
    users: { rate: beyond, atOnce: beyond * 4 },
    parts: [
        { phase: 'warmup', seconds: warmup, to: rate },
        { phase: 'main', seconds: ramp, from: rate, to: beyond },
        { phase: 'main', seconds: seconds('DURATION', '30s', 1), to: beyond },
        { phase: 'main', seconds: ramp, from: beyond, to: rate },
        // The backlog may drain before anything is asked again.
        { phase: 'settle', seconds: seconds('SETTLE', '10s'), to: rate },
        { phase: 'recovery', seconds: seconds('RECOVERY', '30s', 1), to: rate },
    ],
    thresholds: {
        // Beyond capacity it may be slow and may turn people away, but nothing else.
        'http_reqs{phase:main}': ['count>0'],
        'unexpected_answers{phase:main}': ['count==0'],
        ...goesWell('recovery', failedMax(0)),
    },
});

export const { options, setup } = test;
export default test.run;
