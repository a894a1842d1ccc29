//! Fans who join, poll and buy at a modest rate, most of them through the proxy, some straight at single
//! instances. Every answer goes to the witness.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use fastrand::Rng;
use hyper::Method;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::{self, Call, Client, NoAnswer};
use crate::clock;
use crate::witness::{
    Answer, Attempt, CHARGE, EffectId, FanId, FanState, Finding, Given, HOLD_S, Heard, Joined,
    Next, Order, Seconds, Status, Told, Verdict, What,
};

/// What a seat costs.
pub(crate) const PRICE: i64 = 1_000;
/// Users of the load have this number or a higher one.
pub(crate) const FIRST_USER: i64 = 1_000_000;
/// A line that is longer than a round admits, so that there is somebody whose number could grow.
pub(crate) const LINE: usize = 400;
/// What the proxy is called in reports.
pub(crate) const FRONT: &str = "haproxy";
const QUEUES: &str = "/api/v1/waiting-queues";
/// For the end of a round.
const END_S: Seconds = 20.0;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Join,
    Poll,
    Leave,
    Seats,
    Reserve,
    Pay,
    Cancel,
    Refund,
    Charge,
    Balance,
}

impl Kind {
    /// All of them, in the order of a report.
    pub(crate) const ALL: [Self; 10] = [
        Self::Join,
        Self::Poll,
        Self::Leave,
        Self::Seats,
        Self::Reserve,
        Self::Pay,
        Self::Cancel,
        Self::Refund,
        Self::Charge,
        Self::Balance,
    ];

    fn of(what: &What) -> Self {
        match what {
            What::Hold { .. } => Self::Reserve,
            What::Pay { .. } => Self::Pay,
            What::Cancel { .. } => Self::Cancel,
            What::Refund { .. } => Self::Refund,
            What::Charge => Self::Charge,
        }
    }

    /// What an effect is counted as.
    pub(crate) fn of_effect(effect: &crate::witness::Effect) -> Self {
        Self::of(&effect.what)
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Outcome {
    /// 2xx.
    #[serde(rename = "ok")]
    Done,
    /// 402, 403 or 409: a rule.
    #[serde(rename = "refused")]
    Refused,
    #[serde(rename = "503")]
    Unavailable,
    #[serde(rename = "504")]
    TimedOut,
    /// Any other 5xx of the service.
    #[serde(rename = "5xx")]
    ServerError,
    /// A 4xx that should not be.
    #[serde(rename = "4xx")]
    ClientError,
    /// A 5xx that the proxy made.
    #[serde(rename = "proxy")]
    OfProxy,
    /// No answer.
    #[serde(rename = "none")]
    None,
    /// No answer, straight at an instance.
    #[serde(rename = "none-direct")]
    NoneDirect,
}

impl Outcome {
    /// All of them with their titles, in the order of a report.
    pub(crate) const TITLES: [(Self, &'static str); 9] = [
        (Self::Done, "ok"),
        (Self::Refused, "402/403/409"),
        (Self::Unavailable, "503"),
        (Self::TimedOut, "504"),
        (Self::ServerError, "other 5xx"),
        (Self::ClientError, "other 4xx"),
        (Self::OfProxy, "5xx of haproxy"),
        (Self::None, "no answer"),
        (Self::NoneDirect, "no answer (direct)"),
    ];

    /// Whether it was answered as it should be.
    pub(crate) const fn is_good(self) -> bool {
        matches!(self, Self::Done | Self::Refused)
    }

    fn of(answer: &client::Answer) -> Self {
        let ours = answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("application/problem+json"));
        match answer.status {
            ..400 => Self::Done,
            402 | 403 | 409 => Self::Refused,
            400..500 => Self::ClientError,
            _ if !ours => Self::OfProxy,
            503 => Self::Unavailable,
            504 => Self::TimedOut,
            _ => Self::ServerError,
        }
    }
}

/// One request, as a report keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) began: Seconds,
    pub(crate) done: Seconds,
    pub(crate) kind: Kind,
    pub(crate) outcome: Outcome,
    pub(crate) via: String,
    pub(crate) status: u16,
    /// The error code, or why there is no answer.
    pub(crate) code: String,
}

impl Sample {
    /// The same with its time counted from `zero`.
    pub(crate) fn since(mut self, zero: Seconds) -> Self {
        self.began -= zero;
        self.done -= zero;
        self
    }
}

impl Serialize for Sample {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let round = |value: f64, by: f64| (value * by).round() / by;
        let (began, ms) = (round(self.began, 1e3), round((self.done - self.began) * 1e3, 10.0));
        (began, ms, self.kind, self.outcome, &self.via, self.status, &self.code).serialize(to)
    }
}

/// Where requests go, and what they are about.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) told: Told,
    pub(crate) samples: Vec<Sample>,
    /// Those that are asked directly; who is down is taken out for the time.
    pub(crate) instances: BTreeMap<String, u16>,
    pub(crate) down: BTreeSet<String>,
    /// Who may buy.
    ready: VecDeque<FanId>,
    /// Seats of holds that nobody ends, and when they have run out.
    abandoned: VecDeque<(Seconds, Vec<i64>)>,
    /// Seats that more than one fan has asked for.
    contested: BTreeSet<i64>,
    seats: VecDeque<i64>,
    concert: i64,
    session: i64,
    next_user: i64,
    next_key: u64,
    /// The round is over: nobody is patient any more.
    closing: bool,
    rng: Rng,
}

impl State {
    fn chance(&mut self, share: f64) -> bool {
        self.rng.f64() < share
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.f64()).ln()
    }

    fn target(&mut self, front: u16) -> (String, u16) {
        let up: Vec<_> =
            self.instances.iter().filter(|(label, _)| !self.down.contains(*label)).collect();
        if !up.is_empty() && self.rng.f64() < 0.25 {
            let (label, port) = up[self.rng.usize(..up.len())];
            return (label.clone(), *port);
        }
        (FRONT.to_owned(), front)
    }

    /// Somebody to poll: mostly those whose turn is near, else anybody who ever joined.
    fn some_fan(&mut self) -> Option<FanId> {
        let count = self.told.fans.len();
        if count == 0 {
            return None;
        }
        if self.chance(0.6) {
            let first = count.saturating_sub(4_000);
            let waiting: Vec<usize> = (first..count)
                .filter(|&index| self.told.fans[index].state == FanState::Waiting)
                .collect();
            if !waiting.is_empty() {
                let near = self.exponential(60.0) as usize;
                return Some(FanId(waiting[near.min(waiting.len() - 1)]));
            }
        }
        Some(FanId(self.rng.usize(..count)))
    }

    fn key(&mut self) -> String {
        self.next_key += 1;
        format!("drill-{}", self.next_key)
    }
}

/// Why a fan stops in the middle.
enum Trouble {
    /// It is counted already.
    NoAnswer,
    /// A mistake of ours, which must not pass unseen.
    Ours(String),
}

impl From<NoAnswer> for Trouble {
    fn from(_: NoAnswer) -> Self {
        Self::NoAnswer
    }
}

impl From<String> for Trouble {
    fn from(what: String) -> Self {
        Self::Ours(what)
    }
}

type Done = Result<(), Trouble>;

/// How something is asked for.
#[derive(Clone, Debug, Default)]
struct How {
    token: Option<String>,
    via: Option<(String, u16)>,
    keyless: bool,
}

/// The fans.
#[derive(Debug)]
struct Crowd {
    front: u16,
    client: Client,
    state: Mutex<State>,
    tasks: Mutex<JoinSet<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(body: &Value, name: &str) -> Result<i64, String> {
    body[name].as_i64().ok_or_else(|| format!("an answer without {name}: {body}"))
}

/// Reads the number of a ticket out of its token.
fn sequence_number(token: &str) -> Result<u64, String> {
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).ok();
    let claims: Option<Value> = claims.and_then(|text| serde_json::from_slice(&text).ok());
    let seq = claims.and_then(|claims| claims["seq"].as_u64());
    seq.ok_or_else(|| format!("no number is in the token {token}"))
}

fn heard(body: &Value, answer: &client::Answer, instance: String) -> Result<Heard, String> {
    let status = match body["status"].as_str() {
        Some("ACTIVATED") => Status::Activated,
        Some("EXPIRED") => Status::Expired,
        Some(_) => Status::Waiting,
        None => return Err(format!("a place without status: {body}")),
    };
    let number = body["waitingNumber"].as_u64().unwrap_or(0);
    Ok(Heard { instance, status, number, sent_at: answer.sent_at, at: answer.at })
}

impl Crowd {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn note(&self, finding: Finding) {
        self.state().told.note(clock::now(), finding);
    }

    /// One request, counted. Returns the answer, and who gave it.
    async fn ask(
        &self,
        kind: Kind,
        call: &Call<'_>,
        via: Option<(String, u16)>,
    ) -> Result<(client::Answer, String), NoAnswer> {
        let (label, port) = match via {
            Some(via) => via,
            None => self.state().target(self.front),
        };
        let began = clock::now();
        let sent = self.client.send(port, call).await;
        let direct = label != FRONT;
        let (done, outcome, status, code) = match &sent {
            Ok(answer) => {
                let outcome = Outcome::of(answer);
                let code = match outcome {
                    Outcome::Done => String::new(),
                    Outcome::OfProxy => answer.status.to_string(),
                    _ => answer.code(),
                };
                (answer.at, outcome, answer.status, code)
            }
            Err(error) => {
                let outcome = if direct { Outcome::NoneDirect } else { Outcome::None };
                (clock::now(), outcome, 0, error.reason.clone())
            }
        };
        let mut state = self.state();
        let via = label.clone();
        state.samples.push(Sample { began, done, kind, outcome, via, status, code });
        let answer = sent?;
        let request = format!("{} {} at {label}", call.method, call.path);
        let said = format!("{status} {}", answer.text());
        let finding = match outcome {
            Outcome::ServerError => Some(Finding::ServerError { request, answer: said }),
            Outcome::ClientError => Some(Finding::ClientError { request, answer: said }),
            Outcome::Unavailable if answer.header("retry-after").is_none() => {
                let answer = format!("503 without Retry-After: {}", answer.text());
                Some(Finding::ServerError { request, answer })
            }
            _ => None,
        };
        if let Some(finding) = finding {
            state.told.note(answer.at, finding);
        }
        drop(state);
        let instance =
            if direct { label } else { answer.header("x-instance").unwrap_or_default().to_owned() };
        Ok((answer, instance))
    }

    // ---- joining and polling

    async fn join(&self) -> Done {
        let user = {
            let mut state = self.state();
            state.next_user += 1;
            state.next_user
        };
        let body = Some(json!({ "userId": user }));
        let call = Call { method: Method::POST, path: QUEUES.to_owned(), body, ..Call::default() };
        let (answer, instance) = self.ask(Kind::Join, &call, None).await?;
        if answer.status != 201 {
            return Ok(());
        }
        let body = answer.json().map_err(|error| error.to_string())?;
        let token = body["token"].as_str().unwrap_or_default().to_owned();
        let seq = sequence_number(&token)?;
        let heard = heard(&body, &answer, instance)?;
        let mut state = self.state();
        let (fan, let_in) = state.told.joined(Joined { user, token, seq, heard });
        if let_in {
            state.ready.push_back(fan);
        }
        Ok(())
    }

    async fn poll(&self, fan: FanId, via: Option<(String, u16)>) -> Done {
        let token = self.state().told.fan(fan).token.clone();
        let call = Call { path: QUEUES.to_owned(), token: Some(&token), ..Call::default() };
        let (answer, instance) = self.ask(Kind::Poll, &call, via).await?;
        match answer.status {
            401 => self.state().told.place_unknown(fan, instance, answer.at),
            200 => {
                let body = answer.json().map_err(|error| error.to_string())?;
                let heard = heard(&body, &answer, instance)?;
                let mut state = self.state();
                if state.told.polled(fan, heard) {
                    state.ready.push_back(fan);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn poll_some(&self) -> Done {
        let fan = self.state().some_fan();
        match fan {
            Some(fan) => self.poll(fan, None).await,
            None => Ok(()),
        }
    }

    async fn leave(&self) -> Done {
        let (fan, token) = {
            let mut state = self.state();
            let count = state.told.fans.len();
            let waiting = |index: &usize| state.told.fans[*index].state == FanState::Waiting;
            let Some(index) = (count.saturating_sub(300)..count).rev().find(waiting) else {
                return Ok(());
            };
            let fan = state.told.fan_mut(FanId(index));
            (fan.spent, fan.state) = (true, FanState::Leaving);
            (FanId(index), fan.token.clone())
        };
        let method = Method::DELETE;
        let call = Call { method, path: QUEUES.to_owned(), token: Some(&token), ..Call::default() };
        let (answer, _) = self.ask(Kind::Leave, &call, None).await?;
        if answer.status == 204 {
            self.state().told.fan_mut(fan).state = FanState::Left;
        }
        Ok(())
    }

    async fn browse(&self) -> Done {
        let (path, token) = {
            let state = self.state();
            let Some(&fan) = state.ready.front() else { return Ok(()) };
            (format!("{}/seats", session_path(&state)), state.told.fan(fan).token.clone())
        };
        let call = Call { path, token: Some(&token), ..Call::default() };
        self.ask(Kind::Seats, &call, None).await?;
        Ok(())
    }

    // ---- buying

    /// Asks for an effect, again and again with one key where the outcome is open.
    async fn effect(
        &self,
        user: i64,
        what: What,
        method: Method,
        path: String,
        body: Option<Value>,
        how: How,
    ) -> EffectId {
        let kind = Kind::of(&what);
        let (id, key, patient) = {
            let mut state = self.state();
            let key = (!how.keyless).then(|| state.key());
            let patient = key.is_some() && state.chance(0.7);
            (state.told.asks(Order { user, what, key: key.clone() }), key, patient)
        };
        let (token, key) = (how.token.as_deref(), key.as_deref());
        let call = Call { method, path, token, key, body };
        let give_up = clock::now() + 45.0;
        loop {
            let attempt = match self.ask(kind, &call, how.via.clone()).await {
                Ok((answer, instance)) => Attempt::Answered(answered(kind, &answer, instance)),
                Err(NoAnswer { reason, sent }) => Attempt::Silent { reason, sent },
            };
            let pause = {
                let mut state = self.state();
                let Next::Again(pause) = state.told.hears(id, attempt) else { return id };
                let attempts = state.told.effect(id).attempts;
                if !patient || state.closing && attempts > 3 || clock::now() > give_up {
                    state.told.gives_up(id);
                    return id;
                }
                pause * (0.8 + 0.4 * state.rng.f64())
            };
            sleep(Duration::from_secs_f64(pause)).await;
        }
    }

    async fn charge(&self, user: i64) -> EffectId {
        let path = format!("/api/v1/users/{user}/points/charge");
        let body = Some(json!({ "amount": CHARGE }));
        self.effect(user, What::Charge, Method::PATCH, path, body, How::default()).await
    }

    async fn reserve(&self, fan: FanId, seats: &[i64], mut how: How) -> EffectId {
        let (user, session, path) = {
            let state = self.state();
            let fan = state.told.fan(fan);
            how.token = Some(fan.token.clone());
            (fan.user, state.session, format!("{}/reservations", session_path(&state)))
        };
        let body = Some(json!({ "userId": user, "seatIds": seats }));
        let mut seats = seats.to_vec();
        seats.sort_unstable();
        self.effect(user, What::Hold { session, seats }, Method::POST, path, body, how).await
    }

    /// What somebody asks for with the ticket.
    async fn with_ticket(
        &self,
        fan: FanId,
        what: What,
        method: Method,
        path: String,
        body: impl FnOnce(i64) -> Option<Value>,
    ) -> EffectId {
        let (user, token) = {
            let state = self.state();
            let fan = state.told.fan(fan);
            (fan.user, fan.token.clone())
        };
        let how = How { token: Some(token), ..How::default() };
        self.effect(user, what, method, path, body(user), how).await
    }

    async fn pay(&self, fan: FanId, reservation: i64) -> EffectId {
        self.state().told.fan_mut(fan).spent = true;
        let path = "/api/v1/payments".to_owned();
        let body = |user| Some(json!({ "userId": user, "reservationId": reservation }));
        self.with_ticket(fan, What::Pay { reservation }, Method::POST, path, body).await
    }

    async fn buy(&self) -> Done {
        let (fan, user) = {
            let mut state = self.state();
            if state.seats.len() < 4 {
                return Ok(());
            }
            let Some(fan) = state.ready.pop_front() else { return Ok(()) };
            (fan, state.told.fan(fan).user)
        };
        let charge = self.charge(user).await;
        if self.state().chance(0.2) {
            let path = format!("/api/v1/users/{user}/points");
            let call = Call { path, ..Call::default() };
            let (answer, _) = self.ask(Kind::Balance, &call, None).await?;
            if answer.status == 200 {
                let body = answer.json().map_err(|error| error.to_string())?;
                let points = number(&body, "totalAmount")?;
                self.state().told.judge_points(charge, points, answer.at);
            }
        }
        let dice = self.state().rng.f64();
        if dice < 0.15 {
            let other = self.state().ready.pop_front();
            if let Some(other) = other {
                return self.race([fan, other]).await;
            }
        }
        let (seats, keyless) = {
            let mut state = self.state();
            let run_out = state.abandoned.front().is_some_and(|(at, _)| *at < clock::now());
            let seats = match state.abandoned.pop_front_if(|_| dice < 0.22 && run_out) {
                Some((_, seats)) => {
                    state.contested.extend(&seats);
                    seats
                }
                None => {
                    let count = [1, 1, 2][state.rng.usize(..3)].min(state.seats.len());
                    state.seats.drain(..count).collect()
                }
            };
            (seats, !state.chance(0.85))
        };
        let held = self.reserve(fan, &seats, How { keyless, ..How::default() }).await;
        {
            let mut state = self.state();
            let contested = seats.iter().any(|seat| state.contested.contains(seat));
            state.told.judge_hold(fan, held, contested);
        }
        self.decide(fan, held).await;
        Ok(())
    }

    /// What a buyer does with a hold.
    async fn decide(&self, fan: FanId, held: EffectId) {
        let (reservation, pause) = {
            let mut state = self.state();
            let Some(reservation) = state.told.effect(held).reservation() else { return };
            (reservation, 0.05 + 0.75 * state.rng.f64())
        };
        sleep(Duration::from_secs_f64(pause)).await;
        let dice = self.state().rng.f64();
        if dice < 0.10 {
            let path = format!("/api/v1/reservations/{reservation}");
            let what = What::Cancel { reservation };
            self.with_ticket(fan, what, Method::DELETE, path, |_| None).await;
        } else if dice < 0.20 {
            let mut state = self.state();
            if let What::Hold { seats, .. } = state.told.effect(held).what.clone() {
                state.contested.extend(&seats);
                state.abandoned.push_back((clock::now() + HOLD_S + 1.5, seats));
            }
        } else if dice < 0.30 {
            // Twice at once, with different keys.
            let both = tokio::join!(self.pay(fan, reservation), self.pay(fan, reservation));
            self.state().told.judge_payments(both.into());
        } else {
            let paid = self.pay(fan, reservation).await;
            self.state().told.judge_payment(paid);
            self.regret(fan, paid).await;
        }
    }

    /// One in twenty wants the points back.
    async fn regret(&self, fan: FanId, paid: EffectId) {
        let payment = {
            let mut state = self.state();
            let paid = state.told.effect(paid);
            let (Verdict::Done, Given::Payment { payment, .. }) = (paid.verdict, paid.given) else {
                return;
            };
            if !state.chance(0.05) {
                return;
            }
            payment
        };
        let path = format!("/api/v1/payments/{payment}/refund");
        let body = |user| Some(json!({ "userId": user }));
        self.with_ticket(fan, What::Refund { payment }, Method::POST, path, body).await;
    }

    /// Two for one seat at the same time, at two instances.
    async fn race(&self, fans: [FanId; 2]) -> Done {
        let (seat, other, vias) = {
            let mut state = self.state();
            let Some(seat) = state.seats.pop_front() else { return Ok(()) };
            state.contested.insert(seat);
            let mut up: Vec<(String, u16)> = state
                .instances
                .iter()
                .filter(|(label, _)| !state.down.contains(*label))
                .map(|(label, port)| (label.clone(), *port))
                .collect();
            state.rng.shuffle(&mut up);
            let direct = up.len() > 1 && state.chance(0.5);
            let vias = [0, 1].map(|index| up.get(index).filter(|_| direct).cloned());
            (seat, state.told.fan(fans[1]).user, vias)
        };
        self.charge(other).await;
        let [one, other] = vias.map(|via| How { via, ..How::default() });
        let seats = [seat];
        let both =
            tokio::join!(self.reserve(fans[0], &seats, one), self.reserve(fans[1], &seats, other));
        self.state().told.judge_race(both.into(), seat);
        self.decide(fans[0], both.0).await;
        self.decide(fans[1], both.1).await;
        Ok(())
    }
}

fn session_path(state: &State) -> String {
    format!("/api/v1/concerts/{}/sessions/{}", state.concert, state.session)
}

/// What an answer says to whoever asked for an effect.
fn answered(kind: Kind, answer: &client::Answer, instance: String) -> Answer {
    let body = answer.json().unwrap_or_default();
    let id = |name: &str| body[name].as_i64();
    let given = match kind {
        Kind::Reserve => id("reservationId").map(Given::Reservation),
        Kind::Pay => id("paymentId")
            .zip(id("paymentAmount"))
            .map(|(payment, amount)| Given::Payment { payment, amount }),
        _ => None,
    };
    Answer {
        status: answer.status,
        code: if answer.status < 300 { String::new() } else { answer.code() },
        instance,
        at: answer.at,
        retry_after: answer.header("retry-after").map(|text| text.parse().unwrap_or(1.0)),
        given: given.unwrap_or(Given::Nothing),
    }
}

/// What fans do by themselves, so often a second, whatever becomes of the earlier ones.
#[derive(Clone, Copy, Debug)]
enum Habit {
    Join,
    Poll,
    Buy,
    Browse,
    Leave,
}

const HABITS: [(Habit, f64); 5] = [
    (Habit::Join, 60.0),
    (Habit::Poll, 130.0),
    (Habit::Buy, 22.0),
    (Habit::Browse, 8.0),
    (Habit::Leave, 2.0),
];

impl Habit {
    async fn act(self, crowd: &Crowd) {
        let done = match self {
            Self::Join => crowd.join().await,
            Self::Poll => crowd.poll_some().await,
            Self::Buy => crowd.buy().await,
            Self::Browse => crowd.browse().await,
            Self::Leave => crowd.leave().await,
        };
        if let Err(Trouble::Ours(what)) = done {
            crowd.note(Finding::Drill { what });
        }
    }

    async fn repeat(self, per_second: f64, crowd: Arc<Crowd>) {
        let mut due = clock::now();
        loop {
            let pause = crowd.state().exponential(1.0 / per_second);
            due = (due + pause).max(clock::now() - 0.5);
            sleep(Duration::from_secs_f64((due - clock::now()).max(0.0))).await;
            let one = crowd.clone();
            let mut tasks = locked(&crowd.tasks);
            tasks.spawn(async move { self.act(&one).await });
            let broken = reap(&mut tasks);
            drop(tasks);
            for what in broken {
                crowd.note(Finding::Drill { what });
            }
        }
    }
}

/// Forgets the tasks that are done. Returns why some are broken.
fn reap(tasks: &mut JoinSet<()>) -> Vec<String> {
    let mut broken = Vec::new();
    while let Some(done) = tasks.try_join_next() {
        if let Err(error) = done
            && error.is_panic()
        {
            broken.push(error.to_string());
        }
    }
    broken
}

/// The load, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Load {
    crowd: Arc<Crowd>,
    habits: Vec<tokio::task::JoinHandle<()>>,
    runtime: Runtime,
}

impl Load {
    /// Makes ready for load through a proxy, and at instances by name and port.
    pub(crate) fn new(front: u16, instances: &[(String, u16)]) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("the load cannot be made: {error}"))?;
        let state = State {
            told: Told::default(),
            samples: Vec::new(),
            instances: instances.iter().cloned().collect(),
            down: BTreeSet::new(),
            ready: VecDeque::new(),
            abandoned: VecDeque::new(),
            contested: BTreeSet::new(),
            seats: VecDeque::new(),
            concert: 0,
            session: 0,
            next_user: FIRST_USER,
            next_key: 0,
            closing: true,
            rng: Rng::with_seed(1),
        };
        let crowd = Crowd {
            front,
            client: Client::default(),
            state: Mutex::new(state),
            tasks: Mutex::new(JoinSet::new()),
        };
        Ok(Self { crowd: Arc::new(crowd), habits: Vec::new(), runtime })
    }

    /// What was told, and the rest.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.crowd.state()
    }

    /// Notes a finding of the drill.
    pub(crate) fn note(&self, finding: Finding) {
        self.crowd.note(finding);
    }

    /// From now on these seats are sold.
    pub(crate) fn sell(&self, round: u32, concert: i64, session: i64, seats: std::ops::Range<i64>) {
        let mut state = self.state();
        state.told.round = round;
        (state.concert, state.session) = (concert, session);
        state.seats = seats.collect();
        state.abandoned.clear();
    }

    /// A line to begin with.
    pub(crate) fn top_up(&self, count: usize) {
        self.runtime.block_on(async {
            for _ in 0..count.div_ceil(20) {
                let mut joining = JoinSet::new();
                for _ in 0..20 {
                    let crowd = self.crowd.clone();
                    joining.spawn(async move { Habit::Join.act(&crowd).await });
                }
                joining.join_all().await;
            }
        });
    }

    /// Fans come.
    pub(crate) fn begin(&mut self) {
        self.state().closing = false;
        let _inside = self.runtime.enter();
        self.habits = HABITS
            .into_iter()
            .map(|(habit, per_second)| tokio::spawn(habit.repeat(per_second, self.crowd.clone())))
            .collect();
    }

    /// No new fans; those who are in the middle of something finish.
    pub(crate) fn end(&mut self) {
        self.state().closing = true;
        for habit in self.habits.drain(..) {
            habit.abort();
        }
        let until = clock::now() + END_S;
        self.runtime.block_on(async {
            loop {
                let (broken, open) = {
                    let mut tasks = locked(&self.crowd.tasks);
                    (reap(&mut tasks), tasks.len())
                };
                for what in broken {
                    self.note(Finding::Drill { what });
                }
                if open == 0 {
                    return;
                }
                if clock::now() > until {
                    let what = format!("{open} fans did not finish within {END_S} s");
                    self.note(Finding::Drill { what });
                    locked(&self.crowd.tasks).abort_all();
                    sleep(Duration::from_millis(50)).await;
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
    }

    /// After a round, every instance must know every place: those of the round, and a sample of all.
    pub(crate) fn look_again(&self, since: Seconds) {
        const SAMPLE: usize = 250;
        let (mut questions, targets) = {
            let mut state = self.state();
            let recent: Vec<usize> = (0..state.told.fans.len())
                .filter(|&index| state.told.fans[index].at >= since)
                .collect();
            let all = 0..state.told.fans.len();
            let mut chosen = state.rng.choose_multiple(recent, 2 * SAMPLE);
            chosen.extend(state.rng.choose_multiple(all, SAMPLE));
            (chosen, state.instances.clone())
        };
        without_repetition(&mut questions);
        let questions: VecDeque<(FanId, String, u16)> = questions
            .into_iter()
            .flat_map(|fan| {
                targets.iter().map(move |(label, port)| (FanId(fan), label.clone(), *port))
            })
            .collect();
        let questions = Arc::new(Mutex::new(questions));
        self.runtime.block_on(async {
            let mut workers = JoinSet::new();
            for _ in 0..8 {
                let (crowd, questions) = (self.crowd.clone(), questions.clone());
                workers.spawn(async move {
                    loop {
                        let next = locked(&questions).pop_back();
                        let Some((fan, label, port)) = next else { return };
                        let what = match crowd.poll(fan, Some((label.clone(), port))).await {
                            Ok(()) => continue,
                            Err(Trouble::NoAnswer) => {
                                format!("no answer to a poll at {label} after the round")
                            }
                            Err(Trouble::Ours(what)) => what,
                        };
                        crowd.note(Finding::Drill { what });
                    }
                });
            }
            workers.join_all().await;
        });
    }
}

/// Nobody is asked about twice.
fn without_repetition(fans: &mut Vec<usize>) {
    fans.sort_unstable();
    fans.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_read_out_of_a_token() {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"seq":17}"#);
        assert_eq!(sequence_number(&format!("head.{claims}.mac")), Ok(17));
        assert!(sequence_number("queue_token_1").is_err());
    }

    #[test]
    fn a_sample_is_kept_as_a_row() {
        let sample = Sample {
            began: 12.34567,
            done: 12.35,
            kind: Kind::Join,
            outcome: Outcome::NoneDirect,
            via: "a".to_owned(),
            status: 0,
            code: "timeout".to_owned(),
        };
        let row = serde_json::to_string(&sample.since(10.0)).unwrap();
        assert_eq!(row, r#"[2.346,4.3,"join","none-direct","a",0,"timeout"]"#);
    }
}
