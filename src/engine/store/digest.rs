//! Digests: what anti-entropy compares between copies.

use crate::engine::ids::Version;

/// Digests by the first 8 bits of the key's hash. Equal contents have equal digests, whatever the
/// history: each is the wrapping sum of its entries' hashes.
#[derive(Debug, Default)]
pub(super) struct Digests {
    root: u64,
    /// Allocated with the first entry: most partitions of a young cluster are empty.
    buckets: Option<Box<[u64; 256]>>,
}

impl Digests {
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    pub(super) fn bucket(&self, index: u8) -> u64 {
        self.buckets.as_ref().map_or(0, |buckets| buckets[usize::from(index)])
    }

    #[inline]
    pub(super) fn add(&mut self, key_hash: u64, entry_hash: u64) {
        self.root = self.root.wrapping_add(entry_hash);
        let bucket = &mut self.buckets.get_or_insert_with(|| Box::new([0; 256]))[bucket_of(key_hash)];
        *bucket = bucket.wrapping_add(entry_hash);
    }

    /// Removes one and adds another of the same key.
    #[inline]
    pub(super) fn replace(&mut self, key_hash: u64, old_hash: u64, new_hash: u64) {
        self.add(key_hash, new_hash.wrapping_sub(old_hash));
    }

    #[inline]
    pub(super) fn remove(&mut self, key_hash: u64, entry_hash: u64) {
        self.add(key_hash, entry_hash.wrapping_neg());
    }

    pub(super) fn bytes(&self) -> u64 {
        if self.buckets.is_some() { size_of::<[u64; 256]>() as u64 } else { 0 }
    }
}

#[inline]
fn bucket_of(key_hash: u64) -> usize {
    (key_hash >> 56) as usize
}

/// The hash of an entry: of its key (by hash), kind, version, expiry and value (by hash).
#[inline]
pub(super) fn entry_hash(
    key_hash: u64,
    kind: u8,
    version: Version,
    expire_at_ms: u64,
    value_hash: u64,
) -> u64 {
    // Odd constants of high entropy: the fractional part of the golden ratio and of square roots.
    let identity = fold(key_hash ^ 0x9E37_79B9_7F4A_7C15, version.0 ^ 0x6A09_E667_F3BC_C909);
    let content = fold(value_hash ^ 0xBB67_AE85_84CA_A73B, expire_at_ms ^ 0x3C6E_F372_FE94_F82B);
    fold(identity ^ 0xA54F_F53A_5F1D_36F1, content.rotate_left(23) ^ u64::from(kind) ^ 0x510E_527F_ADE6_82D1)
}

/// The two halves of the 128-bit product, folded: every input bit reaches every output bit.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}
