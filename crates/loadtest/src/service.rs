//! What is tested: a service that is started for the run, in the chosen condition, or one that runs already.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::model::Audit;
use crate::process::{Process, log_to, mortal, tail};
use crate::run_dir::{root, target_dir};
use crate::signals;

const READY: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);
/// MariaDB, Redis and Kafka take their time.
const CLUSTER_READY: Duration = Duration::from_secs(180);
const CLUSTER_STOP: Duration = Duration::from_secs(90);
const CGROUP_CPU: &str = "/sys/fs/cgroup/cpu";

/// Which service, and how it is held.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Embedded,
    Cluster { instances: u32 },
    Url { url: String, admin_token: Option<String> },
}

/// The CPUs that a service may use.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cpus {
    /// Numbers of the CPUs that it is pinned to.
    pub(crate) list: Vec<usize>,
    /// How much of them, where that is less.
    pub(crate) quota: Option<f64>,
}

impl Cpus {
    pub(crate) fn count(&self) -> f64 {
        self.quota.unwrap_or(self.list.len() as f64)
    }

    /// `2` is how many, `0.5` a part of one, `0,1` and `0-1` are which, `0` is CPU 0, `all` is every one.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        Self::choose(text, &available())
    }

    fn choose(text: &str, have: &[usize]) -> Result<Self, String> {
        let wrong = || {
            format!(
                "--cpus {text}: give a count (1), a part (0.5), a list (0,1), a range (0-1) or all"
            )
        };
        if text == "all" {
            return Ok(Self { list: have.to_vec(), quota: None });
        }
        let few = |wanted: usize| {
            format!(
                "--cpus {text}: this machine has only {} for this program, and {wanted} are needed",
                have.len()
            )
        };
        if text.contains('.') {
            let quota: f64 = text.parse().map_err(|_| wrong())?;
            if !(0.01..=1024.0).contains(&quota) {
                return Err(wrong());
            }
            let count = quota.ceil() as usize;
            let list = have.get(..count).ok_or_else(|| few(count))?.to_vec();
            return Ok(Self { quota: (quota < count as f64).then_some(quota), list });
        }
        if let Ok(count) = text.parse::<usize>()
            && count > 0
        {
            return Ok(Self {
                list: have.get(..count).ok_or_else(|| few(count))?.to_vec(),
                quota: None,
            });
        }
        let mut list = Vec::new();
        for part in text.split(',') {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high): (usize, usize) =
                (low.parse().map_err(|_| wrong())?, high.parse().map_err(|_| wrong())?);
            if low > high || high > 4096 {
                return Err(wrong());
            }
            list.extend(low..=high);
        }
        list.sort_unstable();
        list.dedup();
        match list.iter().find(|cpu| !have.contains(cpu)) {
            Some(cpu) => {
                Err(format!("--cpus {text}: this program may not use CPU {cpu}, only {have:?}"))
            }
            None => Ok(Self { list, quota: None }),
        }
    }

    fn text(&self) -> String {
        self.list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Numbers of the CPUs that this program may use.
pub(crate) fn available() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect(),
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
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
    Embedded {
        process: Process,
        program: PathBuf,
        env: Vec<(String, String)>,
        log: PathBuf,
        data: Data,
        _limit: Option<Quota>,
    },
    Cluster {
        process: Process,
        said: Receiver<String>,
        log: PathBuf,
    },
    Url,
}

/// A directory for the data, removed with the service.
#[derive(Debug)]
struct Data(PathBuf);

impl Data {
    fn make() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!(
            "loadtest-{}-{}",
            std::process::id(),
            crate::sample::now_ms() as u64
        ));
        fs::create_dir_all(&path)
            .map_err(|error| format!("cannot make {}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A share of CPU time that the kernel enforces, removed when it is dropped.
#[derive(Debug)]
struct Quota(PathBuf);

impl Quota {
    /// For these processes and all that they start from now on.
    fn impose(cpus: f64, pids: &[u32]) -> Result<Self, String> {
        // In short periods rather than the usual 100 ms: a service that used up its share sleeps for the rest of
        // the period, and that shows in every latency. The kernel takes no share below 1 ms.
        let period_us = (1000.0 / cpus).clamp(10_000.0, 1_000_000.0);
        let path = Path::new(CGROUP_CPU).join(format!(
            "loadtest-{}-{}",
            std::process::id(),
            pids.first().copied().unwrap_or(0)
        ));
        let failed = |error: std::io::Error| {
            format!(
                "a part of a CPU needs the cpu controller of cgroup v1 at {CGROUP_CPU} and root: {}: {error}. Give a \
                 whole number of CPUs, which needs neither",
                path.display()
            )
        };
        fs::create_dir(&path).map_err(failed)?;
        let quota = Self(path.clone());
        fs::write(path.join("cpu.cfs_period_us"), format!("{period_us:.0}")).map_err(failed)?;
        fs::write(path.join("cpu.cfs_quota_us"), format!("{:.0}", (cpus * period_us).max(1000.0)))
            .map_err(failed)?;
        for pid in pids {
            fs::write(path.join("cgroup.procs"), pid.to_string()).map_err(failed)?;
        }
        Ok(quota)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The kernel needs a moment to see that the last process is gone.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Refuses a port that somebody listens on.
pub(crate) fn require_free(port: u16) -> Result<(), String> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).map(drop).map_err(|error| {
        format!(
            "port {port} of 127.0.0.1 is not free ({error}). Stop what listens there (`ss -ltnp 'sport = :{port}'` names \
             it) or choose another with --port; scripts that are hard-wired to a port need that one"
        )
    })
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)));
    listener
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(|error| format!("no free port: {error}"))
}

/// Builds the release binary, and the static answers where they are needed.
pub(crate) fn build(hello: bool) -> Result<(), String> {
    let mut builds = vec![vec!["--bin", "boxoffice"]];
    if hello {
        builds.push(vec!["--example", "hello"]);
    }
    for what in builds {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--release", "-p", "boxoffice"]).args(&what).current_dir(root());
        eprintln!("+ cargo build --release -p boxoffice {}", what.join(" "));
        let mut process =
            Process::spawn("cargo", command.stdin(Stdio::null())).map_err(|error| {
                format!("{error}. Install Rust from https://rustup.rs, or use --no-build")
            })?;
        loop {
            if let Some(ended) = process.ended() {
                if ended.code != 0 {
                    return Err("the build failed; its messages are above".to_owned());
                }
                break;
            }
            if signals::stopped() {
                return Err("stopped while building".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn binary(hello: bool) -> Result<PathBuf, String> {
    let release = target_dir().join("release");
    let path = if hello { release.join("examples/hello") } else { release.join("boxoffice") };
    if path.is_file() {
        // The service has another working directory.
        path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))
    } else {
        let what = if hello { " -p boxoffice --example hello" } else { "" };
        Err(format!(
            "{} is missing; build it with `cargo build --release{what}`, or leave out --no-build",
            path.display()
        ))
    }
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
        Ok((200, _)) => {}
        Ok((status, body)) => {
            return Err(format!(
                "{url} is there but not ready: /health/ready answers {status}: {}",
                clip(&body)
            ));
        }
        Err(error) => return Err(format!("{url} cannot be reached: {error}")),
    }
    // Not everybody shows them to everybody.
    let metrics = matches!(get(&format!("{url}/metrics")), Ok((200, _)));
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
    let program = match what.binary {
        Some(path) if !what.hello => {
            path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?
        }
        _ => binary(what.hello)?,
    };
    let port = match what.port {
        Some(port) => port,
        None => free_port()?,
    };
    require_free(port)?;
    let address = format!("127.0.0.1:{port}");
    let url = format!("http://{address}");
    let data = Data::make()?;
    let data_dir = data.0.join("data");
    // This is also how the commands (token, audit) find the service and its data.
    let mut env = vec![
        ("BOXOFFICE_SERVER__LISTEN".to_owned(), address.clone()),
        ("BOXOFFICE_DATA_DIR".to_owned(), data_dir.display().to_string()),
    ];
    for (key, value) in what.settings {
        env.push((format!("BOXOFFICE_{}", key.to_uppercase().replace('.', "__")), value.clone()));
    }
    let log = what.directory.join(if what.hello { "baseline-server.log" } else { "server.log" });
    let mut line: Vec<String> = vec!["taskset".to_owned(), "-c".to_owned(), what.cpus.text()];
    if !what.hello {
        line.extend_from_slice(what.wrap);
    }
    line.push(program.display().to_string());
    let mut command = mortal(Path::new(&line[0]));
    command.args(&line[1..]);
    if what.hello {
        command.args(["--listen", &address]);
    } else {
        command.args(["serve", "--listen", &address, "--data-dir"]).arg(&data_dir);
    }
    // A working directory of its own, so that no boxoffice.toml of the caller is read.
    shield(&mut command, &data.0);
    command.envs(env.iter().map(|(key, value)| (key, value)));
    log_to(&mut command, &log)?;
    let mut process = Process::spawn("the service", &mut command)?;
    let limit = what.cpus.quota.map(|quota| Quota::impose(quota, &[process.id()])).transpose()?;
    let ready = if what.hello { format!("{url}/hello") } else { format!("{url}/health/ready") };
    // Held to a tenth of a CPU it also starts ten times slower.
    let patience = READY.mul_f64((1.0 / what.cpus.count()).clamp(1.0, 10.0));
    wait_until_ready(&mut process, &ready, patience, &log)?;
    let admin_token =
        fs::read_to_string(data_dir.join("admin.token")).ok().map(|token| token.trim().to_owned());
    Ok(Service {
        metrics: if what.hello { Vec::new() } else { vec![url.clone()] },
        url,
        admin_token,
        servers: vec![process.id()],
        engines: Vec::new(),
        form: Form::Embedded { process, program, env, log, data, _limit: limit },
    })
}

fn wait_until_ready(
    process: &mut Process,
    url: &str,
    patience: Duration,
    log: &Path,
) -> Result<(), String> {
    let until = Instant::now() + patience;
    let mut answer = "no answer".to_owned();
    while Instant::now() < until {
        if let Some(ended) = process.ended() {
            return Err(format!(
                "{} ended with code {} before it was ready:\n{}",
                process.name,
                ended.code,
                tail(log, 15)
            ));
        }
        match get(url) {
            Ok((200, _)) => return Ok(()),
            Ok((status, body)) => answer = format!("{status} {}", clip(&body)),
            Err(error) => answer = error,
        }
        if signals::stopped() {
            return Err("stopped while the service started".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(format!(
        "{} was not ready on {url} within {:.0} s (last answer: {answer}):\n{}",
        process.name,
        patience.as_secs_f64(),
        tail(log, 15)
    ))
}

fn start_cluster(what: &Start<'_>, instances: u32) -> Result<Service, String> {
    // Which its program takes; said here because it is said better.
    binary(false)?;
    if what.cpus.quota.is_some() {
        return Err("a part of a CPU can only be given to an embedded service".to_owned());
    }
    let log = what.directory.join("server.log");
    let mut command = mortal(Path::new("python3"));
    command.arg(root().join("scripts/lib/cluster.py")).arg("serve");
    command.args(["--instances", &instances.to_string(), "--cpus", &what.cpus.text()]);
    command.arg("--log").arg(&log);
    if let Some(port) = what.port {
        command.args(["--port", &port.to_string()]);
    }
    for (key, value) in what.settings {
        command.args(["--set", &format!("{key}={value}")]);
    }
    shield(&mut command, &root());
    let errors = what.directory.join("cluster.log");
    log_to(&mut command, &errors)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Process::spawn("the cluster", &mut command)?;
    let (to, said) = channel();
    if let Some(out) = process.child().stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if to.send(line).is_err() {
                    break;
                }
            }
        });
    }
    let value = answer_of(&mut process, &said, CLUSTER_READY, &errors)?;
    let ids = |name: &str| -> Vec<u32> {
        value[name]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|v| u32::try_from(v.as_u64()?).ok())
            .collect()
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Service {
        url: text(&value["url"]).ok_or("the cluster does not say its address")?,
        admin_token: text(&value["adminToken"]),
        servers: ids("servers"),
        engines: ids("engines"),
        metrics: value["instances"].as_array().into_iter().flatten().filter_map(text).collect(),
        form: Form::Cluster { process, said, log: errors },
    })
}

/// The next line of JSON that the cluster's program says.
fn answer_of(
    process: &mut Process,
    said: &Receiver<String>,
    patience: Duration,
    log: &Path,
) -> Result<Value, String> {
    let until = Instant::now() + patience;
    loop {
        if let Ok(line) = said.recv_timeout(Duration::from_millis(50)) {
            let value: Value = serde_json::from_str(&line)
                .map_err(|error| format!("the cluster said {line}: {error}"))?;
            return match value["error"].as_str() {
                Some(error) => Err(error.to_owned()),
                None => Ok(value),
            };
        }
        if let Some(ended) = process.ended() {
            return Err(format!("the cluster ended with code {}:\n{}", ended.code, tail(log, 25)));
        }
        if signals::stopped() {
            return Err("stopped while the cluster was waited for".to_owned());
        }
        if Instant::now() > until {
            return Err(format!(
                "the cluster said nothing for {:.0} s:\n{}",
                patience.as_secs_f64(),
                tail(log, 25)
            ));
        }
    }
}

impl Service {
    /// Whether it has ended by itself: says how.
    pub(crate) fn died(&mut self) -> Option<String> {
        match &mut self.form {
            Form::Embedded { process, log, .. } => process.ended().map(|ended| {
                format!(
                    "the service ended with code {} during the run:\n{}",
                    ended.code,
                    tail(log, 15)
                )
            }),
            Form::Cluster { process, log, .. } => {
                if let Some(ended) = process.ended() {
                    return Some(format!(
                        "the cluster ended with code {}:\n{}",
                        ended.code,
                        tail(log, 15)
                    ));
                }
                // A zombie has a stat, too, but no memory.
                let gone = self
                    .servers
                    .iter()
                    .chain(&self.engines)
                    .find(|id| crate::process::memory_bytes(**id, "VmRSS").is_none())?;
                Some(format!(
                    "process {gone} of the cluster has ended during the run:\n{}",
                    tail(log, 15)
                ))
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
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(120)))
            .http_status_as_error(false)
            .build()
            .into();
        let body = serde_json::json!({ "count": count, "format": format, "activated": true, "guessable": true });
        let sent = agent
            .post(format!("{}/admin/v1/tokens", self.url))
            .header("Authorization", format!("Bearer {token}"))
            .send_json(&body);
        let mut answer = sent.map_err(|error| format!("issuing tokens failed: {error}"))?;
        if !answer.status().is_success() {
            let said = answer.body_mut().read_to_string().unwrap_or_default();
            return Err(format!("issuing tokens failed: {}: {}", answer.status(), clip(&said)));
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
            Form::Embedded { process, program, env, data, .. } => {
                let code = process.stop(Signal::TERM, STOP).map(|ended| ended.code);
                if !audit {
                    return (code, none());
                }
                // After its end, so that it reads what really reached the disk.
                let mut command = Command::new(program);
                shield(&mut command, &data.0);
                command.arg("audit").envs(env.iter().map(|(k, v)| (k, v))).stdin(Stdio::null());
                let said =
                    command.output().map_err(|error| format!("cannot run the audit: {error}"));
                let found = said.map(|said| {
                    let text = [said.stdout, said.stderr].concat();
                    Audit {
                        clean: said.status.success(),
                        output: String::from_utf8_lossy(&text).trim().to_owned(),
                    }
                });
                (code, found)
            }
            Form::Cluster { process, said, log, .. } => {
                let asked = process
                    .child()
                    .stdin
                    .as_mut()
                    .map(|to| to.write_all(b"audit\n").and_then(|()| to.flush()));
                let answer = match asked {
                    Some(Ok(())) => answer_of(process, said, CLUSTER_STOP, log),
                    _ => Err("the cluster does not listen any more".to_owned()),
                };
                // The end of its input ends it.
                drop(process.child().stdin.take());
                let _ = process.wait(CLUSTER_STOP);
                match answer {
                    Ok(value) => {
                        let code =
                            value["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
                        let clean = value["clean"].as_bool();
                        let output = value["output"].as_str().unwrap_or_default().to_owned();
                        (
                            code,
                            clean
                                .map(|clean| Audit { clean, output })
                                .ok_or_else(|| "no audit".to_owned()),
                        )
                    }
                    Err(error) => (None, Err(error)),
                }
            }
        }
    }

    /// Copies the data directory.
    pub(crate) fn keep_data(&self, to: &Path) -> Result<(), String> {
        let Form::Embedded { data, .. } = &self.form else { return Ok(()) };
        let from = data.0.join("data");
        let said = Command::new("cp").arg("-a").arg(&from).arg(to).stdin(Stdio::null()).output();
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
        if let Form::Embedded { process, .. } = &mut self.form
            && let Some(ended) = process.ended()
        {
            return ended.cpu_seconds;
        }
        self.servers
            .iter()
            .map(|&id| crate::process::cpu_seconds(id))
            .sum::<Option<f64>>()
            .filter(|_| !self.servers.is_empty())
    }
}

fn audit_at(url: &str, token: &str) -> Result<Audit, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(300)))
        .http_status_as_error(false)
        .build()
        .into();
    let answer = agent
        .get(format!("{url}/admin/v1/audit"))
        .header("Authorization", format!("Bearer {token}"))
        .call();
    let mut answer = answer.map_err(|error| format!("the audit failed: {error}"))?;
    let status = answer.status();
    let text =
        answer.body_mut().read_to_string().map_err(|error| format!("the audit failed: {error}"))?;
    if !status.is_success() {
        return Err(format!("the audit failed: {status}: {}", clip(&text)));
    }
    let value: Value = serde_json::from_str(&text)
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

/// Settings of the caller's shell must not leak into a measurement.
fn shield(command: &mut Command, directory: &Path) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BOXOFFICE_")
            && name != "BOXOFFICE_TEST_POLL_DELAY_MS"
        {
            command.env_remove(name);
        }
    }
    command.current_dir(directory);
}

fn get(url: &str) -> Result<(u16, String), String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(3)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent.get(url).call().map_err(|error| error.to_string())?;
    let text = answer.body_mut().read_to_string().map_err(|error| error.to_string())?;
    Ok((answer.status().as_u16(), text))
}

fn clip(text: &str) -> String {
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_listed_or_shared() {
        let choose = |text: &str| Cpus::choose(text, &[0, 1, 4, 5]);
        for (text, list, count) in [
            ("1", &[0][..], 1.0),
            ("3", &[0, 1, 4], 3.0),
            ("0", &[0], 1.0),
            ("4,1", &[1, 4], 2.0),
            ("4-5", &[4, 5], 2.0),
            ("all", &[0, 1, 4, 5], 4.0),
            ("0.5", &[0], 0.5),
            ("1.5", &[0, 1], 1.5),
            ("2.0", &[0, 1], 2.0),
        ] {
            let cpus = choose(text).unwrap();
            assert_eq!((cpus.list.as_slice(), cpus.count()), (list, count), "{text}");
        }
        for text in [
            "",
            "x",
            "5",
            "4.5",
            "2-3",
            "0.0",
            "-1",
            "1-0",
            "0,2",
            "NaN",
            "inf",
            "1e9",
            "0-99999999999",
        ] {
            assert!(choose(text).is_err(), "{text}");
        }
        assert!(choose("5").unwrap_err().contains("has only 4"));
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert!(
            require_free(port)
                .unwrap_err()
                .contains(&format!("port {port} of 127.0.0.1 is not free"))
        );
        drop(taken);
        require_free(port).unwrap();
    }
}
