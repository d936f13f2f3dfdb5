//! The other subcommands, as a person at a terminal has them.

use crate::harness::cluster::{Cluster, turn};
use crate::harness::process::{Lines, ringdove};
use crate::harness::wait::eventually;
use ringdove::drivers::admin_http::ClusterStatus;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::Duration;

/// Runs a subcommand against the cluster's second node.
fn run(cluster: &Cluster, words: &[&str]) -> Output {
    let door = match words[0] {
        "status" => ["--admin".to_owned(), cluster.nodes[1].admin.to_string()],
        _ => ["--quic".to_owned(), cluster.nodes[1].quic.to_string()],
    };
    // Before the words, as `call` takes everything after it.
    let mut command = ringdove();
    command.arg(words[0]).args(&door).args(&words[1..]);
    command.stdin(Stdio::null()).output().expect("the program runs")
}

#[test]
fn data_commands_over_quic() {
    let cluster = Cluster::start(3);
    let check = |words: &[&str], code: i32, expected: &str| {
        let output = run(&cluster, words);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*out), (Some(code), expected), "{words:?}: {err}");
    };
    check(&["get", "greeting"], 1, "");
    check(&["set", "greeting", "hello"], 0, "");
    check(&["get", "greeting"], 0, "hello\n");
    check(&["set", "greeting", "again", "--if-absent"], 1, "");
    check(&["set", "mortal", "v", "--ttl", "1h"], 0, "");
    check(&["ttl", "greeting"], 0, "for ever\n");
    let ttl = run(&cluster, &["ttl", "mortal"]);
    assert!(String::from_utf8_lossy(&ttl.stdout).starts_with("3"), "{ttl:?}");
    check(&["persist", "mortal"], 0, "");
    check(&["expire", "mortal", "5m"], 0, "");
    check(&["incr", "visits"], 0, "1\n");
    check(&["incr", "visits", "41"], 0, "42\n");
    check(&["decr", "visits", "2"], 0, "40\n");
    check(&["cas", "greeting", "wrong", "x"], 1, "");
    check(&["cas", "greeting", "hello", "goodbye"], 0, "");
    check(&["exists", "greeting", "visits", "nobody"], 0, "2\n");
    check(&["count"], 0, "3\n");
    let scanned = run(&cluster, &["scan"]);
    let mut keys: Vec<_> = String::from_utf8_lossy(&scanned.stdout).lines().map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, ["greeting", "mortal", "visits"]);
    check(&["scan", "v*"], 0, "visits\n");
    let token = |owner| run(&cluster, &["lock", "door", owner]);
    let first = token("anna");
    assert!(first.status.success() && first.stdout.split(|&byte| byte == b' ').count() == 3, "{first:?}");
    assert_eq!(token("bert").status.code(), Some(1), "it is taken");
    check(&["unlock", "door", "anna"], 0, "");
    assert!(token("bert").status.success());
    check(&["call", "SET", "greeting", "third", "XX", "GET"], 0, "goodbye\n");
    check(&["del", "greeting", "visits", "nobody"], 0, "2\n");
}

#[test]
fn a_load_on_all_primaries_is_nowhere_redirected() {
    let cluster = Cluster::with_flags(3, &["--resp-redirect"]);
    let resp = cluster.nodes[0].resp.to_string();
    let load = |keys: &str, clients: &str, flags: &[&str]| {
        let mut command = ringdove();
        command.args(["bench", "--resp", &resp, "--requests", "5000", "--pipeline", "16", "--threads", "2"]);
        command.args(["--keys", keys, "--clients", clients, "--json"]).args(flags);
        let output = command.stdin(Stdio::null()).output().expect("the program runs");
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    // For as long as slots move to the nodes that came last, some are redirected.
    let deadline = Duration::from_secs(60);
    let (report, _) = eventually("a load without errors", deadline, || {
        let (is_fine, out, err) = load("3000", "5", &["--cluster", "--fill"]);
        if is_fine { Ok(out) } else { Err(format!("{out}{err}")) }
    });
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!((&report["commands"], &report["errors"]), (&5_000.into(), &serde_json::json!({})));
    assert_eq!(String::from_utf8_lossy(&run(&cluster, &["count"]).stdout), "3000\n");
    let (is_fine, out, _) = load("3000", "5", &[]);
    assert!(!is_fine && out.contains("\"MOVED\""), "{out}");
    let (is_fine, _, err) = load("3000", "2", &["--cluster"]);
    assert!(!is_fine && err.contains("--clients: fewer than the 3 primaries"), "{err}");
    let (is_fine, _, err) = load("2", "5", &["--cluster"]);
    assert!(!is_fine && err.contains("none of 2 keys belongs to"), "{err}");
}

#[test]
fn status_shows_every_member() {
    let cluster = Cluster::start(2);
    let output = run(&cluster, &["status", "--json"]);
    let status: ClusterStatus = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(status.members.len(), 2);
    let output = run(&cluster, &["status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("dove-1") && text.contains("dove-2"), "{text}");
}

#[test]
fn commands_without_a_cluster_say_so() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    for words in [
        &["get", "key", "--quic", &address, "--timeout", "1s"][..],
        &["status", "--admin", &address],
        &["node", "--no-such-flag"],
        &["node", "--partitions", "1000"],
        &["node", "--config", "/no/such/file.toml"],
    ] {
        let output = ringdove().args(words).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{words:?}: {output:?}");
    }
}

#[test]
fn refused_configurations_name_the_file_the_line_and_the_reason() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "name = \"a\"\n\npartitions = 1000").unwrap();
    let output = ringdove().args(["node", "--config"]).arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in
        [file.path().to_str().unwrap(), "line 3", "`1000` is not a power of two", "3 | partitions = 1000"]
    {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
    let output = ringdove().arg("node").env("RINGDOVE_MAX_MEMORY", "plenty").output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("RINGDOVE_MAX_MEMORY"), "{text}");
}

#[test]
fn a_development_cluster_starts_and_stops() {
    let _turn = turn();
    let mut child = ringdove()
        .args(["dev", "--nodes", "2"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = Lines::default();
    lines.collect(child.stdout.take().unwrap());
    lines.collect(child.stderr.take().unwrap());
    let deadline = Duration::from_secs(60);
    eventually("its addresses are printed", deadline, || {
        lines.find(|line| line.starts_with("Ctrl-C").then_some(())).ok_or(lines.all().join("\n"))
    });
    let address = |name: &str, column: usize| {
        lines.find(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some(name)).then(|| words.nth(column).expect("a column").to_owned())
        })
    };
    let resp = address("dev-2", 0).expect("a second node").parse().expect("an address");
    let mut resp = crate::harness::resp::Resp::connect(resp).unwrap();
    resp.words("SET a 1").unwrap();
    assert!(resp.words("GET a").unwrap().error().is_none());
    let pid = Pid::from_raw(child.id() as i32).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let (status, _) = eventually("it stops", deadline, || match child.try_wait() {
        Ok(Some(status)) => Ok(status),
        _ => Err(lines.all().join("\n")),
    });
    assert!(status.success(), "{status}: {}", lines.all().join("\n"));
    assert!(resp.words("GET a").is_err(), "its nodes are gone too");
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let mut cluster = Cluster::start(2);
    // The other can't take over what it doesn't hear of.
    cluster.nodes[0].signal(Signal::STOP);
    let node = &mut cluster.nodes[1];
    node.signal(Signal::TERM);
    eventually("it hands over", Duration::from_secs(10), || {
        node.lines.find(|line| line.contains("once more").then_some(())).ok_or(String::new())
    });
    node.signal(Signal::TERM);
    let status = node.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1));
}
