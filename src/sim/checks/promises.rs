//! (b) What a node has promised never decreases.

use super::Finding;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
use crate::sim::cluster::Cluster;
use std::collections::BTreeMap;

/// The latest promise of each node for each partition.
#[derive(Debug, Default)]
pub(super) struct Promises {
    latest: BTreeMap<(NodeId, PartitionId), (Incarnation, Epoch, Epoch)>,
}

impl Promises {
    pub(super) fn look(&mut self, cluster: &Cluster, node: NodeId) -> Finding {
        let engine = cluster.engine(node);
        let incarnation = engine.table().incarnation;
        for partition in engine.partitions() {
            let now = (incarnation, partition.promised, partition.epoch);
            let before = *self.latest.entry((node, partition.id)).or_insert(now);
            let same_life = before.0 == incarnation;
            if same_life && (now.1 < before.1 || now.2 < before.2) {
                return Err(format!("{node} {}: {now:?} after {before:?}", partition.id));
            }
            if partition.promised < partition.epoch {
                return Err(format!(
                    "{node} {}: promised {} in {}",
                    partition.id, partition.promised, partition.epoch
                ));
            }
            self.latest.insert((node, partition.id), now);
        }
        Ok(())
    }
}
