//! What batching is worth: replicated writes a second and processor time a write, as usual and
//! with one record a message.
//!
//! Two nodes in processes of their own, over QUIC; the first is primary of nearly everything, so
//! that nothing is forwarded. `cargo bench --bench replication`

mod rig;

use rig::load::Load;
use rig::servers::{Node, cpu_us_of};
use rig::{Failure, block_on, median, results};

const ROUNDS: usize = 3;
/// Clients, and writes that each keeps under way.
const LOADS: [(u32, u32); 3] = [(1, 1), (50, 1), (50, 8)];
/// A lone client sends no more writes than this.
const LONE_REQUESTS_MAX: u64 = 10_000;
/// How records travel, and for how many writes that is measured.
const MODES: [(&str, &[&str], u64); 3] = [
    ("batched", &[], 150_000),
    ("one record a message, 32 under way", &["--unbatched-replication", "32"], 40_000),
    ("one record a round trip", &["--unbatched-replication", "1"], 10_000),
];

struct Run {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
}

async fn cluster(mode: &[&str]) -> Result<Vec<Node>, Failure> {
    let first = [&["--weight", "10000"], mode].concat();
    let second = [&["--weight", "1"], mode].concat();
    let nodes = Node::cluster(&[&first, &second]).await?;
    Load::new("0:1", 50, 16, 0).fill(nodes[0].resp).await?;
    Ok(nodes)
}

async fn run(nodes: &[Node], clients: u32, pipeline: u32, requests: u64) -> Result<Run, Failure> {
    let cpu = || cpu_us_of(nodes.iter().map(|node| &node.server));
    let before = cpu();
    let measured = Load::new("0:1", clients, pipeline, requests).run(nodes[0].resp).await?;
    let cpu_us = (cpu() - before) / requests as f64;
    Ok(Run { per_second: measured.per_second, cpu_us, p50_us: measured.sets.p50_us })
}

async fn bench() -> Result<(), Failure> {
    let mut clusters = Vec::new();
    for (_, flags, _) in MODES {
        clusters.push(cluster(flags).await?);
    }
    println!("replicated SETs of 64 B, two nodes, medians of {ROUNDS}; CPU is of both nodes");
    println!(
        "{:<36} {:>8} {:>10} {:>12} {:>9} {:>8}",
        "", "clients", "under way", "writes/s", "CPU-us", "p50 ms"
    );
    let mut figures = serde_json::Map::new();
    for (clients, pipeline) in LOADS {
        let mut runs: Vec<Vec<Run>> = MODES.iter().map(|_| Vec::new()).collect();
        // Interleaved, so that what else the machine does falls on all alike.
        for _ in 0..ROUNDS {
            for (mode, nodes) in clusters.iter().enumerate() {
                let requests_max = if clients * pipeline == 1 { LONE_REQUESTS_MAX } else { u64::MAX };
                let requests = MODES[mode].2.min(requests_max);
                runs[mode].push(run(nodes, clients, pipeline, requests).await?);
            }
        }
        let mut rows = Vec::new();
        for ((name, ..), runs) in MODES.iter().zip(&runs) {
            let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
            let (per_second, cpu_us, p50_us) =
                (of(|run| run.per_second), of(|run| run.cpu_us), of(|run| run.p50_us));
            let under_way = clients * pipeline;
            println!(
                "{name:<36} {clients:>8} {under_way:>10} {per_second:>12.0} {cpu_us:>9.2} {:>8.2}",
                p50_us / 1e3
            );
            rows.push(serde_json::json!({
                "mode": name, "per_second": per_second, "cpu_us": cpu_us, "p50_us": p50_us,
            }));
        }
        let throughput = |row: usize| rows[row]["per_second"].as_f64().unwrap_or(f64::NAN);
        println!(
            "  batched is {:.1} times one record a round trip, {:.1} times 32 under way\n",
            throughput(0) / throughput(2),
            throughput(0) / throughput(1)
        );
        figures.insert(format!("{}", clients * pipeline), rows.into());
    }
    results::keep("replication", &figures.into())
}

fn main() {
    results::run("replication", || block_on(bench()));
}
