use std::path::PathBuf;

use boxoffice_backends::events::KAFKA_TLS;
use boxoffice_backends::store::MysqlTls;
use toml::{Table, Value};

use super::value::Kind;
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

/// A value for a setting that is not its default.
fn sample(setting: &Setting) -> Value {
    match setting.kind {
        Kind::Text | Kind::File => "sample".into(),
        Kind::Address => "127.0.0.1:1".into(),
        Kind::Integer => 7.into(),
        Kind::Float => 7.5.into(),
        Kind::Bool => ((setting.get)(&Config::default()) == Some(false.into())).into(),
        Kind::List => vec!["sample"].into(),
        Kind::Choice(words) => {
            let default = (setting.get)(&Config::default());
            let other = words
                .iter()
                .map(|(word, _)| Value::from(*word))
                .find(|it| Some(it) != default.as_ref());
            other.unwrap()
        }
    }
}

#[test]
fn each_key_sets_one_setting() {
    let default = Config::default();
    let mut seen = Vec::new();
    for one in settings() {
        let mut config = Config::default();
        assert!((one.set)(&mut config, sample(one)).is_ok(), "{}", one.key);
        assert_ne!(config, default, "{}", one.key);
        for other in settings() {
            let changed = (other.get)(&config) != (other.get)(&default);
            assert_eq!(changed, other.key == one.key, "{} after {}", other.key, one.key);
        }
        let shown = (one.get)(&config).unwrap();
        assert_eq!(shown.to_string().contains("<redacted>"), one.secret, "{}", one.key);
        assert!(one.secret || shown == sample(one), "{}: {shown}", one.key);
        assert!(!seen.contains(&one.key), "{} is there twice", one.key);
        seen.push(one.key);
    }
    assert!(seen.len() > 70, "the table was found");
}

#[test]
fn ranges_include_their_limits_and_nothing_beyond() {
    let fits = |setting: &Setting, range: &Range, number: f64| {
        let value = match setting.kind {
            Kind::Float => Value::Float(number),
            _ => Value::Integer(number as i64),
        };
        let mut config = Config::default();
        (setting.set)(&mut config, value).is_ok() && (range.outside)(&config).is_none()
    };
    let mut ranges = 0;
    for setting in settings() {
        let Some(range) = &setting.range else { continue };
        let (min, max) = (range.limits)();
        let (min, max): (f64, f64) = (min.parse().unwrap(), max.parse().unwrap());
        for (number, fine) in [(min, true), (max, true), (min - 1.0, false), (max + 1.0, false)] {
            assert_eq!(fits(setting, range, number), fine, "{} = {number}", setting.key);
        }
        assert!(!matches!(setting.kind, Kind::Float) || !fits(setting, range, f64::NAN));
        ranges += 1;
    }
    assert!(ranges > 30, "{ranges}");
}

#[test]
fn texts_are_sentences_and_times_have_a_unit_in_their_names() {
    let texts = settings().map(|setting| (setting.key, setting.help));
    for (name, text) in texts.chain(SECTIONS.iter().map(|section| (section.name(), section.help))) {
        assert!(text.starts_with(|c: char| c.is_ascii_uppercase() || c == '`'), "{name}: {text}");
        assert!(text.ends_with('.') && !text.contains(['|', '\n']), "{name}: {text}");
        let unit = ["_ms", "_seconds", "_hours"].iter().any(|unit| name.ends_with(unit));
        assert_eq!(text.starts_with("Time "), unit, "{name}: {text}");
    }
}

#[test]
fn log_filters_are_parsed() {
    let filter = |level: &str| LogConfig { level: level.into(), ..LogConfig::default() }.filter();
    assert!(filter("info,boxoffice::http=debug").is_ok());
    assert!(filter("boxoffice=loud").is_err());
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
    assert!(shown.contains("listen = \"127.0.0.1:3\"  # from flag --set server.listen"), "{shown}");
    assert!(
        shown.contains(
            "admit_per_second = 2.0  # from environment variable BOXOFFICE_QUEUE__ADMIT_PER_SECOND"
        ),
        "{shown}"
    );
    assert!(shown.parse::<Table>().is_ok(), "{shown}");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let dir = dir();
    let mut odd = options(&dir);
    odd.overrides = pairs(&[
        ("store.mysql.user", "a\nb = 1\n[queue]\n"),
        ("events.kafka.client_id", "\"quoted\"  # from"),
        ("queue.redis.nodes", "a:1"),
        ("server.trusted_proxies", "10.0.0.0/8, ::1"),
        ("queue.max_active", "5"),
        ("events.path", "x"),
    ]);
    let loaded = Config::load(odd).unwrap();
    std::fs::write(dir.path().join("boxoffice.toml"), loaded.to_toml()).unwrap();
    assert_eq!(Config::load(options(&dir)).unwrap().config, loaded.config);
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

    std::fs::write(
        &file,
        "data_dir = 1\n[queue]\nredis.nodes = ['a:1', 2]\nmax_active = -1\n[server.listen]\nport = 1\n",
    )
    .unwrap();
    let text = error(options(&dir));
    for part in [
        "4 problems",
        "data_dir: invalid type: integer `1`, expected path string (from file ",
        "queue.max_active: invalid value: integer `-1`, expected u64 (from file ",
        "queue.redis.nodes[1]: invalid type: integer `2`, expected a string (from file ",
        "server.listen: ",
    ] {
        assert!(text.contains(part), "{part:?} missing in {text}");
    }
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
    let loaded = loaded.unwrap();
    let addresses = [("a".to_owned(), 26_379), ("::1".to_owned(), 26_380)];
    assert_eq!(loaded.config.queue.redis.addresses(), addresses);
    assert!(!loaded.to_toml().contains("secret\""), "{}", loaded.to_toml());
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
    assert!(text.contains("ticket.signing_key_file: ticket.signing_key is given too"), "{text}");
    assert!(!text.contains("secret-secret"), "{text}");

    std::fs::write(dir.path().join("boxoffice.toml"), "[admin]\ntoken = 987654321987654321\n")
        .unwrap();
    let text = error(options(&dir));
    assert!(text.contains("admin.token: has the wrong type"), "{text}");
    assert!(!text.contains("987654321987654321"), "{text}");
}

#[test]
fn every_secret_with_a_file_key_is_read_from_the_file() {
    let dir = dir();
    let path = dir.path().join("secret");
    std::fs::write(&path, " from a file\n").unwrap();
    let read = |key: &str, value: &str| {
        let overrides = pairs(&[(key, value)]);
        layers::read(LoadOptions { overrides, ..options(&dir) }).unwrap()
    };
    let mut files = 0;
    for secret in settings().filter(|setting| setting.secret) {
        let key = format!("{}_file", secret.key);
        let Some(file) = settings().find(|setting| setting.key == key) else { continue };
        let found = read(&key, path.to_str().unwrap());
        let mut wanted = read(secret.key, "from a file").config;
        assert!((file.set)(&mut wanted, path.to_str().unwrap().into()).is_ok());
        assert!(found.config == wanted, "{key}");
        assert_eq!(found.sources[secret.key], Source::File(path.clone()), "{key}");
        files += 1;
    }
    assert_eq!(files, 7, "as many secrets can be in files");
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
    url.env =
        pairs(&[("BOXOFFICE_STORE__MYSQL__URL", "mysql://me:pass%20phrase@[::1]:3307/tickets")]);
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
fn origins_are_what_browsers_send() {
    let dir = dir();
    let with = |origins: &str| {
        let mut options = options(&dir);
        options.overrides = pairs(&[("server.cors_origins", origins)]);
        options
    };
    let good = "https://tickets.example, http://localhost:3000, http://[::1]:3000";
    assert_eq!(Config::load(with(good)).unwrap().config.server.cors_origins.len(), 3);
    for wrong in
        ["*", "null", "tickets.example", "https://", "https://a/", "https://A", "https://a@b"]
    {
        let text = error(with(&format!("https://tickets.example, {wrong}")));
        assert!(text.contains("server.cors_origins[1]: must be an origin"), "{wrong}: {text}");
    }
}

#[test]
fn signing_in_is_validated_as_a_whole() {
    let dir = dir();
    let keys = |more: &[(&str, &str)]| {
        let client = [
            ("auth.mode", "jwt"),
            ("auth.issuer", "https://id.example"),
            ("auth.audience", "shop"),
            ("auth.client_id", "pages"),
            ("auth.client_secret", "hush"),
            ("auth.public_url", "https://tickets.example"),
        ];
        let overrides = pairs(&[&client[..], more].concat());
        let loaded = Config::load(LoadOptions { overrides, ..options(&dir) });
        let problems = loaded.map_or_else(|error| error.problems, |_| vec![]);
        problems.into_iter().map(|problem| problem.key).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys(&[]), "");
    for here in ["http://localhost:8080", "http://127.0.0.1", "http://[::1]:8080", "https://a:8443"]
    {
        assert_eq!(keys(&[("auth.public_url", here)]), "", "{here}");
    }
    for wrong in [
        "http://tickets.example",
        "http://localhost.evil.example",
        "http://127.0.0.10",
        "https://tickets.example/",
        "https://Tickets.example",
        "tickets.example",
        "",
    ] {
        assert_eq!(keys(&[("auth.public_url", wrong)]), "auth.public_url", "{wrong}");
    }
    assert_eq!(keys(&[("auth.mode", "none")]), "auth.client_id");
    assert_eq!(keys(&[("auth.client_id", "")]), "auth.client_id");
    assert_eq!(keys(&[("auth.scopes", "profile")]), "auth.scopes");
    assert_eq!(keys(&[("auth.scopes", "openid,a b")]), "auth.scopes[1]");
    assert_eq!(keys(&[("auth.session_hours", "0")]), "auth.session_hours");
    let by_file = [("auth.issuer", "urn:issuer"), ("auth.jwks_url", "https://id.example/keys")];
    assert_eq!(keys(&by_file), "auth.issuer", "people go there, wherever its keys are");
    let alone = [("auth.client_secret", "hush"), ("auth.public_url", "https://tickets.example")];
    let overrides = pairs(&alone);
    let text = error(LoadOptions { overrides, ..options(&dir) });
    assert!(text.contains("auth.client_secret: is of no use without auth.client_id"), "{text}");
    assert!(text.contains("auth.public_url: is of no use"), "{text}");
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

#[test]
fn what_decides_about_fans_is_a_rule_for_all_instances() {
    let with = |key: &str, value: &str| {
        let overrides = pairs(&[("auth.audience", "shop"), (key, value)]);
        let options = LoadOptions { overrides, ..options(&dir()) };
        Config::load(options).unwrap().config.rules()
    };
    let ours = with("log.level", "info");
    let rules = [
        ("sales.hold_seconds", "60"),
        ("sales.max_seats_per_reservation", "3"),
        ("sales.max_seats_per_user", "5"),
        ("queue.default", "vip"),
        ("queue.active_ttl_seconds", "60"),
        ("queue.claim_window_seconds", "10"),
        ("auth.issuer", "https://b.example"),
        ("auth.audience", "other"),
        ("auth.user_claim", "email"),
        ("auth.leeway_seconds", "0"),
        ("auth.scopes", "openid,profile"),
        ("auth.session_hours", "1"),
        ("pass.issuer", "https://b.example"),
    ];
    for (key, value) in rules {
        let other = with(key, value);
        assert_ne!(ours, other, "{key}");
        assert!(format!("{other:?}").contains(key), "{key}");
    }
    let own = [
        ("server.listen", "127.0.0.1:1"),
        ("queue.admit_per_second", "5"),
        ("admin.token", "a-token-of-some-length"),
        ("ticket.signing_key", "0123456789abcdef0123456789abcdef"),
        ("auth.allow_anonymous", "true"),
        ("auth.jwks_url", "http://127.0.0.1:1/keys"),
    ];
    for (key, value) in own {
        assert_eq!(ours, with(key, value), "{key}");
    }
}

#[test]
fn pages_are_read_from_a_directory_that_is_there() {
    let dir = dir();
    let with = |path: PathBuf| {
        let overrides = pairs(&[("pages.directory", path.to_str().unwrap())]);
        Config::load(LoadOptions { overrides, ..options(&dir) })
    };
    let loaded = with(dir.path().to_owned()).unwrap();
    assert_eq!(loaded.config.pages.directory.as_deref(), Some(dir.path()));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    for wrong in [file, dir.path().join("none")] {
        let problems = with(wrong).err().unwrap().problems;
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].key, "pages.directory");
    }
}

#[test]
fn where_the_gate_sends_people_is_an_address_or_a_path() {
    let problems = |key: &str, value: &str| {
        let options = LoadOptions { overrides: pairs(&[(key, value)]), ..options(&dir()) };
        let keys = |problem: &ConfigProblem| problem.key.clone();
        Config::load(options)
            .err()
            .map_or(vec![], |error| error.problems.iter().map(keys).collect())
    };
    for (key, good) in [
        ("pass.issuer", "https://tickets.example/"),
        ("gate.waiting_url", "/"),
        ("gate.waiting_url", "/waiting/?site=1"),
        ("gate.waiting_url", "https://wait.example:8443/here"),
        ("gate.sites", "https://shop.example,http://localhost:8080"),
    ] {
        assert_eq!(problems(key, good), [""; 0], "{key} = {good}");
    }
    for (key, wrong) in [
        ("pass.issuer", ""),
        ("pass.issuer", "a\"b"),
        ("pass.issuer", "a\\b"),
        ("pass.issuer", "a b"),
        ("gate.waiting_url", ""),
        ("gate.waiting_url", "waiting"),
        ("gate.waiting_url", "//evil.example/"),
        ("gate.waiting_url", "/a#b"),
        ("gate.waiting_url", "/a\r\nSet-Cookie: a"),
        ("gate.waiting_url", "/\\evil.example"),
        ("gate.waiting_url", "javascript:alert(1)"),
        ("gate.waiting_url", "https:///a"),
        ("gate.sites", "https://shop.example/"),
    ] {
        let found = problems(key, wrong);
        assert!(found.len() == 1 && found[0].starts_with(key), "{key} = {wrong:?}: {found:?}");
    }
}
