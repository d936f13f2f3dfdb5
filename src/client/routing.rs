//! Where a command goes, and whether it may be sent again.

use crate::engine::command::{self, Route};
use crate::engine::ids::Slot;

/// What a client has to know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routing {
    /// The slot of its keys, if they share one. Without one, any node will do.
    pub(super) slot: Option<Slot>,
    /// Whether it may change something.
    pub(super) write: bool,
    /// Whether it runs at one partition, which can tell a repeated write from a new one.
    pub(super) numbered: bool,
}

impl Routing {
    /// A question that any node can answer.
    pub(super) const ANYWHERE: Routing = Routing { slot: None, write: false, numbered: false };

    /// The routing of a command. One that this build doesn't know might be anything, so it is
    /// treated as a write that can't be repeated.
    pub(super) fn of(args: &[&[u8]]) -> Routing {
        let Ok(spec) = command::resolve(args) else {
            return Routing { slot: None, write: true, numbered: false };
        };
        let slot = match spec.route {
            Route::Key | Route::PerKey(_) => shared_slot(spec.keys.of(args)),
            Route::Session(_) | Route::Slot | Route::PerPartition(_) => None,
        };
        Routing { slot, write: spec.is_write(), numbered: spec.is_write() && slot.is_some() }
    }
}

/// The slot of all these keys; `None` if there are several, or no key.
fn shared_slot<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> Option<Slot> {
    let slot = Slot::of(keys.next()?);
    keys.all(|key| Slot::of(key) == slot).then_some(slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, key: Option<&str>, write: bool) {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let slot = key.map(|key| Slot::of(key.as_bytes()));
        let expected = Routing { slot, write, numbered: write && slot.is_some() };
        assert_eq!(Routing::of(&args), expected, "{command}");
    }

    #[test]
    fn commands_go_to_the_slot_of_their_keys() {
        check("get a", Some("a"), false);
        check("SET a 1 NX", Some("a"), true);
        check("MGET {t}a {t}b", Some("t"), false);
        check("MGET a b", None, false);
        check("DEL {t}a {t}b", Some("t"), true);
        check("DEL a b", None, true);
        check("RENAME {t}a {t}b", Some("t"), true);
        check("RD.LOCK a me 100", Some("a"), true);
        check("SCAN 0", None, false);
        check("FLUSHALL", None, true);
        check("PING", None, false);
        check("NOSUCH a", None, true);
        check("GET", None, true);
    }
}
