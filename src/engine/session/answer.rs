//! Commands that the connection answers itself.

use super::facts::Host;
use super::state::Session;
use super::{client, cluster, config, hello, info};
use crate::engine::command::{
    CommandSpec, Refusal, SessionOp, check_database, lookup, parse_integer, write_all, write_docs,
    write_help, write_info, write_keys, write_list,
};
use crate::engine::ids::Slot;
use crate::engine::resp::ReplyWriter;

/// The longest DEBUG SLEEP, in seconds.
const SLEEP_S_MAX: f64 = 3_600.0;

/// What is left to do once a command was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: the reply is written.
    Written,
    /// The reply is written and is sent whatever the reply mode.
    Aloud,
    /// There is no reply.
    Silent,
    /// The reply is written; close the connection behind it.
    Close,
    /// The reply comes after so many microseconds.
    Sleep(u64),
}

/// Answers a session command: writes its reply, unless it is refused.
pub(super) fn answer(
    session: &mut Session,
    spec: &'static CommandSpec,
    op: SessionOp,
    args: &[&[u8]],
    host: &mut impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<Answer, Refusal> {
    use SessionOp as Op;
    match op {
        Op::Ping => match args.get(1) {
            None => reply.simple("PONG"),
            Some(text) if args.len() == 2 => reply.bulk(text),
            Some(_) => return Err(Refusal::Arity("ping")),
        },
        Op::Echo => reply.bulk(args[1]),
        Op::Quit => {
            reply.ok();
            return Ok(Answer::Close);
        }
        Op::Reset => {
            session.reset(host.password());
            reply.simple("RESET");
            return Ok(Answer::Aloud);
        }
        Op::Hello => hello::hello(session, args, host, reply)?,
        Op::Auth => hello::auth(session, args, host, reply)?,
        Op::Select => {
            check_database(args[1])?;
            reply.ok();
        }
        Op::Asking | Op::ReadOnly | Op::ReadWrite => reply.ok(),
        Op::Time => {
            let now = host.now();
            reply.array(2);
            reply.bulk((now.wall_ms / 1_000).to_string().as_bytes());
            let us = now.wall_ms % 1_000 * 1_000 + now.mono_us % 1_000;
            reply.bulk(us.to_string().as_bytes());
        }
        Op::Wait => wait(args, host, reply)?,
        Op::Info => info::info(&args[1..], host, reply),
        Op::Help => {
            let container = spec.name.split('|').next().unwrap_or_default();
            match lookup(container.as_bytes()) {
                Some(container) => write_help(reply, container),
                None => return Err(Refusal::Syntax),
            }
        }
        Op::Command => write_all(reply),
        Op::CommandCount => reply.integer(crate::engine::command::all().count() as i64),
        Op::CommandDocs => write_docs(reply, &args[2..]),
        Op::CommandInfo => write_info(reply, &args[2..]),
        Op::CommandList => write_list(reply, &args[2..])?,
        Op::CommandGetKeys => write_keys(reply, &args[2..])?,
        Op::ClientGetName
        | Op::ClientId
        | Op::ClientInfo
        | Op::ClientKill
        | Op::ClientList
        | Op::ClientNoEvict
        | Op::ClientReply
        | Op::ClientSetInfo
        | Op::ClientSetName => return client::client(session, op, args, host, reply),
        Op::ConfigGet => config::get(&args[2..], host, reply),
        Op::ConfigSet => config::set(&args[2..], host, reply)?,
        Op::ConfigResetStat => {
            host.reset_stats();
            reply.ok();
        }
        Op::ClusterInfo => cluster::info(host, reply),
        Op::ClusterKeySlot => reply.integer(i64::from(Slot::of(args[2]).0)),
        Op::ClusterMyId => reply.bulk(cluster::redis_id(host.me()).as_bytes()),
        Op::ClusterNodes => cluster::nodes(host, reply),
        Op::ClusterShards => cluster::shards(host, reply),
        Op::ClusterSlots => cluster::slots(host, reply),
        Op::AcceptLoss => {
            host.accept_loss();
            reply.ok();
        }
        Op::DebugSleep => return sleep(args[2], host),
    }
    Ok(Answer::Written)
}

/// Every acknowledged write is on every in-sync copy already: there is nothing to wait for.
fn wait(args: &[&[u8]], host: &impl Host, reply: &mut ReplyWriter<'_>) -> Result<(), Refusal> {
    parse_integer(args[1]).ok_or(Refusal::NotInteger)?;
    match parse_integer(args[2]) {
        None => return Err(Refusal::err("timeout is not an integer or out of range")),
        Some(timeout_ms) if timeout_ms < 0 => return Err(Refusal::err("timeout is negative")),
        Some(_) => {}
    }
    let copies = host.table().partitions.iter().map(|assignment| assignment.isr.len()).min();
    reply.integer(copies.unwrap_or(0).saturating_sub(1) as i64);
    Ok(())
}

fn sleep(seconds: &[u8], host: &impl Host) -> Result<Answer, Refusal> {
    if !host.debug_allowed() {
        return Err(Refusal::err(
            "DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it \
             from a local connection, otherwise you need to set this option in the configuration file, and then \
             restart the server.",
        ));
    }
    let seconds = std::str::from_utf8(seconds).ok().and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.filter(|seconds| (0.0..=SLEEP_S_MAX).contains(seconds)).ok_or(Refusal::NotFloat)?;
    Ok(Answer::Sleep((seconds * 1e6) as u64))
}
