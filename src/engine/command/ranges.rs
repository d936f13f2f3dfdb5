//! Parts of strings: APPEND, STRLEN, GETRANGE, SETRANGE.

use super::execution::{Execution, string_at};
use super::number::parse_integer;
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Group};

const WRITE: Flags = Flags::WRITE.and(Flags::DENYOOM);
const S: Group = Group::String;

#[rustfmt::skip] // One row a line.
pub(super) const SPECS: &[CommandSpec] = &[
    CommandSpec::key(S, "append", 3, WRITE.and(Flags::FAST), append, "2.0.0", "Append a value to a key"),
    CommandSpec::key(S, "strlen", 2, Flags::READONLY.and(Flags::FAST), strlen, "2.2.0", "Get the length of the value stored in a key"),
    CommandSpec::key(S, "getrange", 4, Flags::READONLY, getrange, "2.4.0", "Get a substring of the string stored at a key"),
    CommandSpec::key(S, "substr", 4, Flags::READONLY, getrange, "1.0.0", "Get a substring of the string stored at a key"),
    CommandSpec::key(S, "setrange", 4, WRITE, setrange, "2.2.0", "Overwrite part of a string at key starting at the specified offset"),
];

fn append(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, tail) = (e.key(1), e.args[2]);
    let default_expiry = e.default_expiry();
    let (value, expire_at_ms) = match string_at(e.keys, key)? {
        Some(view) => ([view.value, tail].concat(), view.expire_at_ms),
        None => (tail.to_vec(), default_expiry),
    };
    e.check_value_len(value.len())?;
    e.put_string(key, &value, expire_at_ms);
    e.reply.integer(value.len() as i64);
    Ok(())
}

fn strlen(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    let len = string_at(e.keys, key)?.map_or(0, |view| view.value.len());
    e.reply.integer(len as i64);
    Ok(())
}

fn getrange(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let key = e.key(1);
    let start = parse_integer(e.args[2]).ok_or(Refusal::NotInteger)?;
    let end = parse_integer(e.args[3]).ok_or(Refusal::NotInteger)?;
    let value = string_at(e.keys, key)?.map_or(&b""[..], |view| view.value);
    e.reply.bulk(range(value, start, end));
    Ok(())
}

/// The bytes from `start` to `end`, both included; negative ones count from the end.
fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let len = value.len() as i64;
    if start < 0 && end < 0 && start > end {
        return b"";
    }
    let from_front = |index: i64| if index < 0 { len.saturating_add(index).max(0) } else { index };
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    if start > end { b"" } else { value.get(start as usize..=end as usize).unwrap_or_default() }
}

fn setrange(e: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    let (key, patch) = (e.key(1), e.args[3]);
    let offset = parse_integer(e.args[2]).ok_or(Refusal::NotInteger)?;
    let offset = usize::try_from(offset).map_err(|_| Refusal::Offset)?;
    let default_expiry = e.default_expiry();
    let bytes_max = e.keys.context().limits.value_bytes_max as usize;
    let view = string_at(e.keys, key)?;
    let old = view.map_or(&b""[..], |view| view.value);
    if patch.is_empty() {
        e.reply.integer(old.len() as i64);
        return Ok(());
    }
    let end = offset.checked_add(patch.len()).filter(|&end| end <= bytes_max).ok_or(Refusal::ValueTooLong)?;
    let mut value = Vec::with_capacity(end.max(old.len()));
    value.extend_from_slice(old);
    value.resize(end.max(old.len()), 0);
    value[offset..end].copy_from_slice(patch);
    let expire_at_ms = view.map_or(default_expiry, |view| view.expire_at_ms);
    e.put_string(key, &value, expire_at_ms);
    e.reply.integer(value.len() as i64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn ranges_follow_redis() {
        let check = |start, end, expected: &str| assert_eq!(range(b"hello", start, end), expected.as_bytes());
        check(0, -1, "hello");
        check(-3, -1, "llo");
        check(1, 2, "el");
        check(3, 1, "");
        check(-1, -3, "");
        check(-100, 1, "he");
        check(4, 100, "o");
        check(5, 100, "");
        check(0, -100, "h");
        check(i64::MIN, i64::MAX, "hello");
        assert_eq!(range(b"", 0, -1), b"");
    }
}
