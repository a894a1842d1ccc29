//! Charts as inline SVG, drawn by hand: small multiples over one shared axis, and a row of dots for
//! each percentile.
//!
//! An SVG that is scaled to a telephone has letters that nobody can read. So each chart is drawn
//! twice, for a wide and for a narrow page, and the style sheet shows the one that fits.

use std::fmt::Write as _;

use super::escape::escape;
use super::{Lang, number};

/// For which page a chart is drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    Wide,
    Narrow,
}

impl Width {
    fn pixels(self) -> f64 {
        match self {
            Width::Wide => 920.0,
            Width::Narrow => 358.0,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Width::Wide => "wide",
            Width::Narrow => "narrow",
        }
    }

    fn letters(self) -> f64 {
        match self {
            Width::Wide => 12.5,
            Width::Narrow => 12.0,
        }
    }
}

/// What the values of a panel are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Count,
    Millis,
    /// 0 to 1.
    Share,
    Bytes,
    Cpus,
}

impl Unit {
    /// A value in words, for the tooltip.
    pub(super) fn say(self, value: f64, lang: Lang) -> String {
        match self {
            Unit::Count | Unit::Cpus => number::plain(value),
            Unit::Millis => number::millis(value, lang),
            Unit::Share => number::share(value, lang),
            Unit::Bytes => number::bytes(value),
        }
    }

    /// A value at a tick, on an axis that goes to `highest`: as short as it can be, because the margin of
    /// a telephone is narrow.
    fn tick(self, value: f64, highest: f64, lang: Lang) -> String {
        match self {
            Unit::Count if value > 0.0 && highest >= 999_999.5 => {
                format!("{}M", number::plain(value / 1e6))
            }
            Unit::Count if value > 0.0 && highest >= 9_999.5 => {
                format!("{}k", number::plain(value / 1e3))
            }
            Unit::Bytes if value == 0.0 => "0".to_string(),
            // 100 s, not 1 min 40 s.
            Unit::Millis if (60_000.0..3_600_000.0).contains(&value) => {
                let seconds = number::plain(value / 1000.0);
                if lang == Lang::En { format!("{seconds} s") } else { format!("{seconds}초") }
            }
            _ => self.say(value, lang),
        }
    }
}

pub(super) struct Line {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
    /// Colour and dashes, 0 to 6.
    pub(super) style: usize,
}

pub(super) struct Panel {
    pub(super) title: String,
    pub(super) unit: Unit,
    /// Logarithmic where the values span decades.
    pub(super) may_be_log: bool,
    pub(super) lines: Vec<Line>,
    /// A level that is worth knowing, such as the CPUs that the service may use.
    pub(super) limit: Option<(f64, String)>,
    pub(super) tall: bool,
}

/// What the shared axis counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Along {
    Seconds,
    PerSecond,
}

/// A value on the shared axis that is marked through all panels.
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) name: String,
}

/// Panels, one over the other, with the same horizontal axis.
pub(super) struct Stack {
    /// Unique in the page.
    pub(super) id: String,
    pub(super) title: String,
    pub(super) description: String,
    pub(super) along: Along,
    pub(super) axis_name: String,
    pub(super) at: Vec<f64>,
    /// From the start to here: warm-up, which the totals leave out.
    pub(super) warm_up: f64,
    pub(super) warm_up_name: String,
    pub(super) marks: Vec<Mark>,
    pub(super) panels: Vec<Panel>,
    /// Said of a panel with a logarithmic axis.
    pub(super) log_name: String,
}

/// Room for the letters of a text in a wide sans-serif type: what fits there fits anywhere.
fn text_width(text: &str, size: f64) -> f64 {
    let width: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '·' | ' ' | '(' | ')' => 0.36,
            'm' | 'w' | 'M' | 'W' | '%' | '—' | '…' => 0.97,
            'A'..='Z' => 0.72,
            '\u{1100}'.. => 1.0,
            _ => 0.63,
        })
        .sum();
    width * size
}

/// Shortens a text to the room that there is.
fn fit(text: &str, room: f64, size: f64) -> String {
    if text_width(text, size) <= room {
        return text.to_string();
    }
    let mut kept = String::new();
    for c in text.chars() {
        if text_width(&kept, size) + 1.2 * size > room {
            break;
        }
        kept.push(c);
    }
    format!("{}…", kept.trim_end())
}

fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

/// The smallest of 1, 2 and 5 times a power of ten that is not below `value`.
fn nice(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    for step in [1.0, 2.0, 5.0, 10.0] {
        if step * power >= value * 0.999_999 {
            return step * power;
        }
    }
    10.0 * power
}

/// How values become heights.
#[derive(Clone, Debug, PartialEq)]
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Scale {
    /// 0 at the bottom, 1 at the top; what is outside is at the edge.
    fn place(&self, value: f64) -> f64 {
        let share = if self.log {
            let value = value.max(self.low);
            (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10())
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// From zero, because a curve that does not start there makes small changes look large.
    fn linear(highest: f64, unit: Unit, most: usize) -> Scale {
        let highest = if highest > 0.0 && highest.is_finite() { highest } else { 0.0 };
        let base = match unit {
            Unit::Bytes => 1024f64.powi((highest.max(1.0).ln() / 1024f64.ln()).floor() as i32),
            _ => 1.0,
        };
        let highest = match (unit, highest > 0.0) {
            (_, true) => highest / base,
            (Unit::Share, false) => 0.01,
            (_, false) => 1.0,
        };
        let step = nice(highest / most.max(1) as f64);
        let steps = (highest / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as usize).map(|i| i as f64 * step * base).collect();
        Scale { log: false, low: 0.0, high: steps * step * base, ticks }
    }

    /// Between the steps 1, 2, 5 around the values; `None` where there is no value above zero.
    fn log(values: impl Iterator<Item = f64>, most: usize) -> Option<Scale> {
        let (mut low, mut high) = (f64::INFINITY, 0.0f64);
        for value in values.filter(|v| *v > 0.0) {
            low = low.min(value);
            high = high.max(value);
        }
        if !low.is_finite() {
            return None;
        }
        let (low, high) = (low.max(1e-6), high.min(1e12));
        let mut steps = Vec::new();
        for power in (low.log10().floor() as i32)..=(high.log10().ceil() as i32) {
            for step in [1.0, 2.0, 5.0] {
                steps.push(step * 10f64.powi(power));
            }
        }
        let first = steps.iter().rposition(|s| *s <= low * 1.000_001).unwrap_or(0);
        let last = steps.iter().position(|s| *s >= high * 0.999_999).unwrap_or(steps.len() - 1);
        let (first, last) = (first.min(last), last.max(first + 1).min(steps.len() - 1));
        let all = steps[first..=last].to_vec();
        // 1, 2 and 5 are the first, second and third of each power.
        let decades: Vec<f64> = (first..=last).filter(|i| i % 3 == 0).map(|i| steps[i]).collect();
        let halves: Vec<f64> = (first..=last).filter(|i| i % 3 != 1).map(|i| steps[i]).collect();
        let ticks = if all.len() <= most {
            all
        } else if halves.len() <= most && decades.len() < 3 {
            halves
        } else if decades.len() <= most.max(2) {
            decades
        } else {
            let every = decades.len().div_ceil(most.max(2));
            decades.into_iter().step_by(every).collect()
        };
        Some(Scale { log: true, low: steps[first], high: steps[last], ticks })
    }

    fn of(panel: &Panel, height: f64) -> Scale {
        if all_zero(panel) {
            return Scale { log: false, low: 0.0, high: 1.0, ticks: vec![0.0] };
        }
        let most = ((height / 26.0) as usize).clamp(2, 6);
        let values = || panel.lines.iter().flat_map(|l| l.values.iter().filter_map(|v| finite(*v)));
        let highest = values().fold(0.0f64, f64::max);
        let lowest = values().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        if panel.may_be_log
            && lowest.is_finite()
            && highest / lowest >= 15.0
            && let Some(scale) = Scale::log(values(), most)
        {
            return scale;
        }
        let limit = panel.limit.as_ref().map_or(0.0, |(level, _)| *level);
        Scale::linear(highest.max(limit), panel.unit, most.min(4))
    }
}

/// Where the shared axis has ticks, and what they say.
fn axis_ticks(along: Along, high: f64, most: usize, lang: Lang) -> Vec<(f64, String)> {
    if !(high > 0.0 && high.is_finite()) {
        return vec![(0.0, "0".to_string())];
    }
    let step = match along {
        Along::PerSecond => nice(high / most as f64),
        Along::Seconds => {
            const STEPS: [f64; 16] = [
                1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0,
                3600.0, 7200.0, 21_600.0,
            ];
            let needed = high / most as f64;
            STEPS
                .into_iter()
                .find(|s| *s >= needed)
                .unwrap_or_else(|| nice(needed / 3600.0) * 3600.0)
        }
    };
    let mut ticks = Vec::new();
    let mut i = 0u32;
    while f64::from(i) * step <= high * 1.000_001 && i < 1000 {
        let at = f64::from(i) * step;
        ticks.push((at, axis_label(along, at, high, lang)));
        i += 1;
    }
    ticks
}

fn axis_label(along: Along, at: f64, high: f64, lang: Lang) -> String {
    match along {
        Along::PerSecond => Unit::Count.tick(at, high, lang),
        Along::Seconds if high < 60.0 => number::span(at, lang),
        Along::Seconds => {
            let whole = at.round() as u64;
            if high < 3600.0 {
                format!("{}:{:02}", whole / 60, whole % 60)
            } else {
                format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
            }
        }
    }
}

/// Coordinates with one decimal: finer than a pixel, and the file stays small.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A path through the points that there are. Where a value is missing the line has a gap; a value
/// between two gaps is a dot. More points than columns are drawn as the highest and lowest of each column.
fn path(points: &[(f64, Option<f64>)]) -> String {
    let mut thinned: Vec<(f64, Option<f64>)> = Vec::new();
    let mut i = 0;
    while i < points.len() {
        let column = points[i].0.floor();
        let mut end = i + 1;
        while end < points.len() && points[end].0.floor() == column {
            end += 1;
        }
        let group = &points[i..end];
        if group.len() <= 2 || group.iter().any(|(_, y)| y.is_none()) {
            thinned.extend_from_slice(group);
        } else {
            let at = |wanted: fn(f64, f64) -> bool| {
                group.iter().copied().reduce(|best, next| match (best.1, next.1) {
                    (Some(b), Some(n)) if wanted(n, b) => next,
                    _ => best,
                })
            };
            let (low, high) = (at(|n, b| n > b), at(|n, b| n < b));
            let mut both: Vec<_> = low.into_iter().chain(high).collect();
            both.sort_by(|a, b| a.0.total_cmp(&b.0));
            thinned.extend(both);
        }
        i = end;
    }
    let mut out = String::new();
    let mut open = false;
    for (i, (x, y)) in thinned.iter().enumerate() {
        match y {
            None => open = false,
            Some(y) => {
                let (x, y) = (round(*x), round(*y));
                if open {
                    let _ = write!(out, "L{x} {y}");
                } else {
                    let _ = write!(out, "M{x} {y}");
                    let alone = thinned.get(i + 1).is_none_or(|(_, next)| next.is_none());
                    if alone {
                        out.push_str("h0");
                    }
                }
                open = true;
            }
        }
    }
    out
}

/// Moves labels apart so that none covers another. They keep their order.
fn spread(wanted: &mut [(f64, usize)], gap: f64, top: f64, bottom: f64) {
    wanted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut floor = top;
    for (y, _) in wanted.iter_mut() {
        *y = y.max(floor);
        floor = *y + gap;
    }
    let mut ceiling = bottom;
    for (y, _) in wanted.iter_mut().rev() {
        *y = y.min(ceiling);
        ceiling = *y - gap;
    }
}

fn all_zero(panel: &Panel) -> bool {
    panel.lines.iter().all(|l| l.values.iter().all(|v| finite(*v).is_none_or(|v| v == 0.0)))
}

fn has_values(line: &Line) -> bool {
    line.values.iter().any(|v| finite(*v).is_some())
}

/// Both forms of the chart; `None` where there is nothing to draw.
pub(super) fn stack(stack: &Stack, lang: Lang) -> Option<String> {
    let at: Vec<f64> =
        stack.at.iter().copied().take_while(|t| t.is_finite() && *t >= 0.0).collect();
    let drawn = stack.panels.iter().any(|p| p.lines.iter().any(has_values));
    if at.is_empty() || !drawn {
        return None;
    }
    Some(format!(
        "{}{}",
        draw(stack, &at, Width::Wide, lang),
        draw(stack, &at, Width::Narrow, lang)
    ))
}

struct Frame {
    left: f64,
    right: f64,
    low: f64,
    high: f64,
}

impl Frame {
    fn x(&self, at: f64) -> f64 {
        let share = (at - self.low) / (self.high - self.low);
        let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
        self.left + share * (self.right - self.left)
    }
}

/// The x of a tick label's middle, so that it stays inside of the picture.
fn inside(x: f64, text: &str, size: f64, width: f64) -> f64 {
    let half = text_width(text, size) / 2.0 + 1.0;
    x.max(half).min(width - half)
}

fn draw(stack: &Stack, at: &[f64], form: Width, lang: Lang) -> String {
    let (width, size) = (form.pixels(), form.letters());
    let wide = form == Width::Wide;
    let panels: Vec<&Panel> =
        stack.panels.iter().filter(|p| p.lines.iter().any(has_values)).collect();
    let names = panels
        .iter()
        .flat_map(|p| p.lines.iter().filter(|l| has_values(l)).map(|l| text_width(&l.name, size)))
        .fold(0.0f64, f64::max);
    let (left, right) =
        if wide { (66.0, width - names.clamp(20.0, 190.0) - 16.0) } else { (60.0, width - 8.0) };
    let low = if stack.along == Along::PerSecond { 0.0 } else { at[0].min(0.0) };
    let last = at.iter().copied().fold(0.0f64, f64::max);
    let marked = stack.marks.iter().map(|m| m.at).filter(|v| v.is_finite()).fold(0.0f64, f64::max);
    let high = last.max(marked.min(last * 1.5)).max(low + 1.0);
    let frame = Frame { left, right, low, high };

    let mut body = String::new();
    let mark_rows = place_marks(stack, &frame, size, width);
    let head = mark_rows.iter().map(|(_, _, row)| row + 1).max().unwrap_or(0) as f64 * (size + 4.0)
        + if stack.warm_up > 0.0 { size + 4.0 } else { 0.0 };
    let top = 4.0 + head;
    let mut y = top;
    let ticks = axis_ticks(
        stack.along,
        high,
        ((right - left) / if wide { 76.0 } else { 58.0 }) as usize,
        lang,
    );

    let mut plots = Vec::new();
    for panel in &panels {
        let height = match (panel.tall, wide) {
            // Nothing all the time is worth a line and no more.
            _ if all_zero(panel) => 30.0,
            (true, true) => 168.0,
            (true, false) => 150.0,
            (false, _) => 88.0,
        };
        y += draw_head(&mut body, panel, &frame, y, form, stack);
        let scale = Scale::of(panel, height);
        draw_panel(&mut body, panel, &scale, &frame, at, (y, height), form, lang, &ticks);
        plots.push((y, height));
        y += height + if wide { 12.0 } else { 14.0 };
    }

    let (first, bottom) = match (plots.first(), plots.last()) {
        (Some(first), Some(last)) => (first.0, last.0 + last.1),
        _ => (y, y),
    };
    let mut back = String::new();
    if stack.warm_up > 0.0 {
        let end = frame.x(stack.warm_up);
        for (y, height) in &plots {
            let _ = write!(
                back,
                r#"<rect class="warm" x="{}" y="{}" width="{}" height="{}"/>"#,
                round(left),
                round(*y),
                round(end - left),
                round(*height)
            );
        }
        let name = fit(&stack.warm_up_name, right - left, size);
        let _ = write!(
            back,
            r#"<text class="quiet" x="{}" y="{}">{}</text>"#,
            round(left),
            round(size),
            escape(&name)
        );
    }
    let mut front = String::new();
    for (index, x, row) in &mark_rows {
        let mark = &stack.marks[*index];
        let line = round(frame.x(mark.at));
        let text_y = round(
            top - head + size - 3.0
                + *row as f64 * (size + 4.0)
                + if stack.warm_up > 0.0 { size + 4.0 } else { 0.0 },
        );
        let _ = write!(
            front,
            r#"<path class="mark" d="M{line} {}V{}"/><text class="mark-name" text-anchor="middle" x="{}" y="{text_y}">{}</text>"#,
            round(text_y + 3.0),
            round(bottom),
            round(*x),
            escape(&fit(&mark.name, width - 8.0, size))
        );
    }
    // The shared axis, under the last panel.
    let axis_y = bottom + size + 5.0;
    for (value, label) in &ticks {
        let x = inside(frame.x(*value), label, size, width);
        let _ = write!(
            front,
            r#"<text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>"#,
            round(x),
            round(axis_y),
            escape(label)
        );
    }
    let total = axis_y + size + 8.0;
    let _ = write!(
        front,
        r#"<text class="quiet" text-anchor="end" x="{}" y="{}">{}</text>"#,
        round(right),
        round(axis_y + size + 3.0),
        escape(&stack.axis_name)
    );
    if wide {
        draw_tooltips(&mut front, stack, &panels, at, &frame, (first, bottom), lang);
    }
    let height = total.ceil();
    let id = format!("{}-{}", stack.id, form.class());
    format!(
        r#"<svg class="chart {class}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{id}-t {id}-d" font-size="{size}"><title id="{id}-t">{title}</title><desc id="{id}-d">{desc}</desc>{back}{body}{front}</svg>"#,
        class = form.class(),
        title = escape(&stack.title),
        desc = escape(&stack.description),
    )
}

/// Labels of marks in as many rows as it takes that none covers another: index, x of the middle, row.
fn place_marks(stack: &Stack, frame: &Frame, size: f64, width: f64) -> Vec<(usize, f64, usize)> {
    let mut order: Vec<usize> =
        (0..stack.marks.len()).filter(|i| stack.marks[*i].at.is_finite()).collect();
    order.sort_by(|a, b| stack.marks[*a].at.total_cmp(&stack.marks[*b].at));
    let mut rows: Vec<f64> = Vec::new();
    let mut placed = Vec::new();
    for index in order {
        let name = fit(&stack.marks[index].name, width - 8.0, size);
        let x = inside(frame.x(stack.marks[index].at), &name, size, width);
        let half = text_width(&name, size) / 2.0 + 4.0;
        let row = rows.iter().position(|end| *end <= x - half).unwrap_or(rows.len());
        if row == rows.len() {
            rows.push(0.0);
        }
        rows[row] = x + half;
        placed.push((index, x, row));
    }
    placed
}

/// Title of a panel, and on a narrow page its legend. Says how high they are.
fn draw_head(
    out: &mut String,
    panel: &Panel,
    frame: &Frame,
    y: f64,
    form: Width,
    stack: &Stack,
) -> f64 {
    let size = form.letters();
    let scale_is_log = Scale::of(panel, if panel.tall { 150.0 } else { 92.0 }).log;
    let title = if scale_is_log {
        format!("{} ({})", panel.title, stack.log_name)
    } else {
        panel.title.clone()
    };
    let title_x = if form == Width::Wide { frame.left } else { 0.0 };
    let _ = write!(
        out,
        r#"<text class="panel" x="{}" y="{}">{}</text>"#,
        round(title_x),
        round(y + size + 2.0),
        escape(&fit(&title, form.pixels() - title_x, size * 1.06))
    );
    let mut height = size + 11.0;
    if form == Width::Narrow && panel.lines.iter().filter(|l| has_values(l)).count() > 1 {
        let mut x = 0.0;
        let mut row = y + height + size - 1.0;
        let room = form.pixels() - 26.0;
        for line in panel.lines.iter().filter(|l| has_values(l)) {
            let name = fit(&line.name, room, size);
            let wide = 24.0 + text_width(&name, size) + 10.0;
            if x > 0.0 && x + wide > form.pixels() {
                x = 0.0;
                row += size + 5.0;
            }
            let _ = write!(
                out,
                r#"<path class="line s{}" d="M{} {}h18"/><text class="tick" x="{}" y="{}">{}</text>"#,
                line.style % 7,
                round(x + 1.0),
                round(row - size * 0.35),
                round(x + 24.0),
                round(row),
                escape(&name)
            );
            x += wide;
        }
        height = row + 13.0 - y;
    }
    height
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call; a struct for it would be read nowhere else"
)]
fn draw_panel(
    out: &mut String,
    panel: &Panel,
    scale: &Scale,
    frame: &Frame,
    at: &[f64],
    (top, height): (f64, f64),
    form: Width,
    lang: Lang,
    ticks: &[(f64, String)],
) {
    let size = form.letters();
    let bottom = top + height;
    let y = |value: f64| bottom - scale.place(value) * height;
    for (value, _) in ticks {
        let x = round(frame.x(*value));
        let _ = write!(out, r#"<path class="grid" d="M{x} {}V{}"/>"#, round(top), round(bottom));
    }
    for value in &scale.ticks {
        let level = round(y(*value));
        let _ = write!(
            out,
            r#"<path class="grid" d="M{} {level}H{}"/><text class="tick" text-anchor="end" x="{}" y="{}">{}</text>"#,
            round(frame.left),
            round(frame.right),
            round(frame.left - 6.0),
            round(level + size * 0.34),
            escape(&panel.unit.tick(*value, scale.high, lang))
        );
    }
    let _ = write!(
        out,
        r#"<path class="axis" d="M{l} {b}H{r}"/>"#,
        l = round(frame.left),
        b = round(bottom),
        r = round(frame.right)
    );
    if let Some((level, name)) = &panel.limit
        && level.is_finite()
        && *level <= scale.high
    {
        let line = round(y(*level));
        let _ = write!(
            out,
            r#"<path class="limit" d="M{l} {line}H{r}"/><text class="quiet halo" text-anchor="end" x="{x}" y="{ty}">{name}</text>"#,
            l = round(frame.left),
            r = round(frame.right),
            x = round(frame.right - 4.0),
            ty = round(line - 3.5),
            name = escape(&fit(name, frame.right - frame.left - 8.0, size))
        );
    }
    // The seconds are the runner's; one that is twice as long as the others is a hole.
    let usual = usual_step(at);
    let mut ends = Vec::new();
    for (index, line) in panel.lines.iter().enumerate().filter(|(_, l)| has_values(l)) {
        let mut points = Vec::with_capacity(at.len());
        let mut before: Option<f64> = None;
        for (i, t) in at.iter().enumerate() {
            let value = finite(line.values.get(i).copied().flatten());
            if before.is_some_and(|b| t - b > 3.5 * usual) {
                points.push((frame.x(*t), None));
            }
            points.push((frame.x(*t), value.map(y)));
            before = Some(*t);
        }
        let _ = write!(out, r#"<path class="line s{}" d="{}"/>"#, line.style % 7, path(&points));
        if let Some(end) = points.iter().rev().find_map(|(_, y)| *y) {
            ends.push((end, index));
        }
    }
    if form == Width::Wide {
        spread(&mut ends, size + 1.5, top + 4.0, bottom);
        for (level, index) in ends {
            let line = &panel.lines[index];
            let room = form.pixels() - frame.right - 8.0;
            let _ = write!(
                out,
                r#"<text class="name f{}" x="{}" y="{}">{}</text>"#,
                line.style % 7,
                round(frame.right + 8.0),
                round(level + size * 0.34),
                escape(&fit(&line.name, room, size))
            );
        }
    }
}

/// The step between two points that half of the steps do not exceed.
fn usual_step(at: &[f64]) -> f64 {
    let mut steps: Vec<f64> = at.windows(2).map(|w| w[1] - w[0]).filter(|s| *s > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(1.0)
}

/// Strips over the whole chart that say all values of their time when pointed at: no script is needed.
fn draw_tooltips(
    out: &mut String,
    stack: &Stack,
    panels: &[&Panel],
    at: &[f64],
    frame: &Frame,
    (top, bottom): (f64, f64),
    lang: Lang,
) {
    const MOST: usize = 120;
    let every = at.len().div_ceil(MOST).max(1);
    for (i, from) in at.iter().enumerate().step_by(every) {
        let to = at.get(i + every).copied().unwrap_or(frame.high);
        let (x, end) = (frame.x(*from), frame.x(to));
        if end - x < 0.05 {
            continue;
        }
        let mut text = match stack.along {
            Along::Seconds => axis_label(stack.along, *from, frame.high, lang),
            Along::PerSecond => {
                format!("{} {}", axis_label(stack.along, *from, frame.high, lang), stack.axis_name)
            }
        };
        for panel in panels {
            let mut said = Vec::new();
            for line in panel.lines.iter().filter(|l| has_values(l)) {
                if let Some(value) = finite(line.values.get(i).copied().flatten()) {
                    said.push(format!("{} {}", line.name, panel.unit.say(value, lang)));
                }
            }
            if !said.is_empty() {
                let _ = write!(text, "\n{}: {}", panel.title, said.join(", "));
            }
        }
        let _ = write!(
            out,
            r#"<rect class="hit" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>"#,
            round(x),
            round(top),
            round(end - x),
            round(bottom - top),
            escape(&text)
        );
    }
}

/// One row of a [`dots`] chart: a name and a value of each of the things compared.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) values: Vec<Option<f64>>,
}

/// Rows of dots on one logarithmic axis of milliseconds.
pub(super) struct Dots {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) description: String,
    /// What is compared; the first one is drawn filled.
    pub(super) names: Vec<String>,
    pub(super) rows: Vec<Row>,
    pub(super) axis_name: String,
}

/// Both forms of the chart; `None` where there is nothing to draw.
pub(super) fn dots(dots: &Dots, lang: Lang) -> Option<String> {
    let values = || dots.rows.iter().flat_map(|r| r.values.iter().filter_map(|v| finite(*v)));
    let wide = Scale::log(values(), 12)?;
    let narrow = Scale::log(values(), 4)?;
    Some(format!(
        "{}{}",
        draw_dots(dots, &wide, Width::Wide, lang),
        draw_dots(dots, &narrow, Width::Narrow, lang)
    ))
}

/// Shapes differ as well as colours, for print and for those who see no difference of colour.
fn marker(x: f64, y: f64, style: usize) -> String {
    let (x, y, style) = (round(x), round(y), style % 7);
    match style {
        0 => format!(r#"<circle class="dot f0" cx="{x}" cy="{y}" r="5.5"/>"#),
        1 => format!(
            r#"<rect class="ring s1" x="{}" y="{}" width="9" height="9"/>"#,
            round(x - 4.5),
            round(y - 4.5)
        ),
        2 => format!(r#"<path class="ring s2" d="M{x} {}l6 6l-6 6l-6 -6z"/>"#, round(y - 6.0)),
        3 => format!(r#"<path class="ring s3" d="M{x} {}l5.5 10h-11z"/>"#, round(y - 6.0)),
        4 => format!(r#"<circle class="ring s4" cx="{x}" cy="{y}" r="5"/>"#),
        5 => format!(r#"<path class="ring s5" d="M{x} {}l5.5 -10h-11z"/>"#, round(y + 6.0)),
        _ => format!(
            r#"<path class="ring s6" d="M{} {}l9 9m0 -9l-9 9"/>"#,
            round(x - 4.5),
            round(y - 4.5)
        ),
    }
}

fn draw_dots(dots: &Dots, scale: &Scale, form: Width, lang: Lang) -> String {
    let (width, size) = (form.pixels(), form.letters());
    let names = dots.rows.iter().map(|r| text_width(&r.name, size)).fold(0.0f64, f64::max);
    let left = names.clamp(20.0, 150.0) + 18.0;
    let right = width - 22.0;
    let x = |value: f64| left + scale.place(value) * (right - left);
    let mut body = String::new();
    let mut legend_x = 8.0;
    let mut y = size;
    for (index, name) in dots.names.iter().enumerate() {
        let name = fit(name, width - 26.0, size);
        let wide = 14.0 + text_width(&name, size) + 18.0;
        if legend_x > 8.0 && legend_x + wide > width {
            legend_x = 8.0;
            y += size + 6.0;
        }
        let _ = write!(
            body,
            r#"{}<text class="tick" x="{}" y="{}">{}</text>"#,
            marker(legend_x, y - size * 0.36, index),
            round(legend_x + 11.0),
            round(y),
            escape(&name)
        );
        legend_x += wide;
    }
    let top = y + 12.0;
    let step = 25.0;
    let bottom = top + step * dots.rows.len() as f64;
    for tick in &scale.ticks {
        let label = Unit::Millis.tick(*tick, scale.high, lang);
        let at = x(*tick);
        let _ = write!(
            body,
            r#"<path class="grid" d="M{} {}V{}"/><text class="tick" text-anchor="middle" x="{}" y="{}">{}</text>"#,
            round(at),
            round(top),
            round(bottom),
            round(inside(at, &label, size, width)),
            round(bottom + size + 4.0),
            escape(&label)
        );
    }
    for (index, row) in dots.rows.iter().enumerate() {
        let level = top + step * (index as f64 + 0.5);
        let _ = write!(
            body,
            r#"<text class="tick" text-anchor="end" x="{}" y="{}">{}</text>"#,
            round(left - 12.0),
            round(level + size * 0.34),
            escape(&fit(&row.name, 150.0, size))
        );
        let values: Vec<(usize, f64)> = row
            .values
            .iter()
            .enumerate()
            .filter_map(|(i, v)| finite(*v).filter(|v| *v >= 0.0).map(|v| (i, v)))
            .collect();
        let low = values.iter().map(|(_, v)| *v).fold(f64::INFINITY, f64::min);
        let high = values.iter().map(|(_, v)| *v).fold(0.0f64, f64::max);
        if low.is_finite() {
            let _ = write!(
                body,
                r#"<path class="reach" d="M{} {l}H{}"/>"#,
                round(x(low)),
                round(x(high)),
                l = round(level)
            );
        }
        // Ours last, so that it lies on top.
        for (index, value) in values.iter().rev() {
            let _ = write!(
                body,
                r#"<g>{}<title>{}</title></g>"#,
                marker(x(*value), level, *index),
                escape(&format!(
                    "{}, {}: {}",
                    row.name,
                    dots.names.get(*index).map_or("", String::as_str),
                    Unit::Millis.say(*value, lang)
                ))
            );
        }
    }
    let height = (bottom + 2.0 * size + 12.0).ceil();
    let _ = write!(
        body,
        r#"<text class="quiet" text-anchor="end" x="{}" y="{}">{}</text>"#,
        round(right),
        round(bottom + 2.0 * size + 7.0),
        escape(&fit(&dots.axis_name, width - 20.0, size))
    );
    let id = format!("{}-{}", dots.id, form.class());
    format!(
        r#"<svg class="chart {class}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{id}-t {id}-d" font-size="{size}"><title id="{id}-t">{title}</title><desc id="{id}-d">{desc}</desc>{body}</svg>"#,
        class = form.class(),
        title = escape(&dots.title),
        desc = escape(&dots.description),
    )
}
