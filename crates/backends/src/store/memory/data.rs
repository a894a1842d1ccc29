//! What the store in memory holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use boxoffice_domain::command::{
    Changes, EntryKind, Ids, KeyRow, NewKey, NewRefund, Payment, PointsEntry, ReservationRow,
    TicketRef,
};
use boxoffice_domain::event::Event;
use boxoffice_domain::ids::{
    ConcertId, PaymentId, QueueName, ReservationId, SeatId, SessionId, UserId,
};
use boxoffice_domain::queue::{
    Admission, Admitted, Bucket, Drawing, Drawn, Entry, LineParts, QueueSettings, Runs,
    SettingsChange, Standing, Step,
};
use boxoffice_domain::sales::{Concert, ReservationState, Seat, SeatState, Session};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;

use crate::Fault;
use crate::cloud_event::{OutboxRow, cloud_event};
use crate::planted::{Bug, planted};
use crate::store::DatabaseTime;
use crate::store::act::{LogEntry, StoredOperator};
use crate::store::beat::{Beat, Beats, Instances};
use crate::store::catalog::{Catalog, Inventory};
use crate::store::chain::{self, Head, Link, LogPart};
use crate::store::draws::{self, Decision, DrawSeed};
use crate::store::numbers::{self, Grant, GrantRequest, LastGrant, Taken};
use crate::store::plans::StoredPlan;
use crate::store::types::{
    ALIAS_KEPT_MS, AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert,
    NewPerson, NewSeats, Progress, Seating, Seed, ShortenLog, SpentBy, StoredQueue,
};

/// All tables.
#[derive(Default)]
pub(super) struct Data {
    pub(super) concerts: BTreeMap<ConcertId, Concert>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// The halls of the sessions that have one.
    pub(super) plans: BTreeMap<SessionId, Arc<StoredPlan>>,
    /// When sessions were called off.
    pub(super) called_off: BTreeMap<SessionId, Timestamp>,
    pub(super) seats: BTreeMap<SeatId, (SessionId, Seat)>,
    pub(super) reservations: BTreeMap<ReservationId, ReservationRow>,
    /// Reservations that are held or paid, by user and session.
    pub(super) live: HashMap<(UserId, SessionId), BTreeSet<ReservationId>>,
    /// What was held with each ticket.
    pub(super) holds: HashMap<TicketRef, Vec<ReservationId>>,
    /// Holds, by when they end.
    pub(super) held: BTreeSet<(Timestamp, ReservationId)>,
    pub(super) accounts: BTreeMap<UserId, i64>,
    pub(super) entries: BTreeMap<i64, PointsEntry>,
    pub(super) payments: BTreeMap<PaymentId, (Payment, UserId)>,
    pub(super) refunds: BTreeMap<PaymentId, NewRefund>,
    pub(super) spent: BTreeMap<TicketRef, Option<PaymentId>>,
    pub(super) left: BTreeSet<(QueueName, u64)>,
    pub(super) keys: BTreeMap<(UserId, String), NewKey>,
    pub(super) outbox: BTreeMap<i64, OutboxRow>,
    pub(super) last_event: i64,
    /// Events that have left, by topic.
    pub(super) published: BTreeMap<String, u64>,
    pub(super) queues: BTreeMap<QueueName, Queue>,
    pub(super) aliases: BTreeMap<String, Alias>,
    pub(super) settings: BTreeMap<&'static str, String>,
    pub(super) acts: Acts,
    /// The last ids of what was removed.
    pub(super) last_concert: i64,
    pub(super) last_session: i64,
    pub(super) last_seat: i64,
    /// Ids of people, by their digests.
    people: HashMap<[u8; 32], UserId>,
    /// What their issuers call them.
    pub(super) people_by_id: HashMap<UserId, String>,
    last_person: i64,
    /// The latest time that was seen.
    latest: Timestamp,
    /// The last entry that a seed has made.
    pub(super) seeded_entry: i64,
    pub(super) instances: Instances,
    pub(super) time: DatabaseTime,
}

/// What operators leave behind.
#[derive(Default)]
pub(super) struct Acts {
    /// Those whose tokens are good, by name.
    pub(super) operators: BTreeMap<String, StoredOperator>,
    pub(super) log: Vec<LogEntry>,
    /// By operator and key: a digest of what was asked, the answer, and when.
    pub(super) keys: BTreeMap<(String, String), ([u8; 32], String, Timestamp)>,
}

/// A queue.
pub(super) struct Queue {
    settings: QueueSettings,
    pub(super) next: u64,
    pub(super) watermark: u64,
    pub(super) serving: u64,
    pub(super) floor: u64,
    pub(super) steps: u64,
    claimed: RoaringTreemap,
    pub(super) log: BTreeMap<u64, Timestamp>,
    pub(super) passed: RoaringTreemap,
    pub(super) readmitted: BTreeMap<u64, Timestamp>,
    bucket: Bucket,
    /// What decides the opening draw, where there is to be one.
    seed: Option<DrawSeed>,
    /// How many were drawn.
    drawn: Option<u64>,
    granted: LastGrant,
    pub(super) links: VecDeque<Link>,
    /// The numbers and times of the records that say where the queue stands.
    pub(super) marks: Vec<(u64, Timestamp)>,
}

impl Queue {
    /// Carries a step of admission out. Whoever is admitted has joined, so the other two counters are at
    /// least as high.
    fn admit(&mut self, step: &Step) {
        self.steps += 1;
        if step.upto > self.serving {
            self.log.insert(step.upto, step.at);
        }
        self.serving = step.upto;
        self.next = self.next.max(step.upto);
        self.watermark = self.watermark.max(step.upto);
        if !planted(Bug::PassedForgotten) {
            self.passed |= &step.passed;
        }
        if planted(Bug::ReturnedStayPassed) {
            return;
        }
        self.readmitted.extend((&step.returned & &self.passed).iter().map(|seq| (seq, step.at)));
        self.passed -= &step.returned;
    }

    /// The last record.
    pub(super) fn head(&self) -> Option<Head> {
        self.links
            .back()
            .map(|Link { number, digest, .. }| Head { number: *number, digest: *digest })
    }

    /// Writes the next record.
    fn append(&mut self, at: Timestamp, entry: Entry) {
        let Some(head) = self.head() else { return };
        let is_mark = matches!(entry, Entry::Stands(_));
        let (link, head) = chain::following(head, at, entry);
        self.links.push_back(link);
        if is_mark {
            self.marks.push((head.number, at));
        }
    }

    fn standing(&self, name: &QueueName) -> Standing {
        let (passed, terms) = ((&self.passed).into(), (&self.settings).into());
        Standing { serving: self.serving, passed, terms, draw: self.drawing(name) }
    }

    /// The opening draw, where there is one.
    pub(super) fn drawing(&self, name: &QueueName) -> Option<Drawing> {
        draws::drawing(name, self.seed.clone(), self.drawn)
    }

    /// Exchanges the seed of a draw that is still to come: after a restore it may have been revealed.
    fn reseed(&mut self, name: &QueueName, at: Timestamp) -> Result<(), Fault> {
        if self.seed.is_none() || self.drawn.is_some() {
            return Ok(());
        }
        let seed = DrawSeed::random()?;
        let committed = Entry::Committed(seed.commitment(name));
        self.seed = Some(seed);
        self.append(at, committed);
        self.steps += 1;
        Ok(())
    }
}

fn id<T>(new: fn(i64) -> Option<T>, last: i64) -> Result<T, Fault> {
    new(last + 1).ok_or_else(|| Fault::Corrupt(format!("no id after {last}")))
}

pub(super) fn no_queue(name: &QueueName) -> Fault {
    Fault::Corrupt(format!("no queue {name}"))
}

impl Data {
    /// Nothing yet, in a store whose time is told by this.
    pub(super) fn at(time: DatabaseTime) -> Self {
        Self { time, ..Self::default() }
    }

    // ---- the sale ----

    pub(super) fn ids(&self) -> Ids {
        let mut ids = Ids::default();
        let reservation = self.reservations.last_key_value().map_or(0, |(id, _)| id.get());
        let payment = self.payments.last_key_value().map_or(0, |(id, _)| id.get());
        let entry = self.entries.last_key_value().map_or(0, |(id, _)| *id);
        ids.reservations.add(reservation + 1..i64::MAX);
        ids.payments.add(payment + 1..i64::MAX);
        ids.entries.add(entry + 1..i64::MAX);
        ids
    }

    pub(super) fn balance(&self, user: UserId) -> i64 {
        self.accounts.get(&user).copied().unwrap_or(0)
    }

    pub(super) fn reservation(&self, id: ReservationId) -> Option<ReservationRow> {
        self.reservations.get(&id).cloned()
    }

    pub(super) fn reservations_of(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        max: usize,
    ) -> Vec<ReservationRow> {
        let made = |row: &&ReservationRow| (row.reservation.created_at, row.reservation.id);
        let of_user = |row: &&ReservationRow| row.reservation.user == user;
        let before =
            after.map(|id| self.reservations.get(&id).filter(of_user).map(|row| made(&row)));
        let mut rows: Vec<_> = self
            .reservations
            .values()
            .filter(of_user)
            .filter(|row| before.is_none_or(|before| before.is_some_and(|at| made(row) < at)))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(made(row)));
        rows.into_iter().take(max).cloned().collect()
    }

    pub(super) fn key(&self, user: UserId, key: &str) -> Option<KeyRow> {
        let row = self.keys.get(&(user, key.to_owned()))?;
        Some(KeyRow { fingerprint: row.fingerprint, result: row.result })
    }

    pub(super) fn due(&self, now: Timestamp, max: usize) -> Vec<ReservationId> {
        let due = self.held.iter().take_while(|(until, _)| *until <= now);
        due.take(max).map(|(_, id)| *id).collect()
    }

    pub(super) fn save(&mut self, changes: &Changes) {
        for (id, row) in &changes.reservations_made {
            if let Some(ticket) = &row.ticket {
                self.holds.entry(ticket.clone()).or_default().push(*id);
            }
            self.put_reservation(*id, row.clone());
        }
        for (id, reservation) in &changes.reservations_settled {
            if let Some(row) = self.reservation(*id) {
                let row = ReservationRow { reservation: reservation.clone(), ..row };
                self.put_reservation(*id, row);
            }
        }
        for (seat, (_, state)) in &changes.seats {
            let is_free = matches!(state, SeatState::Available | SeatState::Released { .. });
            if is_free && planted(Bug::GivenBackStaysHeld) {
                continue;
            }
            if let Some((_, seat)) = self.seats.get_mut(seat) {
                seat.state = *state;
            }
        }
        if changes.payments.is_empty() || !planted(Bug::FreeOfCharge) {
            self.accounts.extend(&changes.accounts);
        }
        for entry in &changes.entries {
            self.latest = self.latest.max(entry.at);
            self.entries.insert(entry.id, *entry);
        }
        for (payment, user) in &changes.payments {
            self.payments.insert(payment.id, (*payment, *user));
        }
        for new in &changes.refunds {
            self.refunds.insert(new.refund.payment, *new);
        }
        for spent in &changes.spent {
            if spent.payment.is_none() && planted(Bug::LeavingForgotten) {
                continue;
            }
            self.spent.insert(spent.ticket.clone(), spent.payment);
        }
        self.left.extend(changes.left.iter().cloned());
        for key in &changes.keys {
            self.keys.insert((key.user, key.key.clone()), key.clone());
        }
        for (event, at) in &changes.events {
            let is_payment = matches!(event, Event::PaymentCompleted { .. });
            if is_payment && planted(Bug::PaymentWithoutEvent) {
                continue;
            }
            self.last_event += 1;
            let id = self.last_event;
            let topic = event.topic().name().to_owned();
            let row = OutboxRow { id, topic, key: event.key(), body: cloud_event(event, *at) };
            self.outbox.insert(id, row);
        }
    }

    fn put_reservation(&mut self, id: ReservationId, row: ReservationRow) {
        let reservation = &row.reservation;
        self.latest = self.latest.max(reservation.created_at);
        let live = self.live.entry((reservation.user, reservation.session)).or_default();
        let (is_live, is_held) = match reservation.state {
            ReservationState::Held { .. } => (true, true),
            ReservationState::Paid { .. } => (true, false),
            ReservationState::Cancelled
            | ReservationState::Expired
            | ReservationState::Refunded { .. } => (false, false),
        };
        if is_live {
            live.insert(id);
        } else {
            live.remove(&id);
        }
        if is_held {
            self.held.insert((row.until, id));
        } else {
            self.held.remove(&(row.until, id));
        }
        self.reservations.insert(id, row);
    }

    pub(super) fn forget_keys(&mut self, before: Timestamp, max: u32) -> u32 {
        let mut old: Vec<(Timestamp, (UserId, String))> = self
            .keys
            .iter()
            .filter(|(_, row)| row.at < before)
            .map(|(key, row)| (row.at, key.clone()))
            .collect();
        old.sort();
        old.truncate(max as usize);
        self.acts.forget_keys(before);
        old.iter().filter(|(_, key)| self.keys.remove(key).is_some()).count() as u32
    }

    pub(super) fn mark_published(&mut self, ids: &[i64]) {
        for id in ids {
            if let Some(row) = self.outbox.remove(id) {
                *self.published.entry(row.topic).or_default() += 1;
            }
        }
    }

    /// Gives users of a seed their first points.
    pub(super) fn give_points(&mut self, seed: &Seed, now: Timestamp) {
        for user in seed.users.clone().filter_map(UserId::new) {
            let id = self.entries.last_key_value().map_or(0, |(id, _)| *id) + 1;
            let (amount, balance) = (seed.points, self.balance(user) + seed.points);
            let kind = EntryKind::Opening;
            self.entries.insert(id, PointsEntry { id, user, amount, balance, kind, at: now });
            self.accounts.insert(user, balance);
            self.seeded_entry = id;
        }
        self.latest = self.latest.max(now);
    }

    // ---- what is for sale ----

    pub(super) fn catalog(&self) -> Catalog {
        let inventory = |session: &Session| {
            let seats = self.seats.values().filter(|(of, _)| *of == session.id);
            Inventory::new(*session, seats.map(|(_, seat)| *seat).collect())
                .with_plan(self.plans.get(&session.id).cloned())
        };
        let inventories = self.sessions.values().map(inventory).collect();
        let catalog = Catalog::from_parts(self.concerts.values().cloned().collect(), inventories);
        self.called_off.iter().for_each(|(session, at)| catalog.call_off(*session, *at));
        catalog
    }

    pub(super) fn create_concert(&mut self, new: NewConcert) -> Result<Concert, Fault> {
        let last = self.concerts.last_key_value().map_or(0, |(id, _)| id.get());
        let last = last.max(self.last_concert);
        let NewConcert { name, venue, queue, opens_at, closes_at } = new;
        let id = id(ConcertId::new, last)?;
        let concert = Concert { id, name, venue, queue, opens_at, closes_at };
        self.concerts.insert(id, concert.clone());
        Ok(concert)
    }

    #[expect(clippy::type_complexity, reason = "what was made, for memory and for the answer")]
    pub(super) fn create_session(
        &mut self,
        concert: ConcertId,
        starts_at: Timestamp,
        seating: &Seating,
    ) -> Result<Option<(Session, Vec<Seat>, Vec<AddedSeats>)>, Fault> {
        if !self.concerts.contains_key(&concert) {
            return Ok(None);
        }
        let last = self.sessions.last_key_value().map_or(0, |(id, _)| id.get());
        let last = last.max(self.last_session);
        let session = Session { id: id(SessionId::new, last)?, concert, starts_at };
        self.sessions.insert(session.id, session);
        self.plans.extend(seating.plan().map(|plan| (session.id, plan.clone())));
        let (seats, added) = self.insert_seats(session.id, seating)?;
        Ok(Some((session, seats, added)))
    }

    #[expect(clippy::type_complexity, reason = "what was made, for memory and for the answer")]
    pub(super) fn add_seats(
        &mut self,
        concert: ConcertId,
        session: SessionId,
        group: NewSeats,
    ) -> Result<Option<(Vec<Seat>, Option<AddedSeats>)>, Fault> {
        let is_other = |session: &Session| session.concert != concert;
        if self.sessions.get(&session).is_none_or(is_other) || self.plans.contains_key(&session) {
            return Ok(None);
        }
        let (seats, added) = self.insert_seats(session, &group.into())?;
        Ok(Some((seats, added.first().copied())))
    }

    fn insert_seats(
        &mut self,
        session: SessionId,
        seating: &Seating,
    ) -> Result<(Vec<Seat>, Vec<AddedSeats>), Fault> {
        let of_session = self.seats.values().filter(|(of, _)| *of == session);
        let numbered = of_session.map(|(_, seat)| seat.number).max().unwrap_or(0);
        let last = self.seats.last_key_value().map_or(0, |(id, _)| id.get());
        let last = last.max(self.last_seat);
        let mut seats = Vec::with_capacity(seating.prices().len());
        for (price, offset) in seating.prices().iter().copied().zip(0..) {
            let id = id(SeatId::new, last + i64::from(offset))?;
            let number = numbered.saturating_add(offset + 1);
            let seat = Seat { id, number, price, state: SeatState::Available };
            self.seats.insert(seat.id, (session, seat));
            seats.push(seat);
        }
        let added = seating.added(seats.first().map(|seat| seat.id));
        Ok((seats, added))
    }

    // ---- queues ----

    pub(super) fn create_queue(
        &mut self,
        name: QueueName,
        settings: QueueSettings,
        seed: Option<DrawSeed>,
    ) -> bool {
        let is_new = !self.queues.contains_key(&name);
        if is_new {
            let mut queue = Queue {
                settings,
                next: 0,
                watermark: 0,
                serving: 0,
                floor: 0,
                steps: 0,
                claimed: RoaringTreemap::new(),
                log: BTreeMap::new(),
                passed: RoaringTreemap::new(),
                readmitted: BTreeMap::new(),
                bucket: Bucket::restore(0, None),
                seed,
                drawn: None,
                granted: LastGrant::default(),
                links: VecDeque::new(),
                marks: Vec::new(),
            };
            let at = self.time.now();
            let stands = Entry::Stands(queue.standing(&name));
            queue.links.push_back(chain::first(&name, 0, at, stands));
            queue.marks.push((0, at));
            self.queues.insert(name, queue);
        }
        is_new
    }

    fn queue(&mut self, name: &QueueName) -> Result<&mut Queue, Fault> {
        self.queues.get_mut(name).ok_or_else(|| no_queue(name))
    }

    pub(super) fn settings_of(&self, name: &QueueName) -> Option<QueueSettings> {
        self.queues.get(name).map(|queue| queue.settings.clone())
    }

    /// Changes how a queue admits. `None` where it was drawn, and would open at another time.
    pub(super) fn change_queue(
        &mut self,
        name: &QueueName,
        change: &SettingsChange,
    ) -> Result<Option<QueueSettings>, Fault> {
        let at = self.time.now();
        let queue = self.queue(name)?;
        if draws::refuses(queue.drawn, change, &queue.settings) {
            return Ok(None);
        }
        change.apply(&mut queue.settings);
        queue.append(at, Entry::Changed((&queue.settings).into()));
        // The credit was earned under the old settings.
        queue.bucket = Bucket::restore(0, None);
        // What was planned under them does not count any more.
        queue.steps += u64::from(!planted(Bug::SettingsNoStep));
        Ok(Some(queue.settings.clone()))
    }

    pub(super) fn draw(&mut self, request: &DrawRequest) -> Result<Option<Drawn>, Fault> {
        let queue = self.queue(&request.queue)?;
        let stored = draws::Stored {
            seed: queue.seed.clone(),
            drawn: queue.drawn,
            opens_at: queue.settings.opens_at,
            next: queue.next,
            watermark: queue.watermark,
        };
        let drawn = match draws::decide(&stored, request) {
            Decision::Nothing(drawn) => return Ok(drawn),
            Decision::Draw(drawn) => drawn,
        };
        queue.drawn = Some(drawn.count);
        queue.next = queue.next.max(drawn.count);
        queue.watermark = queue.watermark.max(drawn.count);
        queue.append(request.at, Entry::Drawn(drawn));
        queue.steps += 1;
        Ok(Some(drawn))
    }

    pub(super) fn checkpoint(
        &mut self,
        queues: &[Checkpoint],
        now: Timestamp,
    ) -> Result<(), Fault> {
        for point in queues {
            let queue = self.queue(&point.queue)?;
            let upto = point.step.as_ref().map_or(queue.serving, |(_, step)| step.upto);
            let rises = queue.next <= point.next
                && queue.floor <= point.floor
                && point.next <= point.watermark
                && queue.serving <= upto;
            if !rises {
                let name = &point.queue;
                return Err(Fault::Corrupt(format!("counters of queue {name} would go back")));
            }
        }
        for point in queues {
            let queue = self.queue(&point.queue)?;
            (queue.next, queue.watermark, queue.floor) = (point.next, point.watermark, point.floor);
            if let Some((_, step)) = &point.step {
                let (step, before) = (chain::upon(step, queue.serving), queue.serving);
                let returned = &step.returned & &queue.passed;
                if let Some(entry) = chain::admitted(step.clone(), before, returned) {
                    queue.append(step.at, entry);
                    queue.admit(&step);
                }
            }
            if let Some(claimed) = &point.claimed {
                queue.claimed.clone_from(claimed);
            }
            self.forget_over(&point.queue, point.over_before);
        }
        self.latest = self.latest.max(now);
        Ok(())
    }

    pub(super) fn grant_numbers(&mut self, request: &GrantRequest) -> Result<Grant, Fault> {
        let queue = self.queue(&request.queue)?;
        let grant = numbers::decide(&queue.granted, queue.watermark, request);
        if let Some(new) = numbers::new_grant(&queue.granted, request, grant) {
            if !planted(Bug::GrantUncounted) {
                queue.watermark = new.last;
            }
            queue.granted = new;
        }
        Ok(grant)
    }

    pub(super) fn beat(&mut self, beat: Beat) -> Beats {
        self.instances.beat(beat, self.time.now())
    }

    pub(super) fn take_numbers(&mut self, name: &QueueName, count: u64) -> Result<Taken, Fault> {
        let elsewhere =
            self.instances.any_with_redis(self.time.now()) && !planted(Bug::TakenBesideRedis);
        let queue = self.queue(name)?;
        if elsewhere {
            return Ok(Taken::Elsewhere);
        }
        let before = if planted(Bug::TakenBelowPool) { queue.next } else { queue.watermark };
        queue.watermark = queue.watermark.max(before + count);
        if !planted(Bug::TakenUnrecorded) {
            queue.next = before + count;
        }
        Ok(Taken::From(before + 1))
    }

    pub(super) fn advance(&mut self, step: &Advance, now: Timestamp) -> Result<bool, Fault> {
        let timely = step.is_timely(self.time.told());
        let queue = self.queue(&step.queue)?;
        let as_planned = (queue.steps == step.steps && queue.serving == step.serving)
            || planted(Bug::NoCompareAndSet);
        if !as_planned || queue.settings.paused || !timely {
            return Ok(false);
        }
        let mut admitted = Admitted::of(&step.step, step.serving);
        if planted(Bug::LeftUnlogged) {
            admitted.left = Runs::new();
        }
        queue.append(step.step.at, Entry::Admitted(admitted));
        queue.admit(&step.step);
        queue.bucket = step.bucket.clone();
        self.latest = self.latest.max(now);
        Ok(true)
    }

    pub(super) fn record(&mut self, progress: &[Progress], now: Timestamp) -> Result<(), Fault> {
        if let Some(unknown) = progress.iter().find(|p| !self.queues.contains_key(&p.queue)) {
            return Err(no_queue(&unknown.queue));
        }
        for known in progress {
            let queue = self.queue(&known.queue)?;
            queue.next = queue.next.max(known.next);
            queue.watermark = queue.watermark.max(known.next);
            queue.floor = queue.floor.max(queue.serving.min(known.floor));
            if let Some(more) = &known.claimed {
                queue.claimed |= more;
                queue.claimed.remove_range(..=queue.floor);
            }
            self.forget_over(&known.queue, known.over_before);
        }
        self.latest = self.latest.max(now);
        Ok(())
    }

    /// What is below the floor has run out of time; nobody asks for it any more. Nor for those that were
    /// let in late, before `over_before`.
    fn forget_over(&mut self, name: &QueueName, over_before: Timestamp) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let floor = queue.floor;
        queue.log.retain(|upto, _| *upto > floor);
        queue.readmitted.retain(|_, at| *at >= over_before);
        let over = draws::order(queue.drawing(name).as_ref()).numbers_up_to(floor);
        self.left.retain(|(of, seq)| of != name || *seq > over);
    }

    pub(super) fn admission_log(
        &self,
        name: &QueueName,
        after: Option<u64>,
        max: usize,
    ) -> Option<LogPart> {
        let queue = self.queues.get(name)?;
        let first = after.unwrap_or(0);
        let from = queue.links.partition_point(|link| link.number < first);
        let links = queue.links.iter().skip(from).take(max + 1).cloned().collect();
        let mut part = LogPart::of(name, after, links, queue.head()?);
        part.links.truncate(max);
        Some(part)
    }

    /// Exchanges the seeds of the draws that are still to come.
    pub(super) fn reseed_all(&mut self) -> Result<(), Fault> {
        let at = self.time.now();
        self.queues.iter_mut().try_for_each(|(name, queue)| queue.reseed(name, at))
    }

    /// Writes this into the logs of all queues.
    pub(super) fn log_in_all(&mut self, entry: &Entry) {
        let at = self.time.now();
        for queue in self.queues.values_mut() {
            queue.append(at, entry.clone());
            queue.steps += 1;
        }
    }

    pub(super) fn shorten_log(&mut self, shorten: &ShortenLog) -> u64 {
        let now = self.time.now();
        let ShortenLog { queue, kept_since, marked_before, max } = shorten;
        let name = queue;
        let Some(queue) = self.queues.get_mut(name) else { return 0 };
        let Some(head) = queue.head() else { return 0 };
        let is_old = |(number, at): &(u64, Timestamp)| at < marked_before && *number < head.number;
        if queue.marks.last().is_none_or(is_old) {
            queue.append(now, Entry::Stands(queue.standing(name)));
            queue.steps += 1;
        }
        let Some(keep) = queue.marks.iter().rposition(|(_, at)| at < kept_since) else { return 0 };
        let (keep, _) = queue.marks[keep];
        queue.marks.retain(|(number, _)| *number >= keep);
        // Of the last one that is forgotten the digest is left, from which the rest goes on.
        let old = queue.links.partition_point(|link| link.number + 1 < keep).min(*max as usize);
        queue.links.drain(..old);
        old as u64
    }

    pub(super) fn stored_queues(&self) -> Vec<StoredQueue> {
        let stored = |(name, queue): (&QueueName, &Queue)| {
            let draw = queue.drawing(name);
            let order = draws::order(draw.as_ref());
            let above = |seq: &u64| *seq > queue.floor;
            let known = |seq: &u64| above(seq) || queue.readmitted.contains_key(seq);
            let is_by_number = planted(Bug::LeftUndrawn);
            let left_rank = |seq: u64| if is_by_number { seq } else { order.rank(seq) };
            let gave_up: RoaringTreemap = self
                .left
                .iter()
                .filter(|(of, _)| of == name)
                .map(|(_, seq)| left_rank(*seq))
                .filter(above)
                .collect();
            let spent = |by: SpentBy| -> RoaringTreemap {
                let here = self.spent.iter().filter(|(ticket, _)| ticket.queue == *name);
                let so = here.filter(|(_, payment)| SpentBy::of(payment.is_some()) == by);
                let rank = |seq| match by {
                    SpentBy::Leaving => left_rank(seq),
                    SpentBy::Payment => order.rank(seq),
                };
                so.map(|(ticket, _)| rank(ticket.seq)).filter(known).collect()
            };
            let finished = spent(SpentBy::Payment);
            // Whoever has paid did not leave, whatever an instance that lags behind took it for.
            let left = (gave_up | spent(SpentBy::Leaving)) - &finished;
            let admission = |(upto, at): (&u64, &Timestamp)| Admission { upto: *upto, at: *at };
            StoredQueue {
                name: name.clone(),
                settings: queue.settings.clone(),
                next: queue.next,
                watermark: queue.watermark,
                line: LineParts {
                    steps: queue.steps,
                    serving: queue.serving,
                    floor: queue.floor,
                    log: queue.log.iter().map(admission).collect(),
                    claimed: &queue.claimed - &finished - &left,
                    left,
                    finished,
                    passed: queue.passed.clone(),
                    readmitted: queue.readmitted.iter().map(|(seq, at)| (*seq, *at)).collect(),
                    order,
                },
                bucket: queue.bucket.clone(),
                draw,
            }
        };
        self.queues.iter().map(stored).collect()
    }

    pub(super) fn clock(&self) -> Timestamp {
        let logs = self
            .queues
            .values()
            .flat_map(|queue| queue.log.values().chain(queue.readmitted.values()));
        logs.copied().max().unwrap_or_default().max(self.latest)
    }

    /// Takes times back that lie in the future. Holds that were made then end.
    pub(super) fn set_back(&mut self, now: Timestamp) -> u64 {
        let mut changed = 0;
        let mut set = |at: &mut Timestamp| {
            changed += u64::from(*at > now);
            *at = now.min(*at);
        };
        let mut ended = Vec::new();
        for row in self.reservations.values_mut() {
            let held = matches!(row.reservation.state, ReservationState::Held { .. });
            if held && row.reservation.created_at > now {
                ended.push((row.reservation.id, row.until));
                row.until = now;
                row.reservation.state = ReservationState::Held { until: now };
            }
            set(&mut row.reservation.created_at);
        }
        self.payments.values_mut().for_each(|(payment, _)| set(&mut payment.paid_at));
        self.refunds.values_mut().for_each(|new| set(&mut new.refund.refunded_at));
        self.entries.values_mut().for_each(|entry| set(&mut entry.at));
        self.keys.values_mut().for_each(|key| set(&mut key.at));
        self.acts.key_times().for_each(&mut set);
        self.aliases.values_mut().for_each(|alias| set(&mut alias.ticket.issued_at));
        for queue in self.queues.values_mut() {
            queue.log.values_mut().chain(queue.readmitted.values_mut()).for_each(&mut set);
            queue.marks.iter_mut().for_each(|(_, at)| set(at));
            if queue.bucket.state().1.is_some_and(|at| at > now) {
                queue.bucket = Bucket::restore(0, None);
            }
        }
        set(&mut self.latest);
        self.log_in_all(&Entry::SetBack);
        for (_, seat) in self.seats.values_mut() {
            if let SeatState::Released { until } = &mut seat.state {
                *until = now.min(*until);
            }
        }
        for (id, until) in ended {
            self.held.remove(&(until, id));
            self.held.insert((now, id));
            for (_, seat) in self.seats.values_mut() {
                if matches!(seat.state, SeatState::Held { reservation, .. } if reservation == id) {
                    seat.state = SeatState::Held { reservation: id, until: now };
                }
            }
        }
        changed
    }

    // ---- people ----

    pub(super) fn people(&mut self, people: &[NewPerson]) -> Result<Vec<Option<UserId>>, Fault> {
        people.iter().map(|person| self.person(person)).collect()
    }

    fn person(&mut self, person: &NewPerson) -> Result<Option<UserId>, Fault> {
        if let Some(known) = self.people.get(&person.digest) {
            return Ok(Some(*known));
        }
        let new = match person.id {
            Some(id) if self.people_by_id.contains_key(&id) => return Ok(None),
            Some(id) => id,
            None => loop {
                let next = id(UserId::new, self.last_person)?;
                self.last_person = next.get();
                if !self.people_by_id.contains_key(&next) && !self.accounts.contains_key(&next) {
                    break next;
                }
            },
        };
        self.people.insert(person.digest, new);
        self.people_by_id.insert(new, person.name.clone());
        Ok(Some(new))
    }

    // ---- opaque tokens ----

    pub(super) fn add_aliases(&mut self, aliases: Vec<Alias>) -> Result<(), AliasExists> {
        let mut listed = HashSet::new();
        for alias in &aliases {
            if self.aliases.contains_key(&alias.token) || !listed.insert(&alias.token) {
                return Err(AliasExists(alias.token.clone()));
            }
        }
        self.aliases.extend(aliases.into_iter().map(|alias| (alias.token.clone(), alias)));
        Ok(())
    }

    pub(super) fn aliases(&self, now: Timestamp) -> Vec<Alias> {
        let since = Timestamp(now.0.saturating_sub(ALIAS_KEPT_MS));
        let is_kept = |alias: &&Alias| alias.active_until.is_none_or(|until| until > since);
        let spent = |alias: &Alias| {
            let payment = self.spent.get(&TicketRef::from(&alias.ticket));
            payment.map(|payment| SpentBy::of(payment.is_some()))
        };
        self.aliases
            .values()
            .filter(is_kept)
            .map(|alias| Alias { spent: spent(alias), ..alias.clone() })
            .collect()
    }
}
