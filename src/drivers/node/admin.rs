//! Answers the admin server's questions from the engine.

use super::NodeCore;
use crate::drivers::admin_http::{
    AdminRequest, ClusterStatus, CopyingStatus, MemberView, Metrics, MigrationStatus, PartitionView,
    PartitionsStatus, Readiness, SettingsStatus, Standing, describe,
};
use crate::drivers::process;
use crate::drivers::raft::AgreedLog;
use crate::engine::ids::NodeId;
use crate::engine::node::Engine;
use crate::engine::partition::Role;
use crate::engine::table::{MemberStatus, Survival};
use crate::engine::time::Now;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// How often rates are measured.
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// Before the reason in the names of counters of refused messages.
const REFUSED: &str = "refused_";

/// Rates need two looks.
#[derive(Default)]
struct Rates {
    at_us: u64,
    /// Operations so far and their rate, by node.
    operations: BTreeMap<NodeId, (u64, f64)>,
    /// Snapshot bytes so far and their rate, by partition and learner.
    snapshots: BTreeMap<(u16, NodeId), (u64, u64)>,
    /// Snapshot bytes so far and their rate, by sending node.
    copied: BTreeMap<NodeId, (u64, u64)>,
}

/// Answers until the server ends.
pub async fn answer(core: NodeCore, log: AgreedLog, mut requests: mpsc::Receiver<AdminRequest>) {
    let mut rates = Rates::default();
    let mut timer = tokio::time::interval(RATE_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => core.look(|engine, now| rates.look(engine, now)),
            request = requests.recv() => {
                let Some(request) = request else { return };
                // An asker that gave up needs no answer.
                match request {
                    AdminRequest::Cluster(reply) => {
                        let _ = reply.send(core.look(|engine, _| cluster(engine, &log, &rates)));
                    }
                    AdminRequest::Partitions(reply) => {
                        let _ = reply.send(core.look(|engine, _| partitions(engine)));
                    }
                    AdminRequest::Readiness(reply) => {
                        let _ = reply.send(core.look(|engine, _| readiness(engine)));
                    }
                    AdminRequest::Metrics(reply) => {
                        let status = core.look(|engine, _| cluster(engine, &log, &rates));
                        let mut metrics = Metrics::default();
                        describe(&status, &mut metrics);
                        own_metrics(&status, &mut metrics);
                        if let Some(mesh) = core.mesh() {
                            mesh_metrics(&mesh.counters(), &mut metrics);
                        }
                        let _ = reply.send(metrics);
                    }
                }
            }
        }
    }
}

impl Rates {
    fn look(&mut self, engine: &Engine, now: Now) {
        let elapsed_s = (now.mono_us.saturating_sub(self.at_us)) as f64 / 1e6;
        self.at_us = now.mono_us;
        let own = (engine.me(), engine.load().operations);
        let others = engine.peers().iter().map(|(node, peer)| (node, peer.load.operations));
        let mut operations = BTreeMap::new();
        for (node, count) in others.chain([own]) {
            let before = self.operations.get(&node).map_or(count, |&(before, _)| before);
            operations.insert(node, (count, count.saturating_sub(before) as f64 / elapsed_s.max(0.001)));
        }
        self.operations = operations;
        let own = (engine.me(), engine.load().snapshot_bytes);
        let others = engine.peers().iter().map(|(node, peer)| (node, peer.load.snapshot_bytes));
        let rate_of = |(node, sent): (NodeId, u64)| {
            let &(before, rate) = self.copied.get(&node).unwrap_or(&(sent, 0));
            let latest = (sent.saturating_sub(before) as f64 / elapsed_s.max(0.001)) as u64;
            // Heartbeats and looks are not in step: two looks together tell more than one.
            (node, (sent, (rate + latest).div_ceil(2)))
        };
        self.copied = others.chain([own]).map(rate_of).collect();
        let mut snapshots = BTreeMap::new();
        for (partition, node, sent, _) in sendings(engine) {
            let before = self.snapshots.get(&(partition, node)).map_or(0, |&(before, _)| before);
            snapshots.insert(
                (partition, node),
                (sent, (sent.saturating_sub(before) as f64 / elapsed_s.max(0.001)) as u64),
            );
        }
        self.snapshots = snapshots;
    }
}

/// Snapshots this node sends: partition, learner, bytes and percentage so far.
fn sendings(engine: &Engine) -> Vec<(u16, NodeId, u64, f64)> {
    let mut found = Vec::new();
    for partition in engine.partitions() {
        let (Role::Primary(primary), Some(copy)) = (&partition.role, &partition.copy) else { continue };
        for follower in &primary.followers {
            if let Some(sending) = &follower.sending {
                let total = copy.shard.len().max(1) as f64;
                let percent = if sending.is_complete() {
                    100.0
                } else {
                    (sending.entries_sent as f64 / total * 100.0).min(99.0)
                };
                found.push((partition.id.0, follower.node, sending.bytes_sent, percent));
            }
        }
    }
    found
}

fn cluster(engine: &Engine, log: &AgreedLog, rates: &Rates) -> ClusterStatus {
    let table = engine.table();
    let me = engine.me();
    let leadership = log.leadership().borrow().clone();
    let mut held: BTreeMap<NodeId, (u32, u32, u32)> = BTreeMap::new();
    let data_members = table
        .members
        .values()
        .filter(|member| member.weight > 0 && member.status == MemberStatus::Up)
        .count();
    let copies_wanted = usize::from(table.settings.replicas).min(data_members.max(1));
    // A member that gossip misses may be gone: until the table says so, its copies don't count either.
    let serves = |node: NodeId| table.is_live(node) && engine.is_alive(node);
    let (mut dead, mut unavailable, mut under) = (Vec::new(), 0, 0);
    for (index, assignment) in table.partitions.iter().enumerate() {
        if assignment.epoch.0 > 0 {
            held.entry(assignment.primary).or_default().0 += 1;
        }
        for &node in assignment.isr.iter().filter(|&&node| node != assignment.primary) {
            held.entry(node).or_default().1 += 1;
        }
        for &node in &assignment.learners {
            held.entry(node).or_default().2 += 1;
        }
        if assignment.epoch.0 > 0 && !assignment.isr.iter().any(|&node| table.is_live(node)) {
            dead.push(index as u16);
        }
        unavailable += u32::from(!serves(assignment.primary));
        let copies = assignment.isr.iter().filter(|&&node| serves(node)).count();
        under += u32::from(copies < copies_wanted);
    }
    let voters = leadership.voters.clone();
    let reachable = voters.iter().filter(|&&voter| voter == me || engine.peers().linked(voter)).count();
    let members = table
        .members
        .values()
        .map(|member| {
            let peer = engine.peers().get(member.node);
            let load = if member.node == me {
                *engine.load()
            } else {
                peer.map(|peer| peer.load).unwrap_or_default()
            };
            let (primaries, backups, learners) = held.get(&member.node).copied().unwrap_or_default();
            MemberView {
                node: member.node.to_string(),
                name: member.name.clone(),
                zone: member.zone.clone(),
                status: match member.status {
                    MemberStatus::Down => Standing::Down,
                    _ if !engine.is_alive(member.node) => Standing::Suspect,
                    MemberStatus::Leaving => Standing::Leaving,
                    MemberStatus::Up => Standing::Up,
                },
                voter: voters.contains(&member.node),
                weight: member.weight,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                quic: member.quic.to_string(),
                resp: member.resp.to_string(),
                admin: member.admin.to_string(),
                primaries,
                backups,
                learners,
                keys: load.keys,
                bytes: load.bytes,
                bytes_max: load.bytes_max,
                ops_per_s: rates.operations.get(&member.node).map_or(0.0, |&(_, rate)| rate),
                clients: load.clients,
                uptime_s: load.uptime_s,
                rtt_us: peer.filter(|peer| peer.linked && peer.rtt_us > 0).map(|peer| peer.rtt_us),
                replication_lag_records: lag(engine, member.node),
            }
        })
        .collect();
    let leader_load = match engine.peers().leader {
        Some(leader) if leader == me => Some(*engine.load()),
        Some(leader) => engine.peers().get(leader).map(|peer| peer.load),
        None => None,
    };
    ClusterStatus {
        health: Default::default(),
        node: me.to_string(),
        incarnation: table.incarnation.0,
        table_version: table.version.0,
        leader: engine.peers().leader.map(|leader| leader.to_string()),
        has_majority: engine.peers().leader.is_some() && (voters.is_empty() || reachable * 2 > voters.len()),
        voters: voters.iter().map(NodeId::to_string).collect(),
        settings: SettingsStatus {
            partitions: table.settings.partitions,
            replicas: table.settings.replicas,
            min_copies: table.settings.min_copies,
            survival: match table.settings.survival {
                Survival::Auto => "auto",
                Survival::Majority => "majority",
                Survival::Takeover => "takeover",
            }
            .to_owned(),
        },
        members,
        migrations: migrations(engine, rates),
        copying: copying(engine, rates),
        moves_wanted: leader_load.map_or(0, |load| load.moves_wanted),
        dead_partitions: dead,
        unavailable_partitions: unavailable,
        under_replicated_partitions: under,
        copies_wanted: copies_wanted as u8,
        counters: counters(engine),
    }
}

fn lag(engine: &Engine, node: NodeId) -> u64 {
    let mut records = 0;
    for partition in engine.partitions() {
        let (Role::Primary(primary), Some(copy)) = (&partition.role, &partition.copy) else { continue };
        records += primary
            .followers
            .iter()
            .filter(|follower| follower.node == node && follower.attached)
            .map(|follower| copy.last.0.saturating_sub(follower.acked.0))
            .sum::<u64>();
    }
    records
}

/// Every copy being built that the table shows; progress is known of those sent from here.
fn migrations(engine: &Engine, rates: &Rates) -> Vec<MigrationStatus> {
    let own: BTreeMap<(u16, NodeId), f64> = sendings(engine)
        .into_iter()
        .map(|(partition, node, _, percent)| ((partition, node), percent))
        .collect();
    let mut found = Vec::new();
    for (index, assignment) in engine.table().partitions.iter().enumerate() {
        for &learner in &assignment.learners {
            let key = (index as u16, learner);
            found.push(MigrationStatus {
                partition: index as u16,
                from: assignment.primary.to_string(),
                to: learner.to_string(),
                percent: own.get(&key).copied().unwrap_or(0.0),
                bytes_per_s: rates.snapshots.get(&key).map_or(0, |&(_, rate)| rate),
            });
        }
    }
    found
}

/// All that is being sent in the cluster.
fn copying(engine: &Engine, rates: &Rates) -> CopyingStatus {
    let live = engine.peers().iter().filter(|(_, peer)| peer.linked).map(|(_, peer)| peer.load);
    let bytes_left = live.chain([*engine.load()]).map(|load| load.copy_left_bytes).sum();
    let bytes_per_s = rates.copied.values().map(|&(_, rate)| rate).sum::<u64>();
    let eta_s = match (bytes_left, bytes_per_s) {
        (0, _) => Some(0),
        (_, 0) => None,
        (left, rate) => Some(left.div_ceil(rate)),
    };
    CopyingStatus { bytes_left, bytes_per_s, eta_s }
}

fn counters(engine: &Engine) -> BTreeMap<String, u64> {
    let stats = engine.stats();
    let gossip = engine.membership_counters();
    [
        ("operations", stats.operations),
        ("forwarded", stats.forwarded),
        ("parked", stats.parked),
        ("expired_patience", stats.expired_patience),
        ("in_doubt", stats.in_doubt),
        ("hits", stats.hits),
        ("misses", stats.misses),
        ("keys_expired", stats.expired),
        ("keys_evicted", stats.evicted),
        ("records_applied", stats.records_applied),
        ("records_resent", stats.resent),
        ("fenced", stats.fenced),
        ("promotions", stats.promotions),
        ("snapshots_sent", stats.snapshots_sent),
        ("snapshot_mismatches", stats.snapshot_mismatches),
        ("snapshot_bytes_sent", stats.snapshot_bytes_sent),
        ("snapshot_bytes_received", stats.snapshot_bytes_received),
        ("digests_equal", stats.digests_equal),
        ("digest_mismatches", stats.digest_mismatches),
        ("frames_broken", stats.frames_broken),
        ("divergent_writes", stats.divergent),
        ("partitions_recovered", stats.recovered),
        ("invariant_alarms", stats.invariant_alarms),
        ("gossip_refused", gossip.refused()),
    ]
    .into_iter()
    .map(|(name, count)| (name.to_owned(), count))
    .chain(stats.refused.named().map(|(reason, count)| (format!("{REFUSED}{reason}"), count)))
    .collect()
}

fn own_metrics(status: &ClusterStatus, metrics: &mut Metrics) {
    let mut family =
        metrics.counter("ringdove_events_total", "Events of the engine since the node's start, by kind.");
    for (name, &count) in status.counters.iter().filter(|(name, _)| !name.starts_with(REFUSED)) {
        family = family.sample(&[("kind", name)], count as f64);
    }
    let mut family = metrics.counter(
        "ringdove_refused_total",
        "Messages of members that were refused since the node's start, by reason.",
    );
    for (name, &count) in &status.counters {
        if let Some(reason) = name.strip_prefix(REFUSED) {
            family = family.sample(&[("reason", reason)], count as f64);
        }
    }
    let usage = process::usage();
    metrics
        .gauge("ringdove_process_resident_bytes", "Resident memory of the process.")
        .sample(&[], usage.resident_bytes as f64);
    metrics
        .counter("ringdove_process_cpu_seconds_total", "Processor time of the process, by mode.")
        .sample(&[("mode", "user")], usage.cpu_user_us as f64 / 1e6)
        .sample(&[("mode", "system")], usage.cpu_system_us as f64 / 1e6);
}

fn mesh_metrics(counters: &crate::drivers::quic::MeshCounters, metrics: &mut Metrics) {
    let mut family =
        metrics.counter("ringdove_mesh_total", "Counts of the QUIC mesh since the node's start, by kind.");
    for (name, count) in counters.named() {
        family = family.sample(&[("kind", name)], count as f64);
    }
}

fn partitions(engine: &Engine) -> PartitionsStatus {
    let table = engine.table();
    PartitionsStatus {
        incarnation: table.incarnation.0,
        table_version: table.version.0,
        partitions: table
            .partitions
            .iter()
            .map(|assignment| PartitionView {
                epoch: assignment.epoch.0,
                primary: (assignment.epoch.0 > 0).then(|| assignment.primary.to_string()),
                backups: assignment
                    .isr
                    .iter()
                    .filter(|&&node| node != assignment.primary)
                    .map(NodeId::to_string)
                    .collect(),
                learners: assignment.learners.iter().map(NodeId::to_string).collect(),
            })
            .collect(),
    }
}

fn readiness(engine: &Engine) -> Readiness {
    let table = engine.table();
    let mut reasons = Vec::new();
    match table.members.get(&engine.me()) {
        _ if table.incarnation.0 == 0 => reasons.push("not in a cluster yet".to_owned()),
        None => reasons.push("not a member yet".to_owned()),
        Some(member) if member.status == MemberStatus::Leaving => reasons.push("leaving".to_owned()),
        Some(member) if member.status == MemberStatus::Down => reasons.push("declared down".to_owned()),
        Some(_) if !engine.is_ready() => reasons.push("its copies are not in sync yet".to_owned()),
        Some(_) => {}
    }
    Readiness { ready: reasons.is_empty(), reasons }
}
