// What is counted beside k6's own metrics, and the thresholds that make it appear in a summary.
import { Counter, Trend } from 'k6/metrics';

const counters = (names) => Object.fromEntries(names.map((name) => [name, new Counter(name)]));

// What the rules of the sale forbid is not an error: these say how often it happened.
export const rejected = counters([
    'rejected_seat_taken',
    'rejected_not_enough_points',
    'rejected_not_your_turn',
    'rejected_sold_out',
    'rejected_seat_limit',
]);

// What became of fans in the queue.
export const fans = counters(['fans_arrived', 'fans_let_in', 'fans_left', 'fans_expired', 'fans_still_waiting']);
export const sales = counters(['reservations_made', 'holds_abandoned', 'payments_made']);

// Everything else that is not the answer that was asked for, by kind.
export const errors = counters([
    'error_timeout',
    'error_connection',
    'error_dns',
    'error_tls',
    // The machine of the generator has run out of ports or files: not the service's doing.
    'error_generator',
    'error_429',
    'error_500',
    'error_502',
    'error_503',
    'error_504',
    'error_4xx',
    'error_5xx',
    'error_other',
    // Of these, the ones that being overloaded does not explain.
    'unexpected_answers',
]);

// The slowest answer of each iteration: a slow kind of request that is rare does not hide in it.
export const slowestAnswer = new Trend('slowest_answer', true);
// From the join until the fan learns that it is let in.
export const queueWait = new Trend('queue_wait', true);

export const summaryTrendStats = ['avg', 'min', 'med', 'max', 'p(90)', 'p(95)', 'p(99)', 'p(99.9)', 'count'];

const OVERLOAD = [
    'error_timeout', 'error_connection', 'error_429', 'error_502', 'error_503', 'error_504', 'error_generator',
];

// By k6's error codes: https://grafana.com/docs/k6/latest/javascript-api/error-codes/
function kindOf(response) {
    const { status, error, error_code: code } = response;
    if (status === 0) {
        if (/cannot assign requested address|too many open files|no buffer space/.test(error)) {
            return 'error_generator';
        }
        if (code === 1050 || code === 1211) {
            return 'error_timeout';
        }
        if (code >= 1100 && code < 1200) {
            return 'error_dns';
        }
        if ((code >= 1200 && code < 1300) || /EOF|connection|broken pipe/.test(error)) {
            return 'error_connection';
        }
        if (code >= 1300 && code < 1400) {
            return 'error_tls';
        }
        return 'error_other';
    }
    if (errors[`error_${status}`]) {
        return `error_${status}`;
    }
    if (status >= 400 && status < 600) {
        return status < 500 ? 'error_4xx' : 'error_5xx';
    }
    return 'error_other';
}

let complaints = 0;

export function countError(response, name) {
    // The run has ended around it.
    if (response.status === 0 && response.error.includes('context canceled')) {
        return;
    }
    const kind = kindOf(response);
    errors[kind].add(1);
    if (!OVERLOAD.includes(kind)) {
        errors.unexpected_answers.add(1);
        // A few of them say what is wrong; thousands would bury it.
        if (complaints < 3) {
            complaints += 1;
            const body = String(response.body).slice(0, 300);
            console.error(`${name}: status ${response.status} ${response.error} ${body}`);
        }
    }
}

// Thresholds that cannot be crossed: k6 keeps and exports a sub-metric only where one names it.
export function listed({ names, phases = ['main'], counted = [errors] }) {
    const thresholds = {};
    const add = (metric, condition) => {
        thresholds[metric] = [condition];
    };
    for (const phase of phases) {
        add(`http_req_duration{phase:${phase}}`, 'max>=0');
        add(`http_req_waiting{phase:${phase}}`, 'max>=0');
        add(`http_req_connecting{phase:${phase}}`, 'max>=0');
        add(`http_req_failed{phase:${phase}}`, 'rate>=0');
        add(`http_reqs{phase:${phase}}`, 'count>=0');
        add(`iterations{phase:${phase}}`, 'count>=0');
        for (const name of names) {
            add(`http_req_duration{name:${name},phase:${phase}}`, 'max>=0');
        }
        for (const group of counted) {
            for (const name of Object.keys(group)) {
                add(`${name}{phase:${phase}}`, 'count>=0');
            }
        }
    }
    add('dropped_iterations', 'count>=0');
    return thresholds;
}

// Adds real thresholds to listed ones.
export function withThresholds(listing, real) {
    const all = { ...listing };
    for (const name of Object.keys(real)) {
        all[name] = [...(all[name] || []), ...real[name]];
    }
    return all;
}
