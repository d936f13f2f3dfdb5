//! Long values: shared by count instead of copied, and hashed as they come in.

use bytes::Bytes;
use std::collections::TryReserveError;
use xxhash_rust::xxh3::Xxh3;

/// A value of an entry that has an allocation of its own, with its hash. The allocation is exactly as long as it.
#[derive(Clone, PartialEq, Eq)]
pub struct LongValue {
    bytes: Bytes,
    hash: u64,
}

impl LongValue {
    /// A copy of `value`, whose XXH3-64 is known.
    pub(super) fn copied(value: &[u8], hash: u64) -> LongValue {
        LongValue { bytes: Bytes::from(Box::<[u8]>::from(value)), hash }
    }

    /// The bytes, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// XXH3-64 of the bytes.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether `value` is this one: not equal, but the very same memory.
    pub fn is(&self, value: &[u8]) -> bool {
        std::ptr::eq(&*self.bytes, value)
    }
}

impl std::fmt::Debug for LongValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LongValue({} bytes)", self.bytes.len())
    }
}

/// A value on its way into an entry, its hash where that is known already.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'a> {
    /// The value.
    pub bytes: &'a [u8],
    /// The same, if it can be kept without a copy.
    pub long: Option<&'a LongValue>,
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for NewValue<'a> {
    #[inline]
    fn from(bytes: &'a T) -> NewValue<'a> {
        NewValue { bytes: bytes.as_ref(), long: None }
    }
}

/// A long value that is being received, in an allocation of exactly its length. The system gives its memory as
/// bytes come in.
pub struct LongInput {
    bytes: Vec<u8>,
    length: usize,
    hasher: Box<Xxh3>,
    /// How many of the bytes are hashed.
    hashed: usize,
}

impl LongInput {
    /// Room for a value of `length` bytes.
    ///
    /// # Errors
    /// When there is no such room.
    pub fn new(length: usize) -> Result<LongInput, TryReserveError> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length)?;
        Ok(LongInput { bytes, length, hasher: Box::new(Xxh3::new()), hashed: 0 })
    }

    /// Where its next bytes are appended: at most [`LongInput::missing`].
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Bytes received.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether none has been received.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes still to come.
    pub fn missing(&self) -> usize {
        self.length - self.bytes.len()
    }

    /// Takes note of the bytes that were appended.
    pub fn advance(&mut self) {
        assert!(self.bytes.len() <= self.length, "no more is read than is missing");
        self.hasher.update(&self.bytes[self.hashed..]);
        self.hashed = self.bytes.len();
    }

    /// The value, once it is whole.
    pub fn finish(mut self) -> LongValue {
        self.advance();
        debug_assert_eq!(self.missing(), 0);
        LongValue { hash: self.hasher.digest(), bytes: self.bytes.into() }
    }
}

impl std::fmt::Debug for LongInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LongInput({} of {} bytes)", self.bytes.len(), self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn hashed_in_pieces_as_in_one() {
        let value: Vec<u8> = (0..100_000u32).map(|at| (at * 7 % 251) as u8).collect();
        for piece in [1_000, 1_024, 9_999, 100_000] {
            let mut input = LongInput::new(value.len()).expect("room");
            for bytes in value.chunks(piece) {
                assert!(bytes.len() <= input.missing());
                input.bytes().extend_from_slice(bytes);
                input.advance();
            }
            let (start, room) = (input.bytes.as_ptr(), input.bytes.capacity());
            assert_eq!(room, value.len());
            let received = input.finish();
            assert_eq!(received, LongValue::copied(&value, xxh3_64(&value)));
            assert_eq!(received.bytes().as_ptr(), start, "not copied");
            assert!(received.is(&received.clone().bytes()[..]) && !received.is(&value));
        }
    }
}
