//! What a primary knows of another holder of its partition.

use crate::engine::ids::{NodeId, Sequence, TableVersion};
use crate::engine::partition::snapshot::Sending;
use crate::engine::shared::Shared;

/// Another holder of the partition, as its primary sees it.
#[derive(Debug)]
pub struct Follower {
    /// Who.
    pub node: NodeId,
    /// Whether the table lists it as in sync.
    pub in_sync: bool,
    /// Names its attachment as a learner.
    pub(in crate::engine::partition) since: TableVersion,
    /// The attempt to attach it as a learner under which it holds what it holds; 0 if it was in sync
    /// from the start. What it says of an earlier one tells nothing of this (seed 1245).
    pub attempt: u64,
    /// In the ack set: in sync, or an attached learner.
    pub attached: bool,
    /// It has everything up to here.
    pub acked: Sequence,
    /// It was sent everything up to here.
    pub sent: Sequence,
    /// When it last made progress or was sent to again.
    pub progress_us: u64,
    /// Since when it lags without progress; reported beyond the bound.
    pub lagging_since_us: Option<u64>,
    /// It knew nothing of this reign: it is sent to again once it has this table, but only once for each.
    pub(super) lacks_table: Option<TableVersion>,
    /// The last such table.
    pub(super) sent_again_for: TableVersion,
    /// It was told of this commit.
    pub commit_told: Sequence,
    /// The last round of fences in which it confirmed the epoch.
    pub(super) confirmed: u64,
    /// The snapshot under way, for a learner.
    pub sending: Option<Box<Sending>>,
}

impl Follower {
    /// Whether it has attached in this attempt: what it says of records sent in it counts.
    pub(super) fn is_of(&self, attempt: u64) -> bool {
        self.attached && self.attempt == attempt
    }

    /// In the ack set until the table says otherwise: in sync, or reported as complete. The
    /// controller may list a reported learner as in sync at any moment.
    pub fn is_bound(&self) -> bool {
        self.in_sync || self.sending.as_ref().is_some_and(|sending| sending.is_complete())
    }

    /// Whether it has got the table that it lacked when it refused records; asks it if not.
    pub(super) fn has_learned(&mut self, shared: &mut Shared) -> bool {
        let Some(version) = self.lacks_table else { return false };
        let learned = shared.peers.get(self.node).is_some_and(|peer| peer.table_version >= version);
        if learned {
            self.sent_again_for = version;
            self.lacks_table = None;
        } else {
            shared.peers.nudge(self.node);
        }
        learned
    }
}
