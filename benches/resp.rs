//! The front door without a socket: nanoseconds a command of decoding alone, of a connection's
//! pipeline over a node that does nothing, and over the engine of a single node.
//!
//! Commands come in batches, as one read of a socket brings them. `cargo bench --bench resp`

mod rig;

use rig::{Failure, median, results};
use ringdove::engine::config::EngineConfig;
use ringdove::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, TableVersion};
use ringdove::engine::membership::MembershipConfig;
use ringdove::engine::node::Engine;
use ringdove::engine::op;
use ringdove::engine::resp::{Decoded, Decoder, DecoderLimits, Trust};
use ringdove::engine::session::{
    ClientInfo, ConfigRefusal, Connection, ConnectionId, ConnectionLimits, Facts, Host, Op, Stats, Submitted,
    Ticket,
};
use ringdove::engine::table::{Assignment, ClusterSettings, Member, MemberStatus, Survival, Table};
use ringdove::engine::time::Now;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: u16 = 1_024;
const KEYS: u64 = 1_000_000;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(120);
/// Commands a read.
const BATCHES: [usize; 3] = [1, 16, 64];

fn now() -> Now {
    Now { mono_us: 1_000_000, wall_ms: 1_700_000_000_000 }
}

/// A node that is primary of everything; without an engine it answers every operation at once with the
/// same bytes.
struct Node {
    table: Arc<Table>,
    engine: Option<Engine>,
}

const ME: NodeId = NodeId(1);

fn table() -> Table {
    let settings =
        ClusterSettings { partitions: PARTITIONS, replicas: 1, min_copies: 1, survival: Survival::Auto };
    let mut table = Table::new(Incarnation(1), settings);
    table.version = TableVersion(1);
    table.members.insert(ME, member());
    for assignment in &mut table.partitions {
        *assignment = Assignment {
            epoch: Epoch(1),
            origin: Epoch(1),
            primary: ME,
            isr: vec![ME],
            learners: Vec::new(),
            former: Vec::new(),
        };
    }
    table
}

fn member() -> Member {
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (quic, resp, admin) = (at(7379), at(6379), at(9379));
    Member {
        node: ME,
        name: "one".to_owned(),
        quic,
        resp,
        admin,
        zone: None,
        weight: 100,
        status: MemberStatus::Up,
    }
}

impl Node {
    fn idle() -> Node {
        Node { table: Arc::new(table()), engine: None }
    }

    fn working() -> Node {
        let table = Arc::new(table());
        let mut engine = Engine::new(member(), EngineConfig::default(), MembershipConfig::default(), 1);
        engine.table_committed(now(), table.clone());
        let mut node = Node { table, engine: Some(engine) };
        node.flush();
        node
    }

    /// What the driver does when the connections that were ready have run.
    fn flush(&mut self) {
        if let Some(engine) = &mut self.engine {
            engine.flush(now());
            while engine.poll().is_some() {}
        }
    }
}

impl Facts for Node {
    fn now(&self) -> Now {
        now()
    }
    fn me(&self) -> NodeId {
        ME
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
    fn touch(&self, keys: &[(PartitionId, u64)]) {
        if let Some(engine) = &self.engine {
            engine.touch(keys);
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

/// Batches of commands on random keys, encoded.
fn batches(name: &str, commands: usize) -> Vec<Vec<u8>> {
    let mut seed = 7_u64;
    let mut batch = |_| {
        let mut bytes = Vec::new();
        for _ in 0..commands {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            append(&mut bytes, name, (seed >> 33) % KEYS);
        }
        bytes
    };
    (0..40_000 / commands).map(&mut batch).collect()
}

fn append(bytes: &mut Vec<u8>, name: &str, key: u64) {
    let key = format!("key:{key:012}");
    match name {
        "GET" => bytes.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n$16\r\n{key}\r\n").as_bytes()),
        _ => bytes
            .extend_from_slice(format!("*3\r\n$3\r\nSET\r\n$16\r\n{key}\r\n$64\r\n{:064}\r\n", 7).as_bytes()),
    }
}

/// Processor time of this thread in nanoseconds: what else the machine does stays out of it.
fn cpu_ns() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds a command, the median of the rounds.
fn time(batches: &[Vec<u8>], commands: usize, mut run: impl FnMut(&[u8])) -> f64 {
    let mut all = batches.iter().cycle();
    let mut round = |span: Duration| {
        let (start, began_ns, mut count) = (Instant::now(), cpu_ns(), 0_u64);
        while start.elapsed() < span {
            // Reading the clock costs as much as a command.
            for _ in 0..(256 / commands).max(1) {
                if let Some(batch) = all.next() {
                    run(black_box(batch));
                    count += commands as u64;
                }
            }
        }
        (cpu_ns() - began_ns) / count as f64
    };
    round(ROUND);
    median((0..ROUNDS).map(|_| round(ROUND)))
}

fn connect() -> Connection {
    let at = SocketAddr::from(([127, 0, 0, 1], 1));
    Connection::new(ConnectionId(1), at, at, now(), None, ConnectionLimits::default())
}

fn drive(connection: &mut Connection, host: &mut impl Host, batch: &[u8]) {
    connection.receive(batch, host);
    black_box(connection.output().len());
    connection.output().clear();
}

fn decode(decoder: &mut Decoder, batch: &[u8]) {
    let mut at = 0;
    while let Ok(Decoded::Command { consumed }) = decoder.decode(&batch[at..], Trust::Authenticated) {
        black_box(decoder.args(&batch[at..]));
        at += consumed;
        if at == batch.len() {
            break;
        }
    }
}

fn bench() -> Result<(), Failure> {
    let (mut idle, mut working) = (Node::idle(), Node::working());
    let (mut decoder, mut idle_door, mut door) =
        (Decoder::new(DecoderLimits::default()), connect(), connect());
    for key in 0..KEYS {
        let mut bytes = Vec::new();
        append(&mut bytes, "SET", key);
        door.receive(&bytes, &mut working);
        if door.output().as_slice() != b"+OK\r\n" {
            return Err(format!("the engine answers {:?}", String::from_utf8_lossy(door.output())).into());
        }
        door.output().clear();
        if key % 64 == 63 {
            working.flush();
        }
    }
    println!("CPU-ns a command, medians of {ROUNDS} rounds; {KEYS} keys of 16 B, values of 64 B");
    println!(
        "{:<8} {:>12} {:>10} {:>16} {:>16}",
        "", "at a time", "decode", "and the session", "and the engine"
    );
    let mut rows = Vec::new();
    for name in ["GET", "SET"] {
        for commands in BATCHES {
            let batches = batches(name, commands);
            let decoded = time(&batches, commands, |batch| decode(&mut decoder, batch));
            let session = time(&batches, commands, |batch| drive(&mut idle_door, &mut idle, batch));
            let engine = time(&batches, commands, |batch| {
                drive(&mut door, &mut working, batch);
                working.flush();
            });
            println!("{name:<8} {commands:>12} {decoded:>10.0} {session:>16.0} {engine:>16.0}");
            rows.push(serde_json::json!({
                "command": name, "at_a_time": commands, "decode_ns": decoded, "session_ns": session, "engine_ns": engine,
            }));
        }
    }
    results::keep("resp", &rows.into())
}

fn main() {
    results::run("resp", bench);
}
