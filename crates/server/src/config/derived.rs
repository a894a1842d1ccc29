//! What follows from settings: networks, servers, connections, filters.
//!
//! What does not belong here: opening any of them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use boxoffice_backends::events::{KafkaConnection, KafkaSasl, TopicPlan};
use boxoffice_backends::store::{MysqlServer, MysqlTls, Rules};
use ipnet::IpNet;
use tracing_subscriber::filter::{ParseError, Targets};

use super::table::{
    self, AuthConfig, AuthMode, Config, KafkaConfig, KafkaSecurity, LogConfig, MysqlConfig,
    MysqlTlsMode, RedisConfig, ServerConfig,
};
use super::value::Secret;

/// What decides about fans and is not in the store, by key or by the section that it is in.
const DECIDING: [&str; 10] = [
    "sales.",
    "auth.",
    "pass.",
    "queue.default",
    "queue.active_ttl_seconds",
    "queue.claim_window_seconds",
    "queue.one_place_each",
    "queue.stock",
    "queue.after_sold_out",
    "queue.after_end",
];
/// What is in these sections and may differ: where an instance listens, and how it reaches the issuer.
const OF_ONE_INSTANCE: [&str; 5] = [
    "auth.allow_anonymous",
    "auth.jwks_url",
    "auth.jwks_file",
    "auth.ca_file",
    "auth.client_secret_file",
];

impl AuthConfig {
    /// What the pages are told of people: that they are believed, that they are known, or that they are known
    /// and can sign in on the pages.
    pub fn for_pages(&self) -> &'static str {
        match (self.mode, &self.client_id) {
            (AuthMode::Jwt, Some(_)) => "sign-in",
            (mode, _) => mode.as_str(),
        }
    }
}

impl Config {
    /// What every instance has to decide by alike.
    pub fn rules(&self) -> Rules {
        let decides = |setting: &&table::Setting| {
            let is = |key: &str| {
                setting.key == key || (key.ends_with('.') && setting.key.starts_with(key))
            };
            DECIDING.iter().any(|key| is(key))
                && !OF_ONE_INSTANCE.contains(&setting.key)
                && !setting.secret
        };
        let rule = |setting: &table::Setting| {
            let value = (setting.get)(self).map(|value| serde_json::to_string(&value));
            (setting.key, value.and_then(Result::ok).unwrap_or_else(|| "none".to_owned()))
        };
        table::settings().filter(decides).map(rule).collect()
    }

    /// Whether a person has one place in a queue at the most.
    pub fn has_one_place_each(&self) -> bool {
        self.queue.one_place_each.unwrap_or(self.auth.mode == AuthMode::Jwt)
    }

    /// The file of the `jsonl` publisher.
    pub fn events_path(&self) -> PathBuf {
        self.events.path.clone().unwrap_or_else(|| self.data_dir.join("events.jsonl"))
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
}

impl RedisConfig {
    /// `nodes` as hosts and ports; those that are neither are left out, which [`Config::validate`]
    /// refuses.
    pub fn addresses(&self) -> Vec<(String, u16)> {
        self.nodes.iter().filter_map(|node| host_and_port(node)).collect()
    }
}

/// An IPv6 address stands in brackets.
pub(super) fn host_and_port(node: &str) -> Option<(String, u16)> {
    let (host, port) = node.trim().rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains([':', '/', '@']) => return None,
        None => host,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
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
        KafkaConnection {
            brokers: self.brokers.clone(),
            client_id: self.client_id.clone(),
            topic_prefix: self.topic_prefix.clone(),
            tls,
            ca_file: self.ca_file.clone(),
            sasl: sasl.then(|| KafkaSasl {
                mechanism: self.sasl_mechanism.as_str().to_owned(),
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
}

impl LogConfig {
    /// What is logged.
    ///
    /// # Errors
    /// The parser's message.
    pub fn filter(&self) -> Result<Targets, String> {
        self.level.parse().map_err(|error: ParseError| error.to_string())
    }
}
