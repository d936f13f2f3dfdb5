//! A member that also says what it shouldn't: well-formed messages that are wrong in one way or another.
//! Each must be refused and counted by whoever hears it, and change nothing there.

use super::cluster::Cluster;
use super::random::Random;
use crate::engine::command;
use crate::engine::controller::{Order, Report, Sealed};
use crate::engine::ids::{
    Epoch, Incarnation, MapId, NodeId, PartitionId, Sequence, Slot, TableVersion, Version,
};
use crate::engine::message::{
    self, Ack, Batch, ForwardOutcome, Load, Message, NUMBER_MAX, OverlayEnd, Records, Refusal,
    SnapshotVerdict, TableStep,
};
use crate::engine::node::Engine;
use crate::engine::op::{Op, OwnedOp};
use crate::engine::record::{self, Effect};
use crate::engine::resp::Proto;
use crate::engine::store::EntryKind;
use crate::engine::table::Table;
use std::sync::Arc;

/// The member, once it is one.
#[derive(Debug, Default)]
pub struct Rogue {
    node: Option<NodeId>,
    /// Messages that were heard and refused.
    pub refused: u64,
}

/// What a wrong message could have changed.
#[derive(Debug, PartialEq)]
struct Picture {
    table: (Incarnation, TableVersion),
    leader: (u64, Option<NodeId>),
    lease_until_us: u64,
    partitions: Vec<PartitionPicture>,
}

#[derive(Debug, PartialEq)]
struct PartitionPicture {
    epoch: Epoch,
    promised: Epoch,
    leads: bool,
    copy: Option<(Sequence, Sequence, Version, u64)>,
    staged: Option<(Sequence, u64)>,
}

impl Picture {
    fn of(engine: &Engine, rogue: NodeId) -> Picture {
        let partition = |it: &crate::engine::partition::Partition| PartitionPicture {
            epoch: it.epoch,
            promised: it.promised,
            leads: it.is_primary(),
            copy: it
                .copy
                .as_ref()
                .map(|copy| (copy.last, copy.commit, copy.hlc.last(), copy.shard.digest_root())),
            staged: it.staging.as_ref().map(|it| (it.copy.last, it.copy.shard.digest_root())),
        };
        Picture {
            table: (engine.table().incarnation, engine.table().version),
            leader: (engine.peers().term, engine.peers().leader),
            lease_until_us: engine.peers().lease_until_us(rogue),
            partitions: engine.partitions().iter().map(partition).collect(),
        }
    }
}

fn refusals(engine: &Engine) -> u64 {
    engine.stats().refused.named().iter().map(|(_, count)| count).sum()
}

impl Rogue {
    /// Says something wrong to a member that it is linked with, if there is one.
    ///
    /// # Errors
    /// If that was not counted as refused, or had an effect.
    pub fn speak(&mut self, cluster: &mut Cluster, random: &mut Random) -> Result<(), String> {
        if !self.node.is_some_and(|node| cluster.runs(node) && is_member(cluster.engine(node))) {
            let members: Vec<NodeId> =
                cluster.live().into_iter().filter(|&node| is_member(cluster.engine(node))).collect();
            self.node = random.pick(&members);
        }
        let Some(rogue) = self.node else { return Ok(()) };
        let hearers: Vec<NodeId> = cluster
            .live()
            .into_iter()
            .filter(|&node| {
                let engine = cluster.engine(node);
                node != rogue && cluster.runs(node) && is_member(engine) && engine.peers().linked(rogue)
            })
            .collect();
        let Some(to) = random.pick(&hearers) else { return Ok(()) };
        let (frame, kind) = wrong(cluster.engine(to), rogue, random);
        let (before, known) = (refusals(cluster.engine(to)), Picture::of(cluster.engine(to), rogue));
        cluster.input(to, |engine, now| engine.frame(now, rogue, &frame.into()));
        if refusals(cluster.engine(to)) == before {
            return Err(format!("{to} took wrong message {kind} of {rogue}"));
        }
        let now = Picture::of(cluster.engine(to), rogue);
        if now != known {
            return Err(format!("wrong message {kind} of {rogue} changed {known:?} at {to} into {now:?}"));
        }
        self.refused += 1;
        Ok(())
    }
}

fn is_member(engine: &Engine) -> bool {
    engine.table().is_live(engine.me())
}

/// A frame of one message that `to` must refuse to take from `rogue`, and which kind it is.
fn wrong(to: &Engine, rogue: NodeId, random: &mut Random) -> (Vec<u8>, u64) {
    const KINDS: u64 = 30;
    let table = to.table().clone();
    let count = table.settings.partitions;
    let nobody = NodeId(2);
    let kind = random.below(KINDS);
    let missing = PartitionId(count + random.below(100) as u16);
    let partition = PartitionId(random.below(u64::from(count)) as u16);
    let assignment = &table.partitions[partition.index()];
    let (epoch, primary) = (assignment.epoch, assignment.primary);
    let other_epoch = match random.below(3) {
        0 => Epoch(epoch.0 + 1),
        1 => Epoch(epoch.0 + random.between(1, 1 << 40)),
        _ => Epoch(epoch.0.saturating_sub(1)),
    };
    let other_epoch = if other_epoch == epoch { epoch.next() } else { other_epoch };
    let attempt = random.below(NUMBER_MAX);
    let mut bytes = Vec::new();
    let version = Version(random.below(Version::MAX.0));
    let put = Effect::Put {
        map: MapId(0),
        key: b"rogue",
        value: b"value",
        kind: EntryKind::String,
        expire_at_ms: 0,
        version,
    };
    record::encode(&put, &mut bytes);
    let held = to.partitions()[partition.index()].copy.as_ref();
    let next = held.map_or(Sequence(1), |copy| copy.last.next());
    let records = Records { partition, epoch, first: next, count: 1, commit: next, records: &bytes };
    let batch = Batch {
        number: random.below(100),
        sent_us: random.below(NUMBER_MAX),
        table_version: table.version,
        term: 0,
        leader: None,
        load: None,
    };
    let ack =
        Ack { number: 0, echo_us: 1, granted: kind < 8, table_version: TableVersion(0), refused: Vec::new() };
    let far = 1 << random.between(41, 61);
    let table_version = TableVersion(table.version.0 + far);
    let op = misdirected(&table, random);
    let crc = crc32fast::hash(&bytes);
    let end = OverlayEnd { last: next, clock: version, dedup: &[] };
    let mut forged = Table { version: TableVersion(table.version.0 + 1), ..(*table).clone() };
    // Whoever is listened to in a matter speaks of another epoch; everybody else of this one.
    let as_stranger = |stranger: bool| if stranger { epoch } else { other_epoch };
    let message = match kind {
        0 => Message::Records(Records { epoch: other_epoch, ..records }),
        1 => Message::Records(Records { partition: missing, ..records }),
        2 => Message::Records(Records { epoch: as_stranger(rogue != primary), ..records }),
        3 => Message::Records(Records { first: Sequence(0), ..records }),
        4 => Message::Records(Records { first: Sequence(u64::MAX - random.below(100)), ..records }),
        5 => Message::Records(Records { count: u32::MAX, ..records }),
        6 => Message::Ack(Ack { number: 1 << 40, ..ack }),
        7 => Message::Ack(Ack { echo_us: random.between(1 << 50, 1 << 61), ..ack }),
        8 => Message::Ack(Ack { refused: vec![(missing, Refusal::Unknown)], ..ack }),
        9 => Message::Ack(Ack { refused: vec![(partition, Refusal::Gap(next))], ..ack }),
        10 => {
            let refused = vec![(partition, Refusal::Fenced(other_epoch)); usize::from(count) + 1];
            Message::Ack(Ack { refused, ..ack })
        }
        11 => Message::Forward { id: 0, patience_ms: u32::MAX, op: op.encoded().0 },
        12 => Message::ForwardReply { id: random.next(), outcome: ForwardOutcome::Done, reply: b"+OK\r\n" },
        13 => {
            let epoch = as_stranger(rogue != primary);
            Message::Attach { partition, epoch, attempt, after: Sequence(random.below(NUMBER_MAX)) }
        }
        14 => Message::Attach { partition, epoch, attempt: u64::MAX, after: next },
        15 => Message::Attached { partition, attempt },
        16 => Message::SnapshotChunk {
            partition,
            attempt,
            number: 0,
            as_of: next,
            crc,
            entries: &bytes,
            dedup: &[],
        },
        17 => Message::SnapshotAck { partition, attempt, number: 0 },
        18 => {
            Message::SnapshotEnd { partition, attempt, sequence: next, count: 1, digest: 0, clock: version }
        }
        19 => Message::SnapshotDone { partition, attempt, verdict: SnapshotVerdict::Equal },
        20 => Message::DigestMismatch { partition, epoch: other_epoch, sequence: next },
        21 => Message::Overlay {
            partition,
            epoch: other_epoch,
            number: 0,
            crc,
            records: &bytes,
            end: Some(end),
        },
        22 => {
            match random.below(5) {
                0 => Arc::make_mut(&mut forged.partitions[partition.index()]).epoch = Epoch(0),
                1 => Arc::make_mut(&mut forged.partitions[partition.index()]).isr.push(primary),
                2 => forged.incarnation = Incarnation(table.incarnation.0 ^ (1 << 40)),
                3 => forged.version = table_version,
                _ => {
                    forged.incarnation = table.incarnation.successor(primary);
                    forged.settings.replicas += 1;
                }
            }
            Message::Table(Box::new(forged))
        }
        23 => {
            let copies = assignment.clone();
            let (after, version) = (table.version, forged.version);
            Message::TableStep(TableStep { after, version, partitions: vec![(missing, copies)] })
        }
        24 => match random.below(3) {
            0 => Message::Batch(Batch { table_version, ..batch }),
            1 => Message::Batch(Batch { term: u64::MAX, leader: Some(rogue), ..batch }),
            _ => {
                let load = Load { copy_left_bytes: u64::MAX, ..Load::default() };
                Message::Batch(Batch { load: Some(load), ..batch })
            }
        },
        25 => {
            let member = table.members[&to.me()].clone();
            Message::Join { member, relayed: false }
        }
        26 => Message::Report { from: to.me(), report: Report::Leave, relayed: false },
        27 => {
            let order = match random.below(3) {
                0 => Order::Seal { deposed: primary, partitions: vec![(partition, epoch.next())] },
                1 => Order::Handover { partition, epoch, to: rogue },
                _ => Order::Merge { partition, epoch: epoch.next(), to: rogue },
            };
            Message::Order { term: 0, order }
        }
        28 => Message::Sealed(Sealed {
            deposed: nobody,
            partitions: vec![crate::engine::controller::SealedPartition {
                partition,
                epoch,
                last: Sequence(u64::MAX),
            }],
        }),
        _ => {
            let epoch = other_epoch;
            Message::Digest { partition, epoch, sequence: next, digest: random.next() }
        }
    };
    let foreign = random.per_million(50_000);
    // What a joining node may say is taken from any incarnation.
    let by_any = matches!(message, Message::Table(_) | Message::Join { .. });
    let incarnation = match foreign && !by_any {
        true => Incarnation(table.incarnation.0 ^ (1 << random.below(60))),
        false => table.incarnation,
    };
    let mut frame = Vec::new();
    message::begin(incarnation, &mut frame);
    message::append(&message, &mut frame);
    (frame, kind)
}

/// A write to a partition that its key is not of.
fn misdirected(table: &Table, random: &mut Random) -> OwnedOp {
    let (key, count) = (random.next().to_le_bytes(), table.settings.partitions);
    let args: [&[u8]; 3] = [b"SET", &key, b"rogue"];
    let at = Slot::of(&key).partition(count);
    let partition = PartitionId(if count == 1 { 1 } else { (at.0 + 1) % count });
    let op =
        Op::new(command::lookup(b"set").expect("SET is a command"), partition, MapId(0), Proto::Resp2, &args);
    OwnedOp::new(&op)
}
