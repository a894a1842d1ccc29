//! What is sold behind a queue, and what follows from it for the line: nobody is let in before there is
//! something to buy, nor when nothing is left, nor more people than what is left can serve.
//!
//! Who knows of concerts and seats is somebody else's business: a [`Sale`] is what they come to.

use super::{Gate, QueueSettings};
use crate::time::Timestamp;

/// So many purchases of one seat each are assumed before the first real one, so that one large purchase
/// at the beginning is not taken for what everybody does.
const ASSUMED_PURCHASES: u64 = 10;

/// Later than anything. A queue that admits nobody until further notice opens then, so that fans are told
/// to ask as seldom as those who are far from their turn.
const NEVER: Timestamp = Timestamp(i64::MAX);

/// Seats that are sold within the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaleWindow {
    /// When reservations begin.
    pub opens_at: Timestamp,
    /// When they end, because the sale closes or because the show begins.
    pub ends_at: Timestamp,
    /// The seats that are not sold, free or held; `None` where there are none yet, and nobody knows how
    /// many there will be.
    pub left: Option<u64>,
    /// The seats that are sold.
    pub sold: u64,
    /// The purchases that they were sold in.
    pub purchases: u64,
}

impl SaleWindow {
    fn is_sold_out(&self) -> bool {
        self.left == Some(0)
    }

    fn is_open(&self, now: Timestamp) -> bool {
        self.opens_at <= now && now < self.ends_at
    }
}

/// What is sold behind a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sale {
    /// Whether there is or was anything for sale at all. Behind a queue that guards something else there
    /// is not, and it goes by its settings alone.
    pub exists: bool,
    /// What can be bought, now or later.
    pub windows: Vec<SaleWindow>,
}

/// What becomes of a line when there is nothing more to buy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterSale {
    /// Nobody is let in, nobody can join, and who waits is told that it is over.
    #[default]
    Close,
    /// People join and wait on, for what may come back.
    GoOn,
}

/// How a queue follows the sale behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaleRules {
    /// Whether no more people are let in than the seats that are left can serve.
    pub by_stock: bool,
    /// What becomes of the line when all is sold.
    pub after_sold_out: AfterSale,
    /// What becomes of the line when the last sale is over.
    pub after_end: AfterSale,
}

/// Why there is nothing to buy, now or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// All is sold.
    SoldOut,
    /// The last sale is over.
    Ended,
}

/// What a queue is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueState {
    /// It admits.
    Open,
    /// An operator paused it.
    Paused,
    /// It opens at a moment still to come, because it or the sale behind it does.
    Scheduled(Timestamp),
    /// There is nothing to buy.
    Closed(Closing),
}

/// What fans can expect of a queue: its own settings and the sale behind it taken together.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// How it admits.
    pub settings: QueueSettings,
    /// Why there is nothing to buy, where that is so.
    pub closing: Option<Closing>,
    /// Whether those who wait are told that it is over, and joins are refused.
    pub turns_away: bool,
    /// How many people the seats that are left can serve, where admission goes by that.
    pub stock: Option<u64>,
}

impl Outlook {
    /// The outlook of a queue with nothing behind it.
    pub fn of(settings: QueueSettings) -> Self {
        Self { settings, closing: None, turns_away: false, stock: None }
    }

    /// What the queue is doing at `now`. That there is nothing to buy outweighs all.
    pub fn state(&self, now: Timestamp) -> QueueState {
        match (self.closing, self.settings.gate(now)) {
            (Some(closing), _) => QueueState::Closed(closing),
            (None, Gate::Open) => QueueState::Open,
            (None, Gate::Paused) => QueueState::Paused,
            (None, Gate::Scheduled(at)) => QueueState::Scheduled(at),
        }
    }

    /// Why a ticket that waits is over all the same, where that is so.
    pub fn turned_away(&self) -> Option<Closing> {
        self.closing.filter(|_| self.turns_away)
    }

    /// Whether nobody is let in until something comes back.
    pub fn admits_nobody(&self) -> bool {
        self.settings.opens_at == Some(NEVER)
    }
}

impl Sale {
    /// What follows from the sale at `now` for a queue with these settings. When it opens is compared as a
    /// time whenever somebody asks, so an outlook from before the opening is right after it, too.
    pub fn outlook(&self, settings: &QueueSettings, rules: SaleRules, now: Timestamp) -> Outlook {
        let mut outlook = Outlook::of(settings.clone());
        if !self.exists {
            return outlook;
        }
        let Some(closing) = self.closing(now) else {
            outlook.settings.opens_at = self.opens_at(settings.opens_at, now);
            if rules.by_stock {
                outlook.stock = self.stock(now);
                let bounds = [settings.max_active, outlook.stock];
                outlook.settings.max_active = bounds.into_iter().flatten().min();
            }
            return outlook;
        };
        let after = match closing {
            Closing::SoldOut => rules.after_sold_out,
            Closing::Ended => rules.after_end,
        };
        outlook.closing = Some(closing);
        outlook.turns_away = after == AfterSale::Close;
        outlook.stock = (closing == Closing::SoldOut && rules.by_stock).then_some(0);
        if outlook.turns_away || outlook.stock == Some(0) {
            outlook.settings.opens_at = Some(NEVER);
        }
        outlook
    }

    /// Why there is nothing to buy, at `now` or later, where that is so.
    pub fn closing(&self, now: Timestamp) -> Option<Closing> {
        let mut to_come = self.windows.iter().filter(|window| now < window.ends_at).peekable();
        if to_come.peek().is_none() {
            return Some(Closing::Ended);
        }
        to_come.all(SaleWindow::is_sold_out).then_some(Closing::SoldOut)
    }

    /// When the queue opens that opens at `own` by itself: not before there is something to buy.
    fn opens_at(&self, own: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let from = own.map_or(now, |own| own.max(now));
        let sells_then = |window: &&SaleWindow| !window.is_sold_out() && from < window.ends_at;
        let first = self.windows.iter().filter(sells_then).map(|window| window.opens_at).min();
        own.max(first)
    }

    /// How many people the seats can serve that are left of what is sold at `now`: by what a purchase takes
    /// on average here. At least one as long as there is a seat; `None` where nobody knows how many there
    /// are, or nothing is sold yet.
    fn stock(&self, now: Timestamp) -> Option<u64> {
        let mut open = self.windows.iter().filter(|window| window.is_open(now)).peekable();
        open.peek()?;
        let (mut left, mut sold, mut purchases) = (0_u64, 0_u64, 0_u64);
        for window in open {
            left = left.saturating_add(window.left?);
            sold = sold.saturating_add(window.sold);
            purchases = purchases.saturating_add(window.purchases);
        }
        let purchases = u128::from(purchases) + u128::from(ASSUMED_PURCHASES);
        let seats = u128::from(sold) + u128::from(ASSUMED_PURCHASES);
        let people = (u128::from(left) * purchases).div_ceil(seats.max(purchases));
        Some(u64::try_from(people).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const CLOSE: SaleRules =
        SaleRules { by_stock: true, after_sold_out: AfterSale::Close, after_end: AfterSale::Close };

    fn settings(opens_at: Option<i64>) -> QueueSettings {
        QueueSettings {
            admit_per_second: 10.0,
            max_active: None,
            active_ttl: Duration::from_secs(300),
            claim_window: Duration::from_secs(30),
            opens_at: opens_at.map(Timestamp),
            paused: false,
        }
    }

    fn window(opens_at: i64, ends_at: i64, left: u64) -> SaleWindow {
        let (opens_at, ends_at) = (Timestamp(opens_at), Timestamp(ends_at));
        SaleWindow { opens_at, ends_at, left: Some(left), sold: 0, purchases: 0 }
    }

    fn sale(windows: &[SaleWindow]) -> Sale {
        Sale { exists: true, windows: windows.to_vec() }
    }

    fn state(sale: &Sale, own: Option<i64>, now: i64) -> QueueState {
        sale.outlook(&settings(own), CLOSE, Timestamp(now)).state(Timestamp(now))
    }

    #[test]
    fn states_of_a_queue_by_what_is_sold_behind_it() {
        use QueueState::{Closed, Open};
        let scheduled = |at| QueueState::Scheduled(Timestamp(at));
        let (sold_out, ended) = (Closed(Closing::SoldOut), Closed(Closing::Ended));
        let one = sale(&[window(100, 200, 5)]);
        let two = sale(&[window(100, 200, 5), window(300, 400, 5)]);
        let first_sold = sale(&[window(100, 200, 0), window(150, 400, 5)]);
        let all_sold = sale(&[window(100, 200, 0), window(150, 400, 0)]);
        let unknown = sale(&[SaleWindow { left: None, ..window(100, 200, 0) }]);
        for (sale, own, now, expected) in [
            (&Sale::default(), None, 0, Open),
            (&Sale::default(), Some(50), 0, scheduled(50)),
            (&one, None, 99, scheduled(100)),
            (&one, None, 100, Open),
            (&one, None, 199, Open),
            (&one, None, 200, ended),
            (&one, Some(50), 60, scheduled(100)),
            (&one, Some(150), 120, scheduled(150)),
            (&one, Some(150), 150, Open),
            // Nothing will be sold when it opens; until the sale is over somebody may notice.
            (&one, Some(250), 150, scheduled(250)),
            (&one, Some(250), 250, ended),
            (&two, None, 150, Open),
            (&two, None, 250, scheduled(300)),
            (&two, Some(250), 150, scheduled(300)),
            (&two, None, 399, Open),
            (&two, None, 400, ended),
            (&first_sold, None, 120, scheduled(150)),
            (&first_sold, None, 150, Open),
            (&all_sold, None, 50, sold_out),
            (&all_sold, None, 399, sold_out),
            (&all_sold, None, 400, ended),
            (&unknown, None, 150, Open),
            (&sale(&[]), None, 0, ended),
        ] {
            assert_eq!(state(sale, own, now), expected, "{sale:?} {own:?} {now}");
        }
    }

    #[test]
    fn an_outlook_from_before_the_opening_opens_at_the_moment() {
        let sale = sale(&[window(1_000, 2_000, 5)]);
        let before = sale.outlook(&settings(None), CLOSE, Timestamp(0));
        assert_eq!(before.settings.gate(Timestamp(999)), Gate::Scheduled(Timestamp(1_000)));
        assert_eq!(before.settings.gate(Timestamp(1_000)), Gate::Open);
        // And the opening changes nothing about what fans are told of the pace.
        let after = sale.outlook(&settings(None), CLOSE, Timestamp(1_500));
        assert_eq!(after.settings.opens_at, before.settings.opens_at);
    }

    #[test]
    fn a_pause_outweighs_the_opening_but_not_the_end() {
        let paused = QueueSettings { paused: true, ..settings(None) };
        let at =
            |sale: &Sale, now| sale.outlook(&paused, CLOSE, Timestamp(now)).state(Timestamp(now));
        let one = sale(&[window(100, 200, 5)]);
        assert_eq!(at(&one, 50), QueueState::Paused);
        assert_eq!(at(&one, 200), QueueState::Closed(Closing::Ended));
    }

    #[test]
    fn what_becomes_of_the_line_after_the_sale_is_a_rule() {
        let sold = sale(&[window(0, 200, 0)]);
        let go_on = AfterSale::GoOn;
        for (rules, now, turns_away, admits) in [
            (CLOSE, 100, true, false),
            (CLOSE, 200, true, false),
            (SaleRules { by_stock: false, ..CLOSE }, 100, true, false),
            // Who waits for seats that come back is let in when they do.
            (SaleRules { after_sold_out: go_on, ..CLOSE }, 100, false, false),
            (SaleRules { after_sold_out: go_on, by_stock: false, ..CLOSE }, 100, false, true),
            (SaleRules { after_sold_out: go_on, ..CLOSE }, 200, true, false),
            (SaleRules { after_end: go_on, ..CLOSE }, 200, false, true),
        ] {
            let now = Timestamp(now);
            let outlook = sold.outlook(&settings(None), rules, now);
            assert_eq!(outlook.turned_away().is_some(), turns_away, "{rules:?} {now:?}");
            assert_eq!(outlook.admits_nobody(), !admits, "{rules:?} {now:?}");
            assert_eq!(outlook.settings.gate(now) == Gate::Open, admits, "{rules:?} {now:?}");
            assert!(outlook.closing.is_some());
        }
    }

    #[test]
    fn no_more_are_let_in_than_what_is_left_can_serve() {
        let bound = |window: SaleWindow, max_active| {
            let settings = QueueSettings { max_active, ..settings(None) };
            sale(&[window]).outlook(&settings, CLOSE, Timestamp(50)).settings.max_active
        };
        let bought = |left, sold, purchases| SaleWindow {
            left: Some(left),
            sold,
            purchases,
            ..window(0, 100, 0)
        };
        for (window, max_active, expected) in [
            (bought(100, 0, 0), None, Some(100)),
            (bought(100, 0, 0), Some(7), Some(7)),
            (bought(3, 0, 0), Some(7), Some(3)),
            // 990 purchases of two seats, and ten of one that are assumed.
            (bought(199, 1_980, 990), None, Some(100)),
            (bought(1, 4_000, 1_000), None, Some(1)),
            (bought(u64::MAX, 0, 0), None, Some(u64::MAX)),
            // Purchases without seats make no sense, and serve nobody twice.
            (bought(10, 0, 5), None, Some(10)),
            (SaleWindow { left: None, ..bought(0, 0, 0) }, None, None),
            (window(51, 100, 5), None, None),
        ] {
            assert_eq!(bound(window, max_active), expected, "{window:?} {max_active:?}");
        }
        let off = SaleRules { by_stock: false, ..CLOSE };
        let free = sale(&[bought(3, 0, 0)]).outlook(&settings(None), off, Timestamp(50));
        assert_eq!((free.settings.max_active, free.stock), (None, None));
        // Only what can be bought now counts.
        let both = sale(&[bought(3, 0, 0), window(60, 100, 1_000)]);
        let outlook = both.outlook(&settings(None), CLOSE, Timestamp(50));
        assert_eq!(outlook.stock, Some(3));
    }
}
