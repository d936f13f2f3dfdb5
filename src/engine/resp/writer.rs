//! Encoding replies.

use super::Proto;

/// Appends replies to `out` in the client's version of the protocol.
///
/// Types that RESP2 lacks are written as Redis writes them there: maps as flat arrays, nulls as
/// null bulks, doubles and verbatim strings as bulks, booleans as integers.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    /// Where the bytes go.
    pub out: &'a mut Vec<u8>,
    /// The client's version of the protocol.
    pub proto: Proto,
}

impl<'a> ReplyWriter<'a> {
    /// A writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>, proto: Proto) -> ReplyWriter<'a> {
        ReplyWriter { out, proto }
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string. `text` must not contain a line break.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']));
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.end_line();
    }

    /// An error, its code first. Line breaks become blanks: a text may quote what a client sent.
    pub fn error(&mut self, text: &str) {
        self.error_bytes(text.as_bytes());
    }

    /// As [`ReplyWriter::error`], for a text that may not be UTF-8.
    pub fn error_bytes(&mut self, text: &[u8]) {
        self.out.push(b'-');
        let clean = |&byte: &u8| if byte == b'\r' || byte == b'\n' { b' ' } else { byte };
        self.out.extend(text.iter().map(clean));
        self.end_line();
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            _ => self.number_line(b':', value),
        }
    }

    /// An integer that counts; beyond `i64::MAX` it is written as that.
    pub fn count(&mut self, value: u64) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    /// A string of any bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 24);
        self.number_line(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.end_line();
    }

    /// As [`ReplyWriter::bulk`] of so many bytes, but without them. Returns where they belong.
    pub fn bulk_around(&mut self, length: usize) -> usize {
        self.number_line(b'$', length as i64);
        let at = self.out.len();
        self.end_line();
        at
    }

    /// An integer as a string.
    pub fn bulk_integer(&mut self, value: i64) {
        let mut digits = itoa::Buffer::new();
        self.bulk(digits.format(value).as_bytes());
    }

    /// The absence of a value.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"$-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// The absence of an array.
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => b"*-1\r\n",
            Proto::Resp3 => b"_\r\n",
        });
    }

    /// The start of an array of `length` replies.
    pub fn array(&mut self, length: usize) {
        self.number_line(b'*', length as i64);
    }

    /// The start of a map of `pairs` pairs: a key and a value reply each.
    pub fn map(&mut self, pairs: usize) {
        match self.proto {
            Proto::Resp2 => self.number_line(b'*', (pairs * 2) as i64),
            Proto::Resp3 => self.number_line(b'%', pairs as i64),
        }
    }

    /// The start of a set of `length` replies.
    pub fn set(&mut self, length: usize) {
        match self.proto {
            Proto::Resp2 => self.number_line(b'*', length as i64),
            Proto::Resp3 => self.number_line(b'~', length as i64),
        }
    }

    /// A floating-point number, in the shortest form that reads back the same.
    pub fn double(&mut self, value: f64) {
        let text = if value.is_nan() {
            "nan".to_owned()
        } else if value.is_infinite() {
            if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() }
        } else {
            format!("{value}")
        };
        match self.proto {
            Proto::Resp2 => self.bulk(text.as_bytes()),
            Proto::Resp3 => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.end_line();
            }
        }
    }

    /// A truth value.
    pub fn boolean(&mut self, value: bool) {
        match (self.proto, value) {
            (Proto::Resp2, _) => self.integer(i64::from(value)),
            (Proto::Resp3, true) => self.out.extend_from_slice(b"#t\r\n"),
            (Proto::Resp3, false) => self.out.extend_from_slice(b"#f\r\n"),
        }
    }

    /// A text for human eyes, to be shown as it is.
    pub fn verbatim(&mut self, text: &[u8]) {
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => {
                self.number_line(b'=', (text.len() + 4) as i64);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text);
                self.end_line();
            }
        }
    }

    #[inline]
    fn number_line(&mut self, kind: u8, value: i64) {
        let digit = |digit: i64| b'0' + digit as u8;
        match value {
            0..10 => self.out.extend_from_slice(&[kind, digit(value), b'\r', b'\n']),
            10..100 => {
                self.out.extend_from_slice(&[kind, digit(value / 10), digit(value % 10), b'\r', b'\n'])
            }
            _ => {
                self.out.push(kind);
                let mut digits = itoa::Buffer::new();
                self.out.extend_from_slice(digits.format(value).as_bytes());
                self.end_line();
            }
        }
    }

    #[inline]
    fn end_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl Fn(&mut ReplyWriter<'_>), resp2: &str, resp3: &str) {
        for (proto, expected) in [(Proto::Resp2, resp2), (Proto::Resp3, resp3)] {
            let mut out = Vec::new();
            write(&mut ReplyWriter::new(&mut out, proto));
            assert_eq!(out.escape_ascii().to_string(), expected.escape_default().to_string(), "{proto:?}");
        }
    }

    #[test]
    fn both_versions() {
        check(|w| w.integer(-7), ":-7\r\n", ":-7\r\n");
        check(|w| w.integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n");
        check(|w| w.bulk(b"0123456789"), "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n");
        check(|w| w.null(), "$-1\r\n", "_\r\n");
        check(|w| w.null_array(), "*-1\r\n", "_\r\n");
        check(|w| w.map(2), "*4\r\n", "%2\r\n");
        check(|w| w.set(3), "*3\r\n", "~3\r\n");
        check(|w| w.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|w| w.boolean(true), ":1\r\n", "#t\r\n");
        check(|w| w.verbatim(b"x"), "$1\r\nx\r\n", "=5\r\ntxt:x\r\n");
        check(|w| w.error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n");
    }
}
