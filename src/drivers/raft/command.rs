//! What the log holds, and the types openraft is instantiated with.

use crate::engine::ids::{NodeId, TableVersion};

use crate::engine::table::{Applied, Table, TableEntry};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;

openraft::declare_raft_types!(
    /// The agreed log's types: nodes by their [`NodeId`], with their QUIC addresses.
    pub(super) LogTypes:
        D = LogCommand,
        R = Reply,
        NodeId = NodeId,
        Node = SocketAddr,
);

pub(super) type Raft = openraft::Raft<LogTypes, super::state_machine::TableMachine>;
pub(super) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, NodeId>;
pub(super) type Vote = openraft::Vote<LeaderId>;
pub(super) type LogId = openraft::LogId<LeaderId>;
pub(super) type LogEntry = <LogTypes as openraft::RaftTypeConfig>::Entry;
pub(super) type StoredMembership = openraft::StoredMembership<LeaderId, NodeId, SocketAddr>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, NodeId, SocketAddr>;
pub(super) type Snapshot = openraft::Snapshot<LeaderId, NodeId, SocketAddr, SnapshotTable>;

/// What a snapshot holds: the table, if the group has begun.
pub(super) type SnapshotTable = Option<std::sync::Arc<Table>>;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum LogCommand {
    /// The group's first word. The table it starts from is an entry like any other, so that
    /// whoever joins later, by log or by snapshot, builds the same one.
    Begin {
        /// The table to start from.
        table: Box<Table>,
        /// What is applied to it at once.
        first: TableEntry,
    },
    /// Changes of the table.
    Change(TableEntry),
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogCommand::Begin { table, first } => {
                write!(f, "begin at {} with {} changes", table.version, first.len())
            }
            LogCommand::Change(entry) => write!(f, "{} changes", entry.len()),
        }
    }
}

/// What the proposer of an entry learns. It never leaves the process; openraft asks for serde.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The table's version after the entry.
    pub version: TableVersion,
    /// What came of its changes; `None` for entries that carry none.
    #[serde(skip)]
    pub applied: Option<Applied>,
}
