//! (f) Never fewer than the configured complete copies by our own doing.

use super::commits::Commits;
use super::{Finding, Seen};
use crate::engine::ids::{Incarnation, NodeId, PartitionId};
use crate::engine::node::Engine;
use crate::engine::table::Table;
use std::collections::{BTreeMap, BTreeSet};

/// Who was seen to hold a complete copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    held: BTreeSet<(NodeId, PartitionId, Incarnation)>,
    /// Who was given up, and whose copies were needed for that.
    relied_on: BTreeMap<(NodeId, PartitionId, Incarnation), BTreeSet<NodeId>>,
}

impl Copies {
    /// A copy that the node has given up since the last look must be held by enough others.
    pub(super) fn look(&mut self, seen: Seen<'_>, commits: &Commits) -> Finding {
        let Seen { cluster, node, engine, incarnation, partition } = seen;
        let table = engine.table();
        let key = (node, partition.id, incarnation);
        if partition.copy.is_some() {
            self.held.insert(key);
            self.relied_on.remove(&key);
            return Ok(());
        }
        if !self.held.remove(&key) {
            return Ok(());
        }
        let committed = commits.until(partition.id, (incarnation, partition.epoch)).sequence;
        // Anywhere: this node's table may be old, and the copies elsewhere by now. One that was counted out
        // since failed, which is no doing of ours, or was given up for others than this one, which was looked
        // at then.
        let lists = |table: &Table, other| {
            table.assignment(partition.id).is_some_and(|assignment| assignment.isr.contains(&other))
        };
        let relied = |other| {
            let relied_on = self.relied_on.get(&(other, partition.id, incarnation));
            relied_on.is_some_and(|relied_on| relied_on.contains(&node))
        };
        let counted_out = |other| {
            lists(table, other) && cluster.agreed().is_some_and(|now| !lists(now, other)) && !relied(other)
        };
        // Nor is one that was given up for a later incarnation, which this node doesn't know of yet.
        let moved = |other, engine: &Engine| lists(table, other) && engine.table().incarnation > incarnation;
        let others = || cluster.nodes.iter().filter(|(other, _)| **other != node);
        let last = |engine: &Engine| {
            let other = engine.partitions().get(partition.id.index());
            other.and_then(|other| other.copy.as_ref()).map(|copy| copy.last)
        };
        let complete: BTreeSet<NodeId> = others()
            .filter(|(other, sim)| {
                let held = last(&sim.engine).is_some_and(|last| last >= committed);
                held || counted_out(**other) || moved(**other, &sim.engine)
            })
            .map(|(other, _)| *other)
            .collect();
        let up = table.owners().count();
        let wanted = usize::from(table.settings.replicas).min(up.max(1));
        if complete.len() < wanted {
            let held: Vec<_> = others().map(|(other, sim)| (other, last(&sim.engine))).collect();
            return Err(format!(
                "{node} gave up {} with {} of {wanted} complete copies, {committed} committed; at {} {:?}, \
                 agreed {:?}, held {held:?}",
                partition.id,
                complete.len(),
                table.version,
                table.assignment(partition.id),
                cluster.agreed().and_then(|now| now.assignment(partition.id)),
            ));
        }
        if complete.len() == wanted {
            self.relied_on.insert(key, complete);
        }
        Ok(())
    }
}
