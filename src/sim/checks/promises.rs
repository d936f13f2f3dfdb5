//! (b) What a node has promised never decreases. Whoever promised a reign away grants its primary no lease
//! from then on, until it has the table of the next: the other precautions for reads rest on that.

use super::{Finding, Seen};
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId};
use crate::sim::cluster::Cluster;
use std::collections::BTreeMap;

/// The latest promise of each node for each partition.
#[derive(Debug, Default)]
pub(super) struct Promises {
    latest: BTreeMap<(NodeId, PartitionId), (Incarnation, Epoch, Epoch)>,
    sealed: BTreeMap<(NodeId, PartitionId), Sealed>,
}

/// A promise whose reign has not begun yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sealed {
    promised: (Incarnation, Epoch),
    deposed: NodeId,
    /// Until when the deposed may count on a lease from here.
    granted_until_us: u64,
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
        let key = (node, partition.id);
        if partition.promised == partition.epoch || partition.is_primary() {
            self.sealed.remove(&key);
            return Ok(());
        }
        let deposed = partition.primary();
        let granted_until_us = seen.engine.peers().granted_until_us(deposed);
        let promised = (incarnation, partition.promised);
        let fresh = Sealed { promised, deposed, granted_until_us };
        let sealed = self.sealed.entry(key).or_insert(fresh);
        if (sealed.promised, sealed.deposed) != (promised, deposed) {
            *sealed = fresh;
        }
        Ok(())
    }

    /// Looks at the leases given since.
    pub(super) fn leases(&self, cluster: &Cluster) -> Finding {
        for (&(node, id), sealed) in &self.sealed {
            let engine = cluster.engine(node);
            let Some(partition) = engine.partitions().get(id.index()) else { continue };
            let Sealed { promised, deposed, granted_until_us } = *sealed;
            let until_us = engine.peers().granted_until_us(deposed);
            let stands = (engine.table().incarnation, partition.promised) == promised
                && partition.promised > partition.epoch
                && partition.primary() == deposed;
            if stands && until_us > granted_until_us {
                return Err(format!(
                    "{node} promised {id} {} away and granted {deposed} a lease until {until_us}",
                    partition.epoch
                ));
            }
        }
        Ok(())
    }
}
