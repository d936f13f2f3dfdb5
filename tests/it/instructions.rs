//! Instructions of the hot paths, counted by valgrind: what makes them longer is noticed here, however
//! busy the machine is. `benches/` has their times.

#[path = "../support/lone_node.rs"]
mod lone_node;

use crate::harness::tools;
use lone_node::{Node, append, connect};
use std::hint::black_box;
use std::process::Command;

const COMMANDS: u64 = 1_280;
const KEYS: u64 = 4_096;
const BATCH: u64 = 64;
/// How far a count may be from the one noted: with other features the compiler decides otherwise.
const TOLERANCE: f64 = 0.10;
/// Which of [`workload`]s runs.
const WORKLOAD: &str = "RINGDOVE_WORKLOAD";

/// Instructions a command in the profile of tests, in batches of 64: from the bytes of a read to those of
/// the reply; and from a frame of records to the frame of their ack.
const NOTED: [(&str, f64); 4] =
    [("GET", 1_950.0), ("SET", 3_350.0), ("replicated SET", 6_170.0), ("apply", 4_230.0)];

/// What is counted goes through here.
#[inline(never)]
fn counted_by_valgrind<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

fn batch(name: &str, seed: &mut u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..BATCH {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        append(&mut bytes, name, (*seed >> 33) % KEYS);
    }
    bytes
}

/// Runs one of the [`NOTED`] workloads; a test only so that it can be run by itself.
#[test]
#[ignore = "hot_paths_are_no_longer_than_noted runs it under valgrind"]
fn workload() {
    let workload = std::env::var(WORKLOAD).expect("which workload");
    let (mut connection, mut seed) = (connect(), 7);
    let [mut primary, mut backup] = match workload.as_str() {
        "GET" | "SET" => [Node::alone(), Node::idle()],
        _ => Node::pair(),
    };
    for key in 0..KEYS {
        let mut bytes = Vec::new();
        append(&mut bytes, "SET", key);
        connection.receive(&bytes, &mut primary);
        if key % BATCH == BATCH - 1 {
            exchange(&mut primary, &mut backup);
            primary.reply(&mut connection);
        }
    }
    let replies = String::from_utf8_lossy(connection.output()).into_owned();
    assert_eq!(replies, "+OK\r\n".repeat(KEYS as usize));
    for _ in 0..COMMANDS / BATCH {
        let bytes = batch(if workload == "GET" { "GET" } else { "SET" }, &mut seed);
        let mut run = |primary: &mut Node| {
            connection.receive(&bytes, primary);
            primary.flush();
        };
        if workload == "apply" {
            run(&mut primary);
        } else {
            counted_by_valgrind(|| run(&mut primary));
        }
        let (frames, applied) = (primary.frames(), backup.records_applied());
        if workload == "apply" {
            counted_by_valgrind(|| {
                backup.take(&frames);
                backup.flush();
            });
            assert_eq!(backup.records_applied() - applied, BATCH);
        } else {
            backup.take(&frames);
            backup.flush();
        }
        primary.take(&backup.frames());
        exchange(&mut primary, &mut backup);
        primary.reply(&mut connection);
        connection.output().clear();
    }
}

/// Lets frames go to and fro until there are none.
fn exchange(primary: &mut Node, backup: &mut Node) {
    loop {
        primary.flush();
        let frames = primary.frames();
        if frames.is_empty() {
            return;
        }
        backup.take(&frames);
        backup.flush();
        primary.take(&backup.frames());
    }
}

/// Instructions a command of a workload.
fn count(valgrind: &std::path::Path, workload: &str) -> f64 {
    let mut command = Command::new(valgrind);
    command.args([
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=*counted_by_valgrind*",
    ]);
    command.arg(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "instructions::workload", "--ignored", "--test-threads=1"]);
    let output = command.env(WORKLOAD, workload).output().expect("valgrind runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{workload}: {}{said}", String::from_utf8_lossy(&output.stdout));
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    collected.map(|total: f64| total / COMMANDS as f64).unwrap_or_else(|| panic!("no count in {said}"))
}

#[test]
fn hot_paths_are_no_longer_than_noted() {
    if !cfg!(debug_assertions) {
        return tools::missing("the counts are those of the profile of tests");
    }
    let Some(valgrind) = tools::find(&["valgrind"]) else { return };
    let counts = NOTED.map(|(workload, noted)| (workload, noted, count(&valgrind, workload)));
    for (workload, noted, counted) in counts {
        println!("{workload}: {counted:.0} instructions a command, {noted:.0} noted");
    }
    for (workload, noted, counted) in counts {
        let ratio = counted / noted;
        assert!(ratio < 1.0 + TOLERANCE, "{workload} takes {counted:.0} instructions instead of {noted:.0}");
        assert!(ratio > 1.0 - TOLERANCE, "{workload} takes only {counted:.0} instructions: note that");
    }
}
