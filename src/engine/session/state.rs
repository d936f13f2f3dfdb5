//! What the server remembers of a client.

use super::facts::{ClientInfo, ConnectionId};
use crate::engine::resp::Proto;
use crate::engine::time::Now;
use std::hint::black_box;
use std::net::SocketAddr;

/// Which commands get replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyMode {
    /// All.
    On,
    /// None.
    Off,
    /// All but the next.
    SkipNext,
}

/// What the server remembers of a client.
#[derive(Debug)]
pub struct Session {
    /// As CLIENT LIST shows it.
    pub(super) info: ClientInfo,
    pub(super) authenticated: bool,
    pub(super) replies: ReplyMode,
}

impl Session {
    /// A client that has just connected. It is authenticated unless `password` asks for more.
    pub(super) fn new(
        id: ConnectionId,
        remote: SocketAddr,
        local: SocketAddr,
        now: Now,
        password: Option<&[u8]>,
    ) -> Session {
        let info = ClientInfo {
            id,
            remote,
            local,
            name: String::new(),
            lib_name: String::new(),
            lib_version: String::new(),
            command: "NULL",
            proto: Proto::Resp2,
            no_evict: false,
            connected_at_us: now.mono_us,
            active_at_us: now.mono_us,
            input_bytes: 0,
            output_bytes: 0,
        };
        Session { info, authenticated: password.is_none(), replies: ReplyMode::On }
    }

    /// Which version of the protocol the client speaks.
    pub fn proto(&self) -> Proto {
        self.info.proto
    }

    /// Whether the client may run commands.
    pub fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    /// Whether the command that comes now gets a reply; takes note that it came.
    pub(super) fn hears_next(&mut self) -> bool {
        match self.replies {
            ReplyMode::On => true,
            ReplyMode::Off => false,
            ReplyMode::SkipNext => {
                self.replies = ReplyMode::On;
                false
            }
        }
    }

    /// RESET: back to how it was when it connected, but for the library's name.
    pub(super) fn reset(&mut self, password: Option<&[u8]>) {
        self.info.proto = Proto::Resp2;
        self.info.name.clear();
        self.info.no_evict = false;
        self.authenticated = password.is_none();
        self.replies = ReplyMode::On;
    }
}

/// Whether the two are equal, in a time that depends on the length of `given` only.
pub(super) fn same_secret(expected: &[u8], given: &[u8]) -> bool {
    let mut difference = u8::from(expected.len() != given.len());
    for (index, byte) in given.iter().enumerate() {
        let other = expected.get(index % expected.len().max(1)).copied().unwrap_or(0);
        difference = black_box(difference | (byte ^ other));
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::same_secret;

    #[test]
    fn only_the_same_secret_is_the_same() {
        assert!(same_secret(b"secret", b"secret"));
        assert!(!same_secret(b"secret", b"secreT"));
        assert!(!same_secret(b"secret", b"secretsecret"));
        assert!(!same_secret(b"secret", b"secre"));
        assert!(!same_secret(b"secret", b""));
        assert!(!same_secret(b"", b"x"));
    }
}
