//! The hash ring: each node stands at many points, a partition prefers the nodes it meets first.

use super::Candidate;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Points of a node of weight 100.
const POINTS: usize = 64;
/// Points of a node at most, however heavy.
const POINTS_MAX: usize = 1_024;
/// Seed of the points of nodes: their hashes and those of partitions must not be related.
const NODE_SEED: u64 = 0x72d0_7e5e_0000_0001;
/// Seed of the places of partitions.
const PARTITION_SEED: u64 = 0x72d0_7e5e_0000_0002;

/// Points by hash, with the index of their node.
pub(super) struct Ring {
    points: Vec<(u64, u32)>,
    node_count: usize,
}

impl Ring {
    pub(super) fn new(nodes: &[&Candidate]) -> Ring {
        let mut points = Vec::new();
        for (index, member) in nodes.iter().enumerate() {
            let count = (POINTS * usize::from(member.weight) / 100).clamp(1, POINTS_MAX);
            for point in 0..count as u64 {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&member.node.0.to_le_bytes());
                bytes[8..].copy_from_slice(&point.to_le_bytes());
                points.push((xxh3_64_with_seed(&bytes, NODE_SEED), index as u32));
            }
        }
        points.sort_unstable();
        Ring { points, node_count: nodes.len() }
    }

    /// The first nodes, `count_max` at most, met from a partition's place on.
    pub(super) fn walk(&self, partition: usize, count_max: usize) -> Vec<usize> {
        let place = xxh3_64_with_seed(&(partition as u64).to_le_bytes(), PARTITION_SEED);
        let start = self.points.partition_point(|&(hash, _)| hash < place);
        let wanted = count_max.min(self.node_count);
        let mut met = Vec::with_capacity(wanted);
        let around = self.points[start..].iter().chain(&self.points[..start]);
        for &(_, node) in around {
            let node = node as usize;
            if !met.contains(&node) {
                met.push(node);
                if met.len() == wanted {
                    break;
                }
            }
        }
        met
    }
}
