//! Reigns: how one begins, goes on under a later epoch, follows the table's ack set, and ends.

use super::{Asker, Cover, Follower, Primary, WHOLE_PARTITION, disappoint};
use crate::engine::ids::{NodeId, Sequence, TableVersion};
use crate::engine::message::{ForwardOutcome, Message, Unavailable};
use crate::engine::partition::{Partition, Role};
use crate::engine::shared::{Parked, Shared};
use crate::engine::table::Assignment;

impl Partition {
    /// Starts a reign over what the copy holds.
    pub(in crate::engine::partition) fn promote(&mut self, shared: &mut Shared, assignment: &Assignment) {
        let Some(copy) = &mut self.copy else { return };
        copy.lead_from_here();
        let mut primary = Primary::default();
        if let Role::Follower { primary: before, .. } = self.role
            && !assignment.isr.contains(&before)
        {
            copy.part_from(before, copy.last, &shared.config.limits);
        }
        // What isn't known to be committed is pending until the in-sync set has it all (equalise).
        for group in copy.tail.groups() {
            let mut rest = &group.records[..];
            while !rest.is_empty() {
                let Ok(effect) = crate::engine::record::decode(&mut rest, &shared.config.limits) else {
                    break;
                };
                let hash = effect.key_ref().map_or(WHOLE_PARTITION, |key| key.hash);
                primary.pending.insert(hash, copy.last);
            }
        }
        // A copy made by a snapshot has only the records that came after it.
        let covered = copy.tail.groups().next().map_or(copy.last, |group| Sequence(group.first.0 - 1));
        if covered > copy.commit {
            primary.pending.insert(WHOLE_PARTITION, copy.last);
        }
        self.role = Role::Primary(Box::new(primary));
        self.update_ack_set(shared, assignment);
        shared.stats.promotions += 1;
        tracing::debug!(partition = %self.id, epoch = %self.epoch, "reigning");
    }

    /// Goes on under a later epoch: what waits goes on waiting, what is uncommitted is sent anew.
    pub(in crate::engine::partition) fn renew(&mut self, shared: &mut Shared, assignment: &Assignment) {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        tracing::debug!(partition = %self.id, epoch = %self.epoch, "reigning on");
        primary.handover = None;
        for mut follower in std::mem::take(&mut primary.followers) {
            shared.abandon_sending(follower.node, follower.sending.take());
        }
        // Into the tail, from where the followers get it in the new epoch.
        primary.send_log(shared, copy, self.id, self.epoch);
        copy.tail.trim(copy.commit);
        self.update_ack_set(shared, assignment);
    }

    /// Follows the table's idea of who else holds the partition.
    pub(in crate::engine::partition) fn update_ack_set(
        &mut self,
        shared: &mut Shared,
        assignment: &Assignment,
    ) {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        let now_us = shared.now.mono_us;
        primary.replaceable = !assignment.former.is_empty();
        // Send what is executed before the set changes: a group has one fate.
        if primary.log.count() > 0 && !primary.followers.is_empty() {
            primary.send_log(shared, copy, self.id, self.epoch);
        } else {
            primary.log.clear();
        }
        for follower in &primary.followers {
            if assignment.holds(follower.node) || !follower.in_sync {
                continue;
            }
            copy.part_from(follower.node, follower.acked, &shared.config.limits);
        }
        // Who has to acknowledge in this epoch reads no more once it has.
        let stays = |node: NodeId| assignment.isr.contains(&node);
        let may_read = self.reigned.iter().copied().filter(|unheard| unheard.may_read(shared));
        (primary.unheard_in_sync, primary.unheard) = may_read.partition(|it| stays(it.node));
        for unheard in primary.unheard.iter().chain(&primary.unheard_in_sync) {
            shared.peers.nudge(unheard.node);
        }
        // A learner that was given up and attached anew meanwhile has nothing of the earlier attempt.
        let stays = |follower: &Follower| {
            assignment.isr.contains(&follower.node)
                || (!follower.in_sync && assignment.attachment(follower.node) == Some(follower.since))
        };
        for follower in primary.followers.iter_mut().filter(|follower| !stays(follower)) {
            shared.abandon_sending(follower.node, follower.sending.take());
        }
        primary.followers.retain(|follower| stays(follower));
        copy.parted.retain(|node, _| !assignment.isr.contains(node));
        for (&node, in_sync) in assignment
            .isr
            .iter()
            .map(|node| (node, true))
            .chain(assignment.learners.iter().map(|node| (node, false)))
        {
            if node == shared.me {
                continue;
            }
            if let Some(follower) = primary.followers.iter_mut().find(|follower| follower.node == node) {
                if in_sync && !follower.in_sync {
                    follower.in_sync = true;
                    if !follower.attached {
                        // Never reported by this reign: nothing is known of where it stands.
                        follower.attached = true;
                        follower.attempt = shared.next_attempt();
                        follower.acked = Sequence(0);
                        follower.sent = Sequence(0);
                    }
                    shared.abandon_sending(follower.node, follower.sending.take());
                }
                continue;
            }
            primary.followers.push(Follower {
                node,
                in_sync,
                since: assignment.attachment(node).unwrap_or_default(),
                attempt: 0,
                attached: in_sync,
                acked: if in_sync { copy.commit } else { Sequence(0) },
                sent: copy.last,
                progress_us: now_us,
                lagging_since_us: None,
                lacks_table: None,
                sent_again_for: TableVersion(0),
                commit_told: Sequence(0),
                confirmed: 0,
                sending: None,
            });
            let index = primary.followers.len() - 1;
            if in_sync {
                primary.probe(shared, copy, self.id, self.epoch, index);
            } else {
                primary.restart_snapshot(shared, copy, self.id, self.epoch, index);
            }
        }
        self.advance_commit(shared);
        self.advance_handover(shared);
        shared.wake_parked(self.id);
    }

    /// Ends a reign: writes under way are in doubt, reads run again elsewhere.
    pub(in crate::engine) fn step_down(&mut self, shared: &mut Shared) {
        let role = std::mem::replace(&mut self.role, Role::Bystander);
        let Role::Primary(mut primary) = role else {
            self.role = role;
            return;
        };
        if let Some(copy) = &mut self.copy {
            copy.led_until_here();
        }
        while let Some(waiter) = shared.waiters.pop_front(&mut primary.waiters) {
            match (waiter.asker, waiter.again) {
                (Asker::Local(ticket), Some(op)) => {
                    shared.resubmit.push_back(Parked::new(ticket, op, shared.patience_us()))
                }
                (Asker::Node(node, id), _) if waiter.cover != Cover::Commit => {
                    let outcome = ForwardOutcome::Stale(shared.table.version);
                    shared.peers.send(node, &Message::ForwardReply { id, outcome, reply: &[] });
                }
                (asker, _) => disappoint(shared, asker, waiter.cover, Unavailable::ChangingHands),
            }
        }
        for follower in &mut primary.followers {
            shared.abandon_sending(follower.node, follower.sending.take());
        }
        // Effects executed and never sent exist nowhere else: this copy has diverged unless there are none.
        if primary.log.count() > 0 && !primary.followers.is_empty() {
            tracing::debug!(partition = %self.id, "stepping down with unsent effects");
        }
        shared.wake_parked(self.id);
    }
}
