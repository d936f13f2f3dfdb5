//! Handover: the primary drains its writes and gives the reign to an in-sync replica.
//!
//! Reads go on at the source until it learns of the commit: the target's first write needs the
//! source's ack in the new epoch, which the source gives only once it knows that its reign is over.

use super::{Partition, Role};
use crate::engine::controller::Report;
use crate::engine::ids::{Epoch, NodeId};
use crate::engine::mutants::Mutant;
use crate::engine::shared::Shared;

/// A handover under way.
#[derive(Clone, Copy, Debug)]
pub struct Handover {
    to: NodeId,
    started_us: u64,
    told_us: Option<u64>,
    cancelled: bool,
}

/// The controller is told again after so long.
const REPEAT_US: u64 = 100_000;

impl Partition {
    /// The controller's order: stop taking writes, drain, and say so.
    pub fn begin_handover(&mut self, shared: &mut Shared, epoch: Epoch, to: NodeId) {
        if epoch != self.epoch || self.promised > self.epoch {
            return;
        }
        let Role::Primary(primary) = &mut self.role else { return };
        let eligible = primary.followers.iter().any(|follower| follower.node == to && follower.in_sync);
        if primary.handover.is_some() || !eligible || !shared.peers.linked(to) {
            return;
        }
        primary.handover =
            Some(Handover { to, started_us: shared.now.mono_us, told_us: None, cancelled: false });
        shared.mark_restless(self.id);
        self.advance_handover(shared);
    }

    /// Tells the controller once nothing is under way any more.
    pub(super) fn advance_handover(&mut self, shared: &mut Shared) {
        let (partition, epoch) = (self.id, self.epoch);
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &self.copy) else { return };
        let now_us = shared.now.mono_us;
        let drained = primary.unsent() == 0
            && copy.commit == copy.last
            && primary.handover.is_some_and(|handover| {
                primary.followers.iter().any(|follower| {
                    follower.node == handover.to && follower.in_sync && follower.acked == copy.last
                })
            });
        let Some(handover) = &mut primary.handover else { return };
        if handover.cancelled || !drained || handover.told_us.is_some_and(|told| now_us < told + REPEAT_US) {
            return;
        }
        handover.told_us = Some(now_us);
        let report = Report::HandoverReady { partition, epoch, to: handover.to };
        shared.report(report);
        if shared.config.mutation.is(Mutant::DropSourceEarly) {
            self.step_down(shared);
            self.discard_copy(shared);
        }
    }

    /// Withdraws a handover that takes too long. Writes resume only with the epoch that the
    /// committed withdrawal brings: a late `HandoverReady` can't overtake it.
    pub(super) fn tick_handover(&mut self, shared: &mut Shared) {
        let (partition, epoch) = (self.id, self.epoch);
        let now_us = shared.now.mono_us;
        self.advance_handover(shared);
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(handover) = &mut primary.handover else { return };
        if now_us < handover.started_us + shared.config.handover_us_max {
            return;
        }
        if handover.told_us.is_none() {
            // The controller never heard of it: nothing to withdraw.
            primary.handover = None;
            shared.wake_parked(partition);
            return;
        }
        if !handover.cancelled || handover.told_us.is_some_and(|told| now_us >= told + REPEAT_US) {
            handover.cancelled = true;
            handover.told_us = Some(now_us);
            shared.report(Report::HandoverCancel { partition, epoch });
        }
    }
}
