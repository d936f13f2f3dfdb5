//! The goal: placement's choice for the members there are now.

use super::draft::Draft;
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::placement::{Candidate, candidates, desired};
use crate::engine::table::{Assignment, Table};

/// Desired owners, kept until the members change: copies under way then count as placed, so that
/// what was begun is not begun elsewhere again.
#[derive(Debug, Default)]
pub(super) struct Goal {
    candidates: Vec<Candidate>,
    sets: Vec<Vec<NodeId>>,
}

impl Goal {
    /// Follows the members of `table`.
    pub(super) fn update(&mut self, table: &Table) {
        let candidates = candidates(table);
        if self.sets.len() == table.partitions.len() && self.candidates == candidates {
            return;
        }
        let previous: Vec<Vec<NodeId>> =
            table.partitions.iter().map(|assignment| holders(assignment)).collect();
        self.sets = desired(&candidates, table.partitions.len(), table.settings.replicas.into(), &previous);
        self.candidates = candidates;
    }

    /// The desired owners of a partition, the primary first. Empty while there is nobody.
    pub(super) fn of(&self, partition: PartitionId) -> &[NodeId] {
        self.sets.get(partition.index()).map_or(&[], Vec::as_slice)
    }

    /// Replaces `node` as a desired owner of one partition by the candidate, other than those
    /// `barred`, that is wanted least elsewhere. Returns whether there was one.
    pub(super) fn replace(
        &mut self,
        draft: &Draft,
        partition: PartitionId,
        node: NodeId,
        barred: impl Fn(NodeId) -> bool,
    ) -> bool {
        let Some(assignment) = draft.table.assignment(partition) else { return false };
        let set = self.of(partition);
        let wanted = |candidate: &Candidate| {
            let count = self.sets.iter().filter(|set| set.contains(&candidate.node)).count();
            (count as u64 * 1_024 / u64::from(candidate.weight.max(1)), candidate.node)
        };
        let zone_taken = |candidate: &Candidate| {
            candidate.zone.is_some()
                && self.candidates.iter().any(|other| {
                    other.node != node && set.contains(&other.node) && other.zone == candidate.zone
                })
        };
        let best = self
            .candidates
            .iter()
            .filter(|candidate| {
                candidate.node != node
                    && !set.contains(&candidate.node)
                    && !assignment.isr.contains(&candidate.node)
                    && !barred(candidate.node)
            })
            .min_by_key(|candidate| (zone_taken(candidate), wanted(candidate)))
            .map(|candidate| candidate.node);
        let Some(best) = best else { return false };
        let slot =
            self.sets.get_mut(partition.index()).and_then(|set| set.iter_mut().find(|owner| **owner == node));
        if let Some(slot) = slot {
            *slot = best;
        }
        true
    }
}

/// Who holds a partition, the primary first.
fn holders(assignment: &Assignment) -> Vec<NodeId> {
    if assignment.epoch == Epoch(0) {
        return Vec::new();
    }
    let others = assignment.ack_set().filter(|&node| node != assignment.primary);
    std::iter::once(assignment.primary).chain(others).collect()
}
