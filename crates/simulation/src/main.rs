//! Runs histories.
use simulation::plan::*;
fn main() {
    let plan = Plan::calm(1).with(Group { count: 200, from_ms: 500, over_ms: 20_000, at: None, habit: Habit { buys: 80, ..Habit::WAITS } });
    let report = simulation::world::run(&plan, std::env::args().len() > 1).unwrap();
    println!("{report:?}");
}
