//! Keys of any kind: DEL, EXISTS, TYPE, RENAME, COPY, OBJECT, MEMORY USAGE.

use super::execution::{Execution, check_not_lock};
use super::number::{check_database, parse_integer};
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Gathering, Group, KeyPositions, Route, SessionOp};
use crate::engine::store::{EntryKind, EntryView, KeyRef};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const G: Group = Group::Generic;
const COUNTED: Route = Route::PerKey(Gathering::Sum);
/// What an entry takes beside its key and value: header, index slot and rounding.
const ENTRY_OVERHEAD_BYTES: usize = 36;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(G, "del", -2, Flags::WRITE, del, "1.0.0", "Delete a key").with_keys(KeyPositions::ALL).with_route(COUNTED),
    CommandSpec::key(G, "unlink", -2, Flags::WRITE.and(Flags::FAST), del, "4.0.0", "Delete a key, as DEL does")
        .with_keys(KeyPositions::ALL)
        .with_route(COUNTED),
    CommandSpec::key(G, "exists", -2, READ, exists, "1.0.0", "Determine if a key exists")
        .with_keys(KeyPositions::ALL)
        .with_route(COUNTED),
    CommandSpec::key(G, "touch", -2, READ, touch, "3.2.1", "Alters the last access time of a key(s)")
        .with_keys(KeyPositions::ALL)
        .with_route(COUNTED),
    CommandSpec::key(G, "type", 2, READ, kind, "1.0.0", "Determine the type stored at key"),
    CommandSpec::key(G, "rename", 3, Flags::WRITE, rename, "1.0.0", "Rename a key").with_keys(KeyPositions::TWO),
    CommandSpec::key(G, "renamenx", 3, Flags::WRITE.and(Flags::FAST), renamenx, "1.0.0", "Rename a key, only if the new key does not exist")
        .with_keys(KeyPositions::TWO),
    CommandSpec::key(G, "copy", -3, Flags::WRITE.and(Flags::DENYOOM), copy, "6.2.0", "Copy a key").with_keys(KeyPositions::TWO),
    CommandSpec::session(G, "object", -2, Flags::NONE, SessionOp::Help, "2.2.3", "A container for object introspection commands")
        .with_subcommands(&[
            CommandSpec::key(G, "object|encoding", 3, Flags::READONLY, encoding, "2.2.3", "Inspect the internal encoding of a Redis object")
                .with_keys(KeyPositions::SECOND),
            CommandSpec::key(G, "object|freq", 3, Flags::READONLY, freq, "4.0.0", "Get the logarithmic access frequency counter of a Redis object")
                .with_keys(KeyPositions::SECOND),
            CommandSpec::key(G, "object|idletime", 3, Flags::READONLY, idletime, "2.2.3", "Get the time since a Redis object was last accessed")
                .with_keys(KeyPositions::SECOND),
            CommandSpec::key(G, "object|refcount", 3, Flags::READONLY, refcount, "2.2.3", "Get the number of references to the value of the key")
                .with_keys(KeyPositions::SECOND),
            CommandSpec::session(G, "object|help", 2, Flags::NONE, SessionOp::Help, "6.2.0", "Show helpful text about the different subcommands"),
        ]),
    CommandSpec::session(Group::Server, "memory", -2, Flags::NONE, SessionOp::Help, "4.0.0", "A container for memory diagnostics commands")
        .with_subcommands(&[
            CommandSpec::key(Group::Server, "memory|usage", -3, Flags::READONLY, memory_usage, "4.0.0", "Estimate the memory usage of a key")
                .with_keys(KeyPositions::SECOND),
            CommandSpec::session(Group::Server, "memory|help", 2, Flags::NONE, SessionOp::Help, "4.0.0", "Show helpful text about the different subcommands"),
        ]),
];

/// How a kind is named by TYPE and by the TYPE option of SCAN.
pub(super) fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::String => "string",
        EntryKind::Lock => "lock",
    }
}

fn del(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let mut deleted = 0;
    for index in 1..e.args.len() {
        let key = e.key(index);
        deleted += i64::from(e.keys.delete(key));
    }
    e.reply.integer(deleted);
    Ok(())
}

fn exists(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let found = (1..e.args.len()).filter(|&index| e.keys.peek(e.key(index)).is_some()).count();
    e.reply.integer(found as i64);
    Ok(())
}

fn touch(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let found = (1..e.args.len()).filter(|&index| e.keys.get(e.key(index)).is_some()).count();
    e.reply.integer(found as i64);
    Ok(())
}

fn kind(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    let kind = e.keys.peek(key).map_or("none", |view| kind_name(view.kind));
    e.reply.simple(kind);
    Ok(())
}

fn rename(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (from, to) = (e.key(1), e.key(2));
    let (value, expire_at_ms) = movable(e, from)?.ok_or(Refusal::NoSuchKey)?;
    check_not_lock(e.keys, to)?;
    if from.key != to.key {
        // First the new one: who hears of one record only had better have both keys than none.
        e.put_string(to, &value, expire_at_ms);
        e.keys.delete(from);
    }
    e.reply.ok();
    Ok(())
}

fn renamenx(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (from, to) = (e.key(1), e.key(2));
    let (value, expire_at_ms) = movable(e, from)?.ok_or(Refusal::NoSuchKey)?;
    let free = e.keys.peek(to).is_none();
    if free {
        e.put_string(to, &value, expire_at_ms);
        e.keys.delete(from);
    }
    e.reply.integer(i64::from(free));
    Ok(())
}

fn copy(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (from, to) = (e.key(1), e.key(2));
    let mut replace = false;
    let mut options = e.args[3..].iter();
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"REPLACE") {
            replace = true;
        } else if option.eq_ignore_ascii_case(b"DB") {
            check_database(options.next().ok_or(Refusal::Syntax)?)?;
        } else {
            return Err(Refusal::Syntax);
        }
    }
    if from.key == to.key {
        return Err(Refusal::SameObject);
    }
    let copied = match movable(e, from)? {
        Some((value, expire_at_ms)) if replace || e.keys.peek(to).is_none() => {
            check_not_lock(e.keys, to)?;
            e.put_string(to, &value, expire_at_ms);
            true
        }
        _ => false,
    };
    e.reply.integer(i64::from(copied));
    Ok(())
}

/// A string's value and expiry. Locks stay where they are: their tokens only grow under one key.
fn movable(e: &mut Execution<'_, '_>, key: KeyRef<'_>) -> Result<Option<(Vec<u8>, u64)>, Refusal> {
    check_not_lock(e.keys, key)?;
    Ok(e.keys.peek(key).map(|view| (view.value.to_vec(), view.expire_at_ms)))
}

/// Replies with what `describe` finds in the entry, or null.
fn inspect(e: &mut Execution<'_, '_>, describe: impl Fn(&EntryView<'_>) -> i64) -> Result<(), Refusal> {
    let key = e.key(2);
    match e.keys.peek(key).as_ref().map(describe) {
        Some(number) => e.reply.integer(number),
        None => e.reply.null(),
    }
    Ok(())
}

fn encoding(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(2);
    match e.keys.peek(key) {
        Some(view) => e.reply.bulk(encoding_name(&view).as_bytes()),
        None => e.reply.null(),
    }
    Ok(())
}

/// As Redis would store it; the longest `embstr` is 44 bytes there.
fn encoding_name(view: &EntryView<'_>) -> &'static str {
    match view.kind {
        EntryKind::Lock => "lock",
        EntryKind::String if parse_integer(view.value).is_some() => "int",
        EntryKind::String if view.value.len() <= 44 => "embstr",
        EntryKind::String => "raw",
    }
}

fn freq(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    inspect(e, |view| i64::from(view.frequency))
}

fn idletime(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let now_s = (e.keys.now_ms() / 1_000) as i64;
    inspect(e, |view| (now_s - i64::from(view.accessed_s)).max(0))
}

fn refcount(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    inspect(e, |_| 1)
}

fn memory_usage(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    match &e.args[3..] {
        [] => {}
        [samples, count] if samples.eq_ignore_ascii_case(b"SAMPLES") => {
            let count = parse_integer(count).ok_or(Refusal::NotInteger)?;
            if count < 0 {
                return Err(Refusal::Syntax);
            }
        }
        _ => return Err(Refusal::Syntax),
    }
    inspect(e, |view| {
        let expiry_bytes = if view.expire_at_ms == 0 { 0 } else { 8 };
        (ENTRY_OVERHEAD_BYTES + expiry_bytes + view.key.len() + view.value.len()) as i64
    })
}
