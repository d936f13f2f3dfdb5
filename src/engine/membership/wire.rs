//! The bytes of a membership datagram.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | format, [`FORMAT`]; anything else is refused |
//! | 1 | kind: 0 SWIM message, 1 state exchange that asks for an answer, 2 one that doesn't |
//! | 2..10 | incarnation of the cluster, little-endian; 0 is "not known yet" |
//! | 10.. | SWIM: what foca wrote. Exchange: the sender's [`GossipId`], then members to the end |

use super::identity::GossipId;
use crate::engine::ids::Incarnation;
use bytes::{BufMut, Bytes, BytesMut};
use foca::{Header, Member, Message};

/// The largest datagram sent or accepted: fits into a QUIC datagram on every path.
pub const DATAGRAM_BYTES_MAX: usize = 1_200;

/// Format of the datagrams; the high half is a magic, the low half the version.
const FORMAT: u8 = 0xA1;
const HEADER_BYTES: usize = 10;
/// What is left for foca's message.
pub(super) const SWIM_BYTES_MAX: usize = DATAGRAM_BYTES_MAX - HEADER_BYTES;

/// A datagram, decoded and checked for form.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    pub(super) incarnation: Incarnation,
    pub(super) body: Body<'a>,
}

/// What a datagram carries.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// A message of foca, still to be given to it, and what it says.
    Swim {
        /// As foca wrote it.
        bytes: &'a [u8],
        /// From whom, to whom, what.
        header: Header<GossipId>,
        /// The news that came with it.
        updates: Vec<Member<GossipId>>,
    },
    /// A part of the sender's whole state.
    Exchange {
        /// The sender.
        from: GossipId,
        /// Whether it wants our state in return.
        answer_wanted: bool,
        /// The members.
        members: Vec<Member<GossipId>>,
    },
}

impl Datagram<'_> {
    /// Decodes a datagram. `None` if it isn't one, to the last byte.
    pub(super) fn decode(bytes: &[u8]) -> Option<Datagram<'_>> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return None;
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let (&[format, kind], incarnation) = header.split_first_chunk::<2>()?;
        let incarnation = Incarnation(u64::from_le_bytes(incarnation.try_into().ok()?));
        let body = match (format, kind) {
            (FORMAT, 0) => decode_swim(rest)?,
            (FORMAT, 1 | 2) => decode_exchange(rest, kind == 1)?,
            _ => return None,
        };
        Some(Datagram { incarnation, body })
    }
}

fn decode_swim(bytes: &[u8]) -> Option<Body<'_>> {
    let (header, rest) = postcard::take_from_bytes::<Header<GossipId>>(bytes).ok()?;
    let carries_news =
        !matches!(header.message, Message::Announce | Message::TurnUndead | Message::Broadcast);
    let updates = match rest.split_first_chunk::<2>() {
        Some((count, rest)) if carries_news => {
            let updates = decode_members(rest)?;
            (updates.len() == usize::from(u16::from_be_bytes(*count))).then_some(updates)?
        }
        _ if rest.is_empty() => Vec::new(),
        _ => return None,
    };
    Some(Body::Swim { bytes, header, updates })
}

fn decode_exchange(bytes: &[u8], answer_wanted: bool) -> Option<Body<'_>> {
    let (from, rest) = postcard::take_from_bytes::<GossipId>(bytes).ok()?;
    Some(Body::Exchange { from, answer_wanted, members: decode_members(rest)? })
}

/// Members to the end of the bytes. Their number is bounded by the datagram's length.
fn decode_members(mut bytes: &[u8]) -> Option<Vec<Member<GossipId>>> {
    let mut members = Vec::new();
    while !bytes.is_empty() {
        let (member, rest) = postcard::take_from_bytes::<Member<GossipId>>(bytes).ok()?;
        members.push(member);
        bytes = rest;
    }
    Some(members)
}

fn envelope(incarnation: Incarnation, kind: u8) -> BytesMut {
    let mut datagram = BytesMut::with_capacity(DATAGRAM_BYTES_MAX);
    datagram.put_u8(FORMAT);
    datagram.put_u8(kind);
    datagram.put_u64_le(incarnation.0);
    datagram
}

/// Wraps a message that foca wrote.
pub(super) fn encode_swim(incarnation: Incarnation, message: &[u8]) -> Bytes {
    debug_assert!(message.len() <= SWIM_BYTES_MAX);
    let mut datagram = envelope(incarnation, 0);
    datagram.put_slice(message);
    datagram.freeze()
}

/// Encodes a state exchange into as many datagrams as it takes, at least one. Only the first asks
/// for an answer.
pub(super) fn encode_exchange<'m>(
    incarnation: Incarnation,
    from: GossipId,
    answer_wanted: bool,
    members: impl Iterator<Item = &'m Member<GossipId>>,
) -> Vec<Bytes> {
    let begin = |kind: u8| {
        let mut datagram = envelope(incarnation, kind);
        datagram.put_slice(&encoded(&from));
        datagram
    };
    let mut datagrams = Vec::new();
    let mut datagram = begin(if answer_wanted { 1 } else { 2 });
    for member in members {
        let bytes = encoded(member);
        if datagram.len() + bytes.len() > DATAGRAM_BYTES_MAX {
            datagrams.push(std::mem::replace(&mut datagram, begin(2)).freeze());
        }
        datagram.put_slice(&bytes);
    }
    datagrams.push(datagram.freeze());
    datagrams
}

/// Identities and members are plain fields: encoding them into memory can't fail. Should it ever,
/// the empty bytes leave a datagram that says less.
fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let bytes = postcard::to_allocvec(value);
    debug_assert!(bytes.is_ok());
    bytes.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ids::NodeId;
    use foca::State;

    fn id(node: u64) -> GossipId {
        GossipId { node: NodeId(node), generation: 0, quic: ([127, 0, 0, 1], 7379).into() }
    }

    #[test]
    fn a_large_state_is_split_and_arrives_whole() {
        let members: Vec<_> = (0..200).map(|n| Member::new(id(n), n as u16, State::Suspect)).collect();
        let datagrams = encode_exchange(Incarnation(7), id(999), true, members.iter());
        assert!(datagrams.len() > 1);
        let mut arrived = Vec::new();
        for (i, bytes) in datagrams.iter().enumerate() {
            let datagram = Datagram::decode(bytes).expect("well-formed");
            assert_eq!(datagram.incarnation, Incarnation(7));
            let Body::Exchange { from, answer_wanted, members } = datagram.body else {
                panic!("not an exchange");
            };
            assert_eq!((from, answer_wanted), (id(999), i == 0));
            arrived.extend(members);
        }
        assert_eq!(arrived, members);
    }

    #[test]
    fn other_formats_kinds_and_leftovers_are_refused() {
        let good = encode_exchange(Incarnation(1), id(1), false, [].iter()).remove(0);
        assert!(Datagram::decode(&good).is_some());
        for (at, value) in [(0, 0xA2), (1, 3)] {
            let mut bad = good.to_vec();
            bad[at] = value;
            assert!(Datagram::decode(&bad).is_none());
        }
        let mut trailing = good.to_vec();
        trailing.push(0);
        assert!(Datagram::decode(&trailing).is_none());
        assert!(Datagram::decode(&good[..good.len() - 1]).is_none());
        assert!(Datagram::decode(&vec![FORMAT; DATAGRAM_BYTES_MAX + 1]).is_none());
    }
}
