//! Placement: who should hold which partition. A pure function of the members.

use super::ids::NodeId;

/// A member that may hold partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub node: NodeId,
    /// Share relative to the others; 0 holds nothing.
    pub weight: u16,
    /// Failure domain.
    pub zone: Option<String>,
}

/// The desired owners of each partition, the primary first.
pub fn desired(
    members: &[Candidate],
    partitions: usize,
    replicas: usize,
    previous: &[Vec<NodeId>],
) -> Vec<Vec<NodeId>> {
    let _ = (members, replicas, previous);
    vec![Vec::new(); partitions]
}
