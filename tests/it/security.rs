//! Secrets: who may join, and what is never shown.

use crate::harness::cluster::{Cluster, turn};
use crate::harness::http;
use crate::harness::process::{Process, ringdove, start_with};
use crate::harness::wait::eventually;
use std::io::Write;
use std::time::Duration;
use tempfile::NamedTempFile;

const SECRET: &str = "a-secret-of-doves-that-nobody-prints";
const OTHER_SECRET: &str = "another-secret-that-nobody-prints";
const PASSWORD: &str = "the-password-of-redis-clients";

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    writeln!(file, "{text}").expect("a temporary file");
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().expect("a plain path")
}

/// Lines that tell of a refusal for want of trust.
fn refusals(node: &Process) -> usize {
    node.lines.all().iter().filter(|line| line.contains("certificate")).count()
}

#[test]
fn the_wrong_secret_joins_nothing_and_is_mentioned_once() {
    let (right, wrong) = (file(SECRET), file(OTHER_SECRET));
    let cluster = Cluster::with_flags(2, &["--secret-file", path(&right)]);
    let seed = cluster.nodes[0].quic.to_string();
    let stranger = crate::harness::process::start(&[
        "--seed",
        &seed,
        "--secret-file",
        path(&wrong),
        "--name",
        "stranger",
    ]);
    let unprotected = crate::harness::process::start(&["--seed", &seed, "--name", "unprotected"]);
    eventually("the member has refused the strangers", Duration::from_secs(30), || {
        match refusals(&cluster.nodes[0]) {
            0 => Err("nothing logged".to_owned()),
            _ => Ok(()),
        }
    });
    // Both try again and again; the counters show it.
    let attempts = || {
        let metrics = http::get(cluster.nodes[0].admin, "/metrics")?.body;
        let refused: f64 = metrics
            .lines()
            .filter(|line| line.starts_with("ringdove_mesh_total") && line.contains("untrusted"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        if refused >= 4.0 { Ok(refused) } else { Err(format!("{refused} refusals counted")) }
    };
    eventually("several attempts are counted", Duration::from_secs(40), attempts);
    // One line inbound and, as gossip might dial back, one outbound: not one an attempt.
    assert!(refusals(&cluster.nodes[0]) <= 2, "{:#?}", cluster.nodes[0].lines.all());
    for node in &cluster.nodes {
        assert_eq!(node.status().unwrap().members.len(), 2);
        assert!(!http::get(node.admin, "/v1/cluster").unwrap().body.contains("stranger"));
    }
    for outsider in [&stranger, &unprotected] {
        assert_ne!(http::get(outsider.admin, "/readyz").unwrap().status, 200);
        assert!(!outsider.lines.all().iter().any(|line| line.starts_with("ringdove ready")));
    }
}

#[test]
fn beyond_loopback_a_secret_is_needed() {
    for door in ["--quic", "--resp", "--admin"] {
        let mut command = ringdove();
        command.args(["node", "--resp", "127.0.0.1:0", "--quic", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        // The last of two would win if the flag could be repeated; it can't, so replace it.
        let mut command_line: Vec<_> = command.get_args().map(|arg| arg.to_owned()).collect();
        let at = command_line.iter().position(|arg| arg == door).expect("one of the doors") + 1;
        command_line[at] = "0.0.0.0:0".into();
        let output = ringdove().args(command_line).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{door} was accepted");
        assert!(text.contains("secret") && text.contains(door.trim_start_matches('-')), "{door}: {text}");
    }
}

#[test]
fn secrets_and_passwords_are_never_shown() {
    let _turn = turn();
    let password = file(PASSWORD);
    // The secret by variable: a flag could not hide it from `ps`.
    let node = start_with(&["--require-pass-file", path(&password), "--log", "trace"], |command| {
        command.env("RINGDOVE_SECRET", SECRET);
    });
    node.serve();
    let mut resp = crate::harness::resp::Resp::connect(node.resp).unwrap();
    let refused = resp.words("GET key").unwrap();
    assert!(refused.error().is_some_and(|text| text.starts_with("NOAUTH")), "{refused:?}");
    let wrong = resp.words("AUTH not-the-password").unwrap();
    assert!(wrong.error().is_some_and(|text| text.starts_with("WRONGPASS")), "{wrong:?}");
    assert!(resp.call(&["AUTH", PASSWORD]).unwrap().error().is_none());
    let shown = ["CONFIG GET *", "INFO", "CLIENT LIST", "CLUSTER NODES"]
        .map(|command| format!("{:?}", resp.words(command).unwrap()));
    let pages = ["/", "/metrics", "/v1/cluster", "/v1/partitions", "/healthz", "/readyz"]
        .map(|path| http::get(node.admin, path).unwrap().body);
    let argv = std::fs::read(format!("/proc/{}/cmdline", node.pid())).unwrap_or_default();
    let argv = String::from_utf8_lossy(&argv).into_owned();
    let log = node.lines.all();
    for text in shown.iter().chain(&pages).chain([&argv]).chain(&log) {
        for secret in [SECRET, PASSWORD] {
            assert!(!text.contains(secret), "shown: {text}");
        }
    }
}
