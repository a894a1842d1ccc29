//! Looks at reports in a real browser: headless Chromium, spoken to over its debugging pipe. Behind the
//! feature `external`; where Chromium is missing the test fails and says so.
//!
//! Pictures are left in `target/loadtest-pages` for those who want to look at them.

#![allow(clippy::unwrap_used)] // It is a test, though behind a feature.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{Lang, fixture, html};

/// Seconds that one browser may take for all pages; then it is ended and the test fails.
const MOST_SECONDS: u32 = 240;

struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    last_id: u64,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Browser {
        let program = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
            .into_iter()
            .find(|name| {
                Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
            })
            .expect("chromium is needed to look at the reports, and is not there (Debian: apt-get install chromium)");
        let profile = tempfile::tempdir().unwrap();
        // The pipe is at 3 and 4; a shell puts it there.
        let mut child = Command::new("sh")
            .args([
                "-c",
                r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#,
                "timeout",
                &MOST_SECONDS.to_string(),
                program,
            ])
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
            ])
            .args(["--no-first-run", "--disable-dev-shm-usage", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut browser =
            Browser { child, to, from, last_id: 0, session: String::new(), _profile: profile };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser
            .ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_string();
        browser.ask("Page.enable", json!({}));
        browser
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let to = self.to.as_mut().unwrap();
        to.write_all(message.to_string().as_bytes()).unwrap();
        to.write_all(&[0]).unwrap();
        to.flush().unwrap();
        loop {
            let said = self.next();
            if said["id"] == json!(self.last_id) {
                assert!(said.get("error").is_none(), "{method}: {}", said["error"]);
                return said["result"].clone();
            }
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes).unwrap();
        assert!(bytes.pop() == Some(0), "the browser ended, or took longer than {MOST_SECONDS} s");
        serde_json::from_slice(&bytes).unwrap()
    }

    fn open(&mut self, file: &Path, width: u32, dark: bool, print: bool) {
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if dark { "dark" } else { "light" };
        let media = json!({"media": if print { "print" } else { "" },
            "features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.ask("Emulation.setEmulatedMedia", media);
        self.ask("Page.navigate", json!({"url": format!("file://{}", file.display())}));
        loop {
            if self.next()["method"] == json!("Page.loadEventFired") {
                return;
            }
        }
    }

    fn evaluate(&mut self, script: &str) -> Value {
        let result =
            self.ask("Runtime.evaluate", json!({"expression": script, "returnByValue": true}));
        assert!(result.get("exceptionDetails").is_none(), "{}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    fn picture(&mut self, path: &Path) {
        let shot = self
            .ask("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        fs::write(path, base64(shot["data"].as_str().unwrap())).unwrap();
    }

    fn pdf(&mut self, path: &Path) {
        let printed = self.ask(
            "Page.printToPDF",
            json!({"printBackground": true, "preferCSSPageSize": true,
            "paperWidth": 8.27, "paperHeight": 11.69}),
        );
        fs::write(path, base64(printed["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends when its pipe does.
        self.to = None;
        let _ = self.child.wait();
    }
}

fn base64(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut held) = (0u32, 0);
    for c in text.bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    out
}

/// What is wrong with the page as it is shown: wider than the window, letters that are cut off, that
/// cover each other or that are too small, an empty chart, something fetched from elsewhere.
const FAULTS: &str = r#"(() => {
    const faults = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > innerWidth) faults.push(`the page is ${wide} px wide in a window of ${innerWidth}`);
    const fetched = performance.getEntriesByType('resource').map(r => r.name);
    if (fetched.length) faults.push(`fetched ${fetched}`);
    for (const e of document.querySelectorAll('body *')) {
        if (e.closest('.scroll') || e.closest('svg')) continue;
        const box = e.getBoundingClientRect();
        if (box.width && box.right > innerWidth + 1) faults.push(`${e.tagName} reaches to ${box.right}`);
    }
    let shown = 0;
    for (const svg of document.querySelectorAll('svg')) {
        const frame = svg.getBoundingClientRect();
        if (!frame.width) continue;
        shown += 1;
        const texts = [...svg.querySelectorAll('text')].map(t => ({
            said: t.textContent, box: t.getBoundingClientRect(),
            size: parseFloat(getComputedStyle(t).fontSize) * frame.width / svg.viewBox.baseVal.width }));
        for (const t of texts) {
            if (t.size < 9) faults.push(`"${t.said}" has ${t.size} px in ${svg.querySelector('title').id}`);
            const b = t.box;
            if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
                faults.push(`"${t.said}" is cut off in ${svg.querySelector('title').id}`);
        }
        for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
            const a = texts[i].box, b = texts[j].box;
            const over = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const under = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (over > 1 && under > 4)
                faults.push(`"${texts[i].said}" covers "${texts[j].said}" in ${svg.querySelector('title').id}`);
        }
        if (!svg.querySelector('.line,.dot,.ring')) faults.push('an empty chart');
    }
    return {faults, shown};
})()"#;

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
                browser.open(&file, width, dark, print);
                let found = browser.evaluate(FAULTS);
                for fault in found["faults"].as_array().unwrap() {
                    faults
                        .push(format!("{name}-{language} at {view}: {}", fault.as_str().unwrap()));
                }
                let charts = found["shown"].as_u64().unwrap();
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
