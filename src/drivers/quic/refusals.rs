//! Refusals, logged once a minute a kind with their number, however many there are.

use std::cell::Cell;
use std::fmt::Display;
use std::net::SocketAddr;

/// At most one line a kind in so many microseconds.
const LINE_EVERY_US: u64 = 60_000_000;

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// Somebody dialled us and one side didn't accept the other's certificate.
    UntrustedInbound,
    /// The same where we dialled.
    UntrustedOutbound,
    /// A hello that was no good, or not wanted.
    Hello,
    /// Too many connections, or attempts.
    Busy,
}

impl RefusalKind {
    const COUNT: usize = 4;

    fn text(self) -> &'static str {
        match self {
            RefusalKind::UntrustedInbound => {
                "refused connections without an accepted certificate (another cluster's secret?)"
            }
            RefusalKind::UntrustedOutbound => {
                "peers and we don't accept each other's certificates (another cluster's secret?)"
            }
            RefusalKind::Hello => "refused connections after their hello",
            RefusalKind::Busy => "refused connections, too many at once",
        }
    }
}

/// Counts refusals between lines.
#[derive(Default)]
pub(super) struct Refusals([Tally; RefusalKind::COUNT]);

#[derive(Default)]
struct Tally {
    unlogged: Cell<u64>,
    logged_at_us: Cell<Option<u64>>,
}

impl Refusals {
    /// Counts one refusal; logs if the last line of its kind is long enough ago. Returns whether
    /// it logged.
    pub(super) fn note(
        &self,
        kind: RefusalKind,
        now_us: u64,
        addr: SocketAddr,
        reason: &dyn Display,
    ) -> bool {
        let tally = &self.0[kind as usize];
        tally.unlogged.set(tally.unlogged.get() + 1);
        let due = match tally.logged_at_us.get() {
            Some(at_us) => now_us.saturating_sub(at_us) >= LINE_EVERY_US,
            None => true,
        };
        if due {
            tally.logged_at_us.set(Some(now_us));
            let count = tally.unlogged.take();
            tracing::warn!(count, last_from = %addr, last_reason = %reason, "{}", kind.text());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_and_kind() {
        let refusals = Refusals::default();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let note = |kind, at_us| refusals.note(kind, at_us, addr, &"why");
        assert!(note(RefusalKind::UntrustedInbound, 5));
        assert!((0..1_000).all(|i| !note(RefusalKind::UntrustedInbound, 6 + i)));
        assert!(note(RefusalKind::Busy, 7));
        assert_eq!(refusals.0[0].unlogged.get(), 1_000);
        assert!(note(RefusalKind::UntrustedInbound, 5 + LINE_EVERY_US));
        assert_eq!(refusals.0[0].unlogged.get(), 0);
    }
}
