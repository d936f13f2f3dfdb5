//! How long operations wait while primaries change hands in good order.

use super::cluster::Cluster;
use super::testing::{SECOND_US, formed, submit, whole};
use crate::engine::ids::NodeId;
use crate::engine::table::{ClusterSettings, Survival};
use std::collections::BTreeMap;

/// Writers at all nodes, one write a millisecond, and how long each took.
struct Load {
    number: u64,
    open_us: BTreeMap<u64, u64>,
    taken_us: Vec<u64>,
}

impl Load {
    fn run(&mut self, cluster: &mut Cluster, at: &[NodeId], mut done: impl FnMut(&Cluster) -> bool) -> bool {
        for _ in 0..60_000 {
            self.number += 1;
            let node = at[self.number as usize % at.len()];
            let key = format!("k{}", cluster.random.below(5_000));
            match submit(cluster, node, self.number, &[b"SET", key.as_bytes(), b"v"]) {
                Some(reply) => assert_eq!(reply, b"+OK\r\n"),
                None => drop(self.open_us.insert(self.number, cluster.now().mono_us)),
            }
            cluster.run(1_000);
            for (_, ticket, reply) in std::mem::take(&mut cluster.replies) {
                assert_eq!(&reply[..], b"+OK\r\n", "a clean move is no error");
                let since_us = self.open_us.remove(&ticket.number).expect("asked once");
                self.taken_us.push(cluster.now().mono_us - since_us);
            }
            if self.number.is_multiple_of(500) && done(cluster) {
                return true;
            }
        }
        false
    }
}

#[test]
fn joins_and_leaves_pause_no_write_for_long() {
    let settings = ClusterSettings { partitions: 256, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, mut nodes) = formed(21, settings, 3);
    let mut load = Load { number: 0, open_us: BTreeMap::new(), taken_us: Vec::new() };
    let clients = nodes.clone();
    nodes.push(cluster.start());
    nodes.push(cluster.start());
    let balanced = |cluster: &Cluster| {
        whole(cluster)
            && cluster.engine(nodes[4]).table().partitions.iter().filter(|it| it.primary == nodes[4]).count()
                > 40
    };
    assert!(load.run(&mut cluster, &clients, balanced), "never balanced");
    cluster.leave(nodes[4]);
    let gone = |cluster: &Cluster| whole(cluster) && cluster.agreed().is_some_and(|it| it.members.len() == 4);
    assert!(load.run(&mut cluster, &clients, gone), "never left");
    load.taken_us.sort_unstable();
    let (count, longest) = (load.taken_us.len(), load.taken_us.last().copied().unwrap_or_default());
    let p99 = load.taken_us[count * 99 / 100];
    println!("{count} writes: p99 {p99} µs, longest {longest} µs");
    assert!(longest <= 200_000 && p99 <= 50_000, "p99 {p99} µs, longest {longest} µs");
}

/// A partition that is written to all the time moves all the same: a learner attaches while writes are
/// under way.
#[test]
fn a_partition_under_constant_writes_moves() {
    let settings = ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(23, settings, 3);
    let at = nodes[0];
    let newcomer = cluster.start();
    // Several writes a round trip, to each partition.
    for number in 0..200_000u64 {
        let key = format!("k{}", cluster.random.below(200));
        submit(&mut cluster, at, number, &[b"SET", key.as_bytes(), b"v"]);
        cluster.run(20);
        cluster.replies.clear();
        let table = cluster.engine(at).table();
        let holds = table.partitions.iter().filter(|it| it.isr.contains(&newcomer)).count();
        if number.is_multiple_of(100) && holds >= 7 {
            println!("{number} writes");
            return;
        }
    }
    panic!("{:?}", super::checks::unsettled(&cluster, &[]));
}

/// After a handover the first write waited 400 ms for a backup that had not heard of the reign yet: it refuses
/// the record, and the resend timer had to run out.
#[test]
fn a_backup_that_hears_late_of_a_reign_delays_no_write_for_long() {
    let settings = ClusterSettings { partitions: 64, replicas: 3, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(22, settings, 4);
    let settled =
        |cluster: &Cluster| whole(cluster) && cluster.latest_log().is_some_and(|it| it.voters.len() >= 3);
    assert!(cluster.run_until(30 * SECOND_US, settled));
    // The voters learn of what is agreed on from the log; the fourth only when the leader gets to it.
    let log = cluster.latest_log().expect("a log");
    let (leader, voters) = (log.leader.expect("a leader"), log.voters.clone());
    let leaver = voters.iter().copied().find(|&node| node != leader).expect("another voter");
    cluster.network.slow_down(leader, 20_000);
    let mut load = Load { number: 0, open_us: BTreeMap::new(), taken_us: Vec::new() };
    let clients: Vec<NodeId> = nodes.into_iter().filter(|&node| node != leader && node != leaver).collect();
    cluster.leave(leaver);
    let gone = |cluster: &Cluster| cluster.agreed().is_some_and(|it| it.members.len() == 3);
    assert!(load.run(&mut cluster, &clients, gone), "never left");
    let longest = load.taken_us.iter().copied().max().unwrap_or_default();
    println!("longest {longest} µs");
    assert!(longest < 300_000, "longest {longest} µs");
}
