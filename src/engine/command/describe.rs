//! COMMAND and its subcommands: the table, told to clients.

use super::glob::glob_matches_any_case;
use super::refusal::Refusal;
use super::spec::{CommandSpec, Flags, Group, Route};
use super::table::{all, lookup, resolve, subcommand};
use crate::engine::resp::ReplyWriter;

/// COMMAND: a row for every command.
pub fn write_all(reply: &mut ReplyWriter<'_>) {
    reply.array(all().count());
    all().for_each(|spec| write_row(reply, spec));
}

/// COMMAND INFO: a row for each name, null where there is no such command; all rows if there are no names.
pub fn write_info(reply: &mut ReplyWriter<'_>, names: &[&[u8]]) {
    if names.is_empty() {
        return write_all(reply);
    }
    reply.array(names.len());
    for name in names {
        match find(name) {
            Some(spec) => write_row(reply, spec),
            None => reply.null_array(),
        }
    }
}

/// COMMAND DOCS: what humans want to know of each name, or of all if there are no names.
pub fn write_docs(reply: &mut ReplyWriter<'_>, names: &[&[u8]]) {
    let specs: Vec<_> =
        if names.is_empty() { all().collect() } else { names.iter().filter_map(|name| find(name)).collect() };
    reply.map(specs.len());
    specs.into_iter().for_each(|spec| write_doc(reply, spec));
}

/// COMMAND LIST: the names of all commands, or of those that the filter (its kind and value) lets through.
///
/// # Errors
/// If there is no such filter.
pub fn write_list(reply: &mut ReplyWriter<'_>, filter: &[&[u8]]) -> Result<(), Refusal> {
    let is_listed: Box<dyn Fn(&CommandSpec) -> bool> = match filter {
        [] => Box::new(|_| true),
        [by, kind, value] if by.eq_ignore_ascii_case(b"FILTERBY") => {
            if kind.eq_ignore_ascii_case(b"PATTERN") {
                Box::new(|spec| glob_matches_any_case(value, spec.name.as_bytes()))
            } else if kind.eq_ignore_ascii_case(b"ACLCAT") {
                Box::new(|spec| {
                    categories(spec).any(|category| category.as_bytes()[1..].eq_ignore_ascii_case(value))
                })
            } else if kind.eq_ignore_ascii_case(b"MODULE") {
                Box::new(|_| false)
            } else {
                return Err(Refusal::Syntax);
            }
        }
        _ => return Err(Refusal::Syntax),
    };
    let everything = all().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    // Subcommands are only listed where a filter asks for them.
    let names: Vec<_> = everything
        .filter(|spec| (!filter.is_empty() || !spec.name.contains('|')) && is_listed(spec))
        .map(|spec| spec.name)
        .collect();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

/// COMMAND GETKEYS: the keys among the arguments of a whole command.
///
/// # Errors
/// If it is no command, or has no keys.
pub fn write_keys(reply: &mut ReplyWriter<'_>, args: &[&[u8]]) -> Result<(), Refusal> {
    let spec = match resolve(args) {
        Ok(spec) => spec,
        Err(Refusal::Arity(_)) => {
            return Err(Refusal::err("Invalid number of arguments specified for command"));
        }
        Err(_) => return Err(Refusal::err("Invalid command specified")),
    };
    let keys: Vec<_> = spec.keys.of(args).collect();
    if keys.is_empty() {
        return Err(Refusal::err("The command has no key arguments"));
    }
    reply.array(keys.len());
    keys.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

/// HELP of a container: how to use each of its subcommands.
pub fn write_help(reply: &mut ReplyWriter<'_>, container: &CommandSpec) {
    let name = container.name.to_ascii_uppercase();
    reply.array(container.subcommands.len() * 2 + 1);
    reply.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    for spec in container.subcommands {
        let own = spec.name.split_once('|').map_or(spec.name, |(_, own)| own);
        reply.simple(&own.to_ascii_uppercase());
        reply.simple(&format!("    {}.", spec.summary));
    }
}

/// A command, or a subcommand as `container|subcommand`.
fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    match name.iter().position(|&byte| byte == b'|') {
        Some(bar) => subcommand(lookup(&name[..bar])?, &name[bar + 1..]).ok(),
        None => lookup(name),
    }
}

/// The ten fields of COMMAND INFO in Redis 7.
fn write_row(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    reply.array(10);
    reply.bulk(spec.name.as_bytes());
    reply.integer(i64::from(spec.arity));
    reply.set(spec.flags.names().count());
    spec.flags.names().for_each(|flag| reply.simple(flag));
    reply.integer(i64::from(spec.keys.first));
    reply.integer(i64::from(spec.keys.last));
    reply.integer(i64::from(spec.keys.step));
    reply.set(categories(spec).count());
    categories(spec).for_each(|category| reply.simple(category));
    // No tips: any node answers for the whole cluster, so clients have nothing to split.
    reply.array(0);
    write_key_specs(reply, spec);
    reply.array(spec.subcommands.len());
    spec.subcommands.iter().for_each(|sub| write_row(reply, sub));
}

fn categories(spec: &CommandSpec) -> impl Iterator<Item = &'static str> {
    let flags = spec.flags;
    let by_group = match spec.group {
        Group::String => Some("@string"),
        Group::Generic | Group::Ringdove => Some("@keyspace"),
        Group::Connection => Some("@connection"),
        Group::Server | Group::Cluster => None,
    };
    [
        flags.has(Flags::WRITE).then_some("@write"),
        flags.has(Flags::READONLY).then_some("@read"),
        by_group,
        flags.has(Flags::ADMIN).then_some("@admin"),
        flags.has(Flags::ADMIN).then_some("@dangerous"),
        Some(if flags.has(Flags::FAST) { "@fast" } else { "@slow" }),
    ]
    .into_iter()
    .flatten()
}

fn write_key_specs(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    let keys = spec.keys;
    if keys.first == 0 {
        return reply.array(0);
    }
    let (access, purpose) = if spec.is_write() { ("RW", "update") } else { ("RO", "access") };
    reply.array(1);
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(2);
    reply.simple(access);
    reply.simple(purpose);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(i64::from(keys.first));
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"range");
    reply.bulk(b"spec");
    reply.map(3);
    reply.bulk(b"lastkey");
    reply.integer(if keys.last < 0 {
        i64::from(keys.last)
    } else {
        i64::from(keys.last) - i64::from(keys.first)
    });
    reply.bulk(b"keystep");
    reply.integer(i64::from(keys.step));
    reply.bulk(b"limit");
    reply.integer(0);
}

fn write_doc(reply: &mut ReplyWriter<'_>, spec: &CommandSpec) {
    let has_subcommands = !spec.subcommands.is_empty();
    reply.bulk(spec.name.as_bytes());
    reply.map(4 + usize::from(has_subcommands));
    reply.bulk(b"summary");
    reply.bulk(spec.summary.as_bytes());
    reply.bulk(b"since");
    reply.bulk(spec.since.as_bytes());
    reply.bulk(b"group");
    reply.bulk(spec.group.name().as_bytes());
    reply.bulk(b"complexity");
    reply.bulk(complexity(spec).as_bytes());
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(spec.subcommands.len());
        spec.subcommands.iter().for_each(|sub| write_doc(reply, sub));
    }
}

fn complexity(spec: &CommandSpec) -> &'static str {
    match spec.route {
        Route::PerKey(_) => "O(N) where N is the number of keys",
        Route::PerPartition(_) => "O(N) where N is the number of keys or partitions visited",
        Route::Slot => "O(N) where N is the number of keys in the slot's partition",
        Route::Key | Route::Session(_) => "O(1)",
    }
}
