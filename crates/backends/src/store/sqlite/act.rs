//! What operators change, in SQLite: the change, its row of the log, and the answer under its key, in one
//! transaction. Other work shares it, so whatever may be refused is found out before anything is written.

use boxoffice_domain::ids::{ConcertId, SessionId};
use boxoffice_domain::queue::Entry;
use boxoffice_domain::sales::{Concert, Session};
use boxoffice_domain::time::Timestamp;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::load::{self, LAST_CONCERT, LAST_SEAT, LAST_SESSION};
use super::rows::{self, Failure, seat_state};
use super::tx::Tx;
use crate::store::act::{
    Act, ActRejected, Acted, Effect, LogEntry, Note, StoredOperator, Told, rotate,
};
use crate::store::catalog::Made;
use crate::store::epochs::EPOCHS;
use crate::store::signing_keys::SIGNING_KEYS;
use crate::store::types::AliasExists;

type Op<T> = Result<T, Failure>;

/// What was kept under a key: a digest of what was asked, and the answer.
pub(super) fn kept(
    connection: &Connection,
    who: &str,
    key: &str,
) -> Op<Option<([u8; 32], String)>> {
    let mut find = connection
        .prepare_cached("SELECT fingerprint, answer FROM change_key WHERE who = ?1 AND key = ?2")?;
    let found: Option<(Vec<u8>, String)> =
        find.query_row([who, key], |row| row.try_into()).optional()?;
    found.map(|(digest, answer)| Ok((rows::digest(&digest)?, answer))).transpose()
}

/// The operators whose tokens are good.
pub(super) fn operators(connection: &Connection) -> Op<Vec<StoredOperator>> {
    let mut find = connection.prepare_cached(
        "SELECT name, role, digest, created_at FROM operator WHERE removed_at = 0 ORDER BY name",
    )?;
    let mut found = find.query([])?;
    let mut operators = Vec::new();
    while let Some(row) = found.next()? {
        operators.push(operator(row)?);
    }
    Ok(operators)
}

fn operator(row: &Row<'_>) -> Op<StoredOperator> {
    Ok(StoredOperator {
        name: row.get(0)?,
        role: rows::role(&row.get::<_, String>(1)?)?,
        digest: rows::digest(&row.get::<_, Vec<u8>>(2)?)?,
        created_at: Timestamp(row.get(3)?),
    })
}

/// Rows of the log before this one, the latest first.
pub(super) fn log(connection: &Connection, before: i64, max: u32) -> Op<Vec<LogEntry>> {
    let mut find = connection.prepare_cached(
        "SELECT id, at, who, role, origin, operation, target, was, became, reason, undoes FROM change_log \
         WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
    )?;
    let mut found = find.query(params![before, max])?;
    let mut entries = Vec::new();
    while let Some(row) = found.next()? {
        entries.push(LogEntry {
            id: row.get(0)?,
            at: Timestamp(row.get(1)?),
            who: row.get(2)?,
            role: rows::role(&row.get::<_, String>(3)?)?,
            origin: row.get(4)?,
            operation: row.get(5)?,
            target: row.get(6)?,
            before: row.get(7)?,
            after: row.get(8)?,
            reason: row.get(9)?,
            undoes: row.get(10)?,
        });
    }
    Ok(entries)
}

impl Tx<'_> {
    pub(super) fn act(&mut self, act: &Act, note: &Note) -> Op<Result<Acted, ActRejected>> {
        if let Some((key, fingerprint)) = &note.key
            && let Some((digest, answer)) = kept(self.connection(), &note.who, key)?
        {
            let same = digest == *fingerprint;
            return Ok(if same { Ok(Acted::Before(answer)) } else { Err(ActRejected::KeyReused) });
        }
        let effect = match self.carry_out(act, note.at)? {
            Ok(effect) => effect,
            Err(rejected) => return Ok(Err(rejected)),
        };
        let Told { target, before, after } = effect.told();
        self.execute(
            "INSERT INTO change_log (at, who, role, origin, operation, target, was, became, reason, undoes) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                note.at.0,
                note.who,
                note.role.as_str(),
                note.origin,
                note.operation,
                target,
                before,
                after,
                note.reason,
                act.undoes()
            ],
        )?;
        let entry = self.connection().last_insert_rowid();
        if let Some((key, fingerprint)) = &note.key {
            self.execute(
                "INSERT INTO change_key (who, key, fingerprint, answer, at) \
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![note.who, key, fingerprint, (note.answer)(&effect), note.at.0],
            )?;
        }
        Ok(Ok(Acted::Now(effect, entry)))
    }

    fn carry_out(&mut self, act: &Act, now: Timestamp) -> Op<Result<Effect, ActRejected>> {
        match act {
            Act::CreateQueue(name, settings, seed) => {
                if !self.create_queue(name.as_str(), settings, seed.as_ref())? {
                    return Ok(Err(ActRejected::Exists));
                }
                let (name, after) = (name.clone(), settings.clone());
                Ok(Ok(Effect::Queue { name, before: None, after, drawn: seed.is_some() }))
            }
            Act::ChangeQueue(name, change, condition) => {
                let Some(before) = self.settings_of_queue(name.as_str())? else {
                    return Ok(Err(ActRejected::NoSuchQueue));
                };
                let undone_by = condition.undoes().map(|it| self.undone_by(it)).transpose()?;
                if let Err(rejected) = condition.check(&before, undone_by.flatten(), now) {
                    return Ok(Err(rejected));
                }
                let Some(after) = self.change_queue(name.as_str(), change)? else {
                    return Ok(Err(ActRejected::Drawn));
                };
                let (name, before) = (name.clone(), Some(before));
                Ok(Ok(Effect::Queue { name, before, after, drawn: false }))
            }
            Act::Issue(queue, aliases) => Ok(match self.add_aliases(aliases)? {
                Err(AliasExists(token)) => Err(ActRejected::TokenExists(token)),
                Ok(()) => Ok(Effect::Issued {
                    queue: queue.clone(),
                    count: aliases.len(),
                    active_until: aliases.first().and_then(|alias| alias.active_until),
                }),
            }),
            Act::CreateConcert(new) => {
                let id = self.create_concert(new)?;
                Ok(Ok(Effect::Concert { before: None, after: self.concert(id)? }))
            }
            Act::ChangeConcert(id, change) => {
                let Some(before) = self.concert(*id)? else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                let after = match change.applied(&before) {
                    Ok(after) => after,
                    Err(rejected) => return Ok(Err(rejected)),
                };
                self.execute(
                    "UPDATE concert SET name = ?2, venue = ?3, opens_at = ?4, closes_at = ?5 \
                     WHERE id = ?1",
                    params![id.get(), after.name, after.venue, after.opens_at.0, after.closes_at.0],
                )?;
                self.made(Made::ConcertChanged(after.clone()));
                Ok(Ok(Effect::Concert { before: Some(before), after: Some(after) }))
            }
            Act::RemoveConcert(id) => {
                let Some(before) = self.concert(*id)? else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                let sessions = self.sessions_of(*id)?;
                for session in &sessions {
                    if self.is_sold_or_held(*session)? {
                        return Ok(Err(ActRejected::SoldOrHeld));
                    }
                }
                for session in sessions {
                    self.remove_session(session)?;
                }
                self.keep_last_ids()?;
                self.execute("DELETE FROM concert WHERE id = ?1", [id.get()])?;
                self.made(Made::ConcertGone(*id));
                Ok(Ok(Effect::Concert { before: Some(before), after: None }))
            }
            Act::CreateSession(concert, starts_at, seating) => {
                let Some((id, added)) = self.create_session(*concert, *starts_at, seating)? else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                let after = Some(Session { id, concert: *concert, starts_at: *starts_at });
                let plan = seating.plan().map(|plan| plan.digest());
                Ok(Ok(Effect::Session { before: None, after, added, plan }))
            }
            Act::ChangeSession(concert, session, starts_at) => {
                let Some(before) = self.session(*concert, *session)? else {
                    return Ok(Err(ActRejected::NoSuchSession));
                };
                self.execute(
                    "UPDATE session SET starts_at = ?2 WHERE id = ?1",
                    [session.get(), starts_at.0],
                )?;
                self.made(Made::SessionMoved(*session, *starts_at));
                let after = Some(Session { starts_at: *starts_at, ..before });
                let added = Vec::new();
                Ok(Ok(Effect::Session { before: Some(before), after, added, plan: None }))
            }
            Act::RemoveSession(concert, session) => {
                let Some(before) = self.session(*concert, *session)? else {
                    return Ok(Err(ActRejected::NoSuchSession));
                };
                if self.is_sold_or_held(*session)? {
                    return Ok(Err(ActRejected::SoldOrHeld));
                }
                self.remove_session(*session)?;
                self.keep_last_ids()?;
                let added = Vec::new();
                Ok(Ok(Effect::Session { before: Some(before), after: None, added, plan: None }))
            }
            Act::CallOff(concert, session) => {
                let sessions = match session {
                    None if self.concert(*concert)?.is_none() => {
                        return Ok(Err(ActRejected::NoSuchConcert));
                    }
                    None => self.sessions_of(*concert)?,
                    Some(session) if self.session(*concert, *session)?.is_none() => {
                        return Ok(Err(ActRejected::NoSuchSession));
                    }
                    Some(session) => vec![*session],
                };
                let called_off = self.call_off(*concert, &sessions, now)?;
                Ok(Ok(Effect::CalledOff {
                    concert: *concert,
                    session: *session,
                    before: sessions.len() - called_off,
                    after: sessions.len(),
                    at: now,
                }))
            }
            Act::AddSeats(concert, session, group) => {
                if self.session(*concert, *session)?.is_none() {
                    return Ok(Err(ActRejected::NoSuchSession));
                }
                if self.has_plan(*session)? {
                    return Ok(Err(ActRejected::HasPlan));
                }
                let added = self.add_seats(*concert, *session, *group)?;
                Ok(Ok(Effect::Seats { session: *session, added, price: group.price }))
            }
            Act::AddOperator(new) => {
                if self.operator(&new.name)?.is_some() {
                    return Ok(Err(ActRejected::Exists));
                }
                self.execute(
                    "INSERT INTO operator (name, role, digest, created_at, removed_at) \
                     VALUES (?1, ?2, ?3, ?4, 0)",
                    params![new.name, new.role.as_str(), new.digest, new.created_at.0],
                )?;
                Ok(Ok(Effect::Operator { before: None, after: Some(new.clone()) }))
            }
            Act::RemoveOperator(name) => {
                let Some(before) = self.operator(name)? else {
                    return Ok(Err(ActRejected::NoSuchOperator));
                };
                self.execute(
                    "UPDATE operator SET removed_at = MAX(?2, 1 + (SELECT MAX(removed_at) \
                     FROM operator WHERE name = ?1)) WHERE name = ?1 AND removed_at = 0",
                    params![name, now.0],
                )?;
                Ok(Ok(Effect::Operator { before: Some(before), after: None }))
            }
            Act::SetClockBack(now) => {
                Ok(Ok(Effect::Clock { rows: self.set_back(*now)?, now: *now }))
            }
            Act::BeginEpoch(epochs) => {
                self.set_setting(EPOCHS, &epochs.to_text())?;
                self.log_in_all(&Entry::Restored { epoch: epochs.current() })?;
                self.reseed_all()?;
                Ok(Ok(Effect::Epoch { id: epochs.current() }))
            }
            Act::RotateKey(rotation) => {
                let stored = self.setting(SIGNING_KEYS, None)?.unwrap_or_default();
                let (text, effect) = rotate(&stored, rotation).map_err(Failure::Corrupt)?;
                self.set_setting(SIGNING_KEYS, &text)?;
                Ok(Ok(effect))
            }
        }
    }

    pub(super) fn settings_of_queue(
        &self,
        name: &str,
    ) -> Op<Option<boxoffice_domain::queue::QueueSettings>> {
        let mut find = self.connection().prepare_cached(
            "SELECT admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, paused \
             FROM queue WHERE name = ?1",
        )?;
        let mut found = find.query([name])?;
        found.next()?.map(|row| load::settings(row, 0)).transpose()
    }

    /// Which entry of the log has taken back the change of this one.
    fn undone_by(&self, entry: i64) -> Op<Option<i64>> {
        let mut find =
            self.connection().prepare_cached("SELECT id FROM change_log WHERE undoes = ?1")?;
        Ok(find.query_row([entry], |row| row.get(0)).optional()?)
    }

    fn concert(&self, id: ConcertId) -> Op<Option<Concert>> {
        let mut find = self.connection().prepare_cached(
            "SELECT id, name, venue, queue, opens_at, closes_at FROM concert WHERE id = ?1",
        )?;
        let mut found = find.query([id.get()])?;
        found.next()?.map(load::concert).transpose()
    }

    /// The session with this id, if it is of this concert.
    pub(super) fn session(&self, concert: ConcertId, id: SessionId) -> Op<Option<Session>> {
        let mut find = self
            .connection()
            .prepare_cached("SELECT starts_at FROM session WHERE id = ?1 AND concert_id = ?2")?;
        let found: Option<i64> =
            find.query_row([id.get(), concert.get()], |row| row.get(0)).optional()?;
        Ok(found.map(|starts_at| Session { id, concert, starts_at: Timestamp(starts_at) }))
    }

    fn sessions_of(&self, concert: ConcertId) -> Op<Vec<SessionId>> {
        let mut find =
            self.connection().prepare_cached("SELECT id FROM session WHERE concert_id = ?1")?;
        let mut found = find.query([concert.get()])?;
        let mut sessions = Vec::new();
        while let Some(row) = found.next()? {
            sessions.push(rows::id(SessionId::new, row.get(0)?, "session")?);
        }
        Ok(sessions)
    }

    /// Whether somebody has a seat of a session, or got points back for one. Its seats lie between two
    /// ids, among which there may be others.
    fn is_sold_or_held(&self, session: SessionId) -> Op<bool> {
        let mut find = self
            .connection()
            .prepare_cached("SELECT 1 FROM refund WHERE session_id = ?1 LIMIT 1")?;
        if find.exists([session.get()])? {
            return Ok(true);
        }
        let Some((first, last)) = self.range_of(session) else { return Ok(false) };
        let mut find = self.connection().prepare_cached(
            "SELECT 1 FROM seat WHERE id BETWEEN ?1 AND ?2 AND session_id = ?3 \
             AND state IN (?4, ?5) LIMIT 1",
        )?;
        let taken = [seat_state::HELD, seat_state::SOLD];
        Ok(find.exists([first, last, session.get(), taken[0], taken[1]])?)
    }

    fn remove_session(&mut self, session: SessionId) -> Op<()> {
        if let Some((first, last)) = self.range_of(session) {
            self.execute(
                "DELETE FROM seat WHERE id BETWEEN ?1 AND ?2 AND session_id = ?3",
                [first, last, session.get()],
            )?;
        }
        self.execute("DELETE FROM called_off WHERE session_id = ?1", [session.get()])?;
        self.execute("DELETE FROM session WHERE id = ?1", [session.get()])?;
        self.made(Made::SessionGone(session));
        Ok(())
    }

    /// Ids that were given never come again, though the rows are gone.
    fn keep_last_ids(&self) -> Op<()> {
        let last = self.last_ids();
        for (name, id) in
            [(LAST_CONCERT, last.concert), (LAST_SESSION, last.session), (LAST_SEAT, last.seat)]
        {
            self.set_setting(name, &id.to_string())?;
        }
        Ok(())
    }

    fn operator(&self, name: &str) -> Op<Option<StoredOperator>> {
        let mut find = self.connection().prepare_cached(
            "SELECT name, role, digest, created_at FROM operator WHERE name = ?1 AND removed_at = 0",
        )?;
        let mut found = find.query([name])?;
        found.next()?.map(operator).transpose()
    }
}
