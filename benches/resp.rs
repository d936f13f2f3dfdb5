//! The front door without a socket: nanoseconds a command of decoding alone, of a connection's
//! pipeline over a node that does nothing, and over the engine of a single node.
//!
//! Commands come in batches, as one read of a socket brings them. `cargo bench --bench resp`

#[path = "../tests/support/lone_node.rs"]
#[expect(dead_code, reason = "the counting test needs more of it")]
mod lone_node;
mod rig;

use lone_node::{Node, append, connect};
use rig::{Failure, median, results};
use ringdove::engine::resp::{CommonArgs, Decoder, DecoderLimits, Front};
use ringdove::engine::session::{Connection, Host};
use std::hint::black_box;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const KEYS: u64 = 1_000_000;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(120);
/// Commands a read.
const BATCHES: [usize; 3] = [1, 16, 64];

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

fn drive(connection: &mut Connection, host: &mut impl Host, batch: &[u8]) {
    connection.receive(batch, host);
    black_box(connection.output().len());
    connection.output().clear();
}

fn decode(decoder: &mut Decoder, batch: &[u8]) {
    let (mut at, mut front) = (0, Front::none());
    while at < batch.len() {
        let mut args = CommonArgs::new();
        let Some(consumed) = decoder.decode_common(&batch[at..], &mut front, &mut args) else { break };
        black_box(&args);
        at += consumed;
    }
}

fn bench() -> Result<(), Failure> {
    let (mut idle, mut working) = (Node::idle(), Node::alone());
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
