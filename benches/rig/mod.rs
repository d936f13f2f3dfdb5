//! What the benchmarks of running servers share.
//!
//! - [`process`]: servers as child processes, their processor time and memory;
//! - [`load`]: `ringdove bench` as the load;
//! - [`results`]: figures for people, and kept for the chart.
#![allow(dead_code, reason = "each benchmark uses its part")]

pub mod load;
pub mod process;
pub mod results;

/// The program under test, built with the profile of the benchmarks.
pub const RINGDOVE: &str = env!("CARGO_BIN_EXE_ringdove");

/// What stops a benchmark.
pub type Failure = Box<dyn std::error::Error>;

/// The middle one; of an even number the lower middle. NaN if there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
