//! What the values must be: each number in its range, which the table says, and by hand how texts must
//! look and what several values must be together.

use std::path::Path;

use boxoffice_backends::events::KAFKA_TLS;
use boxoffice_domain::ids::QueueName;

use super::derived::host_and_port;
use super::layers::ConfigProblem;
use super::table::{
    AuthConfig, AuthMode, Config, EventsKind, KafkaConfig, MysqlConfig, MysqlTlsMode, QueueKind,
    RedisConfig, RedisKind, SaslMechanism, Setting, settings,
};
use super::value::Secret;
use crate::pages::Organiser;
use crate::passes::ISSUER_BYTES_MAX;

/// What stands for the queue in the address of a waiting page.
pub(crate) const QUEUE_PLACE: &str = "{queue}";

/// Everything that is wrong, in the order of the table.
pub(super) fn check(config: &Config) -> Vec<ConfigProblem> {
    let mut check = Check::default();
    for Setting { key, range, .. } in settings() {
        if let Some(range) = range
            && let Some(number) = (range.outside)(config)
        {
            let (min, max) = (range.limits)();
            check.problem(*key, format!("must be between {min} and {max}, not {number}"));
        }
    }
    check.server(config);
    check.store(config);
    check.mysql(&config.store.mysql);
    check.queue(config);
    check.redis(&config.queue.redis, config.queue.kind == QueueKind::Redis);
    check.events(config);
    check.kafka(&config.events.kafka, config.events.kind == EventsKind::Kafka);
    check.auth(&config.auth);
    check.places(config);
    check.secrets(config);
    check.gate(config);
    check.pages(config);
    if let Err(message) = config.log.filter() {
        check.problem("log.level", message);
    }
    let place = |problem: &ConfigProblem| {
        settings().position(|setting| setting.key == key_of(&problem.key))
    };
    check.problems.sort_by_key(place);
    check.problems
}

/// The key of a problem with one element of a list, such as `ticket.previous_signing_keys[0]`.
pub(super) fn key_of(place: &str) -> &str {
    place.split('[').next().unwrap_or(place)
}

#[derive(Default)]
struct Check {
    problems: Vec<ConfigProblem>,
}

impl Check {
    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(ConfigProblem {
            key: key.into(),
            source: None,
            message: message.into(),
        });
    }

    /// Complains unless `fine`.
    fn need(&mut self, fine: bool, key: &str, message: &str) {
        if !fine {
            self.problem(key, message);
        }
    }

    fn server(&mut self, config: &Config) {
        let directory = &config.data_dir;
        self.need(!directory.as_os_str().is_empty(), "data_dir", "must not be empty");
        let usable = directory.is_dir() || !directory.exists();
        self.need(usable, "data_dir", "exists and is not a directory");
        if let Err(text) = config.server.trusted_proxies() {
            let message =
                format!("{text:?} is neither an address nor a network such as 10.0.0.0/8");
            self.problem("server.trusted_proxies", message);
        }
        for (index, origin) in config.server.cors_origins.iter().enumerate() {
            let message =
                "must be an origin such as https://tickets.example, in lower case, without a path";
            self.need(is_origin(origin), &format!("server.cors_origins[{index}]"), message);
        }
    }

    fn store(&mut self, config: &Config) {
        let fits = config.store.queue_max >= config.store.batch_max;
        self.need(fits, "store.queue_max", "must not be below store.batch_max");
    }

    fn mysql(&mut self, mysql: &MysqlConfig) {
        if let Err(problem) = mysql.server() {
            self.problem("store.mysql.url", problem);
        }
        if let Err(problem) = mysql.replica() {
            self.problem("store.mysql.replica_url", problem);
        }
        for (key, value) in [
            ("store.mysql.host", &mysql.host),
            ("store.mysql.user", &mysql.user),
            ("store.mysql.database", &mysql.database),
        ] {
            self.need(!value.is_empty(), key, "must not be empty");
        }
        self.need(
            mysql.tls_ca_file.is_none() || mysql.tls == MysqlTlsMode::Verify,
            "store.mysql.tls_ca_file",
            "is only used with store.mysql.tls = \"verify\"",
        );
    }

    fn queue(&mut self, config: &Config) {
        let queue = &config.queue;
        self.need(
            QueueName::new(&queue.default).is_some(),
            "queue.default",
            "must be 1 to 40 characters of a-z, 0-9, '-' and '_'",
        );
        self.need(
            queue.claim_window_seconds <= queue.active_ttl_seconds,
            "queue.claim_window_seconds",
            "must not be above queue.active_ttl_seconds",
        );
        let challenge = &config.challenge;
        self.need(
            challenge.maxnumber_min <= challenge.maxnumber_max,
            "challenge.maxnumber_max",
            "must not be below challenge.maxnumber_min",
        );
    }

    fn redis(&mut self, redis: &RedisConfig, used: bool) {
        let (mode, nodes) = (redis.mode, &redis.nodes);
        let sentinels = mode == RedisKind::Sentinel;
        let only_sentinels = "is only for queue.redis.mode = \"sentinel\"; leave it out";
        self.need(!nodes.is_empty(), "queue.redis.nodes", "must have at least one host:port");
        for (index, node) in nodes.iter().enumerate() {
            if host_and_port(node).is_none() {
                let key = format!("queue.redis.nodes[{index}]");
                self.problem(key, "must be host:port, as in \"redis-1:6379\"");
            }
        }
        self.need(
            mode != RedisKind::Standalone || nodes.len() <= 1,
            "queue.redis.nodes",
            "may have only one server where queue.redis.mode is \"standalone\"",
        );
        self.need(
            !(sentinels && used) || redis.master.is_some(),
            "queue.redis.master",
            "is needed with sentinels: the name that they know the master by",
        );
        self.need(sentinels || redis.master.is_none(), "queue.redis.master", only_sentinels);
        self.need(
            redis.user.is_none() || redis.password.is_some(),
            "queue.redis.password",
            "is needed with queue.redis.user",
        );
        self.need(
            sentinels || redis.sentinel_password.is_none(),
            "queue.redis.sentinel_password",
            only_sentinels,
        );
        self.need(
            mode != RedisKind::Cluster || redis.database == 0,
            "queue.redis.database",
            "must be 0: a cluster has no other",
        );
        self.need(
            redis.tls || redis.tls_ca_file.is_none(),
            "queue.redis.tls_ca_file",
            "needs queue.redis.tls = true",
        );
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        self.need(
            (1..=64).contains(&redis.prefix.len()) && redis.prefix.bytes().all(plain),
            "queue.redis.prefix",
            "must be 1 to 64 letters, digits, '-', '_' and '.'",
        );
    }

    fn events(&mut self, config: &Config) {
        if let Some(path) = &config.events.path {
            self.need(!path.as_os_str().is_empty(), "events.path", "must not be empty");
            self.need(!path.is_dir(), "events.path", "is a directory, a file is needed");
        }
    }

    fn kafka(&mut self, kafka: &KafkaConfig, used: bool) {
        let brokers = kafka.brokers.trim();
        self.need(
            !(used && brokers.is_empty()),
            "events.kafka.brokers",
            "is needed: host:port of some brokers, separated by commas",
        );
        self.need(
            brokers.is_empty() || brokers.split(',').all(is_host_and_port),
            "events.kafka.brokers",
            "must be host:port, separated by commas",
        );
        // 249 is Kafka's bound for a whole name.
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        self.need(
            kafka.topic_prefix.len() <= 200 && kafka.topic_prefix.chars().all(letters),
            "events.kafka.topic_prefix",
            "must be at most 200 characters of a-z, A-Z, 0-9, '.', '_' and '-'",
        );
        let connection = kafka.connection();
        let sasl = connection.sasl.is_some();
        self.need(
            !sasl || !kafka.username.as_deref().unwrap_or_default().is_empty(),
            "events.kafka.username",
            "is needed with this events.kafka.security",
        );
        self.need(
            !sasl || kafka.password.is_some(),
            "events.kafka.password",
            "is needed with this events.kafka.security, or events.kafka.password_file",
        );
        self.need(
            sasl || (kafka.username.is_none() && kafka.password.is_none()),
            "events.kafka.security",
            "must be sasl_plaintext or sasl_ssl where a user or a password is given",
        );
        let scram = sasl && kafka.sasl_mechanism != SaslMechanism::Plain;
        self.need(
            KAFKA_TLS || !(connection.tls || scram),
            if connection.tls { "events.kafka.security" } else { "events.kafka.sasl_mechanism" },
            "needs a program that was built with `cargo build --release --features kafka-tls`",
        );
        self.need(
            kafka.ca_file.as_deref().is_none_or(Path::is_file),
            "events.kafka.ca_file",
            "is not a file that can be read",
        );
    }

    fn auth(&mut self, auth: &AuthConfig) {
        let used = auth.mode == AuthMode::Jwt;
        let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
        let needed = "is needed with auth.mode = \"jwt\"";
        self.need(!used || given(&auth.issuer), "auth.issuer", needed);
        self.need(!used || given(&auth.audience), "auth.audience", needed);
        let is_address = |text: &String| {
            ["https://", "http://"].iter().any(|scheme| {
                text.strip_prefix(scheme)
                    .is_some_and(|host| !host.starts_with(['/', ' ']) && !host.is_empty())
            })
        };
        let address = "must begin with https:// (or http://)";
        self.need(auth.jwks_url.as_ref().is_none_or(is_address), "auth.jwks_url", address);
        // For its keys, or for where people sign in.
        let asked =
            (auth.jwks_url.is_none() && auth.jwks_file.is_none()) || auth.client_id.is_some();
        let asked = asked && given(&auth.issuer);
        self.need(!asked || auth.issuer.as_ref().is_none_or(is_address), "auth.issuer", address);
        self.need(
            auth.jwks_url.is_none() || auth.jwks_file.is_none(),
            "auth.jwks_file",
            "cannot be given beside auth.jwks_url",
        );
        self.need(!auth.user_claim.is_empty(), "auth.user_claim", "must not be empty");
        self.sign_in(auth);
    }

    fn sign_in(&mut self, auth: &AuthConfig) {
        let is_scope = |scope: &String| {
            let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
            !scope.is_empty() && scope.bytes().all(plain)
        };
        for (index, scope) in auth.scopes.iter().enumerate() {
            let place = format!("auth.scopes[{index}]");
            self.need(is_scope(scope), &place, "must be visible ASCII without quotes and spaces");
        }
        let has_openid = auth.scopes.iter().any(|scope| scope == "openid");
        self.need(
            has_openid,
            "auth.scopes",
            "must have openid, or the issuer would not say who it is",
        );
        let Some(client) = &auth.client_id else {
            let alone = "is of no use without auth.client_id";
            self.need(auth.client_secret.is_none(), "auth.client_secret", alone);
            return self.need(auth.public_url.is_none(), "auth.public_url", alone);
        };
        self.need(!client.is_empty(), "auth.client_id", "must not be empty");
        let in_mode = auth.mode == AuthMode::Jwt;
        self.need(in_mode, "auth.client_id", "needs auth.mode = \"jwt\"");
        let public = auth.public_url.as_deref();
        self.need(public.is_some(), "auth.public_url", "is needed with auth.client_id");
        // Browsers keep cookies that are for TLS only for what comes by it, and for what is on their machine.
        let is_kept = |origin: &str| {
            origin.starts_with("https://")
                || ["http://localhost", "http://127.0.0.1", "http://[::1]"].iter().any(|here| {
                    let port = origin.strip_prefix(here);
                    port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
                })
        };
        self.need(
            public.is_none_or(|origin| is_origin(origin) && is_kept(origin)),
            "auth.public_url",
            "must be an origin such as https://tickets.example, in lower case, without a path; http:// is for \
             localhost only",
        );
    }

    fn gate(&mut self, config: &Config) {
        let issuer = &config.pass.issuer;
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
        self.need(
            (1..=ISSUER_BYTES_MAX).contains(&issuer.len()) && issuer.bytes().all(plain),
            "pass.issuer",
            "must be 1 to 200 visible ASCII characters without quotes and backslashes",
        );
        let url = &config.gate.waiting_url;
        let is_path = url.starts_with('/') && !url.starts_with("//");
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let has_host = host.is_some_and(|host| !host.is_empty() && !host.starts_with(['/', '?']));
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"#\\\"<>".contains(&byte);
        self.need(
            (is_path || has_host) && url.len() <= 1_000 && url.bytes().all(plain),
            "gate.waiting_url",
            "must be an address that begins with https:// (or http://), or a path such as /wait/{queue}, \
             without a fragment",
        );
        self.need(
            !url.replacen(QUEUE_PLACE, "", 1).contains(['{', '}']),
            "gate.waiting_url",
            "may have {queue} once, and no other braces",
        );
        for (index, site) in config.gate.sites.iter().enumerate() {
            let message =
                "must be an origin such as https://shop.example, in lower case, without a path";
            self.need(is_origin(site), &format!("gate.sites[{index}]"), message);
        }
    }

    fn pages(&mut self, config: &Config) {
        let directory = config.pages.directory.as_deref();
        self.need(
            directory.is_none_or(Path::is_dir),
            "pages.directory",
            "is not a directory that can be read",
        );
        if let Err((key, message)) = Organiser::new(&config.pages) {
            self.problem(key, message);
        }
    }

    fn places(&mut self, config: &Config) {
        self.need(
            config.queue.one_place_each != Some(true) || config.auth.mode == AuthMode::Jwt,
            "queue.one_place_each",
            "needs auth.mode = \"jwt\": otherwise anybody could take over anybody's place",
        );
    }

    fn secrets(&mut self, config: &Config) {
        let length = |secret: &Secret| secret.expose().len();
        let ticket = &config.ticket;
        let long = ticket.signing_key.as_ref().is_none_or(|key| length(key) >= 32);
        self.need(long, "ticket.signing_key", "must be at least 32 bytes");
        for (index, key) in ticket.previous_signing_keys.iter().enumerate() {
            let place = format!("ticket.previous_signing_keys[{index}]");
            self.need(length(key) >= 32, &place, "must be at least 32 bytes");
        }
        let (public, admin) = (config.server.listen, config.admin.listen);
        let apart = admin.is_none_or(|admin| admin != public || admin.port() == 0);
        self.need(apart, "admin.listen", "must not be the same as server.listen");
        if let Some(token) = &config.admin.token {
            self.need(length(token) >= 16, "admin.token", "must be at least 16 bytes");
            // It travels in an Authorization header, where a space would end it.
            let visible = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
            self.need(visible, "admin.token", "must be visible ASCII without spaces");
        }
    }
}

/// Whether browsers send it so in `Origin`.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(plain))
}

fn is_host_and_port(text: &str) -> bool {
    let host_and_port = text.trim().rsplit_once(':');
    host_and_port.is_some_and(|(host, port)| {
        let host_is_plain = !host.is_empty() && !host.contains(char::is_whitespace);
        host_is_plain && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}
