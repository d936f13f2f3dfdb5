//! The other nodes as this engine sees them: links, batches under way, read leases.
//!
//! Batching (DESIGN "Writes" 3): what is urgent (answers, forwarded operations) leaves with the next
//! flush; records leave at once while fewer than [`PeerConfig::batches_in_flight`] batches are
//! unacknowledged, and otherwise wait for an ack or for [`PeerConfig::batch_bytes`].
//!
//! Leases (DESIGN "Failover", reads): an ack grants the sender of the batch [`PeerConfig::lease_us`]
//! counted from the batch's send time on the sender's clock. The granter counts from its own receipt,
//! which is later, so the promise outlasts the belief.

use super::frame::Class;
use super::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, TableVersion};
use super::message::{self, Ack, Batch, Load, Message, Refusal};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Bounds of batching and leases.
#[derive(Clone, Copy, Debug)]
pub struct PeerConfig {
    /// Unacknowledged record batches to one peer before further records wait.
    pub batches_in_flight: usize,
    /// So many waiting bytes leave without waiting for an ack (up to `batches_in_flight_max`).
    pub batch_bytes: usize,
    /// Unacknowledged batches to one peer, at most.
    pub batches_in_flight_max: usize,
    /// Records of one partition in one message before it is split; 1 turns batching off: a batch
    /// is then one message.
    pub batch_records: usize,
    /// A batch unanswered for so long is taken for lost.
    pub batch_timeout_us: u64,
    /// Length of a read lease.
    pub lease_us: u64,
    /// Kept back from a lease for clocks that run at slightly different rates.
    pub lease_margin_us: u64,
    /// A peer gets a batch at least this often.
    pub heartbeat_us: u64,
}

impl Default for PeerConfig {
    fn default() -> PeerConfig {
        PeerConfig {
            batches_in_flight: 2,
            batch_bytes: 64 << 10,
            batches_in_flight_max: 32,
            batch_records: 256,
            batch_timeout_us: 1_000_000,
            lease_us: 1_500_000,
            lease_margin_us: 50_000,
            heartbeat_us: 300_000,
        }
    }
}

impl PeerConfig {
    /// One record a batch, and so many batches unacknowledged: what batching is measured against.
    pub fn unbatched(batches_in_flight: u16) -> PeerConfig {
        let batches = usize::from(batches_in_flight);
        PeerConfig {
            batches_in_flight: batches,
            batches_in_flight_max: batches,
            batch_records: 1,
            ..PeerConfig::default()
        }
    }
}

/// What the ack of a message of records means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The partition.
    pub partition: PartitionId,
    /// The primary's epoch, confirmed by the ack.
    pub epoch: Epoch,
    /// The follower has everything up to here.
    pub sequence: Sequence,
    /// The attempt to attach it that it is part of (see `Follower::attempt`).
    pub attempt: u64,
    /// The round of fences that it answers; 0 for none.
    pub fence: u64,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    sent_us: u64,
    marks: Vec<Mark>,
}

/// One other node.
#[derive(Debug, Default)]
pub struct Peer {
    /// Whether a link to it is up.
    pub linked: bool,
    /// The newest table version it is known to hold.
    pub table_version: TableVersion,
    /// What it last said of itself.
    pub load: Load,
    /// When anything was heard from it.
    pub heard_us: u64,
    /// Smoothed time between a batch and its ack, in microseconds; 0 is unknown.
    pub rtt_us: u64,
    urgent: Vec<u8>,
    control: Vec<u8>,
    records: Vec<u8>,
    marks: Vec<Mark>,
    in_flight: VecDeque<InFlight>,
    next_number: u64,
    batch_sent_us: u64,
    /// When the latest batch was sent that it has answered.
    answered_us: u64,
    /// When the last heartbeat left: no answer to one echoes a later time.
    heartbeat_sent_us: u64,
    /// When it was last sent a whole table because it asked.
    table_told_us: Option<u64>,
    lease_until_us: u64,
    granted_until_us: u64,
    /// Partitions promised away from this peer, until the table shows the change.
    sealed: BTreeMap<PartitionId, Epoch>,
    /// The operations it has sent here, lest one that arrives twice run twice.
    forwards: Arrivals,
}

/// Which of a peer's numbered messages have arrived: a sliding window as against replays (RFC 6479).
#[derive(Debug)]
struct Arrivals {
    latest: u64,
    /// One bit for each of the last numbers, by number modulo the window.
    seen: [u64; Arrivals::WORDS],
}

impl Default for Arrivals {
    fn default() -> Arrivals {
        Arrivals { latest: 0, seen: [0; Arrivals::WORDS] }
    }
}

impl Arrivals {
    const WORDS: usize = 64;
    const WINDOW: u64 = 64 * Arrivals::WORDS as u64;

    /// Notes a number; false if it arrived before, or is too old to tell.
    fn note(&mut self, number: u64) -> bool {
        let word_of = |number: u64| (number / 64) as usize % Arrivals::WORDS;
        if number > self.latest {
            let (first, last) = (self.latest / 64 + 1, number / 64);
            for word in (first..=last).take(Arrivals::WORDS) {
                self.seen[word_of(word * 64)] = 0;
            }
            self.latest = number;
        } else if number / 64 + Arrivals::WORDS as u64 <= self.latest / 64
            || self.latest - number >= Arrivals::WINDOW
        {
            return false;
        }
        let (word, bit) = (&mut self.seen[word_of(number)], 1 << (number % 64));
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

/// A whole table goes to one peer at most so often: half as long as it waits before it asks again.
const TABLE_TOLD_EVERY_US: u64 = 50_000;
/// A batch of more bytes begins no further message: no link takes frames of any size.
const BATCH_BYTES_MAX: usize = 8 << 20;

/// Why an ack is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckFault {
    /// It names a batch or a time that has never been.
    Impossible,
    /// The batch was answered, or given up.
    Unasked,
}

/// All peers, and what goes into every batch.
#[derive(Debug)]
pub struct Peers {
    config: PeerConfig,
    peers: BTreeMap<NodeId, Peer>,
    /// Stamped on every frame.
    pub incarnation: Incarnation,
    /// Told in every batch.
    pub table_version: TableVersion,
    /// The latest table in which a reign ended. Whoever doesn't have it gets no lease: it may take a
    /// reign for its own that is over, and not be in this node's table any more.
    reigns_version: TableVersion,
    /// Told in every batch.
    pub term: u64,
    /// Told in every batch.
    pub leader: Option<NodeId>,
    /// Told in heartbeats.
    pub load: Load,
    outgoing: VecDeque<(NodeId, Class, Bytes)>,
    scratch: Vec<u8>,
}

impl Peers {
    /// No peers yet.
    pub fn new(config: PeerConfig) -> Peers {
        Peers {
            config,
            peers: BTreeMap::new(),
            incarnation: Incarnation(0),
            table_version: TableVersion(0),
            reigns_version: TableVersion(0),
            term: 0,
            leader: None,
            load: Load::default(),
            outgoing: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// The bounds in force.
    pub fn config(&self) -> &PeerConfig {
        &self.config
    }

    /// A peer, if it was ever linked.
    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.peers.get(&node)
    }

    /// All peers ever linked and not forgotten.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Peer)> {
        self.peers.iter().map(|(&node, peer)| (node, peer))
    }

    /// Whether a link to `node` is up.
    pub fn linked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.linked)
    }

    /// A link came up: nothing of the old one is under way any more.
    pub fn link_up(&mut self, node: NodeId, now_us: u64) {
        let peer = self.peers.entry(node).or_default();
        peer.clear();
        peer.linked = true;
        peer.heard_us = now_us;
        peer.batch_sent_us = 0;
    }

    /// The link went down. Leases given and held run on: they are promises about time.
    pub fn link_down(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.clear();
            peer.linked = false;
        }
    }

    /// Forgets peers that are gone for good; a lease given to them must have run out.
    pub fn retain(&mut self, now_us: u64, mut keep: impl FnMut(NodeId) -> bool) {
        self.peers.retain(|&node, peer| peer.linked || now_us < peer.granted_until_us || keep(node));
    }

    /// Whether operation `number` of `node` arrives for the first time; others must not run.
    pub fn is_first_arrival(&mut self, node: NodeId, number: u64) -> bool {
        self.peers.entry(node).or_default().forwards.note(number)
    }

    /// Something arrived from `node`.
    pub fn heard(&mut self, node: NodeId, now_us: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.heard_us = now_us;
        }
    }

    /// Queues a message for the next flush. Dropped without a link: the protocol resends.
    pub fn send(&mut self, node: NodeId, message: &Message<'_>) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.linked
        {
            message::append(message, &mut peer.urgent);
        }
    }

    /// Queues a message on the control stream, apart from bulk and hot traffic.
    pub fn send_control(&mut self, node: NodeId, message: &Message<'_>) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.linked
        {
            message::append(message, &mut peer.control);
        }
    }

    /// Sends a message with some `bytes` of payload as a bulk frame of its own, at once.
    pub fn send_bulk(&mut self, node: NodeId, bytes: usize, message: &Message<'_>) {
        const HEADERS: usize = 128;
        if self.linked(node) {
            let mut frame = Vec::with_capacity(HEADERS + bytes);
            message::begin(self.incarnation, &mut frame);
            message::append(message, &mut frame);
            self.outgoing.push_back((node, Class::Bulk, frame.into()));
        }
    }

    /// Queues a message behind the records queued so far: it arrives after them.
    pub fn send_behind_records(&mut self, node: NodeId, message: &Message<'_>) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.linked
        {
            let queue = if peer.records.is_empty() { &mut peer.urgent } else { &mut peer.records };
            message::append(message, queue);
        }
    }

    /// Encodes records once, to be queued for each follower with [`Peers::send_records`].
    pub fn encode_records(&mut self, records: &message::Records<'_>) {
        self.scratch.clear();
        message::append(&Message::Records(*records), &mut self.scratch);
    }

    /// Queues the records last encoded; `mark` is what their ack will mean.
    pub fn send_records(&mut self, node: NodeId, mark: Mark) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.linked
        {
            peer.records.extend_from_slice(&self.scratch);
            peer.marks.push(mark);
        }
    }

    /// Whether a flush may have something to assemble or to hand out. Heartbeats come with the tick.
    pub fn wants_flush(&self) -> bool {
        !self.outgoing.is_empty() || self.peers.values().any(Peer::has_queued)
    }

    /// Assembles what may leave now into frames.
    pub fn flush(&mut self, now_us: u64) {
        for (&node, peer) in &mut self.peers {
            if !peer.linked {
                continue;
            }
            let head = |number, load| {
                Message::Batch(Batch {
                    number,
                    sent_us: now_us,
                    table_version: self.table_version,
                    term: self.term,
                    leader: self.leader,
                    load,
                })
            };
            if !peer.control.is_empty() {
                let mut frame = Vec::with_capacity(8 + peer.control.len());
                message::begin(self.incarnation, &mut frame);
                frame.append(&mut peer.control);
                self.outgoing.push_back((node, Class::Control, frame.into()));
            }
            if self.config.batch_records == 1 {
                // All but the last batch that may go leave in frames of their own.
                while peer.in_flight.len() + 1 < self.config.batches_in_flight && !peer.records.is_empty() {
                    let mut frame = Vec::new();
                    message::begin(self.incarnation, &mut frame);
                    peer.next_number += 1;
                    message::append(&head(peer.next_number, None), &mut frame);
                    peer.take_batch(true, now_us, &mut frame);
                    self.outgoing.push_back((node, Class::Hot, frame.into()));
                }
            }
            let under_way = peer.in_flight.len();
            let records_go = !peer.records.is_empty()
                && (under_way < self.config.batches_in_flight
                    || (peer.records.len() >= self.config.batch_bytes
                        && under_way < self.config.batches_in_flight_max));
            let heartbeat = now_us >= peer.batch_sent_us + self.config.heartbeat_us;
            if !records_go && !heartbeat && peer.urgent.is_empty() {
                continue;
            }
            let mut frame =
                Vec::with_capacity(64 + peer.urgent.len() + if records_go { peer.records.len() } else { 0 });
            message::begin(self.incarnation, &mut frame);
            if records_go {
                peer.next_number += 1;
                message::append(&head(peer.next_number, None), &mut frame);
                peer.take_batch(self.config.batch_records == 1, now_us, &mut frame);
            }
            if heartbeat {
                message::append(&head(0, Some(self.load)), &mut frame);
                peer.batch_sent_us = now_us;
                peer.heartbeat_sent_us = now_us;
            }
            frame.append(&mut peer.urgent);
            self.outgoing.push_back((node, Class::Hot, frame.into()));
        }
    }

    /// The next frame to put on a link.
    pub fn poll(&mut self) -> Option<(NodeId, Class, Bytes)> {
        self.outgoing.pop_front()
    }

    /// Whether a flush could be held up by batches under way.
    pub fn records_waiting(&self) -> bool {
        self.peers.values().any(|peer| !peer.records.is_empty())
    }

    /// Takes an ack: renews the lease, and returns what the batch was sent with.
    ///
    /// # Errors
    /// Nothing is taken of one that can't be an answer, or to which nothing is under way (any more).
    pub fn acked(&mut self, node: NodeId, now_us: u64, ack: &Ack) -> Result<Vec<Mark>, AckFault> {
        let Some(peer) = self.peers.get_mut(&node) else { return Err(AckFault::Unasked) };
        let marks = if ack.number == 0 {
            if ack.echo_us > peer.heartbeat_sent_us {
                return Err(AckFault::Impossible);
            }
            Vec::new()
        } else if let Some(index) = peer.in_flight.iter().position(|batch| batch.number == ack.number) {
            if peer.in_flight.get(index).is_none_or(|batch| batch.sent_us != ack.echo_us) {
                return Err(AckFault::Impossible);
            }
            let Some(batch) = peer.in_flight.remove(index) else { return Err(AckFault::Unasked) };
            let rtt_us = now_us.saturating_sub(batch.sent_us).max(1);
            peer.rtt_us = if peer.rtt_us == 0 { rtt_us } else { (peer.rtt_us * 7 + rtt_us) / 8 };
            batch.marks
        } else if ack.number > peer.next_number {
            return Err(AckFault::Impossible);
        } else {
            return Err(AckFault::Unasked);
        };
        peer.table_version = peer.table_version.max(ack.table_version);
        peer.answered_us = peer.answered_us.max(ack.echo_us);
        if ack.granted {
            let until = ack.echo_us + self.config.lease_us - self.config.lease_margin_us;
            peer.lease_until_us = peer.lease_until_us.max(until);
        }
        Ok(marks)
    }

    /// Whether `node`, who asks for the table, gets it now: at most so often, whatever it asks.
    pub fn may_tell_table(&mut self, node: NodeId, now_us: u64) -> bool {
        let Some(peer) = self.peers.get_mut(&node) else { return false };
        let due = peer.table_told_us.is_none_or(|told_us| now_us >= told_us + TABLE_TOLD_EVERY_US);
        if due {
            peer.table_told_us = Some(now_us);
        }
        due
    }

    /// Takes batches unanswered for too long for lost; their partitions send again by themselves.
    pub fn expire_batches(&mut self, now_us: u64) {
        for peer in self.peers.values_mut() {
            while let Some(oldest) = peer.in_flight.front()
                && now_us >= oldest.sent_us + self.config.batch_timeout_us
            {
                peer.in_flight.pop_front();
            }
        }
    }

    /// Answers a batch of `node`: whether it may count on a read lease.
    pub fn grant(&mut self, node: NodeId, now_us: u64, batch: &Batch, refused: Vec<(PartitionId, Refusal)>) {
        let table_version = self.table_version;
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.table_version = peer.table_version.max(batch.table_version);
        if let Some(load) = batch.load {
            peer.load = load;
        }
        let granted = peer.sealed.is_empty() && batch.table_version >= self.reigns_version;
        if granted {
            peer.granted_until_us = peer.granted_until_us.max(now_us + self.config.lease_us);
        }
        let ack = Ack { number: batch.number, echo_us: batch.sent_us, granted, table_version, refused };
        if peer.linked {
            message::append(&Message::Ack(ack), &mut peer.urgent);
        }
    }

    /// When the latest batch was sent that `node` has answered, granting a lease or not: it was there
    /// then, and heard this node.
    pub fn answered_us(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.answered_us)
    }

    /// Until when this node holds a read lease from `node`.
    pub fn lease_until_us(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.lease_until_us)
    }

    /// Until when `node` may believe that it holds a read lease from here.
    pub fn granted_until_us(&self, node: NodeId) -> u64 {
        self.peers.get(&node).map_or(0, |peer| peer.granted_until_us)
    }

    /// Sends a heartbeat with the next flush: its ack says which table the peer holds.
    pub fn nudge(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.batch_sent_us = 0;
        }
    }

    /// No more grants to `deposed` until it knows that the partition is no longer its own.
    pub fn seal(&mut self, deposed: NodeId, partition: PartitionId, epoch: Epoch) {
        let peer = self.peers.entry(deposed).or_default();
        let sealed = peer.sealed.entry(partition).or_insert(epoch);
        *sealed = (*sealed).max(epoch);
    }

    /// The table of this version shows `partition` at a new `epoch`: seals up to there are done with.
    pub fn reign_began(&mut self, partition: PartitionId, epoch: Epoch, version: TableVersion) {
        self.reigns_version = self.reigns_version.max(version);
        for peer in self.peers.values_mut() {
            if peer.sealed.get(&partition).is_some_and(|&promised| promised <= epoch) {
                peer.sealed.remove(&partition);
            }
        }
    }

    /// A new incarnation starts: versions begin anew and old promises are void.
    pub fn new_incarnation(&mut self, incarnation: Incarnation) {
        self.incarnation = incarnation;
        self.reigns_version = TableVersion(0);
        for peer in self.peers.values_mut() {
            peer.clear();
            peer.table_version = TableVersion(0);
            // Its reigns may count lower, and never come to what was promised away here.
            peer.sealed.clear();
        }
    }
}

impl Peer {
    /// Moves what waits into a frame as the batch `next_number`: all of it, or `one` message.
    fn take_batch(&mut self, one: bool, sent_us: u64, frame: &mut Vec<u8>) {
        let marks = if !one && self.records.len() <= BATCH_BYTES_MAX {
            frame.append(&mut self.records);
            std::mem::take(&mut self.marks)
        } else {
            let mut rest = self.records.as_slice();
            let (mut marked, mut length) = (0, 0);
            while !rest.is_empty() && (length == 0 || !one && length < BATCH_BYTES_MAX) {
                // Messages between the records have no mark.
                let message = message::next(&mut rest);
                debug_assert!(message.is_ok(), "what was encoded here can be decoded");
                marked += usize::from(matches!(message, Ok(Message::Records(_))));
                length = self.records.len() - rest.len();
            }
            frame.extend(self.records.drain(..length));
            self.marks.drain(..marked.min(self.marks.len())).collect()
        };
        self.in_flight.push_back(InFlight { number: self.next_number, sent_us, marks });
    }

    fn has_queued(&self) -> bool {
        !self.urgent.is_empty() || !self.records.is_empty() || !self.control.is_empty()
    }

    fn clear(&mut self) {
        self.urgent.clear();
        self.control.clear();
        self.records.clear();
        self.marks.clear();
        self.in_flight.clear();
    }

    /// Records on their way to it or waiting, for status pages.
    pub fn backlog_bytes(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_fit_into_frames() {
        let mut peers = Peers::new(PeerConfig::default());
        let node = NodeId(2);
        peers.link_up(node, 0);
        let value = vec![7; 45 << 20];
        for number in 1..=3 {
            let (partition, epoch, sequence) = (PartitionId(number), Epoch(1), Sequence(1));
            let (first, commit) = (sequence, Sequence(0));
            peers.encode_records(&message::Records {
                partition,
                epoch,
                first,
                count: 1,
                commit,
                records: &value,
            });
            peers.send_records(node, Mark { partition, epoch, sequence, attempt: 0, fence: 0 });
        }
        let mut sent = Vec::new();
        for flush in 0..3 {
            peers.flush(flush);
            while let Some((_, class, frame)) = peers.poll() {
                assert!(frame.len() <= class.frame_bytes_max());
                sent.push(frame.len());
            }
        }
        assert_eq!(sent.iter().filter(|&&bytes| bytes > value.len()).count(), 3);
        assert!(!peers.records_waiting());
    }

    #[test]
    fn what_arrives_twice_is_noticed() {
        let mut arrivals = Arrivals::default();
        for number in [1, 3, 2, 64, 63, 200, 5_000] {
            assert!(arrivals.note(number), "{number}");
            assert!(!arrivals.note(number), "{number}");
        }
        assert!(arrivals.note(4_999));
        assert!(!arrivals.note(200), "too old to tell");
        assert!(arrivals.note(1_000_000) && arrivals.note(999_999) && !arrivals.note(5_000));
    }
    /// Reads failed for good at whoever had been sealed a moment before both went over to a life of the cluster
    /// that had begun from an older table.
    #[test]
    fn a_seal_of_an_earlier_incarnation_withholds_no_lease() {
        let peer = NodeId(7);
        let mut peers = Peers::new(PeerConfig::default());
        peers.link_up(peer, 1);
        peers.seal(peer, PartitionId(0), Epoch(7));
        let (table_version, sent_us) = (TableVersion(3), 1);
        let batch = Batch { number: 0, sent_us, table_version, term: 0, leader: None, load: None };
        peers.grant(peer, 2, &batch, Vec::new());
        assert_eq!(peers.granted_until_us(peer), 0, "sealed");
        peers.new_incarnation(Incarnation(2));
        peers.reign_began(PartitionId(0), Epoch(3), TableVersion(3));
        peers.grant(peer, 3, &batch, Vec::new());
        assert!(peers.granted_until_us(peer) > 3);
    }
}
