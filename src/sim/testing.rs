//! What tests that drive a [`Cluster`] themselves have in common.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use crate::engine::command;
use crate::engine::config::EngineConfig;
use crate::engine::ids::{MapId, NodeId, Slot};
use crate::engine::op::{Op, Submitted, Ticket};
use crate::engine::resp::Proto;
use crate::engine::table::ClusterSettings;

/// One second of virtual time.
pub const SECOND_US: u64 = 1_000_000;

/// A cluster of so many nodes, formed and whole.
///
/// # Panics
/// If it isn't within 30 s.
pub fn formed(seed: u64, settings: ClusterSettings, nodes: usize) -> (Cluster, Vec<NodeId>) {
    formed_with(seed, EngineConfig::default(), settings, nodes)
}

/// As [`formed`], of engines of this configuration.
pub fn formed_with(
    seed: u64,
    config: EngineConfig,
    settings: ClusterSettings,
    nodes: usize,
) -> (Cluster, Vec<NodeId>) {
    let mut cluster = Cluster::new(seed, NetworkConfig::default(), config, settings);
    let nodes = (0..nodes).map(|_| cluster.start()).collect();
    assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", cluster.agreed());
    (cluster, nodes)
}

/// Whether everything is served with all its copies, and nothing else is kept.
pub fn whole(cluster: &Cluster) -> bool {
    super::checks::unsettled(cluster, &[]).is_none()
}

/// Gives a node a command under a number; the reply, if it came at once.
pub fn submit(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let submitted = cluster.input(node, |engine, now| {
        let spec = command::resolve(args).expect("a command");
        let partition = engine.table().partition_of(Slot::of(args[1]));
        let (map, proto) = (MapId(0), Proto::Resp2);
        let op = Op {
            spec,
            partition,
            map,
            proto,
            exactly_once: None,
            key_hash: None,
            args,
            long: Default::default(),
        };
        Some(engine.submit(now, Ticket { door: 1, number }, &op, &mut out))
    });
    (submitted == Some(Submitted::Done)).then_some(out)
}

/// Takes the reply to a number, if it has come.
pub fn reply(cluster: &mut Cluster, number: u64) -> Option<Vec<u8>> {
    let index = cluster.replies.iter().position(|(_, ticket, _)| ticket.number == number)?;
    Some(cluster.replies.remove(index).2.to_vec())
}

/// Gives a node a command and waits for the reply.
///
/// # Panics
/// If none comes within 15 s.
pub fn call(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Vec<u8> {
    if let Some(out) = submit(cluster, node, number, args) {
        return out;
    }
    let arrived = cluster.run_until(15 * SECOND_US, |cluster| {
        cluster.replies.iter().any(|(_, ticket, _)| ticket.number == number)
    });
    assert!(arrived, "no answer to {args:?}");
    reply(cluster, number).expect("it arrived")
}
