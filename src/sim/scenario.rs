//! One run: from a seed to a cluster, its faults, its clients and the verdict.

use super::agreed_log::Committed;
use super::checks::{Checks, Violation, lost, unsettled};
use super::cluster::{Cluster, Step};
use super::counts::counts;
use super::faults::{FaultCounts, Faults};
use super::network::NetworkConfig;
use super::random::Random;
use super::rogue::Rogue;
use super::terms::{Course, Terms};
use super::workload::{Outcomes, Workload};
use crate::engine::ids::PartitionId;
use crate::engine::mutants::Mutation;
use std::ops::AddAssign;

/// What a run is made of. Everything not named here follows from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Decides everything.
    pub seed: u64,
    /// How long things go wrong, in virtual seconds.
    pub fault_s: u64,
    /// A bug put in on purpose.
    pub mutation: Mutation,
    /// Whether a member also says what it shouldn't.
    pub rogue: bool,
}

/// How a run went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The hash of every event: equal for equal seeds.
    pub trace: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// Events.
    pub events: u64,
    /// Nodes at the start.
    pub nodes: usize,
    /// What went wrong.
    pub faults: FaultCounts,
    /// What was agreed on.
    pub committed: Committed,
    /// What clients met.
    pub outcomes: Outcomes,
    /// Unique keys acknowledged, and found again or found gone.
    pub unique: usize,
    /// What the engines did, all nodes together.
    pub work: Work,
    /// Wrong messages that a member said and that were refused.
    pub rogue: u64,
    /// Keys whose history was explained, or was too long to tell.
    pub keys: u64,
    /// Keys of which it could not be decided whether their history has an explanation.
    pub undecided: u64,
}

counts! {
    /// What the engines of a run did, all nodes together.
    pub struct Work {
        /// Operations executed.
        pub operations: u64,
        /// Records taken by backups and learners.
        pub records: u64,
        /// Reigns begun.
        pub promotions: u64,
        /// Snapshots completed.
        pub snapshots: u64,
        /// Digests compared.
        pub digests: u64,
        /// Writes fenced off for being of an older epoch.
        pub fenced: u64,
        /// Operations that had to wait for a route, a copy or a handover.
        pub parked: u64,
        /// Entries expired.
        pub expired: u64,
        /// Entries evicted.
        pub evicted: u64,
        /// Former copies gone back to.
        pub recovered: u64,
        /// Writes that were taken apart from the cluster and dropped.
        pub divergent: u64,
        /// Partitions that stayed dead until their loss was accepted.
        pub dead: u64,
    }
}

/// Wakes that are not a client's.
const LOOK: u64 = u64::MAX;
const FAULT: u64 = u64::MAX - 1;
const ROGUE: u64 = u64::MAX - 2;
/// The pause between two wrong messages, at most.
const ROGUE_US_MAX: u64 = 20_000;
const LOOK_US: u64 = 100_000;
const SECOND_US: u64 = 1_000_000;
/// Everything is whole again within so long after the last fault.
const WHOLE_US: u64 = 30 * SECOND_US;
/// A healed network takes no longer.
const HEALED_DELAY_US_MAX: u64 = 5_000;
/// Before the first fault.
const FORMING_US: u64 = 5 * SECOND_US;
/// Whoever asks for a dead partition hears so within this time.
const MOURNING_US: u64 = 10 * SECOND_US;
/// After the last one, with clients at work.
const CALM_US: u64 = 10 * SECOND_US;

impl AddAssign for Summary {
    /// Sums over runs; their traces are combined.
    fn add_assign(&mut self, other: Summary) {
        self.trace ^= other.trace;
        self.virtual_us += other.virtual_us;
        self.events += other.events;
        self.nodes += other.nodes;
        self.faults += other.faults;
        self.committed += other.committed;
        self.outcomes += other.outcomes;
        self.unique += other.unique;
        self.work += other.work;
        self.rogue += other.rogue;
        self.keys += other.keys;
        self.undecided += other.undecided;
    }
}

impl Scenario {
    /// The usual run of a seed: 60 virtual seconds of faults.
    pub fn new(seed: u64) -> Scenario {
        Scenario { seed, fault_s: 60, mutation: Mutation::default(), rogue: false }
    }

    /// Runs it.
    ///
    /// # Errors
    /// The first promise found broken.
    pub fn run(&self) -> Result<Summary, Violation> {
        Run::new(self).go(self)
    }
}

struct Run {
    cluster: Cluster,
    workload: Workload,
    checks: Checks,
    faults: Faults,
    course: Course,
    rogue: Rogue,
    /// What the rogue member says; apart from the run's other choices.
    whims: Random,
    nodes: usize,
    dead: u64,
}

impl Run {
    fn new(scenario: &Scenario) -> Run {
        let mut random = Random::new(scenario.seed ^ 0xD0_5E_ED);
        let mut terms = Terms::draw(&mut random);
        terms.engine.mutation = scenario.mutation;
        tracing::info!(?terms, "scenario");
        let mut cluster = Cluster::new(random.next(), terms.network, terms.engine, terms.settings);
        let begin_us = cluster.now().mono_us + FORMING_US;
        let nodes = terms.nodes;
        let mut faults = Faults::new(terms.clone(), begin_us + scenario.fault_s * SECOND_US);
        for _ in 0..nodes {
            faults.start(&mut cluster);
        }
        cluster.log_config = terms.log;
        cluster.wake_after(LOOK_US, LOOK);
        let workload = Workload::new(&mut cluster, terms.workload);
        cluster.wake_after(FORMING_US, FAULT);
        let course = terms.course;
        if scenario.rogue {
            cluster.wake_after(FORMING_US, ROGUE);
        }
        let (rogue, whims) = (Rogue::default(), Random::new(scenario.seed ^ 0x0D_D5));
        Run { cluster, workload, checks: Checks::default(), faults, course, rogue, whims, nodes, dead: 0 }
    }

    fn go(&mut self, scenario: &Scenario) -> Result<Summary, Violation> {
        self.drive(FORMING_US + scenario.fault_s * SECOND_US)?;
        self.faults.stop(&mut self.cluster);
        let network = &mut self.cluster.network.config;
        *network = NetworkConfig {
            delay_us_max: network.delay_us_max.min(HEALED_DELAY_US_MAX),
            loss_per_million: 0,
            duplicate_per_million: 0,
            ..*network
        };
        for node in self.cluster.live() {
            self.cluster.input(node, |engine, _| engine.config_mut().snapshot_bytes_per_s = 0);
        }
        let healed_us = self.cluster.now().mono_us;
        self.drive(CALM_US)?;
        self.workload.stop();
        self.settle(healed_us)?;
        let dead = self.mourned();
        self.workload.audit(&mut self.cluster, &dead)?;
        self.drive(if dead.is_empty() { 2 * SECOND_US } else { MOURNING_US })?;
        if !self.workload.is_idle() {
            return Err(self.broken("liveness", "operations are still under way".into()));
        }
        self.workload.all_answered(&self.cluster)?;
        self.checks.across(&self.cluster)?;
        self.workload.check_reported(&self.cluster)?;
        // A former copy may have been found meanwhile.
        let dead: Vec<PartitionId> = self.mourned().into_iter().filter(|id| dead.contains(id)).collect();
        self.bury(&dead)?;
        let (keys, undecided) = self.workload.explain(&self.cluster)?;
        Ok(Summary {
            trace: self.cluster.trace,
            virtual_us: self.cluster.now().mono_us,
            events: self.cluster.events_count,
            nodes: self.nodes,
            faults: self.faults.counts,
            committed: self.cluster.committed,
            outcomes: self.workload.outcomes,
            unique: self.workload.unique_count(),
            work: self.work(),
            rogue: self.rogue.refused,
            keys,
            undecided,
        })
    }

    fn work(&self) -> Work {
        let mut work = Work { dead: self.dead, ..Work::default() };
        for sim in self.cluster.nodes.values() {
            let stats = sim.engine.stats();
            work.operations += stats.operations;
            work.records += stats.records_applied;
            work.promotions += stats.promotions;
            work.snapshots += stats.snapshots_sent;
            work.digests += stats.digests_equal;
            work.fenced += stats.fenced;
            work.parked += stats.parked;
            work.expired += stats.expired;
            work.evicted += stats.evicted;
            work.recovered += stats.recovered;
            work.divergent += stats.divergent;
        }
        work
    }

    fn broken(&self, invariant: &'static str, detail: String) -> Violation {
        Violation { invariant, detail, at_us: self.cluster.now().mono_us }
    }

    /// The partitions that may be dead: those that lost all their copies where nodes die in a row.
    fn mourned(&self) -> Vec<PartitionId> {
        match self.course {
            Course::Losses => lost(&self.cluster),
            Course::Survivable | Course::Pair => Vec::new(),
        }
    }

    /// An operator accepts the loss of what is dead: everything is whole again soon.
    fn bury(&mut self, dead: &[PartitionId]) -> Result<(), Violation> {
        self.dead = dead.len() as u64;
        if dead.is_empty() {
            return Ok(());
        }
        let named = |cluster: &Cluster| {
            let mut leaders = cluster.live().into_iter().filter(|&node| cluster.engine(node).is_leading());
            leaders.any(|node| cluster.engine(node).controller_status().dead == dead)
        };
        if !named(&self.cluster) {
            return Err(self.broken("a dead partition says so", format!("the leader doesn't name {dead:?}")));
        }
        self.checks.excuse(dead);
        let live = self.cluster.live();
        if let Some(node) = self.cluster.random.pick(&live) {
            self.cluster.input(node, |engine, now| engine.accept_loss(now));
        }
        self.settle(self.cluster.now().mono_us)
    }

    /// Waits until everything is whole again.
    fn settle(&mut self, healed_us: u64) -> Result<(), Violation> {
        loop {
            self.drive(SECOND_US / 4)?;
            let dead = if self.dead == 0 { self.mourned() } else { Vec::new() };
            self.workload.give_up(&dead);
            let Some(reason) = unsettled(&self.cluster, &dead)
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
                    self.workload.look(&self.cluster);
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
                Step::Wake(ROGUE) => {
                    let spoken = self.rogue.speak(&mut self.cluster, &mut self.whims);
                    spoken.map_err(|detail| self.broken("wrong messages are refused", detail))?;
                    self.cluster.wake_after(self.whims.below(ROGUE_US_MAX), ROGUE);
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
