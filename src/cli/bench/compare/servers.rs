//! Servers as child processes, their processor time and memory. Each is killed, by its id, when its
//! handle is dropped: at the end, by an error, and when Ctrl-C gives up what waits for it.
//!
//! The benchmarks in `benches/` start their servers with it, too.

use super::ready::{Listening, Ready};
use super::{http, program};
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// How long a server may take until it serves.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a cluster may take until its copies are complete.
const SYNC_TIMEOUT: Duration = Duration::from_secs(90);
/// How long nothing may move until a cluster counts as settled.
const SETTLED_FOR: Duration = Duration::from_secs(1);
/// How long a killed process may take until it is gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A running child process.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it, with pipes to its input and output.
    pub fn spawn(command: &mut Command) -> io::Result<Server> {
        // Its own process group, or Ctrl-C would reach it before us.
        let command = command.process_group(0).kill_on_drop(true);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Server { child })
    }

    /// The process's id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Processor time that all its threads have used, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.id().map_or(f64::NAN, |id| cpu_us(&id.to_string()))
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> f64 {
        let statm = self.id().map(|id| std::fs::read_to_string(format!("/proc/{id}/statm")));
        let statm = statm.and_then(Result::ok).unwrap_or_default();
        let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
        pages * rustix::param::page_size() as f64
    }

    /// Its output, to be read from now on.
    pub fn take_stdout(&mut self) -> io::Result<ChildStdout> {
        self.child.stdout.take().ok_or_else(|| io::Error::other("its output is taken"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.start_kill();
        // Whoever comes next may want its port, its folder and the processor.
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && start.elapsed() < KILL_TIMEOUT {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Runs a program to its end and gives what it printed.
pub async fn output(command: &mut Command) -> io::Result<String> {
    let command = command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let said = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    Err(io::Error::other(format!("{program} failed ({}): {}", output.status, said.trim())))
}

/// Processor time, user and system, of a process (`self` or its number), in microseconds; NaN where
/// `/proc` isn't.
pub fn cpu_us(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The process's name may hold spaces; the fields behind its parenthesis may not.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// The processor time of several servers, in microseconds.
pub fn cpu_us_of<'a>(servers: impl IntoIterator<Item = &'a Server>) -> f64 {
    servers.into_iter().map(Server::cpu_us).sum()
}

/// A ringdove node on free loopback ports.
pub struct Node {
    pub server: Server,
    pub resp: SocketAddr,
    pub quic: SocketAddr,
    admin: SocketAddr,
}

impl Node {
    /// Starts a node and waits until it serves.
    pub async fn start(flags: &[&str]) -> io::Result<Node> {
        let mut command = Command::new(program()?);
        command.args(["node", "--exit-with-stdin", "--log", "error"]);
        for door in ["--resp", "--quic", "--admin"] {
            command.args([door, "127.0.0.1:0"]);
        }
        forget_settings(&mut command);
        let mut server = Server::spawn(command.args(flags))?;
        let stdout = BufReader::new(server.take_stdout()?);
        let (at, stdout) = tokio::time::timeout(START_TIMEOUT, ready(stdout)).await??;
        // Kept open: the node may have more to say.
        server.child.stdout = Some(stdout.into_inner());
        Ok(Node { resp: at.resp, quic: at.quic, admin: at.admin, server })
    }

    /// Starts a cluster: the first node, then the others by its address, and waits until all copies
    /// are complete. `flags` are each node's own.
    pub async fn cluster(flags: &[&[&str]]) -> io::Result<Vec<Node>> {
        let mut nodes: Vec<Node> = Vec::new();
        for own in flags {
            let seed = nodes.first().map(|first| first.quic.to_string());
            let mut all = own.to_vec();
            if let Some(seed) = &seed {
                all.extend(["--seed", seed]);
            }
            nodes.push(Node::start(&all).await?);
        }
        Node::wait_for_copies(&nodes).await?;
        Ok(nodes)
    }

    /// Waits until every copy is complete and nothing is on its way to a new owner.
    async fn wait_for_copies(nodes: &[Node]) -> io::Result<()> {
        let start = Instant::now();
        let mut unsettled = start;
        while start.elapsed() < SYNC_TIMEOUT {
            for node in nodes {
                if !node.is_settled(nodes.len()).await? {
                    unsettled = Instant::now();
                }
            }
            // Between two steps of a rebalance all is complete, too.
            if unsettled.elapsed() > SETTLED_FOR {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = nodes[0].status().await?;
        Err(io::Error::other(format!("copies are not complete after {SYNC_TIMEOUT:?}: {status}")))
    }

    /// Whether this node sees so many members, all copies complete and no migrations.
    pub async fn is_settled(&self, members: usize) -> io::Result<bool> {
        let status = self.status().await?;
        let holds = |member: &serde_json::Value| {
            member["learners"].as_u64() == Some(0)
                && member["primaries"].as_u64().unwrap_or(0) + member["backups"].as_u64().unwrap_or(0) > 0
        };
        let empty = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
        let zero = |key: &str| status[key].as_u64() == Some(0);
        Ok(status["members"]
            .as_array()
            .is_some_and(|listed| listed.len() == members && listed.iter().all(holds))
            && empty("migrations")
            && empty("dead_partitions")
            && zero("under_replicated_partitions")
            && zero("unavailable_partitions"))
    }

    /// The cluster as this node sees it.
    pub async fn status(&self) -> io::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&http::get(&self.admin.to_string(), "/v1/cluster").await?)?)
    }
}

/// What the environment says is meant for other nodes.
fn forget_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("RINGDOVE_") {
            command.env_remove(variable);
        }
    }
}

/// Waits for a node's ready line.
async fn ready<R: AsyncRead + Unpin>(mut stdout: BufReader<R>) -> io::Result<(Listening, BufReader<R>)> {
    let mut line = String::new();
    while stdout.read_line(&mut line).await? > 0 {
        if let Ok(Ready(at)) = line.parse() {
            return Ok((at, stdout));
        }
        line.clear();
    }
    Err(io::Error::other("a node ended before it was ready"))
}
