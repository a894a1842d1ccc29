//! Things to sell, and people who buy.

use serde_json::{Value, json};
use testbed::http::clip;
use testbed::{Instance, InstanceOptions};

use super::swarm::request;
use super::{Checks, QUEUES, wait_until};
use crate::report::in_days;

/// The seats of a session.
#[derive(Clone, Debug)]
pub(super) struct Hall {
    session: String,
    pub(super) first_seat: u64,
    pub(super) seat_count: usize,
}

impl Hall {
    pub(super) fn reservations(&self) -> String {
        format!("{}/reservations", self.session)
    }

    pub(super) fn seats(&self) -> String {
        format!("{}/seats", self.session)
    }

    /// A request for a seat, counted from the first.
    pub(super) fn reserving(&self, buyer: &Buyer, seat: usize, key: Option<&str>) -> Vec<u8> {
        let mut headers = vec![("QUEUE-TOKEN", buyer.token.as_str())];
        headers.extend(key.map(|key| ("Idempotency-Key", key)));
        request("POST", &self.reservations(), &headers, Some(&self.wanted(buyer, seat)))
    }

    fn wanted(&self, buyer: &Buyer, seat: usize) -> Value {
        json!({"userId": buyer.user, "seatIds": [self.first_seat + seat as u64]})
    }
}

/// A user whom the line has let in.
#[derive(Clone, Debug)]
pub(super) struct Buyer {
    pub(super) user: u64,
    pub(super) token: String,
}

/// A reservation that was made.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: Value,
    pub(super) ends: jiff::Timestamp,
}

impl Buyer {
    /// A request that pays for a reservation.
    pub(super) fn paying(&self, held: &Held) -> Vec<u8> {
        let headers = [("QUEUE-TOKEN", self.token.as_str())];
        request("POST", "/api/v1/payments", &headers, Some(&self.payment(held)))
    }

    fn payment(&self, held: &Held) -> Value {
        json!({"userId": self.user, "reservationId": held.id})
    }

    /// A request that adds points.
    pub(super) fn charging(&self, amount: u64) -> Vec<u8> {
        request("PATCH", &self.charge_path(), &[], Some(&json!({"amount": amount})))
    }

    fn charge_path(&self) -> String {
        format!("/api/v1/users/{}/points/charge", self.user)
    }
}

/// Sends a request whose status must be the expected one. Returns its JSON.
pub(super) fn call(
    instance: &Instance,
    expected: u16,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Result<Value, String> {
    let headers: Vec<(&str, &str)> = token.into_iter().map(|it| ("QUEUE-TOKEN", it)).collect();
    let reply = instance.request(method, path, &headers, body)?;
    if reply.status != expected {
        return Err(format!(
            "{method} {path} on {}: {} instead of {expected}: {}",
            instance.label,
            reply.status,
            clip(&reply.body)
        ));
    }
    reply.json()
}

/// Holds a seat at an instance.
pub(super) fn hold(
    instance: &Instance,
    hall: &Hall,
    buyer: &Buyer,
    seat: usize,
) -> Result<Held, String> {
    let body = hall.wanted(buyer, seat);
    let path = hall.reservations();
    let made = call(instance, 201, "POST", &path, Some(&buyer.token), Some(&body))?;
    let ends = made["expiresAt"].as_str().and_then(|text| text.parse().ok());
    let ends = ends.ok_or_else(|| format!("a reservation without an end: {made}"))?;
    Ok(Held { id: made["reservationId"].clone(), ends })
}

/// Pays at an instance.
pub(super) fn pay(instance: &Instance, buyer: &Buyer, held: &Held) -> Result<(), String> {
    let body = buyer.payment(held);
    call(instance, 201, "POST", "/api/v1/payments", Some(&buyer.token), Some(&body)).map(drop)
}

/// Adds points at an instance.
pub(super) fn charge(instance: &Instance, buyer: &Buyer, amount: u64) -> Result<(), String> {
    let body = json!({"amount": amount});
    call(instance, 200, "PATCH", &buyer.charge_path(), None, Some(&body)).map(drop)
}

/// Returns the points of a buyer, as an instance says.
pub(super) fn balance(instance: &Instance, buyer: &Buyer) -> Result<i64, String> {
    let path = format!("/api/v1/users/{}/points", buyer.user);
    let said = call(instance, 200, "GET", &path, None, None)?;
    said["totalAmount"].as_i64().ok_or_else(|| format!("a balance without an amount: {said}"))
}

fn answers(instance: &Instance, path: &str, token: Option<&str>) -> Result<bool, String> {
    let headers: Vec<(&str, &str)> = token.into_iter().map(|it| ("QUEUE-TOKEN", it)).collect();
    Ok(instance.request("GET", path, &headers, None)?.status == 200)
}

impl Checks<'_> {
    pub(super) fn first(&self) -> &Instance {
        &self.cluster.instances[0]
    }

    pub(super) fn any(&mut self) -> &Instance {
        let index = self.random.usize(..self.cluster.instances.len());
        &self.cluster.instances[index]
    }

    /// One more instance on the same engines, with settings of its own, started when a path answers.
    pub(super) fn extra(
        &self,
        label: &str,
        until: &'static str,
        settings: &[(&str, &str)],
    ) -> Result<Instance, String> {
        let mut options = InstanceOptions::new(label);
        options.settings = self.cluster.settings.clone();
        options.until = until;
        let options =
            settings.iter().fold(options, |options, (name, value)| options.set(name, value));
        Instance::start(&self.cluster.directory, &options)
    }

    /// Waits until an instance after another answers a path.
    fn known(&self, what: &str, path: &str, token: Option<&str>) -> Result<(), String> {
        for instance in &self.cluster.instances {
            wait_until(&format!("{what} at {}", instance.label), || {
                answers(instance, path, token)
            })?;
        }
        Ok(())
    }

    /// Makes a queue; all instances know it afterwards.
    pub(super) fn queue(&self, name: &str, settings: &Value) -> Result<(), String> {
        let mut body = settings.clone();
        body["queue"] = name.into();
        self.first().admin("POST", "/admin/v1/queues", Some(&body))?;
        // The others read it from the store.
        self.known(&format!("queue {name}"), &format!("{QUEUES}/{name}"), None)
    }

    /// Makes a session of a new concert; all instances know it afterwards.
    pub(super) fn hall(&mut self, seats: u32, price: u32) -> Result<Hall, String> {
        let body = json!({
            "name": "Races", "venue": "Track",
            "reservationOpensAt": in_days(-1), "reservationClosesAt": in_days(30),
        });
        let concert = self.first().admin("POST", "/admin/v1/concerts", Some(&body))?;
        let concert = concert["concertId"].clone();
        let path = format!("/admin/v1/concerts/{concert}/sessions");
        let body = json!({"concertAt": in_days(60), "seatCount": seats, "price": price});
        let made = self.first().admin("POST", &path, Some(&body))?;
        let session = format!("/api/v1/concerts/{concert}/sessions/{}", made["sessionId"]);
        let first_seat = made["firstSeatId"].as_u64().ok_or("a session without a first seat")?;
        let hall = Hall { session, first_seat, seat_count: seats as usize };
        let buyers = self.buyers(1)?;
        self.known(&hall.session, &hall.seats(), Some(&buyers[0].token))?;
        Ok(hall)
    }

    /// Lets so many new users in past the line; all instances know them afterwards.
    pub(super) fn buyers(&mut self, count: usize) -> Result<Vec<Buyer>, String> {
        let first = 10_001 + self.buyers;
        self.buyers += count as u64;
        let body = json!({
            "count": count, "format": "racer-{n}", "activated": true, "guessable": true,
            "firstNumber": first,
        });
        self.first().admin("POST", "/admin/v1/tokens", Some(&body))?;
        let users = first..first + count as u64;
        let made: Vec<Buyer> =
            users.map(|user| Buyer { user, token: format!("racer-{user}") }).collect();
        let last = made.last().map(|buyer| buyer.token.as_str());
        self.known("tokens", QUEUES, last)?;
        Ok(made)
    }
}
