//! The identity that gossip speaks about.

use crate::engine::ids::NodeId;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// A node as gossip sees it: the node, where its QUIC endpoint is, and which of its gossip lives
/// this is.
///
/// SWIM never takes a *down* back. A node that finds itself declared down while it lives takes the
/// next generation and joins again: the same node (and the same data), a newer identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GossipId {
    /// The node. One generation of it is alive at a time.
    #[serde(with = "node_bytes")]
    pub node: NodeId,
    /// How often the node had to renew its identity. Only the node itself raises it.
    pub generation: u16,
    /// Where the node accepts QUIC connections.
    pub quic: SocketAddr,
}

impl foca::Identity for GossipId {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        Some(GossipId { generation: self.generation.checked_add(1)?, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    /// The later generation wins. Two addresses within one generation can't come from an honest
    /// node; the order of the addresses then makes everybody keep the same one.
    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.generation, self.quic) > (adversary.generation, adversary.quic)
    }
}

/// A node id is random, so a variable-length integer would take ten bytes instead of eight.
mod node_bytes {
    use super::NodeId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(node: &NodeId, serializer: S) -> Result<S::Ok, S::Error> {
        node.0.to_le_bytes().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NodeId, D::Error> {
        <[u8; 8]>::deserialize(deserializer).map(|bytes| NodeId(u64::from_le_bytes(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foca::Identity;

    fn id(generation: u16) -> GossipId {
        GossipId { node: NodeId(u64::MAX), generation, quic: ([127, 0, 0, 1], 7379).into() }
    }

    #[test]
    fn a_renewed_identity_wins_and_ends_at_the_last_generation() {
        let renewed = id(0).renew().expect("generations are left");
        assert!(renewed.win_addr_conflict(&id(0)));
        assert!(!id(0).win_addr_conflict(&renewed));
        assert_eq!(renewed.addr(), id(0).addr());
        assert_eq!(id(u16::MAX).renew(), None);
    }

    #[test]
    fn the_encoding_is_compact_and_returns_the_same() {
        let bytes = postcard::to_allocvec(&id(3)).expect("plain fields");
        assert_eq!(bytes.len(), 8 + 1 + 1 + 4 + 2);
        assert_eq!(postcard::from_bytes::<GossipId>(&bytes), Ok(id(3)));
    }
}
