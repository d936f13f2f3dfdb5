//! Opening a channel to a node.

use std::any::Any;
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

/// Opens channels: over QUIC, or to a fake in tests.
pub(super) trait Dial: Send + Sync + 'static {
    /// Opens a channel. The error is for humans.
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, Result<Channel, String>>;
}
