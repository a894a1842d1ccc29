//! The way to Redis: a connection that is made anew behind everybody's back, and calls that end in
//! time. A call that fails puts Redis aside until a new connection stands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates,
    ToRedisArgs, Value,
};
use tokio::time::{sleep, timeout};

use crate::Tasks;
use crate::store::Rules;

#[cfg(feature = "simulation")]
pub mod simulated;

/// How the Redis servers are arranged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// A master of this name that sentinels watch over.
    Sentinel(String),
    /// Redis Cluster.
    Cluster,
    /// A server that is simulated in this process.
    #[cfg(feature = "simulation")]
    Simulated(simulated::SimulatedRedis),
}

/// How to reach Redis.
#[derive(Clone)]
pub struct RedisOptions {
    /// How the servers are arranged.
    pub mode: RedisMode,
    /// Host and port of the server, of the sentinels, or of some nodes of the cluster.
    pub nodes: Vec<(String, u16)>,
    /// User name and password at the servers.
    pub user: Option<String>,
    /// See `user`.
    pub password: Option<String>,
    /// Password at the sentinels.
    pub sentinel_password: Option<String>,
    /// The number of the database; 0 in a cluster.
    pub database: i64,
    /// Whether connections are encrypted, and with which certificate authority (PEM) instead of
    /// those of the system.
    pub tls: bool,
    /// See `tls`.
    pub tls_ca: Option<Vec<u8>>,
    /// Keys begin with this, in braces.
    pub prefix: String,
    /// A call that takes longer has failed; a join falls back to the store then.
    pub call_timeout: Duration,
    /// An attempt to connect ends after this.
    pub connect_timeout: Duration,
    /// For how long an instance has the turn to admit; zero lets each of them try at each tick.
    pub turn: Duration,
    /// The name of this instance; no other has it.
    pub instance: String,
    /// The ids of the keys that tickets are signed with: the one that signs, then the others that
    /// are known.
    pub ticket_keys: Vec<String>,
    /// Whether a person has one place at the most, which Redis is to know then.
    pub one_place_each: bool,
    /// The epoch of the tickets that are given.
    pub epoch: u32,
    /// The settings that it decides by, which those of every other instance must be.
    pub rules: Rules,
    /// The numbers of so many seconds of joins are kept ready in Redis, for when the store is away.
    pub reserve: Duration,
    /// What makes this store's cluster of instances different from others in the same Redis.
    pub cluster: String,
}

/// How Redis is doing, for metrics and health.
#[derive(Debug, Default)]
pub struct RedisStats {
    /// Calls that gave numbers to joins.
    pub join_calls: AtomicU64,
    /// Calls that topped the pool up.
    pub pool_calls: AtomicU64,
    /// Calls of ticks: news, and who admits.
    pub tick_calls: AtomicU64,
    /// Calls that failed.
    pub errors: AtomicU64,
    /// Calls that keep the tickets which people have shown, and that forget those which are over.
    pub keep_calls: AtomicU64,
    /// Calls that use solutions of challenges.
    pub solution_calls: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Grants of numbers by the store.
    pub grants: AtomicU64,
    /// Numbers that Redis passed over, because the store had given numbers above them itself.
    pub skipped: AtomicU64,
    /// Numbers that came from the store, because Redis was away.
    pub direct: AtomicU64,
    /// Times that a queue was read again from the store because news were missed.
    pub reloads: AtomicU64,
    /// Times that this instance found that Redis had lost what it was told: it was wiped, it began anew, or another
    /// one is the master.
    pub lost: AtomicU64,
    /// Numbers that are left in the pools of all queues.
    pub pooled: AtomicU64,
    /// Joins that were sent elsewhere, because other instances have Redis.
    pub elsewhere: AtomicU64,
    up: AtomicBool,
    away: Mutex<Option<String>>,
}

impl RedisStats {
    /// Whether Redis answers. While it does not, joins and admission go through the store alone.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Why Redis is not used at the moment.
    pub fn away(&self) -> Option<String> {
        self.away.lock().clone()
    }
}

/// Why a call has no answer. It may have run all the same.
#[derive(Clone, Debug)]
pub(super) struct Away(pub(super) String);

impl std::fmt::Display for Away {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<RedisError> for Away {
    fn from(error: RedisError) -> Self {
        let advice = match error.kind() {
            ErrorKind::Server(ServerErrorKind::ReadOnly) => {
                "; it is a replica: point queue.redis.nodes at the master, or use sentinels"
            }
            // Inside a script it has no kind of its own.
            kind if kind == ErrorKind::Server(ServerErrorKind::NoPerm)
                || error.to_string().contains("The user executing the script") =>
            {
                "; give the user the commands and keys that docs/operations.md lists"
            }
            ErrorKind::AuthenticationFailed => "; check queue.redis.user and queue.redis.password",
            _ if error.code() == Some("OOM") => {
                "; give Redis more memory (maxmemory), or find out who fills it"
            }
            _ => "",
        };
        Self(format!("{error}{advice}"))
    }
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
    #[cfg(feature = "simulation")]
    Simulated(simulated::Connection),
}

impl Connection {
    async fn call(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
            #[cfg(feature = "simulation")]
            Self::Simulated(connection) => connection.call(command).await,
        };
        // An error that the server gives is a value until somebody asks.
        answer.and_then(Value::extract_error)
    }
}

/// A script, by its digest: its text goes over the line only where the server does not know it.
pub(super) struct Script {
    text: &'static str,
    digest: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, digest: redis::Script::new(text).get_hash().to_owned() }
    }

    fn command<A: ToRedisArgs>(&self, by_digest: bool, keys: &[String], arguments: &[A]) -> Cmd {
        let mut command = redis::cmd(if by_digest { "EVALSHA" } else { "EVAL" });
        command.arg(if by_digest { &self.digest } else { self.text });
        command.arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

/// Between two attempts to connect.
const REDIAL: Duration = Duration::from_millis(250);

pub(super) struct Link {
    options: RedisOptions,
    connection: Mutex<Option<Connection>>,
    dialing: AtomicBool,
    pub(super) stats: RedisStats,
    tasks: Tasks,
    this: Weak<Self>,
}

impl Link {
    pub(super) fn new(options: RedisOptions, tasks: Tasks) -> Arc<Self> {
        // TLS asks the process which cryptography to use; somebody else may have said so already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Arc::new_cyclic(|this| Self {
            options,
            connection: Mutex::default(),
            dialing: AtomicBool::new(false),
            stats: RedisStats::default(),
            tasks,
            this: this.clone(),
        })
    }

    pub(super) const fn options(&self) -> &RedisOptions {
        &self.options
    }

    /// Redis has answered, and the mirrors have what it said: it may be used.
    pub(super) fn is_back(&self) {
        // Another call may have found it away meanwhile.
        let connection = self.connection.lock();
        if connection.is_none() {
            return;
        }
        if !self.stats.up.swap(true, Ordering::Relaxed) && self.stats.away.lock().take().is_some() {
            tracing::info!("redis is back");
        }
    }

    /// Puts Redis aside, for a reason that is logged once in an episode.
    pub(super) fn set_away(&self, why: &Away) {
        {
            let mut connection = self.connection.lock();
            self.stats.up.store(false, Ordering::Relaxed);
            *connection = None;
        }
        let mut away = self.stats.away.lock();
        if away.is_none() {
            tracing::warn!(error = %why, "redis is away; joins and admission go through the store");
        }
        *away = Some(why.0.clone());
    }

    /// Runs a script. After an error Redis is put aside.
    pub(super) async fn run<A: ToRedisArgs + Sync>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[A],
    ) -> Result<Value, Away> {
        let connection = self.connection.lock().clone();
        let Some(mut connection) = connection else {
            return Err(Away("there is no connection".into()));
        };
        let call = async {
            match connection.call(&script.command(true, keys, arguments)).await {
                // A server that was restarted has forgotten it.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    connection.call(&script.command(false, keys, arguments)).await
                }
                answer => answer,
            }
        };
        let answer = match timeout(self.options.call_timeout, call).await {
            Ok(answer) => answer.map_err(Away::from),
            Err(_) => {
                Err(Away(format!("no answer within {} ms", self.options.call_timeout.as_millis())))
            }
        };
        if let Err(why) = &answer {
            self.stats.errors.fetch_add(1, Ordering::Relaxed);
            self.set_away(why);
        }
        answer
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.lock().is_some()
    }

    /// Connects, if there is no connection and nobody is at it already. Gives up when dropped.
    pub(super) fn redial(&self) {
        if self.is_connected() || self.dialing.swap(true, Ordering::AcqRel) {
            return;
        }
        let this = self.this.clone();
        // Whoever connects reads the answers, too.
        self.tasks.spawn_steady("redis redial", async move {
            while let Some(link) = this.upgrade() {
                match link.dial().await {
                    Ok(()) => {
                        link.dialing.store(false, Ordering::Release);
                        return;
                    }
                    Err(why) => link.set_away(&why),
                }
                drop(link);
                sleep(REDIAL).await;
            }
        });
    }

    /// Makes a first attempt to connect. Where it fails, Redis is away.
    pub(super) async fn dial_first(&self) {
        let Some(this) = self.this.upgrade() else { return };
        let dialed = self.tasks.spawn_steady("redis dial", async move {
            if let Err(why) = this.dial().await {
                this.set_away(&why);
            }
        });
        // One that panicked has been reported as lost.
        let _ = dialed.await;
    }

    /// Makes one attempt to connect.
    async fn dial(&self) -> Result<(), Away> {
        // Sentinels and nodes are tried one after another.
        let limit = self.options.connect_timeout * (self.options.nodes.len() as u32 + 1);
        let connection = timeout(limit, self.connect()).await.map_err(|_| {
            Away(format!("no connection to redis within {} ms", limit.as_millis()))
        })??;
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        *self.connection.lock() = Some(connection);
        Ok(())
    }

    async fn connect(&self) -> Result<Connection, Away> {
        match &self.options.mode {
            RedisMode::Cluster => self.connect_cluster().await,
            RedisMode::Standalone => {
                let mut last = Away("queue.redis.nodes is empty".into());
                for (host, port) in &self.options.nodes {
                    match self.connect_single(host, *port).await {
                        Ok(connection) => return Ok(Connection::Single(connection)),
                        Err(error) => last = Away(format!("{host}:{port}: {}", Away::from(error))),
                    }
                }
                Err(last)
            }
            RedisMode::Sentinel(master) => self.connect_master(master).await,
            #[cfg(feature = "simulation")]
            RedisMode::Simulated(redis) => Ok(Connection::Simulated(redis.connect().await?)),
        }
    }

    async fn connect_cluster(&self) -> Result<Connection, Away> {
        let options = &self.options;
        let mut nodes = Vec::with_capacity(options.nodes.len());
        for (host, port) in &options.nodes {
            nodes.push(self.address(host, *port).into_connection_info()?);
        }
        let mut builder = ClusterClientBuilder::new(nodes)
            // A node that has moved is found at the second try; the time-out ends all of it.
            .retries(3)
            .min_retry_wait(10)
            .max_retry_wait(50)
            .connection_timeout(options.connect_timeout)
            .response_timeout(options.call_timeout)
            .overall_response_timeout(Some(options.call_timeout));
        if let Some(user) = &options.user {
            builder = builder.username(user);
        }
        if let Some(password) = &options.password {
            builder = builder.password(password);
        }
        if options.tls {
            builder = builder.tls(redis::cluster::TlsMode::Secure).certs(self.certificates());
        }
        Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
    }

    /// Asks the sentinels one after another who the master is.
    async fn connect_master(&self, name: &str) -> Result<Connection, Away> {
        let options = &self.options;
        let mut last = Away("queue.redis.nodes is empty".into());
        for (host, port) in &options.nodes {
            match self.master_by(host, *port, name).await {
                Ok(connection) => return Ok(Connection::Single(connection)),
                Err(why) => last = Away(format!("sentinel {host}:{port}: {why}")),
            }
        }
        Err(last)
    }

    async fn master_by(
        &self,
        host: &str,
        port: u16,
        name: &str,
    ) -> Result<MultiplexedConnection, Away> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(password) = &self.options.sentinel_password {
            settings = settings.set_password(password);
        }
        let mut sentinel = self.open(host, port, settings).await?;
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("get-master-addr-by-name").arg(name);
        let found: Option<(String, u16)> = ask.query_async(&mut sentinel).await?;
        let (host, port) = found.ok_or_else(|| {
            Away(format!("it knows no master {name:?}; check queue.redis.master"))
        })?;
        let mut master = self.connect_single(&host, port).await?;
        // In the middle of a failover sentinels may still name the old one.
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut master).await?;
        match role.first().map(redis::from_redis_value_ref::<String>) {
            Some(Ok(role)) if role == "master" => Ok(master),
            _ => Err(Away(format!("{host}:{port} is no master at the moment"))),
        }
    }

    async fn connect_single(
        &self,
        host: &str,
        port: u16,
    ) -> Result<MultiplexedConnection, RedisError> {
        let options = &self.options;
        let mut settings = RedisConnectionInfo::default().set_db(options.database);
        if let Some(user) = &options.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &options.password {
            settings = settings.set_password(password);
        }
        self.open(host, port, settings).await
    }

    async fn open(
        &self,
        host: &str,
        port: u16,
        settings: RedisConnectionInfo,
    ) -> Result<MultiplexedConnection, RedisError> {
        let info: ConnectionInfo =
            self.address(host, port).into_connection_info()?.set_redis_settings(settings);
        let client = if self.options.tls {
            Client::build_with_tls(info, self.certificates())?
        } else {
            Client::open(info)?
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.options.connect_timeout))
            .set_response_timeout(Some(self.options.call_timeout));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    fn address(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.options.tls {
            let host = host.to_owned();
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.options.tls_ca.clone() }
    }
}
