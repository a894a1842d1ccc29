//! What is done inside transactions of their own beside the sale: queues, what is for sale, tokens,
//! settings.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use boxoffice_domain::command::{Changes, EntryKind, PointsEntry};
use boxoffice_domain::ids::{ConcertId, QueueName, SeatId, SessionId, UserId};
use boxoffice_domain::queue::{Admitted, Drawn, Entry, QueueSettings, SettingsChange, Step};
use boxoffice_domain::sales::{Concert, Seat, SeatState, Session};
use boxoffice_domain::time::Timestamp;
use mysql_async::Value;
use roaring::RoaringTreemap;

use super::log::{self, Locked};
use super::pool::{Lane, Lease};
use super::rows::{self, DUPLICATE, Failure, column, seat_state, take};
use super::{load, sale, sql};
use crate::store::beat::{Beat, Beats, FORGOTTEN_MS, OtherBeat, Present, Rules};
use crate::store::catalog::{Catalog, Made};
use crate::store::chain;
use crate::store::draws::{self, Decision, DrawSeed};
use crate::store::numbers::{
    self, Grant, GrantRequest, LastGrant, REDIS_AHEAD_MS, REDIS_SEEN_MS, Taken,
};
use crate::store::types::{
    AddedSeats, Advance, Alias, AliasExists, Checkpoint, DrawRequest, NewConcert, NewPerson,
    NewSeats, Progress, STEP_AHEAD_MS, STEP_LATE_MS, Seating, Seed, ShortenLog,
};

fn list(ids: impl IntoIterator<Item = i64>) -> Vec<Value> {
    ids.into_iter().map(Value::from).collect()
}

/// A transaction under way.
pub(super) struct Tx {
    pub(super) lease: Lease,
    /// What was for sale when it began.
    pub(super) catalog: Arc<Catalog>,
    /// Concerts, sessions and seats that it has made.
    pub(super) made: Vec<Made>,
}

/// How an operation ends.
pub(super) enum Done<T> {
    /// With an effect, which is to be made durable.
    Commit(T),
    /// Without one.
    Nothing(T),
}

pub(super) type Op<T> = Result<T, Failure>;

/// A whole business operation.
pub(super) trait Operation: Send + Sync + 'static {
    type Answer: Send + 'static;
    /// Which connections it uses.
    const LANE: Lane;
    /// Whether doing it twice is the same as doing it once. Then it is simply tried again where
    /// nobody knows whether it was committed.
    const REPEATABLE: bool = false;

    fn run(&self, tx: &mut Tx) -> impl Future<Output = Op<Done<Self::Answer>>> + Send;
}

// ---- tickets and keys ----

/// Forgets idempotency keys.
pub(super) struct ForgetKeys {
    pub(super) before: Timestamp,
    pub(super) max: u32,
}

impl Operation for ForgetKeys {
    type Answer = u32;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u32>> {
        let values = vec![self.before.0.into(), self.max.into()];
        let forgotten = tx.lease.exec(sql::KEYS_FORGET, values.clone()).await?;
        tx.lease.exec(sql::CHANGE_KEYS_FORGET, values).await?;
        Ok(Done::Commit(u32::try_from(forgotten).unwrap_or(self.max)))
    }
}

/// Finds the ids of people, and gives ids to those who have none.
pub(super) struct People(pub(super) Vec<NewPerson>, pub(super) Timestamp);

/// The name of the counter of people.
const PERSON_COUNTER: &str = "person";

fn person_id(id: i64) -> Op<UserId> {
    UserId::new(id).ok_or_else(|| Failure::Corrupt(format!("a person has the id {id}")))
}

impl People {
    /// Returns the ids of those who have one. In the second round it sees what others committed since
    /// the transaction began.
    async fn known(
        &self,
        tx: &mut Tx,
        statement: &str,
        digests: &[&[u8; 32]],
    ) -> Op<HashMap<Vec<u8>, i64>> {
        let mut known = HashMap::with_capacity(digests.len());
        for part in digests.chunks(sql::LIST_MAX) {
            let values = part.iter().map(|digest| Value::from(&digest[..])).collect();
            for mut row in tx.lease.rows(&sql::listed(statement, part.len()), values).await? {
                known.insert(take(&mut row, 0)?, take(&mut row, 1)?);
            }
        }
        Ok(known)
    }

    /// Returns so many ids that neither a person nor an account has.
    async fn free_ids(&self, tx: &mut Tx, count: usize) -> Op<Vec<i64>> {
        let mut free = Vec::with_capacity(count);
        let mut block = count as i64;
        while free.len() < count {
            let values = vec![block.into(), PERSON_COUNTER.into()];
            let last = tx.lease.insert(sql::IDS_TAKE, values).await?;
            let first = last - block + 1;
            let bounds = [first, last, first, last].map(Value::from).to_vec();
            let mut taken = HashSet::new();
            for mut row in tx.lease.rows(sql::PEOPLE_IDS, bounds).await? {
                taken.insert(take::<i64>(&mut row, 0)?);
            }
            let wanted = count - free.len();
            free.extend((first..=last).filter(|id| !taken.contains(id)).take(wanted));
            // Accounts of before there were people lie together.
            block = (block * 2).min(ROWS as i64);
        }
        Ok(free)
    }
}

impl Operation for People {
    type Answer = Vec<Option<UserId>>;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        // In one order everywhere, so that two instances do not wait for each other.
        let mut people: BTreeMap<&[u8; 32], &NewPerson> = BTreeMap::new();
        for person in &self.0 {
            people.entry(&person.digest).or_insert(person);
        }
        let digests: Vec<_> = people.keys().copied().collect();
        let mut known = self.known(tx, sql::PEOPLE, &digests).await?;
        people.retain(|digest, _| !known.contains_key(&digest[..]));
        let any_new = !people.is_empty();
        if any_new {
            let without = people.values().filter(|person| person.id.is_none()).count();
            let mut free = self.free_ids(tx, without).await?.into_iter();
            let mut values = Vec::with_capacity(people.len() * 5);
            for person in people.values() {
                let id = person.id.map(UserId::get).or_else(|| free.next());
                values.extend([
                    id.into(),
                    Value::from(&person.digest[..]),
                    person.issuer.as_str().into(),
                    person.name.as_str().into(),
                    self.1.0.into(),
                ]);
            }
            let text = sql::filled(sql::PEOPLE_ADD, &[&rows_of(5, people.len())]);
            tx.lease.exec(&text, values).await?;
            let digests: Vec<_> = people.keys().copied().collect();
            known.extend(self.known(tx, sql::PEOPLE_NOW, &digests).await?);
            let is_known = |digest: &[u8; 32]| known.contains_key(&digest[..]);
            if people.values().any(|person| person.id.is_none() && !is_known(&person.digest)) {
                // Somebody else has brought along the id that was free a moment ago.
                return Err(Failure::again());
            }
        }
        let id_of = |person: &NewPerson| known.get(&person.digest[..]).map(|id| person_id(*id));
        let ids = self.0.iter().map(|person| id_of(person).transpose()).collect::<Op<_>>()?;
        Ok(if any_new { Done::Commit(ids) } else { Done::Nothing(ids) })
    }
}

/// Stores opaque tokens.
pub(super) struct AddAliases(pub(super) Vec<Alias>);

/// Rows that one statement inserts.
const ROWS: usize = 1_000;

impl Operation for AddAliases {
    type Answer = Result<(), AliasExists>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        let mut known: HashSet<Vec<u8>> = HashSet::new();
        for part in self.0.chunks(ROWS) {
            let values = part.iter().map(|alias| alias.token.as_bytes().into()).collect();
            for mut row in
                tx.lease.rows(&sql::listed(sql::ALIASES_KNOWN, part.len()), values).await?
            {
                known.insert(take(&mut row, 0)?);
            }
        }
        for alias in &self.0 {
            if !known.insert(alias.token.clone().into_bytes()) {
                return Ok(Done::Nothing(Err(AliasExists(alias.token.clone()))));
            }
        }
        for part in self.0.chunks(ROWS) {
            let mut values = Vec::with_capacity(part.len() * 7);
            for alias in part {
                values.extend([
                    alias.token.as_bytes().into(),
                    alias.ticket.queue.as_str().into(),
                    column(alias.ticket.seq).into(),
                    alias.ticket.user.get().into(),
                    alias.ticket.issued_at.0.into(),
                    Value::from(&alias.ticket.id.0[..]),
                    alias.active_until.map(|until| until.0).into(),
                ]);
            }
            let text = format!(
                "INSERT INTO alias (token, queue, seq, user_id, issued_at, ticket_id, active_until) \
                 VALUES {}",
                rows_of(7, part.len())
            );
            match tx.lease.exec(&text, values).await {
                Ok(_) => {}
                // Issued elsewhere since we looked; looking again names it.
                Err(Failure::Server(DUPLICATE, _)) => return Err(Failure::again()),
                Err(failure) => return Err(failure),
            }
        }
        Ok(Done::Commit(Ok(())))
    }
}

/// `(?, ?), (?, ?)`
fn rows_of(columns: usize, rows: usize) -> String {
    let mut one = "?,".repeat(columns);
    one.pop();
    let mut all = format!("({one}),").repeat(rows);
    all.pop();
    all
}

// ---- queues ----

fn settings_values(settings: &QueueSettings) -> Vec<Value> {
    vec![
        settings.admit_per_second.into(),
        settings.max_active.map(column).into(),
        (settings.active_ttl.as_millis() as i64).into(),
        (settings.claim_window.as_millis() as i64).into(),
        settings.opens_at.map(|at| at.0).into(),
        settings.paused.into(),
    ]
}

/// Makes a queue.
pub(super) struct CreateQueue(
    pub(super) String,
    pub(super) QueueSettings,
    pub(super) Option<DrawSeed>,
);

impl Operation for CreateQueue {
    type Answer = bool;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<bool>> {
        let mut values = vec![Value::from(self.0.as_str())];
        values.extend(settings_values(&self.1));
        match tx.lease.exec(sql::QUEUE_ADD, values).await {
            Ok(_) => {
                set_seed(tx, &self.0, self.2.as_ref()).await?;
                log::begin(&mut tx.lease).await?;
                Ok(Done::Commit(true))
            }
            Err(Failure::Server(DUPLICATE, _)) => Ok(Done::Nothing(false)),
            Err(failure) => Err(failure),
        }
    }
}

async fn set_seed(tx: &mut Tx, name: &str, seed: Option<&DrawSeed>) -> Op<()> {
    let Some(DrawSeed(seed)) = seed else { return Ok(()) };
    tx.lease.exec(sql::QUEUE_SEED, vec![(&seed[..]).into(), name.into()]).await?;
    Ok(())
}

/// Exchanges the seeds of the draws that are still to come: after a restore they may have been revealed.
pub(super) async fn reseed_all(tx: &mut Tx) -> Op<()> {
    for mut row in tx.lease.rows(sql::UNDRAWN, vec![]).await? {
        let name: String = take(&mut row, 0)?;
        let seed = DrawSeed::random().map_err(|fault| Failure::Corrupt(fault.to_string()))?;
        set_seed(tx, &name, Some(&seed)).await?;
        let committed = Entry::Committed(seed.commitment(&rows::queue_name(&name)?));
        log::append_now(&mut tx.lease, &name, committed).await?;
    }
    Ok(())
}

/// The opening draw.
pub(super) struct DrawQueue(pub(super) DrawRequest);

impl Operation for DrawQueue {
    type Answer = Option<Drawn>;
    const LANE: Lane = Lane::Work;
    // Whoever asks again is told of the same one.
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Option<Drawn>>> {
        let request = &self.0;
        let name = request.queue.as_str();
        let stored = load::undecided(&mut tx.lease, name).await?.ok_or_else(|| no_queue(name))?;
        let drawn = match draws::decide(&stored, request) {
            Decision::Nothing(drawn) => return Ok(Done::Nothing(drawn)),
            Decision::Draw(drawn) => drawn,
        };
        let Some(log::Locked { head, .. }) = log::lock(&mut tx.lease, name).await? else {
            return Err(no_queue(name));
        };
        let count = column(drawn.count);
        let values = vec![count.into(), count.into(), count.into(), name.into()];
        tx.lease.exec(sql::QUEUE_DRAWN, values).await?;
        log::append(&mut tx.lease, name, head, request.at, Entry::Drawn(drawn)).await?;
        Ok(Done::Commit(Some(drawn)))
    }
}

/// Changes how a queue admits. Answers `None` where it was drawn, and would open at another time.
pub(super) struct ChangeQueue(pub(super) String, pub(super) SettingsChange);

impl Operation for ChangeQueue {
    type Answer = Option<QueueSettings>;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Option<QueueSettings>>> {
        let Self(name, change) = self;
        if change.opens_at.is_some() {
            let row = tx.lease.rows(sql::QUEUE_SETTINGS_LOCK, vec![name.as_str().into()]).await?;
            let mut row = row.into_iter().next().ok_or_else(|| no_queue(name))?;
            let before = load::settings(&mut row, 0)?;
            let stored = load::undecided(&mut tx.lease, name).await?;
            if stored.is_some_and(|stored| draws::refuses(stored.drawn, change, &before)) {
                return Ok(Done::Nothing(None));
            }
        }
        let values = vec![
            change.admit_per_second.into(),
            change.max_active.is_some().into(),
            change.max_active.flatten().map(column).into(),
            change.opens_at.is_some().into(),
            change.opens_at.flatten().map(|at| at.0).into(),
            change.paused.into(),
            name.as_str().into(),
        ];
        if tx.lease.exec(sql::QUEUE_CHANGE, values).await? != 1 {
            return Err(no_queue(name));
        }
        // The row is locked, so this is what the change has made of it.
        let row = tx.lease.rows(sql::QUEUE_SETTINGS, vec![name.as_str().into()]).await?.pop();
        let mut row = row.ok_or_else(|| no_queue(name))?;
        let settings = load::settings(&mut row, 0)?;
        log::append_now(&mut tx.lease, name, Entry::Changed((&settings).into())).await?;
        Ok(Done::Commit(Some(settings)))
    }
}

/// Makes the state of some queues durable.
pub(super) struct Checkpoints(pub(super) Vec<Checkpoint>, pub(super) Timestamp);

impl Operation for Checkpoints {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(queues, now) = self;
        for point in queues {
            let name = point.queue.as_str();
            let before = match &point.step {
                Some(_) => log::lock(&mut tx.lease, name).await?,
                None => None,
            };
            let (next, watermark) = (column(point.next), column(point.watermark));
            let floor = column(point.floor);
            let serving = point.step.as_ref().map(|(_, step)| column(step.upto));
            // The conditions are the rule that counters never go back, kept where they are stored.
            let values = vec![
                next.into(),
                watermark.into(),
                floor.into(),
                serving.into(),
                name.into(),
                next.into(),
                floor.into(),
                next.into(),
                watermark.into(),
                serving.into(),
            ];
            if tx.lease.exec(sql::QUEUE_CHECKPOINT, values).await? != 1 {
                return Err(Failure::Corrupt(format!("counters of queue {name} would go back")));
            }
            if let (Some((_, step)), Some(before)) = (&point.step, before) {
                let Locked { serving, head } = before;
                let step = chain::upon(step, serving);
                let returned = keep_step(tx, name, serving, &step).await?;
                let at = step.at;
                // Where the answer to a commit was missing, all is done once more.
                if let Some(entry) = chain::admitted(step, serving, returned) {
                    log::append(&mut tx.lease, name, head, at, entry).await?;
                }
            }
            forget_over(tx, name, point.floor, point.over_before).await?;
            if let Some(claimed) = &point.claimed {
                let values = vec![rows::numbers_to(claimed)?.into(), name.into()];
                tx.lease.exec(sql::QUEUE_CLAIMED, values).await?;
            }
        }
        set_clock(tx, *now).await?;
        Ok(Done::Commit(()))
    }
}

/// Grants numbers to a pool.
pub(super) struct GrantNumbers(pub(super) GrantRequest);

impl Operation for GrantNumbers {
    type Answer = Grant;
    const LANE: Lane = Lane::Work;
    // Who asks again gets the same ones.
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Grant>> {
        let name = self.0.queue.as_str();
        let row = tx.lease.rows(sql::QUEUE_GRANTED, vec![name.into()]).await?.pop();
        let mut row = row.ok_or_else(|| no_queue(name))?;
        let mut count =
            |index| -> Op<u64> { Ok(rows::count(take(&mut row, index)?, "a granted number")?) };
        let (watermark, after, first, last) = (count(0)?, count(2)?, count(3)?, count(4)?);
        let granted = LastGrant { pool: take(&mut row, 1)?, after, first, last };
        let grant = numbers::decide(&granted, watermark, &self.0);
        let Some(new) = numbers::new_grant(&granted, &self.0, grant) else {
            return Ok(Done::Nothing(grant));
        };
        let values = vec![
            column(new.last).into(),
            new.pool.into(),
            column(new.after).into(),
            column(new.first).into(),
            column(new.last).into(),
            name.into(),
        ];
        tx.lease.exec(sql::QUEUE_GRANT, values).await?;
        Ok(Done::Commit(grant))
    }
}

/// Takes numbers without Redis.
pub(super) struct TakeNumbers {
    pub(super) queue: QueueName,
    pub(super) count: u64,
}

impl Operation for TakeNumbers {
    type Answer = Taken;
    const LANE: Lane = Lane::Work;
    // Numbers that were taken and not given to anybody are empty places, as after any failure.
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Taken>> {
        let now = load::number(&mut tx.lease, sql::NOW).await?;
        let values = vec![(now - REDIS_SEEN_MS).into(), (now + REDIS_AHEAD_MS).into()];
        if !tx.lease.rows(sql::INSTANCE_WITH_REDIS, values).await?.is_empty() {
            return Ok(Done::Nothing(Taken::Elsewhere));
        }
        let name = self.queue.as_str();
        let row = tx.lease.rows(sql::QUEUE_GRANTED, vec![name.into()]).await?.pop();
        let mut row = row.ok_or_else(|| no_queue(name))?;
        let watermark = rows::count(take(&mut row, 0)?, "watermark")?;
        let last = column(watermark + self.count);
        tx.lease.exec(sql::QUEUE_TAKE, vec![last.into(), last.into(), name.into()]).await?;
        Ok(Done::Commit(Taken::From(watermark + 1)))
    }
}

/// What an instance tells, and hears.
pub(super) struct TellBeat(pub(super) Beat);

impl Operation for TellBeat {
    type Answer = Beats;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Beats>> {
        let Self(beat) = self;
        let name = || Value::from(beat.instance.as_str());
        let now = load::number(&mut tx.lease, sql::NOW).await?;
        let bytes = |numbers: &Present| {
            numbers.to_bytes().map_err(|error| Failure::Corrupt(error.to_string()))
        };
        let values = vec![
            name(),
            now.into(),
            beat.since.0.into(),
            beat.is_last.into(),
            if beat.with_redis && !beat.is_last { now } else { 0 }.into(),
            beat.ticket_keys.as_str().into(),
            beat.rules.to_text().into(),
            bytes(&beat.present)?.into(),
            bytes(&beat.claimed)?.into(),
        ];
        tx.lease.exec(sql::INSTANCE_BEAT, values).await?;
        if beat.is_last {
            tx.lease.exec(sql::INSTANCES_FORGET, vec![(now - FORGOTTEN_MS).into()]).await?;
        }
        let forgotten = Value::from(now - FORGOTTEN_MS);
        let found = tx.lease.rows(sql::INSTANCES, vec![name(), forgotten]).await?;
        let mut others = Vec::with_capacity(found.len());
        for mut row in found {
            let row = &mut row;
            let numbers = |bytes: Vec<u8>| {
                Present::from_bytes(&bytes)
                    .ok_or_else(|| Failure::Corrupt("what an instance has told".into()))
            };
            others.push(OtherBeat {
                instance: take(row, 0)?,
                at: Timestamp(take(row, 1)?),
                since: Timestamp(take(row, 2)?),
                has_ended: take(row, 3)?,
                redis_at: Timestamp(take(row, 4)?),
                ticket_keys: take(row, 5)?,
                rules: Rules::from_text(&take::<String>(row, 6)?),
                present: numbers(take(row, 7)?)?,
                claimed: numbers(take(row, 8)?)?,
            });
        }
        Ok(Done::Commit(Beats { now: Timestamp(now), others }))
    }
}

/// Forgets what is old of an admission log.
pub(super) struct Shorten(pub(super) ShortenLog);

impl Operation for Shorten {
    type Answer = u64;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u64>> {
        let shortened = log::shorten(&mut tx.lease, &self.0).await?;
        Ok(shortened.map_or(Done::Nothing(0), Done::Commit))
    }
}

/// A step of admission.
pub(super) struct AdvanceTo(pub(super) Advance, pub(super) Timestamp);

impl Operation for AdvanceTo {
    type Answer = bool;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<bool>> {
        let Self(step, now) = self;
        let name = step.queue.as_str();
        let (credit_micro, credit_at) = step.bucket.state();
        let upto = column(step.step.upto);
        let admitted = Admitted::of(&step.step, step.serving);
        let record = log::bytes(step.steps, step.step.at, Entry::Admitted(admitted));
        // Whoever is admitted has joined, so the other two counters are at least as high.
        let values = vec![
            hex(&record).into(),
            upto.into(),
            upto.into(),
            upto.into(),
            column(credit_micro).into(),
            credit_at.map(|at| at.0).into(),
            name.into(),
            column(step.steps).into(),
            column(step.serving).into(),
            step.step.at.0.into(),
            STEP_LATE_MS.into(),
            STEP_AHEAD_MS.into(),
        ];
        if tx.lease.exec(sql::QUEUE_ADVANCE, values).await? == 0 {
            let found = tx.lease.rows(sql::QUEUE_EXISTS, vec![name.into()]).await?;
            return if found.is_empty() { Err(no_queue(name)) } else { Ok(Done::Nothing(false)) };
        }
        keep_step(tx, name, step.serving, &step.step).await?;
        log::advanced(&mut tx.lease, name, &record).await?;
        set_clock(tx, *now).await?;
        Ok(Done::Commit(true))
    }
}

/// What is known of some queues.
pub(super) struct Record(pub(super) Vec<Progress>, pub(super) Timestamp);

impl Operation for Record {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(progress, now) = self;
        // Several instances do this at once; in one order, so that they wait and do not deadlock.
        let mut progress: Vec<&Progress> = progress.iter().collect();
        progress.sort_by(|a, b| a.queue.cmp(&b.queue));
        for known in progress {
            let name = known.queue.as_str();
            let next = column(known.next);
            let values = vec![next.into(), next.into(), column(known.floor).into(), name.into()];
            if tx.lease.exec(sql::QUEUE_RECORD, values).await? != 1 {
                return Err(no_queue(name));
            }
            let row = tx.lease.rows(sql::QUEUE_RECORDED, vec![name.into()]).await?.pop();
            let mut row = row.ok_or_else(|| no_queue(name))?;
            let floor = rows::count(take(&mut row, 0)?, "floor")?;
            forget_over(tx, name, floor, known.over_before).await?;
            if let Some(more) = &known.claimed {
                let mut claimed = rows::numbers_from(take(&mut row, 1)?, name)? | more;
                claimed.remove_range(..=floor);
                let values = vec![rows::numbers_to(&claimed)?.into(), name.into()];
                tx.lease.exec(sql::QUEUE_CLAIMED, values).await?;
            }
        }
        set_clock(tx, *now).await?;
        Ok(Done::Commit(()))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Keeps a step: when whose turn it was, who was passed over, and who came back. Returns the latter. The row
/// of the queue is locked.
async fn keep_step(tx: &mut Tx, queue: &str, before: u64, step: &Step) -> Op<RoaringTreemap> {
    if step.upto > before {
        let values = vec![queue.into(), column(step.upto).into(), step.at.0.into()];
        tx.lease.exec(sql::ADMISSION_ADD, values).await?;
    }
    let mut back = RoaringTreemap::new();
    for part in rows::parts_of(step) {
        let row = tx.lease.rows(sql::QUEUE_PART, vec![queue.into(), part.into()]).await?.pop();
        let found = row.map(|mut row| take(&mut row, 0)).transpose()?;
        let found = rows::numbers_from(found, queue)?;
        back |= &found & &step.returned;
        let seqs = rows::passed_after(found, part, step);
        let values = vec![queue.into(), part.into(), rows::numbers_to(&seqs)?.into()];
        tx.lease.exec(sql::QUEUE_PART_SET, values).await?;
    }
    let returned: Vec<u64> = back.iter().collect();
    for some in returned.chunks(ROWS) {
        let text = sql::filled(sql::READMITTED_ADD, &[&rows_of(3, some.len())]);
        let values = some.iter().flat_map(|seq| {
            [Value::from(queue), Value::from(column(*seq)), Value::from(step.at.0)]
        });
        tx.lease.exec(&text, values.collect()).await?;
    }
    Ok(back)
}

/// What is below the floor has run out of time; nobody asks for it any more. Nor for those that were
/// let in late, before `over_before`.
async fn forget_over(tx: &mut Tx, queue: &str, floor: u64, over_before: Timestamp) -> Op<()> {
    let below = || vec![Value::from(queue), column(floor).into()];
    tx.lease.exec(sql::ADMISSIONS_FORGET, below()).await?;
    tx.lease.exec(sql::LEFT_FORGET, [below(), below()].concat()).await?;
    tx.lease.exec(sql::READMITTED_FORGET, vec![queue.into(), over_before.0.into()]).await?;
    Ok(())
}

async fn set_clock(tx: &mut Tx, now: Timestamp) -> Op<()> {
    tx.lease.exec(sql::CLOCK_NOTE, vec![now.0.to_string().into()]).await?;
    Ok(())
}

fn no_queue(name: &str) -> Failure {
    Failure::Corrupt(format!("no queue {name}"))
}

// ---- what is for sale ----

/// Makes a concert.
pub(super) struct CreateConcert(pub(super) NewConcert);

impl Operation for CreateConcert {
    type Answer = ConcertId;
    const LANE: Lane = Lane::Work;

    async fn run(&self, tx: &mut Tx) -> Op<Done<ConcertId>> {
        Ok(Done::Commit(create_concert(tx, &self.0).await?))
    }
}

pub(super) async fn create_concert(tx: &mut Tx, new: &NewConcert) -> Op<ConcertId> {
    let values = vec![
        new.name.as_str().into(),
        new.venue.as_str().into(),
        new.queue.as_str().into(),
        new.opens_at.0.into(),
        new.closes_at.0.into(),
    ];
    let id = tx.lease.insert(sql::CONCERT_ADD, values).await?;
    let id = rows::id(ConcertId::new, id, "concert")?;
    tx.made.push(Made::Concert(Concert {
        id,
        name: new.name.clone(),
        venue: new.venue.clone(),
        queue: new.queue.clone(),
        opens_at: new.opens_at,
        closes_at: new.closes_at,
    }));
    Ok(id)
}

/// Makes a session with its first seats.
pub(super) struct CreateSession {
    pub(super) concert: ConcertId,
    pub(super) starts_at: Timestamp,
    pub(super) seating: Seating,
}

impl Operation for CreateSession {
    type Answer = Option<(SessionId, Vec<AddedSeats>)>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        // Under a lock, so that nobody removes it meanwhile.
        let found = tx.lease.rows(sql::CONCERT_LOCK, vec![self.concert.get().into()]).await?;
        if found.is_empty() {
            return Ok(Done::Nothing(None));
        }
        let made = create_session(tx, self.concert, self.starts_at, &self.seating).await?;
        Ok(Done::Commit(Some(made)))
    }
}

async fn create_session(
    tx: &mut Tx,
    concert: ConcertId,
    starts_at: Timestamp,
    seating: &Seating,
) -> Op<(SessionId, Vec<AddedSeats>)> {
    let plan = seating.plan();
    if let Some(plan) = plan {
        let values = vec![plan.digest().0[..].into(), plan.body().into()];
        tx.lease.exec(sql::PLAN_ADD, values).await?;
    }
    let values = vec![
        concert.get().into(),
        starts_at.0.into(),
        seating.prices().len().into(),
        plan.map(|plan| plan.digest().0.to_vec()).into(),
    ];
    let id = tx.lease.insert(sql::SESSION_ADD, values).await?;
    let id = rows::id(SessionId::new, id, "session")?;
    let seats = insert_seats(tx, id, 0, seating.prices()).await?;
    let added = seating.added(seats.first().map(|seat| seat.id));
    tx.made.push(Made::Inventory(Session { id, concert, starts_at }, seats, plan.cloned()));
    Ok((id, added))
}

/// Whether the seats of a session are the places of a hall.
pub(super) async fn has_plan(tx: &mut Tx, session: SessionId) -> Op<bool> {
    Ok(!tx.lease.rows(sql::SESSION_HAS_PLAN, vec![session.get().into()]).await?.is_empty())
}

/// Adds seats to a session.
pub(super) struct AddSeats {
    pub(super) concert: ConcertId,
    pub(super) session: SessionId,
    pub(super) group: NewSeats,
}

impl Operation for AddSeats {
    type Answer = Option<AddedSeats>;
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Self::Answer>> {
        // The lock numbers the seats of two calls one after another.
        let values = vec![self.session.get().into(), self.concert.get().into()];
        let Some(mut row) = tx.lease.rows(sql::SESSION_LOCK, values).await?.pop() else {
            return Ok(Done::Nothing(None));
        };
        if has_plan(tx, self.session).await? {
            return Ok(Done::Nothing(None));
        }
        let numbered: u32 = take(&mut row, 0)?;
        let seating = Seating::from(self.group);
        let seats = insert_seats(tx, self.session, numbered, seating.prices()).await?;
        let added = seating.added(seats.first().map(|seat| seat.id));
        let total = numbered.saturating_add(self.group.count);
        tx.lease.exec(sql::SESSION_SEATS, vec![total.into(), self.session.get().into()]).await?;
        tx.made.push(Made::Seats(self.session, seats));
        Ok(Done::Commit(added.first().copied()))
    }
}

async fn insert_seats(
    tx: &mut Tx,
    session: SessionId,
    numbered: u32,
    prices: &[i64],
) -> Op<Vec<Seat>> {
    let count = i64::try_from(prices.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(Vec::new());
    }
    tx.lease.exec(sql::SEAT_IDS_TAKE, vec![count.into()]).await?;
    let last = load::number(&mut tx.lease, sql::SEAT_IDS_LAST).await?;
    let mut seats = Vec::with_capacity(prices.len());
    let numbers = numbered.saturating_add(1)..;
    for ((price, number), id) in prices.iter().copied().zip(numbers).zip(last - count + 1..) {
        let id = rows::id(SeatId::new, id, "seat")?;
        seats.push(Seat { id, number, price, state: SeatState::Available });
    }
    for part in seats.chunks(ROWS) {
        let mut values = Vec::with_capacity(part.len() * 7);
        for seat in part {
            values.extend([
                seat.id.get().into(),
                session.get().into(),
                seat.number.into(),
                seat.price.into(),
                Value::from(seat_state::AVAILABLE),
                // A row that does not grow on its first hold is changed in place.
                Value::from(0),
                Value::from(0),
            ]);
        }
        let text = format!(
            "INSERT INTO seat (id, session_id, number, price, state, reservation_id, held_until) \
             VALUES {}",
            rows_of(7, part.len())
        );
        tx.lease.exec(&text, values).await?;
    }
    Ok(seats)
}

/// A first stock of everything.
pub(super) struct Fill(pub(super) Seed, pub(super) Timestamp);

impl Operation for Fill {
    type Answer = ();
    const LANE: Lane = Lane::Bulk;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        let Self(seed, now) = self;
        // Instances that start at once on an empty database take turns here, and the second finds
        // that it has been filled.
        tx.lease.exec(sql::SEAT_IDS_TAKE, vec![0.into()]).await?;
        let filled = !tx.lease.rows(sql::CONCERT_IDS, vec![]).await?.is_empty();
        if filled && tx.catalog.concerts().next().is_none() {
            return Ok(Done::Nothing(()));
        }
        let users: Vec<UserId> = seed.users.clone().filter_map(UserId::new).collect();
        for part in users.chunks(sql::LIST_MAX) {
            give_points(tx, part, seed.points, *now).await?;
        }
        for (concert, sessions) in &seed.concerts {
            let id = create_concert(tx, concert).await?;
            for (starts_at, seats) in sessions {
                create_session(tx, id, *starts_at, seats).await?;
            }
        }
        Ok(Done::Commit(()))
    }
}

/// Gives many users the same number of points to begin with.
async fn give_points(tx: &mut Tx, users: &[UserId], points: i64, now: Timestamp) -> Op<()> {
    let text = "SELECT user_id, balance FROM account WHERE user_id IN ({list}) FOR UPDATE";
    let ids = list(users.iter().map(|user| user.get()));
    let mut balances: HashMap<i64, i64> = HashMap::new();
    for mut row in tx.lease.rows(&sql::listed(text, users.len()), ids).await? {
        balances.insert(take(&mut row, 0)?, take(&mut row, 1)?);
    }
    // Should all of this be undone, the ids go with it.
    let count = i64::try_from(users.len()).unwrap_or(0);
    let last = tx.lease.insert(sql::IDS_TAKE, vec![count.into(), sale::ENTRIES.into()]).await?;
    let mut changes = Changes::default();
    for (user, id) in users.iter().zip(last - count + 1..) {
        let balance = balances.get(&user.get()).copied().unwrap_or(0) + points;
        changes.accounts.insert(*user, balance);
        changes.entries.push(PointsEntry {
            id,
            user: *user,
            amount: points,
            balance,
            kind: EntryKind::Opening,
            at: now,
        });
    }
    tx.lease.packet(&sale::saving(&changes).packet, None).await.map_err(|(_, failure)| failure)?;
    Ok(())
}

/// Takes times back that lie in the future.
pub(super) struct SetBack(pub(super) Timestamp);

impl Operation for SetBack {
    type Answer = u64;
    const LANE: Lane = Lane::Bulk;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<u64>> {
        let now = || Value::from(self.0.0);
        let mut changed = 0;
        for statement in rows::SET_BACK {
            changed += tx.lease.exec(statement, vec![now(), now()]).await?;
        }
        log::append_to_all(&mut tx.lease, &Entry::SetBack).await?;
        Ok(Done::Commit(changed))
    }
}

// ---- settings ----

/// A setting, and the value that it gets where it has none.
pub(super) struct FreshSetting(pub(super) &'static str, pub(super) String);

impl Operation for FreshSetting {
    type Answer = Option<String>;
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<Option<String>>> {
        tx.lease.exec(sql::SETTING_FRESH, vec![self.0.into(), self.1.as_str().into()]).await?;
        Ok(Done::Commit(load::setting(&mut tx.lease, self.0).await?))
    }
}

/// Replaces a setting.
pub(super) struct SetSetting(pub(super) &'static str, pub(super) String);

impl Operation for SetSetting {
    type Answer = ();
    const LANE: Lane = Lane::Work;
    const REPEATABLE: bool = true;

    async fn run(&self, tx: &mut Tx) -> Op<Done<()>> {
        tx.lease.exec(sql::SETTING_SET, vec![self.0.into(), self.1.as_str().into()]).await?;
        Ok(Done::Commit(()))
    }
}
