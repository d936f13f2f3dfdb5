//! CONFIG GET and SET.

use super::facts::{ConfigRefusal, Facts, Host};
use crate::engine::command::{Refusal, glob_matches_any_case};
use crate::engine::resp::ReplyWriter;

pub(super) fn get(patterns: &[&[u8]], facts: &impl Facts, reply: &mut ReplyWriter<'_>) {
    let mut found = Vec::new();
    facts.config(&mut |name, value| {
        if patterns.iter().any(|pattern| glob_matches_any_case(pattern, name.as_bytes())) {
            found.push((name.to_owned(), value.to_owned()));
        }
    });
    reply.map(found.len());
    for (name, value) in found {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
}

pub(super) fn set(args: &[&[u8]], host: &mut impl Host, reply: &mut ReplyWriter<'_>) -> Result<(), Refusal> {
    if !args.len().is_multiple_of(2) {
        return Err(Refusal::Arity("config|set"));
    }
    let mut names = Vec::new();
    for pair in args.chunks_exact(2) {
        let name = String::from_utf8_lossy(pair[0]).to_ascii_lowercase();
        if names.contains(&name) {
            return Err(failed(&name, "duplicate parameter"));
        }
        names.push(name);
    }
    let values: Vec<_> = args.chunks_exact(2).map(|pair| String::from_utf8_lossy(pair[1])).collect();
    let parameters: Vec<_> =
        names.iter().map(String::as_str).zip(values.iter().map(|value| &**value)).collect();
    host.config_set(&parameters).map_err(|(index, refusal)| {
        let name = names.get(index).map_or("", String::as_str);
        match refusal {
            ConfigRefusal::Unknown => {
                Refusal::err(format_args!("Unknown option or number of arguments for CONFIG SET - '{name}'"))
            }
            ConfigRefusal::Immutable => failed(name, "can't set immutable config"),
            ConfigRefusal::Invalid(reason) => failed(name, &reason),
        }
    })?;
    reply.ok();
    Ok(())
}

fn failed(name: &str, reason: &str) -> Refusal {
    Refusal::err(format_args!("CONFIG SET failed (possibly related to argument '{name}') - {reason}"))
}
