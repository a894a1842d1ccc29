//! The tickets of a queue by their owners, in the memory of the one process that numbers it.
//!
//! A million people are a million entries here, so they are packed: 20 bytes for a ticket, in parts that lie
//! in the order of the numbers, and 6 bytes for a place in the index. A table of it doubles when 7/8 of its
//! places are taken. The tables are of unequal shares, from one to two, so that some double at each size of
//! the crowd and never all of them at once: a person takes less than 32 bytes, as a test holds.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use boxoffice_domain::ids::{TicketId, UserId};
use boxoffice_domain::time::Timestamp;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::sequencer::newcomer::{JOIN_KEY_SECONDS, Name, Stub, five_bytes, of_five_bytes};

/// The tickets of a part.
const PART: u64 = 1_024;
/// The tables of the index.
const TABLES: usize = 64;
/// Parts that are looked through in one sweep.
const SWEPT: usize = 4;
/// So many joins are found again by their idempotency keys, and as many that came before them.
const KEYS_MAX: usize = 50_000;

/// What the process begins its ids with; see `TicketIds` of the service.
type Process = [u8; 11];

/// A ticket: the owner (8 bytes; zero for none), the second of issue (5), which process made the id (2),
/// and its number there (5).
#[derive(Clone, Copy)]
struct Packed([u8; 20]);

impl Packed {
    const NONE: Self = Self([0; 20]);

    fn user(self) -> u64 {
        u64::from_be_bytes(fixed(&self.0[..8]))
    }
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut fixed = [0; N];
    fixed.copy_from_slice(bytes);
    fixed
}

/// A number in five bytes, where it fits.
fn small(number: u64) -> Option<[u8; 5]> {
    Some(five_bytes(number)).filter(|bytes| of_five_bytes(*bytes) == number)
}

struct Part {
    taken: u64,
    tickets: Box<[Packed; PART as usize]>,
}

/// The tickets by their owners.
struct Table {
    hasher: RandomState,
    /// The numbers of each owner's ticket.
    index: Box<[HashTable<[u8; 5]>]>,
    parts: BTreeMap<u64, Part>,
    processes: Vec<Process>,
    by_process: HashMap<Process, u16>,
    /// Where the next sweep begins.
    sweep_from: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            index: (0..TABLES).map(|_| HashTable::new()).collect(),
            parts: BTreeMap::new(),
            processes: Vec::new(),
            by_process: HashMap::new(),
            sweep_from: 0,
        }
    }
}

fn packed(parts: &BTreeMap<u64, Part>, seq: u64) -> Packed {
    let part = parts.get(&(seq / PART));
    part.map_or(Packed::NONE, |part| part.tickets[(seq % PART) as usize])
}

impl Table {
    fn table(&self, user: u64) -> (u64, usize) {
        let hash = self.hasher.hash_one(user);
        // The table itself takes the upper bits and the lower ones.
        let part = f64::from((hash >> 24) as u16) / 65_536.0;
        // From 0 to 64, each step with 1.011 times the share of the one before.
        (hash, ((1.0 + part).log2() * TABLES as f64) as usize)
    }

    fn get(&self, user: UserId) -> Option<Stub> {
        let user = user.get().unsigned_abs();
        let (hash, table) = self.table(user);
        let is_theirs = |seq: &[u8; 5]| packed(&self.parts, of_five_bytes(*seq)).user() == user;
        let seq = of_five_bytes(*self.index[table].find(hash, is_theirs)?);
        let Packed(bytes) = packed(&self.parts, seq);
        let seconds = i64::try_from(of_five_bytes(fixed(&bytes[8..13]))).ok()?;
        let process = usize::from(u16::from_be_bytes(fixed(&bytes[13..15])));
        let mut id = [0; 16];
        id[..11].copy_from_slice(self.processes.get(process)?);
        id[11..].copy_from_slice(&bytes[15..]);
        Some(Stub { seq, issued_at: Timestamp(seconds * 1_000), id: TicketId(id) })
    }

    /// Keeps the ticket in place of any other one of the owner. Returns false where there is no room.
    fn put(&mut self, user: UserId, stub: Stub) -> bool {
        let seconds = u64::try_from(stub.issued_at.0.div_euclid(1_000)).ok().and_then(small);
        let (Some(seq), Some(seconds)) = (small(stub.seq), seconds) else { return false };
        let Some(process) = self.process(fixed(&stub.id.0[..11])) else { return false };
        self.remove(user);
        let user = user.get().unsigned_abs();
        // Whoever had the number is another one only by mistake.
        if let Some(other) =
            i64::try_from(packed(&self.parts, stub.seq).user()).ok().and_then(UserId::new)
        {
            self.remove(other);
        }
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&user.to_be_bytes());
        bytes[8..13].copy_from_slice(&seconds);
        bytes[13..15].copy_from_slice(&process.to_be_bytes());
        bytes[15..].copy_from_slice(&stub.id.0[11..]);
        let part = self
            .parts
            .entry(stub.seq / PART)
            .or_insert_with(|| Part { taken: 0, tickets: Box::new([Packed::NONE; PART as usize]) });
        part.tickets[(stub.seq % PART) as usize] = Packed(bytes);
        part.taken += 1;
        let (hash, table) = self.table(user);
        let Self { hasher, index, parts, .. } = self;
        let rehash = |seq: &[u8; 5]| hasher.hash_one(packed(parts, of_five_bytes(*seq)).user());
        index[table].insert_unique(hash, seq, rehash);
        true
    }

    fn remove(&mut self, user: UserId) {
        let user = user.get().unsigned_abs();
        let (hash, table) = self.table(user);
        let Self { index, parts, .. } = self;
        let is_theirs = |seq: &[u8; 5]| packed(parts, of_five_bytes(*seq)).user() == user;
        let Ok(found) = index[table].find_entry(hash, is_theirs) else { return };
        let (seq, _) = found.remove();
        let seq = of_five_bytes(seq);
        if let Some(part) = parts.get_mut(&(seq / PART)) {
            part.tickets[(seq % PART) as usize] = Packed::NONE;
            part.taken -= 1;
            if part.taken == 0 {
                parts.remove(&(seq / PART));
            }
        }
    }

    /// The number of a process that makes ids.
    fn process(&mut self, process: Process) -> Option<u16> {
        if let Some(known) = self.by_process.get(&process) {
            return Some(*known);
        }
        let new = u16::try_from(self.processes.len()).ok()?;
        self.processes.push(process);
        self.by_process.insert(process, new);
        Some(new)
    }

    /// Forgets tickets up to `serving` that are over, some at each call.
    fn sweep(&mut self, serving: u64, is_over: impl Fn(u64) -> bool) {
        let last = serving / PART;
        let swept = self.parts.range(self.sweep_from..=last.max(self.sweep_from)).take(SWEPT);
        let swept: Vec<u64> = swept.map(|(part, _)| *part).filter(|part| *part <= last).collect();
        // From the beginning again once the end is reached.
        self.sweep_from = match swept.last() {
            Some(part) if swept.len() == SWEPT => part + 1,
            _ => 0,
        };
        let mut over = Vec::new();
        for part in swept {
            let Some(Part { tickets, .. }) = self.parts.get(&part) else { continue };
            for (seq, ticket) in (part * PART..).zip(tickets.iter()) {
                let user = i64::try_from(ticket.user()).ok().and_then(UserId::new);
                if let Some(user) = user
                    && is_over(seq)
                {
                    over.push(user);
                }
            }
        }
        over.into_iter().for_each(|user| self.remove(user));
        for table in &mut self.index {
            if table.capacity() > 64 && table.len() * 4 < table.capacity() {
                let (hasher, parts) = (&self.hasher, &self.parts);
                let rehash =
                    |seq: &[u8; 5]| hasher.hash_one(packed(parts, of_five_bytes(*seq)).user());
                table.shrink_to(table.len() * 2, rehash);
            }
        }
    }

    fn len(&self) -> u64 {
        self.parts.values().map(|part| part.taken).sum()
    }

    /// How many owners the index has, and how many of them have no ticket of their own.
    fn audit(&self) -> (u64, u64) {
        let mut owners = std::collections::HashSet::new();
        let mut wrong = 0;
        for seq in self.index.iter().flatten() {
            let user = packed(&self.parts, of_five_bytes(*seq)).user();
            wrong += u64::from(user == 0 || !owners.insert(user));
        }
        let checked = owners.len() as u64;
        (checked, wrong + self.len().abs_diff(checked))
    }
}

/// Joins by their idempotency keys: the last ones, and those before them.
struct Keys {
    new: HashMap<[u8; 16], Stub>,
    old: HashMap<[u8; 16], Stub>,
    since: Timestamp,
}

impl Default for Keys {
    fn default() -> Self {
        Self { new: HashMap::new(), old: HashMap::new(), since: Timestamp(i64::MIN) }
    }
}

const KEYS_MS: i64 = JOIN_KEY_SECONDS as i64 * 1_000;

impl Keys {
    fn find(&self, digest: &[u8; 16]) -> Option<Stub> {
        self.new.get(digest).or_else(|| self.old.get(digest)).copied()
    }

    fn turn(&mut self, now: Timestamp) {
        let age_ms = now.0.saturating_sub(self.since.0);
        if self.new.len() >= KEYS_MAX || age_ms >= KEYS_MS {
            let new = std::mem::take(&mut self.new);
            self.old = if age_ms >= 2 * KEYS_MS { HashMap::new() } else { new };
            self.since = now;
        }
    }
}

/// What one process keeps of a queue.
#[derive(Default)]
pub(in crate::sequencer) struct Tickets {
    tickets: Mutex<Table>,
    keys: Mutex<Keys>,
}

impl Tickets {
    /// The ticket of this name.
    pub(in crate::sequencer) fn get(&self, name: Name, now: Timestamp) -> Option<Stub> {
        match name {
            Name::Person(user) => self.tickets.lock().get(user),
            Name::Key(digest) => {
                let mut keys = self.keys.lock();
                keys.turn(now);
                keys.find(&digest)
            }
        }
    }

    /// Keeps a ticket under this name, unless another one than `over` is kept there. For what has no room
    /// in a packed entry nothing is kept.
    ///
    /// # Errors
    /// The other one.
    pub(in crate::sequencer) fn offer(
        &self,
        name: Name,
        user: UserId,
        stub: Stub,
        over: u64,
    ) -> Result<(), Stub> {
        let is_another = |found: &Stub| found.seq != over && found.seq != stub.seq;
        match name {
            Name::Person(_) => {
                let mut tickets = self.tickets.lock();
                match tickets.get(user).filter(is_another) {
                    Some(other) => return Err(other),
                    None => tickets.put(user, stub),
                };
            }
            Name::Key(digest) => {
                let mut keys = self.keys.lock();
                keys.turn(stub.issued_at);
                match keys.find(&digest).filter(is_another) {
                    Some(other) => return Err(other),
                    None => keys.new.insert(digest, stub),
                };
            }
        }
        Ok(())
    }

    /// See [`Table::sweep`].
    pub(in crate::sequencer) fn sweep(&self, serving: u64, is_over: impl Fn(u64) -> bool) {
        self.tickets.lock().sweep(serving, is_over);
    }

    /// How many people have a place.
    pub(in crate::sequencer) fn people(&self) -> u64 {
        self.tickets.lock().len()
    }

    /// See [`Table::audit`].
    pub(in crate::sequencer) fn audit(&self) -> (u64, u64) {
        self.tickets.lock().audit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u64) -> UserId {
        match i64::try_from(number).ok().and_then(UserId::new) {
            Some(user) => user,
            None => panic!("{number} is nobody"),
        }
    }

    fn stub(seq: u64, process: u8) -> Stub {
        let mut id = [process; 16];
        id[11..].copy_from_slice(&(seq * 3).to_be_bytes()[3..]);
        Stub { seq, issued_at: Timestamp(1_700_000_000_000 + seq as i64 * 1_000), id: TicketId(id) }
    }

    /// Puts, removals and sweeps in an order drawn from a seed, held against a map.
    #[test]
    fn it_keeps_what_a_map_would() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (mut tickets, mut map) = (Table::default(), HashMap::<u64, Stub>::new());
        let mut seq = 0;
        for step in 0..200_000_u64 {
            let person = 1 + draw(5_000);
            match draw(10) {
                0 => {
                    tickets.remove(user(person));
                    map.remove(&person);
                }
                1 if step.is_multiple_of(50) => {
                    // All up to here are over, but every seventh.
                    let upto = draw(seq + 1);
                    let is_over = |seq: u64| seq <= upto && !seq.is_multiple_of(7);
                    for _ in 0..seq / PART / SWEPT as u64 + 2 {
                        tickets.sweep(upto, is_over);
                    }
                    map.retain(|_, stub| !is_over(stub.seq));
                }
                _ => {
                    seq += 1 + draw(3);
                    let stub = stub(seq, draw(3) as u8);
                    assert!(tickets.put(user(person), stub));
                    map.insert(person, stub);
                }
            }
            let person = 1 + draw(5_000);
            assert_eq!(tickets.get(user(person)), map.get(&person).copied(), "step {step}");
        }
        assert_eq!((tickets.len(), tickets.audit()), (map.len() as u64, (map.len() as u64, 0)));
        for (person, stub) in &map {
            assert_eq!(tickets.get(user(*person)), Some(*stub));
        }
        // What is empty takes no room.
        for _ in 0..seq {
            tickets.sweep(u64::MAX, |_| true);
        }
        assert_eq!((tickets.len(), tickets.parts.len(), tickets.audit()), (0, 0, (0, 0)));
        assert!(tickets.index.iter().all(|table| table.capacity() <= 64));
    }

    #[test]
    fn what_has_no_room_is_not_kept() {
        let mut tickets = Table::default();
        let good = stub(1, 1);
        for bad in [
            Stub { seq: 1 << 40, ..good },
            Stub { issued_at: Timestamp(-1), ..good },
            Stub { issued_at: Timestamp(i64::MAX), ..good },
        ] {
            assert!(!tickets.put(user(1), bad));
        }
        assert_eq!(tickets.get(user(1)), None);
        // To the year 9999.
        let late = Stub { seq: (1 << 40) - 1, issued_at: Timestamp(253_402_300_799_000), ..good };
        assert!(tickets.put(user(i64::MAX.unsigned_abs()), late));
        assert_eq!(tickets.get(user(i64::MAX.unsigned_abs())), Some(late));
    }

    /// At whatever size of the crowd.
    #[test]
    fn a_person_takes_less_than_thirty_two_bytes() {
        const PEOPLE: u64 = 1_000_000;
        let mut tickets = Table::default();
        let part = size_of::<[Packed; PART as usize]>() + size_of::<(u64, Part)>();
        for person in 1..=PEOPLE {
            assert!(tickets.put(user(person * 1_237), stub(person, 1)));
            if person >= PEOPLE / 4 && person.is_multiple_of(10_000) {
                let index: usize = tickets.index.iter().map(HashTable::allocation_size).sum();
                let bytes = (index + tickets.parts.len() * part) as u64;
                assert!(bytes < 32 * person, "{bytes} for {person}");
            }
        }
    }

    #[test]
    fn a_key_is_found_for_its_time() {
        let kept = Tickets::default();
        let name = Name::Key([7; 16]);
        let first = stub(1, 1);
        let begin = first.issued_at.0;
        assert_eq!(kept.offer(name, user(5), first, 0), Ok(()));
        assert_eq!(kept.offer(name, user(5), stub(2, 1), 0), Err(first));
        for (later, is_found) in
            [(0, true), (KEYS_MS - 1, true), (KEYS_MS, true), (2 * KEYS_MS, false)]
        {
            let found = kept.get(name, Timestamp(begin + later));
            assert_eq!(found, is_found.then_some(first), "{later}");
        }
        for count in 0..3 * KEYS_MAX {
            let mut digest = [0; 16];
            digest[..8].copy_from_slice(&count.to_be_bytes());
            assert_eq!(kept.offer(Name::Key(digest), user(5), stub(9, 1), 0), Ok(()));
        }
        let keys = kept.keys.lock();
        assert!(keys.new.len() + keys.old.len() <= 2 * KEYS_MAX);
    }
}
