//! Redis in the three forms that an instance knows: one server, one under sentinels, a cluster.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Ready};
use crate::ports::free_port;
use crate::process::run;
use crate::tools::tool;

const PATIENCE: Duration = Duration::from_secs(10);
/// What a server is started with that keeps nothing on disk.
pub const IN_MEMORY: [&str; 4] = ["--save", "", "--appendonly", "no"];

/// One process of Redis: a server, a replica, a sentinel, or a node.
#[derive(Debug)]
pub struct RedisServer {
    /// The process.
    pub engine: Engine,
    /// Its port.
    pub port: u16,
    client: PathBuf,
}

impl RedisServer {
    /// Starts a server in a directory that is made for it.
    pub fn start(directory: &Path, cpus: &[usize], arguments: &[&str]) -> Result<Self, String> {
        Self::launch("redis-server", directory, cpus, None, arguments)
    }

    /// Starts it with a configuration file, which a sentinel writes to.
    pub fn configured(
        directory: &Path,
        cpus: &[usize],
        configuration: &str,
        arguments: &[&str],
    ) -> Result<Self, String> {
        Self::launch("redis-sentinel", directory, cpus, Some(configuration), arguments)
    }

    fn launch(
        name: &str,
        directory: &Path,
        cpus: &[usize],
        configuration: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self, String> {
        let failed = |error| format!("{}: {error}", directory.display());
        std::fs::create_dir_all(directory).map_err(failed)?;
        let port = free_port()?;
        let mut line: Vec<OsString> = vec![tool("redis-server")?.into()];
        if let Some(text) = configuration {
            let file = directory.join("redis.conf");
            std::fs::write(&file, text).map_err(failed)?;
            line.push(file.into());
        }
        line.extend(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"].map(Into::into));
        line.push(directory.into());
        line.extend(arguments.iter().map(Into::into));
        let log = directory.join("redis.log");
        let engine = Engine::start(name, line, cpus, &log, Ready::Redis(port))?;
        Ok(Self { engine, port, client: tool("redis-cli")? })
    }

    /// Returns what it answers to a command, as text.
    pub fn ask(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.client);
        command.args(["-e", "-p", &self.port.to_string()]).args(words);
        let said = run(command, b"", PATIENCE)?;
        if said.status.success() {
            Ok(said.out.trim().to_owned())
        } else {
            Err(format!("Redis refuses `{}`: {}", words.join(" "), said.text()))
        }
    }

    /// Returns how often each command was called from outside, by name.
    pub fn calls(&self) -> Result<BTreeMap<String, u64>, String> {
        let text = self.ask(&["info", "commandstats"])?;
        let calls = text.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let count = rest.split(',').next()?.parse().ok()?;
            (!name.contains('|')).then(|| (name.to_owned(), count))
        });
        Ok(calls.collect())
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A master, two replicas, and three sentinels that watch over them.
#[derive(Debug)]
pub struct Sentinels {
    /// The master of the beginning, and the replicas.
    pub nodes: Vec<RedisServer>,
    /// Those who watch.
    pub sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// What the sentinels call the master.
    pub const MASTER: &str = "tickets";

    /// Starts them and waits until the sentinels agree.
    pub fn start(directory: &Path, cpus: &[usize]) -> Result<Self, String> {
        let quick = ["--repl-diskless-sync-delay", "0", "--replica-priority", "100"];
        let data: Vec<&str> = IN_MEMORY.into_iter().chain(quick).collect();
        let mut nodes = vec![RedisServer::start(&directory.join("node-1"), cpus, &data)?];
        let first = nodes[0].port.to_string();
        for number in [2, 3] {
            let follow = ["--replicaof", "127.0.0.1", &first];
            let arguments: Vec<&str> = data.iter().copied().chain(follow).collect();
            let home = directory.join(format!("node-{number}"));
            nodes.push(RedisServer::start(&home, cpus, &arguments)?);
        }
        let master = Self::MASTER;
        let configuration = format!(
            "sentinel monitor {master} 127.0.0.1 {first} 2\n\
             sentinel down-after-milliseconds {master} 2000\n\
             sentinel failover-timeout {master} 4000\n"
        );
        let mut sentinels = Vec::new();
        for number in [1, 2, 3] {
            let home = directory.join(format!("sentinel-{number}"));
            sentinels.push(RedisServer::configured(&home, cpus, &configuration, &["--sentinel"])?);
        }
        let all = Self { nodes, sentinels };
        all.wait_until_whole()?;
        Ok(all)
    }

    /// Waits until all sentinels agree on one master with two replicas that follow it.
    pub fn wait_until_whole(&self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(30);
        while !self.is_whole().unwrap_or(false) {
            if Instant::now() > until {
                return Err("the sentinels do not agree on a master with two replicas".to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn is_whole(&self) -> Result<bool, String> {
        let mut masters = Vec::new();
        for sentinel in &self.sentinels {
            let text = sentinel.ask(&["info", "sentinel"])?;
            if !text.contains("status=ok") || !text.contains("slaves=2,sentinels=3") {
                return Ok(false);
            }
            masters.push(Self::master_port(sentinel)?);
        }
        masters.dedup();
        if masters.len() != 1 {
            return Ok(false);
        }
        let said = self.nodes[self.master()?].ask(&["info", "replication"])?;
        Ok(said.contains("role:master") && said.matches("state=online").count() == 2)
    }

    fn master_port(sentinel: &RedisServer) -> Result<u16, String> {
        let said = sentinel.ask(&["sentinel", "get-master-addr-by-name", Self::MASTER])?;
        let port = said.lines().nth(1).and_then(|port| port.trim().parse().ok());
        port.ok_or_else(|| format!("a sentinel names no master: {said}"))
    }

    /// Returns which of the nodes is the master, as the first sentinel says.
    pub fn master(&self) -> Result<usize, String> {
        let port = Self::master_port(&self.sentinels[0])?;
        let found = self.nodes.iter().position(|node| node.port == port);
        found.ok_or_else(|| {
            format!("a sentinel names a master on port {port}, which is none of ours")
        })
    }
}

/// Three masters of a Redis Cluster.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters.
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts them and waits until the cluster is whole.
    pub fn start(directory: &Path, cpus: &[usize]) -> Result<Self, String> {
        let mut nodes = Vec::new();
        for number in [1, 2, 3] {
            // Else it would take the port that is 10,000 above, free or not.
            let bus = free_port()?.to_string();
            let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            let arguments: Vec<&str> = IN_MEMORY.into_iter().chain(cluster).collect();
            let home = directory.join(format!("node-{number}"));
            nodes.push(RedisServer::start(&home, cpus, &arguments)?);
        }
        let mut command = Command::new(tool("redis-cli")?);
        command.args(["--cluster", "create"]).args(nodes.iter().map(RedisServer::address));
        command.args(["--cluster-replicas", "0", "--cluster-yes"]);
        let said = run(command, b"", Duration::from_secs(60))?;
        if !said.status.success() {
            return Err(format!("the cluster of Redis cannot be made:\n{}", said.text()));
        }
        let until = Instant::now() + Duration::from_secs(30);
        for node in &nodes {
            while !node.ask(&["cluster", "info"])?.contains("cluster_state:ok") {
                if Instant::now() > until {
                    return Err("the cluster of Redis does not become whole".to_owned());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(Self { nodes })
    }
}

/// Which form of Redis is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisForm {
    /// One server.
    #[default]
    Single,
    /// A master with two replicas under three sentinels.
    Sentinels,
    /// A cluster of three masters.
    Cluster,
}

/// Redis, in one of its forms.
#[derive(Debug)]
pub enum Redis {
    /// One server.
    Single(RedisServer),
    /// A master with two replicas under three sentinels.
    Sentinels(Sentinels),
    /// A cluster of three masters.
    Cluster(RedisCluster),
}

impl Redis {
    /// Starts it and waits until it serves.
    pub fn start(form: RedisForm, directory: &Path, cpus: &[usize]) -> Result<Self, String> {
        Ok(match form {
            RedisForm::Single => Self::Single(RedisServer::start(directory, cpus, &IN_MEMORY)?),
            RedisForm::Sentinels => Self::Sentinels(Sentinels::start(directory, cpus)?),
            RedisForm::Cluster => Self::Cluster(RedisCluster::start(directory, cpus)?),
        })
    }

    /// All of its processes.
    pub fn servers(&self) -> Vec<&RedisServer> {
        match self {
            Self::Single(server) => vec![server],
            Self::Sentinels(all) => all.nodes.iter().chain(&all.sentinels).collect(),
            Self::Cluster(all) => all.nodes.iter().collect(),
        }
    }

    /// All of its processes, to be changed.
    pub fn servers_mut(&mut self) -> Vec<&mut RedisServer> {
        match self {
            Self::Single(server) => vec![server],
            Self::Sentinels(all) => all.nodes.iter_mut().chain(&mut all.sentinels).collect(),
            Self::Cluster(all) => all.nodes.iter_mut().collect(),
        }
    }

    /// How an instance finds it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let addresses = |servers: &[RedisServer]| {
            servers.iter().map(RedisServer::address).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Single(server) => vec![("queue.redis.nodes", server.address())],
            Self::Sentinels(all) => vec![
                ("queue.redis.mode", "sentinel".to_owned()),
                ("queue.redis.master", Sentinels::MASTER.to_owned()),
                ("queue.redis.nodes", addresses(&all.sentinels)),
            ],
            Self::Cluster(all) => vec![
                ("queue.redis.mode", "cluster".to_owned()),
                ("queue.redis.nodes", addresses(&all.nodes)),
            ],
        }
    }

    /// How often each command was called from outside, by name; nothing where there are several servers.
    pub fn calls(&self) -> Result<BTreeMap<String, u64>, String> {
        match self {
            Self::Single(server) => server.calls(),
            Self::Sentinels(_) | Self::Cluster(_) => Ok(BTreeMap::new()),
        }
    }
}
