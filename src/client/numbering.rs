//! The numbers of writes: one dense sequence a partition.
//!
//! Numbers let a primary tell a repeated write from a new one
//! ([`dedup`](crate::engine::dedup)). A number is outstanding from [`Numbering::take`] until its
//! [`Number`] is dropped; what lies below all outstanding ones is acknowledged.

use crate::engine::dedup::{RequestTag, WINDOW_MAX};
use crate::engine::ids::{ClientId, PartitionId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The numbers of one client.
#[derive(Debug)]
pub(super) struct Numbering {
    client: ClientId,
    partitions: Mutex<BTreeMap<PartitionId, Counter>>,
    /// Woken when a full window may have moved.
    moved: Notify,
}

#[derive(Debug, Default)]
struct Counter {
    next: u64,
    outstanding: BTreeSet<u64>,
}

/// One number, outstanding until dropped.
#[derive(Debug)]
pub(super) struct Number<'a> {
    numbering: &'a Numbering,
    partition: PartitionId,
    request: u64,
}

impl Numbering {
    pub(super) fn new(client: ClientId) -> Numbering {
        Numbering { client, partitions: Mutex::default(), moved: Notify::new() }
    }

    /// The next number for a partition. Waits while the oldest outstanding one is so far behind
    /// that the primary would forget it.
    pub(super) async fn take(&self, partition: PartitionId) -> Number<'_> {
        loop {
            let moved = self.moved.notified();
            if let Some(request) = self.counters().entry(partition).or_default().take() {
                return Number { numbering: self, partition, request };
            }
            moved.await;
        }
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<PartitionId, Counter>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counter {
    fn take(&mut self) -> Option<u64> {
        if self.next - self.acknowledged_below() >= WINDOW_MAX as u64 {
            return None;
        }
        let request = self.next;
        self.next += 1;
        self.outstanding.insert(request);
        Some(request)
    }

    fn acknowledged_below(&self) -> u64 {
        self.outstanding.first().copied().unwrap_or(self.next)
    }
}

impl Number<'_> {
    /// The tag of a request that is sent now and was first sent `age` ago.
    pub(super) fn tag(&self, age: Duration) -> RequestTag {
        let counters = self.numbering.counters();
        let acknowledged_below = counters.get(&self.partition).map_or(0, Counter::acknowledged_below);
        RequestTag {
            client: self.numbering.client,
            request: self.request,
            acknowledged_below,
            age_ms: u32::try_from(age.as_millis()).unwrap_or(u32::MAX),
        }
    }
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        if let Some(counter) = self.numbering.counters().get_mut(&self.partition) {
            let full = counter.next - counter.acknowledged_below() >= WINDOW_MAX as u64;
            counter.outstanding.remove(&self.request);
            if full {
                self.numbering.moved.notify_waiters();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = Context::from_waker(Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn numbers_are_dense_and_acknowledged_in_order() {
        let numbering = Numbering::new(ClientId(1));
        let first = now(numbering.take(PartitionId(3))).unwrap();
        let second = now(numbering.take(PartitionId(3))).unwrap();
        let other = now(numbering.take(PartitionId(4))).unwrap();
        assert_eq!((first.request, second.request, other.request), (0, 1, 0));
        assert_eq!(second.tag(Duration::ZERO).acknowledged_below, 0);
        drop(first);
        assert_eq!(second.tag(Duration::from_millis(5)).acknowledged_below, 1);
        assert_eq!(second.tag(Duration::from_millis(5)).age_ms, 5);
    }

    #[test]
    fn a_full_window_waits_for_its_oldest() {
        let numbering = Numbering::new(ClientId(1));
        let mut held: Vec<Number<'_>> =
            (0..WINDOW_MAX).map(|_| now(numbering.take(PartitionId(0))).unwrap()).collect();
        drop(held.pop());
        assert!(now(numbering.take(PartitionId(0))).is_none(), "the span counts, not the number");
        assert!(now(numbering.take(PartitionId(1))).is_some());
        let oldest = held.remove(0);
        let mut waiting = std::pin::pin!(numbering.take(PartitionId(0)));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        drop(oldest);
        assert!(waiting.as_mut().poll(&mut context).is_ready());
    }
}
