//! A cluster of real processes, things that happen to it, and clients that notice.
//!
//! A *row* (`rows`) is one kind of fault. To run it, a [`Stage`](stage::Stage) starts five nodes on
//! a `network`, lets `loads` work on them, does the fault, waits until the cluster has healed, and
//! hands what the clients saw (`history`) to the `checks`. The outcome is a
//! [`Report`](report::Report); `timeline` draws it.
//!
//! Everything that is started (processes, namespaces, relays) ends when its value is dropped, also
//! by a panic.

pub mod bulk;
pub mod checks;
pub mod history;
pub mod loads;
pub mod namespaces;
pub mod network;
pub mod nodes;
pub mod relay;
pub mod report;
pub mod rows;
pub mod stage;
pub mod throttle;
pub mod timeline;
