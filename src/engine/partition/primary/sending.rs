//! What a primary sends to the other holders: records, probes, digests, snapshots.

use super::Primary;
use crate::engine::ids::{Epoch, NodeId, PartitionId, Sequence};
use crate::engine::message::{Message, Records};
use crate::engine::partition::{Copy, Group, Partition, Role};
use crate::engine::peers::Mark;
use crate::engine::shared::Shared;

impl Primary {
    /// The last record that has left, or was there before this reign.
    pub(super) fn sent_last(&self, copy: &Copy) -> Sequence {
        Sequence(copy.last.0 - self.log.count() as u64)
    }

    /// Moves the log into the tail and sends it to those who have all that comes before.
    pub(super) fn send_log(
        &mut self,
        shared: &mut Shared,
        copy: &mut Copy,
        partition: PartitionId,
        epoch: Epoch,
    ) {
        let count_max = shared.peers.config().batch_records.max(1);
        let mut first = self.sent_last(copy).next();
        for (count, records) in self.log.take_groups(count_max, shared.config.group_bytes_max) {
            let group = Group { first, count, records };
            let last = group.last();
            shared.peers.encode_records(&group.message(partition, epoch, copy.commit));
            for follower in self.followers.iter_mut().filter(|follower| follower.attached) {
                if follower.sent.next() == first {
                    follower.sent = last;
                    follower.commit_told = copy.commit;
                    shared.peers.send_records(follower.node, group.mark(partition, epoch, follower.attempt));
                }
            }
            first = last.next();
            copy.tail.push(group);
        }
        debug_assert_eq!(first, copy.last.next());
    }

    /// Sends a follower what it lacks, as far as the tail reaches; else asks where it stands.
    pub(in crate::engine::partition) fn resend(
        &mut self,
        shared: &mut Shared,
        copy: &Copy,
        partition: PartitionId,
        epoch: Epoch,
        index: usize,
    ) {
        let sendable = self.sent_last(copy);
        let follower = &mut self.followers[index];
        if follower.sent >= sendable {
            self.probe(shared, copy, partition, epoch, index);
            return;
        }
        let Some(groups) = copy.tail.from(follower.sent.next()) else {
            self.probe(shared, copy, partition, epoch, index);
            return;
        };
        let mut bytes = 0;
        for group in groups {
            shared.peers.encode_records(&group.message(partition, epoch, copy.commit));
            shared.peers.send_records(follower.node, group.mark(partition, epoch, follower.attempt));
            follower.sent = group.last();
            shared.stats.resent += u64::from(group.count);
            bytes += group.records.len();
            if bytes > shared.config.group_bytes_max {
                break;
            }
        }
    }

    /// Asks a follower where it stands, and tells it of the commit.
    pub(in crate::engine::partition) fn probe(
        &mut self,
        shared: &mut Shared,
        copy: &Copy,
        partition: PartitionId,
        epoch: Epoch,
        index: usize,
    ) {
        let (follower, fence) = (&self.followers[index], self.fence_round);
        let last = self.sent_last(copy);
        let message =
            Records { partition, epoch, first: last.next(), count: 0, commit: copy.commit, records: &[] };
        shared.peers.encode_records(&message);
        // What it says before it has attached tells no more than which epoch it knows.
        let attempt = if follower.attached { follower.attempt } else { 0 };
        let mark = Mark { partition, epoch, sequence: last, attempt, fence };
        shared.peers.send_records(follower.node, mark);
    }
}

impl Partition {
    /// Anti-entropy: tells the in-sync followers the digest, if all stand at the same sequence.
    pub fn send_digest(&self, shared: &mut Shared) {
        let (Role::Primary(primary), Some(copy)) = (&self.role, &self.copy) else { return };
        if primary.unsent() > 0 {
            return;
        }
        // Behind the records, so that it is compared where it holds; a busy partition is no exception.
        let digest = copy.shard.digest_root();
        for follower in primary.followers.iter().filter(|it| it.in_sync && it.sent == copy.last) {
            let message =
                Message::Digest { partition: self.id, epoch: self.epoch, sequence: copy.last, digest };
            shared.peers.send_behind_records(follower.node, &message);
        }
    }

    /// Room in the snapshot window to `node`: goes on streaming to it.
    pub fn pump_to(&mut self, shared: &mut Shared, node: NodeId) {
        let id = self.id;
        self.pump_overlay(shared, node);
        let (Role::Primary(primary), Some(copy)) = (&mut self.role, &mut self.copy) else { return };
        if let Some(index) =
            primary.followers.iter().position(|follower| follower.node == node && follower.attached)
        {
            primary.pump(shared, copy, id, index);
        }
    }
}
