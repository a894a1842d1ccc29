//! Blocks as Markdown, as GitHub reads it.

use std::fmt::Write as _;

use crate::{Block, Document, Inline, Table, Tone, is_trick, page};

/// Returns text from anywhere as text: neither markup nor HTML.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if is_trick(c) => out.push('\u{fffd}'),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' | '@' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Returns code in a line, between as many back-ticks as it takes.
pub fn code(text: &str) -> String {
    let plain: String = text.chars().map(|c| if is_trick(c) { ' ' } else { c }).collect();
    let fence = "`".repeat(longest_run(&plain) + 1);
    if plain.contains('`') {
        format!("{fence} {plain} {fence}")
    } else {
        format!("{fence}{plain}{fence}")
    }
}

fn longest_run(text: &str) -> usize {
    let (mut longest, mut run) = (0, 0);
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

pub(crate) fn page(document: &Document) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "# {}\n", escape(&document.title));
    for (index, section) in document.sections.iter().enumerate() {
        let _ = match &section.outcome {
            Some(outcome) => writeln!(
                out,
                "## {}: {} {}\n",
                escape(&section.title),
                outcome.sign,
                escape(&outcome.word)
            ),
            None => writeln!(out, "## {}\n", escape(&section.title)),
        };
        if index == 0 {
            let _ = writeln!(out, "{}\n", escape(&document.subtitle));
        }
        blocks(&mut out, &section.blocks, 3);
    }
    let _ = writeln!(out, "---\n\n{}", escape(&document.footer));
    out
}

fn inline(pieces: &[Inline]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Inline::Text(text) => escape(text),
            Inline::Strong(text) => format!("**{}**", escape(text)),
            Inline::Code(text) => code(text),
        })
        .collect()
}

fn table(out: &mut String, table: &Table) {
    if !table.caption.is_empty() {
        let _ = writeln!(out, "{}\n", escape(&table.caption));
    }
    let columns = table.rows.iter().map(Vec::len).chain([table.head.len()]).max().unwrap_or(0);
    if columns == 0 {
        return;
    }
    out.push('|');
    for column in 0..columns {
        let _ = write!(out, " {} |", table.head.get(column).map_or(String::new(), |h| escape(h)));
    }
    out.push_str("\n|");
    for column in 0..columns {
        out.push_str(if table.figures && column > 0 { "---:|" } else { "---|" });
    }
    out.push('\n');
    for row in &table.rows {
        out.push('|');
        for column in 0..columns {
            let said = row.get(column).map_or(String::new(), |cell| match cell.tone {
                Tone::Plain | Tone::Good | Tone::Mind => escape(&cell.text),
                Tone::Missing => format!("*{}*", escape(&cell.text)),
                Tone::Strong | Tone::Bad => format!("**{}**", escape(&cell.text)),
            });
            let _ = write!(out, " {said} |");
        }
        out.push('\n');
    }
    out.push('\n');
}

/// Writes blocks; headings inside of them are at `level`.
pub fn blocks(out: &mut String, blocks: &[Block], level: usize) {
    for (index, block) in blocks.iter().enumerate() {
        match block {
            // The chart that it is the name of is left out.
            Block::Heading(_) if matches!(blocks.get(index + 1), Some(Block::Chart { .. })) => {}
            Block::Paragraph(pieces) => {
                let _ = writeln!(out, "{}\n", inline(pieces));
            }
            Block::Heading(title) => {
                let _ = writeln!(out, "{} {}\n", "#".repeat(level), escape(title));
            }
            Block::List(items) => {
                for item in items {
                    let _ = writeln!(out, "- {}", inline(item));
                }
                out.push('\n');
            }
            Block::Table(data) => table(out, data),
            Block::Code(text) => {
                let plain: String =
                    text.chars().map(|c| if is_trick(c) && c != '\n' { ' ' } else { c }).collect();
                let fence = "`".repeat(longest_run(&plain).max(2) + 1);
                let _ = writeln!(out, "{fence}\n{}\n{fence}\n", plain.trim_end());
            }
            Block::Figures(figures) => {
                out.push_str("| | | |\n|---|---|---|\n");
                for figure in figures {
                    let value = match figure.value.tone {
                        Tone::Missing => format!("*{}*", escape(&figure.value.text)),
                        _ => format!("**{}**", escape(&figure.value.text)),
                    };
                    let _ = writeln!(
                        out,
                        "| {} | {value} | {} |",
                        escape(&figure.name),
                        escape(&figure.note)
                    );
                }
                out.push('\n');
            }
            Block::Verdicts(verdicts) => {
                for verdict in verdicts {
                    let sign = match verdict.tone {
                        Tone::Bad => "✗ ",
                        Tone::Good => "✓ ",
                        _ => "",
                    };
                    let detail = if verdict.detail.trim().is_empty() {
                        String::new()
                    } else {
                        format!(" ({})", escape(verdict.detail.trim()))
                    };
                    let _ = writeln!(out, "- {sign}{}{detail}", escape(&verdict.says));
                }
                out.push('\n');
            }
            Block::Chart { .. } => {}
            Block::Details { summary, blocks: inner } => {
                let _ = writeln!(out, "<details>\n<summary>{}</summary>\n", page::escaped(summary));
                self::blocks(out, inner, level + 1);
                out.push_str("</details>\n\n");
            }
        }
    }
}
