//! Three nodes with two synchronous, encrypted copies beside a Redis Cluster of three masters with an
//! asynchronous, plain replica each; and what it costs to send everything through one node.

use super::Failure;
use super::cost::Side;
use super::load::Load;
use super::measure::{CLIENTS, Comparison, KEYS, VALUE_BYTES};
use super::redis::Redis;
use super::redis_benchmark::{Commands, RedisBenchmark};
use super::servers::Node;

/// Commands under way at each client, commands in all, and the bars for SET and GET. Where less is measured,
/// the last is left out.
const PIPELINES: [(u32, u64, f64, f64); 3] =
    [(1, 100_000, 0.95, 0.90), (16, 400_000, 0.50, 0.45), (64, 800_000, 0.40, 0.35)];
/// Commands under way, commands in all, and the bar for GETs through one node beside GETs that go to
/// their owners.
const FORWARDED: [(u32, u64, f64); 2] = [(1, 100_000, 1.8), (16, 400_000, 2.2)];
/// Where `redis-benchmark` knows the cluster, it takes one slot of each node for the whole run, so that a
/// node's keys differ in their random numbers alone: those below this make 1 M keys on three nodes.
const NUMBERS_A_NODE: u64 = 333_333;
/// Random SETs until nearly all of these keys, 95 of 100, are there.
const FILL_REQUESTS: u64 = 3_000_000;

pub async fn measure(comparison: &mut Comparison) -> Result<(), Failure> {
    comparison.section(
        "Three nodes",
        format!(
            "{CLIENTS} clients, {KEYS} keys, {VALUE_BYTES} B; two synchronous copies beside Redis Cluster, 3 + 3 asynchronous; \
             where it knows the cluster, redis-benchmark keeps the keys of each node in one slot"
        ),
    )?;
    comparison.progress.step("three nodes: forming both clusters");
    let nodes = Node::cluster(&[&[], &[], &[]]).await?;
    let redis = Redis::cluster(&comparison.folder).await?;
    let ours = || Side { at: nodes[0].resp, servers: nodes.iter().map(|node| &node.server).collect() };
    let theirs = || Side { at: redis[0].at, servers: redis.iter().map(|node| &node.server).collect() };
    let [shallow @ .., _] = &PIPELINES;
    let pipelines = if comparison.is_quick { &shallow[..] } else { &PIPELINES[..] };

    let load = |commands, pipeline, requests| RedisBenchmark {
        commands,
        clients: CLIENTS,
        pipeline,
        requests,
        value_bytes: VALUE_BYTES,
        keys: NUMBERS_A_NODE,
        threads: 1,
        is_cluster_aware: true,
    };
    comparison.progress.step(&format!("three nodes: setting {KEYS} keys, each node's in one slot"));
    for side in [ours(), theirs()] {
        load(Commands::Set, 64, FILL_REQUESTS).run(side.at).await?;
    }
    for &(pipeline, requests, set_bar, get_bar) in pipelines {
        for (name, commands, bar) in [("SET", Commands::Set, set_bar), ("GET", Commands::Get, get_bar)] {
            let load = load(commands, pipeline, comparison.requests(requests));
            let what = format!("{name}, pipeline {pipeline}");
            comparison.cpu_row(what, None, bar, &[(ours(), load), (theirs(), load)]).await?;
        }
    }

    let spread = |ratio, pipeline, requests| Load {
        keys: KEYS,
        is_cluster_aware: true,
        ..Load::new(ratio, CLIENTS, pipeline, requests)
    };
    comparison.progress.step(&format!("three nodes: setting {KEYS} keys in all slots"));
    for side in [ours(), theirs()] {
        spread("0:1", 64, 0).fill(side.at).await?;
    }
    for &(pipeline, requests, set_bar, get_bar) in shallow {
        for (name, ratio, bar) in [("SET", "0:1", set_bar), ("GET", "1:0", get_bar)] {
            let load = spread(ratio, pipeline, comparison.requests(requests));
            let what = format!("{name}, pipeline {pipeline}, keys in all slots");
            comparison.cpu_row(what, None, bar, &[(ours(), load), (theirs(), load)]).await?;
        }
    }

    drop(redis);
    for (pipeline, requests, bar) in FORWARDED {
        let direct = load(Commands::Get, pipeline, comparison.requests(requests));
        // Without hash tags its keys are those that are in all slots.
        let through_one = RedisBenchmark { is_cluster_aware: false, keys: KEYS, ..direct };
        let what = format!("GET through one node, pipeline {pipeline}");
        comparison.cpu_row(what, Some("direct"), bar, &[(ours(), through_one), (ours(), direct)]).await?;

        // The same keys, from the same program.
        let direct = spread("1:0", pipeline, comparison.requests(requests));
        let through_one = Load { is_cluster_aware: false, ..direct };
        let what = format!("GET through one node, pipeline {pipeline}, keys in all slots");
        comparison.cpu_row(what, Some("direct"), bar, &[(ours(), through_one), (ours(), direct)]).await?;
    }
    Ok(())
}
