//! Prometheus with rules of ours.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::{Engine, Ready, words};
use crate::http::{clip, request};
use crate::ports::free_port;
use crate::signals;
use crate::tools::tool;

const PATIENCE: Duration = Duration::from_secs(30);

/// What Prometheus looks at, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Scraping<'a> {
    /// Addresses (`host:port`) with `/metrics`; they are the job `boxoffice`.
    pub targets: &'a [String],
    /// A directory of files with rules, which are evaluated as often as targets are asked.
    pub rules: &'a Path,
    /// How often targets are asked.
    pub every: Duration,
    /// The port of an Alertmanager that alerts go to.
    pub alertmanager: Option<u16>,
}

/// An alert, as Prometheus lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its name.
    pub name: String,
    /// Whether it fires; else it is pending.
    pub fires: bool,
    /// The instance that it is about; empty where it is about all.
    pub instance: String,
    /// Since when, as Prometheus writes times.
    pub active_at: String,
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// The process.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
}

impl Prometheus {
    /// Starts it in a directory that is made for it, and waits until it has asked every target once.
    pub fn start(
        directory: &Path,
        scraping: &Scraping<'_>,
        cpus: &[usize],
    ) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", directory.display());
        std::fs::create_dir_all(directory).map_err(failed)?;
        let port = free_port()?;
        let file = directory.join("prometheus.yml");
        std::fs::write(&file, configuration(scraping)).map_err(failed)?;
        let mut line = words([&tool("prometheus")?]);
        line.push(format!("--config.file={}", file.display()).into());
        line.push(format!("--storage.tsdb.path={}", directory.join("tsdb").display()).into());
        line.push(format!("--web.listen-address=127.0.0.1:{port}").into());
        let ready = Ready::Http(format!("http://127.0.0.1:{port}/-/ready"));
        let log = directory.join("prometheus.log");
        let engine = Engine::start("Prometheus", line, cpus, &log, ready)?;
        let prometheus = Self { engine, port };
        prometheus.wait_until_scraped()?;
        Ok(prometheus)
    }

    /// Waits until every target was asked: what a counter has grown by before that is in no rate.
    fn wait_until_scraped(&self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let targets = self.get("targets")?;
            let targets = targets["activeTargets"].as_array().cloned().unwrap_or_default();
            if !targets.is_empty() && targets.iter().all(|target| target["health"] == "up") {
                return Ok(());
            }
            if signals::stopped() {
                return Err("stopped while Prometheus asked its targets".to_owned());
            }
            if Instant::now() > until {
                let why: Vec<&Value> = targets.iter().map(|target| &target["lastError"]).collect();
                return Err(format!("Prometheus has not asked all of its targets: {why:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns what a query gives at this moment: the labels of each series, and its value.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.get(&format!("query?query={encoded}"))?;
        let series = data["result"].as_array().cloned().unwrap_or_default();
        let value = |one: &Value| {
            let text = one["value"][1].as_str()?;
            text.parse().ok()
        };
        Ok(series.iter().filter_map(|one| Some((one["metric"].clone(), value(one)?))).collect())
    }

    /// Returns the alerts that are pending or fire.
    pub fn alerts(&self) -> Result<Vec<Alert>, String> {
        let data = self.get("alerts")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alerts = data["alerts"].as_array().cloned().unwrap_or_default();
        Ok(alerts
            .iter()
            .map(|alert| Alert {
                name: text(&alert["labels"]["alertname"]),
                fires: alert["state"] == "firing",
                instance: text(&alert["labels"]["instance"]),
                active_at: text(&alert["activeAt"]),
            })
            .collect())
    }

    fn get(&self, what: &str) -> Result<Value, String> {
        let url = format!("http://127.0.0.1:{}/api/v1/{what}", self.port);
        let reply = request("GET", &url, &[], None, PATIENCE)?;
        let body = reply.json()?;
        if reply.status != 200 || body["status"] != "success" {
            return Err(format!("Prometheus refuses {what}: {}", clip(&reply.body)));
        }
        Ok(body["data"].clone())
    }
}

/// JSON is YAML, and needs no care with quotes.
fn configuration(scraping: &Scraping<'_>) -> String {
    let every = format!("{}ms", scraping.every.as_millis());
    let to: Vec<String> =
        scraping.alertmanager.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    serde_json::json!({
        "global": {
            "scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every,
        },
        "rule_files": [scraping.rules.join("*.yml")],
        "alerting": { "alertmanagers": [{ "static_configs": [{ "targets": to }] }] },
        "scrape_configs": [{
            "job_name": "boxoffice",
            "static_configs": [{ "targets": scraping.targets }],
        }],
    })
    .to_string()
}
