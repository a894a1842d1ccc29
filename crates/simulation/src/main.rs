//! Runs histories of a cluster in simulated time, one for each seed, and says which promises were
//! broken.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use boxoffice_backends::simulation::Bug;
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use simulation::plan::Plan;
use simulation::shrink::shrink;
use simulation::swarm::{Mode, Scope, plan};
use simulation::world::{Report, run};

// A history is a million small pieces of memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Histories of several instances, Redis, a store and fans in simulated time.
#[derive(Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this one.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints all that happens; with --seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Which faults there are.
    #[arg(long, value_enum, default_value_t = Mode::Swarm)]
    faults: Mode,
    /// How long a history is, in simulated seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many fans come in each.
    #[arg(long, default_value_t = 200)]
    clients: u64,
    /// How many of a hundred queues have an opening draw.
    #[arg(long, default_value_t = 20)]
    drawn: u64,
    /// How many histories at once; as many as there are cores where it is left out.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs each history twice: the two must be the same.
    #[arg(long)]
    twice: bool,
    /// Goes on after a history that failed.
    #[arg(long)]
    keep_going: bool,
    /// Plants a mistake in the code, by name.
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Plants each mistake in turn, and says how many seeds it takes until one of them shows it.
    #[arg(long)]
    bugs: bool,
    /// With --bugs: counts all seeds that show it.
    #[arg(long, requires = "bugs")]
    all: bool,
    /// Where to note how far it has come; a run with the same file goes on from there.
    #[arg(long)]
    resume: Option<PathBuf>,
}

fn bug(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    found.copied().ok_or_else(|| format!("there are {:?}", Bug::ALL))
}

/// How one history went.
struct Run {
    seed: u64,
    plan: Plan,
    outcome: Result<Report, String>,
}

fn history(seed: u64, scope: Scope, options: &Options) -> Run {
    let (twice, traces) = (options.twice, options.trace);
    let plan = Plan { bug: options.bug, ..plan(seed, scope) };
    let once = || {
        let ran = catch_unwind(AssertUnwindSafe(|| run(&plan, traces)));
        match ran {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(fault)) => Err(fault.to_string()),
            Err(_) => Err("it panicked".to_owned()),
        }
    };
    let mut outcome = once();
    if let (true, Ok(first)) = (twice, &outcome) {
        match once() {
            Ok(second) if second.digest == first.digest => {}
            Ok(_) => outcome = Err("two runs of this seed differ".to_owned()),
            Err(why) => outcome = Err(why),
        }
    }
    Run { seed, plan, outcome }
}

/// What all histories were together.
#[derive(Default)]
struct Sum {
    histories: u64,
    failed: u64,
    /// Nobody got a number in these.
    idle: u64,
    faults: BTreeMap<&'static str, (u64, u64, u64)>,
    did: BTreeMap<&'static str, u64>,
    /// In how many histories each rule was broken, and the first seed.
    rules: BTreeMap<&'static str, (u64, u64)>,
}

impl Sum {
    fn add(&mut self, run: &Run) {
        self.histories += 1;
        let Ok(report) = &run.outcome else {
            self.failed += 1;
            return;
        };
        self.failed += u64::from(!report.violations.is_empty());
        let rules: BTreeSet<_> = report.violations.iter().map(|violation| violation.rule).collect();
        for rule in rules {
            let broken = self.rules.entry(rule).or_insert((0, run.seed));
            *broken = (broken.0 + 1, broken.1.min(run.seed));
        }
        for (fault, bites) in run.plan.faults.iter().zip(&report.bites) {
            let sum = self.faults.entry(fault.what.kind()).or_default();
            sum.0 += 1;
            sum.1 += u64::from(*bites > 0);
            sum.2 += bites;
        }
        let counts = &report.counts;
        self.idle += u64::from(counts.joins == 0);
        for (what, count) in [
            ("joins", counts.joins),
            ("drawn", counts.drawn),
            ("polls", counts.polls),
            ("let in, and seen", counts.seen),
            ("holds", counts.holds),
            ("payments", counts.payments),
            ("steps of admission", counts.steps),
            ("admitted", counts.admitted),
            ("passed over", counts.passed),
            ("back, and let in", counts.returned),
            ("calls of redis", counts.redis_calls),
            ("calls of the store", counts.store_calls),
            ("events", counts.events),
            ("outcome unknown", counts.unknown),
            ("told to come again", counts.unavailable),
            ("looks, letting in fewer", counts.slowed),
        ] {
            *self.did.entry(what).or_default() += count;
        }
    }

    /// Why the run shows nothing, if that is so.
    fn is_empty(&self) -> Option<String> {
        let undone = |what: &&str| self.did.get(*what).is_none_or(|count| *count == 0);
        let must = ["joins", "polls", "let in, and seen", "holds", "payments", "admitted"];
        if let Some(what) = must.iter().find(|what| undone(what)) {
            return Some(format!("there were no {what}"));
        }
        if self.idle > self.histories / 20 {
            return Some(format!("nobody got a number in {} histories", self.idle));
        }
        let toothless = self.faults.iter().find(|(_, sum)| sum.0 >= 20 && sum.1 == 0);
        toothless.map(|(kind, sum)| format!("{kind}: none of {} changed anything", sum.0))
    }

    fn print(&self, seconds: f64, jobs: usize) {
        println!("\n{} histories, {} failed", self.histories, self.failed);
        #[expect(clippy::cast_precision_loss, reason = "a count of histories")]
        let per_minute = self.histories as f64 / seconds * 60.0;
        #[expect(clippy::cast_precision_loss, reason = "a count of cores")]
        let per_core = per_minute / jobs as f64;
        println!("{seconds:.0} s, {per_minute:.0} histories a minute, {per_core:.0} on each core");
        for (what, count) in &self.did {
            println!("  {what:<20} {count:>12}");
        }
        println!("  {:<20} {:>12} {:>12} {:>14}", "fault", "begun", "bit", "times");
        for (kind, (begun, bit, times)) in &self.faults {
            println!("  {kind:<20} {begun:>12} {bit:>12} {times:>14}");
        }
        for (rule, (count, seed)) in &self.rules {
            println!("  BROKEN {rule}: in {count} histories, first of seed {seed}");
        }
    }
}

fn tell(run: &Run, traces: bool) {
    println!("\nseed {}", run.seed);
    let report = match &run.outcome {
        Ok(report) => report,
        Err(why) => {
            println!("  {why}");
            return;
        }
    };
    if report.violations.is_empty() {
        println!("  nothing broken; digest {:016x}", report.digest);
        describe(&run.plan, report);
        return;
    }
    if traces {
        describe(&run.plan, report);
        return;
    }
    let (plan, report) = shrink(&run.plan, report);
    println!("  the smallest that still fails:");
    describe(&plan, &report);
}

fn describe(plan: &Plan, report: &Report) {
    println!(
        "  {} instances, {} ms and {} more, {:?}",
        plan.instances, plan.length_ms, plan.drain_ms, plan.store
    );
    if plan.draw {
        println!("  an opening draw of {}", report.counts.drawn);
    }
    println!(
        "  {:?}, clocks ahead {:?}, calls {:?}, turn {:?}",
        plan.queue, plan.clocks_ahead_ms, plan.call_timeout, plan.turn
    );
    for group in &plan.crowd {
        println!("  {group:?}");
    }
    for (fault, bites) in plan.faults.iter().zip(&report.bites) {
        println!("  {fault}  (bit {bites} times)");
    }
    for violation in report.violations.iter().take(10) {
        println!("  {violation}");
    }
    if report.violations.len() > 10 {
        println!("  … {} in all", report.violations.len());
    }
}

/// What a history breaks first.
fn broken(plan: &Plan) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| run(plan, false))) {
        Ok(Ok(report)) => report.violations.first().map(ToString::to_string),
        Ok(Err(fault)) => Some(fault.to_string()),
        Err(_) => Some("a panic".to_owned()),
    }
}

/// Plants one mistake after the other. Fails where one is not found.
fn plant_all(scope: Scope, options: &Options) -> ExitCode {
    let bugs: Vec<Bug> = match options.bug {
        Some(bug) => vec![bug],
        None => Bug::ALL.to_vec(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(cores).max(1);
    std::panic::set_hook(Box::new(|_| {}));
    println!("{:<20} {:>8} {:>8}  shown by", "mistake", "seeds", "found");
    let mut hidden = 0;
    for bug in bugs {
        let (next, stop) = (AtomicU64::new(options.first), AtomicBool::new(false));
        let end = options.first + options.seeds;
        let found = std::sync::Mutex::new(BTreeMap::<u64, String>::new());
        std::thread::scope(|threads| {
            for _ in 0..jobs {
                threads.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end {
                            return;
                        }
                        let without = plan(seed, scope);
                        let with = Plan { bug: Some(bug), ..without.clone() };
                        let Some(shown) = broken(&with) else { continue };
                        // What is broken without the mistake as well does not show it.
                        if broken(&without).is_some() {
                            continue;
                        }
                        if let Ok(mut found) = found.lock() {
                            found.insert(seed, shown);
                        }
                        if !options.all {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let found = found.into_inner().unwrap_or_default();
        let name = format!("{bug:?}");
        match found.first_key_value() {
            Some((seed, how)) => {
                let seeds = seed - options.first + 1;
                println!("{name:<20} {seeds:>8} {:>8}  {how}", found.len());
            }
            None => {
                hidden += 1;
                println!("{name:<20} {:>8} {:>8}", "-", 0);
            }
        }
    }
    if hidden == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Notes how far it has come, so that a kill leaves the one or the other.
fn note(path: &Path, done_upto: u64) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, done_upto.to_string())?;
    std::fs::rename(new, path)
}

fn resumed(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn main() -> ExitCode {
    let options = Options::parse();
    let scope = Scope {
        mode: options.faults,
        seconds: options.seconds.max(2),
        clients: options.clients,
        drawn: options.drawn,
    };
    if let Some(seed) = options.seed {
        let run = history(seed, scope, &options);
        tell(&run, options.trace);
        let is_good = run.outcome.is_ok_and(|report| report.violations.is_empty());
        return if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if options.bugs {
        return plant_all(scope, &options);
    }
    let end = options.first + options.seeds;
    let first = options.resume.as_deref().and_then(resumed).unwrap_or(options.first);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = options.jobs.unwrap_or(cores).max(1);
    let (next, stop) = (AtomicU64::new(first), AtomicBool::new(false));
    let began = Instant::now();
    let mut sum = Sum::default();
    let progress = ProgressBar::new(end.saturating_sub(first));
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta} {msg}") {
        progress.set_style(style);
    }
    std::thread::scope(|threads| {
        let (sender, runs) = mpsc::channel();
        for _ in 0..jobs {
            let (sender, next, stop, options) = (sender.clone(), &next, &stop, &options);
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || sender.send(history(seed, scope, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut done, mut done_upto) = (BTreeSet::new(), first);
        for run in runs {
            sum.add(&run);
            progress.inc(1);
            let is_good = run.outcome.as_ref().is_ok_and(|report| report.violations.is_empty());
            if !is_good && (sum.failed <= 3 || !options.keep_going) {
                progress.suspend(|| tell(&run, false));
            }
            if !is_good && !options.keep_going {
                stop.store(true, Ordering::Relaxed);
            }
            done.insert(run.seed);
            while done.remove(&done_upto) {
                done_upto += 1;
            }
            if let Some(path) = &options.resume
                && let Err(error) = note(path, done_upto)
            {
                progress.suspend(|| eprintln!("cannot write {}: {error}", path.display()));
            }
        }
    });
    progress.finish_and_clear();
    sum.print(began.elapsed().as_secs_f64(), jobs);
    if sum.failed > 0 {
        return ExitCode::FAILURE;
    }
    if let Some(why) = sum.is_empty().filter(|_| sum.histories >= 20) {
        println!("This run shows nothing: {why}.");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
