//! Long values beside the buffers of a connection: on their way in, and on their way out.

use crate::engine::op::Splice;

/// Long values of replies, each with its place in the output.
#[derive(Debug, Default)]
pub(super) struct LongOutput {
    splices: Vec<Splice>,
    bytes: usize,
}

impl LongOutput {
    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds one behind the others.
    pub(super) fn push(&mut self, splice: Splice) {
        self.bytes += splice.bytes.len();
        self.splices.push(splice);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        if !self.splices.is_empty() {
            *self = LongOutput::default();
        }
    }

    /// What is in one piece from `at` on, where these values are put into `output`; nothing at the end only.
    pub(super) fn piece<'a>(&'a self, output: &'a [u8], mut at: usize) -> &'a [u8] {
        let mut start = 0;
        for splice in &self.splices {
            let before = splice.at - start;
            if at < before {
                return &output[start + at..splice.at];
            }
            at -= before;
            if at < splice.bytes.len() {
                return &splice.bytes[at..];
            }
            at -= splice.bytes.len();
            start = splice.at;
        }
        output.get(start + at..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_from_every_place() {
        let mut long = LongOutput::default();
        for (at, bytes) in [(0, "AB"), (2, "CDE"), (2, "F"), (4, "G")] {
            long.push(Splice { at, bytes: bytes.into() });
        }
        let (output, whole) = (b"abcd", b"ABabCDEFcdG");
        for from in 0..=whole.len() {
            let (mut at, mut taken) = (from, Vec::new());
            while !long.piece(output, at).is_empty() {
                taken.extend_from_slice(long.piece(output, at));
                at = from + taken.len();
            }
            assert_eq!(taken, whole[from..]);
        }
        assert_eq!(long.bytes(), 7);
        long.clear();
        assert_eq!(long.piece(output, 1), b"bcd");
    }
}
