//! Every statement that the store sends while it runs, in one list: a test asks the server how it
//! would carry out each of them on a million rows. `{}` stands for a list of question marks.
//!
//! Only what MySQL 8 and MariaDB 10.6 both understand. Rows are locked by primary key and in its
//! order; `FORCE INDEX` keeps the server from locking its way through a table that is small.

macro_rules! statements {
    ($($name:ident = $text:expr;)*) => {
        $(pub(super) const $name: &str = $text;)*

        /// Every statement by its name.
        #[cfg(feature = "conformance")]
        pub(super) const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),*];
    };
}

statements! {
    // ---- users, tickets and idempotency keys ----
    ACCOUNT_LOCK = "SELECT balance FROM account WHERE user_id = ? FOR UPDATE";
    ACCOUNT_MAKE = "INSERT INTO account (user_id, balance) VALUES (?, 0) \
        ON DUPLICATE KEY UPDATE balance = balance";
    ACCOUNT_SET = "UPDATE account SET balance = ? WHERE user_id = ?";
    BALANCE = "SELECT balance FROM account WHERE user_id = ?";
    ENTRY_ADD = "INSERT INTO points_entry (user_id, amount, balance, kind, payment_id, at) \
        VALUES (?, ?, ?, ?, ?, ?)";
    ENTRY_BALANCE = "SELECT balance FROM points_entry WHERE id = ?";
    KEY_ADD = "INSERT INTO idempotency (user_id, idem_key, fingerprint, result_id, at) \
        VALUES (?, ?, ?, 0, ?)";
    KEY_FIND = "SELECT fingerprint, result_id FROM idempotency WHERE user_id = ? AND idem_key = ?";
    KEY_SET = "UPDATE idempotency SET result_id = ? WHERE user_id = ? AND idem_key = ?";
    KEYS_FORGET = "DELETE FROM idempotency WHERE at < ? ORDER BY at LIMIT ?";
    TICKET_SPEND = "INSERT INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
        VALUES (?, ?, ?, ?, ?)";
    TICKET_GIVE_UP = "INSERT INTO spent_ticket (queue, seq, ticket_id, payment_id, at) \
        VALUES (?, ?, ?, NULL, ?) ON DUPLICATE KEY UPDATE at = at";
    LINE_LEAVE = "INSERT INTO queue_left (queue, seq) VALUES (?, ?) \
        ON DUPLICATE KEY UPDATE seq = seq";

    // ---- seats and reservations ----
    SEATS = "SELECT id, number, price, state, reservation_id, held_until FROM seat \
        FORCE INDEX (PRIMARY) WHERE id IN ({})";
    SEATS_LOCK = "SELECT id, number, price, state, reservation_id, held_until, session_id \
        FROM seat FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id FOR UPDATE";
    SEATS_LOCK_FREE_ONES = "SELECT id, number, price, state, reservation_id, held_until, session_id \
        FROM seat FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id FOR UPDATE SKIP LOCKED";
    SEATS_SET = "UPDATE seat SET state = ?, reservation_id = ?, held_until = ? WHERE id IN ({})";
    HOLD_LIMITS = "SELECT CAST((SELECT COALESCE(SUM(seat_count), 0) FROM reservation \
        FORCE INDEX (reservation_by_user) WHERE user_id = ? AND session_id = ? \
        AND (state = 1 OR (state = 0 AND held_until > ?))) AS SIGNED), \
        EXISTS (SELECT 1 FROM spent_ticket WHERE queue = ? AND seq = ? AND ticket_id = ?)";
    RESERVATION_ADD = "INSERT INTO reservation (user_id, concert_id, session_id, items, seat_count, \
        total, created_at, held_until, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)";
    RESERVATION = "SELECT user_id, concert_id, session_id, items, created_at, held_until, state, \
        payment_id FROM reservation WHERE id = ?";
    RESERVATION_LOCK = "SELECT user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id, EXISTS (SELECT 1 FROM spent_ticket WHERE queue = ? AND seq = ? \
        AND ticket_id = ?) FROM reservation WHERE id = ? FOR UPDATE";
    RESERVATIONS_LOCK = "SELECT id, user_id, concert_id, session_id, items, created_at, held_until, \
        state, payment_id FROM reservation FORCE INDEX (PRIMARY) WHERE id IN ({}) ORDER BY id \
        FOR UPDATE";
    RESERVATION_PAID = "UPDATE reservation SET state = 1, payment_id = ? WHERE id = ?";
    RESERVATIONS_END = "UPDATE reservation SET state = ? WHERE id IN ({})";
    RESERVATIONS_DUE = "SELECT id, items FROM reservation FORCE INDEX (reservation_held) \
        WHERE state = 0 AND held_until <= ? ORDER BY held_until LIMIT ?";
    PAYMENT_ADD = "INSERT INTO payment (reservation_id, user_id, amount, paid_at) \
        VALUES (?, ?, ?, ?)";
    PAYMENT = "SELECT reservation_id, amount, paid_at FROM payment WHERE id = ?";

    // ---- events ----
    EVENT_ADD = "INSERT INTO outbox (shard, topic, event_key, body) VALUES (?, ?, ?, ?)";
    SHARDS_CLAIM = "SELECT shard FROM outbox_shard ORDER BY shard FOR UPDATE SKIP LOCKED";
    EVENTS_TAKE = "SELECT id, topic, event_key, body FROM outbox FORCE INDEX (PRIMARY) \
        WHERE shard IN ({}) ORDER BY id LIMIT ?";
    EVENTS_COUNT = "SELECT topic, COUNT(*), MAX(id) FROM outbox FORCE INDEX (PRIMARY) \
        WHERE id IN ({}) GROUP BY topic ORDER BY topic";
    EVENTS_FORGET = "DELETE FROM outbox WHERE id IN ({})";
    PUBLISHED_ADD = "INSERT INTO published (topic, sent, last_id) VALUES (?, ?, ?) \
        ON DUPLICATE KEY UPDATE sent = sent + VALUES(sent), \
        last_id = GREATEST(last_id, VALUES(last_id))";
    LAST_EVENT = "SELECT GREATEST(COALESCE((SELECT MAX(id) FROM outbox), 0), \
        COALESCE((SELECT MAX(last_id) FROM published), 0))";

    // ---- queues ----
    QUEUES = "SELECT name, next, watermark, serving, floor, claimed, credit_micro, credit_at, \
        admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, paused \
        FROM queue ORDER BY name";
    QUEUE_ADMISSIONS = "SELECT upto, at FROM admission WHERE queue = ? AND upto > ? ORDER BY upto";
    QUEUE_LEFT = "SELECT seq FROM queue_left WHERE queue = ? AND seq > ?";
    TICKET_SPENT = "SELECT 1 FROM spent_ticket WHERE queue = ? AND seq = ? AND ticket_id = ?";
    QUEUE_SPENT = "SELECT DISTINCT seq FROM spent_ticket WHERE queue = ? AND seq > ?";
    QUEUE_ADD = "INSERT INTO queue (name, next, watermark, serving, floor, admit_per_second, \
        max_active, active_ttl_ms, claim_window_ms, opens_at, paused) \
        VALUES (?, 0, 0, 0, 0, ?, ?, ?, ?, ?, ?)";
    QUEUE_SET = "UPDATE queue SET admit_per_second = ?, max_active = ?, active_ttl_ms = ?, \
        claim_window_ms = ?, opens_at = ?, paused = ?, credit_micro = NULL, credit_at = NULL \
        WHERE name = ?";
    QUEUE_EXISTS = "SELECT 1 FROM queue WHERE name = ?";
    QUEUE_TAKE = "UPDATE queue SET watermark = GREATEST(watermark, ?) + ? WHERE name = ?";
    QUEUE_WATERMARK = "SELECT watermark FROM queue WHERE name = ?";
    QUEUE_ADVANCE = "UPDATE queue SET serving = ?, next = GREATEST(next, ?), \
        watermark = GREATEST(watermark, ?), credit_micro = ?, credit_at = ? \
        WHERE name = ? AND serving = ? AND serving < ? AND paused = 0";
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
    LEFT_FORGET = "DELETE FROM queue_left WHERE queue = ? AND seq <= ?";
    CLOCK_NOTE = "INSERT INTO setting (name, value) VALUES ('clock', ?) ON DUPLICATE KEY UPDATE \
        value = IF(CAST(value AS SIGNED) < CAST(VALUES(value) AS SIGNED), VALUES(value), value)";
    CLOCK = "SELECT GREATEST(\
        COALESCE((SELECT CAST(value AS SIGNED) FROM setting WHERE name = 'clock'), 0), \
        COALESCE((SELECT MAX(at) FROM admission), 0), \
        COALESCE((SELECT created_at FROM reservation \
        WHERE id = (SELECT MAX(id) FROM reservation)), 0), \
        COALESCE((SELECT at FROM points_entry \
        WHERE id = (SELECT MAX(id) FROM points_entry)), 0))";
    ALIASES_KNOWN = "SELECT token FROM alias WHERE token IN ({})";
    ALIASES = "SELECT token, queue, seq, user_id, issued_at, ticket_id, active_until FROM alias \
        WHERE active_until IS NULL OR active_until > ?";
    ALIASES_SPENT = "SELECT s.ticket_id FROM (SELECT DISTINCT queue FROM alias) q \
        JOIN spent_ticket s ON s.queue = q.queue AND s.seq = 0 \
        UNION ALL SELECT s.ticket_id FROM alias a JOIN spent_ticket s ON s.queue = a.queue \
        AND s.seq = a.seq AND s.ticket_id = a.ticket_id WHERE a.seq > 0";

    // ---- what is for sale ----
    CONCERTS = "SELECT id, name, venue, queue, opens_at, closes_at FROM concert WHERE id > ? \
        ORDER BY id";
    CONCERT_IDS = "SELECT id FROM concert";
    SESSIONS = "SELECT id, concert_id, starts_at, seats FROM session ORDER BY id";
    SESSION_LOCK = "SELECT seats FROM session WHERE id = ? AND concert_id = ? FOR UPDATE";
    SESSION_SEATS = "UPDATE session SET seats = ? WHERE id = ?";
    SESSION_ADD = "INSERT INTO session (concert_id, starts_at, seats) VALUES (?, ?, ?)";
    CONCERT_ADD = "INSERT INTO concert (name, venue, queue, opens_at, closes_at) \
        VALUES (?, ?, ?, ?, ?)";
    CONCERT_EXISTS = "SELECT id FROM concert WHERE id = ?";
    SEAT_IDS_TAKE = "UPDATE counter SET value = value + ? WHERE name = 'seat'";
    SEAT_IDS_LAST = "SELECT value FROM counter WHERE name = 'seat'";
    SEATS_OF = "SELECT id, number, price, state, reservation_id, held_until FROM seat \
        FORCE INDEX (seat_by_session) WHERE session_id = ? ORDER BY id";
    SEATS_PAGE = "SELECT id, number, price, state, reservation_id, held_until, session_id \
        FROM seat FORCE INDEX (PRIMARY) WHERE id > ? ORDER BY id LIMIT ?";

    // ---- settings ----
    SETTING = "SELECT value FROM setting WHERE name = ?";
    SETTING_FRESH = "INSERT INTO setting (name, value) VALUES (?, ?) \
        ON DUPLICATE KEY UPDATE value = value";
    SETTING_SET = "INSERT INTO setting (name, value) VALUES (?, ?) \
        ON DUPLICATE KEY UPDATE value = VALUES(value)";
}

/// The statement with `count` question marks where `{}` stands.
pub(super) fn listed(sql: &str, count: usize) -> String {
    let mut marks = "?,".repeat(count);
    marks.pop();
    sql.replacen("{}", &marks, 1)
}
