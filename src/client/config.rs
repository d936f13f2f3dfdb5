//! How a client finds its cluster, and how long it tries.

use crate::drivers::pki::{Secret, TlsError, Trust};
use std::time::Duration;

/// What a [`Client`](super::Client) needs to know.
///
/// ```
/// use ringdove::client::ClientConfig;
/// use std::time::Duration;
///
/// let config = ClientConfig::new(["10.0.0.1:7379", "cache.example:7379"])
///     .deadline(Duration::from_secs(3))
///     .in_flight_max(4_096);
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct ClientConfig {
    pub(super) seeds: Vec<String>,
    pub(super) trust: Option<Trust>,
    pub(super) deadline: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) silence_max: Duration,
    pub(super) in_flight_max: usize,
    pub(super) in_flight_bytes_max: usize,
}

impl ClientConfig {
    /// A client of the cluster that has a member at one of `seeds`, each `HOST:PORT` of a node's
    /// QUIC address. Without [`secret`](Self::secret) or [`trust`](Self::trust) it uses the
    /// built-in development secret, which only nodes on loopback accept.
    pub fn new<S: Into<String>>(seeds: impl IntoIterator<Item = S>) -> ClientConfig {
        ClientConfig {
            seeds: seeds.into_iter().map(Into::into).collect(),
            trust: None,
            deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(2),
            silence_max: Duration::from_secs(3),
            in_flight_max: 1_024,
            in_flight_bytes_max: 64 << 20,
        }
    }

    /// The cluster's secret.
    ///
    /// # Errors
    /// [`TlsError`] if no certificate can be derived from it.
    pub fn secret(self, secret: &Secret) -> Result<ClientConfig, TlsError> {
        Ok(self.trust(Trust::from_secret(secret)?))
    }

    /// Trust from a secret or from certificate files
    /// ([`files::load`](crate::drivers::pki::files::load)).
    pub fn trust(mut self, trust: Trust) -> ClientConfig {
        self.trust = Some(trust);
        self
    }

    /// How long a command is tried, retries included. 10 s if not set: longer than the cluster
    /// takes to replace a dead node.
    pub fn deadline(mut self, deadline: Duration) -> ClientConfig {
        self.deadline = deadline;
        self
    }

    /// How long to try to reach one node. 2 s if not set.
    pub fn connect_timeout(mut self, timeout: Duration) -> ClientConfig {
        self.connect_timeout = timeout;
        self
    }

    /// How long a node that owes an answer may be silent (to pings too) before its connection is
    /// given up. 3 s if not set.
    pub fn silence_max(mut self, silence: Duration) -> ClientConfig {
        self.silence_max = silence.max(Duration::from_millis(30));
        self
    }

    /// Commands under way at once, 1 to 1,048,576; more wait for room. 1,024 if not set.
    pub fn in_flight_max(mut self, count: usize) -> ClientConfig {
        self.in_flight_max = count.clamp(1, 1 << 20);
        self
    }

    /// Bytes of requests under way at once, at least 64 KiB; more wait for room, and a larger
    /// request waits to be alone. 64 MiB if not set.
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> ClientConfig {
        self.in_flight_bytes_max = bytes.clamp(64 << 10, 16 << 30);
        self
    }
}
