use super::*;
use std::net::Ipv4Addr;

fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn member(id: u64) -> Member {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, id as u16));
    Member::up(node(id), format!("n{id}"), address)
}

const P: PartitionId = PartitionId(0);

/// Members 1 to `count`; partition 0 on 1 (primary) and 2.
fn table(count: u64) -> Table {
    let settings = ClusterSettings { partitions: 4, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let mut table = Table::new(Incarnation(1), settings);
    for id in 1..=count {
        assert!(one(&mut table, TableChange::PutMember(member(id))));
    }
    let backups = vec![node(2)];
    assert!(one(&mut table, TableChange::Assign { partition: P, primary: node(1), backups }));
    table
}

/// Applies one change as an entry of its own; whether it had an effect.
fn one(table: &mut Table, change: TableChange) -> bool {
    let before = table.clone();
    let applied = table.apply(&[change]);
    assert_eq!(applied.version, TableVersion(before.version.0 + 1));
    assert_eq!(applied.applied + applied.skipped, 1);
    assert_eq!(table.checks_after(&before), Ok(()));
    if applied.applied == 0 {
        let before = Table { version: table.version, ..before };
        assert_eq!(*table, before, "a skipped change had an effect");
    }
    applied.applied == 1
}

fn learner(id: u64) -> TableChange {
    TableChange::AddLearner { partition: P, epoch: Epoch(1), node: node(id) }
}

/// As reported by a primary that knows of the attachment.
fn complete(table: &Table, id: u64) -> TableChange {
    let since = table.partitions[0].attachment(node(id)).unwrap_or_default();
    TableChange::Complete { partition: P, epoch: Epoch(1), node: node(id), since }
}

fn remove(id: u64) -> TableChange {
    TableChange::RemoveReplica { partition: P, epoch: Epoch(1), node: node(id) }
}

fn down(id: u64) -> TableChange {
    TableChange::SetStatus(node(id), MemberStatus::Down)
}

#[test]
fn a_copy_attaches_then_completes_at_its_epoch_only() {
    let mut table = table(3);
    assert!(
        !{
            let change = complete(&table, 3);
            one(&mut table, change)
        },
        "not a learner"
    );
    assert!(one(&mut table, learner(3)));
    assert!(!one(&mut table, learner(3)), "twice");
    assert!(!one(&mut table, learner(2)), "in sync already");
    assert!(!one(&mut table, learner(9)), "a stranger");
    let since = table.partitions[0].since[&node(3)];
    let late = TableChange::Complete { partition: P, epoch: Epoch(2), node: node(3), since };
    assert!(!one(&mut table, late));
    let change = complete(&table, 3);
    assert!(one(&mut table, change));
    assert_eq!(table.partitions[0].isr, [node(1), node(2), node(3)]);
}

#[test]
fn what_completed_an_earlier_attachment_completes_no_later_one() {
    let mut table = table(3);
    assert!(one(&mut table, learner(3)));
    let stale = complete(&table, 3);
    assert!(one(&mut table, TableChange::RemoveLearner { partition: P, epoch: Epoch(1), node: node(3) }));
    assert!(!one(&mut table, stale.clone()), "given up");
    assert!(one(&mut table, learner(3)));
    assert!(!one(&mut table, stale), "attached anew, and empty");
    let change = complete(&table, 3);
    assert!(one(&mut table, change));
}

#[test]
fn a_dead_primary_vouches_for_nobody() {
    let mut table = table(3);
    assert!(one(&mut table, learner(3)));
    assert!(one(&mut table, down(1)));
    assert!(!{
        let change = complete(&table, 3);
        one(&mut table, change)
    });
}

#[test]
fn copies_go_only_while_enough_remain() {
    let mut table = table(3);
    assert!(!one(&mut table, remove(2)), "one of two wanted");
    assert!(one(&mut table, learner(3)));
    assert!(!one(&mut table, remove(2)), "a learner is no copy yet");
    assert!({
        let change = complete(&table, 3);
        one(&mut table, change)
    });
    assert!(!one(&mut table, remove(1)), "the primary");
    assert!(one(&mut table, remove(2)));
}

#[test]
fn the_dead_are_removed_while_somebody_lives() {
    let mut table = table(3);
    assert!(one(&mut table, down(2)));
    assert!(one(&mut table, remove(2)));
    assert!(one(&mut table, down(1)));
    assert!(table.is_dead(P));
    assert!(!one(&mut table, remove(1)));
    assert_eq!(table.partitions[0].isr, [node(1)]);
}

#[test]
fn a_leaver_is_not_counted_on() {
    let mut table = table(2);
    assert!(one(&mut table, TableChange::SetStatus(node(2), MemberStatus::Leaving)));
    assert!(!one(&mut table, TableChange::SetStatus(node(2), MemberStatus::Up)));
    assert_eq!(table.replicas_wanted(), 1);
    assert_eq!(table.copies_needed(), 1);
    assert!(one(&mut table, remove(2)));
    assert!(one(&mut table, TableChange::RemoveMember(node(2))));
    assert!(!one(&mut table, TableChange::PutMember(member(2))), "an id is never used again");
}

#[test]
fn who_is_named_is_not_forgotten() {
    let mut table = table(3);
    assert!(one(&mut table, down(2)));
    assert!(!one(&mut table, TableChange::RemoveMember(node(2))));
    assert!(one(&mut table, remove(2)));
    assert!(one(&mut table, TableChange::RemoveMember(node(2))));
}

#[test]
fn a_handover_goes_to_a_live_copy_and_ends_the_epoch() {
    let mut table = table(3);
    let to = |id, epoch| TableChange::Handover { partition: P, epoch: Epoch(epoch), to: node(id) };
    assert!(!one(&mut table, to(3, 1)), "no copy");
    assert!(!one(&mut table, to(1, 1)), "the primary itself");
    assert!(one(&mut table, to(2, 1)));
    assert!(!one(&mut table, to(1, 1)), "late");
    assert_eq!(table.partitions[0].epoch, Epoch(2));
    assert!(one(&mut table, TableChange::CancelHandover { partition: P, epoch: Epoch(2) }));
    assert_eq!((table.partitions[0].epoch, table.partitions[0].primary), (Epoch(3), node(2)));
    assert!(one(&mut table, down(1)));
    assert!(!one(&mut table, to(1, 3)), "dead");
}

#[test]
fn a_failover_stays_within_the_copies() {
    let mut table = table(4);
    let failover = |primary, isr: &[u64]| TableChange::Failover {
        partition: P,
        epoch: Epoch(1),
        primary: node(primary),
        isr: isr.iter().copied().map(NodeId).collect(),
        last: Sequence(7),
    };
    assert!(one(&mut table, learner(3)));
    assert!(one(&mut table, down(1)));
    assert!(!one(&mut table, failover(2, &[])));
    assert!(!one(&mut table, failover(2, &[3])), "not one of them");
    assert!(!one(&mut table, failover(2, &[2, 3])), "a learner");
    assert!(!one(&mut table, failover(2, &[2, 2])), "twice");
    assert!(!one(&mut table, failover(1, &[1, 2])), "dead");
    assert!(one(&mut table, failover(2, &[2])));
    assert_eq!(table.partitions[0].learners, [node(3)], "learners stay");
    assert!(!one(&mut table, failover(2, &[2])), "late");
}

#[test]
fn only_the_dead_are_given_up() {
    let mut table = table(4);
    let accept = |primary| TableChange::AcceptLoss {
        partition: P,
        epoch: Epoch(1),
        primary: node(primary),
        backups: vec![],
    };
    assert!(!one(&mut table, accept(3)));
    assert!(one(&mut table, down(1)));
    assert!(!one(&mut table, accept(3)));
    assert!(one(&mut table, down(2)));
    assert!(!one(&mut table, accept(2)), "dead itself");
    assert!(one(&mut table, accept(3)));
    let assignment = &table.partitions[0];
    assert_eq!((assignment.epoch, assignment.origin), (Epoch(2), Epoch(2)));
    assert_eq!(assignment.isr, [node(3)]);
}

#[test]
fn the_last_owner_may_leave_with_its_copies() {
    let mut table = table(2);
    for id in [1, 2] {
        assert!(!one(&mut table, TableChange::RemoveMember(node(id))));
        assert!(one(&mut table, TableChange::SetStatus(node(id), MemberStatus::Leaving)));
    }
    for id in [1, 2] {
        assert!(one(&mut table, TableChange::RemoveMember(node(id))));
    }
    assert!(table.partitions[0].isr.is_empty());
    assert!(table.is_dead(P));
}

#[test]
fn three_at_once_are_remembered() {
    let mut table = table(2);
    assert!(one(&mut table, down(2)));
    assert!(one(&mut table, TableChange::PutMember(member(3))));
    assert!(!table.ever_three);
    assert!(one(&mut table, TableChange::SetStatus(node(2), MemberStatus::Up)));
    assert!(table.ever_three);
    assert!(one(&mut table, down(2)));
    assert!(table.ever_three);
}

#[test]
fn maps_and_names_are_bounded() {
    let mut table = table(2);
    let define =
        |name: String| TableChange::DefineMap(MapDefinition { name, defaults: MapDefaults::default() });
    assert!(!one(&mut table, define(String::new())));
    assert!(!one(&mut table, define("x".repeat(NAME_BYTES_MAX + 1))));
    let entry: TableEntry = (0..=MAP_COUNT_MAX).map(|i| define(format!("map {i}"))).collect();
    let applied = table.apply(&entry);
    assert_eq!((applied.applied, applied.skipped), (MAP_COUNT_MAX, 1));
    assert_eq!(table.map_id("map 0"), Some(MapId(1)));
    let mut long = member(3);
    long.zone = Some("z".repeat(NAME_BYTES_MAX + 1));
    assert!(!one(&mut table, TableChange::PutMember(long)));
}

#[test]
fn no_change_ever_spoils_the_table() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % bound
    };
    for _ in 0..40 {
        let mut table = table(3);
        for _ in 0..400 {
            let partition = PartitionId(below(5) as u16);
            let now = table.assignment(partition).map_or(0, |assignment| assignment.epoch.0);
            let epoch = Epoch(if below(5) == 0 { below(4) } else { now });
            let (who, other) = (node(1 + below(6)), node(1 + below(6)));
            let status = [MemberStatus::Up, MemberStatus::Down, MemberStatus::Leaving];
            let change = match below(16) {
                0 | 1 => TableChange::PutMember(member(who.0)),
                2 | 3 => TableChange::SetStatus(who, status[below(3) as usize]),
                4 => TableChange::RemoveMember(who),
                5 => TableChange::Assign { partition, primary: who, backups: vec![other] },
                6 | 7 => TableChange::AddLearner { partition, epoch, node: who },
                8 => TableChange::RemoveLearner { partition, epoch, node: who },
                9 => {
                    let known = table.assignment(partition).and_then(|known| known.attachment(who));
                    TableChange::Complete { partition, epoch, node: who, since: known.unwrap_or_default() }
                }
                10 => TableChange::RemoveReplica { partition, epoch, node: who },
                11 => TableChange::RemoveLagging { partition, epoch, node: who, sound: below(2) == 0 },
                12 => {
                    let isr = vec![who, other];
                    TableChange::Failover { partition, epoch, primary: who, isr, last: Sequence(u64::MAX) }
                }
                13 => TableChange::Handover { partition, epoch, to: who },
                14 => TableChange::Recover { partition, epoch, primary: who, accepted: below(2) == 0 },
                _ => {
                    let backups = vec![other];
                    TableChange::AcceptLoss { partition, epoch, primary: who, backups }
                }
            };
            one(&mut table, change);
            assert_eq!(table.checks(), Ok(()));
        }
    }
}

/// The assignment of a partition, to be spoilt.
fn entry(table: &mut Table, index: usize) -> &mut Assignment {
    Arc::make_mut(&mut table.partitions[index])
}

#[test]
fn the_checks_see_what_is_wrong() {
    let good = table(3);
    let spoil = |change: fn(&mut Table)| {
        let mut table = good.clone();
        change(&mut table);
        table
    };
    assert!(spoil(|t| entry(t, 0).isr.clear()).checks().is_err());
    assert!(spoil(|t| entry(t, 0).isr.push(NodeId(9))).checks().is_err());
    assert!(spoil(|t| entry(t, 0).learners.push(NodeId(2))).checks().is_err());
    assert!(spoil(|t| entry(t, 0).origin = Epoch(2)).checks().is_err());
    assert!(spoil(|t| entry(t, 1).isr.push(NodeId(1))).checks().is_err());
    assert!(spoil(|t| t.retired.push(NodeId(1))).checks().is_err());
    assert!(spoil(|t| t.partitions.truncate(3)).checks().is_err());
    assert!(spoil(|t| entry(t, 0).primary = NodeId(2)).checks_after(&good).is_err());
    assert!(spoil(|t| entry(t, 0).epoch = Epoch(0)).checks_after(&good).is_err());
    assert!(spoil(|t| t.version = TableVersion(0)).checks_after(&good).is_err());
}

/// Partition 0 on 1 and 2, of which 2 is counted out while 3 learns.
fn exposed(last: Sequence, by_failover: bool) -> Table {
    let mut table = table(3);
    let (from, left) = if by_failover { (1, 2) } else { (2, 1) };
    assert!(one(&mut table, down(from)));
    let leave = if by_failover {
        TableChange::Failover {
            partition: P,
            epoch: Epoch(1),
            primary: node(left),
            isr: vec![node(left)],
            last,
        }
    } else {
        TableChange::RemoveReplica { partition: P, epoch: Epoch(1), node: node(from) }
    };
    let epoch = Epoch(if by_failover { 2 } else { 1 });
    let learn = TableChange::AddLearner { partition: P, epoch, node: node(3) };
    assert_eq!(table.apply(&[leave, learn]).applied, 2);
    table
}

#[test]
fn who_is_counted_out_is_remembered_while_only_learners_take_writes() {
    let table = exposed(Sequence(9), false);
    let former = &table.partitions[0].former;
    assert_eq!(former[..], [Former { node: node(2), shared_until: Sequence(u64::MAX) }]);
    let table = exposed(Sequence(9), true);
    assert_eq!(table.partitions[0].former[..], [Former { node: node(1), shared_until: Sequence(9) }]);
    // Also who lives and is only late; not who has something else than its primary.
    for sound in [true, false] {
        let mut table = self::table(3);
        let swap = [
            TableChange::RemoveLagging { partition: P, epoch: Epoch(1), node: node(2), sound },
            TableChange::AddLearner { partition: P, epoch: Epoch(1), node: node(3) },
        ];
        assert_eq!(table.apply(&swap).applied, 2);
        let former: Vec<NodeId> = table.partitions[0].former.iter().map(|former| former.node).collect();
        assert_eq!(former, if sound { vec![node(2)] } else { vec![] });
    }
}

#[test]
fn a_former_copy_is_forgotten_once_writes_may_be_missing_from_it() {
    // Nobody vouches for what was written or read.
    let mut table = exposed(Sequence(9), false);
    assert!(one(&mut table, TableChange::RemoveLearner { partition: P, epoch: Epoch(1), node: node(3) }));
    assert!(table.partitions[0].former.is_empty());
    // Also when another one follows at once: what the first took is gone with it.
    let mut table = exposed(Sequence(9), false);
    let swap = [
        TableChange::RemoveLearner { partition: P, epoch: Epoch(1), node: node(3) },
        TableChange::AddLearner { partition: P, epoch: Epoch(1), node: node(3) },
    ];
    assert_eq!(table.apply(&swap).applied, 2);
    assert!(table.partitions[0].former.is_empty());
    // Two complete copies acknowledge without anybody else.
    let mut table = exposed(Sequence(9), false);
    let change = complete(&table, 3);
    assert!(one(&mut table, change));
    assert!(table.partitions[0].former.is_empty());
    // Also when one of them is removed again in the same entry: it took writes before (seed 1803).
    let mut table = exposed(Sequence(9), false);
    let swap = [
        complete(&table, 3),
        TableChange::RemoveLagging { partition: P, epoch: Epoch(1), node: node(3), sound: false },
        TableChange::AddLearner { partition: P, epoch: Epoch(1), node: node(3) },
    ];
    assert_eq!(table.apply(&swap).applied, 3);
    assert!(table.partitions[0].former.is_empty());
    // The one that left no learner behind in the same entry.
    let mut alone = self::table(3);
    assert!(one(&mut alone, down(2)));
    assert!(one(&mut alone, TableChange::RemoveReplica { partition: P, epoch: Epoch(1), node: node(2) }));
    assert!(alone.partitions[0].former.is_empty());
}

#[test]
fn recovery_is_for_dead_partitions_and_those_that_are_counted_on() {
    let recover = |epoch, who, accepted| TableChange::Recover {
        partition: P,
        epoch: Epoch(epoch),
        primary: node(who),
        accepted,
    };
    let mut table = exposed(Sequence(9), false);
    assert!(one(&mut table, TableChange::SetStatus(node(2), MemberStatus::Up)));
    assert!(!one(&mut table, recover(1, 2, false)), "its primary lives");
    assert!(one(&mut table, down(1)));
    assert!(table.is_dead(P));
    assert!(!one(&mut table, recover(2, 2, false)), "another epoch");
    assert!(!one(&mut table, recover(1, 1, false)), "it doesn't live");
    assert!(one(&mut table, recover(1, 2, false)));
    let assignment = &table.partitions[0];
    assert_eq!((assignment.epoch, assignment.primary), (Epoch(2), node(2)));
    assert_eq!((assignment.isr.as_slice(), assignment.learners.len()), (&[node(2)][..], 0));
    assert_eq!(assignment.origin, Epoch(1), "what it holds is not void");

    let mut table = exposed(Sequence(9), false);
    assert!(one(&mut table, TableChange::RemoveLearner { partition: P, epoch: Epoch(1), node: node(3) }));
    assert!(one(&mut table, TableChange::SetStatus(node(2), MemberStatus::Up)));
    assert!(one(&mut table, down(1)));
    assert!(!one(&mut table, recover(1, 2, false)), "writes may be missing");
    assert!(one(&mut table, recover(1, 2, true)), "an operator may");
}

#[test]
fn tables_that_nothing_leads_to_are_none() {
    let sound = table(3);
    assert_eq!(sound.checks(), Ok(()));
    let refused = |change: fn(&mut Table)| {
        let mut table = sound.clone();
        change(&mut table);
        assert!(table.checks().is_err(), "{table:?}");
    };
    // Found by fuzzing: a table of no partitions passed, and clients could not read it.
    refused(|table| {
        table.settings.partitions = 0;
        table.partitions.clear();
    });
    refused(|table| {
        table.settings.partitions = 3;
        table.partitions.truncate(3);
    });
    refused(|table| table.settings.replicas = 0);
    refused(|table| table.version = TableVersion(u64::MAX));
    refused(|table| entry(table, 0).epoch = Epoch(u64::MAX));
    refused(|table| {
        let member = table.members.get_mut(&node(2)).expect("three members");
        member.name = "x".repeat(NAME_BYTES_MAX + 1);
    });
}
