//! An entry in the making: changes that are known to fit, and the table they lead to.

use crate::engine::table::{Table, TableChange, TableEntry};

/// The most changes of one entry; what is left over goes into the next.
const CHANGES_MAX: usize = 16_384;

/// A table with the changes so far applied, so that each decision sees those before it.
pub(super) struct Draft {
    pub(super) table: Table,
    changes: TableEntry,
}

impl Draft {
    pub(super) fn new(table: &Table) -> Draft {
        Draft { table: table.clone(), changes: Vec::new() }
    }

    /// Adds a change if it fits. Returns whether it did.
    pub(super) fn push(&mut self, change: TableChange) -> bool {
        let fits = self.changes.len() < CHANGES_MAX && self.table.apply_change(&change);
        if fits {
            self.changes.push(change);
        }
        fits
    }

    pub(super) fn into_entry(self) -> TableEntry {
        self.changes
    }
}
