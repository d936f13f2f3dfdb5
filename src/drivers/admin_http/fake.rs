//! A made-up cluster, to test the server and to look at the page.

use super::*;

fn id(n: usize) -> String {
    format!("{:016x}", (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Whether the cluster of `nodes` is busy replacing its last member.
fn is_healing(nodes: usize) -> bool {
    nodes >= 5
}

/// A cluster of so many nodes, `tick` seconds on. From five nodes on, the last is down and being
/// replaced.
pub fn cluster(nodes: usize, tick: u64) -> ClusterStatus {
    let table = table(nodes, tick);
    let down = |n: usize| is_healing(nodes) && n == nodes - 1;
    let members = (0..nodes)
        .map(|n| {
            let node = id(n);
            let count = |held: &dyn Fn(&PartitionView) -> bool| {
                table.partitions.iter().filter(|partition| held(partition)).count() as u32
            };
            let wave = ((tick as f64 / 7.0) + n as f64).sin();
            MemberView {
                name: format!("dove-{}", n + 1),
                zone: (nodes > 3).then(|| ["north", "south", "west"][n % 3].to_owned()),
                status: if down(n) { Standing::Down } else { Standing::Up },
                voter: n < 3,
                weight: 100,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                quic: format!("10.0.0.{}:7379", n + 1),
                resp: format!("10.0.0.{}:6379", n + 1),
                admin: format!("10.0.0.{}:9379", n + 1),
                primaries: count(&|p| p.primary.as_ref() == Some(&node)),
                backups: count(&|p| p.backups.contains(&node)),
                learners: count(&|p| p.learners.contains(&node)),
                keys: if down(n) { 0 } else { 401_233 + 1_871 * n as u64 + tick * 17 },
                bytes: if down(n) { 0 } else { (96 << 20) + (n as u64) * (7 << 20) + tick * 9_000 },
                bytes_max: if n == 1 { 128 << 20 } else { 0 },
                ops_per_s: if down(n) { 0.0 } else { 38_000.0 + 9_000.0 * wave },
                clients: 12 + n as u32,
                uptime_s: 4_000 + tick,
                rtt_us: (n != 0 && !down(n)).then_some(180 + 40 * n as u64),
                replication_lag_records: if n == 1 { 24 } else { 0 },
                node,
            }
        })
        .collect();
    let migrations = table
        .partitions
        .iter()
        .enumerate()
        .filter_map(|(n, partition)| {
            Some(MigrationStatus {
                partition: n as u16,
                from: partition.primary.clone()?,
                to: partition.learners.first()?.clone(),
                percent: ((n as u64 * 37 + tick * 4) % 100) as f64,
                bytes_per_s: 12_500_000 + n as u64 * 1_000,
            })
        })
        .take(24)
        .collect();
    let wanted = nodes.min(2);
    let short = table.partitions.iter().filter(|held| held.backups.len() + 1 < wanted).count();
    ClusterStatus {
        health: Health::default(),
        node: id(0),
        incarnation: 1,
        table_version: table.table_version,
        leader: Some(id(0)),
        voters: (0..nodes.min(3)).map(id).collect(),
        has_majority: true,
        settings: SettingsStatus {
            partitions: table.partitions.len() as u16,
            replicas: 2,
            min_copies: 2,
            survival: "auto".to_owned(),
        },
        members,
        migrations,
        copying: CopyingStatus::default(),
        moves_wanted: 0,
        dead_partitions: if is_healing(nodes) { vec![77] } else { vec![] },
        unavailable_partitions: u32::from(is_healing(nodes)),
        under_replicated_partitions: short as u32,
        copies_wanted: wanted as u8,
        counters: [("commands".to_owned(), 1_234_567 + tick * 9_000)].into(),
    }
}

/// Who holds what in the same cluster.
pub fn table(nodes: usize, tick: u64) -> PartitionsStatus {
    let live = if is_healing(nodes) { nodes - 1 } else { nodes };
    let partitions = (0..1024usize)
        .map(|n| {
            // A small hash, so that owners alternate as on a real ring.
            let mixed = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            let primary = mixed as usize % live;
            let backup = (primary + 1 + (mixed >> 8) as usize % live.saturating_sub(1).max(1)) % live;
            let attaching = is_healing(nodes) && n % 5 == 0 && n as u64 * 2 > tick % 60 * 34;
            let backup = (backup != primary).then(|| id(backup));
            PartitionView {
                epoch: 3,
                primary: Some(if is_healing(nodes) && n == 77 { id(nodes - 1) } else { id(primary) }),
                backups: if attaching || (is_healing(nodes) && n == 77) {
                    vec![]
                } else {
                    backup.clone().into_iter().collect()
                },
                learners: if attaching && n != 77 { backup.into_iter().collect() } else { vec![] },
            }
        })
        .collect();
    PartitionsStatus {
        incarnation: 1,
        table_version: if is_healing(nodes) { 40 + tick } else { 40 },
        partitions,
    }
}

/// Answers requests as a node of that cluster would, until the server is gone.
pub async fn answer(nodes: usize, mut requests: mpsc::Receiver<AdminRequest>) {
    let start = tokio::time::Instant::now();
    while let Some(request) = requests.recv().await {
        let tick = start.elapsed().as_secs();
        // A client that is gone needs no answer.
        let _gone = match request {
            AdminRequest::Cluster(answer) => answer.send(cluster(nodes, tick)).is_err(),
            AdminRequest::Partitions(answer) => answer.send(table(nodes, tick)).is_err(),
            AdminRequest::Readiness(answer) => {
                let reasons =
                    if is_healing(nodes) { vec!["3 copies are not in sync".to_owned()] } else { vec![] };
                answer.send(Readiness { ready: reasons.is_empty(), reasons }).is_err()
            }
            AdminRequest::Metrics(answer) => {
                let mut metrics = Metrics::default();
                describe(&cluster(nodes, tick), &mut metrics);
                answer.send(metrics).is_err()
            }
        };
    }
}
