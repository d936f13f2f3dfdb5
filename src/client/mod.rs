//! The QUIC client: straight to the owners, pipelined, exactly-once.
//!
//! ```no_run
//! # async fn run() -> Result<(), ringdove::Error> {
//! use ringdove::client::{Client, ClientConfig};
//!
//! let client = Client::connect(ClientConfig::new(["127.0.0.1:7379"])).await?;
//! let visits = client.map::<str, u64>("visits").await?;
//! visits.set("front page", &1).await?;
//! assert_eq!(visits.get("front page").await?, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! The tour: [`Client`] is the handle, its retries are in `calls`; `routing` says where a command
//! goes and whether it may be sent again; `numbering` numbers the writes; `nodes` keeps one link
//! to each node and the newest view of the table; `link` is one connection; `dial` opens them.

mod calls;
mod config;
mod dial;
#[cfg(test)]
pub(crate) mod fake_cluster;
mod link;
mod nodes;
mod numbering;
mod routing;
#[cfg(test)]
mod tests;

pub use calls::Client;
pub use config::ClientConfig;
