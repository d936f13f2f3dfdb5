//! Whole nodes as processes of their own, used as people and programs use them: started, joined,
//! loaded, killed, stopped, misused.
//!
//! One binary, as linking it takes longer than most of its tests. Tests that start nodes take
//! turns (see [`harness::cluster`]): what they time would otherwise measure each other.
//!
//! A test that needs a program which isn't installed says that it skips; with
//! `RINGDOVE_REQUIRE_CLIENTS=1` it fails.

mod harness;

mod bad_input;
mod browser;
mod clients;
mod command_line;
mod comparing;
mod crowds;
mod differential;
mod examples;
mod failover;
mod forming;
mod fuzz_smoke;
mod instructions;
mod joining;
mod security;
mod tidy;
