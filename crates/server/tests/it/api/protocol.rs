//! HTTP itself: methods, paths, sizes, media types, headers, and the odd values that clients send.

use std::time::{Duration, Instant};

use boxoffice::endpoints::Route;
use boxoffice::http::problem::ErrorCode;
use boxoffice::metrics::{Limit, LimitLabel};
use serde_json::json;

use crate::common::{
    Call, Client, ICON, Reply, TestService, charge, delete, get, join, patch, pay, post, status,
    until,
};

#[tokio::test]
async fn every_answer_has_a_request_id() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for path in ["/api/v1/concerts", "/nowhere", "/health/live", "/openapi.json", "/swagger-ui/"] {
        let given = fan.send(get(path).header("x-request-id", "my-id.1/2")).await;
        assert_eq!(given.header("x-request-id"), Some("my-id.1/2"), "{path}");
        let (one, two) = (fan.send(get(path)).await, fan.send(get(path)).await);
        assert_ne!(one.header("x-request-id"), two.header("x-request-id"), "{path}");
        // What would be of no use in a log is replaced.
        let long = "x".repeat(129);
        for bad in [b"a b".as_slice(), b"", b"\xff\xfe", long.as_bytes()] {
            let reply = fan.send(get(path).header("X-Request-Id", bad)).await;
            assert_eq!(reply.header("x-request-id").unwrap().len(), 24, "{path}");
        }
    }
    let longest = "x".repeat(128);
    let reply = fan.send(get("/nowhere").header("X-Request-Id", &longest)).await;
    assert_eq!(reply.header("x-request-id"), Some(longest.as_str()));
    service.finish().await;
}

#[tokio::test]
async fn unknown_paths_are_404_and_unknown_methods_405() {
    let service = TestService::start().await;
    let mut fan = service.client();
    for path in [
        "/index.html",
        "/me/",
        "/c",
        "/assets",
        "/api",
        "/api/v1",
        "/api/v2/concerts",
        "/api/v1/concerts/",
        "/api/v1/concerts/1/",
        "/api/v1//concerts",
        "/API/v1/concerts",
        "/api/v1/waiting-queues/",
        "/api/v1/waiting-queues/main/",
        "/api/v1/users/1",
        "/api/v1/users/1/points/",
        "/api/v1/%63oncerts",
        "/../etc/passwd",
        "/admin",
        "/admin/v1",
        "/metrics/",
        "/health",
        "/swagger-ui/no-such-file",
        "/swagger-ui/../openapi.json",
        "/swagger-ui/%ff",
    ] {
        let expected = match path {
            // A trailing parameter may be empty or not; whatever it is, there is no such queue.
            "/api/v1/waiting-queues/" => [ErrorCode::RouteNotFound, ErrorCode::QueueNotFound],
            _ => [ErrorCode::RouteNotFound; 2],
        };
        let reply = fan.send(get(path)).await;
        assert_eq!(reply.status, 404, "{path}: {reply}");
        let code = reply.code().unwrap();
        assert!(expected.iter().any(|expected| expected.as_str() == code), "{path}: {reply}");
    }
    // Between two slashes there is an id, if an impossible one.
    let token = service.token(1).await;
    fan.send(get("/api/v1/concerts//sessions").token(&token)).await.refused(ErrorCode::InvalidId);
    // A name that is not even text is no queue's.
    for path in ["/api/v1/waiting-queues/%ff", "/api/v1/waiting-queues/%c3%28"] {
        fan.send(get(path)).await.refused(ErrorCode::QueueNotFound);
    }
    for call in [
        post("/admin/v1/queues/%ff/pause").admin(),
        patch("/admin/v1/queues/%ff").admin().json(json!({})),
    ] {
        fan.send(call).await.refused(ErrorCode::QueueNotFound);
    }

    for route in Route::ALL {
        if route.method() == "*" {
            continue;
        }
        let path = route.template().replace("{queue}", "main").replace("{id}", "1");
        let path = path.replace("{sessionId}", "1").replace("{*file}", ICON);
        let path = path.replace("{*section}", "queues");
        let known: Vec<&str> = Route::ALL
            .iter()
            .filter(|other| other.template() == route.template())
            .map(|other| other.method())
            .collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"] {
            if known.contains(&method) {
                continue;
            }
            let reply = fan.send(Call::new(method, path.as_str())).await;
            reply.refused(ErrorCode::MethodNotAllowed);
            let mut allowed: Vec<&str> =
                reply.header("allow").unwrap().split(',').map(str::trim).collect();
            allowed.retain(|method| *method != "HEAD");
            allowed.sort_unstable();
            let mut known = known.clone();
            known.sort_unstable();
            assert_eq!(allowed, known, "{method} {path}");
        }
        // One answer has no end.
        if known.contains(&"GET") && *route != Route::AdminLive {
            let reply = fan.send(Call::new("HEAD", path.as_str()).admin()).await;
            let same = fan.send(get(path.as_str()).admin()).await;
            assert_eq!(reply.status, same.status, "{path}");
            assert_eq!(reply.header("content-type"), same.header("content-type"), "{path}");
        }
    }
    service.finish().await;
}

#[tokio::test]
async fn bodies_are_json_of_a_limited_size() {
    let service = TestService::start_with(|config| {
        config.server.max_body_bytes = 2_048;
        config.server.body_timeout_ms = 300;
    })
    .await;
    let mut fan = service.client();
    let path = "/api/v1/waiting-queues";
    let body = br#"{"userId": 1}"#;
    let with_type = |value: Option<&str>| {
        let mut call = post(path);
        if let Some(value) = value {
            call = call.header("content-type", value);
        }
        call.body = Some(body.to_vec());
        call
    };
    for good in
        ["application/json", "APPLICATION/JSON;charset=utf-8", "application/merge-patch+json"]
    {
        fan.send(with_type(Some(good))).await.ok(201);
    }
    for bad in [
        None,
        Some(""),
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("json"),
    ] {
        fan.send(with_type(bad)).await.refused(ErrorCode::UnsupportedMediaType);
    }
    let twice = with_type(Some("application/json")).header("Content-Type", "application/json");
    fan.send(twice).await.refused(ErrorCode::DuplicateHeader);
    // Without a body there is nothing that could have a type.
    fan.send(post(path)).await.refused(ErrorCode::MalformedJson);

    for malformed in [
        b"".as_slice(),
        b"{",
        b"\xef\xbb\xbf{\"userId\": 1}",
        b"{\"userId\": 1}\0",
        b"{\"userId\": 1, \"x\": \"\xff\"}",
        b"{'userId': 1}",
        b"userId=1",
        b"\0\0\0\0",
    ] {
        fan.send(post(path).text(malformed)).await.refused(ErrorCode::MalformedJson);
    }

    let nested = format!("{}1{}", "[".repeat(900), "]".repeat(900));
    let deep = format!("{{\"userId\": {nested}}}");
    fan.send(post(path).text(deep)).await.refused(ErrorCode::InvalidField);
    // A field that nobody knows is refused however deep it is.
    let deep = format!("{{\"userId\": 1, \"x\": {nested}}}");
    fan.send(post(path).text(deep)).await.refused(ErrorCode::InvalidField);

    let long = format!("{{\"userId\": 1{}}}", " ".repeat(3_000));
    let fits = format!("{{\"userId\": 1{}}}", " ".repeat(2_000));
    fan.send(post(path).text(fits)).await.ok(201);
    let reply = fan.send(post(path).text(long.clone())).await;
    reply.refused(ErrorCode::BodyTooLarge);
    // Its body may not have been read, so the connection ends.
    assert!(reply.closes());
    // The same in pieces, whose sum nobody announces.
    let mut chunked = String::new();
    for piece in long.as_bytes().chunks(500) {
        let text = std::str::from_utf8(piece).unwrap();
        chunked.push_str(&format!("{:x}\r\n{text}\r\n", piece.len()));
    }
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{chunked}0\r\n\r\n"
    );
    fan.write(head.as_bytes()).await.unwrap();
    fan.answer(&post(path)).await.refused(ErrorCode::BodyTooLarge);
    // A chunked body that fits is one like any other.
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n6\r\n{{\"user\r\n7\r\nId\": 1}}\r\n0\r\n\r\n"
    );
    let mut fan = service.client();
    fan.write(head.as_bytes()).await.unwrap();
    fan.answer(&post(path)).await.ok(201);

    // A body that does not come.
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
         Content-Length: 13\r\n\r\n{{\"us"
    );
    let mut slow = service.client();
    slow.write(head.as_bytes()).await.unwrap();
    let reply = slow.answer(&post(path)).await;
    reply.refused(ErrorCode::RequestTimeout);
    assert!(reply.closes());
    service.finish().await;
}

#[tokio::test]
async fn heads_are_of_a_limited_size() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let long = "x".repeat(9_000);
    fan.send(get(format!("/api/v1/concerts?{long}"))).await.refused(ErrorCode::UriTooLong);
    fan.send(get(format!("/{long}"))).await.refused(ErrorCode::UriTooLong);
    fan.send(get(format!("/openapi.json?{long}"))).await.refused(ErrorCode::UriTooLong);
    let reply = fan.send(get("/api/v1/concerts").header("X-Long", "x".repeat(20_000))).await;
    reply.refused(ErrorCode::HeadersTooLarge);
    let mut many = get("/api/v1/concerts");
    for number in 0..150 {
        many = many.header(&format!("X-{number}"), "1");
    }
    service.client().send(many).await.refused(ErrorCode::HeadersTooLarge);
    // Below the limits all is well; a query that nobody asked for is no error.
    let wide = get(format!("/api/v1/concerts?{}", "x".repeat(5_000)));
    service.send(wide.header("X-Long", "x".repeat(8_000))).await.ok(200);
    service.finish().await;
}

#[tokio::test]
async fn a_user_is_a_positive_number_of_53_bits() {
    let service = TestService::start().await;
    let hall = service.concert(5, 0).await;
    let mut fan = service.client();
    let token = service.token(1).await;
    for user in [
        "0",
        "-1",
        "9223372036854775808",
        "18446744073709551616",
        "1e400",
        "\"abc\"",
        "\"\"",
        "\"0\"",
        "\"-1\"",
        "\" 1\"",
        "\"1.0\"",
        "\"9223372036854775808\"",
        "null",
        "1.5",
        "1e-1",
        "9007199254740993.0",
        "1e18",
        "[]",
        "[1]",
        "{}",
        "{\"id\": 1}",
        "true",
        "false",
    ] {
        // A number that no machine number holds is not JSON that could be read at all.
        let code = if user == "1e400" { ErrorCode::MalformedJson } else { ErrorCode::InvalidField };
        let calls = [
            post("/api/v1/waiting-queues").text(format!("{{\"userId\": {user}}}")),
            post(hall.path("reservations"))
                .token(&token)
                .text(format!("{{\"userId\": {user}, \"seatIds\": [{}]}}", hall.seat(1))),
            post("/api/v1/payments")
                .token(&token)
                .text(format!("{{\"userId\": {user}, \"reservationId\": 1}}")),
        ];
        for call in calls {
            let refused = fan.send(call).await.refused(code);
            let detail = refused["detail"].as_str().unwrap();
            assert!(user == "1e400" || detail.contains("userId"), "{user}: {detail}");
        }
    }
    for user in ["1", "\"1\"", "1.0", "1e0", "9007199254740991", "\"9007199254740991\""] {
        let call = post("/api/v1/waiting-queues").text(format!("{{\"userId\": {user}}}"));
        fan.send(call).await.ok(201);
    }
    // Not every parser would read these again as they are.
    for user in ["9007199254740992", "9223372036854775807", "\"9223372036854775807\""] {
        let call = post("/api/v1/waiting-queues").text(format!("{{\"userId\": {user}}}"));
        fan.send(call).await.refused(ErrorCode::UserIdTooLarge);
    }
    for body in ["{}", "[]", "1", "null", "\"\"", "{\"userid\": 1}", "{\"userId\":1,\"userId\":1}"]
    {
        let refused = fan.send(post("/api/v1/waiting-queues").text(body)).await;
        refused.refused(ErrorCode::InvalidField);
    }
    for queue in ["7", "[]", "{}", "true"] {
        let body = format!("{{\"userId\": 1, \"queue\": {queue}}}");
        let refused = fan.send(post("/api/v1/waiting-queues").text(body)).await;
        refused.refused(ErrorCode::InvalidField);
    }
    // What may be left out may be null.
    let more = post("/api/v1/waiting-queues").text(r#"{"userId": 1, "queue": null}"#);
    fan.send(more).await.ok(201);
    service.finish().await;
}

#[tokio::test]
async fn headers_that_may_come_once_come_once() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let call = charge(1, 1).key("a").key("b");
    fan.send(call).await.refused(ErrorCode::DuplicateHeader);
    let call = join(1).header("content-type", "text/plain");
    fan.send(call).await.refused(ErrorCode::DuplicateHeader);
    assert_eq!(service.balance(1).await, 0);
    service.finish().await;
}

#[tokio::test]
async fn one_connection_takes_one_request_after_the_other() {
    let service = TestService::start().await;
    let mut fan = service.client();
    // All sent before any is answered; a refusal in between changes nothing for those behind.
    let calls =
        [charge(1, 1), charge(1, 0), get("/nowhere"), charge(1, 2), get("/api/v1/users/1/points")];
    let bytes: Vec<u8> = calls.iter().flat_map(Call::to_bytes).collect();
    fan.write(&bytes).await.unwrap();
    assert_eq!(fan.answer(&calls[0]).await.ok(200)["totalAmount"], 1);
    fan.answer(&calls[1]).await.refused(ErrorCode::InvalidAmount);
    fan.answer(&calls[2]).await.refused(ErrorCode::RouteNotFound);
    assert_eq!(fan.answer(&calls[3]).await.ok(200)["totalAmount"], 3);
    assert_eq!(fan.answer(&calls[4]).await.ok(200)["totalAmount"], 3);
    // And the same connection is still good.
    fan.send(get("/health/live")).await.ok(200);
    let bye = fan.send(get("/health/live").header("Connection", "close")).await;
    assert!(bye.closes());
    service.finish().await;
}

#[tokio::test]
async fn who_joins_too_fast_is_told_when_to_come_back() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.server.join_rate.per_second = 0.5;
        config.server.join_rate.burst = 3;
    })
    .await;
    let mut fan = service.client();
    let from = |user| join(user).header("X-Forwarded-For", "192.0.2.1");
    for user in 1..=3 {
        fan.send(from(user)).await.ok(201);
    }
    let reply = fan.send(from(4)).await;
    reply.refused(ErrorCode::RateLimited);
    let wait: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // Only joining is limited, and only strangers are.
    let document = get("/api/v1/waiting-queues/main").header("X-Forwarded-For", "192.0.2.1");
    fan.send(document).await.ok(200);
    for user in 1..=10 {
        fan.send(join(user)).await.ok(201);
    }
    service.finish().await;
}

/// Who polls every few milliseconds is refused where that is configured, and nobody else is.
#[tokio::test]
async fn who_polls_too_fast_is_told_when_to_come_back() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.server.poll_rate.per_second = 0.5;
        config.server.poll_rate.burst = 3;
    })
    .await;
    let token = service.token(1).await;
    let mut fan = service.client();
    let from = |address: &str| status(&token).header("X-Forwarded-For", address);
    for _ in 0..3 {
        fan.send(from("192.0.2.1")).await.ok(200);
    }
    let reply = fan.send(from("192.0.2.1")).await;
    reply.refused(ErrorCode::RateLimited);
    let wait: u32 = reply.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    // By the router as well.
    let head = Call::new("HEAD", "/api/v1/waiting-queues").token(&token);
    let head = fan.send(head.header("X-Forwarded-For", "192.0.2.1")).await;
    assert_eq!(head.status, 429);
    let document = get("/api/v1/waiting-queues/main").header("X-Forwarded-For", "192.0.2.1");
    fan.send(document).await.ok(200);
    fan.send(from("192.0.2.99")).await.ok(200);
    for _ in 0..10 {
        fan.send(status(&token)).await.ok(200);
    }
    service.finish().await;
}

#[tokio::test]
async fn by_default_one_address_cannot_take_the_whole_line() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
    })
    .await;
    let (mut one, mut other) = (service.client(), service.client());
    let greedy = join(1).header("X-Forwarded-For", "192.0.2.1");
    let mut joined = 0;
    until("the address to be stopped", async || {
        let reply = one.send(greedy.clone()).await;
        joined += u64::from(reply.status == 201);
        (reply.status != 201).then_some(reply)
    })
    .await
    .refused(ErrorCode::RateLimited);
    assert!(joined >= 500, "{joined} people behind one address are no attack");
    other.send(join(2).header("X-Forwarded-For", "192.0.2.2")).await.ok(201);
    // Scripts of this machine, such as those of a load test, are not limited.
    for user in 0..600 {
        other.send(join(user + 1)).await.ok(201);
    }
    service.finish().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_a_rate_of_its_own() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.server.join_rate.per_second = 0.01;
        config.server.join_rate.burst = 1;
    })
    .await;
    let mut proxy = service.client();
    for client in ["1.2.3.4", "1.2.3.5", "6.6.6.6, 1.2.3.6"] {
        proxy.send(join(1).header("X-Forwarded-For", client)).await.ok(201);
        let again = join(1).header("X-Forwarded-For", client);
        proxy.send(again).await.refused(ErrorCode::RateLimited);
    }
    service.finish().await;
}

#[tokio::test]
async fn a_full_class_of_requests_keeps_no_other_out() {
    let service = TestService::start_with(|config| config.server.concurrency.charge = 1).await;
    let token = service.token(1).await;
    let mut buyer = service.client();
    let mut fan = service.client();
    // Each waits for its commit, so that they are there at the same time.
    let reply = until("the class to be full", async || {
        let charges: Vec<_> = (0..16)
            .map(|_| {
                let mut client = service.client();
                tokio::spawn(async move { client.send(charge(2, 1)).await })
            })
            .collect();
        fan.send(join(1)).await.ok(201);
        fan.send(get("/health/live")).await.ok(200);
        // Charges are no payments.
        let unknown = buyer.send(pay(&token, 1, 1_000_000)).await;
        unknown.refused(ErrorCode::ReservationNotFound);
        let mut refused = None;
        for charge in charges {
            refused = Some(charge.await.unwrap()).filter(|reply| reply.status == 503).or(refused);
        }
        refused
    })
    .await;
    reply.refused(ErrorCode::Overloaded);
    assert_eq!(reply.header("retry-after"), Some("1"));
    fan.send(charge(2, 1)).await.ok(200);
    service.finish().await;
}

/// A request that has begun and whose body does not come.
async fn begin_slowly(client: &mut Client, path: &str, more: &str) {
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: test\r\n{more}Content-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    client.write(head.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn bodies_that_do_not_come_keep_nobody_from_paying() {
    const SLOW: i64 = 2_100;
    let service = TestService::start_with(|config| {
        config.server.bodies_max = 2_000;
        config.server.concurrency.payment = 64;
        config.server.concurrency.charge = 64;
        config.server.body_timeout_ms = 60_000;
    })
    .await;
    let hall = service.concert(5, 10).await;
    let token = service.token(1).await;
    service.charge(1, 100).await;
    let mut buyer = service.client();
    let held = buyer.send(hall.reserve(&token, 1, &[1])).await.ok(201);
    let on_the_way = || service.running().app().metrics.http_server_bodies.get();

    let mut slow = Vec::new();
    for user in 0..SLOW {
        let mut client = service.client();
        begin_slowly(&mut client, &format!("/api/v1/users/{}/points/charge", user + 10), "").await;
        slow.push(client);
    }
    until("the bodies to be on their way", async || (on_the_way() == 2_000).then_some(())).await;
    // Who comes with a body finds every slot free.
    let began = Instant::now();
    let charged = buyer.send(charge(1, 1)).await.ok(200);
    assert_eq!(charged["totalAmount"], 101);
    let reservation = held["reservationId"].as_i64().unwrap();
    buyer.send(pay(&token, 1, reservation)).await.ok(201);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(on_the_way(), 2_000);

    // Those for whom there was no room know at once.
    let metrics = &service.running().app().metrics;
    let refused = LimitLabel { limit: Limit::All };
    let refused = metrics.http_server_bodies_refused.get_or_create(&refused).clone();
    until("the last ones to be refused", async || (refused.get() == 100).then_some(())).await;
    let reply = slow.last_mut().unwrap().answer(&patch("/api/v1/users/1/points/charge")).await;
    reply.refused(ErrorCode::Overloaded);
    assert!(reply.closes());
    // Who hangs up makes room.
    drop(slow);
    until("all of them to be gone", async || (on_the_way() == 0).then_some(())).await;
    service.finish().await;
}

#[tokio::test]
async fn one_address_keeps_no_other_from_sending_a_body() {
    let service = TestService::start_with(|config| {
        config.server.trusted_proxies = vec!["127.0.0.0/8".into()];
        config.server.bodies_per_address_max = 2;
    })
    .await;
    let path = "/api/v1/users/1/points/charge";
    let of = |address: &str| format!("X-Forwarded-For: {address}\r\n");
    let (mut one, mut two, mut three) = (service.client(), service.client(), service.client());
    begin_slowly(&mut one, path, &of("192.0.2.1")).await;
    begin_slowly(&mut two, path, &of("192.0.2.1")).await;
    let on_the_way = || service.running().app().metrics.http_server_bodies.get();
    until("the bodies to be on their way", async || (on_the_way() == 2).then_some(())).await;
    begin_slowly(&mut three, path, &of("192.0.2.1")).await;
    let reply = three.answer(&patch(path)).await;
    reply.refused(ErrorCode::TooManySlowBodies);
    assert!(reply.closes());
    // Somebody else's body may take its time, and a body that is here is not on its way.
    let mut other = service.client();
    begin_slowly(&mut other, path, &of("192.0.2.2")).await;
    until("another one to be on its way", async || (on_the_way() == 3).then_some(())).await;
    let whole = charge(1, 1).header("X-Forwarded-For", "192.0.2.1");
    service.send(whole).await.ok(200);
    drop((one, two, other));
    service.finish().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let service = TestService::start_with(|config| {
        config.server.max_connections = 2;
        config.server.idle_timeout_ms = 60_000;
    })
    .await;
    let (mut one, mut two) = (service.client(), service.client());
    one.send(get("/health/live")).await.ok(200);
    two.send(get("/health/live")).await.ok(200);
    let mut three = service.client();
    three.connect().await;
    let reply = three.answer(&get("/health/live")).await;
    reply.refused(ErrorCode::Overloaded);
    assert!(reply.closes());
    two.hang_up();
    one.hang_up();
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let mut again = service.client();
            let _ = again.write(&get("/health/live").to_bytes()).await;
            if let Ok(Some(reply)) = again.read(false).await
                && reply.status == 200
            {
                break;
            }
        }
    })
    .await
    .unwrap();
    service.finish().await;
}

#[tokio::test]
async fn a_field_that_nobody_knows_is_named() {
    let service = TestService::start().await;
    let mut fan = service.client();
    let token = service.token(1).await;
    let document = fan.send(get("/openapi.json")).await.ok(200);
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
            let Some(schema) = body.as_str() else { continue };
            let schema = document.pointer(schema.trim_start_matches('#')).unwrap();
            assert_eq!(schema["additionalProperties"], false, "{method} {path}");
            let filled = path.split('/').map(|part| match part {
                "{queue}" => "main",
                part if part.starts_with('{') => "1",
                part => part,
            });
            let filled: Vec<&str> = filled.collect();
            let call = Call::new(&method.to_ascii_uppercase(), filled.join("/"));
            let call = if path.starts_with("/admin/") { call.admin() } else { call };
            // As a page of the service sends it.
            let call = call.header("Sec-Fetch-Site", "same-origin");
            let call = call.token(&token).json(json!({"colour": "red"}));
            let refused = fan.send(call).await.refused(ErrorCode::InvalidField);
            let detail = refused["detail"].as_str().unwrap();
            assert!(detail.contains("unknown field `colour`"), "{method} {path}: {detail}");
            asked += 1;
        }
    }
    assert!(asked >= 11, "only {asked} endpoints take a body");
    // The others are taken as they were meant, beside it too.
    let both = json!({"queue": "vip", "admitPerSecond": 7, "maxActve": 3});
    let refused = fan.send(post("/admin/v1/queues").admin().json(both)).await;
    let refused = refused.refused(ErrorCode::InvalidField);
    assert!(refused["detail"].as_str().unwrap().contains("maxActve"), "{refused}");
    fan.send(get("/api/v1/waiting-queues/vip")).await.refused(ErrorCode::QueueNotFound);
    service.finish().await;
}

#[tokio::test]
async fn what_is_personal_is_kept_by_nobody() {
    let service = TestService::start().await;
    let hall = service.concert(5, 10).await;
    let mut fan = service.client();
    let joined = fan.send(join(1)).await;
    let token = service.token(1).await;
    service.charge(1, 100).await;
    let held = fan.send(hall.reserve(&token, 1, &[1])).await;
    let reservation = held.ok(201)["reservationId"].as_i64().unwrap();
    let shown = fan.send(get(format!("/api/v1/reservations/{reservation}")).token(&token)).await;
    let answers = [
        joined,
        held,
        shown,
        fan.send(status(&token)).await,
        fan.send(status("nobody's")).await,
        fan.send(get("/api/v1/users/1/points")).await,
        fan.send(charge(1, 1)).await,
        fan.send(hall.reserve(&token, 1, &[1])).await,
        fan.send(pay(&token, 1, reservation)).await,
        fan.send(delete("/api/v1/waiting-queues").token(&token)).await,
        fan.send(get("/admin/v1/queues").admin()).await,
        fan.send(get("/admin/v1/queues")).await,
    ];
    for reply in answers {
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply}");
        assert_eq!(reply.header("vary"), Some("authorization, cookie, queue-token"), "{reply}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{reply}");
    }
    // What says otherwise is for everybody, or is asked for again.
    let public = fan.send(get("/api/v1/waiting-queues/main")).await;
    assert_eq!(public.header("cache-control"), Some("public, max-age=1"));
    assert_eq!(public.header("vary"), None);
    let seats = fan.send(hall.seats(&service.token(2).await)).await;
    assert_eq!(seats.header("cache-control"), Some("private, no-cache"));
    for path in ["/nowhere", "/health/live", "/metrics", "/openapi.json"] {
        let reply = fan.send(get(path)).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    service.finish().await;
}

#[tokio::test]
async fn changes_of_a_queue_at_once_never_undo_each_other() {
    let service = TestService::start().await;
    for round in 1..=20_u32 {
        let one = async |change| service.change_queue("main", change).await;
        let (rate, most) = (f64::from(round) + 0.5, 100 + round);
        let opens_at = format!("2099-01-01T00:00:{round:02}Z");
        tokio::join!(
            one(json!({"admitPerSecond": rate})),
            one(json!({"maxActive": most})),
            one(json!({"opensAt": opens_at})),
            async {
                if round % 2 == 0 {
                    service.resume("main").await;
                } else {
                    service.pause("main").await;
                }
            },
        );
        let queues = service.send(get("/admin/v1/queues").admin()).await.ok(200);
        let queue = &queues["queues"][0];
        assert_eq!(queue["admitPerSecond"], rate, "{queue}");
        assert_eq!(queue["maxActive"], most, "{queue}");
        assert_eq!(queue["opensAt"], format!("2099-01-01T00:00:{round:02}.000Z"), "{queue}");
        let state = if round % 2 == 0 { "SCHEDULED" } else { "PAUSED" };
        assert_eq!(queue["state"], state, "{queue}");
    }
    service.finish().await;
}

#[tokio::test]
async fn pages_do_what_they_are_made_for_and_in_no_frame() {
    let service = TestService::start().await;
    for path in ["/swagger-ui/", "/swagger-ui/swagger-initializer.js"] {
        let reply = service.send(get(path)).await;
        assert_eq!(reply.status, 200);
        let policy = reply.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "script-src 'self';", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{policy}");
        }
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        // No script in the page itself, which the policy would not let run.
        let text = String::from_utf8_lossy(&reply.body);
        assert!(!text.contains("<script>"), "{text}");
    }
    service.finish().await;
}

/// What an answer says to pages of other origins.
fn shared_with(reply: &Reply) -> Option<&str> {
    assert_eq!(reply.header("access-control-allow-credentials"), None, "{reply}");
    reply.header("access-control-allow-origin")
}

#[tokio::test]
async fn pages_of_other_origins_read_what_they_are_allowed_to() {
    let ours = "https://tickets.example";
    let service = TestService::start_with(|config| {
        config.server.cors_origins = vec![ours.into(), "http://localhost:3000".into()];
    })
    .await;
    let mut fan = service.client();
    let from = |call: Call, origin: &str| call.header("Origin", origin);
    let token = service.token(1).await;
    for call in [
        join(1),
        status(&token),
        status("nobody's"),
        get("/api/v1/concerts"),
        charge(1, 1),
        charge(1, 0),
        get("/nowhere"),
    ] {
        for origin in [ours, "http://localhost:3000"] {
            let reply = fan.send(from(call.clone(), origin)).await;
            assert_eq!(shared_with(&reply), Some(origin), "{reply}");
            let exposed = reply.header("access-control-expose-headers").unwrap();
            assert!(exposed.contains("Retry-After") && exposed.contains("X-Request-Id"));
            assert!(reply.header("vary").unwrap().contains("origin"), "{reply}");
        }
        for origin in ["https://tickets.example.evil", "https://TICKETS.example", "null", "*", ""] {
            let reply = fan.send(from(call.clone(), origin)).await;
            assert_eq!(shared_with(&reply), None, "{reply}");
            assert!(reply.header("vary").unwrap().contains("origin"), "{reply}");
        }
        let twice = from(from(call.clone(), ours), "https://other.example");
        assert_eq!(shared_with(&fan.send(twice).await), None);
    }
    // What a cache may keep for all differs by who asked, also where nobody did.
    let public = fan.send(get("/api/v1/waiting-queues/main")).await;
    assert_eq!(public.header("vary"), Some("origin"));

    let ask = |path: &str, origin: &str| {
        let call = Call::new("OPTIONS", path).header("Access-Control-Request-Method", "POST");
        from(call.header("Access-Control-Request-Headers", "queue-token,content-type"), origin)
    };
    let reply = fan.send(ask("/api/v1/waiting-queues", ours)).await;
    reply.empty(204);
    assert_eq!(shared_with(&reply), Some(ours));
    for (header, part) in [
        ("access-control-allow-methods", "PATCH"),
        ("access-control-allow-headers", "QUEUE-TOKEN"),
        ("access-control-allow-headers", "Idempotency-Key"),
        ("access-control-max-age", "600"),
    ] {
        assert!(reply.header(header).unwrap().contains(part), "{reply}");
    }
    let reply = fan.send(ask("/api/v1/waiting-queues", "https://other.example")).await;
    reply.refused(ErrorCode::MethodNotAllowed);
    assert_eq!(shared_with(&reply), None);

    // Operators have no pages elsewhere.
    for path in ["/admin/v1/queues", "/metrics", "/actuator/prometheus"] {
        let reply = fan.send(from(get(path).admin(), ours)).await;
        assert_eq!(reply.status, 200);
        assert_eq!(shared_with(&reply), None, "{path}");
        let reply = fan.send(ask(path, ours)).await;
        reply.refused(ErrorCode::MethodNotAllowed);
        assert_eq!(shared_with(&reply), None, "{path}");
    }
    service.finish().await;

    // By default nobody has.
    let service = TestService::start().await;
    let reply = service.send(from(get("/api/v1/concerts"), ours)).await;
    assert_eq!(shared_with(&reply), None);
    service.send(ask("/api/v1/concerts", ours)).await.refused(ErrorCode::MethodNotAllowed);
    service.finish().await;
}
