//! Maps: one typed interface to the cluster, for the QUIC client and the embedded node alike.
//!
//! A [`Map`] turns typed keys and values into bytes and calls into commands, and hands them to a
//! [`Caller`]. Keys are kept readable ([`Key`]): what a program writes under `"user:1"` in the
//! unnamed map, `redis-cli` finds under `user:1`. Values are postcard, or as they are ([`Raw`],
//! [`Text`]).
//!
//! The tour: `key` and `value` are the encodings, `options` what a write may ask for, `counter`,
//! `lock` and `scan` the operations with a handle of their own, `reply` takes replies apart.

mod counter;
mod key;
mod lock;
mod options;
mod reply;
mod scan;
#[cfg(test)]
mod tests;
mod value;

pub use crate::engine::store::FencingToken;
pub use counter::Counter;
pub use key::{Coded, Key};
pub use lock::Lock;
pub use options::{MapOptions, SetOptions, SetOutcome, TimeToLive};
pub use scan::Scan;
pub use value::{Raw, Text, Value};

use crate::engine::ids::{MapId, Version};
use crate::engine::resp::Reply;
use crate::error::Error;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use options::millis;
use std::borrow::{Borrow, Cow};
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, SystemTime};

/// Single-key operations that [`Map::set_many`] and [`Map::delete_many`] have under way at once.
const CONCURRENT_MAX: usize = 256;

/// Whoever can run a command: a [`Client`](crate::client::Client), or a node in this process.
pub trait Caller: Clone + Send + Sync {
    /// Runs a command, its name first, on a map. An error reply is an `Err`, never an
    /// [`Ok(Reply::Error)`](Reply::Error).
    fn call(&self, map: MapId, args: &[&[u8]]) -> impl Future<Output = Result<Reply, Error>> + Send;
}

/// Takes keys, gives values.
type Types<K, V> = (fn(&K), fn() -> V);

/// A map (namespace) of the cluster, with keys of type `K` and values of type `V`.
///
/// Clones are cheap. Every operation is one command and atomic; those on many keys are atomic for
/// each key. Errors of writes say whether they were done: [`Error::write_outcome`].
pub struct Map<K: ?Sized, V, C> {
    caller: C,
    id: MapId,
    types: PhantomData<Types<K, V>>,
}

/// A value with its version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versioned<V> {
    /// The value.
    pub value: V,
    /// Its version: any write of the key changes it.
    pub version: Version,
}

/// What [`Map::get_or_insert`] found or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inserted<V> {
    /// The value under the key now.
    pub value: V,
    /// Its version.
    pub version: Version,
    /// Whether this call put it there.
    pub inserted: bool,
}

impl<K: Key + ?Sized, V: Value, C: Caller> Map<K, V, C> {
    /// The map with this number, as seen through `caller`.
    pub fn new(caller: C, id: MapId) -> Map<K, V, C> {
        Map { caller, id, types: PhantomData }
    }

    /// The map's number; 0 is the unnamed map.
    pub fn id(&self) -> MapId {
        self.id
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Decode`] if what is stored isn't a `V`; else any [`Error`].
    pub async fn get<Q: Key + ?Sized>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::value(self.call(&[b"GET", &key]).await?)
    }

    /// The value of a key, read without trust in any clock: every copy that takes part in writes
    /// confirms the primary before it answers. As current as [`get`](Self::get), which relies on clocks
    /// running at about the same rate for its leases; this takes one round trip more.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_fenced<Q: Key + ?Sized>(&self, key: &Q) -> Result<Option<V>, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::value(self.call(&[b"RD.GETFENCED", &key]).await?)
    }

    /// The value of a key with its version.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_versioned<Q: Key + ?Sized>(&self, key: &Q) -> Result<Option<Versioned<V>>, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        match reply::pair(self.call(&[b"RD.GETV", &key]).await?)? {
            None => Ok(None),
            Some((value, version)) => {
                Ok(Some(Versioned { value: reply::present(value)?, version: reply::version(version)? }))
            }
        }
    }

    /// The values of several keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many<'q, Q>(
        &self,
        keys: impl IntoIterator<Item = &'q Q>,
    ) -> Result<Vec<Option<V>>, Error>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized + 'q,
    {
        let keys: Vec<Cow<'q, [u8]>> = keys.into_iter().map(Key::to_bytes).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut args: Vec<&[u8]> = Vec::with_capacity(keys.len() + 1);
        args.push(b"MGET");
        args.extend(keys.iter().map(|key| &**key));
        let values = reply::array(self.call(&args).await?)?;
        if values.len() != keys.len() {
            return Err(Error::UnexpectedReply(format!("{} values for {} keys", values.len(), keys.len())));
        }
        values.into_iter().map(reply::value).collect()
    }

    /// Whether the key exists.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn contains<Q: Key + ?Sized>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::flag(self.call(&[b"EXISTS", &key]).await?)
    }

    /// Sets a key, whatever was there. The entry gets the map's default time to live, if there is
    /// one.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn set<Q: Key + ?Sized>(&self, key: &Q, value: &V) -> Result<(), Error>
    where
        K: Borrow<Q>,
    {
        let (key, value) = (key.to_bytes()?, value.to_bytes()?);
        reply::ok(self.call(&[b"SET", &key, &value]).await?)
    }

    /// Sets a key as `options` say, and says whether it was written and, if asked, what was there
    /// before.
    ///
    /// # Errors
    /// [`Error::Decode`] if the old value isn't a `V`: the write was done. Else any [`Error`].
    pub async fn set_with<Q: Key + ?Sized>(
        &self,
        key: &Q,
        value: &V,
        options: SetOptions,
    ) -> Result<SetOutcome<V>, Error>
    where
        K: Borrow<Q>,
    {
        let (key, value) = (key.to_bytes()?, value.to_bytes()?);
        let rest = options.args();
        let mut args: Vec<&[u8]> = vec![b"SET", &key, &value];
        args.extend(rest.iter().map(|arg| &**arg));
        options.outcome(self.call(&args).await?)
    }

    /// Sets several keys, each as [`set_with`](Self::set_with) does; says how many were written.
    /// They are written at the same time and not as one: after an error some may have been.
    ///
    /// # Errors
    /// The first [`Error`] of any.
    pub async fn set_many<'q, Q>(
        &self,
        entries: impl IntoIterator<Item = (&'q Q, &'q V)>,
        options: SetOptions,
    ) -> Result<u64, Error>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized + 'q,
        V: 'q,
    {
        let mut entries = entries.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut written = 0;
        loop {
            while under_way.len() < CONCURRENT_MAX
                && let Some((key, value)) = entries.next()
            {
                under_way.push(self.set_with(key, value, options));
            }
            match under_way.next().await {
                Some(outcome) => written += u64::from(outcome?.written),
                None => return Ok(written),
            }
        }
    }

    /// Deletes a key; says whether it was there.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn delete<Q: Key + ?Sized>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::flag(self.call(&[b"DEL", &key]).await?)
    }

    /// Deletes several keys, not as one; says how many were there.
    ///
    /// # Errors
    /// The first [`Error`] of any; some may have been deleted.
    pub async fn delete_many<'q, Q>(&self, keys: impl IntoIterator<Item = &'q Q>) -> Result<u64, Error>
    where
        K: Borrow<Q>,
        Q: Key + ?Sized + 'q,
    {
        let mut keys = keys.into_iter();
        let mut under_way = FuturesUnordered::new();
        let mut deleted = 0;
        loop {
            while under_way.len() < CONCURRENT_MAX
                && let Some(key) = keys.next()
            {
                under_way.push(self.delete(key));
            }
            match under_way.next().await {
                Some(existed) => deleted += u64::from(existed?),
                None => return Ok(deleted),
            }
        }
    }

    /// Writes a key if its version is still the expected one; `None` expects no entry. The new
    /// version, or `None` if it was another.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn compare_and_swap<Q: Key + ?Sized>(
        &self,
        key: &Q,
        expected: Option<Version>,
        value: &V,
        ttl: Option<Duration>,
    ) -> Result<Option<Version>, Error>
    where
        K: Borrow<Q>,
    {
        let (key, value) = (key.to_bytes()?, value.to_bytes()?);
        let expected = expected.map_or(0, |version| version.0).to_string();
        let ttl_ms = ttl.map(millis);
        let mut args: Vec<&[u8]> = vec![b"RD.CAS", &key, expected.as_bytes(), &value];
        if let Some(ttl_ms) = &ttl_ms {
            args.extend([&b"PX"[..], ttl_ms.as_bytes()]);
        }
        match self.call(&args).await? {
            Reply::Null => Ok(None),
            version => reply::version(version).map(Some),
        }
    }

    /// The value of a key, which is set to `value` first if there is none.
    ///
    /// # Errors
    /// [`Error::Decode`] if what is stored isn't a `V`; else any [`Error`].
    pub async fn get_or_insert<Q: Key + ?Sized>(&self, key: &Q, value: &V) -> Result<Inserted<V>, Error>
    where
        K: Borrow<Q>,
    {
        self.insert_if_absent(key, value, None).await
    }

    /// As [`get_or_insert`](Self::get_or_insert), with a time to live for what is inserted.
    ///
    /// # Errors
    /// As there.
    pub async fn get_or_insert_with_ttl<Q: Key + ?Sized>(
        &self,
        key: &Q,
        value: &V,
        ttl: Duration,
    ) -> Result<Inserted<V>, Error>
    where
        K: Borrow<Q>,
    {
        self.insert_if_absent(key, value, Some(ttl)).await
    }

    async fn insert_if_absent<Q: Key + ?Sized>(
        &self,
        key: &Q,
        value: &V,
        ttl: Option<Duration>,
    ) -> Result<Inserted<V>, Error>
    where
        K: Borrow<Q>,
    {
        let (key, value) = (key.to_bytes()?, value.to_bytes()?);
        let ttl_ms = ttl.map(millis);
        let mut args: Vec<&[u8]> = vec![b"RD.GETSETNX", &key, &value];
        if let Some(ttl_ms) = &ttl_ms {
            args.extend([&b"PX"[..], ttl_ms.as_bytes()]);
        }
        let [value, version, inserted] = reply::three(self.call(&args).await?)?;
        Ok(Inserted {
            value: reply::present(value)?,
            version: reply::version(version)?,
            inserted: reply::flag(inserted)?,
        })
    }

    /// Adds to the integer under a key, which counts as 0 if there is none; gives the sum. The
    /// integer is kept in decimal digits, as Redis does, and is read with [`Counter::get`] (or with
    /// `get` by a map of [`Text`] or [`Raw`]).
    ///
    /// # Errors
    /// [`Error::Command`] if what is stored isn't an integer, or the sum overflows.
    pub async fn increment<Q: Key + ?Sized>(&self, key: &Q, by: i64) -> Result<i64, Error>
    where
        K: Borrow<Q>,
    {
        self.counter(key)?.add(by).await
    }

    /// A handle to the integer under a key.
    ///
    /// # Errors
    /// [`Error::Encode`] if the key can't be encoded.
    pub fn counter<Q: Key + ?Sized>(&self, key: &Q) -> Result<Counter<C>, Error>
    where
        K: Borrow<Q>,
    {
        Ok(Counter::new(self.caller.clone(), self.id, key.to_bytes()?.into_owned()))
    }

    /// Lets a key expire after `ttl`; says whether it was there.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn expire<Q: Key + ?Sized>(&self, key: &Q, ttl: Duration) -> Result<bool, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::flag(self.call(&[b"PEXPIRE", &key, millis(ttl).as_bytes()]).await?)
    }

    /// Lets a key expire at a time of the wall clock; says whether it was there.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn expire_at<Q: Key + ?Sized>(&self, key: &Q, at: SystemTime) -> Result<bool, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::flag(self.call(&[b"PEXPIREAT", &key, options::unix_millis(at).as_bytes()]).await?)
    }

    /// How long a key will be there.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn ttl<Q: Key + ?Sized>(&self, key: &Q) -> Result<TimeToLive, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        match reply::integer(self.call(&[b"PTTL", &key]).await?)? {
            -2 => Ok(TimeToLive::NoEntry),
            -1 => Ok(TimeToLive::Forever),
            ms => match u64::try_from(ms) {
                Ok(ms) => Ok(TimeToLive::For(Duration::from_millis(ms))),
                Err(_) => Err(Error::UnexpectedReply(format!("{ms} ms to live"))),
            },
        }
    }

    /// Takes a key's expiry away; says whether it had one.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn persist<Q: Key + ?Sized>(&self, key: &Q) -> Result<bool, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?;
        reply::flag(self.call(&[b"PERSIST", &key]).await?)
    }

    /// How many keys the map has.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn len(&self) -> Result<u64, Error> {
        let count = reply::integer(self.call(&[b"DBSIZE"]).await?)?;
        u64::try_from(count).map_err(|_| Error::UnexpectedReply(format!("{count} keys")))
    }

    /// Whether the map has no key.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn is_empty(&self) -> Result<bool, Error> {
        Ok(self.len().await? == 0)
    }

    /// Deletes all keys of the map, partition by partition.
    ///
    /// # Errors
    /// Any [`Error`]; some partitions may have been cleared.
    pub async fn clear(&self) -> Result<(), Error> {
        reply::ok(self.call(&[b"FLUSHDB"]).await?)
    }

    /// The keys, page by page. What is there from beginning to end is seen at least once; what
    /// comes or goes meanwhile, perhaps.
    pub fn scan(&self) -> Scan<K, C> {
        Scan::new(self.caller.clone(), self.id)
    }

    /// Takes the lock of this name if it is free, for `lease`. A lock takes up its key: an
    /// entry and a lock can't share one.
    ///
    /// # Errors
    /// [`Error::WrongType`] if the key holds an entry; else any [`Error`].
    pub async fn try_lock<Q: Key + ?Sized>(&self, key: &Q, lease: Duration) -> Result<Option<Lock<C>>, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?.into_owned();
        Lock::acquire(self.caller.clone(), self.id, key, lease).await
    }

    /// Takes the lock of this name, for `lease`; tries for as long as `wait`. `None` if somebody
    /// else holds it all the time.
    ///
    /// # Errors
    /// As [`try_lock`](Self::try_lock).
    pub async fn lock<Q: Key + ?Sized>(
        &self,
        key: &Q,
        lease: Duration,
        wait: Duration,
    ) -> Result<Option<Lock<C>>, Error>
    where
        K: Borrow<Q>,
    {
        let key = key.to_bytes()?.into_owned();
        Lock::acquire_within(self.caller.clone(), self.id, key, lease, wait).await
    }

    async fn call(&self, args: &[&[u8]]) -> Result<Reply, Error> {
        self.caller.call(self.id, args).await
    }
}

impl<K: ?Sized, V, C: Clone> Clone for Map<K, V, C> {
    fn clone(&self) -> Map<K, V, C> {
        Map { caller: self.caller.clone(), id: self.id, types: PhantomData }
    }
}

impl<K: ?Sized, V, C> fmt::Debug for Map<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Map").field(&self.id).finish()
    }
}
