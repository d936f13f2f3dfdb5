//! Waiting for something to become true.

use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks until there is a result, and gives it with the time it took.
///
/// # Panics
/// At the deadline, with what the last look said.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> (T, Duration) {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return (found, start.elapsed()),
            Err(reason) if start.elapsed() > deadline => {
                panic!("not within {deadline:?}: {what}; the last look: {reason}")
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
