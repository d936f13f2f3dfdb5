//! Expiry: the EXPIRE and TTL families.

use super::execution::{Execution, check_not_lock};
use super::number::parse_integer;
use super::refusal::Refusal;
use super::set_options::{ExpiryUnit, expiry};
use super::spec::{CommandSpec, Flags, Group};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const G: Group = Group::Generic;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(G, "expire", -3, WRITE, expire, "1.0.0", "Set a key's time to live in seconds"),
    CommandSpec::key(G, "pexpire", -3, WRITE, pexpire, "2.6.0", "Set a key's time to live in milliseconds"),
    CommandSpec::key(G, "expireat", -3, WRITE, expireat, "1.2.0", "Set the expiration for a key as a UNIX timestamp"),
    CommandSpec::key(G, "pexpireat", -3, WRITE, pexpireat, "2.6.0", "Set the expiration for a key as a UNIX timestamp specified in milliseconds"),
    CommandSpec::key(G, "ttl", 2, READ, ttl, "1.0.0", "Get the time to live for a key in seconds"),
    CommandSpec::key(G, "pttl", 2, READ, pttl, "2.6.0", "Get the time to live for a key in milliseconds"),
    CommandSpec::key(G, "expiretime", 2, READ, expiretime, "7.0.0", "Get the expiration Unix timestamp for a key"),
    CommandSpec::key(G, "pexpiretime", 2, READ, pexpiretime, "7.0.0", "Get the expiration Unix timestamp for a key in milliseconds"),
    CommandSpec::key(G, "persist", 2, WRITE, persist, "2.2.0", "Remove the expiration from a key"),
];

fn expire(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set(e, ExpiryUnit::Seconds)
}

fn pexpire(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set(e, ExpiryUnit::Millis)
}

fn expireat(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set(e, ExpiryUnit::UnixSeconds)
}

fn pexpireat(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    set(e, ExpiryUnit::UnixMillis)
}

/// On what the present expiry an EXPIRE depends.
#[derive(Clone, Copy, Debug, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(options: &[&[u8]]) -> Result<Conditions, Refusal> {
        let mut parsed = Conditions::default();
        for option in options {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => parsed.nx = true,
                b"XX" => parsed.xx = true,
                b"GT" => parsed.gt = true,
                b"LT" => parsed.lt = true,
                _ => return Err(Refusal::Option(String::from_utf8_lossy(option).into_owned())),
            }
        }
        if parsed.nx && (parsed.xx || parsed.gt || parsed.lt) {
            return Err(Refusal::ExpireNx);
        }
        if parsed.gt && parsed.lt {
            return Err(Refusal::ExpireGtLt);
        }
        Ok(parsed)
    }

    /// Whether an entry that expires at `current_ms` (`None`: never) gets `new_ms`.
    fn hold(self, current_ms: Option<u64>, new_ms: i64) -> bool {
        let current_ms = current_ms.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        !(self.nx && current_ms.is_some()
            || self.xx && current_ms.is_none()
            || self.gt && current_ms.is_none_or(|current_ms| new_ms <= current_ms)
            || self.lt && current_ms.is_some_and(|current_ms| new_ms >= current_ms))
    }
}

fn set(e: &mut Execution<'_, '_>, unit: ExpiryUnit) -> Result<(), Refusal> {
    let key = e.key(1);
    let conditions = Conditions::parse(&e.args[3..])?;
    let amount = parse_integer(e.args[2]).ok_or(Refusal::NotInteger)?;
    let now_ms = e.keys.now_ms();
    let at_ms = expiry(amount, unit, now_ms, e.spec.name)?;
    check_not_lock(e.keys, key)?;
    let current = e.keys.peek(key).map(|view| view.expire_at_ms);
    let done = match current {
        Some(current_ms) if conditions.hold((current_ms != 0).then_some(current_ms), at_ms) => {
            match u64::try_from(at_ms) {
                Ok(at_ms) if at_ms > now_ms => e.keys.set_expiry(key, at_ms),
                _ => e.keys.delete(key),
            }
        }
        _ => false,
    };
    e.reply.integer(i64::from(done));
    Ok(())
}

fn persist(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    check_not_lock(e.keys, key)?;
    let expires = e.keys.peek(key).is_some_and(|view| view.expire_at_ms != 0);
    let done = expires && e.keys.set_expiry(key, 0);
    e.reply.integer(i64::from(done));
    Ok(())
}

/// -2 without a key, -1 without an expiry, else what `describe` makes of it and the time.
fn tell(e: &mut Execution<'_, '_>, describe: impl Fn(u64, u64) -> u64) -> Result<(), Refusal> {
    let (key, now_ms) = (e.key(1), e.keys.now_ms());
    match e.keys.peek(key).map(|view| view.expire_at_ms) {
        None => e.reply.integer(-2),
        Some(0) => e.reply.integer(-1),
        Some(at_ms) => e.reply.count(describe(at_ms, now_ms)),
    }
    Ok(())
}

/// Milliseconds to seconds, to the nearest.
fn seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1_000
}

fn ttl(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    tell(e, |at_ms, now_ms| seconds(at_ms.saturating_sub(now_ms)))
}

fn pttl(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    tell(e, |at_ms, now_ms| at_ms.saturating_sub(now_ms))
}

fn expiretime(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    tell(e, |at_ms, _| seconds(at_ms))
}

fn pexpiretime(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    tell(e, |at_ms, _| at_ms)
}
