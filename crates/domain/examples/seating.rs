//! How long it takes to choose the best places of a hall, and to judge whether a hold leaves a single one.
//!
//! `cargo run --release -p boxoffice-domain --example seating -- [PLACES]`: a hall of 50,000 places, unless told
//! otherwise, with and without a plan; empty, half full, nearly full, and so that no two free places are next to
//! each other. Microseconds for one call: the shortest of a thousand, and the one in the middle.

// A tool for whoever works on this, not a part of the product.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::time::Instant;

use boxoffice_domain::seating::{PlaceSet, Plan, Wish, choose, hall, needless_single};

const CALLS: usize = 1_001;

/// The microseconds of one call: the shortest, and the one in the middle.
fn measure<T>(mut call: impl FnMut() -> T) -> (f64, f64) {
    let time = |_| {
        let began = Instant::now();
        drop(black_box(call()));
        began.elapsed().as_secs_f64() * 1e6
    };
    let mut times: Vec<f64> = (0..CALLS).map(time).collect();
    times.sort_by(f64::total_cmp);
    (times[0], times[CALLS / 2])
}

/// The same in every run: SplitMix64.
fn chance(index: u32) -> u64 {
    let mut z = (u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % 100
}

fn main() {
    let places = std::env::args().nth(1).map_or(50_000, |text| text.parse::<u32>().unwrap());
    let began = Instant::now();
    let parts = hall("Hall", places);
    let made_up = began.elapsed();
    let began = Instant::now();
    let plan = Plan::new(parts).unwrap();
    println!(
        "a hall of {places}: {} sections, {} rows, {} runs; made up in {:.0} ms, checked in {:.0} ms",
        plan.sections().len(),
        plan.rows().len(),
        plan.runs().len(),
        made_up.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64() * 1e3
    );
    type IsFree = fn(u32) -> bool;
    let fillings: [(&str, IsFree); 4] = [
        ("empty", |_| true),
        ("half full", |place| chance(place) < 50),
        ("95 % full", |place| chance(place) < 5),
        ("every other place", |place| place % 2 == 0),
    ];
    for (what, plan) in [("a plan", plan), ("numbers", Plan::numbered(places))] {
        let grade = plan.grade_named("S");
        for (filling, is_free) in fillings {
            let free = PlaceSet::from_fn(places, is_free);
            for (wanted, count, grade, together) in [
                ("1", 1, None, true),
                ("2 together", 2, None, true),
                ("4 of a grade together", 4, grade, true),
                ("4, or apart", 4, None, false),
                ("8, or apart", 8, None, false),
                ("1,000, or apart", 1_000, None, false),
            ] {
                let wish = Wish { count, grade, section: None, together };
                let found = choose(&plan, &free, &wish).is_ok();
                let (least, middle) = measure(|| choose(&plan, black_box(&free), &wish));
                let found = if found { "" } else { " (there are none)" };
                println!("{least:7.1} {middle:7.1}  {what}, {filling}: {wanted}{found}");
            }
            let held: Vec<u32> = free.iter().skip(1).take(2).collect();
            let (least, middle) = measure(|| needless_single(&plan, black_box(&held), &free));
            println!("{least:7.1} {middle:7.1}  {what}, {filling}: judging a hold of {held:?}");
        }
    }
}
