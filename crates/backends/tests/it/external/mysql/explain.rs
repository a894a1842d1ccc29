//! How the server carries out each statement of the store on a million rows: by an index, and
//! without sorting.

use boxoffice_backends::store::MysqlStore;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use super::server::{open, shared};

/// Rows in each large table.
const ROWS: i64 = 1_000_000;

/// Statements that read a whole table on purpose, and seldom, or one that is small.
const WHOLE: &[(&str, &str)] = &[
    ("SHARDS_CLAIM", "16 rows"),
    ("QUEUES", "a handful of rows"),
    ("ALIASES", "at the start: all opaque tokens"),
    ("ALIASES_SPENT", "at the start: all opaque tokens"),
    ("CONCERT_IDS", "a few rows, to find new ones"),
    ("CONCERTS", "a few rows"),
    ("CALLED_OFF", "a few rows"),
    ("SESSIONS", "some rows, to find new ones"),
    ("CLOCK", "the admissions of some minutes, and the rows of the last ids"),
    ("LAST_EVENT", "four rows of published"),
];

/// What the tables are called in which a scan would hurt.
const LARGE: &[&str] = &[
    "seat",
    "reservation",
    "account",
    "points_entry",
    "payment",
    "refund",
    "spent_ticket",
    "idempotency",
    "outbox",
    "queue_left",
    "person",
    "r",
    "s",
];

async fn fill(conn: &mut Conn) {
    let many = |insert: &str| format!("{insert} FROM seq_1_to_{ROWS}");
    // The sequences are MariaDB's.
    for statement in [
        "INSERT INTO concert VALUES (1, 'c', 'v', 'main', 0, 1)".to_owned(),
        "INSERT INTO session SELECT seq, 1, 0, 2000, NULL FROM seq_1_to_500".to_owned(),
        many(
            "INSERT INTO seat SELECT seq, 1 + (seq - 1) DIV 2000, 1 + seq % 2000, 100, seq % 3, \
              IF(seq % 3 = 0, NULL, seq), IF(seq % 3 = 1, seq, NULL)",
        ),
        many(
            "INSERT INTO reservation SELECT seq, 1 + seq DIV 3, 1, 1 + seq % 500, '[[1,1,100]]', 1, \
              100, seq, seq + 300000, IF(seq % 50 = 0, 0, 1 + seq % 3), NULL, 'main', seq, \
              UNHEX(LPAD(HEX(seq), 32, '0'))",
        ),
        many("INSERT INTO account SELECT seq, 100"),
        many("INSERT INTO points_entry SELECT seq, 1 + seq DIV 2, 1, 1, 1, NULL, seq"),
        many("INSERT INTO payment SELECT seq, seq, 1, 100, seq"),
        many("INSERT INTO refund SELECT seq, seq, 1, 1 + seq % 500, 100, seq % 2, seq"),
        many(
            "INSERT INTO spent_ticket SELECT 'main', seq, UNHEX(LPAD(HEX(seq), 32, '0')), seq, seq",
        ),
        many(
            "INSERT INTO idempotency SELECT 1 + seq DIV 4, CONCAT('key-', seq), \
              UNHEX(REPEAT('00', 32)), seq, seq",
        ),
        many("INSERT INTO outbox SELECT seq, seq % 16, 'concert.concert-reserved', seq, '{}'"),
        many("INSERT INTO queue_left SELECT 'main', seq"),
        many("INSERT INTO person SELECT seq, UNHEX(LPAD(HEX(seq), 64, '0')), 'issuer', 'p', seq"),
        "INSERT INTO queue (name, next, watermark, serving, floor, admit_per_second, \
         active_ttl_ms, claim_window_ms, paused) VALUES ('main', 9, 9, 9, 9, 1, 1, 1, 0)"
            .to_owned(),
        "INSERT INTO setting VALUES ('clock', '5') ON DUPLICATE KEY UPDATE value = '5'".to_owned(),
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let tables = "seat, reservation, account, points_entry, payment, refund, spent_ticket, idempotency, \
                  outbox, queue_left, person, session, queue";
    conn.query_drop(format!("ANALYZE TABLE {tables}")).await.unwrap();
}

/// A value that could stand at a question mark: text where the column before it is text.
fn sample(before: &str) -> Value {
    let column = before
        .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .find(|word| !word.is_empty() && !["IN", "VALUES", "LIMIT"].contains(word))
        .unwrap_or_default();
    match column {
        _ if before.trim_end().ends_with("LIMIT") => 100.into(),
        "queue" | "name" => "main".into(),
        "ticket_id" => vec![0_u8; 16].into(),
        "digest" => vec![0_u8; 32].into(),
        "idem_key" | "token" => "key-1".into(),
        // Nearly everything is newer than what is forgotten, and nearly nothing is due.
        "at" => 5.into(),
        "held_until" => 300_100.into(),
        "seq" | "upto" => (ROWS - 10).into(),
        "id" => 4_711.into(),
        _ => 1.into(),
    }
}

/// Rows in brackets that could stand in the statement.
fn rows_for(name: &str, text: &str) -> String {
    let (ticket, digest) = (format!("X'{}'", "00".repeat(16)), format!("X'{}'", "00".repeat(32)));
    match name {
        "LIVE_SEATS" => "(5, 17, 0), (5, 17, 1), (6, 18, 0), (6, 18, 1), (7, 9, 0)".to_owned(),
        "TICKETS_SPENT" => format!("('main', 4711, {ticket}), ('main', 9, {ticket})"),
        "TICKETS_HOLDS" => format!("(4711, {ticket}), (9, {ticket})"),
        "KEYS_FIND" => "(5, 'key-17'), (6, 'key-21'), (7, 'no such key')".to_owned(),
        // An insert: a value for each column that it names.
        _ => {
            let columns = text.split(['(', ')']).nth(1).unwrap_or_default().split(", ");
            let value = |column: &str| match column.trim() {
                "queue" | "topic" | "items" | "body" => "'main'".to_owned(),
                "idem_key" => "'k'".to_owned(),
                "ticket_id" => ticket.clone(),
                "fingerprint" => digest.clone(),
                _ => "1".to_owned(),
            };
            let row = columns.map(value).collect::<Vec<_>>().join(", ");
            format!("({row}), ({row})")
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_finds_its_rows_by_an_index() {
    let server = shared().database().await;
    open(&server).await.close().await;
    let mut conn = shared().admin(Some(&server.database)).await;
    fill(&mut conn).await;
    let mut complaints = Vec::new();
    let mut looked_at = 0;
    for (name, text) in MysqlStore::statements() {
        let text = text
            .replace("{list}", "?, ?, ?, ?")
            .replace("{first}", "4711")
            .replace("{last}", "4911")
            .replace("{values}", "2,4")
            .replace("{rows}", &rows_for(name, text));
        // An insert without a select finds nothing; EXPLAIN says so.
        let mut values: Vec<Value> = Vec::new();
        for (at, _) in text.match_indices('?') {
            let before = text[..at].trim_end_matches(['?', ',', ' ', '(']);
            let value = sample(before);
            let repeated = text[..at].trim_end().ends_with(',') && text.contains("IN (?, ?");
            values.push(match value {
                // A list of neighbours.
                Value::Int(n) if repeated => Value::Int(n + values.len() as i64),
                value => value,
            });
        }
        let params = if values.is_empty() {
            mysql_async::Params::Empty
        } else {
            mysql_async::Params::Positional(values)
        };
        let plan: Vec<Row> = match conn.exec(format!("EXPLAIN {text}"), params).await {
            Ok(plan) => plan,
            Err(error) => {
                complaints.push(format!("{name}: cannot be explained: {error}"));
                continue;
            }
        };
        looked_at += 1;
        for row in plan {
            let column = |name: &str| -> String {
                row.get_opt::<Option<String>, _>(name)
                    .and_then(Result::ok)
                    .flatten()
                    .unwrap_or_default()
            };
            let rows =
                row.get_opt::<Option<i64>, _>("rows").and_then(Result::ok).flatten().unwrap_or(0);
            let (table, kind, extra) = (column("table"), column("type"), column("Extra"));
            let scan = kind == "ALL" || (kind == "index" && rows > 10_000);
            let sort = extra.contains("filesort") || extra.contains("temporary");
            let large = LARGE.contains(&table.as_str());
            let whole = WHOLE.iter().any(|(whole, _)| whole == name);
            if (large && scan && rows > 100) || (!whole && (scan || sort) && rows > 1_000) {
                complaints.push(format!("{name}: {table} {kind} {rows} rows, {extra}: {text}"));
            }
        }
    }
    assert!(looked_at > 60, "only {looked_at}");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
