//! The storage engine alone: nanoseconds a get and a set by size of value, and bytes an entry at
//! one million entries over 1,024 partitions, counted and as the system sees it.
//!
//! `cargo bench --bench storage`

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringdove::engine::hlc::Hlc;
use ringdove::engine::ids::{MapId, PartitionId, Slot};
use ringdove::engine::record::{Limits, RecordLog};
use ringdove::engine::store::{Arena, EntryKind, FencingToken, KeyRef, Keyspace, KeyspaceContext, Shard};
use ringdove::engine::time::Now;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u16 = 1_024;
const ENTRIES: u64 = 1_000_000;
/// Commands that a server takes from its connections at a time.
const BATCH: usize = 64;

/// A node's storage: all partitions over one arena.
struct Node {
    arena: Arena,
    shards: Vec<Shard>,
    hlc: Hlc,
    log: RecordLog,
}

impl Node {
    fn new() -> Node {
        Node {
            arena: Arena::new(),
            shards: (0..PARTITIONS).map(|_| Shard::new()).collect(),
            hlc: Hlc::default(),
            log: RecordLog::new(),
        }
    }

    fn filled(value: &[u8], expire_at_ms: u64) -> Node {
        let mut node = Node::new();
        for i in 0..ENTRIES {
            node.set(&key(i), value, expire_at_ms);
        }
        node
    }

    fn keyspace(&mut self, partition: PartitionId) -> Keyspace<'_> {
        let context = KeyspaceContext {
            now: Now { mono_us: 0, wall_ms: 1_700_000_000_000 },
            partition,
            partition_count: PARTITIONS,
            entropy: self.hlc.last().0,
            token: FencingToken::default(),
            maps: &[],
            limits: Limits::default(),
        };
        let shard = &mut self.shards[partition.index()];
        Keyspace::new(shard, &mut self.arena, &mut self.hlc, &mut self.log, context)
    }

    fn set(&mut self, key: &[u8], value: &[u8], expire_at_ms: u64) {
        let mut keyspace = self.keyspace(Slot::of(key).partition(PARTITIONS));
        keyspace.put(KeyRef::new(MapId(0), key), EntryKind::String, value, expire_at_ms);
        self.log.clear();
    }

    fn get(&mut self, key: &[u8]) -> usize {
        let mut keyspace = self.keyspace(Slot::of(key).partition(PARTITIONS));
        keyspace.get(KeyRef::new(MapId(0), key)).map_or(0, |view| view.value.len())
    }

    /// Hashes a batch and brings what it will read into the cache, misses overlapped.
    fn prefetch<'k>(&self, keys: &'k [[u8; 16]]) -> Vec<(PartitionId, KeyRef<'k>)> {
        let keys: Vec<_> = keys
            .iter()
            .map(|key| (Slot::of(key).partition(PARTITIONS), KeyRef::new(MapId(0), key)))
            .collect();
        let shard = |partition: PartitionId| &self.shards[partition.index()];
        let slots: Vec<&[u64]> = keys.iter().map(|(at, key)| shard(*at).slots_of(key.hash)).collect();
        black_box(slots.iter().flat_map(|slots| slots.first()).fold(0, |all, slot| all ^ slot));
        let entries: Vec<&[u8]> =
            keys.iter().map(|(at, key)| shard(*at).entry_of(&self.arena, key.hash)).collect();
        let bytes = entries.iter().flat_map(|entry| [entry.first(), entry.get(64), entry.last()]);
        black_box(bytes.flatten().fold(0, |all, byte| all ^ byte));
        keys
    }
}

/// The keys that `redis-benchmark -r` makes: 16 bytes.
fn key(i: u64) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = i;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn random_keys(seed: &mut u64) -> Vec<[u8; 16]> {
    let mut next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        key((*seed >> 33) % ENTRIES)
    };
    (0..BATCH).map(|_| next()).collect()
}

/// Resident bytes of this process; zero where the system doesn't say.
fn resident_bytes() -> u64 {
    let line = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = line.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4_096
}

fn memory(_: &mut Criterion) {
    for (name, expire_at_ms) in [("without TTL", 0), ("with TTL", 1_800_000_000_000)] {
        let before = resident_bytes();
        let node = Node::filled(&[7; 64], expire_at_ms);
        println!(
            "memory/16 B key, 64 B value, {name}: {} B an entry counted, {} B held, {} B resident",
            node.arena.bytes_used() / ENTRIES,
            node.arena.bytes_resident() / ENTRIES,
            (resident_bytes() - before) / ENTRIES,
        );
        // The next node must not live in what this one would leave.
        std::mem::forget(node);
    }
    let before = resident_bytes();
    let node = Node::new();
    println!("memory/empty node: {} KiB resident", (resident_bytes() - before) / 1_024);
    drop(node);
}

fn commands(criterion: &mut Criterion) {
    for size in [64, 1_024] {
        let value = vec![7; size];
        let mut node = Node::filled(&value, 0);
        let mut seed = 1;
        let mut group = criterion.benchmark_group(format!("storage/{size}B"));
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("get", |bencher| {
            bencher.iter_batched(
                || random_keys(&mut seed),
                |keys| keys.iter().map(|key| node.get(key)).sum::<usize>(),
                BatchSize::LargeInput,
            );
        });
        group.bench_function("get, prefetched", |bencher| {
            bencher.iter_batched(
                || random_keys(&mut seed),
                |keys| {
                    let keys = node.prefetch(&keys);
                    let mut get = |(at, key): &(PartitionId, KeyRef<'_>)| {
                        node.keyspace(*at).get(*key).map_or(0, |view| view.value.len())
                    };
                    keys.iter().map(&mut get).sum::<usize>()
                },
                BatchSize::LargeInput,
            );
        });
        group.bench_function("set", |bencher| {
            bencher.iter_batched(
                || random_keys(&mut seed),
                |keys| keys.iter().for_each(|key| node.set(key, &value, 0)),
                BatchSize::LargeInput,
            );
        });
        group.bench_function("set, prefetched", |bencher| {
            bencher.iter_batched(
                || random_keys(&mut seed),
                |keys| {
                    for (at, key) in node.prefetch(&keys) {
                        node.keyspace(at).put(key, EntryKind::String, &value, 0);
                    }
                    node.log.clear();
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

fn fill(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("storage/fill");
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("100,000 new entries", |bencher| {
        bencher.iter_batched(
            Node::new,
            |mut node| {
                for i in 0..100_000 {
                    node.set(&key(i), &[7; 64], 0);
                }
                node
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// What a tick of a node expires while a million keys are due: so long requests wait.
fn sweep(criterion: &mut Criterion) {
    const PARTITIONS_A_TICK: u16 = 26;
    const BUDGET: usize = 200;
    let mut group = criterion.benchmark_group("storage/sweep");
    group.sample_size(10).throughput(Throughput::Elements(u64::from(PARTITIONS_A_TICK) * BUDGET as u64));
    group.bench_function("5,200 entries that have expired", |bencher| {
        bencher.iter_batched(
            || Node::filled(&[7; 64], 1),
            |mut node| {
                for partition in 0..PARTITIONS_A_TICK {
                    assert_eq!(node.keyspace(PartitionId(partition)).sweep_expired(BUDGET), BUDGET);
                }
                node
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = memory, commands, fill, sweep
}
criterion_main!(benches);
