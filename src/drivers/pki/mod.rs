//! Trust: who may join, and as what.
//!
//! Two sources, one result. Either one cluster [`Secret`] is the whole public-key infrastructure:
//! every node derives the same certificate authority from it and signs its own short-lived
//! certificate. Or a folder holds certificates that somebody issued ([`files`]). Both make a
//! [`Trust`], and that makes TLS 1.3 configurations in which each side verifies the other.
//!
//! A certificate carries its role in its name: [`NODE_NAME`] or [`CLIENT_NAME`]. Only a node's
//! certificate may serve, and only it may introduce itself as a node.

mod authority;
pub mod files;
mod secret;
mod trust;

pub use authority::Role;
pub use files::public_server_config;
pub use secret::{Secret, SecretError};
pub use trust::{TlsError, Trust, peer_role};

/// The name (SAN) in every node's certificate.
pub const NODE_NAME: &str = "node.ringdove";
/// The name (SAN) in every client's certificate.
pub const CLIENT_NAME: &str = "client.ringdove";
