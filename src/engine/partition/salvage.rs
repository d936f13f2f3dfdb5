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

/// An overlay on its way in.
#[derive(Clone, Copy, Debug)]
pub struct Merging {
    from: NodeId,
    next: u32,
}

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

    /// Passes what was taken as a learner on to `to`, who promised the same epoch.
    pub fn pass_overlay(&mut self, shared: &mut Shared, epoch: Epoch, to: NodeId) {
        if epoch != self.promised || epoch <= self.epoch {
            return;
        }
        let Some(staging) = &self.staging else { return };
        let mut parts: Vec<Vec<u8>> = Vec::new();
        staging.overlay(&shared.arena, shared.config.chunk_bytes, &mut parts);
        let mut dedup = Vec::new();
        staging.copy.dedup.encode(&mut dedup);
        let end = OverlayEnd { last: staging.copy.last, clock: staging.copy.hlc.last(), dedup: &dedup };
        if to == shared.me {
            let me = shared.me;
            for (number, records) in (0..).zip(&parts) {
                let end = (number as usize + 1 == parts.len()).then_some(end);
                let crc = crc32fast::hash(records);
                merge_into(&mut self.copy, &mut self.merging, shared, me, number, crc, records, end);
            }
            shared.report(Report::Merged { partition: self.id, epoch, learner: me });
            return;
        }
        for (number, records) in (0..).zip(&parts) {
            let end = (number as usize + 1 == parts.len()).then_some(end);
            let crc = crc32fast::hash(records);
            let overlay = Message::Overlay { partition: self.id, epoch, number, crc, records, end };
            shared.peers.send_bulk(to, &overlay);
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
        if merge_into(&mut self.copy, &mut self.merging, shared, from, number, crc, records, end) {
            shared.report(Report::Merged { partition: self.id, epoch, learner: from });
        }
    }
}

/// Applies one part; true after the last.
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
) -> bool {
    let Some(copy) = copy else { return false };
    if number == 0 {
        *merging = Some(Merging { from, next: 0 });
    }
    let next = Merging { from, next: number };
    if !merging.is_some_and(|merging| merging.from == next.from && merging.next == next.next) {
        // A part went missing; the controller asks for all of them again.
        return false;
    }
    if crc32fast::hash(records) != crc {
        shared.stats.refused.malformed += 1;
        return false;
    }
    let mut rest = records;
    while !rest.is_empty() {
        let Ok(effect) = record::decode(&mut rest, &shared.config.limits) else {
            shared.stats.refused.malformed += 1;
            return false;
        };
        // What the learner took was written later than anything here that was ever acknowledged.
        apply_effect(&mut copy.shard, &mut copy.hlc, &mut copy.dedup, &mut shared.arena, shared.now, &effect);
    }
    *merging = Some(Merging { from, next: number.saturating_add(1) });
    let Some(end) = end else { return false };
    if let Ok(dedup) = DedupTable::decode(end.dedup, DedupLimits::default()) {
        copy.dedup.merge(&dedup);
    } else {
        shared.stats.refused.malformed += 1;
        return false;
    }
    copy.hlc.observe(end.clock);
    copy.last = copy.last.max(end.last);
    // Its tail is not the log that led here; all of it stands.
    copy.commit = copy.last;
    copy.tail.trim(copy.last);
    true
}
