//! Opening a channel to a node.

use crate::drivers::quic::{ClientDialer, DialError};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::io::{AsyncRead, AsyncWrite};

/// A future that is sent between threads.
pub(super) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Both directions of the one stream of a client's connection.
pub(super) struct Channel {
    pub(super) read: Box<dyn AsyncRead + Send + Unpin>,
    pub(super) write: Box<dyn AsyncWrite + Send + Unpin>,
    /// What has to live as long as the channel.
    pub(super) _connection: Box<dyn Any + Send>,
}

/// Why no channel could be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DialFailure {
    /// For humans.
    pub(super) why: String,
    /// To try again is no use: we are not trusted, or speak another version.
    pub(super) hopeless: bool,
}

/// Opens channels: over QUIC, or to a fake in tests.
pub(super) trait Dial: Send + Sync + 'static {
    /// Opens a channel to a node.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, Result<Channel, DialFailure>>;
}

impl Dial for ClientDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, Result<Channel, DialFailure>> {
        Box::pin(async move {
            let connection = self.connect(address).await?;
            Ok(Channel {
                read: Box::new(connection.recv),
                write: Box::new(connection.send),
                _connection: Box::new(connection.connection),
            })
        })
    }
}

impl From<DialError> for DialFailure {
    fn from(error: DialError) -> DialFailure {
        let hopeless = matches!(error, DialError::Untrusted | DialError::Version(_));
        DialFailure { why: error.to_string(), hopeless }
    }
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
