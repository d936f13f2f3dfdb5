//! The index of a shard: segments in hash order behind a directory.
//!
//! The directory is that of extendible hashing (Fagin et al., 1979): the first bits of a prefix
//! lead to a segment; a full segment is cut in half, and the directory doubles when the halves
//! need one bit more than it has. So no insert ever moves more than one segment.

use super::arena::{Arena, EntryId};
use super::entry::{self, KeyRef};
use super::segment::{NEVER_S, Segment};
use smallvec::SmallVec;

/// A segment of this many entries is cut in half.
const SEGMENT_LEN_MAX: usize = 4_096;
/// The directory has at most this many places a segment: keys made to share their prefix grow
/// their segment instead of the directory.
const PLACES_PER_SEGMENT_MAX: usize = 512;
const DEPTH_MAX: u8 = 24;
/// Segments looked through for due entries at a time: some 100 µs of work.
const DUE_SEGMENTS_MAX: usize = 64;

/// Where an entry stands in the index. Any insert or removal makes it meaningless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    segment: u32,
    slot: u32,
}

impl Place {
    fn of(segment: usize, slot: usize) -> Place {
        Place { segment: segment as u32, slot: slot as u32 }
    }
}

#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Index {
    /// A partition of few entries has just one, and then a look at it is not another one at memory.
    segments: SmallVec<[Segment; 1]>,
    /// Empty while there is at most one segment.
    directory: Vec<u32>,
    depth: u8,
    len: usize,
    /// Entries that expire.
    expiring: usize,
    bytes: u64,
    /// No entry is due before this second, if there is any that expires.
    next_due_s: Option<u32>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Entries that will expire, or have and are still there.
    pub(super) fn expiring(&self) -> usize {
        self.expiring
    }

    /// Bytes allocated, the segments' headers included.
    pub(super) fn bytes(&self) -> u64 {
        let apart = if self.segments.spilled() { self.segments.capacity() } else { 0 };
        let headers = apart * size_of::<Segment>() + self.directory.capacity() * 4;
        self.bytes + headers as u64
    }

    #[inline]
    fn segment_of(&self, prefix: u32) -> usize {
        match self.directory.as_slice() {
            [] => 0,
            directory => directory[(prefix >> (32 - self.depth)) as usize] as usize,
        }
    }

    /// The segment whose interval holds this prefix.
    pub(super) fn segment_at(&self, prefix: u32) -> Option<&Segment> {
        self.segments.get(self.segment_of(prefix))
    }

    /// Where the entry of a key stands, and its bytes.
    #[inline(always)]
    pub(super) fn find<'a>(&self, arena: &'a Arena, key: &KeyRef<'_>) -> Option<(Place, EntryId, &'a [u8])> {
        let prefix = key.prefix();
        let at = self.segment_of(prefix);
        let mut found = None;
        let slot = self.segments.get(at)?.find(prefix, |id| {
            let bytes = arena.bytes(id);
            found = Some((id, bytes));
            entry::is_of(bytes, key)
        })?;
        let (id, bytes) = found?;
        Some((Place::of(at, slot), id, bytes))
    }

    #[inline]
    pub(super) fn id(&self, place: Place) -> EntryId {
        self.segments[place.segment as usize].id(place.slot as usize)
    }

    pub(super) fn set_id(&mut self, place: Place, id: EntryId) {
        self.segments[place.segment as usize].set_id(place.slot as usize, id);
    }

    /// Runs a change of one segment and keeps account of its bytes.
    fn change<R>(&mut self, segment: usize, change: impl FnOnce(&mut Segment) -> R) -> R {
        let segment = &mut self.segments[segment];
        let before = segment.bytes();
        let result = change(segment);
        self.bytes = self.bytes - before + segment.bytes();
        if segment.next_due_s() != NEVER_S {
            let next_due_s = self.next_due_s.unwrap_or(NEVER_S);
            self.next_due_s = Some(next_due_s.min(segment.next_due_s()));
        }
        result
    }

    /// Notes when the entry at a place is due. Whether that is another time than before.
    #[inline]
    pub(super) fn set_due_s(&mut self, place: Place, due_s: u32) -> bool {
        let segment = place.segment as usize;
        let old_s = self.segments[segment].due_s(place.slot as usize);
        if old_s != due_s {
            self.expiring -= usize::from(old_s != NEVER_S);
            self.expiring += usize::from(due_s != NEVER_S);
            self.change(segment, |segment| segment.set_due_s(place.slot as usize, due_s));
        }
        old_s != due_s
    }

    pub(super) fn insert(&mut self, prefix: u32, id: EntryId, due_s: u32) {
        if self.segments.is_empty() {
            self.segments.push(Segment::new(0, 0));
        }
        let mut segment = self.segment_of(prefix);
        while self.segments[segment].len() >= SEGMENT_LEN_MAX && self.split(segment) {
            segment = self.segment_of(prefix);
        }
        self.change(segment, |segment| segment.insert(prefix, id, due_s));
        self.len += 1;
        self.expiring += usize::from(due_s != NEVER_S);
    }

    /// Cuts a segment in half, if its interval may still be cut.
    fn split(&mut self, segment: usize) -> bool {
        let depth = self.segments[segment].depth() + 1;
        if depth > self.depth {
            let places_max = (self.segments.len() + 1) * PLACES_PER_SEGMENT_MAX;
            if depth > DEPTH_MAX || 1 << depth > places_max {
                return false;
            }
            self.directory = match self.directory.as_slice() {
                [] => vec![0; 2],
                directory => directory.iter().flat_map(|&segment| [segment; 2]).collect(),
            };
            self.depth = depth;
        }
        let upper = self.change(segment, Segment::split);
        let shift = 32 - u32::from(self.depth);
        let first = (upper.first() >> shift) as usize;
        let count = 1 << (self.depth - upper.depth());
        self.directory[first..first + count].fill(self.segments.len() as u32);
        self.bytes += upper.bytes();
        self.segments.push(upper);
        true
    }

    /// Removes the entry at a place and returns what stood there.
    pub(super) fn remove(&mut self, place: Place) -> EntryId {
        let id = self.id(place);
        let due_s = self.segments[place.segment as usize].due_s(place.slot as usize);
        self.expiring -= usize::from(due_s != NEVER_S);
        self.change(place.segment as usize, |segment| segment.remove(place.slot as usize));
        self.len -= 1;
        if self.len == 0 {
            *self = Index::default();
        }
        id
    }

    /// Takes all segments out; the index is empty then.
    pub(super) fn take(&mut self) -> Vec<Segment> {
        std::mem::take(self).segments.into_vec()
    }

    /// The first due entry from `from` on, in some order; `None` if there is none or the look
    /// would take too long. To go on after a removal, pass the place of the removed entry.
    pub(super) fn next_due(&mut self, from: Place, now_s: u32) -> Option<Place> {
        if self.next_due_s.is_none_or(|due_s| due_s > now_s) {
            return None;
        }
        let mut slot = from.slot as usize;
        let mut looked = 0;
        for at in from.segment as usize..self.segments.len() {
            if self.segments[at].next_due_s() <= now_s {
                if looked == DUE_SEGMENTS_MAX {
                    return None;
                }
                looked += 1;
                let mut found = self.change(at, |segment| segment.next_due(slot, now_s));
                if found.is_none() && slot > 0 {
                    found = self.change(at, |segment| segment.next_due(0, now_s));
                }
                if let Some(slot) = found {
                    return Some(Place::of(at, slot));
                }
            }
            slot = 0;
        }
        let next_due_s = self.segments.iter().map(Segment::next_due_s).min();
        self.next_due_s = next_due_s.filter(|&due_s| due_s != NEVER_S);
        None
    }

    /// Due entries that [`next_due`](Index::next_due) may come to next.
    pub(super) fn due_from(&self, from: Place, now_s: u32) -> impl Iterator<Item = EntryId> + '_ {
        let segment = self.segments.get(from.segment as usize);
        segment.into_iter().flat_map(move |segment| segment.due_from(from.slot as usize, now_s))
    }

    /// The entry that expires next, to the second.
    pub(super) fn nearest_due(&mut self) -> Option<Place> {
        loop {
            let at = (0..self.segments.len()).min_by_key(|&at| self.segments[at].next_due_s())?;
            let bound = self.segments[at].next_due_s();
            if bound == NEVER_S {
                return None;
            }
            // The bound may be from an entry that is gone; looking for it sets it right.
            if let Some(slot) = self.change(at, |segment| segment.next_due(0, bound)) {
                return Some(Place::of(at, slot));
            }
        }
    }

    /// Some entry, by the entropy: the first one from a random slot on.
    pub(super) fn random(&self, entropy: u64) -> Option<Place> {
        if self.len == 0 {
            return None;
        }
        let first = self.segment_of((entropy >> 32) as u32);
        let count = self.segments.len();
        let segments = (first..count).chain(0..first).chain([first]);
        let slot_count = self.segments[first].slot_count() as u64;
        let mut start = (((entropy & u64::from(u32::MAX)) * slot_count) >> 32) as usize;
        for at in segments {
            let segment = &self.segments[at];
            let found = (start..segment.slot_count()).find(|&slot| segment.get(slot).is_some());
            if let Some(slot) = found {
                return Some(Place::of(at, slot));
            }
            start = 0;
        }
        None
    }

    /// All entries' places with ids from a prefix on, in hash order, up to `count` of them, with
    /// the prefix to go on from: `None` at the end.
    pub(super) fn places_from(&self, from: u32, count: usize) -> (Vec<(Place, EntryId)>, Option<u32>) {
        let mut places = Vec::new();
        let mut next = Some(from);
        while let Some(prefix) = next {
            let at = self.segment_of(prefix);
            let Some(segment) = self.segments.get(at) else { return (places, None) };
            let mut last = None;
            for (slot, prefix, id) in segment.iter_from(prefix) {
                if places.len() >= count && last != Some(prefix) {
                    return (places, Some(prefix));
                }
                places.push((Place::of(at, slot), id));
                last = Some(prefix);
            }
            next = u32::try_from(segment.end()).ok();
        }
        (places, None)
    }

    /// Reads what says where segments are.
    #[inline]
    pub(super) fn touch(&self) -> u64 {
        self.directory.len() as u64
    }

    /// The slots where a look for this prefix begins.
    #[inline]
    pub(super) fn slots_of(&self, prefix: u32) -> &[u64] {
        self.segments.get(self.segment_of(prefix)).map_or(&[], |segment| segment.slots_of(prefix))
    }

    /// The first entry with this prefix, if there is one.
    #[inline]
    pub(super) fn first_of(&self, prefix: u32) -> Option<EntryId> {
        let segment = self.segments.get(self.segment_of(prefix))?;
        segment.find(prefix, |_| true).map(|slot| segment.id(slot))
    }

    #[cfg(test)]
    pub(super) fn check(&self) {
        self.segments.iter().for_each(Segment::check);
        assert_eq!(self.len, self.segments.iter().map(Segment::len).sum::<usize>());
        let expires = |segment: &Segment, at| segment.get(at).is_some() && segment.due_s(at) != NEVER_S;
        let expiring = self
            .segments
            .iter()
            .map(|segment| (0..segment.slot_count()).filter(|&at| expires(segment, at)).count());
        assert_eq!(self.expiring, expiring.sum::<usize>());
        assert_eq!(self.bytes, self.segments.iter().map(Segment::bytes).sum::<u64>());
        for (at, segment) in self.segments.iter().enumerate() {
            assert_eq!(self.segment_of(segment.first()), at);
            assert_eq!(self.segment_of((segment.end() - 1) as u32), at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_made_to_share_their_prefix_grow_no_directory() {
        for low_bits in [0, 6, 10] {
            let mut index = Index::default();
            for i in 0..12_000u32 {
                index.insert(0xABCD_0000 | (i & ((1 << low_bits) - 1)), EntryId(i + 1), NEVER_S);
            }
            index.check();
            assert!(index.bytes() < 1 << 19, "{}", index.bytes());
            let (places, end) = index.places_from(0, usize::MAX);
            assert_eq!((places.len(), end), (12_000, None));
            for (place, id) in places {
                assert_eq!(index.id(place), id);
            }
        }
    }

    #[test]
    fn filling_in_hash_order_splits_as_needed() {
        let mut index = Index::default();
        for i in 0..100_000u32 {
            index.insert(i * 40_000, EntryId(i + 1), i);
        }
        index.check();
        assert!(index.bytes() < 100_000 * 22, "{}", index.bytes());
        let mut from = Place::default();
        let mut due = 0;
        while let Some(place) = index.next_due(from, 49_999) {
            index.remove(place);
            from = place;
            due += 1;
        }
        index.check();
        assert_eq!(due, 50_000);
        assert_eq!(index.nearest_due().map(|place| index.id(place)), Some(EntryId(50_001)));
    }
}
