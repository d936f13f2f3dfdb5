//! The settings of the agreed log and its bounds.

/// The most bytes of one encoded log entry: every partition of the largest cluster changed at once.
pub const ENTRY_BYTES_MAX: usize = 2 << 20;
/// The most bytes of the encoded table that a group starts from.
pub const TABLE_BYTES_MAX: usize = 8 << 20;
/// The most bytes of one RPC body, request or response.
pub const RPC_BODY_BYTES_MAX: usize = 12 << 20;

/// Log entries sent in one RPC, if they fit.
pub(super) const ENTRIES_PER_RPC_MAX: usize = 64;

// The largest entry is the first one, with the table to start from; it must fit an RPC by itself.
// 64 KiB pay for log ids and the rest of the request.
const _: () = assert!(ENTRY_BYTES_MAX + TABLE_BYTES_MAX + (64 << 10) <= RPC_BODY_BYTES_MAX);

/// How the agreed log keeps time and when it compacts itself.
///
/// A follower campaigns once it has heard nothing for `election_ms_max` (the leader's lease) plus
/// a random time between `election_ms_min` and `election_ms_max`. With the defaults a dead leader
/// is replaced after 1.6 to 2.0 s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Between two heartbeats of the leader, in milliseconds. Also how long one may take.
    pub heartbeat_ms: u64,
    /// Shortest random wait before a campaign, in milliseconds; above `heartbeat_ms`.
    pub election_ms_min: u64,
    /// Longest random wait before a campaign and the leader's lease, in milliseconds.
    pub election_ms_max: u64,
    /// How long one RPC that carries entries or a vote may take, in milliseconds.
    pub rpc_ms: u64,
    /// How long the transfer of a snapshot may take, in milliseconds.
    pub snapshot_ms: u64,
    /// How long a proposal or a linearizable read may take, in milliseconds.
    pub propose_ms: u64,
    /// How long one change of the voters may take before it is tried anew, in milliseconds.
    pub membership_ms: u64,
    /// Entries applied between two snapshots.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot for followers that lag a little.
    pub kept_entries: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            heartbeat_ms: 250,
            election_ms_min: 600,
            election_ms_max: 1_000,
            rpc_ms: 1_000,
            snapshot_ms: 10_000,
            propose_ms: 5_000,
            membership_ms: 10_000,
            snapshot_entries: 500,
            kept_entries: 100,
        }
    }
}

impl LogConfig {
    /// As openraft wants it.
    pub(super) fn to_openraft(&self) -> Result<openraft::Config, openraft::ConfigError> {
        openraft::Config {
            cluster_name: "ringdove".to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_ms_min,
            election_timeout_max: self.election_ms_max,
            install_snapshot_timeout: self.snapshot_ms,
            max_payload_entries: ENTRIES_PER_RPC_MAX as u64,
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.kept_entries,
            // Beyond the snapshot distance, or a snapshot could not cure the lag.
            replication_lag_threshold: self.snapshot_entries * 2,
            // A voter that was cut off and returns asks before it raises the term, so that it
            // does not unseat a healthy leader.
            enable_pre_vote: Some(true),
            removed_leader_step_down: openraft::StepDownPolicy::After(self.heartbeat_ms),
            ..openraft::Config::default()
        }
        .validate()
    }
}
