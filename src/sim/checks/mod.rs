//! What must hold in every run, one invariant of DESIGN §9 a file.
//!
//! [`Checks::after_input`] looks at the node that has just had an input, [`Checks::across`] at all
//! nodes together, every so often. Nothing here changes anything; dead nodes are looked at as they
//! were when they died.
//!
//! Most inputs change next to nothing, so a look begins with a glance: only partitions of which
//! something changed that an invariant speaks of are looked at closely.

mod alarms;
mod clocks;
mod commits;
mod copies;
mod leases;
mod logs;
mod promises;
mod reigns;
mod settled;

pub use settled::{lost, unsettled};

use super::cluster::Cluster;
use crate::engine::ids::{Epoch, Incarnation, NodeId, PartitionId, Sequence, Version};
use crate::engine::node::Engine;
use crate::engine::partition::Partition;
use std::collections::BTreeMap;
use std::fmt;

/// An invariant that doesn't hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// What was seen.
    pub detail: String,
    /// When, in microseconds of virtual time.
    pub at_us: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { invariant, detail, at_us } = self;
        write!(f, "{invariant} at {}.{:06} s: {detail}", at_us / 1_000_000, at_us % 1_000_000)
    }
}

/// What a checker found, if anything.
pub(super) type Finding = Result<(), String>;

/// A partition at a node that is looked at, because something of it has changed.
#[derive(Clone, Copy)]
pub(super) struct Seen<'c> {
    pub(super) cluster: &'c Cluster,
    pub(super) node: NodeId,
    pub(super) engine: &'c Engine,
    pub(super) incarnation: Incarnation,
    pub(super) partition: &'c Partition,
}

/// What the checkers of one partition look at.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Glance {
    incarnation: Incarnation,
    epoch: Epoch,
    promised: Epoch,
    is_primary: bool,
    copy: Option<(Sequence, Sequence, u64, Version)>,
}

impl Glance {
    fn at(incarnation: Incarnation, partition: &Partition) -> Glance {
        let copy = partition.copy.as_ref();
        Glance {
            incarnation,
            epoch: partition.epoch,
            promised: partition.promised,
            is_primary: partition.is_primary(),
            copy: copy.map(|copy| (copy.last, copy.commit, copy.attempt, copy.hlc.last())),
        }
    }
}

/// All checkers of one run.
#[derive(Default)]
pub struct Checks {
    glances: BTreeMap<NodeId, Vec<Option<Glance>>>,
    reigns: reigns::Reigns,
    promises: promises::Promises,
    commits: commits::Commits,
    copies: copies::Copies,
    clocks: clocks::Clocks,
    leases: leases::Leases,
    /// Partitions of which an operator gave up what is missing.
    excused: Vec<PartitionId>,
}

impl Checks {
    /// An operator accepts the loss of these partitions: what was committed there may be gone.
    pub fn excuse(&mut self, partitions: &[PartitionId]) {
        self.excused.extend_from_slice(partitions);
    }

    /// Looks at a node that has just had an input.
    ///
    /// # Errors
    /// The first invariant that doesn't hold.
    pub fn after_input(&mut self, cluster: &Cluster, node: NodeId) -> Result<(), Violation> {
        let engine = cluster.engine(node);
        let incarnation = engine.table().incarnation;
        self.commits.carried(cluster, node, engine.table());
        let glances = self.glances.entry(node).or_default();
        glances.resize(engine.partitions().len(), None);
        let mut changed: Vec<&Partition> = Vec::new();
        for (partition, known) in engine.partitions().iter().zip(glances) {
            let glance = Some(Glance::at(incarnation, partition));
            if *known != glance {
                *known = glance;
                changed.push(partition);
            }
        }
        for partition in changed {
            self.look(Seen { cluster, node, engine, incarnation, partition })?;
        }
        Ok(())
    }

    fn look(&mut self, seen: Seen<'_>) -> Result<(), Violation> {
        let at_us = seen.cluster.now().mono_us;
        let named =
            |invariant, finding: Finding| finding.map_err(|detail| Violation { invariant, detail, at_us });
        named("(a) one active primary a reign", self.reigns.look(seen))?;
        named("(b) promises never decrease", self.promises.look(seen))?;
        if self.excused.contains(&seen.partition.id) {
            return Ok(());
        }
        named("(d) a new primary has every committed write", self.commits.promoted(seen))?;
        named("(c) committed is held by all in-sync copies", self.commits.look(seen))?;
        named("(j) no lease outlives a reign", self.leases.look(seen))?;
        named("(f) no complete copy is given up early", self.copies.look(seen, &self.commits))?;
        named("(i) clocks never go back", self.clocks.look(seen))
    }

    /// Looks at all nodes together.
    ///
    /// # Errors
    /// The first invariant that doesn't hold.
    pub fn across(&self, cluster: &Cluster) -> Result<(), Violation> {
        let at_us = cluster.now().mono_us;
        let named =
            |invariant, finding: Finding| finding.map_err(|detail| Violation { invariant, detail, at_us });
        named("(e) in-sync logs are prefixes of each other", logs::prefixes(cluster))?;
        named("(g) equal sequence, equal digest", logs::digests(cluster))?;
        named("(b) no lease after a promise", self.promises.leases(cluster))?;
        named("no alarm of the engine's own", alarms::silent(cluster))
    }
}
