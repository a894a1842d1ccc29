use boxoffice_domain::time::Timestamp;

use super::*;
use crate::http::coding::Coding;
use crate::http::seat_states::tests::{Client, looked, seats, state};
use crate::http::seat_states::{Known, Told};

fn event_of(told: &Told) -> Event {
    Event { from: told.from, upto: told.upto, bytes: told.event() }
}

fn data(event: &[u8]) -> &[u8] {
    let text = std::str::from_utf8(event).unwrap();
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    data.as_bytes()
}

/// Reads all that there is for somebody who knows a version, and returns how much that was.
fn read(client: &mut Client, mut version: u64, news: &News, all: &Told) -> (u64, usize) {
    let mut events = 0;
    loop {
        match news.after(version) {
            Next::Nothing => return (version, events),
            Next::Event(upto, event) => {
                assert!(upto > version);
                client.read(data(&event));
                version = upto;
            }
            Next::All => {
                client.read(data(&all.event()));
                version = all.upto;
            }
        }
        events += 1;
    }
}

#[test]
fn whoever_reads_and_whoever_does_not_ends_with_the_same() {
    let now = Timestamp(0);
    let mut seats = seats(400);
    let mut known = Known::new();
    let mut news = News::default();
    let first = looked(&mut known, &seats, now);
    let (mut told, mut version) = (first.upto, first.upto);
    let sleeper = (Client::of(&first.bytes(Coding::Identity)), first.upto);
    let mut reader = sleeper.0.clone();
    let mut early = Vec::new();
    let mut whole = 0;
    for step in 0..10_000_usize {
        let kind = (step / 400 % 3) as u8;
        seats[step * 3 % 400].state = state(kind, Timestamp(i64::MAX));
        let all = looked(&mut known, &seats, now);
        // Others ask in between, so there are versions that nobody who listens is told of.
        if step % 4 == 1 {
            early.push((Client::of(&all.bytes(Coding::Identity)), all.upto));
            early.truncate(20);
        }
        if step % 3 == 0 && all.upto != told {
            let event = known.since(told);
            whole += usize::from(event.from == 0);
            told = event.upto;
            news.push(event_of(&event));
            assert!(news.events.len() <= EVENTS_KEPT && news.bytes <= EVENT_BYTES_KEPT);
            let bytes: usize = news.events.iter().map(|event| event.bytes.len()).sum();
            assert_eq!(news.bytes, bytes);
            let events;
            (version, events) = read(&mut reader, version, &news, &all);
            assert!(events <= 1);
            assert_eq!(reader, Client::of(&all.bytes(Coding::Identity)));
        }
    }
    assert!(whole < 5, "{whole}");
    let all = looked(&mut known, &seats, now);
    news.push(event_of(&known.since(told)));
    let wanted = Client::of(&all.bytes(Coding::Identity));
    read(&mut reader, version, &news, &all);
    assert_eq!(reader, wanted);
    for (mut client, version) in early {
        read(&mut client, version, &news, &all);
        assert_eq!(client, wanted);
    }
    // It was told nothing of all this but the last.
    let (mut client, version) = sleeper;
    assert_eq!(news.after(version), Next::All);
    assert_eq!(read(&mut client, version, &news, &all), (all.upto, 1));
    assert_eq!(client, wanted);
}

#[test]
fn all_states_take_the_place_of_what_was_told_before() {
    let now = Timestamp(0);
    let mut seats = seats(1_000);
    let mut known = Known::new();
    let mut news = News::default();
    let first = looked(&mut known, &seats, now);
    assert_eq!(news.after(first.upto), Next::Nothing);
    for seat in 0..5 {
        seats[seat].state = state(2, now);
        let all = looked(&mut known, &seats, now);
        news.push(event_of(&known.since(all.upto - 1)));
    }
    assert_eq!(news.events.len(), 5);
    seats.iter_mut().for_each(|seat| seat.state = state(2, now));
    let all = looked(&mut known, &seats, now);
    let event = known.since(all.upto - 1);
    assert_eq!(event.from, 0);
    news.push(event_of(&event));
    assert_eq!((news.events.len(), news.bytes), (1, event.event().len()));
    for known in [first.upto, all.upto - 1] {
        assert_eq!(news.after(known), Next::Event(all.upto, all.event()));
    }
    assert_eq!(news.after(all.upto), Next::Nothing);
}
