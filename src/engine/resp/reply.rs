//! Replies as a client reads them.

use thiserror::Error;

/// How deep replies may be nested, whatever the limits say: parsing recurses.
const DEPTH_MAX: usize = 32;
/// The longest line of a simple string, an error or a number.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Entries reserved for an aggregate before any of them has been seen.
const RESERVED_MAX: usize = 1024;

/// A reply of either version of the protocol.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short text such as `OK`.
    Simple(String),
    /// A refusal, its code first.
    Error(String),
    /// An integer.
    Integer(i64),
    /// A string of any bytes, or a verbatim one without its format.
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// An array, or what was pushed.
    Array(Vec<Reply>),
    /// A RESP3 map, in the order it came.
    Map(Vec<(Reply, Reply)>),
    /// A RESP3 set.
    Set(Vec<Reply>),
    /// A RESP3 double.
    Double(f64),
    /// A RESP3 truth value.
    Boolean(bool),
    /// A RESP3 number of any size, in decimal digits.
    BigNumber(String),
}

/// What a reply may take. Checked before anything is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// The longest string, in bytes.
    pub bulk_bytes_max: usize,
    /// The most entries of one array, map or set.
    pub entries_max: usize,
}

impl Default for ReplyLimits {
    /// 512 MiB a string, 2^24 entries.
    fn default() -> ReplyLimits {
        ReplyLimits { bulk_bytes_max: 512 << 20, entries_max: 1 << 24 }
    }
}

/// Why bytes are no reply. The connection they came from can't be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// A type byte that neither version knows.
    #[error("unknown reply type 0x{0:02x}")]
    UnknownType(u8),
    /// A number, a length or a line end that is none.
    #[error("malformed reply")]
    Malformed,
    /// A length beyond the limits, or nesting too deep.
    #[error("reply beyond the limits")]
    TooBig,
}

impl Reply {
    /// Parses the reply at the front of `buffer`: the reply and the bytes it took, or `None` when
    /// it goes on beyond the buffer.
    ///
    /// # Errors
    /// When the bytes are not RESP or go beyond the limits.
    ///
    /// ```
    /// use ringdove::engine::resp::{Reply, ReplyLimits};
    /// let (reply, taken) = Reply::parse(b"*2\r\n:1\r\n_\r\n", &ReplyLimits::default())?.unwrap();
    /// assert_eq!(reply, Reply::Array(vec![Reply::Integer(1), Reply::Null]));
    /// assert_eq!(taken, 11);
    /// # Ok::<(), ringdove::engine::resp::ReplyError>(())
    /// ```
    pub fn parse(buffer: &[u8], limits: &ReplyLimits) -> Result<Option<(Reply, usize)>, ReplyError> {
        let mut cursor = Cursor { buffer, position: 0, limits };
        let reply = cursor.reply(0)?;
        Ok(reply.map(|reply| (reply, cursor.position)))
    }

    /// The text of an error reply.
    pub fn error(&self) -> Option<&str> {
        match self {
            Reply::Error(text) => Some(text),
            _ => None,
        }
    }
}

struct Cursor<'a> {
    buffer: &'a [u8],
    position: usize,
    limits: &'a ReplyLimits,
}

impl<'a> Cursor<'a> {
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, ReplyError> {
        if depth > DEPTH_MAX {
            return Err(ReplyError::TooBig);
        }
        let Some(&kind) = self.buffer.get(self.position) else { return Ok(None) };
        if !b"+-:$*_#,(=%~>!|".contains(&kind) {
            return Err(ReplyError::UnknownType(kind));
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let reply = match kind {
            b'+' => Reply::Simple(text(line)),
            b'-' => Reply::Error(text(line)),
            b':' => Reply::Integer(number(line)?),
            b'(' => Reply::BigNumber(text(line)),
            b'_' if line.is_empty() => Reply::Null,
            b'#' => match line {
                b"t" => Reply::Boolean(true),
                b"f" => Reply::Boolean(false),
                _ => return Err(ReplyError::Malformed),
            },
            b',' => Reply::Double(text(line).parse().map_err(|_| ReplyError::Malformed)?),
            b'$' | b'=' | b'!' => {
                let Some(length) = length(line, self.limits.bulk_bytes_max)? else {
                    return Ok(Some(Reply::Null));
                };
                let Some(bytes) = self.bulk(length)? else { return Ok(None) };
                match kind {
                    b'$' => Reply::Bulk(bytes.to_vec()),
                    b'=' => Reply::Bulk(bytes.get(4..).ok_or(ReplyError::Malformed)?.to_vec()),
                    _ => Reply::Error(text(bytes)),
                }
            }
            b'*' | b'>' | b'~' => {
                let Some(length) = length(line, self.limits.entries_max)? else {
                    return Ok(Some(Reply::Null));
                };
                let mut entries = Vec::with_capacity(length.min(RESERVED_MAX));
                for _ in 0..length {
                    let Some(entry) = self.reply(depth + 1)? else { return Ok(None) };
                    entries.push(entry);
                }
                if kind == b'~' { Reply::Set(entries) } else { Reply::Array(entries) }
            }
            b'%' | b'|' => {
                let Some(length) = length(line, self.limits.entries_max)? else {
                    return Err(ReplyError::Malformed);
                };
                let mut pairs = Vec::with_capacity(length.min(RESERVED_MAX));
                for _ in 0..length {
                    let Some(key) = self.reply(depth + 1)? else { return Ok(None) };
                    let Some(value) = self.reply(depth + 1)? else { return Ok(None) };
                    pairs.push((key, value));
                }
                if kind == b'|' {
                    // Attributes precede the reply they describe; nothing here asks for them.
                    return self.reply(depth + 1);
                }
                Reply::Map(pairs)
            }
            _ => return Err(ReplyError::Malformed),
        };
        Ok(Some(reply))
    }

    /// The line after the type byte at `position`, without its end; moves beyond it.
    fn line(&mut self) -> Result<Option<&'a [u8]>, ReplyError> {
        let rest = &self.buffer[self.position + 1..];
        let seen = &rest[..rest.len().min(LINE_BYTES_MAX)];
        let Some(end) = seen.iter().position(|&byte| byte == b'\r') else {
            return if rest.len() >= LINE_BYTES_MAX { Err(ReplyError::TooBig) } else { Ok(None) };
        };
        match rest.get(end + 1) {
            None => Ok(None),
            Some(b'\n') => {
                self.position += end + 3;
                Ok(Some(&rest[..end]))
            }
            Some(_) => Err(ReplyError::Malformed),
        }
    }

    fn bulk(&mut self, length: usize) -> Result<Option<&'a [u8]>, ReplyError> {
        let end = self.position + length;
        if self.buffer.len() < end + 2 {
            return Ok(None);
        }
        if &self.buffer[end..end + 2] != b"\r\n" {
            return Err(ReplyError::Malformed);
        }
        let bytes = &self.buffer[self.position..end];
        self.position = end + 2;
        Ok(Some(bytes))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

fn number(line: &[u8]) -> Result<i64, ReplyError> {
    std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()).ok_or(ReplyError::Malformed)
}

/// A length within `max`; `None` for the -1 of a RESP2 null.
fn length(line: &[u8], max: usize) -> Result<Option<usize>, ReplyError> {
    match number(line)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            Ok(_) => Err(ReplyError::TooBig),
            Err(_) => Err(ReplyError::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, ReplyError> {
        Reply::parse(input, &ReplyLimits::default())
    }

    #[test]
    fn every_type_at_every_split() {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let table: &[(&str, Reply)] = &[
            ("+OK\r\n", Reply::Simple("OK".into())),
            ("-ERR no\r\n", Reply::Error("ERR no".into())),
            (":-12\r\n", Reply::Integer(-12)),
            ("$3\r\na\r\n\r\n", bulk("a\r\n")),
            ("$-1\r\n", Reply::Null),
            ("*-1\r\n", Reply::Null),
            ("_\r\n", Reply::Null),
            ("*2\r\n$1\r\na\r\n*0\r\n", Reply::Array(vec![bulk("a"), Reply::Array(vec![])])),
            ("%1\r\n+a\r\n:1\r\n", Reply::Map(vec![(Reply::Simple("a".into()), Reply::Integer(1))])),
            ("~1\r\n:1\r\n", Reply::Set(vec![Reply::Integer(1)])),
            (",1.5\r\n", Reply::Double(1.5)),
            (",-inf\r\n", Reply::Double(f64::NEG_INFINITY)),
            ("#t\r\n", Reply::Boolean(true)),
            ("=5\r\ntxt:x\r\n", bulk("x")),
            (
                "(123456789012345678901234567890\r\n",
                Reply::BigNumber("123456789012345678901234567890".into()),
            ),
            ("!5\r\nERR x\r\n", Reply::Error("ERR x".into())),
            ("|1\r\n+a\r\n:1\r\n:2\r\n", Reply::Integer(2)),
        ];
        for (input, expected) in table {
            let input = input.as_bytes();
            assert_eq!(parse(input), Ok(Some((expected.clone(), input.len()))));
            for cut in 0..input.len() {
                assert_eq!(parse(&input[..cut]), Ok(None), "{} cut at {cut}", input.escape_ascii());
            }
        }
    }

    #[test]
    fn hostile_replies_are_bounded() {
        assert_eq!(parse(b"?\r\n"), Err(ReplyError::UnknownType(b'?')));
        assert_eq!(parse(b"$-2\r\n"), Err(ReplyError::Malformed));
        assert_eq!(parse(b"$1\r\nabc"), Err(ReplyError::Malformed));
        assert_eq!(parse(b":x\r\n"), Err(ReplyError::Malformed));
        assert_eq!(parse(b"*99999999999\r\n"), Err(ReplyError::TooBig));
        assert_eq!(parse(b"$99999999999\r\n"), Err(ReplyError::TooBig));
        assert_eq!(parse(&b"*1\r\n".repeat(100)), Err(ReplyError::TooBig));
        assert_eq!(parse(b"%-1\r\n"), Err(ReplyError::Malformed));
    }
}
