//! Scans: a map's keys, page by page.

use super::key::Key;
use super::{Caller, reply};
use crate::engine::ids::MapId;
use crate::error::Error;
use std::fmt;
use std::marker::PhantomData;

/// Keys asked for at once unless said otherwise.
const PAGE_SIZE: usize = 1_000;

/// A scan under way.
///
/// ```no_run
/// # async fn run<C: ringdove::map::Caller>(
/// #     map: ringdove::map::Map<str, u64, C>,
/// # ) -> Result<(), ringdove::Error> {
/// let mut scan = map.scan().matching("user:*");
/// while let Some(keys) = scan.next_page().await? {
///     for key in keys {
///         println!("{key}");
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Scan<K: ?Sized, C> {
    caller: C,
    map: MapId,
    /// `None` once all has been seen.
    cursor: Option<Vec<u8>>,
    pattern: Option<Vec<u8>>,
    page_size: usize,
    keys: PhantomData<fn(&K)>,
}

impl<K: Key + ?Sized, C: Caller> Scan<K, C> {
    pub(super) fn new(caller: C, map: MapId) -> Scan<K, C> {
        let cursor = Some(b"0".to_vec());
        Scan { caller, map, cursor, pattern: None, page_size: PAGE_SIZE, keys: PhantomData }
    }

    /// Only keys that match a glob, as `SCAN … MATCH` has it.
    pub fn matching(mut self, glob: impl Into<Vec<u8>>) -> Scan<K, C> {
        self.pattern = Some(glob.into());
        self
    }

    /// About how many keys to look at for a page, at least 1. 1,000 if not set.
    pub fn page_size(mut self, count: usize) -> Scan<K, C> {
        self.page_size = count.max(1);
        self
    }

    /// The next keys: perhaps none on this page, `None` after the last page. After an error the
    /// same page is tried again.
    ///
    /// # Errors
    /// [`Error::Decode`] if a key isn't a `K`; the scan may go on. Else any [`Error`].
    pub async fn next_page(&mut self) -> Result<Option<Vec<K::Owned>>, Error> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let count = self.page_size.to_string();
        let mut args: Vec<&[u8]> = vec![b"SCAN", cursor, b"COUNT", count.as_bytes()];
        if let Some(pattern) = &self.pattern {
            args.extend([&b"MATCH"[..], pattern]);
        }
        let page = reply::pair(self.caller.call(self.map, &args).await?)?;
        let Some((cursor, keys)) = page else {
            return Err(Error::UnexpectedReply("no page".to_owned()));
        };
        let cursor = reply::bytes(cursor)?;
        self.cursor = cursor.filter(|cursor| cursor != b"0");
        let keys = reply::array(keys)?.into_iter().map(|key| {
            let bytes = reply::bytes(key)?;
            K::from_bytes(bytes.unwrap_or_default())
        });
        keys.collect::<Result<_, _>>().map(Some)
    }
}

impl<K: ?Sized, C> fmt::Debug for Scan<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("map", &self.map)
            .field("done", &self.cursor.is_none())
            .finish_non_exhaustive()
    }
}
