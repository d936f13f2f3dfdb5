//! Bugs put into a cluster on purpose, to see that the checkers catch them.
//!
//! The engine itself stays as it is: what it says is falsified on the way, so that the others behave
//! as they would if it had the bug.

use crate::engine::controller::Sealed;
use crate::engine::ids::Sequence;
use crate::engine::message::{self, Message, SnapshotVerdict};
use bytes::Bytes;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tamper {
    /// Backups acknowledge records that they never took.
    AcknowledgeUnseen,
    /// Sealed survivors understate how far they have come, so that anyone may be promoted.
    PromoteAnyone,
    /// Learners call their copies complete as soon as the snapshot ends, whatever is in them.
    CompleteTooEarly,
    /// Backups grant read leases although they have promised the reign away. No workload notices this
    /// yet: it takes a deposed primary that still hears from the one backup it asks.
    LeaseDespiteSeal,
}

impl Tamper {
    /// Those that the workloads and checkers notice within a few dozen seeds.
    pub const NOTICED: [Tamper; 3] =
        [Tamper::AcknowledgeUnseen, Tamper::PromoteAnyone, Tamper::CompleteTooEarly];

    /// What arrives instead of a frame.
    pub fn frame(self, frame: &Bytes) -> Bytes {
        let Some((incarnation, mut rest)) = message::open(frame) else { return frame.clone() };
        let mut forged = Vec::with_capacity(frame.len());
        message::begin(incarnation, &mut forged);
        while !rest.is_empty() {
            let Ok(message) = message::next(&mut rest) else { return frame.clone() };
            if let Some(message) = self.message(message) {
                message::append(&message, &mut forged);
            }
        }
        forged.into()
    }

    fn message(self, message: Message<'_>) -> Option<Message<'_>> {
        Some(match (self, message) {
            // Every third group vanishes, and its batch is acknowledged all the same.
            (Tamper::AcknowledgeUnseen, Message::Records(records))
                if records.count > 0 && records.first.0 % 3 == 0 =>
            {
                return None;
            }
            (Tamper::AcknowledgeUnseen, Message::Ack(mut ack)) => {
                ack.refused.clear();
                Message::Ack(ack)
            }
            (Tamper::PromoteAnyone, Message::Sealed(Sealed { deposed, mut partitions })) => {
                for promise in &mut partitions {
                    promise.last = Sequence(u64::MAX - promise.last.0);
                }
                Message::Sealed(Sealed { deposed, partitions })
            }
            (Tamper::CompleteTooEarly, Message::SnapshotDone { partition, attempt, .. }) => {
                Message::SnapshotDone { partition, attempt, verdict: SnapshotVerdict::Equal }
            }
            (Tamper::CompleteTooEarly, Message::SnapshotChunk { partition, attempt, number, crc: _, .. }) => {
                // The chunk is acknowledged and nothing of it arrives.
                Message::SnapshotChunk {
                    partition,
                    attempt,
                    number,
                    crc: crc32fast::hash(&[]),
                    entries: &[],
                    dedup: &[],
                }
            }
            (Tamper::LeaseDespiteSeal, Message::Ack(mut ack)) => {
                ack.granted = true;
                Message::Ack(ack)
            }
            (_, message) => message,
        })
    }
}
