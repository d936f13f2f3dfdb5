//! The controller in a tiny virtual cluster: one test a rule, and random histories.

pub(super) mod cluster;
mod random;
mod rules;
mod small;
