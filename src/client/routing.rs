//! Where a command goes, and whether it may be sent again.

use crate::engine::command::{self, KeyPositions, Route};
use crate::engine::ids::Slot;

/// What a client has to know of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Routing {
    /// The slot of its first key: the primary of its partition is asked. Any node will do if there
    /// is no key.
    pub(super) slot: Option<Slot>,
    /// Whether it runs at the partition of that slot and nowhere else.
    pub(super) whole: bool,
    /// Whether it may change something.
    pub(super) write: bool,
}

impl Routing {
    /// A question that any node can answer.
    pub(super) const ANYWHERE: Routing = Routing { slot: None, whole: false, write: false };

    /// The routing of a command. One that this build doesn't know might be anything, so it is
    /// treated as a write that can't be repeated.
    pub(super) fn of(args: &[&[u8]]) -> Routing {
        let Ok(spec) = command::resolve(args) else {
            return Routing { slot: None, whole: false, write: true };
        };
        let mut slots = match spec.route {
            Route::Key | Route::PerKey(_) => spec.keys,
            Route::Session(_) | Route::Slot | Route::PerPartition(_) => KeyPositions::NONE,
        }
        .of(args)
        .map(Slot::of);
        let slot = slots.next();
        let whole = slot.is_some() && slots.all(|other| Some(other) == slot);
        Routing { slot, whole, write: spec.is_write() }
    }

    /// Whether its partition can tell a repeated write from a new one.
    pub(super) fn is_numbered(self) -> bool {
        self.write && self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &str, slots: &[&str], write: bool) {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        let slot = slots.first().map(|key| Slot::of(key.as_bytes()));
        let expected = Routing { slot, whole: slots.len() == 1, write };
        assert_eq!(Routing::of(&args), expected, "{command}");
    }

    #[test]
    fn commands_go_to_the_slot_of_their_keys() {
        check("get a", &["a"], false);
        check("SET a 1 NX", &["a"], true);
        check("MGET {t}a {t}b", &["t"], false);
        check("MGET a b", &["a", "b"], false);
        check("DEL {t}a {t}b", &["t"], true);
        check("DEL a b", &["a", "b"], true);
        check("RENAME {t}a {t}b", &["t"], true);
        check("RD.LOCK a me 100", &["a"], true);
        check("SCAN 0", &[], false);
        check("FLUSHALL", &[], true);
        check("PING", &[], false);
        check("NOSUCH a", &[], true);
        check("GET", &[], true);
    }
}
