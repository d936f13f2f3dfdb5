//! (e) In-sync logs are prefixes of each other. (g) Equal sequence, equal digest.

use super::Finding;
use crate::engine::ids::{NodeId, PartitionId};
use crate::engine::partition::Copy;
use crate::sim::cluster::Cluster;
use smallvec::SmallVec;

/// The in-sync copies of a partition's present reign, the primary's first.
fn reigning(cluster: &Cluster) -> impl Iterator<Item = (PartitionId, SmallVec<[(NodeId, &Copy); 4]>)> {
    let table = cluster.agreed();
    table.into_iter().flat_map(move |table| {
        table.partition_ids().map(move |id| {
            let assignment = &table.partitions[id.index()];
            let others = assignment.isr.iter().filter(|&&node| node != assignment.primary);
            let copies = std::iter::once(&assignment.primary).chain(others).filter_map(|&node| {
                let sim = cluster
                    .nodes
                    .get(&node)
                    .filter(|sim| sim.engine.table().incarnation == table.incarnation)?;
                let partition = sim.engine.partitions().get(id.index())?;
                let copy = partition.copy.as_ref()?;
                (partition.epoch == assignment.epoch && copy.epoch == assignment.epoch)
                    .then_some((node, copy))
            });
            (id, copies.collect())
        })
    })
}

/// Uncommitted records, where two copies have them both, are the same; and no backup is ahead.
pub(super) fn prefixes(cluster: &Cluster) -> Finding {
    for (id, copies) in reigning(cluster) {
        let Some(((primary, first), others)) = copies.split_first() else { continue };
        if !cluster.engine(*primary).partitions()[id.index()].is_primary() {
            continue;
        }
        for (node, copy) in others {
            if copy.last > first.last {
                return Err(format!(
                    "{id}: {node} holds {}, its primary {primary} {}",
                    copy.last, first.last
                ));
            }
            // Both are in order of their sequences.
            let mut ours = first.tail.groups().peekable();
            for group in copy.tail.groups() {
                while ours.peek().is_some_and(|ours| ours.first < group.first) {
                    ours.next();
                }
                if let Some(other) = ours.peek()
                    && (other.first, other.count) == (group.first, group.count)
                    && other.records != group.records
                {
                    return Err(format!(
                        "{id}: {node} and its primary {primary} differ from {} on",
                        group.first
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Copies at the same sequence have the same contents.
pub(super) fn digests(cluster: &Cluster) -> Finding {
    for (id, copies) in reigning(cluster) {
        let Some(((primary, first), others)) = copies.split_first() else { continue };
        if !cluster.engine(*primary).partitions()[id.index()].is_primary() {
            continue;
        }
        for (node, copy) in others.iter().filter(|(_, copy)| copy.last == first.last) {
            let (mine, theirs) = (first.shard.digest_root(), copy.shard.digest_root());
            if mine != theirs || first.shard.len() != copy.shard.len() {
                return Err(format!(
                    "{id} at {}: {primary} has {} entries, {mine:016x}; {node} has {}, {theirs:016x}",
                    first.last,
                    first.shard.len(),
                    copy.shard.len()
                ));
            }
        }
    }
    Ok(())
}
