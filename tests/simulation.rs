//! Simulated clusters keep every promise, whatever goes wrong.
//!
//! A failure prints the seed and the line that replays it.

use ringdove::sim::campaign::Campaign;
use ringdove::sim::scenario::Scenario;

/// Seeds; the night's run is `examples/simulate.rs`. `RINGDOVE_SIM_SEEDS` overrides it.
const SEEDS: u64 = 100;

fn seeds() -> u64 {
    std::env::var("RINGDOVE_SIM_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn every_seed_keeps_every_promise() {
    let report = Campaign { seeds: seeds(), ..Campaign::default() }.run();
    println!("{report}");
    assert!(report.broken.is_empty(), "{report}");
    assert_eq!(report.totals.undecided, 0, "histories must be decidable: {report}");
}

#[test]
fn a_seed_decides_everything() {
    for seed in [3, 50] {
        let scenario = Scenario { fault_s: 10, ..Scenario::new(seed) };
        assert_eq!(scenario.run(), scenario.run(), "seed {seed}");
    }
}
