//! Breaks a cluster of real processes in every way that the table of faults knows, and checks what
//! its clients saw.
//!
//! ```text
//! cargo run --release --example chaos -- --all                      # every row once
//! cargo run --release --example chaos -- --fault kill --runs 20
//! cargo run --release --example chaos -- --random --minutes 10
//! cargo run --release --example chaos -- --list
//! ```
//!
//! A summary goes to `target/chaos/summary.md`, and for each run its history, what every node wrote
//! and a drawing (`timeline.svg`) to a folder beside it. As root it makes a network namespace for
//! every node; otherwise the nodes are on loopback, with relays of UDP packets between them. The
//! clocks need libfaketime (Debian: `faketime`).

// Shared with the tests, which use more of it.
#[allow(dead_code)]
#[path = "../tests/it/harness/mod.rs"]
mod harness;
#[path = "../tests/chaos/rig/mod.rs"]
mod rig;

use clap::Parser;
use rig::report::{Report, table};
use rig::rows::{ROWS, Row};
use rig::stage::{Effort, Settings, run};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Break a cluster of real processes, and check what its clients saw.
#[derive(Parser)]
struct Arguments {
    /// A fault, by its name in --list; may be given several times
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// Every fault but the random ones
    #[arg(long)]
    all: bool,
    /// Random faults, one after the other
    #[arg(long)]
    random: bool,
    /// How long random faults go on
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How often each
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// The number of the first run, which decides which node it happens to
    #[arg(long, default_value_t = 0)]
    first: u32,
    /// Shorter, as in CI
    #[arg(long)]
    smoke: bool,
    /// Say which faults there are
    #[arg(long)]
    list: bool,
    /// Where everything is written
    #[arg(long, default_value = "target/chaos")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        ROWS.iter().for_each(|row| println!("{:<14} {}", row.name, row.title));
        return ExitCode::SUCCESS;
    }
    let chosen = |row: &&Row| {
        let is_random = row.name == "random";
        arguments.fault.iter().any(|name| name == row.name)
            || (arguments.all && !is_random)
            || (arguments.random && is_random)
    };
    let rows: Vec<&'static Row> = ROWS.iter().filter(chosen).collect();
    if rows.is_empty() {
        eprintln!("which fault? see --list and --help");
        return ExitCode::FAILURE;
    }
    if !build() {
        return ExitCode::FAILURE;
    }
    let settings = Settings {
        effort: if arguments.smoke { Effort::Smoke } else { Effort::Full },
        folder: Some(arguments.folder.clone()),
        random_for: Duration::from_secs(arguments.minutes * 60),
    };
    let mut reports: Vec<Report> = Vec::new();
    for row in rows {
        for number in arguments.first..arguments.first + arguments.runs {
            let report = run(row, number, &settings);
            println!("{}", report.line());
            reports.push(report);
            // After each, as many runs take long.
            if let Err(error) = std::fs::write(arguments.folder.join("summary.md"), table(&reports)) {
                eprintln!("{}: {error}", arguments.folder.display());
            }
        }
    }
    println!("\n{}", table(&reports));
    let sound = reports.iter().all(|report| report.breaches.is_empty());
    if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Builds the program under test as this one was built. Cargo doesn't for an example.
fn build() -> bool {
    let Some(cargo) = std::env::var_os("CARGO") else { return true };
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--bin", "ringdove"]);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    command.status().is_ok_and(|status| status.success())
}
