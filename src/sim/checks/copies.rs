//! (f) Never fewer than the configured complete copies by our own doing.

use super::commits::Commits;
use super::{Finding, Seen};
use crate::engine::ids::{Incarnation, NodeId, PartitionId};
use crate::engine::node::Engine;
use crate::engine::table::Table;
use std::collections::BTreeSet;

/// Who was seen to hold a complete copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    held: BTreeSet<(NodeId, PartitionId, Incarnation)>,
}

impl Copies {
    /// A copy that the node has given up since the last look must be held by enough others.
    pub(super) fn look(&mut self, seen: Seen<'_>, commits: &Commits) -> Finding {
        let Seen { cluster, node, engine, incarnation, partition } = seen;
        let table = engine.table();
        let key = (node, partition.id, incarnation);
        if partition.copy.is_some() {
            self.held.insert(key);
            return Ok(());
        }
        if !self.held.remove(&key) {
            return Ok(());
        }
        let committed = commits.until(partition.id, (incarnation, partition.epoch)).sequence;
        // Anywhere: this node's table may be old, and the copies elsewhere by now. One that failed
        // since, and missed what was committed without it, is no doing of ours.
        let lists = |table: &Table, other| {
            table.assignment(partition.id).is_some_and(|assignment| assignment.isr.contains(&other))
        };
        let failed = |other| lists(table, other) && cluster.agreed().is_some_and(|now| !lists(now, other));
        // Nor is one that was given up for a later incarnation, which this node doesn't know of yet.
        let moved = |other, engine: &Engine| lists(table, other) && engine.table().incarnation > incarnation;
        let complete = cluster
            .nodes
            .iter()
            .filter(|(other, sim)| {
                let copy = sim.engine.partitions().get(partition.id.index());
                let last = copy.and_then(|other| other.copy.as_ref()).map(|copy| copy.last);
                let held = last.is_some_and(|last| last >= committed || failed(**other));
                **other != node && (held || moved(**other, &sim.engine))
            })
            .count();
        let up = table.owners().count();
        let wanted = usize::from(table.settings.replicas).min(up.max(1));
        if complete < wanted {
            return Err(format!(
                "{node} gave up {} with {complete} of {wanted} complete copies, {committed} committed",
                partition.id
            ));
        }
        Ok(())
    }
}
