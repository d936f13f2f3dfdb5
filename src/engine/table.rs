//! The table: who holds which partition, agreed by the voters.
//!
//! A [`Table`] is the state machine behind the agreed log: [`Table::apply`] is its only way
//! forward, deterministic and total (a change that no longer fits is skipped, never an error).
//! Every member receives whole tables; the higher `(incarnation, version)` wins.

mod apply;
mod checks;
#[cfg(test)]
mod tests;

pub use apply::Applied;

use super::ids::{Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence, Slot, TableVersion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// The most members a table takes, the `Down` ones included.
pub const MEMBER_COUNT_MAX: usize = 4_096;
/// The most named maps a cluster may have.
pub const MAP_COUNT_MAX: usize = 1_024;
/// The most bytes of a name: of a map, a member or a zone.
pub const NAME_BYTES_MAX: usize = 255;
/// The most copies of one partition, complete or not.
pub const COPIES_MAX: usize = 32;
/// Removed members whose ids are remembered, so that a late message cannot bring one back.
pub const RETIRED_COUNT_MAX: usize = 256;

/// What all members agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Which life of the cluster this is.
    pub incarnation: Incarnation,
    /// Grows by one with every applied log entry.
    pub version: TableVersion,
    /// Fixed when the cluster forms.
    pub settings: ClusterSettings,
    /// Whether the cluster ever had three members: from then on only a majority goes on.
    pub ever_three: bool,
    /// Everybody, the `Down` ones included until they are forgotten.
    pub members: BTreeMap<NodeId, Member>,
    /// One a partition, by [`PartitionId`]; a table that follows another shares those that stay.
    pub partitions: Vec<Arc<Assignment>>,
    /// The survivor that carried its copies into this incarnation; `None` in a cluster's first.
    pub carried_by: Option<NodeId>,
    /// The named maps; `maps[i]` is [`MapId`] `i + 1`. Map 0, the unnamed one, has no entry.
    pub maps: Vec<MapDefinition>,
    /// The last [`RETIRED_COUNT_MAX`] members that were removed, oldest first. An id is never
    /// used again: who finds its own here starts over as a new node.
    pub retired: Vec<NodeId>,
}

/// What is fixed when a cluster forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSettings {
    /// Partitions: a power of two, 1 to 16,384.
    pub partitions: u16,
    /// Copies in all, the primary included.
    pub replicas: u8,
    /// Copies a write needs before it is acknowledged.
    pub min_copies: u8,
    /// Who may go on when members are lost.
    pub survival: Survival,
}

/// Who may go on when members are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Survival {
    /// A takeover by any survivor until the cluster had three members; a majority from then on.
    Auto,
    /// Only ever a majority (safety first: two nodes survive no kill of the voter).
    Majority,
    /// Any survivor, always (availability first: a split may make two clusters).
    Takeover,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// The human's name for it.
    pub name: String,
    /// Where peers and QUIC clients reach it (UDP).
    pub quic: SocketAddr,
    /// Where Redis clients reach it (TCP).
    pub resp: SocketAddr,
    /// Where the admin HTTP server listens.
    pub admin: SocketAddr,
    /// Failure domain; two copies never share one if set.
    pub zone: Option<String>,
    /// Share of the partitions relative to other members; 100 is usual, 0 makes a witness.
    pub weight: u16,
    /// Its standing.
    pub status: MemberStatus,
}

/// The standing of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberStatus {
    /// Serving.
    Up,
    /// Handing its partitions over before it goes.
    Leaving,
    /// Declared dead by the controller.
    Down,
}

/// Who holds one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The reign of `primary`. Zero until the first assignment.
    pub epoch: Epoch,
    /// The epoch at which the partition last began empty, by its first assignment or an
    /// operator's accepted loss. What a node kept from an earlier epoch is void.
    pub origin: Epoch,
    /// The last appointed primary; it may be `Down`. Meaningless at epoch zero.
    pub primary: NodeId,
    /// In-sync replicas: complete copies, the primary included. Empty at epoch zero and after the
    /// last member with data has left.
    pub isr: Vec<NodeId>,
    /// Attached to every write, not yet complete.
    pub learners: Vec<NodeId>,
    /// The version of the table with which each learner was attached: it names the attachment. What was
    /// said of an earlier one says nothing of this.
    pub since: BTreeMap<NodeId, TableVersion>,
    /// Replicas counted out that, with what the learners have taken since, may still hold every
    /// acknowledged write. While there are any, the primary reads and commits only with a learner.
    pub former: Vec<Former>,
}

/// An in-sync replica that was counted out and may be recovered from, without loss, should the others
/// die before a learner is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Who.
    pub node: NodeId,
    /// Up to here its log is that of the reigns since: where a primary began without it.
    pub shared_until: Sequence,
}

/// A named map and its defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDefinition {
    /// Its name, 1 to 255 bytes of UTF-8.
    pub name: String,
    /// Its defaults.
    pub defaults: MapDefaults,
}

/// A map's defaults; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapDefaults {
    /// Time to live of entries written without one, in milliseconds.
    pub ttl_ms: u64,
    /// Entries not read or written for so long expire, in milliseconds.
    pub idle_ms: u64,
    /// Bytes the map's entries may take on one node before the least recently used go.
    pub bytes_max: u64,
}

/// One change of the table. A log entry is a list of them ([`TableEntry`]).
///
/// Changes of a partition name the epoch they were decided at and are skipped at any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableChange {
    /// Adds a member, or updates what it says of itself (status included).
    PutMember(Member),
    /// Sets a member's standing. Who is `Leaving` doesn't come back `Up`.
    SetStatus(NodeId, MemberStatus),
    /// Forgets a member that no assignment names any more, or that leaves and has nobody to leave
    /// its copies to.
    RemoveMember(NodeId),
    /// First assignment of an unassigned partition (epoch 0 → 1), empty on all owners.
    Assign {
        /// The partition.
        partition: PartitionId,
        /// Its first primary.
        primary: NodeId,
        /// The other owners.
        backups: Vec<NodeId>,
    },
    /// A new copy starts to attach.
    AddLearner {
        /// The partition.
        partition: PartitionId,
        /// Its epoch.
        epoch: Epoch,
        /// Who gets the copy.
        node: NodeId,
    },
    /// A learner is given up.
    RemoveLearner {
        /// The partition.
        partition: PartitionId,
        /// Its epoch.
        epoch: Epoch,
        /// The learner.
        node: NodeId,
    },
    /// The primary says that the learner is complete.
    Complete {
        /// The partition.
        partition: PartitionId,
        /// Its epoch.
        epoch: Epoch,
        /// The learner.
        node: NodeId,
        /// Its attachment, as [`Assignment::since`] names it.
        since: TableVersion,
    },
    /// A complete copy that is not the primary is no longer needed, or its holder is gone.
    ///
    /// A live holder's copy goes only while enough live complete copies remain (invariant f).
    RemoveReplica {
        /// The partition.
        partition: PartitionId,
        /// Its epoch.
        epoch: Epoch,
        /// The holder.
        node: NodeId,
    },
    /// A complete copy whose live holder cannot keep up is taken out of the ack set, though fewer
    /// copies than wanted remain: writes would wait for it for ever. Never the primary's.
    RemoveLagging {
        /// The partition.
        partition: PartitionId,
        /// Its epoch.
        epoch: Epoch,
        /// The holder.
        node: NodeId,
        /// Whether it is good to be recovered from, should the primary be lost before another is complete.
        sound: bool,
    },
    /// The sealed survivors `isr` go on under `primary` at `epoch + 1`. Learners stay attached.
    Failover {
        /// The partition.
        partition: PartitionId,
        /// Its epoch so far.
        epoch: Epoch,
        /// The next primary, one of `isr`.
        primary: NodeId,
        /// The complete copies that go on, some of those before.
        isr: Vec<NodeId>,
        /// The last record of the next primary; the highest there is if the same goes on.
        last: Sequence,
    },
    /// Nobody of the in-sync set lives: `primary`, who kept a former copy or had just become complete,
    /// goes on with it at `epoch + 1`.
    ///
    /// Unless an operator `accepted` the loss, only a copy that the table still counts on.
    Recover {
        /// The partition.
        partition: PartitionId,
        /// Its epoch so far.
        epoch: Epoch,
        /// The next primary, the only copy.
        primary: NodeId,
        /// Whether acknowledged writes may be missing, by an operator's decision.
        accepted: bool,
    },
    /// The drained primary hands over to an in-sync replica: `epoch + 1`.
    Handover {
        /// The partition.
        partition: PartitionId,
        /// Its epoch so far.
        epoch: Epoch,
        /// The next primary.
        to: NodeId,
    },
    /// The primary withdraws a handover: `epoch + 1`, same primary.
    CancelHandover {
        /// The partition.
        partition: PartitionId,
        /// Its epoch so far.
        epoch: Epoch,
    },
    /// An operator accepts the loss of a dead partition: `epoch + 1`, empty on new owners.
    AcceptLoss {
        /// The partition.
        partition: PartitionId,
        /// Its epoch so far.
        epoch: Epoch,
        /// The next primary.
        primary: NodeId,
        /// The other owners.
        backups: Vec<NodeId>,
    },
    /// Defines a named map, or changes its defaults.
    DefineMap(MapDefinition),
    /// The survivors of a takeover start a new incarnation. The version goes on growing.
    NewIncarnation(Incarnation),
}

/// One entry of the agreed log.
pub type TableEntry = Vec<TableChange>;

impl Table {
    /// An empty table: no member, no assignment.
    pub fn new(incarnation: Incarnation, settings: ClusterSettings) -> Table {
        Table {
            incarnation,
            version: TableVersion(0),
            settings,
            ever_three: false,
            members: BTreeMap::new(),
            partitions: vec![Arc::default(); usize::from(settings.partitions)],
            carried_by: None,
            maps: Vec::new(),
            retired: Vec::new(),
        }
    }

    /// Whether this table replaces `other` at a member that holds `other`.
    pub fn supersedes(&self, other: &Table) -> bool {
        (self.incarnation, self.version) > (other.incarnation, other.version)
    }

    /// The assignment of a partition; `None` beyond the partition count.
    pub fn assignment(&self, partition: PartitionId) -> Option<&Assignment> {
        self.partitions.get(partition.index()).map(Arc::as_ref)
    }

    /// The partition of a slot.
    pub fn partition_of(&self, slot: Slot) -> PartitionId {
        slot.partition(self.settings.partitions)
    }

    /// The id of a named map.
    pub fn map_id(&self, name: &str) -> Option<MapId> {
        let index = self.maps.iter().position(|map| map.name == name)?;
        Some(MapId(index as u16 + 1))
    }

    /// The defaults of a map; none for the unnamed or an unknown one.
    pub fn map_defaults(&self, map: MapId) -> MapDefaults {
        match map.0 {
            0 => MapDefaults::default(),
            n => self.maps.get(usize::from(n) - 1).map(|map| map.defaults).unwrap_or_default(),
        }
    }

    /// Whether `node` is a member that is not `Down`.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.members.get(&node).is_some_and(|member| member.status != MemberStatus::Down)
    }

    /// Whether `node` was a member and was removed (one of the last [`RETIRED_COUNT_MAX`]).
    pub fn is_retired(&self, node: NodeId) -> bool {
        self.retired.contains(&node)
    }

    /// The members that are given partitions: `Up` and with a weight, by id.
    pub fn owners(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.is_owner())
    }

    /// The members that could take over what others leave behind, now or when they, or somebody in their
    /// place, are back.
    pub fn heirs(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.weight > 0 && member.status != MemberStatus::Leaving)
    }

    /// Copies each partition should have now: `replicas`, or one on each owner if they are fewer.
    pub fn replicas_wanted(&self) -> usize {
        usize::from(self.settings.replicas).min(self.owners().count())
    }

    /// Whether only a majority of the members goes on when the others are lost.
    pub fn goes_by_majority(&self) -> bool {
        match self.settings.survival {
            Survival::Auto => self.ever_three,
            Survival::Majority => true,
            Survival::Takeover => false,
        }
    }

    /// Copies a write needs now: `min_copies`, or one on each member with data if they are fewer; at
    /// least 1.
    ///
    /// Dead members count in clusters that go on by majority; a small cluster's survivor goes on alone
    /// (DESIGN "Small clusters"). Those that leave don't.
    pub fn copies_needed(&self) -> usize {
        let by_majority = self.goes_by_majority();
        let counts = |member: &&Member| match member.status {
            MemberStatus::Up => true,
            MemberStatus::Leaving => false,
            MemberStatus::Down => by_majority,
        };
        let members = self.members.values().filter(|member| member.weight > 0).filter(counts).count();
        usize::from(self.settings.min_copies.min(self.settings.replicas)).min(members.max(1))
    }

    /// Whether a partition was assigned and no live member has a complete copy of it.
    pub fn is_dead(&self, partition: PartitionId) -> bool {
        self.assignment(partition).is_some_and(|assignment| {
            assignment.epoch > Epoch(0) && !assignment.isr.iter().any(|&node| self.is_live(node))
        })
    }

    /// All partition ids, in order.
    pub fn partition_ids(&self) -> impl Iterator<Item = PartitionId> + use<> {
        (0..self.partitions.len()).map(|index| PartitionId(index as u16))
    }
}

impl Member {
    /// A member that serves, with the usual weight and in no zone, all of whose doors are at one address.
    pub fn up(node: NodeId, name: String, address: SocketAddr) -> Member {
        let (quic, resp, admin) = (address, address, address);
        Member { node, name, quic, resp, admin, zone: None, weight: 100, status: MemberStatus::Up }
    }

    /// Whether this member is given partitions: `Up` and with a weight.
    pub fn is_owner(&self) -> bool {
        self.status == MemberStatus::Up && self.weight > 0
    }
}

impl Assignment {
    /// Whether `node` holds a copy, complete or not.
    pub fn holds(&self, node: NodeId) -> bool {
        self.isr.contains(&node) || self.learners.contains(&node)
    }

    /// Names the attachment of a learner; `None` if it isn't one.
    pub fn attachment(&self, node: NodeId) -> Option<TableVersion> {
        self.since.get(&node).copied()
    }

    /// Everybody who must acknowledge a write: the in-sync replicas, then the learners.
    pub fn ack_set(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.isr.iter().chain(&self.learners).copied()
    }
}
