//! Rules of the house that no compiler checks.

// What cannot be read cannot be checked, and that fails the test.
#![allow(clippy::unwrap_used)]

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
    // A set of numbers is all that it borrows.
    assert_eq!(dependencies("domain"), ["roaring"]);
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
fn both_readmes_name_the_two_commands() {
    for readme in ["README.md", "README.ko.md"] {
        let text = read(readme);
        assert!(text.contains("cargo run --release"), "{readme}");
        assert!(text.contains("./scripts/test"), "{readme}");
        assert!(!text.contains("@@"), "{readme} still has a figure to be filled in");
    }
}
