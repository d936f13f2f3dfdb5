//! What a load costs the servers behind an address.

use super::Failure;
use super::load::Load;
use super::redis_benchmark::RedisBenchmark;
use super::servers::{Server, cpu_us_of};
use std::net::SocketAddr;

/// What is compared: an address, and all processes that work behind it.
pub struct Side<'a> {
    pub at: SocketAddr,
    pub servers: Vec<&'a Server>,
}

/// How a load went.
#[derive(Clone, Copy)]
pub struct Cost {
    /// Processor time of all servers, an operation.
    pub cpu_us: f64,
    pub per_second: f64,
}

impl Side<'_> {
    /// Sends a load and counts what it costs.
    pub async fn cost(&self, load: &impl Costly) -> Result<Cost, Failure> {
        let cpu = || cpu_us_of(self.servers.iter().copied());
        let before = cpu();
        let per_second = load.send(self.at).await?;
        Ok(Cost { cpu_us: (cpu() - before) / load.requests() as f64, per_second })
    }
}

/// A load that a process of its own sends.
pub trait Costly {
    /// Commands in all.
    fn requests(&self) -> u64;

    /// Sends them; says how many were answered a second.
    async fn send(&self, at: SocketAddr) -> Result<f64, Failure>;
}

impl Costly for RedisBenchmark {
    fn requests(&self) -> u64 {
        self.requests
    }

    async fn send(&self, at: SocketAddr) -> Result<f64, Failure> {
        self.run(at).await
    }
}

impl Costly for Load {
    fn requests(&self) -> u64 {
        self.requests
    }

    async fn send(&self, at: SocketAddr) -> Result<f64, Failure> {
        Ok(self.run(at).await?.per_second)
    }
}
