//! Resident memory an entry, of servers that were just filled: by how much the entries made it grow, and with
//! the process itself included.

use super::Failure;
use super::load::Load;
use super::measure::{CLIENTS, Comparison, VALUE_BYTES};
use super::redis::Redis;
use super::rows::{Bar, Row, Samples, Unit};
use super::servers::{Node, Server};
use std::net::SocketAddr;
use std::time::Duration;

/// Long enough that nothing expires meanwhile.
const TTL_S: u64 = 86_400;
/// What is kept with an entry, and the bar.
const ENTRIES: [(&str, Option<u64>, f64); 2] =
    [("entry without TTL", None, 0.75), ("entry with TTL", Some(TTL_S), 0.63)];
/// How long a server that just started takes at most until its memory grows no more by itself.
const REST: Duration = Duration::from_secs(2);

/// What is told of each kind of entries.
const FIGURES: [&str; 2] = ["growth", "process included"];

pub async fn measure(comparison: &mut Comparison) -> Result<(), Failure> {
    let keys = comparison.memory_keys;
    comparison
        .section("Memory", format!("resident, {keys} entries, keys of 16 B, values of {VALUE_BYTES} B"))?;
    for (entry, ttl_s, bar) in ENTRIES {
        comparison.progress.step(&format!("memory: {entry}"));
        let fill = Load { keys, ttl_s, ..Load::new("0:1", CLIENTS, 64, 0) };
        let runs = comparison
            .by_turns(entry, async |side| {
                if side == 0 {
                    let node = Node::start(&[]).await?;
                    filled(fill, &node.server, node.resp).await
                } else {
                    let redis = Redis::start(&comparison.folder).await?;
                    filled(fill, &redis.server, redis.at).await
                }
            })
            .await?;
        for (index, name) in FIGURES.into_iter().enumerate() {
            let what = format!("{entry}, {name}");
            let figures = runs.each_ref().map(|runs| Samples::of(runs.iter().map(|run| run[index])));
            let bar = Bar::AtMost(bar);
            comparison.row(Row { what, unit: Unit::Bytes, beside: None, figures, wall: None, bar })?;
        }
    }
    Ok(())
}

/// Fills a server that just started; gives its figures, in bytes an entry.
async fn filled(fill: Load, server: &Server, at: SocketAddr) -> Result<[f64; FIGURES.len()], Failure> {
    tokio::time::sleep(REST).await;
    let empty = server.resident_bytes();
    fill.fill(at).await?;
    let full = server.resident_bytes();
    Ok([full - empty, full].map(|bytes| bytes / fill.keys as f64))
}
