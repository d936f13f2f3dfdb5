//! A cluster that never has three members: splits make two of it, the survivor of a kill goes on alone,
//! and when the two meet again one starts over.

use super::{Faults, may_lose};
use crate::engine::ids::NodeId;
use crate::engine::table::MemberStatus;
use crate::sim::cluster::Cluster;

impl Faults {
    pub(super) fn act_on_pair(&mut self, cluster: &mut Cluster) -> u64 {
        let now_us = cluster.now().mono_us;
        let live = cluster.live();
        let left_us = self.end_us.saturating_sub(now_us);
        let calm = now_us >= self.calm_from_us && is_one(cluster, &live);
        // Where a split was not the end of somebody for his cluster, a third would be one too many.
        let up = |table: &crate::engine::table::Table| {
            table.members.values().filter(|member| member.status != MemberStatus::Down).count()
        };
        let room = cluster.agreed().is_some_and(|table| up(table) < 2) && live.len() < 3;
        match cluster.random.below(100) {
            0..30 if live.len() > 1 && self.cuts_until_us == 0 => self.part(cluster, &live, left_us),
            30..45 if live.len() > 1 => {
                let us = cluster.random.between(500_000, 10_000_000);
                self.pause(cluster, &live, us);
            }
            45..60 if calm => {
                let doomed: Vec<NodeId> = cluster.random.pick(&live).into_iter().collect();
                if may_lose(cluster, &doomed) {
                    self.kill(cluster, doomed);
                }
            }
            60..66 if calm && live.len() == 2 && may_leave(cluster, &live) => {
                if let Some(node) = cluster.random.pick(&live) {
                    tracing::info!(at_us = now_us, %node, "fault: leave");
                    cluster.leave(node);
                    self.counts.leaves += 1;
                }
            }
            66..92 if room && left_us > 0 && self.restarts.is_empty() => {
                let node = self.start(cluster);
                self.counts.joins += 1;
                tracing::info!(at_us = now_us, %node, "fault: join");
            }
            92..98 => self.nuisance(cluster, &live),
            _ => {}
        }
        cluster.random.between(300_000, 4_000_000)
    }

    /// Cuts one off from the others, in one direction or both.
    fn part(&mut self, cluster: &mut Cluster, live: &[NodeId], left_us: u64) {
        let Some(node) = cluster.random.pick(live) else { return };
        let kind = cluster.random.below(4);
        for &other in live.iter().filter(|&&other| other != node) {
            if kind != 0 {
                cluster.network.cut(node, other);
            }
            if kind != 1 {
                cluster.network.cut(other, node);
            }
        }
        match kind {
            0 | 1 => self.counts.one_way_cuts += 1,
            _ => self.counts.cuts += 1,
        }
        let us = cluster.random.between(500_000, 15_000_000).min(left_us);
        self.cuts_until_us = cluster.now().mono_us + us;
        self.calm_from_us = self.calm_from_us.max(self.cuts_until_us + super::NOTICED_US);
        tracing::info!(at_us = cluster.now().mono_us, %node, kind, us, "fault: cut");
    }
}

/// Whether one may leave and the other go on: where the majority counts, so do the dead, and neither of two
/// goes on alone (`Table::copies_needed`).
fn may_leave(cluster: &Cluster, live: &[NodeId]) -> bool {
    let Some(table) = cluster.agreed() else { return false };
    !table.goes_by_majority() || table.members.keys().all(|node| live.contains(node))
}

/// Whether all that live are of one cluster and none of them is on its way out.
fn is_one(cluster: &Cluster, live: &[NodeId]) -> bool {
    let Some(table) = cluster.agreed() else { return false };
    live.iter().all(|&node| {
        cluster.runs(node)
            && !cluster.engine(node).is_leaving()
            && cluster.engine(node).table().incarnation == table.incarnation
            && table.members.get(&node).is_some_and(|member| member.status == MemberStatus::Up)
    })
}
