//! (a) One active primary for each partition and epoch.

use super::Finding;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
use crate::sim::cluster::Cluster;
use std::collections::BTreeMap;

/// Who was seen to reign.
#[derive(Debug, Default)]
pub(super) struct Reigns {
    seen: BTreeMap<(Incarnation, PartitionId, Epoch), NodeId>,
}

impl Reigns {
    pub(super) fn look(&mut self, cluster: &Cluster, node: NodeId) -> Finding {
        let engine = cluster.engine(node);
        let incarnation = engine.table().incarnation;
        for partition in engine.partitions().iter().filter(|partition| partition.is_primary()) {
            let reign = (incarnation, partition.id, partition.epoch);
            let first = *self.seen.entry(reign).or_insert(node);
            if first != node {
                return Err(format!("{} {}: {first} and {node}", partition.id, partition.epoch));
            }
        }
        Ok(())
    }
}
