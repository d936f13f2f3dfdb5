//! Failover: the surviving in-sync replicas of dead primaries promise the next epoch and say how
//! far they have come; the furthest becomes primary (DESIGN §4).
//!
//! What is to be sealed follows from the table alone: a `Down` primary and a live in-sync replica.
//! A new leader asks again, and a promise made twice is the same promise.

use super::asking::{Asking, Unanswered};
use super::draft::Draft;
use super::goal::Goal;
use super::message::{Order, Sealed};
use super::{ControllerConfig, ControllerOutput};
use crate::engine::ids::{Epoch, NodeId, PartitionId, Sequence};
use crate::engine::mutants::Mutant;
use crate::engine::table::{Assignment, MemberStatus, Table, TableChange};
use crate::engine::time::Now;
use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

/// The seals asked for and the answers so far.
#[derive(Debug, Default)]
pub(super) struct Seals {
    asked: BTreeMap<PartitionId, Sealing>,
    asking: Asking,
}

#[derive(Debug)]
struct Sealing {
    /// The dead primary's epoch.
    epoch: Epoch,
    since_us: u64,
    answers: BTreeMap<NodeId, Sequence>,
}

impl Sealing {
    /// The promises to go on with: of all live in-sync replicas, or after `timeout_us` of those
    /// that answered. Each of them holds every acknowledged write, and the dead primary can get
    /// nothing acknowledged without it: any of them is enough to be safe.
    fn outcome(
        &self,
        now: Now,
        timeout_us: u64,
        table: &Table,
        assignment: &Assignment,
    ) -> Option<Vec<(NodeId, Sequence)>> {
        let mut complete = true;
        let mut promised = Vec::new();
        for &node in assignment.isr.iter().filter(|&&node| table.is_live(node)) {
            match self.answers.get(&node) {
                Some(&last) => promised.push((node, last)),
                None => complete = false,
            }
        }
        let patient = now.mono_us < self.since_us.saturating_add(timeout_us);
        (!promised.is_empty() && (complete || !patient)).then_some(promised)
    }
}

/// Whether the table asks for a failover of this partition.
fn is_orphaned(table: &Table, assignment: &Assignment) -> bool {
    assignment.epoch > Epoch(0)
        && !table.is_live(assignment.primary)
        && assignment.isr.iter().any(|&node| table.is_live(node))
}

impl Seals {
    /// Follows the table and sends what is due: one order a survivor and dead primary.
    pub(super) fn follow(
        &mut self,
        now: Now,
        config: &ControllerConfig,
        table: &Table,
        outputs: &mut VecDeque<ControllerOutput>,
    ) {
        let mut orders = Unanswered::new();
        for (partition, assignment) in table.partition_ids().zip(&table.partitions) {
            if !is_orphaned(table, assignment) {
                self.asked.remove(&partition);
                continue;
            }
            let epoch = assignment.epoch;
            let fresh = || Sealing { epoch, since_us: now.mono_us, answers: BTreeMap::new() };
            let sealing = self.asked.entry(partition).or_insert_with(fresh);
            if sealing.epoch != epoch {
                *sealing = fresh();
            }
            for &node in assignment.isr.iter().filter(|&&node| table.is_live(node)) {
                if !sealing.answers.contains_key(&node) {
                    let order = orders.entry((node, assignment.primary)).or_default();
                    order.push((partition, epoch.next()));
                }
            }
        }
        let order = |deposed, partitions| Order::Seal { deposed, partitions };
        self.asking.send(now, config, orders, order, outputs);
    }

    /// Takes note of an answer.
    pub(super) fn answered(&mut self, from: NodeId, sealed: &Sealed) {
        for promise in &sealed.partitions {
            if let Some(sealing) = self.asked.get_mut(&promise.partition)
                && promise.epoch == sealing.epoch.next()
            {
                sealing.answers.insert(from, promise.last);
            }
        }
    }

    /// Whether every orphaned partition has its outcome, so that one entry can settle them all.
    pub(super) fn is_settled(&self, now: Now, config: &ControllerConfig, table: &Table) -> bool {
        let timeout_us = config.seal_timeout_ms * 1_000;
        self.asked.iter().all(|(partition, sealing)| {
            table
                .assignment(*partition)
                .is_some_and(|assignment| sealing.outcome(now, timeout_us, table, assignment).is_some())
        })
    }

    /// Appoints the successors of dead primaries where the promises are in.
    pub(super) fn conclude(&self, now: Now, config: &ControllerConfig, goal: &Goal, draft: &mut Draft) {
        if self.asked.is_empty() {
            return;
        }
        let mut led: BTreeMap<NodeId, usize> = BTreeMap::new();
        for assignment in &draft.table.partitions {
            *led.entry(assignment.primary).or_default() += 1;
        }
        for (&partition, sealing) in &self.asked {
            let Some(assignment) = draft.table.assignment(partition) else { continue };
            if assignment.epoch != sealing.epoch || !is_orphaned(&draft.table, assignment) {
                continue;
            }
            let timeout_us = config.seal_timeout_ms * 1_000;
            let Some(promised) = sealing.outcome(now, timeout_us, &draft.table, assignment) else {
                continue;
            };
            let stays = |node: NodeId| {
                draft.table.members.get(&node).map(|member| member.status) == Some(MemberStatus::Up)
            };
            let successor = promised.iter().max_by_key(|&&(node, last)| {
                let wanted = goal.of(partition).first() == Some(&node);
                let load = led.get(&node).copied().unwrap_or_default();
                let last = if config.mutation.is(Mutant::PromoteLowest) { Sequence(!last.0) } else { last };
                (last, stays(node), wanted, Reverse(load), Reverse(node))
            });
            let Some(&(primary, last)) = successor else { continue };
            let isr = promised.iter().map(|&(node, _)| node).collect();
            let epoch = sealing.epoch;
            if draft.push(TableChange::Failover { partition, epoch, primary, isr, last }) {
                *led.entry(primary).or_default() += 1;
            }
        }
    }

    /// When something is to be sent again or patience ends.
    pub(super) fn alarms_us(&self, config: &ControllerConfig) -> impl Iterator<Item = u64> {
        let timeout_us = config.seal_timeout_ms * 1_000;
        self.asking
            .alarms_us(config)
            .chain(self.asked.values().map(move |sealing| sealing.since_us + timeout_us))
    }
}
