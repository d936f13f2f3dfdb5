//! The examples, run as their first lines say.

use crate::harness::cluster::Cluster;
use crate::harness::process::ringdove;
use crate::harness::tools;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The built example, if it is there: `cargo test` builds them all, `cargo test --test it` doesn't.
fn built(name: &str) -> Option<PathBuf> {
    let folder = Path::new(ringdove().get_program()).parent()?.join("examples");
    let program = folder.join(name);
    if !program.is_file() {
        tools::missing(&format!("example {name} is not built; `cargo build --examples` does it"));
        return None;
    }
    Some(program)
}

fn run(name: &str, args: &[&str]) {
    let Some(program) = built(name) else { return };
    let output =
        Command::new(program).args(args).env_remove("RINGDOVE_SECRET").output().expect("the example runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} {args:?}: {}\n{out}\n{err}", output.status);
    assert!(!out.is_empty(), "{name} says nothing");
}

#[test]
fn quic_client_against_a_cluster() {
    let cluster = Cluster::start(3);
    run("quic_client", &["--seed", &cluster.nodes[2].quic.to_string()]);
}

#[test]
fn session_cache_against_a_cluster() {
    let cluster = Cluster::start(3);
    run("session_cache", &["--seed", &cluster.nodes[1].quic.to_string()]);
}

#[test]
fn examples_that_start_their_own_nodes() {
    let _turn = crate::harness::cluster::turn();
    for name in ["embedded", "three_nodes"] {
        if Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/{name}.rs")).exists() {
            run(name, &[]);
        }
    }
}

#[test]
fn every_example_says_how_to_run_it_and_is_run_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let here = include_str!("examples.rs");
    for entry in std::fs::read_dir(folder).expect("examples/") {
        let path = entry.expect("examples/").path();
        let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
        let text = std::fs::read_to_string(&path).expect("an example");
        assert!(
            text.starts_with("//!") && text.contains(&format!("--example {name}")),
            "{name} doesn't say how"
        );
        // These have test binaries of their own for what they run.
        assert!(
            ["simulate", "chaos"].contains(&name) || here.contains(&format!("\"{name}\"")),
            "{name} isn't run by a test"
        );
    }
}
