//! Who may still read while a partition changes hands more than once.

use super::cluster::Cluster;
use super::testing::{SECOND_US, call, formed, submit};
use crate::engine::controller::Order;
use crate::engine::ids::{NodeId, PartitionId, Slot};
use crate::engine::message::{self, Message};
use crate::engine::table::{Assignment, ClusterSettings, Survival, TableChange};

/// Four nodes and a partition: its primary, who doesn't vote; its backup, who doesn't lead the agreed log; somebody without
/// a copy of it; and the fourth.
struct Cast {
    cluster: Cluster,
    partition: PartitionId,
    key: String,
    primary: NodeId,
    backup: NodeId,
    third: NodeId,
    fourth: NodeId,
}

fn cast(seed: u64) -> Cast {
    let settings = ClusterSettings { partitions: 32, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let (mut cluster, nodes) = formed(seed, settings, 4);
    cluster.run(5 * SECOND_US);
    let log = cluster.latest_log().expect("a log");
    let (leader, voters) = (log.leader.expect("a leader"), log.voters.clone());
    let table = cluster.agreed().expect("a table").clone();
    let ids = table.partition_ids().zip(&table.partitions);
    let (partition, assignment) = ids
        .filter(|(_, it)| it.isr.len() == 2 && it.learners.is_empty())
        .find(|(_, it)| !voters.contains(&it.primary) && !it.isr.contains(&leader))
        .expect("such a partition");
    let primary = assignment.primary;
    let backup = assignment.isr.iter().copied().find(|&node| node != primary).expect("a backup");
    let others: Vec<NodeId> = nodes.iter().copied().filter(|node| !assignment.isr.contains(node)).collect();
    let third = *others.iter().find(|&&node| node != leader).expect("two others");
    let mut keys = (0..).map(|number| format!("key:{number}"));
    let key = keys.find(|key| table.partition_of(Slot::of(key.as_bytes())) == partition).expect("a key");
    Cast { cluster, partition, key, primary, backup, third, fourth: leader }
}

impl Cast {
    fn assignment(&self) -> Assignment {
        let table = self.cluster.agreed().expect("a table");
        table.assignment(self.partition).expect("the partition").clone()
    }

    fn cut(&mut self, a: NodeId, b: NodeId) {
        self.cluster.network.cut(a, b);
        self.cluster.network.cut(b, a);
    }

    /// The leader orders the primary to hand over, as soon as that can be, until it has.
    fn hand_over(&mut self, to: NodeId) {
        let partition = self.partition;
        for _ in 0..20_000 {
            let Assignment { primary, epoch, .. } = self.assignment();
            if primary == to {
                return;
            }
            let (term, incarnation) = {
                let log = self.cluster.latest_log().expect("a log");
                (log.term, log.table.incarnation)
            };
            let mut frame = Vec::new();
            message::begin(incarnation, &mut frame);
            let order = Order::Handover { partition, epoch, to };
            message::append(&Message::Order { term, order }, &mut frame);
            let (leader, frame) = (self.fourth, frame.into());
            self.cluster.input(primary, |engine, now| engine.frame(now, leader, &frame));
            self.cluster.run(100);
        }
        panic!("never handed over: {:?}", self.assignment());
    }

    fn propose(&mut self, entry: Vec<TableChange>) {
        self.cluster.propose(self.fourth, entry);
        let version = self.cluster.agreed().expect("a table").version;
        assert!(self.cluster.run_until(SECOND_US, |cluster| {
            cluster.agreed().is_some_and(|table| table.version > version)
        }));
    }
}

/// The lease of an earlier primary was kept in mind by who had granted it, as long as that one reigned; the
/// next to reign, who had granted none, committed under the old one's eyes.
#[test]
fn an_earlier_primary_reads_no_more_once_a_later_reign_commits() {
    let mut cast = cast(51);
    let Cast { partition, primary, backup, third, fourth, .. } = cast;
    let key = cast.key.clone();
    let key = key.as_bytes();
    assert_eq!(call(&mut cast.cluster, primary, 1, &[b"SET", key, b"old"]), b"+OK\r\n");
    // Nothing that the third node granted to the primary is left.
    cast.cut(third, primary);
    cast.cluster.run(2 * SECOND_US);
    cast.hand_over(backup);
    // Nor does the primary hear of the end of its reign.
    let heard = cast.cluster.engine(primary).table().assignment(partition).expect("it").primary;
    assert_eq!(heard, primary, "too late");
    cast.cut(primary, backup);
    cast.cut(primary, fourth);
    let Assignment { epoch, .. } = cast.assignment();
    cast.propose(vec![
        TableChange::RemoveLagging { partition, epoch, node: primary, sound: true },
        TableChange::AddLearner { partition, epoch, node: third },
    ]);
    let complete = |cluster: &Cluster| {
        let table = cluster.agreed();
        table.and_then(|it| it.assignment(partition)).is_some_and(|it| it.isr.contains(&third))
    };
    // Shorter than the lease that the primary has from its backup.
    if cast.cluster.run_until(SECOND_US, complete) {
        cast.hand_over(third);
        assert_eq!(call(&mut cast.cluster, third, 2, &[b"SET", key, b"new"]), b"+OK\r\n");
        let read = submit(&mut cast.cluster, primary, 3, &[b"GET", key]);
        assert_eq!(read.map(|read| read.escape_ascii().to_string()), None, "a stale read");
    }
    assert_eq!(call(&mut cast.cluster, backup, 4, &[b"SET", key, b"newer"]), b"+OK\r\n");
}
