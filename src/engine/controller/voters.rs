//! Who votes in the agreed log, and who may go on without it.

use crate::engine::ids::{Epoch, NodeId};
use crate::engine::table::{Member, MemberStatus, Survival, Table};
use std::collections::BTreeSet;

/// The voters the agreed log should have, given those it has (`current`) and who answers (`live`).
///
/// One voter below three members, three from three, five from five. Current voters that live are
/// kept, in the order of `current` (name the leader first); lost ones are replaced when somebody
/// can replace them. Deaths never shrink the set below three; graceful leaves may. A set of which no
/// majority answers is never chosen: whoever is away may be the very one that is needed. Never empty
/// if `current` isn't.
pub fn voters(table: &Table, current: &[NodeId], live: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let with = |status| table.members.values().filter(move |member| member.status == status);
    let up = with(MemberStatus::Up).count();
    let stayed = up + with(MemberStatus::Down).count();
    // Who left gracefully is no longer counted; who died is, as long as the table knows it.
    let target = match table.ever_three {
        true => quorum_size(up).max(quorum_size(stayed).min(3)),
        false => quorum_size(up),
    };

    let able = |node: NodeId| {
        live(node) && table.members.get(&node).is_some_and(|member| member.status == MemberStatus::Up)
    };
    let mut chosen: Vec<NodeId> = current.iter().copied().filter(|&node| able(node)).take(target).collect();

    let mut zones: BTreeSet<&str> =
        chosen.iter().filter_map(|node| zone_of(table.members.get(node)?)).collect();
    while chosen.len() < target {
        // A witness is there to vote; then failure domains that don't vote yet; then any.
        let next = table
            .members
            .values()
            .filter(|member| able(member.node) && !chosen.contains(&member.node))
            .min_by_key(|member| {
                let crowded = zone_of(member).is_some_and(|zone| zones.contains(zone));
                (crowded, member.weight > 0, member.node)
            });
        let Some(member) = next else { break };
        zones.extend(zone_of(member));
        chosen.push(member.node);
    }

    // Nobody can replace the others: they stay, dead as they are, so that a majority stays one.
    let dead_weight =
        |node: &NodeId| table.members.get(node).is_some_and(|member| member.status != MemberStatus::Leaving);
    for &node in current.iter().filter(|node| dead_weight(node)) {
        if chosen.len() >= target {
            break;
        }
        if !chosen.contains(&node) {
            chosen.push(node);
        }
    }
    if chosen.len().is_multiple_of(2) {
        // Two voters are worse than one: the loss of either stops both.
        chosen.pop();
    }
    let answering = chosen.iter().filter(|&&node| able(node)).count();
    if answering * 2 > chosen.len() { chosen } else { current.to_vec() }
}

fn quorum_size(members: usize) -> usize {
    match members {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

fn zone_of(member: &Member) -> Option<&str> {
    member.zone.as_deref()
}

/// Whether `me`, cut off from the voters, may start a new incarnation of the cluster on its own.
///
/// The small-cluster rule (DESIGN §4): two nodes cannot both survive any kill and exclude a split,
/// so as long as there were never three, the survivor goes on. `alive` is gossip's opinion or a
/// live link. Only one node may: of several survivors the one with the lowest id. And only one
/// whose copies are complete, for by going on it gives up what only the others hold; unless there
/// is but one copy of everything in any case.
pub fn may_take_over(table: &Table, me: NodeId, alive: impl Fn(NodeId) -> bool) -> bool {
    let able = |member: &Member| member.status != MemberStatus::Down && member.weight > 0;
    if !table.members.get(&me).is_some_and(able) {
        return false;
    }
    let others = || table.members.values().filter(|member| member.node != me);
    match table.settings.survival {
        Survival::Majority => false,
        Survival::Auto => {
            let mut live = others().filter(|member| member.status != MemberStatus::Down);
            let alone = match (live.next(), live.next()) {
                (Some(other), None) => !alive(other.node),
                _ => false,
            };
            let complete = table.settings.replicas < 2
                || table
                    .partitions
                    .iter()
                    .all(|assignment| assignment.epoch == Epoch(0) || assignment.isr.contains(&me));
            !table.ever_three && alone && complete
        }
        Survival::Takeover => !others().any(|member| member.node < me && able(member) && alive(member.node)),
    }
}
