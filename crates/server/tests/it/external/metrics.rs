//! The metrics as Prometheus itself judges them.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{TestService, get, pay};

/// What `promtool check metrics` has to say.
fn judged(text: &[u8]) -> String {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing; `scripts/tools promtool` gets it");
    promtool.stdin.take().unwrap().write_all(text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&said), if output.status.success() { "" } else { "!" })
}

#[tokio::test]
async fn promtool_has_nothing_to_say_of_the_metrics() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    service.charge(1, 100).await;
    let token = service.admitted(1).await;
    let mut client = service.client();
    let held = client.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    client.send(pay(&token, 1, held["reservationId"].as_i64().unwrap())).await.ok(201);
    service.audit().await;
    for path in ["/metrics", "/actuator/prometheus"] {
        let reply = client.send(get(path)).await;
        assert_eq!(judged(&reply.body), "", "{path}");
    }
    // It does find things.
    assert!(judged(b"# TYPE a counter\na 1\n").contains("_total"));
    let ask = client.send(get("/metrics").header("Accept", "application/openmetrics-text")).await;
    assert!(judged(&ask.body).contains("unknown metric type"));
    service.finish().await;
}
