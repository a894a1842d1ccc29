use super::*;
use crate::http::coding::Coding;
use crate::http::seat_states::Known;
use crate::http::seat_states::tests::{Client, looked, seats, state};
use boxoffice_domain::time::Timestamp;

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
            news.push(&event);
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
    news.push(&known.since(told));
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
        news.push(&known.since(all.upto - 1));
    }
    assert_eq!(news.events.len(), 5);
    seats.iter_mut().for_each(|seat| seat.state = state(2, now));
    let all = looked(&mut known, &seats, now);
    let event = known.since(all.upto - 1);
    assert_eq!(event.from, 0);
    news.push(&event);
    assert_eq!((news.events.len(), news.bytes), (1, event.event().len()));
    for known in [first.upto, all.upto - 1] {
        assert_eq!(news.after(known), Next::Event(all.upto, all.event()));
    }
    assert_eq!(news.after(all.upto), Next::Nothing);
}

#[test]
fn a_ticket_has_two_streams_and_the_oldest_ends() {
    let metrics = Metrics::new();
    let config = ServerConfig { streams_max: 3, ..ServerConfig::default() };
    let streams = Arc::new(Streams::new(&config));
    let enter = |ticket: u8| streams.enter(TicketId([ticket; 16]), &metrics);
    let is_over = |entered: &mut Entered| {
        entered.ended.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    };
    let mut one = enter(1).unwrap();
    let mut two = enter(1).unwrap();
    assert!(!is_over(&mut one) && !is_over(&mut two));
    let mut three = enter(1).unwrap();
    assert!(is_over(&mut one) && !is_over(&mut two) && !is_over(&mut three));
    assert_eq!((streams.open.lock().count, metrics.seat_streams.get()), (2, 3));
    // What ended takes no place, whether its client has noticed or not.
    let mut other = enter(2).unwrap();
    let refused = enter(3).err().unwrap();
    assert_eq!(refused.code(), ErrorCode::Overloaded);
    assert_eq!(metrics.seat_streams_refused.get(), 1);
    // Nor may a ticket that has one have more, where there is no room; one that has two changes them.
    assert!(enter(2).is_err());
    let mut four = enter(1).unwrap();
    assert!(is_over(&mut two) && !is_over(&mut three) && !is_over(&mut other));
    drop((one, two));
    assert_eq!((streams.open.lock().count, metrics.seat_streams.get()), (3, 3));
    drop(three);
    assert!(!is_over(&mut four));
    drop(enter(3).unwrap());
    drop((four, other));
    let open = streams.open.lock();
    assert_eq!((open.count, open.of.len(), metrics.seat_streams.get()), (0, 0, 0));
}
