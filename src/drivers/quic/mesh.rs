//! The mesh as the node sees it: [`Mesh`] to act, [`Links`] to hear.

use super::accept;
use super::admission::Admission;
use super::client::ClientConnection;
use super::counters::{Counters, MeshCounters};
use super::handshake::{self, CloseCode, DialError, DownReason, Opened};
use super::hello::{Hello, NAME_BYTES_MAX, PROTOCOL_MAX, PROTOCOL_MIN};
use super::link::{self, Link};
use super::maintain::{self, Maintained};
use super::refusals::{RefusalKind, Refusals};
use super::transport::{self, Timeouts};
use crate::drivers::clock::Clock;
use crate::drivers::pki::{Role, Trust};
use crate::engine::frame::Class;
use crate::engine::ids::{Incarnation, NodeId};
use bytes::Bytes;
use quinn::Endpoint;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A future of this thread.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// How a mesh is set up. [`MeshConfig::new`] fills in the defaults.
#[derive(Clone, Debug)]
pub struct MeshConfig {
    /// Where to listen (UDP); port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where peers reach us; `None` is the address we are bound to. Port 0 is the bound port.
    pub advertise: Option<SocketAddr>,
    /// Who is trusted.
    pub trust: Trust,
    /// Who we are.
    pub node: NodeId,
    /// The human's name for us, at most 255 bytes.
    pub name: String,
    /// The clock that [`Mesh::last_heard_us`] reads.
    pub clock: Clock,
    /// A link on which nothing was heard for so long is lost.
    pub idle_timeout: Duration,
    /// On a silent link, something is sent so often.
    pub keep_alive: Duration,
    /// Dialling, or being dialled, takes at most so long, hellos included.
    pub dial_timeout: Duration,
    /// Redialling a lost peer waits at least and at most so long, doubling in between.
    pub redial_delay: (Duration, Duration),
    /// The bytes that may wait to be sent to one peer, by [`Class::index`]. One frame is always
    /// let into an empty queue.
    pub queue_bytes_max: [usize; 3],
    /// The longest request or answer, in bytes.
    pub request_bytes_max: usize,
    /// Handshakes of strangers under way at most, and how many may begin at once; from half of that on,
    /// diallers must prove their address. As many again are kept for peers with which links are kept.
    pub handshakes_max: usize,
    /// Connections of clients at most.
    pub clients_max: usize,
}

impl MeshConfig {
    /// The defaults: a dead peer is noticed after 2.5 s of silence, lost ones are redialled after
    /// 100 ms to 3 s, 256 MiB may wait in the hot and control queues of one peer, 64 MiB in bulk.
    pub fn new(listen: SocketAddr, trust: Trust, node: NodeId, clock: Clock) -> MeshConfig {
        MeshConfig {
            listen,
            advertise: None,
            trust,
            node,
            name: String::new(),
            clock,
            // Five keep-alives; a pause of a second or a lossy network must not end links.
            idle_timeout: Duration::from_millis(2_500),
            keep_alive: Duration::from_millis(500),
            dial_timeout: Duration::from_secs(3),
            redial_delay: (Duration::from_millis(100), Duration::from_secs(3)),
            queue_bytes_max: [256 << 20, 256 << 20, 64 << 20],
            request_bytes_max: 16 << 20,
            handshakes_max: 256,
            clients_max: 10_000,
        }
    }
}

/// What the mesh tells the node. Called on the runtime's thread, between other work: must not
/// block. Calling back into the [`Mesh`] is fine.
pub trait Links {
    /// The first link to `peer` is up. `addr` is where its packets come from; where it listens is
    /// `hello.quic`.
    fn link_up(&self, peer: NodeId, hello: &Hello, addr: SocketAddr);

    /// The last link to `peer` is gone. Frames still queued are lost.
    fn link_down(&self, peer: NodeId, reason: DownReason);

    /// All the frames that one read yielded, in order. They are slices of the received packets:
    /// copy what is kept for long. What is left in `frames` is dropped.
    fn frames(&self, peer: NodeId, class: Class, frames: &mut Vec<Bytes>);

    /// A datagram.
    fn datagram(&self, peer: NodeId, bytes: Bytes);

    /// A request; the future's result is the answer. It runs to its end even if the asker has
    /// gone, so it should bound its own time.
    fn request(&self, peer: NodeId, body: Bytes) -> LocalFuture<Result<Bytes, Refusal>>;

    /// A client has connected; whoever takes it drives it, and closes it when done.
    fn client(&self, connection: ClientConnection);

    /// Whether to have a link with a node that says this of itself. Version, role and identity
    /// have been checked.
    ///
    /// # Errors
    /// Why not; the peer is told.
    fn accepts(&self, hello: &Hello) -> Result<(), Refusal>;

    /// Everything queued for `peer` in the bulk class has been handed to QUIC: there is room.
    fn bulk_drained(&self, _peer: NodeId) {}

    /// While redialling `peer`, another node was found at its address: its process is gone.
    fn replaced(&self, _peer: NodeId, _addr: SocketAddr) {}
}

/// Why something isn't done; the other side is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a request brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// There is no link; it was not sent.
    #[error("no link to {0}")]
    NoLink(NodeId),
    /// The body is beyond the bound; it was not sent.
    #[error("a request of {bytes} bytes, at most {bound} are allowed")]
    TooLong {
        /// Its length, in bytes.
        bytes: usize,
        /// The bound, in bytes.
        bound: usize,
    },
    /// No answer in time; it may have been carried out.
    #[error("no answer in time")]
    Timeout,
    /// The link broke, or the answer was malformed; it may have been carried out.
    #[error("link lost: {0}")]
    Lost(DownReason),
    /// The peer answered that it wouldn't, or couldn't.
    #[error("{0}")]
    Refused(String),
}

/// The links to all peers. Cheap to clone; lives on one thread, inside a `LocalRuntime`.
#[derive(Clone)]
pub struct Mesh(pub(super) Rc<Shared>);

/// What the mesh and its tasks share. No `RefCell` here is borrowed while a handler runs.
pub(super) struct Shared {
    pub(super) config: MeshConfig,
    pub(super) advertise: SocketAddr,
    pub(super) endpoint: Endpoint,
    pub(super) dial_config: quinn::ClientConfig,
    incarnation: Cell<Incarnation>,
    /// `None` once closed.
    handler: RefCell<Option<Rc<dyn Links>>>,
    peers: RefCell<BTreeMap<NodeId, Vec<Rc<Link>>>>,
    maintained: RefCell<BTreeMap<NodeId, Rc<Maintained>>>,
    next_serial: Cell<u64>,
    pub(super) handshakes: Cell<usize>,
    pub(super) admission: RefCell<Admission>,
    pub(super) clients: Cell<usize>,
    pub(super) counters: Counters,
    refusals: Refusals,
}

impl Mesh {
    /// Binds the socket and starts to listen. Must be called inside a `LocalRuntime`.
    ///
    /// # Errors
    /// The address can't be bound, the name is too long, or the trust is not a node's.
    pub fn bind(config: MeshConfig, handler: Rc<dyn Links>) -> io::Result<Mesh> {
        let admission = RefCell::new(Admission::new(config.handshakes_max));
        if config.name.len() > NAME_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the node's name is too long"));
        }
        let timeouts = Timeouts { idle_timeout: config.idle_timeout, keep_alive: config.keep_alive };
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let server = transport::server_config(&config.trust, timeouts).map_err(invalid)?;
        let dial = config.trust.client_config(Role::Node).map_err(invalid)?;
        let dial_config = transport::client_config(dial, timeouts).map_err(invalid)?;

        let socket = transport::bind(config.listen)?;
        let bound = socket.local_addr()?;
        let mut advertise = config.advertise.unwrap_or(bound);
        if advertise.port() == 0 {
            advertise.set_port(bound.port());
        }
        let endpoint = Endpoint::new(
            transport::endpoint_config(&config.trust, advertise),
            Some(server),
            socket,
            Arc::new(quinn::TokioRuntime),
        )?;
        let shared = Rc::new(Shared {
            config,
            advertise,
            endpoint,
            dial_config,
            incarnation: Cell::new(Incarnation(0)),
            handler: RefCell::new(Some(handler)),
            peers: RefCell::default(),
            maintained: RefCell::default(),
            next_serial: Cell::new(0),
            handshakes: Cell::new(0),
            admission,
            clients: Cell::new(0),
            counters: Counters::default(),
            refusals: Refusals::default(),
        });
        tokio::task::spawn_local(accept::run(shared.clone()));
        tokio::task::spawn_local(link::watch(shared.clone()));
        Ok(Mesh(shared))
    }

    /// Who we are.
    pub fn node(&self) -> NodeId {
        self.0.config.node
    }

    /// Where we are bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.endpoint.local_addr()
    }

    /// Where we tell peers to reach us.
    pub fn advertised_addr(&self) -> SocketAddr {
        self.0.advertise
    }

    /// Sets the cluster life that our hellos name from now on. Links that are up stay up.
    pub fn set_incarnation(&self, incarnation: Incarnation) {
        self.0.incarnation.set(incarnation);
    }

    /// Links with whoever lives at `addr`, and says who that is. If a link to that address is up,
    /// it is used.
    pub fn dial(&self, addr: SocketAddr) -> impl Future<Output = Result<NodeId, DialError>> + use<> {
        let shared = self.0.clone();
        async move {
            let bound = shared.endpoint.local_addr();
            if addr == shared.advertise || bound.is_ok_and(|bound| bound == addr) {
                return Err(DialError::Itself);
            }
            match shared.peer_at(addr) {
                Some(peer) => Ok(peer),
                None => shared.dial(addr, None).await,
            }
        }
    }

    /// Keeps a link with `peer`, who listens at `addr`: dials until there is one, and again
    /// whenever it is lost, until [`Mesh::forget`]. Called again, it only changes the address.
    pub fn maintain(&self, peer: NodeId, addr: SocketAddr) {
        if peer == self.node() || self.0.is_closed() {
            return;
        }
        let mut maintained = self.0.maintained.borrow_mut();
        if let Some(known) = maintained.get(&peer) {
            known.set_addr(addr);
            return;
        }
        maintained.insert(peer, maintain::start(self.0.clone(), peer, addr));
    }

    /// Stops redialling `peer`. A link that is up stays until either side or silence ends it.
    pub fn forget(&self, peer: NodeId) {
        let forgotten = self.0.maintained.borrow_mut().remove(&peer);
        if let Some(maintained) = forgotten {
            maintained.stop();
        }
    }

    /// Stops redialling `peer` and closes its links, telling it `reason`. The handler hears
    /// `link_down` if there was one.
    pub fn disconnect(&self, peer: NodeId, reason: &str) {
        self.forget(peer);
        let links = self.0.peers.borrow().get(&peer).cloned().unwrap_or_default();
        for link in links {
            handshake::close(&link.connection, CloseCode::Refused, reason);
        }
    }

    /// Queues a frame for `peer`. `false` if it is not sent: there is no link, its queue is full,
    /// or the frame is beyond [`Class::frame_bytes_max`]. `true` is no promise that it arrives.
    pub fn send(&self, peer: NodeId, class: Class, frame: Bytes) -> bool {
        let Some(link) = self.0.current(peer) else {
            return false;
        };
        let queued = link.enqueue(class, frame, self.0.config.queue_bytes_max[class.index()]);
        if !queued {
            self.0.counters.count(|c| c.frames_refused += 1);
        }
        queued
    }

    /// Sends a datagram. `false` if it is not sent: no link, or longer than
    /// [`Mesh::datagram_bytes_max`]. When the network is slow, the oldest waiting ones are dropped.
    pub fn send_datagram(&self, peer: NodeId, bytes: Bytes) -> bool {
        let link = self.0.current(peer);
        link.is_some_and(|link| link.connection.send_datagram(bytes).is_ok())
    }

    /// The longest datagram that `peer` can be sent now, in bytes. About 1,150 on a fresh link;
    /// more once the path has proved to carry more.
    pub fn datagram_bytes_max(&self, peer: NodeId) -> Option<usize> {
        self.0.current(peer)?.connection.max_datagram_size()
    }

    /// Asks `peer` and waits for the answer.
    ///
    /// # Errors
    /// [`RequestError`]; each variant says whether the request may have been carried out.
    pub fn request(
        &self,
        peer: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> impl Future<Output = Result<Bytes, RequestError>> + use<> {
        let link = self.0.current(peer);
        let bound = self.0.config.request_bytes_max;
        async move {
            if body.len() > bound {
                return Err(RequestError::TooLong { bytes: body.len(), bound });
            }
            let link = link.ok_or(RequestError::NoLink(peer))?;
            let asked = link::ask(&link.connection, body, bound);
            tokio::time::timeout(timeout, asked).await.unwrap_or(Err(RequestError::Timeout))
        }
    }

    /// Bytes queued for `peer` that QUIC has not taken yet; 0 without a link.
    pub fn queued_bytes(&self, peer: NodeId, class: Class) -> usize {
        self.0.current(peer).map_or(0, |link| link.queued_bytes(class))
    }

    /// When anything was last heard of `peer`, on the boot-time clock in microseconds; `None`
    /// without a link. Silent keep-alives count, with the accuracy of half their interval.
    pub fn last_heard_us(&self, peer: NodeId) -> Option<u64> {
        let peers = self.0.peers.borrow();
        peers.get(&peer)?.iter().map(|link| link.heard_us.get()).max()
    }

    /// The estimated round-trip time to `peer`; `None` without a link.
    pub fn rtt(&self, peer: NodeId) -> Option<Duration> {
        Some(self.0.current(peer)?.connection.rtt())
    }

    /// Whether there is a link to `peer` on which something was heard within three keep-alives.
    pub fn live(&self, peer: NodeId) -> bool {
        let silence_max_us = 3 * self.0.config.keep_alive.as_micros() as u64;
        let now_us = self.0.now_us();
        self.last_heard_us(peer).is_some_and(|at_us| now_us.saturating_sub(at_us) <= silence_max_us)
    }

    /// All peers with a link, in order.
    pub fn peers(&self) -> Vec<NodeId> {
        self.0.peers.borrow().keys().copied().collect()
    }

    /// What `peer` said of itself when the current link opened.
    pub fn hello_of(&self, peer: NodeId) -> Option<Hello> {
        Some(self.0.current(peer)?.hello.clone())
    }

    /// Connections to `peer`: one, but for the moment after both sides dialled at once.
    pub fn connections(&self, peer: NodeId) -> usize {
        self.0.peers.borrow().get(&peer).map_or(0, Vec::len)
    }

    /// The counters.
    pub fn counters(&self) -> MeshCounters {
        self.0.counters.read()
    }

    /// Sends what is queued (for half a second at most), tells all peers and clients that we are
    /// going, and lets go of the handler. No more of its methods are called.
    pub async fn close(&self, reason: &str) {
        let maintained = std::mem::take(&mut *self.0.maintained.borrow_mut());
        maintained.values().for_each(|maintained| maintained.stop());
        let links: Vec<_> = self.0.peers.borrow().values().flatten().cloned().collect();
        let flush = async {
            for link in &links {
                link.flush().await;
            }
        };
        let _too_slow = tokio::time::timeout(Duration::from_millis(500), flush).await;
        self.0.handler.borrow_mut().take();
        self.0.endpoint.close(quinn::VarInt::from_u32(CloseCode::Shutdown as u32), reason.as_bytes());
        let idle = self.0.endpoint.wait_idle();
        let _too_slow = tokio::time::timeout(Duration::from_millis(500), idle).await;
    }
}

impl Shared {
    pub(super) fn now_us(&self) -> u64 {
        self.config.clock.now().mono_us
    }

    /// Whether a link is kept with a peer at `addr`.
    pub(super) fn maintains_at(&self, addr: SocketAddr) -> bool {
        let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port());
        self.maintained.borrow().values().any(|maintained| maintained.addr() == addr)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.handler.borrow().is_none()
    }

    /// The handler, until the mesh is closed.
    pub(super) fn handler(&self) -> Option<Rc<dyn Links>> {
        self.handler.borrow().clone()
    }

    pub(super) fn hello(&self, expects: Option<NodeId>) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Node,
            node: self.config.node,
            incarnation: self.incarnation.get(),
            quic: self.advertise,
            name: self.config.name.clone(),
            expects,
            wall_ms: self.config.clock.now().wall_ms,
        }
    }

    pub(super) fn note_refusal(&self, kind: RefusalKind, addr: SocketAddr, reason: &dyn std::fmt::Display) {
        self.counters.count(|c| match kind {
            RefusalKind::UntrustedInbound | RefusalKind::UntrustedOutbound => {
                c.refused_untrusted += 1;
            }
            RefusalKind::Hello => c.refused_hello += 1,
            RefusalKind::Busy => c.refused_busy += 1,
        });
        self.refusals.note(kind, self.now_us(), addr, reason);
    }

    /// The link that sends to `peer` now.
    pub(super) fn current(&self, peer: NodeId) -> Option<Rc<Link>> {
        self.peers.borrow().get(&peer)?.first().cloned()
    }

    pub(super) fn links(&self) -> Vec<Rc<Link>> {
        self.peers.borrow().values().flatten().cloned().collect()
    }

    fn peer_at(&self, addr: SocketAddr) -> Option<NodeId> {
        let peers = self.peers.borrow();
        let at = |links: &Vec<Rc<Link>>| links.iter().any(|link| link.hello.quic == addr);
        peers.iter().find(|(_, links)| at(links)).map(|(peer, _)| *peer)
    }

    /// Dials, and brings the link up.
    pub(super) async fn dial(
        self: &Rc<Self>,
        addr: SocketAddr,
        expects: Option<NodeId>,
    ) -> Result<NodeId, DialError> {
        let handler = self.handler().ok_or(DialError::Closed)?;
        let ours = self.hello(expects);
        let timeout = self.config.dial_timeout;
        let dialled = handshake::open(&self.endpoint, self.dial_config.clone(), addr, &ours, timeout).await;
        let Opened { connection, hello, mut send, .. } = match dialled {
            Ok(opened) => opened,
            Err(error) => {
                if error == DialError::Untrusted {
                    self.note_refusal(RefusalKind::UntrustedOutbound, addr, &error);
                }
                return Err(error);
            }
        };
        let _peer_stopped_it = send.finish();
        let peer = hello.node;
        if hello.role != Role::Node || peer == self.config.node {
            handshake::close(&connection, CloseCode::Protocol, "a node must answer as a node");
            return Err(DialError::Protocol);
        }
        if expects.is_some_and(|expected| expected != peer) {
            handshake::close(&connection, CloseCode::WrongNode, "another node was expected");
            return Err(DialError::WrongNode);
        }
        if let Err(Refusal(reason)) = handler.accepts(&hello) {
            handshake::close(&connection, CloseCode::Refused, &reason);
            return Err(DialError::Refused(reason));
        }
        if hello.incarnation.0 != 0 && self.incarnation.get().0 == 0 {
            self.config.clock.follow(hello.wall_ms);
        }
        self.counters.count(|c| c.links_dialled += 1);
        self.bring_up(connection, hello, true);
        Ok(peer)
    }

    /// Registers a link and starts its tasks.
    ///
    /// Both sides prefer the link dialled by the lower id, and of several from one dialler the
    /// newest. Whoever dialled another one closes it after a moment; until then both sides read it.
    pub(super) fn bring_up(
        self: &Rc<Self>,
        connection: quinn::Connection,
        hello: Hello,
        dialled_by_us: bool,
    ) {
        let Some(handler) = self.handler() else {
            handshake::close(&connection, CloseCode::Shutdown, "shutting down");
            return;
        };
        let peer = hello.node;
        let serial = self.next_serial.get();
        self.next_serial.set(serial + 1);
        let preferred = dialled_by_us == (self.config.node < peer);
        let link = Rc::new(Link::new(connection, hello, dialled_by_us, (preferred, serial)));
        link.heard_us.set(self.now_us());
        let (is_first, outdone) = {
            let mut peers = self.peers.borrow_mut();
            let links = peers.entry(peer).or_default();
            links.push(link.clone());
            links.sort_by_key(|link| std::cmp::Reverse(link.rank));
            let outdone: Vec<_> = links[1..].iter().filter(|l| l.dialled_by_us).cloned().collect();
            (links.len() == 1, outdone)
        };
        for outdone in outdone {
            link::retire(self, outdone);
        }
        if is_first {
            tracing::info!(%peer, addr = %link.addr(), name = %link.hello.name, "link up");
            handler.link_up(peer, &link.hello, link.addr());
        }
        link::start(self, &link);
        self.wake_maintenance(peer);
    }

    /// Unregisters a link whose connection has ended.
    pub(super) fn bring_down(&self, link: &Rc<Link>, reason: DownReason) {
        let peer = link.hello.node;
        let is_last = {
            let mut peers = self.peers.borrow_mut();
            let Some(links) = peers.get_mut(&peer) else {
                return;
            };
            links.retain(|other| !Rc::ptr_eq(other, link));
            let is_last = links.is_empty();
            if is_last {
                peers.remove(&peer);
            }
            is_last
        };
        let unwished = !matches!(reason, DownReason::Local | DownReason::Closed(..));
        self.counters.count(|c| {
            c.links_ended += 1;
            c.links_lost += u64::from(is_last && unwished);
        });
        if is_last && let Some(handler) = self.handler() {
            tracing::info!(%peer, %reason, "link down");
            handler.link_down(peer, reason);
        }
        self.wake_maintenance(peer);
    }

    fn wake_maintenance(&self, peer: NodeId) {
        if let Some(maintained) = self.maintained.borrow().get(&peer) {
            maintained.wake();
        }
    }
}
