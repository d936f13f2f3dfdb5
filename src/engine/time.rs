//! Time as the engine sees it: an argument, never a call.

/// One reading of both clocks, taken by a driver (or made up by the simulator).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Microseconds on the boot-time clock: monotonic, counts while the machine is suspended.
    /// Leases, timeouts and batching use this one.
    pub mono_us: u64,
    /// Milliseconds since the Unix epoch. Only expiry (TTL) and the hybrid logical clock use it.
    pub wall_ms: u64,
}

impl Now {
    /// The same reading, `us` microseconds later on both clocks.
    pub fn plus_us(self, us: u64) -> Now {
        Now { mono_us: self.mono_us + us, wall_ms: self.wall_ms + us / 1_000 }
    }
}
