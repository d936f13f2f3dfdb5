//! Locks with a lease and a fencing token.

use super::options::millis;
use super::{Caller, reply};
use crate::engine::ids::{Epoch, Incarnation, MapId, Sequence};
use crate::engine::resp::Reply;
use crate::engine::store::FencingToken;
use crate::error::Error;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// The shortest and the longest pause between two tries to take a lock.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A lock held, until its lease runs out.
///
/// Dropping it does not unlock: that takes a message. Call [`unlock`](Lock::unlock), or let the
/// lease run out.
#[must_use = "a lock that isn't unlocked stays taken until its lease runs out"]
pub struct Lock<C> {
    caller: C,
    map: MapId,
    key: Vec<u8>,
    /// Drawn at random: tells this holder from all others.
    owner: [u8; 16],
    token: FencingToken,
}

impl<C: Caller> Lock<C> {
    pub(super) async fn acquire(
        caller: C,
        map: MapId,
        key: Vec<u8>,
        lease: Duration,
    ) -> Result<Option<Lock<C>>, Error> {
        let owner: [u8; 16] = rand::random();
        let reply = caller.call(map, &[b"RD.LOCK", &key, &owner, millis(lease).as_bytes()]).await?;
        if reply == Reply::Null {
            return Ok(None);
        }
        let [incarnation, epoch, sequence] = reply::three(reply)?;
        let token = FencingToken {
            incarnation: Incarnation(reply::unsigned(incarnation)?),
            epoch: Epoch(reply::unsigned(epoch)?),
            sequence: Sequence(reply::unsigned(sequence)?),
        };
        Ok(Some(Lock { caller, map, key, owner, token }))
    }

    pub(super) async fn acquire_within(
        caller: C,
        map: MapId,
        key: Vec<u8>,
        lease: Duration,
        wait: Duration,
    ) -> Result<Option<Lock<C>>, Error> {
        let until = Instant::now() + wait;
        let mut pause = PAUSE_MIN;
        loop {
            if let Some(lock) = Lock::acquire(caller.clone(), map, key.clone(), lease).await? {
                return Ok(Some(lock));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Spread, so that those who wait don't come in step.
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0)).min(left)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// The token to show to what the lock protects. A resource that keeps the highest token it has
    /// seen, and refuses lower ones, is safe from a holder that went on after its lease ran out.
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// Holds on for `lease` from now; says whether we still hold it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn extend(&self, lease: Duration) -> Result<bool, Error> {
        let lease_ms = millis(lease);
        let args: [&[u8]; 4] = [b"RD.EXTEND", &self.key, &self.owner, lease_ms.as_bytes()];
        match self.caller.call(self.map, &args).await? {
            Reply::Null => Ok(false),
            reply => reply::flag(reply),
        }
    }

    /// Gives it back; says whether we still held it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn unlock(self) -> Result<bool, Error> {
        match self.caller.call(self.map, &[b"RD.UNLOCK", &self.key, &self.owner]).await? {
            Reply::Null => Ok(false),
            reply => reply::flag(reply),
        }
    }
}

impl<C> fmt::Debug for Lock<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("map", &self.map)
            .field("key", &self.key.escape_ascii().to_string())
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
