//! Clients over QUIC: one [`ClientSession`] and one task a connection.

use super::NodeCore;
use super::calls::{Calls, QueueDoor};
use crate::drivers::quic::ClientConnection;
use crate::engine::client_wire::{
    ClientHost, ClientSession, ClusterView, Outcome, Refusal, Request, SessionLimits, Ticket,
};
use crate::engine::ids::MapId;
use crate::engine::node::Engine;
use crate::engine::table::{MapDefaults, MapDefinition, Table};
use crate::engine::time::Now;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Serves the clients that the mesh accepts, until the node ends.
pub async fn accept(
    core: NodeCore,
    limits: SessionLimits,
    mut clients: mpsc::UnboundedReceiver<ClientConnection>,
) {
    while let Some(connection) = clients.recv().await {
        tokio::task::spawn_local(serve(core.clone(), limits, connection));
    }
}

/// The view of a table that clients get.
fn view_of(table: &Table) -> Arc<[u8]> {
    ClusterView::of(table).encode().into()
}

async fn serve(core: NodeCore, limits: SessionLimits, connection: ClientConnection) {
    let ClientConnection { hello, addr, mut send, mut recv, connection } = connection;
    tracing::debug!(%addr, name = %hello.name, "client connected");
    let door = QueueDoor::new();
    let number = core.open_door(|_| door.clone());
    let mut tables = core.tables();
    let first_view = view_of(&tables.borrow_and_update());
    let mut session = ClientSession::new(limits, first_view);
    let mut calls = Calls::new(number);
    let mut maps = AwaitedMaps::default();
    let mut out = Vec::new();
    let result = loop {
        session.take_output(&mut out);
        if !out.is_empty() && send.write_all(&out).await.is_err() {
            break Ok(());
        }
        let chunk;
        let input: &[u8];
        tokio::select! {
            read = recv.read_chunk(256 << 10, true), if session.wants_input() => match read {
                Ok(Some(read)) => {
                    chunk = read.bytes;
                    input = &chunk;
                }
                _ => break Ok(()),
            },
            () = door.wake() => input = &[],
            changed = tables.changed() => {
                if changed.is_err() {
                    break Ok(());
                }
                let table = tables.borrow_and_update().clone();
                session.push_view(view_of(&table));
                maps.open(&table, &mut session);
                continue;
            }
        }
        let received = core.with(|engine, now| {
            for (number, reply) in door.take() {
                if let Some((ticket, reply)) = calls.reply(engine, now, number, &reply) {
                    complete(&mut session, Ticket(ticket), &reply);
                }
            }
            let mut host = Host { calls: &mut calls, maps: &mut maps, engine, now, done: Vec::new() };
            let received = session.receive(input, &mut host);
            for (ticket, outcome) in host.done {
                match outcome {
                    Ok(reply) => complete(&mut session, ticket, &reply),
                    Err(refusal) => session.complete(ticket, Outcome::Refused(refusal), &[]),
                }
            }
            let table = engine.table().clone();
            maps.open(&table, &mut session);
            received
        });
        if let Err(error) = received {
            break Err(error);
        }
    };
    core.close_door(number);
    if let Err(error) = &result {
        tracing::warn!(%addr, %error, "client broke the protocol");
    }
    ClientConnection::hang_up(&connection, if result.is_ok() { "done" } else { "protocol error" });
}

/// Maps that a client waits for, with the tickets of its requests.
#[derive(Default)]
struct AwaitedMaps(BTreeMap<String, Vec<Ticket>>);

impl AwaitedMaps {
    /// Answers those that wait for maps that the table now has.
    fn open(&mut self, table: &Table, session: &mut ClientSession) {
        self.0.retain(|name, tickets| match table.map_id(name) {
            Some(map) => {
                tickets.drain(..).for_each(|ticket| session.map_opened(ticket, map));
                false
            }
            None => true,
        });
    }
}

/// Answers a request with what the engine replied.
fn complete(session: &mut ClientSession, ticket: Ticket, reply: &[u8]) {
    let outcomes: [(&[u8], Outcome); 5] = [
        (b"-INDOUBT The retried ", Outcome::Refused(Refusal::Forgotten)),
        (b"-TRYAGAIN ", Outcome::TryAgain { retry_ms: 100 }),
        (b"-NOREPLICAS ", Outcome::Refused(Refusal::NoReplicas)),
        (b"-CLUSTERDOWN ", Outcome::Refused(Refusal::ClusterDown)),
        (b"-INDOUBT ", Outcome::InDoubt),
    ];
    match outcomes.into_iter().find(|(prefix, _)| reply.starts_with(prefix)) {
        Some((_, outcome)) => session.complete(ticket, outcome, reply[1..].trim_ascii_end()),
        None => session.complete(ticket, Outcome::Ok, reply),
    }
}

/// A session's wishes, carried out on the engine.
struct Host<'a> {
    calls: &'a mut Calls,
    maps: &'a mut AwaitedMaps,
    engine: &'a mut Engine,
    now: Now,
    done: Vec<(Ticket, Result<Vec<u8>, Refusal>)>,
}

impl ClientHost for Host<'_> {
    fn submit(&mut self, ticket: Ticket, request: &Request<'_>) {
        let map = request.head.map;
        if map != MapId(0) && usize::from(map.0) > self.engine.table().maps.len() {
            self.done.push((ticket, Err(Refusal::UnknownMap)));
            return;
        }
        let exactly_once = request.head.exactly_once;
        if let Some(reply) =
            self.calls.submit(self.engine, self.now, ticket.0, map, exactly_once, &request.args)
        {
            self.done.push((ticket, Ok(reply)));
        }
    }

    fn open_map(&mut self, ticket: Ticket, name: &str, defaults: MapDefaults) {
        // Answered once the table shows the map; the task looks at every new table.
        self.maps.0.entry(name.to_owned()).or_default().push(ticket);
        if self.engine.table().map_id(name).is_none() {
            self.engine.define_map(self.now, MapDefinition { name: name.to_owned(), defaults });
        }
    }

    fn view(&mut self) -> Arc<[u8]> {
        view_of(self.engine.table())
    }
}
