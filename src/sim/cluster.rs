//! A cluster of production engines under virtual time.
//!
//! The caller steps through the events with [`Cluster::step`] and may look at everything between two
//! of them. Processes crash (for good), pause, are cut off and leave, each on a machine with [clocks of
//! its own](super::clock); what an engine wants done is done here: frames travel over [`Network`],
//! entries through the [agreed log](super::agreed_log).

use super::agreed_log::{AgreedLog, Committed, LogConfig};
use super::clock::Clock;
use super::network::{Network, NetworkConfig};
use super::random::Random;
use crate::engine::config::EngineConfig;
use crate::engine::frame::Class;
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::membership::MembershipConfig;
use crate::engine::node::{Engine, Output};
use crate::engine::op::Ticket;
use crate::engine::partition::primary::ReplyBytes;
use crate::engine::table::{ClusterSettings, Member, MemberStatus, Table, TableEntry};
use crate::engine::time::Now;
use bytes::Bytes;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Frame(NodeId, NodeId, Bytes),
    Datagram(NodeId, NodeId, Bytes),
    LinkUp(NodeId, NodeId),
    LinkDown(NodeId, NodeId),
    Tick(NodeId),
    Commit(Incarnation, u64, TableEntry),
    Applied(NodeId, Arc<Table>),
    Lead(Incarnation, NodeId, u64, Option<NodeId>),
    Pulse,
    Wake(u64),
}

/// An event and its time. The earliest is the greatest, as the heap wants it; of the same time, the
/// one that was scheduled first.
#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

/// What [`Cluster::step`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing more happens until the time given.
    Idle,
    /// An engine had an input.
    Engine(NodeId),
    /// A time asked for with [`Cluster::wake_after`] has come.
    Wake(u64),
    /// Something outside of the engines.
    Other,
}

/// One simulated node.
pub struct SimNode {
    /// The production engine. Kept after a crash, for looking.
    pub engine: Engine,
    /// Whether the process lives.
    pub up: bool,
    /// Until when it is paused.
    pub paused_until_us: u64,
    /// Whether it has left in good order.
    pub left: bool,
    /// Its machine's clocks.
    pub clock: Clock,
    maintained: BTreeSet<NodeId>,
}

/// What a process is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which machine: the address and the name follow from it.
    pub machine: u16,
    /// Its share of the partitions; 0 makes a witness.
    pub weight: u16,
    /// The machine's clocks.
    pub clock: Clock,
}

/// A cluster under virtual time.
pub struct Cluster {
    /// The run's own choices.
    pub random: Random,
    /// Who reaches whom.
    pub network: Network,
    /// The nodes by id, dead ones included.
    pub nodes: BTreeMap<NodeId, SimNode>,
    /// Replies that clients have not taken yet, with the node that gave them.
    pub replies: Vec<(NodeId, Ticket, ReplyBytes)>,
    /// How the agreed log behaves.
    pub log_config: LogConfig,
    /// What was agreed on so far.
    pub committed: Committed,
    /// A running hash of every event, to compare runs.
    pub trace: u64,
    /// Events so far.
    pub events_count: u64,
    /// The largest frame that was sent.
    pub largest_frame_bytes: usize,
    now_us: u64,
    events: BinaryHeap<Scheduled>,
    /// Empty between inputs; kept for its memory.
    outputs: Vec<Output>,
    next_event: u64,
    pub(super) logs: BTreeMap<Incarnation, AgreedLog>,
    config: EngineConfig,
    settings: ClusterSettings,
}

const LINK_SETUP_US: u64 = 2_000;
/// As the mesh of production links: a peer unheard for so long is lost.
const LINK_IDLE_US: u64 = 3_000_000;
/// A node that stops in good order first sends what it has to say, for so long at most.
const LINK_FLUSH_US: u64 = 500_000;
const PULSE_US: u64 = 200_000;

impl Cluster {
    /// An empty cluster.
    pub fn new(
        seed: u64,
        network: NetworkConfig,
        config: EngineConfig,
        settings: ClusterSettings,
    ) -> Cluster {
        let mut cluster = Cluster {
            random: Random::new(seed),
            network: Network::new(network),
            nodes: BTreeMap::new(),
            replies: Vec::new(),
            log_config: LogConfig::default(),
            committed: Committed::default(),
            trace: 0,
            events_count: 0,
            largest_frame_bytes: 0,
            now_us: 1_000_000,
            events: BinaryHeap::new(),
            outputs: Vec::new(),
            next_event: 0,
            logs: BTreeMap::new(),
            config,
            settings,
        };
        cluster.after(PULSE_US, Event::Pulse);
        cluster
    }

    /// True time, which no node knows.
    pub fn now(&self) -> Now {
        Clock::TRUE.read(self.now_us)
    }

    /// The time on a node's own clocks.
    pub fn now_at(&self, node: NodeId) -> Now {
        self.nodes.get(&node).map_or(self.now(), |sim| sim.clock.read(self.now_us))
    }

    /// Steps a node's wall clock.
    pub fn step_wall_clock(&mut self, node: NodeId, wall_ahead_ms: i64) {
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.clock.wall_ahead_ms = wall_ahead_ms;
        }
    }

    /// What was fixed when the cluster formed.
    pub fn settings(&self) -> &ClusterSettings {
        &self.settings
    }

    /// Starts a node of the usual kind on a machine of its own.
    pub fn start(&mut self) -> NodeId {
        self.start_on(Seat { machine: self.nodes.len() as u16, weight: 100, clock: Clock::TRUE })
    }

    /// Starts a node; the first one forms the cluster, the others join by a live one. It is a new
    /// node even where an earlier one had the same seat.
    pub fn start_on(&mut self, seat: Seat) -> NodeId {
        let node = NodeId(self.random.next() | 1);
        let quic = SocketAddr::from(([127, 0, 0, 1], 1_000 + seat.machine));
        let member = Member {
            node,
            name: format!("n{}", seat.machine),
            quic,
            resp: quic,
            admin: quic,
            zone: None,
            weight: seat.weight,
            status: MemberStatus::Up,
        };
        let engine = Engine::new(member, self.config, MembershipConfig::default(), self.random.next());
        let first = self.nodes.is_empty();
        let sim = SimNode {
            engine,
            up: true,
            paused_until_us: 0,
            left: false,
            clock: seat.clock,
            maintained: BTreeSet::new(),
        };
        self.nodes.insert(node, sim);
        if first {
            let settings = self.settings;
            let incarnation = Incarnation::first(self.random.next());
            self.input(node, |engine, now| engine.form(now, incarnation, settings));
        } else {
            self.knock(node);
        }
        let phase = self.random.below(20_000);
        self.after(phase, Event::Tick(node));
        node
    }

    /// Connects a node that has not joined or is linked with nobody to a live one, as a driver dials its
    /// seeds (two newcomers and a forgotten member must not keep to themselves: seed 181).
    fn knock(&mut self, node: NodeId) {
        let seeds: Vec<NodeId> = self
            .live()
            .into_iter()
            .filter(|&other| other != node && self.engine(other).table().incarnation.0 != 0)
            .collect();
        if let Some(seed) = self.random.pick(&seeds) {
            self.connect(node, seed);
        }
    }

    /// The process is gone, at once and for good. Its peers notice when its links are idle.
    pub fn crash(&mut self, node: NodeId) {
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.up = false;
        }
    }

    /// The process stands still for a while.
    pub fn pause(&mut self, node: NodeId, us: u64) {
        let until = self.now_us + us;
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.paused_until_us = sim.paused_until_us.max(until);
        }
    }

    /// Begins a graceful leave.
    pub fn leave(&mut self, node: NodeId) {
        self.input(node, |engine, now| engine.leave(now));
    }

    /// The nodes that live, paused ones included.
    pub fn live(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, sim)| sim.up && !sim.left).map(|(&node, _)| node).collect()
    }

    /// Whether a process lives and isn't paused.
    pub fn runs(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|sim| sim.up && !sim.left && sim.paused_until_us <= self.now_us)
    }

    /// Whether a process lives, though it may be paused.
    pub fn lives(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|sim| sim.up && !sim.left)
    }

    /// The engine of a node, for looking.
    pub fn engine(&self, node: NodeId) -> &Engine {
        &self.nodes[&node].engine
    }

    /// Gives the engine of a live node an input, with the node's own time, and carries out what it
    /// wants.
    pub fn input<R: Default>(&mut self, node: NodeId, input: impl FnOnce(&mut Engine, Now) -> R) -> R {
        let true_us = self.now_us;
        let Some(sim) = self.nodes.get_mut(&node).filter(|sim| sim.up && !sim.left) else {
            return R::default();
        };
        let now = sim.clock.read(true_us);
        let result = input(&mut sim.engine, now);
        sim.engine.flush(now);
        let mut outputs = std::mem::take(&mut self.outputs);
        while let Some(output) = sim.engine.poll() {
            outputs.push(output);
        }
        for output in outputs.drain(..) {
            self.act(node, output);
        }
        self.outputs = outputs;
        result
    }

    /// Asks for [`Step::Wake`] with `token`, `us` from now.
    pub fn wake_after(&mut self, us: u64, token: u64) {
        self.after(us, Event::Wake(token));
    }

    /// The next event that happens until `end_us`; the clock stands at its time, or at `end_us`.
    pub fn step(&mut self, end_us: u64) -> Step {
        if self.events.peek().is_none_or(|next| next.at_us > end_us) {
            self.now_us = self.now_us.max(end_us);
            return Step::Idle;
        }
        let Some(Scheduled { at_us, event, .. }) = self.events.pop() else { return Step::Idle };
        self.now_us = self.now_us.max(at_us);
        self.happen(event)
    }

    /// Runs until `us` from now.
    pub fn run(&mut self, us: u64) {
        let end_us = self.now_us + us;
        while self.step(end_us) != Step::Idle {}
    }

    /// Runs until the condition holds, looking every 10 ms; false if it doesn't within `us_max`.
    pub fn run_until(&mut self, us_max: u64, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        let end_us = self.now_us + us_max;
        loop {
            if done(self) {
                return true;
            }
            if self.now_us >= end_us {
                return false;
            }
            self.run(10_000);
        }
    }

    pub(super) fn after(&mut self, delay_us: u64, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.events.push(Scheduled { at_us: self.now_us + delay_us, number, event });
    }

    fn at(&mut self, at_us: u64, event: Event) {
        self.after(at_us.saturating_sub(self.now_us), event);
    }

    /// Whether two processes can talk to each other now.
    pub(super) fn converse(&self, a: NodeId, b: NodeId) -> bool {
        self.runs(a) && self.runs(b) && self.network.carries(a, b) && self.network.carries(b, a)
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        if a != b && self.converse(a, b) && self.network.link(a, b, self.now_us) {
            self.after(LINK_SETUP_US, Event::LinkUp(a, b));
            self.after(LINK_SETUP_US, Event::LinkUp(b, a));
        }
    }

    fn act(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Complete(ticket, reply) => self.replies.push((node, ticket, reply)),
            Output::Send(to, class, frame) => self.send(node, to, class, frame),
            Output::Datagram(to, _, bytes) => {
                let lost = self.random.per_million(self.network.config.loss_per_million);
                if self.network.linked(node, to) && self.network.carries(node, to) && !lost {
                    let delay = self.network.delay_between_us(&mut self.random, node, to);
                    self.after(delay, Event::Datagram(node, to, bytes));
                }
            }
            Output::Propose(entry) => self.propose(node, entry),
            Output::Maintain(peer, _) => {
                if let Some(sim) = self.nodes.get_mut(&node) {
                    sim.maintained.insert(peer);
                }
                self.connect(node, peer);
            }
            Output::Forget(peer) => {
                if let Some(sim) = self.nodes.get_mut(&node) {
                    sim.maintained.remove(&peer);
                }
            }
            Output::Voters(voters) => self.set_voters(node, voters),
            Output::Form(table) => self.form_log(node, *table),
            Output::Rejoined => {
                let incarnation = self.engine(node).table().incarnation;
                self.leave_logs(node, incarnation);
            }
            Output::Left => self.left(node),
            Output::TableChanged => {}
        }
    }

    fn left(&mut self, node: NodeId) {
        tracing::debug!(%node, "left");
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.left = true;
        }
        for peer in self.network.neighbours(node) {
            self.after(LINK_FLUSH_US, Event::LinkDown(peer, node));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, class: Class, frame: Bytes) {
        self.largest_frame_bytes = self.largest_frame_bytes.max(frame.len());
        for at_us in self.network.arrivals(&mut self.random, self.now_us, from, to, class) {
            self.at(at_us, Event::Frame(from, to, frame.clone()));
        }
    }

    /// Who an event waits for if it is paused.
    fn receiver(event: &Event) -> Option<NodeId> {
        match event {
            Event::Frame(_, to, _) | Event::Datagram(_, to, _) => Some(*to),
            Event::Tick(node) | Event::LinkUp(node, _) | Event::LinkDown(node, _) => Some(*node),
            Event::Applied(node, _) | Event::Lead(_, node, ..) => Some(*node),
            Event::Commit(..) | Event::Pulse | Event::Wake(_) => None,
        }
    }

    fn note(&mut self, event: &Event) {
        let (kind, a, b, body) = match event {
            Event::Frame(from, to, frame) => (1, from.0, to.0, xxhash_rust::xxh3::xxh3_64(frame)),
            Event::Datagram(from, to, bytes) => (2, from.0, to.0, xxhash_rust::xxh3::xxh3_64(bytes)),
            Event::LinkUp(node, peer) => (3, node.0, peer.0, 0),
            Event::LinkDown(node, peer) => (4, node.0, peer.0, 0),
            Event::Tick(node) => (5, node.0, 0, 0),
            Event::Commit(incarnation, term, entry) => (6, incarnation.0, *term, entry.len() as u64),
            Event::Applied(node, table) => (7, node.0, table.incarnation.0, table.version.0),
            Event::Lead(_, node, term, leader) => (8, node.0, *term, leader.map_or(0, |leader| leader.0)),
            Event::Pulse => (9, 0, 0, 0),
            Event::Wake(token) => (10, *token, 0, 0),
        };
        self.events_count += 1;
        for word in [self.now_us, kind, a, b, body] {
            self.trace = (self.trace ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        }
    }

    fn happen(&mut self, event: Event) -> Step {
        let receiver = Cluster::receiver(&event);
        if let Some(node) = receiver {
            let Some(sim) = self.nodes.get(&node).filter(|sim| sim.up && !sim.left) else {
                return Step::Other;
            };
            // A paused process takes everything up when it goes on.
            if sim.paused_until_us > self.now_us {
                self.at(sim.paused_until_us, event);
                return Step::Other;
            }
        }
        self.note(&event);
        match event {
            Event::Frame(from, to, frame) => {
                // What was on its way goes with the link to a node that is no more (seed 902912).
                let delivered = self.network.linked(from, to) || self.lives(from);
                if delivered && self.network.carries(from, to) {
                    self.input(to, |engine, now| engine.frame(now, from, &frame));
                }
            }
            Event::Datagram(from, to, bytes) => {
                if self.network.carries(from, to) {
                    self.input(to, |engine, now| engine.datagram(now, from, &bytes));
                }
            }
            Event::LinkUp(node, peer) => {
                if self.network.linked(node, peer) {
                    let engine = &self.nodes[&peer].engine;
                    let (quic, incarnation) = (engine.member().quic, engine.table().incarnation);
                    self.input(node, |engine, now| engine.link_up(now, peer, quic, incarnation));
                }
            }
            Event::LinkDown(node, peer) => {
                if !self.lives(peer) {
                    self.network.unlink(node, peer);
                }
                self.input(node, |engine, now| engine.link_down(now, peer));
            }
            Event::Tick(node) => {
                self.input(node, |engine, now| engine.tick(now));
                let sim = &self.nodes[&node];
                let wake_us = sim.clock.true_us(sim.engine.next_wake_us()).max(self.now_us + 1);
                self.at(wake_us, Event::Tick(node));
            }
            Event::Commit(incarnation, term, entry) => self.commit(incarnation, term, &entry),
            Event::Applied(node, table) => {
                if table.incarnation >= self.engine(node).table().incarnation {
                    self.input(node, |engine, now| engine.table_committed(now, table));
                }
            }
            Event::Lead(incarnation, node, term, leader) => {
                let voters = self.logs.get(&incarnation).map(|log| log.voters.clone()).unwrap_or_default();
                if self.engine(node).table().incarnation == incarnation {
                    self.input(node, |engine, now| {
                        engine.leadership(now, term, leader, voters);
                    });
                } else if self.engine(node).table().incarnation < incarnation {
                    // Its first table is still on the way.
                    self.after(PULSE_US, Event::Lead(incarnation, node, term, leader));
                }
            }
            Event::Pulse => {
                self.pulse();
                self.after(PULSE_US, Event::Pulse);
            }
            Event::Wake(token) => return Step::Wake(token),
        }
        receiver.map_or(Step::Other, Step::Engine)
    }

    /// Links die and come back; the agreed log goes on.
    fn pulse(&mut self) {
        let Cluster { network, nodes, now_us, .. } = self;
        let runs =
            |node| nodes.get(&node).is_some_and(|sim| sim.up && !sim.left && sim.paused_until_us <= *now_us);
        for (a, b) in network.idle_out(*now_us, LINK_IDLE_US, runs) {
            self.after(0, Event::LinkDown(a, b));
            self.after(0, Event::LinkDown(b, a));
        }
        for node in self.live() {
            let maintained = &self.nodes[&node].maintained;
            let unlinked: Vec<NodeId> =
                maintained.iter().copied().filter(|&peer| !self.network.linked(node, peer)).collect();
            for peer in unlinked {
                self.connect(node, peer);
            }
            let joined = self.engine(node).table().members.contains_key(&node);
            if !joined || self.network.neighbours(node).is_empty() {
                self.knock(node);
            }
        }
        self.serve_logs();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command;
    use crate::engine::ids::{MapId, Slot};
    use crate::engine::op::{Op, Submitted};
    use crate::engine::resp::Proto;
    use crate::engine::table::Survival;

    const SETTINGS: ClusterSettings =
        ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival: Survival::Auto };

    fn cluster(seed: u64, nodes: usize) -> (Cluster, Vec<NodeId>) {
        let mut cluster = Cluster::new(seed, NetworkConfig::default(), EngineConfig::default(), SETTINGS);
        let nodes = (0..nodes).map(|_| cluster.start()).collect();
        assert!(cluster.run_until(30_000_000, settled), "{:?}", cluster.agreed());
        (cluster, nodes)
    }

    fn settled(cluster: &Cluster) -> bool {
        let live = cluster.live();
        cluster.agreed().is_some_and(|table| {
            table.members.len() >= live.len()
                && table.partitions.iter().all(|partition| {
                    partition.epoch.0 > 0
                        && partition.learners.is_empty()
                        && partition.isr.len() == live.len().min(2)
                        && partition.isr.iter().all(|node| live.contains(node))
                })
        })
    }

    fn call(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let submitted = cluster.input(node, |engine, now| {
            let spec = command::resolve(args).unwrap();
            let partition = engine.table().partition_of(Slot::of(args[1]));
            let op = Op::new(spec, partition, MapId(0), Proto::Resp2, args);
            Some(engine.submit(now, Ticket { door: 1, number }, &op, &mut out))
        });
        if submitted == Some(Submitted::Done) {
            return Some(out);
        }
        cluster.run_until(15_000_000, |cluster| {
            cluster.replies.iter().any(|(_, ticket, _)| ticket.number == number)
        });
        let index = cluster.replies.iter().position(|(_, ticket, _)| ticket.number == number)?;
        Some(cluster.replies.remove(index).2.to_vec())
    }

    #[test]
    fn one_node_serves() {
        let (mut cluster, nodes) = cluster(1, 1);
        assert_eq!(call(&mut cluster, nodes[0], 1, &[b"SET", b"k", b"v"]).unwrap(), b"+OK\r\n");
        assert_eq!(call(&mut cluster, nodes[0], 2, &[b"GET", b"k"]).unwrap(), b"$1\r\nv\r\n");
    }

    #[test]
    fn three_nodes_form_serve_and_survive_a_kill() {
        let (mut cluster, nodes) = cluster(7, 3);
        for i in 0..100u64 {
            let key = format!("k{i}");
            assert_eq!(call(&mut cluster, nodes[0], i, &[b"SET", key.as_bytes(), b"v"]).unwrap(), b"+OK\r\n");
        }
        cluster.crash(nodes[2]);
        for i in 0..100u64 {
            let key = format!("k{i}");
            assert_eq!(
                call(&mut cluster, nodes[1], 1000 + i, &[b"GET", key.as_bytes()]).unwrap(),
                b"$1\r\nv\r\n",
                "{key}"
            );
        }
        assert!(cluster.run_until(30_000_000, settled));
    }
}
