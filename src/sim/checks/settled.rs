//! Liveness: once faults have stopped, everything is whole again.

use crate::engine::ids::{Epoch, PartitionId};
use crate::engine::partition::Role;
use crate::engine::table::{Assignment, MemberStatus};
use crate::sim::cluster::Cluster;

/// The partitions that are dead, and have to be: nobody who lives has a complete copy.
pub fn lost(cluster: &Cluster) -> Vec<PartitionId> {
    let Some(table) = cluster.agreed() else { return Vec::new() };
    let lost = table.partition_ids().filter(|&id| {
        let assignment = &table.partitions[id.index()];
        table.is_dead(id) && !assignment.isr.iter().any(|&node| cluster.lives(node))
    });
    lost.collect()
}

/// Why the cluster is not whole yet; `None` if it is: one table at all members, every partition
/// served with full copies that are equal, and nothing else kept. Those that are `excused` may be dead.
pub fn unsettled(cluster: &Cluster, excused: &[PartitionId]) -> Option<String> {
    let live = cluster.live();
    let table = cluster.agreed()?;
    for &node in &live {
        let mine = cluster.engine(node).table();
        if (mine.incarnation, mine.version) != (table.incarnation, table.version) {
            return Some(format!(
                "{node} has {} {}, agreed is {} {}",
                mine.incarnation, mine.version, table.incarnation, table.version
            ));
        }
        if table.members.get(&node).map(|member| member.status) != Some(MemberStatus::Up) {
            let status = table.members.get(&node).map(|member| member.status);
            let held = table.partition_ids().zip(&table.partitions);
            let held: Vec<_> = held
                .filter(|(id, assignment)| assignment.holds(node) && !excused.contains(id))
                .map(|(id, assignment)| {
                    format!("{id} {assignment:?}, {}", followers(cluster, id, assignment))
                })
                .collect();
            let keeps = table.partition_ids().zip(&table.partitions);
            let keeps = keeps.filter(|(id, assignment)| excused.contains(id) && assignment.holds(node));
            // Whoever wants to leave waits with what it has of a dead partition.
            let waits = status == Some(MemberStatus::Leaving) && held.is_empty() && keeps.count() > 0;
            if !waits {
                return Some(format!("{node} lives and is {status:?}, holding {held:?}"));
            }
        }
    }
    let gone = table
        .members
        .values()
        .find(|member| member.status != MemberStatus::Down && !live.contains(&member.node));
    if let Some(member) = gone {
        return Some(format!("{} is gone and still {:?}", member.node, member.status));
    }
    let wanted = table.replicas_wanted();
    for (id, assignment) in table.partition_ids().zip(&table.partitions) {
        if excused.contains(&id) {
            continue;
        }
        let whole = assignment.epoch > Epoch(0)
            && assignment.learners.is_empty()
            && assignment.isr.len() == wanted
            && assignment.isr.iter().all(|node| live.contains(node));
        if !whole {
            return Some(format!("{id} is {assignment:?}, {}", followers(cluster, id, assignment)));
        }
        let primary = &cluster.engine(assignment.primary).partitions()[id.index()];
        let Some(first) =
            primary.copy.as_ref().filter(|copy| primary.is_primary() && copy.commit == copy.last)
        else {
            return Some(format!("{id} is not served by {}", assignment.primary));
        };
        for &node in &live {
            let copy = &cluster.engine(node).partitions()[id.index()].copy;
            let equal = copy.as_ref().is_some_and(|copy| {
                copy.last == first.last && copy.shard.digest_root() == first.shard.digest_root()
            });
            match assignment.isr.contains(&node) {
                true if !equal => {
                    return Some(format!("{id} at {node} is not what {} has", assignment.primary));
                }
                false if copy.is_some() => return Some(format!("{id} is still kept by {node}")),
                _ => {}
            }
        }
    }
    None
}

/// How the primary sees the other holders of a partition.
fn followers(cluster: &Cluster, id: PartitionId, assignment: &Assignment) -> String {
    let primary = cluster.nodes.get(&assignment.primary).map(|sim| &sim.engine.partitions()[id.index()]);
    match primary.map(|primary| (&primary.role, &primary.copy)) {
        Some((Role::Primary(primary), Some(copy))) => {
            format!("at {} of {}, followed by {:?}", copy.commit, copy.last, primary.followers)
        }
        _ => "not led".into(),
    }
}
