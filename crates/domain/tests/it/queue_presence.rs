//! Presence, by simulated crowds: who polls as told, who does not, and who comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice_domain::queue::{
    Bucket, CLAIM_GRACE, Ending, Forecast, Line, Place, Presence, Pruned, QueueSettings, Step,
    poll_after,
};
use boxoffice_domain::time::Timestamp;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

const NOW: Timestamp = Timestamp(1_000_000_000);
const TICK_MS: i64 = 100;

fn settings(admit_per_second: f64) -> QueueSettings {
    QueueSettings {
        admit_per_second,
        max_active: None,
        active_ttl: Duration::from_secs(300),
        claim_window: Duration::from_secs(30),
        opens_at: None,
        paused: false,
    }
}

/// A queue, and its fans who poll as they are told.
struct Crowd {
    line: Line,
    presence: Presence,
    bucket: Bucket,
    settings: QueueSettings,
    next: u64,
    now: Timestamp,
    /// Those who are there, by when they poll next.
    polls_at: BTreeMap<(i64, u64), ()>,
    /// Polls that presence has not heard of, and how late it hears of polls.
    unheard: Vec<(i64, u64)>,
    heard_after_ms: i64,
    /// Whether polls are lost, and the sequencer stands still.
    stalled: bool,
    admitted: u64,
}

impl Crowd {
    fn new(settings: QueueSettings) -> Self {
        let mut crowd = Self {
            line: Line::default(),
            presence: Presence::default(),
            bucket: Bucket::default(),
            settings,
            next: 0,
            now: NOW,
            polls_at: BTreeMap::new(),
            unheard: Vec::new(),
            heard_after_ms: 0,
            stalled: false,
            admitted: 0,
        };
        crowd.tick();
        crowd
    }

    /// When somebody asks again who asks now, if there is a reason to.
    fn asks_again(&self, seq: u64) -> Option<i64> {
        let ttl = self.settings.active_ttl;
        let Place::Waiting { number } = self.line.place(seq, ttl, self.now) else {
            return None;
        };
        let jitter = seq.wrapping_mul(31).wrapping_add(self.now.0.unsigned_abs());
        // The others may know more or less of the speed: each is told the one or the other.
        let known = (!seq.is_multiple_of(3)).then(|| Forecast::initial(&self.settings));
        let eta = known.and_then(|known| known.eta(number, &self.settings, self.now));
        let after = poll_after(eta, &self.settings, self.now, jitter);
        Some(self.now.plus(after).0)
    }

    fn polls(&mut self, seq: u64) {
        if let Some(at) = self.asks_again(seq) {
            self.polls_at.insert((at, seq), ());
        }
    }

    fn join(&mut self, count: u64, there: bool) {
        for seq in self.next + 1..=self.next + count {
            self.next = seq;
            if there {
                self.polls(seq);
            }
        }
    }

    fn is_there(&self, seq: u64) -> bool {
        self.polls_at.keys().any(|(_, polling)| *polling == seq)
    }

    fn tick(&mut self) -> Option<Step> {
        self.now.0 += TICK_MS;
        while let Some(entry) = self.polls_at.first_entry().filter(|due| due.key().0 <= self.now.0)
        {
            let (_, seq) = entry.remove_entry().0;
            if !self.stalled {
                self.unheard.push((self.now.0 + self.heard_after_ms, seq));
            }
            self.polls(seq);
        }
        if self.stalled {
            return None;
        }
        let now = self.now;
        let heard: Vec<u64> =
            self.unheard.extract_if(.., |(at, _)| *at <= now.0).map(|(_, seq)| seq).collect();
        let (line, settings) = (&self.line, &self.settings);
        self.presence.polled(heard, line, settings, now);
        self.presence.follow(line, settings, self.next, now);
        let credit = self.bucket.fill(settings.admit_per_second, now);
        let step = line.plan(settings, self.next, credit, 0, &self.presence, now);
        if let Some(step) = &step {
            let count = self.line.admit(step);
            assert!(count <= credit, "{count} for a credit of {credit}");
            self.bucket.spend(count);
            self.admitted += count;
        }
        self.line.prune(self.settings.active_ttl, now);
        step
    }

    fn change(&mut self, change: impl FnOnce(&mut QueueSettings, Timestamp)) {
        change(&mut self.settings, self.now);
    }

    /// Ticks until `seqs` no longer wait; returns how long that took, in milliseconds.
    fn until_in(&mut self, seqs: std::ops::RangeInclusive<u64>, most_s: i64) -> i64 {
        let begun = self.now.0;
        let waits = |crowd: &Self, seq| {
            let place = crowd.line.place(seq, crowd.settings.active_ttl, crowd.now);
            matches!(place, Place::Waiting { .. })
        };
        // The last of them is the last one in, because none of them goes away.
        while waits(self, *seqs.end()) {
            assert!(self.now.0 - begun <= most_s * 1_000, "some still wait");
            self.tick();
        }
        for seq in seqs {
            assert!(!waits(self, seq), "{seq} waits");
        }
        self.now.0 - begun
    }
}

#[test]
fn dead_tickets_before_an_opening_cost_nothing() {
    let mut settings = settings(10.0);
    settings.opens_at = Some(NOW.plus(Duration::from_secs(180)));
    let mut crowd = Crowd::new(settings);
    crowd.join(100_000, false);
    crowd.join(1_000, true);
    while crowd.now.0 < NOW.0 + 180_000 {
        crowd.tick();
    }
    let took_ms = crowd.until_in(100_001..=101_000, 120);
    assert!(took_ms <= 110_000, "{took_ms} ms");
    assert_eq!(crowd.line.passed().len(), 100_000);
    assert_eq!(crowd.line.active(&crowd.settings, NOW), 1_000, "the others take no room");
}

#[test]
fn dead_tickets_of_an_open_queue_cost_what_it_takes_to_notice() {
    let mut crowd = Crowd::new(settings(10.0));
    crowd.join(100_000, false);
    crowd.join(1_000, true);
    // The claim window, and then as if they had never been.
    let took_ms = crowd.until_in(100_001..=101_000, 300);
    assert!(took_ms <= 30_000 + 102_000, "{took_ms} ms");
}

#[test]
fn a_million_dead_tickets_hide_nobody() {
    let mut crowd = Crowd::new(settings(100.0));
    crowd.settings.paused = true;
    crowd.join(1_000_000, false);
    crowd.join(100, true);
    let mut longest = 0;
    for _ in 0..4_000 {
        crowd.tick();
        let (from, upto) = crowd.presence.stretch();
        longest = longest.max(upto - from);
    }
    assert_eq!(longest, 1_000_100);
    crowd.settings.paused = false;
    let took_ms = crowd.until_in(1_000_001..=1_000_100, 10);
    assert!(took_ms < 1_500, "{took_ms} ms");
    assert_eq!((crowd.admitted, crowd.line.passed().len()), (100, 1_000_000));
}

#[test]
fn the_stretch_is_bounded_and_what_is_behind_it_is_judged_in_its_turn() {
    let mut crowd = Crowd::new(settings(100.0));
    crowd.settings.paused = true;
    crowd.join(1_100_000, false);
    crowd.join(100, true);
    for _ in 0..4_000 {
        crowd.tick();
        let (from, upto) = crowd.presence.stretch();
        assert!(upto - from <= 1 << 20);
    }
    crowd.settings.paused = false;
    let step = loop {
        if let Some(step) = crowd.tick() {
            break step;
        }
    };
    assert_eq!((step.upto, step.passed.len()), (1 << 20, 1 << 20), "nobody behind is admitted");
    // Those have the benefit of the doubt, for three of the longest intervals.
    let took_ms = crowd.until_in(1_100_001..=1_100_100, 120);
    assert!(took_ms < 102_000, "{took_ms} ms");
}

#[test]
fn ten_thousand_who_come_back_at_once_keep_rate_and_bound() {
    let mut crowd = Crowd::new(settings(1_000.0));
    crowd.settings.max_active = Some(3_000);
    crowd.settings.paused = true;
    crowd.join(10_000, false);
    for _ in 0..1_000 {
        crowd.tick();
    }
    crowd.join(500, true);
    crowd.settings.paused = false;
    crowd.until_in(10_001..=10_500, 5);
    assert_eq!(crowd.line.passed().len(), 10_000);
    assert_eq!(crowd.admitted, 500);

    crowd.join(1_000, true);
    for seq in 1..=10_000 {
        assert_eq!(
            crowd.line.place(seq, crowd.settings.active_ttl, crowd.now),
            Place::Waiting { number: 1 }
        );
        crowd.polls(seq);
    }
    let (mut expected, mut behind) = (1, crowd.line.serving());
    for _ in 0..20_000 {
        let Some(step) = crowd.tick() else { continue };
        let active = crowd.line.active(&crowd.settings, crowd.now);
        assert!(active <= 3_000, "{active} are active");
        for seq in &step.returned {
            if expected <= 10_000 && crowd.line.serving() == 10_500 {
                assert_eq!(crowd.line.readmitted()[&seq], step.at);
            }
            expected += 1;
        }
        behind = behind.max(step.upto);
        // Those who are admitted by and by do nothing, and time out after five minutes.
        if expected > 10_000 && behind == 11_500 {
            break;
        }
    }
    assert_eq!((expected, behind), (10_001, 11_500), "all of them are in");
    assert!(crowd.line.passed().is_empty());
}

#[test]
fn who_comes_back_is_let_in_before_those_behind_and_only_while_there() {
    let mut crowd = Crowd::new(settings(10.0));
    crowd.settings.max_active = Some(0);
    crowd.join(5, false);
    for _ in 0..1_000 {
        crowd.tick();
    }
    crowd.join(20, true);
    crowd.settings.max_active = None;
    while crowd.line.serving() < 8 {
        crowd.tick();
    }
    assert_eq!(crowd.line.passed().iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    // One comes back, one leaves for good and asks all the same, one comes back and goes at once.
    crowd.settings.max_active = Some(0);
    crowd.line.leave(3);
    let (line, now) = (&crowd.line, crowd.now);
    crowd.presence.polled([2, 3, 4], line, &settings(10.0), now);
    assert_eq!(crowd.presence.returned(line, now).collect::<Vec<_>>(), [2, 4]);
    for _ in 0..290 {
        crowd.tick();
    }
    let (line, now) = (&crowd.line, crowd.now);
    assert_eq!(crowd.presence.returned(line, now.plus(Duration::from_secs(2))).count(), 0);
    crowd.presence.polled([2], line, &settings(10.0), now);
    for _ in 0..30 {
        crowd.tick();
    }
    crowd.settings.max_active = None;
    let (behind, log) = (crowd.line.serving(), crowd.line.log().len());
    let (line, now) = (&crowd.line, crowd.now);
    let step = line.plan(&crowd.settings, crowd.next, 1, 0, &crowd.presence, now).unwrap();
    assert_eq!(step.returned.iter().collect::<Vec<_>>(), [2]);
    assert_eq!((step.upto, step.passed.len()), (behind, 0), "nobody before them");
    assert_eq!(crowd.line.admit(&step), 1);
    assert_eq!(crowd.line.log().len(), log, "no entry of the log");
    let ttl = crowd.settings.active_ttl;
    let place = crowd.line.place(2, ttl, crowd.now);
    assert_eq!(place, Place::Active { until: step.at.plus(ttl), claimed: true });
    assert!(!crowd.line.is_late(2, &crowd.settings, Duration::ZERO, crowd.now.plus(ttl)));
    // What it paid for is known, though its own step is long forgotten.
    let pruned = crowd.line.prune(Duration::from_secs(1), Timestamp(step.at.0 + 999));
    assert_eq!((pruned.no_show, pruned.expired), (behind - 5, 0), "of those who had their turn");
    assert_eq!(crowd.line.floor(), behind);
    crowd.line.finish(2);
    assert_eq!(crowd.line.place(2, ttl, crowd.now), Place::Over(Ending::Finished));
    assert_eq!(crowd.line.prune(ttl, step.at.plus(ttl)), Pruned::default());
    assert_eq!(crowd.line.place(2, ttl, crowd.now), Place::Over(Ending::TimedOut));
    assert!(crowd.line.finished().is_empty() && crowd.line.readmitted().is_empty());
    assert_eq!(crowd.line.place(3, ttl, crowd.now), Place::Over(Ending::Left), "for good");
    assert_eq!(crowd.line.place(4, ttl, crowd.now), Place::Waiting { number: 1 }, "for good");
}

#[test]
fn the_room_of_the_unseen_is_kept_a_little_longer_than_the_claim_window() {
    let mut crowd = Crowd::new(settings(10.0));
    crowd.join(1, true);
    crowd.until_in(1..=1, 5);
    let (line, settings, at) = (&crowd.line, &crowd.settings, crowd.now);
    let kept = at.plus(settings.claim_window + CLAIM_GRACE);
    for (now, active) in [(Timestamp(kept.0 - 1), 1), (kept, 0)] {
        assert_eq!(line.active(settings, now), active);
    }
    for grace in [Duration::ZERO, CLAIM_GRACE] {
        let ends = at.plus(settings.claim_window + grace);
        assert!(!line.is_late(1, settings, grace, Timestamp(ends.0 - 1)));
        assert!(line.is_late(1, settings, grace, ends));
    }
}

#[test]
fn a_clock_that_jumps_makes_nobody_absent_and_keeps_nobody_for_long() {
    const HOUR_MS: i64 = 3_600_000;
    for jump_ms in [-HOUR_MS, HOUR_MS, 365 * 24 * HOUR_MS, -365 * 24 * HOUR_MS, 20 * 8766 * HOUR_MS]
    {
        let mut crowd = Crowd::new(settings(0.001));
        crowd.join(1_000, false);
        for _ in 0..50 {
            crowd.tick();
        }
        crowd.now.0 += jump_ms;
        crowd.tick();
        assert_eq!(crowd.presence.absent(crowd.now), 0, "a jump of {jump_ms} ms");
        for _ in 0..400 {
            crowd.tick();
            let late: Vec<u64> = (500..=1_000).collect();
            crowd.presence.polled(late, &crowd.line, &crowd.settings, crowd.now);
        }
        // Back to where it was.
        crowd.now.0 -= jump_ms;
        for _ in 0..1_000 {
            crowd.tick();
            for seq in 500..=1_000 {
                let told_ms = 30_000 - 1_100_i64;
                let heard = crowd.now.0 < NOW.0 + 45_000 + told_ms;
                assert!(!heard || !crowd.presence.is_absent(seq, crowd.now), "{seq}");
            }
        }
        let waiting = crowd.line.waiting(crowd.next);
        assert_eq!(crowd.presence.absent(crowd.now), waiting, "a jump of {jump_ms} ms");
    }
}

#[test]
fn nothing_is_kept_where_nobody_waits() {
    let mut crowd = Crowd::new(settings(50_000.0));
    crowd.join(200_000, true);
    for _ in 0..100 {
        crowd.tick();
    }
    assert_eq!(crowd.presence.stretch(), (200_000, 200_000));
    assert_eq!(crowd.presence.absent(crowd.now), 0);
}

/// What happens to a crowd of which some poll as told.
#[derive(Clone, Debug)]
enum Event {
    Join {
        count: u64,
        there: bool,
    },
    Pass {
        ticks: u16,
    },
    Pause(bool),
    RateMilli(u64),
    OpensInMs(Option<i64>),
    /// So many of those at the head leave who are not there; and of the others every third.
    Leave(u64),
    /// Those who are there go away, but for every so manieth.
    GoAway(u64),
    /// Those who were passed over come back, but for every so manieth.
    ComeBack(u64),
    HeardAfterMs(i64),
    /// So many ticks do not take place, and polls are lost meanwhile.
    Stall {
        ticks: u16,
    },
    /// A new instance, which has heard of nobody.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..400_u64, any::<bool>()).prop_map(|(count, there)| Event::Join { count, there }),
        8 => prop_oneof![1..30_u16, 1..1_500_u16].prop_map(|ticks| Event::Pass { ticks }),
        2 => any::<bool>().prop_map(Event::Pause),
        2 => prop_oneof![10..1_000_u64, 1_000..200_000_u64].prop_map(Event::RateMilli),
        1 => proptest::option::weighted(0.7, 0..400_000_i64).prop_map(Event::OpensInMs),
        1 => (0..300_u64).prop_map(Event::Leave),
        2 => (2..6_u64).prop_map(Event::GoAway),
        2 => (2..6_u64).prop_map(Event::ComeBack),
        1 => (0..1_000_i64).prop_map(Event::HeardAfterMs),
        1 => (0..800_u16).prop_map(|ticks| Event::Stall { ticks }),
        1 => Just(Event::Restart),
    ]
}

/// Ticks, and sees to it that nobody suffers who polls as told.
fn watched_tick(crowd: &mut Crowd, numbers: &mut BTreeMap<u64, u64>) -> TestCaseResult {
    let serving = crowd.line.serving();
    let steps = crowd.line.steps();
    let step = crowd.tick();
    prop_assert_eq!(crowd.line.steps(), steps + u64::from(step.is_some()));
    let Some(step) = step else { return Ok(()) };
    prop_assert!(step.upto >= serving && step.upto <= crowd.next);
    prop_assert!((&step.passed & crowd.line.left()).is_empty());
    let there: Vec<u64> = crowd.polls_at.keys().map(|(_, seq)| *seq).collect();
    for seq in &there {
        prop_assert!(!step.passed.contains(*seq), "{seq} polls, and was passed over");
        let place = crowd.line.place(*seq, crowd.settings.active_ttl, crowd.now);
        if let Place::Waiting { number } = place {
            let before = numbers.insert(*seq, number).unwrap_or(u64::MAX);
            prop_assert!(number <= before, "{seq} fell back from {before} to {number}");
        }
    }
    let active = crowd.line.active(&crowd.settings, crowd.now);
    prop_assert!(active <= crowd.admitted);
    prop_assert_eq!(Line::restore(crowd.line.parts()), Some(crowd.line.clone()));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: ProptestConfig::default().cases / 4,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nobody_who_polls_as_told_is_passed_over(
        rate_milli in 10..50_000_u64,
        events in proptest::collection::vec(event(), 1..40),
    ) {
        let mut crowd = Crowd::new(settings(rate_milli as f64 / 1000.0));
        let mut numbers = BTreeMap::new();
        for event in events {
            match event {
                Event::Join { count, there } => crowd.join(count, there),
                Event::Pass { ticks } => {
                    for _ in 0..ticks {
                        watched_tick(&mut crowd, &mut numbers)?;
                    }
                }
                Event::Pause(paused) => crowd.change(|settings, _| settings.paused = paused),
                Event::RateMilli(milli) => crowd.change(|settings, _| {
                    settings.admit_per_second = milli as f64 / 1000.0;
                }),
                Event::OpensInMs(ms) => crowd.change(|settings, now| {
                    settings.opens_at = ms.map(|ms| Timestamp(now.0 + ms));
                }),
                Event::Leave(count) => {
                    let from = crowd.line.serving();
                    for seq in from + 1..=(from + count).min(crowd.next) {
                        if seq % 3 == 0 || !crowd.is_there(seq) {
                            crowd.line.leave(seq);
                            crowd.polls_at.retain(|(_, polling), ()| *polling != seq);
                        }
                    }
                }
                Event::GoAway(but) => crowd.polls_at.retain(|(_, seq), ()| *seq % but == 0),
                Event::ComeBack(but) => {
                    let passed = crowd.line.passed() - crowd.line.left();
                    for seq in passed.iter().filter(|seq| seq % but != 0) {
                        if !crowd.is_there(seq) {
                            crowd.polls(seq);
                        }
                    }
                }
                Event::HeardAfterMs(ms) => crowd.heard_after_ms = ms,
                Event::Stall { ticks } => {
                    crowd.stalled = true;
                    for _ in 0..ticks {
                        crowd.tick();
                    }
                    crowd.stalled = false;
                    // A stop that is too short to be told from a late tick loses no poll that matters.
                    crowd.unheard.clear();
                }
                Event::Restart => {
                    crowd.presence = Presence::default();
                    crowd.unheard.clear();
                }
            }
        }
        // In the end, everybody who is there is let in, as fast as the rate allows.
        crowd.change(|settings, _| {
            settings.paused = false;
            settings.opens_at = None;
            settings.admit_per_second = 100.0;
        });
        let waiting = crowd.polls_at.len() as i64;
            // The claim window, in which the dead are not told from the living, and more.
        for _ in 0..1_000 + (waiting + 10) * 10 / 100 + 400 {
            watched_tick(&mut crowd, &mut numbers)?;
        }
        prop_assert!(crowd.polls_at.is_empty(), "{} still wait", crowd.polls_at.len());
    }
}
