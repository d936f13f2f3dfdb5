//! One RESP connection, without the socket.
//!
//! - [`Connection`] turns bytes into commands and replies into bytes, in order, under limits.
//! - [`Session`] is what the server remembers of a client: protocol, name, authentication.
//! - [`Facts`] and [`Host`] are what a connection asks of its node; a driver implements them.
//!
//! Commands that concern the connection, the server or the cluster are answered here; the rest goes
//! to partitions through [`Host::submit`].

mod answer;
mod batch;
mod client;
mod cluster;
mod config;
mod connection;
mod facts;
mod hello;
mod info;
#[cfg(test)]
mod long_tests;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use connection::{Connection, ConnectionLimits};
pub use facts::{ClientInfo, ConfigRefusal, ConnectionId, Facts, Host, Op, Stats, Submitted, Ticket};
pub use state::Session;
