//! Prometheus, Alertmanager, and whom it tells.

use std::time::{Duration, Instant};

use testbed::Workdir;
use testbed::alertmanager::{Alertmanager, Webhook};
use testbed::prometheus::{Prometheus, Scraping};

#[test]
fn an_alert_is_told_and_its_end_too() {
    let directory = Workdir::temporary().unwrap();
    let rules = directory.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    let rule = r#"{"groups": [{"name": "test", "rules": [
        {"alert": "Missing", "expr": "up{job=\"boxoffice\"} == 0"}]}]}"#;
    std::fs::write(rules.join("test.yml"), rule).unwrap();
    let webhook = Webhook::start().unwrap();
    let configuration = serde_json::json!({
        "route": {"receiver": "here", "group_by": ["alertname"], "group_wait": "100ms",
            "group_interval": "1s"},
        "receivers": [{"name": "here",
            "webhook_configs": [{"url": webhook.url(), "send_resolved": true}]}],
    })
    .to_string();
    let at = |name: &str| directory.path().join(name);
    let told = Alertmanager::start(&at("alertmanager"), &configuration, &[]).unwrap();
    // Its own metrics will do.
    let every = Duration::from_millis(500);
    let mut other = Alertmanager::start(&at("other"), &configuration, &[]).unwrap();
    let targets = [format!("127.0.0.1:{}", other.port)];
    let scraping =
        Scraping { targets: &targets, rules: &rules, every, alertmanager: Some(told.port) };
    let prometheus = Prometheus::start(&at("prometheus"), &scraping, &[]).unwrap();
    let up = prometheus.query("up{job=\"boxoffice\"}").unwrap();
    assert_eq!((up.len(), up[0].1, &up[0].0["instance"]), (1, 1.0, &targets[0].clone().into()));
    assert_eq!(prometheus.alerts().unwrap(), []);
    assert!(prometheus.query("up{").unwrap_err().contains("refuses"));

    let wait_for = |what: &str, firing: bool| {
        let until = Instant::now() + Duration::from_secs(60);
        while !webhook.heard().iter().any(|it| it.alerts(firing) == ["Missing"]) {
            assert!(Instant::now() < until, "nobody was told of {what}: {:?}", webhook.heard());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let began = Instant::now();
    other.engine.kill();
    wait_for("the alert", true);
    let alerts = prometheus.alerts().unwrap();
    assert!(alerts.iter().any(|it| it.name == "Missing" && it.fires && it.instance == targets[0]));
    let first = webhook.heard().remove(0);
    assert!(first.at > began && first.authorization.is_empty());
    other.engine.restart().unwrap();
    wait_for("its end", false);
}
