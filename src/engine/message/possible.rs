//! Whether what a message says can be: numbers that only ever grow by one, or with the clock, have an
//! end that no cluster reaches. Beyond it the next one would overflow.

use super::{Ack, Batch, Load, Message, Refusal};
use crate::engine::controller::{Held, Order, Report, Sealed, Taken};
use crate::engine::ids::Sequence;

/// No number that counts, and no clock, gets here.
pub const NUMBER_MAX: u64 = 1 << 62;
/// No node holds or does so much; sums over all members must not overflow.
const LOAD_MAX: u64 = 1 << 48;

fn can_be(numbers: &[u64]) -> bool {
    numbers.iter().all(|&number| number <= NUMBER_MAX)
}

impl Message<'_> {
    /// Whether its numbers can be. Those of records are looked at where they are refused, those of
    /// tables with the rest of the table.
    pub fn is_possible(&self) -> bool {
        match self {
            Message::Batch(batch) => batch.is_possible(),
            Message::Ack(ack) => ack.is_possible(),
            Message::Attach { epoch, attempt, after, .. } => can_be(&[epoch.0, *attempt, after.0]),
            Message::SnapshotChunk { as_of, .. } => can_be(&[as_of.0]),
            Message::SnapshotEnd { sequence, clock, .. } => can_be(&[sequence.0, clock.0]),
            Message::Overlay { epoch, end, .. } => {
                can_be(&[epoch.0]) && end.is_none_or(|end| can_be(&[end.last.0, end.clock.0]))
            }
            Message::Order { term, order } => can_be(&[*term]) && is_possible_order(order),
            Message::Report { report: Report::Held(held), .. } => held.iter().all(is_possible_copy),
            Message::Sealed(Sealed { partitions, .. }) => {
                partitions.iter().all(|promise| can_be(&[promise.epoch.0, promise.last.0]))
            }
            Message::Records(_)
            | Message::Forward { .. }
            | Message::ForwardReply { .. }
            | Message::Attached { .. }
            | Message::SnapshotAck { .. }
            | Message::SnapshotDone { .. }
            | Message::OverlayAck { .. }
            | Message::Digest { .. }
            | Message::DigestMismatch { .. }
            | Message::Table(_)
            | Message::TableStep(_)
            | Message::TablePull { .. }
            | Message::Join { .. }
            | Message::Report { .. } => true,
        }
    }
}

impl Batch {
    fn is_possible(&self) -> bool {
        can_be(&[self.number, self.sent_us, self.table_version.0, self.term])
            && self.load.is_none_or(|load| load.is_possible())
    }
}

impl Load {
    fn is_possible(&self) -> bool {
        let Load { keys, bytes, operations, bytes_max, snapshot_bytes, uptime_s, copy_left_bytes, .. } =
            *self;
        let numbers = [keys, bytes, operations, bytes_max, snapshot_bytes, uptime_s, copy_left_bytes];
        numbers.iter().all(|&number| number <= LOAD_MAX)
    }
}

impl Ack {
    fn is_possible(&self) -> bool {
        can_be(&[self.number, self.echo_us, self.table_version.0])
            && self.refused.iter().all(|(_, refusal)| match refusal {
                Refusal::Gap(Sequence(number)) => can_be(&[*number]),
                Refusal::Fenced(epoch) => can_be(&[epoch.0]),
                Refusal::Unknown => true,
            })
    }
}

fn is_possible_order(order: &Order) -> bool {
    match order {
        Order::Seal { partitions, .. } | Order::Salvage { partitions, .. } => {
            partitions.iter().all(|(_, epoch)| can_be(&[epoch.0]))
        }
        Order::Handover { epoch, .. } | Order::Merge { epoch, .. } => can_be(&[epoch.0]),
    }
}

fn is_possible_copy(held: &Held) -> bool {
    let taken = match held.taken {
        Taken::Records { after, last } => can_be(&[after.0, last.0]),
        Taken::Nothing | Taken::Lost => true,
    };
    taken && held.copy.is_none_or(|(epoch, last)| can_be(&[epoch.0, last.0]))
}
