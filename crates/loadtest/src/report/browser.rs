//! Looks at the reports of all fixtures in a real browser. Behind the feature `external`.
//!
//! Pages, pictures and prints are left in `target/loadtest-pages` for those who want to look at them.

#![allow(clippy::unwrap_used)] // It is a test, though behind a feature.

use std::fs;
use std::path::{Path, PathBuf};

use boxoffice_report::browser::{Browser, View};

use super::{Lang, fixture, html};

fn pages() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let pages = target.join("loadtest-pages");
    fs::create_dir_all(&pages).unwrap();
    pages.canonicalize().unwrap()
}

#[test]
fn reports_look_right_in_a_browser() {
    let pages = pages();
    let mut browser = Browser::start();
    let mut faults = Vec::new();
    for (name, run) in fixture::all() {
        // They look as the one that passed does, and stand beside it.
        if name == "two-cpus" || name == "cluster" {
            continue;
        }
        let others = if name == "passed" {
            vec![fixture::two_cpus(), fixture::cluster()]
        } else {
            Vec::new()
        };
        for (language, lang) in [("en", Lang::En), ("ko", Lang::Ko)] {
            let file = pages.join(format!("{name}-{language}.html"));
            fs::write(&file, html(&run, &others, lang)).unwrap();
            let english = lang == Lang::En;
            for (view, width, dark, print) in [
                ("1280", 1280, false, false),
                ("390", 390, false, false),
                ("dark", 1280, true, false),
                ("print", 718, true, true),
            ]
            .into_iter()
            // Letters differ by language, colours and paper do not.
            .filter(|(view, ..)| english || view.parse::<u32>().is_ok())
            .filter(|(view, ..)| *view != "dark" || name == "passed")
            {
                browser.open(&file, View { width, dark, print });
                let seen = browser.look();
                for fault in seen.faults {
                    faults.push(format!("{name}-{language} at {view}: {fault}"));
                }
                let charts = seen.charts;
                assert!(name == "empty" || charts >= 2, "{name} at {view} shows {charts} charts");
                if print {
                    browser.pdf(&pages.join(format!("{name}-{language}.pdf")));
                } else {
                    browser.picture(&pages.join(format!("{name}-{language}-{view}.png")));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
