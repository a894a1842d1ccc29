//! Beats: twice a second the instances tell each other through the store that they are there, whether
//! they have Redis, and whose polls they have answered; and each compares its clock with the database's.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use parking_lot::Mutex;
use roaring::RoaringTreemap;
use tokio::time::Instant;

use super::deadline::{STORE_TIMEOUT, in_time};
use super::mirror::Mirror;
use super::pools::Pools;
use super::protocol::Protocol;
use crate::Fault;
use crate::planted::{Bug, planted};
use crate::sequencer::queue::HeardFrom;
use crate::store::{self, Beat, OtherBeat, Present, Rules, Store};

/// A beat repeats the polls of so many before it, so that whoever missed some has not missed the polls.
const REPEATED: usize = 3;
/// Who has been silent for so long, in milliseconds, may have answered polls that nobody has heard of:
/// meanwhile nobody counts as absent.
const SILENT_MS: i64 = 5_000;
/// Who has been silent for longer, in milliseconds, has ended, and its fans poll elsewhere.
const ENDED_MS: i64 = 60_000;
/// Another instance has Redis if it said so within this time, in milliseconds.
const REDIS_SEEN_MS: i64 = 2_000;

/// The beats of this instance.
pub(super) struct Beats {
    store: Store,
    protocol: Arc<Protocol>,
    pools: Arc<Pools>,
    mirror: Arc<Mirror>,
    kept: tokio::sync::Mutex<Kept>,
    /// The others that were there at the last beat, and when they told so last.
    others: Mutex<Vec<(String, Timestamp)>>,
}

type ByQueue = BTreeMap<QueueName, RoaringTreemap>;

/// Whom an instance has seen.
#[derive(Clone, Default)]
struct Seen {
    /// Polls near the head, and of those who were passed over.
    polled: ByQueue,
    /// The first time since their admission, within the claim window.
    claimed: ByQueue,
}

impl Seen {
    fn add(&mut self, more: &Self) {
        let add = |all: &mut ByQueue, more: &ByQueue| {
            for (queue, seqs) in more {
                *all.entry(queue.clone()).or_default() |= seqs;
            }
        };
        add(&mut self.polled, &more.polled);
        add(&mut self.claimed, &more.claimed);
    }
}

/// What a beat keeps for the next.
#[derive(Default)]
struct Kept {
    /// Beats that were told: the database's time, and who was new in each.
    told: VecDeque<(Timestamp, Seen)>,
    /// Who was seen and not told of yet.
    untold: Seen,
    /// The last beat that was heard of each other instance, by the database's time.
    heard: HashMap<String, Timestamp>,
    /// The first beat without Redis since this instance had it last, by the database's time.
    lost_redis_at: Option<Timestamp>,
    /// Another has had Redis since, as of the last beat.
    is_elsewhere: bool,
    /// It is known here what the store handed out itself before it heard that this instance has Redis.
    knows_taken: bool,
    clock_reported: bool,
}

impl Kept {
    /// Who was seen in the last beats and since then; and since when these are all.
    fn seen(&self) -> (Seen, Timestamp) {
        let mut seen = self.untold.clone();
        self.told.iter().rev().take(REPEATED).for_each(|(_, more)| seen.add(more));
        let before = self.told.len().checked_sub(REPEATED + 1);
        let since = before.map(|before| self.told[before].0).unwrap_or_default();
        (seen, since)
    }

    /// A beat was told.
    fn told(&mut self, at: Timestamp) {
        self.told.push_back((at, std::mem::take(&mut self.untold)));
        if self.told.len() > REPEATED + 1 {
            self.told.pop_front();
        }
    }

    /// Takes in the beat of another instance, which was told `silent_ms` ago. Returns whether it may have
    /// answered polls that were not heard of; `None` where the beat is of no use: the last one of an
    /// instance counts once, and not for who comes long after it.
    fn hear(&mut self, other: &OtherBeat, silent_ms: i64) -> Option<bool> {
        let before = self.heard.get(&other.instance).copied();
        let is_silent = silent_ms > SILENT_MS;
        if other.has_ended && before.map_or(is_silent, |before| before == other.at) {
            return None;
        }
        self.heard.insert(other.instance.clone(), other.at);
        let has_missed = before.is_some_and(|before| before < other.since);
        Some(has_missed || (is_silent && !other.has_ended))
    }
}

impl Beats {
    pub(super) fn new(
        store: Store,
        protocol: Arc<Protocol>,
        pools: Arc<Pools>,
        mirror: Arc<Mirror>,
    ) -> Self {
        let (kept, others) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { store, protocol, pools, mirror, kept, others }
    }

    /// This instance, and the others that were there at the last beat with when they told so last.
    pub(super) fn instances(&self) -> (String, Vec<(String, Timestamp)>) {
        (self.protocol.options().instance.clone(), self.others.lock().clone())
    }

    /// The first beat.
    ///
    /// # Errors
    /// Where the store cannot be reached, another instance signs tickets with a key that this one does not
    /// have, or decides by other rules.
    pub(super) async fn open(&self, now: Timestamp) -> Result<(), Fault> {
        let mut kept = self.kept.lock().await;
        // Of two that start at once, one hears the other: both are there before either listens.
        self.tell(now, false, &mut kept).await?;
        let beats = self.tell(now, false, &mut kept).await?;
        let there = |other: &&OtherBeat| {
            !other.has_ended && beats.now.0.saturating_sub(other.at.0) <= SILENT_MS
        };
        let ours = self.protocol.options();
        let mut others = beats.others.iter().filter(there);
        let compared = others.try_for_each(|other| {
            compare_keys(&ours.ticket_keys, &other.ticket_keys)?;
            compare_rules(&ours.rules, &other.rules)
        });
        if compared.is_err() {
            // It does not start, so nobody who does is to be compared with it.
            self.tell(now, true, &mut kept).await?;
        }
        compared
    }

    /// One beat.
    pub(super) async fn beat(&self, now: Timestamp) -> Result<(), Fault> {
        let mut kept = self.kept.lock().await;
        self.collect(&mut kept);
        let new = kept.untold.claimed.clone();
        let began = Instant::now();
        let beats = self.tell(now, false, &mut kept).await?;
        let now = now.plus(began.elapsed());
        let now = self.store.vouched(now);
        let there = beats.others.iter().filter(|other| {
            !other.has_ended && beats.now.0.saturating_sub(other.at.0).abs() <= ENDED_MS
        });
        let mut there: Vec<_> = there.map(|other| (other.instance.clone(), other.at)).collect();
        there.sort_unstable();
        *self.others.lock() = there;
        let (mut unheard, mut with_redis) = (false, false);
        // Where it is away for all, they find out one after another, within a tick and a call.
        let found_out_ms = 2 * self.protocol.options().call_timeout.as_millis();
        let found_out_ms = i64::try_from(found_out_ms).unwrap_or(i64::MAX);
        let all_know_at = kept.lost_redis_at.map(|at| at.0.saturating_add(found_out_ms));
        for other in &beats.others {
            let ago_ms = |at: Timestamp| beats.now.0.saturating_sub(at.0);
            with_redis |= all_know_at.is_some_and(|at| other.redis_at.0 >= at)
                && ago_ms(other.redis_at).abs() < REDIS_SEEN_MS;
            let silent_ms = ago_ms(other.at).abs();
            if silent_ms > ENDED_MS {
                kept.heard.remove(&other.instance);
                continue;
            }
            let Some(has_missed) = kept.hear(other, silent_ms) else { continue };
            unheard |= has_missed;
            for (queue, seqs) in &other.present.0 {
                if let Some(member) = self.mirror.members.get(queue.as_str()) {
                    member.queue.hear_polled(seqs, now);
                }
            }
            for (queue, seqs) in &other.claimed.0 {
                if let Some(member) = self.mirror.members.get(queue.as_str()) {
                    member.queue.apply_claimed(seqs, HeardFrom::Store, now);
                }
            }
        }
        for (queue, seqs) in new {
            if let Some(member) = self.mirror.members.get(queue.as_str()) {
                member.queue.claims_are_told(&seqs, now);
            }
        }
        // Nor do all have it back at the same moment.
        let was_elsewhere = std::mem::replace(&mut kept.is_elsewhere, with_redis);
        self.pools.set_others_have_redis(with_redis && was_elsewhere);
        for queue in self.mirror.queues() {
            if unheard && !planted(Bug::SilenceIsAbsence) {
                queue.assume_all(now);
            }
            queue.has_heard(Instant::now());
        }
        if kept.lost_redis_at.is_none() && !kept.knows_taken {
            // From here on the store leaves it to the pool, which may have lower numbers.
            self.mirror.reload(false).await?;
            kept.knows_taken = true;
        }
        Ok(())
    }

    /// The last beat: whose polls were answered until the end, and that the others need not wait for
    /// this instance.
    pub(super) async fn close(&self, now: Timestamp) -> Result<(), Fault> {
        let mut kept = self.kept.lock().await;
        self.collect(&mut kept);
        self.tell(now, true, &mut kept).await.map(|_| ())
    }

    /// Adds who was seen since the last beat to what is to be told.
    fn collect(&self, kept: &mut Kept) {
        for queue in self.mirror.queues() {
            let (polled, claimed) = queue.take_seen();
            let by_queue = |seqs| ByQueue::from([(queue.name().clone(), seqs)]);
            let (polled, claimed) = (by_queue(polled), by_queue(claimed));
            kept.untold.add(&Seen { polled, claimed });
        }
    }

    async fn tell(
        &self,
        now: Timestamp,
        is_last: bool,
        kept: &mut Kept,
    ) -> Result<store::Beats, Fault> {
        let options = self.protocol.options();
        let (seen, since) = kept.seen();
        let numbers =
            |of: ByQueue| Present(of.into_iter().filter(|(_, seqs)| !seqs.is_empty()).collect());
        let with_redis = self.protocol.stats().is_up();
        let beat = Beat {
            instance: options.instance.clone(),
            is_last,
            with_redis,
            ticket_keys: options.ticket_keys.join(" "),
            rules: options.rules.clone(),
            present: numbers(seen.polled),
            claimed: numbers(seen.claimed),
            since,
        };
        let began = Instant::now();
        let beats = in_time(STORE_TIMEOUT, self.store.beat(beat)).await?;
        kept.told(beats.now);
        kept.lost_redis_at =
            if with_redis { None } else { Some(kept.lost_redis_at.unwrap_or(beats.now)) };
        kept.knows_taken &= with_redis;
        if let Some(check) = self.store.clock_check() {
            check.note(now, began.elapsed(), beats.now);
            let fault = check.correction_ms().err();
            if fault.is_some() != kept.clock_reported {
                kept.clock_reported = fault.is_some();
                match fault {
                    Some(why) => tracing::error!(
                        error = %why,
                        "this instance admits nobody and sells nothing"
                    ),
                    None => {
                        tracing::info!("this instance's clock agrees with the database's again")
                    }
                }
            }
        }
        Ok(beats)
    }
}

/// Each instance has to have the key that any other signs with: otherwise who got a ticket at one is
/// nobody at another.
fn compare_keys(ours: &[String], other: &str) -> Result<(), Fault> {
    let theirs: Vec<&str> = other.split(' ').collect();
    let they_have_ours = ours.first().is_none_or(|key| theirs.contains(&key.as_str()));
    let we_have_theirs = theirs.first().is_none_or(|key| ours.iter().any(|ours| ours == key));
    if they_have_ours && we_have_theirs {
        return Ok(());
    }
    Err(Fault::Unavailable(format!(
        "another instance runs with ticket keys {other}, this one has {} (the first one signs): {}. \
         Give all instances one ticket.signing_key; to change it, first add the new one to \
         ticket.previous_signing_keys everywhere",
        ours.join(" "),
        if we_have_theirs { "it does not know ours" } else { "we do not know theirs" },
    )))
}

/// All instances decide by the same rules: otherwise it depends on which of them answers what a fan may do.
fn compare_rules(ours: &Rules, theirs: &Rules) -> Result<(), Fault> {
    let differences = ours.differences(theirs);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Fault::Unavailable(format!(
        "another instance runs with other rules: {}. Give all instances the same settings; to change one of \
         these, stop all instances first",
        differences.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(polled: u64, claimed: u64) -> Seen {
        let by_queue = |seq| {
            let Some(queue) = QueueName::new("main") else { panic!("a name") };
            ByQueue::from([(queue, RoaringTreemap::from_iter([seq]))])
        };
        Seen { polled: by_queue(polled), claimed: by_queue(claimed) }
    }

    fn told(kept: &Kept) -> (Vec<u64>, Vec<u64>, i64) {
        let (seen, since) = kept.seen();
        let list = |of: ByQueue| of.into_values().flatten().collect();
        (list(seen.polled), list(seen.claimed), since.0)
    }

    #[test]
    fn a_beat_repeats_what_was_told_lately_and_says_since_when_that_is_all() {
        let mut kept = Kept::default();
        for beat in 1..=6 {
            kept.untold.add(&seen(beat, 10 + beat));
            kept.told(Timestamp(beat as i64 * 500));
        }
        kept.untold.add(&seen(7, 17));
        // Beat 3, at 1500, is the last one that is not repeated.
        assert_eq!(told(&kept), (vec![4, 5, 6, 7], vec![14, 15, 16, 17], 1_500));
        kept.told(Timestamp(3_500));
        assert_eq!(told(&kept), (vec![5, 6, 7], vec![15, 16, 17], 2_000));
        assert_eq!(told(&Kept::default()), (vec![], vec![], 0));
    }

    fn other(at: i64, since: i64) -> OtherBeat {
        OtherBeat {
            instance: "b".into(),
            at: Timestamp(at),
            has_ended: false,
            redis_at: Timestamp(0),
            ticket_keys: String::new(),
            rules: Rules::default(),
            present: Present::default(),
            claimed: Present::default(),
            since: Timestamp(since),
        }
    }

    #[test]
    fn who_missed_polls_knows_it() {
        let mut kept = Kept::default();
        assert_eq!(kept.hear(&other(1_000, 0), 100), Some(false));
        assert_eq!(kept.hear(&other(2_000, 500), 100), Some(false));
        assert_eq!(kept.hear(&other(4_000, 2_000), 100), Some(false));
        // Between 4,000 and 4,500 polls were answered that are not repeated any more.
        assert_eq!(kept.hear(&other(6_500, 4_500), 100), Some(true));
        assert_eq!(kept.hear(&other(6_500, 4_500), SILENT_MS + 1), Some(true));
    }

    #[test]
    fn a_last_beat_is_heard_once_however_late_and_not_waited_for() {
        let last = |since| OtherBeat { has_ended: true, ..other(2_300, since) };
        let mut kept = Kept::default();
        kept.hear(&other(2_000, 500), 100);
        assert_eq!(kept.hear(&last(1_000), SILENT_MS + 1), Some(false));
        assert_eq!(kept.hear(&last(1_000), SILENT_MS + 1), None);
        // Who has missed beats before it has missed polls.
        let mut kept = Kept::default();
        kept.hear(&other(500, 0), 100);
        assert_eq!(kept.hear(&last(1_000), 100), Some(true));
        // Who comes a moment after the end hears it, and who comes later has no use for it.
        assert_eq!(Kept::default().hear(&last(1_000), 100), Some(false));
        assert_eq!(Kept::default().hear(&last(1_000), SILENT_MS + 1), None);
    }

    #[test]
    fn instances_have_to_know_each_others_keys() {
        let keys = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        assert!(compare_keys(&keys(&["a", "b"]), "b a").is_ok());
        assert!(compare_keys(&keys(&["a"]), "a").is_ok());
        for (ours, theirs) in [(keys(&["a"]), "b a"), (keys(&["a", "b"]), "b"), (keys(&["a"]), "b")]
        {
            assert!(compare_keys(&ours, theirs).is_err(), "{ours:?} {theirs}");
        }
    }
}
