//! Streaming a copy to a learner, and the learner's copy in the making.
//!
//! The primary attaches the learner (from then on it gets every record), streams the entries by hash
//! order in chunks under a byte window a peer, and ends with count and digest at one sequence. The
//! learner keeps whatever is newer than a chunk's entry; deletes and expiry changes of keys that it
//! doesn't have yet are remembered until the snapshot ends, so that no chunk brings back the past. Nor
//! the future: a chunk that overtakes the records of what is in it waits for them, or a copy that is
//! completed with what the learner took would have writes without their exactly-once replies.

use super::primary::{Follower, Primary};
use super::{Copy, Partition, Role, apply_effect, check_records};
use crate::engine::controller::Report;
use crate::engine::dedup::{DedupLimits, DedupTable};
use crate::engine::ids::{Epoch, MapId, NodeId, PartitionId, Sequence, Version};
use crate::engine::message::{Message, Records, Refusal, SnapshotVerdict};
use crate::engine::mutants::Mutant;
use crate::engine::record::{self, Effect};
use crate::engine::shared::Shared;
use crate::engine::store::{Arena, EntryView, KeyRef, ScanLimit, Shard};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// A snapshot on its way to a learner.
#[derive(Debug, Default)]
pub struct Sending {
    attached_us: u64,
    cursor: u64,
    scanned: bool,
    dedup_sent: bool,
    next_chunk: u32,
    unacked: BTreeMap<u32, usize>,
    last_progress_us: u64,
    end_sent_us: Option<u64>,
    /// Whether the end was ever sent: no verdict comes before.
    end_told: bool,
    complete: bool,
    /// Entries sent, for progress.
    pub entries_sent: u64,
    /// Bytes sent, for progress.
    pub bytes_sent: u64,
    /// When it began.
    pub started_us: u64,
}

impl Sending {
    /// Bytes sent and not yet acknowledged.
    pub fn in_flight_bytes(&self) -> usize {
        self.unacked.values().sum()
    }

    /// Bytes of `copy` still to be sent, as far as its entries are of one size.
    pub fn left_bytes(&self, copy: &Copy) -> u64 {
        let entries = copy.shard.len() as u64;
        match self.scanned {
            true => 0,
            false => copy.shard.bytes() / entries.max(1) * entries.saturating_sub(self.entries_sent),
        }
    }

    /// Whether the learner has confirmed a complete copy.
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// A learner's copy in the making.
pub struct Staging {
    /// What has arrived.
    pub copy: Copy,
    attempt: u64,
    primary: NodeId,
    /// What records did to keys whose entries may still come in a chunk.
    overrides: HashMap<(MapId, Box<[u8]>), Override>,
    cleared: Vec<(MapId, Version)>,
    /// Chunks that wait for records, in the order they came. Bounded by the primary's window: they are
    /// acknowledged when they are applied.
    early: VecDeque<Early>,
    early_bytes: usize,
    /// Where it attached: records from here on came as such.
    after: Sequence,
    /// The version of the first of them; none is older.
    first_version: Option<Version>,
}

/// A chunk that is ahead of the records.
struct Early {
    number: u32,
    as_of: Sequence,
    entries: Vec<u8>,
    dedup: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum Override {
    Deleted(Version),
    Expires(Version, u64),
}

const ATTACH_REPEAT_US: u64 = 200_000;
const END_REPEAT_US: u64 = 200_000;
const COMPLETE_REPEAT_US: u64 = 300_000;

impl Primary {
    /// Starts the learner at `index` from nothing, under a new attempt.
    pub(super) fn restart_snapshot(
        &mut self,
        shared: &mut Shared,
        copy: &Copy,
        id: PartitionId,
        epoch: Epoch,
        index: usize,
    ) {
        let unsent = self.unsent() as u64;
        let follower = &mut self.followers[index];
        debug_assert!(!follower.is_bound(), "a reported learner stays in the ack set");
        shared.abandon_sending(follower.node, follower.sending.take());
        follower.attempt = shared.next_attempt();
        follower.attached = false;
        follower.acked = Sequence(0);
        follower.lagging_since_us = None;
        // What isn't committed goes to the learner like all later records: what is acknowledged from
        // now on, it has got as a record. Never before the commit: a learner's last record bounds what
        // was acknowledged.
        let executed = Sequence(copy.last.0 - unsent);
        let kept_from = copy.tail.first().map(|first| Sequence(first.0.saturating_sub(1)));
        follower.sent = kept_from.filter(|&after| after >= copy.commit).unwrap_or(executed);
        let now_us = shared.now.mono_us;
        let sending = Sending { started_us: now_us, last_progress_us: now_us, ..Sending::default() };
        follower.sending = Some(Box::new(sending));
        self.attach(shared, id, epoch, index);
        shared.mark_restless(id);
    }

    /// Asks the learner to attach; all that this attempt repeats says the same.
    fn attach(&mut self, shared: &mut Shared, id: PartitionId, epoch: Epoch, index: usize) {
        let follower = &mut self.followers[index];
        let Some(sending) = &mut follower.sending else { return };
        sending.attached_us = shared.now.mono_us;
        let Follower { attempt, sent: after, .. } = *follower;
        let attach = Message::Attach { partition: id, epoch, attempt, after };
        shared.peers.send(follower.node, &attach);
    }

    /// Timers of one learner's snapshot; also sends what fits the window.
    pub(super) fn tick_snapshot(
        &mut self,
        shared: &mut Shared,
        copy: &mut Copy,
        id: PartitionId,
        epoch: Epoch,
        index: usize,
    ) {
        let now_us = shared.now.mono_us;
        let node = self.followers[index].node;
        let attached = self.followers[index].attached;
        let Some(sending) = &mut self.followers[index].sending else { return };
        if !attached {
            if now_us >= sending.attached_us + ATTACH_REPEAT_US {
                self.attach(shared, id, epoch, index);
                // One that has promised this reign away says so when it is asked, and a new epoch follows.
                self.probe(shared, copy, id, epoch, index);
            }
            return;
        }
        if sending.complete {
            if now_us >= sending.last_progress_us + COMPLETE_REPEAT_US {
                sending.last_progress_us = now_us;
                let since = self.followers[index].since;
                shared.report(Report::Completed { partition: id, epoch, learner: node, since });
            }
            return;
        }
        if !sending.unacked.is_empty()
            && now_us >= sending.last_progress_us + shared.config.snapshot_timeout_us
        {
            tracing::warn!(partition = %id, learner = %node, "snapshot stalled; starting over");
            self.restart_snapshot(shared, copy, id, epoch, index);
            return;
        }
        if sending.end_sent_us.is_some_and(|sent| now_us >= sent + END_REPEAT_US) {
            sending.end_sent_us = None;
        }
        self.pump(shared, copy, id, index);
    }

    /// Sends chunks while the window to the learner's node has room, then the end.
    pub(super) fn pump(&mut self, shared: &mut Shared, copy: &mut Copy, id: PartitionId, index: usize) {
        let node = self.followers[index].node;
        let (unsent, overheard) = (self.unsent(), self.is_overheard(shared));
        let attempt = self.followers[index].attempt;
        let Some(sending) = &mut self.followers[index].sending else { return };
        while !(sending.scanned && sending.dedup_sent) {
            if !shared.snapshot_room(node) {
                shared.starve(node, id);
                break;
            }
            let mut entries = Vec::with_capacity(shared.config.chunk_bytes + 4096);
            let mut dedup = Vec::new();
            if sending.scanned {
                copy.dedup.encode(&mut dedup);
                sending.dedup_sent = true;
            } else {
                let mut sent = 0;
                while entries.len() < shared.config.chunk_bytes {
                    // Bounded by bytes: a few large values would make a frame that no link takes.
                    let bytes = shared.config.chunk_bytes - entries.len();
                    let range = sending.cursor..Shard::CURSOR_END;
                    let limit = ScanLimit { count: 64, bytes };
                    sending.cursor = copy.shard.scan_range(&shared.arena, range, limit, |entry| {
                        sent += 1;
                        record::encode(&put_of(entry), &mut entries);
                    });
                    if sending.cursor == Shard::CURSOR_END {
                        sending.scanned = true;
                        break;
                    }
                }
                sending.entries_sent += sent;
            }
            let bytes = entries.len() + dedup.len();
            if bytes == 0 {
                continue;
            }
            let number = sending.next_chunk;
            sending.next_chunk += 1;
            sending.unacked.insert(number, bytes);
            sending.bytes_sent += bytes as u64;
            sending.last_progress_us = shared.now.mono_us;
            shared.snapshot_sent(node, bytes);
            shared.peers.send_bulk(
                node,
                bytes,
                &Message::SnapshotChunk {
                    partition: id,
                    attempt,
                    number,
                    as_of: copy.last,
                    crc: crc32fast::hash(&entries),
                    entries: &entries,
                    dedup: &dedup,
                },
            );
        }
        // The end compares at one sequence: everything executed must be on its way before it.
        if sending.scanned
            && sending.dedup_sent
            && sending.unacked.is_empty()
            && sending.end_sent_us.is_none()
            && unsent == 0
            && !overheard
            && self.followers[index].sent == copy.last
        {
            let Some(sending) = &mut self.followers[index].sending else { return };
            sending.end_sent_us = Some(shared.now.mono_us);
            sending.end_told = true;
            let end = Message::SnapshotEnd {
                partition: id,
                attempt,
                sequence: copy.last,
                count: copy.shard.len() as u64,
                digest: copy.shard.digest_root(),
                clock: copy.hlc.last(),
            };
            shared.peers.send_behind_records(node, &end);
        }
    }
}

/// An entry as the record that makes it.
fn put_of<'a>(entry: &EntryView<'a>) -> Effect<'a> {
    Effect::Put {
        map: entry.map,
        key: entry.key,
        value: entry.value,
        kind: entry.kind,
        expire_at_ms: entry.expire_at_ms,
        version: entry.version,
    }
}

impl Partition {
    /// The snapshot of this attempt on its way to `node`: with the primary, its copy, and which follower
    /// it is.
    fn sending_to(&mut self, node: NodeId, attempt: u64) -> Option<(&mut Primary, &mut Copy, usize)> {
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return None };
        let index = primary.followers.iter().position(|follower| follower.node == node)?;
        let follower = &primary.followers[index];
        let matches = follower.sending.is_some() && follower.attempt == attempt;
        matches.then_some((primary, copy, index))
    }

    /// The learner is ready for records.
    pub fn attached(&mut self, shared: &mut Shared, from: NodeId, attempt: u64) {
        let (id, epoch) = (self.id, self.epoch);
        let Some((primary, copy, index)) = self.sending_to(from, attempt) else {
            shared.stats.refused.unasked += 1;
            return;
        };
        let follower = &mut primary.followers[index];
        if follower.attached {
            return;
        }
        follower.attached = true;
        follower.acked = follower.sent;
        follower.progress_us = shared.now.mono_us;
        follower.lagging_since_us = None;
        // Records between the attach and now are in the tail only if somebody else still lacks them;
        // otherwise another attempt begins here, and its snapshot covers the rest.
        let sent = follower.sent;
        if sent < Sequence(copy.last.0 - primary.unsent() as u64) {
            let from = sent.next();
            if copy.tail.from(from).is_some() {
                primary.resend(shared, copy, id, epoch, index);
            } else {
                primary.restart_snapshot(shared, copy, id, epoch, index);
                return;
            }
        }
        primary.pump(shared, copy, id, index);
        shared.mark_restless(id);
        shared.wake_parked(id);
    }

    /// A chunk was applied: the window opens.
    pub fn snapshot_acked(&mut self, shared: &mut Shared, from: NodeId, attempt: u64, number: u32) {
        let id = self.id;
        let sending = self.sending_to(from, attempt);
        let landed = sending.and_then(|(primary, copy, index)| {
            let sending = primary.followers[index].sending.as_mut()?;
            let bytes = sending.unacked.remove(&number)?;
            sending.last_progress_us = shared.now.mono_us;
            Some((primary, copy, index, bytes))
        });
        let Some((primary, copy, index, bytes)) = landed else {
            shared.stats.refused.unasked += 1;
            return;
        };
        shared.snapshot_landed(from, bytes);
        primary.pump(shared, copy, id, index);
    }

    /// The learner compared.
    pub fn snapshot_done(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: u64,
        verdict: SnapshotVerdict,
    ) {
        let (id, epoch) = (self.id, self.epoch);
        let asked = self.sending_to(from, attempt).filter(|(primary, _, index)| {
            // Else a learner would count as complete that has not got everything.
            primary.followers[*index].sending.as_ref().is_some_and(|sending| sending.end_told)
        });
        let Some((primary, copy, index)) = asked else {
            shared.stats.refused.unasked += 1;
            return;
        };
        let Some(sending) = &mut primary.followers[index].sending else { return };
        if sending.complete {
            return;
        }
        match verdict {
            SnapshotVerdict::Equal => {
                sending.complete = true;
                sending.last_progress_us = shared.now.mono_us;
                shared.stats.snapshots_sent += 1;
                let since = primary.followers[index].since;
                shared.report(Report::Completed { partition: id, epoch, learner: from, since });
            }
            SnapshotVerdict::NotYet => sending.end_sent_us = None,
            SnapshotVerdict::Different => {
                tracing::warn!(partition = %id, learner = %from, "snapshot differs from its source; starting over");
                shared.stats.snapshot_mismatches += 1;
                primary.restart_snapshot(shared, copy, id, epoch, index);
            }
        }
    }

    /// The primary attaches this node as a learner.
    pub fn attach(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, attempt: u64, after: Sequence) {
        if epoch < self.promised || epoch != self.epoch {
            shared.stats.refused.epoch += 1;
            return;
        }
        if !self.follows(from) {
            shared.stats.refused.sender += 1;
            return;
        }
        // A copy of this reign that was confirmed needs no other, unless the primary never heard of
        // it and starts over; then it is only kept until replaced.
        if self.staging.is_none()
            && let Some(copy) = &mut self.copy
            && copy.is_current(epoch)
        {
            if matches!(self.role, Role::Follower { in_sync: true, .. }) || attempt <= copy.attempt {
                return;
            }
            copy.former = true;
        }
        let staged = self.staging.as_ref().filter(|staging| staging.primary == from);
        let staged = staged.map(|staging| staging.attempt);
        if staged.is_some_and(|staged| staged > attempt) {
            return;
        }
        if staged != Some(attempt) {
            self.drop_staging(shared);
            if shared.config.mutation.is(Mutant::WipeOnReattach) {
                self.discard_copy(shared);
            }
            let mut copy = Copy::empty(epoch);
            copy.last = after;
            // What of it is committed, the primary will say.
            let overrides = HashMap::new();
            let staging = Staging {
                copy,
                attempt,
                primary: from,
                overrides,
                cleared: Vec::new(),
                early: VecDeque::new(),
                early_bytes: 0,
                after,
                first_version: None,
            };
            self.staging = Some(Box::new(staging));
        }
        self.took = true;
        shared.peers.send(from, &Message::Attached { partition: self.id, attempt });
    }

    /// A chunk of the snapshot.
    #[allow(clippy::too_many_arguments)]
    pub fn snapshot_chunk(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: u64,
        number: u32,
        as_of: Sequence,
        crc: u32,
        entries: &[u8],
        dedup: &[u8],
    ) {
        let Some(staging) = &mut self.staging else {
            shared.stats.refused.unasked += 1;
            return;
        };
        if staging.primary != from {
            shared.stats.refused.sender += 1;
            return;
        }
        if staging.attempt != attempt || staging.copy.epoch != self.epoch {
            // Of an attempt given up.
            shared.stats.refused.unasked += 1;
            return;
        }
        // An empty one says nothing, and would cost nothing to send.
        let bytes = entries.len() + dedup.len();
        if crc32fast::hash(entries) != crc || bytes == 0 {
            shared.stats.refused.malformed += 1;
            return;
        }
        if as_of <= staging.copy.last {
            staging.take_chunk(shared, self.id, number, entries, dedup);
            return;
        }
        let bytes_max = shared.config.snapshot_window_bytes + shared.config.records_bytes_max();
        if staging.early_bytes + bytes > bytes_max {
            shared.stats.refused.oversize += 1;
            return;
        }
        staging.early_bytes += bytes;
        let (entries, dedup) = (entries.to_vec(), dedup.to_vec());
        staging.early.push_back(Early { number, as_of, entries, dedup });
    }

    /// The snapshot has ended: compare.
    #[allow(clippy::too_many_arguments)]
    pub fn snapshot_end(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        attempt: u64,
        sequence: Sequence,
        count: u64,
        digest: u64,
        clock: Version,
    ) {
        let id = self.id;
        let reply = |shared: &mut Shared, verdict| {
            shared.peers.send(from, &Message::SnapshotDone { partition: id, attempt, verdict });
        };
        let Some(staging) = &mut self.staging else {
            // Complete already, and the answer was lost.
            if self.copy.as_ref().is_some_and(|copy| copy.is_current(self.epoch) && copy.attempt == attempt)
                && matches!(self.role, Role::Follower { primary, .. } if primary == from)
            {
                reply(shared, SnapshotVerdict::Equal);
            } else {
                shared.stats.refused.unasked += 1;
            }
            return;
        };
        if staging.primary != from {
            shared.stats.refused.sender += 1;
            return;
        }
        if staging.attempt != attempt || staging.copy.epoch != self.epoch {
            shared.stats.refused.unasked += 1;
            return;
        }
        if staging.copy.last != sequence {
            reply(shared, SnapshotVerdict::NotYet);
            return;
        }
        let equal = staging.copy.shard.len() as u64 == count && staging.copy.shard.digest_root() == digest;
        if !equal && !shared.config.mutation.is(Mutant::CompleteTooEarly) {
            reply(shared, SnapshotVerdict::Different);
            return;
        }
        staging.copy.hlc.observe(clock);
        // The replacement is complete: only now may what was held before go.
        self.discard_copy(shared);
        if let Some(staging) = self.staging.take() {
            self.copy = Some(Copy { epoch: self.epoch, attempt, ..staging.copy });
        }
        reply(shared, SnapshotVerdict::Equal);
    }
}

impl Staging {
    /// The primary's attempt that it is part of.
    pub fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Applies a chunk whose records have all come, and acknowledges it.
    fn take_chunk(
        &mut self,
        shared: &mut Shared,
        partition: PartitionId,
        number: u32,
        entries: &[u8],
        dedup: &[u8],
    ) {
        let is_lost = number == 0 && shared.config.mutation.is(Mutant::CompleteTooEarly);
        if !is_lost && self.chunk(shared, entries).is_err() {
            shared.stats.refused.malformed += 1;
            return;
        }
        if !dedup.is_empty() {
            let Ok(table) = DedupTable::decode(dedup, DedupLimits::default()) else {
                shared.stats.refused.malformed += 1;
                return;
            };
            self.copy.dedup.merge(&table);
        }
        shared.stats.snapshot_bytes_received += entries.len() as u64;
        let ack = Message::SnapshotAck { partition, attempt: self.attempt, number };
        shared.peers.send(self.primary, &ack);
    }

    /// Takes the chunks that waited for the records which have come.
    pub(super) fn take_early_chunks(&mut self, shared: &mut Shared, partition: PartitionId) {
        while let Some(early) = self.early.pop_front_if(|early| early.as_of <= self.copy.last) {
            self.early_bytes -= early.entries.len() + early.dedup.len();
            self.take_chunk(shared, partition, early.number, &early.entries, &early.dedup);
        }
    }

    /// Records for a copy in the making: as for a complete one, remembering what chunks must not undo.
    pub(super) fn records(&mut self, shared: &mut Shared, message: &Records<'_>) -> Result<(), Refusal> {
        let copy = &mut self.copy;
        if message.first > copy.last.next() {
            return Err(Refusal::Gap(copy.last.next()));
        }
        let last = Sequence(message.first.0.saturating_add(u64::from(message.count)).saturating_sub(1));
        if message.count == 0 || last <= copy.last {
            return if message.count == 0 && last < copy.last {
                Err(Refusal::Gap(copy.last.next()))
            } else {
                Ok(())
            };
        }
        if message.first != copy.last.next() {
            return Err(Refusal::Gap(copy.last.next()));
        }
        check_records(message.count, message.records, &shared.config.limits).inspect_err(|_| {
            shared.stats.refused.malformed += 1;
        })?;
        let mut rest = message.records;
        while !rest.is_empty() {
            let Ok(effect) = record::decode(&mut rest, &shared.config.limits) else { break };
            if self.first_version.is_none() && !matches!(effect, Effect::Remember(_)) {
                self.first_version = Some(effect.version());
            }
            match effect {
                Effect::Put { map, key, .. } => {
                    self.overrides.remove(&(map, Box::from(key)));
                }
                Effect::Delete { map, key, version } => {
                    self.overrides.insert((map, Box::from(key)), Override::Deleted(version));
                }
                Effect::Expire { map, key, expire_at_ms, version } => {
                    if copy.shard.get(&shared.arena, KeyRef::new(map, key)).is_none() {
                        self.overrides
                            .insert((map, Box::from(key)), Override::Expires(version, expire_at_ms));
                    }
                }
                Effect::Clear { map, version } => {
                    self.overrides.retain(|(other, _), _| *other != map);
                    self.cleared.retain(|(other, _)| *other != map);
                    self.cleared.push((map, version));
                }
                Effect::Remember(_) => {}
            }
            apply_effect(
                &mut copy.shard,
                &mut copy.hlc,
                &mut copy.dedup,
                &mut shared.arena,
                shared.now,
                &effect,
            );
        }
        copy.last = last;
        Ok(())
    }

    /// Where it attached.
    pub(super) fn after(&self) -> Sequence {
        self.after
    }

    /// What the records taken since have made of keys that aren't here, in parts of about `part_bytes` to
    /// be applied in order, before [`Staging::overlay_entries`].
    pub(super) fn overlay_changes(&self, part_bytes: usize) -> VecDeque<Vec<u8>> {
        let mut parts = VecDeque::new();
        let mut push = |effect: &Effect<'_>| {
            if parts.back().is_none_or(|part: &Vec<u8>| part.len() >= part_bytes) {
                parts.push_back(Vec::new());
            }
            if let Some(part) = parts.back_mut() {
                record::encode(effect, part);
            }
        };
        for &(map, version) in &self.cleared {
            push(&Effect::Clear { map, version });
        }
        let mut overrides: Vec<_> = self.overrides.iter().collect();
        overrides.sort_unstable_by_key(|(key, _)| *key);
        for ((map, key), change) in overrides {
            push(&match *change {
                Override::Deleted(version) => Effect::Delete { map: *map, key, version },
                Override::Expires(version, expire_at_ms) => {
                    Effect::Expire { map: *map, key, expire_at_ms, version }
                }
            });
        }
        parts
    }

    /// The entries that are as new as the records taken since, from `cursor` on; about `part_bytes` of them.
    /// Returns where to go on, [`Shard::CURSOR_END`] after the last.
    pub(super) fn overlay_entries(
        &self,
        arena: &Arena,
        mut cursor: u64,
        part_bytes: usize,
        part: &mut Vec<u8>,
    ) -> u64 {
        let Some(first_version) = self.first_version else { return Shard::CURSOR_END };
        while cursor != Shard::CURSOR_END && part.len() < part_bytes {
            let limit = ScanLimit { count: 16, bytes: part_bytes - part.len() };
            cursor = self.copy.shard.scan_range(arena, cursor..Shard::CURSOR_END, limit, |entry| {
                if entry.version >= first_version {
                    record::encode(&put_of(entry), part);
                }
            });
        }
        cursor
    }

    fn chunk(&mut self, shared: &mut Shared, entries: &[u8]) -> Result<(), record::RecordError> {
        let mut rest = entries;
        while !rest.is_empty() {
            let Effect::Put { map, key, value, kind, mut expire_at_ms, mut version } =
                record::decode(&mut rest, &shared.config.limits)?
            else {
                continue;
            };
            if self.cleared.iter().any(|&(cleared, at)| cleared == map && version <= at) {
                continue;
            }
            if !self.overrides.is_empty() {
                match self.overrides.get(&(map, Box::from(key))) {
                    Some(_) if shared.config.mutation.is(Mutant::ResurrectDeleted) => {}
                    Some(&Override::Deleted(at)) if version <= at => continue,
                    Some(&Override::Expires(at, expiry)) if version < at => {
                        version = at;
                        expire_at_ms = expiry;
                    }
                    _ => {}
                }
            }
            self.copy.hlc.observe(version);
            let entry = Effect::Put { map, key, value, kind, expire_at_ms, version };
            self.copy.shard.apply_if_newer(&mut shared.arena, &entry, shared.now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::EngineConfig;
    use crate::engine::dedup::{DedupUpdate, RequestTag, Verdict};
    use crate::engine::ids::ClientId;
    use crate::engine::record::RecordLog;
    use crate::engine::store::EntryKind;
    use bytes::Bytes;

    /// The primary dies before the record reaches the learner: what a former copy would be completed with
    /// holds neither the write nor its reply. The record comes: it holds both.
    #[test]
    fn a_chunk_waits_for_the_records_of_what_is_in_it() {
        let (primary, epoch, attempt) = (NodeId(1), Epoch(1), 7);
        let mut shared = Shared::new(NodeId(2), EngineConfig::default(), 1);
        let mut partition = Partition::new(PartitionId(0));
        (partition.epoch, partition.promised) = (epoch, epoch);
        partition.role = Role::Follower { primary, in_sync: false };
        partition.attach(&mut shared, primary, epoch, attempt, Sequence(0));

        let tag = RequestTag { client: ClientId(1), request: 0, acknowledged_below: 0, age_ms: 0 };
        let update = DedupUpdate::of(&tag, 5, b":54\r\n");
        let put = Effect::Put {
            map: MapId(0),
            key: b"k",
            value: b"54",
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version(9),
        };
        let (mut log, mut dedup) = (RecordLog::new(), DedupTable::new(DedupLimits::default()));
        dedup.record(&update);
        let (mut entries, mut dedup_bytes) = (Vec::new(), Vec::new());
        record::encode(&put, &mut entries);
        dedup.encode(&mut dedup_bytes);
        [put, Effect::Remember(update)].iter().for_each(|effect| log.push(effect));

        let chunk = |partition: &mut Partition, shared: &mut Shared, number, entries: &[u8], dedup: &[u8]| {
            let crc = crc32fast::hash(entries);
            partition.snapshot_chunk(shared, primary, attempt, number, Sequence(2), crc, entries, dedup);
        };
        chunk(&mut partition, &mut shared, 0, &entries, &[]);
        chunk(&mut partition, &mut shared, 1, &[], &dedup_bytes);
        let staging = partition.staging.as_ref().expect("it learns");
        assert_eq!((staging.copy.shard.len(), staging.early.len()), (0, 2));
        assert_eq!(staging.copy.dedup.check(&tag, 6), Verdict::Fresh);
        assert_eq!(shared.stats.snapshot_bytes_received, 0, "acknowledged by nobody");

        let records = Bytes::copy_from_slice(log.records());
        let (count, first, commit) = (2, Sequence(1), Sequence(0));
        let message = Records { partition: partition.id, epoch, first, count, commit, records: &records };
        partition.records(&mut shared, primary, &records, &message).expect("taken");
        let staging = partition.staging.as_ref().expect("it learns");
        assert_eq!((staging.copy.shard.len(), staging.early.len()), (1, 0));
        assert_eq!(staging.copy.dedup.check(&tag, 6), Verdict::Duplicate(b":54\r\n"));
        assert_eq!(shared.stats.snapshot_bytes_received, entries.len() as u64);
    }
}
