//! Recovering a partition whose in-sync copies are all gone: what this node still holds of it, and a
//! former copy completed with what a learner took since.
//!
//! The controller decides who goes on and why nothing is lost (`controller/salvage.rs`); here is what
//! it asks of members. Applying an overlay twice, or a part of it, does no harm: it only makes the
//! former copy newer, key by key, and nobody reads it before the table names it.

use super::{Copy, Partition, Role, apply_effect};
use crate::engine::controller::{Held, Report, Taken};
use crate::engine::dedup::{DedupLimits, DedupTable};
use crate::engine::ids::{Epoch, NodeId};
use crate::engine::message::{Message, OverlayEnd};
use crate::engine::record;
use crate::engine::shared::Shared;
use crate::engine::store::Shard;
use std::collections::{BTreeMap, VecDeque};

/// An overlay on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Merging {
    from: NodeId,
    next: u32,
}

/// An overlay on its way out.
pub struct Passing {
    epoch: Epoch,
    to: NodeId,
    /// Parts that are made already, before the entries.
    changes: VecDeque<Vec<u8>>,
    cursor: u64,
    next: u32,
    ended: bool,
    unacked: BTreeMap<u32, usize>,
    progress_us: u64,
}

/// An overlay without progress for so long is begun again when it is asked for again.
const REPEAT_US: u64 = 1_000_000;

impl Partition {
    /// Promises `epoch` and says what is held here; `None` if that epoch is no longer ahead.
    pub fn salvage(&mut self, shared: &mut Shared, epoch: Epoch) -> Option<Held> {
        if epoch <= self.epoch {
            return None;
        }
        self.seal(shared, epoch);
        let learns = matches!(self.role, Role::Follower { in_sync: false, .. });
        let current = learns && self.copy.as_ref().is_some_and(|copy| copy.is_current(self.epoch));
        let taken = match (&self.staging, &self.copy) {
            _ if !learns || !self.took => Taken::Nothing,
            (Some(staging), _) => Taken::Records { after: staging.after(), last: staging.copy.last },
            // All that came before its snapshot is in the copy, too.
            (None, Some(copy)) if current => Taken::Records { after: copy.last, last: copy.last },
            _ => Taken::Lost,
        };
        Some(Held {
            partition: self.id,
            epoch,
            copy: self.copy.as_ref().map(|copy| (copy.epoch, copy.last)),
            current,
            taken,
        })
    }

    /// Passes what was taken as a learner on to `to`, who promised the same epoch. Asked again, it begins
    /// again only where nothing came of it for a while.
    pub fn pass_overlay(&mut self, shared: &mut Shared, epoch: Epoch, to: NodeId) {
        if epoch != self.promised || epoch <= self.epoch {
            return;
        }
        let Some(staging) = &self.staging else { return };
        let now_us = shared.now.mono_us;
        let under_way = self.passing.as_ref().is_some_and(|passing| {
            (passing.epoch, passing.to) == (epoch, to) && now_us < passing.progress_us + REPEAT_US
        });
        if under_way {
            return;
        }
        let changes = staging.overlay_changes(shared.config.chunk_bytes);
        self.drop_passing(shared);
        self.passing = Some(Box::new(Passing {
            epoch,
            to,
            changes,
            cursor: 0,
            next: 0,
            ended: false,
            unacked: BTreeMap::new(),
            progress_us: now_us,
        }));
        self.pump_overlay(shared, to);
    }

    /// Sends parts of the overlay while the window to `node` has room.
    pub(super) fn pump_overlay(&mut self, shared: &mut Shared, node: NodeId) {
        let Some(passing) = self.passing.as_mut().filter(|passing| passing.to == node) else { return };
        let Some(staging) = &self.staging else { return };
        let (partition, epoch, me) = (self.id, passing.epoch, shared.me);
        while !passing.ended {
            if node != me && !shared.snapshot_room(node) {
                shared.starve(node, partition);
                return;
            }
            let mut records = passing.changes.pop_front().unwrap_or_default();
            if passing.changes.is_empty() {
                let part_bytes = shared.config.chunk_bytes;
                passing.cursor =
                    staging.overlay_entries(&shared.arena, passing.cursor, part_bytes, &mut records);
                passing.ended = passing.cursor == Shard::CURSOR_END;
            }
            let mut dedup = Vec::new();
            let end = passing.ended.then(|| {
                staging.copy.dedup.encode(&mut dedup);
                OverlayEnd { last: staging.copy.last, clock: staging.copy.hlc.last(), dedup: &dedup }
            });
            let (number, crc) = (passing.next, crc32fast::hash(&records));
            passing.next += 1;
            if node == me {
                merge_into(&mut self.copy, &mut self.merging, shared, me, number, crc, &records, end);
                continue;
            }
            let bytes = records.len() + end.map_or(0, |end| end.dedup.len());
            passing.unacked.insert(number, bytes);
            shared.snapshot_sent(node, bytes);
            let overlay = Message::Overlay { partition, epoch, number, crc, records: &records, end };
            shared.peers.send_bulk(node, bytes, &overlay);
        }
        if node == me {
            self.passing = None;
            shared.report(Report::Merged { partition, epoch, learner: me });
        }
    }

    /// A part of the overlay was taken over: the window opens.
    pub fn overlay_acked(&mut self, shared: &mut Shared, from: NodeId, epoch: Epoch, number: u32) {
        let Some(passing) = &mut self.passing else { return };
        if (passing.to, passing.epoch) != (from, epoch) {
            return;
        }
        if let Some(bytes) = passing.unacked.remove(&number) {
            passing.progress_us = shared.now.mono_us;
            shared.snapshot_landed(from, bytes);
            self.pump_overlay(shared, from);
        }
    }

    /// Bytes of an overlay sent and not yet taken over.
    pub fn overlay_in_flight_bytes(&self) -> usize {
        self.passing.as_ref().map_or(0, |passing| passing.unacked.values().sum())
    }

    /// Passes nothing on any more.
    pub(super) fn drop_passing(&mut self, shared: &mut Shared) {
        if let Some(passing) = self.passing.take() {
            shared.snapshot_landed(passing.to, passing.unacked.values().sum());
        }
    }

    /// Takes a part of an overlay into the former copy kept here.
    #[allow(clippy::too_many_arguments)]
    pub fn overlay(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        epoch: Epoch,
        number: u32,
        crc: u32,
        records: &[u8],
        end: Option<OverlayEnd<'_>>,
    ) {
        let expected = epoch == self.promised && epoch > self.epoch && !self.is_primary();
        if !expected {
            shared.stats.refused.epoch += 1;
            return;
        }
        // A learner completes a former copy; one in sync needs nothing of the kind.
        let learns = shared.table.assignment(self.id).is_some_and(|it| it.learners.contains(&from));
        if !learns || matches!(self.role, Role::Follower { in_sync: true, .. }) {
            shared.stats.refused.sender += 1;
            return;
        }
        let copy = &mut self.copy;
        let Some(ended) = merge_into(copy, &mut self.merging, shared, from, number, crc, records, end) else {
            return;
        };
        shared.peers.send(from, &Message::OverlayAck { partition: self.id, epoch, number });
        if ended {
            shared.report(Report::Merged { partition: self.id, epoch, learner: from });
        }
    }
}

/// Applies one part. Whether it was the last; `None` if it wasn't taken.
#[allow(clippy::too_many_arguments)]
fn merge_into(
    copy: &mut Option<Copy>,
    merging: &mut Option<Merging>,
    shared: &mut Shared,
    from: NodeId,
    number: u32,
    crc: u32,
    records: &[u8],
    end: Option<OverlayEnd<'_>>,
) -> Option<bool> {
    let copy = copy.as_mut()?;
    if number == 0 {
        *merging = Some(Merging { from, next: 0 });
    }
    let next = Merging { from, next: number };
    if !merging.is_some_and(|merging| merging.from == next.from && merging.next == next.next) {
        // A part went missing; the controller asks for all of them again.
        return None;
    }
    if crc32fast::hash(records) != crc {
        shared.stats.refused.malformed += 1;
        return None;
    }
    let dedup = end.map(|end| DedupTable::decode(end.dedup, DedupLimits::default()));
    if !decodes(records, &shared.config.limits) || matches!(dedup, Some(Err(_))) {
        shared.stats.refused.malformed += 1;
        return None;
    }
    if number == 0 {
        // Its tail is not the log that leads to what it becomes, even if the rest never comes (seed 901884),
        // nor are its replies to writes of its own that are overwritten now (seed 4002183).
        copy.commit = copy.last;
        copy.tail.trim(copy.last);
        copy.dedup.forget_replies();
    }
    let mut rest = records;
    while !rest.is_empty() {
        let Ok(effect) = record::decode(&mut rest, &shared.config.limits) else { break };
        // What the learner took was written later than anything here that was ever acknowledged.
        apply_effect(&mut copy.shard, &mut copy.hlc, &mut copy.dedup, &mut shared.arena, shared.now, &effect);
    }
    *merging = Some(Merging { from, next: number.saturating_add(1) });
    let (Some(end), Some(Ok(dedup))) = (end, dedup) else { return Some(false) };
    copy.dedup.merge(&dedup);
    copy.hlc.observe(end.clock);
    copy.last = copy.last.max(end.last);
    copy.commit = copy.last;
    Some(true)
}

/// Whether `records` are records to the last byte.
fn decodes(records: &[u8], limits: &record::Limits) -> bool {
    let mut rest = records;
    while !rest.is_empty() {
        if record::decode(&mut rest, limits).is_err() {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::EngineConfig;
    use crate::engine::dedup::{DedupUpdate, RequestTag, Verdict};
    use crate::engine::ids::{ClientId, Sequence, Version};

    fn tag(client: u64) -> RequestTag {
        RequestTag { client: ClientId(client), request: 0, acknowledged_below: 0, age_ms: 0 }
    }

    /// A former copy that answered its own client's increment with 53, which nobody acknowledged, is
    /// completed with another's 53.
    #[test]
    fn a_reply_to_a_write_that_an_overlay_overwrites_is_in_doubt() {
        let mut shared = Shared::new(NodeId(1), EngineConfig::default(), 1);
        let mut copy = Copy::empty(Epoch(1));
        copy.dedup.record(&DedupUpdate::of(&tag(3), 5, b":53\r\n"));
        let mut learner = DedupTable::new(DedupLimits::default());
        learner.record(&DedupUpdate::of(&tag(1), 6, b":53\r\n"));
        let mut dedup = Vec::new();
        learner.encode(&mut dedup);
        let end = OverlayEnd { last: Sequence(9), clock: Version(7), dedup: &dedup };
        let (mut former, mut merging) = (Some(copy), None);
        for _again in 0..2 {
            let part = |merging: &mut _, former: &mut _, shared: &mut _, number, end| {
                merge_into(former, merging, shared, NodeId(2), number, crc32fast::hash(&[]), &[], end)
            };
            assert_eq!(part(&mut merging, &mut former, &mut shared, 0, None), Some(false));
            assert_eq!(part(&mut merging, &mut former, &mut shared, 1, Some(end)), Some(true));
        }
        let copy = former.expect("it is kept");
        assert_eq!(copy.last, Sequence(9));
        assert_eq!(copy.dedup.check(&tag(3), 8), Verdict::Forgotten);
        assert_eq!(copy.dedup.check(&tag(1), 8), Verdict::Duplicate(b":53\r\n"));
    }
}
