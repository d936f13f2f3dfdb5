//! Where a command goes, and whether it may be sent again.

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
    /// The routing of a command. One that this build doesn't know might be anything, so it is
    /// treated as a write that can't be repeated.
    pub(super) fn of(args: &[&[u8]]) -> Routing {
        let name = args.first().map(|name| name.to_ascii_uppercase()).unwrap_or_default();
        let (write, keys): (bool, &[&[u8]]) = match &name[..] {
            b"GET" | b"EXISTS" | b"PTTL" | b"RD.GETV" => (false, args.get(1..2).unwrap_or_default()),
            b"MGET" => (false, args.get(1..).unwrap_or_default()),
            b"SCAN" | b"DBSIZE" | b"PING" => (false, &[]),
            b"DEL" => (true, args.get(1..).unwrap_or_default()),
            b"FLUSHDB" => (true, &[]),
            _ => (true, args.get(1..2).unwrap_or_default()),
        };
        let slot = shared_slot(keys.iter().copied());
        Routing { slot, write, numbered: write && slot.is_some() }
    }
}

/// The slot of all these keys; `None` if there are several, or no key.
fn shared_slot<'a>(mut keys: impl Iterator<Item = &'a [u8]>) -> Option<Slot> {
    let slot = Slot::of(keys.next()?);
    keys.all(|key| Slot::of(key) == slot).then_some(slot)
}
