//! (i) A partition's hybrid clock never goes back while a copy lasts.
//!
//! That it doesn't go back at a promotion is looked at where promotions are (`commits`).

use super::Finding;
use crate::engine::ids::{Incarnation, NodeId, PartitionId, Version};
use crate::sim::cluster::Cluster;
use std::collections::BTreeMap;

/// The latest reading of each copy's clock.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    latest: BTreeMap<(NodeId, PartitionId), (Incarnation, u64, Version)>,
}

impl Clocks {
    pub(super) fn look(&mut self, cluster: &Cluster, node: NodeId) -> Finding {
        let engine = cluster.engine(node);
        for partition in engine.partitions() {
            let Some(copy) = &partition.copy else {
                self.latest.remove(&(node, partition.id));
                continue;
            };
            let now = (engine.table().incarnation, copy.attempt, copy.hlc.last());
            let before = self.latest.insert((node, partition.id), now);
            if let Some(before) = before
                && (before.0, before.1) == (now.0, now.1)
                && now.2 < before.2
            {
                return Err(format!("{node} {}: {:?} after {:?}", partition.id, now.2, before.2));
            }
        }
        Ok(())
    }
}
