//! What other engines say, one message at a time.

use super::Engine;
use crate::engine::controller::Report;
use crate::engine::ids::NodeId;
use crate::engine::message::{Message, Unavailable};
use crate::engine::op::OwnedOp;
use crate::engine::partition::primary::Asker;
use crate::engine::shared::Parked;

impl Engine {
    pub(super) fn message(&mut self, from: NodeId, message: Message<'_>) {
        let now = self.shared.now;
        let partition_of = |message: &Message<'_>| match message {
            Message::Attach { partition, .. }
            | Message::Attached { partition, .. }
            | Message::SnapshotChunk { partition, .. }
            | Message::SnapshotAck { partition, .. }
            | Message::SnapshotEnd { partition, .. }
            | Message::SnapshotDone { partition, .. }
            | Message::Digest { partition, .. }
            | Message::DigestMismatch { partition, .. }
            | Message::Overlay { partition, .. }
            | Message::OverlayAck { partition, .. } => Some(*partition),
            _ => None,
        };
        let Engine { shared, partitions, .. } = self;
        if let Some(id) = partition_of(&message) {
            let Some(partition) = partitions.get_mut(id.index()) else {
                shared.stats.refused.partition += 1;
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
                Message::Overlay { epoch, number, crc, records, end, .. } => {
                    partition.overlay(shared, from, epoch, number, crc, records, end);
                }
                Message::OverlayAck { epoch, number, .. } => {
                    partition.overlay_acked(shared, from, epoch, number)
                }
                Message::Digest { .. } if !partition.follows(from) => shared.stats.refused.sender += 1,
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
                Message::DigestMismatch { epoch, .. } if epoch != partition.epoch => {
                    shared.stats.refused.epoch += 1;
                }
                Message::DigestMismatch { .. } if !partition.is_followed_by(from) => {
                    shared.stats.refused.sender += 1;
                }
                Message::DigestMismatch { epoch, sequence, .. } => {
                    shared.stats.digest_mismatches += 1;
                    tracing::warn!(partition = %id, backup = %from, %sequence, "a backup differs; it is rebuilt from here");
                    shared.report(Report::Lagging { partition: id, epoch, node: from });
                }
                _ => {}
            }
            return;
        }
        match message {
            Message::Ack(ack) if !shared.peers.expects(from, now.mono_us, &ack) => {
                shared.stats.refused.sequence += 1;
            }
            Message::Ack(ack) => {
                let mut marks = Vec::new();
                shared.peers.acked(from, now.mono_us, &ack, |mark| marks.push(mark));
                for mark in marks {
                    partitions[mark.partition.index()].acked(shared, from, mark);
                }
                for (id, refusal) in ack.refused {
                    match partitions.get_mut(id.index()) {
                        Some(partition) => partition.refused(shared, from, refusal),
                        None => shared.stats.refused.partition += 1,
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
            Message::TableStep(step) => self.table_step(from, step),
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

    pub(super) fn learn_leader(&mut self, term: u64, leader: Option<NodeId>) {
        if leader.is_some() && term > self.shared.peers.term {
            self.shared.peers.term = term;
            self.shared.peers.leader = leader;
        }
    }
}
