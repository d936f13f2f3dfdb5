//! What a write may ask for, and what a map is opened with.

use super::reply;
use super::value::Value;
use crate::engine::resp::Reply;
use crate::engine::table::MapDefaults;
use crate::error::Error;
use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The defaults of a map that is opened for the first time in a cluster. A map that exists keeps
/// the defaults it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapOptions {
    /// Time to live of entries written without one.
    pub ttl: Option<Duration>,
    /// Entries neither read nor written for so long expire.
    pub idle: Option<Duration>,
    /// Bytes the map's entries may take on one node before the least recently used go.
    pub bytes_max: Option<u64>,
}

impl MapOptions {
    /// As the cluster keeps them.
    pub fn defaults(&self) -> MapDefaults {
        let ms = |duration: Option<Duration>| duration.map_or(0, whole_millis);
        MapDefaults { ttl_ms: ms(self.ttl), idle_ms: ms(self.idle), bytes_max: self.bytes_max.unwrap_or(0) }
    }
}

/// How to set a key. Starts as [`Map::set`](super::Map::set) does it.
///
/// ```
/// use ringdove::map::SetOptions;
/// use std::time::Duration;
///
/// let lease = SetOptions::new().ttl(Duration::from_secs(30)).only_if_absent();
/// # let _ = lease;
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    expiry: Expiry,
    condition: Condition,
    return_old: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expiry {
    #[default]
    OfTheMap,
    After(Duration),
    At(SystemTime),
    Keep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Always,
    Absent,
    Present,
}

/// What became of a [`Map::set_with`](super::Map::set_with).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOutcome<V> {
    /// Whether the key was written; false only if a condition did not hold.
    pub written: bool,
    /// What was there before, if it was asked for.
    pub old: Option<V>,
}

/// How long a key will be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToLive {
    /// There is no such key.
    NoEntry,
    /// It has no expiry.
    Forever,
    /// It expires after so long.
    For(Duration),
}

impl SetOptions {
    /// No condition, the map's default time to live.
    pub fn new() -> SetOptions {
        SetOptions::default()
    }

    /// The entry expires after `ttl`, rounded up to milliseconds. Of `ttl`,
    /// [`expire_at`](Self::expire_at) and [`keep_ttl`](Self::keep_ttl) the last one counts.
    pub fn ttl(mut self, ttl: Duration) -> SetOptions {
        self.expiry = Expiry::After(ttl);
        self
    }

    /// The entry expires at a time of the wall clock.
    pub fn expire_at(mut self, at: SystemTime) -> SetOptions {
        self.expiry = Expiry::At(at);
        self
    }

    /// The entry keeps the expiry that the key has.
    pub fn keep_ttl(mut self) -> SetOptions {
        self.expiry = Expiry::Keep;
        self
    }

    /// Write only if there is no entry. Of this and [`only_if_present`](Self::only_if_present) the
    /// last one counts.
    pub fn only_if_absent(mut self) -> SetOptions {
        self.condition = Condition::Absent;
        self
    }

    /// Write only if there is an entry.
    pub fn only_if_present(mut self) -> SetOptions {
        self.condition = Condition::Present;
        self
    }

    /// Give back what was there before.
    pub fn return_old(mut self) -> SetOptions {
        self.return_old = true;
        self
    }

    /// The arguments of `SET` after the value.
    pub(super) fn args(&self) -> Vec<Cow<'static, [u8]>> {
        let mut args: Vec<Cow<'static, [u8]>> = Vec::new();
        match self.expiry {
            Expiry::OfTheMap => {}
            Expiry::After(ttl) => args.extend([Cow::from(&b"PX"[..]), millis(ttl).into_bytes().into()]),
            Expiry::At(at) => args.extend([Cow::from(&b"PXAT"[..]), unix_millis(at).into_bytes().into()]),
            Expiry::Keep => args.push(Cow::from(&b"KEEPTTL"[..])),
        }
        match self.condition {
            Condition::Always => {}
            Condition::Absent => args.push(Cow::from(&b"NX"[..])),
            Condition::Present => args.push(Cow::from(&b"XX"[..])),
        }
        if self.return_old {
            args.push(Cow::from(&b"GET"[..]));
        }
        args
    }

    /// What the reply of `SET` with these options means.
    pub(super) fn outcome<V: Value>(&self, reply: Reply) -> Result<SetOutcome<V>, Error> {
        if !self.return_old {
            let written = reply != Reply::Null;
            if written {
                reply::ok(reply)?;
            }
            return Ok(SetOutcome { written, old: None });
        }
        // With GET the reply is the old value; whether the key was written follows from it.
        let old = reply::value(reply)?;
        let written = match self.condition {
            Condition::Always => true,
            Condition::Absent => old.is_none(),
            Condition::Present => old.is_some(),
        };
        Ok(SetOutcome { written, old })
    }
}

/// A duration in whole milliseconds, rounded up: what should live at all lives a millisecond.
fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// [`whole_millis`], as an argument.
pub(super) fn millis(duration: Duration) -> String {
    whole_millis(duration).to_string()
}

/// Milliseconds since the Unix epoch, as an argument.
pub(super) fn unix_millis(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::Raw;

    fn args(options: SetOptions) -> String {
        let args: Vec<String> =
            options.args().iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
        args.join(" ")
    }

    #[test]
    fn options_become_arguments() {
        assert_eq!(args(SetOptions::new()), "");
        let all = SetOptions::new().ttl(Duration::from_micros(1_500)).only_if_absent().return_old();
        assert_eq!(args(all), "PX 2 NX GET");
        let at = UNIX_EPOCH + Duration::from_secs(5);
        assert_eq!(args(SetOptions::new().keep_ttl().expire_at(at).only_if_present()), "PXAT 5000 XX");
        assert_eq!(args(SetOptions::new().expire_at(at).keep_ttl()), "KEEPTTL");
    }

    #[test]
    fn the_old_value_tells_whether_the_key_was_written() {
        let old = || Reply::Bulk(b"old".to_vec());
        let check = |options: SetOptions, reply: Reply, written: bool, old: Option<&str>| {
            let outcome = options.outcome::<Raw>(reply).unwrap();
            assert_eq!(outcome, SetOutcome { written, old: old.map(Raw::from) });
        };
        check(SetOptions::new(), Reply::Simple("OK".into()), true, None);
        check(SetOptions::new().only_if_absent(), Reply::Null, false, None);
        check(SetOptions::new().return_old(), Reply::Null, true, None);
        check(SetOptions::new().return_old().only_if_absent(), old(), false, Some("old"));
        check(SetOptions::new().return_old().only_if_absent(), Reply::Null, true, None);
        check(SetOptions::new().return_old().only_if_present(), old(), true, Some("old"));
        check(SetOptions::new().return_old().only_if_present(), Reply::Null, false, None);
    }
}
