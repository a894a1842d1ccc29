// Spike test: quiet, then everybody at once, then quiet again. See README.md.
import { count, seconds } from './lib/boxoffice.js';
import { droppedMax, failedMax, goesWell, openTest, warmup } from './lib/open.js';

const fans = count('FANS', 1000, 1);
const burst = seconds('BURST', '1s', 0.1);
const rate = count('RATE', 5, 1);
const watched = seconds('DURATION', '30s', burst + 1);
const atOnce = Math.round(fans / burst);
if (atOnce < rate) {
    throw new Error(`FANS=${fans}: more than RATE=${rate} a second are needed for a spike`);
}

const recovery = seconds('RECOVERY', '20s', 1);

const test = openTest('spike', {
    workload: 'fan',
    phases: ['main', 'recovery'],
    // The users of the quiet times, and one for each fan of the burst.
    users: { rate, atOnce: fans },
    parts: [
        { phase: 'warmup', seconds: warmup, to: rate },
        { phase: 'main', seconds: burst, to: atOnce },
        { phase: 'main', seconds: watched - burst, to: rate },
        { phase: 'recovery', seconds: recovery, to: rate },
    ],
    thresholds: {
        ...goesWell('main', failedMax(0)),
        ...goesWell('recovery', failedMax(0)),
        dropped_iterations: [`count<=${droppedMax(0)}`],
    },
});

export const { options, setup } = test;
export default test.run;
