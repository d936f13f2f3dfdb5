//! Handovers under way: which primaries were asked to pass a partition on (DESIGN §5.4).

use super::goal::Goal;
use super::message::Order;
use super::pace::Pace;
use super::{ControllerConfig, ControllerOutput};
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::table::{Assignment, MemberStatus, Table};
use crate::engine::time::Now;
use std::collections::{BTreeMap, VecDeque};

/// After a withdrawn handover its partition is left alone for so long.
const PAUSE_US: u64 = 1_000_000;

#[derive(Debug, Default)]
pub(super) struct Handovers {
    asked: BTreeMap<PartitionId, Asked>,
    /// Partitions left alone, and until when.
    paused_us: BTreeMap<PartitionId, u64>,
    pace: Pace,
}

#[derive(Debug)]
struct Asked {
    epoch: Epoch,
    to: NodeId,
    since_us: u64,
    /// Not before the order was first sent.
    sent_us: Option<u64>,
}

/// Who should take a partition over now.
///
/// Who leaves passes on at once to whoever is complete; for balance the copies come first, so that
/// at no time there are fewer of them.
pub(super) fn successor(table: &Table, goal: &Goal, partition: PartitionId) -> Option<NodeId> {
    let assignment = table.assignment(partition)?;
    let primary = table.members.get(&assignment.primary)?;
    let owners = goal.of(partition);
    let able = |node: &&NodeId| assignment.isr.contains(node) && table.is_live(**node);
    match primary.status {
        MemberStatus::Down => None,
        MemberStatus::Leaving => owners.iter().find(able).copied(),
        MemberStatus::Up if owners.iter().all(|node| able(&node)) => owners.first().copied(),
        MemberStatus::Up => None,
    }
    .filter(|&node| node != assignment.primary)
}

impl Handovers {
    /// The primary withdrew.
    pub(super) fn withdrawn(&mut self, now: Now, partition: PartitionId) {
        self.paused_us.insert(partition, now.mono_us + PAUSE_US);
    }

    /// Follows the table and the goal and sends what is due, leavers first.
    pub(super) fn follow(
        &mut self,
        now: Now,
        config: &ControllerConfig,
        table: &Table,
        goal: &Goal,
        outputs: &mut VecDeque<ControllerOutput>,
    ) {
        let now_us = now.mono_us;
        let valid = |partition: PartitionId, epoch: Epoch, to: NodeId| {
            table.assignment(partition).is_some_and(|assignment: &Assignment| {
                assignment.epoch == epoch
                    && assignment.isr.contains(&to)
                    && table.is_live(to)
                    && table.is_live(assignment.primary)
            })
        };
        let paused_us = &mut self.paused_us;
        paused_us.retain(|_, until_us| now_us < *until_us);
        self.asked.retain(|&partition, asked| {
            let stuck = now_us >= asked.since_us + config.handover_timeout_ms * 1_000;
            if stuck {
                paused_us.insert(partition, now_us + PAUSE_US);
            }
            !stuck && valid(partition, asked.epoch, asked.to)
        });

        if self.asked.len() < config.handovers_max {
            let mut wanted: Vec<(bool, PartitionId, Epoch, NodeId)> = Vec::new();
            for (partition, assignment) in table.partition_ids().zip(&table.partitions) {
                let open = !self.asked.contains_key(&partition) && !self.paused_us.contains_key(&partition);
                if open && let Some(to) = successor(table, goal, partition) {
                    let stays = table
                        .members
                        .get(&assignment.primary)
                        .is_some_and(|member| member.status == MemberStatus::Up);
                    wanted.push((stays, partition, assignment.epoch, to));
                }
            }
            wanted.sort_unstable();
            for (_, partition, epoch, to) in wanted {
                if self.asked.len() >= config.handovers_max || !self.pace.take(now, config, table) {
                    break;
                }
                self.asked.insert(partition, Asked { epoch, to, since_us: now_us, sent_us: None });
            }
        }

        for (&partition, asked) in &mut self.asked {
            let Some(assignment) = table.assignment(partition) else { continue };
            let resend_us = config.resend_ms * 1_000;
            if asked.sent_us.is_none_or(|sent_us| now_us >= sent_us + resend_us) {
                asked.sent_us = Some(now_us);
                let order = Order::Handover { partition, epoch: asked.epoch, to: asked.to };
                outputs.push_back(ControllerOutput::Send { to: assignment.primary, order });
            }
        }
    }

    /// When something is to be sent again, given up or taken up again.
    pub(super) fn alarms_us(&self, config: &ControllerConfig) -> impl Iterator<Item = u64> {
        let resend_us = config.resend_ms * 1_000;
        let timeout_us = config.handover_timeout_ms * 1_000;
        self.asked
            .values()
            .flat_map(move |asked| {
                let sent_us = asked.sent_us.unwrap_or(asked.since_us);
                [sent_us + resend_us, asked.since_us + timeout_us]
            })
            .chain(self.paused_us.values().copied())
            .chain(self.pace.alarm_us())
    }
}
