//! The network between simulated nodes: who reaches whom, how long it takes, what gets lost.

use super::random::Random;
use crate::engine::frame::Class;
use crate::engine::ids::NodeId;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// How the network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Shortest delay of a frame.
    pub delay_us_min: u64,
    /// Longest delay of a frame.
    pub delay_us_max: u64,
    /// Frames lost, per million.
    pub loss_per_million: u32,
    /// Frames delivered twice, per million.
    pub duplicate_per_million: u32,
    /// Frames of one class may overtake each other, and duplicates come up to seconds later.
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

/// A duplicate that isn't prompt comes within so long.
const LATE_US_MAX: u64 = 4_000_000;

/// Two nodes, the lower id first.
type Pair = (NodeId, NodeId);

fn pair(a: NodeId, b: NodeId) -> Pair {
    (a.min(b), a.max(b))
}

/// Links, cuts and slow ways.
#[derive(Debug, Default)]
pub struct Network {
    /// Its behaviour; may be changed at any time.
    pub config: NetworkConfig,
    /// Nothing sent by the first reaches the second.
    cuts: BTreeSet<(NodeId, NodeId)>,
    /// What goes to or from these takes so much longer.
    slow_us: BTreeMap<NodeId, u64>,
    /// When both ends of a link last heard each other.
    links: BTreeMap<Pair, u64>,
    /// When the latest frame of an ordered stream arrives.
    arrivals: BTreeMap<(NodeId, NodeId, usize), u64>,
}

impl Network {
    /// A network without links.
    pub fn new(config: NetworkConfig) -> Network {
        Network { config, ..Network::default() }
    }

    /// Nothing sent by `from` reaches `to` any more.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    /// Whatever goes to or from `node` takes `us` longer.
    pub fn slow_down(&mut self, node: NodeId, us: u64) {
        self.slow_us.insert(node, us);
    }

    /// Takes all cuts and slow ways back.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.slow_us.clear();
    }

    /// Whether what `from` sends reaches `to`.
    pub fn carries(&self, from: NodeId, to: NodeId) -> bool {
        from == to || self.cuts.is_empty() || !self.cuts.contains(&(from, to))
    }

    /// Whether two nodes have a link, dead as it may be.
    pub fn linked(&self, a: NodeId, b: NodeId) -> bool {
        self.links.contains_key(&pair(a, b))
    }

    /// Sets a link up; false if there is one.
    pub fn link(&mut self, a: NodeId, b: NodeId, now_us: u64) -> bool {
        self.links.insert(pair(a, b), now_us).is_none()
    }

    /// Drops a link; false if there is none.
    pub fn unlink(&mut self, a: NodeId, b: NodeId) -> bool {
        self.links.remove(&pair(a, b)).is_some()
    }

    /// Those that `node` has links to.
    pub fn neighbours(&self, node: NodeId) -> Vec<NodeId> {
        let other = |&(a, b): &Pair| match () {
            () if a == node => Some(b),
            () if b == node => Some(a),
            () => None,
        };
        self.links.keys().filter_map(other).collect()
    }

    /// Drops the links whose ends have not heard each other for `idle_us`, and returns them.
    pub fn idle_out(&mut self, now_us: u64, idle_us: u64, runs: impl Fn(NodeId) -> bool) -> Vec<Pair> {
        let Network { links, cuts, .. } = self;
        let mut lost = Vec::new();
        links.retain(|&(a, b), heard_us| {
            if runs(a) && runs(b) && !cuts.contains(&(a, b)) && !cuts.contains(&(b, a)) {
                *heard_us = now_us;
            }
            let idle = now_us >= *heard_us + idle_us;
            if idle {
                lost.push((a, b));
            }
            !idle
        });
        lost
    }

    /// How long something takes where nothing is slow.
    pub fn delay_us(&self, random: &mut Random) -> u64 {
        random.between(self.config.delay_us_min, self.config.delay_us_max)
    }

    /// How long something takes between two nodes.
    pub fn delay_between_us(&self, random: &mut Random, a: NodeId, b: NodeId) -> u64 {
        let slow_us = |node| self.slow_us.get(&node).copied().unwrap_or(0);
        self.delay_us(random) + if self.slow_us.is_empty() { 0 } else { slow_us(a) + slow_us(b) }
    }

    /// When each copy of a frame sent now arrives; none if it is lost.
    pub fn arrivals(
        &mut self,
        random: &mut Random,
        now_us: u64,
        from: NodeId,
        to: NodeId,
        class: Class,
    ) -> SmallVec<[u64; 2]> {
        let mut arrivals = SmallVec::new();
        if !self.linked(from, to)
            || !self.carries(from, to)
            || random.per_million(self.config.loss_per_million)
        {
            return arrivals;
        }
        let copies = 1 + usize::from(random.per_million(self.config.duplicate_per_million));
        for copy in 0..copies {
            let mut at_us = now_us + self.delay_between_us(random, from, to);
            if !self.config.reorder {
                let latest = self.arrivals.entry((from, to, class.index())).or_default();
                at_us = at_us.max(*latest + 1);
                *latest = at_us;
            } else if copy > 0 && random.per_million(300_000) {
                at_us += random.below(LATE_US_MAX);
            }
            arrivals.push(at_us);
        }
        arrivals
    }
}
