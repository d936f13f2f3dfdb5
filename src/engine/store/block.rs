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
    /// Bytes from the start on that may be resident.
    resident: usize,
}

impl Memory {
    /// Maps a block. Aborts if the system has no memory left, as allocating does.
    pub(super) fn map(pages: Pages) -> Memory {
        let mapping = MmapMut::map_anon(BLOCK_BYTES).unwrap_or_else(|_| {
            handle_alloc_error(Layout::array::<u8>(BLOCK_BYTES).unwrap_or(Layout::new::<u8>()))
        });
        advise(&mapping, pages);
        let resident = if pages == Pages::Huge { BLOCK_BYTES } else { 0 };
        Memory { mapping: Some(mapping), resident }
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

/// Asks for the kind of pages. A system without large ones refuses, and does without. Linux aligns a
/// mapping so that it can be one large page from 6.7 on; before, neighbours become large together.
fn advise(mapping: &MmapMut, pages: Pages) {
    #[cfg(target_os = "linux")]
    {
        let advice = match pages {
            Pages::Small => memmap2::Advice::NoHugePage,
            Pages::Huge => memmap2::Advice::HugePage,
        };
        let _best_effort = mapping.advise(advice);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (mapping, pages);
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
        let mut small = Memory::map(Pages::Small);
        assert_eq!((small.len(), small.resident_bytes()), (BLOCK_BYTES, 0));
        assert_eq!((small.use_until(100), small.use_until(80), small.use_until(130)), (100, 0, 30));
        small[129] = 1;
        assert_eq!((small[0], small[129], small.resident_bytes()), (0, 1, 130));
        let mut huge = Memory::map(Pages::Huge);
        assert_eq!((huge.use_until(100), huge.resident_bytes()), (0, BLOCK_BYTES as u64));
        assert!(Memory::default().is_empty());
    }
}
