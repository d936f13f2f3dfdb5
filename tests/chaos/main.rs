//! Clusters of real processes that are killed, paused, cut apart and slowed down, each kind of
//! fault once and short. The long form is `cargo run --release --example chaos -- --help`.
//!
//! Promises must hold; goals in time are reported and not asserted, as a machine that builds and
//! tests at the same time misses them for reasons of its own.

// Shared with the tests in `tests/it`, which use more of it.
#[allow(dead_code)]
#[path = "../it/harness/mod.rs"]
mod harness;
mod rig;

use rig::stage::{Effort, Settings, run};
use std::time::Duration;

/// Runs a row once.
#[track_caller]
fn smoke(name: &str) {
    // They would slow each other down.
    let _turn = harness::cluster::turn();
    let row = rig::rows::ROWS.iter().find(|row| row.name == name).expect("a row");
    let settings = Settings {
        effort: Effort::Smoke,
        folder: std::env::var_os("RINGDOVE_CHAOS_DIR").map(Into::into),
        random_for: Duration::from_secs(6),
    };
    let report = run(row, 0, &settings);
    println!("{}", report.line());
    if let Some(folder) = &settings.folder {
        let summary = rig::report::table(std::slice::from_ref(&report));
        std::fs::write(folder.join(format!("{name}.md")), summary).expect("a folder that exists");
    }
    assert!(report.breaches.is_empty(), "{:#?}", report.breaches);
}

macro_rules! rows {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { smoke($name); })*

        #[test]
        fn every_row_is_run() {
            let run = [$($name),*];
            for row in rig::rows::ROWS {
                assert!(run.contains(&row.name), "{} has no test", row.name);
            }
        }
    };
}

rows! {
    kill: "kill",
    kill_of_the_leader: "kill-leader",
    pause: "pause",
    flicker: "flicker",
    cut: "cut",
    deaf: "deaf",
    mute: "mute",
    bridge: "bridge",
    loss: "loss",
    slow: "slow",
    clock: "clock",
    rolling_restart: "rolling",
    grow_and_shrink: "grow",
    kill_during_migration: "migration",
    two_of_three_copies: "two-of-three",
    second_kill: "second-kill",
    refill: "refill",
    all_killed: "all-killed",
    random: "random",
}
