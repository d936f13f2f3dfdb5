//! A thousand nodes of membership, placement and controller, without data: how fast they converge.
//!
//! The members gossip as in production. One of them leads: its controller hears its own gossip and
//! sees its own links. Orders are obeyed at once, copies are filled after a fixed time.

use super::random::Random;
use crate::engine::controller::{
    Controller, ControllerConfig, ControllerOutput, Order, Report, Sealed, SealedPartition,
};
use crate::engine::ids::{Epoch, Incarnation, NodeId, Sequence};
use crate::engine::membership::{GossipId, Membership, MembershipConfig, MembershipOutput};
use crate::engine::table::{ClusterSettings, Member, Survival, Table, TableEntry};
use crate::engine::time::Now;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

const SECOND_US: u64 = 1_000_000;
const TICK_US: u64 = 20_000;
/// A link of production notices silence after so long.
const LINK_LOST_US: u64 = 2_500_000;
/// A copy without data is filled within this.
const FILL_US: u64 = 100_000;
const LEADER: NodeId = NodeId(1);

/// How fast a fleet converged; times in milliseconds of virtual time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Convergence {
    /// Members at the start.
    pub members: usize,
    /// Until everybody knew everybody.
    pub discovered_ms: u64,
    /// Until every partition had its owners.
    pub assigned_ms: u64,
    /// Entries that took.
    pub assigned_entries: u64,
    /// Until a member knew of a kill, each.
    pub known_ms: Vec<u64>,
    /// From a kill until no partition had a dead primary.
    pub failed_over_ms: u64,
    /// From a kill until all copies were full again.
    pub full_ms: u64,
    /// Healthy members that anybody took for dead.
    pub false_alarms: u64,
    /// Datagrams a member sends in a second, on average.
    pub datagrams_per_s: u64,
}

impl fmt::Display for Convergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |share: usize| self.known_ms.get((self.known_ms.len().max(1) - 1) * share / 100).copied();
        let (p50, p99, most) =
            (at(50).unwrap_or_default(), at(99).unwrap_or_default(), at(100).unwrap_or_default());
        writeln!(f, "{} members; all know all after {} ms", self.members, self.discovered_ms)?;
        writeln!(f, "placed after {} ms, in {} entries", self.assigned_ms, self.assigned_entries)?;
        writeln!(f, "a kill is known after p50 {p50} ms, p99 {p99} ms, by all after {most} ms")?;
        writeln!(
            f,
            "no dead primary after {} ms, full copies after {} ms",
            self.failed_over_ms, self.full_ms
        )?;
        write!(
            f,
            "{} false alarms, {} datagrams a member and second",
            self.false_alarms, self.datagrams_per_s
        )
    }
}

#[derive(Debug)]
enum Event {
    Datagram(NodeId, NodeId, Bytes),
    Tick(NodeId),
    Commit(TableEntry),
    Order(NodeId, Order),
    Report(NodeId, Report),
    LinkLost(NodeId),
}

/// The fleet.
struct Fleet {
    now_us: u64,
    random: Random,
    nodes: BTreeMap<NodeId, Membership>,
    dead: BTreeSet<NodeId>,
    controller: Controller,
    table: Arc<Table>,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    datagrams: u64,
    entries: u64,
    /// Who was taken for dead, by whom and when.
    downs: Vec<(u64, NodeId, NodeId)>,
}

fn member(node: NodeId) -> Member {
    let address = SocketAddr::from(([10, 0, (node.0 >> 8) as u8, node.0 as u8], 7_000));
    Member::up(node, node.to_string(), address)
}

/// Forms a fleet of so many members, kills one, and tells how long everything took.
pub fn converge(members: usize, seed: u64) -> Convergence {
    let mut fleet = Fleet::new(members, seed);
    let mut result = Convergence { members, ..Convergence::default() };
    let ms = |us: u64| us / 1_000;
    result.discovered_ms = ms(fleet.run_until(60 * SECOND_US, Fleet::all_know_all));
    result.assigned_ms = ms(fleet.run_until(60 * SECOND_US, Fleet::is_whole)) + result.discovered_ms;
    result.assigned_entries = fleet.entries;
    let (killed_us, sent) = (fleet.now_us, fleet.datagrams);
    let victim = NodeId(members as u64 / 2 + 1);
    fleet.kill(victim);
    result.failed_over_ms = ms(fleet.run_until(60 * SECOND_US, |fleet| fleet.is_led_without(victim)));
    result.full_ms = result.failed_over_ms + ms(fleet.run_until(60 * SECOND_US, Fleet::is_whole));
    fleet.run_until(60 * SECOND_US, |fleet| fleet.downs.len() + 1 >= members);
    fleet.run(5 * SECOND_US);
    for &(at_us, _, of) in &fleet.downs {
        match of == victim {
            true => result.known_ms.push(ms(at_us - killed_us)),
            false => result.false_alarms += 1,
        }
    }
    result.known_ms.sort_unstable();
    let seconds = (fleet.now_us - killed_us) / SECOND_US;
    result.datagrams_per_s = (fleet.datagrams - sent) / seconds.max(1) / members as u64;
    result
}

impl Fleet {
    fn new(members: usize, seed: u64) -> Fleet {
        let settings =
            ClusterSettings { partitions: 1_024, replicas: 2, min_copies: 2, survival: Survival::Auto };
        let incarnation = Incarnation(1 << 16 | 1);
        let mut fleet = Fleet {
            now_us: SECOND_US,
            random: Random::new(seed),
            nodes: BTreeMap::new(),
            dead: BTreeSet::new(),
            controller: Controller::new(ControllerConfig::new(LEADER)),
            table: Arc::new(Table::new(incarnation, settings)),
            events: BTreeMap::new(),
            scheduled: 0,
            datagrams: 0,
            entries: 0,
            downs: Vec::new(),
        };
        let now = fleet.now();
        fleet.controller.lead(now, fleet.table.clone());
        for id in 1..=members as u64 {
            let node = NodeId(id);
            let about = member(node);
            let mut membership = Membership::new(node, about.quic, MembershipConfig::default(), seed ^ id);
            membership.set_incarnation(now, incarnation);
            if node != LEADER {
                let seed = GossipId { node: LEADER, generation: 0, quic: member(LEADER).quic };
                membership.join(now, seed);
            }
            fleet.nodes.insert(node, membership);
            fleet.drain(node);
            let phase_us = fleet.random.below(TICK_US);
            fleet.after(phase_us, Event::Tick(node));
            fleet.controller.link(now, node, true);
            fleet.controller.member_heard(now, node, true);
            fleet.controller.join(now, about);
        }
        fleet.drain_controller();
        fleet
    }

    fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_ms: self.now_us / 1_000 }
    }

    fn after(&mut self, us: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now_us + us, self.scheduled), event);
    }

    fn delay_us(&mut self) -> u64 {
        self.random.between(100, 2_000)
    }

    fn kill(&mut self, node: NodeId) {
        self.dead.insert(node);
        let now_us = self.now_us;
        self.nodes.values_mut().for_each(|membership| membership.link_live(node, now_us));
        self.after(LINK_LOST_US, Event::LinkLost(node));
    }

    fn drain(&mut self, node: NodeId) {
        while let Some(output) = self.nodes.get_mut(&node).and_then(Membership::poll) {
            match output {
                MembershipOutput::Send { to, bytes, .. } => {
                    self.datagrams += 1;
                    let us = self.delay_us();
                    self.after(us, Event::Datagram(node, to, bytes));
                }
                MembershipOutput::Suspect(other) => {
                    // Links are heard several times a second.
                    if !self.dead.contains(&other)
                        && let Some(membership) = self.nodes.get_mut(&node)
                    {
                        membership.link_live(other, self.now_us);
                    }
                }
                MembershipOutput::Up(other, _) | MembershipOutput::Down(other) => {
                    let alive = matches!(output, MembershipOutput::Up(..));
                    if !alive {
                        self.downs.push((self.now_us, node, other));
                    }
                    if node == LEADER {
                        let now = self.now();
                        self.controller.member_heard(now, other, alive);
                        self.drain_controller();
                    }
                }
            }
        }
    }

    fn drain_controller(&mut self) {
        while let Some(output) = self.controller.poll() {
            let us = self.delay_us();
            match output {
                ControllerOutput::Propose(entry) => self.after(2 * us, Event::Commit(entry)),
                ControllerOutput::Send { to, order } => self.after(us, Event::Order(to, order)),
            }
        }
    }

    fn run(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end_us) {
            self.now_us = entry.key().0;
            let event = entry.remove();
            self.happen(event);
        }
        self.now_us = end_us;
    }

    /// Runs until the condition holds, and returns how long it took.
    fn run_until(&mut self, us_max: u64, done: impl Fn(&Fleet) -> bool) -> u64 {
        let begin_us = self.now_us;
        while !done(self) && self.now_us < begin_us + us_max {
            self.run(50_000);
        }
        self.now_us - begin_us
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Datagram(_, to, _) | Event::Tick(to) | Event::Order(to, _) if self.dead.contains(&to) => {}
            Event::Datagram(from, to, bytes) => {
                if let Some(membership) = self.nodes.get_mut(&to) {
                    membership.datagram(now, from, &bytes);
                }
                self.drain(to);
            }
            Event::Tick(node) => {
                if let Some(membership) = self.nodes.get_mut(&node) {
                    membership.tick(now);
                }
                self.drain(node);
                if node == LEADER {
                    self.controller.tick(now);
                    self.drain_controller();
                }
                self.after(TICK_US, Event::Tick(node));
            }
            Event::Commit(entry) => self.commit(&entry),
            Event::Order(to, order) => self.obey(to, order),
            Event::Report(from, report) => {
                self.controller.report(now, from, report);
                self.drain_controller();
            }
            Event::LinkLost(node) => {
                self.controller.link(now, node, false);
                self.drain_controller();
            }
        }
    }

    fn commit(&mut self, entry: &TableEntry) {
        let mut table = (*self.table).clone();
        table.apply(entry);
        self.entries += 1;
        let ids = table.partition_ids();
        for (id, (before, after)) in ids.zip(self.table.partitions.iter().zip(&table.partitions)) {
            for &learner in after.learners.iter().filter(|learner| !before.learners.contains(learner)) {
                let (partition, epoch) = (id, after.epoch);
                let since = after.since[&learner];
                let report = Report::Completed { partition, epoch, learner, since };
                self.scheduled += 1;
                let key = (self.now_us + FILL_US, self.scheduled);
                self.events.insert(key, Event::Report(after.primary, report));
            }
        }
        self.table = Arc::new(table);
        let now = self.now();
        self.controller.table_applied(now, self.table.clone());
        self.drain_controller();
    }

    fn obey(&mut self, node: NodeId, order: Order) {
        match order {
            Order::Handover { partition, epoch, to } => {
                let us = self.delay_us();
                self.after(us, Event::Report(node, Report::HandoverReady { partition, epoch, to }));
            }
            Order::Seal { deposed, partitions } => {
                let sealed = |(partition, epoch)| SealedPartition { partition, epoch, last: Sequence(0) };
                let partitions = partitions.into_iter().map(sealed).collect();
                let now = self.now();
                self.controller.sealed(now, node, Sealed { deposed, partitions });
                self.drain_controller();
            }
            // No member is lost before its copies are whole again: there is nothing to go back to.
            Order::Salvage { .. } | Order::Merge { .. } => {}
        }
    }

    fn all_know_all(&self) -> bool {
        let count = self.nodes.len();
        self.nodes.values().all(|membership| membership.members().count() + 1 >= count)
    }

    fn is_whole(&self) -> bool {
        self.table.members.len() == self.nodes.len()
            && self.table.partitions.iter().all(|assignment| {
                assignment.epoch > Epoch(0)
                    && assignment.learners.is_empty()
                    && assignment.isr.len() == 2
                    && assignment.isr.iter().all(|&node| self.table.is_live(node))
            })
    }

    fn is_led_without(&self, victim: NodeId) -> bool {
        !self.table.is_live(victim)
            && self.table.partitions.iter().all(|assignment| assignment.primary != victim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_converges() {
        let result = converge(20, 1);
        assert_eq!((result.known_ms.len(), result.false_alarms), (19, 0), "{result}");
        assert!(result.failed_over_ms < 8_000 && result.full_ms < 10_000, "{result}");
    }
}
