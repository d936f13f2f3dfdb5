//! The storage engine against a model, and its promises on scans, digests and memory.

use super::*;
use crate::engine::hlc::Hlc;
use crate::engine::ids::{MapId, PartitionId, Version};
use crate::engine::record::{Effect, Limits, RecordLog, decode};
use crate::engine::table::{MapDefaults, MapDefinition};
use crate::engine::time::Now;
use std::collections::{BTreeMap, BTreeSet};

const START_MS: u64 = 1_700_000_000_000;
const UNNAMED: MapId = MapId(0);
const SESSIONS: MapId = MapId(1);
const BOUNDED: MapId = MapId(2);

/// A small deterministic source of numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        keyspace::mix(self.0, 0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A primary: all that a keyspace needs.
struct Primary {
    shard: Shard,
    arena: Arena,
    hlc: Hlc,
    log: RecordLog,
    maps: Vec<MapDefinition>,
    now: Now,
}

impl Primary {
    fn new() -> Primary {
        let map = |name: &str, defaults| MapDefinition { name: name.into(), defaults };
        Primary {
            shard: Shard::new(),
            arena: Arena::new(),
            hlc: Hlc::default(),
            log: RecordLog::new(),
            maps: vec![
                map("sessions", MapDefaults { idle_ms: 10_000, ..MapDefaults::default() }),
                map("bounded", MapDefaults { bytes_max: 50_000, ..MapDefaults::default() }),
            ],
            now: Now { mono_us: 0, wall_ms: START_MS },
        }
    }

    fn keyspace(&mut self) -> Keyspace<'_> {
        let context = KeyspaceContext {
            now: self.now,
            partition: PartitionId(0),
            partition_count: 1,
            entropy: self.hlc.last().0,
            token: FencingToken::default(),
            maps: &self.maps,
            limits: Limits::default(),
        };
        Keyspace::new(&mut self.shard, &mut self.arena, &mut self.hlc, &mut self.log, context)
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Version {
        self.keyspace().put(KeyRef::new(UNNAMED, key), EntryKind::String, value, 0)
    }

    fn advance_ms(&mut self, ms: u64) {
        self.now = self.now.plus_us(ms * 1_000);
    }

    /// Applies the log to a backup and empties it.
    fn replicate(&mut self, backup: &mut Shard, arena: &mut Arena) {
        let mut records = self.log.records();
        while !records.is_empty() {
            let effect = decode(&mut records, &Limits::default()).expect("own record");
            backup.apply(arena, &effect, self.now);
        }
        self.log.clear();
    }
}

/// Value, expiry and version by map and key.
type Contents = BTreeMap<(MapId, Vec<u8>), (Vec<u8>, u64, Version)>;

/// Everything that a shard holds, in order.
fn contents(shard: &Shard, arena: &Arena) -> Contents {
    let mut entries = BTreeMap::new();
    assert_eq!(
        shard.scan(arena, 0, usize::MAX, |view| {
            let key = (view.map, view.key.to_vec());
            entries.insert(key, (view.value.to_vec(), view.expire_at_ms, view.version));
        }),
        0
    );
    entries
}

fn assert_same(a: (&Shard, &Arena), b: (&Shard, &Arena)) {
    assert_eq!(contents(a.0, a.1), contents(b.0, b.1));
    assert_eq!(a.0.digest_root(), b.0.digest_root());
    for bucket in 0..=255 {
        assert_eq!(a.0.digest_bucket(bucket), b.0.digest_bucket(bucket));
    }
}

struct Modelled {
    value: Vec<u8>,
    expire_at_ms: u64,
    used_s: u64,
}

#[test]
fn agrees_with_a_model_and_its_backup() {
    for seed in 0..12 {
        model_run(seed);
    }
}

fn model_run(seed: u64) {
    let mut random = Random(seed << 32);
    let mut primary = Primary::new();
    let (mut backup, mut backup_arena) = (Shard::new(), Arena::new());
    let mut model: BTreeMap<(MapId, Vec<u8>), Modelled> = BTreeMap::new();
    let keys = 20 + random.below(1_500);

    for step in 0..4_000 {
        let map = MapId(random.below(2) as u16);
        let name = format!("key:{}", random.below(keys)).into_bytes();
        let key = KeyRef::new(map, &name);
        let now_ms = primary.now.wall_ms;
        // An idle time is known to the second; the model mirrors the documented bounds.
        let gone = |map: MapId, entry: &Modelled| {
            let is_idle = map == SESSIONS && (now_ms / 1_000 - entry.used_s).saturating_sub(1) >= 10;
            (entry.expire_at_ms != 0 && entry.expire_at_ms <= now_ms) || is_idle
        };
        let at = (map, name.clone());
        if model.get(&at).is_some_and(|entry| gone(map, entry)) {
            model.remove(&at);
        }
        let mut keyspace = primary.keyspace();
        match random.below(100) {
            0..40 => {
                let len = if random.below(20) == 0 { random.below(9_000) } else { random.below(200) };
                let value = vec![random.next() as u8; len as usize];
                let expires = random.below(3) == 0;
                let expire_at_ms = if expires { now_ms + random.below(30_000) } else { 0 };
                keyspace.put(key, EntryKind::String, &value, expire_at_ms);
                model.insert(at, Modelled { value, expire_at_ms, used_s: now_ms / 1_000 });
            }
            40..65 => {
                let found = keyspace.get(key).map(|view| (view.value.to_vec(), view.expire_at_ms));
                let modelled = model.get_mut(&at);
                assert_eq!(found, modelled.as_ref().map(|entry| (entry.value.clone(), entry.expire_at_ms)));
                if let Some(entry) = modelled {
                    entry.used_s = now_ms / 1_000;
                }
            }
            65..78 => assert_eq!(keyspace.delete(key), model.remove(&at).is_some()),
            78..88 => {
                let expire_at_ms = if random.below(3) == 0 { 0 } else { now_ms + 1 + random.below(40_000) };
                let modelled = model.get_mut(&at);
                assert_eq!(keyspace.set_expiry(key, expire_at_ms), modelled.is_some());
                if let Some(entry) = modelled {
                    entry.expire_at_ms = expire_at_ms;
                }
            }
            88..92 => {
                let found = keyspace.random_in(map, random.next()).map(|view| view.key.to_vec());
                let alive = model.iter().any(|((of, _), entry)| *of == map && !gone(map, entry));
                assert_eq!(found.is_some(), alive);
                if let Some(found) = found {
                    assert!(model.get(&(map, found)).is_some_and(|entry| !gone(map, entry)));
                }
            }
            92..97 => {
                keyspace.sweep_expired(1 + random.below(50) as usize);
                primary.advance_ms(random.below(800));
            }
            97..98 if step % 5 == 0 => {
                keyspace.clear(map);
                model.retain(|(of, _), _| *of != map);
            }
            _ => {
                primary.shard.tidy(&mut primary.arena, 20);
            }
        }
        if step % 256 == 0 {
            primary.shard.check();
            primary.replicate(&mut backup, &mut backup_arena);
            assert_same((&primary.shard, &primary.arena), (&backup, &backup_arena));
        }
    }

    // What is left after all that is due is swept is what the model holds.
    let now_ms = primary.now.wall_ms;
    while primary.keyspace().sweep_expired(1_000) > 0 {}
    let mut live = BTreeSet::new();
    primary.keyspace().scan(0, usize::MAX, |view| {
        live.insert((view.map, view.key.to_vec()));
    });
    model.retain(|(map, _), entry| {
        let is_idle = *map == SESSIONS && (now_ms / 1_000 - entry.used_s).saturating_sub(1) >= 10;
        !is_idle && (entry.expire_at_ms == 0 || entry.expire_at_ms > now_ms)
    });
    assert_eq!(live, model.keys().cloned().collect());
    primary.replicate(&mut backup, &mut backup_arena);
    assert_same((&primary.shard, &primary.arena), (&backup, &backup_arena));

    // A learner that takes the entries in another order ends with the same digests.
    let (mut learner, mut learner_arena) = (Shard::new(), Arena::new());
    let mut entries: Vec<_> = contents(&primary.shard, &primary.arena).into_iter().collect();
    for at in (1..entries.len()).rev() {
        entries.swap(at, random.below(at as u64 + 1) as usize);
    }
    for ((map, key), (value, expire_at_ms, version)) in &entries {
        let put = |version: &Version, value| Effect::Put {
            map: *map,
            key,
            value,
            kind: EntryKind::String,
            expire_at_ms: *expire_at_ms,
            version: *version,
        };
        let (new, old) = (put(version, value.as_slice()), put(&Version(version.0 - 1), b"old"));
        assert!(learner.apply_if_newer(&mut learner_arena, &new, primary.now));
        assert!(!learner.apply_if_newer(&mut learner_arena, &old, primary.now));
    }
    assert_same((&primary.shard, &primary.arena), (&learner, &learner_arena));

    // Nothing stays once a shard is released.
    primary.shard.release(&mut primary.arena);
    assert_eq!(primary.arena.bytes_used(), empty_bytes(&primary.arena));
    assert_eq!(primary.arena.map_bytes(SESSIONS), 0);
}

/// What an arena without entries may count: the bookkeeping of pages there once were.
fn empty_bytes(arena: &Arena) -> u64 {
    assert!(arena.bytes_used() < 1 << 16);
    arena.bytes_used()
}

#[test]
fn digests_tell_every_part_of_an_entry() {
    let base = Effect::Put {
        map: UNNAMED,
        key: b"key",
        value: b"value",
        kind: EntryKind::String,
        expire_at_ms: 5,
        version: Version(7),
    };
    let put = |map, key: &'static [u8], value: &'static [u8], kind, expire_at_ms, version| Effect::Put {
        map,
        key,
        value,
        kind,
        expire_at_ms,
        version: Version(version),
    };
    let mut roots = BTreeSet::new();
    for effect in [
        base,
        put(MapId(1), b"key", b"value", EntryKind::String, 5, 7),
        put(UNNAMED, b"kez", b"value", EntryKind::String, 5, 7),
        put(UNNAMED, b"key", b"valuf", EntryKind::String, 5, 7),
        put(UNNAMED, b"key", b"value", EntryKind::Lock, 5, 7),
        put(UNNAMED, b"key", b"value", EntryKind::String, 0, 7),
        put(UNNAMED, b"key", b"value", EntryKind::String, 5, 8),
    ] {
        let (mut shard, mut arena) = (Shard::new(), Arena::new());
        assert_eq!(shard.digest_root(), 0);
        shard.apply(&mut arena, &effect, Now::default());
        roots.insert(shard.digest_root());
        shard.apply(&mut arena, &Effect::Clear { map: effect.map(), version: Version(9) }, Now::default());
        assert_eq!(shard.digest_root(), 0);
    }
    assert_eq!(roots.len(), 7);
}

#[test]
fn scan_visits_what_is_there_throughout() {
    let mut primary = Primary::new();
    let mut random = Random(7);
    for i in 0..3_000 {
        primary.put(format!("stays:{i}").as_bytes(), b"v");
        primary.put(format!("goes:{i}").as_bytes(), b"v");
    }
    let mut visited: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let (mut cursor, mut calls) = (0, 0);
    loop {
        cursor = primary.keyspace().scan(cursor, 10, |view| {
            *visited.entry(view.key.to_vec()).or_default() += 1;
        });
        calls += 1;
        if cursor == 0 {
            break;
        }
        assert!(cursor < 1 << 32);
        // Growth through several splits, and deletes.
        for _ in 0..40 {
            primary.put(format!("comes:{}", random.next()).as_bytes(), b"v");
        }
        let gone = format!("goes:{}", random.below(3_000));
        primary.keyspace().delete(KeyRef::new(UNNAMED, gone.as_bytes()));
        if calls == 150 {
            // A failover: the copy goes on with the cursor of the other.
            let (mut copy, mut arena) = (Shard::new(), Arena::new());
            primary.replicate(&mut copy, &mut arena);
            assert_same((&primary.shard, &primary.arena), (&copy, &arena));
            (primary.shard, primary.arena) = (copy, arena);
        }
    }
    primary.shard.check();
    assert!(calls > 300, "{calls}");
    for i in 0..3_000 {
        assert_eq!(visited.get(format!("stays:{i}").as_bytes()), Some(&1));
    }
    assert!(visited.values().all(|&times| times == 1));
}

#[test]
fn ranges_of_buckets_cover_the_shard_in_bounded_steps() {
    let mut primary = Primary::new();
    for i in 0..2_000 {
        primary.put(format!("key:{i}").as_bytes(), &[0; 100]);
    }
    let mut seen = 0;
    for bucket in 0..=255 {
        let range = Shard::bucket_range(bucket);
        let mut next = range.start;
        while next < range.end {
            let mut step = 0;
            let limit = ScanLimit { count: 100, bytes: 300 };
            next = primary.shard.scan_range(&primary.arena, next..range.end, limit, |view| {
                assert_eq!(KeyRef::new(view.map, view.key).hash >> 56, u64::from(bucket));
                step += 1;
            });
            assert!(step <= 3);
            seen += step;
        }
    }
    assert_eq!(seen, 2_000);
}

#[test]
fn expired_entries_go_without_reads_and_with_records() {
    let mut primary = Primary::new();
    for i in 0..10_000u64 {
        let name = format!("key:{i}");
        let key = KeyRef::new(UNNAMED, name.as_bytes());
        let expire_at_ms = if i % 2 == 0 { START_MS + 1 + i } else { 0 };
        primary.keyspace().put(key, EntryKind::String, b"value", expire_at_ms);
    }
    primary.log.clear();
    assert_eq!(primary.keyspace().sweep_expired(usize::MAX), 0);
    primary.advance_ms(5_000);
    let mut swept = 0;
    while swept < 2_500 {
        let step = primary.keyspace().sweep_expired(100);
        assert!(step > 0 && step <= 100);
        swept += step;
    }
    assert_eq!(swept, 2_500);
    assert_eq!(primary.keyspace().sweep_expired(100), 0);
    assert_eq!(primary.log.count(), 2_500);
    primary.advance_ms(1_000_000);
    assert_eq!(primary.keyspace().sweep_expired(usize::MAX), 2_500);
    assert_eq!(primary.keyspace().len(UNNAMED), 5_000);
    primary.shard.check();
}

#[test]
fn idle_entries_go_unless_they_are_used() {
    let mut primary = Primary::new();
    let (mut backup, mut backup_arena) = (Shard::new(), Arena::new());
    for name in [b"used", b"idle"] {
        primary.keyspace().put(KeyRef::new(SESSIONS, name), EntryKind::String, b"v", 0);
    }
    for _ in 0..10 {
        primary.advance_ms(4_000);
        assert!(primary.keyspace().get(KeyRef::new(SESSIONS, b"used")).is_some());
        primary.keyspace().sweep_expired(10);
    }
    assert_eq!(primary.shard.len(), 1);
    primary.replicate(&mut backup, &mut backup_arena);
    assert_same((&primary.shard, &primary.arena), (&backup, &backup_arena));
    // The copy knows of the use: promoted, it doesn't take the entry for an idle one.
    let used_s = backup.get(&backup_arena, KeyRef::new(SESSIONS, b"used")).map(|view| view.accessed_s);
    assert_eq!(used_s, Some((primary.now.wall_ms / 1_000) as u32));
    primary.advance_ms(12_000);
    assert!(primary.keyspace().get(KeyRef::new(SESSIONS, b"used")).is_none());
}

#[test]
fn lru_eviction_keeps_what_is_used() {
    let mut primary = Primary::new();
    for i in 0..4_000 {
        primary.put(format!("key:{i}").as_bytes(), &[0; 64]);
    }
    primary.advance_ms(10_000);
    for i in 0..1_000 {
        assert!(primary.keyspace().get(KeyRef::new(UNNAMED, format!("key:{i}").as_bytes())).is_some());
    }
    primary.log.clear();
    let goal = primary.arena.bytes_used() / 2;
    let mut freed = primary.keyspace().evict(Eviction::AllKeysLru, goal);
    assert!(primary.shard.len() >= 3_750, "one call never empties a partition");
    while freed < goal {
        freed += primary.keyspace().evict(Eviction::AllKeysLru, goal - freed);
    }
    assert_eq!(primary.log.count(), 4_000 - primary.shard.len());
    let kept = (0..1_000)
        .filter(|i| {
            primary.shard.get(&primary.arena, KeyRef::new(UNNAMED, format!("key:{i}").as_bytes())).is_some()
        })
        .count();
    assert!(kept > 970, "{kept} of 1,000 used ones kept");
    assert_eq!(primary.keyspace().evict(Eviction::NoEviction, 1_000), 0);
    // Nothing expires: this policy finds nothing.
    assert_eq!(primary.keyspace().evict(Eviction::VolatileTtl, 1_000), 0);
}

#[test]
fn ttl_eviction_takes_the_nearest_first() {
    let mut primary = Primary::new();
    for i in 0..1_000u64 {
        let name = format!("key:{i}");
        let expire_at_ms = if i < 500 { START_MS + 1_000_000 - i * 1_000 } else { 0 };
        let key = KeyRef::new(UNNAMED, name.as_bytes());
        primary.keyspace().put(key, EntryKind::String, &[0; 64], expire_at_ms);
    }
    for _ in 0..5 {
        assert!(primary.keyspace().evict(Eviction::VolatileTtl, 4_000) >= 4_000);
    }
    let gone = 1_000 - primary.shard.len();
    assert!(gone > 100 && gone < 500);
    let held = contents(&primary.shard, &primary.arena);
    for i in 0..1_000 {
        let is_held = held.contains_key(&(UNNAMED, format!("key:{i}").into_bytes()));
        assert_eq!(is_held, i < 500 - gone || i >= 500);
    }
}

#[test]
fn maps_over_their_budget_are_trimmed() {
    let mut primary = Primary::new();
    for i in 0..2_000 {
        let name = format!("key:{i}");
        primary.keyspace().put(KeyRef::new(BOUNDED, name.as_bytes()), EntryKind::String, &[0; 64], 0);
        primary.put(name.as_bytes(), b"other");
        primary.keyspace().evict(Eviction::NoEviction, 0);
    }
    let bytes = primary.arena.map_bytes(BOUNDED);
    assert!(bytes <= 50_000 && bytes > 49_000, "{bytes}");
    assert_eq!(primary.keyspace().len(UNNAMED), 2_000);
}

#[test]
fn clear_is_quick_and_frees_in_steps() {
    let mut primary = Primary::new();
    for i in 0..5_000 {
        primary.put(format!("key:{i}").as_bytes(), &[0; 100]);
    }
    let full = primary.arena.bytes_used();
    primary.keyspace().clear(UNNAMED);
    assert_eq!(primary.keyspace().len(UNNAMED), 0);
    assert!(primary.arena.bytes_used() > full / 2);
    primary.put(b"new", b"value");
    while !primary.shard.tidy(&mut primary.arena, 100) {}
    assert!(primary.arena.bytes_used() < 70_000);
    assert_eq!(primary.shard.len(), 1);
    assert!(primary.keyspace().get(KeyRef::new(UNNAMED, b"new")).is_some());
}

#[test]
fn overwriting_with_random_sizes_does_not_leak() {
    let mut primary = Primary::new();
    let mut random = Random(3);
    let mut live_bytes_max = 0;
    for round in 0..12u64 {
        // The usual size shifts from round to round, the worst for pages of equal slots.
        let size = 40 << (round % 6);
        for i in 0..4_000 {
            let len = size + random.below(size);
            primary.put(format!("key:{i}").as_bytes(), &vec![0; len as usize]);
            primary.log.clear();
        }
        for _ in 0..400 {
            primary.shard.tidy(&mut primary.arena, 256);
        }
        let live_bytes: usize = contents(&primary.shard, &primary.arena)
            .iter()
            .map(|((_, key), (value, ..))| key.len() + value.len() + 20)
            .sum();
        live_bytes_max = live_bytes_max.max(live_bytes as u64);
        let used = primary.arena.bytes_used();
        let resident = primary.arena.bytes_resident();
        let slack = 4_000 * 24 + 200_000;
        assert!(used < live_bytes as u64 * 110 / 100 + slack, "{round}: {used} for {live_bytes}");
        assert!(resident < live_bytes as u64 * 125 / 100 + (5 << 20), "{round}: {resident} for {live_bytes}");
        assert!(primary.shard.bytes() <= used && used <= resident);
    }
    for i in 0..4_000 {
        primary.keyspace().delete(KeyRef::new(UNNAMED, format!("key:{i}").as_bytes()));
    }
    assert_eq!(primary.shard.bytes(), 0);
    // One empty block is kept.
    assert!(primary.arena.bytes_resident() < 2_200_000);
}

#[test]
fn sparse_pages_are_drained() {
    let mut primary = Primary::new();
    for i in 0..240_000 {
        primary.put(format!("key:{i}").as_bytes(), &[7; 64]);
        primary.log.clear();
    }
    for i in (0..240_000).filter(|i| i % 8 != 0) {
        primary.keyspace().delete(KeyRef::new(UNNAMED, format!("key:{i}").as_bytes()));
    }
    let before = primary.arena.bytes_resident();
    for _ in 0..800 {
        primary.shard.tidy(&mut primary.arena, 256);
    }
    let after = primary.arena.bytes_resident();
    assert!(after < before / 3, "{before} to {after}");
    primary.shard.check();
    for i in (0..240_000).step_by(8) {
        let key = format!("key:{i}");
        assert_eq!(
            primary.keyspace().peek(KeyRef::new(UNNAMED, key.as_bytes())).map(|view| view.value.len()),
            Some(64)
        );
    }
}

#[test]
fn blocks_of_long_values_are_drained_in_short_steps() {
    let mut primary = Primary::new();
    for i in 0..4_000 {
        primary.put(format!("key:{i}").as_bytes(), &vec![7; 9_000 + i % 4 * 5_000]);
        primary.log.clear();
    }
    for i in (0..4_000).filter(|i| i % 5 != 0) {
        primary.keyspace().delete(KeyRef::new(UNNAMED, format!("key:{i}").as_bytes()));
    }
    let mut steps = 0;
    while !primary.shard.tidy(&mut primary.arena, 200) {
        steps += 1;
    }
    // 13 MB are left; a good part of it moves, and no step may move much.
    assert!(steps > 20, "{steps}");
    let (used, resident) = (primary.arena.bytes_used(), primary.arena.bytes_resident());
    // One empty block is kept.
    assert!(resident < used * 5 / 4 + (2 << 20), "{resident} for {used}");
}

#[test]
fn small_entries_cost_little() {
    // The shape of 1 M entries over 1,024 partitions: 64 shards here.
    let mut arena = Arena::new();
    let mut shards: Vec<Shard> = (0..64).map(|_| Shard::new()).collect();
    for i in 0..62_500u64 {
        let key = format!("key:{i:012}");
        let effect = Effect::Put {
            map: UNNAMED,
            key: key.as_bytes(),
            value: &[1; 64],
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version(i + 1),
        };
        shards[(i % 64) as usize].apply(&mut arena, &effect, Now::default());
    }
    let per_entry = arena.bytes_resident() / 62_500;
    assert!(per_entry <= 120, "{per_entry} bytes an entry");
    let sum: u64 = shards.iter().map(Shard::bytes).sum();
    assert!(sum <= arena.bytes_used());
    for shard in shards {
        shard.release(&mut arena);
    }
}

#[test]
fn empty_shards_cost_next_to_nothing() {
    let arena = Arena::new();
    let shards: Vec<Shard> = (0..1_024).map(|_| Shard::new()).collect();
    assert!(shards.iter().all(|shard| shard.bytes() == 0));
    assert!(size_of::<Shard>() <= 256);
    assert_eq!(arena.bytes_resident(), arena.bytes_used());
}

#[test]
fn the_largest_keys_and_values_fit() {
    let mut primary = Primary::new();
    let key = vec![b'k'; 65_536];
    let value = vec![b'v'; 5 << 20];
    primary.put(&key, &value);
    primary.put(b"", b"");
    assert!(primary.keyspace().set_expiry(KeyRef::new(UNNAMED, &key), START_MS + 50));
    let mut keyspace = primary.keyspace();
    let view = keyspace.get(KeyRef::new(UNNAMED, &key)).map(|view| (view.value == value, view.expire_at_ms));
    assert_eq!(view, Some((true, START_MS + 50)));
    assert_eq!(keyspace.get(KeyRef::new(UNNAMED, b"")).map(|view| view.value.len()), Some(0));
    primary.put(&key, b"small");
    assert!(primary.arena.bytes_used() < 1 << 20);
}

fn long_value(byte: u8, bytes: usize) -> LongValue {
    let mut input = LongInput::new(bytes).expect("room");
    while input.missing() > 0 {
        let piece = input.missing().min(1_000);
        input.bytes().extend(std::iter::repeat_n(byte, piece));
        input.advance();
    }
    input.finish()
}

#[test]
fn long_values_are_kept_counted_and_replicated() {
    let mut primary = Primary::new();
    let (mut backup, mut backup_arena) = (Shard::new(), Arena::new());
    let key = KeyRef::new(UNNAMED, b"key");
    let put = |primary: &mut Primary, value: NewValue<'_>| {
        primary.keyspace().put(key, EntryKind::String, value, 0);
    };
    let (short, long) = (b"short".into(), long_value(1, 300_000));
    let kept = NewValue { bytes: long.bytes(), long: Some(&long) };
    put(&mut primary, short);
    let (used, resident) = (primary.arena.bytes_used(), primary.arena.bytes_resident());
    for round in 0..4 {
        // Short by long, long by long, copied and not, long by short: counted alike.
        put(&mut primary, kept);
        let held = primary.shard.get(&primary.arena, key).and_then(|view| view.long).expect("a long value");
        assert_eq!(held.bytes().as_ptr(), long.bytes().as_ptr(), "not copied");
        let with_long = primary.arena.bytes_used();
        assert!((used + 300_000..used + 400_000).contains(&with_long), "{with_long}");
        let other = long_value(2, 300_000);
        put(&mut primary, other.bytes().into());
        assert_eq!(primary.arena.bytes_used(), with_long);
        primary.keyspace().set_expiry(key, START_MS + 50);
        let view = primary.shard.get(&primary.arena, key).expect("an entry");
        assert_eq!((view.value, view.expire_at_ms), (&other.bytes()[..], START_MS + 50));
        primary.replicate(&mut backup, &mut backup_arena);
        assert_same((&primary.shard, &primary.arena), (&backup, &backup_arena));
        assert_eq!(backup.bytes(), primary.shard.bytes());
        if round % 2 == 0 {
            assert!(primary.keyspace().delete(key));
        }
        put(&mut primary, short);
        let page = primary.arena.bytes_used() - used;
        assert!(page < 20_000, "{page} bytes of bookkeeping");
        assert!(primary.arena.bytes_resident() - resident < 20_000);
    }
    primary.replicate(&mut backup, &mut backup_arena);
    assert_same((&primary.shard, &primary.arena), (&backup, &backup_arena));
}

#[test]
fn evicting_a_long_value_gives_its_bytes() {
    let mut primary = Primary::new();
    let long = long_value(1, 5 << 20);
    let value = NewValue { bytes: long.bytes(), long: Some(&long) };
    primary.keyspace().put(KeyRef::new(UNNAMED, b"key"), EntryKind::String, value, 0);
    drop(long);
    let freed = primary.keyspace().evict(Eviction::AllKeysLru, 1);
    assert!((5 << 20..6 << 20).contains(&freed), "{freed}");
    assert!(primary.arena.bytes_used() < 1 << 20);
}
