//! Counters: every acknowledged increment counts once, and one in doubt at most once.

use std::collections::BTreeSet;

/// A counter's increments.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) acknowledged: u64,
    pub(super) in_doubt: u64,
    seen: BTreeSet<i64>,
}

impl Counter {
    /// An increment was acknowledged with the new value; no two are.
    pub(super) fn acknowledged(&mut self, key: &str, value: i64) -> Result<(), String> {
        self.acknowledged += 1;
        match self.seen.insert(value) {
            true => Ok(()),
            false => Err(format!("{key} was incremented to {value} twice")),
        }
    }

    /// What the counter says in the end.
    pub(super) fn check(&self, key: &str, value: u64) -> Result<(), String> {
        let Counter { acknowledged, in_doubt, .. } = self;
        match (*acknowledged..=acknowledged + in_doubt).contains(&value) {
            true => Ok(()),
            false => Err(format!("{key} is {value}; acknowledged {acknowledged}, in doubt {in_doubt}")),
        }
    }
}
