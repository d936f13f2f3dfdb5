//! (f) Never fewer than the configured complete copies by our own doing.

use super::Finding;
use super::commits::Commits;
use crate::engine::ids::{Incarnation, NodeId, PartitionId};
use crate::engine::table::{MemberStatus, Table};
use crate::sim::cluster::Cluster;
use std::collections::BTreeSet;

/// Who was seen to hold a complete copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    held: BTreeSet<(NodeId, PartitionId, Incarnation)>,
}

impl Copies {
    /// A copy that the node has given up since the last look must be held by enough others.
    pub(super) fn look(&mut self, cluster: &Cluster, node: NodeId, commits: &Commits) -> Finding {
        let engine = cluster.engine(node);
        let table = engine.table();
        let incarnation = table.incarnation;
        for partition in engine.partitions() {
            let key = (node, partition.id, incarnation);
            if partition.copy.is_some() {
                self.held.insert(key);
                continue;
            }
            if !self.held.remove(&key) {
                continue;
            }
            let committed = commits.until(partition.id, (incarnation, partition.epoch)).sequence;
            // Anywhere: this node's table may be old, and the copies elsewhere by now. One that failed
            // since, and missed what was committed without it, is no doing of ours.
            let newest =
                cluster.nodes.values().map(|sim| sim.engine.table()).max_by_key(|table| table.version);
            let lists = |table: &Table, other| table.partitions[partition.id.index()].isr.contains(&other);
            let failed = |other| lists(table, other) && newest.is_some_and(|newest| !lists(newest, other));
            let complete = cluster
                .nodes
                .iter()
                .filter(|(other, sim)| {
                    let copy = sim.engine.partitions().get(partition.id.index());
                    let last = copy.and_then(|other| other.copy.as_ref()).map(|copy| copy.last);
                    **other != node && last.is_some_and(|last| last >= committed || failed(**other))
                })
                .count();
            let up = table.members.values().filter(|member| member.status == MemberStatus::Up).count();
            let wanted = usize::from(table.settings.replicas).min(up.max(1));
            if complete < wanted {
                return Err(format!(
                    "{node} gave up {} with {complete} of {wanted} complete copies, {committed} committed",
                    partition.id
                ));
            }
        }
        Ok(())
    }
}
