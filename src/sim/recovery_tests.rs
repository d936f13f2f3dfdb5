//! A primary dies while its only other copy is counted out: what was acknowledged comes back with the
//! copy, or is not served at all.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use super::testing::{SECOND_US, call, submit, whole};
use crate::engine::config::EngineConfig;
use crate::engine::ids::{NodeId, PartitionId};
use crate::engine::table::{ClusterSettings, Survival};
use std::collections::BTreeMap;

const KEYS: u64 = 800;
const CHUNK_BYTES: usize = 512;
const WINDOW_BYTES: usize = 1_024;

/// Clients that write all the time, and what they know.
struct Writers {
    number: u64,
    /// The key of each write under way, and its value.
    open: BTreeMap<u64, (String, u64)>,
    /// The latest acknowledged value of each key.
    acknowledged: BTreeMap<String, u64>,
    /// The keys whose latest write is open or in doubt: at most one a key.
    unsure: BTreeMap<String, u64>,
}

impl Writers {
    fn submit(&mut self, cluster: &mut Cluster, node: NodeId, args: &[&[u8]]) -> (u64, Option<Vec<u8>>) {
        self.number += 1;
        (self.number, submit(cluster, node, self.number, args))
    }

    /// Sets a key that has no write under way to a higher value.
    fn write(&mut self, cluster: &mut Cluster, node: NodeId, key: &str, pad: usize) {
        if self.unsure.contains_key(key) {
            return;
        }
        let value = self.number + 1;
        let padded = format!("{value:0pad$}");
        let (number, reply) = self.submit(cluster, node, &[b"SET", key.as_bytes(), padded.as_bytes()]);
        self.open.insert(number, (key.to_owned(), value));
        self.unsure.insert(key.to_owned(), value);
        if let Some(reply) = reply {
            self.take(number, &reply);
        }
    }

    fn take(&mut self, number: u64, reply: &[u8]) {
        let Some((key, value)) = self.open.remove(&number) else { return };
        if reply == b"+OK\r\n" {
            self.acknowledged.insert(key.clone(), value);
            self.unsure.remove(&key);
        } else if !reply.starts_with(b"-INDOUBT") {
            self.unsure.remove(&key);
        }
    }

    fn take_all(&mut self, cluster: &mut Cluster) {
        for (_, ticket, reply) in std::mem::take(&mut cluster.replies) {
            self.take(ticket.number, &reply);
        }
    }

    /// Reads every key back.
    fn audit(&mut self, cluster: &mut Cluster, node: NodeId) {
        for (key, value) in self.acknowledged.clone() {
            self.number += 1;
            let reply = call(cluster, node, self.number, &[b"GET", key.as_bytes()]);
            let text = String::from_utf8_lossy(&reply);
            let found: Option<u64> = text.lines().nth(1).and_then(|line| line.parse().ok());
            let unsure = self.unsure.get(&key).copied();
            assert!(
                found.is_some_and(|found| found == value || Some(found) == unsure),
                "{key}: {value} was acknowledged, {unsure:?} perhaps, {text:?} found"
            );
        }
    }
}

struct Stage {
    cluster: Cluster,
    writers: Writers,
    nodes: Vec<NodeId>,
    /// The most that one node had under way to former copies.
    overlays_bytes_max: usize,
}

impl Stage {
    /// Four nodes over a slow network, with something to copy.
    fn new(seed: u64) -> Stage {
        let network = NetworkConfig { delay_us_min: 5_000, delay_us_max: 20_000, ..NetworkConfig::default() };
        let config = EngineConfig {
            chunk_bytes: CHUNK_BYTES,
            snapshot_window_bytes: WINDOW_BYTES,
            ..EngineConfig::default()
        };
        let settings =
            ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival: Survival::Auto };
        let mut cluster = Cluster::new(seed, network, config, settings);
        let nodes: Vec<NodeId> = (0..4).map(|_| cluster.start()).collect();
        assert!(cluster.run_until(30 * SECOND_US, whole), "{:?}", cluster.agreed());
        let writers = Writers {
            number: 0,
            open: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            unsure: BTreeMap::new(),
        };
        let mut stage = Stage { cluster, writers, nodes, overlays_bytes_max: 0 };
        for i in 0..KEYS {
            stage.writers.write(&mut stage.cluster, stage.nodes[0], &format!("k{i}"), 200);
        }
        stage.cluster.run(2 * SECOND_US);
        stage.writers.take_all(&mut stage.cluster);
        assert_eq!(stage.writers.acknowledged.len() as u64, KEYS);
        stage
    }

    /// A node that votes on nothing of importance: its loss and another's leave a majority.
    fn bystander(&self, not: &[NodeId]) -> NodeId {
        *self.nodes.iter().find(|node| !not.contains(node)).expect("four nodes")
    }

    /// Writes for a while, at a live node, to some keys.
    fn churn(&mut self, at: NodeId, us: u64) {
        let end_us = self.cluster.now().mono_us + us;
        while self.cluster.now().mono_us < end_us {
            let key = self.cluster.random.below(KEYS);
            self.writers.write(&mut self.cluster, at, &format!("k{key}"), 200);
            self.cluster.run(2_000);
            self.writers.take_all(&mut self.cluster);
        }
    }

    /// Pauses `away`, writes on, and kills `dies` while copies that `away` had are rebuilt from it.
    fn lose_both(&mut self, away: NodeId, dies: NodeId, writes: bool) -> usize {
        let at = self.bystander(&[away, dies]);
        self.cluster.pause(away, 25 * SECOND_US);
        let exposed = |cluster: &Cluster| -> Vec<PartitionId> {
            let Some(table) = cluster.agreed() else { return Vec::new() };
            let alone = |id: &PartitionId| {
                let assignment = &table.partitions[id.index()];
                assignment.isr == [dies] && !assignment.learners.is_empty()
            };
            table.partition_ids().filter(alone).collect()
        };
        for _ in 0..2_000 {
            match writes {
                true => self.churn(at, 10_000),
                false => self.cluster.run(10_000),
            }
            if !exposed(&self.cluster).is_empty() {
                break;
            }
        }
        if writes {
            self.churn(at, 300_000);
        }
        let exposed = exposed(&self.cluster);
        self.cluster.crash(dies);
        let end_us = self.cluster.now().mono_us + 8 * SECOND_US;
        while self.cluster.now().mono_us < end_us {
            self.cluster.run(5_000);
            let in_flight = |node: &NodeId| {
                let partitions = self.cluster.engine(*node).partitions();
                partitions.iter().map(|partition| partition.overlay_in_flight_bytes()).sum::<usize>()
            };
            let most = self.cluster.live().iter().map(in_flight).max().unwrap_or_default();
            self.overlays_bytes_max = self.overlays_bytes_max.max(most);
        }
        let Some(table) = self.cluster.agreed() else { return 0 };
        let dead = exposed.iter().filter(|&&id| table.is_dead(id)).count();
        assert!(self.cluster.run_until(60 * SECOND_US, whole), "{:?}", self.cluster.agreed());
        self.writers.take_all(&mut self.cluster);
        self.writers.audit(&mut self.cluster, at);
        dead
    }
}

/// The voters first: with them gone nothing could be decided.
fn pairs(stage: &Stage) -> Option<(NodeId, NodeId)> {
    let log = stage.cluster.latest_log()?;
    let bystander = stage.nodes.iter().find(|node| !log.voters.contains(node))?;
    let voter = log.voters.iter().find(|&&node| Some(node) != log.leader)?;
    Some((*bystander, *voter))
}

fn recovers(seeds: std::ops::Range<u64>, writes: bool) -> usize {
    let mut dead = 0;
    for seed in seeds {
        let mut stage = Stage::new(seed);
        let Some((bystander, voter)) = pairs(&stage) else { continue };
        let (away, dies) = if seed % 2 == 0 { (bystander, voter) } else { (voter, bystander) };
        dead += stage.lose_both(away, dies, writes);
        // A part is begun while the window has room, for each of two others.
        let bound = 2 * (WINDOW_BYTES + 2 * CHUNK_BYTES);
        assert!(stage.overlays_bytes_max <= bound, "{} bytes at once", stage.overlays_bytes_max);
    }
    dead
}

#[test]
fn a_primary_dies_while_its_backup_is_away_and_nothing_was_written_since() {
    assert!(recovers(1..5, false) > 0, "nothing died: the test tests nothing");
}

#[test]
fn a_primary_dies_while_its_backup_is_away_and_writes_went_on() {
    assert!(recovers(1..7, true) > 0, "nothing died: the test tests nothing");
}

#[test]
fn an_accepted_loss_goes_on_from_the_best_copy_there_is() {
    let mut stage = Stage::new(3);
    let (away, dies) = pairs(&stage).expect("four nodes have a bystander");
    let at = stage.bystander(&[away, dies]);
    // The learners die with the primary: what they took nobody can tell.
    stage.cluster.pause(away, 25 * SECOND_US);
    let alone = |cluster: &Cluster| -> Vec<PartitionId> {
        let Some(table) = cluster.agreed() else { return Vec::new() };
        let exposed = |id: &PartitionId| table.partitions[id.index()].isr == [dies];
        table.partition_ids().filter(exposed).collect()
    };
    assert!(stage.cluster.run_until(20 * SECOND_US, |cluster| !alone(cluster).is_empty()));
    stage.churn(at, 400_000);
    let exposed = alone(&stage.cluster);
    assert!(!exposed.is_empty());
    stage.cluster.crash(dies);
    // What the learners took is lost as well.
    let learners: Vec<NodeId> =
        stage.nodes.iter().copied().filter(|&node| node != away && node != dies).collect();
    for node in learners {
        for &id in &exposed {
            stage.cluster.input(node, |engine, _| {
                let partition = engine.partition_mut(id).0;
                (partition.staging, partition.copy) = (None, None);
            });
        }
    }
    stage.cluster.run(30 * SECOND_US);
    let table = stage.cluster.agreed().expect("a table").clone();
    let dead: Vec<PartitionId> = exposed.into_iter().filter(|&id| table.is_dead(id)).collect();
    assert!(!dead.is_empty(), "nobody may go on by itself where a write may be missing");
    stage.cluster.input(at, |engine, now| engine.accept_loss(now));
    assert!(stage.cluster.run_until(60 * SECOND_US, whole), "{:?}", stage.cluster.agreed());
    // Most of it was on the copy that was away.
    let mut found = 0;
    for i in 0..KEYS {
        let key = format!("k{i}");
        found +=
            usize::from(call(&mut stage.cluster, at, 1_000_000 + i, &[b"GET", key.as_bytes()]) != b"$-1\r\n");
    }
    assert!(found > KEYS as usize * 9 / 10, "{found} of {KEYS} keys");
}
