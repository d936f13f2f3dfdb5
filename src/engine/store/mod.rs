//! The storage engine: one [`Arena`] a node for the bytes, one [`Shard`] a partition for the
//! index, and the [`Keyspace`] that commands see.
//!
//! - [`Arena`] holds every entry (header, key and value in one piece) in pages of equal
//!   slots, 16 sizes a doubling; beyond 62 KiB the value has an allocation of its own, a [`LongValue`].
//! - A shard's index is a linear-probing table of 64-bit slots (32 bits of hash, 32 bits of where
//!   in the arena), *kept in hash order* and cut into segments of a few thousand. So growing moves
//!   a bounded number of slots, and a scan by hash prefix is a walk.
//! - [`Keyspace`] decides expiry and eviction (the primary's decisions) and turns every change
//!   into a record; [`Shard::apply`] is what backups do with those records.
//!
//! **Architecture Invariant:** key bytes are always compared; a hash alone never identifies a key.

mod arena;
mod block;
mod digest;
mod entry;
mod eviction;
mod index;
mod keyspace;
mod long;
mod segment;
mod shard;
#[cfg(test)]
mod tests;
mod token;

pub use arena::Arena;
pub use entry::{EntryKind, EntryView, KeyRef, touch as touch_entry};
pub use eviction::{Eviction, UnknownEviction};
pub use keyspace::{Keyspace, KeyspaceContext};
pub use long::{LongInput, LongValue, NewValue};
pub use shard::{ScanLimit, Shard};
pub use token::FencingToken;
