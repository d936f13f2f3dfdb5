//! (b) What a node has promised never decreases.

use super::{Finding, Seen};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
use std::collections::BTreeMap;

/// The latest promise of each node for each partition.
#[derive(Debug, Default)]
pub(super) struct Promises {
    latest: BTreeMap<(NodeId, PartitionId), (Incarnation, Epoch, Epoch)>,
}

impl Promises {
    pub(super) fn look(&mut self, seen: Seen<'_>) -> Finding {
        let Seen { node, incarnation, partition, .. } = seen;
        let now = (incarnation, partition.promised, partition.epoch);
        let before = self.latest.insert((node, partition.id), now).unwrap_or(now);
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
        Ok(())
    }
}
