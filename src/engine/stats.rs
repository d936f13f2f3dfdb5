//! Counters of one engine, for metrics and alarms. All since the start of the process.

/// Counters of one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations executed here as primary.
    pub operations: u64,
    /// Keys that reading commands looked for here and found.
    pub hits: u64,
    /// Keys that reading commands looked for here in vain.
    pub misses: u64,
    /// Operations sent on to another primary.
    pub forwarded: u64,
    /// Operations that had to wait for a route, a copy or a handover.
    pub parked: u64,
    /// Operations whose patience ended.
    pub expired_patience: u64,
    /// Writes whose outcome was lost with a reign or a link.
    pub in_doubt: u64,
    /// Entries deleted because their time had come.
    pub expired: u64,
    /// Entries deleted to make room.
    pub evicted: u64,
    /// Records taken as a backup or learner.
    pub records_applied: u64,
    /// Records sent again.
    pub resent: u64,
    /// Refusals met because of an older epoch.
    pub fenced: u64,
    /// Reigns begun.
    pub promotions: u64,
    /// Snapshots confirmed complete by their learner.
    pub snapshots_sent: u64,
    /// Snapshots that differed from their source and started over.
    pub snapshot_mismatches: u64,
    /// Snapshot bytes sent.
    pub snapshot_bytes_sent: u64,
    /// Snapshot bytes taken.
    pub snapshot_bytes_received: u64,
    /// Digests compared equal.
    pub digests_equal: u64,
    /// Digests that differed at equal sequence: a bug's alarm.
    pub digest_mismatches: u64,
    /// Frames that did not decode.
    pub frames_broken: u64,
    /// Breaches of an invariant noticed and contained.
    pub invariant_alarms: u64,
    /// What members said and shouldn't have, by reason.
    pub refused: Refused,
    /// Writes taken here, acknowledged or not, that the later incarnation joined never saw; dropped.
    pub divergent: u64,
    /// Partitions taken up again from a former copy here.
    pub recovered: u64,
}

/// Well-formed messages that were refused, and nothing changed by them. A few of `epoch`, `sender` and
/// `unasked` are normal around failovers: what was on its way arrives late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Bodies that don't decode or fail their checksum.
    pub malformed: u64,
    /// Of another incarnation of the cluster.
    pub incarnation: u64,
    /// Of a reign that is over, or one not known here.
    pub epoch: u64,
    /// Sequences, times and versions that cannot be: beyond what was sent, or overflowing.
    pub sequence: u64,
    /// Answers to what was never asked, or isn't any more.
    pub unasked: u64,
    /// Of a partition that the cluster doesn't have.
    pub partition: u64,
    /// From a node that has no say in the matter.
    pub sender: u64,
    /// Larger than what is allowed.
    pub oversize: u64,
}

impl Refused {
    /// The counts by name.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("malformed", self.malformed),
            ("incarnation", self.incarnation),
            ("epoch", self.epoch),
            ("sequence", self.sequence),
            ("unasked", self.unasked),
            ("partition", self.partition),
            ("sender", self.sender),
            ("oversize", self.oversize),
        ]
    }
}
