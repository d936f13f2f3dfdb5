//! Latency for one client that waits for each reply.

use super::Failure;
use super::load::{Latency, Load, Measured};
use super::measure::{Comparison, VALUE_BYTES};
use super::redis::Redis;
use super::rows::{Bar, Pair, Row, Samples, Unit};
use super::servers::Node;
use std::net::SocketAddr;

const REQUESTS: u64 = 40_000;
const KEYS: u64 = 100_000;
const LOCAL_BAR: f64 = 1.05;
const REPLICATED_BAR: f64 = 2.5;

pub async fn measure(comparison: &mut Comparison) -> Result<(), Failure> {
    comparison
        .section("Latency", format!("one client, pipeline 1, {KEYS} keys, values of {VALUE_BYTES} B"))?;
    comparison.progress.step("latency: starting servers");
    let node = Node::start(&[]).await?;
    {
        let redis = Redis::start(&comparison.folder).await?;
        let addresses = [node.resp, redis.at];
        for at in addresses {
            Load::new("0:1", 1, 64, 0).fill(at).await?;
        }
        for (name, ratio) in [("SET", "0:1"), ("GET", "1:0")] {
            rows(comparison, name, ratio, None, addresses, LOCAL_BAR).await?;
        }
    }
    // The first is primary of nearly everything, so that nothing is forwarded.
    let pair = Node::cluster(&[&["--weight", "10000"], &["--weight", "1"]]).await?;
    Load::new("0:1", 1, 64, 0).fill(pair[0].resp).await?;
    let addresses = [pair[0].resp, node.resp];
    rows(comparison, "SET on two copies", "0:1", Some("one copy"), addresses, REPLICATED_BAR).await
}

async fn rows(
    comparison: &mut Comparison,
    name: &str,
    ratio: &'static str,
    beside: Option<&'static str>,
    addresses: Pair<SocketAddr>,
    bar: f64,
) -> Result<(), Failure> {
    let load = Load { keys: KEYS, ..Load::new(ratio, 1, 1, comparison.requests(REQUESTS)) };
    let runs = comparison.by_turns(name, async |side| Ok(load.run(addresses[side]).await?)).await?;
    let latency = |run: &Measured| if ratio == "1:0" { run.gets } else { run.sets };
    for quantile in ["p50", "p99"] {
        let of = |Latency { p50_us, p99_us }: Latency| if quantile == "p50" { p50_us } else { p99_us };
        let figures = runs.each_ref().map(|runs| Samples::of(runs.iter().map(|run| of(latency(run)))));
        let (what, bar) = (format!("{name}, {quantile}"), Bar::AtMost(bar));
        comparison.row(Row { what, unit: Unit::LatencyUs, beside, figures, wall: None, bar })?;
    }
    Ok(())
}
