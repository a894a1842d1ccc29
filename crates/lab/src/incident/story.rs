//! What happened in an incident, second by second, and whether what must hold did.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::{Check, Incident};
use super::watch::Look;
use crate::load::{self, Outcome, Sample};
use crate::report::{quantile, rounded};
use crate::witness::Seconds;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Join,
    Poll,
    Seats,
    Reserve,
    Pay,
    /// What comes on top of what fans do.
    Flood,
}

impl Kind {
    /// Reads what k6 calls it.
    pub(crate) fn of_tag(name: &str) -> Option<Self> {
        Some(match name {
            "join" => Self::Join,
            "poll" => Self::Poll,
            "seats" => Self::Seats,
            "reserve" => Self::Reserve,
            "pay" => Self::Pay,
            "flood" => Self::Flood,
            _ => return None,
        })
    }

    fn of_load(kind: load::Kind) -> Option<Self> {
        Some(match kind {
            load::Kind::Join => Self::Join,
            load::Kind::Poll => Self::Poll,
            load::Kind::Seats => Self::Seats,
            load::Kind::Reserve => Self::Reserve,
            load::Kind::Pay => Self::Pay,
            load::Kind::Leave
            | load::Kind::Cancel
            | load::Kind::Refund
            | load::Kind::Charge
            | load::Kind::Balance => return None,
        })
    }

    const fn is_purchase(self) -> bool {
        matches!(self, Self::Reserve | Self::Pay)
    }
}

/// A request and what came of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) began: Seconds,
    pub(crate) done: Seconds,
    pub(crate) kind: Kind,
    /// 0 where there was no answer.
    pub(crate) status: u16,
}

impl Request {
    /// A request of the witness' own fans.
    pub(crate) fn of(sample: &Sample) -> Option<Self> {
        let status = match sample.outcome {
            Outcome::None | Outcome::NoneDirect => 0,
            _ => sample.status,
        };
        let kind = Kind::of_load(sample.kind)?;
        Some(Self { began: sample.began, done: sample.done, kind, status })
    }

    const fn has_failed(&self) -> bool {
        self.status == 0 || self.status >= 500
    }

    fn ms(&self) -> f64 {
        (self.done - self.began) * 1e3
    }
}

/// Whether somebody who was let in has a seat in the end, and when that was clear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bought {
    pub(crate) at: Seconds,
    pub(crate) did: bool,
}

/// Something that happened at a moment.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub(crate) struct Moment {
    pub(crate) at: Seconds,
    pub(crate) what: Event,
}

/// What happens in an incident.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    /// Something breaks.
    Fault(String),
    /// The first second in which somebody notices.
    FirstBad,
    /// An alarm has reached the webhook.
    Alarm(String),
    /// It is over, says the webhook.
    Resolved(String),
    /// Something was done about it.
    Action(String),
    /// What broke is whole again.
    FaultEnds,
    /// Everything is as before.
    Normal,
}

/// A second of an incident.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Second {
    /// Its beginning, counted from the fault.
    pub(crate) at: i64,
    pub(crate) requests: BTreeMap<Kind, Tally>,
    pub(crate) share: Option<f64>,
    pub(crate) waiting: Option<f64>,
    /// Instances that answered.
    pub(crate) instances: usize,
}

/// Requests of a kind that ended in a second.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Tally {
    pub(crate) all: u32,
    pub(crate) failed: u32,
    pub(crate) p99_ms: Option<f64>,
}

/// A figure that must keep within a limit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Bound {
    pub(crate) what: Measure,
    pub(crate) limit: f64,
    /// `None`: it could not be measured, and counts as not kept.
    pub(crate) measured: Option<f64>,
    pub(crate) holds: bool,
}

/// What a bound is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    AlarmAfter,
    Alarms,
    Lost,
    Bought,
    PollsSlower,
    BackAfter,
    JoinsRefusedFor,
    SharedAfter,
    Paid,
    PrimaryReads,
    Goodput,
    Failed,
    LowestShare,
    ReadsAnswered,
}

impl Bound {
    fn at_most(what: Measure, limit: f64, measured: Option<f64>) -> Self {
        Self { what, limit, measured, holds: measured.is_some_and(|it| it <= limit) }
    }

    fn at_least(what: Measure, limit: f64, measured: Option<f64>) -> Self {
        Self { what, limit, measured, holds: measured.is_some_and(|it| it >= limit) }
    }
}

/// All that was seen of an incident. Times are those of one clock.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When the load was on and nothing was wrong yet.
    pub(crate) calm_from: Seconds,
    pub(crate) fault: Seconds,
    pub(crate) fault_ends: Seconds,
    pub(crate) ends: Seconds,
    pub(crate) requests: Vec<Request>,
    pub(crate) bought: Vec<Bought>,
    /// How many of k6's fans were let in, who may have been interrupted before it was clear.
    pub(crate) inside: u32,
    pub(crate) looks: Vec<Look>,
    pub(crate) moments: Vec<Moment>,
    /// What the witness and the audits found.
    pub(crate) lost: Vec<String>,
    /// Queries beyond the usual ones at the primary while it lasted.
    pub(crate) primary_reads: Option<f64>,
    /// When an instance was started for it, and its name.
    pub(crate) started: Option<(Seconds, String)>,
}

/// What is told of an incident.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Story {
    pub(crate) name: Cow<'static, str>,
    pub(crate) about: [Cow<'static, str>; 2],
    /// Whether what answers was switched on.
    pub(crate) answered: bool,
    /// Why it is only a part, where it is.
    pub(crate) broken_off: Option<String>,
    pub(crate) began_at: String,
    pub(crate) machine: String,
    pub(crate) commit: String,
    pub(crate) fans_per_second: u32,
    pub(crate) instances: usize,
    pub(crate) fault_seconds: Seconds,
    pub(crate) moments: Vec<Moment>,
    pub(crate) seconds: Vec<Second>,
    pub(crate) bounds: Vec<Bound>,
    pub(crate) lost: Vec<String>,
    /// By kind: in quiet times, and from the fault on.
    pub(crate) kinds: BTreeMap<Kind, [Phase; 2]>,
    /// Of those who were let in: who has a seat in the end, and who has none.
    pub(crate) bought: [u32; 2],
}

/// What became of requests of a kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Phase {
    pub(crate) all: u32,
    pub(crate) failed: u32,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// A second counts as bad where so many of its requests fail, and as many of all, ...
const BAD_SHARE: f64 = 0.01;
const BAD_MIN: u32 = 3;
/// ... or where its purchases take so long.
const BAD_MS: f64 = 1_000.0;
/// Everything is as before after so many good seconds.
const GOOD_FOR: usize = 5;
/// Admission counts as slowed, and as back, on either side of these.
const SLOWED_SHARE: f64 = 0.9;
const BACK_SHARE: f64 = 0.95;
/// A poll that takes no longer than this is as quick as ever, whatever it was before.
const QUICK_MS: f64 = 25.0;
/// An instance takes part where it answers so much of what each would by itself.
const TAKES_PART: f64 = 0.5;

impl Second {
    fn is_bad(&self) -> bool {
        let fans = self.requests.iter().filter(|(kind, _)| **kind != Kind::Flood);
        let (all, failed) = fans
            .clone()
            .fold((0, 0), |(all, failed), (_, tally)| (all + tally.all, failed + tally.failed));
        let fails = failed >= BAD_MIN && f64::from(failed) > BAD_SHARE * f64::from(all);
        let slow = |(kind, tally): (&Kind, &Tally)| {
            kind.is_purchase() && tally.p99_ms.is_some_and(|ms| ms > BAD_MS)
        };
        fails || fans.clone().any(slow)
    }
}

impl Seen {
    fn between(&self, from: Seconds, to: Seconds) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(move |request| from <= request.done && request.done < to)
    }

    fn phase(&self, kind: Kind, from: Seconds, to: Seconds) -> Phase {
        let requests: Vec<&Request> =
            self.between(from, to).filter(|request| request.kind == kind).collect();
        let ms: Vec<f64> = requests.iter().map(|request| request.ms()).collect();
        Phase {
            all: requests.len() as u32,
            failed: requests.iter().filter(|request| request.has_failed()).count() as u32,
            p50_ms: quantile(&ms, 0.5).map(rounded),
            p99_ms: quantile(&ms, 0.99).map(rounded),
        }
    }

    /// The seconds from the calm on, counted from the fault.
    pub(crate) fn seconds(&self) -> Vec<Second> {
        let first = (self.calm_from - self.fault).ceil() as i64;
        let last = (self.ends - self.fault).floor() as i64;
        let mut by_second: BTreeMap<i64, BTreeMap<Kind, Vec<&Request>>> = BTreeMap::new();
        for request in self.between(self.calm_from, self.ends) {
            let at = (request.done - self.fault).floor() as i64;
            by_second.entry(at).or_default().entry(request.kind).or_default().push(request);
        }
        let tally = |requests: &Vec<&Request>| {
            let ms: Vec<f64> = requests.iter().map(|request| request.ms()).collect();
            Tally {
                all: requests.len() as u32,
                failed: requests.iter().filter(|request| request.has_failed()).count() as u32,
                p99_ms: quantile(&ms, 0.99).map(rounded),
            }
        };
        (first..last)
            .map(|at| {
                let look =
                    self.looks.iter().find(|look| (look.at - self.fault).floor() as i64 == at);
                let requests = by_second.get(&at).into_iter().flatten();
                Second {
                    at,
                    requests: requests.map(|(kind, all)| (*kind, tally(all))).collect(),
                    share: look.and_then(|look| look.share),
                    waiting: look.and_then(|look| look.waiting),
                    instances: look.map_or(0, |look| look.answered.len()),
                }
            })
            .collect()
    }

    /// The first bad second after the fault, and when everything was as before.
    fn first_bad_and_normal(&self, seconds: &[Second]) -> (Option<Seconds>, Option<Seconds>) {
        let ends = self.fault_ends - self.fault;
        let first = seconds.iter().find(|second| second.at >= 0 && second.is_bad());
        let is_good = |second: &Second| {
            !second.is_bad() && second.share.is_none_or(|share| share >= BACK_SHARE)
        };
        let after: Vec<&Second> =
            seconds.iter().filter(|second| second.at as f64 >= ends.floor()).collect();
        let normal = after.windows(GOOD_FOR).find(|some| some.iter().all(|second| is_good(second)));
        let normal = normal.map(|some| self.fault + (some[0].at as f64).max(ends));
        (first.map(|second| self.fault + second.at as f64), normal)
    }

    fn alarm_after(&self, incident: &Incident) -> Option<Seconds> {
        let heard = self.moments.iter().find(|moment| match &moment.what {
            Event::Alarm(name) => {
                moment.at >= self.fault && incident.alarms.contains(&name.as_str())
            }
            _ => false,
        });
        heard.map(|moment| moment.at - self.fault)
    }

    /// How many seconds after its start the new instance answered its part of all requests.
    fn shared_after(&self) -> Option<Seconds> {
        let (started, label) = self.started.as_ref()?;
        for two in self.looks.windows(2) {
            let [before, after] = two else { continue };
            if after.at < *started {
                continue;
            }
            // It may not answer yet.
            let Some(answered) = after.answered.get(label) else { continue };
            let new = answered - before.answered.get(label).unwrap_or(&0.0);
            let grown =
                |label: &String| Some(after.answered.get(label)? - before.answered.get(label)?);
            let all: f64 = after.answered.keys().filter_map(grown).sum();
            let each = all / after.answered.len() as f64;
            if each > 0.0 && new >= TAKES_PART * each {
                return Some(after.at - started);
            }
        }
        None
    }

    fn judge(&self, check: Check, normal: Option<Seconds>) -> Bound {
        let calm = |kind| self.phase(kind, self.calm_from, self.fault);
        let during = |kind| self.phase(kind, self.fault, self.fault_ends.max(self.fault + 5.0));
        match check {
            Check::NothingLost => Bound::at_most(Measure::Lost, 0.0, Some(self.lost.len() as f64)),
            Check::Bought(limit) => {
                let (before, after): (Vec<&Bought>, Vec<&Bought>) =
                    self.bought.iter().partition(|bought| bought.at < self.fault);
                // Whoever was let in and is neither among those nor among these waits to this day.
                let all = self.inside.saturating_sub(before.len() as u32);
                let did = after.iter().filter(|bought| bought.did).count();
                let share = (all > 0).then(|| did as f64 / f64::from(all));
                Bound::at_least(Measure::Bought, limit, share)
            }
            Check::Polls(factor) => {
                let slower = calm(Kind::Poll).p99_ms.zip(during(Kind::Poll).p99_ms);
                let slower = slower.map(|(calm, during)| during / calm.max(QUICK_MS / factor));
                Bound::at_most(Measure::PollsSlower, factor, slower)
            }
            Check::BackWithin(limit) => {
                let back = normal.map(|normal| normal - self.fault_ends);
                Bound::at_most(Measure::BackAfter, limit, back)
            }
            Check::JoinsRefused(limit) => {
                // The longest stretch in which no join came through, though some were tried.
                let mut joins: Vec<&Request> = self
                    .between(self.fault, self.ends)
                    .filter(|request| request.kind == Kind::Join)
                    .collect();
                joins.sort_by(|one, other| one.done.total_cmp(&other.done));
                let (mut longest, mut since) = (0.0_f64, None);
                for join in &joins {
                    match (join.has_failed(), since) {
                        (true, None) => since = Some(join.done),
                        (true, Some(_)) | (false, None) => {}
                        (false, Some(from)) => {
                            longest = longest.max(join.done - from);
                            since = None;
                        }
                    }
                }
                // To the end, where none came through any more.
                let longest = longest.max(since.map_or(0.0, |from| self.ends - from));
                let longest = (!joins.is_empty()).then_some(rounded(longest));
                Bound::at_most(Measure::JoinsRefusedFor, limit, longest)
            }
            Check::SharedWithin(limit) => {
                Bound::at_most(Measure::SharedAfter, limit, self.shared_after())
            }
            Check::PrimaryReads(limit) => {
                let lists = during(Kind::Flood).all + during(Kind::Seats).all;
                let share = self.primary_reads.filter(|_| lists > 0);
                let share = share.map(|reads| reads / f64::from(lists));
                Bound::at_most(Measure::PrimaryReads, limit, share)
            }
            Check::Paid(limit) => {
                let Phase { all, failed, .. } = self.phase(Kind::Pay, self.fault, self.ends);
                let paid = (all > 0).then(|| 1.0 - f64::from(failed) / f64::from(all));
                Bound::at_least(Measure::Paid, limit, paid)
            }
            Check::Goodput(limit) => Bound::at_least(Measure::Goodput, limit, self.goodput()),
            Check::NoneFailed => {
                let failed = self.between(self.fault, self.ends).filter(|it| it.has_failed());
                Bound::at_most(Measure::Failed, 0.0, Some(failed.count() as f64))
            }
            Check::Slowed => {
                let after = self.looks.iter().filter(|look| look.at >= self.fault);
                let lowest = after.filter_map(|look| look.share).reduce(f64::min);
                Bound::at_most(Measure::LowestShare, SLOWED_SHARE, lowest)
            }
            Check::ReadsGoOn => {
                let reads = [Kind::Poll, Kind::Seats].map(during);
                let all: u32 = reads.iter().map(|phase| phase.all).sum();
                let failed: u32 = reads.iter().map(|phase| phase.failed).sum();
                let answered = (all > 0).then(|| 1.0 - f64::from(failed) / f64::from(all));
                Bound::at_least(Measure::ReadsAnswered, 0.999, answered)
            }
        }
    }

    /// Holds that were answered in the worst ten seconds, those of the flood and those of fans, of the best ten.
    /// They share one limit: what fewer fans ask for is left to the flood.
    fn goodput(&self) -> Option<f64> {
        const SPAN: usize = 10;
        let seconds = (self.fault_ends - self.fault).floor() as usize;
        let mut done = vec![0.0; seconds];
        for request in self.between(self.fault, self.fault_ends) {
            let at = (request.done - self.fault).floor() as usize;
            let is_hold = matches!(request.kind, Kind::Flood | Kind::Reserve);
            let counts = is_hold && !request.has_failed();
            if let Some(second) = done.get_mut(at).filter(|_| counts) {
                *second += 1.0;
            }
        }
        // The first seconds fill the room that there is.
        let spans: Vec<f64> =
            done.get(SPAN / 2..)?.windows(SPAN).map(|span| span.iter().sum()).collect();
        let best = spans.iter().copied().reduce(f64::max).filter(|best| *best > 0.0)?;
        Some(spans.iter().copied().reduce(f64::min)? / best)
    }

    /// Everything that must hold of an incident.
    pub(crate) fn bounds(&self, incident: &Incident, seconds: &[Second]) -> Vec<Bound> {
        let (_, normal) = self.first_bad_and_normal(seconds);
        let alarm = if incident.alarms.is_empty() {
            let heard = self.moments.iter().filter(|it| matches!(it.what, Event::Alarm(_)));
            Bound::at_most(Measure::Alarms, 0.0, Some(heard.count() as f64))
        } else {
            Bound::at_most(Measure::AlarmAfter, incident.alarm_within, self.alarm_after(incident))
        };
        let checks = incident.checks.iter().map(|check| self.judge(*check, normal));
        std::iter::once(alarm).chain(checks).collect()
    }

    /// What is told, without what only the caller knows.
    pub(crate) fn story(&self, incident: &Incident) -> Story {
        let seconds = self.seconds();
        let (first, normal) = self.first_bad_and_normal(&seconds);
        let mut moments = self.moments.clone();
        let mut add = |at: Option<Seconds>, what: Event| {
            moments.extend(at.map(|at| Moment { at, what }));
        };
        add(first, Event::FirstBad);
        add(first.and(normal), Event::Normal);
        moments.sort_by(|one, other| one.at.total_cmp(&other.at));
        moments.iter_mut().for_each(|moment| moment.at = rounded(moment.at - self.fault));
        let kinds = [Kind::Join, Kind::Poll, Kind::Seats, Kind::Reserve, Kind::Pay, Kind::Flood];
        let kinds = kinds.into_iter().map(|kind| {
            let calm = self.phase(kind, self.calm_from, self.fault);
            (kind, [calm, self.phase(kind, self.fault, self.ends)])
        });
        let did = self.bought.iter().filter(|bought| bought.did).count();
        Story {
            name: incident.name.into(),
            about: incident.about.map(Cow::from),
            answered: true,
            broken_off: None,
            began_at: String::new(),
            machine: String::new(),
            commit: String::new(),
            fans_per_second: incident.fans,
            instances: 0,
            fault_seconds: rounded(self.fault_ends - self.fault),
            bounds: self.bounds(incident, &seconds),
            moments,
            seconds,
            lost: self.lost.clone(),
            kinds: kinds.filter(|(_, both)| both.iter().any(|phase| phase.all > 0)).collect(),
            bought: [did as u32, self.inside.saturating_sub(did as u32)],
        }
    }
}

impl Story {
    /// Whether all that must hold did.
    pub(crate) fn holds(&self) -> bool {
        self.broken_off.is_none() && self.bounds.iter().all(|bound| bound.holds)
    }
}

#[cfg(test)]
mod tests;
