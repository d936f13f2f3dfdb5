//! Whole clusters of [`Membership`] over a lossy network in virtual time.

use super::*;
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::time::Now;
use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};

const MS: u64 = 1_000;
const S: u64 = 1_000 * MS;
const CLUSTER: Incarnation = Incarnation(42);

fn now(at_us: u64) -> Now {
    Now { mono_us: at_us, wall_ms: at_us / 1_000 }
}

fn gossip_id(node: usize) -> GossipId {
    let quic = ([127, 0, 0, 1], 7000 + node as u16).into();
    GossipId { node: node_id(node), generation: 0, quic }
}

/// Spread over the whole range, as random ids are, and in another order than the indices.
fn node_id(node: usize) -> NodeId {
    NodeId((node as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

fn index(node: NodeId) -> usize {
    (0..64).find(|&i| node_id(i) == node).expect("a node of the test")
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    Runs,
    /// Datagrams wait, timers don't fire.
    Paused,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Report {
    at_us: u64,
    at: usize,
    what: MembershipOutput,
}

struct Network {
    at_us: u64,
    nodes: Vec<Membership>,
    lives: Vec<Life>,
    /// Which side of a split each node is on.
    sides: Vec<u8>,
    flying: BTreeMap<(u64, u64), (usize, usize, Bytes)>,
    flown: u64,
    waiting: Vec<Vec<(usize, Bytes)>>,
    reports: Vec<Report>,
    random: StdRng,
    loss: f64,
    duplication: f64,
    delay_us: std::ops::Range<u64>,
}

impl Network {
    fn new(count: usize, seed: u64, loss: f64) -> Network {
        let config = MembershipConfig::default();
        let nodes = (0..count).map(|i| {
            let id = gossip_id(i);
            Membership::new(id.node, id.quic, config.clone(), seed)
        });
        Network {
            at_us: 0,
            nodes: nodes.collect(),
            lives: vec![Life::Runs; count],
            sides: vec![0; count],
            flying: BTreeMap::new(),
            flown: 0,
            waiting: vec![Vec::new(); count],
            reports: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            loss,
            duplication: 0.02,
            delay_us: 100..20_000,
        }
    }

    /// Everybody joins through the first node, which alone knows the incarnation.
    fn formed(count: usize, seed: u64, loss: f64) -> Network {
        let mut network = Network::new(count, seed, loss);
        network.nodes[0].set_incarnation(now(0), CLUSTER);
        for i in 1..count {
            network.nodes[i].join(now(0), gossip_id(0));
            network.drain(i);
        }
        network.run(12 * S);
        network.assert_all_know_all();
        network
    }

    fn assert_all_know_all(&self) {
        let alive: BTreeSet<usize> = (0..self.nodes.len()).filter(|&i| self.lives[i] == Life::Runs).collect();
        for &i in &alive {
            let mut known: BTreeSet<usize> =
                self.nodes[i].members().map(|member| index(member.node)).collect();
            known.insert(i);
            assert_eq!(known, alive, "what node {i} knows at {} us", self.at_us);
        }
    }

    fn drain(&mut self, i: usize) {
        while let Some(output) = self.nodes[i].poll() {
            let MembershipOutput::Send { to, addr, bytes } = output else {
                self.reports.push(Report { at_us: self.at_us, at: i, what: output });
                continue;
            };
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
            let to = index(to);
            assert_eq!(addr, gossip_id(to).quic);
            assert_ne!(to, i, "sends to itself");
            let copies = if self.random.random_bool(self.duplication) { 2 } else { 1 };
            for _ in 0..copies {
                if self.sides[i] != self.sides[to] || self.random.random_bool(self.loss) {
                    continue;
                }
                self.flown += 1;
                let lands_us = self.at_us + self.random.random_range(self.delay_us.clone());
                self.flying.insert((lands_us, self.flown), (i, to, bytes.clone()));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, bytes: Bytes) {
        match self.lives[to] {
            Life::Runs => {
                self.nodes[to].datagram(now(self.at_us), node_id(from), &bytes);
                self.drain(to);
            }
            Life::Paused => self.waiting[to].push((from, bytes)),
            Life::Dead => {}
        }
    }

    fn run(&mut self, for_us: u64) {
        let end_us = self.at_us + for_us;
        loop {
            let landing = self.flying.first_key_value().map(|(&(at_us, _), _)| at_us);
            let wake = (0..self.nodes.len())
                .filter(|&i| self.lives[i] == Life::Runs)
                .filter_map(|i| self.nodes[i].next_wake().map(|at_us| (at_us, i)))
                .min();
            let next_us = landing.into_iter().chain(wake.map(|(at_us, _)| at_us)).min();
            let Some(next_us) = next_us.filter(|&at_us| at_us <= end_us) else {
                break;
            };
            self.at_us = self.at_us.max(next_us);
            if landing == Some(next_us) {
                if let Some((_, (from, to, bytes))) = self.flying.pop_first() {
                    self.deliver(from, to, bytes);
                }
            } else if let Some((_, i)) = wake {
                self.nodes[i].tick(now(self.at_us));
                self.drain(i);
            }
        }
        self.at_us = end_us;
    }

    fn pause(&mut self, i: usize) {
        self.lives[i] = Life::Paused;
    }

    /// Timers first, which is the order that hurts.
    fn resume(&mut self, i: usize) {
        self.lives[i] = Life::Runs;
        self.nodes[i].tick(now(self.at_us));
        self.drain(i);
        for (from, bytes) in std::mem::take(&mut self.waiting[i]) {
            self.deliver(from, i, bytes);
        }
    }

    fn downs(&self, of: impl Fn(usize) -> bool) -> Vec<&Report> {
        let down = |report: &&Report| match report.what {
            MembershipOutput::Down(node) => of(index(node)),
            _ => false,
        };
        self.reports.iter().filter(down).collect()
    }

    fn assert_no_protocol_errors(&self) {
        for node in &self.nodes {
            assert_eq!(node.counters().protocol_errors, 0);
        }
    }
}

#[test]
fn all_discover_each_other_from_one_seed() {
    for (count, loss) in [(2, 0.0), (3, 0.0), (3, 0.2), (5, 0.2), (30, 0.1)] {
        let network = Network::formed(count, 1, loss);
        for node in &network.nodes {
            assert_eq!(node.incarnation(), CLUSTER);
        }
        network.assert_no_protocol_errors();
    }
}

#[test]
fn discovery_needs_no_more_than_two_seconds_without_loss() {
    for count in [2, 3, 5] {
        let mut network = Network::new(count, 7, 0.0);
        network.nodes[0].set_incarnation(now(0), CLUSTER);
        for i in 1..count {
            network.nodes[i].join(now(0), gossip_id(0));
            network.drain(i);
        }
        network.run(2 * S);
        network.assert_all_know_all();
    }
}

#[test]
fn a_killed_node_is_known_by_all_within_seven_seconds() {
    for (count, seeds) in [(2, 0..10), (3, 0..10), (5, 0..10), (30, 0..2)] {
        for seed in seeds {
            let mut network = Network::formed(count, seed, 0.0);
            let (victim, killed_us) = (seed as usize % count, network.at_us);
            network.reports.clear();
            network.lives[victim] = Life::Dead;
            network.run(15 * S);
            let downs = network.downs(|node| node == victim);
            assert_eq!(downs.len(), count - 1, "{count} nodes, seed {seed}");
            let last_us = downs.iter().map(|report| report.at_us).max().unwrap_or_default();
            assert!(last_us < killed_us + 7 * S, "{count} nodes, seed {seed}: {last_us} us");
            assert_eq!(network.downs(|node| node != victim), Vec::<&Report>::new());
            network.assert_all_know_all();
        }
    }
}

/// A cluster in which two of three die at once: nobody is left to be heard, and still the survivor
/// must not believe in them for ever.
#[test]
fn losing_all_others_at_once_is_noticed_in_the_end() {
    let mut network = Network::formed(3, 3, 0.0);
    network.lives[1] = Life::Dead;
    network.lives[2] = Life::Dead;
    network.run(20 * S);
    network.assert_all_know_all();
}

#[test]
fn no_healthy_node_is_declared_down_under_loss() {
    for (count, minutes) in [(2, 4), (3, 4), (5, 4), (30, 1)] {
        for (seed, loss) in [(1, 0.0), (2, 0.1), (3, 0.2)] {
            if count == 30 && loss != 0.1 {
                continue;
            }
            let mut network = Network::formed(count, seed, loss);
            network.run(minutes * 60 * S);
            assert_eq!(network.downs(|_| true), Vec::<&Report>::new(), "{count} nodes, {loss}");
            network.assert_all_know_all();
            network.assert_no_protocol_errors();
            if loss == 0.0 {
                let suspicions = network.nodes.iter().map(|node| node.counters().suspicions);
                assert_eq!(suspicions.sum::<u64>(), 0);
            }
        }
    }
}

#[test]
fn a_paused_node_takes_nobody_down_with_it_and_comes_back() {
    for count in [2, 3, 5] {
        for seed in 0..10 {
            let mut network = Network::formed(count, seed, 0.0);
            network.reports.clear();
            network.pause(1);
            network.run(5 * S);
            assert_eq!(network.downs(|node| node == 1).len(), count - 1);
            network.resume(1);
            network.run(12 * S);
            assert_eq!(network.downs(|node| node != 1), Vec::<&Report>::new());
            network.assert_all_know_all();
            // Of two, neither can know which of them was away.
            let renewed = |i: usize| network.nodes[i].identity().generation == 1;
            assert!(renewed(1) || (count == 2 && renewed(0)));
        }
    }
}

/// Loss makes for suspicions that are open when the pause begins and overdue when it ends.
#[test]
fn suspicions_from_before_a_pause_are_not_carried_out_after_it() {
    let mut postponed = 0;
    for seed in 0..20 {
        let mut network = Network::formed(3, seed, 0.2);
        network.reports.clear();
        network.pause(1);
        network.run(5 * S);
        network.resume(1);
        network.run(15 * S);
        assert_eq!(network.downs(|node| node != 1), Vec::<&Report>::new());
        postponed += network.nodes[1].counters().postponed_deaf;
    }
    assert!(postponed > 0);
}

#[test]
fn a_cut_off_node_comes_back_without_taking_others_down() {
    // Shorter and longer than deafness is believed.
    for cut_us in [6 * S, 60 * S] {
        for seed in 0..5 {
            let mut network = Network::formed(5, seed, 0.0);
            network.reports.clear();
            network.sides[2] = 1;
            network.run(cut_us);
            network.sides[2] = 0;
            network.run(20 * S);
            let wronged = network.downs(|node| node != 2);
            let elsewhere = wronged.iter().filter(|report| report.at != 2).count();
            // Cut off for long it must take the others for dead, though without telling them.
            assert!(wronged.is_empty() || cut_us > 10 * S);
            assert_eq!(elsewhere, 0, "cut for {cut_us} us, seed {seed}");
            network.assert_all_know_all();
            network.assert_no_protocol_errors();
        }
    }
}

#[test]
fn a_healed_split_becomes_one_cluster_again() {
    for (count, on_the_left) in [(2, 1), (4, 2), (5, 2)] {
        for seed in 0..5 {
            let mut network = Network::formed(count, seed, 0.05);
            for i in 0..on_the_left {
                network.sides[i] = 1;
            }
            network.run(40 * S);
            for i in 0..count {
                let seen = network.nodes[i].members().count() + 1;
                let side = (0..count).filter(|&j| network.sides[i] == network.sides[j]).count();
                assert_eq!(seen, side);
            }
            network.sides.fill(0);
            network.run(60 * S);
            network.assert_all_know_all();
            network.reports.clear();
            network.run(60 * S);
            assert_eq!(
                network.reports.iter().filter(|r| matches!(r.what, MembershipOutput::Down(_))).count(),
                0
            );
        }
    }
}

#[test]
fn leaving_is_told_and_final() {
    for (count, loss) in [(2, 0.0), (3, 0.2), (30, 0.1)] {
        let mut network = Network::formed(count, 5, loss);
        network.reports.clear();
        let left_us = network.at_us;
        network.nodes[1].leave(now(left_us));
        network.drain(1);
        network.run(2 * S);
        let downs = network.downs(|node| node == 1);
        assert_eq!(downs.len(), count - 1);
        assert!(downs.iter().all(|report| report.at_us < left_us + 1_500 * MS));
        assert_eq!(network.nodes[1].next_wake(), None);
        assert!(!network.nodes[1].is_alive(node_id(1)));
        network.run(20 * S);
        network.lives[1] = Life::Dead;
        network.assert_all_know_all();
    }
}

/// The gossip of a node is gone, its QUIC link isn't.
#[test]
fn a_live_link_keeps_a_suspect_up() {
    let mut network = Network::formed(3, 9, 0.0);
    network.reports.clear();
    network.sides[2] = 1;
    for _ in 0..100 {
        network.run(300 * MS);
        let heard_us = network.at_us;
        network.nodes[0].link_live(node_id(2), heard_us);
        network.nodes[1].link_live(node_id(2), heard_us);
    }
    assert_eq!(network.downs(|node| node == 2), Vec::<&Report>::new());
    assert!(network.nodes[0].members().any(|member| member.state == MemberState::Suspect));
    assert!(network.nodes.iter().any(|node| node.counters().postponed_link > 0));
    network.run(7 * S);
    assert_eq!(network.downs(|node| node == 2).len(), 2);
}

#[test]
fn another_incarnation_is_refused_until_it_is_the_same() {
    let mut network = Network::formed(3, 11, 0.0);
    let at = now(network.at_us);
    network.nodes[2].set_incarnation(at, Incarnation(43));
    network.run(10 * S);
    assert!(network.nodes[0].counters().refused_incarnation > 0);
    assert!(!network.nodes[0].is_alive(node_id(2)));
    assert!(network.nodes[0].is_alive(node_id(1)));
    let at = now(network.at_us);
    network.nodes[2].set_incarnation(at, CLUSTER);
    network.run(30 * S);
    network.assert_all_know_all();
}

/// A joining node overhears one cluster and is then told that it belongs to another.
#[test]
fn a_joining_node_forgets_a_cluster_that_is_not_its_own() {
    let mut network = Network::formed(3, 12, 0.0);
    let id = gossip_id(3);
    network.nodes.push(Membership::new(id.node, id.quic, MembershipConfig::default(), 1));
    network.lives.push(Life::Runs);
    network.sides.push(0);
    network.waiting.push(Vec::new());
    let at = now(network.at_us);
    network.nodes[3].join(at, gossip_id(0));
    network.drain(3);
    network.run(3 * S);
    network.assert_all_know_all();
    network.nodes[3].set_incarnation(now(network.at_us), Incarnation(77));
    assert_eq!(network.nodes[3].members().count(), 0);
    network.run(10 * S);
    assert_eq!(network.nodes[3].members().count(), 0);
    assert!(!network.nodes[0].is_alive(id.node));
}

#[test]
fn the_dead_are_forgotten_in_time_and_at_the_bound() {
    let config = MembershipConfig { remove_down_after_ms: 60_000, members_max: 4, ..Default::default() };
    let mut network = Network::new(5, 2, 0.0);
    for (i, node) in network.nodes.iter_mut().enumerate() {
        let id = gossip_id(i);
        *node = Membership::new(id.node, id.quic, config.clone(), 2);
    }
    for i in 1..3 {
        network.nodes[i].join(now(0), gossip_id(0));
        network.drain(i);
    }
    network.lives[3] = Life::Dead;
    network.lives[4] = Life::Dead;
    network.run(5 * S);
    network.assert_all_know_all();

    network.lives[2] = Life::Dead;
    network.run(10 * S);
    for newcomer in [3, 4] {
        network.lives[newcomer] = Life::Runs;
        let at = now(network.at_us);
        network.nodes[newcomer].join(at, gossip_id(0));
        network.drain(newcomer);
        network.run(10 * S);
    }
    network.assert_all_know_all();
    assert_eq!(network.nodes[0].counters().refused_full, 0);
    network.run(120 * S);
    network.assert_all_know_all();
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = Network::formed(5, seed, 0.2);
        network.lives[3] = Life::Dead;
        network.run(20 * S);
        let counters: Vec<_> = network.nodes.iter().map(Membership::counters).collect();
        (network.reports, counters)
    };
    assert_eq!(run(4), run(4));
    assert_ne!(run(4).1, run(5).1);
}

/// Two members that know each other, and a datagram that the first would accept.
fn pair() -> (Network, Vec<Bytes>) {
    let mut network = Network::new(2, 1, 0.0);
    network.nodes[0].set_incarnation(now(0), CLUSTER);
    network.nodes[1].join(now(0), gossip_id(0));
    let mut heard = Vec::new();
    for _ in 0..60 {
        network.drain(1);
        network.run(100 * MS);
        heard.extend(network.flying.values().filter(|flight| flight.1 == 0).map(|f| f.2.clone()));
    }
    (network, heard)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_are_counted_and_never_fatal(
        garbage in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..1_300), 1..20),
        flips in proptest::collection::vec((any::<usize>(), any::<usize>(), any::<u8>()), 1..60),
        kind in 0u8..3,
    ) {
        let (mut network, heard) = pair();
        let before = network.nodes[0].counters();
        let mut given = 0;
        let mut give = |network: &mut Network, bytes: &[u8]| {
            given += 1;
            let at = now(network.at_us);
            network.nodes[0].datagram(at, node_id(1), bytes);
            while network.nodes[0].poll().is_some() {}
        };
        for bytes in &garbage {
            give(&mut network, bytes);
            let mut enveloped = vec![0xA1, kind];
            enveloped.extend_from_slice(&CLUSTER.0.to_le_bytes());
            enveloped.extend_from_slice(bytes);
            give(&mut network, &enveloped);
        }
        for (which, at, value) in flips {
            let mut bytes = heard[which % heard.len()].to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            give(&mut network, &bytes);
            give(&mut network, &bytes[..at]);
        }
        let after = network.nodes[0].counters();
        prop_assert!(after.datagrams_in + after.refused() - before.datagrams_in - before.refused() == given);
        let at_us = network.at_us + 10 * S;
        network.nodes[0].tick(now(at_us));
    }
}

#[test]
fn a_member_cannot_speak_for_another_node_nor_about_our_identity() {
    let (mut network, heard) = pair();
    let before = network.nodes[0].counters();
    let at = now(network.at_us);
    network.nodes[0].datagram(at, node_id(2), &heard[0]);
    let lie = foca::Member::new(GossipId { generation: 9, ..gossip_id(0) }, 0, foca::State::Alive);
    for bytes in wire::encode_exchange(CLUSTER, gossip_id(1), false, [lie].iter()) {
        network.nodes[0].datagram(at, node_id(1), &bytes);
    }
    let after = network.nodes[0].counters();
    assert_eq!(after.refused_malformed - before.refused_malformed, 2);
    assert_eq!(network.nodes[0].identity(), gossip_id(0));
}
