//! The nodes of a cluster, each at its place, with all that is done to them.

use super::history::Recorder;
use super::network::Network;
use crate::harness::cluster::describe;
use crate::harness::http;
use crate::harness::process::{self, Process};
use ringdove::drivers::admin_http::{ClusterStatus, Health, PartitionsStatus, Standing};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Which nodes clients may go to, by place.
pub type Doors = Arc<Mutex<Vec<Option<SocketAddr>>>>;

/// The nodes.
pub struct Nodes {
    // Before the network, so that they end first.
    places: Vec<Option<Process>>,
    /// What nodes wrote that are gone: place, name and lines.
    past: Vec<(usize, Vec<String>)>,
    pub network: Network,
    pub doors: Doors,
    flags: Vec<String>,
    /// More environment for the nodes of a place.
    environment: Vec<Vec<(String, String)>>,
    /// Ends of nodes that nobody asked for.
    recorder: Recorder,
}

impl Nodes {
    /// Room for nodes at as many places as the network has; none started.
    pub fn new(network: Network, places: usize, flags: &[&str], recorder: Recorder) -> Nodes {
        Nodes {
            places: (0..places).map(|_| None).collect(),
            past: Vec::new(),
            network,
            doors: Arc::new(Mutex::new(vec![None; places])),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            environment: vec![Vec::new(); places],
            recorder,
        }
    }

    /// What the node at a place is started with besides.
    pub fn set_environment(&mut self, place: usize, variables: Vec<(String, String)>) {
        self.environment[place] = variables;
    }

    /// Starts a node, with the others as its seeds.
    pub fn start(&mut self, place: usize) {
        let mut flags = self.network.flags(place);
        flags.extend(["--name".to_owned(), format!("dove-{}", place + 1)]);
        for seed in self.running() {
            flags.extend(["--seed".to_owned(), self.network.seed(seed)]);
        }
        flags.extend(self.flags.iter().cloned());
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (network, environment) = (&self.network, &self.environment[place]);
        let process = process::start_with(&flags, |command: &mut Command| {
            // With the time of each line.
            let mut timed = Command::new(command.get_program());
            timed.args(
                command
                    .get_args()
                    .map(|argument| if argument == "plain" { "text".as_ref() } else { argument }),
            );
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => timed.env(name, value),
                    None => timed.env_remove(name),
                };
            }
            *command = timed;
            command.envs(environment.iter().cloned());
            network.enter(place, command);
        });
        self.open_door(place, Some(process.resp));
        self.places[place] = Some(process);
    }

    /// Whether clients that look for a node may go to this one.
    pub fn open_door(&self, place: usize, door: Option<SocketAddr>) {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)[place] = door;
    }

    /// The places with a node, in order.
    pub fn running(&self) -> Vec<usize> {
        (0..self.places.len()).filter(|&place| self.places[place].is_some()).collect()
    }

    /// The node at a place.
    ///
    /// # Panics
    /// If there is none.
    pub fn at(&self, place: usize) -> &Process {
        self.places[place].as_ref().expect("a node at that place")
    }

    fn take(&mut self, place: usize) -> Process {
        self.open_door(place, None);
        self.places[place].take().expect("a node at that place")
    }

    /// Kills a node without a word, and says when.
    pub fn kill(&mut self, place: usize) -> u64 {
        let mut node = self.take(place);
        let at_us = self.recorder.now_us();
        node.kill();
        self.past.push((place, node.lines.all()));
        at_us
    }

    /// Asks a node to leave, and waits until it did.
    ///
    /// # Errors
    /// If it left with an error.
    pub fn stop(&mut self, place: usize, deadline: Duration) -> Result<(), String> {
        let mut node = self.take(place);
        node.signal(Signal::TERM);
        let status = node.wait(deadline);
        self.past.push((place, node.lines.all()));
        if status.success() { Ok(()) } else { Err(format!("node {} left with {status}", place + 1)) }
    }

    /// Takes a node out that runs on, or is paused; its place is free.
    pub fn set_aside(&mut self, place: usize) -> Process {
        self.take(place)
    }

    /// Stops a node from running; it doesn't notice.
    pub fn pause(&self, place: usize) {
        self.at(place).signal(Signal::STOP);
    }

    /// Lets a paused node run on.
    pub fn resume(&self, place: usize) {
        self.at(place).signal(Signal::CONT);
    }

    /// Lets a node run on that may be paused, or be gone.
    pub fn resume_quietly(&self, place: usize) {
        let pid = Pid::from_raw(self.at(place).pid() as i32);
        let _gone = pid.is_none_or(|pid| kill_process(pid, Signal::CONT).is_err());
    }

    /// What a node says about the cluster.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn status(&self, place: usize) -> Result<ClusterStatus, String> {
        self.at(place).status()
    }

    /// Who holds what, as some node tells.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn partitions(&self, place: usize) -> Result<PartitionsStatus, String> {
        http::partitions(self.at(place).admin)
    }

    /// The place of the node with this id.
    pub fn place_of(&self, node: &str) -> Option<usize> {
        self.places.iter().position(|here| here.as_ref().is_some_and(|process| process.node == node))
    }

    /// The place of the node that leads the agreed log.
    ///
    /// # Errors
    /// If none is known for long.
    pub fn leader(&self) -> Result<usize, String> {
        let find = || {
            let first = *self.running().first().ok_or("no node")?;
            let leader = self.status(first)?.leader.ok_or("no leader")?;
            self.place_of(&leader).ok_or(format!("{leader} is not ours"))
        };
        Ok(wait("a leader", Duration::from_secs(20), find)?.0)
    }

    /// Waits until every node says that exactly the running ones are members, and all copies are
    /// full; and says how long that took.
    ///
    /// # Errors
    /// What keeps them from it.
    pub fn settle(&self, deadline: Duration) -> Result<Duration, String> {
        let running = self.running();
        let look = |&place: &usize| {
            let status = self.status(place)?;
            let up = status.members.iter().filter(|member| member.status == Standing::Up).count();
            let there = running.iter().all(|&other| {
                status.member(&self.at(other).node).is_some_and(|member| member.status == Standing::Up)
            });
            let full = matches!(status.health, Health::Healthy | Health::FewerCopies);
            match up == running.len() && there && full {
                true => Ok(()),
                false => Err(format!("node {} says {}", place + 1, describe(&status))),
            }
        };
        let all = || running.iter().try_for_each(look);
        Ok(wait("all members with full copies", deadline, all)?.1)
    }

    /// The sum of a counter over all running nodes.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters(name).values().sum()
    }

    /// A counter of all running nodes, by their ids.
    pub fn counters(&self, name: &str) -> BTreeMap<String, u64> {
        let of = |place: usize| {
            let count = self.status(place).ok()?.counters.get(name).copied()?;
            Some((self.at(place).node.clone(), count))
        };
        self.running().into_iter().filter_map(of).collect()
    }

    /// What nodes wrote that none should: panics, alarms; and nodes that ended by themselves.
    pub fn complaints(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        let ended = |process: &mut Process| !process.is_running();
        for place in self.running() {
            if self.places[place].as_mut().is_some_and(ended) {
                found.push(format!("node {} ended by itself", place + 1));
            }
        }
        for (place, lines) in self.output() {
            let bad = |line: &&String| line.contains("panicked at") || line.contains("invariant");
            found.extend(lines.iter().filter(bad).map(|line| format!("node {}: {line}", place + 1)));
        }
        found
    }

    fn output(&self) -> Vec<(usize, Vec<String>)> {
        let mut all = self.past.clone();
        all.extend(self.running().into_iter().map(|place| (place, self.at(place).lines.all())));
        all
    }

    /// Writes what every node wrote into a folder.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_output(&self, folder: &Path) -> std::io::Result<()> {
        for (number, (place, lines)) in self.output().into_iter().enumerate() {
            std::fs::write(folder.join(format!("node-{}-{number}.log", place + 1)), lines.join("\n") + "\n")?;
        }
        Ok(())
    }
}

/// Looks until there is a result, and gives it with the time it took.
///
/// # Errors
/// At the deadline, what the last look said.
pub fn wait<T>(
    what: &str,
    deadline: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<(T, Duration), String> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok((found, start.elapsed())),
            Err(reason) if start.elapsed() > deadline => {
                return Err(format!("not within {deadline:?}: {what}; the last look: {reason}"));
            }
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}
