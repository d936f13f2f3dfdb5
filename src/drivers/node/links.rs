//! The mesh's events become the engine's inputs.

use super::NodeCore;
use crate::drivers::quic::{ClientConnection, DownReason, Hello, Links, LocalFuture, Refusal};
use crate::drivers::raft::AgreedLog;
use crate::engine::frame::Class;
use crate::engine::ids::NodeId;
use bytes::Bytes;
use std::net::SocketAddr;
use tokio::sync::mpsc;

/// The mesh's view of a node.
pub struct NodeLinks {
    core: NodeCore,
    log: AgreedLog,
    clients: mpsc::UnboundedSender<ClientConnection>,
}

impl NodeLinks {
    /// Clients that connect come out of the sender's other end; the mesh bounds their number.
    pub fn new(
        core: NodeCore,
        log: AgreedLog,
        clients: mpsc::UnboundedSender<ClientConnection>,
    ) -> NodeLinks {
        NodeLinks { core, log, clients }
    }
}

impl Links for NodeLinks {
    fn link_up(&self, peer: NodeId, hello: &Hello, addr: SocketAddr) {
        tracing::info!(%peer, name = %hello.name, %addr, "link up");
        self.core.with(|engine, now| engine.link_up(now, peer, hello.quic, hello.incarnation));
    }

    fn link_down(&self, peer: NodeId, reason: DownReason) {
        tracing::info!(%peer, ?reason, "link down");
        self.core.with(|engine, now| engine.link_down(now, peer));
    }

    fn frames(&self, peer: NodeId, _class: Class, frames: &mut Vec<Bytes>) {
        self.core.with(|engine, now| {
            for frame in frames.drain(..) {
                engine.frame(now, peer, &frame);
            }
        });
    }

    fn datagram(&self, peer: NodeId, bytes: Bytes) {
        self.core.with(|engine, now| engine.datagram(now, peer, &bytes));
    }

    fn request(&self, peer: NodeId, body: Bytes) -> LocalFuture<Result<Bytes, Refusal>> {
        let log = self.log.clone();
        Box::pin(async move { log.handle(peer, body).await.map_err(|refusal| Refusal(refusal.to_string())) })
    }

    fn client(&self, connection: ClientConnection) {
        let _node_is_ending = self.clients.send(connection);
    }

    fn accepts(&self, hello: &Hello) -> Result<(), Refusal> {
        let mine = self.core.look(|engine, _| engine.table().incarnation);
        let foreign = mine.0 != 0 && hello.incarnation.0 != 0 && !mine.same_lineage(hello.incarnation);
        if foreign {
            return Err(Refusal("a member of another cluster".to_owned()));
        }
        Ok(())
    }
}
