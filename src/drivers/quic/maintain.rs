//! Keeping a link to a member: redialling with patience.

use super::handshake::DialError;
use super::mesh::Shared;
use crate::engine::ids::NodeId;
use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, spawn_local};

/// When two nodes learn of each other at once, the higher id leaves the lower one so much time to
/// dial, so that rarely both do.
const HEAD_START: Duration = Duration::from_millis(250);

/// A peer to which a link is kept.
pub(super) struct Maintained {
    addr: Cell<SocketAddr>,
    wake: Notify,
    task: OnceCell<AbortHandle>,
}

impl Maintained {
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr.get()
    }

    pub(super) fn set_addr(&self, addr: SocketAddr) {
        if self.addr.replace(addr) != addr {
            self.wake.notify_one();
        }
    }

    /// A link to the peer came or went.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

pub(super) fn start(shared: Rc<Shared>, peer: NodeId, addr: SocketAddr) -> Rc<Maintained> {
    let maintained =
        Rc::new(Maintained { addr: Cell::new(addr), wake: Notify::new(), task: OnceCell::new() });
    let task = spawn_local(run(shared, peer, maintained.clone()));
    let _first = maintained.task.set(task.abort_handle());
    maintained
}

async fn run(shared: Rc<Shared>, peer: NodeId, maintained: Rc<Maintained>) {
    let mut failures = 0;
    while !shared.is_closed() {
        if shared.current(peer).is_some() {
            failures = 0;
            maintained.wake.notified().await;
            continue;
        }
        let delay = match failures {
            0 if shared.config.node < peer => Duration::ZERO,
            0 => HEAD_START,
            n => backoff(shared.config.redial_delay, n),
        };
        let addr = maintained.addr.get();
        if tokio::time::timeout(delay, maintained.wake.notified()).await.is_ok() {
            if addr != maintained.addr.get() {
                failures = 0;
            }
            continue;
        }
        match shared.dial(addr, Some(peer)).await {
            Ok(_) => {}
            Err(DialError::Closed) => return,
            Err(error) => {
                failures += 1;
                tracing::debug!(%peer, %addr, %error, failures, "cannot link");
                if error == DialError::WrongNode
                    && let Some(handler) = shared.handler()
                {
                    handler.replaced(peer, addr);
                }
            }
        }
    }
}

/// Doubles from the lower to the upper bound, with a quarter of jitter either way.
fn backoff((min, max): (Duration, Duration), failures: u32) -> Duration {
    let doubled = min.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(max).mul_f64(rand::random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_within_its_bounds() {
        let bounds = (Duration::from_millis(100), Duration::from_secs(3));
        for (failures, about_ms) in [(1, 100), (2, 200), (5, 1_600), (6, 3_000), (1_000, 3_000)] {
            let delay_ms = backoff(bounds, failures).as_millis() as u64;
            assert!((about_ms * 3 / 4..=about_ms * 5 / 4).contains(&delay_ms), "{delay_ms}");
        }
    }
}
