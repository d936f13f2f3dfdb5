//! The table of commands and how one is found in it.

use super::refusal::Refusal;
use super::spec::CommandSpec;
use super::{cas, counters, expiry, keys, locks, ranges, scan, sessions, strings};

/// All families.
const FAMILIES: [&[CommandSpec]; 9] = [
    strings::SPECS,
    ranges::SPECS,
    counters::SPECS,
    keys::SPECS,
    expiry::SPECS,
    scan::SPECS,
    cas::SPECS,
    locks::SPECS,
    sessions::SPECS,
];

/// Buckets of the index: a power of two, well above the number of commands.
const BUCKETS: usize = 512;
/// The longest name in the table.
const NAME_BYTES_MAX: usize = 16;

/// Where each command is: open addressing, laid out at compile time.
static INDEX: [Option<&CommandSpec>; BUCKETS] = {
    let mut index: [Option<&CommandSpec>; BUCKETS] = [None; BUCKETS];
    let mut family = 0;
    while family < FAMILIES.len() {
        let specs = FAMILIES[family];
        let mut at = 0;
        while at < specs.len() {
            let spec = &specs[at];
            assert!(spec.name.len() <= NAME_BYTES_MAX);
            let mut bucket = bucket_of(spec.name.as_bytes());
            while index[bucket].is_some() {
                bucket = (bucket + 1) % BUCKETS;
            }
            index[bucket] = Some(spec);
            at += 1;
        }
        family += 1;
    }
    index
};

/// A hash that does not tell upper from lower case.
#[inline]
const fn bucket_of(name: &[u8]) -> usize {
    let mut hash = name.len() as u32;
    let mut at = 0;
    while at < name.len() {
        hash = (hash ^ (name[at] | 0x20) as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    ((hash ^ (hash >> 15)) as usize) % BUCKETS
}

/// The command of this name, in any case. No allocation.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static CommandSpec> {
    if name.len() > NAME_BYTES_MAX {
        return None;
    }
    let mut bucket = bucket_of(name);
    while let Some(spec) = INDEX[bucket] {
        if spec.is_named(name) {
            return Some(spec);
        }
        bucket = (bucket + 1) % BUCKETS;
    }
    None
}

/// All commands, in the order of the table.
pub fn all() -> impl Iterator<Item = &'static CommandSpec> {
    FAMILIES.into_iter().flatten()
}

/// The command or subcommand that `args` ask for, its arity checked.
///
/// # Errors
/// With Redis's text if there is none, or its arguments are too few or too many.
#[inline]
pub fn resolve(args: &[&[u8]]) -> Result<&'static CommandSpec, Refusal> {
    let name = args.first().copied().unwrap_or_default();
    let Some(spec) = lookup(name) else { return Err(unknown(args)) };
    let spec = match args.get(1) {
        Some(sub) if !spec.subcommands.is_empty() => subcommand(spec, sub)?,
        _ => spec,
    };
    if spec.accepts(args.len()) { Ok(spec) } else { Err(Refusal::Arity(spec.name)) }
}

/// The subcommand of this name, in any case.
pub(super) fn subcommand(
    container: &'static CommandSpec,
    name: &[u8],
) -> Result<&'static CommandSpec, Refusal> {
    let found = container.subcommands.iter().find(|spec| {
        let own = spec.name.split_once('|').map_or("", |(_, own)| own);
        own.as_bytes().eq_ignore_ascii_case(name)
    });
    found.ok_or_else(|| Refusal::UnknownSubcommand {
        name: String::from_utf8_lossy(&name[..name.len().min(128)]).into_owned(),
        container: container.name.to_ascii_uppercase(),
    })
}

fn unknown(args: &[&[u8]]) -> Refusal {
    let quote = |arg: &[u8], max: usize| String::from_utf8_lossy(&arg[..arg.len().min(max)]).into_owned();
    let mut arguments = String::new();
    for arg in args.iter().skip(1) {
        if arguments.len() >= 128 {
            break;
        }
        let room = 128 - arguments.len();
        arguments.push('\'');
        arguments.push_str(&quote(arg, room));
        arguments.push_str("' ");
    }
    Refusal::UnknownCommand { name: quote(args.first().copied().unwrap_or_default(), 128), arguments }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_found_in_any_case() {
        let mut names = BTreeSet::new();
        for spec in all() {
            assert!(names.insert(spec.name), "{} is there twice", spec.name);
            assert_eq!(spec.name, spec.name.to_ascii_lowercase());
            assert!(std::ptr::eq(lookup(spec.name.as_bytes()).unwrap(), spec));
            assert!(std::ptr::eq(lookup(spec.name.to_ascii_uppercase().as_bytes()).unwrap(), spec));
            for sub in spec.subcommands {
                assert_eq!(sub.name.split_once('|').unwrap().0, spec.name);
            }
        }
        assert!(lookup(b"nosuch").is_none());
        assert!(lookup(b"").is_none());
        assert!(lookup(&[b'x'; 1000]).is_none());
    }

    #[test]
    fn refusals_have_the_texts_of_redis() {
        let check = |args: &[&str], expected: &str| {
            let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
            assert_eq!(resolve(&args).unwrap_err().to_string(), expected);
        };
        check(&["foo"], "ERR unknown command 'foo', with args beginning with: ");
        check(&["foo", "a", "b"], "ERR unknown command 'foo', with args beginning with: 'a' 'b' ");
        check(&["get"], "ERR wrong number of arguments for 'get' command");
        check(&["client", "foo"], "ERR unknown subcommand 'foo'. Try CLIENT HELP.");
        check(&["client"], "ERR wrong number of arguments for 'client' command");
        check(&["client", "id", "x"], "ERR wrong number of arguments for 'client|id' command");
    }
}
