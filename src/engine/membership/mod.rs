//! Membership: who is in the cluster, and who is suspected of having gone.
//!
//! SWIM gossip (Das, Gupta and Motivala, 2002) by the `foca` crate, with guards around it that
//! keep a lossy network or a slow node of our own from declaring healthy nodes dead:
//!
//! - g1: a suspicion that was refuted in the meantime is dropped, not carried out;
//! - g2: it waits while we hear nobody (we are the deaf one) or have just been paused;
//! - g3: it waits while our QUIC link to the suspect is live;
//! - g4: every few seconds the whole state is exchanged with one random member;
//! - g5: our timeouts stretch when our own health is doubtful (Lifeguard, Dadgar et al., 2017).
//!
//! Suspicion only ever costs latency, never safety: nothing here decides who owns what.
//!
//! **Architecture Invariant:** time, entropy and datagrams come in as arguments; everything that
//! should happen outside comes out of [`Membership::poll`]. The same calls with the same seed give
//! the same outputs.
//!
//! The tour: [`identity`](GossipId) (who), [`config`](MembershipConfig) (the settings), `wire`
//! (a datagram's bytes), `timers`, `health` and `suspicion` (the guards), `roster` (what is known
//! of each member), `effects` (foca's wishes), `protocol` ([`Membership`] itself).

mod config;
mod counters;
mod effects;
mod health;
mod identity;
mod protocol;
mod roster;
mod suspicion;
mod timers;
mod wire;

#[cfg(test)]
mod cluster_tests;

pub use config::MembershipConfig;
pub use counters::MembershipCounters;
pub use identity::GossipId;
pub use protocol::{Membership, MembershipOutput};
pub use roster::{MemberState, MemberView};
pub use wire::DATAGRAM_BYTES_MAX;
