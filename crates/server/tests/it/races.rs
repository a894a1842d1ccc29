//! What happens at once: one seat for five hundred, money in two directions, a payment against the
//! end of its hold, and clients that hang up half-way.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use boxoffice::http::problem::ErrorCode;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::common::{
    self, Call, OnSale, Reply, TestService, charge, get, join, pay, post, seat_states, status,
    until,
};

/// Sends all calls at the same moment, each over a connection of its own that is open before.
async fn at_once(service: &TestService, calls: Vec<Call>) -> Vec<Reply> {
    let barrier = Arc::new(Barrier::new(calls.len()));
    let mut tasks = JoinSet::new();
    for (index, call) in calls.into_iter().enumerate() {
        let mut client = service.client();
        let barrier = barrier.clone();
        tasks.spawn(async move {
            client.connect().await;
            barrier.wait().await;
            (index, client.send(call).await)
        });
    }
    let mut replies = tasks.join_all().await;
    replies.sort_by_key(|(index, _)| *index);
    replies.into_iter().map(|(_, reply)| reply).collect()
}

/// How many answers there are of each status.
fn statuses(replies: &[Reply]) -> HashMap<u16, usize> {
    let mut counts = HashMap::new();
    for reply in replies {
        *counts.entry(reply.status).or_default() += 1;
    }
    counts
}

async fn issue(service: &TestService, count: u32, format: &str) {
    let ask = json!({"count": count, "format": format, "activated": true, "guessable": true});
    service.send(post("/admin/v1/tokens").admin().json(ask)).await.ok(201);
}

async fn held(service: &TestService, hall: &OnSale, token: &str, user: i64, seats: &[i64]) -> i64 {
    let held = service.send(hall.reserve(token, user, seats)).await.ok(201);
    held["reservationId"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_hundred_buyers_one_gets_the_seat() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    issue(&service, 500, "buyer-{n}").await;
    // Without a key most are refused from memory; with one, all five hundred go to the store.
    for (seat, keyed) in [(1, false), (2, true)] {
        let calls = (1..=500)
            .map(|user| {
                let call = hall.reserve(&format!("buyer-{user}"), user, &[seat]);
                if keyed { call.key("one-try") } else { call }
            })
            .collect();
        let replies = at_once(&service, calls).await;
        assert_eq!(statuses(&replies), HashMap::from([(201, 1), (409, 499)]));
        for reply in replies.iter().filter(|reply| reply.status == 409) {
            reply.refused(ErrorCode::SeatTaken);
        }
    }
    let token = service.token(501).await;
    let list = service.send(hall.seats(&token)).await.ok(200);
    let taken = seat_states(&list).into_values().filter(|state| state != "AVAILABLE").count();
    assert_eq!(taken, 2);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_buyers_of_a_hundred_seats_sell_it_out_and_no_more() {
    let service = TestService::start().await;
    let hall = service.concert(100, 0).await;
    issue(&service, 500, "buyer-{n}").await;
    let calls = (1..=500)
        .map(|user| hall.reserve(&format!("buyer-{user}"), user, &[1 + user % 100]))
        .collect();
    let replies = at_once(&service, calls).await;
    assert_eq!(statuses(&replies), HashMap::from([(201, 100), (409, 400)]));
    let payments = replies
        .iter()
        .enumerate()
        .filter(|(_, reply)| reply.status == 201)
        .map(|(index, reply)| {
            let user = index as i64 + 1;
            let reservation = reply.value()["reservationId"].as_i64().unwrap();
            pay(&format!("buyer-{user}"), user, reservation)
        })
        .collect();
    let replies = at_once(&service, payments).await;
    assert_eq!(statuses(&replies), HashMap::from([(201, 100)]));
    until("the end of the sale", async || {
        (service.queue("main").await["state"] == "SOLD_OUT").then_some(())
    })
    .await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charges_at_once_all_count() {
    let service = TestService::start().await;
    for user in 1..=10 {
        let replies = at_once(&service, vec![charge(user, 100); 5]).await;
        let mut totals: Vec<i64> =
            replies.iter().map(|reply| reply.ok(200)["totalAmount"].as_i64().unwrap()).collect();
        totals.sort_unstable();
        assert_eq!(totals, [100, 200, 300, 400, 500]);
        // Under one key they are one charge, answered or told to wait.
        let replies = at_once(&service, vec![charge(user, 7).key("one"); 5]).await;
        for reply in &replies {
            match reply.status {
                200 => assert_eq!(reply.value()["totalAmount"], 507),
                _ => drop(reply.refused(ErrorCode::IdempotencyInFlight)),
            }
        }
        assert!(statuses(&replies).contains_key(&200));
        assert_eq!(service.balance(user).await, 507);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charge_and_payment_at_once_lose_no_points() {
    let service = TestService::start().await;
    let hall = service.concert(40, 1_000).await;
    for user in 1..=20 {
        let token = service.token(user).await;
        // Every other user can pay only if the charge comes first.
        let before = if user % 2 == 0 { 1_500 } else { 600 };
        service.charge(user, before).await;
        let reservation = held(&service, &hall, &token, user, &[user]).await;
        let calls = vec![charge(user, 500), pay(&token, user, reservation)];
        let replies = at_once(&service, calls).await;
        replies[0].ok(200);
        let spent = match replies[1].status {
            201 => 1_000,
            _ => {
                assert_eq!(before, 600);
                replies[1].refused(ErrorCode::NotEnoughPoints);
                0
            }
        };
        assert_eq!(service.balance(user).await, before + 500 - spent);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_payments_at_once_one_succeeds() {
    let service = TestService::start_with(|config| config.sales.live_holds_max = 3).await;
    let hall = service.concert(200, 10).await;
    for user in 1..=10 {
        service.charge(user, 1_000).await;
        // Three times the same reservation.
        let token = service.token(user).await;
        let reservation = held(&service, &hall, &token, user, &[user]).await;
        let replies = at_once(&service, vec![pay(&token, user, reservation); 3]).await;
        assert_eq!(statuses(&replies), HashMap::from([(201, 1), (409, 2)]));
        for reply in replies.iter().filter(|reply| reply.status == 409) {
            reply.refused(ErrorCode::AlreadyPaid);
        }
        // Three reservations with one ticket, which pays once.
        let token = service.token(user).await;
        let mut calls = Vec::new();
        for offset in 1..=3 {
            let seat = 20 + user * 3 + offset;
            let reservation = held(&service, &hall, &token, user, &[seat]).await;
            calls.push(pay(&token, user, reservation));
        }
        let replies = at_once(&service, calls).await;
        assert_eq!(statuses(&replies), HashMap::from([(201, 1), (403, 2)]));
        for reply in replies.iter().filter(|reply| reply.status == 403) {
            reply.refused(ErrorCode::TokenSpent);
        }
        assert_eq!(service.balance(user).await, 980);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_at_once_is_one_reservation_and_one_payment() {
    let service = TestService::start().await;
    let hall = service.concert(10, 10).await;
    service.charge(1, 1_000).await;
    let token = service.token(1).await;
    let agreed_answer = async |call: Call, what: &str| {
        let replies = at_once(&service, vec![call.clone(); 8]).await;
        let mut answers: Vec<serde_json::Value> = Vec::new();
        for reply in &replies {
            match reply.status {
                201 => answers.push(reply.value()),
                _ => drop(reply.refused(ErrorCode::IdempotencyInFlight)),
            }
        }
        assert!(!answers.is_empty(), "{what}");
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{what}: {answers:?}");
        answers.swap_remove(0)
    };
    let answer = agreed_answer(hall.reserve(&token, 1, &[1, 2]).key("reserve"), "reserve").await;
    let reservation = answer["reservationId"].as_i64().unwrap();
    agreed_answer(pay(&token, 1, reservation).key("pay"), "pay").await;
    assert_eq!(service.balance(1).await, 980);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_many_tickets_has_no_more_seats_than_allowed() {
    let service = TestService::start().await;
    let hall = service.concert(40, 10).await;
    for user in 1..=5 {
        let mut calls = Vec::new();
        for index in 0..4 {
            let token = service.token(user).await;
            let first = (user - 1) * 8 + index * 2 + 1;
            calls.push(hall.reserve(&token, user, &[first, first + 1]));
        }
        let replies = at_once(&service, calls).await;
        assert_eq!(statuses(&replies), HashMap::from([(201, 2), (409, 2)]));
        for reply in replies.iter().filter(|reply| reply.status == 409) {
            reply.refused(ErrorCode::SeatLimitReached);
        }
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_paying_and_giving_back_one_happens() {
    let service = TestService::start().await;
    let hall = service.concert(40, 10).await;
    for user in 1..=20 {
        service.charge(user, 10).await;
        let token = service.token(user).await;
        let reservation = held(&service, &hall, &token, user, &[user]).await;
        let path = format!("/api/v1/reservations/{reservation}");
        let leave = common::delete("/api/v1/waiting-queues").token(&token);
        let back = common::delete(path.as_str()).token(&token);
        let mut calls = vec![pay(&token, user, reservation)];
        calls.push(if user % 2 == 0 { back } else { leave });
        let replies = at_once(&service, calls).await;
        let paid = replies[0].status == 201;
        assert_eq!(service.balance(user).await, if paid { 0 } else { 10 });
        let shown = service.send(get(path).token(&token)).await.ok(200);
        if user % 2 == 0 {
            if paid {
                replies[1].refused(ErrorCode::AlreadyPaid);
            } else {
                replies[0].refused(ErrorCode::HoldCancelled);
                replies[1].empty(204);
            }
            assert_eq!(shown["status"], if paid { "PAID" } else { "CANCELLED" });
        } else {
            // Who leaves has left, whether the payment came before or after.
            replies[1].empty(204);
            if !paid {
                replies[0].refused(ErrorCode::TokenSpent);
            }
            assert_eq!(shown["status"], if paid { "PAID" } else { "HELD" });
            let place = service.send(status(&token)).await.ok(200);
            assert_eq!(place["status"], "EXPIRED");
        }
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_end_of_a_hold_either_the_payment_or_the_next_buyer_wins() {
    const ROUNDS: i64 = 40;
    let service = Arc::new(TestService::start_with(|config| config.sales.hold_seconds = 1).await);
    let hall = service.concert(ROUNDS as u32, 10).await;
    let mut rounds = JoinSet::new();
    for round in 1..=ROUNDS {
        let (service, hall) = (service.clone(), hall.clone());
        rounds.spawn(async move {
            let (holder, rival) = (round, 1_000 + round);
            service.charge(holder, 100).await;
            service.charge(rival, 100).await;
            let (mine, theirs) = (service.token(holder).await, service.token(rival).await);
            let (mut one, mut two) = (service.client(), service.client());
            one.connect().await;
            two.connect().await;
            let made = service.send(hall.reserve(&mine, holder, &[round])).await.ok(201);
            let reservation = made["reservationId"].as_i64().unwrap();
            let end: jiff::Timestamp = made["expiresAt"].as_str().unwrap().parse().unwrap();
            // The very moment is what this is about, so here a time is waited for. Most rounds
            // aim at a few milliseconds around it, some are well before it on any machine.
            let aim_ms = [-300, -20, -8, -4, -2, -1, 0, 1, 3, 6][round as usize % 10];
            let moment = end + jiff::SignedDuration::from_millis(aim_ms);
            let wait = moment.duration_since(jiff::Timestamp::now());
            tokio::time::sleep(Duration::try_from(wait).unwrap_or_default()).await;
            let (payment, next) = tokio::join!(
                one.send(pay(&mine, holder, reservation)),
                two.send(hall.reserve(&theirs, rival, &[round])),
            );
            if payment.status == 201 {
                next.refused(ErrorCode::SeatTaken);
                let again = two.send(hall.reserve(&theirs, rival, &[round])).await;
                again.refused(ErrorCode::SeatTaken);
                assert_eq!(service.balance(holder).await, 90);
                return true;
            }
            payment.refused(ErrorCode::HoldExpired);
            assert_eq!(service.balance(holder).await, 100);
            // The rival may have been early and the holder late; then the seat is free by now.
            let taken = if next.status == 201 {
                next
            } else {
                next.refused(ErrorCode::SeatTaken);
                two.send(hall.reserve(&theirs, rival, &[round])).await
            };
            taken.ok(201);
            let reservation = taken.value()["reservationId"].as_i64().unwrap();
            two.send(pay(&theirs, rival, reservation)).await.ok(201);
            false
        });
    }
    let paid = rounds.join_all().await.into_iter().filter(|paid| *paid).count();
    let token = service.token(1).await;
    until("all to be sold", async || {
        let list = service.send(hall.seats(&token)).await.ok(200);
        seat_states(&list).values().all(|state| state == "CONFIRMED").then_some(())
    })
    .await;
    // Both must have happened, or this has tested nothing.
    assert!(paid > 0 && paid < ROUNDS as usize, "{paid} holders were in time");
    Arc::into_inner(service).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_began_in_time_and_ends_late_takes_nobodys_seat() {
    let service = TestService::start_with(|config| config.sales.hold_seconds = 1).await;
    let hall = service.concert(10, 10).await;
    for round in 1..=3 {
        let (holder, rival) = (round, 1_000 + round);
        service.charge(holder, 100).await;
        service.charge(rival, 100).await;
        let (mine, theirs) = (service.token(holder).await, service.token(rival).await);
        let reservation = held(&service, &hall, &mine, holder, &[round]).await;
        // The head and the first half of the body while the hold is good …
        let call = pay(&mine, holder, reservation);
        let bytes = call.to_bytes();
        let (first, second) = bytes.split_at(bytes.len() - 10);
        let mut slow = service.client();
        slow.write(first).await.unwrap();
        // … the rest as soon as another buyer has the seat.
        let mut fan = service.client();
        let taken = until("the seat", async || {
            let reply = fan.send(hall.reserve(&theirs, rival, &[round])).await;
            (reply.status == 201).then_some(reply)
        })
        .await;
        slow.write(second).await.unwrap();
        slow.answer(&call).await.refused(ErrorCode::HoldExpired);
        assert_eq!(service.balance(holder).await, 100);
        let reservation = taken.value()["reservationId"].as_i64().unwrap();
        fan.send(pay(&theirs, rival, reservation)).await.ok(201);
        assert_eq!(service.balance(rival).await, 90);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_client_hung_up_memory_and_store_agree() {
    const USERS: i64 = 60;
    let service = TestService::start().await;
    let hall = service.concert(USERS as u32, 10).await;
    let mut buyers = Vec::new();
    for user in 1..=USERS {
        service.charge(user, 100).await;
        // Signed tickets are in the line, opaque ones beside it: both must follow.
        let token =
            if user % 2 == 0 { service.token(user).await } else { service.admitted(user).await };
        let reservation = held(&service, &hall, &token, user, &[user]).await;
        buyers.push((user, token, reservation));
    }
    let mut attempts = JoinSet::new();
    for (user, token, reservation) in &buyers {
        let mut client = service.client();
        let mut call = pay(token, *user, *reservation);
        if user % 3 == 0 {
            call = call.key("a-key");
        }
        let patience = (user % 5) as u32;
        attempts.spawn(async move {
            let stream = client.connect().await;
            stream.write_all(&call.to_bytes()).await.unwrap();
            for _ in 0..patience * 20 {
                tokio::task::yield_now().await;
            }
            // A reset, which the server sees at once; others just close.
            if patience.is_multiple_of(2) {
                stream.set_zero_linger().unwrap();
            }
            client.hang_up();
        });
    }
    attempts.join_all().await;
    let mut fan = service.client();
    let look = async |fan: &mut common::Client, token: &str, reservation: i64, user: i64| {
        let place = fan.send(status(token)).await.ok(200);
        let path = format!("/api/v1/reservations/{reservation}");
        let shown = fan.send(get(path).token(token)).await.ok(200);
        let balance = fan.send(get(format!("/api/v1/users/{user}/points"))).await.ok(200);
        (
            place["status"] == "EXPIRED",
            shown["status"] == "PAID",
            balance["totalAmount"].as_i64().unwrap() == 90,
        )
    };
    let mut outcomes = Vec::new();
    for (user, token, reservation) in &buyers {
        let paid = until("memory and store to agree", async || {
            let (spent, paid, taken) = look(&mut fan, token, *reservation, *user).await;
            (spent == paid && paid == taken).then_some(paid)
        })
        .await;
        outcomes.push(paid);
    }
    // A payment that nobody waited for may have happened or not; the next one tells which.
    for ((user, token, reservation), paid) in buyers.iter().zip(&mut outcomes) {
        let mut call = pay(token, *user, *reservation);
        if user % 3 == 0 {
            call = call.key("a-key");
        }
        let reply = until("the key to be free", async || {
            let reply = fan.send(call.clone()).await;
            (reply.code().as_deref() != Some("IDEMPOTENCY_IN_FLIGHT")).then_some(reply)
        })
        .await;
        // Where the first request was still on its way when we looked, it may have come before.
        if user % 3 != 0 && (*paid || reply.status != 201) {
            reply.refused(ErrorCode::AlreadyPaid);
        } else {
            reply.ok(201);
        }
        *paid = true;
        assert_eq!(service.balance(*user).await, 90);
    }
    let service = service.restart(|_| ()).await;
    let mut fan = service.client();
    for (user, token, reservation) in &buyers {
        assert_eq!(look(&mut fan, token, *reservation, *user).await, (true, true, true));
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_client_hung_up_while_leaving_or_joining_the_line_goes_on() {
    let service = TestService::start().await;
    service.pause("main").await;
    let mut tokens = Vec::new();
    for user in 1..=30 {
        let joined = service.send(join(user)).await.ok(201);
        tokens.push(joined["token"].as_str().unwrap().to_owned());
    }
    let mut attempts = JoinSet::new();
    for (index, token) in tokens.iter().enumerate().take(20) {
        let mut client = service.client();
        let call = if index % 2 == 0 {
            common::delete("/api/v1/waiting-queues").token(token)
        } else {
            join(100 + index as i64)
        };
        attempts.spawn(async move {
            client.write(&call.to_bytes()).await.unwrap();
            client.hang_up();
        });
    }
    attempts.join_all().await;
    service.resume("main").await;
    let mut fan = service.client();
    for token in &tokens {
        until("everybody's turn", async || {
            let place = fan.send(status(token)).await.ok(200);
            (place["waitingNumber"] == 0).then_some(())
        })
        .await;
    }
    let last = service.admitted(999).await;
    assert_eq!(fan.send(status(&last)).await.ok(200)["status"], "ACTIVATED");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_finds_nothing_in_what_is_under_way() {
    let service = TestService::start().await;
    let hall = service.concert(50, 0).await;
    issue(&service, 300, "buyer-{n}").await;
    let path = format!("/admin/v1/concerts/{}/sessions/{}/seats", hall.concert, hall.session);
    for round in 0..10 {
        let mut calls = Vec::new();
        for index in 0..5 {
            let user = 1 + round * 25 + index * 5;
            calls.push(post(path.as_str()).admin().json(json!({"seatCount": 3, "price": 0})));
            calls.push(hall.reserve(&format!("buyer-{user}"), user, &[1 + user % 50]));
            calls.push(charge(user, 5));
            calls.push(join(user));
            calls.push(get("/admin/v1/audit").admin());
        }
        for reply in at_once(&service, calls).await {
            if reply.status == 200
                && let Some(clean) = reply.value().get("clean")
            {
                assert_eq!(clean, true, "{reply}");
            }
        }
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_progress_are_finished_before_the_service_stops() {
    let service = TestService::start().await;
    let mut clients = Vec::new();
    for user in 1..=20 {
        let call = charge(user, 5);
        let bytes = call.to_bytes();
        let mut client = service.client();
        // All but the last byte, so that the request is certainly in progress.
        client.write(&bytes[..bytes.len() - 1]).await.unwrap();
        clients.push((client, call, bytes[bytes.len() - 1]));
    }
    until("all to be in progress", async || {
        let text = String::from_utf8(service.send(get("/metrics")).await.body).unwrap();
        let open = text.lines().find_map(|line| line.strip_prefix("http_server_connections "));
        (open.unwrap().parse::<u32>().unwrap() > 20).then_some(())
    })
    .await;
    let finish = async {
        for (client, call, last) in &mut clients {
            client.write(&[*last]).await.unwrap();
            let reply = client.answer(call).await;
            assert_eq!(reply.ok(200)["totalAmount"], 5);
        }
    };
    let (service, ()) = tokio::join!(service.restart(|_| ()), finish);
    for user in 1..=20 {
        assert_eq!(service.balance(user).await, 5, "an answer that was given is kept");
    }
    service.finish().await;
}
