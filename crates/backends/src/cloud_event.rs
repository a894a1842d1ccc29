//! An event as text: CloudEvents 1.0 JSON, as it stands in the outbox and as consumers get it.

use std::cell::RefCell;

use boxoffice_domain::event::{EndReason, Event};
use boxoffice_domain::time::Timestamp;
use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;

/// An event on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its place in the outbox; rises with every event.
    pub id: i64,
    /// The name of the topic.
    pub topic: String,
    /// Events of one key keep their order.
    pub key: i64,
    /// The event as CloudEvents JSON.
    pub body: String,
}

/// The first and the last millisecond that RFC 3339 can write, of the years 0 and 9999.
const WRITABLE_MS: (i64, i64) = (-62_167_219_200_000, 253_402_300_799_999);

const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// The moment that a text names: a date, a time and an offset, from the year 1970 to the end of the
/// year 9999 in UTC; none where it is anything else.
pub fn from_rfc3339(text: &str) -> Option<Timestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = SignedDuration::from_secs(pieces.to_numeric_offset()?.seconds().into());
    let local = pieces.date().to_datetime(pieces.time()?).duration_since(EPOCH);
    let ms = i64::try_from(local.checked_sub(offset)?.as_millis()).ok()?;
    (0..=WRITABLE_MS.1).contains(&ms).then_some(Timestamp(ms))
}

/// A moment as RFC 3339 text in UTC, to the millisecond. A time before or after what can be written
/// (only a corrupt store could hold one) becomes the first or the last that can.
pub fn rfc3339(at: Timestamp) -> String {
    let mut text = Vec::with_capacity("2026-01-01T00:00:00.000Z".len());
    rfc3339_to(at, &mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// The same, behind what is there.
pub fn rfc3339_to(at: Timestamp, out: &mut Vec<u8>) {
    thread_local! {
        // Thousands of joins and events in a second have all but the last digits in common.
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let ms = at.0.clamp(WRITABLE_MS.0, WRITABLE_MS.1);
    let (second, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    SECOND.with_borrow_mut(|(cached, text)| {
        if *cached != second {
            // A moment of jiff's ends two days before the year does; a date and time does not.
            let whole = EPOCH.saturating_add(SignedDuration::from_secs(second));
            (*cached, *text) = (second, whole.to_string());
        }
        let digit = |value: i64| b'0' + (value % 10) as u8;
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(&[b'.', digit(ms / 100), digit(ms / 10), digit(ms), b'Z']);
    });
}

/// Room for an event of a few seats.
const EVENT_BYTES: usize = 512;

/// The event as CloudEvents 1.0 JSON. Written piece by piece, because it is part of every
/// transaction; no text in it needs escaping.
pub(crate) fn cloud_event(event: &Event, at: Timestamp) -> String {
    let mut json = String::with_capacity(EVENT_BYTES);
    json.push_str(r#"{"specversion":"1.0","id":""#);
    json.push_str(&event.id());
    json.push_str(r#"","source":"/boxoffice","type":""#);
    json.push_str(event.topic().name());
    number(&mut json, r#"","subject":""#, event.key());
    json.push_str(r#"","time":""#);
    json.push_str(&rfc3339(at));
    json.push_str(r#"","datacontenttype":"application/json","data":{"#);
    match event {
        Event::ConcertReserved { reservation, user, concert, session, seats, total, until } => {
            number(&mut json, r#""reservationId":"#, reservation.get());
            number(&mut json, r#","userId":"#, user.get());
            number(&mut json, r#","concertId":"#, concert.get());
            number(&mut json, r#","sessionId":"#, session.get());
            let mut before = r#","seatIds":["#;
            for seat in seats {
                number(&mut json, before, seat.get());
                before = ",";
            }
            number(&mut json, r#"],"totalPrice":"#, *total);
            json.push_str(r#","expiresAt":""#);
            json.push_str(&rfc3339(*until));
            json.push('"');
        }
        Event::ReservationCancelled { reservation, user, reason } => {
            number(&mut json, r#""reservationId":"#, reservation.get());
            number(&mut json, r#","userId":"#, user.get());
            json.push_str(match reason {
                EndReason::Cancelled => r#","reason":"CANCELLED""#,
                EndReason::Expired => r#","reason":"EXPIRED""#,
                EndReason::SessionCancelled => r#","reason":"SESSION_CANCELLED""#,
            });
        }
        Event::PaymentCompleted { payment, reservation, user, amount } => {
            number(&mut json, r#""paymentId":"#, payment.get());
            number(&mut json, r#","reservationId":"#, reservation.get());
            number(&mut json, r#","userId":"#, user.get());
            number(&mut json, r#","paymentAmount":"#, *amount);
        }
        Event::PaymentRefunded { payment, reservation, user, amount } => {
            number(&mut json, r#""paymentId":"#, payment.get());
            number(&mut json, r#","reservationId":"#, reservation.get());
            number(&mut json, r#","userId":"#, user.get());
            number(&mut json, r#","refundAmount":"#, *amount);
        }
        Event::PointCharged { entry, user, amount, balance } => {
            number(&mut json, r#""entryId":"#, *entry);
            number(&mut json, r#","userId":"#, user.get());
            number(&mut json, r#","amount":"#, *amount);
            number(&mut json, r#","totalAmount":"#, *balance);
        }
    }
    json.push_str("}}");
    json
}

fn number(json: &mut String, before: &str, value: i64) {
    json.push_str(before);
    json.push_str(itoa::Buffer::new().format(value));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use boxoffice_domain::ids::{ConcertId, PaymentId, ReservationId, SeatId, SessionId, UserId};
    use serde_json::json;

    use super::*;

    fn parsed(event: &Event) -> serde_json::Value {
        serde_json::from_str(&cloud_event(event, Timestamp(1_763_800_000_123))).unwrap()
    }

    #[test]
    fn times_are_written_as_the_calendar_says() {
        let around = [0, 1_763_800_000_000, -1, -62_135_596_800_000, 253_402_207_000_000];
        for ms in around.into_iter().flat_map(|ms| (-1_001..=1_001).map(move |by| ms + by)) {
            let calendar = jiff::Timestamp::from_millisecond(ms).unwrap();
            assert_eq!(rfc3339(Timestamp(ms)), format!("{calendar:.3}"));
        }
        for (ms, written) in [
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "9999-12-31T23:59:59.999Z"),
            (i64::MAX, "9999-12-31T23:59:59.999Z"),
            (-62_167_219_200_000, "0000-01-01T00:00:00.000Z"),
            (i64::MIN, "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(Timestamp(ms)), written);
        }
    }

    #[test]
    fn times_are_read_as_they_are_written_and_no_others() {
        for ms in [0, 999, 1_763_800_000_123, 253_402_207_000_000, 253_402_300_799_999] {
            assert_eq!(from_rfc3339(&rfc3339(Timestamp(ms))), Some(Timestamp(ms)));
        }
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T09:00:00.001+09:00", 1),
            ("2026-12-31t20:00:00z", 1_798_747_200_000),
            ("9999-12-31T23:59:59.999999999Z", 253_402_300_799_999),
            ("9999-12-31T14:59:59-09:00", 253_402_300_799_000),
        ] {
            assert_eq!(from_rfc3339(text), Some(Timestamp(ms)), "{text}");
        }
        for text in [
            "",
            "2026-12-31",
            "2026-12-31T20:00:00",
            "2026-12-31T20:00:00[Asia/Seoul]",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00+09:00",
            "0000-01-01T00:00:00Z",
            "0000-00-00T00:00:00Z",
            "-1-01-01T00:00:00Z",
            "-000001-01-01T00:00:00Z",
            "-009999-01-02T01:59:59Z",
            "9999-12-31T23:59:59-09:00",
            "10000-01-01T00:00:00Z",
            "20000-01-01T00:00:00Z",
            "+010000-01-01T00:00:00Z",
            "+020000-01-01T00:00:00Z",
            "999999999-01-01T00:00:00Z",
        ] {
            assert_eq!(from_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn every_event_is_a_json_document_of_its_fields() {
        let reservation = ReservationId::new(7).unwrap();
        let user = UserId::new(i64::MAX).unwrap();
        let event = Event::ConcertReserved {
            reservation,
            user,
            concert: ConcertId::new(1).unwrap(),
            session: SessionId::new(2).unwrap(),
            seats: vec![SeatId::new(3).unwrap(), SeatId::new(4).unwrap()],
            total: 240,
            until: Timestamp(1_763_800_300_123),
        };
        assert_eq!(
            parsed(&event),
            json!({
                "specversion": "1.0", "id": event.id(), "source": "/boxoffice",
                "type": "concert.concert-reserved", "subject": event.key().to_string(),
                "time": "2025-11-22T08:26:40.123Z", "datacontenttype": "application/json",
                "data": {
                    "reservationId": 7, "userId": i64::MAX, "concertId": 1, "sessionId": 2,
                    "seatIds": [3, 4], "totalPrice": 240, "expiresAt": "2025-11-22T08:31:40.123Z",
                },
            })
        );
        let data = |event: &Event| parsed(event)["data"].clone();
        for (reason, text) in [
            (EndReason::Cancelled, "CANCELLED"),
            (EndReason::Expired, "EXPIRED"),
            (EndReason::SessionCancelled, "SESSION_CANCELLED"),
        ] {
            assert_eq!(
                data(&Event::ReservationCancelled { reservation, user, reason }),
                json!({ "reservationId": 7, "userId": i64::MAX, "reason": text })
            );
        }
        let payment = PaymentId::new(9).unwrap();
        assert_eq!(
            data(&Event::PaymentCompleted { payment, reservation, user, amount: 240 }),
            json!({
                "paymentId": 9, "reservationId": 7, "userId": i64::MAX, "paymentAmount": 240,
            })
        );
        assert_eq!(
            data(&Event::PaymentRefunded { payment, reservation, user, amount: 240 }),
            json!({
                "paymentId": 9, "reservationId": 7, "userId": i64::MAX, "refundAmount": 240,
            })
        );
        assert_eq!(
            data(&Event::PointCharged { entry: 5, user, amount: 10, balance: 30 }),
            json!({ "entryId": 5, "userId": i64::MAX, "amount": 10, "totalAmount": 30 })
        );
    }
}
