//! Looks at pages in a real browser: headless Chromium, spoken to over its debugging pipe. For tests, behind the
//! feature `external`; where Chromium is missing they fail and say so.

#![allow(clippy::unwrap_used)] // It is for tests, though behind a feature.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// Seconds that one browser may take for all pages; then it is ended and the test fails.
const MOST_SECONDS: u32 = 240;

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// Of the window, in CSS pixels.
    pub width: u32,
    /// Whether the reader likes it dark.
    pub dark: bool,
    /// As on paper.
    pub print: bool,
}

/// What was seen of a page.
#[derive(Debug)]
pub struct Seen {
    /// What is wrong with it.
    pub faults: Vec<String>,
    /// How many charts, each of one or more panels, are drawn.
    pub charts: u64,
}

/// A browser of its own, with a profile of its own; it ends when this is dropped.
pub struct Browser {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    last_id: u64,
    /// Whatever the page asked for since it was opened, itself included.
    requests: Vec<String>,
    scripts: bool,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Returns one that is ready.
    pub fn start() -> Browser {
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
        let mut browser = Browser {
            child,
            to,
            from,
            last_id: 0,
            requests: Vec::new(),
            scripts: true,
            session: String::new(),
            _profile: profile,
        };
        let target = browser.ask("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser
            .ask("Target.attachToTarget", json!({"targetId": target["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().unwrap().to_string();
        browser.ask("Page.enable", json!({}));
        browser.ask("Network.enable", json!({}));
        browser.ask("Page.addScriptToEvaluateOnNewDocument", json!({"source": LISTENER}));
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
        let said: Value = serde_json::from_slice(&bytes).unwrap();
        if said["method"] == json!("Network.requestWillBeSent") {
            self.requests.push(said["params"]["request"]["url"].as_str().unwrap().to_string());
        }
        said
    }

    /// Opens a file, and waits until it has been drawn.
    pub fn open(&mut self, file: &Path, view: View) {
        let View { width, dark, print } = view;
        self.requests.clear();
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
                break;
            }
        }
        if self.scripts {
            // Two frames later sizes have been settled, and what depends on them has been drawn.
            self.evaluate(
                "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))",
            );
        }
    }

    /// Returns what is wrong with the page that is open.
    pub fn look(&mut self) -> Seen {
        let found = self.evaluate(FAULTS);
        let mut faults: Vec<String> = found["faults"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault.as_str().unwrap().to_string())
            .collect();
        // The file itself is the only thing that is asked for.
        if self.requests.len() != 1 {
            faults.push(format!("asked for {:?}", self.requests));
        }
        Seen { faults, charts: found["charts"].as_u64().unwrap() }
    }

    /// Switches JavaScript on or off for pages that are opened from now on.
    pub fn run_scripts(&mut self, on: bool) {
        self.scripts = on;
        self.ask("Emulation.setScriptExecutionDisabled", json!({"value": !on}));
    }

    /// Returns the value of a script in the page; a promise is waited for.
    pub fn evaluate(&mut self, script: &str) -> Value {
        let result = self.ask(
            "Runtime.evaluate",
            json!({"expression": script, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(result.get("exceptionDetails").is_none(), "{}", result["exceptionDetails"]);
        result["result"]["value"].clone()
    }

    /// Writes a picture of the whole page.
    pub fn picture(&mut self, path: &Path) {
        let shot = self
            .ask("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        fs::write(path, base64(shot["data"].as_str().unwrap())).unwrap();
    }

    /// Prints the page into a file.
    pub fn pdf(&mut self, path: &Path) {
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

/// Runs before a page does, and keeps what is written and drawn on each canvas: letters there are no elements that
/// could be looked at. What is cleared is forgotten.
const LISTENER: &str = r#"(() => {
    const drawn = window.drawn = new Map();
    const of = canvas => drawn.get(canvas) ?? drawn.set(canvas, {texts: [], colours: new Set()}).get(canvas);
    const pen = CanvasRenderingContext2D.prototype;
    const {fillText, clearRect, stroke} = pen;
    pen.clearRect = function (...box) { drawn.delete(this.canvas); return clearRect.apply(this, box); };
    pen.stroke = function (...path) { of(this.canvas).colours.add(this.strokeStyle); return stroke.apply(this, path); };
    pen.fillText = function (said, x, y) {
        if (String(said).trim()) {
            const m = this.measureText(said), t = this.getTransform();
            of(this.canvas).texts.push({said, size: parseFloat(/([\d.]+)px/.exec(this.font)[1]),
                left: t.e + x - m.actualBoundingBoxLeft, right: t.e + x + m.actualBoundingBoxRight,
                top: t.f + y - m.actualBoundingBoxAscent, bottom: t.f + y + m.actualBoundingBoxDescent});
        }
        return fillText.call(this, said, x, y);
    };
})()"#;

/// What is wrong with the page as it is shown: wider than the window, letters that are cut off, that
/// cover each other or that are too small, an empty chart.
const FAULTS: &str = r#"(() => {
    const faults = [];
    const wide = document.documentElement.scrollWidth;
    if (wide > innerWidth) faults.push(`the page is ${wide} px wide in a window of ${innerWidth}`);
    const fetched = performance.getEntriesByType('resource').map(r => r.name);
    if (fetched.length) faults.push(`fetched ${fetched}`);
    for (const e of document.querySelectorAll('body *')) {
        if (e.closest('.scroll') || e.closest('.u-wrap')) continue;
        const box = e.getBoundingClientRect();
        if (box.width && box.right > innerWidth + 1) faults.push(`${e.tagName} reaches to ${box.right}`);
    }
    const style = getComputedStyle(document.documentElement);
    // As the canvas writes them.
    const written = colour => { const pen = document.createElement('canvas').getContext('2d'); pen.strokeStyle = colour; return pen.strokeStyle; };
    const colours = [0, 1, 2, 3, 4, 5, 6].map(i => written(style.getPropertyValue(`--c${i}`).trim()));
    let charts = 0;
    for (const figure of document.querySelectorAll('figure.chart')) {
        const panels = [...figure.querySelectorAll('.uplot')];
        if (!panels.length) faults.push(`nothing is drawn in ${figure.id}`);
        charts += 1;
        for (const panel of panels) {
            const where = `${figure.id}, ${panel.querySelector('.u-title').textContent.slice(0, 40)}`;
            const canvas = panel.querySelector('canvas');
            const {texts, colours: used} = window.drawn.get(canvas) ?? {texts: [], colours: new Set()};
            const scale = canvas.getBoundingClientRect().width / canvas.width;
            if (!colours.some(colour => used.has(colour))) faults.push(`no line in ${where}`);
            if (texts.length < 3) faults.push(`only ${texts.length} texts in ${where}`);
            for (const t of texts) {
                if (t.size * scale < 9) faults.push(`"${t.said}" has ${t.size * scale} px in ${where}`);
                if (t.left < -1 || t.right > canvas.width + 1 || t.top < -1 || t.bottom > canvas.height + 1)
                    faults.push(`"${t.said}" is cut off in ${where}`);
            }
            for (let i = 0; i < texts.length; i++) for (let j = i + 1; j < texts.length; j++) {
                const a = texts[i], b = texts[j];
                const over = Math.min(a.right, b.right) - Math.max(a.left, b.left);
                const under = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
                if (over > 1 && under > 2) faults.push(`"${a.said}" covers "${b.said}" in ${where}`);
            }
        }
    }
    return {faults, charts};
})()"#;
