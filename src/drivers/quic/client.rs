//! The connections of clients: dialling one (the client library) and holding one (either side).

use super::handshake::{self, CloseCode, DialError, Opened};
use super::hello::{Hello, NAME_BYTES_MAX, PROTOCOL_MAX, PROTOCOL_MIN};
use super::transport::{self, Timeouts};
use crate::drivers::pki::{Role, Trust};
use crate::engine::ids::{Incarnation, NodeId};
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Dialling takes at most so long.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A client is patient: a node under load is better than none.
const TIMEOUTS: Timeouts =
    Timeouts { idle_timeout: Duration::from_secs(10), keep_alive: Duration::from_secs(2) };

/// A connection between a client and a node, hellos exchanged.
///
/// `send` and `recv` are the two halves of the first stream, at the byte after the hellos. The
/// client may open more bidirectional streams on `connection`. A node that is done with it must
/// [close](ClientConnection::hang_up) it; on a client's side, dropping all of it does.
#[derive(Debug)]
pub struct ClientConnection {
    /// What the other side said of itself.
    pub hello: Hello,
    /// Where the other side's packets come from.
    pub addr: SocketAddr,
    /// To the other side.
    pub send: SendStream,
    /// From the other side.
    pub recv: RecvStream,
    /// The connection of both.
    pub connection: Connection,
}

impl ClientConnection {
    pub(super) fn new(
        connection: Connection,
        hello: Hello,
        send: SendStream,
        recv: RecvStream,
    ) -> ClientConnection {
        let addr = connection.remote_address();
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        ClientConnection { hello, addr, send, recv, connection }
    }

    /// Ends the connection at once, telling the other side `reason`.
    pub fn hang_up(connection: &Connection, reason: &str) {
        handshake::close(connection, CloseCode::Shutdown, reason);
    }
}

/// Dials nodes as a client, from one UDP socket. Usable from any tokio runtime; quinn batches best
/// on a current_thread one.
#[derive(Clone, Debug)]
pub struct ClientDialer {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
    hello: Hello,
}

impl ClientDialer {
    /// Binds a socket on a free port. `id` is what the client calls itself in its hellos (draw it
    /// at random), `name` is for humans, at most 255 bytes. Must be called inside a runtime.
    ///
    /// # Errors
    /// No socket can be bound, or the name is too long.
    pub fn bind(trust: &Trust, id: u64, name: &str) -> io::Result<ClientDialer> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        if name.len() > NAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name is too long"));
        }
        let tls = trust.client_config(Role::Client).map_err(invalid)?;
        let config = transport::client_config(tls, TIMEOUTS).map_err(invalid)?;
        let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        // A machine without IPv6 can't bind the address that serves both.
        let socket = transport::bind(any_v6).or_else(|_| transport::bind(any_v4))?;
        let bound = socket.local_addr()?;
        let endpoint = Endpoint::new(
            transport::endpoint_config(trust, bound),
            None,
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        let hello = Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Client,
            node: NodeId(id),
            incarnation: Incarnation(0),
            quic: bound,
            name: name.to_owned(),
            expects: None,
            wall_ms: 0,
        };
        Ok(ClientDialer { endpoint, config, hello })
    }

    /// Connects to the node at `addr`.
    ///
    /// # Errors
    /// [`DialError`]; nothing has been asked of the node yet.
    pub async fn connect(&self, addr: SocketAddr) -> Result<ClientConnection, DialError> {
        let config = self.config.clone();
        let Opened { connection, hello, send, recv } =
            handshake::open(&self.endpoint, config, addr, &self.hello, DIAL_TIMEOUT).await?;
        if hello.role != Role::Node {
            return Err(DialError::Protocol);
        }
        Ok(ClientConnection::new(connection, hello, send, recv))
    }

    /// Says goodbye on all connections, and waits a moment for it to be sent.
    pub async fn close(&self) {
        let code = quinn::VarInt::from_u32(CloseCode::Shutdown as u32);
        self.endpoint.close(code, b"client closed");
        let idle = self.endpoint.wait_idle();
        let _too_slow = tokio::time::timeout(Duration::from_millis(500), idle).await;
    }
}

/// Connects to the node at `addr` from a socket of its own.
///
/// # Errors
/// [`DialError`]; nothing has been asked of the node yet.
pub async fn connect_client(addr: SocketAddr, trust: &Trust) -> Result<ClientConnection, DialError> {
    let dialer = ClientDialer::bind(trust, rand::random(), "")
        .map_err(|error| DialError::Address(error.to_string()))?;
    dialer.connect(addr).await
}
