//! What tests that drive a [`Cluster`] themselves have in common.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use crate::engine::command;
use crate::engine::config::EngineConfig;
use crate::engine::ids::{MapId, NodeId, Slot};
use crate::engine::node::Engine;
use crate::engine::op::{Long, Op, Submitted, Ticket};
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

/// A command as an operation on its first key; `long` has what need not be copied of it and its reply.
pub fn op_of<'a>(engine: &Engine, args: &'a [&'a [u8]], long: Option<&'a Long>) -> Op<'a> {
    let spec = command::resolve(args).expect("a command");
    let partition = engine.table().partition_of(Slot::of(args[1]));
    Op { long, ..Op::new(spec, partition, MapId(0), Proto::Resp2, args) }
}

/// Gives a node a command under a number; the reply, if it came at once.
pub fn submit(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Option<Vec<u8>> {
    submit_long(cluster, node, number, args, None)
}

/// As [`submit`], of a command with long values.
pub fn submit_long(
    cluster: &mut Cluster,
    node: NodeId,
    number: u64,
    args: &[&[u8]],
    long: Option<&Long>,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let submitted = cluster.input(node, |engine, now| {
        let op = op_of(engine, args, long);
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
    match submit(cluster, node, number, args) {
        Some(out) => out,
        None => arrived(cluster, number).unwrap_or_else(|| panic!("no answer to {args:?}")),
    }
}

/// Waits up to 15 s for the reply to a number, and takes it.
pub fn arrived(cluster: &mut Cluster, number: u64) -> Option<Vec<u8>> {
    cluster.run_until(15 * SECOND_US, |cluster| {
        cluster.replies.iter().any(|(_, ticket, _)| ticket.number == number)
    });
    reply(cluster, number)
}
