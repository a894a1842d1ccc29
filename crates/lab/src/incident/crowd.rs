//! k6: who comes, and what each request of theirs came to.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use testbed::process::{log_to, mortal, tail};
use testbed::{Process, tools};

use super::story::{Bought, Kind, Request};
use crate::clock;
use crate::witness::Seconds;

const STOP: Duration = Duration::from_secs(40);

/// What k6 is to do.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) host: String,
    pub(crate) concert: i64,
    pub(crate) session: i64,
    pub(crate) first_seat: i64,
    pub(crate) seats: i64,
    pub(crate) fans: u32,
    pub(crate) seconds: Seconds,
    /// What comes on top, so many a second, from when on, for how long.
    pub(crate) flood: Option<(&'static str, u32, Seconds, Seconds)>,
}

/// What k6 has seen.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) requests: Vec<Request>,
    /// Who has a seat in the end, and who has not.
    pub(crate) bought: Vec<Bought>,
    /// How many were let in while fans were still coming. Some of them may have been interrupted.
    pub(crate) inside: u32,
}

/// A running k6.
#[derive(Debug)]
pub(crate) struct Crowd {
    process: Process,
    file: PathBuf,
    log: PathBuf,
}

impl Crowd {
    /// Starts it.
    pub(crate) fn start(directory: &Path, order: &Order) -> Result<Self, String> {
        let program = tools::tool("k6")?;
        let script = tools::root().join("load/k6/incident.js");
        let (file, log) = (directory.join("k6.csv"), directory.join("k6.log"));
        let mut command = mortal(&program);
        command.args(["run", "--quiet", "--no-usage-report", "--out"]);
        command.arg(format!("csv={}", file.display()));
        let mut set = |name: &str, value: String| {
            command.args(["-e", &format!("{name}={value}")]);
        };
        set("HOST", order.host.clone());
        set("CONCERT", order.concert.to_string());
        set("SESSION", order.session.to_string());
        set("FIRST_SEAT", order.first_seat.to_string());
        set("SEATS", order.seats.to_string());
        set("FANS", order.fans.to_string());
        set("SECONDS", format!("{:.0}", order.seconds));
        if let Some((what, per_second, at, lasts)) = order.flood {
            set("FLOOD", what.to_owned());
            set("FLOOD_PER_S", per_second.to_string());
            set("FLOOD_AT", format!("{at:.0}"));
            set("FLOOD_FOR", format!("{lasts:.0}"));
        }
        command.arg(script).env("K6_CSV_TIME_FORMAT", "unix_milli");
        log_to(&mut command, &log)?;
        Ok(Self { process: Process::spawn("k6", command)?, file, log })
    }

    /// Whether it still runs; an error where it has ended badly.
    pub(crate) fn runs(&mut self) -> Result<bool, String> {
        match self.process.ended() {
            None => Ok(true),
            Some(ended) if ended.code == 0 => Ok(false),
            Some(ended) => {
                Err(format!("k6 ended with code {}:\n{}", ended.code, tail(&self.log, 15)))
            }
        }
    }

    /// Waits for its end, and returns what its requests came to.
    pub(crate) fn end(mut self) -> Result<Heard, String> {
        if self.process.wait(STOP).is_none() {
            self.process.stop(Signal::INT, STOP);
        }
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| format!("{}: {error}", self.file.display()))?;
        read(&text, clock_of_epoch()?)
    }
}

/// The time by our clock when the epoch began: far below 0.
fn clock_of_epoch() -> Result<Seconds, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_err(|error| format!("the clock of this machine: {error}"))?;
    Ok(clock::now() - now.as_secs_f64())
}

/// Reads k6's lines: how long each request took and what came of it, who was let in, and who has bought.
fn read(text: &str, epoch: Seconds) -> Result<Heard, String> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    let column = |name: &str| {
        let found = head.iter().position(|column| *column == name);
        found.ok_or_else(|| format!("k6 wrote no column {name}"))
    };
    let [metric, time, value, name, status] = [
        column("metric_name")?,
        column("timestamp")?,
        column("metric_value")?,
        column("name")?,
        column("status")?,
    ];
    let mut heard = Heard::default();
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default();
        let number = |index: usize| field(index).parse::<f64>();
        let of_line = |error| format!("a line of k6: {error}: {line}");
        match field(metric) {
            "http_req_duration" => {
                let ms = number(value).map_err(of_line)?;
                // k6 stamps the end of a request.
                let done = epoch + number(time).map_err(of_line)? / 1e3;
                let Some(kind) = Kind::of_tag(field(name)) else { continue };
                let status = field(status).parse().unwrap_or(0);
                heard.requests.push(Request { began: done - ms / 1e3, done, kind, status });
            }
            "bought" => {
                let at = epoch + number(time).map_err(of_line)? / 1e3;
                heard.bought.push(Bought { at, did: number(value).map_err(of_line)? > 0.5 });
            }
            "inside" => heard.inside += 1,
            _ => {}
        }
    }
    Ok(heard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_k6_are_read() {
        let text = "metric_name,timestamp,metric_value,check,error,error_code,expected_response,group,method,name,proto,scenario,service,status,subproto,tls_version,url,extra_tags,metadata\n\
            http_reqs,1000500,1.000000,,,,true,,GET,poll,HTTP/1.1,fans,,200,,,poll,,\n\
            http_req_duration,1000500,250.000000,,,,true,,GET,poll,HTTP/1.1,fans,,200,,,poll,,\n\
            http_req_duration,1001000,10.000000,,,1050,false,,POST,pay,HTTP/1.1,fans,,0,,,pay,,\n\
            inside,1001500,1.000000,,,,,,,,,fans,,,,,,,\n\
            inside,1001600,1.000000,,,,,,,,,fans,,,,,,,\n\
            bought,1002000,1.000000,,,,,,,,,fans,,,,,,,\n";
        let Heard { requests, bought, inside } = read(text, -1_000.0).unwrap_or_default();
        assert_eq!(inside, 2, "one of them was interrupted");
        assert_eq!(requests.len(), 2);
        assert_eq!((requests[0].kind, requests[0].status), (Kind::Poll, 200));
        assert!((requests[0].began - 0.25).abs() < 1e-9 && (requests[0].done - 0.5).abs() < 1e-9);
        assert_eq!((requests[1].kind, requests[1].status), (Kind::Pay, 0));
        assert!(bought.len() == 1 && bought[0].did && (bought[0].at - 2.0).abs() < 1e-9);
        assert!(read("a,b\n", 0.0).is_err_and(|error| error.contains("metric_name")));
    }
}
