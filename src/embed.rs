//! A node inside a Rust program.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use ringdove::Node;
//!
//! let node = Node::builder().ephemeral_ports().start().await?;
//! let visits = node.map::<str, u64>("visits").await?;
//! visits.set("home", &1).await?;
//! assert_eq!(visits.get("home").await?, Some(1));
//! node.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! The node runs on a thread of its own; handles may be used from any runtime.

use crate::config::NodeConfig;
use crate::drivers::node::NodeCore;
use crate::drivers::node::calls::{Calls, QueueDoor};
use crate::drivers::node::serve::{self, Addresses, RunningNode, StartError};
use crate::engine::ids::MapId;
use crate::engine::resp::{Reply, ReplyLimits};
use crate::engine::table::{MapDefaults, MapDefinition, MemberStatus};
use crate::error::Error;
use crate::map::{Caller, Key, Map, MapOptions, Raw, Value};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Calls on their way from handles to the node's thread.
const CALLS_MAX: usize = 4_096;
/// How long the definition of a map may take.
const MAP_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a [`Node`]. What isn't set is as for `ringdove node` without flags.
#[derive(Clone, Debug, Default)]
pub struct NodeBuilder {
    config: NodeConfig,
}

impl NodeBuilder {
    /// Starts from a whole configuration.
    pub fn config(mut self, config: NodeConfig) -> NodeBuilder {
        self.config = config;
        self
    }

    /// Listens for everything on free loopback ports.
    pub fn ephemeral_ports(mut self) -> NodeBuilder {
        for addr in [&mut self.config.resp, &mut self.config.quic, &mut self.config.admin] {
            *addr = SocketAddr::from(([127, 0, 0, 1], 0));
        }
        self
    }

    /// Joins the cluster of this member (`host:port` of its QUIC address). May be repeated.
    ///
    /// # Errors
    /// If it isn't of the form `host:port`.
    pub fn seed(mut self, seed: &str) -> Result<NodeBuilder, String> {
        self.config.seeds.push(seed.parse().map_err(|error| format!("{seed}: {error}"))?);
        Ok(self)
    }

    /// The node's name for people.
    pub fn name(mut self, name: impl Into<String>) -> NodeBuilder {
        self.config.name = Some(name.into());
        self
    }

    /// Its failure domain.
    pub fn zone(mut self, zone: impl Into<String>) -> NodeBuilder {
        self.config.zone = Some(zone.into());
        self
    }

    /// The cluster's secret, read from a file.
    ///
    /// # Errors
    /// If the file doesn't hold a secret.
    pub fn secret_file(
        mut self,
        path: impl Into<PathBuf>,
    ) -> Result<NodeBuilder, crate::drivers::pki::SecretError> {
        let secret = crate::drivers::pki::Secret::from_file(&path.into())?;
        self.config.credentials = crate::config::Credentials::Secret(secret);
        Ok(self)
    }

    /// Partitions of a cluster that this node forms.
    pub fn partitions(mut self, partitions: u16) -> NodeBuilder {
        self.config.cluster.partitions = partitions;
        self
    }

    /// Bytes that entries may take; 0 is no bound.
    pub fn max_memory(mut self, bytes: u64) -> NodeBuilder {
        self.config.memory_bytes_max = bytes;
        self
    }

    /// Starts the node on a thread of its own. Returns when it listens; with seeds, joining goes on
    /// in the background, and operations wait for it.
    ///
    /// # Errors
    /// [`NodeError`]; nothing is left running then.
    pub async fn start(self) -> Result<Node, NodeError> {
        self.config.check().map_err(|conflict| NodeError::Config(conflict.to_string()))?;
        let (started, start) = oneshot::channel();
        let (calls, requests) = mpsc::channel(CALLS_MAX);
        let (stop, stopping) = oneshot::channel();
        let config = self.config;
        let thread = std::thread::Builder::new()
            .name("ringdove".to_owned())
            .spawn(move || run(config, started, requests, stopping))
            .map_err(|error| NodeError::Thread(error.to_string()))?;
        let addresses = start.await.map_err(|_| NodeError::Thread("it ended".to_owned()))??;
        Ok(Node { addresses, caller: LocalCaller { calls }, stop, thread })
    }
}

/// Why a node could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node's thread could not run.
    #[error("the node's thread: {0}")]
    Thread(String),
}

/// A running node. Dropping it stops the node at once, as a crash would; [`Node::shutdown`] hands
/// its partitions over first.
#[derive(Debug)]
pub struct Node {
    addresses: Addresses,
    caller: LocalCaller,
    stop: oneshot::Sender<oneshot::Sender<bool>>,
    thread: JoinHandle<()>,
}

impl Node {
    /// Builds a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where QUIC clients and other nodes reach it: a seed for both.
    pub fn client_address(&self) -> SocketAddr {
        self.addresses.quic
    }

    /// A handle to a named map, defined without defaults if it is new.
    ///
    /// # Errors
    /// See [`Node::map_with`].
    pub async fn map<K: Key + ?Sized, V: Value>(&self, name: &str) -> Result<Map<K, V, LocalCaller>, Error> {
        self.map_with(name, MapOptions::default()).await
    }

    /// A handle to a named map; `options` are its defaults if it is new.
    ///
    /// # Errors
    /// [`Error::MapRefused`] for a bad name, [`Error::ClusterDown`] if the cluster can't agree on it.
    pub async fn map_with<K: Key + ?Sized, V: Value>(
        &self,
        name: &str,
        options: MapOptions,
    ) -> Result<Map<K, V, LocalCaller>, Error> {
        let map = self.caller.open_map(name, options.defaults()).await?;
        Ok(Map::new(self.caller.clone(), map))
    }

    /// The unnamed map, which Redis clients see.
    pub fn unnamed<K: Key + ?Sized, V: Value>(&self) -> Map<K, V, LocalCaller> {
        Map::new(self.caller.clone(), MapId(0))
    }

    /// The unnamed map with keys and values as bytes.
    pub fn bytes(&self) -> Map<[u8], Raw, LocalCaller> {
        self.unnamed()
    }

    /// Runs a command on the unnamed map, its name first.
    ///
    /// # Errors
    /// [`Error`] says whether a write was done.
    pub async fn command(&self, args: &[&[u8]]) -> Result<Reply, Error> {
        self.caller.call(MapId(0), args).await
    }

    /// Members of the cluster that are up, this one included; 0 before it is part of one.
    pub async fn members(&self) -> usize {
        let (reply, members) = oneshot::channel();
        match self.caller.calls.send(Call::Members { reply }).await {
            Ok(()) => members.await.unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Hands all partitions over, leaves the cluster and stops. Whether all was handed over in time.
    pub async fn shutdown(self) -> bool {
        let (done, drained) = oneshot::channel();
        if self.stop.send(done).is_err() {
            return false;
        }
        let drained = drained.await.unwrap_or(false);
        let _panicked = tokio::task::spawn_blocking(move || self.thread.join()).await;
        drained
    }
}

/// Calls a node of the same process.
#[derive(Clone, Debug)]
pub struct LocalCaller {
    calls: mpsc::Sender<Call>,
}

#[derive(Debug)]
enum Call {
    Command { map: MapId, args: Vec<Vec<u8>>, reply: oneshot::Sender<Vec<u8>> },
    OpenMap { name: String, defaults: MapDefaults, reply: oneshot::Sender<Result<MapId, Error>> },
    Members { reply: oneshot::Sender<usize> },
}

impl LocalCaller {
    async fn open_map(&self, name: &str, defaults: MapDefaults) -> Result<MapId, Error> {
        if name.is_empty() || name.len() > 255 {
            return Err(Error::MapRefused("a name has 1 to 255 bytes".to_owned()));
        }
        let (reply, opened) = oneshot::channel();
        let call = Call::OpenMap { name: name.to_owned(), defaults, reply };
        self.calls.send(call).await.map_err(|_| Error::ShutDown)?;
        opened.await.map_err(|_| Error::ShutDown)?
    }
}

impl Caller for LocalCaller {
    async fn call(&self, map: MapId, args: &[&[u8]]) -> Result<Reply, Error> {
        let (reply, answer) = oneshot::channel();
        let args = args.iter().map(|arg| arg.to_vec()).collect();
        self.calls.send(Call::Command { map, args, reply }).await.map_err(|_| Error::ShutDown)?;
        let bytes = answer.await.map_err(|_| Error::InDoubt)?;
        match Reply::parse(&bytes, &ReplyLimits::default()) {
            Ok(Some((reply, _))) => match reply.error() {
                Some(text) => Err(Error::of_reply(text)),
                None => Ok(reply),
            },
            _ => Err(Error::UnexpectedReply("not RESP".to_owned())),
        }
    }
}

/// The node's thread.
fn run(
    config: NodeConfig,
    started: oneshot::Sender<Result<Addresses, NodeError>>,
    requests: mpsc::Receiver<Call>,
    stopping: oneshot::Receiver<oneshot::Sender<bool>>,
) {
    let runtime = match crate::drivers::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(NodeError::Thread(error.to_string())));
            return;
        }
    };
    runtime.block_on(async move {
        let node = match serve::start(config).await {
            Ok(node) => node,
            Err(error) => {
                let _ = started.send(Err(NodeError::Start(error)));
                return;
            }
        };
        let _ = started.send(Ok(node.addresses().clone()));
        tokio::task::spawn_local(take_calls(node.core().clone(), requests));
        if let Ok(done) = stopping.await {
            let drained = drain(&node).await;
            node.stop().await;
            let _ = done.send(drained);
        }
    });
}

async fn drain(node: &RunningNode) -> bool {
    node.drain(|held| tracing::info!(held, "handing partitions over")).await
}

/// Runs the handles' calls until all handles are gone.
async fn take_calls(core: NodeCore, mut requests: mpsc::Receiver<Call>) {
    let door = QueueDoor::new();
    let number = core.open_door(|_| door.clone());
    let mut calls = Calls::new(number);
    let mut waiting: HashMap<u64, oneshot::Sender<Vec<u8>>> = HashMap::new();
    let mut next = 0;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            count = requests.recv_many(&mut batch, 256) => if count == 0 { break },
            () = door.wake() => {}
        }
        core.with(|engine, now| {
            for (number, reply) in door.take() {
                if let Some((call, reply)) = calls.reply(engine, now, number, &reply)
                    && let Some(asker) = waiting.remove(&call)
                {
                    let _gave_up = asker.send(reply);
                }
            }
            for call in batch.drain(..) {
                match call {
                    Call::Command { map, args, reply } => {
                        next += 1;
                        let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
                        match calls.submit(engine, now, next, map, None, &args) {
                            Some(bytes) => {
                                let _gave_up = reply.send(bytes);
                            }
                            None => {
                                waiting.insert(next, reply);
                            }
                        }
                    }
                    Call::Members { reply } => {
                        let members = engine.table().members.values();
                        let up = members.filter(|member| member.status == MemberStatus::Up).count();
                        let _gave_up = reply.send(up);
                    }
                    Call::OpenMap { name, defaults, reply } => {
                        tokio::task::spawn_local(open_map(core.clone(), name, defaults, reply));
                    }
                }
            }
        });
    }
    core.close_door(number);
}

async fn open_map(
    core: NodeCore,
    name: String,
    defaults: MapDefaults,
    reply: oneshot::Sender<Result<MapId, Error>>,
) {
    let mut tables = core.tables();
    if core.look(|engine, _| engine.table().map_id(&name).is_none()) {
        let definition = MapDefinition { name: name.clone(), defaults };
        core.with(|engine, now| engine.define_map(now, definition));
    }
    let opened = tables.wait_for(|table| table.map_id(&name).is_some());
    let opened = match tokio::time::timeout(MAP_TIMEOUT, opened).await {
        Ok(Ok(table)) => table.map_id(&name).ok_or(Error::UnknownMap),
        Ok(Err(_)) => Err(Error::ShutDown),
        Err(_) => Err(Error::ClusterDown),
    };
    let _gave_up = reply.send(opened);
}
