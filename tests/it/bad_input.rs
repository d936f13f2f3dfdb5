//! What no honest peer would send. The node answers as it should, or not at all, and lives on.

use crate::harness::cluster::Cluster;
use crate::harness::http;
use crate::harness::resp::{Resp, encode};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use ringdove::engine::resp::Reply;
use std::io::ErrorKind;
use std::net::UdpSocket;

/// A single node, and that it is the same and well at the end.
struct Patient(Cluster);

impl Patient {
    fn start() -> Patient {
        let patient = Patient(Cluster::start(1));
        patient.0.connect(0).words("SET pulse steady").expect("the node answers");
        patient
    }

    fn check(mut self) {
        assert!(self.0.nodes[0].is_running());
        assert_eq!(self.0.connect(0).words("GET pulse").unwrap(), Reply::Bulk(b"steady".to_vec()));
        let status = self.0.status();
        assert_eq!(status.members.len(), 1);
        assert_eq!(status.counters.get("invariant_alarms"), Some(&0));
        let lines = self.0.nodes[0].lines.all();
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
        // Noise from strangers must not become a flood of lines.
        assert!(lines.len() < 100, "{} lines of log", lines.len());
    }
}

/// What the node says before it closes, or `None` if it just closes.
fn farewell(resp: &mut Resp) -> Option<String> {
    let said = match resp.reply() {
        Ok(reply) => Some(reply.error().expect("an error").to_owned()),
        Err(error) if is_closed(&error) => None,
        Err(error) => panic!("neither an answer nor closed: {error}"),
    };
    let closed = resp.reply();
    assert!(closed.as_ref().is_err_and(is_closed), "not closed: {closed:?}");
    said
}

fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

#[test]
fn resp_breaches_get_the_error_of_redis_and_a_closed_connection() {
    let patient = Patient::start();
    let breaches: [(&[u8], &str); 8] = [
        (b"*x\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*2000000000\r\n", "ERR Protocol error: invalid multibulk length"),
        (b"*1\r\n:4\r\n", "ERR Protocol error: expected '$', got ':'"),
        (b"*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*1\r\n$99999999999\r\n", "ERR Protocol error: invalid bulk length"),
        (b"*2\r\n$3\r\nGET\r\n$70000000000\r\n", "ERR Protocol error: invalid bulk length"),
        (b"SET \"unbalanced\r\n", "ERR Protocol error: unbalanced quotes in request"),
        (&[b'a'; 100_000], "ERR Protocol error: too big inline request"),
    ];
    for (bytes, expected) in breaches {
        let mut resp = patient.0.connect(0);
        // What comes before the breach is still answered.
        resp.send(&encode(&["PING"])).unwrap();
        resp.send(bytes).unwrap();
        assert_eq!(resp.reply().unwrap(), Reply::Simple("PONG".to_owned()));
        assert_eq!(
            farewell(&mut resp).as_deref(),
            Some(expected),
            "{}",
            bytes[..bytes.len().min(60)].escape_ascii()
        );
    }
    patient.check();
}

#[test]
fn resp_errors_leave_the_connection_open() {
    let patient = Patient::start();
    let mut resp = patient.0.connect(0);
    for (command, expected) in [
        ("NOSUCH a b", "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "),
        ("GET", "ERR wrong number of arguments for 'get' command"),
        ("SET k v EX", "ERR syntax error"),
        ("SET k v EX 0", "ERR invalid expire time in 'set' command"),
        ("INCR pulse", "ERR value is not an integer or out of range"),
        ("SELECT 1", "ERR DB index is out of range"),
        ("CONFIG SET", "ERR wrong number of arguments for 'config|set' command"),
        ("DEBUG SLEEP 1", ""),
    ] {
        let reply = resp.words(command).unwrap();
        let text = reply.error().unwrap_or_else(|| panic!("{command}: {reply:?}"));
        assert!(expected.is_empty() || text == expected, "{command}: {text}");
    }
    let long = vec![b'k'; (64 << 10) + 1];
    let refused = resp.call(&[&b"SET"[..], &long, b"v"]).unwrap();
    assert!(refused.error().is_some(), "{refused:?}");
    assert_eq!(resp.words("PING").unwrap(), Reply::Simple("PONG".to_owned()));
    patient.check();
}

#[test]
fn random_bytes_on_the_resp_port() {
    let patient = Patient::start();
    let mut random = StdRng::seed_from_u64(1);
    for round in 0..60 {
        let mut resp = patient.0.connect(0);
        let mut bytes = vec![0; random.random_range(1..4_000)];
        random.fill_bytes(&mut bytes);
        if round % 2 == 0 {
            // So that it gets past the first byte.
            let start = format!("*{}\r\n$", random.random_range(1..5));
            bytes.splice(0..0, start.into_bytes());
        }
        // The node may close before it has everything.
        let _ = resp.send(&bytes);
        drop(resp);
    }
    patient.check();
}

#[test]
fn half_commands_of_many_connections_hold_nobody_up() {
    let patient = Patient::start();
    let half: Vec<Resp> = (0..200)
        .map(|_| {
            let mut resp = patient.0.connect(0);
            resp.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$60000000\r\nonly the beginning").unwrap();
            resp
        })
        .collect();
    assert_eq!(patient.0.connect(0).words("PING").unwrap(), Reply::Simple("PONG".to_owned()));
    let memory = std::fs::read_to_string(format!("/proc/{}/statm", patient.0.nodes[0].pid())).unwrap();
    let resident_pages: u64 = memory.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(resident_pages < 200 << 8, "announced values must not cost memory: {resident_pages} pages");
    drop(half);
    patient.check();
}

#[test]
fn random_datagrams_on_the_quic_port() {
    let patient = Patient::start();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = StdRng::seed_from_u64(2);
    for round in 0..3_000u32 {
        let mut bytes = vec![0; random.random_range(1..1_400)];
        random.fill_bytes(&mut bytes);
        if round % 3 == 0 {
            // The shape of a QUIC v1 initial packet.
            bytes[0] = 0xC0 | (bytes[0] & 0x3F);
            bytes.splice(1..1.min(bytes.len()), [0, 0, 0, 1, 8]);
            bytes.resize(1_200, 0);
        }
        socket.send_to(&bytes, patient.0.nodes[0].quic).unwrap();
    }
    let output = crate::harness::process::ringdove()
        .args(["get", "pulse", "--quic", &patient.0.nodes[0].quic.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"steady\n", "QUIC clients are served beside the noise");
    patient.check();
}

#[test]
fn garbage_on_the_admin_port() {
    let patient = Patient::start();
    let admin = patient.0.nodes[0].admin;
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..30 {
        let mut bytes = vec![0; random.random_range(1..3_000)];
        random.fill_bytes(&mut bytes);
        bytes.extend_from_slice(b"\r\n\r\n");
        // Refused or closed; what matters is that it is still there afterwards.
        let _ = http::send(admin, &bytes);
    }
    for (method, path, status) in [
        ("POST", "/v1/cluster", 405),
        ("DELETE", "/", 405),
        ("GET", "/no/such/page", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/cluster", 200),
    ] {
        assert_eq!(http::ask(admin, method, path).unwrap().status, status, "{method} {path}");
    }
    let endless = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2 << 20));
    let _ = http::send(admin, endless.as_bytes());
    assert_eq!(http::get(admin, "/healthz").unwrap().status, 200);
    patient.check();
}
