//! Resident memory an entry, the process included, of servers that were just filled.

use super::Failure;
use super::load::Load;
use super::measure::{CLIENTS, Comparison, VALUE_BYTES};
use super::redis::Redis;
use super::rows::{Bar, Row, Samples, Unit};
use super::servers::Node;

/// Long enough that nothing expires meanwhile.
const TTL_S: u64 = 86_400;
/// What is kept with an entry, and the bar.
const ENTRIES: [(&str, Option<u64>, f64); 2] =
    [("entry without TTL", None, 0.75), ("entry with TTL", Some(TTL_S), 0.63)];

pub async fn measure(comparison: &mut Comparison) -> Result<(), Failure> {
    let keys = comparison.memory_keys;
    comparison
        .section("Memory", format!("resident, {keys} entries, keys of 16 B, values of {VALUE_BYTES} B"))?;
    for (what, ttl_s, bar) in ENTRIES {
        comparison.progress.step(&format!("memory: {what}"));
        let fill = Load { keys, ttl_s, ..Load::new("0:1", CLIENTS, 64, 0) };
        let bytes = comparison
            .by_turns(what, async |side| {
                let resident = if side == 0 {
                    let node = Node::start(&[]).await?;
                    fill.fill(node.resp).await?;
                    node.server.resident_bytes()
                } else {
                    let redis = Redis::start(&comparison.folder).await?;
                    fill.fill(redis.at).await?;
                    redis.server.resident_bytes()
                };
                Ok(resident / keys as f64)
            })
            .await?;
        let (what, figures) = (what.to_owned(), bytes.map(Samples::of));
        let bar = Bar::AtMost(bar);
        comparison.row(Row { what, unit: Unit::Bytes, beside: None, figures, wall: None, bar })?;
    }
    Ok(())
}
