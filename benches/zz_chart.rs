//! Draws what the other benchmarks measured last as `docs/img/bench.svg`.
//!
//! Named to run last: `cargo bench` goes by the alphabet. `cargo bench --bench zz_chart`

mod rig;

use rig::chart::{Bar, Panel, svg};
use rig::{Failure, results};
use serde_json::Value;
use std::path::Path;

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn replication() -> Panel {
    let kept = results::kept("replication");
    let bars = list(&kept["400"]).iter().enumerate().map(|(index, row)| {
        let per_second = number(&row["per_second"]);
        Bar {
            label: text(&row["mode"])
                .replace("one record a message, 32 under way", "a message each, 32 at once"),
            value: per_second,
            shown: format!("{:.1} k/s, {:.1} µs", per_second / 1e3, number(&row["cpu_us"])),
            limit: None,
            is_ours: index == 0,
        }
    });
    Panel {
        title: "Replicated writes a second, and their CPU".to_owned(),
        note: "two nodes over QUIC, 50 clients with 8 writes under way each".to_owned(),
        bars: bars.collect(),
        reference: None,
    }
}

fn streaming() -> Panel {
    let kept = results::kept("streaming");
    let bars = list(&kept).iter().enumerate().map(|(index, row)| {
        let (speed, cost) = (number(&row["mb_per_second"]), number(&row["cpu_ns_per_byte"]));
        let (label, shown) = (text(&row["what"]), format!("{speed:.0} MB/s, {cost:.1} ns/B"));
        Bar { label, value: speed, shown, limit: None, is_ours: index > 0 }
    });
    Panel {
        title: "A full copy to a node that joins".to_owned(),
        note: "beside bare QUIC with the same settings; CPU of both processes".to_owned(),
        bars: bars.collect(),
        reference: None,
    }
}

fn forwarding() -> Panel {
    let kept = results::kept("forwarding");
    let bars = list(&kept).iter().map(|row| {
        let (path, under_way) = (text(&row["path"]), number(&row["under_way"]));
        let cpu_us = number(&row["cpu_us"]);
        Bar {
            label: format!("{path}, {under_way:.0} under way"),
            value: cpu_us,
            shown: format!("{cpu_us:.1} µs, p50 {:.2} ms", number(&row["p50_us"]) / 1e3),
            limit: None,
            is_ours: path == "forwarded",
        }
    });
    Panel {
        title: "GETs asked of the wrong node: CPU of both nodes".to_owned(),
        note: "two nodes; local is asked of the primary itself".to_owned(),
        bars: bars.collect(),
        reference: None,
    }
}

fn front_door() -> Panel {
    let kept = results::kept("resp");
    let bars = list(&kept).iter().filter(|row| number(&row["at_a_time"]) != 1.0).map(|row| {
        let ns = number(&row["engine_ns"]);
        Bar {
            label: format!("{}, {:.0} at a time", text(&row["command"]), number(&row["at_a_time"])),
            value: ns,
            shown: format!("{ns:.0} ns, decode {:.0}", number(&row["decode_ns"])),
            limit: None,
            is_ours: true,
        }
    });
    Panel {
        title: "From bytes to bytes without a socket".to_owned(),
        note: "decode, session and engine of one node, 1 M keys".to_owned(),
        bars: bars.collect(),
        reference: None,
    }
}

fn bench() -> Result<(), Failure> {
    let panels = [front_door(), replication(), forwarding(), streaming()];
    if panels.iter().all(|panel| panel.bars.is_empty()) {
        println!("nothing was measured yet");
        return Ok(());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/img/bench.svg");
    std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    std::fs::write(&path, svg(&panels))?;
    println!("{}", path.display());
    Ok(())
}

fn main() {
    results::run("chart", bench);
}
