//! Routing: operations run here, go to their primary once, or are parked until they can.

use super::{Attempt, Engine, append_error};
use crate::engine::command::Flags;
use crate::engine::ids::{Epoch, NodeId};
use crate::engine::message::{ForwardOutcome, Message, Unavailable};
use crate::engine::op::{EncodedOp, Op, OpenedOp, OwnedOp};
use crate::engine::partition::Partition;
use crate::engine::partition::primary::{Asker, Executed, IN_DOUBT, ReplyBytes};
use crate::engine::router::Forwarded;
use crate::engine::shared::Parked;
use crate::engine::table::Assignment;

/// What the asker of an operation gets whose keys are not of the partition it names.
const MISDIRECTED: &[u8] = b"-ERR the operation was sent to a partition that its keys don't belong to\r\n";

/// Room for replies that is kept, in bytes.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

impl Engine {
    /// Runs an operation here, if this node is its primary; else sends it there, if it is a local client's.
    #[inline]
    pub(super) fn attempt(
        &mut self,
        op: &Op<'_>,
        asker: Asker,
        deadline_us: u64,
        out: &mut Vec<u8>,
    ) -> Attempt {
        if op.spec.flags.has(Flags::DENYOOM) && !self.shared.room_for(op.bytes()) {
            self.make_room_for(op);
        }
        match self.partitions.get_mut(op.partition.index()) {
            Some(partition) if partition.is_primary() => {
                match partition.execute(&mut self.shared, op, asker, out) {
                    Executed::Done => Attempt::Answered,
                    Executed::Waiting(bytes) => Attempt::Waiting(bytes),
                    Executed::NotNow(reason) => Attempt::NotNow(reason),
                }
            }
            Some(_) => self.forward(op, asker, deadline_us),
            None => {
                append_error(out, "ERR no such partition");
                Attempt::Answered
            }
        }
    }

    /// Sends an operation of a local client to its primary.
    #[inline(never)]
    fn forward(&mut self, op: &Op<'_>, asker: Asker, deadline_us: u64) -> Attempt {
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
        let patience_ms = (deadline_us.saturating_sub(self.shared.now.mono_us) / 1_000) as u32;
        let op = OwnedOp::new(op);
        let (id, op) = self.router.forward(Forwarded { asker, op, to: primary, deadline_us });
        self.shared.stats.forwarded += 1;
        self.shared.peers.send(primary, &Message::Forward { id, patience_ms, op: op.encoded().0 });
        Attempt::Waiting(0)
    }

    /// Makes room for a write that runs here.
    #[inline(never)]
    fn make_room_for(&mut self, op: &Op<'_>) {
        if self.partitions.get(op.partition.index()).is_some_and(Partition::is_primary) {
            self.make_room(op.bytes());
        }
    }

    /// Evicts from one partition after the other until `bytes` more fit, or none can give more.
    pub(super) fn make_room(&mut self, bytes: usize) {
        if !self.may_make_room(bytes) {
            return;
        }
        let count = self.partitions.len();
        let mut fruitless = 0;
        while fruitless < count && self.shared.eviction_goal(bytes) > 0 && !self.shared.room_for(bytes) {
            self.sweep_cursor = (self.sweep_cursor + 1) % count;
            let gave = self.partitions[self.sweep_cursor].evict(&mut self.shared, bytes);
            fruitless = if gave { 0 } else { fruitless + 1 };
        }
    }

    /// Whether evicting all that this node decides on would be enough for `bytes`. Otherwise a large value would
    /// drive everything out, and be refused all the same.
    fn may_make_room(&self, bytes: usize) -> bool {
        let bytes_max = self.shared.config.bytes_max;
        if bytes as u64 <= bytes_max / 64 {
            return true;
        }
        let own = self.partitions.iter().filter(|partition| partition.is_primary());
        let evictable: u64 =
            own.filter_map(|partition| partition.copy.as_ref()).map(|copy| copy.shard.bytes()).sum();
        self.shared.arena.bytes_used() + bytes as u64 <= bytes_max + evictable
    }

    /// Runs an operation that waited; answers it or parks it again.
    pub(super) fn run(&mut self, parked: Parked) {
        let Parked { asker, ref op, deadline_us, .. } = parked;
        if let Some(reason) = self.run_encoded(op.encoded(), asker, deadline_us) {
            self.not_now(Parked { reason, ..parked });
        }
    }

    /// Runs an operation that another node sent; answers or parks it.
    pub(super) fn run_forwarded(&mut self, asker: Asker, op: EncodedOp<'_>, deadline_us: u64) {
        let parked = |reason| Parked { asker, op: op.to_owned(), deadline_us, reason };
        let has_to_wait =
            self.router.has_parked(op.partition()) && self.router.len() < self.shared.config.waiting_max;
        if has_to_wait && op.open().is_some_and(|opened| self.fits(&opened)) {
            self.router.park(parked(Unavailable::ChangingHands));
        } else if let Some(reason) = self.run_encoded(op, asker, deadline_us) {
            self.not_now(parked(reason));
        }
    }

    fn fits(&self, opened: &OpenedOp<'_>) -> bool {
        opened.fits(self.shared.table.settings.partitions)
    }

    /// Runs an operation and answers it, unless it waits for its commit. Otherwise says why it can't run now.
    fn run_encoded(&mut self, op: EncodedOp<'_>, asker: Asker, deadline_us: u64) -> Option<Unavailable> {
        let Some(opened) = op.open() else {
            self.shared.stats.refused.malformed += 1;
            self.answer(asker, ForwardOutcome::Done, b"-ERR malformed operation\r\n");
            return None;
        };
        if matches!(asker, Asker::Node(..)) && !self.fits(&opened) {
            self.shared.stats.refused.partition += 1;
            self.answer(asker, ForwardOutcome::Done, MISDIRECTED);
            return None;
        }
        let mut out = std::mem::take(&mut self.scratch);
        let attempt = self.attempt(&opened.as_op(), asker, deadline_us, &mut out);
        if matches!(attempt, Attempt::Answered) {
            self.answer(asker, ForwardOutcome::Done, &out);
        }
        if out.capacity() <= SCRATCH_BYTES_MAX {
            out.clear();
            self.scratch = out;
        }
        match attempt {
            Attempt::Answered | Attempt::Waiting(_) => None,
            Attempt::NotNow(reason) => Some(reason),
        }
    }

    /// Parks an operation that can't run now, or refuses it.
    fn not_now(&mut self, parked: Parked) {
        let partition = parked.op.encoded().partition();
        match parked.asker {
            // Another node routes by itself: only the primary parks for it.
            Asker::Node(..) if !self.partitions.get(partition.index()).is_some_and(Partition::is_primary) => {
                let version = self.shared.table.version;
                self.answer(parked.asker, ForwardOutcome::Stale(version), &[]);
            }
            _ if self.shared.is_overdue(parked.deadline_us)
                || self.router.len() >= self.shared.config.waiting_max =>
            {
                self.expire(parked.asker, parked.reason);
            }
            _ => {
                self.shared.stats.parked += 1;
                self.router.park(parked);
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

    pub(super) fn expire(&mut self, asker: Asker, reason: Unavailable) {
        self.shared.stats.expired_patience += 1;
        match asker {
            Asker::Local(ticket) => self.shared.complete_error(ticket, reason.resp_error()),
            _ => self.answer(asker, ForwardOutcome::Expired(reason), &[]),
        }
    }

    /// What was sent to `node` and not answered: reads run again, writes are in doubt.
    pub(super) fn unanswered(&mut self, node: NodeId) {
        for forwarded in self.router.lost(node) {
            self.give_up(forwarded);
        }
    }

    fn give_up(&mut self, forwarded: Forwarded) {
        let Asker::Local(ticket) = forwarded.asker else { return };
        if forwarded.op.encoded().writes() && !forwarded.op.encoded().is_exactly_once() {
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

    pub(super) fn forward_reply(&mut self, from: NodeId, id: u64, outcome: ForwardOutcome, reply: &[u8]) {
        let Some(forwarded) = self.router.answered(from, id) else {
            self.shared.stats.refused.unasked += 1;
            return;
        };
        let Asker::Local(ticket) = forwarded.asker else { return };
        match outcome {
            ForwardOutcome::Done => self.shared.complete(ticket, ReplyBytes::from_slice(reply)),
            ForwardOutcome::Stale(version) => {
                if version > self.shared.table.version {
                    self.shared.pull_table(from);
                }
                let Forwarded { asker, op, deadline_us, to } = forwarded;
                let id = op.encoded().partition();
                if self.shared.table.assignment(id).is_some_and(|assignment| assignment.primary != to) {
                    // The table has moved on meanwhile: there is somebody else to ask.
                    self.shared.woken.insert(id);
                }
                self.shared.stats.parked += 1;
                self.router.park(Parked { asker, op, deadline_us, reason: Unavailable::ChangingHands });
            }
            ForwardOutcome::Expired(reason) => self.shared.complete_error(ticket, reason.resp_error()),
            ForwardOutcome::InDoubt => {
                if forwarded.op.encoded().is_exactly_once() {
                    self.give_up(forwarded);
                } else {
                    self.shared.stats.in_doubt += 1;
                    self.shared.complete_error(ticket, IN_DOUBT);
                }
            }
        }
    }
}
