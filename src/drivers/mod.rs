//! The I/O around the [`engine`](crate::engine): clocks, sockets, the agreed log, HTTP.
//!
//! **Architecture Invariant:** a driver holds no protocol decision. What can be decided without a
//! socket is decided in the engine, where the simulator can reach it.

pub mod admin_http;
pub mod clock;
pub mod logging;
pub mod node;
pub mod pki;
pub mod process;
pub mod quic;
pub mod raft;
