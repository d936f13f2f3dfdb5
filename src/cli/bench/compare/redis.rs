//! Redis servers on free loopback ports, without persistence.

use super::Failure;
use super::servers::{START_TIMEOUT, Server, output};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// What is needed of Redis.
const TOOLS: [&str; 3] = ["redis-server", "redis-benchmark", "redis-cli"];
/// A Redis Cluster node's second port lies so far above its first.
const BUS_OFFSET: u16 = 10_000;
/// How long a Redis Cluster may take until it serves and its replicas follow.
const FORM_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a port that was free may be taken by somebody else before Redis has it.
const PORTS_TRIED: usize = 5;

/// Checks that all of Redis's programs are installed; gives the server's version.
pub async fn version() -> Result<String, Failure> {
    let mut said = Vec::new();
    for tool in TOOLS {
        said.push(output(Command::new(tool).arg("--version")).await.map_err(|error| {
            Failure(format!(
                "{tool} doesn't run ({error}).\n\
                 The comparison needs {}. To install them:\n  \
                 Debian, Ubuntu   sudo apt-get install redis-server redis-tools\n  \
                 Fedora           sudo dnf install redis\n  \
                 Arch             sudo pacman -S redis\n  \
                 Alpine           sudo apk add redis\n  \
                 from source      https://redis.io/docs/latest/operate/oss_and_stack/install/",
                TOOLS.join(", ")
            ))
        })?);
    }
    let version = said[0].split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or("of unknown version").to_owned())
}

/// A folder for what Redis writes. It is removed when the handle is dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one that nobody else uses.
    pub fn create() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("ringdove-compare-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is small, and in a folder for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub struct Redis {
    pub server: Server,
    pub at: SocketAddr,
}

impl Redis {
    /// Starts one that stands alone.
    pub async fn start(folder: &Folder) -> Result<Redis, Failure> {
        Redis::start_on_a_free_port(folder, false).await
    }

    /// Three masters with a replica each.
    pub async fn cluster(folder: &Folder) -> Result<Vec<Redis>, Failure> {
        let mut nodes = Vec::new();
        for _ in 0..6 {
            nodes.push(Redis::start_on_a_free_port(folder, true).await?);
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| node.at.to_string()));
        output(create.args(["--cluster-replicas", "1", "--cluster-yes"])).await?;
        let start = Instant::now();
        for node in &nodes {
            while !node.is_in_place().await? {
                if start.elapsed() > FORM_TIMEOUT {
                    return Err(Failure(format!("the Redis Cluster did not form within {FORM_TIMEOUT:?}")));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(nodes)
    }

    async fn start_on_a_free_port(folder: &Folder, in_cluster: bool) -> Result<Redis, Failure> {
        for _ in 0..PORTS_TRIED {
            let port = free_port(in_cluster.then_some(BUS_OFFSET))?;
            if let Some(redis) = Redis::start_at(port, &folder.0, in_cluster).await? {
                return Ok(redis);
            }
        }
        Err(Failure(format!("redis-server ended at once, {PORTS_TRIED} times")))
    }

    /// Starts a server and waits until it serves; `None` if it ends, for want of its port.
    async fn start_at(port: u16, folder: &Path, in_cluster: bool) -> Result<Option<Redis>, Failure> {
        let own = folder.join(port.to_string());
        std::fs::create_dir_all(&own)?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(&own).arg("--logfile").arg(own.join("log"));
        if in_cluster {
            command.args(["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
        }
        let server = Server::spawn(&mut command)?;
        let mut redis = Redis { server, at: SocketAddr::from(([127, 0, 0, 1], port)) };
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT {
            if redis.server.has_ended() {
                return Ok(None);
            }
            if redis.serves().await {
                return Ok(Some(redis));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Failure(format!("redis-server doesn't serve after {START_TIMEOUT:?}")))
    }

    /// Whether this very process answers at the port.
    async fn serves(&self) -> bool {
        let Some(id) = self.server.id() else { return false };
        let told = self.ask(&["info", "server"]).await.unwrap_or_default();
        told.lines().any(|line| line.trim_end() == format!("process_id:{id}"))
    }

    async fn ask(&self, command: &[&str]) -> io::Result<String> {
        output(Command::new("redis-cli").args(["-p", &self.at.port().to_string()]).args(command)).await
    }

    /// Whether the cluster serves, and the node is a master whose replica follows or a replica
    /// that does.
    async fn is_in_place(&self) -> io::Result<bool> {
        let replication = self.ask(&["info", "replication"]).await?;
        let follows = replication.contains("state=online") || replication.contains("master_link_status:up");
        Ok(follows && self.ask(&["cluster", "info"]).await?.contains("cluster_state:ok"))
    }
}

/// A loopback port that was free a moment ago, and so was the one `above` it if asked for.
fn free_port(above: Option<u16>) -> io::Result<u16> {
    for _ in 0..1_000 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let is_free = above.is_none_or(|above| {
            port.checked_add(above).is_some_and(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        });
        if is_free {
            return Ok(port);
        }
    }
    Err(io::Error::other("no free port"))
}
