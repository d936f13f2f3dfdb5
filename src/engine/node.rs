//! The engine of one node: every event goes in here, everything to be done comes out.
//!
//! Call order, for drivers and the simulator: any number of inputs ([`Engine::frame`],
//! [`Engine::submit`], …), then [`Engine::flush`], then [`Engine::poll`] until it is empty.
//! [`Engine::tick`] at [`Engine::next_wake_us`] at the latest. `now` is read *after* the input it
//! comes with was received: that makes the lease check of a read sound.

use super::command::Flags;
use super::config::EngineConfig;
use super::controller::{
    self, Controller, ControllerConfig, ControllerOutput, ControllerStatus, Order, Report, Sealed,
    SealedPartition,
};
use super::frame::Class;
use super::ids::{Epoch, Incarnation, NodeId, PartitionId, TableVersion};
use super::membership::{GossipId, Membership, MembershipConfig, MembershipCounters, MembershipOutput};
use super::message::{self, ForwardOutcome, Message, Refusal, Unavailable};
use super::mutants::Mutant;
use super::op::{Op, OwnedOp, Submitted, Ticket};
use super::partition::primary::{Asker, Executed, IN_DOUBT, ReplyBytes};
use super::partition::{Copy, Partition, Role};
use super::peers::Peers;
use super::router::{Forwarded, Router};
use super::shared::{Parked, Shared};
use super::stats::Stats;
use super::table::{Assignment, Member, MemberStatus, Table, TableChange, TableEntry};
use super::time::Now;
use bytes::Bytes;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    pending_seals: Vec<PendingSeal>,
    outputs: VecDeque<Output>,
    maintained: BTreeMap<NodeId, SocketAddr>,
    map_requests: BTreeSet<String>,
    map_wanted: Vec<super::table::MapDefinition>,
    last_join_us: u64,
    last_pull_us: u64,
    last_slow_us: u64,
    last_report_us: u64,
    last_voters: Vec<NodeId>,
    last_voters_us: u64,
    sweep_cursor: usize,
    digest_cursor: usize,
    digest_owed_us: u64,
    tick_us: u64,
    started_us: u64,
}

struct PendingSeal {
    controller: NodeId,
    deposed: NodeId,
    partitions: Vec<(PartitionId, Epoch)>,
    ready_us: u64,
}

/// What the processor takes from memory at a time.
const CACHE_LINE_BYTES: usize = 64;
const TICK_US: u64 = 20_000;
const SLOW_TICK_US: u64 = 100_000;
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
            pending_seals: Vec::new(),
            outputs: VecDeque::new(),
            maintained: BTreeMap::new(),
            map_requests: BTreeSet::new(),
            map_wanted: Vec::new(),
            last_join_us: 0,
            last_pull_us: 0,
            last_slow_us: 0,
            last_report_us: 0,
            last_voters: Vec::new(),
            last_voters_us: 0,
            sweep_cursor: 0,
            digest_cursor: 0,
            digest_owed_us: 0,
            tick_us: 0,
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
            self.map_requests.insert(definition.name.clone());
            self.map_wanted.push(definition.clone());
            self.shared.report(Report::DefineMap(definition));
            self.settle();
        }
    }

    /// An operator accepts the loss of partitions without a live copy.
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
        while !rest.is_empty() {
            let message = match message::next(&mut rest) {
                Ok(message) => message,
                Err(error) => {
                    self.shared.stats.frames_broken += 1;
                    tracing::warn!(%from, %error, "a frame that doesn't decode");
                    break;
                }
            };
            if foreign
                && !matches!(message, Message::Table(_) | Message::TablePull { .. } | Message::Join { .. })
            {
                self.shared.stats.frames_foreign += 1;
                if incarnation > self.shared.table.incarnation {
                    self.shared.pull_table(from);
                }
                continue;
            }
            match message {
                Message::Batch(head) => {
                    if let Some((head, refused)) = batch.take() {
                        self.shared.peers.grant(from, now.mono_us, &head, refused);
                    }
                    if head.table_version > self.shared.table.version {
                        self.shared.pull_table(from);
                    }
                    self.learn_leader(head.term, head.leader);
                    batch = Some((head, Vec::new()));
                }
                Message::Records(records) => {
                    let refusal = match self.partitions.get_mut(records.partition.index()) {
                        Some(partition) => partition.records(&mut self.shared, from, frame, &records).err(),
                        None => Some(Refusal::Unknown),
                    };
                    if let (Some(refusal), Some((_, refused))) = (refusal, &mut batch) {
                        refused.push((records.partition, refusal));
                    }
                }
                other => self.message(from, other),
            }
        }
        if let Some((head, refused)) = batch {
            self.shared.peers.grant(from, now.mono_us, &head, refused);
        }
        self.settle();
    }

    /// The agreed log applied an entry, or started from a table.
    pub fn table_committed(&mut self, now: Now, table: Arc<Table>) {
        self.shared.now = now;
        self.install(table.clone());
        if self.leading && table.incarnation == self.shared.table.incarnation {
            self.controller.table_applied(now, table);
            self.push_table();
        }
        self.settle();
    }

    /// Who leads the agreed log, as this node's part of it knows.
    pub fn leadership(&mut self, now: Now, term: u64, leader: Option<NodeId>) {
        self.shared.now = now;
        let me = self.shared.me;
        if leader.is_some() && term >= self.shared.peers.term {
            self.shared.peers.term = term;
            self.shared.peers.leader = leader;
            self.leader_lost_us = None;
        }
        let leading = leader == Some(me);
        if leading && !self.leading {
            tracing::info!(term, "leading the agreed log");
            self.leading = true;
            self.leader_since_us = now.mono_us;
            self.last_voters_us = 0;
            let table = self.shared.table.clone();
            self.controller.lead(now, table);
            let linked: Vec<NodeId> =
                self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
            for node in linked {
                self.controller.link(now, node, true);
            }
            self.push_table();
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
            Attempt::Waiting => Submitted::Pending,
            Attempt::NotNow(reason) => {
                if self.router.len() >= self.shared.config.waiting_max {
                    append_error(out, Unavailable::ChangingHands.resp_error());
                    return Submitted::Done;
                }
                self.shared.stats.parked += 1;
                self.router.park(Parked {
                    asker: Asker::Local(ticket),
                    op: OwnedOp::new(op),
                    deadline_us,
                    reason,
                });
                Submitted::Pending
            }
        }
    }

    /// Reads what operations on these keys (partition and [`KeyRef::hash`](super::store::KeyRef::hash)) will
    /// read, one level of pointers after the other, so that the cache misses of a batch overlap. Changes
    /// nothing.
    pub fn touch(&self, keys: &[(PartitionId, u64)]) {
        let mut read = 0u64;
        let mut found: SmallVec<[(&Partition, &Copy, u64); 64]> = SmallVec::new();
        for &(partition, hash) in keys {
            if let Some(partition) = self.partitions.get(partition.index()) {
                read ^= partition.touch();
                if let Some(copy) = &partition.copy {
                    found.push((partition, copy, hash));
                }
            }
        }
        for (partition, copy, hash) in &found {
            read ^= partition.touch_role() ^ copy.shard.touch_index(*hash);
        }
        // Where to read is found first, then everything is read in loops that do nothing else: the fewer
        // instructions between two misses, the more of them are under way at once.
        let slots: SmallVec<[&[u64]; 64]> =
            found.iter().map(|(_, copy, hash)| copy.shard.slots_of(*hash)).collect();
        for slots in &slots {
            read ^= slots.first().unwrap_or(&0) ^ slots.last().unwrap_or(&0);
        }
        let entries: SmallVec<[&[u8]; 64]> =
            found.iter().map(|(_, copy, hash)| copy.shard.entry_of(&self.shared.arena, *hash)).collect();
        for entry in &entries {
            let byte = |byte: Option<&u8>| u64::from(*byte.unwrap_or(&0));
            read ^= byte(entry.first()) ^ byte(entry.get(CACHE_LINE_BYTES)) ^ byte(entry.last());
        }
        std::hint::black_box(read);
    }

    /// When [`Engine::tick`] wants to be called next.
    pub fn next_wake_us(&self) -> u64 {
        self.tick_us + TICK_US
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
        if self.leading {
            self.controller.tick(now);
        }
        if now.mono_us >= self.last_slow_us + SLOW_TICK_US {
            self.last_slow_us = now.mono_us;
            self.tick_slow(now);
        }
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

    // ---- Routing ----

    fn attempt(&mut self, op: &Op<'_>, asker: Asker, deadline_us: u64, out: &mut Vec<u8>) -> Attempt {
        let Some(partition) = self.partitions.get(op.partition.index()) else {
            append_error(out, "ERR no such partition");
            return Attempt::Answered;
        };
        if partition.is_primary() {
            if op.spec.flags.has(Flags::DENYOOM) && !self.shared.room_for(op.bytes()) {
                self.make_room(op.bytes());
            }
            return match self.partitions[op.partition.index()].execute(&mut self.shared, op, asker, out) {
                Executed::Done => Attempt::Answered,
                Executed::Waiting => Attempt::Waiting,
                Executed::NotNow(reason) => Attempt::NotNow(reason),
            };
        }
        let assignment = self.shared.table.assignment(op.partition).filter(|owned| owned.epoch > Epoch(0));
        let Some(&Assignment { primary, .. }) = assignment else {
            return Attempt::NotNow(Unavailable::NoPrimary);
        };
        if !matches!(asker, Asker::Local(_))
            || !self.shared.table.is_live(primary)
            || !self.shared.peers.linked(primary)
        {
            return Attempt::NotNow(Unavailable::NoPrimary);
        }
        let op = OwnedOp::new(op);
        let patience_ms = (deadline_us.saturating_sub(self.shared.now.mono_us) / 1_000) as u32;
        let id = self.router.forward(Forwarded { asker, op: op.clone(), to: primary, deadline_us });
        self.shared.stats.forwarded += 1;
        self.shared.peers.send(primary, &Message::Forward { id, patience_ms, op: op.encoded() });
        Attempt::Waiting
    }

    /// Evicts from one partition after the other until `bytes` more fit, or none can give more.
    fn make_room(&mut self, bytes: usize) {
        let count = self.partitions.len();
        let mut fruitless = 0;
        while fruitless < count && self.shared.eviction_goal() > 0 && !self.shared.room_for(bytes) {
            self.sweep_cursor = (self.sweep_cursor + 1) % count;
            let gave = self.partitions[self.sweep_cursor].evict(&mut self.shared);
            fruitless = if gave { 0 } else { fruitless + 1 };
        }
    }

    /// Runs an operation that waited or came from another node; answers or parks it.
    fn run(&mut self, parked: Parked) {
        let Some(opened) = parked.op.open() else {
            self.shared.stats.frames_broken += 1;
            self.answer(parked.asker, ForwardOutcome::Done, b"-ERR malformed operation\r\n");
            return;
        };
        let mut out = Vec::new();
        let attempt = self.attempt(&opened.as_op(), parked.asker, parked.deadline_us, &mut out);
        drop(opened);
        match attempt {
            Attempt::Answered => self.answer(parked.asker, ForwardOutcome::Done, &out),
            Attempt::Waiting => {}
            Attempt::NotNow(reason) => {
                match parked.asker {
                    // Another node routes by itself: only the primary parks for it.
                    Asker::Node(..)
                        if !self
                            .partitions
                            .get(parked.op.partition().index())
                            .is_some_and(Partition::is_primary) =>
                    {
                        let version = self.shared.table.version;
                        self.answer(parked.asker, ForwardOutcome::Stale(version), &[]);
                    }
                    _ if self.shared.now.mono_us >= parked.deadline_us => self.expire(parked.asker, reason),
                    _ if self.router.len() >= self.shared.config.waiting_max => {
                        self.expire(parked.asker, reason)
                    }
                    _ => {
                        self.shared.stats.parked += 1;
                        self.router.park(Parked { reason, ..parked });
                    }
                }
            }
        }
    }

    fn answer(&mut self, asker: Asker, outcome: ForwardOutcome, reply: &[u8]) {
        match asker {
            Asker::Local(ticket) => self.shared.complete(ticket, ReplyBytes::from_slice(reply)),
            Asker::Node(node, id) => {
                self.shared.peers.send(node, &Message::ForwardReply { id, outcome, reply })
            }
            Asker::Nobody => {}
        }
    }

    fn expire(&mut self, asker: Asker, reason: Unavailable) {
        self.shared.stats.expired_patience += 1;
        match asker {
            Asker::Local(ticket) => self.shared.complete_error(ticket, reason.resp_error()),
            _ => self.answer(asker, ForwardOutcome::Expired(reason), &[]),
        }
    }

    /// What was sent to `node` and not answered: reads run again, writes are in doubt.
    fn unanswered(&mut self, node: NodeId) {
        for forwarded in self.router.lost(node) {
            self.give_up(forwarded);
        }
    }

    fn give_up(&mut self, forwarded: Forwarded) {
        let Asker::Local(ticket) = forwarded.asker else { return };
        if forwarded.op.writes() && !forwarded.op.is_exactly_once() {
            self.shared.stats.in_doubt += 1;
            self.shared.complete_error(ticket, IN_DOUBT);
        } else {
            self.shared.resubmit.push_back(Parked {
                asker: forwarded.asker,
                op: forwarded.op,
                deadline_us: forwarded.deadline_us,
                reason: Unavailable::NoPrimary,
            });
        }
    }

    fn forward_reply(&mut self, from: NodeId, id: u64, outcome: ForwardOutcome, reply: &[u8]) {
        let Some(forwarded) = self.router.answered(from, id) else { return };
        let Asker::Local(ticket) = forwarded.asker else { return };
        match outcome {
            ForwardOutcome::Done => self.shared.complete(ticket, ReplyBytes::from_slice(reply)),
            ForwardOutcome::Stale(version) => {
                if version > self.shared.table.version {
                    self.shared.pull_table(from);
                }
                let Forwarded { asker, op, deadline_us, .. } = forwarded;
                self.shared.stats.parked += 1;
                self.router.park(Parked { asker, op, deadline_us, reason: Unavailable::ChangingHands });
            }
            ForwardOutcome::Expired(reason) => self.shared.complete_error(ticket, reason.resp_error()),
            ForwardOutcome::InDoubt => {
                if forwarded.op.is_exactly_once() {
                    self.give_up(forwarded);
                } else {
                    self.shared.stats.in_doubt += 1;
                    self.shared.complete_error(ticket, IN_DOUBT);
                }
            }
        }
    }

    // ---- Messages ----

    fn message(&mut self, from: NodeId, message: Message<'_>) {
        let now = self.shared.now;
        let partition_of = |message: &Message<'_>| match message {
            Message::Attach { partition, .. }
            | Message::Attached { partition, .. }
            | Message::SnapshotChunk { partition, .. }
            | Message::SnapshotAck { partition, .. }
            | Message::SnapshotEnd { partition, .. }
            | Message::SnapshotDone { partition, .. }
            | Message::Digest { partition, .. }
            | Message::DigestMismatch { partition, .. } => Some(*partition),
            _ => None,
        };
        let Engine { shared, partitions, .. } = self;
        if let Some(id) = partition_of(&message) {
            let Some(partition) = partitions.get_mut(id.index()) else {
                shared.stats.frames_broken += 1;
                return;
            };
            match message {
                Message::Attach { epoch, attempt, after, .. } => {
                    partition.attach(shared, from, epoch, attempt, after)
                }
                Message::Attached { attempt, .. } => partition.attached(shared, from, attempt),
                Message::SnapshotChunk { attempt, number, crc, entries, dedup, .. } => {
                    partition.snapshot_chunk(shared, from, attempt, number, crc, entries, dedup);
                }
                Message::SnapshotAck { attempt, number, .. } => {
                    partition.snapshot_acked(shared, from, attempt, number)
                }
                Message::SnapshotEnd { attempt, sequence, count, digest, clock, .. } => {
                    partition.snapshot_end(shared, from, attempt, sequence, count, digest, clock);
                }
                Message::SnapshotDone { attempt, verdict, .. } => {
                    partition.snapshot_done(shared, from, attempt, verdict)
                }
                Message::Digest { epoch, sequence, digest, .. } => {
                    match partition.compare_digest(epoch, sequence, digest) {
                        Some(true) => shared.stats.digests_equal += 1,
                        Some(false) => {
                            shared.stats.digest_mismatches += 1;
                            tracing::warn!(partition = %id, primary = %from, %sequence, "this copy differs from its primary");
                            shared
                                .peers
                                .send(from, &Message::DigestMismatch { partition: id, epoch, sequence });
                        }
                        None => {}
                    }
                }
                Message::DigestMismatch { epoch, sequence, .. }
                    if epoch == partition.epoch && partition.is_primary() =>
                {
                    shared.stats.digest_mismatches += 1;
                    tracing::warn!(partition = %id, backup = %from, %sequence, "a backup differs; it is rebuilt from here");
                    shared.report(Report::Lagging { partition: id, epoch, node: from });
                }
                _ => {}
            }
            return;
        }
        match message {
            Message::Ack(ack) => {
                let mut marks = Vec::new();
                shared.peers.acked(from, now.mono_us, &ack, |mark| marks.push(mark));
                for (id, epoch, sequence) in marks {
                    partitions[id.index()].acked(shared, from, epoch, sequence);
                }
                for (id, refusal) in ack.refused {
                    if let Some(partition) = partitions.get_mut(id.index()) {
                        partition.refused(shared, from, refusal);
                    }
                }
            }
            Message::Forward { id, .. } if !self.shared.peers.is_first_arrival(from, id) => {}
            Message::Forward { id, patience_ms, op } => {
                let parked = Parked {
                    asker: Asker::Node(from, id),
                    op: OwnedOp::from_encoded(op),
                    deadline_us: now.mono_us + u64::from(patience_ms) * 1_000,
                    reason: Unavailable::ChangingHands,
                };
                if self.router.has_parked(parked.op.partition())
                    && self.router.len() < self.shared.config.waiting_max
                {
                    self.router.park(parked);
                } else {
                    self.run(parked);
                }
            }
            Message::ForwardReply { id, outcome, reply } => self.forward_reply(from, id, outcome, reply),
            Message::Table(table) => self.table_received(from, *table),
            Message::TablePull { incarnation, version }
                if (self.shared.table.incarnation, self.shared.table.version) > (incarnation, version)
                    && (incarnation.0 == 0 || incarnation.same_lineage(self.shared.table.incarnation)) =>
            {
                let table = Message::Table(Box::new((*self.shared.table).clone()));
                self.shared.peers.send_control(from, &table);
            }
            Message::Join { member, relayed } => {
                if self.leading {
                    self.controller.join(now, member);
                } else if !relayed && let Some(leader) = self.shared.peers.leader {
                    self.shared.peers.send_control(leader, &Message::Join { member, relayed: true });
                }
            }
            Message::Order(order) => self.order(from, order),
            Message::Report { from: reporter, report, relayed } => {
                if self.leading {
                    self.controller.report(now, reporter, report);
                } else if !relayed && let Some(leader) = self.shared.peers.leader {
                    let report = Message::Report { from: reporter, report, relayed: true };
                    self.shared.peers.send_control(leader, &report);
                }
            }
            Message::Sealed(sealed) if self.leading => {
                self.controller.sealed(now, from, sealed);
            }
            _ => {}
        }
    }

    fn learn_leader(&mut self, term: u64, leader: Option<NodeId>) {
        if leader.is_some() && term > self.shared.peers.term {
            self.shared.peers.term = term;
            self.shared.peers.leader = leader;
        }
    }

    // ---- The table ----

    fn table_received(&mut self, from: NodeId, table: Table) {
        let count = usize::from(table.settings.partitions);
        let sound = table.settings.partitions.is_power_of_two()
            && table.partitions.len() == count
            && table.settings.partitions <= super::ids::PARTITION_COUNT_MAX;
        if !sound || table.incarnation.0 == 0 {
            self.shared.stats.frames_broken += 1;
            return;
        }
        let mine = self.shared.table.incarnation;
        if mine.0 != 0 && !mine.same_lineage(table.incarnation) {
            self.shared.stats.frames_foreign += 1;
            tracing::warn!(%from, "a table of another cluster");
            return;
        }
        self.install(Arc::new(table));
    }

    fn install(&mut self, table: Arc<Table>) {
        if !table.supersedes(&self.shared.table) {
            return;
        }
        let now = self.shared.now;
        if table.incarnation != self.shared.table.incarnation {
            self.enter_incarnation(&table);
        }
        let before = self.shared.set_table(table.clone());
        let Engine { shared, partitions, .. } = self;
        for (partition, assignment) in partitions.iter_mut().zip(&table.partitions) {
            let unchanged = before.incarnation == table.incarnation
                && before.partitions.get(partition.id.index()) == Some(assignment);
            // A former copy may have become superfluous by a change elsewhere.
            let kept = matches!(partition.role, Role::Bystander) && partition.copy.is_some();
            if !unchanged || kept {
                partition.install(shared, assignment);
                shared.woken.insert(partition.id);
            }
        }
        for (&node, member) in &table.members {
            if node != self.shared.me
                && member.status != MemberStatus::Down
                && self.maintained.get(&node) != Some(&member.quic)
            {
                self.maintained.insert(node, member.quic);
                self.outputs.push_back(Output::Maintain(node, member.quic));
            }
            if member.status == MemberStatus::Down && before.is_live(node) {
                self.unanswered(node);
            }
        }
        let gone: Vec<NodeId> =
            self.maintained.keys().copied().filter(|node| !table.members.contains_key(node)).collect();
        for node in gone {
            self.maintained.remove(&node);
            self.outputs.push_back(Output::Forget(node));
            self.unanswered(node);
        }
        self.map_wanted.retain(|wanted| table.map_id(&wanted.name).is_none());
        if self.leaving
            && !self.left
            && before.members.contains_key(&self.shared.me)
            && !table.members.contains_key(&self.shared.me)
        {
            self.left = true;
            self.membership.leave(now);
            self.outputs.push_back(Output::Left);
        }
        self.outputs.push_back(Output::TableChanged);
    }

    fn enter_incarnation(&mut self, table: &Table) {
        let former = self.shared.table.incarnation;
        // Survivors of a takeover carry their copies into the new incarnation; whoever was left
        // behind starts from nothing.
        let carries = former.0 != 0 && table.carried_by == Some(self.shared.me);
        if former.0 != 0 && !carries {
            tracing::warn!(%former, now = %table.incarnation, "joining a later incarnation as a fresh member");
            let Engine { shared, partitions, .. } = self;
            for partition in partitions.iter_mut() {
                partition.reset(shared);
            }
            self.outputs.push_back(Output::Rejoined);
            if self.leading {
                self.leading = false;
                self.controller.resign();
            }
        }
        self.pending_seals.clear();
        self.shared.peers.new_incarnation(table.incarnation);
        // Whoever leads while its cluster forms keeps what the log said before this table came of it.
        if !self.leading {
            self.shared.peers.term = 0;
            self.shared.peers.leader = None;
        }
        self.membership.set_incarnation(self.shared.now, table.incarnation);
        if self.partitions.len() != table.partitions.len() {
            self.partitions =
                (0..table.settings.partitions).map(|id| Partition::new(PartitionId(id))).collect();
        }
    }

    fn push_table(&mut self) {
        let me = self.shared.me;
        let table = self.shared.table.clone();
        let message = Message::Table(Box::new((*table).clone()));
        for (&node, member) in &table.members {
            if node != me && member.status != MemberStatus::Down {
                self.shared.peers.send_control(node, &message);
            }
        }
    }

    // ---- Orders, reports, seals ----

    fn order(&mut self, from: NodeId, order: Order) {
        match order {
            Order::Seal { deposed, partitions } => self.seal(from, deposed, partitions),
            Order::Handover { partition, epoch, to } => {
                if let Some(part) = self.partitions.get_mut(partition.index()) {
                    part.begin_handover(&mut self.shared, epoch, to);
                }
            }
        }
    }

    fn seal(&mut self, controller: NodeId, deposed: NodeId, partitions: Vec<(PartitionId, Epoch)>) {
        let now_us = self.shared.now.mono_us;
        for &(id, epoch) in &partitions {
            let Some(partition) = self.partitions.get_mut(id.index()) else { continue };
            if epoch <= partition.epoch {
                continue;
            }
            partition.seal(&mut self.shared, epoch);
            if deposed != self.shared.me && !self.shared.config.mutation.is(Mutant::LeaseDespiteSeal) {
                self.shared.peers.seal(deposed, id, epoch);
            }
        }
        // The promise is told once the lease that was granted has run out.
        let ready_us = self.shared.peers.granted_until_us(deposed).max(now_us);
        self.pending_seals.retain(|pending| pending.deposed != deposed || pending.controller != controller);
        self.pending_seals.push(PendingSeal { controller, deposed, partitions, ready_us });
        self.tick_seals();
    }

    fn tick_seals(&mut self) {
        let now_us = self.shared.now.mono_us;
        let (ready, waiting): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_seals)
            .into_iter()
            .partition(|pending| pending.ready_us <= now_us);
        self.pending_seals = waiting;
        for pending in ready {
            let mut sealed = Vec::new();
            for (id, epoch) in pending.partitions {
                let Some(partition) = self.partitions.get_mut(id.index()) else { continue };
                if let Some(last) = partition.seal(&mut self.shared, epoch) {
                    sealed.push(SealedPartition { partition: id, epoch, last });
                }
            }
            let sealed = Sealed { deposed: pending.deposed, partitions: sealed };
            if pending.controller == self.shared.me {
                self.controller.sealed(self.shared.now, self.shared.me, sealed);
            } else {
                self.shared.peers.send_control(pending.controller, &Message::Sealed(sealed));
            }
        }
    }

    fn send_reports(&mut self) {
        let me = self.shared.me;
        for report in std::mem::take(&mut self.shared.reports) {
            if self.leading {
                self.controller.report(self.shared.now, me, report);
            } else if let Some(node) = self.towards_leader() {
                self.shared.peers.send_control(node, &Message::Report { from: me, report, relayed: false });
            }
        }
    }

    /// The leader, or somebody who may know it.
    fn towards_leader(&mut self) -> Option<NodeId> {
        if let Some(leader) = self.shared.peers.leader
            && self.shared.peers.linked(leader)
        {
            return Some(leader);
        }
        let linked: Vec<NodeId> =
            self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
        if linked.is_empty() {
            return None;
        }
        let pick = self.shared.random() as usize % linked.len();
        Some(linked[pick])
    }

    // ---- Timers ----

    fn tick_partitions(&mut self) {
        let Engine { shared, partitions, .. } = self;
        for id in std::mem::take(&mut shared.restless) {
            let partition = &mut partitions[id.index()];
            partition.tick_primary(shared);
            if partition.is_restless() {
                shared.restless.insert(id);
            }
        }
        // Memory of shards given up, in bounded steps.
        let mut budget = 20_000;
        while budget > 0
            && let Some(shard) = shared.condemned.front_mut()
        {
            if shard.release_some(&mut shared.arena, budget) {
                shared.condemned.pop_front();
            }
            budget = budget.saturating_sub(5_000);
        }
    }

    fn tick_slow(&mut self, now: Now) {
        let now_us = now.mono_us;
        let count = self.partitions.len();
        // Everything is visited for stragglers; the restless set makes the busy ones prompt.
        for index in 0..count {
            if self.partitions[index].is_restless() {
                self.shared.restless.insert(PartitionId(index as u16));
            }
        }
        self.tick_expiry(count);
        self.tick_digests(now_us, count);
        for forwarded in self.router.expired(now_us) {
            let Asker::Local(ticket) = forwarded.asker else { continue };
            self.shared.stats.expired_patience += 1;
            if forwarded.op.writes() {
                self.shared.stats.in_doubt += 1;
                self.shared.complete_error(ticket, IN_DOUBT);
            } else {
                self.shared.complete_error(ticket, Unavailable::NoPrimary.resp_error());
            }
        }
        let parked = self.router.parked_partitions();
        self.shared.woken.extend(parked);
        self.tick_membership_of_table(now);
        self.tick_takeover(now);
        self.update_load();
        let table = self.shared.table.clone();
        self.shared.peers.retain(now_us, |node| table.members.contains_key(&node));
    }

    fn tick_expiry(&mut self, count: usize) {
        // A slice of the partitions each time: all within a second, more where there is more to do.
        let slice = count.div_ceil(8);
        let maps_bounded = self.shared.table.maps.iter().any(|map| map.defaults.bytes_max > 0);
        for _ in 0..slice {
            self.sweep_cursor = (self.sweep_cursor + 1) % count.max(1);
            let budget = self.shared.config.sweep_budget;
            let Engine { shared, partitions, .. } = self;
            let partition = &mut partitions[self.sweep_cursor];
            if partition.is_primary() {
                partition.sweep(shared, budget);
                if maps_bounded {
                    partition.evict(shared);
                }
            } else if shared.config.mutation.is(Mutant::BackupsExpire) {
                partition.expire_by_own_clock(shared, budget);
            } else if let Some(copy) = &mut partition.copy {
                copy.shard.tidy(&mut shared.arena, budget);
            }
        }
        self.make_room(0);
    }

    fn tick_digests(&mut self, now_us: u64, count: usize) {
        if count == 0 {
            return;
        }
        // Spread over the period: so many partitions are due by now.
        let per_partition_us = (self.shared.config.digest_period_us / count as u64).max(1);
        if self.digest_owed_us == 0 {
            self.digest_owed_us = now_us;
        }
        while self.digest_owed_us + per_partition_us <= now_us {
            self.digest_owed_us += per_partition_us;
            self.digest_cursor = (self.digest_cursor + 1) % count;
            self.partitions[self.digest_cursor].send_digest(&mut self.shared);
        }
    }

    /// Joining, leaving, pulling and reporting are repeated until the table shows the result.
    fn tick_membership_of_table(&mut self, now: Now) {
        let now_us = now.mono_us;
        let me = self.shared.me;
        let table = self.shared.table.clone();
        let in_cluster = table.incarnation.0 != 0;
        let listed = table.members.get(&me);
        if in_cluster && listed.is_none() && !self.leaving && now_us >= self.last_join_us + JOIN_REPEAT_US {
            self.last_join_us = now_us;
            if self.leading {
                self.controller.join(now, self.member.clone());
            } else if let Some(node) = self.towards_leader() {
                let join = Message::Join { member: self.member.clone(), relayed: false };
                self.shared.peers.send_control(node, &join);
            }
        }
        if !in_cluster && now_us >= self.last_pull_us + JOIN_REPEAT_US {
            self.last_pull_us = now_us;
            let linked: Vec<NodeId> =
                self.shared.peers.iter().filter(|(_, peer)| peer.linked).map(|(node, _)| node).collect();
            self.shared.pulls.extend(linked);
        }
        if now_us >= self.last_report_us + JOIN_REPEAT_US {
            self.last_report_us = now_us;
            if self.leaving && listed.is_some() {
                self.shared.report(Report::Leave);
            }
            for wanted in self.map_wanted.clone() {
                self.shared.report(Report::DefineMap(wanted));
            }
        }
        // Whoever could take something over: a member that is gone as well never will, and might have
        // gone before it could say that it was leaving.
        let alone = !table.members.values().any(|member| {
            member.node != me
                && member.status == MemberStatus::Up
                && member.weight > 0
                && (self.membership.is_alive(member.node) || self.shared.peers.linked(member.node))
        });
        if self.leaving && !self.left && (!in_cluster || alone) {
            self.left = true;
            self.outputs.push_back(Output::Left);
        }
        if self.leading {
            // The leader first: whoever has to go, it isn't the one that decides.
            let mut current = self.last_voters.clone();
            current.sort_by_key(|&node| node != me);
            let alive = |node: NodeId| {
                node == me || (self.membership.is_alive(node) && self.shared.peers.linked(node))
            };
            let voters = controller::voters(&table, &current, alive);
            if !current.is_empty()
                && !voters.is_empty()
                && (voters != self.last_voters || now_us >= self.last_voters_us + VOTERS_REPEAT_US)
            {
                self.last_voters_us = now_us;
                self.last_voters = voters.clone();
                self.outputs.push_back(Output::Voters(voters));
            }
        }
    }

    /// The voters in force, as the agreed log says.
    pub fn set_voters(&mut self, voters: Vec<NodeId>) {
        self.last_voters = voters;
    }

    /// Small clusters: the survivor goes on as the next incarnation.
    fn tick_takeover(&mut self, now: Now) {
        let me = self.shared.me;
        let table = self.shared.table.clone();
        if table.incarnation.0 == 0 || self.leading || !table.members.contains_key(&me) || self.leaving {
            self.leader_lost_us = None;
            return;
        }
        let alive =
            |node: NodeId| node == me || self.membership.is_alive(node) || self.shared.peers.linked(node);
        if !controller::may_take_over(&table, me, alive) {
            self.leader_lost_us = None;
            return;
        }
        let since = *self.leader_lost_us.get_or_insert(now.mono_us);
        // What the lost voter may still serve under our lease must have run out.
        if now.mono_us < since + self.shared.config.peers.lease_us {
            return;
        }
        self.leader_lost_us = None;
        let incarnation = table.incarnation.successor();
        tracing::warn!(%incarnation, "the rest of this small cluster is lost; going on alone");
        let mut next = (*table).clone();
        next.apply(&[TableChange::NewIncarnation(incarnation)]);
        next.carried_by = Some(me);
        self.outputs.push_back(Output::Form(Box::new(next)));
    }

    fn update_load(&mut self) {
        let mut keys = 0;
        let mut migrations = 0;
        for partition in &self.partitions {
            if let (Role::Primary(primary), Some(copy)) = (&partition.role, &partition.copy) {
                keys += copy.shard.len() as u64;
                migrations +=
                    primary.followers.iter().filter(|follower| follower.sending.is_some()).count() as u32;
            }
        }
        let load = &mut self.shared.peers.load;
        load.keys = keys;
        load.migrations = migrations;
        load.bytes = self.shared.arena.bytes_used();
        load.bytes_max = self.shared.config.bytes_max;
        load.operations = self.shared.stats.operations;
        load.uptime_s = (self.shared.now.mono_us - self.started_us) / 1_000_000;
        load.snapshot_bytes = self.shared.stats.snapshot_bytes_sent;
    }

    /// What this node says of itself.
    pub fn load(&self) -> &message::Load {
        &self.shared.peers.load
    }

    /// Keys here as primary that expire at some time.
    pub fn keys_expiring(&self) -> u64 {
        let own = self.partitions.iter().filter(|partition| partition.is_primary());
        own.filter_map(|partition| partition.copy.as_ref()).map(|copy| copy.shard.expiring() as u64).sum()
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
                    self.shared.peers.send_control(to, &Message::Order(order))
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

enum Attempt {
    Answered,
    Waiting,
    NotNow(Unavailable),
}

fn append_error(out: &mut Vec<u8>, error: &str) {
    out.push(b'-');
    out.extend_from_slice(error.as_bytes());
    out.extend_from_slice(b"\r\n");
}
