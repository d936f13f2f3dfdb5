//! What the two sides of a split answer, and how soon.

use super::cluster::Cluster;
use super::testing::{SECOND_US, call, formed, reply, submit, whole};
use crate::engine::controller::Order;
use crate::engine::ids::{NodeId, PartitionId, Slot};
use crate::engine::message::{self, Message};
use crate::engine::table::{ClusterSettings, MemberStatus, Survival};

/// Longer than a lost link takes to be noticed, a failover with it, and the patience of a minority.
const SOON_US: u64 = 8 * SECOND_US;

fn cluster(seed: u64) -> (Cluster, Vec<NodeId>) {
    let settings = ClusterSettings { partitions: 32, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(seed, settings, 5);
    // Nothing is on its way to another node any more.
    cluster.run(5 * SECOND_US);
    assert!(whole(&cluster), "{:?}", cluster.agreed());
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

/// Partitions with all their copies on the smaller side went on being served there.
#[test]
fn a_minority_serves_nothing_even_where_it_holds_all_copies() {
    let (mut cluster, nodes) = cluster(9);
    let (few, many) = nodes.split_at(2);
    let (key, _) = key(&cluster, few[0], |backup| few.contains(&backup)).expect("such a partition");
    assert_eq!(call(&mut cluster, few[0], 1, &[b"SET", key.as_bytes(), b"before"]), b"+OK\r\n");
    cut(&mut cluster, few, many);
    cluster.run(2 * SECOND_US);
    for (number, args) in [
        (2, &[&b"SET"[..], key.as_bytes(), b"late"][..]),
        (3, &[b"GET", key.as_bytes()]),
        (4, &[b"RD.GETFENCED", key.as_bytes()]),
    ] {
        assert_eq!(submit(&mut cluster, few[0], number, args), None, "answered in a minority");
    }
    // Those behind one that waits begin to wait after it.
    cluster.run(2 * SECOND_US);
    for number in 2..5 {
        let refused = reply(&mut cluster, number).expect("an answer");
        assert!(refused.starts_with(b"-CLUSTERDOWN"), "{}", refused.escape_ascii());
    }
    cluster.network.heal();
    assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", cluster.agreed());
    assert_eq!(call(&mut cluster, few[0], 5, &[b"GET", key.as_bytes()]), b"$6\r\nbefore\r\n");
}

/// A primary that had the only copy read fenced for ever: there was nobody to confirm its epoch.
#[test]
fn a_minority_reads_nothing_fenced_even_where_it_holds_the_only_copy() {
    let settings = ClusterSettings { partitions: 32, replicas: 1, min_copies: 1, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(12, settings, 5);
    cluster.run(5 * SECOND_US);
    let (few, many) = nodes.split_at(2);
    let table = cluster.agreed().expect("a table").clone();
    let mut keys = (0..).map(|number| format!("key:{number}"));
    let primary = |key: &str| table.partitions[table.partition_of(Slot::of(key.as_bytes())).index()].primary;
    let key = keys.find(|key| primary(key) == few[0]).expect("such a key");
    assert_eq!(call(&mut cluster, few[0], 1, &[b"SET", key.as_bytes(), b"before"]), b"+OK\r\n");
    let fenced = [&b"RD.GETFENCED"[..], key.as_bytes()];
    assert_eq!(submit(&mut cluster, few[0], 2, &fenced).as_deref(), Some(&b"$6\r\nbefore\r\n"[..]));
    cut(&mut cluster, few, many);
    cluster.run(2 * SECOND_US);
    assert_eq!(submit(&mut cluster, few[0], 3, &fenced), None, "answered in a minority");
    cluster.run(2 * SECOND_US);
    let refused = reply(&mut cluster, 3).expect("an answer");
    assert!(refused.starts_with(b"-CLUSTERDOWN"), "{}", refused.escape_ascii());
}

/// A write that its primary refused at the end of its patience was in doubt to the client: the node
/// that had forwarded it gave it up a moment before.
#[test]
fn a_forwarded_write_that_is_refused_at_last_is_not_in_doubt() {
    let (mut cluster, nodes) = cluster(10);
    let table = cluster.agreed().expect("a table").clone();
    let log = cluster.latest_log().expect("a log");
    let (term, leader) = (log.term, log.leader.expect("a leader"));
    let mut partitions = table.partition_ids().zip(&table.partitions);
    let (partition, assignment) =
        partitions.find(|(_, it)| it.primary != leader).expect("another's partition");
    let (primary, epoch) = (assignment.primary, assignment.epoch);
    let to = assignment.isr.iter().copied().find(|&node| node != primary).expect("a backup");
    let origin = nodes.iter().copied().find(|node| !assignment.isr.contains(node)).expect("five nodes");
    let (key, _) = key(&cluster, primary, |_| true).expect("such a key");
    assert_eq!(table.partition_of(Slot::of(key.as_bytes())), partition);
    // Drained for a handover that nobody can agree on, nor on its withdrawal.
    let until_us = cluster.now().mono_us + 30 * SECOND_US;
    cluster.log_config.unavailable_until_us = until_us;
    let mut frame = Vec::new();
    message::begin(table.incarnation, &mut frame);
    message::append(&Message::Order { term, order: Order::Handover { partition, epoch, to } }, &mut frame);
    let frame = frame.into();
    cluster.input(primary, |engine, now| engine.frame(now, leader, &frame));
    assert_eq!(submit(&mut cluster, origin, 1, &[b"SET", key.as_bytes(), b"v"]), None);
    cluster.run(12 * SECOND_US);
    let refused = reply(&mut cluster, 1).expect("an answer");
    assert!(refused.starts_with(b"-TRYAGAIN"), "{}", refused.escape_ascii());
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

/// Primaries that reached the leader only by way of another never told it that they missed a backup.
#[test]
fn a_primary_that_the_leader_cannot_see_gets_another_backup_over_a_bridge() {
    for seed in 11..17 {
        let (mut cluster, mut nodes) = cluster(seed);
        let leader = cluster.latest_log().and_then(|log| log.leader).expect("a leader");
        nodes.retain(|&node| node != leader);
        let &[beside, bridge, far, farther] = &nodes[..] else { panic!("five nodes") };
        let near = [leader, beside];
        let (key, _) = key(&cluster, far, |backup| near.contains(&backup)).expect("such a partition");
        cut(&mut cluster, &near, &[far, farther]);
        assert_eq!(submit(&mut cluster, far, 1, &[b"SET", key.as_bytes(), b"v"]), None);
        cluster.run(SOON_US);
        assert_eq!(reply(&mut cluster, 1).as_deref(), Some(&b"+OK\r\n"[..]), "seed {seed}");
        assert_eq!(call(&mut cluster, bridge, 2, &[b"GET", key.as_bytes()]), b"$1\r\nv\r\n");
        let table = cluster.agreed().expect("a table");
        let up = table.members.values().all(|member| member.status == MemberStatus::Up);
        assert!(up, "seed {seed}: {:?}", table.members);
    }
}
