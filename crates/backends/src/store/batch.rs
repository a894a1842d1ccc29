//! The one way in which every store sells: take what waits, load its rows, execute one command after
//! another, save what has changed, commit, publish, answer.
//!
//! There is no waiting window for whoever comes alone; a batch is what came while the one before it
//! was under way. An [`Engine`] knows how its store does each step, and no order of steps.
//!
//! A command whose rows another transaction has locked holds up nobody: it goes into the next batch,
//! with all that come behind it for one of its rows, until its time is up.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use boxoffice_domain::command::{
    Changes, Command, Ids, IdsNeeded, Outcome, ResultOf, RowId, Rows, Wants, answer_while_locked,
    execute,
};
use boxoffice_domain::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::catalog::Catalog;
use super::stats::{Commit, CommitObserver};
use crate::Fault;

/// Why a transaction did not come about.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// Nothing has happened, and the same may work at once: a deadlock, a connection that was cut
    /// off while nobody used it.
    Again(Fault),
    /// Nothing has happened, and one of the commands may be the cause.
    Refused(Fault),
    /// Nothing has happened, and nothing else will work just now.
    Away(Fault),
    /// Nobody knows whether it was committed.
    Unknown(Fault),
}

impl Trouble {
    fn into_fault(self) -> Fault {
        match self {
            Self::Again(fault)
            | Self::Refused(fault)
            | Self::Away(fault)
            | Self::Unknown(fault) => fault,
        }
    }
}

/// Other work in a transaction of the store, which knows whom to answer.
pub(super) trait Job: Send {
    /// Answers whoever asked.
    fn answer(self, committed: Result<(), Fault>);
}

/// For a store whose other work has transactions of its own.
pub(super) enum NoJob {}

impl Job for NoJob {
    fn answer(self, _committed: Result<(), Fault>) {
        match self {}
    }
}

/// How a store does the steps of a batch. They are called in the order in which they stand here;
/// after an error only [`Engine::roll_back`].
pub(super) trait Engine: Send {
    /// Other work that shares the transactions of the sale.
    type Job: Job;

    /// Returns what is for sale, as of the last commit.
    fn catalog(&self) -> Arc<Catalog>;

    /// Sees to it that there are at least as many ids as needed.
    fn add_ids(
        &mut self,
        ids: &mut Ids,
        needed: IdsNeeded,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Gets ready for a transaction.
    fn begin(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Does other work, before any command.
    fn run(&mut self, job: &mut Self::Job) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Looks which reservations are wanted, without a lock, and adds their seats to what is wanted.
    fn peek(
        &mut self,
        wants: &mut Wants,
        rows: &mut Rows,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Loads what is wanted, under locks where others write too.
    fn load(
        &mut self,
        wants: &Wants,
        rows: &mut Rows,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Loads what repeated requests are answered with.
    fn load_results(
        &mut self,
        wanted: &[ResultOf],
        rows: &mut Rows,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Saves the changes and makes the transaction durable.
    fn commit(&mut self, changes: &Changes) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Undoes the transaction, if there is one.
    fn roll_back(&mut self) -> impl Future<Output = ()> + Send;

    /// Lets everybody see what was committed.
    fn publish(&mut self, changes: &Changes);

    /// Takes note of a trouble that was not got over.
    fn gave_up(&self, trouble: &Trouble);
}

/// How batches are made.
pub(super) struct BatchOptions {
    /// The most commands in one of them.
    pub(super) batch_max: usize,
    /// The most commands that may wait.
    pub(super) queue_max: usize,
    /// The time from asking to the last try; none where nobody else can be in the way.
    pub(super) patience: Option<Duration>,
    /// How the commands of a rush come together.
    pub(super) gather: Gather,
    /// Called after each commit.
    pub(super) observe: CommitObserver,
}

/// How the commands of a rush come together. A commit costs about the same for two as for two hundred,
/// so after a batch of many a moment is given to those who were just answered to come again. Whoever
/// comes alone never waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gather {
    /// Not at all.
    Never,
    /// On a thread of its own, which sleeps and looks: whoever answers requests works through them
    /// faster when not interrupted for each few.
    Looking,
    /// Beside other tasks, woken as commands come, until there are as many as can be expected.
    Listening,
}

#[expect(clippy::large_enum_variant, reason = "nearly all of them are sales")]
enum Message<J> {
    Sale(Sale),
    Job(J),
    Close,
}

struct Sale {
    command: Command,
    reply: oneshot::Sender<Result<Outcome, Fault>>,
    asked: Instant,
    /// Whether it has been tried, and one of its rows was locked.
    was_locked: bool,
}

/// The way to the batches of a store.
pub(super) struct Sales<J> {
    sender: mpsc::Sender<Message<J>>,
    latest: Arc<AtomicI64>,
}

impl<J: Job> Sales<J> {
    /// Asks for a command to be executed; whether or not anybody waits for the answer, it will be.
    pub(super) fn ask(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Result<Outcome, Fault>>, Fault> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Sale(Sale {
            command,
            reply,
            asked: Instant::now(),
            was_locked: false,
        }))?;
        Ok(answer)
    }

    /// Hands other work over.
    pub(super) fn hand_over(&self, job: J) -> Result<(), Fault> {
        self.send(Message::Job(job))
    }

    fn send(&self, message: Message<J>) -> Result<(), Fault> {
        self.sender.try_send(message).map_err(|error| {
            Fault::Unavailable(match error {
                mpsc::error::TrySendError::Full(_) => {
                    "too many operations are waiting for the store".into()
                }
                mpsc::error::TrySendError::Closed(_) => CLOSED.into(),
            })
        })
    }

    /// Returns `now`, or the time at which something was decided already where that is later.
    pub(super) fn not_before(&self, now: Timestamp) -> Timestamp {
        now.max(Timestamp(self.latest.load(Ordering::SeqCst)))
    }

    /// Returns how many commands wait.
    pub(super) fn waiting(&self) -> u64 {
        (self.sender.max_capacity() - self.sender.capacity()) as u64
    }

    /// Tells the batches to do what came before and end.
    pub(super) async fn close(&self) {
        let _ = self.sender.send(Message::Close).await;
    }
}

const CLOSED: &str = "the store is closed";
const LOCKED: &str = "another transaction held a lock for too long";
const SLOW: &str = "the database is too slow for all that is asked";

/// Waits for the answer to what was asked.
pub(super) async fn answered(
    answer: oneshot::Receiver<Result<Outcome, Fault>>,
) -> Result<Outcome, Fault> {
    answer.await.unwrap_or_else(|_| Err(Fault::Unavailable(CLOSED.into())))
}

/// A batch of so many commands says that there is a rush.
const RUSH_COMMANDS: usize = 8;
/// Looking for more, this is the time between two looks. They are taken when none have come, ...
const GATHER_STEP: Duration = Duration::from_millis(1);
/// ... or when it was looked so many times.
const GATHER_STEPS: u32 = 5;
/// Listening for more, this is the longest wait.
const GATHER_MAX: Duration = Duration::from_millis(2);
/// How often a batch is tried before its commands are tried alone, and one of them alone.
const TRIES: u32 = 4;
/// A store that needs so long to fail will not do better for those who wait.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// The pause before locked rows are tried again, where nothing else is to be done.
const LOCKED_PAUSE: Duration = Duration::from_millis(2);
/// The longest such pause.
const LOCKED_PAUSE_MAX: Duration = Duration::from_millis(32);

/// Makes the way to the batches, and what works them off until it is told to close or nobody can
/// reach it any more.
pub(super) fn batches<E: Engine>(
    engine: E,
    ids: Ids,
    latest: Timestamp,
    options: BatchOptions,
) -> (Sales<E::Job>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(options.queue_max.max(1));
    let latest = Arc::new(AtomicI64::new(latest.0));
    let sales = Sales { sender, latest: latest.clone() };
    (sales, Runner { engine, options, ids, latest, receiver, open: true }.run())
}

struct Runner<E: Engine> {
    engine: E,
    options: BatchOptions,
    ids: Ids,
    /// The latest time at which anything was decided. Requests do not get here in the order of
    /// their times (a slow body, a busy thread), and deciding one of them in the past of another
    /// would give the same seat to a hold that is over and to the one that came after it.
    latest: Arc<AtomicI64>,
    receiver: mpsc::Receiver<Message<E::Job>>,
    open: bool,
}

/// What is done in one transaction.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are sales")]
enum Entry<J> {
    Sale(Sale),
    Job(J),
}

/// How a command of a batch came out.
enum Done {
    /// With this answer.
    Answer(Result<Outcome, Fault>),
    /// Another transaction has locked one of its rows.
    Locked,
}

impl<E: Engine> Runner<E> {
    async fn run(mut self) {
        let _guard = StopOnPanic;
        let mut inbox: Vec<Message<E::Job>> = Vec::new();
        let mut locked: Vec<Entry<E::Job>> = Vec::new();
        let mut pause = LOCKED_PAUSE;
        let mut last_commands = 0;
        let mut expected = 0;
        while self.open || !locked.is_empty() {
            let room = self.options.batch_max.saturating_sub(locked.len()).max(1);
            if locked.is_empty() {
                if self.receiver.recv_many(&mut inbox, 1).await == 0 {
                    break;
                }
            } else {
                // Whoever comes meanwhile does not wait for those that are locked.
                tokio::select! {
                    biased;
                    came = self.receiver.recv_many(&mut inbox, 1), if self.open => {
                        self.open = came > 0;
                    }
                    () = sleep(pause) => {}
                }
            }
            if last_commands >= RUSH_COMMANDS {
                match self.options.gather {
                    Gather::Never => {}
                    Gather::Looking => self.look_for_more(),
                    Gather::Listening => {
                        self.listen_for_more(&mut inbox, expected.min(room)).await;
                    }
                }
            }
            while inbox.len() < room
                && let Ok(message) = self.receiver.try_recv()
            {
                inbox.push(message);
            }
            let mut batch = std::mem::take(&mut locked);
            let waited_only = inbox.is_empty();
            for message in inbox.drain(..) {
                match message {
                    Message::Sale(sale) => batch.push(Entry::Sale(sale)),
                    Message::Job(job) => batch.push(Entry::Job(job)),
                    Message::Close => {
                        self.open = false;
                        self.receiver.close();
                    }
                }
            }
            let commands = batch.len();
            locked = self.work_off(batch).await;
            // Those who have just been answered come again, and others have come meanwhile. Whoever
            // waits for a lock does neither.
            last_commands = commands - locked.len();
            expected = last_commands + self.receiver.len();
            pause = if waited_only { (pause * 2).min(LOCKED_PAUSE_MAX) } else { LOCKED_PAUSE };
        }
    }

    fn look_for_more(&self) {
        let mut waiting = 0;
        for _ in 0..GATHER_STEPS {
            std::thread::sleep(GATHER_STEP);
            let now = self.receiver.len();
            if now == waiting || now >= self.options.batch_max {
                return;
            }
            waiting = now;
        }
    }

    async fn listen_for_more(&mut self, inbox: &mut Vec<Message<E::Job>>, enough: usize) {
        let end = sleep(GATHER_MAX);
        tokio::pin!(end);
        while inbox.len() < enough && self.open {
            let room = enough - inbox.len();
            tokio::select! {
                biased;
                came = self.receiver.recv_many(inbox, room) => {
                    if came == 0 {
                        return;
                    }
                }
                () = &mut end => return,
            }
        }
    }

    /// Does a batch, and answers all of it but those whose rows are locked, which it returns.
    async fn work_off(&mut self, batch: Vec<Entry<E::Job>>) -> Vec<Entry<E::Job>> {
        let mut locked = Vec::new();
        // Rows of commands that wait: who comes behind one of them waits as well.
        let mut blocked: HashSet<RowId> = HashSet::new();
        let batch = self.without_late(batch);
        let mut groups = vec![(batch, 1)];
        while let Some((mut group, tries)) = groups.pop() {
            if group.is_empty() {
                continue;
            }
            let began = Instant::now();
            let (done, ids) = self.transact(&mut group, &mut blocked).await;
            self.ids = ids;
            match done {
                Ok(done) => self.answer(group, done, &mut locked),
                Err(trouble) => {
                    self.engine.roll_back().await;
                    let alone = group.len() == 1;
                    let again = matches!(trouble, Trouble::Again(_));
                    if again && tries < TRIES {
                        // Two that met once are not to meet again.
                        let spread = u64::from(began.elapsed().subsec_nanos()) % 8;
                        sleep(Duration::from_millis(u64::from(tries) * 2 + spread)).await;
                        groups.push((group, tries + 1));
                    } else if !alone && (again || matches!(trouble, Trouble::Refused(_))) {
                        // Alone, one that fails takes no other down with it.
                        groups.extend(group.into_iter().rev().map(|entry| (vec![entry], 1)));
                    } else {
                        self.engine.gave_up(&trouble);
                        let unknown = matches!(trouble, Trouble::Unknown(_));
                        let away = matches!(trouble, Trouble::Away(_));
                        let fault = trouble.into_fault();
                        if away && began.elapsed() >= GIVEN_UP {
                            self.refuse_waiting(&fault);
                        }
                        for entry in group {
                            match entry {
                                Entry::Sale(sale)
                                    if unknown && tries < TRIES && sale.command.is_repeatable() =>
                                {
                                    groups.push((vec![Entry::Sale(sale)], tries + 1));
                                }
                                entry => refuse(entry, &fault),
                            }
                        }
                    }
                }
            }
        }
        locked
    }

    /// Whoever has waited for a store that did not answer is not to wait for the next try as well.
    fn refuse_waiting(&mut self, fault: &Fault) {
        while let Ok(message) = self.receiver.try_recv() {
            match message {
                Message::Sale(sale) => refuse(Entry::<E::Job>::Sale(sale), fault),
                Message::Job(job) => job.answer(Err(fault.clone())),
                Message::Close => {
                    self.open = false;
                    self.receiver.close();
                }
            }
        }
    }

    /// Refuses those whose time was up before anybody looked at them.
    fn without_late(&self, batch: Vec<Entry<E::Job>>) -> Vec<Entry<E::Job>> {
        let Some(patience) = self.options.patience else { return batch };
        batch
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Sale(sale) if sale.asked.elapsed() > patience => {
                    let why = if sale.was_locked { LOCKED } else { SLOW };
                    refuse(Entry::<E::Job>::Sale(sale), &Fault::Unavailable(why.into()));
                    None
                }
                entry => Some(entry),
            })
            .collect()
    }

    fn answer(&self, group: Vec<Entry<E::Job>>, done: Vec<Done>, locked: &mut Vec<Entry<E::Job>>) {
        let late = |sale: &Sale| {
            self.options.patience.is_some_and(|patience| sale.asked.elapsed() >= patience)
        };
        for (entry, done) in group.into_iter().zip(done) {
            match (entry, done) {
                (Entry::Job(job), _) => job.answer(Ok(())),
                (Entry::Sale(sale), Done::Answer(answer)) => {
                    // Whoever asked may have gone away; what was done stands all the same.
                    let _ = sale.reply.send(answer);
                }
                // A sweep comes by again.
                (Entry::Sale(sale), Done::Locked) if sale.command.is_repeatable() => {
                    let _ = sale.reply.send(Ok(Outcome::Expire(false)));
                }
                (Entry::Sale(sale), Done::Locked) if late(&sale) => {
                    let _ = sale.reply.send(Err(Fault::Unavailable(LOCKED.into())));
                }
                (Entry::Sale(sale), Done::Locked) => {
                    locked.push(Entry::Sale(Sale { was_locked: true, ..sale }));
                }
            }
        }
    }

    /// Does all of a group in one transaction. After an error nothing of it has happened, or nobody
    /// knows. Also returns the ids that are left.
    async fn transact(
        &mut self,
        group: &mut [Entry<E::Job>],
        blocked: &mut HashSet<RowId>,
    ) -> (Result<Vec<Done>, Trouble>, Ids) {
        let mut ids = std::mem::take(&mut self.ids);
        let mut needed = IdsNeeded::default();
        let mut wants = Wants::default();
        for command in commands(group) {
            needed.add(command);
            wants.add(command);
        }
        if let Err(trouble) = self.engine.add_ids(&mut ids, needed).await {
            return (Err(trouble), ids);
        }
        let began = Instant::now();
        let mut rows = Rows::new(ids);
        let loaded = self.load(group, &mut wants, &mut rows).await;
        if let Err(trouble) = loaded {
            return (Err(trouble), rows.into_changes().1);
        }
        let done = self.execute(group, &mut rows, blocked);
        let (changes, ids) = rows.into_changes();
        let has_jobs = group.iter().any(|entry| matches!(entry, Entry::Job(_)));
        if changes.is_empty() && !has_jobs {
            // What was found under the locks is as good as what a commit leaves.
            self.engine.publish(&changes);
            self.engine.roll_back().await;
            return (Ok(done), ids);
        }
        if let Err(trouble) = self.engine.commit(&changes).await {
            return (Err(trouble), ids);
        }
        self.engine.publish(&changes);
        (self.options.observe)(Commit { commands: group.len(), took: began.elapsed() });
        (Ok(done), ids)
    }

    async fn load(
        &mut self,
        group: &mut [Entry<E::Job>],
        wants: &mut Wants,
        rows: &mut Rows,
    ) -> Result<(), Trouble> {
        self.engine.begin().await?;
        for entry in group.iter_mut() {
            if let Entry::Job(job) = entry {
                self.engine.run(job).await?;
            }
        }
        let commands: Vec<&Command> = commands(group).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let catalog = self.engine.catalog();
        for (concert, session) in &wants.sessions {
            let inventory = catalog.inventory(*concert, *session);
            let found = (
                catalog.concert(*concert).cloned(),
                inventory.map(|inventory| *inventory.session()),
            );
            rows.put_session((*concert, *session), found);
        }
        self.engine.peek(wants, rows).await?;
        self.engine.load(wants, rows).await?;
        let results = rows.results_wanted(&commands).map_err(|unwanted| {
            Trouble::Refused(Fault::Corrupt(format!("not loaded: {}", unwanted.0)))
        })?;
        if !results.is_empty() {
            self.engine.load_results(&results, rows).await?;
        }
        Ok(())
    }

    /// The time at which a command is decided.
    fn time_of(&self, command: &Command) -> Timestamp {
        let asked = command.now();
        asked.max(Timestamp(self.latest.fetch_max(asked.0, Ordering::SeqCst)))
    }

    fn execute(
        &mut self,
        group: &[Entry<E::Job>],
        rows: &mut Rows,
        blocked: &mut HashSet<RowId>,
    ) -> Vec<Done> {
        let mut done = Vec::with_capacity(group.len());
        for entry in group {
            let Entry::Sale(Sale { command, .. }) = entry else {
                // What is told to a job it knows by itself.
                done.push(Done::Locked);
                continue;
            };
            if rows.has_locked() || !blocked.is_empty() {
                let of_command = rows.rows_of(command);
                if of_command.iter().any(|row| rows.is_locked(*row) || blocked.contains(row)) {
                    let answer = answer_while_locked(rows, command, self.time_of(command));
                    done.push(match answer {
                        Some(outcome) => Done::Answer(Ok(outcome)),
                        None => {
                            blocked.extend(of_command);
                            Done::Locked
                        }
                    });
                    continue;
                }
            }
            let outcome = execute(rows, command, self.time_of(command));
            done.push(Done::Answer(outcome.map_err(|unwanted| {
                Fault::Corrupt(format!("what was asked for is not there: {}", unwanted.0))
            })));
        }
        done
    }
}

fn commands<J>(group: &[Entry<J>]) -> impl Iterator<Item = &Command> {
    group.iter().filter_map(|entry| match entry {
        Entry::Sale(sale) => Some(&sale.command),
        Entry::Job(_) => None,
    })
}

fn refuse<J: Job>(entry: Entry<J>, fault: &Fault) {
    match entry {
        Entry::Sale(sale) => {
            let _ = sale.reply.send(Err(fault.clone()));
        }
        Entry::Job(job) => job.answer(Err(fault.clone())),
    }
}

/// A panic in the middle of a batch is a bug that leaves us not knowing what the memory says against
/// the store. The store is right; a restart reads it.
struct StopOnPanic;

impl Drop for StopOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("what writes to the store panicked; stopping rather than guess");
            std::process::abort();
        }
    }
}
