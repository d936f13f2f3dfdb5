//! What the table says about a command.

use super::execution::Execution;
use super::refusal::Refusal;
use std::ops::BitOr;

/// Runs a command at its partition's primary, atomically, and writes its reply.
///
/// An `Err` is written as the reply by [`execute`](super::execute); a function that returns one has
/// changed and written nothing.
pub type Exec = fn(&mut Execution<'_, '_>) -> Result<(), Refusal>;

/// A command, or one of its subcommands.
#[derive(Debug)]
pub struct CommandSpec {
    /// In lower case; a subcommand is named `container|subcommand`.
    pub name: &'static str,
    /// Arguments, names included: exactly so many, or at least `-arity` if negative.
    pub arity: i16,
    /// What it does and who may ask for it.
    pub flags: Flags,
    /// Which arguments are keys.
    pub keys: KeyPositions,
    /// Where it runs.
    pub route: Route,
    /// What runs at the partition; refuses if `route` is [`Route::Session`].
    pub exec: Exec,
    /// One line for humans.
    pub summary: &'static str,
    /// The family it is documented with.
    pub group: Group,
    /// The version of Redis that introduced it, or of ringdove for its own.
    pub since: &'static str,
    /// Its subcommands, if it is a container.
    pub subcommands: &'static [CommandSpec],
}

/// Properties of a command, under the names that COMMAND INFO gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// None.
    pub const NONE: Flags = Flags(0);
    /// Changes keys: needs enough copies.
    pub const WRITE: Flags = Flags(1);
    /// Reads keys and changes none.
    pub const READONLY: Flags = Flags(1 << 1);
    /// Refused when memory is full, for it may use more.
    pub const DENYOOM: Flags = Flags(1 << 2);
    /// For operators.
    pub const ADMIN: Flags = Flags(1 << 3);
    /// Constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 4);
    /// Allowed before authentication.
    pub const NO_AUTH: Flags = Flags(1 << 5);
    /// Not allowed in scripts, had we any; kept for COMMAND INFO.
    pub const NOSCRIPT: Flags = Flags(1 << 6);
    /// Answered also while the cluster has no majority.
    pub const STALE: Flags = Flags(1 << 7);
    /// A read that trusts no clock: all copies confirm the primary before it is answered.
    pub const FENCED: Flags = Flags(1 << 8);

    /// Of one key, it only reads the string there: with its name and that key alone, the reply is that, in a list of
    /// one if the command takes many.
    pub const PLAIN_READ: Flags = Flags(1 << 9);

    const NAMES: [(Flags, &'static str); 8] = [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENYOOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::NOSCRIPT, "noscript"),
        (Flags::STALE, "stale"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
    ];

    /// Whether all of `other` are set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both together, where `|` can't be used.
    pub const fn and(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The names of those set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES.into_iter().filter(move |(flag, _)| self.has(*flag)).map(|(_, name)| name)
    }
}

impl BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.and(other)
    }
}

/// Which arguments are keys: every `step`th from `first` to `last`. `first` 0 means none, a
/// negative `last` counts from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPositions {
    /// Index of the first key; the command's name is 0.
    pub first: u8,
    /// Index of the last key.
    pub last: i8,
    /// From one key to the next.
    pub step: u8,
}

impl KeyPositions {
    /// No key.
    pub const NONE: KeyPositions = KeyPositions { first: 0, last: 0, step: 0 };
    /// The first argument.
    pub const FIRST: KeyPositions = KeyPositions { first: 1, last: 1, step: 1 };
    /// The argument after the subcommand.
    pub const SECOND: KeyPositions = KeyPositions { first: 2, last: 2, step: 1 };
    /// The first two arguments.
    pub const TWO: KeyPositions = KeyPositions { first: 1, last: 2, step: 1 };
    /// All arguments.
    pub const ALL: KeyPositions = KeyPositions { first: 1, last: -1, step: 1 };
    /// Every other argument: keys and values.
    pub const PAIRS: KeyPositions = KeyPositions { first: 1, last: -1, step: 2 };

    /// Whether any key among `args` is such.
    #[inline]
    pub fn any(self, args: &[&[u8]], is_such: impl Fn(&[u8]) -> bool) -> bool {
        if self == KeyPositions::FIRST {
            // Nearly all commands: a walk in steps takes longer.
            return args.get(1).is_some_and(|key| is_such(key));
        }
        self.of(args).any(is_such)
    }

    /// The keys among `args`.
    pub fn of<'a>(self, args: &'a [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
        let first = usize::from(self.first);
        let end = match self.last {
            _ if self.first == 0 => 0,
            last if last < 0 => (args.len() + 1).saturating_sub(usize::from(last.unsigned_abs())),
            last => args.len().min(last as usize + 1),
        };
        let step = usize::from(self.step.max(1));
        args.get(first..end).unwrap_or_default().iter().step_by(step).copied()
    }
}

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// At the connection, by the node that was asked.
    Session(SessionOp),
    /// At the partition of its keys, which must share one slot.
    Key,
    /// At the partition of the slot that is its third argument.
    Slot,
    /// Each key at its partition, as a command of its own; as a whole if they share one slot.
    PerKey(Gathering),
    /// At every partition.
    PerPartition(Gathering),
}

/// How the replies of the parts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathering {
    /// Integers: their sum.
    Sum,
    /// `OK` from all.
    AllOk,
    /// Arrays: one after the other, in the order of the parts.
    Concat,
    /// One partition after the other from a random one, until one has a value.
    FirstValue,
    /// One partition after the other from where the cursor says, until COUNT is reached.
    Scan,
}

/// What the connection answers itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of its name")]
pub enum SessionOp {
    AcceptLoss,
    Asking,
    Auth,
    ClientGetName,
    ClientId,
    ClientInfo,
    ClientKill,
    ClientList,
    ClientNoEvict,
    ClientReply,
    ClientSetInfo,
    ClientSetName,
    ClusterInfo,
    ClusterKeySlot,
    ClusterMyId,
    ClusterNodes,
    ClusterShards,
    ClusterSlots,
    Command,
    CommandCount,
    CommandDocs,
    CommandGetKeys,
    CommandInfo,
    CommandList,
    ConfigGet,
    ConfigResetStat,
    ConfigSet,
    DebugSleep,
    Echo,
    Hello,
    Help,
    Info,
    Ping,
    Quit,
    ReadOnly,
    ReadWrite,
    Reset,
    Select,
    Time,
    Wait,
}

/// The family a command is documented with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Works on strings.
    String,
    /// Works on any key.
    Generic,
    /// About the connection.
    Connection,
    /// About the server.
    Server,
    /// About the cluster.
    Cluster,
    /// ringdove's own: locks and versions.
    Ringdove,
}

impl Group {
    /// As COMMAND DOCS names it.
    pub fn name(self) -> &'static str {
        match self {
            Group::String => "string",
            Group::Generic => "generic",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Cluster => "cluster",
            Group::Ringdove => "ringdove",
        }
    }
}

impl CommandSpec {
    /// A command on one key, its first argument.
    pub(super) const fn key(
        group: Group,
        name: &'static str,
        arity: i16,
        flags: Flags,
        exec: Exec,
        since: &'static str,
        summary: &'static str,
    ) -> CommandSpec {
        let (keys, route) = (KeyPositions::FIRST, Route::Key);
        CommandSpec { name, arity, flags, keys, route, exec, summary, group, since, subcommands: &[] }
    }

    /// A command that the connection answers.
    pub(super) const fn session(
        group: Group,
        name: &'static str,
        arity: i16,
        flags: Flags,
        op: SessionOp,
        since: &'static str,
        summary: &'static str,
    ) -> CommandSpec {
        let (keys, route) = (KeyPositions::NONE, Route::Session(op));
        CommandSpec {
            name,
            arity,
            flags,
            keys,
            route,
            exec: not_here,
            summary,
            group,
            since,
            subcommands: &[],
        }
    }

    pub(super) const fn with_keys(mut self, keys: KeyPositions) -> CommandSpec {
        self.keys = keys;
        self
    }

    pub(super) const fn with_route(mut self, route: Route) -> CommandSpec {
        self.route = route;
        self
    }

    pub(super) const fn with_subcommands(mut self, subcommands: &'static [CommandSpec]) -> CommandSpec {
        self.subcommands = subcommands;
        self
    }

    /// Whether this is its whole name, in any case.
    #[inline(always)]
    pub(crate) fn is_named(&self, name: &[u8]) -> bool {
        self.name.as_bytes().eq_ignore_ascii_case(name)
    }

    /// Whether so many arguments, names included, are right.
    #[inline(always)]
    pub fn accepts(&self, count: usize) -> bool {
        if self.arity >= 0 {
            count == self.arity as usize
        } else {
            count >= usize::from(self.arity.unsigned_abs())
        }
    }

    /// Whether it changes keys.
    #[inline(always)]
    pub fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }
}

/// What session commands have for an [`Exec`].
fn not_here(execution: &mut Execution<'_, '_>) -> Result<(), Refusal> {
    Err(Refusal::NotForPartitions(execution.spec.name))
}
