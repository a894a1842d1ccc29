//! What is done inside a transaction beside the sale: queues, what is for sale, tokens, settings, and
//! events that have left.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use boxoffice_domain::command::{Changes, EntryKind, PointsEntry};
use boxoffice_domain::ids::{ConcertId, SeatId, SessionId, UserId};
use boxoffice_domain::queue::{Admitted, Drawn, Entry, QueueSettings, SettingsChange, Step};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use boxoffice_domain::time::Timestamp;
use roaring::RoaringTreemap;
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::load::{self, LastIds};
use super::log;
use super::rows::{self, Failure, column, seat_state};
use super::sale;
use crate::store::DatabaseTime;
use crate::store::catalog::{Catalog, Inventory, Made};
use crate::store::chain;
use crate::store::draws::{self, Decision, DrawSeed};
use crate::store::numbers::{self, Grant, GrantRequest, LastGrant, Taken};
use crate::store::types::{
    AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert, NewPerson,
    NewSeats, Progress, Seating, Seed, ShortenLog,
};

/// What the writer knows without asking the file: the last ids, and what the transaction under way
/// has made.
pub(super) struct State {
    pub(super) catalog: Arc<ArcSwap<Catalog>>,
    pub(super) last: LastIds,
    /// Concerts, sessions and seats that it has made.
    made: Vec<Made>,
    time: DatabaseTime,
}

impl State {
    pub(super) const fn new(
        catalog: Arc<ArcSwap<Catalog>>,
        last: LastIds,
        time: DatabaseTime,
    ) -> Self {
        Self { catalog, last, made: Vec::new(), time }
    }

    /// The transaction is durable: lets everybody see what it made.
    pub(super) fn publish(&mut self) {
        for made in self.made.drain(..) {
            let catalog = self.catalog.load();
            match made {
                Made::Concert(concert) => {
                    self.catalog.store(Arc::new(catalog.with_concert(concert)))
                }
                Made::Inventory(session, seats, plan) => {
                    let inventory = Arc::new(Inventory::new(session, seats).with_plan(plan));
                    self.catalog.store(Arc::new(catalog.with_inventory(inventory)));
                }
                Made::CalledOff(session, at) => catalog.call_off(session, at),
                Made::Seats(session, seats) => {
                    if let Some(inventory) = catalog.inventory_of(session) {
                        inventory.append(seats);
                    }
                }
                Made::ConcertChanged(concert) => {
                    self.catalog.store(Arc::new(catalog.with_concert(concert)));
                }
                Made::SessionMoved(session, starts_at) => {
                    if let Some(inventory) = catalog.inventory_of(session) {
                        inventory.move_to(starts_at);
                    }
                }
                Made::SessionGone(session) => {
                    self.catalog.store(Arc::new(catalog.without_session(session)));
                }
                Made::ConcertGone(concert) => {
                    self.catalog.store(Arc::new(catalog.without_concert(concert)));
                }
            }
        }
    }

    /// The transaction did not happen.
    pub(super) fn forget(&mut self) {
        self.made.clear();
    }
}

/// The setting that has the last id that a person got here.
const LAST_PERSON: &str = "person.last_id";

fn next(last: &mut i64) -> i64 {
    *last += 1;
    *last
}

/// A transaction under way.
pub(super) struct Tx<'a> {
    connection: &'a Connection,
    state: &'a mut State,
}

type Op<T> = Result<T, Failure>;

impl<'a> Tx<'a> {
    pub(super) const fn new(connection: &'a Connection, state: &'a mut State) -> Self {
        Self { connection, state }
    }

    pub(super) const fn connection(&self) -> &Connection {
        self.connection
    }

    pub(super) fn catalog(&self) -> Arc<Catalog> {
        self.state.catalog.load_full()
    }

    /// Returns how many seats the transaction under way has added to a session.
    pub(super) fn has_added(&self, session: SessionId) -> usize {
        let added = |made: &Made| match made {
            Made::Seats(id, seats) if *id == session => seats.len(),
            _ => 0,
        };
        self.state.made.iter().map(added).sum()
    }

    /// Shows this once the transaction is durable.
    pub(super) fn made(&mut self, made: Made) {
        self.state.made.push(made);
    }

    pub(super) const fn last_ids(&self) -> &LastIds {
        &self.state.last
    }

    /// Between which ids the seats of a session are, those of the transaction under way among them.
    pub(super) fn range_of(&self, session: SessionId) -> Option<(i64, i64)> {
        let shown = self.state.catalog.load().inventory_of(session).and_then(|shown| shown.range());
        let made = self.state.made.iter().filter_map(|made| match made {
            Made::Inventory(of, seats, _) if of.id == session => range_of(seats),
            Made::Seats(of, seats) if *of == session => range_of(seats),
            _ => None,
        });
        made.chain(shown).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    pub(super) fn execute(&self, sql: &str, params: impl Params) -> Op<usize> {
        Ok(self.connection.prepare_cached(sql)?.execute(params)?)
    }

    // ---- tickets and keys ----

    pub(super) fn add_aliases(&self, aliases: &[Alias]) -> Op<Result<(), AliasExists>> {
        let mut exists = self.connection.prepare_cached("SELECT 1 FROM alias WHERE token = ?1")?;
        let mut listed = HashSet::with_capacity(aliases.len());
        for alias in aliases {
            if !listed.insert(&alias.token) || exists.exists([&alias.token])? {
                return Ok(Err(AliasExists(alias.token.clone())));
            }
        }
        for alias in aliases {
            self.execute(
                "INSERT INTO alias (token, queue, seq, user_id, issued_at, ticket_id, active_until) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    alias.token,
                    alias.ticket.queue.as_str(),
                    column(alias.ticket.seq),
                    alias.ticket.user.get(),
                    alias.ticket.issued_at.0,
                    alias.ticket.id.0,
                    alias.active_until.map(|t| t.0),
                ],
            )?;
        }
        Ok(Ok(()))
    }

    pub(super) fn people(&self, people: &[NewPerson], now: Timestamp) -> Op<Vec<Option<UserId>>> {
        let mut known =
            self.connection.prepare_cached("SELECT id FROM person WHERE digest = ?1")?;
        let mut is_taken = self.connection.prepare_cached(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM person WHERE id = ?1) \
             OR EXISTS (SELECT 1 FROM account WHERE user_id = ?1)",
        )?;
        let mut add = self.connection.prepare_cached(
            "INSERT INTO person (id, digest, issuer, name, at) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO NOTHING",
        )?;
        let mut last: Option<i64> = None;
        let mut ids = Vec::with_capacity(people.len());
        for person in people {
            let found: Option<i64> =
                known.query_row([&person.digest[..]], |row| row.get(0)).optional()?;
            let id = match (found, person.id) {
                (Some(id), _) => id,
                (None, Some(id)) => id.get(),
                (None, None) => {
                    let mut next = match last {
                        Some(last) => last,
                        None => self.last_person()?,
                    } + 1;
                    while is_taken.exists([next])? {
                        next += 1;
                    }
                    last = Some(next);
                    next
                }
            };
            let is_theirs = found.is_some()
                || add.execute(params![
                    id,
                    &person.digest[..],
                    person.issuer,
                    person.name,
                    now.0
                ])? == 1;
            let id = UserId::new(id)
                .ok_or_else(|| Failure::Corrupt(format!("a person has the id {id}")))?;
            ids.push(is_theirs.then_some(id));
        }
        if let Some(last) = last {
            self.set_setting(LAST_PERSON, &last.to_string())?;
        }
        Ok(ids)
    }

    /// Returns the last id that a person got here; 0 for none.
    fn last_person(&self) -> Op<i64> {
        let last = self.setting(LAST_PERSON, None)?;
        let last = last.map_or(Ok(0), |last| last.parse());
        last.map_err(|_| Failure::Corrupt("the last id of a person is no number".into()))
    }

    pub(super) fn forget_keys(&self, before: Timestamp, max: u32) -> Op<u32> {
        let forgotten = self.execute(
            "DELETE FROM idempotency WHERE (user_id, key) IN \
             (SELECT user_id, key FROM idempotency WHERE at < ?1 ORDER BY at LIMIT ?2)",
            params![before.0, max],
        )?;
        self.execute(
            "DELETE FROM change_key WHERE (who, key) IN \
             (SELECT who, key FROM change_key WHERE at < ?1 ORDER BY at LIMIT ?2)",
            params![before.0, max],
        )?;
        Ok(u32::try_from(forgotten).unwrap_or(max))
    }

    pub(super) fn mark_published(&self, ids: &[i64]) -> Op<()> {
        let mut gone: HashMap<String, (i64, i64)> = HashMap::new();
        // The relay hands over what it took, which is a run of ids; a run is one walk and one delete.
        for run in ids.chunk_by(|id, next| id.checked_add(1) == Some(*next)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let mut find = self
                .connection
                .prepare_cached("SELECT id, topic FROM outbox WHERE id BETWEEN ?1 AND ?2")?;
            let mut rows = find.query([first, last])?;
            while let Some(row) = rows.next()? {
                let (id, topic): (i64, String) = (row.get(0)?, row.get(1)?);
                let (count, last) = gone.entry(topic).or_default();
                *count += 1;
                *last = (*last).max(id);
            }
            self.execute("DELETE FROM outbox WHERE id BETWEEN ?1 AND ?2", [first, last])?;
        }
        for (topic, (count, last)) in gone {
            self.execute(
                "INSERT INTO published (topic, count, last_id) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (topic) DO UPDATE SET count = count + excluded.count, \
                 last_id = MAX(last_id, excluded.last_id)",
                params![topic, count, last],
            )?;
        }
        Ok(())
    }

    // ---- queues ----

    pub(super) fn create_queue(
        &self,
        name: &str,
        settings: &QueueSettings,
        seed: Option<&DrawSeed>,
    ) -> Op<bool> {
        let made = self.execute(
            "INSERT OR IGNORE INTO queue (name, next, watermark, serving, floor, \
             admit_per_second, max_active, active_ttl_ms, claim_window_ms, opens_at, paused) \
             VALUES (?1, 0, 0, 0, 0, ?2, ?3, ?4, ?5, ?6, ?7)",
            Self::settings_of(name, settings),
        )?;
        if made == 1 {
            self.set_seed(name, seed)?;
            log::begin(self.connection, self.state.time.now())?;
        }
        Ok(made == 1)
    }

    fn set_seed(&self, name: &str, seed: Option<&DrawSeed>) -> Op<()> {
        let seed = seed.map(|seed| &seed.0[..]);
        self.execute("UPDATE queue SET draw_seed = ?2 WHERE name = ?1", params![name, seed])?;
        Ok(())
    }

    /// Exchanges the seeds of the draws that are still to come: after a restore they may have been revealed.
    pub(super) fn reseed_all(&self) -> Op<()> {
        let mut find = self.connection.prepare_cached(
            "SELECT name FROM queue WHERE draw_seed IS NOT NULL AND drawn IS NULL ORDER BY name",
        )?;
        let names = find.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for name in names {
            let seed = DrawSeed::random().map_err(|fault| Failure::Corrupt(fault.to_string()))?;
            self.set_seed(&name, Some(&seed))?;
            let committed = Entry::Committed(seed.commitment(&rows::queue_name(&name)?));
            log::append(self.connection, &name, self.state.time.now(), committed)?;
        }
        Ok(())
    }

    pub(super) fn draw(&self, request: &DrawRequest) -> Op<Option<Drawn>> {
        let name = request.queue.as_str();
        let stored = load::undecided(self.connection, name)?.ok_or_else(|| no_queue(name))?;
        let drawn = match draws::decide(&stored, request) {
            Decision::Nothing(drawn) => return Ok(drawn),
            Decision::Draw(drawn) => drawn,
        };
        self.execute(
            "UPDATE queue SET drawn = ?2, next = MAX(next, ?2), watermark = MAX(watermark, ?2) \
             WHERE name = ?1",
            params![name, column(drawn.count)],
        )?;
        log::append(self.connection, name, request.at, Entry::Drawn(drawn))?;
        Ok(Some(drawn))
    }

    /// Changes how a queue admits. `None` where it was drawn, and would open at another time.
    pub(super) fn change_queue(
        &self,
        name: &str,
        change: &SettingsChange,
    ) -> Op<Option<QueueSettings>> {
        let before = self.settings_of_queue(name)?.ok_or_else(|| no_queue(name))?;
        let stored = load::undecided(self.connection, name)?.ok_or_else(|| no_queue(name))?;
        if draws::refuses(stored.drawn, change, &before) {
            return Ok(None);
        }
        // The credit was earned under the old settings.
        let mut update = self.connection.prepare_cached(
            "UPDATE queue SET admit_per_second = COALESCE(?2, admit_per_second), \
             max_active = IIF(?3, ?4, max_active), opens_at = IIF(?5, ?6, opens_at), \
             paused = COALESCE(?7, paused), credit_micro = NULL, credit_at = NULL \
             WHERE name = ?1 RETURNING admit_per_second, max_active, active_ttl_ms, \
             claim_window_ms, opens_at, paused",
        )?;
        let mut changed = update.query(params![
            name,
            change.admit_per_second,
            change.max_active.is_some(),
            change.max_active.flatten().map(column),
            change.opens_at.is_some(),
            change.opens_at.flatten().map(|at| at.0),
            change.paused,
        ])?;
        let Some(row) = changed.next()? else { return Err(no_queue(name)) };
        let settings = load::settings(row, 0)?;
        let at = self.state.time.now();
        log::append(self.connection, name, at, Entry::Changed((&settings).into()))?;
        Ok(Some(settings))
    }

    /// Writes this into the logs of all queues.
    pub(super) fn log_in_all(&self, entry: &Entry) -> Op<()> {
        let mut find = self.connection.prepare_cached("SELECT name FROM queue ORDER BY name")?;
        let names = find.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        for name in names {
            log::append(self.connection, &name, self.state.time.now(), entry.clone())?;
        }
        Ok(())
    }

    pub(super) fn shorten_log(&self, shorten: &ShortenLog) -> Op<u64> {
        let ShortenLog { queue, kept_since, marked_before, max } = shorten;
        let now = self.state.time.now();
        log::shorten(self.connection, queue.as_str(), (*kept_since, *marked_before), (*max, now))
    }

    /// The parameters 1 to 7 of a new queue.
    fn settings_of<'s>(name: &'s str, settings: &QueueSettings) -> impl rusqlite::Params + use<'s> {
        (
            name,
            settings.admit_per_second,
            settings.max_active.map(column),
            settings.active_ttl.as_millis() as i64,
            settings.claim_window.as_millis() as i64,
            settings.opens_at.map(|t| t.0),
            settings.paused,
        )
    }

    pub(super) fn checkpoint(&self, queues: &[Checkpoint], now: Timestamp) -> Op<()> {
        for point in queues {
            let name = point.queue.as_str();
            let serving = point.step.as_ref().map(|(_, step)| column(step.upto));
            let before = match &point.step {
                Some(_) => self.serving(name)?,
                None => 0,
            };
            // The conditions are the rule that counters never go back, kept where they are stored.
            let changed = self.execute(
                "UPDATE queue SET next = ?2, watermark = ?3, floor = ?4, \
                 serving = COALESCE(?5, serving) WHERE name = ?1 AND next <= ?2 AND floor <= ?4 \
                 AND ?2 <= ?3 AND serving <= COALESCE(?5, serving)",
                params![
                    name,
                    column(point.next),
                    column(point.watermark),
                    column(point.floor),
                    serving
                ],
            )?;
            if changed != 1 {
                return Err(Failure::Corrupt(format!("counters of queue {name} would go back")));
            }
            if let Some((_, step)) = &point.step {
                let step = chain::upon(step, before);
                let returned = self.keep_step(name, before, &step)?;
                let at = step.at;
                if let Some(entry) = chain::admitted(step, before, returned) {
                    log::append(self.connection, name, at, entry)?;
                }
            }
            self.forget_over(name, point.floor, point.over_before)?;
            if let Some(claimed) = &point.claimed {
                self.execute(
                    "UPDATE queue SET claimed = ?2 WHERE name = ?1",
                    params![name, rows::numbers_to(claimed)?],
                )?;
            }
        }
        self.set_clock(now)
    }

    pub(super) fn grant_numbers(&self, request: &GrantRequest) -> Op<Grant> {
        let name = request.queue.as_str();
        let mut find = self.connection.prepare_cached(
            "SELECT watermark, pool, pool_after, pool_first, pool_last FROM queue WHERE name = ?1",
        )?;
        let found: Option<(i64, String, i64, i64, i64)> =
            find.query_row([name], |row| row.try_into()).optional()?;
        let (watermark, pool, after, first, last) = found.ok_or_else(|| no_queue(name))?;
        let count = |number| rows::count(number, "a granted number");
        let granted =
            LastGrant { pool, after: count(after)?, first: count(first)?, last: count(last)? };
        let grant = numbers::decide(&granted, count(watermark)?, request);
        if let Some(new) = numbers::new_grant(&granted, request, grant) {
            let LastGrant { pool, after, first, last } = new;
            self.execute(
                "UPDATE queue SET watermark = ?5, pool = ?2, pool_after = ?3, pool_first = ?4, \
                 pool_last = ?5 WHERE name = ?1",
                params![name, pool, column(after), column(first), column(last)],
            )?;
        }
        Ok(grant)
    }

    pub(super) fn take_numbers(&self, name: &str, count: u64) -> Op<Taken> {
        let mut take = self.connection.prepare_cached(
            "UPDATE queue SET watermark = watermark + ?2, next = watermark + ?2 WHERE name = ?1 \
             RETURNING watermark",
        )?;
        let last: Option<i64> =
            take.query_row(params![name, column(count)], |row| row.get(0)).optional()?;
        let last = rows::count(last.ok_or_else(|| no_queue(name))?, "watermark")?;
        Ok(Taken::From(last - count + 1))
    }

    pub(super) fn advance(&self, step: &Advance, now: Timestamp) -> Op<bool> {
        let name = step.queue.as_str();
        let (credit_micro, credit_at) = step.bucket.state();
        // Whoever is admitted has joined, so the other two counters are at least as high.
        let changed = self.execute(
            "UPDATE queue SET serving = ?4, next = MAX(next, ?4), \
             watermark = MAX(watermark, ?4), credit_micro = ?5, credit_at = ?6 \
             WHERE name = ?1 AND steps = ?2 AND serving = ?3 AND paused = 0 AND ?7",
            params![
                name,
                column(step.steps),
                column(step.serving),
                column(step.step.upto),
                column(credit_micro),
                credit_at.map(|t| t.0),
                step.is_timely(self.state.time.told()),
            ],
        )?;
        if changed == 0 {
            let mut find = self.connection.prepare_cached("SELECT 1 FROM queue WHERE name = ?1")?;
            return if find.exists([name])? { Ok(false) } else { Err(no_queue(name)) };
        }
        self.keep_step(name, step.serving, &step.step)?;
        let admitted = Admitted::of(&step.step, step.serving);
        log::append(self.connection, name, step.step.at, Entry::Admitted(admitted))?;
        self.set_clock(now)?;
        Ok(true)
    }

    pub(super) fn record(&self, progress: &[Progress], now: Timestamp) -> Op<()> {
        for known in progress {
            let name = known.queue.as_str();
            let mut raise = self.connection.prepare_cached(
                "UPDATE queue SET next = MAX(next, ?2), watermark = MAX(watermark, ?2), \
                 floor = MAX(floor, MIN(serving, ?3)) WHERE name = ?1 RETURNING floor, claimed",
            )?;
            let stored: Option<(i64, Option<Vec<u8>>)> = raise
                .query_row(params![name, column(known.next), column(known.floor)], |row| {
                    row.try_into()
                })
                .optional()?;
            let (floor, claimed) = stored.ok_or_else(|| no_queue(name))?;
            let floor = rows::count(floor, "floor")?;
            self.forget_over(name, floor, known.over_before)?;
            if let Some(more) = &known.claimed {
                let mut claimed = rows::numbers_from(claimed, name)? | more;
                claimed.remove_range(..=floor);
                self.execute(
                    "UPDATE queue SET claimed = ?2 WHERE name = ?1",
                    params![name, rows::numbers_to(&claimed)?],
                )?;
            }
        }
        self.set_clock(now)
    }

    fn serving(&self, queue: &str) -> Op<u64> {
        let mut find =
            self.connection.prepare_cached("SELECT serving FROM queue WHERE name = ?1")?;
        let found: Option<i64> = find.query_row([queue], |row| row.get(0)).optional()?;
        Ok(rows::count(found.ok_or_else(|| no_queue(queue))?, "serving")?)
    }

    /// Keeps a step, which goes on from `before`: when whose turn it was, who was passed over, who came back.
    /// Returns the latter.
    fn keep_step(&self, queue: &str, before: u64, step: &Step) -> Op<RoaringTreemap> {
        if step.upto > before {
            self.execute(
                "INSERT INTO admission (queue, upto, at) VALUES (?1, ?2, ?3)",
                params![queue, column(step.upto), step.at.0],
            )?;
        }
        let mut returned = RoaringTreemap::new();
        for part in rows::parts_of(step) {
            let mut find = self
                .connection
                .prepare_cached("SELECT seqs FROM queue_passed WHERE queue = ?1 AND part = ?2")?;
            let found: Option<Vec<u8>> =
                find.query_row(params![queue, part], |row| row.get(0)).optional()?;
            let found = rows::numbers_from(found, queue)?;
            returned |= &found & &step.returned;
            let seqs = rows::passed_after(found, part, step);
            self.execute(
                "INSERT INTO queue_passed (queue, part, seqs) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (queue, part) DO UPDATE SET seqs = excluded.seqs",
                params![queue, part, rows::numbers_to(&seqs)?],
            )?;
        }
        for seq in &returned {
            self.execute(
                "INSERT INTO readmitted (queue, seq, at) VALUES (?1, ?2, ?3)",
                params![queue, column(seq), step.at.0],
            )?;
        }
        Ok(returned)
    }

    /// What is below the floor has run out of time; nobody asks for it any more. Nor for those that were
    /// let in late, before `over_before`.
    fn forget_over(&self, queue: &str, floor: u64, over_before: Timestamp) -> Op<()> {
        let floor = column(floor);
        self.execute(
            "DELETE FROM admission WHERE queue = ?1 AND upto <= ?2",
            params![queue, floor],
        )?;
        self.execute(
            "DELETE FROM queue_left WHERE queue = ?1 AND seq <= ?2 \
             AND NOT EXISTS (SELECT 1 FROM queue WHERE name = ?1 AND drawn > ?2)",
            params![queue, floor],
        )?;
        self.execute(
            "DELETE FROM readmitted WHERE queue = ?1 AND at < ?2",
            params![queue, over_before.0],
        )?;
        Ok(())
    }

    pub(super) fn set_back(&self, now: Timestamp) -> Op<u64> {
        let mut changed = 0;
        for statement in rows::SET_BACK {
            changed += self.execute(statement, params![now.0, now.0])? as u64;
        }
        self.log_in_all(&Entry::SetBack)?;
        Ok(changed)
    }

    fn set_clock(&self, now: Timestamp) -> Op<()> {
        self.execute(
            "INSERT INTO setting (name, value) VALUES ('clock', ?1) ON CONFLICT (name) DO UPDATE \
             SET value = excluded.value WHERE CAST(value AS INTEGER) < ?2",
            params![now.0.to_string(), now.0],
        )?;
        Ok(())
    }

    // ---- what is for sale ----

    pub(super) fn create_concert(&mut self, new: &NewConcert) -> Op<ConcertId> {
        let id = rows::id(ConcertId::new, next(&mut self.state.last.concert), "concert")?;
        self.execute(
            "INSERT INTO concert (id, name, venue, queue, opens_at, closes_at) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                id.get(),
                new.name,
                new.venue,
                new.queue.as_str(),
                new.opens_at.0,
                new.closes_at.0
            ],
        )?;
        self.state.made.push(Made::Concert(Concert {
            id,
            name: new.name.clone(),
            venue: new.venue.clone(),
            queue: new.queue.clone(),
            opens_at: new.opens_at,
            closes_at: new.closes_at,
        }));
        Ok(id)
    }

    fn has_concert(&self, id: ConcertId) -> Op<bool> {
        let mut find = self.connection.prepare_cached("SELECT 1 FROM concert WHERE id = ?1")?;
        Ok(find.exists([id.get()])?)
    }

    pub(super) fn create_session(
        &mut self,
        concert: ConcertId,
        starts_at: Timestamp,
        seating: &Seating,
    ) -> Op<Option<(SessionId, Vec<AddedSeats>)>> {
        if !self.has_concert(concert)? {
            return Ok(None);
        }
        let id = rows::id(SessionId::new, next(&mut self.state.last.session), "session")?;
        let plan = seating.plan();
        if let Some(plan) = plan {
            self.execute(
                "INSERT OR IGNORE INTO plan (digest, body) VALUES (?1, ?2)",
                params![plan.digest().0, plan.body()],
            )?;
        }
        self.execute(
            "INSERT INTO session (id, concert_id, starts_at, plan) VALUES (?1, ?2, ?3, ?4)",
            params![id.get(), concert.get(), starts_at.0, plan.map(|plan| plan.digest().0)],
        )?;
        let seats = self.insert_seats(id, 0, seating.prices())?;
        let added = seating.added(seats.first().map(|seat| seat.id));
        let session = Session { id, concert, starts_at };
        self.state.made.push(Made::Inventory(session, seats, plan.cloned()));
        Ok(Some((id, added)))
    }

    /// Whether the seats of a session are the places of a hall.
    pub(super) fn has_plan(&self, session: SessionId) -> Op<bool> {
        let mut find = self
            .connection
            .prepare_cached("SELECT 1 FROM session WHERE id = ?1 AND plan IS NOT NULL")?;
        Ok(find.exists([session.get()])?)
    }

    /// Calls sessions off. Returns how many were not before.
    pub(super) fn call_off(
        &mut self,
        concert: ConcertId,
        sessions: &[SessionId],
        now: Timestamp,
    ) -> Op<usize> {
        let mut called_off = 0;
        for session in sessions {
            let is_new = self.execute(
                "INSERT OR IGNORE INTO called_off (session_id, concert_id, at) VALUES (?1, ?2, ?3)",
                params![session.get(), concert.get(), now.0],
            )? > 0;
            if is_new {
                called_off += 1;
                self.state.made.push(Made::CalledOff(*session, now));
            }
        }
        Ok(called_off)
    }

    pub(super) fn add_seats(
        &mut self,
        concert: ConcertId,
        session: SessionId,
        group: NewSeats,
    ) -> Op<Option<AddedSeats>> {
        if self.session(concert, session)?.is_none() || self.has_plan(session)? {
            return Ok(None);
        }
        let numbered = self
            .connection
            .prepare_cached("SELECT COALESCE(MAX(number), 0) FROM seat WHERE session_id = ?1")?
            .query_row([session.get()], |row| row.get(0))?;
        let seating = Seating::from(group);
        let seats = self.insert_seats(session, numbered, seating.prices())?;
        let added = seating.added(seats.first().map(|seat| seat.id));
        self.state.made.push(Made::Seats(session, seats));
        Ok(added.first().copied())
    }

    fn insert_seats(&mut self, session: SessionId, numbered: u32, prices: &[i64]) -> Op<Vec<Seat>> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO seat (id, session_id, number, price, state) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        let mut seats = Vec::with_capacity(prices.len());
        for (price, number) in prices.iter().copied().zip(numbered.saturating_add(1)..) {
            let id = rows::id(SeatId::new, next(&mut self.state.last.seat), "seat")?;
            insert.execute(params![
                id.get(),
                session.get(),
                number,
                price,
                seat_state::AVAILABLE
            ])?;
            seats.push(Seat { id, number, price, state: SeatState::Available });
        }
        Ok(seats)
    }

    pub(super) fn seed(&mut self, seed: &Seed, now: Timestamp) -> Op<()> {
        let mut changes = Changes::default();
        // The sale has ids of its own; it is told what was used here.
        let mut last = load::last_entry(self.connection)?;
        for user in seed.users.clone().filter_map(UserId::new) {
            let amount = seed.points;
            let balance = sale::balance(self.connection, user)? + amount;
            let (id, kind) = (next(&mut last), EntryKind::Opening);
            changes.accounts.insert(user, balance);
            changes.entries.push(PointsEntry { id, user, amount, balance, kind, at: now });
        }
        sale::save(self.connection, &changes, &mut self.state.last.outbox)?;
        self.state.last.seeded_entry = last;
        for (concert, sessions) in &seed.concerts {
            let id = self.create_concert(concert)?;
            for (starts_at, seats) in sessions {
                self.create_session(id, *starts_at, seats)?;
            }
        }
        Ok(())
    }

    // ---- settings ----

    pub(super) fn setting(&self, name: &str, fresh: Option<&str>) -> Op<Option<String>> {
        if let Some(fresh) = fresh {
            self.execute(
                "INSERT OR IGNORE INTO setting (name, value) VALUES (?1, ?2)",
                params![name, fresh],
            )?;
        }
        let mut statement =
            self.connection.prepare_cached("SELECT value FROM setting WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    pub(super) fn set_setting(&self, name: &str, value: &str) -> Op<()> {
        self.execute(
            "INSERT INTO setting (name, value) VALUES (?1, ?2) \
             ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            params![name, value],
        )?;
        Ok(())
    }
}

/// Between which ids these seats are.
fn range_of(seats: &[Seat]) -> Option<(i64, i64)> {
    Some((seats.first()?.id.get(), seats.last()?.id.get()))
}

pub(super) fn no_queue(name: &str) -> Failure {
    Failure::Corrupt(format!("no queue {name}"))
}
