//! Every setting, once: a line says key, type, default and range, and its doc comment is the text of
//! `docs/settings.md`, `boxoffice config keys` and `--help`. The structs that the service reads are made
//! from the same lines.
//!
//! A number's unit is the end of its name: `_ms`, `_seconds`, `_hours`, `_bytes`, `per_second`. A secret
//! `x` beside which there is an `x_file` can be read from a file.
//!
//! What does not belong here: what several values must be together, and how a text must look (`check`).

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::value::{Kind, Number, Secret, Typed, WrongType, assign};

/// One setting. All that is known of it comes from its line in `table`.
pub(super) struct Setting {
    /// Its full name, such as `server.listen`.
    pub(super) key: &'static str,
    /// What it does, in whole sentences.
    pub(super) help: &'static str,
    /// What its value looks like.
    pub(super) kind: Kind,
    /// Whether its value is never printed.
    pub(super) secret: bool,
    /// Between which numbers it must be.
    pub(super) range: Option<Range>,
    /// Its value; none where it has none.
    pub(super) get: fn(&Config) -> Option<Value>,
    /// Gives it a value.
    pub(super) set: fn(&mut Config, Value) -> Result<(), WrongType>,
}

/// Settings whose keys begin alike.
pub(super) struct Section {
    /// What their keys begin with, such as `server.concurrency.`; empty for those in no section.
    pub(super) prefix: &'static str,
    /// What they are for, in whole sentences.
    pub(super) help: &'static str,
    /// The settings; those of a section within this one are not among them.
    pub(super) settings: &'static [Setting],
}

/// The smallest and the largest number that a setting may have.
pub(super) struct Range {
    pub(super) limits: fn() -> (String, String),
    /// The number, where it is not between the two.
    pub(super) outside: fn(&Config) -> Option<String>,
}

/// All settings, in the order of the table.
pub(super) fn settings() -> impl Iterator<Item = &'static Setting> {
    SECTIONS.iter().flat_map(|section| section.settings)
}

/// The setting of a key.
pub(super) fn setting(key: &str) -> Option<&'static Setting> {
    settings().find(|setting| setting.key == key)
}

impl Section {
    /// Its name, such as `server.concurrency`; empty for the settings that are in no section.
    pub(super) fn name(&self) -> &'static str {
        self.prefix.trim_end_matches('.')
    }
}

impl Setting {
    /// Its key without the section.
    pub(super) fn name(&self) -> &'static str {
        self.key.rsplit_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// A closed list of words: an enum whose values are written as they stand in a file.
macro_rules! choices {
    ($($(#[doc = $about:literal])+ $name:ident {
        $($(#[doc = $help:literal])+ $value:ident = $word:literal,)+
    })+) => {$(
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
        pub enum $name {
            $($(#[doc = $help])+ #[serde(rename = $word)] $value,)+
        }

        impl $name {
            /// The word that stands for it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl Typed for $name {
            const KIND: Kind =
                Kind::Choice(&[$(($word, concat!($($help),+).trim_ascii()),)+]);
        }
    )+};
}

/// The key of a setting, or what the keys of a section begin with.
macro_rules! key {
    ([$($section:ident).*]) => { concat!($(stringify!($section), ".",)* "") };
    ([$($section:ident).*] $field:ident) => {
        concat!($(stringify!($section), ".",)* stringify!($field))
    };
}

/// Where a setting is in a configuration.
macro_rules! place {
    ($config:ident [$($section:ident).*] $field:ident) => { $config $(.$section)* .$field };
}

macro_rules! range {
    ($section:tt $field:ident) => { None };
    ($section:tt $field:ident $range:expr) => {
        Some(Range {
            limits: || ($range.start().to_string(), $range.end().to_string()),
            outside: |config| {
                let number = place!(config $section $field).number()?;
                (!$range.contains(&number)).then(|| number.to_string())
            },
        })
    };
}

/// Sections: name of the struct, place in the configuration, settings, sections within it. A setting is
/// `name: type = default;` or `name: type = default, range;`.
macro_rules! settings {
    ($($(#[doc = $about:literal])+ $name:ident $section:tt {
        $($(#[doc = $help:literal])+ $field:ident: $type:ty = $default:expr $(, $range:expr)?;)*
        $(sections { $($child:ident: $child_type:ident,)+ })?
    })+) => {
        /// Every setting.
        pub(super) static SECTIONS: &[Section] = &[$(Section {
            prefix: key!($section),
            help: concat!($($about),+).trim_ascii(),
            settings: &[$(Setting {
                key: key!($section $field),
                help: concat!($($help),+).trim_ascii(),
                kind: <$type as Typed>::KIND,
                secret: <$type as Typed>::SECRET,
                range: range!($section $field $($range)?),
                get: |config| Value::try_from(&place!(config $section $field)).ok(),
                set: |config, value| assign(&mut place!(config $section $field), value),
            },)*],
        },)+];

        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone, PartialEq)]
            pub struct $name {
                $($(#[doc = $help])+ pub $field: $type,)*
                $($(
                    #[doc = concat!("The section `", stringify!($child), "`.")]
                    pub $child: $child_type,
                )+)?
            }

            impl Default for $name {
                fn default() -> Self {
                    Self {
                        $($field: $default,)*
                        $($($child: $child_type::default(),)+)?
                    }
                }
            }
        )+
    };
}

choices! {
    /// Where the sales are kept.
    StoreKind {
        /// A SQLite file in the data directory.
        Sqlite = "sqlite",
        /// A MySQL or MariaDB database, which several instances may share.
        Mysql = "mysql",
    }

    /// Whether connections to the database are encrypted.
    MysqlTlsMode {
        /// Not encrypted.
        Off = "off",
        /// Encrypted, whoever the server is.
        Required = "required",
        /// Encrypted, and the server's certificate is checked.
        Verify = "verify",
    }

    /// Who numbers the queue.
    QueueKind {
        /// This process alone.
        Local = "local",
        /// Several instances together, through Redis.
        Redis = "redis",
    }

    /// Whether admission goes by what is left to buy.
    Stock {
        /// No more people are inside than the seats that are left, free or held, can serve.
        On = "on",
        /// By rate and `max_active` alone.
        Off = "off",
    }

    /// Whether admission slows where the store is slow.
    Governor {
        /// No more people are let in than the store can serve, by how long purchases wait and how many are refused.
        On = "on",
        /// By rate, whatever becomes of the purchases.
        Off = "off",
    }

    /// What becomes of a line when there is nothing more to buy.
    AfterSale {
        /// Nobody is let in, joins are refused, and who waits is told that it is over.
        Close = "close",
        /// People join and wait on.
        GoOn = "go_on",
    }

    /// How the Redis servers are arranged.
    RedisKind {
        /// One server.
        Standalone = "standalone",
        /// A master that sentinels watch over; `nodes` are the sentinels.
        Sentinel = "sentinel",
        /// Redis Cluster; `nodes` are some of its nodes.
        Cluster = "cluster",
    }

    /// How people are known.
    AuthMode {
        /// The service believes the `userId` of a request.
        None = "none",
        /// By tokens (JWT) of an OpenID Connect issuer, sent as `Authorization: Bearer`.
        Jwt = "jwt",
    }

    /// Whether joins need the solution of a challenge.
    ChallengeMode {
        /// None does.
        Off = "off",
        /// All do.
        On = "on",
        /// All do while more than `challenge.target_per_second` come.
        Auto = "auto",
    }

    /// Where events are published.
    EventsKind {
        /// A file, one JSON document in a line.
        Jsonl = "jsonl",
        /// Topics of Kafka.
        Kafka = "kafka",
    }

    /// How a connection to Kafka is protected, by the protocol's own names.
    KafkaSecurity {
        /// Not at all.
        Plaintext = "plaintext",
        /// Credentials over a connection that is not encrypted.
        SaslPlaintext = "sasl_plaintext",
        /// TLS; needs a build with `--features kafka-tls`.
        Ssl = "ssl",
        /// Credentials over TLS; needs the same.
        SaslSsl = "sasl_ssl",
    }

    /// How credentials are given to Kafka.
    SaslMechanism {
        /// As they are.
        Plain = "PLAIN",
        /// By a challenge, with SHA-256; needs a build with `--features kafka-tls`.
        ScramSha256 = "SCRAM-SHA-256",
        /// By a challenge, with SHA-512; needs the same.
        ScramSha512 = "SCRAM-SHA-512",
    }

    /// What log lines look like.
    LogFormat {
        /// Text where standard error is a terminal, JSON elsewhere.
        Auto = "auto",
        /// One line for people.
        Text = "text",
        /// One JSON object in a line.
        Json = "json",
    }
}

/// Admissions a second that a queue can be asked for. Rates count to the thousandth.
pub const RATES: RangeInclusive<f64> = 0.001..=1_000_000.0;

settings! {
    /// Everything that can be set.
    Config [] {
        /// Directory of the store, the events and generated secrets; made where missing.
        data_dir: PathBuf = "data".into();
        sections {
            server: ServerConfig,
            store: StoreConfig,
            queue: QueueConfig,
            challenge: ChallengeConfig,
            sales: SalesConfig,
            events: EventsConfig,
            ticket: TicketConfig,
            pass: PassConfig,
            gate: GateConfig,
            pages: PagesConfig,
            auth: AuthConfig,
            admin: AdminConfig,
            log: LogConfig,
            demo: DemoConfig,
        }
    }

    /// The HTTP side: listening, time-outs and limits.
    ServerConfig [server] {
        /// Address and port to listen on; port 0 takes a free one.
        listen: SocketAddr = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        /// Connections open at once; the next one is answered 503 and closed. Lowered, with a warning,
        /// where the limit of open files is too low.
        max_connections: usize = 16_000, 1..=1_000_000;
        /// Connections open at once from one client address, but for those of this machine and of trusted
        /// proxies; the next one is answered 429 and closed. An IPv6 client is its /64.
        max_connections_per_address: usize = 1_000, 1..=1_000_000;
        /// Time from the first byte of a request to the end of its head.
        header_timeout_ms: u64 = 10_000, 1..=3_600_000;
        /// Time that a connection may stay open between requests.
        idle_timeout_ms: u64 = 75_000, 1..=3_600_000;
        /// Time to read a request body; then 408.
        body_timeout_ms: u64 = 10_000, 1..=3_600_000;
        /// Time without progress in writing a response; then the connection is cut.
        write_timeout_ms: u64 = 30_000, 1..=3_600_000;
        /// Largest request body; over it 413.
        max_body_bytes: usize = 65_536, 1_024..=16_777_216;
        /// Largest request body with the plan of a hall, which only operators send; over it 413.
        max_plan_bytes: usize = 33_554_432, 1_024..=268_435_456;
        /// Request bodies on their way at once, which are those that did not come with their heads; for one
        /// more 503. With `server.max_body_bytes` it bounds what they occupy.
        bodies_max: usize = 4_096, 1..=1_000_000;
        /// The same for each client address, but for those of this machine and of trusted proxies; for one
        /// more 429. An IPv6 client is its /64.
        bodies_per_address_max: usize = 256, 1..=1_000_000;
        /// Streams of seat states open at once; for one more 503, and the client asks from time to time instead.
        streams_max: usize = 4_096, 0..=1_000_000;
        /// Time that a shutdown waits for requests in progress.
        drain_timeout_ms: u64 = 10_000, 0..=600_000;
        /// Worker threads; 0 means one for each CPU that the process may use.
        worker_threads: usize = 0, 0..=1_024;
        /// Proxies in front of the service, as addresses or networks (`10.0.0.0/8`): a client is who they
        /// say it is, in `X-Forwarded-For`.
        trusted_proxies: Vec<String> = Vec::new();
        /// Origins whose web pages may read answers, exactly as browsers send them (`https://tickets.example`);
        /// not those of the admin API and of the metrics.
        cors_origins: Vec<String> = Vec::new();
        sections {
            concurrency: ConcurrencyConfig,
            join_rate: JoinRateConfig,
            poll_rate: PollRateConfig,
        }
    }

    /// Requests in progress at once, by class; one more is answered 503.
    ConcurrencyConfig [server.concurrency] {
        /// Payments.
        payment: usize = 4_096, 1..=1_000_000;
        /// Point charges.
        charge: usize = 1_024, 1..=1_000_000;
        /// Reservations made and given back.
        reservation: usize = 4_096, 1..=1_000_000;
        /// Queue status, pages, and the public documents of queues and concerts.
        poll: usize = 20_000, 1..=1_000_000;
        /// Joining and leaving the queue.
        join: usize = 20_000, 1..=1_000_000;
        /// Concerts, sessions, seats, reservations shown, balances.
        browse: usize = 2_048, 1..=1_000_000;
        /// People who sign in or out; one more is sent back to sign in later.
        sign_in: usize = 1_024, 1..=1_000_000;
        /// The admin API.
        admin: usize = 64, 1..=1_000_000;
    }

    /// How fast one client address may join the queue; an IPv6 client is its /64. Addresses of this machine
    /// and of trusted proxies are not limited, only the clients that these name, so behind a proxy
    /// `server.trusted_proxies` is needed too. By default 500 people behind one address get in at once and
    /// 10 more a second, while one machine takes no more than a thirtieth of `queue.admit_per_second`.
    JoinRateConfig [server.join_rate] {
        /// Joins for each address; 0 switches the limit off.
        per_second: f64 = 10.0, 0.0..=1_000_000.0;
        /// Joins that an address may make at once before the rate applies.
        burst: u32 = 500, 1..=1_000_000;
    }

    /// How fast one client address may poll, for the same clients. It is off by default: a crowd behind one address
    /// polls once in some seconds for each of them.
    PollRateConfig [server.poll_rate] {
        /// Polls for each address; 0 switches the limit off.
        per_second: f64 = 0.0, 0.0..=1_000_000.0;
        /// Polls that an address may make at once before the rate applies.
        burst: u32 = 2_000, 1..=1_000_000;
    }

    /// Where the sales are kept.
    StoreConfig [store] {
        /// Which store.
        kind: StoreKind = StoreKind::Sqlite;
        /// Commands that one transaction takes at most; with MySQL 256 at most.
        batch_max: usize = 512, 1..=65_536;
        /// Commands that may wait for a transaction; one more is answered 503. Not below `store.batch_max`.
        queue_max: usize = 16_384, 1..=1_000_000;
        sections {
            mysql: MysqlConfig,
        }
    }

    /// Where the database is, for `store.kind = "mysql"`. It must exist; its tables are made at the first
    /// start.
    MysqlConfig [store.mysql] {
        /// `mysql://user:password@host:port/database`. Where it is given, host, port, user and database are
        /// not looked at, and the password only if the URL has none.
        url: Option<Secret> = None;
        /// Name or address of the server.
        host: String = "127.0.0.1".into();
        /// Its TCP port.
        port: u16 = 3_306, 1..=65_535;
        /// The user to log in as.
        user: String = "boxoffice".into();
        /// The user's password.
        password: Option<Secret> = None;
        /// File whose trimmed content is the password.
        password_file: Option<PathBuf> = None;
        /// The database.
        database: String = "boxoffice".into();
        /// Whether connections are encrypted.
        tls: MysqlTlsMode = MysqlTlsMode::Off;
        /// PEM file of the authorities that `verify` trusts; none means the well-known ones.
        tls_ca_file: Option<PathBuf> = None;
        /// Connections of this instance for the sale: two for purchases, the others for balances and reservations
        /// that are looked at. Up to 10 more are used for everything else.
        pool_size: usize = 8, 1..=1_000;
        /// Time that a purchase or a look waits for a connection; then 503.
        acquire_timeout_ms: u64 = 250, 1..=60_000;
        /// A replica from which seat lists may be read, as a URL like `url`.
        replica_url: Option<Secret> = None;
    }

    /// The waiting queue.
    QueueConfig [queue] {
        /// Who numbers the queue.
        kind: QueueKind = QueueKind::Local;
        /// Name of the queue that a join without a queue enters: 1 to 40 of `a-z`, `0-9`, `-` and `_`.
        default: String = "main".into();
        /// Users admitted, counted to the thousandth. For new queues only.
        admit_per_second: f64 = 300.0, RATES;
        /// Users admitted and not finished at once; none means no limit. For new queues only.
        max_active: Option<u64> = None, 1..=1_000_000_000;
        /// Time that an admitted ticket opens doors.
        active_ttl_seconds: u64 = 300, 1..=86_400;
        /// Time after which an admitted ticket that nobody has used stops counting as active. Not above
        /// `queue.active_ttl_seconds`.
        claim_window_seconds: u64 = 30, 1..=86_400;
        /// Whether a person has one place in a queue at the most: a join of somebody who has one answers it.
        /// None means that it is so where people are known (`auth.mode = "jwt"`), and only there can it be.
        one_place_each: Option<bool> = None;
        /// Whether admission slows as the concerts behind a queue sell: by the seats that are left and what a
        /// purchase takes on average there.
        stock: Stock = Stock::On;
        /// Whether admission slows, to no less than a fiftieth of its rate, where the store cannot serve those who are
        /// inside.
        governor: Governor = Governor::On;
        /// Admissions a second that `loadtest` found to be safe; none means that nobody has measured it. The console warns who
        /// wants more.
        safe_rate: Option<f64> = None, RATES;
        /// What becomes of the line when all is sold. With `go_on` it waits for seats that come back; with
        /// `queue.stock = "off"` it is let in all the same.
        after_sold_out: AfterSale = AfterSale::Close;
        /// What becomes of the line when the last sale is over. With `go_on` it is let in all the same.
        after_end: AfterSale = AfterSale::Close;
        /// Days for which the admission log is kept at least; 0 means for ever. What is left of it can be checked by
        /// itself.
        log_days: u64 = 30, 0..=36_500;
        /// Time of joins for which numbers are kept ready in Redis, for when the store is away; at least 64
        /// numbers, and at most 131,072.
        reserve_seconds: u64 = 30, 1..=600;
        sections {
            redis: RedisConfig,
        }
    }

    /// Where Redis is, for `queue.kind = "redis"`.
    RedisConfig [queue.redis] {
        /// How the servers are arranged.
        mode: RedisKind = RedisKind::Standalone;
        /// `host:port` of the server, of the sentinels, or of some nodes of the cluster.
        nodes: Vec<String> = vec!["127.0.0.1:6379".into()];
        /// Name of the master that the sentinels watch over; for `sentinel` only, and needed there.
        master: Option<String> = None;
        /// User at the servers; none means the default user.
        user: Option<String> = None;
        /// Password at the servers; needed with a user.
        password: Option<Secret> = None;
        /// File whose trimmed content is the password.
        password_file: Option<PathBuf> = None;
        /// Password at the sentinels.
        sentinel_password: Option<Secret> = None;
        /// File whose trimmed content is the password at the sentinels.
        sentinel_password_file: Option<PathBuf> = None;
        /// Number of the database; 0 in a cluster.
        database: u32 = 0;
        /// Whether connections are encrypted, to the sentinels too.
        tls: bool = false;
        /// PEM file of the authority that signed the servers' certificates; none means those that the
        /// system trusts.
        tls_ca_file: Option<PathBuf> = None;
        /// Names of keys begin with this, in braces: 1 to 64 letters, digits, `-`, `_` and `.`.
        prefix: String = "boxoffice".into();
        /// Time after which a call has failed and the store is asked instead.
        call_timeout_ms: u64 = 250, 10..=10_000;
        /// Time that an attempt to connect may take.
        connect_timeout_ms: u64 = 1_000, 10..=60_000;
    }

    /// Proof of work at the door, which the widget ALTCHA does in the browser of whoever joins. Each instance counts the joins
    /// that come to it.
    ChallengeConfig [challenge] {
        /// Whether joins need the solution of a challenge.
        mode: ChallengeMode = ChallengeMode::Off;
        /// Joins at an instance, let in or not, up to which challenges are as easy as they get.
        target_per_second: f64 = 100.0, 0.001..=1_000_000.0;
        /// The highest number that a browser has to try while so many or fewer come; half of them on average. It rises as
        /// the joins do.
        maxnumber_min: u64 = 50_000, 1..=100_000_000;
        /// The highest number that a browser ever has to try. Not below `challenge.maxnumber_min`.
        maxnumber_max: u64 = 1_000_000, 1..=100_000_000;
        /// Time from getting a challenge to the join with its solution.
        valid_seconds: u64 = 120, 10..=600;
    }

    /// Rules of holds and payments.
    SalesConfig [sales] {
        /// Time that seats are held for payment.
        hold_seconds: u64 = 300, 1..=86_400;
        /// Seats in one reservation.
        max_seats_per_reservation: usize = 4, 1..=1_000;
        /// Seats of one session that one user may hold or own.
        max_seats_per_user: usize = 4, 1..=100_000;
        /// Unpaid reservations of one ticket at a time; it pays for one of them.
        live_holds_max: usize = 1, 1..=100_000;
        /// Reservations of one ticket in its life, whatever becomes of them.
        holds_per_ticket_max: usize = 20, 1..=100_000;
        /// Whether a hold is refused that leaves a single free seat between taken ones, where as many seats
        /// could be had otherwise.
        no_orphans: bool = false;
        /// Time of which a random part passes until a seat that was given back, or whose hold ran out, is
        /// free: whoever gives back and takes at once is no faster than others.
        release_jitter_seconds: u64 = 0, 0..=3_600;
        /// Time before a session at which refunds of its payments end; 10000000 allows none.
        refund_until_hours: u64 = 24, 0..=10_000_000;
        /// Time that the answer to an idempotency key is kept; the contract promises 24 hours.
        idempotency_hours: u64 = 24, 24..=8_760;
    }

    /// Where events go.
    EventsConfig [events] {
        /// Where events are published.
        kind: EventsKind = EventsKind::Jsonl;
        /// File of the kind `jsonl`; none means `events.jsonl` in the data directory.
        path: Option<PathBuf> = None;
        sections {
            kafka: KafkaConfig,
        }
    }

    /// Where Kafka is, for `events.kind = "kafka"` and for `boxoffice consume`.
    KafkaConfig [events.kafka] {
        /// `host:port` of some brokers, separated by commas.
        brokers: String = String::new();
        /// What the names of the topics start with: at most 200 letters, digits, `.`, `_` and `-`.
        topic_prefix: String = String::new();
        /// The name that the brokers log and apply quotas to.
        client_id: String = "boxoffice".into();
        /// Partitions of a topic that does not exist and is made.
        partitions: u32 = 6, 1..=10_000;
        /// Copies of each partition of such a topic; none means the brokers' default.
        replication: Option<u32> = None, 1..=100;
        /// Time that a hand-over waits for the brokers' acknowledgement.
        delivery_timeout_ms: u64 = 10_000, 100..=600_000;
        /// How the connection is protected.
        security: KafkaSecurity = KafkaSecurity::Plaintext;
        /// How credentials are given.
        sasl_mechanism: SaslMechanism = SaslMechanism::Plain;
        /// The user.
        username: Option<String> = None;
        /// The user's password.
        password: Option<Secret> = None;
        /// File whose trimmed content is the password.
        password_file: Option<PathBuf> = None;
        /// Certificates (PEM) to check the brokers' against; none means those of the system.
        ca_file: Option<PathBuf> = None;
    }

    /// Signing of queue tickets.
    TicketConfig [ticket] {
        /// Key that signs tickets, at least 32 bytes; none means one that is made and kept in the store.
        signing_key: Option<Secret> = None;
        /// File whose trimmed content is the signing key.
        signing_key_file: Option<PathBuf> = None;
        /// Keys that are still accepted but no longer sign, each at least 32 bytes.
        previous_signing_keys: Vec<Secret> = Vec::new();
    }

    /// Passes, which admitted fans show to others.
    PassConfig [pass] {
        /// Who issues them, their `iss`: 1 to 200 visible ASCII characters without quotes and backslashes, as a
        /// rule the address of the service. With another one, the passes that are out are good no more.
        issuer: String = "boxoffice".into();
    }

    /// The gate, which proxies ask whether a visitor may pass.
    GateConfig [gate] {
        /// Where whoever has no good pass is sent: an address, or a path of the site that is behind the gate. With
        /// `{queue}` in it, which becomes the queue, it is the waiting page of this service, and `return` is added to its
        /// query; without, it is a page of your own, and `queue` and `back` are added.
        waiting_url: String = "/wait/{queue}".into();
        /// Sites, such as `https://shop.example`, that may be gone back to by their whole address. Otherwise it
        /// is a path: whoever waits, waits on the site itself. The waiting page of this service knows them, too.
        sites: Vec<String> = Vec::new();
    }

    /// The pages for fans.
    PagesConfig [pages] {
        /// Whether `/`, `/c/…`, `/wait/…` and the other pages are served.
        enabled: bool = true;
        /// Directory that they are read from, at each request, by whoever works on them; none means those in
        /// the program.
        directory: Option<PathBuf> = None;
        /// Name of the organiser, in place of boxoffice: at most 60 characters.
        organiser: Option<String> = None;
        /// File with the organiser's logo, shown in place of the name: SVG or PNG, at most 64 KiB. It is read at the start.
        logo: Option<PathBuf> = None;
        /// The organiser's colour, such as `#4038d4`. It is made darker or lighter until texts in it and upon it have a
        /// contrast of 4.5 to 1.
        colour: Option<String> = None;
        /// What those who wait are told in Korean: one line, at most 500 characters. Where there is only one of the two, it
        /// is shown in both languages.
        notice_ko: Option<String> = None;
        /// The same in English.
        notice_en: Option<String> = None;
    }

    /// Who people are.
    AuthConfig [auth] {
        /// How people are known.
        mode: AuthMode = AuthMode::None;
        /// In mode `none`, listens on other addresses than loopback all the same. Anybody who reaches them can
        /// be anybody: only behind something that knows who asks.
        allow_anonymous: bool = false;
        /// The issuer, exactly as the `iss` of its tokens; needed in mode `jwt`.
        issuer: Option<String> = None;
        /// Whom its tokens are for, their `aud`; needed in mode `jwt`.
        audience: Option<String> = None;
        /// Address of the issuer's keys, a JSON Web Key Set; none means the one that the issuer says itself
        /// (`/.well-known/openid-configuration`).
        jwks_url: Option<String> = None;
        /// File with the keys, in place of an address. It is read again as an address is.
        jwks_file: Option<PathBuf> = None;
        /// PEM file of the authorities that the issuer's certificate is checked against; none means the
        /// well-known ones.
        ca_file: Option<PathBuf> = None;
        /// The claim that says who it is. A text gets a small id here when it is seen first; a number is the id.
        user_claim: String = "sub".into();
        /// Time that the issuer's clock may be ahead of this one's or behind it.
        leeway_seconds: u32 = 30, 0..=600;
        /// As which client the fan's pages are known to the issuer, so that people can sign in there; none means
        /// that they cannot. The client's redirect address is `auth.public_url` with `/auth/callback`.
        client_id: Option<String> = None;
        /// The client's secret; none means a public client.
        client_secret: Option<Secret> = None;
        /// File whose trimmed content is the client's secret.
        client_secret_file: Option<PathBuf> = None;
        /// Origin at which browsers reach this service (`https://tickets.example`); needed with `auth.client_id`.
        public_url: Option<String> = None;
        /// What the issuer is asked for; `openid` is needed. With `profile` most tell a name to be shown.
        scopes: Vec<String> = vec!["openid".into()];
        /// Time from signing in on the pages to having to do so again.
        session_hours: u32 = 12, 1..=720;
    }

    /// The admin API.
    AdminConfig [admin] {
        /// Address and port of a second listener for the admin API, the metrics and the API's description.
        /// Where it is set, these are 404 at `server.listen`, and nothing else is served here but health.
        listen: Option<SocketAddr> = None;
        /// Bearer token, at least 16 visible ASCII characters; none means one that is made and kept in
        /// `admin.token` in the data directory.
        token: Option<Secret> = None;
        /// File whose trimmed content is the token.
        token_file: Option<PathBuf> = None;
    }

    /// The service's own log.
    LogConfig [log] {
        /// `tracing` filter directives, such as `info` or `info,boxoffice::http=debug`.
        level: String = "info".into();
        /// What log lines look like.
        format: LogFormat = LogFormat::Auto;
    }

    /// Demo data.
    DemoConfig [demo] {
        /// Whether a store with nothing for sale is filled with demo data.
        seed: bool = true;
    }
}
