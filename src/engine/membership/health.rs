//! How far we trust our own senses (g5).
//!
//! Source: Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for More Accurate
//! Failure Detection" (2017). Theirs counts missed answers of helpers; foca has none, so what
//! counts here is being proved wrong: a suspicion of ours refuted, or we ourselves suspected.

/// The highest score: timeouts are three times as long.
const SCORE_MAX: u64 = 4;

/// A score from 0 (healthy) up. Every proof of being slow or deaf raises it, every good probe
/// lowers it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LocalHealth {
    score: u64,
}

impl LocalHealth {
    /// We were wrong about somebody, were ourselves suspected, or have been paused.
    pub(super) fn doubt(&mut self) {
        self.score = (self.score + 1).min(SCORE_MAX);
    }

    /// A probe of ours was answered.
    pub(super) fn probe_answered(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    /// A timeout, longer by half for every point of the score.
    pub(super) fn stretch_us(self, timeout_us: u64) -> u64 {
        timeout_us.saturating_add(timeout_us.saturating_mul(self.score) / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_stretches_within_bounds_and_good_probes_heal() {
        let mut health = LocalHealth::default();
        assert_eq!(health.stretch_us(1_000), 1_000);
        for _ in 0..100 {
            health.doubt();
        }
        assert_eq!(health.stretch_us(1_000), 3_000);
        for _ in 0..SCORE_MAX {
            health.probe_answered();
        }
        assert_eq!(health.stretch_us(1_000), 1_000);
    }
}
