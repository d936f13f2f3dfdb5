//! CLIENT and its subcommands.

use super::answer::Answer;
use super::facts::{ClientInfo, ConnectionId, Host};
use super::state::{ReplyMode, Session};
use crate::engine::command::{Refusal, SessionOp, parse_integer};
use crate::engine::resp::{Proto, ReplyWriter};
use crate::engine::time::Now;
use std::fmt::Write;

pub(super) fn client(
    session: &mut Session,
    op: SessionOp,
    args: &[&[u8]],
    host: &mut impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<Answer, Refusal> {
    match op {
        SessionOp::ClientId => reply.count(session.info.id.0),
        SessionOp::ClientGetName if session.info.name.is_empty() => reply.null(),
        SessionOp::ClientGetName => reply.bulk(session.info.name.as_bytes()),
        SessionOp::ClientSetName => {
            session.info.name = check_name(args[2])?;
            reply.ok();
        }
        SessionOp::ClientSetInfo => {
            set_info(session, args[2], args[3])?;
            reply.ok();
        }
        SessionOp::ClientInfo => {
            let mut text = String::new();
            write_line(&mut text, &session.info, host.now());
            reply.verbatim(text.as_bytes());
        }
        SessionOp::ClientList => list(session, &args[2..], host, reply)?,
        SessionOp::ClientKill => return kill(session, &args[2..], host, reply),
        SessionOp::ClientNoEvict => {
            session.info.no_evict = on_or_off(args[2])?;
            reply.ok();
        }
        _ => return reply_mode(session, args[2], reply),
    }
    Ok(Answer::Written)
}

fn reply_mode(session: &mut Session, mode: &[u8], reply: &mut ReplyWriter<'_>) -> Result<Answer, Refusal> {
    if mode.eq_ignore_ascii_case(b"ON") {
        session.replies = ReplyMode::On;
        reply.ok();
        return Ok(Answer::Aloud);
    }
    if mode.eq_ignore_ascii_case(b"OFF") {
        session.replies = ReplyMode::Off;
    } else if !mode.eq_ignore_ascii_case(b"SKIP") {
        return Err(Refusal::Syntax);
    } else if session.replies != ReplyMode::Off {
        session.replies = ReplyMode::SkipNext;
    }
    Ok(Answer::Silent)
}

fn on_or_off(text: &[u8]) -> Result<bool, Refusal> {
    if text.eq_ignore_ascii_case(b"ON") {
        Ok(true)
    } else if text.eq_ignore_ascii_case(b"OFF") {
        Ok(false)
    } else {
        Err(Refusal::Syntax)
    }
}

/// A client's name: printable ASCII without blanks, possibly empty.
pub(super) fn check_name(name: &[u8]) -> Result<String, Refusal> {
    printable(name)
        .ok_or_else(|| Refusal::err("Client names cannot contain spaces, newlines or special characters."))
}

fn printable(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then(|| text.to_owned())
}

fn set_info(session: &mut Session, option: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let (place, name) = if option.eq_ignore_ascii_case(b"LIB-NAME") {
        (&mut session.info.lib_name, "lib-name")
    } else if option.eq_ignore_ascii_case(b"LIB-VER") {
        (&mut session.info.lib_version, "lib-ver")
    } else {
        return Err(Refusal::err(format_args!("Unrecognized option '{}'", String::from_utf8_lossy(option))));
    };
    let refusal =
        || Refusal::err(format_args!("{name} cannot contain spaces, newlines or special characters."));
    *place = printable(value).ok_or_else(refusal)?;
    Ok(())
}

/// Whether ordinary clients, the only ones there are, are of this type.
fn is_normal(kind: &[u8]) -> Result<bool, Refusal> {
    let is = |name: &str| kind.eq_ignore_ascii_case(name.as_bytes());
    if is("normal") {
        Ok(true)
    } else if is("master") || is("replica") || is("slave") || is("pubsub") {
        Ok(false)
    } else {
        Err(Refusal::err(format_args!("Unknown client type '{}'", String::from_utf8_lossy(kind))))
    }
}

fn list(
    session: &Session,
    args: &[&[u8]],
    host: &impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), Refusal> {
    let mut ids: Option<Vec<ConnectionId>> = None;
    match args {
        [] => {}
        [option, kind] if option.eq_ignore_ascii_case(b"TYPE") => {
            if !is_normal(kind)? {
                ids = Some(Vec::new());
            }
        }
        [option, list @ ..] if option.eq_ignore_ascii_case(b"ID") && !list.is_empty() => {
            let parse =
                |id: &&[u8]| parse_integer(id).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
            let parsed: Option<Vec<_>> = list.iter().map(|id| parse(id).map(ConnectionId)).collect();
            ids = Some(parsed.ok_or_else(|| Refusal::err("Invalid client ID"))?);
        }
        _ => return Err(Refusal::Syntax),
    }
    let (mut text, now) = (String::new(), host.now());
    let mut show = |info: &ClientInfo| {
        if ids.as_ref().is_none_or(|ids| ids.contains(&info.id)) {
            write_line(&mut text, info, now);
        }
    };
    show(&session.info);
    host.clients(&mut show);
    reply.verbatim(text.as_bytes());
    Ok(())
}

/// Which connections CLIENT KILL means.
#[derive(Default)]
struct Victims {
    id: Option<ConnectionId>,
    remote: Option<String>,
    local: Option<String>,
    /// Set by a type or a user that no connection has.
    none: bool,
    spare_me: bool,
}

impl Victims {
    fn parse(args: &[&[u8]]) -> Result<Victims, Refusal> {
        let mut victims = Victims { spare_me: true, ..Victims::default() };
        for option in args.chunks(2) {
            let [name, value] = option else { return Err(Refusal::Syntax) };
            let text = String::from_utf8_lossy(value);
            match name.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    let id = parse_integer(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
                    let refusal = || Refusal::err("client-id should be greater than 0");
                    victims.id = Some(ConnectionId(id.ok_or_else(refusal)?));
                }
                b"TYPE" => victims.none |= !is_normal(value)?,
                b"ADDR" => victims.remote = Some(text.into_owned()),
                b"LADDR" => victims.local = Some(text.into_owned()),
                b"USER" if text == "default" => {}
                b"USER" => return Err(Refusal::err(format_args!("No such user '{text}'"))),
                b"SKIPME" if value.eq_ignore_ascii_case(b"yes") => victims.spare_me = true,
                b"SKIPME" if value.eq_ignore_ascii_case(b"no") => victims.spare_me = false,
                _ => return Err(Refusal::Syntax),
            }
        }
        Ok(victims)
    }

    fn include(&self, info: &ClientInfo) -> bool {
        !self.none
            && self.id.is_none_or(|id| id == info.id)
            && self.remote.as_ref().is_none_or(|address| *address == info.remote.to_string())
            && self.local.as_ref().is_none_or(|address| *address == info.local.to_string())
    }
}

fn kill(
    session: &Session,
    args: &[&[u8]],
    host: &mut impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<Answer, Refusal> {
    let victims = match args {
        [address] => {
            Victims { remote: Some(String::from_utf8_lossy(address).into_owned()), ..Victims::default() }
        }
        options => Victims::parse(options)?,
    };
    let mut ids = Vec::new();
    host.clients(&mut |info| {
        if victims.include(info) {
            ids.push(info.id);
        }
    });
    ids.iter().for_each(|&id| host.kill(id));
    let me_too = !victims.spare_me && victims.include(&session.info);
    let count = ids.len() + usize::from(me_too);
    match (args.len(), count) {
        (1, 0) => return Err(Refusal::err("No such client")),
        (1, _) => reply.ok(),
        _ => reply.integer(count as i64),
    }
    Ok(if me_too { Answer::Close } else { Answer::Written })
}

/// One line of CLIENT LIST. Fields for what connections here don't have say so as Redis does.
fn write_line(text: &mut String, info: &ClientInfo, now: Now) {
    let seconds_since = |us: u64| now.mono_us.saturating_sub(us) / 1_000_000;
    let flags = if info.no_evict { "e" } else { "N" };
    let resp = if info.proto == Proto::Resp3 { 3 } else { 2 };
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db=0 sub=0 psub=0 ssub=0 multi=-1 \
         qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl={} oll=0 omem=0 tot-mem={} events=r cmd={} \
         user=default redir=-1 resp={resp} lib-name={} lib-ver={}",
        info.id.0,
        info.remote,
        info.local,
        info.name,
        seconds_since(info.connected_at_us),
        seconds_since(info.active_at_us),
        info.input_bytes,
        info.output_bytes,
        info.input_bytes + info.output_bytes,
        info.command,
        info.lib_name,
        info.lib_version,
    );
}
