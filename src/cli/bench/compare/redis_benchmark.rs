//! `redis-benchmark` as the load, and what it costs the servers.

use super::Failure;
use super::servers::{Server, cpu_us_of, output};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::process::Command;

/// How long a run may take: it repeats for ever what a cluster refuses.
const RUN_TIMEOUT: Duration = Duration::from_secs(600);

/// What is compared: an address, and all processes that work behind it.
pub struct Side<'a> {
    pub at: SocketAddr,
    pub servers: Vec<&'a Server>,
}

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
    /// Whether each command goes to the node that the cluster says it belongs to.
    pub is_cluster_aware: bool,
}

/// How that went.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Processor time of all servers, an operation.
    pub cpu_us: f64,
    pub per_second: f64,
}

impl RedisBenchmark {
    pub async fn run(&self, side: &Side<'_>) -> Result<Cost, Failure> {
        let cpu = || cpu_us_of(side.servers.iter().copied());
        let before = cpu();
        let mut command = self.command(side.at);
        let report = tokio::time::timeout(RUN_TIMEOUT, output(&mut command)).await.map_err(|_| {
            Failure(format!("redis-benchmark takes longer than {RUN_TIMEOUT:?} against {}", side.at))
        })??;
        let cpu_us = (cpu() - before) / self.requests as f64;
        let per_second =
            per_second(&report).ok_or_else(|| Failure(format!("redis-benchmark says {report:?}")))?;
        Ok(Cost { cpu_us, per_second })
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
