//! Operations on their way: forwarded to another primary, or parked until they can run.
//!
//! An operation is forwarded once; a node that isn't the primary answers "stale" with its table
//! version and never forwards on, so there are no loops. What was sent over a link that is lost is
//! in doubt if it may have written, and runs again otherwise.

use super::hashed_map::HashedMap;
use super::ids::{NodeId, PartitionId};
use super::op::OwnedOp;
use super::partition::primary::Asker;
use super::shared::Parked;
use std::collections::{BTreeMap, VecDeque};

/// How much longer than its primary the node that was asked waits: a clean refusal at the end of the
/// primary's patience is still on its way then.
const ANSWER_US: u64 = 1_000_000;

/// A forwarded operation, until its answer comes.
#[derive(Clone, Debug)]
pub struct Forwarded {
    /// Who asked; always a local client.
    pub asker: Asker,
    /// What for.
    pub op: OwnedOp,
    /// Whom it was sent to.
    pub to: NodeId,
    /// When its primary's patience ends; the answer may take a little longer.
    pub deadline_us: u64,
}

impl Forwarded {
    fn overdue_us(&self) -> u64 {
        self.deadline_us + ANSWER_US
    }
}

/// Operations on their way.
#[derive(Debug, Default)]
pub struct Router {
    next_id: u64,
    /// No answer is overdue before this.
    due_us: u64,
    forwarded: HashedMap<Forwarded>,
    parked: BTreeMap<PartitionId, VecDeque<Parked>>,
    parked_count: usize,
}

impl Router {
    /// Operations on their way.
    pub fn len(&self) -> usize {
        self.forwarded.len() + self.parked_count
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes a forwarded operation and numbers it. Returns it as it is kept.
    pub fn forward(&mut self, forwarded: Forwarded) -> (u64, &OwnedOp) {
        self.next_id += 1;
        self.due_us = self.due_us.min(forwarded.overdue_us());
        let kept = self.forwarded.entry(self.next_id).or_insert(forwarded);
        (self.next_id, &kept.op)
    }

    /// Takes the operation that `from` answers; `None` if it isn't expected from there.
    pub fn answered(&mut self, from: NodeId, id: u64) -> Option<Forwarded> {
        if self.forwarded.get(&id).is_some_and(|forwarded| forwarded.to == from) {
            self.forwarded.remove(&id)
        } else {
            None
        }
    }

    /// Takes all operations sent to `node`, in the order they were sent.
    pub fn lost(&mut self, node: NodeId) -> Vec<Forwarded> {
        self.take(|forwarded| forwarded.to == node)
    }

    /// Takes the forwarded operations whose answer is overdue, in the order they were sent.
    pub fn expired(&mut self, now_us: u64) -> Vec<Forwarded> {
        if now_us < self.due_us {
            return Vec::new();
        }
        let expired = self.take(|forwarded| forwarded.overdue_us() <= now_us);
        self.due_us = self.forwarded.values().map(Forwarded::overdue_us).min().unwrap_or(u64::MAX);
        expired
    }

    fn take(&mut self, which: impl Fn(&Forwarded) -> bool) -> Vec<Forwarded> {
        let mut taken: Vec<_> = self.forwarded.extract_if(|_, forwarded| which(forwarded)).collect();
        taken.sort_unstable_by_key(|&(id, _)| id);
        taken.into_iter().map(|(_, forwarded)| forwarded).collect()
    }

    /// Parks an operation at its partition.
    pub fn park(&mut self, parked: Parked) {
        self.parked_count += 1;
        self.parked.entry(parked.op.encoded().partition()).or_default().push_back(parked);
    }

    /// Whether operations are parked at a partition: later ones must not overtake them.
    pub fn has_parked(&self, partition: PartitionId) -> bool {
        self.parked_count > 0 && self.parked.contains_key(&partition)
    }

    /// Takes everything parked at a partition, in order.
    pub fn unpark(&mut self, partition: PartitionId) -> VecDeque<Parked> {
        let queue = self.parked.remove(&partition).unwrap_or_default();
        self.parked_count -= queue.len();
        queue
    }

    /// The partitions with parked operations.
    pub fn parked_partitions(&self) -> Vec<PartitionId> {
        self.parked.keys().copied().collect()
    }
}
