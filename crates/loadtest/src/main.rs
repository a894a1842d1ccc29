//! Drives k6 against boxoffice and writes the performance report.

mod catalogue;
mod compare;
mod k6;
mod knee;
mod model;
mod report;
mod run_dir;
mod runner;
mod safe_rate;
mod sample;
mod series;
mod service;
mod verdict;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

use crate::catalogue::{TESTS, Test};
use crate::model::{Outcome, Run, TestKind};
use crate::report::Lang;
use crate::runner::Plan;
use crate::safe_rate::Crowd;
use crate::service::Target;
use testbed::{Cpus, signals};

/// Drives k6 against boxoffice and writes the performance report.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
examples:
  loadtest run scenario1 --cpus 1 --baseline
  loadtest run breakpoint --cpus 1
  loadtest run my-script.js --url https://tickets.example.org
  loadtest all --quick
  loadtest compare target/loadtest/A target/loadtest/B

Exit codes: 0 all in order, 1 a run failed or could not be made or got worse, 2 wrong usage, 130 stopped."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says which tests there are
    List {
        #[arg(long, value_parser = language(), default_value = "en")]
        lang: Lang,
    },
    /// Runs one test, or any k6 script
    Run(Box<RunArgs>),
    /// Runs every test in every condition that this machine has
    All(AllArgs),
    /// Holds a run against an earlier one; fails where it got worse
    Compare { a: PathBuf, b: PathBuf },
    /// Writes the reports of runs anew
    Report {
        /// Run directories, or directories of them
        #[arg(required = true)]
        directories: Vec<PathBuf>,
        #[arg(long, value_parser = language(), default_value = "en")]
        lang: Lang,
        /// Also write one document of all of them
        #[arg(long, value_name = "FILE")]
        performance: Option<PathBuf>,
    },
}

#[derive(Args)]
struct RunArgs {
    /// Name of a test (see `list`), or path of a k6 script
    #[arg(value_name = "NAME|PATH.js")]
    what: String,
    /// CPUs of the service: a count (1), a part (0.5), a list (0,1) or all
    #[arg(long, default_value = "1")]
    cpus: String,
    /// Port of the service; a free one where left out, unless the script insists on one
    #[arg(long)]
    port: Option<u16>,
    /// Instances on a MariaDB, a Redis and a Kafka behind haproxy, all of which it starts
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16))]
    cluster: Option<u32>,
    /// A service that runs already
    #[arg(long, conflicts_with_all = ["cluster", "port", "settings", "baseline", "wrap"])]
    url: Option<String>,
    /// Its admin token, for the audit and for tests that set their own stage
    #[arg(long, env = "LOADTEST_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// A variable for the script; may be repeated
    #[arg(short, long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// A setting of the service, such as queue.admit_per_second=1000; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    settings: Vec<(String, String)>,
    /// First the same script against static answers (scripts that only join and poll)
    #[arg(long)]
    baseline: bool,
    /// Issue so many activated tokens before the run
    #[arg(long, value_name = "N")]
    issue_tokens: Option<u32>,
    /// How they are called
    #[arg(long, default_value = TOKEN_FORMAT)]
    token_format: String,
    /// Language of the report
    #[arg(long, value_parser = language(), default_value = "en")]
    lang: Lang,
    /// Where results go [default: target/loadtest/TIME-NAME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A short run, which shows that it works and measures nothing
    #[arg(long)]
    quick: bool,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    crowd: CrowdArgs,
    /// How long 80 % and 120 % of a limit are held, in seconds
    #[arg(long, default_value_t = HOLD, value_parser = clap::value_parser!(u64).range(5..=600))]
    hold: u64,
    /// Keep the service's data directory in the results (not of a cluster)
    #[arg(long, conflicts_with_all = ["url", "cluster"])]
    keep: bool,
    /// A program and its arguments that the service is started by (for tests of this program)
    #[arg(long, hide = true, value_name = "COMMAND")]
    wrap: Option<String>,
    /// The service's program, where it is not the release build (for tests of this program)
    #[arg(long, hide = true, value_name = "PATH")]
    binary: Option<PathBuf>,
}

/// The crowd that the safe admission rate is worked out for.
#[derive(Args, Clone, Copy)]
struct CrowdArgs {
    /// How many wait at the worst moment
    #[arg(long, default_value_t = CROWD.waiting)]
    crowd: f64,
    /// How often each of them asks, in seconds
    #[arg(long, default_value_t = CROWD.poll_every_seconds)]
    poll_every: f64,
    /// How many join per second meanwhile
    #[arg(long, default_value_t = CROWD.joins_per_second)]
    joins: f64,
}

#[derive(Args)]
struct AllArgs {
    /// Short runs, which show that all of it works and measure nothing
    #[arg(long)]
    quick: bool,
    /// Language of the reports
    #[arg(long, value_parser = language(), default_value = "en")]
    lang: Lang,
    /// Where results go [default: target/loadtest/TIME-all]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Only these tests; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
    #[command(flatten)]
    crowd: CrowdArgs,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is needed".to_owned()),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = signals::watch().and_then(|()| match &cli.command {
        Command::List { lang } => {
            list(*lang);
            Ok(true)
        }
        Command::Run(args) => run(args),
        Command::All(args) => all(args),
        Command::Compare { a, b } => compare(a, b),
        Command::Report { directories, lang, performance } => {
            rewrite(directories, *lang, performance.as_deref())
        }
    });
    if signals::stopped() {
        if let Err(error) = done {
            eprintln!("loadtest: {error}");
        }
        return ExitCode::from(signals::INTERRUPTED);
    }
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The languages of a report, as the command line calls them.
fn language() -> impl TypedValueParser<Value = Lang> {
    PossibleValuesParser::new(["en", "ko"]).map(|name| match name.as_str() {
        "ko" => Lang::Ko,
        _ => Lang::En,
    })
}

fn list(lang: Lang) {
    for test in TESTS {
        let purpose = if lang == Lang::Ko { test.purpose_ko } else { test.purpose_en };
        println!("{:<11} {purpose}", test.name);
    }
}

fn env_of(test: Option<&Test>, quick: bool) -> BTreeMap<String, String> {
    let own = test.map_or(&[][..], |test| if quick { test.quick } else { test.env });
    own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the scripts take tokens to be called where nothing else is said.
const TOKEN_FORMAT: &str = "queue_token_{n}";
/// Seconds for which shares of a limit are held.
const HOLD: u64 = 30;
const CROWD: Crowd = Crowd { waiting: 10_000.0, poll_every_seconds: 3.0, joins_per_second: 200.0 };

impl CrowdArgs {
    /// What differs from the defaults.
    fn arguments(self) -> Vec<String> {
        [
            ("--crowd", self.crowd, CROWD.waiting),
            ("--poll-every", self.poll_every, CROWD.poll_every_seconds),
            ("--joins", self.joins, CROWD.joins_per_second),
        ]
        .into_iter()
        .filter(|(_, given, usual)| given != usual)
        .flat_map(|(name, given, _)| [name.to_owned(), given.to_string()])
        .collect()
    }

    fn crowd(self) -> Crowd {
        Crowd {
            waiting: self.crowd,
            poll_every_seconds: self.poll_every,
            joins_per_second: self.joins,
        }
    }
}

fn run(args: &RunArgs) -> Result<bool, String> {
    let k6 = k6::find()?;
    let (test, name, path) = runner::resolve(&args.what)?;
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let port = match (runner::wired_port(&text), args.port) {
        (Some(wired), Some(port)) if wired != port => {
            return Err(format!(
                "{} is hard-wired to port {wired}; run it with --port {wired}",
                args.what
            ));
        }
        (wired, port) => port.filter(|&port| port != 0).or(wired),
    };
    let cpus = Cpus::parse(&args.cpus)?;
    let target = match (&args.url, args.cluster) {
        (Some(url), _) => Target::Url {
            url: url.trim_end_matches('/').to_owned(),
            admin_token: args.admin_token.clone(),
        },
        (None, Some(instances)) => Target::Cluster { instances },
        (None, None) => Target::Embedded,
    };
    let mut env = env_of(test, args.quick);
    env.extend(args.env.iter().cloned());
    let ours = args.url.is_none();
    let tokens = args.issue_tokens.unwrap_or_else(|| match test {
        Some(test) if ours => tokens_of(test, args.quick, &env),
        _ => 0,
    });
    if ours && !args.no_build && args.binary.is_none() {
        service::build(args.baseline)?;
    }
    let directory = run_dir::make(args.out.as_deref(), &name)?;
    let plan = Plan {
        test,
        name,
        script: args.what.clone(),
        arguments: arguments(args),
        path,
        env,
        settings: settings_of(&args.settings, ours && args.binary.is_none()),
        target,
        cpus,
        port,
        tokens,
        token_format: args.token_format.clone(),
        baseline: args.baseline,
        audit: true,
        wrap: args
            .wrap
            .as_deref()
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        binary: args.binary.clone(),
        keep: args.keep,
        crowd: args.crowd.crowd(),
        hold: Duration::from_secs(if args.quick { args.hold.min(12) } else { args.hold }),
        directory,
        lang: args.lang,
    };
    let run = runner::run(&k6, &plan)?;
    runner::write_reports(&plan.directory, &run, &[], plan.lang)?;
    summarize(&run, &plan.directory);
    Ok(run.verdict.outcome == Outcome::Pass)
}

/// What makes the same run again: what was given, without secrets and without where results go.
fn arguments(args: &RunArgs) -> Vec<String> {
    let mut words = vec!["run".to_owned(), args.what.clone()];
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            words.extend([name.to_owned(), value]);
        }
    };
    match &args.url {
        Some(url) => add("--url", Some(url.trim_end_matches('/').to_owned())),
        None => add("--cpus", Some(args.cpus.clone())),
    }
    add("--cluster", args.cluster.map(|instances| instances.to_string()));
    add("--port", args.port.map(|port| port.to_string()));
    add("--issue-tokens", args.issue_tokens.map(|count| count.to_string()));
    add("--token-format", Some(args.token_format.clone()).filter(|format| format != TOKEN_FORMAT));
    add("--hold", Some(args.hold).filter(|&hold| hold != HOLD).map(|hold| hold.to_string()));
    let settings = runner::shown(&args.settings.iter().cloned().collect());
    for (key, value) in &settings {
        add("--set", Some(format!("{key}={value}")));
    }
    let env = runner::shown_env(&args.env.iter().cloned().collect());
    for (name, value) in &env {
        add("-e", Some(format!("{name}={value}")));
    }
    words.extend(args.crowd.arguments());
    for (given, name) in
        [(args.baseline, "--baseline"), (args.quick, "--quick"), (args.keep, "--keep")]
    {
        words.extend(given.then(|| name.to_owned()));
    }
    words
}

fn arguments_of_all(args: &AllArgs, test: &Test, cpus: usize) -> Vec<String> {
    let mut words =
        vec!["run".to_owned(), test.name.to_owned(), "--cpus".to_owned(), cpus.to_string()];
    words.extend(args.crowd.arguments());
    for (given, name) in [(test.baseline, "--baseline"), (args.quick, "--quick")] {
        words.extend(given.then(|| name.to_owned()));
    }
    words
}

/// Settings of the service. Most crowds of the tests are let in and do not buy, so of `ours`, which may not be
/// an older build, admission does not go by what is left; whoever wants it to says so.
fn settings_of(given: &[(String, String)], ours: bool) -> BTreeMap<String, String> {
    let bound = ours.then(|| ("queue.stock".to_owned(), "off".to_owned()));
    bound.into_iter().chain(given.iter().cloned()).collect()
}

/// As many as there are buyers.
fn tokens_of(test: &Test, quick: bool, env: &BTreeMap<String, String>) -> u32 {
    let own = if quick { test.quick_tokens } else { test.tokens };
    if own == 0 { 0 } else { env.get("VUS").and_then(|vus| vus.parse().ok()).unwrap_or(own) }
}

fn all(args: &AllArgs) -> Result<bool, String> {
    let k6 = k6::find()?;
    for name in &args.only {
        if catalogue::find(name).is_none() {
            return Err(format!("there is no test {name}; `loadtest list` says which there are"));
        }
    }
    let chosen: Vec<&'static Test> = TESTS
        .iter()
        .filter(|test| args.only.is_empty() || args.only.iter().any(|name| name == test.name))
        .collect();
    if !args.no_build {
        service::build(chosen.iter().any(|test| test.baseline))?;
    }
    let top = run_dir::make(args.out.as_deref(), "all")?;
    let have = testbed::cpus::available().len();
    let mut done: Vec<(PathBuf, Run)> = Vec::new();
    let mut broken = false;
    'tests: for test in chosen {
        for cpus in 1..=3_usize {
            if cpus > 1 && !test.every_condition {
                continue;
            }
            let label = format!("{}-cpu{cpus}", test.name);
            if cpus > have {
                eprintln!("{label}: not on this machine, which has {have} CPUs");
                continue;
            }
            if signals::stopped() {
                // There is a report of what was done.
                break 'tests;
            }
            eprintln!("=== {label}");
            let directory = run_dir::make(Some(&top.join(&label)), &label)?;
            let env = env_of(Some(test), args.quick);
            let plan = Plan {
                test: Some(test),
                name: test.name.to_owned(),
                script: test.script.to_owned(),
                arguments: arguments_of_all(args, test, cpus),
                path: testbed::tools::root().join(test.script),
                tokens: tokens_of(test, args.quick, &env),
                env,
                settings: settings_of(&[], true),
                target: Target::Embedded,
                cpus: Cpus::parse(&cpus.to_string())?,
                port: None,
                token_format: TOKEN_FORMAT.to_owned(),
                baseline: test.baseline,
                audit: true,
                wrap: Vec::new(),
                binary: None,
                keep: false,
                crowd: args.crowd.crowd(),
                hold: Duration::from_secs(if args.quick { 12 } else { HOLD }),
                directory: directory.clone(),
                lang: args.lang,
            };
            match runner::run(&k6, &plan) {
                Ok(run) => {
                    summarize(&run, &directory);
                    done.push((directory, run));
                    write_all(&done, args.lang)?;
                }
                Err(error) => {
                    // The others may still work; it is not forgotten.
                    eprintln!("loadtest: {label}: {error}");
                    broken = true;
                }
            }
        }
    }
    let runs: Vec<Run> = done.iter().map(|(_, run)| run.clone()).collect();
    // In both languages: each names the other.
    for (name, lang) in [("PERFORMANCE.md", Lang::En), ("PERFORMANCE.ko.md", Lang::Ko)] {
        let file = top.join(name);
        let document = report::performance_doc(&runs, lang);
        run_dir::write(&file, &with_analysis(&file, &document, lang)?)?;
    }
    println!("\nall reports are in {}", top.display());
    for (directory, run) in &done {
        let name = directory
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        println!("{name:<18} {}", outcome(run));
    }
    Ok(!broken
        && !signals::stopped()
        && !done.is_empty()
        && done.iter().all(|(_, run)| run.verdict.outcome == Outcome::Pass))
}

/// Every report with the runs of the same test beside it.
fn write_all(done: &[(PathBuf, Run)], lang: Lang) -> Result<(), String> {
    for (index, (directory, run)) in done.iter().enumerate() {
        let others = done
            .iter()
            .enumerate()
            .filter(|(other, (_, one))| *other != index && one.test == run.test);
        let others: Vec<Run> = others.map(|(_, (_, run))| run.clone()).collect();
        runner::write_reports(directory, run, &others, lang)?;
    }
    Ok(())
}

fn compare(a: &Path, b: &Path) -> Result<bool, String> {
    let (a, b) = (run_dir::load(a)?, run_dir::load(b)?);
    let comparison = compare::compare(&a, &b);
    print!("{}", report::comparison_text(&a, &b, &comparison));
    Ok(!comparison.regressed())
}

/// With what somebody wrote about the figures, in `performance-analysis.md` beside the document.
fn with_analysis(file: &Path, document: &str, lang: Lang) -> Result<String, String> {
    let path = file.with_file_name(match lang {
        Lang::En => "performance-analysis.md",
        Lang::Ko => "performance-analysis.ko.md",
    });
    match std::fs::read_to_string(&path) {
        Ok(analysis) => Ok(report::with_analysis(document, &analysis)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(report::with_analysis(document, ""))
        }
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn rewrite(paths: &[PathBuf], lang: Lang, performance: Option<&Path>) -> Result<bool, String> {
    let mut done = Vec::new();
    for path in run_dir::find(paths)? {
        let run = run_dir::load(&path)?;
        let directory = if path.is_dir() {
            path
        } else {
            path.parent().map(Path::to_owned).unwrap_or_default()
        };
        done.push((directory, run));
    }
    write_all(&done, lang)?;
    for (directory, _) in &done {
        println!("{}", directory.join("report.html").display());
    }
    if let Some(file) = performance {
        let runs: Vec<Run> = done.into_iter().map(|(_, run)| run).collect();
        run_dir::write(file, &with_analysis(file, &report::performance_doc(&runs, lang), lang)?)?;
        println!("{}", file.display());
    }
    Ok(true)
}

fn outcome(run: &Run) -> &'static str {
    match run.verdict.outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Incomplete => "INCOMPLETE",
    }
}

/// The verdict and the figures in a few lines; the rest is in the report.
fn summarize(run: &Run, directory: &Path) {
    println!("\n{} {}", outcome(run), run.test);
    for finding in &run.verdict.findings {
        let text = finding.detail.lines().next().unwrap_or_default();
        println!("  {} {:?}: {text}", if finding.fatal { "✗" } else { "!" }, finding.code);
    }
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.2} ms"));
    if let Some(totals) = &run.totals {
        println!(
            "  {} requests, {:.1}/s, {:.3} % failed; p50 {}, p95 {}, p99 {}, max {}",
            totals.requests,
            totals.requests_per_second,
            totals.failed_share * 100.0,
            ms(totals.duration.med),
            ms(totals.duration.p95),
            ms(totals.duration.p99),
            ms(totals.duration.max),
        );
    }
    if let (Some(cpu), Some(each)) = (run.server.cpu_seconds, run.server.cpu_micros_per_request) {
        println!(
            "  service: {cpu:.2} CPU s, {each:.1} µs per request; k6: {:.2} CPU s",
            run.generator.cpu_seconds.unwrap_or(0.0)
        );
    }
    if let (Some(baseline), Some(ratio)) =
        (&run.baseline, run.baseline.as_ref().and_then(|b| b.p95_ratio))
    {
        println!(
            "  static answers: p95 {}; the service {ratio:.2} × that",
            ms(baseline.totals.duration.p95)
        );
    }
    if let Some(found) = &run.breakpoint {
        let knee = found
            .knee_per_second
            .map_or("none found".to_owned(), |knee| format!("{knee:.0} per second"));
        println!("  limit: {knee}, by {:?}", found.saturated);
        for text in &found.evidence {
            println!("    {text}");
        }
        for one in &found.confirmations {
            let held = if one.held { "held" } else { "did not hold" };
            println!(
                "    {:.0} % ({:.0} per second) {held}, p95 {}",
                one.share * 100.0,
                one.per_second,
                ms(one.p95_ms)
            );
        }
    }
    if let Some(safe) = &run.safe_rate {
        println!("  safe admission rate: {:.0} per second", safe.per_second);
    }
    if run.kind == TestKind::Custom && run.by_request.is_empty() {
        println!(
            "  (the script has no thresholds by `name`, so k6 does not tell its requests apart)"
        );
    }
    println!("  {}", directory.join("report.html").display());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(words: &[&str]) -> Vec<String> {
        let line = std::iter::once("loadtest").chain(words.iter().copied());
        match Cli::parse_from(line).command {
            Command::Run(args) => arguments(&args),
            _ => panic!("not a run"),
        }
    }

    #[test]
    fn crowds_that_do_not_buy_are_not_held_up_by_what_is_left() {
        let of = |given: &[(&str, &str)], ours| {
            let given: Vec<_> =
                given.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
            settings_of(&given, ours).get("queue.stock").cloned()
        };
        assert_eq!(of(&[], true).as_deref(), Some("off"));
        assert_eq!(of(&[("queue.stock", "on")], true).as_deref(), Some("on"));
        assert_eq!(of(&[], false), None, "an older build does not know it");
    }

    #[test]
    fn a_run_keeps_what_makes_it_again() {
        for (given, expected) in [
            ("run scenario1", "run scenario1 --cpus 1"),
            (
                "run load --quick --out x --hold 9 --crowd 5 --issue-tokens 7",
                "run load --cpus 1 --issue-tokens 7 --hold 9 --crowd 5 --quick",
            ),
            (
                "run a.js --url http://h:1/ --admin-token s3cret -e ADMIN_TOKEN=s3cret -e A=1",
                "run a.js --url http://h:1 -e A=1 -e ADMIN_TOKEN=(not shown)",
            ),
            (
                "run spike --cluster 3 --set admin.token=s3cret --set queue.max_active=9 --joins 1.5",
                "run spike --cpus 1 --cluster 3 --set admin.token=(not shown) --set queue.max_active=9 --joins 1.5",
            ),
        ] {
            let given: Vec<&str> = given.split(' ').collect();
            let words = kept(&given);
            assert_eq!(words.join(" "), expected);
            // And it can be given again.
            let again: Vec<&str> = words.iter().map(String::as_str).collect();
            assert_eq!(kept(&again), words);
        }
    }

    #[test]
    fn all_says_how_one_of_its_runs_is_made_again() {
        let line = ["loadtest", "all", "--quick", "--poll-every", "2"];
        let Command::All(args) = Cli::parse_from(line).command else { panic!("not all") };
        let test = catalogue::find("scenario2").unwrap();
        assert_eq!(
            arguments_of_all(&args, test, 2).join(" "),
            "run scenario2 --cpus 2 --poll-every 2 --baseline --quick"
        );
    }
}
