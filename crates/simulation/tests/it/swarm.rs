//! The simulator itself: it is deterministic.

use simulation::swarm::{Mode, Scope, plan};
use simulation::world::run;

#[test]
fn two_runs_of_a_seed_are_the_same() {
    let scope = Scope { mode: Mode::Swarm, seconds: 20, clients: 50, drawn: 20 };
    for seed in 0..10 {
        let plan = plan(seed, scope);
        let [first, second] = [(), ()].map(|()| run(&plan, false).unwrap());
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert!(first.counts.joins > 0 && first.counts.redis_calls > 0, "seed {seed}");
    }
}
