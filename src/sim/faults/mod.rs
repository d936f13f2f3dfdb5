//! What goes wrong, and when: chosen at random, within what the cluster promises to survive; beyond it,
//! where a run is about losses in a row ([`losses`]) or splits of a pair ([`pair`]).

mod losses;
mod pair;

use super::cluster::{Cluster, Seat};
use super::counts::counts;
use super::terms::{Clocks, Course, JUMP_MS_MAX, Terms};
use crate::engine::ids::NodeId;
use crate::engine::table::{MemberStatus, Table};

/// The most nodes that live at once.
const NODES_MAX: usize = 7;

/// By then all have noticed a fault or its end.
const NOTICED_US: u64 = 8_000_000;

counts! {
    /// How many faults of each kind there were.
    pub struct FaultCounts {
        /// Processes killed.
        pub crashes: u64,
        /// Times that two were killed at once.
        pub double_crashes: u64,
        /// Primaries killed while all that stood in for them was a former copy.
        pub ambushes: u64,
        /// Processes started anew on the machine of a killed one.
        pub restarts: u64,
        /// Nodes that joined.
        pub joins: u64,
        /// Nodes that left in good order.
        pub leaves: u64,
        /// Processes stopped for a while.
        pub pauses: u64,
        /// Ways cut in both directions.
        pub cuts: u64,
        /// Ways cut in one direction: somebody was deaf or mute.
        pub one_way_cuts: u64,
        /// Cuts after which only one node reached both halves.
        pub bridges: u64,
        /// Nodes that everything took long to and from.
        pub slow_nodes: u64,
        /// Wall clocks stepped.
        pub clock_steps: u64,
        /// Times that nothing could be agreed on.
        pub log_outages: u64,
        /// Leaders of the agreed log that lost their office.
        pub depositions: u64,
    }
}

/// Chooses and commits faults.
#[derive(Debug)]
pub struct Faults {
    terms: Terms,
    /// No fault lasts longer than this.
    end_us: u64,
    cuts_until_us: u64,
    /// Since when nobody was paused or cut off, or will be.
    calm_from_us: u64,
    /// When the latest crash was.
    crashed_us: u64,
    /// Machines used so far.
    machines: u16,
    seats: Vec<(NodeId, Seat)>,
    /// Machines whose process was killed and is started again then.
    restarts: Vec<(u64, Seat)>,
    /// What there was.
    pub counts: FaultCounts,
}

impl Faults {
    /// Faults until `end_us`.
    pub fn new(terms: Terms, end_us: u64) -> Faults {
        Faults {
            terms,
            end_us,
            cuts_until_us: 0,
            calm_from_us: 0,
            crashed_us: 0,
            machines: 0,
            seats: Vec::new(),
            restarts: Vec::new(),
            counts: FaultCounts::default(),
        }
    }

    /// When they end.
    pub fn end_us(&self) -> u64 {
        self.end_us
    }

    /// Starts a node on a machine of its own.
    pub fn start(&mut self, cluster: &mut Cluster) -> NodeId {
        let seat = self.terms.seat(&mut cluster.random, self.machines);
        self.machines += 1;
        self.start_on(cluster, seat)
    }

    fn start_on(&mut self, cluster: &mut Cluster, seat: Seat) -> NodeId {
        let node = cluster.start_on(seat);
        self.seats.push((node, seat));
        node
    }

    /// Does something to the cluster, or heals what was cut; returns when to be called again.
    pub fn act(&mut self, cluster: &mut Cluster) -> u64 {
        let now_us = cluster.now().mono_us;
        if self.cuts_until_us != 0 && now_us >= self.cuts_until_us {
            tracing::info!(at_us = now_us, "fault: healed");
            cluster.network.heal();
            self.cuts_until_us = 0;
        }
        self.restart(cluster);
        let next_us = match self.terms.course {
            Course::Survivable => self.act_survivably(cluster),
            Course::Losses => self.act_with_losses(cluster),
            Course::Pair => self.act_on_pair(cluster),
        };
        let due = std::iter::once(self.cuts_until_us).filter(|&until_us| until_us != 0);
        let due = due.chain(self.restarts.iter().map(|&(at_us, _)| at_us));
        due.fold(next_us, |next_us, at_us| next_us.min(at_us.saturating_sub(now_us)))
    }

    /// Nothing that could cost an acknowledged write, as far as the cluster's promises go.
    fn act_survivably(&mut self, cluster: &mut Cluster) -> u64 {
        let now_us = cluster.now().mono_us;
        let live = cluster.live();
        let left_us = self.end_us.saturating_sub(now_us);
        // Below three, the survivor goes on alone: a pause or a cut would make two clusters.
        let by_majority = cluster.agreed().is_some_and(|table| table.ever_three);
        // Who is paused or cut off may be taken for dead: with a crash, that would be two losses.
        let crash_noticed = self.crashed_us == 0 || now_us >= self.crashed_us + NOTICED_US;
        // Who leaves and finds itself alone goes at once, whatever it holds.
        let leaving = live.iter().any(|&node| cluster.engine(node).is_leaving());
        match cluster.random.below(100) {
            // What was decided before a crash and is slow to be agreed on rests on who is dead by then.
            0..22 if now_us >= self.calm_from_us && (crash_noticed || self.terms.log.slow_us_max == 0) => {
                self.crash(cluster, &live);
            }
            22..36 if live.len() < NODES_MAX && left_us > 0 => {
                let node = self.start(cluster);
                self.counts.joins += 1;
                tracing::info!(at_us = now_us, %node, "fault: join");
            }
            36..46 if now_us >= self.calm_from_us && crash_noticed && !leaving => {
                self.leave(cluster, &live);
            }
            46..64 if by_majority && crash_noticed && !leaving => {
                let us = cluster.random.between(500_000, 10_000_000);
                self.pause(cluster, &live, us);
            }
            64..86 if by_majority && crash_noticed && !leaving && self.cuts_until_us == 0 => {
                self.cut(cluster, &live, left_us);
            }
            86..98 => self.nuisance(cluster, &live),
            _ => {}
        }
        cluster.random.between(300_000, 4_000_000)
    }

    /// What no copy is lost by: steps of a clock, trouble with the agreed log.
    fn nuisance(&mut self, cluster: &mut Cluster, live: &[NodeId]) {
        let now_us = cluster.now().mono_us;
        match cluster.random.below(12) {
            0..4 if self.terms.clocks == Clocks::Jumping => {
                if let Some(node) = cluster.random.pick(live) {
                    let ahead_ms = cluster.random.below(2 * JUMP_MS_MAX + 1) as i64 - JUMP_MS_MAX as i64;
                    cluster.step_wall_clock(node, ahead_ms);
                    self.counts.clock_steps += 1;
                    tracing::info!(at_us = now_us, %node, ahead_ms, "fault: clock step");
                }
            }
            4..8 => {
                let left_us = self.end_us.saturating_sub(now_us);
                let us = cluster.random.between(100_000, 5_000_000).min(left_us);
                cluster.log_config.unavailable_until_us = now_us + us;
                self.counts.log_outages += 1;
                tracing::info!(at_us = now_us, us, "fault: nothing is agreed on");
            }
            8..12 => {
                cluster.depose_leader();
                self.counts.depositions += 1;
                tracing::info!(at_us = now_us, "fault: leader deposed");
            }
            _ => {}
        }
    }

    /// Pauses one of `live`.
    fn pause(&mut self, cluster: &mut Cluster, live: &[NodeId], us: u64) {
        let now_us = cluster.now().mono_us;
        if let Some(node) = cluster.random.pick(live) {
            let us = us.min(self.end_us.saturating_sub(now_us));
            cluster.pause(node, us);
            self.calm_from_us = self.calm_from_us.max(now_us + us + NOTICED_US);
            self.counts.pauses += 1;
            tracing::info!(at_us = now_us, %node, us, "fault: pause");
        }
    }

    /// Everything is healed; what is paused goes on by itself.
    pub fn stop(&mut self, cluster: &mut Cluster) {
        cluster.network.heal();
        cluster.log_config = Default::default();
        self.cuts_until_us = 0;
        self.restarts.iter_mut().for_each(|(at_us, _)| *at_us = 0);
        self.restart(cluster);
    }

    fn restart(&mut self, cluster: &mut Cluster) {
        let now_us = cluster.now().mono_us;
        let (due, later) = self.restarts.iter().copied().partition(|&(at_us, _)| at_us <= now_us);
        self.restarts = later;
        let due: Vec<(u64, Seat)> = due;
        for (_, seat) in due {
            if cluster.live().len() < NODES_MAX {
                let node = self.start_on(cluster, seat);
                self.counts.restarts += 1;
                tracing::info!(at_us = now_us, %node, machine = seat.machine, "fault: restart");
            }
        }
    }

    fn crash(&mut self, cluster: &mut Cluster, live: &[NodeId]) {
        let mut doomed: Vec<NodeId> = cluster.random.pick(live).into_iter().collect();
        // With three copies, two may go at once.
        if cluster.settings().replicas > 2 && cluster.random.per_million(400_000) {
            doomed.extend(cluster.random.pick(live).filter(|second| !doomed.contains(second)));
        }
        if may_lose(cluster, &doomed) {
            self.kill(cluster, doomed);
        }
    }

    fn kill(&mut self, cluster: &mut Cluster, doomed: Vec<NodeId>) {
        self.counts.double_crashes += u64::from(doomed.len() == 2);
        let now_us = cluster.now().mono_us;
        for node in doomed {
            tracing::info!(at_us = now_us, %node, "fault: crash");
            cluster.crash(node);
            self.counts.crashes += 1;
            let seat = self.seats.iter().find(|(known, _)| *known == node).map(|&(_, seat)| seat);
            if let Some(seat) = seat.filter(|_| cluster.random.per_million(400_000)) {
                self.restarts.push((now_us + cluster.random.between(50_000, 5_000_000), seat));
            }
        }
        self.crashed_us = now_us;
    }

    fn leave(&mut self, cluster: &mut Cluster, live: &[NodeId]) {
        let Some(node) = cluster.random.pick(live).filter(|&node| live.len() > 2 && cluster.runs(node))
        else {
            return;
        };
        let Some(table) = cluster.agreed() else { return };
        let standing = |status| live.iter().filter(|node| status_of(table, **node) == Some(status)).count();
        // A witness holds nothing; somebody else must.
        let heirs = table.owners().filter(|member| member.node != node && live.contains(&member.node));
        if standing(MemberStatus::Leaving) > 0 || standing(MemberStatus::Up) < 3 || heirs.count() < 2 {
            return;
        }
        tracing::info!(at_us = cluster.now().mono_us, %node, "fault: leave");
        cluster.leave(node);
        self.counts.leaves += 1;
    }

    fn cut(&mut self, cluster: &mut Cluster, live: &[NodeId], left_us: u64) {
        let Some(node) = cluster.random.pick(live) else { return };
        let others: Vec<NodeId> = live.iter().copied().filter(|&other| other != node).collect();
        let kind = cluster.random.below(8);
        let network = &mut cluster.network;
        match kind {
            // Deaf, mute, or both, towards one.
            0 | 1 => {
                let Some(other) = cluster.random.pick(&others) else { return };
                network.cut(node, other);
                if kind == 1 {
                    network.cut(other, node);
                }
            }
            // Deaf or mute towards all.
            2 => others.iter().for_each(|&other| network.cut(node, other)),
            3 => others.iter().for_each(|&other| network.cut(other, node)),
            // Cut off from all.
            4 => others.iter().for_each(|&other| {
                network.cut(node, other);
                network.cut(other, node);
            }),
            // Only `node` reaches both halves.
            5 => {
                let (left, right) = others.split_at(others.len() / 2);
                sever(cluster, left, right);
            }
            6 => {
                let us = cluster.random.between(20_000, 400_000);
                cluster.network.slow_down(node, us);
            }
            // A minority apart.
            _ => {
                let (left, right) = live.split_at((live.len() - 1) / 2);
                sever(cluster, left, right);
            }
        }
        match kind {
            0 | 2 | 3 => self.counts.one_way_cuts += 1,
            5 => self.counts.bridges += 1,
            6 => self.counts.slow_nodes += 1,
            _ => self.counts.cuts += 1,
        }
        let us = cluster.random.between(500_000, 15_000_000).min(left_us);
        self.cuts_until_us = cluster.now().mono_us + us;
        self.calm_from_us = self.calm_from_us.max(self.cuts_until_us + NOTICED_US);
        tracing::info!(at_us = cluster.now().mono_us, %node, kind, us, "fault: cut");
    }
}

fn sever(cluster: &mut Cluster, left: &[NodeId], right: &[NodeId]) {
    for &a in left {
        for &b in right {
            cluster.network.cut(a, b);
            cluster.network.cut(b, a);
        }
    }
}

fn status_of(table: &Table, node: NodeId) -> Option<MemberStatus> {
    table.members.get(&node).map(|member| member.status)
}

/// Whether the cluster promises to survive the loss of `doomed` now: everything has its full copies,
/// one of them elsewhere, and the voters keep a majority (or nobody ever needed one).
fn may_lose(cluster: &Cluster, doomed: &[NodeId]) -> bool {
    let Some(log) = cluster.latest_log() else { return false };
    let table = &log.table;
    let live = cluster.live();
    let stays = |node: NodeId| cluster.lives(node) && !doomed.contains(&node);
    let owners = live.iter().filter(|node| cluster.engine(**node).member().weight > 0).count();
    let wanted = usize::from(table.settings.replicas).min(owners);
    let copied = table.partitions.iter().all(|assignment| {
        let complete = assignment.isr.iter().filter(|&&other| cluster.lives(other)).count();
        assignment.epoch.0 > 0 && complete >= wanted && assignment.isr.iter().any(|&other| stays(other))
    });
    // A survivor of two goes on once it has the table that calls its copies complete.
    let other = live.iter().find(|&&other| stays(other));
    let may_take_over = !table.ever_three
        && live.len() == 2
        && other.is_some_and(|&other| {
            cluster.runs(other) && cluster.engine(other).has_table(table.incarnation, table.version)
        });
    let writable = is_writable_without(cluster, doomed) || !table.ever_three;
    let decides = has_majority_without(cluster, doomed) || may_take_over;
    !doomed.is_empty() && live.len() > doomed.len() && copied && writable && decides
}

/// Whether most of the voters stay.
fn has_majority_without(cluster: &Cluster, doomed: &[NodeId]) -> bool {
    cluster.latest_log().is_some_and(|log| {
        let stays = |node: NodeId| cluster.lives(node) && !doomed.contains(&node);
        log.voters.iter().filter(|&&voter| stays(voter)).count() * 2 > log.voters.len()
    })
}

/// Whether there stay as many holders as a write needs copies, once who leaves is gone (seed 947): with
/// fewer, all that is left to do is to refuse.
fn is_writable_without(cluster: &Cluster, doomed: &[NodeId]) -> bool {
    let stays = |node: &NodeId| !doomed.contains(node) && !cluster.engine(*node).is_leaving();
    let stay = cluster.live().into_iter().filter(stays);
    let holders = stay.filter(|&node| cluster.engine(node).member().weight > 0).count();
    holders >= usize::from(cluster.settings().min_copies)
}
