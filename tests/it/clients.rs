//! Redis clients as people have them.

use crate::harness::cluster::Cluster;
use crate::harness::tools;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the program runs")
}

#[track_caller]
fn content(command: &mut Command) -> String {
    let output = run(command);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

#[test]
fn redis_cli() {
    let Some(program) = tools::find(&["redis-cli"]) else { return };
    let cluster = Cluster::start(3);
    let ask = |flags: &[&str], words: &[&str]| {
        let port = cluster.nodes[0].resp.port().to_string();
        content(Command::new(&program).args(["-p", &port]).args(flags).args(words))
    };
    assert_eq!(ask(&[], &["PING"]), "PONG\n");
    assert_eq!(ask(&[], &["SET", "greeting", "hello"]), "OK\n");
    // RESP3, and following redirects, which nobody needs to give.
    assert_eq!(ask(&["-3"], &["GET", "greeting"]), "hello\n");
    assert_eq!(ask(&["-c"], &["GET", "greeting"]), "hello\n");
    for number in 0..20 {
        assert_eq!(ask(&["-c"], &["SET", &format!("key:{number}"), "v"]), "OK\n");
    }
    let mut scanned: Vec<String> = ask(&["--scan"], &[]).lines().map(str::to_owned).collect();
    scanned.sort();
    scanned.dedup();
    assert_eq!(scanned.len(), 21);
    assert!(ask(&[], &["INFO", "server"]).contains("redis_version:"));
    assert!(ask(&[], &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    assert_eq!(ask(&[], &["CLUSTER", "NODES"]).lines().filter(|line| line.contains("master")).count(), 3);
    let output = run(Command::new(&program).args([
        "-p",
        &cluster.nodes[0].resp.port().to_string(),
        "-e",
        "INCR",
        "greeting",
    ]));
    assert!(!output.status.success());
}

#[test]
fn redis_cli_sends_a_file_of_commands() {
    let Some(program) = tools::find(&["redis-cli"]) else { return };
    let cluster = Cluster::start(1);
    let mut commands = tempfile::NamedTempFile::new().unwrap();
    for number in 0..5_000 {
        use std::io::Write;
        commands.write_all(&crate::harness::resp::encode(&["SET", &format!("bulk:{number}"), "v"])).unwrap();
    }
    let port = cluster.nodes[0].resp.port().to_string();
    let input = std::fs::File::open(commands.path()).unwrap();
    let output = Command::new(program).args(["-p", &port, "--pipe"]).stdin(input).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("errors: 0, replies: 5000"), "{text}");
}

#[test]
fn redis_benchmark() {
    let Some(program) = tools::find(&["redis-benchmark"]) else { return };
    let cluster = Cluster::start(3);
    let port = cluster.nodes[0].resp.port().to_string();
    for flags in
        [&["-P", "16", "-c", "20"][..], &["-P", "1", "-c", "20"], &["-P", "4", "-c", "6", "--cluster"]]
    {
        let out = content(
            Command::new(&program)
                .args(["-p", &port, "-n", "3000", "-r", "1000", "-q", "-t", "ping,set,get,incr,mset"])
                .args(flags),
        );
        for test in ["SET", "GET", "INCR"] {
            let measured = |line: &str| line.contains(test) && line.contains("requests per second");
            assert!(out.split(['\n', '\r']).any(measured), "{flags:?} {test}: {out}");
        }
        assert!(!out.to_lowercase().contains("error"), "{flags:?}: {out}");
    }
}

#[test]
fn redis_py() {
    let Some(python) = tools::find(&["python3", "python"]) else { return };
    if !run(Command::new(&python).args(["-c", "import redis"])).status.success() {
        return tools::missing("the Python package redis is not installed; `pip install redis` does it");
    }
    let cluster = Cluster::start(3);
    let said = content(
        Command::new(python)
            .arg(scripts().join("redis_py.py"))
            .args(cluster.resp().iter().map(|at| at.to_string())),
    );
    assert!(said.contains("content"), "{said}");
}

#[test]
fn ioredis() {
    let Some(node) = tools::find(&["node", "nodejs"]) else { return };
    if !scripts().join("node_modules/ioredis").is_dir() {
        return tools::missing("ioredis is not installed; `npm ci` in tests/clients does it");
    }
    let cluster = Cluster::start(3);
    let said = content(
        Command::new(node)
            .arg(scripts().join("ioredis.js"))
            .args(cluster.resp().iter().map(|at| at.to_string())),
    );
    assert!(said.contains("content"), "{said}");
}
