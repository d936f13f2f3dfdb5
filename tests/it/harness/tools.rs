//! Programs of others that some tests need.

use std::path::PathBuf;

/// Where `program` is. If it is nowhere, the test that asks prints that it skips.
///
/// # Panics
/// If it is nowhere and `RINGDOVE_REQUIRE_CLIENTS=1`.
#[track_caller]
pub fn find(programs: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = programs
        .iter()
        .flat_map(|program| std::env::split_paths(&path).map(move |folder| folder.join(program)))
        .find(|candidate| candidate.is_file());
    if found.is_none() {
        missing(&format!("{} is not installed", programs.join(" or ")));
    }
    found
}

/// Says that the test skips, and why.
///
/// # Panics
/// If `RINGDOVE_REQUIRE_CLIENTS=1`.
#[track_caller]
pub fn missing(reason: &str) {
    let required = std::env::var("RINGDOVE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    assert!(!required, "{reason}");
    eprintln!("SKIPPED: {reason}");
}
