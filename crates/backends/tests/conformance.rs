//! SQLite passes the suite that every store must pass.

#![allow(clippy::unwrap_used)]

mod common;

use common::{fresh, reopen};

boxoffice_backends::store_conformance!(fresh, reopen);

/// A case that nobody instantiates passes for ever.
#[test]
fn every_case_is_in_the_list() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance");
    let list = std::fs::read_to_string(format!("{folder}.rs")).unwrap();
    let mut cases = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let group = path.file_stem().unwrap().to_str().unwrap();
        for line in std::fs::read_to_string(&path).unwrap().lines() {
            let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
            let case = rest.split('(').next().unwrap();
            assert!(list.contains(&format!("{group}::{case},")), "{group}::{case}");
            cases += 1;
        }
    }
    assert!(cases > 50, "only {cases} found");
}
