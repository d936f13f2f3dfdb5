//! What engines say to each other.
//!
//! A frame is the sender's incarnation (u64, little-endian) and one or more messages, postcard
//! encoded one after the other. Bulk bytes (records, requests, replies) are borrowed from the frame.
//! A frame that does not decode is refused whole and counted; its length was bounded by the
//! transport before it was read.

mod possible;

pub use possible::NUMBER_MAX;

use super::controller::{Order, Report, Sealed};
use super::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, TableVersion, Version};
use super::table::{Assignment, Member, Table};
use serde::{Deserialize, Serialize, Serializer};
use std::sync::Arc;

/// One message between two engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// Opens a batch: the [`Message::Records`] behind it in the same frame are answered by one
    /// [`Message::Ack`]. Without records it is a heartbeat.
    Batch(Batch),
    /// Answers a batch, and grants a read lease.
    Ack(Ack),
    /// Consecutive records of one partition, from its primary.
    #[serde(borrow)]
    Records(Records<'a>),
    /// A client's operation, sent on to the partition's primary.
    Forward {
        /// The asker's number for it.
        id: u64,
        /// How long the asker still waits, in milliseconds.
        patience_ms: u32,
        /// The encoded operation ([`OwnedOp`](super::op::OwnedOp)).
        #[serde(serialize_with = "at_once")]
        op: &'a [u8],
    },
    /// The answer to a [`Message::Forward`].
    ForwardReply {
        /// The asker's number.
        id: u64,
        /// What became of it.
        outcome: ForwardOutcome,
        /// The reply, encoded for the asking client, when the outcome is `Done`.
        #[serde(serialize_with = "at_once")]
        reply: &'a [u8],
    },
    /// The primary attaches a learner: records after `after` follow.
    Attach {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// Tells attempts apart; grows.
        attempt: u64,
        /// The last sequence that the learner gets by snapshot only.
        after: Sequence,
    },
    /// The learner is ready for records.
    Attached {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
    },
    /// Part of a snapshot: entries as records, any order.
    SnapshotChunk {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
        /// 0, 1, 2, …
        number: u32,
        /// What the primary had executed when it made it: nothing in it is of a later record.
        as_of: Sequence,
        /// CRC-32 of `entries`.
        crc: u32,
        /// Records ([`crate::engine::record`]).
        #[serde(serialize_with = "at_once")]
        entries: &'a [u8],
        /// Exactly-once state to merge; usually empty.
        #[serde(serialize_with = "at_once")]
        dedup: &'a [u8],
    },
    /// A chunk has been applied.
    SnapshotAck {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
        /// The chunk.
        number: u32,
    },
    /// All chunks are applied: what the copy must look like at `sequence`.
    SnapshotEnd {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
        /// Where the comparison holds.
        sequence: Sequence,
        /// Entries.
        count: u64,
        /// Digest root.
        digest: u64,
        /// The source's clock: deletes are no entries, and what they read on it must not be given again.
        clock: Version,
    },
    /// The learner's answer to [`Message::SnapshotEnd`].
    SnapshotDone {
        /// The partition.
        partition: PartitionId,
        /// The attempt.
        attempt: u64,
        /// The verdict.
        verdict: SnapshotVerdict,
    },
    /// Anti-entropy: the primary's digest at a sequence that all have acknowledged.
    Digest {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// Where the digest holds.
        sequence: Sequence,
        /// Digest root.
        digest: u64,
    },
    /// The copies differ at equal sequence: a bug's alarm.
    DigestMismatch {
        /// The partition.
        partition: PartitionId,
        /// The primary's epoch.
        epoch: Epoch,
        /// Where they differ.
        sequence: Sequence,
    },
    /// Part of what a learner took before its primary died, for a former copy that lacks it.
    Overlay {
        /// The partition.
        partition: PartitionId,
        /// The epoch promised for its recovery.
        epoch: Epoch,
        /// 0, 1, 2, …
        number: u32,
        /// CRC-32 of `records`.
        crc: u32,
        /// Records to apply in this order.
        #[serde(serialize_with = "at_once")]
        records: &'a [u8],
        /// After the last part: what the former copy becomes.
        end: Option<OverlayEnd<'a>>,
    },
    /// A part of an overlay was taken over.
    OverlayAck {
        /// The partition.
        partition: PartitionId,
        /// The epoch promised for its recovery.
        epoch: Epoch,
        /// The part.
        number: u32,
    },
    /// The whole table.
    Table(Box<Table>),
    /// The table's next step, for who has the one before.
    TableStep(TableStep),
    /// Asks for the table if it is newer than this.
    TablePull {
        /// The asker's incarnation.
        incarnation: Incarnation,
        /// The asker's version.
        version: TableVersion,
    },
    /// A node asks to become a member, or says what changed about it.
    Join {
        /// The member.
        member: Member,
        /// Whether it was already passed on once.
        relayed: bool,
    },
    /// From the controller.
    Order {
        /// The term of the agreed log that it leads: whoever knows of a later one doesn't obey.
        term: u64,
        /// What to do.
        order: Order,
    },
    /// To the controller, on behalf of `from`.
    Report {
        /// Who reports.
        from: NodeId,
        /// What.
        report: Report,
        /// Whether it was already passed on once.
        relayed: bool,
    },
    /// To the controller: the answer to a seal.
    Sealed(Sealed),
}

/// What leads from one table to a later one of the same incarnation, when only assignments change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStep {
    /// The version it starts from.
    pub after: TableVersion,
    /// The version it leads to.
    pub version: TableVersion,
    /// The assignments that changed.
    pub partitions: Vec<(PartitionId, Arc<Assignment>)>,
}

impl TableStep {
    /// The step between two tables; `None` if more than assignments changed.
    pub fn between(before: &Table, now: &Table) -> Option<TableStep> {
        let Table {
            incarnation,
            version,
            settings,
            ever_three,
            members,
            partitions,
            carried_by,
            maps,
            retired,
        } = now;
        let same = before.incarnation == *incarnation
            && before.settings == *settings
            && before.ever_three == *ever_three
            && before.carried_by == *carried_by
            && before.partitions.len() == partitions.len()
            && before.members == *members
            && before.maps == *maps
            && before.retired == *retired;
        let changed = before
            .partitions
            .iter()
            .zip(partitions)
            .zip(0..)
            .filter(|((old, new), _)| old != new)
            .map(|((_, new), id)| (PartitionId(id), new.clone()));
        same.then(|| TableStep { after: before.version, version: *version, partitions: changed.collect() })
    }
}

/// What completes an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayEnd<'a> {
    /// The last record the learner took.
    pub last: Sequence,
    /// The learner's clock.
    pub clock: Version,
    /// Exactly-once state to merge.
    #[serde(serialize_with = "at_once")]
    pub dedup: &'a [u8],
}

/// The head of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Numbers the sender's batches to this peer, from 1. 0 is a heartbeat.
    pub number: u64,
    /// When it was sent, on the sender's boot-time clock; echoed by the ack.
    pub sent_us: u64,
    /// The sender's table.
    pub table_version: TableVersion,
    /// The highest term of the agreed log that the sender knows of.
    pub term: u64,
    /// The leader of that term.
    pub leader: Option<NodeId>,
    /// What the sender holds; only in heartbeats.
    pub load: Option<Load>,
}

/// What a node says of itself to all, for status pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Entries in the partitions it is primary of.
    pub keys: u64,
    /// Bytes its entries take, backups included.
    pub bytes: u64,
    /// Operations since its start.
    pub operations: u64,
    /// Its memory bound; 0 is none.
    pub bytes_max: u64,
    /// Client connections.
    pub clients: u32,
    /// Partitions it streams to others now.
    pub migrations: u32,
    /// Snapshot bytes it has sent since its start.
    pub snapshot_bytes: u64,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Bytes of copies that it has still to send, estimated.
    pub copy_left_bytes: u64,
    /// From the leader: copies and primaries that are not yet where they should be.
    pub moves_wanted: u32,
}

/// The answer to a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The batch.
    pub number: u64,
    /// Its `sent_us`.
    pub echo_us: u64,
    /// Whether the sender of the batch may count this as a read lease.
    pub granted: bool,
    /// The answerer's table.
    pub table_version: TableVersion,
    /// The partitions of the batch whose records were not taken.
    pub refused: Vec<(PartitionId, Refusal)>,
}

/// Why records were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// Something is missing: send again from here.
    Gap(Sequence),
    /// A later epoch was promised.
    Fenced(Epoch),
    /// The copy isn't attached (yet), or the table here is older.
    Unknown,
}

/// Consecutive records of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records<'a> {
    /// The partition.
    pub partition: PartitionId,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// The sequence of the first record; with `count` 0 a probe of where the follower stands.
    pub first: Sequence,
    /// How many.
    pub count: u32,
    /// Everything up to here is committed.
    pub commit: Sequence,
    /// The records.
    #[serde(serialize_with = "at_once")]
    pub records: &'a [u8],
}

/// What became of a forwarded operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardOutcome {
    /// Executed; the reply follows.
    Done,
    /// Not executed: the route was stale; the answerer's table version.
    Stale(TableVersion),
    /// Not executed: `patience_ms` ran out; the code to answer with.
    Expired(Unavailable),
    /// Unknown: the primary lost its reign while it waited for the commit.
    InDoubt,
}

/// Why an operation could not run for as long as it was willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unavailable {
    /// The partition is changing hands.
    ChangingHands,
    /// Fewer copies than `min_copies`.
    CopiesShort,
    /// No majority or no primary.
    NoPrimary,
}

impl Unavailable {
    /// The RESP error, without the leading `-`.
    pub fn resp_error(self) -> &'static str {
        match self {
            Unavailable::ChangingHands => "TRYAGAIN The partition is changing hands; retry in 100 ms",
            Unavailable::CopiesShort => "NOREPLICAS Not enough live copies to take the write",
            Unavailable::NoPrimary => "CLUSTERDOWN No majority of the cluster, or no primary for this key",
        }
    }
}

/// The learner's verdict on a finished snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotVerdict {
    /// Count and digest are equal: the copy is complete.
    Equal,
    /// They differ: start over.
    Different,
    /// Not at that sequence; compare again.
    NotYet,
}

/// Serde takes a slice for a sequence and hands its bytes over one by one; what is encoded is the same.
fn at_once<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Starts a frame.
pub fn begin(incarnation: Incarnation, frame: &mut Vec<u8>) {
    frame.extend_from_slice(&incarnation.0.to_le_bytes());
}

/// Appends a message to a frame.
pub fn append(message: &Message<'_>, frame: &mut Vec<u8>) {
    struct Tail<'v>(&'v mut Vec<u8>);
    impl postcard::ser_flavors::Flavor for Tail<'_> {
        type Output = ();
        fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
            self.0.push(byte);
            Ok(())
        }
        fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
            self.0.extend_from_slice(bytes);
            Ok(())
        }
        fn finalize(self) -> postcard::Result<()> {
            Ok(())
        }
    }
    // Writing to a Vec cannot fail, and every field has a known length.
    let result = postcard::serialize_with_flavor(message, Tail(frame));
    debug_assert!(result.is_ok());
}

/// Splits the incarnation off a frame.
pub fn open(frame: &[u8]) -> Option<(Incarnation, &[u8])> {
    let (head, rest) = frame.split_first_chunk::<8>()?;
    Some((Incarnation(u64::from_le_bytes(*head)), rest))
}

/// Decodes the next message of a frame, advancing `rest`.
pub fn next<'a>(rest: &mut &'a [u8]) -> Result<Message<'a>, postcard::Error> {
    let (message, tail) = postcard::take_from_bytes(rest)?;
    *rest = tail;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_borrows_the_records() {
        let records = Message::Records(Records {
            partition: PartitionId(7),
            epoch: Epoch(3),
            first: Sequence(9),
            count: 2,
            commit: Sequence(8),
            records: b"abc",
        });
        let pull = Message::TablePull { incarnation: Incarnation(1), version: TableVersion(2) };
        let mut frame = Vec::new();
        begin(Incarnation(42), &mut frame);
        append(&records, &mut frame);
        append(&pull, &mut frame);
        let (incarnation, mut rest) = open(&frame).unwrap();
        assert_eq!(incarnation, Incarnation(42));
        assert_eq!(next(&mut rest).unwrap(), records);
        assert_eq!(next(&mut rest).unwrap(), pull);
        assert!(rest.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn hostile_frames_are_refused_not_fatal(bytes: Vec<u8>) {
            if let Some((_, mut rest)) = open(&bytes) {
                while !rest.is_empty() && next(&mut rest).is_ok() {}
            }
        }
    }
}
