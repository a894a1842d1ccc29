//! Looks at a document with every kind of block in a real browser. Behind the feature `external`.
//!
//! Pages, pictures and prints are left in `target/report-pages` for those who want to look at them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{chart, document, everything, hostile, line, panel, render_html};
use crate::browser::{Browser, View};
use crate::{Block, Document, Language, Unit};

const WIDE: View = View { width: 1280, dark: false, print: false };
const NARROW: View = View { width: 390, ..WIDE };
const DARK: View = View { dark: true, ..WIDE };

fn pages() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let pages = target.join("report-pages");
    fs::create_dir_all(&pages).unwrap();
    pages.canonicalize().unwrap()
}

fn page(name: &str, document: &Document) -> PathBuf {
    let file = pages().join(format!("{name}.html"));
    fs::write(&file, render_html(document)).unwrap();
    file
}

#[test]
fn every_block_looks_right() {
    let mut browser = Browser::start();
    for (name, language) in [("en", Language::En), ("ko", Language::Ko)] {
        let file = page(&format!("everything-{name}"), &everything(language, &str::to_string));
        for (view, how) in [("1280", WIDE), ("390", NARROW), ("dark", DARK)] {
            browser.open(&file, how);
            let seen = browser.look();
            assert!(seen.faults.is_empty(), "{name} at {view}:\n{}", seen.faults.join("\n"));
            assert_eq!(seen.charts, 2);
            browser.picture(&file.with_file_name(format!("everything-{name}-{view}.png")));
        }
        browser.pdf(&file.with_extension("pdf"));
    }
}

#[test]
fn hostile_text_is_shown_as_text() {
    let mut browser = Browser::start();
    let file = page("hostile", &everything(Language::En, &|_| hostile()));
    for how in [WIDE, NARROW] {
        browser.open(&file, how);
        let seen = browser.look();
        assert!(seen.faults.is_empty(), "at {}:\n{}", how.width, seen.faults.join("\n"));
        browser.picture(&file.with_file_name(format!("hostile-{}.png", how.width)));
        let said = browser.evaluate("document.title + document.querySelector('h1').textContent");
        let said = said.as_str().unwrap();
        assert_eq!(
            said.matches("</script><script>document.title='taken'</script>").count(),
            3,
            "{said}"
        );
        assert!(said.contains("🎟️"));
        let legend = browser.evaluate(
            "document.querySelector('.u-legend .u-label:not(:empty)').closest('table').textContent",
        );
        assert!(legend.as_str().unwrap().contains("<img src=x onerror="), "{legend}");
        // Nothing of it became an element, and nothing ran.
        let made = browser.evaluate(
            "document.querySelectorAll('img').length + document.querySelectorAll('script').length",
        );
        assert_eq!(made, 3, "the script of the page, and the data of two charts");
    }
}

#[test]
fn values_are_read_by_mouse_and_by_keys() {
    let mut browser = Browser::start();
    browser.open(&page("pointed-at", &everything(Language::En, &str::to_string)), WIDE);
    let tip =
        "document.querySelector('.tip').hidden ? '' : document.querySelector('.tip').textContent";
    assert_eq!(browser.evaluate(tip), "");
    // What is said while nobody points.
    let legend = "[...document.querySelectorAll('.u-legend')].map(e => e.textContent).join(' ')";
    assert!(browser.evaluate(legend).as_str().unwrap().contains("p95max 360 ms"));

    browser.evaluate(
        "const press = key => document.querySelector('.plots').dispatchEvent(new KeyboardEvent('keydown', {key}));
        for (const key of ['ArrowRight', 'End', 'ArrowLeft', 'PageUp']) press(key);",
    );
    // The last place is 3:59.
    assert_eq!(browser.evaluate(tip), "3:48 done 1,240 failed 0");
    let said = "document.querySelector('[aria-live]').textContent";
    let said = browser.evaluate(said);
    assert!(
        said.as_str()
            .unwrap()
            .starts_with("3:48. Requests per second: done 1,240, failed 0. Latency"),
        "{said}"
    );
    assert!(
        browser.evaluate(legend).as_str().unwrap().contains("p955.2 ms"),
        "all panels say that moment"
    );
    browser.evaluate("press('Escape')");
    assert_eq!(browser.evaluate(tip), "");

    // The middle of the second panel, and what the first one says of the same moment.
    browser.evaluate(
        "const over = document.querySelectorAll('.u-over')[1], box = over.getBoundingClientRect();
        const at = {clientX: box.left + box.width / 2, clientY: box.top + 20, bubbles: true};
        over.dispatchEvent(new MouseEvent('mouseenter', at));
        over.dispatchEvent(new MouseEvent('mousemove', at));
        new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))",
    );
    let shown = browser.evaluate(tip);
    let shown = shown.as_str().unwrap();
    assert!(shown.starts_with("1:2") || shown.starts_with("1:3"), "{shown}");
    assert!(shown.contains("p50 90 ms") && shown.contains("max 5.76 s"), "{shown}");
    assert!(browser.evaluate(legend).as_str().unwrap().contains("done310"));
    browser.picture(&pages().join("pointed-at.png"));
}

#[test]
fn the_page_says_figures_as_the_tables_do() {
    let plain = [
        -1.5,
        0.0,
        0.0004,
        0.0123,
        0.42,
        2.0,
        3.75,
        75.8,
        99.97,
        999.7,
        2766.0,
        8170.0,
        60_000.0,
        125_200.0,
        3_723_000.0,
        2.363e9,
    ];
    let shares = [0.0, 0.000_001, 0.0004, 0.0509, 0.5, 0.9996, 0.999_99, 1.0];
    let mut browser = Browser::start();
    for (name, language) in [("en", Language::En), ("ko", Language::Ko)] {
        for unit in [Unit::Count, Unit::Millis, Unit::Bytes, Unit::Share] {
            let values: &[f64] = match unit {
                Unit::Share => &shares,
                Unit::Count | Unit::Millis => &plain,
                Unit::Bytes => &plain[1..],
            };
            let panel =
                panel("p", unit, vec![line("l", values.iter().map(|v| Some(*v)).collect(), 0)]);
            let at = (0..values.len()).map(|i| i as f64).collect();
            let document = document(language, vec![Block::Chart(chart(at, vec![panel]))]);
            browser.open(&page(&format!("figures-{name}"), &document), WIDE);
            for value in values {
                let said = browser.evaluate(
                    "document.querySelector('.plots').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
                    document.querySelector('.tip b').textContent",
                );
                assert_eq!(said, unit.say(*value, language), "{unit:?} {value}");
            }
        }
    }
}

#[test]
fn paper_is_light_and_sharp_whatever_the_screen_is() {
    let mut browser = Browser::start();
    let file = page("paper", &everything(Language::En, &str::to_string));
    browser.open(&file, DARK);
    let drawn = "(() => {
        const style = getComputedStyle(document.documentElement);
        const canvas = document.querySelector('canvas');
        return [style.getPropertyValue('--paper').trim(), canvas.width, Math.round(canvas.getBoundingClientRect().width),
            [...window.drawn.get(canvas).colours].includes(style.getPropertyValue('--c0').trim())];
    })()";
    let screen = browser.evaluate(drawn);
    assert_eq!(screen[0], "#14181d", "{screen}");
    // What a browser says before it prints and after.
    browser.evaluate("dispatchEvent(new Event('beforeprint'))");
    assert_eq!(browser.evaluate(drawn), serde_json::json!(["#fff", 1376, 688, true]));
    browser.evaluate("dispatchEvent(new Event('afterprint'))");
    assert_eq!(browser.evaluate(drawn), screen);
    browser.pdf(&file.with_extension("pdf"));
}

#[test]
fn without_scripts_the_tables_remain() {
    let mut browser = Browser::start();
    browser.run_scripts(false);
    browser.open(&page("no-script", &everything(Language::Ko, &str::to_string)), NARROW);
    let said = browser.evaluate("[...document.querySelectorAll('noscript p')].map(e => e.checkVisibility() && e.textContent)");
    assert_eq!(said.as_array().unwrap().len(), 2, "{said}");
    assert!(said[0].as_str().unwrap().contains("JavaScript"), "{said}");
    let rows = browser.evaluate(
        "document.querySelectorAll('canvas').length + ' ' + document.querySelectorAll('#timeline details tbody tr').length",
    );
    assert_eq!(rows, "0 10");
}
