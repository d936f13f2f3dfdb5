//! A primary dies while its only other copy is counted out: what was acknowledged comes back with the
//! copy, or is not served at all.

use super::cluster::Cluster;
use super::network::NetworkConfig;
use crate::engine::command;
use crate::engine::config::EngineConfig;
use crate::engine::ids::{MapId, NodeId, PartitionId, Slot};
use crate::engine::op::{Op, Submitted, Ticket};
use crate::engine::resp::Proto;
use crate::engine::table::{ClusterSettings, Survival};
use std::collections::BTreeMap;

const SECOND_US: u64 = 1_000_000;
const KEYS: u64 = 800;

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
        let (now, number, mut out) = (cluster.now(), self.number, Vec::new());
        let submitted = cluster.input(node, |engine| {
            let spec = command::resolve(args).expect("a command");
            let partition = engine.table().partition_of(Slot::of(args[1]));
            let op = Op { spec, partition, map: MapId(0), proto: Proto::Resp2, exactly_once: None, args };
            Some(engine.submit(now, Ticket { door: 1, number }, &op, &mut out))
        });
        (number, (submitted == Some(Submitted::Done)).then_some(out))
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
            let (number, reply) = self.submit(cluster, node, &[b"GET", key.as_bytes()]);
            let reply = reply.unwrap_or_else(|| {
                let arrived = cluster.run_until(15 * SECOND_US, |cluster| {
                    cluster.replies.iter().any(|(_, ticket, _)| ticket.number == number)
                });
                assert!(arrived, "{key}: no answer");
                let at = cluster.replies.iter().position(|(_, ticket, _)| ticket.number == number);
                cluster.replies.remove(at.expect("it arrived")).2.to_vec()
            });
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
}

fn whole(cluster: &Cluster) -> bool {
    super::checks::unsettled(cluster).is_none()
}

impl Stage {
    /// Four nodes over a slow network, with something to copy.
    fn new(seed: u64) -> Stage {
        let network = NetworkConfig { delay_us_min: 5_000, delay_us_max: 20_000, ..NetworkConfig::default() };
        let config =
            EngineConfig { chunk_bytes: 512, snapshot_window_bytes: 1_024, ..EngineConfig::default() };
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
        let mut stage = Stage { cluster, writers, nodes };
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
        self.cluster.run(8 * SECOND_US);
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
