//! The data that an empty store begins with, so that there is something to buy.

use std::sync::Arc;
use std::time::Duration;

use boxoffice_backends::Fault;
use boxoffice_backends::store::{NewConcert, Seating, Seed, Store, StoredPlan};
use boxoffice_domain::ids::QueueName;
use boxoffice_domain::seating::{Plan, hall};
use boxoffice_domain::time::Timestamp;

const DAY_MS: i64 = 24 * 3_600_000;
const USERS: i64 = 1_000;
const POINTS: i64 = 1_000_000;
/// In points, by grade. Every demo user can pay for four seats many times over.
const PRICES: [(&str, i64); 4] = [("VIP", 4_000), ("R", 3_000), ("S", 2_000), ("A", 1_000)];

/// Fills the store if there is nothing for sale in it. Returns whether it did.
///
/// # Errors
/// Where the store cannot be written.
pub(crate) async fn seed(store: &Store, queue: &QueueName, now: Timestamp) -> Result<bool, Fault> {
    if store.catalog().concerts().next().is_some() {
        return Ok(false);
    }
    let concerts = vec![
        concert("Seoul Night", "Olympic Hall", queue, now, (-1, 30), (10, 2_000))?,
        concert("Han River Live", "Riverside Stage", queue, now, (7, 60), (2, 500))?,
        concert("Yesterday", "Old Theatre", queue, now, (-30, -1), (2, 500))?,
        concert("Club Evening", "Basement", queue, now, (-1, 30), (3, 50))?,
    ];
    let seed = Seed { users: 1..=USERS, points: POINTS, concerts };
    store.seed(seed, now).await?;
    Ok(true)
}

/// A concert whose reservations open and close so many days from now, with so many sessions in a hall of so
/// many places, one a day from a week after the closing.
fn concert(
    name: &str,
    venue: &str,
    queue: &QueueName,
    now: Timestamp,
    (opens_days, closes_days): (i64, i64),
    (sessions, seats): (u32, u32),
) -> Result<(NewConcert, Vec<(Timestamp, Seating)>), Fault> {
    let days = |days: i64| Timestamp(now.0 + days * DAY_MS);
    let concert = NewConcert {
        name: name.to_owned(),
        venue: venue.to_owned(),
        queue: queue.clone(),
        opens_at: days(opens_days),
        closes_at: days(closes_days),
    };
    // At seven in the evening in Seoul.
    let day = days(closes_days + 7).0.div_euclid(DAY_MS);
    let first = Timestamp(day * DAY_MS + 10 * 3_600_000);
    let plan = Plan::new(hall(venue, seats)).ok().and_then(StoredPlan::new).map(Arc::new);
    let price = |grade: &String| PRICES.iter().find(|(of, _)| of == grade).map(|(_, price)| *price);
    let seating = plan.and_then(|plan| {
        let prices = plan.plan().grades().iter().map(price).collect::<Option<Vec<_>>>()?;
        Seating::planned(plan, &prices)
    });
    let seating = seating.ok_or_else(|| Fault::Corrupt(format!("no hall {venue}")))?;
    let sessions = (0..sessions)
        .map(|index| {
            let at = first.plus(Duration::from_millis(DAY_MS.unsigned_abs()) * index);
            (at, seating.clone())
        })
        .collect();
    Ok((concert, sessions))
}
