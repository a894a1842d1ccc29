//! Settings: built-in defaults, then a TOML file, then the environment, then flags; the later wins.
//!
//! Every layer is reduced to `(key path, value, source)` before anything is deserialised, so that
//! every complaint can name the key *and* the file, variable or flag that it came from. A
//! [`Config`] that [`Config::load`] hands out has been validated as a whole: code behind it needs
//! no second look at a range.
//!
//! What does not belong here: opening files other than the configuration and the secrets that it
//! points at, generating secrets, and anything that a running service changes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use boxoffice_backends::events::{KAFKA_TLS, KafkaConnection, KafkaSasl, TopicPlan};
use boxoffice_backends::store::{MysqlServer, MysqlTls};
use boxoffice_domain::ids::QueueName;
use ipnet::IpNet;
use serde::{Deserialize, Serialize, Serializer};
use toml::{Table, Value};

/// What environment variables that set a key start with.
const ENV_PREFIX: &str = "BOXOFFICE_";
/// Names the configuration file; not a key of its own.
const ENV_CONFIG_FILE: &str = "BOXOFFICE_CONFIG";
/// Variables for the project's own test suites; the service ignores them.
const ENV_TEST_PREFIX: &str = "BOXOFFICE_TEST_";
/// The file that is read from the working directory where none is named.
const DEFAULT_FILE: &str = "boxoffice.toml";

/// How the text of an environment variable or flag is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Float,
    Bool,
    /// A TOML array of strings, or strings separated by commas.
    TextList,
}

/// Every key that exists. `keys_match_the_structs` keeps it in step with the structs below.
const KEYS: &[(&str, Kind)] = &[
    ("data_dir", Kind::Text),
    ("server.listen", Kind::Text),
    ("server.max_connections", Kind::Integer),
    ("server.header_timeout_ms", Kind::Integer),
    ("server.idle_timeout_ms", Kind::Integer),
    ("server.body_timeout_ms", Kind::Integer),
    ("server.write_timeout_ms", Kind::Integer),
    ("server.max_body_bytes", Kind::Integer),
    ("server.drain_timeout_ms", Kind::Integer),
    ("server.worker_threads", Kind::Integer),
    ("server.concurrency.payment", Kind::Integer),
    ("server.concurrency.reservation", Kind::Integer),
    ("server.concurrency.poll", Kind::Integer),
    ("server.concurrency.join", Kind::Integer),
    ("server.concurrency.browse", Kind::Integer),
    ("server.concurrency.admin", Kind::Integer),
    ("server.trusted_proxies", Kind::TextList),
    ("server.join_rate.per_second", Kind::Float),
    ("server.join_rate.burst", Kind::Integer),
    ("store.kind", Kind::Text),
    ("store.batch_max", Kind::Integer),
    ("store.queue_max", Kind::Integer),
    ("store.mysql.url", Kind::Text),
    ("store.mysql.host", Kind::Text),
    ("store.mysql.port", Kind::Integer),
    ("store.mysql.user", Kind::Text),
    ("store.mysql.password", Kind::Text),
    ("store.mysql.password_file", Kind::Text),
    ("store.mysql.database", Kind::Text),
    ("store.mysql.tls", Kind::Text),
    ("store.mysql.tls_ca_file", Kind::Text),
    ("store.mysql.pool_size", Kind::Integer),
    ("store.mysql.acquire_timeout_ms", Kind::Integer),
    ("store.mysql.replica_url", Kind::Text),
    ("queue.kind", Kind::Text),
    ("queue.default", Kind::Text),
    ("queue.admit_per_second", Kind::Float),
    ("queue.max_active", Kind::Integer),
    ("queue.active_ttl_seconds", Kind::Integer),
    ("queue.claim_window_seconds", Kind::Integer),
    ("queue.redis.mode", Kind::Text),
    ("queue.redis.nodes", Kind::TextList),
    ("queue.redis.master", Kind::Text),
    ("queue.redis.user", Kind::Text),
    ("queue.redis.password", Kind::Text),
    ("queue.redis.password_file", Kind::Text),
    ("queue.redis.sentinel_password", Kind::Text),
    ("queue.redis.sentinel_password_file", Kind::Text),
    ("queue.redis.database", Kind::Integer),
    ("queue.redis.tls", Kind::Bool),
    ("queue.redis.tls_ca_file", Kind::Text),
    ("queue.redis.prefix", Kind::Text),
    ("queue.redis.call_timeout_ms", Kind::Integer),
    ("queue.redis.connect_timeout_ms", Kind::Integer),
    ("sales.hold_seconds", Kind::Integer),
    ("sales.max_seats_per_reservation", Kind::Integer),
    ("sales.max_seats_per_user", Kind::Integer),
    ("sales.idempotency_hours", Kind::Integer),
    ("events.kind", Kind::Text),
    ("events.path", Kind::Text),
    ("events.kafka.brokers", Kind::Text),
    ("events.kafka.topic_prefix", Kind::Text),
    ("events.kafka.client_id", Kind::Text),
    ("events.kafka.security", Kind::Text),
    ("events.kafka.ca_file", Kind::Text),
    ("events.kafka.sasl_mechanism", Kind::Text),
    ("events.kafka.username", Kind::Text),
    ("events.kafka.password", Kind::Text),
    ("events.kafka.password_file", Kind::Text),
    ("events.kafka.partitions", Kind::Integer),
    ("events.kafka.replication", Kind::Integer),
    ("events.kafka.delivery_timeout_ms", Kind::Integer),
    ("ticket.signing_key", Kind::Text),
    ("ticket.signing_key_file", Kind::Text),
    ("ticket.previous_signing_keys", Kind::TextList),
    ("admin.token", Kind::Text),
    ("admin.token_file", Kind::Text),
    ("log.level", Kind::Text),
    ("log.format", Kind::Text),
    ("demo.seed", Kind::Bool),
];

/// Keys whose values are never printed, each with the key that names a file to read it from.
const SECRETS: &[(&str, Option<&str>)] = &[
    ("store.mysql.url", None),
    ("store.mysql.password", Some("store.mysql.password_file")),
    ("store.mysql.replica_url", None),
    ("ticket.signing_key", Some("ticket.signing_key_file")),
    ("ticket.previous_signing_keys", None),
    ("admin.token", Some("admin.token_file")),
    ("events.kafka.password", Some("events.kafka.password_file")),
    ("queue.redis.password", Some("queue.redis.password_file")),
    ("queue.redis.sentinel_password", Some("queue.redis.sentinel_password_file")),
];

fn kind_of(key: &str) -> Option<Kind> {
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

fn is_section(key: &str) -> bool {
    KEYS.iter().any(|(name, _)| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// What to say of a key that does not exist: which one may have been meant. One underscore in place of
/// two in a variable's name is the commonest slip.
fn no_such_key(key: &str, source: &Source) -> String {
    let plain = |key: &str| key.replace('.', "_");
    let distance = |name: &str| strsim::osa_distance(&plain(name), &plain(key));
    let nearest = KEYS.iter().map(|(name, _)| *name).min_by_key(|name| distance(name));
    match (nearest.filter(|name| distance(name) <= 2), source) {
        (None, _) => "there is no such key".into(),
        (Some(name), Source::Env(_)) => {
            let variable = name.to_ascii_uppercase().replace('.', "__");
            format!("there is no such key; did you mean {name}, {ENV_PREFIX}{variable}?")
        }
        (Some(name), _) => format!("there is no such key; did you mean {name}?"),
    }
}

fn is_secret(key: &str) -> bool {
    // A type error is reported with an index, as in `ticket.previous_signing_keys[0]`.
    let key = key.split('[').next().unwrap_or(key);
    SECRETS.iter().any(|(name, _)| *name == key)
}

/// A value that must not reach a log, an error or `config show`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(<redacted>)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("<redacted>")
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of the embedded store, the event log and generated secrets; made where missing.
    pub data_dir: PathBuf,
    /// The HTTP side.
    pub server: ServerConfig,
    /// Where sales are kept.
    pub store: StoreConfig,
    /// The waiting queue.
    pub queue: QueueConfig,
    /// Rules of holds and payments.
    pub sales: SalesConfig,
    /// Where domain events go.
    pub events: EventsConfig,
    /// Signing of queue tickets.
    pub ticket: TicketConfig,
    /// The admin API.
    pub admin: AdminConfig,
    /// The service's own log.
    pub log: LogConfig,
    /// Demo data.
    pub demo: DemoConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            server: ServerConfig::default(),
            store: StoreConfig::default(),
            queue: QueueConfig::default(),
            sales: SalesConfig::default(),
            events: EventsConfig::default(),
            ticket: TicketConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
            demo: DemoConfig::default(),
        }
    }
}

/// `[server]`: listening, time-outs and limits.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Address and port to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Connections open at once; the next one is answered 503 and closed.
    pub max_connections: usize,
    /// Milliseconds from the first byte of a request to the end of its head.
    pub header_timeout_ms: u64,
    /// Milliseconds that a connection may stay open between requests.
    pub idle_timeout_ms: u64,
    /// Milliseconds to read a request body; then 408.
    pub body_timeout_ms: u64,
    /// Milliseconds without progress in writing a response; then the connection is cut.
    pub write_timeout_ms: u64,
    /// Largest request body, in bytes; over it 413.
    pub max_body_bytes: usize,
    /// Milliseconds that a shutdown waits for requests in progress.
    pub drain_timeout_ms: u64,
    /// Worker threads; 0 means one per CPU that the process may use.
    pub worker_threads: usize,
    /// Proxies in front of the service, as addresses or networks (`10.0.0.0/8`): the client is who they
    /// say it is, in `X-Forwarded-For`.
    pub trusted_proxies: Vec<String>,
    /// Requests in progress per class.
    pub concurrency: ConcurrencyConfig,
    /// How fast one client address may join the queue.
    pub join_rate: JoinRateConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_connections: 16_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 75_000,
            body_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            max_body_bytes: 65_536,
            drain_timeout_ms: 10_000,
            worker_threads: 0,
            trusted_proxies: Vec::new(),
            concurrency: ConcurrencyConfig::default(),
            join_rate: JoinRateConfig::default(),
        }
    }
}

impl ServerConfig {
    /// Time to read a request body.
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    /// The networks of the proxies.
    ///
    /// # Errors
    /// The first one that is neither an address nor a network.
    pub fn trusted_proxies(&self) -> Result<Vec<IpNet>, &str> {
        let network = |text: &'_ String| {
            text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()
        };
        self.trusted_proxies.iter().map(|text| network(text).ok_or(text.as_str())).collect()
    }

    /// Time that a shutdown waits for requests in progress.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

/// `[server.concurrency]`: requests in progress per class; one more is answered 503.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConcurrencyConfig {
    /// Payments and point charges.
    pub payment: usize,
    /// Reservations made and given back.
    pub reservation: usize,
    /// Queue status.
    pub poll: usize,
    /// Queue joins and leaves.
    pub join: usize,
    /// Concerts, sessions, seats, balances.
    pub browse: usize,
    /// The admin API.
    pub admin: usize,
}

impl Default for ConcurrencyConfig {
    fn default() -> Self {
        Self {
            payment: 4_096,
            reservation: 4_096,
            poll: 20_000,
            join: 20_000,
            browse: 2_048,
            admin: 64,
        }
    }
}

/// `[server.join_rate]`: token bucket per client address (an IPv6 client is its /64).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct JoinRateConfig {
    /// Joins per second and address; 0 switches the limit off.
    pub per_second: f64,
    /// Joins that an address may make at once before the rate applies.
    pub burst: u32,
}

impl Default for JoinRateConfig {
    fn default() -> Self {
        Self { per_second: 0.0, burst: 10 }
    }
}

/// Which store keeps the sales.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreKind {
    /// A SQLite file in the data directory.
    Sqlite,
    /// A MySQL or MariaDB database, which several instances may share.
    Mysql,
}

/// `[store]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// Commands that one transaction takes at most.
    pub batch_max: usize,
    /// Commands that may wait for the writer; one more is answered 503.
    pub queue_max: usize,
    /// The database of the kind `mysql`.
    pub mysql: MysqlConfig,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            batch_max: 512,
            queue_max: 16_384,
            mysql: MysqlConfig::default(),
        }
    }
}

/// Whether connections to the database are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MysqlTlsMode {
    /// Not at all.
    Off,
    /// Encrypted, whoever the server is.
    Required,
    /// Encrypted, and the server's certificate is checked.
    Verify,
}

/// `[store.mysql]`: where the database is. It must exist; its tables are made at the first start.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlConfig {
    /// `mysql://user:password@host:port/database`; where it is given, host, port, user and database
    /// are not looked at, and the password only if the URL has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// Name or address of the server.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The user to log in as.
    pub user: String,
    /// The user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File whose trimmed content is the password. After loading, `password` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The database.
    pub database: String,
    /// Whether connections are encrypted.
    pub tls: MysqlTlsMode,
    /// Certificates of the authorities that `verify` trusts, as PEM; none means the well-known ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Connections of this instance for purchases; some more are used for everything else.
    pub pool_size: usize,
    /// Milliseconds that a purchase waits for a connection; then 503.
    pub acquire_timeout_ms: u64,
    /// A replica from which seat lists may be read, as a URL like `url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_url: Option<Secret>,
}

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: "127.0.0.1".to_owned(),
            port: 3_306,
            user: "boxoffice".to_owned(),
            password: None,
            password_file: None,
            database: "boxoffice".to_owned(),
            tls: MysqlTlsMode::Off,
            tls_ca_file: None,
            pool_size: 32,
            acquire_timeout_ms: 250,
            replica_url: None,
        }
    }
}

impl MysqlConfig {
    /// The server that this names.
    ///
    /// # Errors
    /// What is wrong with the URL; it does not contain the URL.
    pub fn server(&self) -> Result<MysqlServer, String> {
        match &self.url {
            Some(url) => self.named_by(url),
            None => Ok(MysqlServer {
                host: self.host.clone(),
                port: self.port,
                user: self.user.clone(),
                password: self.secret(),
                database: self.database.clone(),
                tls: self.tls(),
            }),
        }
    }

    /// The replica, where there is one.
    ///
    /// # Errors
    /// What is wrong with the URL; it does not contain the URL.
    pub fn replica(&self) -> Result<Option<MysqlServer>, String> {
        self.replica_url.as_ref().map(|url| self.named_by(url)).transpose()
    }

    fn named_by(&self, url: &Secret) -> Result<MysqlServer, String> {
        let mut server = MysqlServer::from_url(url.expose(), self.tls())?;
        if server.password.is_empty() {
            server.password = self.secret();
        }
        Ok(server)
    }

    fn secret(&self) -> String {
        self.password.as_ref().map(|password| password.expose().to_owned()).unwrap_or_default()
    }

    fn tls(&self) -> MysqlTls {
        match self.tls {
            MysqlTlsMode::Off => MysqlTls::Off,
            MysqlTlsMode::Required => MysqlTls::Required,
            MysqlTlsMode::Verify => MysqlTls::Verify { ca_file: self.tls_ca_file.clone() },
        }
    }

    fn validate(&self, check: &mut Check) {
        if let Err(problem) = self.server() {
            check.problem("store.mysql.url", &problem);
        }
        if let Err(problem) = self.replica() {
            check.problem("store.mysql.replica_url", &problem);
        }
        for (key, value) in [
            ("store.mysql.host", &self.host),
            ("store.mysql.user", &self.user),
            ("store.mysql.database", &self.database),
        ] {
            if value.is_empty() {
                check.problem(key, "must not be empty");
            }
        }
        check.range("store.mysql.port", u64::from(self.port), 1, 65_535);
        check.range("store.mysql.pool_size", self.pool_size as u64, 1, 1_000);
        check.range("store.mysql.acquire_timeout_ms", self.acquire_timeout_ms, 1, 60_000);
        if self.tls_ca_file.is_some() && self.tls != MysqlTlsMode::Verify {
            check.problem(
                "store.mysql.tls_ca_file",
                "is only used with store.mysql.tls = \"verify\"",
            );
        }
    }
}

/// Which sequencer numbers the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueKind {
    /// In this process.
    Local,
    /// Shared by several instances, through Redis.
    Redis,
}

/// `[queue]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// Which sequencer.
    pub kind: QueueKind,
    /// Name of the queue that a join without a queue enters.
    pub default: String,
    /// Users admitted per second.
    pub admit_per_second: f64,
    /// Users admitted and not finished at once; none means no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_active: Option<u64>,
    /// Seconds that an admitted ticket stays good.
    pub active_ttl_seconds: u64,
    /// Seconds after which an admitted ticket that nobody used stops counting as active.
    pub claim_window_seconds: u64,
    /// Where Redis is, for the kind `redis`.
    pub redis: RedisConfig,
}

/// How Redis servers are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisKind {
    /// One server.
    Standalone,
    /// A master that sentinels watch over; `nodes` are the sentinels.
    Sentinel,
    /// Redis Cluster; `nodes` are some of its nodes.
    Cluster,
}

/// `[queue.redis]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// How the servers are arranged.
    pub mode: RedisKind,
    /// `host:port` of the server, of the sentinels, or of some nodes of the cluster.
    pub nodes: Vec<String>,
    /// Name of the master that the sentinels watch over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
    /// User at the servers; none means the default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password at the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File whose trimmed content is the password. After loading, `password` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Password at the sentinels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password: Option<Secret>,
    /// File with the password at the sentinels. After loading, `sentinel_password` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentinel_password_file: Option<PathBuf>,
    /// Number of the database; 0 in a cluster.
    pub database: u32,
    /// Whether connections are encrypted, to the sentinels too.
    pub tls: bool,
    /// PEM file of the authority that signed the servers' certificates; none means those that the
    /// system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ca_file: Option<PathBuf>,
    /// Names of keys begin with this, in braces.
    pub prefix: String,
    /// Milliseconds after which a call has failed and the store is asked instead.
    pub call_timeout_ms: u64,
    /// Milliseconds that an attempt to connect may take.
    pub connect_timeout_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            mode: RedisKind::Standalone,
            nodes: vec!["127.0.0.1:6379".to_owned()],
            master: None,
            user: None,
            password: None,
            password_file: None,
            sentinel_password: None,
            sentinel_password_file: None,
            database: 0,
            tls: false,
            tls_ca_file: None,
            prefix: "boxoffice".to_owned(),
            call_timeout_ms: 250,
            connect_timeout_ms: 1_000,
        }
    }
}

impl RedisConfig {
    /// `nodes` as hosts and ports; those that are neither are left out, which `validate` refuses.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        self.nodes.iter().filter_map(|node| host_and_port(node)).collect()
    }

    fn validate(&self, used: bool, check: &mut Check) {
        if self.nodes.is_empty() {
            check.problem("queue.redis.nodes", "must have at least one host:port");
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if host_and_port(node).is_none() {
                let key = format!("queue.redis.nodes[{index}]");
                check.problem(&key, "must be host:port, as in \"redis-1:6379\"");
            }
        }
        match (self.mode, &self.master) {
            (RedisKind::Sentinel, None) if used => {
                let message = "is needed with sentinels: the name that they know the master by";
                check.problem("queue.redis.master", message);
            }
            (RedisKind::Standalone | RedisKind::Cluster, Some(_)) => {
                let message = "is only for queue.redis.mode = \"sentinel\"; leave it out";
                check.problem("queue.redis.master", message);
            }
            _ => {}
        }
        if self.mode == RedisKind::Standalone && self.nodes.len() > 1 {
            let message = "may have only one server where queue.redis.mode is \"standalone\"";
            check.problem("queue.redis.nodes", message);
        }
        if self.mode == RedisKind::Cluster && self.database != 0 {
            check.problem("queue.redis.database", "must be 0: a cluster has no other");
        }
        if self.mode != RedisKind::Sentinel && self.sentinel_password.is_some() {
            let message = "is only for queue.redis.mode = \"sentinel\"; leave it out";
            check.problem("queue.redis.sentinel_password", message);
        }
        if self.user.is_some() && self.password.is_none() {
            check.problem("queue.redis.password", "is needed with queue.redis.user");
        }
        if self.tls_ca_file.is_some() && !self.tls {
            check.problem("queue.redis.tls_ca_file", "needs queue.redis.tls = true");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.bytes().all(plain) {
            let message = "must be 1 to 64 letters, digits, '-', '_' and '.'";
            check.problem("queue.redis.prefix", message);
        }
        check.range("queue.redis.call_timeout_ms", self.call_timeout_ms, 10, 10_000);
        check.range("queue.redis.connect_timeout_ms", self.connect_timeout_ms, 10, 60_000);
    }
}

/// An IPv6 address stands in brackets.
fn host_and_port(node: &str) -> Option<(String, u16)> {
    let (host, port) = node.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains([':', '/', '@']) => return None,
        None => host,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            kind: QueueKind::Local,
            default: "main".to_owned(),
            admit_per_second: 300.0,
            max_active: None,
            active_ttl_seconds: 300,
            claim_window_seconds: 30,
            redis: RedisConfig::default(),
        }
    }
}

/// `[sales]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SalesConfig {
    /// Seconds that seats are held for a buyer.
    pub hold_seconds: u64,
    /// Seats in one reservation.
    pub max_seats_per_reservation: usize,
    /// Seats of one session that one user may hold or own.
    pub max_seats_per_user: usize,
    /// Hours that the answer to an idempotency key is kept; the contract promises 24.
    pub idempotency_hours: u64,
}

impl Default for SalesConfig {
    fn default() -> Self {
        Self {
            hold_seconds: 300,
            max_seats_per_reservation: 4,
            max_seats_per_user: 4,
            idempotency_hours: 24,
        }
    }
}

/// Where events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventsKind {
    /// One JSON document per line, appended to a file.
    Jsonl,
    /// Topics of Kafka.
    Kafka,
}

/// `[events]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Which publisher.
    pub kind: EventsKind,
    /// File of the `jsonl` publisher; none means `events.jsonl` in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The `kafka` publisher, and where `boxoffice consume` reads.
    pub kafka: KafkaConfig,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { kind: EventsKind::Jsonl, path: None, kafka: KafkaConfig::default() }
    }
}

/// How a connection to Kafka is protected, by the protocol's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaSecurity {
    /// Not at all.
    Plaintext,
    /// Credentials over a connection that is not encrypted.
    SaslPlaintext,
    /// TLS.
    Ssl,
    /// Credentials over TLS.
    SaslSsl,
}

/// How credentials are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub enum SaslMechanism {
    /// As they are.
    #[serde(rename = "PLAIN")]
    Plain,
    /// By a challenge, with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// By a challenge, with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// `[events.kafka]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port` of some brokers, separated by commas.
    pub brokers: String,
    /// What the names of the topics start with.
    pub topic_prefix: String,
    /// The name that the brokers log and apply quotas to.
    pub client_id: String,
    /// How the connection is protected.
    pub security: KafkaSecurity,
    /// Certificates (PEM) to check the brokers' against; none means those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How credentials are given.
    pub sasl_mechanism: SaslMechanism,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// File whose trimmed content is the password. After loading, `password` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Partitions of a topic that does not exist and is made.
    pub partitions: u32,
    /// Copies of each partition of such a topic; none means the brokers' default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<u32>,
    /// Milliseconds that a hand-over waits for the brokers' acknowledgement.
    pub delivery_timeout_ms: u64,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            topic_prefix: String::new(),
            client_id: "boxoffice".to_owned(),
            security: KafkaSecurity::Plaintext,
            ca_file: None,
            sasl_mechanism: SaslMechanism::Plain,
            username: None,
            password: None,
            password_file: None,
            partitions: 6,
            replication: None,
            delivery_timeout_ms: 10_000,
        }
    }
}

impl KafkaConfig {
    /// How to reach it.
    pub fn connection(&self) -> KafkaConnection {
        let (tls, sasl) = match self.security {
            KafkaSecurity::Plaintext => (false, false),
            KafkaSecurity::SaslPlaintext => (false, true),
            KafkaSecurity::Ssl => (true, false),
            KafkaSecurity::SaslSsl => (true, true),
        };
        let mechanism = match self.sasl_mechanism {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        };
        KafkaConnection {
            brokers: self.brokers.clone(),
            client_id: self.client_id.clone(),
            topic_prefix: self.topic_prefix.clone(),
            tls,
            ca_file: self.ca_file.clone(),
            sasl: sasl.then(|| KafkaSasl {
                mechanism: mechanism.to_owned(),
                username: self.username.clone().unwrap_or_default(),
                password: self.password.as_ref().map_or("", Secret::expose).to_owned(),
            }),
        }
    }

    /// How topics are made.
    pub fn topic_plan(&self) -> TopicPlan {
        let count = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        TopicPlan { partitions: count(self.partitions), replication: self.replication.map(count) }
    }

    fn validate(&self, check: &mut Check, needed: bool) {
        if self.brokers.trim().is_empty() {
            if needed {
                check.problem(
                    "events.kafka.brokers",
                    "is needed: host:port of some brokers, separated by commas",
                );
            }
        } else if !self.brokers.split(',').all(is_host_and_port) {
            check.problem("events.kafka.brokers", "must be host:port, separated by commas");
        }
        // 249 is Kafka's bound for a whole name.
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if self.topic_prefix.len() > 200 || !self.topic_prefix.chars().all(letters) {
            check.problem(
                "events.kafka.topic_prefix",
                "must be at most 200 characters of a-z, A-Z, 0-9, '.', '_' and '-'",
            );
        }
        check.range("events.kafka.partitions", self.partitions.into(), 1, 10_000);
        if let Some(replication) = self.replication {
            check.range("events.kafka.replication", replication.into(), 1, 100);
        }
        check.range("events.kafka.delivery_timeout_ms", self.delivery_timeout_ms, 100, 600_000);
        let connection = self.connection();
        if connection.sasl.is_some() {
            if self.username.as_deref().unwrap_or_default().is_empty() {
                check.problem("events.kafka.username", "is needed with this events.kafka.security");
            }
            if self.password.is_none() {
                check.problem(
                    "events.kafka.password",
                    "is needed with this events.kafka.security, or events.kafka.password_file",
                );
            }
        } else if self.username.is_some() || self.password.is_some() {
            check.problem(
                "events.kafka.security",
                "must be sasl_plaintext or sasl_ssl where a user or a password is given",
            );
        }
        let scram = connection.sasl.is_some() && self.sasl_mechanism != SaslMechanism::Plain;
        if (connection.tls || scram) && !KAFKA_TLS {
            check.problem(
                if connection.tls {
                    "events.kafka.security"
                } else {
                    "events.kafka.sasl_mechanism"
                },
                "needs a program that was built with `cargo build --release --features kafka-tls`",
            );
        }
        if let Some(file) = &self.ca_file
            && !file.is_file()
        {
            check.problem("events.kafka.ca_file", "is not a file that can be read");
        }
    }
}

fn is_host_and_port(text: &str) -> bool {
    let host_and_port = text.trim().rsplit_once(':');
    host_and_port.is_some_and(|(host, port)| {
        let host_is_plain = !host.is_empty() && !host.contains(char::is_whitespace);
        host_is_plain && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

/// `[ticket]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TicketConfig {
    /// Key that signs tickets, at least 32 bytes; none means one generated into the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<Secret>,
    /// File whose trimmed content is the signing key. After loading, `signing_key` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key_file: Option<PathBuf>,
    /// Keys that are still accepted but no longer sign, each at least 32 bytes.
    pub previous_signing_keys: Vec<Secret>,
}

/// `[admin]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Bearer token, at least 16 bytes; none means one generated into the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// File whose trimmed content is the token. After loading, `token` holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text where standard error is a terminal, JSON elsewhere.
    Auto,
    /// One line for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `tracing` filter directives, such as `info` or `info,boxoffice::http=debug`.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

/// `[demo]`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoConfig {
    /// Whether an empty store is filled with demo data.
    pub seed: bool,
}

impl Default for DemoConfig {
    fn default() -> Self {
        Self { seed: true }
    }
}

/// The layer that a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Env(String),
    /// `--set key=value` or a flag of its own.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(key) => write!(f, "flag --set {key}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Full path of the key, such as `server.listen`; empty where a whole file is unreadable.
    pub key: String,
    /// Where the value came from; none for a built-in default.
    pub source: Option<Source>,
    /// What is wrong with it. Never contains a secret.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, " (from {source})"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration, so that an operator corrects it in one go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The problems, at least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.problems.len() == 1 { "" } else { "s" };
        write!(f, "the configuration has {} problem{plural}:", self.problems.len())?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// What [`Config::load`] reads.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--config FILE`; must exist. Without it `BOXOFFICE_CONFIG`, then `boxoffice.toml` in
    /// [`LoadOptions::working_dir`] where it exists.
    pub config_file: Option<PathBuf>,
    /// Flags as `(key path, text)`; a later one wins.
    pub overrides: Vec<(String, String)>,
    /// The environment; only names that start with `BOXOFFICE_` are looked at.
    pub env: Vec<(String, String)>,
    /// Where `boxoffice.toml` is looked for; none means the process's working directory.
    pub working_dir: Option<PathBuf>,
}

impl LoadOptions {
    /// Options with the process's own environment. A name or value that is not UTF-8 is replaced
    /// lossily, so that it is reported and not silently ignored.
    pub fn from_process(config_file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        let env = std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .collect();
        Self { config_file, overrides, env, working_dir: None }
    }
}

/// Admissions a second that a queue can be asked for. Rates count to the thousandth.
pub const RATES: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// A validated configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Source by key path, for the keys that some layer set.
    pub sources: BTreeMap<String, Source>,
}

impl Loaded {
    /// The whole configuration as TOML with secrets redacted; each value that some layer set is
    /// followed by a comment that says which.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let mut section = String::new();
        for line in self.config.to_toml().lines() {
            out.push_str(line);
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some((key, _)) = line.split_once(" = ")
                && let Some(source) = self.sources.get(&format!("{section}{key}"))
            {
                out.push_str("  # from ");
                out.push_str(&source.to_string());
            }
            out.push('\n');
        }
        out
    }
}

impl Config {
    /// Reads all layers, resolves secrets that are given as files, and validates.
    ///
    /// # Errors
    /// [`ConfigError`] with everything found: unreadable file, unknown key or variable, wrong type,
    /// a secret given twice; and, where all of that is in order, every value out of range.
    pub fn load(options: LoadOptions) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::default();
        let env_file = options
            .env
            .iter()
            .find(|(name, _)| name == ENV_CONFIG_FILE)
            .map(|(_, value)| PathBuf::from(value));
        match options.config_file.or(env_file) {
            Some(path) => layers.read_file(&path),
            None => {
                let path = options.working_dir.unwrap_or_default().join(DEFAULT_FILE);
                if path.exists() {
                    layers.read_file(&path);
                }
            }
        }
        for (name, value) in &options.env {
            layers.read_env(name, value);
        }
        for (key, value) in &options.overrides {
            layers.set_text(key, value, Source::Flag(key.clone()));
        }
        layers.read_secret_files();
        layers.finish()
    }

    /// Checks every value and every relation between values.
    ///
    /// # Errors
    /// [`ConfigError`] with all problems, not only the first.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut check = Check::default();
        self.validate_server(&mut check);
        self.validate_rules(&mut check);
        self.validate_secrets_and_log(&mut check);
        if check.problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { problems: check.problems })
        }
    }

    /// The configuration as TOML; secrets are replaced by `<redacted>`.
    pub fn to_toml(&self) -> String {
        // Serialising these structs cannot fail: there is no map with a key that is not a string.
        toml::to_string(self).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
    }

    /// The file of the `jsonl` publisher.
    pub fn events_path(&self) -> PathBuf {
        self.events.path.clone().unwrap_or_else(|| self.data_dir.join("events.jsonl"))
    }

    fn validate_server(&self, check: &mut Check) {
        let server = &self.server;
        check.directory("data_dir", &self.data_dir);
        check.range("server.max_connections", server.max_connections as u64, 1, 1_000_000);
        for (key, value) in [
            ("server.header_timeout_ms", server.header_timeout_ms),
            ("server.idle_timeout_ms", server.idle_timeout_ms),
            ("server.body_timeout_ms", server.body_timeout_ms),
            ("server.write_timeout_ms", server.write_timeout_ms),
        ] {
            check.range(key, value, 1, 3_600_000);
        }
        check.range("server.drain_timeout_ms", server.drain_timeout_ms, 0, 600_000);
        check.range("server.max_body_bytes", server.max_body_bytes as u64, 1_024, 16_777_216);
        check.range("server.worker_threads", server.worker_threads as u64, 0, 1_024);
        let classes = &server.concurrency;
        for (key, value) in [
            ("server.concurrency.payment", classes.payment),
            ("server.concurrency.reservation", classes.reservation),
            ("server.concurrency.poll", classes.poll),
            ("server.concurrency.join", classes.join),
            ("server.concurrency.browse", classes.browse),
            ("server.concurrency.admin", classes.admin),
        ] {
            check.range(key, value as u64, 1, 1_000_000);
        }
        if let Err(text) = server.trusted_proxies() {
            check.problem(
                "server.trusted_proxies",
                &format!("{text:?} is neither an address nor a network such as 10.0.0.0/8"),
            );
        }
        let rate = &server.join_rate;
        if !(0.0..=1_000_000.0).contains(&rate.per_second) {
            check.problem("server.join_rate.per_second", "must be between 0 (off) and 1000000");
        }
        check.range("server.join_rate.burst", u64::from(rate.burst), 1, 1_000_000);
    }

    fn validate_rules(&self, check: &mut Check) {
        let store = &self.store;
        check.range("store.batch_max", store.batch_max as u64, 1, 65_536);
        check.range("store.queue_max", store.queue_max as u64, 1, 1_000_000);
        if store.queue_max < store.batch_max {
            check.problem("store.queue_max", "must not be below store.batch_max");
        }
        store.mysql.validate(check);

        let queue = &self.queue;
        if QueueName::new(&queue.default).is_none() {
            check.problem("queue.default", "must be 1 to 40 characters of a-z, 0-9, '-' and '_'");
        }
        if !RATES.contains(&queue.admit_per_second) {
            check.problem("queue.admit_per_second", "must be from 0.001 to 1000000");
        }
        if let Some(max_active) = queue.max_active {
            check.range("queue.max_active", max_active, 1, 1_000_000_000);
        }
        check.range("queue.active_ttl_seconds", queue.active_ttl_seconds, 1, 86_400);
        check.range("queue.claim_window_seconds", queue.claim_window_seconds, 1, 86_400);
        if queue.claim_window_seconds > queue.active_ttl_seconds {
            check.problem(
                "queue.claim_window_seconds",
                "must not be above queue.active_ttl_seconds",
            );
        }
        queue.redis.validate(queue.kind == QueueKind::Redis, check);

        let sales = &self.sales;
        check.range("sales.hold_seconds", sales.hold_seconds, 1, 86_400);
        check.range(
            "sales.max_seats_per_reservation",
            sales.max_seats_per_reservation as u64,
            1,
            1_000,
        );
        check.range("sales.max_seats_per_user", sales.max_seats_per_user as u64, 1, 100_000);
        check.range("sales.idempotency_hours", sales.idempotency_hours, 24, 8_760);

        if let Some(path) = &self.events.path {
            if path.as_os_str().is_empty() {
                check.problem("events.path", "must not be empty");
            } else if path.is_dir() {
                check.problem("events.path", "is a directory, a file is needed");
            }
        }
        self.events.kafka.validate(check, self.events.kind == EventsKind::Kafka);
    }

    fn validate_secrets_and_log(&self, check: &mut Check) {
        if let Some(key) = &self.ticket.signing_key
            && key.expose().len() < 32
        {
            check.problem("ticket.signing_key", "must be at least 32 bytes");
        }
        for (index, key) in self.ticket.previous_signing_keys.iter().enumerate() {
            if key.expose().len() < 32 {
                check.problem(
                    &format!("ticket.previous_signing_keys[{index}]"),
                    "must be at least 32 bytes",
                );
            }
        }
        if let Some(token) = &self.admin.token {
            if token.expose().len() < 16 {
                check.problem("admin.token", "must be at least 16 bytes");
            }
            // It travels in an Authorization header, where a space would end it.
            if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
                check.problem("admin.token", "must be visible ASCII without spaces");
            }
        }
        if let Err(message) = crate::telemetry::check_directives(&self.log.level) {
            check.problem("log.level", &message);
        }
    }
}

#[derive(Default)]
struct Check {
    problems: Vec<ConfigProblem>,
}

impl Check {
    fn problem(&mut self, key: &str, message: &str) {
        self.problems.push(ConfigProblem {
            key: key.to_owned(),
            source: None,
            message: message.to_owned(),
        });
    }

    fn range(&mut self, key: &str, value: u64, min: u64, max: u64) {
        if !(min..=max).contains(&value) {
            self.problem(key, &format!("must be between {min} and {max}, not {value}"));
        }
    }

    fn directory(&mut self, key: &str, path: &Path) {
        if path.as_os_str().is_empty() {
            self.problem(key, "must not be empty");
        } else if path.exists() && !path.is_dir() {
            self.problem(key, "exists and is not a directory");
        }
    }
}

/// The layers while they are being merged.
#[derive(Default)]
struct Layers {
    merged: Table,
    sources: BTreeMap<String, Source>,
    problems: Vec<ConfigProblem>,
}

impl Layers {
    fn problem(&mut self, key: &str, source: Source, message: impl Into<String>) {
        self.problems.push(ConfigProblem {
            key: key.to_owned(),
            source: Some(source),
            message: message.into(),
        });
    }

    fn read_file(&mut self, path: &Path) {
        let source = Source::File(path.to_owned());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.problem("", source, format!("cannot be read: {error}")),
        };
        match text.parse::<Table>() {
            Ok(table) => self.merge_table("", table, &source),
            // Only the message and the line: the rendered error quotes the line, which may be a
            // secret.
            Err(error) => {
                let line = error
                    .span()
                    .and_then(|span| text.get(..span.start))
                    .map_or(1, |before| before.matches('\n').count() + 1);
                let message = format!("is not TOML at line {line}: {}", error.message());
                self.problem("", source, message);
            }
        }
    }

    fn merge_table(&mut self, prefix: &str, table: Table, source: &Source) {
        for (name, value) in table {
            let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
            match value {
                Value::Table(inner) if is_section(&key) => self.merge_table(&key, inner, source),
                value if kind_of(&key).is_some() => self.set(&key, value, source.clone()),
                _ if is_section(&key) => {
                    self.problem(&key, source.clone(), "is a section, not a value");
                }
                _ => self.problem(&key, source.clone(), no_such_key(&key, source)),
            }
        }
    }

    fn read_env(&mut self, name: &str, value: &str) {
        if name == ENV_CONFIG_FILE || name.starts_with(ENV_TEST_PREFIX) {
            return;
        }
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else { return };
        let key = rest.to_ascii_lowercase().replace("__", ".");
        self.set_text(&key, value, Source::Env(name.to_owned()));
    }

    /// Sets a key from text, read as what the key needs. So `12345` is a fine signing key and
    /// `300` a fine rate.
    fn set_text(&mut self, key: &str, text: &str, source: Source) {
        let Some(kind) = kind_of(key) else {
            let message = if is_section(key) {
                "is a section, not a value".into()
            } else {
                no_such_key(key, &source)
            };
            return self.problem(key, source, message);
        };
        let trimmed = text.trim();
        let parsed = match kind {
            Kind::Text => Ok(Value::String(text.to_owned())),
            Kind::Integer => trimmed
                .replace('_', "")
                .parse::<i64>()
                .map(Value::Integer)
                .map_err(|_| format!("must be a whole number, not {text:?}")),
            Kind::Float => trimmed
                .parse::<f64>()
                .map(Value::Float)
                .map_err(|_| format!("must be a number, not {text:?}")),
            Kind::Bool => match trimmed {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(format!("must be true or false, not {text:?}")),
            },
            Kind::TextList => Ok(parse_list(trimmed)),
        };
        match parsed {
            Ok(value) => self.set(key, value, source),
            Err(message) => self.problem(key, source, message),
        }
    }

    fn set(&mut self, key: &str, value: Value, source: Source) {
        insert(&mut self.merged, key, value);
        self.sources.insert(key.to_owned(), source);
    }

    fn get_text(&self, key: &str) -> Option<&str> {
        let mut table = &self.merged;
        let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            table = table.get(section)?.as_table()?;
        }
        table.get(name)?.as_str()
    }

    fn read_secret_files(&mut self) {
        for (key, file_key) in SECRETS {
            let Some(file_key) = file_key else { continue };
            let Some(source) = self.sources.get(*file_key).cloned() else { continue };
            let Some(path) = self.get_text(file_key).map(PathBuf::from) else { continue };
            if let Some(other) = self.sources.get(*key) {
                let message = format!("{key} is given too (from {other}); give one of the two");
                self.problem(file_key, source, message);
                continue;
            }
            match std::fs::read_to_string(&path) {
                Ok(text) if text.trim().is_empty() => {
                    self.problem(file_key, source, format!("{} is empty", path.display()));
                }
                Ok(text) => {
                    let value = Value::String(text.trim().to_owned());
                    // The file is where the value came from, for messages about its length.
                    self.set(key, value, Source::File(path));
                }
                Err(error) => {
                    let message = format!("{} cannot be read: {error}", path.display());
                    self.problem(file_key, source, message);
                }
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, ConfigError> {
        let config = match serde_path_to_error::deserialize::<_, Config>(self.merged.clone()) {
            Ok(config) => Some(config),
            Err(error) => {
                let key = error.path().to_string();
                let message = if is_secret(&key) {
                    // The message would quote the value.
                    "has the wrong type; a string is needed".to_owned()
                } else {
                    error.inner().message().trim().to_owned()
                };
                let source = self.source_of(&key);
                self.problems.push(ConfigProblem { key, source, message });
                None
            }
        };
        match config {
            Some(config) if self.problems.is_empty() => match config.validate() {
                Ok(()) => Ok(Loaded { config, sources: self.sources }),
                Err(mut error) => {
                    for problem in &mut error.problems {
                        problem.source = self.source_of(&problem.key);
                    }
                    Err(error)
                }
            },
            _ => Err(ConfigError { problems: self.problems }),
        }
    }

    fn source_of(&self, key: &str) -> Option<Source> {
        self.sources.get(key.split('[').next().unwrap_or(key)).cloned()
    }
}

fn parse_list(text: &str) -> Value {
    if text.starts_with('[')
        && let Ok(mut table) = format!("v = {text}").parse::<Table>()
        && let Some(value) = table.remove("v")
    {
        return value;
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            let inner =
                table.entry(section.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            // `KEYS` has no key that is also a section, so this is always a table.
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn options(dir: &tempfile::TempDir) -> LoadOptions {
        LoadOptions { working_dir: Some(dir.path().to_owned()), ..LoadOptions::default() }
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn error(options: LoadOptions) -> String {
        Config::load(options).unwrap_err().to_string()
    }

    #[test]
    fn keys_match_the_structs() {
        let full = Config {
            store: StoreConfig {
                mysql: MysqlConfig {
                    url: Some(Secret::new("u")),
                    password: Some(Secret::new("p")),
                    password_file: Some("f".into()),
                    tls_ca_file: Some("f".into()),
                    replica_url: Some(Secret::new("u")),
                    ..MysqlConfig::default()
                },
                ..StoreConfig::default()
            },
            queue: QueueConfig {
                max_active: Some(1),
                redis: RedisConfig {
                    master: Some("m".into()),
                    user: Some("u".into()),
                    password: Some(Secret::new("p")),
                    password_file: Some("f".into()),
                    sentinel_password: Some(Secret::new("p")),
                    sentinel_password_file: Some("f".into()),
                    tls_ca_file: Some("f".into()),
                    ..RedisConfig::default()
                },
                ..QueueConfig::default()
            },
            events: EventsConfig {
                path: Some("e".into()),
                kafka: KafkaConfig {
                    ca_file: Some("f".into()),
                    username: Some("u".into()),
                    password: Some(Secret::new("p")),
                    password_file: Some("f".into()),
                    replication: Some(1),
                    ..KafkaConfig::default()
                },
                ..EventsConfig::default()
            },
            ticket: TicketConfig {
                signing_key: Some(Secret::new("k")),
                signing_key_file: Some("f".into()),
                previous_signing_keys: vec![],
            },
            admin: AdminConfig { token: Some(Secret::new("t")), token_file: Some("f".into()) },
            ..Config::default()
        };
        fn walk(prefix: &str, table: &Table, out: &mut Vec<String>) {
            for (name, value) in table {
                let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                match value {
                    Value::Table(inner) => walk(&key, inner, out),
                    _ => out.push(key),
                }
            }
        }
        let mut found = Vec::new();
        walk("", &Table::try_from(&full).unwrap(), &mut found);
        found.sort();
        let mut listed: Vec<String> = KEYS.iter().map(|(key, _)| (*key).to_owned()).collect();
        listed.sort();
        assert_eq!(found, listed);
    }

    #[test]
    fn defaults_are_valid_and_nothing_is_needed() {
        let dir = dir();
        let loaded = Config::load(options(&dir)).unwrap();
        assert_eq!(loaded.config, Config::default());
        assert!(loaded.sources.is_empty());
    }

    #[test]
    fn later_layers_win_and_say_so() {
        let dir = dir();
        let file = dir.path().join("boxoffice.toml");
        std::fs::write(
            &file,
            "data_dir = 'a'\n[queue]\nadmit_per_second = 1\nmax_active = 5\n[server]\nlisten = '127.0.0.1:1'\n",
        )
        .unwrap();
        let mut options = options(&dir);
        options.env = pairs(&[
            ("BOXOFFICE_SERVER__LISTEN", "127.0.0.1:2"),
            ("BOXOFFICE_QUEUE__ADMIT_PER_SECOND", "2"),
            ("BOXOFFICE_TEST_BLESS", "1"),
            ("HOME", "/"),
        ]);
        options.overrides = pairs(&[("server.listen", "127.0.0.1:3")]);
        let loaded = Config::load(options).unwrap();
        assert_eq!(loaded.config.data_dir, PathBuf::from("a"));
        assert_eq!(loaded.config.queue.admit_per_second, 2.0);
        assert_eq!(loaded.config.queue.max_active, Some(5));
        assert_eq!(loaded.config.server.listen.port(), 3);
        assert_eq!(loaded.sources["data_dir"], Source::File(file));
        let shown = loaded.to_toml();
        assert!(
            shown.contains("listen = \"127.0.0.1:3\"  # from flag --set server.listen"),
            "{shown}"
        );
        assert!(
            shown.contains(
                "admit_per_second = 2.0  # from environment variable BOXOFFICE_QUEUE__ADMIT_PER_SECOND"
            ),
            "{shown}"
        );
        assert!(shown.parse::<Table>().is_ok(), "{shown}");
    }

    #[test]
    fn the_named_file_must_exist() {
        let dir = dir();
        let missing = dir.path().join("nowhere.toml");
        let mut with_flag = options(&dir);
        with_flag.config_file = Some(missing.clone());
        assert!(error(with_flag).contains("nowhere.toml"));
        let mut with_env = options(&dir);
        with_env.env = vec![("BOXOFFICE_CONFIG".into(), missing.display().to_string())];
        assert!(error(with_env).contains("cannot be read"));
    }

    #[test]
    fn unknown_keys_are_named_with_their_source() {
        let dir = dir();
        std::fs::write(dir.path().join("boxoffice.toml"), "[server]\nlissten = 'x'\nport = 1\n")
            .unwrap();
        let mut options = options(&dir);
        options.env = pairs(&[
            ("BOXOFFICE_SERVR__LISTEN", "x"),
            ("BOXOFFICE_DATA__DIR", "x"),
            ("BOXOFFICE_COLOUR", "x"),
        ]);
        options.overrides = pairs(&[("queue.rate", "1"), ("queue", "1")]);
        let text = error(options);
        for part in [
            "7 problems",
            "server.lissten: there is no such key; did you mean server.listen? (from file ",
            "servr.listen: there is no such key; did you mean server.listen, BOXOFFICE_SERVER__LISTEN? (from",
            "data.dir: there is no such key; did you mean data_dir, BOXOFFICE_DATA_DIR? (from",
            "colour: there is no such key (from environment variable BOXOFFICE_COLOUR)",
            "queue.rate: there is no such key (from flag --set queue.rate)",
            "queue: is a section",
        ] {
            assert!(text.contains(part), "{part:?} missing in {text}");
        }
    }

    #[test]
    fn wrong_types_are_named_with_their_source() {
        let dir = dir();
        let file = dir.path().join("boxoffice.toml");
        std::fs::write(&file, "[server]\nlisten = 'nonsense'\n").unwrap();
        let text = error(options(&dir));
        assert!(text.contains("server.listen: ") && text.contains("boxoffice.toml"), "{text}");

        std::fs::write(&file, "[store]\nkind = 'oracle'\n").unwrap();
        let text = error(options(&dir));
        assert!(text.contains("store.kind: ") && text.contains("sqlite"), "{text}");

        std::fs::write(&file, "[server\n").unwrap();
        assert!(error(options(&dir)).contains("is not TOML at line 1"));

        std::fs::remove_file(&file).unwrap();
        let mut env = options(&dir);
        env.env = pairs(&[("BOXOFFICE_DEMO__SEED", "yes"), ("BOXOFFICE_STORE__BATCH_MAX", "many")]);
        let text = error(env);
        assert!(text.contains("demo.seed: must be true or false"), "{text}");
        assert!(text.contains("store.batch_max: must be a whole number"), "{text}");
    }

    #[test]
    fn text_is_read_as_what_the_key_needs() {
        let dir = dir();
        let mut options = options(&dir);
        let number = "1".repeat(40);
        options.env = vec![
            ("BOXOFFICE_TICKET__SIGNING_KEY".into(), number.clone()),
            ("BOXOFFICE_TICKET__PREVIOUS_SIGNING_KEYS".into(), format!("{number}, {number}")),
        ];
        options.overrides = pairs(&[("store.queue_max", "20_000"), ("demo.seed", "false")]);
        let config = Config::load(options).unwrap().config;
        assert_eq!(config.ticket.signing_key.unwrap().expose(), number);
        assert_eq!(config.ticket.previous_signing_keys.len(), 2);
        assert_eq!(config.store.queue_max, 20_000);
        assert!(!config.demo.seed);
    }

    #[test]
    fn redis_is_checked_as_a_whole() {
        let dir = dir();
        let with = |pairs_of: &[(&str, &str)]| {
            let mut options = options(&dir);
            options.overrides = pairs(pairs_of);
            Config::load(options)
        };
        let loaded = with(&[
            ("queue.kind", "redis"),
            ("queue.redis.mode", "sentinel"),
            ("queue.redis.nodes", "a:26379, [::1]:26380"),
            ("queue.redis.master", "mymaster"),
            ("queue.redis.password", "very secret"),
            ("queue.redis.sentinel_password", "quite secret"),
        ]);
        let config = loaded.unwrap().config;
        let addresses = [("a".to_owned(), 26_379), ("::1".to_owned(), 26_380)];
        assert_eq!(config.queue.redis.addresses(), addresses);
        assert!(!config.to_toml().contains("secret\""), "{}", config.to_toml());
        for (key, problem) in [
            (&[("queue.redis.mode", "sentinel"), ("queue.kind", "redis")][..], "master"),
            (&[("queue.redis.master", "m")][..], "leave it out"),
            (&[("queue.redis.nodes", "redis://a:1")][..], "host:port"),
            (&[("queue.redis.nodes", "a:1,b:1")][..], "only one server"),
            (&[("queue.redis.nodes", "a")][..], "host:port"),
            (&[("queue.redis.user", "u")][..], "queue.redis.password"),
            (&[("queue.redis.prefix", "a{b")][..], "queue.redis.prefix"),
            (&[("queue.redis.tls_ca_file", "f")][..], "queue.redis.tls = true"),
            (&[("queue.redis.mode", "cluster"), ("queue.redis.database", "1")][..], "must be 0"),
            (&[("queue.redis.call_timeout_ms", "1")][..], "between 10 and 10000"),
        ] {
            let error = with(key).unwrap_err().to_string();
            assert!(error.contains(problem), "{key:?}: {error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_never_shown() {
        let dir = dir();
        let key = "k".repeat(32);
        let path = dir.path().join("key");
        std::fs::write(&path, format!("{key}\n")).unwrap();
        let mut from_file = options(&dir);
        from_file.overrides = vec![("ticket.signing_key_file".into(), path.display().to_string())];
        let loaded = Config::load(from_file.clone()).unwrap();
        assert_eq!(loaded.config.ticket.signing_key.as_ref().unwrap().expose(), key);
        assert!(!loaded.to_toml().contains(&key));
        assert!(!format!("{loaded:?}").contains(&key));

        from_file.env = pairs(&[("BOXOFFICE_TICKET__SIGNING_KEY", "secret-secret")]);
        let text = error(from_file);
        assert!(
            text.contains("ticket.signing_key_file: ticket.signing_key is given too"),
            "{text}"
        );
        assert!(!text.contains("secret-secret"), "{text}");

        std::fs::write(dir.path().join("boxoffice.toml"), "[admin]\ntoken = 987654321987654321\n")
            .unwrap();
        let text = error(options(&dir));
        assert!(text.contains("admin.token: has the wrong type"), "{text}");
        assert!(!text.contains("987654321987654321"), "{text}");
    }

    #[test]
    fn a_database_is_named_by_parts_or_by_a_url_and_its_password_is_hidden() {
        let dir = dir();
        let mut parts = options(&dir);
        std::fs::write(dir.path().join("password"), "pass-word\n").unwrap();
        let file = dir.path().join("password").display().to_string();
        parts.env = pairs(&[("BOXOFFICE_STORE__KIND", "mysql")]);
        parts.overrides = pairs(&[
            ("store.mysql.host", "db"),
            ("store.mysql.password_file", &file),
            ("store.mysql.tls", "verify"),
        ]);
        let loaded = Config::load(parts.clone()).unwrap();
        let server = loaded.config.store.mysql.server().unwrap();
        assert_eq!((server.host.as_str(), server.port), ("db", 3_306));
        assert_eq!((server.user.as_str(), server.password.as_str()), ("boxoffice", "pass-word"));
        assert_eq!(server.tls, MysqlTls::Verify { ca_file: None });
        assert!(!loaded.to_toml().contains("pass-word"), "{}", loaded.to_toml());

        let mut url = options(&dir);
        url.env = pairs(&[(
            "BOXOFFICE_STORE__MYSQL__URL",
            "mysql://me:pass%20phrase@[::1]:3307/tickets",
        )]);
        url.overrides = pairs(&[("store.mysql.replica_url", "mysql://me@copy/tickets")]);
        let loaded = Config::load(url).unwrap();
        let server = loaded.config.store.mysql.server().unwrap();
        assert_eq!((server.port, server.database.as_str()), (3_307, "tickets"));
        assert_eq!((server.user.as_str(), server.password.as_str()), ("me", "pass phrase"));
        assert_eq!(server.host, "::1");
        let replica = loaded.config.store.mysql.replica().unwrap().unwrap();
        assert_eq!((replica.host.as_str(), replica.port), ("copy", 3_306));
        for text in [loaded.to_toml(), format!("{loaded:?}")] {
            assert!(!text.contains("phrase"), "{text}");
        }

        for (key, value, complaint) in [
            ("store.mysql.url", "postgres://x/y", "must look like mysql://"),
            ("store.mysql.url", "mysql://host-phrase", "names no database"),
            ("store.mysql.database", "", "must not be empty"),
            ("store.mysql.pool_size", "0", "between 1 and 1000"),
            ("store.mysql.tls_ca_file", "x", "only used with"),
        ] {
            let mut wrong = options(&dir);
            wrong.overrides = pairs(&[(key, value)]);
            let text = error(wrong);
            assert!(text.contains(key) && text.contains(complaint), "{text}");
            assert!(!text.contains("host-phrase"), "{text}");
        }
    }

    #[test]
    fn kafka_is_validated_as_a_whole() {
        let dir = dir();
        let password = dir.path().join("password");
        std::fs::write(&password, "hush-hush\n").unwrap();
        let mut options = options(&dir);
        options.env = pairs(&[
            ("BOXOFFICE_EVENTS__KIND", "kafka"),
            ("BOXOFFICE_EVENTS__KAFKA__BROKERS", "one:9092, [::1]:9093"),
            ("BOXOFFICE_EVENTS__KAFKA__SECURITY", "sasl_plaintext"),
            ("BOXOFFICE_EVENTS__KAFKA__USERNAME", "u"),
            ("BOXOFFICE_EVENTS__KAFKA__PASSWORD_FILE", password.to_str().unwrap()),
        ]);
        let loaded = Config::load(options.clone()).unwrap();
        let sasl = loaded.config.events.kafka.connection().sasl.unwrap();
        assert_eq!((&*sasl.username, &*sasl.password), ("u", "hush-hush"));
        let shown = format!("{} {loaded:?}", loaded.to_toml());
        assert!(!shown.contains("hush-hush") && shown.contains("one:9092"), "{shown}");

        let keys = |overrides: &[(&str, &str)]| {
            let overrides = pairs(overrides);
            let problems = Config::load(LoadOptions { overrides, ..options.clone() })
                .map_or_else(|error| error.problems, |_| vec![]);
            problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(&[("events.kafka.brokers", "")]), "events.kafka.brokers");
        for brokers in ["host", "host:0", "http://host:1", "a:1,,b:1"] {
            assert_eq!(keys(&[("events.kafka.brokers", brokers)]), "events.kafka.brokers");
        }
        let out_of_range = [
            ("events.kafka.topic_prefix", "a/b"),
            ("events.kafka.partitions", "0"),
            ("events.kafka.replication", "0"),
            ("events.kafka.delivery_timeout_ms", "1"),
            ("events.kafka.username", ""),
            ("events.kafka.ca_file", "/nowhere"),
        ];
        let named: Vec<&str> = out_of_range.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys(&out_of_range), named.join(" "));
        assert_eq!(keys(&[("events.kafka.security", "plaintext")]), "events.kafka.security");
        if !KAFKA_TLS {
            assert_eq!(keys(&[("events.kafka.security", "sasl_ssl")]), "events.kafka.security");
            let scram = [("events.kafka.sasl_mechanism", "SCRAM-SHA-256")];
            assert_eq!(keys(&scram), "events.kafka.sasl_mechanism");
        }
    }

    #[test]
    fn validation_collects_all() {
        let dir = dir();
        let mut options = options(&dir);
        options.overrides = pairs(&[
            ("server.idle_timeout_ms", "0"),
            ("sales.max_seats_per_reservation", "0"),
            ("queue.admit_per_second", "nan"),
            ("queue.default", "Main Queue"),
            ("ticket.signing_key", "short"),
            ("admin.token", "with a space in it"),
            ("log.level", "boxoffice=loud"),
            ("data_dir", ""),
            ("sales.idempotency_hours", "1"),
        ]);
        let problems = Config::load(options).unwrap_err().problems;
        let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "data_dir",
                "server.idle_timeout_ms",
                "queue.default",
                "queue.admit_per_second",
                "sales.max_seats_per_reservation",
                "sales.idempotency_hours",
                "ticket.signing_key",
                "admin.token",
                "log.level",
            ]
        );
        assert!(problems.iter().all(|problem| matches!(problem.source, Some(Source::Flag(_)))));
    }
}
