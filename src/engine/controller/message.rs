//! What members tell the controller, and what it orders them to do.

use crate::engine::ids::{Epoch, NodeId, PartitionId, Sequence, TableVersion};
use crate::engine::table::MapDefinition;
use serde::{Deserialize, Serialize};

/// What a member tells the controller. Repeated by its sender until the table shows the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// From the primary: a learner holds everything.
    Completed {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// Who is complete.
        learner: NodeId,
        /// Its attachment, as the table names it: it may have been given up and attached anew since.
        since: TableVersion,
    },
    /// From the primary: drained, writes are queued, `to` may take over.
    HandoverReady {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// The in-sync replica that takes over.
        to: NodeId,
    },
    /// From the primary: the handover takes too long, let it go on under a new epoch.
    HandoverCancel {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
    },
    /// From the primary: a copy doesn't keep up and holds writes back beyond the bound.
    Lagging {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// Whose copy it is.
        node: NodeId,
        /// Whether it is part of the primary's as far as it goes: only late, not different.
        sound: bool,
    },
    /// The sender wants to leave: move everything off it.
    Leave,
    /// Define a named map, or change its defaults.
    DefineMap(MapDefinition),
    /// An operator accepts the loss of every partition that is dead now.
    AcceptLoss,
    /// The answer to [`Order::Salvage`]. It may come in parts.
    Held(Vec<Held>),
    /// The answer to [`Order::Merge`], from the node that took the records over.
    Merged {
        /// The partition.
        partition: PartitionId,
        /// The epoch promised for its recovery.
        epoch: Epoch,
        /// Whose records they were.
        learner: NodeId,
    },
}

/// What a member holds of a partition without a live in-sync copy, once it has promised the next epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The partition.
    pub partition: PartitionId,
    /// The promised epoch, as in the order.
    pub epoch: Epoch,
    /// Its complete copy, if any: the epoch it was last in force in, and its last record.
    pub copy: Option<(Epoch, Sequence)>,
    /// Whether that copy was complete in the reign that ended: a learner that the table doesn't show
    /// as complete yet.
    pub current: bool,
    /// What it took as a learner.
    pub taken: Taken,
}

/// What a learner took since the table lists it as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taken {
    /// It never attached: no write waited for it.
    Nothing,
    /// All records after `after` up to `last`.
    Records {
        /// It attached here.
        after: Sequence,
        /// The last it has.
        last: Sequence,
    },
    /// It attached, and lost what it had.
    Lost,
}

/// What the controller orders a member to do. Sent again until the table shows the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Promise these epochs and accept nothing older; answer with [`Sealed`] once the read leases
    /// granted to `deposed` have run out. Asked again, answer again.
    Seal {
        /// The dead primary.
        deposed: NodeId,
        /// Partitions and the epochs to promise: one above the table's.
        partitions: Vec<(PartitionId, Epoch)>,
    },
    /// To the primary: queue writes, drain, then report [`Report::HandoverReady`].
    Handover {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// The in-sync replica that is to take over.
        to: NodeId,
    },
    /// To whom kept a former copy or is a learner of a partition without a live in-sync copy: promise
    /// and answer as for [`Order::Seal`], with [`Report::Held`].
    Salvage {
        /// The dead primary.
        deposed: NodeId,
        /// Partitions and the epochs to promise: one above the table's.
        partitions: Vec<(PartitionId, Epoch)>,
    },
    /// To a learner: pass what was taken since it attached on to `to`, who kept a former copy and then
    /// reports [`Report::Merged`].
    Merge {
        /// The partition.
        partition: PartitionId,
        /// The epoch promised for its recovery.
        epoch: Epoch,
        /// Who completes its copy with it.
        to: NodeId,
    },
}

/// The answer to [`Order::Seal`]. It may come in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The dead primary, as in the order.
    pub deposed: NodeId,
    /// What was promised.
    pub partitions: Vec<SealedPartition>,
}

/// One promise of a [`Sealed`] answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedPartition {
    /// The partition.
    pub partition: PartitionId,
    /// The promised epoch, as in the order.
    pub epoch: Epoch,
    /// The last sequence this copy holds.
    pub last: Sequence,
}
