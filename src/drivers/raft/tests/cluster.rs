//! The in-process network and what the tests say about it.

use super::super::*;
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::table::{
    ClusterSettings, MapDefaults, MapDefinition, Member, MemberStatus, Survival, Table, TableChange,
    TableEntry,
};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// Far beyond what anything takes, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What all links share.
#[derive(Default)]
struct Links {
    logs: Mutex<BTreeMap<NodeId, AgreedLog>>,
    cut: Mutex<BTreeSet<NodeId>>,
    /// Requests sent, by sender and by receiver, and how many were refused.
    traffic: watch::Sender<Traffic>,
}

#[derive(Clone, Default)]
struct Traffic {
    from: BTreeMap<NodeId, usize>,
    to: BTreeMap<NodeId, usize>,
    refusals: usize,
}

/// One node's end of the links.
struct Link {
    me: NodeId,
    links: Arc<Links>,
}

impl RpcSender for Link {
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcFailure>> {
        let (links, from) = (self.links.clone(), self.me);
        let exchange = async move {
            links.traffic.send_modify(|traffic| {
                *traffic.from.entry(from).or_default() += 1;
                *traffic.to.entry(to).or_default() += 1;
            });
            links.pass(from, to).await;
            let log = links.logs.lock().unwrap().get(&to).cloned().ok_or(RpcFailure::Unreachable)?;
            let response = log.handle(from, body).await;
            links.pass(to, from).await;
            response.map_err(|_| {
                links.traffic.send_modify(|traffic| traffic.refusals += 1);
                RpcFailure::Refused
            })
        };
        async move { tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(RpcFailure::Timeout)) }
            .boxed()
    }
}

impl Links {
    /// A cut link swallows what is sent: the sender learns nothing.
    async fn pass(&self, from: NodeId, to: NodeId) {
        let is_cut = {
            let cut = self.cut.lock().unwrap();
            cut.contains(&from) || cut.contains(&to)
        };
        if is_cut {
            std::future::pending::<()>().await;
        }
    }
}

/// Nodes 1 to n, none of them in a group yet.
pub struct Cluster {
    links: Arc<Links>,
    config: LogConfig,
}

impl Cluster {
    pub async fn new(count: u64) -> Cluster {
        let config = LogConfig {
            heartbeat_ms: 50,
            election_ms_min: 150,
            election_ms_max: 300,
            rpc_ms: 1_500,
            propose_ms: 2_000,
            snapshot_entries: 40,
            kept_entries: 5,
            ..LogConfig::default()
        };
        let cluster = Cluster { links: Arc::default(), config };
        for node in 1..=count {
            let link = Arc::new(Link { me: NodeId(node), links: cluster.links.clone() });
            let log = AgreedLog::start(NodeId(node), cluster.config.clone(), link).await.unwrap();
            cluster.links.logs.lock().unwrap().insert(NodeId(node), log);
        }
        cluster
    }

    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    pub fn log(&self, node: u64) -> AgreedLog {
        self.links.logs.lock().unwrap()[&NodeId(node)].clone()
    }

    /// Forms incarnation 1 at `node`, with the node as its first member.
    pub async fn form(&self, node: u64) -> Proposed {
        let first = vec![TableChange::PutMember(member(node))];
        self.log(node).form(first, table(Incarnation(1))).await.unwrap()
    }

    /// Has the leader set the voters, and waits until it is so.
    pub async fn grow(&self, leader: u64, voters: &[u64]) {
        self.log(leader).set_voters(self.addresses(voters)).unwrap();
        self.wait_for_voters(leader, voters).await;
    }

    pub fn addresses(&self, nodes: &[u64]) -> BTreeMap<NodeId, SocketAddr> {
        nodes.iter().map(|&node| (NodeId(node), member(node).quic)).collect()
    }

    /// Cuts all links of `node`.
    pub fn isolate(&self, node: u64) {
        self.links.cut.lock().unwrap().insert(NodeId(node));
    }

    /// Mends all links.
    pub fn heal(&self) {
        self.links.cut.lock().unwrap().clear();
    }

    pub fn refusals(&self) -> usize {
        self.links.traffic.borrow().refusals
    }

    pub fn table_of(&self, node: u64) -> Arc<Table> {
        self.log(node).tables().borrow().clone().expect("a table")
    }

    /// Waits until `node` has sent `count` more requests.
    pub async fn wait_for_attempts(&self, node: u64, count: usize) {
        self.wait_for_traffic(count, |traffic| traffic.from.get(&NodeId(node)).copied().unwrap_or(0)).await;
    }

    /// Waits until `count` more requests have been sent to `node`.
    pub async fn wait_for_attempts_to(&self, node: u64, count: usize) {
        self.wait_for_traffic(count, |traffic| traffic.to.get(&NodeId(node)).copied().unwrap_or(0)).await;
    }

    async fn wait_for_traffic(&self, count: usize, seen: impl Fn(&Traffic) -> usize) {
        let mut traffic = self.links.traffic.subscribe();
        let goal = seen(&traffic.borrow()) + count;
        patiently("traffic", traffic.wait_for(|traffic| seen(traffic) >= goal)).await.unwrap();
    }

    pub async fn wait_for_map(&self, node: u64, name: &str) {
        let mut tables = self.log(node).tables();
        let has_map =
            |table: &Option<Arc<Table>>| table.as_ref().is_some_and(|table| table.map_id(name).is_some());
        patiently(name, tables.wait_for(has_map)).await.unwrap();
    }

    pub async fn wait_until(&self, node: u64, is_so: impl Fn(&Leadership) -> bool) {
        let mut leadership = self.log(node).leadership();
        patiently("leadership", leadership.wait_for(|leadership| is_so(leadership))).await.unwrap();
    }

    /// Waits until exactly these nodes vote and nothing of the change is left to do.
    pub async fn wait_for_voters(&self, node: u64, voters: &[u64]) {
        let expected: Vec<NodeId> = voters.iter().map(|&node| NodeId(node)).collect();
        patiently("voters", self.log(node).voters_settled(&expected)).await;
    }

    /// Waits until one of the nodes leads, and says which.
    pub async fn wait_for_leader(&self, nodes: &[u64]) -> u64 {
        let waits = nodes.iter().map(|&node| {
            async move {
                self.wait_until(node, |leadership| leadership.is_me).await;
                node
            }
            .boxed()
        });
        futures_util::future::select_all(waits).await.0
    }
}

async fn patiently<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

pub fn table(incarnation: Incarnation) -> Table {
    let settings = ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival: Survival::Auto };
    Table::new(incarnation, settings)
}

pub fn member(node: u64) -> Member {
    let port = |base: u64| SocketAddr::from(([127, 0, 0, 1], (base + node) as u16));
    Member {
        node: NodeId(node),
        name: format!("node {node}"),
        quic: port(10_000),
        resp: port(20_000),
        admin: port(30_000),
        zone: None,
        weight: 100,
        status: MemberStatus::Up,
    }
}

/// An entry that leaves a trace: it defines the map `name`.
pub fn entry(name: &str) -> TableEntry {
    let definition = MapDefinition { name: name.to_owned(), defaults: MapDefaults::default() };
    vec![TableChange::DefineMap(definition)]
}
