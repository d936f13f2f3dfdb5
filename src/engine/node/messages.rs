//! What other engines say, one message at a time.

use super::Engine;
use crate::engine::controller::Report;
use crate::engine::ids::NodeId;
use crate::engine::message::Message;
use crate::engine::op::EncodedOp;
use crate::engine::partition::Partition;
use crate::engine::partition::primary::Asker;
use crate::engine::peers::{AckFault, Mark};

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
                Message::SnapshotChunk { attempt, number, as_of, crc, entries, dedup, .. } => {
                    partition.snapshot_chunk(shared, from, attempt, number, as_of, crc, entries, dedup);
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
                Message::Digest { epoch, .. } if epoch != partition.epoch => shared.stats.refused.epoch += 1,
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
                    let sound = false;
                    shared.report(Report::Lagging { partition: id, epoch, node: from, sound });
                }
                _ => {}
            }
            return;
        }
        match message {
            Message::Ack(ack) if ack.refused.len() > partitions.len() => {
                shared.stats.refused.oversize += 1;
            }
            Message::Ack(ack) => match shared.peers.acked(from, now.mono_us, &ack) {
                Err(AckFault::Impossible) => shared.stats.refused.sequence += 1,
                Err(AckFault::Unasked) => shared.stats.refused.unasked += 1,
                Ok(marks) => {
                    touch(partitions, &marks);
                    for mark in &marks {
                        if !ack.refused.iter().any(|(partition, _)| *partition == mark.partition) {
                            partitions[mark.partition.index()].acked(shared, from, *mark);
                        }
                    }
                    for (id, refusal) in ack.refused {
                        // If the first was sent in the attempt under way, so were all.
                        let mark = marks.iter().find(|mark| mark.partition == id);
                        match (partitions.get_mut(id.index()), mark) {
                            (Some(partition), Some(mark)) => {
                                partition.refused(shared, from, mark.attempt, refusal);
                            }
                            (Some(_), None) => shared.stats.refused.unasked += 1,
                            (None, _) => shared.stats.refused.partition += 1,
                        }
                    }
                }
            },
            Message::Forward { id, .. } if !self.shared.peers.is_first_arrival(from, id) => {
                self.shared.stats.refused.sequence += 1;
            }
            Message::Forward { id, patience_ms, op } => {
                let patience_us = (u64::from(patience_ms) * 1_000).min(self.shared.config.patience_us);
                self.run_forwarded(Asker::Node(from, id), EncodedOp(op), now.mono_us + patience_us);
            }
            Message::ForwardReply { id, outcome, reply } => self.forward_reply(from, id, outcome, reply),
            Message::Table(table) => self.table_received(from, *table),
            Message::TableStep(step) => self.table_step(from, step),
            Message::TablePull { incarnation, version }
                if (self.shared.table.incarnation, self.shared.table.version) > (incarnation, version)
                    && (incarnation.0 == 0 || incarnation.same_lineage(self.shared.table.incarnation))
                    && self.shared.peers.may_tell_table(from, now.mono_us) =>
            {
                let table = Message::Table(Box::new((*self.shared.table).clone()));
                self.shared.peers.send_control(from, &table);
            }
            // Nobody speaks for another, but members pass on what they were told.
            Message::Join { ref member, relayed } if !self.speaks(from, member.node, relayed) => {
                self.shared.stats.refused.sender += 1;
            }
            Message::Report { from: reporter, relayed, .. } if !self.speaks(from, reporter, relayed) => {
                self.shared.stats.refused.sender += 1;
            }
            Message::Join { member, relayed } => {
                if self.leading {
                    self.controller.join(now, member);
                } else if !relayed && let Some(leader) = self.shared.peers.leader {
                    self.shared.peers.send_control(leader, &Message::Join { member, relayed: true });
                }
            }
            Message::Order { term, order } => {
                self.learn_leader(term, Some(from));
                match self.shared.peers.leader == Some(from) && self.shared.peers.term == term {
                    true => self.order(from, order),
                    false => self.shared.stats.refused.sender += 1,
                }
            }
            Message::Report { from: reporter, report, relayed } => {
                if self.leading {
                    self.count_report(reporter, &report);
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
        let peers = &mut self.shared.peers;
        if leader.is_some()
            && (term > peers.term || (term > 0 && term == peers.term && peers.leader.is_none()))
        {
            peers.term = term;
            peers.leader = leader;
        }
    }

    /// Drops the belief that `from` leads if it doesn't say so itself: somebody was wrong about it.
    pub(super) fn doubt_leader(&mut self, from: NodeId, term: u64, leader: Option<NodeId>) {
        let peers = &mut self.shared.peers;
        if peers.leader == Some(from) && leader != Some(from) && term < peers.term {
            peers.term = term;
            peers.leader = None;
        }
    }

    /// Whether `from` may speak for `node`: itself, or as a member that passes on.
    fn speaks(&self, from: NodeId, node: NodeId, relayed: bool) -> bool {
        if relayed { self.shared.table.is_live(from) } else { from == node }
    }

    /// Counts a report that the controller has no use for: of a reign that is over, or not its sender's.
    fn count_report(&mut self, reporter: NodeId, report: &Report) {
        let (Report::Completed { partition, epoch, .. }
        | Report::HandoverReady { partition, epoch, .. }
        | Report::HandoverCancel { partition, epoch }
        | Report::Lagging { partition, epoch, .. }) = *report
        else {
            return;
        };
        let refused = &mut self.shared.stats.refused;
        match self.shared.table.assignment(partition) {
            None => refused.partition += 1,
            Some(assignment) if assignment.epoch != epoch => refused.epoch += 1,
            Some(assignment) if assignment.primary != reporter => refused.sender += 1,
            Some(_) => {}
        }
    }
}

/// Reads the partitions whose records were acknowledged, so that their cache misses overlap.
fn touch(partitions: &[Partition], marks: &[Mark]) {
    let marked = || marks.iter().filter_map(|mark| partitions.get(mark.partition.index()));
    let read = marked().fold(0, |read, partition| read ^ partition.promised.0);
    std::hint::black_box(marked().fold(read, |read, partition| read ^ partition.touch_role()));
}
