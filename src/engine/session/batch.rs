//! Commands decoded ahead of their execution, so that their cache misses overlap.

use super::connection::MAP;
use super::facts::Host;
use crate::engine::command::{CommandSpec, KeyPositions, Route, resolve};
use crate::engine::ids::{PartitionId, Slot};
use crate::engine::resp::{Decoded, Decoder, ProtocolError, Trust};
use crate::engine::store::KeyRef;
use smallvec::SmallVec;

/// Commands decoded at a time.
const COMMANDS_MAX: usize = 64;
/// Arguments that all of them have room for; the one that goes beyond is the last of its batch.
const ARGS_MAX: usize = 256;
/// A longer first argument is hardly a key: whoever needs its hash computes it.
const KEY_BYTES_MAX: usize = 256;

/// The partition of a key, and its [`KeyRef::hash`].
pub(super) type Key = (PartitionId, u64);

/// A command and what is known of it before it runs.
pub(super) struct Ahead {
    /// `None` if it is refused: whoever wants to know why resolves it again.
    pub spec: Option<&'static CommandSpec>,
    /// Where its arguments begin among those of all.
    args_at: u32,
    args_end: u32,
    /// Its place among the keys, if it has just one.
    key_at: Option<u32>,
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
pub(super) struct Batch<'a> {
    pub commands: SmallVec<[Ahead; COMMANDS_MAX]>,
    args: SmallVec<[&'a [u8]; ARGS_MAX]>,
    keys: SmallVec<[Key; COMMANDS_MAX]>,
    writes: bool,
}

impl<'a> Batch<'a> {
    #[inline]
    pub(super) fn new() -> Batch<'a> {
        Batch { commands: SmallVec::new(), args: SmallVec::new(), keys: SmallVec::new(), writes: false }
    }

    pub(super) fn args_of(&self, command: &Ahead) -> &[&'a [u8]] {
        &self.args[command.args_at as usize..command.args_end as usize]
    }

    pub(super) fn key_of(&self, command: &Ahead) -> Option<Key> {
        command.key_at.map(|at| self.keys[at as usize])
    }

    /// Decodes what is at the front of `input` into an empty batch. A stranger's commands come one by one: the
    /// first may be the one that makes it known.
    #[inline]
    pub(super) fn decode(
        &mut self,
        decoder: &mut Decoder,
        input: &'a [u8],
        trust: Trust,
        partition_count: u16,
    ) -> Stop {
        let commands_max = if trust == Trust::Stranger { 1 } else { COMMANDS_MAX };
        let mut end = 0;
        loop {
            let is_full = self.commands.len() == commands_max || self.args.len() >= ARGS_MAX;
            if is_full || (end == input.len() && end > 0) {
                return Stop::Full;
            }
            let rest = &input[end..];
            let args_at = self.args.len();
            let common = match trust {
                Trust::Authenticated => decoder.decode_common(rest, &mut self.args),
                Trust::Stranger => None,
            };
            end += match common {
                Some(consumed) => consumed,
                None => match decoder.decode(rest, trust) {
                    Ok(Decoded::Command { consumed }) => {
                        if !decoder.bulks(rest, &mut self.args) {
                            return Stop::Inline(consumed);
                        }
                        consumed
                    }
                    Ok(Decoded::Incomplete { needed }) => return Stop::Incomplete(needed),
                    Err(error) => return Stop::Broken(error),
                },
            };
            self.look_ahead(args_at, end, partition_count);
        }
    }

    /// Finds out what can be known of the command whose arguments came last.
    #[inline]
    fn look_ahead(&mut self, args_at: usize, end: usize, partition_count: u16) {
        let args = &self.args[args_at..];
        let spec = self.spec_of(args);
        let key = args.get(1).filter(|key| {
            let has_one = |spec: &CommandSpec| spec.keys == KeyPositions::FIRST && spec.route == Route::Key;
            spec.is_some_and(has_one) && key.len() <= KEY_BYTES_MAX
        });
        self.writes |= spec.is_some_and(CommandSpec::is_write);
        let key_at = key.map(|_| self.keys.len() as u32);
        self.keys.extend(key.map(|key| locate(key, partition_count)));
        let (args_at, args_end) = (args_at as u32, self.args.len() as u32);
        self.commands.push(Ahead { spec, args_at, args_end, key_at, end });
    }

    /// What these arguments ask for: mostly the same as those before. A subcommand is named by two of them, and
    /// so is looked up each time.
    #[inline]
    fn spec_of(&self, args: &[&[u8]]) -> Option<&'static CommandSpec> {
        let last = self.commands.last();
        let last = last.and_then(|last| Some((last.spec?, self.args_of(last).first()?)));
        match (last, args.first()) {
            (Some((spec, name)), Some(again))
                if name == again
                    && name.eq_ignore_ascii_case(spec.name.as_bytes())
                    && spec.accepts(args.len()) =>
            {
                Some(spec)
            }
            _ => resolve(args).ok(),
        }
    }

    /// Has the keys' memory read, so that the cache misses of a batch overlap.
    pub(super) fn touch(&self, host: &impl Host) {
        if self.keys.len() > 1 {
            host.touch(&self.keys, self.writes);
        }
    }
}

/// Where a key belongs.
#[inline]
pub(super) fn locate(key: &[u8], partition_count: u16) -> Key {
    (Slot::of(key).partition(partition_count), KeyRef::new(MAP, key).hash)
}
