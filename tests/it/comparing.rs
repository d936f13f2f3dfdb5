//! `ringdove bench compare --redis`: what it writes, and that nothing of it stays behind.

use crate::harness::cluster::turn;
use crate::harness::process::ringdove;
use crate::harness::tools;
use crate::harness::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The shortest comparison.
fn compare() -> Command {
    let mut command = ringdove();
    command.args(["bench", "compare", "--redis", "--quick", "--only", "latency"]).stdin(Stdio::null());
    command
}

fn is_installed() -> bool {
    ["redis-server", "redis-benchmark", "redis-cli"].into_iter().all(|tool| tools::find(&[tool]).is_some())
}

/// The state and the parent of a process, if there is one.
fn state_and_parent(id: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn is_running(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| state != "Z")
}

/// The processes that `parent` started.
fn children(parent: u32) -> Vec<u32> {
    let ids = fs::read_dir("/proc").expect("/proc").flatten();
    ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| state_and_parent(*id).is_some_and(|(_, of)| of == parent))
        .collect()
}

#[test]
fn figures_are_shown_and_kept() {
    if !is_installed() {
        return;
    }
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let [json, chart, page] = ["figures.json", "chart.svg", "page.md"].map(|name| folder.path().join(name));
    let mut command = compare();
    command
        .args(["--runs", "1", "--json"])
        .arg(&json)
        .arg("--chart")
        .arg(&chart)
        .arg("--markdown")
        .arg(&page);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    for row in ["SET, p50", "GET, p99", "SET on two copies, p50 (beside: one copy)", "of 6 bars are met"] {
        assert!(out.contains(row), "{row} is missing in\n{out}");
    }
    let figures: serde_json::Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    for row in figures["sections"][0]["rows"].as_array().unwrap() {
        assert!(row["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{row}");
    }
    assert!(fs::read_to_string(&chart).unwrap().ends_with("</svg>\n"));
    let page = fs::read_to_string(&page).unwrap();
    assert!(page.contains("](chart.svg)") && page.contains("| SET, p50 |"), "{page}");
}

#[test]
fn an_interrupted_comparison_leaves_nothing_behind() {
    if !is_installed() {
        return;
    }
    let _turn = turn();
    let temporary = tempfile::tempdir().unwrap();
    let mut command = compare();
    command.args(["--runs", "99"]).env("TMPDIR", temporary.path());
    let mut comparison = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let is_redis = |id: &u32| {
        fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim_end() == "redis-server")
    };
    // A node, a Redis and the load.
    let (started, _) = eventually("servers and a load", Duration::from_secs(60), || {
        let started = children(comparison.id());
        if started.len() >= 3 && started.iter().any(is_redis) {
            Ok(started)
        } else {
            Err(format!("{started:?}"))
        }
    });
    kill_process(Pid::from_raw(comparison.id() as i32).unwrap(), Signal::INT).unwrap();
    assert_eq!(comparison.wait().unwrap().code(), Some(1));
    // Killed they are; whoever inherits them may take a moment to bury them.
    eventually("all of them are gone", Duration::from_secs(10), || {
        let left: Vec<_> = started.iter().filter(|id| is_running(**id)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn what_is_missing_is_said_before_anything_starts() {
    let refused = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let nowhere = tempfile::tempdir().unwrap();
    let said = refused(compare().env("PATH", nowhere.path()));
    assert!(
        said.contains("redis-server doesn't run") && said.contains("apt-get install redis-server"),
        "{said}"
    );
    let other = nowhere.path().join("other.md");
    fs::write(&other, "# Something else\n").unwrap();
    let said = refused(compare().arg("--markdown").arg(&other));
    assert!(said.contains("has no lines <!-- compare:begin -->"), "{said}");
    assert_eq!(fs::read_to_string(&other).unwrap(), "# Something else\n");
    let said = refused(compare().arg("--json").arg(nowhere.path().join("no/folder.json")));
    assert!(said.contains("not a file in a folder that exists"), "{said}");
}
