//! What `/v1/cluster` and `/v1/partitions` say, as plain values.
//!
//! Node ids are their 16 hexadecimal digits (JavaScript's numbers hold only 53 bits). These types
//! are the HTTP interface: fields are added, never renamed.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `/v1/cluster`: the cluster as the answering node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// [`ClusterStatus::judge`]'s verdict, filled in by the server.
    pub health: Health,
    /// The node that answers.
    pub node: String,
    /// Which life of the cluster this is; 16 hexadecimal digits in JSON.
    #[serde(with = "hexadecimal")]
    pub incarnation: u64,
    /// The version of the agreed table that this node holds.
    pub table_version: u64,
    /// The voter that leads the agreed log, if this node knows one.
    pub leader: Option<String>,
    /// The voters.
    pub voters: Vec<String>,
    /// Whether the answering node sees a majority of the voters.
    pub has_majority: bool,
    /// Fixed when the cluster formed.
    pub settings: SettingsStatus,
    /// Everybody, the ones that are down included until they are forgotten.
    pub members: Vec<MemberView>,
    /// Copies being built.
    pub migrations: Vec<MigrationStatus>,
    /// How far the copies being built have come, all together.
    #[serde(default)]
    pub copying: CopyingStatus,
    /// Copies and primaries that are not yet where they should be, as the leader last said.
    #[serde(default)]
    pub moves_wanted: u32,
    /// Partitions all of whose complete copies are lost.
    pub dead_partitions: Vec<u16>,
    /// Partitions without a live primary, the dead ones included.
    pub unavailable_partitions: u32,
    /// Partitions with fewer complete live copies than they should have.
    pub under_replicated_partitions: u32,
    /// Copies that a partition has when all is well: the configured number, or that of the data
    /// members if they are fewer.
    pub copies_wanted: u8,
    /// The answering node's counters since its start, by name.
    pub counters: BTreeMap<String, u64>,
}

/// How the cluster is, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Every partition has all its copies.
    #[default]
    Healthy,
    /// Everything is served, with fewer copies than configured, because there are too few members.
    FewerCopies,
    /// Every partition has all its copies, and some copies or primaries are moving to other members.
    Balancing,
    /// Everything is served; copies are being built or are about to be.
    Healing,
    /// Some partitions are not served.
    Degraded,
    /// The answering node sees no majority.
    NoMajority,
}

impl Health {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::FewerCopies => "fewer-copies",
            Health::Balancing => "balancing",
            Health::Healing => "healing",
            Health::Degraded => "degraded",
            Health::NoMajority => "no-majority",
        }
    }
}

impl ClusterStatus {
    /// How the cluster is, from the other fields: the worst that applies.
    pub fn judge(&self) -> Health {
        if !self.has_majority {
            Health::NoMajority
        } else if self.unavailable_partitions > 0 || !self.dead_partitions.is_empty() {
            Health::Degraded
        } else if self.under_replicated_partitions > 0 {
            Health::Healing
        } else if !self.migrations.is_empty() || self.moves_wanted > 0 {
            Health::Balancing
        } else if self.copies_wanted < self.settings.replicas {
            Health::FewerCopies
        } else {
            Health::Healthy
        }
    }

    /// The member of that id.
    pub fn member(&self, node: &str) -> Option<&MemberView> {
        self.members.iter().find(|member| member.node == node)
    }
}

/// What is fixed when a cluster forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SettingsStatus {
    /// Partitions.
    pub partitions: u16,
    /// Copies in all, the primary included.
    pub replicas: u8,
    /// Copies that a write needs.
    pub min_copies: u8,
    /// `auto`, `majority` or `takeover`.
    pub survival: String,
}

/// A member's standing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Serving.
    #[default]
    Up,
    /// Handing its partitions over before it goes.
    Leaving,
    /// Not heard of lately; nothing is decided yet.
    Suspect,
    /// Declared dead.
    Down,
}

impl Standing {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Up => "up",
            Standing::Leaving => "leaving",
            Standing::Suspect => "suspect",
            Standing::Down => "down",
        }
    }
}

/// One member. Figures of other members are as of their last heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its id.
    pub node: String,
    /// Its name for people.
    pub name: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Its standing.
    pub status: Standing,
    /// Whether it votes.
    pub voter: bool,
    /// Share of partitions; 0 is a witness.
    pub weight: u16,
    /// The version of its program.
    pub version: String,
    /// Where peers and QUIC clients reach it.
    pub quic: String,
    /// Where Redis clients reach it.
    pub resp: String,
    /// Its admin HTTP address.
    pub admin: String,
    /// Partitions it is primary of.
    pub primaries: u32,
    /// Complete copies it holds beside those.
    pub backups: u32,
    /// Copies it is building.
    pub learners: u32,
    /// Entries of the partitions it is primary of.
    pub keys: u64,
    /// Bytes of all entries it holds, copies included.
    pub bytes: u64,
    /// Its bound on them; 0 is none.
    pub bytes_max: u64,
    /// Client operations a second over the last seconds.
    pub ops_per_s: f64,
    /// Clients connected by RESP and QUIC.
    pub clients: u32,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Round-trip time of the answering node's link to it in microseconds; none to itself or
    /// without a link.
    pub rtt_us: Option<u64>,
    /// Records sent to it and not yet acknowledged by it, of the answering node.
    pub replication_lag_records: u64,
}

/// A copy being built.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// The partition.
    pub partition: u16,
    /// The node that streams it.
    pub from: String,
    /// The node that receives it.
    pub to: String,
    /// How much has been sent, 0 to 100.
    pub percent: f64,
    /// Its rate.
    pub bytes_per_s: u64,
}

/// All copies being built in the cluster together, as of the nodes' last heartbeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyingStatus {
    /// Bytes still to be sent, estimated.
    pub bytes_left: u64,
    /// The rate over the last seconds.
    pub bytes_per_s: u64,
    /// Seconds until all is sent at that rate; none while nothing moves.
    pub eta_s: Option<u64>,
}

/// `/v1/partitions`: who holds what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionsStatus {
    /// Which life of the cluster this is; 16 hexadecimal digits in JSON.
    #[serde(with = "hexadecimal")]
    pub incarnation: u64,
    /// The version of the table that this is.
    pub table_version: u64,
    /// By partition id, from 0.
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PartitionView {
    /// The reign of the primary.
    pub epoch: u64,
    /// The appointed primary; none before the first assignment. It may be down.
    pub primary: Option<String>,
    /// The complete copies beside the primary.
    pub backups: Vec<String>,
    /// The copies being built.
    pub learners: Vec<String>,
}

/// `/readyz`: whether this node should get traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether it is a member, its copies are in sync, and it isn't leaving.
    pub ready: bool,
    /// Why not, in words.
    pub reasons: Vec<String>,
}

/// 64 bits as 16 hexadecimal digits.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{number:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u64::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_keep_all_their_bits() {
        let status = ClusterStatus { incarnation: u64::MAX - 1, ..Default::default() };
        let json = serde_json::to_string(&status).unwrap();
        assert!(json.contains("\"fffffffffffffffe\""), "{json}");
        assert_eq!(serde_json::from_str::<ClusterStatus>(&json).unwrap(), status);
    }

    #[test]
    fn the_worst_verdict_wins() {
        let mut status = ClusterStatus { has_majority: true, copies_wanted: 2, ..Default::default() };
        status.settings.replicas = 2;
        assert_eq!(status.judge(), Health::Healthy);
        status.copies_wanted = 1;
        assert_eq!(status.judge(), Health::FewerCopies);
        status.moves_wanted = 1;
        assert_eq!(status.judge(), Health::Balancing, "a primary is yet to move");
        status.migrations.push(MigrationStatus::default());
        assert_eq!(status.judge(), Health::Balancing);
        status.under_replicated_partitions = 1;
        assert_eq!(status.judge(), Health::Healing);
        status.unavailable_partitions = 1;
        assert_eq!(status.judge(), Health::Degraded);
        status.has_majority = false;
        assert_eq!(status.judge(), Health::NoMajority);
        assert_eq!(serde_json::to_value(status.judge()).unwrap(), Health::NoMajority.as_str());
    }
}
