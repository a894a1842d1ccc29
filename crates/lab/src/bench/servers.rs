//! The servers that are measured: started when they are first needed, since idle ones cost nothing; and what is
//! asked of them apart from load.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::http::{Reply, clip};
use testbed::instance::Serves;
use testbed::{Cluster, Cpus, Instance, InstanceOptions, Nginx, RedisServer};

use super::wrk::{Env, Order, Wrk};
use super::{BUYERS, Bench, QUEUE_PATH, SEATS_PER_RESERVATION, SERVER_CPU, SMALL_CROWD, pause};
use crate::progress::Progress;
use crate::report::{grouped, in_days};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

/// What runs.
#[derive(Debug)]
pub(super) enum Program {
    /// The service, or its example with static answers.
    Instance(Instance, Serves),
    Nginx(Nginx),
    /// One instance of a cluster: it is asked, not the proxy before it.
    Cluster(Box<Cluster>),
}

/// A server by its name.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: String,
    program: Program,
    /// The concert of the benchmark, once there is one.
    concert: Option<i64>,
}

impl Server {
    pub(super) fn url(&self) -> String {
        match &self.program {
            Program::Instance(instance, _) => instance.url.clone(),
            Program::Nginx(nginx) => format!("http://127.0.0.1:{}", nginx.port),
            Program::Cluster(_) => self.instance().map(|one| one.url.clone()).unwrap_or_default(),
        }
    }

    /// Where it listens.
    pub(super) fn address(&self) -> String {
        self.url().trim_start_matches("http://").to_owned()
    }

    /// Its process id.
    pub(super) fn id(&self) -> Result<u32, String> {
        match &self.program {
            Program::Instance(instance, _) => Ok(instance.id()),
            Program::Nginx(nginx) => nginx.engine.id().ok_or_else(|| self.died()),
            Program::Cluster(_) => Ok(self.instance()?.id()),
        }
    }

    pub(super) fn is_running(&self) -> bool {
        match &self.program {
            Program::Instance(instance, _) => instance.is_running(),
            Program::Nginx(nginx) => nginx.engine.is_running(),
            Program::Cluster(_) => self.instance().is_ok_and(Instance::is_running),
        }
    }

    /// What to say where it does not run any more.
    pub(super) fn died(&self) -> String {
        format!("{} died:\n{}", self.name, self.log_tail())
    }

    pub(super) fn log_tail(&self) -> String {
        match &self.program {
            Program::Instance(instance, _) => instance.log_tail(15),
            Program::Nginx(nginx) => testbed::process::tail(nginx.engine.log(), 15),
            Program::Cluster(_) => {
                self.instance().map_or_else(|error| error, |instance| instance.log_tail(15))
            }
        }
    }

    /// The instance of the service.
    pub(super) fn instance(&self) -> Result<&Instance, String> {
        let none = || format!("{} has no instance of the service", self.name);
        match &self.program {
            Program::Instance(instance, _) => Ok(instance),
            Program::Nginx(_) => Err(none()),
            Program::Cluster(cluster) => cluster.instances.first().ok_or_else(none),
        }
    }

    /// The engines of the instance, where it has some.
    pub(super) fn cluster(&self) -> Option<&Cluster> {
        match &self.program {
            Program::Cluster(cluster) => Some(cluster),
            Program::Instance(..) | Program::Nginx(_) => None,
        }
    }

    /// Redis of the instance.
    pub(super) fn redis(&self) -> Result<&RedisServer, String> {
        let found = self.cluster().and_then(|cluster| cluster.redis.servers().into_iter().next());
        found.ok_or_else(|| format!("{} has no Redis", self.name))
    }

    /// CPU seconds of it so far.
    pub(super) fn cpu_time(&self) -> Result<testbed::process::CpuTime, String> {
        testbed::process::CpuTime::of(self.id()?).ok_or_else(|| self.died())
    }

    pub(super) fn rss_bytes(&self) -> Result<u64, String> {
        self.instance()?.memory_bytes("VmRSS").ok_or_else(|| self.died())
    }

    /// Sends one request.
    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        self.instance()?.request(method, path, headers, body)
    }

    /// Sends one request whose status must be one of these. Returns the answer.
    pub(super) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
        expect: &[u16],
    ) -> Result<Value, String> {
        let reply = self.request(method, path, headers, body)?;
        if expect.contains(&reply.status) {
            return reply.json();
        }
        Err(format!(
            "{method} {path} on {}: {} instead of {expect:?}: {}",
            self.name,
            reply.status,
            clip(&reply.body)
        ))
    }

    pub(super) fn admin(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        self.instance()?.admin(method, path, Some(body))
    }

    /// The sum of a metric over those labels that contain `label`.
    pub(super) fn metric(&self, name: &str, label: &str) -> Result<Option<f64>, String> {
        self.instance()?.metric(name, label)
    }

    /// Issues activated tokens, `{n}` in their format being the number.
    pub(super) fn issue_tokens(&self, count: u32, format: &str) -> Result<(), String> {
        self.instance()?.issue_tokens(count, format)
    }

    /// Tokens of users who have just joined.
    pub(super) fn join(&self, count: u32) -> Result<Vec<String>, String> {
        (0..count).map(|n| self.join_as(&json!({"userId": n % 1000 + 1}), &[], &[201])).collect()
    }

    /// The token of somebody who joins.
    pub(super) fn join_as(
        &self,
        body: &Value,
        headers: &[(&str, &str)],
        expect: &[u16],
    ) -> Result<String, String> {
        let joined = self.call("POST", QUEUE_PATH, headers, Some(body), expect)?;
        joined["token"].as_str().map(str::to_owned).ok_or_else(|| "a join without token".to_owned())
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> Result<u64, String> {
        let queue = self.call("GET", &format!("{QUEUE_PATH}/main"), &[], None, &[200])?;
        queue["waiting"].as_u64().ok_or_else(|| "a queue without `waiting`".to_owned())
    }

    /// The concert of the benchmark.
    pub(super) fn concert(&self) -> Result<i64, String> {
        self.concert.ok_or_else(|| format!("{} has no concert of the benchmark", self.name))
    }
}

/// A session and its seats, whose ids follow one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) id: i64,
    pub(super) first_seat: i64,
    pub(super) seats: u32,
}

impl Session {
    /// As `reserve.lua` has it.
    fn text(self) -> String {
        format!("{}:{}:{}", self.id, self.first_seat, self.seats)
    }
}

/// Settings by their dotted names.
pub(super) type Settings = BTreeMap<String, String>;

/// Makes settings of pairs.
pub(super) fn settings<const N: usize>(pairs: [(&str, String); N]) -> Settings {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

/// A benchmark outlives the five minutes of a hold and of an admission; nothing may run out meanwhile.
pub(super) fn lasting() -> Settings {
    settings([
        ("queue.active_ttl_seconds", "86400".to_owned()),
        ("sales.hold_seconds", "86400".to_owned()),
        ("sales.live_holds_max", "100000".to_owned()),
        ("sales.holds_per_ticket_max", "100000".to_owned()),
    ])
}

impl Bench {
    pub(super) fn at(&self, id: Id) -> &Server {
        &self.servers[id.0]
    }

    pub(super) fn add_server(&mut self, name: &str, program: Program) -> Id {
        self.servers.push(Server { name: name.to_owned(), program, concert: None });
        Id(self.servers.len() - 1)
    }

    pub(super) fn found(&self, name: &str) -> Option<Id> {
        self.servers.iter().position(|server| server.name == name).map(Id)
    }

    /// Starts an instance on the CPU of the server, where admission goes on.
    pub(super) fn start(
        &mut self,
        name: &str,
        serves: Serves,
        program: Option<PathBuf>,
        further: Settings,
        cpus: Cpus,
    ) -> Result<Id, String> {
        let mut options = InstanceOptions::new(name);
        (options.serves, options.program) = (serves, program);
        (options.settings, options.cpus) = (further, cpus);
        let instance = Instance::start(self.work.path(), &options)?;
        let program = Program::Instance(instance, serves);
        if let Some(id) = self.found(name) {
            // Started again.
            self.servers[id.0].program = program;
            return Ok(id);
        }
        Ok(self.add_server(name, program))
    }

    /// The server of static answers.
    pub(super) fn hello(&mut self) -> Result<Id, String> {
        match self.found("hello") {
            Some(id) => Ok(id),
            None => self.start("hello", Serves::Hello, None, Settings::new(), server_cpu()),
        }
    }

    /// The server of that name, with further settings.
    pub(super) fn server(
        &mut self,
        name: &str,
        build: Option<PathBuf>,
        further: Settings,
    ) -> Result<Id, String> {
        if let Some(id) = self.found(name) {
            return Ok(id);
        }
        let mut all = lasting();
        all.extend(further);
        let id = self.start(name, Serves::Boxoffice, build, all, server_cpu())?;
        // Nobody is let in: who waits goes on waiting, and the crowd stays what it is.
        self.pause_admission(id)?;
        Ok(id)
    }

    /// The server of that name, with the small crowd, and buyers that were let in beforehand.
    pub(super) fn filled_server(
        &mut self,
        name: &str,
        build: Option<PathBuf>,
    ) -> Result<Id, String> {
        let fresh = self.found(name).is_none();
        let id = self.server(name, build, Settings::new())?;
        if fresh {
            self.populate(id)?;
        }
        Ok(id)
    }

    /// Lets the small crowd join, and buyers in.
    pub(super) fn populate(&self, id: Id) -> Result<(), String> {
        self.fill(id, SMALL_CROWD)?;
        self.at(id).issue_tokens(BUYERS, "bench_{n}")
    }

    pub(super) fn pause_admission(&self, id: Id) -> Result<(), String> {
        self.at(id).admin("POST", "/admin/v1/queues/main/pause", &json!({})).map(drop)
    }

    /// Starts it again on the data that it has, on all CPUs. Returns how long that took.
    pub(super) fn restart(&mut self, id: Id, further: Settings) -> Result<Duration, String> {
        let Server { name, program, .. } = &mut self.servers[id.0];
        let name = name.clone();
        let Program::Instance(instance, serves) = program else {
            return Err(format!("{name} cannot be started again"));
        };
        let serves = *serves;
        instance.stop();
        let id = self.start(&name, serves, None, further, Cpus::all())?;
        Ok(self.at(id).instance()?.ready_after)
    }

    /// Makes a session of the benchmark's own concert.
    pub(super) fn new_session(
        &mut self,
        id: Id,
        seats: u32,
        price: u32,
    ) -> Result<Session, String> {
        let server = &mut self.servers[id.0];
        if server.concert.is_none() {
            let body = json!({
                "name": "Benchmark",
                "venue": "Machine room",
                "reservationOpensAt": in_days(-1),
                "reservationClosesAt": in_days(30),
            });
            let made = server.admin("POST", "/admin/v1/concerts", &body)?;
            server.concert = made["concertId"].as_i64();
        }
        let path = format!("/admin/v1/concerts/{}/sessions", server.concert()?);
        let body = json!({"concertAt": in_days(60), "seatCount": seats, "price": price});
        let made = server.admin("POST", &path, &body)?;
        let number =
            |name: &str| made[name].as_i64().ok_or_else(|| format!("a session without {name}"));
        Ok(Session { id: number("sessionId")?, first_seat: number("firstSeatId")?, seats })
    }

    /// What `reserve.lua` needs to know to buy those sessions.
    pub(super) fn reserve_env(
        &self,
        id: Id,
        sessions: &[Session],
        buyers: u32,
    ) -> Result<Env, String> {
        let sessions: Vec<String> = sessions.iter().map(|session| session.text()).collect();
        Ok(vec![
            ("WRK_CONCERT", self.at(id).concert()?.to_string()),
            ("WRK_SESSIONS", sessions.join(",")),
            ("WRK_SEATS_PER_REQUEST", SEATS_PER_RESERVATION.to_string()),
            ("WRK_BUYERS", buyers.to_string()),
        ])
    }

    /// Writes a file with a token in each line. Returns where it is.
    pub(super) fn token_file(&self, name: &str, tokens: &[String]) -> Result<String, String> {
        let path = self.work.path().join(format!("{name}.tokens"));
        let text: String = tokens.iter().map(|token| format!("{token}\n")).collect();
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// Lets users join until so many wait. Returns how many joined.
    pub(super) fn fill(&self, id: Id, target: u64) -> Result<u64, String> {
        let server = self.at(id);
        let before = server.waiting()?;
        if before >= target {
            return Ok(0);
        }
        let order = Order::endless(QUEUE_PATH, self.options.connections, "join.lua", &[]);
        let run = Wrk::start(&self.wrk, server, &order)?;
        let mut progress = Progress::new(15.0);
        let began = Instant::now();
        let mut waiting = before;
        while waiting < target && run.child.is_running() && server.is_running() {
            pause(if target <= SMALL_CROWD { 0.02 } else { 0.3 })?;
            waiting = server.waiting()?;
            let rate = (waiting - before) as f64 / began.elapsed().as_secs_f64();
            let left = target.saturating_sub(waiting) as f64 / rate;
            progress.show(format!(
                "{} of {} wait ({rate:.0} joins/s, {left:.0} s to go)",
                grouped(waiting),
                grouped(target)
            ));
        }
        run.interrupt();
        progress.clear();
        let sample = run.result(server)?;
        if sample.not_ok + sample.socket_errors > 0 {
            return Err(format!(
                "{} joins were refused and {} failed while the queue was filled to {}; the figures would mean nothing",
                sample.not_ok,
                sample.socket_errors,
                grouped(target)
            ));
        }
        // The public document may be a second old.
        pause(1.2)?;
        Ok(server.waiting()?.saturating_sub(before))
    }

    /// Stops them all, in the order in which they were started, and audits what they leave.
    pub(super) fn stop_all(&mut self) -> Result<(), String> {
        for server in &mut self.servers {
            let name = &server.name;
            let (code, audit) = match &mut server.program {
                Program::Nginx(nginx) => {
                    nginx.engine.stop();
                    continue;
                }
                Program::Instance(instance, Serves::Hello) => {
                    instance.stop();
                    continue;
                }
                Program::Instance(instance, Serves::Boxoffice) => {
                    (instance.stop(), instance.audit()?)
                }
                Program::Cluster(cluster) => (cluster.stop(), cluster.audit()?),
            };
            if !audit.clean {
                let wrong = what_is_wrong(&audit.output);
                self.problems.push(format!("{name}: the audit is not clean: {wrong}"));
            }
            if code != 0 {
                self.problems.push(format!("{name}: ended with code {code} on SIGTERM"));
            }
        }
        self.servers.clear();
        Ok(())
    }
}

/// Of what is in order nothing, and the last line, which sums up.
fn what_is_wrong(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    let Some((last, lines)) = lines.split_last() else { return String::new() };
    let wrong = lines.iter().filter(|line| !line.contains(" ok ")).chain([last]);
    let words: Vec<&str> = wrong.flat_map(|line| line.split_whitespace()).collect();
    words.join(" ").chars().take(500).collect()
}

/// The CPU of the server.
pub(super) fn server_cpu() -> Cpus {
    Cpus { list: vec![SERVER_CPU], quota: None }
}

#[cfg(test)]
pub(super) const fn first_id() -> Id {
    Id(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_audit_what_is_in_order_is_left_out() {
        let output = "I1 ok  no seat has two owners\nI4 BROKEN  2  points\nKafka:   3 records\n";
        assert_eq!(what_is_wrong(output), "I4 BROKEN 2 points Kafka: 3 records");
        assert_eq!(what_is_wrong(""), "");
    }

    #[test]
    fn a_session_is_told_as_scripts_read_it() {
        assert_eq!(Session { id: 7, first_seat: 1001, seats: 50 }.text(), "7:1001:50");
    }
}
