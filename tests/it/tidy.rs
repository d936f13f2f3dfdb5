//! The code about itself: what must not appear where.

use std::fs;
use std::path::{Path, PathBuf};

/// Words that mean I/O, clocks, threads, locks or chance of the surroundings.
const IMPURE: [&str; 22] = [
    "tokio",
    "quinn",
    "rustls",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::fs",
    "std::env",
    "std::process",
    "Instant",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "thread_local!",
    "Mutex",
    "RwLock",
    "Condvar",
    "mpsc",
    "rand::rng(",
    "rand::random",
    "ThreadRng",
    "RandomState",
];
/// Names that say nothing about what is in a file.
const EMPTY_NAMES: [&str; 9] =
    ["helper", "helpers", "util", "utils", "manager", "misc", "common", "data", "stuff"];
/// Lines that a file may have; more needs a reason in `LONG`.
const LINES_MAX: usize = 900;
/// Longer files, and why.
const LONG: [(&str, &str); 0] = [];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below `folder`, relative to the project.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder").path();
            if path.file_name().is_some_and(|name| name == "target" || name == "node_modules") {
                continue;
            } else if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path.strip_prefix(root()).expect("below the project").to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no code");
    found.sort();
    found
}

fn read(file: &Path) -> String {
    fs::read_to_string(root().join(file)).expect("a text")
}

/// A line's code: without its comment. A `//` within a string cuts too much, which harms nothing here.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The impure words of a text, with their lines.
fn impurities(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = code(line);
        let is_word = |word: &str| {
            code.match_indices(word).any(|(at, _)| {
                let before = code[..at].chars().next_back();
                let after = code[at + word.len()..].chars().next();
                let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                !part(before) && (!part(after) || word.ends_with('('))
            })
        };
        found.extend(IMPURE.iter().filter(|word| is_word(word)).map(|word| (number + 1, *word)));
    }
    found
}

#[test]
fn the_engine_is_pure() {
    let mut found = Vec::new();
    for file in rust_files("src/engine") {
        found.extend(
            impurities(&read(&file)).iter().map(|(line, word)| format!("{}:{line}: {word}", file.display())),
        );
    }
    assert!(found.is_empty(), "time, entropy and I/O are the drivers':\n{}", found.join("\n"));
}

#[test]
fn impurities_are_found() {
    assert_eq!(impurities("let now = Instant::now(); // SystemTime").len(), 1);
    assert_eq!(impurities("use std::sync::{Arc, Mutex};\nuse std::net::SocketAddr;"), [(1, "Mutex")]);
    assert_eq!(impurities("rand::rng().random()"), [(1, "rand::rng(")]);
    assert_eq!(impurities("/// A tokio task drives it.\nlet instant_ms = 3; InstantMs::new()"), []);
}

#[test]
fn drivers_and_the_simulator_do_not_know_each_other() {
    for (folder, other) in [("src/drivers", "sim::"), ("src/sim", "drivers::"), ("src/engine", "drivers::")] {
        for file in rust_files(folder) {
            let text = read(&file);
            let line = text.lines().position(|line| code(line).contains(&format!("crate::{other}")));
            assert_eq!(line, None, "{} uses {other}", file.display());
        }
    }
}

#[test]
fn files_have_one_job() {
    let mut faults = Vec::new();
    for file in ["src", "tests", "benches", "examples"].into_iter().flat_map(rust_files) {
        let name = file.file_stem().and_then(|stem| stem.to_str()).expect("a plain name");
        if EMPTY_NAMES.contains(&name) {
            faults.push(format!("{}: the name says nothing", file.display()));
        }
        let lines = read(&file).lines().count();
        if lines > LINES_MAX && !LONG.iter().any(|(long, _)| file == Path::new(long)) {
            faults.push(format!("{}: {lines} lines; which of its jobs could have a file?", file.display()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn reasons_for_long_files_are_still_needed() {
    for (file, reason) in LONG {
        assert!(read(Path::new(file)).lines().count() > LINES_MAX, "{file} is short now ({reason})");
    }
}
