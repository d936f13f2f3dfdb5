//! Clients at work.
//!
//! Redis clients are threads, each with one connection to its home node, and to the next one when
//! that is gone. The QUIC client is one, with many tasks, as it is meant to be used.

use super::history::{Action, Load, Outcome, Record, Recorder};
use super::network::SECRET;
use super::nodes::Doors;
use crate::harness::resp::Resp;
use ringdove::client::{Client, ClientConfig};
use ringdove::drivers::pki::Secret;
use ringdove::engine::ids::{PartitionId, Slot};
use ringdove::engine::resp::Reply;
use ringdove::error::WriteOutcome;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::RngExt;

/// Clients that share registers; more make the check of a history slow.
const REGISTER_CLIENTS: usize = 5;
/// Registers in use at once, and for how long: a history of one key shouldn't get long.
const REGISTERS: usize = 16;
const REGISTER_LIFE_US: u64 = 3_000_000;
const COUNTERS: usize = 4;
/// Shorter than a failover, so that locks also expire by themselves.
const LEASE: Duration = Duration::from_millis(1_500);
const LOCKS: usize = 2;
const LOCK_CLIENTS: usize = 3;

/// How hard the clients work.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two actions of one Redis client.
    pub every: Duration,
    /// Partitions that are probed, spread over all.
    pub probed: u16,
    /// Between two probes of a partition.
    pub probe_every: Duration,
}

/// What clients share.
#[derive(Clone)]
struct Shared {
    recorder: Recorder,
    doors: Doors,
    stop: Arc<AtomicBool>,
    pace: Pace,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Clients at work, until told to stop.
pub struct Loads {
    shared: Shared,
    threads: Vec<JoinHandle<()>>,
}

/// A Redis client.
struct RedisClient {
    shared: Shared,
    load: Load,
    client: u16,
    home: usize,
    connection: Option<(usize, Resp)>,
}

/// What a reply means for what was asked.
fn outcome(reply: Reply) -> Outcome {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match reply {
        Reply::Simple(_) => Outcome::Done,
        Reply::Null => Outcome::Value(None),
        Reply::Bulk(bytes) => Outcome::Value(Some(text(bytes))),
        Reply::Integer(number) => Outcome::Number(number),
        Reply::Error(error) => {
            let error_code = ringdove::Error::of_reply(&error);
            match error_code.write_outcome() {
                WriteOutcome::NotDone => Outcome::Refused(error),
                WriteOutcome::Done | WriteOutcome::Unknown => Outcome::Doubt(error),
            }
        }
        other => Outcome::Doubt(format!("{other:?}")),
    }
}

impl RedisClient {
    /// Connects to the home node, or to the next one that is there.
    fn connection(&mut self) -> Option<&mut (usize, Resp)> {
        if self.connection.is_none() {
            let doors = self.shared.doors.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let place = (self.home..self.home + doors.len())
                .map(|place| place % doors.len())
                .find_map(|place| Some((place, doors[place]?)));
            let (place, door) = place?;
            match Resp::connect(door) {
                Ok(resp) => self.connection = Some((place, resp)),
                // Whoever waits for the node to answer shouldn't be in its way.
                Err(_) => {
                    self.home = place + 1;
                    return None;
                }
            }
        }
        self.connection.as_mut()
    }

    /// Runs a command, records it by `reads`, and gives the reply if there was one.
    fn call(
        &mut self,
        key: &str,
        action: Action,
        command: &[&str],
        reads: impl FnOnce(&Reply) -> Option<Outcome>,
    ) -> Option<(Outcome, Option<Reply>)> {
        std::thread::sleep(self.shared.pace.every);
        let (load, client, recorder) = (self.load, self.client, self.shared.recorder.clone());
        let (place, resp) = self.connection()?;
        let node = Some(*place);
        let invoke_us = recorder.now_us();
        let (outcome, reply) = match resp.call(command) {
            Ok(reply) => (reads(&reply).unwrap_or_else(|| outcome(reply.clone())), Some(reply)),
            Err(error) => {
                self.connection = None;
                (Outcome::Doubt(format!("connection: {error}")), None)
            }
        };
        let return_us = recorder.now_us();
        let key = key.to_owned();
        recorder.add(Record {
            load,
            client,
            node,
            key,
            action,
            invoke_us,
            return_us,
            outcome: outcome.clone(),
        });
        Some((outcome, reply))
    }

    fn set(&mut self, key: &str, value: String) -> Option<Outcome> {
        let action = Action::Set(value.clone());
        Some(self.call(key, action, &["SET", key, &value], |_| None)?.0)
    }

    fn get(&mut self, key: &str) -> Option<Outcome> {
        Some(self.call(key, Action::Get, &["GET", key], |_| None)?.0)
    }
}

impl Loads {
    /// Starts all loads against the nodes at `homes`.
    pub fn start(
        recorder: &Recorder,
        doors: &Doors,
        homes: &[usize],
        seeds: Vec<String>,
        pace: Pace,
    ) -> Loads {
        let shared = Shared { recorder: recorder.clone(), doors: doors.clone(), stop: Arc::default(), pace };
        let mut threads = Vec::new();
        let mut start = |load: Load, count: usize, run: fn(RedisClient)| {
            for client in 0..count {
                let redis = RedisClient {
                    shared: shared.clone(),
                    load,
                    client: client as u16,
                    home: homes[client % homes.len()],
                    connection: None,
                };
                threads.push(std::thread::spawn(move || run(redis)));
            }
        };
        start(Load::Unique, homes.len(), unique);
        start(Load::Counter, homes.len(), counters);
        start(Load::Register, REGISTER_CLIENTS, registers);
        start(Load::Expiry, 3, expiry);
        start(Load::Delete, 3, deletes);
        let quic = shared.clone();
        threads.push(std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            tokio::task::LocalSet::new().block_on(&runtime, quic_loads(quic, seeds));
        }));
        Loads { shared, threads }
    }

    /// Ends the load, and waits for what is under way.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client doesn't panic");
        }
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // It has told why on its own.
            let _panicked = thread.join();
        }
    }
}

fn unique(mut redis: RedisClient) {
    for number in 0.. {
        if redis.shared.is_stopped() {
            return;
        }
        let key = format!("unique:{}:{number}", redis.client);
        let value = format!("value of {key}");
        let _recorded = redis.set(&key, value);
    }
}

fn counters(mut redis: RedisClient) {
    for number in usize::from(redis.client).. {
        if redis.shared.is_stopped() {
            return;
        }
        let key = format!("counter:{}", number % COUNTERS);
        let _recorded = redis.call(&key, Action::Add(1), &["INCR", &key], |_| None);
    }
}

fn registers(mut redis: RedisClient) {
    let mut rng = rand::rng();
    for number in 0.. {
        if redis.shared.is_stopped() {
            return;
        }
        let life = redis.shared.recorder.now_us() / REGISTER_LIFE_US;
        let key = format!("register:{life}:{}", rng.random_range(0..REGISTERS));
        let value = format!("{}.{number}", redis.client);
        match rng.random_range(0..10) {
            0..4 => drop(redis.get(&key)),
            4..6 => drop(redis.set(&key, value)),
            6 => {
                let removed = |reply: &Reply| match reply {
                    Reply::Integer(count) => Some(Outcome::Flag(*count == 1)),
                    _ => None,
                };
                drop(redis.call(&key, Action::Delete, &["DEL", &key], removed));
            }
            _ => swap(&mut redis, &key, value),
        }
    }
}

/// Reads a register with its version and writes it if the version is still the same. As every
/// value is written once only, the same version is the same value.
fn swap(redis: &mut RedisClient, key: &str, value: String) {
    let read = |reply: &Reply| match reply {
        Reply::Array(parts) => match parts.first() {
            Some(Reply::Bulk(bytes)) => {
                Some(Outcome::Value(Some(String::from_utf8_lossy(bytes).into_owned())))
            }
            _ => None,
        },
        _ => None,
    };
    let seen = redis.call(key, Action::Get, &["RD.GETV", key], read);
    let (expected, version) = match seen {
        Some((Outcome::Value(Some(seen)), Some(Reply::Array(parts)))) => match parts.get(1) {
            Some(Reply::Integer(version)) => (Some(seen), *version),
            _ => return,
        },
        Some((Outcome::Value(None), Some(_))) => (None, 0),
        _ => return,
    };
    let swapped = |reply: &Reply| match reply {
        Reply::Integer(_) => Some(Outcome::Flag(true)),
        Reply::Null => Some(Outcome::Flag(false)),
        _ => None,
    };
    let action = Action::Swap { expected, value: value.clone() };
    let _recorded = redis.call(key, action, &["RD.CAS", key, &version.to_string(), &value], swapped);
}

fn expiry(mut redis: RedisClient) {
    let mut rng = rand::rng();
    // Keys that may be there, and when to look no more.
    let mut recent: VecDeque<(String, u64)> = VecDeque::new();
    for number in 0.. {
        if redis.shared.is_stopped() {
            return;
        }
        let now_us = redis.shared.recorder.now_us();
        if number % 4 == 0 {
            let ttl_ms = rng.random_range(300..4_000);
            let key = format!("expiry:{}:{number}", redis.client);
            let action = Action::SetFor { value: key.clone(), ttl_ms };
            let ttl = ttl_ms.to_string();
            let set = redis.call(&key, action, &["SET", &key, &key, "PX", &ttl], |_| None);
            if matches!(set, Some((Outcome::Done, _))) {
                recent.push_back((key, now_us + ttl_ms * 1_000 + 3_000_000));
            }
        } else if !recent.is_empty() {
            let index = rng.random_range(0..recent.len());
            let _recorded = redis.get(&recent[index].0.clone());
        }
        recent.retain(|(_, until_us)| *until_us > now_us);
    }
}

fn deletes(mut redis: RedisClient) {
    for number in 0.. {
        if redis.shared.is_stopped() {
            return;
        }
        let key = format!("delete:{}:{number}", redis.client);
        if redis.set(&key, key.clone()) != Some(Outcome::Done) {
            continue;
        }
        let _recorded = redis.get(&key);
        let removed = |reply: &Reply| match reply {
            Reply::Integer(count) => Some(Outcome::Flag(*count == 1)),
            _ => None,
        };
        let _recorded = redis.call(&key, Action::Delete, &["DEL", &key], removed);
        let _recorded = redis.get(&key);
    }
}

/// What the locks guard: it keeps the highest token that it has seen, and refuses lower ones.
type Resources = Arc<Mutex<BTreeMap<String, [u64; 3]>>>;

async fn quic_loads(shared: Shared, seeds: Vec<String>) {
    let secret = Secret::new(SECRET.as_bytes()).expect("long enough");
    let config = ClientConfig::new(seeds).secret(&secret).expect("a secret");
    let client = match Client::connect(config).await {
        Ok(client) => client,
        Err(error) => panic!("the QUIC client can't connect: {error}"),
    };
    let partitions = client.view().await.map_or(1024, |view| view.partition_count());
    let mut tasks = Vec::new();
    for id in 0..COUNTERS as u16 {
        tasks.push(tokio::task::spawn_local(numbered_counter(shared.clone(), client.clone(), id)));
    }
    let resources = Resources::default();
    for id in 0..LOCK_CLIENTS as u16 {
        let (shared, client, resources) = (shared.clone(), client.clone(), resources.clone());
        tasks.push(tokio::task::spawn_local(locks(shared, client, id, resources)));
    }
    let step = (partitions / shared.pace.probed.max(1)).max(1);
    for partition in (0..partitions).step_by(usize::from(step)) {
        tasks.push(tokio::task::spawn_local(probe(shared.clone(), client.clone(), partition, partitions)));
    }
    for task in tasks {
        task.await.expect("a client doesn't panic");
    }
}

fn failed(error: &ringdove::Error) -> Outcome {
    match error.write_outcome() {
        WriteOutcome::NotDone => Outcome::Refused(error.to_string()),
        WriteOutcome::Done | WriteOutcome::Unknown => Outcome::Doubt(error.to_string()),
    }
}

async fn numbered_counter(shared: Shared, client: Client, id: u16) {
    let map = client.unnamed::<str, u64>();
    let key = format!("numbered:{id}");
    while !shared.is_stopped() {
        let invoke_us = shared.recorder.now_us();
        let outcome = match map.increment(&key, 1).await {
            Ok(sum) => Outcome::Number(sum),
            Err(error) => failed(&error),
        };
        shared.recorder.add(Record {
            load: Load::NumberedCounter,
            client: id,
            node: None,
            key: key.clone(),
            action: Action::Add(1),
            invoke_us,
            return_us: shared.recorder.now_us(),
            outcome,
        });
        tokio::time::sleep(shared.pace.every).await;
    }
}

async fn locks(shared: Shared, client: Client, id: u16, resources: Resources) {
    let map = client.unnamed::<str, u64>();
    let record = |key: &str, action, invoke_us, outcome| {
        let (key, return_us) = (key.to_owned(), shared.recorder.now_us());
        let record =
            Record { load: Load::Lock, client: id, node: None, key, action, invoke_us, return_us, outcome };
        shared.recorder.add(record);
    };
    for number in usize::from(id).. {
        if shared.is_stopped() {
            return;
        }
        tokio::time::sleep(shared.pace.every * 2).await;
        let key = format!("lock:{}", number % LOCKS);
        let invoke_us = shared.recorder.now_us();
        let taken = map.try_lock(&key, LEASE).await;
        let action = Action::Lock { lease_ms: LEASE.as_millis() as u64 };
        let lock = match taken {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                record(&key, action, invoke_us, Outcome::Flag(false));
                continue;
            }
            Err(error) => {
                record(&key, action, invoke_us, failed(&error));
                continue;
            }
        };
        let token = lock.token();
        let token = [token.incarnation.0, token.epoch.0, token.sequence.0];
        record(&key, action, invoke_us, Outcome::Token(token));
        for _ in 0..2 {
            let invoke_us = shared.recorder.now_us();
            let accepted = {
                let mut resources = resources.lock().unwrap_or_else(PoisonError::into_inner);
                let highest = resources.entry(key.clone()).or_default();
                let accepted = token >= *highest;
                *highest = token.max(*highest);
                accepted
            };
            record(&key, Action::Guarded(token), invoke_us, Outcome::Flag(accepted));
            // Now and then a holder is slow, and goes on when its lease has run out.
            let slow = rand::rng().random_bool(0.05);
            tokio::time::sleep(if slow { LEASE.mul_f64(1.2) } else { shared.pace.every }).await;
        }
        let invoke_us = shared.recorder.now_us();
        let outcome = match lock.unlock().await {
            Ok(held) => Outcome::Flag(held),
            Err(error) => failed(&error),
        };
        record(&key, Action::Unlock, invoke_us, outcome);
    }
}

/// The first key of the form `probe:N` in a partition.
pub fn probe_key(partition: u16, partitions: u16) -> String {
    let keys = (0..).map(|number| format!("probe:{number}"));
    let mut here =
        keys.filter(|key| Slot::of(key.as_bytes()).partition(partitions) == PartitionId(partition));
    here.next().expect("a key for every partition")
}

/// The client's number of a probe is its partition.
async fn probe(shared: Shared, client: Client, partition: u16, partitions: u16) {
    let key = probe_key(partition, partitions);
    let pause = rand::rng().random_range(0.0..1.0);
    tokio::time::sleep(shared.pace.probe_every.mul_f64(pause)).await;
    for number in 0_u64.. {
        if shared.is_stopped() {
            return;
        }
        let value = number.to_string();
        let invoke_us = shared.recorder.now_us();
        let outcome = match client.command(&[b"SET", key.as_bytes(), value.as_bytes()]).await {
            Ok(_) => Outcome::Done,
            Err(error) => failed(&error),
        };
        let return_us = shared.recorder.now_us();
        shared.recorder.add(Record {
            load: Load::Probe,
            client: partition,
            node: None,
            key: key.clone(),
            action: Action::Set(value),
            invoke_us,
            return_us,
            outcome,
        });
        let spent = Duration::from_micros(return_us - invoke_us);
        tokio::time::sleep(shared.pace.probe_every.saturating_sub(spent)).await;
    }
}
