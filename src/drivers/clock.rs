//! The node's clocks.

use crate::engine::time::Now;
use std::time::{SystemTime, UNIX_EPOCH};

/// The boot-time clock counts on while the machine sleeps, so that a lease can't outlive a
/// suspension. Where the system has none, the monotonic clock has to do.
#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// Reads the boot-time clock; its wall time is the system's at the start of the process plus what
/// has elapsed since, so that a step of the system clock moves nothing.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The boot-time clock at [`Clock::new`], in microseconds.
    start_us: u64,
    /// The system's wall clock at the same moment, in microseconds since the Unix epoch.
    wall_start_us: u64,
}

impl Clock {
    /// Anchors the wall clock now. One clock a process: every part should share a copy of it.
    pub fn new() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start_us: boot_us(), wall_start_us: wall.as_micros() as u64 }
    }

    /// Reads both clocks. Never goes back.
    pub fn now(&self) -> Now {
        let mono_us = boot_us();
        let elapsed_us = mono_us.saturating_sub(self.start_us);
        Now { mono_us, wall_ms: (self.wall_start_us + elapsed_us) / 1_000 }
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

fn boot_us() -> u64 {
    let time = rustix::time::clock_gettime(BOOT);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_follows_the_boot_clock() {
        let clock = Clock::new();
        let before = clock.now();
        let system = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
        let after = clock.now();
        assert!(before <= after);
        assert!(before.wall_ms <= system + 1_000 && system <= after.wall_ms + 1_000);
        // The wall clock is the anchor plus elapsed boot time, by construction and exactly.
        let elapsed_us = after.mono_us - clock.start_us;
        assert_eq!(after.wall_ms, (clock.wall_start_us + elapsed_us) / 1_000);
    }
}
