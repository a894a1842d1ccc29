//! How many may be let in per second, and why.
//!
//! CPU is what a sale runs out of. Of what the service may use, a part is kept free; of the rest, the crowd
//! that waits takes its share by polling, and those who join theirs; what is left is for those who were let
//! in. So with `B` CPU seconds per second to plan with
//!
//! ```text
//! admissions per second = (B − waiting ÷ poll interval × CPU of a poll − joins per second × CPU of a join)
//!                         ÷ CPU of all requests of one buyer
//! ```
//!
//! and no more than the limit that a breakpoint run has found, with the same part kept free.

use crate::model::{SafeRate, Series};
use crate::sample::Scrape;

/// What may be planned with: the rest is for what cannot be planned.
pub(crate) const HEADROOM: f64 = 0.7;
/// Share of the iterations of the workload `mix` that buy.
pub(crate) const BUYERS_OF_MIX: f64 = 0.3;

/// The crowd that is planned for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    pub(crate) waiting: f64,
    pub(crate) poll_every_seconds: f64,
    pub(crate) joins_per_second: f64,
}

/// CPU microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    pub(crate) poll: f64,
    pub(crate) join: f64,
    pub(crate) buyer: f64,
}

impl Costs {
    pub(crate) fn of(_series: &Series, _scrapes: &[Scrape], _cpu_seconds: f64) -> Option<Self> {
        None
    }
}

/// `None` where nothing is left for buyers, or a cost is not known.
pub(crate) fn work_out(costs: &Costs, cpus: f64, crowd: &Crowd, knee: Option<f64>) -> Option<SafeRate> {
    if [costs.poll, costs.join, costs.buyer, crowd.poll_every_seconds].iter().any(|&figure| !(figure > 0.0)) {
        return None;
    }
    let budget = cpus * HEADROOM * 1e6;
    let polls = crowd.waiting / crowd.poll_every_seconds * costs.poll;
    let joins = crowd.joins_per_second * costs.join;
    let by_cpu = ((budget - polls - joins) / costs.buyer).max(0.0);
    let knee_limit_per_second = knee.map(|knee| knee * HEADROOM);
    Some(SafeRate {
        per_second: knee_limit_per_second.map_or(by_cpu, |limit| by_cpu.min(limit)),
        cpus,
        headroom: HEADROOM,
        poll_micros: costs.poll,
        join_micros: costs.join,
        buyer_micros: costs.buyer,
        waiting: crowd.waiting,
        poll_every_seconds: crowd.poll_every_seconds,
        joins_per_second: crowd.joins_per_second,
        knee_limit_per_second,
    })
}
