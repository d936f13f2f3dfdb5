//! What goes wrong, and when: chosen at random, within what the cluster promises to survive.

use super::cluster::Cluster;
use crate::engine::ids::NodeId;
use crate::engine::table::{MemberStatus, Table};

/// The most nodes that live at once.
const NODES_MAX: usize = 7;

/// By then all have noticed a fault or its end.
const NOTICED_US: u64 = 8_000_000;

/// Chooses and commits faults.
#[derive(Debug)]
pub struct Faults {
    /// No fault lasts longer than this.
    end_us: u64,
    cuts_until_us: u64,
    /// Since when nobody was paused or cut off, or will be.
    calm_from_us: u64,
    /// When the latest crash was.
    crashed_us: u64,
    /// How many of each kind there were: crashes, joins, leaves, pauses, cuts.
    pub counts: [u64; 5],
}

impl Faults {
    /// Faults until `end_us`.
    pub fn new(end_us: u64) -> Faults {
        Faults { end_us, cuts_until_us: 0, calm_from_us: 0, crashed_us: 0, counts: [0; 5] }
    }

    /// When they end.
    pub fn end_us(&self) -> u64 {
        self.end_us
    }

    /// Does something to the cluster, or heals what was cut; returns when to be called again.
    pub fn act(&mut self, cluster: &mut Cluster) -> u64 {
        let now_us = cluster.now().mono_us;
        if self.cuts_until_us != 0 && now_us >= self.cuts_until_us {
            tracing::info!(at_us = now_us, "fault: healed");
            cluster.network.heal();
            self.cuts_until_us = 0;
        }
        let live = cluster.live();
        let left_us = self.end_us.saturating_sub(now_us);
        // Below three, the survivor goes on alone: a pause or a cut would make two clusters.
        let by_majority = cluster.agreed().is_some_and(|table| table.ever_three);
        match cluster.random.below(10) {
            0..3 if now_us >= self.calm_from_us => self.crash(cluster, &live),
            3..5 if live.len() < NODES_MAX && left_us > 0 => {
                let node = cluster.start();
                self.counts[1] += 1;
                tracing::info!(at_us = now_us, %node, "fault: join");
            }
            5 => self.leave(cluster, &live),
            // Who is paused or cut off may be taken for dead: with a crash, that would be two losses.
            6..10 if self.crashed_us != 0 && now_us < self.crashed_us + NOTICED_US => {}
            6..8 if by_majority => {
                if let Some(node) = cluster.random.pick(&live) {
                    let us = cluster.random.between(500_000, 10_000_000).min(left_us);
                    cluster.pause(node, us);
                    self.calm_from_us = self.calm_from_us.max(now_us + us + NOTICED_US);
                    self.counts[3] += 1;
                    tracing::info!(at_us = now_us, %node, us, "fault: pause");
                }
            }
            8..10 if by_majority && self.cuts_until_us == 0 => self.cut(cluster, &live, left_us),
            _ => {}
        }
        let next_us = cluster.random.between(300_000, 5_000_000);
        match self.cuts_until_us {
            0 => next_us,
            until_us => next_us.min(until_us.saturating_sub(now_us)),
        }
    }

    /// Everything is healed; what is paused goes on by itself.
    pub fn stop(&mut self, cluster: &mut Cluster) {
        cluster.network.heal();
        self.cuts_until_us = 0;
    }

    fn crash(&mut self, cluster: &mut Cluster, live: &[NodeId]) {
        let Some(node) = cluster.random.pick(live).filter(|&node| may_lose(cluster, node)) else { return };
        tracing::info!(at_us = cluster.now().mono_us, %node, "fault: crash");
        cluster.crash(node);
        self.crashed_us = cluster.now().mono_us;
        self.counts[0] += 1;
    }

    fn leave(&mut self, cluster: &mut Cluster, live: &[NodeId]) {
        let Some(node) = cluster.random.pick(live).filter(|&node| live.len() > 2 && cluster.runs(node))
        else {
            return;
        };
        let Some(table) = cluster.agreed() else { return };
        let standing = |status| live.iter().filter(|node| status_of(table, **node) == Some(status)).count();
        if standing(MemberStatus::Leaving) > 0 || standing(MemberStatus::Up) < 3 {
            return;
        }
        tracing::info!(at_us = cluster.now().mono_us, %node, "fault: leave");
        cluster.leave(node);
        self.counts[2] += 1;
    }

    fn cut(&mut self, cluster: &mut Cluster, live: &[NodeId], left_us: u64) {
        let Some(node) = cluster.random.pick(live) else { return };
        let others: Vec<NodeId> = live.iter().copied().filter(|&other| other != node).collect();
        let kind = cluster.random.below(4);
        match kind {
            // Deaf, mute, or both, towards one; or cut off from all.
            0 | 1 => {
                let Some(other) = cluster.random.pick(&others) else { return };
                cluster.network.cut(node, other);
                if kind == 1 {
                    cluster.network.cut(other, node);
                }
            }
            2 => {
                for &other in &others {
                    cluster.network.cut(node, other);
                    cluster.network.cut(other, node);
                }
            }
            // A minority apart.
            _ => {
                let minority = &live[..(live.len() - 1) / 2];
                for &a in minority {
                    for b in live.iter().copied().filter(|b| !minority.contains(b)) {
                        cluster.network.cut(a, b);
                        cluster.network.cut(b, a);
                    }
                }
            }
        }
        let us = cluster.random.between(500_000, 15_000_000).min(left_us);
        self.cuts_until_us = cluster.now().mono_us + us;
        self.calm_from_us = self.calm_from_us.max(self.cuts_until_us + NOTICED_US);
        self.counts[4] += 1;
        tracing::info!(at_us = cluster.now().mono_us, %node, kind, us, "fault: cut");
    }
}

fn status_of(table: &Table, node: NodeId) -> Option<MemberStatus> {
    table.members.get(&node).map(|member| member.status)
}

/// Whether the cluster promises to survive the loss of `node` now: everything has its full copies,
/// one of them elsewhere, and the voters keep a majority (or nobody ever needed one).
fn may_lose(cluster: &Cluster, node: NodeId) -> bool {
    let Some(log) = cluster.latest_log() else { return false };
    let table = &log.table;
    let live = cluster.live();
    let wanted = usize::from(table.settings.replicas).min(live.len());
    let copied = table.partitions.iter().all(|assignment| {
        let complete = assignment.isr.iter().filter(|&&other| cluster.lives(other)).count();
        assignment.epoch.0 > 0
            && complete >= wanted
            && assignment.isr.iter().any(|&other| other != node && cluster.lives(other))
    });
    let voters = log.voters.iter().filter(|&&voter| voter != node && cluster.lives(voter)).count();
    let majority = voters * 2 > log.voters.len();
    // A survivor of two goes on once it has the table that calls its copies complete.
    let other = live.iter().find(|&&other| other != node);
    let may_take_over = !table.ever_three
        && live.len() == 2
        && other.is_some_and(|&other| {
            cluster.runs(other) && cluster.engine(other).has_table(table.incarnation, table.version)
        });
    live.len() > 1 && copied && (majority || may_take_over)
}
