//! Entries: how a key with its value lies in memory.
//!
//! One piece of bytes, little-endian: `version u64, accessed_s u32, frequency u8, flags u8`, then
//! the lengths (`key_len u8, value_len u8`, both `u16` if flagged as wide; in a large entry
//! `key_len u32`), then each if flagged: `expire_at_ms u64`, `value_hash u64`, `map u16`; then the
//! key and the value, which of a large entry is apart. 16 bytes beside key and value for a small
//! entry of the unnamed map that never expires.

use super::digest::entry_hash;
use super::long::LongValue;
use super::segment::NEVER_S;
use crate::engine::ids::{MapId, Version};
use std::ops::Range;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The longest entry that lives in a page slot; the value of a longer one has its own allocation.
pub(super) const SMALL_BYTES_MAX: usize = 62 << 10;

/// Up to the lengths.
const FIXED_BYTES: usize = 14;
const LENGTHS_BYTES: usize = 2;
const WIDE_LENGTHS_BYTES: usize = 4;
const HEADER_BYTES_MAX: usize = FIXED_BYTES + WIDE_LENGTHS_BYTES + 8 + 8 + 2;

const FLAG_KIND: u8 = 0b0000_0111;
const FLAG_EXPIRES: u8 = 0b0000_1000;
const FLAG_LARGE: u8 = 0b0001_0000;
const FLAG_HASHED: u8 = 0b0010_0000;
/// Lengths of small entries take two bytes each. Large entries have it, too: their one takes four.
const FLAG_WIDE: u8 = 0b0100_0000;
/// Of a named map.
const FLAG_NAMED: u8 = 0b1000_0000;

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
    #[inline]
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
    #[inline]
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
    /// The same, if it is long and can be shared.
    pub long: Option<&'a LongValue>,
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
    #[inline]
    pub(super) fn shape(&self) -> Shape {
        let content = self.key.len() + self.value.len();
        let bytes = header_bytes(self.small_flags()) + content;
        if bytes <= SMALL_BYTES_MAX {
            Shape { bytes, large: false }
        } else {
            Shape { bytes: header_bytes(self.large_flags()) + content, large: true }
        }
    }

    fn small_flags(&self) -> u8 {
        let when = |holds: bool, flag: u8| if holds { flag } else { 0 };
        when(self.expire_at_ms != 0, FLAG_EXPIRES)
            | when(self.value.len() >= HASHED_VALUE_BYTES_MIN, FLAG_HASHED)
            | when(self.key.len().max(self.value.len()) > usize::from(u8::MAX), FLAG_WIDE)
            | self.flags()
    }

    /// A large entry always has room for an expiry, so that setting one never moves it.
    fn large_flags(&self) -> u8 {
        FLAG_LARGE | FLAG_WIDE | FLAG_EXPIRES | FLAG_HASHED | self.flags()
    }

    /// What entries of all sizes are flagged with.
    fn flags(&self) -> u8 {
        self.kind as u8 | if self.map == MapId(0) { 0 } else { FLAG_NAMED }
    }

    #[inline]
    fn header(&self, value_hash: u64, flags: u8) -> ([u8; HEADER_BYTES_MAX], usize) {
        let mut header = [0; HEADER_BYTES_MAX];
        header[0..8].copy_from_slice(&self.version.0.to_le_bytes());
        header[8..12].copy_from_slice(&self.accessed_s.to_le_bytes());
        header[12] = self.frequency;
        header[13] = flags;
        if flags & FLAG_LARGE != 0 {
            header[14..18].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        } else if flags & FLAG_WIDE != 0 {
            header[14..16].copy_from_slice(&(self.key.len() as u16).to_le_bytes());
            header[16..18].copy_from_slice(&(self.value.len() as u16).to_le_bytes());
        } else {
            header[14] = self.key.len() as u8;
            header[15] = self.value.len() as u8;
        }
        let mut len = expiry_at(flags);
        if flags & FLAG_EXPIRES != 0 {
            header[len..len + 8].copy_from_slice(&self.expire_at_ms.to_le_bytes());
            len += 8;
        }
        if flags & FLAG_HASHED != 0 {
            header[len..len + 8].copy_from_slice(&value_hash.to_le_bytes());
            len += 8;
        }
        if flags & FLAG_NAMED != 0 {
            header[len..len + 2].copy_from_slice(&self.map.0.to_le_bytes());
            len += 2;
        }
        debug_assert_eq!(len, header_bytes(flags));
        (header, len)
    }

    /// Writes a small entry at the front of its slot.
    pub(super) fn write_small(&self, value_hash: u64, slot: &mut [u8]) {
        let (header, len) = self.header(value_hash, self.small_flags());
        let (head, rest) = slot.split_at_mut(len);
        head.copy_from_slice(&header[..len]);
        let (key, rest) = rest.split_at_mut(self.key.len());
        key.copy_from_slice(self.key);
        rest[..self.value.len()].copy_from_slice(self.value);
    }

    /// A large entry but for its value, in an allocation of exactly its size.
    pub(super) fn large_head(&self, value_hash: u64) -> Box<[u8]> {
        let (header, len) = self.header(value_hash, self.large_flags());
        [&header[..len], self.key].concat().into_boxed_slice()
    }
}

/// What every entry begins with, in the form of the short ones: one look at the length, and its fields are there.
#[inline(always)]
fn fixed(bytes: &[u8]) -> &[u8; FIXED_BYTES + LENGTHS_BYTES] {
    bytes.first_chunk().expect("an entry has a header")
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Where the expiry stands, if there is one.
#[inline]
const fn expiry_at(flags: u8) -> usize {
    if flags & FLAG_WIDE != 0 { FIXED_BYTES + WIDE_LENGTHS_BYTES } else { FIXED_BYTES + LENGTHS_BYTES }
}

/// Where the key begins, by the flags: one look instead of four decisions.
static HEADER_BYTES: [u8; 256] = {
    let mut table = [0; 256];
    let mut flags = 0;
    while flags < 256 {
        let optional = [(FLAG_EXPIRES, 8), (FLAG_HASHED, 8), (FLAG_NAMED, 2)];
        let mut bytes = expiry_at(flags as u8) as u8;
        let mut at = 0;
        while at < optional.len() {
            if flags as u8 & optional[at].0 != 0 {
                bytes += optional[at].1;
            }
            at += 1;
        }
        table[flags] = bytes;
        flags += 1;
    }
    table
};

/// Where the key begins.
#[inline]
fn header_bytes(flags: u8) -> usize {
    usize::from(HEADER_BYTES[usize::from(flags)])
}

/// Where the key begins, where the value does, and where it ends.
#[inline(always)]
fn spans(bytes: &[u8]) -> (usize, usize, usize) {
    let &[.., flags, short_key, short_value] = fixed(bytes);
    let key_at = header_bytes(flags);
    if flags & FLAG_WIDE == 0 {
        let value_at = key_at + usize::from(short_key);
        return (key_at, value_at, value_at + usize::from(short_value));
    }
    if flags & FLAG_LARGE != 0 {
        return (key_at, key_at + u32_at(bytes, 14) as usize, bytes.len());
    }
    let value_at = key_at + usize::from(u16_at(bytes, 14));
    (key_at, value_at, value_at + usize::from(u16_at(bytes, 16)))
}

/// Reads something of each cache line that short entries have, to bring them into the cache; see
/// [`Shard::touch`](super::Shard::touch).
#[inline]
pub fn touch(bytes: &[u8]) -> u64 {
    const CACHE_LINE_BYTES: usize = 64;
    let byte = |byte: Option<&u8>| u64::from(*byte.unwrap_or(&0));
    byte(bytes.first()) ^ byte(bytes.get(CACHE_LINE_BYTES)) ^ byte(bytes.last())
}

/// Reads an entry from its slot, or a large one but for its value.
#[inline]
pub(super) fn read(bytes: &[u8]) -> EntryView<'_> {
    let (key_at, value_at, end) = spans(bytes);
    EntryView {
        map: map(bytes),
        key: &bytes[key_at..value_at],
        value: &bytes[value_at..end],
        long: None,
        kind: kind(bytes),
        expire_at_ms: expire_at_ms(bytes),
        version: version(bytes),
        accessed_s: accessed_s(bytes),
        frequency: frequency(bytes),
    }
}

/// The value of a string of the unnamed map, unless it is apart or has expired: what nearly all reads are of.
#[inline(always)]
pub(super) fn plain_value(bytes: &[u8], now_ms: u64) -> Option<Range<usize>> {
    const OTHERS: u8 = FLAG_KIND | FLAG_LARGE | FLAG_NAMED;
    let flags = flags(bytes);
    let has_expired = || u64_at(bytes, expiry_at(flags)) <= now_ms;
    if flags & OTHERS != 0 || (flags & FLAG_EXPIRES != 0 && has_expired()) {
        return None;
    }
    let (_, value_at, end) = spans(bytes);
    Some(value_at..end)
}

/// Whether the entry is that of `key`.
#[inline]
pub(super) fn is_of(bytes: &[u8], key: &KeyRef<'_>) -> bool {
    let (key_at, value_at, _) = spans(bytes);
    bytes[key_at..value_at] == *key.key && map(bytes) == key.map
}

#[inline(always)]
fn flags(bytes: &[u8]) -> u8 {
    fixed(bytes)[13]
}

#[inline]
pub(super) fn map(bytes: &[u8]) -> MapId {
    let flags = flags(bytes);
    MapId(if flags & FLAG_NAMED != 0 { u16_at(bytes, header_bytes(flags) - 2) } else { 0 })
}

#[inline]
pub(super) fn kind(bytes: &[u8]) -> EntryKind {
    EntryKind::from_u8(flags(bytes) & FLAG_KIND).unwrap_or(EntryKind::String)
}

#[inline]
pub(super) fn version(bytes: &[u8]) -> Version {
    Version(u64_at(fixed(bytes), 0))
}

#[inline]
pub(super) fn accessed_s(bytes: &[u8]) -> u32 {
    u32_at(fixed(bytes), 8)
}

#[inline]
pub(super) fn frequency(bytes: &[u8]) -> u8 {
    fixed(bytes)[12]
}

/// Absolute expiry; 0 is never.
#[inline]
pub(super) fn expire_at_ms(bytes: &[u8]) -> u64 {
    let flags = flags(bytes);
    if flags & FLAG_EXPIRES != 0 { u64_at(bytes, expiry_at(flags)) } else { 0 }
}

/// The hash of the value: stored with long ones, computed for short ones.
#[inline]
pub(super) fn value_hash(bytes: &[u8]) -> u64 {
    let flags = flags(bytes);
    if flags & FLAG_HASHED == 0 {
        return xxh3_64(read(bytes).value);
    }
    u64_at(bytes, if flags & FLAG_EXPIRES != 0 { expiry_at(flags) + 8 } else { expiry_at(flags) })
}

/// The hash of the entry for the digests.
#[inline]
pub(super) fn digest(bytes: &[u8], key_hash: u64) -> u64 {
    digest_with(bytes, key_hash, value_hash(bytes))
}

/// As [`digest`], where the hash of the value is known.
#[inline]
pub(super) fn digest_with(bytes: &[u8], key_hash: u64, value_hash: u64) -> u64 {
    let kind = flags(bytes) & FLAG_KIND;
    entry_hash(key_hash, kind, version(bytes), expire_at_ms(bytes), value_hash)
}

/// The second from which on an entry with this expiry is certainly expired.
#[inline]
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

/// Writes another value of the same key over a small entry, which stays where it is. False, and nothing is done, if
/// the header would have other fields.
#[inline]
pub(super) fn overwrite(slot: &mut [u8], view: &EntryView<'_>, value_hash: u64) -> bool {
    let flags = view.small_flags();
    let (key_at, value_at, _) = spans(slot);
    if (slot[13] ^ flags) & !FLAG_KIND != 0 || value_at - key_at != view.key.len() {
        return false;
    }
    let (header, len) = view.header(value_hash, flags);
    slot[..len].copy_from_slice(&header[..len]);
    slot[value_at..value_at + view.value.len()].copy_from_slice(view.value);
    true
}

/// Sets version and expiry where they stand. False if the entry has no room for an expiry.
pub(super) fn set_expiry(bytes: &mut [u8], expire_at_ms: u64, version: Version) -> bool {
    let has_room = bytes[13] & FLAG_EXPIRES != 0;
    // A small entry that stops expiring gives its eight bytes back.
    if (has_room && (expire_at_ms != 0 || bytes[13] & FLAG_LARGE != 0)) || (!has_room && expire_at_ms == 0) {
        bytes[0..8].copy_from_slice(&version.0.to_le_bytes());
        if has_room {
            let at = expiry_at(bytes[13]);
            bytes[at..at + 8].copy_from_slice(&expire_at_ms.to_le_bytes());
        }
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written() {
        let lens = [0, 1, 16, 255, 256, 300];
        for (map, expire_at_ms, key_len, value_len) in [MapId(0), MapId(1), MapId(u16::MAX)]
            .into_iter()
            .flat_map(|map| [0, 1_800_000_000_000].map(|expire_at_ms| (map, expire_at_ms)))
            .flat_map(|(map, expire)| lens.map(|key_len| (map, expire, key_len)))
            .flat_map(|(map, expire, key)| {
                lens.into_iter().chain([10_000, 100_000]).map(move |value| (map, expire, key, value))
            })
        {
            let (key, value) = (vec![7; key_len], vec![9; value_len]);
            let view = EntryView {
                map,
                key: &key,
                value: &value,
                long: None,
                kind: EntryKind::Lock,
                expire_at_ms,
                version: Version(5),
                accessed_s: 3,
                frequency: 2,
            };
            let shape = view.shape();
            let hash = xxh3_64(&value);
            let mut bytes = if shape.large {
                view.large_head(hash).into_vec()
            } else {
                let mut slot = vec![0; shape.bytes + 5];
                view.write_small(hash, &mut slot);
                slot
            };
            let view = if shape.large { EntryView { value: b"", ..view } } else { view };
            assert_eq!(bytes.len(), if shape.large { shape.bytes - value.len() } else { shape.bytes + 5 });
            assert_eq!(read(&bytes), view);
            assert_eq!(value_hash(&bytes), hash);
            assert!(is_of(&bytes, &KeyRef::new(map, &key)));
            assert!(!is_of(&bytes, &KeyRef::new(MapId(2), &key)));
            let stays = set_expiry(&mut bytes, 5_000, Version(6));
            assert_eq!(stays, shape.large || expire_at_ms != 0);
            if stays {
                assert_eq!(read(&bytes), EntryView { expire_at_ms: 5_000, version: Version(6), ..view });
            }
        }
    }

    #[test]
    fn a_short_entry_takes_sixteen_bytes_beside_key_and_value() {
        let key = [7; 16];
        let value = [9; 64];
        let view = EntryView {
            map: MapId(0),
            key: &key,
            value: &value,
            long: None,
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version(5),
            accessed_s: 3,
            frequency: 2,
        };
        assert_eq!(view.shape().bytes, 96);
        assert_eq!(EntryView { expire_at_ms: 1, ..view }.shape().bytes, 104);
    }
}
