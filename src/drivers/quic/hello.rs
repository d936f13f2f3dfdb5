//! The hello: what each side says of itself when a connection opens.
//!
//! On the wire: a length (u16, little-endian) and that many bytes of postcard. The version range
//! comes first and later versions only append fields, so that any two versions can read each
//! other's range and agree or part with a reason.

use crate::drivers::pki::Role;
use crate::engine::ids::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The oldest protocol version this build speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// The newest protocol version this build speaks.
pub const PROTOCOL_MAX: u16 = 1;
/// The longest hello accepted, in bytes.
pub const HELLO_BYTES_MAX: usize = 1_024;
/// The longest name in a hello, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// What each side says of itself when a connection opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version spoken.
    pub protocol_min: u16,
    /// The newest protocol version spoken.
    pub protocol_max: u16,
    /// As what the sender comes. Its certificate must allow it.
    pub role: Role,
    /// Who; for a client, a number it drew at random.
    pub node: NodeId,
    /// The cluster life the sender belongs to; 0 is none yet.
    pub incarnation: Incarnation,
    /// Where the sender can be dialled; meaningless for a client.
    pub quic: SocketAddr,
    /// The human's name for the sender, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Whom the dialler wants; anybody else hangs up at once.
    pub expects: Option<NodeId>,
    /// The sender's wall clock, in milliseconds since the Unix epoch; 0 of a client.
    pub wall_ms: u64,
}

/// Why a hello is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Not a hello.
    #[error("malformed hello")]
    Malformed,
    /// The version ranges don't meet.
    #[error("protocol versions {min} to {max}, we speak {PROTOCOL_MIN} to {PROTOCOL_MAX}")]
    Version {
        /// The oldest version of the other side.
        min: u16,
        /// The newest version of the other side.
        max: u16,
    },
}

impl Hello {
    /// The newest version both sides speak; `None` if there is none.
    pub fn common_version(&self, other: &Hello) -> Option<u16> {
        common_version((self.protocol_min, self.protocol_max), (other.protocol_min, other.protocol_max))
    }

    /// The bytes to send, length included.
    pub fn encode(&self) -> Vec<u8> {
        // Only the name has no fixed bound, and whoever sets it bounds it; an oversize hello
        // would be refused by the peer.
        let mut bytes = vec![0; 2];
        let body = postcard::to_stdvec(self).unwrap_or_default();
        bytes[..2].copy_from_slice(&(body.len().min(HELLO_BYTES_MAX) as u16).to_le_bytes());
        bytes.extend_from_slice(&body[..body.len().min(HELLO_BYTES_MAX)]);
        bytes
    }

    /// Reads a hello of the bytes that follow its length. Bytes after it are a later version's.
    ///
    /// # Errors
    /// [`HelloError`]; the version is judged even if the rest can't be read.
    pub fn decode(body: &[u8]) -> Result<Hello, HelloError> {
        let malformed = |_| HelloError::Malformed;
        let ((min, max), _) = postcard::take_from_bytes::<(u16, u16)>(body).map_err(malformed)?;
        if common_version((min, max), (PROTOCOL_MIN, PROTOCOL_MAX)).is_none() {
            return Err(HelloError::Version { min, max });
        }
        let (hello, _) = postcard::take_from_bytes::<Hello>(body).map_err(malformed)?;
        if hello.name.len() > NAME_BYTES_MAX {
            return Err(HelloError::Malformed);
        }
        Ok(hello)
    }
}

fn common_version(a: (u16, u16), b: (u16, u16)) -> Option<u16> {
    let (min, max) = (a.0.max(b.0), a.1.min(b.1));
    (min <= max).then_some(max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hello() -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            role: Role::Node,
            node: NodeId(0x1234_5678_9abc_def0),
            incarnation: Incarnation(3),
            quic: "[::1]:7379".parse().unwrap(),
            name: "a".repeat(NAME_BYTES_MAX),
            expects: Some(NodeId(7)),
            wall_ms: u64::MAX,
        }
    }

    #[test]
    fn a_hello_round_trips_and_ignores_what_follows() {
        let mut bytes = hello().encode();
        assert!(bytes.len() <= 2 + HELLO_BYTES_MAX);
        assert_eq!(usize::from(u16::from_le_bytes([bytes[0], bytes[1]])), bytes.len() - 2);
        bytes.extend_from_slice(b"a field of the future");
        assert_eq!(Hello::decode(&bytes[2..]), Ok(hello()));
    }

    #[test]
    fn versions_that_do_not_meet_are_named() {
        let mut later = hello();
        (later.protocol_min, later.protocol_max) = (PROTOCOL_MAX + 1, PROTOCOL_MAX + 2);
        let mut body = later.encode().split_off(2);
        body.truncate(4);
        let refused = HelloError::Version { min: PROTOCOL_MAX + 1, max: PROTOCOL_MAX + 2 };
        assert_eq!(Hello::decode(&body), Err(refused));
        assert_eq!(hello().common_version(&later), None);
        assert_eq!(common_version((1, 3), (2, 5)), Some(3));
    }

    #[test]
    fn a_name_beyond_its_bound_is_refused() {
        let mut long = hello();
        long.name.push('a');
        assert_eq!(Hello::decode(&long.encode()[2..]), Err(HelloError::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Hello::decode(&bytes);
        }
    }
}
