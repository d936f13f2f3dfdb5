//! The pure core of ringdove.
//!
//! **Architecture Invariant:** nothing below this folder knows tokio, sockets, clocks, threads,
//! locks or ambient randomness. Time and entropy are arguments; results are values.

pub mod client_wire;
pub mod command;
pub mod config;
pub mod controller;
pub mod dedup;
pub mod frame;
mod hashed_map;
pub mod hlc;
pub mod ids;
pub mod membership;
pub mod message;
pub mod mutants;
pub mod node;
pub mod op;
pub mod partition;
mod partition_set;
pub mod peers;
pub mod placement;
mod queues;
pub mod record;
pub mod resp;
pub mod router;
pub mod session;
pub mod shared;
pub mod stats;
pub mod store;
pub mod table;
pub mod time;
