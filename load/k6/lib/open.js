// What load, stress, breakpoint and spike have in common: the open model. Iterations start when they
// are due, however slow the answers are; the rate over time is a list of stages.
import { count, number, seconds, share, waitAtMost } from './boxoffice.js';
import { listed, summaryTrendStats, withThresholds } from './metrics.js';
import { setTimeline } from './phases.js';
import { chosen, iteration, prepare, usersFor } from './workload.js';

// Nobody looks at an empty page for longer; k6's own minute would only fill it with waiting users.
waitAtMost('10s');

export const p95Ms = number('P95_MS', 500);
export const warmup = seconds('WARMUP', 10);
export const failedMax = (fallback) => share('FAILED_MAX', fallback);
export const droppedMax = (fallback) => count('DROPPED_MAX', fallback);

// `parts`: [{ phase, step?, seconds, from?, to }]: `to` iterations a second at the end of the part,
// reached in a straight line from `from`, or held from the beginning where there is no `from`.
export function openTest(name, { parts: all, workload: fallback, thresholds, phases = ['main'], users }) {
    const parts = all.filter((part) => part.seconds > 0);
    const workload = chosen(fallback);
    const stages = [];
    const timeline = [];
    let until = 0;
    let iterations = 0;
    let peak = 1;
    for (const part of parts) {
        if (part.from === undefined) {
            // A stage of no length is a jump.
            stages.push({ target: part.to, duration: '0s' });
        }
        stages.push({ target: part.to, duration: `${Math.round(part.seconds * 1000)}ms` });
        until += part.seconds;
        iterations += (part.seconds * ((part.from === undefined ? part.to : part.from) + part.to)) / 2;
        peak = Math.max(peak, part.to, part.from || 0);
        timeline.push({ phase: part.phase, step: part.step, until });
    }
    setTimeline(timeline);
    const steps = parts.filter((part) => part.step !== undefined).map((part) => part.step);
    return {
        options: {
            scenarios: {
                [name]: {
                    executor: 'ramping-arrival-rate',
                    startRate: parts[0].from === undefined ? parts[0].to : parts[0].from,
                    timeUnit: '1s',
                    stages,
                    ...usersFor(workload, users || { rate: peak, atOnce: 0 }, p95Ms),
                    // Those who are at it when the last one has come may finish.
                    gracefulStop: `${Math.ceil(15 + 15 * number('THINK', 1))}s`,
                },
            },
            thresholds: withThresholds(
                {
                    ...listed({ names: workload.names, phases, counted: workload.counted }),
                    ...Object.fromEntries(phases.map((phase) => [`slowest_answer{phase:${phase}}`, ['max>=0']])),
                    ...(workload.kind === 'fan' ? { queue_wait: ['max>=0'] } : {}),
                    ...Object.fromEntries(steps.map((step) => [`iterations{step:${step}}`, ['count>=0']])),
                },
                // A run in which nobody could buy has not shown that buying works.
                workload.sells ? { ...thresholds, 'payments_made{phase:main}': ['count>0'] } : thresholds,
            ),
            summaryTrendStats,
            setupTimeout: '10m',
            batchPerHost: 20,
        },
        setup: () => prepare(workload, Math.ceil(iterations * 1.01) + 50, until),
        run: (data) => iteration(workload, data),
    };
}

// What a phase that is meant to go well must show. A phase without a request does not.
export function goesWell(phase, failed) {
    return {
        [`http_reqs{phase:${phase}}`]: ['count>0'],
        [`http_req_failed{phase:${phase}}`]: [`rate<=${failed}`],
        [`http_req_duration{phase:${phase}}`]: [`p(95)<${p95Ms}`],
        [`slowest_answer{phase:${phase}}`]: [`p(95)<${p95Ms}`],
        [`unexpected_answers{phase:${phase}}`]: ['count==0'],
    };
}
