//! Which handshakes are begun. Each costs processor time before anybody has proved anything, and
//! whoever lacks the secret can ask for as many as it likes: members must not wait behind them.

/// Handshakes of strangers begun in a second, once the first burst is used up. At up to a millisecond
/// each, most of the time is left; and clients stay connected.
const STRANGERS_PER_S: u64 = 200;
const US_PER_S: u64 = 1_000_000;

/// What to do with somebody who dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Begin the handshake.
    Accept,
    /// Have the dialler prove first that it receives what is sent to its address.
    Prove,
    /// Drop the packet: an honest dialler sends another.
    Ignore,
}

/// Who dials.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialler {
    /// It has proved that its address is its own.
    pub(super) proved: bool,
    /// Its address is that of a peer which this node keeps a link with.
    pub(super) known: bool,
}

/// Bounds the handshakes under way and how fast they are begun.
#[derive(Debug)]
pub(super) struct Admission {
    /// Under way at most, of strangers; as many again are kept for known peers.
    max: usize,
    /// What strangers may begin now, in microseconds of [`STRANGERS_PER_S`]; a full bound at most.
    saved_us: u64,
    at_us: u64,
}

impl Admission {
    pub(super) fn new(max: usize) -> Admission {
        Admission { max, saved_us: Admission::saved_us_max(max), at_us: 0 }
    }

    fn saved_us_max(max: usize) -> u64 {
        (max as u64).saturating_mul(US_PER_S / STRANGERS_PER_S)
    }

    /// Decides about one dialler, with `under_way` handshakes not yet done.
    pub(super) fn admit(&mut self, now_us: u64, under_way: usize, dialler: Dialler) -> Verdict {
        let elapsed_us = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        self.saved_us = self.saved_us.saturating_add(elapsed_us).min(Admission::saved_us_max(self.max));
        // An address can be forged until it is proved.
        if dialler.known && under_way < self.max.saturating_mul(2) {
            return if dialler.proved || under_way < self.max / 2 { Verdict::Accept } else { Verdict::Prove };
        }
        let cost_us = US_PER_S / STRANGERS_PER_S;
        if under_way >= self.max || self.saved_us < cost_us {
            return Verdict::Ignore;
        }
        let crowded = under_way >= self.max / 2 || self.saved_us < Admission::saved_us_max(self.max) / 2;
        if crowded && !dialler.proved {
            return Verdict::Prove;
        }
        self.saved_us -= cost_us;
        Verdict::Accept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: Dialler = Dialler { proved: false, known: false };
    const MEMBER: Dialler = Dialler { proved: true, known: true };

    #[test]
    fn a_flood_is_slowed_and_members_pass_it() {
        let mut admission = Admission::new(100);
        let (mut accepted, mut proved) = (0, 0);
        for us in 0..100_000u64 {
            // A stranger every 10 µs for a second, each done at once.
            match admission.admit(us * 10, 0, STRANGER) {
                Verdict::Accept => accepted += 1,
                Verdict::Prove => {
                    let dialler = Dialler { proved: true, ..STRANGER };
                    proved += u64::from(admission.admit(us * 10, 0, dialler) == Verdict::Accept);
                }
                Verdict::Ignore => {}
            }
            assert_eq!(admission.admit(us * 10, 0, MEMBER), Verdict::Accept);
        }
        let begun = accepted + proved;
        assert!((280..=320).contains(&begun), "{begun} begun, {proved} of them proved first");
        assert!(proved > 200, "{proved}");
    }

    #[test]
    fn handshakes_that_hang_leave_room_for_members() {
        let mut admission = Admission::new(10);
        let proved = Dialler { proved: true, ..STRANGER };
        assert_eq!(admission.admit(0, 4, STRANGER), Verdict::Accept);
        assert_eq!(admission.admit(0, 5, STRANGER), Verdict::Prove);
        assert_eq!(admission.admit(0, 9, proved), Verdict::Accept);
        assert_eq!(admission.admit(0, 10, proved), Verdict::Ignore);
        assert_eq!(admission.admit(0, 10, MEMBER), Verdict::Accept);
        assert_eq!(admission.admit(0, 10, Dialler { proved: false, ..MEMBER }), Verdict::Prove);
        assert_eq!(admission.admit(0, 20, MEMBER), Verdict::Ignore);
    }
}
