//! Every statement that the store sends while it runs, in one list: a test asks the server how it
//! would carry out each of them on a million rows. `{list}` stands for ids in their order,
//! `{values}` for what belongs to each of them, `{rows}` for rows in brackets, `{first}` and `{last}`
//! for ids. `ELT(INTERVAL(id, …), …)` finds the value of an id by binary search.
//!
//! Only what MySQL 8 and MariaDB 10.6 both understand. Rows are locked by primary key and in its
//! order; `FORCE INDEX` keeps the server from locking its way through a table that is small.

macro_rules! statements {
    ($($name:ident = $text:expr;)*) => {
        $(pub(super) const $name: &str = $text;)*

        /// Every statement by its name.
        #[cfg(feature = "external")]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    // ---- the sale: looking, without locks ----
    ACCOUNTS_KNOWN = "SELECT user_id FROM account WHERE user_id IN ({list})";
    BALANCE = "SELECT balance FROM account WHERE user_id = ?";
    SEATS = "SELECT id, number, price, state, reservation_id, held_until, session_id FROM seat \
        FORCE INDEX (PRIMARY) WHERE id IN ({list})";
    RESERVATIONS = "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id, queue, ticket_seq, ticket_id FROM reservation FORCE INDEX (PRIMARY) \
        WHERE id IN ({list})";
    RESERVATIONS_OF = "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id, queue, ticket_seq, ticket_id FROM reservation \
        FORCE INDEX (reservation_of_user) WHERE user_id = ? AND created_at <= ? \
        AND (created_at < ? OR id < ?) ORDER BY created_at DESC, id DESC LIMIT ?";
    RESERVATION_MADE = "SELECT created_at FROM reservation WHERE id = ? AND user_id = ?";
    RESERVATIONS_DUE = "SELECT id FROM reservation FORCE INDEX (reservation_held) \
        WHERE state = 0 AND held_until <= ? ORDER BY held_until LIMIT ?";
    LIVE_SEATS = "SELECT user_id, session_id, id, seat_count, state, held_until FROM reservation \
        FORCE INDEX (reservation_live) WHERE (user_id, session_id, state) IN ({rows})";
    TICKETS_SPENT = "SELECT queue, seq, ticket_id FROM spent_ticket \
        WHERE (queue, seq, ticket_id) IN ({rows})";
    TICKETS_HOLDS = "SELECT queue, ticket_seq, ticket_id, id, state, held_until FROM reservation \
        FORCE INDEX (reservation_by_ticket) WHERE (ticket_seq, ticket_id) IN ({rows})";
    KEYS_FIND = "SELECT user_id, idem_key, fingerprint, result_id FROM idempotency \
        WHERE (user_id, idem_key) IN ({rows})";
    CALLED_OFF_OF = "SELECT session_id FROM called_off WHERE session_id IN ({list})";
    PAYMENTS = "SELECT id, reservation_id, amount, paid_at FROM payment WHERE id IN ({list})";
    REFUNDS = "SELECT payment_id, reservation_id, amount, refunded_at FROM refund \
        WHERE payment_id IN ({list})";
    ENTRIES = "SELECT id, balance FROM points_entry WHERE id IN ({list})";

    // ---- the sale: locking, in this order; what others have locked is left out ----
    ACCOUNTS_MAKE = "INSERT INTO account (user_id, balance) VALUES {rows}";
    ACCOUNTS_LOCK = "SELECT user_id, balance FROM account FORCE INDEX (PRIMARY) \
        WHERE user_id IN ({list}) ORDER BY user_id FOR UPDATE SKIP LOCKED";
    SEATS_LOCK = "SELECT id, number, price, state, reservation_id, held_until, session_id \
        FROM seat FORCE INDEX (PRIMARY) WHERE id IN ({list}) ORDER BY id FOR UPDATE SKIP LOCKED";
    RESERVATIONS_LOCK = "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id, queue, ticket_seq, ticket_id FROM reservation FORCE INDEX (PRIMARY) \
        WHERE id IN ({list}) ORDER BY id FOR UPDATE SKIP LOCKED";

    // ---- the sale: saving ----
    IDS_TAKE = "UPDATE counter SET value = LAST_INSERT_ID(value + ?) WHERE name = ?";
    RESERVATIONS_ADD = "INSERT INTO reservation (id, user_id, concert_id, session_id, items, \
        seat_count, total, created_at, held_until, state, payment_id, queue, ticket_seq, \
        ticket_id) VALUES {rows}";
    RESERVATIONS_PAY = "UPDATE reservation SET state = 1, \
        payment_id = ELT(INTERVAL(id, {list}), {values}) WHERE id IN ({list}) AND state = 0";
    RESERVATIONS_CANCEL = "UPDATE reservation SET state = 2 WHERE id IN ({list}) AND state = 0";
    RESERVATIONS_EXPIRE = "UPDATE reservation SET state = 3 WHERE id IN ({list}) AND state = 0";
    RESERVATIONS_REFUND = "UPDATE reservation SET state = 4, \
        payment_id = ELT(INTERVAL(id, {list}), {values}) WHERE id IN ({list}) \
        AND state IN (0, 1)";
    SEATS_SET = "UPDATE seat SET state = ELT(INTERVAL(id, {list}), {values}), \
        reservation_id = ELT(INTERVAL(id, {list}), {values}), \
        held_until = ELT(INTERVAL(id, {list}), {values}) WHERE id IN ({list})";
    ACCOUNTS_SET = "INSERT INTO account (user_id, balance) VALUES {rows} \
        ON DUPLICATE KEY UPDATE balance = VALUES(balance)";
    ENTRIES_ADD = "INSERT INTO points_entry (id, user_id, amount, balance, kind, payment_id, at) \
        VALUES {rows}";
    PAYMENTS_ADD = "INSERT INTO payment (id, reservation_id, user_id, amount, paid_at) \
        VALUES {rows}";
    REFUNDS_ADD = "INSERT INTO refund (payment_id, reservation_id, user_id, session_id, amount, \
        called_off, refunded_at) VALUES {rows}";
    TICKETS_SPEND = "INSERT INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
        VALUES {rows}";
    LINES_LEAVE = "INSERT INTO queue_left (queue, seq) VALUES {rows} \
        ON DUPLICATE KEY UPDATE seq = VALUES(seq)";
    KEYS_ADD = "INSERT INTO idempotency (user_id, idem_key, fingerprint, result_id, at) \
        VALUES {rows}";
    EVENTS_ADD = "INSERT INTO outbox (shard, topic, event_key, body) VALUES {rows}";

    // ---- idempotency keys ----
    KEYS_FORGET = "DELETE FROM idempotency WHERE at < ? ORDER BY at LIMIT ?";

    // ---- what is committed and seen, and may not be on the disk yet ----
    // The log is written in order: with this commit all that others had committed before it is there.
    LOG_FLUSH = "INSERT INTO setting (name, value) VALUES ('log_flushes', '1') \
        ON DUPLICATE KEY UPDATE value = value + 1";

    // ---- events ----
    SHARDS_LOCK = "SELECT shard FROM outbox_shard ORDER BY shard FOR UPDATE SKIP LOCKED";
    EVENTS_OF_SHARDS = "SELECT id, topic, event_key, body FROM outbox FORCE INDEX (PRIMARY) \
        WHERE shard IN ({list}) ORDER BY id LIMIT ?";
    EVENTS_FORGET = "DELETE FROM outbox WHERE id BETWEEN {first} AND {last}";
    PUBLISHED_ADD = "INSERT INTO published (topic, sent, last_id) VALUES (?, ?, ?) \
        ON DUPLICATE KEY UPDATE sent = sent + VALUES(sent), \
        last_id = GREATEST(last_id, VALUES(last_id))";
    LAST_EVENT = "SELECT GREATEST(COALESCE((SELECT MAX(id) FROM outbox), 0), \
        COALESCE((SELECT MAX(last_id) FROM published), 0))";

    // ---- queues ----
    QUEUES = "SELECT name, next, watermark, serving, floor, claimed, credit_micro, credit_at, \
        admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, paused, steps, \
        draw_seed, drawn FROM queue ORDER BY name";
    QUEUE_DRAWING = "SELECT draw_seed, drawn FROM queue WHERE name = ?";
    QUEUE_SEED = "UPDATE queue SET draw_seed = ? WHERE name = ?";
    QUEUE_UNDECIDED = "SELECT draw_seed, drawn, opens_at, next, watermark FROM queue \
        WHERE name = ? FOR UPDATE";
    QUEUE_DRAWN = "UPDATE queue SET drawn = ?, next = GREATEST(next, ?), \
        watermark = GREATEST(watermark, ?) WHERE name = ?";
    UNDRAWN = "SELECT name FROM queue WHERE draw_seed IS NOT NULL AND drawn IS NULL \
        ORDER BY name";
    QUEUE_ADMISSIONS = "SELECT upto, at FROM admission WHERE queue = ? AND upto > ? ORDER BY upto";
    QUEUE_LEFT = "SELECT seq FROM queue_left WHERE queue = ? AND seq > ?";
    QUEUE_PASSED = "SELECT seqs FROM queue_passed WHERE queue = ?";
    QUEUE_PART = "SELECT seqs FROM queue_passed WHERE queue = ? AND part = ?";
    QUEUE_PART_SET = "INSERT INTO queue_passed (queue, part, seqs) VALUES (?, ?, ?) \
        ON DUPLICATE KEY UPDATE seqs = VALUES(seqs)";
    READMITTED = "SELECT seq, at FROM readmitted WHERE queue = ? ORDER BY seq";
    READMITTED_ADD = "INSERT INTO readmitted (queue, seq, at) VALUES {rows}";
    READMITTED_FORGET = "DELETE FROM readmitted WHERE queue = ? AND at < ?";
    TICKET_SPENT = "SELECT 1 FROM spent_ticket WHERE queue = ? AND seq = ? AND ticket_id = ?";
    QUEUE_SPENT = "SELECT seq, payment_id IS NOT NULL FROM spent_ticket \
        WHERE queue = ? AND seq > ?";
    READMITTED_SPENT = "SELECT s.seq, s.payment_id IS NOT NULL FROM readmitted r \
        JOIN spent_ticket s ON s.queue = r.queue \
        AND s.seq = r.seq WHERE r.queue = ? AND r.seq > ?";
    QUEUE_ADD = "INSERT INTO queue (name, next, watermark, serving, floor, admit_per_second, \
        max_active, active_ttl_ms, claim_window_ms, opens_at, paused) \
        VALUES (?, 0, 0, 0, 0, ?, ?, ?, ?, ?, ?)";
    QUEUE_CHANGE = "UPDATE queue SET admit_per_second = COALESCE(?, admit_per_second), \
        max_active = IF(?, ?, max_active), opens_at = IF(?, ?, opens_at), \
        paused = COALESCE(?, paused), credit_micro = NULL, credit_at = NULL WHERE name = ?";
    QUEUE_SETTINGS = "SELECT admit_per_second, max_active, active_ttl_ms, claim_window_ms, \
        opens_at, paused FROM queue WHERE name = ?";
    QUEUE_SETTINGS_LOCK = "SELECT admit_per_second, max_active, active_ttl_ms, claim_window_ms, \
        opens_at, paused FROM queue WHERE name = ? FOR UPDATE";
    QUEUE_EXISTS = "SELECT 1 FROM queue WHERE name = ?";
    QUEUE_GRANTED = "SELECT watermark, pool, pool_after, pool_first, pool_last FROM queue \
        WHERE name = ? FOR UPDATE";
    QUEUE_GRANT = "UPDATE queue SET watermark = ?, pool = ?, pool_after = ?, pool_first = ?, \
        pool_last = ? WHERE name = ?";
    QUEUE_TAKE = "UPDATE queue SET watermark = ?, next = ? WHERE name = ?";
    // The digest of the step goes on from the one that the step was planned on, in one statement with it.
    QUEUE_ADVANCE = "UPDATE queue SET steps = steps + 1, \
        chain = UNHEX(SHA2(CONCAT(chain, UNHEX(?)), 256)), serving = ?, next = GREATEST(next, ?), \
        watermark = GREATEST(watermark, ?), credit_micro = ?, credit_at = ? \
        WHERE name = ? AND steps = ? AND serving = ? AND paused = 0 AND ? BETWEEN \
        TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 - ? \
        AND TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000 + ?";
    QUEUE_HEAD = "SELECT serving, steps, chain FROM queue WHERE name = ? FOR UPDATE";
    QUEUE_STEPPED = "UPDATE queue SET steps = ?, chain = ? WHERE name = ?";
    LOG_ADVANCED = "INSERT INTO admission_log (queue, step, record, digest) \
        SELECT name, steps, ?, chain FROM queue WHERE name = ?";
    LOG_APPEND = "INSERT INTO admission_log (queue, step, record, digest) VALUES (?, ?, ?, ?)";
    LOG_HEAD = "SELECT steps, chain FROM queue WHERE name = ?";
    LOG_PART = "SELECT step, record, digest FROM admission_log WHERE queue = ? AND step >= ? \
        ORDER BY step LIMIT ?";
    LOG_FORGET = "DELETE FROM admission_log WHERE queue = ? AND step < ? ORDER BY step LIMIT ?";
    LOGLESS = "SELECT name, steps FROM queue WHERE chain IS NULL AND NOT EXISTS \
        (SELECT 1 FROM admission_log WHERE queue = name) ORDER BY name";
    QUEUE_NAMES = "SELECT name FROM queue ORDER BY name";
    MARK_ADD = "INSERT INTO admission_mark (queue, step, at) VALUES (?, ?, ?)";
    MARKS = "SELECT step, at FROM admission_mark WHERE queue = ? ORDER BY step DESC LIMIT ?";
    MARK_KEPT = "SELECT MAX(step) FROM admission_mark WHERE queue = ? AND at < ?";
    MARKS_FORGET = "DELETE FROM admission_mark WHERE queue = ? AND step < ?";
    QUEUE_STANDING = "SELECT serving, admit_per_second, max_active, active_ttl_ms, \
        claim_window_ms, opens_at, paused FROM queue WHERE name = ?";
    QUEUE_RECORD = "UPDATE queue SET next = GREATEST(next, ?), \
        watermark = GREATEST(watermark, ?), floor = GREATEST(floor, LEAST(serving, ?)) \
        WHERE name = ?";
    QUEUE_RECORDED = "SELECT floor, claimed FROM queue WHERE name = ?";
    QUEUE_CHECKPOINT = "UPDATE queue SET next = ?, watermark = ?, floor = ?, \
        serving = COALESCE(?, serving) WHERE name = ? AND next <= ? AND floor <= ? AND ? <= ? \
        AND serving <= COALESCE(?, serving)";
    QUEUE_CLAIMED = "UPDATE queue SET claimed = ? WHERE name = ?";
    ADMISSION_ADD = "INSERT INTO admission (queue, upto, at) VALUES (?, ?, ?) \
        ON DUPLICATE KEY UPDATE upto = upto";
    ADMISSIONS_FORGET = "DELETE FROM admission WHERE queue = ? AND upto <= ?";
    LEFT_FORGET = "DELETE FROM queue_left WHERE queue = ? AND seq <= ? \
        AND NOT EXISTS (SELECT 1 FROM queue WHERE name = ? AND drawn > ?)";
    CLOCK_NOTE = "INSERT INTO setting (name, value) VALUES ('clock', ?) ON DUPLICATE KEY UPDATE \
        value = IF(CAST(value AS SIGNED) < CAST(VALUES(value) AS SIGNED), VALUES(value), value)";
    // Ids come in blocks, so the latest row is among those of the last blocks of all instances.
    CLOCK = "SELECT GREATEST(\
        COALESCE((SELECT CAST(value AS SIGNED) FROM setting WHERE name = 'clock'), 0), \
        COALESCE((SELECT MAX(at) FROM admission), 0), \
        COALESCE((SELECT MAX(at) FROM readmitted), 0), \
        COALESCE((SELECT MAX(created_at) FROM reservation WHERE id > \
        (SELECT value FROM counter WHERE name = 'reservation') - 20000), 0), \
        COALESCE((SELECT MAX(at) FROM points_entry WHERE id > \
        (SELECT value FROM counter WHERE name = 'entry') - 20000), 0))";
    NOW = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000";
    INSTANCE_BEAT = "INSERT INTO instance (name, at, since, ended, redis_at, ticket_keys, rules, \
        present, claimed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON DUPLICATE KEY UPDATE at = VALUES(at), \
        since = VALUES(since), ended = VALUES(ended), \
        redis_at = IF(VALUES(redis_at) = 0 AND NOT VALUES(ended), redis_at, VALUES(redis_at)), \
        ticket_keys = VALUES(ticket_keys), rules = VALUES(rules), present = VALUES(present), \
        claimed = VALUES(claimed)";
    INSTANCES = "SELECT name, at, since, ended, redis_at, ticket_keys, rules, present, claimed \
        FROM instance WHERE name <> ? AND at > ?";
    INSTANCES_FORGET = "DELETE FROM instance WHERE at < ?";
    INSTANCE_WITH_REDIS = "SELECT name FROM instance WHERE redis_at > ? AND redis_at <= ? LIMIT 1";
    ALIASES_KNOWN = "SELECT token FROM alias WHERE token IN ({list})";
    ALIASES = "SELECT token, queue, seq, user_id, issued_at, ticket_id, active_until FROM alias \
        WHERE active_until IS NULL OR active_until > ?";
    ALIASES_SPENT = "SELECT s.ticket_id, s.payment_id IS NOT NULL \
        FROM (SELECT DISTINCT queue FROM alias) q \
        JOIN spent_ticket s ON s.queue = q.queue AND s.seq = 0 \
        UNION ALL SELECT s.ticket_id, s.payment_id IS NOT NULL FROM alias a JOIN spent_ticket s ON s.queue = a.queue \
        AND s.seq = a.seq AND s.ticket_id = a.ticket_id WHERE a.seq > 0";

    // ---- what is for sale ----
    CONCERTS = "SELECT id, name, venue, queue, opens_at, closes_at FROM concert WHERE id > ? \
        ORDER BY id";
    CONCERT_IDS = "SELECT id FROM concert";
    SESSIONS = "SELECT id, concert_id, starts_at, seats, plan FROM session ORDER BY id";
    SESSION_LOCK = "SELECT seats, starts_at FROM session WHERE id = ? AND concert_id = ? FOR UPDATE";
    SESSION_SEATS = "UPDATE session SET seats = ? WHERE id = ?";
    SESSION_ADD = "INSERT INTO session (concert_id, starts_at, seats, plan) VALUES (?, ?, ?, ?)";
    SESSION_HAS_PLAN = "SELECT 1 FROM session WHERE id = ? AND plan IS NOT NULL";
    PLAN = "SELECT body FROM plan WHERE digest = ?";
    PLAN_ADD = "INSERT IGNORE INTO plan (digest, body) VALUES (?, ?)";
    CONCERT_ADD = "INSERT INTO concert (name, venue, queue, opens_at, closes_at) \
        VALUES (?, ?, ?, ?, ?)";
    CONCERT_LOCK = "SELECT id, name, venue, queue, opens_at, closes_at FROM concert WHERE id = ? \
        FOR UPDATE";
    CONCERT_CHANGE = "UPDATE concert SET name = ?, venue = ?, opens_at = ?, closes_at = ? \
        WHERE id = ?";
    CONCERT_REMOVE = "DELETE FROM concert WHERE id = ?";
    SESSIONS_OF_LOCK = "SELECT id FROM session WHERE concert_id = ? ORDER BY id FOR UPDATE";
    SESSION_MOVE = "UPDATE session SET starts_at = ? WHERE id = ?";
    SESSION_REMOVE = "DELETE FROM session WHERE id = ?";
    SEATS_OF_LOCK = "SELECT id, state FROM seat FORCE INDEX (seat_by_session) \
        WHERE session_id = ? ORDER BY id FOR UPDATE";
    SEATS_REMOVE = "DELETE FROM seat WHERE id IN ({list})";
    CALL_OFF = "INSERT IGNORE INTO called_off (session_id, concert_id, at) VALUES (?, ?, ?)";
    CALLED_OFF_AT = "SELECT at FROM called_off WHERE session_id = ? FOR UPDATE";
    CALLED_OFF_REMOVE = "DELETE FROM called_off WHERE session_id = ?";
    REFUND_OF_SESSION = "SELECT payment_id FROM refund FORCE INDEX (refund_by_session) \
        WHERE session_id = ? LIMIT 1 FOR UPDATE";
    CALLED_OFF = "SELECT session_id, at FROM called_off";
    SESSION_REFUNDED = "SELECT COUNT(*) FROM refund WHERE session_id = ? AND called_off = 1";
    SEAT_IDS_TAKE = "UPDATE counter SET value = value + ? WHERE name = 'seat'";
    SEAT_IDS_LAST = "SELECT value FROM counter WHERE name = 'seat'";
    SEATS_OF = "SELECT id, number, price, state, reservation_id, held_until FROM seat \
        FORCE INDEX (seat_by_session) WHERE session_id = ? AND id > ? ORDER BY id LIMIT ?";
    SEATS_PAGE = "SELECT id, number, price, state, reservation_id, held_until, session_id \
        FROM seat FORCE INDEX (PRIMARY) WHERE id > ? ORDER BY id LIMIT ?";

    // ---- operators ----
    OPERATORS = "SELECT name, role, digest, created_at FROM operator WHERE removed_at = 0 \
        ORDER BY name";
    OPERATOR_ADD = "INSERT INTO operator (name, role, digest, created_at, removed_at) \
        VALUES (?, ?, ?, ?, 0)";
    OPERATOR_LOCK = "SELECT name, role, digest, created_at, id FROM operator \
        WHERE name = ? AND removed_at = 0 FOR UPDATE";
    OPERATOR_REMOVED = "SELECT MAX(removed_at) FROM operator WHERE name = ?";
    OPERATOR_REMOVE = "UPDATE operator SET removed_at = ? WHERE id = ?";
    LOG_ADD = "INSERT INTO change_log (at, who, role, origin, operation, target, was, became, \
        reason, undoes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    LOG = "SELECT id, at, who, role, origin, operation, target, was, became, reason, undoes \
        FROM change_log WHERE id < ? ORDER BY id DESC LIMIT ?";
    LOG_UNDOING = "SELECT id FROM change_log WHERE undoes = ? LOCK IN SHARE MODE";
    CHANGE_KEY = "SELECT fingerprint, answer FROM change_key WHERE who = ? AND idem_key = ?";
    CHANGE_KEY_ADD = "INSERT INTO change_key (who, idem_key, fingerprint, answer, at) \
        VALUES (?, ?, ?, ?, ?)";
    CHANGE_KEYS_FORGET = "DELETE FROM change_key WHERE at < ? ORDER BY at LIMIT ?";

    // ---- lists ----
    RESERVATIONS_END = "SELECT id FROM reservation FORCE INDEX (PRIMARY) WHERE id > ? ORDER BY id \
        LIMIT 1 OFFSET ?";
    RESERVATIONS_LIST = "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id, queue, ticket_seq, ticket_id FROM reservation FORCE INDEX (PRIMARY) \
        WHERE id > ? AND id <= ? AND state = COALESCE(?, state) \
        AND concert_id = COALESCE(?, concert_id) AND session_id = COALESCE(?, session_id) \
        ORDER BY id LIMIT ?";
    RESERVATIONS_LIST_USER = "SELECT id, user_id, concert_id, session_id, items, created_at, \
        held_until, state, payment_id, queue, ticket_seq, ticket_id FROM reservation \
        FORCE INDEX (reservation_of_user) WHERE user_id = ? AND id > ? AND id <= ? \
        AND state = COALESCE(?, state) AND concert_id = COALESCE(?, concert_id) \
        AND session_id = COALESCE(?, session_id) ORDER BY id LIMIT ?";
    PEOPLE_NAMED = "SELECT id FROM person FORCE INDEX (person_by_name) WHERE name = ? \
        ORDER BY id LIMIT ?";
    PAYMENTS_LIST = "SELECT id, reservation_id, user_id, amount, paid_at FROM payment WHERE id > ? \
        ORDER BY id LIMIT ?";
    PEOPLE_LIST = "SELECT a.user_id, a.balance, (SELECT COUNT(*) FROM reservation r \
        FORCE INDEX (reservation_live) WHERE r.user_id = a.user_id AND r.state = 0), \
        (SELECT COUNT(*) FROM reservation r FORCE INDEX (reservation_live) \
        WHERE r.user_id = a.user_id AND r.state = 1) FROM account a WHERE a.user_id > ? \
        ORDER BY a.user_id LIMIT ?";

    // ---- people ----
    PEOPLE = "SELECT digest, id FROM person FORCE INDEX (person_by_digest) \
        WHERE digest IN ({list})";
    PEOPLE_NOW = "SELECT digest, id FROM person FORCE INDEX (person_by_digest) \
        WHERE digest IN ({list}) LOCK IN SHARE MODE";
    PEOPLE_IDS = "SELECT id FROM person FORCE INDEX (PRIMARY) WHERE id BETWEEN ? AND ? \
        UNION SELECT user_id FROM account FORCE INDEX (PRIMARY) WHERE user_id BETWEEN ? AND ?";
    PEOPLE_ADD = "INSERT IGNORE INTO person (id, digest, issuer, name, at) VALUES {rows}";

    // ---- settings ----
    SETTING = "SELECT value FROM setting WHERE name = ?";
    SETTING_LOCK = "SELECT value FROM setting WHERE name = ? FOR UPDATE";
    SETTING_FRESH = "INSERT INTO setting (name, value) VALUES (?, ?) \
        ON DUPLICATE KEY UPDATE value = value";
    SETTING_SET = "INSERT INTO setting (name, value) VALUES (?, ?) \
        ON DUPLICATE KEY UPDATE value = VALUES(value)";
}

/// Returns the statement with `count` question marks where `{list}` stands.
pub(super) fn listed(sql: &str, count: usize) -> String {
    let mut marks = "?,".repeat(count);
    marks.pop();
    sql.replacen("{list}", &marks, 1)
}

/// The longest list. From 1,000 values on MariaDB makes a table of it, and locks in another order
/// than that of the rows.
pub(super) const LIST_MAX: usize = 900;

/// Returns the statement with these texts in place of its places in braces.
pub(super) fn filled(sql: &str, parts: &[&str]) -> String {
    let mut text =
        String::with_capacity(sql.len() + parts.iter().map(|part| part.len()).sum::<usize>());
    let mut rest = sql;
    for part in parts {
        let Some((before, after)) = rest.split_once('{') else { break };
        text.push_str(before);
        text.push_str(part);
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text
}
