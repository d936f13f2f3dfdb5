//! The primary: executes operations, replicates their effects, and answers when they are committed.

mod follower;
mod pending;
mod reign;
mod sending;

pub use follower::Follower;

use super::handover::Handover;
use super::{Copy, Partition, Role};
use crate::engine::command::{self, Flags, KeyPositions, Request};
use crate::engine::controller::Report;
use crate::engine::dedup::{DedupUpdate, RequestTag, Verdict};
use crate::engine::ids::{Epoch, MapId, NodeId, PartitionId, Sequence, TableVersion};
use crate::engine::message::{ForwardOutcome, Message, Refusal, Unavailable};
use crate::engine::mutants::Mutant;
use crate::engine::op::{Long, Op, OwnedOp, Splice, Ticket};
use crate::engine::peers::Mark;
use crate::engine::queues::Queue;
use crate::engine::record::{Effect, RecordLog};
use crate::engine::resp::ReplyWriter;
use crate::engine::shared::Shared;
use crate::engine::store::{FencingToken, KeyRef, Keyspace, KeyspaceContext};
use pending::Pending;
use smallvec::SmallVec;

/// Replies are mostly short; they wait without an allocation.
pub type ReplyBytes = SmallVec<[u8; 24]>;

/// Who gets the reply of an operation executed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A client of this node.
    Local(Ticket),
    /// A node that forwarded it under its number.
    Node(NodeId, u64),
    /// Nobody: expiry, eviction.
    Nobody,
}

/// What covers a reply beside the commit of all that it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cover {
    /// Nothing: it tells of a write.
    Commit,
    /// A read: valid leases at the time it leaves.
    Leases,
    /// A read that trusts no clock: all of the ack set confirmed the epoch in this round or a later one.
    Fence(u64),
}

/// A reply held back until its records are committed and its read is covered by leases.
pub struct Waiter {
    sequence: Sequence,
    since_us: u64,
    asker: Asker,
    reply: ReplyBytes,
    /// What it needs to leave beside the commit.
    cover: Cover,
    /// What to run again elsewhere if the reign ends first; reads only.
    again: Option<OwnedOp>,
}

/// The primary's state beyond its copy.
///
/// What every operation looks at comes first: it has to come from memory.
#[derive(Default)]
#[repr(C, align(64))]
pub struct Primary {
    /// The other holders.
    pub followers: SmallVec<[Follower; 1]>,
    /// Who may still read by itself, on a lease from here, what commits from now on would change.
    unheard: Vec<Unheard>,
    /// The handover under way.
    pub handover: Option<Box<Handover>>,
    /// Whether the table names former copies that may be recovered from, should this one be lost.
    replaceable: bool,
    pending: Pending,
    /// Of [`Shared::waiters`].
    waiters: Queue,
    /// Effects executed and not yet sent.
    log: RecordLog,
    /// As `unheard`, of those whose consent is needed: what commits waits for them in any case.
    unheard_in_sync: Vec<Unheard>,
    /// Rounds of fences asked for so far; those of the next round wait for the flush.
    fence_round: u64,
    /// Reads wait for the next round.
    fence_due: bool,
    fence_sent_us: u64,
}

/// Somebody who reigned, or may have, and whose consent to writes is no longer needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unheard {
    pub(super) node: NodeId,
    /// Until when it may believe in a lease from here.
    pub(super) until_us: u64,
    /// Nor does it any more once it has this table.
    pub(super) version: TableVersion,
}

impl Unheard {
    /// Takes note of the lease given to `node`, as of the table being installed.
    pub(super) fn of(shared: &Shared, node: NodeId) -> Unheard {
        Unheard { node, until_us: shared.peers.granted_until_us(node), version: shared.table.version }
    }

    pub(super) fn may_read(&self, shared: &Shared) -> bool {
        shared.now.mono_us < self.until_us
            && shared.peers.get(self.node).is_some_and(|peer| peer.table_version < self.version)
    }
}

/// Stands among the pending keys for a record that concerns all of them.
const WHOLE_PARTITION: u64 = 0;

/// What came of an attempt to execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Executed {
    /// The reply has been appended to the output.
    Done,
    /// The reply, of so many bytes, will follow when it is committed or covered.
    Waiting(usize),
    /// Not executed; try again later.
    NotNow(Unavailable),
}

impl Partition {
    /// Executes an operation; this node must be the primary.
    pub fn execute(&mut self, shared: &mut Shared, op: &Op<'_>, asker: Asker, out: &mut Vec<u8>) -> Executed {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else {
            return Executed::NotNow(Unavailable::NoPrimary);
        };
        if self.promised > self.epoch {
            return Executed::NotNow(Unavailable::ChangingHands);
        }
        if op.spec.flags.has(Flags::PLAIN_READ) && primary.read_at_once(shared, copy, op, out) {
            return Executed::Done;
        }
        let writes = op.spec.is_write();
        let start = out.len();
        let short = primary.is_short(shared);
        if !writes && (short || primary.handover.is_some()) && read_would_write(shared, copy, op) {
            return Executed::NotNow(if short {
                Unavailable::CopiesShort
            } else {
                Unavailable::ChangingHands
            });
        }
        if writes {
            if primary.handover.is_some() || copy.tail.bytes() > shared.config.tail_bytes_max {
                return Executed::NotNow(Unavailable::ChangingHands);
            }
            if short {
                return Executed::NotNow(Unavailable::CopiesShort);
            }
            if !shared.sees_majority() {
                return Executed::NotNow(Unavailable::NoPrimary);
            }
            if let Some(id) = op.exactly_once
                && !shared.config.mutation.is(Mutant::NoDedup)
            {
                match copy.dedup.check(&id, copy.hlc.last().wall_ms().max(shared.now.wall_ms)) {
                    Verdict::Fresh => {}
                    Verdict::Duplicate(reply) => {
                        out.extend_from_slice(reply);
                        let (cover, last) = (Cover::Commit, copy.last);
                        return primary.answer(shared, copy, self.id, asker, cover, last, None, out, start);
                    }
                    Verdict::Forgotten => {
                        out.extend_from_slice(b"-INDOUBT The retried request is no longer remembered\r\n");
                        return Executed::Done;
                    }
                }
            }
            if op.spec.flags.has(Flags::DENYOOM) && !shared.room_for(op.bytes()) {
                out.extend_from_slice(b"-OOM command not allowed when used memory > 'maxmemory'.\r\n");
                return Executed::Done;
            }
        }

        shared.stats.operations += 1;
        let mut looked_up = (0, 0);
        let mut logged = primary.with_keyspace(shared, copy, self.id, self.epoch, |keys| {
            let Op { args, map, proto, key_hash, long, .. } = *op;
            command::execute(op.spec, Request { args, map, proto, key_hash, long }, keys, out);
            looked_up = keys.lookups_and_hits();
        });
        if op.spec.flags.has(Flags::READONLY) {
            let (lookups, hits) = looked_up;
            shared.stats.hits += hits;
            shared.stats.misses += lookups - hits;
        }
        // A write without effect may run again: to run it twice is to run it once.
        if logged > 0
            && let Some(tag) = op.exactly_once
        {
            primary.remember(shared, copy, &tag, &out[start..]);
            logged += 1;
        }
        let wrote = primary.account(shared, copy, self.id, logged);
        let reads = !writes || !wrote;
        let sequence = if wrote { copy.last } else { primary.pending_sequence(op, copy) };
        let cover = match reads {
            false => Cover::Commit,
            true if op.spec.flags.has(Flags::FENCED) => primary.next_fence(shared, self.id),
            true => Cover::Leases,
        };
        primary.answer(shared, copy, self.id, asker, cover, sequence, Some(op), out, start)
    }

    /// Runs the housekeeping of the primary: expiry in bounded steps.
    pub fn sweep(&mut self, shared: &mut Shared, budget: usize) -> usize {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return 0 };
        if self.promised > self.epoch || primary.handover.is_some() || primary.is_short(shared) {
            return 0;
        }
        let mut swept = 0;
        let logged = primary
            .with_keyspace(shared, copy, self.id, self.epoch, |keys| swept = keys.sweep_expired(budget));
        shared.stats.expired += swept as u64;
        primary.account(shared, copy, self.id, logged);
        swept
    }

    /// Evicts towards room for `bytes` under the memory bound as far as this partition can give in one step,
    /// and trims maps that are over their own bounds.
    pub fn evict(&mut self, shared: &mut Shared, bytes: usize) -> bool {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return false };
        if self.promised > self.epoch || primary.handover.is_some() || primary.is_short(shared) {
            return false;
        }
        let logged = primary.evict_some(shared, copy, self.id, self.epoch, bytes);
        primary.account(shared, copy, self.id, logged)
    }

    /// Reads what an operation reads of the partition, but for the copy's index, for
    /// [`Engine::touch`](crate::engine::node::Engine::touch).
    #[inline]
    pub fn touch_role(&self) -> u64 {
        let Role::Primary(primary) = &self.role else { return 0 };
        primary
            .followers
            .iter()
            .fold(u64::from(primary.pending.is_empty()), |read, follower| read ^ follower.acked.0)
    }

    /// Sends what was executed since the last flush to the ack set, and commits what can be.
    pub fn flush(&mut self, shared: &mut Shared) {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        if primary.log.count() > 0 {
            primary.send_log(shared, copy, self.id, self.epoch);
            copy.tail.trim(copy.commit);
        }
        if primary.fence_due {
            primary.send_fence(shared, copy, self.id, self.epoch);
        }
        self.advance_commit(shared);
    }

    /// An ack of `node` for what `mark` was sent with.
    pub fn acked(&mut self, shared: &mut Shared, node: NodeId, mark: Mark) {
        let Mark { epoch, sequence, attempt, fence, .. } = mark;
        if epoch != self.epoch {
            return;
        }
        let Role::Primary(primary) = &mut self.role else { return };
        let Some(index) = primary.followers.iter().position(|follower| follower.node == node) else { return };
        let follower = &mut primary.followers[index];
        follower.confirmed = follower.confirmed.max(fence);
        if follower.is_of(attempt) || shared.config.mutation.is(Mutant::CountStaleAcks) {
            if sequence > follower.acked {
                follower.acked = sequence;
                follower.sent = follower.sent.max(sequence);
            }
            follower.progress_us = shared.now.mono_us;
            follower.lagging_since_us = None;
            let under_way = follower.sent > follower.acked;
            if let Some(copy) = &self.copy
                && !under_way
                && copy.tail.last().is_some_and(|last| sequence < last)
            {
                // It is behind, and what was sent to it is all there: the next stretch.
                primary.resend(shared, copy, self.id, self.epoch, index);
            }
        }
        self.advance_commit(shared);
        self.advance_handover(shared);
    }

    /// Whether this node is primary and `node` holds a complete copy behind it.
    pub fn is_followed_by(&self, node: NodeId) -> bool {
        let Role::Primary(primary) = &self.role else { return false };
        primary.followers.iter().any(|follower| follower.node == node && follower.in_sync)
    }

    /// `node` did not take records that were sent under `attempt`.
    pub fn refused(&mut self, shared: &mut Shared, node: NodeId, attempt: u64, refusal: Refusal) {
        let (partition, epoch) = (self.id, self.epoch);
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        let Some(index) = primary.followers.iter().position(|follower| follower.node == node) else { return };
        let is_current = primary.followers[index].is_of(attempt);
        match refusal {
            Refusal::Gap(_) | Refusal::Unknown if !is_current => {}
            Refusal::Gap(expected) => {
                let sent_last = primary.sent_last(copy);
                let follower = &mut primary.followers[index];
                if expected.0 > 0 && expected <= follower.acked {
                    // An old refusal: it has said since that it has more.
                    return;
                }
                if expected.0 == 0 || expected > copy.last.next() {
                    // Beyond our log: it isn't a prefix of ours (invariant e). Rebuild it.
                    shared.stats.refused.sequence += 1;
                    shared.stats.invariant_alarms += u64::from(follower.in_sync);
                    tracing::warn!(partition = %self.id, %node, %expected, last = %copy.last, "follower is ahead of its primary");
                    shared.report(Report::Lagging { partition, epoch, node, sound: false });
                    return;
                }
                if expected <= sent_last && copy.tail.from(expected).is_none() {
                    // What it lacks is kept nowhere any more, except in a snapshot.
                    shared.report(Report::Lagging { partition, epoch, node, sound: true });
                }
                let has = Sequence(expected.0 - 1);
                follower.acked = follower.acked.max(has);
                follower.sent = has;
                primary.resend(shared, copy, self.id, self.epoch, index);
                self.advance_commit(shared);
            }
            Refusal::Fenced(promised) => {
                shared.stats.fenced += 1;
                shared.pull_table(node);
                if promised > self.epoch {
                    // The seal came to nothing or is under way: a new epoch settles which.
                    shared.report(Report::HandoverCancel { partition: self.id, epoch: self.epoch });
                }
            }
            Refusal::Unknown => {
                // It waits for its table, or lost its attachment; the timer tries again.
                let follower = &mut primary.followers[index];
                if !follower.is_bound() {
                    primary.restart_snapshot(shared, copy, self.id, self.epoch, index);
                    return;
                }
                follower.sent = follower.acked;
                follower.progress_us = shared.now.mono_us;
                let version = shared.table.version;
                follower.lacks_table = (version > follower.sent_again_for).then_some(version);
            }
        }
    }

    /// Timers of the primary: resend, lag, commit notices, snapshots.
    pub fn tick_primary(&mut self, shared: &mut Shared) {
        let (partition, epoch) = (self.id, self.epoch);
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        let now_us = shared.now.mono_us;
        primary.forget_heard(shared);
        for unheard in primary.unheard.iter().chain(&primary.unheard_in_sync) {
            shared.peers.nudge(unheard.node);
        }
        for index in 0..primary.followers.len() {
            let follower = &mut primary.followers[index];
            if !shared.peers.linked(follower.node) {
                // There is a way to the controller but none to it: another has to take its place.
                let since = *follower.lagging_since_us.get_or_insert(now_us);
                if shared.reaches_controller() && now_us >= since + shared.config.unlinked_us_max {
                    follower.lagging_since_us = Some(now_us);
                    let node = follower.node;
                    shared.report(Report::Lagging { partition, epoch, node, sound: true });
                }
                continue;
            }
            if follower.attached && follower.acked < copy.last {
                let since = *follower.lagging_since_us.get_or_insert(now_us);
                if now_us >= since + shared.config.lag_us_max {
                    follower.lagging_since_us = Some(now_us);
                    let node = follower.node;
                    shared.report(Report::Lagging { partition, epoch, node, sound: true });
                }
                let follower = &mut primary.followers[index];
                if follower.has_learned(shared) || now_us >= follower.progress_us + shared.config.resend_us {
                    follower.progress_us = now_us;
                    follower.sent = follower.acked;
                    primary.resend(shared, copy, self.id, self.epoch, index);
                }
            } else if follower.attached && follower.commit_told < copy.commit && primary.log.count() == 0 {
                follower.commit_told = copy.commit;
                primary.probe(shared, copy, self.id, self.epoch, index);
            }
            primary.tick_snapshot(shared, copy, self.id, self.epoch, index);
        }
        self.advance_commit(shared);
        self.tick_waiters(shared);
        self.tick_handover(shared);
    }

    /// Nobody waits for copies, leases or fences for ever.
    fn tick_waiters(&mut self, shared: &mut Shared) {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        let fenced =
            shared.waiters.iter(&primary.waiters).any(|waiter| matches!(waiter.cover, Cover::Fence(_)));
        if fenced && shared.now.mono_us >= primary.fence_sent_us + shared.config.resend_us {
            // It may have been lost, or asked of an ack set that was another.
            primary.send_fence(shared, copy, self.id, self.epoch);
        }
        let reason = if primary.is_short(shared) { Unavailable::CopiesShort } else { Unavailable::NoPrimary };
        let before_us = shared.now.mono_us.saturating_sub(shared.present_patience_us());
        while shared.waiters.front(&primary.waiters).is_some_and(|waiter| waiter.since_us < before_us) {
            let Some(waiter) = shared.waiters.pop_front(&mut primary.waiters) else { break };
            disappoint(shared, waiter.asker, waiter.cover, reason);
        }
    }

    /// Whether [`Partition::tick_primary`] has anything to look after.
    pub fn is_restless(&self) -> bool {
        let (Role::Primary(primary), Some(copy)) = (&self.role, &self.copy) else { return false };
        !primary.waiters.is_empty()
            || !primary.unheard.is_empty()
            || primary.handover.is_some()
            || primary.followers.iter().any(|follower| {
                !follower.in_sync
                    || (follower.attached
                        && (follower.acked < copy.last || follower.commit_told < copy.commit))
            })
    }

    /// A link to `node` is new: what was on the old one may be lost.
    pub fn relinked(&mut self, shared: &mut Shared, node: NodeId) {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        let Some(index) = primary.followers.iter().position(|follower| follower.node == node) else { return };
        primary.followers[index].lagging_since_us = None;
        if primary.followers[index].is_bound() {
            primary.followers[index].sent = primary.followers[index].acked;
            primary.resend(shared, copy, self.id, self.epoch, index);
        } else {
            primary.restart_snapshot(shared, copy, self.id, self.epoch, index);
        }
    }

    /// Commits what every member of the ack set has, and answers who waited for it.
    pub(super) fn advance_commit(&mut self, shared: &mut Shared) {
        let sealed = self.promised > self.epoch;
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        if sealed {
            return;
        }
        if primary.may_commit(shared) {
            let reach = if primary.followers.iter().any(|follower| follower.attached) {
                primary.sent_last(copy)
            } else {
                copy.last
            };
            let commit = primary
                .followers
                .iter()
                .filter(|follower| follower.attached)
                .filter(|_| !shared.config.mutation.is(Mutant::AcknowledgeEarly))
                .map(|follower| follower.acked)
                .fold(reach, Sequence::min);
            debug_assert!(commit <= copy.last);
            copy.committed(commit);
            if copy.commit == copy.last {
                primary.pending.clear();
            }
        }
        primary.release(shared, copy);
    }
}

/// Whether a read would log a record: the delete of an expired entry, or a use that the other copies
/// must know of. A drained primary must not: its successor's log would not have it.
fn read_would_write(shared: &Shared, copy: &Copy, op: &Op<'_>) -> bool {
    let expired = |key| {
        let entry = copy.shard.get(&shared.arena, KeyRef::new(op.map, key));
        entry.is_some_and(|entry| entry.expire_at_ms != 0 && entry.expire_at_ms <= shared.now.wall_ms)
    };
    shared.table.map_defaults(op.map).idle_ms > 0 || op.spec.keys.of(op.args).any(expired)
}

/// Tells who waited for a commit or a lease in vain.
fn disappoint(shared: &mut Shared, asker: Asker, cover: Cover, reason: Unavailable) {
    let reads = cover != Cover::Commit;
    shared.stats.in_doubt += u64::from(!reads && asker != Asker::Nobody);
    match asker {
        Asker::Nobody => {}
        Asker::Local(ticket) if reads => shared.complete_error(ticket, reason.resp_error()),
        Asker::Local(ticket) => shared.complete_error(ticket, IN_DOUBT),
        Asker::Node(node, id) => {
            let outcome = if reads { ForwardOutcome::Expired(reason) } else { ForwardOutcome::InDoubt };
            shared.peers.send(node, &Message::ForwardReply { id, outcome, reply: &[] });
        }
    }
}

/// The error for a write whose outcome is unknown.
pub const IN_DOUBT: &str = "INDOUBT The write was sent and its outcome is unknown";

impl Primary {
    /// Replies to a [`Flags::PLAIN_READ`] that nothing stands in the way of, which nearly all reads are, in a few
    /// steps. False, with no trace but a random number less, if it has to go the way of all others.
    #[inline(always)]
    fn read_at_once(&self, shared: &mut Shared, copy: &Copy, op: &Op<'_>, out: &mut Vec<u8>) -> bool {
        let &[_, key] = op.args else { return false };
        if op.map != MapId(0) || !self.pending.is_empty() || !self.leased(shared) {
            return false;
        }
        let key = match op.key_hash {
            Some(hash) => KeyRef { map: op.map, key, hash },
            None => KeyRef::new(op.map, key),
        };
        let (now, entropy) = (shared.now, shared.random());
        let Some(value) = copy.shard.plain_string(&mut shared.arena, &key, now, entropy) else {
            return false;
        };
        shared.stats.operations += 1;
        shared.stats.hits += 1;
        let mut reply = ReplyWriter::new(out, op.proto);
        if op.spec.keys != KeyPositions::FIRST {
            reply.array(1);
        }
        reply.bulk(value);
        true
    }

    /// Copies that take part in every write, this one included.
    pub fn ack_set_len(&self) -> usize {
        1 + self.followers.iter().filter(|follower| follower.attached).count()
    }

    /// Executed effects that have not left yet.
    pub fn unsent(&self) -> usize {
        self.log.count()
    }

    /// Whether replies wait here.
    pub fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Whether what all of the ack set has is committed: nobody who may still read could miss it. With
    /// too few copies it waits for those that are about to attach; if there are none it stands, but
    /// isn't acknowledged (see [`Primary::release`]).
    #[inline]
    fn may_commit(&mut self, shared: &Shared) -> bool {
        if !self.unheard.is_empty() {
            self.forget_heard(shared);
        }
        self.unheard.is_empty()
            && (!self.is_short(shared) || self.followers.iter().all(|follower| follower.attached))
    }

    /// Whether somebody who reigned before may still read on a lease from here. Nobody becomes complete
    /// until then: who is may reign next, and would commit without a thought of leases that it hasn't given.
    pub(super) fn is_overheard(&mut self, shared: &Shared) -> bool {
        self.forget_heard(shared);
        !self.unheard.is_empty() || !self.unheard_in_sync.is_empty()
    }

    /// Forgets those who reigned before and can read no more on a lease from here.
    fn forget_heard(&mut self, shared: &Shared) {
        for unheard in [&mut self.unheard, &mut self.unheard_in_sync] {
            unheard.retain(|unheard| unheard.may_read(shared));
        }
    }

    /// Whether fewer copies take part than a write needs.
    #[inline]
    fn is_short(&self, shared: &Shared) -> bool {
        self.ack_set_len() < shared.copies_min()
    }

    /// Whether every member of the ack set lets this node read now; and every learner, attached or
    /// not, while a former copy might be recovered with its help. In a minority nobody reads.
    #[inline]
    fn leased(&self, shared: &Shared) -> bool {
        let now_us = shared.now.mono_us;
        let leased = self
            .followers
            .iter()
            .filter(|follower| follower.attached || self.replaceable)
            .all(|follower| now_us < shared.peers.lease_until_us(follower.node));
        (leased && shared.sees_majority()) || shared.config.mutation.is(Mutant::IgnoreLease)
    }

    /// Whether a reply may leave as far as its cover goes.
    fn covers(&self, shared: &Shared, cover: Cover, leased: impl FnOnce() -> bool) -> bool {
        match cover {
            Cover::Commit => true,
            Cover::Leases => leased(),
            // Who stands alone has nobody to ask, in a minority either.
            Cover::Fence(round) => self.is_confirmed(round) && shared.sees_majority(),
        }
    }

    /// Whether all of the ack set confirmed the epoch in this round or a later one: nobody else could
    /// have been primary when it began. While a former copy might be recovered, one learner has to.
    fn is_confirmed(&self, round: u64) -> bool {
        let mut attached = self.followers.iter().filter(|follower| follower.attached).peekable();
        (!self.replaceable || attached.peek().is_some())
            && attached.all(|follower| follower.confirmed >= round)
    }

    /// The round of fences that a read executed now waits for: all within a flush share one.
    fn next_fence(&mut self, shared: &mut Shared, id: PartitionId) -> Cover {
        self.fence_due = true;
        shared.dirty(id);
        Cover::Fence(self.fence_round + 1)
    }

    /// Asks all of the ack set to confirm the epoch.
    fn send_fence(&mut self, shared: &mut Shared, copy: &Copy, id: PartitionId, epoch: Epoch) {
        self.fence_due = false;
        self.fence_round += 1;
        self.fence_sent_us = shared.now.mono_us;
        for index in 0..self.followers.len() {
            if self.followers[index].attached {
                self.probe(shared, copy, id, epoch, index);
            }
        }
    }

    /// Runs something on the partition's keys. Returns how many effects it logged.
    #[inline]
    fn with_keyspace(
        &mut self,
        shared: &mut Shared,
        copy: &mut Copy,
        partition: PartitionId,
        epoch: Epoch,
        run: impl FnOnce(&mut Keyspace<'_>),
    ) -> usize {
        let entropy = shared.random();
        let context = KeyspaceContext {
            now: shared.now,
            partition,
            partition_count: shared.table.settings.partitions,
            entropy,
            token: FencingToken { incarnation: shared.table.incarnation, epoch, sequence: copy.last.next() },
            maps: &shared.table.maps,
            limits: shared.config.limits,
        };
        let log = if self.followers.is_empty() { &mut shared.lone_log } else { &mut self.log };
        let before = log.count();
        run(&mut Keyspace::new(&mut copy.shard, &mut shared.arena, &mut copy.hlc, log, context));
        log.count() - before
    }

    fn evict_some(
        &mut self,
        shared: &mut Shared,
        copy: &mut Copy,
        partition: PartitionId,
        epoch: Epoch,
        bytes: usize,
    ) -> usize {
        let goal = shared.eviction_goal(bytes);
        let policy = shared.config.eviction;
        let logged = self.with_keyspace(shared, copy, partition, epoch, |keys| {
            keys.evict(policy, goal);
        });
        shared.stats.evicted += logged as u64;
        logged
    }

    /// Records the reply of an exactly-once write beside its effects.
    fn remember(&mut self, shared: &mut Shared, copy: &mut Copy, tag: &RequestTag, reply: &[u8]) {
        let update = DedupUpdate::of(tag, copy.hlc.last().wall_ms(), reply);
        copy.dedup.record(&update);
        let log = if self.followers.is_empty() { &mut shared.lone_log } else { &mut self.log };
        log.push(&Effect::Remember(update));
    }

    /// Gives the last `logged` effects their sequences. A copy that stands alone is its own commit; else
    /// their keys are pending from now on. Whether there were any.
    #[inline]
    fn account(
        &mut self,
        shared: &mut Shared,
        copy: &mut Copy,
        partition: PartitionId,
        logged: usize,
    ) -> bool {
        if logged == 0 {
            return false;
        }
        copy.last = Sequence(copy.last.0 + logged as u64);
        let is_alone = self.followers.is_empty();
        if self.followers.iter().all(|follower| !follower.attached) && self.may_commit(shared) {
            copy.committed(copy.last);
            self.pending.clear();
        } else {
            let log = if is_alone { &shared.lone_log } else { &self.log };
            for hash in log.hashes_since(log.count() - logged) {
                self.pending.insert(hash.unwrap_or(WHOLE_PARTITION), copy.last);
            }
        }
        if is_alone {
            shared.lone_log.clear();
        } else {
            shared.dirty(partition);
        }
        true
    }

    /// The sequence a read of these keys has to wait for; committed already when nothing is pending.
    #[inline]
    fn pending_sequence(&self, op: &Op<'_>, copy: &Copy) -> Sequence {
        if self.pending.is_empty() {
            return copy.commit;
        }
        let mut keys = op.spec.keys.of(op.args).peekable();
        if keys.peek().is_none() {
            // A command over the whole partition sees every pending key.
            return copy.last;
        }
        keys.map(|key| KeyRef::new(op.map, key).hash)
            .chain([WHOLE_PARTITION])
            .filter_map(|hash| self.pending.get(hash))
            .fold(copy.commit, Sequence::max)
    }

    #[allow(clippy::too_many_arguments)]
    #[inline]
    fn answer(
        &mut self,
        shared: &mut Shared,
        copy: &Copy,
        partition: PartitionId,
        asker: Asker,
        cover: Cover,
        sequence: Sequence,
        op: Option<&Op<'_>>,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Executed {
        debug_assert!(sequence <= copy.last);
        let committed = sequence <= copy.commit;
        if committed && self.covers(shared, cover, || self.leased(shared)) {
            return Executed::Done;
        }
        self.hold_back(shared, partition, asker, cover, sequence, op, out, start)
    }

    /// Keeps a reply until it may leave.
    #[allow(clippy::too_many_arguments)]
    #[inline(never)]
    fn hold_back(
        &mut self,
        shared: &mut Shared,
        partition: PartitionId,
        asker: Asker,
        cover: Cover,
        sequence: Sequence,
        op: Option<&Op<'_>>,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Executed {
        // Sequences in the queue must not go down: wait for the latest of those before.
        let sequence =
            shared.waiters.back(&self.waiters).map_or(sequence, |waiter| waiter.sequence.max(sequence));
        let again = match asker {
            Asker::Local(_) => op.filter(|op| !op.spec.is_write()).map(OwnedOp::new),
            _ => None,
        };
        let (since_us, reply) = (shared.now.mono_us, ReplyBytes::new());
        let waiter = Waiter { sequence, since_us, asker, reply, cover, again };
        // Written where it stays: to move what was written byte by byte would wait for all writes before.
        let reply = &mut shared.waiters.push_back(&mut self.waiters, waiter).reply;
        match op.and_then(|op| op.long).and_then(Long::take) {
            None => reply.extend_from_slice(&out[start..]),
            // What waits is copied.
            Some(Splice { at, bytes }) => {
                reply.reserve_exact(out.len() - start + bytes.len());
                reply.extend_from_slice(&out[start..at]);
                reply.extend_from_slice(&bytes);
                reply.extend_from_slice(&out[at..]);
            }
        }
        out.truncate(start);
        let bytes = reply.len();
        shared.mark_restless(partition);
        Executed::Waiting(bytes)
    }

    /// Answers waiters whose turn has come, in order.
    fn release(&mut self, shared: &mut Shared, copy: &Copy) {
        if self.waiters.is_empty() || !shared.sees_majority() {
            return;
        }
        let (leased, short) = (self.leased(shared), self.is_short(shared));
        while let Some(waiter) = shared.waiters.front(&self.waiters)
            && waiter.sequence <= copy.commit
        {
            if !self.covers(shared, waiter.cover, || leased) {
                break;
            }
            let Some(waiter) = shared.waiters.pop_front(&mut self.waiters) else { break };
            if short && waiter.cover == Cover::Commit {
                // It stands on fewer copies than an acknowledgement promises.
                disappoint(shared, waiter.asker, waiter.cover, Unavailable::CopiesShort);
                continue;
            }
            match waiter.asker {
                Asker::Nobody => {}
                Asker::Local(ticket) => shared.complete(ticket, waiter.reply),
                Asker::Node(node, id) => shared.peers.send(
                    node,
                    &Message::ForwardReply { id, outcome: ForwardOutcome::Done, reply: &waiter.reply },
                ),
            }
        }
    }
}
