//! Rules of the house that no compiler checks.

// What cannot be read cannot be checked, and that fails the test.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use boxoffice_domain::invariant::Invariant;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// The names of a crate's ordinary dependencies.
fn dependencies(krate: &str) -> Vec<String> {
    let manifest: toml::Table = read(&format!("crates/{krate}/Cargo.toml")).parse().unwrap();
    manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
}

#[test]
fn dependencies_point_one_way() {
    let of = |krate: &str| -> Vec<String> {
        dependencies(krate).into_iter().filter(|name| name.starts_with("boxoffice")).collect()
    };
    assert!(of("domain").is_empty(), "the domain knows nobody");
    assert_eq!(of("backends"), ["boxoffice-domain"]);
    assert_eq!(of("server"), ["boxoffice-backends", "boxoffice-domain"]);
}

#[test]
fn the_domain_is_pure() {
    // A set of numbers and a hash are all that it borrows.
    assert_eq!(dependencies("domain"), ["foldhash", "roaring"]);
    let mut files = Vec::new();
    sources(&root().join("crates/domain/src"), &mut files);
    assert!(files.len() > 5, "the sources were found");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for forbidden in
            ["std::fs", "std::net", "std::io", "std::thread", "std::env", "SystemTime", "Instant"]
        {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", file.display());
        }
    }
}

#[test]
fn rules_of_the_business_are_decided_in_the_domain_only() {
    // The name of a decider marks every place that decides; whoever writes one elsewhere has
    // written a rule twice.
    for krate in ["backends", "server"] {
        let mut files = Vec::new();
        sources(&root().join("crates").join(krate).join("src"), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains("fn decide_"), "{} has a decider", file.display());
        }
    }
}

#[test]
fn each_decider_is_called_in_one_place() {
    let mut calls = std::collections::BTreeMap::new();
    for krate in ["domain", "backends", "server"] {
        let mut files = Vec::new();
        sources(&root().join("crates").join(krate).join("src"), &mut files);
        for file in files.into_iter().filter(|file| !file.ends_with("tests.rs")) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for decider in ["decide_hold", "decide_payment", "decide_cancel", "decide_charge"] {
                let called = code.matches(&format!("{decider}(")).count();
                let defined = code.matches(&format!("fn {decider}(")).count();
                if called > defined {
                    calls.entry(decider).or_insert_with(Vec::new).push((file.clone(), called));
                }
            }
        }
    }
    let home = root().join("crates/domain/src/command/execute.rs");
    assert_eq!(calls.len(), 4, "{calls:?}");
    for (decider, places) in calls {
        assert_eq!(places, [(home.clone(), 1)], "{decider}");
    }
}

/// The paths that the `use` declarations of a file name, from the root of its crate.
fn imports(code: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for declaration in code.split(';') {
        let Some((_, tree)) = declaration.rsplit_once("use ") else { continue };
        let is_start = |line: &str| {
            let line = line.trim_start();
            let line = line.trim_start_matches("pub").trim_start();
            line.starts_with("use ") || (line.starts_with('(') && line.contains(") use "))
        };
        if !declaration.lines().any(is_start) {
            continue;
        }
        let mut leaves = Vec::new();
        spread(&tree.split_whitespace().collect::<Vec<_>>().join(" "), String::new(), &mut leaves);
        for leaf in leaves {
            let mut parts: Vec<String> =
                leaf.split("::").map(|part| part.trim().to_owned()).collect();
            if let Some(last) = parts.last_mut() {
                *last = last.split(" as ").next().unwrap().to_owned();
            }
            let mut at: Vec<String> = match parts.first().map(String::as_str) {
                Some("crate") => Vec::new(),
                Some("self" | "super") => module.to_vec(),
                _ => continue,
            };
            for part in parts {
                match part.as_str() {
                    "crate" | "self" => {}
                    "super" => {
                        at.pop();
                    }
                    _ => at.push(part),
                }
            }
            found.push(at);
        }
    }
    found
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn spread(tree: &str, before: String, leaves: &mut Vec<String>) {
    let Some(open) = tree.find('{') else {
        leaves.push(before + tree.trim());
        return;
    };
    let (head, rest) = tree.split_at(open);
    let before = before + head.trim();
    let inner = &rest[1..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut from) = (0, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&inner[from..at], before.clone(), leaves);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inner[from..].trim().is_empty() {
        spread(&inner[from..], before, leaves);
    }
}

#[test]
fn no_module_imports_itself_in_a_circle() {
    assert_eq!(
        imports(
            "use crate::a::{self, b::{C, d}};\npub(super) use super::x::Y as Z;\n",
            &["m".into(), "n".into()]
        ),
        [vec!["a"], vec!["a", "b", "C"], vec!["a", "b", "d"], vec!["m", "x", "Y"]]
            .map(|path| path.into_iter().map(str::to_owned).collect::<Vec<_>>())
    );
    for krate in ["domain", "backends", "server", "loadtest"] {
        let home = root().join("crates").join(krate).join("src");
        let mut files = Vec::new();
        sources(&home, &mut files);
        let is_test = |file: &PathBuf| {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            ["tests", "fixture", "browser"].contains(&name.as_str())
        };
        let modules: std::collections::BTreeMap<Vec<String>, String> = files
            .into_iter()
            .filter(|file| !is_test(file))
            .map(|file| {
                let inside = file.strip_prefix(&home).unwrap().with_extension("");
                let parts =
                    inside.components().map(|part| part.as_os_str().to_string_lossy().into());
                let module: Vec<String> = match inside.to_str().unwrap() {
                    "lib" | "main" => Vec::new(),
                    _ => parts.collect(),
                };
                let text = fs::read_to_string(&file).unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let code = code.collect::<Vec<_>>().join("\n");
                (module, code.split("#[cfg(test)]\nmod").next().unwrap().to_owned())
            })
            .collect();
        let arrows: std::collections::BTreeMap<&Vec<String>, Vec<&Vec<String>>> = modules
            .iter()
            .map(|(module, code)| {
                let file_of = |path: Vec<String>| {
                    let lengths = (1..=path.len()).rev();
                    let mut prefixes =
                        lengths.filter_map(|length| modules.get_key_value(&path[..length]));
                    prefixes.next().map(|(file, _)| file)
                };
                let to = imports(code, module).into_iter().filter_map(file_of);
                (module, to.filter(|to| *to != module).collect())
            })
            .collect();
        assert!(arrows.values().map(Vec::len).sum::<usize>() > 10, "{krate}: imports were found");
        // Whoever imports nothing that is left is on no circle.
        let mut left: Vec<&Vec<String>> = arrows.keys().copied().collect();
        loop {
            let before = left.len();
            let still = left.clone();
            left.retain(|module| arrows[*module].iter().any(|to| still.contains(to)));
            if left.len() == before {
                break;
            }
        }
        // What only leads to a circle is not on one.
        loop {
            let before = left.len();
            let still = left.clone();
            left.retain(|module| still.iter().any(|from| arrows[*from].contains(module)));
            if left.len() == before {
                break;
            }
        }
        assert!(left.is_empty(), "{krate}: in a circle: {left:?}");
    }
}

#[test]
fn modules_are_files_beside_their_folders() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    for file in files {
        assert!(file.file_name().unwrap() != "mod.rs", "{}", file.display());
    }
}

#[test]
fn the_document_of_invariants_lists_those_of_the_code() {
    let text = read("docs/invariants.md");
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## I")).collect();
    let expected: Vec<String> = Invariant::ALL
        .iter()
        .map(|invariant| {
            format!("{}. {}", invariant.code().trim_start_matches('I'), invariant.title())
        })
        .collect();
    assert_eq!(listed, expected);
}

#[test]
fn the_tests_that_stand_behind_the_document_of_security_exist() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let text = read("docs/security.md");
    let mut named = 0;
    for name in text.split('`').skip(1).step_by(2) {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if !name.chars().all(is_name) || name.matches('_').count() < 2 {
            continue;
        }
        named += 1;
        let at = code.find(&format!("fn {name}("));
        let at = at.unwrap_or_else(|| panic!("no test is called {name}"));
        assert!(
            code[..at].trim_end().trim_end_matches("async").trim_end().ends_with(']'),
            "{name}"
        );
    }
    assert!(named > 50, "{named}");
}

#[test]
fn both_readmes_name_the_two_commands() {
    for readme in ["README.md", "README.ko.md"] {
        let text = read(readme);
        assert!(text.contains("cargo run --release"), "{readme}");
        assert!(text.contains("./scripts/test"), "{readme}");
        assert!(!text.contains("@@"), "{readme} still has a figure to be filled in");
    }
}

/// The stretch of a Markdown document from one heading to the next.
#[derive(Debug, Default)]
struct Section {
    /// Of the heading: 0 before the first one.
    level: usize,
    title: String,
    /// Everything but code blocks and tables, with lines joined.
    prose: String,
    /// Language and code of each block.
    blocks: Vec<(String, String)>,
    /// The cells of each row of each table.
    rows: Vec<Vec<String>>,
}

fn sections(text: &str) -> Vec<Section> {
    let mut found = vec![Section::default()];
    let mut block: Option<(String, String)> = None;
    for line in text.lines() {
        let section = found.last_mut().unwrap();
        if let Some((language, mut code)) = block.take() {
            if line.starts_with("```") {
                section.blocks.push((language, code));
            } else {
                code.push_str(line);
                code.push('\n');
                block = Some((language, code));
            }
        } else if let Some(language) = line.strip_prefix("```") {
            block = Some((language.to_owned(), String::new()));
        } else if let Some((marks, title)) = line.split_once(' ')
            && !marks.is_empty()
            && marks.chars().all(|mark| mark == '#')
        {
            let title = title.to_owned();
            found.push(Section { level: marks.len(), title, ..Section::default() });
        } else if line.starts_with('|') {
            section.rows.push(line.trim_matches('|').split('|').map(str::to_owned).collect());
        } else {
            section.prose.push_str(line);
            section.prose.push('\n');
        }
    }
    assert!(block.is_none(), "a code block has no end");
    found
}

/// A document's text without its code blocks.
fn text_of(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        text.push_str(&section.title);
        text.push('\n');
        text.push_str(&section.prose);
        for row in &section.rows {
            text.push_str(&row.join("|"));
            text.push('\n');
        }
    }
    text
}

/// What stands between backticks, and the text without it.
fn code_spans(text: &str) -> (Vec<String>, String) {
    let (mut spans, mut rest) = (Vec::new(), String::new());
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            spans.push(part.replace('\n', " "));
        } else {
            rest.push_str(part);
        }
    }
    (spans, rest)
}

/// The targets of all links, and the text without them.
fn links(text: &str) -> (Vec<String>, String) {
    let (_, text) = code_spans(text);
    let (mut targets, mut rest) = (Vec::new(), String::new());
    for (index, part) in text.split("](").enumerate() {
        if index == 0 {
            rest.push_str(part);
        } else {
            let (target, after) = part.split_once(')').expect("a link has an end");
            targets.push(target.to_owned());
            rest.push_str(after);
        }
    }
    targets.extend(text.lines().filter_map(|line| {
        let (_, target) = line.strip_prefix('[')?.split_once("]: ")?;
        Some(target.to_owned())
    }));
    (targets, rest)
}

/// Every number, as it is written.
fn figures(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ','))
        .map(|number| number.trim_matches(['.', ',']).to_owned())
        .filter(|number| !number.is_empty())
        .collect();
    found.sort();
    found
}

/// Code without its comments, which may be in either language.
fn commands(code: &str) -> Vec<&str> {
    code.lines()
        .map(|line| match line.find("# ") {
            Some(0) => "",
            Some(at) if line[..at].ends_with(' ') => line[..at].trim_end(),
            _ => line,
        })
        .collect()
}

/// Pages that are there in both languages, without their endings.
fn pages_in_both_languages() -> BTreeSet<String> {
    let mut found =
        BTreeSet::from(["README", "deploy/README", "deploy/kubernetes/README"].map(str::to_owned));
    for entry in fs::read_dir(root().join("docs/incidents")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.strip_suffix(".md").unwrap();
        found.insert(format!("docs/incidents/{}", name.trim_end_matches(".ko")));
    }
    found
}

#[test]
fn both_languages_of_a_page_say_the_same() {
    for page in pages_in_both_languages() {
        let english = sections(&read(&format!("{page}.md")));
        let korean = sections(&read(&format!("{page}.ko.md")));
        let titles = |page: &[Section]| -> Vec<(usize, String)> {
            page.iter().map(|section| (section.level, section.title.clone())).collect()
        };
        let levels =
            |page: &[Section]| -> Vec<usize> { page.iter().map(|section| section.level).collect() };
        assert_eq!(
            levels(&english),
            levels(&korean),
            "{page}: headings differ: {:?} {:?}",
            titles(&english),
            titles(&korean)
        );
        assert!(english.len() > 3, "{page}: the sections were found");
        for (english, korean) in english.iter().zip(&korean) {
            let at = format!("{page}, {:?} and {:?}", english.title, korean.title);
            assert_eq!(english.blocks.len(), korean.blocks.len(), "{at}: code blocks");
            for ((language, code), (of_korean, korean)) in english.blocks.iter().zip(&korean.blocks)
            {
                assert_eq!(language, of_korean, "{at}: language of a code block");
                // Output has no comments, and must be the same to the letter.
                if language.is_empty() || language == "json" {
                    assert_eq!(code, korean, "{at}: output");
                } else {
                    assert_eq!(commands(code), commands(korean), "{at}: commands");
                }
            }
            assert_eq!(english.rows.len(), korean.rows.len(), "{at}: rows of tables");
            for (row, of_korean) in english.rows.iter().zip(&korean.rows) {
                let figures = |row: &[String]| -> Vec<Vec<String>> {
                    row.iter().map(|cell| figures(cell)).collect()
                };
                assert_eq!(figures(row), figures(of_korean), "{at}: {row:?} and {of_korean:?}");
            }
            // The order of words differs between the languages, so the order of figures may too.
            let said = |section: &Section| {
                let (mut spans, _) = code_spans(&section.prose);
                spans.sort();
                (spans, figures(&links(&section.prose).1))
            };
            assert_eq!(said(english), said(korean), "{at}: code and figures in the text");
        }
        let in_english = |target: String, language: &str| -> String {
            // Pictures show the pages in the language of the text.
            let twin = target.replace(".ko.md", ".md").replace("-ko.jpg", "-en.jpg");
            let path = twin.split('#').next().unwrap().to_owned();
            let folder = root().join(&page);
            let other = folder.parent().unwrap().join(path.replace(".md", ".ko.md"));
            // A page that is there in Korean too has headings of its own in each language.
            if !path.ends_with(".md") || !other.exists() {
                return twin;
            }
            let switch = target == format!("{}.md", page.rsplit('/').next().unwrap());
            let translated = target.contains(".ko.md");
            assert!(
                translated || language == "English" || switch,
                "{page}: {target} is in Korean too"
            );
            path
        };
        let targets = |sections: &[Section], language: &str| -> Vec<String> {
            let (found, _) = links(&text_of(sections));
            let mut found: Vec<String> =
                found.into_iter().map(|target| in_english(target, language)).collect();
            found.sort();
            found
        };
        assert_eq!(targets(&english, "English"), targets(&korean, "Korean"), "{page}: links");
    }
}

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            // What is built or fetched is not ours.
            if name != "target" && !name.starts_with('.') {
                documents(&path, found);
            }
        } else if name.ends_with(".md") {
            found.push(path);
        }
    }
}

/// The anchors of a document's headings, as GitHub names them, and those that it sets itself.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = text
        .split("<a id=\"")
        .skip(1)
        .map(|after| after.split('"').next().unwrap().to_owned())
        .collect();
    for section in sections(text) {
        let name: String = section
            .title
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let again = (1..).map(|n| format!("{name}-{n}"));
        let free = std::iter::once(name.clone()).chain(again).find(|name| !found.contains(name));
        found.extend(free);
    }
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut files = Vec::new();
    documents(&root(), &mut files);
    let mut checked = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for target in links(&text_of(&sections(&text))).0 {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let path = match path {
                "" => file.clone(),
                path => file.parent().unwrap().join(path),
            };
            assert!(path.exists(), "{}: {target} does not exist", file.display());
            if !anchor.is_empty() && path.extension().is_some_and(|end| end == "md") {
                let known = anchors(&fs::read_to_string(&path).unwrap());
                let there = known.iter().any(|name| name == anchor);
                assert!(there, "{}: {target}: there is no such heading", file.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 100, "the links were found: {checked}");
}

#[test]
fn alerts_send_operators_to_pages_that_exist() {
    let rules = read("deploy/prometheus/rules/alerts.yml");
    let mut checked = 0;
    for reference in rules.split("(docs/").skip(1) {
        let reference = format!("docs/{}", reference.split(')').next().unwrap());
        let mut page = String::new();
        for part in reference.split(", ") {
            if part.starts_with("docs/") {
                page = read(part);
                continue;
            }
            let heading = sections(&page).iter().any(|section| section.title == part);
            assert!(heading || page.contains(&format!("`{part}")), "{reference}: no {part:?}");
            checked += 1;
        }
    }
    assert!(checked > 5, "the references were found: {checked}");
}

#[test]
fn every_alert_leads_to_a_page_that_names_it() {
    let rules = read("deploy/prometheus/rules/alerts.yml");
    let mut checked = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap();
        let page = rule.split("runbook_url: ").nth(1).and_then(|rest| rest.lines().next());
        let page = page.unwrap_or_else(|| panic!("{name} leads nowhere"));
        assert!(read(page).contains(&format!("`{name}`")), "{page} does not name {name}");
        checked += 1;
    }
    assert!(checked > 15, "the alerts were found: {checked}");
}

#[test]
fn every_incident_has_a_page() {
    let plan = read("crates/lab/src/incident/plan.rs");
    let index = read("docs/incidents/README.md");
    let mut checked = 0;
    for entry in plan.split("    incident(\n").skip(1) {
        let name = entry.split('"').nth(1).unwrap();
        // Two of the others together.
        if name == "two-at-once" {
            continue;
        }
        assert!(index.contains(&format!("| [{name}]({name}.md) |")), "{name} is not in the index");
        let page = read(&format!("docs/incidents/{name}.md"));
        // A program puts what it has measured between them.
        assert!(page.contains("\n<!-- measured -->\n"), "{name}");
        assert!(page.contains("\n<!-- /measured -->\n"), "{name}");
        checked += 1;
    }
    assert!(checked > 10, "the incidents were found: {checked}");
}

#[test]
fn the_glossary_names_what_is_in_the_code() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    let code: String = files
        .iter()
        // This file must not make a name true.
        .filter(|file| file.file_name().unwrap() != "house.rs")
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let words: HashSet<&str> =
        code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).collect();
    let (mut terms, mut names) = (HashSet::new(), 0);
    for section in sections(&read("docs/glossary.md")) {
        // Of each table the first two rows are its head.
        for row in section.rows.iter().skip(2) {
            let [term, korean, meaning, name] = row.as_slice() else { panic!("{row:?}") };
            assert!(terms.insert(term.trim().to_owned()), "{term} is explained twice");
            assert!(!korean.trim().is_empty(), "{term} has no Korean");
            assert!(meaning.trim().ends_with('.'), "{term}: a sentence ends with a full stop");
            for span in code_spans(name).0 {
                let there = span.split([' ', '.']).all(|word| words.contains(word))
                    || root().join(&span).exists();
                assert!(there, "{term}: there is no {span}");
                names += 1;
            }
        }
    }
    assert!(terms.len() > 30 && names > 50, "{} terms, {names} names", terms.len());
}
