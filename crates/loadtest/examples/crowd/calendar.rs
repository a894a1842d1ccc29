//! Who is to ask when: a list for each of the next 65,536 milliseconds.
//!
//! Adding and taking cost the same however many wait, and four bytes for each of them.

/// Above the longest interval that the service tells anybody, 33 s.
const SLOTS: usize = 1 << 16;
const NOBODY: u32 = u32::MAX;

/// Numbered members, each of them in one millisecond at the most.
pub(crate) struct Calendar {
    /// The first and the last of each list.
    lists: Vec<(u32, u32)>,
    /// Who follows, by member.
    next: Vec<u32>,
    /// The first millisecond that has not been taken.
    from_ms: u64,
}

impl Calendar {
    pub(crate) fn new(members: u32) -> Self {
        let lists = vec![(NOBODY, NOBODY); SLOTS];
        Self { lists, next: vec![NOBODY; members as usize], from_ms: 0 }
    }

    /// Puts a member who is in none into a millisecond; into the next one where that has passed.
    ///
    /// # Errors
    /// Where it is too far away.
    pub(crate) fn add(&mut self, member: u32, due_ms: u64) -> Result<(), &'static str> {
        let due_ms = due_ms.max(self.from_ms);
        if due_ms - self.from_ms >= SLOTS as u64 {
            return Err("pollAfterMs above a minute");
        }
        self.next[member as usize] = NOBODY;
        let list = &mut self.lists[due_ms as usize % SLOTS];
        if list.0 == NOBODY {
            list.0 = member;
        } else {
            self.next[list.1 as usize] = member;
        }
        list.1 = member;
        Ok(())
    }

    /// Takes out everybody up to `now_ms`, in order: `due` is given each member and their millisecond.
    pub(crate) fn take(&mut self, now_ms: u64, mut due: impl FnMut(u32, u64)) {
        while self.from_ms <= now_ms {
            let slot = self.from_ms as usize % SLOTS;
            let mut member = std::mem::replace(&mut self.lists[slot], (NOBODY, NOBODY)).0;
            while member != NOBODY {
                due(member, self.from_ms);
                member = self.next[member as usize];
            }
            self.from_ms += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(calendar: &mut Calendar, now_ms: u64) -> Vec<(u32, u64)> {
        let mut found = Vec::new();
        calendar.take(now_ms, |member, at| found.push((member, at)));
        found
    }

    #[test]
    fn everybody_comes_once_in_their_millisecond_and_in_order() {
        let mut calendar = Calendar::new(5);
        for (member, due_ms) in [(0, 7), (1, 3), (2, 7), (3, 0), (4, 8)] {
            calendar.add(member, due_ms).unwrap();
        }
        assert_eq!(taken(&mut calendar, 7), [(3, 0), (1, 3), (0, 7), (2, 7)]);
        assert_eq!(taken(&mut calendar, 7), []);
        calendar.add(0, 5).unwrap();
        assert_eq!(taken(&mut calendar, 8), [(4, 8), (0, 8)], "what has passed is the next one");
    }

    #[test]
    fn the_ring_of_milliseconds_goes_round() {
        let mut calendar = Calendar::new(2);
        let mut now = 0;
        for _ in 0..10 {
            calendar.add(0, now + 33_000).unwrap();
            calendar.add(1, now + SLOTS as u64 - 1).unwrap();
            assert_eq!(taken(&mut calendar, now + 32_999), []);
            assert_eq!(taken(&mut calendar, now + 33_000), [(0, now + 33_000)]);
            now += SLOTS as u64;
            assert_eq!(taken(&mut calendar, now - 1), [(1, now - 1)]);
        }
        assert!(calendar.add(0, now + SLOTS as u64).is_err());
    }
}
