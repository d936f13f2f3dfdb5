//! What a node costs while it does nothing, while it fills, and after it was emptied, and how the cost of
//! an operation grows with connections, keys, nodes and large values beside it: each figure beside its bar.
//! `ringdove bench compare --redis --only memory` has Redis beside it.
//!
//! `cargo bench --bench growth`; with `-- large` also at ten million keys (4 GB of memory), with
//! `-- values` only beside large values.

mod rig;

use rig::load::Load;
use rig::servers::{Node, Server, cpu_us_of, output};
use rig::{Failure, block_on, median, program, results};
use serde_json::json;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const MIB: f64 = 1_048_576.0;
/// Commands written before their replies are read.
const BATCH: u64 = 1_000;
/// Allocators give freed memory back a second or two later.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE_FOR: Duration = Duration::from_secs(20);
const STARTS: usize = 5;
const RUNS: usize = 5;
/// Far away, so that nothing expires meanwhile.
const TTL_S: u64 = 1_000_000;

fn main() {
    results::run("growth", || block_on(bench()));
}

async fn bench() -> Result<(), Failure> {
    if std::env::args().any(|argument| argument == "values") {
        return beside_large_values().await;
    }
    starting().await?;
    idle().await?;
    for keys in if is_large() { vec![1_000_000, 10_000_000] } else { vec![1_000_000] } {
        filled(keys).await?;
    }
    emptied().await?;
    connections().await?;
    if is_large() {
        keys().await?;
    }
    nodes().await?;
    beside_large_values().await?;
    expiring().await
}

fn is_large() -> bool {
    std::env::args().any(|argument| argument == "large")
}

/// One figure beside its bar.
fn report(what: &str, figure: f64, unit: &str, bar: f64) -> Result<(), Failure> {
    let verdict = if figure <= bar { "met" } else { "missed" };
    println!("{what:<52} {figure:>9.3} {unit:<9} bar {bar:<6} {verdict}");
    let mut kept = results::kept("growth");
    kept[what] = json!({ "figure": figure, "unit": unit, "bar": bar });
    results::keep("growth", &kept)
}

/// A connection that speaks in batches of commands with replies of one line.
struct Client {
    stream: TcpStream,
    replies: BufReader<TcpStream>,
}

impl Client {
    fn connect(at: SocketAddr) -> Result<Client, Failure> {
        let stream = TcpStream::connect(at)?;
        stream.set_nodelay(true)?;
        Ok(Client { replies: BufReader::new(stream.try_clone()?), stream })
    }

    /// Runs `count` commands, the n-th as `command` appends it.
    fn run(&mut self, count: u64, mut command: impl FnMut(u64, &mut Vec<u8>)) -> Result<(), Failure> {
        let (mut batch, mut line) = (Vec::new(), String::new());
        for first in (0..count).step_by(BATCH as usize) {
            let numbers = first..count.min(first + BATCH);
            batch.clear();
            numbers.clone().for_each(|number| command(number, &mut batch));
            self.stream.write_all(&batch)?;
            for _ in numbers {
                line.clear();
                self.replies.read_line(&mut line)?;
                if line.is_empty() || line.starts_with('-') {
                    return Err(format!("a command failed: {line:?}").into());
                }
            }
        }
        Ok(())
    }

    /// What INFO says of the memory in use.
    fn used_bytes(&mut self) -> Result<f64, Failure> {
        self.stream.write_all(b"INFO memory\r\n")?;
        let (mut line, mut used) = (String::new(), None);
        self.replies.read_line(&mut line)?;
        let mut left: usize = line.trim_start_matches('$').trim_end().parse::<usize>()? + 2;
        while left > 0 {
            line.clear();
            left = left.saturating_sub(self.replies.read_line(&mut line)?);
            used = used.or(line.strip_prefix("used_memory:").and_then(|bytes| bytes.trim_end().parse().ok()));
        }
        used.ok_or_else(|| "INFO without used_memory".into())
    }
}

fn append(command: &mut Vec<u8>, arguments: &[&[u8]]) {
    command.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        command.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        command.extend_from_slice(argument);
        command.extend_from_slice(b"\r\n");
    }
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Sets keys of 16 bytes to 64 bytes each.
fn fill(client: &mut Client, keys: u64, expiry: Option<(&[u8], u64)>) -> Result<(), Failure> {
    let value = [b'v'; 64];
    client.run(keys, |number, batch| match expiry {
        None => append(batch, &[b"SET", &key(number), &value]),
        Some((kind, at)) => {
            append(batch, &[b"SET", &key(number), &value, kind, at.to_string().as_bytes()]);
        }
    })
}

async fn starting() -> Result<(), Failure> {
    let mut alone = Vec::new();
    let mut joined = Vec::new();
    for _ in 0..STARTS {
        let start = Instant::now();
        let first = Node::start(&[]).await?;
        fill(&mut Client::connect(first.resp)?, 1, None)?;
        alone.push(start.elapsed().as_secs_f64());
        let seed = first.quic.to_string();
        let second = Node::start(&["--seed", &seed]).await?;
        let start = Instant::now();
        let third = Node::start(&["--seed", &seed]).await?;
        joined.push(start.elapsed().as_secs_f64());
        drop((first, second, third));
    }
    report("start alone, until the first SET", median(alone), "s", 0.3)?;
    report("start as the third of an empty cluster, until ready", median(joined), "s", 2.0)?;
    report("the program", std::fs::metadata(program()?)?.len() as f64 / MIB, "MiB", 20.0)
}

async fn idle() -> Result<(), Failure> {
    let node = Node::start(&[]).await?;
    std::thread::sleep(SETTLE);
    report("idle, resident", node.server.resident_bytes() / MIB, "MiB", 40.0)?;
    report("idle, processor", processor_percent(&node.server), "% of one", 0.5)
}

fn processor_percent(server: &Server) -> f64 {
    let before = server.cpu_us();
    std::thread::sleep(IDLE_FOR);
    (server.cpu_us() - before) / IDLE_FOR.as_micros() as f64 * 100.0
}

/// What is counted of the memory that entries take, and what they cost while nothing happens.
async fn filled(keys: u64) -> Result<(), Failure> {
    for (name, expiry) in [("no TTL", None), ("TTL", Some((&b"EX"[..], TTL_S)))] {
        let node = Node::start(&[]).await?;
        let mut client = Client::connect(node.resp)?;
        std::thread::sleep(SETTLE);
        let (empty, empty_used) = (node.server.resident_bytes(), client.used_bytes()?);
        fill(&mut client, keys, expiry)?;
        std::thread::sleep(SETTLE);
        let resident = node.server.resident_bytes();
        let what = format!("{keys} keys, {name}");
        println!("{what}: {:.1} resident bytes an entry", resident / keys as f64);
        let counted: f64 = (client.used_bytes()? - empty_used) / (resident - empty);
        report(&format!("{what}, counted or resident too much"), (1.0 - counted).abs() * 100.0, "%", 5.0)?;
        if expiry.is_some() {
            report(&format!("{what}, idle, processor"), processor_percent(&node.server), "% of one", 1.0)?;
        }
    }
    Ok(())
}

/// Memory after values of random sizes were overwritten and four in five deleted.
async fn emptied() -> Result<(), Failure> {
    const KEYS: u64 = 200_000;
    let node = Node::start(&[]).await?;
    let mut client = Client::connect(node.resp)?;
    let (empty, empty_used) = (node.server.resident_bytes(), client.used_bytes()?);
    let mut state = 1u64;
    let mut random = move |bound: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let value = vec![b'v'; 32 << 10];
    for round in 0..3 {
        client.run(KEYS, |number, batch| {
            let number = if round == 0 { number } else { random(KEYS) };
            // As many of each doubling from 16 bytes to 32 KiB.
            let bytes = 16 << random(11);
            let bytes = bytes + random(bytes);
            append(batch, &[b"SET", &key(number), &value[..bytes as usize]]);
        })?;
    }
    client.run(KEYS / 5 * 4, |number, batch| append(batch, &[b"DEL", &key(number / 4 * 5 + number % 4)]))?;
    std::thread::sleep(SETTLE * 2);
    let live = client.used_bytes()? - empty_used;
    report(
        "four in five deleted, resident to counted",
        (node.server.resident_bytes() - empty) / live,
        "",
        1.5,
    )
}

/// Processor time of the servers an operation, the median of some runs.
async fn cost(
    servers: &[Node],
    operations: u64,
    load: impl AsyncFn() -> io::Result<()>,
) -> Result<f64, Failure> {
    let cpu_us = || cpu_us_of(servers.iter().map(|node| &node.server));
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let before = cpu_us();
        load().await?;
        runs.push((cpu_us() - before) / operations as f64);
    }
    Ok(median(runs))
}

/// What an operation costs with many connections, to one with few.
async fn connections() -> Result<(), Failure> {
    const FEW: u32 = 50;
    const MANY: u32 = 5_000;
    const OPERATIONS: u64 = 200_000;
    let node = [Node::start(&[]).await?];
    let load = |clients| Load::new("1:0", clients, 1, OPERATIONS);
    load(FEW).fill(node[0].resp).await?;
    let reads = async |clients| {
        cost(&node, OPERATIONS, async || load(clients).run(node[0].resp).await.map(drop)).await
    };
    let (few, many) = (reads(FEW).await?, reads(MANY).await?);
    println!("GET, {FEW} connections {few:.2} us, {MANY} connections {many:.2} us");
    report("GET with 5,000 connections to 50", many / few, "", 1.5)
}

/// What an operation costs among ten million keys, to one among one million.
async fn keys() -> Result<(), Failure> {
    const OPERATIONS: u64 = 1_000_000;
    let mut costs = Vec::new();
    for keys in [1_000_000, 10_000_000] {
        let node = [Node::start(&[]).await?];
        Load { keys, ..Load::new("0:1", 50, 64, 0) }.fill(node[0].resp).await?;
        let load = Load { keys, ..Load::new("1:0", 50, 16, OPERATIONS) };
        let figure = cost(&node, OPERATIONS, async || load.run(node[0].resp).await.map(drop)).await?;
        println!("GET, pipeline 16, {keys} keys {figure:.2} us");
        costs.push(figure);
    }
    report("GET among 10,000,000 keys to 1,000,000", costs[1] / costs[0], "", 1.1)
}

/// What an operation over QUIC costs all nodes when there are many, to one when there are few: under the same
/// load, of which each node has a smaller part, and under one that grows with the cluster.
async fn nodes() -> Result<(), Failure> {
    const FEW: usize = 3;
    const MANY: usize = 9;
    const CLIENTS: usize = 50;
    let few = cost_over_quic(FEW, &[CLIENTS]).await?;
    let many = cost_over_quic(MANY, &[CLIENTS, CLIENTS * MANY / FEW]).await?;
    report("an operation, nine nodes to three, same load", many[0] / few[0], "", 1.3)?;
    report("an operation, nine nodes to three, same load a node", many[1] / few[0], "", 1.3)
}

/// What a GET or SET costs so many nodes in all, by the number of clients.
async fn cost_over_quic(count: usize, clients: &[usize]) -> Result<Vec<f64>, Failure> {
    const OPERATIONS: u64 = 100_000;
    let nodes = Node::cluster(&vec![&[][..]; count]).await?;
    let quic = nodes[0].quic.to_string();
    let mut costs = Vec::new();
    for clients in clients {
        let load = async || {
            let mut command = tokio::process::Command::new(program()?);
            command.args(["bench", "--quic", &quic, "--pipeline", "16", "--keys", "100000", "--json"]);
            command.args(["--clients", &clients.to_string(), "--requests", &OPERATIONS.to_string()]);
            output(&mut command).await.map(drop)
        };
        load().await?;
        let figure = cost(&nodes, OPERATIONS, load).await?;
        println!("GET and SET over QUIC, {count} nodes, {clients} clients {figure:.2} us");
        costs.push(figure);
    }
    Ok(costs)
}

/// Latency of small reads while another client sets, or gets, values of 64 MiB in a loop. With two cores the
/// three processes compete for them, too.
async fn beside_large_values() -> Result<(), Failure> {
    const FOR: Duration = Duration::from_secs(5);
    let node = Node::start(&[]).await?;
    let mut client = Client::connect(node.resp)?;
    client.run(1, |_, batch| append(batch, &[b"SET", b"small", &[b'v'; 64]]))?;
    let alone = read_latency(&mut client, FOR)?;
    println!("small GETs alone: p50 {:.0} us, p99 {:.0} us", alone.p50_us, alone.p99_us);
    for (name, large) in [("SET", set_large as fn(&mut Client) -> io::Result<()>), ("GET", get_large)] {
        let (count, ends) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut other = Client::connect(node.resp)?;
        set_large(&mut other)?;
        let looping = std::thread::spawn({
            let (count, ends) = (count.clone(), ends.clone());
            move || -> io::Result<()> {
                while !ends.load(Ordering::Relaxed) {
                    large(&mut other)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        });
        let beside = read_latency(&mut client, FOR)?;
        let per_s = count.load(Ordering::Relaxed) as f64 / FOR.as_secs_f64();
        ends.store(true, Ordering::Relaxed);
        looping.join().map_err(|_| "the large client failed")??;
        let Latency { p50_us, p99_us, max_us } = beside;
        println!(
            "small GETs beside {per_s:.1} {name}s of 64 MiB a second: p50 {p50_us:.0} us, p99 {p99_us:.0} us, \
             at most {max_us:.0} us"
        );
        report(
            &format!("p99 of small GETs beside {name}s of 64 MiB, to alone"),
            p99_us / alone.p99_us,
            "",
            5.0,
        )?;
    }
    Ok(())
}

/// How long operations took, in microseconds.
struct Latency {
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
}

/// Reads one small value after the other.
fn read_latency(client: &mut Client, duration: Duration) -> Result<Latency, Failure> {
    let (start, mut taken_us) = (Instant::now(), Vec::new());
    let (mut command, mut line) = (Vec::new(), String::new());
    append(&mut command, &[b"GET", b"small"]);
    while start.elapsed() < duration {
        let began = Instant::now();
        client.stream.write_all(&command)?;
        line.clear();
        while !line.ends_with("v\r\n") {
            if client.replies.read_line(&mut line)? == 0 {
                return Err("the connection ended".into());
            }
        }
        taken_us.push(began.elapsed().as_secs_f64() * 1e6);
    }
    taken_us.sort_by(f64::total_cmp);
    let at = |share: f64| taken_us[(taken_us.len() as f64 * share) as usize];
    Ok(Latency { p50_us: at(0.5), p99_us: at(0.99), max_us: at(0.999_999_9) })
}

const LARGE_BYTES: usize = 64 << 20;
static LARGE_PIECE: [u8; 1 << 20] = [b'v'; 1 << 20];

fn set_large(client: &mut Client) -> io::Result<()> {
    let announced = format!("*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${LARGE_BYTES}\r\n");
    client.stream.write_all(announced.as_bytes())?;
    for _ in 0..LARGE_BYTES / LARGE_PIECE.len() {
        client.stream.write_all(&LARGE_PIECE)?;
    }
    client.stream.write_all(b"\r\n")?;
    let mut reply = [0; 5];
    client.replies.read_exact(&mut reply)?;
    if &reply == b"+OK\r\n" { Ok(()) } else { Err(io::Error::other("a large SET failed")) }
}

fn get_large(client: &mut Client) -> io::Result<()> {
    client.stream.write_all(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n")?;
    let bytes = format!("${LARGE_BYTES}\r\n\r\n").len() + LARGE_BYTES;
    let (mut piece, mut left) = (vec![0; LARGE_PIECE.len()], bytes);
    while left > 0 {
        let room = left.min(piece.len());
        match client.replies.read(&mut piece[..room])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left -= count,
        }
    }
    Ok(())
}

/// Latency of reads while a million keys expire at once.
async fn expiring() -> Result<(), Failure> {
    const KEYS: u64 = 1_000_000;
    const AFTER: Duration = Duration::from_secs(60);
    let node = Node::start(&[]).await?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH)? + AFTER;
    let started = Instant::now();
    fill(&mut Client::connect(node.resp)?, KEYS, Some((b"EXAT", at.as_secs())))?;
    let reads = Load { keys: 1_000, ..Load::new("1:0", 50, 1, 60_000) };
    let before = reads.run(node.resp).await?.gets.p99_us;
    std::thread::sleep(AFTER.saturating_sub(started.elapsed()));
    let meanwhile = reads.run(node.resp).await?.gets.p99_us;
    report("a million expire, added to p99 of GET", (meanwhile - before) / 1_000.0, "ms", 2.0)
}
