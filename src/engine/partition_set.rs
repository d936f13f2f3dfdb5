//! A set of partitions, a bit each.

use super::ids::PartitionId;

/// Partitions, in order; to add one takes no more than its bit.
#[derive(Clone, Debug, Default)]
pub(super) struct PartitionSet(Vec<u64>);

impl PartitionSet {
    pub(super) fn insert(&mut self, partition: PartitionId) {
        let (word, bit) = (partition.index() / 64, partition.index() % 64);
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << bit;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// Takes all of them out, the lowest first.
    pub(super) fn take(&mut self) -> impl Iterator<Item = PartitionId> + use<> {
        let set = |(at, word): (usize, u64)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| PartitionId((at * 64 + bit) as u16))
        };
        std::mem::take(&mut self.0).into_iter().enumerate().filter(|&(_, word)| word != 0).flat_map(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_once_and_in_order() {
        let mut set = PartitionSet::default();
        assert!(set.is_empty());
        for id in [16_383, 0, 64, 63, 64, 1_000] {
            set.insert(PartitionId(id));
        }
        assert!(!set.is_empty());
        let taken: Vec<u16> = set.take().map(|id| id.0).collect();
        assert_eq!(taken, [0, 63, 64, 1_000, 16_383]);
        assert!(set.is_empty());
        assert_eq!(set.take().count(), 0);
    }
}
