//! Leaving, where there may be nobody to leave to.

use super::cluster::Cluster;
use super::testing::{SECOND_US, call, formed};
use crate::engine::ids::NodeId;
use crate::engine::table::{ClusterSettings, Survival};

const KEYS: u64 = 40;

/// Some nodes and some keys.
fn cluster(seed: u64, count: usize) -> (Cluster, Vec<NodeId>) {
    let settings = ClusterSettings { partitions: 8, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(seed, settings, count);
    for i in 0..KEYS {
        let key = format!("k{i}");
        assert_eq!(call(&mut cluster, nodes[0], i, &[b"SET", key.as_bytes(), b"v"]), b"+OK\r\n");
    }
    (cluster, nodes)
}

/// The survivor of two left at once when it was told to, with the only copies there were.
#[test]
fn a_survivor_that_leaves_waits_for_somebody_to_take_its_copies() {
    for dies in [0, 1] {
        let (mut cluster, nodes) = cluster(31 + dies as u64, 2);
        let stays = nodes[1 - dies];
        cluster.crash(nodes[dies]);
        cluster.run(10 * SECOND_US);
        cluster.leave(stays);
        cluster.run(20 * SECOND_US);
        assert!(!cluster.nodes[&stays].left, "it left with the only copies");
        assert_eq!(cluster.engine(stays).only_here().keys, KEYS);
        let heir = cluster.start();
        assert!(cluster.run_until(20 * SECOND_US, |cluster| cluster.nodes[&stays].left), "never left");
        for i in 0..KEYS {
            let key = format!("k{i}");
            assert_eq!(call(&mut cluster, heir, 1_000 + i, &[b"GET", key.as_bytes()]), b"$1\r\nv\r\n");
        }
    }
}

#[test]
fn the_last_of_those_that_leave_waits_for_nobody() {
    let (mut cluster, nodes) = cluster(41, 2);
    nodes.iter().for_each(|&node| cluster.leave(node));
    assert!(cluster.run_until(20 * SECOND_US, |cluster| cluster.live().is_empty()), "somebody stayed");
    let (mut cluster, nodes) = self::cluster(42, 1);
    cluster.leave(nodes[0]);
    assert!(cluster.run_until(SECOND_US, |cluster| cluster.live().is_empty()), "it stayed");
}
