//! One run: from a seed to a cluster, its faults, its clients and the verdict.

use super::checks::{Checks, Violation, unsettled};
use super::cluster::{Cluster, Step};
use super::faults::Faults;
use super::network::NetworkConfig;
use super::random::Random;
use super::tamper::Tamper;
use super::workload::{Outcomes, Workload};
use crate::engine::config::EngineConfig;
use crate::engine::table::{ClusterSettings, Survival};

/// What a run is made of. Everything not named here follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Decides everything.
    pub seed: u64,
    /// How long things go wrong, in virtual seconds.
    pub fault_s: u64,
    /// A bug put in on purpose.
    pub tamper: Option<Tamper>,
}

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The hash of every event: equal for equal seeds.
    pub trace: u64,
    /// Events.
    pub events: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// Crashes, joins, leaves, pauses, cuts.
    pub faults: [u64; 5],
    /// What clients met.
    pub outcomes: Outcomes,
    /// Unique keys acknowledged, and found again.
    pub unique: usize,
}

const CLIENTS: usize = 5;
/// Wakes that are not a client's.
const LOOK: u64 = u64::MAX;
const FAULT: u64 = u64::MAX - 1;
const LOOK_US: u64 = 100_000;
const SECOND_US: u64 = 1_000_000;
/// Everything is whole again within so long after the last fault.
const WHOLE_US: u64 = 30 * SECOND_US;

impl Scenario {
    /// The usual run of a seed.
    pub fn new(seed: u64) -> Scenario {
        Scenario { seed, fault_s: 60, tamper: None }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first promise found broken.
    pub fn run(&self) -> Result<Summary, Violation> {
        let mut run = Run::new(self);
        run.go(self)
    }
}

struct Run {
    cluster: Cluster,
    workload: Workload,
    checks: Checks,
    faults: Faults,
    nodes: usize,
}

impl Run {
    fn new(scenario: &Scenario) -> Run {
        let mut random = Random::new(scenario.seed ^ 0xD0_5E_ED);
        let nodes = match random.below(20) {
            0 => 1,
            1 | 2 => 2,
            _ => random.between(3, 6) as usize,
        };
        let network = NetworkConfig {
            delay_us_min: random.between(30, 300),
            delay_us_max: random.between(400, 5_000),
            loss_per_million: [0, 0, 1_000, 10_000, 50_000][random.below(5) as usize],
            duplicate_per_million: [0, 0, 1_000, 20_000][random.below(4) as usize],
            reorder: random.per_million(500_000),
        };
        let replicas = if random.per_million(200_000) { 3 } else { 2 };
        let settings = ClusterSettings { partitions: 16, replicas, min_copies: 2, survival: Survival::Auto };
        // Small chunks and frequent comparisons, so that a short run sees many of them.
        let config = EngineConfig {
            chunk_bytes: 256,
            snapshot_window_bytes: 2_048,
            digest_period_us: 3 * SECOND_US,
            ..EngineConfig::default()
        };
        tracing::info!(nodes, ?network, replicas, "scenario");
        let mut cluster = Cluster::new(random.next(), network, config, settings);
        for _ in 0..nodes {
            cluster.start();
        }
        cluster.tamper = scenario.tamper;
        cluster.wake_after(LOOK_US, LOOK);
        let workload = Workload::new(&mut cluster, CLIENTS);
        let begin_us = cluster.now().mono_us + 5 * SECOND_US;
        cluster.wake_after(5 * SECOND_US, FAULT);
        let faults = Faults::new(begin_us + scenario.fault_s * SECOND_US);
        Run { cluster, workload, checks: Checks::default(), faults, nodes }
    }

    fn go(&mut self, scenario: &Scenario) -> Result<Summary, Violation> {
        let calm_us = (5 + scenario.fault_s) * SECOND_US;
        self.drive(calm_us)?;
        self.faults.stop(&mut self.cluster);
        self.cluster.network.config =
            NetworkConfig { loss_per_million: 0, duplicate_per_million: 0, ..self.cluster.network.config };
        let healed_us = self.cluster.now().mono_us;
        self.drive(10 * SECOND_US)?;
        self.workload.stop();
        self.settle(healed_us)?;
        self.workload.audit(&mut self.cluster)?;
        self.drive(2 * SECOND_US)?;
        if !self.workload.is_idle() {
            return Err(self.broken("liveness", "operations are still under way".into()));
        }
        self.checks.across(&self.cluster)?;
        self.workload.explain(&self.cluster)?;
        Ok(Summary {
            trace: self.cluster.trace,
            events: self.cluster.events_count,
            nodes: self.nodes,
            faults: self.faults.counts,
            outcomes: self.workload.outcomes,
            unique: self.workload.unique_count(),
        })
    }

    fn broken(&self, invariant: &'static str, detail: String) -> Violation {
        Violation { invariant, detail, at_us: self.cluster.now().mono_us }
    }

    /// Waits until everything is whole again.
    fn settle(&mut self, healed_us: u64) -> Result<(), Violation> {
        loop {
            self.drive(SECOND_US / 4)?;
            let Some(reason) = unsettled(&self.cluster)
                .or_else(|| (!self.workload.is_idle()).then(|| "operations are still under way".to_owned()))
            else {
                return Ok(());
            };
            if self.cluster.now().mono_us >= healed_us + WHOLE_US {
                return Err(self.broken("liveness: whole within 30 s", reason));
            }
        }
    }

    /// Lets `us` pass, looking at everything that happens.
    fn drive(&mut self, us: u64) -> Result<(), Violation> {
        let end_us = self.cluster.now().mono_us + us;
        loop {
            let touched = match self.cluster.step(end_us) {
                Step::Idle => return Ok(()),
                Step::Engine(node) => Some(node),
                Step::Wake(LOOK) => {
                    self.checks.across(&self.cluster)?;
                    self.cluster.wake_after(LOOK_US, LOOK);
                    None
                }
                Step::Wake(FAULT) => {
                    let next_us = self.faults.act(&mut self.cluster);
                    if self.cluster.now().mono_us + next_us < self.faults.end_us() {
                        self.cluster.wake_after(next_us, FAULT);
                    }
                    None
                }
                Step::Wake(token) => self.workload.wake(&mut self.cluster, token)?,
                Step::Other => None,
            };
            if let Some(node) = touched {
                self.checks.after_input(&self.cluster, node)?;
            }
            if !self.cluster.replies.is_empty() {
                self.workload.take_replies(&mut self.cluster)?;
            }
        }
    }
}
