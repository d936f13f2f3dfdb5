//! Where a command runs.

use super::gather::Gather;
use super::refusal::Refusal;
use super::scan::slot_argument;
use super::spec::{CommandSpec, Route, SessionOp};
use crate::engine::ids::{PartitionId, Slot};
use crate::engine::resp::Proto;

/// Where a command runs.
#[derive(Debug)]
pub enum Plan {
    /// Here, at the connection.
    Session(SessionOp),
    /// At the primary of one partition.
    One {
        /// The partition.
        partition: PartitionId,
        /// The slot of its keys.
        slot: Slot,
    },
    /// In parts that are put together here.
    Gather(Box<Gather>),
}

/// Plans a command that [`resolve`](super::resolve) found for `args`. `entropy` decides where
/// RANDOMKEY starts. Allocates only for a [`Plan::Gather`].
///
/// # Errors
/// When its keys don't share the slot they must, or its arguments rule out that it runs at all.
#[inline]
pub fn plan(
    spec: &'static CommandSpec,
    args: &[&[u8]],
    proto: Proto,
    partition_count: u16,
    entropy: u64,
) -> Result<Plan, Refusal> {
    match spec.route {
        Route::Session(op) => Ok(Plan::Session(op)),
        Route::Key => {
            check_pairs(spec, args)?;
            common_slot(spec, args).map(|slot| one(slot, partition_count)).ok_or(Refusal::CrossSlot)
        }
        Route::Slot => Ok(one(slot_argument(args)?, partition_count)),
        Route::PerKey(gathering) => {
            check_pairs(spec, args)?;
            match common_slot(spec, args) {
                Some(slot) => Ok(one(slot, partition_count)),
                None => {
                    Ok(Plan::Gather(Box::new(Gather::per_key(spec, gathering, args, proto, partition_count))))
                }
            }
        }
        Route::PerPartition(gathering) => {
            let gather = Gather::per_partition(spec, gathering, args, proto, partition_count, entropy)?;
            Ok(Plan::Gather(Box::new(gather)))
        }
    }
}

/// Whether the keys of a command that may run in parts have several slots.
///
/// # Errors
/// When a value lacks.
#[inline]
pub fn has_many_slots(spec: &CommandSpec, args: &[&[u8]]) -> Result<bool, Refusal> {
    check_pairs(spec, args)?;
    Ok(common_slot(spec, args).is_none())
}

/// Refuses keys with values that lack the last value.
#[inline]
fn check_pairs(spec: &CommandSpec, args: &[&[u8]]) -> Result<(), Refusal> {
    let complete = spec.keys.step != 2 || args.len() % 2 == 1;
    if complete { Ok(()) } else { Err(Refusal::Arity(spec.name)) }
}

fn one(slot: Slot, partition_count: u16) -> Plan {
    Plan::One { partition: slot.partition(partition_count), slot }
}

/// The slot of all keys; `None` if they have several.
#[inline]
fn common_slot(spec: &CommandSpec, args: &[&[u8]]) -> Option<Slot> {
    let mut keys = spec.keys.of(args);
    let slot = Slot::of(keys.next()?);
    keys.all(|key| Slot::of(key) == slot).then_some(slot)
}
