//! The admission log, as anybody reads and checks it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use boxoffice::http::problem::ErrorCode;
use boxoffice::proof::verify::{Question, verify};
use boxoffice::proof::{LoggedRecord, PublicKeys, SignedHead};
use boxoffice_backends::store::{Digest, ShortenLog};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::time::Timestamp;
use serde_json::{Value, json};

use super::keys::key_set;
use crate::common::{Client, TestService, delete, get, join, until};

fn main_queue() -> QueueName {
    QueueName::new("main").unwrap()
}

async fn page(client: &mut Client, query: &str) -> Value {
    let reply = client.send(get(format!("/api/v1/waiting-queues/main/log{query}"))).await;
    assert_eq!(reply.header("cache-control"), Some("public, max-age=1"), "{reply}");
    reply.ok(200)
}

fn records(page: &Value) -> Vec<LoggedRecord> {
    serde_json::from_value(page["records"].clone()).unwrap()
}

fn digest(value: &Value) -> Digest {
    Digest::from_hex(value.as_str().unwrap()).unwrap()
}

async fn public_keys(client: &mut Client) -> PublicKeys {
    PublicKeys::from_set(&json!({ "keys": key_set(client).await }).to_string()).unwrap()
}

#[tokio::test]
async fn anybody_reads_the_log_part_by_part_and_it_is_a_chain_with_a_signed_head() {
    let service = TestService::start().await;
    let mut client = service.client();
    let begun = page(&mut client, "").await;
    assert_eq!(records(&begun).len(), 1, "{begun}");
    for user in 1..=3 {
        service.admitted(user).await;
    }
    service.change_queue("main", json!({ "maxActive": 50 })).await;
    let token = client.send(join(4)).await.ok(201)["token"].as_str().unwrap().to_owned();
    client.send(delete("/api/v1/waiting-queues").token(&token)).await.empty(204);
    service.admitted(5).await;

    let whole = page(&mut client, "?limit=1000").await;
    assert_eq!(whole["next"], Value::Null);
    let mut last = digest(&whole["previous"]);
    assert_eq!(last, Digest::genesis(&main_queue()));
    let mut number = 0;
    for logged in records(&whole) {
        let (record, digest) = logged.read().unwrap();
        last = last.then(&record.to_bytes());
        assert_eq!((record.number, digest), (number, last));
        number += 1;
    }
    assert_eq!(
        (&whole["head"]["number"], digest(&whole["head"]["digest"])),
        (&json!(number - 1), last)
    );
    let said = whole["records"].to_string();
    assert!(said.contains("\"maxActive\":50") && said.contains("\"type\":\"CHANGED\""), "{said}");
    assert!(!said.contains("user"), "nobody is named: {said}");

    let mut gathered = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let part = page(&mut client, &query).await;
        gathered.extend(records(&part));
        let Some(next) = part["next"].as_u64() else { break };
        assert_eq!(next, gathered.last().unwrap().number);
        query = format!("?limit=2&after={next}");
    }
    assert_eq!(gathered, records(&whole));

    let keys = public_keys(&mut client).await;
    let signed = whole["head"]["signed"].as_str().unwrap();
    let head = SignedHead::read(signed, &keys).unwrap();
    assert_eq!((head.queue, head.head.number, head.head.digest), (main_queue(), number - 1, last));
    // It is a JWS as others read it, and no pass.
    let header: Value =
        serde_json::from_slice(&BASE64.decode(signed.split('.').next().unwrap()).unwrap()).unwrap();
    assert_eq!((&header["alg"], &header["typ"]), (&json!("EdDSA"), &json!("boxoffice-head+jwt")));
    service.finish().await;
}

#[tokio::test]
async fn a_log_that_is_not_there_and_a_part_that_makes_no_sense_are_refused() {
    let service = TestService::start().await;
    let at = |rest: &str| get(format!("/api/v1/waiting-queues/{rest}"));
    service.send(at("none/log")).await.refused(ErrorCode::QueueNotFound);
    for query in
        ["limit=0", "limit=1001", "after=-1", "after=x", "from=1", "after=9223372036854775808"]
    {
        service.send(at(&format!("main/log?{query}"))).await.refused(ErrorCode::InvalidQuery);
    }
    let behind = service.send(at("main/log?after=9223372036854775807")).await.ok(200);
    assert_eq!((&behind["records"], &behind["next"]), (&json!([]), &Value::Null));
    service.finish().await;
}

/// A head that somebody kept is of the same log after a restart.
#[tokio::test]
async fn a_log_goes_on_over_a_restart() {
    let service = TestService::start().await;
    let mut client = service.client();
    service.admitted(1).await;
    let before = page(&mut client, "?limit=1000").await;
    let service = service.restart(|_| ()).await;
    let mut client = service.client();
    service.admitted(2).await;
    let after = page(&mut client, "?limit=1000").await;
    let (before, after) = (records(&before), records(&after));
    assert!(after.len() > before.len());
    assert_eq!(after[..before.len()], before);
    service.finish().await;
}

/// What is old goes, and the rest can be checked by itself.
#[tokio::test]
async fn what_is_left_of_a_log_can_be_checked_by_itself() {
    let service = TestService::start().await;
    let mut client = service.client();
    service.admitted(1).await;
    let store = service.running().app().store.clone();
    let future = Timestamp(i64::MAX);
    let shorten = |kept_since| ShortenLog {
        queue: main_queue(),
        kept_since,
        marked_before: future,
        max: 1_000,
    };
    store.shorten_log(shorten(Timestamp(0))).await.unwrap();
    let marked = page(&mut client, "").await;
    service.admitted(2).await;
    until("the old part to go", async || {
        let forgotten = store.shorten_log(shorten(future)).await.unwrap();
        (forgotten > 0).then_some(())
    })
    .await;
    let rest = page(&mut client, "").await;
    assert_ne!(digest(&rest["previous"]), Digest::genesis(&main_queue()));
    assert_eq!(rest["records"][0]["type"], "STANDS", "{rest}");
    assert!(records(&rest)[0].number >= records(&marked).last().unwrap().number);
    let keys = service.send(get("/.well-known/jwks.json")).await.value();
    let mut file = json!({
        "format": "boxoffice admission log", "version": 1, "queue": "main", "previous": rest["previous"],
        "keys": keys,
    })
    .to_string();
    file = reordered(&file);
    for record in records(&rest) {
        file += &format!("\n{}", serde_json::to_string(&record).unwrap());
    }
    file += &format!("\n{}\n", json!({ "head": rest["head"]["signed"] }));
    let verdict = verify(file.as_bytes(), Question::default()).unwrap();
    assert!(verdict.is_good(), "{}", verdict.to_text());
    assert!(verdict.to_text().contains("what came before was forgotten"), "{}", verdict.to_text());
    service.finish().await;
}

/// The first line with its parts in the order in which an export writes them.
fn reordered(line: &str) -> String {
    let value: Value = serde_json::from_str(line).unwrap();
    let parts = ["format", "version", "queue", "previous", "keys"];
    let parts = parts.map(|name| format!("\"{name}\":{}", value[name]));
    format!("{{{}}}", parts.join(","))
}
