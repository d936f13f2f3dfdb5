//! The lines that a node prints when it listens and when it serves, for programs that start nodes.

use ringdove::drivers::node::serve::Addresses;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Where a node listens. Printed as `ringdove listening node=… name=… resp=… quic=… admin=…` as
/// soon as it does, and with `ready` for `listening` once it is a member and serves. Fields may be
/// added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The node's id.
    pub node: String,
    /// Its name for people.
    pub name: String,
    /// Where Redis clients connect.
    pub resp: SocketAddr,
    /// Where peers and QUIC clients connect.
    pub quic: SocketAddr,
    /// Where the admin server listens.
    pub admin: SocketAddr,
}

const LISTENING: &str = "ringdove listening ";
const READY: &str = "ringdove ready ";

impl Listening {
    /// The node's addresses.
    pub fn of(addresses: &Addresses) -> Listening {
        let Addresses { node, name, quic, resp, admin } = addresses.clone();
        Listening { node: node.to_string(), name, resp, quic, admin }
    }

    /// The line that says that the node serves.
    pub fn ready(&self) -> String {
        format!("{READY}{}", self.fields())
    }

    fn fields(&self) -> String {
        let Listening { node, name, resp, quic, admin } = self;
        format!("node={node} name={name} resp={resp} quic={quic} admin={admin}")
    }
}

impl fmt::Display for Listening {
    /// The line that says that the node listens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{LISTENING}{}", self.fields())
    }
}

/// A ready line, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready(pub Listening);

/// The line is another one.
#[derive(Debug, PartialEq, Eq)]
pub struct NotReady;

impl FromStr for Ready {
    type Err = NotReady;

    fn from_str(line: &str) -> Result<Ready, NotReady> {
        let fields = line.trim().strip_prefix(READY).ok_or(NotReady)?;
        let field = |key: &str| {
            let mut pairs = fields.split(' ').filter_map(|field| field.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value).ok_or(NotReady)
        };
        let address = |key| field(key)?.parse().map_err(|_| NotReady);
        Ok(Ready(Listening {
            node: field("node")?.to_owned(),
            name: field("name")?.to_owned(),
            resp: address("resp")?,
            quic: address("quic")?,
            admin: address("admin")?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_read_back() {
        let at = Listening {
            node: "00000000000000ab".to_owned(),
            name: "dove-1".to_owned(),
            resp: "127.0.0.1:6379".parse().unwrap(),
            quic: "[::1]:7379".parse().unwrap(),
            admin: "127.0.0.1:9379".parse().unwrap(),
        };
        assert_eq!(format!("{} later=field\n", at.ready()).parse(), Ok(Ready(at.clone())));
        assert_eq!(at.to_string().parse::<Ready>(), Err(NotReady));
        assert_eq!("ringdove ready node=1".parse::<Ready>(), Err(NotReady));
    }
}
