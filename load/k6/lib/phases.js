// Which part of a run a request belongs to: the tag `phase`. Thresholds look at one phase only, so
// that a warm-up, or an overload that is meant to be one, does not count.
import exec from 'k6/execution';
import { Gauge } from 'k6/metrics';

// When the first iteration could start: where `t = 0` of the asked-for rate is on the clock.
const beganAt = new Gauge('began_at_ms');

let timeline = [{ phase: 'main', until: Infinity }];
let began = 0;
let part = null;

// `parts`: [{ phase, step?, until }], where `until` is in seconds from the start of the scenario.
// To be called at the top of a script, once; the last part lasts until the end.
export function setTimeline(parts) {
    timeline = parts.map((one, index) => (index === parts.length - 1 ? { ...one, until: Infinity } : one));
}

// For scripts without stages: `warmup` seconds, then the rest.
export function warmUpFor(warmup) {
    setTimeline(warmup > 0 ? [{ phase: 'warmup', until: warmup }, { phase: 'main' }] : [{ phase: 'main' }]);
}

// Sets the tags of whatever this user sends next.
export function mark() {
    if (began === 0) {
        if (exec.vu.idInTest === 0) {
            exec.vu.metrics.tags.phase = 'setup';
            return;
        }
        began = exec.scenario.startTime;
        if (exec.scenario.iterationInTest === 0) {
            beganAt.add(began);
        }
    }
    const t = (Date.now() - began) / 1000;
    if (part !== null && t < part.until && t >= part.from) {
        return;
    }
    let from = 0;
    for (const one of timeline) {
        if (t < one.until) {
            part = { from, until: one.until };
            exec.vu.metrics.tags.phase = one.phase;
            if (one.step !== undefined) {
                exec.vu.metrics.tags.step = one.step;
            }
            return;
        }
        from = one.until;
    }
}

// How many seconds have passed since the scenario began.
export function elapsed() {
    return (Date.now() - (began || exec.scenario.startTime)) / 1000;
}
