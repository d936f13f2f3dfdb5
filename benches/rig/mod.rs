//! What the benchmarks of running servers share.
//!
//! - [`servers`]: servers as child processes, their processor time and memory;
//! - [`load`]: `ringdove bench` as the load;
//! - [`results`]: figures for people, and kept for the chart;
//! - [`chart`]: how that is drawn.
//!
//! All but the results is what `ringdove bench compare` measures and draws with.
#![allow(dead_code, unused_imports, reason = "each benchmark uses its part, and none the tests of it")]

#[path = "../../src/cli/bench/compare/chart.rs"]
pub mod chart;
#[path = "../../src/cli/http.rs"]
mod http;
#[path = "../../src/cli/bench/compare/load.rs"]
pub mod load;
#[path = "../../src/cli/ready.rs"]
mod ready;
pub mod results;
#[path = "../../src/cli/bench/compare/servers.rs"]
pub mod servers;

use std::path::PathBuf;

/// What stops a benchmark.
pub type Failure = Box<dyn std::error::Error>;

/// The program under test, built with the profile of the benchmarks.
pub fn program() -> std::io::Result<PathBuf> {
    Ok(env!("CARGO_BIN_EXE_ringdove").into())
}

/// Runs what waits on a runtime of one thread.
pub fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

/// The middle one; of an even number the lower middle. NaN if there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
