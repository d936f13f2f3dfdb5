//! Entries: how a key with its value lies in memory.
//!
//! One piece of bytes, little-endian: `version u64, accessed_s u32, frequency u8, flags u8,
//! map u16`, then the lengths (`key_len u16, value_len u16`; in a large entry `key_len u32` and
//! the value fills the rest), then `expire_at_ms u64` if flagged, `value_hash u64` if flagged, the
//! key, the value. 20 bytes beside key and value for a small entry that never expires.

use super::digest::entry_hash;
use super::segment::NEVER_S;
use crate::engine::ids::{MapId, Version};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The longest entry that lives in a page slot; longer ones have their own allocation.
pub(super) const SMALL_BYTES_MAX: usize = 4_096;

const FIXED_BYTES: usize = 20;
const HEADER_BYTES_MAX: usize = FIXED_BYTES + 16;

const FLAG_KIND: u8 = 0b0000_0111;
const FLAG_EXPIRES: u8 = 0b0000_1000;
const FLAG_LARGE: u8 = 0b0001_0000;
const FLAG_HASHED: u8 = 0b0010_0000;

/// Values from this length on have their hash stored, which costs them at most 3 %; hashing a
/// shorter one again is cheap.
const HASHED_VALUE_BYTES_MIN: usize = 256;

/// What an entry's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A string: any bytes.
    String = 0,
    /// A lock: see the lock commands.
    Lock = 1,
}

impl EntryKind {
    /// The kind with this number; `None` if there is none.
    pub fn from_u8(number: u8) -> Option<EntryKind> {
        match number {
            0 => Some(EntryKind::String),
            1 => Some(EntryKind::Lock),
            _ => None,
        }
    }
}

/// A key of a map with its hash, computed once and carried along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The map.
    pub map: MapId,
    /// The key's bytes.
    pub key: &'a [u8],
    /// XXH3-64 of the key, seeded by the map: the same on every node.
    pub hash: u64,
}

impl<'a> KeyRef<'a> {
    /// Hashes a key.
    pub fn new(map: MapId, key: &'a [u8]) -> KeyRef<'a> {
        KeyRef { map, key, hash: xxh3_64_with_seed(key, u64::from(map.0)) }
    }

    /// The hash prefix that orders the index and the scan cursor.
    pub(super) fn prefix(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// An entry as it stands, borrowed from the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// The map of the key.
    pub map: MapId,
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// What the value is.
    pub kind: EntryKind,
    /// Absolute expiry in wall milliseconds; 0 is never.
    pub expire_at_ms: u64,
    /// The version of the value.
    pub version: Version,
    /// When it was last used, in wall seconds. Known to this copy only.
    pub accessed_s: u32,
    /// How often it was used of late, on a logarithmic scale. Known to this copy only.
    pub frequency: u8,
}

/// The shape of an entry before it has a place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// All bytes, header included.
    pub bytes: usize,
    /// Whether it needs an allocation of its own.
    pub large: bool,
}

impl EntryView<'_> {
    pub(super) fn shape(&self) -> Shape {
        let bytes = FIXED_BYTES + self.optional_bytes() + self.key.len() + self.value.len();
        if bytes <= SMALL_BYTES_MAX {
            Shape { bytes, large: false }
        } else {
            // A large entry always has room for an expiry, so that setting one never moves it.
            let bytes = HEADER_BYTES_MAX + self.key.len() + self.value.len();
            Shape { bytes, large: true }
        }
    }

    /// Header fields of a small entry that only some have.
    fn optional_bytes(&self) -> usize {
        let expiry_bytes = if self.expire_at_ms != 0 { 8 } else { 0 };
        let hash_bytes = if self.value.len() >= HASHED_VALUE_BYTES_MIN { 8 } else { 0 };
        expiry_bytes + hash_bytes
    }

    fn header(&self, value_hash: u64, large: bool) -> ([u8; HEADER_BYTES_MAX], usize) {
        let mut header = [0; HEADER_BYTES_MAX];
        let mut flags = self.kind as u8;
        let mut len = FIXED_BYTES;
        header[0..8].copy_from_slice(&self.version.0.to_le_bytes());
        header[8..12].copy_from_slice(&self.accessed_s.to_le_bytes());
        header[12] = self.frequency;
        header[14..16].copy_from_slice(&self.map.0.to_le_bytes());
        if large {
            flags |= FLAG_LARGE;
            header[16..20].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        } else {
            header[16..18].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
            header[18..20].copy_from_slice(&(self.value.len() as u16).to_le_bytes());
        }
        if large || self.expire_at_ms != 0 {
            flags |= FLAG_EXPIRES;
            header[len..len + 8].copy_from_slice(&self.expire_at_ms.to_le_bytes());
            len += 8;
        }
        if large || self.value.len() >= HASHED_VALUE_BYTES_MIN {
            flags |= FLAG_HASHED;
            header[len..len + 8].copy_from_slice(&value_hash.to_le_bytes());
            len += 8;
        }
        header[13] = flags;
        (header, len)
    }

    /// Writes a small entry at the front of its slot.
    pub(super) fn write_small(&self, value_hash: u64, slot: &mut [u8]) {
        let (header, len) = self.header(value_hash, false);
        let (head, rest) = slot.split_at_mut(len);
        head.copy_from_slice(&header[..len]);
        let (key, rest) = rest.split_at_mut(self.key.len());
        key.copy_from_slice(self.key);
        rest[..self.value.len()].copy_from_slice(self.value);
    }

    /// A large entry in an allocation of exactly its size.
    pub(super) fn to_large(self, value_hash: u64) -> Box<[u8]> {
        let (header, len) = self.header(value_hash, true);
        let mut bytes = Vec::with_capacity(len + self.key.len() + self.value.len());
        bytes.extend_from_slice(&header[..len]);
        bytes.extend_from_slice(self.key);
        bytes.extend_from_slice(self.value);
        bytes.into_boxed_slice()
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Where the key begins and how long it is.
#[inline]
fn key_span(bytes: &[u8]) -> (usize, usize) {
    let flags = bytes[13];
    let key_len = match flags & FLAG_LARGE {
        0 => usize::from(u16_at(bytes, 16)),
        _ => u32_at(bytes, 16) as usize,
    };
    let optional = u32::from(flags & (FLAG_EXPIRES | FLAG_HASHED)).count_ones() as usize * 8;
    (FIXED_BYTES + optional, key_len)
}

/// Reads something of each cache line that short entries have, to bring them into the cache.
#[inline]
pub(super) fn touch(bytes: &[u8]) -> u64 {
    const CACHE_LINE_BYTES: usize = 64;
    let byte = |byte: Option<&u8>| u64::from(*byte.unwrap_or(&0));
    byte(bytes.first()) ^ byte(bytes.get(CACHE_LINE_BYTES)) ^ byte(bytes.last())
}

/// Reads an entry from its slot or allocation.
#[inline]
pub(super) fn read(bytes: &[u8]) -> EntryView<'_> {
    let (key_at, key_len) = key_span(bytes);
    let value_at = key_at + key_len;
    let value = if bytes[13] & FLAG_LARGE != 0 {
        &bytes[value_at..]
    } else {
        &bytes[value_at..value_at + usize::from(u16_at(bytes, 18))]
    };
    EntryView {
        map: map(bytes),
        key: &bytes[key_at..value_at],
        value,
        kind: EntryKind::from_u8(bytes[13] & FLAG_KIND).unwrap_or(EntryKind::String),
        expire_at_ms: expire_at_ms(bytes),
        version: version(bytes),
        accessed_s: accessed_s(bytes),
        frequency: frequency(bytes),
    }
}

/// Whether the entry is that of `key`.
#[inline]
pub(super) fn is_of(bytes: &[u8], key: &KeyRef<'_>) -> bool {
    let (key_at, key_len) = key_span(bytes);
    key_len == key.key.len() && map(bytes) == key.map && &bytes[key_at..key_at + key_len] == key.key
}

pub(super) fn map(bytes: &[u8]) -> MapId {
    MapId(u16_at(bytes, 14))
}

pub(super) fn version(bytes: &[u8]) -> Version {
    Version(u64_at(bytes, 0))
}

pub(super) fn accessed_s(bytes: &[u8]) -> u32 {
    u32_at(bytes, 8)
}

pub(super) fn frequency(bytes: &[u8]) -> u8 {
    bytes[12]
}

/// Absolute expiry; 0 is never.
#[inline]
pub(super) fn expire_at_ms(bytes: &[u8]) -> u64 {
    if bytes[13] & FLAG_EXPIRES != 0 { u64_at(bytes, FIXED_BYTES) } else { 0 }
}

/// The hash of the value: stored with long ones, computed for short ones.
pub(super) fn value_hash(bytes: &[u8]) -> u64 {
    let flags = bytes[13];
    if flags & FLAG_HASHED == 0 {
        return xxh3_64(read(bytes).value);
    }
    u64_at(bytes, if flags & FLAG_EXPIRES != 0 { FIXED_BYTES + 8 } else { FIXED_BYTES })
}

/// The hash of the entry for the digests.
pub(super) fn digest(bytes: &[u8], key_hash: u64) -> u64 {
    digest_with(bytes, key_hash, value_hash(bytes))
}

/// As [`digest`], where the hash of the value is known.
pub(super) fn digest_with(bytes: &[u8], key_hash: u64, value_hash: u64) -> u64 {
    let kind = bytes[13] & FLAG_KIND;
    entry_hash(key_hash, kind, version(bytes), expire_at_ms(bytes), value_hash)
}

/// The second from which on an entry with this expiry is certainly expired.
pub(super) fn due_s(expire_at_ms: u64) -> u32 {
    match expire_at_ms {
        0 => NEVER_S,
        ms => u32::try_from(ms.div_ceil(1_000)).unwrap_or(NEVER_S).min(NEVER_S - 1),
    }
}

/// Notes a use of the entry.
pub(super) fn set_used(bytes: &mut [u8], accessed_s: u32, frequency: u8) {
    bytes[8..12].copy_from_slice(&accessed_s.to_le_bytes());
    bytes[12] = frequency;
}

/// Sets version and expiry where they stand. False if the entry has no room for an expiry.
pub(super) fn set_expiry(bytes: &mut [u8], expire_at_ms: u64, version: Version) -> bool {
    let has_room = bytes[13] & FLAG_EXPIRES != 0;
    // A small entry that stops expiring gives its eight bytes back.
    if (has_room && (expire_at_ms != 0 || bytes[13] & FLAG_LARGE != 0)) || (!has_room && expire_at_ms == 0) {
        bytes[0..8].copy_from_slice(&version.0.to_le_bytes());
        if has_room {
            bytes[FIXED_BYTES..FIXED_BYTES + 8].copy_from_slice(&expire_at_ms.to_le_bytes());
        }
        return true;
    }
    false
}
