//! What is tested: a service that is started for the run, in the chosen condition, or one that runs already.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbed::http::{clip, get, request};
use testbed::instance::Serves;
use testbed::process::{memory_bytes, tail};
use testbed::{Cluster, ClusterOptions, Cpus, Instance, InstanceOptions, Workdir, tools};

use crate::model::Audit;

/// Which service, and how it is held.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Embedded,
    Cluster { instances: u32 },
    Url { url: String, admin_token: Option<String> },
}

/// How a service is started.
#[derive(Clone, Debug)]
pub(crate) struct Start<'a> {
    pub(crate) target: &'a Target,
    /// The static answers of `examples/hello` in its place.
    pub(crate) hello: bool,
    pub(crate) cpus: &'a Cpus,
    pub(crate) port: Option<u16>,
    pub(crate) settings: &'a BTreeMap<String, String>,
    /// A program to start it by, such as one that slows its disk down.
    pub(crate) wrap: &'a [String],
    /// Where logs go.
    pub(crate) directory: &'a Path,
    /// The program, where it is not the release build.
    pub(crate) binary: Option<&'a Path>,
}

/// A service that answers.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) admin_token: Option<String>,
    /// Process ids of the instances; empty for a service that is not ours.
    pub(crate) servers: Vec<u32>,
    pub(crate) engines: Vec<u32>,
    /// Where each instance shows its metrics.
    pub(crate) metrics: Vec<String>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    // What runs goes before the directory that it runs in.
    Embedded { instance: Box<Instance>, _directory: Workdir },
    Cluster { cluster: Box<Cluster>, log: PathBuf, _directory: Workdir },
    Url,
}

/// Builds the release binary, and the static answers where they are needed.
pub(crate) fn build(hello: bool) -> Result<(), String> {
    tools::build("boxoffice", &["--bin", "boxoffice"])?;
    if hello { tools::build("boxoffice", &["--example", "hello"]) } else { Ok(()) }
}

/// Starts what is asked for and waits until it answers.
pub(crate) fn start(what: &Start<'_>) -> Result<Service, String> {
    match what.target {
        Target::Url { url, admin_token } => reach(url, admin_token.clone()),
        Target::Cluster { instances } if !what.hello => start_cluster(what, *instances),
        _ => start_embedded(what),
    }
}

fn reach(url: &str, admin_token: Option<String>) -> Result<Service, String> {
    let url = url.trim_end_matches('/').to_owned();
    match get(&format!("{url}/health/ready")) {
        Ok(reply) if reply.status == 200 => {}
        Ok(reply) => {
            return Err(format!(
                "{url} is there but not ready: /health/ready answers {}: {}",
                reply.status,
                clip(&reply.body)
            ));
        }
        Err(error) => return Err(format!("{url} cannot be reached: {error}")),
    }
    // Not everybody shows them to everybody.
    let metrics = get(&format!("{url}/metrics")).is_ok_and(|reply| reply.status == 200);
    Ok(Service {
        metrics: if metrics { vec![url.clone()] } else { Vec::new() },
        url,
        admin_token,
        servers: Vec::new(),
        engines: Vec::new(),
        form: Form::Url,
    })
}

fn start_embedded(what: &Start<'_>) -> Result<Service, String> {
    let directory = Workdir::temporary()?;
    let mut options = InstanceOptions::new("service");
    options.serves = if what.hello { Serves::Hello } else { Serves::Boxoffice };
    options.program = what.binary.filter(|_| !what.hello).map(Path::to_owned);
    options.port = what.port;
    options.cpus = what.cpus.clone();
    options.settings = what.settings.clone();
    options.wrap = what.wrap.to_vec();
    let log = if what.hello { "baseline-server.log" } else { "server.log" };
    options.log = Some(what.directory.join(log));
    let instance = Instance::start(directory.path(), &options)?;
    let url = instance.url.clone();
    Ok(Service {
        metrics: if what.hello { Vec::new() } else { vec![url.clone()] },
        url,
        admin_token: instance.admin_token().ok(),
        servers: vec![instance.id()],
        engines: Vec::new(),
        form: Form::Embedded { instance: Box::new(instance), _directory: directory },
    })
}

fn start_cluster(what: &Start<'_>, instances: u32) -> Result<Service, String> {
    if what.cpus.quota.is_some() {
        return Err("a part of a CPU can only be given to an embedded service".to_owned());
    }
    let directory = Workdir::temporary()?;
    let mut options = ClusterOptions::new("cluster", instances as usize);
    options.port = what.port;
    options.cpus = what.cpus.clone();
    options.settings = what.settings.clone();
    options.program = what.binary.map(Path::to_owned);
    // Behind the proxy any instance may be asked, so all of them know the same token.
    let token = options
        .settings
        .entry("admin.token".to_owned())
        .or_insert_with(|| format!("{:032x}", fastrand::u128(..)))
        .clone();
    let cluster = Cluster::start(directory.path(), &options)?;
    let servers: Vec<u32> = cluster.instances.iter().map(Instance::id).collect();
    Ok(Service {
        url: cluster.url(),
        admin_token: Some(token),
        engines: cluster
            .processes()
            .into_iter()
            .map(|(_, id)| id)
            .filter(|id| !servers.contains(id))
            .collect(),
        servers,
        metrics: cluster.instances.iter().map(|instance| instance.url.clone()).collect(),
        form: Form::Cluster {
            cluster: Box::new(cluster),
            log: what.directory.join("server.log"),
            _directory: directory,
        },
    })
}

/// Keeps the logs of all instances, one after another.
fn keep_logs(cluster: &Cluster, path: &Path) {
    let logs = cluster.instances.iter().map(|instance| {
        let log = std::fs::read(&instance.log).unwrap_or_default();
        format!("==== {}\n{}\n", instance.label, String::from_utf8_lossy(&log))
    });
    let _ = std::fs::write(path, logs.collect::<String>());
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Form::Cluster { cluster, log, .. } = &mut self.form {
            cluster.stop();
            keep_logs(cluster, log);
        }
    }
}

impl Service {
    /// Whether it has ended by itself: says how.
    pub(crate) fn died(&mut self) -> Option<String> {
        match &mut self.form {
            Form::Embedded { instance, .. } => instance.ended().map(|ended| {
                format!(
                    "the service ended with code {} during the run:\n{}",
                    ended.code,
                    instance.log_tail(15)
                )
            }),
            Form::Cluster { cluster, .. } => {
                // A zombie has a stat, too, but no memory.
                let gone = |id: &u32| memory_bytes(*id, "VmRSS").is_none();
                let id = *self.servers.iter().chain(&self.engines).find(|id| gone(id))?;
                let instance = cluster.instances.iter().find(|instance| instance.id() == id);
                let log = instance.map(|instance| tail(&instance.log, 15)).unwrap_or_default();
                Some(format!("process {id} of the cluster has ended during the run:\n{log}"))
            }
            Form::Url => None,
        }
    }

    /// Whether a service that is not ours has stopped answering; asked once, after the run.
    pub(crate) fn unreachable(&self) -> Option<String> {
        if !matches!(self.form, Form::Url) {
            return None;
        }
        let error = get(&format!("{}/health/ready", self.url)).err()?;
        Some(format!("{} does not answer any more: {error}", self.url))
    }

    /// Issues activated tokens.
    pub(crate) fn issue_tokens(&self, count: u32, format: &str) -> Result<(), String> {
        let token = self
            .admin_token
            .as_ref()
            .ok_or("issuing tokens needs the admin token (--admin-token)")?;
        let body = serde_json::json!({ "count": count, "format": format, "activated": true, "guessable": true });
        let url = format!("{}/admin/v1/tokens", self.url);
        let bearer = format!("Bearer {token}");
        let patience = Duration::from_secs(120);
        let reply = request("POST", &url, &[("Authorization", &bearer)], Some(&body), patience)
            .map_err(|error| format!("issuing tokens failed: {error}"))?;
        if !(200..300).contains(&reply.status) {
            return Err(format!("issuing tokens failed: {}: {}", reply.status, clip(&reply.body)));
        }
        if matches!(self.form, Form::Cluster { .. }) {
            // The other instances hear of them within a tick or two.
            std::thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// Ends it in good order and audits what it left behind; a service that is not ours is asked.
    pub(crate) fn stop_and_audit(&mut self, audit: bool) -> (Option<i32>, Result<Audit, String>) {
        let none = || Err("no audit was asked for".to_owned());
        match &mut self.form {
            Form::Url => {
                let found = match &self.admin_token {
                    _ if !audit => none(),
                    Some(token) => audit_at(&self.url, token),
                    None => {
                        Err("the audit of a running service needs its admin token (--admin-token)"
                            .to_owned())
                    }
                };
                (None, found)
            }
            Form::Embedded { instance, .. } => {
                let code = instance.stop();
                // After its end, so that it reads what really reached the disk.
                (Some(code), if audit { instance.audit().map(Audit::from) } else { none() })
            }
            Form::Cluster { cluster, log, .. } => {
                let code = cluster.stop();
                keep_logs(cluster, log);
                let found = if audit { audit_of(cluster) } else { none() };
                (Some(code), found)
            }
        }
    }

    /// Copies the data directory.
    pub(crate) fn keep_data(&self, to: &Path) -> Result<(), String> {
        let Form::Embedded { instance, .. } = &self.form else { return Ok(()) };
        let said =
            Command::new("cp").arg("-a").arg(&instance.data).arg(to).stdin(Stdio::null()).output();
        match said {
            Ok(said) if said.status.success() => Ok(()),
            Ok(said) => Err(format!(
                "cannot keep the data: {}",
                String::from_utf8_lossy(&said.stderr).trim()
            )),
            Err(error) => Err(format!("cannot keep the data: cp: {error}")),
        }
    }

    /// CPU time of all of its instances, also just after their end.
    pub(crate) fn cpu_seconds(&mut self) -> Option<f64> {
        if let Form::Embedded { instance, .. } = &mut self.form {
            return instance.cpu_seconds();
        }
        self.servers
            .iter()
            .map(|&id| testbed::process::cpu_seconds(id))
            .sum::<Option<f64>>()
            .filter(|_| !self.servers.is_empty())
    }
}

impl From<testbed::Audit> for Audit {
    fn from(audit: testbed::Audit) -> Self {
        Self { clean: audit.clean, output: audit.output }
    }
}

fn audit_of(cluster: &Cluster) -> Result<Audit, String> {
    let mut audit = Audit::from(cluster.audit()?);
    let calls = cluster.redis.calls()?;
    let calls: Vec<String> = calls.iter().map(|(name, count)| format!("{name} {count}")).collect();
    audit.output += &format!("\nRedis: {}", calls.join(", "));
    Ok(audit)
}

fn audit_at(url: &str, token: &str) -> Result<Audit, String> {
    let bearer = format!("Bearer {token}");
    let url = format!("{url}/admin/v1/audit");
    let patience = Duration::from_secs(300);
    let reply = request("GET", &url, &[("Authorization", &bearer)], None, patience)
        .map_err(|error| format!("the audit failed: {error}"))?;
    if !(200..300).contains(&reply.status) {
        return Err(format!("the audit failed: {}: {}", reply.status, clip(&reply.body)));
    }
    let value: Value = serde_json::from_str(&reply.body)
        .map_err(|error| format!("the audit's answer is not JSON: {error}"))?;
    let clean = value["clean"].as_bool().ok_or("the audit does not say whether it is clean")?;
    let lines: Vec<String> = value["invariants"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {}: {} checked, {} violations",
                text("code"),
                text("title"),
                entry["checked"],
                entry["violations"]
            )
        })
        .collect();
    Ok(Audit { clean, output: lines.join("\n") })
}
