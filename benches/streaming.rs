//! Partition streaming: a node joins one that is full, and receives a copy of everything. Beside
//! it, the same number of bytes over bare QUIC with the same settings, between two processes.
//!
//! `cargo bench --bench streaming`

mod rig;

use rig::load::Load;
use rig::servers::{Node, Server, cpu_us, cpu_us_of};
use rig::{Failure, block_on, median, results};
use ringdove::config::Credentials;
use ringdove::drivers::pki::{NODE_NAME, Role};
use ringdove::drivers::quic::raw;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Bytes of a value, and how many there are.
const FILLS: [(u32, u64); 2] = [(64, 1_500_000), (4_096, 60_000)];
const RAW_BYTES: u64 = 256 << 20;
const ROUNDS: usize = 3;
/// More than a copy takes.
const WARM_BYTES: usize = 512 << 20;
/// The first argument of this program as the receiver of bare QUIC.
const RECEIVER: &str = "receive-bare-quic";

struct Run {
    bytes: f64,
    seconds: f64,
    cpu_us: f64,
}

impl Run {
    fn mb_per_second(&self) -> f64 {
        self.bytes / 1e6 / self.seconds
    }

    fn cpu_ns_per_byte(&self) -> f64 {
        self.cpu_us * 1e3 / self.bytes
    }
}

/// Makes sure that the system has memory to give. That of a virtual machine whose host takes back what
/// is free costs several times as much to touch for the first time after a second or two.
fn warm() -> Result<(), Failure> {
    let mut memory = memmap2::MmapMut::map_anon(WARM_BYTES)?;
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage)?;
    memory.iter_mut().step_by(4_096).for_each(|byte| *byte = 1);
    Ok(())
}

/// From the first byte of the snapshots sent until every copy is complete.
async fn join(value_bytes: u32, keys: u64) -> Result<Run, Failure> {
    let first = Node::start(&["--weight", "10000"]).await?;
    let mut load = Load::new("0:1", 50, 16, 0);
    (load.value_bytes, load.keys) = (value_bytes, keys);
    load.fill(first.resp).await?;
    let seed = first.quic.to_string();
    let idle = first.server.cpu_us();
    let sent = |status: &serde_json::Value| status["counters"]["snapshot_bytes_sent"].as_f64().unwrap_or(0.0);
    let first_byte = async {
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_secs(60) {
            if first.status().await.is_ok_and(|status| sent(&status) > 0.0) {
                return Ok(Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(std::io::Error::other("no snapshot was sent"))
    };
    warm()?;
    let joined = ["--weight", "1", "--seed", &seed];
    let (second, start) = tokio::try_join!(Node::start(&joined), first_byte)?;
    while !(first.is_settled(2).await? && second.is_settled(2).await?) {
        if start.elapsed() > Duration::from_secs(120) {
            return Err("the copies are not complete".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu_us = cpu_us_of([&first.server, &second.server]) - idle;
    Ok(Run { bytes: sent(&first.status().await?), seconds, cpu_us })
}

fn endpoint() -> Result<quinn::Endpoint, Failure> {
    let trust = Credentials::Development.trust(Role::Node)?;
    Ok(raw::endpoint(SocketAddr::from(([127, 0, 0, 1], 0)), &trust)?)
}

/// The receiving process: prints where it listens, then, when a stream has ended, its own
/// processor time.
async fn receive() -> Result<(), Failure> {
    let endpoint = endpoint()?;
    println!("{}", endpoint.local_addr()?);
    let connection = endpoint.accept().await.ok_or("closed")?.await?;
    let mut stream = connection.accept_uni().await?;
    while stream.read_chunk(usize::MAX, true).await?.is_some() {}
    connection.open_uni().await?.write_all(b"done").await?;
    println!("{}", cpu_us("self"));
    connection.closed().await;
    Ok(())
}

/// One stream of bytes between this process and another.
async fn bare_quic() -> Result<Run, Failure> {
    let mut receiver = Command::new(std::env::current_exe()?);
    let mut receiver = Server::spawn(receiver.arg(RECEIVER))?;
    let mut lines = BufReader::new(receiver.take_stdout()?).lines();
    let addr: SocketAddr = lines.next_line().await?.ok_or("the receiver ended")?.parse()?;
    let endpoint = endpoint()?;
    let connection = endpoint.connect(addr, NODE_NAME)?.await?;
    let chunk = vec![7; 64 << 10];
    let mut stream = connection.open_uni().await?;
    // The path's MTU is found by then, as on a link that has been up for a while.
    stream.write_all(&chunk).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    warm()?;
    let (start, idle) = (Instant::now(), cpu_us("self") + receiver.cpu_us());
    for _ in 0..RAW_BYTES / chunk.len() as u64 {
        stream.write_all(&chunk).await?;
    }
    stream.finish()?;
    connection.accept_uni().await?;
    let seconds = start.elapsed().as_secs_f64();
    let received_us: f64 = lines.next_line().await?.ok_or("the receiver ended")?.parse()?;
    let run = Run { bytes: RAW_BYTES as f64, seconds, cpu_us: cpu_us("self") + received_us - idle };
    connection.close(0_u32.into(), b"");
    endpoint.wait_idle().await;
    Ok(run)
}

async fn bench() -> Result<(), Failure> {
    let mut names = vec!["bare QUIC".to_owned()];
    names.extend(FILLS.map(|(value_bytes, keys)| format!("{keys} values of {value_bytes} B")));
    let mut runs: Vec<Vec<Run>> = names.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        runs[0].push(bare_quic().await?);
        for (index, (value_bytes, keys)) in FILLS.into_iter().enumerate() {
            runs[index + 1].push(join(value_bytes, keys).await?);
        }
    }
    println!("a copy of everything to a node that joins; CPU is of both processes; medians of {ROUNDS}");
    println!("{:<28} {:>10} {:>10} {:>14}", "", "MB", "MB/s", "CPU-ns a byte");
    let mut rows = Vec::new();
    for (name, runs) in names.iter().zip(&runs) {
        let mb = median(runs.iter().map(|run| run.bytes)) / 1e6;
        let mb_per_second = median(runs.iter().map(Run::mb_per_second));
        let cpu_ns_per_byte = median(runs.iter().map(Run::cpu_ns_per_byte));
        println!("{name:<28} {mb:>10.1} {mb_per_second:>10.1} {cpu_ns_per_byte:>14.2}");
        rows.push(serde_json::json!({
            "what": name, "mb": mb, "mb_per_second": mb_per_second, "cpu_ns_per_byte": cpu_ns_per_byte,
        }));
    }
    results::keep("streaming", &rows.into())
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(RECEIVER) {
        if let Err(error) = block_on(receive()) {
            eprintln!("the receiver: {error}");
            std::process::exit(1);
        }
        return;
    }
    results::run("streaming", || block_on(bench()));
}
