//! What membership counts.

/// Counts since the start of the node, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MembershipCounters {
    /// Datagrams accepted.
    pub datagrams_in: u64,
    /// Datagrams handed out for sending.
    pub datagrams_out: u64,
    /// Datagrams refused because they are malformed, too large, or lie about who sent them.
    pub refused_malformed: u64,
    /// Datagrams refused because they belong to another incarnation of the cluster.
    pub refused_incarnation: u64,
    /// Datagrams refused because they name more members than may be known at once.
    pub refused_full: u64,
    /// State exchanges refused because their sender isn't a live member (yet, or any more).
    pub refused_stranger: u64,
    /// Datagrams ignored because we have left the cluster.
    pub refused_left: u64,
    /// Sends dropped because they would go to a node that we know nothing of.
    pub unknown_targets: u64,
    /// Members that became suspect in our view.
    pub suspicions: u64,
    /// Suspect members that turned out to be alive.
    pub refuted: u64,
    /// Members that went down in our view, those that left included.
    pub downs: u64,
    /// Suspicions of our own dropped at their end because they had been refuted (g1).
    pub dropped_refuted: u64,
    /// Times a suspicion was postponed because we are deaf or were paused (g2).
    pub postponed_deaf: u64,
    /// Times a suspicion was postponed because our link to the suspect is live (g3).
    pub postponed_link: u64,
    /// Times we found ourselves declared down and joined again with a new generation.
    pub renewals: u64,
    /// Errors of the protocol itself. Stays 0 unless there is a bug or a hostile member.
    pub protocol_errors: u64,
}

impl MembershipCounters {
    /// All datagrams refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused_malformed
            + self.refused_incarnation
            + self.refused_full
            + self.refused_stranger
            + self.refused_left
    }
}
