//! The report of drills, as Markdown.

use testbed::Machine;

use super::figures::{PollSpread, Summary};
use crate::load::{Kind, Outcome};
use crate::report::{grouped, shown, table};

/// What a report says about its circumstances.
#[derive(Clone, Debug)]
pub(crate) struct Circumstances {
    pub(crate) at: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
}

/// Writes the report.
pub(crate) fn markdown(drills: &[Summary], about: &Circumstances) -> String {
    let machine = &about.machine;
    let mut text = format!(
        "# Fault drills\n\n{}, commit {}, {} × {}, Linux {}, load average before {:.2}. Load, instances and engines \
         share the machine.\n\n",
        about.at,
        about.commit,
        machine.cpus,
        machine.cpu,
        machine.kernel,
        machine.load_average_before
    );
    let head = [
        "drill",
        "rounds",
        "requests",
        "503",
        "504",
        "haproxy 5xx",
        "no answer",
        "other 5xx",
        "back at 99 %: median s",
        "max s",
        "places lost",
        "numbers grown",
        "seats doubled",
        "events lost",
        "poll p99 ms before",
        "during",
        "after",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(drills.iter().map(overview));
    text += &table(&rows);
    for drill in drills {
        text += &section(drill);
    }
    text
}

fn overview(drill: &Summary) -> Vec<String> {
    let of = |outcomes: &[Outcome]| grouped(drill.outcomes(outcomes));
    let all: Vec<Outcome> = Outcome::TITLES.map(|(outcome, _)| outcome).to_vec();
    let whole = drill.recovery.whole;
    let not = match whole.not_within_round {
        0 => String::new(),
        count => format!(" ({count} not)"),
    };
    let found = |group: &str| drill.found.get(group).copied().unwrap_or(0).to_string();
    let p99 = |polls: PollSpread| shown(polls.p99, 1);
    vec![
        drill.drill.clone(),
        format!("{} of {} ok", drill.rounds_ok, drill.rounds),
        of(&all),
        of(&[Outcome::Unavailable]),
        of(&[Outcome::TimedOut]),
        of(&[Outcome::OfProxy]),
        of(&[Outcome::None, Outcome::NoneDirect]),
        of(&[Outcome::ServerError]),
        shown(whole.spread.median, 2),
        shown(whole.spread.max, 2) + &not,
        found("places lost"),
        found("numbers grown"),
        found("seats doubled"),
        found("events lost"),
        p99(drill.polls.before),
        p99(drill.polls.during),
        p99(drill.polls.after),
    ]
}

fn section(drill: &Summary) -> String {
    let mut letters = drill.about.chars();
    let about: String =
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let lasting = drill.seconds.map(|seconds| format!(", for {seconds} s")).unwrap_or_default();
    let mut text = format!(
        "\n## {}\n\n{about}{lasting}. {} rounds, {} instances, {} joins, {} reservations, {} payments. The fault ends \
         when: {}.\n\n",
        drill.drill,
        drill.rounds,
        drill.instances,
        grouped(drill.joined as u64),
        grouped(drill.reservations as u64),
        grouped(drill.payments as u64),
        drill.fault_ends
    );
    let outcomes: Vec<(Outcome, &str)> = Outcome::TITLES
        .into_iter()
        .filter(|(outcome, _)| drill.outcomes(&[*outcome]) > 0)
        .collect();
    let mut head = vec!["kind".to_owned()];
    head.extend(outcomes.iter().map(|(_, title)| (*title).to_owned()));
    head.extend(["first success: median s".to_owned(), "max s".to_owned()]);
    let mut rows = vec![head];
    for kind in Kind::ALL {
        let Some(row) = drill.requests.get(&kind) else { continue };
        let mut cells = vec![format!("{kind:?}").to_lowercase()];
        let count = |outcome| grouped(row.get(outcome).copied().unwrap_or(0));
        cells.extend(outcomes.iter().map(|(outcome, _)| count(outcome)));
        let first = drill.recovery.first.get(&kind);
        cells.push(shown(first.and_then(|first| first.median), 2));
        cells.push(shown(first.and_then(|first| first.max), 2));
        rows.push(cells);
    }
    text += &table(&rows);
    let polls = |name: &str, polls: PollSpread| {
        format!(
            "{name} p50 {} p99 {} ms of {}",
            shown(polls.p50, 2),
            shown(polls.p99, 2),
            polls.polls
        )
    };
    let found: Vec<String> = crate::witness::Kind::GROUPS
        .into_iter()
        .map(|group| format!("{group} {}", drill.found.get(group).copied().unwrap_or(0)))
        .collect();
    let repeated = drill.events_repeated.map_or_else(|| "-".to_owned(), |count| count.to_string());
    let last = &drill.last;
    let end = if last.problems.is_empty() {
        format!("orderly, audit clean, {} payments in Kafka", grouped(last.payments))
    } else {
        last.problems.join("; ")
    };
    text + &format!(
        "\nPolls of the light process: {}, {}, {}; {} not 200.\n\nFound: {}.\n\nOvertaken: {} of {} fans have a lower \
         number than somebody whose join was answered before theirs was sent; by {} numbers, {:.3} s later at the most. \
         News late: {} polls were told a number by up to {} higher than another instance had said, up to {} s before. \
         Events that stand in Kafka more than once, with the same id: {repeated}.\n\nAt the end: {end}.\n",
        polls("before", drill.polls.before),
        polls("during", drill.polls.during),
        polls("after", drill.polls.after),
        drill.polls_failed,
        found.join(", "),
        drill.overtaken.fans,
        grouped(drill.joined as u64),
        drill.overtaken.numbers,
        drill.overtaken.seconds,
        drill.late_news.polls,
        drill.late_news.numbers,
        drill.late_news.seconds,
    )
}
