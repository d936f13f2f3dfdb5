//! The storage engine: one [`Arena`] a node for the bytes, one [`Shard`] a partition for the index.

use super::hlc::Hlc;
use super::ids::{MapId, Version};
use super::time::Now;

/// What an entry's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EntryKind {
    /// A string: any bytes.
    String = 0,
    /// A lock: see the lock commands.
    Lock = 1,
}
