//! The limit in a breakpoint run: where it gave, and what ran out.

use std::collections::BTreeMap;

use crate::k6::{Summary, seconds};
use crate::model::{Breakpoint, Resource, Series, names};
use crate::series::{highest, mean};

/// The steps that `load/k6/breakpoint.js` goes up by, worked out from the same parameters.
#[derive(Clone, Debug)]
pub(crate) struct Ramp {
    pub(crate) warm_up: f64,
    pub(crate) start_rate: f64,
    pub(crate) max_rate: f64,
    pub(crate) steps: u32,
    pub(crate) step_seconds: f64,
    /// What must hold for a step to hold.
    pub(crate) p95_max_ms: f64,
    pub(crate) failed_max: f64,
    /// Whether an iteration takes no longer than its requests: then as many must be done as are asked for.
    pub(crate) brief: bool,
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
    pub(crate) fn of(env: &BTreeMap<String, String>) -> Self {
        let number = |name: &str, otherwise: f64| {
            env.get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(otherwise)
        };
        let time = |name: &str, otherwise: f64| {
            env.get(name).and_then(|text| seconds(text)).unwrap_or(otherwise)
        };
        let steps = number("STEPS", 20.0).max(1.0);
        Self {
            warm_up: time("WARMUP", 10.0),
            start_rate: number("START_RATE", 50.0),
            max_rate: number("MAX_RATE", 1000.0),
            steps: steps as u32,
            step_seconds: time("DURATION", 200.0) / steps,
            p95_max_ms: number("P95_MS", 500.0),
            failed_max: number("FAILED_MAX", 0.01),
            // A fan waits and thinks for minutes.
            brief: env.get("WORKLOAD").is_none_or(|workload| workload != "fan"),
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
                let from = self.warm_up + f64::from(number - 1) * self.step_seconds;
                Asked {
                    number,
                    rate: (self.start_rate + (self.max_rate - self.start_rate) * share).round(),
                    from,
                    to: from + self.step_seconds,
                }
            })
            .collect()
    }

    /// So many of the iterations may have found no user free. More is a queue that grows.
    pub(crate) const DROPPED_MAX: f64 = 0.01;
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
        if let Some(done) = self.done.filter(|done| ramp.brief && *done < self.asked.rate * KEPT_UP)
        {
            return Some(format!("only {done:.0} per second were done"));
        }
        (self.dropped > self.asked.rate * seconds * Ramp::DROPPED_MAX)
            .then(|| format!("{:.0} iterations could not be started", self.dropped))
    }
}

/// A step is short: latencies are still good when the queue has begun to grow. Less than so much of what was
/// asked for is a queue that grows.
const KEPT_UP: f64 = 0.9;

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
    // says where. An overloaded service may do less than it could, so no less than was done before.
    let before = given.checked_sub(1).map(|index| &steps[index]);
    let held = before
        .map_or(0.0, |before| before.done.unwrap_or(before.asked.rate).min(before.asked.rate));
    let knee =
        step.done.map_or((held + step.asked.rate) / 2.0, |done| done.clamp(held, step.asked.rate));
    if let Some(done) = step.done {
        evidence.push(format!(
            "{done:.0} per second were done of {:.0}; {held:.0} per second were done before",
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

#[cfg(test)]
mod tests {
    use super::*;

    const STEP_SECONDS: f64 = 5.0;

    fn ramp() -> Ramp {
        let env = [
            ("START_RATE", "100"),
            ("MAX_RATE", "500"),
            ("STEPS", "5"),
            ("DURATION", "25s"),
            ("WARMUP", "3s"),
        ];
        Ramp::of(&env.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    /// A service that does as asked up to `limit` per second, and its figures in each second.
    struct Machine {
        limit: f64,
        /// By the share of the limit that is asked for, up to 1.
        server: f64,
        generator: f64,
        commit_ms: f64,
        pending: f64,
        shed: f64,
        failed: f64,
    }

    const IDLE: Machine = Machine {
        limit: 1e9,
        server: 0.1,
        generator: 0.2,
        commit_ms: 1.0,
        pending: 0.0,
        shed: 0.0,
        failed: 0.0,
    };

    fn found(machine: &Machine, allowance: Option<f64>) -> Breakpoint {
        let ramp = ramp();
        let asked = ramp.steps();
        let end = asked[4].to as usize;
        let mut series =
            Series { at: (1..=end).map(|at| at as f64).collect(), ..Series::default() };
        series.warm_up_seconds = 3.0;
        let mut set = |name: &str, get: &dyn Fn(f64) -> f64| {
            let rate_at = |at: f64| {
                asked.iter().find(|step| at > step.from && at <= step.to).map_or(0.0, |s| s.rate)
            };
            let values = series.at.iter().map(|&at| Some(get(rate_at(at)))).collect();
            series.values.insert(name.to_owned(), values);
        };
        let over = |rate: f64| rate > machine.limit;
        let load = |rate: f64| (rate / machine.limit).min(1.0);
        set(names::ITERATIONS_PER_SECOND, &|rate| rate.min(machine.limit));
        set(names::DURATION_P95, &|rate| if over(rate) { 2000.0 } else { 5.0 });
        set(names::FAILED_SHARE, &|rate| if over(rate) { machine.failed } else { 0.0 });
        set(names::DROPPED_PER_SECOND, &|_| 0.0);
        set(names::SERVER_CPUS, &|rate| machine.server * load(rate));
        set(names::GENERATOR_CPUS, &|rate| machine.generator * load(rate));
        set(names::MACHINE_CPUS, &|rate| (machine.server + machine.generator) * load(rate));
        set(names::COMMIT_MS, &|rate| machine.commit_ms * load(rate).max(0.1));
        set(names::STORE_PENDING, &|rate| if over(rate) { machine.pending } else { 0.0 });
        set(names::SHED_PER_SECOND, &|rate| if over(rate) { machine.shed } else { 0.0 });
        let steps: Vec<Step> = asked.into_iter().map(|step| measure(step, &series, None)).collect();
        find(&ramp, &steps, &series, allowance, 2.0)
    }

    #[test]
    fn the_steps_are_those_of_the_script() {
        let steps = ramp().steps();
        assert_eq!(
            steps.iter().map(|step| step.rate).collect::<Vec<_>>(),
            [100.0, 200.0, 300.0, 400.0, 500.0]
        );
        assert_eq!((steps[0].from, steps[0].to, steps[4].to), (3.0, 3.0 + STEP_SECONDS, 28.0));
        let usual = Ramp::of(&BTreeMap::new());
        assert_eq!((usual.steps().len(), usual.step_seconds, usual.warm_up), (20, 10.0, 10.0));
    }

    #[test]
    fn what_never_gives_has_no_limit() {
        let found = found(&IDLE, Some(1.0));
        assert_eq!((found.knee_per_second, found.saturated), (None, Resource::None));
    }

    #[test]
    fn the_limit_lies_between_what_held_and_what_did_not() {
        for limit in [330.0, 399.0, 301.0] {
            let found = found(&Machine { limit, server: 1.0, ..IDLE }, Some(1.0));
            assert_eq!(found.knee_per_second, Some(limit));
            assert_eq!(found.knee_at, Some(18.0), "when 400 were asked for");
            assert_eq!(found.saturated, Resource::ServerCpu);
        }
        // Already the first step was too much.
        assert_eq!(
            found(&Machine { limit: 60.0, server: 1.0, ..IDLE }, Some(1.0)).knee_per_second,
            Some(60.0)
        );
    }

    #[test]
    fn what_ran_out_is_named() {
        let limit = 330.0;
        for (expected, machine, allowance) in [
            (
                Resource::ServerCpu,
                Machine { limit, server: 1.0, generator: 0.9, ..IDLE },
                Some(1.0),
            ),
            // Held to a fifth of a CPU: not much in sum, but all that it may have.
            (Resource::ServerCpu, Machine { limit, server: 0.2, ..IDLE }, Some(0.2)),
            (
                Resource::ServerCpu,
                Machine { limit, server: 0.19, shed: 50.0, failed: 0.3, ..IDLE },
                Some(0.2),
            ),
            (
                Resource::Store,
                Machine { limit, commit_ms: 300.0, pending: 500.0, ..IDLE },
                Some(1.0),
            ),
            // Requests that wait for the store fill the limits up; the store is the cause.
            (
                Resource::Store,
                Machine { limit, commit_ms: 300.0, shed: 20.0, failed: 0.1, ..IDLE },
                Some(1.0),
            ),
            (
                Resource::Generator,
                Machine { limit, server: 0.4, generator: 1.55, ..IDLE },
                Some(1.0),
            ),
            (
                Resource::ConcurrencyLimit,
                Machine { limit, server: 0.3, shed: 40.0, failed: 0.1, ..IDLE },
                Some(1.0),
            ),
            (Resource::Unknown, Machine { limit, server: 0.3, ..IDLE }, Some(1.0)),
        ] {
            let found = found(&machine, allowance);
            assert_eq!(found.saturated, expected, "{:?}", found.evidence);
            assert!(found.evidence.len() >= 3, "{:?}", found.evidence);
            for text in &found.evidence {
                assert!(crate::report::known_in_korean(text), "{text}");
            }
        }
    }

    #[test]
    fn of_nothing_measured_nothing_is_known() {
        let ramp = ramp();
        let series = Series::default();
        let steps: Vec<Step> =
            ramp.steps().into_iter().map(|step| measure(step, &series, None)).collect();
        let found = find(&ramp, &steps, &series, Some(1.0), 2.0);
        assert_eq!((found.knee_per_second, found.saturated), (None, Resource::Unknown));
    }
}
