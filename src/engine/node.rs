//! The engine of one node: every event goes in here, everything to be done comes out.
//!
//! What it does is in `node/`, one job a file.
//!
//! Call order, for drivers and the simulator: any number of inputs ([`Engine::frame`],
//! [`Engine::submit`], …), then [`Engine::flush`], then [`Engine::poll`] until it is empty.
//! [`Engine::tick`] at [`Engine::next_wake_us`] at the latest. `now` is read *after* the input it
//! comes with was received: that makes the lease check of a read sound.

mod installing;
mod messages;
mod orders;
mod routing;
mod timers;

pub use timers::OnlyHere;

use super::config::EngineConfig;
use super::controller::{Controller, ControllerConfig, ControllerOutput, ControllerStatus, Report};
use super::frame::Class;
use super::ids::{Epoch, Incarnation, NodeId, PartitionId, TableVersion};
use super::membership::{GossipId, Membership, MembershipConfig, MembershipCounters, MembershipOutput};
use super::message::{self, Message, Records, Refusal, Unavailable};
use super::mutants::Mutant;
use super::op::{EncodedOp, Op, OwnedOp, Submitted, Ticket};
use super::partition::primary::{Asker, ReplyBytes};
use super::partition::{Copy, Partition};
use super::peers::Peers;
use super::record;
use super::router::Router;
use super::shared::{Parked, Shared};
use super::stats::Stats;
use super::store::touch_entry;
use super::table::{Member, Table, TableChange, TableEntry};
use super::time::Now;
use arrayvec::ArrayVec;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// What an engine wants done outside.
#[derive(Debug)]
pub enum Output {
    /// Put a frame on the link to a peer.
    Send(NodeId, Class, Bytes),
    /// Send a gossip datagram.
    Datagram(NodeId, SocketAddr, Bytes),
    /// An operation is answered.
    Complete(Ticket, ReplyBytes),
    /// Propose an entry to the agreed log (only while leading).
    Propose(TableEntry),
    /// Keep a link to this peer.
    Maintain(NodeId, SocketAddr),
    /// No longer keep a link to this peer.
    Forget(NodeId),
    /// Who should vote in the agreed log (only while leading).
    Voters(Vec<NodeId>),
    /// Start an agreed log of one voter, this node, from this table; drop any earlier one.
    Form(Box<Table>),
    /// The table is of a later incarnation: drop the agreed log of the earlier one.
    Rejoined,
    /// The table changed.
    TableChanged,
    /// This node has left: nothing names it any more.
    Left,
}

/// The engine of one node.
pub struct Engine {
    shared: Shared,
    partitions: Vec<Partition>,
    router: Router,
    membership: Membership,
    controller: Controller,
    member: Member,
    leading: bool,
    leader_since_us: u64,
    leader_lost_us: Option<u64>,
    leaving: bool,
    left: bool,
    /// When it was last said what would be lost by leaving.
    warned_us: u64,
    pending_seals: Vec<PendingSeal>,
    outputs: VecDeque<Output>,
    maintained: BTreeMap<NodeId, SocketAddr>,
    map_wanted: Vec<super::table::MapDefinition>,
    last_join_us: u64,
    last_pull_us: u64,
    last_slow_us: u64,
    last_report_us: u64,
    /// Who should vote, as last ordered, and when.
    voters_ordered: (Vec<NodeId>, u64),
    sweep_cursor: usize,
    /// Room for a reply that goes elsewhere.
    scratch: Vec<u8>,
    digest_cursor: usize,
    digest_owed_us: u64,
    tick_us: u64,
    /// Whether nothing was due sooner than the next slow tick when it was last looked.
    at_rest: bool,
    started_us: u64,
}

struct PendingSeal {
    controller: NodeId,
    deposed: NodeId,
    /// Whether the controller wants to know of former copies.
    salvage: bool,
    partitions: Vec<(PartitionId, Epoch)>,
    ready_us: u64,
}

/// Messages of a frame that are decoded before the first is acted upon.
const AHEAD_MAX: usize = 64;
const TICK_US: u64 = 20_000;
const SLOW_TICK_US: u64 = 100_000;
/// Between two ticks of a lone node at rest.
const REST_TICK_US: u64 = 250_000;
const JOIN_REPEAT_US: u64 = 500_000;
const PULL_REPEAT_US: u64 = 100_000;
const VOTERS_REPEAT_US: u64 = 2_000_000;

impl Engine {
    /// A node that knows nobody. `member` is what it says of itself; `entropy` decides its choices.
    pub fn new(member: Member, config: EngineConfig, membership: MembershipConfig, entropy: u64) -> Engine {
        let me = member.node;
        Engine {
            shared: Shared::new(me, config, entropy),
            partitions: Vec::new(),
            router: Router::default(),
            membership: Membership::new(me, member.quic, membership, entropy ^ 0x5117_AB1E),
            controller: Controller::new(ControllerConfig {
                mutation: config.mutation,
                ..ControllerConfig::new(me)
            }),
            member,
            leading: false,
            leader_since_us: 0,
            leader_lost_us: None,
            leaving: false,
            left: false,
            warned_us: 0,
            pending_seals: Vec::new(),
            outputs: VecDeque::new(),
            maintained: BTreeMap::new(),
            map_wanted: Vec::new(),
            last_join_us: 0,
            last_pull_us: 0,
            last_slow_us: 0,
            last_report_us: 0,
            voters_ordered: (Vec::new(), 0),
            sweep_cursor: 0,
            scratch: Vec::new(),
            digest_cursor: 0,
            digest_owed_us: 0,
            tick_us: 0,
            at_rest: false,
            started_us: 0,
        }
    }

    // ---- What drivers and pages look at ----

    /// This node.
    pub fn me(&self) -> NodeId {
        self.shared.me
    }
    /// What this node says of itself.
    pub fn member(&self) -> &Member {
        &self.member
    }
    /// The table in force here; of incarnation 0 before the node is part of a cluster.
    pub fn table(&self) -> &Arc<Table> {
        &self.shared.table
    }
    /// The other nodes.
    pub fn peers(&self) -> &Peers {
        &self.shared.peers
    }
    /// Counters.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }
    /// Counters of gossip.
    pub fn membership_counters(&self) -> MembershipCounters {
        self.membership.counters()
    }
    /// Whether gossip takes `node` for alive.
    pub fn is_alive(&self, node: NodeId) -> bool {
        node == self.shared.me || self.membership.is_alive(node)
    }
    /// Where healing and balancing stand; empty unless this node leads.
    pub fn controller_status(&self) -> ControllerStatus {
        self.controller.status()
    }
    /// Whether this node leads the agreed log.
    pub fn is_leading(&self) -> bool {
        self.leading
    }
    /// The partitions here.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }
    /// A partition to be tampered with, and what it shares with the others.
    #[cfg(test)]
    pub(crate) fn partition_mut(&mut self, id: PartitionId) -> (&mut Partition, &mut Shared) {
        (&mut self.partitions[id.index()], &mut self.shared)
    }
    /// Entry memory in bytes.
    pub fn bytes_used(&self) -> u64 {
        self.shared.arena.bytes_used()
    }
    /// Bounds in force; memory bound and eviction may be changed while running.
    pub fn config_mut(&mut self) -> &mut EngineConfig {
        &mut self.shared.config
    }
    /// Bounds in force.
    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }
    /// Keys here as primary that expire at some time.
    pub fn keys_expiring(&self) -> u64 {
        let own = self.partitions.iter().filter(|partition| partition.is_primary());
        own.filter_map(|partition| partition.copy.as_ref()).map(|copy| copy.shard.expiring() as u64).sum()
    }
    /// Operations forwarded or parked.
    pub fn waiting(&self) -> usize {
        self.router.len()
    }
    /// Tells the engine how many clients are connected, for status pages.
    pub fn set_clients(&mut self, clients: u32) {
        self.shared.peers.load.clients = clients;
    }
    /// A pseudo-random number from the engine's own sequence.
    pub fn random(&mut self) -> u64 {
        self.shared.random()
    }

    /// Whether every copy that this node should hold is in sync.
    pub fn is_ready(&self) -> bool {
        let table = &self.shared.table;
        table.incarnation.0 != 0
            && table.is_live(self.shared.me)
            && table.partitions.iter().zip(&self.partitions).all(|(assignment, partition)| {
                assignment.epoch == Epoch(0)
                    || (!assignment.learners.contains(&self.shared.me)
                        && (!assignment.isr.contains(&self.shared.me) || partition.copy.is_some()))
            })
            && table.partitions.iter().all(|assignment| assignment.epoch.0 > 0)
    }

    // ---- Forming, joining, leaving ----

    /// Starts a cluster of this one node.
    pub fn form(&mut self, now: Now, incarnation: Incarnation, settings: super::table::ClusterSettings) {
        self.shared.now = now;
        let mut table = Table::new(incarnation, settings);
        table.apply(&[TableChange::PutMember(self.member.clone())]);
        self.outputs.push_back(Output::Form(Box::new(table)));
    }

    /// Begins to leave: partitions are handed over; [`Output::Left`] follows.
    pub fn leave(&mut self, now: Now) {
        self.shared.now = now;
        self.leaving = true;
        self.last_report_us = 0;
        self.tick_membership_of_table(now);
    }

    /// Whether this node was asked to leave and has not left yet.
    pub fn is_leaving(&self) -> bool {
        self.leaving && !self.left
    }

    /// Partitions that still name this node, for the progress of leaving.
    pub fn held(&self) -> usize {
        self.shared.table.partitions.iter().filter(|assignment| assignment.holds(self.shared.me)).count()
    }

    /// Asks for a named map to be defined; it shows in the table when it is.
    pub fn define_map(&mut self, now: Now, definition: super::table::MapDefinition) {
        self.shared.now = now;
        if self.map_wanted.len() < 1_024 {
            self.map_wanted.push(definition.clone());
            self.shared.report(Report::DefineMap(definition));
            self.settle();
        }
    }

    /// An operator accepts the loss of what is missing from partitions without a complete copy: they go
    /// on from the best former one, or empty.
    pub fn accept_loss(&mut self, now: Now) {
        self.shared.now = now;
        self.shared.report(Report::AcceptLoss);
        self.settle();
    }

    // ---- Inputs ----

    /// The link to a peer came up.
    pub fn link_up(&mut self, now: Now, peer: NodeId, quic: SocketAddr, incarnation: Incarnation) {
        self.shared.now = now;
        self.shared.peers.link_up(peer, now.mono_us);
        self.controller.link(now, peer, true);
        if self.shared.table.incarnation.0 == 0 || incarnation > self.shared.table.incarnation {
            self.shared.pull_table(peer);
        }
        self.membership.link_live(peer, now.mono_us);
        if !self.membership.is_alive(peer) {
            self.membership.join(now, GossipId { node: peer, generation: 0, quic });
        }
        let Engine { shared, partitions, .. } = self;
        for partition in partitions.iter_mut() {
            partition.relinked(shared, peer);
        }
        self.last_join_us = 0;
        let parked = self.router.parked_partitions();
        self.shared.woken.extend(parked);
        self.settle();
    }

    /// The link to a peer was lost.
    pub fn link_down(&mut self, now: Now, peer: NodeId) {
        self.shared.now = now;
        self.shared.peers.link_down(peer);
        self.controller.link(now, peer, false);
        self.unanswered(peer);
        self.settle();
    }

    /// A gossip datagram.
    pub fn datagram(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        self.shared.now = now;
        self.shared.peers.heard(from, now.mono_us);
        self.membership.datagram(now, from, bytes);
        self.drain_membership();
        self.settle();
    }

    /// A frame from a peer. Broken or foreign ones are counted and dropped.
    pub fn frame(&mut self, now: Now, from: NodeId, frame: &Bytes) {
        self.shared.now = now;
        let Some((incarnation, mut rest)) = message::open(frame) else {
            self.shared.stats.frames_broken += 1;
            return;
        };
        self.shared.peers.heard(from, now.mono_us);
        self.membership.link_live(from, now.mono_us);
        let foreign = incarnation != self.shared.table.incarnation;
        let mut batch: Option<(message::Batch, Vec<(PartitionId, Refusal)>)> = None;
        let mut ahead = Vec::new();
        while !rest.is_empty() {
            let broken = decode_ahead(&mut rest, &mut ahead);
            if !foreign {
                self.touch_keys_of(&ahead);
            }
            for message in ahead.drain(..) {
                self.take(from, frame, foreign.then_some(incarnation), message, &mut batch);
            }
            if let Err(error) = broken {
                self.shared.stats.frames_broken += 1;
                tracing::warn!(%from, %error, "a frame that doesn't decode");
                // An ack would say that what is lost of it was taken.
                batch = None;
                break;
            }
        }
        if let Some((head, refused)) = batch {
            self.shared.peers.grant(from, now.mono_us, &head, refused);
        }
        self.settle();
    }

    /// Takes a frame's next message; `foreign` is the incarnation of one that is of another. The batch that
    /// it is part of is answered when the next begins, or the frame ends.
    fn take(
        &mut self,
        from: NodeId,
        frame: &Bytes,
        foreign: Option<Incarnation>,
        message: Message<'_>,
        batch: &mut Option<(message::Batch, Vec<(PartitionId, Refusal)>)>,
    ) {
        if !message.is_possible() {
            self.shared.stats.refused.sequence += 1;
            return;
        }
        if let Some(incarnation) = foreign
            && !matches!(message, Message::Table(_) | Message::TablePull { .. } | Message::Join { .. })
        {
            self.shared.stats.refused.incarnation += 1;
            if incarnation > self.shared.table.incarnation {
                self.shared.pull_table(from);
            }
            return;
        }
        match message {
            Message::Batch(head) => {
                if let Some((head, refused)) = batch.take() {
                    self.shared.peers.grant(from, self.shared.now.mono_us, &head, refused);
                }
                if self.is_unheard_of(head.table_version) {
                    self.shared.stats.refused.sequence += 1;
                    return;
                }
                if head.table_version > self.shared.table.version {
                    self.shared.pull_table(from);
                }
                self.doubt_leader(from, head.term, head.leader);
                self.learn_leader(head.term, head.leader);
                *batch = Some((head, Vec::new()));
            }
            Message::Records(records) => {
                let refusal = match self.partitions.get_mut(records.partition.index()) {
                    Some(partition) => partition.records(&mut self.shared, from, frame, &records).err(),
                    None => {
                        self.shared.stats.refused.partition += 1;
                        Some(Refusal::Unknown)
                    }
                };
                if let (Some(refusal), Some((_, refused))) = (refusal, batch) {
                    refused.push((records.partition, refusal));
                }
            }
            other => self.message(from, other),
        }
    }

    /// The agreed log applied an entry, or started from a table.
    pub fn table_committed(&mut self, now: Now, table: Arc<Table>) {
        self.shared.now = now;
        let before = self.shared.table.clone();
        self.install(table.clone());
        if self.leading && table.incarnation == self.shared.table.incarnation {
            self.controller.table_applied(now, table);
            self.push_table(Some(&before));
        }
        self.settle();
    }

    /// Who leads the agreed log and who votes, as this node's part of it knows.
    pub fn leadership(&mut self, now: Now, term: u64, leader: Option<NodeId>, voters: Vec<NodeId>) {
        self.shared.now = now;
        self.controller.set_voters(now, voters);
        let me = self.shared.me;
        let leading = leader == Some(me);
        // Whoever was elected knows better than what it heard.
        if leading || (leader.is_some() && term >= self.shared.peers.term) {
            self.shared.peers.term = term;
            self.shared.peers.leader = leader;
            self.leader_lost_us = None;
        }
        if leading && !self.leading {
            tracing::info!(term, "leading the agreed log");
            self.leading = true;
            self.leader_since_us = now.mono_us;
            self.voters_ordered = (Vec::new(), 0);
            let table = self.shared.table.clone();
            self.controller.lead(now, table);
            let linked: Vec<NodeId> =
                self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
            for node in linked {
                self.controller.link(now, node, true);
            }
            self.push_table(None);
        } else if !leading && self.leading {
            tracing::info!(term, "no longer leading the agreed log");
            self.leading = false;
            self.controller.resign();
        }
        self.settle();
    }

    /// Runs an operation of a local client, here or at its primary.
    ///
    /// `Done`: the reply was appended to `out`. `Pending`: it comes as [`Output::Complete`].
    #[inline(always)]
    pub fn submit(&mut self, now: Now, ticket: Ticket, op: &Op<'_>, out: &mut Vec<u8>) -> Submitted {
        self.shared.now = now;
        let deadline_us = self.shared.patience_us();
        let attempt = if self.router.has_parked(op.partition) {
            Attempt::NotNow(Unavailable::ChangingHands)
        } else {
            self.attempt(op, Asker::Local(ticket), deadline_us, out)
        };
        match attempt {
            Attempt::Answered => Submitted::Done,
            Attempt::Waiting(bytes) => Submitted::Pending(bytes),
            Attempt::NotNow(reason) => self.park(ticket, op, deadline_us, reason, out),
        }
    }

    /// Parks an operation of a local client that can't run now.
    #[inline(never)]
    fn park(
        &mut self,
        ticket: Ticket,
        op: &Op<'_>,
        deadline_us: u64,
        reason: Unavailable,
        out: &mut Vec<u8>,
    ) -> Submitted {
        if self.router.len() >= self.shared.config.waiting_max {
            append_error(out, Unavailable::ChangingHands.resp_error());
            return Submitted::Done;
        }
        self.shared.stats.parked += 1;
        let (asker, op) = (Asker::Local(ticket), OwnedOp::new(op));
        self.router.park(Parked { asker, op, deadline_us, reason });
        Submitted::Pending(0)
    }

    /// Reads what operations on these keys (partition and [`KeyRef::hash`](super::store::KeyRef::hash)) will
    /// read, one level of pointers after the other, so that the cache misses of a batch overlap. Changes
    /// nothing.
    pub fn touch(&self, keys: &[(PartitionId, u64)], writes: bool) {
        // What belongs elsewhere is sent there, whether there is a copy here or not.
        self.touch_where(keys, writes, Partition::is_primary);
    }

    fn touch_where(&self, keys: &[(PartitionId, u64)], writes: bool, of: impl Fn(&Partition) -> bool) {
        const AT_A_TIME: usize = 64;
        for keys in keys.chunks(AT_A_TIME) {
            let mut read = 0u64;
            let mut found: ArrayVec<(&Partition, &Copy, u64), AT_A_TIME> = ArrayVec::new();
            for &(partition, hash) in keys {
                if let Some(partition) = self.partitions.get(partition.index())
                    && of(partition)
                    && let Some(copy) = &partition.copy
                {
                    read ^= partition.promised.0 ^ copy.shard.touch();
                    found.push((partition, copy, hash));
                }
            }
            // Where to read is found first, then everything is read in loops that do nothing else: the fewer
            // instructions between two misses, the more of them are under way at once.
            let mut slots = [&[][..]; AT_A_TIME];
            for (slots, (partition, copy, hash)) in slots.iter_mut().zip(&found) {
                *slots = copy.shard.slots_of(*hash);
                read ^= partition.touch_role();
                if writes {
                    read ^= copy.tail.bytes() as u64 ^ copy.shard.touch_digest(*hash);
                }
            }
            for slots in &slots[..found.len()] {
                read ^= slots.first().unwrap_or(&0) ^ slots.last().unwrap_or(&0);
            }
            let mut entries = [&[][..]; AT_A_TIME];
            for (entry, (_, copy, hash)) in entries.iter_mut().zip(&found) {
                *entry = copy.shard.entry_of(&self.shared.arena, *hash);
            }
            for entry in &entries[..found.len()] {
                read ^= touch_entry(entry);
            }
            std::hint::black_box(read);
        }
    }

    /// As [`Engine::touch`], for the records and forwarded operations of a frame's next messages.
    fn touch_keys_of(&self, messages: &[Message<'_>]) {
        let mut keys: SmallVec<[(PartitionId, u64); AHEAD_MAX]> = SmallVec::new();
        let mut writes = false;
        for message in messages {
            match *message {
                Message::Records(Records { partition, mut records, .. }) => {
                    writes = true;
                    let limits = &self.shared.config.limits;
                    while !records.is_empty()
                        && let Ok(effect) = record::decode(&mut records, limits)
                    {
                        keys.extend(effect.key_ref().map(|key| (partition, key.hash)));
                    }
                }
                Message::Forward { op, .. } => {
                    let op = EncodedOp(op);
                    writes |= op.writes();
                    keys.extend(op.first_key().map(|key| (op.partition(), key.hash)));
                }
                _ => {}
            }
        }
        if keys.len() > 1 {
            self.touch_where(&keys, writes, |_| true);
        }
    }

    /// When [`Engine::tick`] wants to be called next.
    pub fn next_wake_us(&self) -> u64 {
        self.tick_us + if self.at_rest { REST_TICK_US } else { TICK_US }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.shared.now = now;
        self.tick_us = now.mono_us;
        if self.started_us == 0 {
            self.started_us = now.mono_us;
        }
        self.membership.tick(now);
        self.drain_membership();
        self.shared.peers.expire_batches(now.mono_us);
        self.tick_seals();
        self.tick_partitions();
        self.tick_parked();
        if self.leading {
            self.controller.tick(now);
        }
        if now.mono_us >= self.last_slow_us + SLOW_TICK_US {
            self.last_slow_us = now.mono_us;
            self.tick_slow(now);
        }
        self.tick_expiry();
        self.settle();
    }

    /// Whether [`Engine::flush`] or [`Engine::poll`] have anything to do.
    pub fn wants_flush(&self) -> bool {
        let shared = &self.shared;
        !shared.dirty.is_empty()
            || !shared.completions.is_empty()
            || !self.outputs.is_empty()
            || !shared.woken.is_empty()
            || !shared.resubmit.is_empty()
            || !shared.reports.is_empty()
            || !shared.pulls.is_empty()
            || shared.peers.wants_flush()
    }

    /// Replicates what was executed and assembles what may leave.
    pub fn flush(&mut self, now: Now) {
        self.shared.now = now;
        let Engine { shared, partitions, .. } = self;
        while let Some(id) = shared.dirty.pop() {
            partitions[id.index()].flush(shared);
        }
        self.settle();
        self.shared.peers.flush(now.mono_us);
    }

    /// The next thing to do outside.
    pub fn poll(&mut self) -> Option<Output> {
        if let Some((ticket, reply)) = self.shared.completions.pop_front() {
            return Some(Output::Complete(ticket, reply));
        }
        if let Some((node, class, frame)) = self.shared.peers.poll() {
            return Some(Output::Send(node, class, frame));
        }
        self.outputs.pop_front()
    }

    // ---- Settling: work that inputs leave behind ----

    fn drain_membership(&mut self) {
        let now = self.shared.now;
        while let Some(output) = self.membership.poll() {
            match output {
                MembershipOutput::Send { to, addr, bytes } => {
                    self.outputs.push_back(Output::Datagram(to, addr, bytes))
                }
                MembershipOutput::Up(node, addr) => {
                    tracing::info!(%node, %addr, "gossip: up");
                    self.controller.member_heard(now, node, true);
                    if let std::collections::btree_map::Entry::Vacant(entry) = self.maintained.entry(node) {
                        entry.insert(addr);
                        self.outputs.push_back(Output::Maintain(node, addr));
                    }
                }
                MembershipOutput::Suspect(node) => tracing::debug!(%node, "gossip: suspect"),
                MembershipOutput::Down(node) => {
                    tracing::info!(%node, "gossip: down");
                    self.controller.member_heard(now, node, false);
                    if !self.shared.table.members.contains_key(&node)
                        && self.maintained.remove(&node).is_some()
                    {
                        self.outputs.push_back(Output::Forget(node));
                    }
                }
            }
        }
    }

    fn drain_controller(&mut self) {
        while let Some(output) = self.controller.poll() {
            match output {
                ControllerOutput::Propose(entry) => self.outputs.push_back(Output::Propose(entry)),
                ControllerOutput::Send { to, order } if to == self.shared.me => self.order(to, order),
                ControllerOutput::Send { to, order } => {
                    let term = self.shared.peers.term;
                    self.shared.peers.send_control(to, &Message::Order { term, order })
                }
            }
        }
    }

    fn settle(&mut self) {
        // Each round can leave work for the next; progress is bounded by what is waiting.
        for _ in 0..8 {
            self.send_reports();
            self.drain_controller();
            let woken = std::mem::take(&mut self.shared.woken);
            let resubmit = std::mem::take(&mut self.shared.resubmit);
            if woken.is_empty() && resubmit.is_empty() && self.shared.reports.is_empty() {
                break;
            }
            for parked in resubmit {
                self.run(parked);
            }
            for id in woken {
                let mut queue = self.router.unpark(id);
                if queue.len() > 1 && self.shared.config.mutation.is(Mutant::LoseLastQueued) {
                    queue.pop_back();
                }
                for parked in queue {
                    if self.shared.now.mono_us >= parked.deadline_us {
                        self.expire(parked.asker, parked.reason);
                    } else if self.router.has_parked(id) {
                        // One before it still waits: keep the order.
                        self.router.park(parked);
                    } else {
                        self.run(parked);
                    }
                }
            }
        }
        self.pump_starved();
        self.send_pulls();
    }

    fn pump_starved(&mut self) {
        for _ in 0..self.shared.starved.len() {
            let Some((node, id)) = self.shared.starved.pop_front() else { break };
            if !self.shared.snapshot_room(node) {
                self.shared.starved.push_back((node, id));
                continue;
            }
            self.partitions[id.index()].pump_to(&mut self.shared, node);
        }
    }

    fn send_pulls(&mut self) {
        if self.shared.pulls.is_empty() || self.shared.now.mono_us < self.last_pull_us + PULL_REPEAT_US {
            return;
        }
        self.last_pull_us = self.shared.now.mono_us;
        let (incarnation, version) = (self.shared.table.incarnation, self.shared.table.version);
        for node in std::mem::take(&mut self.shared.pulls) {
            self.shared.peers.send_control(node, &Message::TablePull { incarnation, version });
        }
    }

    /// Whether this node's table is at least this version, for tests and pages.
    pub fn has_table(&self, incarnation: Incarnation, version: TableVersion) -> bool {
        (self.shared.table.incarnation, self.shared.table.version) >= (incarnation, version)
    }
}

/// Decodes the next messages of a frame, so many that what they need can be read together. What isn't for the
/// hot path may be large, and is the last of them.
///
/// # Errors
/// The message after those taken doesn't decode.
fn decode_ahead<'a>(rest: &mut &'a [u8], ahead: &mut Vec<Message<'a>>) -> Result<(), postcard::Error> {
    while ahead.len() < AHEAD_MAX && !rest.is_empty() {
        let message = message::next(rest)?;
        let is_hot = matches!(
            message,
            Message::Batch(_)
                | Message::Ack(_)
                | Message::Records(_)
                | Message::Forward { .. }
                | Message::ForwardReply { .. }
        );
        ahead.push(message);
        if !is_hot {
            break;
        }
    }
    Ok(())
}

enum Attempt {
    Answered,
    Waiting(usize),
    NotNow(Unavailable),
}

fn append_error(out: &mut Vec<u8>, error: &str) {
    out.push(b'-');
    out.extend_from_slice(error.as_bytes());
    out.extend_from_slice(b"\r\n");
}
