//! The real widget, in a real browser, on a page of another origin: it takes our challenges, and we take its
//! solutions.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use boxoffice::config::ChallengeMode;
use boxoffice::http::problem::ErrorCode;
use serde_json::{Value, json};

use crate::common::{TestService, post};
use crate::program::Killed;

/// Pages with the widget.
struct Pages {
    _process: Killed,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    origin: String,
}

impl Pages {
    fn start() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut node = Command::new("node");
        node.arg(root.join("scripts/lib/widget.mjs")).arg(root.join(".tools/altcha"));
        node.arg("chromium").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(node.spawn().expect("node: see scripts/tools"));
        let input = process.0.stdin.take().unwrap();
        let output = BufReader::new(process.0.stdout.take().unwrap());
        let mut pages = Self { _process: process, input, output, origin: String::new() };
        pages.origin = pages.line();
        pages
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the pages have ended: see scripts/tools altcha chromium");
        line.trim().to_owned()
    }

    /// Opens a page with this version of the widget, and returns what came of it.
    fn open(mut self, version: u32, service: &str) -> (Self, Value) {
        writeln!(self.input, "{version} {service}").unwrap();
        let said = self.line();
        let said = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
        (self, said)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_joins_by_the_real_widget() {
    let mut pages = Pages::start();
    let origin = pages.origin.clone();
    let service = TestService::start_with(|config| {
        config.challenge.mode = ChallengeMode::On;
        config.challenge.maxnumber_min = 5_000;
        config.server.cors_origins = vec![origin];
    })
    .await;
    let url = format!("http://{}", service.address());
    for version in [2, 3] {
        let at = url.clone();
        let opened = tokio::task::spawn_blocking(move || pages.open(version, &at));
        let (back, said) = opened.await.unwrap();
        pages = back;
        assert_eq!(said["status"], 201, "version {version}: {said}");
        assert_eq!(said["body"]["status"], "WAITING", "{said}");
        let again = json!({"userId": 17, "altcha": said["altcha"]});
        let again = service.send(post("/api/v1/waiting-queues").json(again)).await;
        again.refused(ErrorCode::ChallengeUsed);
    }
    service.finish().await;
}
