use super::cluster::{Cluster, member, settings};
use crate::engine::controller::{Order, Report};
use crate::engine::ids::{Epoch, NodeId, PartitionId};
use crate::engine::table::{MapDefaults, MapDefinition, MemberStatus, TableChange};
use std::collections::BTreeSet;

fn ids(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
    ids.into_iter().map(NodeId).collect()
}

#[test]
fn the_first_member_gets_everything_in_one_entry() {
    let mut cluster = Cluster::new(settings(64, 2), 1);
    cluster.join(member(1));
    cluster.run(100);
    assert_eq!(cluster.entries.len(), 1);
    assert_eq!(cluster.primaries(1), 64);
    assert!(cluster.table.partitions.iter().all(|a| a.epoch == Epoch(1) && a.isr.len() == 1));
    assert!(!cluster.table.ever_three);
    cluster.converge();
}

#[test]
fn members_that_come_together_are_one_entry() {
    let mut cluster = Cluster::new(settings(64, 2), 1);
    for id in 1..=5 {
        cluster.join(member(id));
    }
    cluster.run(100);
    assert_eq!(cluster.entries.len(), 1);
    assert!(cluster.table.ever_three);
    assert!(cluster.table.partitions.iter().all(|a| a.isr.len() == 2));
}

#[test]
fn a_second_member_is_attached_everywhere_at_once() {
    let mut cluster = Cluster::formed(settings(64, 2), 1);
    cluster.filling = false;
    cluster.join(member(2));
    cluster.run(100);
    assert!(cluster.table.partitions.iter().all(|a| a.learners == [NodeId(2)]));
    cluster.filling = true;
    cluster.converge();
    assert_eq!(cluster.primaries(1), 32);
}

#[test]
fn copies_for_balance_are_attached_a_few_at_a_time() {
    let mut cluster = Cluster::formed(settings(64, 2), 3);
    cluster.filling = false;
    cluster.join(member(4));
    cluster.run(1_000);
    let learners: usize = cluster.table.partitions.iter().map(|a| a.learners.len()).sum();
    assert_eq!(learners, 8);
    cluster.filling = true;
    cluster.converge();
    assert_eq!(cluster.primaries(4), 16);
}

#[test]
fn gossip_alone_or_the_link_alone_buries_nobody() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    cluster.controller.member_heard(cluster.now, NodeId(2), false);
    cluster.controller.link(cluster.now, NodeId(3), false);
    cluster.run(20_000);
    assert_eq!(cluster.status(2), Some(MemberStatus::Up));
    assert_eq!(cluster.status(3), Some(MemberStatus::Up));
}

#[test]
fn a_member_nobody_ever_heard_of_is_buried_at_last() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    cluster.controller = crate::engine::controller::Controller::new(cluster.config);
    for id in [1, 2] {
        cluster.controller.link(cluster.now, NodeId(id), true);
    }
    cluster.controller.lead(cluster.now, std::sync::Arc::new(cluster.table.clone()));
    cluster.run(14_000);
    assert_eq!(cluster.status(3), Some(MemberStatus::Up));
    cluster.node(3).alive = false;
    cluster.run(2_000);
    assert_eq!(cluster.status(3), Some(MemberStatus::Down));
}

#[test]
fn a_restart_at_the_same_address_buries_the_process_before() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    cluster.node(2).alive = false;
    cluster.node(2).copies.clear();
    let mut again = member(4);
    again.quic = member(2).quic;
    cluster.join(again);
    cluster.run(200);
    // The link may only seem to live; as long as it does, nobody is buried.
    assert_eq!(cluster.status(2), Some(MemberStatus::Up));
    cluster.controller.link(cluster.now, NodeId(2), false);
    cluster.run(200);
    assert_eq!(cluster.status(2), Some(MemberStatus::Down));
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 3, 4]));
}

#[test]
fn a_death_is_two_entries_and_one_seal_a_survivor() {
    let mut cluster = Cluster::formed(settings(64, 2), 4);
    let (entries, orders) = (cluster.entries.len(), cluster.orders.len());
    let led = cluster.primaries(3);
    assert!(led > 0);
    cluster.filling = false;
    cluster.kill(3);
    cluster.run(3_000);
    // Down, its backups replaced; then the failovers with their learners.
    assert_eq!(cluster.entries.len() - entries, 2, "{:?}", &cluster.entries[entries..]);
    let first = &cluster.entries[entries];
    assert_eq!(first[0], TableChange::SetStatus(NodeId(3), MemberStatus::Down));
    assert!(first.iter().any(|change| matches!(change, TableChange::RemoveReplica { .. })));
    assert!(first.iter().any(|change| matches!(change, TableChange::AddLearner { .. })));
    let second = &cluster.entries[entries + 1];
    let failovers = second.iter().filter(|c| matches!(c, TableChange::Failover { .. })).count();
    assert_eq!(failovers, led);
    let seals: Vec<NodeId> = cluster.orders[orders..]
        .iter()
        .filter(|(_, order)| matches!(order, Order::Seal { .. }))
        .map(|&(to, _)| to)
        .collect();
    assert_eq!(seals.len(), 3, "{seals:?}");
    assert_eq!(seals.into_iter().collect::<BTreeSet<_>>(), ids([1, 2, 4]));
    // Every partition has its full ack set again although nothing was filled yet.
    assert!(cluster.table.partitions.iter().all(|a| a.ack_set().count() == 2));
    cluster.filling = true;
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 2, 4]));
}

#[test]
fn the_furthest_survivor_becomes_primary() {
    let mut cluster = Cluster::formed(settings(16, 3), 4);
    let partition = PartitionId(0);
    let assignment = cluster.table.partitions[0].clone();
    let backups: Vec<NodeId> =
        assignment.isr.iter().copied().filter(|node| *node != assignment.primary).collect();
    let leader = if assignment.primary.0 == 1 { 2 } else { 1 };
    cluster.lead(leader);
    // More writes have reached this one; they were never acknowledged.
    *cluster.nodes.get_mut(&backups[0]).unwrap().copies.get_mut(&partition).unwrap() += 7;
    cluster.kill(assignment.primary.0);
    cluster.run(2_000);
    let after = &cluster.table.partitions[0];
    assert_eq!(after.epoch, assignment.epoch.next());
    assert_eq!(after.primary, backups[0]);
}

#[test]
fn a_mute_survivor_delays_failover_only_until_the_timeout() {
    let mut cluster = Cluster::formed(settings(16, 3), 4);
    cluster.forgiving = true;
    cluster.node(2).mute = true;
    cluster.kill(3);
    cluster.run(1_500);
    let orphans = cluster.primaries(3);
    assert!(orphans > 0);
    cluster.run(4_000);
    assert_eq!(cluster.primaries(3), 0);
}

#[test]
fn a_responder_that_dies_is_not_waited_for() {
    let mut cluster = Cluster::formed(settings(16, 3), 5);
    cluster.node(2).mute = true;
    cluster.kill(3);
    cluster.kill(2);
    cluster.run(2_000);
    assert_eq!(cluster.primaries(3) + cluster.primaries(2), 0);
    cluster.converge();
}

#[test]
fn a_partition_without_copies_is_dead_until_its_holder_returns() {
    let mut cluster = Cluster::formed(settings(16, 1), 3);
    let led = cluster.primaries(2);
    cluster.cut(2);
    cluster.run(3_000);
    assert_eq!(cluster.controller.status().dead.len(), led);
    assert_eq!(cluster.status(2), Some(MemberStatus::Down));
    cluster.run(20_000);
    assert_eq!(cluster.controller.status().dead.len(), led);
    cluster.mend(2);
    cluster.run(3_000);
    assert_eq!(cluster.status(2), Some(MemberStatus::Up));
    cluster.converge();
    assert_eq!(cluster.primaries(2), led);
}

#[test]
fn a_returning_backup_of_a_dead_primary_is_sealed_and_promoted() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    // Both others vanish; the one that died is noticed last, the one that comes back first.
    cluster.node(2).alive = false;
    for id in [3, 2] {
        cluster.controller.link(cluster.now, NodeId(id), false);
    }
    cluster.controller.member_heard(cluster.now, NodeId(3), false);
    cluster.run(1_000);
    cluster.controller.member_heard(cluster.now, NodeId(2), false);
    cluster.run(3_000);
    let dead = cluster.controller.status().dead.len();
    assert!(dead > 0);
    cluster.mend(3);
    cluster.run(3_000);
    assert!(cluster.controller.status().dead.is_empty());
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 3]));
}

#[test]
fn an_operator_may_accept_a_loss() {
    let mut cluster = Cluster::formed(settings(16, 1), 3);
    let led = cluster.primaries(2);
    cluster.kill(2);
    cluster.run(3_000);
    assert_eq!(cluster.controller.status().dead.len(), led);
    cluster.report(1, Report::AcceptLoss);
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 3]));
    let begun_anew = cluster.table.partitions.iter().filter(|a| a.origin > Epoch(1)).count();
    assert_eq!(begun_anew, led);
}

#[test]
fn a_member_back_before_its_failover_goes_on_as_primary() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    let led = cluster.primaries(2);
    // The survivors promise the next epoch, but nobody hears of it.
    cluster.node(1).mute = true;
    cluster.node(3).mute = true;
    cluster.cut(2);
    cluster.run(2_000);
    assert_eq!(cluster.status(2), Some(MemberStatus::Down));
    cluster.mend(2);
    cluster.run(3_000);
    assert_eq!(cluster.status(2), Some(MemberStatus::Up));
    assert_eq!(cluster.primaries(2), led);
    let reign = cluster.table.partitions.iter().find(|a| a.primary == NodeId(2)).unwrap();
    assert_eq!(reign.isr.len(), 2, "no copy was given up");
    cluster.node(1).mute = false;
    cluster.node(3).mute = false;
    cluster.converge();
}

#[test]
fn handovers_wait_for_the_copies_and_are_few_at_a_time() {
    let mut cluster = Cluster::formed(settings(64, 2), 2);
    let orders = cluster.orders.len();
    cluster.join(member(3));
    for id in 1..=3 {
        // Orders are sent, but nobody drains.
        cluster.node(id).mute = true;
    }
    cluster.filling = false;
    cluster.run(200);
    assert_eq!(cluster.orders.len(), orders);
    for id in 1..=3 {
        cluster.node(id).mute = false;
    }
    cluster.filling = true;
    cluster.converge();
    let sent = &cluster.orders[orders..];
    assert!(sent.iter().all(|(_, order)| matches!(order, Order::Handover { .. })));
    assert!(!sent.is_empty());
}

#[test]
fn a_handover_to_a_lost_heir_is_withdrawn_for_the_primary() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    let before = cluster.table.partitions[0].clone();
    let (partition, epoch) = (PartitionId(0), before.epoch);
    let stranger = NodeId(99);
    cluster.report(before.primary.0, Report::HandoverReady { partition, epoch, to: stranger });
    cluster.run(100);
    let after = &cluster.table.partitions[0];
    assert_eq!((after.epoch, after.primary), (epoch.next(), before.primary));
}

#[test]
fn withdrawn_handovers_and_lost_proposals_only_cost_time() {
    let mut cluster = Cluster::new(settings(32, 2), 7);
    cluster.withdrawn = 50;
    cluster.lost_proposals = 30;
    for id in 1..=4 {
        cluster.join(member(id));
        cluster.run(500);
    }
    cluster.converge();
}

#[test]
fn a_leaver_is_emptied_and_removed() {
    let mut cluster = Cluster::formed(settings(64, 2), 4);
    let entries = cluster.entries.len();
    cluster.report(3, Report::Leave);
    cluster.converge();
    assert_eq!(cluster.status(3), None);
    assert!(cluster.table.is_retired(NodeId(3)));
    assert_eq!(cluster.holders(), ids([1, 2, 4]));
    let lost = cluster.changes_since(entries).filter(|c| {
        matches!(c, TableChange::Failover { .. } | TableChange::SetStatus(_, MemberStatus::Down))
    });
    assert_eq!(lost.count(), 0);
    // A late request doesn't bring it back.
    cluster.controller.join(cluster.now, member(3));
    cluster.run(1_000);
    assert_eq!(cluster.status(3), None);
}

#[test]
fn a_leaver_hands_over_before_copies_move() {
    let mut cluster = Cluster::formed(settings(64, 2), 3);
    cluster.filling = false;
    cluster.report(3, Report::Leave);
    cluster.run(2_000);
    // No new copy was completed, and yet it leads nothing that somebody else could.
    assert_eq!(cluster.primaries(3), 0);
    assert_eq!(cluster.status(3), Some(MemberStatus::Leaving));
    cluster.filling = true;
    cluster.converge();
    assert_eq!(cluster.status(3), None);
}

/// The log ended with it, while the other, cut off for a moment, knew nothing of the last entries.
#[test]
fn a_leader_that_leaves_is_seen_off_by_the_next_one() {
    let mut cluster = Cluster::formed(settings(16, 2), 2);
    assert_eq!(cluster.config.me, NodeId(1));
    cluster.report(1, Report::Leave);
    cluster.run(5_000);
    assert_eq!((cluster.primaries(1), cluster.primaries(2)), (0, 16));
    assert_eq!(cluster.status(1), Some(MemberStatus::Leaving));
    cluster.lead(2);
    cluster.converge();
    assert_eq!(cluster.status(1), None);
}

#[test]
fn the_last_members_may_leave_together_or_alone() {
    let mut cluster = Cluster::formed(settings(16, 2), 1);
    cluster.report(1, Report::Leave);
    cluster.run(100);
    assert_eq!(cluster.status(1), None);

    let mut cluster = Cluster::formed(settings(16, 2), 3);
    for id in 1..=3 {
        cluster.report(id, Report::Leave);
    }
    cluster.run(100);
    assert!(cluster.table.members.is_empty());
    // Whoever comes next begins anew: there is nothing left to lose.
    cluster.join(member(4));
    cluster.config.me = NodeId(4);
    cluster.converge();
    assert_eq!(cluster.primaries(4), 16);
}

#[test]
fn a_lagging_copy_is_replaced_elsewhere() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    cluster.forgiving = true;
    cluster.filling = false;
    let before = cluster.table.partitions[0].clone();
    let node = *before.isr.iter().find(|node| **node != before.primary).unwrap();
    let third = (1..=3).map(NodeId).find(|id| !before.isr.contains(id)).unwrap();
    let (partition, epoch) = (PartitionId(0), before.epoch);
    cluster.report(before.primary.0, Report::Lagging { partition, epoch, node, sound: true });
    cluster.run(100);
    let after = &cluster.table.partitions[0];
    assert_eq!((&after.isr[..], &after.learners[..]), (&[before.primary][..], &[third][..]));
    cluster.filling = true;
    cluster.converge();
}

#[test]
fn a_lagging_copy_without_substitute_is_attached_again_after_a_pause() {
    let mut cluster = Cluster::formed(settings(16, 2), 2);
    cluster.forgiving = true;
    cluster.filling = false;
    let before = cluster.table.partitions[0].clone();
    let node = *before.isr.iter().find(|node| **node != before.primary).unwrap();
    let (partition, epoch) = (PartitionId(0), before.epoch);
    cluster.report(before.primary.0, Report::Lagging { partition, epoch, node, sound: true });
    cluster.run(1_000);
    assert_eq!(cluster.table.partitions[0].ack_set().count(), 1);
    cluster.run(1_500);
    assert_eq!(cluster.table.partitions[0].learners, [node]);
}

#[test]
fn only_the_primary_of_the_epoch_is_believed() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    let before = cluster.table.clone();
    let assignment = before.partitions[0].clone();
    let (partition, epoch) = (PartitionId(0), assignment.epoch);
    let other = assignment.isr.iter().copied().find(|node| *node != assignment.primary).unwrap();
    cluster.report(other.0, Report::HandoverReady { partition, epoch, to: other });
    cluster.report(other.0, Report::HandoverCancel { partition, epoch });
    let stale = Report::HandoverCancel { partition, epoch: Epoch(0) };
    cluster.report(assignment.primary.0, stale);
    let beyond = Report::HandoverCancel { partition: PartitionId(999), epoch };
    cluster.report(assignment.primary.0, beyond);
    cluster.run(1_000);
    assert_eq!(cluster.table, before);
}

#[test]
fn maps_are_defined_once_and_redefined() {
    let mut cluster = Cluster::formed(settings(16, 2), 1);
    let define = |name: &str, ttl_ms| {
        let defaults = MapDefaults { ttl_ms, ..MapDefaults::default() };
        Report::DefineMap(MapDefinition { name: name.into(), defaults })
    };
    cluster.report(1, define("a", 1));
    cluster.report(1, define("b", 2));
    cluster.run(100);
    cluster.report(1, define("a", 3));
    cluster.report(1, define("a", 3));
    cluster.report(1, define("", 3));
    cluster.run(100);
    let a = cluster.table.map_id("a").unwrap();
    assert_eq!(cluster.table.map_defaults(a).ttl_ms, 3);
    assert_eq!(cluster.table.maps.len(), 2);
}

#[test]
fn the_dead_are_forgotten_once_nothing_names_them() {
    let mut cluster = Cluster::formed(settings(16, 2), 4);
    cluster.kill(2);
    cluster.converge();
    assert_eq!(cluster.status(2), Some(MemberStatus::Down));
    cluster.now = cluster.now.plus_us(cluster.config.forget_down_ms * 1_000);
    cluster.run(100);
    assert_eq!(cluster.status(2), None);
    // With fewer than three left the third stays known: voters must not shrink by a death.
    cluster.kill(3);
    cluster.converge();
    cluster.now = cluster.now.plus_us(cluster.config.forget_down_ms * 1_000);
    cluster.run(100);
    assert_eq!(cluster.status(3), Some(MemberStatus::Down));
}

#[test]
fn a_witness_holds_nothing() {
    let mut cluster = Cluster::new(settings(16, 2), 3);
    cluster.join(member(1));
    cluster.join(member(2));
    let mut witness = member(3);
    witness.weight = 0;
    cluster.join(witness);
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 2]));
    assert!(cluster.table.ever_three);
}

#[test]
fn a_resigned_controller_is_silent() {
    let mut cluster = Cluster::formed(settings(16, 2), 3);
    cluster.controller.resign();
    cluster.kill(2);
    cluster.run(3_000);
    assert_eq!(cluster.status(2), Some(MemberStatus::Up));
    assert_eq!(cluster.controller.next_wake(), None);
    // The next to lead has only the table and its own eyes.
    cluster.lead(3);
    cluster.converge();
    assert_eq!(cluster.holders(), ids([1, 3]));
}
