//! `ringdove bench` as the load: a process of its own, so that the servers' time is theirs alone.
//!
//! The benchmarks in `benches/` use it, too.

use super::program;
use super::servers::output;
use std::io;
use std::net::SocketAddr;
use tokio::process::Command;

/// What is sent to a Redis port.
#[derive(Clone, Copy)]
pub struct Load {
    pub clients: u32,
    pub pipeline: u32,
    pub requests: u64,
    pub value_bytes: u32,
    pub keys: u64,
    /// GETs to SETs.
    pub ratio: &'static str,
    /// Commands a second; as many as are answered if there is none.
    pub rate: Option<u64>,
    /// How many seconds values live, if not for ever.
    pub ttl_s: Option<u64>,
    /// Whether each client stays with a primary of the cluster and asks it for keys that belong there.
    pub is_cluster_aware: bool,
}

/// How that went.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub gets: Latency,
    pub sets: Latency,
}

/// Of a kind of commands; zeroes if there were none.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Load {
    /// 64-byte values on 100,000 keys.
    pub fn new(ratio: &'static str, clients: u32, pipeline: u32, requests: u64) -> Load {
        Load {
            clients,
            pipeline,
            requests,
            value_bytes: 64,
            keys: 100_000,
            ratio,
            rate: None,
            ttl_s: None,
            is_cluster_aware: false,
        }
    }

    /// Sends it.
    pub async fn run(self, resp: SocketAddr) -> io::Result<Measured> {
        self.send(resp, &["--requests", &self.requests.to_string()]).await
    }

    /// Sets every key once.
    pub async fn fill(self, resp: SocketAddr) -> io::Result<()> {
        self.send(resp, &["--fill", "--requests", "1"]).await.map(drop)
    }

    async fn send(self, resp: SocketAddr, more: &[&str]) -> io::Result<Measured> {
        let mut command = Command::new(program()?);
        command.args(["bench", "--json", "--resp", &resp.to_string(), "--ratio", self.ratio]);
        command.args(["--clients", &self.clients.to_string(), "--pipeline", &self.pipeline.to_string()]);
        command.args(["--keys", &self.keys.to_string(), "--value-size", &self.value_bytes.to_string()]);
        command.args(self.is_cluster_aware.then_some("--cluster"));
        for (flag, number) in [("--rate", self.rate), ("--ttl", self.ttl_s)] {
            command.args(number.iter().flat_map(|number| [flag.to_owned(), number.to_string()]));
        }
        let report: serde_json::Value = serde_json::from_str(&output(command.args(more)).await?)?;
        let figure = |value: &serde_json::Value| {
            value.as_f64().ok_or_else(|| io::Error::other("a report without figures"))
        };
        let latency = |kind: &serde_json::Value| {
            io::Result::Ok(Latency { p50_us: figure(&kind["p50_us"])?, p99_us: figure(&kind["p99_us"])? })
        };
        Ok(Measured {
            per_second: figure(&report["per_second"])?,
            gets: latency(&report["get"])?,
            sets: latency(&report["set"])?,
        })
    }
}
