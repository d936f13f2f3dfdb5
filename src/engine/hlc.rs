//! The hybrid logical clock that versions values.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally
//! Distributed Databases" (2014). One clock a partition: 48 bits of wall milliseconds, 16 bits of
//! counter. It never goes back: not when the wall clock does, not at a promotion (invariant i).

use super::ids::Version;

/// A partition's clock: the highest version given or seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hlc(Version);

impl Hlc {
    /// The next version: the wall clock where it has moved on, else one more than the last.
    pub fn tick(&mut self, wall_ms: u64) -> Version {
        self.0 = Version((wall_ms << 16).max(self.0.0 + 1));
        self.0
    }

    /// Takes note of a version given elsewhere.
    pub fn observe(&mut self, version: Version) {
        self.0 = self.0.max(version);
    }

    /// The highest version given or seen.
    pub fn last(self) -> Version {
        self.0
    }
}

impl Version {
    /// Later than any clock of ours will ever read: the year is 4199. What claims to be later is
    /// broken, and a clock that took note of it could not go on.
    pub const MAX: Version = Version(1 << 62);

    /// The wall-clock part, in milliseconds since the Unix epoch.
    pub fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_goes_back() {
        let mut clock = Hlc::default();
        let a = clock.tick(1_000);
        let b = clock.tick(10);
        assert!(b > a);
        clock.observe(Version(5_000 << 16));
        assert!(clock.tick(1_000).wall_ms() >= 5_000);
    }
}
