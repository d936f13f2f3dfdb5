//! The clocks of one simulated machine: none agrees with another, as on real ones.

use crate::engine::time::Now;

/// Wall time when every run begins, in milliseconds since the Unix epoch.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;

/// What a machine makes of true time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The boot-time clock at true time 0, in microseconds: machines were started at any time.
    pub boot_us: u64,
    /// How much faster than true time the boot-time clock runs, in millionths.
    pub rate_ppm: i64,
    /// How far the wall clock is ahead of true time, in milliseconds. May be stepped.
    pub wall_ahead_ms: i64,
}

impl Clock {
    /// True time.
    pub const TRUE: Clock = Clock { boot_us: 0, rate_ppm: 0, wall_ahead_ms: 0 };

    /// Reads both clocks at a true time.
    pub fn read(&self, true_us: u64) -> Now {
        let drift_us = true_us as i64 * self.rate_ppm / 1_000_000;
        Now {
            mono_us: self.boot_us + true_us.saturating_add_signed(drift_us),
            wall_ms: (EPOCH_MS + true_us / 1_000).saturating_add_signed(self.wall_ahead_ms),
        }
    }

    /// The first true time at which the boot-time clock reads `mono_us` or more.
    pub fn true_us(&self, mono_us: u64) -> u64 {
        let elapsed_us = u128::from(mono_us.saturating_sub(self.boot_us));
        let rate = (1_000_000 + self.rate_ppm) as u128;
        // The reading is rounded, and so is this: begin a little early.
        let mut true_us = ((elapsed_us * 1_000_000 / rate) as u64).saturating_sub(2);
        while self.read(true_us).mono_us < mono_us {
            true_us += 1;
        }
        true_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_asking_when_agree() {
        for rate_ppm in [-15_000, -3, 0, 7, 15_000] {
            let clock = Clock { boot_us: 12_345, rate_ppm, wall_ahead_ms: -60_000 };
            for true_us in [0, 1, 999, 1_000_000, 77_777_777] {
                let mono_us = clock.read(true_us).mono_us;
                let asked_us = clock.true_us(mono_us);
                assert!(asked_us <= true_us && clock.read(asked_us).mono_us >= mono_us, "{clock:?}");
            }
        }
    }
}
