//! The line that a node prints when it serves, for programs that start nodes.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// Who is ready, and where. Printed as
/// `ringdove ready node=… name=… resp=… quic=… admin=…`; fields may be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
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

const PREFIX: &str = "ringdove ready ";

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ready { node, name, resp, quic, admin } = self;
        write!(f, "{PREFIX}node={node} name={name} resp={resp} quic={quic} admin={admin}")
    }
}

/// The line is another one.
#[derive(Debug, PartialEq, Eq)]
pub struct NotReady;

impl FromStr for Ready {
    type Err = NotReady;

    fn from_str(line: &str) -> Result<Ready, NotReady> {
        let fields = line.trim().strip_prefix(PREFIX).ok_or(NotReady)?;
        let field = |key: &str| {
            let mut pairs = fields.split(' ').filter_map(|field| field.split_once('='));
            pairs.find(|(name, _)| *name == key).map(|(_, value)| value).ok_or(NotReady)
        };
        let address = |key| field(key)?.parse().map_err(|_| NotReady);
        Ok(Ready {
            node: field("node")?.to_owned(),
            name: field("name")?.to_owned(),
            resp: address("resp")?,
            quic: address("quic")?,
            admin: address("admin")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn can_be_read_back() {
        let ready = Ready {
            node: "00000000000000ab".to_owned(),
            name: "dove-1".to_owned(),
            resp: "127.0.0.1:6379".parse().unwrap(),
            quic: "[::1]:7379".parse().unwrap(),
            admin: "127.0.0.1:9379".parse().unwrap(),
        };
        assert_eq!(format!("{ready} later=field\n").parse(), Ok(ready));
        assert_eq!("listening on 127.0.0.1".parse::<Ready>(), Err(NotReady));
        assert_eq!("ringdove ready node=1".parse::<Ready>(), Err(NotReady));
    }
}
