//! Bounds and patience of one engine.

use super::mutants::Mutation;
use super::peers::PeerConfig;
use super::record::Limits;
use super::store::Eviction;

/// Bounds and patience of one engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineConfig {
    /// Batching and leases.
    pub peers: PeerConfig,
    /// Key and value sizes.
    pub limits: Limits,
    /// Memory for entries in bytes, backups included; 0 is no bound.
    pub bytes_max: u64,
    /// What goes when the bound is reached.
    pub eviction: Eviction,
    /// How long an operation waits for a primary, a copy or a handover.
    pub patience_us: u64,
    /// The same at a node that has lost the majority: its client may reach another one.
    pub minority_patience_us: u64,
    /// Unacknowledged records of one partition, in bytes, before writes wait.
    pub tail_bytes_max: usize,
    /// Records of one message, in bytes, before it is split.
    pub group_bytes_max: usize,
    /// A follower that makes no progress for so long is sent to again.
    pub resend_us: u64,
    /// A follower that lacks records for so long is reported to the controller.
    pub lag_us_max: u64,
    /// A follower without a link to it for so long is reported as well, if the controller is linked.
    pub unlinked_us_max: u64,
    /// Bytes of one snapshot chunk.
    pub chunk_bytes: usize,
    /// Snapshot bytes under way to one node.
    pub snapshot_window_bytes: usize,
    /// Bytes a second for all snapshots that this node sends; 0 is no bound.
    pub snapshot_bytes_per_s: u64,
    /// A snapshot without progress for so long starts over.
    pub snapshot_timeout_us: u64,
    /// A handover that takes longer is withdrawn.
    pub handover_us_max: u64,
    /// Digests are compared so often.
    pub digest_period_us: u64,
    /// Parked and forwarded operations, before new ones are refused.
    pub waiting_max: usize,
    /// Entries looked at for expiry in one partition at a time.
    pub sweep_budget: usize,
    /// A bug put in on purpose; none without the feature `mutants`.
    pub mutation: Mutation,
}

impl EngineConfig {
    /// The most bytes that one message of records may have: a group, and the record that filled it.
    pub fn records_bytes_max(&self) -> usize {
        const HEADERS: usize = 1 << 20;
        let record = self.limits.key_bytes_max as usize + self.limits.value_bytes_max as usize + HEADERS;
        self.group_bytes_max + record
    }
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            peers: PeerConfig::default(),
            limits: Limits::default(),
            bytes_max: 0,
            eviction: Eviction::NoEviction,
            patience_us: 8_000_000,
            minority_patience_us: 500_000,
            tail_bytes_max: 64 << 20,
            group_bytes_max: 256 << 10,
            resend_us: 400_000,
            lag_us_max: 4_000_000,
            unlinked_us_max: 1_000_000,
            chunk_bytes: 64 << 10,
            snapshot_window_bytes: 2 << 20,
            snapshot_bytes_per_s: 0,
            snapshot_timeout_us: 5_000_000,
            handover_us_max: 2_000_000,
            digest_period_us: 30_000_000,
            waiting_max: 100_000,
            sweep_budget: 200,
            mutation: Mutation::default(),
        }
    }
}
