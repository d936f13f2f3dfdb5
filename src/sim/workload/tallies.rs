//! What must be there in the end: unique keys, counters, values with a time to live.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

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

/// A value that was stored with a time to live.
#[derive(Clone, Debug)]
pub(super) struct Mortal {
    pub(super) key: String,
    /// It is there until then at least.
    pub(super) lives_until_ms: u64,
    /// It is gone from then on.
    pub(super) gone_from_ms: u64,
}

impl Mortal {
    /// What a read between two times may see.
    pub(super) fn check(&self, found: bool, asked_ms: u64, told_ms: u64) -> Result<(), String> {
        let Mortal { key, lives_until_ms, gone_from_ms } = self;
        if found && asked_ms > *gone_from_ms {
            return Err(format!("{key} was served at {asked_ms}, expired since {gone_from_ms}"));
        }
        if !found && told_ms < *lives_until_ms {
            return Err(format!("{key} was gone at {told_ms}, expires at {lives_until_ms}"));
        }
        Ok(())
    }
}

/// The value of a unique key follows from its name.
pub(super) fn unique_value(key: &str) -> Bytes {
    Bytes::from(format!("value of {key}"))
}

/// Everything acknowledged so far.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    pub(super) unique: Vec<String>,
    pub(super) counters: BTreeMap<String, Counter>,
    pub(super) mortals: Vec<Mortal>,
}
