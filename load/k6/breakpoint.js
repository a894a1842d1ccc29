// Breakpoint test: higher and higher, a step at a time, until it gives. See README.md.
import { count, seconds } from './lib/boxoffice.js';
import { droppedMax, failedMax, openTest, p95Ms, warmup } from './lib/open.js';

const startRate = count('START_RATE', 50, 1);
const maxRate = count('MAX_RATE', 1000, 1);
const steps = count('STEPS', 20, 2);
const stepSeconds = seconds('DURATION', '200s', steps) / steps;
const failedShare = failedMax(0.01);
if (maxRate <= startRate) {
    throw new Error(`MAX_RATE=${maxRate}: more than START_RATE=${startRate} is needed`);
}

const parts = [{ phase: 'warmup', seconds: warmup, to: startRate }];
const thresholds = {
    'http_reqs{phase:main}': ['count>0'],
    'unexpected_answers{phase:main}': ['count==0'],
    // More than a stumble: when the service stands still, users run out before any answer is late.
    dropped_iterations: [{ threshold: `count<=${droppedMax(100)}`, abortOnFail: true }],
};
for (let index = 0; index < steps; index += 1) {
    const step = String(index + 1).padStart(2, '0');
    const rate = Math.round(startRate + ((maxRate - startRate) * index) / (steps - 1));
    parts.push({ phase: 'main', step, seconds: stepSeconds, to: rate });
    // Not judged by its first moments, in which a handful of answers decides.
    const delayAbortEval = `${Math.round((warmup + stepSeconds * index + Math.min(3, stepSeconds / 2)) * 1000)}ms`;
    const giving = (threshold) => [{ threshold, abortOnFail: true, delayAbortEval }];
    thresholds[`slowest_answer{step:${step}}`] = giving(`p(95)<${p95Ms}`);
    // Known sooner: at the end of a request, not of an iteration.
    thresholds[`http_req_duration{step:${step}}`] = giving(`p(95)<${p95Ms}`);
    thresholds[`http_req_failed{step:${step}}`] = giving(`rate<=${failedShare}`);
}

const test = openTest('breakpoint', { workload: 'mix', parts, thresholds });

export const { options, setup } = test;
export default test.run;
