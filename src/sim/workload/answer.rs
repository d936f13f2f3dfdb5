//! What a reply means to a simulated client.

use bytes::Bytes;

/// A reply, decoded as far as clients care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Simple,
    Integer(i64),
    Bulk(Option<Bytes>),
    Array(Option<Vec<Reply>>),
    /// The operation is known not to have happened.
    Refused,
    /// There was no room for it: known not to have happened.
    Full,
    /// Nobody knows.
    InDoubt,
    /// Whoever knew has forgotten.
    Forgotten,
    /// Neither an answer nor an excuse.
    Unexpected(String),
}

impl Reply {
    /// Decodes one RESP2 reply.
    pub(super) fn decode(bytes: &[u8]) -> Reply {
        let mut rest = bytes;
        match next(&mut rest) {
            Some(reply) if rest.is_empty() => reply,
            _ => Reply::Unexpected(String::from_utf8_lossy(bytes).into_owned()),
        }
    }

    /// An unsigned number: an integer, or digits where it may be too large for one.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Reply::Integer(number) => u64::try_from(*number).ok(),
            Reply::Bulk(Some(digits)) => std::str::from_utf8(digits).ok()?.parse().ok(),
            _ => None,
        }
    }
}

fn next(rest: &mut &[u8]) -> Option<Reply> {
    let end = rest.windows(2).position(|window| window == b"\r\n")?;
    let (line, tail) = (&rest[..end], &rest[end + 2..]);
    *rest = tail;
    let (&kind, text) = line.split_first()?;
    let text = std::str::from_utf8(text).ok()?;
    Some(match kind {
        b'+' => Reply::Simple,
        b':' => Reply::Integer(text.parse().ok()?),
        b'$' if text == "-1" => Reply::Bulk(None),
        b'$' => {
            let (value, tail) = rest.split_at_checked(text.parse().ok()?)?;
            *rest = tail.strip_prefix(b"\r\n")?;
            Reply::Bulk(Some(Bytes::copy_from_slice(value)))
        }
        b'*' if text == "-1" => Reply::Array(None),
        b'*' => {
            let count: usize = text.parse().ok()?;
            Reply::Array(Some((0..count).map(|_| next(rest)).collect::<Option<_>>()?))
        }
        b'-' => match text.split(' ').next() {
            Some("TRYAGAIN" | "NOREPLICAS" | "CLUSTERDOWN") => Reply::Refused,
            Some("OOM") => Reply::Full,
            Some("INDOUBT") if text.ends_with("no longer remembered") => Reply::Forgotten,
            Some("INDOUBT") => Reply::InDoubt,
            _ => Reply::Unexpected(text.to_owned()),
        },
        _ => return None,
    })
}
