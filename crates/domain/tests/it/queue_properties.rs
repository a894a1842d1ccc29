//! Properties of the queue's parts: expected waits, poll intervals, the bucket, one admission.

use std::time::Duration;

use boxoffice_domain::queue::{
    Admission, Bucket, Forecast, Gate, Line, LineParts, Place, Presence, QueueSettings, Step,
    poll_after,
};
use boxoffice_domain::time::Timestamp;
use proptest::prelude::*;
use roaring::RoaringTreemap;

const NOW: Timestamp = Timestamp(1_000_000_000);
const ONE_MICRO: u64 = 1_000_000;

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

/// What is told before anything was measured.
fn eta(number: u64, settings: &QueueSettings, now: Timestamp) -> Option<Duration> {
    Forecast::initial(settings).eta(number, settings, now)
}

/// In thousandths of an admission a second: from one in a quarter of an hour to 50,000 a second,
/// small and large ones equally often.
fn rate_milli() -> impl Strategy<Value = u64> {
    prop_oneof![1..1_000_u64, 1_000..20_000_u64, 20_000..50_000_000_u64]
}

/// What a bucket can hold at the most, in millionths of an admission.
fn capacity_micro(rate_milli: u64) -> u64 {
    (rate_milli * 500).max(2 * ONE_MICRO)
}

/// A line of which everybody up to `serving` has come and gone.
fn served(serving: u64) -> Line {
    Line::restore(LineParts { serving, floor: serving, ..LineParts::default() }).unwrap()
}

/// A step that admits everybody up to `upto`.
fn everybody(upto: u64, at: Timestamp) -> Step {
    let none = RoaringTreemap::new;
    Step { upto, at, passed: none(), left: none(), returned: none() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn eta_is_the_wait_rounded_up_to_a_second(
        // Few enough that no wait passes the bound of 2^32 seconds.
        number in 1..1_000_000_u64,
        rate_milli in rate_milli(),
        opens_in_ms in proptest::option::of(-100_000..100_000_i64),
    ) {
        let mut settings = settings(rate_milli as f64 / 1000.0);
        settings.opens_at = opens_in_ms.map(|ms| Timestamp(NOW.0 + ms));
        let told = eta(number, &settings, NOW).unwrap();
        let until_open = opens_in_ms.unwrap_or(0).max(0) as f64 / 1000.0;
        let wait = number as f64 * 1000.0 / rate_milli as f64 + until_open;
        prop_assert_eq!(told.subsec_nanos(), 0);
        prop_assert!(told.as_secs_f64() >= wait - 1e-6, "told {told:?} for {wait} s");
        prop_assert!(told.as_secs_f64() < wait + 1.0 + 1e-6, "told {told:?} for {wait} s");
        prop_assert!(told >= Duration::from_secs(1));

        settings.paused = true;
        prop_assert_eq!(eta(number, &settings, NOW), None);
    }

    #[test]
    fn eta_grows_with_the_number_and_shrinks_with_the_rate(
        number in any::<u64>(),
        more in any::<u64>(),
        rate_milli in rate_milli(),
        faster_milli in rate_milli(),
    ) {
        let (slow, fast) = (rate_milli.min(faster_milli), rate_milli.max(faster_milli));
        let (slow, fast) = (settings(slow as f64 / 1000.0), settings(fast as f64 / 1000.0));
        let here = eta(number, &slow, NOW);
        prop_assert!(eta(number.saturating_add(more), &slow, NOW) >= here);
        prop_assert!(eta(number, &fast, NOW) <= here);
        prop_assert!(here <= Some(Duration::from_secs(u32::MAX.into())));
    }

    #[test]
    fn polls_are_rarer_the_longer_the_wait_and_within_a_third_of_the_claim_window(
        eta_ms in prop_oneof![0..20_000_u64, 0..1_000_000_u64, any::<u64>()],
        longer_ms in prop_oneof![0..20_000_u64, any::<u64>()],
        claim_window_ms in prop_oneof![1..200_000_u64, 1..90_000_000_u64],
        opens_in_ms in proptest::option::of(-60_000..60_000_i64),
        paused in proptest::bool::weighted(0.1),
        jitter in any::<u64>(),
        other_jitter in any::<u64>(),
    ) {
        let mut settings = settings(1.0);
        settings.claim_window = Duration::from_millis(claim_window_ms);
        settings.opens_at = opens_in_ms.map(|ms| Timestamp(NOW.0 + ms));
        settings.paused = paused;
        let after = |eta, jitter| poll_after(eta, &settings, NOW, jitter);
        let near = Some(Duration::from_millis(eta_ms));
        let far = Some(Duration::from_millis(eta_ms.saturating_add(longer_ms)));
        let plain = after(near, 0);
        for told in [plain, after(near, jitter), after(far, jitter), after(None, jitter)] {
            prop_assert!(told <= settings.claim_window / 3, "{told:?}");
            if paused || opens_in_ms.is_some_and(|ms| (1..=30_000).contains(&ms)) {
                prop_assert!(told <= Duration::from_secs(5), "{told:?}");
            }
        }
        prop_assert!(after(far, 0) >= plain);
        prop_assert!(after(None, 0) >= after(far, 0));
        if claim_window_ms >= 3_300 {
            prop_assert!(plain >= Duration::from_secs(1), "{plain:?}");
        }
        // Jitter only ever puts a poll off, and most of the time cannot swap two fans whose intervals
        // are more than a tenth apart.
        let jittered = after(near, jitter);
        prop_assert!(jittered >= plain && jittered <= 2 * plain + Duration::from_millis(1));
        if settings.gate(NOW) == Gate::Open {
            prop_assert!(jittered <= plain + plain / 10);
            if after(far, 0) >= plain + plain / 10 {
                prop_assert!(after(far, other_jitter) >= jittered);
            }
        }
    }

    #[test]
    fn a_bucket_gives_what_time_earns_and_no_more(
        rate_milli in rate_milli(),
        ticks in proptest::collection::vec(0..=400_u64, 1..200),
    ) {
        let rate = rate_milli as f64 / 1000.0;
        let mut bucket = Bucket::default();
        let mut now = NOW;
        prop_assert_eq!(bucket.fill(rate, now), 0, "no time has passed");
        let (mut earned, mut given, mut lost_max) = (0_u64, 0_u64, 0_u64);
        for ms in ticks {
            now.0 += ms as i64;
            let credit = bucket.fill(rate, now);
            bucket.spend(credit);
            earned += rate_milli * ms;
            given += credit * ONE_MICRO;
            // Less than one admission is left from the last tick, and all that still fits is kept.
            lost_max += (ONE_MICRO + rate_milli * ms).saturating_sub(capacity_micro(rate_milli));
            prop_assert!(given <= earned, "gave {given} of {earned} millionths");
            prop_assert!(
                given + ONE_MICRO + lost_max > earned,
                "gave {given} of {earned} millionths where {lost_max} may be lost"
            );
        }
    }

    #[test]
    fn a_bucket_that_ticks_at_least_four_times_a_second_loses_nothing(
        rate_milli in rate_milli(),
        // Each with how far the clock is set back after it, mostly not at all.
        ticks in proptest::collection::vec(
            (0..=250_u64, prop_oneof![9 => Just(0), 1 => 1..3_600_000_i64]),
            1..200,
        ),
    ) {
        let rate = rate_milli as f64 / 1000.0;
        let mut bucket = Bucket::default();
        let mut now = NOW;
        bucket.fill(rate, now);
        let (mut earned, mut given) = (0, 0);
        for (ms, back_ms) in ticks {
            now.0 += ms as i64;
            let credit = bucket.fill(rate, now);
            bucket.spend(credit);
            earned += rate_milli * ms;
            given += credit;
            prop_assert_eq!(given, earned / ONE_MICRO);
            if back_ms > 0 {
                now.0 -= back_ms;
                prop_assert_eq!(bucket.fill(rate, now), 0, "no time has passed");
            }
        }
    }

    #[test]
    fn a_bucket_never_gives_more_than_time_earns_from_any_moment_on(
        // Long stalls, clocks that go back, demand that comes and goes, a rate that changes.
        ticks in proptest::collection::vec(
            (
                prop_oneof![4 => 0..400_i64, 1 => 400..20_000_i64, 1 => -20_000..0_i64],
                rate_milli(),
                proptest::bool::weighted(0.1),
                0..=100_u64,
                proptest::bool::weighted(0.1),
            ),
            1..100,
        ),
    ) {
        let mut bucket = Bucket::default();
        let mut now = NOW;
        let (mut rate, mut last) = (20_000, NOW);
        let (mut earned, mut given) = (0_i128, 0_i128);
        let mut ahead_max = 0_i128;
        for (ms, new_rate, changes, demand_percent, shut) in ticks {
            now.0 += ms;
            if changes {
                rate = new_rate;
            }
            if shut {
                bucket.empty(now);
                last = now;
                ahead_max = ahead_max.min(given - earned);
                prop_assert_eq!(bucket.fill(rate as f64 / 1000.0, now), 0, "it was emptied");
                continue;
            }
            let credit = bucket.fill(rate as f64 / 1000.0, now);
            earned += i128::from(rate) * i128::from((now.0 - last.0).max(0));
            last = now;
            ahead_max = ahead_max.min(given + i128::from(capacity_micro(rate)) - earned);
            let taken = credit * demand_percent / 100;
            bucket.spend(taken);
            prop_assert!(
                given + i128::from(credit * ONE_MICRO) - earned <= ahead_max,
                "a credit of {credit} is more than time has earned"
            );
            given += i128::from(taken * ONE_MICRO);
        }
    }

    #[test]
    fn an_admission_takes_exactly_the_first_who_still_wait(
        serving in prop_oneof![Just(0), Just(u64::from(u32::MAX) - 100), 0..1_000_000_u64],
        // For each ticket whether it leaves: few of them, half of them, nearly all.
        leaves in prop_oneof![
            proptest::collection::vec(proptest::bool::weighted(0.05), 0..300),
            proptest::collection::vec(any::<bool>(), 0..300),
            proptest::collection::vec(proptest::bool::weighted(0.95), 0..300),
        ],
        credit in prop_oneof![0..20_u64, 0..400_u64, Just(u64::MAX)],
        max_active in proptest::option::of(0..300_u64),
        active_bypass in 0..50_u64,
    ) {
        let mut line = served(serving);
        let next = serving + leaves.len() as u64;
        let mut staying = Vec::new();
        for (seq, leaves) in (serving + 1..).zip(&leaves) {
            if *leaves { line.leave(seq) } else { staying.push(seq) }
        }
        let mut settings = settings(1.0);
        settings.max_active = max_active;
        let room = max_active.map_or(u64::MAX, |max| max.saturating_sub(active_bypass));
        let wanted = credit.min(room).min(staying.len() as u64);

        let planned = line.plan(&settings, next, credit, active_bypass, &Presence::default(), NOW);
        if wanted == 0 {
            prop_assert_eq!(planned, None);
            return Ok(());
        }
        let last = staying[wanted as usize - 1];
        let planned = planned.unwrap();
        let left = (serving + 1..=last).filter(|seq| !staying.contains(seq)).collect();
        prop_assert_eq!(&planned, &Step { left, ..everybody(last, NOW) });
        prop_assert_eq!(line.admit(&planned), wanted);
        for (index, seq) in (1..).zip(&staying) {
            let place = line.place(*seq, settings.active_ttl, NOW);
            if index <= wanted {
                prop_assert!(matches!(place, Place::Active { claimed: false, .. }), "{place:?}");
            } else {
                prop_assert_eq!(place, Place::Waiting { number: index - wanted });
            }
        }
        prop_assert_eq!(line.waiting(next), staying.len() as u64 - wanted);
        prop_assert_eq!(line.active(&settings, NOW), wanted);
    }

    #[test]
    fn parts_that_contradict_each_other_are_not_restored(
        floor in 0..1_000_u64,
        steps in proptest::collection::vec((1..5_u64, 0..5_i64), 1..20),
        broken in any::<proptest::sample::Index>(),
    ) {
        let mut log = Vec::new();
        let (mut upto, mut at) = (floor, NOW.0);
        for (seqs, ms) in steps {
            upto += seqs;
            at += ms;
            log.push(Admission { upto, at: Timestamp(at) });
        }
        let restore = |serving, floor, log: &[Admission]| {
            let log = log.to_vec();
            Line::restore(LineParts { serving, floor, log, ..LineParts::default() }).is_some()
        };
        prop_assert!(restore(upto, floor, &log));
        prop_assert!(!restore(upto + 1, floor, &log), "the log does not reach the end");
        prop_assert!(!restore(upto - 1, floor, &log), "the log goes past the end");
        prop_assert!(!restore(upto, log[0].upto, &log), "the log begins under the floor");
        prop_assert!(!restore(upto, floor, &[]), "the log is lost");

        let index = broken.index(log.len());
        let mut twice = log.clone();
        twice.insert(index, log[index]);
        prop_assert!(!restore(upto, floor, &twice), "a step that admits nobody");
        if index > 0 {
            let mut late = log.clone();
            late[index - 1].at.0 = log[index].at.0 + 1;
            prop_assert!(!restore(upto, floor, &late), "time runs backwards");
        }

        let parts = |passed: &[u64], readmitted: &[u64]| LineParts {
            serving: upto,
            floor,
            log: log.clone(),
            passed: passed.iter().collect(),
            readmitted: readmitted.iter().map(|seq| (*seq, NOW)).collect(),
            ..LineParts::default()
        };
        prop_assert!(Line::restore(parts(&[upto], &[upto - 1])).is_some());
        prop_assert!(Line::restore(parts(&[upto + 1], &[])).is_none(), "passed over early");
        prop_assert!(Line::restore(parts(&[], &[upto + 1])).is_none(), "readmitted early");
        prop_assert!(Line::restore(parts(&[upto], &[upto])).is_none(), "both");
        prop_assert!(Line::restore(parts(&[], &[upto, upto])).is_none(), "twice");
    }
}

/// What happens to a queue, in the order in which it happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A step over the next `count`; of them and of those passed over earlier, those are absent
    /// whose bit is set.
    Admit {
        count: u64,
        absent: u64,
        later_ms: i64,
    },
    Leave(u64),
    Claim(u64),
    Finish(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let absent = prop_oneof![Just(0), any::<u64>(), Just(u64::MAX)];
    prop_oneof![
        (0..8_u64, absent, 0..40_000_i64).prop_map(|(count, absent, later_ms)| Event::Admit {
            count,
            absent,
            later_ms
        }),
        (1..60_u64).prop_map(Event::Leave),
        (1..60_u64).prop_map(Event::Claim),
        (1..60_u64).prop_map(Event::Finish),
    ]
}

const VIEW_TTL: Duration = Duration::from_secs(60);

/// The queue as somebody knows it who has heard of all steps up to some moment, and of some of the
/// rest; and the time then.
fn view(events: &[Event], upto: usize, heard: u64) -> (Line, Timestamp) {
    let mut line = Line::default();
    // Who plans has heard of everything.
    let mut planner = Line::default();
    let mut now = NOW;
    for (index, event) in events.iter().enumerate().take(upto) {
        let heard = heard >> (index % 64) & 1 == 1;
        match *event {
            Event::Admit { count, absent, later_ms } => {
                now.0 += later_ms;
                let is_absent = |seq: &u64| absent >> (seq % 64) & 1 == 1;
                let upto = planner.serving() + count;
                let passed: RoaringTreemap = (planner.serving() + 1..=upto)
                    .filter(|seq| is_absent(seq) && !planner.left().contains(*seq))
                    .collect();
                let returned: RoaringTreemap = (planner.passed() - planner.left())
                    .iter()
                    .filter(|seq| !is_absent(seq))
                    .collect();
                let left = RoaringTreemap::new();
                let step = Step { upto, at: now, passed, left, returned };
                planner.admit(&step);
                line.admit(&step);
                if heard {
                    line.prune(VIEW_TTL, now);
                }
            }
            Event::Leave(seq) => {
                planner.leave(seq);
                if heard {
                    line.leave(seq);
                }
            }
            Event::Claim(seq) if heard => {
                line.claim(seq, VIEW_TTL, now);
            }
            Event::Finish(seq) => {
                planner.finish(seq);
                if heard {
                    line.finish(seq);
                }
            }
            Event::Claim(_) => {}
        }
    }
    (line, now)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_views_of_a_queue_become_one_and_nothing_goes_back(
        events in proptest::collection::vec(event(), 0..60),
        ends in (0..60_usize, 0..60_usize),
        heard in (any::<u64>(), any::<u64>()),
    ) {
        let (one, now_one) = view(&events, ends.0, heard.0);
        let (two, now_two) = view(&events, ends.1, heard.1);
        let now = now_one.max(now_two);
        let settings = QueueSettings { active_ttl: VIEW_TTL, ..settings(1.0) };
        let mut both = one.clone();
        both.absorb(&two);
        let mut other_way = two.clone();
        other_way.absorb(&one);
        prop_assert_eq!(both.steps(), one.steps().max(two.steps()));
        prop_assert_eq!(both.passed(), other_way.passed());
        prop_assert_eq!(both.serving(), other_way.serving());
        prop_assert_eq!(both.serving(), one.serving().max(two.serving()));
        prop_assert!(both.floor() >= one.floor());
        prop_assert!((both.passed() & both.claimed()).is_empty());
        prop_assert!((both.left() & both.claimed()).is_empty());
        prop_assert!((both.left() & both.finished()).is_empty());
        prop_assert!((both.claimed() & both.finished()).is_empty());
        let admissions = both.serving() - both.floor() + both.readmitted().len() as u64;
        prop_assert!(both.active(&settings, now) <= admissions);
        for seq in 1..80 {
            let place = both.place(seq, VIEW_TTL, now);
            let same = match (place, other_way.place(seq, VIEW_TTL, now)) {
                // Why it is over may be known in one order only.
                (Place::Over(_), Place::Over(_)) => true,
                (one, two) => one == two,
            };
            prop_assert!(same, "{seq} depends on the order");
            for before in [&one, &two].map(|line| line.place(seq, VIEW_TTL, now)) {
                match (before, place) {
                    (Place::Waiting { number: before }, Place::Waiting { number }) => {
                        prop_assert!(number <= before, "{seq} fell back");
                    }
                    (Place::Waiting { .. }, _) => {}
                    (_, Place::Waiting { .. }) => prop_assert!(
                        matches!(before, Place::Over(_)) && seq > both.serving(),
                        "{seq} waits again, {before:?}"
                    ),
                    (Place::Over(_), place) => prop_assert!(
                        matches!(place, Place::Over(_)), "{seq} was {before:?} and is {place:?}"
                    ),
                    (Place::Active { until, .. }, Place::Active { until: still, .. }) => {
                        prop_assert_eq!(until, still, "{}", seq);
                    }
                    (Place::Active { .. }, Place::Over(_)) => {}
                    (Place::Undrawn, _) | (_, Place::Undrawn) => prop_assert!(false, "{seq}"),
                }
            }
        }
        // Once more changes nothing, and what comes out can be stored.
        let mut again = both.clone();
        again.absorb(&two);
        prop_assert_eq!(&again, &both);
        let restored = Line::restore(both.parts());
        prop_assert_eq!(restored, Some(both));
    }
}
