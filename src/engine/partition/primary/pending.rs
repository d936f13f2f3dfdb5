//! What a primary has written and not committed.

use crate::engine::hashed_map::HashedMap;
use crate::engine::ids::Sequence;
use arrayvec::ArrayVec;

/// So many keys are kept in place: most partitions have no more at a time.
const FEW: usize = 2;

/// Keys written after the commit, by hash (a collision only makes a reader wait), and their last records.
#[derive(Default)]
pub(super) struct Pending {
    few: ArrayVec<(u64, Sequence), FEW>,
    /// Those beyond.
    more: HashedMap<Sequence>,
}

impl Pending {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.few.is_empty()
    }

    /// The record that a key is pending for.
    pub(super) fn get(&self, hash: u64) -> Option<Sequence> {
        let among_few = self.few.iter().find(|(key, _)| *key == hash).map(|(_, sequence)| *sequence);
        among_few.or_else(|| self.more.get(&hash).copied())
    }

    /// From now on the key is pending for this record.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, sequence: Sequence) {
        if let Some((_, last)) = self.few.iter_mut().find(|(key, _)| *key == hash) {
            *last = sequence;
        } else if self.few.try_push((hash, sequence)).is_err() {
            self.more.insert(hash, sequence);
        }
    }

    /// Everything is committed.
    #[inline]
    pub(super) fn clear(&mut self) {
        self.few.clear();
        if !self.more.is_empty() {
            self.more.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_many_keys_are_pending_for_their_last_records() {
        let mut pending = Pending::default();
        for count in [1, 2, 3, 100] {
            assert!(pending.is_empty() && pending.get(1).is_none());
            for round in [1, 2] {
                for key in 1..=count {
                    pending.insert(key, Sequence(round * 1_000 + key));
                    assert!(!pending.is_empty());
                }
            }
            for key in 1..=count {
                assert_eq!(pending.get(key), Some(Sequence(2_000 + key)), "{key} of {count}");
            }
            assert_eq!(pending.get(count + 1), None);
            pending.clear();
        }
    }
}
