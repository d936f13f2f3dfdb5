//! ringdove's own commands on versions: `RD.GETV`, `RD.SETV`, `RD.CAS`, `RD.GETSETNX`.
//!
//! A version is that of the value (a reading of the partition's clock), grows with every write of
//! the key and is never 0, so that 0 can stand for "absent".

use super::execution::{Execution, check_not_lock, string_at};
use super::number::parse_integer;
use super::refusal::Refusal;
use super::set_options::{Grammar, SetOptions};
use super::spec::{CommandSpec, Flags, Group};
use super::strings;
use crate::engine::store::{EntryKind, KeyRef};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const R: Group = Group::Ringdove;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(R, "rd.getv", 2, READ, getv, "0.1.0", "Get the value of a key and its version"),
    CommandSpec::key(R, "rd.getfenced", 2, READ.and(Flags::FENCED), strings::get, "0.1.0", "Get the value of a key, trusting no clock: all copies confirm the primary first"),
    CommandSpec::key(R, "rd.setv", -3, WRITE, setv, "0.1.0", "Set the value of a key and return its version; options as SET, without GET"),
    CommandSpec::key(R, "rd.cas", -4, WRITE, cas, "0.1.0", "Set the value of a key if its version is as expected (0: absent) and return the new version"),
    CommandSpec::key(R, "rd.getsetnx", -3, WRITE, getsetnx, "0.1.0", "Get the value of a key, setting it first if it does not exist"),
];

fn getv(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    match string_at(e.keys, key)? {
        Some(view) => {
            e.reply.array(2);
            e.reply.bulk(view.value);
            e.reply.count(view.version.0);
        }
        None => e.reply.null(),
    }
    Ok(())
}

fn setv(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, value) = (e.key(1), e.args[2]);
    let options = options(e, 3, value)?;
    let exists = check_not_lock(e.keys, key)?;
    if (options.nx && exists) || (options.xx && !exists) {
        e.reply.null();
        return Ok(());
    }
    put(e, key, value, &options)
}

fn cas(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, value) = (e.key(1), e.args[3]);
    let expected = parse_integer(e.args[2]).and_then(|version| u64::try_from(version).ok());
    let expected = expected.ok_or(Refusal::NotInteger)?;
    let options = options(e, 4, value)?;
    if options.nx || options.xx {
        return Err(Refusal::Syntax);
    }
    let current = string_at(e.keys, key)?.map_or(0, |view| view.version.0);
    if current != expected {
        e.reply.null();
        return Ok(());
    }
    put(e, key, value, &options)
}

fn getsetnx(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, value) = (e.key(1), e.args[2]);
    let options = options(e, 3, value)?;
    if options.nx || options.xx || options.keep_ttl {
        return Err(Refusal::Syntax);
    }
    if let Some(view) = string_at(e.keys, key)? {
        e.reply.array(3);
        e.reply.bulk(view.value);
        e.reply.count(view.version.0);
        e.reply.integer(0);
        return Ok(());
    }
    let expire_at_ms = expire_at(e, key, &options)?;
    let version = e.keys.put(key, EntryKind::String, value, expire_at_ms);
    e.reply.array(3);
    e.reply.bulk(value);
    e.reply.count(version.0);
    e.reply.integer(1);
    Ok(())
}

/// The options from argument `from` on; the value's length is checked along the way.
fn options<'a>(e: &Execution<'a, '_>, from: usize, value: &[u8]) -> Result<SetOptions<'a>, Refusal> {
    e.check_value_len(value.len())?;
    let options = SetOptions::parse(&e.args[from..], Grammar::Set)?;
    if options.get { Err(Refusal::Syntax) } else { Ok(options) }
}

/// The expiry that the options ask for. One in the past would leave no entry to have a version, so
/// it is refused.
fn expire_at(e: &mut Execution<'_, '_>, key: KeyRef<'_>, options: &SetOptions<'_>) -> Result<u64, Refusal> {
    let now_ms = e.keys.now_ms();
    if let Some(at_ms) = options.expire_at(now_ms, e.spec.name)? {
        return if at_ms > now_ms { Ok(at_ms) } else { Err(Refusal::InvalidExpire(e.spec.name)) };
    }
    let default_ms = e.default_expiry();
    Ok(match e.keys.peek(key) {
        Some(view) if options.keep_ttl => view.expire_at_ms,
        _ => default_ms,
    })
}

fn put(
    e: &mut Execution<'_, '_>,
    key: KeyRef<'_>,
    value: &[u8],
    options: &SetOptions<'_>,
) -> Result<(), Refusal> {
    let expire_at_ms = expire_at(e, key, options)?;
    let version = e.keys.put(key, EntryKind::String, value, expire_at_ms);
    e.reply.count(version.0);
    Ok(())
}
