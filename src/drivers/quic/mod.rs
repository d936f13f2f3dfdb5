//! The mesh: QUIC links between nodes, and the connections of clients.
//!
//! One UDP port a node. Between two nodes there is one link at a time, whoever dialled it; over it
//! travel ordered frames in three [classes](crate::engine::frame::Class) (one stream each and
//! direction), requests (one stream each) and datagrams. A [`Hello`] opens every connection, under
//! TLS 1.3 with both sides verified ([`pki`](super::pki)).
//!
//! The tour: [`mesh`] is what the node talks to, [`Links`] is how it hears back; `link` is one
//! connection and its tasks; `accept` and `maintain` bring links up; `handshake` exchanges hellos;
//! `transport` holds QUIC's settings, [`raw`] is those alone; [`client`] is the dialling side of the client library.
//!
//! Everything but the client side runs on one current_thread runtime inside a `LocalRuntime`: quinn
//! batches well there, and nothing needs a lock.

mod accept;
mod admission;
pub mod client;
mod counters;
mod handshake;
pub mod hello;
mod link;
mod maintain;
pub mod mesh;
pub mod raw;
mod refusals;
mod transport;

#[cfg(test)]
mod tests;

pub use client::{ClientConnection, ClientDialer, connect_client};
pub use counters::MeshCounters;
pub use handshake::{CloseCode, DialError, DownReason};
pub use hello::Hello;
pub use mesh::{Links, LocalFuture, Mesh, MeshConfig, Refusal, RequestError};
