//! Whole clusters of the production engine under virtual time, decided by one seed.

pub mod cluster;
pub mod linearizability;
