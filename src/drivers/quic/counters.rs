//! What the mesh counts.

use std::cell::Cell;

/// A reading of the mesh's counters, all since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeshCounters {
    /// Links that a peer dialled.
    pub links_accepted: u64,
    /// Links that we dialled.
    pub links_dialled: u64,
    /// Links that ended, for any reason.
    pub links_ended: u64,
    /// Times that the last link to a peer was lost without either side wishing it.
    pub links_lost: u64,
    /// Connections of clients accepted.
    pub clients_accepted: u64,
    /// Connections in which one side didn't accept the other's certificate.
    pub refused_untrusted: u64,
    /// Connections sent away after their hello, or without a valid one.
    pub refused_hello: u64,
    /// Connection attempts dropped because too many were under way.
    pub refused_busy: u64,
    /// Frames refused because their queue was full or they were too long.
    pub frames_refused: u64,
    /// Bytes received on links, in UDP payloads.
    pub bytes_in: u64,
    /// Bytes sent on links, in UDP payloads.
    pub bytes_out: u64,
}

impl MeshCounters {
    /// All of them with their names, for metrics.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("links_accepted", self.links_accepted),
            ("links_dialled", self.links_dialled),
            ("links_ended", self.links_ended),
            ("links_lost", self.links_lost),
            ("clients_accepted", self.clients_accepted),
            ("refused_untrusted", self.refused_untrusted),
            ("refused_hello", self.refused_hello),
            ("refused_busy", self.refused_busy),
            ("frames_refused", self.frames_refused),
            ("bytes_in", self.bytes_in),
            ("bytes_out", self.bytes_out),
        ]
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(super) struct Counters(Cell<MeshCounters>);

impl Counters {
    pub(super) fn read(&self) -> MeshCounters {
        self.0.get()
    }

    /// Changes the counters, as in `count(|c| c.links_ended += 1)`.
    pub(super) fn count(&self, change: impl FnOnce(&mut MeshCounters)) {
        let mut counters = self.0.get();
        change(&mut counters);
        self.0.set(counters);
    }
}
