//! Kill -9 at random moments under load, start again on the same data, and compare everything that
//! was acknowledged with what is there.
//!
//! Each client has users of its own and keeps a model of what it was told. An answer that came
//! whole counts; an operation without one is settled after the restart, by its idempotency key or
//! by looking, and must have happened once or not at all. Then the tables of the store must hold
//! exactly what the models say: a row too few is a loss, a row too many is a doubling.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::program::{self, Answer, Client, Rng, Server, run, seq_of};
use boxoffice_backends::store::SqliteStore;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

const CLIENTS: usize = 24;
const USERS_PER_CLIENT: i64 = 8;
/// What a demo user begins with.
const POINTS: i64 = 1_000_000;
const CONCERT: i64 = 1;
const SESSIONS: u64 = 10;
const SEATS_PER_SESSION: u64 = 2_000;
/// All clients want seats among so many at a time.
const WINDOW: u64 = 60;
/// A client polls the line instead of joining once it has so many places in it.
const WAITING_MAX: usize = 20;

/// Nothing runs out during the test, so everything that ends was ended by a client; admission is
/// slow enough to keep a line.
const SETTINGS: [&str; 16] = [
    "--set",
    "queue.admit_per_second=40",
    "--set",
    "queue.active_ttl_seconds=86400",
    "--set",
    "sales.hold_seconds=86400",
    "--set",
    "sales.max_seats_per_user=100000",
    "--set",
    "sales.live_holds_max=100000",
    "--set",
    "sales.holds_per_ticket_max=100000",
    "--set",
    "log.level=warn,boxoffice=info",
    "--set",
    "server.drain_timeout_ms=2000",
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waiting(u64),
    Activated,
    /// Paid or given up, acknowledged.
    Spent,
}

#[derive(Debug)]
struct Ticket {
    token: String,
    user: i64,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Held,
    Paid(i64),
    Cancelled,
}

#[derive(Debug)]
struct Reservation {
    id: i64,
    user: i64,
    ticket: usize,
    session: i64,
    seats: Vec<i64>,
    state: State,
    /// As it was answered; none where the answer was lost.
    expires_at: Option<String>,
}

/// A request, as it can be sent again.
#[derive(Clone, Debug)]
struct Sent {
    method: &'static str,
    path: String,
    token: String,
    key: Option<String>,
    body: Option<Value>,
}

#[derive(Clone, Debug)]
enum Operation {
    Join,
    Poll,
    Leave {
        ticket: usize,
    },
    Reserve {
        ticket: usize,
        session: i64,
        seats: Vec<i64>,
    },
    Pay {
        reservation: usize,
    },
    Cancel {
        reservation: usize,
    },
    Charge {
        user: i64,
        amount: i64,
    },
    Issue {
        tokens: Vec<String>,
        user: i64,
        activated: bool,
    },
    /// A keyed request again, which must get its first answer.
    Again {
        first: String,
    },
    /// A request that must be refused with this code.
    Refused {
        status: u16,
        code: &'static str,
    },
}

/// What all clients share.
struct World {
    admin_token: String,
    /// Every number that a token told, whoever got it.
    numbers: Mutex<HashMap<u64, String>>,
    /// What is wrong; looked at once a round, so that one report has all of it.
    wrong: Mutex<Vec<String>>,
    seats_from: AtomicU64,
    acknowledged: AtomicU64,
    compared: AtomicU64,
    outcomes_found: AtomicU64,
}

impl World {
    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    fn expect(&self, holds: bool, what: impl FnOnce() -> String) {
        self.compared.fetch_add(1, Ordering::Relaxed);
        if !holds {
            self.wrong(what());
        }
    }
}

/// A client, its users, and what it knows.
struct Fan {
    number: usize,
    rng: Rng,
    keys: u64,
    tickets: Vec<Ticket>,
    reservations: Vec<Reservation>,
    /// Reservations that changed in this round.
    touched: Vec<usize>,
    balances: BTreeMap<i64, i64>,
    /// (amount, balance afterwards) of each charge, by user.
    charges: BTreeMap<i64, Vec<(i64, i64)>>,
    keyed: Vec<(Sent, String)>,
    /// The operation whose answer did not come.
    pending: Option<(Sent, Operation)>,
    /// What each seat costs.
    prices: Arc<HashMap<i64, i64>>,
}

impl Fan {
    fn new(number: usize, seed: u64, prices: Arc<HashMap<i64, i64>>) -> Self {
        let first = 1 + i64::try_from(number).unwrap() * USERS_PER_CLIENT;
        Self {
            number,
            rng: Rng(seed),
            keys: 0,
            tickets: Vec::new(),
            reservations: Vec::new(),
            touched: Vec::new(),
            balances: (first..first + USERS_PER_CLIENT).map(|user| (user, POINTS)).collect(),
            charges: BTreeMap::new(),
            keyed: Vec::new(),
            pending: None,
            prices,
        }
    }

    fn some_user(&mut self) -> i64 {
        let users: Vec<i64> = self.balances.keys().copied().collect();
        *self.rng.pick(&users).unwrap()
    }

    fn some_ticket(&mut self, wanted: impl Fn(&Ticket) -> bool) -> Option<usize> {
        let found: Vec<usize> =
            (0..self.tickets.len()).filter(|index| wanted(&self.tickets[*index])).collect();
        self.rng.pick(&found).copied()
    }

    /// Six of ten requests that may have a key have one.
    fn some_key(&mut self) -> Option<String> {
        self.keys += 1;
        self.rng.percent(60).then(|| format!("k-{}-{}", self.number, self.keys))
    }

    fn waiting(&self) -> usize {
        self.tickets.iter().filter(|ticket| matches!(ticket.place, Place::Waiting(_))).count()
    }

    /// Sends requests until one is not answered.
    fn load(&mut self, address: SocketAddr, world: &World) {
        let mut client = Client::new(address);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let Some((sent, operation)) = self.choose(world) else { continue };
            match send(&mut client, &sent) {
                Ok(answer) => self.learn(world, &sent, operation, &answer),
                Err(_) => {
                    self.pending = Some((sent, operation));
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(self.rng.below(12)));
        }
        world.wrong(format!("client {} was not interrupted", self.number));
    }

    fn choose(&mut self, world: &World) -> Option<(Sent, Operation)> {
        let request = |method, path: String, token: &str| Sent {
            method,
            path,
            token: token.to_owned(),
            key: None,
            body: None,
        };
        const QUEUE: &str = "/api/v1/waiting-queues";
        match self.rng.below(100) {
            0..22 if self.waiting() < WAITING_MAX => {
                let body = Some(json!({ "userId": self.some_user() }));
                Some((Sent { body, ..request("POST", QUEUE.into(), "") }, Operation::Join))
            }
            0..40 => {
                let ticket = self.some_ticket(|ticket| ticket.place != Place::Spent)?;
                let token = &self.tickets[ticket].token;
                // Which ticket it was is found again by the token.
                Some((request("GET", QUEUE.into(), token), Operation::Poll))
            }
            40..45 => {
                let ticket = self.some_ticket(|ticket| ticket.place != Place::Spent)?;
                let token = &self.tickets[ticket].token;
                Some((request("DELETE", QUEUE.into(), token), Operation::Leave { ticket }))
            }
            45..68 => {
                let ticket = self.some_ticket(|ticket| ticket.place == Place::Activated)?;
                let from = world.seats_from.load(Ordering::Relaxed);
                let count = 1 + self.rng.index(4);
                let mut seats = Vec::new();
                let mut session = 0;
                while seats.len() < count {
                    let at = (from + self.rng.below(WINDOW)) % (SESSIONS * SEATS_PER_SESSION);
                    let its_session = i64::try_from(1 + at / SEATS_PER_SESSION).unwrap();
                    let seat = i64::try_from(1 + at).unwrap();
                    if seats.is_empty() {
                        session = its_session;
                    }
                    if its_session != session || seats.contains(&seat) {
                        break;
                    }
                    seats.push(seat);
                }
                let Ticket { token, user, .. } = &self.tickets[ticket];
                let path = format!("/api/v1/concerts/{CONCERT}/sessions/{session}/reservations");
                let body = Some(json!({ "userId": user, "seatIds": seats }));
                let sent = Sent { body, ..request("POST", path, token) };
                let sent = Sent { key: self.some_key(), ..sent };
                Some((sent, Operation::Reserve { ticket, session, seats }))
            }
            68..80 => {
                let held: Vec<usize> = (0..self.reservations.len())
                    .filter(|index| {
                        let it = &self.reservations[*index];
                        it.state == State::Held && self.tickets[it.ticket].place == Place::Activated
                    })
                    .collect();
                let reservation = *self.rng.pick(&held)?;
                let Reservation { id, user, ticket, .. } = self.reservations[reservation];
                let body = Some(json!({ "userId": user, "reservationId": id }));
                let token = &self.tickets[ticket].token;
                let sent = Sent { body, ..request("POST", "/api/v1/payments".into(), token) };
                let sent = Sent { key: self.some_key(), ..sent };
                Some((sent, Operation::Pay { reservation }))
            }
            80..85 => {
                let held: Vec<usize> = (0..self.reservations.len())
                    .filter(|index| self.reservations[*index].state == State::Held)
                    .collect();
                let reservation = *self.rng.pick(&held)?;
                let Reservation { id, ticket, .. } = self.reservations[reservation];
                let path = format!("/api/v1/reservations/{id}");
                let token = &self.tickets[ticket].token;
                Some((request("DELETE", path, token), Operation::Cancel { reservation }))
            }
            85..91 => {
                let user = self.some_user();
                let amount = 1 + i64::try_from(self.rng.below(500)).unwrap();
                let path = format!("/api/v1/users/{user}/points/charge");
                let body = Some(json!({ "amount": amount }));
                let sent = Sent { body, key: self.some_key(), ..request("PATCH", path, "") };
                Some((sent, Operation::Charge { user, amount }))
            }
            91..94 => {
                let user = self.some_user();
                self.keys += 1;
                let activated = self.rng.percent(50);
                let format = format!("opaque-{}-{}-{{n}}", self.number, self.keys);
                let tokens = (1..=3).map(|n| format.replace("{n}", &n.to_string())).collect();
                let body = json!({
                    "count": 3, "format": format, "activated": activated, "guessable": true, "userId": user,
                });
                let sent = Sent {
                    body: Some(body),
                    ..request("POST", "/admin/v1/tokens".into(), &world.admin_token)
                };
                Some((sent, Operation::Issue { tokens, user, activated }))
            }
            94..97 => {
                let (sent, first) = self.rng.pick(&self.keyed)?.clone();
                Some((sent, Operation::Again { first }))
            }
            97 => {
                // Tokens that exist: nothing may change, for nobody in the line either.
                let ticket = self.some_ticket(|ticket| ticket.token.starts_with("opaque"))?;
                let token = &self.tickets[ticket].token;
                let format = format!("{}-{{n}}", token.rsplit_once('-')?.0);
                let body = Some(json!({ "count": 3, "format": format }));
                let sent =
                    Sent { body, ..request("POST", "/admin/v1/tokens".into(), &world.admin_token) };
                Some((sent, Operation::Refused { status: 409, code: "ALREADY_EXISTS" }))
            }
            _ => {
                let ticket = self.some_ticket(|ticket| ticket.place == Place::Spent)?;
                let Ticket { token, user, .. } = &self.tickets[ticket];
                let path = format!("/api/v1/concerts/{CONCERT}/sessions/1/reservations");
                let body = Some(json!({ "userId": user, "seatIds": [1] }));
                let sent = Sent { body, ..request("POST", path, token) };
                Some((sent, Operation::Refused { status: 403, code: "TOKEN_SPENT" }))
            }
        }
    }

    /// Takes an acknowledged answer into the model.
    fn learn(&mut self, world: &World, sent: &Sent, operation: Operation, answer: &Answer) {
        world.acknowledged.fetch_add(1, Ordering::Relaxed);
        let odd = || format!("{sent:?} was answered {answer:?}");
        if answer.status == 503 {
            // It says that nothing happened, and the tables will show whether that is true.
            return;
        }
        if sent.key.is_some()
            && answer.status < 300
            && !matches!(operation, Operation::Again { .. })
        {
            self.keyed.push((sent.clone(), answer.body.clone()));
        }
        match operation {
            Operation::Join if answer.status == 201 => self.joined(world, sent, &answer.json()),
            Operation::Poll if answer.status == 200 => {
                let ticket =
                    self.tickets.iter().position(|ticket| ticket.token == sent.token).unwrap();
                self.seen(world, ticket, &answer.json());
            }
            Operation::Leave { ticket } if answer.status == 204 => {
                self.tickets[ticket].place = Place::Spent;
            }
            Operation::Reserve { ticket, session, seats } if answer.status == 201 => {
                let body = answer.json();
                let told: Vec<i64> = body["reservedSeats"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|seat| seat["seatId"].as_i64().unwrap())
                    .collect();
                let total: i64 = seats.iter().map(|seat| self.prices[seat]).sum();
                world.expect(told == seats && body["totalPrice"] == total, odd);
                let expires_at = body["expiresAt"].as_str().map(str::to_owned);
                let id = body["reservationId"].as_i64().unwrap();
                self.reserved(id, ticket, session, seats, expires_at);
            }
            Operation::Reserve { .. } if answer.code() == "SEAT_TAKEN" => {
                // Now and then everybody moves on, so that there is something to get.
                if self.rng.percent(12) {
                    world.seats_from.fetch_add(2, Ordering::Relaxed);
                }
            }
            Operation::Pay { reservation } if answer.status == 201 => {
                let body = answer.json();
                let due = self.total(reservation);
                let id = body["reservationId"].as_i64();
                let same = id == Some(self.reservations[reservation].id);
                world.expect(same && body["paymentAmount"] == due, odd);
                self.paid(reservation, body["paymentId"].as_i64().unwrap());
            }
            Operation::Cancel { reservation } if answer.status == 204 => {
                self.reservations[reservation].state = State::Cancelled;
                self.touched.push(reservation);
            }
            Operation::Charge { user, amount } if answer.status == 200 => {
                let balance = self.balances[&user] + amount;
                world.expect(answer.json()["totalAmount"] == balance, odd);
                self.charged(user, amount);
            }
            Operation::Issue { tokens, user, activated } if answer.status == 201 => {
                self.issued(tokens, user, activated);
            }
            Operation::Again { first } => {
                let same = answer.body == first && (200..300).contains(&answer.status);
                world.expect(same, || format!("{sent:?} was answered {first} and now {answer:?}"));
            }
            Operation::Refused { status, code } => {
                world.expect(answer.status == status && answer.code() == code, odd);
            }
            other => world.wrong(format!("{other:?}: {}", odd())),
        }
    }

    fn joined(&mut self, world: &World, sent: &Sent, body: &Value) {
        let token = body["token"].as_str().unwrap().to_owned();
        let seq = seq_of(&token).unwrap();
        if let Some(other) = world.numbers.lock().unwrap().insert(seq, token.clone()) {
            world.wrong(format!("the number {seq} was given twice: {other} and {token}"));
        }
        let user = sent.body.as_ref().unwrap()["userId"].as_i64().unwrap();
        self.tickets.push(Ticket { token, user, place: Place::Waiting(u64::MAX) });
        self.seen(world, self.tickets.len() - 1, body);
    }

    /// Compares a status with what the ticket's owner was told before.
    fn seen(&mut self, world: &World, ticket: usize, body: &Value) {
        let ticket = &mut self.tickets[ticket];
        let number = body["waitingNumber"].as_u64().unwrap();
        let now = match body["status"].as_str().unwrap() {
            "WAITING" => Place::Waiting(number),
            "ACTIVATED" => Place::Activated,
            _ => Place::Spent,
        };
        let follows = match (ticket.place, now) {
            (Place::Waiting(before), Place::Waiting(number)) => number <= before && number > 0,
            (before, now) => {
                number == 0
                    && (before == now
                        || matches!((before, now), (Place::Waiting(_), Place::Activated)))
            }
        };
        world.expect(follows, || format!("{ticket:?} became {body}"));
        if follows {
            ticket.place = now;
        }
    }

    fn total(&self, reservation: usize) -> i64 {
        self.reservations[reservation].seats.iter().map(|seat| self.prices[seat]).sum()
    }

    fn reserved(
        &mut self,
        id: i64,
        ticket: usize,
        session: i64,
        seats: Vec<i64>,
        expires_at: Option<String>,
    ) {
        let user = self.tickets[ticket].user;
        self.touched.push(self.reservations.len());
        let state = State::Held;
        self.reservations.push(Reservation { id, user, ticket, session, seats, state, expires_at });
    }

    fn paid(&mut self, reservation: usize, payment: i64) {
        let total = self.total(reservation);
        let it = &mut self.reservations[reservation];
        it.state = State::Paid(payment);
        *self.balances.get_mut(&it.user).unwrap() -= total;
        self.tickets[it.ticket].place = Place::Spent;
        self.touched.push(reservation);
    }

    fn charged(&mut self, user: i64, amount: i64) {
        let balance = self.balances.get_mut(&user).unwrap();
        *balance += amount;
        self.charges.entry(user).or_default().push((amount, *balance));
    }

    fn issued(&mut self, tokens: Vec<String>, user: i64, activated: bool) {
        let place = if activated { Place::Activated } else { Place::Waiting(u64::MAX) };
        self.tickets.extend(tokens.into_iter().map(|token| Ticket { token, user, place }));
    }

    /// Finds out what became of the operation that was not answered.
    fn find_outcome(&mut self, client: &mut Client, world: &World, store: &Connection) {
        let Some((sent, operation)) = self.pending.take() else { return };
        world.outcomes_found.fetch_add(1, Ordering::Relaxed);
        let mut again = |sent: &Sent| send(client, sent).unwrap();
        let odd = |answer: &Answer| format!("{sent:?}, retried, was answered {answer:?}");
        match operation {
            // A number that nobody was told is nobody's; a poll, and what is refused, do nothing.
            Operation::Join | Operation::Poll | Operation::Again { .. } => {}
            Operation::Refused { .. } => {}
            Operation::Leave { ticket } => {
                let answer = again(&sent);
                world.expect(answer.status == 204, || odd(&answer));
                self.tickets[ticket].place = Place::Spent;
            }
            Operation::Cancel { reservation } => {
                let answer = again(&sent);
                let gone = answer.status == 204 || answer.code() == "HOLD_CANCELLED";
                world.expect(gone, || odd(&answer));
                self.reservations[reservation].state = State::Cancelled;
                self.touched.push(reservation);
            }
            Operation::Issue { tokens, user, activated } => {
                let answer = again(&sent);
                let there = answer.status == 201 || answer.code() == "ALREADY_EXISTS";
                world.expect(there, || odd(&answer));
                self.issued(tokens, user, activated);
            }
            Operation::Reserve { ticket, session, seats } if sent.key.is_none() => {
                // There is at most one reservation of this client that it does not know.
                for (id, stored) in stored_reservations(store, Some(self.tickets[ticket].user)) {
                    if self.reservations.iter().any(|it| it.id == id) {
                        continue;
                    }
                    let same = stored.session == session
                        && stored.seats == seats
                        && self.touched.iter().all(|index| self.reservations[*index].id != id);
                    world.expect(same, || format!("{sent:?} may have made {stored:?}"));
                    self.reserved(id, ticket, session, seats.clone(), None);
                }
            }
            Operation::Pay { reservation } if sent.key.is_none() => {
                let id = self.reservations[reservation].id;
                let all = stored_reservations(store, Some(self.reservations[reservation].user));
                if let Some(payment) = all.get(&id).and_then(|stored| stored.payment) {
                    self.paid(reservation, payment);
                }
            }
            Operation::Charge { user, amount } if sent.key.is_none() => {
                let balance = balance_of(store, user);
                if balance != self.balances[&user] {
                    self.charged(user, amount);
                }
                let ours = self.balances[&user];
                world.expect(balance == ours, || format!("{sent:?} led to {balance}, not {ours}"));
            }
            Operation::Reserve { .. } | Operation::Pay { .. } | Operation::Charge { .. } => {
                let answer = again(&sent);
                if answer.status < 300 {
                    let twice = again(&sent);
                    let same = answer.status == twice.status && answer.body == twice.body;
                    world.expect(same, || format!("{}, then {twice:?}", odd(&answer)));
                }
                self.learn(world, &sent, operation, &answer);
            }
        }
    }

    /// Asks the service about the tickets held and about what this round changed.
    fn compare(&mut self, client: &mut Client, world: &World) {
        let mut all: Vec<usize> = (0..self.tickets.len()).collect();
        // Those that are spent only grow in number; a sample each round sees most of them.
        all.retain(|index| {
            let spent = self.tickets[*index].place == Place::Spent;
            !spent || self.rng.percent(15)
        });
        for index in all {
            self.poll(client, world, index);
        }
        for index in std::mem::take(&mut self.touched) {
            self.show(client, world, index);
        }
    }

    fn poll(&mut self, client: &mut Client, world: &World, index: usize) {
        let headers = [("QUEUE-TOKEN", self.tickets[index].token.as_str())];
        let answer = client.send("GET", "/api/v1/waiting-queues", &headers, None).unwrap();
        if answer.status == 200 {
            self.seen(world, index, &answer.json());
        } else {
            world.wrong(format!("{:?} was answered {answer:?}", self.tickets[index]));
        }
    }

    fn show(&self, client: &mut Client, world: &World, index: usize) {
        let it = &self.reservations[index];
        let headers = [("QUEUE-TOKEN", self.tickets[it.ticket].token.as_str())];
        let path = format!("/api/v1/reservations/{}", it.id);
        let answer = client.send("GET", &path, &headers, None).unwrap();
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let (status, payment) = match it.state {
            State::Held => ("HELD", Value::Null),
            State::Paid(payment) => ("PAID", json!(payment)),
            State::Cancelled => ("CANCELLED", Value::Null),
        };
        let seats: Vec<i64> = body["reservedSeats"]
            .as_array()
            .map(|seats| seats.iter().filter_map(|seat| seat["seatId"].as_i64()).collect())
            .unwrap_or_default();
        let same = body["status"] == status
            && body["paymentId"] == payment
            && body["userId"] == it.user
            && body["totalPrice"] == self.total(index)
            && seats == it.seats
            && it.expires_at.as_ref().is_none_or(|at| body["expiresAt"] == *at);
        world.expect(same, || format!("{it:?} is now {answer:?}"));
    }
}

fn send(client: &mut Client, sent: &Sent) -> io::Result<Answer> {
    let bearer = format!("Bearer {}", sent.token);
    let mut headers = Vec::new();
    if sent.path.starts_with("/admin/") {
        headers.push(("Authorization", bearer.as_str()));
    } else if !sent.token.is_empty() {
        headers.push(("QUEUE-TOKEN", sent.token.as_str()));
    }
    headers.extend(sent.key.as_deref().map(|key| ("Idempotency-Key", key)));
    client.send(sent.method, &sent.path, &headers, sent.body.as_ref())
}

// ---- The store, read beside the service.

fn open(data: &Path) -> Connection {
    let file = SqliteStore::file(data);
    let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection
}

#[derive(Debug, PartialEq)]
struct Stored {
    user: i64,
    session: i64,
    seats: Vec<i64>,
    total: i64,
    state: i64,
    payment: Option<i64>,
}

fn stored_reservations(store: &Connection, user: Option<i64>) -> BTreeMap<i64, Stored> {
    let mut statement = store
        .prepare_cached(
            "SELECT id, user_id, session_id, items, total, state, payment_id FROM reservation \
             WHERE ?1 IS NULL OR user_id = ?1",
        )
        .unwrap();
    let rows = statement.query_map([user], |row| {
        let items: Vec<(i64, i64, i64)> = serde_json::from_str(&row.get::<_, String>(3)?).unwrap();
        let seats = items.iter().map(|item| item.0).collect();
        let (user, session) = (row.get(1)?, row.get(2)?);
        let (total, state, payment) = (row.get(4)?, row.get(5)?, row.get(6)?);
        Ok((row.get(0)?, Stored { user, session, seats, total, state, payment }))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// What each seat costs.
fn prices(store: &Connection) -> HashMap<i64, i64> {
    let mut statement = store.prepare("SELECT id, price FROM seat").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn balance_of(store: &Connection, user: i64) -> i64 {
    let sql = "SELECT balance FROM account WHERE user_id = ?1";
    store.query_row(sql, [user], |row| row.get(0)).unwrap()
}

/// Rows that the models do not have, and rows of the models that are not there.
#[derive(Default)]
struct Difference {
    lost: u64,
    doubled: u64,
}

/// Compares whole tables with all models together.
fn compare_tables(store: &Connection, fans: &[Fan], world: &World) -> Difference {
    let mut difference = Difference::default();
    let mut stored = stored_reservations(store, None);
    let mut statement =
        store.prepare_cached("SELECT id, reservation_id, user_id, amount FROM payment").unwrap();
    let mut payments: HashMap<i64, (i64, i64, i64)> = statement
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let mut statement = store
        .prepare_cached(
            "SELECT user_id, amount, balance FROM points_entry WHERE kind = 1 ORDER BY id",
        )
        .unwrap();
    let mut charges: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))));
    for row in rows.unwrap() {
        let (user, entry) = row.unwrap();
        charges.entry(user).or_default().push(entry);
    }
    for fan in fans {
        for (index, it) in fan.reservations.iter().enumerate() {
            let (state, payment) = match it.state {
                State::Held => (0, None),
                State::Paid(payment) => (1, Some(payment)),
                State::Cancelled => (2, None),
            };
            let (session, total) = (it.session, fan.total(index));
            let seats = it.seats.clone();
            let ours = Stored { user: it.user, session, seats, total, state, payment };
            let theirs = stored.remove(&it.id);
            let same = theirs.as_ref() == Some(&ours);
            difference.lost += u64::from(!same);
            world.expect(same, || format!("{it:?} is stored as {theirs:?}"));
            if let Some(payment) = payment {
                let theirs = payments.remove(&payment);
                let same = theirs == Some((it.id, it.user, total));
                difference.lost += u64::from(!same);
                world.expect(same, || format!("the payment of {it:?} is stored as {theirs:?}"));
            }
        }
        for (user, balance) in &fan.balances {
            let stored = balance_of(store, *user);
            world.expect(stored == *balance, || format!("user {user}: {stored}, not {balance}"));
            let ours = fan.charges.get(user).cloned().unwrap_or_default();
            let theirs = charges.remove(user).unwrap_or_default();
            difference.lost += ours.len().saturating_sub(theirs.len()) as u64;
            difference.doubled += theirs.len().saturating_sub(ours.len()) as u64;
            world.expect(ours == theirs, || format!("charges of {user}: {theirs:?}, not {ours:?}"));
        }
    }
    let extra = stored.len() + payments.len() + charges.values().map(Vec::len).sum::<usize>();
    difference.doubled += extra as u64;
    world.expect(extra == 0, || {
        format!("nobody was told of {stored:?}, payments {payments:?}, charges {charges:?}")
    });
    difference
}

/// The events file, read as it grows.
#[derive(Default)]
struct Events {
    read: usize,
    ids: HashSet<String>,
    last_outbox_id: i64,
}

impl Events {
    /// Waits until the relay has carried everything away, and checks what came.
    fn follow(&mut self, data: &Path, store: &Connection, world: &World) {
        let waiting = || -> i64 {
            store.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap()
        };
        program::wait_until("the outbox is empty", || waiting() == 0);
        let text = std::fs::read_to_string(data.join("events.jsonl")).unwrap();
        if text.len() < self.read {
            world.wrong(format!("the events shrank from {} to {}", self.read, text.len()));
            self.read = 0;
        }
        for line in text[self.read..].lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let id = line["event"]["id"].as_str().unwrap().to_owned();
            let outbox_id = line["outboxId"].as_i64().unwrap();
            world.expect(outbox_id > self.last_outbox_id, || {
                format!("event {outbox_id} came after {}", self.last_outbox_id)
            });
            self.last_outbox_id = outbox_id;
            if !self.ids.insert(id.clone()) {
                world.wrong(format!("the event {id} is there twice"));
            }
        }
        self.read = text.len();
    }

    /// Compares the events with the models.
    fn compare(&self, fans: &[Fan], world: &World) {
        let mut expected = 0;
        let mut expect = |id: String| {
            expected += 1;
            world.expect(self.ids.contains(&id), || format!("there is no event {id}"));
        };
        let mut charges = 0;
        for fan in fans {
            for it in &fan.reservations {
                expect(format!("reserved-{}", it.id));
                match it.state {
                    State::Held => {}
                    State::Paid(payment) => expect(format!("paid-{payment}")),
                    State::Cancelled => expect(format!("cancelled-{}", it.id)),
                }
            }
            charges += fan.charges.values().map(Vec::len).sum::<usize>();
        }
        // An entry's id is not told to anybody, so charges are counted.
        let found = self.ids.iter().filter(|id| id.starts_with("charged-")).count();
        world.expect(found == charges, || format!("{found} events of {charges} charges"));
        let all = self.ids.len();
        world.expect(all == expected + charges, || {
            format!("{all} events of {expected} effects and {charges} charges")
        });
    }
}

/// The signed head of the admission log, if the service still answers.
fn head_of_the_log(address: std::net::SocketAddr) -> Option<String> {
    let mut client = Client::new(address);
    let answer = client.send("GET", "/api/v1/waiting-queues/main/log?limit=1", &[], None).ok()?;
    Some(answer.json()["head"]["signed"].as_str()?.to_owned())
}

#[test]
fn whatever_was_acknowledged_outlives_kill_9() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("BOXOFFICE_TEST_CRASH_ROUNDS").unwrap_or(50);
    let seed = number("BOXOFFICE_TEST_CRASH_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        now.as_nanos() as u64 % 1_000_000_007
    });
    println!("BOXOFFICE_TEST_CRASH_SEED={seed} repeats the choices, though not their timing");
    let mut rng = Rng(seed);
    let directory = tempfile::tempdir().unwrap();
    let data = &directory.path().join("data");
    let began = Instant::now();

    let mut server = Server::start(data, &SETTINGS);
    let world = World {
        admin_token: server.admin_token(),
        numbers: Mutex::default(),
        wrong: Mutex::default(),
        seats_from: AtomicU64::new(0),
        acknowledged: AtomicU64::new(0),
        compared: AtomicU64::new(0),
        outcomes_found: AtomicU64::new(0),
    };
    let prices = Arc::new(prices(&open(data)));
    let mut fans: Vec<Fan> =
        (0..CLIENTS).map(|number| Fan::new(number, rng.next(), prices.clone())).collect();
    for fan in &mut fans {
        let user = fan.some_user();
        let format = format!("opaque-{}-first-{{n}}", fan.number);
        let count = "40";
        let user_text = user.to_string();
        let arguments =
            ["token", "issue", "--activated", "--guessable", "--count", count, "--format", &format];
        run(data, &[&arguments[..], &["--user", &user_text]].concat()).ok();
        let tokens = (1..=40).map(|n| format.replace("{n}", &n.to_string())).collect();
        fan.issued(tokens, user, true);
    }
    let mut events = Events::default();
    let mut total = Difference::default();
    let (mut kills, mut slowest) = (0, Duration::ZERO);
    // Heads of the admission log that somebody kept, a moment before each kill.
    let mut heads = Vec::new();

    for round in 1..=rounds {
        let address = server.address();
        std::thread::scope(|scope| {
            for fan in &mut fans {
                scope.spawn(|| fan.load(address, &world));
            }
            std::thread::sleep(Duration::from_millis(40 + rng.below(560)));
            if rng.percent(12) {
                // In the middle of an end in good order.
                server.signal(rustix::process::Signal::TERM);
                std::thread::sleep(Duration::from_millis(rng.below(60)));
            }
            heads.extend(head_of_the_log(address));
            server.kill();
        });
        kills += 1;
        if rng.percent(15) {
            // In the middle of a start.
            let mut command = program::command(directory.path());
            command.env("RUST_BACKTRACE", "1");
            let mut early = Server::spawn(command, data, &SETTINGS);
            std::thread::sleep(Duration::from_millis(rng.below(250)));
            early.kill();
            kills += 1;
        }
        if round % 10 == 0 {
            // At rest, which is also the first to open what the kill left behind.
            run(data, &["audit"]).ok();
        }

        let starting = Instant::now();
        server = Server::start(data, &SETTINGS);
        slowest = slowest.max(starting.elapsed());
        let address = server.address();
        std::thread::scope(|scope| {
            for fan in &mut fans {
                scope.spawn(|| {
                    let mut client = Client::new(address);
                    fan.find_outcome(&mut client, &world, &open(data));
                    fan.compare(&mut client, &world);
                });
            }
        });
        let store = open(data);
        let difference = compare_tables(&store, &fans, &world);
        total.lost += difference.lost;
        total.doubled += difference.doubled;
        events.follow(data, &store, &world);
        events.compare(&fans, &world);
        drop(store);
        let audit = run(data, &["audit"]);
        world.expect(audit.code == Some(0), || format!("the audit says {audit:?}"));

        let wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
        assert!(
            wrong.is_empty(),
            "seed {seed}, round {round}: {} things are wrong, such as\n{}\nlog:\n{}",
            wrong.len(),
            wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n"),
            server.log()
        );
    }

    // Once more all that was ever ended, and the numbers of the opaque tokens in the line, which
    // only the store tells.
    let mut client = server.client();
    for fan in &mut fans {
        for index in 0..fan.tickets.len() {
            fan.poll(&mut client, &world, index);
        }
        for index in 0..fan.reservations.len() {
            fan.show(&mut client, &world, index);
        }
    }
    let store = open(data);
    let mut statement =
        store.prepare("SELECT seq, token FROM alias WHERE active_until IS NULL").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
    for row in rows.unwrap() {
        let (seq, token): (i64, String) = row.unwrap();
        let seq = u64::try_from(seq).unwrap();
        if let Some(other) = world.numbers.lock().unwrap().insert(seq, token.clone()) {
            world.wrong(format!("the number {seq} was given twice: {other} and {token}"));
        }
    }
    drop(statement);
    drop(store);
    server.stop();
    let export = directory.path().join("main.log").to_str().unwrap().to_owned();
    run(data, &["log", "export", &export]).ok();
    let kept = heads.iter().flat_map(|head| ["--head", head.as_str()]);
    let verdict = run(data, &["verify", &export].into_iter().chain(kept).collect::<Vec<_>>());
    assert_eq!(verdict.code, Some(0), "seed {seed}: {verdict:?}");
    assert!(heads.len() as u64 > rounds / 2, "{} heads of {rounds} rounds", heads.len());
    run(data, &["audit"]).ok();
    let wrong = std::mem::take(&mut *world.wrong.lock().unwrap());
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");

    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let reservations: Vec<&Reservation> = fans.iter().flat_map(|fan| &fan.reservations).collect();
    let paid = reservations.iter().filter(|it| matches!(it.state, State::Paid(_))).count();
    let spent = fans.iter().flat_map(|fan| &fan.tickets).filter(|t| t.place == Place::Spent);
    println!(
        "seed {seed}: {rounds} rounds, {kills} kills in {:.0} s, slowest start {slowest:.2?}; \
         {} operations acknowledged, {} comparisons, {} open ones settled; {} reservations, {paid} \
         payments, {} charges, {} numbers, {} spent tickets, {} events; lost {}, doubled {}",
        began.elapsed().as_secs_f64(),
        count(&world.acknowledged),
        count(&world.compared),
        count(&world.outcomes_found),
        reservations.len(),
        fans.iter().flat_map(|fan| fan.charges.values()).map(Vec::len).sum::<usize>(),
        world.numbers.lock().unwrap().len(),
        spent.count(),
        events.ids.len(),
        total.lost,
        total.doubled,
    );
    assert_eq!((total.lost, total.doubled), (0, 0));
    // A load that did next to nothing would prove next to nothing.
    assert!(paid as u64 > rounds && reservations.len() as u64 > 4 * rounds, "too little load");
}
