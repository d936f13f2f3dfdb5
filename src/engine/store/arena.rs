//! The arena: every entry's bytes, in pages of equal slots.
//!
//! A page is 64 KiB cut into slots of one size; there are 16 sizes a doubling, so that a slot is
//! on average 3 % larger than its entry. 32 pages, of any sizes of slots, are a block of 2 MiB, which
//! is what the system gives and gets back, as one large page of its own where there are many; slots
//! of more than 8 KiB come in pages as large as a block. Sparse blocks are *drained*: nothing new goes
//! there, and shards move out what they still hold there ([`Shard::tidy`](super::Shard::tidy)).
//!
//! Entries beyond [`SMALL_BYTES_MAX`] have two allocations of their own, for the head and the value. They are
//! found through a page that holds nothing but those and takes the numbers of a whole block.

use super::block::{BLOCK_BYTES, Memory, Pages};
use super::entry::{self, EntryView, SMALL_BYTES_MAX, Shape};
use super::long::LongValue;
use crate::engine::ids::{MapId, Version};
use std::collections::{BTreeMap, BTreeSet};

const PAGE_BYTES: usize = 64 << 10;
const BLOCK_PAGES: usize = BLOCK_BYTES / PAGE_BYTES;
/// An arena of fewer bytes than this takes no more of the system than it uses.
const HUGE_FROM_BYTES: u64 = 16 << 20;
/// Slots of a page are numbered by the low bits of an entry's id.
const SLOT_BITS: u32 = 11;
const SLOT_COUNT_MAX: usize = 1 << SLOT_BITS;
const PAGE_COUNT_MAX: usize = 1 << (32 - SLOT_BITS);
/// Allocations a page of large entries leads to.
const LARGE_SLOT_COUNT: usize = 256;
/// The smallest slot: a page has at most `SLOT_COUNT_MAX` of them.
const SLOT_BYTES_MIN: usize = 32;
/// Sizes of slots, 16 a doubling from 16 bytes on.
const CLASS_COUNT: usize = 16 * 12;
/// Slots of more bytes than this are in a page that is a whole block.
const PAGE_SLOT_BYTES_MAX: usize = PAGE_BYTES / 8;
const NONE: u16 = u16::MAX;

const _: () = assert!(PAGE_BYTES / SLOT_BYTES_MIN <= SLOT_COUNT_MAX);
const _: () = assert!(class_of(SMALL_BYTES_MAX) == CLASS_COUNT - 1);
const _: () = assert!(class_bytes(CLASS_COUNT - 1) == SMALL_BYTES_MAX);

/// The class of slots for `bytes`: the smallest that holds them.
const fn class_of(bytes: usize) -> usize {
    let bytes = if bytes < SLOT_BYTES_MIN { SLOT_BYTES_MIN } else { bytes };
    // The 4 bits behind the leading one count within a doubling; rounding up carries by itself.
    let last = bytes - 1;
    let doubling = last.ilog2();
    let step = doubling - 4;
    let within = (last >> step) & 15;
    (doubling as usize - 4) * 16 + within + 1
}

/// The bytes of a slot of this class.
const fn class_bytes(class: usize) -> usize {
    (16 + class % 16) << (class / 16)
}

/// Which entry: a page and a slot in it. Never zero, so that zero can mean an empty table slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryId(pub u32);

impl EntryId {
    fn page(self) -> usize {
        (self.0 >> SLOT_BITS) as usize
    }

    fn slot(self) -> usize {
        self.0 as usize & (SLOT_COUNT_MAX - 1)
    }

    fn block(self) -> usize {
        self.page() / BLOCK_PAGES
    }

    /// Where the slot begins in its block.
    fn start(self, slot_bytes: u16) -> usize {
        self.page() % BLOCK_PAGES * PAGE_BYTES + self.slot() * usize::from(slot_bytes)
    }

    fn of(page: usize, slot: u16) -> EntryId {
        EntryId((page as u32) << SLOT_BITS | u32::from(slot))
    }
}

#[derive(Debug)]
enum Body {
    /// No page here now.
    Vacant,
    /// Equal slots, one after the other, from the page's part of its block on.
    Slots,
    /// Large entries, or where one may be.
    Large(Vec<Option<Large>>),
}

/// An entry beyond [`SMALL_BYTES_MAX`].
#[derive(Debug)]
struct Large {
    /// Header and key.
    head: Box<[u8]>,
    value: LongValue,
}

impl Large {
    fn new(view: &EntryView<'_>, value_hash: u64) -> Large {
        let value = view.long.cloned().unwrap_or_else(|| LongValue::copied(view.value, value_hash));
        Large { head: view.large_head(value_hash), value }
    }

    /// What it takes: its allocations, and its place in the page.
    fn size(&self) -> u64 {
        heap_bytes(self.head.len()) + heap_bytes(self.value.bytes().len()) + size_of::<Option<Large>>() as u64
    }
}

#[derive(Debug)]
struct Page {
    body: Body,
    /// Index among the lists of pages with room; `CLASS_COUNT` for large entries.
    class: u8,
    draining: bool,
    slot_bytes: u16,
    slot_count: u16,
    used: u16,
    /// Slots from here on were never used.
    fresh: u16,
    /// First free slot below `fresh`; each free slot holds the next one.
    free: u16,
    /// Where this page stands in its class's list, if it does.
    listed: Option<u32>,
}

impl Page {
    fn new(body: Body, class: u8, slot_bytes: u16, slot_count: u16) -> Page {
        Page {
            body,
            class,
            draining: false,
            slot_bytes,
            slot_count,
            used: 0,
            fresh: 0,
            free: NONE,
            listed: None,
        }
    }

    fn free_slots(&self) -> i64 {
        i64::from(self.slot_count - self.used)
    }
}

/// The memory of [`BLOCK_PAGES`] pages.
#[derive(Debug, Default)]
struct Block {
    /// Empty: no pages with slots here now.
    memory: Memory,
    /// Pages in use.
    used: u8,
    draining: bool,
}

/// Every entry of one node, whatever its partition.
///
/// Entries are found through the [`Shard`](super::Shard)s that store them; a shard must be
/// released to the arena before it is dropped, or its entries stay.
#[derive(Debug)]
pub struct Arena {
    /// By number; each block has the next [`BLOCK_PAGES`].
    pages: Vec<Page>,
    blocks: Vec<Block>,
    /// Pages of blocks with memory that may be opened. The first ones are, so that the last blocks
    /// empty.
    vacant: BTreeSet<u32>,
    /// Blocks without memory, which no large page has the numbers of either.
    vacant_blocks: Vec<u32>,
    /// Memory of a block that held large slots and is kept, so that an entry that comes and goes costs none.
    spare: Option<Memory>,
    /// By class: pages with a free slot that are not draining. The last list is for large entries.
    with_room: Vec<Vec<u32>>,
    /// Bytes in use: slots and allocations of entries.
    entry_bytes: u64,
    large_bytes: u64,
    block_bytes: u64,
    index_bytes: u64,
    draining_count: usize,
    /// Free bytes when pages to drain were last looked for.
    free_bytes_at_plan: u64,
    maps: BTreeMap<MapId, u64>,
}

impl Default for Arena {
    fn default() -> Arena {
        Arena::new()
    }
}

/// What the allocator takes for an allocation: its sizes are 4 a doubling, as in most of them.
pub(super) fn heap_bytes(bytes: usize) -> u64 {
    if bytes <= 8 {
        return 8 * u64::from(bytes > 0);
    }
    let step = 1 << ((bytes - 1).ilog2().saturating_sub(2)).min(16);
    (bytes as u64).next_multiple_of(step)
}

impl Arena {
    /// An empty arena.
    pub fn new() -> Arena {
        let mut arena = Arena {
            pages: Vec::new(),
            blocks: Vec::new(),
            vacant: BTreeSet::new(),
            vacant_blocks: Vec::new(),
            spare: None,
            with_room: vec![Vec::new(); CLASS_COUNT + 1],
            entry_bytes: 0,
            large_bytes: 0,
            block_bytes: 0,
            index_bytes: 0,
            draining_count: 0,
            free_bytes_at_plan: 0,
            maps: BTreeMap::new(),
        };
        // Block 0 is never used: slot 0 of page 0 would be the id zero, which means "no entry".
        arena.number_block();
        arena
    }

    /// Bytes that the stored entries take: their slots or allocations with all slack, the page
    /// bookkeeping and the shards' indexes. This is what `max_memory` bounds, and what evicting
    /// an entry lowers.
    ///
    /// Free slots are not in it, since the next entry of that size takes them;
    /// [`bytes_resident`](Arena::bytes_resident) counts them too.
    pub fn bytes_used(&self) -> u64 {
        self.entry_bytes + self.index_bytes + self.bookkeeping_bytes()
    }

    /// Bytes held from the system: [`bytes_used`](Arena::bytes_used) with the free slots.
    pub fn bytes_resident(&self) -> u64 {
        self.block_bytes + self.large_bytes + self.index_bytes + self.bookkeeping_bytes()
    }

    /// Bytes that the entries of a named map take on this node, without the index.
    pub fn map_bytes(&self, map: MapId) -> u64 {
        self.maps.get(&map).copied().unwrap_or(0)
    }

    /// Bytes that more entries may still take before the arena's numbering ends (128 GiB of
    /// entries up to 62 KiB). Writers refuse what does not fit; storing it anyway panics.
    pub fn bytes_left(&self) -> u64 {
        let unnumbered = PAGE_COUNT_MAX - self.pages.len();
        ((unnumbered + self.vacant.len() + self.vacant_blocks.len() * BLOCK_PAGES) * PAGE_BYTES) as u64
    }

    fn bookkeeping_bytes(&self) -> u64 {
        (self.pages.capacity() * size_of::<Page>() + self.blocks.capacity() * size_of::<Block>()) as u64
    }

    /// Free slots, page tails and vacant pages, in bytes.
    fn free_bytes(&self) -> u64 {
        self.block_bytes + self.large_bytes - self.entry_bytes
    }

    pub(super) fn note_index_bytes(&mut self, before: u64, after: u64) {
        self.index_bytes = self.index_bytes - before + after;
    }

    pub(super) fn note_map_bytes(&mut self, map: MapId, added: u64, removed: u64) {
        let bytes = self.maps.entry(map).or_default();
        *bytes = *bytes + added - removed;
        if *bytes == 0 {
            self.maps.remove(&map);
        }
    }

    /// The bytes of an entry; of a large one without its value.
    #[inline(always)]
    pub(super) fn bytes(&self, id: EntryId) -> &[u8] {
        let page = &self.pages[id.page()];
        // Only slots have a size.
        if page.slot_bytes == 0 {
            return self.large_head(id);
        }
        self.slot(id, page.slot_bytes)
    }

    #[inline(never)]
    fn large_head(&self, id: EntryId) -> &[u8] {
        self.large(id).map_or(&[], |large| &large.head)
    }

    fn large(&self, id: EntryId) -> Option<&Large> {
        match &self.pages[id.page()].body {
            Body::Large(entries) => entries[id.slot()].as_ref(),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn bytes_mut(&mut self, id: EntryId) -> &mut [u8] {
        let page = &mut self.pages[id.page()];
        match &mut page.body {
            Body::Slots => {
                let start = id.start(page.slot_bytes);
                &mut self.blocks[id.block()].memory[start..start + usize::from(page.slot_bytes)]
            }
            Body::Large(entries) => entries[id.slot()].as_mut().map_or(&mut [], |large| &mut large.head),
            Body::Vacant => &mut [],
        }
    }

    /// Reads where entries begin and end, so that the cache misses of what comes next overlap.
    pub(super) fn touch(&self, ids: impl Iterator<Item = EntryId>) {
        std::hint::black_box(ids.fold(0, |read, id| read ^ entry::touch(self.bytes(id))));
    }

    /// The entry, read.
    #[inline]
    pub(super) fn view(&self, id: EntryId) -> EntryView<'_> {
        let page = &self.pages[id.page()];
        if page.slot_bytes > 0 {
            return entry::read(self.slot(id, page.slot_bytes));
        }
        self.large_view(id)
    }

    #[inline(always)]
    fn slot(&self, id: EntryId, slot_bytes: u16) -> &[u8] {
        let start = id.start(slot_bytes);
        &self.blocks[id.block()].memory[start..start + usize::from(slot_bytes)]
    }

    #[inline(never)]
    fn large_view(&self, id: EntryId) -> EntryView<'_> {
        let long = self.large(id).map(|large| &large.value);
        EntryView { value: long.map_or(&[], |value| value.bytes()), long, ..entry::read(self.bytes(id)) }
    }

    /// What the entry takes, slack included.
    #[inline]
    pub(super) fn size(&self, id: EntryId) -> u64 {
        let page = &self.pages[id.page()];
        if page.slot_bytes > 0 {
            return u64::from(page.slot_bytes);
        }
        self.large(id).map_or(0, Large::size)
    }

    /// Stores a new entry.
    pub(super) fn insert(&mut self, view: &EntryView<'_>, value_hash: u64) -> EntryId {
        let shape = view.shape();
        let id = self.allocate(shape);
        if shape.large {
            self.fill_large(id, Large::new(view, value_hash));
        } else {
            view.write_small(value_hash, self.bytes_mut(id));
        }
        id
    }

    /// Stores a small entry in the place of another small one of the same key, whose room and layout it shares, as
    /// most writes of a key that is there do. False, and nothing is done, if it doesn't.
    #[inline]
    pub(super) fn overwrite(&mut self, id: EntryId, view: &EntryView<'_>, value_hash: u64) -> bool {
        let shape = view.shape();
        let page = &self.pages[id.page()];
        let is_small = page.slot_bytes > 0 && !shape.large;
        let fits = is_small && !page.draining && class_of(shape.bytes) == usize::from(page.class);
        fits && entry::overwrite(self.bytes_mut(id), view, value_hash)
    }

    /// Stores an entry in the place of another, which is gone then. Returns where it is.
    pub(super) fn replace(&mut self, id: EntryId, view: &EntryView<'_>, value_hash: u64) -> EntryId {
        let shape = view.shape();
        let page = &self.pages[id.page()];
        let stays = match &page.body {
            Body::Slots => !shape.large && !page.draining && class_of(shape.bytes) == usize::from(page.class),
            Body::Large(_) => shape.large,
            Body::Vacant => false,
        };
        if !stays {
            // Freed first: the new one may take the room that the old one leaves.
            self.remove(id);
            return self.insert(view, value_hash);
        }
        if shape.large {
            self.empty_large(id);
            self.fill_large(id, Large::new(view, value_hash));
        } else {
            view.write_small(value_hash, self.bytes_mut(id));
        }
        id
    }

    fn fill_large(&mut self, id: EntryId, large: Large) {
        self.entry_bytes += large.size();
        self.large_bytes += large.size();
        if let Body::Large(entries) = &mut self.pages[id.page()].body {
            entries[id.slot()] = Some(large);
        }
    }

    fn empty_large(&mut self, id: EntryId) {
        if let Body::Large(entries) = &mut self.pages[id.page()].body
            && let Some(large) = entries[id.slot()].take()
        {
            self.entry_bytes -= large.size();
            self.large_bytes -= large.size();
        }
    }

    /// Notes a use of the entry.
    pub(super) fn set_used(&mut self, id: EntryId, accessed_s: u32, frequency: u8) {
        entry::set_used(self.bytes_mut(id), accessed_s, frequency);
    }

    /// Sets the expiry and the version of an entry. Returns where it is: it may have moved.
    pub(super) fn set_expiry(&mut self, id: EntryId, expire_at_ms: u64, version: Version) -> EntryId {
        if entry::set_expiry(self.bytes_mut(id), expire_at_ms, version) {
            return id;
        }
        // Only small entries come here; the copy frees the arena for the new place.
        let copy = self.bytes(id).to_vec();
        let view = EntryView { expire_at_ms, version, ..entry::read(&copy) };
        self.replace(id, &view, entry::value_hash(&copy))
    }

    fn allocate(&mut self, shape: Shape) -> EntryId {
        let class = if shape.large { CLASS_COUNT } else { class_of(shape.bytes) };
        let page_index = match self.with_room[class].last() {
            Some(&page) => page as usize,
            None => self.open_page(class),
        };
        let page = &mut self.pages[page_index];
        let slot = if page.free != NONE {
            let slot = page.free;
            page.free = match &page.body {
                Body::Slots => {
                    let id = EntryId::of(page_index, slot);
                    let at = id.start(page.slot_bytes);
                    let bytes = &self.blocks[id.block()].memory;
                    u16::from_le_bytes([bytes[at], bytes[at + 1]])
                }
                // Large pages are few and short: the next free one is looked for.
                Body::Large(entries) => next_free_large(entries, slot, page.fresh),
                Body::Vacant => NONE,
            };
            slot
        } else {
            let slot = page.fresh;
            page.fresh += 1;
            if !shape.large {
                let end = EntryId::of(page_index, slot).start(page.slot_bytes) + usize::from(page.slot_bytes);
                self.block_bytes += self.blocks[page_index / BLOCK_PAGES].memory.use_until(end);
            }
            slot
        };
        page.used += 1;
        self.entry_bytes += u64::from(page.slot_bytes);
        if page.used == page.slot_count {
            self.unlist(page_index);
        }
        EntryId::of(page_index, slot)
    }

    /// Gives the room of an entry back. Returns how many bytes that were.
    pub(super) fn remove(&mut self, id: EntryId) -> u64 {
        let size = self.size(id);
        self.empty_large(id);
        let page_index = id.page();
        let page = &mut self.pages[page_index];
        let slot = id.slot() as u16;
        match &mut page.body {
            Body::Slots => {
                let at = id.start(page.slot_bytes);
                let bytes = &mut self.blocks[id.block()].memory;
                bytes[at..at + 2].copy_from_slice(&page.free.to_le_bytes());
                page.free = slot;
            }
            Body::Large(_) => page.free = page.free.min(slot),
            Body::Vacant => return 0,
        }
        page.used -= 1;
        self.entry_bytes -= u64::from(page.slot_bytes);
        if page.used == 0 {
            self.close_page(page_index);
        } else if page.listed.is_none() && !page.draining {
            self.list(page_index);
        }
        size
    }

    fn open_page(&mut self, class: usize) -> usize {
        let (index, page) = if class == CLASS_COUNT {
            let entries = std::iter::repeat_with(|| None).take(LARGE_SLOT_COUNT).collect();
            let page = Page::new(Body::Large(entries), class as u8, 0, LARGE_SLOT_COUNT as u16);
            (self.number_block() * BLOCK_PAGES, page)
        } else {
            let slot_bytes = class_bytes(class);
            let (index, bytes) = if slot_bytes > PAGE_SLOT_BYTES_MAX {
                // Of such entries there may be few: no more is taken than they use.
                (self.open_block(Pages::Small) * BLOCK_PAGES, BLOCK_BYTES)
            } else {
                (self.vacant_page(), PAGE_BYTES)
            };
            self.blocks[index / BLOCK_PAGES].used += 1;
            let slot_count = bytes / slot_bytes;
            (index, Page::new(Body::Slots, class as u8, slot_bytes as u16, slot_count as u16))
        };
        self.pages[index] = page;
        self.list(index);
        index
    }

    /// Takes the numbers of a block and its pages.
    fn number_block(&mut self) -> usize {
        if let Some(block) = self.vacant_blocks.pop() {
            return block as usize;
        }
        assert!(self.pages.len() < PAGE_COUNT_MAX, "the arena's numbering ends at 128 GiB");
        let vacant = || Page::new(Body::Vacant, 0, 0, 0);
        self.pages.extend(std::iter::repeat_with(vacant).take(BLOCK_PAGES));
        self.blocks.push(Block::default());
        self.blocks.len() - 1
    }

    fn open_block(&mut self, pages: Pages) -> usize {
        let block = self.number_block();
        let spare = if pages == Pages::Small { self.spare.take() } else { None };
        let memory = spare.unwrap_or_else(|| {
            let memory = Memory::map(pages);
            self.block_bytes += memory.resident_bytes();
            memory
        });
        self.blocks[block].memory = memory;
        block
    }

    /// Takes a page of a block with memory.
    fn vacant_page(&mut self) -> usize {
        if let Some(index) = self.vacant.pop_first() {
            return index as usize;
        }
        let is_small = self.block_bytes < HUGE_FROM_BYTES;
        let block = self.open_block(if is_small { Pages::Small } else { Pages::Huge });
        let mut pages = pages_of(block);
        let first = pages.start;
        pages.start += 1;
        self.vacant.extend(pages.map(|page| page as u32));
        first
    }

    fn close_page(&mut self, index: usize) {
        self.unlist(index);
        let page = &mut self.pages[index];
        if page.draining {
            page.draining = false;
            self.draining_count -= 1;
            if self.draining_count == 0 {
                // Done with this plan: the next look may find more.
                self.free_bytes_at_plan = 0;
            }
        }
        let slot_bytes = usize::from(page.slot_bytes);
        let block_index = index / BLOCK_PAGES;
        let block = &mut self.blocks[block_index];
        match std::mem::replace(&mut page.body, Body::Vacant) {
            Body::Slots => block.used -= 1,
            Body::Large(_) | Body::Vacant => return self.vacant_blocks.push(block_index as u32),
        }
        let is_whole_block = slot_bytes > PAGE_SLOT_BYTES_MAX;
        if !block.draining && !is_whole_block {
            self.vacant.insert(index as u32);
        }
        // One empty block is kept, so that an entry that comes and goes costs no allocation.
        let is_spare = !block.draining && !is_whole_block && self.vacant.len() <= BLOCK_PAGES;
        if block.used == 0 && !is_spare {
            self.free_block(block_index, is_whole_block);
        }
    }

    fn free_block(&mut self, index: usize, may_be_spare: bool) {
        for page in pages_of(index) {
            self.vacant.remove(&(page as u32));
        }
        self.vacant_blocks.push(index as u32);
        let Block { memory, .. } = std::mem::take(&mut self.blocks[index]);
        if may_be_spare && self.spare.is_none() {
            self.spare = Some(memory);
        } else {
            self.block_bytes -= memory.resident_bytes();
        }
    }

    fn list(&mut self, index: usize) {
        let page = &mut self.pages[index];
        let list = &mut self.with_room[usize::from(page.class)];
        page.listed = Some(list.len() as u32);
        list.push(index as u32);
    }

    fn unlist(&mut self, index: usize) {
        let page = &mut self.pages[index];
        let Some(at) = page.listed.take() else { return };
        let list = &mut self.with_room[usize::from(page.class)];
        list.swap_remove(at as usize);
        if let Some(&moved) = list.get(at as usize) {
            self.pages[moved as usize].listed = Some(at);
        }
    }

    /// Whether the entry lies in a page that is being drained.
    pub(super) fn is_draining(&self, id: EntryId) -> bool {
        self.pages[id.page()].draining
    }

    /// Whether any page is being drained.
    pub fn has_draining(&self) -> bool {
        self.draining_count > 0
    }

    /// Moves an entry to another page of its class.
    pub(super) fn relocate(&mut self, id: EntryId) -> EntryId {
        let copy = self.bytes(id).to_vec();
        let moved = self.insert(&entry::read(&copy), entry::value_hash(&copy));
        self.remove(id);
        moved
    }

    /// Looks for blocks to drain if more than an eighth of the memory is free.
    ///
    /// The emptiest blocks are drained, as long as the others have room for what they hold.
    pub(super) fn plan_draining(&mut self) {
        const SLACK_BYTES: u64 = 2 * BLOCK_BYTES as u64;
        let free_bytes = self.free_bytes();
        if free_bytes < self.free_bytes_at_plan / 2 {
            self.free_bytes_at_plan = free_bytes;
        }
        let is_due = free_bytes > self.free_bytes_at_plan + self.free_bytes_at_plan / 16;
        if self.draining_count > 0 || free_bytes < self.entry_bytes / 8 + SLACK_BYTES || !is_due {
            return;
        }
        self.free_bytes_at_plan = free_bytes;
        let mut blocks: Vec<(u64, usize)> = (0..self.blocks.len())
            .filter(|&block| self.blocks[block].used > 0)
            .map(|block| (pages_of(block).map(|page| self.entry_bytes_in(page)).sum(), block))
            // Only blocks at most seven eighths full are worth the moves.
            .filter(|&(bytes, _)| bytes * 8 <= BLOCK_BYTES as u64 * 7)
            .collect();
        blocks.sort_unstable();
        let mut room = Room::of(self);
        for (_, block) in blocks {
            if let Some(left) = room.without(self, block) {
                room = left;
                self.drain(block);
            }
        }
    }

    /// Lets nothing new into a block.
    fn drain(&mut self, block: usize) {
        self.blocks[block].draining = true;
        for page in pages_of(block) {
            self.vacant.remove(&(page as u32));
            if self.pages[page].used > 0 {
                self.unlist(page);
                self.pages[page].draining = true;
                self.draining_count += 1;
            }
        }
    }

    /// The bytes of the slots in use.
    fn entry_bytes_in(&self, page: usize) -> u64 {
        let page = &self.pages[page];
        u64::from(page.used) * u64::from(page.slot_bytes)
    }
}

/// What a plan to drain blocks counts with: the room that the blocks that stay have left.
#[derive(Clone)]
struct Room {
    /// Free slots by class.
    slots: Vec<i64>,
    vacant_pages: i64,
}

impl Room {
    fn of(arena: &Arena) -> Room {
        let free_slots = |page: &u32| arena.pages[*page as usize].free_slots();
        let slots = |class: usize| arena.with_room[class].iter().map(free_slots).sum();
        Room { slots: (0..CLASS_COUNT).map(slots).collect(), vacant_pages: arena.vacant.len() as i64 }
    }

    /// What is left when a block is drained: its own room is gone then, and so is what its entries
    /// need elsewhere. `None` if there is not enough.
    fn without(&self, arena: &Arena, block: usize) -> Option<Room> {
        let mut left = self.clone();
        left.vacant_pages -=
            pages_of(block).filter(|&page| arena.vacant.contains(&(page as u32))).count() as i64;
        for page in arena.pages[pages_of(block)].iter().filter(|page| page.used > 0) {
            // Slots in use and free ones: all are needed elsewhere or gone.
            let slots = &mut left.slots[usize::from(page.class)];
            *slots -= i64::from(page.slot_count);
            if *slots < 0 && usize::from(page.slot_bytes) > PAGE_SLOT_BYTES_MAX {
                return None;
            }
            while *slots < 0 {
                *slots += i64::from(page.slot_count);
                left.vacant_pages -= 1;
            }
        }
        (left.vacant_pages >= 0).then_some(left)
    }
}

/// The numbers of a block's pages.
fn pages_of(block: usize) -> std::ops::Range<usize> {
    block * BLOCK_PAGES..(block + 1) * BLOCK_PAGES
}

fn next_free_large(entries: &[Option<Large>], after: u16, fresh: u16) -> u16 {
    (after + 1..fresh).find(|&slot| entries[usize::from(slot)].is_none()).unwrap_or(NONE)
}

#[cfg(test)]
mod tests {
    use super::super::entry::EntryKind;
    use super::*;

    #[test]
    fn short_entries_stay_in_their_place() {
        assert_eq!(class_of(1), class_of(SLOT_BYTES_MIN));
        let mut arena = Arena::default();
        let view = |value| EntryView {
            map: MapId(0),
            key: b"",
            value,
            long: None,
            kind: EntryKind::String,
            expire_at_ms: 0,
            version: Version(1),
            accessed_s: 0,
            frequency: 0,
        };
        let id = arena.insert(&view(b""), 0);
        assert!(arena.overwrite(id, &view(b""), 0) && arena.overwrite(id, &view(b"12"), 0));
        assert_eq!(arena.view(id).value, b"12");
        assert_eq!(arena.replace(id, &view(b""), 0), id);
        assert!(!arena.overwrite(id, &EntryView { expire_at_ms: 1, ..view(b"") }, 0), "another header");
    }

    #[test]
    fn classes_hold_their_sizes_with_little_slack() {
        for bytes in SLOT_BYTES_MIN..=SMALL_BYTES_MAX {
            let class = class_of(bytes);
            assert!(class_bytes(class) >= bytes, "{bytes}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes}");
            assert!((class_bytes(class) - bytes) * 16 <= bytes, "{bytes}");
        }
    }
}
