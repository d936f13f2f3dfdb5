//! A node for tests: all partitions in one place, replies at once or when the test says.

use super::{
    ClientInfo, ConfigRefusal, Connection, ConnectionId, ConnectionLimits, Facts, Host, Op, Stats, Submitted,
    Ticket,
};
use crate::engine::command::{Request, execute};
use crate::engine::hlc::Hlc;
use crate::engine::ids::{Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence};
use crate::engine::record::{Limits, RecordLog};
use crate::engine::store::{Arena, FencingToken, Keyspace, KeyspaceContext, Shard};
use crate::engine::table::{Assignment, ClusterSettings, Member, MemberStatus, Survival, Table};
use crate::engine::time::Now;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

/// The wall time at which tests start, in milliseconds.
pub const START_MS: u64 = 1_700_000_000_000;

/// A node that is primary of everything.
pub struct TestNode {
    pub now: Now,
    pub table: Table,
    pub password: Option<Vec<u8>>,
    pub debug: bool,
    pub config: Vec<(String, String)>,
    pub others: Vec<ClientInfo>,
    pub killed: Vec<ConnectionId>,
    pub slept: Vec<(Ticket, u64)>,
    pub moved: Option<SocketAddr>,
    pub limits: Limits,
    /// Whether submissions wait in `waiting` for [`TestNode::release`].
    pub deferring: bool,
    /// So many submissions are answered at once before that.
    pub at_once: usize,
    pub waiting: VecDeque<(Ticket, Vec<u8>)>,
    shards: Vec<(Shard, Hlc, RecordLog)>,
    arena: Arena,
    entropy: u64,
    writes: u64,
}

impl TestNode {
    pub fn new(partitions: u16) -> TestNode {
        let settings = ClusterSettings { partitions, replicas: 2, min_copies: 1, survival: Survival::Auto };
        let mut table = Table::new(Incarnation(1), settings);
        for number in [1, 2] {
            let node = NodeId(number);
            let address = |port: u16| SocketAddr::from(([127, 0, 0, number as u8], port));
            let (quic, resp, admin) = (address(7379), address(6379), address(9379));
            let (name, status) = (format!("n{number}"), MemberStatus::Up);
            table
                .members
                .insert(node, Member { node, name, quic, resp, admin, zone: None, weight: 100, status });
        }
        for assignment in &mut table.partitions {
            let isr = vec![NodeId(1), NodeId(2)];
            *assignment =
                Arc::new(Assignment { epoch: Epoch(1), primary: NodeId(1), isr, ..Assignment::default() });
        }
        TestNode {
            now: Now { mono_us: 5_000_000, wall_ms: START_MS },
            table,
            password: None,
            debug: false,
            config: vec![
                ("maxmemory".into(), "0".into()),
                ("port".into(), "6379".into()),
                ("save".into(), String::new()),
            ],
            others: Vec::new(),
            killed: Vec::new(),
            slept: Vec::new(),
            moved: None,
            limits: Limits { value_bytes_max: 1 << 20, ..Limits::default() },
            deferring: false,
            at_once: 0,
            waiting: VecDeque::new(),
            shards: (0..partitions).map(|_| (Shard::new(), Hlc::default(), RecordLog::new())).collect(),
            arena: Arena::new(),
            entropy: 1,
            writes: 0,
        }
    }

    pub fn connect(&self) -> Connection {
        self.connect_with(ConnectionLimits::default())
    }

    pub fn connect_with(&self, limits: ConnectionLimits) -> Connection {
        let (remote, local) =
            (SocketAddr::from(([10, 0, 0, 9], 5000)), SocketAddr::from(([127, 0, 0, 1], 6379)));
        Connection::new(ConnectionId(7), remote, local, self.now, self.password.as_deref(), limits)
    }

    pub fn bytes_used(&self) -> u64 {
        self.arena.bytes_used()
    }

    pub fn advance_ms(&mut self, ms: u64) {
        self.now = self.now.plus_us(ms * 1_000);
    }

    /// Completes the `index`th of the waiting operations.
    pub fn release(&mut self, index: usize, connection: &mut Connection) {
        let (ticket, reply) = self.waiting.remove(index).expect("an operation is waiting");
        connection.complete(ticket, &reply, self);
    }

    pub fn run(&mut self, op: Op<'_>, out: &mut Vec<u8>) {
        self.writes += 1;
        let entropy = self.entropy();
        let token =
            FencingToken { incarnation: Incarnation(1), epoch: Epoch(1), sequence: Sequence(self.writes) };
        let (shard, hlc, log) = &mut self.shards[op.partition.index()];
        let context = KeyspaceContext {
            now: self.now,
            partition: op.partition,
            partition_count: self.table.settings.partitions,
            entropy,
            token,
            maps: &self.table.maps,
            limits: self.limits,
        };
        let mut keys = Keyspace::new(shard, &mut self.arena, hlc, log, context);
        execute(
            op.spec,
            Request { args: op.args, map: op.map, proto: op.proto, key_hash: op.key_hash, long: op.long },
            &mut keys,
            out,
        );
    }
}

impl Facts for TestNode {
    fn now(&self) -> Now {
        self.now
    }
    fn me(&self) -> NodeId {
        NodeId(1)
    }
    fn table(&self) -> &Table {
        &self.table
    }
    fn stats(&self) -> Stats {
        Stats {
            keys: 3,
            keys_expiring: 1,
            memory_policy: "noeviction",
            memory_used_bytes: 1_536,
            ..Stats::default()
        }
    }
    fn password(&self) -> Option<&[u8]> {
        self.password.as_deref()
    }
    fn config(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.config.iter().for_each(|(name, value)| visit(name, value));
    }
    fn clients(&self, visit: &mut dyn FnMut(&ClientInfo)) {
        self.others.iter().for_each(visit);
    }
    fn debug_allowed(&self) -> bool {
        self.debug
    }
}

impl Host for TestNode {
    fn submit(&mut self, ticket: Ticket, op: Op<'_>, out: &mut Vec<u8>) -> Submitted {
        if !self.deferring || self.at_once > 0 {
            self.at_once = self.at_once.saturating_sub(1);
            self.run(op, out);
            return Submitted::Done;
        }
        let mut reply = Vec::new();
        if let Some(long) = op.long {
            long.open(false);
        }
        self.run(op, &mut reply);
        let held = reply.len();
        self.waiting.push_back((ticket, reply));
        Submitted::Pending(held)
    }
    fn redirect(&self, _: PartitionId) -> Option<SocketAddr> {
        self.moved
    }
    fn entropy(&mut self) -> u64 {
        self.entropy =
            self.entropy.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.entropy
    }
    fn config_set(&mut self, parameters: &[(&str, &str)]) -> Result<(), (usize, ConfigRefusal)> {
        for (index, (name, value)) in parameters.iter().enumerate() {
            match *name {
                "port" => return Err((index, ConfigRefusal::Immutable)),
                "maxmemory" if value.parse::<u64>().is_err() => {
                    return Err((index, ConfigRefusal::Invalid("argument must be a memory value".into())));
                }
                "maxmemory" => self.config[0].1 = (*value).to_owned(),
                _ => return Err((index, ConfigRefusal::Unknown)),
            }
        }
        Ok(())
    }
    fn reset_stats(&mut self) {}
    fn accept_loss(&mut self) {}
    fn kill(&mut self, connection: ConnectionId) {
        self.killed.push(connection);
    }
    fn sleep(&mut self, ticket: Ticket, us: u64) {
        self.slept.push((ticket, us));
    }
}

/// Runs lines of `command => reply` on one connection to a node of 16 partitions. The command is as
/// typed; the reply is as sent, line ends shown as blanks. `@ms` lets time pass.
pub fn script(text: &str) {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    script_on(&mut node, &mut connection, text);
}

pub fn script_on(node: &mut TestNode, connection: &mut Connection, text: &str) {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(ms) = line.strip_prefix('@') {
            node.advance_ms(ms.parse().expect("milliseconds"));
            continue;
        }
        let (command, expected) = line.rsplit_once("=>").expect("a command and its reply");
        connection.receive(format!("{}\r\n", command.trim()).as_bytes(), node);
        assert_eq!(sent(connection), expected.trim(), "{command}");
    }
}

/// Takes what the connection has to send, line ends shown as blanks.
pub fn sent(connection: &mut Connection) -> String {
    let output = std::mem::take(connection.output());
    String::from_utf8_lossy(&output).replace("\r\n", " ").trim_end().to_owned()
}

/// Runs one command of the named map and shows the reply.
pub fn run_in_map(node: &mut TestNode, map: MapId, command: &[&str]) -> String {
    let args: Vec<&[u8]> = command.iter().map(|arg| arg.as_bytes()).collect();
    let spec = crate::engine::command::resolve(&args).expect("a command");
    let mut out = Vec::new();
    let op = Op::new(spec, PartitionId(0), map, Default::default(), &args);
    node.run(op, &mut out);
    String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
}
