//! Commands decoded ahead of their execution, so that their cache misses overlap.

use super::connection::MAP;
use super::facts::Host;
use crate::engine::command::{CommandSpec, KeyPositions, Route, resolve};
use crate::engine::ids::{PartitionId, Slot};
use crate::engine::resp::{COMMON_ARGS_MAX, Decoded, Decoder, Front, ProtocolError, Trust};
use crate::engine::store::KeyRef;
use arrayvec::ArrayVec;

/// Commands decoded at a time.
const COMMANDS_MAX: usize = 64;
/// Arguments of a batch, of which the last command may take so many more.
const ARGS_MAX: usize = 192;
const ARGS_ROOM: usize = ARGS_MAX + COMMON_ARGS_MAX;
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
    /// A command of so many bytes that is no common one: [`Decoder::args`] has its arguments.
    Apart(usize),
    /// The next command lacks so many bytes at least.
    Incomplete(usize),
    /// The input is not RESP from there on.
    Broken(ProtocolError),
}

/// Commands of an input, decoded. It lives where it is made: its room is some KiB, which moving it would copy.
pub(super) struct Batch<'a> {
    pub commands: ArrayVec<Ahead, COMMANDS_MAX>,
    args: ArrayVec<&'a [u8], ARGS_ROOM>,
    keys: ArrayVec<Key, COMMANDS_MAX>,
    writes: bool,
    /// The command that was looked up last: mostly the next one is the same.
    pub last: Option<&'static CommandSpec>,
}

impl<'a> Batch<'a> {
    #[inline(always)]
    pub(super) fn new(last: Option<&'static CommandSpec>) -> Batch<'a> {
        Batch { commands: ArrayVec::new(), args: ArrayVec::new(), keys: ArrayVec::new(), writes: false, last }
    }

    #[inline(always)]
    pub(super) fn args_of(&self, command: &Ahead) -> &[&'a [u8]] {
        &self.args[command.args_at as usize..command.args_end as usize]
    }

    #[inline(always)]
    pub(super) fn key_of(&self, command: &Ahead) -> Option<Key> {
        command.key_at.map(|at| self.keys[at as usize])
    }

    /// Decodes what is at the front of `input` into an empty batch. A stranger's commands come apart: the first may
    /// be the one that makes it known.
    #[inline(always)]
    pub(super) fn decode(
        &mut self,
        decoder: &mut Decoder,
        input: &'a [u8],
        trust: Trust,
        partition_count: u16,
    ) -> Stop {
        let (mut end, mut front) = (0, Front::none());
        loop {
            let is_full = self.commands.is_full() || self.args.len() >= ARGS_MAX;
            if is_full || (end == input.len() && end > 0) {
                return Stop::Full;
            }
            let rest = &input[end..];
            let args_at = self.args.len();
            let common = match trust {
                Trust::Authenticated => decoder.decode_common(rest, &mut front, &mut self.args),
                Trust::Stranger => None,
            };
            let Some(consumed) = common else {
                return match decoder.decode(rest, trust) {
                    Ok(Decoded::Command { consumed }) => Stop::Apart(consumed),
                    Ok(Decoded::Incomplete { needed }) => Stop::Incomplete(needed),
                    Err(error) => Stop::Broken(error),
                };
            };
            end += consumed;
            self.look_ahead(args_at, front.is_same(), end, partition_count);
        }
    }

    /// Finds out what can be known of the command whose arguments came last.
    #[inline(always)]
    fn look_ahead(&mut self, args_at: usize, is_same: bool, end: usize, partition_count: u16) {
        let spec = self.spec_of(args_at, is_same);
        let args = &self.args[args_at..];
        let key = args.get(1).filter(|key| {
            let has_one = |spec: &CommandSpec| spec.keys == KeyPositions::FIRST && spec.route == Route::Key;
            spec.is_some_and(has_one) && key.len() <= KEY_BYTES_MAX
        });
        self.writes |= spec.is_some_and(CommandSpec::is_write);
        let key_at = key.map(|key| {
            self.keys.push(locate(key, partition_count));
            self.keys.len() as u32 - 1
        });
        let (args_at, args_end) = (args_at as u32, self.args.len() as u32);
        self.commands.push(Ahead { spec, args_at, args_end, key_at, end });
    }

    /// What the arguments from `args_at` on ask for: mostly the same as those before, which their front may say.
    #[inline(always)]
    fn spec_of(&mut self, args_at: usize, is_same: bool) -> Option<&'static CommandSpec> {
        let args = &self.args[args_at..];
        let fits = |spec: &CommandSpec| {
            args.first().is_some_and(|name| spec.is_named(name)) && spec.accepts(args.len())
        };
        match self.last {
            Some(spec) if is_same || fits(spec) => {
                debug_assert!(fits(spec));
                Some(spec)
            }
            _ => self.look_up(args_at),
        }
    }

    #[inline(never)]
    fn look_up(&mut self, args_at: usize) -> Option<&'static CommandSpec> {
        let args = &self.args[args_at..];
        let spec = resolve(args).ok();
        // A subcommand is named by two arguments, and so is looked up each time.
        self.last = spec.filter(|spec| spec.subcommands.is_empty() && spec.name.len() == args[0].len());
        spec
    }

    /// Has the keys' memory read, so that the cache misses of a batch overlap.
    pub(super) fn touch(&self, host: &impl Host) {
        if self.keys.len() > 1 {
            host.touch(&self.keys, self.writes);
        }
    }
}

/// Where a key belongs.
#[inline(always)]
pub(super) fn locate(key: &[u8], partition_count: u16) -> Key {
    (Slot::of(key).partition(partition_count), KeyRef::new(MAP, key).hash)
}
