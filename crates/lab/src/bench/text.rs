//! The report, as it is printed and kept.

use serde::Serialize;
use serde_json::Value;
use testbed::Machine;

use super::row::Row;
use super::{Options, SERVER_CPU, WRK_CPU};
use crate::report::{Style, aligned, grouped, thousands};

/// All that is kept.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Results<'a> {
    pub(super) started_at: &'a str,
    pub(super) commit: &'a str,
    pub(super) machine: &'a MachineThen<'a>,
    pub(super) rounds: u32,
    pub(super) seconds: u32,
    pub(super) connections: u32,
    pub(super) crowd: u64,
    pub(super) people: u64,
    /// All that the load of `million` had to say.
    pub(super) in_line: Option<&'a Value>,
    /// What the build to compare with is.
    pub(super) against: Option<&'a str>,
    pub(super) rows: &'a [Row],
    pub(super) problems: &'a [String],
    pub(super) failed: Vec<&'a str>,
}

/// The machine, and when it was looked at.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MachineThen<'a> {
    #[serde(flatten)]
    pub(super) machine: &'a Machine,
    pub(super) started_at: &'a str,
}

impl<'a> Results<'a> {
    /// Names of the rows that failed.
    pub(super) fn failed(rows: &'a [Row]) -> Vec<&'a str> {
        let failed = rows.iter().filter(|row| row.pass == Some(false));
        failed.map(|row| row.name.as_str()).collect()
    }

    pub(super) fn is_ok(&self) -> bool {
        self.failed.is_empty() && self.problems.is_empty()
    }

    fn verdict(&self) -> String {
        if self.is_ok() {
            return "Every target met, no unexpected answer, audits clean.".to_owned();
        }
        let problems = self.problems.iter().map(String::as_str);
        let all: Vec<String> = self
            .failed
            .iter()
            .copied()
            .chain(problems)
            .map(|text| format!("- FAIL: {text}"))
            .collect();
        all.join("\n")
    }

    fn table(&self, style: Style) -> String {
        let head = [
            "row",
            "figure",
            "ratio",
            "(range)",
            "target",
            "",
            "req/s",
            "busy",
            "unexpected",
            "notes",
        ];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.rows.iter().map(cells));
        aligned(&rows, &[0, 9], style)
    }

    /// As Markdown.
    pub(super) fn markdown(&self, options: &Options) -> String {
        let machine = self.machine.machine;
        let beside =
            self.against.map(|older| format!(" Older build: {older}.")).unwrap_or_default();
        format!(
            "# {}\n\n{}, commit {}, {} × {}, Linux {}, load average before {:.2}.{beside}\n\n{}\n{}\n",
            title(options),
            self.started_at,
            self.commit,
            machine.cpus,
            machine.cpu,
            machine.kernel,
            machine.load_average_before,
            self.table(Style::Markdown),
            self.verdict()
        )
    }

    /// For a terminal.
    pub(super) fn terminal(&self, options: &Options) -> String {
        format!("{}\n\n{}\n{}", title(options), self.table(Style::Terminal), self.verdict())
    }
}

fn title(options: &Options) -> String {
    format!(
        "Cost per request: server on CPU {SERVER_CPU}, wrk on CPU {WRK_CPU}; in a cluster MariaDB on CPU {WRK_CPU} and \
         all else on CPU {SERVER_CPU}, {} rounds of {} s, {} connections",
        options.rounds, options.seconds, options.connections
    )
}

fn cells(row: &Row) -> Vec<String> {
    let ratio = row.ratio.zip(row.reference.as_deref());
    let range = row.ratio_range.filter(|_| row.ratio.is_some());
    vec![
        row.name.clone(),
        format!("{} {}", thousands(row.figure, row.digits), row.unit),
        ratio.map(|(ratio, reference)| format!("{ratio:.3} × {reference}")).unwrap_or_default(),
        range.map(|[low, high]| format!("{low:.2}–{high:.2}")).unwrap_or_default(),
        row.target.clone().unwrap_or_default(),
        match row.pass {
            Some(true) => "pass",
            Some(false) => "FAIL",
            None => "",
        }
        .to_owned(),
        row.requests_per_second.map(|rate| thousands(rate, 0)).unwrap_or_default(),
        row.server_busy.map(|busy| format!("{:.0}%", busy * 100.0)).unwrap_or_default(),
        grouped(row.unexpected),
        row.notes.join("; "),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn machine() -> Machine {
        Machine {
            cpu: "A CPU".to_owned(),
            cpus: 2,
            memory_bytes: 1 << 30,
            kernel: "6.1".to_owned(),
            load_average_before: 0.25,
        }
    }

    fn options() -> Options {
        Options {
            topics: BTreeSet::new(),
            quick: true,
            rounds: 3,
            seconds: 1,
            connections: 64,
            crowd: 500_000,
            people: 20_000,
            against: None,
        }
    }

    fn row() -> Row {
        let mut row =
            Row::new("poll", 7.415_6, "µs CPU", 2).notes(["1.10 × hello-poll".to_owned()]);
        row.ratio = Some(1.169_2);
        row.ratio_range = Some([1.148, 1.214]);
        row.reference = Some("hello".to_owned());
        row.requests_per_second = Some(53_697.6);
        row.server_busy = Some(0.401);
        row.target(super::super::row::Target::AtMost(1.2))
    }

    fn results<'a>(
        rows: &'a [Row],
        problems: &'a [String],
        machine: &'a MachineThen<'a>,
    ) -> Results<'a> {
        Results {
            started_at: "2026-01-02T03:04:05Z",
            commit: "abc",
            machine,
            rounds: 3,
            seconds: 1,
            connections: 64,
            crowd: 500_000,
            people: 20_000,
            in_line: None,
            against: Some("old, SHA-256 0123…"),
            rows,
            problems,
            failed: Results::failed(rows),
        }
    }

    #[test]
    fn a_report_has_all_of_a_row() {
        let machine = machine();
        let then = MachineThen { machine: &machine, started_at: "2026-01-02T03:04:05Z" };
        let rows = [row(), Row::new("idle memory", 1234.56, "MiB", 1)];
        let results = results(&rows, &[], &then);
        assert_eq!(
            results.markdown(&options()),
            "# Cost per request: server on CPU 0, wrk on CPU 1; in a cluster MariaDB on CPU 1 and all else on CPU 0, 3 \
             rounds of 1 s, 64 connections\n\n2026-01-02T03:04:05Z, commit abc, 2 × A CPU, Linux 6.1, load average \
             before 0.25. Older build: old, SHA-256 0123….\n\n\
             | row         |      figure |         ratio |   (range) |        target |      |  req/s | busy | unexpected | notes             |\n\
             | ----------- | ----------: | ------------: | --------: | ------------: | ---: | -----: | ---: | ---------: | ----------------- |\n\
             | poll        | 7.42 µs CPU | 1.169 × hello | 1.15–1.21 | ≤ 1.2 × hello | pass | 53,698 |  40% |          0 | 1.10 × hello-poll |\n\
             | idle memory | 1,234.6 MiB |               |           |               |      |        |      |          0 |                   |\n\n\
             Every target met, no unexpected answer, audits clean.\n"
        );
        let terminal = results.terminal(&options());
        assert!(
            terminal.contains("\npoll         7.42 µs CPU  1.169 × hello  1.15–1.21"),
            "{terminal}"
        );
    }

    #[test]
    fn what_failed_is_named() {
        let machine = machine();
        let then = MachineThen { machine: &machine, started_at: "x" };
        let mut failing = row();
        failing.pass = Some(false);
        let rows = [failing, row()];
        let problems = ["main: ended with code 3 on SIGTERM".to_owned()];
        let both = results(&rows, &problems, &then);
        assert!(!both.is_ok());
        let text = both.markdown(&options());
        assert!(
            text.ends_with("\n\n- FAIL: poll\n- FAIL: main: ended with code 3 on SIGTERM\n"),
            "{text}"
        );
        assert!(!results(&rows[..1], &[], &then).is_ok());
        assert!(!results(&rows[1..], &problems, &then).is_ok());
        assert!(results(&rows[1..], &[], &then).is_ok());
    }

    #[test]
    fn what_is_kept_has_the_names_that_it_always_had() {
        let machine = machine();
        let then = MachineThen { machine: &machine, started_at: "x" };
        let rows = [row()];
        let kept = serde_json::to_value(results(&rows, &[], &then)).unwrap();
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(
            keys(&kept),
            [
                "against",
                "commit",
                "connections",
                "crowd",
                "failed",
                "inLine",
                "machine",
                "people",
                "problems",
                "rounds",
                "rows",
                "seconds",
                "startedAt"
            ]
        );
        assert_eq!(
            keys(&kept["machine"]),
            ["cpu", "cpus", "kernel", "loadAverageBefore", "memoryBytes", "startedAt"]
        );
        assert_eq!(
            keys(&kept["rows"][0]),
            [
                "digits",
                "figure",
                "name",
                "notes",
                "pass",
                "ratio",
                "ratioRange",
                "reference",
                "requestsPerSecond",
                "serverBusy",
                "target",
                "unexpected",
                "unit"
            ]
        );
    }
}
