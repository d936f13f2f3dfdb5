//! Several nodes.

use super::process::{self, Process};
use super::resp::Resp;
use super::wait::eventually;
use ringdove::drivers::admin_http::{ClusterStatus, Health, Standing};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a change of members may take until all copies are full.
pub const HEAL_DEADLINE: Duration = Duration::from_secs(60);

/// Tests with nodes take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The right to run nodes, until dropped.
pub fn turn() -> MutexGuard<'static, ()> {
    // A failed test leaves nothing behind that the next could stumble over.
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Nodes that serve as one.
pub struct Cluster {
    pub nodes: Vec<Process>,
    flags: Vec<String>,
    // Last, so that it is dropped when the nodes are gone.
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts `count` nodes and waits until all of them see all copies full.
    pub fn start(count: usize) -> Cluster {
        Cluster::with_flags(count, &[])
    }

    /// The same with more flags for every node.
    pub fn with_flags(count: usize, flags: &[&str]) -> Cluster {
        let turn = turn();
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let mut cluster = Cluster { nodes: Vec::new(), flags, _turn: turn };
        for _ in 0..count {
            cluster.add();
        }
        cluster.settle();
        cluster
    }

    /// Starts one more node with the first as its seed, and gives its index. It may not serve yet.
    pub fn add(&mut self) -> usize {
        let seed = self.nodes.first().map(|node| node.quic.to_string());
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend(seed.iter().flat_map(|seed| ["--seed", seed.as_str()]));
        let name = format!("dove-{}", self.nodes.len() + 1);
        if !flags.contains(&"--name") {
            flags.extend(["--name", &name]);
        }
        self.nodes.push(process::start(&flags));
        self.nodes.len() - 1
    }

    /// Waits until every node sees exactly these members up and every partition with all its copies.
    pub fn settle(&self) -> Duration {
        let wanted = self.nodes.len();
        let look = |node: &Process| {
            let status = node.status()?;
            let up = status.members.iter().filter(|member| member.status == Standing::Up).count();
            let there = self
                .nodes
                .iter()
                .all(|node| status.member(&node.node).is_some_and(|member| member.status == Standing::Up));
            let full = matches!(status.health, Health::Healthy | Health::FewerCopies);
            match up == wanted && there && full {
                true => Ok(()),
                false => Err(describe(&status)),
            }
        };
        let all = || self.nodes.iter().try_for_each(look);
        eventually(&format!("{wanted} members with full copies"), HEAL_DEADLINE, all).1
    }

    /// What the first node says.
    pub fn status(&self) -> ClusterStatus {
        self.nodes[0].status().expect("the first node answers")
    }

    /// The index of the node that leads the agreed log.
    pub fn leader(&self) -> usize {
        let find = || {
            let leader = self.nodes[0].status()?.leader.ok_or("no leader")?;
            self.nodes.iter().position(|node| node.node == leader).ok_or(format!("{leader} is not ours"))
        };
        eventually("a leader", HEAL_DEADLINE, find).0
    }

    /// Where Redis clients connect.
    pub fn resp(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.resp).collect()
    }

    /// A connection to one of the nodes.
    pub fn connect(&self, index: usize) -> Resp {
        Resp::connect(self.nodes[index].resp).expect("the node accepts")
    }
}

/// The parts of a status that tell why a cluster isn't settled.
pub fn describe(status: &ClusterStatus) -> String {
    let members: Vec<String> = status
        .members
        .iter()
        .map(|m| format!("{} {} {}+{}+{}", m.name, m.status.as_str(), m.primaries, m.backups, m.learners))
        .collect();
    format!(
        "{}, {} migrations, {} short, {} unavailable, members [{}]",
        status.health.as_str(),
        status.migrations.len(),
        status.under_replicated_partitions,
        status.unavailable_partitions,
        members.join(", ")
    )
}
