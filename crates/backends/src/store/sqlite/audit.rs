//! The numbered invariants as queries. `docs/invariants.md` explains each.

use boxoffice_domain::event::Topic;
use boxoffice_domain::ids::SessionId;
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, Params};

use super::load;
use super::log;
use super::rows::{self, Failure, entry_kind};
use super::tx::Tx;
use crate::store::chain::{self, Check, LogPart};
use crate::store::plans::PlanCheck;

type Audit<T> = Result<T, Failure>;

/// Checks what can be seen in the file, on one snapshot of it.
pub(super) fn stored(connection: &Connection, now: Timestamp) -> Audit<Vec<Finding>> {
    // A read transaction: all queries see the same commit.
    connection.execute_batch("BEGIN")?;
    let findings = [
        one_owner(connection, now),
        points(connection),
        line(connection),
        one_event(connection),
        paid_once(connection),
        spent(connection),
        logs(connection),
    ]
    .into_iter()
    .collect();
    connection.execute_batch("ROLLBACK")?;
    findings
}

/// Compares the seats in memory with those in the file, inside the writer.
pub(super) fn inventory(tx: &Tx<'_>, session: SessionId) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::AcknowledgedIsDurable);
    if let Some(inventory) = tx.catalog().inventory_of(session) {
        let stored = match load::seats_of(tx.connection(), session) {
            // A row that makes no sense is what an audit is to tell of, not a reason to stop.
            Err(Failure::Corrupt(what)) => {
                finding.expect(false, || format!("session {session}: {what}"));
                return Ok(finding);
            }
            seats => seats?,
        };
        let (_, memory) = inventory.snapshot();
        // What this very batch has added is not in memory yet, rightly.
        finding.expect(stored.len() == memory.len() + tx.has_added(session), || {
            format!(
                "session {session} has {} seats stored, {} in memory",
                stored.len(),
                memory.len()
            )
        });
        for (stored, memory) in stored.iter().zip(&memory) {
            // Whatever sells in this batch comes behind this.
            finding.expect(stored == memory, || format!("stored {stored:?}, in memory {memory:?}"));
        }
    }
    Ok(finding)
}

/// Checks the halls of the sessions, on one snapshot of the file.
pub(super) fn plans(connection: &Connection) -> Audit<Finding> {
    let mut check = PlanCheck::default();
    connection.execute_batch("BEGIN")?;
    let looked = plans_into(connection, &mut check);
    connection.execute_batch("ROLLBACK")?;
    looked.map(|()| check.finding())
}

fn plans_into(connection: &Connection, check: &mut PlanCheck) -> Audit<()> {
    let mut find = connection.prepare("SELECT digest, body FROM plan")?;
    let mut found = find.query([])?;
    while let Some(row) = found.next()? {
        check.plan(&row.get::<_, Vec<u8>>(0)?, row.get(1)?);
    }
    let mut find = connection.prepare(
        "SELECT s.id, s.plan, COALESCE(n.seats, 0) FROM session s \
         LEFT JOIN (SELECT session_id, count(*) AS seats FROM seat GROUP BY session_id) n \
         ON n.session_id = s.id WHERE s.plan IS NOT NULL",
    )?;
    let mut found = find.query([])?;
    while let Some(row) = found.next()? {
        check.session(row.get(0)?, &row.get::<_, Vec<u8>>(1)?, row.get(2)?);
    }
    Ok(())
}

fn number(connection: &Connection, sql: &str, params: impl Params) -> Audit<u64> {
    Ok(connection.query_row(sql, params, |row| row.get::<_, Option<i64>>(0))?.unwrap_or(0).max(0)
        as u64)
}

/// Counts every row of `sql` as a violation; its first column says which.
fn none_of(
    connection: &Connection,
    finding: &mut Finding,
    sql: &str,
    params: impl Params,
) -> Audit<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        finding.violated(row.get::<_, String>(0)?);
    }
    Ok(())
}

fn one_owner(connection: &Connection, now: Timestamp) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneOwner);
    finding.add_checked(number(connection, "SELECT count(*) FROM seat WHERE state IN (1, 2)", [])?);
    none_of(
        connection,
        &mut finding,
        "SELECT 'reservation ' || r.id || ' lists seat ' || json_extract(j.value, '$[0]') \
         || ', which is not its own' FROM reservation r, json_each(r.items) j \
         LEFT JOIN seat s ON s.id = json_extract(j.value, '$[0]') \
         WHERE (r.state = 1 AND (s.id IS NULL OR s.state <> 2 OR s.reservation_id IS NOT r.id)) \
         OR (r.state = 0 AND r.held_until > ?1 \
             AND (s.id IS NULL OR s.state <> 1 OR s.reservation_id IS NOT r.id))",
        [now.0],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'seat ' || s.id || ' has state ' || s.state || ', its reservation ' \
         || COALESCE(s.reservation_id, 'none') || ' has ' || COALESCE(r.state, 'none') FROM seat s \
         LEFT JOIN reservation r ON r.id = s.reservation_id WHERE s.state IN (1, 2) AND (r.id IS NULL \
         OR r.state <> s.state - 1 OR r.session_id <> s.session_id \
         OR (s.state = 1 AND (s.held_until IS NULL OR s.held_until < r.held_until)) OR NOT EXISTS \
         (SELECT 1 FROM json_each(r.items) j WHERE json_extract(j.value, '$[0]') = s.id))",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'seat ' || json_extract(j.value, '$[0]') || ' was bought ' || count(*) || ' times' \
         FROM reservation r, json_each(r.items) j WHERE r.state = 1 \
         GROUP BY json_extract(j.value, '$[0]') HAVING count(*) > 1",
        [],
    )?;
    Ok(finding)
}

fn points(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::PointsConserved);
    finding.add_checked(number(connection, "SELECT count(*) FROM points_entry", [])?);
    finding.add_checked(number(connection, "SELECT count(*) FROM account", [])?);
    none_of(
        connection,
        &mut finding,
        "SELECT 'user ' || user_id || ' has ' || a.balance || ', entries sum to ' \
         || COALESCE(e.sum, 0) FROM account a LEFT JOIN (SELECT user_id, SUM(amount) AS sum \
         FROM points_entry GROUP BY user_id) e USING (user_id) \
         WHERE a.balance <> COALESCE(e.sum, 0) OR a.balance < 0",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'entry ' || e.id || ' of user ' || e.user_id || ' has no account' \
         FROM points_entry e WHERE NOT EXISTS (SELECT 1 FROM account a WHERE a.user_id = e.user_id)",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'entry ' || id || ' leads to ' || balance || ' from ' || before FROM \
         (SELECT id, amount, balance, LAG(balance, 1, 0) OVER (PARTITION BY user_id ORDER BY id) \
         AS before FROM points_entry) WHERE balance <> before + amount",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'payment ' || p.id || ' of ' || p.amount || ' took ' || COALESCE(SUM(e.amount), 0) \
         FROM payment p LEFT JOIN points_entry e ON e.payment_id = p.id AND e.kind = ?1 \
         AND e.user_id = p.user_id GROUP BY p.id HAVING COALESCE(SUM(e.amount), 0) <> -p.amount \
         OR count(e.id) <> 1",
        [entry_kind::PAYMENT],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'entry ' || e.id || ' of user ' || e.user_id || ' is for no payment' \
         FROM points_entry e WHERE e.kind = ?1 \
         AND NOT EXISTS (SELECT 1 FROM payment p WHERE p.id = e.payment_id)",
        [entry_kind::PAYMENT],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'refund of payment ' || r.payment_id || ' gave ' || COALESCE(e.given, 0) \
         FROM refund r LEFT JOIN (SELECT payment_id, user_id, SUM(amount) AS given, \
         COUNT(*) AS times FROM points_entry WHERE kind = 3 GROUP BY payment_id, user_id) e \
         ON e.payment_id = r.payment_id AND e.user_id = r.user_id \
         WHERE COALESCE(e.given, 0) <> r.amount OR e.times <> 1",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'entry ' || e.id || ' of user ' || e.user_id || ' is for no refund' \
         FROM points_entry e WHERE e.kind = 3 AND NOT EXISTS (SELECT 1 FROM refund r \
         WHERE r.payment_id = e.payment_id AND r.user_id = e.user_id)",
        [],
    )?;
    Ok(finding)
}

fn line(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::NobodyOvertaken);
    finding.add_checked(number(connection, "SELECT count(*) FROM queue", [])?);
    finding.add_checked(number(connection, "SELECT count(*) FROM admission", [])?);
    none_of(
        connection,
        &mut finding,
        "SELECT 'queue ' || name || ': floor ' || floor || ', serving ' || serving || ', next ' \
         || next || ', watermark ' || watermark || ' do not rise' FROM queue \
         WHERE NOT (floor <= serving AND serving <= next AND next <= watermark)",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'queue ' || queue || ' admitted up to ' || upto || ' before a lower number' FROM \
         (SELECT queue, upto, at, LAG(at, 1, 0) OVER (PARTITION BY queue ORDER BY upto) AS before \
         FROM admission) WHERE at < before",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'queue ' || q.name || ' serves ' || q.serving || ', its log ends at ' \
         || COALESCE(MAX(a.upto), q.floor) FROM queue q LEFT JOIN admission a ON a.queue = q.name \
         GROUP BY q.name HAVING COALESCE(MAX(a.upto), q.floor) <> q.serving",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'queue ' || name || ' has granted up to ' || pool_last || ' of ' || watermark \
         FROM queue WHERE pool_last > watermark",
        [],
    )?;
    for queue in load::queues(connection)? {
        let line = &queue.line;
        let name = queue.name.as_str();
        rows::check_passed(&mut finding, name, line.serving, &line.passed, &line.readmitted);
    }
    Ok(finding)
}

/// Follows each log from the last record but one that says where the queue stands: a day's worth at least.
fn logs(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneChain);
    for queue in load::queues(connection)? {
        let (name, line) = (queue.name, queue.line);
        let begin = log::marks(connection, name.as_str(), 2)?.pop().unwrap_or(0);
        let mut after = begin.checked_sub(1);
        let mut check = None;
        let head = loop {
            let part = match log::part(connection, &name, after, chain::AUDIT_PART) {
                Ok(part) => part,
                // What makes no sense is what an audit is to tell of.
                Err(Failure::Corrupt(what)) => {
                    finding.violated(format!("the log of queue {name}: {what}"));
                    break None;
                }
                Err(failure) => return Err(failure),
            };
            let Some(LogPart { previous, links, head }) = part else { break None };
            let check = check.get_or_insert_with(|| Check::new(name.clone(), previous));
            links.iter().for_each(|link| check.follow(link, &mut finding));
            match links.last() {
                Some(last) => after = Some(last.number),
                None => break Some(head),
            }
        };
        match (check, head) {
            (Some(check), Some(head)) => {
                check.end(head, line.serving, &line.passed, &mut finding);
            }
            _ => finding.violated(format!("queue {name} has no log")),
        }
    }
    Ok(finding)
}

fn one_event(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneEvent);
    for topic in Topic::ALL {
        let effects = match topic {
            Topic::ConcertReserved => "SELECT count(*) FROM reservation".to_owned(),
            Topic::ReservationCancelled => {
                "SELECT count(*) FROM reservation WHERE state IN (2, 3)".to_owned()
            }
            Topic::PaymentCompleted => "SELECT count(*) FROM payment".to_owned(),
            Topic::PaymentRefunded => "SELECT count(*) FROM refund".to_owned(),
            Topic::PointCharged => {
                format!("SELECT count(*) FROM points_entry WHERE kind = {}", entry_kind::CHARGE)
            }
        };
        let effects = number(connection, &effects, [])?;
        let waiting =
            number(connection, "SELECT count(*) FROM outbox WHERE topic = ?1", [topic.name()])?;
        let sent = number(
            connection,
            "SELECT SUM(count) FROM published WHERE topic = ?1",
            [topic.name()],
        )?;
        finding.add_checked(effects);
        finding.expect(effects == waiting + sent, || {
            format!("{}: {effects} effects, {sent} events sent, {waiting} waiting", topic.name())
        });
    }
    none_of(
        connection,
        &mut finding,
        "SELECT 'event ' || json_extract(body, '$.id') || ' waits ' || count(*) || ' times' \
         FROM outbox GROUP BY json_extract(body, '$.id') HAVING count(*) > 1",
        [],
    )?;
    Ok(finding)
}

fn paid_once(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::PaidOnce);
    finding.add_checked(number(connection, "SELECT count(*) FROM payment", [])?);
    finding.add_checked(number(connection, "SELECT count(*) FROM reservation", [])?);
    none_of(
        connection,
        &mut finding,
        "SELECT 'payment ' || p.id || ' of ' || p.amount || ' for reservation ' \
         || p.reservation_id FROM payment p LEFT JOIN reservation r ON r.id = p.reservation_id \
         WHERE r.id IS NULL OR r.state NOT IN (1, 4) OR r.payment_id IS NOT p.id OR r.total <> p.amount \
         OR r.user_id <> p.user_id",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'reservation ' || r.id || ' is paid without a payment' FROM reservation r \
         WHERE r.state = 1 AND NOT EXISTS (SELECT 1 FROM payment p WHERE p.reservation_id = r.id)",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'reservation ' || r.id || ' costs ' || r.total || ', its items ' || SUM(\
         json_extract(j.value, '$[2]')) FROM reservation r, json_each(r.items) j GROUP BY r.id \
         HAVING SUM(json_extract(j.value, '$[2]')) <> r.total OR count(*) <> r.seat_count",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'refund of payment ' || f.payment_id || ' of ' || f.amount || ' for reservation ' || f.reservation_id \
         FROM refund f LEFT JOIN payment p ON p.id = f.payment_id \
         LEFT JOIN reservation r ON r.id = f.reservation_id WHERE p.id IS NULL OR r.id IS NULL \
         OR p.reservation_id <> r.id OR p.amount <> f.amount OR p.user_id <> f.user_id \
         OR r.state <> 4",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'reservation ' || r.id || ' is refunded without a refund' FROM reservation r \
         WHERE r.state = 4 AND NOT EXISTS \
         (SELECT 1 FROM refund f WHERE f.payment_id = r.payment_id AND f.reservation_id = r.id)",
        [],
    )?;
    Ok(finding)
}

fn spent(connection: &Connection) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::SpentIsSpent);
    finding.add_checked(number(connection, "SELECT count(*) FROM payment", [])?);
    none_of(
        connection,
        &mut finding,
        "SELECT 'payment ' || p.id || ' spent ' || count(s.seq) || ' tickets' FROM payment p \
         LEFT JOIN spent_ticket s ON s.payment_id = p.id \
         LEFT JOIN reservation r ON r.id = p.reservation_id GROUP BY p.id \
         HAVING count(s.seq) = 0 OR SUM(s.ticket_id IS NOT r.ticket_id) > 1",
        [],
    )?;
    none_of(
        connection,
        &mut finding,
        "SELECT 'payment ' || p.id || ': the ticket that held is not spent' FROM payment p \
         JOIN reservation r ON r.id = p.reservation_id AND r.payment_id = p.id \
         WHERE r.ticket_id IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM spent_ticket s WHERE s.queue = r.queue AND s.seq = r.ticket_seq \
         AND s.ticket_id = r.ticket_id)",
        [],
    )?;
    Ok(finding)
}
