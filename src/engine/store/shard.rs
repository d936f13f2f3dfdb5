//! A shard: one partition's index, digests and expiry, over the node's arena.

use super::arena::{Arena, EntryId};
use super::digest::Digests;
use super::entry::{self, EntryView, KeyRef};
use super::index::{Index, Place};
use super::keyspace::frequency_after_use;
use super::segment::Segment;
use crate::engine::ids::{MapId, Version};
use crate::engine::record::Effect;
use crate::engine::time::Now;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Frequency of a new entry: not the first to go (Redis's `LFU_INIT_VAL`).
pub(super) const FREQUENCY_NEW: u8 = 5;
/// Scan cursors are prefixes of 32 bits: this is the one after the last.
const PREFIX_END: u64 = 1 << 32;
/// Entries of what a clear left that are freed with each record.
const FREED_PER_RECORD: usize = 16;
/// Entries that a scan reads together before it visits them, so that their cache misses overlap.
const SCANNED_AHEAD: usize = 16;

/// The most that one call of [`Shard::tidy`] moves, in KiB: some 20 µs of work, and a node tidies a
/// hundred shards in a row.
const MOVED_KIB_MAX: usize = 64;

/// How far a step of a [`Shard::scan_range`] goes. It stops when either bound is reached, and
/// always after at least one entry.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimit {
    /// Entries.
    pub count: usize,
    /// Bytes of keys and values.
    pub bytes: usize,
}

/// One partition's entries: the index over the arena, with digests.
///
/// A shard holds no clock and decides nothing: an expired entry is there until a
/// [`Keyspace`](super::Keyspace) (at the primary) or a record (elsewhere) deletes it.
/// [`release`](Shard::release) it before dropping it: the arena can't know otherwise.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Shard {
    digests: Digests,
    index: Index,
    /// Bytes of the entries in the arena, those in `trash` included.
    entry_bytes: u64,
    /// Entries by named map; all others are of the unnamed one.
    named: BTreeMap<MapId, usize>,
    /// What a clear of everything left, freed bit by bit.
    trash: Vec<Segment>,
    /// Index bytes that the arena has been told of.
    noted_bytes: u64,
    /// Prefix from which [`tidy`](Shard::tidy) goes on.
    tidy_from: u32,
    /// Prefix from which the look for idle entries goes on.
    idle_from: u32,
}

impl Shard {
    /// An empty shard. It allocates nothing until its first entry.
    pub fn new() -> Shard {
        Shard::default()
    }

    /// Entries of all maps, expired ones included as long as they are not deleted.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of all maps that expire at some time.
    pub fn expiring(&self) -> usize {
        self.index.expiring()
    }

    /// Entries of one map.
    pub fn len_of(&self, map: MapId) -> usize {
        match map {
            MapId(0) => self.len() - self.named.values().sum::<usize>(),
            _ => self.named.get(&map).copied().unwrap_or(0),
        }
    }

    /// The named maps that have entries here.
    pub fn named_maps(&self) -> impl Iterator<Item = MapId> + '_ {
        self.named.keys().copied()
    }

    /// Bytes taken: entries with their slack, and the index.
    pub fn bytes(&self) -> u64 {
        self.entry_bytes + self.noted_bytes
    }

    /// The digest of everything: equal contents have equal digests, whatever the history.
    pub fn digest_root(&self) -> u64 {
        self.digests.root()
    }

    /// The digest of the entries whose hash begins with this byte: those with scan cursors in
    /// [`Shard::bucket_range`].
    pub fn digest_bucket(&self, bucket: u8) -> u64 {
        self.digests.bucket(bucket)
    }

    /// Beyond every cursor of [`scan_range`](Shard::scan_range).
    pub const CURSOR_END: u64 = PREFIX_END;

    /// The scan cursors of a digest bucket, for [`scan_range`](Shard::scan_range).
    pub fn bucket_range(bucket: u8) -> Range<u64> {
        let start = u64::from(bucket) << 24;
        start..start + (1 << 24)
    }

    /// The string at `key`, if a read of it is that and nothing else: it is of the unnamed map, lies in one piece, and
    /// has not expired. Notes the use, as [`Keyspace::get`](super::Keyspace::get) does for all the rest.
    #[inline(always)]
    pub fn plain_string<'a>(
        &self,
        arena: &'a mut Arena,
        key: &KeyRef<'_>,
        now: Now,
        entropy: u64,
    ) -> Option<&'a [u8]> {
        let (_, id, bytes) = self.index.find(arena, key)?;
        let value = entry::plain_value(bytes, now.wall_ms)?;
        let (now_s, accessed_s, frequency) = (now_s(now), entry::accessed_s(bytes), entry::frequency(bytes));
        let used = frequency_after_use(frequency, now_s.saturating_sub(accessed_s), entropy);
        let bytes = arena.bytes_mut(id);
        entry::set_used(bytes, now_s, used);
        bytes.get(value)
    }

    /// The entry as it stands, expired or not. Doesn't count as a use.
    pub fn get<'a>(&self, arena: &'a Arena, key: KeyRef<'_>) -> Option<EntryView<'a>> {
        let (_, id) = self.find(arena, &key)?;
        Some(arena.view(id))
    }

    /// Visits at least `count` entries (or all that are left) from a cursor on, expired ones
    /// included, and returns the cursor to go on from; 0 is the start and the end.
    ///
    /// The cursor is a prefix of the key's hash, below 2³²; entries come in its order. So it
    /// means the same on every copy and after any growth, and an entry that is there throughout
    /// is visited exactly once.
    pub fn scan<'a>(
        &self,
        arena: &'a Arena,
        cursor: u64,
        count: usize,
        visit: impl FnMut(&EntryView<'a>),
    ) -> u64 {
        let limit = ScanLimit { count, bytes: usize::MAX };
        match self.scan_range(arena, cursor..PREFIX_END, limit, visit) {
            PREFIX_END => 0,
            next => next,
        }
    }

    /// As [`scan`](Shard::scan) within a range of cursors, in steps bounded by entries and bytes.
    /// Returns the cursor to go on from: the range's end if it is done.
    pub fn scan_range<'a>(
        &self,
        arena: &'a Arena,
        range: Range<u64>,
        limit: ScanLimit,
        mut visit: impl FnMut(&EntryView<'a>),
    ) -> u64 {
        let (mut count, mut bytes) = (0, 0);
        let mut last = None;
        let mut next = range.start;
        while next < range.end.min(PREFIX_END) {
            let Some(segment) = self.index.segment_at(next as u32) else { break };
            let mut slots = segment.iter_from(next as u32).map(|(_, prefix, id)| (prefix, id));
            loop {
                let ahead: SmallVec<[(u32, EntryId); SCANNED_AHEAD]> =
                    slots.by_ref().take(SCANNED_AHEAD).collect();
                if ahead.is_empty() {
                    break;
                }
                arena.touch(ahead.iter().map(|&(_, id)| id));
                for (prefix, id) in ahead {
                    if u64::from(prefix) >= range.end {
                        return range.end;
                    }
                    let is_full = count > 0 && (count >= limit.count || bytes >= limit.bytes);
                    if is_full && last != Some(prefix) {
                        return u64::from(prefix);
                    }
                    let view = arena.view(id);
                    count += 1;
                    bytes += view.key.len() + view.value.len();
                    last = Some(prefix);
                    visit(&view);
                }
            }
            next = segment.end();
        }
        range.end
    }

    /// Applies the next record of the log, as backups and learners do. Frees some of what a clear
    /// left, too.
    pub fn apply(&mut self, arena: &mut Arena, effect: &Effect<'_>, now: Now) {
        self.empty_trash(arena, FREED_PER_RECORD);
        match *effect {
            Effect::Put { map, key, .. } => {
                if let Some(view) = made_by(effect, now) {
                    self.put(arena, &view, KeyRef::new(map, key).hash);
                }
            }
            Effect::Delete { map, key, .. } => {
                let key = KeyRef::new(map, key);
                if let Some((place, _)) = self.find(arena, &key) {
                    self.remove(arena, place, key.hash);
                }
            }
            Effect::Clear { map, .. } => self.clear(arena, map),
            // Exactly-once state isn't part of the entries.
            Effect::Remember(_) => {}
            Effect::Expire { map, key, expire_at_ms, version } => {
                let key = KeyRef::new(map, key);
                if let Some((place, _)) = self.find(arena, &key) {
                    self.set_expiry(arena, place, key.hash, expire_at_ms, version);
                    let id = self.id(place);
                    arena.set_used(id, now_s(now), arena.view(id).frequency);
                }
            }
        }
    }

    /// Applies an effect if its version is newer than what is held: a snapshot's entry must not
    /// undo a record that came before it. Returns whether anything may have changed.
    pub fn apply_if_newer(&mut self, arena: &mut Arena, effect: &Effect<'_>, now: Now) -> bool {
        let Some(view) = made_by(effect, now) else {
            let Some(key) = effect.key_ref() else {
                return self.clear_older(arena, effect.map(), effect.version());
            };
            let is_newer = self.get(arena, key).is_some_and(|held| held.version < effect.version());
            if is_newer {
                self.apply(arena, effect, now);
            }
            return is_newer;
        };
        let key = KeyRef::new(view.map, view.key);
        let found = self.find(arena, &key);
        if found.is_some_and(|(_, id)| entry::version(arena.bytes(id)) >= view.version) {
            return false;
        }
        self.empty_trash(arena, FREED_PER_RECORD);
        self.put_at(arena, found, &view, key.hash);
        true
    }

    /// Frees everything. See [`release_some`](Shard::release_some) for doing it in steps.
    pub fn release(mut self, arena: &mut Arena) {
        while !self.release_some(arena, usize::MAX) {}
    }

    /// Empties the shard at once and frees up to `budget` entries' memory; true when all is freed.
    pub fn release_some(&mut self, arena: &mut Arena, budget: usize) -> bool {
        self.discard_all(arena);
        self.empty_trash(arena, budget);
        self.trash.is_empty()
    }

    /// Housekeeping in bounded steps: frees what a clear left, and moves entries out of blocks
    /// that the arena wants to drain. True when there is nothing left to do here for now.
    ///
    /// Call it for all shards now and then (backups' too), with a budget of entries to free, and of
    /// KiB to move; of those 64 at most.
    pub fn tidy(&mut self, arena: &mut Arena, budget: usize) -> bool {
        self.empty_trash(arena, budget);
        arena.plan_draining();
        if arena.has_draining() {
            self.move_some(arena, budget.min(MOVED_KIB_MAX));
        } else {
            self.tidy_from = 0;
        }
        self.trash.is_empty() && self.tidy_from == 0
    }

    /// Goes on moving entries out of draining blocks. An entry costs its KiB, rounded up.
    fn move_some(&mut self, arena: &mut Arena, budget_kib: usize) {
        // Looking at a slot of the index is far cheaper than moving an entry.
        const LOOKS_PER_MOVE: usize = 8;
        let (mut moved_kib, mut looks) = (0, 0);
        while moved_kib < budget_kib as u64 && looks < budget_kib * LOOKS_PER_MOVE {
            let (places, next) = self.index.places_from(self.tidy_from, LOOKS_PER_MOVE);
            looks += places.len().max(1);
            for (place, id) in places {
                if arena.is_draining(id) {
                    moved_kib += arena.size(id).div_ceil(1_024);
                    self.index.set_id(place, arena.relocate(id));
                }
            }
            self.tidy_from = next.unwrap_or(0);
            if self.tidy_from == 0 {
                break;
            }
        }
    }

    /// Reads the shard itself, and returns what was read.
    ///
    /// Reading for a whole batch first lets the processor overlap the cache misses. Then what
    /// [`slots_of`](Shard::slots_of) gives (and [`touch_digest`](Shard::touch_digest), of what will be written),
    /// then what [`entry_of`](Shard::entry_of) gives, then the commands. Pass the sum of all that is read to
    /// [`std::hint::black_box`], so that the reads are not optimised away.
    #[inline]
    pub fn touch(&self) -> u64 {
        self.digests.root() ^ self.index.touch()
    }

    /// Reads the digest that a write of this hash changes; see [`touch`](Shard::touch).
    #[inline]
    pub fn touch_digest(&self, hash: u64) -> u64 {
        self.digests.bucket((hash >> 56) as u8)
    }

    /// The slots of the index that a look for this hash reads first; see [`touch`](Shard::touch).
    #[inline]
    pub fn slots_of(&self, hash: u64) -> &[u64] {
        self.index.slots_of((hash >> 32) as u32)
    }

    /// The bytes of the first entry whose hash begins as this one does, empty if there is none; see
    /// [`touch`](Shard::touch).
    #[inline]
    pub fn entry_of<'a>(&self, arena: &'a Arena, hash: u64) -> &'a [u8] {
        self.index.first_of((hash >> 32) as u32).map_or(&[], |id| arena.bytes(id))
    }

    pub(super) fn find(&self, arena: &Arena, key: &KeyRef<'_>) -> Option<(Place, EntryId)> {
        let (place, id, _) = self.index.find(arena, key)?;
        Some((place, id))
    }

    #[inline]
    pub(super) fn id(&self, place: Place) -> EntryId {
        self.index.id(place)
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }

    pub(super) fn index_mut(&mut self) -> &mut Index {
        &mut self.index
    }

    pub(super) fn idle_from(&self) -> u32 {
        self.idle_from
    }

    pub(super) fn set_idle_from(&mut self, prefix: u32) {
        self.idle_from = prefix;
    }

    /// Whether a clear left entries whose memory is still to be freed.
    pub fn has_trash(&self) -> bool {
        !self.trash.is_empty()
    }

    /// Stores an entry, whatever was there. The version and the frequency are the view's.
    pub(super) fn put(&mut self, arena: &mut Arena, view: &EntryView<'_>, hash: u64) {
        let found = self.find(arena, &KeyRef { map: view.map, key: view.key, hash });
        self.put_at(arena, found, view, hash);
    }

    /// As [`put`](Shard::put), where the key is known to be found there, or nowhere.
    pub(super) fn put_at(
        &mut self,
        arena: &mut Arena,
        found: Option<(Place, EntryId)>,
        view: &EntryView<'_>,
        hash: u64,
    ) {
        let value_hash = match view.long {
            None => xxh3_64(view.value),
            Some(long) => long.hash(),
        };
        let due_s = entry::due_s(view.expire_at_ms);
        let Some((place, old)) = found else {
            self.insert(arena, view, hash, value_hash, due_s);
            return;
        };
        let old_hash = entry::digest(arena.bytes(old), hash);
        let id = if arena.overwrite(old, view, value_hash) {
            old
        } else {
            let removed = arena.size(old);
            let id = arena.replace(old, view, value_hash);
            self.index.set_id(place, id);
            self.note_entry(arena, view.map, arena.size(id), removed);
            id
        };
        self.digests.replace(hash, old_hash, entry::digest_with(arena.bytes(id), hash, value_hash));
        if self.index.set_due_s(place, due_s) {
            self.note_index(arena);
        }
    }

    fn insert(&mut self, arena: &mut Arena, view: &EntryView<'_>, hash: u64, value_hash: u64, due_s: u32) {
        let id = arena.insert(view, value_hash);
        self.index.insert((hash >> 32) as u32, id, due_s);
        if view.map != MapId(0) {
            *self.named.entry(view.map).or_default() += 1;
        }
        self.digests.add(hash, entry::digest_with(arena.bytes(id), hash, value_hash));
        self.note_entry(arena, view.map, arena.size(id), 0);
        self.note_index(arena);
    }

    /// Deletes the entry at a place. Returns the bytes of its room.
    pub(super) fn remove(&mut self, arena: &mut Arena, place: Place, hash: u64) -> u64 {
        let id = self.index.remove(place);
        let bytes = arena.bytes(id);
        let map = entry::map(bytes);
        self.digests.remove(hash, entry::digest(bytes, hash));
        if self.index.len() == 0 {
            debug_assert_eq!(self.digests.root(), 0, "no entries have no digest");
            self.digests = Digests::default();
        }
        let size = arena.remove(id);
        if map != MapId(0) {
            self.forget_named(map, 1);
        }
        self.note_entry(arena, map, 0, size);
        self.note_index(arena);
        size
    }

    /// Sets the expiry and the version of the entry at a place, which stays valid.
    pub(super) fn set_expiry(
        &mut self,
        arena: &mut Arena,
        place: Place,
        hash: u64,
        expire_at_ms: u64,
        version: Version,
    ) {
        let old = self.index.id(place);
        let removed = arena.size(old);
        self.digests.remove(hash, entry::digest(arena.bytes(old), hash));
        let id = arena.set_expiry(old, expire_at_ms, version);
        self.digests.add(hash, entry::digest(arena.bytes(id), hash));
        self.index.set_id(place, id);
        self.index.set_due_s(place, entry::due_s(expire_at_ms));
        self.note_entry(arena, entry::map(arena.bytes(id)), arena.size(id), removed);
        self.note_index(arena);
    }

    /// Deletes all entries of a map.
    pub(super) fn clear(&mut self, arena: &mut Arena, map: MapId) {
        if self.len_of(map) == self.len() {
            self.discard_all(arena);
        } else {
            self.clear_older(arena, map, Version(u64::MAX));
        }
    }

    /// Deletes the entries of a map that are older than a version. Returns whether there were any.
    fn clear_older(&mut self, arena: &mut Arena, map: MapId, version: Version) -> bool {
        let (places, _) = self.index.places_from(0, usize::MAX);
        let ids = places.into_iter().map(|(_, id)| id).filter(|&id| {
            let bytes = arena.bytes(id);
            entry::map(bytes) == map && entry::version(bytes) < version
        });
        let ids: Vec<EntryId> = ids.collect();
        for &id in &ids {
            let key = arena.view(id).key.to_vec();
            let key = KeyRef::new(map, &key);
            if let Some((place, _)) = self.find(arena, &key) {
                self.remove(arena, place, key.hash);
            }
        }
        !ids.is_empty()
    }

    /// Empties the index; the memory is freed by [`empty_trash`](Shard::empty_trash).
    fn discard_all(&mut self, arena: &mut Arena) {
        self.trash.append(&mut self.index.take());
        self.digests = Digests::default();
        self.named.clear();
        self.tidy_from = 0;
        self.note_index(arena);
    }

    fn empty_trash(&mut self, arena: &mut Arena, budget: usize) {
        if self.trash.is_empty() {
            return;
        }
        let mut left = budget;
        while left > 0
            && let Some(segment) = self.trash.last_mut()
        {
            match segment.pop() {
                Some(id) => {
                    let map = entry::map(arena.bytes(id));
                    let size = arena.remove(id);
                    self.note_entry(arena, map, 0, size);
                    left -= 1;
                }
                None => {
                    self.trash.pop();
                }
            }
        }
        if self.trash.is_empty() {
            self.trash = Vec::new();
        }
        self.note_index(arena);
    }

    fn forget_named(&mut self, map: MapId, count: usize) {
        if let Some(len) = self.named.get_mut(&map) {
            *len -= count;
            if *len == 0 {
                self.named.remove(&map);
            }
        }
    }

    fn note_entry(&mut self, arena: &mut Arena, map: MapId, added: u64, removed: u64) {
        self.entry_bytes = self.entry_bytes + added - removed;
        if map != MapId(0) && added != removed {
            arena.note_map_bytes(map, added, removed);
        }
    }

    fn note_index(&mut self, arena: &mut Arena) {
        let trash_bytes = match self.trash.as_slice() {
            [] => 0,
            trash => trash.iter().map(Segment::bytes).sum(),
        };
        let bytes = self.index.bytes() + self.digests.bytes() + trash_bytes;
        if bytes != self.noted_bytes {
            arena.note_index_bytes(self.noted_bytes, bytes);
            self.noted_bytes = bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.index.check();
    }
}

/// The entry that a put makes; `None` if the effect isn't one.
fn made_by<'a>(effect: &Effect<'a>, now: Now) -> Option<EntryView<'a>> {
    let Effect::Put { map, key, value, kind, expire_at_ms, version } = *effect else { return None };
    let (accessed_s, frequency) = (now_s(now), FREQUENCY_NEW);
    Some(EntryView { map, key, value, long: None, kind, expire_at_ms, version, accessed_s, frequency })
}

/// The wall clock in seconds, as entries remember their last use.
pub(super) fn now_s(now: Now) -> u32 {
    u32::try_from(now.wall_ms / 1_000).unwrap_or(u32::MAX)
}
