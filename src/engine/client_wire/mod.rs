//! The client protocol: what QUIC clients and nodes say to each other, without the I/O.
//!
//! A client opens one bidirectional stream on its connection and both sides write frames on it:
//!
//! - [`frame`] lays the frames out and reads them back, borrowing;
//! - [`view`] is what a client needs to know of the agreed table;
//! - [`session`] is the node's side of one connection: bytes in, operations out, replies back.

pub mod frame;
pub mod session;
pub mod view;

pub use frame::{FromNode, Outcome, Refusal, Request, RequestHead, ToNode, WireError};
pub use session::{ClientHost, ClientSession, SessionLimits, Ticket};
pub use view::ClusterView;
