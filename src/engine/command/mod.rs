//! The commands: one table that serves RESP, QUIC and embedding alike.
//!
//! A command comes as its arguments, name first. [`resolve`] finds its [`CommandSpec`], [`plan`]
//! says where it runs, and [`execute`] runs it at the primary of one partition, writing the reply
//! already encoded for the client that asked. Commands that touch several partitions are split and
//! their replies put together by a [`Gather`], at the node that was asked.
//!
//! Each family of commands has its file, with its part of the table and its functions.
//! Source of semantics, replies and error texts: the command reference of Redis 7.

mod cas;
mod counters;
mod describe;
mod execution;
mod expiry;
mod extended;
mod gather;
mod glob;
mod keys;
mod locks;
mod number;
mod plan;
mod ranges;
mod refusal;
mod scan;
mod sessions;
mod set_options;
mod spec;
mod strings;
mod table;
#[cfg(test)]
mod tests;

pub use describe::{write_all, write_docs, write_help, write_info, write_keys, write_list};
pub use execution::{Execution, Request, execute};
pub use gather::{AtOnce, Gather, Step, Sub};
pub use glob::glob_matches;
pub(crate) use glob::glob_matches_any_case;
pub(crate) use number::check_database;
pub use number::parse_integer;
pub use plan::{Plan, has_many_slots, plan};
pub use refusal::Refusal;
pub use spec::{CommandSpec, Exec, Flags, Gathering, Group, KeyPositions, Route, SessionOp};
pub use table::{all, lookup, resolve};
