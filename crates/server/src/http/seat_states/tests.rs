use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use boxoffice_domain::ids::{ReservationId, SeatId};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const LONG: Timestamp = Timestamp(1_000_000);

pub(in crate::http) fn seats(count: usize) -> Vec<Seat> {
    let seat = |number: u32| Seat {
        id: SeatId::new(5_000 + i64::from(number)).unwrap(),
        number,
        price: 1,
        state: SeatState::Available,
    };
    (1..).take(count).map(seat).collect()
}

pub(in crate::http) fn state(kind: u8, until: Timestamp) -> SeatState {
    let reservation = ReservationId::new(1).unwrap();
    match kind {
        0 => SeatState::Available,
        1 => SeatState::Held { reservation, until },
        2 => SeatState::Sold { reservation },
        _ => SeatState::Released { until },
    }
}

/// What a client knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::http) struct Client {
    version: String,
    states: Vec<u8>,
}

impl Client {
    pub(in crate::http) fn of(json: &[u8]) -> Self {
        let mut client = Self::default();
        client.read(json);
        client
    }

    /// As a page does it.
    pub(in crate::http) fn read(&mut self, json: &[u8]) {
        let told: Value = serde_json::from_slice(json).unwrap();
        self.version = told["version"].as_str().unwrap().to_owned();
        if let Some(states) = told["states"].as_str() {
            let bytes = STANDARD.decode(states).unwrap();
            let count = told["count"].as_u64().unwrap() as usize;
            let state = |index: usize| bytes[index / 4] >> (index % 4 * 2) & 3;
            self.states = (0..count).map(state).collect();
            return;
        }
        for (name, state) in [("free", 0), ("held", 1), ("sold", 2)] {
            for seat in told[name].as_array().into_iter().flatten() {
                self.states[seat.as_u64().unwrap() as usize - 1] = state;
            }
        }
    }

    fn number(&self) -> u64 {
        self.version.rsplit_once('-').unwrap().1.parse().unwrap()
    }
}

fn text(told: &Told) -> Value {
    serde_json::from_slice(&told.bytes(Coding::Identity)).unwrap()
}

/// All states, after a look at the seats.
pub(in crate::http) fn looked(known: &mut Known, seats: &[Seat], now: Timestamp) -> Arc<Told> {
    known.take(seats, now);
    known.all()
}

#[test]
fn states_are_two_bits_from_the_lowest_on() {
    use State::{Free, Held, Sold};
    assert_eq!(packed(&[]), [0_u8; 0]);
    assert_eq!(packed(&[Held]), [0b01]);
    assert_eq!(packed(&[Free, Held, Sold, Held]), [0b01_10_01_00]);
    assert_eq!(packed(&[Sold, Free, Free, Free, Sold]), [0b10, 0b10]);
}

#[test]
fn all_states_are_told_with_the_ids() {
    let mut seats = seats(6);
    let ends = Timestamp(50);
    for (index, kind) in [0, 1, 2, 3].into_iter().enumerate() {
        seats[index].state = state(kind, ends);
    }
    // They were added later, and another session has the ids in between.
    for seat in &mut seats[4..] {
        seat.id = SeatId::new(seat.id.get() + 100).unwrap();
    }
    let mut known = Known::new();
    let told = text(&looked(&mut known, &seats, Timestamp(49)));
    let wanted = json!({
        "version": known.version(), "count": 6, "seatIds": [[1, 5001, 4], [5, 5105, 2]], "states": "ZAA=",
    });
    assert_eq!(told, wanted);
    assert_eq!(known.stale_at, Some(ends));
    // A hold that ran out is free, and so is what was given back.
    known.take(&seats, ends);
    assert_eq!(text(&known.since(1)), json!({"version": known.version(), "free": [2, 4]}));
    assert_eq!(known.stale_at, None);
}

#[test]
fn a_version_is_known_where_it_was_made() {
    let (mut known, mut other) = (Known::new(), Known::new());
    let mut seats = seats(5);
    known.take(&seats, LONG);
    other.take(&seats, LONG);
    let first = known.version();
    assert_eq!((known.number_of(&first), other.number_of(&first)), (Some(1), None));
    // Nothing new is no new version.
    known.take(&seats, LONG);
    assert_eq!(known.version(), first);
    assert_eq!(text(&known.since(1)), json!({"version": first}));
    seats[2].state = state(2, LONG);
    known.take(&seats, LONG);
    assert_ne!(known.version(), first);
    assert_eq!(text(&known.since(1)), json!({"version": known.version(), "sold": [3]}));
    // One that is yet to come is not known.
    assert!(text(&known.since(3))["states"].is_string());
    assert!(text(&known.since(0))["states"].is_string());
    let nonce = first.split_once('-').unwrap().0;
    for unknown in
        ["", "0", "-", "1", nonce, &format!("{nonce}-"), &format!("{nonce}-x"), "é-1", "\0"]
    {
        assert_eq!(known.number_of(unknown), None, "{unknown:?}");
    }
    assert_eq!(known.number_of(&format!("{nonce}-{}0", u64::MAX)), None);
}

#[test]
fn more_seats_are_told_with_all() {
    let mut known = Known::new();
    known.take(&seats(5), LONG);
    known.take(&seats(7), LONG);
    let told = text(&known.since(1));
    assert_eq!((&told["count"], &told["seatIds"]), (&json!(7), &json!([[1, 5001, 7]])));
    // Seats that are all the same are the shorter.
    known.take(&seats(2), LONG);
    assert_eq!(text(&known.since(2))["count"], 2);
}

#[test]
fn what_is_longer_than_all_is_not_kept() {
    let count = 2_000;
    let mut seats = seats(count);
    let mut known = Known::new();
    known.take(&seats, LONG);
    for step in 0..10_000 {
        seats[step * 7 % count].state = state((step % 3) as u8, Timestamp(i64::MAX));
        known.take(&seats, LONG);
        assert!(known.touched.len() <= count / TOUCHED_PART);
        assert!(
            known.touched.capacity() <= 4 * count / TOUCHED_PART,
            "{}",
            known.touched.capacity()
        );
    }
    let all = known.all().bytes(Coding::Identity).len();
    let oldest = known.complete_from;
    assert!(known.number - oldest > 100);
    let longest = known.since(oldest);
    assert_eq!(longest.from, oldest);
    assert!(longest.bytes(Coding::Identity).len() < 2 * all, "{all}");
    assert_eq!(known.since(oldest - 1).from, 0);
    // All at once are told as all.
    let before = known.number;
    seats.iter_mut().for_each(|seat| seat.state = SeatState::Available);
    known.take(&seats, LONG);
    assert_eq!((known.since(before).from, known.touched.len()), (0, 0));
}

#[test]
fn events_are_the_same_bytes_for_all() {
    let mut known = Known::new();
    let told = looked(&mut known, &seats(3), LONG);
    let event = String::from_utf8(told.event().to_vec()).unwrap();
    let version = known.version();
    let json = String::from_utf8(told.bytes(Coding::Identity).to_vec()).unwrap();
    assert_eq!(event, format!("event: seats\nid: {version}\ndata: {json}\n\n"));
    assert_eq!(told.event().as_ptr(), told.event().as_ptr());
    assert!(Arc::ptr_eq(&known.all(), &told));
    // What is short stays as it is.
    assert_eq!(told.coding(Coding::Gzip), Coding::Identity);
    let big = looked(&mut known, &seats(20_000), LONG);
    assert_eq!(big.coding(Coding::Gzip), Coding::Gzip);
    assert!(big.bytes(Coding::Gzip).len() < big.bytes(Coding::Identity).len() / 10);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to seats, and however long ago somebody was told of them.
    #[test]
    fn changes_since_any_version_lead_to_the_last(
        count in 1_usize..1_200,
        steps in prop::collection::vec(
            (prop::collection::vec((0_usize..1_200, 0_u8..4, 0_i64..90), 0..60), 0_i64..9), 1..40,
        ),
    ) {
        let mut seats = seats(count);
        let mut known = Known::new();
        let mut now = Timestamp(0);
        let mut clients = Vec::new();
        for (changes, passed) in steps {
            for (index, kind, until) in changes {
                seats[index % count].state = state(kind, Timestamp(now.0 + until));
            }
            now = Timestamp(now.0 + passed);
            let all = looked(&mut known, &seats, now);
            let client = Client::of(&all.bytes(Coding::Identity));
            let wanted: Vec<u8> = seats.iter().map(|seat| State::of(seat, now) as u8).collect();
            prop_assert_eq!(&client.states, &wanted);
            clients.push(client);
            // Some ask each time, some only at the end.
            let current = clients.last().unwrap().clone();
            for client in clients.iter().step_by(2) {
                let mut client = client.clone();
                client.read(&known.since(client.number()).bytes(Coding::Identity));
                prop_assert_eq!(&client, &current);
            }
        }
        let last = clients.last().unwrap().clone();
        for mut client in clients {
            client.read(&known.since(client.number()).bytes(Coding::Identity));
            prop_assert_eq!(&client, &last);
        }
    }
}
