//! Frames: how messages follow each other on a byte stream.
//!
//! A frame is a length (u32, little-endian) and that many bytes. Each [`Class`] has its own stream
//! and its own bound. A length beyond the bound ends the stream before anything is allocated, and
//! a buffer grows with the bytes that arrived, never with the length that was announced.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What a stream between two nodes carries. Each class is ordered in itself, not against others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Replication, forwarded commands and their replies.
    Hot,
    /// Small messages that must not wait behind the others: leases, table news, seals.
    Control,
    /// Snapshots and repairs: whatever can wait.
    Bulk,
}

/// Bytes of a frame's length prefix.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// Frames up to this size are copied into one write; larger ones travel without a copy.
const COALESCE_BYTES_MAX: usize = 4 << 10;
/// A coalesced write is cut at this size.
const COALESCED_BYTES_MAX: usize = 64 << 10;
/// The most that is reserved for an unfinished frame before its bytes arrive: a snapshot's chunk fits.
const RESERVE_BYTES_MAX: usize = 128 << 10;

impl Class {
    /// All classes, in the order of [`Class::index`].
    pub const ALL: [Class; 3] = [Class::Hot, Class::Control, Class::Bulk];

    /// The largest frame of this class, in bytes, prefix excluded: a value of 64 MiB with its key and
    /// headers fits, when it is written and when its copy is made.
    pub const fn frame_bytes_max(self) -> usize {
        match self {
            Class::Hot | Class::Control | Class::Bulk => 80 << 20,
        }
    }

    /// The order in which streams get the wire: higher goes first.
    pub const fn priority(self) -> i32 {
        match self {
            Class::Control => 2,
            Class::Hot => 1,
            Class::Bulk => 0,
        }
    }

    /// The byte that opens a stream of this class.
    pub const fn tag(self) -> u8 {
        match self {
            Class::Hot => 1,
            Class::Control => 2,
            Class::Bulk => 3,
        }
    }

    /// The class of a stream opened by this byte.
    pub const fn from_tag(tag: u8) -> Option<Class> {
        match tag {
            1 => Some(Class::Hot),
            2 => Some(Class::Control),
            3 => Some(Class::Bulk),
            _ => None,
        }
    }

    /// As an index into per-class arrays.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Why a stream of frames cannot go on. What was decoded before it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced length is beyond the class's bound.
    #[error("a frame of {announced} bytes, at most {bound} are allowed")]
    TooLong {
        /// The length announced, in bytes.
        announced: usize,
        /// The bound, in bytes.
        bound: usize,
    },
}

/// Cuts a byte stream into frames.
///
/// A frame that lies inside one chunk is handed out as a slice of it, without a copy: whoever
/// keeps a frame for long keeps its whole chunk and should copy.
///
/// ```
/// use bytes::Bytes;
/// use ringdove::engine::frame::{Class, FrameDecoder};
/// let mut frames = Vec::new();
/// let mut decoder = FrameDecoder::new(Class::Hot.frame_bytes_max());
/// decoder.push(Bytes::from_static(b"\x02\0\0\0hi\x03\0"), &mut frames).unwrap();
/// decoder.push(Bytes::from_static(b"\0\0you"), &mut frames).unwrap();
/// assert_eq!(frames, ["hi", "you"]);
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    frame_bytes_max: usize,
    /// The beginning of an unfinished frame, its prefix included.
    partial: BytesMut,
}

impl FrameDecoder {
    /// A decoder for frames of at most `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> FrameDecoder {
        FrameDecoder { frame_bytes_max, partial: BytesMut::new() }
    }

    /// Takes the next bytes of the stream and appends the frames that they complete.
    ///
    /// # Errors
    /// [`FrameError::TooLong`]: the stream cannot go on; the frames appended so far are good.
    pub fn push(&mut self, mut chunk: Bytes, frames: &mut Vec<Bytes>) -> Result<(), FrameError> {
        if !self.partial.is_empty() {
            match self.complete_partial(&mut chunk)? {
                Some(frame) => frames.push(frame),
                None => return Ok(()),
            }
        }
        while let Some(length) = self.announced(&chunk)? {
            let whole = FRAME_PREFIX_BYTES + length;
            if chunk.len() < whole {
                self.partial.reserve(whole.min(RESERVE_BYTES_MAX));
                break;
            }
            chunk.advance(FRAME_PREFIX_BYTES);
            frames.push(chunk.split_to(length));
        }
        self.partial.extend_from_slice(&chunk);
        Ok(())
    }

    /// Whether the stream may end here: no frame has begun.
    pub fn is_at_boundary(&self) -> bool {
        self.partial.is_empty()
    }

    /// Moves bytes from `chunk` to the unfinished frame; returns it if that completes it.
    fn complete_partial(&mut self, chunk: &mut Bytes) -> Result<Option<Bytes>, FrameError> {
        let prefix_missing = FRAME_PREFIX_BYTES.saturating_sub(self.partial.len());
        let taken = chunk.split_to(prefix_missing.min(chunk.len()));
        self.partial.extend_from_slice(&taken);
        let Some(length) = self.announced(&self.partial)? else {
            return Ok(None);
        };
        let missing = FRAME_PREFIX_BYTES + length - self.partial.len();
        let taken = chunk.split_to(missing.min(chunk.len()));
        self.partial.extend_from_slice(&taken);
        if taken.len() < missing {
            return Ok(None);
        }
        let mut frame = std::mem::take(&mut self.partial);
        frame.advance(FRAME_PREFIX_BYTES);
        Ok(Some(frame.freeze()))
    }

    /// The length that the prefix at the start of `bytes` announces, once it is there.
    fn announced(&self, bytes: &[u8]) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = bytes.first_chunk::<FRAME_PREFIX_BYTES>() else {
            return Ok(None);
        };
        let announced = u32::from_le_bytes(*prefix) as usize;
        if announced > self.frame_bytes_max {
            return Err(FrameError::TooLong { announced, bound: self.frame_bytes_max });
        }
        Ok(Some(announced))
    }
}

/// Appends `frames`, each behind its length, as chunks ready to be written. Drains `frames`.
///
/// Small neighbours share one chunk, so that a batch costs few writes; a large frame is its own
/// chunk and isn't copied. A frame must be at most `u32::MAX` bytes; the caller bounds it by
/// [`Class::frame_bytes_max`].
pub fn encode_frames(frames: &mut Vec<Bytes>, chunks: &mut Vec<Bytes>) {
    let mut coalesced = BytesMut::new();
    for frame in frames.drain(..) {
        debug_assert!(u32::try_from(frame.len()).is_ok());
        if coalesced.len() >= COALESCED_BYTES_MAX {
            chunks.push(coalesced.split().freeze());
        }
        coalesced.put_u32_le(frame.len() as u32);
        if frame.len() <= COALESCE_BYTES_MAX {
            coalesced.extend_from_slice(&frame);
        } else {
            chunks.push(coalesced.split().freeze());
            chunks.push(frame);
        }
    }
    if !coalesced.is_empty() {
        chunks.push(coalesced.freeze());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tags_round_trip() {
        for class in Class::ALL {
            assert_eq!(Class::from_tag(class.tag()), Some(class));
            assert_eq!(Class::ALL[class.index()], class);
        }
        assert_eq!(Class::from_tag(0), None);
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_its_bytes() {
        let mut decoder = FrameDecoder::new(10);
        let mut frames = Vec::new();
        let error = decoder.push(Bytes::from_static(b"\x01\0\0\0x\x0b\0\0\0"), &mut frames);
        assert_eq!(error, Err(FrameError::TooLong { announced: 11, bound: 10 }));
        assert_eq!(frames, ["x"]);
    }

    #[test]
    fn an_announced_length_reserves_little() {
        let mut decoder = FrameDecoder::new(Class::Hot.frame_bytes_max());
        let announced = (Class::Hot.frame_bytes_max() as u32).to_le_bytes();
        decoder.push(Bytes::copy_from_slice(&announced), &mut Vec::new()).unwrap();
        assert!(decoder.partial.capacity() <= 2 * RESERVE_BYTES_MAX);
        assert!(!decoder.is_at_boundary());
    }

    #[test]
    fn a_frame_inside_a_chunk_is_not_copied() {
        let chunk = Bytes::from(b"\x03\0\0\0abc".to_vec());
        let mut frames = Vec::new();
        FrameDecoder::new(10).push(chunk.clone(), &mut frames).unwrap();
        assert_eq!(frames[0].as_ptr(), chunk[4..].as_ptr());
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            sizes in prop::collection::vec(prop_oneof![0usize..50, 3_000usize..6_000], 0..30),
            cuts in prop::collection::vec(1usize..5_000, 1..50),
        ) {
            let sent: Vec<Bytes> =
                sizes.iter().enumerate().map(|(i, &n)| Bytes::from(vec![i as u8; n])).collect();
            let mut chunks = Vec::new();
            encode_frames(&mut sent.clone(), &mut chunks);
            let mut stream = Bytes::from(chunks.concat());
            let mut decoder = FrameDecoder::new(6_000);
            let mut received = Vec::new();
            for cut in cuts.iter().cycle() {
                if stream.is_empty() {
                    break;
                }
                let chunk = stream.split_to((*cut).min(stream.len()));
                decoder.push(chunk, &mut received).unwrap();
            }
            prop_assert_eq!(received, sent);
            prop_assert!(decoder.is_at_boundary());
        }
    }
}
