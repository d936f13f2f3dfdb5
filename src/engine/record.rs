//! Records: the effects of writes, as they travel to backups and learners.
//!
//! A record is an *effect* (a final value, an absolute expiry or a delete), never a command: every
//! data type and atomic operation replicates the same way (DESIGN "Writes").
//!
//! # Layout
//!
//! All numbers are little-endian. Every record opens with `operation u8, kind u8, map u16`; `kind`
//! is zero unless the operation is a put.
//!
//! | operation | then |
//! |---|---|
//! | 1 put | `version u64, expire_at_ms u64, key_len u32, value_len u32`, key, value |
//! | 2 delete | `version u64, key_len u32`, key |
//! | 3 clear | `version u64` |
//! | 4 expire | `version u64, expire_at_ms u64, key_len u32`, key |

use super::dedup::DedupUpdate;
use super::ids::{MapId, Version};
use super::store::{EntryKind, KeyRef};
use bytes::Bytes;
use smallvec::SmallVec;
use std::ops::Range;
use thiserror::Error;

/// The longest key that can be stored at all, whatever the configuration.
pub const KEY_BYTES_MAX: u32 = 65_536;
/// The longest value that can be stored at all, whatever the configuration.
pub const VALUE_BYTES_MAX: u32 = 1 << 30;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const CLEAR: u8 = 3;
const EXPIRE: u8 = 4;
const REMEMBER: u8 = 5;

/// What a record does to one key, borrowing from where it was decoded or is to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key now has this value.
    Put {
        /// The map of the key.
        map: MapId,
        /// The key.
        key: &'a [u8],
        /// The final value.
        value: &'a [u8],
        /// What the value is.
        kind: EntryKind,
        /// Absolute expiry in wall milliseconds; 0 is never.
        expire_at_ms: u64,
        /// The version of this value.
        version: Version,
    },
    /// The key is gone: by DEL, expiry or eviction.
    Delete {
        /// The map of the key.
        map: MapId,
        /// The key.
        key: &'a [u8],
        /// The version of the delete.
        version: Version,
    },
    /// All keys of one map in this partition are gone.
    Clear {
        /// The map.
        map: MapId,
        /// The version of the clear.
        version: Version,
    },
    /// The key keeps its value and has another expiry. With the version and the expiry that the
    /// key has already, it only says that the key was used (idle time starts anew).
    Expire {
        /// The map of the key.
        map: MapId,
        /// The key.
        key: &'a [u8],
        /// Absolute expiry in wall milliseconds; 0 is never.
        expire_at_ms: u64,
        /// The version of the value from now on.
        version: Version,
    },
    /// An exactly-once write ran; travels behind its other effects.
    Remember(DedupUpdate<'a>),
}

impl<'a> Effect<'a> {
    /// The map that this concerns.
    pub fn map(&self) -> MapId {
        match *self {
            Effect::Put { map, .. }
            | Effect::Delete { map, .. }
            | Effect::Clear { map, .. }
            | Effect::Expire { map, .. } => map,
            Effect::Remember(_) => MapId(0),
        }
    }

    /// The key that this concerns; `None` if it concerns all keys of its map, or none.
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Effect::Put { key, .. } | Effect::Delete { key, .. } | Effect::Expire { key, .. } => Some(key),
            Effect::Clear { .. } | Effect::Remember(_) => None,
        }
    }

    /// The key that this concerns with its hash; `None` if it concerns all keys of its map.
    pub fn key_ref(&self) -> Option<KeyRef<'a>> {
        self.key().map(|key| KeyRef::new(self.map(), key))
    }

    /// The version that this carries.
    pub fn version(&self) -> Version {
        match *self {
            Effect::Put { version, .. }
            | Effect::Delete { version, .. }
            | Effect::Clear { version, .. }
            | Effect::Expire { version, .. } => version,
            Effect::Remember(_) => Version(0),
        }
    }
}

/// The longest key and value that are accepted, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest key; at most [`KEY_BYTES_MAX`] counts.
    pub key_bytes_max: u32,
    /// The longest value; at most [`VALUE_BYTES_MAX`] counts.
    pub value_bytes_max: u32,
}

impl Default for Limits {
    /// 64 KiB keys and 64 MiB values.
    fn default() -> Limits {
        Limits { key_bytes_max: KEY_BYTES_MAX, value_bytes_max: 64 << 20 }
    }
}

/// Why bytes are not a record. Nothing was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The bytes end before the record does.
    #[error("the record is cut short")]
    Truncated,
    /// An operation that this version does not know.
    #[error("unknown record operation {0}")]
    UnknownOperation(u8),
    /// A kind of value that this version does not know, or a kind where none belongs.
    #[error("unknown kind of value {0}")]
    UnknownKind(u8),
    /// The key is longer than the limit.
    #[error("a key of {0} bytes is over the limit")]
    KeyTooLong(u32),
    /// The value is longer than the limit.
    #[error("a value of {0} bytes is over the limit")]
    ValueTooLong(u32),
    /// The version is later than any can be.
    #[error("{0} is no version")]
    ImpossibleVersion(Version),
}

/// Appends the encoded effect.
pub fn encode(effect: &Effect<'_>, out: &mut Vec<u8>) {
    match *effect {
        Effect::Put { map, key, value, kind, expire_at_ms, version } => {
            let mut head = head::<28>(PUT, kind as u8, map, version);
            head[12..20].copy_from_slice(&expire_at_ms.to_le_bytes());
            head[20..24].copy_from_slice(&length(key));
            head[24..28].copy_from_slice(&length(value));
            out.reserve(head.len() + key.len() + value.len());
            out.extend_from_slice(&head);
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Effect::Delete { map, key, version } => {
            out.extend_from_slice(&head::<12>(DELETE, 0, map, version));
            out.extend_from_slice(&length(key));
            out.extend_from_slice(key);
        }
        Effect::Clear { map, version } => out.extend_from_slice(&head::<12>(CLEAR, 0, map, version)),
        Effect::Expire { map, key, expire_at_ms, version } => {
            out.extend_from_slice(&head::<12>(EXPIRE, 0, map, version));
            out.extend_from_slice(&expire_at_ms.to_le_bytes());
            out.extend_from_slice(&length(key));
            out.extend_from_slice(key);
        }
        Effect::Remember(update) => {
            out.extend_from_slice(&head::<12>(REMEMBER, 0, MapId(0), Version(0)));
            update.encode(out);
        }
    }
}

/// What every record opens with, in the first 12 of `BYTES` bytes.
fn head<const BYTES: usize>(operation: u8, kind: u8, map: MapId, version: Version) -> [u8; BYTES] {
    let mut head = [0; BYTES];
    head[0] = operation;
    head[1] = kind;
    head[2..4].copy_from_slice(&map.0.to_le_bytes());
    head[4..12].copy_from_slice(&version.0.to_le_bytes());
    head
}

fn length(bytes: &[u8]) -> [u8; 4] {
    // Longer ones are refused at the front door (`Limits`), far below this.
    u32::try_from(bytes.len()).expect("keys and values are bounded by Limits").to_le_bytes()
}

/// Takes one record from the front of `input`, borrowing its key and value. On an error `input`
/// is where it was.
///
/// # Errors
///
/// See [`RecordError`]. Hostile input is refused before anything is allocated: nothing is.
pub fn decode<'a>(input: &mut &'a [u8], limits: &Limits) -> Result<Effect<'a>, RecordError> {
    let mut rest = *input;
    let [operation] = take(&mut rest)?;
    let [kind] = take(&mut rest)?;
    let map = MapId(u16::from_le_bytes(take(&mut rest)?));
    if !(PUT..=REMEMBER).contains(&operation) {
        return Err(RecordError::UnknownOperation(operation));
    }
    if operation != PUT && kind != 0 {
        return Err(RecordError::UnknownKind(kind));
    }
    let version = Version(u64::from_le_bytes(take(&mut rest)?));
    if version > Version::MAX {
        return Err(RecordError::ImpossibleVersion(version));
    }
    let effect = match operation {
        PUT => {
            let kind = EntryKind::from_u8(kind).ok_or(RecordError::UnknownKind(kind))?;
            let expire_at_ms = u64::from_le_bytes(take(&mut rest)?);
            let key_len = key_len(&mut rest, limits)?;
            let value_len = u32::from_le_bytes(take(&mut rest)?);
            if value_len > limits.value_bytes_max.min(VALUE_BYTES_MAX) {
                return Err(RecordError::ValueTooLong(value_len));
            }
            let key = take_slice(&mut rest, key_len)?;
            let value = take_slice(&mut rest, value_len)?;
            Effect::Put { map, key, value, kind, expire_at_ms, version }
        }
        DELETE => {
            let key_len = key_len(&mut rest, limits)?;
            Effect::Delete { map, key: take_slice(&mut rest, key_len)?, version }
        }
        CLEAR => Effect::Clear { map, version },
        REMEMBER => {
            let (update, taken) = DedupUpdate::decode(rest).map_err(|_| RecordError::Truncated)?;
            rest = &rest[taken..];
            Effect::Remember(update)
        }
        _ => {
            let expire_at_ms = u64::from_le_bytes(take(&mut rest)?);
            let key_len = key_len(&mut rest, limits)?;
            Effect::Expire { map, key: take_slice(&mut rest, key_len)?, expire_at_ms, version }
        }
    };
    *input = rest;
    Ok(effect)
}

fn key_len(rest: &mut &[u8], limits: &Limits) -> Result<u32, RecordError> {
    let key_len = u32::from_le_bytes(take(rest)?);
    if key_len > limits.key_bytes_max.min(KEY_BYTES_MAX) {
        return Err(RecordError::KeyTooLong(key_len));
    }
    Ok(key_len)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RecordError> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(*head)
}

fn take_slice<'a>(rest: &mut &'a [u8], len: u32) -> Result<&'a [u8], RecordError> {
    let (head, tail) = rest.split_at_checked(len as usize).ok_or(RecordError::Truncated)?;
    *rest = tail;
    Ok(head)
}

/// The records of a batch of commands, encoded once, in the order of execution.
#[derive(Debug, Default)]
pub struct RecordLog {
    bytes: Vec<u8>,
    marks: SmallVec<[Mark; 1]>,
    /// Whether effects are counted and not encoded.
    counts_only: bool,
}

#[derive(Debug)]
struct Mark {
    /// `None`: all keys of a map.
    hash: Option<u64>,
    /// Whether it says that the write before it ran: half of that is no good.
    is_joined: bool,
    end: usize,
}

impl RecordLog {
    /// An empty log.
    pub fn new() -> RecordLog {
        RecordLog::default()
    }

    /// An empty log for a copy that stands alone: it counts effects, and encodes none.
    pub fn counting() -> RecordLog {
        RecordLog { counts_only: true, ..RecordLog::default() }
    }

    /// Appends one effect.
    pub fn push(&mut self, effect: &Effect<'_>) {
        self.push_hashed(effect, effect.key_ref().map(|key| key.hash));
    }

    /// Appends one effect on a key whose hash is known (`None` if it concerns all keys of a map).
    #[inline]
    pub fn push_hashed(&mut self, effect: &Effect<'_>, hash: Option<u64>) {
        if !self.counts_only {
            encode(effect, &mut self.bytes);
        }
        let is_joined = matches!(effect, Effect::Remember(_));
        self.marks.push(Mark { hash, is_joined, end: self.bytes.len() });
    }

    /// All records, encoded one after the other.
    pub fn records(&self) -> &[u8] {
        &self.bytes
    }

    /// How many records there are.
    pub fn count(&self) -> usize {
        self.marks.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The [`KeyRef::hash`] of each record, with where it lies in [`records`](Self::records).
    /// The hash is `None` for a record that concerns all keys of a map.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u64>, Range<usize>)> + '_ {
        let mut start = 0;
        self.marks.iter().map(move |mark| {
            let range = start..mark.end;
            start = mark.end;
            (mark.hash, range)
        })
    }

    /// Forgets all records and keeps the room, within reason.
    #[inline]
    pub fn clear(&mut self) {
        const KEPT_BYTES_MAX: usize = 1 << 20;
        if self.bytes.capacity() > KEPT_BYTES_MAX {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.marks.clear();
    }

    /// The key hashes of the records from number `from` on; a record of no single key has none.
    pub fn hashes_since(&self, from: usize) -> impl Iterator<Item = Option<u64>> + '_ {
        self.marks[from..].iter().map(|mark| mark.hash)
    }

    /// Takes the records out in groups of at most `count_max` records and about `bytes_max` bytes
    /// (a larger record makes a group of its own), and leaves the log empty. What is remembered of a write
    /// is in the group of its last record.
    pub fn take_groups(&mut self, count_max: usize, bytes_max: usize) -> SmallVec<[(u32, Bytes); 1]> {
        let mut groups = SmallVec::new();
        let mut rest = Bytes::from(std::mem::take(&mut self.bytes));
        let (mut start, mut count) = (0, 0);
        for (index, mark) in self.marks.iter().enumerate() {
            count += 1;
            let full = count as usize >= count_max || mark.end - start >= bytes_max;
            let next = self.marks.get(index + 1);
            if next.is_none_or(|next| full && !next.is_joined) {
                groups.push((count, rest.split_to(mark.end - start)));
                (start, count) = (mark.end, 0);
            }
        }
        self.marks.clear();
        groups
    }

    /// Takes the encoded records out and leaves the log empty.
    pub fn take(&mut self) -> Vec<u8> {
        self.marks.clear();
        std::mem::take(&mut self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::ClientId;
    use proptest::prelude::*;

    #[test]
    fn what_is_remembered_of_a_write_travels_with_it() {
        let delete = Effect::Delete { map: MapId(0), key: b"k", version: Version(1) };
        let remember = Effect::Remember(DedupUpdate {
            client: ClientId(1),
            request: 1,
            acknowledged_below: 0,
            at_ms: 1,
            reply: b":1\r\n",
        });
        let mut log = RecordLog::new();
        for effect in [&delete, &delete, &remember, &delete, &remember] {
            log.push(effect);
        }
        let counts: Vec<u32> = log.take_groups(2, usize::MAX).iter().map(|(count, _)| *count).collect();
        assert_eq!(counts, [3, 2]);
    }

    fn samples() -> Vec<Effect<'static>> {
        vec![
            Effect::Put {
                map: MapId(3),
                key: b"key",
                value: b"value",
                kind: EntryKind::String,
                expire_at_ms: 77,
                version: Version(9),
            },
            Effect::Put {
                map: MapId(0),
                key: b"",
                value: b"",
                kind: EntryKind::Lock,
                expire_at_ms: 0,
                version: Version::MAX,
            },
            Effect::Delete { map: MapId(1), key: b"gone", version: Version(10) },
            Effect::Clear { map: MapId(65_535), version: Version(11) },
            Effect::Expire { map: MapId(0), key: b"k", expire_at_ms: 5, version: Version(12) },
        ]
    }

    #[test]
    fn log_returns_what_was_pushed() {
        let mut log = RecordLog::new();
        for effect in samples() {
            log.push(&effect);
        }
        assert_eq!(log.count(), samples().len());
        for ((hash, range), effect) in log.iter().zip(samples()) {
            let mut bytes = &log.records()[range];
            assert_eq!(decode(&mut bytes, &Limits::default()), Ok(effect));
            assert!(bytes.is_empty());
            assert_eq!(hash, effect.key().map(|key| KeyRef::new(effect.map(), key).hash));
        }
        log.clear();
        assert!(log.is_empty() && log.records().is_empty());
    }

    #[test]
    fn every_truncation_is_refused_and_consumes_nothing() {
        for effect in samples() {
            let mut bytes = Vec::new();
            encode(&effect, &mut bytes);
            for end in 0..bytes.len() {
                let mut input = &bytes[..end];
                assert_eq!(decode(&mut input, &Limits::default()), Err(RecordError::Truncated));
                assert_eq!(input.len(), end);
            }
        }
    }

    #[test]
    fn limits_come_before_the_bytes() {
        let limits = Limits { key_bytes_max: 4, value_bytes_max: 4 };
        let mut bytes = Vec::new();
        encode(&Effect::Delete { map: MapId(0), key: b"12345", version: Version(1) }, &mut bytes);
        assert_eq!(decode(&mut &bytes[..16], &limits), Err(RecordError::KeyTooLong(5)));
        let mut forged = vec![PUT, 0, 0, 0];
        forged.extend_from_slice(&[0; 20]);
        forged.extend_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&mut &forged[..], &limits), Err(RecordError::ValueTooLong(u32::MAX)));
        assert_eq!(decode(&mut &[9, 0, 0, 0][..], &limits), Err(RecordError::UnknownOperation(9)));
        assert_eq!(decode(&mut &[DELETE, 1, 0, 0][..], &limits), Err(RecordError::UnknownKind(1)));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), operation in 0u8..6) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = operation;
            }
            let mut input = &bytes[..];
            while let Ok(effect) = decode(&mut input, &Limits::default()) {
                // What decodes, encodes to the same bytes.
                let mut again = Vec::new();
                encode(&effect, &mut again);
                prop_assert!(bytes.windows(again.len()).any(|window| window == again));
            }
        }
    }
}
