//! A virtual cluster around one controller: members that answer orders, copies that are mere
//! counters of writes, a log that commits after a while. All checks are made at every entry.

use crate::engine::controller::{
    Controller, ControllerConfig, ControllerOutput, Held, Order, Report, Sealed, SealedPartition, Taken,
};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence};
use crate::engine::table::{
    Assignment, ClusterSettings, Member, MemberStatus, Survival, Table, TableChange, TableEntry,
};
use crate::engine::time::Now;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

pub(super) const MS: u64 = 1_000;

pub(in crate::engine::controller) fn settings(partitions: u16, replicas: u8) -> ClusterSettings {
    ClusterSettings { partitions, replicas, min_copies: replicas, survival: Survival::Auto }
}

pub(in crate::engine::controller) fn member(id: u64) -> Member {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, id as u16));
    Member::up(NodeId(id), format!("n{id}"), address)
}

/// A process.
#[derive(Debug, Default)]
pub(super) struct Fake {
    pub(super) alive: bool,
    /// Alive for gossip, but answers no order and fills no copy.
    pub(super) mute: bool,
    /// The epochs promised.
    pub(super) promised: BTreeMap<PartitionId, Epoch>,
    /// How far each copy has come.
    pub(super) copies: BTreeMap<PartitionId, u64>,
}

#[derive(Debug)]
enum Event {
    Commit(TableEntry),
    Order(NodeId, Order),
    Report(NodeId, Report),
    Sealed(NodeId, Sealed),
    Gossip(NodeId, bool),
    Link(NodeId, bool),
}

pub(super) struct Cluster {
    pub(super) now: Now,
    pub(super) table: Table,
    pub(super) controller: Controller,
    pub(super) config: ControllerConfig,
    pub(super) nodes: BTreeMap<NodeId, Fake>,
    /// Acknowledged writes of each partition.
    acked: BTreeMap<PartitionId, u64>,
    events: BTreeMap<(u64, u64), Event>,
    event_count: u64,
    random: u64,
    /// All entries so far.
    pub(super) entries: Vec<TableEntry>,
    /// All orders so far.
    pub(super) orders: Vec<(NodeId, Order)>,
    /// Percentage of proposals that get lost.
    pub(super) lost_proposals: u64,
    /// Percentage of handovers that are withdrawn.
    pub(super) withdrawn: u64,
    /// Whether primaries fill their learners.
    pub(super) filling: bool,
    /// Whether something happened that takes copies away rightfully (a mute or lagging node).
    pub(super) forgiving: bool,
}

impl Cluster {
    pub(super) fn new(settings: ClusterSettings, seed: u64) -> Cluster {
        let me = NodeId(1);
        let mut config = ControllerConfig::new(me);
        config.migrations_per_node_max = 8;
        config.handovers_max = 8;
        let table = Table::new(Incarnation(1), settings);
        let mut controller = Controller::new(config);
        let now = Now { mono_us: 1_000_000_000, wall_ms: 1 };
        controller.set_voters(now, vec![me]);
        let mut cluster = Cluster {
            now,
            controller,
            config,
            table,
            nodes: BTreeMap::new(),
            acked: BTreeMap::new(),
            events: BTreeMap::new(),
            event_count: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            entries: Vec::new(),
            orders: Vec::new(),
            lost_proposals: 0,
            withdrawn: 0,
            filling: true,
            forgiving: false,
        };
        cluster.controller.lead(cluster.now, Arc::new(cluster.table.clone()));
        cluster
    }

    /// A converged cluster of members 1 to `count`.
    pub(super) fn formed(settings: ClusterSettings, count: u64) -> Cluster {
        let mut cluster = Cluster::new(settings, count);
        for id in 1..=count {
            cluster.join(member(id));
        }
        cluster.converge();
        cluster
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn after(&mut self, us: u64, event: Event) {
        self.event_count += 1;
        self.events.insert((self.now.mono_us + us, self.event_count), event);
    }

    pub(super) fn join(&mut self, member: Member) {
        let node = member.node;
        self.nodes.insert(node, Fake { alive: true, ..Fake::default() });
        self.controller.link(self.now, node, true);
        self.controller.member_heard(self.now, node, true);
        self.controller.join(self.now, member);
        self.drain();
    }

    pub(super) fn report(&mut self, from: u64, report: Report) {
        self.controller.report(self.now, NodeId(from), report);
        self.drain();
    }

    pub(super) fn kill(&mut self, id: u64) {
        self.node(id).alive = false;
        self.node(id).copies.clear();
        self.cut(id);
    }

    /// The others lose sight of a member.
    pub(super) fn cut(&mut self, id: u64) {
        let link_us = self.below(100 * MS);
        let gossip_us = 100 * MS + self.below(1_000 * MS);
        self.after(link_us, Event::Link(NodeId(id), false));
        self.after(gossip_us, Event::Gossip(NodeId(id), false));
    }

    /// The others see it again.
    pub(super) fn mend(&mut self, id: u64) {
        let link_us = self.below(100 * MS);
        let gossip_us = self.below(1_000 * MS);
        self.after(link_us, Event::Link(NodeId(id), true));
        self.after(gossip_us, Event::Gossip(NodeId(id), true));
    }

    /// Another node comes to lead, knowing only the table and what it sees.
    pub(super) fn lead(&mut self, id: u64) {
        self.config.me = NodeId(id);
        self.controller = Controller::new(self.config);
        self.controller.set_voters(self.now, vec![self.config.me]);
        for (&node, fake) in &self.nodes {
            self.controller.link(self.now, node, fake.alive);
            self.controller.member_heard(self.now, node, fake.alive);
        }
        self.controller.lead(self.now, Arc::new(self.table.clone()));
        // Nodes repeat their wish to join until the table shows them.
        for (&node, fake) in &self.nodes {
            if fake.alive && !self.table.members.contains_key(&node) {
                self.controller.join(self.now, member(node.0));
            }
        }
        self.drain();
    }

    /// As the voters do: a leader that leaves is followed by one that stays.
    fn succeed(&mut self) {
        let stays = |id: &NodeId| self.status(id.0) == Some(MemberStatus::Up);
        if self.status(self.config.me.0) == Some(MemberStatus::Leaving)
            && let Some((&heir, _)) = self.nodes.iter().find(|(id, fake)| fake.alive && stays(id))
        {
            self.lead(heir.0);
        }
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Fake {
        self.nodes.get_mut(&NodeId(id)).expect("a known node")
    }

    pub(super) fn status(&self, id: u64) -> Option<MemberStatus> {
        self.table.members.get(&NodeId(id)).map(|member| member.status)
    }

    fn drain(&mut self) {
        while let Some(output) = self.controller.poll() {
            match output {
                ControllerOutput::Propose(entry) => {
                    assert!(!entry.is_empty());
                    if self.below(100) >= self.lost_proposals {
                        let us = MS + self.below(5 * MS);
                        self.after(us, Event::Commit(entry));
                    }
                }
                ControllerOutput::Send { to, order } => {
                    self.orders.push((to, order.clone()));
                    let us = MS + self.below(5 * MS);
                    self.after(us, Event::Order(to, order));
                }
            }
        }
    }

    /// Lets `ms` pass in steps of at most 5 ms.
    pub(super) fn run(&mut self, ms: u64) {
        let end_us = self.now.mono_us + ms * MS;
        while self.now.mono_us < end_us {
            let next_us = self.events.keys().next().map_or(u64::MAX, |key| key.0);
            let wake_us = self.controller.next_wake().unwrap_or(u64::MAX);
            let until_us = next_us.min(wake_us).min(self.now.mono_us + 5 * MS).min(end_us);
            self.now = self.now.plus_us(until_us.saturating_sub(self.now.mono_us));
            while let Some(entry) = self.events.first_entry() {
                if entry.key().0 > self.now.mono_us {
                    break;
                }
                let event = entry.remove();
                self.happen(event);
                self.drain();
            }
            self.controller.tick(self.now);
            self.drain();
            if self.filling {
                self.fill();
            }
            if self.below(4) == 0 {
                self.write();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Commit(entry) => self.commit(entry),
            Event::Order(to, order) => self.obey(to, order),
            Event::Report(from, report) => self.controller.report(self.now, from, report),
            Event::Sealed(from, sealed) => self.controller.sealed(self.now, from, sealed),
            Event::Gossip(node, alive) => self.controller.member_heard(self.now, node, alive),
            Event::Link(node, live) => self.controller.link(self.now, node, live),
        }
    }

    fn works(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|fake| fake.alive && !fake.mute)
    }

    fn obey(&mut self, to: NodeId, order: Order) {
        if !self.works(to) {
            return;
        }
        match order {
            Order::Seal { deposed, partitions } => {
                let fake = self.nodes.get_mut(&to).expect("it works");
                let mut answers = Vec::new();
                for (partition, epoch) in partitions {
                    let promised = fake.promised.entry(partition).or_default();
                    *promised = epoch.max(*promised);
                    let last = Sequence(fake.copies.get(&partition).copied().unwrap_or_default());
                    answers.push(SealedPartition { partition, epoch, last });
                }
                let us = MS + self.below(15 * MS);
                self.after(us, Event::Sealed(to, Sealed { deposed, partitions: answers }));
            }
            Order::Salvage { partitions, .. } => {
                // Nothing is kept here.
                let held = partitions
                    .into_iter()
                    .map(|(partition, epoch)| Held {
                        partition,
                        epoch,
                        copy: None,
                        current: false,
                        taken: Taken::Lost,
                    })
                    .collect();
                let us = MS + self.below(15 * MS);
                self.after(us, Event::Report(to, Report::Held(held)));
            }
            Order::Merge { .. } => {}
            Order::Handover { partition, epoch, to: heir } => {
                let assignment = &self.table.partitions[partition.index()];
                if assignment.epoch != epoch || assignment.primary != to {
                    return;
                }
                let report = if self.below(100) < self.withdrawn {
                    Report::HandoverCancel { partition, epoch }
                } else {
                    // Drained: the heir has it all.
                    let last = self.copy(to, partition);
                    if let Some(fake) = self.nodes.get_mut(&heir) {
                        fake.copies.insert(partition, last);
                    }
                    Report::HandoverReady { partition, epoch, to: heir }
                };
                let us = MS + self.below(5 * MS);
                self.after(us, Event::Report(to, report));
            }
        }
    }

    fn copy(&self, node: NodeId, partition: PartitionId) -> u64 {
        let fake = self.nodes.get(&node);
        fake.and_then(|fake| fake.copies.get(&partition)).copied().unwrap_or_default()
    }

    /// Primaries complete their learners, some of them each time.
    fn fill(&mut self) {
        let mut reports = Vec::new();
        for (partition, assignment) in self.table.partition_ids().zip(&self.table.partitions) {
            for &learner in &assignment.learners {
                if self.works(assignment.primary) && self.works(learner) {
                    let epoch = assignment.epoch;
                    let since = assignment.since[&learner];
                    let report = Report::Completed { partition, epoch, learner, since };
                    reports.push((assignment.primary, report));
                }
            }
        }
        for (from, report) in reports {
            if self.below(100) < 20 {
                self.controller.report(self.now, from, report);
                self.drain();
            }
        }
    }

    /// Every primary takes a write. It is acknowledged if the whole ack set has it and nobody in
    /// it has promised a later epoch; else some have it and some don't.
    fn write(&mut self) {
        for (partition, assignment) in self.table.partition_ids().zip(&self.table.partitions) {
            if assignment.epoch == Epoch(0) || !self.works(assignment.primary) {
                continue;
            }
            let accepts = |node: &NodeId| {
                self.works(*node)
                    && self.nodes[node]
                        .promised
                        .get(&partition)
                        .is_none_or(|promised| *promised <= assignment.epoch)
            };
            let takers: Vec<NodeId> = assignment.isr.iter().copied().filter(accepts).collect();
            let whole = takers.len() == assignment.isr.len() && assignment.learners.iter().all(accepts);
            let last = self.copy(assignment.primary, partition) + 1;
            for node in takers {
                if let Some(fake) = self.nodes.get_mut(&node) {
                    fake.copies.insert(partition, last);
                }
            }
            if whole {
                self.acked.insert(partition, last);
            }
        }
    }

    fn commit(&mut self, entry: TableEntry) {
        let before = self.table.clone();
        self.table.apply(&entry);
        assert_eq!(self.table.checks(), Ok(()));
        assert_eq!(self.table.checks_after(&before), Ok(()));
        self.check_copies(&before, &entry);
        for (partition, old) in before.partition_ids().zip(&before.partitions) {
            self.follow(partition, old);
        }
        self.entries.push(entry);
        self.controller.table_applied(self.now, Arc::new(self.table.clone()));
    }

    /// Brings the copies in line with the table.
    fn follow(&mut self, partition: PartitionId, old: &Assignment) {
        let new = self.table.partitions[partition.index()].clone();
        if new.origin > old.origin {
            self.acked.insert(partition, 0);
            for fake in self.nodes.values_mut() {
                fake.copies.insert(partition, 0);
            }
        }
        let grew = new.isr.iter().any(|node| !old.isr.contains(node));
        if grew || new.epoch > old.epoch {
            let last = self.copy(new.primary, partition);
            let acked = self.acked.get(&partition).copied().unwrap_or_default();
            // Invariant (d); a process that died since has nothing to be checked.
            if self.nodes.get(&new.primary).is_some_and(|fake| fake.alive) {
                assert!(last >= acked, "{partition}: {last} of {acked} acknowledged: {new:?}");
            }
            for node in &new.isr {
                if let Some(fake) = self.nodes.get_mut(node).filter(|fake| fake.alive) {
                    fake.copies.insert(partition, last);
                }
            }
        }
    }

    /// Invariant (f): live complete copies grow fewer only down to what is wanted.
    fn check_copies(&self, before: &Table, entry: &TableEntry) {
        if self.forgiving {
            return;
        }
        for (partition, old) in before.partition_ids().zip(&before.partitions) {
            let new = &self.table.partitions[partition.index()];
            let live = |isr: &[NodeId]| isr.iter().filter(|&&node| self.table.is_live(node)).count();
            let (had, has) = (live(&old.isr), live(&new.isr));
            assert!(
                has >= had || has >= self.table.replicas_wanted(),
                "{partition}: {had} copies, then {has}: {entry:?}"
            );
        }
    }

    /// Whether the table is at its goal.
    pub(super) fn is_converged(&self) -> bool {
        let status = self.controller.status();
        let leavers = self.table.members.values().any(|member| member.status == MemberStatus::Leaving);
        // A death or a join that the table doesn't show yet: its proposal may have been lost.
        let unseen = self
            .nodes
            .iter()
            .any(|(&node, fake)| fake.alive != self.table.is_live(node) && !self.table.is_retired(node));
        self.table.partitions.iter().all(|assignment| assignment.epoch > Epoch(0))
            && !unseen
            && status.dead.is_empty()
            && status.under_replicated.is_empty()
            && status.learners + status.migrations_wanted == 0
            && status.surplus + status.handovers_wanted == 0
            && !leavers
    }

    /// Runs until the table is at its goal and then asserts that it stays there.
    pub(super) fn converge(&mut self) {
        self.settle();
        let entries = self.entries.len();
        self.run(3_000);
        assert_eq!(self.entries.len(), entries, "restless: {:?}", self.entries.last());
    }

    /// Runs until the table is at its goal.
    pub(super) fn settle(&mut self) {
        for _ in 0..600 {
            self.run(100);
            self.succeed();
            if self.is_converged() && self.events.is_empty() {
                return;
            }
        }
        panic!("never at rest: {:?}\n{:?}", self.controller.status(), self.table);
    }

    /// The changes of all entries since `from`.
    pub(super) fn changes_since(&self, from: usize) -> impl Iterator<Item = &TableChange> {
        self.entries[from..].iter().flatten()
    }

    /// The members that own something.
    pub(super) fn holders(&self) -> BTreeSet<NodeId> {
        self.table.partitions.iter().flat_map(|assignment| assignment.ack_set()).collect()
    }

    pub(super) fn primaries(&self, id: u64) -> usize {
        self.table.partitions.iter().filter(|a| a.primary == NodeId(id)).count()
    }
}
