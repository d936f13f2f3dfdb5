//! Why a command is refused, and the text that a client gets.

use thiserror::Error;

/// A command that was refused *before* it changed anything. Its `Display` is the RESP error.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No command of this name; the text quotes the name and the arguments.
    #[error("ERR unknown command '{name}', with args beginning with: {arguments}")]
    UnknownCommand {
        /// The name as sent, at most 128 bytes of it.
        name: String,
        /// The first arguments, quoted, at most some 128 bytes.
        arguments: String,
    },
    /// No subcommand of this name.
    #[error("ERR unknown subcommand '{name}'. Try {container} HELP.")]
    UnknownSubcommand {
        /// The subcommand as sent.
        name: String,
        /// The command, in upper case.
        container: String,
    },
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(&'static str),
    /// Arguments that don't follow the command's grammar.
    #[error("ERR syntax error")]
    Syntax,
    /// Keys of several slots in a command that needs one.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    /// The key holds something else than the command works on.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Not a 64-bit signed integer.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// Not a floating-point number.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The sum does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The decrement's negation does not fit 64 bits.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// The sum is no number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// An expiry that is not positive, or overflows.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// A negative offset.
    #[error("ERR offset is out of range")]
    Offset,
    /// A value beyond the limit.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    ValueTooLong,
    /// A key beyond the limit.
    #[error("ERR key exceeds maximum allowed size ({bytes_max} bytes)")]
    KeyTooLong {
        /// The limit.
        bytes_max: usize,
    },
    /// The key must exist and does not.
    #[error("ERR no such key")]
    NoSuchKey,
    /// COPY onto itself.
    #[error("ERR source and destination objects are the same")]
    SameObject,
    /// A database other than 0.
    #[error("ERR DB index is out of range")]
    DatabaseIndex,
    /// A database that is no 32-bit number.
    #[error("ERR value is out of range, value must between -2147483648 and 2147483647")]
    NotInt,
    /// A SCAN cursor that is none.
    #[error("ERR invalid cursor")]
    Cursor,
    /// NX with XX, GT or LT.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    ExpireNx,
    /// GT with LT.
    #[error("ERR GT and LT options at the same time are not compatible")]
    ExpireGtLt,
    /// An unknown option of the EXPIRE family.
    #[error("ERR Unsupported option {0}")]
    Option(String),
    /// A slot beyond 16,383, or none at all.
    #[error("ERR Invalid or out of range slot")]
    Slot,
    /// A lease that is not a positive number of milliseconds.
    #[error("ERR invalid lease in '{0}' command")]
    Lease(&'static str),
    /// The command is answered by connections and has no meaning at a partition.
    #[error("ERR command '{0}' does not run at a partition")]
    NotForPartitions(&'static str),
    /// Any other text, its code first.
    #[error("{0}")]
    Text(String),
}

impl Refusal {
    /// `ERR` and the text.
    pub fn err(text: impl std::fmt::Display) -> Refusal {
        Refusal::Text(format!("ERR {text}"))
    }
}
