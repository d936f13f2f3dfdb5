//! What the partitions of one engine share: time, table, memory, peers, and what they ask for.

use super::config::EngineConfig;
use super::controller::Report;
use super::ids::{Incarnation, NodeId, PartitionId};
use super::message::Unavailable;
use super::op::{OwnedOp, Ticket};
use super::partition::primary::{Asker, ReplyBytes, Waiter};
use super::partition::snapshot::Sending;
use super::partition_set::PartitionSet;
use super::peers::Peers;
use super::queues::Queues;
use super::record::RecordLog;
use super::stats::Stats;
use super::store::{Arena, Shard};
use super::table::{Assignment, ClusterSettings, MemberStatus, Survival, Table};
use super::time::Now;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What the partitions of one engine share.
pub struct Shared {
    /// This node.
    pub me: NodeId,
    /// The time of the call being served.
    pub now: Now,
    /// Bounds and patience.
    pub config: EngineConfig,
    /// The table in force.
    pub table: Arc<Table>,
    /// Entry memory.
    pub arena: Arena,
    /// The other nodes.
    pub peers: Peers,
    /// Counters.
    pub stats: Stats,
    /// Replies that primaries here hold back, a queue for each.
    pub(super) waiters: Queues<Waiter>,
    /// Effects of the operation under way at a copy that stands alone.
    pub(super) lone_log: RecordLog,
    /// Shards given up, to be reclaimed in bounded steps.
    pub condemned: VecDeque<Shard>,
    /// Operations to run again: their primary's reign ended before they did.
    pub resubmit: VecDeque<Parked>,
    pub(super) completions: VecDeque<(Ticket, ReplyBytes)>,
    pub(super) dirty: Vec<PartitionId>,
    pub(super) restless: PartitionSet,
    /// Until when this node may take itself for part of the majority that it needs.
    majority_until_us: u64,
    pub(super) woken: BTreeSet<PartitionId>,
    pub(super) reports: Vec<Report>,
    pub(super) pulls: BTreeSet<NodeId>,
    pub(super) starved: VecDeque<(NodeId, PartitionId)>,
    snapshot_in_flight: BTreeMap<NodeId, usize>,
    /// When the budget will have paid for what was sent so far.
    snapshot_paid_us: u64,
    copies_min: usize,
    entropy: u64,
    attempts: u64,
}

/// An operation that cannot run yet.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Who asked.
    pub asker: Asker,
    /// What for.
    pub op: OwnedOp,
    /// When patience ends, on the boot-time clock.
    pub deadline_us: u64,
    /// What to say then.
    pub reason: Unavailable,
}

impl Parked {
    /// Parks a local client's operation.
    pub fn new(ticket: Ticket, op: OwnedOp, deadline_us: u64) -> Parked {
        Parked { asker: Asker::Local(ticket), op, deadline_us, reason: Unavailable::ChangingHands }
    }
}

impl Shared {
    /// A node that knows nobody yet. `entropy` seeds all its choices.
    pub fn new(me: NodeId, config: EngineConfig, entropy: u64) -> Shared {
        let settings =
            ClusterSettings { partitions: 1, replicas: 1, min_copies: 1, survival: Survival::Auto };
        Shared {
            me,
            now: Now::default(),
            table: Arc::new(Table::new(Incarnation(0), settings)),
            arena: Arena::new(),
            peers: Peers::new(config.peers),
            config,
            stats: Stats::default(),
            waiters: Queues::default(),
            lone_log: RecordLog::counting(),
            condemned: VecDeque::new(),
            resubmit: VecDeque::new(),
            completions: VecDeque::new(),
            dirty: Vec::new(),
            restless: PartitionSet::default(),
            majority_until_us: u64::MAX,
            woken: BTreeSet::new(),
            reports: Vec::new(),
            pulls: BTreeSet::new(),
            starved: VecDeque::new(),
            snapshot_in_flight: BTreeMap::new(),
            snapshot_paid_us: 0,
            copies_min: 1,
            entropy: entropy | 1,
            attempts: 0,
        }
    }

    /// The next of this node's pseudo-random numbers (SplitMix64).
    pub fn random(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number for a snapshot attempt: later ones are higher.
    pub fn next_attempt(&mut self) -> u64 {
        self.attempts = (self.attempts + 1).max(self.now.mono_us);
        self.attempts
    }

    /// The partition has effects to send.
    pub fn dirty(&mut self, partition: PartitionId) {
        if self.dirty.last() != Some(&partition) {
            self.dirty.push(partition);
        }
    }

    /// The partition wants its timers looked at.
    pub fn mark_restless(&mut self, partition: PartitionId) {
        self.restless.insert(partition);
    }

    /// Operations parked for the partition may run now.
    pub fn wake_parked(&mut self, partition: PartitionId) {
        self.woken.insert(partition);
    }

    /// Hands a reply to a local client.
    pub fn complete(&mut self, ticket: Ticket, reply: ReplyBytes) {
        self.completions.push_back((ticket, reply));
    }

    /// Hands an error to a local client; `error` is without the leading `-`.
    pub fn complete_error(&mut self, ticket: Ticket, error: &str) {
        let mut reply = ReplyBytes::new();
        reply.push(b'-');
        reply.extend_from_slice(error.as_bytes());
        reply.extend_from_slice(b"\r\n");
        self.complete(ticket, reply);
    }

    /// For how long an operation has waited that arrived here and may wait until then.
    fn waited_us(&self, deadline_us: u64) -> u64 {
        (self.now.mono_us + self.config.patience_us).saturating_sub(deadline_us)
    }

    /// Whether a majority of the members answered within the time of a lease, where one is needed to go
    /// on: without it nothing is acknowledged or read here, whoever holds the copies.
    pub fn sees_majority(&self) -> bool {
        self.now.mono_us < self.majority_until_us
    }

    /// Whether this node has lost the majority, which it needs, and not just for a moment.
    pub fn in_minority(&self) -> bool {
        let patience_us = self.config.minority_patience_us;
        self.now.mono_us >= self.majority_until_us.saturating_add(patience_us)
    }

    /// How long operations wait now.
    pub fn present_patience_us(&self) -> u64 {
        if self.in_minority() { self.config.minority_patience_us } else { self.config.patience_us }
    }

    /// Whether an operation has waited long enough.
    pub fn is_overdue(&self, deadline_us: u64) -> bool {
        self.now.mono_us >= deadline_us || self.waited_us(deadline_us) >= self.present_patience_us()
    }

    /// Whether the controller, if there is one, is told what is reported: directly, or by way of the
    /// majority that answers here.
    pub fn reaches_controller(&self) -> bool {
        let linked = self.peers.leader.is_some_and(|leader| leader == self.me || self.peers.linked(leader));
        linked || (self.table.goes_by_majority() && self.sees_majority())
    }

    /// Looks at how long this node, if it needs a majority to go on, has one.
    pub(super) fn look_for_majority(&mut self) {
        let table = &self.table;
        if !table.goes_by_majority() || !table.members.contains_key(&self.me) {
            self.majority_until_us = u64::MAX;
            return;
        }
        let members = table.members.values().filter(|member| member.status != MemberStatus::Down);
        let mut answered_us: SmallVec<[u64; 16]> = members
            .filter(|member| member.node != self.me)
            .map(|member| self.peers.answered_us(member.node))
            .collect();
        // With this node, so many make more than half.
        let needed = answered_us.len().div_ceil(2);
        self.majority_until_us = match needed.checked_sub(1) {
            None => u64::MAX,
            Some(index) => {
                let (_, &mut weakest_us, _) = answered_us.select_nth_unstable_by(index, |a, b| b.cmp(a));
                weakest_us + self.config.peers.lease_us
            }
        };
    }

    /// When the patience of an operation that arrives now ends.
    pub fn patience_us(&self) -> u64 {
        self.now.mono_us + self.config.patience_us
    }

    /// Tells the controller.
    pub fn report(&mut self, report: Report) {
        self.reports.push(report);
    }

    /// Asks `node` for its table soon.
    pub fn pull_table(&mut self, node: NodeId) {
        self.pulls.insert(node);
    }

    /// Data members that hold copies or should: those that left are not among them.
    fn data_members(&self, mut counts: impl FnMut(MemberStatus) -> bool) -> usize {
        self.table.members.values().filter(|member| member.weight > 0 && counts(member.status)).count()
    }

    /// Copies that a write needs, of the table in force.
    pub fn copies_min(&self) -> usize {
        self.copies_min
    }

    /// Replaces the table in force.
    pub(super) fn set_table(&mut self, table: Arc<Table>) -> Arc<Table> {
        self.peers.table_version = table.version;
        let before = std::mem::replace(&mut self.table, table);
        self.copies_min = self.table.copies_needed();
        before
    }

    /// Whether the table lists the full number of complete copies on live nodes, so that one here is
    /// superfluous. A node that the table counts out (it was away) still counts itself: it is here.
    pub fn enough_copies(&self, assignment: &Assignment) -> bool {
        let live = assignment.isr.iter().filter(|&&node| self.table.is_live(node)).count();
        let up = self.data_members(|status| status == MemberStatus::Up);
        let me_up = self.table.members.get(&self.me).is_some_and(|me| me.status == MemberStatus::Up);
        live >= usize::from(self.table.settings.replicas).min(up + usize::from(!me_up))
    }

    /// Whether `bytes` more fit into the memory bound.
    pub fn room_for(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        (self.config.bytes_max == 0 || self.arena.bytes_used() + bytes <= self.config.bytes_max)
            && self.arena.bytes_left() > bytes
    }

    /// How much has to go for `bytes` more and a little room under the bound; 0 when nothing may be evicted,
    /// and for what could never fit.
    pub fn eviction_goal(&self, bytes: usize) -> u64 {
        let target = self.config.bytes_max - self.config.bytes_max / 64;
        if bytes as u64 >= target || self.config.eviction == super::store::Eviction::NoEviction {
            return 0;
        }
        (self.arena.bytes_used() + bytes as u64).saturating_sub(target)
    }

    /// Whether the budget of snapshot bytes, and the window to `node`, have room.
    pub fn snapshot_room(&self, node: NodeId) -> bool {
        // Chunks are sent when ticks come: what is saved up until the next may go at once.
        const AHEAD_US: u64 = 20_000;
        let affordable = self.snapshot_paid_us <= self.now.mono_us + AHEAD_US;
        affordable
            && self.snapshot_in_flight.get(&node).copied().unwrap_or(0) < self.config.snapshot_window_bytes
    }

    /// A chunk left for `node`.
    pub fn snapshot_sent(&mut self, node: NodeId, bytes: usize) {
        *self.snapshot_in_flight.entry(node).or_default() += bytes;
        let cost_us = (bytes as u64 * 1_000_000).checked_div(self.config.snapshot_bytes_per_s);
        if let Some(cost_us) = cost_us {
            self.snapshot_paid_us = self.snapshot_paid_us.max(self.now.mono_us) + cost_us;
        }
        self.stats.snapshot_bytes_sent += bytes as u64;
    }

    /// A chunk was applied at `node`, or will never be.
    pub fn snapshot_landed(&mut self, node: NodeId, bytes: usize) {
        if let Some(in_flight) = self.snapshot_in_flight.get_mut(&node) {
            *in_flight = in_flight.saturating_sub(bytes);
        }
    }

    /// A snapshot found no room in the window; it goes on when there is.
    pub fn starve(&mut self, node: NodeId, partition: PartitionId) {
        if !self.starved.contains(&(node, partition)) {
            self.starved.push_back((node, partition));
        }
    }

    /// Gives up a snapshot under way.
    pub fn abandon_sending(&mut self, node: NodeId, sending: Option<Box<Sending>>) {
        if let Some(sending) = sending {
            self.snapshot_landed(node, sending.in_flight_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_keep_to_their_budget_and_windows() {
        let config = EngineConfig {
            snapshot_bytes_per_s: 1_000_000,
            snapshot_window_bytes: 50_000,
            ..EngineConfig::default()
        };
        let mut shared = Shared::new(NodeId(1), config, 1);
        let (mut sent, chunk) = (0u64, 10_000usize);
        for tick in 0..100 {
            shared.now.mono_us = 1_000_000 + tick * 20_000;
            // Two receivers share the budget.
            for node in [NodeId(2), NodeId(3)] {
                while shared.snapshot_room(node) {
                    shared.snapshot_sent(node, chunk);
                    shared.snapshot_landed(node, chunk);
                    sent += chunk as u64;
                }
            }
        }
        assert!((1_900_000..=2_100_000).contains(&sent), "{sent} bytes in two seconds");
        shared.now.mono_us += 60_000_000;
        for _ in 0..5 {
            shared.config.snapshot_bytes_per_s = 0;
            assert!(shared.snapshot_room(NodeId(2)));
            shared.snapshot_sent(NodeId(2), chunk);
        }
        assert!(!shared.snapshot_room(NodeId(2)), "the window is full");
        assert!(shared.snapshot_room(NodeId(3)));
    }
}
