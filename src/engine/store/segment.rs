//! A segment of the index: a linear-probing table in hash order.
//!
//! A slot is `prefix << 32 | entry id`; zero is empty. The home of a prefix grows with the prefix
//! (a multiplication, so any capacity will do), and a run of slots is kept in order. Three things
//! follow: a miss ends at the first larger prefix, a rebuild at another capacity is one pass
//! without a look at any entry, and a walk over the slots is a walk in hash order.
//!
//! Source: Amble and Knuth, "Ordered hash tables" (1974), with a monotone home.

use super::arena::{EntryId, heap_bytes};

/// Expiry second of an entry that never expires.
pub(super) const NEVER_S: u32 = u32::MAX;

const SLOTS_MIN: usize = 8;

/// A dyadic interval of hash prefixes and the entries in it.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Segment {
    slots: Vec<u64>,
    /// Homes are below this; the slots beyond catch the run of the last ones.
    homes: u32,
    /// First prefix of the interval, which is `2^(32 - depth)` wide.
    first: u32,
    /// Beside each slot the second at which its entry expires; empty while none does.
    due_s: Vec<u32>,
    len: u32,
    /// Nothing in here is due before this second.
    next_due_s: u32,
    /// The slot after the last one that is taken, and the prefix in that: filled in hash order, as by a
    /// snapshot, all is one long run, and what comes next belongs at its end.
    tail: u32,
    last: u32,
    depth: u8,
}

fn prefix_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

fn id_of(slot: u64) -> EntryId {
    EntryId(slot as u32)
}

/// The capacity for at least `slots`, of the sizes that allocators have (4 a doubling).
fn capacity_for(slots: usize) -> usize {
    let slots = slots.max(SLOTS_MIN);
    slots.next_multiple_of(1 << (slots - 1).ilog2().saturating_sub(2))
}

/// Homes in a table of this capacity; the rest is for the last run.
fn homes_in(capacity: usize) -> u32 {
    (capacity - capacity / 32 - 1) as u32
}

impl Segment {
    /// An empty segment; it allocates with the first entry.
    pub(super) fn new(first: u32, depth: u8) -> Segment {
        Segment {
            slots: Vec::new(),
            due_s: Vec::new(),
            homes: 0,
            len: 0,
            next_due_s: NEVER_S,
            tail: 0,
            last: 0,
            first,
            depth,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn depth(&self) -> u8 {
        self.depth
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// The prefix after the interval; up to `2^32`.
    pub(super) fn end(&self) -> u64 {
        u64::from(self.first) + (1 << (32 - self.depth))
    }

    pub(super) fn next_due_s(&self) -> u32 {
        self.next_due_s
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        heap_bytes(self.slots.capacity() * 8) + heap_bytes(self.due_s.capacity() * 4)
    }

    #[inline]
    fn home(&self, prefix: u32) -> usize {
        let within = u64::from(prefix - self.first) << self.depth;
        ((within * u64::from(self.homes)) >> 32) as usize
    }

    /// The slots where a look for this prefix begins: its home and a cache line further.
    #[inline]
    pub(super) fn slots_of(&self, prefix: u32) -> &[u64] {
        let home = self.home(prefix);
        let slots = self.slots.get(home..).unwrap_or_default();
        &slots[..slots.len().min(8)]
    }

    /// The first position with this prefix whose entry `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, prefix: u32, mut is_it: impl FnMut(EntryId) -> bool) -> Option<usize> {
        const LINEAR_PROBES: usize = 24;
        if prefix > self.last {
            return None;
        }
        let home = self.home(prefix);
        let mut at = home;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == 0 || prefix_of(slot) > prefix {
                return None;
            }
            if prefix_of(slot) == prefix && is_it(id_of(slot)) {
                return Some(at);
            }
            at += 1;
            if at == home + LINEAR_PROBES && prefix_of(slot) < prefix {
                at = self.lower_bound_from(at, prefix);
            }
        }
    }

    /// The first position from `from` on (not before the home) that is empty or has at least this
    /// prefix. Runs are in order and nothing smaller follows an empty slot, so that it can be
    /// bisected; this keeps the long runs short that filling in hash order makes.
    fn lower_bound_from(&self, from: usize, prefix: u32) -> usize {
        self.bisect(from, |slot| slot != 0 && prefix_of(slot) < prefix)
    }

    /// The first position from `from` on that is empty or has a larger prefix.
    fn upper_bound_from(&self, from: usize, prefix: u32) -> usize {
        self.bisect(from, |slot| slot != 0 && prefix_of(slot) <= prefix)
    }

    fn bisect(&self, from: usize, is_before: impl Fn(u64) -> bool) -> usize {
        let mut step = 4;
        let mut start = from.min(self.slots.len());
        let mut end = self.slots.len();
        while start + step < end {
            if is_before(self.slots[start + step]) {
                start += step + 1;
                step *= 2;
            } else {
                end = start + step;
                break;
            }
        }
        start + self.slots[start..end].partition_point(|&slot| is_before(slot))
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, prefix: u32, id: EntryId, due_s: u32) {
        if u64::from(self.len + 1) * 8 > u64::from(self.homes) * 7 {
            let needed = (self.len as usize + 1) * 8 / 7 + 2;
            self.rebuild(capacity_for(needed.max(self.slots.len() + 1)));
        }
        if due_s != NEVER_S && self.due_s.is_empty() {
            self.due_s = vec![NEVER_S; self.slots.len()];
        }
        let home = self.home(prefix);
        let at = match prefix >= self.last {
            true => home.max(self.tail as usize),
            false => self.upper_bound_from(home, prefix),
        };
        let end = match self.slots[at.min(self.slots.len())..].iter().position(|&slot| slot == 0) {
            Some(distance) => at + distance,
            None => {
                // The last run leaves the table: one more slot for it.
                self.slots.reserve_exact(1 + self.slots.len() / 32);
                self.slots.push(0);
                if !self.due_s.is_empty() {
                    self.due_s.push(NEVER_S);
                }
                self.slots.len() - 1
            }
        };
        self.slots.copy_within(at..end, at + 1);
        self.slots[at] = u64::from(prefix) << 32 | u64::from(id.0);
        if !self.due_s.is_empty() {
            self.due_s.copy_within(at..end, at + 1);
            self.due_s[at] = due_s;
            self.next_due_s = self.next_due_s.min(due_s);
        }
        self.tail = self.tail.max(end as u32 + 1);
        self.last = self.last.max(prefix);
        self.len += 1;
    }

    /// Removes the entry at a position.
    pub(super) fn remove(&mut self, at: usize) {
        // What follows in the run moves back by one, up to a slot that is at its home.
        let end = (at + 1..self.slots.len())
            .find(|&next| self.slots[next] == 0 || self.home(prefix_of(self.slots[next])) == next)
            .unwrap_or(self.slots.len());
        self.slots.copy_within(at + 1..end, at);
        self.slots[end - 1] = 0;
        if !self.due_s.is_empty() {
            self.due_s.copy_within(at + 1..end, at);
            self.due_s[end - 1] = NEVER_S;
        }
        if end == self.tail as usize {
            let taken = self.slots[..end].iter().rposition(|&slot| slot != 0);
            self.tail = taken.map_or(0, |at| at as u32 + 1);
            self.last = taken.map_or(0, |at| prefix_of(self.slots[at]));
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Segment::new(self.first, self.depth);
        } else if self.slots.len() > SLOTS_MIN && self.len as usize * 3 < self.slots.len() {
            self.rebuild(capacity_for(self.len as usize * 3 / 2 + 2));
        }
    }

    pub(super) fn id(&self, at: usize) -> EntryId {
        id_of(self.slots[at])
    }

    pub(super) fn set_id(&mut self, at: usize, id: EntryId) {
        self.slots[at] = self.slots[at] >> 32 << 32 | u64::from(id.0);
    }

    pub(super) fn set_due_s(&mut self, at: usize, due_s: u32) {
        if self.due_s.is_empty() {
            if due_s == NEVER_S {
                return;
            }
            self.due_s = vec![NEVER_S; self.slots.len()];
        }
        self.due_s[at] = due_s;
        self.next_due_s = self.next_due_s.min(due_s);
    }

    /// The first position from `from` on that is due at `now_s`. Where there is none (`from` being
    /// zero), it is known then when something will be.
    pub(super) fn next_due(&mut self, from: usize, now_s: u32) -> Option<usize> {
        let rest = self.due_s.get(from..).unwrap_or_default();
        if let Some(distance) = rest.iter().position(|&due_s| due_s <= now_s) {
            return Some(from + distance);
        }
        if from == 0 {
            self.next_due_s = self.due_s.iter().copied().min().unwrap_or(NEVER_S);
            if self.next_due_s == NEVER_S {
                self.due_s = Vec::new();
            }
        }
        None
    }

    /// The entries from a position on that are due at `now_s`.
    pub(super) fn due_from(&self, from: usize, now_s: u32) -> impl Iterator<Item = EntryId> + '_ {
        let slots = self.slots.get(from..).unwrap_or_default().iter();
        let due_s = self.due_s.get(from..).unwrap_or_default();
        let is_due = move |(slot, due_s): &(&u64, &u32)| **slot != 0 && **due_s <= now_s;
        slots.zip(due_s).filter(is_due).map(|(&slot, _)| id_of(slot))
    }

    /// When the entry at a position is due.
    pub(super) fn due_s(&self, at: usize) -> u32 {
        self.due_s.get(at).copied().unwrap_or(NEVER_S)
    }

    /// The entries from a prefix on, in order of their prefixes, with their positions.
    pub(super) fn iter_from(&self, prefix: u32) -> impl Iterator<Item = (usize, u32, EntryId)> + '_ {
        let start = self.lower_bound_from(self.home(prefix.max(self.first)), prefix);
        self.slots[start..]
            .iter()
            .enumerate()
            .filter(|(_, slot)| **slot != 0)
            .map(move |(at, &slot)| (start + at, prefix_of(slot), id_of(slot)))
    }

    /// Positions there are, empty ones included.
    pub(super) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The entry at a position, if there is one.
    pub(super) fn get(&self, at: usize) -> Option<(u32, EntryId)> {
        let slot = *self.slots.get(at)?;
        (slot != 0).then(|| (prefix_of(slot), id_of(slot)))
    }

    /// Takes an entry out for good without keeping the table usable for lookups.
    pub(super) fn pop(&mut self) -> Option<EntryId> {
        while let Some(slot) = self.slots.pop() {
            if slot != 0 {
                self.len -= 1;
                return Some(id_of(slot));
            }
        }
        None
    }

    /// Cuts the interval in half: this keeps the lower half, the upper one is returned.
    pub(super) fn split(&mut self) -> Segment {
        let depth = self.depth + 1;
        let middle = self.first + (1u32 << (32 - depth));
        let mut lower = Segment::new(self.first, depth);
        let mut upper = Segment::new(middle, depth);
        let cut = self.lower_bound_from(self.home(middle), middle);
        lower.fill(&self.slots[..cut], self.due_s.get(..cut).unwrap_or_default());
        upper.fill(&self.slots[cut..], self.due_s.get(cut..).unwrap_or_default());
        *self = lower;
        upper
    }

    fn rebuild(&mut self, capacity: usize) {
        let slots = std::mem::take(&mut self.slots);
        let due_s = std::mem::take(&mut self.due_s);
        self.place(capacity, &slots, &due_s);
    }

    /// Fills an empty segment with slots in order.
    fn fill(&mut self, slots: &[u64], due_s: &[u32]) {
        let len = slots.iter().filter(|&&slot| slot != 0).count();
        self.len = len as u32;
        if len > 0 {
            self.place(capacity_for(len * 4 / 3 + 2), slots, due_s);
        }
    }

    fn place(&mut self, capacity: usize, slots: &[u64], due_s: &[u32]) {
        self.homes = homes_in(capacity);
        self.slots = vec![0; capacity];
        self.due_s = if due_s.is_empty() { Vec::new() } else { vec![NEVER_S; capacity] };
        self.next_due_s = NEVER_S;
        self.last = 0;
        let mut next = 0;
        for (at, &slot) in slots.iter().enumerate().filter(|(_, slot)| **slot != 0) {
            next = self.home(prefix_of(slot)).max(next);
            if next >= self.slots.len() {
                self.slots.push(0);
                if !due_s.is_empty() {
                    self.due_s.push(NEVER_S);
                }
            }
            self.slots[next] = slot;
            if let Some(&due_s) = due_s.get(at) {
                self.due_s[next] = due_s;
                self.next_due_s = self.next_due_s.min(due_s);
            }
            self.last = prefix_of(slot);
            next += 1;
        }
        self.tail = next as u32;
    }

    /// Panics unless the order and the homes are as this file says.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut last = 0;
        let mut len = 0;
        for (at, &slot) in self.slots.iter().enumerate().filter(|(_, slot)| **slot != 0) {
            let prefix = prefix_of(slot);
            assert!(prefix >= last && prefix >= self.first && u64::from(prefix) < self.end());
            let home = self.home(prefix);
            assert!(home <= at && self.slots[home..at].iter().all(|&slot| slot != 0));
            assert!(self.due_s(at) >= self.next_due_s);
            last = prefix;
            len += 1;
        }
        assert_eq!(len, self.len());
        let tail = self.slots.iter().rposition(|&slot| slot != 0).map_or(0, |at| at + 1);
        assert_eq!((self.tail as usize, self.last), (tail, last));
        assert!(self.due_s.is_empty() || self.due_s.len() == self.slots.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small deterministic source of numbers.
    fn next(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 16
    }

    fn contents(segment: &Segment) -> Vec<(u32, u32, u32)> {
        segment.iter_from(0).map(|(at, prefix, id)| (prefix, id.0, segment.due_s(at))).collect()
    }

    #[test]
    fn keeps_order_under_random_and_crowded_prefixes() {
        for (spread, seed) in [(u64::from(u32::MAX), 1), (1 << 12, 2), (1, 3)] {
            let mut seed = seed;
            let mut segment = Segment::new(0, 0);
            let mut model: Vec<(u32, u32, u32)> = Vec::new();
            for step in 0..6_000u32 {
                let prefix = match next(&mut seed) % 4 {
                    // The end of the interval, where runs leave the table.
                    0 => u32::MAX - (next(&mut seed) % spread) as u32,
                    _ => (next(&mut seed) % spread) as u32,
                };
                // Fills up for two thirds of the steps, then empties again.
                let is_insert = if step < 4_000 { step % 4 != 0 } else { step % 4 == 0 };
                if is_insert || model.is_empty() {
                    let due_s = if step % 3 == 0 { step } else { NEVER_S };
                    segment.insert(prefix, EntryId(step + 1), due_s);
                    model.push((prefix, step + 1, due_s));
                } else {
                    let (prefix, id, _) = model.swap_remove(next(&mut seed) as usize % model.len());
                    let at = segment.find(prefix, |found| found.0 == id).expect("it was inserted");
                    segment.remove(at);
                }
                if step % 97 == 0 {
                    segment.check();
                }
            }
            let mut held = contents(&segment);
            held.sort_unstable();
            model.sort_unstable();
            assert_eq!(held, model);
            for &(prefix, id, _) in &model {
                assert!(segment.find(prefix, |found| found.0 == id).is_some());
            }
            let upper = segment.split();
            segment.check();
            upper.check();
            let mut halves = contents(&segment);
            halves.extend(contents(&upper));
            halves.sort_unstable();
            assert_eq!(halves, model);
        }
    }

    #[test]
    fn filling_in_hash_order_stays_ordered() {
        let mut segment = Segment::new(0, 0);
        for step in 0..4_000 {
            segment.insert(step * 1_000, EntryId(step + 1), NEVER_S);
        }
        segment.check();
        assert!((0..4_000).all(|step| segment.find(step * 1_000, |_| true).is_some()));
        assert!((0..4_000).all(|step| segment.find(step * 1_000 + 1, |_| true).is_none()));
    }

    #[test]
    fn due_entries_are_found_and_the_bound_recovers() {
        let mut segment = Segment::new(0, 0);
        for step in 0..100 {
            segment.insert(step << 24, EntryId(step + 1), if step % 2 == 0 { step } else { NEVER_S });
        }
        let mut at = 0;
        let mut removed = 0;
        while let Some(due) = segment.next_due(at, 49) {
            assert!(segment.due_s(due) <= 49);
            segment.remove(due);
            removed += 1;
            at = due;
        }
        assert_eq!(removed, 25);
        assert_eq!(segment.next_due(0, 49), None);
        assert_eq!(segment.next_due_s(), 50);
    }

    #[test]
    fn capacities_are_sizes_of_allocators() {
        for slots in 1..100_000 {
            let capacity = capacity_for(slots);
            assert!(capacity >= slots);
            assert_eq!(heap_bytes(capacity * 8), capacity as u64 * 8);
        }
    }
}
