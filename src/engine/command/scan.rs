//! Walking the key space: SCAN, KEYS, RANDOMKEY, DBSIZE, FLUSHALL, and keys by slot.
//!
//! What runs here sees one partition; [`Gather`](super::Gather) makes the whole of the parts.

use super::execution::Execution;
use super::glob::glob_matches;
use super::keys::kind_name;
use super::number::parse_integer;
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Gathering, Group, KeyPositions, Route};
use crate::engine::ids::{SLOT_COUNT, Slot};

const G: Group = Group::Generic;
/// What SCAN looks at when COUNT is not given.
const COUNT_DEFAULT: usize = 10;
/// Entries that KEYS and its like look at in one step.
const STEP_ENTRIES: usize = 1_024;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    walk(G, "scan", -2, Flags::READONLY, scan, Gathering::Scan, "2.8.0", "Incrementally iterate the keys space"),
    walk(G, "keys", 2, Flags::READONLY, keys, Gathering::Concat, "1.0.0", "Find all keys matching the given pattern"),
    walk(G, "randomkey", 1, Flags::READONLY, randomkey, Gathering::FirstValue, "1.0.0", "Return a random key from the keyspace"),
    walk(Group::Server, "dbsize", 1, Flags::READONLY.and(Flags::FAST), dbsize, Gathering::Sum, "1.0.0", "Return the number of keys"),
    walk(Group::Server, "flushall", -1, Flags::WRITE, flush, Gathering::AllOk, "1.0.0", "Remove all keys"),
    walk(Group::Server, "flushdb", -1, Flags::WRITE, flush, Gathering::AllOk, "1.0.0", "Remove all keys"),
];

#[allow(clippy::too_many_arguments, reason = "a row of the table")]
const fn walk(
    group: Group,
    name: &'static str,
    arity: i16,
    flags: Flags,
    exec: super::Exec,
    gathering: Gathering,
    since: &'static str,
    summary: &'static str,
) -> CommandSpec {
    CommandSpec::key(group, name, arity, flags, exec, since, summary)
        .with_keys(KeyPositions::NONE)
        .with_route(Route::PerPartition(gathering))
}

/// SCAN as given: `cursor [MATCH pattern] [COUNT count] [TYPE type]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanArgs<'a> {
    pub cursor: u64,
    pub pattern: Option<&'a [u8]>,
    pub count: usize,
    pub kind: Option<&'a [u8]>,
}

impl<'a> ScanArgs<'a> {
    pub fn parse(args: &[&'a [u8]]) -> Result<ScanArgs<'a>, Refusal> {
        let cursor = args.get(1).and_then(|text| std::str::from_utf8(text).ok());
        let cursor = cursor.and_then(|text| text.parse().ok()).ok_or(Refusal::Cursor)?;
        let mut parsed = ScanArgs { cursor, pattern: None, count: COUNT_DEFAULT, kind: None };
        for option in args[2..].chunks(2) {
            let [name, value] = option else { return Err(Refusal::Syntax) };
            if name.eq_ignore_ascii_case(b"MATCH") {
                parsed.pattern = Some(value).filter(|pattern| **pattern != b"*").copied();
            } else if name.eq_ignore_ascii_case(b"COUNT") {
                let count = parse_integer(value).ok_or(Refusal::NotInteger)?;
                parsed.count =
                    usize::try_from(count).ok().filter(|&count| count > 0).ok_or(Refusal::Syntax)?;
            } else if name.eq_ignore_ascii_case(b"TYPE") {
                parsed.kind = Some(value);
            } else {
                return Err(Refusal::Syntax);
            }
        }
        Ok(parsed)
    }
}

/// One partition's part of SCAN: `[next cursor, entries looked at, keys]`. The cursor is the
/// partition's own, without the bits that name the partition.
fn scan(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let ScanArgs { cursor, pattern, count, kind } = ScanArgs::parse(e.args)?;
    let (map, mut found, mut seen, mut matching) = (e.map, Vec::new(), 0, 0);
    let mut writer = crate::engine::resp::ReplyWriter::new(&mut found, e.reply.proto);
    let next = e.keys.scan(cursor, count, |view| {
        seen += 1;
        let right_kind = view.map == map
            && kind.is_none_or(|kind| kind.eq_ignore_ascii_case(kind_name(view.kind).as_bytes()));
        if right_kind && pattern.is_none_or(|pattern| glob_matches(pattern, view.key)) {
            matching += 1;
            writer.bulk(view.key);
        }
    });
    e.reply.array(3);
    e.reply.bulk(next.to_string().as_bytes());
    e.reply.integer(seen);
    e.reply.array(matching);
    e.reply.out.extend_from_slice(&found);
    Ok(())
}

/// Replies with an array of the keys that `select` wants, at most `count_max`.
fn collect(e: &mut Execution<'_, '_>, count_max: usize, select: impl Fn(&[u8]) -> bool) {
    let (map, mut found, mut count, mut cursor) = (e.map, Vec::new(), 0, 0);
    let mut writer = crate::engine::resp::ReplyWriter::new(&mut found, e.reply.proto);
    loop {
        cursor = e.keys.scan(cursor, STEP_ENTRIES, |view| {
            if view.map == map && count < count_max && select(view.key) {
                count += 1;
                writer.bulk(view.key);
            }
        });
        if cursor == 0 || count == count_max {
            break;
        }
    }
    e.reply.array(count);
    e.reply.out.extend_from_slice(&found);
}

fn keys(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let pattern = e.args[1];
    collect(e, usize::MAX, |key| glob_matches(pattern, key));
    Ok(())
}

fn randomkey(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let entropy = e.keys.context().entropy;
    match e.keys.random_in(e.map, entropy) {
        Some(view) => e.reply.bulk(view.key),
        None => e.reply.null(),
    }
    Ok(())
}

fn dbsize(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    e.reply.integer(e.keys.len(e.map) as i64);
    Ok(())
}

fn flush(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    match &e.args[1..] {
        [] => {}
        [mode] if mode.eq_ignore_ascii_case(b"ASYNC") || mode.eq_ignore_ascii_case(b"SYNC") => {}
        _ => return Err(Refusal::Syntax),
    }
    e.keys.clear(e.map);
    e.reply.ok();
    Ok(())
}

/// The slot that argument 2 names.
pub(super) fn slot_argument(args: &[&[u8]]) -> Result<Slot, Refusal> {
    let number = args.get(2).and_then(|text| parse_integer(text)).ok_or(Refusal::NotInteger)?;
    let slot = u16::try_from(number).ok().filter(|&slot| slot < SLOT_COUNT);
    slot.map(Slot).ok_or_else(|| Refusal::err("Invalid slot"))
}

/// CLUSTER COUNTKEYSINSLOT.
pub(super) fn count_keys_in_slot(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let slot = slot_argument(e.args)?;
    let (map, mut count, mut cursor) = (e.map, 0, 0);
    loop {
        cursor = e.keys.scan(cursor, STEP_ENTRIES, |view| {
            count += i64::from(view.map == map && Slot::of(view.key) == slot);
        });
        if cursor == 0 {
            break;
        }
    }
    e.reply.integer(count);
    Ok(())
}

/// CLUSTER GETKEYSINSLOT.
pub(super) fn get_keys_in_slot(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let slot = slot_argument(e.args)?;
    let count = parse_integer(e.args[3]).ok_or(Refusal::NotInteger)?;
    let count = usize::try_from(count).map_err(|_| Refusal::err("Invalid slot or number of keys"))?;
    collect(e, count, |key| Slot::of(key) == slot);
    Ok(())
}
