//! Orders about dead primaries, sent to each member again until it has answered.

use super::message::Order;
use super::{ControllerConfig, ControllerOutput};
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::time::Now;
use std::collections::{BTreeMap, VecDeque};

/// What is still to be answered: by member and dead primary, partitions with the epochs to promise.
pub(super) type Unanswered = BTreeMap<(NodeId, NodeId), Vec<(PartitionId, Epoch)>>;

/// When each member was last asked about each dead primary.
#[derive(Debug, Default)]
pub(super) struct Asking {
    sent_us: BTreeMap<(NodeId, NodeId), u64>,
}

impl Asking {
    /// Sends what is due: one order a member and dead primary, which `order` makes of the latter.
    pub(super) fn send(
        &mut self,
        now: Now,
        config: &ControllerConfig,
        unanswered: Unanswered,
        order: impl Fn(NodeId, Vec<(PartitionId, Epoch)>) -> Order,
        outputs: &mut VecDeque<ControllerOutput>,
    ) {
        self.sent_us.retain(|pair, _| unanswered.contains_key(pair));
        for ((to, deposed), partitions) in unanswered {
            let sent_us = self.sent_us.get(&(to, deposed));
            if sent_us.is_none_or(|&sent_us| now.mono_us >= sent_us + config.resend_ms * 1_000) {
                self.sent_us.insert((to, deposed), now.mono_us);
                outputs.push_back(ControllerOutput::Send { to, order: order(deposed, partitions) });
            }
        }
    }

    /// Asks everybody anew.
    pub(super) fn restart(&mut self) {
        self.sent_us.clear();
    }

    /// When something is to be sent again.
    pub(super) fn alarms_us(&self, config: &ControllerConfig) -> impl Iterator<Item = u64> {
        let resend_us = config.resend_ms * 1_000;
        self.sent_us.values().map(move |sent_us| sent_us + resend_us)
    }
}
