//! (a) One active primary for each partition and epoch.

use super::{Finding, Seen};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
use std::collections::BTreeMap;

/// Who was seen to reign.
#[derive(Debug, Default)]
pub(super) struct Reigns {
    seen: BTreeMap<(Incarnation, PartitionId, Epoch), NodeId>,
}

impl Reigns {
    pub(super) fn look(&mut self, seen: Seen<'_>) -> Finding {
        let Seen { node, incarnation, partition, .. } = seen;
        if !partition.is_primary() {
            return Ok(());
        }
        let reign = (incarnation, partition.id, partition.epoch);
        let first = *self.seen.entry(reign).or_insert(node);
        match first == node {
            true => Ok(()),
            false => Err(format!("{} {}: {first} and {node}", partition.id, partition.epoch)),
        }
    }
}
