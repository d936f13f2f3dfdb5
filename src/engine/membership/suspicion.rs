//! Whether a suspicion whose time is up may be carried out (g1, g2, g3).

use super::config::MembershipConfig;
use super::roster::Entry;
use foca::State;

/// A suspicion that we raised ourselves and whose timer is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspicion {
    /// Generation of the suspect's identity when it was suspected.
    pub(super) generation: u16,
    /// Its incarnation then. To refute, the suspect raises it.
    pub(super) incarnation: foca::Incarnation,
    /// When it was first due.
    pub(super) first_due_us: u64,
}

/// What we know of our own hearing when the timer fires.
#[derive(Clone, Copy, Debug)]
pub(super) struct Senses {
    /// Now.
    pub(super) now_us: u64,
    /// When the timer should have fired.
    pub(super) due_us: u64,
    /// When any datagram was last accepted.
    pub(super) heard_us: u64,
    /// Since when datagrams have been coming without a gap.
    pub(super) hearing_since_us: u64,
    /// When our QUIC link to the suspect last carried something, if there is one.
    pub(super) link_heard_us: Option<u64>,
    /// How long a suspect has to refute.
    pub(super) suspect_us: u64,
    /// Members that are not down, the suspect included.
    pub(super) active: usize,
}

/// What to do with a suspicion whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Declare the member down.
    Declare,
    /// It has been refuted, or settled otherwise: forget it (g1).
    Refuted,
    /// We are deaf or were paused: look again after so many microseconds (g2).
    Deaf { again_us: u64 },
    /// Our link to the member is live: look again after so many microseconds (g3).
    Linked { again_us: u64 },
}

impl Suspicion {
    /// Whether the member is still suspect in just the way it was when this was raised.
    pub(super) fn still_holds(&self, suspect: Option<&Entry>) -> bool {
        suspect.is_some_and(|entry| {
            entry.state == State::Suspect
                && entry.incarnation == self.incarnation
                && entry.id.generation == self.generation
        })
    }

    /// Decides. The order matters only for what is counted.
    pub(super) fn judge(
        &self,
        config: &MembershipConfig,
        suspect: Option<&Entry>,
        senses: Senses,
    ) -> Verdict {
        let since_us = |then_us: u64| senses.now_us.saturating_sub(then_us);
        let ms = |ms: u64| ms.saturating_mul(1_000);
        if !self.still_holds(suspect) {
            return Verdict::Refuted;
        }
        if senses.link_heard_us.is_some_and(|at| since_us(at) <= ms(config.link_live_ms)) {
            return Verdict::Linked { again_us: ms(config.probe_period_ms).max(1) };
        }
        // Paused: whatever the suspect said meanwhile waits unread. It gets its whole time again.
        if since_us(senses.due_us) > ms(config.stall_ms) {
            return Verdict::Deaf { again_us: senses.suspect_us.max(1) };
        }
        // Deaf: nothing heard, or not long enough again for a refutation to have come through.
        // With a single other member there is nobody else to be heard, so silence says nothing.
        let silent = since_us(senses.heard_us) > ms(config.deaf_after_ms);
        let listening_us = since_us(senses.hearing_since_us);
        let deaf = senses.active > 1 && (silent || listening_us < senses.suspect_us);
        if deaf && since_us(self.first_due_us) < ms(config.deaf_postpone_ms_max) {
            return Verdict::Deaf { again_us: ms(config.probe_period_ms).max(1) };
        }
        Verdict::Declare
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::GossipId;
    use super::super::roster::Roster;
    use super::*;
    use crate::engine::ids::NodeId;
    use foca::Member;

    const SECOND_US: u64 = 1_000_000;

    /// A suspicion of node 1 at incarnation 4, due at 100 s, and all senses in order.
    fn senses() -> Senses {
        Senses {
            now_us: 100 * SECOND_US,
            due_us: 100 * SECOND_US,
            heard_us: 100 * SECOND_US - 50_000,
            hearing_since_us: 0,
            link_heard_us: None,
            suspect_us: 1_500_000,
            active: 2,
        }
    }

    fn judge(senses: Senses, state: State, incarnation: u16) -> Verdict {
        let quic = ([127, 0, 0, 1], 1).into();
        let id = GossipId { node: NodeId(1), generation: 0, quic };
        let mut roster = Roster::default();
        let member = Member::new(id, incarnation, state);
        roster.look(NodeId(0), 0, [member].iter(), |_| {});
        let suspicion = Suspicion { generation: 0, incarnation: 4, first_due_us: 100 * SECOND_US };
        suspicion.judge(&MembershipConfig::default(), roster.get(NodeId(1)), senses)
    }

    #[test]
    fn a_standing_suspicion_is_carried_out() {
        assert_eq!(judge(senses(), State::Suspect, 4), Verdict::Declare);
    }

    #[test]
    fn a_refuted_or_settled_one_is_dropped() {
        assert_eq!(judge(senses(), State::Alive, 5), Verdict::Refuted);
        assert_eq!(judge(senses(), State::Suspect, 5), Verdict::Refuted);
        assert_eq!(judge(senses(), State::Down, 4), Verdict::Refuted);
    }

    #[test]
    fn a_live_link_postpones() {
        let live = Senses { link_heard_us: Some(100 * SECOND_US - 300_000), ..senses() };
        assert!(matches!(judge(live, State::Suspect, 4), Verdict::Linked { .. }));
        let stale = Senses { link_heard_us: Some(98 * SECOND_US), ..senses() };
        assert_eq!(judge(stale, State::Suspect, 4), Verdict::Declare);
    }

    #[test]
    fn deafness_postpones_until_we_have_listened_for_a_whole_period_again() {
        let silent = Senses { heard_us: 98 * SECOND_US, ..senses() };
        assert!(matches!(judge(silent, State::Suspect, 4), Verdict::Deaf { .. }));
        let just_back = Senses { hearing_since_us: 99 * SECOND_US, ..senses() };
        assert!(matches!(judge(just_back, State::Suspect, 4), Verdict::Deaf { .. }));
        let given_up = Senses { now_us: 111 * SECOND_US, due_us: 111 * SECOND_US, ..silent };
        assert_eq!(judge(given_up, State::Suspect, 4), Verdict::Declare);
        let of_two = Senses { active: 1, ..silent };
        assert_eq!(judge(of_two, State::Suspect, 4), Verdict::Declare);
    }

    #[test]
    fn a_pause_of_ours_gives_the_suspect_its_whole_time_again() {
        let paused = Senses { due_us: 95 * SECOND_US, active: 1, ..senses() };
        assert_eq!(judge(paused, State::Suspect, 4), Verdict::Deaf { again_us: 1_500_000 });
    }
}
