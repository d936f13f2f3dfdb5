//! From the table as it is towards the goal, one step at a time: attach what is missing, let the
//! primaries move, give up what is left over.

use super::ControllerConfig;
use super::draft::Draft;
use super::goal::Goal;
use super::requests::{Pauses, is_served};
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::table::{Assignment, MemberStatus, Table, TableChange};
use std::collections::{BTreeMap, BTreeSet};

/// Gives partitions that have nothing to lose their owners: new ones, and those whose last holder
/// left of its own accord.
pub(super) fn assign(goal: &Goal, draft: &mut Draft) {
    for partition in draft.table.partition_ids() {
        let Some(assignment) = draft.table.assignment(partition) else { continue };
        let [primary, backups @ ..] = goal.of(partition) else { continue };
        let (epoch, primary) = (assignment.epoch, *primary);
        if epoch == Epoch(0) {
            let backups = backups.to_vec();
            draft.push(TableChange::Assign { partition, primary, backups });
        } else if assignment.isr.is_empty() {
            let backups = backups.to_vec();
            draft.push(TableChange::AcceptLoss { partition, epoch, primary, backups });
        }
    }
}

/// Takes the copies of `Down` members out of the ack sets that others hold up.
///
/// A complete copy stays for now if its primary is one that `hesitates` says may be dead as well:
/// of two that vanished together the wrong one may have been buried first, and its copy may be the
/// one that comes back.
pub(super) fn prune(hesitates: impl Fn(NodeId, NodeId) -> bool, draft: &mut Draft) {
    for partition in draft.table.partition_ids() {
        let Some(assignment) = draft.table.assignment(partition) else { continue };
        let epoch = assignment.epoch;
        let gone = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|&node| !draft.table.is_live(node)).collect()
        };
        let learners = gone(&assignment.learners);
        let replicas = if is_served(&draft.table, assignment) { gone(&assignment.isr) } else { Vec::new() };
        let primary = assignment.primary;
        for node in learners {
            draft.push(TableChange::RemoveLearner { partition, epoch, node });
        }
        for node in replicas.into_iter().filter(|&node| !hesitates(primary, node)) {
            draft.push(TableChange::RemoveReplica { partition, epoch, node });
        }
    }
}

/// Live members of an ack set.
fn live_copies(table: &Table, assignment: &Assignment) -> usize {
    assignment.ack_set().filter(|&node| table.is_live(node)).count()
}

/// Live complete copies.
pub(super) fn complete_copies(table: &Table, assignment: &Assignment) -> usize {
    assignment.isr.iter().filter(|&&node| table.is_live(node)).count()
}

/// Attaches learners: every missing copy at once, those for balance a few at a time, partitions
/// with the fewest complete copies first.
pub(super) fn attach(
    config: &ControllerConfig,
    goal: &Goal,
    pauses: &Pauses,
    mut may_move: impl FnMut(&Table) -> bool,
    draft: &mut Draft,
) {
    let wanted = draft.table.replicas_wanted();
    let mut receiving: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut sending: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut missing: Vec<(bool, usize, PartitionId, NodeId)> = Vec::new();
    for (partition, assignment) in draft.table.partition_ids().zip(&draft.table.partitions) {
        if !is_served(&draft.table, assignment) {
            continue;
        }
        for &learner in &assignment.learners {
            *receiving.entry(learner).or_default() += 1;
            *sending.entry(assignment.primary).or_default() += 1;
        }
        let live = live_copies(&draft.table, assignment);
        let complete = complete_copies(&draft.table, assignment);
        let absent = goal
            .of(partition)
            .iter()
            .filter(|&&node| !assignment.holds(node) && !pauses.is_paused(partition, node));
        for (index, &node) in absent.enumerate() {
            missing.push((live + index >= wanted, complete, partition, node));
        }
    }
    missing.sort_unstable();
    for (for_balance, _, partition, node) in missing {
        let Some(assignment) = draft.table.assignment(partition) else { continue };
        let (epoch, primary) = (assignment.epoch, assignment.primary);
        let busy = |counts: &BTreeMap<NodeId, usize>, node| {
            counts.get(&node).is_some_and(|&count| count >= config.migrations_per_node_max)
        };
        if for_balance && (busy(&receiving, node) || busy(&sending, primary) || !may_move(&draft.table)) {
            continue;
        }
        if draft.push(TableChange::AddLearner { partition, epoch, node }) {
            *receiving.entry(node).or_default() += 1;
            *sending.entry(primary).or_default() += 1;
        }
    }
}

/// Gives up copies that the goal doesn't name: complete ones once the goal is in sync and leads,
/// learners as soon as there are enough others.
pub(super) fn trim(goal: &Goal, draft: &mut Draft) {
    let wanted = draft.table.replicas_wanted();
    for partition in draft.table.partition_ids() {
        let Some(assignment) = draft.table.assignment(partition) else { continue };
        let owners = goal.of(partition);
        if owners.is_empty() || !is_served(&draft.table, assignment) {
            continue;
        }
        let epoch = assignment.epoch;
        let reached = is_reached(owners, assignment);
        let surplus = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !owners.contains(node)).collect()
        };
        let replicas = if reached { surplus(&assignment.isr) } else { Vec::new() };
        let spare = live_copies(&draft.table, assignment).saturating_sub(wanted);
        let learners = surplus(&assignment.learners);
        for node in learners.into_iter().take(if reached { usize::MAX } else { spare }) {
            draft.push(TableChange::RemoveLearner { partition, epoch, node });
        }
        for node in replicas {
            draft.push(TableChange::RemoveReplica { partition, epoch, node });
        }
    }
}

/// Whether all owners of the goal are in sync and the first is primary.
fn is_reached(owners: &[NodeId], assignment: &Assignment) -> bool {
    owners.first() == Some(&assignment.primary) && owners.iter().all(|node| assignment.isr.contains(node))
}

/// Forgets members: leavers that are done, or have nobody to leave to and nobody to wait for, but no voter
/// before others vote in its place, if anybody could; and the dead that `expired` names.
pub(super) fn retire(expired: impl Fn(NodeId) -> bool, voters: &[NodeId], draft: &mut Draft) {
    let deserted = draft.table.heirs().next().is_none();
    let candidates: Vec<NodeId> = draft
        .table
        .members
        .values()
        .filter(|member| match member.status {
            MemberStatus::Up => false,
            MemberStatus::Leaving => deserted || !voters.contains(&member.node),
            MemberStatus::Down => expired(member.node),
        })
        .map(|member| member.node)
        .collect();
    if candidates.is_empty() {
        return;
    }
    let table = &draft.table;
    let named: BTreeSet<NodeId> = table
        .partitions
        .iter()
        .filter(|assignment| assignment.epoch > Epoch(0))
        .flat_map(|assignment| assignment.ack_set().chain([assignment.primary]))
        .collect();
    for node in candidates {
        if deserted || !named.contains(&node) {
            draft.push(TableChange::RemoveMember(node));
        }
    }
}
