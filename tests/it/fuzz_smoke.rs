//! Hostile bytes for every decoder: seeded mutations of valid inputs, for some seconds in all. The
//! targets in `fuzz/` go on for as long as one likes.

#[path = "../../fuzz/decoders.rs"]
mod decoders;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ringdove::engine::client_wire::frame::encode_request;
use ringdove::engine::client_wire::{ClusterView, FromNode, Outcome, RequestHead, ToNode};
use ringdove::engine::ids::{
    Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence, TableVersion, Version,
};
use ringdove::engine::message::{self, Batch, Message, Records};
use ringdove::engine::record::{self, Effect};
use ringdove::engine::store::EntryKind;
use ringdove::engine::table::{ClusterSettings, Survival, Table};
use std::panic::{AssertUnwindSafe, catch_unwind};

const ROUNDS: usize = 20_000;

/// Bytes that decoders care about.
const TELLING: [&[u8]; 12] = [
    b"\r\n",
    b"*",
    b"$",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"\"",
    b"\xFF\xFF\xFF\xFF",
    b"\0\0\0\0",
    b"\x80",
    b"=",
    b"[",
];

fn mutate(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds[random.random_range(0..seeds.len())].clone();
    for _ in 0..random.random_range(0..6) {
        let at = random.random_range(0..=bytes.len());
        let until = random.random_range(at..=bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] = random.random(),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            2 => {
                bytes.drain(at..until.min(at + 16));
            }
            3 => {
                let telling = TELLING[random.random_range(0..TELLING.len())];
                bytes.splice(at..at, telling.iter().copied());
            }
            4 => bytes.truncate(at),
            _ => {
                let other = &seeds[random.random_range(0..seeds.len())];
                let from = random.random_range(0..=other.len());
                bytes.splice(at..until, other[from..].iter().copied());
            }
        }
        bytes.truncate(16 << 10);
    }
    bytes
}

/// Runs `decode` on mutations of `seeds`; a panic names the bytes.
fn smoke(seed: u64, rounds: usize, seeds: &[Vec<u8>], decode: fn(&[u8])) {
    seeds.iter().for_each(|seed| decode(seed));
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let bytes = match round % 16 {
            0 => {
                let mut bytes = vec![0; random.random_range(0..300)];
                random.fill_bytes(&mut bytes);
                bytes
            }
            _ => mutate(seeds, &mut random),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| decode(&bytes))) {
            eprintln!("seed {seed}, round {round}, input: {}", bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn commands_of_redis_clients() {
    let seeds = texts(&[
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n*1\r\n$4\r\nPING\r\n",
        "PING\r\nset k \"a b\\x41\\n\" 'it\\'s'\r\n\r\n",
        "*0\r\n*-1\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    ]);
    smoke(1, ROUNDS, &seeds, decoders::resp);
}

#[test]
fn replies_to_clients() {
    let seeds = texts(&[
        "*3\r\n:1\r\n$3\r\nabc\r\n-ERR no\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
        "~2\r\n#t\r\n,1.5e3\r\n",
        "=7\r\ntxt:abc\r\n(123456789012345678901234567890\r\n",
        "$-1\r\n*-1\r\n",
    ]);
    smoke(2, ROUNDS, &seeds, decoders::reply);
}

/// A small table.
fn table() -> Table {
    let settings = ClusterSettings { partitions: 16, replicas: 2, min_copies: 2, survival: Survival::Auto };
    Table::new(Incarnation(1), settings)
}

/// One effect of each kind.
fn effects() -> Vec<Effect<'static>> {
    let (map, key, version) = (MapId(3), &b"key"[..], Version(77));
    vec![
        Effect::Put { map, key, value: b"value", kind: EntryKind::String, expire_at_ms: 12_345, version },
        Effect::Delete { map, key, version },
        Effect::Clear { map, version },
        Effect::Expire { map, key, expire_at_ms: 99, version },
    ]
}

fn records() -> Vec<u8> {
    let mut bytes = Vec::new();
    effects().iter().for_each(|effect| record::encode(effect, &mut bytes));
    bytes
}

#[test]
fn records_between_nodes() {
    smoke(3, ROUNDS, &[records()], decoders::record);
}

#[test]
fn frames_between_nodes() {
    let records = records();
    let batch = Batch {
        number: 7,
        sent_us: 1_000_000,
        table_version: TableVersion(4),
        term: 2,
        leader: Some(NodeId(9)),
        load: None,
    };
    let messages = [
        Message::Batch(batch),
        Message::Records(Records {
            partition: PartitionId(7),
            epoch: Epoch(3),
            first: Sequence(9),
            count: 4,
            commit: Sequence(8),
            records: &records,
        }),
        Message::TablePull { incarnation: Incarnation(1), version: TableVersion(2) },
        Message::Table(Box::new(table())),
    ];
    let mut seeds = Vec::new();
    for tag in 1..4u8 {
        let mut body = Vec::new();
        message::begin(Incarnation(1), &mut body);
        messages.iter().for_each(|message| message::append(message, &mut body));
        let mut frame = vec![tag];
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&body);
        seeds.push(frame);
        // As a frame's inside alone, the first byte aside.
        seeds.push([&[tag][..], &body].concat());
    }
    // A table is long; the others are quick.
    smoke(4, ROUNDS / 4, &seeds, decoders::peer);
}

#[test]
fn frames_of_quic_clients() {
    let mut request = Vec::new();
    let head = RequestHead { id: 5, map: MapId(0), partition: Some(PartitionId(3)), exactly_once: None };
    encode_request(&mut request, &head, &[b"SET", b"key", b"value"]);
    ToNode::Ping { id: 1 }.encode(&mut request);
    ToNode::TableRequest.encode(&mut request);
    let mut reply = Vec::new();
    FromNode::Response { id: 5, outcome: Outcome::Ok, reply: b"+OK\r\n" }.encode(&mut reply);
    FromNode::Pong { id: 1 }.encode(&mut reply);
    let view = ClusterView::of(&table()).encode();
    smoke(5, ROUNDS, &[request, reply, view], decoders::client_wire);
}

#[test]
fn configuration_files() {
    let seeds = texts(&[
        "name = \"a\"\nseed = [\"10.0.0.1:7379\", \"b:1\"]\nmax-memory = \"2GiB\"\npartitions = 64\n",
        "# comment\nreplicas = 3\nmin-copies = 2\neviction = 'allkeys-lru'\nresp-redirect = true\n",
        "quic = \"127.0.0.1:0\"\nlog = \"info,ringdove=debug\"\ndrain_timeout = \"9s\"\nsurvival = 'majority'\n",
    ]);
    smoke(6, ROUNDS / 4, &seeds, decoders::config);
}
