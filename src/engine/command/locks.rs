//! Locks with leases and fencing tokens: `RD.LOCK`, `RD.UNLOCK`, `RD.EXTEND`, `RD.LOCKINFO`.
//!
//! A lock is an entry of its own kind that expires with its lease. Its value is the fencing token
//! it was granted with (incarnation, epoch, sequence: 8 bytes each, little-endian), then the owner.
//! Tokens of one key only ever grow (invariant h), so what a lock protects can refuse a holder
//! whose lease ran out without its noticing.

use super::execution::Execution;
use super::number::parse_integer;
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Group};
use crate::engine::ids::{Epoch, Incarnation, Sequence};
use crate::engine::resp::ReplyWriter;
use crate::engine::store::{EntryKind, EntryView, FencingToken, KeyRef, Keyspace};

const READ: Flags = Flags::READONLY.and(Flags::FAST);
const WRITE: Flags = Flags::WRITE.and(Flags::FAST);
const R: Group = Group::Ringdove;
const TOKEN_BYTES: usize = 24;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(R, "rd.lock", 4, WRITE.and(Flags::DENYOOM), lock, "0.1.0", "Take a lock for an owner and a lease in milliseconds; its fencing token, or null if held by another"),
    CommandSpec::key(R, "rd.unlock", 3, WRITE, unlock, "0.1.0", "Release a lock that the owner holds"),
    CommandSpec::key(R, "rd.extend", 4, WRITE, extend, "0.1.0", "Renew the lease of a lock that the owner holds"),
    CommandSpec::key(R, "rd.lockinfo", 2, READ, lockinfo, "0.1.0", "The owner, fencing token and remaining milliseconds of a lock"),
];

/// A lock that is held.
struct Held<'a> {
    token: FencingToken,
    owner: &'a [u8],
    expire_at_ms: u64,
}

impl<'a> Held<'a> {
    fn from_entry(view: &EntryView<'a>) -> Result<Held<'a>, Refusal> {
        if view.kind != EntryKind::Lock {
            return Err(Refusal::WrongType);
        }
        let (token, owner) = view.value.split_at_checked(TOKEN_BYTES).ok_or(Refusal::WrongType)?;
        let word =
            |at: usize| token[at..at + 8].iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let token = FencingToken {
            incarnation: Incarnation(word(0)),
            epoch: Epoch(word(8)),
            sequence: Sequence(word(16)),
        };
        Ok(Held { token, owner, expire_at_ms: view.expire_at_ms })
    }
}

fn held<'k>(keys: &'k mut Keyspace<'_>, key: KeyRef<'_>) -> Result<Option<Held<'k>>, Refusal> {
    keys.peek(key).map(|view| Held::from_entry(&view)).transpose()
}

fn write_token(reply: &mut ReplyWriter<'_>, token: FencingToken) {
    reply.count(token.incarnation.0);
    reply.count(token.epoch.0);
    reply.count(token.sequence.0);
}

/// When a lease of argument `index` milliseconds from now runs out.
fn lease_end(e: &Execution<'_, '_>, index: usize) -> Result<u64, Refusal> {
    let lease_ms = parse_integer(e.args[index]).ok_or(Refusal::NotInteger)?;
    let lease_ms = u64::try_from(lease_ms).ok().filter(|&ms| ms > 0).ok_or(Refusal::Lease(e.spec.name))?;
    e.keys.now_ms().checked_add(lease_ms).filter(|&at_ms| at_ms < 1 << 62).ok_or(Refusal::Lease(e.spec.name))
}

fn lock(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, owner) = (e.key(1), e.args[2]);
    let expire_at_ms = lease_end(e, 3)?;
    e.check_value_len(owner.len().saturating_add(TOKEN_BYTES))?;
    let token = match held(e.keys, key)? {
        Some(held) if held.owner == owner => {
            let token = held.token;
            e.keys.set_expiry(key, expire_at_ms);
            token
        }
        Some(_) => {
            e.reply.null_array();
            return Ok(());
        }
        None => {
            let token = e.keys.context().token;
            let mut value = Vec::with_capacity(TOKEN_BYTES + owner.len());
            for word in [token.incarnation.0, token.epoch.0, token.sequence.0] {
                value.extend_from_slice(&word.to_le_bytes());
            }
            value.extend_from_slice(owner);
            e.keys.put(key, EntryKind::Lock, &value, expire_at_ms);
            token
        }
    };
    e.reply.array(3);
    write_token(&mut e.reply, token);
    Ok(())
}

fn unlock(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, owner) = (e.key(1), e.args[2]);
    let owned = held(e.keys, key)?.is_some_and(|held| held.owner == owner);
    let done = owned && e.keys.delete(key);
    e.reply.integer(i64::from(done));
    Ok(())
}

fn extend(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, owner) = (e.key(1), e.args[2]);
    let expire_at_ms = lease_end(e, 3)?;
    let owned = held(e.keys, key)?.is_some_and(|held| held.owner == owner);
    let done = owned && e.keys.set_expiry(key, expire_at_ms);
    e.reply.integer(i64::from(done));
    Ok(())
}

fn lockinfo(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, now_ms) = (e.key(1), e.keys.now_ms());
    match held(e.keys, key)? {
        Some(held) => {
            e.reply.array(5);
            e.reply.bulk(held.owner);
            write_token(&mut e.reply, held.token);
            e.reply.count(held.expire_at_ms.saturating_sub(now_ms));
        }
        None => e.reply.null_array(),
    }
    Ok(())
}
