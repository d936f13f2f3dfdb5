//! Operations: what clients ask of partitions.

use super::command::{self, CommandSpec};
use super::dedup::RequestTag;
use super::ids::{ClientId, MapId, PartitionId, Slot};
use super::resp::{LONG_BYTES_MIN, Proto};
use super::store::{KeyRef, LongValue};
use bytes::Bytes;
use smallvec::SmallVec;
use std::cell::Cell;

/// A driver's name for an operation under way; the engine hands it back with the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    /// Which connection, by the driver's count.
    pub door: u64,
    /// Which operation of that connection.
    pub number: u64,
}

/// One command for one partition, borrowing its arguments.
#[derive(Clone, Copy)]
pub struct Op<'a> {
    /// The command.
    pub spec: &'static CommandSpec,
    /// Where it runs.
    pub partition: PartitionId,
    /// The map of its keys.
    pub map: MapId,
    /// How to encode the reply.
    pub proto: Proto,
    /// For exactly-once writes.
    pub exactly_once: Option<RequestTag>,
    /// The [`KeyRef::hash`] of its first key, where it is known already.
    pub key_hash: Option<u64>,
    /// The command's name and arguments.
    pub args: &'a [&'a [u8]],
    /// What needs no copy.
    pub long: Option<&'a Long>,
}

/// The long values of an operation and of its reply, where they need not be copied.
#[derive(Default)]
pub struct Long {
    args: Vec<LongValue>,
    /// Whether a value of the reply may be left here.
    is_open: Cell<bool>,
    reply: Cell<Option<Splice>>,
}

impl Long {
    /// Of an operation with these long values among its arguments.
    pub fn of(args: Vec<LongValue>) -> Long {
        Long { args, ..Long::default() }
    }

    /// An argument, if it is a long value that can be kept as it is.
    #[inline]
    pub fn value(&self, arg: &[u8]) -> Option<&LongValue> {
        if arg.len() < LONG_BYTES_MIN { None } else { self.args.iter().find(|value| value.is(arg)) }
    }

    /// From now on, whether the reply may leave a long value here instead of writing it.
    #[inline]
    pub fn open(&self, is_open: bool) {
        self.is_open.set(is_open);
    }

    /// Leaves a value of the reply. False if it is to be written.
    pub fn leave(&self, splice: impl FnOnce() -> Splice) -> bool {
        let is_open = self.is_open.replace(false);
        if is_open {
            self.reply.set(Some(splice()));
        }
        is_open
    }

    /// Takes the value that was left, if there is one. None may be left after that.
    #[inline]
    pub fn take(&self) -> Option<Splice> {
        if self.is_open.replace(false) { None } else { self.reply.take() }
    }
}

impl std::fmt::Debug for Long {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Long").field("args", &self.args).finish_non_exhaustive()
    }
}

/// A value that belongs between other bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Bytes before it.
    pub at: usize,
    /// The value.
    pub bytes: Bytes,
}

impl<'a> Op<'a> {
    /// An operation of which nothing else is known: run as often as it comes, its key not hashed, nothing long.
    pub fn new(
        spec: &'static CommandSpec,
        partition: PartitionId,
        map: MapId,
        proto: Proto,
        args: &'a [&'a [u8]],
    ) -> Op<'a> {
        Op { spec, partition, map, proto, exactly_once: None, key_hash: None, args, long: None }
    }

    /// Bytes of its arguments.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.args.iter().map(|arg| arg.len()).sum()
    }
}

/// What came of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// The reply has been appended to the output.
    Done,
    /// The reply will come as a completion of the ticket. So many bytes of it are held back already: whoever asks
    /// for more and more should count them.
    Pending(usize),
}

/// An operation as it waits or travels: encoded, little-endian.
///
/// `partition u16, map u16, flags u8, [client u64, request u64, below u64, age_ms u32], argc u32, (len u32, bytes)…`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedOp {
    encoded: Vec<u8>,
}

const FLAG_RESP3: u8 = 1;
const FLAG_EXACTLY_ONCE: u8 = 2;
const FLAG_WRITES: u8 = 4;
const HEAD: usize = 5;
/// Bytes of an exactly-once tag.
const TAG: usize = 28;

/// A decoded operation, borrowing from the encoded one.
pub struct OpenedOp<'a> {
    spec: &'static CommandSpec,
    partition: PartitionId,
    map: MapId,
    proto: Proto,
    exactly_once: Option<RequestTag>,
    args: Args<'a>,
}

impl OpenedOp<'_> {
    /// Whether it is whole, and all its keys are of the partition it names, of `count`.
    pub fn fits(&self, count: u16) -> bool {
        let pairs = self.spec.keys.step != 2 || self.args.len() % 2 == 1;
        let mut keys = self.spec.keys.of(&self.args);
        pairs && self.partition.0 < count && keys.all(|key| Slot::of(key).partition(count) == self.partition)
    }

    /// As the operation to run.
    pub fn as_op(&self) -> Op<'_> {
        Op {
            exactly_once: self.exactly_once,
            ..Op::new(self.spec, self.partition, self.map, self.proto, &self.args)
        }
    }
}

type Args<'a> = SmallVec<[&'a [u8]; 8]>;

impl OwnedOp {
    /// Encodes an operation.
    pub fn new(op: &Op<'_>) -> OwnedOp {
        let body: usize = op.args.iter().map(|arg| arg.len() + 4).sum();
        let mut encoded = Vec::with_capacity(HEAD + TAG + 4 + body);
        encoded.extend_from_slice(&op.partition.0.to_le_bytes());
        encoded.extend_from_slice(&op.map.0.to_le_bytes());
        let mut flags = 0;
        flags |= if op.proto == Proto::Resp3 { FLAG_RESP3 } else { 0 };
        flags |= if op.exactly_once.is_some() { FLAG_EXACTLY_ONCE } else { 0 };
        flags |= if op.spec.is_write() { FLAG_WRITES } else { 0 };
        encoded.push(flags);
        if let Some(id) = op.exactly_once {
            encoded.extend_from_slice(&id.client.0.to_le_bytes());
            encoded.extend_from_slice(&id.request.to_le_bytes());
            encoded.extend_from_slice(&id.acknowledged_below.to_le_bytes());
            encoded.extend_from_slice(&id.age_ms.to_le_bytes());
        }
        encoded.extend_from_slice(&(op.args.len() as u32).to_le_bytes());
        for arg in op.args {
            encoded.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            encoded.extend_from_slice(arg);
        }
        OwnedOp { encoded }
    }

    /// The encoded operation.
    pub fn encoded(&self) -> EncodedOp<'_> {
        EncodedOp(&self.encoded)
    }
}

/// An [`OwnedOp`]'s bytes, perhaps from another node; checked when they are opened.
#[derive(Clone, Copy, Debug)]
pub struct EncodedOp<'a>(pub &'a [u8]);

impl<'a> EncodedOp<'a> {
    /// Keeps it.
    pub fn to_owned(self) -> OwnedOp {
        OwnedOp { encoded: self.0.to_vec() }
    }

    /// Whether it may write.
    pub fn writes(self) -> bool {
        self.0.get(4).is_some_and(|flags| flags & FLAG_WRITES != 0)
    }

    /// Whether it may be sent again without running twice.
    pub fn is_exactly_once(self) -> bool {
        self.0.get(4).is_some_and(|flags| flags & FLAG_EXACTLY_ONCE != 0)
    }

    /// Where it runs.
    pub fn partition(self) -> PartitionId {
        match self.0.first_chunk::<2>() {
            Some(bytes) => PartitionId(u16::from_le_bytes(*bytes)),
            None => PartitionId(0),
        }
    }

    /// Its first argument behind the name, mostly a key, without a check of the rest.
    pub fn first_key(self) -> Option<KeyRef<'a>> {
        let mut rest = Reader(self.0.get(2..)?);
        let map = MapId(rest.u16()?);
        let tag = if rest.u8()? & FLAG_EXACTLY_ONCE != 0 { TAG } else { 0 };
        rest.take(tag + size_of::<u32>())?;
        let mut argument = || {
            let len = rest.u32()? as usize;
            rest.take(len)
        };
        argument()?;
        Some(KeyRef::new(map, argument()?))
    }

    /// Decodes it.
    ///
    /// `None` when the bytes aren't an operation, or name a command unknown here.
    pub fn open(self) -> Option<OpenedOp<'a>> {
        let mut rest = Reader(self.0);
        let partition = PartitionId(rest.u16()?);
        let map = MapId(rest.u16()?);
        let flags = rest.u8()?;
        let exactly_once = if flags & FLAG_EXACTLY_ONCE != 0 {
            Some(RequestTag {
                client: ClientId(rest.u64()?),
                request: rest.u64()?,
                acknowledged_below: rest.u64()?,
                age_ms: rest.u32()?,
            })
        } else {
            None
        };
        let count = rest.u32()? as usize;
        // Each argument takes four bytes at least: a false count can't make us reserve more than was sent.
        if count == 0 || count > rest.0.len() / 4 {
            return None;
        }
        let mut args = Args::with_capacity(count);
        for _ in 0..count {
            let len = rest.u32()? as usize;
            args.push(rest.take(len)?);
        }
        if !rest.0.is_empty() {
            return None;
        }
        let spec = command::lookup(args[0])?;
        let proto = if flags & FLAG_RESP3 != 0 { Proto::Resp3 } else { Proto::Resp2 };
        Some(OpenedOp { spec, partition, map, proto, exactly_once, args })
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(len)?;
        self.0 = tail;
        Some(head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }
    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }
    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
