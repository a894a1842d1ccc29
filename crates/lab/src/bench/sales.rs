//! Reservations end to end, a start on many of them, and a session that is sold out.

use std::time::Duration;

use super::load::Load;
use super::row::{Row, Target};
use super::servers::{Id, Session, Settings, lasting};
use super::wrk::{Figure, Order, Sample, Wrk};
use super::{BUYERS, Bench, SEATS_PER_RESERVATION, SEATS_PER_SESSION, Topic, pause};
use crate::report::{grouped, middle, thousands};

const MEBIBYTE: f64 = 1_048_576.0;
const LIST_BUILDS: &str = "boxoffice_seat_list_builds_total";
/// Who look at the list of seats while it is sold.
const READERS: u32 = 32;

impl Bench {
    /// Reservations of some seats each.
    pub(super) fn reservations(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Reservations) {
            return Ok(());
        }
        eprintln!("reservations of {SEATS_PER_RESERVATION} seats each, end to end");
        let id = self.filled_server("main", None)?;
        let mut load = Load::new("reservations", id, "/", 201).script("reserve.lua");
        let (rounds, seconds) = (self.options.rounds, self.options.seconds);
        let sessions = self.seats_for(id, 60_000.0, 1)?;
        load.env = self.reserve_env(id, &sessions, BUYERS)?;
        self.warm_up(&mut load)?;
        let mut rate = 60_000.0;
        for number in 1..=rounds {
            let sessions = self.seats_for(id, rate, seconds)?;
            let env = self.reserve_env(id, &sessions, BUYERS)?;
            let server = self.at(id);
            let connections = self.options.connections * 4;
            let order = Order { seconds, ..Order::endless("/", connections, "reserve.lua", &env) };
            let mut run = Wrk::start(&self.wrk, server, &order)?;
            let patience = Duration::from_secs(u64::from(seconds) + 15);
            let early = run.wait_for_exhaustion(server, patience)?;
            if early.is_some() {
                pause(0.3)?;
                run.interrupt();
            }
            let mut sample = run.result(server)?;
            if let Some(early) = early {
                sample = all_of(sample, sessions.len(), early);
                load.of.notes.push(format!("round {number} ran out of seats"));
            }
            rate = Figure::Rate.of(&sample);
            eprintln!(
                "  round {number} of {rounds}: {} reservations/s, {:.1} µs CPU each",
                thousands(rate, 0),
                Figure::Cost.of(&sample)
            );
            load.keep(sample);
        }
        let note = format!("{:.1} µs CPU each", load.of.median(Figure::Cost));
        self.add(Row::rate(&load.of).notes([note]).target(Target::AtLeast(20_000.0)));
        Ok(())
    }

    /// Half as many seats again as the latest round would have needed.
    fn seats_for(&mut self, id: Id, rate: f64, seconds: u32) -> Result<Vec<Session>, String> {
        let seats = rate * 1.5 * f64::from(seconds * SEATS_PER_RESERVATION);
        let count = (seats / f64::from(SEATS_PER_SESSION)).ceil() as u32;
        (0..count).map(|_| self.new_session(id, SEATS_PER_SESSION, 100)).collect()
    }

    /// Time to ready on a store of many reservations, and memory of a service that nobody asks.
    pub(super) fn startup(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Startup) {
            return Ok(());
        }
        let reservations: u32 = if self.options.quick { 10_000 } else { 100_000 };
        eprintln!("start on a store of {} reservations", grouped(reservations.into()));
        let id = self.server("startup", None, Settings::new())?;
        self.at(id).issue_tokens(BUYERS, "bench_{n}")?;
        let seats = SEATS_PER_SESSION.min(reservations * SEATS_PER_RESERVATION);
        let sessions = (0..reservations * SEATS_PER_RESERVATION / seats)
            .map(|_| self.new_session(id, seats, 100))
            .collect::<Result<Vec<_>, _>>()?;
        let env = self.reserve_env(id, &sessions, BUYERS)?;
        let order = Order::endless("/", self.options.connections * 4, "reserve.lua", &env);
        let server = self.at(id);
        let mut buying = Wrk::start(&self.wrk, server, &order)?;
        buying.until_exhausted(server, Duration::from_secs(120), "all was reserved")?;
        buying.interrupt();
        buying.result(server)?;
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(self.restart(id, lasting())?.as_secs_f64() * 1e3);
        }
        pause(1.0)?;
        let memory = self.at(id).rss_bytes()? as f64 / MEBIBYTE;
        let lowest = times.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = times.iter().copied().fold(0.0, f64::max);
        let note = format!(
            "{lowest:.0}–{highest:.0} ms on {} reservations, two CPUs",
            grouped(reservations.into())
        );
        let row = Row::new("start", middle(&times).unwrap_or(f64::NAN), "ms", 0);
        self.add(row.notes([note]).target(Target::AtMost(150.0)));
        let all: Vec<String> = times.iter().map(|time| format!("{time:.0}")).collect();
        eprintln!("  ready after {} ms, with {memory:.1} MiB", all.join(", "));
        let idle = self.server("idle", None, Settings::new())?;
        pause(2.0)?;
        let row = Row::new("idle memory", self.at(idle).rss_bytes()? as f64 / MEBIBYTE, "MiB", 1);
        let row = row.notes(["resident, demo data".to_owned()]);
        self.add(row.target(Target::AtMost(40.0)));
        Ok(())
    }

    /// A session is sold out, with and without readers of the seat list.
    pub(super) fn sellout(&mut self) -> Result<(), String> {
        if !self.wants(Topic::Sellout) {
            return Ok(());
        }
        let seconds = if self.options.quick { 4 } else { 10 };
        eprintln!(
            "{} seats sold out in about {seconds} s, with and without readers of the list",
            grouped(SEATS_PER_SESSION.into())
        );
        let id = self.filled_server("main", None)?;
        let mut without = None;
        for readers in [0, READERS] {
            let (cpu, unexpected, mut notes) = self.sell_out(id, readers, seconds)?;
            if let Some(without) = without {
                notes.push(format!("{:.2} × without readers", cpu / without));
            }
            without = Some(cpu);
            eprintln!("  {readers} readers: {cpu:.2} s CPU, {}", notes.join(", "));
            let name = match readers {
                0 => "sell-out".to_owned(),
                _ => format!("sell-out, {readers} readers"),
            };
            let mut row = Row::new(&name, cpu, "s CPU", 2).notes(notes);
            row.unexpected = unexpected;
            self.add(row);
        }
        Ok(())
    }

    /// Returns CPU seconds of the server, what was not expected, and what is to be said.
    fn sell_out(
        &mut self,
        id: Id,
        readers: u32,
        seconds: u32,
    ) -> Result<(f64, u64, Vec<String>), String> {
        let connections = self.options.connections;
        let reservations = SEATS_PER_SESSION / SEATS_PER_RESERVATION;
        let delay_ms = (connections * seconds * 1000 / reservations).max(1);
        let session = self.new_session(id, SEATS_PER_SESSION, 100)?;
        let mut env = self.reserve_env(id, &[session], BUYERS)?;
        env.push(("WRK_DELAY_MS", delay_ms.to_string()));
        let server = self.at(id);
        let path = format!("/api/v1/concerts/{}/sessions/{}/seats", server.concert()?, session.id);
        let reader = [
            ("WRK_PATH", path.clone()),
            ("WRK_DELAY_MS", "500".to_owned()),
            ("WRK_TOKENS", self.token_file("readers", &["bench_1".to_owned()])?),
        ];
        let builds_before = server.metric(LIST_BUILDS, "")?;
        let before = server.cpu_time()?;
        let reading = (readers > 0).then(|| {
            let order = Order::endless(&path, readers, "reader.lua", &reader);
            Wrk::start(&self.wrk, server, &order)
        });
        let reading = reading.transpose()?;
        let order = Order::endless("/", connections, "reserve.lua", &env);
        let mut buying = Wrk::start(&self.wrk, server, &order)?;
        let patience = Duration::from_secs(u64::from(seconds) * 10 + 30);
        let (took, _) = buying.until_exhausted(server, patience, "the session was sold out")?;
        pause(0.3)?;
        let cpu = server.cpu_time()?.since(&before);
        let builds_after = server.metric(LIST_BUILDS, "")?;
        buying.interrupt();
        let bought = buying.result(server)?;
        let mut unexpected = bought.not_ok + bought.socket_errors;
        let mut notes = vec![format!("took {took:.1} s")];
        if let Some(reading) = reading {
            reading.interrupt();
            let read = reading.result(server)?;
            unexpected += read.not_ok + read.socket_errors;
            notes.push(format!("{} lists read", grouped(read.requests)));
        }
        notes.push(match (builds_before, builds_after) {
            (None, None) => format!("no metric {LIST_BUILDS}"),
            (before, after) => {
                let built = after.unwrap_or(0.0) - before.unwrap_or(0.0);
                format!("{} lists built", thousands(built, 0))
            }
        });
        let left = self.seats_left(id, session)?;
        if left > 0 {
            unexpected += 1;
            notes.push(format!("{left} seats are left"));
        }
        Ok((cpu, unexpected, notes))
    }

    fn seats_left(&self, id: Id, session: Session) -> Result<i64, String> {
        let server = self.at(id);
        let path = format!("/api/v1/concerts/{}/sessions", server.concert()?);
        let answer = server.call("GET", &path, &[("QUEUE-TOKEN", "bench_1")], None, &[200])?;
        let sessions = answer["sessions"].as_array().ok_or("a list without sessions")?;
        // A session that is sold out need not be listed any more.
        let ours = sessions.iter().filter(|listed| listed["sessionId"] == session.id);
        Ok(ours.filter_map(|listed| listed["availableSeatCount"].as_i64()).sum())
    }
}

/// What a run did until all that there was had been reserved; the rest of it asked for something else.
fn all_of(sample: Sample, sessions: usize, (seconds, cpu_seconds): (f64, f64)) -> Sample {
    let each = SEATS_PER_SESSION / SEATS_PER_RESERVATION;
    Sample { requests: sessions as u64 * u64::from(each), seconds, cpu_seconds, ..sample }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_ran_out_of_seats_counts_until_then() {
        let whole =
            Sample { requests: 400_000, seconds: 4.0, cpu_seconds: 3.9, ..Sample::default() };
        let sample = all_of(whole, 3, (1.5, 1.2));
        assert_eq!((sample.requests, sample.seconds), (75_000, 1.5));
        assert!((Figure::Cost.of(&sample) - 16.0).abs() < 1e-9);
    }
}
