//! Simulated clusters keep every promise, and the checkers notice when one is broken.
//!
//! A failure prints the seed and the line that replays it.

use ringdove::sim::scenario::Scenario;
use ringdove::sim::tamper::Tamper;
use std::thread;

/// Seeds of faults each; the night's run is `examples/simulate.rs`.
const SEEDS: u64 = 100;
const FAULT_S: u64 = 30;

/// The first broken promise among these seeds, and how to see it again.
fn first_broken(seeds: impl Iterator<Item = u64>, tamper: Option<Tamper>) -> Option<String> {
    seeds.into_iter().find_map(|seed| {
        let violation = Scenario { seed, fault_s: FAULT_S, tamper }.run().err()?;
        Some(format!(
            "seed {seed}: {violation}\nreplay: cargo run --example simulate -- --seed {seed} --seconds {FAULT_S} --trace"
        ))
    })
}

#[test]
fn every_seed_keeps_every_promise() {
    let halves = [0, 1]
        .map(|half| thread::spawn(move || first_broken((1..=SEEDS).filter(|seed| seed % 2 == half), None)));
    for half in halves {
        if let Some(broken) = half.join().expect("a simulation panicked") {
            panic!("{broken}");
        }
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in [3, 50] {
        let scenario = Scenario { fault_s: 10, ..Scenario::new(seed) };
        assert_eq!(scenario.run(), scenario.run(), "seed {seed}");
    }
}

#[test]
fn bugs_put_in_on_purpose_are_noticed() {
    for tamper in Tamper::NOTICED {
        assert!(first_broken(1..=40, Some(tamper)).is_some(), "{tamper:?} went unnoticed");
    }
}
