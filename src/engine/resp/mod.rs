//! The Redis serialization protocol, both ways and in both versions.
//!
//! - [`Decoder`] cuts a read buffer into commands without copying.
//! - [`ReplyWriter`] encodes replies as RESP2 or RESP3.
//! - [`Reply`] is what a client parses back.
//!
//! Source: the Redis serialization protocol specification (RESP2, and RESP3 as negotiated by HELLO).

mod decoder;
mod inline;
mod reply;
mod writer;

pub use decoder::{
    COMMON_ARGS_MAX, CommonArgs, Decoded, Decoder, DecoderLimits, Front, LONG_BYTES_MIN, ProtocolError, Trust,
};
pub use reply::{Reply, ReplyError, ReplyLimits};
pub use writer::ReplyWriter;

use serde::{Deserialize, Serialize};

/// Which version of the protocol a client asked for with HELLO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proto {
    /// RESP2: what a connection speaks until it says otherwise.
    #[default]
    Resp2,
    /// RESP3: adds nulls, maps, sets, doubles, booleans and verbatim strings.
    Resp3,
}
