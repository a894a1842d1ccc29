use super::*;

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
