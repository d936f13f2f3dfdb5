//! What members asked for and the table doesn't show yet.
//!
//! Each request is kept until the table grants it or makes it void, so that a lost proposal costs
//! a repetition and nothing else.

use super::draft::Draft;
use super::goal::Goal;
use super::message::Report;
use crate::engine::ids::{Epoch, NodeId, PartitionId, TableVersion};
use crate::engine::table::{
    Assignment, MAP_COUNT_MAX, MapDefinition, Member, MemberStatus, NAME_BYTES_MAX, Table, TableChange,
};
use crate::engine::time::Now;
use std::collections::{BTreeMap, BTreeSet};

/// The most nodes waiting to become members; more have to ask again.
const JOINS_MAX: usize = 1_024;
/// The most map definitions waiting; more have to ask again.
const MAPS_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) joins: BTreeMap<NodeId, Member>,
    leaves: BTreeSet<NodeId>,
    completed: BTreeMap<(PartitionId, NodeId), (Epoch, TableVersion)>,
    ready: BTreeMap<PartitionId, (Epoch, NodeId)>,
    cancelled: BTreeMap<PartitionId, Epoch>,
    /// With whether the copy is sound.
    lagging: BTreeMap<(PartitionId, NodeId), (Epoch, bool)>,
    maps: Vec<MapDefinition>,
}

/// How soon a report wants a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// It says nothing new, or its sender has no say in the matter.
    None,
    /// With whatever else comes within the gathering time.
    Soon,
    /// Clients are waiting.
    Now,
}

impl Requests {
    /// Takes note of a report.
    pub(super) fn take(&mut self, table: &Table, from: NodeId, report: Report) -> Urgency {
        let reigns = |partition: PartitionId, epoch: Epoch| {
            table.assignment(partition).is_some_and(|assignment| {
                assignment.epoch == epoch && epoch > Epoch(0) && assignment.primary == from
            })
        };
        match report {
            Report::Completed { partition, epoch, learner, since } if reigns(partition, epoch) => {
                let known = table.assignment(partition).and_then(|known| known.attachment(learner));
                if known != Some(since) {
                    // Of an attachment given up; or of one that isn't known here yet, and is told again.
                    return Urgency::None;
                }
                self.completed.insert((partition, learner), (epoch, since));
                Urgency::Soon
            }
            Report::HandoverReady { partition, epoch, to } if reigns(partition, epoch) => {
                self.ready.insert(partition, (epoch, to));
                Urgency::Now
            }
            Report::HandoverCancel { partition, epoch } if reigns(partition, epoch) => {
                self.cancelled.insert(partition, epoch);
                Urgency::Now
            }
            Report::Lagging { partition, epoch, node, sound } if reigns(partition, epoch) => {
                // Once found different in this reign, it stays so.
                let different = self.lagging.get(&(partition, node)) == Some(&(epoch, false));
                self.lagging.insert((partition, node), (epoch, sound && !different));
                Urgency::Now
            }
            Report::Leave if table.members.contains_key(&from) => {
                self.leaves.insert(from);
                Urgency::Soon
            }
            Report::DefineMap(definition) if is_nameable(&definition) => {
                self.maps.retain(|map| map.name != definition.name);
                if self.maps.len() >= MAPS_MAX {
                    return Urgency::None;
                }
                self.maps.push(definition);
                Urgency::Soon
            }
            Report::Completed { .. }
            | Report::HandoverReady { .. }
            | Report::HandoverCancel { .. }
            | Report::Lagging { .. }
            | Report::Leave
            | Report::DefineMap(_)
            | Report::AcceptLoss
            | Report::Held(_)
            | Report::Merged { .. } => Urgency::None,
        }
    }

    /// Takes note of a node that asks to be a member. Returns whether there was room.
    pub(super) fn join(&mut self, member: Member) -> bool {
        let room = self.joins.len() < JOINS_MAX || self.joins.contains_key(&member.node);
        if room {
            self.joins.insert(member.node, member);
        }
        room
    }

    /// Drops what the table has granted or made void.
    pub(super) fn settle(&mut self, table: &Table) {
        let at = |partition: PartitionId, epoch: Epoch| {
            table.assignment(partition).filter(|assignment| assignment.epoch == epoch)
        };
        let status = |node: NodeId| table.members.get(&node).map(|member| member.status);
        self.joins.retain(|&node, member| {
            !table.is_retired(node) && table.members.get(&node).is_none_or(|known| differs(known, member))
        });
        self.leaves.retain(|&node| matches!(status(node), Some(MemberStatus::Up | MemberStatus::Down)));
        self.completed.retain(|&(partition, node), &mut (epoch, since)| {
            at(partition, epoch).is_some_and(|assignment| assignment.attachment(node) == Some(since))
        });
        self.ready.retain(|&partition, &mut (epoch, _)| at(partition, epoch).is_some());
        self.cancelled.retain(|&partition, &mut epoch| at(partition, epoch).is_some());
        self.lagging.retain(|&(partition, node), &mut (epoch, _)| {
            at(partition, epoch)
                .is_some_and(|assignment| assignment.primary != node && assignment.holds(node))
        });
        self.maps.retain(|map| match table.map_id(&map.name) {
            Some(id) => table.map_defaults(id) != map.defaults,
            None => table.maps.len() < MAP_COUNT_MAX,
        });
    }

    /// New members, and leavers.
    pub(super) fn change_members(&self, draft: &mut Draft) {
        for member in self.joins.values() {
            let status = draft.table.members.get(&member.node).map(|known| known.status);
            let status = status.unwrap_or(MemberStatus::Up);
            draft.push(TableChange::PutMember(Member { status, ..member.clone() }));
        }
        for &node in &self.leaves {
            let status = draft.table.members.get(&node).map(|member| member.status);
            if status == Some(MemberStatus::Up) {
                draft.push(TableChange::SetStatus(node, MemberStatus::Leaving));
            }
        }
    }

    /// What primaries and operators reported. Pushes what fits; the rest is void.
    pub(super) fn change_partitions(
        &mut self,
        now: Now,
        pause_us: u64,
        goal: &mut Goal,
        pauses: &mut Pauses,
        draft: &mut Draft,
    ) {
        for (&(partition, node), &(epoch, since)) in &self.completed {
            draft.push(TableChange::Complete { partition, epoch, node, since });
        }
        for (&partition, &(epoch, to)) in &self.ready {
            if !draft.push(TableChange::Handover { partition, epoch, to }) {
                // The primary has queued its writes and waits: it must hear something.
                draft.push(TableChange::CancelHandover { partition, epoch });
            }
        }
        for (&partition, &epoch) in &self.cancelled {
            draft.push(TableChange::CancelHandover { partition, epoch });
        }
        for (&(partition, node), &(epoch, sound)) in &self.lagging {
            let removed = draft.push(TableChange::RemoveLagging { partition, epoch, node, sound })
                || draft.push(TableChange::RemoveLearner { partition, epoch, node });
            if removed {
                let replaced =
                    goal.replace(draft, partition, node, |other| pauses.is_paused(partition, other));
                // Without anybody else, it had better try again soon.
                let pause_us = if replaced { pause_us } else { pause_us / 5 };
                pauses.pause(partition, node, now.mono_us.saturating_add(pause_us));
            }
        }
        for map in &self.maps {
            draft.push(TableChange::DefineMap(map.clone()));
        }
    }
}

fn is_nameable(definition: &MapDefinition) -> bool {
    (1..=NAME_BYTES_MAX).contains(&definition.name.len())
}

/// Whether what a node says of itself is not what the table knows; its standing aside.
fn differs(known: &Member, member: &Member) -> bool {
    *known != Member { status: known.status, ..member.clone() }
}

/// Copies that lagged and are not attached again for a while.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    until_us: BTreeMap<(PartitionId, NodeId), u64>,
}

impl Pauses {
    fn pause(&mut self, partition: PartitionId, node: NodeId, until_us: u64) {
        self.until_us.insert((partition, node), until_us);
    }

    pub(super) fn is_paused(&self, partition: PartitionId, node: NodeId) -> bool {
        self.until_us.contains_key(&(partition, node))
    }

    pub(super) fn expire(&mut self, now: Now) {
        self.until_us.retain(|_, until_us| now.mono_us < *until_us);
    }

    pub(super) fn alarms_us(&self) -> impl Iterator<Item = u64> {
        self.until_us.values().copied()
    }
}

/// Whether a copy of this partition may be attached: its primary can fill it.
pub(super) fn is_served(table: &Table, assignment: &Assignment) -> bool {
    assignment.epoch > Epoch(0) && table.is_live(assignment.primary)
}
