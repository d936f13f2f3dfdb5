//! A seeded stream of Redis commands over few keys, for comparing ringdove with a real server.
//!
//! Replies of two servers that start empty and get the same stream must be equal byte for byte,
//! except for those that [`is_timed`] names: they depend on when the command arrived.

/// The splitmix64 generator: small, seeded, good enough to pick commands.
#[derive(Clone, Debug)]
pub struct CommandStream {
    state: u64,
}

/// Keys that share a slot, so that commands on several keys never fail for that.
const KEYS: [&str; 6] = ["{t}a", "{t}b", "{t}c", "{t}d", "{t}e", "{t}f"];
const VALUES: [&str; 16] = [
    "",
    "v",
    "hello world",
    "0",
    "1",
    "-7",
    "42",
    "007",
    "+1",
    "3.14",
    "1e3",
    "abc",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775800",
    "0.1",
];
const INTEGERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "5",
    "10",
    "-3",
    "100",
    "x",
    "",
    "1.5",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "07",
    "-100",
];
const FLOATS: [&str; 12] =
    ["0.1", "0.2", "-1.5", "3.0e3", "1e-17", "x", "inf", "nan", "100000000000", "-0", ".5", "1e20"];
/// Far enough in the future, or in the past, that no test sees them pass.
const SECONDS: [&str; 8] =
    ["1000", "2000", "5000", "0", "-1", "x", "9223372036854775807", "9223372036854775"];
const MILLIS: [&str; 7] =
    ["1000000", "2000000", "0", "-1", "x", "9223372036854775807", "-9223372036854775808"];
const UNIX_SECONDS: [&str; 6] = ["4000000000", "5000000000", "1", "0", "-1", "x"];
const UNIX_MILLIS: [&str; 6] = ["4000000000000", "5000000000000", "1", "0", "-1", "x"];

impl CommandStream {
    /// A stream that depends on nothing but the seed.
    pub fn new(seed: u64) -> CommandStream {
        CommandStream { state: seed }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An expiry option with its argument, mostly a sensible one.
    fn expiry(&mut self, args: &mut Vec<&'static str>) {
        let (option, amounts): (_, &[&'static str]) = match self.below(4) {
            0 => ("EX", &SECONDS),
            1 => ("px", &MILLIS),
            2 => ("EXAT", &UNIX_SECONDS),
            _ => ("PXAT", &UNIX_MILLIS),
        };
        args.push(option);
        if !self.one_in(20) {
            let amount = if self.one_in(3) { self.pick(amounts) } else { amounts[0] };
            args.push(amount);
        }
    }
}

impl Iterator for CommandStream {
    type Item = Vec<&'static str>;

    fn next(&mut self) -> Option<Vec<&'static str>> {
        let (key, other) = (self.pick(&KEYS), self.pick(&KEYS));
        let (value, integer) = (self.pick(&VALUES), self.pick(&INTEGERS));
        let mut args = match self.below(48) {
            0..6 => {
                let mut args = vec!["SET", key, value];
                for _ in 0..self.below(3) {
                    if self.one_in(2) {
                        self.expiry(&mut args);
                    } else {
                        let option = self.pick(&["NX", "XX", "GET", "KEEPTTL", "xx", "foo", "PERSIST"]);
                        args.push(option);
                    }
                }
                args
            }
            6..8 => vec!["GET", key],
            8 => vec!["SETNX", key, value],
            9 => vec!["SETEX", key, self.pick(&SECONDS), value],
            10 => vec!["PSETEX", key, self.pick(&MILLIS), value],
            11 => vec!["GETSET", key, value],
            12 => vec!["GETDEL", key],
            13..15 => {
                let mut args = vec!["GETEX", key];
                match self.below(4) {
                    0 => {}
                    1 => args.push("PERSIST"),
                    _ => self.expiry(&mut args),
                }
                args
            }
            15 => vec!["APPEND", key, value],
            16 => vec!["STRLEN", key],
            17..19 => vec!["GETRANGE", key, integer, self.pick(&INTEGERS)],
            19 => vec!["SUBSTR", key, integer, self.pick(&INTEGERS)],
            20..22 => {
                vec!["SETRANGE", key, self.pick(&["0", "3", "40", "-1", "x", "9223372036854775807"]), value]
            }
            22 => vec!["MGET", key, other, self.pick(&KEYS)],
            23 => vec!["MSET", key, value, other, integer],
            24 => vec!["MSETNX", key, value, other, integer],
            25 => vec!["INCR", key],
            26 => vec!["DECR", key],
            27 => vec!["INCRBY", key, integer],
            28 => vec!["DECRBY", key, integer],
            29..31 => vec!["INCRBYFLOAT", key, self.pick(&FLOATS)],
            31 => vec![self.pick(&["DEL", "UNLINK", "EXISTS", "TOUCH"]), key, other],
            32 => vec!["DEL", key],
            33 => vec!["TYPE", key],
            34 => vec!["RENAME", key, other],
            35 => vec!["RENAMENX", key, other],
            36 => {
                let mut args = vec!["COPY", key, other];
                for _ in 0..self.below(3) {
                    let option = self.pick(&["REPLACE", "DB", "0", "foo"]);
                    args.push(option);
                }
                args
            }
            37..41 => {
                let (command, amounts): (_, &[&'static str]) = match self.below(4) {
                    0 => ("EXPIRE", &SECONDS),
                    1 => ("PEXPIRE", &MILLIS),
                    2 => ("EXPIREAT", &UNIX_SECONDS),
                    _ => ("PEXPIREAT", &UNIX_MILLIS),
                };
                let mut args = vec![command, key, self.pick(amounts)];
                for _ in 0..self.below(3) {
                    let option = self.pick(&["NX", "XX", "GT", "LT", "gt", "foo"]);
                    args.push(option);
                }
                args
            }
            41..43 => vec![self.pick(&["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"]), key],
            43 => vec!["PERSIST", key],
            44 => vec!["DBSIZE"],
            45 => vec!["PING", value],
            46 => vec!["ECHO", value],
            _ => vec![self.pick(&["FOO", "SELECT", "OBJECT", "client", "CONFIG"]), value],
        };
        // Now and then an argument too few or too many.
        if self.one_in(50) {
            args.pop();
        } else if self.one_in(50) {
            args.push(value);
        }
        if args.is_empty() {
            args.push("PING");
        }
        Some(args)
    }
}

/// Whether the reply depends on when the command arrived: compare such replies as numbers, with a
/// tolerance. (DBSIZE counts expired keys until they are reclaimed, which Redis does later.)
pub fn is_timed(command: &[&str]) -> bool {
    ["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "DBSIZE", "EXPIRE", "PEXPIRE"].contains(&command[0])
}

/// The command as an array of bulk strings.
pub fn encode(command: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend_from_slice(format!("${}\r\n{arg}\r\n", arg.len()).as_bytes());
    }
    bytes
}
