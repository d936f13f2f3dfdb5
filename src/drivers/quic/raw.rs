//! QUIC with the settings of the links and nothing on top: what benchmarks compare the links with.

use super::transport::{self, Timeouts};
use crate::drivers::pki::{Role, Trust};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// An endpoint that accepts and dials as a node's does, both sides verified.
///
/// # Errors
/// If the address can't be bound or the trust makes no TLS configuration.
pub fn endpoint(listen: SocketAddr, trust: &Trust) -> io::Result<quinn::Endpoint> {
    let timeouts = Timeouts { idle_timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(1) };
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
    let server = transport::server_config(trust, timeouts).map_err(invalid)?;
    let tls = trust.client_config(Role::Node).map_err(invalid)?;
    let dial = transport::client_config(tls, timeouts).map_err(invalid)?;
    let socket = transport::bind(listen)?;
    let config = transport::endpoint_config(trust, socket.local_addr()?);
    let mut endpoint = quinn::Endpoint::new(config, Some(server), socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(dial);
    Ok(endpoint)
}
