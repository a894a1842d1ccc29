//! How an instance takes part at the moment, and what makes it change.

/// How an instance takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is being opened. It hears the others, who are not told of it.
    Opening,
    /// Redis answers, but the mirrors may lack what it says: joins do without it until the tick is
    /// done, and this instance does not ask for the turn.
    CatchingUp,
    /// Redis answers. Whoever has the turn admits.
    Together,
    /// Redis answers, and the store failed a moment ago. This instance hears the others, and leaves
    /// the turn to one that may be better off.
    Resting,
    /// Redis is away. The store tells what others have done, and every instance tries to admit.
    Alone,
    /// It has ended.
    Closed,
}

/// What may change the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The instance has read what there is, and takes part.
    Opened,
    /// Redis has answered a tick.
    Answered {
        /// It was in use before, by joins too.
        in_use: bool,
        /// The store failed a moment ago.
        store_failed: bool,
    },
    /// Redis has not answered a tick, or there is no connection.
    Missed,
    /// The service ends.
    Closed,
}

impl Mode {
    /// The mode after an event.
    pub(super) const fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Closed, _) | (_, Event::Closed) => Self::Closed,
            (Self::Opening, Event::Opened) => Self::CatchingUp,
            (Self::Opening, _) | (_, Event::Opened) => self,
            (_, Event::Missed) => Self::Alone,
            (_, Event::Answered { store_failed: true, .. }) => Self::Resting,
            (_, Event::Answered { in_use: false, .. }) => Self::CatchingUp,
            (_, Event::Answered { in_use: true, .. }) => Self::Together,
        }
    }

    /// Whether it hears the others through Redis.
    pub(super) const fn hears(self) -> bool {
        !matches!(self, Self::Alone)
    }

    /// Whether it asks for the turn to admit.
    pub(super) const fn asks_for_turn(self) -> bool {
        matches!(self, Self::Together)
    }
}

#[cfg(test)]
mod tests {
    use super::Mode::{Alone, CatchingUp, Closed, Opening, Resting, Together};
    use super::*;

    #[test]
    fn every_event_leads_from_every_mode_to_one() {
        let answered = |in_use, store_failed| Event::Answered { in_use, store_failed };
        let events = [
            Event::Opened,
            answered(false, false),
            answered(true, false),
            answered(false, true),
            answered(true, true),
            Event::Missed,
            Event::Closed,
        ];
        // In the order of the events above.
        let table = [
            (Opening, [CatchingUp, Opening, Opening, Opening, Opening, Opening, Closed]),
            (CatchingUp, [CatchingUp, CatchingUp, Together, Resting, Resting, Alone, Closed]),
            (Together, [Together, CatchingUp, Together, Resting, Resting, Alone, Closed]),
            (Resting, [Resting, CatchingUp, Together, Resting, Resting, Alone, Closed]),
            (Alone, [Alone, CatchingUp, Together, Resting, Resting, Alone, Closed]),
            (Closed, [Closed; 7]),
        ];
        for (mode, expected) in table {
            for (event, expected) in events.into_iter().zip(expected) {
                assert_eq!(mode.after(event), expected, "{mode:?} after {event:?}");
            }
        }
    }

    #[test]
    fn a_mode_says_what_an_instance_does() {
        // Hears the others, asks for the turn.
        for (mode, does) in [
            (Opening, [true, false]),
            (CatchingUp, [true, false]),
            (Together, [true, true]),
            (Resting, [true, false]),
            (Alone, [false, false]),
            (Closed, [true, false]),
        ] {
            assert_eq!([mode.hears(), mode.asks_for_turn()], does, "{mode:?}");
        }
    }
}
