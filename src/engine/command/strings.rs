//! Whole strings: SET, GET and their relatives.

use super::execution::{Execution, check_not_lock, reply_value, string_at};
use super::refusal::Refusal;
use super::set_options::{ExpiryUnit, Grammar, SetOptions, positive_expiry};
use super::spec::{CommandSpec, Flags, Gathering, Group, KeyPositions, Route};
use crate::engine::store::EntryKind;

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const PLAIN_READ: Flags = READ.and(Flags::PLAIN_READ);
const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);
const WRITE_FAST: Flags = WRITE.and(Flags::FAST);
const S: Group = Group::String;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(S, "get", 2, PLAIN_READ, get, "1.0.0", "Get the value of a key"),
    CommandSpec::key(S, "set", -3, WRITE, set, "1.0.0", "Set the string value of a key"),
    CommandSpec::key(S, "setnx", 3, WRITE_FAST, setnx, "1.0.0", "Set the value of a key, only if the key does not exist"),
    CommandSpec::key(S, "setex", 4, WRITE, setex, "2.0.0", "Set the value and expiration of a key"),
    CommandSpec::key(S, "psetex", 4, WRITE, psetex, "2.6.0", "Set the value and expiration in milliseconds of a key"),
    CommandSpec::key(S, "getset", 3, WRITE_FAST, getset, "1.0.0", "Set the string value of a key and return its old value"),
    CommandSpec::key(S, "getdel", 2, Flags::WRITE.and(Flags::FAST), getdel, "6.2.0", "Get the value of a key and delete the key"),
    CommandSpec::key(S, "getex", -2, Flags::WRITE.and(Flags::FAST), getex, "6.2.0", "Get the value of a key and optionally set its expiration"),
    CommandSpec::key(S, "mget", -2, PLAIN_READ, mget, "1.0.0", "Get the values of all the given keys")
        .with_keys(KeyPositions::ALL)
        .with_route(Route::PerKey(Gathering::Concat)),
    CommandSpec::key(S, "mset", -3, WRITE, mset, "1.0.1", "Set multiple keys to multiple values")
        .with_keys(KeyPositions::PAIRS)
        .with_route(Route::PerKey(Gathering::AllOk)),
    CommandSpec::key(S, "msetnx", -3, WRITE, msetnx, "1.0.1", "Set multiple keys to multiple values, only if none of the keys exist")
        .with_keys(KeyPositions::PAIRS),
];

pub(super) fn get(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    match string_at(e.keys, key)? {
        Some(view) => reply_value(&mut e.reply, e.long, &view),
        None => e.reply.null(),
    }
    Ok(())
}

fn set(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    e.check_value_len(e.args[2].len())?;
    if e.args.len() == 3 {
        // Nearly every SET: one look at the key will do.
        if !e.keys.put_same_kind(key, EntryKind::String, e.value(2), e.default_expiry()) {
            return Err(Refusal::WrongType);
        }
        e.reply.ok();
        return Ok(());
    }
    let options = SetOptions::parse(&e.args[3..], Grammar::Set)?;
    let expire_at_ms = options.expire_at(e.keys.now_ms(), "set")?;
    let exists = check_not_lock(e.keys, key)?;
    let kept_ms = match (options.get || options.keep_ttl).then(|| e.keys.get(key)).flatten() {
        Some(view) => {
            if options.get {
                reply_value(&mut e.reply, e.long, &view);
            }
            options.keep_ttl.then_some(view.expire_at_ms)
        }
        None => {
            if options.get {
                e.reply.null();
            }
            None
        }
    };
    if (options.nx && exists) || (options.xx && !exists) {
        if !options.get {
            e.reply.null();
        }
        return Ok(());
    }
    let expire_at_ms = expire_at_ms.or(kept_ms).unwrap_or_else(|| e.default_expiry());
    e.put_string(key, e.value(2), expire_at_ms);
    if !options.get {
        e.reply.ok();
    }
    Ok(())
}

fn setnx(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    e.check_value_len(e.args[2].len())?;
    let exists = e.keys.get(key).is_some();
    if !exists {
        e.put_string(key, e.value(2), e.default_expiry());
    }
    e.reply.integer(i64::from(!exists));
    Ok(())
}

fn setex(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set_expiring(e, ExpiryUnit::Seconds)
}

fn psetex(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set_expiring(e, ExpiryUnit::Millis)
}

fn set_expiring(e: &mut Execution<'_, '_>, unit: ExpiryUnit) -> Result<(), Refusal> {
    let key = e.key(1);
    e.check_value_len(e.args[3].len())?;
    let expire_at_ms = positive_expiry(e.args[2], unit, e.keys.now_ms(), e.spec.name)?;
    check_not_lock(e.keys, key)?;
    e.put_string(key, e.value(3), expire_at_ms);
    e.reply.ok();
    Ok(())
}

fn getset(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    e.check_value_len(e.args[2].len())?;
    match string_at(e.keys, key)? {
        Some(view) => reply_value(&mut e.reply, e.long, &view),
        None => e.reply.null(),
    }
    e.put_string(key, e.value(2), e.default_expiry());
    Ok(())
}

fn getdel(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    match string_at(e.keys, key)? {
        Some(view) => reply_value(&mut e.reply, e.long, &view),
        None => {
            e.reply.null();
            return Ok(());
        }
    }
    e.keys.delete(key);
    Ok(())
}

fn getex(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    let options = SetOptions::parse(&e.args[2..], Grammar::GetEx)?;
    let now_ms = e.keys.now_ms();
    let Some(view) = string_at(e.keys, key)? else {
        e.reply.null();
        return Ok(());
    };
    let expire_at_ms = options.expire_at(now_ms, "getex")?;
    reply_value(&mut e.reply, e.long, &view);
    let expires = view.expire_at_ms != 0;
    match expire_at_ms {
        Some(at_ms) if at_ms <= now_ms => {
            e.keys.delete(key);
        }
        Some(at_ms) => {
            e.keys.set_expiry(key, at_ms);
        }
        None if options.persist && expires => {
            e.keys.set_expiry(key, 0);
        }
        None => {}
    }
    Ok(())
}

fn mget(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    e.reply.array(e.args.len() - 1);
    for index in 1..e.args.len() {
        let key = e.key(index);
        match e.keys.get(key) {
            Some(view) if view.kind == EntryKind::String => e.reply.bulk(view.value),
            _ => e.reply.null(),
        }
    }
    Ok(())
}

fn mset(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    if e.args.len() == 3 {
        // What comes in parts: one look at the key will do.
        return set(e);
    }
    check_pairs(e)?;
    for index in (1..e.args.len()).step_by(2) {
        check_not_lock(e.keys, e.key(index))?;
    }
    put_pairs(e);
    e.reply.ok();
    Ok(())
}

fn msetnx(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    check_pairs(e)?;
    let mut indexes = (1..e.args.len()).step_by(2);
    let taken = indexes.any(|index| e.keys.peek(e.key(index)).is_some());
    if !taken {
        put_pairs(e);
    }
    e.reply.integer(i64::from(!taken));
    Ok(())
}

fn check_pairs(e: &Execution<'_, '_>) -> Result<(), Refusal> {
    if e.args.len().is_multiple_of(2) {
        return Err(Refusal::Arity(e.spec.name));
    }
    e.args[1..].chunks_exact(2).try_for_each(|pair| e.check_value_len(pair[1].len()))
}

fn put_pairs(e: &mut Execution<'_, '_>) {
    let expire_at_ms = e.default_expiry();
    for index in (1..e.args.len()).step_by(2) {
        e.put_string(e.key(index), e.value(index + 1), expire_at_ms);
    }
}
