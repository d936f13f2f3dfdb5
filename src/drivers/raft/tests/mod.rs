//! Groups of several voters in one process, over a network whose links can be cut.
//!
//! Every wait is for an event; `PATIENCE` only bounds a failing test.

mod cluster;

use super::*;
use crate::engine::ids::{Incarnation, NodeId, TableVersion};
use crate::engine::table::TableChange;
use bytes::Bytes;
use cluster::{Cluster, PATIENCE, entry, member, table};
use std::time::Duration;

#[tokio::test]
async fn a_single_voter_leads_at_once() {
    let cluster = Cluster::new(1).await;
    let formed = cluster.form(1).await;
    assert_eq!(formed.table_version, TableVersion(1));
    let log = cluster.log(1);
    let proposed = log.propose(entry("a")).await.unwrap();
    assert_eq!(proposed.table_version, TableVersion(2));
    let published = log.tables().borrow().clone().unwrap();
    assert!(published.map_id("a").is_some(), "published before the proposer hears of it");
    assert_eq!(*log.read_table().await.unwrap(), *published);
    let leadership = log.leadership().borrow().clone();
    assert!(leadership.is_me);
    assert_eq!(leadership.voters, [NodeId(1)]);
    assert_eq!(log.status().role, Role::Leader);
    log.shutdown().await;
    assert_eq!(log.propose(entry("b")).await.unwrap_err(), ProposeError::Stopped);
    assert_eq!(log.read_table().await.unwrap_err(), ReadError::Stopped);
}

#[tokio::test]
async fn without_a_group_nothing_is_agreed() {
    let cluster = Cluster::new(1).await;
    let log = cluster.log(1);
    assert_eq!(log.propose(entry("a")).await.unwrap_err(), ProposeError::NotLeader(None));
    assert_eq!(log.read_table().await.unwrap_err(), ReadError::NotLeader(None));
    assert!(log.set_voters(cluster.addresses(&[1])).is_err());
    assert_eq!(log.status().group, None);
    assert!(log.tables().borrow().is_none());
}

#[tokio::test]
async fn grows_from_one_to_three_to_five() {
    let cluster = Cluster::new(5).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.log(1).propose(entry("three")).await.unwrap();
    cluster.grow(1, &[1, 2, 3, 4, 5]).await;
    cluster.log(1).propose(entry("five")).await.unwrap();
    for node in 1..=5 {
        cluster.wait_for_map(node, "three").await;
        cluster.wait_for_map(node, "five").await;
        assert!(
            cluster.table_of(node).members.contains_key(&NodeId(1)),
            "the first table travels with the log"
        );
    }
    assert!(matches!(
        cluster.log(2).propose(entry("no")).await,
        Err(ProposeError::NotLeader(Some(NodeId(1))))
    ));
    assert_eq!(cluster.log(2).read_table().await.unwrap_err(), ReadError::NotLeader(Some(NodeId(1))));
}

#[tokio::test]
async fn another_leader_goes_on_when_the_leader_dies() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.log(1).propose(entry("before")).await.unwrap();
    cluster.isolate(1);
    let leader = cluster.wait_for_leader(&[2, 3]).await;
    let proposed = cluster.log(leader).propose(entry("after")).await.unwrap();
    let read = cluster.log(leader).read_table().await.unwrap();
    assert_eq!(read.version, proposed.table_version);
    assert!(read.map_id("before").is_some() && read.map_id("after").is_some());
    // The old leader serves neither writes nor reads, and catches up when it returns.
    assert!(cluster.log(1).propose(entry("lost")).await.is_err());
    assert_eq!(cluster.log(1).read_table().await.unwrap_err(), ReadError::Unavailable);
    cluster.heal();
    cluster.wait_for_map(1, "after").await;
    cluster.wait_until(1, |leadership| !leadership.is_me).await;
}

#[tokio::test]
async fn a_minority_commits_nothing() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.isolate(2);
    cluster.isolate(3);
    // Within its lease the leader takes the entry and cannot tell; later it refuses.
    let error = cluster.log(1).propose(entry("early")).await.unwrap_err();
    assert!(matches!(error, ProposeError::InDoubt | ProposeError::Unavailable), "{error}");
    assert_eq!(cluster.log(1).propose(entry("late")).await.unwrap_err(), ProposeError::Unavailable);
    assert!(cluster.table_of(1).map_id("early").is_none());
    assert!(!cluster.log(2).leadership().borrow().is_me && !cluster.log(3).leadership().borrow().is_me);
}

#[tokio::test]
async fn a_voter_that_was_cut_off_does_not_unseat_the_leader() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    let term = cluster.log(1).status().term;
    cluster.isolate(3);
    // Long enough to have asked for votes several times: counted in requests, not in time.
    cluster.wait_for_attempts(3, 12).await;
    // More than one request carries, fewer than call for a snapshot.
    for round in 0..30 {
        cluster.log(1).propose(entry(&round.to_string())).await.unwrap();
    }
    cluster.heal();
    cluster.wait_for_map(3, "29").await;
    assert_eq!(cluster.table_of(3), cluster.table_of(1));
    assert_eq!(cluster.log(1).status().term, term);
    assert_eq!(cluster.log(3).status().term, term);
    assert!(cluster.log(1).leadership().borrow().is_me);
}

#[tokio::test]
async fn a_dead_voter_is_replaced() {
    let cluster = Cluster::new(4).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.log(3).shutdown().await;
    cluster.isolate(3);
    cluster.grow(1, &[1, 2, 4]).await;
    cluster.log(1).propose(entry("replaced")).await.unwrap();
    cluster.wait_for_map(4, "replaced").await;
    // Now 2 may die as well.
    cluster.isolate(2);
    cluster.log(1).propose(entry("again")).await.unwrap();
}

#[tokio::test]
async fn a_dead_leader_is_replaced_and_dropped() {
    let cluster = Cluster::new(4).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.isolate(1);
    let leader = cluster.wait_for_leader(&[2, 3]).await;
    cluster.grow(leader, &[2, 3, 4]).await;
    cluster.log(leader).propose(entry("without the first")).await.unwrap();
    cluster.wait_for_map(4, "without the first").await;
}

#[tokio::test]
async fn a_leader_that_leaves_hands_over() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.log(1).set_voters(cluster.addresses(&[2, 3])).unwrap();
    cluster.wait_until(1, |leadership| !leadership.is_me).await;
    let leader = cluster.wait_for_leader(&[2, 3]).await;
    cluster.log(leader).propose(entry("while the other still votes")).await.unwrap();
    cluster.grow(leader, &[2, 3]).await;
    cluster.log(1).shutdown().await;
    cluster.log(leader).propose(entry("after")).await.unwrap();
    assert_eq!(cluster.log(leader).leadership().borrow().voters, [NodeId(2), NodeId(3)]);
}

#[tokio::test]
async fn the_last_voter_hands_over_to_a_newcomer() {
    let cluster = Cluster::new(2).await;
    cluster.form(1).await;
    cluster.log(1).propose(entry("before")).await.unwrap();
    cluster.log(1).set_voters(cluster.addresses(&[2])).unwrap();
    cluster.wait_for_leader(&[2]).await;
    cluster.log(1).shutdown().await;
    cluster.log(2).propose(entry("after")).await.unwrap();
    assert!(cluster.table_of(2).map_id("before").is_some());
}

#[tokio::test]
async fn an_unreachable_newcomer_never_votes_and_can_be_given_up() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.isolate(3);
    cluster.log(1).set_voters(cluster.addresses(&[1, 2, 3])).unwrap();
    cluster.wait_for_attempts_to(3, 5).await;
    assert_eq!(cluster.log(1).leadership().borrow().voters, [NodeId(1)]);
    cluster.log(1).propose(entry("alone")).await.unwrap();
    cluster.grow(1, &[1, 2]).await;
    cluster.log(1).propose(entry("together")).await.unwrap();
    assert!(cluster.log(1).status().learners.is_empty());
}

#[tokio::test]
async fn a_late_joiner_gets_a_snapshot() {
    let cluster = Cluster::new(2).await;
    cluster.form(1).await;
    let log = cluster.log(1);
    // Many times over what is kept, so that the beginning is gone.
    for round in 0..cluster.config().snapshot_entries * 3 {
        log.propose(entry(&round.to_string())).await.unwrap();
    }
    assert!(log.status().snapshot_index.is_some());
    cluster.grow(1, &[1, 2]).await;
    log.propose(entry("last")).await.unwrap();
    cluster.wait_for_map(2, "last").await;
    assert_eq!(cluster.table_of(2), cluster.table_of(1));
    assert!(cluster.log(2).status().snapshot_index.is_some(), "it came by snapshot");
}

#[tokio::test]
async fn foreign_groups_are_refused() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.form(2).await;
    let before = cluster.table_of(2);
    cluster.log(1).set_voters(cluster.addresses(&[1, 2, 3])).unwrap();
    cluster.wait_for_attempts_to(2, 3).await;
    assert_eq!(cluster.table_of(2), before);
    assert!(cluster.log(2).leadership().borrow().is_me);
    assert_eq!(cluster.log(1).leadership().borrow().voters, [NodeId(1)]);
    assert_eq!(cluster.log(3).status().group.map(|group| group.founder), Some(NodeId(1)));
    assert!(cluster.refusals() > 0);
}

#[tokio::test]
async fn a_survivor_takes_over_with_its_table() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2]).await;
    cluster.log(1).propose(entry("kept")).await.unwrap();
    cluster.wait_for_map(2, "kept").await;
    cluster.isolate(1);
    let log = cluster.log(2);
    let old = (*cluster.table_of(2)).clone();
    let same = log.form(entry("stale"), old.clone()).await.unwrap_err();
    assert_eq!(same, FormError::NotNewer(Incarnation(1)));
    let formed = log.form(vec![TableChange::NewIncarnation(Incarnation(2))], old.clone()).await.unwrap();
    assert_eq!(formed.table_version.0, old.version.0 + 1);
    let table = log.read_table().await.unwrap();
    assert_eq!(table.incarnation, Incarnation(2));
    assert!(table.map_id("kept").is_some());
    log.propose(entry("alone")).await.unwrap();

    // The two halves meet again and stay apart until the first one gives in.
    cluster.heal();
    log.set_voters(cluster.addresses(&[1, 2, 3])).unwrap();
    cluster.wait_for_attempts_to(1, 3).await;
    assert_eq!(cluster.table_of(1).incarnation, Incarnation(1));
    cluster.log(1).abandon().await.unwrap();
    cluster.wait_for_map(1, "alone").await;
    cluster.wait_for_voters(2, &[1, 2, 3]).await;
    assert_eq!(cluster.table_of(1).incarnation, Incarnation(2));
    log.propose(entry("together")).await.unwrap();
}

#[tokio::test]
async fn a_group_left_is_never_answered_again() {
    let cluster = Cluster::new(3).await;
    cluster.form(1).await;
    cluster.grow(1, &[1, 2, 3]).await;
    cluster.log(3).abandon().await.unwrap();
    // The leader goes on sending to it; it has forgotten its votes and must not cast another.
    cluster.wait_for_attempts_to(3, 5).await;
    assert_eq!(cluster.log(3).status().group, None);
    assert_eq!(cluster.log(3).status().last_index, None);
    cluster.log(1).propose(entry("two of three")).await.unwrap();
    let same = cluster.log(3).form(entry("again"), table(Incarnation(1))).await.unwrap_err();
    assert_eq!(same, FormError::NotNewer(Incarnation(1)));
}

#[tokio::test]
async fn hostile_bytes_are_refused() {
    let cluster = Cluster::new(2).await;
    cluster.form(1).await;
    let log = cluster.log(1);
    let from = NodeId(2);
    for length in [0usize, 1, 17, 18, 19, 64, 4096] {
        for fill in [0u8, 1, 0x7f, 0xff] {
            for kind in 0..=6 {
                let mut body = vec![fill; length];
                body.iter_mut().zip([1, kind]).for_each(|(byte, header)| *byte = header);
                let refusal = log.handle(from, Bytes::from(body)).await.unwrap_err();
                assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal}");
            }
        }
    }
    let huge = Bytes::from(vec![0; RPC_BODY_BYTES_MAX + 1]);
    assert_eq!(log.handle(from, huge).await.unwrap_err(), Refusal::Malformed("too long"));
    log.propose(entry("still here")).await.unwrap();
}

#[tokio::test]
async fn oversize_entries_are_refused_before_they_are_sent() {
    let cluster = Cluster::new(1).await;
    cluster.form(1).await;
    let huge: Vec<TableChange> =
        (0..200_000).map(|n| TableChange::RemoveMember(NodeId(u64::MAX - n))).collect();
    assert_eq!(cluster.log(1).propose(huge).await.unwrap_err(), ProposeError::TooLarge);
}

#[tokio::test]
async fn entries_beyond_one_request_are_sent_in_several() {
    let cluster = Cluster::new(2).await;
    cluster.form(1).await;
    // Too long a name to have an effect, and quick to copy.
    let bulky = entry(&"x".repeat(ENTRY_BYTES_MAX - 64));
    for _ in 0..RPC_BODY_BYTES_MAX / ENTRY_BYTES_MAX + 3 {
        cluster.log(1).propose(bulky.clone()).await.unwrap();
    }
    cluster.grow(1, &[1, 2]).await;
    assert_eq!(cluster.table_of(2), cluster.table_of(1));
    assert_eq!(cluster.log(2).status().snapshot_index, None, "it came entry by entry");
}

#[tokio::test]
async fn the_channel_bridges_to_one_thread() {
    let (sender, mut outgoing) = channel();
    let call = tokio::spawn(sender.call(NodeId(7), Bytes::from_static(b"ping"), PATIENCE));
    let rpc = outgoing.recv().await.unwrap();
    assert_eq!((rpc.to, &rpc.body[..]), (NodeId(7), &b"ping"[..]));
    rpc.reply.send(Ok(Bytes::from_static(b"pong"))).unwrap();
    assert_eq!(call.await.unwrap().unwrap(), "pong");

    let unanswered = tokio::spawn(sender.call(NodeId(7), Bytes::new(), Duration::from_millis(1)));
    let kept = outgoing.recv().await;
    assert_eq!(unanswered.await.unwrap(), Err(RpcFailure::Timeout));
    drop((kept, outgoing));
    assert_eq!(sender.call(NodeId(7), Bytes::new(), PATIENCE).await, Err(RpcFailure::Unreachable));
}

#[test]
fn the_largest_real_entries_fit() {
    // Every partition of the largest cluster failing over at once, with three copies left.
    let nodes: Vec<NodeId> = (0..3).map(|n| NodeId(u64::MAX - n)).collect();
    let all: Vec<TableChange> = (0..crate::engine::ids::PARTITION_COUNT_MAX)
        .map(|partition| TableChange::Failover {
            partition: crate::engine::ids::PartitionId(partition),
            epoch: crate::engine::ids::Epoch(u64::from(u32::MAX)),
            primary: nodes[0],
            isr: nodes.clone(),
            last: crate::engine::ids::Sequence(0),
        })
        .collect();
    assert!(postcard::to_allocvec(&all).unwrap().len() <= ENTRY_BYTES_MAX);
    let mut largest = table(Incarnation(1));
    for n in 0..1_000 {
        largest.members.insert(NodeId(n), member(n));
    }
    assert!(postcard::to_allocvec(&largest).unwrap().len() <= TABLE_BYTES_MAX);
}
