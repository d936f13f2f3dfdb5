//! Nodes without sockets: the engine and what a connection asks of its node, driven by hand.
//!
//! For measuring the way of a command from its bytes to the bytes of its reply.

use bytes::Bytes;
use ringdove::engine::config::EngineConfig;
use ringdove::engine::frame::Class;
use ringdove::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, TableVersion};
use ringdove::engine::membership::MembershipConfig;
use ringdove::engine::node::{Engine, Output};
use ringdove::engine::op;
use ringdove::engine::partition::primary::ReplyBytes;
use ringdove::engine::session::{
    ClientInfo, ConfigRefusal, Connection, ConnectionId, ConnectionLimits, Facts, Host, Op, Stats, Submitted,
    Ticket,
};
use ringdove::engine::table::{Assignment, ClusterSettings, Member, Survival, Table};
use ringdove::engine::time::Now;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

const PARTITIONS: u16 = 1_024;

/// Time stands still.
pub fn now() -> Now {
    Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 }
}

/// A node; without an engine it answers every operation at once with the same bytes.
pub struct Node {
    table: Arc<Table>,
    engine: Option<Engine>,
    frames: Vec<Bytes>,
    replies: Vec<(Ticket, ReplyBytes)>,
}

const PRIMARY: NodeId = NodeId(1);
const BACKUP: NodeId = NodeId(2);

/// The primary of everything has these copies beside it.
fn table(backups: &[NodeId]) -> Arc<Table> {
    let holders: Vec<NodeId> = [PRIMARY].iter().chain(backups).copied().collect();
    let settings = ClusterSettings {
        partitions: PARTITIONS,
        replicas: holders.len() as u8,
        min_copies: holders.len() as u8,
        survival: Survival::Auto,
    };
    let mut table = Table::new(Incarnation(1), settings);
    table.version = TableVersion(1);
    table.members.extend(holders.iter().map(|&node| (node, member(node))));
    for assignment in &mut table.partitions {
        *assignment = Arc::new(Assignment {
            epoch: Epoch(1),
            origin: Epoch(1),
            primary: PRIMARY,
            isr: holders.clone(),
            ..Assignment::default()
        });
    }
    Arc::new(table)
}

fn member(node: NodeId) -> Member {
    Member::up(node, format!("node {node}"), SocketAddr::from(([127, 0, 0, node.0 as u8], 7379)))
}

impl Node {
    /// A node that answers without doing anything.
    pub fn idle() -> Node {
        Node { table: table(&[]), engine: None, frames: Vec::new(), replies: Vec::new() }
    }

    /// A node that holds everything alone.
    pub fn alone() -> Node {
        Node::start(PRIMARY, table(&[]))
    }

    /// The primary of everything and its only backup, linked.
    pub fn pair() -> [Node; 2] {
        let table = table(&[BACKUP]);
        [(PRIMARY, BACKUP), (BACKUP, PRIMARY)].map(|(node, peer)| {
            let mut node = Node::start(node, table.clone());
            if let Some(engine) = &mut node.engine {
                engine.link_up(now(), peer, member(peer).quic, table.incarnation);
            }
            node.flush();
            node.frames.clear();
            node
        })
    }

    fn start(me: NodeId, table: Arc<Table>) -> Node {
        let mut engine = Engine::new(member(me), EngineConfig::default(), MembershipConfig::default(), 1);
        engine.table_committed(now(), table.clone());
        let mut node = Node { table, engine: Some(engine), frames: Vec::new(), replies: Vec::new() };
        node.flush();
        node
    }

    /// What the driver does when the connections that were ready have run.
    pub fn flush(&mut self) {
        let Some(engine) = &mut self.engine else { return };
        engine.flush(now());
        while let Some(output) = engine.poll() {
            match output {
                Output::Send(_, Class::Hot, frame) => self.frames.push(frame),
                Output::Complete(ticket, reply) => self.replies.push((Ticket(ticket.number), reply)),
                _ => {}
            }
        }
    }

    /// The frames of records and acks that left since the last call.
    pub fn frames(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.frames)
    }

    /// Gives a connection the replies that came since the last call.
    pub fn reply(&mut self, connection: &mut Connection) {
        for (ticket, reply) in std::mem::take(&mut self.replies) {
            connection.complete(ticket, &reply, self);
        }
    }

    /// Takes frames of the other node of the pair.
    pub fn take(&mut self, frames: &[Bytes]) {
        let Some(engine) = &mut self.engine else { return };
        let peer = if engine.me() == PRIMARY { BACKUP } else { PRIMARY };
        for frame in frames {
            engine.frame(now(), peer, frame);
        }
    }

    /// What the engine has counted.
    pub fn records_applied(&self) -> u64 {
        self.engine.as_ref().map_or(0, |engine| engine.stats().records_applied)
    }
}

impl Facts for Node {
    fn now(&self) -> Now {
        now()
    }
    fn me(&self) -> NodeId {
        PRIMARY
    }
    fn table(&self) -> &Table {
        &self.table
    }
    fn stats(&self) -> Stats {
        Stats::default()
    }
    fn password(&self) -> Option<&[u8]> {
        None
    }
    fn config(&self, _: &mut dyn FnMut(&str, &str)) {}
    fn clients(&self, _: &mut dyn FnMut(&ClientInfo)) {}
    fn debug_allowed(&self) -> bool {
        false
    }
}

impl Host for Node {
    fn submit(&mut self, ticket: Ticket, op: Op<'_>, out: &mut Vec<u8>) -> Submitted {
        if let Some(engine) = &mut self.engine {
            return engine.submit(now(), op::Ticket { door: 1, number: ticket.0 }, &op, out);
        }
        black_box(op.partition);
        out.extend_from_slice(b"+OK\r\n");
        Submitted::Done
    }
    fn touch(&self, keys: &[(PartitionId, u64)], writes: bool) {
        if let Some(engine) = &self.engine {
            engine.touch(keys, writes);
        }
    }
    fn redirect(&self, _: PartitionId) -> Option<SocketAddr> {
        None
    }
    fn entropy(&mut self) -> u64 {
        4
    }
    fn config_set(&mut self, _: &[(&str, &str)]) -> Result<(), (usize, ConfigRefusal)> {
        Ok(())
    }
    fn reset_stats(&mut self) {}
    fn kill(&mut self, _: ConnectionId) {}
    fn sleep(&mut self, _: Ticket, _: u64) {}
    fn accept_loss(&mut self) {}
}

/// A client's connection to a node.
pub fn connect() -> Connection {
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    Connection::new(ConnectionId(1), at, at, now(), None, ConnectionLimits::default())
}

/// Appends a GET, or a SET of 64 bytes, of a key of 16 bytes.
pub fn append(bytes: &mut Vec<u8>, name: &str, key: u64) {
    let key = format!("key:{key:012}");
    match name {
        "GET" => bytes.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n$16\r\n{key}\r\n").as_bytes()),
        _ => bytes
            .extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$64\r\n{:064}\r\n", 7).as_bytes()),
    }
}
