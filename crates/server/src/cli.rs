//! The command line.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use boxoffice_backends::Error;
use boxoffice_backends::events::rfc3339;
use boxoffice_backends::sequencer::{LocalSequencer, Sequencer};
use boxoffice_backends::store::{
    Act, ActRejected, Acted, Beat, Effect, MysqlStore, Note, OtherBeat, Restore, Role, SigningKey,
    SqliteStore, Store, StoredOperator, sqlite_backup,
};
use boxoffice_domain::ids::{QueueName, UserId};
use boxoffice_domain::sales::PRICE_MAX;
use boxoffice_domain::time::Timestamp;
use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::app::queue_settings;
use crate::audit::AuditReport;
use crate::concert_tickets::{self, CODE_BYTES_MAX, Known};
use crate::config::{Config, LoadOptions, Loaded, StoreKind, flag_help, keys_text};
use crate::consume::{self, Consumption, Destination, Sums};
use crate::http::extract::{Whole, WireId};
use crate::http::{
    IssuedTokens, KeyCreated, KeyList, KeyRotation, ListedKey, ListedOperator, OperatorCreated,
    OperatorList, Reason, TokenIssue, Verdict,
};
use crate::operators;
use crate::plans::{PretixPlan, Standing, import};
use crate::proof::export::{self, Export, Page, SignedEnd};
use crate::proof::verify;
use crate::proof::{self, PublicKeys};
use crate::service::{
    Opening, Service, StartError, address_file, admin_address_file, admin_token_file, open_store,
};
use crate::signing::{AHEAD_SECONDS, AHEAD_SECONDS_MAX, ServiceKeys, rotation_at_rest};
use crate::telemetry;

/// Sells concert tickets when everybody comes at once.
///
/// Without a command it serves: embedded, with demo data in an empty ./data, on 127.0.0.1:8080.
#[derive(Parser)]
#[command(name = "boxoffice", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    settings: SettingArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  boxoffice                                          serve on 127.0.0.1:8080
  boxoffice serve --listen 0.0.0.0:80 --data-dir /var/lib/boxoffice
  boxoffice queue set --admit-per-second 500         while it runs; the queue keeps it
  boxoffice token issue --count 9 --activated --format 'a_{r}'   nine tokens, let in
  boxoffice operator add --name desk-1 --role viewer  prints a token, this once
  boxoffice audit                                    check the invariants, live or at rest
  boxoffice plan check hall.json --standing Floor=300:S   what would be made of a seating plan
  boxoffice ticket verify - --session 15 < code      whether what somebody shows at the door is good
  boxoffice verify main.log --ticket 17 --ticket 42  check who was let in, without the service
  boxoffice consume --from-beginning                 the events that Kafka has
  boxoffice config show                              every setting, and where it came from
  boxoffice config keys                              what each setting does

Settings come from boxoffice.toml, then BOXOFFICE_SECTION__KEY variables, then flags; later wins.
BOXOFFICE_CONFIG names another file. A queue is made with the configured
admit_per_second and max_active, and keeps its own from then on.

Exit codes: 0 done (for audit and both verify: nothing is wrong), 1 failed,
2 wrong usage, 3 stopped with requests cut short.";

/// Where settings come from, for every command.
#[derive(Args)]
struct SettingArgs {
    /// Configuration file (TOML); default: ./boxoffice.toml if there is one
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[arg(long, global = true, value_name = "DIR", help = flag_help("data_dir"))]
    data_dir: Option<String>,
    /// Sets any setting, for example queue.admit_per_second=500; may be repeated
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default)
    Serve(ServeArgs),
    /// Opaque tokens for testers and partners
    #[command(subcommand)]
    Token(TokenCommand),
    /// Look at queues, pause, resume and re-rate them
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Add, list and remove those who may use the admin API, on the running service or on the store at rest
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// List and change the keys that passes are signed with, on the running service or on the store at rest
    #[command(subcommand)]
    Keys(KeysCommand),
    /// What buyers show at the venue
    #[command(subcommand)]
    Ticket(TicketCommand),
    /// Check the numbered invariants, on the running service or on the store at rest
    Audit(AuditArgs),
    /// The admission log, for others to check
    #[command(subcommand)]
    Log(LogCommand),
    /// Look at the plan of a hall before it is sold
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Check an export of an admission log, without the service: that nobody was overtaken, at which rate people
    /// were let in, and that nothing was changed since
    Verify(VerifyArgs),
    /// Bring the store to this binary's schema version
    Migrate,
    /// Mend the store after a clock was wrong
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Read the events from Kafka into a file, to a URL or to standard output
    Consume(ConsumeArgs),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Copy the store, running or not, into a new file
    Backup {
        /// The file to write; must not exist
        file: PathBuf,
    },
    /// Restore a backup into a new data directory, or finish what a database server has restored. Tickets that
    /// were given after the backup are refused from then on
    Restore {
        /// The backup
        #[arg(required_unless_present = "finish")]
        file: Option<PathBuf>,
        /// The store was brought back by other means, such as a dump of MySQL; no instance may run meanwhile
        #[arg(long, conflicts_with = "file")]
        finish: bool,
    },
}

#[derive(Args, Default)]
struct ServeArgs {
    #[arg(long, value_name = "ADDR", help = flag_help("server.listen"))]
    listen: Option<SocketAddr>,
    /// Do not fill an empty store with demo data [sets demo.seed=false]
    #[arg(long)]
    no_demo: bool,
}

#[derive(Subcommand)]
enum ClockCommand {
    /// Take back what was stored at times to come: it happened now, and holds made then end. No instance
    /// may run meanwhile
    SetBack,
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Issue opaque tokens: token n is user n's
    Issue(IssueArgs),
}

fn user(id: i64) -> Result<UserId, &'static str> {
    UserId::new(id).ok_or("a user is a positive number")
}

#[derive(Args)]
struct IssueArgs {
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// What they look like; n in braces becomes the number, r in braces 32 random characters
    #[arg(long, default_value = "queue_token_{n}")]
    format: String,
    /// Let them in at once, past the line; otherwise they join its end
    #[arg(long)]
    activated: bool,
    /// Let activated tokens be such as can be guessed: their format then needs no random part
    #[arg(long)]
    guessable: bool,
    /// The number of the first
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    first: u32,
    /// All for this user, instead of token n for user n
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..).try_map(user))]
    user: Option<UserId>,
    /// The queue [default: the configured one]
    #[arg(long)]
    queue: Option<String>,
    /// How long activated tokens open doors, in seconds [default: the queue's active time]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    active_for: Option<u32>,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// Show all queues
    List,
    /// Make a queue
    Create {
        /// Its name: 1 to 40 of a-z, 0-9, - and _
        queue: String,
        /// In which order those have their turn who join before it opens: as they joined (fifo), or as they are
        /// drawn at the opening (draw, which needs --opens-at)
        #[arg(long, default_value = "fifo", value_parser = ["fifo", "draw"])]
        opening: String,
        #[command(flatten)]
        settings: QueueArgs,
    },
    /// Stop admission; joining and polling go on
    Pause {
        /// The queue [default: the configured one]
        queue: Option<String>,
    },
    /// Take admission up again
    Resume {
        /// The queue [default: the configured one]
        queue: Option<String>,
    },
    /// Change how a queue admits
    Set {
        /// The queue [default: the configured one]
        queue: Option<String>,
        #[command(flatten)]
        settings: QueueArgs,
    },
}

#[derive(Args)]
struct QueueArgs {
    /// Admissions a second
    #[arg(long)]
    admit_per_second: Option<f64>,
    /// How many may be active at once; 0 removes the bound
    #[arg(long)]
    max_active: Option<u64>,
    /// When it opens, such as 2026-12-31T20:00:00+09:00; "now" opens it at once
    #[arg(long)]
    opens_at: Option<String>,
}

impl QueueArgs {
    /// What was given, as the API takes it.
    fn into_json(self) -> serde_json::Map<String, serde_json::Value> {
        let Self { admit_per_second, max_active, opens_at } = self;
        let mut given = serde_json::Map::new();
        if let Some(rate) = admit_per_second {
            given.insert("admitPerSecond".into(), rate.into());
        }
        if let Some(max) = max_active {
            let max = if max == 0 { serde_json::Value::Null } else { max.into() };
            given.insert("maxActive".into(), max);
        }
        if let Some(at) = opens_at {
            let at = if at == "now" { serde_json::Value::Null } else { at.into() };
            given.insert("opensAt".into(), at);
        }
        given
    }
}

#[derive(Subcommand)]
enum OperatorCommand {
    /// Add an operator and print their token, this once
    Add {
        /// What the log will call them: 1 to 40 of a-z, 0-9, - and _
        #[arg(long)]
        name: String,
        /// viewer reads; operator also changes queues; admin does everything; cashier charges points only
        #[arg(long, value_parser = ["viewer", "operator", "admin", "cashier"])]
        role: String,
    },
    /// Show all operators
    List,
    /// Take an operator's token away
    Remove {
        /// Their name
        #[arg(required_unless_present = "named")]
        name: Option<String>,
        #[arg(long = "name", hide = true, conflicts_with = "name")]
        named: Option<String>,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// Show all keys
    List,
    /// Make a new key, which is published at once and signs later
    Rotate {
        /// In how many seconds it signs [default: 120]
        #[arg(long = "in", value_name = "SECONDS", conflicts_with = "withdraw",
            value_parser = clap::value_parser!(u32).range(..=i64::from(AHEAD_SECONDS_MAX)))]
        in_seconds: Option<u32>,
        /// The new key signs at once, and passes under all others count no more: for when a key was stolen
        #[arg(long)]
        withdraw: bool,
    },
}

#[derive(Subcommand)]
enum TicketCommand {
    /// Say whether a concert ticket is good now, by the running service: signed here, paid, neither refunded nor called off
    Verify(TicketArgs),
}

#[derive(Args)]
struct TicketArgs {
    /// What its QR code says; - for standard input
    code: String,
    /// The session that is being entered; a ticket of another one is not good
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..))]
    session: Option<i64>,
    /// Check signature and time only, without the service: by its public keys (/.well-known/jwks.json)
    #[arg(long, value_name = "FILE|URL")]
    keys: Option<String>,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct AuditArgs {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Write the admission log of a queue into a file, from the running service or from the store at rest
    Export {
        /// The file to write; must not exist. - for standard output
        file: PathBuf,
        /// The queue [default: the configured one]
        #[arg(long)]
        queue: Option<String>,
        /// A service to ask instead, such as https://tickets.example. Anybody may
        #[arg(long, value_name = "URL")]
        from: Option<String>,
    },
}

#[derive(Subcommand)]
enum PlanCommand {
    /// Read a seating plan of pretix, without the service: what would be made of it, and what is wrong with it
    Check {
        /// The plan; - for standard input
        file: PathBuf,
        /// An area that is for standing: what is written in it (or its uuid), how many may stand there, and their
        /// category. May be repeated
        #[arg(long, value_name = "AREA=COUNT:CATEGORY", value_parser = standing)]
        standing: Vec<Standing>,
        /// The price of a category, in points; with one, each category needs one. May be repeated
        #[arg(long, value_name = "CATEGORY=POINTS", value_parser = price)]
        price: Vec<(String, i64)>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

fn standing(text: &str) -> Result<Standing, String> {
    let parts = text.rsplit_once('=').and_then(|(area, rest)| {
        let (count, category) = rest.split_once(':')?;
        Some((area.to_owned(), count.parse().ok().filter(|count| *count > 0)?, category.to_owned()))
    });
    let (area, count, category) = parts.ok_or("expected AREA=COUNT:CATEGORY")?;
    Ok(Standing { area, count, category })
}

fn price(text: &str) -> Result<(String, i64), String> {
    let (category, points) = text.rsplit_once('=').ok_or("expected CATEGORY=POINTS")?;
    let points = points.parse().ok().filter(|points| (0..=PRICE_MAX).contains(points));
    Ok((category.to_owned(), points.ok_or(format!("points are from 0 to {PRICE_MAX}"))?))
}

const VERIFY_HELP: &str = "\
Examples:
  boxoffice log export main.log --from https://tickets.example
  boxoffice verify main.log --keys jwks.json
  boxoffice verify main.log --ticket 17 --ticket eyJhbGciOiJIUzI1NiIs...
  boxoffice verify main.log --head \"$(cat head.kept)\"

What is checked, and what cannot be, is in docs/proof.md.";

#[derive(Args)]
#[command(after_help = VERIFY_HELP)]
struct VerifyArgs {
    /// The export; - for standard input
    file: PathBuf,
    /// The number of a ticket, or its token: when it was let in, and whether another one of these came before it.
    /// May be repeated
    #[arg(long = "ticket", value_name = "NUMBER|TOKEN")]
    tickets: Vec<String>,
    /// The keys of the service as it publishes them (/.well-known/jwks.json), instead of those in the file
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// A signed head that was kept, which the export must agree with. May be repeated
    #[arg(long = "head", value_name = "HEAD")]
    heads: Vec<String>,
}

const CONSUME_HELP: &str = "\
Examples:
  boxoffice consume --brokers localhost:9092 --from-beginning --output events.jsonl
  boxoffice consume --url http://warehouse.example/events --group warehouse
  boxoffice consume --from-beginning --until-idle 5 | jq .type

Events are marked as read once the target has them: a file is synced before, a URL has answered
2xx. So each arrives at least once. A repetition within the last --remember events is dropped by
its id; a file brings these ids back after a restart, a URL or standard output does not. So a file
has each event once, unless one is repeated after so many others. An URL that is away or answers
408, 429 or 5xx is tried until it takes the event; any other answer than 2xx puts the event into
the dead-letter file. Consumers that share a group share the events.

Where Kafka is, and who we are: the settings events.kafka (boxoffice config show).";

#[derive(Args)]
#[command(after_help = CONSUME_HELP)]
struct ConsumeArgs {
    /// File that events are appended to, one in a line
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    output: Option<PathBuf>,
    /// URL that each event is posted to (http only)
    #[arg(long)]
    url: Option<String>,
    /// The consumer group
    #[arg(long, default_value = "boxoffice-consume")]
    group: String,
    /// Begin with the oldest event, where the group is new; otherwise with the next that comes
    #[arg(long)]
    from_beginning: bool,
    /// End once no event has come for this long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    until_idle: Option<u32>,
    /// Event ids that are remembered to drop repetitions (at least 500)
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(500..=10_000_000))]
    remember: u32,
    /// What cannot be delivered goes here [default: OUTPUT.dead, or consume.dead]
    #[arg(long, value_name = "FILE")]
    dead_letters: Option<PathBuf>,
    #[arg(long, help = flag_help("events.kafka.brokers"))]
    brokers: Option<String>,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the settings and say what is wrong with them
    Check,
    /// Show every setting, and where it came from; secrets are hidden
    Show,
    /// Explain every setting: its values, its default, what it does
    Keys,
}

/// What a command that failed says.
type Failure = String;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let SettingArgs { config, data_dir, set } = cli.settings;
    let mut overrides = set;
    overrides.extend(data_dir.map(|dir| ("data_dir".to_owned(), dir)));
    let command = cli.command.unwrap_or_else(|| Command::Serve(ServeArgs::default()));
    if let Command::Serve(args) = &command {
        overrides.extend(args.listen.map(|at| ("server.listen".to_owned(), at.to_string())));
        if args.no_demo {
            overrides.push(("demo.seed".to_owned(), "false".to_owned()));
        }
    }
    if let Command::Consume(ConsumeArgs { brokers: Some(brokers), .. }) = &command {
        overrides.push(("events.kafka.brokers".to_owned(), brokers.clone()));
    }
    let load = || {
        Config::load(LoadOptions::from_process(config, overrides))
            .map_err(|error| error.to_string())
    };
    match command {
        Command::Serve(_) => serve(load()?.config),
        Command::Token(TokenCommand::Issue(args)) => issue(&load()?.config, args),
        Command::Queue(command) => queue(&load()?.config, command),
        Command::Operator(command) => operator(&load()?.config, command),
        Command::Keys(command) => keys(&load()?.config, command),
        Command::Ticket(TicketCommand::Verify(args)) => match &args.keys {
            // It needs nothing of this machine.
            Some(keys) => verify_ticket(&args, |code| ticket_at_rest(code, keys, args.session)),
            None => {
                let remote = Remote::new(&load()?.config)?;
                verify_ticket(&args, |code| {
                    let mut check = serde_json::json!({"code": code});
                    if let Some(session) = args.session {
                        check["sessionId"] = session.into();
                    }
                    remote.post("/admin/v1/tickets/verify", &check)
                })
            }
        },
        Command::Audit(args) => audit(&load()?.config, &args),
        Command::Log(LogCommand::Export { file, queue, from }) => {
            export_log(&load()?.config, &file, queue.as_deref(), from.as_deref())
        }
        Command::Plan(command) => check_plan(command),
        Command::Verify(args) => verify(args),
        Command::Migrate => migrate(&load()?.config),
        Command::Clock(ClockCommand::SetBack) => set_clock_back(&load()?.config),
        Command::Consume(args) => consume(&load()?.config, args),
        Command::Config(command) => show_config(&command, load),
        Command::Backup { file } => backup(&load()?.config, &file),
        Command::Restore { file: Some(file), .. } => restore(&load()?.config, &file),
        Command::Restore { file: None, .. } => finish_restore(&load()?.config),
    }
}

fn runtime(config: &Config) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.worker_threads > 0 {
        builder.worker_threads(config.server.worker_threads);
    }
    builder.enable_all().build().map_err(|error| format!("cannot start threads: {error}"))
}

fn serve(config: Config) -> Result<ExitCode, Failure> {
    telemetry::init(&config.log);
    let runtime = runtime(&config)?;
    let grace = config.server.drain_timeout();
    let ended = runtime.block_on(async {
        let mut ends = Signals::new()?;
        let data_dir = config.data_dir.clone();
        let service = Service::start(config).await.map_err(|error| error.to_string())?;
        if std::io::stderr().is_terminal() {
            welcome(&service, &data_dir);
        }
        let is_whole = tokio::select! {
            () = ends.next() => {
                tracing::info!("stopping: finishing requests in progress");
                true
            }
            lost = service.lost() => {
                tracing::error!(
                    worker = lost.worker,
                    error = lost.why,
                    "a worker is lost, and nobody does its work; stopping for a restart"
                );
                false
            }
        };
        let patience = if is_whole { None } else { Some(grace + LOST_STOP) };
        tokio::select! {
            cut = service.stop() => Ok(match (is_whole, cut) {
                (true, 0) => ExitCode::SUCCESS,
                (true, _) => ExitCode::from(3),
                (false, _) => ExitCode::FAILURE,
            }),
            () = ends.next() => Err("stopped by a second signal; a restart recovers".to_owned()),
            () = passed(patience) => Err("the rest did not stop in time; a restart recovers".to_owned()),
        }
    });
    // Where the end had to be cut short, a thread that is at work must not hold it up.
    runtime.shutdown_background();
    ended
}

/// How much longer than its requests in progress may take a service takes to stop that has lost a
/// worker, and maybe with it what would have let it stop in good order.
const LOST_STOP: Duration = Duration::from_secs(15);

/// Waits for so long; for ever where there is no bound.
async fn passed(patience: Option<Duration>) {
    match patience {
        Some(patience) => tokio::time::sleep(patience).await,
        None => std::future::pending().await,
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |error| format!("cannot listen for signals: {error}");
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn welcome(service: &Service, data_dir: &Path) {
    let (at, admin) = (service.address(), service.admin_address());
    let data = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    let pages = match service.app().config.pages.enabled {
        true => format!("\n  Tickets     http://{at}/"),
        false => String::new(),
    };
    let demo = if service.seeded() { "\n  Demo data   users 1-1000, concerts 1-4" } else { "" };
    eprintln!(
        "\n  boxoffice {} is open\n{pages}\n  Swagger UI  http://{admin}/swagger-ui/\n  Metrics     \
         http://{admin}/metrics\n  Health      http://{at}/health/ready\n  Data        {}{demo}\n\n  \
         Ctrl-C ends it in good order.\n",
        env!("CARGO_PKG_VERSION"),
        data.display()
    );
}

// ---- commands that talk to a running service ----

/// A running service, as an admin sees it.
struct Remote {
    base: String,
    token: String,
    agent: ureq::Agent,
}

/// An audit of a large store takes a while.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(600);

impl Remote {
    /// The service of a configuration. Its address is what it noted in the data directory, or else
    /// what the configuration says.
    fn new(config: &Config) -> Result<Self, Failure> {
        let noted = |file: PathBuf| {
            fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<SocketAddr>().ok())
        };
        let address = noted(admin_address_file(&config.data_dir))
            .or_else(|| {
                config.admin.listen.is_none().then(|| noted(address_file(&config.data_dir)))?
            })
            .or(config.admin.listen)
            .unwrap_or(config.server.listen);
        let token = match &config.admin.token {
            Some(token) => token.expose().to_owned(),
            None => {
                let path = admin_token_file(&config.data_dir);
                fs::read_to_string(&path).map(|token| token.trim().to_owned()).map_err(|error| {
                    format!(
                        "cannot read the admin token {}: {error}. Is the service running with \
                         this data directory? Name it with --data-dir, or give the token as \
                         BOXOFFICE_ADMIN__TOKEN",
                        path.display()
                    )
                })?
            }
        };
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(ADMIN_TIMEOUT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Self { base: format!("http://{address}"), token, agent })
    }

    fn answer<T: DeserializeOwned>(
        &self,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Failure> {
        let mut response = result.map_err(|error| {
            format!(
                "cannot reach the service at {}: {error}. Start it with `boxoffice serve`",
                self.base
            )
        })?;
        let status = response.status();
        let unreadable = |error| format!("the service answered {status}, unreadably: {error}");
        if status.is_success() {
            return response.body_mut().read_json().map_err(unreadable);
        }
        let problem: serde_json::Value = response.body_mut().read_json().map_err(unreadable)?;
        let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        Err(format!("{} ({status} {})", part("detail"), part("code")))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let request = self.agent.get(format!("{}{path}", self.base));
        self.answer(request.header("Authorization", format!("Bearer {}", self.token)).call())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = self.agent.post(format!("{}{path}", self.base));
        self.answer(
            request.header("Authorization", format!("Bearer {}", self.token)).send_json(body),
        )
    }

    fn delete(&self, path: &str) -> Result<(), Failure> {
        let request = self.agent.delete(format!("{}{path}", self.base));
        let result = request.header("Authorization", format!("Bearer {}", self.token)).call();
        match result {
            Ok(response) if response.status() == 204 => Ok(()),
            other => self.answer::<serde_json::Value>(other).map(|_| ()),
        }
    }

    fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let request = self.agent.patch(format!("{}{path}", self.base));
        self.answer(
            request.header("Authorization", format!("Bearer {}", self.token)).send_json(body),
        )
    }
}

// ---- operators ----

fn operator(config: &Config, command: OperatorCommand) -> Result<ExitCode, Failure> {
    let remote = if is_serving(config) { Some(Remote::new(config)?) } else { None };
    match command {
        OperatorCommand::Add { name, role } => {
            let token = match remote {
                Some(remote) => add_operator(&remote, &name, &role)?,
                None => add_operator_at_rest(config, &name, &role)?,
            };
            eprintln!("{name} is {role}. This is their token; it cannot be shown again:");
            print_piped(&format!("{token}\n"));
        }
        OperatorCommand::List => {
            let operators: Vec<(String, String, String)> = match remote {
                Some(remote) => {
                    let OperatorList { operators } = remote.get("/admin/v1/operators")?;
                    let listed = |it: ListedOperator| {
                        (it.name, Role::from(it.role).to_string(), it.created_at)
                    };
                    operators.into_iter().map(listed).collect()
                }
                None => operators_at_rest(config)?,
            };
            let lines = operators
                .iter()
                .map(|(name, role, since)| format!("{name:<40} {role:<8} since {since}\n"));
            print_piped(&lines.collect::<String>());
        }
        OperatorCommand::Remove { name, named } => {
            let name = name.or(named).unwrap_or_default();
            match remote {
                Some(remote) => remote.delete(&format!("/admin/v1/operators/{name}"))?,
                None => {
                    act_at_rest(config, "remove_operator", Act::RemoveOperator(name.clone()))?;
                }
            }
            println!("{name} is no operator any more");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn add_operator(remote: &Remote, name: &str, role: &str) -> Result<String, Failure> {
    let body = serde_json::json!({"name": name, "role": role});
    let created: OperatorCreated = remote.post("/admin/v1/operators", &body)?;
    created.token.ok_or_else(|| "the service did not tell the token".to_owned())
}

fn add_operator_at_rest(config: &Config, name: &str, role: &str) -> Result<String, Failure> {
    if !operators::is_name(name) {
        return Err(
            "a name is 1 to 40 of a-z, 0-9, - and _, and neither admin nor command-line".to_owned()
        );
    }
    let role = Role::parse(role).ok_or_else(|| format!("there is no role {role}"))?;
    let token = operators::new_token();
    let new = StoredOperator {
        name: name.to_owned(),
        role,
        digest: operators::digest(&token),
        created_at: wall_clock(),
    };
    act_at_rest(config, "add_operator", Act::AddOperator(new))?;
    Ok(token)
}

fn operators_at_rest(config: &Config) -> Result<Vec<(String, String, String)>, Failure> {
    must_exist(config)?;
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Look).await.map_err(text)?;
        let operators = store.operators().await.map_err(text)?;
        store.close().await;
        let listed = |it: StoredOperator| (it.name, it.role.to_string(), rfc3339(it.created_at));
        Ok(operators.into_iter().map(listed).collect())
    })
}

/// Changes the store where no service runs on it, and has it in the log.
fn act_at_rest(config: &Config, operation: &'static str, act: Act) -> Result<(), Failure> {
    must_exist(config)?;
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Serve).await.map_err(text)?;
        let now = store.clock().await.map_err(text)?.max(wall_clock());
        let acted = act_noted(&store, operation, now, act).await;
        store.close().await;
        acted.map(|_| ())
    })
}

async fn act_noted(
    store: &Store,
    operation: &'static str,
    now: Timestamp,
    act: Act,
) -> Result<Acted, Failure> {
    let note = Note {
        at: now,
        who: operators::COMMAND_LINE.to_owned(),
        role: Role::Admin,
        origin: "local".to_owned(),
        operation,
        reason: None,
        key: None,
        answer: Arc::new(|_| String::new()),
    };
    store.act(act, note).await.map_err(|error| match error {
        Error::Fault(fault) => StartError::from(fault).to_string(),
        Error::Rejected(ActRejected::Exists) => {
            "there is an operator of this name; remove them first".to_owned()
        }
        Error::Rejected(ActRejected::NoSuchOperator) => {
            "there is no operator of this name".to_owned()
        }
        Error::Rejected(other) => format!("refused: {other:?}"),
    })
}

// ---- keys ----

fn keys(config: &Config, command: KeysCommand) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::List => {
            let keys: Vec<(String, String, String)> = if is_serving(config) {
                let KeyList { keys } = Remote::new(config)?.get("/admin/v1/keys")?;
                let listed = |key: ListedKey| {
                    (key.kid, format!("{:?}", key.state).to_lowercase(), key.signs_from)
                };
                keys.into_iter().map(listed).collect()
            } else {
                keys_at_rest(config)?
            };
            let lines = keys
                .iter()
                .map(|(kid, state, from)| format!("{kid:<12} {state:<10} signs from {from}\n"));
            print_piped(&lines.collect::<String>());
        }
        KeysCommand::Rotate { in_seconds, withdraw } if is_serving(config) => {
            let rotation = KeyRotation { in_seconds: in_seconds.map(Whole), withdraw };
            let created: KeyCreated =
                Remote::new(config)?.post("/admin/v1/keys/rotate", &rotation)?;
            println!("{} signs from {}", created.kid, created.signs_from);
        }
        KeysCommand::Rotate { in_seconds, withdraw } => {
            let seconds = if withdraw { 0 } else { in_seconds.unwrap_or(AHEAD_SECONDS) };
            let signs_from = Timestamp(wall_clock().0 + i64::from(seconds) * 1_000);
            let rotation = rotation_at_rest(signs_from, withdraw)
                .map_err(|fault| StartError::from(fault).to_string())?;
            let kid = rotation.key.id.clone();
            act_at_rest(config, "rotate_key", Act::RotateKey(rotation))?;
            println!("{kid} signs from {}", rfc3339(signs_from));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What becomes of a key depends on who is inside; at rest only whether it counts is known.
fn keys_at_rest(config: &Config) -> Result<Vec<(String, String, String)>, Failure> {
    must_exist(config)?;
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Look).await.map_err(text)?;
        let ring = store.signing_keys(None).await.map_err(text)?;
        store.close().await;
        let listed = |key: &SigningKey| {
            let state = if key.is_withdrawn { "withdrawn" } else { "good" };
            (key.id.clone(), state.to_owned(), rfc3339(key.signs_from))
        };
        Ok(ring.keys().iter().map(listed).collect())
    })
}

// ---- concert tickets ----

fn verify_ticket(
    args: &TicketArgs,
    judge: impl FnOnce(&str) -> Result<Verdict, Failure>,
) -> Result<ExitCode, Failure> {
    let code = if args.code == "-" {
        let mut text = String::new();
        let most = CODE_BYTES_MAX as u64 + 1_024;
        let read = std::io::stdin().take(most).read_to_string(&mut text);
        read.map_err(|error| format!("cannot read standard input: {error}"))?;
        text
    } else {
        args.code.clone()
    };
    let verdict = judge(code.trim())?;
    let text = if args.json {
        serde_json::to_string_pretty(&verdict).map_err(|error| error.to_string())? + "\n"
    } else {
        verdict.to_text()
    };
    print_piped(&text);
    if verdict.valid && args.keys.is_some() {
        eprintln!(
            "by signature and time alone: whether it was refunded or called off, only the service knows"
        );
    }
    Ok(if verdict.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The most bytes of a key set.
const KEYS_BYTES_MAX: u64 = 1 << 20;

/// What public keys tell of a concert ticket, without the service.
fn ticket_at_rest(code: &str, keys: &str, session: Option<i64>) -> Result<Verdict, Failure> {
    let text = if keys.starts_with("http://") || keys.starts_with("https://") {
        let cannot = |error: ureq::Error| format!("cannot read {keys}: {error}");
        let agent =
            ureq::Agent::config_builder().timeout_global(Some(KEYS_TIMEOUT)).build().new_agent();
        let mut response = agent.get(keys).call().map_err(cannot)?;
        response.body_mut().with_config().limit(KEYS_BYTES_MAX).read_to_string().map_err(cannot)?
    } else {
        fs::read_to_string(keys).map_err(|error| format!("cannot read {keys}: {error}"))?
    };
    let keys = PublicKeys::from_set(&text).map_err(|what| format!("{keys}: {what}"))?;
    let known = |id: &str| keys.get(id).copied().map(Known::Good);
    let claims = match concert_tickets::read(code, known) {
        Ok(claims) => claims,
        Err(why) => return Ok(Verdict::not_a_ticket(&why)),
    };
    let reason = match () {
        () if session.is_some_and(|session| session != claims.session) => {
            Some(Reason::OtherSession)
        }
        () if claims.exp <= wall_clock().0.div_euclid(1_000) => Some(Reason::Over),
        () => None,
    };
    Ok(Verdict::of(claims).because(reason))
}

/// How long the keys may take to come.
const KEYS_TIMEOUT: Duration = Duration::from_secs(10);

/// What one call of the admin API may ask for; more are asked for in parts.
const TOKENS_PER_CALL: u32 = 10_000;

fn issue(config: &Config, args: IssueArgs) -> Result<ExitCode, Failure> {
    let remote = Remote::new(config)?;
    let bar = progress(args.count.into(), "tokens");
    let (mut done, mut first, mut last) = (0, None, None);
    while done < args.count {
        let issue = TokenIssue {
            count: Whole((args.count - done).min(TOKENS_PER_CALL)),
            format: args.format.clone(),
            activated: args.activated,
            guessable: args.guessable,
            first_number: Whole(args.first.saturating_add(done)),
            user_id: args.user.map(WireId),
            queue: args.queue.clone(),
            active_seconds: args.active_for.map(Whole),
        };
        let issued: IssuedTokens = remote.post("/admin/v1/tokens", &issue).map_err(|error| {
            if done == 0 { error } else { format!("{error}; the first {done} were issued") }
        })?;
        done += issue.count.0;
        bar.set_position(done.into());
        for token in issued.tokens.unwrap_or_default() {
            print_piped(&format!("{token}\n"));
        }
        first = first.or(Some(issued.first));
        last = Some((issued.last, issued.active_until));
    }
    bar.finish_and_clear();
    if let (Some(first), Some((last, until))) = (first, last) {
        let until = until.map_or("waiting in the line".to_owned(), |t| format!("active until {t}"));
        let summary = format!("issued {done} tokens, {first} to {last}, {until}");
        // Random tokens are the output; numbered ones need no list.
        if args.format.contains("{r}") { eprintln!("{summary}") } else { println!("{summary}") }
    }
    Ok(ExitCode::SUCCESS)
}

fn queue(config: &Config, command: QueueCommand) -> Result<ExitCode, Failure> {
    let remote = Remote::new(config)?;
    let nothing = serde_json::json!({});
    let path = |queue: Option<String>| {
        format!("/admin/v1/queues/{}", queue.as_deref().unwrap_or(&config.queue.default))
    };
    let shown: serde_json::Value = match command {
        QueueCommand::List => remote.get("/admin/v1/queues")?,
        QueueCommand::Pause { queue } => {
            remote.post(&format!("{}/pause", path(queue)), &nothing)?
        }
        QueueCommand::Resume { queue } => {
            remote.post(&format!("{}/resume", path(queue)), &nothing)?
        }
        QueueCommand::Create { queue, opening, settings } => {
            let mut new = settings.into_json();
            new.insert("queue".into(), queue.into());
            new.insert("opening".into(), opening.into());
            remote.post("/admin/v1/queues", &new)?
        }
        QueueCommand::Set { queue, settings } => {
            let change = settings.into_json();
            if change.is_empty() {
                return Err("nothing to set; give --admit-per-second, --max-active or --opens-at"
                    .to_owned());
            }
            remote.patch(&path(queue), &change)?
        }
    };
    let text = serde_json::to_string_pretty(&shown).map_err(|error| error.to_string())?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn audit(config: &Config, args: &AuditArgs) -> Result<ExitCode, Failure> {
    let report = if is_serving(config) {
        Remote::new(config)?.get("/admin/v1/audit")?
    } else {
        audit_at_rest(config)?
    };
    let AuditReport { clean, .. } = report;
    let text = if args.json {
        serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n"
    } else {
        report.to_text()
    };
    print_piped(&text);
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a service with this data directory is running.
fn is_serving(config: &Config) -> bool {
    match config.store.kind {
        StoreKind::Sqlite => SqliteStore::is_locked(&config.data_dir),
        // The database does not tell which of its instances is ours; the address that it noted does,
        // if somebody answers there.
        StoreKind::Mysql => fs::read_to_string(address_file(&config.data_dir))
            .ok()
            .and_then(|text| text.trim().parse::<SocketAddr>().ok())
            .is_some_and(|at| TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok()),
    }
}

fn must_exist(config: &Config) -> Result<(), Failure> {
    let path = SqliteStore::file(&config.data_dir);
    if config.store.kind != StoreKind::Sqlite || path.exists() {
        return Ok(());
    }
    Err(format!("there is no store at {}; name its directory with --data-dir", path.display()))
}

fn audit_at_rest(config: &Config) -> Result<AuditReport, Failure> {
    must_exist(config)?;
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Look).await.map_err(text)?;
        let now = store.clock().await.map_err(text)?.max(wall_clock());
        let mut findings = store.audit(now).await.map_err(text)?;
        let sequencer = LocalSequencer::open(store.clone(), &queue_settings(config), false).await;
        findings.extend(Sequencer::Local(sequencer.map_err(text)?).audit(now));
        store.close().await;
        Ok(AuditReport::new(&findings))
    })
}

// ---- halls ----

fn check_plan(command: PlanCommand) -> Result<ExitCode, Failure> {
    let PlanCommand::Check { file, standing, price, json } = command;
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        fs::read_to_string(&file)
    };
    let text = text.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let plan: PretixPlan = serde_json::from_str(&text)
        .map_err(|error| format!("{} is no seating plan: {error}", file.display()))?;
    let prices = (!price.is_empty()).then(|| price.into_iter().collect());
    let report = import(plan, &standing, prices.as_ref()).report;
    let text = if json {
        serde_json::to_string_pretty(&report).map_err(|error| error.to_string())? + "\n"
    } else {
        report.to_text()
    };
    print_piped(&text);
    Ok(if report.problem_count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

// ---- the admission log ----

fn export_log(
    config: &Config,
    file: &Path,
    queue: Option<&str>,
    from: Option<&str>,
) -> Result<ExitCode, Failure> {
    let name = queue.unwrap_or(&config.queue.default);
    let queue = QueueName::new(name).ok_or_else(|| format!("{name:?} is no name of a queue"))?;
    let is_piped = file == Path::new("-");
    let out: Box<dyn Write> = match is_piped {
        true => Box::new(std::io::stdout().lock()),
        false => {
            let made = fs::File::create_new(file);
            Box::new(made.map_err(|error| format!("cannot make {}: {error}", file.display()))?)
        }
    };
    let export = Export::new(std::io::BufWriter::new(out));
    let last = match from {
        Some(url) => export_from(url.trim_end_matches('/'), &queue, export),
        None if is_serving(config) => {
            let noted = fs::read_to_string(address_file(&config.data_dir)).ok();
            let noted = noted.and_then(|text| text.trim().parse::<SocketAddr>().ok());
            let address = noted.unwrap_or(config.server.listen);
            export_from(&format!("http://{address}"), &queue, export)
        }
        None => export_at_rest(config, &queue, export),
    };
    // Half an export must not be taken for one.
    let last = last.inspect_err(|_| {
        if !is_piped {
            let _ = fs::remove_file(file);
        }
    })?;
    eprintln!("the log of queue {queue} up to record {last}, in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

/// Records that are asked for at once.
const LOG_PAGE: u32 = 1_000;

/// Exports from a service, as anybody can. Returns the number of the last record.
fn export_from<W: Write>(
    url: &str,
    queue: &QueueName,
    mut export: Export<W>,
) -> Result<u64, Failure> {
    let failed = |error: std::io::Error| format!("cannot write: {error}");
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(ADMIN_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let get = |path: &str| -> Result<String, Failure> {
        let cannot = |error: ureq::Error| format!("cannot reach the service at {url}: {error}");
        let mut response = agent.get(format!("{url}{path}")).call().map_err(cannot)?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(LOG_BYTES_MAX).read_to_string();
        let text = text.map_err(cannot)?;
        if status.is_success() {
            return Ok(text);
        }
        let problem: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let part = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
        Err(format!("{} ({status} {})", part("detail"), part("code")))
    };
    let keys = get("/.well-known/jwks.json")?;
    let mut end: Option<SignedEnd> = None;
    loop {
        let after = export.last().map_or(String::new(), |last| format!("&after={last}"));
        let path = format!("/api/v1/waiting-queues/{queue}/log?limit={LOG_PAGE}{after}");
        let unreadable = |error| format!("the service answered with no log: {error}");
        let page: Page = serde_json::from_str(&get(&path)?).map_err(unreadable)?;
        export.begin(queue.as_str(), &page.previous, &keys).map_err(failed)?;
        let SignedEnd { number, .. } = *end.get_or_insert(page.head);
        export.records(&page.records, number).map_err(failed)?;
        let is_all = export.last() >= Some(number) || page.next.is_none();
        if let (true, Some(SignedEnd { number, signed })) = (is_all, end.take_if(|_| is_all)) {
            export.end(signed).map_err(failed)?;
            return Ok(number);
        }
    }
}

/// The most bytes of a page: a record that says where a queue of millions stands is long.
const LOG_BYTES_MAX: u64 = 256 << 20;

/// Exports from a store on which no service runs. Returns the number of the last record.
fn export_at_rest<W: Write>(
    config: &Config,
    queue: &QueueName,
    mut export: Export<W>,
) -> Result<u64, Failure> {
    must_exist(config)?;
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Look).await.map_err(text)?;
        let keys = ServiceKeys::open(&store).await.map_err(text)?;
        let set = String::from_utf8_lossy(&keys.set()).into_owned();
        let head = export::from_store(&store, queue, &set, &mut export).await.map_err(text)?;
        let head = head.ok_or_else(|| format!("there is no queue {queue}"))?;
        let now = store.clock().await.map_err(text)?.max(wall_clock());
        store.close().await;
        let signed = proof::sign(&keys, queue, head, now);
        export.end(signed).map_err(|error| format!("cannot write: {error}"))?;
        Ok(head.number)
    })
}

fn verify(args: VerifyArgs) -> Result<ExitCode, Failure> {
    let VerifyArgs { file, tickets, keys, heads } = args;
    let keys = keys.map(|path| {
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        PublicKeys::from_set(&text).map_err(|what| format!("{}: {what}", path.display()))
    });
    let keys = keys.transpose()?;
    let tickets = tickets
        .iter()
        .map(|text| {
            verify::AskedTicket::read(text)
                .ok_or_else(|| format!("{text:?} is neither the number nor the token of a ticket"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let question = verify::Question { keys, heads, tickets };
    let verdict = if file == Path::new("-") {
        verify::verify(std::io::stdin().lock(), question)
    } else {
        let opened = fs::File::open(&file);
        let opened = opened.map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        verify::verify(std::io::BufReader::new(opened), question)
    };
    let verdict = verdict?;
    print_piped(&verdict.to_text());
    Ok(if verdict.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wall_clock() -> Timestamp {
    crate::clock::Clock::start(Timestamp(0)).now()
}

// ---- the consumer ----

fn consume(config: &Config, args: ConsumeArgs) -> Result<ExitCode, Failure> {
    if config.events.kafka.brokers.is_empty() {
        return Err("no brokers to read from; give --brokers HOST:PORT, or set \
                    events.kafka.brokers"
            .to_owned());
    }
    let dead_letters = args.dead_letters.unwrap_or_else(|| match &args.output {
        Some(output) => {
            let mut name = output.clone().into_os_string();
            name.push(".dead");
            name.into()
        }
        None => PathBuf::from("consume.dead"),
    });
    let wanted = Consumption {
        connection: config.events.kafka.connection(),
        group: args.group,
        from_beginning: args.from_beginning,
        destination: match (args.output, args.url) {
            (Some(path), _) => Destination::File(path),
            (None, Some(url)) => Destination::Url(url),
            (None, None) => Destination::StandardOutput,
        },
        dead_letters,
        remember: args.remember as usize,
        until_idle: args.until_idle.map(|seconds| Duration::from_secs(seconds.into())),
    };
    let runtime = runtime(config)?;
    let ended = runtime.block_on(async {
        let mut ends = Signals::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut work = tokio::task::spawn_blocking(move || {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {pos} events {per_sec}, {msg}")
            {
                bar.set_style(style);
            }
            let sums = consume::run(wanted, &stopped, &bar);
            bar.finish_and_clear();
            sums
        });
        let done = tokio::select! {
            done = &mut work => done,
            () = ends.next() => {
                stop.store(true, Ordering::Relaxed);
                tokio::select! {
                    done = &mut work => done,
                    () = ends.next() => {
                        return Err("stopped by a second signal; events that were not marked as \
                                    read come again"
                            .to_owned());
                    }
                }
            }
        };
        let Sums { delivered, repeated, dead } =
            done.map_err(|error| format!("the consumer failed: {error}"))??;
        eprintln!(
            "{delivered} events delivered, {repeated} repetitions dropped, {dead} dead letters"
        );
        Ok(ExitCode::SUCCESS)
    });
    // A thread that waits for a target must not hold up the end.
    runtime.shutdown_background();
    ended
}

// ---- commands on the store and the settings ----

/// An instance that has told so lately that it is there, is there.
const INSTANCE_RUNS: Duration = Duration::from_secs(5);

async fn none_may_run(store: &Store) -> Result<(), Failure> {
    // Its last, so that no instance that starts compares itself with a command.
    let beat = Beat { is_last: true, ..Beat::default() };
    let beats = store.beat(beat).await.map_err(|fault| StartError::from(fault).to_string())?;
    let runs = |other: &&OtherBeat| !other.has_ended && beats.now.since(other.at) < INSTANCE_RUNS;
    match beats.others.iter().filter(runs).count() {
        0 => Ok(()),
        running => Err(format!("{running} instances run on this store: stop all of them first")),
    }
}

fn set_clock_back(config: &Config) -> Result<ExitCode, Failure> {
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Serve).await.map_err(text)?;
        none_may_run(&store).await?;
        let seen = store.clock().await.map_err(text)?;
        let now = match store.clock_check() {
            Some(_) => store.database_now().await.map_err(text)?,
            None => wall_clock(),
        };
        let acted = act_noted(&store, "set_clock_back", now, Act::SetClockBack(now)).await?;
        let Acted::Now(Effect::Clock { rows: changed, .. }, _) = acted else {
            return Err("the clock was not set back".to_owned());
        };
        store.close().await;
        println!(
            "the store had seen {}; it is {} now, and {changed} rows were taken back to it",
            rfc3339(seen.max(now)),
            rfc3339(now)
        );
        Ok(ExitCode::SUCCESS)
    })
}

fn migrate(config: &Config) -> Result<ExitCode, Failure> {
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, before) = open_store(config, None, Opening::Migrate).await.map_err(text)?;
        store.close().await;
        let (place, now) = match config.store.kind {
            StoreKind::Sqlite => (
                SqliteStore::file(&config.data_dir).display().to_string(),
                SqliteStore::SCHEMA_VERSION,
            ),
            StoreKind::Mysql => {
                let server = config.store.mysql.server()?;
                let place = format!("{} on {}:{}", server.database, server.host, server.port);
                (place, MysqlStore::SCHEMA_VERSION)
            }
        };
        match before {
            0 => println!("{place}: created with schema version {now}"),
            before if before == now => {
                println!("{place}: schema version {now}, nothing to do");
            }
            before => println!("{place}: schema version {before} -> {now}"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn show_config(
    command: &ConfigCommand,
    load: impl FnOnce() -> Result<Loaded, Failure>,
) -> Result<ExitCode, Failure> {
    let text = match command {
        ConfigCommand::Check => load().map(|_| "the settings are valid\n".to_owned())?,
        ConfigCommand::Show => load()?.to_toml(),
        // Whoever looks up a setting may do so because something is wrong with it.
        ConfigCommand::Keys => keys_text(),
    };
    print_piped(&text);
    Ok(ExitCode::SUCCESS)
}

fn backup(config: &Config, file: &Path) -> Result<ExitCode, Failure> {
    if config.store.kind == StoreKind::Mysql {
        return Err(
            "the store is in MySQL, which has its own ways: mariadb-dump or mysqldump with \
                    --single-transaction; docs/operations.md says more"
                .to_owned(),
        );
    }
    let bar = progress(0, "bytes");
    let bytes = sqlite_backup(&config.data_dir, file, |done, expected| {
        bar.set_length(expected.max(done));
        bar.set_position(done);
    })
    .map_err(|fault| StartError::from(fault).to_string())?;
    bar.finish_and_clear();
    println!("{bytes} bytes in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

fn restore(config: &Config, file: &Path) -> Result<ExitCode, Failure> {
    if config.store.kind == StoreKind::Mysql {
        return Err("the store is in MySQL: read the dump with its own client, and then run \
                    `boxoffice restore --finish`; docs/operations.md says more"
            .to_owned());
    }
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    let restore = Restore::begin(&config.data_dir, file).map_err(text)?;
    let unfinished = Config { data_dir: restore.unfinished(), ..config.clone() };
    let epoch = begin_epoch(&unfinished)?;
    restore.finish().map_err(text)?;
    println!(
        "{}: restored, epoch {epoch}. Tickets that were given after the backup are refused from now on",
        SqliteStore::file(&config.data_dir).display()
    );
    Ok(ExitCode::SUCCESS)
}

fn finish_restore(config: &Config) -> Result<ExitCode, Failure> {
    must_exist(config)?;
    let epoch = begin_epoch(config)?;
    println!("epoch {epoch}. Tickets that were given after the backup are refused from now on");
    Ok(ExitCode::SUCCESS)
}

/// Begins another epoch in a store on which nobody runs. Returns its id.
fn begin_epoch(config: &Config) -> Result<u32, Failure> {
    let text = |fault: boxoffice_backends::Fault| StartError::from(fault).to_string();
    runtime(config)?.block_on(async {
        let (store, _) = open_store(config, None, Opening::Serve).await.map_err(text)?;
        none_may_run(&store).await?;
        let queues = store.queues().await.map_err(text)?;
        let given = || queues.iter().map(|queue| (queue.name.clone(), queue.watermark));
        let epochs = store.epochs().await.map_err(text)?;
        let fresh = || {
            let [a, b, c, d, ..] = *Uuid::new_v4().as_bytes();
            epochs.with(u32::from_be_bytes([a, b, c, d]), given())
        };
        let epochs = std::iter::repeat_with(fresh).take(100).flatten().next();
        let epochs = epochs.ok_or("no id for an epoch was found")?;
        let now = store.clock().await.map_err(text)?.max(wall_clock());
        let acted = act_noted(&store, "restore", now, Act::BeginEpoch(epochs)).await;
        store.close().await;
        match acted? {
            Acted::Now(Effect::Epoch { id }, _) => Ok(id),
            other => Err(format!("no epoch was begun: {other:?}")),
        }
    })
}

/// Whoever pipes this into `head` has seen enough.
fn print_piped(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A progress bar on a terminal; nothing elsewhere.
fn progress(length: u64, unit: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{bar:40}} {{pos}}/{{len}} {unit} {{eta}}");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar
}
