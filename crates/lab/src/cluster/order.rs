//! The order of joining: numbers, who was overtaken by whom, and in which order people are let in.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::swarm::{Client, Join, Joins, Rush, joins, poll};
use super::{Check, Checks, INSTANCES};
use crate::clock;
use crate::report::{grouped, highest, quantile};
use crate::witness::Seconds;

/// How many are watched while they are let in.
pub(super) const SAMPLE: usize = 200;
/// An admission is known everywhere within "about 200 ms": two ticks, and the time of a poll on a busy machine.
const ADMISSION_KNOWN_S: Seconds = 0.3;
/// The most joins in one batch (sequencer/joins.rs).
const BATCH_MAX: usize = 1_024;
/// Scripts of Redis that a join may cost.
const SCRIPTS_PER_JOIN_MAX: f64 = 0.1;
const ADMITTED_WITHIN_S: Seconds = 60.0;

/// Who asked only after another had the answer, and has a lower number all the same.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Overtaken {
    /// How many were overtaken so.
    fans: usize,
    /// By how much at most.
    ms: f64,
    /// By how many others at most.
    places: usize,
}

fn by_number(joins: &[Join]) -> Vec<&Join> {
    let mut ordered: Vec<&Join> = joins.iter().collect();
    ordered.sort_by_key(|join| join.number);
    ordered
}

/// Works out who was overtaken; by somebody at the same instance, where `alike` is set.
fn overtaken(joins: &[Join], alike: bool) -> Overtaken {
    let mut worst = Overtaken::default();
    // When those with lower numbers asked, in order.
    let mut before: BTreeMap<usize, Vec<Seconds>> = BTreeMap::new();
    for join in by_number(joins) {
        let asked = before.entry(if alike { join.instance } else { 0 }).or_default();
        if let Some(last) = asked.last().filter(|last| **last > join.answered) {
            worst.fans += 1;
            worst.ms = worst.ms.max((last - join.answered) * 1e3);
            let in_time = asked.partition_point(|at| *at <= join.answered);
            worst.places = worst.places.max(asked.len() - in_time);
        }
        asked.insert(asked.partition_point(|at| *at <= join.asked), join.asked);
    }
    worst
}

/// How far the order of numbers is from the order of answers, among joins that were under way together: places and
/// milliseconds at most.
fn displacement(joins: &[Join]) -> (usize, f64) {
    let mut answered: Vec<&Join> = joins.iter().collect();
    answered.sort_by(|one, other| one.answered.total_cmp(&other.answered));
    let places: BTreeMap<u64, usize> =
        answered.iter().enumerate().map(|(place, join)| (join.number, place)).collect();
    let (mut worst_places, mut worst_ms) = (0, 0.0_f64);
    let mut latest = Seconds::NEG_INFINITY;
    for (place, join) in by_number(joins).into_iter().enumerate() {
        worst_places = worst_places.max(places[&join.number].abs_diff(place));
        worst_ms = worst_ms.max((latest - join.answered) * 1e3);
        latest = latest.max(join.answered);
    }
    (worst_places, worst_ms)
}

/// How long at most somebody was still told to wait after somebody behind had been told to be in. Numbers, and when
/// the answer came or, of those who waited, when they had asked.
fn told_late(active: &[(u64, Seconds)], waiting: &[(u64, Seconds)]) -> Seconds {
    let mut behind = active.to_vec();
    behind.sort_by_key(|(number, _)| Reverse(*number));
    let mut earliest = Seconds::INFINITY;
    for (_, answered) in &mut behind {
        earliest = earliest.min(*answered);
        *answered = earliest;
    }
    let late = waiting.iter().filter_map(|(number, asked)| {
        let count = behind.partition_point(|(other, _)| other > number);
        Some(asked - behind.get(count.checked_sub(1)?)?.1)
    });
    late.fold(0.0, f64::max)
}

/// What the instances and Redis counted while people joined.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// Calls of scripts, as Redis counts them, and as the instances do.
    scripts: u64,
    calls: f64,
    /// Numbers that blocks of Redis have passed over.
    skipped: f64,
    errors: f64,
    /// Joins whose numbers came from the store.
    direct: f64,
}

/// What the numbers of joins come to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Numbers {
    lowest: u64,
    highest: u64,
    twice: usize,
    gaps: u64,
}

fn numbers(joins: &[Join]) -> Numbers {
    let all: BTreeSet<u64> = joins.iter().map(|join| join.number).collect();
    let highest = all.last().copied().unwrap_or(0);
    Numbers {
        lowest: all.first().copied().unwrap_or(0),
        highest,
        twice: joins.len() - all.len(),
        gaps: highest - all.len() as u64,
    }
}

/// Says what is wrong with joins, of which there should be `total`.
fn judge(joins: &Joins, total: usize, counted: &Counted) -> Vec<String> {
    let Joins { made, refused } = joins;
    let mut wrong = Vec::new();
    let mut expect = |holds: bool, problem: String| {
        if !holds {
            wrong.push(problem);
        }
    };
    let missing = total.abs_diff(made.len());
    expect(
        missing == 0 && refused.is_empty(),
        format!("{missing} joins were refused: {refused:?}"),
    );
    let numbers = numbers(made);
    expect(
        numbers.twice == 0 && numbers.lowest == 1,
        format!("{} numbers were given twice, and the lowest is {}", numbers.twice, numbers.lowest),
    );
    // Those behind the last number given are passed over too, and are no gap.
    let (gaps, skipped) = (numbers.gaps, counted.skipped);
    expect(
        gaps as f64 <= skipped,
        format!("{gaps} empty places, of which {skipped:.0} are accounted for"),
    );
    let scripts = counted.scripts as f64 / made.len() as f64;
    expect(scripts <= SCRIPTS_PER_JOIN_MAX, format!("{scripts:.3} scripts a join"));
    let (alike, across) = (overtaken(made, true), overtaken(made, false));
    expect(
        alike.fans == 0,
        format!("{} were overtaken within an instance, by {:.1} ms at most", alike.fans, alike.ms),
    );
    if counted.errors > 0.0 || counted.direct > 0.0 {
        // Beside Redis numbers come from the store, and the promise is a batch.
        expect(
            across.places <= BATCH_MAX,
            format!("overtaken by {} places with Redis away in between", across.places),
        );
    } else {
        let Overtaken { fans, ms, places } = across;
        expect(fans == 0, format!("{fans} were overtaken, by {ms:.1} ms and {places} places"));
    }
    wrong
}

impl Checks<'_> {
    pub(super) fn order(&mut self) -> Result<(), String> {
        let total = self.options.joins();
        self.queue("order", &json!({"admitPerSecond": 500}))?;
        let before = self.counted()?;
        let began = clock::now();
        let rush = Rush { queue: "order", total, connections: 384, threads: 2 };
        let joins = joins(&self.ports(), rush)?;
        let took = clock::now() - began;
        let after = self.counted()?;
        let counted = Counted {
            scripts: after.scripts - before.scripts,
            calls: after.calls - before.calls,
            skipped: after.skipped - before.skipped,
            errors: after.errors - before.errors,
            direct: after.direct - before.direct,
        };
        if joins.made.len() < SAMPLE {
            return Err(format!("only {} of {total} joined", joins.made.len()));
        }
        self.record_order(&joins, &counted);
        self.found.wrong(judge(&joins, total, &counted));
        self.admission(&joins.made)?;
        eprintln!("  (the joins took {took:.1} s with starting the clients)");
        Ok(())
    }

    fn counted(&self) -> Result<Counted, String> {
        let of = |name: &str| self.metric(&format!("boxoffice_redis_{name}_total"), "");
        Ok(Counted {
            scripts: self.redis_calls(&["evalsha", "eval"])?,
            calls: of("calls")?,
            skipped: of("places_skipped")?,
            errors: of("errors")?,
            direct: of("direct_joins")?,
        })
    }

    fn record_order(&mut self, joins: &Joins, counted: &Counted) {
        let made = &joins.made;
        let count = made.len();
        let last = made.iter().map(|join| join.answered).fold(Seconds::NEG_INFINITY, f64::max);
        let first = made.iter().map(|join| join.asked).fold(Seconds::INFINITY, f64::min);
        let (span, all) = (last - first, grouped(count as u64));
        let refused: usize = joins.refused.values().sum();
        let rate = grouped((count as f64 / span).round() as u64);
        let text =
            format!("{all} in {span:.1} s ({rate}/s) at {INSTANCES} instances, {refused} refused");
        self.found.record(Check::Order, "joins", text);
        let numbers = numbers(made);
        let text = format!(
            "{} to {}, {} given twice, {} empty places, {:.0} of them passed over by Redis's blocks",
            numbers.lowest,
            grouped(numbers.highest),
            numbers.twice,
            numbers.gaps,
            counted.skipped
        );
        self.found.record(Check::Order, "numbers", text);
        let text = format!(
            "{:.4} scripts a join, ticks and blocks included ({:.4} by the instances' own count), {:.0} errors",
            counted.scripts as f64 / count as f64,
            counted.calls / count as f64,
            counted.errors
        );
        self.found.record(Check::Order, "Redis", text);
        for (place, alike) in [("within an instance", true), ("across instances", false)] {
            let Overtaken { fans, ms, places } = overtaken(made, alike);
            let mut text = format!("{fans} of {all} by one who asked after their answer");
            if fans > 0 {
                text += &format!(", by {ms:.1} ms and {places} places at most");
            }
            self.found.record(Check::Order, &format!("overtaken {place}"), text);
        }
        let (places, ms) = displacement(made);
        let latencies: Vec<f64> =
            made.iter().map(|join| (join.answered - join.asked) * 1e3).collect();
        let at = |share| quantile(&latencies, share).unwrap_or(f64::NAN);
        let text = format!(
            "up to {places} places and {ms:.1} ms from the order of numbers, among joins under way together (latency p50 \
             {:.1} ms, p99 {:.1} ms, max {:.1} ms)",
            at(0.5),
            at(0.99),
            highest(&latencies).unwrap_or(f64::NAN)
        );
        self.found.record(Check::Order, "order of answers", text);
    }

    /// The same people are let in in the order of their numbers, wherever they ask.
    fn admission(&mut self, joins: &[Join]) -> Result<(), String> {
        let mut sample = self.random.choose_multiple(joins, SAMPLE);
        sample.sort_by_key(|join| join.number);
        let body = json!({"admitPerSecond": joins.len() as f64 / 8.0});
        self.first().admin("PATCH", "/admin/v1/queues/order", Some(&body))?;
        let clients = self.ports().into_iter().map(Client::connect);
        let mut clients = clients.collect::<Result<Vec<_>, _>>()?;
        let (mut active, mut waiting) = (Vec::new(), Vec::new());
        let mut look = |index: usize, instance: usize| {
            let join = sample[index];
            let answer = clients[instance].send(&poll(&join.token))?;
            if answer.status() != 200 {
                return Err(format!("a poll was answered {}", answer.text()));
            }
            match answer.json()?["status"].as_str() {
                Some("ACTIVATED") => {
                    active.push((join.number, answer.answered));
                    Ok(true)
                }
                Some("WAITING") => {
                    waiting.push((join.number, answer.asked));
                    Ok(false)
                }
                other => Err(format!("ticket {} is {other:?}", join.number)),
            }
        };
        let until = clock::now() + ADMITTED_WITHIN_S;
        let mut front = 0;
        for here in (0..INSTANCES).cycle() {
            if front == sample.len() {
                break;
            }
            if clock::now() > until {
                let number = sample[front].number;
                return Err(format!(
                    "number {number} was not admitted within {ADMITTED_WITHIN_S} s"
                ));
            }
            if look(front, here)? {
                // Somebody ahead must be in everywhere by now, or very soon.
                for index in front.saturating_sub(2)..=front {
                    for other in 0..INSTANCES {
                        look(index, other)?;
                    }
                }
                front += 1;
            }
        }
        let ms = told_late(&active, &waiting) * 1e3;
        let text = format!(
            "in the order of numbers; {} polls of {SAMPLE} of them: told to wait at one instance up to {ms:.0} ms after \
             somebody behind was in at another",
            grouped((active.len() + waiting.len()) as u64)
        );
        self.found.record(Check::Order, "admission", text);
        self.found.expect(ms <= ADMISSION_KNOWN_S * 1e3, || {
            format!("waiting {ms:.0} ms after somebody behind was admitted elsewhere")
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When somebody asked and was answered (ms), at which instance, with which number.
    fn made(rows: &[(u32, u32, usize, u64)]) -> Vec<Join> {
        rows.iter()
            .map(|&(asked, answered, instance, number)| Join {
                asked: f64::from(asked) / 1e3,
                answered: f64::from(answered) / 1e3,
                instance,
                number,
                token: String::new(),
            })
            .collect()
    }

    fn rounded(mut found: Overtaken) -> (usize, f64, usize) {
        found.ms = found.ms.round();
        (found.fans, found.ms, found.places)
    }

    #[test]
    fn overtaking_is_found() {
        let together = made(&[(0, 9, 0, 2), (1, 8, 1, 1)]);
        let after = made(&[(0, 1, 0, 3), (3, 4, 1, 1), (2, 4, 0, 2)]);
        assert_eq!(rounded(overtaken(&together, false)), (0, 0.0, 0));
        assert_eq!(rounded(overtaken(&after, false)), (1, 2.0, 2));
        assert_eq!(rounded(overtaken(&after, true)), (1, 1.0, 1));
        // Who asks in the moment of an answer does not ask after it.
        assert_eq!(rounded(overtaken(&made(&[(0, 1, 0, 2), (1, 2, 0, 1)]), true)), (0, 0.0, 0));
    }

    #[test]
    fn numbers_beside_the_order_of_answers_are_measured() {
        let (places, ms) = displacement(&made(&[(0, 9, 0, 1), (1, 8, 1, 2), (2, 7, 1, 3)]));
        assert_eq!((places, ms.round()), (2, 2.0));
        assert_eq!(displacement(&made(&[(0, 1, 0, 1), (0, 2, 1, 2)])), (0, 0.0));
    }

    #[test]
    fn whoever_waits_while_somebody_behind_is_in_is_found() {
        let active = [(5, 10.0), (9, 4.0), (7, 6.0)];
        // Ahead of all of them, told to wait at 5: number 9 was in at 4.
        assert_eq!(told_late(&active, &[(3, 5.0)]), 1.0);
        assert_eq!(told_late(&active, &[(8, 5.5), (6, 4.0)]), 1.5);
        assert_eq!(told_late(&active, &[(9, 50.0), (3, 3.0)]), 0.0);
        assert_eq!(told_late(&[], &[(1, 1.0)]), 0.0);
    }

    /// Twenty joins in good order at two instances.
    fn orderly() -> (Joins, Counted) {
        let rows: Vec<(u32, u32, usize, u64)> =
            (0..20).map(|n| (n * 2, n * 2 + 1, n as usize % 2, u64::from(n) + 1)).collect();
        (
            Joins { made: made(&rows), ..Joins::default() },
            Counted { scripts: 1, ..Counted::default() },
        )
    }

    #[test]
    fn each_fault_of_an_order_is_found() {
        let (joins, counted) = orderly();
        assert_eq!(judge(&joins, 20, &counted), [""; 0]);
        let plant = |change: &dyn Fn(&mut Joins, &mut Counted)| {
            let (mut joins, mut counted) = orderly();
            change(&mut joins, &mut counted);
            judge(&joins, 20, &counted)
        };
        let found = plant(&|joins, _| {
            joins.made.pop();
            joins.refused.insert(503, 1);
        });
        assert_eq!(found, ["1 joins were refused: {503: 1}"]);
        let found = plant(&|joins, _| joins.made[19].number = 19);
        assert_eq!(found, ["1 numbers were given twice, and the lowest is 1"]);
        let found = plant(&|joins, counted| {
            joins.made.iter_mut().for_each(|join| join.number += 1);
            counted.skipped = 1.0;
        });
        assert_eq!(found, ["0 numbers were given twice, and the lowest is 2"]);
        let found = plant(&|joins, counted| {
            joins.made[19].number = 23;
            counted.skipped = 2.0;
        });
        assert_eq!(found, ["3 empty places, of which 2 are accounted for"]);
        assert_eq!(plant(&|_, counted| counted.scripts = 3), ["0.150 scripts a join"]);
        // Two numbers changed places, at one instance: 18 and 20; at two: 19 and 20.
        let swap = |one: usize, other: usize| {
            move |joins: &mut Joins, _: &mut Counted| {
                let number = joins.made[one].number;
                joins.made[one].number = joins.made[other].number;
                joins.made[other].number = number;
            }
        };
        assert_eq!(
            plant(&swap(17, 19)),
            [
                "1 were overtaken within an instance, by 3.0 ms at most",
                "2 were overtaken, by 3.0 ms and 2 places"
            ]
        );
        assert_eq!(plant(&swap(18, 19)), ["1 were overtaken, by 1.0 ms and 1 places"]);
        // While Redis is away, that is within what is promised.
        let away = |joins: &mut Joins, counted: &mut Counted| {
            swap(18, 19)(joins, counted);
            counted.direct = 1.0;
        };
        assert_eq!(plant(&away), [""; 0]);
        let far = |joins: &mut Joins, counted: &mut Counted| {
            // Everybody after the first is ahead of them.
            let rows: Vec<(u32, u32, usize, u64)> = (0..1_026)
                .map(|n| (n, n, n as usize, if n == 0 { 1_026 } else { u64::from(n) }))
                .collect();
            joins.made = made(&rows);
            counted.errors = 1.0;
        };
        let found = plant(&far);
        assert_eq!(
            found[1..],
            ["overtaken by 1025 places with Redis away in between"],
            "{found:?}"
        );
    }
}
