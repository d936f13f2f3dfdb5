//! Hostile bytes for every decoder: seeded mutations of valid inputs, for some seconds in all. The
//! targets in `fuzz/` go on for as long as one likes.

#[path = "../../fuzz/decoders.rs"]
mod decoders;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ringdove::drivers::pki::Role;
use ringdove::drivers::quic::Hello;
use ringdove::engine::client_wire::frame::encode_request;
use ringdove::engine::client_wire::{ClusterView, FromNode, Outcome, RequestHead, ToNode};
use ringdove::engine::command;
use ringdove::engine::controller::{Held, Order, Report, Sealed, SealedPartition, Taken};
use ringdove::engine::dedup::{DedupLimits, DedupTable, DedupUpdate, RequestTag};
use ringdove::engine::ids::{
    ClientId, Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence, Slot, TableVersion, Version,
};
use ringdove::engine::message::{
    self, Ack, Batch, ForwardOutcome, Message, OverlayEnd, Records, Refusal, SnapshotVerdict, TableStep,
};
use ringdove::engine::op::{Op, OwnedOp};
use ringdove::engine::record::{self, Effect};
use ringdove::engine::resp::Proto;
use ringdove::engine::store::EntryKind;
use ringdove::engine::table::{
    ClusterSettings, MapDefaults, MapDefinition, MemberStatus, Survival, Table, TableChange,
};
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

/// Runs `decode`, the fuzz target of this name, on mutations of `seeds`; a panic names the bytes.
///
/// `RINGDOVE_FUZZ_CORPUS` names a folder of inputs, one folder a target, as fuzzers keep it: what is
/// there is mutated too, and the seeds are added to it. `RINGDOVE_FUZZ_ROUNDS` is how many mutations
/// instead of `rounds`.
fn smoke(target: &str, seed: u64, rounds: usize, seeds: &[Vec<u8>], decode: fn(&[u8])) {
    let mut seeds = seeds.to_vec();
    if let Some(corpus) = std::env::var_os("RINGDOVE_FUZZ_CORPUS") {
        let folder = std::path::Path::new(&corpus).join(target);
        std::fs::create_dir_all(&folder).expect("a folder for the corpus");
        let kept = std::fs::read_dir(&folder).expect("the folder can be read");
        let kept = kept.map(|entry| std::fs::read(entry.expect("an input").path()).expect("an input"));
        let mut kept: Vec<Vec<u8>> = kept.collect();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).expect("a file in it");
        }
        // The same seed and corpus must give the same inputs.
        kept.sort_unstable();
        seeds.append(&mut kept);
    }
    let rounds = match std::env::var("RINGDOVE_FUZZ_ROUNDS") {
        Ok(rounds) => rounds.parse().expect("RINGDOVE_FUZZ_ROUNDS is a number"),
        Err(_) => rounds,
    };
    seeds.iter().for_each(|seed| decode(seed));
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..rounds {
        let bytes = match round % 16 {
            0 => {
                let mut bytes = vec![0; random.random_range(0..300)];
                random.fill_bytes(&mut bytes);
                bytes
            }
            _ => mutate(&seeds, &mut random),
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| decode(&bytes))) {
            eprintln!("seed {seed}, round {round}, input: {}", bytes.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    }
    println!("{target}: {rounds} mutations of {} inputs", seeds.len());
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
    smoke("resp", 1, ROUNDS, &seeds, decoders::resp);
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
    smoke("reply", 2, ROUNDS, &seeds, decoders::reply);
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
    smoke("record", 3, ROUNDS, &[records()], decoders::record);
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
    smoke("peer", 4, ROUNDS / 4, &seeds, decoders::peer);
}

/// One message of each kind that means something to the member under test.
fn messages(records: &[u8], op: &[u8], dedup: &[u8]) -> Vec<(PartitionId, Vec<u8>)> {
    let (epoch, me) = (Epoch(1), NodeId(1));
    let [led, followed, learned] = [PartitionId(0), PartitionId(1), PartitionId(2)];
    let crc = crc32fast::hash(records);
    let table = decoders::small_table();
    let mut next = table.clone();
    next.apply(&[TableChange::SetStatus(NodeId(3), MemberStatus::Down)]);
    let batch = Batch {
        number: 1,
        sent_us: 9_000_000,
        table_version: table.version,
        term: 2,
        leader: Some(NodeId(2)),
        load: None,
    };
    let count = effects().len() as u32;
    let sealed = SealedPartition { partition: led, epoch: Epoch(2), last: Sequence(3) };
    let held = Held {
        partition: led,
        epoch: Epoch(2),
        copy: Some((epoch, Sequence(3))),
        current: true,
        taken: Taken::Records { after: Sequence(0), last: Sequence(2) },
    };
    let end = OverlayEnd { last: Sequence(9), clock: Version(99), dedup };
    let kinds = [
        (followed, Message::Batch(batch)),
        (
            followed,
            Message::Records(Records {
                partition: followed,
                epoch,
                first: Sequence(1),
                count,
                commit: Sequence(0),
                records,
            }),
        ),
        (
            led,
            Message::Ack(Ack {
                number: 1,
                echo_us: 9_000_000,
                granted: true,
                table_version: table.version,
                refused: vec![(led, Refusal::Gap(Sequence(1)))],
            }),
        ),
        (led, Message::Forward { id: 1, patience_ms: 100, op }),
        (led, Message::ForwardReply { id: 1, outcome: ForwardOutcome::Done, reply: b"+OK\r\n" }),
        (learned, Message::Attach { partition: learned, epoch, attempt: 1, after: Sequence(0) }),
        (led, Message::Attached { partition: led, attempt: 1 }),
        (
            learned,
            Message::SnapshotChunk {
                partition: learned,
                attempt: 1,
                number: 0,
                as_of: Sequence(0),
                crc,
                entries: records,
                dedup,
            },
        ),
        (led, Message::SnapshotAck { partition: led, attempt: 1, number: 0 }),
        (
            learned,
            Message::SnapshotEnd {
                partition: learned,
                attempt: 1,
                sequence: Sequence(0),
                count: 1,
                digest: 0,
                clock: Version(9),
            },
        ),
        (led, Message::SnapshotDone { partition: led, attempt: 1, verdict: SnapshotVerdict::Equal }),
        (followed, Message::Digest { partition: followed, epoch, sequence: Sequence(0), digest: 0 }),
        (led, Message::DigestMismatch { partition: led, epoch, sequence: Sequence(0) }),
        (
            followed,
            Message::Overlay {
                partition: followed,
                epoch: Epoch(2),
                number: 0,
                crc,
                records,
                end: Some(end),
            },
        ),
        (led, Message::Table(Box::new(next.clone()))),
        (
            led,
            Message::TableStep(TableStep {
                after: table.version,
                version: TableVersion(table.version.0 + 1),
                partitions: vec![(led, table.partitions[0].clone())],
            }),
        ),
        (led, Message::TablePull { incarnation: Incarnation(0), version: TableVersion(0) }),
        (led, Message::Join { member: table.members[&NodeId(2)].clone(), relayed: false }),
        (led, Message::Report { from: NodeId(2), report: Report::Held(vec![held]), relayed: false }),
        (led, Message::Report { from: NodeId(2), report: Report::Leave, relayed: false }),
        (led, Message::Sealed(Sealed { deposed: NodeId(2), partitions: vec![sealed] })),
    ];
    let orders = [
        Order::Seal { deposed: NodeId(2), partitions: vec![(followed, Epoch(2))] },
        Order::Salvage { deposed: NodeId(2), partitions: vec![(learned, Epoch(2))] },
        Order::Handover { partition: led, epoch, to: NodeId(2) },
        Order::Merge { partition: learned, epoch: Epoch(2), to: me },
    ];
    let encoded = |message: &Message<'_>| {
        let mut bytes = Vec::new();
        message::append(message, &mut bytes);
        bytes
    };
    let orders = orders.map(|order| (led, encoded(&Message::Order { term: 2, order })));
    let kinds = kinds.iter().map(|(partition, message)| (*partition, encoded(message)));
    kinds.chain(orders).collect()
}

/// An encoded operation.
fn operation() -> Vec<u8> {
    let args: [&[u8]; 3] = [b"SET", b"key", b"value"];
    let op = Op {
        exactly_once: Some(RequestTag { client: ClientId(5), request: 2, acknowledged_below: 1, age_ms: 3 }),
        ..Op::new(
            command::resolve(&args).expect("a command"),
            Slot::of(b"key").partition(4),
            MapId(0),
            Proto::Resp2,
            &args,
        )
    };
    OwnedOp::new(&op).encoded().0.to_vec()
}

/// Exactly-once state: one update, and a table of it.
fn exactly_once() -> [Vec<u8>; 2] {
    let update =
        DedupUpdate { client: ClientId(5), request: 2, acknowledged_below: 1, at_ms: 9, reply: b"+OK\r\n" };
    let mut table = DedupTable::new(DedupLimits::default());
    table.record(&update);
    let (mut one, mut all) = (Vec::new(), Vec::new());
    update.encode(&mut one);
    table.encode(&mut all);
    [one, all]
}

#[test]
fn a_member_and_whatever_the_others_say() {
    let (records, op, [_, dedup]) = (records(), operation(), exactly_once());
    let seeds: Vec<Vec<u8>> = messages(&records, &op, &dedup)
        .into_iter()
        .map(|(partition, message)| {
            // From the primary that it concerns; then time passes.
            let from = if partition == PartitionId(0) { 2 } else { 4 };
            let mut input = vec![1 + from % 2, message.len() as u8];
            input.extend(message);
            input.extend([248, 8]);
            input
        })
        .collect();
    smoke("member", 7, ROUNDS / 4, &seeds, decoders::member);
}

#[test]
fn gossip_between_members() {
    let made_up = [&[1, 20][..], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1, 2, 0, 0, 3]].concat();
    let seeds = [
        [8, 6, 6, 6, 6, 8, 6, 6, 6, 6, 6, 40, 6, 6, 6, 248, 6, 6, 6, 6, 6, 6].to_vec(),
        [16, 6, 2, 3, 6, 4, 20, 7, 16, 5, 30, 9, 6, 196, 11, 1, 6, 132, 40, 2, 248, 248].to_vec(),
        made_up,
    ];
    smoke("gossip", 8, ROUNDS / 4, &seeds, decoders::gossip);
}

#[test]
fn entries_of_the_agreed_log() {
    let (partition, epoch, node) = (PartitionId(2), Epoch(1), NodeId(1));
    let changes = [
        TableChange::PutMember(decoders::small_table().members[&NodeId(2)].clone()),
        TableChange::SetStatus(NodeId(3), MemberStatus::Down),
        TableChange::RemoveMember(NodeId(3)),
        TableChange::AddLearner { partition: PartitionId(0), epoch, node: NodeId(3) },
        TableChange::Complete { partition, epoch, node, since: TableVersion(1) },
        TableChange::RemoveReplica { partition, epoch, node: NodeId(3) },
        TableChange::RemoveLagging { partition, epoch, node: NodeId(3), sound: true },
        TableChange::RemoveLearner { partition, epoch, node },
        TableChange::Failover {
            partition,
            epoch,
            primary: NodeId(3),
            isr: vec![NodeId(3)],
            last: Sequence(4),
        },
        TableChange::Recover { partition, epoch, primary: node, accepted: true },
        TableChange::Handover { partition, epoch, to: NodeId(3) },
        TableChange::CancelHandover { partition, epoch },
        TableChange::AcceptLoss { partition, epoch, primary: node, backups: vec![NodeId(3)] },
        TableChange::DefineMap(MapDefinition { name: "m".into(), defaults: MapDefaults::default() }),
        TableChange::NewIncarnation(Incarnation(decoders::INCARNATION.0 + 1)),
    ];
    let encoded = |change: &TableChange| postcard::to_stdvec(change).expect("plain fields");
    let mut seeds: Vec<_> = changes.iter().map(encoded).collect();
    seeds.push(changes.iter().flat_map(encoded).collect());
    seeds.push(postcard::to_stdvec(&decoders::small_table()).expect("plain fields"));
    smoke("table", 9, ROUNDS / 4, &seeds, decoders::table);
}

#[test]
fn what_requests_and_messages_carry() {
    let hello = Hello {
        protocol_min: 1,
        protocol_max: 1,
        role: Role::Node,
        node: NodeId(2),
        incarnation: decoders::INCARNATION,
        quic: ([127, 0, 0, 1], 2).into(),
        name: "n2".into(),
        expects: Some(NodeId(1)),
        wall_ms: 5,
    };
    let mut seeds = vec![hello.encode()[2..].to_vec(), operation()];
    seeds.extend(exactly_once());
    // Requests of voters: version, kind, group, then a vote (term 1, node 1) and what it is about.
    for kind in 1..=5 {
        let committed = u8::from(!matches!(kind, 2 | 3));
        let mut request = vec![1, kind];
        request.extend([0; 16]);
        request.extend([1, 1, committed, 0, 0, 0, 0, 0]);
        seeds.push(request);
    }
    smoke("control", 10, ROUNDS, &seeds, decoders::control);
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
    smoke("client_wire", 5, ROUNDS, &[request, reply, view], decoders::client_wire);
}

#[test]
fn configuration_files() {
    let seeds = texts(&[
        "name = \"a\"\nseed = [\"10.0.0.1:7379\", \"b:1\"]\nmax-memory = \"2GiB\"\npartitions = 64\n",
        "# comment\nreplicas = 3\nmin-copies = 2\neviction = 'allkeys-lru'\nresp-redirect = true\n",
        "quic = \"127.0.0.1:0\"\nlog = \"info,ringdove=debug\"\ndrain_timeout = \"9s\"\nsurvival = 'majority'\n",
    ]);
    smoke("config", 6, ROUNDS / 4, &seeds, decoders::config);
}
