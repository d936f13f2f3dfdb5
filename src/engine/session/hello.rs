//! HELLO and AUTH.

use super::client::check_name;
use super::facts::{Facts, Host};
use super::info::REDIS_VERSION;
use super::state::{Session, same_secret};
use crate::engine::command::{Refusal, parse_integer};
use crate::engine::resp::{Proto, ReplyWriter};

/// HELLO: `[version [AUTH user password] [SETNAME name]]`.
pub(super) fn hello(
    session: &mut Session,
    args: &[&[u8]],
    host: &impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), Refusal> {
    let proto = match args.get(1).map(|version| parse_integer(version)) {
        None => session.info.proto,
        Some(Some(2)) => Proto::Resp2,
        Some(Some(3)) => Proto::Resp3,
        Some(Some(_)) => return Err(Refusal::Text("NOPROTO unsupported protocol version".to_owned())),
        Some(None) => return Err(Refusal::err("Protocol version is not an integer or out of range")),
    };
    let (mut credentials, mut name) = (None, None);
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => break,
            [option, user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((*user, *password));
                rest
            }
            [option, given, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(*given);
                rest
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(option);
                return Err(Refusal::err(format_args!("Syntax error in HELLO option '{option}'")));
            }
        };
    }
    if let Some((user, password)) = credentials {
        authenticate(session, user, password, host)?;
    }
    if !session.authenticated {
        return Err(Refusal::Text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time"
                .to_owned(),
        ));
    }
    if let Some(name) = name {
        session.info.name = check_name(name)?;
    }
    session.info.proto = proto;
    reply.proto = proto;
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if proto == Proto::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.count(session.info.id.0);
    reply.bulk(b"mode");
    reply.bulk(b"cluster");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// AUTH: `[user] password`.
pub(super) fn auth(
    session: &mut Session,
    args: &[&[u8]],
    host: &impl Host,
    reply: &mut ReplyWriter<'_>,
) -> Result<(), Refusal> {
    match args {
        [_, password] if host.password().is_some() => authenticate(session, b"default", password, host)?,
        [_, _] => {
            return Err(Refusal::err(
                "AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?",
            ));
        }
        [_, user, password] => authenticate(session, user, password, host)?,
        _ => return Err(Refusal::Syntax),
    }
    reply.ok();
    Ok(())
}

/// The one user is `default`; without a password set, it takes any.
fn authenticate(
    session: &mut Session,
    user: &[u8],
    password: &[u8],
    facts: &impl Facts,
) -> Result<(), Refusal> {
    let right = facts.password().is_none_or(|expected| same_secret(expected, password));
    if right && user == b"default" {
        session.authenticated = true;
        return Ok(());
    }
    Err(Refusal::Text("WRONGPASS invalid username-password pair or user is disabled.".to_owned()))
}
