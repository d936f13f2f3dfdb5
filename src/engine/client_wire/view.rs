//! What a client needs to know of the agreed table: who is there, and who is primary of what.

use crate::engine::ids::{Incarnation, NodeId, PARTITION_COUNT_MAX, PartitionId, Slot, TableVersion};
use crate::engine::table::{MemberStatus, Table};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The most members a view names.
pub const MEMBERS_MAX: usize = 65_535;

/// In [`ClusterView::primaries`]: no primary that lives.
const NOBODY: u16 = u16::MAX;

/// A client's view of the table, about two bytes a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterView {
    incarnation: Incarnation,
    version: TableVersion,
    members: Vec<ViewMember>,
    /// By partition: an index into `members`, or [`NOBODY`].
    primaries: Vec<u16>,
}

/// A member that clients may talk to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewMember {
    /// Who.
    pub node: NodeId,
    /// Where (UDP).
    pub quic: SocketAddr,
}

/// The bytes are not a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a table view that doesn't decode")]
pub struct ViewError;

impl ClusterView {
    /// The view of a table. Members that are down are left out.
    pub fn of(table: &Table) -> ClusterView {
        let members: Vec<ViewMember> = table
            .members
            .values()
            .filter(|member| member.status != MemberStatus::Down)
            .take(MEMBERS_MAX)
            .map(|member| ViewMember { node: member.node, quic: member.quic })
            .collect();
        let primaries = table
            .partitions
            .iter()
            .map(|assignment| {
                // Members come from a map by node id, so they are sorted.
                let found = members.binary_search_by_key(&assignment.primary, |member| member.node);
                found.map_or(NOBODY, |index| index as u16)
            })
            .collect();
        ClusterView { incarnation: table.incarnation, version: table.version, members, primaries }
    }

    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        // Writing plain numbers and addresses to memory has no way to fail.
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// From bytes.
    ///
    /// # Errors
    /// If the bytes aren't a view, or name members or partitions that can't be.
    pub fn decode(bytes: &[u8]) -> Result<ClusterView, ViewError> {
        let (view, rest) = postcard::take_from_bytes::<ClusterView>(bytes).map_err(|_| ViewError)?;
        let partitions = view.primaries.len();
        let sound = rest.is_empty()
            && partitions.is_power_of_two()
            && partitions <= usize::from(PARTITION_COUNT_MAX)
            && view.members.len() <= MEMBERS_MAX
            && view.primaries.iter().all(|&at| at == NOBODY || usize::from(at) < view.members.len());
        if sound { Ok(view) } else { Err(ViewError) }
    }

    /// Which life of the cluster this view is of.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The version of the table this view is of.
    pub fn version(&self) -> TableVersion {
        self.version
    }

    /// The members that are not down.
    pub fn members(&self) -> &[ViewMember] {
        &self.members
    }

    /// How many partitions there are: a power of two.
    pub fn partition_count(&self) -> u16 {
        self.primaries.len() as u16
    }

    /// The partition of a slot.
    pub fn partition_of(&self, slot: Slot) -> PartitionId {
        slot.partition(self.partition_count())
    }

    /// The primary of a partition, unless it is down or there is none.
    pub fn primary(&self, partition: PartitionId) -> Option<ViewMember> {
        let &index = self.primaries.get(partition.index())?;
        self.members.get(usize::from(index)).copied()
    }

    /// Whether this view replaces `other` at a client that holds `other`.
    pub fn supersedes(&self, other: &ClusterView) -> bool {
        (self.incarnation, self.version) > (other.incarnation, other.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::Epoch;
    use crate::engine::table::{ClusterSettings, Member, Survival};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn table() -> Table {
        let settings =
            ClusterSettings { partitions: 4, replicas: 2, min_copies: 2, survival: Survival::Auto };
        let mut table = Table::new(Incarnation(3), settings);
        table.version = TableVersion(9);
        for (node, status) in [(10, MemberStatus::Up), (20, MemberStatus::Down), (30, MemberStatus::Leaving)]
        {
            let address = SocketAddr::from(([127, 0, 0, 1], 7_000 + node as u16));
            table.members.insert(
                NodeId(node),
                Member {
                    node: NodeId(node),
                    name: String::new(),
                    quic: address,
                    resp: address,
                    admin: address,
                    zone: None,
                    weight: 100,
                    status,
                },
            );
        }
        for (assignment, primary) in table.partitions.iter_mut().zip([10, 20, 30]) {
            let assignment = Arc::make_mut(assignment);
            assignment.primary = NodeId(primary);
            assignment.epoch = Epoch(1);
        }
        table
    }

    #[test]
    fn a_view_names_the_living() {
        let view = ClusterView::of(&table());
        assert_eq!(view.members().len(), 2);
        assert_eq!(view.primary(PartitionId(0)).map(|member| member.node), Some(NodeId(10)));
        assert_eq!(view.primary(PartitionId(1)), None);
        assert_eq!(view.primary(PartitionId(2)).map(|member| member.quic.port()), Some(7_030));
        assert_eq!(view.primary(PartitionId(3)), None);
        assert_eq!(view.primary(PartitionId(400)), None);
        assert_eq!(ClusterView::decode(&view.encode()), Ok(view));
    }

    #[test]
    fn views_that_cannot_be_are_refused() {
        let good = ClusterView::of(&table());
        for damage in [
            |view: &mut ClusterView| view.primaries.push(0),
            |view: &mut ClusterView| view.primaries.clear(),
            |view: &mut ClusterView| view.primaries[0] = 2,
            |view: &mut ClusterView| view.primaries = vec![NOBODY; 32_768],
        ] {
            let mut bad = good.clone();
            damage(&mut bad);
            assert_eq!(ClusterView::decode(&bad.encode()), Err(ViewError));
        }
        let mut long = good.encode();
        long.push(0);
        assert_eq!(ClusterView::decode(&long), Err(ViewError));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = ClusterView::decode(&bytes);
        }
    }
}
