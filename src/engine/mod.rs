//! The pure core of ringdove.
//!
//! **Architecture Invariant:** nothing below this folder knows tokio, sockets, clocks, threads,
//! locks or ambient randomness. Time and entropy are arguments; results are values.

pub mod frame;
pub mod client_wire;
pub mod dedup;
pub mod hlc;
pub mod ids;
pub mod membership;
pub mod record;
pub mod store;
pub mod table;
pub mod time;
