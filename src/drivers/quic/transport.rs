//! QUIC's settings, and why each has its value.

use crate::drivers::pki::{TlsError, Trust};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig,
    VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// What a single stream may have in flight: enough for a fast network, and a quarter of what the
/// connection may have, so that bulk data never takes the room of the other streams.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 * STREAM_WINDOW_BYTES;
/// Default socket buffers lose packets even on loopback. The kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Discovery climbs up to this. quinn sends up to ten packets in one segmented write, which must
/// stay under 65,507 bytes, UDP's largest payload; beyond that segmentation is lost, which costs
/// more than larger packets gain.
const MTU_BYTES_MAX: u16 = 6_500;
/// The bytes of gossip that may wait, each way.
const DATAGRAM_BUFFER_BYTES: usize = 1 << 20;
/// The congestion window at the start: links are few, long-lived and mostly on a local network.
const INITIAL_WINDOW_BYTES: u64 = 256 << 10;
/// Before the first measurement. QUIC's own default (333 ms) makes a lost first packet cost a
/// second.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Streams a peer may have open: one a class, and room for those that end.
const UNI_STREAMS_MAX: u32 = 16;
/// Requests a peer may have under way.
const BIDI_STREAMS_MAX: u32 = 256;

/// How fast a silent peer is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) idle_timeout: Duration,
    pub(super) keep_alive: Duration,
}

/// A bound UDP socket with large buffers; a wildcard IPv6 address also serves IPv4.
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Smaller buffers work too, only slower: not a reason to fail.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    tracing::debug!(
        receive_bytes = socket.recv_buffer_size().unwrap_or(0),
        send_bytes = socket.send_buffer_size().unwrap_or(0),
        "UDP socket buffers granted"
    );
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// The settings of the endpoint that peers know under `addr`.
pub(super) fn endpoint_config(trust: &Trust, addr: SocketAddr) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(trust.reset_key(addr)));
    config.cid_generator(|| Box::new(RandomCids));
    if config.max_udp_payload_size(MTU_BYTES_MAX).is_err() {
        unreachable!("the largest packet is within QUIC's bounds");
    }
    config
}

/// Plain random connection ids. quinn's default ones are marked by their process, and it ignores
/// all others; these it answers with a reset if they aren't its own, which is how a restarted node
/// ends its predecessor's connections at once.
struct RandomCids;

impl ConnectionIdGenerator for RandomCids {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<u64>().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

pub(super) fn server_config(trust: &Trust, timeouts: Timeouts) -> Result<quinn::ServerConfig, TlsError> {
    let tls = QuicServerConfig::try_from(trust.server_config()?)
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(timeouts)));
    // What arrives of a connection before it is accepted; the accept loop never lags for long.
    config.max_incoming(1_024);
    config.incoming_buffer_size(64 << 10);
    config.incoming_buffer_size_total(8 << 20);
    Ok(config)
}

pub(super) fn client_config(
    tls: rustls::ClientConfig,
    timeouts: Timeouts,
) -> Result<quinn::ClientConfig, TlsError> {
    let tls = QuicClientConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport_config(timeouts)));
    Ok(config)
}

fn transport_config(timeouts: Timeouts) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MTU_BYTES_MAX);
    let mut congestion = quinn::congestion::CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(
            IdleTimeout::try_from(timeouts.idle_timeout)
                .unwrap_or_else(|_| VarInt::from_u32(u32::MAX).into()),
        ))
        .keep_alive_interval(Some(timeouts.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .max_concurrent_bidi_streams(VarInt::from_u32(BIDI_STREAMS_MAX))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(congestion));
    config
}
