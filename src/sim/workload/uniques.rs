//! Unique keys: what was acknowledged is there, what was deleted stays away.

use bytes::Bytes;
use std::collections::BTreeSet;

/// Keys that are written once and perhaps deleted once.
#[derive(Debug, Default)]
pub(super) struct Uniques {
    /// Acknowledged, and nobody has asked to delete them.
    stored: Vec<String>,
    /// Somebody asked to delete them: they may or may not be there.
    doomed: BTreeSet<String>,
    /// The delete was acknowledged.
    deleted: Vec<String>,
    /// Length of the values, at least.
    value_bytes: usize,
}

impl Uniques {
    /// None yet; their values will be so long at least.
    pub(super) fn new(value_bytes: usize) -> Uniques {
        Uniques { value_bytes, ..Uniques::default() }
    }

    /// The value of a unique key follows from its name.
    pub(super) fn value(&self, key: &str) -> Bytes {
        let mut value = format!("value of {key}");
        while value.len() < self.value_bytes {
            value.push('.');
        }
        value.into()
    }

    /// A write was acknowledged.
    pub(super) fn store(&mut self, key: String) {
        self.stored.push(key);
    }

    /// Takes one of the stored keys to be deleted.
    pub(super) fn doom(&mut self, choice: u64) -> Option<String> {
        let count = self.stored.len() as u64;
        if count == 0 {
            return None;
        }
        let key = self.stored.swap_remove((choice % count) as usize);
        self.doomed.insert(key.clone());
        Some(key)
    }

    /// The delete was refused: the key is as it was.
    pub(super) fn spare(&mut self, key: String) {
        self.doomed.remove(&key);
        self.stored.push(key);
    }

    /// The delete was acknowledged.
    pub(super) fn delete(&mut self, key: String) {
        self.deleted.push(key);
    }

    /// What a read of a stored key may find; nothing only where its loss is `excused`.
    pub(super) fn check_stored(&self, key: &str, found: Option<&Bytes>, excused: bool) -> Result<(), String> {
        match found {
            Some(value) if *value == self.value(key) => Ok(()),
            None if excused || self.doomed.contains(key) => Ok(()),
            found => Err(format!("{key} is {found:?}")),
        }
    }

    /// What a read of a deleted key may find: nothing.
    pub(super) fn check_deleted(&self, key: &str, found: Option<&Bytes>) -> Result<(), String> {
        found.map_or(Ok(()), |value| Err(format!("{key} was deleted and is {value:?} again")))
    }

    pub(super) fn stored(&self) -> &[String] {
        &self.stored
    }

    pub(super) fn deleted(&self) -> &[String] {
        &self.deleted
    }
}
