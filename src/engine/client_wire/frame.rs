//! The frames of the client protocol.
//!
//! A frame is `length: u32, kind: u8, body`, little-endian throughout; the length counts the kind
//! and the body. Bodies are hand-laid and decoded by borrowing. Every count and length is checked
//! against the bytes that are there before anything is allocated for it.
//!
//! | kind | direction | body |
//! |---|---|---|
//! | 1 request | to node | `id u64, map u16, partition u16, tagged u8, [client u64, request u64, acknowledged_below u64, age_ms u32], argc u32, argc × (length u32, bytes)` |
//! | 2 table request | to node | – |
//! | 3 open map | to node | `id u64, ttl_ms u64, idle_ms u64, bytes_max u64, name` |
//! | 4 ping | to node | `id u64` |
//! | 17 response | from node | `id u64, status u8, detail u64, reply` |
//! | 18 table | from node | an encoded [`ClusterView`](super::view::ClusterView) |
//! | 19 map opened | from node | `id u64, map u16` |
//! | 20 pong | from node | `id u64` |

use crate::engine::dedup::RequestTag;
use crate::engine::ids::{ClientId, MapId, PartitionId, TableVersion};
use crate::engine::table::MapDefaults;
use smallvec::SmallVec;

/// Bytes of a frame before its kind.
pub const LENGTH_BYTES: usize = 4;
/// The most arguments of one request.
pub const ARGS_MAX: usize = 1 << 20;
/// The longest name of a map, in bytes.
pub const MAP_NAME_BYTES_MAX: usize = 255;

const REQUEST: u8 = 1;
const TABLE_REQUEST: u8 = 2;
const OPEN_MAP: u8 = 3;
const PING: u8 = 4;
const RESPONSE: u8 = 17;
const TABLE: u8 = 18;
const MAP_OPENED: u8 = 19;
const PONG: u8 = 20;

/// On the wire, the partition of a request that names none.
const NO_PARTITION: u16 = u16::MAX;

/// The arguments of a command, borrowed from the frame.
pub type Args<'a> = SmallVec<[&'a [u8]; 8]>;

/// What a request says besides its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Names the request within its connection; the response repeats it.
    pub id: u64,
    /// The map that the command's keys belong to.
    pub map: MapId,
    /// The partition the client took the key to be in, where it thought of one key. A hint: the
    /// node works the partition out itself.
    pub partition: Option<PartitionId>,
    /// Present on writes that may be sent again.
    pub exactly_once: Option<RequestTag>,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Everything but the arguments.
    pub head: RequestHead,
    /// The command's name and its arguments; at least the name.
    pub args: Args<'a>,
}

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToNode<'a> {
    /// Run a command.
    Request(Request<'a>),
    /// Send the table as it is now.
    TableRequest,
    /// Name a map, defining it if nobody has.
    OpenMap {
        /// Names the request within its connection, as [`RequestHead::id`] does.
        id: u64,
        /// The map's name, 1 to [`MAP_NAME_BYTES_MAX`] bytes.
        name: &'a str,
        /// The defaults of the map if it is new.
        defaults: MapDefaults,
    },
    /// Asks for a [`FromNode::Pong`].
    Ping {
        /// Comes back in the pong.
        id: u64,
    },
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran; the reply says how (a RESP error is a reply too).
    Ok,
    /// It did not run: the partition is changing hands.
    TryAgain {
        /// When to ask again, in milliseconds.
        retry_ms: u32,
    },
    /// It did not run: the primary is elsewhere.
    Moved {
        /// The version of the table that says where.
        table_version: TableVersion,
    },
    /// It may or may not have run.
    InDoubt,
    /// It did not run, or what is said of [`Refusal::Forgotten`].
    Refused(Refusal),
}

/// Why a request was not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Fewer live copies than the cluster wants for a write.
    NoReplicas,
    /// No majority, or no primary.
    ClusterDown,
    /// The request names a map that nobody opened.
    UnknownMap,
    /// The map could not be defined: a bad name, or too many maps.
    MapRefused,
    /// The key, the value or the request is larger than the cluster takes.
    TooLarge,
    /// The node is about to stop.
    ShuttingDown,
    /// A repeated write that may have run, of which nothing is remembered any more. To repeat it
    /// once more is no use.
    Forgotten,
}

/// A frame from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromNode<'a> {
    /// The answer to a [`ToNode::Request`], or to a [`ToNode::OpenMap`] that failed.
    Response {
        /// The id of the request.
        id: u64,
        /// What became of it.
        outcome: Outcome,
        /// The RESP3 reply of [`Outcome::Ok`]; empty or an explanation (UTF-8) otherwise.
        reply: &'a [u8],
    },
    /// The table changed, or was asked for: an encoded [`ClusterView`](super::view::ClusterView).
    Table(&'a [u8]),
    /// The answer to a [`ToNode::OpenMap`].
    MapOpened {
        /// The id of the request.
        id: u64,
        /// The map's number.
        map: MapId,
    },
    /// The answer to a [`ToNode::Ping`].
    Pong {
        /// The id of the ping.
        id: u64,
    },
}

/// The bytes are not the client protocol. The connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A frame longer than this side accepts.
    #[error("a frame of {bytes} bytes; at most {bytes_max} are accepted")]
    FrameTooLong {
        /// What the frame claims.
        bytes: usize,
        /// What is accepted.
        bytes_max: usize,
    },
    /// A frame of a kind this side doesn't know.
    #[error("a frame of unknown kind {0}")]
    UnknownKind(u8),
    /// A frame that ends too early, or too late.
    #[error("a frame of kind {0} whose length doesn't fit its content")]
    Length(u8),
    /// A field holds a value it can't have.
    #[error("a frame of kind {0} with a value out of range")]
    Value(u8),
}

/// Splits the first frame off `input`: its kind and body, and how many bytes of input it took.
/// `None` if it isn't complete yet.
///
/// # Errors
/// If the frame is empty, or longer than `frame_bytes_max` (kind and body).
pub fn split(input: &[u8], frame_bytes_max: usize) -> Result<Option<(RawFrame<'_>, usize)>, WireError> {
    let Some((length, rest)) = input.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let bytes = u32::from_le_bytes(*length) as usize;
    if bytes > frame_bytes_max {
        return Err(WireError::FrameTooLong { bytes, bytes_max: frame_bytes_max });
    }
    if bytes == 0 {
        return Err(WireError::Length(0));
    }
    let Some(frame) = rest.get(..bytes) else {
        return Ok(None);
    };
    Ok(Some((RawFrame { kind: frame[0], body: &frame[1..] }, LENGTH_BYTES + bytes)))
}

/// A frame whose body is not yet decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawFrame<'a> {
    kind: u8,
    body: &'a [u8],
}

impl<'a> RawFrame<'a> {
    /// Decodes a client's frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn to_node(self) -> Result<ToNode<'a>, WireError> {
        let mut body = Body { kind: self.kind, rest: self.body };
        let frame = match self.kind {
            REQUEST => ToNode::Request(body.request()?),
            TABLE_REQUEST => ToNode::TableRequest,
            OPEN_MAP => {
                let id = body.u64()?;
                let defaults =
                    MapDefaults { ttl_ms: body.u64()?, idle_ms: body.u64()?, bytes_max: body.u64()? };
                let name = std::str::from_utf8(body.take_rest()).map_err(|_| body.bad_value())?;
                if name.is_empty() || name.len() > MAP_NAME_BYTES_MAX {
                    return Err(body.bad_value());
                }
                ToNode::OpenMap { id, name, defaults }
            }
            PING => ToNode::Ping { id: body.u64()? },
            unknown => return Err(WireError::UnknownKind(unknown)),
        };
        body.end()?;
        Ok(frame)
    }

    /// Decodes a node's frame.
    ///
    /// # Errors
    /// If it isn't one.
    pub fn from_node(self) -> Result<FromNode<'a>, WireError> {
        let mut body = Body { kind: self.kind, rest: self.body };
        let frame = match self.kind {
            RESPONSE => {
                let id = body.u64()?;
                let (status, detail) = (body.u8()?, body.u64()?);
                let outcome = Outcome::from_wire(status, detail).ok_or_else(|| body.bad_value())?;
                FromNode::Response { id, outcome, reply: body.take_rest() }
            }
            TABLE => FromNode::Table(body.take_rest()),
            MAP_OPENED => FromNode::MapOpened { id: body.u64()?, map: MapId(body.u16()?) },
            PONG => FromNode::Pong { id: body.u64()? },
            unknown => return Err(WireError::UnknownKind(unknown)),
        };
        body.end()?;
        Ok(frame)
    }
}

/// Appends a request frame. `args` may hold at most [`ARGS_MAX`] arguments, and the frame must fit
/// the node's frame limit; [`request_bytes`] tells.
pub fn encode_request(out: &mut Vec<u8>, head: &RequestHead, args: &[&[u8]]) {
    debug_assert!(args.len() <= ARGS_MAX);
    out.reserve(request_bytes(args));
    framed(out, REQUEST, |out| {
        out.extend_from_slice(&head.id.to_le_bytes());
        out.extend_from_slice(&head.map.0.to_le_bytes());
        let partition = head.partition.map_or(NO_PARTITION, |partition| partition.0);
        out.extend_from_slice(&partition.to_le_bytes());
        match head.exactly_once {
            None => out.push(0),
            Some(tag) => {
                out.push(1);
                out.extend_from_slice(&tag.client.0.to_le_bytes());
                out.extend_from_slice(&tag.request.to_le_bytes());
                out.extend_from_slice(&tag.acknowledged_below.to_le_bytes());
                out.extend_from_slice(&tag.age_ms.to_le_bytes());
            }
        }
        out.extend_from_slice(&(args.len() as u32).to_le_bytes());
        for arg in args {
            out.extend_from_slice(&(arg.len() as u32).to_le_bytes());
            out.extend_from_slice(arg);
        }
    });
}

/// An upper bound of the bytes [`encode_request`] appends.
pub fn request_bytes(args: &[&[u8]]) -> usize {
    const FIXED: usize = LENGTH_BYTES + 1 + 8 + 2 + 2 + 1 + 28 + 4;
    args.iter().fold(FIXED, |sum, arg| sum.saturating_add(4).saturating_add(arg.len()))
}

impl ToNode<'_> {
    /// Appends this frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ToNode::Request(request) => encode_request(out, &request.head, &request.args),
            ToNode::TableRequest => framed(out, TABLE_REQUEST, |_| ()),
            ToNode::OpenMap { id, name, defaults } => framed(out, OPEN_MAP, |out| {
                for number in [*id, defaults.ttl_ms, defaults.idle_ms, defaults.bytes_max] {
                    out.extend_from_slice(&number.to_le_bytes());
                }
                out.extend_from_slice(name.as_bytes());
            }),
            ToNode::Ping { id } => framed(out, PING, |out| out.extend_from_slice(&id.to_le_bytes())),
        }
    }
}

impl FromNode<'_> {
    /// Appends this frame.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            FromNode::Response { id, outcome, reply } => framed(out, RESPONSE, |out| {
                let (status, detail) = outcome.to_wire();
                out.extend_from_slice(&id.to_le_bytes());
                out.push(status);
                out.extend_from_slice(&detail.to_le_bytes());
                out.extend_from_slice(reply);
            }),
            FromNode::Table(view) => framed(out, TABLE, |out| out.extend_from_slice(view)),
            FromNode::MapOpened { id, map } => framed(out, MAP_OPENED, |out| {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&map.0.to_le_bytes());
            }),
            FromNode::Pong { id } => framed(out, PONG, |out| out.extend_from_slice(&id.to_le_bytes())),
        }
    }
}

impl Outcome {
    fn to_wire(self) -> (u8, u64) {
        match self {
            Outcome::Ok => (0, 0),
            Outcome::TryAgain { retry_ms } => (1, u64::from(retry_ms)),
            Outcome::Moved { table_version } => (2, table_version.0),
            Outcome::InDoubt => (3, 0),
            Outcome::Refused(refusal) => (4, refusal.to_wire()),
        }
    }

    fn from_wire(status: u8, detail: u64) -> Option<Outcome> {
        Some(match status {
            0 => Outcome::Ok,
            1 => Outcome::TryAgain { retry_ms: u32::try_from(detail).ok()? },
            2 => Outcome::Moved { table_version: TableVersion(detail) },
            3 => Outcome::InDoubt,
            4 => Outcome::Refused(Refusal::from_wire(detail)?),
            _ => return None,
        })
    }
}

impl Refusal {
    fn to_wire(self) -> u64 {
        match self {
            Refusal::NoReplicas => 1,
            Refusal::ClusterDown => 2,
            Refusal::UnknownMap => 3,
            Refusal::MapRefused => 4,
            Refusal::TooLarge => 5,
            Refusal::ShuttingDown => 6,
            Refusal::Forgotten => 7,
        }
    }

    fn from_wire(detail: u64) -> Option<Refusal> {
        Some(match detail {
            1 => Refusal::NoReplicas,
            2 => Refusal::ClusterDown,
            3 => Refusal::UnknownMap,
            4 => Refusal::MapRefused,
            5 => Refusal::TooLarge,
            6 => Refusal::ShuttingDown,
            7 => Refusal::Forgotten,
            _ => return None,
        })
    }
}

/// Appends a frame whose length is filled in once its body is written.
fn framed(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind]);
    body(out);
    let length = (out.len() - start - LENGTH_BYTES) as u32;
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

/// What is left of a frame's body while it is decoded.
struct Body<'a> {
    kind: u8,
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (array, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Length(self.kind))?;
        self.rest = rest;
        Ok(*array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Length(self.kind))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn bad_value(&self) -> WireError {
        WireError::Value(self.kind)
    }

    fn end(&self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Length(self.kind)) }
    }

    fn request(&mut self) -> Result<Request<'a>, WireError> {
        let id = self.u64()?;
        let map = MapId(self.u16()?);
        let partition = Some(self.u16()?).filter(|&partition| partition != NO_PARTITION);
        let exactly_once = match self.u8()? {
            0 => None,
            1 => Some(RequestTag {
                client: ClientId(self.u64()?),
                request: self.u64()?,
                acknowledged_below: self.u64()?,
                age_ms: self.u32()?,
            }),
            _ => return Err(self.bad_value()),
        };
        if exactly_once.is_some_and(|tag| tag.acknowledged_below > tag.request) {
            return Err(self.bad_value());
        }
        let count = self.u32()? as usize;
        if count == 0 || count > ARGS_MAX {
            return Err(self.bad_value());
        }
        // Each argument takes four bytes at least, so the count is bounded by what has arrived.
        if count > self.rest.len() / 4 {
            return Err(WireError::Length(self.kind));
        }
        let mut args = Args::with_capacity(count);
        for _ in 0..count {
            args.push(self.bytes()?);
        }
        let head = RequestHead { id, map, partition: partition.map(PartitionId), exactly_once };
        Ok(Request { head, args })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const FRAME_BYTES_MAX: usize = 1 << 20;

    fn decode_all(input: &[u8]) -> Result<Vec<RawFrame<'_>>, WireError> {
        let mut frames = Vec::new();
        let mut rest = input;
        while let Some((frame, taken)) = split(rest, FRAME_BYTES_MAX)? {
            frames.push(frame);
            rest = &rest[taken..];
        }
        Ok(frames)
    }

    fn tag() -> impl Strategy<Value = RequestTag> {
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(client, a, b, age_ms)| {
            RequestTag { client: ClientId(client), request: a.max(b), acknowledged_below: a.min(b), age_ms }
        })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Ok),
            any::<u32>().prop_map(|retry_ms| Outcome::TryAgain { retry_ms }),
            any::<u64>().prop_map(|version| Outcome::Moved { table_version: TableVersion(version) }),
            Just(Outcome::InDoubt),
            (1u64..=7).prop_map(|code| Outcome::Refused(Refusal::from_wire(code).expect("known"))),
        ]
    }

    proptest! {
        #[test]
        fn requests_come_back(
            id: u64, map: u16, partition in proptest::option::of(0u16..16_384),
            exactly_once in proptest::option::of(tag()),
            args in vec(vec(any::<u8>(), 0..40), 1..20),
        ) {
            let head = RequestHead {
                id, map: MapId(map), partition: partition.map(PartitionId), exactly_once,
            };
            let mut bytes = Vec::new();
            let borrowed: Args<'_> = args.iter().map(Vec::as_slice).collect();
            encode_request(&mut bytes, &head, &borrowed);
            prop_assert!(bytes.len() <= request_bytes(&borrowed));
            ToNode::Ping { id }.encode(&mut bytes);
            let frames = decode_all(&bytes).unwrap();
            prop_assert_eq!(frames.len(), 2);
            prop_assert_eq!(
                frames[0].to_node(), Ok(ToNode::Request(Request { head, args: borrowed }))
            );
            prop_assert_eq!(frames[1].to_node(), Ok(ToNode::Ping { id }));
        }

        #[test]
        fn responses_come_back(id: u64, outcome in outcome(), reply in vec(any::<u8>(), 0..60)) {
            let mut bytes = Vec::new();
            let response = FromNode::Response { id, outcome, reply: &reply };
            response.encode(&mut bytes);
            FromNode::Table(&reply).encode(&mut bytes);
            FromNode::MapOpened { id, map: MapId(7) }.encode(&mut bytes);
            let frames = decode_all(&bytes).unwrap();
            prop_assert_eq!(frames[0].from_node(), Ok(response));
            prop_assert_eq!(frames[1].from_node(), Ok(FromNode::Table(&reply)));
            prop_assert_eq!(frames[2].from_node(), Ok(FromNode::MapOpened { id, map: MapId(7) }));
        }

        #[test]
        fn hostile_bytes_never_panic(kind: u8, body in vec(any::<u8>(), 0..200)) {
            let mut bytes = ((body.len() + 1) as u32).to_le_bytes().to_vec();
            bytes.push(kind);
            bytes.extend_from_slice(&body);
            if let Ok(Some((frame, _))) = split(&bytes, FRAME_BYTES_MAX) {
                let _ = frame.to_node();
                let _ = frame.from_node();
            }
            let _ = decode_all(&body);
        }

        #[test]
        fn a_damaged_request_never_panics(at: proptest::sample::Index, byte: u8, cut: proptest::sample::Index) {
            let head = RequestHead { id: 1, map: MapId(0), partition: None, exactly_once: None };
            let mut bytes = Vec::new();
            encode_request(&mut bytes, &head, &[b"SET", b"key", b"value"]);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(frames) = decode_all(&bytes) {
                for frame in frames {
                    let _ = frame.to_node();
                }
            }
        }
    }

    #[test]
    fn a_long_frame_is_refused_before_it_arrives() {
        let claim = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes();
        assert!(matches!(split(&claim, FRAME_BYTES_MAX), Err(WireError::FrameTooLong { .. })));
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused() {
        let mut bytes = Vec::new();
        let head = RequestHead { id: 1, map: MapId(0), partition: None, exactly_once: None };
        encode_request(&mut bytes, &head, &[b"PING"]);
        // The frame ends with the count, the length of the argument and its four bytes.
        let count_at = bytes.len() - 12;
        bytes[count_at..count_at + 4].copy_from_slice(&(ARGS_MAX as u32).to_le_bytes());
        let (frame, _) = split(&bytes, FRAME_BYTES_MAX).unwrap().unwrap();
        assert_eq!(frame.to_node(), Err(WireError::Length(REQUEST)));
    }
}
