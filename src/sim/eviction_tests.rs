//! Room for what is written, where something may be evicted for it.

use super::cluster::Cluster;
use super::testing::{call, formed_with};
use crate::engine::config::EngineConfig;
use crate::engine::ids::NodeId;
use crate::engine::store::Eviction;
use crate::engine::table::{ClusterSettings, Survival};

/// A cluster of as many nodes as copies, of 8 MiB each, after so many SETs of 1,000 bytes.
fn filled(seed: u64, copies: u8, keys: u64) -> (Cluster, Vec<NodeId>) {
    let config =
        EngineConfig { bytes_max: 8 << 20, eviction: Eviction::AllKeysLru, ..EngineConfig::default() };
    let settings =
        ClusterSettings { partitions: 16, replicas: copies, min_copies: copies, survival: Survival::Auto };
    let (mut cluster, nodes) = formed_with(seed, config, settings, usize::from(copies));
    let small = vec![b'v'; 1_000];
    for number in 0..keys {
        let key = format!("k{number}");
        assert_eq!(call(&mut cluster, nodes[0], number, &[b"SET", key.as_bytes(), &small]), b"+OK\r\n");
    }
    (cluster, nodes)
}

/// Only so much was evicted as keeps a little room: values larger than that were refused for ever.
#[test]
fn a_large_value_pushes_out_small_ones() {
    let (mut cluster, nodes) = filled(61, 1, 9_000);
    let node = nodes[0];
    assert!(cluster.engine(node).stats().evicted > 0, "it isn't full");
    let large = vec![b'v'; 1 << 20];
    for number in 0..20u64 {
        let key = format!("large{number}");
        let reply = call(&mut cluster, node, 10_000 + number, &[b"SET", key.as_bytes(), &large]);
        assert_eq!(reply, b"+OK\r\n", "{}", reply.escape_ascii());
    }
    assert!(cluster.engine(node).bytes_used() <= 8 << 20);
    // What could never fit pushes nothing out.
    let keys = |cluster: &Cluster| -> usize {
        let copies = cluster.engine(node).partitions().iter().filter_map(|partition| partition.copy.as_ref());
        copies.map(|copy| copy.shard.len()).sum()
    };
    let before = keys(&cluster);
    let huge = vec![b'v'; 9 << 20];
    let reply = call(&mut cluster, node, 20_000, &[b"SET", b"huge", &huge]);
    assert!(reply.starts_with(b"-OOM"), "{}", reply.escape_ascii());
    assert_eq!(keys(&cluster), before);
}

/// Evicting all that there is would not have been enough, and was done all the same.
#[test]
fn what_copies_of_others_leave_no_room_for_evicts_nothing() {
    let (mut cluster, nodes) = filled(62, 2, 6_000);
    let evicted = |cluster: &Cluster| -> Vec<u64> {
        nodes.iter().map(|&node| cluster.engine(node).stats().evicted).collect()
    };
    let before = evicted(&cluster);
    let large = vec![b'v'; 7 << 20];
    let reply = call(&mut cluster, nodes[0], 20_000, &[b"SET", b"large", &large]);
    assert!(reply.starts_with(b"-OOM"), "{}", reply.escape_ascii());
    assert_eq!(evicted(&cluster), before);
}
