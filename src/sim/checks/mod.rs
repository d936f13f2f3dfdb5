//! What must hold in every run, one invariant of DESIGN §9 a file.
//!
//! [`Checks::after_input`] looks at the node that has just had an input, [`Checks::across`] at all
//! nodes together, every so often. Nothing here changes anything; dead nodes are looked at as they
//! were when they died.

mod alarms;
mod clocks;
mod commits;
mod copies;
mod logs;
mod promises;
mod reigns;
mod settled;

pub use settled::unsettled;

use super::cluster::Cluster;
use crate::engine::ids::NodeId;
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

/// All checkers of one run.
#[derive(Debug, Default)]
pub struct Checks {
    reigns: reigns::Reigns,
    promises: promises::Promises,
    commits: commits::Commits,
    copies: copies::Copies,
    clocks: clocks::Clocks,
}

impl Checks {
    /// Looks at a node that has just had an input.
    ///
    /// # Errors
    /// The first invariant that doesn't hold.
    pub fn after_input(&mut self, cluster: &Cluster, node: NodeId) -> Result<(), Violation> {
        let named = |invariant, finding: Finding| {
            finding.map_err(|detail| Violation { invariant, detail, at_us: cluster.now().mono_us })
        };
        named("(a) one active primary a reign", self.reigns.look(cluster, node))?;
        named("(b) promises never decrease", self.promises.look(cluster, node))?;
        named("(d) a new primary has every committed write", self.commits.promoted(cluster, node))?;
        named("(c) committed is held by all in-sync copies", self.commits.look(cluster, node))?;
        named("(f) no complete copy is given up early", self.copies.look(cluster, node, &self.commits))?;
        named("(i) clocks never go back", self.clocks.look(cluster, node))
    }

    /// Looks at all nodes together.
    ///
    /// # Errors
    /// The first invariant that doesn't hold.
    pub fn across(&self, cluster: &Cluster) -> Result<(), Violation> {
        let named = |invariant, finding: Finding| {
            finding.map_err(|detail| Violation { invariant, detail, at_us: cluster.now().mono_us })
        };
        named("(e) in-sync logs are prefixes of each other", logs::prefixes(cluster))?;
        named("(g) equal sequence, equal digest", logs::digests(cluster))?;
        named("no alarm of the engine's own", alarms::silent(cluster))
    }
}
