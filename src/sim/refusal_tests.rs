//! What a member says and shouldn't is refused and counted, and changes nothing; copies that differ are
//! found and repaired.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use super::scenario::Scenario;
use super::testing::{SECOND_US, call, formed, whole};
use crate::engine::config::EngineConfig;
use crate::engine::controller::Order;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, TableVersion, Version};
use crate::engine::message::{self, Ack, Batch, Message, Records, SnapshotVerdict, TableStep};
use crate::engine::node::Output;
use crate::engine::partition::Role;
use crate::engine::record::{self, Effect};
use crate::engine::stats::Refused;
use crate::engine::store::EntryKind;
use crate::engine::table::{ClusterSettings, Survival};
use std::sync::Arc;

fn cluster(seed: u64, nodes: usize, survival: Survival) -> (Cluster, Vec<NodeId>) {
    let settings = ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival };
    formed(seed, settings, nodes)
}

fn fill(cluster: &mut Cluster, node: NodeId) {
    for i in 0..64u64 {
        let key = format!("k{i}");
        assert_eq!(call(cluster, node, i, &[b"SET", key.as_bytes(), b"v"]), b"+OK\r\n");
    }
}

/// A backup, its primary, a third node, and a partition of theirs.
struct Cast {
    partition: PartitionId,
    epoch: Epoch,
    primary: NodeId,
    backup: NodeId,
    third: NodeId,
}

fn cast(cluster: &Cluster, nodes: &[NodeId]) -> Cast {
    let table = cluster.agreed().expect("a table");
    let (partition, assignment) = table
        .partition_ids()
        .zip(&table.partitions)
        .find(|(_, assignment)| assignment.isr.len() == 2)
        .expect("two copies");
    let backup = *assignment.isr.iter().find(|&&node| node != assignment.primary).expect("a backup");
    let third = *nodes.iter().find(|node| !assignment.isr.contains(node)).expect("three nodes");
    Cast { partition, epoch: assignment.epoch, primary: assignment.primary, backup, third }
}

fn refused(cluster: &Cluster, node: NodeId) -> Refused {
    cluster.engine(node).stats().refused
}

/// Has `to` receive messages as if from `from`, and returns by how much each count grew.
fn forge(
    cluster: &mut Cluster,
    from: NodeId,
    to: NodeId,
    incarnation: Option<Incarnation>,
    messages: &[Message<'_>],
) -> Vec<(&'static str, u64)> {
    let mut frame = Vec::new();
    message::begin(incarnation.unwrap_or(cluster.engine(to).table().incarnation), &mut frame);
    for message in messages {
        message::append(message, &mut frame);
    }
    let (before, frame) = (refused(cluster, to), frame.into());
    cluster.input(to, |engine, now| engine.frame(now, from, &frame));
    let after = refused(cluster, to).named().into_iter().zip(before.named());
    after
        .filter(|(after, before)| after != before)
        .map(|(after, before)| (after.0, after.1 - before.1))
        .collect()
}

#[test]
fn well_formed_but_wrong_messages_are_refused_and_counted() {
    let (mut cluster, nodes) = cluster(11, 3, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    let Cast { partition, epoch, primary, backup, third } = cast(&cluster, &nodes);
    let mut record = Vec::new();
    record::encode(
        &Effect::Put {
            map: Default::default(),
            key: b"forged",
            value: b"v",
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version::MAX,
        },
        &mut record,
    );
    let last = cluster.engine(backup).partitions()[partition.index()].copy.as_ref().expect("a copy").last;
    let batch = |number| {
        Message::Batch(Batch {
            number,
            sent_us: 1,
            table_version: TableVersion(0),
            term: 0,
            leader: None,
            load: None,
        })
    };
    let honest = Records { partition, epoch, first: last.next(), count: 1, commit: last, records: &record };
    let before = cluster.engine(backup).partitions()[partition.index()].copy.as_ref().map(|copy| copy.last);
    let huge = vec![0; EngineConfig::default().records_bytes_max() + 1];
    let cases: [(&str, NodeId, Option<Incarnation>, Message<'_>); 11] = [
        ("epoch", primary, None, Message::Records(Records { epoch: Epoch(epoch.0 - 1), ..honest })),
        ("epoch", primary, None, Message::Records(Records { epoch: epoch.next(), ..honest })),
        ("sender", third, None, Message::Records(honest)),
        ("partition", primary, None, Message::Records(Records { partition: PartitionId(999), ..honest })),
        ("sequence", primary, None, Message::Records(Records { first: Sequence(0), ..honest })),
        ("sequence", primary, None, Message::Records(Records { first: Sequence(u64::MAX), ..honest })),
        ("oversize", primary, None, Message::Records(Records { count: u32::MAX, ..honest })),
        ("oversize", primary, None, Message::Records(Records { records: &huge, ..honest })),
        ("malformed", primary, None, Message::Records(Records { count: 2, ..honest })),
        ("incarnation", primary, Some(Incarnation(7)), Message::Records(honest)),
        (
            "sender",
            third,
            None,
            Message::Attach { partition, epoch, attempt: 1 << 60, after: Sequence(1 << 60) },
        ),
    ];
    for (reason, from, incarnation, message) in cases {
        let counted = forge(&mut cluster, from, backup, incarnation, &[batch(1), message.clone()]);
        let named: Vec<_> = counted.iter().map(|(name, _)| *name).collect();
        assert!(named.contains(&reason), "{message:?} from {from}: {counted:?}, not {reason}");
        let held = cluster.engine(backup).partitions()[partition.index()].copy.as_ref().map(|copy| copy.last);
        assert_eq!(held, before, "{message:?} changed something");
    }

    let ack = |number, echo_us, refused| {
        Message::Ack(Ack { number, echo_us, granted: true, table_version: TableVersion(0), refused })
    };
    let to_primary: [(&str, NodeId, Message<'_>); 6] = [
        ("sequence", backup, ack(u64::MAX, 1, Vec::new())),
        ("sequence", backup, ack(0, u64::MAX, Vec::new())),
        ("partition", backup, ack(0, 1, vec![(PartitionId(999), message::Refusal::Unknown)])),
        ("epoch", backup, Message::DigestMismatch { partition, epoch: epoch.next(), sequence: last }),
        ("sender", third, Message::DigestMismatch { partition, epoch, sequence: last }),
        ("sender", third, Message::Digest { partition, epoch, sequence: last, digest: 1 }),
    ];
    for (reason, from, message) in to_primary {
        let counted = forge(&mut cluster, from, primary, None, std::slice::from_ref(&message));
        assert_eq!(counted, [(reason, 1)], "{message:?} from {from}");
    }

    // Tables that cannot be.
    let table = cluster.engine(third).table().clone();
    let mut back = (*table).clone();
    back.version = TableVersion(table.version.0 + 1);
    Arc::make_mut(&mut back.partitions[0]).epoch = Epoch(0);
    let mut twice = table.partitions[3].clone();
    let primary = twice.primary;
    Arc::make_mut(&mut twice).isr.push(primary);
    let step = |partitions| {
        Message::TableStep(TableStep {
            after: table.version,
            version: TableVersion(table.version.0 + 1),
            partitions,
        })
    };
    let tables = [
        ("malformed", Message::Table(Box::new(back))),
        ("malformed", step(vec![(PartitionId(3), twice)])),
        ("partition", step(vec![(PartitionId(999), table.partitions[3].clone())])),
    ];
    for (reason, message) in tables {
        let counted = forge(&mut cluster, primary, third, None, std::slice::from_ref(&message));
        assert_eq!(counted, [(reason, 1)], "{message:?}");
        assert_eq!(cluster.engine(third).table().version, table.version);
    }
    // An order for a partition that isn't there does nothing, and kills nobody.
    let order = Order::Handover { partition: PartitionId(999), epoch, to: third };
    forge(&mut cluster, primary, third, None, &[Message::Order { term: 0, order }]);

    cluster.run(5 * SECOND_US);
    assert!(whole(&cluster), "{:?}", super::checks::unsettled(&cluster, &[]));
    for i in 0..64u64 {
        let key = format!("k{i}");
        assert_eq!(call(&mut cluster, third, 1_000 + i, &[b"GET", key.as_bytes()]), b"$1\r\nv\r\n");
    }
    assert_eq!(call(&mut cluster, third, 2_000, &[b"GET", b"forged"]), b"$-1\r\n");
}

/// A learner on which writes wait would count as complete without having everything.
#[test]
fn a_verdict_on_a_snapshot_that_has_not_ended_is_refused() {
    let (mut cluster, nodes) = cluster(16, 2, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    cluster.start();
    let sending = |cluster: &Cluster| {
        nodes.iter().find_map(|&node| {
            cluster.engine(node).partitions().iter().find_map(|partition| {
                let Role::Primary(primary) = &partition.role else { return None };
                let follower = primary.followers.iter().find(|follower| !follower.attached)?;
                follower.sending.as_ref()?;
                Some((node, follower.node, partition.id, follower.attempt))
            })
        })
    };
    // It attaches within a round trip.
    let begun = (0..300_000).find_map(|_| {
        cluster.run(100);
        sending(&cluster)
    });
    let (primary, learner, partition, attempt) = begun.expect("a snapshot begins");
    let verdict = Message::SnapshotDone { partition, attempt, verdict: SnapshotVerdict::Equal };
    let sent = cluster.engine(primary).stats().snapshots_sent;
    let counted = forge(&mut cluster, learner, primary, None, &[verdict]);
    assert_eq!(counted, [("unasked", 1)]);
    assert_eq!(cluster.engine(primary).stats().snapshots_sent, sent);
    assert!(cluster.run_until(60 * SECOND_US, whole), "{:?}", super::checks::unsettled(&cluster, &[]));
}

#[test]
fn a_promise_is_given_for_the_next_epoch_and_to_the_leader_only() {
    let (mut cluster, nodes) = cluster(17, 3, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    let Cast { partition, epoch, primary, backup, .. } = cast(&cluster, &nodes);
    let leader = cluster.latest_log().and_then(|log| log.leader).expect("a leader");
    let other = *nodes.iter().find(|&&node| node != leader && node != backup).expect("three nodes");
    let term = cluster.engine(backup).peers().term;
    let seal = |epoch| Order::Seal { deposed: primary, partitions: vec![(partition, epoch)] };
    let promised = |cluster: &Cluster| cluster.engine(backup).partitions()[partition.index()].promised;
    let order = |term, epoch| Message::Order { term, order: seal(epoch) };
    if leader != backup {
        let counted = forge(&mut cluster, leader, backup, None, &[order(term, Epoch(epoch.0 + 2))]);
        assert_eq!(counted, [("epoch", 1)], "no reign will ever be that late");
    }
    for (term, from) in [(term, other), (0, other), (0, leader)] {
        if from != backup {
            let counted = forge(&mut cluster, from, backup, None, &[order(term, epoch.next())]);
            assert_eq!(counted, [("sender", 1)], "{from} at term {term}");
        }
    }
    assert_eq!(promised(&cluster), epoch);
    assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", super::checks::unsettled(&cluster, &[]));
}

#[test]
fn a_member_that_says_wrong_things_all_the_time_harms_nobody() {
    let mut refused = 0;
    for seed in 0..12 {
        let scenario = Scenario { fault_s: 15, rogue: true, ..Scenario::new(seed) };
        match scenario.run() {
            Ok(summary) => refused += summary.rogue,
            Err(violation) => panic!("seed {seed}: {violation:?}"),
        }
    }
    assert!(refused > 10_000, "{refused} wrong messages");
}

#[test]
fn digests_find_a_corrupted_copy_and_it_is_rebuilt() {
    let (mut cluster, nodes) = cluster(12, 3, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    let Cast { partition, primary, backup, .. } = cast(&cluster, &nodes);
    cluster.input(backup, |engine, now| {
        let (partition, shared) = engine.partition_mut(partition);
        let copy = partition.copy.as_mut().expect("a copy");
        let effect = Effect::Put {
            map: Default::default(),
            key: b"rotten",
            value: b"bits",
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version(1),
        };
        copy.shard.apply(&mut shared.arena, &effect, now);
    });
    assert!(!whole(&cluster), "it differs");
    // Busy all the while: anti-entropy doesn't wait for quiet.
    for i in 0..4_000u64 {
        let key = format!("k{}", i % 64);
        call(&mut cluster, primary, 10_000 + i, &[b"SET", key.as_bytes(), b"w"]);
        cluster.run(10_000);
    }
    assert!(cluster.run_until(10 * SECOND_US, whole), "{:?}", super::checks::unsettled(&cluster, &[]));
    assert_eq!(cluster.engine(backup).stats().digest_mismatches, 1);
    assert_eq!(cluster.engine(primary).stats().digest_mismatches, 1);
    let equal: u64 = nodes.iter().map(|&node| cluster.engine(node).stats().digests_equal).sum();
    assert!(equal > 0);
}

#[test]
fn a_fenced_read_waits_for_the_copies_and_an_ordinary_one_does_not() {
    let (mut cluster, nodes) = cluster(13, 3, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    let Cast { partition, primary, backup, .. } = cast(&cluster, &nodes);
    let table = cluster.agreed().expect("a table").clone();
    let key = (0..64u64)
        .map(|i| format!("k{i}"))
        .find(|key| table.partition_of(crate::engine::ids::Slot::of(key.as_bytes())) == partition)
        .expect("a key of this partition");
    assert_eq!(call(&mut cluster, primary, 100, &[b"RD.GETFENCED", key.as_bytes()]), b"$1\r\nv\r\n");
    assert_eq!(call(&mut cluster, backup, 101, &[b"RD.GETFENCED", key.as_bytes()]), b"$1\r\nv\r\n");
    // The backup stands still: leases go on for a while, confirmations don't come.
    cluster.pause(backup, SECOND_US);
    let submit = super::testing::submit;
    assert!(submit(&mut cluster, primary, 102, &[b"GET", key.as_bytes()]).is_some());
    assert!(submit(&mut cluster, primary, 103, &[b"RD.GETFENCED", key.as_bytes()]).is_none());
    cluster.run(900_000);
    assert!(super::testing::reply(&mut cluster, 103).is_none());
    cluster.run(SECOND_US);
    assert_eq!(super::testing::reply(&mut cluster, 103).as_deref(), Some(&b"$1\r\nv\r\n"[..]));
}

#[test]
fn writes_apart_from_the_cluster_are_counted_and_dropped() {
    let (mut cluster, nodes) = cluster(14, 2, Survival::Auto);
    fill(&mut cluster, nodes[0]);
    let leader = cluster.latest_log().and_then(|log| log.leader).expect("a leader");
    let other = *nodes.iter().find(|&&node| node != leader).expect("two nodes");
    cluster.network.cut(leader, other);
    cluster.network.cut(other, leader);
    let incarnation = cluster.engine(other).table().incarnation;
    let split = cluster.run_until(60 * SECOND_US, |cluster| {
        cluster.engine(other).table().incarnation > incarnation
            && cluster.engine(leader).table().partitions.iter().all(|it| it.isr == [leader])
    });
    assert!(split, "both go on");
    for i in 0..20u64 {
        let key = format!("k{i}");
        assert_eq!(call(&mut cluster, leader, 500 + i, &[b"SET", key.as_bytes(), b"lost"]), b"+OK\r\n");
    }
    for i in 0..10u64 {
        let key = format!("k{i}");
        assert_eq!(call(&mut cluster, other, 600 + i, &[b"SET", key.as_bytes(), b"kept"]), b"+OK\r\n");
    }
    cluster.network.heal();
    assert!(cluster.run_until(60 * SECOND_US, whole), "{:?}", super::checks::unsettled(&cluster, &[]));
    assert_eq!(cluster.engine(leader).stats().divergent, 20);
    assert_eq!(cluster.engine(other).stats().divergent, 0);
    for i in 0..20u64 {
        let key = format!("k{i}");
        let expected: &[u8] = if i < 10 { b"$4\r\nkept\r\n" } else { b"$1\r\nv\r\n" };
        assert_eq!(call(&mut cluster, leader, 700 + i, &[b"GET", key.as_bytes()]), expected);
    }
}

#[test]
fn large_values_fit_the_frames_that_copy_them() {
    let settings = ClusterSettings { partitions: 1, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let mut cluster = Cluster::new(15, NetworkConfig::default(), EngineConfig::default(), settings);
    let first = cluster.start();
    assert!(cluster.run_until(10 * SECOND_US, whole));
    let value = vec![b'x'; 3 << 20];
    for i in 0..8u64 {
        let key = format!("k{i}");
        assert_eq!(call(&mut cluster, first, i, &[b"SET", key.as_bytes(), &value]), b"+OK\r\n");
    }
    cluster.start();
    assert!(cluster.run_until(60 * SECOND_US, whole), "{:?}", super::checks::unsettled(&cluster, &[]));
    assert!(cluster.largest_frame_bytes < 5 << 20, "{} bytes", cluster.largest_frame_bytes);
}

/// What comes after a message that doesn't decode was not taken, and counted as acknowledged all the same.
#[test]
fn a_batch_whose_frame_breaks_off_is_not_acknowledged() {
    let (mut cluster, nodes) = cluster(12, 3, Survival::Auto);
    let Cast { primary, backup, .. } = cast(&cluster, &nodes);
    for (rest, acknowledged) in [(&[][..], 1), (&[0xFF; 16][..], 0)] {
        let mut frame = Vec::new();
        message::begin(cluster.engine(backup).table().incarnation, &mut frame);
        let table_version = TableVersion(0);
        let batch = Batch { number: 1 << 40, sent_us: 1, table_version, term: 0, leader: None, load: None };
        message::append(&Message::Batch(batch), &mut frame);
        frame.extend_from_slice(rest);
        let now = cluster.now_at(backup);
        let engine = &mut cluster.nodes.get_mut(&backup).expect("a backup").engine;
        engine.frame(now, primary, &frame.into());
        engine.flush(now);
        let mut acks = 0;
        while let Some(output) = engine.poll() {
            let Output::Send(_, _, frame) = output else { continue };
            let (_, mut rest) = message::open(&frame).expect("a frame");
            while let Ok(message) = message::next(&mut rest) {
                acks += usize::from(matches!(message, Message::Ack(Ack { number, .. }) if number == 1 << 40));
            }
        }
        assert_eq!(acks, acknowledged, "{rest:?}");
    }
}
