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
    told: Option<Told>,
    cancelled: bool,
}

/// When the controller was last told, and who led then.
#[derive(Clone, Copy, Debug)]
struct Told {
    at_us: u64,
    leader: Option<NodeId>,
}

impl Handover {
    /// Whether the controller is to be told, now or again.
    fn is_due(&self, shared: &Shared) -> bool {
        self.told.is_none_or(|told| {
            shared.now.mono_us >= told.at_us + REPEAT_US || told.leader != shared.peers.leader
        })
    }

    fn note_told(&mut self, shared: &Shared) {
        self.told = Some(Told { at_us: shared.now.mono_us, leader: shared.peers.leader });
    }
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
        let handover = Handover { to, started_us: shared.now.mono_us, told: None, cancelled: false };
        primary.handover = Some(Box::new(handover));
        tracing::debug!(partition = %self.id, %epoch, %to, "handing over");
        shared.mark_restless(self.id);
        self.advance_handover(shared);
    }

    /// Tells the controller once nothing is under way any more.
    pub(super) fn advance_handover(&mut self, shared: &mut Shared) {
        let (partition, epoch) = (self.id, self.epoch);
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &self.copy) else { return };
        let drained = primary.unsent() == 0
            && copy.commit == copy.last
            && primary.handover.as_ref().is_some_and(|handover| {
                primary.followers.iter().any(|follower| {
                    follower.node == handover.to && follower.in_sync && follower.acked == copy.last
                })
            });
        let Some(handover) = &mut primary.handover else { return };
        if handover.cancelled || !drained || !handover.is_due(shared) {
            return;
        }
        handover.note_told(shared);
        tracing::debug!(%partition, %epoch, "drained");
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
        if handover.told.is_none() {
            // The controller never heard of it: nothing to withdraw.
            primary.handover = None;
            shared.wake_parked(partition);
            return;
        }
        if !handover.cancelled || handover.is_due(shared) {
            handover.cancelled = true;
            handover.note_told(shared);
            shared.report(Report::HandoverCancel { partition, epoch });
        }
    }
}
