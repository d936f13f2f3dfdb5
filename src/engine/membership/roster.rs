//! What is known of each member, and what has changed since the last look.

use super::identity::GossipId;
use crate::engine::ids::NodeId;
use foca::{Member, State};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// How a member that is not down stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// Somebody gets no answer from it; it has some time left to refute that.
    Suspect,
}

/// A member that is not down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// The node.
    pub node: NodeId,
    /// Where it accepts QUIC connections.
    pub quic: SocketAddr,
    /// How it stands.
    pub state: MemberState,
}

/// A change that the roster noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Up(NodeId, SocketAddr),
    Suspect(NodeId),
    Refuted(NodeId),
    Down(NodeId),
}

/// One member, living or dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) id: GossipId,
    pub(super) incarnation: foca::Incarnation,
    pub(super) state: State,
    /// When it went down, if it is.
    pub(super) down_since_us: u64,
    /// Whether it was a suspicion of our own that declared it down.
    pub(super) declared_by_us: bool,
    seen_at_look: u64,
}

impl Entry {
    pub(super) fn is_active(&self) -> bool {
        self.state != State::Down
    }
}

/// All known members but ourselves, by node. One identity a node: foca keeps the winning one.
#[derive(Debug, Default)]
pub(super) struct Roster {
    entries: BTreeMap<NodeId, Entry>,
    looks: u64,
}

impl Roster {
    /// Compares with foca's state and tells what has changed, in foca's order.
    pub(super) fn look<'m>(
        &mut self,
        me: NodeId,
        now_us: u64,
        state: impl Iterator<Item = &'m Member<GossipId>>,
        mut changed: impl FnMut(Change),
    ) {
        self.looks += 1;
        let mut seen = 0;
        for member in state.filter(|member| member.id().node != me) {
            seen += 1;
            let node = member.id().node;
            let fresh = Entry {
                id: *member.id(),
                incarnation: member.incarnation(),
                state: member.state(),
                down_since_us: now_us,
                declared_by_us: false,
                seen_at_look: self.looks,
            };
            let before = self.entries.get(&node).map(|entry| entry.state);
            if let (Some(State::Down), State::Down) = (before, fresh.state) {
                if let Some(entry) = self.entries.get_mut(&node) {
                    (entry.id, entry.seen_at_look) = (fresh.id, fresh.seen_at_look);
                }
                continue;
            }
            self.entries.insert(node, fresh);
            match (before, fresh.state) {
                (None | Some(State::Down), State::Alive) => changed(Change::Up(node, fresh.id.quic)),
                (None | Some(State::Down), State::Suspect) => {
                    changed(Change::Up(node, fresh.id.quic));
                    changed(Change::Suspect(node));
                }
                (Some(State::Alive), State::Suspect) => changed(Change::Suspect(node)),
                (Some(State::Suspect), State::Alive) => changed(Change::Refuted(node)),
                (Some(State::Alive | State::Suspect), State::Down) => changed(Change::Down(node)),
                _ => {}
            }
        }
        if seen < self.entries.len() {
            let looks = self.looks;
            self.entries.retain(|&node, entry| {
                let known = entry.seen_at_look == looks;
                if !known && entry.is_active() {
                    changed(Change::Down(node));
                }
                known
            });
        }
    }

    pub(super) fn get(&self, node: NodeId) -> Option<&Entry> {
        self.entries.get(&node)
    }

    pub(super) fn get_mut(&mut self, node: NodeId) -> Option<&mut Entry> {
        self.entries.get_mut(&node)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn active(&self) -> impl Iterator<Item = &Entry> {
        self.iter().filter(|entry| entry.is_active())
    }

    pub(super) fn down(&self) -> impl Iterator<Item = &Entry> {
        self.iter().filter(|entry| !entry.is_active())
    }

    /// The member that has been down for longest.
    pub(super) fn longest_down(&self) -> Option<GossipId> {
        self.down().min_by_key(|entry| entry.down_since_us).map(|entry| entry.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u64, generation: u16, state: State) -> Member<GossipId> {
        let quic = ([127, 0, 0, 1], 1).into();
        Member::new(GossipId { node: NodeId(node), generation, quic }, 0, state)
    }

    fn look(roster: &mut Roster, now_us: u64, state: &[Member<GossipId>]) -> Vec<Change> {
        let mut changes = Vec::new();
        roster.look(NodeId(0), now_us, state.iter(), |change| changes.push(change));
        changes
    }

    #[test]
    fn ups_and_downs_alternate_and_we_are_not_our_own_member() {
        let mut roster = Roster::default();
        let (me, quic) = (member(0, 0, State::Down), ([127, 0, 0, 1], 1).into());
        let up = Change::Up(NodeId(1), quic);
        assert_eq!(look(&mut roster, 1, &[me.clone(), member(1, 0, State::Alive)]), [up]);
        assert_eq!(
            look(&mut roster, 2, &[me.clone(), member(1, 0, State::Suspect)]),
            [Change::Suspect(NodeId(1))]
        );
        assert_eq!(look(&mut roster, 3, &[me.clone(), member(1, 0, State::Down)]), [Change::Down(NodeId(1))]);
        assert_eq!(look(&mut roster, 4, &[me.clone(), member(1, 0, State::Down)]), []);
        assert_eq!(roster.get(NodeId(1)).map(|entry| entry.down_since_us), Some(3));
        assert_eq!(look(&mut roster, 5, &[me.clone(), member(1, 1, State::Alive)]), [up]);
        assert_eq!(look(&mut roster, 6, &[me]), [Change::Down(NodeId(1))]);
        assert_eq!(roster.len(), 0);
    }
}
