//! Several instances behind haproxy, on a MariaDB, a Redis and a Kafka of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cpus::Cpus;
use crate::engine::Ready;
use crate::fault_proxy::FaultProxy;
use crate::haproxy::Haproxy;
use crate::instance::{Audit, Instance, InstanceOptions};
use crate::kafka::Kafka;
use crate::mariadb::MariaDb;
use crate::ports::{free_port, require_free};
use crate::redis::{Redis, RedisForm};

const PAYMENT_EVENT: &str = "concert.payment-completed";

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// What it is called; its instances have this name and a number.
    pub label: String,
    /// How many instances run.
    pub instances: usize,
    /// How many more haproxy knows.
    pub spare: usize,
    /// The port of haproxy; a free one where none is named.
    pub port: Option<u16>,
    /// The CPUs of the instances.
    pub cpus: Cpus,
    /// The CPUs of everything else; all of them where none is named.
    pub engine_cpus: Vec<usize>,
    /// The CPUs of all engines but the database, where they are others.
    pub beside_cpus: Vec<usize>,
    /// Settings of the instances by their dotted names.
    pub settings: BTreeMap<String, String>,
    /// The form of Redis.
    pub redis: RedisForm,
    /// Whether a proxy that can fail stands before the database.
    pub database_proxy: bool,
    /// Further options of the database.
    pub database_options: Vec<String>,
    /// Further settings of Kafka, of the form `key=value`.
    pub kafka_settings: Vec<String>,
    /// Lines of the frontend of haproxy.
    pub proxy_lines: Vec<String>,
    /// The program, where it is not the release build.
    pub program: Option<PathBuf>,
}

impl ClusterOptions {
    /// The usual: so many instances on all CPUs, a single Redis, no proxy that fails.
    pub fn new(label: &str, instances: usize) -> Self {
        Self {
            label: label.to_owned(),
            instances,
            spare: 0,
            port: None,
            cpus: Cpus::all(),
            engine_cpus: Vec::new(),
            beside_cpus: Vec::new(),
            settings: BTreeMap::new(),
            redis: RedisForm::Single,
            database_proxy: false,
            database_options: Vec::new(),
            kafka_settings: Vec::new(),
            proxy_lines: Vec::new(),
            program: None,
        }
    }
}

/// A running cluster.
// In the order in which they are dropped: who asks before who is asked.
#[derive(Debug)]
pub struct Cluster {
    /// haproxy.
    pub proxy: Haproxy,
    /// The instances that run, the one that was started first at the head.
    pub instances: Vec<Instance>,
    /// Kafka.
    pub kafka: Kafka,
    /// Redis.
    pub redis: Redis,
    /// What stands before the database, where something does.
    pub database_proxy: Option<FaultProxy>,
    /// MariaDB.
    pub database: MariaDb,
    /// Names of instances and their ports, kept over restarts.
    pub slots: Vec<(String, u16)>,
    /// Where logs and data are.
    pub directory: PathBuf,
    /// What the instances are started with.
    pub settings: BTreeMap<String, String>,
    cpus: Cpus,
    program: Option<PathBuf>,
    exit_code: Option<i32>,
}

impl Cluster {
    /// Starts all of it in a new directory below `directory` and waits until it serves.
    pub fn start(directory: &Path, options: &ClusterOptions) -> Result<Self, String> {
        let port = options.port.map_or_else(free_port, Ok)?;
        require_free(port)?;
        let directory = directory.join(&options.label);
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("{}: {error}", directory.display()))?;
        let engine_cpus = options.engine_cpus.as_slice();
        let beside_cpus =
            if options.beside_cpus.is_empty() { engine_cpus } else { &options.beside_cpus };
        // Beside one another: each mostly waits.
        let (database, redis, kafka) = std::thread::scope(|scope| {
            let kafka = scope.spawn(|| {
                Kafka::start(&directory.join("kafka"), beside_cpus, &options.kafka_settings)
            });
            let redis =
                scope.spawn(|| Redis::start(options.redis, &directory.join("redis"), beside_cpus));
            let database =
                MariaDb::start(&directory.join("mariadb"), engine_cpus, &options.database_options);
            let broken = |_| Err("starting it panicked".to_owned());
            (
                database,
                redis.join().unwrap_or_else(broken),
                kafka.join().unwrap_or_else(|_| Err("starting it panicked".to_owned())),
            )
        });
        let (database, redis, kafka) = (database?, redis?, kafka?);
        let database_proxy =
            options.database_proxy.then(|| FaultProxy::start(database.port)).transpose()?;
        let database_port = database_proxy.as_ref().map_or(database.port, |proxy| proxy.port);
        let mut settings: BTreeMap<String, String> = [
            ("store.kind", "mysql".to_owned()),
            ("store.mysql.url", database.url(database_port)),
            ("queue.kind", "redis".to_owned()),
            ("events.kind", "kafka".to_owned()),
            ("events.kafka.brokers", kafka.address()),
        ]
        .into_iter()
        .chain(redis.settings())
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        if options.program.is_none() {
            // Most of these crowds are let in and do not buy. An older build has no such bound, nor the setting.
            settings.insert("queue.stock".to_owned(), "off".to_owned());
        }
        settings.extend(options.settings.clone());
        let slots = (1..=options.instances + options.spare)
            .map(|number| Ok((format!("{}-{number}", options.label), free_port()?)))
            .collect::<Result<Vec<_>, String>>()?;
        let proxy = Haproxy::start(&directory, port, &slots, &options.proxy_lines, beside_cpus)?;
        let mut cluster = Self {
            proxy,
            instances: Vec::new(),
            kafka,
            redis,
            database_proxy,
            database,
            slots,
            directory,
            settings,
            cpus: options.cpus.clone(),
            program: options.program.clone(),
            exit_code: None,
        };
        let names: Vec<String> =
            cluster.slots.iter().take(options.instances).map(|(name, _)| name.clone()).collect();
        for name in names {
            cluster.start_instance(&name)?;
        }
        if options.instances > 0 {
            // It has seen them as they were before they served, and sends nobody there until it looks again.
            let ready = Ready::Http(format!("{}/health/ready", cluster.url()));
            cluster.proxy.engine.wait_until(&ready)?;
        }
        Ok(cluster)
    }

    /// Where clients come: the URL of haproxy.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy.port)
    }

    /// Returns the port of a slot.
    pub fn port_of(&self, name: &str) -> Result<u16, String> {
        let slot = self.slots.iter().find(|(slot, _)| slot == name);
        slot.map(|(_, port)| *port).ok_or_else(|| format!("there is no slot {name}"))
    }

    /// Starts the instance of a slot, also again after a stop or a kill.
    pub fn start_instance(&mut self, name: &str) -> Result<&mut Instance, String> {
        let port = self.port_of(name)?;
        self.instances.retain(|instance| instance.label != name);
        let mut options = InstanceOptions::new(name);
        options.port = Some(port);
        options.cpus = self.cpus.clone();
        options.settings = self.settings.clone();
        options.program = self.program.clone();
        self.instances.push(Instance::start(&self.directory, &options)?);
        self.instances.last_mut().ok_or_else(|| "no instance".to_owned())
    }

    /// Returns a running instance by its name.
    pub fn instance(&mut self, name: &str) -> Result<&mut Instance, String> {
        let found = self.instances.iter_mut().find(|instance| instance.label == name);
        found.ok_or_else(|| format!("{name} does not run"))
    }

    /// Names of the instances that run, in their order.
    pub fn names(&self) -> Vec<String> {
        self.instances.iter().map(|instance| instance.label.clone()).collect()
    }

    /// Names and process ids of everything that runs.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let engines = [
            ("MariaDB", self.database.engine.id()),
            ("Kafka", self.kafka.engine.id()),
            ("haproxy", self.proxy.engine.id()),
        ];
        let redis = self.redis.servers().into_iter().map(|server| ("Redis", server.engine.id()));
        let engines =
            engines.into_iter().chain(redis).filter_map(|(name, id)| Some((name.to_owned(), id?)));
        self.instances
            .iter()
            .map(|instance| (instance.label.clone(), instance.id()))
            .chain(engines)
            .collect()
    }

    /// Stops proxy and instances; the engines stay for the audit. Returns the first exit code that is not 0.
    pub fn stop(&mut self) -> i32 {
        if let Some(code) = self.exit_code {
            return code;
        }
        self.proxy.engine.stop();
        let codes: Vec<i32> = self.instances.iter_mut().map(Instance::stop).collect();
        let code = codes.into_iter().find(|code| *code != 0).unwrap_or(0);
        self.exit_code = Some(code);
        code
    }

    /// Audits the database, and payments against their events in Kafka: each exactly once, and none waiting.
    pub fn audit(&self) -> Result<Audit, String> {
        let first = self.instances.first().ok_or("there is no instance to audit by")?;
        let mut audit = first.audit()?;
        let file = self.directory.join("audit-events.jsonl");
        let brokers = self.kafka.address();
        let said = first.run(&[
            "consume",
            "--brokers",
            &brokers,
            "--from-beginning",
            "--until-idle",
            "5",
            "--output",
            &file.display().to_string(),
        ])?;
        if !said.status.success() {
            return Err(format!("`boxoffice consume` failed:\n{}", said.text()));
        }
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        let mut paid = Vec::new();
        for line in text.lines() {
            let event: Value =
                serde_json::from_str(line).map_err(|error| format!("an event: {error}: {line}"))?;
            if event["type"] == PAYMENT_EVENT {
                paid.push(event["data"]["paymentId"].as_i64());
            }
        }
        let payments = self.database.number("SELECT COUNT(*) FROM boxoffice.payment")?;
        let waiting = self.database.number("SELECT COUNT(*) FROM boxoffice.outbox")?;
        let repeated = repetitions(&said.text());
        let different: BTreeSet<_> = paid.iter().collect();
        let exact = paid.len() == different.len()
            && usize::try_from(payments) == Ok(paid.len())
            && repeated == Some(0);
        audit.clean &= exact && waiting == 0;
        audit.output += &format!(
            "\nKafka: {} records for {payments} payments, {} repetitions of any event, {waiting} events still in the outbox",
            paid.len(),
            repeated.map_or_else(|| "?".to_owned(), |count| count.to_string()),
        );
        Ok(audit)
    }
}

/// Returns how many events `boxoffice consume` says that it has dropped because they came before.
pub fn repetitions(said: &str) -> Option<u64> {
    let (before, _) = said.split_once(" repetitions dropped")?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_read() {
        assert_eq!(repetitions("90 events delivered, 12 repetitions dropped, 0 x"), Some(12));
        assert_eq!(repetitions("90 events delivered"), None);
    }
}
