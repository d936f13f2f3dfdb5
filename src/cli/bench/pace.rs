//! When commands are due, where so many a second are offered instead of as many as are answered.

use super::plan::Plan;
use std::time::{Duration, Instant};

/// Timers are no finer than a millisecond: the last of a wait is spent asking for the time.
const TIMER_COARSENESS: Duration = Duration::from_millis(2);

/// A client's share of the rate: batches that are due at even distances.
pub struct Pace {
    due: Instant,
    interval: Duration,
}

impl Pace {
    /// The pace of a client that begins now; `None` if the plan has no rate. The first batch is due
    /// after the part `phase` (0 to 1) of an interval, so that clients don't send in step.
    pub fn of(plan: &Plan, phase: f64) -> Option<Pace> {
        let commands = f64::from(plan.clients) * f64::from(plan.pipeline);
        let interval = Duration::from_secs_f64(commands / plan.rate? as f64);
        Some(Pace { due: Instant::now() + interval.mul_f64(phase), interval })
    }

    /// Waits until the next batch is due and says when that was. Latencies count from there: a
    /// server that is behind has the wait of whoever comes next on its account.
    pub async fn next(&mut self) -> Instant {
        let due = self.due;
        self.due += self.interval;
        let wait = due.saturating_duration_since(Instant::now());
        if wait > TIMER_COARSENESS {
            tokio::time::sleep(wait - TIMER_COARSENESS).await;
        }
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn batches_are_due_at_even_distances() {
        let plan = Plan { clients: 2, pipeline: 5, rate: Some(1_000), ..Plan::sample("1:1") };
        let start = Instant::now();
        let mut pace = Pace::of(&plan, 0.5).expect("a rate");
        let first = pace.next().await;
        assert!(first >= start + Duration::from_millis(5));
        // Late as this client now is, what it sends next was due all the same.
        std::thread::sleep(Duration::from_millis(15));
        assert_eq!(pace.next().await, first + Duration::from_millis(10));
        let third = pace.next().await;
        assert_eq!(third, first + Duration::from_millis(20));
        assert!(Instant::now() >= third);
    }

    #[test]
    fn without_a_rate_nothing_is_paced() {
        assert!(Pace::of(&Plan::sample("1:1"), 0.0).is_none());
    }
}
