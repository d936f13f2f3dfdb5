//! Placement: a fresh cluster, a join and a death, at several sizes.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringdove::engine::ids::NodeId;
use ringdove::engine::placement::{Candidate, desired};
use std::hint::black_box;
use std::time::Duration;

const PARTITIONS: usize = 1_024;
const REPLICAS: usize = 2;

fn nodes(count: u64) -> Vec<Candidate> {
    (1..=count)
        .map(|id| Candidate { node: NodeId(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)), weight: 100, zone: None })
        .collect()
}

fn placement(c: &mut Criterion) {
    let mut group = c.benchmark_group("placement");
    group.sample_size(10).warm_up_time(Duration::from_millis(300));
    group.measurement_time(Duration::from_secs(1));
    for count in [3, 16, 1_000] {
        let members = nodes(count);
        let joined = nodes(count + 1);
        let placed = desired(&members, PARTITIONS, REPLICAS, &[]);
        group.bench_function(BenchmarkId::new("fresh", count), |b| {
            b.iter(|| desired(black_box(&members), PARTITIONS, REPLICAS, &[]));
        });
        group.bench_function(BenchmarkId::new("join", count), |b| {
            b.iter(|| desired(black_box(&joined), PARTITIONS, REPLICAS, &placed));
        });
        group.bench_function(BenchmarkId::new("death", count), |b| {
            b.iter(|| desired(black_box(&members[1..]), PARTITIONS, REPLICAS, &placed));
        });
    }
    group.finish();
}

criterion_group!(benches, placement);
criterion_main!(benches);
