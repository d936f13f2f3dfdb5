//! Whole clusters of the production engine under virtual time, decided by one seed.
//!
//! The tour, from the ground up:
//! - [`random`]: the one source of chance. [`network`]: delay, loss, duplicates, cuts, links.
//!   [`clock`]: each machine's own idea of time. [`agreed_log`]: what openraft does in production, as
//!   a service.
//! - [`cluster`]: engines, events and time.
//! - [`scenario`]: one run from a seed, on its [`terms`], with its [`faults`] and the clients of
//!   [`workload`]; a [`rogue`] member, where it is asked for.
//!   [`branches`]: who went on from what when a small cluster was split.
//! - [`campaign`]: many runs on all cores. [`fleet`]: a thousand nodes without data.
//! - [`checks`]: the invariants. [`linearizability`]: whether a history has an explanation.

pub mod agreed_log;
pub mod branches;
pub mod campaign;
pub mod checks;
pub mod clock;
pub mod cluster;
mod counts;
#[cfg(test)]
mod eviction_tests;
pub mod faults;
pub mod fleet;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod leave_tests;
pub mod linearizability;
#[cfg(test)]
mod long_value_tests;
pub mod network;
#[cfg(test)]
mod pause_tests;
pub mod random;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod refusal_tests;
pub mod rogue;
pub mod scenario;
#[cfg(test)]
mod split_tests;
pub mod terms;
#[cfg(test)]
mod testing;
pub mod workload;
