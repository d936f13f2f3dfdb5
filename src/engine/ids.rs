//! The identities of ringdove, as types that cannot be confused.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// One process of ringdove, drawn at random at its start and never used again.
    ///
    /// It is the identity and the boot id in one: memory does not outlive the process, so a
    /// restarted node is a new node, and nothing it forgot can hurt. 64 bits, so that the table,
    /// gossip, links and the agreed log share one identity.
    NodeId(u64), "{:016x}"
}
id! {
    /// A client of the exactly-once protocol, drawn at random by the client.
    ClientId(u64), "{:016x}"
}
id! {
    /// One of [`SLOT_COUNT`] key slots, as in Redis Cluster.
    Slot(u16), "slot {}"
}
id! {
    /// A partition: a contiguous range of slots with one primary and its backups.
    PartitionId(u16), "p{}"
}
id! {
    /// The reign of one primary over one partition. Grows with every change of primary.
    Epoch(u64), "e{}"
}
id! {
    /// The position of a record in its partition's log. The first record is 1.
    Sequence(u64), "s{}"
}
id! {
    /// The version of the agreed table within an [`Incarnation`].
    TableVersion(u64), "t{}"
}
id! {
    /// One life of a cluster. Survivors that go on without a majority start the next one.
    Incarnation(u64), "i{}"
}
id! {
    /// A map (namespace) by its agreed number. 0 is the unnamed map that RESP sees.
    MapId(u16), "m{}"
}
id! {
    /// The version of a value: a reading of the partition's hybrid logical clock
    /// ([`Hlc`](super::hlc::Hlc)), unique and growing within a partition.
    Version(u64), "v{}"
}

/// Slots in the key space, as in Redis Cluster.
pub const SLOT_COUNT: u16 = 16_384;
/// The most partitions a cluster may have: one a slot.
pub const PARTITION_COUNT_MAX: u16 = SLOT_COUNT;

impl Slot {
    /// The slot of a key: CRC16 (XMODEM) of the key, or of its `{hash tag}`, modulo 16,384.
    ///
    /// The tag is what stands between the first `{` and the first `}` after it, if that is not
    /// empty (Redis Cluster specification, "Hash tags").
    ///
    /// ```
    /// use ringdove::engine::ids::Slot;
    /// assert_eq!(Slot::of(b"foo"), Slot(12182));
    /// assert_eq!(Slot::of(b"{user1}.a"), Slot::of(b"{user1}.b"));
    /// ```
    pub fn of(key: &[u8]) -> Slot {
        let hashed = if has_brace(key) { tagged(key) } else { key };
        Slot(crc16(hashed) % SLOT_COUNT)
    }

    /// The partition that holds this slot when there are `count` partitions (a power of two).
    pub fn partition(self, count: u16) -> PartitionId {
        debug_assert!(count.is_power_of_two() && count <= PARTITION_COUNT_MAX);
        PartitionId(self.0 >> (SLOT_COUNT.trailing_zeros() - count.trailing_zeros()))
    }
}

impl PartitionId {
    /// The slots of this partition, first and last, when there are `count` partitions.
    pub fn slots(self, count: u16) -> (Slot, Slot) {
        let width = SLOT_COUNT / count;
        (Slot(self.0 * width), Slot(self.0 * width + (width - 1)))
    }

    /// As an index into per-partition arrays.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Incarnation {
    /// The first life of a cluster: 32 random bits name the lineage, 16 count its lives, 16 tell apart
    /// lives that different survivors began. Below 2⁶³, so that a signed integer holds it in replies.
    pub fn first(entropy: u64) -> Incarnation {
        Incarnation((entropy >> 1 | 1 << 62) & !0xFFFF_FFFF)
    }

    /// The next life of the same cluster, as `carrier` begins it. Another one may do so at the same time,
    /// out of reach: theirs are never equal, but for 1 in 65,536.
    pub fn successor(self, carrier: NodeId) -> Incarnation {
        let by = carrier.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
        Incarnation((((self.0 >> 16) + 1) << 16) | by)
    }

    /// Whether both are lives of one cluster. Tables of another lineage are never taken.
    pub fn same_lineage(self, other: Incarnation) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}

impl Epoch {
    /// The next reign.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl TableVersion {
    /// The version after the next entry.
    pub fn next(self) -> TableVersion {
        TableVersion(self.0 + 1)
    }
}

impl Sequence {
    /// The next position.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// What of a key decides its slot: what lies between its first `{` and the next `}`, if that is something.
fn tagged(key: &[u8]) -> &[u8] {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').map(|close| &rest[..close])
    });
    tag.filter(|tag| !tag.is_empty()).unwrap_or(key)
}

/// Whether there is a `{`: few keys have one, and a look at all bytes is cheaper than one that may stop early.
#[inline]
fn has_brace(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let (words, rest) = key.as_chunks::<8>();
    let found = words.iter().fold(0, |found, word| {
        // A byte of zero is the only one whose highest bit this sets, but for false ones above it.
        let differs = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'{'));
        found | (differs.wrapping_sub(ONES) & !differs & (ONES << 7))
    });
    rest.iter().fold(found != 0, |found, &byte| found | (byte == b'{'))
}

/// Bytes that [`crc16`] takes in one step.
const CRC16_STEP: usize = 8;

/// `CRC16_TABLES[n][b]` is the CRC of the byte `b` with `n` zero bytes behind it.
static CRC16_TABLES: [[u16; 256]; CRC16_STEP] = {
    let mut tables = [[0u16; 256]; CRC16_STEP];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 * CRC16_STEP {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 };
            bit += 1;
            if bit % 8 == 0 {
                tables[bit / 8 - 1][byte] = crc;
            }
        }
        byte += 1;
    }
    tables
};

/// CRC-16/XMODEM: polynomial 0x1021, initial value 0, no reflection.
///
/// Eight bytes a step, whose table reads don't wait for each other ("slicing"; Kounavis and Berry, 2005).
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let tables = &CRC16_TABLES;
    let at = |table: usize, byte: u8| tables[table][usize::from(byte)];
    let mut steps = bytes.chunks_exact(CRC16_STEP);
    let mut crc = 0u16;
    for step in &mut steps {
        let [high, low] = crc.to_be_bytes();
        crc = at(7, step[0] ^ high)
            ^ at(6, step[1] ^ low)
            ^ at(5, step[2])
            ^ at(4, step[3])
            ^ at(3, step[4])
            ^ at(2, step[5])
            ^ at(1, step[6])
            ^ at(0, step[7]);
    }
    steps.remainder().iter().fold(crc, |crc, &byte| (crc << 8) ^ at(0, (crc >> 8) as u8 ^ byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc16_matches_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        let bitwise = |bytes: &[u8]| {
            bytes.iter().fold(0u16, |crc, &byte| {
                (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
                    if crc & 0x8000 != 0 { (crc << 1) ^ 0x1021 } else { crc << 1 }
                })
            })
        };
        let bytes: Vec<u8> = (0..100u32).map(|n| (n * n * 31 + 7) as u8).collect();
        for len in 0..bytes.len() {
            assert_eq!(crc16(&bytes[..len]), bitwise(&bytes[..len]), "of {len} bytes");
        }
    }

    #[test]
    fn hash_tags_follow_redis() {
        assert_eq!(Slot::of(b"foo{}{bar}"), Slot(crc16(b"foo{}{bar}") % SLOT_COUNT));
        assert_eq!(Slot::of(b"foo{{bar}}zap"), Slot(crc16(b"{bar") % SLOT_COUNT));
        assert_eq!(Slot::of(b"foo{bar}{zap}"), Slot::of(b"bar"));
    }

    #[test]
    fn lives_of_a_cluster_grow_and_tell_who_began_them() {
        let first = Incarnation::first(u64::MAX);
        let (one, other) = (first.successor(NodeId(7)), first.successor(NodeId(8)));
        assert!(first < one && first < other && one != other);
        assert!(one.max(other) < one.min(other).successor(NodeId(9)));
        assert!(first.same_lineage(one.successor(NodeId(8))) && !first.same_lineage(Incarnation::first(3)));
    }

    #[test]
    fn partitions_cover_all_slots() {
        for bits in 0..=14 {
            let count = 1u16 << bits;
            let mut next = 0;
            for p in 0..count {
                let (first, last) = PartitionId(p).slots(count);
                assert_eq!(first.0, next);
                assert_eq!(first.partition(count), PartitionId(p));
                assert_eq!(last.partition(count), PartitionId(p));
                next = last.0 + 1;
            }
            assert_eq!(next, SLOT_COUNT);
        }
    }
}
