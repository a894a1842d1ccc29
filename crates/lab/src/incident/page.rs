//! What an incident is told as, in English and in Korean.

use boxoffice_report::{
    Along, Band, Block, Cell, Chart, Document, Figure, Language, Line, Mark, Outcome, Over, Panel,
    Section, Table, Tone, Unit, Verdict, number,
};

use crate::report::{Style, aligned};

use super::story::{Bound, Event, Kind, Measure, Moment, Second, Story, Tally};

/// The one of two texts that is in a language.
fn said(language: Language, [english, korean]: [&str; 2]) -> String {
    match language {
        Language::En => english,
        Language::Ko => korean,
    }
    .to_owned()
}

/// Returns the report of an incident.
pub(crate) fn document(story: &Story, language: Language) -> Document {
    let say = |both: [&str; 2]| said(language, both);
    let holds = story.holds();
    let outcome = match (holds, story.broken_off.is_some()) {
        (true, _) => (Tone::Good, "✓", ["all bounds kept", "모든 기준 충족"]),
        (false, true) => (Tone::Bad, "✕", ["broken off", "중단됨"]),
        (false, false) => (Tone::Bad, "✕", ["bounds broken", "기준 위반"]),
    };
    let [english, korean] = &story.about;
    let mut blocks = vec![Block::says(format!("{}.", say([english, korean])))];
    if let Some(why) = &story.broken_off {
        let text =
            say(["It was broken off, so this is a part of it:", "도중에 중단되어 일부만 있다:"]);
        blocks.push(Block::says(format!("{text} {why}")));
    }
    if !story.answered {
        blocks.push(Block::says(say([
            "What answers was switched off, to see that the incident can fail.",
            "실패할 수 있음을 보이려고 대응을 끄고 실행했다.",
        ])));
    }
    blocks.push(figures(story, language));
    blocks.push(Block::Verdicts(story.bounds.iter().map(|it| verdict(it, language)).collect()));
    let section = |id: &str, title: String, blocks| Section {
        id: id.to_owned(),
        title,
        outcome: None,
        blocks,
    };
    let mut sections = vec![
        Section {
            id: "verdict".to_owned(),
            title: say(["What became of it", "결과"]),
            outcome: Some(Outcome { tone: outcome.0, sign: outcome.1, word: say(outcome.2) }),
            blocks,
        },
        section("timeline", say(["Timeline", "시간순 기록"]), vec![timeline(story, language)]),
        section(
            "noticed",
            say(["What fans and buyers noticed", "대기자와 구매자가 겪은 일"]),
            vec![Block::Chart(chart(story, language)), noticed(story, language)],
        ),
    ];
    let lost = if story.lost.is_empty() {
        vec![Block::says(say([
            "Nothing. Every place, hold, payment, charge and event that was acknowledged is in the books, each once, and the audits are clean.",
            "없다. 응답으로 알린 순번, 선점, 결제, 충전, 이벤트가 모두 한 번씩 장부에 있고 감사도 깨끗하다.",
        ]))]
    } else {
        let found = story.lost.iter().take(50);
        vec![Block::List(
            found.map(|it| vec![boxoffice_report::Inline::Code(it.clone())]).collect(),
        )]
    };
    sections.push(section("lost", say(["What was lost", "잃은 것"]), lost));
    let place =
        say(["fans a second from k6, beside the witness' own", "명/초 (k6), 증인의 부하는 별도"]);
    sections.push(section(
        "how",
        say(["How it was made", "실행 환경"]),
        vec![Block::says(format!(
            "{} × boxoffice {}, {}; {} {place}.",
            story.instances, story.commit, story.machine, story.fans_per_second
        ))],
    ));
    Document {
        language,
        kind: say(["boxoffice: an incident", "boxoffice 장애 보고서"]),
        title: story.name.to_string(),
        subtitle: story.began_at.clone(),
        sections,
        footer: format!("lab incident {}", story.name),
    }
}

fn figures(story: &Story, language: Language) -> Block {
    let say = |both: [&str; 2]| said(language, both);
    let at = |wanted: &dyn Fn(&Event) -> bool| {
        story.moments.iter().find(|it| it.at >= 0.0 && wanted(&it.what)).map(|it| it.at)
    };
    let seconds = |value: Option<f64>, none: [&str; 2]| match value {
        Some(seconds) => Cell::new(number::millis(seconds * 1e3, language)),
        None => Cell::new(say(none)),
    };
    let figure = |name: [&str; 2], value: Cell, note: [&str; 2]| Figure {
        name: say(name),
        value,
        note: say(note),
    };
    let back = at(&|it| *it == Event::Normal).map(|at| (at - story.fault_seconds).max(0.0));
    let [did, did_not] = story.bought.map(f64::from);
    let share = (did + did_not > 0.0).then(|| did / (did + did_not));
    Block::Figures(vec![
        figure(
            ["first bad second", "처음 나빠진 때"],
            seconds(at(&|it| *it == Event::FirstBad), ["none", "없음"]),
            ["after the fault", "장애 발생 후"],
        ),
        figure(
            ["alarm", "알람"],
            seconds(at(&|it| matches!(it, Event::Alarm(_))), ["none", "없음"]),
            ["after the fault, at the webhook", "장애 발생 후 웹훅 도착까지"],
        ),
        figure(
            ["back to normal", "정상 복귀"],
            seconds(back, ["as before all the time", "줄곧 정상"]),
            ["after its end", "장애가 끝난 뒤"],
        ),
        figure(
            ["have a seat", "좌석을 산 사람"],
            Cell::of(share, language, |it| number::share(it, language)),
            ["of those who were let in", "입장한 사람 가운데"],
        ),
    ])
}

fn measure(what: Measure) -> [&'static str; 2] {
    match what {
        Measure::AlarmAfter => [
            "the alarm is at the webhook, seconds after the fault",
            "장애 후 알람이 웹훅에 닿기까지 (초)",
        ],
        Measure::Alarms => ["alarms", "울린 알람 수"],
        Measure::Lost => ["lost, doubled or out of order", "잃거나 겹치거나 어긋난 것"],
        Measure::Bought => [
            "part of those inside who have a seat in the end",
            "입장한 사람 중 결국 좌석을 산 비율",
        ],
        Measure::Paid => ["part of the payments that were answered", "응답한 결제의 비율"],
        Measure::PollsSlower => {
            ["p99 of polls, times that of quiet times", "조회 p99, 평상시의 배수"]
        }
        Measure::BackAfter => {
            ["everything as before, seconds after the end", "끝난 뒤 정상까지 (초)"]
        }
        Measure::JoinsRefusedFor => {
            ["longest stretch of refused joins, seconds", "대기열 진입이 거부된 가장 긴 시간 (초)"]
        }
        Measure::SharedAfter => [
            "the new instance has its part, seconds after its start",
            "새 인스턴스가 제 몫을 받기까지 (초)",
        ],
        Measure::PrimaryReads => {
            ["queries at the primary for each seat list", "좌석 목록 한 건당 주 데이터베이스 조회"]
        }
        Measure::Goodput => {
            ["done at the worst, of what is done at the best", "가장 나쁠 때 처리량 / 가장 좋을 때"]
        }
        Measure::Failed => ["failed requests", "실패한 요청"],
        Measure::LowestShare => {
            ["lowest part of its rate that was admitted", "가장 낮았던 입장 비율"]
        }
        Measure::ReadsAnswered => {
            ["part of polls and seat lists that were answered", "응답한 조회의 비율"]
        }
    }
}

fn verdict(bound: &Bound, language: Language) -> Verdict {
    let at_least = matches!(
        bound.what,
        Measure::Bought | Measure::Paid | Measure::Goodput | Measure::ReadsAnswered
    );
    let is_part = at_least || matches!(bound.what, Measure::LowestShare | Measure::PrimaryReads);
    let value = |value: f64| match is_part {
        true => format!("{} %", number::plain((value * 1e4).round() / 1e2)),
        false => number::plain((value * 1e2).round() / 1e2),
    };
    let limit = value(bound.limit);
    let limit = match (language, at_least) {
        (Language::En, true) => format!("at least {limit}"),
        (Language::En, false) => format!("at most {limit}"),
        (Language::Ko, true) => format!("{limit} 이상"),
        (Language::Ko, false) => format!("{limit} 이하"),
    };
    let measured = match bound.measured {
        Some(measured) => value(measured),
        None => said(language, ["not seen", "관측되지 않음"]),
    };
    Verdict {
        tone: if bound.holds { Tone::Good } else { Tone::Bad },
        says: format!("{}: {measured}", said(language, measure(bound.what))),
        detail: limit,
    }
}

fn event(what: &Event, language: Language) -> String {
    let say = |both: [&str; 2]| said(language, both);
    match what {
        Event::Fault(what) => format!("{}: {what}", say(["fault", "장애"])),
        Event::FirstBad => {
            say(["the first second in which somebody notices", "누군가 처음 알아차린 순간"])
        }
        Event::Alarm(name) => format!("{}: {name}", say(["alarm", "알람"])),
        Event::Resolved(name) => format!("{}: {name}", say(["alarm is over", "알람 해제"])),
        Event::Action(what) => format!("{}: {what}", say(["action", "조치"])),
        Event::FaultEnds => say(["the fault is over", "장애 끝"]),
        Event::Normal => say(["back to normal", "정상 복귀"]),
    }
}

/// Moments, without what several instances say within a second.
fn told_once(story: &Story) -> Vec<&Moment> {
    let mut told: Vec<&Moment> = Vec::new();
    for moment in &story.moments {
        let is_same = |other: &&Moment| other.what == moment.what && moment.at - other.at < 1.0;
        if !told.iter().any(is_same) {
            told.push(moment);
        }
    }
    told
}

fn timeline(story: &Story, language: Language) -> Block {
    let rows = told_once(story).into_iter().map(|moment| {
        let tone = match moment.what {
            Event::Fault(_) | Event::FirstBad => Tone::Bad,
            Event::Alarm(_) => Tone::Mind,
            Event::Normal | Event::FaultEnds | Event::Resolved(_) => Tone::Good,
            Event::Action(_) => Tone::Strong,
        };
        vec![
            Cell::new(format!("{:+.1} s", moment.at)),
            Cell::toned(event(&moment.what, language), tone),
        ]
    });
    Block::Table(Table {
        caption: String::new(),
        head: vec![said(language, ["When", "시각"]), said(language, ["What", "내용"])],
        rows: rows.collect(),
        figures: false,
    })
}

fn kind(kind: Kind, language: Language) -> String {
    said(
        language,
        match kind {
            Kind::Join => ["joins", "대기열 진입"],
            Kind::Poll => ["polls", "순번 조회"],
            Kind::Seats => ["seat lists", "좌석 조회"],
            Kind::Reserve => ["holds", "선점"],
            Kind::Pay => ["payments", "결제"],
            Kind::Flood => ["the flood", "몰려든 요청"],
        },
    )
}

fn noticed(story: &Story, language: Language) -> Block {
    let say = |both: [&str; 2]| said(language, both);
    let head = [
        ["Requests", "요청"],
        ["in quiet times", "평상시"],
        ["p99", "p99"],
        ["from the fault on", "장애 후"],
        ["failed", "실패"],
        ["p50", "p50"],
        ["p99", "p99"],
    ];
    let ms = |value: Option<f64>| Cell::of(value, language, |it| number::millis(it, language));
    let rows = story.kinds.iter().map(|(of, [calm, during])| {
        let failed = f64::from(during.failed) / f64::from(during.all.max(1));
        let failed_text = format!("{} ({})", during.failed, number::share(failed, language));
        let tone = if during.failed == 0 { Tone::Good } else { Tone::Mind };
        vec![
            Cell::new(kind(*of, language)),
            Cell::new(number::plain(f64::from(calm.all))),
            ms(calm.p99_ms),
            Cell::new(number::plain(f64::from(during.all))),
            Cell::toned(failed_text, tone),
            ms(during.p50_ms),
            ms(during.p99_ms),
        ]
    });
    Block::Table(Table {
        caption: String::new(),
        head: head.map(say).to_vec(),
        rows: rows.collect(),
        figures: true,
    })
}

fn chart(story: &Story, language: Language) -> Chart {
    let say = |both: [&str; 2]| said(language, both);
    let seconds = &story.seconds;
    let of = |get: &dyn Fn(&Second) -> Option<f64>| seconds.iter().map(get).collect::<Vec<_>>();
    let tally = |second: &Second, kind: Kind| second.requests.get(&kind).copied();
    let sum = |second: &Second, get: &dyn Fn(&Tally) -> u32| {
        let fans = second.requests.iter().filter(|(kind, _)| **kind != Kind::Flood);
        Some(f64::from(fans.map(|(_, tally)| get(tally)).sum::<u32>()))
    };
    let line = |name: String, values, style| Line { name, values, style };
    let panel = |title: [&str; 2], unit, lines| Panel {
        title: say(title),
        unit,
        may_be_log: unit == Unit::Millis,
        lines,
        limit: None,
        tall: false,
        over: if unit == Unit::Millis { Over::Highest } else { Over::Mean },
    };
    let p99 = |of_kind: Kind, style| {
        let values = of(&|second| tally(second, of_kind).and_then(|tally| tally.p99_ms));
        line(kind(of_kind, language), values, style)
    };
    let mut panels = vec![
        panel(
            ["Requests of fans per second", "초당 요청"],
            Unit::Count,
            vec![
                line(say(["all", "전체"]), of(&|it| sum(it, &|tally| tally.all)), 0),
                line(say(["failed", "실패"]), of(&|it| sum(it, &|tally| tally.failed)), 1),
            ],
        ),
        panel(
            ["p99 of answers", "응답 시간 p99"],
            Unit::Millis,
            vec![p99(Kind::Poll, 0), p99(Kind::Join, 2), p99(Kind::Reserve, 3), p99(Kind::Pay, 1)],
        ),
        panel(
            ["Part of its rate that is admitted", "입장 비율 (설정 속도 대비)"],
            Unit::Share,
            vec![line(say(["share", "비율"]), of(&|it| it.share), 4)],
        ),
        panel(
            ["Instances that answer", "응답하는 인스턴스"],
            Unit::Count,
            vec![line(say(["instances", "인스턴스"]), of(&|it| Some(it.instances as f64)), 5)],
        ),
    ];
    if seconds.iter().any(|second| second.requests.contains_key(&Kind::Flood)) {
        panels.push(panel(
            ["The flood per second", "초당 몰려든 요청"],
            Unit::Count,
            vec![
                line(
                    say(["all", "전체"]),
                    of(&|it| tally(it, Kind::Flood).map(|t| f64::from(t.all))),
                    0,
                ),
                line(
                    say(["failed", "실패"]),
                    of(&|it| tally(it, Kind::Flood).map(|t| f64::from(t.failed))),
                    1,
                ),
            ],
        ));
    }
    let mut alarms = 0;
    let marks = story.moments.iter().filter_map(|moment| {
        let name = match &moment.what {
            Event::Fault(_) => say(["fault", "장애"]),
            Event::FirstBad => say(["first bad", "첫 이상"]),
            Event::Alarm(_) => {
                alarms += 1;
                (alarms == 1).then(|| say(["alarm", "알람"]))?
            }
            Event::Action(_) => say(["action", "조치"]),
            Event::Normal => say(["normal", "정상"]),
            Event::FaultEnds => say(["over", "끝"]),
            Event::Resolved(_) => return None,
        };
        Some(Mark { at: moment.at, name })
    });
    Chart {
        id: "course".to_owned(),
        title: say(["The course of it", "경과"]),
        caption: say([
            "Seconds are counted from the fault. The shaded part is the time in which it lasted.",
            "초는 장애 발생 시점부터 센다. 음영은 장애가 이어진 시간이다.",
        ]),
        along: Along::Seconds,
        axis_name: say(["seconds after the fault", "장애 후 시간 (초)"]),
        at: seconds.iter().map(|second| second.at as f64).collect(),
        marks: marks.collect(),
        bands: vec![Band {
            from: 0.0,
            to: story.fault_seconds,
            name: say(["it lasts", "장애 지속"]),
        }],
        panels,
    }
}

/// Returns what a runbook has of it: what was kept, when what happened, and its course as lines of text.
pub(crate) fn measured(story: &Story, language: Language) -> String {
    let say = |both: [&str; 2]| said(language, both);
    let head = [["must hold", "기준"], ["limit", "한계"], ["measured", "측정"]];
    let mut rows = vec![head.map(say).to_vec()];
    for bound in &story.bounds {
        let Verdict { says, detail, .. } = verdict(bound, language);
        let (what, measured) = says.rsplit_once(": ").unwrap_or((&says, ""));
        let sign = if bound.holds { "✓" } else { "✕" };
        rows.push(vec![what.to_owned(), detail, format!("{measured} {sign}")]);
    }
    let bounds = aligned(&rows, &[0, 1, 2], Style::Markdown);
    let mut rows = vec![[["when", "시각"], ["what", "내용"]].map(say).to_vec()];
    rows.extend(
        told_once(story)
            .into_iter()
            .take(16)
            .map(|moment| vec![format!("{:+.1} s", moment.at), event(&moment.what, language)]),
    );
    let timeline = aligned(&rows, &[1], Style::Markdown);
    let about = format!(
        "`lab incident {}`, {}, boxoffice {}, {}.",
        story.name, story.began_at, story.commit, story.machine
    );
    format!("{about}\n\n{bounds}\n{timeline}\n```text\n{}```\n", course(story))
}

/// The course of an incident, a character for two seconds; in English, for a letter of Korean is wider than one.
fn course(story: &Story) -> String {
    const EACH: usize = 2;
    let spans: Vec<&[Second]> = story.seconds.chunks(EACH).collect();
    let fans = |second: &Second, get: &dyn Fn(&Tally) -> u32| {
        let of_fans = second.requests.iter().filter(|(kind, _)| **kind != Kind::Flood);
        f64::from(of_fans.map(|(_, tally)| get(tally)).sum::<u32>())
    };
    let p99 =
        |second: &Second, kind: Kind| second.requests.get(&kind).and_then(|tally| tally.p99_ms);
    let highest = |get: &dyn Fn(&Second) -> Option<f64>| -> Vec<Option<f64>> {
        spans.iter().map(|span| span.iter().filter_map(get).reduce(f64::max)).collect()
    };
    let lowest = |get: &dyn Fn(&Second) -> Option<f64>| -> Vec<Option<f64>> {
        spans.iter().map(|span| span.iter().filter_map(get).reduce(f64::min)).collect()
    };
    let lines = [
        ("requests/s", highest(&|it| Some(fans(it, &|tally| tally.all))), ""),
        ("failed/s", highest(&|it| Some(fans(it, &|tally| tally.failed))), ""),
        ("p99 polls", highest(&|it| p99(it, Kind::Poll)), " ms"),
        ("p99 payments", highest(&|it| p99(it, Kind::Pay)), " ms"),
        ("admitting %", lowest(&|it| it.share.map(|share| share * 100.0)), ""),
    ];
    let fault = spans.iter().position(|span| span.iter().any(|second| second.at >= 0)).unwrap_or(0);
    let mut text = format!("{:<14}{}|{}\n", "", " ".repeat(fault), " the fault");
    for (name, values, unit) in lines {
        let top = values.iter().flatten().copied().fold(0.0, f64::max);
        let bars: String = values.iter().map(|value| bar(*value, top)).collect();
        let top = number::plain((top * 10.0).round() / 10.0);
        text += &format!("{:<14}{bars}  most {top}{unit}\n", name);
    }
    text
}

fn bar(value: Option<f64>, top: f64) -> char {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    match value {
        None => ' ',
        Some(value) if value <= 0.0 || top <= 0.0 => '·',
        Some(value) => {
            let index = (value / top * (BARS.len() - 1) as f64).round() as usize;
            BARS[index.min(BARS.len() - 1)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_values() {
        let bars: String = [None, Some(0.0), Some(0.01), Some(5.0), Some(10.0)]
            .map(|it| bar(it, 10.0))
            .into_iter()
            .collect();
        assert_eq!(bars, " ·▁▅█");
        assert_eq!(bar(Some(1.0), 0.0), '·');
    }
}
