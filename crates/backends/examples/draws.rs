//! Whether the opening draw favours anybody, and how long it takes to know a place.
//!
//! `cargo run --release -p boxoffice-backends --example draws -- [DRAWS [TAKERS [FIRST SEED]]]`: so many draws (a
//! million) of so many numbers (1,000), each with a seed of its own, made into an order as the service does it. The
//! seeds are numbers in a row, so that a run can be repeated: what is alike about them is to leave no trace. For each
//! question it prints by how many standard deviations chi-square is above what is expected of chance; it fails where
//! that is more than five, to either side.

// A tool for whoever works on this, not a part of the product.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use boxoffice_backends::store;
use boxoffice_domain::queue::{Draw, Drawn};

/// Draws in which as many numbers as this keep their place, or more, are counted as one.
const FIXED_MAX: usize = 7;
const TOO_FAR: f64 = 5.0;

fn draw(seed: u64, count: u64) -> Draw {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    store::draw(&Drawn { count, seed: bytes })
}

/// What was seen in a number of draws.
struct Tally {
    /// How often a number had a place: row by row for the numbers.
    places: Vec<u64>,
    /// For some neighbours, how often it was so far from the one to the other, round the circle.
    apart: Vec<(u64, Vec<u64>)>,
    /// For the numbers 1 and 2, 3 and 4 and so on, how often the first of them came first.
    first: Vec<u64>,
    /// How often so many numbers had the place that they would have had without a draw.
    fixed: [u64; FIXED_MAX + 1],
}

impl Tally {
    fn new(takers: u64) -> Self {
        let size = takers as usize;
        let neighbours = [1, takers / 2, takers - 1];
        Self {
            places: vec![0; size * size],
            apart: neighbours.into_iter().map(|number| (number, vec![0; size - 1])).collect(),
            first: vec![0; size / 2],
            fixed: [0; FIXED_MAX + 1],
        }
    }

    fn of(seeds: std::ops::Range<u64>, takers: u64) -> Self {
        let mut tally = Self::new(takers);
        let size = takers as usize;
        let mut ranks = vec![0; size];
        for seed in seeds {
            let draw = draw(seed, takers);
            let mut fixed = 0;
            for ((number, rank), row) in
                (1..).zip(&mut ranks).zip(tally.places.chunks_exact_mut(size))
            {
                *rank = draw.rank(number);
                row[*rank as usize - 1] += 1;
                fixed += usize::from(*rank == number);
            }
            tally.fixed[fixed.min(FIXED_MAX)] += 1;
            for (first, pair) in tally.first.iter_mut().zip(ranks.chunks_exact(2)) {
                *first += u64::from(pair[0] < pair[1]);
            }
            for (number, apart) in &mut tally.apart {
                let (one, two) = (ranks[*number as usize - 1], ranks[*number as usize]);
                apart[((two + takers - one) % takers) as usize - 1] += 1;
            }
        }
        tally
    }

    fn add(&mut self, other: &Self) {
        let add = |to: &mut [u64], of: &[u64]| to.iter_mut().zip(of).for_each(|(a, b)| *a += b);
        add(&mut self.places, &other.places);
        add(&mut self.first, &other.first);
        add(&mut self.fixed, &other.fixed);
        for ((_, to), (_, of)) in self.apart.iter_mut().zip(&other.apart) {
            add(to, of);
        }
    }
}

fn chi_square(seen: &[u64], expected: impl Fn(usize) -> f64) -> f64 {
    let part = |(index, seen): (usize, &u64)| {
        let expected = expected(index);
        (*seen as f64 - expected).powi(2) / expected
    };
    seen.iter().enumerate().map(part).sum()
}

/// How far chi-square is above what is expected with this freedom, in standard deviations.
fn above(chi_square: f64, freedom: usize) -> f64 {
    (chi_square - freedom as f64) / (2.0 * freedom as f64).sqrt()
}

/// Each question, and the answer in standard deviations.
fn answers(tally: &Tally, draws: u64, takers: u64) -> Vec<(String, f64)> {
    let size = takers as usize;
    let of = |parts: usize| move |_: usize| draws as f64 / parts as f64;
    // Each row and each column of it has a sum that is known. So its mean is N(N - 1), and its deviation √2 N.
    let all = chi_square(&tally.places, of(size));
    let all = (all - (takers * (takers - 1)) as f64) / (2_f64.sqrt() * takers as f64);
    let mut answers = vec![("places of all numbers".to_owned(), all)];
    for number in [1, 2, takers / 2, takers - 1, takers] {
        let row = &tally.places[(number as usize - 1) * size..][..size];
        let far = above(chi_square(row, of(size)), size - 1);
        answers.push((format!("places of number {number}"), far));
    }
    for (number, apart) in &tally.apart {
        let far = above(chi_square(apart, of(size - 1)), size - 2);
        answers.push((format!("from number {number} to number {}", number + 1), far));
    }
    // What comes first of two says nothing of two others.
    let half = draws as f64 / 2.0;
    let pairs: f64 =
        tally.first.iter().map(|first| 2.0 * (*first as f64 - half).powi(2) / half).sum();
    let name = format!("who of two is first, {} pairs", tally.first.len());
    answers.push((name, above(pairs, tally.first.len())));
    // Of many, k keep their place with the probability 1 / (e k!).
    let mut probabilities = [0.0; FIXED_MAX + 1];
    let mut next = (-1_f64).exp();
    for (kept, probability) in probabilities.iter_mut().enumerate() {
        *probability = next;
        next /= (kept + 1) as f64;
    }
    probabilities[FIXED_MAX] = 1.0 - probabilities[..FIXED_MAX].iter().sum::<f64>();
    let fixed = chi_square(&tally.fixed, |kept| draws as f64 * probabilities[kept]);
    answers.push(("how many keep their place".to_owned(), above(fixed, FIXED_MAX)));
    answers
}

/// How long it takes to know a place, in nanoseconds: the best of five rounds.
fn rank_ns(count: u64) -> f64 {
    const CALLS: u64 = 2_000_000;
    let draw = draw(1, count);
    let round = |_| {
        let began = Instant::now();
        let sum = (0..CALLS).fold(0_u64, |sum, call| {
            sum.wrapping_add(draw.rank(black_box(call * 7_919 % count + 1)))
        });
        black_box(sum);
        began.elapsed().as_secs_f64() * 1e9 / CALLS as f64
    };
    (0..5).map(round).fold(f64::INFINITY, f64::min)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>().unwrap());
    let draws = arguments.next().unwrap_or(1_000_000);
    let takers = arguments.next().unwrap_or(1_000);
    let first = arguments.next().unwrap_or(0);
    assert!(takers >= 100 && draws >= takers * 10, "too few to say anything");

    for count in [1_000, 1_000_000, 10_000_000] {
        println!("the place of one of {count}: {:.0} ns", rank_ns(count));
    }

    let began = Instant::now();
    let threads = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let tally = thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let from = |part| first + draws * part / threads;
                scope.spawn(move || Tally::of(from(part)..from(part + 1), takers))
            })
            .collect();
        let mut sum = Tally::new(takers);
        parts.into_iter().for_each(|part| sum.add(&part.join().unwrap()));
        sum
    });
    println!(
        "{draws} draws of {takers}, with the seeds from {first} on, in {:.0} s on {threads} threads; standard \
         deviations above what is expected of chance:",
        began.elapsed().as_secs_f64()
    );
    let mut is_fair = true;
    for (question, far) in answers(&tally, draws, takers) {
        is_fair &= far.abs() <= TOO_FAR;
        println!("{far:+6.2}  {question}");
    }
    if is_fair { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
