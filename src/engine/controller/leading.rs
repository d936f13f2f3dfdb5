//! One lead: from becoming leader to resigning.

use super::draft::Draft;
use super::failover::Seals;
use super::goal::Goal;
use super::handover::{Handovers, successor};
use super::message::{Report, Sealed};
use super::observed::Observed;
use super::pace::Pace;
use super::reconcile::{assign, attach, complete_copies, prune, retire, trim};
use super::requests::{Pauses, Requests, Urgency};
use super::salvage::Salvage;
use super::{ControllerConfig, ControllerOutput, ControllerStatus};
use crate::engine::ids::{Epoch, NodeId, Sequence};
use crate::engine::table::{Member, MemberStatus, Table, TableChange, TableEntry};
use crate::engine::time::Now;
use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// How long the copy of a dead member is kept in its ack set while its primary is suspect, too.
const HESITATION_US: u64 = 3_000_000;

/// What a leader has in mind. Nothing here is needed by the next one.
#[derive(Debug)]
pub(super) struct Leading {
    table: Arc<Table>,
    goal: Goal,
    seals: Seals,
    salvage: Salvage,
    handovers: Handovers,
    requests: Requests,
    pauses: Pauses,
    copying: Pace,
    /// When each member was first seen by this lead in its present standing.
    since_us: BTreeMap<NodeId, (MemberStatus, u64)>,
    /// When to decide next: events are gathered until then.
    due_us: Option<u64>,
    /// An entry is proposed and not yet applied; it is given up at this time.
    proposed_until_us: Option<u64>,
    /// The next time at which something changes by itself.
    alarm_us: Option<u64>,
    /// The table or the goal changed since orders were last looked at.
    orders_stale: bool,
    /// What table and goal amount to; empty until somebody asks.
    status: OnceCell<ControllerStatus>,
}

impl Leading {
    pub(super) fn new(now: Now, table: Arc<Table>) -> Leading {
        let mut leading = Leading {
            table,
            goal: Goal::default(),
            seals: Seals::default(),
            salvage: Salvage::default(),
            handovers: Handovers::default(),
            requests: Requests::default(),
            pauses: Pauses::default(),
            copying: Pace::default(),
            since_us: BTreeMap::new(),
            due_us: None,
            proposed_until_us: None,
            alarm_us: None,
            orders_stale: true,
            status: OnceCell::new(),
        };
        leading.note_members(now);
        leading
    }

    fn note_members(&mut self, now: Now) {
        let members = &self.table.members;
        self.since_us.retain(|node, _| members.contains_key(node));
        for (&node, member) in members {
            let since = self.since_us.entry(node).or_insert((member.status, now.mono_us));
            if since.0 != member.status {
                *since = (member.status, now.mono_us);
            }
        }
    }

    /// Since when a member has a standing, as far as this lead knows.
    fn since_us(&self, now: Now, node: NodeId, status: MemberStatus) -> u64 {
        match self.since_us.get(&node) {
            Some(&(known, since_us)) if known == status => since_us,
            _ => now.mono_us,
        }
    }

    /// Makes sure that a decision is taken `delay_ms` from now or earlier.
    pub(super) fn wake(&mut self, now: Now, delay_ms: u64) {
        let at_us = now.mono_us + delay_ms * 1_000;
        self.due_us = Some(self.due_us.map_or(at_us, |due_us| due_us.min(at_us)));
    }

    pub(super) fn is_concerned(&self, node: NodeId) -> bool {
        self.is_known(node) || self.requests.joins.contains_key(&node)
    }

    pub(super) fn table_applied(&mut self, now: Now, config: &ControllerConfig, table: Arc<Table>) {
        if table.version <= self.table.version {
            return;
        }
        self.table = table;
        self.status.take();
        // Ours, or a predecessor's: what was proposed in vain is simply decided again.
        self.proposed_until_us = None;
        self.orders_stale = true;
        self.note_members(now);
        self.requests.settle(&self.table);
        self.wake(now, config.coalesce_ms);
    }

    pub(super) fn join(&mut self, now: Now, config: &ControllerConfig, member: Member) {
        if self.requests.join(member) {
            self.requests.settle(&self.table);
            self.wake(now, config.coalesce_ms);
        }
    }

    pub(super) fn report(&mut self, now: Now, config: &ControllerConfig, from: NodeId, report: Report) {
        if let Report::HandoverCancel { partition, .. } = report {
            self.handovers.withdrawn(now, partition);
        }
        match report {
            Report::AcceptLoss => {
                self.salvage.accept(now, &self.table);
                self.orders_stale = true;
                self.wake(now, config.coalesce_ms);
                return;
            }
            Report::Held(held) => {
                self.salvage.held(from, &held);
                self.orders_stale = true;
                self.wake(now, config.coalesce_ms);
                return;
            }
            Report::Merged { partition, epoch, learner } => {
                self.salvage.merged(from, learner, partition, epoch);
                self.wake(now, config.coalesce_ms);
                return;
            }
            _ => {}
        }
        match self.requests.take(&self.table, from, report) {
            Urgency::None => {}
            Urgency::Soon => self.wake(now, config.coalesce_ms),
            Urgency::Now => self.wake(now, config.urgent_ms),
        }
    }

    pub(super) fn sealed(&mut self, now: Now, config: &ControllerConfig, from: NodeId, sealed: &Sealed) {
        self.seals.answered(from, sealed);
        let settled = self.seals.is_settled(now, config, &self.table);
        self.wake(now, if settled { 0 } else { config.coalesce_ms });
    }

    /// Decides and orders what is due.
    pub(super) fn turn(
        &mut self,
        now: Now,
        config: &ControllerConfig,
        observed: &Observed,
        outputs: &mut VecDeque<ControllerOutput>,
    ) {
        if self.proposed_until_us.is_some_and(|until_us| now.mono_us >= until_us) {
            self.proposed_until_us = None;
            self.wake(now, 0);
        }
        let alarm = self.alarm_us.is_some_and(|alarm_us| now.mono_us >= alarm_us);
        if alarm {
            self.wake(now, 0);
        }
        let due = self.due_us.is_some_and(|due_us| now.mono_us >= due_us);
        if due && self.proposed_until_us.is_none() {
            self.due_us = None;
            self.orders_stale = true;
            let entry = self.decide(now, config, observed);
            if !entry.is_empty() {
                self.proposed_until_us = Some(now.mono_us + config.propose_timeout_ms * 1_000);
                outputs.push_back(ControllerOutput::Propose(entry));
            }
        }
        if alarm || std::mem::take(&mut self.orders_stale) {
            self.seals.follow(now, config, &self.table, outputs);
            self.salvage.follow(now, config, &self.table, outputs);
            self.handovers.follow(now, config, &self.table, &self.goal, outputs);
            self.alarm_us = self.next_alarm_us(now, config, observed);
        }
    }

    /// Everything the table needs now, as one entry.
    fn decide(&mut self, now: Now, config: &ControllerConfig, observed: &Observed) -> TableEntry {
        let mut draft = Draft::new(&self.table);
        self.pauses.expire(now);
        self.judge_members(now, config, observed, &mut draft);
        self.requests.change_members(&mut draft);
        self.goal.update(&draft.table);
        self.status.take();
        self.seals.conclude(now, config, &self.goal, &mut draft);
        for (partition, epoch) in self.salvage.conclude(now, config, &mut draft) {
            if let [primary, backups @ ..] = self.goal.of(partition) {
                let (primary, backups) = (*primary, backups.to_vec());
                draft.push(TableChange::AcceptLoss { partition, epoch, primary, backups });
            }
        }
        let hesitates = |primary: NodeId, gone: NodeId| {
            let since_us = self.since_us(now, gone, MemberStatus::Down);
            primary != config.me && observed.is_suspect(primary) && now.mono_us < since_us + HESITATION_US
        };
        prune(hesitates, &mut draft);
        let pause_us = config.lagging_pause_ms * 1_000;
        let (goal, pauses) = (&mut self.goal, &mut self.pauses);
        self.requests.change_partitions(now, pause_us, goal, pauses, &mut draft);
        assign(&self.goal, &mut draft);
        trim(&self.goal, &mut draft);
        let copying = &mut self.copying;
        attach(config, &self.goal, &self.pauses, |table| copying.take(now, config, table), &mut draft);
        self.retire(now, config, observed, &mut draft);
        draft.into_entry()
    }

    /// Buries the dead and welcomes back those that are not.
    fn judge_members(&self, now: Now, config: &ControllerConfig, observed: &Observed, draft: &mut Draft) {
        let unheard_us = config.unheard_down_ms * 1_000;
        for (&node, member) in &self.table.members {
            let me = node == config.me;
            let since_us = self.since_us.get(&node).map_or(now.mono_us, |since| since.1);
            if member.status != MemberStatus::Down {
                let dead = observed.is_dead(now, node, since_us, unheard_us)
                    || (!observed.has_link(node) && self.is_replaced(member, since_us));
                if !me && dead {
                    draft.push(TableChange::SetStatus(node, MemberStatus::Down));
                }
            } else if me || observed.is_back(now, node) {
                self.welcome_back(node, draft);
            }
        }
    }

    /// Whether a later process answers at a member's address: the earlier one cannot any more.
    fn is_replaced(&self, member: &Member, since_us: u64) -> bool {
        let same = |other: &Member| other.node != member.node && other.quic == member.quic;
        let later = |node| self.since_us.get(&node).is_some_and(|&(_, later_us)| later_us > since_us);
        self.requests.joins.values().any(|other| same(other) && !self.is_known(other.node))
            || self
                .table
                .members
                .values()
                .any(|other| same(other) && other.status == MemberStatus::Up && later(other.node))
    }

    fn is_known(&self, node: NodeId) -> bool {
        self.table.members.contains_key(&node)
    }

    /// A member thought dead lives. Where it is still the primary it goes on as such, with all the
    /// copies that live: nobody else could get a write acknowledged meanwhile. The epoch grows
    /// because some of them may have promised the next one already.
    fn welcome_back(&self, node: NodeId, draft: &mut Draft) {
        if !draft.push(TableChange::SetStatus(node, MemberStatus::Up)) {
            return;
        }
        for (partition, assignment) in self.table.partition_ids().zip(&self.table.partitions) {
            if assignment.primary == node && assignment.epoch > Epoch(0) {
                let live = |node: &NodeId| draft.table.is_live(*node);
                let isr: Vec<NodeId> = assignment.isr.iter().copied().filter(live).collect();
                let epoch = assignment.epoch;
                // The same log goes on: whoever is left out has a part of it.
                let last = Sequence(u64::MAX);
                draft.push(TableChange::Failover { partition, epoch, primary: node, isr, last });
            }
        }
    }

    fn retire(&self, now: Now, config: &ControllerConfig, observed: &Observed, draft: &mut Draft) {
        let up = draft.table.members.values();
        let up = up.filter(|member| member.status == MemberStatus::Up).count();
        // Of three voters two may be all that is left: the third is no longer forgotten then,
        // lest it look as if it had left and one voter would do (see `voters`).
        let may_forget = up >= 3 || !draft.table.ever_three;
        let forget_us = config.forget_down_ms * 1_000;
        let expired = |node: NodeId| {
            let since = self.since_us.get(&node);
            may_forget && since.is_some_and(|&(_, since_us)| now.mono_us >= since_us + forget_us)
        };
        retire(expired, observed.voters(), draft);
    }

    fn next_alarm_us(&self, now: Now, config: &ControllerConfig, observed: &Observed) -> Option<u64> {
        let unheard_us = config.unheard_down_ms * 1_000;
        let forget_us = config.forget_down_ms * 1_000;
        let members = self.since_us.iter().flat_map(|(&node, &(status, since_us))| {
            let down = status == MemberStatus::Down;
            let forget_us = down.then_some(since_us + forget_us);
            let judge_us = match node == config.me {
                true => None,
                false => observed.alarm_us(node, since_us, unheard_us),
            };
            let prune_us = down.then_some(since_us + HESITATION_US);
            [forget_us, judge_us, prune_us].into_iter().flatten()
        });
        members
            .chain(self.seals.alarms_us(config))
            .chain(self.salvage.alarms_us(config))
            .chain(self.handovers.alarms_us(config))
            .chain(self.pauses.alarms_us())
            .chain(self.copying.alarm_us())
            .filter(|&at_us| at_us > now.mono_us)
            .min()
    }

    /// Observations changed: alarms may, too.
    pub(super) fn observed(&mut self, now: Now, config: &ControllerConfig) {
        self.orders_stale = true;
        self.wake(now, config.coalesce_ms);
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        let act_us = self.proposed_until_us.or(self.due_us);
        act_us.into_iter().chain(self.alarm_us).min()
    }

    pub(super) fn status(&self) -> &ControllerStatus {
        self.status.get_or_init(|| self.look_over())
    }

    fn look_over(&self) -> ControllerStatus {
        let table = &self.table;
        let wanted = table.replicas_wanted();
        let mut status = ControllerStatus::default();
        for (partition, assignment) in table.partition_ids().zip(&table.partitions) {
            if table.is_dead(partition) {
                status.dead.push(partition);
            } else if complete_copies(table, assignment) < wanted {
                status.under_replicated.push(partition);
            }
            let owners = self.goal.of(partition);
            status.learners += assignment.learners.len();
            status.migrations_wanted += owners.iter().filter(|&&node| !assignment.holds(node)).count();
            status.surplus += assignment.ack_set().filter(|node| !owners.contains(node)).count();
            let moves = owners.first().is_some_and(|node| *node != assignment.primary)
                || successor(table, &self.goal, partition).is_some();
            status.handovers_wanted += usize::from(moves);
        }
        status
    }
}
