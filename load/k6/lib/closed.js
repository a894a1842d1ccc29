// What the closed scenarios have in common: thresholds on the time after the warm-up, and pacing.
// A closed model has no arrival rate of its own; RATE only keeps its users from exceeding one.
import { sleep } from 'k6';
import exec from 'k6/execution';
import { number, seconds } from './boxoffice.js';
import { errors, listed, summaryTrendStats, withThresholds } from './metrics.js';
import { warmUpFor } from './phases.js';

const rate = number('RATE', 0);
let last;

// `names`: the requests of the scenario, `p95Ms`: the report's own figure, `counted`: groups of counters.
export function closedTest(name, scenario, { names, p95Ms, counted = [errors], thresholds = {} }) {
    warmUpFor(seconds('WARMUP', 0));
    return {
        scenarios: { [name]: scenario },
        thresholds: withThresholds(listed({ names, counted }), {
            'http_reqs{phase:main}': ['count>0'],
            'http_req_failed{phase:main}': [`rate<=${number('FAILED_MAX', 0)}`],
            'checks{phase:main}': ['rate==1'],
            'http_req_duration{phase:main}': [`p(95)<${number('P95_MS', p95Ms)}`],
            ...thresholds,
        }),
        summaryTrendStats,
    };
}

// To be called at the beginning of an iteration: waits until it is this user's turn.
export function pace() {
    if (rate === 0) {
        return;
    }
    const now = Date.now() / 1000;
    const gap = exec.instance.vusActive / rate;
    const due = last === undefined ? now + Math.random() * gap : last + gap;
    if (due > now) {
        sleep(due - now);
    }
    last = Math.max(due, now);
}
