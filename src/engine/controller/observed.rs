//! What this node sees of the others for itself: gossip's opinion and its own links.

use crate::engine::ids::NodeId;
use crate::engine::time::Now;
use std::collections::BTreeMap;

/// A live link convinces against gossip's "down" after this long: gossip may be slow to learn that
/// a member it buried is back.
const LINK_CONVINCES_US: u64 = 2_000_000;

/// Opinions and links. Kept whether this node leads or not: they are its own, not a predecessor's.
#[derive(Debug, Default)]
pub(super) struct Observed {
    gossip: BTreeMap<NodeId, bool>,
    /// Live links and since when.
    links_us: BTreeMap<NodeId, u64>,
    /// Who votes in the agreed log.
    voters: Vec<NodeId>,
}

impl Observed {
    pub(super) fn member_heard(&mut self, node: NodeId, alive: bool) {
        self.gossip.insert(node, alive);
    }

    pub(super) fn link(&mut self, now: Now, node: NodeId, live: bool) {
        if live {
            self.links_us.entry(node).or_insert(now.mono_us);
        } else {
            self.links_us.remove(&node);
        }
    }

    pub(super) fn set_voters(&mut self, voters: Vec<NodeId>) {
        self.voters = voters;
    }

    pub(super) fn voters(&self) -> &[NodeId] {
        &self.voters
    }

    /// Drops old burials of nodes that nobody asks about any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(NodeId) -> bool) {
        self.gossip.retain(|&node, alive| *alive || wanted(node));
    }

    /// Whether a member seen in the table since `since_us` is dead: gossip says so and the link is
    /// lost; or there was never a sign of it for `unheard_us`.
    pub(super) fn is_dead(&self, now: Now, node: NodeId, since_us: u64, unheard_us: u64) -> bool {
        !self.links_us.contains_key(&node)
            && match self.gossip.get(&node) {
                Some(alive) => !alive,
                None => now.mono_us >= since_us.saturating_add(unheard_us),
            }
    }

    /// Whether this node's own link to a member is live.
    pub(super) fn has_link(&self, node: NodeId) -> bool {
        self.links_us.contains_key(&node)
    }

    /// Whether there is a bad sign of a member, be it not enough to bury it.
    pub(super) fn is_suspect(&self, node: NodeId) -> bool {
        !self.links_us.contains_key(&node) || self.gossip.get(&node) == Some(&false)
    }

    /// Whether a member thought dead is back.
    pub(super) fn is_back(&self, now: Now, node: NodeId) -> bool {
        self.links_us.get(&node).is_some_and(|&since_us| {
            self.gossip.get(&node) != Some(&false)
                || now.mono_us >= since_us.saturating_add(LINK_CONVINCES_US)
        })
    }

    /// When time alone may change the answer of [`Observed::is_dead`] or [`Observed::is_back`].
    pub(super) fn alarm_us(&self, node: NodeId, since_us: u64, unheard_us: u64) -> Option<u64> {
        match (self.links_us.get(&node), self.gossip.get(&node)) {
            (Some(&link_us), Some(false)) => Some(link_us.saturating_add(LINK_CONVINCES_US)),
            (None, None) => Some(since_us.saturating_add(unheard_us)),
            _ => None,
        }
    }
}
