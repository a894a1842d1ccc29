//! Mistakes that can be planted, to see that the simulator finds them. A normal build has none.
//! Those of the store are planted in the one in memory; those of scripts, where a script is loaded.

/// A mistake in the code that can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "simulation"),
    allow(dead_code, unreachable_pub, reason = "nobody can switch one on")
)]
pub enum Bug {
    /// The store grants a pool numbers, and does not count them as handed out.
    GrantUncounted,
    /// A request for numbers that is repeated is granted new ones.
    GrantAnew,
    /// Numbers without Redis go on behind the last one that was given, and not behind the pool.
    TakenBelowPool,
    /// The store gives numbers to an instance without Redis while another one has it.
    TakenBesideRedis,
    /// Numbers taken from the store do not count as given there.
    TakenUnrecorded,
    /// Scripts believe what an older copy brings back.
    NoRunId,
    /// A block is put into whatever pool there is.
    InstallUnchecked,
    /// A block is put into its pool wherever it lies.
    InstallAnyOrder,
    /// Redis passes on more numbers than it was granted.
    JoinPastLimit,
    /// Redis ignores which numbers the caller knows of.
    JoinBelowKnown,
    /// A step of admission is made durable whatever was admitted since it was planned.
    NoCompareAndSet,
    /// A step counts that was planned before the settings were changed.
    SettingsNoStep,
    /// A step is shown and told before it is durable.
    ToldBeforeCommit,
    /// A step counts whatever the database's time is.
    UntimelySteps,
    /// Nobody compares clocks.
    ClockUnchecked,
    /// Another instance's change of settings is not taken over.
    SettingsUnheard,
    /// The store does not keep who was passed over.
    PassedForgotten,
    /// The store does not keep who was let in late.
    ReturnedStayPassed,
    /// The admission log does not say who had left.
    LeftUnlogged,
    /// A step takes no credit.
    CreditUnspent,
    /// Who was passed over and polls again is not noticed.
    ReturnUnnoticed,
    /// Polls that others have answered are not taken in.
    PollsUnheard,
    /// Polls that are answered here are not taken in.
    PollsUnnoticed,
    /// Where another instance was not heard, its fans count as absent.
    SilenceIsAbsence,
    /// Who is seen after the admission is not marked.
    ClaimsUnnoticed,
    /// The store does not keep who has given a ticket up.
    LeavingForgotten,
    /// A sold seat is free for the next hold.
    SoldIsFree,
    /// A held seat is free for the next hold.
    HeldIsFree,
    /// The answer to a request is not found again by its key.
    KeyForgotten,
    /// A ticket that is spent pays once more.
    SpentForgotten,
    /// Holds are ended ten seconds before their time.
    SweepAhead,
    /// A payment has no event.
    PaymentWithoutEvent,
    /// A hold that is given back or has ended does not free its seats.
    GivenBackStaysHeld,
    /// A payment takes no points.
    FreeOfCharge,
    /// Events are forgotten before a sink has them.
    EventsForgotten,
    /// The sale behind a queue counts as open, whenever it opens.
    OpeningUnheeded,
    /// Admission does not go by what is left.
    StockUnheeded,
    /// What is sold counts as left.
    SoldOutUnheeded,
    /// The store draws as often as it is asked.
    DrawnAnew,
    /// The last number that was given is not drawn.
    DrawnTooFew,
    /// Numbers that the store gave itself are not drawn where whoever draws does not know of them.
    TakenUndrawn,
    /// What the pool of a queue has left is drawn.
    PoolIsDrawn,
    /// Who has left before the draw is known by number, and not by what was drawn.
    LeftUndrawn,
    /// Who leaves or pays elsewhere after the draw is known by number.
    EndedByNumber,
    /// Who was there before the draw is known by number.
    PresenceUndrawn,
}

impl Bug {
    /// All of them.
    #[cfg(feature = "simulation")]
    pub const ALL: &[Self] = &[
        Self::GrantUncounted,
        Self::GrantAnew,
        Self::TakenBelowPool,
        Self::TakenBesideRedis,
        Self::TakenUnrecorded,
        Self::NoRunId,
        Self::InstallUnchecked,
        Self::InstallAnyOrder,
        Self::JoinPastLimit,
        Self::JoinBelowKnown,
        Self::NoCompareAndSet,
        Self::SettingsNoStep,
        Self::ToldBeforeCommit,
        Self::UntimelySteps,
        Self::ClockUnchecked,
        Self::SettingsUnheard,
        Self::PassedForgotten,
        Self::ReturnedStayPassed,
        Self::LeftUnlogged,
        Self::CreditUnspent,
        Self::ReturnUnnoticed,
        Self::PollsUnheard,
        Self::PollsUnnoticed,
        Self::SilenceIsAbsence,
        Self::ClaimsUnnoticed,
        Self::LeavingForgotten,
        Self::SoldIsFree,
        Self::HeldIsFree,
        Self::KeyForgotten,
        Self::SpentForgotten,
        Self::SweepAhead,
        Self::PaymentWithoutEvent,
        Self::GivenBackStaysHeld,
        Self::FreeOfCharge,
        Self::EventsForgotten,
        Self::OpeningUnheeded,
        Self::StockUnheeded,
        Self::SoldOutUnheeded,
        Self::DrawnAnew,
        Self::DrawnTooFew,
        Self::TakenUndrawn,
        Self::PoolIsDrawn,
        Self::LeftUndrawn,
        Self::EndedByNumber,
        Self::PresenceUndrawn,
    ];
}

#[cfg(feature = "simulation")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a mistake on, for all that runs on this thread.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether the mistake is switched on.
    pub fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "simulation")]
pub use switch::{plant, planted};

/// Whether the mistake is switched on.
#[cfg(not(feature = "simulation"))]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}
