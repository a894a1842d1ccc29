//! What k6 and the sampler measured, on one time axis with a point for each second.

use std::collections::BTreeMap;

use crate::k6::Recording;
use crate::model::{Series, names};
use crate::sample::{Samples, Scrape, Usage};

/// Metric and aggregate of k6, and what they are called here.
const OF_K6: [(&str, &str, &str); 17] = [
    ("vus", "value", names::VUS),
    ("http_reqs", "rate", names::REQUESTS_PER_SECOND),
    ("iterations", "rate", names::ITERATIONS_PER_SECOND),
    ("dropped_iterations", "rate", names::DROPPED_PER_SECOND),
    ("http_req_failed", "rate", names::FAILED_SHARE),
    ("http_req_duration", "avg", names::DURATION_AVG),
    ("http_req_duration", "med", names::DURATION_P50),
    ("http_req_duration", "p(90)", names::DURATION_P90),
    ("http_req_duration", "p(95)", names::DURATION_P95),
    ("http_req_duration", "p(99)", names::DURATION_P99),
    ("http_req_duration", "max", names::DURATION_MAX),
    ("http_req_waiting", "avg", names::WAITING_AVG),
    ("http_req_waiting", "p(95)", names::WAITING_P95),
    ("http_req_connecting", "avg", names::CONNECTING_AVG),
    ("http_req_connecting", "p(95)", names::CONNECTING_P95),
    // Not in the report, but what the knee is found by.
    ("checks", "rate", CHECKS_PASSED_SHARE),
    ("vus_max", "value", VUS_MAX),
];
const CHECKS_PASSED_SHARE: &str = "checks_passed_share";
const VUS_MAX: &str = "vus_max";

/// Counters of the service: what a sum over labels rises by in a second.
const RATES: [(&str, &str); 3] = [
    ("boxoffice_queue_joined_total", names::JOINED_PER_SECOND),
    ("boxoffice_queue_admitted_total", names::ADMITTED_PER_SECOND),
    ("http_server_requests_shed_total", names::SHED_PER_SECOND),
];
/// One label of a counter.
const LABELLED_RATES: [(&str, &str); 2] = [
    ("boxoffice_reservations_total{outcome=\"created\"}", names::RESERVED_PER_SECOND),
    ("boxoffice_payments_total{outcome=\"completed\"}", names::PAID_PER_SECOND),
];
const LEVELS: [(&str, &str); 3] = [
    ("boxoffice_queue_waiting", names::QUEUE_WAITING),
    ("boxoffice_queue_active", names::QUEUE_ACTIVE),
    ("boxoffice_store_pending_commands", names::STORE_PENDING),
];

/// Puts everything onto one axis that begins at `start_ms` (since 1970).
pub(crate) fn merge(
    start_ms: f64,
    warm_up_seconds: f64,
    recording: &Recording,
    samples: &Samples,
) -> Series {
    let second_of = |at_ms: f64| ((at_ms - start_ms) / 1000.0).round();
    let times = recording
        .seconds
        .iter()
        .map(|second| second.at_ms)
        .chain(samples.usage.iter().map(|u| u.at_ms));
    let last = times.map(second_of).fold(0.0, f64::max) as usize;
    let mut axis = Axis { length: last, values: BTreeMap::new() };
    for second in &recording.seconds {
        let at = second_of(second.at_ms);
        for (metric, aggregate, name) in OF_K6 {
            axis.set(name, at, second.get(metric, aggregate));
        }
    }
    for (before, after) in samples.usage.iter().zip(samples.usage.iter().skip(1)) {
        let at = second_of(after.at_ms);
        let elapsed = (after.at_ms - before.at_ms) / 1000.0;
        // The last sample may be taken at once after the one before it: ticks of 10 ms say nothing then.
        if elapsed < 0.3 {
            continue;
        }
        let rate = |get: fn(&Usage) -> Option<f64>| {
            Some(((get(after)? - get(before)?) / elapsed).max(0.0))
        };
        axis.set(names::SERVER_CPUS, at, rate(|usage| usage.server_cpu));
        axis.set(names::ENGINE_CPUS, at, rate(|usage| usage.engine_cpu));
        axis.set(names::GENERATOR_CPUS, at, rate(|usage| usage.generator_cpu));
        axis.set(names::MACHINE_CPUS, at, rate(|usage| usage.machine_cpu));
        axis.set(names::SERVER_RSS, at, after.server_rss.map(|bytes| bytes as f64));
    }
    for (before, after) in samples.scrapes.iter().zip(samples.scrapes.iter().skip(1)) {
        scraped(&mut axis, second_of(after.at_ms), before, after);
    }
    Series {
        at: (1..=last).map(|second| second as f64).collect(),
        warm_up_seconds,
        values: axis.values,
    }
}

fn scraped(axis: &mut Axis, at: f64, before: &Scrape, after: &Scrape) {
    let elapsed = (after.at_ms - before.at_ms) / 1000.0;
    if elapsed < 0.3 {
        return;
    }
    // A labelled counter is not there before it first counts; a sum that falls is a restart.
    let rise = |before: Option<f64>, after: Option<f64>| {
        let rise = after? - before.unwrap_or(0.0);
        (rise >= 0.0).then_some(rise)
    };
    for (metric, name) in RATES {
        axis.set(name, at, rise(before.sum(metric), after.sum(metric)).map(|rise| rise / elapsed));
    }
    for (key, name) in LABELLED_RATES {
        let get = |scrape: &Scrape| scrape.values.get(key).copied();
        let rise = match get(after) {
            // Nothing of it has happened yet, which the service says by leaving it out.
            None => after.sum("boxoffice_queue_serving").map(|_| 0.0),
            some => rise(get(before), some),
        };
        axis.set(name, at, rise.map(|rise| rise / elapsed));
    }
    for (metric, name) in LEVELS {
        axis.set(name, at, after.sum(metric));
    }
    let of_commits = |part: &str| {
        let name = format!("boxoffice_store_commit_duration_seconds_{part}");
        rise(before.sum(&name), after.sum(&name))
    };
    if let (Some(sum), Some(count)) = (of_commits("sum"), of_commits("count"))
        && count > 0.0
    {
        axis.set(names::COMMIT_MS, at, Some(sum / count * 1000.0));
    }
}

struct Axis {
    length: usize,
    values: BTreeMap<String, Vec<Option<f64>>>,
}

impl Axis {
    fn set(&mut self, name: &str, at: f64, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else { return };
        // Before the first second is before the run.
        if at < 1.0 || at as usize > self.length {
            return;
        }
        let length = self.length;
        let points = self.values.entry(name.to_owned()).or_insert_with(|| vec![None; length]);
        points[at as usize - 1] = Some(value);
    }
}

/// Mean of a series over the seconds from `from` to `to`; `None` where nothing was measured in them.
pub(crate) fn mean(series: &Series, name: &str, from: f64, to: f64) -> Option<f64> {
    let points = points(series, name, from, to);
    let (sum, count) = points.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Highest value of a series from `from` to `to`.
pub(crate) fn highest(series: &Series, name: &str, from: f64, to: f64) -> Option<f64> {
    points(series, name, from, to).reduce(f64::max)
}

fn points<'a>(
    series: &'a Series,
    name: &str,
    from: f64,
    to: f64,
) -> impl Iterator<Item = f64> + 'a {
    let values = series.values.get(name).map_or(&[][..], Vec::as_slice);
    series
        .at
        .iter()
        .zip(values)
        .filter(move |(at, _)| **at > from && **at <= to)
        .filter_map(|(_, value)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECONDS: &str = include_str!("../tests/fixtures/seconds.ndjson");

    fn usage(at_ms: f64, server: f64) -> Usage {
        Usage {
            at_ms,
            server_cpu: Some(server),
            machine_cpu: Some(server * 2.0),
            ..Usage::default()
        }
    }

    fn scrape(at_ms: f64, joined: f64, sum: f64, count: f64) -> Scrape {
        let values = [
            ("boxoffice_queue_joined_total{queue=\"main\"}", joined),
            ("boxoffice_queue_joined_total{queue=\"other\"}", 1.0),
            ("boxoffice_queue_serving{queue=\"main\"}", 0.0),
            ("boxoffice_queue_waiting{queue=\"main\"}", 7.0),
            ("boxoffice_store_commit_duration_seconds_sum", sum),
            ("boxoffice_store_commit_duration_seconds_count", count),
        ];
        Scrape { at_ms, values: values.map(|(name, value)| (name.to_owned(), value)).into() }
    }

    #[test]
    fn both_sources_meet_on_one_axis() {
        let recording = Recording::parse(SECONDS);
        let start = recording.start_ms.unwrap();
        let at = |seconds: f64| start + seconds * 1000.0;
        let samples = Samples {
            // One of them came late.
            usage: vec![
                usage(at(0.1), 1.0),
                usage(at(1.1), 1.5),
                usage(at(2.2), 1.5),
                usage(at(4.1), 3.4),
            ],
            scrapes: vec![
                scrape(at(0.0), 0.0, 0.0, 0.0),
                scrape(at(1.0), 10.0, 0.5, 100.0),
                scrape(at(2.0), 10.0, 0.5, 100.0),
            ],
        };
        let series = merge(start, 4.0, &recording, &samples);
        assert_eq!(series.at, (1..=11).map(f64::from).collect::<Vec<_>>());
        assert!(series.values.values().all(|values| values.len() == series.at.len()));
        let get = |name: &str, at: usize| series.values[name][at - 1];
        assert_eq!(get(names::DURATION_P95, 1), Some(2.0338));
        assert_eq!(get(names::DURATION_P95, 3), None, "nothing was asked in that second");
        assert_eq!(get(names::REQUESTS_PER_SECOND, 3), Some(0.0));
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        assert!(close(get(names::SERVER_CPUS, 1), 0.5));
        assert!(close(get(names::SERVER_CPUS, 2), 0.0));
        assert_eq!(get(names::SERVER_CPUS, 3), None);
        assert!(close(get(names::SERVER_CPUS, 4), 1.0), "1.9 s of CPU in 1.9 s");
        assert!(close(get(names::JOINED_PER_SECOND, 1), 10.0));
        assert!(close(get(names::JOINED_PER_SECOND, 2), 0.0));
        assert!(close(get(names::COMMIT_MS, 1), 5.0));
        assert_eq!(get(names::COMMIT_MS, 2), None, "no commit has no duration");
        assert_eq!(
            get(names::PAID_PER_SECOND, 1),
            Some(0.0),
            "the service leaves out what never happened"
        );
        assert_eq!(get(names::QUEUE_WAITING, 2), Some(7.0));
        assert!(!series.values.contains_key(names::ENGINE_CPUS));
    }

    #[test]
    fn means_are_of_what_was_measured() {
        let mut series = Series { at: vec![1.0, 2.0, 3.0, 4.0], ..Series::default() };
        series.values.insert("x".to_owned(), vec![Some(1.0), None, Some(4.0), Some(100.0)]);
        assert_eq!(mean(&series, "x", 0.0, 3.0), Some(2.5));
        assert_eq!(highest(&series, "x", 0.0, 3.0), Some(4.0));
        assert_eq!(mean(&series, "x", 1.0, 2.0), None);
        assert_eq!(mean(&series, "y", 0.0, 9.0), None);
    }
}
