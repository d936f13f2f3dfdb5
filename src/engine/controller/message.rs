//! What members tell the controller, and what it orders them to do.

use crate::engine::ids::{Epoch, NodeId, PartitionId, Sequence};
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
    },
    /// The sender wants to leave: move everything off it.
    Leave,
    /// Define a named map, or change its defaults.
    DefineMap(MapDefinition),
    /// An operator accepts the loss of every partition that is dead now.
    AcceptLoss,
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
