//! The node's side of one client connection, as a pure state machine.
//!
//! Bytes go in ([`ClientSession::receive`]) and become calls of a [`ClientHost`]; outcomes come
//! back in any order ([`ClientSession::complete`]); bytes go out ([`ClientSession::take_output`]).
//! A driver is a loop around these:
//!
//! 1. while [`ClientSession::wants_input`], read from the stream and `receive`;
//! 2. when operations are done, `complete` each, then `receive(&[], …)` once: it takes up what had
//!    to wait for room;
//! 3. when the table changes, [`ClientSession::push_view`];
//! 4. after each of these, `take_output` and write it.
//!
//! When `wants_input` says no and the driver stops reading, QUIC's flow control stops the client.

use super::frame::{self, FromNode, Outcome, Request, ToNode, WireError};
use crate::engine::ids::MapId;
use crate::engine::table::MapDefaults;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An input buffer that grew beyond this is given back once it is empty, in bytes.
const RETAINED_BYTES_MAX: usize = 256 << 10;

/// Names an operation between a session and its host. Never used twice by a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a session may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// The longest frame accepted, in bytes. Bounds the largest value a client can write.
    pub frame_bytes_max: usize,
    /// Operations submitted and not yet complete.
    pub in_flight_max: usize,
    /// Bytes of the requests of those operations. One request is always let through.
    pub in_flight_bytes_max: usize,
    /// Bytes of replies not yet taken, beyond which no further request is begun.
    pub output_bytes_max: usize,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            frame_bytes_max: (64 << 20) + (1 << 20),
            in_flight_max: 4_096,
            in_flight_bytes_max: 8 << 20,
            output_bytes_max: 4 << 20,
        }
    }
}

/// Whom a session hands its client's wishes to.
pub trait ClientHost {
    /// Run a command. [`ClientSession::complete`] is owed for the ticket. The arguments live only
    /// as long as the call.
    fn submit(&mut self, ticket: Ticket, request: &Request<'_>);
    /// Find or define a map. [`ClientSession::map_opened`], or on failure
    /// [`ClientSession::complete`], is owed for the ticket.
    fn open_map(&mut self, ticket: Ticket, name: &str, defaults: MapDefaults);
    /// The encoded [`ClusterView`](super::view::ClusterView) of the table as it is now.
    fn view(&mut self) -> Arc<[u8]>;
}

/// One client connection.
#[derive(Debug)]
pub struct ClientSession {
    limits: SessionLimits,
    /// Bytes received and not yet taken up: the start of a frame, or frames that wait for room.
    input: Vec<u8>,
    output: Vec<u8>,
    /// A table to send with the next output; a newer one takes its place.
    view: Option<Arc<[u8]>>,
    in_flight: BTreeMap<Ticket, InFlight>,
    in_flight_bytes: usize,
    next_ticket: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    id: u64,
    bytes: usize,
}

impl ClientSession {
    /// A session on a fresh connection. The client is told the table first of all.
    pub fn new(limits: SessionLimits, view: Arc<[u8]>) -> ClientSession {
        ClientSession {
            limits,
            input: Vec::new(),
            output: Vec::new(),
            view: Some(view),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            next_ticket: 0,
        }
    }

    /// Takes bytes from the client and submits what is complete in them, as far as there is room.
    ///
    /// # Errors
    /// If the client breaks the protocol. The connection is to be closed; operations in flight may
    /// still be completed, to no effect.
    pub fn receive(&mut self, bytes: &[u8], host: &mut impl ClientHost) -> Result<(), WireError> {
        if self.input.is_empty() {
            let taken = self.take_up(bytes, host)?;
            self.input.extend_from_slice(&bytes[taken..]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(bytes);
            let taken = self.take_up(&input, host)?;
            input.drain(..taken);
            if !input.is_empty() || input.capacity() <= RETAINED_BYTES_MAX {
                self.input = input;
            }
        }
        Ok(())
    }

    /// Whether to read more from the client.
    pub fn wants_input(&self) -> bool {
        self.has_room()
    }

    /// Answers the operation of a ticket. `reply` is the RESP3 reply of [`Outcome::Ok`], else empty
    /// or an explanation. An unknown ticket is ignored.
    pub fn complete(&mut self, ticket: Ticket, outcome: Outcome, reply: &[u8]) {
        if let Some(id) = self.finish(ticket) {
            FromNode::Response { id, outcome, reply }.encode(&mut self.output);
        }
    }

    /// Answers [`ClientHost::open_map`]. An unknown ticket is ignored.
    pub fn map_opened(&mut self, ticket: Ticket, map: MapId) {
        if let Some(id) = self.finish(ticket) {
            FromNode::MapOpened { id, map }.encode(&mut self.output);
        }
    }

    /// Tells the client of a changed table.
    pub fn push_view(&mut self, view: Arc<[u8]>) {
        self.view = Some(view);
    }

    /// Moves what is to be written to the client into `out`, which is cleared first. The two
    /// buffers are swapped, so that a driver that passes the same one again allocates nothing.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        if let Some(view) = self.view.take() {
            FromNode::Table(&view).encode(&mut self.output);
        }
        out.clear();
        std::mem::swap(out, &mut self.output);
    }

    /// Operations submitted and not yet complete.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.limits.in_flight_max
            && self.in_flight_bytes < self.limits.in_flight_bytes_max
            && self.output.len() < self.limits.output_bytes_max
    }

    /// Submits the complete frames at the start of `input` while there is room; says how many
    /// bytes they took.
    fn take_up(&mut self, input: &[u8], host: &mut impl ClientHost) -> Result<usize, WireError> {
        let mut taken = 0;
        while self.has_room()
            && let Some((frame, bytes)) = frame::split(&input[taken..], self.limits.frame_bytes_max)?
        {
            taken += bytes;
            match frame.to_node()? {
                ToNode::Request(request) => {
                    let ticket = self.begin(request.head.id, bytes);
                    host.submit(ticket, &request);
                }
                ToNode::OpenMap { id, name, defaults } => {
                    let ticket = self.begin(id, bytes);
                    host.open_map(ticket, name, defaults);
                }
                ToNode::TableRequest => self.view = Some(host.view()),
                ToNode::Ping { id } => FromNode::Pong { id }.encode(&mut self.output),
            }
        }
        Ok(taken)
    }

    fn begin(&mut self, id: u64, bytes: usize) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.in_flight.insert(ticket, InFlight { id, bytes });
        self.in_flight_bytes += bytes;
        ticket
    }

    fn finish(&mut self, ticket: Ticket) -> Option<u64> {
        let done = self.in_flight.remove(&ticket)?;
        self.in_flight_bytes -= done.bytes;
        Some(done.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::client_wire::frame::{RequestHead, encode_request};
    use proptest::prelude::*;

    #[derive(Default)]
    struct Recorder {
        submitted: Vec<(Ticket, Vec<Vec<u8>>)>,
        opened: Vec<(Ticket, String)>,
    }

    impl ClientHost for Recorder {
        fn submit(&mut self, ticket: Ticket, request: &Request<'_>) {
            self.submitted.push((ticket, request.args.iter().map(|arg| arg.to_vec()).collect()));
        }
        fn open_map(&mut self, ticket: Ticket, name: &str, _defaults: MapDefaults) {
            self.opened.push((ticket, name.to_owned()));
        }
        fn view(&mut self) -> Arc<[u8]> {
            Arc::from(*b"asked")
        }
    }

    fn request(id: u64, args: &[&[u8]]) -> Vec<u8> {
        let head = RequestHead { id, map: MapId(0), partition: None, exactly_once: None };
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &head, args);
        bytes
    }

    fn session(limits: SessionLimits) -> ClientSession {
        ClientSession::new(limits, Arc::from(*b"first"))
    }

    fn output(session: &mut ClientSession) -> Vec<u8> {
        let mut out = Vec::new();
        session.take_output(&mut out);
        out
    }

    fn expected(frames: &[FromNode<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        bytes
    }

    #[test]
    fn replies_leave_in_the_order_of_completion() {
        let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
        assert_eq!(output(&mut session), expected(&[FromNode::Table(b"first")]));
        let bytes = [request(7, &[b"GET", b"a"]), request(8, &[b"GET", b"b"])].concat();
        session.receive(&bytes, &mut host).unwrap();
        let tickets: Vec<Ticket> = host.submitted.iter().map(|(ticket, _)| *ticket).collect();
        session.complete(tickets[1], Outcome::Ok, b"+b\r\n");
        session.complete(tickets[0], Outcome::InDoubt, b"");
        session.complete(tickets[0], Outcome::Ok, b"again");
        let first = FromNode::Response { id: 8, outcome: Outcome::Ok, reply: b"+b\r\n" };
        let second = FromNode::Response { id: 7, outcome: Outcome::InDoubt, reply: b"" };
        assert_eq!(output(&mut session), expected(&[first, second]));
        assert_eq!(session.in_flight(), 0);
    }

    #[test]
    fn what_has_no_room_waits_for_it() {
        let limits = SessionLimits { in_flight_max: 2, ..SessionLimits::default() };
        let (mut session, mut host) = (session(limits), Recorder::default());
        let bytes: Vec<u8> = (0..5).flat_map(|id| request(id, &[b"PING"])).collect();
        session.receive(&bytes, &mut host).unwrap();
        assert_eq!(host.submitted.len(), 2);
        assert!(!session.wants_input());
        let mut done = 0;
        while done < host.submitted.len() {
            session.complete(host.submitted[done].0, Outcome::Ok, b"+PONG\r\n");
            session.receive(&[], &mut host).unwrap();
            assert!(session.in_flight() <= 2);
            done += 1;
        }
        assert_eq!(done, 5);
        assert!(session.wants_input());
    }

    #[test]
    fn bytes_in_flight_and_unread_replies_stop_the_input() {
        let limits =
            SessionLimits { in_flight_bytes_max: 64, output_bytes_max: 32, ..SessionLimits::default() };
        let (mut session, mut host) = (session(limits), Recorder::default());
        session.receive(&request(1, &[b"SET", b"k", &[0; 100]]), &mut host).unwrap();
        assert_eq!(host.submitted.len(), 1, "one request is always let through");
        assert!(!session.wants_input());
        session.complete(host.submitted[0].0, Outcome::Ok, &[b'x'; 64]);
        assert!(!session.wants_input(), "the reply has to be read first");
        output(&mut session);
        assert!(session.wants_input());
    }

    #[test]
    fn the_newest_table_is_sent_once() {
        let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
        session.push_view(Arc::from(*b"second"));
        assert_eq!(output(&mut session), expected(&[FromNode::Table(b"second")]));
        let mut bytes = Vec::new();
        ToNode::TableRequest.encode(&mut bytes);
        ToNode::TableRequest.encode(&mut bytes);
        session.receive(&bytes, &mut host).unwrap();
        assert_eq!(output(&mut session), expected(&[FromNode::Table(b"asked")]));
        assert_eq!(output(&mut session), b"");
    }

    #[test]
    fn maps_are_opened_and_pings_answered() {
        let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
        output(&mut session);
        let mut bytes = Vec::new();
        ToNode::OpenMap { id: 3, name: "sessions", defaults: MapDefaults::default() }.encode(&mut bytes);
        ToNode::Ping { id: 4 }.encode(&mut bytes);
        session.receive(&bytes, &mut host).unwrap();
        assert_eq!(host.opened[0].1, "sessions");
        session.map_opened(host.opened[0].0, MapId(5));
        let frames = [FromNode::Pong { id: 4 }, FromNode::MapOpened { id: 3, map: MapId(5) }];
        assert_eq!(output(&mut session), expected(&frames));
    }

    #[test]
    fn a_broken_client_is_an_error() {
        let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
        assert_eq!(session.receive(&[1, 0, 0, 0, 99], &mut host), Err(WireError::UnknownKind(99)));
    }

    proptest! {
        #[test]
        fn pieces_mean_the_same_as_the_whole(cuts in proptest::collection::vec(1usize..40, 0..40)) {
            let whole: Vec<u8> =
                (0..20u64).flat_map(|id| request(id, &[b"SET", &id.to_le_bytes(), b"v"])).collect();
            let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
            let mut rest = &whole[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                session.receive(piece, &mut host).unwrap();
                rest = tail;
            }
            session.receive(rest, &mut host).unwrap();
            prop_assert_eq!(host.submitted.len(), 20);
            for (id, (_, args)) in host.submitted.iter().enumerate() {
                prop_assert_eq!(&args[1][..], &(id as u64).to_le_bytes());
            }
        }

        #[test]
        fn hostile_bytes_never_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..10)) {
            let (mut session, mut host) = (session(SessionLimits::default()), Recorder::default());
            for piece in pieces {
                if session.receive(&piece, &mut host).is_err() {
                    break;
                }
            }
        }
    }
}
