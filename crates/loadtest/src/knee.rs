//! The limit in a breakpoint run: where it gave, and what ran out.

use std::collections::BTreeMap;

use crate::k6::{Summary, seconds};
use crate::model::{Breakpoint, Resource, Series, names};
use crate::series::{highest, mean};

/// The steps that `load/k6/breakpoint.js` goes up by, worked out from the same parameters.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    /// Seconds on the axis of the series at which the script began, after it had set its stage.
    pub(crate) begins: f64,
    pub(crate) warm_up: f64,
    pub(crate) start_rate: f64,
    pub(crate) max_rate: f64,
    pub(crate) steps: u32,
    pub(crate) step_seconds: f64,
    /// What must hold for a step to hold.
    pub(crate) p95_max_ms: f64,
    pub(crate) failed_max: f64,
}

/// One step that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) number: u32,
    pub(crate) rate: f64,
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// And what became of it. `None` where it never came to it, or nothing was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) asked: Asked,
    /// Iterations that were done per second.
    pub(crate) done: Option<f64>,
    pub(crate) dropped: f64,
    pub(crate) p95_ms: Option<f64>,
    pub(crate) failed_share: Option<f64>,
}

impl Ramp {
    pub(crate) fn of(env: &BTreeMap<String, String>, begins: f64) -> Self {
        let number = |name: &str, otherwise: f64| {
            env.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(otherwise)
        };
        let time = |name: &str, otherwise: f64| {
            env.get(name).and_then(|text| seconds(text)).unwrap_or(otherwise)
        };
        let steps = number("STEPS", 20.0).max(1.0);
        Self {
            begins,
            warm_up: time("WARMUP", 10.0),
            start_rate: number("START_RATE", 50.0),
            max_rate: number("MAX_RATE", 1000.0),
            steps: steps as u32,
            step_seconds: time("DURATION", 200.0) / steps,
            p95_max_ms: number("P95_MS", 500.0),
            failed_max: number("FAILED_MAX", 0.01),
        }
    }

    pub(crate) fn steps(&self) -> Vec<Asked> {
        (1..=self.steps)
            .map(|number| {
                let share = if self.steps > 1 {
                    f64::from(number - 1) / f64::from(self.steps - 1)
                } else {
                    0.0
                };
                let from = self.begins + self.warm_up + f64::from(number - 1) * self.step_seconds;
                Asked {
                    number,
                    rate: (self.start_rate + (self.max_rate - self.start_rate) * share).round(),
                    from,
                    to: from + self.step_seconds,
                }
            })
            .collect()
    }

    /// Of so many iterations one in a thousand may fall to a moment of the machine's own.
    pub(crate) fn dropped_allowed(&self, iterations: f64) -> u64 {
        (iterations / 1000.0) as u64
    }
}

/// What was measured in a step. k6 tells the requests of each apart by the tag `step`; where its summary
/// does not, the series do.
pub(crate) fn measure(asked: Asked, series: &Series, summary: Option<&Summary>) -> Step {
    let figures = summary.map(|summary| summary.step(asked.number)).unwrap_or_default();
    // The second in which the rate changes belongs to neither.
    let (from, to) = (asked.from + 1.0, asked.to);
    let dropped = mean(series, names::DROPPED_PER_SECOND, asked.from, asked.to).unwrap_or(0.0);
    Step {
        asked,
        // By the series: in a step that was cut short, the count alone would be too small.
        done: mean(series, names::ITERATIONS_PER_SECOND, from, to)
            .or(figures.iterations.map(|count| count as f64 / (asked.to - asked.from))),
        dropped: dropped * (asked.to - asked.from),
        p95_ms: figures.p95_ms.or_else(|| highest(series, names::DURATION_P95, from, to)),
        failed_share: figures.failed_share.or_else(|| mean(series, names::FAILED_SHARE, from, to)),
    }
}

impl Step {
    fn came(&self) -> bool {
        self.p95_ms.is_some() || self.failed_share.is_some() || self.dropped > 0.0
    }

    /// Why it did not hold, as text.
    fn gave(&self, ramp: &Ramp) -> Option<String> {
        let seconds = self.asked.to - self.asked.from;
        if let Some(p95) = self.p95_ms.filter(|p95| *p95 > ramp.p95_max_ms) {
            return Some(format!("p95 {p95:.0} ms, above {:.0} ms", ramp.p95_max_ms));
        }
        if let Some(failed) = self.failed_share.filter(|failed| *failed > ramp.failed_max) {
            return Some(format!(
                "{:.2} % failed, above {:.2} %",
                failed * 100.0,
                ramp.failed_max * 100.0
            ));
        }
        // As many as one in a hundred that could not be started is a queue that grows.
        (self.dropped > self.asked.rate * seconds * 0.01)
            .then(|| format!("{:.0} iterations could not be started", self.dropped))
    }
}

/// Where it gave, and what ran out.
pub(crate) fn find(
    ramp: &Ramp,
    steps: &[Step],
    series: &Series,
    allowance: Option<f64>,
    machine_cpus: f64,
) -> Breakpoint {
    let mut evidence = Vec::new();
    let given = steps.iter().position(|step| step.gave(ramp).is_some());
    let Some(given) = given else {
        let last = steps.iter().rev().find(|step| step.came());
        let (saturated, text) = match last {
            Some(last) if last.asked.number == ramp.steps => (
                Resource::None,
                format!("it held to the end of the ramp, {:.0} per second", last.asked.rate),
            ),
            Some(last) => (
                Resource::Unknown,
                format!("the ramp ended at {:.0} per second and nothing says why", last.asked.rate),
            ),
            None => (Resource::Unknown, "nothing was measured in any step".to_owned()),
        };
        evidence.push(text);
        return Breakpoint {
            knee_per_second: None,
            knee_at: None,
            saturated,
            evidence,
            confirmations: Vec::new(),
        };
    };
    let step = &steps[given];
    if let Some(why) = step.gave(ramp) {
        evidence.push(format!("at {:.0} per second: {why}", step.asked.rate));
    }
    // The limit lies between the last rate that held and the first that did not; what was done of the latter
    // says where. An overloaded service may do less than it could, so no less than what held.
    let held = if given > 0 { steps[given - 1].asked.rate } else { 0.0 };
    let knee =
        step.done.map_or((held + step.asked.rate) / 2.0, |done| done.clamp(held, step.asked.rate));
    if let Some(done) = step.done {
        evidence.push(format!(
            "{done:.0} per second were done of {:.0}; {held:.0} per second had held before",
            step.asked.rate
        ));
    }
    // The second half of the step before tells of strain that is not yet overload; the step itself of overload.
    let saturated =
        resource(series, step.asked.from, step.asked.to, allowance, machine_cpus, &mut evidence);
    Breakpoint {
        knee_per_second: Some(knee.max(1.0)),
        knee_at: Some(step.asked.from),
        saturated,
        evidence,
        confirmations: Vec::new(),
    }
}

/// A service that is held to a share of a CPU is stopped by the kernel just below it.
const ALL_OF_IT: f64 = 0.85;
/// Milliseconds of a commit, in the mean: a disk that syncs takes one or two.
const SLOW_COMMIT_MS: f64 = 20.0;

/// What ran out between `from` and `to`.
fn resource(
    series: &Series,
    from: f64,
    to: f64,
    allowance: Option<f64>,
    machine_cpus: f64,
    evidence: &mut Vec<String>,
) -> Resource {
    let level = |name: &str| mean(series, name, from, to);
    let server = level(names::SERVER_CPUS);
    let generator = level(names::GENERATOR_CPUS);
    let machine = level(names::MACHINE_CPUS);
    let commit = level(names::COMMIT_MS);
    let pending = highest(series, names::STORE_PENDING, from, to);
    let shed = level(names::SHED_PER_SECOND).unwrap_or(0.0);
    let quiet_commit = mean(series, names::COMMIT_MS, 0.0, series.warm_up_seconds.max(3.0));
    if let (Some(server), Some(allowance)) = (server, allowance) {
        evidence.push(format!("service: {server:.2} of its {allowance:.2} CPUs"));
    }
    if let (Some(generator), Some(machine)) = (generator, machine) {
        evidence.push(format!(
            "k6: {generator:.2} CPUs; the machine: {machine:.2} of {machine_cpus:.0}"
        ));
    }
    if let Some(commit) = commit {
        evidence.push(format!(
            "a commit took {commit:.1} ms{}; up to {:.0} commands waited for the store",
            quiet_commit.map(|ms| format!(" ({ms:.1} ms in the warm-up)")).unwrap_or_default(),
            pending.unwrap_or(0.0)
        ));
    }
    if shed > 0.0 {
        evidence
            .push(format!("{shed:.0} requests per second were refused by limits of concurrency"));
    }
    if let (Some(server), Some(allowance)) = (server, allowance)
        && server >= ALL_OF_IT * allowance
    {
        return Resource::ServerCpu;
    }
    // The service has CPU left. Where its commits are slow, requests wait for them, and limits of concurrency
    // that fill up meanwhile are the store's doing.
    let store_is_slow = commit.is_some_and(|commit| commit >= SLOW_COMMIT_MS);
    if store_is_slow && server.is_some() {
        return Resource::Store;
    }
    let left = (machine_cpus - server.unwrap_or(0.0)).max(0.5);
    if machine.is_some_and(|machine| machine >= 0.93 * machine_cpus)
        || generator.is_some_and(|k6| k6 >= 0.9 * left)
    {
        return Resource::Generator;
    }
    if shed > 0.0 {
        return Resource::ConcurrencyLimit;
    }
    Resource::Unknown
}
