//! The settings of membership.

use super::wire::SWIM_BYTES_MAX;
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// Settings of membership. The default is what kept every healthy node up under 30 % packet loss
/// and found every killed one within seconds, in simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipConfig {
    /// How often one member, in random round-robin, is asked whether it lives.
    pub probe_period_ms: u64,
    /// How long a direct answer may take before others are asked to ask. Less than half of
    /// `probe_period_ms`, so that the indirect answer has time.
    pub probe_rtt_ms: u64,
    /// How many members are asked to ask.
    pub indirect_probes: usize,
    /// How long a suspected member has to refute, in a cluster of up to ten. Grows with the
    /// logarithm of the number of members.
    pub suspect_ms: u64,
    /// How often news are passed on.
    pub gossip_period_ms: u64,
    /// To how many members news are passed on at a time.
    pub gossip_fanout: usize,
    /// How often one piece of news is passed on in all.
    pub transmissions_max: u8,
    /// How often members that are down are invited back (a healed split).
    pub announce_down_period_ms: u64,
    /// How many of them at a time.
    pub announce_down_fanout: usize,
    /// How often a node that has no live member to talk to knocks again at its seeds.
    pub join_period_ms: u64,
    /// How often the whole state is exchanged with one random member (g4).
    pub push_pull_period_ms: u64,
    /// How long after its death a member is still part of the exchanged state. Well below
    /// `remove_down_after_ms`, or nodes would remind each other of the dead for ever.
    pub push_pull_down_ms: u64,
    /// After how long a dead member is forgotten.
    pub remove_down_after_ms: u64,
    /// After how long without any datagram we take ourselves for deaf (g2).
    pub deaf_after_ms: u64,
    /// How late a suspicion may be looked at before we take ourselves for paused (g2).
    pub stall_ms: u64,
    /// For how long deafness postpones a suspicion at most: all others may really be dead.
    pub deaf_postpone_ms_max: u64,
    /// How recently a QUIC link must have been heard to count as live (g3).
    pub link_live_ms: u64,
    /// The most members known at once, living and dead. At the bound the longest dead are
    /// forgotten first; beyond it datagrams that name more are refused.
    pub members_max: usize,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        MembershipConfig {
            probe_period_ms: 500,
            probe_rtt_ms: 200,
            indirect_probes: 3,
            suspect_ms: 1_500,
            gossip_period_ms: 100,
            gossip_fanout: 3,
            transmissions_max: 12,
            announce_down_period_ms: 5_000,
            announce_down_fanout: 2,
            join_period_ms: 1_000,
            push_pull_period_ms: 5_000,
            push_pull_down_ms: 30_000,
            remove_down_after_ms: 3_600_000,
            deaf_after_ms: 1_500,
            stall_ms: 500,
            deaf_postpone_ms_max: 10_000,
            link_live_ms: 1_000,
            members_max: 4_096,
        }
    }
}

impl MembershipConfig {
    /// How long a suspected member has to refute, in a cluster of `members`, in microseconds:
    /// `suspect_ms × max(1, log₁₀ members)`, the logarithm taken linear within each decade so that
    /// every machine computes the same.
    pub(super) fn suspect_us(&self, members: usize) -> u64 {
        let base_us = self.suspect_ms.saturating_mul(1_000);
        let members = members.max(1) as u64;
        let decades = members.ilog10();
        if decades == 0 {
            return base_us;
        }
        let floor = 10u64.pow(decades);
        let within = base_us.saturating_mul(members - floor) / (9 * floor);
        base_us.saturating_mul(u64::from(decades)).saturating_add(within)
    }

    /// The part that foca itself carries out.
    pub(super) fn foca(&self) -> foca::Config {
        let periodic = |period_ms: u64, fanout: usize| {
            Some(foca::PeriodicParams {
                frequency: Duration::from_millis(period_ms.max(1)),
                num_members: at_least_one(fanout),
            })
        };
        foca::Config {
            probe_period: Duration::from_millis(self.probe_period_ms.max(2)),
            probe_rtt: Duration::from_millis(self.probe_rtt_ms.clamp(1, self.probe_period_ms.max(2) - 1)),
            num_indirect_probes: at_least_one(self.indirect_probes),
            max_transmissions: NonZeroU8::new(self.transmissions_max).unwrap_or(NonZeroU8::MIN),
            suspect_to_down_after: Duration::from_millis(self.suspect_ms.max(1)),
            remove_down_after: Some(Duration::from_millis(self.remove_down_after_ms.max(1))),
            max_packet_size: at_least_one(SWIM_BYTES_MAX),
            notify_down_members: true,
            // The exchange of the whole state (g4) does this better.
            periodic_announce: None,
            periodic_announce_to_down_members: periodic(
                self.announce_down_period_ms,
                self.announce_down_fanout,
            ),
            periodic_gossip: periodic(self.gossip_period_ms, self.gossip_fanout),
        }
    }
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suspicion_grows_with_the_logarithm_of_the_cluster() {
        let config = MembershipConfig::default();
        assert_eq!(config.suspect_us(0), 1_500_000);
        assert_eq!(config.suspect_us(10), 1_500_000);
        assert_eq!(config.suspect_us(55), 2_250_000);
        assert_eq!(config.suspect_us(100), 3_000_000);
        assert_eq!(config.suspect_us(1_000), 4_500_000);
    }

    #[test]
    fn nonsense_settings_are_bent_into_ones_that_foca_accepts() {
        let config = MembershipConfig {
            probe_period_ms: 0,
            probe_rtt_ms: 9,
            indirect_probes: 0,
            transmissions_max: 0,
            ..MembershipConfig::default()
        }
        .foca();
        assert!(config.probe_rtt < config.probe_period);
    }
}
