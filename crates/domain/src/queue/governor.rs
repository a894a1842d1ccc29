//! How much of its rate a queue admits, so that the shop can serve those who are inside.
//!
//! People act some time after they are let in, so how long purchases wait tells of the admissions of seconds
//! ago, and a controller that only halves and adds swings between too many and none. This one takes more from
//! what it sees: while purchases wait for each other, what the shop serves *is* what it can serve, so the rate
//! falls at once to that part of the rate that had filled it, and further as long as there is something to pay
//! back. It rises by whether there is room: quickly while nothing waits longer than in quiet times, slowly
//! otherwise, and hardly at all near the rate at which it was too much before.

use std::time::Duration;

use super::forecast::Fading;

/// How the shop has felt for some time: all instances together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Felt {
    /// For how long.
    pub over: Duration,
    /// Purchases and the like that came.
    pub asked: u64,
    /// Those that were answered, whatever the answer.
    pub served: u64,
    /// Those that were not, because the store was too slow, too full or away.
    pub refused: u64,
    /// How long those waited that were served, taken together.
    pub waited: Duration,
    /// How many wait now.
    pub waiting: u64,
    /// How many people were let in.
    pub admitted: u64,
    /// How long before they asked those who asked were let in, taken together, ...
    pub age: Duration,
    /// ... and of how many that is known.
    pub aged: u64,
}

impl Felt {
    /// Adds what was felt after it.
    #[must_use]
    pub fn then(self, after: Self) -> Self {
        let over = self.over.saturating_add(after.over);
        Self { over, waiting: after.waiting, ..self.with(Self { waiting: 0, ..after }) }
    }

    /// Adds what another instance has felt in the same time.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            over: self.over.max(other.over),
            asked: self.asked.saturating_add(other.asked),
            served: self.served.saturating_add(other.served),
            refused: self.refused.saturating_add(other.refused),
            waited: self.waited.saturating_add(other.waited),
            waiting: self.waiting.saturating_add(other.waiting),
            admitted: self.admitted.saturating_add(other.admitted),
            age: self.age.saturating_add(other.age),
            aged: self.aged.saturating_add(other.aged),
        }
    }

    /// How long whoever was served has waited on average.
    #[allow(clippy::cast_precision_loss)]
    fn mean_wait_s(&self) -> Option<f64> {
        (self.served > 0).then(|| self.waited.as_secs_f64() / self.served as f64)
    }

    /// How long whoever comes now will wait, as far as that can be told.
    pub fn wait(&self) -> Duration {
        Duration::try_from_secs_f64(self.wait_s()).unwrap_or(Duration::MAX)
    }

    #[allow(clippy::cast_precision_loss)]
    fn wait_s(&self) -> f64 {
        let over_s = self.over.as_secs_f64();
        // Where nobody was served, those who wait have waited for all of the time.
        let to_come = match self.served {
            0 if self.waiting > 0 => over_s,
            0 => 0.0,
            // Some are always on their way.
            served if self.waiting < ASKED_MIN && served < FEW => 0.0,
            served => self.waiting as f64 * over_s / served as f64,
        };
        self.mean_wait_s().unwrap_or(0.0).max(to_come)
    }
}

/// Why queues admit as they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// All that it may.
    #[default]
    Full,
    /// Purchases are refused, because the store is too slow, too full or away.
    Refusing,
    /// Purchases wait for too long.
    Waiting,
    /// It rises again.
    Rising,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Full, Self::Refusing, Self::Waiting, Self::Rising];

    /// What it is called where people read it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Refusing => "refusing",
            Self::Waiting => "waiting",
            Self::Rising => "rising",
        }
    }
}

/// Decides once a second which part of their rate all queues admit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Governor {
    share: f64,
    /// The highest share that the shop is known to bear.
    borne: f64,
    /// How long purchases wait in quiet times; a slow-moving minimum.
    quiet_s: f64,
    /// Since it was too much, at a share that is borne.
    calm_s: f64,
    /// How long after they were let in people act.
    age: Fading,
    /// Of those who are let in, how often they ask, in times that are not too much.
    asks: Fading,
    /// For how long that was learnt.
    learnt_s: f64,
    trouble: Option<Trouble>,
    reason: Reason,
}

/// A time in which it is too much.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Trouble {
    /// The share when it began.
    before: f64,
    /// For how long something has been served without a break.
    serving_s: f64,
    /// What is served a second.
    can: Fading,
    /// What is served of what is asked.
    served: Fading,
    /// Since it was last looked whether letting in fewer is of use: how long purchases waited and what the share
    /// was, summed over time.
    wait: Fading,
    share: Fading,
    /// The means of the same when purchases last waited for another time, and what was served a second then.
    wait_before_s: f64,
    share_before: f64,
    can_before: f64,
}

/// A [`Governor`] as others are told of it.
pub type GovernorParts = (Reason, [f64; 22]);

impl Default for Governor {
    fn default() -> Self {
        Self {
            share: 1.0,
            borne: 1.0,
            quiet_s: QUIET_MIN_S,
            calm_s: 0.0,
            age: Fading::default(),
            asks: Fading::default(),
            learnt_s: 0.0,
            trouble: None,
            reason: Reason::Full,
        }
    }
}

/// The line moves on, however slow the shop is: so many parts of the rate.
pub const SHARE_MIN: f64 = 0.02;
/// What was felt over a longer time counts as little.
const DECISION_MAX_S: f64 = 10.0;
/// A wait that is shorter tells nothing.
const QUIET_MIN_S: f64 = 0.005;
/// What is known of quiet times is forgotten so fast, for each second.
const QUIET_FORGOTTEN: f64 = 0.01;
/// Waiting so much longer than in quiet times is too much, ...
const TOO_LONG_S: f64 = 0.2;
/// ... and so many refusals of what is asked.
const REFUSED_MAX: f64 = 0.01;
/// A few are refused for other reasons.
const REFUSED_MIN: u64 = 3;
/// Of so few purchases nothing can be told.
const ASKED_MIN: u64 = 5;
/// What waits is paid back within about this time, and the time that people take.
const PAID_BACK_S: f64 = 4.0;
/// Of fewer than so many, what is on its way at a moment tells nothing of how long they wait.
const FEW: u64 = 50;
/// Below what was served, so that what waits becomes less.
const MARGIN: f64 = 0.95;
/// How long what was felt counts, in quiet times and in others.
const QUIET_COUNTS_S: f64 = 60.0;
const SERVED_COUNTS_S: f64 = 2.0;
/// What the first so many seconds of trouble tell is not what the shop can do: what was asked before is still on
/// its way.
const SETTLES_S: f64 = 1.0;
/// It is looked so often whether letting in fewer is of use, and not before people have taken their time twice.
const LOOK_S: f64 = 10.0;
/// Where purchases wait as long as before to this part, though as much fewer are let in and served, it is of none.
const OF_USE: f64 = 0.15;
/// Where it is not known, or of some use, the share that is borne falls to this part.
const FALLS: f64 = 0.85;
/// The largest step up in a second, of the whole rate.
const RISE_MAX: f64 = 0.05;
/// Whoever waits no longer than this beyond quiet times, or twice as long as then, finds room.
const ROOM_S: f64 = 0.02;
/// At the share that was borne it stays about for this time and until those act who were let in at it, ...
const CAREFUL_S: f64 = 1.0;
/// ... rising by this part of itself in a second. ...
const RISE_CAREFUL: f64 = 0.01;
/// Then by this part in the time that people take, ...
const RISE_FIRST: f64 = 0.2;
/// (of this share where it is less: it was low because the store was away, or nearly) ...
const RISE_FROM: f64 = 0.2;
/// ... and so many times faster each time that as many have acted.
const RISE_GROWS: f64 = 4.0;
/// Twice the largest step is taken after so many times that as many have acted.
const PROVEN: f64 = 2.5;
/// Only so many times more than the share tells that it is too low: how often people ask is not known so well.
const FAR_BELOW: f64 = 2.0;
/// However soon people act, it takes so long to see how it goes.
const PROVES_MIN_S: f64 = 3.0;
/// How long people take to act, where that is not known; and what is believed of it.
const AGE_UNKNOWN_S: f64 = 5.0;
const AGE_MIN_S: f64 = 1.0;
const AGE_MAX_S: f64 = 60.0;
/// Whoever acts so many times later than people do counts as so late.
const LATE: f64 = 1.5;
/// How often people ask is known once so many times those have acted who come in that time.
const ASKS_KNOWN: f64 = 4.0;

impl Governor {
    /// A governor as it was told; `None` where it can be none.
    pub fn restore((reason, numbers): GovernorParts) -> Option<Self> {
        let [share, borne, quiet_s, calm_s, before, rest @ ..] = numbers;
        let is_share = |share: f64| (SHARE_MIN..=1.0).contains(&share);
        let makes_sense = is_share(share)
            && is_share(borne)
            && (before == 0.0 || is_share(before))
            && quiet_s >= QUIET_MIN_S
            && numbers.iter().all(|number| (0.0..=f64::MAX).contains(number));
        let sum = |index: usize| Fading { of: rest[index], over: rest[index + 1] };
        let trouble = Trouble {
            before,
            serving_s: rest[4],
            can: sum(5),
            served: sum(7),
            wait: sum(9),
            share: sum(11),
            wait_before_s: rest[13],
            share_before: rest[14],
            can_before: rest[16],
        };
        makes_sense.then(|| Self {
            share,
            borne,
            quiet_s,
            calm_s,
            age: sum(0),
            asks: sum(2),
            learnt_s: rest[15],
            trouble: (before > 0.0).then_some(trouble),
            reason,
        })
    }

    /// What to tell of it; [`Governor::restore`] makes the same one of that.
    pub fn parts(&self) -> GovernorParts {
        let Self { share, borne, quiet_s, calm_s, age, asks, learnt_s, trouble, reason } = *self;
        let Trouble {
            before,
            serving_s,
            can,
            served,
            wait,
            share: shares,
            wait_before_s,
            share_before,
            can_before,
        } = trouble.unwrap_or_default();
        let numbers = [
            share,
            borne,
            quiet_s,
            calm_s,
            before,
            age.of,
            age.over,
            asks.of,
            asks.over,
            serving_s,
            can.of,
            can.over,
            served.of,
            served.over,
            wait.of,
            wait.over,
            shares.of,
            shares.over,
            wait_before_s,
            share_before,
            learnt_s,
            can_before,
        ];
        (reason, numbers)
    }

    /// The part of its rate that each queue admits: from [`SHARE_MIN`] to 1.
    pub const fn share(&self) -> f64 {
        self.share
    }

    /// Why.
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// How long after they were let in people act.
    fn age_s(&self) -> f64 {
        if self.age.over < ASKED_MIN as f64 {
            return AGE_UNKNOWN_S;
        }
        self.age.ratio().clamp(AGE_MIN_S, AGE_MAX_S)
    }

    /// Decides anew, by what was felt since the last decision. `full` is what all queues admit a second together
    /// where nothing holds them up.
    #[allow(clippy::cast_precision_loss)]
    pub fn decide(&mut self, felt: Felt, full: f64) {
        let over_s = felt.over.as_secs_f64().min(DECISION_MAX_S);
        if over_s <= 0.0 {
            return;
        }
        let wait_s = felt.wait_s();
        let enough = felt.asked.max(felt.served).max(felt.refused) >= ASKED_MIN;
        // Some that are served at last, after nobody has come for a while, tell of the past.
        let comes = felt.asked.max(felt.refused) >= ASKED_MIN;
        let refuses =
            felt.refused >= REFUSED_MIN && felt.refused as f64 > REFUSED_MAX * felt.asked as f64;
        let waits = wait_s > self.quiet_s + TOO_LONG_S;
        if (comes || felt.waiting >= ASKED_MIN) && (refuses || waits) {
            self.reason = if refuses { Reason::Refusing } else { Reason::Waiting };
            self.slow_down(felt, wait_s, over_s, full);
        } else {
            self.trouble = None;
            let forgets = (-over_s / QUIET_COUNTS_S).exp();
            // Those who were kept waiting act late, and all at once.
            let most = if self.knows_asks() { LATE * self.age_s() } else { f64::MAX };
            let age_s = felt.age.as_secs_f64().min(most * felt.aged as f64);
            self.age.add(age_s, felt.aged as f64, forgets);
            self.asks.add(felt.asked as f64, felt.admitted as f64, forgets);
            if felt.admitted > 0 {
                self.learnt_s = (self.learnt_s + over_s).min(QUIET_COUNTS_S);
            }
            self.rise(felt, wait_s, over_s, full);
        }
        if let Some(mean_s) = felt.mean_wait_s().filter(|_| enough) {
            let forgotten = self.quiet_s * (1.0 + QUIET_FORGOTTEN * over_s);
            self.quiet_s = forgotten.min(mean_s).max(QUIET_MIN_S);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn slow_down(&mut self, felt: Felt, wait_s: f64, over_s: f64, full: f64) {
        self.calm_s = 0.0;
        let mut trouble =
            self.trouble.unwrap_or(Trouble { before: self.share, ..Trouble::default() });
        if felt.served == 0 {
            // It is away. What it can do when it is back, nobody knows.
            self.trouble = Some(Trouble { before: trouble.before, ..Trouble::default() });
            self.set(SHARE_MIN);
            return;
        }
        if trouble.serving_s >= SETTLES_S {
            let forgets = (-over_s / SERVED_COUNTS_S).exp();
            trouble.can.add(felt.served as f64, over_s, forgets);
            trouble.served.add(felt.served as f64, felt.asked as f64, forgets);
            let served = trouble.served.ratio();
            let bears = match self.knows_asks() {
                true => self.bears(trouble.can.ratio(), full),
                false => trouble.before * served,
            };
            self.borne = self.borne.min(bears.min(trouble.before) * MARGIN).max(SHARE_MIN);
        }
        trouble.serving_s += over_s;
        trouble.wait.add(wait_s * over_s, over_s, 1.0);
        trouble.share.add(self.share * over_s, over_s, 1.0);
        if trouble.wait.over >= LOOK_S.max(2.0 * self.age_s()) {
            self.look_whether_it_is_of_use(&mut trouble);
        }
        self.trouble = Some(trouble);
        let owed = (wait_s - self.quiet_s - TOO_LONG_S).max(0.0) / (PAID_BACK_S + self.age_s());
        self.set((self.borne * (1.0 - owed)).min(self.share + RISE_MAX * over_s));
    }

    /// Whether it is known how often people ask.
    fn knows_asks(&self) -> bool {
        self.asks.of > 0.0 && self.learnt_s >= ASKS_KNOWN * self.age_s()
    }

    /// What it is to serve so much a second, in people of the whole rate.
    fn bears(&self, served_per_s: f64, full: f64) -> f64 {
        let Fading { of: asked, over: admitted } = self.asks;
        served_per_s * (admitted / asked) / full.max(1e-3)
    }

    /// Where letting in fewer does not help, that is how long purchases take now.
    fn look_whether_it_is_of_use(&mut self, trouble: &mut Trouble) {
        let wait_s = trouble.wait.ratio();
        let share = trouble.share.ratio();
        (trouble.wait, trouble.share) = Default::default();
        let can = trouble.can.ratio();
        let Trouble { wait_before_s, share_before, can_before, .. } = *trouble;
        let is_as_before = (wait_s - wait_before_s).abs() <= OF_USE * wait_before_s;
        let fell = |now: f64, before: f64| now <= before * (1.0 - OF_USE);
        if !is_as_before {
            trouble.wait_before_s = wait_s;
            (trouble.share_before, trouble.can_before) = (share, can);
        } else if fell(share, share_before) && fell(can, can_before) {
            // Less is served because less is asked. A shop that has as much as it can do serves that.
            self.quiet_s = wait_s;
        }
        // While those who are inside are refused, they come again, and what they ask is no measure.
        let is_told = self.reason == Reason::Refusing && self.knows_asks();
        if wait_s > wait_before_s * (1.0 - OF_USE) && wait_before_s > 0.0 && !is_told {
            self.borne = (self.borne * FALLS).max(SHARE_MIN);
        }
    }

    #[allow(clippy::cast_precision_loss)]
    fn rise(&mut self, felt: Felt, wait_s: f64, over_s: f64, full: f64) {
        if self.share >= 1.0 {
            (self.borne, self.reason) = (1.0, Reason::Full);
            return;
        }
        self.reason = Reason::Rising;
        let extra = (wait_s - self.quiet_s).max(0.0);
        let has_room = extra <= self.quiet_s.max(ROOM_S);
        if has_room && felt.served >= ASKED_MIN && self.knows_asks() {
            // Those who were kept waiting come all at once: what is served of them at once is borne.
            let borne = MARGIN * self.bears(felt.served as f64 / over_s, full);
            if borne > FAR_BELOW * self.share {
                self.borne = self.borne.max(borne.min(1.0));
            }
        }
        let proves_s = self.age_s().max(PROVES_MIN_S);
        let calm_s = match has_room {
            true => self.calm_s + over_s,
            false => self.calm_s.min(CAREFUL_S + proves_s),
        };
        if self.share < self.borne {
            // Far below it, it does not stand before a limit that it has just met.
            if FAR_BELOW * self.share < self.borne {
                self.calm_s = calm_s;
            }
            self.set(self.borne.min(self.share + RISE_MAX * over_s));
            return;
        }
        let step = if has_room && self.calm_s > CAREFUL_S + proves_s {
            let times = (self.calm_s - CAREFUL_S) / proves_s - 1.0;
            self.share.max(RISE_FROM) * RISE_FIRST * RISE_GROWS.powf(times) / proves_s
        } else {
            self.share * RISE_CAREFUL * (1.0 - extra / TOO_LONG_S).max(0.0)
        };
        self.calm_s = calm_s;
        let most =
            if self.calm_s > CAREFUL_S + PROVEN * proves_s { 2.0 * RISE_MAX } else { RISE_MAX };
        self.set(self.share + step.min(most) * over_s);
        self.borne = self.share;
    }

    fn set(&mut self, share: f64) {
        self.share = share.clamp(SHARE_MIN, 1.0);
    }
}
