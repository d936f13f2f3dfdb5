//! What is done with hostile bytes, one function a decoder: decode, and assert what must hold of
//! the outcome. The fuzz targets call these, and so does `tests/it/fuzz_smoke.rs`.

// Each target uses one of them.
#![allow(dead_code)]

use bytes::Bytes;
use ringdove::config::{NodeConfig, Settings};
use ringdove::drivers::quic::Hello;
use ringdove::drivers::raft;
use ringdove::engine::client_wire::{ClusterView, frame};
use ringdove::engine::command;
use ringdove::engine::config::EngineConfig;
use ringdove::engine::dedup::{DedupLimits, DedupTable, DedupUpdate};
use ringdove::engine::frame::{Class, FrameDecoder};
use ringdove::engine::ids::{Epoch, Incarnation, MapId, NodeId, PartitionId, Slot};
use ringdove::engine::membership::{GossipId, Membership, MembershipConfig, MembershipOutput};
use ringdove::engine::message::{self, TableStep};
use ringdove::engine::node::{Engine, Output};
use ringdove::engine::op::{EncodedOp, Op, OwnedOp, Ticket};
use ringdove::engine::record::{self, Limits};
use ringdove::engine::resp::{
    CommonArgs, Decoded, Decoder, DecoderLimits, Front, Proto, Reply, ReplyLimits, Trust,
};
use ringdove::engine::table::{ClusterSettings, Member, Survival, Table, TableChange};
use ringdove::engine::time::Now;
use std::collections::VecDeque;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

const LIMITS: DecoderLimits =
    DecoderLimits { args_max: 64, bulk_bytes_max: 4_096, command_bytes_max: 16_384 };

/// Commands of Redis clients: the same commands however the bytes are cut.
pub fn resp(input: &[u8]) {
    pipeline(input);
    for trust in [Trust::Authenticated, Trust::Stranger] {
        let whole = commands(input, trust, input.len().max(1));
        for cut in [1, 2, 7] {
            assert_eq!(commands(input, trust, cut), whole, "cut every {cut} bytes");
        }
    }
}

/// The commands in `input` as it arrives in pieces, and the breach that ended them.
fn commands(input: &[u8], trust: Trust, piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let mut decoder = Decoder::new(LIMITS);
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            let is_trusted = trust == Trust::Authenticated;
            let common = is_trusted.then(|| common(&mut decoder, &buffer, &mut Front::none())).flatten();
            let owned =
                common.map(|(args, consumed)| (args.iter().map(|arg| arg.to_vec()).collect(), consumed));
            if let Some((args, consumed)) = owned {
                found.push(args);
                buffer.drain(..consumed);
                continue;
            }
            match decoder.decode(&buffer, trust) {
                Ok(Decoded::Command { consumed }) => {
                    assert!(0 < consumed && consumed <= buffer.len());
                    found.push(decoder.args(&buffer).iter().map(|arg| arg.to_vec()).collect());
                    buffer.drain(..consumed);
                }
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(0 < needed && needed <= LIMITS.command_bytes_max + 2);
                    break;
                }
                Err(breach) => return (found, Some(breach.to_string())),
            }
        }
    }
    (found, None)
}

/// The command at the front, if it is a common one: the same as when decoded step by step.
fn common<'a>(
    decoder: &mut Decoder,
    buffer: &'a [u8],
    front: &mut Front<'a>,
) -> Option<(CommonArgs<'a>, usize)> {
    let mut args = CommonArgs::new();
    let consumed = decoder.decode_common(buffer, front, &mut args)?;
    let mut other = Decoder::new(LIMITS);
    assert_eq!(other.decode(buffer, Trust::Authenticated), Ok(Decoded::Command { consumed }));
    assert_eq!(other.args(buffer).as_slice(), args.as_slice());
    Some((args, consumed))
}

/// Common commands one after the other, as long as there are: what is known of the one before changes nothing but that
/// it is the same again.
fn pipeline(mut input: &[u8]) {
    let (mut decoder, mut front, mut before) = (Decoder::new(LIMITS), Front::none(), CommonArgs::new());
    while let Some((args, consumed)) = common(&mut decoder, input, &mut front) {
        if front.is_same() {
            assert_eq!((before.len(), before[0]), (args.len(), args[0]));
        }
        (before, input) = (args, &input[consumed..]);
    }
}

/// Replies, as clients read them: a prefix is never a different reply.
pub fn reply(input: &[u8]) {
    let limits = ReplyLimits { bulk_bytes_max: 4_096, entries_max: 1_024 };
    if let Ok(Some((whole, taken))) = Reply::parse(input, &limits) {
        assert!(0 < taken && taken <= input.len());
        let again = Reply::parse(&input[..taken], &limits);
        assert!(matches!(again, Ok(Some((_, same))) if same == taken), "{whole:?}");
        for cut in [0, taken / 2, taken - 1] {
            let part = Reply::parse(&input[..cut], &limits);
            assert!(matches!(part, Ok(None)), "{whole:?} cut at {cut}: {part:?}");
        }
    }
}

/// Frames between nodes, and the messages in them.
pub fn peer(input: &[u8]) {
    let Some((&tag, stream)) = input.split_first() else { return };
    let class = Class::from_tag(tag % 4).unwrap_or(Class::Hot);
    let mut frames = Vec::new();
    let mut decoder = FrameDecoder::new(class.frame_bytes_max());
    // Every other byte count is as good as any to cut at.
    for piece in stream.chunks(usize::from(tag) + 1) {
        if decoder.push(Bytes::copy_from_slice(piece), &mut frames).is_err() {
            break;
        }
    }
    assert!(frames.iter().map(Bytes::len).sum::<usize>() <= stream.len());
    for frame in frames.iter().map(|frame| &frame[..]).chain([stream]) {
        let Some((incarnation, mut rest)) = message::open(frame) else { continue };
        while !rest.is_empty() {
            let before = rest.len();
            let Ok(decoded) = message::next(&mut rest) else { break };
            assert!(rest.len() < before, "a message of no bytes");
            let mut encoded = Vec::new();
            message::begin(incarnation, &mut encoded);
            message::append(&decoded, &mut encoded);
            let (_, mut again) = message::open(&encoded).expect("just begun");
            assert!(message::next(&mut again).is_ok(), "what was decoded can be sent on");
        }
    }
}

/// Records: what decodes encodes to something that decodes to the same.
pub fn record(input: &[u8]) {
    let limits = Limits { key_bytes_max: 1_024, value_bytes_max: 4_096 };
    let mut rest = input;
    while !rest.is_empty() {
        let before = rest.len();
        let Ok(effect) = record::decode(&mut rest, &limits) else { break };
        assert!(rest.len() < before, "a record of no bytes");
        if let Some(key) = effect.key() {
            assert!(key.len() <= 1_024);
        }
        let mut encoded = Vec::new();
        record::encode(&effect, &mut encoded);
        let mut again = &encoded[..];
        assert_eq!(record::decode(&mut again, &limits).as_ref(), Ok(&effect));
        assert!(again.is_empty());
    }
}

/// Frames of QUIC clients, both ways, and the table that nodes send them.
pub fn client_wire(input: &[u8]) {
    let mut rest = input;
    while let Ok(Some((found, taken))) = frame::split(rest, 64 << 10) {
        assert!(0 < taken && taken <= rest.len());
        let _ = found.to_node();
        let _ = found.from_node();
        rest = &rest[taken..];
    }
    if let Ok(view) = ClusterView::decode(input) {
        assert!(ClusterView::decode(&view.encode()).is_ok());
    }
}

/// What travels inside requests and messages: a hello, a forwarded operation, exactly-once state, and
/// what the voters of the agreed log say.
pub fn control(input: &[u8]) {
    if let Ok(hello) = Hello::decode(input) {
        assert_eq!(Hello::decode(&hello.encode()[2..]), Ok(hello));
    }
    std::hint::black_box(EncodedOp(input).first_key().map(|key| key.hash));
    if let Some(opened) = EncodedOp(input).open() {
        let again = OwnedOp::new(&opened.as_op());
        assert!(again.encoded().open().is_some());
        assert_eq!(again.encoded().partition(), opened.as_op().partition);
    }
    let limits = DedupLimits { clients_max: 4, bytes_max: 1_000, ..DedupLimits::default() };
    if let Ok(mut table) = DedupTable::decode(input, limits) {
        assert!(table.client_count() <= limits.clients_max && table.bytes() <= limits.bytes_max);
        let mut encoded = Vec::new();
        table.encode(&mut encoded);
        let again = DedupTable::decode(&encoded, limits).expect("just encoded");
        assert_eq!(again.bytes(), table.bytes());
        table.merge(&again);
    }
    if let Ok((update, taken)) = DedupUpdate::decode(input) {
        assert!(0 < taken && taken <= input.len());
        let mut table = DedupTable::new(limits);
        table.record(&update);
        assert!(table.bytes() <= limits.bytes_max);
    }
    // The votes of requests name their sender.
    for from in [NodeId(1), NodeId(2)] {
        if let Ok(Some(encoded)) = raft::recode(from, input) {
            assert!(!encoded.is_empty());
        }
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn member_of(id: u64) -> Member {
    let address = address(id as u16);
    Member::up(NodeId(id), format!("n{id}"), address)
}

/// The incarnation of what is under test.
pub const INCARNATION: Incarnation = Incarnation(1 << 16);

/// Three members, four partitions: node 1 is primary, backup and learner of one each.
pub fn small_table() -> Table {
    let settings = ClusterSettings { partitions: 4, replicas: 2, min_copies: 2, survival: Survival::Auto };
    let mut table = Table::new(INCARNATION, settings);
    let owners = [(1, 2), (2, 1), (2, 3), (3, 2)];
    let assign = |(partition, (primary, backup))| TableChange::Assign {
        partition: PartitionId(partition),
        primary: NodeId(primary),
        backups: vec![NodeId(backup)],
    };
    let mut entry: Vec<_> = (1..=3).map(|id| TableChange::PutMember(member_of(id))).collect();
    entry.extend((0..).zip(owners).map(assign));
    table.apply(&entry);
    table.apply(&[TableChange::AddLearner { partition: PartitionId(2), epoch: Epoch(1), node: NodeId(1) }]);
    table
}

/// Entries of the agreed log: whatever they say, the table stays one, and steps lead where it went.
pub fn table(input: &[u8]) {
    let mut table = small_table();
    let mut rest = input;
    for _ in 0..64 {
        let Ok((change, tail)) = postcard::take_from_bytes::<TableChange>(rest) else { break };
        rest = tail;
        let encoded = postcard::to_stdvec(&change).expect("plain fields");
        assert_eq!(postcard::from_bytes::<TableChange>(&encoded).as_ref(), Ok(&change));
        let before = table.clone();
        let applied = table.apply(&[change]);
        assert_eq!(applied.applied + applied.skipped, 1);
        assert_eq!(table.checks(), Ok(()));
        assert_eq!(table.checks_after(&before), Ok(()));
        if let Some(step) = TableStep::between(&before, &table) {
            let mut stepped = Table { version: step.version, ..before };
            for (id, assignment) in step.partitions {
                stepped.partitions[id.index()] = assignment;
            }
            assert!(stepped == table, "the step leads elsewhere");
        }
    }
    let encoded = postcard::to_stdvec(&table).expect("plain fields");
    assert!(postcard::from_bytes::<Table>(&encoded).as_ref() == Ok(&table));
    assert!(ClusterView::decode(&ClusterView::of(&table).encode()).is_ok());
    // And a table that somebody else made.
    if let Ok((other, _)) = postcard::take_from_bytes::<Table>(input)
        && other.checks().is_ok()
    {
        let _ = other.checks_after(&table);
        assert!(ClusterView::decode(&ClusterView::of(&other).encode()).is_ok());
    }
}

/// What is left of the input, as choices.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Three nodes gossip; their datagrams are lost, doubled, changed and made up, and time passes.
pub fn gossip(input: &[u8]) {
    const MEMBERS_MAX: usize = 8;
    const WAITING_MAX: usize = 32;
    let config = MembershipConfig { members_max: MEMBERS_MAX, ..MembershipConfig::default() };
    let mut now = Now { mono_us: 1_000_000, wall_ms: 1_000 };
    let id = |node: u64| GossipId { node: NodeId(node), generation: 0, quic: address(node as u16) };
    let mut nodes: Vec<Membership> = (1..=3)
        .map(|node| {
            let mut membership =
                Membership::new(NodeId(node), address(node as u16), config.clone(), 7 * node);
            membership.set_incarnation(now, INCARNATION);
            membership.join(now, id(node % 3 + 1));
            membership
        })
        .collect();
    let mut waiting: VecDeque<(NodeId, NodeId, Vec<u8>)> = VecDeque::new();
    let mut choices = Choices(input);
    loop {
        for (node, membership) in (1..).zip(&mut nodes) {
            while let Some(output) = membership.poll() {
                match output {
                    MembershipOutput::Send { to, bytes, .. } => {
                        waiting.push_back((NodeId(node), to, bytes.to_vec()));
                    }
                    MembershipOutput::Up(other, _)
                    | MembershipOutput::Suspect(other)
                    | MembershipOutput::Down(other) => assert_ne!(other, NodeId(node)),
                }
            }
            assert_eq!(membership.identity().node, NodeId(node));
            assert!(membership.members().count() <= MEMBERS_MAX);
        }
        while waiting.len() > WAITING_MAX {
            waiting.pop_front();
        }
        let Some(choice) = choices.byte() else { break };
        let mut datagram = match choice % 8 {
            0 => {
                let us = u64::from(choice >> 3) * 100_000;
                now = now.plus_us(us);
                nodes.iter_mut().for_each(|membership| membership.tick(now));
                continue;
            }
            // Made up.
            1 => {
                let from = NodeId(u64::from(choice >> 3) % 4);
                let count = choices.byte().unwrap_or_default();
                let mut bytes = vec![0xA1, choice >> 5];
                bytes.extend_from_slice(&INCARNATION.0.to_le_bytes());
                bytes.extend_from_slice(choices.bytes(usize::from(count)));
                (from, NodeId(1 + u64::from(choice >> 4) % 3), bytes)
            }
            _ => match waiting.pop_front() {
                Some(datagram) => datagram,
                None => continue,
            },
        };
        let (from, to, bytes) = &mut datagram;
        match choice % 8 {
            // Lost.
            2 => continue,
            3 => waiting.push_back((*from, *to, bytes.clone())),
            // Changed, within the same length or not.
            4 | 5 => {
                let at = usize::from(choices.byte().unwrap_or_default()) % bytes.len().max(1);
                let with = choices.byte().unwrap_or_default();
                match choice >> 6 {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at.min(bytes.len()), with),
                    _ => bytes[at] = with,
                }
            }
            _ => {}
        }
        let index = (to.0 as usize).wrapping_sub(1);
        if let Some(membership) = nodes.get_mut(index) {
            membership.datagram(now, *from, bytes);
        }
    }
}

/// A member of a cluster of three gets whatever the other two may send: it neither panics nor sends
/// much more than it got, and what it holds stays consistent.
pub fn member(input: &[u8]) {
    let me = NodeId(1);
    let config = EngineConfig {
        limits: Limits { key_bytes_max: 256, value_bytes_max: 4_096 },
        bytes_max: 1 << 20,
        ..EngineConfig::default()
    };
    let mut engine = Engine::new(member_of(1), config, MembershipConfig::default(), 1);
    let mut now = Now { mono_us: 10_000_000, wall_ms: 1_700_000_000_000 };
    for (node, peer) in [(NodeId(2), address(2)), (NodeId(3), address(3))] {
        engine.link_up(now, node, peer, INCARNATION);
    }
    engine.table_committed(now, Arc::new(small_table()));
    for (number, key) in (0..).zip([b"a", b"b", b"c", b"d"]) {
        let args: [&[u8]; 3] = [b"SET", key, b"value"];
        let Ok(spec) = command::resolve(&args) else { continue };
        let partition = Slot::of(key).partition(4);
        let map = MapId(0);
        let proto = Proto::Resp2;
        let op = Op::new(spec, partition, map, proto, &args);
        let _later = engine.submit(now, Ticket { door: 1, number }, &op, &mut Vec::new());
    }
    let (mut choices, mut sent_bytes) = (Choices(input), 0);
    loop {
        engine.flush(now);
        while let Some(output) = engine.poll() {
            match output {
                Output::Send(node, _, frame) => {
                    assert_ne!(node, me);
                    sent_bytes += frame.len();
                }
                Output::Form(..) | Output::Left => panic!("nobody was asked to found or to leave"),
                _ => {}
            }
        }
        let table = engine.table();
        assert_eq!(table.checks(), Ok(()));
        for partition in engine.partitions() {
            assert!(partition.promised >= partition.epoch);
            if let Some(copy) = &partition.copy {
                assert!(copy.commit <= copy.last);
            }
        }
        let Some(choice) = choices.byte() else { break };
        if choice % 8 == 0 {
            now = now.plus_us(u64::from(choice) * 2_000);
            engine.tick(now);
            continue;
        }
        let from = NodeId(2 + u64::from(choice & 1));
        let count = match choice & 2 {
            0 => choices.byte().unwrap_or_default().into(),
            _ => usize::MAX,
        };
        let incarnation = match choice & 4 {
            0 => INCARNATION,
            _ => Incarnation(INCARNATION.0 + u64::from(choice >> 3)),
        };
        let mut frame = Vec::new();
        message::begin(incarnation, &mut frame);
        frame.extend_from_slice(choices.bytes(count));
        engine.frame(now, from, &frame.into());
    }
    let bytes_max = (256 << 10) + 64 * input.len();
    assert!(sent_bytes <= bytes_max, "{sent_bytes} bytes sent for {} bytes", input.len());
}

/// Configuration files.
pub fn config(input: &[u8]) {
    let mut file = tempfile();
    file.1.write_all(input).expect("a temporary file");
    let nothing = std::iter::empty::<(std::ffi::OsString, std::ffi::OsString)>();
    match NodeConfig::load(Some(file.0.clone()), Settings::default(), nothing) {
        Ok(config) => assert_eq!(config.check(), Ok(())),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    let _gone = std::fs::remove_file(&file.0);
}

/// A file that no other target or thread writes.
fn tempfile() -> (std::path::PathBuf, std::fs::File) {
    let name = format!("ringdove-fuzz-{}-{:?}.toml", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::create(&path).expect("a temporary file");
    (path, file)
}
