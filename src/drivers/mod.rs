//! The I/O around the [`engine`](crate::engine): clocks, sockets, the agreed log, HTTP.
//!
//! **Architecture Invariant:** a driver holds no protocol decision. What can be decided without a
//! socket is decided in the engine, where the simulator can reach it.

use std::io;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

pub mod admin_http;
pub mod clock;
pub mod logging;
pub mod node;
pub mod pki;
pub mod process;
pub mod quic;
pub mod raft;
pub mod wake;

/// What a node runs on: one thread, whose tasks share their state without locks.
///
/// # Errors
/// The operating system refuses what an event loop needs.
pub fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
}
