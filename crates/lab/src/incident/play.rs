//! One incident: the stage, the load, what breaks, and what is done about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::cpus::Quota;
use testbed::mariadb::BINARY_LOG;
use testbed::process::{log_to, mortal};
use testbed::prometheus::Scraping;
use testbed::{
    Alertmanager, ClusterOptions, Instance, InstanceOptions, MariaDb, Mode, Process, Prometheus,
    Redis, RedisServer, Webhook, signals, tools,
};

use super::crowd::{Crowd, Order};
use super::plan::{Answer, Cause, FAR, Incident, SLOW, Stage};
use super::shipped::{self, Hook};
use super::story::{Event, Moment, Request, Seen, Story};
use super::watch::{Ports, Watch};
use crate::clock;
use crate::load::{FIRST_USER, LINE};
use crate::progress::Progress;
use crate::report::in_days;
use crate::scene::{Scene, settings};
use crate::witness::Seconds;

/// Until the load is on.
const WARM_UP_S: Seconds = 6.0;
/// Quiet times, which the others are compared with.
const CALM_S: Seconds = 20.0;
/// The same where the governor answers: it learns in quiet times how often people ask, in about four times the time
/// that they take to act.
const CALM_TO_LEARN_S: Seconds = 35.0;
/// What the load sells: more than it buys.
const SEATS_OF_LOAD: i64 = 12_000;
/// Users of k6 have these numbers or higher ones, in load/k6/incident.js.
const K6_USERS: i64 = 5_000_000;
const CALM_QUICK_S: Seconds = 6.0;
const AFTER_QUICK_S: Seconds = 12.0;
/// What k6 sells.
const SEATS: i64 = 20_000;
/// The same where lists of them are asked for by the thousand, so that it is not k6 that gives out.
const FEW_SEATS: i64 = 1_000;
/// Nearly as many as the fans of the load and of k6, so that the line moves and does not end.
const ADMIT_PER_SECOND: u32 = 60;
/// So few are inside that nobody takes a flood of seat lists for theirs.
const ADMIT_FEW_PER_SECOND: u32 = 20;
/// Connections of the database; instances use fewer.
const CONNECTIONS: u32 = 150;

/// Options of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options<'a> {
    /// Whether what answers is switched on.
    pub(crate) answered: bool,
    /// Whether quiet times are short.
    pub(crate) quick: bool,
    /// Where logs and data go.
    pub(crate) directory: &'a Path,
}

/// What it happens to.
#[derive(Debug)]
enum Ground {
    Cluster(Box<Scene>),
    Alone(Box<Alone>),
}

/// One process on a disk of its own.
// In the order in which they are dropped.
#[derive(Debug)]
struct Alone {
    instance: Instance,
    disk: Disk,
}

/// A small disk in memory, mounted as long as this lives.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf, megabytes: u32) -> Result<Self, String> {
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let size = format!("size={megabytes}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&path))?;
        Ok(Self(path))
    }

    /// Leaves no room on it.
    fn fill(&self) -> Result<(), String> {
        let block = vec![0_u8; 1 << 16];
        let path = self.0.join("filler");
        let mut file =
            std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<(), String> {
        let path = self.0.join("filler");
        std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still uses it keeps it until they end.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let said = command.stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("{name} does not start: {error}"))?;
    match said.status.success() {
        true => Ok(()),
        false => Err(format!("{name}: {}", String::from_utf8_lossy(&said.stderr).trim())),
    }
}

/// The hook behind Alertmanager, and how it asks us for instances.
#[derive(Debug)]
struct Scaler {
    directory: PathBuf,
    /// Where Alertmanager calls it, and the token that it shows.
    url: String,
    token_file: PathBuf,
    _receiver: Process,
}

impl Scaler {
    /// Starts the shipped receiver with a command that writes down how many instances are wanted.
    fn start(directory: &Path, running: usize, most: usize) -> Result<Self, String> {
        let directory = directory.join("scale-out");
        let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
        std::fs::create_dir_all(&directory).map_err(failed)?;
        let script = directory.join("instances");
        std::fs::write(&script, COMMAND).map_err(failed)?;
        run(Command::new("chmod").arg("+x").arg(&script))?;
        let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(40).collect();
        let token_file = directory.join("token");
        std::fs::write(&token_file, &token).map_err(failed)?;
        let port = testbed::free_port()?;
        let mut command = mortal(&tools::root().join("deploy/scale-out/serve"));
        command
            .env("SCALE_OUT_LISTEN", format!("127.0.0.1:{port}"))
            .env("SCALE_OUT_TOKEN_FILE", &token_file)
            .env("SCALE_OUT_COMMAND", &script)
            .env("SCALE_OUT_STATE", directory.join("state"))
            .env("SCALE_OUT_MAX", most.to_string());
        log_to(&mut command, &directory.join("receiver.log"))?;
        let url = format!("http://127.0.0.1:{port}/hooks/scale-out");
        let receiver = Process::spawn("the hook", command)?;
        let scaler = Self { directory, url, token_file, _receiver: receiver };
        scaler.tell(running)?;
        Ok(scaler)
    }

    /// How many instances run.
    fn tell(&self, running: usize) -> Result<(), String> {
        let path = self.directory.join("running");
        std::fs::write(&path, running.to_string())
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// How many the hook wants.
    fn wanted(&self) -> Option<usize> {
        std::fs::read_to_string(self.directory.join("wanted")).ok()?.trim().parse().ok()
    }
}

/// Waits until as many run as are wanted.
const COMMAND: &str = r#"#!/bin/sh
here="$(dirname "$0")"
case "$1" in
    count) cat "$here/running" ;;
    to)
        echo "$2" >"$here/wanted"
        for _ in $(seq 600); do
            [ "$(cat "$here/running")" -ge "$2" ] && exit 0
            sleep 0.1
        done
        echo "nobody has started it" >&2
        exit 1
        ;;
esac
"#;

/// An incident under way.
// In the order in which it is dropped: who asks before who is asked.
struct Play<'a> {
    incident: &'a Incident,
    answered: bool,
    calm_s: Seconds,
    after_s: Seconds,
    progress: Progress,
    crowd: Option<Crowd>,
    watch: Watch,
    scaler: Option<Scaler>,
    _prometheus: Prometheus,
    _alertmanager: Alertmanager,
    webhook: Webhook,
    heard: usize,
    /// What connects from outside, and whoever holds locks.
    outsiders: Vec<Process>,
    ground: Ground,
    /// Instances that are held to a part of a CPU.
    held: Vec<(u32, Quota)>,
    /// Of the database, for an administrator alone.
    door: Option<u16>,
    replica: Option<MariaDb>,
    seen: Seen,
    directory: PathBuf,
}

/// Plays an incident. What was seen is told also where it was broken off.
pub(crate) fn play(incident: &Incident, options: Options<'_>) -> Result<Story, String> {
    eprintln!("{}: setting the stage …", incident.name);
    let mut play = Play::prepare(incident, options)?;
    let done = play.go();
    play.progress.clear();
    if done.is_err() {
        play.seen.ends = clock::now();
        if play.seen.fault == 0.0 {
            play.seen.fault = play.seen.ends;
        }
        if play.seen.fault_ends == 0.0 {
            play.seen.fault_ends = play.seen.ends;
        }
        // What was seen so far is told; the books are not held against it.
        play.gather(false)?;
    }
    let mut story = play.seen.story(incident);
    story.answered = options.answered;
    story.instances = instances_of(incident);
    story.broken_off = done.err();
    Ok(story)
}

const fn instances_of(incident: &Incident) -> usize {
    match (incident.stage, incident.cause) {
        (Stage::Embedded { .. }, _) => 1,
        (_, Cause::Crowd(_) | Cause::Holds(_)) => 2,
        (Stage::Cluster { .. }, _) => 3,
    }
}

fn cluster_options(incident: &Incident, answered: bool) -> ClusterOptions {
    let mut options = ClusterOptions::new(incident.name, instances_of(incident));
    let admit_per_second = match incident.cause {
        Cause::Reads(_) => ADMIT_FEW_PER_SECOND,
        _ => ADMIT_PER_SECOND,
    };
    let own = settings(admit_per_second).map(|(name, value)| (name.to_owned(), value));
    options.settings = own.into();
    let mut set = |name: &str, value: &str| {
        options.settings.insert(name.to_owned(), value.to_owned());
    };
    // Who comes from this machine is everybody.
    set("server.join_rate.per_second", "0");
    set("queue.stock", "off");
    match incident.answer {
        Answer::Governor if !answered => set("queue.governor", "off"),
        Answer::Shedding => {
            set("server.concurrency.reservation", if answered { "8" } else { "100000" });
        }
        _ => {}
    }
    options.proxy_lines = vec!["http-response set-header x-instance %s".to_owned()];
    options.spare = match incident.cause {
        Cause::Crowd(_) => 2,
        Cause::Rolling => 1,
        _ => 0,
    };
    if let Stage::Cluster { redis, database_proxy, replica, .. } = incident.stage {
        options.redis = redis;
        options.database_proxy = database_proxy;
        options.database_options = vec![format!("--max-connections={CONNECTIONS}")];
        if replica {
            options.database_options.extend(BINARY_LOG.map(str::to_owned));
        }
    }
    options
}

impl<'a> Play<'a> {
    fn prepare(incident: &'a Incident, options: Options<'_>) -> Result<Self, String> {
        let Options { answered, quick, directory } = options;
        let mut replica = None;
        let door = match incident.cause {
            Cause::Connections => Some(testbed::free_port()?),
            _ => None,
        };
        let ground = match incident.stage {
            Stage::Embedded { disk_mb } => {
                let disk = Disk::mount(directory.join("disk"), disk_mb)?;
                let mut own = InstanceOptions::new("alone")
                    .set("demo.seed", "false")
                    .set("queue.admit_per_second", &ADMIT_PER_SECOND.to_string())
                    .set("server.join_rate.per_second", "0");
                own.log = Some(directory.join("alone.log"));
                let instance = Instance::start(&disk.0, &own)?;
                Ground::Alone(Box::new(Alone { instance, disk }))
            }
            Stage::Cluster { replica: wanted, .. } => {
                let mut cluster = cluster_options(incident, answered);
                if let Some(port) = door {
                    cluster.database_options.push(format!("--extra-port={port}"));
                    cluster.database_options.push("--extra-max-connections=4".to_owned());
                }
                let mut scene = Scene::start(directory, &cluster)?;
                if wanted && answered {
                    replica = Some(follow(&mut scene, directory)?);
                }
                if let (Cause::Holds(_), Some(proxy)) =
                    (incident.cause, &scene.cluster.database_proxy)
                {
                    proxy.set(FAR);
                }
                Ground::Cluster(Box::new(scene))
            }
        };
        let ports: Ports = match &ground {
            Ground::Cluster(scene) => scene.cluster.slots.clone(),
            Ground::Alone(alone) => vec![(alone.instance.label.clone(), alone.instance.port)],
        };
        let running: Vec<String> = match &ground {
            Ground::Cluster(scene) => {
                scene.cluster.instances.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect()
            }
            Ground::Alone(alone) => vec![format!("127.0.0.1:{}", alone.instance.port)],
        };
        let webhook = Webhook::start()?;
        let scaler = match incident.answer {
            Answer::Hook if answered => Some(Scaler::start(directory, running.len(), ports.len())?),
            _ => None,
        };
        let hook = scaler.as_ref().map(|it| Hook { url: &it.url, token: &it.token_file });
        let configuration = shipped::alertmanager(&webhook.url(), hook.as_ref())?;
        let alertmanager =
            Alertmanager::start(&directory.join("alertmanager"), &configuration, &[])?;
        let rules = tools::root().join("deploy/prometheus/rules");
        let scraping = Scraping {
            targets: &running,
            rules: &rules,
            every: shipped::scrape_interval()?,
            alertmanager: Some(alertmanager.port),
        };
        let prometheus = Prometheus::start(&directory.join("prometheus"), &scraping, &[])?;
        Ok(Self {
            incident,
            answered,
            calm_s: match incident.answer {
                _ if quick => CALM_QUICK_S,
                Answer::Governor => CALM_TO_LEARN_S,
                _ => CALM_S,
            },
            after_s: if quick { AFTER_QUICK_S } else { incident.after },
            progress: Progress::new(10.0),
            crowd: None,
            watch: Watch::start(ports),
            scaler,
            _prometheus: prometheus,
            _alertmanager: alertmanager,
            webhook,
            heard: 0,
            outsiders: Vec::new(),
            held: Vec::new(),
            door,
            ground,
            replica,
            seen: Seen::default(),
            directory: directory.to_owned(),
        })
    }

    fn scene(&mut self) -> Result<&mut Scene, String> {
        match &mut self.ground {
            Ground::Cluster(scene) => Ok(scene),
            Ground::Alone(_) => Err("this incident needs a cluster".to_owned()),
        }
    }

    fn host(&self) -> String {
        match &self.ground {
            Ground::Cluster(scene) => scene.cluster.url(),
            Ground::Alone(alone) => alone.instance.url.clone(),
        }
    }

    fn operator(&self) -> Result<&Instance, String> {
        match &self.ground {
            Ground::Cluster(scene) => scene.cluster.instances.first().ok_or("nobody runs".into()),
            Ground::Alone(alone) => Ok(&alone.instance),
        }
    }

    // ---- the course

    fn go(&mut self) -> Result<(), String> {
        let order = self.order()?;
        if let Ground::Cluster(scene) = &mut self.ground {
            scene.load.state().told.ours = Some(FIRST_USER..K6_USERS);
            scene.new_session(1, SEATS_OF_LOAD)?;
            scene.load.top_up(LINE);
        }
        self.wait(2.0, "opening")?;
        let began = clock::now();
        self.crowd = Some(Crowd::start(&self.directory, &order)?);
        if let Ground::Cluster(scene) = &mut self.ground {
            scene.load.begin();
        }
        self.wait(WARM_UP_S, "warming up")?;
        self.seen.calm_from = clock::now();
        let selects_before = self.selects();
        let until = began + WARM_UP_S + self.calm_s;
        self.wait((until - clock::now()).max(0.0), "quiet times")?;
        let selects_then = self.selects();
        self.seen.fault = clock::now();
        self.cause()?;
        self.seen.fault_ends = clock::now();
        self.moment(Event::FaultEnds);
        if let (Some(before), Some(then), Some(now)) =
            (selects_before, selects_then, self.selects())
        {
            // Beside what the sale asks for all the time.
            let usual = (then - before) / (self.seen.fault - self.seen.calm_from);
            let usual = usual * (self.seen.fault_ends - self.seen.fault);
            self.seen.primary_reads = Some((now - then - usual).max(0.0));
        }
        self.wait(self.after_s, "afterwards")?;
        self.seen.ends = clock::now();
        self.gather(true)
    }

    fn order(&self) -> Result<Order, String> {
        let operator = self.operator()?;
        let body = json!({
            "name": "Incident", "venue": "Hall",
            "reservationOpensAt": in_days(-1), "reservationClosesAt": in_days(30),
        });
        let concert = operator.admin("POST", "/admin/v1/concerts", Some(&body))?["concertId"]
            .as_i64()
            .ok_or("a concert without an id")?;
        let path = format!("/admin/v1/concerts/{concert}/sessions");
        let seats = match self.incident.cause {
            Cause::Reads(_) => FEW_SEATS,
            _ => SEATS,
        };
        let body = json!({"concertAt": in_days(40), "seatCount": seats, "price": 0});
        let made = operator.admin("POST", &path, Some(&body))?;
        let id = |name: &str| made[name].as_i64().ok_or(format!("a session without {name}"));
        let Incident { cause, lasts, fans, .. } = *self.incident;
        let at = WARM_UP_S + self.calm_s;
        let flood = match cause {
            Cause::Crowd(people) => Some(("crowd", people)),
            Cause::Reads(per_second) => Some(("seats", per_second)),
            Cause::Holds(per_second) => Some(("holds", per_second)),
            _ => None,
        };
        if flood.is_some_and(|(what, _)| what != "crowd") {
            operator.issue_tokens(1_000, "lab_{n}")?;
        }
        Ok(Order {
            host: self.host(),
            concert,
            session: id("sessionId")?,
            first_seat: id("firstSeatId")?,
            seats,
            fans,
            // Rolling and the like take their time.
            seconds: at
                + lasts.max(match cause {
                    Cause::Rolling => 40.0,
                    _ => 5.0,
                })
                + self.after_s,
            flood: flood.map(|(what, count)| (what, count, at, lasts)),
        })
    }

    fn moment(&mut self, what: Event) {
        self.seen.moments.push(Moment { at: clock::now(), what });
    }

    fn breaks(&mut self, what: &str) {
        self.moment(Event::Fault(what.to_owned()));
    }

    /// Waits, listens to the webhook, and does what the hook asks for.
    fn wait(&mut self, seconds: Seconds, phase: &str) -> Result<(), String> {
        let until = clock::now() + seconds;
        loop {
            if signals::stopped() {
                return Err("stopped by hand".to_owned());
            }
            self.listen();
            self.scale()?;
            if let Some(crowd) = &mut self.crowd {
                crowd.runs()?;
            }
            let left = until - clock::now();
            let share = self.watch.looks().last().and_then(|look| look.share);
            self.progress.show(format!(
                "{} {phase}: {left:.0} s left, admitting {:.0} % of the rate, {} alarms",
                self.incident.name,
                share.unwrap_or(1.0) * 100.0,
                self.seen.moments.iter().filter(|it| matches!(it.what, Event::Alarm(_))).count(),
            ));
            if left <= 0.0 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_secs_f64(left.min(0.1)));
        }
    }

    /// Writes down what Alertmanager has told since it was last asked.
    fn listen(&mut self) {
        let heard = self.webhook.heard();
        for notification in &heard[self.heard..] {
            let at = clock::now() - notification.at.elapsed().as_secs_f64();
            for (firing, what) in [(true, Event::Alarm as fn(_) -> _), (false, Event::Resolved)] {
                for name in notification.alerts(firing) {
                    self.seen.moments.push(Moment { at, what: what(name) });
                }
            }
        }
        self.heard = heard.len();
    }

    /// Starts the instance that the hook has asked for.
    fn scale(&mut self) -> Result<(), String> {
        let Some(scaler) = &self.scaler else { return Ok(()) };
        let Ground::Cluster(scene) = &mut self.ground else { return Ok(()) };
        let running = scene.cluster.instances.len();
        if scaler.wanted().is_none_or(|wanted| wanted <= running) {
            return Ok(());
        }
        let names = scene.cluster.names();
        let free = scene.cluster.slots.iter().find(|(name, _)| !names.contains(name));
        let Some((name, _)) = free.cloned() else { return Ok(()) };
        scene.cluster.start_instance(&name)?;
        scaler.tell(running + 1)?;
        let text = format!("scale-out: {running} -> {} instances", running + 1);
        self.seen.moments.push(Moment { at: clock::now(), what: Event::Action(text) });
        self.seen.started.get_or_insert((clock::now(), name));
        if !self.held.is_empty() {
            self.sliver()?;
        }
        Ok(())
    }

    // ---- what breaks

    fn cause(&mut self) -> Result<(), String> {
        let lasts = self.incident.lasts;
        match self.incident.cause {
            Cause::Crowd(people) => {
                self.breaks(&format!("{people} people come, and a sliver of the CPU is left"));
                self.sliver()?;
                self.wait(lasts, "the crowd")
            }
            Cause::Reads(per_second) => {
                self.breaks(&format!("{per_second} seat lists a second"));
                self.wait(lasts, "the flood")
            }
            Cause::Holds(per_second) => {
                self.breaks(&format!("{per_second} holds a second"));
                self.wait(lasts, "the flood")
            }
            Cause::SlowDatabase => self.slow_database(lasts / 3.0),
            Cause::Connections => self.connections(lasts),
            Cause::RedisCrash => {
                self.breaks("kill -9 of Redis");
                self.redis()?.engine.kill();
                self.wait(lasts, "without Redis")?;
                self.redis()?.engine.restart()
            }
            Cause::RedisWiped => {
                self.breaks("FLUSHALL");
                self.redis()?.ask(&["flushall"]).map(drop)
            }
            Cause::RedisFailover => self.fail_over(),
            Cause::RedisRestart => {
                self.breaks("Redis is asked to end");
                self.redis()?.engine.stop();
                self.wait(lasts, "maintenance")?;
                self.redis()?.engine.restart()?;
                self.check_redis()
            }
            Cause::Kafka => {
                self.breaks("Kafka hangs");
                self.scene()?.cluster.kafka.engine.freeze();
                let waited = self.wait(lasts, "without Kafka");
                self.scene()?.cluster.kafka.engine.thaw();
                waited
            }
            Cause::Disk => {
                self.breaks("no space is left");
                self.disk()?.fill()?;
                let waited = self.wait(lasts, "full");
                self.disk()?.free()?;
                waited
            }
            Cause::Rolling => self.rolling(),
            Cause::Both => {
                self.breaks("statements take 200 ms more");
                self.database_proxy(SLOW)?;
                self.wait(lasts / 2.0, "a slow database")?;
                self.breaks("kill -9 of Redis");
                self.redis()?.engine.kill();
                self.wait(lasts / 2.0, "without Redis")?;
                self.redis()?.engine.restart()?;
                self.database_proxy(Mode::Pass)
            }
        }
    }

    /// Holds every instance to a sliver of a CPU, also those that are started later.
    fn sliver(&mut self) -> Result<(), String> {
        let Stage::Cluster { quota: Some(quota), .. } = self.incident.stage else { return Ok(()) };
        let held: Vec<u32> = self.held.iter().map(|(id, _)| *id).collect();
        let Ground::Cluster(scene) = &self.ground else { return Ok(()) };
        let new: Vec<u32> = scene.cluster.instances.iter().map(Instance::id).collect();
        for id in new.into_iter().filter(|id| !held.contains(id)) {
            self.held.push((id, Quota::impose(quota, &[id])?));
        }
        Ok(())
    }

    fn database_proxy(&mut self, mode: Mode) -> Result<(), String> {
        let proxy = self.scene()?.cluster.database_proxy.as_ref();
        proxy.ok_or("this incident needs a proxy before the database")?.set(mode);
        Ok(())
    }

    fn redis(&mut self) -> Result<&mut RedisServer, String> {
        match &mut self.scene()?.cluster.redis {
            Redis::Single(server) => Ok(server),
            Redis::Sentinels(_) | Redis::Cluster(_) => Err("this needs one Redis".to_owned()),
        }
    }

    fn disk(&self) -> Result<&Disk, String> {
        match &self.ground {
            Ground::Alone(alone) => Ok(&alone.disk),
            Ground::Cluster(_) => Err("this incident needs a disk of its own".to_owned()),
        }
    }

    fn slow_database(&mut self, each: Seconds) -> Result<(), String> {
        self.breaks("statements take 200 ms more");
        self.database_proxy(SLOW)?;
        self.wait(each, "slow statements")?;
        self.database_proxy(Mode::Pass)?;
        self.breaks("an index is dropped (reservation_live)");
        let database = &self.scene()?.cluster.database;
        database.run("ALTER TABLE boxoffice.reservation DROP KEY reservation_live")?;
        self.wait(each, "without an index")?;
        self.scene()?.cluster.database.run(
            "ALTER TABLE boxoffice.reservation ADD KEY reservation_live (user_id, session_id, state)",
        )?;
        self.moment(Event::Action("the index is made again".to_owned()));
        self.breaks("every other seat is locked from outside, for 2 s at a time");
        self.lock_seats()?;
        self.wait(each, "locked rows")?;
        self.outsiders.clear();
        Ok(())
    }

    /// Somebody holds locks on seats, again and again.
    fn lock_seats(&mut self) -> Result<(), String> {
        let database = &self.scene()?.cluster.database;
        let lock = "BEGIN; SELECT COUNT(*) FROM boxoffice.seat WHERE id % 2 = 0 FOR UPDATE; \
                    SELECT SLEEP(2); ROLLBACK; SELECT SLEEP(0.2);";
        let sql = lock.repeat(60);
        let process = outsider(database, &sql)?;
        self.outsiders.push(process);
        Ok(())
    }

    /// All connections but a few are taken, and those of the instances are closed.
    fn connections(&mut self, lasts: Seconds) -> Result<(), String> {
        // Fewer than instances, so that one has none, whichever they are.
        const LEFT: usize = 2;
        const OTHERS: &str = "SELECT id FROM information_schema.processlist \
                              WHERE db = 'boxoffice' AND id <> CONNECTION_ID()";
        const ALL: &str = "SELECT COUNT(*) FROM information_schema.processlist \
                           WHERE id <> CONNECTION_ID()";
        self.breaks("all connections but 2 are used up from outside");
        let sleep = format!("SELECT SLEEP({:.0})", lasts + 60.0);
        let door = self.door.ok_or("this incident needs a door of its own")?;
        let database = &self.scene()?.cluster.database;
        let ask = |sql: &str| beside(database, door, sql);
        let mut outsiders = Vec::new();
        let used: u32 = ask(ALL)?.parse().map_err(|_| "how many connect?")?;
        // One more than that for administrators, which all are here.
        for _ in used..=CONNECTIONS {
            outsiders.push(outsider(database, &sleep)?);
        }
        let full_by = clock::now() + 20.0;
        while ask(ALL)?.parse::<u32>().is_ok_and(|used| used <= CONNECTIONS) {
            if clock::now() > full_by {
                return Err("the connections of the database cannot be used up".to_owned());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Whoever is sent away would be quicker to come back than the next one from outside: as if those had won.
        let ours = ask(OTHERS)?;
        let ours: Vec<&str> = ours.lines().skip(LEFT).collect();
        let left = CONNECTIONS.saturating_sub(ours.len() as u32);
        ask(&format!("SET GLOBAL max_connections = {left}"))?;
        for id in ours {
            // It may have gone by itself.
            let _ = ask(&format!("KILL {id}"));
        }
        self.outsiders = outsiders;
        let waited = self.wait(lasts, "without connections");
        self.outsiders.clear();
        // The server does not notice by itself that they have gone.
        let database = &self.scene()?.cluster.database;
        let ask = |sql: &str| beside(database, door, sql);
        let sleepers =
            ask("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'")?;
        ask(&format!("SET GLOBAL max_connections = {CONNECTIONS}"))?;
        for id in sleepers.lines() {
            let _ = ask(&format!("KILL {id}"));
        }
        waited
    }

    fn fail_over(&mut self) -> Result<(), String> {
        self.breaks("kill -9 of the master");
        let Redis::Sentinels(all) = &mut self.scene()?.cluster.redis else {
            return Err("this incident needs sentinels".to_owned());
        };
        let master = all.master()?;
        all.nodes[master].engine.kill();
        Ok(())
    }

    /// As an operator does after maintenance: every instance says that it has Redis, and the books are in order.
    fn check_redis(&mut self) -> Result<(), String> {
        let until = clock::now() + 10.0;
        loop {
            let instances = &self.scene()?.cluster.instances;
            let is_up = |instance: &Instance| {
                let ready = instance.request("GET", "/health/ready", &[], None);
                ready.and_then(|reply| reply.json()).is_ok_and(|body| has_redis(&body))
            };
            if instances.iter().all(is_up) {
                break;
            }
            if clock::now() > until {
                return Err("an instance does not say that it has Redis again".to_owned());
            }
            self.wait(0.1, "checking")?;
        }
        let audit = self.scene()?.operator.audit()?;
        let what = if audit.clean {
            "checked: Redis is UP everywhere, the audit is clean"
        } else {
            "checked: the audit is not clean"
        };
        self.moment(Event::Action(what.to_owned()));
        Ok(())
    }

    /// One more joins, the oldest one ends, until all are new.
    fn rolling(&mut self) -> Result<(), String> {
        self.breaks("the first instance is replaced");
        let count = self.scene()?.cluster.instances.len();
        for _ in 0..count {
            let answered = self.answered;
            let scene = self.scene()?;
            let names = scene.cluster.names();
            let free = scene.cluster.slots.iter().find(|(name, _)| !names.contains(name));
            let free = free.map(|(name, _)| name.clone()).ok_or("no slot is free")?;
            scene.cluster.start_instance(&free)?;
            scene.load.state().instances = scene
                .cluster
                .instances
                .iter()
                .skip(1)
                .map(|instance| (instance.label.clone(), instance.port))
                .collect();
            self.wait(3.0, "replacing")?;
            let mut oldest = self.scene()?.cluster.instances.remove(0);
            let label = oldest.label.clone();
            if answered {
                let code = oldest.stop();
                if code != 0 {
                    self.seen.lost.push(format!("{label} ended with code {code} on SIGTERM"));
                }
            } else {
                oldest.kill();
            }
            drop(oldest);
            self.moment(Event::Action(format!("{label} was replaced by {free}")));
            self.wait(2.0, "replacing")?;
        }
        Ok(())
    }

    /// How many queries the primary has answered, where that matters.
    fn selects(&self) -> Option<f64> {
        let Ground::Cluster(scene) = &self.ground else { return None };
        if self.incident.answer != Answer::Replica {
            return None;
        }
        let said = scene.cluster.database.run("SHOW GLOBAL STATUS LIKE 'Com_select'").ok()?;
        said.split_whitespace().last()?.parse().ok()
    }

    // ---- the end

    /// Stops the load, and holds what was told against the books.
    fn gather(&mut self, compares: bool) -> Result<(), String> {
        self.outsiders.clear();
        if let Some(crowd) = self.crowd.take() {
            let heard = crowd.end()?;
            self.seen.requests.extend(heard.requests);
            (self.seen.bought, self.seen.inside) = (heard.bought, heard.inside);
        }
        self.seen.looks = self.watch.looks();
        let calm_from = self.seen.calm_from;
        let acknowledged = self.seen.bought.iter().filter(|bought| bought.did).count();
        match &mut self.ground {
            Ground::Cluster(scene) => {
                scene.load.end();
                let samples: Vec<Request> =
                    scene.load.state().samples.iter().filter_map(Request::of).collect();
                self.seen.requests.extend(samples.into_iter().filter(|it| it.done >= calm_from));
                if compares {
                    let paid = scene.cluster.database.number(&format!(
                        "SELECT COUNT(*) FROM boxoffice.payment WHERE user_id >= {K6_USERS}"
                    ))?;
                    self.seen.lost.extend(payments_lost(acknowledged, paid as usize));
                    let found = scene.settle(calm_from, 0)?;
                    let found = found.into_iter().map(|(_, finding)| finding.to_string());
                    self.seen.lost.extend(found);
                    let last = scene.finish()?;
                    self.seen.lost.extend(last.problems);
                }
            }
            Ground::Alone(alone) if compares => {
                let audit = alone.instance.audit()?;
                if !audit.clean {
                    self.seen.lost.push(format!("the audit is not clean: {}", audit.output));
                }
                self.seen.lost.extend(payments_lost(acknowledged, payments(&alone.instance)?));
            }
            Ground::Alone(_) => {}
        }
        drop(self.replica.take());
        Ok(())
    }
}

/// What to say where the books have fewer payments than k6 was told of.
fn payments_lost(acknowledged: usize, paid: usize) -> Option<String> {
    (paid < acknowledged)
        .then(|| format!("k6 was told of {acknowledged} payments, and {paid} are in the books"))
}

/// Whether an instance says that it has Redis.
fn has_redis(ready: &Value) -> bool {
    let parts = ready["dependencies"].as_array().into_iter().flatten();
    parts.filter(|part| part["name"] == "redis").any(|part| part["status"] == "UP")
}

/// Somebody who uses the database beside the service.
fn outsider(database: &MariaDb, sql: &str) -> Result<Process, String> {
    let mut command = mortal(database.client());
    command.args(["--no-defaults", "--user=root", "-N", "-e", sql]);
    command.arg(format!("--socket={}", database.socket().display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process::spawn("somebody else's statement", command)
}

/// Asks the database by a door that stays open when all of its connections are used up.
fn beside(database: &MariaDb, port: u16, sql: &str) -> Result<String, String> {
    let mut command = Command::new(database.client());
    command.args(["--no-defaults", "--user=root", "--protocol=tcp", "--host=127.0.0.1"]);
    command.args(["--skip-ssl", "-N", "-e", sql]).arg(format!("--port={port}"));
    let said = command.stdin(Stdio::null()).output();
    let said = said.map_err(|error| format!("the console of MariaDB: {error}"))?;
    match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned()),
        false => Err(format!("MariaDB: {}", String::from_utf8_lossy(&said.stderr).trim())),
    }
}

/// Has a replica follow the database, and every instance read seat lists from it.
fn follow(scene: &mut Scene, directory: &Path) -> Result<MariaDb, String> {
    let replica = scene.cluster.database.replica(&directory.join("replica"), &[], 0)?;
    let url = replica.url(replica.port);
    scene.cluster.settings.insert("store.mysql.replica_url".to_owned(), url);
    for name in scene.cluster.names() {
        scene.cluster.instance(&name)?.stop();
        scene.cluster.start_instance(&name)?;
    }
    Ok(replica)
}

/// How many payments the books have.
fn payments(instance: &Instance) -> Result<usize, String> {
    let (mut count, mut after) = (0, None);
    loop {
        let path = match after {
            None => "/admin/v1/payments?limit=1000".to_owned(),
            Some(after) => format!("/admin/v1/payments?limit=1000&after={after}"),
        };
        let page = instance.admin("GET", &path, None)?;
        count += page["payments"].as_array().map_or(0, Vec::len);
        after = page["next"].as_i64();
        if after.is_none() {
            return Ok(count);
        }
    }
}
