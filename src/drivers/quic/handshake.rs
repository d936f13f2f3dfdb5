//! Hellos exchanged on a fresh connection, and the reasons for which connections end.

use super::hello::{HELLO_BYTES_MAX, Hello, HelloError};
use crate::drivers::pki::{Role, peer_role};
use crate::engine::ids::NodeId;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The name that every node's certificate bears.
const SERVER_NAME: &str = crate::drivers::pki::NODE_NAME;
/// The longest reason sent with a close, in bytes.
const REASON_BYTES_MAX: usize = 200;
/// TLS alerts appear as QUIC errors in this range (RFC 9001, 4.8).
const TLS_ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// Why one side closes a connection, as a QUIC application error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The process is going away.
    Shutdown = 0,
    /// The protocol version ranges don't meet.
    Version = 1,
    /// The node doesn't want this peer; the reason says why.
    Refused = 2,
    /// There is a better link between the two.
    Duplicate = 3,
    /// Somebody else lives at this address now.
    WrongNode = 4,
    /// The node dialled itself.
    Itself = 5,
    /// The peer broke the protocol.
    Protocol = 6,
    /// The certificate doesn't allow the role claimed.
    Role = 7,
    /// Too many connections.
    Busy = 8,
}

impl CloseCode {
    /// The code on the wire, or `None` if a later version invented it.
    fn from_wire(code: VarInt) -> Option<CloseCode> {
        use CloseCode::*;
        [Shutdown, Version, Refused, Duplicate, WrongNode, Itself, Protocol, Role, Busy]
            .into_iter()
            .find(|known| *known as u64 == code.into_inner())
    }
}

/// Closes a connection for a reason.
pub(super) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    let reason = &reason.as_bytes()[..reason.len().min(REASON_BYTES_MAX)];
    connection.close(VarInt::from_u32(code as u32), reason);
}

/// Why a link went down, or a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownReason {
    /// The other side closed it. `None` is a code of a later version.
    Closed(Option<CloseCode>, String),
    /// Nothing was heard for the idle timeout.
    TimedOut,
    /// The process at the other end no longer knows the connection: it restarted.
    Reset,
    /// We closed it.
    Local,
    /// One side doesn't accept the other's certificate.
    Untrusted,
    /// QUIC failed otherwise.
    Failed(String),
}

impl From<ConnectionError> for DownReason {
    fn from(error: ConnectionError) -> DownReason {
        match error {
            ConnectionError::ApplicationClosed(close) => DownReason::Closed(
                CloseCode::from_wire(close.error_code),
                String::from_utf8_lossy(&close.reason).into_owned(),
            ),
            ConnectionError::TimedOut => DownReason::TimedOut,
            ConnectionError::Reset => DownReason::Reset,
            ConnectionError::LocallyClosed => DownReason::Local,
            ConnectionError::TransportError(ref failed) if TLS_ALERTS.contains(&u64::from(failed.code)) => {
                DownReason::Untrusted
            }
            ConnectionError::ConnectionClosed(ref close)
                if TLS_ALERTS.contains(&u64::from(close.error_code)) =>
            {
                DownReason::Untrusted
            }
            error => DownReason::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Closed(Some(CloseCode::Shutdown), _) => f.write_str("peer shut down"),
            DownReason::Closed(_, reason) => write!(f, "closed by peer: {reason}"),
            DownReason::TimedOut => f.write_str("timed out"),
            DownReason::Reset => f.write_str("peer restarted"),
            DownReason::Local => f.write_str("closed"),
            DownReason::Untrusted => f.write_str("certificate not accepted"),
            DownReason::Failed(error) => f.write_str(error),
        }
    }
}

/// Why dialling brought no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The address can't be dialled at all.
    #[error("cannot dial: {0}")]
    Address(String),
    /// Nobody answered in time.
    #[error("no answer")]
    NoAnswer,
    /// One side doesn't accept the other's certificate: most likely another cluster's secret.
    #[error("certificate not accepted: is it the same secret, are the clocks less than a day apart?")]
    Untrusted,
    /// The protocol versions don't meet.
    #[error("{0}")]
    Version(String),
    /// The address is our own.
    #[error("this is our own address")]
    Itself,
    /// Another node than the expected one lives there now.
    #[error("another node lives there now")]
    WrongNode,
    /// The other side, or our own handler, doesn't want this link.
    #[error("refused: {0}")]
    Refused(String),
    /// The other side sent no hello.
    #[error("the other side sent no valid hello")]
    Protocol,
    /// The mesh is closed.
    #[error("closed")]
    Closed,
    /// QUIC failed otherwise.
    #[error("{0}")]
    Failed(String),
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> DialError {
        DownReason::from(error).into()
    }
}

impl From<DownReason> for DialError {
    fn from(reason: DownReason) -> DialError {
        match reason {
            DownReason::Closed(Some(CloseCode::Version), reason) => DialError::Version(reason),
            DownReason::Closed(Some(CloseCode::Itself), _) => DialError::Itself,
            DownReason::Closed(Some(CloseCode::WrongNode), _) => DialError::WrongNode,
            DownReason::Closed(_, reason) => DialError::Refused(reason),
            DownReason::TimedOut => DialError::NoAnswer,
            DownReason::Untrusted => DialError::Untrusted,
            DownReason::Local => DialError::Closed,
            DownReason::Reset => DialError::Failed("reset".into()),
            DownReason::Failed(error) => DialError::Failed(error),
        }
    }
}

/// A connection on which both hellos have been read, with the stream they travelled on.
pub(super) struct Opened {
    pub(super) connection: Connection,
    /// The other side's hello.
    pub(super) hello: Hello,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

/// Dials, introduces ourselves and reads who answers, within `timeout`.
pub(super) async fn open(
    endpoint: &Endpoint,
    config: quinn::ClientConfig,
    addr: SocketAddr,
    ours: &Hello,
    timeout: Duration,
) -> Result<Opened, DialError> {
    let connecting = endpoint.connect_with(config, addr, SERVER_NAME).map_err(|error| match error {
        quinn::ConnectError::EndpointStopping => DialError::Closed,
        error => DialError::Address(error.to_string()),
    })?;
    let exchange = async {
        let connection = connecting.await?;
        let (mut send, mut recv) = connection.open_bi().await?;
        let outcome = async {
            send.write_all(&ours.encode()).await.ok()?;
            read_hello(&mut recv).await
        };
        match outcome.await {
            Some(Ok(hello)) => Ok(Opened { connection, hello, send, recv }),
            Some(Err(error)) => {
                close(&connection, code_of(error), &error.to_string());
                Err(match error {
                    HelloError::Malformed => DialError::Protocol,
                    HelloError::Version { .. } => DialError::Version(error.to_string()),
                })
            }
            // A stream fails because its connection did, and that knows why.
            None => Err(connection.close_reason().map_or(DialError::Protocol, DialError::from)),
        }
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(DialError::NoAnswer))
}

/// Reads the dialler's hello on a connection it opened. The role its certificate allows comes
/// with it. `None`: the connection is of no use and has been closed.
pub(super) async fn read_dialler(connection: &Connection) -> Option<(Opened, Role)> {
    let (send, mut recv) = connection.accept_bi().await.ok()?;
    let hello = match read_hello(&mut recv).await {
        Some(Ok(hello)) => hello,
        Some(Err(error)) => {
            close(connection, code_of(error), &error.to_string());
            return None;
        }
        None => {
            close(connection, CloseCode::Protocol, "no hello");
            return None;
        }
    };
    let role = certified_role(connection);
    let allowed = match (role, hello.role) {
        (Some(Role::Node), _) | (Some(Role::Client), Role::Client) => role,
        (Some(Role::Client), Role::Node) | (None, _) => None,
    };
    let Some(role) = allowed else {
        close(connection, CloseCode::Role, "this certificate is not a node's");
        return None;
    };
    Some((Opened { connection: connection.clone(), hello, send, recv }, role))
}

/// Whether a dialler must be sent away because of whom it wants or is.
pub(super) fn misdirected(ours: NodeId, theirs: &Hello) -> Option<(CloseCode, &'static str)> {
    if theirs.role == Role::Client {
        return None;
    }
    if theirs.node == ours {
        return Some((CloseCode::Itself, "you dialled yourself"));
    }
    match theirs.expects {
        Some(expected) if expected != ours => Some((CloseCode::WrongNode, "another node lives here now")),
        _ => None,
    }
}

/// The role that the verified certificate of the other side allows.
fn certified_role(connection: &Connection) -> Option<Role> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast_ref::<Vec<CertificateDer<'static>>>()?;
    peer_role(chain)
}

/// `None` if the stream ends before a whole hello.
async fn read_hello(recv: &mut RecvStream) -> Option<Result<Hello, HelloError>> {
    let mut length = [0; 2];
    recv.read_exact(&mut length).await.ok()?;
    let length = usize::from(u16::from_le_bytes(length));
    if length > HELLO_BYTES_MAX {
        return Some(Err(HelloError::Malformed));
    }
    let mut body = [0; HELLO_BYTES_MAX];
    recv.read_exact(&mut body[..length]).await.ok()?;
    Some(Hello::decode(&body[..length]))
}

fn code_of(error: HelloError) -> CloseCode {
    match error {
        HelloError::Malformed => CloseCode::Protocol,
        HelloError::Version { .. } => CloseCode::Version,
    }
}
