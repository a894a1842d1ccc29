//! The tables, and how an older file becomes a current one.

use rusqlite::Connection;

/// Marks the file as ours: "BOXO".
const APPLICATION_ID: i64 = 0x424f_584f;

/// One step for each version; step `n` leads from version `n` to version `n + 1`.
const MIGRATIONS: [&str; 9] = [V1, V2, V3, V4, V5, V6, V7, V8, V9];

/// The version that this binary reads and writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What stands in the way of using the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SchemaProblem {
    /// It is a SQLite file of some other program.
    Foreign,
    /// A newer binary wrote it.
    Newer(i64),
}

/// The version of a file that is ours or empty (0). Only reads.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<Result<i64, SchemaProblem>> {
    let application: i64 = connection.pragma_query_value(None, "application_id", |r| r.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |r| r.get(0))?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if application != APPLICATION_ID && (application != 0 || version != 0 || tables != 0) {
        return Ok(Err(SchemaProblem::Foreign));
    }
    if version > VERSION {
        return Ok(Err(SchemaProblem::Newer(version)));
    }
    Ok(Ok(version))
}

/// Brings the file to the current version. Returns the version that it had; 0 for an empty one.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<Result<i64, SchemaProblem>> {
    let version = match version(connection)? {
        Ok(version) => version,
        Err(problem) => return Ok(Err(problem)),
    };
    for (index, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
        // One transaction a step: a crash in between leaves the file at a whole version.
        let tx = connection.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", index as i64 + 1)?;
        tx.commit()?;
    }
    Ok(Ok(version))
}

/// Times are milliseconds since 1970, money is points, `state` columns are named in `rows.rs`.
const V1: &str = "
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE concert (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, venue TEXT NOT NULL, queue TEXT NOT NULL,
    opens_at INTEGER NOT NULL, closes_at INTEGER NOT NULL
) STRICT;
CREATE TABLE session (
    id INTEGER PRIMARY KEY, concert_id INTEGER NOT NULL, starts_at INTEGER NOT NULL
) STRICT;
CREATE TABLE seat (
    id INTEGER PRIMARY KEY, session_id INTEGER NOT NULL, number INTEGER NOT NULL,
    price INTEGER NOT NULL, state INTEGER NOT NULL, reservation_id INTEGER, held_until INTEGER
) STRICT;

-- `items` is what was agreed: [[seat, number, price], ...]. It stays when the seats go on.
CREATE TABLE reservation (
    id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, concert_id INTEGER NOT NULL,
    session_id INTEGER NOT NULL, items TEXT NOT NULL, seat_count INTEGER NOT NULL,
    total INTEGER NOT NULL, created_at INTEGER NOT NULL, held_until INTEGER NOT NULL,
    state INTEGER NOT NULL, payment_id INTEGER
) STRICT;
CREATE INDEX reservation_by_user ON reservation (user_id, session_id);
CREATE INDEX reservation_held ON reservation (held_until) WHERE state = 0;

CREATE TABLE account (user_id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) STRICT;
CREATE TABLE points_entry (
    id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, amount INTEGER NOT NULL,
    balance INTEGER NOT NULL, kind INTEGER NOT NULL, payment_id INTEGER, at INTEGER NOT NULL
) STRICT;
CREATE TABLE payment (
    id INTEGER PRIMARY KEY, reservation_id INTEGER NOT NULL UNIQUE, user_id INTEGER NOT NULL,
    amount INTEGER NOT NULL, paid_at INTEGER NOT NULL
) STRICT;
-- A ticket that paid, or (without a payment) was given up after its admission.
CREATE TABLE spent_ticket (
    queue TEXT NOT NULL, seq INTEGER NOT NULL, ticket_id BLOB NOT NULL, payment_id INTEGER,
    at INTEGER NOT NULL, PRIMARY KEY (queue, seq, ticket_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE idempotency (
    user_id INTEGER NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL,
    result_id INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (user_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at);

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
-- How many events of a topic have left, and the highest outbox id among them.
CREATE TABLE published (
    topic TEXT PRIMARY KEY, count INTEGER NOT NULL, last_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queue (
    name TEXT PRIMARY KEY, next INTEGER NOT NULL, watermark INTEGER NOT NULL,
    serving INTEGER NOT NULL, floor INTEGER NOT NULL, claimed BLOB,
    admit_per_second REAL NOT NULL, max_active INTEGER, active_ttl_ms INTEGER NOT NULL,
    claim_window_ms INTEGER NOT NULL, opens_at INTEGER, paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE admission (
    queue TEXT NOT NULL, upto INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (queue, upto)
) STRICT, WITHOUT ROWID;
CREATE TABLE queue_left (
    queue TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE alias (
    token TEXT PRIMARY KEY, queue TEXT NOT NULL, seq INTEGER NOT NULL, user_id INTEGER NOT NULL,
    issued_at INTEGER NOT NULL, ticket_id BLOB NOT NULL, active_until INTEGER
) STRICT, WITHOUT ROWID;
";

/// Several instances share a queue's credit.
const V2: &str = "
ALTER TABLE queue ADD COLUMN credit_micro INTEGER;
ALTER TABLE queue ADD COLUMN credit_at INTEGER;
";

/// Whoever holds and gives back again and again leaves reservations that nobody counts any more.
const V3: &str = "
CREATE INDEX reservation_live ON reservation (user_id, session_id) WHERE state <= 1;
DROP INDEX reservation_by_user;
";

/// Who is not there when it is their turn is passed over: the numbers (in parts of 65,536), and when
/// those who came back were let in. `pool` and so on say what a pool of numbers was granted last.
const V4: &str = "
ALTER TABLE queue ADD COLUMN steps INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN pool TEXT NOT NULL DEFAULT '';
ALTER TABLE queue ADD COLUMN pool_after INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN pool_first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE queue ADD COLUMN pool_last INTEGER NOT NULL DEFAULT 0;
CREATE TABLE queue_passed (
    queue TEXT NOT NULL, part INTEGER NOT NULL, seqs BLOB NOT NULL, PRIMARY KEY (queue, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE readmitted (
    queue TEXT NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
";

/// People by the digest of what the issuer of their tokens calls them. Operators by their tokens, of
/// which a digest is stored; what they changed; and what was answered under the idempotency keys of
/// their requests. A reservation knows the ticket that holds it: what it has held is counted, and a
/// payment spends it. Its numbers rise, so the index grows at its end. Sessions that were called off,
/// and refunds.
const V5: &str = "
CREATE TABLE operator (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, digest BLOB NOT NULL,
    created_at INTEGER NOT NULL, removed_at INTEGER NOT NULL, UNIQUE (name, removed_at)
) STRICT;
CREATE TABLE change_log (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, role TEXT NOT NULL,
    origin TEXT NOT NULL, operation TEXT NOT NULL, target TEXT NOT NULL, was TEXT, became TEXT
) STRICT;
CREATE TABLE change_key (
    who TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL, answer TEXT NOT NULL,
    at INTEGER NOT NULL, PRIMARY KEY (who, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX change_key_by_age ON change_key (at);
CREATE TABLE person (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, issuer TEXT NOT NULL, name TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
ALTER TABLE reservation ADD COLUMN queue TEXT;
ALTER TABLE reservation ADD COLUMN ticket_seq INTEGER;
ALTER TABLE reservation ADD COLUMN ticket_id BLOB;
CREATE INDEX reservation_by_ticket ON reservation (ticket_seq, ticket_id)
    WHERE ticket_id IS NOT NULL;
CREATE TABLE refund (
    payment_id INTEGER PRIMARY KEY, reservation_id INTEGER NOT NULL UNIQUE,
    user_id INTEGER NOT NULL, session_id INTEGER NOT NULL, amount INTEGER NOT NULL,
    called_off INTEGER NOT NULL, refunded_at INTEGER NOT NULL
) STRICT;
CREATE TABLE called_off (
    session_id INTEGER PRIMARY KEY, concert_id INTEGER NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE INDEX refund_by_session ON refund (session_id, called_off);
CREATE INDEX reservation_of_user ON reservation (user_id, created_at);
";

/// The admission log as a chain: records, of which each has a digest that goes on from the one before, and
/// which of them say where the queue stands. `chain` is the digest of the last one. It is empty until the
/// store is opened for the first time (`begin_logs`).
const V6: &str = "
ALTER TABLE queue ADD COLUMN chain BLOB;
CREATE TABLE admission_log (
    queue TEXT NOT NULL, step INTEGER NOT NULL, record BLOB NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (queue, step)
) STRICT, WITHOUT ROWID;
CREATE TABLE admission_mark (
    queue TEXT NOT NULL, step INTEGER NOT NULL, at INTEGER NOT NULL, PRIMARY KEY (queue, step)
) STRICT, WITHOUT ROWID;
";

/// The opening draw: its seed where there is to be one, and how many were drawn.
const V7: &str = "
ALTER TABLE queue ADD COLUMN draw_seed BLOB;
ALTER TABLE queue ADD COLUMN drawn INTEGER;
";

/// Halls by the digests of their bytes, and which of them a session has.
const V8: &str = "
CREATE TABLE plan (digest BLOB PRIMARY KEY, body BLOB NOT NULL) STRICT;
ALTER TABLE session ADD COLUMN plan BLOB;
";

/// Why an operator has changed something, and which change was taken back: each once. People are found by what
/// their issuer calls them.
const V9: &str = "
ALTER TABLE change_log ADD COLUMN reason TEXT;
ALTER TABLE change_log ADD COLUMN undoes INTEGER;
CREATE UNIQUE INDEX change_log_undoes ON change_log (undoes) WHERE undoes IS NOT NULL;
CREATE INDEX person_by_name ON person (name);
";
