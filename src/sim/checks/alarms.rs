//! The engine's own alarms stay silent: each would be a bug.

use super::Finding;
use crate::sim::cluster::Cluster;

pub(super) fn silent(cluster: &Cluster) -> Finding {
    for (node, sim) in &cluster.nodes {
        let stats = sim.engine.stats();
        let alarms = [
            ("digest_mismatches", stats.digest_mismatches),
            ("snapshot_mismatches", stats.snapshot_mismatches),
            ("invariant_alarms", stats.invariant_alarms),
            ("frames_broken", stats.frames_broken),
        ];
        if let Some((name, count)) = alarms.into_iter().find(|(_, count)| *count > 0) {
            return Err(format!("{node}: {name} {count}"));
        }
    }
    Ok(())
}
