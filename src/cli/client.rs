//! `ringdove get`, `set` and the like: one command over QUIC, for people and scripts.
//!
//! Values go to standard output as they are, with a line end. Exit codes: 0 if there was a result,
//! 1 if there was none (no such key, condition not met) or the command failed; the reason goes to
//! standard error.

use super::{Failure, Outcome, block_on};
use clap::{Args, Subcommand};
use ringdove::config::{Credentials, HostPort, Millis};
use ringdove::drivers::pki::Role;
use ringdove::engine::resp::Reply;
use ringdove::{Client, ClientConfig};
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Keys asked for at once by `scan`.
const SCAN_PAGE: &str = "1000";

/// How to reach the cluster.
#[derive(Args, Clone)]
pub struct Connection {
    /// Any member's QUIC address; repeat it for more [default: 127.0.0.1:7379]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Connection")]
    quic: Vec<HostPort>,
    /// File with the cluster's secret (or RINGDOVE_SECRET)
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    secret_file: Option<PathBuf>,
    /// Directory with ca.pem, client.pem and client.key, instead of a secret
    #[arg(long, value_name = "DIR", help_heading = "Connection")]
    certs: Option<PathBuf>,
    /// How long to try
    #[arg(long, value_name = "TIME", default_value = "10s", help_heading = "Connection")]
    timeout: Millis,
}

impl Connection {
    /// The configuration of a client.
    ///
    /// Fails if the secret or the certificates can't be used.
    pub fn config(&self) -> Result<ClientConfig, Failure> {
        let secret = std::env::var("RINGDOVE_SECRET").ok().filter(|_| self.certs.is_none());
        let credentials = Credentials::choose(self.secret_file.as_deref(), secret, self.certs.as_deref())?;
        let mut seeds: Vec<String> = self.quic.iter().map(HostPort::to_string).collect();
        if seeds.is_empty() {
            seeds.push("127.0.0.1:7379".to_owned());
        }
        let trust = credentials.trust(Role::Client)?;
        Ok(ClientConfig::new(seeds).trust(trust).deadline(Duration::from(self.timeout)))
    }

    /// Where the addresses were given, or the default.
    pub fn seeds(&self) -> String {
        match self.quic.as_slice() {
            [] => "127.0.0.1:7379".to_owned(),
            seeds => seeds.iter().map(HostPort::to_string).collect::<Vec<_>>().join(", "),
        }
    }
}

/// What to do, and where.
#[derive(Args)]
pub struct At<T: Args> {
    #[command(flatten)]
    what: T,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand)]
pub enum DataCommand {
    /// Print the value of a key
    Get(At<OneKey>),
    /// Set a key
    Set(At<SetArgs>),
    /// Delete keys and print how many there were
    Del(At<Keys>),
    /// Print how many of the keys exist
    Exists(At<Keys>),
    /// Add to a number and print it
    Incr(At<StepArgs>),
    /// Subtract from a number and print it
    Decr(At<StepArgs>),
    /// Print how long a key still lives
    Ttl(At<OneKey>),
    /// Let a key expire
    Expire(At<ExpireArgs>),
    /// Let a key live for ever
    Persist(At<OneKey>),
    /// Print the keys of the whole cluster, one a line
    #[command(visible_alias = "keys")]
    Scan(At<ScanArgs>),
    /// Print the number of keys in the whole cluster
    Count(At<Nothing>),
    /// Set a key if it has the expected value (compare and swap)
    Cas(At<CasArgs>),
    /// Take a lock and print its fencing token
    Lock(At<LockArgs>),
    /// Release a lock
    Unlock(At<UnlockArgs>),
    /// Run any command as it is, such as: ringdove call SET key value XX GET
    Call(At<CallArgs>),
    /// Let partitions without a complete copy go on from the best former one, or empty if there is none
    AcceptLoss(At<AcceptLossArgs>),
}

#[derive(Args)]
pub struct Nothing {}

#[derive(Args)]
pub struct OneKey {
    /// The key
    key: OsString,
}

#[derive(Args)]
pub struct Keys {
    /// The keys
    #[arg(required = true)]
    keys: Vec<OsString>,
}

#[derive(Args)]
pub struct SetArgs {
    /// The key
    key: OsString,
    /// Its value; `-` reads standard input
    value: OsString,
    /// Let it expire: 500ms, 10s, 5m, 2h, 7d
    #[arg(long, value_name = "TIME")]
    ttl: Option<Millis>,
    /// Keep the expiry that the key has
    #[arg(long, conflicts_with = "ttl")]
    keep_ttl: bool,
    /// Only if the key doesn't exist
    #[arg(long)]
    if_absent: bool,
    /// Only if the key exists
    #[arg(long, conflicts_with = "if_absent")]
    if_present: bool,
}

#[derive(Args)]
pub struct StepArgs {
    /// The key
    key: OsString,
    /// By how much
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    by: i64,
}

#[derive(Args)]
pub struct ExpireArgs {
    /// The key
    key: OsString,
    /// After: 500ms, 10s, 5m, 2h, 7d
    ttl: Millis,
}

#[derive(Args)]
pub struct ScanArgs {
    /// Only keys that match, such as 'user:*'
    pattern: Option<OsString>,
}

#[derive(Args)]
pub struct CasArgs {
    /// The key
    key: OsString,
    /// The value it should have
    expected: OsString,
    /// The value to set
    value: OsString,
}

#[derive(Args)]
pub struct LockArgs {
    /// The lock's key
    key: OsString,
    /// Who takes it: a name that no other holder uses, also needed to release it
    owner: OsString,
    /// It is free again after so long, unless taken anew by the same owner
    #[arg(long, value_name = "TIME", default_value = "30s")]
    lease: Millis,
}

#[derive(Args)]
pub struct UnlockArgs {
    /// The lock's key
    key: OsString,
    /// Who holds it
    owner: OsString,
}

#[derive(Args)]
pub struct CallArgs {
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

#[derive(Args)]
pub struct AcceptLossArgs {
    /// Yes, what that copy lacks is gone for good
    #[arg(long, required = true)]
    yes: bool,
}

pub fn run(command: DataCommand) -> Outcome {
    use DataCommand as C;
    match command {
        C::Get(at) => one(&at.connection, &[b"GET", at.what.key.as_bytes()]),
        C::Set(at) => set(&at),
        C::Del(at) => one(&at.connection, &words(b"DEL", &at.what.keys)),
        C::Exists(at) => one(&at.connection, &words(b"EXISTS", &at.what.keys)),
        C::Incr(at) => step(&at, b"INCRBY"),
        C::Decr(at) => step(&at, b"DECRBY"),
        C::Ttl(at) => ttl(&at),
        C::Expire(at) => {
            let ms = at.what.ttl.0.to_string();
            condition(&at.connection, &[b"PEXPIRE", at.what.key.as_bytes(), ms.as_bytes()], "no such key")
        }
        C::Persist(at) => condition(
            &at.connection,
            &[b"PERSIST", at.what.key.as_bytes()],
            "no such key, or it has no expiry",
        ),
        C::Scan(at) => scan(&at),
        C::Count(at) => one(&at.connection, &[b"DBSIZE"]),
        C::Cas(at) => cas(&at),
        C::Lock(at) => lock(&at),
        C::Unlock(at) => {
            let command: [&[u8]; 3] = [b"RD.UNLOCK", at.what.key.as_bytes(), at.what.owner.as_bytes()];
            condition(&at.connection, &command, "it is not held by that owner")
        }
        C::Call(at) => {
            let words: Vec<&[u8]> = at.what.words.iter().map(|word| word.as_bytes()).collect();
            one(&at.connection, &words)
        }
        C::AcceptLoss(at) => one(&at.connection, &[b"RD.ACCEPTLOSS"]),
    }
}

fn words<'a>(name: &'a [u8], rest: &'a [OsString]) -> Vec<&'a [u8]> {
    std::iter::once(name).chain(rest.iter().map(|word| word.as_bytes())).collect()
}

/// Connects, and does something with the client.
fn with_client<T>(
    connection: &Connection,
    work: impl AsyncFnOnce(Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = connection.config()?;
    block_on(async move { work(Client::connect(config).await?).await })
}

/// Runs one command.
fn reply_of(connection: &Connection, command: &[&[u8]]) -> Result<Reply, Failure> {
    with_client(connection, async |client| Ok(client.command(command).await?))
}

/// Runs one command and prints its reply.
fn one(connection: &Connection, command: &[&[u8]]) -> Outcome {
    print_reply(&reply_of(connection, command)?)
}

/// Runs one command that answers 1 or 0, and says what 0 means.
fn condition(connection: &Connection, command: &[&[u8]], otherwise: &str) -> Outcome {
    match reply_of(connection, command)? {
        Reply::Integer(0) | Reply::Null | Reply::Boolean(false) => Err(Failure(otherwise.to_owned())),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn set(at: &At<SetArgs>) -> Outcome {
    let SetArgs { key, value, ttl, keep_ttl, if_absent, if_present } = &at.what;
    let mut input = Vec::new();
    let value = if value == OsStr::new("-") {
        std::io::stdin().lock().read_to_end(&mut input)?;
        &input
    } else {
        value.as_bytes()
    };
    let ttl = ttl.map(|ttl| ttl.0.to_string());
    let mut command: Vec<&[u8]> = vec![b"SET", key.as_bytes(), value];
    if let Some(ttl) = &ttl {
        command.extend([&b"PX"[..], ttl.as_bytes()]);
    }
    let switches: [(bool, &[u8]); 3] = [(*keep_ttl, b"KEEPTTL"), (*if_absent, b"NX"), (*if_present, b"XX")];
    command.extend(switches.iter().filter(|(on, _)| *on).map(|(_, word)| word));
    let otherwise = if *if_absent { "the key exists" } else { "no such key" };
    condition(&at.connection, &command, otherwise)
}

fn step(at: &At<StepArgs>, name: &[u8]) -> Outcome {
    let by = at.what.by.to_string();
    one(&at.connection, &[name, at.what.key.as_bytes(), by.as_bytes()])
}

fn ttl(at: &At<OneKey>) -> Outcome {
    match reply_of(&at.connection, &[b"PTTL", at.what.key.as_bytes()])? {
        Reply::Integer(-2) => Err(Failure("no such key".to_owned())),
        Reply::Integer(-1) => print_reply(&Reply::Simple("for ever".to_owned())),
        Reply::Integer(ms) => print_reply(&Reply::Simple(format!("{}s", ms as f64 / 1_000.0))),
        other => print_reply(&other),
    }
}

fn scan(at: &At<ScanArgs>) -> Outcome {
    with_client(&at.connection, async |client| {
        let mut cursor = b"0".to_vec();
        loop {
            let mut command: Vec<&[u8]> = vec![b"SCAN", &cursor, b"COUNT", SCAN_PAGE.as_bytes()];
            if let Some(pattern) = &at.what.pattern {
                command.extend([&b"MATCH"[..], pattern.as_bytes()]);
            }
            let Reply::Array(page) = client.command(&command).await? else {
                return Err(Failure("SCAN answered with something else than a page".to_owned()));
            };
            let [Reply::Bulk(next), keys] = page.as_slice() else {
                return Err(Failure("SCAN answered with something else than a page".to_owned()));
            };
            print_reply(keys)?;
            if next == b"0" {
                return Ok(ExitCode::SUCCESS);
            }
            cursor.clone_from(next);
        }
    })
}

/// Compares here and swaps by version there, so that whatever happened in between is noticed.
fn cas(at: &At<CasArgs>) -> Outcome {
    let CasArgs { key, expected, value } = &at.what;
    with_client(&at.connection, async |client| {
        let differs = || Err(Failure("the key has another value".to_owned()));
        let current = client.command(&[b"RD.GETV", key.as_bytes()]).await?;
        let version = match &current {
            Reply::Null => return Err(Failure("no such key".to_owned())),
            Reply::Array(pair) => match pair.as_slice() {
                [Reply::Bulk(current), Reply::Integer(_)] if current != expected.as_bytes() => {
                    return differs();
                }
                [Reply::Bulk(_), Reply::Integer(version)] => version.to_string(),
                _ => return Err(Failure("RD.GETV answered something else".to_owned())),
            },
            _ => return Err(Failure("RD.GETV answered something else".to_owned())),
        };
        let command: [&[u8]; 4] = [b"RD.CAS", key.as_bytes(), version.as_bytes(), value.as_bytes()];
        match client.command(&command).await? {
            Reply::Null => differs(),
            _ => Ok(ExitCode::SUCCESS),
        }
    })
}

fn lock(at: &At<LockArgs>) -> Outcome {
    let LockArgs { key, owner, lease } = &at.what;
    let lease = lease.0.to_string();
    let command: [&[u8]; 4] = [b"RD.LOCK", key.as_bytes(), owner.as_bytes(), lease.as_bytes()];
    match reply_of(&at.connection, &command)? {
        Reply::Null => Err(Failure("it is held by another owner".to_owned())),
        // Incarnation, epoch and sequence on one line; compare them in this order.
        Reply::Array(token) => {
            let mut line = Vec::new();
            for part in &token {
                write_reply(part, &mut line);
            }
            let words: Vec<_> = line.split(|&byte| byte == b'\n').filter(|word| !word.is_empty()).collect();
            print_reply(&Reply::Bulk(words.join(&b' ')))
        }
        other => print_reply(&other),
    }
}

/// Prints a reply to standard output. Nothing found is said on standard error.
fn print_reply(reply: &Reply) -> Outcome {
    if *reply == Reply::Null {
        return Err(Failure("nothing found".to_owned()));
    }
    let mut text = Vec::new();
    write_reply(reply, &mut text);
    let mut out = std::io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        // Whoever read us has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

/// One line for each scalar within.
fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    match reply {
        Reply::Bulk(bytes) => out.extend_from_slice(bytes),
        Reply::Simple(text) | Reply::Error(text) | Reply::BigNumber(text) => {
            out.extend_from_slice(text.as_bytes());
        }
        Reply::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Reply::Double(number) => out.extend_from_slice(number.to_string().as_bytes()),
        Reply::Boolean(truth) => out.extend_from_slice(truth.to_string().as_bytes()),
        Reply::Null => out.extend_from_slice(b"(nil)"),
        Reply::Array(items) | Reply::Set(items) => {
            items.iter().for_each(|item| write_reply(item, out));
            return;
        }
        Reply::Map(pairs) => {
            for (key, value) in pairs {
                write_reply(key, out);
                write_reply(value, out);
            }
            return;
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_lines() {
        let mut text = Vec::new();
        let reply = Reply::Array(vec![
            Reply::Bulk(b"\xffraw".to_vec()),
            Reply::Integer(-3),
            Reply::Null,
            Reply::Map(vec![(Reply::Simple("a".to_owned()), Reply::Double(1.5))]),
        ]);
        write_reply(&reply, &mut text);
        assert_eq!(text, b"\xffraw\n-3\n(nil)\na\n1.5\n");
        assert!(print_reply(&Reply::Null).is_err());
    }
}
