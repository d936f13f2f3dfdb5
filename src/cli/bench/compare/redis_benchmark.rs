//! `redis-benchmark` as the load.

use super::Failure;
use super::servers::output;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::process::Command;

/// How long a run may take: it repeats for ever what a cluster refuses.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// What is sent.
#[derive(Clone, Copy)]
pub enum Commands {
    Set,
    Get,
    /// Of ten keys each.
    Mset,
    Mget,
}

#[derive(Clone, Copy)]
pub struct RedisBenchmark {
    pub commands: Commands,
    pub clients: u32,
    /// Commands under way at each client.
    pub pipeline: u32,
    /// Commands in all.
    pub requests: u64,
    pub value_bytes: u32,
    /// Random numbers in keys are below this.
    pub keys: u64,
    pub threads: u32,
    /// Whether each client stays with a node of the cluster and asks it for keys that belong there. For
    /// each node, it then takes one of its slots and puts the hash tag of that into all keys.
    pub is_cluster_aware: bool,
}

impl RedisBenchmark {
    /// Sends it; says how many commands were answered a second.
    pub async fn run(&self, at: SocketAddr) -> Result<f64, Failure> {
        let mut command = self.command(at);
        let report = tokio::time::timeout(RUN_TIMEOUT, output(&mut command)).await.map_err(|_| {
            Failure(format!("redis-benchmark takes longer than {RUN_TIMEOUT:?} against {at}"))
        })??;
        per_second(&report).ok_or_else(|| Failure(format!("redis-benchmark says {report:?}")))
    }

    fn command(&self, at: SocketAddr) -> Command {
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string(), "--csv"]);
        let numbers: [(&str, u64); 5] = [
            ("-c", self.clients.into()),
            ("-d", self.value_bytes.into()),
            ("-r", self.keys),
            ("-P", self.pipeline.into()),
            ("-n", self.requests),
        ];
        for (flag, number) in numbers {
            command.args([flag, &number.to_string()]);
        }
        if self.threads > 1 {
            command.args(["--threads", &self.threads.to_string()]);
        }
        command.args(self.is_cluster_aware.then_some("--cluster"));
        match self.commands {
            Commands::Set => command.args(["-t", "set"]),
            Commands::Get => command.args(["-t", "get"]),
            Commands::Mset => command.args(["-t", "mset"]),
            // It has no such test of its own.
            Commands::Mget => command.arg("MGET").args(["key:__rand_int__"; 10]),
        };
        command
    }
}

/// The figure in a report: `"SET","52301.25","0.895",…` below a line of headings.
fn per_second(report: &str) -> Option<f64> {
    let row = report.lines().rfind(|line| line.starts_with('"'))?;
    row.split(',').nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let report = "\"test\",\"rps\",\"avg_latency_ms\"\n\"MSET (10 keys)\",\"52301.25\",\"0.9\"\n\n";
        assert_eq!(per_second(report), Some(52_301.25));
        for strange in ["", "\"test\",\"rps\"\n", "ERROR: no"] {
            assert_eq!(per_second(strange), None, "{strange}");
        }
    }
}
