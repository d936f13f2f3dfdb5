//! (c) What is committed is held by every in-sync copy. (d) A new primary holds all of it.

use super::Finding;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, Version};
use crate::engine::partition::Role;
use crate::sim::cluster::Cluster;
use std::collections::BTreeMap;

/// How far a partition was ever committed, by anyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) sequence: Sequence,
    /// A reading of the clock that is part of what was committed.
    pub(super) version: Version,
}

/// How far each partition was ever committed, by reign.
#[derive(Debug, Default)]
pub(super) struct Commits {
    reached: BTreeMap<PartitionId, BTreeMap<(Incarnation, Epoch), Committed>>,
    seen: BTreeMap<(NodeId, PartitionId), (Incarnation, Epoch, Sequence)>,
}

impl Commits {
    /// How far a partition was committed in reigns up to this one. A node that was paused may begin
    /// a reign that is long over; what came later is none of its business.
    pub(super) fn until(&self, partition: PartitionId, reign: (Incarnation, Epoch)) -> Committed {
        let reigns = self.reached.get(&partition).into_iter().flat_map(|reigns| reigns.range(..=reign));
        reigns.fold(Committed::default(), |most, (_, committed)| Committed {
            sequence: most.sequence.max(committed.sequence),
            version: most.version.max(committed.version),
        })
    }

    /// Compares what the node has newly committed with the copies of all that it must be on.
    pub(super) fn look(&mut self, cluster: &Cluster, node: NodeId) -> Finding {
        let engine = cluster.engine(node);
        let incarnation = engine.table().incarnation;
        for partition in engine.partitions() {
            let (Role::Primary(primary), Some(copy)) = (&partition.role, &partition.copy) else { continue };
            let now = (incarnation, partition.epoch, copy.commit);
            if self.seen.insert((node, partition.id), now) == Some(now) {
                continue;
            }
            if copy.commit > copy.last {
                return Err(format!(
                    "{node} {}: commit {} beyond last {}",
                    partition.id, copy.commit, copy.last
                ));
            }
            // Whoever knows of a later reign may have handed its copy on: then its new primary has it.
            let listed = |node: NodeId| {
                let table = cluster.agreed().filter(|table| table.incarnation == incarnation);
                table
                    .and_then(|table| table.assignment(partition.id))
                    .is_none_or(|assignment| assignment.isr.contains(&node))
            };
            let later = cluster.agreed().filter(|table| table.incarnation == incarnation);
            let later = later.and_then(|table| table.assignment(partition.id));
            let later = later
                .filter(|assignment| assignment.epoch > partition.epoch)
                .map(|assignment| assignment.primary);
            let followers = primary
                .followers
                .iter()
                .filter(|follower| follower.in_sync && listed(follower.node))
                .map(|follower| follower.node);
            let holders: Vec<NodeId> = later.map_or_else(|| followers.collect(), |primary| vec![primary]);
            for holder in holders.into_iter().filter(|_| copy.commit > Sequence(0)) {
                let other = &cluster.engine(holder).partitions();
                let held = other
                    .get(partition.id.index())
                    .and_then(|other| other.copy.as_ref())
                    .map(|copy| copy.last);
                if held.is_none_or(|held| held < copy.commit) {
                    let (id, epoch, commit) = (partition.id, partition.epoch, copy.commit);
                    return Err(format!(
                        "{node} {id} {epoch}: committed {commit}, in-sync {holder} holds {held:?}"
                    ));
                }
            }
            let reached = self
                .reached
                .entry(partition.id)
                .or_default()
                .entry((incarnation, partition.epoch))
                .or_default();
            reached.sequence = reached.sequence.max(copy.commit);
            if copy.commit == copy.last {
                reached.version = reached.version.max(copy.hlc.last());
            }
        }
        Ok(())
    }

    /// A primary holds everything that was ever committed, and its clock is not behind.
    pub(super) fn promoted(&self, cluster: &Cluster, node: NodeId) -> Finding {
        let engine = cluster.engine(node);
        let incarnation = engine.table().incarnation;
        for partition in engine.partitions() {
            let (true, Some(copy)) = (partition.is_primary(), &partition.copy) else { continue };
            let known = self.seen.get(&(node, partition.id));
            if known.is_some_and(|known| (known.0, known.1) == (incarnation, partition.epoch)) {
                continue;
            }
            let reached = self.until(partition.id, (incarnation, partition.epoch));
            if copy.last < reached.sequence {
                return Err(format!(
                    "{node} {} {}: begins at {}, {} was committed",
                    partition.id, partition.epoch, copy.last, reached.sequence
                ));
            }
            if copy.hlc.last() < reached.version {
                return Err(format!(
                    "(i) {node} {} {}: its clock reads {:?}, {:?} was given and committed",
                    partition.id,
                    partition.epoch,
                    copy.hlc.last(),
                    reached.version
                ));
            }
        }
        Ok(())
    }
}
