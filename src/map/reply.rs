//! Taking replies apart. A reply of another kind than expected is an error, never a panic.

use super::value::Value;
use crate::engine::ids::Version;
use crate::engine::resp::Reply;
use crate::error::Error;

fn unexpected(expected: &str, reply: &Reply) -> Error {
    let kind = match reply {
        Reply::Simple(_) => "a status",
        Reply::Error(text) => return Error::of_reply(text),
        Reply::Integer(_) => "an integer",
        Reply::Bulk(_) => "a string",
        Reply::Null => "nothing",
        Reply::Array(_) => "an array",
        Reply::Map(_) => "a map",
        Reply::Set(_) => "a set",
        Reply::Double(_) => "a double",
        Reply::Boolean(_) => "a truth value",
        Reply::BigNumber(_) => "a big number",
    };
    Error::UnexpectedReply(format!("{expected} was expected, {kind} came"))
}

pub(super) fn ok(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Simple(_) => Ok(()),
        other => Err(unexpected("OK", &other)),
    }
}

pub(super) fn integer(reply: Reply) -> Result<i64, Error> {
    match reply {
        Reply::Integer(integer) => Ok(integer),
        other => Err(unexpected("an integer", &other)),
    }
}

/// Yes or no, as Redis says it.
pub(super) fn flag(reply: Reply) -> Result<bool, Error> {
    match reply {
        Reply::Integer(integer) => Ok(integer != 0),
        Reply::Boolean(truth) => Ok(truth),
        other => Err(unexpected("yes or no", &other)),
    }
}

pub(super) fn unsigned(reply: Reply) -> Result<u64, Error> {
    let integer = integer(reply)?;
    u64::try_from(integer)
        .map_err(|_| Error::UnexpectedReply(format!("{integer} where a count was expected")))
}

pub(super) fn version(reply: Reply) -> Result<Version, Error> {
    unsigned(reply).map(Version)
}

pub(super) fn bytes(reply: Reply) -> Result<Option<Vec<u8>>, Error> {
    match reply {
        Reply::Null => Ok(None),
        Reply::Bulk(bytes) => Ok(Some(bytes)),
        Reply::Simple(text) => Ok(Some(text.into_bytes())),
        other => Err(unexpected("a value", &other)),
    }
}

pub(super) fn value<V: Value>(reply: Reply) -> Result<Option<V>, Error> {
    bytes(reply)?.map(V::from_bytes).transpose()
}

/// A value where there has to be one.
pub(super) fn present<V: Value>(reply: Reply) -> Result<V, Error> {
    value(reply)?.ok_or_else(|| unexpected("a value", &Reply::Null))
}

pub(super) fn array(reply: Reply) -> Result<Vec<Reply>, Error> {
    match reply {
        Reply::Array(replies) => Ok(replies),
        other => Err(unexpected("an array", &other)),
    }
}

fn exactly<const N: usize>(reply: Reply) -> Result<[Reply; N], Error> {
    let replies = array(reply)?;
    let count = replies.len();
    <[Reply; N]>::try_from(replies)
        .map_err(|_| Error::UnexpectedReply(format!("{N} entries were expected, {count} came")))
}

/// Two replies, or nothing.
pub(super) fn pair(reply: Reply) -> Result<Option<(Reply, Reply)>, Error> {
    match reply {
        Reply::Null => Ok(None),
        reply => exactly(reply).map(|[first, second]| Some((first, second))),
    }
}

pub(super) fn three(reply: Reply) -> Result<[Reply; 3], Error> {
    exactly(reply)
}
