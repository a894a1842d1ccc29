//! What operators change, in memory.

use boxoffice_domain::ids::{ConcertId, SessionId};
use boxoffice_domain::queue::Entry;
use boxoffice_domain::sales::{SeatState, Session};
use boxoffice_domain::time::Timestamp;

use super::data::{Acts, Data};
use crate::Fault;
use crate::store::act::{
    Act, ActRejected, Acted, Effect, LogEntry, Note, StoredOperator, Told, rotate,
};
use crate::store::catalog::Made;
use crate::store::epochs::EPOCHS;
use crate::store::signing_keys::SIGNING_KEYS;
use crate::store::types::AliasExists;

impl Acts {
    pub(super) fn kept(&self, who: &str, key: &str) -> Option<([u8; 32], String)> {
        let kept = self.keys.get(&(who.to_owned(), key.to_owned()));
        kept.map(|(digest, answer, _)| (*digest, answer.clone()))
    }

    pub(super) fn operators(&self) -> Vec<StoredOperator> {
        self.operators.values().cloned().collect()
    }

    pub(super) fn log(&self, before: i64, max: usize) -> Vec<LogEntry> {
        let older = self.log.iter().rev().filter(|entry| entry.id < before);
        older.take(max).cloned().collect()
    }

    /// Which entry of the log has taken back the change of this one.
    fn undone_by(&self, entry: i64) -> Option<i64> {
        self.log.iter().find(|it| it.undoes == Some(entry)).map(|it| it.id)
    }

    pub(super) fn forget_keys(&mut self, before: Timestamp) {
        self.keys.retain(|_, (_, _, at)| *at >= before);
    }

    pub(super) fn key_times(&mut self) -> impl Iterator<Item = &mut Timestamp> {
        self.keys.values_mut().map(|(_, _, at)| at)
    }
}

impl Data {
    /// Does what an operator asks. Returns also what is to be shown.
    pub(super) fn act(
        &mut self,
        act: &Act,
        note: &Note,
    ) -> Result<Result<(Acted, Vec<Made>), ActRejected>, Fault> {
        if let Some((key, fingerprint)) = &note.key
            && let Some((digest, answer)) = self.acts.kept(&note.who, key)
        {
            let same = digest == *fingerprint;
            let before = (Acted::Before(answer), Vec::new());
            return Ok(if same { Ok(before) } else { Err(ActRejected::KeyReused) });
        }
        let (effect, made) = match self.carry_out(act, note.at)? {
            Ok(done) => done,
            Err(rejected) => return Ok(Err(rejected)),
        };
        let Told { target, before, after } = effect.told();
        let id = self.acts.log.last().map_or(0, |entry| entry.id) + 1;
        self.acts.log.push(LogEntry {
            id,
            at: note.at,
            who: note.who.clone(),
            role: note.role,
            origin: note.origin.clone(),
            operation: note.operation.to_owned(),
            target,
            before,
            after,
            reason: note.reason.clone(),
            undoes: act.undoes(),
        });
        if let Some((key, fingerprint)) = &note.key {
            let kept = (*fingerprint, (note.answer)(&effect), note.at);
            self.acts.keys.insert((note.who.clone(), key.clone()), kept);
        }
        Ok(Ok((Acted::Now(effect, id), made)))
    }

    fn carry_out(
        &mut self,
        act: &Act,
        now: Timestamp,
    ) -> Result<Result<(Effect, Vec<Made>), ActRejected>, Fault> {
        let mut made = Vec::new();
        let effect = match act {
            Act::CreateQueue(name, settings, seed) => {
                if !self.create_queue(name.clone(), settings.clone(), seed.clone()) {
                    return Ok(Err(ActRejected::Exists));
                }
                let (name, after) = (name.clone(), settings.clone());
                Effect::Queue { name, before: None, after, drawn: seed.is_some() }
            }
            Act::ChangeQueue(name, change, condition) => {
                let Some(before) = self.settings_of(name) else {
                    return Ok(Err(ActRejected::NoSuchQueue));
                };
                let undone_by = condition.undoes().and_then(|entry| self.acts.undone_by(entry));
                if let Err(rejected) = condition.check(&before, undone_by, now) {
                    return Ok(Err(rejected));
                }
                let Some(after) = self.change_queue(name, change)? else {
                    return Ok(Err(ActRejected::Drawn));
                };
                Effect::Queue { name: name.clone(), before: Some(before), after, drawn: false }
            }
            Act::Issue(queue, aliases) => {
                if let Err(AliasExists(token)) = self.add_aliases(aliases.clone()) {
                    return Ok(Err(ActRejected::TokenExists(token)));
                }
                Effect::Issued {
                    queue: queue.clone(),
                    count: aliases.len(),
                    active_until: aliases.first().and_then(|alias| alias.active_until),
                }
            }
            Act::CreateConcert(new) => {
                let concert = self.create_concert(new.clone())?;
                made.push(Made::Concert(concert.clone()));
                Effect::Concert { before: None, after: Some(concert) }
            }
            Act::ChangeConcert(id, change) => {
                let Some(before) = self.concerts.get(id).cloned() else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                let after = match change.applied(&before) {
                    Ok(after) => after,
                    Err(rejected) => return Ok(Err(rejected)),
                };
                self.concerts.insert(*id, after.clone());
                made.push(Made::ConcertChanged(after.clone()));
                Effect::Concert { before: Some(before), after: Some(after) }
            }
            Act::RemoveConcert(id) => {
                let Some(before) = self.concerts.get(id).cloned() else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                let sessions = self.sessions_of(*id);
                if sessions.iter().any(|session| self.is_sold_or_held(*session)) {
                    return Ok(Err(ActRejected::SoldOrHeld));
                }
                for session in sessions {
                    self.remove_session(session);
                }
                self.last_concert = self.last_concert.max(before.id.get());
                self.concerts.remove(id);
                made.push(Made::ConcertGone(*id));
                Effect::Concert { before: Some(before), after: None }
            }
            Act::CreateSession(concert, starts_at, seating) => {
                let Some((session, seats, added)) =
                    self.create_session(*concert, *starts_at, seating)?
                else {
                    return Ok(Err(ActRejected::NoSuchConcert));
                };
                made.push(Made::Inventory(session, seats, seating.plan().cloned()));
                let plan = seating.plan().map(|plan| plan.digest());
                Effect::Session { before: None, after: Some(session), added, plan }
            }
            Act::ChangeSession(concert, id, starts_at) => {
                let Some(before) = self.session_of(*concert, *id) else {
                    return Ok(Err(ActRejected::NoSuchSession));
                };
                let after = Session { starts_at: *starts_at, ..before };
                self.sessions.insert(*id, after);
                made.push(Made::SessionMoved(*id, *starts_at));
                let (before, after, added) = (Some(before), Some(after), Vec::new());
                Effect::Session { before, after, added, plan: None }
            }
            Act::RemoveSession(concert, id) => {
                let Some(before) = self.session_of(*concert, *id) else {
                    return Ok(Err(ActRejected::NoSuchSession));
                };
                if self.is_sold_or_held(*id) {
                    return Ok(Err(ActRejected::SoldOrHeld));
                }
                self.remove_session(*id);
                made.push(Made::SessionGone(*id));
                let (before, added) = (Some(before), Vec::new());
                Effect::Session { before, after: None, added, plan: None }
            }
            Act::CallOff(concert, session) => {
                let sessions: Vec<SessionId> = match session {
                    None if !self.concerts.contains_key(concert) => {
                        return Ok(Err(ActRejected::NoSuchConcert));
                    }
                    None => self.sessions_of(*concert),
                    Some(session) if self.session_of(*concert, *session).is_none() => {
                        return Ok(Err(ActRejected::NoSuchSession));
                    }
                    Some(session) => vec![*session],
                };
                let before =
                    sessions.iter().filter(|session| self.called_off.contains_key(session)).count();
                for session in &sessions {
                    let at = *self.called_off.entry(*session).or_insert(now);
                    made.push(Made::CalledOff(*session, at));
                }
                Effect::CalledOff {
                    concert: *concert,
                    session: *session,
                    before,
                    after: sessions.len(),
                    at: now,
                }
            }
            Act::AddSeats(concert, session, group) => {
                if self.session_of(*concert, *session).is_some() && self.plans.contains_key(session)
                {
                    return Ok(Err(ActRejected::HasPlan));
                }
                let Some((seats, added)) = self.add_seats(*concert, *session, *group)? else {
                    return Ok(Err(ActRejected::NoSuchSession));
                };
                made.push(Made::Seats(*session, seats));
                Effect::Seats { session: *session, added, price: group.price }
            }
            Act::AddOperator(new) => {
                if self.acts.operators.contains_key(&new.name) {
                    return Ok(Err(ActRejected::Exists));
                }
                self.acts.operators.insert(new.name.clone(), new.clone());
                Effect::Operator { before: None, after: Some(new.clone()) }
            }
            Act::RemoveOperator(name) => {
                let Some(before) = self.acts.operators.remove(name) else {
                    return Ok(Err(ActRejected::NoSuchOperator));
                };
                Effect::Operator { before: Some(before), after: None }
            }
            Act::SetClockBack(now) => Effect::Clock { rows: self.set_back(*now), now: *now },
            Act::BeginEpoch(epochs) => {
                self.settings.insert(EPOCHS, epochs.to_text());
                self.log_in_all(&Entry::Restored { epoch: epochs.current() });
                self.reseed_all()?;
                Effect::Epoch { id: epochs.current() }
            }
            Act::RotateKey(rotation) => {
                let stored = self.settings.get(SIGNING_KEYS).map_or("", String::as_str);
                let (text, effect) = rotate(stored, rotation).map_err(Fault::Corrupt)?;
                self.settings.insert(SIGNING_KEYS, text);
                effect
            }
        };
        Ok(Ok((effect, made)))
    }

    fn session_of(&self, concert: ConcertId, id: SessionId) -> Option<Session> {
        self.sessions.get(&id).copied().filter(|session| session.concert == concert)
    }

    fn sessions_of(&self, concert: ConcertId) -> Vec<SessionId> {
        let of_concert = self.sessions.values().filter(|session| session.concert == concert);
        of_concert.map(|session| session.id).collect()
    }

    /// Whether somebody has a seat of a session, or got points back for one.
    fn is_sold_or_held(&self, session: SessionId) -> bool {
        let mut of_session = self.seats.values().filter(|(of, _)| *of == session);
        let is_taken = |state| match state {
            SeatState::Held { .. } | SeatState::Sold { .. } => true,
            SeatState::Available | SeatState::Released { .. } => false,
        };
        of_session.any(|(_, seat)| is_taken(seat.state))
            || self.refunds.values().any(|refund| refund.session == session)
    }

    /// Ids that were given never come again.
    fn remove_session(&mut self, session: SessionId) {
        let last = self.seats.last_key_value().map_or(0, |(id, _)| id.get());
        self.last_seat = self.last_seat.max(last);
        self.last_session = self.last_session.max(session.get());
        self.seats.retain(|_, (of, _)| *of != session);
        self.called_off.remove(&session);
        self.plans.remove(&session);
        self.sessions.remove(&session);
    }
}
