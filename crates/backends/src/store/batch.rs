//! The one way in which every store sells: take what waits, load its rows, execute one command after
//! another, save what has changed, commit, publish, answer.
//!
//! There is no waiting window for whoever comes alone; a batch is what came while the one before it
//! was under way. A store that can do several transactions at a time has as many engines: where
//! enough commands wait whose rows nobody under way wants, they are a batch beside it. An [`Engine`]
//! knows how its store does each step, and no order of steps.
//!
//! A command whose rows another transaction has locked holds up nobody: it goes into the next batch,
//! with all that come behind it for one of its rows, until its time is up.

use std::collections::{HashSet, VecDeque};
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use boxoffice_domain::command::{
    Changes, Command, Ids, IdsNeeded, Outcome, ResultOf, RowId, Rows, Wants, answer_while_locked,
    execute,
};
use boxoffice_domain::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::catalog::{Catalog, Inventory};
use super::choosing::{CHOICES_MAX, Choices, Chosen, Learnt, SINGLES_MAX};
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
pub(super) trait Job: Send + 'static {
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
pub(super) trait Engine: Send + 'static {
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

    /// Looks which seats of a session are free in the store, where others write too, and lets everybody here
    /// see them. Returns whether there may be news.
    fn look_again(
        &mut self,
        inventory: &Inventory,
    ) -> impl Future<Output = Result<bool, Trouble>> + Send;

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

    /// Ends a transaction that has changed nothing, once all that it has seen is durable: others may
    /// see a commit that is still on its way to the disk.
    fn await_durable(&mut self) -> impl Future<Output = Result<(), Trouble>> + Send;

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
    /// How often the best seats were chosen for it, or found not to be there.
    choices: u32,
    /// Whether others in this batch may leave nothing for it, which shows with the next one.
    is_for_later: bool,
    /// Whether that is so because another transaction has locked seats, and takes a while.
    is_behind_locks: bool,
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
            choices: 0,
            is_for_later: false,
            is_behind_locks: false,
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
const FASTER: &str = "others were faster at all the seats that were chosen";

/// Waits for the answer to what was asked.
pub(super) async fn answered(
    answer: oneshot::Receiver<Result<Outcome, Fault>>,
) -> Result<Outcome, Fault> {
    answer.await.unwrap_or_else(|_| Err(Fault::Unavailable(CLOSED.into())))
}

/// A batch of so many commands says that there is a rush.
const RUSH_COMMANDS: usize = 8;
/// So many commands are worth a batch beside one that is under way; fewer would cost more in
/// statements than they gain in time, ...
const BESIDE_MIN: usize = 64;
/// ... unless that one takes so long: something holds it up, and nobody else is to wait for it.
const BESIDE_AFTER: Duration = Duration::from_millis(25);
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
/// reach it any more. The first engine begins with the ids.
pub(super) fn batches<E: Engine>(
    engines: Vec<E>,
    ids: Ids,
    latest: Timestamp,
    options: BatchOptions,
) -> (Sales<E::Job>, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(options.queue_max.max(1));
    let latest = Arc::new(AtomicI64::new(latest.0));
    let options = Arc::new(options);
    let learnt = Arc::new(Learnt::default());
    let mut ids = Some(ids);
    let sellers = engines.into_iter().map(|engine| Seller {
        engine,
        options: options.clone(),
        ids: ids.take().unwrap_or_default(),
        latest: latest.clone(),
        learnt: learnt.clone(),
    });
    let idle: Vec<Seller<E>> = sellers.collect();
    let runner = Runner {
        does_several: idle.len() > 1,
        idle,
        under_way: JoinSet::new(),
        known: Vec::new(),
        waiting: VecDeque::new(),
        options,
        receiver,
        open: true,
        begun: 0,
        last_done: 0,
        expected: 0,
        pause: LOCKED_PAUSE,
        looked_at: 0,
        is_slow: false,
    };
    (Sales { sender, latest }, or_stop(runner.run()))
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

/// Makes batches of what comes, and has them done.
struct Runner<E: Engine> {
    /// Those who do batches and have none.
    idle: Vec<Seller<E>>,
    /// Whether there was ever more than one of them.
    does_several: bool,
    under_way: JoinSet<Ended<E>>,
    /// What is known of each batch under way. Empty where none is ever done beside another.
    known: Vec<UnderWay>,
    /// What has come and is in no batch yet, in its order.
    waiting: VecDeque<Entry<E::Job>>,
    options: Arc<BatchOptions>,
    receiver: mpsc::Receiver<Message<E::Job>>,
    open: bool,
    /// How many batches were begun.
    begun: u64,
    /// How many commands the last batch has done, ...
    last_done: usize,
    /// ... and how many are to be expected after it.
    expected: usize,
    /// Before those that wait for a lock are tried again.
    pause: Duration,
    /// Of those who wait, how many were not enough for a batch beside the one under way.
    looked_at: usize,
    /// Whether the batch under way takes so long that one is.
    is_slow: bool,
}

/// A batch that is being done.
struct UnderWay {
    number: u64,
    commands: usize,
    /// The rows that it wants, as far as its commands tell.
    rows: HashSet<RowId>,
    began: Instant,
}

/// A batch that is over.
struct Ended<E: Engine> {
    number: u64,
    seller: Seller<E>,
    /// How many commands it had.
    commands: usize,
    /// Those whose rows were locked.
    locked: Vec<Entry<E::Job>>,
    /// Why whoever waits for the store is not to wait any longer.
    away: Option<Fault>,
}

impl<E: Engine> Runner<E> {
    async fn run(mut self) {
        loop {
            if !self.under_way.is_empty() {
                self.go_on().await;
            } else if !self.start().await {
                return;
            }
        }
    }

    /// Begins a batch of what comes, where none is under way. Returns false when nothing will come.
    async fn start(&mut self) -> bool {
        let all_locked = self.waiting.iter().all(Entry::was_locked);
        if self.waiting.is_empty() {
            if !self.open || !self.receive(1).await {
                return false;
            }
        } else if all_locked {
            // Whoever comes meanwhile does not wait for those that are locked.
            let pause = self.pause;
            tokio::select! {
                biased;
                _ = self.receive(1), if self.open => {}
                () = sleep(pause) => {}
            }
        }
        if self.last_done >= RUSH_COMMANDS {
            match self.options.gather {
                Gather::Never => {}
                Gather::Looking => self.look_for_more(),
                Gather::Listening => self.listen_for_more().await,
            }
        }
        self.take_more();
        let only_locked = all_locked && self.waiting.iter().all(Entry::was_locked);
        self.pause =
            if only_locked { (self.pause * 2).min(LOCKED_PAUSE_MAX) } else { LOCKED_PAUSE };
        let count = self.waiting.len().min(self.options.batch_max);
        let batch = self.waiting.drain(..count).collect();
        self.begin(batch);
        true
    }

    /// Waits for the end of a batch under way, and begins another one beside it if that is worth it.
    async fn go_on(&mut self) {
        // Where nobody is there to do it, what comes is left where it is.
        let idle = !self.idle.is_empty();
        let receives = idle && self.open && self.waiting.len() < 2 * self.options.batch_max;
        let slow_at = self.known.iter().map(|batch| batch.began + BESIDE_AFTER).min();
        let slow_at = slow_at.filter(|_| idle && !self.is_slow && !self.waiting.is_empty());
        let mut came = Vec::new();
        let ended = tokio::select! {
            biased;
            ended = self.under_way.join_next() => ended,
            count = self.receiver.recv_many(&mut came, self.options.batch_max), if receives => {
                self.open &= count > 0;
                None
            }
            () = sleep_until(slow_at.unwrap_or_else(Instant::now)), if slow_at.is_some() => None,
        };
        came.into_iter().for_each(|message| self.put(message));
        if let Some(ended) = ended {
            self.end(ended);
        }
        if self.known.is_empty() || self.idle.is_empty() {
            return;
        }
        if !self.is_slow && self.known.iter().any(|batch| batch.began.elapsed() >= BESIDE_AFTER) {
            (self.looked_at, self.is_slow) = (0, true);
        }
        let under_way: usize = self.known.iter().map(|batch| batch.commands).sum();
        let enough = if self.is_slow { 1 } else { BESIDE_MIN.max(under_way * 3 / 4) };
        if self.waiting.len() >= self.looked_at + enough {
            self.begin_beside(enough);
            self.looked_at = self.waiting.len();
        }
    }

    /// Waits until something comes, and takes it, at most so many at once. Returns whether anything
    /// did.
    async fn receive(&mut self, most: usize) -> bool {
        let mut came = Vec::new();
        let any = self.receiver.recv_many(&mut came, most).await > 0;
        self.open &= any;
        came.into_iter().for_each(|message| self.put(message));
        any
    }

    /// Takes what is there without waiting, as far as there is room in a batch.
    fn take_more(&mut self) {
        while self.open
            && self.waiting.len() < self.options.batch_max
            && let Ok(message) = self.receiver.try_recv()
        {
            self.put(message);
        }
    }

    fn put(&mut self, message: Message<E::Job>) {
        match message {
            // Who comes after the end is told so by nobody's answering.
            _ if !self.open => {}
            Message::Sale(sale) => self.waiting.push_back(Entry::Sale(sale)),
            Message::Job(job) => self.waiting.push_back(Entry::Job(job)),
            Message::Close => {
                self.open = false;
                self.receiver.close();
            }
        }
    }

    /// Has a batch done by somebody who has none.
    fn begin(&mut self, batch: Vec<Entry<E::Job>>) {
        // Somebody is there, except where the runtime has ended their work.
        let Some(mut seller) = self.idle.pop() else { return };
        self.begun += 1;
        let number = self.begun;
        (self.looked_at, self.is_slow) = (0, false);
        if self.does_several {
            let rows = commands(&batch).flat_map(Command::rows).collect();
            let (commands, began) = (batch.len(), Instant::now());
            self.known.push(UnderWay { number, commands, rows, began });
        }
        self.under_way.spawn(or_stop(async move {
            let commands = batch.len();
            let (locked, away) = seller.work_off(batch).await;
            Ended { number, seller, commands, locked, away }
        }));
    }

    /// Has those done beside the batch under way who want none of its rows, if they are enough.
    /// Whoever waits behind it is not overtaken at a row either.
    fn begin_beside(&mut self, enough: usize) {
        let mut behind: HashSet<RowId> = HashSet::new();
        // Those that wait for a lock have been tried, and are no reason to try again.
        let (mut free, mut reasons) = (0, 0);
        let is_free: Vec<bool> = self
            .waiting
            .iter()
            .map(|entry| {
                let Entry::Sale(sale) = entry else { return false };
                let rows = sale.command.rows();
                let wanted = |row: &RowId| self.known.iter().any(|batch| batch.rows.contains(row));
                if free == self.options.batch_max
                    || rows.iter().any(|row| wanted(row) || behind.contains(row))
                {
                    behind.extend(rows);
                    return false;
                }
                free += 1;
                reasons += usize::from(!sale.was_locked);
                true
            })
            .collect();
        if reasons < enough {
            return;
        }
        let mut batch = Vec::with_capacity(free);
        for (entry, is_free) in std::mem::take(&mut self.waiting).into_iter().zip(is_free) {
            if is_free {
                batch.push(entry);
            } else {
                self.waiting.push_back(entry);
            }
        }
        self.begin(batch);
    }

    /// Takes note of a batch that is over.
    fn end(&mut self, ended: Result<Ended<E>, JoinError>) {
        let Ended { number, seller, commands, locked, away } = match ended {
            Ok(ended) => ended,
            // Who panicked has stopped the process, and a runtime that ends takes all along.
            Err(_) => return,
        };
        self.idle.push(seller);
        self.known.retain(|batch| batch.number != number);
        if let Some(fault) = away {
            self.refuse_waiting(&fault);
        }
        (self.looked_at, self.is_slow) = (0, false);
        // Those who have just been answered come again, and others have come meanwhile. Whoever waits
        // for a lock does neither.
        self.last_done = commands - locked.len();
        let came = self.waiting.iter().filter(|entry| !entry.was_locked()).count();
        self.expected = self.last_done + came + self.receiver.len();
        locked.into_iter().rev().for_each(|entry| self.waiting.push_front(entry));
    }

    fn look_for_more(&self) {
        // The one that is taken already has come too: where nobody else has yet, others may.
        let mut waiting = 0;
        for _ in 0..GATHER_STEPS {
            std::thread::sleep(GATHER_STEP);
            let now = self.waiting.len() + self.receiver.len();
            if now == waiting || now >= self.options.batch_max {
                return;
            }
            waiting = now;
        }
    }

    async fn listen_for_more(&mut self) {
        let enough = self.expected.min(self.options.batch_max);
        let end = sleep(GATHER_MAX);
        tokio::pin!(end);
        while self.waiting.len() < enough && self.open {
            tokio::select! {
                biased;
                came = self.receive(enough - self.waiting.len()) => {
                    if !came {
                        return;
                    }
                }
                () = &mut end => return,
            }
        }
    }

    /// Whoever has waited for a store that did not answer is not to wait for the next try as well.
    fn refuse_waiting(&mut self, fault: &Fault) {
        while self.open
            && let Ok(message) = self.receiver.try_recv()
        {
            self.put(message);
        }
        for entry in std::mem::take(&mut self.waiting) {
            if entry.was_locked() {
                self.waiting.push_back(entry);
            } else {
                refuse(entry, fault);
            }
        }
    }
}

/// Does one batch at a time.
struct Seller<E> {
    engine: E,
    options: Arc<BatchOptions>,
    ids: Ids,
    /// The latest time at which anything was decided. Requests do not get here in the order of
    /// their times (a slow body, a busy thread), and deciding one of them in the past of another
    /// would give the same seat to a hold that is over and to the one that came after it.
    latest: Arc<AtomicI64>,
    learnt: Arc<Learnt>,
}

impl<E: Engine> Seller<E> {
    /// Does a batch, and answers all of it but those whose rows are locked, which it returns. Also
    /// returns why nobody is to wait for the next one, if that is so.
    async fn work_off(&mut self, batch: Vec<Entry<E::Job>>) -> (Vec<Entry<E::Job>>, Option<Fault>) {
        let (mut locked, mut given_up) = (Vec::new(), None);
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
                            given_up = Some(fault.clone());
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
        (locked, given_up)
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
                (Entry::Sale(sale), Done::Locked) => match sale.command.answer_for_later() {
                    Some(later) => {
                        let _ = sale.reply.send(Ok(later));
                    }
                    None if late(&sale) => {
                        let _ = sale.reply.send(Err(Fault::Unavailable(LOCKED.into())));
                    }
                    None if sale.choices >= CHOICES_MAX => {
                        let _ = sale.reply.send(Err(Fault::Unavailable(FASTER.into())));
                    }
                    // For those before it nobody waits: the next batch tells.
                    None => {
                        let was_locked = !sale.is_for_later || sale.is_behind_locks;
                        locked.push(Entry::Sale(Sale { was_locked, ..sale }));
                    }
                },
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
        commands(group).for_each(|command| needed.add(command));
        if let Err(trouble) = self.engine.add_ids(&mut ids, needed).await {
            return (Err(trouble), ids);
        }
        let began = Instant::now();
        let mut rows = Rows::new(ids);
        let loaded = self.load(group, &mut rows).await;
        if let Err(trouble) = loaded {
            return (Err(trouble), rows.into_changes().1);
        }
        let done = self.execute(group, &mut rows, blocked);
        let (changes, ids) = rows.into_changes();
        let has_jobs = group.iter().any(|entry| matches!(entry, Entry::Job(_)));
        if changes.is_empty() && !has_jobs {
            // What was found under the locks is as good as what a commit leaves.
            self.engine.publish(&changes);
            let confirms =
                |done: &Done| matches!(done, Done::Answer(Ok(it)) if it.confirms_earlier());
            if !done.iter().any(confirms) {
                self.engine.roll_back().await;
            } else if let Err(trouble) = self.engine.await_durable().await {
                return (Err(trouble), ids);
            }
            return (Ok(done), ids);
        }
        if let Err(trouble) = self.engine.commit(&changes).await {
            return (Err(trouble), ids);
        }
        self.engine.publish(&changes);
        (self.options.observe)(Commit { commands: group.len(), took: began.elapsed() });
        (Ok(done), ids)
    }

    async fn load(&mut self, group: &mut [Entry<E::Job>], rows: &mut Rows) -> Result<(), Trouble> {
        self.engine.begin().await?;
        for entry in group.iter_mut() {
            if let Entry::Job(job) = entry {
                self.engine.run(job).await?;
            }
        }
        self.choose(group, rows).await?;
        let commands: Vec<&Command> = commands(group).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let wants = &mut Wants::default();
        commands.iter().for_each(|command| wants.add(command));
        // Which sessions are wanted shows with the reservations.
        self.engine.peek(wants, rows).await?;
        let catalog = self.engine.catalog();
        for (concert, session) in &wants.sessions {
            let inventory = catalog.inventory(*concert, *session);
            let found = (
                catalog.concert(*concert).cloned(),
                inventory.map(|inventory| inventory.session()),
            );
            rows.put_session((*concert, *session), found);
            if inventory.is_some_and(|inventory| inventory.called_off().is_some()) {
                rows.put_called_off(*session);
            }
        }
        self.engine.load(wants, rows).await?;
        let results = rows.results_wanted(&commands).map_err(|unwanted| {
            Trouble::Refused(Fault::Corrupt(format!("not loaded: {}", unwanted.0)))
        })?;
        if !results.is_empty() {
            self.engine.load_results(&results, rows).await?;
        }
        Ok(())
    }

    /// Chooses the best seats for those who named none.
    async fn choose(
        &mut self,
        group: &mut [Entry<E::Job>],
        rows: &mut Rows,
    ) -> Result<(), Trouble> {
        let is_looked_at = |command: &Command| match command {
            Command::Reserve(reserve) => reserve.best.is_some() || reserve.limits.no_orphans,
            _ => false,
        };
        if !commands(group).any(is_looked_at) {
            return Ok(());
        }
        let latest = Timestamp(self.latest.load(Ordering::SeqCst));
        let mut choices = Choices::new(&self.learnt);
        for entry in group {
            let Entry::Sale(sale) = entry else { continue };
            let Command::Reserve(reserve) = &mut sale.command else { continue };
            // What was so in the batch before need not be so now: the session may be gone.
            sale.is_for_later = false;
            let now = latest.max(reserve.now);
            let catalog = self.engine.catalog();
            let found = catalog.inventory(reserve.concert, reserve.session);
            let Some(inventory) = found else { continue };
            if reserve.best.is_some() {
                reserve.limits.no_orphans &= sale.choices < SINGLES_MAX;
            }
            let mut chosen = choices.choose(reserve, inventory, (&self.learnt, now));
            if chosen == Chosen::Look && self.engine.look_again(inventory).await? {
                chosen = choices.choose(reserve, inventory, (&self.learnt, now));
            }
            sale.is_for_later = chosen == Chosen::Later;
            sale.is_behind_locks = choices.avoids_any();
            // Who waits for those before has not been given anything yet.
            sale.choices += u32::from(reserve.best.is_some() && !sale.is_for_later);
        }
        for (session, plan, free) in choices.halls() {
            rows.put_hall(session, plan, free);
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
        if rows.has_locked() {
            self.learnt.locked(rows.locked_seats());
        }
        for entry in group {
            let Entry::Sale(Sale { command, is_for_later, choices, .. }) = entry else {
                // What is told to a job it knows by itself.
                done.push(Done::Locked);
                continue;
            };
            let is_choice = *choices > 0;
            if *is_for_later {
                done.push(Done::Locked);
                continue;
            }
            if rows.has_locked() || !blocked.is_empty() {
                let of_command = rows.rows_of(command);
                if of_command.iter().any(|row| rows.is_locked(*row) || blocked.contains(row)) {
                    let answer = answer_while_locked(rows, command, self.time_of(command));
                    done.push(match answer {
                        Some(outcome) => Done::Answer(Ok(outcome)),
                        // Where it will choose others, nobody waits behind it for these.
                        None if is_choice => Done::Locked,
                        None => {
                            blocked.extend(of_command);
                            Done::Locked
                        }
                    });
                    continue;
                }
            }
            let outcome = execute(rows, command, self.time_of(command));
            if is_choice && outcome.as_ref().is_ok_and(Outcome::asks_for_another_choice) {
                done.push(Done::Locked);
                continue;
            }
            done.push(Done::Answer(outcome.map_err(|unwanted| {
                Fault::Corrupt(format!("what was asked for is not there: {}", unwanted.0))
            })));
        }
        done
    }
}

impl<J> Entry<J> {
    const fn was_locked(&self) -> bool {
        matches!(self, Self::Sale(Sale { was_locked: true, .. }))
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

/// Does what writes to the store. A panic in the middle of a batch is a bug that leaves us not knowing what the
/// memory says against the store. The store is right; a restart reads it.
async fn or_stop<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    // Of this work only: whose runtime ends because something else panicked is dropped, and has not panicked.
    poll_fn(|context| {
        let step = AssertUnwindSafe(|| work.as_mut().poll(context));
        catch_unwind(step).unwrap_or_else(|_| {
            tracing::error!("what writes to the store panicked; stopping rather than guess");
            std::process::abort()
        })
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn work_that_ends_with_the_panic_of_another_stops_nothing() {
        let other = std::thread::spawn(|| {
            let mut work = pin!(or_stop(pending::<()>()));
            let begun = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            panic!("the other one, while this one is {begun:?}");
        });
        assert!(other.join().is_err());
    }
}
