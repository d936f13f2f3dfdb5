//! Timers in order of time, then of submission: a queue that is the same on every run.

use std::collections::BTreeMap;

/// Pending timers of kind `T`.
#[derive(Debug)]
pub(super) struct Timers<T> {
    pending: BTreeMap<(u64, u64), T>,
    submitted: u64,
}

impl<T> Default for Timers<T> {
    fn default() -> Self {
        Timers { pending: BTreeMap::new(), submitted: 0 }
    }
}

impl<T> Timers<T> {
    /// Adds a timer that is due at `due_us` on the boot-time clock.
    pub(super) fn submit(&mut self, due_us: u64, timer: T) {
        self.submitted += 1;
        self.pending.insert((due_us, self.submitted), timer);
    }

    /// When the next timer is due.
    pub(super) fn next_due_us(&self) -> Option<u64> {
        self.pending.first_key_value().map(|(&(due_us, _), _)| due_us)
    }

    /// Takes the first timer that is due, with the time it was due at.
    pub(super) fn pop_due(&mut self, now_us: u64) -> Option<(u64, T)> {
        let first = self.pending.first_entry()?;
        let due_us = first.key().0;
        (due_us <= now_us).then(|| (due_us, first.remove()))
    }

    /// Drops the timers that `keep` doesn't want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.pending.retain(|_, timer| keep(timer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_not_before_they_are_due() {
        let mut timers = Timers::default();
        timers.submit(20, 'c');
        timers.submit(10, 'a');
        timers.submit(10, 'b');
        assert_eq!(timers.next_due_us(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(15), Some((10, 'a')));
        assert_eq!(timers.pop_due(15), Some((10, 'b')));
        assert_eq!(timers.pop_due(15), None);
        timers.retain(|_| false);
        assert_eq!(timers.next_due_us(), None);
    }
}
