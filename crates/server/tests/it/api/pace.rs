//! Fans who do as they are told: when they hear of their turn, and how long they were told it takes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{Client, FUTURE, TestService, delete, get, join, status, until};

/// Fans with their tickets, and when each is to poll next.
struct Crowd {
    client: Client,
    tokens: Vec<String>,
    polls: BinaryHeap<Reverse<(Instant, usize)>>,
    /// How many polls were answered in each tenth of a second.
    answered: Vec<Instant>,
    /// What each was told last, while waiting.
    told: Vec<Value>,
}

impl Crowd {
    async fn join(service: &TestService, count: usize) -> Self {
        let mut crowd = Self {
            client: service.client(),
            tokens: Vec::new(),
            polls: BinaryHeap::new(),
            answered: Vec::new(),
            told: Vec::new(),
        };
        for fan in 0..count {
            let joined = crowd.client.send(join(1 + fan as i64)).await.ok(201);
            crowd.tokens.push(joined["token"].as_str().unwrap().to_owned());
            crowd.told.push(joined);
            crowd.asks_again(fan);
        }
        crowd
    }

    fn asks_again(&mut self, fan: usize) {
        let after = Duration::from_millis(self.told[fan]["pollAfterMs"].as_u64().unwrap());
        self.polls.push(Reverse((Instant::now() + after, fan)));
    }

    /// All poll as they are told until `until`. Returns who was let in, and how much later they heard of
    /// it.
    async fn poll(&mut self, until: Instant) -> Vec<(usize, Duration)> {
        let mut heard = Vec::new();
        while let Some(Reverse((at, fan))) = self.polls.pop() {
            if at > until {
                self.polls.push(Reverse((at, fan)));
                break;
            }
            tokio::time::sleep_until(at.into()).await;
            let place = self.client.send(status(&self.tokens[fan])).await.ok(200);
            self.answered.push(Instant::now());
            match place["status"].as_str().unwrap() {
                "WAITING" => {
                    self.told[fan] = place;
                    self.asks_again(fan);
                }
                "ACTIVATED" => {
                    let until: jiff::Timestamp =
                        place["activeUntil"].as_str().unwrap().parse().unwrap();
                    let let_in = until - Duration::from_secs(300);
                    let late = jiff::Timestamp::now().duration_since(let_in);
                    heard.push((fan, late.unsigned_abs()));
                }
                other => panic!("{other}"),
            }
        }
        heard
    }

    fn longest_interval_ms(&self) -> u64 {
        self.told.iter().map(|told| told["pollAfterMs"].as_u64().unwrap()).max().unwrap()
    }
}

#[tokio::test]
async fn who_does_as_told_hears_within_the_claim_window_and_the_bound_holds() {
    let service = TestService::start_with(|config| config.queue.claim_window_seconds = 6).await;
    service.change_queue("main", json!({"admitPerSecond": 50, "maxActive": 20})).await;
    service.pause("main").await;
    let mut crowd = Crowd::join(&service, 60).await;
    assert!(crowd.longest_interval_ms() <= 2_000, "{}", crowd.longest_interval_ms());
    assert!(crowd.told.iter().all(|told| told["etaSeconds"].is_null()), "nobody knows when");
    crowd.poll(Instant::now() + Duration::from_millis(500)).await;
    service.resume("main").await;

    let mut heard = Vec::new();
    for second in 0..12 {
        heard.extend(crowd.poll(Instant::now() + Duration::from_secs(1)).await);
        let list = crowd.client.send(get("/admin/v1/queues").admin()).await.ok(200);
        let queue = &list["queues"][0];
        assert!(queue["active"].as_u64().unwrap() <= 20, "after {second} s: {queue}");
    }
    assert_eq!(heard.len(), 20, "{heard:?}");
    // An interval, and what it takes on a busy machine.
    assert!(heard.iter().all(|(_, late)| *late < Duration::from_secs(4)), "{heard:?}");
    // Nobody of those inside has gone: the others are not told a second.
    assert!(crowd.told[59]["etaSeconds"].is_null(), "{}", crowd.told[59]);

    // Those who are next are told how long it takes once it is known how long people stay.
    for (fan, _) in &heard {
        let token = crowd.tokens[*fan].clone();
        crowd.client.send(delete("/api/v1/waiting-queues").token(&token)).await.empty(204);
    }
    heard = crowd.poll(Instant::now() + Duration::from_secs(4)).await;
    assert_eq!(heard.len(), 20);
    assert!(crowd.told[59]["etaSeconds"].as_u64().unwrap() > 1, "{}", crowd.told[59]);
    service.finish().await;
}

#[tokio::test]
async fn an_opening_is_heard_of_at_once_and_is_no_burst() {
    let service = TestService::start_with(|config| config.queue.claim_window_seconds = 15).await;
    let opens = jiff::Timestamp::now() + Duration::from_secs(8);
    service
        .change_queue("main", json!({"admitPerSecond": 300, "opensAt": opens.to_string()}))
        .await;
    let mut crowd = Crowd::join(&service, 100).await;
    assert!(crowd.told.iter().all(|told| told["etaSeconds"].as_u64().unwrap() <= 9));
    let begun = Instant::now();
    let mut heard = Vec::new();
    while heard.len() < 100 {
        heard.extend(crowd.poll(Instant::now() + Duration::from_millis(500)).await);
        assert!(crowd.longest_interval_ms() <= 5_000);
        assert!(begun.elapsed() < Duration::from_secs(30), "{} heard", heard.len());
    }
    assert!(heard.iter().all(|(_, late)| *late < Duration::from_secs(7)), "{heard:?}");
    // All joined at the same moment, and would poll in step if they were told the same interval.
    let after = crowd.answered.iter().filter(|at| at.duration_since(begun).as_secs() >= 8);
    let mut seconds = std::collections::BTreeMap::new();
    for at in after {
        *seconds.entry(at.duration_since(begun).as_secs()).or_insert(0) += 1;
    }
    assert!(seconds.values().all(|polls| *polls <= 60), "{seconds:?}");
    service.finish().await;
}

#[tokio::test]
async fn an_opening_that_is_moved_forward_is_heard_of_within_a_third_of_the_claim_window() {
    let service = TestService::start_with(|config| config.queue.claim_window_seconds = 6).await;
    service.change_queue("main", json!({"opensAt": FUTURE})).await;
    let mut crowd = Crowd::join(&service, 20).await;
    assert!(crowd.told[0]["etaSeconds"].as_u64().unwrap() > 3_600);
    assert!(crowd.longest_interval_ms() <= 2_000);
    service.change_queue("main", json!({"opensAt": null})).await;
    let heard = crowd.poll(Instant::now() + Duration::from_secs(4)).await;
    assert_eq!(heard.len(), 20);
    service.finish().await;
}

#[tokio::test]
async fn how_promises_turn_out_is_a_metric() {
    let service = TestService::start().await;
    service.change_queue("main", json!({"admitPerSecond": 5})).await;
    let mut crowd = Crowd::join(&service, 20).await;
    let sample = async |client: &mut Client, name: &str| {
        let text = client.send(get("/metrics")).await;
        let text = String::from_utf8(text.body.clone()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    crowd.poll(Instant::now() + Duration::from_secs(5)).await;
    let mut client = service.client();
    until("promises", async || {
        let made = sample(&mut client, "boxoffice_queue_eta_ratio_count{queue=\"main\"}").await;
        (made >= 5.0).then_some(())
    })
    .await;
    let made = sample(&mut client, "boxoffice_queue_eta_ratio_count{queue=\"main\"}").await;
    let kept = sample(&mut client, "boxoffice_queue_eta_kept_total{queue=\"main\"}").await;
    assert!(kept > 0.0 && kept <= made, "{kept} of {made}");
    service.finish().await;
}
