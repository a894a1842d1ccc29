//! What an operator should know before they change how a queue admits.

use super::QueueSettings;
use crate::time::Timestamp;

/// How things stand when a change is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// When.
    pub now: Timestamp,
    /// How many are inside.
    pub inside: u64,
    /// How many a second the governor lets through, where it lets through less than the rate.
    pub governed: Option<f64>,
    /// The rate that the shop was measured to bear, where somebody has said so.
    pub safe_rate: Option<f64>,
}

/// What speaks against a change, or may not be meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Warning {
    /// The governor lets through no more than this.
    AboveGovernor(f64),
    /// The rate is above the one that was measured to be safe.
    AboveSafeRate(f64),
    /// So many are inside already: nobody is put out, and nobody comes in until enough have gone.
    BelowInside(u64),
    /// The opening is over: the queue opens at once.
    OpensInPast,
    /// The queue has opened, and would be shut until its new opening.
    OpeningMoved,
}

/// What there is to say of a change from one to the other. What stays as it is, is nobody's news.
pub fn warnings(
    before: &QueueSettings,
    after: &QueueSettings,
    circumstances: &Circumstances,
) -> Vec<Warning> {
    let Circumstances { now, inside, governed, safe_rate } = *circumstances;
    let is_faster = after.admit_per_second > before.admit_per_second;
    let above = |limit: &f64| is_faster && after.admit_per_second > *limit;
    let is_moved = after.opens_at != before.opens_at;
    let was_open = before.opens_at.is_none_or(|at| at <= now);
    let bound = after.max_active.filter(|_| after.max_active != before.max_active);
    let warnings = [
        governed.filter(above).map(Warning::AboveGovernor),
        safe_rate.filter(above).map(Warning::AboveSafeRate),
        bound.filter(|max| *max < inside).map(|_| Warning::BelowInside(inside)),
        after.opens_at.filter(|at| is_moved && *at <= now).map(|_| Warning::OpensInPast),
        after
            .opens_at
            .filter(|at| is_moved && was_open && *at > now)
            .map(|_| Warning::OpeningMoved),
    ];
    warnings.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn settings() -> QueueSettings {
        QueueSettings {
            admit_per_second: 100.0,
            max_active: None,
            active_ttl: Duration::from_secs(300),
            claim_window: Duration::from_secs(30),
            opens_at: None,
            paused: false,
        }
    }

    #[test]
    fn what_there_is_to_say() {
        use Warning::{AboveGovernor, AboveSafeRate, BelowInside, OpeningMoved, OpensInPast};
        let at = |ms| Some(Timestamp(ms));
        let later = || QueueSettings { opens_at: at(2_000_000), ..settings() };
        let rate = |admit_per_second| QueueSettings { admit_per_second, ..settings() };
        let bound = |max| QueueSettings { max_active: Some(max), ..settings() };
        for (before, after, expected) in [
            (settings(), settings(), &[] as &[Warning]),
            (settings(), rate(120.0), &[]),
            (settings(), rate(121.0), &[AboveGovernor(120.0)]),
            (settings(), rate(500.0), &[AboveGovernor(120.0), AboveSafeRate(400.0)]),
            // Slower than it is, is never too fast.
            (rate(900.0), rate(500.0), &[]),
            (settings(), bound(50), &[]),
            (settings(), bound(49), &[BelowInside(50)]),
            (bound(10), bound(10), &[]),
            (bound(10), settings(), &[]),
            (later(), QueueSettings { opens_at: at(999_999), ..settings() }, &[OpensInPast]),
            (later(), QueueSettings { opens_at: at(1_500_000), ..settings() }, &[]),
            (later(), settings(), &[]),
            (settings(), later(), &[OpeningMoved]),
            (later(), later(), &[]),
        ] {
            let circumstances = Circumstances {
                now: NOW,
                inside: 50,
                governed: Some(120.0),
                safe_rate: Some(400.0),
            };
            assert_eq!(warnings(&before, &after, &circumstances), expected, "{after:?}");
            let calm = Circumstances { governed: None, safe_rate: None, inside: 0, now: NOW };
            let about_rate =
                |it: &Warning| matches!(it, AboveGovernor(_) | AboveSafeRate(_) | BelowInside(_));
            assert!(!warnings(&before, &after, &calm).iter().any(about_rate));
        }
    }
}
