//! The keyspace: one partition as commands see it, at its primary.

use super::arena::{Arena, EntryId};
use super::entry::{self, EntryKind, EntryView, KeyRef};
use super::index::Place;
use super::long::NewValue;
use super::shard::{FREQUENCY_NEW, Shard, now_s};
use super::token::FencingToken;
use crate::engine::hlc::Hlc;
use crate::engine::ids::{MapId, PartitionId, Version};
use crate::engine::record::{Effect, Limits, RecordLog};
use crate::engine::table::{MapDefaults, MapDefinition};
use crate::engine::time::Now;

/// What a command knows besides the entries.
#[derive(Clone, Copy, Debug)]
pub struct KeyspaceContext<'a> {
    /// The time of the batch.
    pub now: Now,
    /// Which partition this is.
    pub partition: PartitionId,
    /// How many partitions the cluster has.
    pub partition_count: u16,
    /// Random bits, fresh for each command.
    pub entropy: u64,
    /// What a lock taken by this command gets as its fencing token.
    pub token: FencingToken,
    /// The named maps; `maps[i]` is [`MapId`] `i + 1`.
    pub maps: &'a [MapDefinition],
    /// The longest key and value that commands may store.
    pub limits: Limits,
}

impl KeyspaceContext<'_> {
    /// The defaults of a map; none for the unnamed or an unknown one.
    pub fn map_defaults(&self, map: MapId) -> MapDefaults {
        match map.0 {
            0 => MapDefaults::default(),
            n => self.maps.get(usize::from(n) - 1).map(|map| map.defaults).unwrap_or_default(),
        }
    }
}

/// A live entry that was looked for, and what its header says.
struct Found {
    place: Place,
    id: EntryId,
    kind: EntryKind,
    accessed_s: u32,
    frequency: u8,
}

/// One partition's entries as commands read and write them. Every change is also appended to the
/// log as a record, the deletes that expiry and eviction decide included.
#[derive(Debug)]
pub struct Keyspace<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) arena: &'a mut Arena,
    hlc: &'a mut Hlc,
    log: &'a mut RecordLog,
    pub(super) context: KeyspaceContext<'a>,
    /// Keys looked for.
    lookups: u64,
    /// Those of them that were there.
    hits: u64,
}

impl<'a> Keyspace<'a> {
    /// The keyspace over these parts, for one command or a batch of them.
    pub fn new(
        shard: &'a mut Shard,
        arena: &'a mut Arena,
        hlc: &'a mut Hlc,
        log: &'a mut RecordLog,
        context: KeyspaceContext<'a>,
    ) -> Keyspace<'a> {
        Keyspace { shard, arena, hlc, log, context, lookups: 0, hits: 0 }
    }

    /// How many keys commands looked for, and how many of them were there.
    pub fn lookups_and_hits(&self) -> (u64, u64) {
        (self.lookups, self.hits)
    }

    /// The wall time of the batch, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.context.now.wall_ms
    }

    /// What commands know besides the entries.
    pub fn context(&self) -> &KeyspaceContext<'a> {
        &self.context
    }

    /// The live entry of a key; counts as a use of it. An entry that is expired, or was idle for
    /// longer than its map allows, is deleted first.
    ///
    /// In a map with an idle time a use may append a record, so that the other copies know of it:
    /// at most four in one idle time.
    pub fn get(&mut self, key: KeyRef<'_>) -> Option<EntryView<'_>> {
        let found = self.live(&key)?;
        self.note_use(&found, &key);
        Some(self.arena.view(found.id))
    }

    /// As [`get`](Keyspace::get), but doesn't count as a use.
    pub fn peek(&mut self, key: KeyRef<'_>) -> Option<EntryView<'_>> {
        let found = self.live(&key)?;
        Some(self.arena.view(found.id))
    }

    /// Stores a value with an absolute expiry (0 is never), whatever was there.
    ///
    /// Commands check the limits before; a map's default TTL is theirs to give too.
    pub fn put<'v>(
        &mut self,
        key: KeyRef<'_>,
        kind: EntryKind,
        value: impl Into<NewValue<'v>>,
        expire_at_ms: u64,
    ) -> Version {
        let found = self.shard.find(self.arena, &key);
        self.put_at(found, key, kind, value.into(), expire_at_ms)
    }

    /// As [`put`](Keyspace::put), unless the entry that is there has another kind. Whether it was stored.
    pub fn put_same_kind<'v>(
        &mut self,
        key: KeyRef<'_>,
        kind: EntryKind,
        value: impl Into<NewValue<'v>>,
        expire_at_ms: u64,
    ) -> bool {
        let found = self.live(&key);
        let is_other = found.as_ref().is_some_and(|found| found.kind != kind);
        if !is_other {
            let found = found.map(|found| (found.place, found.id));
            self.put_at(found, key, kind, value.into(), expire_at_ms);
        }
        !is_other
    }

    fn put_at(
        &mut self,
        found: Option<(Place, EntryId)>,
        key: KeyRef<'_>,
        kind: EntryKind,
        value: NewValue<'_>,
        expire_at_ms: u64,
    ) -> Version {
        let NewValue { bytes: value, long } = value;
        debug_assert!(key.key.len() <= self.context.limits.key_bytes_max as usize);
        debug_assert!(value.len() <= self.context.limits.value_bytes_max as usize);
        let version = self.hlc.tick(self.now_ms());
        let view = EntryView {
            map: key.map,
            key: key.key,
            value,
            long,
            kind,
            expire_at_ms,
            version,
            accessed_s: now_s(self.context.now),
            frequency: FREQUENCY_NEW,
        };
        self.shard.put_at(self.arena, found, &view, key.hash);
        let effect = Effect::Put { map: key.map, key: key.key, value, kind, expire_at_ms, version };
        self.log.push_hashed(&effect, Some(key.hash));
        version
    }

    /// Sets the absolute expiry of a live entry (0 is never). False if there is none.
    pub fn set_expiry(&mut self, key: KeyRef<'_>, expire_at_ms: u64) -> bool {
        let Some(Found { place, .. }) = self.live(&key) else { return false };
        let version = self.hlc.tick(self.now_ms());
        self.shard.set_expiry(self.arena, place, key.hash, expire_at_ms, version);
        let effect = Effect::Expire { map: key.map, key: key.key, expire_at_ms, version };
        self.log.push_hashed(&effect, Some(key.hash));
        true
    }

    /// Deletes a key. False if there was no live entry (an expired one is deleted all the same).
    pub fn delete(&mut self, key: KeyRef<'_>) -> bool {
        let Some(Found { place, .. }) = self.live(&key) else { return false };
        self.remove(place, key.hash);
        true
    }

    /// Deletes all entries of a map. The memory is freed in steps, by
    /// [`sweep_expired`](Keyspace::sweep_expired) or [`Shard::tidy`].
    pub fn clear(&mut self, map: MapId) {
        if self.shard.len_of(map) == 0 {
            return;
        }
        let version = self.hlc.tick(self.now_ms());
        self.shard.clear(self.arena, map);
        self.log.push_hashed(&Effect::Clear { map, version }, None);
    }

    /// Entries of a map, expired ones included as long as they are not deleted.
    pub fn len(&self, map: MapId) -> usize {
        self.shard.len_of(map)
    }

    /// Whether a map has no entry here.
    pub fn is_empty(&self, map: MapId) -> bool {
        self.len(map) == 0
    }

    /// Visits live entries of all maps from a cursor on, about `count` of them, and returns the
    /// cursor to go on from; 0 is the start and the end, all others are below 2³².
    ///
    /// The cursor is a prefix of the key's hash: it stays valid on another copy and after any
    /// growth. An entry that is there throughout is visited exactly once.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(&EntryView<'_>)) -> u64 {
        self.shard.scan(self.arena, cursor, count, |view| {
            if !self.is_gone(view.map, view.expire_at_ms, view.accessed_s) {
                visit(view);
            }
        })
    }

    /// Some live entry of any map; `None` if there is none.
    pub fn random(&self, entropy: u64) -> Option<EntryView<'_>> {
        self.random_where(entropy, |_| true)
    }

    /// Some live entry of one map; `None` if there is none.
    pub fn random_in(&self, map: MapId, entropy: u64) -> Option<EntryView<'_>> {
        self.random_where(entropy, |view| view.map == map)
    }

    fn random_where(&self, entropy: u64, accept: impl Fn(&EntryView<'_>) -> bool) -> Option<EntryView<'_>> {
        const TRIES: u64 = 32;
        let accept = |view: &EntryView<'_>| {
            !self.is_gone(view.map, view.expire_at_ms, view.accessed_s) && accept(view)
        };
        for attempt in 0..TRIES {
            let place = self.shard.index().random(mix(entropy, attempt))?;
            let view = self.arena.view(self.shard.id(place));
            if accept(&view) {
                return Some(view);
            }
        }
        // Live ones are rare: the first in hash order from somewhere on.
        let start = entropy >> 32;
        let mut found = None;
        for (mut cursor, end) in [(start, 1 << 32), (0, start)] {
            while found.is_none() && cursor < end {
                let limit = super::ScanLimit { count: 64, bytes: usize::MAX };
                cursor = self.shard.scan_range(self.arena, cursor..end, limit, |view| {
                    if found.is_none() && accept(view) {
                        found = Some(*view);
                    }
                });
            }
        }
        found
    }

    /// Deletes entries that are due, up to `budget` of them, and returns how many. Costs next to
    /// nothing while nothing is due. Call it about once a second: an entry goes within a second or two of its
    /// expiry, without being read, unless more are due than the budgets allow for.
    ///
    /// It also [tidies](Shard::tidy) the shard a little, and looks through maps with an idle time
    /// bit by bit.
    pub fn sweep_expired(&mut self, budget: usize) -> usize {
        const TIDY_BUDGET: usize = 1_024;
        /// Entries are read so many at a time, so that the cache misses overlap.
        const SWEPT_AHEAD: usize = 16;
        self.shard.tidy(self.arena, budget.min(TIDY_BUDGET));
        let now_s = now_s(self.context.now);
        let mut deleted = 0;
        let mut from = Place::default();
        while deleted < budget {
            let Some(place) = self.shard.index_mut().next_due(from, now_s) else { break };
            if deleted % SWEPT_AHEAD == 0 {
                self.arena.touch(self.shard.index().due_from(place, now_s).take(SWEPT_AHEAD));
            }
            let view = self.arena.view(self.shard.id(place));
            let hash = KeyRef::new(view.map, view.key).hash;
            self.remove(place, hash);
            deleted += 1;
            from = place;
        }
        deleted + self.sweep_idle(budget - deleted)
    }

    /// Looks at the next entries in hash order if there is a map with an idle time here, and goes
    /// on while many of them are found idle.
    fn sweep_idle(&mut self, budget: usize) -> usize {
        const STEP: usize = 32;
        let has_idle = |map| self.context.map_defaults(map).idle_ms > 0;
        if budget == 0 || !self.shard.named_maps().any(has_idle) {
            return 0;
        }
        let mut deleted = 0;
        while deleted < budget {
            let (places, next) = self.shard.index().places_from(self.shard.idle_from(), STEP);
            self.shard.set_idle_from(next.unwrap_or(0));
            let mut keys = Vec::new();
            for (_, id) in places {
                let view = self.arena.view(id);
                if self.is_gone(view.map, view.expire_at_ms, view.accessed_s) {
                    keys.push((view.map, view.key.to_vec()));
                }
            }
            for (map, key) in &keys {
                let key = KeyRef::new(*map, key);
                if let Some((place, _)) = self.shard.find(self.arena, &key) {
                    self.remove(place, key.hash);
                    deleted += 1;
                }
            }
            if keys.len() < STEP / 4 || next.is_none() {
                break;
            }
        }
        deleted
    }

    /// A key's live entry and its place. One that is no longer alive is deleted.
    #[inline(always)]
    fn live(&mut self, key: &KeyRef<'_>) -> Option<Found> {
        self.lookups += 1;
        let (place, id, bytes) = self.shard.index().find(self.arena, key)?;
        let (kind, accessed_s, frequency) =
            (entry::kind(bytes), entry::accessed_s(bytes), entry::frequency(bytes));
        if self.is_gone(key.map, entry::expire_at_ms(bytes), accessed_s) {
            self.remove(place, key.hash);
            return None;
        }
        self.hits += 1;
        Some(Found { place, id, kind, accessed_s, frequency })
    }

    /// Whether an entry is expired, or idle for too long. Last uses are known to the second: an
    /// entry may live up to two seconds beyond its idle time, and never shorter.
    #[inline]
    pub(super) fn is_gone(&self, map: MapId, expire_at_ms: u64, accessed_s: u32) -> bool {
        if expire_at_ms != 0 && expire_at_ms <= self.now_ms() {
            return true;
        }
        if map == MapId(0) {
            return false;
        }
        let idle_ms = self.context.map_defaults(map).idle_ms;
        let idle_s = now_s(self.context.now).saturating_sub(accessed_s);
        idle_ms > 0 && u64::from(idle_s.saturating_sub(1)) * 1_000 >= idle_ms
    }

    /// Deletes the entry at a place, with its record. Returns the bytes of its room.
    pub(super) fn remove(&mut self, place: Place, hash: u64) -> u64 {
        let version = self.hlc.tick(self.now_ms());
        let view = self.arena.view(self.shard.id(place));
        let effect = Effect::Delete { map: view.map, key: view.key, version };
        self.log.push_hashed(&effect, Some(hash));
        self.shard.remove(self.arena, place, hash)
    }

    #[inline(always)]
    fn note_use(&mut self, found: &Found, key: &KeyRef<'_>) {
        let now_s = now_s(self.context.now);
        let since_s = now_s.saturating_sub(found.accessed_s);
        if key.map != MapId(0) {
            self.tell_of_use(found, key, since_s);
        }
        let used = frequency_after_use(found.frequency, since_s, mix(self.context.entropy, key.hash));
        if now_s != found.accessed_s || used != found.frequency {
            self.arena.set_used(found.id, now_s, used);
        }
    }

    /// Appends a record of a use, where the other copies have to know of it.
    #[inline(never)]
    fn tell_of_use(&mut self, found: &Found, key: &KeyRef<'_>, since_s: u32) {
        let idle_ms = self.context.map_defaults(key.map).idle_ms;
        if idle_ms > 0 && u64::from(since_s) * 1_000 > idle_ms / 4 {
            let EntryView { map, key: bytes, expire_at_ms, version, .. } = self.arena.view(found.id);
            let effect = Effect::Expire { map, key: bytes, expire_at_ms, version };
            self.log.push_hashed(&effect, Some(key.hash));
        }
    }
}

/// A logarithmic counter as Redis's LFU has it: one less a minute, one more by a chance that
/// shrinks as it grows.
#[inline]
pub(super) fn frequency_after_use(frequency: u8, since_s: u32, entropy: u64) -> u8 {
    const LOG_FACTOR: u64 = 10;
    let decayed = frequency.saturating_sub((since_s / 60).min(255) as u8);
    let odds = u64::from(decayed.saturating_sub(FREQUENCY_NEW)) * LOG_FACTOR + 1;
    // True once in `odds`: a 32-bit random number below 2^32 / odds.
    let is_counted = (entropy >> 32) * odds < 1 << 32;
    decayed.saturating_add(u8::from(is_counted))
}

/// Random bits from random bits (the finalizer of SplitMix64).
pub(super) fn mix(entropy: u64, step: u64) -> u64 {
    let mut z = entropy.wrapping_add(step.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
