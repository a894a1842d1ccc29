//! What operators change, in MySQL: the change, its row of the log, and the answer under its key, in one
//! transaction.

use boxoffice_domain::ids::{ConcertId, SessionId};
use boxoffice_domain::queue::Entry;
use boxoffice_domain::sales::{Concert, Session};
use boxoffice_domain::time::Timestamp;
use mysql_async::Row;

use super::pool::{Lane, Lease};
use super::rows::{self, DUPLICATE, Failure, seat_state, take};
use super::tx::{self, AddAliases, ChangeQueue, CreateQueue, Done, Op, Operation, Tx};
use super::{load, log, sql};
use crate::store::act::{
    Act, ActRejected, Acted, Effect, LogEntry, Note, StoredOperator, Told, rotate,
};
use crate::store::catalog::Made;
use crate::store::epochs::EPOCHS;
use crate::store::signing_keys::SIGNING_KEYS;
use crate::store::types::AliasExists;

/// What was kept under a key: a digest of what was asked, and the answer.
pub(super) async fn kept(
    lease: &mut Lease,
    who: &str,
    key: &str,
) -> Op<Option<([u8; 32], String)>> {
    let values = vec![who.into(), key.as_bytes().into()];
    let Some(mut row) = lease.rows(sql::CHANGE_KEY, values).await?.pop() else { return Ok(None) };
    let digest = rows::digest(&take::<Vec<u8>>(&mut row, 0)?)?;
    Ok(Some((digest, take(&mut row, 1)?)))
}

/// The operators whose tokens are good.
pub(super) async fn operators(lease: &mut Lease) -> Op<Vec<StoredOperator>> {
    let found = lease.rows(sql::OPERATORS, vec![]).await?;
    found.into_iter().map(|mut row| operator(&mut row)).collect()
}

fn operator(row: &mut Row) -> Op<StoredOperator> {
    Ok(StoredOperator {
        name: take(row, 0)?,
        role: rows::role(&take::<String>(row, 1)?)?,
        digest: rows::digest(&take::<Vec<u8>>(row, 2)?)?,
        created_at: Timestamp(take(row, 3)?),
    })
}

/// Rows of the log before this one, the latest first.
pub(super) async fn log(lease: &mut Lease, before: i64, max: u32) -> Op<Vec<LogEntry>> {
    let mut entries = Vec::new();
    for mut row in lease.rows(sql::LOG, vec![before.into(), max.into()]).await? {
        let row = &mut row;
        entries.push(LogEntry {
            id: take(row, 0)?,
            at: Timestamp(take(row, 1)?),
            who: take(row, 2)?,
            role: rows::role(&take::<String>(row, 3)?)?,
            origin: take(row, 4)?,
            operation: take(row, 5)?,
            target: take(row, 6)?,
            before: take(row, 7)?,
            after: take(row, 8)?,
            reason: take(row, 9)?,
            undoes: take(row, 10)?,
        });
    }
    Ok(entries)
}

/// An act of little work.
pub(super) struct Small(pub(super) Act, pub(super) Note);

impl Operation for Small {
    type Answer = Result<Acted, ActRejected>;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        run(tx, &self.0, &self.1).await
    }
}

/// An act that may touch many rows.
pub(super) struct Bulk(pub(super) Act, pub(super) Note);

impl Operation for Bulk {
    type Answer = Result<Acted, ActRejected>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        run(tx, &self.0, &self.1).await
    }
}

/// An act that may be done twice, and then is in the log twice: where nobody knows whether it was
/// committed, it is simply done again. A pause must not wait for somebody to look.
pub(super) struct Repeatable(pub(super) Act, pub(super) Note);

impl Operation for Repeatable {
    type Answer = Result<Acted, ActRejected>;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        run(tx, &self.0, &self.1).await
    }
}

async fn run(tx: &mut Tx, act: &Act, note: &Note) -> Op<Done<Result<Acted, ActRejected>>> {
    if let Some((key, fingerprint)) = &note.key
        && let Some((digest, answer)) = kept(&mut tx.lease, &note.who, key).await?
    {
        let same = digest == *fingerprint;
        let answer = if same { Ok(Acted::Before(answer)) } else { Err(ActRejected::KeyReused) };
        return Ok(Done::Nothing(answer));
    }
    let effect = match carry_out(tx, act, note.at).await? {
        Ok(effect) => effect,
        Err(rejected) => return Ok(Done::Nothing(Err(rejected))),
    };
    let Told { target, before, after } = effect.told();
    let values = vec![
        note.at.0.into(),
        note.who.as_str().into(),
        note.role.as_str().into(),
        note.origin.as_str().into(),
        note.operation.into(),
        target.into(),
        before.into(),
        after.into(),
        note.reason.as_deref().into(),
        act.undoes().into(),
    ];
    let entry = tx.lease.insert(sql::LOG_ADD, values).await?;
    if let Some((key, fingerprint)) = &note.key {
        let values = vec![
            note.who.as_str().into(),
            key.as_bytes().into(),
            fingerprint[..].into(),
            (note.answer)(&effect).into(),
            note.at.0.into(),
        ];
        match tx.lease.exec(sql::CHANGE_KEY_ADD, values).await {
            Ok(_) => {}
            // Asked twice at once; looking again finds the first answer.
            Err(Failure::Server(DUPLICATE, _)) => return Err(Failure::again()),
            Err(failure) => return Err(failure),
        }
    }
    Ok(Done::Commit(Ok(Acted::Now(effect, entry))))
}

/// What an operation of its own would answer, as a part of this transaction.
async fn within<O: Operation>(tx: &mut Tx, operation: &O) -> Op<O::Answer> {
    match operation.run(tx).await? {
        Done::Commit(answer) | Done::Nothing(answer) => Ok(answer),
    }
}

async fn carry_out(tx: &mut Tx, act: &Act, now: Timestamp) -> Op<Result<Effect, ActRejected>> {
    Ok(Ok(match act {
        Act::CreateQueue(name, settings, seed) => {
            let create = CreateQueue(name.as_str().to_owned(), settings.clone(), seed.clone());
            if !within(tx, &create).await? {
                return Ok(Err(ActRejected::Exists));
            }
            let (name, after) = (name.clone(), settings.clone());
            Effect::Queue { name, before: None, after, drawn: seed.is_some() }
        }
        Act::ChangeQueue(name, change, condition) => {
            let values = vec![name.as_str().into()];
            let row = tx.lease.rows(sql::QUEUE_SETTINGS_LOCK, values).await?.pop();
            let Some(mut row) = row else { return Ok(Err(ActRejected::NoSuchQueue)) };
            let before = load::settings(&mut row, 0)?;
            // Whoever takes the same change back has to change the queue, which is locked.
            let undone_by = match condition.undoes() {
                None => None,
                Some(entry) => tx.lease.rows(sql::LOG_UNDOING, vec![entry.into()]).await?.pop(),
            };
            let undone_by = undone_by.map(|mut row| take(&mut row, 0)).transpose()?;
            if let Err(rejected) = condition.check(&before, undone_by, now) {
                return Ok(Err(rejected));
            }
            let before = Some(before);
            let change = ChangeQueue(name.as_str().to_owned(), change.clone());
            let Some(after) = within(tx, &change).await? else {
                return Ok(Err(ActRejected::Drawn));
            };
            Effect::Queue { name: name.clone(), before, after, drawn: false }
        }
        Act::Issue(queue, aliases) => {
            if let Err(AliasExists(token)) = within(tx, &AddAliases(aliases.clone())).await? {
                return Ok(Err(ActRejected::TokenExists(token)));
            }
            Effect::Issued {
                queue: queue.clone(),
                count: aliases.len(),
                active_until: aliases.first().and_then(|alias| alias.active_until),
            }
        }
        Act::CreateConcert(new) => {
            let id = tx::create_concert(tx, new).await?;
            Effect::Concert { before: None, after: concert(tx, id).await? }
        }
        Act::ChangeConcert(id, change) => {
            let Some(before) = concert(tx, *id).await? else {
                return Ok(Err(ActRejected::NoSuchConcert));
            };
            let after = match change.applied(&before) {
                Ok(after) => after,
                Err(rejected) => return Ok(Err(rejected)),
            };
            let values = vec![
                after.name.as_str().into(),
                after.venue.as_str().into(),
                after.opens_at.0.into(),
                after.closes_at.0.into(),
                id.get().into(),
            ];
            tx.lease.exec(sql::CONCERT_CHANGE, values).await?;
            tx.made.push(Made::ConcertChanged(after.clone()));
            Effect::Concert { before: Some(before), after: Some(after) }
        }
        Act::RemoveConcert(id) => {
            let Some(before) = concert(tx, *id).await? else {
                return Ok(Err(ActRejected::NoSuchConcert));
            };
            // With the concert locked nobody adds another.
            for session in sessions_of(tx, *id).await? {
                if !remove_session(tx, session).await? {
                    return Ok(Err(ActRejected::SoldOrHeld));
                }
            }
            tx.lease.exec(sql::CONCERT_REMOVE, vec![id.get().into()]).await?;
            tx.made.push(Made::ConcertGone(*id));
            Effect::Concert { before: Some(before), after: None }
        }
        Act::CreateSession(concert, starts_at, seating) => {
            let create = tx::CreateSession {
                concert: *concert,
                starts_at: *starts_at,
                seating: seating.clone(),
            };
            let Some((id, added)) = within(tx, &create).await? else {
                return Ok(Err(ActRejected::NoSuchConcert));
            };
            let after = Some(Session { id, concert: *concert, starts_at: *starts_at });
            let plan = seating.plan().map(|plan| plan.digest());
            Effect::Session { before: None, after, added, plan }
        }
        Act::ChangeSession(concert, id, starts_at) => {
            let Some(before) = session(tx, *concert, *id).await? else {
                return Ok(Err(ActRejected::NoSuchSession));
            };
            let values = vec![starts_at.0.into(), id.get().into()];
            tx.lease.exec(sql::SESSION_MOVE, values).await?;
            tx.made.push(Made::SessionMoved(*id, *starts_at));
            let after = Some(Session { starts_at: *starts_at, ..before });
            Effect::Session { before: Some(before), after, added: Vec::new(), plan: None }
        }
        Act::RemoveSession(concert, id) => {
            let Some(before) = session(tx, *concert, *id).await? else {
                return Ok(Err(ActRejected::NoSuchSession));
            };
            if !remove_session(tx, *id).await? {
                return Ok(Err(ActRejected::SoldOrHeld));
            }
            let (before, added) = (Some(before), Vec::new());
            Effect::Session { before, after: None, added, plan: None }
        }
        Act::CallOff(concert, session) => {
            let sessions = match session {
                // With the concert locked nobody adds another.
                None if self::concert(tx, *concert).await?.is_none() => {
                    return Ok(Err(ActRejected::NoSuchConcert));
                }
                None => sessions_of(tx, *concert).await?,
                Some(session) if self::session(tx, *concert, *session).await?.is_none() => {
                    return Ok(Err(ActRejected::NoSuchSession));
                }
                Some(session) => vec![*session],
            };
            let mut before = 0;
            for session in &sessions {
                tx.lease.restart();
                let values = vec![session.get().into(), concert.get().into(), now.0.into()];
                let mut at = now;
                if tx.lease.exec(sql::CALL_OFF, values).await? == 0 {
                    before += 1;
                    let said =
                        tx.lease.rows(sql::CALLED_OFF_AT, vec![session.get().into()]).await?;
                    if let Some(mut row) = said.into_iter().next() {
                        at = Timestamp(take(&mut row, 0)?);
                    }
                }
                // Shown also where another instance said it, and this one has not read it yet.
                tx.made.push(Made::CalledOff(*session, at));
            }
            let (concert, session, after) = (*concert, *session, sessions.len());
            Effect::CalledOff { concert, session, before, after, at: now }
        }
        Act::AddSeats(concert, session, group) => {
            let add = tx::AddSeats { concert: *concert, session: *session, group: *group };
            if self::session(tx, *concert, *session).await?.is_none() {
                return Ok(Err(ActRejected::NoSuchSession));
            }
            if tx::has_plan(tx, *session).await? {
                return Ok(Err(ActRejected::HasPlan));
            }
            let added = within(tx, &add).await?;
            Effect::Seats { session: *session, added, price: group.price }
        }
        Act::AddOperator(new) => {
            let values = vec![
                new.name.as_str().into(),
                new.role.as_str().into(),
                new.digest[..].into(),
                new.created_at.0.into(),
            ];
            match tx.lease.exec(sql::OPERATOR_ADD, values).await {
                Ok(_) => {}
                Err(Failure::Server(DUPLICATE, _)) => return Ok(Err(ActRejected::Exists)),
                Err(failure) => return Err(failure),
            }
            Effect::Operator { before: None, after: Some(new.clone()) }
        }
        Act::RemoveOperator(name) => {
            let row = tx.lease.rows(sql::OPERATOR_LOCK, vec![name.as_str().into()]).await?.pop();
            let Some(mut row) = row else { return Ok(Err(ActRejected::NoSuchOperator)) };
            let before = Some(operator(&mut row)?);
            let id: i64 = take(&mut row, 4)?;
            // Removed in the same millisecond as another of the name, it would be the same row.
            let removed = tx.lease.rows(sql::OPERATOR_REMOVED, vec![name.as_str().into()]).await?;
            let last = removed.into_iter().next().map(|mut row| take::<Option<i64>>(&mut row, 0));
            let last = last.transpose()?.flatten().unwrap_or(0);
            let at = now.0.max(last + 1);
            tx.lease.exec(sql::OPERATOR_REMOVE, vec![at.into(), id.into()]).await?;
            Effect::Operator { before, after: None }
        }
        Act::SetClockBack(now) => {
            Effect::Clock { rows: within(tx, &tx::SetBack(*now)).await?, now: *now }
        }
        Act::BeginEpoch(epochs) => {
            within(tx, &tx::SetSetting(EPOCHS, epochs.to_text())).await?;
            let restored = Entry::Restored { epoch: epochs.current() };
            log::append_to_all(&mut tx.lease, &restored).await?;
            tx::reseed_all(tx).await?;
            Effect::Epoch { id: epochs.current() }
        }
        Act::RotateKey(rotation) => {
            // There is a row to be locked, so that two at once do not undo each other.
            let fresh = vec![SIGNING_KEYS.into(), "".into()];
            tx.lease.exec(sql::SETTING_FRESH, fresh).await?;
            let row = tx.lease.rows(sql::SETTING_LOCK, vec![SIGNING_KEYS.into()]).await?.pop();
            let stored: String = row.map_or(Ok(String::new()), |mut row| take(&mut row, 0))?;
            let (text, effect) = rotate(&stored, rotation).map_err(Failure::Corrupt)?;
            within(tx, &tx::SetSetting(SIGNING_KEYS, text)).await?;
            effect
        }
    }))
}

/// A concert, under a lock.
async fn concert(tx: &mut Tx, id: ConcertId) -> Op<Option<Concert>> {
    let row = tx.lease.rows(sql::CONCERT_LOCK, vec![id.get().into()]).await?.pop();
    row.map(|mut row| load::concert(&mut row)).transpose()
}

/// The sessions of a concert, under locks.
async fn sessions_of(tx: &mut Tx, concert: ConcertId) -> Op<Vec<SessionId>> {
    let found = tx.lease.rows(sql::SESSIONS_OF_LOCK, vec![concert.get().into()]).await?;
    let id = |mut row| rows::id(SessionId::new, take(&mut row, 0)?, "session").map_err(Into::into);
    found.into_iter().map(id).collect()
}

/// The session with this id, if it is of this concert, under a lock.
async fn session(tx: &mut Tx, concert: ConcertId, id: SessionId) -> Op<Option<Session>> {
    let values = vec![id.get().into(), concert.get().into()];
    let Some(mut row) = tx.lease.rows(sql::SESSION_LOCK, values).await?.pop() else {
        return Ok(None);
    };
    Ok(Some(Session { id, concert, starts_at: Timestamp(take(&mut row, 1)?) }))
}

/// Removes a session with its seats, unless some are sold or held, or were refunded. Its seats are locked, so that nobody
/// buys one meanwhile; whoever waits for one finds it gone.
async fn remove_session(tx: &mut Tx, session: SessionId) -> Op<bool> {
    let mut seats = Vec::new();
    for mut row in tx.lease.rows(sql::SEATS_OF_LOCK, vec![session.get().into()]).await? {
        let state: i64 = take(&mut row, 1)?;
        if state == seat_state::HELD || state == seat_state::SOLD {
            return Ok(false);
        }
        seats.push(take::<i64>(&mut row, 0)?);
    }
    // Whoever refunds has the seats locked as well.
    if !tx.lease.rows(sql::REFUND_OF_SESSION, vec![session.get().into()]).await?.is_empty() {
        return Ok(false);
    }
    for part in seats.chunks(sql::LIST_MAX) {
        tx.lease.restart();
        let values = part.iter().map(|id| (*id).into()).collect();
        tx.lease.exec(&sql::listed(sql::SEATS_REMOVE, part.len()), values).await?;
    }
    tx.lease.exec(sql::CALLED_OFF_REMOVE, vec![session.get().into()]).await?;
    tx.lease.exec(sql::SESSION_REMOVE, vec![session.get().into()]).await?;
    tx.made.push(Made::SessionGone(session));
    Ok(true)
}
