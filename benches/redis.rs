//! Side by side with Redis, if `redis-server`, `redis-benchmark` and `redis-cli` are installed:
//! processor time an operation and memory an entry of one node, and processor time of three nodes
//! with two synchronous copies against a Redis Cluster of three masters with an asynchronous
//! replica each.
//!
//! `redis-benchmark` is the load for both; runs are interleaved, figures are medians.
//! `cargo bench --bench redis`

mod rig;

use rig::load::Load;
use rig::process::{Node, Server, cpu_us_of, free_port, wait_for_port};
use rig::{Failure, median, results};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const KEYS: u64 = 1_000_000;
const CLIENTS: u32 = 50;
/// Commands under way at each client, commands in all, and the bound on processor time relative to
/// Redis.
const PIPELINES: [(u32, u64, f64); 3] = [(1, 60_000, 1.3), (16, 400_000, 0.8), (64, 800_000, 0.5)];
const MEMORY_BAR: f64 = 1.0;
const CLUSTER_COMMANDS: u64 = 60_000;
const CLUSTER_BAR: f64 = 1.5;
/// A Redis Cluster node's second port lies so far above its first.
const BUS_OFFSET: u16 = 10_000;
const FORM_TIMEOUT: Duration = Duration::from_secs(60);

/// A Redis server on a free loopback port, without persistence.
struct Redis {
    server: Server,
    at: SocketAddr,
}

impl Redis {
    fn start(folder: &Path, in_cluster: bool) -> Result<Redis, Failure> {
        let port = free_port(in_cluster.then_some(BUS_OFFSET))?;
        let own = folder.join(port.to_string());
        std::fs::create_dir(&own)?;
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.arg("--dir").arg(&own).arg("--logfile").arg(own.join("log"));
        if in_cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
        }
        let server = Server::spawn(&mut command)?;
        wait_for_port(port)?;
        Ok(Redis { server, at: SocketAddr::from(([127, 0, 0, 1], port)) })
    }

    /// Three masters with a replica each.
    fn cluster(folder: &Path) -> Result<Vec<Redis>, Failure> {
        let nodes = (0..6).map(|_| Redis::start(folder, true)).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<String> = nodes.iter().map(|node| node.at.to_string()).collect();
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(&addresses);
        output(create.args(["--cluster-replicas", "1", "--cluster-yes"]))?;
        let start = Instant::now();
        while !nodes.iter().try_fold(true, |all, node| Ok::<_, Failure>(all && node.is_in_place()?))? {
            if start.elapsed() > FORM_TIMEOUT {
                return Err("the Redis Cluster did not form".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(nodes)
    }

    fn ask(&self, command: &[&str]) -> Result<String, Failure> {
        output(Command::new("redis-cli").args(["-p", &self.at.port().to_string()]).args(command))
    }

    /// Whether the cluster serves, and the node is a master whose replica follows or a replica
    /// that does.
    fn is_in_place(&self) -> Result<bool, Failure> {
        let replication = self.ask(&["info", "replication"])?;
        let follows = replication.contains("state=online") || replication.contains("master_link_status:up");
        Ok(follows && self.ask(&["cluster", "info"])?.contains("cluster_state:ok"))
    }
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?}: {text} {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// What is compared.
struct Side<'a> {
    at: SocketAddr,
    servers: Vec<&'a Server>,
}

#[derive(Clone, Copy)]
struct Run {
    cpu_us: f64,
    per_second: f64,
}

/// One run of `redis-benchmark`.
fn run(side: &Side, test: &str, pipeline: u32, commands: u64, in_cluster: bool) -> Result<Run, Failure> {
    let mut command = Command::new("redis-benchmark");
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &side.at.port().to_string(),
        "-c",
        &CLIENTS.to_string(),
        "-d",
        "64",
    ]);
    command.args(["-r", &KEYS.to_string(), "-P", &pipeline.to_string(), "-n", &commands.to_string()]);
    command.args(["-t", test, "--csv"]).args(in_cluster.then_some("--cluster"));
    let cpu = || cpu_us_of(side.servers.iter().copied());
    let before = cpu();
    let report = output(&mut command)?;
    let cpu_us = (cpu() - before) / commands as f64;
    let name = format!("\"{}\"", test.to_uppercase());
    let row = report.lines().find(|line| line.starts_with(&name));
    let per_second = row
        .and_then(|row| row.split(',').nth(1)?.trim_matches('"').parse().ok())
        .ok_or_else(|| format!("redis-benchmark says {report:?}"))?;
    Ok(Run { cpu_us, per_second })
}

/// Ringdove's and Redis's medians of interleaved runs.
fn compare(
    sides: &[Side; 2],
    test: &str,
    pipeline: u32,
    commands: u64,
    in_cluster: bool,
) -> Result<[Run; 2], Failure> {
    let mut runs = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, runs) in sides.iter().zip(&mut runs) {
            runs.push(run(side, test, pipeline, commands, in_cluster)?);
        }
    }
    Ok(runs.map(|runs| Run {
        cpu_us: median(runs.iter().map(|run| run.cpu_us)),
        per_second: median(runs.iter().map(|run| run.per_second)),
    }))
}

/// Prints a row and gives what the chart needs of it.
fn row(what: String, unit: &str, ringdove: f64, redis: f64, bar: f64, throughput: Option<[f64; 2]>) -> Value {
    let ratio = ringdove / redis;
    let verdict = if ratio <= bar { "met" } else { "MISSED" };
    let per_second =
        throughput.map_or(String::new(), |[ours, theirs]| format!("{ours:>10.0} {theirs:>10.0}"));
    println!(
        "{what:<28} {ringdove:>8.2} {redis:>8.2} {unit:<6} {ratio:>6.2} {bar:>6.1} {verdict:<7}{per_second}"
    );
    json!({ "what": what, "unit": unit, "ringdove": ringdove, "redis": redis, "ratio": ratio, "bar": bar })
}

fn one_node(folder: &Path, rows: &mut Vec<Value>) -> Result<(), Failure> {
    let (node, redis) = (Node::start(&[])?, Redis::start(folder, false)?);
    let empty = [&node.server, &redis.server].map(Server::resident_bytes);
    let fill = Load { keys: KEYS, ..Load::new("0:1", CLIENTS, 64, 0) };
    fill.fill(node.resp)?;
    fill.fill(redis.at)?;
    let full = [&node.server, &redis.server].map(Server::resident_bytes);
    let sides = [
        Side { at: node.resp, servers: vec![&node.server] },
        Side { at: redis.at, servers: vec![&redis.server] },
    ];
    for (pipeline, commands, bar) in PIPELINES {
        for test in ["set", "get"] {
            let [ours, theirs] = compare(&sides, test, pipeline, commands, false)?;
            let what = format!("{}, pipeline {pipeline}", test.to_uppercase());
            let throughput = Some([ours.per_second, theirs.per_second]);
            rows.push(row(what, "CPU-us", ours.cpu_us, theirs.cpu_us, bar, throughput));
        }
    }
    let [ours, theirs] = full.map(|bytes| bytes / KEYS as f64);
    rows.push(row("resident bytes an entry".to_owned(), "B", ours, theirs, MEMORY_BAR, None));
    let [ours, theirs] = [full[0] - empty[0], full[1] - empty[1]].map(|bytes| bytes / KEYS as f64);
    println!("  without the empty process: {ours:.1} B, Redis {theirs:.1} B");
    Ok(())
}

fn three_nodes(folder: &Path, rows: &mut Vec<Value>) -> Result<(), Failure> {
    let nodes = Node::cluster(&[&[], &[], &[]])?;
    let redis = Redis::cluster(folder)?;
    let sides = [
        Side { at: nodes[0].resp, servers: nodes.iter().map(|node| &node.server).collect() },
        Side { at: redis[0].at, servers: redis.iter().map(|node| &node.server).collect() },
    ];
    for test in ["set", "get"] {
        let [ours, theirs] = compare(&sides, test, 1, CLUSTER_COMMANDS, true)?;
        let what = format!("three nodes, {}", test.to_uppercase());
        let throughput = Some([ours.per_second, theirs.per_second]);
        rows.push(row(what, "CPU-us", ours.cpu_us, theirs.cpu_us, CLUSTER_BAR, throughput));
    }
    Ok(())
}

fn bench() -> Result<(), Failure> {
    let tools = ["redis-server", "redis-benchmark", "redis-cli"];
    if let Some(missing) = tools.iter().find(|tool| output(Command::new(tool).arg("--version")).is_err()) {
        results::forget("redis");
        println!("skipped: {missing} is not installed");
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let version = output(Command::new("redis-server").arg("--version"))?;
    let version =
        version.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?").to_owned();
    println!(
        "Redis {version}; {CLIENTS} clients, values of 64 B, {KEYS} keys, medians of {ROUNDS} interleaved runs"
    );
    println!(
        "{:<28} {:>8} {:>8} {:<6} {:>6} {:>6} {:<7}{:>10} {:>10}",
        "", "ringdove", "Redis", "", "ratio", "bar", "", "ops/s", "Redis"
    );
    let mut rows = Vec::new();
    one_node(folder.path(), &mut rows)?;
    three_nodes(folder.path(), &mut rows)?;
    results::keep("redis", &json!({ "version": version, "rows": rows }))
}

fn main() {
    results::run("redis", bench);
}
