//! (i) A partition's hybrid clock never goes back while a copy lasts.
//!
//! That it doesn't go back at a promotion is looked at where promotions are (`commits`).

use super::{Finding, Seen};
use crate::engine::ids::{Incarnation, NodeId, PartitionId, Version};
use std::collections::BTreeMap;

/// The latest reading of each copy's clock.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    latest: BTreeMap<(NodeId, PartitionId), (Incarnation, u64, Version)>,
}

impl Clocks {
    pub(super) fn look(&mut self, seen: Seen<'_>) -> Finding {
        let Seen { node, incarnation, partition, .. } = seen;
        let Some(copy) = &partition.copy else {
            self.latest.remove(&(node, partition.id));
            return Ok(());
        };
        let now = (incarnation, copy.attempt, copy.hlc.last());
        let before = self.latest.insert((node, partition.id), now);
        match before {
            Some(before) if (before.0, before.1) == (now.0, now.1) && now.2 < before.2 => {
                Err(format!("{node} {}: {:?} after {:?}", partition.id, now.2, before.2))
            }
            _ => Ok(()),
        }
    }
}
