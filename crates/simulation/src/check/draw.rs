//! The opening draw: whom it takes in, and what is told of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use boxoffice_domain::queue::{Drawn, Ending, Entry};
use boxoffice_domain::time::Timestamp;

use super::order::Late;
use super::{Checker, Fact, Violation, rules};
use crate::instance::Standing;
use crate::plan::{Plan, What};
use crate::timeline::EPOCH_MS;
use crate::turns::Turns;

/// There is one draw, of the seed that was there from the beginning, and never another one; until then nobody
/// has a place or a turn, and from then on the opening stays where it was.
pub(super) struct OneDraw {
    seed: Option<[u8; 32]>,
    /// Whether nothing breaks, so that everybody knows of it in time.
    is_calm: bool,
    /// The draw, when it was seen, and when the queue opened.
    drawn: Option<(Drawn, u64, Option<Timestamp>)>,
    /// When the queue is to open, by a clock that may be a second behind.
    opens_us: Option<u64>,
    logged: bool,
    is_told: bool,
}

/// What the store has is known to all in time, in microseconds.
const KNOWN_US: u64 = 3_000_000;

impl OneDraw {
    pub(super) fn new(plan: &Plan) -> Self {
        let is_change = |what: &What| matches!(what, What::Change(..));
        Self {
            seed: plan.draw_seed(),
            is_calm: plan.faults.iter().all(|fault| is_change(&fault.what)),
            drawn: None,
            opens_us: None,
            logged: false,
            is_told: false,
        }
    }

    fn opening(
        &mut self,
        now_us: u64,
        drawn: Option<Drawn>,
        opens_at: Option<Timestamp>,
    ) -> Option<String> {
        match (self.drawn, drawn) {
            (None, None) => {
                let opens_ms = opens_at.map_or(0, |at| (at.0 - EPOCH_MS).max(0).unsigned_abs());
                self.opens_us = Some(opens_ms * 1_000);
                None
            }
            (None, Some(drawn)) => {
                self.drawn = Some((drawn, now_us, opens_at));
                (Some(drawn.seed) != self.seed).then(|| "of another seed".to_owned())
            }
            (Some((first, ..)), again) if again != Some(first) => {
                Some(format!("of {}, and then of {:?}", first.count, again.map(|it| it.count)))
            }
            (Some((_, _, then)), _) if then != opens_at => {
                Some(format!("at {then:?}, and now the queue opens at {opens_at:?}"))
            }
            (Some(_), _) => None,
        }
    }
}

impl Checker for OneDraw {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        if self.seed.is_none() {
            return;
        }
        let (rule, how) = match fact {
            Fact::Opening { drawn, opens_at } => {
                let Some(how) = self.opening(now_us, *drawn, *opens_at) else { return };
                if std::mem::replace(&mut self.is_told, true) {
                    return;
                }
                (rules::ONE_DRAW, how)
            }
            Fact::Step { from, upto, .. } if self.drawn.is_none() => {
                (rules::BEFORE_THE_DRAW, format!("a step from {from} to {upto}"))
            }
            Fact::Stands { fan, standing, .. } if self.drawn.is_none() => match standing {
                Standing::Undrawn | Standing::Over(Ending::Left) => return,
                _ => (rules::BEFORE_THE_DRAW, format!("fan {fan} was told {standing:?}")),
            },
            Fact::Stands { fan, standing: Standing::Undrawn, asked_us, .. } => {
                let known_us = self.drawn.map_or(0, |(_, at_us, _)| at_us + KNOWN_US);
                if !self.is_calm || *asked_us < known_us {
                    return;
                }
                (rules::DRAW_UNHEARD, format!("fan {fan} still takes part"))
            }
            Fact::Logged { record, .. } => {
                let Entry::Drawn(drawn) = record.entry else { return };
                let again = std::mem::replace(&mut self.logged, true);
                if !again && self.drawn.is_some_and(|(first, ..)| first == drawn) {
                    return;
                }
                (rules::ONE_DRAW, format!("the log has one of {}", drawn.count))
            }
            _ => return,
        };
        broken.push(Violation { rule, at_us: now_us, how });
    }

    fn end(&mut self, now_us: u64, broken: &mut Vec<Violation>) {
        let is_late = |opens_us: u64| opens_us + 2 * KNOWN_US < now_us;
        let how = match self.drawn {
            None if self.is_calm && self.opens_us.is_some_and(is_late) => "nobody was drawn",
            Some(_) if !self.logged => "the log has none",
            _ => return,
        };
        broken.push(Violation { rule: rules::ONE_DRAW, at_us: now_us, how: how.into() });
    }
}

/// Who was given a number before the opening is drawn, and who asked for one once it was drawn is not: but for
/// clocks, and for what is left of a pool where some instances may have Redis and others not.
pub(super) struct DrawnAreThose {
    is_on: bool,
    /// By how much less than the store's time the opening may be off.
    apart_ms: i64,
    /// When the sale behind the queue opens, where the queue follows it.
    sale_opens: Option<Timestamp>,
    late: Late,
    /// The store's time, as late as it was ever.
    database: Timestamp,
    /// When the queue is to open, or when that was said, where that is later.
    opens: Timestamp,
    opens_at: Option<Option<Timestamp>>,
    /// When numbers were given, by the store's time.
    given: BTreeMap<u64, Timestamp>,
    /// How many were drawn, and when that was durable.
    drawn: Option<(u64, u64)>,
    by: u64,
}

/// The clock of whoever draws is ahead by no more than this, in milliseconds: what an instance may be off from
/// the store,
const APART_MS: i64 = 1_000;
/// and how long the store may have been looked at before an operator moved the opening.
const LOOKED_MS: i64 = 200;

impl DrawnAreThose {
    pub(super) fn new(plan: &Plan) -> Self {
        let follows = plan.sale_rules.is_some();
        let is_set = |what: &What| matches!(what, What::Clock(..) | What::StoreClock(_));
        let is_off = plan.clocks_ahead_ms.iter().any(|ahead_ms| *ahead_ms != 0)
            || plan.faults.iter().any(|fault| is_set(&fault.what));
        Self {
            is_on: plan.draw,
            apart_ms: LOOKED_MS + if is_off { APART_MS } else { 0 },
            sale_opens: follows.then_some(Timestamp(EPOCH_MS + plan.sale_opens_ms)),
            late: Late::of(plan),
            database: Timestamp::default(),
            opens: Timestamp::default(),
            opens_at: None,
            given: BTreeMap::new(),
            drawn: None,
            by: 0,
        }
    }

    /// Whether the number was given before the opening by every clock.
    fn is_early(&self, given: Timestamp) -> bool {
        let opens = self.sale_opens.map_or(self.opens, |sale| self.opens.max(sale));
        given.0 + self.apart_ms < opens.0
    }
}

impl Checker for DrawnAreThose {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        if !self.is_on {
            return;
        }
        match fact {
            Fact::Numbered { fan, seq, asked_us, database, .. } => {
                self.database = self.database.max(*database);
                self.given.insert(*seq, self.database);
                let Some((count, drawn_us)) = self.drawn else { return };
                if *seq > count && self.is_early(self.database) {
                    let how =
                        format!("fan {fan} with {seq} of {count} has come before the opening");
                    broken.push(Violation { rule: rules::NOT_DRAWN, at_us: now_us, how });
                }
                if *seq > count || *asked_us <= drawn_us {
                    return;
                }
                self.by += 1;
                if self.late.is_too_late(self.by, asked_us - drawn_us) {
                    let how = format!(
                        "fan {fan} with {seq} of {count} asked {} ms later, and {} have before",
                        (asked_us - drawn_us) / 1_000,
                        self.by - 1
                    );
                    broken.push(Violation { rule: rules::DRAWN_LATE, at_us: now_us, how });
                }
            }
            Fact::Opening { opens_at, .. }
                if self.drawn.is_none() && self.opens_at != Some(*opens_at) =>
            {
                // It was said since the last look, and is heard a moment later.
                let said = self.opens_at.map_or(Timestamp::default(), |_| self.database);
                self.opens = opens_at.map_or(said, |at| at.max(said));
                self.opens_at = Some(*opens_at);
            }
            Fact::Unsold { database, .. } => self.database = self.database.max(*database),
            Fact::Drawn { turns } => {
                self.drawn = Some((turns.count(), now_us));
                for (seq, given) in self.given.range(turns.count() + 1..) {
                    if self.is_early(*given) {
                        let how =
                            format!("{seq} of {} was given before the opening", turns.count());
                        broken.push(Violation { rule: rules::NOT_DRAWN, at_us: now_us, how });
                    }
                }
            }
            _ => {}
        }
    }
}

/// The place that somebody is told is their own: no further back than their turn, and no further ahead than
/// those let them who had their turn or have left. And nobody's place is over because somebody else has left.
#[derive(Default)]
pub(super) struct OwnPlace {
    turns: Arc<Turns>,
    served: u64,
    leaving: u64,
    ends: BTreeSet<usize>,
}

impl Checker for OwnPlace {
    fn note(&mut self, now_us: u64, fact: &Fact, broken: &mut Vec<Violation>) {
        match fact {
            Fact::Drawn { turns } => self.turns = turns.clone(),
            Fact::Step { upto, .. } => self.served = self.served.max(*upto),
            Fact::MayEnd { fan, leaves } => {
                let is_new = self.ends.insert(*fan);
                self.leaving += u64::from(is_new && *leaves);
            }
            Fact::Stands { fan, seq, standing: Standing::Waiting(place), .. } => {
                let turn = self.turns.turn(*seq);
                if *place > turn || place + self.served + self.leaving < turn {
                    let how = format!(
                        "fan {fan} with {seq} has turn {turn}, and was told {place} behind {}",
                        self.served
                    );
                    broken.push(Violation { rule: rules::ANOTHERS_PLACE, at_us: now_us, how });
                }
            }
            Fact::Stands { fan, standing: Standing::Over(ending), .. }
                if *ending != Ending::TimedOut && !self.ends.contains(fan) =>
            {
                let how = format!("fan {fan} has neither paid nor left, and is told {ending:?}");
                broken.push(Violation { rule: rules::ANOTHERS_PLACE, at_us: now_us, how });
            }
            _ => {}
        }
    }
}
