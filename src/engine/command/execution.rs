//! Running one command at the primary of one partition.

use super::refusal::Refusal;
use super::spec::CommandSpec;
use crate::engine::ids::MapId;
use crate::engine::op::{Long, Splice};
use crate::engine::resp::{LONG_BYTES_MIN, Proto, ReplyWriter};
use crate::engine::store::{EntryKind, EntryView, KeyRef, Keyspace, NewValue};
use bytes::Bytes;

/// A command on its way to [`execute`].
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Name and arguments.
    pub args: &'a [&'a [u8]],
    /// The map it works on.
    pub map: MapId,
    /// How the reply is encoded.
    pub proto: Proto,
    /// The [`KeyRef::hash`] of its first key, where it is known already.
    pub key_hash: Option<u64>,
    /// What needs no copy.
    pub long: Option<&'a Long>,
}

/// What a command's function works with.
pub struct Execution<'a, 'k> {
    /// The command.
    pub spec: &'static CommandSpec,
    /// The partition's keys.
    pub keys: &'a mut Keyspace<'k>,
    /// Name and arguments; their number fits the command's arity.
    pub args: &'a [&'a [u8]],
    /// The map it works on.
    pub map: MapId,
    /// Where the reply goes.
    pub reply: ReplyWriter<'a>,
    /// What needs no copy.
    pub long: Option<&'a Long>,
    /// The hash of the first key, where it is known already.
    key_hash: Option<u64>,
}

/// Runs a command that [`resolve`](super::resolve) found for `request.args`, and appends its reply
/// to `out`: exactly one, an error if it was refused.
#[inline]
pub fn execute(spec: &'static CommandSpec, request: Request<'_>, keys: &mut Keyspace<'_>, out: &mut Vec<u8>) {
    let Request { args, map, proto, key_hash, long } = request;
    let start = out.len();
    let bytes_max = keys.context().limits.key_bytes_max as usize;
    let outcome = if !spec.accepts(args.len()) {
        Err(Refusal::Arity(spec.name))
    } else if spec.keys.any(args, |key| key.len() > bytes_max) {
        Err(Refusal::KeyTooLong { bytes_max })
    } else {
        let reply = ReplyWriter::new(out, proto);
        (spec.exec)(&mut Execution { spec, keys, args, map, reply, long, key_hash })
    };
    if let Err(refusal) = outcome {
        debug_assert_eq!(out.len(), start, "{} wrote a reply and then refused", spec.name);
        out.truncate(start);
        ReplyWriter::new(out, proto).error(&refusal.to_string());
    }
}

impl<'a> Execution<'a, '_> {
    /// The key that is argument `index`.
    #[inline]
    pub(super) fn key(&self, index: usize) -> KeyRef<'a> {
        match self.key_hash {
            Some(hash) if index == usize::from(self.spec.keys.first) => {
                KeyRef { map: self.map, key: self.args[index], hash }
            }
            _ => KeyRef::new(self.map, self.args[index]),
        }
    }

    /// The value that is argument `index`.
    #[inline]
    pub(super) fn value(&self, index: usize) -> NewValue<'a> {
        let bytes = self.args[index];
        NewValue { bytes, long: self.long.and_then(|long| long.value(bytes)) }
    }

    /// The absolute expiry of an entry written without one: the map's default, 0 for never.
    #[inline]
    pub(super) fn default_expiry(&self) -> u64 {
        if self.map == MapId(0) {
            return 0;
        }
        match self.keys.context().map_defaults(self.map).ttl_ms {
            0 => 0,
            ttl_ms => self.keys.now_ms().saturating_add(ttl_ms),
        }
    }

    /// Refuses a value that would be too long.
    #[inline]
    pub(super) fn check_value_len(&self, bytes: usize) -> Result<(), Refusal> {
        if bytes > self.keys.context().limits.value_bytes_max as usize {
            Err(Refusal::ValueTooLong)
        } else {
            Ok(())
        }
    }

    /// Writes a string; one that expires in the past is gone at once.
    #[inline]
    pub(super) fn put_string<'v>(
        &mut self,
        key: KeyRef<'_>,
        value: impl Into<NewValue<'v>>,
        expire_at_ms: u64,
    ) {
        if expire_at_ms != 0 && expire_at_ms <= self.keys.now_ms() {
            self.keys.delete(key);
        } else {
            self.keys.put(key, EntryKind::String, value, expire_at_ms);
        }
    }
}

/// Replies with an entry's value: shared if it is long and may be, a copy otherwise.
#[inline]
pub(super) fn reply_value(reply: &mut ReplyWriter<'_>, long: Option<&Long>, view: &EntryView<'_>) {
    match view.long {
        None => reply.bulk(view.value),
        Some(value) => reply_long(reply, long, value.bytes()),
    }
}

#[inline(never)]
fn reply_long(reply: &mut ReplyWriter<'_>, long: Option<&Long>, bytes: &Bytes) {
    let splice = || Splice { at: reply.bulk_around(bytes.len()), bytes: bytes.clone() };
    let is_left = bytes.len() >= LONG_BYTES_MIN && long.is_some_and(|long| long.leave(splice));
    if !is_left {
        reply.bulk(bytes);
    }
}

/// The string at `key`, if there is one.
#[inline]
pub(super) fn string_at<'k>(
    keys: &'k mut Keyspace<'_>,
    key: KeyRef<'_>,
) -> Result<Option<EntryView<'k>>, Refusal> {
    match keys.get(key) {
        Some(view) if view.kind != EntryKind::String => Err(Refusal::WrongType),
        view => Ok(view),
    }
}

/// Whether a string may be written at `key`: a lock is not overwritten. Also whether one is there.
#[inline]
pub(super) fn check_not_lock(keys: &mut Keyspace<'_>, key: KeyRef<'_>) -> Result<bool, Refusal> {
    match keys.peek(key) {
        Some(view) if view.kind == EntryKind::Lock => Err(Refusal::WrongType),
        view => Ok(view.is_some()),
    }
}
