//! Figures: printed for people, kept as JSON under `target/bench-results` for the chart.

use super::Failure;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    // `target/tmp` is all that cargo tells of the target directory.
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent().unwrap_or(tmp).join("bench-results")
}

/// Keeps what a benchmark measured, instead of what it measured last time.
pub fn keep(name: &str, figures: &Value) -> Result<(), Failure> {
    std::fs::create_dir_all(folder())?;
    Ok(std::fs::write(folder().join(format!("{name}.json")), format!("{figures:#}\n"))?)
}

/// What a benchmark measured last; `Null` if it never ran.
pub fn kept(name: &str) -> Value {
    let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Whether cargo runs the benchmarks only to see that they run (`cargo test --benches`).
pub fn is_trial() -> bool {
    !std::env::args().any(|argument| argument == "--bench")
}

/// Runs a benchmark named by its file: prints what went wrong and ends the process accordingly.
pub fn run(name: &str, bench: impl FnOnce() -> Result<(), Failure>) {
    if is_trial() {
        println!("{name}: nothing is measured without `cargo bench`");
        return;
    }
    println!("\n== {name} ==");
    if let Err(error) = bench() {
        eprintln!("{name}: {error}");
        std::process::exit(1);
    }
}
