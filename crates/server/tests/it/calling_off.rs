//! A session is called off while the service is killed: everybody is refunded, once.

use std::time::{Duration, Instant};

use boxoffice::app::limits;
use boxoffice_backends::store::{Charge, Pay, Reserve, TicketRef};
use boxoffice_domain::ids::{ConcertId, SeatId, SessionId, TicketId, UserId};
use serde_json::Value;

use crate::common::{ADMIN, OnSale, TestService};
use crate::program::{Client, Server, run};

/// Reservations that are paid; as many as this says where somebody wants figures.
fn buyers() -> i64 {
    std::env::var("BOXOFFICE_TEST_BUYERS").map_or(1_500, |count| count.parse().unwrap())
}

const PRICE: i64 = 7;

/// Has so many people buy a seat each, as fast as the store sells.
async fn sell(service: &TestService, hall: &OnSale, buyers: i64) {
    let app = service.running().app();
    let queue = app.default_queue.clone();
    let one = |by: i64| {
        let (app, queue) = (app.clone(), queue.clone());
        let seats = vec![SeatId::new(hall.seat(by)).unwrap()];
        let concert = ConcertId::new(hall.concert).unwrap();
        let session = SessionId::new(hall.session).unwrap();
        async move {
            let (user, now) = (UserId::new(by).unwrap(), app.clock.now());
            let id = TicketId(u128::from(by.unsigned_abs()).to_be_bytes());
            let ticket = TicketRef { queue, seq: 0, id };
            let charge = Charge { user, amount: PRICE, idempotency: None, now };
            app.store.charge(charge).await.unwrap();
            let reserve = Reserve {
                user,
                ticket: ticket.clone(),
                ticket_over: false,
                concert,
                session,
                seats,
                best: None,
                beside: Vec::new(),
                limits: limits(&app.config),
                release_delay: Duration::ZERO,
                idempotency: None,
                now,
            };
            let reservation = app.store.reserve(reserve).await.unwrap().value.id;
            let now = app.clock.now();
            let pay = Pay { user, ticket, reservation, idempotency: None, now };
            app.store.pay(pay).await.unwrap();
        }
    };
    let everybody: Vec<i64> = (1..=buyers).collect();
    for some in everybody.chunks(500) {
        let tasks: Vec<_> = some.iter().map(|by| tokio::spawn(one(*by))).collect();
        for task in tasks {
            task.await.unwrap();
        }
    }
}

fn progress(client: &mut Client, method: &str, path: &str) -> (i64, i64) {
    let admin = format!("Bearer {ADMIN}");
    let answer = client.send(method, path, &[("Authorization", &admin)], None).unwrap();
    let body: Value = answer.expect(200).json();
    let session = &body["sessions"][0];
    (session["refunded"].as_i64().unwrap(), session["left"].as_i64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_refunded_once_over_a_kill() {
    let buyers = buyers();
    let service = TestService::start().await;
    let hall = service.concert(u32::try_from(buyers).unwrap(), PRICE).await;
    let other = service.concert(5, PRICE).await;
    sell(&service, &hall, buyers).await;
    let config = service.config.clone();
    let directory = service.end_well().await;
    let data = config.data_dir.clone();
    let settings = match config.store.mysql.url.as_ref().map(|url| url.expose().to_owned()) {
        Some(url) => vec![format!("store.mysql.url={url}"), "store.kind=mysql".to_owned()],
        None => Vec::new(),
    };
    let mut arguments = vec!["--no-demo".to_owned()];
    arguments.extend(["--set".to_owned(), format!("admin.token={ADMIN}")]);
    arguments.extend(settings.iter().flat_map(|set| ["--set".to_owned(), set.clone()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let store: Vec<&str> = settings.iter().flat_map(|set| ["--set", set.as_str()]).collect();

    // What blocks is not for the threads of the runtime.
    let work = move |arguments: Vec<String>, store: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let path = format!("/admin/v1/concerts/{}/cancel", hall.concert);
        let mut server = Server::start(&data, &arguments);
        let mut client = server.client();
        let began = Instant::now();
        let (_, left) = progress(&mut client, "POST", &path);
        assert!(left > buyers / 2, "{left} left at once");
        let killed_at = loop {
            let (refunded, left) = progress(&mut client, "GET", &path);
            if refunded > buyers / 5 {
                assert!(left > 0, "it was over before the kill");
                break refunded;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        server.kill();
        let before = began.elapsed();
        let server = Server::start(&data, &arguments);
        let mut client = server.client();
        let again = Instant::now();
        // Asked again, it is the same.
        progress(&mut client, "POST", &path);
        loop {
            let (refunded, left) = progress(&mut client, "GET", &path);
            assert!(refunded >= killed_at && refunded <= buyers);
            if left == 0 {
                assert_eq!(refunded, buyers);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!(
            "{buyers} payments: {killed_at} refunded {:.1} s after calling off, killed, the others \
             {:.1} s after the restart",
            before.as_secs_f64(),
            again.elapsed().as_secs_f64(),
        );
        for user in [1, buyers / 2, buyers] {
            let path = format!("/api/v1/users/{user}/points");
            let answer = client.send("GET", &path, &[], None).unwrap().expect(200).json();
            assert_eq!(answer["totalAmount"], PRICE, "user {user}");
        }
        let path = format!("/admin/v1/concerts/{}/cancel", other.concert);
        let admin = format!("Bearer {ADMIN}");
        let answer = client.send("GET", &path, &[("Authorization", &admin)], None).unwrap();
        assert_eq!(answer.expect(200).json()["sessions"], serde_json::json!([]));
        server.stop();
        let mut audit = vec!["audit"];
        audit.extend(store.iter().map(String::as_str));
        let report = run(&data, &audit).ok();
        assert!(report.contains("audit: clean"), "{report}");
    };
    let arguments = arguments.into_iter().map(str::to_owned).collect();
    let store = store.into_iter().map(str::to_owned).collect();
    tokio::task::spawn_blocking(move || work(arguments, store)).await.unwrap();
    drop(directory);
}
