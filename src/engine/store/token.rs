//! Fencing tokens: what makes a lock's holder distinguishable from all earlier ones.

use crate::engine::ids::{Epoch, Incarnation, Sequence};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The fencing token of a lock: it only grows (invariant h), by lexicographic order.
///
/// Shown as `incarnation-epoch-sequence`, each as a decimal number.
///
/// ```
/// use ringdove::engine::ids::{Epoch, Incarnation, Sequence};
/// use ringdove::engine::store::FencingToken;
/// let early = FencingToken { incarnation: Incarnation(1), epoch: Epoch(2), sequence: Sequence(9) };
/// let later = FencingToken { epoch: Epoch(3), sequence: Sequence(1), ..early };
/// assert!(later > early);
/// assert_eq!(early.to_string(), "1-2-9");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FencingToken {
    /// The life of the cluster.
    pub incarnation: Incarnation,
    /// The reign of the primary that gave the lock.
    pub epoch: Epoch,
    /// The position of the record that took the lock.
    pub sequence: Sequence,
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.incarnation.0, self.epoch.0, self.sequence.0)
    }
}
