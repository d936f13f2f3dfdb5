//! Counters: integers kept in decimal digits, as Redis keeps them.

use super::{Caller, reply};
use crate::engine::ids::MapId;
use crate::error::Error;
use std::fmt;

/// A handle to the integer under one key. Clones are cheap and mean the same integer.
#[derive(Clone)]
pub struct Counter<C> {
    caller: C,
    map: MapId,
    key: Vec<u8>,
}

impl<C: Caller> Counter<C> {
    pub(super) fn new(caller: C, map: MapId, key: Vec<u8>) -> Counter<C> {
        Counter { caller, map, key }
    }

    /// Adds to it (it counts as 0 if there is none) and gives the sum.
    ///
    /// # Errors
    /// [`Error::Command`] if what is stored isn't an integer, or the sum overflows.
    pub async fn add(&self, by: i64) -> Result<i64, Error> {
        let by = by.to_string();
        reply::integer(self.caller.call(self.map, &[b"INCRBY", &self.key, by.as_bytes()]).await?)
    }

    /// What it stands at; 0 if there is none.
    ///
    /// # Errors
    /// [`Error::Decode`] if what is stored isn't an integer.
    pub async fn get(&self) -> Result<i64, Error> {
        let stored = reply::bytes(self.caller.call(self.map, &[b"GET", &self.key]).await?)?;
        let Some(digits) = stored else { return Ok(0) };
        let integer = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
        integer.ok_or_else(|| Error::Decode("not an integer".to_owned()))
    }

    /// Sets it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set(&self, to: i64) -> Result<(), Error> {
        let to = to.to_string();
        reply::ok(self.caller.call(self.map, &[b"SET", &self.key, to.as_bytes()]).await?)
    }
}

impl<C> fmt::Debug for Counter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counter({}, {})", self.map, self.key.escape_ascii())
    }
}
