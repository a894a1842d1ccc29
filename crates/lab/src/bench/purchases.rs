//! Purchases at an instance of a cluster and at an embedded one, measured by what the service itself counts.

use std::time::Duration;

use super::cluster::Side;
use super::load::{Measured, wait_for};
use super::meter::{self, Span};
use super::row::{Row, Target};
use super::servers::{Id, Server};
use super::wrk::{Env, Figure, Order, Sample, Wrk, script};
use super::{BUYERS, Bench, SEATS_PER_RESERVATION, SERVER_CPU, WRK_CPU, pause};
use crate::clock;
use crate::report::{grouped, thousands};

/// Clients who buy at once: as many as an instance has connections to MariaDB by default, and many more.
const FEW: u32 = 32;
const MANY: u32 = 256;
/// Each buys once in a session of twice as many seats; payments need points and a ticket each.
const PAYERS: u32 = 10_000;
/// Of a CPU: a MariaDB that uses less has nothing left to do.
const QUIET_SHARE: f64 = 0.05;
/// Of a run, before anything is counted: every connection is open by then, and the server busy.
const LEAD_IN_S: f64 = 0.5;
// Targets. Those beside an older build are ratios to what it shows in the same run.
const COST_IN_CLUSTER_MAX: f64 = 1.8;
const STATEMENTS_MAX: f64 = 0.5;
const RATE_OF_FEW_MIN: f64 = 6.0;
const RATE_OF_MANY_MIN: f64 = 8.0;
const HALF_PAYMENTS_RATE_MIN: f64 = 5.0;
const MARIADB_CPU_MAX: f64 = 0.2;
const LONE_LATENCY_MAX: f64 = 1.1;
/// No slower than the older build, as far as two runs of one and the same build agree.
const EMBEDDED_RATE_MIN: f64 = 0.97;

/// Purchases of a kind at one server, round by round.
#[derive(Debug)]
pub(super) struct Purchases {
    of: Measured,
    clients: u32,
    /// Whether every second one is a payment.
    paying: bool,
    /// Reservations a second, for which the next round needs seats.
    pace: f64,
}

/// What came of one run.
struct Bought {
    /// What wrk says.
    sample: Sample,
    /// What was bought from its start to its end.
    whole: Span,
    /// The part that counts.
    counted: Span,
    /// How many reservations there were to be made.
    most: u64,
}

impl Purchases {
    fn new(name: String, server: Id, clients: u32) -> Self {
        Self { of: Measured::new(name, server), clients, paying: false, pace: 4_000.0 }
    }

    const fn buyers(&self) -> u32 {
        if self.paying { PAYERS } else { BUYERS }
    }

    /// Measures them all.
    pub(super) fn measure(bench: &mut Bench, sides: &[Side]) -> Result<(), String> {
        for clients in [FEW, MANY] {
            eprintln!("reservations of {SEATS_PER_RESERVATION} seats each by {clients} clients");
            let kind = |where_: &str, side: &Side, id| {
                Self::new(format!("reservations {clients}, {where_}{}", side.suffix), id, clients)
            };
            let mut kinds: Vec<Self> = sides
                .iter()
                .flat_map(|side| {
                    [kind("embedded", side, side.embedded), kind("cluster", side, side.instance)]
                })
                .collect();
            bench.buy_in_turn(&mut kinds)?;
            for row in rows_of_reservations(&kinds, clients) {
                bench.add(row);
            }
        }
        eprintln!("reservations and payments in turn by {FEW} clients");
        for side in sides {
            bench.charge(side.instance)?;
            settle(bench.at(side.instance))?;
        }
        let half = sides.iter().map(|side| Self {
            paying: true,
            ..Self::new(format!("half payments {FEW}, cluster{}", side.suffix), side.instance, FEW)
        });
        let mut half: Vec<Self> = half.collect();
        bench.buy_in_turn(&mut half)?;
        let rows = rows_of_rate(&half[0], half.get(1), HALF_PAYMENTS_RATE_MIN);
        let limit = half.get(1).map(|_| Target::AtMost(STATEMENTS_MAX));
        for row in rows.into_iter().chain([row_of_statements(&half[0], limit)]) {
            bench.add(row);
        }
        eprintln!("reservations by a single client");
        let lone = sides.iter().map(|side| Self {
            pace: 500.0,
            ..Self::new(format!("lone buyer, cluster{}", side.suffix), side.instance, 1)
        });
        let mut lone: Vec<Self> = lone.collect();
        bench.buy_in_turn(&mut lone)?;
        for row in rows_of_lone(&lone[0], lone.get(1)) {
            bench.add(row);
        }
        Ok(())
    }

    /// Takes what was measured between two readings in place of what wrk counts, and notes what does not fit.
    fn judge(&mut self, sample: &mut Sample, whole: &Span, span: Span) {
        let of = &mut self.of;
        let answered = sample.requests.saturating_sub(sample.not_ok);
        // Those on their way at wrk's end are counted by the service alone.
        let unseen = whole.operations() as i64 - answered as i64;
        if !(0..=i64::from(self.clients)).contains(&unseen) {
            of.unexpected += unseen.unsigned_abs();
            of.notes.push(format!(
                "the service counts {}, wrk {}",
                grouped(whole.operations()),
                grouped(answered)
            ));
        }
        let others = sample.statuses.iter().filter(|(status, _)| **status != 201);
        let wrong: u64 = others.map(|(_, count)| count).sum();
        of.unexpected += wrong.max(sample.not_ok).max(whole.other) + sample.socket_errors;
        // Payments follow the first reservations, and either kind may be on its way at either reading.
        let operations = span.operations();
        let tolerated = f64::from(2 * self.clients) + 0.1 * operations as f64;
        if self.paying && span.reserved.abs_diff(span.paid) as f64 > tolerated {
            of.unexpected += 1;
            of.notes.push(format!(
                "{} of {operations} purchases were payments, which is not half",
                span.paid
            ));
        }
        (sample.requests, sample.seconds) = (operations, span.seconds);
        sample.cpu_seconds = span.seconds_of("server");
        sample.span = Some(span);
    }
}

impl Bench {
    fn buy_in_turn(&mut self, kinds: &mut [Purchases]) -> Result<(), String> {
        for kind in kinds.iter_mut() {
            // A second that nobody measures, in which every single status is looked at.
            let sample = self.buy(kind, 1, true)?;
            kind.of.look_at_statuses(201, &sample);
        }
        let (rounds, seconds) = (self.options.rounds, self.options.seconds);
        for number in 1..=rounds {
            // Back and forth, so that nobody always comes after the same one and what that has left to be tidied up.
            let mut order: Vec<usize> = (0..kinds.len()).collect();
            if number.is_multiple_of(2) {
                order.reverse();
            }
            for index in order {
                let kind = &mut kinds[index];
                let mut sample = self.buy(kind, seconds, false)?;
                if sample.requests == 0 {
                    let note = format!("nothing was bought in round {number}, which was repeated");
                    kind.of.notes.push(note);
                    sample = self.buy(kind, seconds, false)?;
                }
                let name = &kind.of.name;
                if sample.requests == 0 {
                    let log = self.at(kind.of.server).log_tail();
                    return Err(format!("{name}: nothing was bought:\n{log}"));
                }
                eprintln!(
                    "  round {number} of {rounds}: {name}: {}/s, {:.1} µs CPU",
                    thousands(Figure::Rate.of(&sample), 0),
                    Figure::Cost.of(&sample)
                );
                kind.of.samples.push(sample);
            }
        }
        Ok(())
    }

    /// One run, measured between two readings by what the server itself counts.
    fn buy(&mut self, kind: &mut Purchases, seconds: u32, look: bool) -> Result<Sample, String> {
        let whole_s = LEAD_IN_S + f64::from(seconds);
        let mut most = 0;
        for _ in 0..4 {
            let mut bought = self.try_to_buy(kind, seconds, look)?;
            if !bought.sample.exhausted {
                kind.judge(&mut bought.sample, &bought.whole, bought.counted);
                kind.pace = bought.whole.reserved as f64 / whole_s;
                return Ok(bought.sample);
            }
            // Faster than the round before, or the first: once more with more to buy.
            most = bought.most;
            kind.pace = 2.0 * most as f64 / whole_s;
        }
        Err(format!(
            "{}: all that there was ({} reservations) is bought; the figures would mean nothing",
            kind.of.name,
            grouped(most)
        ))
    }

    /// One run, whatever came of it.
    fn try_to_buy(&mut self, kind: &Purchases, seconds: u32, look: bool) -> Result<Bought, String> {
        let (mut env, most) = self.things_to_buy(kind, seconds)?;
        let mut lua = if kind.paying { "purchase.lua" } else { "reserve.lua" };
        // What pays looks at every answer anyway.
        if look || kind.paying {
            env.push(("WRK_SCRIPT", script(lua)));
            lua = "statuses.lua";
        }
        let server = self.at(kind.of.server);
        let start = meter::read(server, &[], &[])?;
        let mut order = Order::endless("/", kind.clients, lua, &env);
        // MariaDB has its CPU for itself, as a database has: what takes 50 µs must not be measured by what the
        // database loses to the client.
        order.cpu = if server.cluster().is_some() { SERVER_CPU } else { WRK_CPU };
        let run = Wrk::start(&self.wrk, server, &order)?;
        pause(LEAD_IN_S)?;
        let others = [("wrk", run.child.id())];
        let before = meter::read(server, &others, &[SERVER_CPU, WRK_CPU])?;
        pause(f64::from(seconds))?;
        let after = meter::read(server, &others, &[SERVER_CPU, WRK_CPU])?;
        run.interrupt();
        let sample = run.result(server)?;
        settle(server)?;
        let whole = Span::between(&start, &meter::read(server, &[], &[])?);
        let counted = Span::between(&before, &after);
        Ok(Bought { sample, whole, counted, most })
    }

    /// Returns the environment of the script, and how many reservations can be made. A machine that others use may
    /// be several times faster in the next round, so there is thrice as much as in the round before.
    fn things_to_buy(&mut self, kind: &Purchases, seconds: u32) -> Result<(Env, u64), String> {
        let (id, buyers) = (kind.of.server, kind.buyers());
        let wanted = (kind.pace * (f64::from(seconds) + LEAD_IN_S) * 3.0).max(1.0) as u64;
        let count = wanted.div_ceil(u64::from(buyers));
        let sessions = (0..count)
            .map(|_| self.new_session(id, buyers * SEATS_PER_RESERVATION, 1))
            .collect::<Result<Vec<_>, _>>()?;
        let mut env = self.reserve_env(id, &sessions, buyers)?;
        if kind.paying {
            let mut prefixes = Vec::new();
            for _ in &sessions {
                self.issued += 1;
                let prefix = format!("series-{}-", self.issued);
                self.at(id).issue_tokens(buyers, &format!("{prefix}{{n}}"))?;
                prefixes.push(prefix);
            }
            env.push(("WRK_TOKENS", prefixes.join(",")));
            env.push(("WRK_RESERVE", script("reserve.lua")));
        }
        Ok((env, count * u64::from(buyers)))
    }

    /// Gives those points who are going to pay. Where some are refused, all of them again: a busy machine lets one or
    /// the other charge take too long.
    fn charge(&self, id: Id) -> Result<(), String> {
        let server = self.at(id);
        let env = [("WRK_BUYERS", PAYERS.to_string())];
        let mut last = Sample::default();
        for _ in 0..3 {
            let order = Order::endless("/", FEW, "charge.lua", &env);
            let mut run = Wrk::start(&self.wrk, server, &order)?;
            run.until_exhausted(server, Duration::from_secs(300), "all had points")?;
            // What is on its way is answered.
            pause(1.0)?;
            run.interrupt();
            last = run.result(server)?;
            if last.not_ok + last.socket_errors == 0 {
                return Ok(());
            }
        }
        Err(format!("{} charges were refused and {} failed", last.not_ok, last.socket_errors))
    }
}

/// Waits until all events have left and MariaDB has tidied up, so that neither happens in the next round, which is
/// somebody else's.
pub(super) fn settle(server: &Server) -> Result<(), String> {
    let until = clock::now() + 60.0;
    wait_for(server, 60.0, &format!("{} still has events", server.name), |server| {
        let pending = server.metric("boxoffice_events_pending", "")?.unwrap_or(0.0);
        Ok((pending == 0.0).then_some(()))
    })?;
    let Some(cluster) = server.cluster() else { return Ok(()) };
    let used = || {
        let id = cluster.database.engine.id();
        id.and_then(testbed::process::CpuTime::of).ok_or("MariaDB does not run")
    };
    while clock::now() < until {
        let before = used()?;
        pause(0.3)?;
        if used()?.since(&before) < 0.3 * QUIET_SHARE {
            break;
        }
    }
    Ok(())
}

fn at_most(limit: f64, where_: bool) -> Option<Target> {
    where_.then_some(Target::AtMost(limit))
}

/// The rows of reservations: embedded and in a cluster, of this build and then of an older one where there is one.
fn rows_of_reservations(kinds: &[Purchases], clients: u32) -> Vec<Row> {
    let [embedded, clustered, older @ ..] = kinds else { return Vec::new() };
    let judged = !older.is_empty() && clients == FEW;
    let rate_min = if clients == FEW { RATE_OF_FEW_MIN } else { RATE_OF_MANY_MIN };
    let mut rows = rows_of_rate(embedded, older.first(), EMBEDDED_RATE_MIN);
    rows.extend(rows_of_rate(clustered, older.get(1), rate_min));
    let cost = |kind: &Purchases, beside: &Purchases, called: &str| {
        let name = format!("server CPU, {}", kind.of.name);
        let row = Row::new(&name, kind.of.median(Figure::Cost), "µs", 1).of(&kind.of);
        row.beside(&kind.of, &beside.of, called, Figure::Cost)
    };
    let row = cost(clustered, embedded, "embedded");
    rows.push(row.target(at_most(COST_IN_CLUSTER_MAX, judged)));
    if let [older_embedded, older_clustered] = older {
        rows.push(cost(older_clustered, older_embedded, "embedded, older"));
        let by = Figure::CostOf("MariaDB");
        let name = format!("MariaDB CPU, {}", clustered.of.name);
        let row = Row::new(&name, clustered.of.median(by), "µs", 1).of(&clustered.of);
        let row = row.beside(&clustered.of, &older_clustered.of, "older", by);
        rows.push(row.target(Target::AtMost(MARIADB_CPU_MAX)));
    }
    rows.push(row_of_statements(clustered, at_most(STATEMENTS_MAX, judged)));
    rows
}

/// Purchases a second, of this build and of an older one where there is one, and what took part in them.
fn rows_of_rate(kind: &Purchases, older: Option<&Purchases>, least: f64) -> Vec<Row> {
    let plain = |kind: &Purchases| Row::rate(&kind.of).notes(shares_of(&kind.of));
    let Some(older) = older else { return vec![plain(kind)] };
    let row = plain(kind).beside(&kind.of, &older.of, "older", Figure::Rate);
    vec![row.target(Target::AtLeast(least)), plain(older)]
}

fn row_of_statements(kind: &Purchases, target: Option<Target>) -> Row {
    let name = format!("statements, {}", kind.of.name);
    let row = Row::new(&name, kind.of.median(Figure::Statements), "each", 3);
    row.notes(["of MariaDB, tidying up and events included".to_owned()]).target(target)
}

fn rows_of_lone(kind: &Purchases, older: Option<&Purchases>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (percentile, limit) in [(50, Some(LONE_LATENCY_MAX)), (99, None)] {
        let by = Figure::Latency(percentile);
        for one in [Some(kind), older].into_iter().flatten() {
            let name = format!("{}, p{percentile}", one.of.name);
            let mut row = Row::new(&name, one.of.median(by) / 1e3, "ms", 3).of(&one.of);
            if percentile == 50 {
                row = row.notes(shares_of(&one.of));
            }
            if let Some(older) = older.filter(|_| std::ptr::eq(one, kind)) {
                let row_beside = row.beside(&one.of, &older.of, "older", by);
                row = row_beside.target(limit.map(Target::AtMost));
            }
            rows.push(row);
        }
    }
    rows
}

/// What took part in each purchase, in words.
fn shares_of(of: &Measured) -> Vec<String> {
    let Some(span) = of.samples.first().and_then(|sample| sample.span.as_ref()) else {
        return Vec::new();
    };
    let mut said = vec![format!("server {:.1} µs", of.median(Figure::Cost))];
    let others = span.cpu_seconds.iter().filter(|(name, _)| *name != "server");
    said.extend(
        others.map(|(name, _)| format!("{name} {:.1} µs", of.median(Figure::CostOf(name)))),
    );
    let mut notes = vec![format!("CPU each: {}", said.join(", "))];
    if span.cpu_seconds.iter().any(|(name, _)| *name == "MariaDB") {
        notes.push(format!(
            "{:.2} statements and {:.3} commits each",
            of.median(Figure::Statements),
            of.median(Figure::Commits)
        ));
    }
    notes.push(format!("{:.1} commands per transaction", of.median(Figure::CommandsPerBatch)));
    let busy: Vec<String> = span
        .cpus()
        .map(|cpu| format!("{cpu}: {:.0}%", of.median(Figure::CpuBusy(cpu)) * 100.0))
        .collect();
    notes.push(format!("CPUs busy {}", busy.join(", ")));
    notes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::meter::tests::span;
    use crate::bench::servers::first_id;

    fn kind(name: &str, bought: u64, maria_db: f64) -> Purchases {
        let mut kind = Purchases::new(name.to_owned(), first_id(), FEW);
        kind.of.samples.push(Sample {
            requests: bought,
            seconds: 1.0,
            cpu_seconds: 0.5,
            latencies: BTreeMap::from([(50, 1_100), (99, 3_000)]),
            span: Some(span(bought, 0, maria_db, 2_000)),
            ..Sample::default()
        });
        kind
    }

    fn names(rows: &[Row]) -> Vec<&str> {
        rows.iter().map(|row| row.name.as_str()).collect()
    }

    #[test]
    fn without_an_older_build_nothing_is_judged() {
        let rows = rows_of_reservations(&[kind("e", 20_000, 0.0), kind("c", 10_000, 0.3)], FEW);
        assert_eq!(names(&rows), ["e", "c", "server CPU, c", "statements, c"]);
        assert!(rows.iter().all(|row| row.pass.is_none()));
        assert_eq!((rows[2].figure, rows[2].ratio, rows[3].figure), (50.0, Some(2.0), 0.2));
        assert_eq!(names(&rows_of_lone(&kind("l", 9, 0.1), None)), ["l, p50", "l, p99"]);
    }

    #[test]
    fn beside_an_older_build_every_target_is() {
        let kinds = [
            kind("e", 20_000, 0.0),
            kind("c", 12_000, 0.12),
            kind("e, older", 20_000, 0.0),
            kind("c, older", 2_000, 0.2),
        ];
        let rows = rows_of_reservations(&kinds, FEW);
        assert_eq!(
            names(&rows),
            [
                "e",
                "e, older",
                "c",
                "c, older",
                "server CPU, c",
                "server CPU, c, older",
                "MariaDB CPU, c",
                "statements, c"
            ]
        );
        let judged: Vec<_> = rows.iter().map(|row| (row.target.as_deref(), row.pass)).collect();
        assert_eq!(
            judged,
            [
                (Some("≥ 0.97 × older"), Some(true)),
                (None, None),
                (Some("≥ 6 × older"), Some(true)),
                (None, None),
                (Some("≤ 1.8 × embedded"), Some(true)),
                (None, None),
                (Some("≤ 0.2 × older"), Some(true)),
                (Some("≤ 0.5 each"), Some(true)),
            ]
        );
        let many = rows_of_reservations(&kinds, MANY);
        assert_eq!((many[2].target.as_deref(), many[2].pass), (Some("≥ 8 × older"), Some(false)));
        // Of many, only rates and MariaDB's share are judged.
        assert_eq!((many[4].pass, many[6].pass, many[7].pass), (None, Some(true), None));
        let lone = rows_of_lone(&kinds[1], Some(&kinds[3]));
        assert_eq!(names(&lone), ["c, p50", "c, older, p50", "c, p99", "c, older, p99"]);
        assert_eq!((lone[0].target.as_deref(), lone[0].ratio), (Some("≤ 1.1 × older"), Some(1.0)));
        assert_eq!((lone[0].figure, lone[2].figure, lone[2].pass), (1.1, 3.0, None));
    }

    #[test]
    fn what_took_part_is_said() {
        assert_eq!(
            shares_of(&kind("c", 10_000, 0.3).of),
            [
                "CPU each: server 50.0 µs, wrk 25.0 µs, MariaDB 30.0 µs",
                "0.20 statements and 0.100 commits each",
                "3.0 commands per transaction",
                "CPUs busy 0: 90%, 1: 40%"
            ]
        );
    }

    #[test]
    fn what_the_service_counts_must_fit_what_wrk_counts() {
        for (paying, whole, answered, not_ok, unexpected) in [
            (false, span(1_000, 0, 0.0, 0), 990, 0, 0),
            // More than were on their way, and fewer than were answered.
            (false, span(1_000, 0, 0.0, 0), 960, 0, 40),
            (false, span(1_000, 0, 0.0, 0), 1_003, 0, 3),
            // Refused.
            (false, span(1_000, 0, 0.0, 0), 1_005, 5, 5),
            (true, span(500, 500, 0.0, 0), 1_000, 0, 0),
            (true, span(800, 200, 0.0, 0), 1_000, 0, 1),
        ] {
            let mut kind = kind("a", 1, 0.0);
            kind.paying = paying;
            let mut sample = Sample { requests: answered, not_ok, ..Sample::default() };
            kind.judge(&mut sample, &whole, whole.clone());
            assert_eq!(kind.of.unexpected, unexpected, "{answered} {not_ok} {whole:?}");
            assert_eq!((sample.requests, sample.cpu_seconds), (whole.operations(), 0.5));
        }
        let mut refused = kind("a", 1, 0.0);
        let mut whole = span(10, 0, 0.0, 0);
        whole.other = 9;
        let statuses = BTreeMap::from([(201, 10), (409, 7)]);
        let mut sample = Sample { requests: 10, statuses, ..Sample::default() };
        refused.judge(&mut sample, &whole, whole.clone());
        assert_eq!(refused.of.unexpected, 9);
    }
}
