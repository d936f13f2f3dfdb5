//! Starting a node, keeping it running, and ending it in good order.

use super::links::NodeLinks;
use super::resp::RespFront;
use super::{NodeCore, admin, agreed, clients};
use crate::config::{CredentialsError, NodeConfig, RespTls};
use crate::drivers::admin_http;
use crate::drivers::clock::Clock;
use crate::drivers::pki::{self, Role};
use crate::drivers::quic::{
    ClientConnection, DialError, DownReason, Hello, Links, LocalFuture, Mesh, MeshConfig, Refusal,
};
use crate::drivers::raft::{self, AgreedLog, LogConfig};
use crate::engine::client_wire::SessionLimits;
use crate::engine::config::EngineConfig;
use crate::engine::frame::Class;
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::membership::MembershipConfig;
use crate::engine::node::{Engine, OnlyHere};
use crate::engine::peers::PeerConfig;
use crate::engine::record;
use crate::engine::store;
use crate::engine::table::{Member, MemberStatus};
use bytes::Bytes;
use std::cell::OnceCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// How often seeds are dialled until the node is a member.
const SEED_PERIOD: Duration = Duration::from_millis(500);
/// How often a member looks whether it has lost sight of everybody, to dial the seeds again.
const LONELY_PERIOD: Duration = Duration::from_secs(5);
/// The first of the seeds forms the cluster if it finds none of the others for so long.
const SEED_PATIENCE: Duration = Duration::from_secs(3);

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("cannot listen on {what} {addr}: {error}")]
    Bind {
        /// Which of them.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The reason.
        error: io::Error,
    },
    /// Keys or certificates.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate or key of the RESP door.
    #[error("TLS of the RESP door: {0}")]
    RespTls(String),
    /// The advertised host has no address.
    #[error("cannot resolve the advertised address {0}")]
    Advertise(String),
    /// The agreed log refused its settings.
    #[error("the agreed log: {0}")]
    Log(String),
}

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Its identity.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Peers and QUIC clients (UDP).
    pub quic: SocketAddr,
    /// Redis clients (TCP).
    pub resp: SocketAddr,
    /// Admin HTTP (TCP).
    pub admin: SocketAddr,
}

/// A node that runs on this thread's `LocalRuntime`.
pub struct RunningNode {
    core: NodeCore,
    mesh: Mesh,
    log: AgreedLog,
    addresses: Addresses,
    drain_timeout: Duration,
    tasks: Vec<JoinHandle<()>>,
}

/// Binds everything and starts all tasks. Must be called inside a `LocalRuntime`: a current_thread
/// runtime.
///
/// # Errors
/// See [`StartError`]; nothing is left running then.
pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
    let clock = Clock::new();
    let me = NodeId(rand::random::<u64>() | 1);
    let (rpc, requests) = raft::channel();
    let log = AgreedLog::start(me, LogConfig::default(), rpc)
        .await
        .map_err(|error| StartError::Log(error.to_string()))?;

    let resp_listener = bind("RESP", config.resp).await?;
    let admin_listener = bind("admin", config.admin).await?;
    let advertised = advertised_host(&config).await?;

    let late = Rc::new(LateLinks::default());
    let mut mesh_config =
        MeshConfig::new(config.quic, config.credentials.trust(Role::Node)?, me, clock.clone());
    mesh_config.advertise = advertised;
    mesh_config.clients_max = config.limits.clients_max as usize;
    mesh_config.name = config.name.clone().unwrap_or_default();
    let mesh = Mesh::bind(mesh_config, late.clone()).map_err(|error| StartError::Bind {
        what: "QUIC",
        addr: config.quic,
        error,
    })?;

    let local = |listener: &TcpListener, what, addr| {
        listener.local_addr().map_err(|error| StartError::Bind { what, addr, error })
    };
    let mut resp = local(&resp_listener, "RESP", config.resp)?;
    let mut admin = local(&admin_listener, "admin", config.admin)?;
    let quic = mesh.advertised_addr();
    for listening in [&mut resp, &mut admin] {
        if listening.ip().is_unspecified() {
            listening.set_ip(quic.ip());
        }
    }
    let name = config.name_for(quic);
    let addresses = Addresses { node: me, name: name.clone(), quic, resp, admin };
    let member = Member {
        node: me,
        name,
        quic,
        resp,
        admin,
        zone: config.zone.clone(),
        weight: config.weight,
        status: MemberStatus::Up,
    };

    let engine = Engine::new(member, engine_config(&config), MembershipConfig::default(), rand::random());
    let (core, orders) = NodeCore::new(engine, clock);
    core.set_mesh(mesh.clone());
    let (clients, client_connections) = mpsc::unbounded_channel();
    late.set(NodeLinks::new(core.clone(), log.clone(), clients));

    let mut tasks = vec![
        tokio::task::spawn_local(core.clone().run_flusher()),
        tokio::task::spawn_local(core.clone().run_ticker()),
        tokio::task::spawn_local(agreed::run(core.clone(), log.clone(), orders)),
        tokio::task::spawn_local(agreed::watch(core.clone(), log.clone())),
        tokio::task::spawn_local(agreed::carry(core.clone(), requests)),
    ];
    let front = RespFront::new(core.clone(), config.clone(), resp);
    let resp_tls = resp_acceptor(&config)?;
    tasks.push(tokio::task::spawn_local(front.accept(resp_listener, resp_tls)));
    let (admin_source, admin_requests) = mpsc::channel(64);
    tasks.push(tokio::task::spawn_local(admin::answer(core.clone(), log.clone(), admin_requests)));
    tasks.push(tokio::task::spawn_local(async move {
        if let Err(error) = admin_http::serve(admin_listener, admin_source, std::future::pending()).await {
            tracing::error!(%error, "the admin server ended");
        }
    }));
    let session_limits = SessionLimits {
        frame_bytes_max: (config.limits.value_bytes_max as usize) + (1 << 20),
        ..SessionLimits::default()
    };
    tasks.push(tokio::task::spawn_local(clients::accept(core.clone(), session_limits, client_connections)));
    if config.seeds.is_empty() {
        form(&core, &config);
    } else {
        tasks.push(tokio::task::spawn_local(join(core.clone(), mesh.clone(), config.clone())));
    }
    Ok(RunningNode { core, mesh, log, addresses, drain_timeout: config.drain_timeout, tasks })
}

async fn bind(what: &'static str, addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).await.map_err(|error| StartError::Bind { what, addr, error })
}

/// TLS at the RESP door: the server proves itself, clients by password if at all.
fn resp_acceptor(config: &NodeConfig) -> Result<Option<TlsAcceptor>, StartError> {
    let refused = |error: String| StartError::RespTls(error);
    let server = match &config.resp_tls {
        RespTls::Off => return Ok(None),
        RespTls::NodeCertificate => {
            let trust = config.credentials.trust(Role::Node)?;
            trust.public_server_config().map_err(|error| refused(error.to_string()))?
        }
        RespTls::Files { cert, key } => {
            pki::public_server_config(cert, key).map_err(|error| refused(error.to_string()))?
        }
    };
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

async fn advertised_host(config: &NodeConfig) -> Result<Option<SocketAddr>, StartError> {
    let Some(host) = &config.advertise else { return Ok(None) };
    let unknown = || StartError::Advertise(host.to_string());
    let mut found = tokio::net::lookup_host(host.to_string()).await.map_err(|_| unknown())?;
    found.next().map(Some).ok_or_else(unknown)
}

fn engine_config(config: &NodeConfig) -> EngineConfig {
    EngineConfig {
        peers: config.unbatched_replication.map_or(PeerConfig::default(), PeerConfig::unbatched),
        limits: record::Limits {
            key_bytes_max: config.limits.key_bytes_max,
            value_bytes_max: config.limits.value_bytes_max,
        },
        bytes_max: config.memory_bytes_max,
        eviction: match config.eviction {
            crate::config::Eviction::NoEviction => store::Eviction::NoEviction,
            crate::config::Eviction::AllKeysLru => store::Eviction::AllKeysLru,
            crate::config::Eviction::VolatileTtl => store::Eviction::VolatileTtl,
        },
        snapshot_bytes_per_s: config.copy_bytes_per_s,
        patience_us: u64::from(config.limits.op_timeout_ms) * 1_000,
        ..EngineConfig::default()
    }
}

fn form(core: &NodeCore, config: &NodeConfig) {
    let settings = config.cluster;
    core.clock().lead();
    core.with(|engine, now| engine.form(now, Incarnation::first(rand::random()), settings));
}

/// Dials the seeds until this node is in a cluster's table, and again whenever it is linked with nobody:
/// all that it knew may be gone for good, and replaced by others while it was cut off.
async fn join(core: NodeCore, mesh: Mesh, config: NodeConfig) {
    let started = Instant::now();
    let mut reported = started;
    let mut joined = false;
    loop {
        let busy = core.look(|engine, _| {
            engine.is_leaving() || joined && engine.peers().iter().any(|(_, peer)| peer.linked)
        });
        if busy {
            tokio::time::sleep(LONELY_PERIOD).await;
            continue;
        }
        let mut first_is_me = false;
        let mut last_error = None;
        for (index, seed) in config.seeds.iter().enumerate() {
            let addrs = match tokio::net::lookup_host(seed.to_string()).await {
                Ok(addrs) => addrs,
                Err(error) => {
                    last_error = Some(format!("{seed}: {error}"));
                    continue;
                }
            };
            for addr in addrs {
                match mesh.dial(addr).await {
                    Ok(_) => {}
                    Err(DialError::Itself) => first_is_me |= index == 0,
                    Err(error) => last_error = Some(format!("{seed}: {error}")),
                }
            }
        }
        let (formed, listed, others) = core.look(|engine, _| {
            let table = engine.table();
            let listed = table.members.contains_key(&engine.me());
            (table.incarnation.0 != 0, listed, engine.peers().iter().any(|(_, peer)| peer.linked))
        });
        if joined || listed {
            if !joined {
                tracing::info!("joined the cluster");
            }
            joined = true;
            tokio::time::sleep(LONELY_PERIOD).await;
            continue;
        }
        if !formed && !others && first_is_me && started.elapsed() > SEED_PATIENCE {
            tracing::info!("no other seed answers; forming the cluster as the first of the seeds");
            form(&core, &config);
            joined = true;
            continue;
        }
        if reported.elapsed() > Duration::from_secs(5) {
            reported = Instant::now();
            match last_error {
                Some(error) => tracing::warn!(%error, "no seed could be joined yet; still trying"),
                None => tracing::info!("waiting to be taken into the table"),
            }
        }
        tokio::time::sleep(SEED_PERIOD).await;
    }
}

impl RunningNode {
    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What its tasks share.
    pub fn core(&self) -> &NodeCore {
        &self.core
    }

    /// Its seat in the agreed log.
    pub fn log(&self) -> &AgreedLog {
        &self.log
    }

    /// Hands everything over and leaves the cluster; `progress` is told how many partitions still
    /// name this node. Returns whether all was handed over in time.
    pub async fn drain(&self, mut progress: impl FnMut(usize)) -> bool {
        let mut left = self.core.left();
        let deadline = Instant::now() + self.drain_timeout;
        self.core.with(|engine, now| engine.leave(now));
        loop {
            if *left.borrow_and_update() {
                break;
            }
            progress(self.core.look(|engine, _| engine.held()));
            if Instant::now() >= deadline {
                let only = self.core.look(|engine, _| engine.only_here());
                if only.keys > 0 {
                    let OnlyHere { partitions, keys } = only;
                    tracing::error!(partitions, keys, "leaving with the only copies: what they hold is lost");
                }
                return false;
            }
            let _ = tokio::time::timeout(Duration::from_millis(500), left.changed()).await;
        }
        true
    }

    /// Stops at once: what only this node holds is lost.
    pub async fn stop(self) {
        self.mesh.close("node stopped").await;
        self.log.shutdown().await;
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Links whose node is built after the mesh is bound. Nothing happens on the thread in between.
#[derive(Default)]
struct LateLinks(OnceCell<NodeLinks>);

impl LateLinks {
    fn set(&self, links: NodeLinks) {
        let _already_set = self.0.set(links);
    }
}

impl Links for LateLinks {
    fn link_up(&self, peer: NodeId, hello: &Hello, addr: SocketAddr) {
        if let Some(links) = self.0.get() {
            links.link_up(peer, hello, addr);
        }
    }
    fn link_down(&self, peer: NodeId, reason: DownReason) {
        if let Some(links) = self.0.get() {
            links.link_down(peer, reason);
        }
    }
    fn frames(&self, peer: NodeId, class: Class, frames: &mut Vec<Bytes>) {
        if let Some(links) = self.0.get() {
            links.frames(peer, class, frames);
        }
    }
    fn datagram(&self, peer: NodeId, bytes: Bytes) {
        if let Some(links) = self.0.get() {
            links.datagram(peer, bytes);
        }
    }
    fn request(&self, peer: NodeId, body: Bytes) -> LocalFuture<Result<Bytes, Refusal>> {
        match self.0.get() {
            Some(links) => links.request(peer, body),
            None => Box::pin(async { Err(Refusal("starting".to_owned())) }),
        }
    }
    fn client(&self, connection: ClientConnection) {
        if let Some(links) = self.0.get() {
            links.client(connection);
        }
    }
    fn accepts(&self, hello: &Hello) -> Result<(), Refusal> {
        match self.0.get() {
            Some(links) => links.accepts(hello),
            None => Err(Refusal("starting".to_owned())),
        }
    }
}
