//! One run of wrk: what it is told, what it says, and what it cost the server.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testbed::process::{CpuTime, mortal_on};
use testbed::{signals, tools};

use super::child::{Child, Heard};
use super::meter::Span;
use super::servers::Server;
use crate::report::middle;

/// What one run did, and what it cost.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    /// Answers of 400 and above.
    pub(super) not_ok: u64,
    pub(super) socket_errors: u64,
    /// Whether the script had nothing left to ask for.
    pub(super) exhausted: bool,
    /// How often each status came, where the script tells.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// By percentile, in microseconds, where the script tells.
    pub(super) latencies: BTreeMap<u32, u64>,
    /// Of purchases: what everything that took part did.
    pub(super) span: Option<Span>,
}

/// What can be told of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// CPU time of the server for each request, in microseconds.
    Cost,
    /// Requests a second.
    Rate,
    /// CPUs that the server used.
    Busy,
    /// Latency in microseconds at a percentile.
    Latency(u32),
    /// CPU time of a process for each purchase, in microseconds.
    CostOf(&'static str),
    /// Statements of the database for each purchase.
    Statements,
    /// Commits of the database for each purchase.
    Commits,
    /// Commands in each transaction of the service.
    CommandsPerBatch,
    /// How busy a CPU was with whatever.
    CpuBusy(usize),
}

impl Figure {
    /// Returns it; not a number where the sample does not say.
    pub(super) fn of(self, sample: &Sample) -> f64 {
        let span = |figure: fn(&Span) -> f64| sample.span.as_ref().map_or(f64::NAN, figure);
        match self {
            Self::Cost if sample.requests == 0 => f64::NAN,
            Self::Cost => sample.cpu_seconds / sample.requests as f64 * 1e6,
            Self::Rate => sample.requests as f64 / sample.seconds,
            Self::Busy => sample.cpu_seconds / sample.seconds,
            Self::Latency(percentile) => {
                sample.latencies.get(&percentile).map_or(f64::NAN, |&micros| micros as f64)
            }
            Self::CostOf(name) => sample.span.as_ref().map_or(f64::NAN, |span| span.micros(name)),
            Self::Statements => span(|span| span.each(span.statements)),
            Self::Commits => span(|span| span.each(span.commits)),
            Self::CommandsPerBatch => span(|span| span.commands_per_batch),
            Self::CpuBusy(cpu) => sample.span.as_ref().map_or(f64::NAN, |span| span.busy(cpu)),
        }
    }

    /// Returns the middle of all samples; not a number where there is none.
    pub(super) fn median(self, samples: &[Sample]) -> f64 {
        let all: Vec<f64> = samples.iter().map(|sample| self.of(sample)).collect();
        middle(&all).unwrap_or(f64::NAN)
    }

    /// Returns how the samples of two compare, round by round.
    pub(super) fn ratios(self, these: &[Sample], others: &[Sample]) -> Vec<f64> {
        these.iter().zip(others).map(|(a, b)| self.of(a) / self.of(b)).collect()
    }
}

/// What a script reads of its environment.
pub(super) type Env = Vec<(&'static str, String)>;

/// What wrk is told.
#[derive(Clone, Debug)]
pub(super) struct Order<'a> {
    pub(super) path: &'a str,
    pub(super) seconds: u32,
    pub(super) connections: u32,
    pub(super) script: Option<&'a str>,
    pub(super) env: &'a [(&'static str, String)],
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) cpu: usize,
}

impl<'a> Order<'a> {
    /// With a script on the CPU of wrk, until it is interrupted.
    pub(super) const fn endless(
        path: &'a str,
        connections: u32,
        script: &'a str,
        env: &'a [(&'static str, String)],
    ) -> Self {
        let (seconds, headers, cpu) = (3600, &[], super::WRK_CPU);
        Self { path, seconds, connections, script: Some(script), env, headers, cpu }
    }
}

/// Where a script is.
pub(super) fn script(name: &str) -> String {
    tools::root().join("load/wrk").join(name).display().to_string()
}

/// A running wrk.
#[derive(Debug)]
pub(super) struct Wrk {
    pub(super) child: Child,
    before: CpuTime,
    began: Instant,
}

impl Wrk {
    pub(super) fn start(
        program: &Path,
        server: &Server,
        order: &Order<'_>,
    ) -> Result<Self, String> {
        let mut command = mortal_on(&[order.cpu], program);
        command.args(["-t1", &format!("-c{}", order.connections)]);
        command.args([&format!("-d{}s", order.seconds), "--timeout", "10s"]);
        for (name, value) in order.headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        if let Some(name) = order.script {
            command.args(["-s", &script(name)]);
        }
        command.arg(format!("{}{}", server.url(), order.path));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WRK_") {
                command.env_remove(name);
            }
        }
        command.envs(order.env.iter().map(|(name, value)| (name, value)));
        let before = cpu_time(server)?;
        let began = Instant::now();
        Ok(Self { child: Child::start("wrk", command, Stdio::piped())?, before, began })
    }

    /// Waits until the script says that nothing is left to ask for. Returns after how many seconds that was, and
    /// how much CPU time of the server; none where wrk has ended before.
    pub(super) fn wait_for_exhaustion(
        &mut self,
        server: &Server,
        patience: Duration,
    ) -> Result<Option<(f64, f64)>, String> {
        while self.began.elapsed() < patience {
            let heard = self.child.hear(Duration::from_millis(500));
            if exhausted(&self.child.err) {
                let seconds = self.began.elapsed().as_secs_f64();
                return Ok(Some((seconds, cpu_time(server)?.since(&self.before))));
            }
            match heard {
                Heard::End => return Ok(None),
                Heard::Nothing if !server.is_running() => return Err(server.died()),
                _ if signals::stopped() => return Err("stopped by hand".to_owned()),
                _ => {}
            }
        }
        Err(format!("wrk was not done after {:.0} s", patience.as_secs_f64()))
    }

    /// The same, where an earlier end is an error.
    pub(super) fn until_exhausted(
        &mut self,
        server: &Server,
        patience: Duration,
        what: &str,
    ) -> Result<(f64, f64), String> {
        let ended = self.wait_for_exhaustion(server, patience)?;
        ended.ok_or_else(|| format!("wrk ended before {what}: {}", self.child.complaints()))
    }

    /// Asks it for its results.
    pub(super) fn interrupt(&self) {
        self.child.interrupt();
    }

    /// Waits for its end.
    pub(super) fn result(mut self, server: &Server) -> Result<Sample, String> {
        let code = self.child.finish()?;
        if !server.is_running() {
            return Err(server.died());
        }
        let cpu_seconds = cpu_time(server)?.since(&self.before);
        let (out, err) = (self.child.text(), self.child.complaints());
        let said = parse(&out, self.began.elapsed().as_secs_f64()).filter(|_| code == 0);
        let said = said.ok_or_else(|| format!("wrk failed (code {code}):\n{out}{err}"))?;
        Ok(Sample { cpu_seconds, exhausted: exhausted(&self.child.err), ..said })
    }
}

fn cpu_time(server: &Server) -> Result<CpuTime, String> {
    CpuTime::of(server.id()?).ok_or_else(|| server.died())
}

fn exhausted(err: &[u8]) -> bool {
    String::from_utf8_lossy(err).contains("EXHAUSTED")
}

/// Reads what wrk and its scripts say at their end. `elapsed` counts where nothing was answered.
fn parse(text: &str, elapsed: f64) -> Option<Sample> {
    let mut sample = Sample::default();
    let (mut requests, mut rate) = (None, None);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [count, "requests", "in", ..] => requests = count.parse::<u64>().ok(),
            ["Requests/sec:", per_second] => rate = per_second.parse::<f64>().ok(),
            ["Non-2xx", "or", "3xx", "responses:", count] => sample.not_ok = count.parse().ok()?,
            ["Socket", "errors:", counts @ ..] => {
                let counts = counts.iter().map(|word| word.trim_end_matches(','));
                sample.socket_errors = counts.filter_map(|count| count.parse::<u64>().ok()).sum();
            }
            ["LATENCY", percentile, micros] => {
                sample.latencies.insert(percentile.parse().ok()?, micros.parse().ok()?);
            }
            ["STATUS", status, count] => {
                sample.statuses.insert(status.parse().ok()?, count.parse().ok()?);
            }
            _ => {}
        }
    }
    sample.requests = requests?;
    let rate = rate?;
    sample.seconds = if rate > 0.0 { sample.requests as f64 / rate } else { elapsed };
    Some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
Running 4s test @ http://127.0.0.1:8080/
  1 threads and 256 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.41ms  512.00us   9.00ms   90.00%
    Req/Sec    70.12k     2.00k   80.00k    71.00%
  160000 requests in 4.01s, 30.00MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 17
Requests/sec:  40000.00
Transfer/sec:      7.50MB
LATENCY 50 3400
LATENCY 99 8000
STATUS 201 159983
STATUS 409 17
";

    #[test]
    fn what_wrk_says_is_read() {
        let sample = parse(SAID, 9.0).unwrap();
        assert_eq!((sample.requests, sample.not_ok, sample.socket_errors), (160_000, 17, 10));
        assert!((sample.seconds - 4.0).abs() < 1e-9);
        assert_eq!(sample.latencies, BTreeMap::from([(50, 3400), (99, 8000)]));
        assert_eq!(sample.statuses, BTreeMap::from([(201, 159_983), (409, 17)]));
    }

    #[test]
    fn what_is_not_said_did_not_happen() {
        let sample =
            parse("  0 requests in 1.00s, 0.00B read\nRequests/sec:  0.00\n", 1.5).unwrap();
        assert_eq!((sample.requests, sample.not_ok, sample.socket_errors), (0, 0, 0));
        assert!((sample.seconds - 1.5).abs() < 1e-9 && sample.statuses.is_empty());
        assert!(Figure::Cost.of(&sample).is_nan());
        for text in ["", "unable to connect to 127.0.0.1:1 Connection refused", "Requests/sec: 1.0"]
        {
            assert!(parse(text, 1.0).is_none(), "{text}");
        }
    }

    fn sample(requests: u64, seconds: f64, cpu_seconds: f64) -> Sample {
        Sample { requests, seconds, cpu_seconds, ..Sample::default() }
    }

    #[test]
    fn figures_are_medians_and_ratios_are_of_the_same_round() {
        let these =
            [sample(100_000, 2.0, 1.0), sample(100_000, 2.0, 2.0), sample(100_000, 1.0, 0.6)];
        let others =
            [sample(100_000, 2.0, 0.5), sample(100_000, 1.0, 1.0), sample(100_000, 1.0, 0.3)];
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(Figure::Cost.median(&these), 10.0));
        assert!(close(Figure::Rate.median(&these), 50_000.0));
        assert!(close(Figure::Busy.median(&these), 0.6));
        // The machine was slow in the second round, for both.
        assert!(Figure::Cost.ratios(&these, &others).iter().all(|&ratio| close(ratio, 2.0)));
        assert!(close(Figure::Rate.ratios(&these, &others)[1], 0.5));
        assert!(Figure::Cost.median(&[]).is_nan());
        assert!(Figure::Statements.of(&these[0]).is_nan());
    }

    #[test]
    fn latencies_are_told_by_percentile() {
        let sample = parse(SAID, 9.0).unwrap();
        assert!((Figure::Latency(99).of(&sample) - 8000.0).abs() < 1e-9);
        assert!(Figure::Latency(90).of(&sample).is_nan());
    }
}
