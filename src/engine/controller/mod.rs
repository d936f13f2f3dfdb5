//! The controller: what the leader of the agreed log decides.
//!
//! Any member may come to lead, so a controller keeps nothing that the table doesn't say, except
//! what it observes for itself: gossip's opinions, its own links, and answers to its orders.
//! Inputs are calls with the time; outputs are drained with [`Controller::poll`].
//!
//! Call order: [`Controller::link`], [`Controller::member_heard`] and [`Controller::set_voters`] at any
//! time, leading or not; [`Controller::lead`] on becoming leader; then everything else;
//! [`Controller::tick`] at the time that [`Controller::next_wake`] names. After each call, drain
//! [`Controller::poll`].

mod asking;
mod draft;
mod failover;
mod goal;
mod handover;
mod leading;
mod message;
mod observed;
mod pace;
mod reconcile;
mod requests;
mod salvage;
#[cfg(test)]
mod tests;
mod voters;

pub use message::{Held, Order, Report, Sealed, SealedPartition, Taken};
pub use voters::{may_take_over, voters};

use super::ids::{NodeId, PartitionId};
use super::mutants::Mutation;
use super::table::{Member, Table, TableEntry};
use super::time::Now;
use leading::Leading;
use observed::Observed;
use std::collections::VecDeque;
use std::sync::Arc;

/// The controller's bounds and patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerConfig {
    /// The node this controller runs on.
    pub me: NodeId,
    /// Copies that one node may be receiving at once for balance. Missing copies don't count.
    pub migrations_per_node_max: usize,
    /// Of so many partitions one copy begins to move for balance, and one handover, every `moves_every_ms`.
    pub moves_share: usize,
    /// See `moves_share`.
    pub moves_every_ms: u64,
    /// Handovers under way in the whole cluster.
    pub handovers_max: usize,
    /// Events are gathered for so long before an entry is proposed.
    pub coalesce_ms: u64,
    /// The same for events that clients wait for: handovers that began together are agreed together.
    pub urgent_ms: u64,
    /// How long to wait for every live survivor's promise before going on with those that came.
    pub seal_timeout_ms: u64,
    /// An order without a visible result is sent again after this.
    pub resend_ms: u64,
    /// A proposal that doesn't show in the table is made again after this.
    pub propose_timeout_ms: u64,
    /// A handover that doesn't come about makes room for others after this.
    pub handover_timeout_ms: u64,
    /// A copy that lagged is not attached to its partition again for this long, if anybody else
    /// can have it.
    pub lagging_pause_ms: u64,
    /// A member without a link that gossip has no opinion of counts as down after this.
    pub unheard_down_ms: u64,
    /// A `Down` member is forgotten after this.
    pub forget_down_ms: u64,
    /// A bug put in on purpose; none without the feature `mutants`.
    pub mutation: Mutation,
}

impl ControllerConfig {
    /// The usual bounds, for the controller on node `me`.
    pub fn new(me: NodeId) -> ControllerConfig {
        ControllerConfig {
            me,
            migrations_per_node_max: 32,
            moves_share: 64,
            moves_every_ms: 100,
            handovers_max: 32,
            coalesce_ms: 20,
            urgent_ms: 4,
            seal_timeout_ms: 2_500,
            resend_ms: 500,
            propose_timeout_ms: 2_000,
            handover_timeout_ms: 10_000,
            lagging_pause_ms: 10_000,
            unheard_down_ms: 15_000,
            forget_down_ms: 3_600_000,
            mutation: Mutation::default(),
        }
    }
}

/// What the controller wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControllerOutput {
    /// Propose this entry to the agreed log.
    Propose(TableEntry),
    /// Send this order to a member (perhaps this very node).
    Send {
        /// Who is to act.
        to: NodeId,
        /// What to do.
        order: Order,
    },
}

/// Where healing and balancing stand, for status pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerStatus {
    /// Partitions without a live complete copy: only an operator can let them go.
    pub dead: Vec<PartitionId>,
    /// Partitions with fewer live complete copies than wanted.
    pub under_replicated: Vec<PartitionId>,
    /// Copies that are attached and being filled.
    pub learners: usize,
    /// Copies that placement wants elsewhere and that are not attached yet.
    pub migrations_wanted: usize,
    /// Partitions whose primary is to move.
    pub handovers_wanted: usize,
    /// Copies that placement wants gone.
    pub surplus: usize,
}

/// The decisions of the agreed log's leader.
#[derive(Debug)]
pub struct Controller {
    config: ControllerConfig,
    observed: Observed,
    leading: Option<Leading>,
    outputs: VecDeque<ControllerOutput>,
}

impl Controller {
    /// A controller that doesn't lead.
    pub fn new(config: ControllerConfig) -> Controller {
        let observed = Observed::default();
        Controller { config, observed, leading: None, outputs: VecDeque::new() }
    }

    /// This node leads the agreed log now; `table` is what it has applied.
    ///
    /// Called again for a new term, it starts over: everything follows from the table.
    pub fn lead(&mut self, now: Now, table: Arc<Table>) {
        self.outputs.clear();
        self.observed.retain(|node| table.members.contains_key(&node));
        let mut leading = Leading::new(now, table);
        leading.wake(now, self.config.coalesce_ms);
        self.leading = Some(leading);
        self.turn(now);
    }

    /// This node no longer leads. What was to be done is dropped.
    pub fn resign(&mut self) {
        self.leading = None;
        self.outputs.clear();
    }

    /// Whether this node leads.
    pub fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// An entry was committed and applied. A table that is not newer is ignored.
    pub fn table_applied(&mut self, now: Now, table: Arc<Table>) {
        if let Some(leading) = &mut self.leading {
            leading.table_applied(now, &self.config, table);
        }
        self.turn(now);
    }

    /// Gossip's opinion of a member changed.
    pub fn member_heard(&mut self, now: Now, node: NodeId, alive: bool) {
        self.observed.member_heard(node, alive);
        self.observe(now, node);
    }

    /// This node's own link to a member came up or was lost.
    pub fn link(&mut self, now: Now, node: NodeId, live: bool) {
        self.observed.link(now, node, live);
        self.observe(now, node);
    }

    /// Who votes in the agreed log, as this node's part of it knows.
    pub fn voters(&self) -> &[NodeId] {
        self.observed.voters()
    }

    /// Others vote in the agreed log now, or the same.
    pub fn set_voters(&mut self, now: Now, voters: Vec<NodeId>) {
        if voters == self.voters() {
            return;
        }
        self.observed.set_voters(voters);
        if let Some(leading) = &mut self.leading {
            leading.observed(now, &self.config);
        }
        self.turn(now);
    }

    fn observe(&mut self, now: Now, node: NodeId) {
        if let Some(leading) = &mut self.leading
            && leading.is_concerned(node)
        {
            leading.observed(now, &self.config);
        }
        self.turn(now);
    }

    /// A node asks to be a member; it repeats that until it sees itself in the table.
    pub fn join(&mut self, now: Now, member: Member) {
        if let Some(leading) = &mut self.leading {
            leading.join(now, &self.config, member);
        }
        self.turn(now);
    }

    /// A member reports.
    pub fn report(&mut self, now: Now, from: NodeId, report: Report) {
        if let Some(leading) = &mut self.leading {
            leading.report(now, &self.config, from, report);
        }
        self.turn(now);
    }

    /// A member answers [`Order::Seal`].
    pub fn sealed(&mut self, now: Now, from: NodeId, sealed: Sealed) {
        if let Some(leading) = &mut self.leading {
            leading.sealed(now, &self.config, from, &sealed);
        }
        self.turn(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.turn(now);
    }

    fn turn(&mut self, now: Now) {
        if let Some(leading) = &mut self.leading {
            leading.turn(now, &self.config, &self.observed, &mut self.outputs);
        }
    }

    /// When to call [`Controller::tick`] next, in microseconds of the boot-time clock.
    pub fn next_wake(&self) -> Option<u64> {
        self.leading.as_ref().and_then(Leading::next_wake)
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<ControllerOutput> {
        self.outputs.pop_front()
    }

    /// Where healing and balancing stand; empty while not leading.
    pub fn status(&self) -> ControllerStatus {
        self.leading.as_ref().map(|leading| leading.status().clone()).unwrap_or_default()
    }
}
