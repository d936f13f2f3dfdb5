//! (c) What is committed is held by every in-sync copy, and by every attached learner. (d) A new primary
//! holds all of it.

use super::{Finding, Seen};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, Version};
use crate::engine::partition::primary::Primary;
use crate::engine::partition::{Copy, Role};
use crate::engine::table::Table;
use crate::sim::cluster::Cluster;
use smallvec::SmallVec;
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
    /// What each node was in sync for, in which incarnation.
    shared: BTreeMap<(PartitionId, NodeId), (Incarnation, Committed)>,
    /// The incarnation that each node is in.
    known: BTreeMap<NodeId, Incarnation>,
    /// What the survivor of a small cluster must have carried into a later incarnation.
    carried: BTreeMap<Incarnation, BTreeMap<PartitionId, Committed>>,
}

impl Commits {
    /// Looks at whether an incarnation is new. Whoever carries its copies into it has what was committed
    /// while it was in sync; what others committed alone since ends with them.
    pub(super) fn carried(&mut self, cluster: &Cluster, node: NodeId, table: &Table) {
        let from = self.known.insert(node, table.incarnation).unwrap_or_default();
        if from == table.incarnation || table.carried_by != Some(node) {
            return;
        }
        let count = usize::from(cluster.settings().partitions);
        let base = (0..count).map(|index| {
            let id = PartitionId(index as u16);
            let shared = self.shared.get(&(id, node)).filter(|(incarnation, _)| *incarnation == from);
            let before = || self.carried.get(&from).and_then(|carried| carried.get(&id)).copied();
            (id, shared.map(|(_, committed)| *committed).or_else(before).unwrap_or_default())
        });
        let base = base.collect();
        self.carried.insert(table.incarnation, base);
    }

    /// How far a partition was committed in reigns up to this one. A node that was paused may begin
    /// a reign that is long over; what came later is none of its business.
    pub(super) fn until(&self, partition: PartitionId, reign: (Incarnation, Epoch)) -> Committed {
        let carried = self.carried.get(&reign.0);
        let base = carried.and_then(|carried| carried.get(&partition)).copied().unwrap_or_default();
        let from = if carried.is_some() { reign.0 } else { Incarnation(0) };
        let reigns = self.reached.get(&partition).into_iter();
        let reigns = reigns.flat_map(|reigns| reigns.range((from, Epoch(0))..=reign));
        reigns.fold(base, |most, (_, committed)| Committed {
            sequence: most.sequence.max(committed.sequence),
            version: most.version.max(committed.version),
        })
    }

    /// Compares what the node has newly committed with the copies of all that it must be on.
    pub(super) fn look(&mut self, seen: Seen<'_>) -> Finding {
        let Seen { cluster, node, incarnation, partition, .. } = seen;
        let (Role::Primary(primary), Some(copy)) = (&partition.role, &partition.copy) else { return Ok(()) };
        let (id, epoch) = (partition.id, partition.epoch);
        let now = (incarnation, epoch, copy.commit);
        if self.seen.insert((node, id), now) == Some(now) {
            return Ok(());
        }
        if copy.commit > copy.last {
            return Err(format!("{node} {id}: commit {} beyond last {}", copy.commit, copy.last));
        }
        let agreed = cluster.agreed().filter(|table| table.incarnation == incarnation);
        let agreed = agreed.and_then(|table| table.assignment(id));
        // Whoever knows of a later reign may have handed its copy on: then its new primary has it.
        let holders: SmallVec<[NodeId; 4]> = match agreed.filter(|assignment| assignment.epoch > epoch) {
            Some(later) => std::iter::once(later.primary).collect(),
            None => primary
                .followers
                .iter()
                .filter(|follower| {
                    follower.in_sync
                        && agreed.is_none_or(|assignment| assignment.isr.contains(&follower.node))
                })
                .map(|follower| follower.node)
                .collect(),
        };
        // Who has gone over to another incarnation since starts over, or answers to others.
        let same = |holder: &&NodeId| cluster.engine(**holder).table().incarnation == incarnation;
        for &holder in holders.iter().filter(|_| copy.commit > Sequence(0)).filter(same) {
            let other = cluster.engine(holder).partitions().get(id.index());
            let held = other.and_then(|other| other.copy.as_ref()).map(|copy| copy.last);
            if held.is_none_or(|held| held < copy.commit) {
                let commit = copy.commit;
                return Err(format!(
                    "{node} {id} {epoch}: committed {commit}, in-sync {holder} holds {held:?}"
                ));
            }
        }
        learners_hold(seen, primary, copy)?;
        let reached = self.reached.entry(id).or_default().entry((incarnation, epoch)).or_default();
        reached.sequence = reached.sequence.max(copy.commit);
        if copy.commit == copy.last {
            reached.version = reached.version.max(copy.hlc.last());
        }
        let reached = *reached;
        for &holder in holders.iter().filter(same).chain([&node]) {
            self.shared.insert((id, holder), (incarnation, reached));
        }
        Ok(())
    }

    /// A primary holds everything that was ever committed, and its clock is not behind.
    pub(super) fn promoted(&self, seen: Seen<'_>) -> Finding {
        let Seen { node, incarnation, partition, .. } = seen;
        let (true, Some(copy)) = (partition.is_primary(), &partition.copy) else { return Ok(()) };
        let (id, epoch) = (partition.id, partition.epoch);
        let known = self.seen.get(&(node, id));
        if known.is_some_and(|known| (known.0, known.1) == (incarnation, epoch)) {
            return Ok(());
        }
        let reached = self.until(id, (incarnation, epoch));
        if copy.last < reached.sequence {
            let committed = reached.sequence;
            return Err(format!("{node} {id} {epoch}: begins at {}, {committed} was committed", copy.last));
        }
        if copy.hlc.last() < reached.version {
            return Err(format!(
                "(i) {node} {id} {epoch}: its clock reads {:?}, {:?} was given and committed",
                copy.hlc.last(),
                reached.version
            ));
        }
        Ok(())
    }
}

/// What has just been committed is held by every attached learner, too: should all copies in sync be lost,
/// what the learners took decides whether a former copy has everything.
fn learners_hold(seen: Seen<'_>, primary: &Primary, copy: &Copy) -> Finding {
    let Seen { cluster, node, incarnation, partition, .. } = seen;
    for learner in primary.followers.iter().filter(|follower| follower.attached && !follower.in_sync) {
        let engine = cluster.engine(learner.node);
        let Some(other) = engine.partitions().get(partition.id.index()) else { continue };
        if engine.table().incarnation != incarnation || other.epoch != partition.epoch || !other.follows(node)
        {
            continue;
        }
        // Of a later attempt, the primary will hear.
        let staged = other.staging.as_ref().filter(|it| it.attempt() == learner.attempt).map(|it| &it.copy);
        let complete =
            other.copy.as_ref().filter(|it| it.is_current(other.epoch) && it.attempt == learner.attempt);
        if let Some(held) = staged.or(complete)
            && held.last < copy.commit
        {
            let (id, commit) = (partition.id, copy.commit);
            return Err(format!(
                "{node} {id}: committed {commit}, learner {} holds {}",
                learner.node, held.last
            ));
        }
    }
    Ok(())
}
