//! The memory of a block of pages: a mapping of its own, so that it goes back to the system whole.

use memmap2::MmapMut;
use std::alloc::{Layout, handle_alloc_error};
use std::ops::{Deref, DerefMut};

/// A block is as large as the large pages of x86-64 and of most ARM64 systems: 2 MiB.
pub(super) const BLOCK_BYTES: usize = 2 << 20;

/// What the system's pages are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pages {
    /// As small as they come: what was not used yet is not resident.
    Small,
    /// As large as the whole block, where the system can: all of it is resident, but takes one page
    /// fault instead of hundreds and one entry of the processor's address cache (its TLB).
    Huge,
}

/// [`BLOCK_BYTES`] of memory, zeroed when it is mapped. There is none before.
#[derive(Debug, Default)]
pub(super) struct Memory {
    mapping: Option<MmapMut>,
    /// Where the block begins in the mapping.
    start: usize,
    /// Bytes from the start on that may be resident.
    resident: usize,
}

impl Memory {
    /// Maps a block. Aborts if the system has no memory left, as allocating does.
    pub(super) fn map(pages: Pages) -> Memory {
        let mut mapping = map(BLOCK_BYTES);
        if pages == Pages::Huge && padding(&mapping) > 0 {
            // Older systems (Linux before 6.7) don't align what could be a large page.
            mapping = map(2 * BLOCK_BYTES);
        }
        let start = match pages {
            Pages::Small => 0,
            Pages::Huge => padding(&mapping),
        };
        advise(&mapping, start, pages);
        let resident = if pages == Pages::Huge { BLOCK_BYTES } else { 0 };
        Memory { mapping: Some(mapping), start, resident }
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

fn map(bytes: usize) -> MmapMut {
    MmapMut::map_anon(bytes)
        .unwrap_or_else(|_| handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>())))
}

/// From where the mapping begins to where a large page could.
fn padding(mapping: &MmapMut) -> usize {
    (mapping.as_ptr() as usize).wrapping_neg() % BLOCK_BYTES
}

/// Asks for the kind of pages. A system without large ones refuses, and does without.
fn advise(mapping: &MmapMut, start: usize, pages: Pages) {
    #[cfg(target_os = "linux")]
    {
        let advice = match pages {
            Pages::Small => memmap2::Advice::NoHugePage,
            Pages::Huge => memmap2::Advice::HugePage,
        };
        let _best_effort = mapping.advise_range(advice, start, BLOCK_BYTES);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (mapping, start, pages);
}

impl Deref for Memory {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let mapping = self.mapping.as_deref().unwrap_or_default();
        mapping.get(self.start..self.start + BLOCK_BYTES).unwrap_or_default()
    }
}

impl DerefMut for Memory {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let mapping = self.mapping.as_deref_mut().unwrap_or_default();
        mapping.get_mut(self.start..self.start + BLOCK_BYTES).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_may_be_resident() {
        let mut small = Memory::map(Pages::Small);
        assert_eq!((small.len(), small.resident_bytes()), (BLOCK_BYTES, 0));
        assert_eq!((small.use_until(100), small.use_until(80), small.use_until(130)), (100, 0, 30));
        small[129] = 1;
        assert_eq!((small[0], small[129], small.resident_bytes()), (0, 1, 130));
        let mut huge = Memory::map(Pages::Huge);
        assert_eq!((huge.len(), huge.as_ptr() as usize % BLOCK_BYTES), (BLOCK_BYTES, 0));
        assert_eq!((huge.use_until(100), huge.resident_bytes()), (0, BLOCK_BYTES as u64));
        assert!(Memory::default().is_empty());
    }
}
