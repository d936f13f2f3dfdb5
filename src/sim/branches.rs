//! Which acknowledged operations a small cluster may lose: when it is split, both sides go on, and what one
//! of them alone acknowledged ends with it.
//!
//! Each incarnation but the first is begun by a *carrier*, with what it holds. Of what was acknowledged in
//! the incarnation before, it must hold everything up to the moment at which it was last in sync; what came
//! later the others acknowledged without it.

use super::cluster::Cluster;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
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
    /// The latest reign of each partition that any node of an incarnation ever knew of.
    reigns: BTreeMap<(Incarnation, PartitionId), Epoch>,
}

impl Branches {
    /// Looks at who began an incarnation, and at who is in sync.
    pub fn look(&mut self, cluster: &Cluster) {
        self.look_for_takeovers(cluster);
        let incarnations: BTreeSet<Incarnation> = self.known.values().copied().collect();
        let count = usize::from(cluster.settings().partitions);
        for incarnation in incarnations {
            for id in (0..count).map(|index| PartitionId(index as u16)) {
                if let Some(primary) = self.reigning(cluster, incarnation, id) {
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
        let primary = self.reigning(cluster, incarnation, partition);
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

    /// Who acknowledges operations of a partition in an incarnation, unless nobody does: who leads the
    /// latest reign that any node of it has known of. Whoever stayed behind in it when the others went over to
    /// the next doesn't lead again by that (seed 2001185).
    fn reigning(&mut self, cluster: &Cluster, incarnation: Incarnation, id: PartitionId) -> Option<NodeId> {
        let known = cluster.nodes.iter().filter_map(|(&node, sim)| {
            let partition = sim.engine.partitions().get(id.index())?;
            let is_of_it = sim.up && sim.engine.table().incarnation == incarnation;
            is_of_it.then_some((partition.epoch, partition.is_primary(), node))
        });
        let (epoch, leads, node) = known.max()?;
        let latest = self.reigns.entry((incarnation, id)).or_default();
        *latest = epoch.max(*latest);
        (leads && epoch == *latest).then_some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::table::{ClusterSettings, Survival};
    use crate::sim::testing::{SECOND_US, formed};

    /// What one node acknowledged alone was counted as known to the other, deposed and away: after the rest
    /// had gone over to a later incarnation, it seemed to lead again (seed 2001185).
    #[test]
    fn who_stays_behind_leads_nothing_again() {
        let settings =
            ClusterSettings { partitions: 4, replicas: 2, min_copies: 2, survival: Survival::Auto };
        let (mut cluster, nodes) = formed(71, settings, 2);
        let (mut branches, table) = (Branches::default(), cluster.agreed().expect("a table").clone());
        let leader = cluster.latest_log().and_then(|log| log.leader).expect("a leader");
        let away = *nodes.iter().find(|&&node| node != leader).expect("two nodes");
        let mut led = table.partition_ids().filter(|id| table.partitions[id.index()].primary == away);
        let partition = led.next().expect("balance");
        let first = table.incarnation;
        branches.look(&cluster);
        cluster.pause(away, 20 * SECOND_US);
        let alone = |cluster: &Cluster| {
            cluster.agreed().is_some_and(|table| table.partitions.iter().all(|it| it.isr == [leader]))
        };
        assert!(cluster.run_until(15 * SECOND_US, alone), "{:?}", cluster.agreed());
        branches.look(&cluster);
        let mark = branches.acknowledged(&cluster, leader, partition);
        assert_eq!(mark.primary, Some(leader));
        let newcomer = cluster.start();
        let two = |cluster: &Cluster| {
            cluster.agreed().is_some_and(|table| table.partitions.iter().all(|it| it.isr.len() == 2))
        };
        assert!(cluster.run_until(10 * SECOND_US, two), "{:?}", cluster.agreed());
        branches.look(&cluster);
        for other in [leader, newcomer] {
            cluster.network.cut(away, other);
            cluster.network.cut(other, away);
        }
        cluster.crash(leader);
        for _ in 0..400 {
            cluster.run(100_000);
            branches.look(&cluster);
        }
        let lives = [newcomer, away].map(|node| cluster.engine(node).table().incarnation);
        assert!(lives.iter().all(|&life| life > first) && lives[0] != lives[1], "{lives:?}");
        assert!(branches.is_part_of(&mark, lives[0]), "it was handed on");
        assert!(!branches.is_part_of(&mark, lives[1]), "it never was there");
    }
}
