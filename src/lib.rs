//! ringdove: a shared pool of memory across machines.
//!
//! A distributed in-memory key/value store and cache. Any node answers any key; an acknowledged
//! write survives the loss of any one node.
//!
//! The tour:
//! - [`engine`] is the pure core: storage, commands, replication, migration, the table and its
//!   controller, membership. No sockets, no clock, no threads: time and entropy are arguments.
//! - [`drivers`] own the I/O and nothing else: QUIC links, the agreed log, RESP and admin sockets.
//! - `sim` (feature `sim`) runs whole clusters of the same engine under virtual time from one seed.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod client;
pub mod config;
pub mod drivers;
pub mod embed;
pub mod engine;
pub mod error;
pub mod map;
#[cfg(feature = "sim")]
pub mod sim;

pub use client::{Client, ClientConfig};
pub use embed::{Node, NodeBuilder};
pub use error::Error;
pub use map::{Caller, Map};
