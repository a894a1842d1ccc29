//! The service as a whole: opened from a configuration, run, and ended in good order.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boxoffice_backends::events::{EventSink, JsonlSink, KafkaSink, rfc3339};
use boxoffice_backends::sequencer::{
    LocalSequencer, RedisMode, RedisOptions, RedisSequencer, Sequencer,
};
use boxoffice_backends::store::{
    CommitObserver, MysqlOptions, MysqlStore, SqliteOptions, SqliteStore, Store,
};
use boxoffice_backends::{Fault, Lost};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::app::{App, AppState, InFlight, TicketIds, limits, queue_settings, sale_rules};
use crate::clock::Clock;
use crate::config::{AuthMode, Config, EventsKind, Governor, QueueKind, RedisKind, StoreKind};
use crate::console::live::Live;
use crate::demo;
use crate::http::listener::{self, ListenerLimits, ListenerMetrics};
use crate::http::{Front, HttpState, Surface};
use crate::metrics::Metrics;
use crate::operators::Operators;
use crate::passes::Passes;
use crate::people::People;
use crate::sign_in::SignIn;
use crate::signing::ServiceKeys;
use crate::tickets::{SigningKeys, key_id};
use crate::workers::Workers;

/// The longest that a sink takes to connect to Kafka, before it hands anything over.
const KAFKA_CONNECT: Duration = Duration::from_secs(15);

/// Why the service did not start, in words that say what to do.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        Self(match fault {
            Fault::Unavailable(what) | Fault::OutcomeUnknown(what) | Fault::Corrupt(what) => what,
        })
    }
}

/// Where a running service notes its address, for the commands that want to talk to it.
pub fn address_file(data_dir: &Path) -> PathBuf {
    data_dir.join("boxoffice.addr")
}

/// Where it notes the address of its listener for operators, where it has one.
pub fn admin_address_file(data_dir: &Path) -> PathBuf {
    data_dir.join("boxoffice.admin.addr")
}

/// Where the admin token is, unless the configuration has one.
pub fn admin_token_file(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.token")
}

/// A service that answers requests.
pub struct Service {
    app: AppState,
    address: SocketAddr,
    admin_address: SocketAddr,
    seeded: bool,
    workers: Workers,
    /// The listeners, each with what stops it.
    listeners: Vec<(oneshot::Sender<()>, JoinHandle<usize>)>,
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To sell.
    Serve,
    /// To look at it while others may sell.
    Look,
    /// To bring it to this binary's schema version.
    Migrate,
}

/// Opens the store of a configuration. Also returns the schema version that it had; 0 if it is new.
///
/// # Errors
/// Where the store is in use, is not ours, or cannot be reached or read.
pub async fn open_store(
    config: &Config,
    metrics: Option<&Metrics>,
    opening: Opening,
) -> Result<(Store, i64), Fault> {
    let observed = metrics.map(|metrics| {
        (metrics.store_batch_commands.clone(), metrics.store_commit_duration.clone())
    });
    let observe: CommitObserver = Arc::new(move |commit| {
        if let Some((commands, took)) = &observed {
            commands.observe(commit.commands as u64);
            took.observe_duration(commit.took);
        }
    });
    match config.store.kind {
        StoreKind::Sqlite => {
            let options = SqliteOptions {
                directory: config.data_dir.clone(),
                batch_max: config.store.batch_max,
                queue_max: config.store.queue_max,
                observe,
            };
            let (store, version) = match opening {
                Opening::Serve | Opening::Migrate => SqliteStore::open(options)?,
                Opening::Look => {
                    (SqliteStore::open_read_only(options)?, SqliteStore::SCHEMA_VERSION)
                }
            };
            Ok((Store::Sqlite(store), version))
        }
        StoreKind::Mysql => {
            make_data_dir(&config.data_dir)?;
            let mysql = &config.store.mysql;
            let (store, version) = MysqlStore::open(MysqlOptions {
                primary: mysql.server().map_err(Fault::Unavailable)?,
                replica: mysql.replica().map_err(Fault::Unavailable)?,
                pool_size: mysql.pool_size,
                batch_max: config.store.batch_max,
                queue_max: config.store.queue_max,
                acquire: Duration::from_millis(mysql.acquire_timeout_ms),
                migrate: opening == Opening::Migrate,
                // A second sequencer in memory would give the same numbers again.
                exclusive: opening == Opening::Serve && config.queue.kind == QueueKind::Local,
                publishing: match config.events.kind {
                    EventsKind::Jsonl => Duration::ZERO,
                    EventsKind::Kafka => {
                        Duration::from_millis(config.events.kafka.delivery_timeout_ms)
                            + KAFKA_CONNECT
                    }
                },
                observe,
            })
            .await?;
            Ok((Store::Mysql(store), version))
        }
    }
}

/// The admin token, the address and the event log are there, whatever the store is.
fn make_data_dir(directory: &Path) -> Result<(), Fault> {
    let mut builder = fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory).map_err(|error| {
        Fault::Unavailable(format!(
            "cannot make the data directory {}: {error}; choose another with --data-dir",
            directory.display()
        ))
    })
}

impl Service {
    /// Opens everything and begins to answer.
    ///
    /// # Errors
    /// [`StartError`], whose text says what to do.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let started = Instant::now();
        let metrics = Metrics::new();
        let (store, _) = open_store(&config, Some(&metrics), Opening::Serve).await?;
        let opened = Self::start_with(config, metrics, store.clone()).await;
        match opened {
            Ok(service) => {
                let elapsed_ms = started.elapsed().as_millis() as u64;
                tracing::info!(server.address = %service.address, elapsed_ms, "ready");
                Ok(service)
            }
            Err(error) => {
                // What was opened is closed in order, so that a second try finds it so.
                store.close().await;
                Err(error)
            }
        }
    }

    async fn start_with(
        config: Config,
        metrics: Metrics,
        store: Store,
    ) -> Result<Self, StartError> {
        if store.is_copy().await? {
            return Err(StartError(
                "this store is the copy of a backup, and would give numbers again that were given after \
                 the backup. Use `boxoffice restore FILE` in place of the copy, or \
                 `boxoffice restore --finish` on it"
                    .into(),
            ));
        }
        let clock = start_clock(&store).await?;
        let default_queue = QueueName::new(&config.queue.default).ok_or_else(|| {
            StartError("queue.default must be 1 to 40 of a-z, 0-9, - and _".into())
        })?;
        let settings = queue_settings(&config);
        if !store.create_queue(default_queue.clone(), settings.clone()).await? {
            warn_of_stored_settings(&store, &default_queue, &settings).await?;
        }
        let now = store.vouched(clock.now());
        let seeded = config.demo.seed && demo::seed(&store, &default_queue, now).await?;
        let tickets = ticket_keys(&config, &store).await?;
        let sequencer = match config.queue.kind {
            QueueKind::Local => {
                let one_place_each = config.has_one_place_each();
                let local = LocalSequencer::open(store.clone(), &settings, one_place_each);
                Sequencer::Local(local.await?)
            }
            QueueKind::Redis => {
                let options = redis_options(&config, &store, &tickets).await?;
                let now = clock.now();
                Sequencer::Redis(
                    RedisSequencer::open(store.clone(), &settings, options, now).await?,
                )
            }
        };
        // Before anything is decided by a clock that nobody has compared with the database's.
        sequencer.beat(clock.now()).await?;
        // Before anybody is let in, or told where they stand.
        sequencer.follow_sales(sale_rules(&config), clock.now());
        if config.queue.governor == Governor::On {
            sequencer.govern();
        }
        // Not before the other instances have been asked, where there are any.
        if store.setting("ticket.key_id", None).await?.as_deref() != Some(tickets.signing_id()) {
            store.set_setting("ticket.key_id", tickets.signing_id().to_owned()).await?;
        }
        let sink = match config.events.kind {
            EventsKind::Jsonl => EventSink::Jsonl(JsonlSink::open(&config.events_path())?),
            // It connects by itself, so that the sale does not wait for a broker.
            EventsKind::Kafka => {
                let kafka = &config.events.kafka;
                let timeout = Duration::from_millis(kafka.delivery_timeout_ms);
                EventSink::Kafka(KafkaSink::new(kafka.connection(), kafka.topic_plan(), timeout))
            }
        };
        if sink.is_ahead_of(&store).await? {
            return Err(StartError(format!(
                "{} holds events that this store has never written: it belongs to another store, \
                 or the store was restored from a backup. Move the file away",
                config.events_path().display()
            )));
        }
        let operators = Operators::open(&admin_token(&config)?, &store).await?;
        let people = people(&config, &store).await?;
        let sign_in = SignIn::new(&config.auth, &tickets).map_err(StartError)?;
        let signing = ServiceKeys::open(&store).await?;
        let passes = Passes::new(&config.pass.issuer);
        let (listener, address) = listen(config.server.listen, "--listen")?;
        note_address(&address_file(&config.data_dir), Some(address))?;
        let operators_listener =
            config.admin.listen.map(|at| listen(at, "admin.listen")).transpose()?;
        let admin_address = operators_listener.as_ref().map(|(_, address)| *address);
        note_address(&admin_address_file(&config.data_dir), admin_address)?;
        let app = Arc::new(App {
            limits: limits(&config),
            in_flight: InFlight::default(),
            draining: AtomicBool::new(false),
            events_wait: AtomicBool::new(false),
            ids: TicketIds::new(clock.now()),
            live: Live::default(),
            config,
            clock,
            store,
            sequencer,
            operators,
            default_queue,
            tickets,
            signing,
            passes,
            people,
            sign_in,
            metrics,
        });
        let http = HttpState::new(app.clone()).map_err(StartError)?;
        let workers = Workers::start(&app, sink);
        let front = Front::new(http);
        let public = if admin_address.is_some() { Surface::Public } else { Surface::All };
        let surfaces =
            [(public, Some(listener)), (Surface::Operators, operators_listener.map(|it| it.0))];
        let mut listeners = Vec::new();
        for (surface, listener) in surfaces {
            let Some(listener) = listener else { continue };
            let (stop, stopped) = oneshot::channel();
            let listening = serve(app.clone(), front.on(surface), listener, stopped);
            listeners.push((stop, app.store.tasks().spawn("listener", listening)));
        }
        let admin_address = admin_address.unwrap_or(address);
        Ok(Self { app, address, admin_address, seeded, workers, listeners })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves what is for operators.
    pub const fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Whether the store was empty and has been filled with demo data.
    pub const fn seeded(&self) -> bool {
        self.seeded
    }

    /// What handlers and workers see.
    pub const fn app(&self) -> &AppState {
        &self.app
    }

    /// Waits until a part of the service is lost that works for as long as the service does. The
    /// service is no longer whole then; a restart makes it so.
    pub async fn lost(&self) -> Lost {
        self.app.store.tasks().lost().await
    }

    /// Ends in good order: no new connections, requests in progress finish, counters and events
    /// are made durable. Returns how many connections had to be cut.
    pub async fn stop(self) -> usize {
        let Self { app, workers, listeners, .. } = self;
        app.draining.store(true, Ordering::Relaxed);
        let (stops, serving): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        for stop in stops {
            let _ = stop.send(());
        }
        let mut cut = 0;
        for listener in serving {
            cut += listener.await.unwrap_or(0);
        }
        workers.stop().await;
        if app.store.tasks().any_lost() {
            // Who knows what it left half done in memory. The store is right, as after a crash.
            tracing::warn!("the queue's last numbers are not recorded, because a worker was lost");
        } else if let Err(error) = app.sequencer.close(app.clock.now()).await {
            tracing::warn!(%error, "the queue's last numbers were not recorded");
        }
        if let Some(people) = &app.people {
            people.close().await;
        }
        app.store.close().await;
        let _ = fs::remove_file(address_file(&app.config.data_dir));
        let _ = fs::remove_file(admin_address_file(&app.config.data_dir));
        tracing::info!(connections.cut = cut, "stopped");
        cut
    }
}

/// Listens at an address that `setting` chose.
fn listen(at: SocketAddr, setting: &str) -> Result<(TcpListener, SocketAddr), StartError> {
    let listener = listener::bind(at).map_err(|error| {
        StartError(format!("cannot listen on {at}: {error}; choose another address with {setting}"))
    })?;
    let address = listener.local_addr().map_err(|error| StartError(error.to_string()))?;
    Ok((listener, address))
}

/// Notes where a listener is; one that is no more is not to be found.
fn note_address(note: &Path, address: Option<SocketAddr>) -> Result<(), StartError> {
    let failed = |error| StartError(format!("cannot write {}: {error}", note.display()));
    match address {
        Some(address) => fs::write(note, address.to_string()).map_err(failed),
        None => match fs::remove_file(note) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        },
    }
}

async fn serve(
    app: AppState,
    front: Front,
    listener: TcpListener,
    stopped: oneshot::Receiver<()>,
) -> usize {
    let mut limits = ListenerLimits::from(&app.config.server);
    let open_files = listener::raise_open_files();
    limits.max_connections = listener::cap_connections(limits.max_connections, open_files);
    let metrics = ListenerMetrics::from(&app.metrics);
    let shutdown = async {
        let _ = stopped.await;
    };
    listener::serve(listener, |peer| front.of(peer), limits, metrics, shutdown).await
}

async fn redis_options(
    config: &Config,
    store: &Store,
    tickets: &SigningKeys,
) -> Result<RedisOptions, StartError> {
    let redis = &config.queue.redis;
    // Two stores that share one Redis by mistake are told apart by this.
    let fresh = Uuid::new_v4().simple().to_string();
    let mut cluster = store.setting("cluster.id", Some(fresh.clone())).await?.unwrap_or(fresh);
    // So is what Redis has kept from before a restore: numbers that the store no longer knows of.
    match store.epochs().await?.current() {
        0 => {}
        epoch => cluster.push_str(&format!(".{epoch}")),
    }
    let tls_ca = match &redis.tls_ca_file {
        None => None,
        Some(path) => Some(fs::read(path).map_err(|error| {
            StartError(format!("cannot read queue.redis.tls_ca_file {}: {error}", path.display()))
        })?),
    };
    Ok(RedisOptions {
        mode: match (redis.mode, &redis.master) {
            (RedisKind::Standalone, _) => RedisMode::Standalone,
            (RedisKind::Sentinel, master) => {
                RedisMode::Sentinel(master.clone().unwrap_or_default())
            }
            (RedisKind::Cluster, _) => RedisMode::Cluster,
        },
        nodes: redis.addresses(),
        user: redis.user.clone(),
        password: redis.password.as_ref().map(|secret| secret.expose().to_owned()),
        sentinel_password: redis.sentinel_password.as_ref().map(|s| s.expose().to_owned()),
        database: redis.database.into(),
        tls: redis.tls,
        tls_ca,
        prefix: redis.prefix.clone(),
        call_timeout: Duration::from_millis(redis.call_timeout_ms),
        connect_timeout: Duration::from_millis(redis.connect_timeout_ms),
        // A little less than a tick, so that somebody admits at each.
        turn: Duration::from_millis(90),
        instance: Uuid::new_v4().simple().to_string(),
        ticket_keys: tickets.ids(),
        one_place_each: config.has_one_place_each(),
        epoch: tickets.epoch(),
        rules: config.rules(),
        reserve: Duration::from_secs(config.queue.reserve_seconds),
        cluster,
    })
}

/// A stored time may be so far ahead of the clock; more is no clock that was set by NTP meanwhile.
const STORED_AHEAD_MAX: Duration = Duration::from_secs(60);

/// Starts the service's clock, where what the store has seen agrees with it.
async fn start_clock(store: &Store) -> Result<Clock, StartError> {
    let seen = store.clock().await?;
    let clock = Clock::start(Timestamp(0));
    let database = store.compare_clocks(clock.now()).await?;
    let (now, whose) = match database {
        Some(now) => (now, "the database's"),
        None => (clock.now(), "this machine's"),
    };
    let ahead = seen.since(now);
    if ahead > STORED_AHEAD_MAX {
        return Err(StartError(format!(
            "the store has seen the time {}, which is {} s ahead of {whose} clock ({}): a clock was \
             wrong then, or is wrong now. Set the clocks by NTP; if the stored time is the wrong one, \
             run `boxoffice clock set-back`, which takes back what lies in the future",
            rfc3339(seen),
            ahead.as_secs(),
            rfc3339(now),
        )));
    }
    // Instances go by the database's clock. What one of them has seen does not bind the others.
    Ok(if database.is_some() { clock } else { Clock::start(seen) })
}

/// A queue keeps its settings across restarts, because operators change them while it runs. Who
/// changes the configuration instead should not be left wondering.
async fn warn_of_stored_settings(
    store: &Store,
    queue: &QueueName,
    configured: &boxoffice_domain::queue::QueueSettings,
) -> Result<(), Fault> {
    let stored = store.queues().await?.into_iter().find(|stored| stored.name == *queue);
    if let Some(stored) = stored.map(|stored| stored.settings)
        && (stored.admit_per_second != configured.admit_per_second
            || stored.max_active != configured.max_active)
    {
        tracing::warn!(
            queue.name = %queue,
            stored.admit_per_second = stored.admit_per_second,
            configured.admit_per_second = configured.admit_per_second,
            "the queue keeps its stored settings; change them with `boxoffice queue set`"
        );
    }
    Ok(())
}

/// The keys, and the check that they are the ones which this store's tickets were signed with.
/// Tickets under a key that nobody knows any more would throw everybody out of the line.
async fn ticket_keys(config: &Config, store: &Store) -> Result<SigningKeys, StartError> {
    let known_id = store.setting("ticket.key_id", None).await?;
    let previous: Vec<&[u8]> =
        config.ticket.previous_signing_keys.iter().map(|key| key.expose().as_bytes()).collect();
    let secret = match &config.ticket.signing_key {
        Some(key) => key.expose().to_owned(),
        None => match store.setting("ticket.key", None).await? {
            Some(key) => key,
            None if known_id.is_none() => {
                let fresh = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
                store.setting("ticket.key", Some(fresh.clone())).await?.unwrap_or(fresh)
            }
            None => String::new(),
        },
    };
    let keys = SigningKeys::new(secret.as_bytes(), previous);
    if let Some(known_id) = &known_id
        && !keys.knows(known_id)
    {
        let found = if secret.is_empty() {
            "there is no key now".to_owned()
        } else {
            format!("the key now is {}", key_id(secret.as_bytes()))
        };
        return Err(StartError(format!(
            "this store's tickets were signed with the key {known_id}, and {found}. Nobody in the \
             line would be let in. Set ticket.signing_key (BOXOFFICE_TICKET__SIGNING_KEY) to the \
             old key, or add it to ticket.previous_signing_keys to change keys"
        )));
    }
    let of_people = config.auth.mode == AuthMode::Jwt;
    Ok(keys.within(store.epochs().await?).of_people(of_people))
}

/// The people who are known. Where everybody is believed, only this machine may ask, unless somebody says
/// that more is meant.
async fn people(config: &Config, store: &Store) -> Result<Option<People>, StartError> {
    let (auth, listen) = (&config.auth, config.server.listen);
    if auth.mode == AuthMode::Jwt {
        let people = People::open(auth, store).await.map_err(StartError)?;
        return Ok(Some(people));
    }
    if listen.ip().to_canonical().is_loopback() {
        return Ok(None);
    }
    if auth.allow_anonymous {
        tracing::warn!(
            server.address = %listen,
            "auth.mode is none: whoever reaches this address can be anybody"
        );
        return Ok(None);
    }
    Err(StartError(format!(
        "with auth.mode = \"none\" whoever reaches {listen} can act for any user. Listen on 127.0.0.1, set \
         auth.mode = \"jwt\", or, where something in front knows who asks, say so with \
         auth.allow_anonymous = true (BOXOFFICE_AUTH__ALLOW_ANONYMOUS=true)"
    )))
}

/// The admin token: configured, or made once and kept in the data directory, readable by its owner
/// only.
fn admin_token(config: &Config) -> Result<String, StartError> {
    if let Some(token) = &config.admin.token {
        return Ok(token.expose().to_owned());
    }
    let path = admin_token_file(&config.data_dir);
    let failed = |error: std::io::Error| {
        StartError(format!("cannot read or write the admin token {}: {error}", path.display()))
    };
    match fs::read_to_string(&path) {
        Ok(token) if token.trim().len() >= 16 => Ok(token.trim().to_owned()),
        Ok(_) => Err(StartError(format!(
            "the admin token in {} is too short; delete the file to have a new one made",
            path.display()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let token = Uuid::new_v4().simple().to_string();
            let mut file = fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            file.write_all(token.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}
