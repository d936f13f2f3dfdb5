//! (j) Once a later reign commits, nobody of an earlier one may believe that it can still read.
//!
//! Clients only notice a stale read where somebody happens to read the right key at the right moment.
//! This looks at the leases themselves.

use super::{Finding, Seen};
use crate::engine::ids::{Epoch, Incarnation, PartitionId, Sequence};
use crate::engine::partition::Role;
use std::collections::BTreeMap;

/// Where the latest reign of each partition began.
#[derive(Debug, Default)]
pub(super) struct Leases {
    began: BTreeMap<PartitionId, (Incarnation, Epoch, Sequence)>,
}

impl Leases {
    /// A primary that has committed something new in its reign must be the only one that reads.
    pub(super) fn look(&mut self, seen: Seen<'_>) -> Finding {
        let Seen { incarnation, partition, .. } = seen;
        let (Role::Primary(_), Some(copy)) = (&partition.role, &partition.copy) else { return Ok(()) };
        let now = (incarnation, partition.epoch, copy.last);
        let began = self.began.entry(partition.id).or_insert(now);
        if (began.0, began.1) < (now.0, now.1) {
            *began = now;
        }
        // After a handover the source may read on until the first write needs its consent.
        if (began.0, began.1) != (now.0, now.1) || copy.commit <= began.2 {
            return Ok(());
        }
        alone(seen, copy.commit)
    }
}

fn alone(seen: Seen<'_>, committed: Sequence) -> Finding {
    let Seen { cluster, node, incarnation, partition, .. } = seen;
    for (&other, sim) in &cluster.nodes {
        let engine = &sim.engine;
        let theirs = (engine.table().incarnation, engine.partitions().get(partition.id.index()));
        let (their_incarnation, Some(former)) = theirs else { continue };
        let Role::Primary(primary) = &former.role else { continue };
        let is_earlier = (their_incarnation, former.epoch) < (incarnation, partition.epoch);
        if other == node || !is_earlier || former.promised > former.epoch || !cluster.lives(other) {
            continue;
        }
        // A paused process may go on at any moment: its clock counts, not whether it runs.
        let now_us = cluster.now_at(other).mono_us;
        let mut followers = primary.followers.iter().filter(|follower| follower.attached).peekable();
        // The other side of a split reads what it has; but not by the word of whoever went on without it. A
        // learner that isn't attached gives none (seed 1584).
        let carrier = cluster.engine(node).table().carried_by;
        let is_split = their_incarnation != incarnation
            && !followers.clone().any(|follower| Some(follower.node) == carrier);
        if is_split {
            continue;
        }
        let alone = followers.peek().is_none();
        if !alone && followers.all(|follower| now_us < engine.peers().lease_until_us(follower.node)) {
            return Err(format!(
                "{} {} at {node} has committed {}, {other} may still read in {}",
                partition.id, partition.epoch, committed, former.epoch
            ));
        }
    }
    Ok(())
}
