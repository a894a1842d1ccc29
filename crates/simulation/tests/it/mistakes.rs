//! Mistakes that are planted are found.

use std::time::Duration;

use boxoffice_backends::simulation::Bug;
use simulation::plan::{Fate, Peer, Plan, Way, What, Which};
use simulation::swarm::{Mode, Scope, plan};
use simulation::world::run;

use crate::common::empty_places;
use crate::draws::redis_is_back;

/// Whether the checkers find a mistake, and nothing without it.
fn is_found(plan: &Plan, bug: Bug) -> bool {
    let broken = |plan: &Plan| run(plan, false).map_or(true, |ran| !ran.violations.is_empty());
    broken(&Plan { bug: Some(bug), ..plan.clone() }) && !broken(plan)
}

/// Those that show at once; `--bugs` plants all of them, and takes far longer.
#[test]
fn mistakes_that_are_planted_are_found() {
    let scope = Scope { mode: Mode::Swarm, seconds: 60, clients: 200, drawn: 20 };
    for bug in [
        Bug::GrantUncounted,
        Bug::CreditUnspent,
        Bug::PollsUnheard,
        Bug::PollsUnnoticed,
        Bug::HeldIsFree,
        Bug::SweepAhead,
        Bug::PaymentWithoutEvent,
        Bug::GivenBackStaysHeld,
        Bug::FreeOfCharge,
        Bug::SoldIsFree,
        Bug::LeavingForgotten,
        Bug::OpeningUnheeded,
        Bug::StockUnheeded,
        Bug::SoldOutUnheeded,
    ] {
        assert!((1..=40).any(|seed| is_found(&plan(seed, scope), bug)), "{bug:?}");
    }
}

/// Those of the opening draw.
#[test]
fn mistakes_in_a_draw_are_found() {
    let scope = Scope { mode: Mode::Swarm, seconds: 60, clients: 200, drawn: 100 };
    for bug in [
        Bug::DrawnAnew,
        Bug::DrawnTooFew,
        Bug::PoolIsDrawn,
        Bug::LeftUndrawn,
        Bug::EndedByNumber,
        Bug::PresenceUndrawn,
    ] {
        assert!((1..=40).any(|seed| is_found(&plan(seed, scope), bug)), "{bug:?}");
    }
    assert!((0..20).any(|seed| is_found(&redis_is_back(seed), Bug::TakenUndrawn)));
}

/// Random faults do not last for long enough to see this one.
#[test]
fn numbers_that_are_granted_anew_are_empty_places() {
    // The store does what it is asked, and nobody hears of it.
    let cut =
        What::Cut { instances: Which::ALL, peer: Peer::Store, way: Way::Back, fate: Fate::Lost };
    let plan =
        Plan::calm(4).lasts(60).breaks((10_000, 40_000), cut).joins(30, (1_000, 58_000), None);
    let empty = |bug| empty_places(&run(&Plan { bug, ..plan.clone() }, false).unwrap());
    let (without, with) = (empty(None), empty(Some(Bug::GrantAnew)));
    println!("{without} empty places, with the mistake {with}");
    assert!(without <= 1_200 && with > 2 * 1_200, "{without}, {with}");
}

/// A step is to be carried out once, whoever has planned it.
#[test]
fn steps_that_nobody_compares_are_found() {
    let found = (0..40).any(|seed| {
        let mut plan = Plan::calm(seed).lasts(20).joins(20, (1_000, 15_000), None);
        plan.turn = Duration::ZERO;
        plan.latency_us[1] = (20_000, 120_000);
        is_found(&plan, Bug::NoCompareAndSet)
    });
    assert!(found);
}
