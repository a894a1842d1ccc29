//! One process of boxoffice.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cpus::{Cpus, Quota};
use crate::http::{self, Reply, clip, metric_of};
use crate::ports::{free_port, require_free};
use crate::process::{self, Ended, Process, log_to, mortal, mortal_on, tail};
use crate::{signals, tools};

const READY: Duration = Duration::from_secs(20);
const STOP: Duration = Duration::from_secs(20);
const ADMIN: Duration = Duration::from_secs(120);
const COMMAND: Duration = Duration::from_secs(600);

/// What is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Serves {
    /// The service.
    #[default]
    Boxoffice,
    /// The static answers of its example `hello`.
    Hello,
}

/// How an instance is started.
#[derive(Clone, Debug)]
pub struct InstanceOptions {
    /// What it is called: in messages, in metrics of a proxy, and its files in the directory.
    pub label: String,
    /// What it is.
    pub serves: Serves,
    /// The program, where it is not the release build.
    pub program: Option<PathBuf>,
    /// Its port; a free one where none is named.
    pub port: Option<u16>,
    /// Which CPUs it may use, and how much of them.
    pub cpus: Cpus,
    /// Settings by their dotted names.
    pub settings: BTreeMap<String, String>,
    /// A program to start it by, such as one that slows its disk down.
    pub wrap: Vec<String>,
    /// Where its log goes, where that is not the directory.
    pub log: Option<PathBuf>,
    /// What must answer with 200 until it counts as started.
    pub until: &'static str,
}

impl InstanceOptions {
    /// The usual: the release build on a free port and all CPUs, started when it is ready.
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            serves: Serves::Boxoffice,
            program: None,
            port: None,
            cpus: Cpus::all(),
            settings: BTreeMap::new(),
            wrap: Vec::new(),
            log: None,
            until: "/health/ready",
        }
    }

    /// The same with one more setting.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }
}

/// What an audit found.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Whether no invariant is broken.
    pub clean: bool,
    /// What it said.
    pub output: String,
}

/// Commands of the program against an instance, or against what it left. They outlive it.
#[derive(Clone, Debug)]
pub struct Commands {
    program: PathBuf,
    directory: PathBuf,
    env: Vec<(String, String)>,
}

impl Commands {
    /// A command, to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = mortal(&self.program);
        shield(&mut command, &self.directory);
        command.args(arguments).envs(self.env.iter().map(|(key, value)| (key, value)));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<process::Said, String> {
        process::run(self.command(arguments), b"", COMMAND)
    }

    /// Runs `boxoffice audit`, on the running service or on what it left.
    pub fn audit(&self) -> Result<Audit, String> {
        let said = self.run(&["audit"])?;
        Ok(Audit { clean: said.status.success(), output: said.text() })
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }
}

/// A running instance. It is asked to end when it is dropped.
#[derive(Debug)]
pub struct Instance {
    /// What it is called.
    pub label: String,
    /// Where it listens.
    pub port: u16,
    /// The same as a URL.
    pub url: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Where it logs.
    pub log: PathBuf,
    /// From the start of the process to the first 200.
    pub ready_after: Duration,
    commands: Commands,
    process: Process,
    _quota: Option<Quota>,
}

impl Instance {
    /// Starts one with data and log in a directory, and waits until it is ready.
    pub fn start(directory: &Path, options: &InstanceOptions) -> Result<Self, String> {
        let program = match (&options.program, options.serves) {
            (Some(path), Serves::Boxoffice) => {
                path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?
            }
            (None, Serves::Boxoffice) => tools::boxoffice()?,
            (_, Serves::Hello) => tools::example("hello")?,
        };
        let port = options.port.map_or_else(free_port, Ok)?;
        require_free(port)?;
        let address = format!("127.0.0.1:{port}");
        let url = format!("http://{address}");
        let label = options.label.clone();
        let data = directory.join(format!("{label}-data"));
        let log = options.log.clone().unwrap_or_else(|| directory.join(format!("{label}.log")));
        // This is also how the commands (token, audit) find the service and its data.
        let mut env = vec![
            ("BOXOFFICE_SERVER__LISTEN".to_owned(), address.clone()),
            ("BOXOFFICE_DATA_DIR".to_owned(), data.display().to_string()),
        ];
        for (key, value) in &options.settings {
            let name = key.to_uppercase().replace('.', "__");
            env.push((format!("BOXOFFICE_{name}"), value.clone()));
        }
        let mut command = match (options.wrap.split_first(), options.serves) {
            (Some((first, rest)), Serves::Boxoffice) => {
                let mut command = mortal_on(&options.cpus.list, Path::new(first));
                command.args(rest).arg(&program);
                command
            }
            _ => mortal_on(&options.cpus.list, &program),
        };
        match options.serves {
            Serves::Boxoffice => {
                command.args(["serve", "--listen", &address, "--data-dir"]).arg(&data);
            }
            Serves::Hello => {
                command.args(["--listen", &address]);
            }
        }
        shield(&mut command, directory);
        command.envs(env.iter().map(|(key, value)| (key, value)));
        log_to(&mut command, &log)?;
        let began = Instant::now();
        let process = Process::spawn(&label, command)?;
        let quota = options.cpus.quota.map(|quota| Quota::impose(quota, &[process.id()]));
        let quota = quota.transpose()?;
        let mut instance = Self {
            label,
            port,
            url,
            data,
            log,
            ready_after: Duration::ZERO,
            commands: Commands { program, directory: directory.to_owned(), env },
            process,
            _quota: quota,
        };
        let until = match options.serves {
            Serves::Boxoffice => options.until,
            Serves::Hello => "/hello",
        };
        // Held to a tenth of a CPU it also starts ten times slower.
        let patience = READY.mul_f64((1.0 / options.cpus.count()).clamp(1.0, 10.0));
        instance.wait_until_ready(until, patience)?;
        instance.ready_after = began.elapsed();
        Ok(instance)
    }

    fn wait_until_ready(&mut self, path: &str, patience: Duration) -> Result<(), String> {
        let url = format!("{}{path}", self.url);
        let until = Instant::now() + patience;
        let mut answer = "no answer".to_owned();
        while Instant::now() < until {
            if let Some(ended) = self.process.ended() {
                return Err(format!(
                    "{} ended with code {} before it was ready:\n{}",
                    self.label,
                    ended.code,
                    self.log_tail(15)
                ));
            }
            match http::get(&url) {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => answer = format!("{} {}", reply.status, clip(&reply.body)),
                Err(error) => answer = error,
            }
            if signals::stopped() {
                return Err(format!("stopped while {} started", self.label));
            }
            // Soon again: how long a start takes is measured.
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!(
            "{} was not ready on {url} within {:.0} s (last answer: {answer}):\n{}",
            self.label,
            patience.as_secs_f64(),
            self.log_tail(15)
        ))
    }

    /// The end of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Sends one request.
    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        http::request(method, &format!("{}{path}", self.url), headers, body, ADMIN)
    }

    /// The token of its administrator, as it wrote it to its data directory.
    pub fn admin_token(&self) -> Result<String, String> {
        let path = self.data.join("admin.token");
        let text = fs::read_to_string(&path);
        text.map(|text| text.trim().to_owned()).map_err(|error| {
            format!("{} wrote no admin token to {}: {error}", self.label, path.display())
        })
    }

    /// Sends a request of an administrator, whose answer must be a success.
    pub fn admin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let bearer = format!("Bearer {}", self.admin_token()?);
        let reply = self.request(method, path, &[("Authorization", &bearer)], body)?;
        if !(200..300).contains(&reply.status) {
            return Err(format!(
                "{method} {path} on {}: {}: {}",
                self.label,
                reply.status,
                clip(&reply.body)
            ));
        }
        reply.json()
    }

    /// Commands of the program against this instance.
    pub const fn commands(&self) -> &Commands {
        &self.commands
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<process::Said, String> {
        self.commands.run(arguments)
    }

    /// Runs `boxoffice audit`, on the running service or on what it left.
    pub fn audit(&self) -> Result<Audit, String> {
        self.commands.audit()
    }

    /// Issues activated tokens, whose names `{n}` in the format makes unique.
    pub fn issue_tokens(&self, count: u32, format: &str) -> Result<(), String> {
        let body = serde_json::json!({
            "count": count, "format": format, "activated": true, "guessable": true,
        });
        self.admin("POST", "/admin/v1/tokens", Some(&body)).map(drop)
    }

    /// Returns the text of `/metrics`.
    pub fn metrics(&self) -> Result<String, String> {
        let reply = http::get(&format!("{}/metrics", self.url))?;
        match reply.status {
            200 => Ok(reply.body),
            status => Err(format!("/metrics of {}: {status}", self.label)),
        }
    }

    /// Returns the sum of a metric over those of its labels that contain `label`; none where there is none.
    pub fn metric(&self, name: &str, label: &str) -> Result<Option<f64>, String> {
        Ok(metric_of(&self.metrics()?, name, label))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        self.process.ended()
    }

    /// CPU seconds of the process, also after its end.
    pub fn cpu_seconds(&mut self) -> Option<f64> {
        match self.process.ended() {
            Some(ended) => ended.cpu_seconds,
            None => process::cpu_seconds(self.id()),
        }
    }

    /// `VmRSS` or `VmHWM` of the process.
    pub fn memory_bytes(&self, field: &str) -> Option<u64> {
        process::memory_bytes(self.id(), field)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to end and waits; returns its exit code. It is killed where it does not end in time.
    pub fn stop(&mut self) -> i32 {
        self.process.stop(Signal::TERM, STOP).map_or(-9, |ended| ended.code)
    }
}

/// Keeps the settings of the caller's shell away from a child, and its configuration, too: the working
/// directory is another one.
pub fn shield(command: &mut Command, directory: &Path) {
    for (name, _) in std::env::vars_os() {
        // The switch of a debug build, for a regression that a test of load tests plants.
        if name.to_string_lossy().starts_with("BOXOFFICE_")
            && name != "BOXOFFICE_TEST_POLL_DELAY_MS"
        {
            command.env_remove(name);
        }
    }
    command.current_dir(directory);
}
