//! What it costs to ask the wrong node: GETs answered by the node that was asked, and GETs that it
//! forwards to the primary.
//!
//! Two nodes in processes of their own; the first is primary of nearly everything. Clients of the
//! first are answered there, clients of the second are forwarded. `cargo bench --bench forwarding`

mod rig;

use rig::load::Load;
use rig::servers::{Node, cpu_us_of};
use rig::{Failure, block_on, median, results};

const ROUNDS: usize = 3;
/// Clients, GETs that each keeps under way, and GETs in all.
const LOADS: [(u32, u32, u64); 3] = [(1, 1, 10_000), (50, 1, 60_000), (50, 16, 300_000)];

async fn bench() -> Result<(), Failure> {
    let nodes = Node::cluster(&[&["--weight", "10000"], &["--weight", "1"]]).await?;
    Load::new("0:1", 50, 16, 0).fill(nodes[0].resp).await?;
    println!("GETs of 64 B, two nodes, medians of {ROUNDS}; CPU is of both nodes");
    println!(
        "{:<10} {:>8} {:>10} {:>12} {:>9} {:>9} {:>9}",
        "", "clients", "under way", "GETs/s", "CPU-us", "p50 us", "p99 us"
    );
    let mut rows = Vec::new();
    for (clients, pipeline, requests) in LOADS {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (asked, runs) in nodes.iter().zip(&mut runs) {
                let cpu = || cpu_us_of(nodes.iter().map(|node| &node.server));
                let before = cpu();
                let measured = Load::new("1:0", clients, pipeline, requests).run(asked.resp).await?;
                runs.push((measured, (cpu() - before) / requests as f64));
            }
        }
        for (name, runs) in ["local", "forwarded"].into_iter().zip(&runs) {
            let per_second = median(runs.iter().map(|run| run.0.per_second));
            let (p50_us, p99_us) = (
                median(runs.iter().map(|run| run.0.gets.p50_us)),
                median(runs.iter().map(|run| run.0.gets.p99_us)),
            );
            let cpu_us = median(runs.iter().map(|run| run.1));
            let under_way = clients * pipeline;
            println!(
                "{name:<10} {clients:>8} {under_way:>10} {per_second:>12.0} {cpu_us:>9.2} {p50_us:>9.0} {p99_us:>9.0}"
            );
            rows.push(serde_json::json!({
                "path": name, "under_way": under_way, "per_second": per_second,
                "cpu_us": cpu_us, "p50_us": p50_us, "p99_us": p99_us,
            }));
        }
    }
    results::keep("forwarding", &rows.into())
}

fn main() {
    results::run("forwarding", || block_on(bench()));
}
