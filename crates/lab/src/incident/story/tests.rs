//! A healthy incident keeps every bound; whatever is planted in it breaks the one that is for it.

use super::*;
use crate::incident::plan;

const FAULT: Seconds = 1_000.0;
const ENDS: Seconds = FAULT + 60.0;
const HEALED: Seconds = FAULT + 20.0;
const ALARM: &str = "Broken";

/// All that can be asked of an incident.
const CHECKS: &[Check] = &[
    Check::NothingLost,
    Check::Bought(1.0),
    Check::Polls(2.0),
    Check::BackWithin(10.0),
    Check::JoinsRefused(5.0),
    Check::SharedWithin(10.0),
    Check::Paid(0.99),
    Check::PrimaryReads(0.1),
    Check::Goodput(0.9),
    Check::NoneFailed,
    Check::Slowed,
    Check::ReadsGoOn,
];

fn incident() -> Incident {
    let [mut incident, ..] = plan::INCIDENTS;
    (incident.alarms, incident.alarm_within, incident.checks) = (&[ALARM], 10.0, CHECKS);
    incident
}

fn request(kind: Kind, done: Seconds) -> Request {
    Request { began: done - 0.005, done, kind, status: 200 }
}

/// Ten of each kind a second; admission slows once, a new instance takes part, and the alarm comes.
fn healthy() -> Seen {
    let kinds = [Kind::Join, Kind::Poll, Kind::Seats, Kind::Reserve, Kind::Pay, Kind::Flood];
    let times = (-200..600).map(|tenth| FAULT + 0.05 + f64::from(tenth) / 10.0);
    let requests = times.flat_map(|at| kinds.map(|kind| request(kind, at))).collect();
    let look = |second: i32| {
        let at = f64::from(second);
        let mut answered = BTreeMap::from([("old".to_owned(), 600.0 + 30.0 * at)]);
        if second >= 5 {
            answered.insert("new".to_owned(), 30.0 * (at - 5.0));
        }
        let share = if second == 10 { 0.5 } else { 1.0 };
        Look { at: FAULT + at + 0.5, share: Some(share), waiting: Some(0.0), answered }
    };
    let alarm = Moment { at: FAULT + 5.0, what: Event::Alarm(ALARM.to_owned()) };
    Seen {
        calm_from: FAULT - 20.0,
        fault: FAULT,
        fault_ends: HEALED,
        ends: ENDS,
        requests,
        bought: vec![Bought { at: FAULT + 1.0, did: true }, Bought { at: FAULT + 2.0, did: true }],
        inside: 2,
        looks: (-20..60).map(look).collect(),
        moments: vec![alarm],
        lost: Vec::new(),
        primary_reads: Some(0.0),
        started: Some((FAULT + 4.0, "new".to_owned())),
    }
}

fn broken_of(incident: &Incident, seen: &Seen) -> Vec<Measure> {
    let bounds = seen.bounds(incident, &seen.seconds());
    bounds.iter().filter(|bound| !bound.holds).map(|bound| bound.what).collect()
}

fn broken(change: impl FnOnce(&mut Seen)) -> Vec<Measure> {
    let mut seen = healthy();
    change(&mut seen);
    broken_of(&incident(), &seen)
}

/// Changes requests of a kind that ended in a stretch after the fault.
fn change(seen: &mut Seen, kind: Kind, from: Seconds, to: Seconds, how: fn(&mut Request)) {
    let (from, to) = (FAULT + from, FAULT + to);
    let some = seen.requests.iter_mut();
    some.filter(|it| it.kind == kind && from <= it.done && it.done < to).for_each(how);
}

fn fail(request: &mut Request) {
    request.status = 503;
}

#[test]
fn a_healthy_incident_keeps_every_bound() {
    let seen = healthy();
    assert_eq!(broken_of(&incident(), &seen), []);
    let story = seen.story(&incident());
    assert!(story.holds() && story.bounds.len() == CHECKS.len() + 1);
    assert_eq!(story.bought, [2, 0]);
}

#[test]
fn an_alarm_must_come_in_time_and_by_its_name() {
    assert_eq!(broken(|seen| seen.moments[0].at = FAULT + 11.0), [Measure::AlarmAfter]);
    assert_eq!(broken(|seen| seen.moments[0].at = FAULT - 1.0), [Measure::AlarmAfter]);
    assert_eq!(broken(|seen| seen.moments.clear()), [Measure::AlarmAfter]);
    let other = Event::Alarm("Another".to_owned());
    assert_eq!(broken(|seen| seen.moments[0].what = other), [Measure::AlarmAfter]);
    let quiet = Incident { alarms: &[], ..incident() };
    assert_eq!(broken_of(&quiet, &healthy()), [Measure::Alarms]);
}

#[test]
fn whoever_is_inside_must_have_a_seat_in_the_end() {
    assert_eq!(broken(|seen| seen.bought[1].did = false), [Measure::Bought]);
    // Interrupted: inside, and never heard of again.
    assert_eq!(broken(|seen| seen.inside = 3), [Measure::Bought]);
    // Whoever was done before it broke shows nothing.
    assert_eq!(
        broken(|seen| {
            seen.bought.iter_mut().for_each(|bought| bought.at = FAULT - 1.0);
        }),
        [Measure::Bought]
    );
    let mut seen = healthy();
    seen.inside = 3;
    assert_eq!(seen.story(&incident()).bought, [2, 1]);
}

#[test]
fn what_was_acknowledged_must_be_there() {
    assert_eq!(broken(|seen| seen.lost.push("a seat".to_owned())), [Measure::Lost]);
}

#[test]
fn polls_stay_quick() {
    let slow = |request: &mut Request| request.began -= 0.05;
    let slower = broken(|seen| change(seen, Kind::Poll, 0.0, 20.0, slow));
    assert_eq!(slower, [Measure::PollsSlower]);
    let none = broken(|seen| {
        seen.requests.retain(|it| it.kind != Kind::Poll || it.done < FAULT);
    });
    assert!(none.contains(&Measure::PollsSlower));
}

#[test]
fn it_must_be_over_soon_after_its_cause() {
    let late = broken(|seen| change(seen, Kind::Seats, 20.0, 31.0, fail));
    assert_eq!(late, [Measure::BackAfter, Measure::Failed]);
    let slowed = broken(|seen| {
        let after = seen.looks.iter_mut().filter(|look| look.at > HEALED);
        after.for_each(|look| look.share = Some(0.9));
    });
    assert_eq!(slowed, [Measure::BackAfter]);
    let slow = |request: &mut Request| request.began -= 1.5;
    let slow = broken(|seen| change(seen, Kind::Reserve, 20.0, 60.0, slow));
    assert_eq!(slow, [Measure::BackAfter]);
}

#[test]
fn joins_are_refused_for_a_moment_at_the_most() {
    let refused = broken(|seen| change(seen, Kind::Join, 0.0, 6.0, fail));
    assert_eq!(refused, [Measure::JoinsRefusedFor, Measure::Failed]);
    let for_ever = broken(|seen| change(seen, Kind::Join, 50.0, 60.0, fail));
    assert!(for_ever.contains(&Measure::JoinsRefusedFor));
    let briefly = broken(|seen| change(seen, Kind::Join, 0.0, 4.0, fail));
    assert_eq!(briefly, [Measure::Failed]);
}

#[test]
fn a_new_instance_must_take_part() {
    let idle = broken(|seen| {
        let looks = seen.looks.iter_mut();
        looks.filter_map(|look| look.answered.get_mut("new")).for_each(|all| *all = 1.0);
    });
    assert_eq!(idle, [Measure::SharedAfter]);
    assert_eq!(broken(|seen| seen.started = None), [Measure::SharedAfter]);
}

#[test]
fn payments_come_through() {
    let failed = broken(|seen| change(seen, Kind::Pay, 5.0, 6.0, fail));
    assert_eq!(failed, [Measure::Paid, Measure::Failed]);
}

#[test]
fn lists_are_read_from_the_replica() {
    assert_eq!(broken(|seen| seen.primary_reads = Some(100.0)), [Measure::PrimaryReads]);
    assert_eq!(broken(|seen| seen.primary_reads = None), [Measure::PrimaryReads]);
}

#[test]
fn more_asked_is_no_less_done() {
    let less = |request: &mut Request| request.status = 0;
    let collapsed = broken(|seen| change(seen, Kind::Flood, 10.0, 20.0, less));
    assert_eq!(collapsed, [Measure::Goodput, Measure::Failed]);
}

#[test]
fn admission_must_have_slowed() {
    let steady = broken(|seen| {
        seen.looks.iter_mut().for_each(|look| look.share = Some(1.0));
    });
    assert_eq!(steady, [Measure::LowestShare]);
}

#[test]
fn who_looks_is_answered() {
    let failed = broken(|seen| change(seen, Kind::Poll, 5.0, 6.0, fail));
    assert_eq!(failed, [Measure::Failed, Measure::ReadsAnswered]);
}
