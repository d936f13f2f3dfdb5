//! Cutting a read buffer into commands.

use super::inline;
use crate::engine::store::LongValue;
use arrayvec::ArrayVec;
use smallvec::SmallVec;
use thiserror::Error;

/// Arguments that [`Decoder::decode_common`] takes at most.
pub const COMMON_ARGS_MAX: usize = 64;

/// Room for the arguments of one command that [`Decoder::decode_common`] takes.
pub type CommonArgs<'a> = ArrayVec<&'a [u8], COMMON_ARGS_MAX>;

/// The longest line: an inline command, or the line that carries a count or a length.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Arguments a command may have before the connection is authenticated.
const UNTRUSTED_ARGS_MAX: i64 = 10;
/// Bytes an argument may have before the connection is authenticated.
const UNTRUSTED_BULK_BYTES_MAX: i64 = 16_384;

/// Arguments from this length on may be received, and values sent, apart from the rest, without copies.
pub const LONG_BYTES_MIN: usize = 256 << 10;

/// What a peer may send. Lengths are checked against these before anything is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// The most arguments of one command, its name included.
    pub args_max: usize,
    /// The longest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// The longest command in all, in bytes as sent.
    pub command_bytes_max: usize,
}

impl Default for DecoderLimits {
    /// 1,048,576 arguments of at most 64 MiB, 256 MiB in all.
    fn default() -> DecoderLimits {
        DecoderLimits { args_max: 1 << 20, bulk_bytes_max: 64 << 20, command_bytes_max: 256 << 20 }
    }
}

/// Whether the sender has proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It may use the whole of [`DecoderLimits`].
    Authenticated,
    /// It may send just enough to authenticate.
    Stranger,
}

/// A breach of the protocol. The connection gets the text as an error and is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A line beyond 64 KiB that is no array.
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command whose quotes do not match.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// The line with the argument count does not end.
    #[error("Protocol error: too big mbulk count string")]
    CountLineTooBig,
    /// The line with an argument's length does not end.
    #[error("Protocol error: too big bulk count string")]
    LengthLineTooBig,
    /// The argument count is no number, or beyond the limit.
    #[error("Protocol error: invalid multibulk length")]
    InvalidCount,
    /// An argument's length is no number, negative, or beyond the limit.
    #[error("Protocol error: invalid bulk length")]
    InvalidLength,
    /// Too many arguments for a connection that has not authenticated.
    #[error("Protocol error: unauthenticated multibulk length")]
    StrangerCount,
    /// Too long an argument for a connection that has not authenticated.
    #[error("Protocol error: unauthenticated bulk length")]
    StrangerLength,
    /// Something else than `$` where an argument should start.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The command as a whole is beyond the limit.
    #[error("Protocol error: too big request")]
    CommandTooBig,
}

/// The outcome of [`Decoder::decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A whole command: [`Decoder::args`] gives its arguments, possibly none (an empty line).
    Command {
        /// Bytes of the buffer it took.
        consumed: usize,
    },
    /// The command goes on beyond the buffer.
    Incomplete {
        /// At least so many more bytes belong to it, at least 1: what to reserve before reading on.
        needed: usize,
    },
}

/// Where an argument lies: in the buffer, or in `unquoted` for an inline command.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
}

/// The start of a [`Span`] that stands for a long value; its end is the number of that.
const IS_LONG: usize = usize::MAX;

/// What a common command begins with: how many arguments it has, and its name. In a pipeline most commands begin as the
/// one before does, which is seen at one look.
#[derive(Clone, Copy, Debug)]
pub struct Front<'a> {
    /// Its bytes as a number, and the bits of it that count. Equal to nothing that is read until it is learned.
    word: u128,
    mask: u128,
    end: usize,
    count: usize,
    name: &'a [u8],
    is_same: bool,
}

impl<'a> Front<'a> {
    /// Of no command.
    pub const fn none() -> Front<'a> {
        Front { word: 1, mask: 0, end: 0, count: 0, name: &[], is_same: false }
    }

    /// Makes it known to [`Front::is_of`], if it is short enough.
    fn learn(&mut self, buffer: &[u8]) {
        const BYTES: usize = size_of::<u128>();
        if let Some(bytes) = buffer.first_chunk::<BYTES>()
            && self.end <= BYTES
        {
            self.mask = u128::MAX >> (8 * (BYTES - self.end));
            self.word = u128::from_le_bytes(*bytes) & self.mask;
        }
    }

    #[inline(always)]
    fn is_of(&self, buffer: &[u8]) -> bool {
        buffer.first_chunk().is_some_and(|bytes| u128::from_le_bytes(*bytes) & self.mask == self.word)
    }

    /// Whether it is that of the command before, too: the same name, in the same case, with as many arguments.
    #[inline(always)]
    pub fn is_same(&self) -> bool {
        self.is_same
    }
}

/// Decodes one command at a time from the front of a buffer, remembering how far it got.
///
/// Between calls that return [`Decoded::Incomplete`] the buffer may grow but must keep its front,
/// so a command that arrives in pieces is scanned only once.
///
/// ```
/// use ringdove::engine::resp::{Decoded, Decoder, DecoderLimits, Trust};
/// let mut decoder = Decoder::new(DecoderLimits::default());
/// let input = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n";
/// let Decoded::Command { consumed } = decoder.decode(input, Trust::Authenticated)? else { panic!() };
/// assert_eq!(decoder.args(input).as_slice(), [&b"GET"[..], b"k"]);
/// let rest = &input[consumed..];
/// decoder.decode(rest, Trust::Authenticated)?;
/// assert_eq!(decoder.args(rest).as_slice(), [b"PING"]);
/// # Ok::<(), ringdove::engine::resp::ProtocolError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    stage: Stage,
    /// Bytes of the buffer dealt with.
    position: usize,
    /// Arguments still to come after those in `spans`.
    missing: usize,
    spans: SmallVec<[Span; 8]>,
    /// Arguments that were received apart.
    long: Vec<LongValue>,
    /// Bytes of those.
    long_bytes: usize,
    /// Arguments of an inline command, unquoted, end to end.
    unquoted: Vec<u8>,
    is_inline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// At the start of a command.
    Start,
    /// At the line that gives the next argument's length.
    Length,
    /// At an argument of so many bytes.
    Bulk(usize),
    /// Behind an argument that was received apart, at the end of its line.
    LineEnd,
    /// A whole command is in `spans`.
    Complete,
}

impl Decoder {
    /// A decoder at the start of a command.
    pub fn new(limits: DecoderLimits) -> Decoder {
        Decoder {
            limits,
            stage: Stage::Start,
            position: 0,
            missing: 0,
            spans: SmallVec::new(),
            long: Vec::new(),
            long_bytes: 0,
            unquoted: Vec::new(),
            is_inline: false,
        }
    }

    /// Decodes the command at the front of `buffer`, or goes on with it.
    ///
    /// # Errors
    /// When the bytes are not RESP or go beyond the limits. The connection can't be read any further.
    pub fn decode(&mut self, buffer: &[u8], trust: Trust) -> Result<Decoded, ProtocolError> {
        if self.stage == Stage::Complete {
            self.stage = Stage::Start;
        }
        if self.stage == Stage::Start {
            self.position = 0;
            self.missing = 0;
            self.spans.clear();
            self.release();
            self.is_inline = false;
            match buffer.first() {
                None => return Ok(Decoded::Incomplete { needed: 1 }),
                Some(b'*') => {}
                Some(_) => return self.decode_inline(buffer),
            }
            let (too_big, invalid) = (ProtocolError::CountLineTooBig, ProtocolError::InvalidCount);
            let Some((count, next)) = length_at(buffer, 1, too_big, invalid)? else {
                return Ok(Decoded::Incomplete { needed: 1 });
            };
            if count > self.limits.args_max as i64 {
                return Err(ProtocolError::InvalidCount);
            }
            if trust == Trust::Stranger && count > UNTRUSTED_ARGS_MAX {
                return Err(ProtocolError::StrangerCount);
            }
            self.position = next;
            self.missing = usize::try_from(count).unwrap_or(0);
            self.stage = Stage::Length;
        }
        while self.missing > 0 {
            if self.stage == Stage::Length {
                match buffer.get(self.position) {
                    None => return Ok(Decoded::Incomplete { needed: 1 }),
                    Some(b'$') => {}
                    Some(&other) => return Err(ProtocolError::ExpectedBulk(printable(other))),
                }
                let (too_big, invalid) = (ProtocolError::LengthLineTooBig, ProtocolError::InvalidLength);
                let Some((length, next)) = length_at(buffer, self.position + 1, too_big, invalid)? else {
                    return Ok(Decoded::Incomplete { needed: 1 });
                };
                if length < 0 || length > self.limits.bulk_bytes_max as i64 {
                    return Err(ProtocolError::InvalidLength);
                }
                if trust == Trust::Stranger && length > UNTRUSTED_BULK_BYTES_MAX {
                    return Err(ProtocolError::StrangerLength);
                }
                if self.long_bytes + next + length as usize > self.limits.command_bytes_max {
                    return Err(ProtocolError::CommandTooBig);
                }
                self.position = next;
                self.stage = Stage::Bulk(length as usize);
            }
            if let Stage::Bulk(length) = self.stage {
                let end = self.position + length;
                if buffer.len() < end + 2 {
                    return Ok(Decoded::Incomplete { needed: end + 2 - buffer.len() });
                }
                self.spans.push(Span { start: self.position, end });
                self.position = end + 2;
                self.missing -= 1;
                self.stage = Stage::Length;
            }
            if self.stage == Stage::LineEnd {
                let end = self.position + 2;
                if buffer.len() < end {
                    return Ok(Decoded::Incomplete { needed: end - buffer.len() });
                }
                self.position = end;
                self.missing -= 1;
                self.stage = Stage::Length;
            }
        }
        self.stage = Stage::Complete;
        Ok(Decoded::Command { consumed: self.position })
    }

    /// The arguments of the command that [`Decoder::decode`] just completed at the front of `buffer`.
    pub fn args<'a>(&'a self, buffer: &'a [u8]) -> SmallVec<[&'a [u8]; 8]> {
        let source = if self.is_inline { &self.unquoted[..] } else { buffer };
        let arg = |span: &Span| match *span {
            Span { start: IS_LONG, end } => self.long.get(end).map_or(&[][..], |value| value.bytes()),
            Span { start, end } => source.get(start..end).unwrap_or_default(),
        };
        self.spans.iter().map(arg).collect()
    }

    /// Where the argument begins that the command under way goes on with, and its length, if that is
    /// [`LONG_BYTES_MIN`] at least. It may be received apart: whoever takes what there is of it off the buffer
    /// gives the whole to [`Decoder::put_long`], and nothing to the decoder before.
    pub fn awaits_long(&self) -> Option<(usize, usize)> {
        match self.stage {
            Stage::Bulk(length) if length >= LONG_BYTES_MIN => Some((self.position, length)),
            _ => None,
        }
    }

    /// Takes the argument that [`Decoder::awaits_long`] told of. The buffer goes on with the end of its line.
    pub fn put_long(&mut self, value: LongValue) {
        debug_assert_eq!(self.awaits_long().map(|(_, length)| length), Some(value.bytes().len()));
        self.spans.push(Span { start: IS_LONG, end: self.long.len() });
        self.long_bytes += value.bytes().len();
        self.long.push(value);
        self.stage = Stage::LineEnd;
    }

    /// Arguments of the command that were received apart.
    pub fn long(&self) -> &[LongValue] {
        &self.long
    }

    /// Forgets what was decoded, to start anew at some command's front. A whole command with long values is the
    /// next one once more: they are in no buffer.
    pub fn rewind(&mut self) {
        self.stage = if self.long.is_empty() { Stage::Start } else { Stage::Length };
    }

    /// Lets go of the long values of a command that has begun.
    pub fn release(&mut self) {
        self.long.clear();
        self.long_bytes = 0;
        self.stage = Stage::Start;
    }

    /// The command at the front of `buffer` in one go, if it is as nearly all are: whole, and of not more than
    /// [`COMMON_ARGS_MAX`] arguments. Appends those to `args`, and returns what it takes. `None` says nothing (`args`
    /// may just be full): ask [`Decoder::decode`].
    ///
    /// `front` is that of the command before, and becomes this one's.
    #[inline(always)]
    pub fn decode_common<'a, const N: usize>(
        &mut self,
        buffer: &'a [u8],
        front: &mut Front<'a>,
        args: &mut ArrayVec<&'a [u8], N>,
    ) -> Option<usize> {
        if !matches!(self.stage, Stage::Start | Stage::Complete) {
            return None;
        }
        let before = args.len();
        *front = if front.is_of(buffer) { Front { is_same: true, ..*front } } else { self.front(buffer)? };
        if front.count > args.remaining_capacity() {
            return None;
        }
        args.push(front.name);
        let mut position = front.end;
        for _ in 1..front.count {
            let Some((arg, end)) = self.common_arg(buffer, position) else {
                args.truncate(before);
                return None;
            };
            args.push(arg);
            position = end;
        }
        if position > self.limits.command_bytes_max {
            args.truncate(before);
            return None;
        }
        if !front.is_same && position < buffer.len() {
            front.learn(buffer);
        }
        self.stage = Stage::Start;
        Some(position)
    }

    /// The front of a common command.
    fn front<'a>(&self, buffer: &'a [u8]) -> Option<Front<'a>> {
        let (count, after) = short_length(buffer.strip_prefix(b"*")?)?;
        if count > COMMON_ARGS_MAX.min(self.limits.args_max) {
            return None;
        }
        let (name, end) = self.common_arg(buffer, 1 + after)?;
        Some(Front { count, name, end, ..Front::none() })
    }

    /// The argument whose length line begins at `position`, and where the next one does.
    #[inline(always)]
    fn common_arg<'a>(&self, buffer: &'a [u8], position: usize) -> Option<(&'a [u8], usize)> {
        let (line, rest) = buffer.get(position..)?.split_first()?;
        if *line != b'$' {
            return None;
        }
        let (length, after) = short_length(rest)?;
        let (bulk, _) = rest[after..].split_at_checked(length + 2)?;
        if length > self.limits.bulk_bytes_max {
            return None;
        }
        Some((&bulk[..length], position + 1 + after + length + 2))
    }

    fn decode_inline(&mut self, buffer: &[u8]) -> Result<Decoded, ProtocolError> {
        let seen = &buffer[..buffer.len().min(LINE_BYTES_MAX + 1)];
        let Some(end) = seen.iter().position(|&byte| byte == b'\n') else {
            if buffer.len() > LINE_BYTES_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            return Ok(Decoded::Incomplete { needed: 1 });
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.unquoted.clear();
        let spans = &mut self.spans;
        inline::split(line, &mut self.unquoted, |start, end| spans.push(Span { start, end }))
            .ok_or(ProtocolError::UnbalancedQuotes)?;
        self.is_inline = true;
        self.stage = Stage::Complete;
        self.position = end + 1;
        Ok(Decoded::Command { consumed: self.position })
    }
}

/// The length in the line from `start`, and where the next line starts; `None` if the line goes on beyond
/// the buffer.
#[inline]
fn length_at(
    buffer: &[u8],
    start: usize,
    too_big: ProtocolError,
    invalid: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    if let Some((length, after)) = buffer.get(start..).and_then(short_length) {
        return Ok(Some((length as i64, start + after)));
    }
    let Some((line, next)) = line_at(buffer, start, too_big)? else { return Ok(None) };
    Ok(Some((parse_length(line).ok_or(invalid)?, next)))
}

/// A length of a few digits, as nearly all are, in the line at the front, and where the next line starts. `None` for
/// anything else: [`line_at`] and [`parse_length`] say what it is.
#[inline(always)]
fn short_length(line: &[u8]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *line {
        [one @ b'1'..=b'9', b'\r', _, ..] => Some((digit(one), 3)),
        [ten @ b'1'..=b'9', one @ b'0'..=b'9', b'\r', _, ..] => Some((digit(ten) * 10 + digit(one), 4)),
        _ => middling_length(line),
    }
}

fn middling_length(line: &[u8]) -> Option<(usize, usize)> {
    const DIGITS_MAX: usize = 8;
    let mut value = 0;
    for (at, &byte) in line.iter().take(DIGITS_MAX + 1).enumerate() {
        match byte {
            b'0' if at == 0 => return None,
            b'0'..=b'9' => value = value * 10 + usize::from(byte - b'0'),
            b'\r' if at > 0 && at + 2 <= line.len() => return Some((value, at + 2)),
            _ => return None,
        }
    }
    None
}

/// The line from `start` without its CRLF, and where the next one starts; `None` if it goes on
/// beyond the buffer.
#[inline]
fn line_at(
    buffer: &[u8],
    start: usize,
    too_big: ProtocolError,
) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let rest = &buffer[start..];
    let seen = &rest[..rest.len().min(LINE_BYTES_MAX + 1)];
    match seen.iter().position(|&byte| byte == b'\r') {
        Some(end) if end + 2 <= rest.len() => Ok(Some((&rest[..end], start + end + 2))),
        Some(_) => Ok(None),
        None if rest.len() > LINE_BYTES_MAX => Err(too_big),
        None => Ok(None),
    }
}

/// A decimal length: an optional minus, no plus, no leading zero, at most 18 digits.
#[inline]
fn parse_length(line: &[u8]) -> Option<i64> {
    let (negative, digits) = match line.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, line),
    };
    if digits.is_empty() || digits.len() > 18 || (digits[0] == b'0' && (digits.len() > 1 || negative)) {
        return None;
    }
    let mut value = 0i64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(digit - b'0');
    }
    Some(if negative { -value } else { value })
}

/// The byte itself, unless it would break the line that quotes it.
fn printable(byte: u8) -> u8 {
    if byte.is_ascii_graphic() || byte == b' ' { byte } else { b' ' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(input: &[u8], pieces: &[usize]) -> Result<Vec<Vec<Vec<u8>>>, ProtocolError> {
        let mut decoder = Decoder::new(DecoderLimits::default());
        let (mut buffer, mut commands) = (Vec::new(), Vec::new());
        let mut from = 0;
        for &to in pieces.iter().chain([&input.len()]) {
            buffer.extend_from_slice(&input[from..to]);
            from = to;
            loop {
                let (consumed, common) = {
                    let mut args = CommonArgs::new();
                    let consumed = decoder.decode_common(&buffer, &mut Front::none(), &mut args);
                    (consumed, args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>())
                };
                let (args, consumed) = match consumed {
                    Some(consumed) => (common, consumed),
                    None => {
                        assert!(common.is_empty());
                        let decoded = decoder.decode(&buffer, Trust::Authenticated)?;
                        let Decoded::Command { consumed } = decoded else { break };
                        (decoder.args(&buffer).iter().map(|arg| arg.to_vec()).collect(), consumed)
                    }
                };
                commands.push(args);
                buffer.drain(..consumed);
            }
        }
        Ok(commands)
    }

    fn check(input: &str, expected: &[&[&str]]) {
        let expected: Vec<Vec<Vec<u8>>> =
            expected.iter().map(|args| args.iter().map(|arg| arg.as_bytes().to_vec()).collect()).collect();
        let input = input.as_bytes();
        assert_eq!(decode_all(input, &[]).unwrap(), expected);
        for cut in 0..=input.len() {
            assert_eq!(decode_all(input, &[cut]).unwrap(), expected, "cut at {cut}");
        }
        let bytes: Vec<usize> = (0..input.len()).collect();
        assert_eq!(decode_all(input, &bytes).unwrap(), expected, "byte by byte");
    }

    fn refuse(input: &[u8], expected: &str) {
        assert_eq!(decode_all(input, &[]).unwrap_err().to_string(), expected, "{}", input.escape_ascii());
    }

    #[test]
    fn arrays_and_inline_commands_at_every_split() {
        check("*1\r\n$4\r\nPING\r\n", &[&["PING"]]);
        check("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\nPING\r\n", &[&["SET", "k", ""], &["PING"]]);
        check("*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n", &[&[], &[], &[], &["PING"]]);
        check("  set  k \"a b\\x41\\n\" 'it\\'s'\n", &[&["set", "k", "a bA\n", "it's"]]);
        check("PING\nPING\r\n", &[&["PING"], &["PING"]]);
        check("*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n", &[&["ECHO", "\r\n\r\n"]]);
    }

    #[test]
    fn hostile_input_is_refused_with_the_text_of_redis() {
        refuse(b"*x\r\n", "Protocol error: invalid multibulk length");
        refuse(b"*1048577\r\n", "Protocol error: invalid multibulk length");
        refuse(b"*99999999999999999999\r\n", "Protocol error: invalid multibulk length");
        refuse(b"*+1\r\n", "Protocol error: invalid multibulk length");
        refuse(b"*1\r\n:4\r\n", "Protocol error: expected '$', got ':'");
        refuse(b"*1\r\n\r\n", "Protocol error: expected '$', got ' '");
        refuse(b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length");
        refuse(b"*1\r\n$67108865\r\n", "Protocol error: invalid bulk length");
        refuse(b"*1\r\n$9223372036854775808\r\n", "Protocol error: invalid bulk length");
        refuse(b"set \"k\r\n", "Protocol error: unbalanced quotes in request");
        refuse(b"set \"k\"x\r\n", "Protocol error: unbalanced quotes in request");
        refuse(&[b'a'; LINE_BYTES_MAX + 2], "Protocol error: too big inline request");
        let mut endless = b"*".to_vec();
        endless.resize(LINE_BYTES_MAX + 3, b'1');
        refuse(&endless, "Protocol error: too big mbulk count string");
        let mut endless = b"*1\r\n$".to_vec();
        endless.resize(LINE_BYTES_MAX + 8, b'1');
        refuse(&endless, "Protocol error: too big bulk count string");
    }

    #[test]
    fn strangers_get_little() {
        let mut decoder = Decoder::new(DecoderLimits::default());
        assert_eq!(decoder.decode(b"*11\r\n", Trust::Stranger), Err(ProtocolError::StrangerCount));
        let mut decoder = Decoder::new(DecoderLimits::default());
        assert_eq!(decoder.decode(b"*1\r\n$16385\r\n", Trust::Stranger), Err(ProtocolError::StrangerLength));
    }

    #[test]
    fn a_big_bulk_says_how_much_is_missing() {
        let mut decoder = Decoder::new(DecoderLimits::default());
        let mut buffer = b"*2\r\n$3\r\nGET\r\n$1000000\r\n".to_vec();
        assert_eq!(
            decoder.decode(&buffer, Trust::Authenticated),
            Ok(Decoded::Incomplete { needed: 1_000_002 })
        );
        buffer.extend_from_slice(&[7; 10]);
        assert_eq!(
            decoder.decode(&buffer, Trust::Authenticated),
            Ok(Decoded::Incomplete { needed: 999_992 })
        );
    }

    #[test]
    fn a_common_command_is_the_same_whatever_was_before_it() {
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let names =
            ["GET", "get", "SET", "DEL", "GETDEL", "GETRANGE", "A-LONGER-NAME-THAN-THE-OTHERS", "G", ""];
        let commands: Vec<(Vec<&str>, String)> = names
            .iter()
            .flat_map(|name| [vec![*name], vec![*name, "k"], vec![*name, "key", "value"]])
            .map(|words| {
                let text = words.iter().map(|word| bulk(word)).collect::<String>();
                (words.clone(), format!("*{}\r\n{text}", words.len()))
            })
            .collect();
        let mut recognised = 0;
        for (before, first) in &commands {
            for (words, second) in &commands {
                let input = format!("{first}{second}{second}PING padded until there is enough of it\r\n");
                let (mut decoder, mut front) = (Decoder::new(DecoderLimits::default()), Front::none());
                let mut at = 0;
                for expected in [before, words, words] {
                    let mut args = CommonArgs::new();
                    // An empty argument is no common one.
                    let common = decoder.decode_common(&input.as_bytes()[at..], &mut front, &mut args);
                    let Some(consumed) = common else {
                        assert!(expected.contains(&""), "{expected:?}");
                        break;
                    };
                    let expected: Vec<&[u8]> = expected.iter().map(|word| word.as_bytes()).collect();
                    assert_eq!(args.as_slice(), expected);
                    at += consumed;
                }
                recognised += usize::from(front.is_same());
                assert!(!front.is_same() || words[0].len() <= 6, "{words:?}");
            }
        }
        assert!(recognised > commands.len() * 15, "{recognised}");
    }

    #[test]
    fn a_command_is_bounded_as_a_whole() {
        let limits = DecoderLimits { command_bytes_max: 40, ..DecoderLimits::default() };
        let mut decoder = Decoder::new(limits);
        let input = b"*2\r\n$20\r\naaaaaaaaaaaaaaaaaaaa\r\n$20\r\n";
        assert_eq!(decoder.decode(input, Trust::Authenticated), Err(ProtocolError::CommandTooBig));
    }
}
