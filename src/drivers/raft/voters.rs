//! The task that brings the voters to what the controller wants.

use super::agreed_log::AgreedLog;
use super::command::{LogTypes, Raft};
use crate::engine::ids::NodeId;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::metrics::WaitError;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;

/// Who shall vote, as said by the leader of a term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DesiredVoters {
    /// A wish does not outlive its term: the next leader decides anew.
    pub(super) term: u64,
    pub(super) voters: BTreeMap<NodeId, SocketAddr>,
}

/// Why the voters are not yet as desired.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Raft(#[from] RaftError<LogTypes, ClientWriteError<LogTypes>>),
    #[error(transparent)]
    Stopped(#[from] Fatal<LogTypes>),
    #[error("not in time: {0}")]
    Waited(#[from] WaitError),
    #[error("no majority in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

/// Makes the latest wish come true, one at a time, and tries again where it fails.
pub(super) async fn follow(log: AgreedLog, mut desired: watch::Receiver<Option<DesiredVoters>>) {
    let retry = Duration::from_millis(log.config().heartbeat_ms * 2);
    let timeout = Duration::from_millis(log.config().membership_ms);
    loop {
        let wish = desired.borrow_and_update().clone();
        let mut settled = true;
        if let Some(wish) = wish {
            let raft = log.seat().raft.clone();
            if leads(&raft, wish.term) {
                // A newer wish interrupts: what is half done is part of what it starts from.
                tokio::select! {
                    result = change(&raft, &wish.voters, timeout) => if let Err(error) = result {
                        tracing::info!(%error, "voters not changed yet");
                        settled = false;
                    },
                    _ = desired.changed() => continue,
                }
            }
        }
        let changed = if settled {
            desired.changed().await
        } else {
            tokio::time::timeout(retry, desired.changed()).await.unwrap_or(Ok(()))
        };
        if changed.is_err() {
            return;
        }
    }
}

fn leads(raft: &Raft, term: u64) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.state.is_leader() && metrics.current_term == term
}

/// Changes the voters to `voters`, and drops everybody else. A leader that is not to vote any more first
/// makes a voter the leader that is, and that one sees it off: openraft lets a leader without a vote commit
/// nothing, and the others wait before they elect another.
async fn change(
    raft: &Raft,
    voters: &BTreeMap<NodeId, SocketAddr>,
    timeout: Duration,
) -> Result<(), ChangeError> {
    let wanted: BTreeSet<NodeId> = voters.keys().copied().collect();
    let metrics = raft.metrics().borrow_watched().clone();
    let membership = metrics.membership_config.membership().clone();
    let known: BTreeSet<NodeId> = membership.nodes().map(|(id, _)| *id).collect();

    let matched = |id: &NodeId| metrics.replication.as_ref().and_then(|matched| *matched.get(id)?);
    let heir = membership.voter_ids().filter(|id| wanted.contains(id)).max_by_key(matched);
    if !wanted.contains(&metrics.id)
        && let Some(heir) = heir
    {
        raft.trigger().transfer_leader(heir).await?;
        raft.wait(Some(timeout))
            .metrics(|metrics| !metrics.state.is_leader(), "the lead is handed over")
            .await?;
        return Ok(());
    }

    let newcomers: BTreeMap<NodeId, SocketAddr> =
        voters.iter().filter(|(id, _)| !known.contains(id)).map(|(id, address)| (*id, *address)).collect();
    if !newcomers.is_empty() {
        submit(raft, ChangeMembers::AddNodes(newcomers), true, timeout).await?;
    }
    // Learners nobody wants any more: newcomers that were given up.
    let strays: BTreeSet<NodeId> = membership.learner_ids().filter(|id| !wanted.contains(id)).collect();
    if !strays.is_empty() {
        submit(raft, ChangeMembers::RemoveNodes(strays), false, timeout).await?;
    }

    let is_joint = membership.get_joint_config().len() > 1;
    let current: BTreeSet<NodeId> = membership.voter_ids().collect();
    if current == wanted && !is_joint {
        return Ok(());
    }
    // Never let somebody vote who could not also help to commit: the change itself would hang.
    let promoted: Vec<NodeId> = wanted.difference(&current).copied().collect();
    caught_up(raft, &promoted, timeout).await?;
    submit(raft, ChangeMembers::ReplaceAllVoters(wanted), false, timeout).await
}

/// Waits until `learners` have all that is in the log now.
async fn caught_up(raft: &Raft, learners: &[NodeId], timeout: Duration) -> Result<(), ChangeError> {
    let last_index = raft.metrics().borrow_watched().last_log_index;
    let reached = |id: &NodeId, matched: &BTreeMap<NodeId, Option<super::command::LogId>>| {
        matched.get(id).is_some_and(|log_id| log_id.map(|log_id| log_id.index) >= last_index)
    };
    raft.wait(Some(timeout))
        .metrics(
            |metrics| match &metrics.replication {
                Some(matched) => learners.iter().all(|id| reached(id, matched)),
                // No longer the leader: let the change find out.
                None => true,
            },
            "newcomers have the log",
        )
        .await?;
    Ok(())
}

async fn submit(
    raft: &Raft,
    change: ChangeMembers<NodeId, SocketAddr>,
    retain: bool,
    timeout: Duration,
) -> Result<(), ChangeError> {
    tokio::time::timeout(timeout, raft.change_membership(change, retain)).await??;
    Ok(())
}
