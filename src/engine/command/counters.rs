//! Counters: strings that hold a number.

use super::execution::{Execution, string_at};
use super::extended::Extended;
use super::number::parse_integer;
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Group};

const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM).and(Flags::FAST);
const S: Group = Group::String;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(S, "incr", 2, WRITE, incr, "1.0.0", "Increment the integer value of a key by one"),
    CommandSpec::key(S, "decr", 2, WRITE, decr, "1.0.0", "Decrement the integer value of a key by one"),
    CommandSpec::key(S, "incrby", 3, WRITE, incrby, "1.0.0", "Increment the integer value of a key by the given amount"),
    CommandSpec::key(S, "decrby", 3, WRITE, decrby, "1.0.0", "Decrement the integer value of a key by the given number"),
    CommandSpec::key(S, "incrbyfloat", 3, WRITE, incrbyfloat, "2.6.0", "Increment the float value of a key by the given amount"),
];

fn incr(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    add(e, 1)
}

fn decr(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    add(e, -1)
}

fn incrby(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let amount = parse_integer(e.args[2]).ok_or(Refusal::NotInteger)?;
    add(e, amount)
}

fn decrby(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let amount = parse_integer(e.args[2]).ok_or(Refusal::NotInteger)?;
    add(e, amount.checked_neg().ok_or(Refusal::DecrementOverflow)?)
}

fn add(e: &mut Execution<'_, '_>, amount: i64) -> Result<(), Refusal> {
    let key = e.key(1);
    let default_expiry = e.default_expiry();
    let (old, expire_at_ms) = match string_at(e.keys, key)? {
        Some(view) => (parse_integer(view.value).ok_or(Refusal::NotInteger)?, view.expire_at_ms),
        None => (0, default_expiry),
    };
    let sum = old.checked_add(amount).ok_or(Refusal::Overflow)?;
    e.put_string(key, itoa::Buffer::new().format(sum).as_bytes(), expire_at_ms);
    e.reply.integer(sum);
    Ok(())
}

fn incrbyfloat(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    let default_expiry = e.default_expiry();
    let view = string_at(e.keys, key)?;
    let old = match view {
        Some(view) => Extended::parse(view.value).ok_or(Refusal::NotFloat)?,
        None => Extended::ZERO,
    };
    let amount = Extended::parse(e.args[2]).ok_or(Refusal::NotFloat)?;
    let expire_at_ms = view.map_or(default_expiry, |view| view.expire_at_ms);
    let sum = old.add(amount).and_then(Extended::to_decimal).ok_or(Refusal::NotFinite)?;
    e.put_string(key, sum.as_bytes(), expire_at_ms);
    e.reply.bulk(sum.as_bytes());
    Ok(())
}
