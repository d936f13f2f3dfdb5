//! Counters: every acknowledged increment counts once, and one in doubt at most once.

use crate::engine::ids::Incarnation;
use crate::sim::branches::Mark;
use std::collections::BTreeSet;

/// A counter's increments.
#[derive(Debug, Default)]
pub(super) struct Counter {
    pub(super) acknowledged: Vec<Mark>,
    pub(super) in_doubt: u64,
    seen: BTreeSet<(Incarnation, i64)>,
}

impl Counter {
    /// An increment was acknowledged with the new value; no two are, in one incarnation.
    pub(super) fn acknowledged(&mut self, key: &str, value: i64, mark: Mark) -> Result<(), String> {
        self.acknowledged.push(mark);
        match self.seen.insert((mark.incarnation, value)) {
            true => Ok(()),
            false => Err(format!("{key} was incremented to {value} twice")),
        }
    }

    /// What the counter says in the end; acknowledged increments count where `counts` says so, and may
    /// count elsewhere.
    pub(super) fn check(&self, key: &str, value: u64, counts: impl Fn(&Mark) -> bool) -> Result<(), String> {
        let acknowledged = self.acknowledged.iter().filter(|mark| counts(mark)).count() as u64;
        let in_doubt = self.in_doubt + self.acknowledged.len() as u64 - acknowledged;
        match (acknowledged..=acknowledged + in_doubt).contains(&value) {
            true => Ok(()),
            false => Err(format!("{key} is {value}; acknowledged {acknowledged}, in doubt {in_doubt}")),
        }
    }
}
