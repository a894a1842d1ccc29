//! The rules that must hold whatever happens, numbered. `docs/invariants.md` tells them to people;
//! a test keeps the two lists the same. They are checked in tests, by `boxoffice audit`, and as
//! metrics while the service runs.

use std::fmt;

/// One numbered rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// A seat has at most one live owner.
    OneOwner,
    /// Points are neither lost nor made.
    PointsConserved,
    /// Nobody is overtaken.
    NobodyOvertaken,
    /// What was acknowledged is durable.
    AcknowledgedIsDurable,
    /// No more are active than the queue allows.
    ActiveBounded,
    /// An effect has exactly one event.
    OneEvent,
    /// A paid reservation has exactly one payment, of its exact price.
    PaidOnce,
    /// A ticket that paid is spent, and buys nothing more.
    SpentIsSpent,
    /// A person has one place in a queue.
    OnePlaceEach,
    /// The admission log is one chain, and ends where the line is.
    OneChain,
}

impl Invariant {
    /// All of them, by number.
    pub const ALL: [Self; 10] = [
        Self::OneOwner,
        Self::PointsConserved,
        Self::NobodyOvertaken,
        Self::AcknowledgedIsDurable,
        Self::ActiveBounded,
        Self::OneEvent,
        Self::PaidOnce,
        Self::SpentIsSpent,
        Self::OnePlaceEach,
        Self::OneChain,
    ];

    /// The number by which documents, metrics and audits call it.
    pub const fn code(self) -> &'static str {
        match self {
            Self::OneOwner => "I1",
            Self::PointsConserved => "I2",
            Self::NobodyOvertaken => "I3",
            Self::AcknowledgedIsDurable => "I4",
            Self::ActiveBounded => "I5",
            Self::OneEvent => "I6",
            Self::PaidOnce => "I7",
            Self::SpentIsSpent => "I8",
            Self::OnePlaceEach => "I9",
            Self::OneChain => "I10",
        }
    }

    /// The rule in one sentence.
    pub const fn title(self) -> &'static str {
        match self {
            Self::OneOwner => "A seat has at most one live owner.",
            Self::PointsConserved => "Points are neither lost nor made.",
            Self::NobodyOvertaken => "Nobody is overtaken.",
            Self::AcknowledgedIsDurable => "What was acknowledged is durable.",
            Self::ActiveBounded => "No more are active than the queue allows.",
            Self::OneEvent => "An effect has exactly one event.",
            Self::PaidOnce => "A paid reservation has exactly one payment, of its exact price.",
            Self::SpentIsSpent => "A ticket that paid is spent, and buys nothing more.",
            Self::OnePlaceEach => "A person has one place in a queue.",
            Self::OneChain => "The admission log is one chain, and ends where the line is.",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What an audit found for one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub invariant: Invariant,
    /// How many things were looked at. An audit that looked at nothing proves nothing.
    pub checked: u64,
    /// How many broke the rule.
    pub violations: u64,
    /// The first few of them, in words.
    pub examples: Vec<String>,
}

impl Finding {
    /// How many examples a finding keeps.
    pub const EXAMPLES_MAX: usize = 10;

    /// A finding that has not looked at anything yet.
    pub const fn new(invariant: Invariant) -> Self {
        Self { invariant, checked: 0, violations: 0, examples: Vec::new() }
    }

    /// Counts `checked` things that were looked at.
    pub const fn add_checked(&mut self, checked: u64) {
        self.checked += checked;
    }

    /// Counts one violation, told by `example`.
    pub fn violated(&mut self, example: impl Into<String>) {
        self.violations += 1;
        if self.examples.len() < Self::EXAMPLES_MAX {
            self.examples.push(example.into());
        }
    }

    /// Counts a violation unless `holds`.
    pub fn expect(&mut self, holds: bool, example: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.violated(example());
        }
    }
}
