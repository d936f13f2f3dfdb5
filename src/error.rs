//! What can go wrong with a command, as clients and embedding programs see it.

/// Why a command gave no result.
///
/// [`Error::write_outcome`] says of each variant whether a write was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The partition was changing hands for as long as the deadline allowed.
    #[error("the partition is changing hands; try again")]
    TryAgain,
    /// Fewer live copies than the cluster wants for a write.
    #[error("fewer live copies than a write needs")]
    NoReplicas,
    /// No majority, or no primary for the key.
    #[error("the cluster is down: no majority, or no primary")]
    ClusterDown,
    /// Memory is full and the policy evicts nothing.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The key holds something else than the operation works on.
    #[error("the key holds the wrong kind of value")]
    WrongType,
    /// The node refuses to talk to us without authentication.
    #[error("not authorised: {0}")]
    NotAuthorised(String),
    /// Any other error reply: the command itself was wrong. The text is the reply's.
    #[error("{0}")]
    Command(String),
    /// The key, the value or the whole request is larger than accepted.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The map is not known to the cluster (any more).
    #[error("no such map")]
    UnknownMap,
    /// The map can't be defined: a bad name, or too many maps.
    #[error("the map cannot be opened: {0}")]
    MapRefused(String),
    /// No node could be reached before the deadline.
    #[error("no node of the cluster could be reached: {0}")]
    Unreachable(String),
    /// The deadline passed before the command could be sent, or while a read was under way.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The node this handle belongs to, or the client, has been shut down.
    #[error("shut down")]
    ShutDown,
    /// The write was sent and its fate is not known: it may or may not have been done.
    #[error("in doubt: the write may or may not have been done")]
    InDoubt,
    /// The key or value can't be encoded.
    #[error("cannot encode: {0}")]
    Encode(String),
    /// The command ran, and the value or key that came back isn't of the type asked for.
    #[error("cannot decode what is stored: {0}")]
    Decode(String),
    /// The command ran, and its reply isn't of the kind it should be.
    #[error("unexpected reply: {0}")]
    UnexpectedReply(String),
}

/// Whether a write that failed was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was not, and won't be.
    NotDone,
    /// It was; only its result was of no use.
    Done,
    /// It may have been.
    Unknown,
}

impl Error {
    /// Whether the write that failed with this error was done. Of no meaning for a read.
    pub fn write_outcome(&self) -> WriteOutcome {
        match self {
            Error::TryAgain
            | Error::NoReplicas
            | Error::ClusterDown
            | Error::OutOfMemory(_)
            | Error::WrongType
            | Error::NotAuthorised(_)
            | Error::Command(_)
            | Error::TooLarge(_)
            | Error::UnknownMap
            | Error::MapRefused(_)
            | Error::Unreachable(_)
            | Error::DeadlineExceeded
            | Error::ShutDown
            | Error::Encode(_) => WriteOutcome::NotDone,
            Error::Decode(_) => WriteOutcome::Done,
            Error::InDoubt | Error::UnexpectedReply(_) => WriteOutcome::Unknown,
        }
    }

    /// The error that an error reply means. `text` is the reply without its `-`, its code first.
    pub fn of_reply(text: &str) -> Error {
        let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
        match code {
            "TRYAGAIN" | "MOVED" | "ASK" | "LOADING" => Error::TryAgain,
            "NOREPLICAS" => Error::NoReplicas,
            "CLUSTERDOWN" => Error::ClusterDown,
            "INDOUBT" => Error::InDoubt,
            "OOM" => Error::OutOfMemory(rest.to_owned()),
            "WRONGTYPE" => Error::WrongType,
            "NOAUTH" | "NOPERM" | "WRONGPASS" => Error::NotAuthorised(rest.to_owned()),
            _ => Error::Command(text.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_errors_by_their_code() {
        assert_eq!(Error::of_reply("CLUSTERDOWN no majority"), Error::ClusterDown);
        assert_eq!(
            Error::of_reply("OOM command not allowed"),
            Error::OutOfMemory("command not allowed".into())
        );
        assert_eq!(Error::of_reply("ERR syntax error"), Error::Command("ERR syntax error".into()));
        assert_eq!(Error::of_reply("INDOUBT").write_outcome(), WriteOutcome::Unknown);
    }
}
