//! openraft's messages on their way to other nodes.

use super::command::{LogId, LogTypes, Snapshot, SnapshotTable, Vote};
use super::config::RPC_BODY_BYTES_MAX;
use super::wire::{
    Appended, GroupId, Installed, Request, Transferred, Voted, decode_response, encode_append,
};
use crate::engine::ids::NodeId;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use openraft::{OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Requests waiting for the links' task; beyond it a send waits, within its time limit.
const OUTGOING_MAX: usize = 256;

/// Carries requests of the agreed log to other nodes and brings their responses back.
pub trait RpcSender: Send + Sync + 'static {
    /// Sends `body` to `to`'s [`AgreedLog::handle`](super::AgreedLog::handle) and returns what it
    /// answered. The bodies are opaque and at most [`RPC_BODY_BYTES_MAX`] long.
    ///
    /// # Errors
    ///
    /// See [`RpcFailure`]. After any of them the request may or may not have been served.
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcFailure>>;
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcFailure {
    /// There is no link to the node; the sender waits a little before it tries again.
    #[error("no link to the node")]
    Unreachable,
    /// No response in time.
    #[error("no response in time")]
    Timeout,
    /// The node answered with a [`Refusal`](super::Refusal).
    #[error("the node refused the request")]
    Refused,
}

/// A request for the links' task to send.
#[derive(Debug)]
pub struct OutgoingRpc {
    /// Whom to send it to.
    pub to: NodeId,
    /// The opaque request.
    pub body: Bytes,
    /// How long the response may take. The sender stops waiting by itself.
    pub timeout: Duration,
    /// Where the response goes.
    pub reply: oneshot::Sender<Result<Bytes, RpcFailure>>,
}

/// A sender whose requests come out of the receiver, for links that are bound to one thread.
pub fn channel() -> (Arc<dyn RpcSender>, mpsc::Receiver<OutgoingRpc>) {
    let (outgoing, receiver) = mpsc::channel(OUTGOING_MAX);
    (Arc::new(ChannelSender { outgoing }), receiver)
}

struct ChannelSender {
    outgoing: mpsc::Sender<OutgoingRpc>,
}

impl RpcSender for ChannelSender {
    fn call(
        &self,
        to: NodeId,
        body: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, RpcFailure>> {
        let outgoing = self.outgoing.clone();
        let exchange = async move {
            let (reply, response) = oneshot::channel();
            let rpc = OutgoingRpc { to, body, timeout, reply };
            outgoing.send(rpc).await.map_err(|_| RpcFailure::Unreachable)?;
            response.await.unwrap_or(Err(RpcFailure::Unreachable))
        };
        async move { tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(RpcFailure::Timeout)) }
            .boxed()
    }
}

/// Makes openraft's clients for other nodes.
pub(super) struct Network {
    pub(super) me: NodeId,
    pub(super) group: Arc<OnceLock<GroupId>>,
    pub(super) rpc: Arc<dyn RpcSender>,
    /// For requests that carry entries; a heartbeat has its own, shorter limit.
    pub(super) rpc_timeout: Duration,
}

impl RaftNetworkFactory<LogTypes> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _address: &SocketAddr) -> Peer {
        Peer {
            me: self.me,
            target,
            group: self.group.clone(),
            rpc: self.rpc.clone(),
            rpc_timeout: self.rpc_timeout,
        }
    }
}

/// openraft's client for one other node.
pub(super) struct Peer {
    me: NodeId,
    target: NodeId,
    group: Arc<OnceLock<GroupId>>,
    rpc: Arc<dyn RpcSender>,
    rpc_timeout: Duration,
}

impl Peer {
    /// A voter has a group before it has anything to say.
    fn group(&self) -> Result<GroupId, RPCError<LogTypes>> {
        self.group.get().copied().ok_or_else(|| unreachable("no group"))
    }

    /// Encodes as many of the entries as fit, and says up to which if not all of them do.
    fn encode_entries(
        &self,
        mut request: AppendEntriesRequest<LogTypes>,
    ) -> Result<(Option<LogId>, Bytes), RPCError<LogTypes>> {
        let group = self.group()?;
        let mut sent_up_to = None;
        loop {
            if let Some(body) = encode_append(&request, group) {
                return Ok((sent_up_to, body));
            }
            request.entries.truncate(request.entries.len() / 2);
            sent_up_to = request.entries.last().map(|entry| entry.log_id);
            if sent_up_to.is_none() {
                return Err(garbled("entry too large"));
            }
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        request: &Request,
        timeout: Duration,
    ) -> Result<T, RPCError<LogTypes>> {
        let body = request.encode(self.group()?).ok_or_else(|| garbled("request too large"))?;
        self.exchange_encoded(action, body, timeout).await
    }

    async fn exchange_encoded<T: DeserializeOwned>(
        &self,
        action: RPCTypes,
        body: Bytes,
        timeout: Duration,
    ) -> Result<T, RPCError<LogTypes>> {
        let call = self.rpc.call(self.target, body, timeout);
        let response = call.await.map_err(|failure| match failure {
            RpcFailure::Timeout => {
                RPCError::Timeout(Timeout { action, id: self.me, target: self.target, timeout })
            }
            // Neither changes soon: back off.
            RpcFailure::Unreachable | RpcFailure::Refused => unreachable(failure),
        })?;
        if response.len() > RPC_BODY_BYTES_MAX {
            return Err(garbled("response too large"));
        }
        decode_response(&response).ok_or_else(|| garbled("malformed response"))
    }
}

fn unreachable(reason: impl ToString) -> RPCError<LogTypes> {
    RPCError::Unreachable(Unreachable::from_string(reason))
}

fn garbled(reason: &str) -> RPCError<LogTypes> {
    RPCError::Network(NetworkError::from_string(reason))
}

impl RaftNetworkV2<LogTypes> for Peer {
    type SnapshotData = SnapshotTable;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<Appended, RPCError<LogTypes>> {
        // openraft gives entries no more time than a heartbeat; a large batch needs more, and
        // nothing cuts it short.
        let timeout = if request.entries.is_empty() { option.soft_ttl() } else { self.rpc_timeout };
        let (sent_up_to, body) = self.encode_entries(request)?;
        let appended = self.exchange_encoded(RPCTypes::AppendEntries, body, timeout).await?;
        Ok(match (sent_up_to, appended) {
            (Some(last), Appended::Success) => Appended::PartialSuccess(Some(last)),
            (_, appended) => appended,
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<Voted, RPCError<LogTypes>> {
        self.exchange(RPCTypes::Vote, &Request::Vote(request), option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<Voted, RPCError<LogTypes>> {
        self.exchange(RPCTypes::Vote, &Request::PreVote(request), option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<Installed, StreamingError<LogTypes>> {
        let request = Request::InstallSnapshot(vote, snapshot);
        let exchange = self.exchange(RPCTypes::InstallSnapshot, &request, option.soft_ttl());
        tokio::select! {
            result = exchange => result.map_err(StreamingError::from),
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<LogTypes>,
        option: RPCOption,
    ) -> Result<Transferred, RPCError<LogTypes>> {
        self.exchange(RPCTypes::TransferLeader, &Request::TransferLeader(request), option.soft_ttl()).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::command::{LogCommand, LogEntry, Vote};
    use super::super::config::ENTRY_BYTES_MAX;
    use super::super::wire::{Refusal, encode_response};
    use super::*;
    use crate::engine::ids::Incarnation;
    use crate::engine::table::{MapDefaults, MapDefinition, TableChange};
    use openraft::EntryPayload;
    use openraft::impls::leader_id_adv::LeaderId;
    use std::sync::Mutex;

    const ME: NodeId = NodeId(1);

    /// Says yes to every request and keeps how many entries it carried.
    #[derive(Default)]
    struct Yes {
        entries: Mutex<Vec<Result<usize, Refusal>>>,
    }

    impl RpcSender for Yes {
        fn call(
            &self,
            _to: NodeId,
            body: Bytes,
            _timeout: Duration,
        ) -> BoxFuture<'static, Result<Bytes, RpcFailure>> {
            let carried = Request::decode(ME, &body).map(|(_, request)| match request {
                Request::Append(request) => request.entries.len(),
                _ => 0,
            });
            self.entries.lock().unwrap().push(carried);
            let yes = encode_response(&Appended::Success).ok_or(RpcFailure::Refused);
            async move { yes }.boxed()
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: ME }, index }
    }

    fn request(count: u64, name_bytes: usize) -> AppendEntriesRequest<LogTypes> {
        let name = "x".repeat(name_bytes);
        let change = TableChange::DefineMap(MapDefinition { name, defaults: MapDefaults::default() });
        let payload = EntryPayload::Normal(LogCommand::Change(vec![change]));
        let entries = (0..count).map(|index| LogEntry { log_id: log_id(index), payload: payload.clone() });
        AppendEntriesRequest {
            vote: Vote::new_committed(1, ME),
            prev_log_id: None,
            entries: entries.collect(),
            leader_commit: None,
        }
    }

    #[tokio::test]
    async fn entries_that_were_not_sent_are_not_claimed() {
        let yes = Arc::new(Yes::default());
        let group = GroupId { incarnation: Incarnation(1), founder: ME };
        let mut peer = Peer {
            me: ME,
            target: NodeId(2),
            group: Arc::new(OnceLock::from(group)),
            rpc: yes.clone(),
            rpc_timeout: Duration::from_secs(1),
        };
        let option = || RPCOption::new(Duration::from_secs(1));
        let few = peer.append_entries(request(3, 10), option()).await.unwrap();
        assert_eq!(few, Appended::Success);
        let count = (RPC_BODY_BYTES_MAX / ENTRY_BYTES_MAX) as u64 + 2;
        let many = peer.append_entries(request(count, ENTRY_BYTES_MAX), option()).await.unwrap();
        let sent = count / 2;
        assert_eq!(many, Appended::PartialSuccess(Some(log_id(sent - 1))));
        assert_eq!(*yes.entries.lock().unwrap(), [Ok(3), Ok(sent as usize)]);
        assert!(peer.append_entries(request(1, RPC_BODY_BYTES_MAX), option()).await.is_err());
    }
}
