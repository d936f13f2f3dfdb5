//! (h) Fencing tokens only grow, and nobody gets a lock that another still holds.

use crate::engine::ids::{Incarnation, NodeId};
use std::collections::BTreeMap;

/// A fencing token: incarnation, epoch, sequence.
pub(super) type Token = [u64; 3];

/// A lock's history.
#[derive(Debug, Default)]
struct Lock {
    latest: Token,
    owners: BTreeMap<Token, String>,
    /// Who holds it for certain, and until when.
    held: Option<(String, Token, u64)>,
}

/// All locks.
#[derive(Debug, Default)]
pub(super) struct Locks {
    locks: BTreeMap<String, Lock>,
}

impl Locks {
    /// The latest token known to have been given, in incarnations up to this one, when a lock is asked for.
    pub(super) fn latest(&self, key: &str, incarnation: Incarnation) -> Token {
        let given = self.locks.get(key).map(|lock| lock.owners.range(..=[incarnation.0, u64::MAX, u64::MAX]));
        given.and_then(|mut given| given.next_back()).map_or([0; 3], |(token, _)| *token)
    }

    #[allow(clippy::too_many_arguments)] // Each is a different fact of one grant.
    /// A lock was granted; `latest` is what was known when it was asked for. Where the cluster `splits`,
    /// the tokens tell who of two incarnations' holders counts.
    pub(super) fn granted(
        &mut self,
        key: &str,
        owner: &str,
        token: Token,
        latest: Token,
        now_ms: u64,
        certain_until_ms: u64,
        by: NodeId,
        splits: bool,
    ) -> Result<(), String> {
        let lock = self.locks.entry(key.to_owned()).or_default();
        if token <= latest {
            return Err(format!(
                "{key}: {owner} got token {token:?} by {by} after {latest:?} had been given"
            ));
        }
        if let Some(other) = lock.owners.insert(token, owner.to_owned()) {
            return Err(format!("{key}: {owner} and {other} got the same token {token:?}"));
        }
        // Answers may come late: tokens tell who came first.
        if let Some((other, theirs, until_ms)) = &lock.held
            && *theirs < token
            && !(splits && theirs[0] != token[0])
            && now_ms < *until_ms
        {
            return Err(format!(
                "{key}: {owner} got it by {by} at {now_ms} while {other} holds it until {until_ms}"
            ));
        }
        if token > lock.latest {
            lock.latest = token;
            lock.held = Some((owner.to_owned(), token, certain_until_ms));
        }
        Ok(())
    }

    /// A holder asks to release it: from now on it may be free.
    pub(super) fn releasing(&mut self, key: &str, owner: &str) {
        if let Some(lock) = self.locks.get_mut(key)
            && lock.held.as_ref().is_some_and(|(holder, ..)| holder == owner)
        {
            lock.held = None;
        }
    }
}
