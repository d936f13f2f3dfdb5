//! A cluster in this process for tests: real sessions, commands, storage and exactly-once tables;
//! channels in memory instead of QUIC, one store shared by all nodes instead of replication, and
//! faults on demand.

use super::dial::{BoxFuture, Channel, Dial, DialFailure};
use super::{Client, ClientConfig};
use crate::engine::client_wire::{
    ClientHost, ClientSession, ClusterView, Outcome, Refusal, Request, SessionLimits, Ticket,
};
use crate::engine::command::{self, Plan, Step};
use crate::engine::dedup::{DedupLimits, DedupTable, DedupUpdate, RequestTag, Verdict};
use crate::engine::hlc::Hlc;
use crate::engine::ids::{Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence, Slot};
use crate::engine::record::{Limits, RecordLog};
use crate::engine::resp::Proto;
use crate::engine::store::{Arena, FencingToken, Keyspace, KeyspaceContext, Shard};
use crate::engine::table::{
    ClusterSettings, MapDefaults, MapDefinition, Member, MemberStatus, Survival, Table,
};
use crate::engine::time::Now;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

const PARTITIONS: u16 = 4;
const PORT_MIN: u16 = 9_000;

/// What happens to the next command that reaches a node instead of being answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The connection breaks and the command does not run.
    LoseRequest,
    /// The command runs and the connection breaks before its reply.
    LoseReply,
    /// The command does not run, and this is the outcome.
    Answer(Outcome),
    /// The command runs, and this is the outcome nevertheless.
    AnswerAfter(Outcome),
    /// The node falls silent, pings included.
    Silence,
}

/// The cluster. Clones are the same one.
#[derive(Clone)]
pub(crate) struct FakeCluster {
    state: Arc<Mutex<State>>,
    /// The table's version; changes wake the nodes.
    changed: watch::Sender<u64>,
}

struct State {
    table: Table,
    arena: Arena,
    partitions: Vec<Partition>,
    faults: VecDeque<Fault>,
    /// Answer `Moved` where another node is primary, rather than forward.
    redirects: bool,
    untrusted: bool,
    /// Commands that reached each node.
    commands: Vec<u64>,
    dials: u64,
    /// Partition commands that ran.
    executed: u64,
    clock_ms: u64,
}

struct Partition {
    shard: Shard,
    hlc: Hlc,
    dedup: DedupTable,
    sequence: Sequence,
}

impl FakeCluster {
    /// A cluster of `nodes` nodes that share four partitions.
    pub(crate) fn new(nodes: usize) -> FakeCluster {
        let settings =
            ClusterSettings { partitions: PARTITIONS, replicas: 1, min_copies: 1, survival: Survival::Auto };
        let mut table = Table::new(Incarnation(1), settings);
        table.version.0 = 1;
        for index in 0..nodes {
            let (node, quic) = (node_id(index), address(index));
            table.members.insert(node, Member::up(node, format!("node {index}"), quic));
        }
        for (index, assignment) in table.partitions.iter_mut().map(Arc::make_mut).enumerate() {
            assignment.epoch = Epoch(1);
            assignment.primary = node_id(index % nodes);
            assignment.isr = vec![assignment.primary];
        }
        let partition = || Partition {
            shard: Shard::new(),
            hlc: Hlc::default(),
            dedup: DedupTable::new(DedupLimits::default()),
            sequence: Sequence(0),
        };
        let state = State {
            table,
            arena: Arena::new(),
            partitions: (0..PARTITIONS).map(|_| partition()).collect(),
            faults: VecDeque::new(),
            redirects: false,
            untrusted: false,
            commands: vec![0; nodes],
            dials: 0,
            executed: 0,
            clock_ms: 1_000_000,
        };
        FakeCluster { state: Arc::new(Mutex::new(state)), changed: watch::Sender::new(1) }
    }

    /// A client whose only seed is the first node.
    pub(crate) async fn client(&self) -> Client {
        self.client_with(self.config()).await
    }

    pub(crate) async fn client_with(&self, config: ClientConfig) -> Client {
        Client::connect_by(config, Box::new(self.clone())).await.unwrap()
    }

    /// The configuration of [`client`](Self::client).
    pub(crate) fn config(&self) -> ClientConfig {
        ClientConfig::new([address(0).to_string()])
    }

    /// The next commands meet with these faults.
    pub(crate) fn inject(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.extend(faults);
    }

    pub(crate) fn redirect(&self) {
        self.state().redirects = true;
    }

    pub(crate) fn distrust(&self) {
        self.state().untrusted = true;
    }

    /// Commands that reached each node so far.
    pub(crate) fn commands(&self) -> Vec<u64> {
        self.state().commands.clone()
    }

    /// How often a partition ran a command.
    pub(crate) fn executed(&self) -> u64 {
        self.state().executed
    }

    pub(crate) fn dials(&self) -> u64 {
        self.state().dials
    }

    pub(crate) fn primary_of(&self, key: &[u8]) -> usize {
        let state = self.state();
        let partition = state.table.partition_of(Slot::of(key));
        index_of(state.table.partitions[partition.index()].primary)
    }

    /// Moves the partition of a key. The nodes say so if `announced`.
    pub(crate) fn move_key(&self, key: &[u8], to: usize, announced: bool) {
        let mut state = self.state();
        let partition = state.table.partition_of(Slot::of(key));
        let assignment = Arc::make_mut(&mut state.table.partitions[partition.index()]);
        assignment.epoch = assignment.epoch.next();
        assignment.primary = node_id(to);
        state.table.version.0 += 1;
        if announced {
            let version = state.table.version.0;
            drop(state);
            self.changed.send_replace(version);
        }
    }

    /// Kills a node; its partitions go to `heir`.
    pub(crate) fn kill(&self, node: usize, heir: usize) {
        let mut state = self.state();
        for assignment in &mut state.table.partitions {
            if assignment.primary == node_id(node) {
                let assignment = Arc::make_mut(assignment);
                assignment.epoch = assignment.epoch.next();
                assignment.primary = node_id(heir);
            }
        }
        if let Some(member) = state.table.members.get_mut(&node_id(node)) {
            member.status = MemberStatus::Down;
        }
        state.table.version.0 += 1;
        let version = state.table.version.0;
        drop(state);
        self.changed.send_replace(version);
    }

    /// Says that a node is to be found at this address.
    pub(crate) fn locate(&self, node: usize, quic: SocketAddr) {
        if let Some(member) = self.state().table.members.get_mut(&node_id(node)) {
            member.quic = quic;
        }
    }

    /// Moves the clock that expiry follows.
    pub(crate) fn pass(&self, time: Duration) {
        self.state().clock_ms += u64::try_from(time.as_millis()).unwrap();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Drives one connection of a node until it breaks.
    pub(crate) async fn serve(self, node: usize, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut changed = self.changed.subscribe();
        let mut session = ClientSession::new(SessionLimits::default(), self.state().view());
        let mut host = Host { cluster: self.clone(), node, done: Vec::new(), fate: Fate::GoOn };
        let (mut input, mut output) = (vec![0; 4_096], Vec::new());
        loop {
            session.take_output(&mut output);
            if stream.write_all(&output).await.is_err() {
                return;
            }
            tokio::select! {
                read = stream.read(&mut input), if session.wants_input() => {
                    let Ok(count @ 1..) = read else { return };
                    session.receive(&input[..count], &mut host).unwrap();
                }
                _ = changed.changed() => {
                    if !self.state().table.is_live(node_id(node)) {
                        return;
                    }
                    session.push_view(self.state().view());
                }
            }
            for (ticket, done) in host.done.drain(..) {
                match done {
                    Done::Reply(outcome, reply) => session.complete(ticket, outcome, &reply),
                    Done::Map(map) => session.map_opened(ticket, map),
                }
            }
            match host.fate {
                Fate::GoOn => {}
                Fate::Break => return,
                Fate::Silence => std::future::pending().await,
            }
        }
    }
}

impl Dial for FakeCluster {
    fn dial(&self, to: SocketAddr) -> BoxFuture<'_, Result<Channel, DialFailure>> {
        Box::pin(async move {
            let failure = |why: &str, hopeless| DialFailure { why: why.to_owned(), hopeless };
            let node = usize::from(to.port() - PORT_MIN);
            {
                let mut state = self.state();
                state.dials += 1;
                if state.untrusted {
                    return Err(failure("not trusted", true));
                }
                if !state.table.is_live(node_id(node)) {
                    return Err(failure("nobody there", false));
                }
            }
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            tokio::spawn(self.clone().serve(node, theirs));
            let (read, write) = tokio::io::split(ours);
            Ok(Channel { read: Box::new(read), write: Box::new(write), _connection: Box::new(()) })
        })
    }
}

/// One connection's view of the cluster.
struct Host {
    cluster: FakeCluster,
    node: usize,
    done: Vec<(Ticket, Done)>,
    fate: Fate,
}

enum Done {
    Reply(Outcome, Vec<u8>),
    Map(MapId),
}

/// What becomes of the connection.
enum Fate {
    GoOn,
    Break,
    Silence,
}

impl ClientHost for Host {
    fn submit(&mut self, ticket: Ticket, request: &Request<'_>) {
        let mut state = self.cluster.state();
        state.commands[self.node] += 1;
        let fault = state.faults.pop_front();
        match fault {
            Some(Fault::LoseRequest) => return self.fate = Fate::Break,
            Some(Fault::Silence) => return self.fate = Fate::Silence,
            Some(Fault::Answer(outcome)) => {
                return self.done.push((ticket, Done::Reply(outcome, Vec::new())));
            }
            Some(Fault::LoseReply | Fault::AnswerAfter(_)) | None => {}
        }
        let (outcome, reply) = state.run(node_id(self.node), request);
        match fault {
            Some(Fault::LoseReply) => self.fate = Fate::Break,
            Some(Fault::AnswerAfter(outcome)) => {
                self.done.push((ticket, Done::Reply(outcome, Vec::new())));
            }
            _ => self.done.push((ticket, Done::Reply(outcome, reply))),
        }
    }

    fn open_map(&mut self, ticket: Ticket, name: &str, defaults: MapDefaults) {
        let mut state = self.cluster.state();
        if state.table.map_id(name).is_none() {
            let name = name.to_owned();
            state.table.maps.push(MapDefinition { name, defaults });
        }
        let done = match state.table.map_id(name) {
            Some(map) => Done::Map(map),
            None => Done::Reply(Outcome::Refused(Refusal::MapRefused), b"refused".to_vec()),
        };
        self.done.push((ticket, done));
    }

    fn view(&mut self) -> Arc<[u8]> {
        self.cluster.state().view()
    }
}

impl State {
    fn view(&self) -> Arc<[u8]> {
        ClusterView::of(&self.table).encode().into()
    }

    fn run(&mut self, node: NodeId, request: &Request<'_>) -> (Outcome, Vec<u8>) {
        let head = &request.head;
        let ok = |reply: Vec<u8>| (Outcome::Ok, reply);
        let planned = command::resolve(&request.args).and_then(|spec| {
            let plan = command::plan(spec, &request.args, Proto::Resp3, PARTITIONS, 7)?;
            Ok((spec, plan))
        });
        let (spec, plan) = match planned {
            Ok(planned) => planned,
            Err(refusal) => return ok(format!("-{refusal}\r\n").into_bytes()),
        };
        match plan {
            Plan::Session(_) => ok(b"+PONG\r\n".to_vec()),
            Plan::One { partition, .. } => {
                let primary = self.table.partitions[partition.index()].primary;
                if self.redirects && primary != node {
                    return (Outcome::Moved { table_version: self.table.version }, Vec::new());
                }
                assert_eq!(head.partition, Some(partition), "the client's idea of the partition");
                match head.exactly_once {
                    Some(tag) => self.run_once(spec, partition, head.map, &request.args, &tag),
                    None => ok(self.execute(spec, partition, head.map, &request.args)),
                }
            }
            Plan::Gather(mut gather) => {
                assert!(head.exactly_once.is_none(), "a command in parts can't be numbered");
                loop {
                    let mut replies = Vec::new();
                    while let Some(sub) = gather.next_sub() {
                        let reply = self.execute(sub.spec, sub.partition, head.map, &sub.args);
                        replies.push((sub.index, reply));
                    }
                    let steps: Vec<Step> =
                        replies.iter().map(|(index, reply)| gather.on_reply(*index, reply)).collect();
                    if replies.is_empty() || steps.contains(&Step::Done) {
                        let mut reply = Vec::new();
                        gather.write_reply(&mut reply);
                        return ok(reply);
                    }
                }
            }
        }
    }

    fn run_once(
        &mut self,
        spec: &'static command::CommandSpec,
        partition: PartitionId,
        map: MapId,
        args: &[&[u8]],
        tag: &RequestTag,
    ) -> (Outcome, Vec<u8>) {
        match self.partitions[partition.index()].dedup.check(tag, self.clock_ms) {
            Verdict::Duplicate(reply) => return (Outcome::Ok, reply.to_vec()),
            Verdict::Forgotten => return (Outcome::Refused(Refusal::Forgotten), Vec::new()),
            Verdict::Fresh => {}
        }
        let reply = self.execute(spec, partition, map, args);
        let update = DedupUpdate::of(tag, self.clock_ms, &reply);
        self.partitions[partition.index()].dedup.record(&update);
        (Outcome::Ok, reply)
    }

    fn execute(
        &mut self,
        spec: &'static command::CommandSpec,
        partition: PartitionId,
        map: MapId,
        args: &[&[u8]],
    ) -> Vec<u8> {
        self.executed += 1;
        let home = &mut self.partitions[partition.index()];
        home.sequence = home.sequence.next();
        let context = KeyspaceContext {
            now: Now { mono_us: self.clock_ms * 1_000, wall_ms: self.clock_ms },
            partition,
            partition_count: PARTITIONS,
            entropy: 7,
            token: FencingToken {
                incarnation: self.table.incarnation,
                epoch: self.table.partitions[partition.index()].epoch,
                sequence: home.sequence,
            },
            maps: &self.table.maps,
            limits: Limits::default(),
        };
        let mut log = RecordLog::new();
        let mut keys = Keyspace::new(&mut home.shard, &mut self.arena, &mut home.hlc, &mut log, context);
        let mut reply = Vec::new();
        let request =
            command::Request { args, map, proto: Proto::Resp3, key_hash: None, long: Default::default() };
        command::execute(spec, request, &mut keys, &mut reply);
        reply
    }
}

fn node_id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

fn index_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT_MIN + index as u16))
}
