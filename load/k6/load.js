// Load test: holds a rate that the service is meant to bear. See README.md.
import { count, seconds } from './lib/boxoffice.js';
import { droppedMax, failedMax, goesWell, openTest, warmup } from './lib/open.js';

const rate = count('RATE', 50, 1);

const test = openTest('load', {
    workload: 'fan',
    parts: [
        { phase: 'warmup', seconds: warmup, to: rate },
        { phase: 'main', seconds: seconds('DURATION', '60s', 1), to: rate },
    ],
    thresholds: {
        ...goesWell('main', failedMax(0)),
        dropped_iterations: [`count<=${droppedMax(0)}`],
    },
});

export const { options, setup } = test;
export default test.run;
