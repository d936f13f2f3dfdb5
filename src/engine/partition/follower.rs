//! The follower's side: an in-sync backup or a learner taking records, and seals.

use super::{Group, Partition, Role};
use crate::engine::ids::{Epoch, NodeId, Sequence};
use crate::engine::message::{NUMBER_MAX, Records, Refusal};
use crate::engine::mutants::Mutant;
use crate::engine::shared::Shared;
use bytes::Bytes;

impl Partition {
    /// Takes records from `from`, or says why not.
    ///
    /// Accepts a record iff its epoch is the current one and not older than any promised, and its
    /// sequence is the next. Duplicates are acknowledged again.
    pub fn records(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        frame: &Bytes,
        message: &Records<'_>,
    ) -> Result<(), Refusal> {
        let checked = !shared.config.mutation.is(Mutant::SkipEpochCheck);
        if checked && message.epoch < self.promised {
            shared.stats.refused.epoch += 1;
            return Err(Refusal::Fenced(self.promised));
        }
        if checked && message.epoch != self.epoch {
            shared.stats.refused.epoch += 1;
            return Err(Refusal::Unknown);
        }
        if checked && !self.follows(from) {
            shared.stats.refused.sender += 1;
            return Err(Refusal::Unknown);
        }
        // A record takes a byte at least.
        let bytes = message.records.len();
        if bytes > shared.config.records_bytes_max() || message.count as usize > bytes {
            shared.stats.refused.oversize += 1;
            return Err(Refusal::Unknown);
        }
        if message.first.0 == 0 || message.first.0.max(message.commit.0) > NUMBER_MAX {
            shared.stats.refused.sequence += 1;
            return Err(Refusal::Unknown);
        }
        if let Some(staging) = &mut self.staging
            && staging.copy.epoch == self.epoch
        {
            let taken = staging.records(shared, message);
            staging.take_early_chunks(shared, self.id);
            return taken;
        }
        let Some(copy) = &mut self.copy else { return Err(Refusal::Unknown) };
        if !copy.is_current(self.epoch) {
            // A former copy, kept until replaced: it isn't part of this reign's log.
            return Err(Refusal::Unknown);
        }
        let last = Sequence(message.first.0.saturating_add(u64::from(message.count)).saturating_sub(1));
        if message.first > copy.last.next() {
            return Err(Refusal::Gap(copy.last.next()));
        }
        if last < copy.last && message.count == 0 {
            // The probe of a primary that has less than this copy: not prefixes of each other.
            return Err(Refusal::Gap(copy.last.next()));
        }
        if message.count > 0 && last > copy.last {
            if message.first != copy.last.next() {
                return Err(Refusal::Gap(copy.last.next()));
            }
            let (limits, arena) = (&shared.config.limits, &mut shared.arena);
            copy.apply(arena, limits, shared.now, message.count, message.records).inspect_err(|_| {
                shared.stats.refused.malformed += 1;
            })?;
            let records = frame.slice_ref(message.records);
            // A small group must not hold on to a large frame.
            let records =
                if records.len() * 4 < frame.len() { Bytes::copy_from_slice(&records) } else { records };
            copy.tail.push(Group { first: message.first, count: message.count, records });
            shared.stats.records_applied += u64::from(message.count);
        }
        copy.committed(message.commit);
        Ok(())
    }

    /// Whether `node` is the primary that this copy or learner follows.
    pub fn follows(&self, node: NodeId) -> bool {
        matches!(self.role, Role::Follower { primary, .. } if primary == node)
    }

    /// Promises `epoch` to the controller: nothing of an earlier epoch is accepted from now on.
    ///
    /// Returns the last sequence held if this node has a complete copy of the reign that ends.
    pub fn seal(&mut self, shared: &mut Shared, epoch: Epoch) -> Option<Sequence> {
        if epoch <= self.epoch {
            return None;
        }
        if self.promised < epoch {
            self.flush(shared);
            self.promised = epoch;
        }
        let copy = self.copy.as_ref()?;
        copy.is_current(self.epoch).then_some(copy.last)
    }

    /// Anti-entropy at a follower: `None` when not comparable now, else whether the digests are equal.
    pub fn compare_digest(&self, epoch: Epoch, sequence: Sequence, digest: u64) -> Option<bool> {
        let copy = self.copy.as_ref()?;
        let comparable = epoch == self.epoch
            && copy.is_current(epoch)
            && self.staging.is_none()
            && matches!(self.role, Role::Follower { .. })
            && copy.last == sequence;
        comparable.then(|| copy.shard.digest_root() == digest)
    }
}
