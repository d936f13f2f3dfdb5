//! Values with a time to live: not gone before it is over, never seen after.

use crate::sim::branches::Mark;

/// A value that was stored with a time to live. Times are true wall time.
#[derive(Clone, Debug)]
pub(super) struct Mortal {
    pub(super) key: String,
    /// It is there until then at least.
    pub(super) lives_until_ms: u64,
    /// It is gone from then on.
    pub(super) gone_from_ms: u64,
    /// Where it was acknowledged.
    pub(super) mark: Mark,
}

impl Mortal {
    /// What a read between two times may see where clocks differ by up to `spread_ms`, and values
    /// may have to go before their time (`evicts`).
    pub(super) fn check(
        &self,
        found: bool,
        asked_ms: u64,
        told_ms: u64,
        spread_ms: u64,
        evicts: bool,
    ) -> Result<(), String> {
        let Mortal { key, lives_until_ms, gone_from_ms, .. } = self;
        if found && asked_ms > gone_from_ms + spread_ms {
            return Err(format!("{key} was served at {asked_ms}, expired since {gone_from_ms}"));
        }
        if !found && !evicts && told_ms + spread_ms < *lives_until_ms {
            return Err(format!("{key} was gone at {told_ms}, expires at {lives_until_ms}"));
        }
        Ok(())
    }
}
