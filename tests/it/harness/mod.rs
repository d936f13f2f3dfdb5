//! What the tests are built from.

pub mod cluster;
pub mod http;
pub mod load;
pub mod process;
pub mod resp;
pub mod tools;
pub mod wait;
