//! Records: the effects of writes, as they travel to backups and learners.
//!
//! A record is an *effect* (a final value, an absolute expiry or a delete), never a command: every
//! data type and atomic operation replicates the same way (DESIGN "Writes").

use super::ids::{MapId, Version};
use super::store::EntryKind;

/// What a record does to one key, borrowing from where it was decoded or is to be encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// The key now has this value.
    Put {
        /// The map of the key.
        map: MapId,
        /// The key.
        key: &'a [u8],
        /// The final value.
        value: &'a [u8],
        /// What the value is.
        kind: EntryKind,
        /// Absolute expiry in wall milliseconds; 0 is never.
        expire_at_ms: u64,
        /// The version of this value.
        version: Version,
    },
    /// The key is gone: by DEL, expiry or eviction.
    Delete {
        /// The map of the key.
        map: MapId,
        /// The key.
        key: &'a [u8],
        /// The version of the delete.
        version: Version,
    },
    /// All keys of one map in this partition are gone.
    Clear {
        /// The map.
        map: MapId,
        /// The version of the clear.
        version: Version,
    },
}
