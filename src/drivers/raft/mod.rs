//! The agreed log: openraft between a few voters, with the table as its state machine.
//!
//! The tour:
//! - [`AgreedLog`] is the handle: form a group, propose entries, read, watch, choose the voters.
//! - [`RpcSender`] is how its messages leave the node, as opaque bytes; [`channel`] bridges to
//!   links that live on one thread. Incoming ones enter by [`AgreedLog::handle`].
//! - `command` is what the log holds, `log_store` where, `state_machine` what it builds.
//! - `wire` is the form of the messages, `network` openraft's view of [`RpcSender`],
//!   `voters` the one task that changes the membership.
//!
//! Everything is kept in memory. That is sound because a process that restarts comes back under a
//! new [`NodeId`](crate::engine::ids::NodeId): nobody ever sees a voter that forgot its vote.

mod agreed_log;
mod command;
mod config;
mod log_store;
mod network;
mod state_machine;
#[cfg(test)]
mod tests;
mod voters;
mod wire;

pub use agreed_log::{
    AgreedLog, FormError, Leadership, LogStatus, ProposeError, Proposed, ReadError, Role, StartError,
};
pub use config::{ENTRY_BYTES_MAX, LogConfig, RPC_BODY_BYTES_MAX, TABLE_BYTES_MAX};
pub use network::{OutgoingRpc, RpcFailure, RpcSender, channel};
pub use wire::{GroupId, Refusal, recode};
