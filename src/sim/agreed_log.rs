//! The agreed log as a service: what openraft does for production nodes, reduced to its promises.
//!
//! One voter leads a term; an entry commits after a delay if its proposer still leads and a majority
//! answers; an entry proposed just before its leader was lost may commit under the next one. A leader
//! that is dead, paused or cut off is replaced after an election timeout, and learns of it when it is
//! reached again. Voters apply entries late, or several at once. Commits may be slow, come twice, or
//! not come at all for a while.

use super::cluster::{Cluster, Event};
use super::counts::counts;
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::table::{Table, TableChange, TableEntry};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the agreed log behaves; may be changed at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// A commit takes up to so much longer than the network needs.
    pub slow_us_max: u64,
    /// Entries committed twice, per million.
    pub duplicate_per_million: u32,
    /// Nothing commits and nobody is elected until then.
    pub unavailable_until_us: u64,
}

counts! {
    /// What was committed, for the summary of a run.
    pub struct Committed {
        /// Successors appointed for dead primaries.
        pub failovers: u64,
        /// Primaries handed over.
        pub handovers: u64,
        /// Handovers withdrawn.
        pub withdrawn: u64,
        /// Copies completed.
        pub completed: u64,
        /// Copies taken out because they could not keep up.
        pub lagging: u64,
        /// Incarnations begun by a survivor.
        pub takeovers: u64,
        /// Leaders elected.
        pub elections: u64,
    }
}

const ELECTION_US_MIN: u64 = 1_200_000;
const ELECTION_US_MAX: u64 = 2_400_000;

/// The agreed log of one incarnation.
#[derive(Debug)]
pub struct AgreedLog {
    /// What all committed entries amount to.
    pub table: Arc<Table>,
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// Grows with each election.
    pub term: u64,
    /// When the next leader is elected if this one stays lost.
    election_us: Option<u64>,
    /// No entry proposed later commits before this.
    commits_until_us: u64,
    /// The term of the latest entry committed.
    committed_term: u64,
    /// A leader that is to be replaced though it lives.
    deposed: Option<NodeId>,
    /// What nodes were last told of the leader.
    told: BTreeMap<NodeId, (u64, Option<NodeId>)>,
    /// The newest table sent to each voter.
    sent: BTreeMap<NodeId, Arc<Table>>,
}

impl AgreedLog {
    fn of_one(node: NodeId, table: Arc<Table>) -> AgreedLog {
        AgreedLog {
            table,
            voters: vec![node],
            leader: Some(node),
            term: 1,
            election_us: None,
            commits_until_us: 0,
            committed_term: 0,
            deposed: None,
            told: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// The leader loses its office; another voter is elected at once, if any can be.
    fn depose(&mut self, now_us: u64) {
        self.deposed = self.leader;
        self.election_us = Some(now_us);
    }
}

impl Cluster {
    /// The log of the latest incarnation.
    pub fn latest_log(&self) -> Option<&AgreedLog> {
        self.logs.values().next_back()
    }

    /// The table that the latest incarnation has agreed on.
    pub fn agreed(&self) -> Option<&Arc<Table>> {
        self.latest_log().map(|log| &log.table)
    }

    /// Whether so many voters of an incarnation answer `node` that it can commit.
    pub(super) fn has_majority(&self, incarnation: Incarnation, node: NodeId) -> bool {
        let Some(log) = self.logs.get(&incarnation) else { return false };
        let near = log.voters.iter().filter(|&&voter| self.converse(node, voter)).count();
        near * 2 > log.voters.len()
    }

    pub(super) fn form_log(&mut self, node: NodeId, table: Table) {
        self.committed.takeovers += u64::from(!self.logs.is_empty());
        self.logs.insert(table.incarnation, AgreedLog::of_one(node, Arc::new(table)));
        self.serve_logs();
    }

    /// A node that joined a later incarnation no longer votes in an earlier one.
    pub(super) fn leave_logs(&mut self, node: NodeId, incarnation: Incarnation) {
        for (_, log) in self.logs.range_mut(..incarnation) {
            log.voters.retain(|&voter| voter != node);
            if log.leader == Some(node) {
                log.leader = None;
            }
        }
    }

    pub(super) fn propose(&mut self, node: NodeId, entry: TableEntry) {
        let incarnation = self.engine(node).table().incarnation;
        let Some(log) = self.logs.get(&incarnation) else { return };
        let (term, now_us) = (log.term, self.now().mono_us);
        if log.leader == Some(node) && self.has_majority(incarnation, node) {
            let slow_us = self.log_config.slow_us_max.max(10_000);
            let outage_us = self.log_config.unavailable_until_us.saturating_sub(self.now().mono_us);
            let copies = 1 + usize::from(self.random.per_million(self.log_config.duplicate_per_million));
            let delay = outage_us + 2 * self.network.delay_us(&mut self.random) + self.random.below(slow_us);
            // In the order of their proposals.
            let at_us = self.logs.get_mut(&incarnation).map_or(0, |log| {
                log.commits_until_us = log.commits_until_us.max(now_us + delay);
                log.commits_until_us
            });
            for _ in 0..copies {
                self.after(at_us - now_us, Event::Commit(incarnation, term, entry.clone()));
            }
        }
    }

    pub(super) fn commit(&mut self, incarnation: Incarnation, term: u64, entry: &TableEntry) {
        let outage_us = self.log_config.unavailable_until_us.saturating_sub(self.now().mono_us);
        if outage_us > 0 {
            self.after(outage_us, Event::Commit(incarnation, term, entry.clone()));
            return;
        }
        let Some(log) = self.logs.get(&incarnation) else { return };
        let led = log.term == term && log.leader.is_some_and(|leader| self.has_majority(incarnation, leader));
        // A new leader may or may not have got the entry from the one that was lost; if so, it comes
        // before the new leader's own.
        let inherited = log.term > term && log.committed_term <= term && self.random.per_million(500_000);
        if !led && !inherited {
            return;
        }
        let Some(log) = self.logs.get_mut(&incarnation) else { return };
        let mut table = (*log.table).clone();
        let applied = table.apply(entry);
        tracing::debug!(version = %applied.version, ?entry, skipped = applied.skipped, "committed");
        log.table = Arc::new(table);
        log.committed_term = log.committed_term.max(term);
        self.count(entry);
        self.serve_logs();
    }

    fn count(&mut self, entry: &TableEntry) {
        for change in entry {
            match change {
                TableChange::Failover { .. } => self.committed.failovers += 1,
                TableChange::Handover { .. } => self.committed.handovers += 1,
                TableChange::CancelHandover { .. } => self.committed.withdrawn += 1,
                TableChange::Complete { .. } => self.committed.completed += 1,
                TableChange::RemoveLagging { .. } => self.committed.lagging += 1,
                _ => {}
            }
        }
    }

    /// The leader loses its office, for no fault of its own; another voter is elected soon.
    pub fn depose_leader(&mut self) {
        let now_us = self.now().mono_us;
        if let Some(log) = self.logs.values_mut().next_back() {
            log.depose(now_us);
        }
    }

    pub(super) fn set_voters(&mut self, node: NodeId, voters: Vec<NodeId>) {
        let incarnation = self.engine(node).table().incarnation;
        // By joint consensus: most of those before agree, and most of those after, and who is new among them
        // has to catch up first.
        let before = self.logs.get(&incarnation).map(|log| log.voters.clone()).unwrap_or_default();
        let near = voters.iter().filter(|&&voter| self.converse(node, voter)).count();
        let arrived = voters.iter().all(|&voter| before.contains(&voter) || self.converse(node, voter));
        let may = self.has_majority(incarnation, node) && near * 2 > voters.len() && arrived;
        let now_us = self.now().mono_us;
        let heirs = voters.iter().any(|&voter| before.contains(&voter) && self.converse(node, voter));
        if let Some(log) = self.logs.get_mut(&incarnation)
            && log.leader == Some(node)
            && may
            && log.voters != voters
        {
            if !voters.contains(&node) && heirs {
                // It hands the lead over first, and the next leader sees it off.
                log.depose(now_us);
                self.serve_logs();
                return;
            }
            tracing::debug!(?voters, "voters");
            log.voters = voters;
            if !log.voters.contains(&node) {
                log.leader = None;
            }
            // All hear of it, those that no longer vote as well.
            log.told.values_mut().for_each(|told| *told = (0, None));
            self.serve_logs();
        }
    }

    /// Elects where a leader is lost, and brings voters up to date. Called often.
    pub(super) fn serve_logs(&mut self) {
        let incarnations: Vec<Incarnation> = self.logs.keys().copied().collect();
        for incarnation in incarnations {
            self.elect(incarnation);
            self.follow_leader(incarnation);
        }
    }

    fn elect(&mut self, incarnation: Incarnation) {
        let Some(log) = self.logs.get(&incarnation) else { return };
        let led = log.leader.is_some_and(|leader| {
            log.deposed != Some(leader) && self.runs(leader) && self.has_majority(incarnation, leader)
        });
        let deposed = log.deposed;
        let (due_us, voters) = (log.election_us, log.voters.clone());
        let next_us = if led {
            None
        } else if due_us.is_none() {
            Some(self.now().mono_us + self.random.between(ELECTION_US_MIN, ELECTION_US_MAX))
        } else {
            due_us
        };
        let mut elected = None;
        let available = self.now().mono_us >= self.log_config.unavailable_until_us;
        if available && next_us.is_some_and(|at_us| self.now().mono_us >= at_us) {
            let able: Vec<NodeId> = voters
                .into_iter()
                .filter(|&voter| self.runs(voter) && self.has_majority(incarnation, voter))
                .collect();
            let others: Vec<NodeId> = able.iter().copied().filter(|&node| Some(node) != deposed).collect();
            elected = self.random.pick(if others.is_empty() { &able } else { &others });
        }
        let Some(log) = self.logs.get_mut(&incarnation) else { return };
        log.election_us = next_us;
        if elected.is_some() {
            log.election_us = None;
            log.deposed = None;
            log.leader = elected;
            log.term += 1;
            tracing::debug!(leader = ?elected, term = log.term, "elected");
            self.committed.elections += 1;
        }
    }

    fn follow_leader(&mut self, incarnation: Incarnation) {
        let Some(log) = self.logs.get(&incarnation) else { return };
        let (news, table) = ((log.term, log.leader), log.table.clone());
        let Some(leader) = log.leader.filter(|&leader| self.runs(leader)) else { return };
        let told: Vec<NodeId> = log.told.keys().chain(&log.voters).copied().collect();
        let voters = log.voters.clone();
        for node in told {
            let known = self.logs.get(&incarnation).and_then(|log| log.told.get(&node));
            if known != Some(&news) && self.converse(leader, node) {
                let delay = self.network.delay_us(&mut self.random);
                self.after(delay, Event::Lead(incarnation, node, news.0, news.1));
                self.logs.get_mut(&incarnation).map(|log| log.told.insert(node, news));
            }
        }
        for node in voters {
            let sent = self.logs.get(&incarnation).and_then(|log| log.sent.get(&node));
            if sent.is_none_or(|sent| sent.version < table.version) && self.converse(leader, node) {
                let delay = self.network.delay_us(&mut self.random);
                self.after(delay, Event::Applied(node, table.clone()));
                self.logs.get_mut(&incarnation).map(|log| log.sent.insert(node, table.clone()));
            }
        }
    }
}
