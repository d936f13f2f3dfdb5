//! Commands decoded ahead of their execution, so that their cache misses overlap.

use super::connection::MAP;
use super::facts::Host;
use crate::engine::ids::{PartitionId, Slot};
use crate::engine::resp::{Decoded, Decoder, ProtocolError, Trust};
use crate::engine::store::KeyRef;
use smallvec::SmallVec;

/// Commands decoded at a time.
const COMMANDS_MAX: usize = 64;
/// A longer first argument is hardly a key: whoever needs its hash computes it.
const KEY_BYTES_MAX: usize = 256;

/// The first argument of a command, which is its key if it has just one.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstKey {
    pub slot: Slot,
    /// [`KeyRef::hash`].
    pub hash: u64,
}

/// A command and what is known of it before it runs.
pub(super) struct Ahead<'a> {
    pub args: SmallVec<[&'a [u8]; 4]>,
    pub key: Option<FirstKey>,
    /// Where it ends in the input.
    pub end: usize,
}

/// Why a batch ends where it does.
pub(super) enum Stop {
    /// It has as many commands as it may.
    Full,
    /// An inline command of so many bytes: [`Decoder::args`] has its arguments.
    Inline(usize),
    /// The next command lacks so many bytes at least.
    Incomplete(usize),
    /// The input is not RESP from there on.
    Broken(ProtocolError),
}

/// Commands of an input, decoded. It lives where it is made: its room is some KiB, which moving it would copy.
pub(super) type Batch<'a> = SmallVec<[Ahead<'a>; COMMANDS_MAX]>;

/// Decodes what is at the front of `input` into an empty batch. A stranger's commands come one by one: the first
/// may be the one that makes it known.
#[inline]
pub(super) fn decode<'a>(
    decoder: &mut Decoder,
    input: &'a [u8],
    trust: Trust,
    batch: &mut Batch<'a>,
) -> Stop {
    let commands_max = if trust == Trust::Stranger { 1 } else { COMMANDS_MAX };
    let mut end = 0;
    loop {
        if batch.len() == commands_max || (end == input.len() && end > 0) {
            return Stop::Full;
        }
        let rest = &input[end..];
        match decoder.decode(rest, trust) {
            Ok(Decoded::Command { consumed }) => {
                let Some(args) = decoder.bulks(rest) else { return Stop::Inline(consumed) };
                end += consumed;
                let key = args
                    .get(1)
                    .filter(|key| key.len() <= KEY_BYTES_MAX)
                    .map(|key| FirstKey { slot: Slot::of(key), hash: KeyRef::new(MAP, key).hash });
                batch.push(Ahead { args, key, end });
            }
            Ok(Decoded::Incomplete { needed }) => return Stop::Incomplete(needed),
            Err(error) => return Stop::Broken(error),
        }
    }
}

/// Has the keys' memory read, so that the cache misses of a batch overlap.
pub(super) fn touch(batch: &Batch<'_>, partition_count: u16, host: &impl Host) {
    if batch.len() > 1 {
        let keys: SmallVec<[(PartitionId, u64); COMMANDS_MAX]> = batch
            .iter()
            .filter_map(|command| command.key)
            .map(|key| (key.slot.partition(partition_count), key.hash))
            .collect();
        host.touch(&keys);
    }
}
