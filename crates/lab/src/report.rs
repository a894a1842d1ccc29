//! Tables and figures of reports, and where they go.

use std::path::{Path, PathBuf};

use testbed::{Workdir, tools};

/// Copies all logs of a directory and what is below it, but for what an engine calls a log and is data.
pub(crate) fn copy_logs(from: &Path, to: &Path) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !path.ends_with("data") && !path.ends_with("broker") {
                copy_logs(&path, to);
            }
        } else if path.extension().is_some_and(|extension| extension == "log") {
            let _ = std::fs::create_dir_all(to);
            let _ = std::fs::copy(&path, to.join(entry.file_name()));
        }
    }
}

/// What a table is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Markdown,
    Terminal,
}

/// Rows of text as a table in Markdown; the first row is the head, the first column is aligned left.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, &[0], Style::Markdown)
}

/// The same of words, which are all aligned left.
pub(crate) fn words(rows: &[Vec<String>]) -> String {
    let columns: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).collect();
    aligned(rows, &columns, Style::Markdown)
}

/// The same, with these columns aligned left.
pub(crate) fn aligned(rows: &[Vec<String>], left: &[usize], style: Style) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(2)).collect();
    let line = |cells: Vec<String>| match style {
        Style::Markdown => format!("| {} |\n", cells.join(" | ")),
        Style::Terminal => format!("{}\n", cells.join("  ").trim_end()),
    };
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate();
        text += &line(
            cells
                .map(|(column, (cell, &width))| match left.contains(&column) {
                    true => format!("{cell:width$}"),
                    false => format!("{cell:>width$}"),
                })
                .collect(),
        );
        if index == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| {
                match style == Style::Terminal || left.contains(&column) {
                    true => "-".repeat(width),
                    false => "-".repeat(width - 1) + ":",
                }
            });
            text += &line(rules.collect());
        }
    }
    text
}

/// A number with commas between its thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure with so many digits behind the point, and commas between its thousands.
pub(crate) fn thousands(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let Ok(whole) = whole.parse() else { return format!("{value:.digits$}") };
    format!("{}{}{rest}", if value < 0.0 { "-" } else { "" }, grouped(whole))
}

/// A figure with so many digits behind the point; `-` where there is none.
pub(crate) fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The value that a share of all is below; none of nothing.
pub(crate) fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut ordered = values.to_vec();
    ordered.sort_by(f64::total_cmp);
    let index = (share * ordered.len() as f64) as usize;
    ordered.get(index.min(ordered.len().saturating_sub(1))).copied()
}

/// The middle of all, to the millisecond; none of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    middle(values).map(rounded)
}

/// The middle of all; none of nothing.
pub(crate) fn middle(values: &[f64]) -> Option<f64> {
    let mut ordered = values.to_vec();
    ordered.sort_by(f64::total_cmp);
    let middle = ordered.len() / 2;
    let upper = *ordered.get(middle)?;
    Some(if ordered.len().is_multiple_of(2) {
        f64::midpoint(*ordered.get(middle.checked_sub(1)?)?, upper)
    } else {
        upper
    })
}

/// The highest of all; none of nothing.
pub(crate) fn highest(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::max)
}

/// To the millisecond.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// The time as reports have it, to the second.
pub(crate) fn now_text() -> String {
    in_days(0)
}

/// The time so many days from now.
pub(crate) fn in_days(days: i64) -> String {
    let seconds = jiff::Timestamp::now().as_second() + days * 86_400;
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |at| at.to_string())
}

/// Makes the directory of results: `out`, or one of that kind and of the time `at`. Returns where it is.
pub(crate) fn results_dir(kind: &str, out: Option<&Path>, at: &str) -> Result<PathBuf, String> {
    let digits: String = at.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(8.min(digits.len()));
    let usual = tools::target_dir().join(kind).join(format!("{date}-{time}"));
    Workdir::kept(out.unwrap_or(&usual)).map(|made| made.path().to_owned())
}

/// Writes a file of results.
pub(crate) fn keep(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned() {
        let rows = [["drill", "n"], ["a", "1,000"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "| drill |     n |\n| ----- | ----: |\n| a     | 1,000 |\n");
        assert_eq!(words(&rows), "| drill | n     |\n| ----- | ----- |\n| a     | 1,000 |\n");
    }

    #[test]
    fn a_terminal_has_no_rules_between_columns() {
        let rows =
            [["a", "n", "why"], ["bb", "10", "x"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(
            aligned(&rows, &[0, 2], Style::Terminal),
            "a    n  why\n--  --  ---\nbb  10  x\n"
        );
        assert_eq!(
            aligned(&rows, &[0, 2], Style::Markdown),
            "| a  |  n | why |\n| -- | -: | --- |\n| bb | 10 | x   |\n"
        );
    }

    #[test]
    fn figures_are_worked_out() {
        assert_eq!(middle(&[0.25 / 1024.0, 0.75 / 1024.0]), Some(0.5 / 1024.0));
        assert_eq!(median(&[0.25 / 1024.0, 0.75 / 1024.0]), Some(0.0));
        for (value, digits, text) in [
            (53_697.6, 0, "53,698"),
            (7.415, 1, "7.4"),
            (1_234.5, 2, "1,234.50"),
            (999.96, 1, "1,000.0"),
            (-1_234.5, 1, "-1,234.5"),
            (f64::NAN, 1, "NaN"),
        ] {
            assert_eq!(thousands(value, digits), text);
        }
        assert_eq!((grouped(0).as_str(), grouped(999).as_str()), ("0", "999"));
        assert_eq!(
            (grouped(1_000).as_str(), grouped(12_345_678).as_str()),
            ("1,000", "12,345,678")
        );
        assert_eq!((shown(None, 2).as_str(), shown(Some(1.005), 1).as_str()), ("-", "1.0"));
        assert_eq!(
            (median(&[]), median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0])),
            (None, Some(2.0), Some(2.5))
        );
        let hundred: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!((quantile(&hundred, 0.99), quantile(&hundred, 0.5)), (Some(99.0), Some(50.0)));
        assert_eq!((quantile(&[], 0.5), highest(&[1.0, 7.0, 3.0])), (None, Some(7.0)));
        let (now, then) = (now_text(), in_days(1));
        assert!(now < then && now.len() == 20 && now.ends_with('Z'), "{now} {then}");
    }
}
