//! Many connections at once: idle ones, ones that don't read, and ones that don't belong here.

use crate::harness::cluster::Cluster;
use crate::harness::http;
use crate::harness::process::Process;
use crate::harness::resp::encode;
use crate::harness::wait::eventually;
use ringdove::drivers::pki::{Secret, Trust};
use ringdove::drivers::quic::ClientDialer;
use ringdove::engine::resp::Reply;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const IDLE_COUNT: usize = 10_000;
const SLOW_COUNT: usize = 1_000;
/// What processes need beside connections.
const SPARE_FILES: usize = 300;
const DEADLINE: Duration = Duration::from_secs(40);

/// Lets this process and those it starts open as many files as they may, and says how many.
fn files_max() -> usize {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    maximum.map_or(usize::MAX, |most| most as usize)
}

fn resident_bytes(node: &Process) -> u64 {
    let memory = std::fs::read_to_string(format!("/proc/{}/statm", node.pid())).expect("it runs");
    let pages: u64 = memory.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * rustix::param::page_size() as u64
}

/// A connection with room for little that it has not read.
fn narrow(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4 << 10).expect("a small buffer");
    socket.connect(&address.into()).expect("the node accepts");
    socket
}

fn closed_as_slow(cluster: &Cluster) -> u64 {
    let Ok(Reply::Bulk(info)) = cluster.connect(0).words("INFO stats") else { panic!("no INFO") };
    let info = String::from_utf8(info).expect("text");
    let line = info.lines().find_map(|line| line.strip_prefix("client_output_buffer_limit_disconnections:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a count")
}

#[test]
fn idle_and_slow_connections_hurt_nobody() {
    let files = files_max().saturating_sub(SPARE_FILES);
    // On machines that allow fewer files, the same shares of fewer.
    let scaled = |count: usize| count.min(files * count / (IDLE_COUNT + SLOW_COUNT));
    let (idle_count, slow_count) = (scaled(IDLE_COUNT), scaled(SLOW_COUNT));
    println!("{idle_count} idle and {slow_count} slow connections");
    let clients_max = (idle_count + slow_count + 50).to_string();
    let cluster = Cluster::with_flags(1, &["--max-clients", &clients_max]);
    let node = cluster.nodes[0].resp;
    let mut other = cluster.connect(0);
    let big = vec![b'x'; 64 << 10];
    assert_eq!(other.call(&[&b"SET"[..], b"big", &big]).unwrap(), Reply::Simple("OK".into()));
    let mut check = |number: usize| {
        let value = number.to_string();
        assert_eq!(other.call(&["SET", "beside", &value]).unwrap(), Reply::Simple("OK".into()));
        assert_eq!(other.words("GET beside").unwrap(), Reply::Bulk(value.into_bytes()));
    };

    let mut idle = Vec::with_capacity(idle_count);
    for number in 0..idle_count {
        idle.push(cluster.connect(0));
        if number % 1_000 == 0 {
            check(number);
        }
    }
    let before = resident_bytes(&cluster.nodes[0]);

    // Four megabytes of replies each, of which the sockets take some.
    let greed: Vec<u8> = (0..64).flat_map(|_| encode(&["GET", "big"])).collect();
    let mut slow = Vec::with_capacity(slow_count);
    for number in 0..slow_count {
        let mut socket = narrow(node);
        // A few hundred bytes: they fit whatever the node does.
        socket.write_all(&greed).expect("the node takes commands");
        slow.push(socket);
        if number % 100 == 0 {
            check(number);
        }
    }
    // Each may have a megabyte lying here, all together 128: some have to go, how many depends on what
    // the kernel keeps.
    let some = slow_count as u64 / 10;
    eventually("slow readers are closed", DEADLINE, || {
        check(slow_count);
        let closed = closed_as_slow(&cluster);
        if closed >= some { Ok(()) } else { Err(format!("{closed} of {some}")) }
    });
    let grown = resident_bytes(&cluster.nodes[0]).saturating_sub(before);
    println!("{} MiB with idle connections, {} MiB more with slow ones", before >> 20, grown >> 20);
    assert!(grown < (2 * slow_count as u64) << 20, "{grown} bytes for what nobody reads");
    let told = |line: &&String| line.contains("don't read their replies");
    assert_eq!(cluster.nodes[0].lines.all().iter().filter(told).count(), 1);
    // Who only waited is still there.
    for resp in idle.iter_mut().step_by(97) {
        assert_eq!(resp.words("PING").unwrap(), Reply::Simple("PONG".into()));
    }
    drop((idle, slow));
}

/// The sum of the metrics of the mesh of this kind.
fn mesh(node: &Process, kind: &str) -> Result<u64, String> {
    let metrics = http::get(node.admin, "/metrics")?.body;
    let found = metrics
        .lines()
        .find(|line| line.starts_with("ringdove_mesh_total") && line.contains(&format!("\"{kind}\"")))
        .ok_or(format!("no {kind}"))?;
    let value = found.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    value.map(|value| value as u64).ok_or(found.to_owned())
}

/// Dials both nodes from many sockets, with another secret, until told to stop.
fn flood(nodes: &[SocketAddr], stop: &AtomicBool, dialled: &AtomicU64) {
    const AT_ONCE: usize = 300;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let trust = Trust::from_secret(&Secret::new("a secret of quite another cluster").expect("long enough"))
        .expect("certificates");
    runtime.block_on(async {
        let dial = async |number: usize| {
            let dialer = ClientDialer::bind(&trust, number as u64, "flood").expect("a socket");
            loop {
                let refused = dialer.connect(nodes[number % nodes.len()]).await;
                assert!(refused.is_err(), "a stranger was let in");
                dialled.fetch_add(1, Ordering::Relaxed);
            }
        };
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = futures_util::future::join_all((0..AT_ONCE).map(dial)) => {}
            () = stopped => {}
        }
    });
}

#[test]
fn a_flood_of_handshakes_with_another_secret_starves_no_member() {
    let mut secret = tempfile::NamedTempFile::new().expect("a file");
    writeln!(secret, "the secret that the members share").expect("a file");
    let secret = secret.path().to_str().expect("a plain path").to_owned();
    let cluster = Cluster::with_flags(2, &["--secret-file", &secret]);
    let nodes: Vec<SocketAddr> = cluster.nodes.iter().map(|node| node.quic).collect();
    let (stop, dialled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let flooding = {
        let (stop, dialled) = (stop.clone(), dialled.clone());
        std::thread::spawn(move || flood(&nodes, &stop, &dialled))
    };
    // Every write needs the other member.
    let mut clients = [cluster.connect(0), cluster.connect(1)];
    let mut written = 0u64;
    let (_, _) = eventually("handshakes are refused while writes go on", DEADLINE, || {
        for client in &mut clients {
            let value = written.to_string();
            assert_eq!(client.call(&["SET", &value, &value]).unwrap(), Reply::Simple("OK".into()));
            written += 1;
        }
        let refused: u64 =
            cluster.nodes.iter().map(|node| mesh(node, "refused_untrusted")).sum::<Result<_, _>>()?;
        if written >= 50 && refused >= 500 {
            Ok(())
        } else {
            Err(format!("{written} writes, {refused} refused"))
        }
    });
    stop.store(true, Ordering::Relaxed);
    flooding.join().expect("strangers stay outside");
    println!("{} handshakes, {written} writes", dialled.load(Ordering::Relaxed));
    for node in &cluster.nodes {
        assert_eq!(mesh(node, "links_lost"), Ok(0), "the members stay linked");
        let told = node.lines.all().into_iter().filter(|line| line.contains("refused connections"));
        let told: Vec<String> = told.collect();
        // One line a minute for each of the kinds.
        assert!((1..=3).contains(&told.len()), "{told:#?}");
    }
    let status = cluster.status();
    assert_eq!(status.counters.get("invariant_alarms"), Some(&0));
}
