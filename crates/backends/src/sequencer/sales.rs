//! What is sold behind the queues, as the store of this instance has it in memory.
//!
//! It is looked at in every tick, before anybody is let in. What other instances have sold or changed shows
//! here as soon as it does in the seats: the rules in `domain::queue::sale` compare times, so an opening
//! that is known is never missed by a tick.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use boxoffice_domain::ids::QueueName;
use boxoffice_domain::queue::{Sale, SaleRules, SaleWindow};
use boxoffice_domain::sales::Concert;
use boxoffice_domain::time::Timestamp;

use super::queue::Queue;
use crate::planted::{Bug, planted};
use crate::store::{Catalog, Inventory, Store};

/// The rules by which the queues follow the sales behind them; without rules they follow none.
#[derive(Default)]
pub(super) struct Sales(OnceLock<SaleRules>);

impl Sales {
    /// From now on the queues go by these rules. What was said first stays.
    pub(super) fn follow(&self, rules: SaleRules) {
        let _ = self.0.set(rules);
    }

    /// Tells the queues what is sold behind them now.
    pub(super) fn note(&self, queues: &[Arc<Queue>], store: &Store, now: Timestamp) {
        let Some(rules) = self.0.get() else { return };
        let by_stock = rules.by_stock && !planted(Bug::StockUnheeded);
        let rules = SaleRules { by_stock, ..*rules };
        let catalog = store.catalog();
        let mut sales = sales(&catalog, now);
        let mut short: HashSet<&QueueName> = HashSet::new();
        for queue in queues {
            let sale = sales.remove(queue.name()).unwrap_or_default();
            if queue.note_sale(sale, rules, now) {
                short.insert(queue.name());
            }
        }
        if short.is_empty() {
            return;
        }
        // What others sell there matters within the next seconds.
        for concert in catalog.concerts().filter(|concert| short.contains(&concert.queue)) {
            let selling = |inventory: &&Arc<Inventory>| {
                inventory.is_sold(concert, now) && unsold(inventory) != Some(0)
            };
            catalog.inventories(concert.id).iter().filter(selling).for_each(|it| it.ask_for());
        }
    }
}

/// What is sold behind each queue, as windows of the sessions that begin and end to be sold together.
fn sales(catalog: &Catalog, now: Timestamp) -> HashMap<QueueName, Sale> {
    let mut sales: HashMap<QueueName, Sale> = HashMap::new();
    for concert in catalog.concerts() {
        // Looked up before a name is copied: there are many concerts and few queues.
        let sale = match sales.get_mut(&concert.queue) {
            Some(sale) => sale,
            None => sales.entry(concert.queue.clone()).or_default(),
        };
        add_concert(sale, catalog, concert, now);
    }
    sales
}

/// What is sold of a concert, now or later.
pub fn sale_of(catalog: &Catalog, concert: &Concert, now: Timestamp) -> Sale {
    let mut sale = Sale::default();
    add_concert(&mut sale, catalog, concert, now);
    sale
}

fn add_concert(sale: &mut Sale, catalog: &Catalog, concert: &Concert, now: Timestamp) {
    sale.exists = true;
    let inventories = catalog.inventories(concert.id);
    if inventories.is_empty() && now < concert.closes_at {
        // Its sessions are still to be made.
        let (opens_at, ends_at) = (concert.opens_at, concert.closes_at);
        add(sale, SaleWindow { opens_at, ends_at, left: None, sold: 0, purchases: 0 });
    }
    for inventory in inventories.iter().filter(|it| it.is_sold(concert, now)) {
        let (sold, purchases) = inventory.purchases(now);
        add(
            sale,
            SaleWindow {
                opens_at: opens_at(concert),
                ends_at: concert.sells_until(&inventory.session()),
                left: unsold(inventory),
                sold,
                purchases,
            },
        );
    }
}

fn add(sale: &mut Sale, window: SaleWindow) {
    let same = |other: &&mut SaleWindow| {
        (other.opens_at, other.ends_at) == (window.opens_at, window.ends_at)
    };
    match sale.windows.iter_mut().find(same) {
        Some(other) => {
            other.left = other.left.zip(window.left).map(|(one, two)| one + two);
            other.sold += window.sold;
            other.purchases += window.purchases;
        }
        None => sale.windows.push(window),
    }
}

/// When the first seat can be reserved.
fn opens_at(concert: &Concert) -> Timestamp {
    if planted(Bug::OpeningUnheeded) { Timestamp(i64::MIN) } else { concert.opens_at }
}

/// The seats that are not sold; `None` where there are none yet.
fn unsold(inventory: &Inventory) -> Option<u64> {
    let total = inventory.total() as u64;
    let sold = if planted(Bug::SoldOutUnheeded) { 0 } else { inventory.sold() };
    (total > 0).then(|| total.saturating_sub(sold))
}
