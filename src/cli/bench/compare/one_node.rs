//! One node beside one Redis server.

use super::Failure;
use super::cost::{Cost, Side};
use super::load::{Load, Measured};
use super::measure::{CLIENTS, Comparison, KEYS, VALUE_BYTES};
use super::redis::Redis;
use super::redis_benchmark::{Commands, RedisBenchmark};
use super::rows::{Bar, Pair, Row, Samples, Unit};
use super::servers::Node;

/// Commands under way at each client, commands in all, and the bar for processor time.
const PIPELINES: [(u32, u64, f64); 3] = [(1, 100_000, 0.88), (16, 800_000, 0.35), (64, 1_600_000, 0.20)];
const LARGE_VALUE_BYTES: u32 = 1_024;
/// The same for commands on ten keys each.
const TEN_KEYS: [(u32, u64, f64); 2] = [(1, 60_000, 0.5), (16, 120_000, 0.5)];
const THROUGHPUT_PIPELINE: u32 = 64;
const THROUGHPUT_REQUESTS: u64 = 3_000_000;
const THROUGHPUT_BAR: f64 = 2.0;
/// Of the commands that Redis can answer a second: what both are offered, and for how many seconds.
const EQUAL_LOAD: f64 = 0.6;
const EQUAL_LOAD_SECONDS: f64 = 3.0;
const EQUAL_LOAD_BAR: f64 = 1.0;
/// Commands to see how many Redis can answer.
const CAPACITY_REQUESTS: u64 = 150_000;

/// A server of each kind, filled with the same.
struct Servers {
    node: Node,
    redis: Redis,
}

impl Servers {
    async fn filled(comparison: &Comparison, value_bytes: u32) -> Result<Servers, Failure> {
        comparison.progress.step(&format!("one node: setting {KEYS} keys to values of {value_bytes} B"));
        let servers =
            Servers { node: Node::start(&[]).await?, redis: Redis::start(&comparison.folder).await? };
        let fill = Load { keys: KEYS, value_bytes, ..Load::new("0:1", CLIENTS, 64, 0) };
        for at in [servers.node.resp, servers.redis.at] {
            fill.fill(at).await?;
        }
        Ok(servers)
    }

    fn sides(&self, load: RedisBenchmark) -> Pair<(Side<'_>, RedisBenchmark)> {
        let node = Side { at: self.node.resp, servers: vec![&self.node.server] };
        let redis = Side { at: self.redis.at, servers: vec![&self.redis.server] };
        [(node, load), (redis, load)]
    }
}

pub async fn measure(comparison: &mut Comparison) -> Result<(), Failure> {
    comparison.section("One node", format!("{CLIENTS} clients, {KEYS} keys of 16 B"))?;
    let servers = Servers::filled(comparison, VALUE_BYTES).await?;
    single_keys(comparison, &servers, VALUE_BYTES).await?;
    ten_keys(comparison, &servers).await?;
    throughput(comparison, &servers).await?;
    equal_load(comparison, &servers).await?;
    drop(servers);
    if comparison.is_quick {
        return Ok(());
    }
    let servers = Servers::filled(comparison, LARGE_VALUE_BYTES).await?;
    single_keys(comparison, &servers, LARGE_VALUE_BYTES).await
}

fn load(commands: Commands, pipeline: u32, requests: u64, value_bytes: u32) -> RedisBenchmark {
    RedisBenchmark {
        commands,
        clients: CLIENTS,
        pipeline,
        requests,
        value_bytes,
        keys: KEYS,
        threads: 1,
        is_cluster_aware: false,
    }
}

async fn single_keys(
    comparison: &mut Comparison,
    servers: &Servers,
    value_bytes: u32,
) -> Result<(), Failure> {
    let size = if value_bytes == LARGE_VALUE_BYTES { "1 KiB" } else { "64 B" };
    for (pipeline, requests, bar) in PIPELINES {
        for (name, commands) in [("SET", Commands::Set), ("GET", Commands::Get)] {
            let load = load(commands, pipeline, comparison.requests(requests), value_bytes);
            let what = format!("{name} {size}, pipeline {pipeline}");
            comparison.cpu_row(what, None, bar, &servers.sides(load)).await?;
        }
    }
    Ok(())
}

async fn ten_keys(comparison: &mut Comparison, servers: &Servers) -> Result<(), Failure> {
    let pipelines = if comparison.is_quick { &TEN_KEYS[..1] } else { &TEN_KEYS[..] };
    for &(pipeline, requests, bar) in pipelines {
        for (name, commands) in [("MSET", Commands::Mset), ("MGET", Commands::Mget)] {
            let load = load(commands, pipeline, comparison.requests(requests), VALUE_BYTES);
            let what = format!("{name} of 10 keys, pipeline {pipeline}");
            comparison.cpu_row(what, None, bar, &servers.sides(load)).await?;
        }
    }
    Ok(())
}

async fn throughput(comparison: &mut Comparison, servers: &Servers) -> Result<(), Failure> {
    for (name, commands) in [("SET", Commands::Set), ("GET", Commands::Get)] {
        let requests = comparison.requests(THROUGHPUT_REQUESTS);
        let load =
            RedisBenchmark { threads: 2, ..load(commands, THROUGHPUT_PIPELINE, requests, VALUE_BYTES) };
        let what = format!("{name}s/s, pipeline {THROUGHPUT_PIPELINE}, 2 load threads");
        let costs = comparison.costs(&what, &servers.sides(load)).await?;
        let per_second = |runs: &Vec<Cost>| Samples::of(runs.iter().map(|cost| cost.per_second));
        let (figures, bar) = (costs.each_ref().map(per_second), Bar::AtLeast(THROUGHPUT_BAR));
        comparison.row(Row { what, unit: Unit::PerSecond, beside: None, figures, wall: None, bar })?;
    }
    Ok(())
}

/// The 99th percentile while both are offered the same, whether they keep up or not.
async fn equal_load(comparison: &mut Comparison, servers: &Servers) -> Result<(), Failure> {
    let load = Load { keys: KEYS, ..Load::new("1:1", CLIENTS, 1, CAPACITY_REQUESTS) };
    let mut capacity = Vec::new();
    for run in 0..comparison.runs {
        comparison.progress.run("commands a second that Redis can answer", run + 1, comparison.runs);
        capacity.push(load.run(servers.redis.at).await?.per_second);
    }
    let rate = (Samples::of(capacity).median() * EQUAL_LOAD).max(1.0);
    let requests = comparison.requests((rate * EQUAL_LOAD_SECONDS) as u64).max(1);
    let load = Load { rate: Some(rate as u64), requests, ..load };
    let addresses = [servers.node.resp, servers.redis.at];
    let what = format!("p99 at {:.0} k/s (60 % of Redis)", rate / 1e3);
    let runs = comparison.by_turns(&what, async |side| Ok(load.run(addresses[side]).await?)).await?;
    for name in ["SET", "GET"] {
        let of = |run: &Measured| if name == "SET" { run.sets } else { run.gets };
        let figures = runs.each_ref().map(|runs| Samples::of(runs.iter().map(|run| of(run).p99_us)));
        let wall = runs.each_ref().map(|runs| Samples::of(runs.iter().map(|run| run.per_second)));
        let (what, bar) = (format!("{name} {what}"), Bar::AtMost(EQUAL_LOAD_BAR));
        comparison.row(Row { what, unit: Unit::LatencyUs, beside: None, figures, wall: Some(wall), bar })?;
    }
    Ok(())
}
