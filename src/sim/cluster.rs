//! A cluster of production engines under virtual time.
//!
//! One seed decides everything: delays, losses, who crashes when. The network loses, duplicates,
//! delays and reorders; nodes crash (for good), pause and join. The agreed log is a service: one
//! live voter leads, an entry commits after a delay, a dead leader is replaced after an election.

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
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::SocketAddr;
use std::sync::Arc;

/// Pseudo-random numbers of one run (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// True so many times in a million.
    pub fn per_million(&mut self, share: u32) -> bool {
        self.below(1_000_000) < u64::from(share)
    }
}

/// How the network behaves.
#[derive(Clone, Copy, Debug)]
pub struct NetworkConfig {
    /// Shortest delay of a frame.
    pub delay_us_min: u64,
    /// Longest delay of a frame.
    pub delay_us_max: u64,
    /// Frames lost, per million.
    pub loss_per_million: u32,
    /// Frames delivered twice, per million.
    pub duplicate_per_million: u32,
    /// Frames of one class may overtake each other.
    pub reorder: bool,
}

impl Default for NetworkConfig {
    fn default() -> NetworkConfig {
        NetworkConfig {
            delay_us_min: 50,
            delay_us_max: 500,
            loss_per_million: 0,
            duplicate_per_million: 0,
            reorder: false,
        }
    }
}

#[derive(Debug)]
enum Event {
    Frame(NodeId, NodeId, Class, Bytes),
    Datagram(NodeId, NodeId, Bytes),
    LinkUp(NodeId, NodeId),
    LinkDown(NodeId, NodeId),
    Tick(NodeId),
    Commit(Incarnation, TableEntry),
    Applied(NodeId, Arc<Table>),
    Elect(Incarnation),
    Lead(NodeId, u64, Option<NodeId>),
}

/// One simulated node.
pub struct SimNode {
    /// The production engine.
    pub engine: Engine,
    /// Whether the process lives.
    pub up: bool,
    /// Until when it is paused.
    pub paused_until_us: u64,
    /// Whether it has left in good order.
    pub left: bool,
    quic: SocketAddr,
    maintained: BTreeSet<NodeId>,
}

/// The agreed log of one incarnation.
struct Log {
    table: Arc<Table>,
    voters: Vec<NodeId>,
    leader: Option<NodeId>,
    term: u64,
}

/// A cluster under virtual time.
pub struct Cluster {
    /// The run's own choices.
    pub random: Random,
    /// The network's behaviour; may be changed at any time.
    pub network: NetworkConfig,
    /// The nodes by id, dead ones included.
    pub nodes: BTreeMap<NodeId, SimNode>,
    /// Replies that clients have not taken yet, with the node that gave them.
    pub replies: Vec<(NodeId, Ticket, ReplyBytes)>,
    now_us: u64,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    bodies: BTreeMap<u64, Event>,
    next_event: u64,
    logs: BTreeMap<Incarnation, Log>,
    links: BTreeSet<(NodeId, NodeId)>,
    ordered: BTreeMap<(NodeId, NodeId, usize), u64>,
    cut: BTreeSet<(NodeId, NodeId)>,
    config: EngineConfig,
    /// A running hash of every event, to compare runs.
    pub trace: u64,
}

const EPOCH_MS: u64 = 1_700_000_000_000;
const LINK_SETUP_US: u64 = 2_000;
const LINK_LOSS_US: u64 = 3_000_000;
const ELECTION_US: u64 = 1_800_000;

impl Cluster {
    /// An empty cluster.
    pub fn new(seed: u64, network: NetworkConfig, config: EngineConfig) -> Cluster {
        Cluster {
            random: Random::new(seed),
            network,
            nodes: BTreeMap::new(),
            replies: Vec::new(),
            now_us: 1_000_000,
            events: BinaryHeap::new(),
            bodies: BTreeMap::new(),
            next_event: 0,
            logs: BTreeMap::new(),
            links: BTreeSet::new(),
            ordered: BTreeMap::new(),
            cut: BTreeSet::new(),
            config,
            trace: 0,
        }
    }

    /// The time at every node that doesn't have a clock of its own.
    pub fn now(&self) -> Now {
        Now { mono_us: self.now_us, wall_ms: EPOCH_MS + self.now_us / 1_000 }
    }

    /// Starts a node; the first one forms the cluster, the others join by a live one.
    pub fn start(&mut self, settings: ClusterSettings) -> NodeId {
        let node = NodeId(self.random.next() | 1);
        let port = 1_000 + self.nodes.len() as u16;
        let quic = SocketAddr::from(([127, 0, 0, 1], port));
        let member = Member {
            node,
            name: format!("n{}", self.nodes.len()),
            quic,
            resp: quic,
            admin: quic,
            zone: None,
            weight: 100,
            status: MemberStatus::Up,
        };
        let engine = Engine::new(member, self.config, MembershipConfig::default(), self.random.next());
        let seed = self.nodes.iter().find(|(_, other)| other.up && !other.left).map(|(&node, _)| node);
        let sim = SimNode { engine, up: true, paused_until_us: 0, left: false, quic, maintained: BTreeSet::new() };
        self.nodes.insert(node, sim);
        match seed {
            None => {
                let now = self.now();
                let incarnation = Incarnation::first(self.random.next());
                self.input(node, |engine| engine.form(now, incarnation, settings));
            }
            Some(seed) => self.connect(node, seed),
        }
        let phase = self.random.below(20_000);
        self.at(phase, Event::Tick(node));
        node
    }

    /// The process is gone, at once and for good.
    pub fn crash(&mut self, node: NodeId) {
        if let Some(sim) = self.nodes.get_mut(&node) {
            sim.up = false;
        }
        let peers: Vec<NodeId> = self.links.iter().filter(|(a, _)| *a == node).map(|&(_, b)| b).collect();
        for peer in peers {
            self.links.remove(&(node, peer));
            self.links.remove(&(peer, node));
            self.at(LINK_LOSS_US, Event::LinkDown(peer, node));
        }
        let incarnations: Vec<Incarnation> =
            self.logs.iter().filter(|(_, log)| log.leader == Some(node)).map(|(&incarnation, _)| incarnation).collect();
        for incarnation in incarnations {
            self.at(ELECTION_US, Event::Elect(incarnation));
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
        let now = self.now();
        self.input(node, |engine| engine.leave(now));
    }

    /// Nothing sent by `from` reaches `to` any more.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
        for (a, b) in [(from, to), (to, from)] {
            if self.links.remove(&(a, b)) {
                self.at(LINK_LOSS_US, Event::LinkDown(a, b));
            }
        }
    }

    /// All cuts are healed.
    pub fn heal(&mut self) {
        self.cut.clear();
        let wanted: Vec<(NodeId, NodeId)> = self
            .nodes
            .iter()
            .flat_map(|(&node, sim)| sim.maintained.iter().map(move |&peer| (node, peer)))
            .collect();
        for (node, peer) in wanted {
            self.connect(node, peer);
        }
    }

    /// The nodes that live.
    pub fn live(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, sim)| sim.up && !sim.left).map(|(&node, _)| node).collect()
    }

    /// The engine of a node, for looking.
    pub fn engine(&self, node: NodeId) -> &Engine {
        &self.nodes[&node].engine
    }

    /// Gives the engine of a live node an input and carries out what it wants.
    pub fn input<R: Default>(&mut self, node: NodeId, input: impl FnOnce(&mut Engine) -> R) -> R {
        let now = self.now();
        let Some(sim) = self.nodes.get_mut(&node).filter(|sim| sim.up) else { return R::default() };
        let result = input(&mut sim.engine);
        sim.engine.flush(now);
        let mut outputs = Vec::new();
        while let Some(output) = sim.engine.poll() {
            outputs.push(output);
        }
        for output in outputs {
            self.act(node, output);
        }
        result
    }

    /// Runs until `us` from now.
    pub fn run(&mut self, us: u64) {
        let end = self.now_us + us;
        while let Some(&Reverse((at, id))) = self.events.peek() {
            if at > end {
                break;
            }
            self.events.pop();
            self.now_us = self.now_us.max(at);
            if let Some(event) = self.bodies.remove(&id) {
                self.happen(event);
            }
        }
        self.now_us = end;
    }

    /// Runs until the condition holds, looking every 10 ms; false if it doesn't within `us_max`.
    pub fn run_until(&mut self, us_max: u64, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        let end = self.now_us + us_max;
        loop {
            if done(self) {
                return true;
            }
            if self.now_us >= end {
                return false;
            }
            self.run(10_000);
        }
    }

    fn at(&mut self, delay_us: u64, event: Event) {
        let id = self.next_event;
        self.next_event += 1;
        self.events.push(Reverse((self.now_us + delay_us, id)));
        self.bodies.insert(id, event);
    }

    fn postpone(&mut self, until_us: u64, event: Event) {
        self.at(until_us.saturating_sub(self.now_us), event);
    }

    fn reaches(&self, from: NodeId, to: NodeId) -> bool {
        let lives = |node| self.nodes.get(&node).is_some_and(|sim| sim.up && !sim.left);
        lives(from) && lives(to) && !self.cut.contains(&(from, to))
    }

    fn connect(&mut self, a: NodeId, b: NodeId) {
        let possible = self.reaches(a, b) && self.reaches(b, a);
        if possible && self.links.insert((a, b)) {
            self.links.insert((b, a));
            self.at(LINK_SETUP_US, Event::LinkUp(a, b));
            self.at(LINK_SETUP_US, Event::LinkUp(b, a));
        }
    }

    fn delay(&mut self) -> u64 {
        let span = self.network.delay_us_max - self.network.delay_us_min;
        self.network.delay_us_min + self.random.below(span + 1)
    }

    fn act(&mut self, node: NodeId, output: Output) {
        match output {
            Output::Complete(ticket, reply) => self.replies.push((node, ticket, reply)),
            Output::Send(to, class, frame) => self.send(node, to, class, frame),
            Output::Datagram(to, _, bytes) => {
                if self.links.contains(&(node, to)) && !self.random.per_million(self.network.loss_per_million) {
                    let delay = self.delay();
                    self.at(delay, Event::Datagram(node, to, bytes));
                }
            }
            Output::Propose(entry) => {
                let incarnation = self.engine(node).table().incarnation;
                let leads = self.logs.get(&incarnation).is_some_and(|log| log.leader == Some(node));
                if leads && self.has_majority(incarnation, node) {
                    let delay = 2 * self.delay();
                    self.at(delay, Event::Commit(incarnation, entry));
                }
            }
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
            Output::Voters(voters) => {
                let incarnation = self.engine(node).table().incarnation;
                if self.has_majority(incarnation, node)
                    && let Some(log) = self.logs.get_mut(&incarnation)
                    && log.leader == Some(node)
                {
                    log.voters = voters;
                    if !log.voters.contains(&node) {
                        log.leader = None;
                        self.at(ELECTION_US, Event::Elect(incarnation));
                    }
                    self.tell_leader(incarnation);
                }
            }
            Output::Form(table) => {
                let incarnation = table.incarnation;
                let table = Arc::new(*table);
                self.logs.insert(incarnation, Log { table: table.clone(), voters: vec![node], leader: Some(node), term: 1 });
                self.at(0, Event::Applied(node, table));
                self.tell_leader(incarnation);
            }
            Output::Left => {
                if let Some(sim) = self.nodes.get_mut(&node) {
                    sim.left = true;
                }
                let peers: Vec<NodeId> = self.links.iter().filter(|(a, _)| *a == node).map(|&(_, b)| b).collect();
                for peer in peers {
                    self.links.remove(&(node, peer));
                    self.links.remove(&(peer, node));
                    self.at(LINK_SETUP_US, Event::LinkDown(peer, node));
                }
            }
            Output::Rejoined | Output::TableChanged => {}
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, class: Class, frame: Bytes) {
        if !self.links.contains(&(from, to)) || self.random.per_million(self.network.loss_per_million) {
            return;
        }
        let copies = 1 + u32::from(self.random.per_million(self.network.duplicate_per_million));
        for _ in 0..copies {
            let mut at = self.now_us + self.delay();
            if !self.network.reorder {
                let last = self.ordered.entry((from, to, class.index())).or_default();
                at = at.max(*last + 1);
                *last = at;
            }
            self.postpone(at, Event::Frame(from, to, class, frame.clone()));
        }
    }

    fn has_majority(&self, incarnation: Incarnation, node: NodeId) -> bool {
        let Some(log) = self.logs.get(&incarnation) else { return false };
        let near = log
            .voters
            .iter()
            .filter(|&&voter| voter == node || (self.reaches(node, voter) && self.reaches(voter, node)))
            .count();
        near * 2 > log.voters.len()
    }

    fn tell_leader(&mut self, incarnation: Incarnation) {
        let Some(log) = self.logs.get(&incarnation) else { return };
        let (voters, leader, term) = (log.voters.clone(), log.leader, log.term);
        for node in voters {
            let delay = self.delay();
            self.at(delay, Event::Lead(node, term, leader));
        }
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        // A paused process takes everything up when it goes on.
        let receiver = match &event {
            Event::Frame(_, to, ..) | Event::Datagram(_, to, _) => Some(*to),
            Event::Tick(node) | Event::LinkUp(node, _) | Event::LinkDown(node, _) => Some(*node),
            Event::Applied(node, _) | Event::Lead(node, ..) => Some(*node),
            Event::Commit(..) | Event::Elect(_) => None,
        };
        if let Some(node) = receiver {
            let Some(sim) = self.nodes.get(&node).filter(|sim| sim.up && !sim.left) else { return };
            if sim.paused_until_us > self.now_us {
                let until = sim.paused_until_us;
                self.postpone(until, event);
                return;
            }
        }
        self.trace = (self.trace ^ self.now_us).wrapping_mul(0x0000_0100_0000_01B3);
        match event {
            Event::Frame(from, to, _, frame) => {
                if self.reaches(from, to) {
                    self.input(to, |engine| engine.frame(now, from, &frame));
                }
            }
            Event::Datagram(from, to, bytes) => {
                if self.reaches(from, to) {
                    self.input(to, |engine| engine.datagram(now, from, &bytes));
                }
            }
            Event::LinkUp(node, peer) => {
                if self.links.contains(&(node, peer)) {
                    let (quic, incarnation) = {
                        let sim = &self.nodes[&peer];
                        (sim.quic, sim.engine.table().incarnation)
                    };
                    self.input(node, |engine| engine.link_up(now, peer, quic, incarnation));
                }
            }
            Event::LinkDown(node, peer) => {
                if !self.links.contains(&(node, peer)) {
                    self.input(node, |engine| engine.link_down(now, peer));
                }
            }
            Event::Tick(node) => {
                self.input(node, |engine| engine.tick(now));
                let wake_us = self.engine(node).next_wake_us();
                self.postpone(wake_us, Event::Tick(node));
            }
            Event::Commit(incarnation, entry) => {
                let Some(log) = self.logs.get_mut(&incarnation) else { return };
                let mut table = (*log.table).clone();
                table.apply(&entry);
                log.table = Arc::new(table);
                let (table, voters) = (log.table.clone(), log.voters.clone());
                for voter in voters {
                    let delay = self.delay();
                    self.at(delay, Event::Applied(voter, table.clone()));
                }
            }
            Event::Applied(node, table) => self.input(node, |engine| engine.table_committed(now, table)),
            Event::Elect(incarnation) => {
                let Some(log) = self.logs.get(&incarnation) else { return };
                if log.leader.is_some_and(|leader| self.reaches(leader, leader)) {
                    return;
                }
                let candidates: Vec<NodeId> = log
                    .voters
                    .iter()
                    .copied()
                    .filter(|&voter| self.reaches(voter, voter) && self.has_majority(incarnation, voter))
                    .collect();
                if candidates.is_empty() {
                    self.at(ELECTION_US, Event::Elect(incarnation));
                    return;
                }
                let pick = self.random.below(candidates.len() as u64) as usize;
                if let Some(log) = self.logs.get_mut(&incarnation) {
                    log.term += 1;
                    log.leader = Some(candidates[pick]);
                    let table = log.table.clone();
                    self.at(0, Event::Applied(candidates[pick], table));
                }
                self.tell_leader(incarnation);
            }
            Event::Lead(node, term, leader) => {
                let incarnation = self.engine(node).table().incarnation;
                let voters = self.logs.get(&incarnation).map(|log| log.voters.clone()).unwrap_or_default();
                self.input(node, |engine| {
                    engine.set_voters(voters);
                    engine.leadership(now, term, leader);
                });
            }
        }
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

    fn settings(partitions: u16) -> ClusterSettings {
        ClusterSettings { partitions, replicas: 2, min_copies: 2, survival: Survival::Auto }
    }

    fn settled(cluster: &Cluster) -> bool {
        cluster.live().iter().all(|&node| {
            let table = cluster.engine(node).table();
            let wanted = 2.min(cluster.live().len());
            table.members.len() == cluster.live().len()
                && table.partitions.iter().all(|a| {
                    a.epoch.0 > 0 && a.learners.is_empty() && a.isr.len() == wanted && a.isr.iter().all(|n| cluster.live().contains(n))
                })
        })
    }

    fn send(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Option<Vec<u8>> {
        let now = cluster.now();
        let mut out = Vec::new();
        let submitted = cluster.input(node, |engine| {
            let spec = command::resolve(args).unwrap();
            let partition = engine.table().partition_of(Slot::of(args[1]));
            let op = Op { spec, partition, map: MapId(0), proto: Proto::Resp2, exactly_once: None, args };
            Some(engine.submit(now, Ticket { door: 1, number }, &op, &mut out))
        });
        (submitted == Some(Submitted::Done)).then_some(out)
    }

    fn call(cluster: &mut Cluster, node: NodeId, number: u64, args: &[&[u8]]) -> Option<Vec<u8>> {
        if let Some(reply) = send(cluster, node, number, args) {
            return Some(reply);
        }
        let mut found = None;
        for _ in 0..3_000 {
            cluster.run(5_000);
            if let Some(index) = cluster.replies.iter().position(|(n, ticket, _)| *n == node && ticket.number == number) {
                found = Some(cluster.replies.remove(index).2.to_vec());
                break;
            }
        }
        found
    }

    #[test]
    fn one_node_serves() {
        let mut cluster = Cluster::new(1, NetworkConfig::default(), EngineConfig::default());
        let a = cluster.start(settings(16));
        assert!(cluster.run_until(5_000_000, settled), "{:?}", cluster.engine(a).table());
        assert_eq!(call(&mut cluster, a, 1, &[b"SET", b"k", b"v"]).unwrap(), b"+OK\r\n");
        assert_eq!(call(&mut cluster, a, 2, &[b"GET", b"k"]).unwrap(), b"$1\r\nv\r\n");
    }

    #[test]
    fn three_nodes_form_serve_and_survive_a_kill() {
        let mut cluster = Cluster::new(7, NetworkConfig::default(), EngineConfig::default());
        let a = cluster.start(settings(16));
        let b = cluster.start(settings(16));
        let c = cluster.start(settings(16));
        assert!(cluster.run_until(30_000_000, settled), "{:#?}", cluster.engine(a).table());
        for i in 0..100u64 {
            let key = format!("k{i}");
            assert_eq!(call(&mut cluster, a, i, &[b"SET", key.as_bytes(), b"v"]).unwrap(), b"+OK\r\n");
        }
        cluster.crash(c);
        for i in 0..100u64 {
            let key = format!("k{i}");
            assert_eq!(call(&mut cluster, b, 1000 + i, &[b"GET", key.as_bytes()]).unwrap(), b"$1\r\nv\r\n", "{key}");
        }
        assert!(cluster.run_until(60_000_000, |cluster| {
            cluster.live().iter().all(|&node| {
                cluster.engine(node).table().partitions.iter().all(|x| x.isr.len() == 2 && x.learners.is_empty() && !x.isr.contains(&c))
            })
        }));
        cluster.crash(a);
        cluster.run(1);
        assert_eq!(cluster.live(), vec![b]);
    }
}
