//! Every operation is answered, and answered once, as long as the node that was asked lives.

use crate::engine::ids::NodeId;
use std::collections::BTreeMap;

/// The operations that engines still owe an answer for, also those that clients gave up.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    open: BTreeMap<u64, NodeId>,
}

impl Tickets {
    /// An engine accepted an operation and will answer later.
    pub(super) fn open(&mut self, number: u64, node: NodeId) {
        self.open.insert(number, node);
    }

    /// An engine answered.
    pub(super) fn answered(&mut self, number: u64, node: NodeId) -> Result<(), String> {
        match self.open.remove(&number) {
            Some(asked) if asked == node => Ok(()),
            Some(asked) => Err(format!("{node} answers what {asked} was asked")),
            None => Err(format!("{node} answers operation {number} again")),
        }
    }

    /// Whether a node that `lives` still owes an answer.
    pub(super) fn check(&self, lives: impl Fn(NodeId) -> bool) -> Result<(), String> {
        match self.open.iter().find(|(_, node)| lives(**node)) {
            Some((number, node)) => Err(format!("{node} never answered operation {number}")),
            None => Ok(()),
        }
    }
}
