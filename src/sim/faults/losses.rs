//! Losses in a row: nodes die before copies are full again, two at once, and primaries while all that
//! stands in for them is a former copy. What is acknowledged comes back, or its partition is dead for
//! everybody to see; what still has an in-sync copy goes on.

use super::{Faults, NODES_MAX, NOTICED_US, has_majority_without, is_writable_without};
use crate::engine::ids::NodeId;
use crate::engine::table::MemberStatus;
use crate::sim::cluster::Cluster;

/// How often to look whether a primary stands alone.
const LURK_US: u64 = 100_000;

impl Faults {
    pub(super) fn act_with_losses(&mut self, cluster: &mut Cluster) -> u64 {
        let now_us = cluster.now().mono_us;
        let live = cluster.live();
        let left_us = self.end_us.saturating_sub(now_us);
        let exposed = exposed(cluster);
        if !exposed.is_empty() && cluster.random.per_million(150_000) {
            let doomed: Vec<NodeId> = cluster.random.pick(&exposed).into_iter().collect();
            if may_die(cluster, &doomed) {
                self.counts.ambushes += 1;
                self.kill(cluster, doomed);
            }
            return LURK_US;
        }
        if !exposed.is_empty() && cluster.random.per_million(900_000) {
            return LURK_US;
        }
        let by_majority = cluster.agreed().is_some_and(|table| table.ever_three);
        // Who leaves takes a vote along: with losses at the same time there may be too few.
        let leaving = live.iter().any(|&node| cluster.engine(node).is_leaving());
        if leaving {
            self.nuisance(cluster, &live);
            return cluster.random.between(300_000, 3_000_000);
        }
        let calm = now_us >= self.calm_from_us && now_us >= self.crashed_us + NOTICED_US;
        match cluster.random.below(100) {
            0..16 if by_majority => {
                let mut doomed: Vec<NodeId> = cluster.random.pick(&live).into_iter().collect();
                if cluster.random.per_million(300_000) {
                    doomed.extend(cluster.random.pick(&live).filter(|second| !doomed.contains(second)));
                }
                if may_die(cluster, &doomed) {
                    self.kill(cluster, doomed);
                }
            }
            16..40 if live.len() < NODES_MAX && left_us > 0 => {
                let node = self.start(cluster);
                self.counts.joins += 1;
                tracing::info!(at_us = now_us, %node, "fault: join");
            }
            40..44 if calm => self.leave(cluster, &live),
            // Long enough to be counted out.
            44..72 if by_majority => {
                let us = cluster.random.between(2_000_000, 15_000_000);
                self.pause(cluster, &live, us);
            }
            72..88 if by_majority && self.cuts_until_us == 0 => self.cut(cluster, &live, left_us),
            88..98 => self.nuisance(cluster, &live),
            _ => {}
        }
        cluster.random.between(300_000, 3_000_000)
    }
}

/// Primaries that stand alone, while a copy that was counted out might be gone back to.
fn exposed(cluster: &Cluster) -> Vec<NodeId> {
    let Some(table) = cluster.agreed() else { return Vec::new() };
    let alone = table.partitions.iter().filter(|assignment| {
        assignment.isr.len() == 1 && !assignment.former.is_empty() && !assignment.learners.is_empty()
    });
    alone.map(|assignment| assignment.primary).filter(|&node| cluster.lives(node)).collect()
}

/// Whether the cluster can go on at all without `doomed`, whatever it loses with them.
fn may_die(cluster: &Cluster, doomed: &[NodeId]) -> bool {
    let up = |node: &NodeId| {
        let table = cluster.agreed();
        let member = table.and_then(|table| table.members.get(node));
        member.is_some_and(|member| member.status == MemberStatus::Up)
    };
    let stay = cluster.live().into_iter().filter(|node| !doomed.contains(node) && up(node)).count();
    !doomed.is_empty()
        && stay >= 2
        && has_majority_without(cluster, doomed)
        && is_writable_without(cluster, doomed)
}
