//! Voters, and the small-cluster rule.

use super::cluster::{member, settings};
use crate::engine::controller::{may_take_over, voters};
use crate::engine::ids::{Incarnation, NodeId, PartitionId};
use crate::engine::table::{MemberStatus, Survival, Table, TableChange};

fn table(count: u64) -> Table {
    let mut table = Table::new(Incarnation(1), settings(4, 2));
    for id in 1..=count {
        table.apply(&[TableChange::PutMember(member(id))]);
    }
    table
}

fn set(table: &mut Table, id: u64, status: MemberStatus) {
    table.apply(&[TableChange::SetStatus(NodeId(id), status)]);
}

fn chosen(table: &Table, current: &[u64], dead: &[u64]) -> Vec<u64> {
    let current: Vec<NodeId> = current.iter().copied().map(NodeId).collect();
    voters(table, &current, |node| !dead.contains(&node.0)).iter().map(|node| node.0).collect()
}

#[test]
fn voters_grow_with_the_members() {
    assert_eq!(chosen(&table(1), &[1], &[]), [1]);
    assert_eq!(chosen(&table(2), &[1], &[]), [1]);
    assert_eq!(chosen(&table(3), &[1], &[]), [1, 2, 3]);
    assert_eq!(chosen(&table(4), &[3, 1, 2], &[]), [3, 1, 2]);
    assert_eq!(chosen(&table(7), &[3, 1, 2], &[]), [3, 1, 2, 4, 5]);
}

#[test]
fn dead_voters_are_replaced_or_kept_but_never_just_dropped() {
    let mut table = table(4);
    set(&mut table, 2, MemberStatus::Down);
    assert_eq!(chosen(&table, &[1, 2, 3], &[2]), [1, 3, 4]);
    // Nobody can replace the second death: two of three go on as a majority.
    set(&mut table, 3, MemberStatus::Down);
    assert_eq!(chosen(&table, &[1, 3, 4], &[2, 3]), [1, 4, 3]);
    assert_eq!(chosen(&table, &[4, 3, 1], &[2, 3]), [4, 1, 3]);
}

#[test]
fn five_voters_shrink_to_three_live_ones() {
    let mut table = table(5);
    set(&mut table, 4, MemberStatus::Down);
    set(&mut table, 5, MemberStatus::Down);
    assert_eq!(chosen(&table, &[1, 2, 3, 4, 5], &[4, 5]), [1, 2, 3]);
}

/// One voter had noticed two deaths that the table did not show yet, and missed the others for a moment:
/// it chose a set in which the dead were most, and nothing was ever decided again (seed 700158).
#[test]
fn voters_of_which_most_are_dead_are_never_chosen() {
    let mut table = table(5);
    set(&mut table, 5, MemberStatus::Down);
    assert_eq!(chosen(&table, &[1, 2, 3, 4, 5], &[2, 3, 4, 5]), [1, 2, 3, 4, 5]);
    assert_eq!(chosen(&table, &[1, 2, 3, 4, 5], &[2, 3]), [1, 4, 2]);
}

#[test]
fn graceful_leaves_shrink_the_voters() {
    let mut table = table(3);
    set(&mut table, 2, MemberStatus::Leaving);
    assert_eq!(chosen(&table, &[1, 2, 3], &[]), [1]);
    assert_eq!(chosen(&table, &[2, 3, 1], &[]), [3]);
    // The last one to leave still votes.
    set(&mut table, 1, MemberStatus::Leaving);
    set(&mut table, 3, MemberStatus::Leaving);
    assert_eq!(chosen(&table, &[3], &[]), [3]);
}

#[test]
fn witnesses_and_other_zones_vote_first() {
    let mut table = Table::new(Incarnation(1), settings(4, 2));
    for (id, zone, weight) in [(1, "a", 100), (2, "a", 100), (3, "b", 100), (4, "c", 0)] {
        let mut member = member(id);
        member.zone = Some(zone.into());
        member.weight = weight;
        table.apply(&[TableChange::PutMember(member)]);
    }
    assert_eq!(chosen(&table, &[1], &[]), [1, 4, 3]);
}

fn assigned(count: u64, survival: Survival) -> Table {
    let mut table = table(count);
    table.settings.survival = survival;
    for partition in table.partition_ids() {
        let backups = vec![NodeId(2)];
        table.apply(&[TableChange::Assign { partition, primary: NodeId(1), backups }]);
    }
    table
}

#[test]
fn of_two_either_survivor_goes_on() {
    let table = assigned(2, Survival::Auto);
    for me in [1, 2] {
        assert!(may_take_over(&table, NodeId(me), |_| false));
        assert!(!may_take_over(&table, NodeId(me), |_| true));
    }
    assert!(!may_take_over(&table, NodeId(9), |_| false), "a stranger");
    let table = assigned(2, Survival::Majority);
    assert!(!may_take_over(&table, NodeId(1), |_| false));
}

#[test]
fn once_there_were_three_only_a_majority_goes_on() {
    let mut table = assigned(3, Survival::Auto);
    assert!(!may_take_over(&table, NodeId(1), |_| false));
    set(&mut table, 3, MemberStatus::Down);
    assert!(!may_take_over(&table, NodeId(1), |_| false));
}

#[test]
fn who_lacks_copies_or_was_buried_does_not_take_over() {
    let mut table = assigned(2, Survival::Auto);
    let epoch = table.partitions[0].epoch;
    set(&mut table, 2, MemberStatus::Down);
    assert!(!may_take_over(&table, NodeId(2), |_| false));
    table.apply(&[TableChange::RemoveReplica { partition: PartitionId(0), epoch, node: NodeId(2) }]);
    set(&mut table, 2, MemberStatus::Up);
    assert!(!may_take_over(&table, NodeId(2), |_| false));
    assert!(may_take_over(&table, NodeId(1), |_| false));
}

#[test]
fn availability_first_lets_the_lowest_survivor_go_on() {
    let table = assigned(4, Survival::Takeover);
    let alive = |node: NodeId| node.0 >= 2;
    assert!(may_take_over(&table, NodeId(2), alive));
    assert!(!may_take_over(&table, NodeId(3), alive));
}

/// Who came back before it was buried found itself in sync, though it had started over: it held nothing, and
/// was asked (seed 700260).
#[test]
fn a_takeover_counts_on_nobody_else() {
    let before = assigned(2, Survival::Auto);
    let after = before.carried_on(Incarnation(2), NodeId(2));
    assert!(after.supersedes(&before) && after.checks().is_ok());
    assert!(!after.is_live(NodeId(1)));
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        assert_eq!((new.primary, &new.isr[..]), (NodeId(2), &[NodeId(2)][..]));
        assert_eq!((new.epoch, new.origin), (old.epoch.next(), old.origin));
    }
}

#[test]
fn a_new_incarnation_keeps_the_version_growing() {
    let mut table = assigned(2, Survival::Auto);
    let before = table.clone();
    assert_eq!(table.apply(&[TableChange::NewIncarnation(Incarnation(2))]).applied, 1);
    assert!(table.supersedes(&before));
    assert!(table.version > before.version);
    assert_eq!(table.apply(&[TableChange::NewIncarnation(Incarnation(2))]).skipped, 1);
}
