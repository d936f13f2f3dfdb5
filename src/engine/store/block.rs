//! The memory of a block of pages: a mapping of its own, so that it goes back to the system whole.

use memmap2::{Advice, MmapMut};
use std::ops::{Deref, DerefMut};

/// What the system's pages are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// As small as they come: what was not used yet is not resident.
    Small,
    /// As large as the whole block, where the system can: all of it is resident, but takes one page
    /// fault instead of hundreds and one entry of the processor's address cache (its TLB).
    Huge,
}

/// Zeroed memory of one size. None is taken before it is [mapped](Memory::map).
#[derive(Debug, Default)]
pub(super) struct Memory {
    mapping: Option<MmapMut>,
    /// Bytes from the start on that may be resident.
    resident: usize,
}

impl Memory {
    /// Maps `bytes` of memory.
    ///
    /// # Panics
    /// If the system has none left, as allocating does.
    pub(super) fn map(bytes: usize, pages: Pages) -> Memory {
        let mapping = match MmapMut::map_anon(bytes) {
            Ok(mapping) => mapping,
            Err(error) => panic!("no memory for entries: {error}"),
        };
        let advice = match pages {
            Pages::Small => Advice::NoHugePage,
            Pages::Huge => Advice::HugePage,
        };
        // A system without large pages refuses, and does without.
        let _best_effort = mapping.advise(advice);
        Memory { mapping: Some(mapping), resident: if pages == Pages::Huge { bytes } else { 0 } }
    }

    /// Takes note that bytes up to `end` are used. Returns how many more may be resident now.
    pub(super) fn use_until(&mut self, end: usize) -> u64 {
        let more = end.saturating_sub(self.resident);
        self.resident += more;
        more as u64
    }

    /// Bytes that may be resident.
    pub(super) fn resident_bytes(&self) -> u64 {
        self.resident as u64
    }
}

impl Deref for Memory {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.mapping.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Memory {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.mapping.as_deref_mut().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_may_be_resident() {
        let mut small = Memory::map(1 << 21, Pages::Small);
        assert_eq!((small.len(), small.resident_bytes()), (1 << 21, 0));
        assert_eq!((small.use_until(100), small.use_until(80), small.use_until(130)), (100, 0, 30));
        small[129] = 1;
        assert_eq!((small[0], small[129], small.resident_bytes()), (0, 1, 130));
        let mut huge = Memory::map(1 << 21, Pages::Huge);
        assert_eq!((huge.use_until(100), huge.resident_bytes()), (0, 1 << 21));
        assert!(Memory::default().is_empty());
    }
}
