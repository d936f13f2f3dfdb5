//! Clients of a simulated cluster, and what they hold the cluster to.
//!
//! Each client talks to a node of its own, one operation at a time, and to another when its node is
//! gone or silent for too long; what was under way then is in doubt. What they do is a mix:
//! unique keys (acknowledged means there for good, or gone for good), registers and private keys with
//! GET, SET, CAS, DEL and INCRBY (linearizable), counters (exact with exactly-once tags), values that
//! expire, locks.

mod answer;
mod counters;
mod locks;
mod mortals;
mod tickets;
mod uniques;

use super::branches::{Branches, Mark};
use super::checks::Violation;
use super::clock::Clock;
use super::cluster::Cluster;
use super::counts::counts;
use super::linearizability::{self as lin, History};
use super::random::Random;
use crate::engine::command;
use crate::engine::dedup::RequestTag;
use crate::engine::ids::{ClientId, Incarnation, MapId, NodeId, PartitionId, Slot};
use crate::engine::op::{Op, Submitted, Ticket};
use crate::engine::resp::Proto;
use answer::Reply;
use bytes::Bytes;
use counters::Counter;
use locks::{Locks, Token};
use mortals::Mortal;
use std::collections::{BTreeMap, BTreeSet};
use tickets::Tickets;
use uniques::Uniques;

/// The client that asks for everything again in the end.
const AUDITOR: u64 = 1_000;
const PATIENCE_US: u64 = 9_000_000;
const RETRY_US: u64 = 100_000;
/// Hot keys change so often, to keep the history of each short.
const WINDOW_US: u64 = 2_000_000;
const HISTORY_STEPS_MAX: u64 = 400_000;

/// What an operation is for, and what to make of its answer.
#[derive(Clone, Debug)]
enum Intent {
    StoreUnique(String),
    LoadUnique(String),
    DeleteUnique(String),
    LoadDeleted(String),
    Recorded(lin::Ticket, Shape),
    /// The first half of a compare-and-swap.
    Observe(lin::Ticket, String),
    Count(String),
    CountOnce(String, RequestTag, u64),
    StoreMortal(String, u64),
    LoadMortal(Mortal),
    Lock {
        key: String,
        owner: String,
        lease_ms: u64,
        latest: Token,
    },
    Unlock,
    AuditCounter(String),
    /// A key whose partition is dead: nobody may claim to know it.
    Mourn(String),
}

/// The kind of answer that a recorded operation gets.
#[derive(Clone, Copy, Debug)]
enum Shape {
    Value,
    Done,
    Removed,
    Sum,
    Swapped,
}

#[derive(Clone, Debug)]
struct Pending {
    node: NodeId,
    invoke_us: u64,
    args: Vec<Vec<u8>>,
    intent: Intent,
}

/// Whether any partition ever went on from a former copy.
fn has_recovered(cluster: &Cluster) -> bool {
    cluster.nodes.values().any(|node| node.engine.stats().recovered > 0)
}

impl Pending {
    /// The same exactly-once request, sent again.
    fn again(mut self, node: NodeId, now_us: u64) -> Pending {
        if let Intent::CountOnce(_, tag, first_us) = &mut self.intent {
            tag.age_ms = ((now_us - *first_us) / 1_000) as u32;
        }
        Pending { node, invoke_us: now_us, ..self }
    }
}

#[derive(Debug, Default)]
struct Client {
    home: Option<NodeId>,
    pending: Option<(u64, Pending)>,
    /// An exactly-once increment to be sent again.
    again: Option<Pending>,
    /// The second half of a compare-and-swap: key, value seen, its version.
    swap: Option<(String, Option<Bytes>, u64)>,
    /// A lock held: key and owner.
    holds: Option<(String, String)>,
    requests: BTreeMap<PartitionId, u64>,
    wakes: u64,
}

/// What clients have to know of the run that they are part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkloadConfig {
    /// How many clients.
    pub clients: usize,
    /// How long a client thinks between two operations, at most.
    pub think_us_max: u64,
    /// Length of the values of unique keys, at least.
    pub value_bytes: usize,
    /// How far wall clocks of machines may be apart.
    pub clock_spread_ms: u64,
    /// Values that expire may have to go before their time, for want of memory.
    pub evicts: bool,
    /// And so may everything else.
    pub evicts_all: bool,
    /// Both sides of a split may go on: what one alone acknowledged may be lost.
    pub splits: bool,
}

counts! {
    /// How a run went for its clients.
    pub struct Outcomes {
        /// Operations answered.
        pub answered: u64,
        /// Operations refused and known not to have happened.
        pub refused: u64,
        /// Operations refused for want of memory.
        pub full: u64,
        /// Operations whose outcome is unknown.
        pub in_doubt: u64,
    }
}

/// All clients.
#[derive(Debug)]
pub struct Workload {
    config: WorkloadConfig,
    clients: Vec<Client>,
    history: History,
    uniques: Uniques,
    counters: BTreeMap<String, Counter>,
    mortals: Vec<Mortal>,
    locks: Locks,
    tickets: Tickets,
    /// Who went on from what.
    branches: Branches,
    /// Where unique keys were acknowledged to be stored, and to be deleted.
    stored: BTreeMap<String, Mark>,
    deleted: BTreeMap<String, Mark>,
    /// Answers on record that may turn out to be a given-up side's.
    marked: Vec<(lin::Ticket, Mark)>,
    /// Unique keys lost by a split, by the primary that took them.
    lost: BTreeMap<NodeId, u64>,
    /// Partitions at which nothing is to be had any more.
    given_up: Vec<PartitionId>,
    next_number: u64,
    stopping: bool,
    audits: BTreeMap<u64, Pending>,
    /// How it went.
    pub outcomes: Outcomes,
}

impl Workload {
    /// The clients, each to be woken for the first time soon.
    pub fn new(cluster: &mut Cluster, config: WorkloadConfig) -> Workload {
        for token in 0..config.clients as u64 {
            let delay = cluster.random.below(100_000);
            cluster.wake_after(delay, token << 32);
        }
        Workload {
            config,
            clients: (0..config.clients).map(|_| Client::default()).collect(),
            history: History::default(),
            uniques: Uniques::new(config.value_bytes),
            counters: BTreeMap::new(),
            mortals: Vec::new(),
            locks: Locks::default(),
            tickets: Tickets::default(),
            branches: Branches::default(),
            stored: BTreeMap::new(),
            deleted: BTreeMap::new(),
            marked: Vec::new(),
            lost: BTreeMap::new(),
            given_up: Vec::new(),
            next_number: 0,
            stopping: false,
            audits: BTreeMap::new(),
            outcomes: Outcomes::default(),
        }
    }

    /// No new operations from now on, except to finish what was begun.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Looks at who goes on from what.
    pub fn look(&mut self, cluster: &Cluster) {
        if self.config.splits {
            self.branches.look(cluster);
        }
    }

    /// What is to be retried at a partition that is dead never comes to anything.
    pub fn give_up(&mut self, dead: &[PartitionId]) {
        self.given_up = dead.to_vec();
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.audits.is_empty()
            && self.clients.iter().all(|client| client.pending.is_none() && client.again.is_none())
    }

    /// A client's time has come. Returns the node it talked to.
    ///
    /// # Errors
    /// A promise broken.
    pub fn wake(&mut self, cluster: &mut Cluster, token: u64) -> Result<Option<NodeId>, Violation> {
        let (index, wake) = ((token >> 32) as usize, token & 0xFFFF_FFFF);
        let Some(client) = self.clients.get(index).filter(|client| client.wakes == wake) else {
            return Ok(None);
        };
        if let Some((_, pending)) = &client.pending {
            let lost = !cluster.lives(pending.node);
            if lost || cluster.now().mono_us >= pending.invoke_us + PATIENCE_US {
                self.abandon(cluster, index)?;
            } else {
                self.sleep(cluster, index, RETRY_US);
            }
            return Ok(None);
        }
        let homeless = client.home.is_none_or(|home| !cluster.lives(home));
        if homeless {
            let live = cluster.live();
            let home = cluster.random.pick(&live);
            self.clients[index].home = home;
        }
        let Some(home) = self.clients[index].home else { return Ok(None) };
        if cluster.engine(home).table().incarnation.0 == 0 || !cluster.runs(home) {
            // It would be asked in vain for now; a connection to it just doesn't come about.
            self.clients[index].home = None;
            self.sleep(cluster, index, RETRY_US);
            return Ok(None);
        }
        let count = cluster.settings().partitions;
        let again = self.clients[index].again.take().filter(|pending| match &pending.intent {
            Intent::CountOnce(key, ..) if self.given_up.contains(&partition_of(key, count)) => {
                self.counters.entry(key.clone()).or_default().in_doubt += 1;
                false
            }
            _ => true,
        });
        let pending = match again {
            Some(pending) => Some(pending.again(home, cluster.now().mono_us)),
            None if self.stopping => None,
            None => Some(self.choose(cluster, index, home)),
        };
        if let Some(pending) = pending {
            self.submit(cluster, index, pending)?;
        }
        Ok(Some(home))
    }

    /// Takes the replies that engines have given since the last look.
    ///
    /// # Errors
    /// A promise broken.
    pub fn take_replies(&mut self, cluster: &mut Cluster) -> Result<(), Violation> {
        for (node, ticket, reply) in std::mem::take(&mut cluster.replies) {
            let answered = self.tickets.answered(ticket.number, node);
            answered.map_err(|detail| violation(cluster, ANSWERED, detail))?;
            if ticket.door == AUDITOR {
                if let Some(pending) = self.audits.remove(&ticket.number) {
                    self.settle(cluster, None, &pending, Reply::decode(&reply))?;
                }
                continue;
            }
            let index = ticket.door as usize;
            let Some(client) = self.clients.get_mut(index) else { continue };
            if client
                .pending
                .as_ref()
                .is_some_and(|(number, pending)| *number == ticket.number && pending.node == node)
                && let Some((_, pending)) = client.pending.take()
            {
                self.settle(cluster, Some(index), &pending, Reply::decode(&reply))?;
                self.pause(cluster, index);
            }
        }
        Ok(())
    }

    fn pause(&mut self, cluster: &mut Cluster, index: usize) {
        let us = cluster.random.between(2_000, self.config.think_us_max);
        self.sleep(cluster, index, us);
    }

    fn sleep(&mut self, cluster: &mut Cluster, index: usize, us: u64) {
        let client = &mut self.clients[index];
        client.wakes = (client.wakes + 1) & 0xFFFF_FFFF;
        cluster.wake_after(us, (index as u64) << 32 | client.wakes);
    }

    /// The client gives its node up: what was under way is in doubt.
    fn abandon(&mut self, cluster: &mut Cluster, index: usize) -> Result<(), Violation> {
        if let Some((_, pending)) = self.clients[index].pending.take() {
            self.settle(cluster, Some(index), &pending, Reply::InDoubt)?;
        }
        self.clients[index].home = None;
        self.pause(cluster, index);
        Ok(())
    }

    fn submit(&mut self, cluster: &mut Cluster, index: usize, pending: Pending) -> Result<(), Violation> {
        self.next_number += 1;
        let ticket = Ticket { door: index as u64, number: self.next_number };
        let reply = send(cluster, ticket, &pending);
        match reply {
            Some(reply) => {
                self.settle(cluster, Some(index), &pending, reply)?;
                self.pause(cluster, index);
            }
            None => {
                self.tickets.open(ticket.number, pending.node);
                self.clients[index].pending = Some((ticket.number, pending));
                self.sleep(cluster, index, RETRY_US);
            }
        }
        Ok(())
    }

    fn choose(&mut self, cluster: &mut Cluster, index: usize, node: NodeId) -> Pending {
        let now = cluster.now();
        let random = &mut cluster.random;
        let pending = |args: &[&str], intent| Pending {
            node,
            invoke_us: now.mono_us,
            args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            intent,
        };
        self.next_number += 1;
        let fresh = format!("{index}:{}", self.next_number);
        if let Some((key, seen, version)) = self.clients[index].swap.take() {
            let op = lin::Op::CompareAndSwap { expected: seen, value: Bytes::from(fresh.clone()) };
            let ticket = self.history.invoke(index as u64, Bytes::from(key.clone()), op, now.mono_us);
            return pending(
                &["RD.CAS", &key, &version.to_string(), &fresh],
                Intent::Recorded(ticket, Shape::Swapped),
            );
        }
        if let Some((key, owner)) = self.clients[index].holds.take() {
            self.locks.releasing(&key, &owner);
            return pending(&["RD.UNLOCK", &key, &owner], Intent::Unlock);
        }
        let window = now.mono_us / WINDOW_US;
        let choice = random.below(100);
        let mut record = |key: &str, op: lin::Op| {
            self.history.invoke(index as u64, Bytes::copy_from_slice(key.as_bytes()), op, now.mono_us)
        };
        match choice {
            0..16 => {
                let key = format!("unique-{fresh}");
                let value = String::from_utf8_lossy(&self.uniques.value(&key)).into_owned();
                pending(&["SET", &key, &value], Intent::StoreUnique(key.clone()))
            }
            16..18 if let Some(key) = self.uniques.doom(random.next()) => {
                pending(&["DEL", &key], Intent::DeleteUnique(key.clone()))
            }
            18..22 if let Some(key) = some_of(random, self.uniques.stored()) => {
                pending(&["GET", &key], Intent::LoadUnique(key.clone()))
            }
            22..24 if let Some(key) = some_of(random, self.uniques.deleted()) => {
                pending(&["GET", &key], Intent::LoadDeleted(key.clone()))
            }
            16..55 => {
                let key = format!("register-{window}-{}", random.below(3));
                match random.below(10) {
                    0..4 => {
                        pending(&["GET", &key], Intent::Recorded(record(&key, lin::Op::Get), Shape::Value))
                    }
                    4..6 => {
                        let ticket = record(&key, lin::Op::Set(Bytes::from(fresh.clone())));
                        pending(&["SET", &key, &fresh], Intent::Recorded(ticket, Shape::Done))
                    }
                    6 => pending(
                        &["DEL", &key],
                        Intent::Recorded(record(&key, lin::Op::Delete), Shape::Removed),
                    ),
                    _ => {
                        pending(&["RD.GETV", &key], Intent::Observe(record(&key, lin::Op::Get), key.clone()))
                    }
                }
            }
            55..62 => {
                let key = format!("sum-{window}-{}", random.below(2));
                match random.below(3) {
                    0 => pending(&["GET", &key], Intent::Recorded(record(&key, lin::Op::Get), Shape::Value)),
                    _ => {
                        let delta = random.between(1, 9) as i64;
                        let ticket = record(&key, lin::Op::Add(delta));
                        pending(&["INCRBY", &key, &delta.to_string()], Intent::Recorded(ticket, Shape::Sum))
                    }
                }
            }
            62..70 => {
                let key = format!("private-{index}-{}", window % 1_000);
                match random.below(4) {
                    0 => {
                        let ticket = record(&key, lin::Op::Set(Bytes::from(fresh.clone())));
                        pending(&["SET", &key, &fresh], Intent::Recorded(ticket, Shape::Done))
                    }
                    1 => pending(
                        &["DEL", &key],
                        Intent::Recorded(record(&key, lin::Op::Delete), Shape::Removed),
                    ),
                    _ => pending(&["GET", &key], Intent::Recorded(record(&key, lin::Op::Get), Shape::Value)),
                }
            }
            70..76 => {
                let key = format!("counter-{}", random.below(3));
                pending(&["INCR", &key], Intent::Count(key.clone()))
            }
            76..82 => {
                let key = format!("exact-{}", random.below(3));
                let count = cluster.engine(node).table().settings.partitions;
                let request = self.clients[index]
                    .requests
                    .entry(Slot::of(key.as_bytes()).partition(count))
                    .or_default();
                let client = ClientId(index as u64 + 1);
                let tag = RequestTag { client, request: *request, acknowledged_below: *request, age_ms: 0 };
                *request += 1;
                pending(&["INCR", &key], Intent::CountOnce(key.clone(), tag, now.mono_us))
            }
            82..86 => {
                let key = format!("mortal-{fresh}");
                let ttl_ms = random.between(200, 6_000);
                let intent = Intent::StoreMortal(key.clone(), ttl_ms);
                pending(&["SET", &key, "mortal", "PX", &ttl_ms.to_string()], intent)
            }
            86..95 if !self.mortals.is_empty() => {
                let recent = self.mortals.len().min(20) as u64;
                let at = self.mortals.len() - 1 - random.below(recent) as usize;
                let mortal = self.mortals[at].clone();
                pending(&["GET", &mortal.key], Intent::LoadMortal(mortal.clone()))
            }
            _ => {
                let key = format!("lock-{}", random.below(2));
                let owner = format!("owner-{fresh}");
                let lease_ms = random.between(300, 3_000);
                let latest = self.locks.latest(&key, cluster.engine(node).table().incarnation);
                let args = ["RD.LOCK", &key, &owner, &lease_ms.to_string()];
                pending(&args, Intent::Lock { key: key.clone(), owner: owner.clone(), lease_ms, latest })
            }
        }
    }

    /// Makes of a reply what the intent wants.
    fn settle(
        &mut self,
        cluster: &Cluster,
        index: Option<usize>,
        pending: &Pending,
        reply: Reply,
    ) -> Result<(), Violation> {
        match &reply {
            Reply::Refused => self.outcomes.refused += 1,
            Reply::Full => self.outcomes.full += 1,
            Reply::InDoubt | Reply::Forgotten => self.outcomes.in_doubt += 1,
            _ => self.outcomes.answered += 1,
        }
        tracing::trace!(
            client = index,
            args = %pending.args.join(&b' ').escape_ascii(),
            node = %pending.node,
            asked_us = pending.invoke_us,
            ?reply,
            "answered"
        );
        self.judge(cluster, index, pending, reply).map_err(|(invariant, detail)| Violation {
            invariant,
            detail: format!("{detail} (asked {} at {} us)", pending.node, pending.invoke_us),
            at_us: cluster.now().mono_us,
        })
    }

    /// Where an answer on `key` came from.
    fn mark(&mut self, cluster: &Cluster, pending: &Pending, key: &str) -> Mark {
        let partition = partition_of(key, cluster.settings().partitions);
        match self.config.splits {
            true => self.branches.acknowledged(cluster, pending.node, partition),
            false => Mark { partition, at: 0, incarnation: Incarnation(0), primary: None },
        }
    }

    /// Whether a node has to know what was acknowledged.
    fn is_known(&self, cluster: &Cluster, mark: Option<&Mark>, node: NodeId) -> bool {
        let incarnation = cluster.engine(node).table().incarnation;
        !self.config.splits || mark.is_some_and(|mark| self.branches.is_part_of(mark, incarnation))
    }

    fn judge(
        &mut self,
        cluster: &Cluster,
        index: Option<usize>,
        pending: &Pending,
        reply: Reply,
    ) -> Result<(), (&'static str, String)> {
        const LOST: &str = "acknowledged writes are there";
        const BACK: &str = "deleted keys stay away";
        const COUNTS: &str = "counters count";
        const TOKENS: &str = "(h) fencing tokens grow and locks exclude";
        const ANSWERS: &str = "answers are what was asked for";
        let now = cluster.now();
        let wall_ms = |us: u64| Clock::TRUE.read(us).wall_ms;
        let odd = || (ANSWERS, format!("{:?} to {}", reply, pending.args.join(&b' ').escape_ascii()));
        match (&pending.intent, &reply) {
            (_, Reply::Unexpected(_)) => return Err(odd()),
            // An earlier attempt may have counted, and there may never be room again.
            (Intent::CountOnce(key, ..), Reply::Full) => {
                self.counters.entry(key.clone()).or_default().in_doubt += 1;
            }
            (_, Reply::Full) => return self.judge(cluster, index, pending, Reply::Refused),

            (Intent::StoreUnique(key), Reply::Simple) => {
                let mark = self.mark(cluster, pending, key);
                self.stored.insert(key.clone(), mark);
                self.uniques.store(key.clone());
            }
            (Intent::LoadUnique(key), Reply::Bulk(value)) => {
                let stored = self.stored.get(key).copied();
                let is_known = self.is_known(cluster, stored.as_ref(), pending.node);
                let excused = !is_known || self.config.evicts_all;
                let checked = self.uniques.check_stored(key, value.as_ref(), excused);
                checked.map_err(|detail| (LOST, detail))?;
                if let (None, None, false, Some(Mark { primary: Some(primary), .. })) =
                    (index, value, is_known, stored)
                {
                    *self.lost.entry(primary).or_default() += 1;
                }
            }
            (Intent::DeleteUnique(key), Reply::Integer(1)) => {
                let mark = self.mark(cluster, pending, key);
                self.deleted.insert(key.clone(), mark);
                self.uniques.delete(key.clone());
            }
            (Intent::DeleteUnique(key), Reply::Integer(_)) => {
                let is_known = self.is_known(cluster, self.stored.get(key), pending.node);
                if is_known && !self.config.evicts_all {
                    return Err((LOST, format!("{key} was not there to be deleted")));
                }
            }
            (Intent::DeleteUnique(key), Reply::Refused) => self.uniques.spare(key.clone()),
            (Intent::LoadDeleted(key), Reply::Bulk(value)) => {
                let checked = self.uniques.check_deleted(key, value.as_ref());
                if self.is_known(cluster, self.deleted.get(key), pending.node) {
                    checked.map_err(|detail| (BACK, detail))?;
                }
            }
            (Intent::Mourn(_), Reply::Refused) => {}
            (Intent::Mourn(key), _) => {
                return Err(("a dead partition says so", format!("{key} is said to be {reply:?}")));
            }

            (Intent::Recorded(ticket, _) | Intent::Observe(ticket, _), Reply::Refused) => {
                self.history.refused(ticket.clone())
            }
            // In doubt is what a record is until it is told otherwise.
            (Intent::Recorded(..) | Intent::Observe(..), Reply::InDoubt) => {}
            (Intent::Recorded(ticket, shape), reply) => {
                let outcome = match (shape, reply) {
                    (Shape::Value, Reply::Bulk(value)) => lin::Outcome::Value(value.clone()),
                    (Shape::Done, Reply::Simple) => lin::Outcome::Done,
                    (Shape::Removed, Reply::Integer(count)) => lin::Outcome::Removed(*count > 0),
                    (Shape::Sum, Reply::Integer(sum)) => lin::Outcome::Sum(*sum),
                    (Shape::Swapped, Reply::Bulk(None)) => lin::Outcome::Swapped(false),
                    (Shape::Swapped, reply) if reply.number().is_some() => lin::Outcome::Swapped(true),
                    _ => return Err(odd()),
                };
                self.history.answered(ticket.clone(), outcome, now.mono_us);
                self.note_branch(cluster, pending, ticket);
            }
            (Intent::Observe(ticket, key), reply) => {
                let seen = match reply {
                    Reply::Bulk(None) => (None, Some(0)),
                    Reply::Array(Some(parts)) => match &parts[..] {
                        [Reply::Bulk(value), version] => (value.clone(), version.number()),
                        _ => return Err(odd()),
                    },
                    _ => return Err(odd()),
                };
                let (value, Some(version)) = seen else { return Err(odd()) };
                self.history.answered(ticket.clone(), lin::Outcome::Value(value.clone()), now.mono_us);
                self.note_branch(cluster, pending, ticket);
                if let Some(index) = index {
                    self.clients[index].swap = Some((key.clone(), value, version));
                }
            }

            (Intent::Count(key) | Intent::CountOnce(key, ..), Reply::Integer(value)) => {
                let mark = self.mark(cluster, pending, key);
                let counter = self.counters.entry(key.clone()).or_default();
                let counted = counter.acknowledged(key, *value, mark);
                // A counter that was evicted begins anew.
                counted
                    .or_else(|detail| if self.config.evicts_all { Ok(()) } else { Err((COUNTS, detail)) })?;
            }
            (Intent::Count(key), Reply::InDoubt) => {
                self.counters.entry(key.clone()).or_default().in_doubt += 1;
            }
            // Who goes on from a former copy has forgotten its replies; nobody else has.
            (Intent::CountOnce(key, ..), Reply::Forgotten) if has_recovered(cluster) => {
                self.counters.entry(key.clone()).or_default().in_doubt += 1;
            }
            (Intent::CountOnce(..), Reply::InDoubt | Reply::Refused) => {
                if let Some(index) = index {
                    self.clients[index].again = Some(pending.clone());
                }
            }
            (Intent::AuditCounter(key), Reply::Bulk(value)) => {
                let value =
                    value.as_ref().map_or(Some(0), |digits| std::str::from_utf8(digits).ok()?.parse().ok());
                let incarnation = cluster.engine(pending.node).table().incarnation;
                let WorkloadConfig { splits, evicts_all, .. } = self.config;
                let counts =
                    |mark: &Mark| !evicts_all && (!splits || self.branches.is_part_of(mark, incarnation));
                let none = Counter::default();
                let counter = self.counters.get(key).unwrap_or(&none);
                let checked = counter.check(key, value.unwrap_or(u64::MAX), counts);
                checked.map_err(|detail| (COUNTS, detail))?;
            }

            (Intent::StoreMortal(key, ttl_ms), Reply::Simple) => {
                let mark = self.mark(cluster, pending, key);
                self.mortals.push(Mortal {
                    key: key.clone(),
                    lives_until_ms: wall_ms(pending.invoke_us) + ttl_ms,
                    gone_from_ms: now.wall_ms + ttl_ms,
                    mark,
                });
            }
            (Intent::LoadMortal(mortal), Reply::Bulk(value)) => {
                let WorkloadConfig { clock_spread_ms, evicts, .. } = self.config;
                let evicts = evicts || !self.is_known(cluster, Some(&mortal.mark), pending.node);
                let asked_ms = wall_ms(pending.invoke_us);
                let checked = mortal.check(value.is_some(), asked_ms, now.wall_ms, clock_spread_ms, evicts);
                checked.map_err(|detail| ("expiry is kept", detail))?;
            }

            (Intent::Lock { key, owner, lease_ms, latest }, Reply::Array(Some(parts))) => {
                let token: Option<Vec<u64>> = parts.iter().map(Reply::number).collect();
                let Some(Ok(token)) = token.map(Token::try_from) else { return Err(odd()) };
                let until_ms = match self.config {
                    // A lock may have to go before its time as well.
                    WorkloadConfig { evicts: true, .. } => 0,
                    WorkloadConfig { clock_spread_ms, .. } => {
                        (wall_ms(pending.invoke_us) + lease_ms - 1).saturating_sub(clock_spread_ms)
                    }
                };
                let WorkloadConfig { splits, .. } = self.config;
                let granted = self.locks.granted(
                    key,
                    owner,
                    token,
                    *latest,
                    now.wall_ms,
                    until_ms,
                    pending.node,
                    splits,
                );
                granted.map_err(|detail| (TOKENS, detail))?;
                if let Some(index) = index {
                    self.clients[index].holds = Some((key.clone(), owner.clone()));
                }
            }
            (Intent::Lock { .. }, Reply::Array(None) | Reply::Bulk(None)) => {}
            (Intent::Unlock, Reply::Integer(_)) => {}
            (_, Reply::Refused | Reply::InDoubt) => {}
            _ => return Err(odd()),
        }
        Ok(())
    }

    /// Keeps in mind which side of a split gave an answer on record.
    fn note_branch(&mut self, cluster: &Cluster, pending: &Pending, ticket: &lin::Ticket) {
        if self.config.splits {
            let key = String::from_utf8_lossy(&pending.args[1]).into_owned();
            let mark = self.mark(cluster, pending, &key);
            self.marked.push((ticket.clone(), mark));
        }
    }

    /// Asks for every acknowledged write again, from any node. Of partitions that are `dead` nobody may
    /// claim to know anything.
    ///
    /// # Errors
    /// A promise broken.
    pub fn audit(&mut self, cluster: &mut Cluster, dead: &[PartitionId]) -> Result<(), Violation> {
        for client in &self.clients {
            // Whoever still retries may or may not have been counted.
            if let Some(Intent::CountOnce(key, ..)) = client.again.as_ref().map(|pending| &pending.intent) {
                self.counters.entry(key.clone()).or_default().in_doubt += 1;
            }
        }
        let stored = self.uniques.stored().iter().map(|key| (key.clone(), Intent::LoadUnique(key.clone())));
        let deleted =
            self.uniques.deleted().iter().map(|key| (key.clone(), Intent::LoadDeleted(key.clone())));
        let counters = self.counters.keys().map(|key| (key.clone(), Intent::AuditCounter(key.clone())));
        let mut questions: Vec<(String, Intent)> = stored.chain(deleted).chain(counters).collect();
        let live = cluster.live();
        if !dead.is_empty() {
            let count = cluster.settings().partitions;
            let mut mourned = BTreeSet::new();
            questions.retain_mut(|(key, intent)| {
                let partition = partition_of(key, count);
                let is_dead = dead.contains(&partition);
                if is_dead {
                    *intent = Intent::Mourn(key.clone());
                }
                // One of each is enough to hear it.
                !is_dead || mourned.insert(partition)
            });
        }
        for (key, intent) in questions {
            let Some(node) = cluster.random.pick(&live) else { break };
            let args = vec![b"GET".to_vec(), key.into_bytes()];
            let pending = Pending { node, invoke_us: cluster.now().mono_us, args, intent };
            self.next_number += 1;
            let ticket = Ticket { door: AUDITOR, number: self.next_number };
            match send(cluster, ticket, &pending) {
                Some(reply) => self.settle(cluster, None, &pending, reply)?,
                None => {
                    self.tickets.open(ticket.number, node);
                    self.audits.insert(ticket.number, pending);
                }
            }
        }
        Ok(())
    }

    /// Whether every operation was answered by now whose node lives.
    ///
    /// # Errors
    /// An operation that was not.
    pub fn all_answered(&self, cluster: &Cluster) -> Result<(), Violation> {
        let checked = self.tickets.check(|node| cluster.lives(node));
        checked.map_err(|detail| violation(cluster, ANSWERED, detail))
    }

    /// Acknowledged unique keys.
    pub fn unique_count(&self) -> usize {
        self.uniques.stored().len() + self.uniques.deleted().len()
    }

    /// Whether nodes that started over have said how many of their writes that cost.
    ///
    /// # Errors
    /// More was lost than was reported.
    pub fn check_reported(&self, cluster: &Cluster) -> Result<(), Violation> {
        let lost: u64 =
            self.lost.iter().filter(|(node, _)| cluster.lives(**node)).map(|(_, lost)| lost).sum();
        let reported: u64 = cluster.nodes.values().map(|sim| sim.engine.stats().divergent).sum();
        if lost > reported {
            let detail = format!("{lost} were lost by {:?}, {reported} reported", self.lost.keys());
            return Err(violation(cluster, "divergent writes are reported", detail));
        }
        Ok(())
    }

    /// (j) Whether the recorded histories have an explanation. Returns how many keys there are, and
    /// of how many it could not be decided.
    ///
    /// # Errors
    /// The first key whose history has none.
    pub fn explain(&mut self, cluster: &Cluster) -> Result<(u64, u64), Violation> {
        let (mut keys, mut undecided) = (0, 0);
        if self.config.evicts_all {
            // Any value may have been forgotten at any time.
            return Ok((keys, undecided));
        }
        if let Some(incarnation) = cluster.agreed().map(|table| table.incarnation) {
            for (ticket, mark) in std::mem::take(&mut self.marked) {
                if !self.branches.is_part_of(&mark, incarnation) {
                    self.history.cut_off(ticket);
                }
            }
        }
        for (key, checked) in self.history.check_each(HISTORY_STEPS_MAX) {
            keys += 1;
            match checked {
                Ok(()) => {}
                Err(lin::Failure::TooHard) => undecided += 1,
                Err(failure) => {
                    let detail = format!("{}: {failure}", key.escape_ascii());
                    return Err(violation(cluster, "(j) linearizability", detail));
                }
            }
        }
        Ok((keys, undecided))
    }
}

const ANSWERED: &str = "every operation is answered once";

fn violation(cluster: &Cluster, invariant: &'static str, detail: String) -> Violation {
    Violation { invariant, detail, at_us: cluster.now().mono_us }
}

/// The partition of a key where there are `count`.
fn partition_of(key: &str, count: u16) -> PartitionId {
    Slot::of(key.as_bytes()).partition(count)
}

fn some_of(random: &mut Random, keys: &[String]) -> Option<String> {
    let index = random.below(keys.len() as u64) as usize;
    keys.get(index).cloned()
}

/// Sends an operation; its reply if it came at once.
fn send(cluster: &mut Cluster, ticket: Ticket, pending: &Pending) -> Option<Reply> {
    let args: Vec<&[u8]> = pending.args.iter().map(Vec::as_slice).collect();
    let Ok(spec) = command::resolve(&args) else { return Some(Reply::Unexpected("unknown command".into())) };
    let exactly_once = match &pending.intent {
        Intent::CountOnce(_, tag, _) => Some(*tag),
        _ => None,
    };
    let mut out = Vec::new();
    let submitted = cluster.input(pending.node, |engine, now| {
        let partition = engine.table().partition_of(Slot::of(args[1]));
        let op = Op { exactly_once, ..Op::new(spec, partition, MapId(0), Proto::Resp2, &args) };
        Some(engine.submit(now, ticket, &op, &mut out))
    });
    match submitted {
        Some(Submitted::Done) => Some(Reply::decode(&out)),
        Some(Submitted::Pending(_)) => None,
        None => Some(Reply::Refused),
    }
}
