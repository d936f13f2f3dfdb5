//! Placement: who should hold which partition. A pure function of the members and of who held
//! what before.
//!
//! The rules, strongest first:
//! 1. never two copies on one node, nor in one zone if there are enough zones;
//! 2. shares by weight: every node's copies, and its primaries, are its exact share rounded down
//!    or up;
//! 3. who held a copy before keeps it unless over its share: a join moves the newcomer's share and
//!    nothing else, a death moves what the dead node held;
//! 4. the partitions that two nodes have in common are spread evenly over all pairs of nodes, so
//!    that a dead node's load falls on all the others alike;
//! 5. new copies go where a hash ring prefers them (Karger et al., "Consistent Hashing and Random
//!    Trees", 1997), so that a fresh cluster looks the same wherever it is computed.

mod ring;
mod share;
#[cfg(test)]
mod tests;

use super::ids::NodeId;
use super::table::Table;
use ring::Ring;
use share::{apportion, shares};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A member that may hold partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Share relative to the others; 0 holds nothing.
    pub weight: u16,
    /// Failure domain; a node without one is its own.
    pub zone: Option<String>,
}

/// The members that are given partitions: neither leaving, down nor without a weight.
pub fn candidates(table: &Table) -> Vec<Candidate> {
    table
        .owners()
        .map(|member| Candidate { node: member.node, weight: member.weight, zone: member.zone.clone() })
        .collect()
}

/// The desired owners of each partition, the primary first: `replicas` of them, or one on each
/// candidate if they are fewer.
///
/// `previous` is who holds each partition now, the primary first, copies under way included; it
/// may be shorter than `partitions`, name strangers, and name more nodes than `replicas`. Placing
/// the result again changes nothing.
pub fn desired(
    members: &[Candidate],
    partitions: usize,
    replicas: usize,
    previous: &[Vec<NodeId>],
) -> Vec<Vec<NodeId>> {
    let mut nodes: Vec<&Candidate> = members.iter().filter(|member| member.weight > 0).collect();
    nodes.sort_by_key(|member| member.node);
    nodes.dedup_by_key(|member| member.node);
    let replicas = replicas.min(nodes.len());
    if replicas == 0 {
        return vec![Vec::new(); partitions];
    }
    let mut layout = Layout::new(&nodes, partitions, replicas);
    layout.keep(previous);
    layout.set_quotas();
    layout.fill();
    layout.level();
    layout.appoint(previous);
    layout.owners()
}

/// Nodes beyond this don't keep count of their pairs: with so many, chance spreads well enough.
const PAIRED_NODES_MAX: usize = 1_024;
/// How far the ring is walked for a preferred node before any will do.
const PREFERENCE_MAX: usize = 32;
/// Of so many copies that a node may give up the best is chosen. All of them would be a little
/// better and, with many partitions, much slower.
const CHOICE_MAX: usize = 64;
/// A pair's count is compared in this many parts of a partition.
const PAIR_PARTS: u64 = 1_024;

/// An index into `Layout::nodes`.
type Node = usize;

struct Layout<'a> {
    nodes: &'a [&'a Candidate],
    replicas: usize,
    /// The failure domain of each node; two copies never share one.
    domain: Vec<usize>,
    domain_count: usize,
    /// The zone of each node: that which copies should not share if it can be helped.
    zone: Vec<usize>,
    /// The owners of each partition.
    sets: Vec<Vec<Node>>,
    /// The partitions of each node.
    held: Vec<BTreeSet<usize>>,
    /// Partitions in common, for each pair of nodes; empty beyond [`PAIRED_NODES_MAX`].
    pairs: Vec<u16>,
    /// Copies due to each node.
    quota: Vec<usize>,
    /// The primary of each partition, once appointed.
    primary: Vec<Option<Node>>,
}

impl<'a> Layout<'a> {
    fn new(nodes: &'a [&'a Candidate], partitions: usize, replicas: usize) -> Layout<'a> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut count = 0;
        let zone: Vec<usize> = nodes
            .iter()
            .map(|member| {
                let fresh = count;
                let zone = match &member.zone {
                    Some(name) => *names.entry(name).or_insert(fresh),
                    None => fresh,
                };
                count += usize::from(zone == fresh);
                zone
            })
            .collect();
        let (domain, domain_count) =
            if count >= replicas { (zone.clone(), count) } else { ((0..nodes.len()).collect(), nodes.len()) };
        let paired = if nodes.len() <= PAIRED_NODES_MAX { nodes.len() * nodes.len() } else { 0 };
        Layout {
            nodes,
            replicas,
            domain,
            domain_count,
            zone,
            sets: vec![Vec::with_capacity(replicas); partitions],
            held: vec![BTreeSet::new(); nodes.len()],
            pairs: vec![0; paired],
            quota: vec![0; nodes.len()],
            primary: vec![None; partitions],
        }
    }

    fn add(&mut self, partition: usize, node: Node) {
        for index in 0..self.sets[partition].len() {
            self.count_pair(node, self.sets[partition][index], 1);
        }
        self.sets[partition].push(node);
        self.held[node].insert(partition);
    }

    fn remove(&mut self, partition: usize, node: Node) {
        self.sets[partition].retain(|&other| other != node);
        self.held[node].remove(&partition);
        for index in 0..self.sets[partition].len() {
            self.count_pair(node, self.sets[partition][index], -1);
        }
    }

    fn count_pair(&mut self, a: Node, b: Node, by: i16) {
        if !self.pairs.is_empty() {
            let width = self.nodes.len();
            for at in [a * width + b, b * width + a] {
                self.pairs[at] = self.pairs[at].saturating_add_signed(by);
            }
        }
    }

    /// How much `node` already has in common with the owners of a partition, `without` one.
    fn crowding(&self, partition: usize, node: Node, without: Option<Node>) -> u64 {
        if self.pairs.is_empty() {
            return 0;
        }
        let common: u64 = self.sets[partition]
            .iter()
            .filter(|&&owner| Some(owner) != without)
            .map(|&owner| u64::from(self.pairs[owner * self.nodes.len() + node]))
            .sum();
        common * PAIR_PARTS / u64::from(self.nodes[node].weight)
    }

    /// Whether `node` may get a copy of a partition once `without` has given up its own.
    fn fits(&self, partition: usize, node: Node, without: Option<Node>) -> bool {
        self.sets[partition]
            .iter()
            .filter(|&&owner| Some(owner) != without)
            .all(|&owner| owner != node && self.domain[owner] != self.domain[node])
    }

    /// How many owners of a partition share the zone of `node`.
    fn neighbours(&self, partition: usize, node: Node) -> usize {
        self.sets[partition].iter().filter(|&&owner| self.zone[owner] == self.zone[node]).count()
    }

    fn has_room(&self, node: Node) -> bool {
        self.held[node].len() < self.quota[node]
    }

    /// How full a node is, for comparison: copies by weight.
    fn fullness(&self, node: Node) -> u64 {
        self.held[node].len() as u64 * PAIR_PARTS / u64::from(self.nodes[node].weight)
    }

    /// Takes over who holds what. Where that is more than wanted, the fullest node's copy goes.
    fn keep(&mut self, previous: &[Vec<NodeId>]) {
        let index: BTreeMap<NodeId, Node> =
            self.nodes.iter().enumerate().map(|(index, member)| (member.node, index)).collect();
        for (partition, owners) in previous.iter().take(self.sets.len()).enumerate() {
            for node in owners.iter().filter_map(|owner| index.get(owner)) {
                if self.fits(partition, *node, None) {
                    self.add(partition, *node);
                }
            }
        }
        for partition in 0..self.sets.len() {
            while self.sets[partition].len() > self.replicas {
                // Of equally full ones the last goes: it is the one copied least.
                let fullest = self.sets[partition].iter().copied().max_by_key(|&node| self.fullness(node));
                let Some(node) = fullest else { break };
                self.remove(partition, node);
            }
        }
    }

    /// Copies due to each domain, and in it to each node.
    fn set_quotas(&mut self) {
        let partitions = self.sets.len();
        let mut members = vec![Vec::new(); self.domain_count];
        for (node, &domain) in self.domain.iter().enumerate() {
            members[domain].push(node);
        }
        let weight = |node: Node| u64::from(self.nodes[node].weight);
        let weights: Vec<u64> =
            members.iter().map(|nodes| nodes.iter().map(|&node| weight(node)).sum()).collect();
        let held: Vec<usize> =
            members.iter().map(|nodes| nodes.iter().map(|&node| self.held[node].len()).sum()).collect();
        let caps = vec![partitions; self.domain_count];
        let total = partitions * self.replicas;
        let due = apportion(total, &shares(total, &weights, &caps), &held, &caps);
        for (nodes, due) in members.iter().zip(due) {
            let weights: Vec<u64> = nodes.iter().map(|&node| weight(node)).collect();
            let held: Vec<usize> = nodes.iter().map(|&node| self.held[node].len()).collect();
            let caps = vec![partitions; nodes.len()];
            let quotas = apportion(due, &shares(due, &weights, &caps), &held, &caps);
            for (&node, quota) in nodes.iter().zip(quotas) {
                self.quota[node] = quota;
            }
        }
    }

    /// Gives every partition its missing copies.
    fn fill(&mut self) {
        if self.sets.iter().all(|set| set.len() >= self.replicas) {
            return;
        }
        let ring = Ring::new(self.nodes);
        let weights: Vec<u64> = self.nodes.iter().map(|member| member.weight.into()).collect();
        let total_weight: u64 = weights.iter().sum();
        let mut firsts = vec![0usize; self.nodes.len()];
        for partition in 0..self.sets.len() {
            if self.sets[partition].len() >= self.replicas {
                continue;
            }
            let preference = ring.walk(partition, PREFERENCE_MAX);
            if self.sets[partition].is_empty() {
                let first_max =
                    |node: Node| (self.sets.len() as u64 * weights[node]).div_ceil(total_weight) as usize;
                let first = preference
                    .iter()
                    .copied()
                    .find(|&node| self.has_room(node) && firsts[node] < first_max(node))
                    .or_else(|| self.choose(partition, &preference));
                if let Some(node) = first {
                    firsts[node] += 1;
                    self.primary[partition] = Some(node);
                    self.add(partition, node);
                }
            }
            while self.sets[partition].len() < self.replicas {
                let Some(node) = self.choose(partition, &preference) else { break };
                self.add(partition, node);
            }
        }
    }

    /// The best node for one more copy: a preferred one with room, else any with room, else any.
    fn choose(&self, partition: usize, preference: &[Node]) -> Option<Node> {
        let open = |node: &Node| self.fits(partition, *node, None);
        let cost = |node: &Node| (self.neighbours(partition, *node), self.crowding(partition, *node, None));
        let roomy = |node: &Node| open(node) && self.has_room(*node);
        let all = 0..self.nodes.len();
        preference
            .iter()
            .copied()
            .filter(roomy)
            .min_by_key(cost)
            .or_else(|| all.clone().filter(roomy).min_by_key(cost))
            .or_else(|| {
                all.filter(open).min_by_key(|&node| (self.neighbours(partition, node), self.fullness(node)))
            })
    }

    /// Moves copies from nodes above their quota to those below.
    fn level(&mut self) {
        let mut primaries = vec![0usize; self.nodes.len()];
        let partitions = self.sets.len() as u64;
        let total_weight: u64 = self.nodes.iter().map(|member| u64::from(member.weight)).sum();
        // The first owner stands for the primary: copies that also move the primary are given up
        // as long as there are too many of those.
        for set in &self.sets {
            if let Some(&first) = set.first() {
                primaries[first] += 1;
            }
        }
        for (node, primaries) in primaries.iter_mut().enumerate() {
            let primaries_max =
                (partitions * u64::from(self.nodes[node].weight)).div_ceil(total_weight) as usize;
            let mut start = 0;
            while self.held[node].len() > self.quota[node] {
                let as_primary = *primaries > primaries_max;
                match self.best_move(node, as_primary, start) {
                    Some((partition, to)) => {
                        start = partition;
                        if self.sets[partition].first() == Some(&node) {
                            // Zero where it became first only by another node's move.
                            *primaries = primaries.saturating_sub(1);
                        }
                        self.remove(partition, node);
                        self.add(partition, to);
                    }
                    None if self.shift(node) => {}
                    None => break,
                }
            }
        }
    }

    /// The partition that `node` should give up, looked for from `start` on, and the node below its
    /// quota that should have it.
    fn best_move(&self, node: Node, as_primary: bool, start: usize) -> Option<(usize, Node)> {
        let mut roomy: Vec<Node> = (0..self.nodes.len()).filter(|&other| self.has_room(other)).collect();
        roomy.sort_by_key(|&other| self.fullness(other));
        roomy.into_iter().find_map(|to| {
            let around = self.held[node].range(start..).chain(self.held[node].range(..start));
            around
                .copied()
                .filter(|&partition| self.fits(partition, to, Some(node)))
                .take(CHOICE_MAX)
                .min_by_key(|&partition| {
                    let is_primary = self.sets[partition].first() == Some(&node);
                    let crowding = self.crowding(partition, to, Some(node));
                    (self.neighbours(partition, to), is_primary != as_primary, crowding)
                })
                .map(|partition| (partition, to))
        })
    }

    /// Relieves `node` of one copy through others that are full themselves: each gives one on,
    /// until one below its quota is reached. Returns whether there was a way.
    fn shift(&mut self, node: Node) -> bool {
        let mut from: Vec<Option<(Node, usize)>> = vec![None; self.nodes.len()];
        let mut reached = vec![false; self.nodes.len()];
        reached[node] = true;
        let mut queue = VecDeque::from([node]);
        while let Some(giver) = queue.pop_front() {
            for &partition in &self.held[giver] {
                for taker in 0..self.nodes.len() {
                    if reached[taker] || !self.fits(partition, taker, Some(giver)) {
                        continue;
                    }
                    reached[taker] = true;
                    from[taker] = Some((giver, partition));
                    if self.has_room(taker) {
                        return self.shift_along(&from, taker);
                    }
                    queue.push_back(taker);
                }
            }
        }
        false
    }

    fn shift_along(&mut self, from: &[Option<(Node, usize)>], end: Node) -> bool {
        let mut taker = end;
        while let Some((giver, partition)) = from[taker] {
            // Two steps may meet in one partition; the way is then tried only as far as it goes.
            if !self.fits(partition, taker, Some(giver)) {
                return false;
            }
            self.remove(partition, giver);
            self.add(partition, taker);
            taker = giver;
        }
        true
    }

    /// Appoints the primaries among the owners: the previous one if it may stay.
    fn appoint(&mut self, previous: &[Vec<NodeId>]) {
        let mut count = vec![0usize; self.nodes.len()];
        for partition in 0..self.sets.len() {
            if let Some(before) = previous.get(partition).and_then(|owners| owners.first()) {
                self.primary[partition] =
                    self.sets[partition].iter().copied().find(|&owner| self.nodes[owner].node == *before);
            }
            let still = self.primary[partition].filter(|node| self.sets[partition].contains(node));
            self.primary[partition] = still;
            if let Some(node) = still {
                count[node] += 1;
            }
        }
        let partitions = self.sets.len();
        let weights: Vec<u64> = self.nodes.iter().map(|member| member.weight.into()).collect();
        let caps: Vec<usize> = self.held.iter().map(BTreeSet::len).collect();
        let quota = apportion(partitions, &shares(partitions, &weights, &caps), &count, &caps);

        for partition in 0..partitions {
            if self.primary[partition].is_some() {
                continue;
            }
            let held_before = |node: Node| {
                previous.get(partition).is_some_and(|owners| owners.contains(&self.nodes[node].node))
            };
            // A complete copy can take over at once, a new one only when it is filled.
            let best = self.sets[partition].iter().copied().min_by_key(|&node| {
                let full = count[node] >= quota[node];
                (full, !held_before(node), count[node] as u64 * PAIR_PARTS / weights[node])
            });
            if let Some(node) = best {
                self.primary[partition] = Some(node);
                count[node] += 1;
            }
        }
        let mut led = vec![BTreeSet::new(); self.nodes.len()];
        for (partition, primary) in self.primary.iter().enumerate() {
            if let Some(node) = primary {
                led[*node].insert(partition);
            }
        }
        for node in 0..self.nodes.len() {
            while led[node].len() > quota[node] && self.pass_on(node, &mut led, &quota) {}
        }
    }

    /// Relieves `node` of being primary once, through other owners if need be. Returns whether
    /// there was a way.
    fn pass_on(&mut self, node: Node, led: &mut [BTreeSet<usize>], quota: &[usize]) -> bool {
        let mut from: Vec<Option<(Node, usize)>> = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([node]);
        while let Some(giver) = queue.pop_front() {
            for &partition in &led[giver] {
                for &taker in &self.sets[partition] {
                    if taker == node || from[taker].is_some() {
                        continue;
                    }
                    from[taker] = Some((giver, partition));
                    if led[taker].len() >= quota[taker] {
                        queue.push_back(taker);
                        continue;
                    }
                    let mut taker = taker;
                    while let Some((giver, partition)) = from[taker] {
                        self.primary[partition] = Some(taker);
                        led[giver].remove(&partition);
                        led[taker].insert(partition);
                        taker = giver;
                    }
                    return true;
                }
            }
        }
        false
    }

    fn owners(self) -> Vec<Vec<NodeId>> {
        let id = |node: Node| self.nodes[node].node;
        self.sets
            .iter()
            .zip(&self.primary)
            .map(|(set, primary)| {
                let backups = set.iter().copied().filter(|node| Some(*node) != *primary);
                primary.iter().copied().chain(backups).map(id).collect()
            })
            .collect()
    }
}
