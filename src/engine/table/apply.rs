//! The table's only way forward: applying agreed entries.
//!
//! Every guard here is a promise that the rest of the system leans on: whatever a controller
//! proposes, late, twice or while another one leads, the table stays consistent.

use super::{
    Assignment, COPIES_MAX, Former, MAP_COUNT_MAX, MEMBER_COUNT_MAX, MapDefinition, Member, MemberStatus,
    NAME_BYTES_MAX, RETIRED_COUNT_MAX, Table, TableChange,
};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, TableVersion};
use std::sync::Arc;

/// What became of one entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The table's version after the entry.
    pub version: TableVersion,
    /// Changes that took effect.
    pub applied: usize,
    /// Changes that no longer fitted and had no effect.
    pub skipped: usize,
}

impl Table {
    /// Applies one agreed entry. Deterministic and total: a change that no longer fits is skipped
    /// and counted.
    pub fn apply(&mut self, entry: &[TableChange]) -> Applied {
        let applied = entry.iter().filter(|change| self.apply_change(change)).count();
        self.forget_former();
        self.version = self.version.next();
        debug_assert_eq!(self.checks(), Ok(()));
        Applied { version: self.version, applied, skipped: entry.len() - applied }
    }

    /// Applies one change without counting a version. Returns whether it had an effect.
    pub(crate) fn apply_change(&mut self, change: &TableChange) -> bool {
        match change {
            TableChange::PutMember(member) => self.put_member(member),
            TableChange::SetStatus(node, status) => self.set_status(*node, *status),
            TableChange::RemoveMember(node) => self.remove_member(*node),
            TableChange::Assign { partition, primary, backups } => {
                self.begin(*partition, Epoch(0), *primary, backups)
            }
            TableChange::AcceptLoss { partition, epoch, primary, backups } => {
                self.is_dead(*partition) && self.begin(*partition, *epoch, *primary, backups)
            }
            TableChange::AddLearner { partition, epoch, node } => {
                let live = self.is_live(*node);
                let version = self.version.next();
                self.reign(*partition, *epoch).is_some_and(|assignment| {
                    let fits = live && !assignment.holds(*node) && assignment.ack_set().count() < COPIES_MAX;
                    if fits {
                        assignment.learners.push(*node);
                        assignment.since.insert(*node, version);
                    }
                    fits
                })
            }
            TableChange::RemoveLearner { partition, epoch, node } => {
                self.reign(*partition, *epoch).is_some_and(|assignment| {
                    let fits = take_learner(assignment, *node);
                    if fits {
                        // It may be the only one that took writes since; nobody can tell any more.
                        assignment.former.clear();
                    }
                    fits
                })
            }
            TableChange::Complete { partition, epoch, node, since } => {
                self.complete(*partition, *epoch, *node, *since)
            }
            TableChange::RemoveReplica { partition, epoch, node } => {
                // A backup until now: its log is part of the primary's.
                self.may_remove(*partition, *node) && self.remove_copy(*partition, *epoch, *node, true)
            }
            TableChange::RemoveLagging { partition, epoch, node, sound } => {
                self.primary_is_live(*partition) && self.remove_copy(*partition, *epoch, *node, *sound)
            }
            TableChange::Failover { partition, epoch, primary, isr, last } => {
                self.failover(*partition, *epoch, *primary, isr, *last)
            }
            TableChange::Recover { partition, epoch, primary, accepted } => {
                self.recover(*partition, *epoch, *primary, *accepted)
            }
            TableChange::Handover { partition, epoch, to } => {
                let live = self.is_live(*to);
                self.reign(*partition, *epoch).is_some_and(|assignment| {
                    let fits = live && assignment.isr.contains(to) && assignment.primary != *to;
                    if fits {
                        assignment.primary = *to;
                        assignment.epoch = assignment.epoch.next();
                    }
                    fits
                })
            }
            TableChange::CancelHandover { partition, epoch } => {
                self.primary_is_live(*partition)
                    && self.reign(*partition, *epoch).is_some_and(|assignment| {
                        assignment.epoch = assignment.epoch.next();
                        true
                    })
            }
            TableChange::DefineMap(definition) => self.define_map(definition),
            TableChange::NewIncarnation(incarnation) => {
                let fits = *incarnation > self.incarnation;
                if fits {
                    self.incarnation = *incarnation;
                }
                fits
            }
        }
    }

    /// Strikes the former copies without which a write may be acknowledged, or a read served, and
    /// nobody that lives would know. Looked at once an entry: primaries see only whole entries.
    fn forget_former(&mut self) {
        let needed = self.copies_needed();
        for assignment in &mut self.partitions {
            let enough = assignment.isr.len() >= needed || assignment.learners.is_empty();
            if enough && !assignment.former.is_empty() {
                Arc::make_mut(assignment).former.clear();
            }
        }
    }

    /// The assignment of an assigned partition if it is still at `epoch`.
    fn reign(&mut self, partition: PartitionId, epoch: Epoch) -> Option<&mut Assignment> {
        self.partitions
            .get_mut(partition.index())
            .filter(|assignment| assignment.epoch == epoch && epoch > Epoch(0))
            .map(Arc::make_mut)
    }

    fn primary_is_live(&self, partition: PartitionId) -> bool {
        self.assignment(partition).is_some_and(|assignment| self.is_live(assignment.primary))
    }

    fn put_member(&mut self, member: &Member) -> bool {
        let named = member.name.len() <= NAME_BYTES_MAX
            && member.zone.as_ref().is_none_or(|zone| zone.len() <= NAME_BYTES_MAX);
        if !named || self.is_retired(member.node) {
            return false;
        }
        let mut member = member.clone();
        match self.members.get(&member.node) {
            None if self.members.len() >= MEMBER_COUNT_MAX => return false,
            None => {}
            Some(known) => {
                if !may_become(known.status, member.status) {
                    member.status = known.status;
                }
                if *known == member {
                    return false;
                }
            }
        }
        self.members.insert(member.node, member);
        self.note_three();
        true
    }

    fn set_status(&mut self, node: NodeId, status: MemberStatus) -> bool {
        let Some(member) = self.members.get_mut(&node) else { return false };
        let fits = member.status != status && may_become(member.status, status);
        if fits {
            member.status = status;
            self.note_three();
        }
        fits
    }

    fn note_three(&mut self) {
        self.ever_three |= self.live_members().count() >= 3;
    }

    fn live_members(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.status != MemberStatus::Down)
    }

    fn remove_member(&mut self, node: NodeId) -> bool {
        let Some(member) = self.members.get(&node) else { return false };
        let deserted = member.status == MemberStatus::Leaving && self.heirs().next().is_none();
        if deserted {
            // Nobody can take its copies, and it goes in any case: better to say so.
            let held = self.partitions.iter_mut().filter(|assignment| assignment.holds(node));
            for assignment in held.map(Arc::make_mut) {
                take(&mut assignment.isr, node);
                take_learner(assignment, node);
            }
        } else if self.names(node) {
            return false;
        }
        self.members.remove(&node);
        if self.retired.len() >= RETIRED_COUNT_MAX {
            self.retired.remove(0);
        }
        self.retired.push(node);
        true
    }

    /// Whether an assignment names `node`: as primary, in-sync replica or learner.
    pub fn names(&self, node: NodeId) -> bool {
        self.partitions.iter().any(|assignment| {
            assignment.epoch > Epoch(0) && (assignment.primary == node || assignment.holds(node))
        })
    }

    /// The life of the cluster that `carrier`, the survivor of a small one, begins with what it holds. The
    /// others' copies are void in it, also of those that come back, and nobody may count on them: they
    /// are no longer named. What `carrier` has no complete copy of begins empty.
    pub fn carried_on(&self, incarnation: Incarnation, carrier: NodeId) -> Table {
        let mut table = self.clone();
        table.apply(&[TableChange::NewIncarnation(incarnation)]);
        table.carried_by = Some(carrier);
        for member in table.members.values_mut().filter(|member| member.node != carrier) {
            if member.status == MemberStatus::Up {
                member.status = MemberStatus::Down;
            }
        }
        for assignment in table.partitions.iter_mut().filter(|assignment| assignment.epoch > Epoch(0)) {
            let epoch = assignment.epoch.next();
            let origin = if assignment.isr.contains(&carrier) { assignment.origin } else { epoch };
            let isr = vec![carrier];
            let carried = Assignment { epoch, origin, primary: carrier, isr, ..Assignment::default() };
            *assignment = Arc::new(carried);
        }
        debug_assert_eq!(table.checks(), Ok(()));
        table
    }

    /// Begins a partition anew, empty on `primary` and `backups`, at the epoch after `epoch`.
    fn begin(&mut self, partition: PartitionId, epoch: Epoch, primary: NodeId, backups: &[NodeId]) -> bool {
        let mut owners = Vec::with_capacity(1 + backups.len().min(COPIES_MAX));
        for &node in std::iter::once(&primary).chain(backups) {
            if !self.is_live(node) || owners.contains(&node) || owners.len() == COPIES_MAX {
                return false;
            }
            owners.push(node);
        }
        let Some(assignment) = self.partitions.get_mut(partition.index()) else { return false };
        let fits = assignment.epoch == epoch;
        if fits {
            let epoch = epoch.next();
            let begun = Assignment { epoch, origin: epoch, primary, isr: owners, ..Assignment::default() };
            *assignment = Arc::new(begun);
        }
        fits
    }

    fn complete(&mut self, partition: PartitionId, epoch: Epoch, node: NodeId, since: TableVersion) -> bool {
        // A dead primary's word comes too late: the copy may be asked to seal already.
        let vouched = self.primary_is_live(partition) && self.is_live(node);
        let needed = self.copies_needed();
        self.reign(partition, epoch).is_some_and(|assignment| {
            let fits =
                vouched && assignment.attachment(node) == Some(since) && take_learner(assignment, node);
            if fits {
                assignment.isr.push(node);
                assignment.former.retain(|former| former.node != node);
                if assignment.isr.len() >= needed {
                    // At once: it took writes, and the same entry may remove it again.
                    assignment.former.clear();
                }
            }
            fits
        })
    }

    /// Invariant (f): whether enough live complete copies remain without that of `node`.
    fn may_remove(&self, partition: PartitionId, node: NodeId) -> bool {
        let Some(assignment) = self.assignment(partition) else { return false };
        let remaining = assignment.isr.iter().filter(|&&other| other != node && self.is_live(other)).count();
        let needed = if self.is_live(node) { self.replicas_wanted() } else { 1 };
        remaining >= needed.max(1)
    }

    /// Counts a backup's copy out; a `sound` one may be recovered from for as long as no other is complete.
    fn remove_copy(&mut self, partition: PartitionId, epoch: Epoch, node: NodeId, sound: bool) -> bool {
        self.reign(partition, epoch).is_some_and(|assignment| {
            let removed = assignment.primary != node && take(&mut assignment.isr, node);
            if removed && sound {
                assignment.former.push(Former { node, shared_until: Sequence(u64::MAX) });
            }
            removed
        })
    }

    fn failover(
        &mut self,
        partition: PartitionId,
        epoch: Epoch,
        primary: NodeId,
        isr: &[NodeId],
        last: Sequence,
    ) -> bool {
        let live = isr.iter().all(|&node| self.is_live(node));
        self.reign(partition, epoch).is_some_and(|assignment| {
            let fits = live
                && isr.contains(&primary)
                && is_distinct(isr)
                && isr.iter().all(|node| assignment.isr.contains(node));
            if fits {
                assignment.epoch = assignment.epoch.next();
                assignment.primary = primary;
                let left_out = std::mem::replace(&mut assignment.isr, isr.to_vec());
                for former in &mut assignment.former {
                    former.shared_until = former.shared_until.min(last);
                }
                let left_out = left_out.into_iter().filter(|node| !isr.contains(node));
                assignment.former.extend(left_out.map(|node| Former { node, shared_until: last }));
            }
            fits
        })
    }

    fn recover(&mut self, partition: PartitionId, epoch: Epoch, primary: NodeId, accepted: bool) -> bool {
        let orphaned = self.is_dead(partition) && self.is_live(primary);
        self.reign(partition, epoch).is_some_and(|assignment| {
            let counted_on = !assignment.former.is_empty()
                && (assignment.former.iter().any(|former| former.node == primary)
                    || assignment.learners.contains(&primary));
            let fits = orphaned && (accepted || counted_on);
            if fits {
                assignment.epoch = assignment.epoch.next();
                assignment.primary = primary;
                assignment.isr = vec![primary];
                assignment.learners.clear();
                assignment.since.clear();
                assignment.former.clear();
            }
            fits
        })
    }

    fn define_map(&mut self, definition: &MapDefinition) -> bool {
        if !(1..=NAME_BYTES_MAX).contains(&definition.name.len()) {
            return false;
        }
        let known = self.maps.iter_mut().find(|map| map.name == definition.name);
        if let Some(map) = known {
            let changed = map.defaults != definition.defaults;
            map.defaults = definition.defaults;
            return changed;
        }
        let fits = self.maps.len() < MAP_COUNT_MAX;
        if fits {
            self.maps.push(definition.clone());
        }
        fits
    }
}

/// Who leaves goes on leaving; everything else may change.
fn may_become(from: MemberStatus, to: MemberStatus) -> bool {
    !(from == MemberStatus::Leaving && to == MemberStatus::Up)
}

fn take_learner(assignment: &mut Assignment, node: NodeId) -> bool {
    assignment.since.remove(&node);
    take(&mut assignment.learners, node)
}

fn take(nodes: &mut Vec<NodeId>, node: NodeId) -> bool {
    let before = nodes.len();
    nodes.retain(|&other| other != node);
    nodes.len() < before
}

pub(super) fn is_distinct(nodes: &[NodeId]) -> bool {
    nodes.iter().enumerate().all(|(i, node)| !nodes[..i].contains(node))
}
