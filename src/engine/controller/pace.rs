//! Moves for balance, a few at a time: nobody waits for them, and clients want the machines, too.

use super::ControllerConfig;
use crate::engine::table::Table;
use crate::engine::time::Now;

/// However few partitions there are, so many moves begin at once.
const MOVES_MIN: usize = 4;

/// Lets so many moves begin in each stretch of time.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Moves that may still begin in this stretch.
    left: usize,
    /// When the next stretch begins.
    until_us: u64,
}

impl Pace {
    /// Whether one more move may begin now.
    pub(super) fn take(&mut self, now: Now, config: &ControllerConfig, table: &Table) -> bool {
        if now.mono_us >= self.until_us {
            self.left = (table.partitions.len() / config.moves_share).max(MOVES_MIN);
            self.until_us = now.mono_us + config.moves_every_ms * 1_000;
        }
        let open = self.left > 0;
        self.left = self.left.saturating_sub(1);
        open
    }

    /// When moves that had to wait may begin; `None` if none had to.
    pub(super) fn alarm_us(&self) -> Option<u64> {
        (self.left == 0).then_some(self.until_us)
    }
}
