//! The tables, and how an older database becomes a current one.
//!
//! A change of tables commits by itself in MySQL, so no transaction can hold a whole step. Instead
//! each statement of a step may run twice, and the version is written last: a step that was cut
//! short is simply run again.

use super::log;
use super::pool::Lease;
use super::rows::{Failure, take};
use crate::Fault;

/// One step for each version; step `n` leads from version `n` to version `n + 1`.
const MIGRATIONS: [&[&str]; 8] = [V1, V2, V3, V4, V5, V6, V7, V8];

/// The version that this binary reads and writes.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Seconds to wait for another instance that is at it.
const LOCK_WAIT_S: i64 = 30;

/// A lock name of this database; names are shared by all databases of a server, and MySQL takes
/// at most 64 characters.
pub(super) fn lock_name(purpose: &str, database: &str) -> String {
    let name = format!("boxoffice.{purpose}.{database}");
    if name.len() <= 64 {
        return name;
    }
    use sha2::Digest;
    let digest = sha2::Sha256::digest(database.as_bytes());
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("boxoffice.{purpose}.{hex}")
}

/// Checks the version, and brings the database to the current one where it is empty or `migrate`
/// asks for it. Returns the version that it had; 0 for an empty one.
pub(super) async fn prepare(
    lease: &mut Lease,
    database: &str,
    migrate: bool,
) -> Result<i64, Fault> {
    let lock = lock_name("migrate", database);
    let got = lease
        .rows("SELECT GET_LOCK(?, ?)", vec![lock.as_str().into(), LOCK_WAIT_S.into()])
        .await?
        .pop()
        .map(|mut row| take::<Option<i64>>(&mut row, 0))
        .transpose()?
        .flatten();
    if got != Some(1) {
        return Err(Fault::Unavailable(format!(
            "another boxoffice has been migrating the database {database} for {LOCK_WAIT_S} s; \
             wait until it is done"
        )));
    }
    let done = prepare_locked(lease, database, migrate).await;
    lease.rows("SELECT RELEASE_LOCK(?)", vec![lock.as_str().into()]).await?;
    done
}

async fn prepare_locked(lease: &mut Lease, database: &str, migrate: bool) -> Result<i64, Fault> {
    let tables = lease
        .rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()",
            vec![],
        )
        .await?
        .into_iter()
        .map(|mut row| take::<String>(&mut row, 0))
        .collect::<Result<Vec<_>, _>>()?;
    let ours = tables.iter().any(|table| table == "schema_version");
    if !ours && !tables.is_empty() {
        return Err(Fault::Unavailable(format!(
            "the database {database} holds tables of another program; nothing was changed. Make an \
             empty database for boxoffice (CREATE DATABASE) and name it in store.mysql.database"
        )));
    }
    if !ours {
        run(lease, "CREATE TABLE schema_version (version INT NOT NULL PRIMARY KEY) ENGINE=InnoDB")
            .await?;
    }
    let found = match version(lease).await? {
        None => {
            run(lease, "INSERT INTO schema_version (version) VALUES (0)").await?;
            0
        }
        Some(found) => found,
    };
    if found > VERSION {
        return Err(Fault::Unavailable(format!(
            "the database {database} has schema version {found}, this binary knows {VERSION}. A \
             newer boxoffice wrote it: use that one, or restore a backup"
        )));
    }
    if found > 0 && found < VERSION && !migrate {
        return Err(Fault::Unavailable(format!(
            "the database {database} has schema version {found}, this binary needs {VERSION}: stop \
             every instance, make a backup, and run `boxoffice migrate`"
        )));
    }
    for (index, step) in MIGRATIONS.iter().enumerate().skip(usize::try_from(found).unwrap_or(0)) {
        for statement in *step {
            run(lease, statement).await?;
        }
        run(lease, &format!("UPDATE schema_version SET version = {}", index + 1)).await?;
    }
    begin_logs(lease).await?;
    Ok(found)
}

/// Begins the logs of queues from before there were any.
async fn begin_logs(lease: &mut Lease) -> Result<(), Fault> {
    run(lease, "START TRANSACTION").await?;
    log::begin(lease).await?;
    run(lease, "COMMIT").await
}

async fn version(lease: &mut Lease) -> Result<Option<i64>, Failure> {
    let rows = lease.rows("SELECT MAX(version) FROM schema_version", vec![]).await?;
    rows.into_iter().next().map_or(Ok(None), |mut row| take(&mut row, 0))
}

async fn run(lease: &mut Lease, statement: &str) -> Result<(), Fault> {
    Ok(lease.text(statement).await?)
}

/// Times are milliseconds since 1970, money is points, `state` columns are named in `columns.rs`.
/// Tokens and keys are bytes, so that neither case nor a space at the end makes two of them equal.
const V1: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS setting (name VARCHAR(64) NOT NULL PRIMARY KEY, \
     value MEDIUMTEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS counter (name VARCHAR(32) NOT NULL PRIMARY KEY, \
     value BIGINT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "INSERT IGNORE INTO counter (name, value) VALUES ('seat', 0)",
    "CREATE TABLE IF NOT EXISTS concert (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     name TEXT NOT NULL, venue TEXT NOT NULL, queue VARCHAR(40) NOT NULL, \
     opens_at BIGINT NOT NULL, closes_at BIGINT NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    // `seats` counts them, so that other instances see that some were added.
    "CREATE TABLE IF NOT EXISTS session (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     concert_id BIGINT NOT NULL, starts_at BIGINT NOT NULL, seats INT UNSIGNED NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    // Ids come from `counter`, because those of one call follow each other without a gap.
    "CREATE TABLE IF NOT EXISTS seat (id BIGINT NOT NULL PRIMARY KEY, \
     session_id BIGINT NOT NULL, number INT UNSIGNED NOT NULL, price BIGINT NOT NULL, \
     state TINYINT NOT NULL, reservation_id BIGINT, held_until BIGINT, \
     KEY seat_by_session (session_id, id)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    // `items` is what was agreed: [[seat, number, price], ...]. It stays when the seats go on.
    "CREATE TABLE IF NOT EXISTS reservation (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     user_id BIGINT NOT NULL, concert_id BIGINT NOT NULL, session_id BIGINT NOT NULL, \
     items MEDIUMTEXT NOT NULL, seat_count INT NOT NULL, total BIGINT NOT NULL, \
     created_at BIGINT NOT NULL, held_until BIGINT NOT NULL, state TINYINT NOT NULL, \
     payment_id BIGINT, KEY reservation_by_user (user_id, session_id), \
     KEY reservation_held (state, held_until)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS account (user_id BIGINT NOT NULL PRIMARY KEY, \
     balance BIGINT NOT NULL CHECK (balance >= 0)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS points_entry (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     user_id BIGINT NOT NULL, amount BIGINT NOT NULL, balance BIGINT NOT NULL, \
     kind TINYINT NOT NULL, payment_id BIGINT, at BIGINT NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS payment (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     reservation_id BIGINT NOT NULL UNIQUE, user_id BIGINT NOT NULL, amount BIGINT NOT NULL, \
     paid_at BIGINT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    // A ticket that paid, or (without a payment) was given up after its admission.
    "CREATE TABLE IF NOT EXISTS spent_ticket (queue VARCHAR(40) NOT NULL, seq BIGINT NOT NULL, \
     ticket_id BINARY(16) NOT NULL, payment_id BIGINT, at BIGINT NOT NULL, \
     PRIMARY KEY (queue, seq, ticket_id)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS idempotency (user_id BIGINT NOT NULL, \
     idem_key VARBINARY(255) NOT NULL, fingerprint BINARY(32) NOT NULL, \
     result_id BIGINT NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (user_id, idem_key), \
     KEY idempotency_by_age (at)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS outbox (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     shard TINYINT NOT NULL, topic VARCHAR(64) NOT NULL, event_key BIGINT NOT NULL, \
     body MEDIUMTEXT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS outbox_shard (shard TINYINT NOT NULL PRIMARY KEY) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "INSERT IGNORE INTO outbox_shard (shard) VALUES \
     (0), (1), (2), (3), (4), (5), (6), (7), (8), (9), (10), (11), (12), (13), (14), (15)",
    // How many events of a topic have left, and the highest outbox id among them.
    "CREATE TABLE IF NOT EXISTS published (topic VARCHAR(64) NOT NULL PRIMARY KEY, \
     sent BIGINT NOT NULL, last_id BIGINT NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS queue (name VARCHAR(40) NOT NULL PRIMARY KEY, \
     next BIGINT NOT NULL, watermark BIGINT NOT NULL, serving BIGINT NOT NULL, \
     floor BIGINT NOT NULL, claimed LONGBLOB, credit_micro BIGINT, credit_at BIGINT, \
     admit_per_second DOUBLE NOT NULL, max_active BIGINT, \
     active_ttl_ms BIGINT NOT NULL, claim_window_ms BIGINT NOT NULL, opens_at BIGINT, \
     paused TINYINT NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS admission (queue VARCHAR(40) NOT NULL, upto BIGINT NOT NULL, \
     at BIGINT NOT NULL, PRIMARY KEY (queue, upto)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS queue_left (queue VARCHAR(40) NOT NULL, seq BIGINT NOT NULL, \
     PRIMARY KEY (queue, seq)) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS alias (token VARBINARY(400) NOT NULL PRIMARY KEY, \
     queue VARCHAR(40) NOT NULL, seq BIGINT NOT NULL, user_id BIGINT NOT NULL, \
     issued_at BIGINT NOT NULL, ticket_id BINARY(16) NOT NULL, active_until BIGINT) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
];

/// Ids of the sale come in blocks from `counter`; what took them from AUTO_INCREMENT could give one
/// twice, so it is taken away from an older program. `reservation_live` lets holds that were given
/// back be passed over. Only MariaDB knows IF NOT EXISTS for an index, so the statement is made of
/// what is there.
const V2: &[&str] = &[
    "INSERT IGNORE INTO counter (name, value) \
     SELECT 'reservation', COALESCE(MAX(id), 0) FROM reservation",
    "INSERT IGNORE INTO counter (name, value) \
     SELECT 'payment', COALESCE(MAX(id), 0) FROM payment",
    "INSERT IGNORE INTO counter (name, value) \
     SELECT 'entry', COALESCE(MAX(id), 0) FROM points_entry",
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.statistics \
     WHERE table_schema = DATABASE() AND index_name = 'reservation_live'), 'DO 0', \
     'ALTER TABLE reservation ADD KEY reservation_live (user_id, session_id, state), \
     DROP KEY reservation_by_user')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
    "ALTER TABLE reservation MODIFY id BIGINT NOT NULL",
    "ALTER TABLE payment MODIFY id BIGINT NOT NULL",
    "ALTER TABLE points_entry MODIFY id BIGINT NOT NULL",
];

/// Who is not there when it is their turn is passed over: the numbers (in parts of 65,536), and when
/// those who came back were let in. `pool` and so on say what a pool of numbers was granted last.
/// `instance` is what instances tell each other twice a second; it need not outlive them.
const V3: &[&str] = &[
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'queue' AND column_name = 'steps'), 'DO 0', \
     'ALTER TABLE queue ADD COLUMN steps BIGINT NOT NULL DEFAULT 0, \
     ADD COLUMN pool VARCHAR(128) NOT NULL DEFAULT '''', \
     ADD COLUMN pool_after BIGINT NOT NULL DEFAULT 0, \
     ADD COLUMN pool_first BIGINT NOT NULL DEFAULT 0, \
     ADD COLUMN pool_last BIGINT NOT NULL DEFAULT 0')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
    "CREATE TABLE IF NOT EXISTS queue_passed (queue VARCHAR(40) NOT NULL, part BIGINT NOT NULL, \
     seqs MEDIUMBLOB NOT NULL, PRIMARY KEY (queue, part)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS readmitted (queue VARCHAR(40) NOT NULL, seq BIGINT NOT NULL, \
     at BIGINT NOT NULL, PRIMARY KEY (queue, seq), KEY readmitted_by_age (queue, at)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS instance (name VARCHAR(64) NOT NULL PRIMARY KEY, \
     at BIGINT NOT NULL, since BIGINT NOT NULL, ended BOOLEAN NOT NULL, redis_at BIGINT NOT NULL, \
     ticket_keys VARCHAR(1000) NOT NULL, present LONGBLOB NOT NULL, claimed LONGBLOB NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
];

/// People by the digest of what the issuer of their tokens calls them. Operators by their tokens, of
/// which a digest is stored; what they changed; and what was answered under the idempotency keys of
/// their requests. A reservation knows the ticket that holds it: what it has held is counted, and a
/// payment spends it. Sessions that were called off, and refunds.
const V4: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS operator (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     name VARCHAR(40) NOT NULL, role VARCHAR(16) NOT NULL, digest BINARY(32) NOT NULL, \
     created_at BIGINT NOT NULL, removed_at BIGINT NOT NULL, UNIQUE KEY (name, removed_at)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS change_log (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     at BIGINT NOT NULL, who VARCHAR(40) NOT NULL, role VARCHAR(16) NOT NULL, \
     origin VARCHAR(64) NOT NULL, operation VARCHAR(64) NOT NULL, target VARCHAR(128) NOT NULL, \
     was TEXT, became TEXT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS change_key (who VARCHAR(40) NOT NULL, \
     idem_key VARBINARY(255) NOT NULL, fingerprint BINARY(32) NOT NULL, answer TEXT NOT NULL, \
     at BIGINT NOT NULL, PRIMARY KEY (who, idem_key), KEY change_key_by_age (at)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS person (id BIGINT NOT NULL PRIMARY KEY, \
     digest BINARY(32) NOT NULL, issuer VARCHAR(1000) NOT NULL, name VARCHAR(255) NOT NULL, \
     at BIGINT NOT NULL, UNIQUE KEY person_by_digest (digest)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "INSERT IGNORE INTO counter (name, value) VALUES ('person', 0)",
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'reservation' \
     AND column_name = 'ticket_id'), 'DO 0', \
     'ALTER TABLE reservation ADD COLUMN queue VARCHAR(40), ADD COLUMN ticket_seq BIGINT, \
     ADD COLUMN ticket_id BINARY(16), ADD KEY reservation_by_ticket (ticket_seq, ticket_id), \
     ADD KEY reservation_of_user (user_id, created_at)')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
    "CREATE TABLE IF NOT EXISTS called_off (session_id BIGINT NOT NULL PRIMARY KEY, \
     concert_id BIGINT NOT NULL, at BIGINT NOT NULL) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS refund (payment_id BIGINT NOT NULL PRIMARY KEY, \
     reservation_id BIGINT NOT NULL UNIQUE, user_id BIGINT NOT NULL, session_id BIGINT NOT NULL, \
     amount BIGINT NOT NULL, called_off TINYINT NOT NULL, refunded_at BIGINT NOT NULL, \
     KEY refund_by_session (session_id, called_off)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    // What an instance decides by, as `name=value` in lines.
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'instance' AND column_name = 'rules'), \
     'DO 0', 'ALTER TABLE instance ADD COLUMN rules TEXT NOT NULL')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
];

/// The admission log as a chain: records, of which each has a digest that goes on from the one before, and
/// which of them say where the queue stands. `chain` is the digest of the last one. It is empty until the
/// store is opened for the first time (`begin_logs`).
const V5: &[&str] = &[
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'queue' AND column_name = 'chain'), 'DO 0', \
     'ALTER TABLE queue ADD COLUMN chain BINARY(32)')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
    "CREATE TABLE IF NOT EXISTS admission_log (queue VARCHAR(40) NOT NULL, step BIGINT NOT NULL, \
     record MEDIUMBLOB NOT NULL, digest BINARY(32) NOT NULL, PRIMARY KEY (queue, step)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "CREATE TABLE IF NOT EXISTS admission_mark (queue VARCHAR(40) NOT NULL, step BIGINT NOT NULL, \
     at BIGINT NOT NULL, PRIMARY KEY (queue, step)) \
     ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
];

/// The opening draw: its seed where there is to be one, and how many were drawn.
const V6: &[&str] = &[
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'queue' AND column_name = 'drawn'), 'DO 0', \
     'ALTER TABLE queue ADD COLUMN draw_seed BINARY(32), ADD COLUMN drawn BIGINT')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
];

/// Halls by the digests of their bytes, and which of them a session has.
const V7: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS plan (digest BINARY(32) NOT NULL PRIMARY KEY, \
     body MEDIUMBLOB NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin",
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'session' AND column_name = 'plan'), 'DO 0', \
     'ALTER TABLE session ADD COLUMN plan BINARY(32)')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
];

/// Why an operator has changed something, and which change was taken back: each once. People are found by what
/// their issuer calls them.
const V8: &[&str] = &[
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.columns \
     WHERE table_schema = DATABASE() AND table_name = 'change_log' AND column_name = 'undoes'), \
     'DO 0', 'ALTER TABLE change_log ADD COLUMN reason VARCHAR(255), ADD COLUMN undoes BIGINT, \
     ADD UNIQUE KEY change_log_undoes (undoes)')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
    "SET @step = IF(EXISTS (SELECT 1 FROM information_schema.statistics \
     WHERE table_schema = DATABASE() AND index_name = 'person_by_name'), 'DO 0', \
     'ALTER TABLE person ADD KEY person_by_name (name)')",
    "PREPARE step FROM @step",
    "EXECUTE step",
    "DEALLOCATE PREPARE step",
];
