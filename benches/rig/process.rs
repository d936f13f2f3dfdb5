//! Servers as child processes. Each is killed when its handle is dropped, also by a panic.

use super::{Failure, RINGDOVE};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a cluster may take until its copies are complete.
const SYNC_TIMEOUT: Duration = Duration::from_secs(90);

/// How long nothing may move until a cluster counts as settled.
const SETTLED_FOR: Duration = Duration::from_secs(1);

/// A running child process.
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts it, with pipes to its input and output.
    pub fn spawn(command: &mut Command) -> Result<Server, Failure> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Server { child })
    }

    /// Processor time that all its threads have used, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        cpu_us(&self.child.id().to_string())
    }

    /// Its resident memory in bytes.
    pub fn resident_bytes(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap_or_default();
        let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(f64::NAN);
        pages * rustix::param::page_size() as f64
    }

    /// Its output, to be read from now on.
    pub fn take_stdout(&mut self) -> Result<ChildStdout, Failure> {
        Ok(self.child.stdout.take().ok_or("its output is taken")?)
    }

    /// The rest of its output, once it has ended.
    pub fn output(mut self) -> Result<String, Failure> {
        let mut output = String::new();
        if let Some(stdout) = &mut self.child.stdout {
            stdout.read_to_string(&mut output)?;
        }
        let status = self.child.wait()?;
        if status.success() { Ok(output) } else { Err(format!("{status}: {output}").into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time of a process (`self` or its number), in microseconds; NaN where `/proc` isn't.
pub fn cpu_us(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The process's name may hold spaces; the fields behind its parenthesis may not.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or(Vec::new(), |(_, rest)| rest.split(' ').collect());
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) * 1e6 / rustix::param::clock_ticks_per_second() as f64
}

/// A ringdove node on free loopback ports.
pub struct Node {
    pub server: Server,
    pub resp: SocketAddr,
    pub quic: SocketAddr,
    pub admin: SocketAddr,
}

impl Node {
    /// Starts a node and waits until it serves.
    pub fn start(flags: &[&str]) -> Result<Node, Failure> {
        let mut command = Command::new(RINGDOVE);
        command.args(["node", "--exit-with-stdin", "--log", "error"]);
        for door in ["--resp", "--quic", "--admin"] {
            command.args([door, "127.0.0.1:0"]);
        }
        // What the environment says is meant for other nodes.
        for (variable, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGDOVE_"))
        {
            command.env_remove(variable);
        }
        let mut server = Server::spawn(command.args(flags))?;
        let mut stdout = BufReader::new(server.take_stdout()?);
        let mut line = String::new();
        while stdout.read_line(&mut line)? > 0 {
            if let Some(fields) = line.trim_end().strip_prefix("ringdove ready ") {
                let field = |key: &str| -> Result<SocketAddr, Failure> {
                    let mut pairs = fields.split(' ').filter_map(|field| field.split_once('='));
                    let (_, value) =
                        pairs.find(|(name, _)| *name == key).ok_or("a ready line without addresses")?;
                    Ok(value.parse()?)
                };
                // Kept open: the node may have more to say.
                server.child.stdout = Some(stdout.into_inner());
                return Ok(Node {
                    resp: field("resp")?,
                    quic: field("quic")?,
                    admin: field("admin")?,
                    server,
                });
            }
            line.clear();
        }
        Err("a node ended before it was ready".into())
    }

    /// Starts a cluster: the first node, then the others by its address, and waits until all copies
    /// are complete. `flags` are each node's own.
    pub fn cluster(flags: &[&[&str]]) -> Result<Vec<Node>, Failure> {
        let mut nodes: Vec<Node> = Vec::new();
        for own in flags {
            let seed = nodes.first().map(|first| first.quic.to_string());
            let mut all = own.to_vec();
            if let Some(seed) = &seed {
                all.extend(["--seed", seed]);
            }
            nodes.push(Node::start(&all)?);
        }
        Node::wait_for_copies(&nodes)?;
        Ok(nodes)
    }

    /// Waits until every copy is complete and nothing is on its way to a new owner.
    pub fn wait_for_copies(nodes: &[Node]) -> Result<(), Failure> {
        let start = Instant::now();
        let mut unsettled = start;
        while start.elapsed() < SYNC_TIMEOUT {
            for node in nodes {
                if !node.is_settled(nodes.len())? {
                    unsettled = Instant::now();
                }
            }
            // Between two steps of a rebalance all is complete, too.
            if unsettled.elapsed() > SETTLED_FOR {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let status = nodes[0].get("/v1/cluster").unwrap_or_default();
        Err(format!("copies are not complete after {SYNC_TIMEOUT:?}: {status}").into())
    }

    /// Whether this node sees so many members, all copies complete and no migrations.
    pub fn is_settled(&self, members: usize) -> Result<bool, Failure> {
        let status = self.status()?;
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
    pub fn status(&self) -> Result<serde_json::Value, Failure> {
        Ok(serde_json::from_str(&self.get("/v1/cluster")?)?)
    }

    /// Asks the admin server.
    pub fn get(&self, path: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        let (_, body) = response.split_once("\r\n\r\n").ok_or("not HTTP")?;
        Ok(body.to_owned())
    }
}

/// The processor time of several servers, in microseconds.
pub fn cpu_us_of<'a>(servers: impl IntoIterator<Item = &'a Server>) -> f64 {
    servers.into_iter().map(Server::cpu_us).sum()
}

/// A loopback port that was free a moment ago, and so was the one `above` it if asked for.
pub fn free_port(above: Option<u16>) -> Result<u16, Failure> {
    for _ in 0..1_000 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let is_free = match above {
            None => true,
            Some(above) => {
                port.checked_add(above).is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
            }
        };
        if is_free {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

/// Waits until something listens at the port.
pub fn wait_for_port(port: u16) -> Result<(), Failure> {
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if start.elapsed() > START_TIMEOUT {
            return Err(format!("nothing listens at port {port}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
