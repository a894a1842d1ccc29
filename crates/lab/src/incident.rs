//! Incidents: a failure is caused on a real cluster under load, with Prometheus and Alertmanager under the rules
//! that are shipped; whether an alarm is heard in time, what answers, and what fans and buyers notice, is measured
//! and told in a report.

mod crowd;
mod page;
mod plan;
mod play;
mod shipped;
mod story;
mod watch;

use std::path::{Path, PathBuf};

use boxoffice_report::{Language, render_html, render_markdown};
use clap::Args;
use testbed::{Machine, Workdir, machine, process, signals, tools};

use self::plan::{Answer, INCIDENTS, Incident};
use self::play::Options;
use self::story::{Bound, Story};
use crate::report::{copy_logs, keep, now_text, results_dir};

/// Causes a failure under load, waits for the alarm and for what answers, and writes one report
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Which: names as `list` shows them, or `all`
    #[arg(required = true)]
    names: Vec<String>,
    /// Switches off what answers (the governor, the hook, the replica, shedding, draining), to see that the
    /// incident can fail. Where nothing can be switched off it is an error
    #[arg(long)]
    without_answer: bool,
    /// Where reports and logs go [default: target/incident/…]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Writes what was measured into the runbooks, docs/incidents
    #[arg(long, conflicts_with = "quick")]
    write_pages: bool,
    /// Plays nothing, but takes what was measured before from this directory, for --write-pages
    #[arg(long, value_name = "DIR", requires = "write_pages")]
    from: Option<PathBuf>,
    /// Less quiet time before and after: to see that it works, not to measure
    #[arg(long)]
    quick: bool,
    /// Keeps the data of the cluster beside the logs
    #[arg(long)]
    keep: bool,
    /// Does not build the service first
    #[arg(long)]
    no_build: bool,
}

/// Plays incidents. Returns whether all that must hold did.
pub(crate) fn main(arguments: &Arguments) -> Result<bool, String> {
    if arguments.names == ["list"] {
        for incident in &INCIDENTS {
            let alarm = match incident.alarms {
                [] => "no alarm".to_owned(),
                [first, ..] => format!("{first} within {:.0} s", incident.alarm_within),
            };
            println!("{:<22} {} [{alarm}]", incident.name, incident.about[0]);
        }
        return Ok(true);
    }
    let incidents = chosen(&arguments.names)?;
    if let Some(one) = incidents.iter().find(|one| one.answer == Answer::Design)
        && arguments.without_answer
    {
        return Err(format!("{}: there is nothing that could be switched off", one.name));
    }
    if let Some(from) = &arguments.from {
        for incident in incidents.iter().filter(|it| it.has_runbook()) {
            let path = from.join(incident.name).join("incident.json");
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let story: Story = serde_json::from_str(&text)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            fill_page(&story)?;
        }
        return Ok(true);
    }
    // Said before a minute has passed, not after it.
    for tool in ["k6", "prometheus", "prometheus-alertmanager", "haproxy", "webhook"] {
        tools::tool(tool)?;
    }
    if !arguments.no_build {
        tools::build("boxoffice", &["--bin", "boxoffice"])?;
    }
    tools::boxoffice()?;
    process::raise_file_limit(16_384, "an incident")?;
    let at = now_text();
    let out = results_dir("incident", arguments.out.as_deref(), &at)?;
    let mut all = true;
    for incident in &incidents {
        let story = one(incident, arguments, &out)?;
        all &= story.holds();
        if signals::stopped() {
            break;
        }
    }
    println!("reports in {}", out.display());
    Ok(all)
}

fn chosen(names: &[String]) -> Result<Vec<Incident>, String> {
    let mut chosen: Vec<Incident> = Vec::new();
    for name in names {
        let known = chosen.len();
        for one in INCIDENTS.iter().filter(|one| name == "all" || one.name == name) {
            if chosen.iter().all(|it| it.name != one.name) {
                chosen.push(*one);
            }
        }
        if known == chosen.len() && INCIDENTS.iter().all(|one| one.name != name) {
            return Err(format!(
                "there is no incident {name}; lab incident list says which there are"
            ));
        }
    }
    Ok(chosen)
}

/// Plays one incident and writes its report.
fn one(incident: &Incident, arguments: &Arguments, out: &Path) -> Result<Story, String> {
    let began_at = now_text();
    let began = crate::clock::now();
    let directory = out.join(incident.name);
    let workdir = if arguments.keep {
        Workdir::kept(&directory.join("cluster"))?
    } else {
        Workdir::temporary()?
    };
    let options = Options {
        answered: !arguments.without_answer,
        quick: arguments.quick,
        directory: workdir.path(),
    };
    let played = play::play(incident, options);
    copy_logs(workdir.path(), &directory.join("logs"));
    let mut story = played?;
    story.began_at = began_at;
    let Machine { cpu, cpus, memory_bytes, kernel, .. } = Machine::look();
    story.machine = format!("{cpus} × {cpu}, {} GiB, Linux {kernel}", memory_bytes >> 30);
    story.commit = machine::commit().unwrap_or_else(|| "unknown".to_owned());
    write(&story, &directory)?;
    // What was broken off is no measurement.
    let is_whole = story.answered && story.broken_off.is_none();
    if arguments.write_pages && is_whole && incident.has_runbook() {
        fill_page(&story)?;
    }
    let took = crate::clock::now() - began;
    let word = if story.holds() { "ok" } else { "FAILED" };
    println!("{}: {word}, {took:.0} s", story.name);
    for Bound { what, limit, measured, holds } in &story.bounds {
        let measured = measured.map_or_else(|| "not seen".to_owned(), |it| format!("{it:.4}"));
        let sign = if *holds { "ok " } else { "NOT" };
        println!("    {sign} {what:?} {measured} (limit {limit})");
    }
    if let Some(why) = &story.broken_off {
        println!("    broken off: {why}");
    }
    for lost in story.lost.iter().take(8) {
        println!("    lost: {lost}");
    }
    Ok(story)
}

/// Writes the report in both languages, and what it was made from.
fn write(story: &Story, directory: &Path) -> Result<(), String> {
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?;
    let json = serde_json::to_string(story).map_err(|error| error.to_string())?;
    let mut files = vec![("incident.json".to_owned(), json + "\n")];
    for (language, suffix) in [(Language::En, ""), (Language::Ko, ".ko")] {
        let document = page::document(story, language);
        files.push((format!("incident{suffix}.html"), render_html(&document)));
        files.push((format!("incident{suffix}.md"), render_markdown(&document)));
    }
    files.into_iter().try_for_each(|(name, text)| keep(&directory.join(name), &text))
}

/// Puts what was measured into the page of the incident, between two marks.
fn fill_page(story: &Story) -> Result<(), String> {
    for (language, suffix) in [(Language::En, ""), (Language::Ko, ".ko")] {
        let path = tools::root().join(format!("docs/incidents/{}{suffix}.md", story.name));
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let filled = filled(&text, &page::measured(story, language))
            .ok_or_else(|| format!("{} has no place for what was measured", path.display()))?;
        keep(&path, &filled)?;
    }
    Ok(())
}

const MEASURED: [&str; 2] = ["<!-- measured -->\n", "<!-- /measured -->\n"];

fn filled(text: &str, measured: &str) -> Option<String> {
    let (before, rest) = text.split_once(MEASURED[0])?;
    let (_, after) = rest.split_once(MEASURED[1])?;
    Some(format!("{before}{}\n{measured}\n{}{after}", MEASURED[0], MEASURED[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incidents_are_chosen_by_name_each_once() {
        let names = |of: &[&str]| {
            let of: Vec<String> = of.iter().map(|name| (*name).to_owned()).collect();
            chosen(&of).map(|all| all.iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["rolling", "cpu", "rolling"]).unwrap_or_default(), ["rolling", "cpu"]);
        assert_eq!(names(&["all", "cpu"]).unwrap_or_default().len(), INCIDENTS.len());
        assert!(names(&["cpu", "none"]).is_err_and(|error| error.contains("no incident none")));
    }

    #[test]
    fn a_page_keeps_what_was_written_by_hand() {
        let page = "a\n<!-- measured -->\nold\n<!-- /measured -->\nb\n";
        let expected = "a\n<!-- measured -->\n\nnew\n\n<!-- /measured -->\nb\n";
        assert_eq!(filled(page, "new\n").as_deref(), Some(expected));
        assert_eq!(filled(expected, "new\n").as_deref(), Some(expected));
        assert_eq!(filled("a\n", "new"), None);
    }
}
