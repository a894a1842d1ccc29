//! What a round and a drill come to. Plain functions of what was told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::probe::Probed;
use crate::load::{Kind, Outcome, Sample};
use crate::report::{highest, median, quantile, rounded};
use crate::scene::Final;
use crate::witness::{self, Finding, LateNews, Overtaken, Seconds, Verdict};

/// The rate of success that counts as recovered, and for how long.
const RECOVERED: f64 = 0.99;
const RECOVERED_FOR_S: Seconds = 2.0;

/// Requests by kind and outcome.
pub(crate) type Requests = BTreeMap<Kind, BTreeMap<Outcome, u64>>;

/// Counts requests.
pub(crate) fn count(samples: &[Sample]) -> Requests {
    let mut table = Requests::new();
    for sample in samples {
        *table.entry(sample.kind).or_default().entry(sample.outcome).or_default() += 1;
    }
    table
}

/// How soon it was over, from the end of the fault, in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Recovery {
    /// To the first success of each kind.
    pub(crate) first: BTreeMap<Kind, Seconds>,
    /// Until nearly all are successes.
    pub(crate) whole: Option<Seconds>,
}

/// Works out how soon it was over.
pub(crate) fn recovery(samples: &[Sample], fault_ended: Seconds, ended: Seconds) -> Recovery {
    let mut after: Vec<&Sample> = samples.iter().filter(|it| it.began >= fault_ended).collect();
    after.sort_by(|one, other| one.began.total_cmp(&other.began));
    let mut first = BTreeMap::new();
    for sample in after.iter().filter(|sample| sample.outcome.is_good()) {
        let soonest: &mut f64 = first.entry(sample.kind).or_insert(f64::INFINITY);
        *soonest = soonest.min(rounded(sample.done - fault_ended));
    }
    let steps = (((ended - fault_ended - RECOVERED_FOR_S) * 10.0).floor() + 1.0).max(0.0) as u32;
    let whole = (0..steps).map(|step| f64::from(step) / 10.0).find(|since| {
        let at = fault_ended + since;
        let window = after.iter().filter(|it| (at..at + RECOVERED_FOR_S).contains(&it.began));
        let (good, all) = window.fold((0, 0), |(good, all), sample| {
            (good + i32::from(sample.outcome.is_good()), all + 1)
        });
        all > 0 && f64::from(good) >= RECOVERED * f64::from(all)
    });
    Recovery { first, whole }
}

/// Milliseconds of the polls of the probe.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Polls {
    pub(crate) before: Vec<f64>,
    pub(crate) during: Vec<f64>,
    pub(crate) after: Vec<f64>,
    /// How many were not answered with 200.
    pub(crate) failed: usize,
}

/// Sorts polls by when they were sent. During ends where the fault ends, or lasts a second where there is
/// no end to wait for.
pub(crate) fn polls(probed: &[Probed], fault: [Seconds; 2]) -> Polls {
    let until = fault[1].max(fault[0] + 1.0);
    let mut polls = Polls::default();
    for poll in probed {
        if poll.status != 200 {
            polls.failed += 1;
        } else if poll.at < fault[0] {
            polls.before.push(poll.ms);
        } else if poll.at < until {
            polls.during.push(poll.ms);
        } else {
            polls.after.push(poll.ms);
        }
    }
    polls
}

/// Polls that another instance answered with a higher number, for as long as news take.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Late {
    pub(crate) polls: usize,
    pub(crate) seconds: Seconds,
    pub(crate) numbers: u64,
}

/// Sums up the late news of a round.
pub(crate) fn late(news: &[LateNews], round: u32) -> Late {
    let own: Vec<&LateNews> = news.iter().filter(|news| news.round == round).collect();
    Late {
        polls: own.len(),
        seconds: rounded(own.iter().map(|news| news.age).fold(0.0, f64::max)),
        numbers: own.iter().map(|news| news.numbers).max().unwrap_or(0),
    }
}

/// A finding, as a report keeps it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) round: u32,
    pub(crate) kind: witness::Kind,
    pub(crate) text: Finding,
    /// Seconds from the start of the round.
    pub(crate) at: Seconds,
}

/// One round.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Round {
    pub(crate) round: u32,
    pub(crate) ok: bool,
    pub(crate) seconds: Seconds,
    pub(crate) fault_seconds: Seconds,
    /// When the fault began and ended, from the start of the round.
    pub(crate) fault: [Seconds; 2],
    pub(crate) requests: Requests,
    pub(crate) recovery: Recovery,
    pub(crate) polls: Polls,
    pub(crate) late_news: Late,
    pub(crate) overtaken: Overtaken,
    pub(crate) joined: usize,
    pub(crate) payments: usize,
    pub(crate) reservations: usize,
    pub(crate) verdicts: BTreeMap<Kind, BTreeMap<Verdict, u32>>,
    pub(crate) findings: Vec<Found>,
    pub(crate) samples: Vec<Sample>,
}

/// The middle and the highest of all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: Option<Seconds>,
    pub(crate) max: Option<Seconds>,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        Self { median: median(values), max: highest(values) }
    }
}

/// How soon nearly everything was answered as it should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Whole {
    #[serde(flatten)]
    pub(crate) spread: Spread,
    pub(crate) not_within_round: usize,
}

/// Both ways to be back, over all rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Back {
    pub(crate) whole: Whole,
    pub(crate) first: BTreeMap<Kind, Spread>,
}

/// The polls of a time, over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PollSpread {
    pub(crate) polls: usize,
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

impl PollSpread {
    fn of<'a>(parts: impl Iterator<Item = &'a Vec<f64>>) -> Self {
        let all: Vec<f64> = parts.flatten().copied().collect();
        Self { polls: all.len(), p50: quantile(&all, 0.5), p99: quantile(&all, 0.99) }
    }
}

/// The polls of the probe, over all rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct PollSpreads {
    pub(crate) before: PollSpread,
    pub(crate) during: PollSpread,
    pub(crate) after: PollSpread,
}

/// A whole drill.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) drill: String,
    pub(crate) about: String,
    pub(crate) fault_ends: String,
    pub(crate) rounds: usize,
    pub(crate) rounds_ok: usize,
    /// How long the fault lasts, where that is chosen.
    pub(crate) seconds: Option<Seconds>,
    pub(crate) instances: usize,
    pub(crate) requests: Requests,
    /// Findings by group.
    pub(crate) found: BTreeMap<&'static str, usize>,
    pub(crate) recovery: Back,
    pub(crate) polls: PollSpreads,
    pub(crate) polls_failed: usize,
    pub(crate) overtaken: Overtaken,
    pub(crate) late_news: Late,
    pub(crate) joined: usize,
    pub(crate) payments: usize,
    pub(crate) reservations: usize,
    /// The consumer drops them and says how many there were.
    pub(crate) events_repeated: Option<u64>,
    #[serde(rename = "final")]
    pub(crate) last: Final,
}

impl Summary {
    /// How many requests came to an end of this kind.
    pub(crate) fn outcomes(&self, wanted: &[Outcome]) -> u64 {
        let rows = self.requests.values();
        rows.flat_map(|row| wanted.iter().filter_map(|outcome| row.get(outcome))).sum()
    }

    /// Whether nothing was wrong.
    pub(crate) fn is_ok(&self) -> bool {
        self.rounds > 0 && self.rounds_ok == self.rounds && self.last.problems.is_empty()
    }
}

/// What a drill is called in a report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Title<'a> {
    pub(crate) name: &'a str,
    pub(crate) about: &'a str,
    pub(crate) ends: &'a str,
    pub(crate) seconds: Option<Seconds>,
    pub(crate) instances: usize,
}

/// Sums up the rounds of a drill.
pub(crate) fn summary(title: Title<'_>, rounds: &[Round], last: &Final) -> Summary {
    let mut requests = Requests::new();
    let mut first: BTreeMap<Kind, Vec<f64>> = BTreeMap::new();
    let mut found: BTreeMap<&str, usize> =
        witness::Kind::GROUPS.into_iter().map(|group| (group, 0)).collect();
    for round in rounds {
        for (kind, row) in &round.requests {
            for (outcome, count) in row {
                *requests.entry(*kind).or_default().entry(*outcome).or_default() += count;
            }
        }
        for (kind, seconds) in &round.recovery.first {
            first.entry(*kind).or_default().push(*seconds);
        }
        for finding in &round.findings {
            *found.entry(finding.kind.group()).or_default() += 1;
        }
    }
    let whole: Vec<f64> = rounds.iter().filter_map(|round| round.recovery.whole).collect();
    let late = rounds.iter().map(|round| round.late_news);
    let overtaken = rounds.iter().map(|round| round.overtaken);
    Summary {
        drill: title.name.to_owned(),
        about: title.about.to_owned(),
        fault_ends: title.ends.to_owned(),
        rounds: rounds.len(),
        rounds_ok: rounds.iter().filter(|round| round.ok).count(),
        seconds: title.seconds,
        instances: title.instances,
        requests,
        found,
        recovery: Back {
            whole: Whole {
                spread: Spread::of(&whole),
                not_within_round: rounds.len() - whole.len(),
            },
            first: first.iter().map(|(kind, values)| (*kind, Spread::of(values))).collect(),
        },
        polls: PollSpreads {
            before: PollSpread::of(rounds.iter().map(|round| &round.polls.before)),
            during: PollSpread::of(rounds.iter().map(|round| &round.polls.during)),
            after: PollSpread::of(rounds.iter().map(|round| &round.polls.after)),
        },
        polls_failed: rounds.iter().map(|round| round.polls.failed).sum(),
        overtaken: overtaken.fold(Overtaken::default(), |sum, one| Overtaken {
            fans: sum.fans + one.fans,
            numbers: sum.numbers.max(one.numbers),
            seconds: sum.seconds.max(one.seconds),
        }),
        late_news: late.fold(Late::default(), |sum, one| Late {
            polls: sum.polls + one.polls,
            numbers: sum.numbers.max(one.numbers),
            seconds: sum.seconds.max(one.seconds),
        }),
        joined: rounds.iter().map(|round| round.joined).sum(),
        payments: rounds.last().map_or(0, |round| round.payments),
        reservations: rounds.last().map_or(0, |round| round.reservations),
        events_repeated: testbed::cluster::repetitions(&last.consumed),
        last: last.clone(),
    }
}

/// How many of the last requests were answered as they should be, of how many.
pub(crate) fn good_of(samples: &[Sample], since: Seconds) -> (usize, usize) {
    // Those of the last second are among these.
    let last = &samples[samples.len().saturating_sub(400)..];
    let recent = last.iter().filter(|sample| sample.began > since);
    recent
        .fold((0, 0), |(good, all), sample| (good + usize::from(sample.outcome.is_good()), all + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(began: f64, outcome: Outcome) -> Sample {
        Sample {
            began,
            done: began + 0.25,
            kind: if began < 12.0 { Kind::Poll } else { Kind::Join },
            outcome,
            via: "haproxy".to_owned(),
            status: 200,
            code: String::new(),
        }
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_fault() {
        // Nothing but failures until a second after the fault, which ends at 10.
        let at = |began: f64| {
            let good = !(8.0..11.0).contains(&began);
            sample(began, if good { Outcome::Done } else { Outcome::Unavailable })
        };
        let samples: Vec<Sample> = (0..150).map(|step| at(f64::from(step) / 10.0)).collect();
        let found = recovery(&samples, 10.0, 15.0);
        assert_eq!(found.whole, Some(1.0));
        assert_eq!(found.first, BTreeMap::from([(Kind::Poll, 1.25), (Kind::Join, 2.25)]));
        assert_eq!(recovery(&samples, 10.0, 12.9).whole, None);
        let counted = count(&samples);
        assert_eq!(counted[&Kind::Poll][&Outcome::Unavailable], 30);
        assert_eq!(good_of(&samples, 10.45), (40, 45));
        // One failure of a hundred is bearable.
        let mut many: Vec<Sample> =
            (0..200).map(|step| sample(f64::from(step) / 100.0, Outcome::Refused)).collect();
        many[7].outcome = Outcome::None;
        assert_eq!(recovery(&many, 0.0, 2.5).whole, Some(0.0));
        many[8].outcome = Outcome::None;
        many[9].outcome = Outcome::None;
        assert_eq!(recovery(&many, 0.0, 2.5).whole, Some(0.1));
    }

    #[test]
    fn polls_are_sorted_by_the_fault() {
        let poll = |at: f64, status: u16| Probed { at, ms: at, status };
        let probed = [0.5, 1.0, 1.4, 1.9, 2.0, 3.0].map(|at| poll(at, 200));
        let sorted = polls(&probed, [1.0, 1.2]);
        assert_eq!(sorted.before, [0.5]);
        assert_eq!(sorted.during, [1.0, 1.4, 1.9]);
        assert_eq!(sorted.after, [2.0, 3.0]);
        assert_eq!(polls(&[poll(0.0, 503), poll(0.0, 0)], [1.0, 2.0]).failed, 2);
    }

    #[test]
    fn a_drill_without_a_round_is_not_ok() {
        let title = Title { name: "a", about: "b", ends: "c", seconds: None, instances: 3 };
        assert!(!summary(title, &[], &Final::default()).is_ok());
    }
}
