//! One run of one test, from the checks before it to the report.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::Signal;

use crate::catalogue::{self, Test};
use crate::k6::{self, K6, Recording, Summary};
use crate::knee::{self, Ramp};
use crate::model::{
    Audit, Baseline, Breakpoint, Condition, Confirmation, FORMAT, Generator, Machine, Run,
    SafeRate, Series, ServerUse, TestKind, Totals, names,
};
use crate::report::{self, Lang};
use crate::safe_rate::{self, Costs, Crowd};
use crate::sample::{Sampler, Samples, Watched, now_ms};
use crate::service::{self, Service, Start, Target};
use crate::verdict::{self, Judged};
use crate::{run_dir, series};
use testbed::process::tail;
use testbed::tools::root;
use testbed::{Cpus, signals};

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// One of ours, or nothing for a script of the user's own.
    pub(crate) test: Option<&'static Test>,
    pub(crate) name: String,
    /// As it was given, for the report.
    pub(crate) script: String,
    /// What makes the same run again, for the report.
    pub(crate) arguments: Vec<String>,
    pub(crate) path: PathBuf,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) target: Target,
    pub(crate) cpus: Cpus,
    pub(crate) port: Option<u16>,
    pub(crate) tokens: u32,
    pub(crate) token_format: String,
    pub(crate) baseline: bool,
    pub(crate) audit: bool,
    pub(crate) wrap: Vec<String>,
    pub(crate) binary: Option<PathBuf>,
    pub(crate) keep: bool,
    pub(crate) crowd: Crowd,
    /// How long 80 % and 120 % of a limit are held.
    pub(crate) hold: Duration,
    pub(crate) directory: PathBuf,
    pub(crate) lang: Lang,
}

impl Plan {
    fn kind(&self) -> TestKind {
        self.test.map_or(TestKind::Custom, |test| test.kind)
    }

    fn start<'a>(&'a self, directory: &'a Path) -> Start<'a> {
        Start {
            target: &self.target,
            hello: false,
            cpus: &self.cpus,
            port: self.port,
            settings: &self.settings,
            wrap: &self.wrap,
            directory,
            binary: self.binary.as_deref(),
        }
    }

    fn ours(&self) -> bool {
        !matches!(self.target, Target::Url { .. })
    }
}

/// Of a user in k6, with our scripts. Measured: 6.1 GiB for 10,000 of them.
const BYTES_PER_USER: u64 = 660_000;
/// k6 tells its users to stop at once; what is left is writing the summary.
const GENERATOR_STOP: Duration = Duration::from_secs(20);
/// The share of the CPUs that counts as all of them.
const FULL: f64 = 0.95;

/// The service under one load.
struct Measured {
    started_ms: f64,
    elapsed_seconds: f64,
    summary: Option<Summary>,
    recording: Recording,
    samples: Samples,
    generator: Generator,
    generator_said: String,
    server_cpu_seconds: Option<f64>,
    died: Option<String>,
    interrupted: bool,
}

/// Runs it and keeps the results; returns the run. The report is written even where the run was stopped.
pub(crate) fn run(k6: &K6, plan: &Plan) -> Result<Run, String> {
    let users = check(k6, plan)?;
    let machine = machine();
    let started = jiff::Timestamp::now();
    let baseline = if plan.baseline { Some(baseline(k6, plan, users)?) } else { None };
    let (mut measured, exit_code, audit) =
        load(k6, plan, &plan.path, &plan.env, &plan.directory, "run", users)?;
    let (warm_up, set_up) = (warm_up(plan), set_up(&measured));
    let load_began_ms = measured.started_ms + set_up * 1000.0;
    let series = series::merge(load_began_ms, warm_up, &measured.recording, &measured.samples);
    let server = server_use(&measured, exit_code);
    let totals =
        measured.summary.as_ref().and_then(|summary| summary.totals(set_up + warm_up)).map(
            |mut totals| {
                // Scripts that count nothing leave it to k6's log and to the service what happened.
                if totals.errors.is_empty() && totals.failed_share > 0.0 {
                    let log = fs::read(plan.directory.join(k6::LOG)).unwrap_or_default();
                    totals.errors = k6::errors_of_log(&String::from_utf8_lossy(&log));
                    if plan.ours() {
                        totals.errors.append(&mut answered(&server));
                    }
                }
                totals
            },
        );
    measured.generator.saturated_share = saturated_share(&series, plan, &machine);
    let mut breakpoint = None;
    if plan.kind() == TestKind::Breakpoint && !measured.interrupted {
        breakpoint = Some(breakpoint_of(k6, plan, &measured, &series, &machine));
    }
    let interrupted = measured.interrupted || signals::stopped();
    let safe_rate = if interrupted || measured.died.is_some() {
        None
    } else {
        safe_rate_of(plan, breakpoint.as_ref())
    };
    let thresholds = measured.summary.as_ref().map(Summary::thresholds).unwrap_or_default();
    let baseline = baseline.map(|mut baseline| {
        let ours = totals.as_ref().and_then(|totals| totals.duration.p95);
        baseline.p95_ratio = match (ours, baseline.totals.duration.p95) {
            (Some(ours), Some(bare)) if bare > 0.0 => Some(ours / bare),
            _ => None,
        };
        baseline
    });
    let verdict = verdict::judge(&Judged {
        kind: plan.kind(),
        interrupted,
        died: measured.died.as_deref(),
        totals: totals.as_ref(),
        thresholds: &thresholds,
        generator: &measured.generator,
        generator_said: &measured.generator_said,
        server: &server,
        ours: plan.ours(),
        audit: &audit,
        machine: &machine,
        breakpoint: breakpoint.as_ref(),
        baseline: baseline.as_ref(),
        elapsed_seconds: measured.elapsed_seconds,
        seconds_measured: count(&series, names::DURATION_P95),
        seconds_sampled: count(&series, names::SERVER_CPUS),
    });
    let run = Run {
        format: FORMAT,
        test: plan.name.clone(),
        kind: plan.kind(),
        script: plan.script.clone(),
        arguments: plan.arguments.clone(),
        started_at: started.round(jiff::Unit::Second).unwrap_or(started).to_string(),
        elapsed_seconds: measured.elapsed_seconds,
        machine,
        commit: testbed::machine::commit(),
        condition: Condition {
            service: match &plan.target {
                Target::Embedded => crate::model::Service::Embedded,
                Target::Cluster { instances } => {
                    crate::model::Service::Cluster { instances: *instances }
                }
                Target::Url { url, .. } => crate::model::Service::Url { url: url.clone() },
            },
            cpus: plan.ours().then(|| plan.cpus.count()),
            settings: shown(&plan.settings),
            env: shown_env(&plan.env),
        },
        verdict,
        generator: measured.generator.clone(),
        by_request: measured.summary.as_ref().map(Summary::by_request).unwrap_or_default(),
        totals,
        server,
        series,
        baseline,
        audit: audit.ok(),
        breakpoint,
        safe_rate,
    };
    run_dir::save(&plan.directory, &run)?;
    Ok(run)
}

/// Writes both reports of a run.
pub(crate) fn write_reports(
    directory: &Path,
    run: &Run,
    others: &[Run],
    lang: Lang,
) -> Result<(), String> {
    run_dir::write(&directory.join("report.html"), &report::html(run, others, lang))?;
    run_dir::write(&directory.join("report.md"), &report::markdown(run, others, lang))
}

/// What nobody should read in a report.
pub(crate) fn shown(settings: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let secret = |key: &str| {
        ["token", "password", "secret", "signing_key", "url"].iter().any(|part| key.contains(part))
    };
    settings
        .iter()
        .map(|(key, value)| {
            (key.clone(), if secret(key) { "(not shown)".to_owned() } else { value.clone() })
        })
        .collect()
}

/// The same of variables of a script.
pub(crate) fn shown_env(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let secret =
        |name: &str| ["_TOKEN", "PASSWORD", "SECRET"].iter().any(|part| name.ends_with(part));
    let shown = env.iter().map(|(name, value)| {
        (name.clone(), if secret(name) { "(not shown)".to_owned() } else { value.clone() })
    });
    shown.collect()
}

fn count(series: &Series, name: &str) -> usize {
    series.values.get(name).map_or(0, |values| values.iter().flatten().count())
}

/// Everything that can be known to be wrong before anything is started. Most users at once.
fn check(k6: &K6, plan: &Plan) -> Result<k6::Inspection, String> {
    if let (Some(port), true) = (plan.port, plan.ours()) {
        testbed::ports::require_free(port)?;
    }
    let inspection = k6.inspect(&plan.path, &plan.env)?;
    let needed = inspection.users * 115 / 100 + 500;
    let why = format!("a run of {} users at once", inspection.users);
    testbed::process::raise_file_limit(needed, &why)?;
    let memory = inspection.users * BYTES_PER_USER;
    if let Some(available) = testbed::machine::memory_bytes("MemAvailable")
        && available < memory
    {
        eprintln!(
            "warning: k6 needs about {:.1} GiB for {} users; {:.1} GiB are available",
            memory as f64 / f64::from(1 << 30),
            inspection.users,
            available as f64 / f64::from(1 << 30)
        );
    }
    Ok(inspection)
}

/// Starts the service, loads it, stops it, audits it.
#[allow(clippy::type_complexity)]
fn load(
    k6: &K6,
    plan: &Plan,
    script: &Path,
    env: &BTreeMap<String, String>,
    directory: &Path,
    label: &str,
    inspection: k6::Inspection,
) -> Result<(Measured, Option<i32>, Result<Audit, String>), String> {
    let mut service = service::start(&plan.start(directory))?;
    if plan.tokens > 0 {
        service.issue_tokens(plan.tokens, &plan.token_format)?;
    }
    let mut env = env.clone();
    // Only scripts that set their own stage with it are told.
    if plan.test.is_some_and(|test| test.admin)
        && !env.contains_key("ADMIN_TOKEN")
        && let Some(token) = &service.admin_token
    {
        env.insert("ADMIN_TOKEN".to_owned(), token.clone());
    }
    let measured = drive(k6, &mut service, script, &env, directory, label, inspection)?;
    let (code, audit) = service.stop_and_audit(plan.audit);
    if plan.keep {
        service.keep_data(&directory.join("data"))?;
    }
    Ok((measured, code, audit))
}

/// One run of k6 against a service.
fn drive(
    k6: &K6,
    service: &mut Service,
    script: &Path,
    env: &BTreeMap<String, String>,
    directory: &Path,
    label: &str,
    inspection: k6::Inspection,
) -> Result<Measured, String> {
    let bar = bar(label, inspection.seconds);
    let cpu_before = service.cpu_seconds();
    let started_ms = now_ms();
    let began = Instant::now();
    let mut process = k6.start(script, &service.url, env, directory)?;
    let sampler = Sampler::start(Watched {
        servers: service.servers.clone(),
        engines: service.engines.clone(),
        generator: process.id(),
        urls: service.metrics.clone(),
    });
    let (mut died, mut interrupted) = (None, false);
    let ended = loop {
        if let Some(ended) = process.ended() {
            break Some(ended);
        }
        died = service.died();
        interrupted = signals::stopped();
        if died.is_some() || interrupted {
            // Asked this way it stops its users and still writes its summary.
            break process.stop(Signal::INT, GENERATOR_STOP);
        }
        show(&bar, began, directory);
        std::thread::sleep(Duration::from_millis(100));
    };
    let elapsed_seconds = began.elapsed().as_secs_f64();
    let samples = sampler.stop();
    bar.finish_and_clear();
    // It may have died in the same moment in which k6 ended.
    let died = died.or_else(|| service.died()).or_else(|| service.unreachable());
    let server_cpu_seconds = match (cpu_before, service.cpu_seconds()) {
        (Some(before), Some(after)) => Some(after - before),
        _ => None,
    };
    let recording = Recording::read(&directory.join(k6::SECONDS));
    let summary = Summary::read(&directory.join(k6::SUMMARY));
    let peak = samples.usage.iter().filter_map(|usage| usage.generator_peak_rss).max();
    let generator = Generator {
        k6_version: k6.version.clone(),
        exit_code: ended.map(|ended| ended.code),
        cpu_seconds: ended.and_then(|ended| ended.cpu_seconds),
        peak_rss_bytes: peak,
        dropped_iterations: summary.as_ref().map(Summary::dropped_iterations),
        vus_max: summary.as_ref().and_then(Summary::vus_max),
        saturated_share: None,
    };
    Ok(Measured {
        started_ms: recording.start_ms.unwrap_or(started_ms),
        elapsed_seconds,
        summary,
        recording,
        samples,
        generator,
        generator_said: said(directory),
        server_cpu_seconds,
        died,
        interrupted,
    })
}

/// The last errors that k6 logged, or the end of its log.
fn said(directory: &Path) -> String {
    let log = fs::read(directory.join(k6::LOG)).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let errors: Vec<&str> = text.lines().filter(|line| line.contains("level=error")).collect();
    match errors.last() {
        Some(last) => last.chars().take(1000).collect(),
        None => tail(&directory.join(k6::LOG), 5),
    }
}

/// On a terminal a bar that moves; elsewhere a line now and then.
fn bar(label: &str, seconds: Option<f64>) -> ProgressBar {
    let bar = ProgressBar::new(seconds.unwrap_or(0.0).ceil() as u64);
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} s {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(label.to_owned());
    bar
}

fn show(bar: &ProgressBar, began: Instant, directory: &Path) {
    let elapsed = began.elapsed();
    let tick = elapsed.as_millis() / 100;
    if !tick.is_multiple_of(10) {
        return;
    }
    let end = end_of(&directory.join(k6::LOG));
    let line = end
        .lines()
        .rev()
        .find(|line| line.starts_with("running ("))
        .unwrap_or("starting")
        .to_owned();
    bar.set_position(elapsed.as_secs());
    bar.set_message(line.clone());
    if bar.is_hidden() && elapsed.as_secs().is_multiple_of(10) && elapsed.as_secs() > 0 {
        eprintln!("{}: {line}", bar.prefix());
    }
}

/// The last of a file, which may be large.
fn end_of(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(4096)))?;
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        Ok(end)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Seconds from the begin of the load to the end of the warm-up.
fn warm_up(plan: &Plan) -> f64 {
    let open = matches!(
        plan.kind(),
        TestKind::Load | TestKind::Stress | TestKind::Breakpoint | TestKind::Spike
    );
    let asked = plan.env.get("WARMUP").and_then(|text| k6::seconds(text));
    // A script of the user's own has none that we know of.
    match plan.test {
        Some(_) => asked.unwrap_or(if open { 10.0 } else { 0.0 }),
        None => 0.0,
    }
}

/// Seconds that the script took to set its stage.
fn set_up(measured: &Measured) -> f64 {
    let began = measured.summary.as_ref().and_then(|summary| summary.gauge("began_at_ms"));
    began.map_or(0.0, |began| ((began - measured.started_ms) / 1000.0).max(0.0))
}

/// Share of the seconds in which the figures are as much the generator's as the service's.
fn saturated_share(series: &Series, plan: &Plan, machine: &Machine) -> Option<f64> {
    let of = |name: &str| series.values.get(name);
    let (k6, everything) = (of(names::GENERATOR_CPUS)?, of(names::MACHINE_CPUS)?);
    let cpus = f64::from(machine.cpus);
    let server = of(names::SERVER_CPUS);
    let (mut seconds, mut full) = (0_u32, 0_u32);
    for index in 0..series.at.len() {
        let (Some(Some(k6)), Some(Some(everything))) = (k6.get(index), everything.get(index))
        else {
            continue;
        };
        seconds += 1;
        let server = server.and_then(|values| values.get(index).copied().flatten()).unwrap_or(0.0);
        // A service that uses its own CPU up leaves the others to k6.
        let left = (cpus - server).max(cpus - plan.cpus.count()).max(0.5);
        if *everything >= FULL * cpus || *k6 >= FULL * left {
            full += 1;
        }
    }
    (seconds > 0).then(|| f64::from(full) / f64::from(seconds))
}

fn server_use(measured: &Measured, exit_code: Option<i32>) -> ServerUse {
    let requests = measured
        .summary
        .as_ref()
        .and_then(Summary::requests_in_all)
        .filter(|&requests| requests > 0);
    let mut counters = BTreeMap::new();
    if let (Some(first), Some(last)) =
        (measured.samples.scrapes.first(), measured.samples.scrapes.last())
    {
        for (name, after) in &last.values {
            let bare = name.split('{').next().unwrap_or(name);
            if ["_total", "_count", "_sum"].iter().any(|end| bare.ends_with(end)) {
                counters
                    .insert(name.clone(), after - first.values.get(name).copied().unwrap_or(0.0));
            }
        }
    }
    ServerUse {
        cpu_seconds: measured.server_cpu_seconds,
        cpu_micros_per_request: match (measured.server_cpu_seconds, requests) {
            (Some(cpu), Some(requests)) => Some(cpu / requests as f64 * 1e6),
            _ => None,
        },
        peak_rss_bytes: measured
            .samples
            .usage
            .iter()
            .filter_map(|usage| usage.server_peak_rss)
            .max(),
        exit_code,
        counters,
    }
}

/// How often the service itself says that it answered with an error, by class.
fn answered(server: &ServerUse) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for class in ["4xx", "5xx"] {
        let label = format!("status=\"{class}\"");
        let of_class = server.counters.iter().filter(|(name, _)| {
            name.starts_with("http_server_request_duration_seconds_count{") && name.contains(&label)
        });
        let count = of_class.map(|(_, count)| *count).sum::<f64>() as u64;
        if count > 0 {
            found.insert(class.to_owned(), count);
        }
    }
    found
}

/// The same script against static answers.
fn baseline(k6: &K6, plan: &Plan, inspection: k6::Inspection) -> Result<Baseline, String> {
    let directory = plan.directory.join("baseline");
    fs::create_dir_all(&directory)
        .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let nothing = BTreeMap::new();
    let mut service = service::start(&Start {
        target: &Target::Embedded,
        hello: true,
        cpus: &plan.cpus,
        port: plan.port,
        settings: &nothing,
        wrap: &[],
        directory: &directory,
        binary: None,
    })?;
    let measured =
        drive(k6, &mut service, &plan.path, &plan.env, &directory, "baseline", inspection)?;
    if let Some(how) = measured.died {
        return Err(format!("the baseline: {how}"));
    }
    if measured.interrupted {
        return Err("stopped while the baseline ran; there is nothing to keep yet".to_owned());
    }
    let before = set_up(&measured) + warm_up(plan);
    let totals = measured.summary.as_ref().and_then(|summary| summary.totals(before));
    let totals: Totals = totals
        .ok_or_else(|| format!("the baseline has no figures: {}", measured.generator_said))?;
    if totals.failed_share > verdict::BASELINE_FAILED_MAX {
        eprintln!(
            "warning: {:.1} % of the baseline's requests failed: it answers joins, polls and the way to a payment only, \
             so it is no measure for this script",
            totals.failed_share * 100.0
        );
    }
    let _ = service.stop_and_audit(false);
    Ok(Baseline { totals, server_cpu_seconds: measured.server_cpu_seconds, p95_ratio: None })
}

/// Finds the limit, says what sets it, and holds 80 % and 120 % of it.
fn breakpoint_of(
    k6: &K6,
    plan: &Plan,
    measured: &Measured,
    series: &Series,
    machine: &Machine,
) -> Breakpoint {
    let ramp = Ramp::of(&plan.env);
    let steps: Vec<knee::Step> = ramp
        .steps()
        .into_iter()
        .map(|step| knee::measure(step, series, measured.summary.as_ref()))
        .collect();
    let allowance = plan.ours().then(|| plan.cpus.count());
    let mut found = knee::find(&ramp, &steps, series, allowance, f64::from(machine.cpus));
    // The steps are short, so what they say may be off by a little. What holds or does not hold for longer
    // corrects it, and the limit is what was confirmed.
    for attempt in 1..=ATTEMPTS {
        let Some(knee) = found.knee_per_second else { break };
        let (confirmations, correction) = hold(k6, plan, &ramp, knee, attempt);
        found.confirmations = confirmations;
        match correction {
            Some((factor, why)) if attempt < ATTEMPTS && !signals::stopped() => {
                found
                    .evidence
                    .push(format!("{why}, so {:.0} per second were tried next", knee * factor));
                found.knee_per_second = Some((knee * factor).max(1.0));
            }
            _ => break,
        }
    }
    found
}

/// How often a limit is corrected before it counts as not confirmed.
const ATTEMPTS: u32 = 3;

/// Holds 80 % and 120 % of a limit. Where that contradicts it: what to multiply it by, and why.
fn hold(
    k6: &K6,
    plan: &Plan,
    ramp: &Ramp,
    knee: f64,
    attempt: u32,
) -> (Vec<Confirmation>, Option<(f64, String)>) {
    let mut done = Vec::new();
    for (share, must_hold, factor) in [(0.8, true, 0.85), (1.2, false, 1.15)] {
        if signals::stopped() {
            break;
        }
        eprintln!("holding {:.0} % of the limit: {:.0} per second …", share * 100.0, knee * share);
        match confirm(k6, plan, ramp, knee, share, attempt) {
            Ok(one) => {
                let contradicts = one.held != must_hold;
                let per_second = one.per_second;
                done.push(one);
                if contradicts {
                    let what = if must_hold { "did not hold" } else { "held" };
                    return (done, Some((factor, format!("{per_second:.0} per second {what}"))));
                }
            }
            // What the ramp has found is not lost with it; the verdict says that this was not tried.
            Err(error) => {
                eprintln!("warning: {error}");
                break;
            }
        }
    }
    (done, None)
}

/// Holds a share of the limit for a while, on a fresh service.
fn confirm(
    k6: &K6,
    plan: &Plan,
    ramp: &Ramp,
    knee: f64,
    share: f64,
    attempt: u32,
) -> Result<Confirmation, String> {
    let again = if attempt == 1 { String::new() } else { format!("-{attempt}") };
    let directory = plan.directory.join(format!("hold-{:.0}{again}", share * 100.0));
    fs::create_dir_all(&directory)
        .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
    let per_second = (knee * share).round().max(1.0);
    let mut env = plan.env.clone();
    for name in ["START_RATE", "MAX_RATE", "STEPS"] {
        env.remove(name);
    }
    env.insert("RATE".to_owned(), format!("{per_second:.0}"));
    env.insert("DURATION".to_owned(), format!("{}s", plan.hold.as_secs()));
    env.entry("WORKLOAD".to_owned()).or_insert_with(|| "mix".to_owned());
    let script = plan.path.with_file_name("load.js");
    let inspection = k6.inspect(&script, &env)?;
    let label = format!("hold {:.0} %", share * 100.0);
    let (measured, _, _) = load(k6, plan, &script, &env, &directory, &label, inspection)?;
    let warm_up = ramp.warm_up + set_up(&measured);
    let totals = measured.summary.as_ref().and_then(|summary| summary.totals(warm_up));
    let dropped = measured.generator.dropped_iterations;
    // As the steps of the ramp were judged.
    let slowest = measured.summary.as_ref().and_then(Summary::slowest_p95);
    let p95_ms = slowest.or_else(|| totals.as_ref().and_then(|totals| totals.duration.p95));
    let failed_share = totals.as_ref().map(|totals| totals.failed_share);
    // Nothing that is missing lets it hold.
    let held = measured.died.is_none()
        && !measured.interrupted
        && dropped.is_some_and(|dropped| {
            dropped as f64 <= per_second * plan.hold.as_secs_f64() * Ramp::DROPPED_MAX
        })
        && failed_share.is_some_and(|share| share <= ramp.failed_max)
        && p95_ms.is_some_and(|p95| p95 <= ramp.p95_max_ms);
    Ok(Confirmation {
        share,
        per_second,
        held,
        failed_share: failed_share.unwrap_or(1.0),
        dropped_iterations: dropped.unwrap_or(0),
        p95_ms,
    })
}

/// For the tests that say what the service can take. A rate that cannot be worked out is said, and left out.
fn safe_rate_of(plan: &Plan, breakpoint: Option<&Breakpoint>) -> Option<SafeRate> {
    if !plan.ours() || !matches!(plan.kind(), TestKind::Load | TestKind::Breakpoint) {
        return None;
    }
    let directory = plan.directory.join("costs");
    let measured =
        fs::create_dir_all(&directory).map_err(|error| error.to_string()).and_then(|()| {
            let mut service = service::start(&plan.start(&directory))?;
            let costs = Costs::measure(&mut service);
            let _ = service.stop_and_audit(false);
            costs
        });
    let costs = match measured {
        Ok(costs) => costs,
        Err(error) => {
            eprintln!(
                "warning: no safe admission rate: the CPU of single requests could not be measured: {error}"
            );
            return None;
        }
    };
    // Iterations of the ramp that buy.
    let buyers = match plan.env.get("WORKLOAD").map(String::as_str) {
        Some("buyer" | "fan") => Some(1.0),
        Some("join" | "poll") => None,
        _ => plan
            .env
            .get("BUYERS")
            .and_then(|text| text.parse().ok())
            .or(Some(safe_rate::BUYERS_OF_MIX)),
    };
    let knee = breakpoint
        .and_then(|found| found.knee_per_second)
        .zip(buyers)
        .map(|(knee, share)| knee * share);
    safe_rate::work_out(&costs, plan.cpus.count(), &plan.crowd, knee)
}

fn machine() -> Machine {
    let machine = testbed::Machine::look();
    Machine {
        cpu: machine.cpu,
        cpus: machine.cpus as u32,
        memory_bytes: machine.memory_bytes,
        kernel: machine.kernel,
        load_average_before: machine.load_average_before,
    }
}

/// The plan's test by name or by path.
pub(crate) fn resolve(what: &str) -> Result<(Option<&'static Test>, String, PathBuf), String> {
    if let Some(test) = catalogue::find(what) {
        return Ok((Some(test), test.name.to_owned(), root().join(test.script)));
    }
    let path = PathBuf::from(what);
    if !path.is_file() {
        let known: Vec<&str> = catalogue::TESTS.iter().map(|test| test.name).collect();
        return Err(format!("there is no test and no script {what}; tests: {}", known.join(", ")));
    }
    let path = path.canonicalize().map_err(|error| format!("{what}: {error}"))?;
    // Our own scripts are known by their path, too.
    let test = catalogue::TESTS.iter().find(|test| root().join(test.script) == path);
    let name = path
        .file_stem()
        .map_or_else(|| "script".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Ok((test, name, path))
}

/// The port that a script insists on: one without parameters that names `localhost` and a port.
pub(crate) fn wired_port(script: &str) -> Option<u16> {
    if script.contains("__ENV") || script.contains("lib/boxoffice.js") || script.contains("lib/") {
        return None;
    }
    ["http://localhost:", "http://127.0.0.1:"].iter().find_map(|host| {
        let rest = &script[script.find(host)? + host.len()..];
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..digits].parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_insists_on_a_port_is_known() {
        assert_eq!(wired_port("http.get('http://localhost:8080/api')"), Some(8080));
        assert_eq!(wired_port("const u = `http://127.0.0.1:9000`;"), Some(9000));
        assert_eq!(wired_port("const h = __ENV.HOST || 'http://localhost:8080';"), None);
        assert_eq!(
            wired_port("import { join } from './lib/boxoffice.js'; // http://localhost:8080"),
            None
        );
        assert_eq!(wired_port("http.get('http://localhost/')"), None);
    }

    #[test]
    fn secrets_are_not_kept() {
        let settings = [
            ("admin.token", "s3cret"),
            ("store.mysql.url", "mysql://u:p@h"),
            ("queue.max_active", "9"),
        ];
        let shown = shown(&settings.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(!format!("{shown:?}").contains("s3cret") && !format!("{shown:?}").contains("u:p"));
        assert_eq!(shown["queue.max_active"], "9");
        let env = [("ADMIN_TOKEN", "s3cret"), ("TOKEN_FORMAT", "t_{n}")];
        let shown = shown_env(&env.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(
            (shown["ADMIN_TOKEN"].as_str(), shown["TOKEN_FORMAT"].as_str()),
            ("(not shown)", "t_{n}")
        );
    }
}
