//! Where nodes live, and what can be done to the network between them.

use super::namespaces::Namespaces;
use super::relay::{Relays, Rules};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

pub const RESP_PORT: u16 = 6379;
pub const QUIC_PORT: u16 = 7379;
pub const ADMIN_PORT: u16 = 9379;
/// Where a node's relay listens, if it has one.
const RELAY_PORT: u16 = 7380;

/// The secret of nodes that aren't on loopback. Nobody else can reach them.
pub const SECRET: &str = "a secret of a network that is gone in a minute";

/// What kind of network a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Any; nothing is done to it.
    Any,
    /// Cuts: namespaces if we may make them, else relays.
    Cuts,
    /// Loss, delay and doubling: relays.
    Relays,
}

/// The network of one cluster.
pub enum Network {
    /// Addresses of loopback, with relays between them or without.
    Loopback { subnet: [u8; 3], relays: Option<Relays> },
    /// A namespace for each node.
    Namespaces(Namespaces),
}

impl Network {
    /// A network for up to `count` nodes.
    pub fn make(need: Need, count: usize) -> Network {
        if need != Need::Relays {
            match Namespaces::make(count) {
                Ok(made) => return Network::Namespaces(made),
                Err(reason) => eprintln!("no network namespaces ({reason}); on loopback then"),
            }
        }
        // Two runs at once shouldn't meet; one alone may have any.
        let [_, a, b, _] = rand::random::<[u8; 4]>();
        let mut network = Network::Loopback { subnet: [127, a | 1, b], relays: None };
        if need != Need::Any {
            let at = |port| (0..count).map(|place| network.socket(place, port)).collect::<Vec<_>>();
            let started = Relays::start(at(RELAY_PORT), at(QUIC_PORT));
            if let Network::Loopback { relays, .. } = &mut network {
                *relays = Some(started);
            }
        }
        network
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Network::Loopback { relays: None, .. } => "loopback",
            Network::Loopback { relays: Some(_), .. } => "loopback with relays",
            Network::Namespaces(_) => "namespaces",
        }
    }

    fn address(&self, place: usize) -> IpAddr {
        match self {
            Network::Loopback { subnet: [a, b, c], .. } => Ipv4Addr::new(*a, *b, *c, place as u8 + 1).into(),
            Network::Namespaces(namespaces) => namespaces.address(place),
        }
    }

    fn socket(&self, place: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(place), port)
    }

    /// The flags that put a node at its place.
    pub fn flags(&self, place: usize) -> Vec<String> {
        let mut flags = Vec::new();
        for (door, port) in [("--resp", RESP_PORT), ("--quic", QUIC_PORT), ("--admin", ADMIN_PORT)] {
            flags.extend([door.to_owned(), self.socket(place, port).to_string()]);
        }
        if let Network::Loopback { relays: Some(_), .. } = self {
            flags.extend(["--advertise".to_owned(), self.seed(place)]);
        }
        flags
    }

    /// Where others and QUIC clients reach a node.
    pub fn seed(&self, place: usize) -> String {
        let relayed = matches!(self, Network::Loopback { relays: Some(_), .. });
        self.socket(place, if relayed { RELAY_PORT } else { QUIC_PORT }).to_string()
    }

    /// Lets a node's command run at its place.
    pub fn enter(&self, place: usize, command: &mut Command) {
        command.env("RINGDOVE_SECRET", SECRET);
        if let Network::Namespaces(namespaces) = self {
            namespaces.enter(place, command);
        }
    }

    /// Cuts exactly these directed pairs.
    ///
    /// # Errors
    /// What the system says.
    ///
    /// # Panics
    /// If the network was made without relays.
    pub fn cut(&self, is_cut: impl Fn(usize, usize) -> bool) -> Result<(), String> {
        match self {
            Network::Namespaces(namespaces) => namespaces.set_cuts(is_cut),
            Network::Loopback { relays, .. } => {
                let all = || (0..256).map(|pair| (pair / 16, pair % 16));
                let cuts = all().filter(|&(from, to)| from != to && is_cut(from, to)).collect();
                relays.as_ref().expect("asked for").set(|rules| rules.cuts = cuts);
                Ok(())
            }
        }
    }

    /// Changes what happens to packets.
    ///
    /// # Panics
    /// If the network was made without relays.
    pub fn relay(&self, change: impl FnOnce(&mut Rules)) {
        let Network::Loopback { relays: Some(relays), .. } = self else { panic!("a network without relays") };
        relays.set(change);
    }
}
