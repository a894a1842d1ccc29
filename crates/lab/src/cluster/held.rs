//! A lock from outside: somebody at MariaDB's console has locked one seat of a session that is being sold, and does
//! not let go.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use testbed::process::mortal;
use testbed::{MariaDb, Process};

use super::races::{listed, tally};
use super::shop::{Buyer, Hall};
use super::swarm::{Answer, at_once, steadily};
use super::{Check, Checks, pause, wait_until};
use crate::clock;
use crate::report::{grouped, highest, median, quantile};
use crate::witness::Seconds;

/// Who buy while a seat's lock is held, how many times the latency of quiet moments they may see, and what share of
/// their rate must be left.
const BUYERS_BESIDE: usize = 32;
const P99_MAX: f64 = 2.0;
const RATE_MIN: f64 = 0.5;
/// The two seconds of a purchase, and the time of an answer on a busy machine.
const ANSWER_MAX_S: Seconds = 3.0;
const ROUNDS: usize = 3;

/// Somebody at MariaDB's console, in a transaction that stays open.
struct Console {
    _child: Process,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Console {
    fn open(database: &MariaDb) -> Result<Self, String> {
        let mut command = mortal(database.client());
        command.args(["--no-defaults", "--user=root"]);
        command.arg(format!("--socket={}", database.socket().display()));
        // It writes an answer as soon as it has it.
        command.args(["-N", "--batch", "--unbuffered", "boxoffice"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Process::spawn("MariaDB's console", command)?;
        let pipes = child.child();
        match (pipes.stdin.take(), pipes.stdout.take()) {
            (Some(to), Some(from)) => Ok(Self { _child: child, to, from: BufReader::new(from) }),
            _ => Err("MariaDB's console has no pipes".to_owned()),
        }
    }

    /// Waits until statements are done.
    fn ask(&mut self, sql: &str) -> Result<(), String> {
        const DONE: &str = "asked and answered";
        let failed = |error| format!("MariaDB's console at `{sql}`: {error}");
        writeln!(self.to, "{sql};\nSELECT '{DONE}';").map_err(failed)?;
        self.to.flush().map_err(failed)?;
        let mut line = String::new();
        while self.from.read_line(&mut line).map_err(failed)? > 0 {
            if line.trim() == DONE {
                return Ok(());
            }
            line.clear();
        }
        Err(format!("MariaDB's console ended at `{sql}`; it says above why"))
    }
}

/// How quickly others were answered.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quickness {
    p99_ms: f64,
    slowest_ms: f64,
    per_second: f64,
}

/// Works out how quickly was answered what was asked for in these phases.
fn quickness(answers: &[Answer], phases: &[Range<Seconds>]) -> Result<Quickness, String> {
    let inside = |answer: &&Answer| phases.iter().any(|phase| phase.contains(&answer.asked));
    let times: Vec<f64> = answers
        .iter()
        .filter(inside)
        .map(|answer| (answer.answered - answer.asked) * 1e3)
        .collect();
    let lasted: Seconds = phases.iter().map(|phase| phase.end - phase.start).sum();
    match (quantile(&times, 0.99), highest(&times)) {
        (Some(p99_ms), Some(slowest_ms)) => {
            Ok(Quickness { p99_ms, slowest_ms, per_second: times.len() as f64 / lasted })
        }
        _ => Err("nobody asked for anything in a phase that was to be measured".to_owned()),
    }
}

/// What was seen of a session that was sold while its first seat was free, locked, and free again.
struct Sold {
    before: Range<Seconds>,
    locked: Range<Seconds>,
    after: Range<Seconds>,
    /// Of those who wanted other seats.
    others: Vec<Answer>,
    /// Of who wanted this one while it was locked.
    wanter: Vec<Answer>,
}

/// Says what is wrong with the answers of those beside a lock.
fn judge_others(answers: &[Answer]) -> Option<String> {
    let wrong = tally(answers.iter().filter(|answer| answer.status() != 201));
    (!wrong.is_empty())
        .then(|| format!("others were answered {} beside a seat that was locked", listed(&wrong)))
}

/// Says what is wrong with how much slower the others became: how many times the p99, which share of the rate.
fn judge_pace(p99: f64, rate: f64) -> Vec<String> {
    let mut wrong = Vec::new();
    if p99 > P99_MAX {
        wrong.push(format!("beside a lock the others' p99 was {p99:.1} times as long"));
    }
    if rate < RATE_MIN {
        wrong.push(format!("beside a lock the others bought {rate:.2} times as much"));
    }
    wrong
}

/// Says what is wrong with the answers of a locked seat's buyer.
fn judge_wanter(answers: &[Answer]) -> Vec<String> {
    let mut wrong = Vec::new();
    if answers.is_empty() || !answers.iter().all(|answer| answer.is(503, "STORE_UNAVAILABLE")) {
        let told = listed(&tally(answers));
        wrong.push(format!("the buyer of a locked seat was answered {told}"));
    }
    let longest = answers.iter().map(|answer| answer.answered - answer.asked).fold(0.0, f64::max);
    if longest > ANSWER_MAX_S {
        wrong.push(format!("the buyer of a locked seat waited {longest:.1} s"));
    }
    wrong
}

impl Checks<'_> {
    pub(super) fn held(&mut self) -> Result<(), String> {
        let (free_s, held_s, seats) =
            if self.options.quick { (2.0, 4.0, 100_000) } else { (4.0, 10.0, 200_000) };
        let buyers = self.buyers(3_000)?;
        let wanter = self.buyers(1)?.remove(0);
        let (mut ratios, mut shares) = (Vec::new(), Vec::new());
        let (mut total, mut done, mut refused) = (0, 0, Vec::new());
        for round in 1..=ROUNDS {
            let hall = self.hall(seats, 10)?;
            let sold = self.lock_amid(&hall, &buyers, &wanter, free_s, held_s)?;
            self.found.wrong(judge_others(&sold.others));
            let normal = quickness(&sold.others, &[sold.before, sold.after])?;
            let beside = quickness(&sold.others, &[sold.locked])?;
            ratios.push(beside.p99_ms / normal.p99_ms);
            shares.push(beside.per_second / normal.per_second);
            total += sold.others.len();
            done += sold.others.iter().filter(|answer| answer.status() == 201).count();
            refused.extend(sold.wanter);
            let rate = |per_second: f64| grouped(per_second.round() as u64);
            let text = format!(
                "p99 {:.1} → {:.1} ms, slowest {:.1} → {:.1} ms, rate {} → {}/s",
                normal.p99_ms,
                beside.p99_ms,
                normal.slowest_ms,
                beside.slowest_ms,
                rate(normal.per_second),
                rate(beside.per_second)
            );
            let what = format!("round {round}, {BUYERS_BESIDE} others");
            self.found.record(Check::Held, &what, text);
            let port = self.first().port;
            let took = wait_until("the seat is to be had again", || {
                let answers = at_once(&[(port, hall.reserving(&wanter, 0, None))])?;
                Ok(answers[0].status() == 201)
            })?;
            self.found.expect(took <= ANSWER_MAX_S, || {
                format!("the seat was to be had only {took:.1} s after its lock")
            });
        }
        // The median, because a disk may have a bad moment in one of them.
        let ratio = median(&ratios).unwrap_or(f64::NAN);
        let share = median(&shares).unwrap_or(f64::NAN);
        let text = format!(
            "{} of {} purchases were answered 201; beside the lock {ratio:.2} times the p99 and {share:.2} times the rate",
            grouped(done as u64),
            grouped(total as u64)
        );
        self.found.record(Check::Held, "the others", text);
        self.found.wrong(judge_pace(ratio, share));
        let times: Vec<f64> = refused.iter().map(|answer| answer.answered - answer.asked).collect();
        let text = format!(
            "{}, after {:.2} to {:.2} s; 201 when the lock was gone",
            listed(&tally(&refused)),
            times.iter().copied().fold(f64::INFINITY, f64::min),
            highest(&times).unwrap_or(f64::NAN)
        );
        self.found.record(Check::Held, "its buyer", text);
        self.found.wrong(judge_wanter(&refused));
        Ok(())
    }

    /// Sells a session while its first seat is free, locked, and free again.
    fn lock_amid(
        &self,
        hall: &Hall,
        buyers: &[Buyer],
        wanter: &Buyer,
        free_s: Seconds,
        held_s: Seconds,
    ) -> Result<Sold, String> {
        let ports = self.ports();
        let stop = AtomicBool::new(false);
        let mut console = Console::open(&self.cluster.database)?;
        std::thread::scope(|scope| {
            let buying = scope.spawn(|| {
                // Those behind the last seat would be refused, and be in the report.
                let others = buyers.iter().cycle().zip(1..hall.seat_count);
                let others = others.map(|(buyer, seat)| hall.reserving(buyer, seat, None));
                steadily(&ports, others, BUYERS_BESIDE, &stop)
            });
            let locked = || {
                pause(1.0)?;
                let before = phase(free_s)?;
                let lock = format!("SELECT id FROM seat WHERE id = {} FOR UPDATE", hall.first_seat);
                console.ask(&format!("START TRANSACTION; {lock}"))?;
                let begin = clock::now();
                let refused = want(&ports, hall, wanter, held_s)?;
                let locked = begin..clock::now();
                console.ask("ROLLBACK")?;
                Ok::<_, String>((before, locked, phase(free_s)?, refused))
            };
            let phases = { locked }();
            stop.store(true, Ordering::Relaxed);
            let others = buying.join().unwrap_or_else(|_| Err("the buyers panicked".to_owned()));
            let (before, locked, after, refused) = phases?;
            Ok(Sold { before, locked, after, others: others?, wanter: refused })
        })
    }
}

/// Lets so much time pass.
fn phase(seconds: Seconds) -> Result<Range<Seconds>, String> {
    let begin = clock::now();
    pause(seconds)?;
    Ok(begin..clock::now())
}

/// Asks for the first seat, at one instance after another, for so long.
fn want(
    ports: &[u16],
    hall: &Hall,
    wanter: &Buyer,
    seconds: Seconds,
) -> Result<Vec<Answer>, String> {
    let end = clock::now() + seconds;
    let mut answers = Vec::new();
    for port in ports.iter().cycle() {
        let asked = clock::now();
        answers.extend(at_once(&[(*port, hall.reserving(wanter, 0, None))])?);
        // Nobody asks again at once after a 503.
        pause((asked + 1.0).min(end) - clock::now())?;
        if clock::now() >= end {
            break;
        }
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::super::swarm::Reply;
    use super::*;

    fn answer(status: u16, code: &str, asked: Seconds, took: Seconds) -> Answer {
        Answer {
            reply: Reply { status, code: code.to_owned() },
            retry_after: None,
            body: String::new(),
            asked,
            answered: asked + took,
        }
    }

    #[test]
    fn quickness_is_of_what_was_asked_in_a_phase() {
        let answers: Vec<Answer> = (0..40)
            .map(|n| answer(201, "", f64::from(n), if n < 20 { 0.5 } else { 1.0 }))
            .collect();
        let first = quickness(&answers, &[0.0..10.0, 12.0..20.0]).unwrap();
        assert_eq!(first, Quickness { p99_ms: 500.0, slowest_ms: 500.0, per_second: 1.0 });
        let both = quickness(&answers, &[18.0..22.0]).unwrap();
        assert_eq!(both, Quickness { p99_ms: 1_000.0, slowest_ms: 1_000.0, per_second: 1.0 });
        assert!(quickness(&answers, &[50.0..60.0]).unwrap_err().contains("nobody asked"));
    }

    #[test]
    fn whoever_is_held_up_beside_a_lock_is_found() {
        let good = [answer(201, "", 0.0, 0.1), answer(201, "", 0.1, 0.1)];
        assert_eq!(judge_others(&good), None);
        let held_up = [good[0].clone(), answer(503, "STORE_UNAVAILABLE", 0.0, 2.0)];
        assert_eq!(
            judge_others(&held_up).unwrap(),
            "others were answered 1 × 503 STORE_UNAVAILABLE beside a seat that was locked"
        );
        assert_eq!(judge_pace(2.0, 0.5), [""; 0]);
        assert_eq!(judge_pace(2.1, 0.5), ["beside a lock the others' p99 was 2.1 times as long"]);
        assert_eq!(judge_pace(1.0, 0.4), ["beside a lock the others bought 0.40 times as much"]);
    }

    #[test]
    fn a_locked_seats_buyer_is_told_to_come_back_in_time() {
        let away = || answer(503, "STORE_UNAVAILABLE", 0.0, 2.0);
        assert_eq!(judge_wanter(&[away(), away()]), [""; 0]);
        let found = judge_wanter(&[away(), answer(201, "", 0.0, 0.1)]);
        let told = "the buyer of a locked seat was answered 1 × 201, 1 × 503 STORE_UNAVAILABLE";
        assert_eq!(found, [told]);
        let found = judge_wanter(&[answer(503, "STORE_UNAVAILABLE", 0.0, 3.5)]);
        assert_eq!(found, ["the buyer of a locked seat waited 3.5 s"]);
        assert_eq!(judge_wanter(&[]), ["the buyer of a locked seat was answered none"]);
    }
}
