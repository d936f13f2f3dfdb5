//! A ringdove process.

use super::http;
use ringdove::drivers::admin_http::ClusterStatus;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::wait::eventually;

/// How long a node may take to listen, and to serve, on a busy machine.
pub const START_DEADLINE: Duration = Duration::from_secs(40);
/// Lines of a process's output shown when a test fails.
const TAIL_LINES: usize = 25;

/// Where the program under test is. Cargo tells tests; an example finds it in the folder above its
/// own.
fn program() -> PathBuf {
    if let Some(program) = option_env!("CARGO_BIN_EXE_ringdove") {
        return program.into();
    }
    let example = std::env::current_exe().expect("a program");
    let folder = example.parent().and_then(Path::parent).expect("target/*/examples");
    folder.join("ringdove")
}

/// The program under test, without what the environment says about it.
pub fn ringdove() -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("RINGDOVE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

/// What a process has written, line by line.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects the lines of `source` until it ends.
    pub fn collect(&self, source: impl Read + Send + 'static) {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { return };
                lines.0.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
            }
        });
    }

    /// Everything so far.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// The first line for which `choose` has a result.
    pub fn find<T>(&self, choose: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.0.lock().unwrap().iter().find_map(|line| choose(line))
    }
}

/// A node as it runs.
pub struct Process {
    child: Child,
    /// Whether the process was waited for.
    ended: Option<ExitStatus>,
    /// Standard output and standard error.
    pub lines: Lines,
    /// Its node id.
    pub node: String,
    /// Where Redis clients connect.
    pub resp: SocketAddr,
    /// Where peers and QUIC clients connect.
    pub quic: SocketAddr,
    /// Its admin server.
    pub admin: SocketAddr,
}

/// Starts a node on free ports of loopback, and waits until it listens.
pub fn start(flags: &[&str]) -> Process {
    start_with(flags, |_| ())
}

/// Starts a node after `adjust` has seen the command.
pub fn start_with(flags: &[&str], adjust: impl FnOnce(&mut Command)) -> Process {
    let mut command = ringdove();
    command.args(["node", "--exit-with-stdin", "--log-format", "plain"]);
    for door in ["--resp", "--quic", "--admin"] {
        if !flags.contains(&door) {
            command.args([door, "127.0.0.1:0"]);
        }
    }
    command.args(flags);
    adjust(&mut command);
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let lines = Lines::default();
    lines.collect(child.stdout.take().expect("piped"));
    lines.collect(child.stderr.take().expect("piped"));
    let (fields, _) = eventually("a node listens", START_DEADLINE, || {
        if let Some(fields) = lines.find(|line| line.strip_prefix("ringdove listening ").map(str::to_owned)) {
            return Ok(fields);
        }
        match child.try_wait() {
            Ok(Some(status)) => panic!("the node ended ({status}):\n{}", lines.all().join("\n")),
            _ => Err(lines.all().join("\n")),
        }
    });
    let field = |key: &str| {
        let mut pairs = fields.split(' ').filter_map(|field| field.split_once('='));
        pairs.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).expect(key)
    };
    let address = |key: &str| field(key).parse().expect(key);
    Process {
        child,
        ended: None,
        lines,
        node: field("node"),
        resp: address("resp"),
        quic: address("quic"),
        admin: address("admin"),
    }
}

impl Process {
    /// Waits until it has said that it serves.
    pub fn serve(&self) {
        eventually("a node serves", START_DEADLINE, || {
            self.lines.find(|line| line.starts_with("ringdove ready ").then_some(())).ok_or(String::new())
        });
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "it has ended");
        let pid = Pid::from_raw(self.child.id() as i32).expect("a process");
        kill_process(pid, signal).expect("our own child");
    }

    /// Kills it without a word, as SIGKILL does, and says when.
    pub fn kill(&mut self) -> Instant {
        self.signal(Signal::KILL);
        let at = Instant::now();
        self.ended = Some(self.child.wait().expect("our own child"));
        at
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let (status, _) = eventually("the process ends", deadline, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        });
        self.ended = Some(status);
        status
    }

    /// Asks it to leave, and waits until it did.
    pub fn stop(&mut self, deadline: Duration) {
        self.signal(Signal::TERM);
        let status = self.wait(deadline);
        assert!(status.success(), "left with {status}");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.ended.is_none() && matches!(self.child.try_wait(), Ok(None))
    }

    /// What it says about the cluster.
    pub fn status(&self) -> Result<ClusterStatus, String> {
        http::cluster(self.admin)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.lines.all();
            eprintln!("--- node {} ({}), the end of its output:", self.node, self.resp);
            for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
                eprintln!("    {line}");
            }
        }
        if self.ended.is_none() {
            // It may have ended by itself.
            let _gone = self.child.kill();
            let _status = self.child.wait();
        }
    }
}
