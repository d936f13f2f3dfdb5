//! It bites: each bug put into the engine on purpose is noticed by the simulator.
//!
//! `cargo test --features mutants --test mutants -- --nocapture` prints which seed and which check
//! caught each.

use ringdove::engine::mutants::{Mutant, Mutation};
use ringdove::sim::campaign::Campaign;

/// Each mutant must be caught within so many seeds.
const SEEDS_MAX: u64 = 2_000;

#[test]
fn every_mutant_is_caught() {
    println!("{:<18} {:>5}  caught by", "mutant", "seed");
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let campaign = Campaign {
            seeds: SEEDS_MAX,
            mutation: Mutation::of(mutant),
            first_only: true,
            twice_every: 0,
            ..Campaign::default()
        };
        let report = campaign.run();
        match report.broken.first() {
            Some(broken) => {
                let violation = broken.violation.to_string();
                let shown = violation.lines().next().unwrap_or_default();
                println!("{:<18} {:>5}  {shown:.150}", format!("{mutant:?}"), broken.scenario.seed);
            }
            None => {
                println!("{:<18} {:>5}  nothing", format!("{mutant:?}"), "-");
                missed.push(mutant);
            }
        }
    }
    assert!(missed.is_empty(), "not caught within {SEEDS_MAX} seeds: {missed:?}");
}
