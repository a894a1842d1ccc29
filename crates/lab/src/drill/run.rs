//! One drill: its cluster, its load, its rounds.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use testbed::process::mortal;
use testbed::{ClusterOptions, Mode, Process, Redis, RedisServer, Sentinels, signals};

use super::figures::{self, Found, Round, Summary, Title};
use super::probe::Probe;
use super::{Drill, Fault};
use crate::clock;
use crate::load::{Kind, LINE};
use crate::progress::Progress;
use crate::report::rounded;
use crate::scene::{Final, SEATS_PER_ROUND, Scene, settings};
use crate::witness::{Finding, Seconds};

const BEFORE_S: Seconds = 3.0;

/// Runs beside a round: a command that others of the same machine respect, such as `flock FILE`.
#[derive(Debug)]
pub(super) struct Hold {
    _child: Option<Process>,
}

impl Hold {
    /// Waits until the command runs what it is given.
    pub(super) fn take(command: Option<&str>) -> Result<Self, String> {
        let Some(line) = command else { return Ok(Self { _child: None }) };
        let mut words = line.split_whitespace();
        let program = words.next().ok_or("--within: a command is needed")?;
        let mut command = mortal(Path::new(program));
        command.args(words).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Process::spawn(program, command)?;
        let pipes = child.child();
        let asked = pipes.stdin.as_mut().map(|to| to.write_all(b"x").and_then(|()| to.flush()));
        let mut echo = [0];
        let answer = pipes.stdout.as_mut().map(|from| from.read_exact(&mut echo));
        if !matches!((asked, answer, &echo), (Some(Ok(())), Some(Ok(())), b"x")) {
            return Err(format!("--within: `{line}` did not run its command"));
        }
        Ok(Self { _child: Some(child) })
    }
}

/// A drill under way.
// In the order in which it is dropped: who asks before who is asked.
#[derive(Debug)]
pub(super) struct Run {
    drill: Drill,
    instances: usize,
    seconds: Option<Seconds>,
    scene: Scene,
    turn: usize,
    /// When the fault of this round began and ended.
    fault: [Seconds; 2],
    phase: &'static str,
    title: String,
    progress: Progress,
    rounds: Vec<Round>,
}

impl Run {
    /// Starts the cluster.
    pub(super) fn start(
        drill: &Drill,
        instances: usize,
        seconds: Option<Seconds>,
        further: &BTreeMap<String, String>,
        directory: &Path,
    ) -> Result<Self, String> {
        eprintln!(
            "{}: starting {instances} instances, haproxy, MariaDB, Redis and Kafka …",
            drill.name
        );
        let mut options = ClusterOptions::new(drill.name, instances);
        options.settings = settings(45).map(|(name, value)| (name.to_owned(), value)).into();
        options.settings.extend(further.clone());
        options.redis = drill.redis;
        options.database_proxy = drill.database_proxy;
        options.spare = drill.spare;
        options.proxy_lines = vec!["http-response set-header x-instance %s".to_owned()];
        Ok(Self {
            drill: *drill,
            instances,
            seconds,
            scene: Scene::start(directory, &options)?,
            turn: 0,
            fault: [0.0; 2],
            phase: "before",
            title: String::new(),
            progress: Progress::new(10.0),
            rounds: Vec::new(),
        })
    }

    /// What the drill is called.
    pub(super) const fn name(&self) -> &'static str {
        self.drill.name
    }

    /// What was done so far.
    pub(super) fn rounds(&self) -> &[Round] {
        &self.rounds
    }

    /// An orderly end, an audit at rest, and all of Kafka once more.
    pub(super) fn finish(&mut self) -> Result<Final, String> {
        self.scene.finish()
    }

    /// Removes the line of progress.
    pub(super) fn clear(&self) {
        self.progress.clear();
    }

    /// What the rounds came to.
    pub(super) fn summary(&self, last: &Final) -> Summary {
        let title = Title {
            name: self.drill.name,
            about: self.drill.about,
            ends: self.drill.ends,
            seconds: self.seconds,
            instances: self.instances,
        };
        figures::summary(title, &self.rounds, last)
    }

    // ---- what the faults use

    fn begin_fault(&mut self) {
        self.fault[0] = clock::now();
        self.phase = "fault";
    }

    fn end_fault(&mut self) {
        self.fault[1] = clock::now();
        self.phase = "after";
    }

    fn wait(&mut self, seconds: Seconds) -> Result<(), String> {
        let until = clock::now() + seconds;
        while clock::now() < until {
            if signals::stopped() {
                return Err("stopped by hand".to_owned());
            }
            let left = (until - clock::now()).clamp(0.0, 0.25);
            std::thread::sleep(Duration::from_secs_f64(left));
            let state = self.scene.load.state();
            let (good, all) = figures::good_of(&state.samples, clock::now() - 1.0);
            let text = format!(
                "{} {}: {} requests, {good} of {all} good in the last second, {} findings",
                self.title,
                self.phase,
                crate::report::grouped(state.samples.len() as u64),
                state.told.noted.len()
            );
            drop(state);
            self.progress.show(text);
        }
        Ok(())
    }

    fn lasting(&self) -> Seconds {
        self.seconds.unwrap_or(0.0)
    }

    fn redis(&mut self) -> Result<&mut RedisServer, String> {
        match &mut self.scene.cluster.redis {
            Redis::Single(server) => Ok(server),
            Redis::Sentinels(_) | Redis::Cluster(_) => Err("this drill needs one Redis".to_owned()),
        }
    }

    fn sentinels(&mut self) -> Result<&mut Sentinels, String> {
        match &mut self.scene.cluster.redis {
            Redis::Sentinels(all) => Ok(all),
            Redis::Single(_) | Redis::Cluster(_) => Err("this drill needs sentinels".to_owned()),
        }
    }

    fn break_something(&mut self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::KillInstance => self.kill_instance(),
            Fault::KillRedis => {
                self.begin_fault();
                self.redis()?.engine.kill();
                self.wait(1.0)?;
                self.redis()?.engine.restart()?;
                self.end_fault();
                Ok(())
            }
            Fault::FlushRedis => {
                self.begin_fault();
                self.redis()?.ask(&["flushall"])?;
                self.end_fault();
                Ok(())
            }
            Fault::FailOver => self.fail_over(),
            Fault::StopRedis => {
                self.begin_fault();
                self.redis()?.engine.freeze();
                self.wait(self.lasting())?;
                self.redis()?.engine.thaw();
                self.end_fault();
                Ok(())
            }
            Fault::KillDatabase => {
                self.begin_fault();
                self.scene.cluster.database.engine.kill();
                self.wait(1.0)?;
                self.scene.cluster.database.engine.restart()?;
                self.end_fault();
                Ok(())
            }
            Fault::Network(mode) => {
                self.begin_fault();
                self.network(mode)?;
                self.wait(self.lasting())?;
                self.network(Mode::Pass)?;
                self.end_fault();
                Ok(())
            }
            Fault::StopKafka => {
                self.begin_fault();
                self.scene.cluster.kafka.engine.freeze();
                self.wait(self.lasting() / 2.0)?;
                self.scene.cluster.kafka.engine.kill();
                self.wait(self.lasting() / 2.0)?;
                self.scene.cluster.kafka.engine.restart()?;
                self.end_fault();
                Ok(())
            }
            Fault::Drain => self.drain(),
            Fault::InTurn => {
                let all = [Fault::KillInstance, Fault::KillRedis, Fault::KillDatabase];
                self.break_something(all[self.turn % all.len()])
            }
        }
    }

    fn network(&self, mode: Mode) -> Result<(), String> {
        let proxy = self.scene.cluster.database_proxy.as_ref();
        proxy.ok_or("this drill needs a proxy before the database")?.set(mode);
        Ok(())
    }

    fn kill_instance(&mut self) -> Result<(), String> {
        // Another one in each round. The list changes its order when one is started again; names do not.
        let mut names = self.scene.cluster.names();
        names.sort();
        // The last one is left to the probe.
        let victim = names[self.turn % (names.len() - 1).max(1)].clone();
        self.begin_fault();
        self.scene.load.state().down.insert(victim.clone());
        self.scene.cluster.instance(&victim)?.kill();
        // The others carry on; nothing has to come back for that.
        self.end_fault();
        self.wait(1.5)?;
        self.scene.cluster.start_instance(&victim)?;
        self.scene.load.state().down.remove(&victim);
        Ok(())
    }

    fn fail_over(&mut self) -> Result<(), String> {
        let master = self.sentinels()?.master()?;
        self.begin_fault();
        self.sentinels()?.nodes[master].engine.kill();
        self.end_fault();
        self.wait(7.0)?;
        let all = self.sentinels()?;
        all.nodes[master].engine.restart()?;
        // The sentinels would do that too, after 10 s.
        let new = all.nodes[all.master()?].port.to_string();
        all.nodes[master].ask(&["replicaof", "127.0.0.1", &new])?;
        all.wait_until_whole()
    }

    /// A new instance joins, then an old one is asked to end.
    fn drain(&mut self) -> Result<(), String> {
        let names = self.scene.cluster.names();
        let free = self.scene.cluster.slots.iter().find(|(name, _)| !names.contains(name));
        let free = free.map(|(name, _)| name.clone()).ok_or("no slot is free")?;
        self.begin_fault();
        self.scene.cluster.start_instance(&free)?;
        // Asked directly, the old one could only refuse; the promise is for those who come through the proxy.
        self.scene.load.state().instances = self
            .scene
            .cluster
            .instances
            .iter()
            .skip(1)
            .map(|instance| (instance.label.clone(), instance.port))
            .collect();
        self.wait(1.5)?;
        let mut oldest = self.scene.cluster.instances.remove(0);
        let code = oldest.stop();
        self.end_fault();
        if code != 0 {
            let what = format!("{} ended with code {code} on SIGTERM", oldest.label);
            self.scene.load.note(Finding::Drill { what });
        }
        Ok(())
    }

    // ---- a round

    /// Plays one round, and compares.
    pub(super) fn round(&mut self, number: u32, rounds: u32) -> Result<(), String> {
        self.turn = number as usize - 1;
        self.title = format!("{} {number}/{rounds}", self.drill.name);
        self.phase = "before";
        let (noted_before, samples_before) = {
            let state = self.scene.load.state();
            (state.told.noted.len(), state.samples.len())
        };
        self.scene.new_session(number, SEATS_PER_ROUND)?;
        self.scene.load.top_up(LINE);
        // Others hear of the new session within about a second.
        self.wait(2.0)?;
        self.scene.load.begin();
        let played = self.play();
        let (began, ended, probe) = match played {
            Ok(played) => played,
            Err(error) => {
                self.scene.load.end();
                return Err(error);
            }
        };
        let probed = probe.end();
        self.scene.load.end();
        // Without those of the comparison.
        let samples: Vec<_> = self.scene.load.state().samples[samples_before..]
            .iter()
            .filter(|sample| sample.began >= began)
            .cloned()
            .collect();
        self.phase = "comparing";
        let findings = self.scene.settle(began, noted_before)?;
        let books = self.scene.books()?;
        let state = self.scene.load.state();
        let told = &state.told;
        let mut verdicts: BTreeMap<Kind, BTreeMap<_, u32>> = BTreeMap::new();
        for effect in told.effects.iter().filter(|effect| effect.round == number) {
            let row = verdicts.entry(Kind::of_effect(effect)).or_default();
            *row.entry(effect.verdict).or_default() += 1;
        }
        let found = findings.into_iter().map(|(at, finding)| Found {
            round: number,
            kind: finding.kind(),
            text: finding,
            at: rounded(at - began),
        });
        let found: Vec<Found> = found.collect();
        let mut overtaken = told.overtaken(began);
        overtaken.seconds = rounded(overtaken.seconds);
        let round = Round {
            round: number,
            ok: found.is_empty(),
            seconds: ended - began,
            fault_seconds: self.fault[1] - self.fault[0],
            fault: self.fault.map(|at| at - began),
            requests: figures::count(&samples),
            recovery: figures::recovery(&samples, self.fault[1], ended),
            polls: figures::polls(&probed, self.fault),
            late_news: figures::late(&told.late_news, number),
            overtaken,
            joined: told.fans.iter().filter(|fan| fan.at >= began).count(),
            payments: books.payments.len(),
            reservations: books.reservations.len(),
            verdicts,
            findings: found,
            samples: samples.into_iter().map(|sample| sample.since(began)).collect(),
        };
        drop(state);
        self.rounds.push(round);
        Ok(())
    }

    /// The part of a round that is counted.
    fn play(&mut self) -> Result<(Seconds, Seconds, Probe), String> {
        // What comes now is not counted yet.
        self.wait(1.0)?;
        // At one that the fault spares: drains take the first of the list, kills another one than the last by name.
        let mut names = self.scene.cluster.names();
        if self.drill.spare == 0 {
            names.sort();
        }
        let last = names.last().ok_or("there is no instance")?;
        let tokens = {
            let state = self.scene.load.state();
            let fans = &state.told.fans;
            fans[fans.len().saturating_sub(200)..].iter().map(|fan| fan.token.clone()).collect()
        };
        let probe = Probe::start(self.scene.cluster.port_of(last)?, tokens);
        let began = clock::now();
        self.wait(BEFORE_S)?;
        self.break_something(self.drill.fault)?;
        self.wait(self.drill.after)?;
        Ok((began, clock::now(), probe))
    }
}
