//! Clients over QUIC: one [`ClientSession`] and one task a connection.

use super::{Door, NodeCore};
use crate::drivers::quic::ClientConnection;
use crate::engine::client_wire::frame::{Outcome, Refusal, Request};
use crate::engine::client_wire::session::{ClientHost, ClientSession, SessionLimits, Ticket as SessionTicket};
use crate::engine::client_wire::view::ClusterView;
use crate::engine::command::{self, Gather, Plan, Step};
use crate::engine::ids::MapId;
use crate::engine::node::Engine;
use crate::engine::op::{Op, Submitted, Ticket};
use crate::engine::partition::primary::ReplyBytes;
use crate::engine::resp::Proto;
use crate::engine::table::{MapDefaults, MapDefinition, Table};
use crate::engine::time::Now;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};

/// Serves the clients that the mesh accepts, until the node ends.
pub async fn accept(core: NodeCore, limits: SessionLimits, mut clients: mpsc::UnboundedReceiver<ClientConnection>) {
    while let Some(connection) = clients.recv().await {
        tokio::task::spawn_local(serve(core.clone(), limits, connection));
    }
}

/// The view of a table that clients get.
fn view_of(table: &Table) -> Arc<[u8]> {
    ClusterView::of(table).encode().into()
}

/// What a connection's task and the replies of its operations share.
struct ClientDoor {
    /// Replies that wait for the task.
    replies: RefCell<VecDeque<(u64, ReplyBytes)>>,
    wake: Notify,
}

impl Door for ClientDoor {
    fn complete(&self, number: u64, reply: ReplyBytes) {
        self.replies.borrow_mut().push_back((number, reply));
        self.wake.notify_one();
    }
}

async fn serve(core: NodeCore, limits: SessionLimits, connection: ClientConnection) {
    let ClientConnection { hello, addr, mut send, mut recv, connection } = connection;
    tracing::debug!(%addr, name = %hello.name, "client connected");
    let door = Rc::new(ClientDoor { replies: RefCell::new(VecDeque::new()), wake: Notify::new() });
    let number = core.open_door(|_| door.clone());
    let mut tables = core.tables();
    let first_view = view_of(&tables.borrow_and_update());
    let mut session = ClientSession::new(limits, first_view);
    let mut calls = Calls { door: number, next: 0, under_way: HashMap::new(), gathers: HashMap::new(), maps: BTreeMap::new() };
    let mut out = Vec::new();
    let result = loop {
        session.take_output(&mut out);
        if !out.is_empty() && send.write_all(&out).await.is_err() {
            break Ok(());
        }
        let input: &[u8];
        let chunk;
        tokio::select! {
            read = recv.read_chunk(256 << 10, true), if session.wants_input() => match read {
                Ok(Some(read)) => {
                    chunk = read.bytes;
                    input = &chunk;
                }
                _ => break Ok(()),
            },
            () = door.wake.notified() => input = &[],
            changed = tables.changed() => {
                if changed.is_err() {
                    break Ok(());
                }
                let table = tables.borrow_and_update().clone();
                session.push_view(view_of(&table));
                calls.open_maps(&table, &mut session);
                continue;
            }
        }
        let received = core.with(|engine, now| {
            let replies: Vec<_> = door.replies.borrow_mut().drain(..).collect();
            for (number, reply) in replies {
                calls.reply(engine, now, number, &reply, &mut session);
            }
            let mut host = Host { calls: &mut calls, engine, now, done: Vec::new() };
            let received = session.receive(input, &mut host);
            for (ticket, outcome, reply) in host.done {
                session.complete(ticket, outcome, &reply);
            }
            let table = engine.table().clone();
            calls.open_maps(&table, &mut session);
            received
        });
        if let Err(error) = received {
            break Err(error);
        }
    };
    core.close_door(number);
    if let Err(error) = result {
        tracing::warn!(%addr, %error, "client broke the protocol");
        ClientConnection::hang_up(&connection, "protocol error");
    }
}

/// The operations of one client that are under way.
struct Calls {
    door: u64,
    next: u64,
    under_way: HashMap<u64, Call>,
    gathers: HashMap<SessionTicket, Gathering>,
    /// Maps that clients wait for.
    maps: BTreeMap<String, Vec<SessionTicket>>,
}

/// A command in parts.
struct Gathering {
    gather: Box<Gather>,
    map: MapId,
}

impl Gathering {
    fn done(self, ticket: SessionTicket) -> Done {
        let mut reply = Vec::new();
        self.gather.write_reply(&mut reply);
        let (outcome, kept) = outcome_of(&reply);
        (ticket, outcome, kept.to_vec())
    }
}

enum Call {
    Whole(SessionTicket),
    Part(SessionTicket, u32),
}

type Done = (SessionTicket, Outcome, Vec<u8>);

impl Calls {
    fn ticket(&mut self, call: Call) -> Ticket {
        self.next += 1;
        self.under_way.insert(self.next, call);
        Ticket { door: self.door, number: self.next }
    }

    /// The reply of an operation that was pending.
    fn reply(&mut self, engine: &mut Engine, now: Now, number: u64, reply: &[u8], session: &mut ClientSession) {
        match self.under_way.remove(&number) {
            Some(Call::Whole(ticket)) => {
                let (outcome, reply) = outcome_of(reply);
                session.complete(ticket, outcome, reply);
            }
            Some(Call::Part(ticket, index)) => {
                if let Some((ticket, outcome, reply)) = self.part(engine, now, ticket, index, reply) {
                    session.complete(ticket, outcome, &reply);
                }
            }
            None => {}
        }
    }

    /// The reply of one part of a gathered command.
    fn part(&mut self, engine: &mut Engine, now: Now, ticket: SessionTicket, index: u32, reply: &[u8]) -> Option<Done> {
        let mut gathering = self.gathers.remove(&ticket)?;
        match gathering.gather.on_reply(index, reply) {
            Step::Done => Some(gathering.done(ticket)),
            Step::Wait => {
                self.gathers.insert(ticket, gathering);
                None
            }
            Step::Submit => self.gather(engine, now, ticket, gathering),
        }
    }

    /// Runs parts as far as they go; `Some` when the command is done.
    fn gather(&mut self, engine: &mut Engine, now: Now, session_ticket: SessionTicket, mut gathering: Gathering) -> Option<Done> {
        let mut out = Vec::new();
        if gathering.gather.is_done() {
            return Some(gathering.done(session_ticket));
        }
        loop {
            out.clear();
            let (index, number, submitted) = {
                let Some(sub) = gathering.gather.next_sub() else { break };
                let ticket = self.ticket(Call::Part(session_ticket, sub.index));
                let op = Op {
                    spec: sub.spec,
                    partition: sub.partition,
                    map: gathering.map,
                    proto: Proto::Resp3,
                    exactly_once: None,
                    args: &sub.args,
                };
                (sub.index, ticket.number, engine.submit(now, ticket, &op, &mut out))
            };
            if submitted == Submitted::Done {
                self.under_way.remove(&number);
                if gathering.gather.on_reply(index, &out) == Step::Done {
                    return Some(gathering.done(session_ticket));
                }
            }
        }
        self.gathers.insert(session_ticket, gathering);
        None
    }

    /// Answers those who wait for maps that the table now has.
    fn open_maps(&mut self, table: &Table, session: &mut ClientSession) {
        self.maps.retain(|name, tickets| match table.map_id(name) {
            Some(map) => {
                tickets.drain(..).for_each(|ticket| session.map_opened(ticket, map));
                false
            }
            None => true,
        });
    }
}

/// Splits an engine's reply into what the client protocol says of the outcome, and the reply.
fn outcome_of(reply: &[u8]) -> (Outcome, &[u8]) {
    let outcomes: [(&[u8], Outcome); 4] = [
        (b"-TRYAGAIN ", Outcome::TryAgain { retry_ms: 100 }),
        (b"-NOREPLICAS ", Outcome::Refused(Refusal::NoReplicas)),
        (b"-CLUSTERDOWN ", Outcome::Refused(Refusal::ClusterDown)),
        (b"-INDOUBT ", Outcome::InDoubt),
    ];
    match outcomes.into_iter().find(|(prefix, _)| reply.starts_with(prefix)) {
        Some((_, outcome)) => (outcome, reply[1..].trim_ascii_end()),
        None => (Outcome::Ok, reply),
    }
}

/// A session's wishes, carried out on the engine.
struct Host<'a> {
    calls: &'a mut Calls,
    engine: &'a mut Engine,
    now: Now,
    done: Vec<Done>,
}

impl Host<'_> {
    fn refuse(&mut self, ticket: SessionTicket, error: &str) {
        self.done.push((ticket, Outcome::Ok, format!("-{error}\r\n").into_bytes()));
    }
}

impl ClientHost for Host<'_> {
    fn submit(&mut self, session_ticket: SessionTicket, request: &Request<'_>) {
        let table = self.engine.table().clone();
        let map = request.head.map;
        if map != MapId(0) && usize::from(map.0) > table.maps.len() {
            let refusal = Outcome::Refused(Refusal::UnknownMap);
            self.done.push((session_ticket, refusal, Vec::new()));
            return;
        }
        let entropy = self.engine.random();
        let planned = command::resolve(&request.args).and_then(|spec| {
            let plan = command::plan(spec, &request.args, Proto::Resp3, table.settings.partitions, entropy)?;
            Ok((spec, plan))
        });
        match planned {
            Err(refusal) => self.refuse(session_ticket, &refusal.to_string()),
            Ok((spec, Plan::Session(_))) => {
                self.refuse(session_ticket, &format!("ERR '{}' is for RESP connections only", spec.name));
            }
            Ok((spec, Plan::One { partition, .. })) => {
                let ticket = self.calls.ticket(Call::Whole(session_ticket));
                let exactly_once = request.head.exactly_once.filter(|_| spec.is_write());
                let op = Op { spec, partition, map, proto: Proto::Resp3, exactly_once, args: &request.args };
                let mut out = Vec::new();
                if self.engine.submit(self.now, ticket, &op, &mut out) == Submitted::Done {
                    self.calls.under_way.remove(&ticket.number);
                    let (outcome, reply) = outcome_of(&out);
                    let reply = reply.to_vec();
                    self.done.push((session_ticket, outcome, reply));
                }
            }
            Ok((_, Plan::Gather(gather))) => {
                let gathering = Gathering { gather, map };
                self.done.extend(self.calls.gather(self.engine, self.now, session_ticket, gathering));
            }
        }
    }

    fn open_map(&mut self, ticket: SessionTicket, name: &str, defaults: MapDefaults) {
        // Served from the table once it shows the map; the task looks at every new table.
        self.calls.maps.entry(name.to_owned()).or_default().push(ticket);
        if self.engine.table().map_id(name).is_none() {
            self.engine.define_map(self.now, MapDefinition { name: name.to_owned(), defaults });
        }
    }

    fn view(&mut self) -> Arc<[u8]> {
        view_of(self.engine.table())
    }
}
