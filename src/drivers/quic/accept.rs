//! Being dialled: by peers, clients and strangers.

use super::admission::{Dialler, Verdict};
use super::client::ClientConnection;
use super::handshake::{self, CloseCode, DownReason, Opened};
use super::mesh::{Refusal, Shared};
use super::refusals::RefusalKind;
use crate::drivers::pki::Role;
use quinn::{Connection, Incoming, VarInt};
use std::cell::Cell;
use std::rc::Rc;
use tokio::task::spawn_local;

/// What a client may have in flight: there may be thousands of them.
const CLIENT_WINDOW_BYTES: u32 = 8 << 20;

/// Accepts until the endpoint closes.
pub(super) async fn run(shared: Rc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        let Some(incoming) = admit(&shared, incoming) else {
            continue;
        };
        spawn_local(accept(shared.clone(), incoming));
    }
    if !shared.is_closed() {
        tracing::error!("the QUIC socket has failed: nobody can reach this node any more");
    }
}

/// Decides whether to begin the handshake.
fn admit(shared: &Shared, incoming: Incoming) -> Option<Incoming> {
    let addr = incoming.remote_address();
    let dialler = Dialler { proved: incoming.remote_address_validated(), known: shared.maintains_at(addr) };
    let now_us = shared.config.clock.now().mono_us;
    match shared.admission.borrow_mut().admit(now_us, shared.handshakes.get(), dialler) {
        Verdict::Accept => Some(incoming),
        Verdict::Prove => {
            // The error means that it is proved, which was just ruled out.
            let _ = incoming.retry();
            None
        }
        Verdict::Ignore => {
            incoming.ignore();
            shared.note_refusal(RefusalKind::Busy, addr, &"handshakes");
            None
        }
    }
}

async fn accept(shared: Rc<Shared>, incoming: Incoming) {
    let addr = incoming.remote_address();
    let opened = {
        let _under_way = Counted::one_of(&shared.handshakes);
        let shaken = shake(&shared, incoming);
        match tokio::time::timeout(shared.config.dial_timeout, shaken).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(DownReason::Untrusted)) => {
                shared.note_refusal(RefusalKind::UntrustedInbound, addr, &DownReason::Untrusted);
                return;
            }
            Ok(Err(reason)) => {
                shared.note_refusal(RefusalKind::Hello, addr, &reason);
                return;
            }
            Err(_) => {
                shared.note_refusal(RefusalKind::Hello, addr, &DownReason::TimedOut);
                return;
            }
        }
    };
    match opened.hello.role {
        Role::Node => accept_node(shared, opened).await,
        Role::Client => accept_client(shared, opened).await,
    }
}

/// The handshake up to the dialler's hello.
async fn shake(shared: &Shared, incoming: Incoming) -> Result<Opened, DownReason> {
    let connection = incoming.accept()?.await?;
    let Some((opened, _role)) = handshake::read_dialler(&connection).await else {
        return Err(why_closed(&connection));
    };
    if let Some((code, reason)) = handshake::misdirected(shared.config.node, &opened.hello) {
        handshake::close(&connection, code, reason);
        return Err(DownReason::Failed(reason.into()));
    }
    Ok(opened)
}

fn why_closed(connection: &Connection) -> DownReason {
    match connection.close_reason() {
        Some(error) => error.into(),
        None => DownReason::Failed("no hello".into()),
    }
}

async fn accept_node(shared: Rc<Shared>, opened: Opened) {
    let Some(handler) = shared.handler() else {
        return;
    };
    let Opened { connection, hello, mut send, .. } = opened;
    if let Err(Refusal(reason)) = handler.accepts(&hello) {
        shared.note_refusal(RefusalKind::Hello, connection.remote_address(), &reason);
        handshake::close(&connection, CloseCode::Refused, &reason);
        return;
    }
    if send.write_all(&shared.hello(None).encode()).await.is_err() {
        return;
    }
    let _already_closed = send.finish();
    shared.counters.count(|c| c.links_accepted += 1);
    shared.bring_up(connection, hello, false);
}

async fn accept_client(shared: Rc<Shared>, opened: Opened) {
    let Some(handler) = shared.handler() else {
        return;
    };
    let Opened { connection, hello, mut send, recv } = opened;
    let addr = connection.remote_address();
    if shared.clients.get() >= shared.config.clients_max {
        shared.note_refusal(RefusalKind::Busy, addr, &"clients");
        handshake::close(&connection, CloseCode::Busy, "too many clients");
        return;
    }
    connection.set_receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES));
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    if send.write_all(&shared.hello(None).encode()).await.is_err() {
        return;
    }
    shared.counters.count(|c| c.clients_accepted += 1);
    let counted = Counted::one_of(&shared.clients);
    handler.client(ClientConnection::new(connection.clone(), hello, send, recv));
    connection.closed().await;
    drop(counted);
}

/// One of those counted in a cell, for as long as it lives.
struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    fn one_of(cell: &Cell<usize>) -> Counted<'_> {
        cell.set(cell.get() + 1);
        Counted(cell)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
