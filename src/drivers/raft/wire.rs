//! The form of the messages between voters.
//!
//! A request is a fixed header (version, kind, the group it is meant for) and a postcard body; a
//! response is a postcard body. What arrives is checked beyond its form: openraft trusts its
//! peers, so whatever it would stumble over is refused here.

use super::command::{LogCommand, LogEntry, LogId, LogTypes, Snapshot, SnapshotMeta, SnapshotTable, Vote};
use super::config::{ENTRIES_PER_RPC_MAX, RPC_BODY_BYTES_MAX};
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::table::Table;
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Membership};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// The version of this form.
const WIRE_VERSION: u8 = 1;
/// Version, kind, group.
const HEADER_BYTES: usize = 2 + GROUP_BYTES;
const GROUP_BYTES: usize = 16;

/// Which agreed log a message belongs to.
///
/// The founder is part of it because both halves of a split pair may start the same incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId {
    /// The life of the cluster that the group serves.
    pub incarnation: Incarnation,
    /// Who formed the group.
    pub founder: NodeId,
}

impl GroupId {
    fn to_bytes(self) -> [u8; GROUP_BYTES] {
        (u128::from(self.incarnation.0) << 64 | u128::from(self.founder.0)).to_le_bytes()
    }

    fn from_bytes(bytes: &[u8; GROUP_BYTES]) -> GroupId {
        let both = u128::from_le_bytes(*bytes);
        GroupId { incarnation: Incarnation((both >> 64) as u64), founder: NodeId(both as u64) }
    }
}

/// Why an incoming RPC was not served. The voter's state has not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than [`RPC_BODY_BYTES_MAX`], or not a message of this protocol.
    #[error("malformed message of the agreed log: {0}")]
    Malformed(&'static str),
    /// It belongs to another group than this node's, or to one this node has left for good.
    #[error("message of a foreign agreed log ({theirs:?})")]
    Foreign {
        /// The group named in the message.
        theirs: GroupId,
    },
    /// The log is shutting down, or has failed.
    #[error("the agreed log is stopped")]
    Stopped,
}

/// A request of one voter to another.
#[derive(Debug)]
pub(super) enum Request {
    Append(AppendEntriesRequest<LogTypes>),
    Vote(VoteRequest<LogTypes>),
    PreVote(VoteRequest<LogTypes>),
    InstallSnapshot(Vote, Snapshot),
    TransferLeader(TransferLeaderRequest<LogTypes>),
}

/// What [`Request::InstallSnapshot`] carries.
#[derive(Serialize, Deserialize)]
struct SnapshotBody<T> {
    vote: Vote,
    meta: SnapshotMeta,
    table: Option<T>,
}

/// What [`Request::TransferLeader`] carries: openraft's own type has no serde.
#[derive(Serialize, Deserialize)]
struct TransferBody {
    from_leader: Vote,
    to: NodeId,
    last_log_id: Option<LogId>,
}

/// The response to each request.
pub(super) type Appended = AppendEntriesResponse<LogTypes>;
pub(super) type Voted = VoteResponse<LogTypes>;
pub(super) type Installed = SnapshotResponse<LogTypes>;
pub(super) type Transferred = TransferLeaderResponse<LogTypes>;

const KIND_APPEND: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_PRE_VOTE: u8 = 3;
const KIND_SNAPSHOT: u8 = 4;
const KIND_TRANSFER: u8 = 5;

impl Request {
    /// Encodes the request for `group`. `None` if it exceeds [`RPC_BODY_BYTES_MAX`].
    pub(super) fn encode(&self, group: GroupId) -> Option<Bytes> {
        match self {
            Request::Append(body) => encode_append(body, group),
            Request::Vote(body) => framed(KIND_VOTE, group, body),
            Request::PreVote(body) => framed(KIND_PRE_VOTE, group, body),
            Request::InstallSnapshot(vote, Snapshot { meta, snapshot }) => {
                let table = snapshot.as_deref();
                let body = SnapshotBody { vote: *vote, meta: meta.clone(), table };
                framed(KIND_SNAPSHOT, group, &body)
            }
            Request::TransferLeader(request) => {
                let body = TransferBody {
                    from_leader: *request.from_leader(),
                    to: *request.to_node_id(),
                    last_log_id: request.last_log_id().copied(),
                };
                framed(KIND_TRANSFER, group, &body)
            }
        }
    }

    /// Decodes a request and the group it is meant for, and checks that openraft can take it and
    /// that `from` speaks for itself.
    pub(super) fn decode(from: NodeId, bytes: &[u8]) -> Result<(GroupId, Request), Refusal> {
        if bytes.len() > RPC_BODY_BYTES_MAX {
            return Err(Refusal::Malformed("too long"));
        }
        let (header, body) =
            bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Refusal::Malformed("too short"))?;
        let &[version, kind, ref group @ ..] = header;
        if version != WIRE_VERSION {
            return Err(Refusal::Malformed("unknown version"));
        }
        let group = GroupId::from_bytes(group);
        let request = match kind {
            KIND_APPEND => Request::Append(whole(body)?),
            KIND_VOTE => Request::Vote(whole(body)?),
            KIND_PRE_VOTE => Request::PreVote(whole(body)?),
            KIND_SNAPSHOT => {
                let SnapshotBody::<Table> { vote, meta, table } = whole(body)?;
                let snapshot: SnapshotTable = table.map(Arc::new);
                Request::InstallSnapshot(vote, Snapshot { meta, snapshot })
            }
            KIND_TRANSFER => {
                let TransferBody { from_leader, to, last_log_id } = whole(body)?;
                Request::TransferLeader(TransferLeaderRequest::new(from_leader, to, last_log_id))
            }
            _ => return Err(Refusal::Malformed("unknown kind")),
        };
        request.check(from)?;
        Ok((group, request))
    }

    fn check(&self, from: NodeId) -> Result<(), Refusal> {
        let (vote, committed) = match self {
            Request::Append(request) => {
                check_entries(request)?;
                (&request.vote, true)
            }
            Request::InstallSnapshot(vote, Snapshot { meta, snapshot }) => {
                check_membership(meta.last_membership.membership())?;
                if snapshot.as_deref().is_some_and(|table| !is_sound(table)) {
                    return Err(Refusal::Malformed("table"));
                }
                (vote, true)
            }
            Request::Vote(request) | Request::PreVote(request) => (&request.vote, false),
            Request::TransferLeader(request) => (request.from_leader(), true),
        };
        if vote.leader_id.node_id != from {
            return Err(Refusal::Malformed("in another node's name"));
        }
        if vote.committed != committed {
            return Err(Refusal::Malformed("vote"));
        }
        Ok(())
    }
}

/// [`Request::encode`] for a request that its sender may have to shorten.
pub(super) fn encode_append(request: &AppendEntriesRequest<LogTypes>, group: GroupId) -> Option<Bytes> {
    framed(KIND_APPEND, group, request)
}

fn framed<T: Serialize>(kind: u8, group: GroupId, body: &T) -> Option<Bytes> {
    let mut out = vec![WIRE_VERSION, kind];
    out.extend(group.to_bytes());
    let out = postcard::to_extend(body, out).ok()?;
    (out.len() <= RPC_BODY_BYTES_MAX).then(|| Bytes::from(out))
}

/// Encodes a response. `None` cannot happen short of a bug in a serializer.
pub(super) fn encode_response<T: Serialize>(response: &T) -> Option<Bytes> {
    postcard::to_allocvec(response).ok().map(Bytes::from)
}

/// Decodes a response; `None` if it is not one.
pub(super) fn decode_response<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    whole(bytes).ok()
}

/// Decodes what another voter may have sent, a request or any response, and encodes what came of it
/// again: what decoders of hostile bytes are tested with.
///
/// # Errors
/// What is wrong with it, as for a request that arrives.
pub fn recode(from: NodeId, bytes: &[u8]) -> Result<Option<Bytes>, Refusal> {
    fn response<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<Bytes> {
        decode_response::<T>(bytes).as_ref().and_then(encode_response)
    }
    match bytes.split_first() {
        Some((0, rest)) => Ok(response::<Appended>(rest)),
        Some((0xFF, rest)) => Ok(response::<Voted>(rest)),
        Some((0xFE, rest)) => Ok(response::<Installed>(rest)),
        Some((0xFD, rest)) => Ok(response::<Transferred>(rest)),
        _ => Request::decode(from, bytes).map(|(group, request)| request.encode(group)),
    }
}

/// Decodes a body that must fill `bytes` exactly.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok(_) => Err(Refusal::Malformed("trailing bytes")),
        Err(_) => Err(Refusal::Malformed("body")),
    }
}

/// Entries must follow each other, and the tables and memberships in them be whole.
fn check_entries(request: &AppendEntriesRequest<LogTypes>) -> Result<(), Refusal> {
    if request.entries.len() > ENTRIES_PER_RPC_MAX {
        return Err(Refusal::Malformed("too many entries"));
    }
    let mut previous = request.prev_log_id;
    for LogEntry { log_id, payload } in &request.entries {
        let expected_index = previous.map_or(Some(0), |id| id.index.checked_add(1));
        if Some(log_id.index) != expected_index || previous.is_some_and(|id| id.leader_id > log_id.leader_id)
        {
            return Err(Refusal::Malformed("entries out of order"));
        }
        match payload {
            EntryPayload::Normal(LogCommand::Begin { table, .. }) if !is_sound(table) => {
                return Err(Refusal::Malformed("table"));
            }
            EntryPayload::Membership(membership) => check_membership(membership)?,
            EntryPayload::Normal(_) | EntryPayload::Blank => {}
        }
        previous = Some(*log_id);
    }
    Ok(())
}

/// Every voter must have an address: openraft looks it up without asking.
fn check_membership(membership: &Membership<NodeId, SocketAddr>) -> Result<(), Refusal> {
    let complete = membership.voter_ids().all(|id| membership.get_node(&id).is_some());
    if complete { Ok(()) } else { Err(Refusal::Malformed("membership")) }
}

/// Whether the table can be worked with.
fn is_sound(table: &Table) -> bool {
    table.settings.partitions.is_power_of_two() && table.checks().is_ok()
}
