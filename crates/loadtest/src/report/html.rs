//! Blocks as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

use std::fmt::Write as _;

use super::escape::escape;
use super::{Block, Cell, Inline, Lang, Section, Table, Tone, text};
use crate::model::{Outcome, Run};

pub(super) fn page(title: &str, run: &Run, sections: &[Section], lang: Lang) -> String {
    let t = text::of(lang);
    let (sign, word) = text::outcome(run.verdict.outcome, lang);
    let class = match run.verdict.outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Incomplete => "incomplete",
    };
    let mut out = String::with_capacity(256 * 1024);
    let _ = write!(
        out,
        r##"<!DOCTYPE html>
<html lang="{lang}">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>{title}: {word}</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<p class="eyebrow">boxoffice · {report}</p>
<h1>{title}</h1>
<p class="under">{under}</p>
</header>
<main>
"##,
        lang = t.html_lang,
        title = escape(title),
        report = t.report,
        under = escape(&super::section::subtitle(run, lang)),
    );
    for (index, section) in sections.iter().enumerate() {
        let _ = writeln!(out, r#"<section id="{id}">"#, id = section.id);
        if index == 0 {
            // The verdict comes first, and as large as the page has it.
            let _ = writeln!(
                out,
                r#"<h2 class="verdict {class}"><span class="sign" aria-hidden="true">{sign}</span> <span>{title}: <strong>{word}</strong></span></h2>"#,
                title = escape(&section.title),
            );
        } else {
            let _ = writeln!(out, "<h2>{}</h2>", escape(&section.title));
        }
        for block in &section.blocks {
            write_block(&mut out, block);
        }
        out.push_str("</section>\n");
        if index == 0 {
            let _ = writeln!(out, r#"<nav aria-label="{}"><ul>"#, t.contents);
            for section in &sections[1..] {
                let _ = writeln!(
                    out,
                    r##"<li><a href="#{}">{}</a></li>"##,
                    section.id,
                    escape(&section.title)
                );
            }
            out.push_str("</ul></nav>\n");
        }
    }
    let _ = write!(out, "</main>\n<footer><p>{}</p></footer>\n</body>\n</html>\n", t.footer);
    out
}

fn write_inline(out: &mut String, pieces: &[Inline]) {
    for piece in pieces {
        let _ = match piece {
            Inline::Text(text) => write!(out, "{}", escape(text)),
            Inline::Strong(text) => write!(out, "<strong>{}</strong>", escape(text)),
            Inline::Code(text) => write!(out, "<code>{}</code>", escape(text)),
        };
    }
}

fn tone_class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "",
        Tone::Missing => "missing",
        Tone::Strong => "strong",
        Tone::Good => "good",
        Tone::Bad => "bad",
    }
}

fn write_cell(out: &mut String, cell: &Cell, first: bool) {
    let name = if first { "th" } else { "td" };
    let scope = if first { r#" scope="row""# } else { "" };
    let class = tone_class(cell.tone);
    let class = if class.is_empty() { String::new() } else { format!(r#" class="{class}""#) };
    let _ = write!(out, "<{name}{scope}{class}>{}</{name}>", escape(&cell.text));
}

fn write_table(out: &mut String, table: &Table) {
    // A wide table scrolls inside of its own box, never the page.
    let label =
        if table.caption.is_empty() { table.head.join(", ") } else { table.caption.clone() };
    let _ = write!(
        out,
        r#"<div class="scroll" tabindex="0" role="region" aria-label="{}"><table class="{}">"#,
        escape(&label),
        if table.figures { "figures" } else { "words" }
    );
    if !table.caption.is_empty() {
        let _ = write!(out, "<caption>{}</caption>", escape(&table.caption));
    }
    if !table.head.is_empty() {
        out.push_str("<thead><tr>");
        for name in &table.head {
            let _ = write!(out, r#"<th scope="col">{}</th>"#, escape(name));
        }
        out.push_str("</tr></thead>");
    }
    out.push_str("<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for (index, cell) in row.iter().enumerate() {
            write_cell(out, cell, index == 0);
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn write_block(out: &mut String, block: &Block) {
    match block {
        Block::Paragraph(pieces) => {
            out.push_str("<p>");
            write_inline(out, pieces);
            out.push_str("</p>\n");
        }
        Block::Heading(title) => {
            let _ = writeln!(out, "<h3>{}</h3>", escape(title));
        }
        Block::List(items) => {
            out.push_str("<ul>\n");
            for item in items {
                out.push_str("<li>");
                write_inline(out, item);
                out.push_str("</li>\n");
            }
            out.push_str("</ul>\n");
        }
        Block::Table(table) => write_table(out, table),
        Block::Code(code) => {
            let _ = writeln!(out, r#"<pre tabindex="0"><code>{}</code></pre>"#, escape(code));
        }
        Block::Tiles(tiles) => {
            out.push_str("<dl class=\"tiles\">\n");
            for tile in tiles {
                let _ = writeln!(
                    out,
                    r#"<div><dt>{}</dt><dd class="value {}">{}</dd><dd class="note">{}</dd></div>"#,
                    escape(&tile.name),
                    tone_class(tile.value.tone),
                    escape(&tile.value.text),
                    escape(&tile.note)
                );
            }
            out.push_str("</dl>\n");
        }
        Block::Remarks(remarks) => {
            out.push_str("<ul class=\"remarks\">\n");
            for remark in remarks {
                let _ = write!(
                    out,
                    r#"<li class="{}">{}"#,
                    if remark.fatal { "fatal" } else { "minded" },
                    escape(remark.says)
                );
                if !remark.detail.trim().is_empty() {
                    let _ =
                        write!(out, r#" <span class="detail">{}</span>"#, escape(&remark.detail));
                }
                out.push_str("</li>\n");
            }
            out.push_str("</ul>\n");
        }
        Block::Chart { svg, caption } => {
            let _ =
                writeln!(out, "<figure>{svg}<figcaption>{}</figcaption></figure>", escape(caption));
        }
        Block::Details { summary, blocks } => {
            let _ = writeln!(out, "<details><summary>{}</summary>", escape(summary));
            for block in blocks {
                write_block(out, block);
            }
            out.push_str("</details>\n");
        }
    }
}

/// Colours are those of Okabe and Ito, which colour-blind people can tell apart; lines also differ in dashes.
const STYLE: &str = r#":root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#59636e;--rule:#d9dee3;--grid:#e8ebee;--panel:#f5f7f9;
--good:#00664a;--good-back:#e3f4ee;--bad:#a62c00;--bad-back:#fdeae2;--half:#7a5200;--half-back:#fdf3dc;--link:#005a9c;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0508a;--c4:#b87f00;--c5:#2f9bd0;--c6:#333;--warm:#eceff2}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e7eaee;--soft:#a2abb5;--rule:#39424c;--grid:#283039;--panel:#1d232a;
--good:#5fd3ae;--good-back:#123128;--bad:#ff9b70;--bad-back:#3a1d12;--half:#f2c25c;--half-back:#352910;--link:#7cc0f5;
--c0:#56b4e9;--c1:#ff8b45;--c2:#3fd0a4;--c3:#e59ac6;--c4:#f0c04a;--c5:#9ad7ff;--c6:#ddd;--warm:#232a32}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans KR","Apple SD Gothic Neo","Malgun Gothic","Nanum Gothic",NanumGothic,sans-serif;overflow-wrap:anywhere}
:lang(ko){word-break:keep-all}
header,main,footer{max-width:952px;margin:0 auto;padding:0 16px}
header{padding-top:28px}
.eyebrow{margin:0;color:var(--soft);font-size:14px}
h1{margin:2px 0 4px;font-size:28px;line-height:1.2}
.under{margin:0 0 18px;color:var(--soft)}
h2{margin:44px 0 10px;padding-top:14px;border-top:1px solid var(--rule);font-size:21px;line-height:1.3}
h3{margin:26px 0 6px;font-size:16.5px}
p{margin:8px 0;max-width:76ch}
a{color:var(--link)}
h2.verdict{margin:0 0 14px;padding:14px 18px;border:0;border-left:8px solid;border-radius:4px;font-size:24px;display:flex;gap:10px;align-items:baseline}
h2.pass{border-color:var(--good);background:var(--good-back);color:var(--good)}
h2.fail{border-color:var(--bad);background:var(--bad-back);color:var(--bad)}
h2.incomplete{border-color:var(--half);background:var(--half-back);color:var(--half)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(205px,1fr));gap:10px;margin:16px 0}
.tiles div{background:var(--panel);border-radius:6px;padding:10px 12px}
.tiles dt{font-size:13.5px;color:var(--soft);line-height:1.35}
.tiles dd{margin:0}
.tiles .value{font-size:23px;font-weight:650;line-height:1.35;font-variant-numeric:tabular-nums}
.tiles .value.missing{font-size:16px;line-height:31px}
.tiles .note{font-size:13px;color:var(--soft);line-height:1.35}
.remarks{list-style:none;padding:0;margin:8px 0}
.remarks li{margin:8px 0;padding:8px 14px;border-left:4px solid var(--half);background:var(--panel);border-radius:0 6px 6px 0}
.remarks li.fatal{border-color:var(--bad)}
.detail{display:block;color:var(--soft);font-size:14.5px;white-space:pre-line}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:10px 0 0;margin:18px 0 0;border-top:1px solid var(--rule);font-size:14.5px}
.scroll{overflow-x:auto;margin:10px 0 16px}
table{border-collapse:collapse;font-size:14.5px;min-width:min(100%,420px)}
caption{text-align:left;color:var(--soft);padding:0 0 6px}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top;font-weight:400}
thead th{color:var(--soft);border-bottom:1px solid var(--rule);font-size:13.5px;vertical-align:bottom}
tbody th{position:sticky;left:0;background:var(--paper);min-width:92px}
.figures td,.figures thead th:not(:first-child){text-align:right;padding:5px 0 5px 18px;white-space:nowrap;overflow-wrap:normal;font-variant-numeric:tabular-nums}
.words td,.words th{white-space:normal}
.words tbody th{position:static;color:var(--soft);min-width:130px;max-width:240px}
.missing,.figures td.missing{color:var(--soft);font-style:italic;white-space:normal;min-width:76px}
td.strong,th.strong{font-weight:650}
td.good,dd.good{color:var(--good)}
td.bad,dd.bad{color:var(--bad);font-weight:650}
pre{background:var(--panel);border-radius:6px;padding:12px 14px;overflow-x:auto;font-size:13.5px;line-height:1.5;white-space:pre-wrap}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Nanum Gothic Coding",monospace;font-size:.93em}
details{margin:10px 0}
summary{cursor:pointer;color:var(--link)}
figure{margin:14px 0 18px}
figcaption{color:var(--soft);font-size:14px;max-width:76ch}
footer{margin-top:48px;padding-top:8px;padding-bottom:28px;color:var(--soft);font-size:14px}
.chart{display:block;width:100%;height:auto;font-family:inherit;overflow:hidden}
.chart.narrow{display:none;max-width:520px}
.chart text{fill:var(--ink)}
.chart .tick,.chart .quiet{fill:var(--soft)}
.chart .panel{font-weight:650;font-size:1.06em}
.chart .halo{paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.chart path{fill:none}
.chart .grid{stroke:var(--grid);stroke-width:1}
.chart .axis{stroke:var(--soft);stroke-width:1}
.chart .limit{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 3}
.chart .mark{stroke:var(--ink);stroke-width:1;stroke-dasharray:5 3}
.chart .mark-name{font-weight:650}
.chart .warm{fill:var(--warm)}
.chart .line{stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}
.chart .hit{fill:transparent}
.chart .hit:hover{fill:var(--ink);fill-opacity:.09}
.chart .reach{stroke:var(--rule);stroke-width:2}
.chart .ring{stroke-width:2;fill:var(--paper)}
.chart path.ring.s6{fill:none}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}.s6{stroke:var(--c6)}
.line.s1{stroke-dasharray:7 3}.line.s2{stroke-dasharray:2.5 3.5}.line.s3{stroke-dasharray:9 3 2 3}.line.s4{stroke-dasharray:4 4}.line.s5{stroke-dasharray:12 4}
.chart .f0{fill:var(--c0)}.chart .f1{fill:var(--c1)}.chart .f2{fill:var(--c2)}.chart .f3{fill:var(--c3)}.chart .f4{fill:var(--c4)}.chart .f5{fill:var(--c5)}.chart .f6{fill:var(--c6)}
@media (max-width:700px){.figures td,.figures thead th:not(:first-child){padding-left:12px}.chart.wide{display:none}.chart.narrow{display:block}h1{font-size:24px}h2.verdict{font-size:21px;padding:12px 14px}
.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}.tiles .value{font-size:20px}.words tbody th{min-width:96px;max-width:150px}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--rule:#bbb;--grid:#ddd;--panel:#f4f4f4;--good:#00543d;--good-back:#fff;--bad:#8f2600;--bad-back:#fff;--half:#5e3f00;--half-back:#fff;--link:#000;
--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0508a;--c4:#b87f00;--c5:#2f9bd0;--c6:#333;--warm:#eee}
@page{margin:14mm}
body{font-size:10.5pt;print-color-adjust:exact;-webkit-print-color-adjust:exact}
header,main,footer{max-width:none;padding:0}
nav,.hit{display:none}
.chart.wide{display:block;max-height:250mm}.chart.narrow{display:none}
h2,h3,caption{break-after:avoid}
figure,tr,.tiles div,.remarks li,pre{break-inside:avoid}
.scroll{overflow:visible}
details:not([open]){display:none}
table{font-size:9pt}
.figures td,.figures thead th:not(:first-child){padding-left:9px}
.figures thead th:not(:first-child){white-space:normal;overflow-wrap:normal}
tbody th{position:static}}
"#;
