//! `ringdove bench` as the load: a process of its own, so that the servers' time is theirs alone.

use super::{Failure, RINGDOVE};
use std::net::SocketAddr;
use std::process::Command;

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
}

/// How that went.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub per_second: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

impl Load {
    /// 64-byte values on 100,000 keys.
    pub fn new(ratio: &'static str, clients: u32, pipeline: u32, requests: u64) -> Load {
        Load { clients, pipeline, requests, value_bytes: 64, keys: 100_000, ratio }
    }

    /// Sends it.
    pub fn run(self, resp: SocketAddr) -> Result<Measured, Failure> {
        self.send(resp, &["--requests", &self.requests.to_string()])
    }

    /// Sets every key once.
    pub fn fill(self, resp: SocketAddr) -> Result<(), Failure> {
        self.send(resp, &["--fill", "--requests", "1"]).map(drop)
    }

    fn send(self, resp: SocketAddr, more: &[&str]) -> Result<Measured, Failure> {
        let mut command = Command::new(RINGDOVE);
        command.args(["bench", "--json", "--resp", &resp.to_string(), "--ratio", self.ratio]);
        command.args(["--clients", &self.clients.to_string(), "--pipeline", &self.pipeline.to_string()]);
        command.args(["--keys", &self.keys.to_string(), "--value-size", &self.value_bytes.to_string()]);
        let output = command.args(more).output()?;
        if !output.status.success() {
            return Err(format!("the load failed: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let gets_only = report["set"]["commands"].as_u64() == Some(0);
        let kind = &report[if gets_only { "get" } else { "set" }];
        let figure = |value: &serde_json::Value| value.as_f64().ok_or("a report without figures");
        Ok(Measured {
            per_second: figure(&report["per_second"])?,
            p50_us: figure(&kind["p50_us"])?,
            p99_us: figure(&kind["p99_us"])?,
        })
    }
}
