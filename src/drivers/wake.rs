//! A wake-up between tasks of one thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes one task, which may not have gone to sleep yet: as `tokio::sync::Notify` for one waiter,
/// without its locks, since a connection is woken for every reply.
#[derive(Default)]
pub struct Wake {
    is_due: Cell<bool>,
    sleeper: Cell<Option<Waker>>,
}

impl Wake {
    /// Lets [`Wake::notified`] return, once: the one under way, or else the next.
    pub fn notify(&self) {
        self.is_due.set(true);
        if let Some(sleeper) = self.sleeper.take() {
            sleeper.wake();
        }
    }

    /// Waits until notified, which may have been before. Only one task may wait; one that gave up
    /// waiting may be woken for nothing.
    pub fn notified(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            if self.is_due.replace(false) {
                return Poll::Ready(());
            }
            let sleeper = self.sleeper.take().filter(|sleeper| sleeper.will_wake(context.waker()));
            self.sleeper.set(Some(sleeper.unwrap_or_else(|| context.waker().clone())));
            Poll::Pending
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn wakes_once_before_and_after() {
        let runtime = tokio::runtime::Builder::new_current_thread().build_local(Default::default()).unwrap();
        runtime.block_on(async {
            let wake = Rc::new(Wake::default());
            wake.notify();
            wake.notify();
            wake.notified().await;
            let waiter = tokio::task::spawn_local({
                let wake = wake.clone();
                async move { wake.notified().await }
            });
            tokio::task::yield_now().await;
            assert!(!waiter.is_finished(), "two notifications before count once");
            wake.notify();
            waiter.await.unwrap();
        });
    }
}
