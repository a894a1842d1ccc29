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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::figures::{Found, Late, Polls, Recovery, Round, Title, summary};
    use super::*;
    use crate::scene::Final;
    use crate::witness::{Finding, Overtaken};

    fn round(number: u32, whole: Option<f64>, findings: Vec<Found>) -> Round {
        let row = BTreeMap::from([(Outcome::Done, 1_200), (Outcome::NoneDirect, 1)]);
        Round {
            round: number,
            ok: findings.is_empty(),
            seconds: 9.0,
            fault_seconds: 1.0,
            fault: [3.0, 4.0],
            requests: BTreeMap::from([(Kind::Poll, row)]),
            recovery: Recovery { first: BTreeMap::from([(Kind::Poll, 0.25)]), whole },
            polls: Polls { before: vec![1.0, 2.0], failed: 3, ..Polls::default() },
            late_news: Late { polls: 2, seconds: 0.1, numbers: 7 },
            overtaken: Overtaken { fans: 1, numbers: 5, seconds: 0.043 },
            joined: 600,
            payments: 10 * number as usize,
            reservations: 20 * number as usize,
            verdicts: BTreeMap::new(),
            findings,
            samples: Vec::new(),
        }
    }

    fn sums() -> Summary {
        let finding = Finding::SeatPaidTwice { seat: 1, reservations: [2, 3] };
        let found = Found { round: 2, kind: finding.kind(), text: finding, at: 1.5 };
        let rounds = [round(1, Some(0.5), Vec::new()), round(2, None, vec![found])];
        let last = Final {
            consumed: "20 events delivered, 12 repetitions dropped".to_owned(),
            payments: 20,
            ..Final::default()
        };
        let (name, about, ends) = ("kill-x", "kill -9 of x", "x answers");
        let title = Title { name, about, ends, seconds: Some(30.0), instances: 3 };
        summary(title, &rounds, &last)
    }

    #[test]
    fn a_report_has_every_figure() {
        let drill = sums();
        assert!(!drill.is_ok());
        let about = Circumstances {
            at: "2026-01-02T03:04:05Z".to_owned(),
            commit: "abc".to_owned(),
            machine: Machine::look(),
        };
        let text = markdown(&[drill], &about);
        let row = text.lines().find(|line| line.starts_with("| kill-x ")).unwrap();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let expected = [
            "",
            "kill-x",
            "1 of 2 ok",
            "2,402",
            "0",
            "0",
            "0",
            "2",
            "0",
            "0.50",
            "0.50 (1 not)",
            "0",
            "0",
            "1",
            "0",
            "2.0",
            "-",
            "-",
            "",
        ];
        assert_eq!(cells, expected);
        for line in [
            "2026-01-02T03:04:05Z, commit abc, ",
            "Kill -9 of x, for 30 s. 2 rounds, 3 instances, 1,200 joins, 40 reservations, 20 payments. The fault ends \
             when: x answers.",
            "| kind |    ok | no answer (direct) | first success: median s | max s |",
            "| poll | 2,400 |                  2 |                    0.25 |  0.25 |",
            "before p50 2.00 p99 2.00 ms of 4, during p50 - p99 - ms of 0",
            "; 6 not 200.",
            "seats doubled 1, events lost 0",
            "Overtaken: 2 of 1,200 fans",
            "by 5 numbers, 0.043 s later at the most. News late: 4 polls were told a number by up to 7 higher",
            "Events that stand in Kafka more than once, with the same id: 12.",
            "At the end: orderly, audit clean, 20 payments in Kafka.",
        ] {
            assert!(text.contains(line), "{line:?} is missing:\n{text}");
        }
    }

    #[test]
    fn the_figures_are_kept_by_their_names() {
        let kept = serde_json::to_value(sums()).unwrap();
        assert_eq!(kept["requests"]["poll"]["none-direct"], 2);
        assert_eq!(kept["recovery"]["whole"]["median"], 0.5);
        assert_eq!(kept["recovery"]["whole"]["notWithinRound"], 1);
        assert_eq!(kept["found"]["seats doubled"], 1);
        assert_eq!((&kept["eventsRepeated"], &kept["roundsOk"]), (&12.into(), &1.into()));
        assert_eq!(kept["final"]["payments"], 20);
        let finding = Finding::SeatPaidTwice { seat: 1, reservations: [2, 3] };
        let found = Found { round: 2, kind: finding.kind(), text: finding, at: 1.5 };
        let kept = serde_json::to_value(round(2, None, vec![found])).unwrap();
        let expected = serde_json::json!([{
            "round": 2, "kind": "seat doubled", "at": 1.5,
            "text": "seat 1 is paid in reservations 2 and 3",
        }]);
        assert_eq!(kept["findings"], expected);
        assert_eq!((&kept["faultSeconds"], &kept["lateNews"]["numbers"]), (&1.0.into(), &7.into()));
    }
}
