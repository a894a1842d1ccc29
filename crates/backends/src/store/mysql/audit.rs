//! The numbered invariants as queries. `docs/invariants.md` explains each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use boxoffice_domain::event::Topic;
use boxoffice_domain::ids::SeatId;
use boxoffice_domain::invariant::{Finding, Invariant};
use boxoffice_domain::sales::SeatState;
use boxoffice_domain::time::Timestamp;
use mysql_async::Value;

use super::inner::Inner;
use super::pool::Lease;
use super::publication::REPLICA_LAG;
use super::rows::{self, Failure, entry_kind, take};
use super::{load, log, sql};
use crate::Fault;
use crate::store::chain::{self, Check, LogPart};
use crate::store::plans::PlanCheck;

type Audit<T> = Result<T, Failure>;

/// Memory keeps up with other instances within this, where somebody looks.
const KEPT_UP: Duration = Duration::from_millis(1_500);

/// Checks what can be seen in the database, on one snapshot of it.
pub(super) async fn stored(lease: &mut Lease, now: Timestamp) -> Audit<Vec<Finding>> {
    load::snapshot(lease).await?;
    let findings = vec![
        one_owner(lease, now).await?,
        points(lease).await?,
        line(lease).await?,
        one_event(lease).await?,
        paid_once(lease).await?,
        spent(lease).await?,
        logs(lease).await?,
    ];
    lease.text("COMMIT").await?;
    Ok(findings)
}

/// Compares the seats in memory with those in the database. Other instances change the latter all
/// the time, so only a difference that stays counts.
pub(super) async fn memory(store: &Arc<Inner>) -> Result<Finding, Fault> {
    let mut lease = store.bulk.acquire().await?;
    let checked = plans(&mut lease).await;
    match checked {
        Ok(_) => lease.release(),
        Err(_) => lease.roll_back().await,
    }
    let mut finding = checked?;
    let catalog = store.catalog();
    let inventories: Vec<_> =
        catalog.concerts().flat_map(|concert| catalog.inventories(concert.id)).cloned().collect();
    for inventory in inventories {
        let differing = differences(store, &inventory).await?;
        finding.add_checked(inventory.total() as u64 + 1);
        if differing.is_empty() {
            continue;
        }
        // Being looked at, it is read again soon.
        let _ = inventory.version();
        tokio::time::sleep(KEPT_UP).await;
        for (seat, stored, memory) in differences(store, &inventory).await? {
            if differing.contains(&(seat, stored, memory)) {
                finding.violated(format!("seat {seat}: stored {stored:?}, in memory {memory:?}"));
            }
        }
    }
    Ok(finding)
}

/// Checks the halls of the sessions, on one snapshot.
async fn plans(lease: &mut Lease) -> Audit<Finding> {
    load::snapshot(lease).await?;
    let mut check = PlanCheck::default();
    // One after the other: each may be large.
    for mut row in lease.rows("SELECT digest FROM plan", vec![]).await? {
        let digest: Vec<u8> = take(&mut row, 0)?;
        lease.restart();
        if let Some(mut row) = lease.rows(sql::PLAN, vec![digest.as_slice().into()]).await?.pop() {
            check.plan(&digest, take(&mut row, 0)?);
        }
    }
    lease.restart();
    let sessions = "SELECT s.id, s.plan, COALESCE(n.seats, 0) FROM session s \
                    LEFT JOIN (SELECT session_id, COUNT(*) AS seats FROM seat GROUP BY session_id) n \
                    ON n.session_id = s.id WHERE s.plan IS NOT NULL";
    for mut row in lease.rows(sessions, vec![]).await? {
        let digest: Vec<u8> = take(&mut row, 1)?;
        check.session(take(&mut row, 0)?, &digest, take(&mut row, 2)?);
    }
    lease.text("COMMIT").await?;
    Ok(check.finding())
}

type Difference = (SeatId, Option<SeatState>, Option<SeatState>);

async fn differences(
    store: &Arc<Inner>,
    inventory: &crate::store::catalog::Inventory,
) -> Result<Vec<Difference>, Fault> {
    // What a replica says is not taken over where it may be older than what was committed here.
    let lag = if store.replica.is_some() { REPLICA_LAG } else { Duration::ZERO };
    let begun = Instant::now();
    let kept_since = begun.checked_sub(lag).unwrap_or(begun);
    let mut lease = store.bulk.acquire().await?;
    let stored = load::seats_of(&mut lease, inventory.session().id).await;
    match stored {
        Ok(_) => lease.release(),
        Err(_) => lease.roll_back().await,
    }
    let ids = match &stored {
        Ok(stored) => stored.iter().map(|seat| seat.id).collect::<Vec<_>>(),
        Err(_) => Vec::new(),
    };
    let known = inventory.find(&ids);
    let mut differences = Vec::new();
    for (stored, known) in stored?.into_iter().zip(known) {
        let known = known.map(|seat| seat.state);
        // What was committed here since we began to read is ahead of what we read, rightly.
        if known != Some(stored.state) && !store.publication.is_newer(stored.id, kept_since) {
            differences.push((stored.id, Some(stored.state), known));
        }
    }
    Ok(differences)
}

async fn number(lease: &mut Lease, sql: &str, values: Vec<Value>) -> Audit<u64> {
    lease.restart();
    let row = lease.rows(sql, values).await?.pop();
    let number = match row {
        Some(mut row) => take::<Option<i64>>(&mut row, 0)?.unwrap_or(0),
        None => 0,
    };
    Ok(number.max(0).unsigned_abs())
}

/// Counts every row of `sql` as a violation; its only column says which.
async fn none_of(
    lease: &mut Lease,
    finding: &mut Finding,
    sql: &str,
    values: Vec<Value>,
) -> Audit<()> {
    lease.restart();
    for mut row in lease.rows(sql, values).await? {
        finding.violated(take::<String>(&mut row, 0)?);
    }
    Ok(())
}

/// The items of reservations as rows: seat and price.
const ITEMS: &str = "JSON_TABLE(r.items, '$[*]' COLUMNS (seat BIGINT PATH '$[0]', \
                     price BIGINT PATH '$[2]')) j";

async fn one_owner(lease: &mut Lease, now: Timestamp) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneOwner);
    let taken = "SELECT COUNT(*) FROM seat WHERE state IN (1, 2)";
    finding.add_checked(number(lease, taken, vec![]).await?);
    let own = format!(
        "SELECT CONCAT('reservation ', r.id, ' lists seat ', j.seat, ', which is not its own') \
         FROM reservation r JOIN {ITEMS} LEFT JOIN seat s ON s.id = j.seat \
         WHERE (r.state = 1 AND (s.id IS NULL OR s.state <> 2 OR NOT (s.reservation_id <=> r.id))) \
         OR (r.state = 0 AND r.held_until > ? \
             AND (s.id IS NULL OR s.state <> 1 OR NOT (s.reservation_id <=> r.id)))"
    );
    none_of(lease, &mut finding, &own, vec![now.0.into()]).await?;
    let matching = format!(
        "SELECT CONCAT('seat ', s.id, ' has state ', s.state, ', its reservation ', \
         COALESCE(s.reservation_id, 'none'), ' has ', COALESCE(r.state, 'none')) FROM seat s \
         LEFT JOIN reservation r ON r.id = s.reservation_id WHERE s.state IN (1, 2) AND (r.id IS NULL \
         OR r.state <> s.state - 1 OR r.session_id <> s.session_id \
         OR (s.state = 1 AND (s.held_until IS NULL OR s.held_until < r.held_until)) OR NOT EXISTS \
         (SELECT 1 FROM {ITEMS} WHERE j.seat = s.id))"
    );
    none_of(lease, &mut finding, &matching, vec![]).await?;
    let twice = format!(
        "SELECT CONCAT('seat ', j.seat, ' was bought ', COUNT(*), ' times') \
         FROM reservation r JOIN {ITEMS} WHERE r.state = 1 GROUP BY j.seat HAVING COUNT(*) > 1"
    );
    none_of(lease, &mut finding, &twice, vec![]).await?;
    Ok(finding)
}

async fn points(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::PointsConserved);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM points_entry", vec![]).await?);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM account", vec![]).await?);
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('user ', a.user_id, ' has ', a.balance, ', entries sum to ', \
         COALESCE(e.total, 0)) FROM account a LEFT JOIN (SELECT user_id, SUM(amount) AS total \
         FROM points_entry GROUP BY user_id) e ON e.user_id = a.user_id \
         WHERE a.balance <> COALESCE(e.total, 0) OR a.balance < 0",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('entry ', e.id, ' of user ', e.user_id, ' has no account') \
         FROM points_entry e LEFT JOIN account a ON a.user_id = e.user_id WHERE a.user_id IS NULL",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        // Ids come in blocks, so they do not tell the order. But each entry goes on from the balance
        // that another left, or from nothing, and the last one left what the account has.
        "SELECT CONCAT('entries of user ', w.user_id, ' do not follow each other at ', w.balance) \
         FROM (SELECT user_id, balance - amount AS balance, 1 AS n FROM points_entry \
         UNION ALL SELECT user_id, balance, -1 FROM points_entry \
         UNION ALL SELECT user_id, balance, 1 FROM account \
         UNION ALL SELECT user_id, 0, -1 FROM account) w \
         GROUP BY w.user_id, w.balance HAVING SUM(w.n) <> 0",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('payment ', p.id, ' of ', p.amount, ' took ', COALESCE(e.total, 0)) \
         FROM payment p LEFT JOIN (SELECT payment_id, user_id, SUM(amount) AS total, \
         COUNT(*) AS entries FROM points_entry WHERE kind = ? GROUP BY payment_id, user_id) e \
         ON e.payment_id = p.id AND e.user_id = p.user_id \
         WHERE COALESCE(e.total, 0) <> -p.amount OR COALESCE(e.entries, 0) <> 1",
        vec![entry_kind::PAYMENT.into()],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('entry ', e.id, ' of user ', e.user_id, ' is for no payment') \
         FROM points_entry e LEFT JOIN payment p ON p.id = e.payment_id \
         WHERE e.kind = ? AND p.id IS NULL",
        vec![entry_kind::PAYMENT.into()],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('refund of payment ', r.payment_id, ' gave ', COALESCE(e.given, 0)) \
         FROM refund r LEFT JOIN (SELECT payment_id, user_id, SUM(amount) AS given, \
         COUNT(*) AS times FROM points_entry WHERE kind = 3 GROUP BY payment_id, user_id) e \
         ON e.payment_id = r.payment_id AND e.user_id = r.user_id \
         WHERE COALESCE(e.given, 0) <> r.amount OR e.times <> 1",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('entry ', e.id, ' of user ', e.user_id, ' is for no refund') \
         FROM points_entry e WHERE e.kind = 3 AND NOT EXISTS (SELECT 1 FROM refund r \
         WHERE r.payment_id = e.payment_id AND r.user_id = e.user_id)",
        vec![],
    )
    .await?;
    Ok(finding)
}

async fn line(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::NobodyOvertaken);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM queue", vec![]).await?);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM admission", vec![]).await?);
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('queue ', name, ': floor ', floor, ', serving ', serving, ', next ', next, \
         ', watermark ', watermark, ' do not rise') FROM queue \
         WHERE NOT (floor <= serving AND serving <= next AND next <= watermark)",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('queue ', w.queue, ' admitted up to ', w.upto, ' before a lower number') \
         FROM (SELECT queue, upto, at, LAG(at) OVER (PARTITION BY queue ORDER BY upto) AS earlier \
         FROM admission) w WHERE w.at < COALESCE(w.earlier, 0)",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('queue ', q.name, ' serves ', q.serving, ', its log ends at ', \
         COALESCE(a.last, q.floor)) FROM queue q LEFT JOIN (SELECT queue, MAX(upto) AS last \
         FROM admission GROUP BY queue) a ON a.queue = q.name \
         WHERE COALESCE(a.last, q.floor) <> q.serving",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('queue ', name, ' has granted up to ', pool_last, ' of ', watermark) \
         FROM queue WHERE pool_last > watermark",
        vec![],
    )
    .await?;
    for mut row in lease.rows("SELECT name, serving FROM queue", vec![]).await? {
        let name: String = take(&mut row, 0)?;
        let serving = rows::count(take(&mut row, 1)?, "serving")?;
        let passed = load::passed(lease, &name).await?;
        let readmitted = load::readmitted(lease, &name).await?;
        rows::check_passed(&mut finding, &name, serving, &passed, &readmitted);
    }
    Ok(finding)
}

/// Follows each log from the last record but one that says where the queue stands: a day's worth at least.
async fn logs(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneChain);
    for mut row in lease.rows("SELECT name, serving FROM queue", vec![]).await? {
        let name = rows::queue_name(&take::<String>(&mut row, 0)?)?;
        let serving = rows::count(take(&mut row, 1)?, "serving")?;
        let passed = load::passed(lease, name.as_str()).await?;
        let begin = log::marks(lease, name.as_str(), 2).await?.pop();
        let mut after = begin.and_then(|(number, _)| number.checked_sub(1));
        let mut check = None;
        let head = loop {
            lease.restart();
            let part = match log::part(lease, &name, after, chain::AUDIT_PART).await {
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
            (Some(check), Some(head)) => check.end(head, serving, &passed, &mut finding),
            _ => finding.violated(format!("queue {name} has no log")),
        }
    }
    Ok(finding)
}

async fn one_event(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::OneEvent);
    for topic in Topic::ALL {
        let effects = match topic {
            Topic::ConcertReserved => "SELECT COUNT(*) FROM reservation".to_owned(),
            Topic::ReservationCancelled => {
                "SELECT COUNT(*) FROM reservation WHERE state IN (2, 3)".to_owned()
            }
            Topic::PaymentCompleted => "SELECT COUNT(*) FROM payment".to_owned(),
            Topic::PaymentRefunded => "SELECT COUNT(*) FROM refund".to_owned(),
            Topic::PointCharged => {
                format!("SELECT COUNT(*) FROM points_entry WHERE kind = {}", entry_kind::CHARGE)
            }
        };
        let name = || vec![Value::from(topic.name())];
        let effects = number(lease, &effects, vec![]).await?;
        let waiting = number(lease, "SELECT COUNT(*) FROM outbox WHERE topic = ?", name()).await?;
        let sent = number(lease, "SELECT sent FROM published WHERE topic = ?", name()).await?;
        finding.add_checked(effects);
        finding.expect(effects == waiting + sent, || {
            format!("{}: {effects} effects, {sent} events sent, {waiting} waiting", topic.name())
        });
    }
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('event ', w.event, ' waits ', COUNT(*), ' times') FROM \
         (SELECT JSON_UNQUOTE(JSON_EXTRACT(body, '$.id')) AS event FROM outbox) w \
         GROUP BY w.event HAVING COUNT(*) > 1",
        vec![],
    )
    .await?;
    Ok(finding)
}

async fn paid_once(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::PaidOnce);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM payment", vec![]).await?);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM reservation", vec![]).await?);
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('payment ', p.id, ' of ', p.amount, ' for reservation ', \
         p.reservation_id) FROM payment p LEFT JOIN reservation r ON r.id = p.reservation_id \
         WHERE r.id IS NULL OR r.state NOT IN (1, 4) OR NOT (r.payment_id <=> p.id) \
         OR r.total <> p.amount OR r.user_id <> p.user_id",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('reservation ', r.id, ' is paid without a payment') FROM reservation r \
         LEFT JOIN payment p ON p.reservation_id = r.id WHERE r.state = 1 AND p.id IS NULL",
        vec![],
    )
    .await?;
    let sums = format!(
        "SELECT CONCAT('reservation ', w.id, ' costs ', w.total, ', its items ', w.items) FROM \
         (SELECT r.id, r.total, r.seat_count, SUM(j.price) AS items, COUNT(*) AS seats \
         FROM reservation r JOIN {ITEMS} GROUP BY r.id, r.total, r.seat_count) w \
         WHERE w.items <> w.total OR w.seats <> w.seat_count"
    );
    none_of(lease, &mut finding, &sums, vec![]).await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('refund of payment ', f.payment_id, ' of ', f.amount, ' for reservation ', f.reservation_id) \
         FROM refund f LEFT JOIN payment p ON p.id = f.payment_id \
         LEFT JOIN reservation r ON r.id = f.reservation_id WHERE p.id IS NULL OR r.id IS NULL \
         OR p.reservation_id <> r.id OR p.amount <> f.amount OR p.user_id <> f.user_id \
         OR r.state <> 4",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('reservation ', r.id, ' is refunded without a refund') FROM reservation r \
         WHERE r.state = 4 AND NOT EXISTS \
         (SELECT 1 FROM refund f WHERE f.payment_id = r.payment_id AND f.reservation_id = r.id)",
        vec![],
    )
    .await?;
    Ok(finding)
}

async fn spent(lease: &mut Lease) -> Audit<Finding> {
    let mut finding = Finding::new(Invariant::SpentIsSpent);
    finding.add_checked(number(lease, "SELECT COUNT(*) FROM payment", vec![]).await?);
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('payment ', p.id, ' spent ', COALESCE(s.tickets, 0), ' tickets') \
         FROM payment p LEFT JOIN (SELECT t.payment_id, COUNT(*) AS tickets, \
         SUM(NOT (t.ticket_id <=> r.ticket_id)) AS others FROM spent_ticket t \
         LEFT JOIN payment q ON q.id = t.payment_id \
         LEFT JOIN reservation r ON r.id = q.reservation_id \
         WHERE t.payment_id IS NOT NULL GROUP BY t.payment_id) s ON s.payment_id = p.id \
         WHERE COALESCE(s.tickets, 0) = 0 OR s.others > 1",
        vec![],
    )
    .await?;
    none_of(
        lease,
        &mut finding,
        "SELECT CONCAT('payment ', p.id, ': the ticket that held is not spent') FROM payment p \
         JOIN reservation r ON r.id = p.reservation_id AND r.payment_id = p.id \
         WHERE r.ticket_id IS NOT NULL AND NOT EXISTS \
         (SELECT 1 FROM spent_ticket s WHERE s.queue = r.queue AND s.seq = r.ticket_seq \
         AND s.ticket_id = r.ticket_id)",
        vec![],
    )
    .await?;
    Ok(finding)
}
