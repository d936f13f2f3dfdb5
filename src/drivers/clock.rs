//! The node's clocks.

use crate::engine::time::Now;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// The boot-time clock counts on while the machine sleeps, so that a lease can't outlive a
/// suspension. Where the system has none, the monotonic clock has to do.
#[cfg(any(target_os = "linux", target_os = "android"))]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const BOOT: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// A joining machine whose wall clock differs from the cluster's by more goes by the cluster's.
/// Below it, the time that a message takes would make matters worse.
const DIFFERENCE_MS_MAX: u64 = 250;

/// Reads the boot-time clock; its wall time is the system's at the start of the process plus what
/// has elapsed since, so that a step of the system clock moves nothing.
///
/// Members of a cluster must agree about the time, or entries would live longer or shorter when
/// another node becomes their primary. So a node that joins takes over the time of the first member
/// it talks to, unless they agree anyway. Clones share that.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The boot-time clock at [`Clock::new`], in microseconds.
    start_us: u64,
    /// The system's wall clock at the same moment, in microseconds since the Unix epoch.
    wall_start_us: u64,
    /// What is added to the wall time, in milliseconds, once that is settled.
    correction_ms: Arc<OnceLock<i64>>,
}

impl Clock {
    /// Anchors the wall clock now. One clock a process: every part should share a copy of it.
    pub fn new() -> Clock {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Clock { start_us: boot_us(), wall_start_us: wall.as_micros() as u64, correction_ms: Arc::default() }
    }

    /// Reads both clocks. Never goes back, but for the wall clock at [`Clock::follow`].
    pub fn now(&self) -> Now {
        let mono_us = boot_us();
        let elapsed_us = mono_us.saturating_sub(self.start_us);
        let wall_ms = (self.wall_start_us + elapsed_us) / 1_000;
        let correction_ms = self.correction_ms.get().copied().unwrap_or(0);
        Now { mono_us, wall_ms: wall_ms.saturating_add_signed(correction_ms) }
    }

    /// Goes by this machine's time from now on: the node forms a cluster.
    pub fn lead(&self) {
        let _settled_before = self.correction_ms.set(0);
    }

    /// Goes by the time of a cluster whose member says that it is `wall_ms` now. Only the first
    /// call, or [`Clock::lead`], has an effect.
    pub fn follow(&self, wall_ms: u64) {
        let own_ms = self.now().wall_ms;
        let difference_ms = wall_ms.cast_signed().saturating_sub(own_ms.cast_signed());
        let agree = difference_ms.unsigned_abs() <= DIFFERENCE_MS_MAX;
        let correction_ms = if agree { 0 } else { difference_ms };
        if self.correction_ms.set(correction_ms).is_ok() && !agree {
            tracing::warn!(
                difference_ms,
                "this machine's clock is not the cluster's; going by the cluster's"
            );
        }
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
    fn a_joiner_goes_by_the_clusters_time_once() {
        let clock = Clock::new();
        let shared = clock.clone();
        let own_ms = clock.now().wall_ms;
        clock.follow(own_ms + 60_000);
        let ahead_ms = shared.now().wall_ms - own_ms;
        assert!((60_000..61_000).contains(&ahead_ms), "{ahead_ms}");
        clock.follow(own_ms - 60_000);
        assert!(clock.now().wall_ms >= own_ms + 60_000);

        let agreeing = Clock::new();
        let before = agreeing.now().wall_ms;
        agreeing.follow(before + 100);
        assert!(agreeing.now().wall_ms - before < 100);

        let leading = Clock::new();
        leading.lead();
        leading.follow(1);
        assert!(leading.now().wall_ms >= own_ms);
    }

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
