//! Which acknowledged operations a small cluster may lose: when it is split, both sides go on, and what one
//! of them alone acknowledged ends with it.
//!
//! Each incarnation but the first is begun by a *carrier*, with what it holds. Of what was acknowledged in
//! the incarnation before, it must hold everything up to the moment at which it was last in sync; what came
//! later the others acknowledged without it.

use super::cluster::Cluster;
use crate::engine::ids::{Incarnation, NodeId, PartitionId};
use crate::engine::partition::Role;
use std::collections::{BTreeMap, BTreeSet};

/// Where and when an operation was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Its partition.
    pub partition: PartitionId,
    /// When, in the order of all that is noted here.
    pub at: u64,
    /// The incarnation of the node that answered.
    pub incarnation: Incarnation,
    /// The primary that executed it, if it still was one.
    pub primary: Option<NodeId>,
}

#[derive(Debug)]
struct Takeover {
    from: Incarnation,
    /// When the carrier was last in sync, by partition.
    shared: BTreeMap<PartitionId, u64>,
}

/// The incarnations of a run and where each began.
#[derive(Debug, Default)]
pub struct Branches {
    /// Counts what is noted: two things may happen at one time.
    clock: u64,
    /// When each node was last seen to acknowledge writes of a partition, or to lead it.
    shared: BTreeMap<(PartitionId, NodeId), u64>,
    takeovers: BTreeMap<Incarnation, Takeover>,
    known: BTreeMap<NodeId, Incarnation>,
}

impl Branches {
    /// Looks at who began an incarnation, and at who is in sync.
    pub fn look(&mut self, cluster: &Cluster) {
        self.look_for_takeovers(cluster);
        let incarnations: BTreeSet<Incarnation> = self.known.values().copied().collect();
        let count = usize::from(cluster.settings().partitions);
        for incarnation in incarnations {
            for id in (0..count).map(|index| PartitionId(index as u16)) {
                if let Some(primary) = reigning(cluster, incarnation, id) {
                    self.share(cluster, primary, id);
                }
            }
        }
    }

    fn look_for_takeovers(&mut self, cluster: &Cluster) {
        for (&node, sim) in cluster.nodes.iter().filter(|(_, sim)| sim.up) {
            let table = sim.engine.table();
            let before = self.known.insert(node, table.incarnation);
            if let Some(from) = before
                && from.0 != 0
                && from != table.incarnation
                && table.carried_by == Some(node)
            {
                let mine = self.shared.iter().filter(|((_, other), _)| *other == node);
                let shared = mine.map(|((partition, _), &at)| (*partition, at)).collect();
                self.takeovers.entry(table.incarnation).or_insert(Takeover { from, shared });
            }
        }
    }

    /// Notes that an operation on a partition was answered by `node`.
    pub fn acknowledged(&mut self, cluster: &Cluster, node: NodeId, partition: PartitionId) -> Mark {
        self.look_for_takeovers(cluster);
        let incarnation = cluster.engine(node).table().incarnation;
        let primary = reigning(cluster, incarnation, partition);
        self.clock += 1;
        let at = self.clock;
        if let Some(primary) = primary {
            self.share(cluster, primary, partition);
        }
        Mark { partition, at, incarnation, primary }
    }

    /// Notes that the primary, and whoever acknowledges its writes, have everything up to now.
    fn share(&mut self, cluster: &Cluster, primary: NodeId, id: PartitionId) {
        let engine = cluster.engine(primary);
        let Some(Role::Primary(role)) = engine.partitions().get(id.index()).map(|partition| &partition.role)
        else {
            return;
        };
        let incarnation = engine.table().incarnation;
        // Who has gone over to another incarnation acknowledges nothing of this one.
        let acknowledges = |node: &NodeId| cluster.engine(*node).table().incarnation == incarnation;
        let followers = role.followers.iter().filter(|follower| follower.in_sync);
        for node in followers.map(|follower| follower.node).filter(acknowledges).chain([primary]) {
            self.clock += 1;
            self.shared.insert((id, node), self.clock);
        }
    }

    /// Whether what was acknowledged is part of what `incarnation` began with or did since.
    pub fn is_part_of(&self, mark: &Mark, mut incarnation: Incarnation) -> bool {
        while incarnation > mark.incarnation {
            let Some(Takeover { from, shared }) = self.takeovers.get(&incarnation) else { return false };
            if *from == mark.incarnation {
                return shared.get(&mark.partition).is_some_and(|&shared| mark.at <= shared);
            }
            incarnation = *from;
        }
        incarnation == mark.incarnation
    }
}

/// Who acknowledges operations of a partition in an incarnation, unless nobody does: who leads the latest
/// reign that any node of it knows of.
fn reigning(cluster: &Cluster, incarnation: Incarnation, id: PartitionId) -> Option<NodeId> {
    let known = cluster.nodes.iter().filter_map(|(&node, sim)| {
        let partition = sim.engine.partitions().get(id.index())?;
        let is_of_it = sim.up && sim.engine.table().incarnation == incarnation;
        is_of_it.then_some((partition.epoch, partition.is_primary(), node))
    });
    known.max().filter(|(_, leads, _)| *leads).map(|(.., node)| node)
}
