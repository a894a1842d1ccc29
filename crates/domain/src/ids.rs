//! Identifiers as types, so that a seat id cannot be passed where a user id is meant.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(i64);

        impl $name {
            /// The id with this value, or `None` unless it is positive.
            pub const fn new(value: i64) -> Option<Self> {
                if value > 0 { Some(Self(value)) } else { None }
            }

            /// The value, always positive.
            pub const fn get(self) -> i64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A fan. Users are not registered: any positive number is a user, with no points at first.
    UserId
);
id!(
    /// A concert: what is being sold.
    ConcertId
);
id!(
    /// One evening of a concert, with seats of its own.
    SessionId
);
id!(
    /// A seat. Seat ids are unique over all sessions.
    SeatId
);
id!(
    /// A reservation: some seats of one session, held or bought by one user.
    ReservationId
);
id!(
    /// A payment for one reservation.
    PaymentId
);

/// What makes a ticket unique, whatever happens to the counter that numbered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(pub [u8; 16]);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of a queue: 1 to 40 of `a-z`, `0-9`, `-` and `_`, so that it is safe in a URL, a
/// metric label and a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueName(std::sync::Arc<str>);

impl QueueName {
    /// The longest name, in bytes.
    pub const LENGTH_MAX: usize = 40;

    /// The queue name with this text, or `None` where it has another character or length.
    pub fn new(name: &str) -> Option<Self> {
        let ok = !name.is_empty()
            && name.len() <= Self::LENGTH_MAX
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        ok.then(|| Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for QueueName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positive() {
        assert_eq!(UserId::new(0), None);
        assert_eq!(UserId::new(-1), None);
        assert_eq!(UserId::new(i64::MAX).unwrap().get(), i64::MAX);
    }

    #[test]
    fn queue_names_are_safe_in_urls_and_labels() {
        for good in ["main", "a", "vip-2026_11", &"x".repeat(40)] {
            assert!(QueueName::new(good).is_some(), "{good}");
        }
        for bad in ["", "Main", "a b", "a/b", "é", "\"", &"x".repeat(41)] {
            assert!(QueueName::new(bad).is_none(), "{bad}");
        }
    }
}
