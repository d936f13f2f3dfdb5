//! What the two sides of a split answer, and how soon.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use super::testing::{SECOND_US, call, reply, submit, whole};
use crate::engine::config::EngineConfig;
use crate::engine::ids::{NodeId, PartitionId, Slot};
use crate::engine::table::{ClusterSettings, MemberStatus, Survival};

/// Longer than a lost link takes to be noticed, a failover with it, and the patience of a minority.
const SOON_US: u64 = 8 * SECOND_US;

fn cluster(seed: u64) -> (Cluster, Vec<NodeId>) {
    let settings = ClusterSettings { partitions: 32, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let mut cluster = Cluster::new(seed, NetworkConfig::default(), EngineConfig::default(), settings);
    let nodes = (0..5).map(|_| cluster.start()).collect();
    assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", cluster.agreed());
    (cluster, nodes)
}

/// A key of a partition with this primary and, as its backup, one for which `wanted` holds.
fn key(cluster: &Cluster, primary: NodeId, wanted: impl Fn(NodeId) -> bool) -> Option<(String, NodeId)> {
    let table = cluster.agreed()?;
    let ids = table.partition_ids().zip(&table.partitions);
    let found: Vec<(PartitionId, NodeId)> = ids
        .filter(|(_, assignment)| assignment.primary == primary)
        .filter_map(|(id, assignment)| {
            let backup = assignment.isr.iter().copied().find(|&node| node != primary)?;
            wanted(backup).then_some((id, backup))
        })
        .collect();
    let &(partition, backup) = found.first()?;
    let mut keys = (0..).map(|number| format!("key:{number}"));
    let key = keys.find(|key| table.partition_of(Slot::of(key.as_bytes())) == partition)?;
    Some((key, backup))
}

fn cut(cluster: &mut Cluster, here: &[NodeId], there: &[NodeId]) {
    for &a in here {
        for &b in there {
            cluster.network.cut(a, b);
            cluster.network.cut(b, a);
        }
    }
}

/// Clients that reach both sides of a split waited at a deposed primary until the split was over.
#[test]
fn a_minority_answers_soon_and_the_majority_serves() {
    let (mut cluster, nodes) = cluster(7);
    let (few, many) = nodes.split_at(2);
    let (key, _) = key(&cluster, few[0], |backup| many.contains(&backup)).expect("such a partition");
    cut(&mut cluster, few, many);
    // Under way when the split begins: it may have reached the backup.
    assert_eq!(submit(&mut cluster, few[0], 1, &[b"SET", key.as_bytes(), b"early"]), None);
    cluster.run(SOON_US);
    let early = reply(&mut cluster, 1).expect("an answer");
    assert!(early.starts_with(b"-INDOUBT"), "{}", early.escape_ascii());
    // Later ones are not begun.
    assert_eq!(submit(&mut cluster, few[0], 2, &[b"SET", key.as_bytes(), b"late"]), None);
    cluster.run(SECOND_US);
    let late = reply(&mut cluster, 2).expect("an answer");
    assert!(late.starts_with(b"-CLUSTERDOWN"), "{}", late.escape_ascii());
    assert_eq!(call(&mut cluster, many[0], 3, &[b"SET", key.as_bytes(), b"majority"]), b"+OK\r\n");
    cluster.network.heal();
    assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", cluster.agreed());
    assert_eq!(call(&mut cluster, few[0], 4, &[b"GET", key.as_bytes()]), b"$8\r\nmajority\r\n");
}

/// A backup that all but its primary reached held up its partition's writes for as long as that went on.
#[test]
fn a_backup_that_only_its_primary_misses_is_replaced_and_not_buried() {
    let (mut cluster, nodes) = cluster(8);
    let primary = nodes[1];
    let (key, backup) = key(&cluster, primary, |_| true).expect("such a partition");
    cut(&mut cluster, &[primary], &[backup]);
    assert_eq!(submit(&mut cluster, primary, 1, &[b"SET", key.as_bytes(), b"v"]), None);
    cluster.run(SOON_US);
    assert_eq!(reply(&mut cluster, 1).as_deref(), Some(&b"+OK\r\n"[..]));
    let table = cluster.agreed().expect("a table");
    assert!(table.members.values().all(|member| member.status == MemberStatus::Up), "{:?}", table.members);
}
