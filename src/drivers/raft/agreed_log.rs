//! The handle on the agreed log.

use super::command::{LogCommand, LogTypes, Raft, Reply};
use super::config::{ENTRY_BYTES_MAX, LogConfig, TABLE_BYTES_MAX};
use super::log_store::MemoryLog;
use super::network::{Network, RpcSender};
use super::state_machine::{TableMachine, TableWatch};
use super::voters::{self, DesiredVoters};
use super::wire::{GroupId, Refusal, Request, encode_response};
use crate::engine::ids::{Incarnation, NodeId, TableVersion};

use crate::engine::table::{Applied, Table, TableEntry};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::{ReadPolicy, ServerState};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// This node's seat in the agreed log. Cheap to clone; all clones are the same seat.
///
/// A fresh seat belongs to no group: it waits to be added by a leader (the first group that
/// speaks to it is its own), or [forms](AgreedLog::form) one. Call
/// [`shutdown`](AgreedLog::shutdown) before dropping the last clone.
#[derive(Clone)]
pub struct AgreedLog {
    shared: Arc<Shared>,
}

struct Shared {
    me: NodeId,
    config: LogConfig,
    rpc: Arc<dyn RpcSender>,
    seat: Mutex<Arc<Seat>>,
    /// Held while the seat is exchanged for another.
    exchanging: tokio::sync::Mutex<()>,
    tables: TableWatch,
    leadership: watch::Sender<Leadership>,
    desired: watch::Sender<Option<DesiredVoters>>,
    voters_task: Mutex<Option<JoinHandle<()>>>,
}

/// Membership in one group, for as long as it lasts.
pub(super) struct Seat {
    pub(super) raft: Raft,
    machine: TableMachine,
    group: Arc<OnceLock<GroupId>>,
    /// Groups this node was in before. Its votes there are forgotten, so it must never speak
    /// there again.
    left: Vec<GroupId>,
    leadership_task: JoinHandle<()>,
}

/// Who leads the agreed log, as far as this node knows.
///
/// A leader that is cut off from its voters still shows up as leader here until it hears of its
/// successor; its proposals and reads fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The last known leader of the current term.
    pub leader: Option<NodeId>,
    /// The current term. Terms grow within a group and start anew in another.
    pub term: u64,
    /// The voters of the last membership seen, in order.
    pub voters: Vec<NodeId>,
    /// Whether this node is the leader.
    pub is_me: bool,
}

/// What this node does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives the log, if in a group at all, and doesn't vote.
    Learner,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
    /// Stopped for good.
    Stopped,
}

/// A glance at the agreed log on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The group this node belongs to, if any yet.
    pub group: Option<GroupId>,
    /// What this node does.
    pub role: Role,
    /// The current term.
    pub term: u64,
    /// The last known leader.
    pub leader: Option<NodeId>,
    /// Index of the last entry in the log here.
    pub last_index: Option<u64>,
    /// Index of the last entry known to be committed.
    pub committed_index: Option<u64>,
    /// Index of the last entry applied to the table here.
    pub applied_index: Option<u64>,
    /// Index of the last entry covered by a snapshot.
    pub snapshot_index: Option<u64>,
    /// The voters, in order.
    pub voters: Vec<NodeId>,
    /// Those that receive the log and don't vote, in order.
    pub learners: Vec<NodeId>,
}

/// An entry that is committed and applied.
#[derive(Clone, Debug)]
pub struct Proposed {
    /// The table's version after it.
    pub table_version: TableVersion,
    /// What came of its changes.
    pub applied: Applied,
}

/// Why an entry was not, or maybe not, added to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It did not happen: another node leads, if known the one named.
    #[error("not the leader of the agreed log")]
    NotLeader(Option<NodeId>),
    /// It did not happen: no majority of voters is in touch, or there is no group.
    #[error("the agreed log has no majority")]
    Unavailable,
    /// It did not happen: the entry is larger than [`ENTRY_BYTES_MAX`].
    #[error("entry larger than {ENTRY_BYTES_MAX} bytes")]
    TooLarge,
    /// Unknown: it may be committed now, later, or never. Read the table to find out.
    #[error("unknown whether the entry is agreed")]
    InDoubt,
    /// It did not happen: the log is stopped.
    #[error("the agreed log is stopped")]
    Stopped,
}

/// Why the table could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Another node leads, if known the one named.
    #[error("not the leader of the agreed log")]
    NotLeader(Option<NodeId>),
    /// No majority of voters is in touch, or there is no group yet.
    #[error("the agreed log has no majority")]
    Unavailable,
    /// The log is stopped.
    #[error("the agreed log is stopped")]
    Stopped,
}

/// Why no group was formed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// This node is in a group of this or a later incarnation. Nothing has changed.
    #[error("already in the agreed log of {0}")]
    NotNewer(Incarnation),
    /// The table or the first entry exceeds its bound. Nothing has changed.
    #[error("table or entry too large to start from")]
    TooLarge,
    /// The group exists but its first entry is not known to be applied: abandon it or stop.
    #[error("the first entry failed: {0}")]
    First(ProposeError),
    /// This node could not start anew; its log is stopped.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why the log could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error("settings of the agreed log: {0}")]
    Config(String),
    /// openraft refused to start, or shutdown was called.
    #[error("the agreed log is stopped: {0}")]
    Stopped(String),
}

impl AgreedLog {
    /// Takes a seat that belongs to no group yet. Needs a running tokio runtime with timers.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the settings contradict each other.
    pub async fn start(
        me: NodeId,
        config: LogConfig,
        rpc: Arc<dyn RpcSender>,
    ) -> Result<AgreedLog, StartError> {
        let (tables, _) = watch::channel(None);
        let (leadership, _) = watch::channel(Leadership::default());
        let (desired, _) = watch::channel(None);
        let seat = Seat::open(me, &config, &rpc, &tables, &leadership, Vec::new()).await?;
        let shared = Shared {
            me,
            config,
            rpc,
            seat: Mutex::new(Arc::new(seat)),
            exchanging: tokio::sync::Mutex::new(()),
            tables,
            leadership,
            desired,
            voters_task: Mutex::new(None),
        };
        let log = AgreedLog { shared: Arc::new(shared) };
        let task = tokio::spawn(voters::follow(log.clone(), log.shared.desired.subscribe()));
        *log.shared.voters_task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(log)
    }

    /// Forms a group with this node as its only voter. Its table is `table` with `first` applied.
    ///
    /// A node that is in a group already turns away from it for good: this is how a survivor goes
    /// on without a majority, with [`TableChange::NewIncarnation`] in `first`.
    ///
    /// [`TableChange::NewIncarnation`]: crate::engine::table::TableChange::NewIncarnation
    ///
    /// # Errors
    ///
    /// [`FormError`]; in particular, the incarnation must be later than that of the group left.
    pub async fn form(&self, first: TableEntry, table: Table) -> Result<Proposed, FormError> {
        if !fits(&table, TABLE_BYTES_MAX) || !fits(&first, ENTRY_BYTES_MAX) {
            return Err(FormError::TooLarge);
        }
        let mut started = table.clone();
        started.apply(&first);
        let group = GroupId { incarnation: started.incarnation, founder: self.shared.me };
        let address = started.members.get(&group.founder).map_or(UNKNOWN_ADDRESS, |member| member.quic);

        let _exchanging = self.shared.exchanging.lock().await;
        let mut seat = self.seat();
        if let Some(newest) = seat.left.iter().chain(seat.group.get()).map(|group| group.incarnation).max() {
            if newest >= group.incarnation {
                return Err(FormError::NotNewer(newest));
            }
            seat = self.exchange_seat(&seat).await?;
        }
        if seat.group.set(group).is_err() {
            // A leader spoke to the fresh seat in the meantime and its group comes first.
            return Err(FormError::NotNewer(
                seat.group.get().map_or(group.incarnation, |group| group.incarnation),
            ));
        }
        let stopped = FormError::First(ProposeError::Stopped);
        seat.raft
            .initialize(BTreeMap::from([(group.founder, address)]))
            .await
            .map_err(|_| stopped.clone())?;
        let timeout = Some(self.propose_timeout());
        seat.raft
            .wait(timeout)
            .state(ServerState::Leader, "the only voter leads")
            .await
            .map_err(|_| stopped)?;
        let begin = LogCommand::Begin { table: Box::new(table), first };
        self.write(&seat, begin).await.map_err(FormError::First)
    }

    /// Leaves the group for good and waits to be added to another one.
    ///
    /// For a member that learns that its cluster goes on in another incarnation. The group left
    /// is never answered again, so nothing it may count on is broken.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the log could not start anew; it is stopped then.
    pub async fn abandon(&self) -> Result<(), StartError> {
        let _exchanging = self.shared.exchanging.lock().await;
        let seat = self.seat();
        if seat.group.get().is_some() {
            self.exchange_seat(&seat).await?;
        }
        Ok(())
    }

    /// Serves a request that `from` sent with its [`RpcSender`]; returns the response body.
    ///
    /// `from` must be authenticated. Bodies may be hostile.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the request had no effect.
    pub async fn handle(&self, from: NodeId, body: Bytes) -> Result<Bytes, Refusal> {
        let (group, request) = Request::decode(from, &body)?;
        let seat = self.seat();
        if seat.left.contains(&group) || *seat.group.get_or_init(|| group) != group {
            return Err(Refusal::Foreign { theirs: group });
        }
        if !seat.is_running() {
            return Err(Refusal::Stopped);
        }
        let response = match request {
            Request::Append(request) => encoded(seat.raft.append_entries(request).await),
            Request::Vote(request) => encoded(seat.raft.vote(request).await),
            Request::PreVote(request) => encoded(seat.raft.pre_vote(request).await),
            Request::InstallSnapshot(vote, snapshot) => {
                encoded(seat.raft.install_full_snapshot(vote, snapshot).await)
            }
            Request::TransferLeader(request) => encoded(seat.raft.handle_transfer_leader(request).await),
        };
        response.ok_or(Refusal::Stopped)
    }

    /// Adds an entry to the log; returns once it is committed and applied here, and the table
    /// with it is [published](AgreedLog::tables). Only the leader can.
    ///
    /// # Errors
    ///
    /// [`ProposeError`] tells whether it happened. Waits at most [`LogConfig::propose_ms`].
    pub async fn propose(&self, entry: TableEntry) -> Result<Proposed, ProposeError> {
        if !fits(&entry, ENTRY_BYTES_MAX) {
            return Err(ProposeError::TooLarge);
        }
        self.write(&self.seat(), LogCommand::Change(entry)).await
    }

    async fn write(&self, seat: &Seat, command: LogCommand) -> Result<Proposed, ProposeError> {
        if !seat.is_running() {
            return Err(ProposeError::Stopped);
        }
        let write = tokio::time::timeout(self.propose_timeout(), seat.raft.client_write(command));
        let response = write.await.map_err(|_| ProposeError::InDoubt)?.map_err(|error| match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                self.not_leader(seat, &forward)
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) => ProposeError::InDoubt,
            // Only changes of the voters have these, and only with conditions.
            RaftError::APIError(
                ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_),
            ) => ProposeError::Unavailable,
            // It stopped in the middle: the entry may have reached others, who commit it.
            RaftError::Fatal(_) => ProposeError::InDoubt,
        })?;
        let Reply { version, applied } = response.data;
        applied.map(|applied| Proposed { table_version: version, applied }).ok_or(ProposeError::Unavailable)
    }

    fn not_leader(&self, seat: &Seat, forward: &ForwardToLeader<LogTypes>) -> ProposeError {
        match forward.leader_id {
            Some(leader) => ProposeError::NotLeader(Some(leader)),
            // A leader out of touch with its voters says so without naming anybody.
            None if seat.raft.is_leader() => ProposeError::Unavailable,
            None => ProposeError::NotLeader(None),
        }
    }

    /// The table with every entry that was committed before the call. Only the leader can.
    ///
    /// # Errors
    ///
    /// [`ReadError`]. Waits at most [`LogConfig::propose_ms`].
    pub async fn read_table(&self) -> Result<Arc<Table>, ReadError> {
        let seat = self.seat();
        if !seat.is_running() {
            return Err(ReadError::Stopped);
        }
        let read = tokio::time::timeout(
            self.propose_timeout(),
            seat.raft.ensure_linearizable(ReadPolicy::ReadIndex),
        );
        read.await.map_err(|_| ReadError::Unavailable)?.map_err(|error| match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                ReadError::NotLeader(forward.leader_id)
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => ReadError::Unavailable,
            RaftError::Fatal(_) => ReadError::Stopped,
        })?;
        seat.machine.table().ok_or(ReadError::Unavailable)
    }

    /// Every table applied here, the latest at any time; `None` until there is one. A node that
    /// is neither voter nor learner gets none.
    pub fn tables(&self) -> watch::Receiver<Option<Arc<Table>>> {
        self.shared.tables.subscribe()
    }

    /// Who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.shared.leadership.subscribe()
    }

    /// Says who shall vote, with their QUIC addresses. Returns at once; the change is made in the
    /// background for as long as this node leads in the current term: newcomers first catch up as
    /// learners, then the voters are exchanged in one step, and whoever is not listed is dropped.
    /// A leader that isn't listed itself hands over and steps down.
    ///
    /// Safe to call repeatedly; the latest call counts. Watch [`leadership`](AgreedLog::leadership)
    /// for the outcome.
    ///
    /// # Errors
    ///
    /// [`ProposeError::NotLeader`], or [`ProposeError::Unavailable`] for an empty list.
    pub fn set_voters(&self, voters: BTreeMap<NodeId, SocketAddr>) -> Result<(), ProposeError> {
        if voters.is_empty() {
            return Err(ProposeError::Unavailable);
        }
        let (term, is_me, leader) = {
            let leadership = self.shared.leadership.borrow();
            (leadership.term, leadership.is_me, leadership.leader)
        };
        if !is_me {
            return Err(ProposeError::NotLeader(leader));
        }
        let desired = Some(DesiredVoters { term, voters });
        self.shared.desired.send_if_modified(|current| {
            let differs = *current != desired;
            if differs {
                *current = desired;
            }
            differs
        });
        Ok(())
    }

    /// A glance at this node's part.
    pub fn status(&self) -> LogStatus {
        let seat = self.seat();
        let metrics = seat.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        LogStatus {
            group: seat.group.get().copied(),
            role: match metrics.state {
                _ if metrics.running_state.is_err() => Role::Stopped,
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index: metrics.last_log_index,
            committed_index: metrics.local_committed.map(|id| id.index),
            applied_index: metrics.last_applied.map(|id| id.index),
            snapshot_index: metrics.snapshot.map(|id| id.index),
            voters: membership.voter_ids().collect(),
            learners: membership.learner_ids().collect(),
        }
    }

    /// Stops for good. The other voters see a dead node; to leave in good order, be removed by
    /// [`set_voters`](AgreedLog::set_voters) first.
    pub async fn shutdown(&self) {
        let _exchanging = self.shared.exchanging.lock().await;
        if let Some(task) = self.shared.voters_task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.seat().close().await;
        self.shared.leadership.send_replace(Leadership::default());
    }

    /// Replaces `old` by a seat without a group. The caller holds `exchanging`.
    async fn exchange_seat(&self, old: &Seat) -> Result<Arc<Seat>, StartError> {
        let shared = &self.shared;
        if !old.is_running() {
            return Err(StartError::Stopped("shutdown was called".to_owned()));
        }
        old.close().await;
        shared.leadership.send_replace(Leadership::default());
        shared.desired.send_replace(None);
        let mut left = old.left.clone();
        left.extend(old.group.get());
        let seat =
            Seat::open(shared.me, &shared.config, &shared.rpc, &shared.tables, &shared.leadership, left)
                .await?;
        let seat = Arc::new(seat);
        *self.seat_slot() = seat.clone();
        Ok(seat)
    }

    /// Waits until exactly these nodes vote and that is committed, as this node sees it.
    #[cfg(test)]
    pub(super) async fn voters_settled(&self, voters: &[NodeId]) {
        let mut metrics = self.seat().raft.server_metrics();
        let settled = |membership: &super::command::StoredMembership| {
            membership.membership().get_joint_config().len() == 1
                && membership.voter_ids().eq(voters.iter().copied())
        };
        while !settled(&metrics.borrow_and_update().committed_membership_config) {
            metrics.changed().await.expect("openraft runs");
        }
    }

    pub(super) fn seat(&self) -> Arc<Seat> {
        self.seat_slot().clone()
    }

    fn seat_slot(&self) -> MutexGuard<'_, Arc<Seat>> {
        // Only ever replaced as a whole.
        self.shared.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn propose_timeout(&self) -> Duration {
        Duration::from_millis(self.shared.config.propose_ms)
    }

    pub(super) fn config(&self) -> &LogConfig {
        &self.shared.config
    }
}

/// Stands for the address of a founder whose table does not list it.
const UNKNOWN_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Seat {
    async fn open(
        me: NodeId,
        config: &LogConfig,
        rpc: &Arc<dyn RpcSender>,
        tables: &TableWatch,
        leadership: &watch::Sender<Leadership>,
        left: Vec<GroupId>,
    ) -> Result<Seat, StartError> {
        let raft_config = config.to_openraft().map_err(|error| StartError::Config(error.to_string()))?;
        let group = Arc::new(OnceLock::new());
        let machine = TableMachine::new(tables.clone());
        let network = Network {
            me,
            group: group.clone(),
            rpc: rpc.clone(),
            rpc_timeout: Duration::from_millis(config.rpc_ms),
        };
        let raft = Raft::new(me, Arc::new(raft_config), network, MemoryLog::default(), machine.clone())
            .await
            .map_err(|error| StartError::Stopped(error.to_string()))?;
        let leadership_task = tokio::spawn(publish_leadership(raft.clone(), leadership.clone()));
        Ok(Seat { raft, machine, group, left, leadership_task })
    }

    /// Stops this seat. Nothing it still has under way is published.
    async fn close(&self) {
        self.leadership_task.abort();
        self.machine.retire();
        // The only error is that the core panicked before; it is stopped either way.
        self.raft.shutdown().await.ok();
    }

    fn is_running(&self) -> bool {
        self.raft.metrics().borrow_watched().running_state.is_ok()
    }
}

/// Publishes who leads until openraft stops.
async fn publish_leadership(raft: Raft, leadership: watch::Sender<Leadership>) {
    let me = *raft.node_id();
    let mut metrics = raft.server_metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            Leadership {
                leader: metrics.current_leader,
                term: metrics.vote.leader_id.term,
                voters: metrics.membership_config.voter_ids().collect(),
                is_me: metrics.state == ServerState::Leader && metrics.current_leader == Some(me),
            }
        };
        leadership.send_if_modified(|published| {
            let differs = *published != now;
            if differs {
                *published = now;
            }
            differs
        });
        if metrics.changed().await.is_err() {
            leadership.send_replace(Leadership::default());
            return;
        }
    }
}

/// Whether `value` encodes to at most `bytes_max` bytes.
fn fits<T: serde::Serialize>(value: &T, bytes_max: usize) -> bool {
    postcard::experimental::serialized_size(value).is_ok_and(|size| size <= bytes_max)
}

/// The encoded response, unless openraft has stopped.
fn encoded<T: serde::Serialize, E>(response: Result<T, E>) -> Option<Bytes> {
    encode_response(&response.ok()?)
}
