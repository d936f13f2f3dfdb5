//! Commands against the replies of Redis 7.0.

use crate::engine::ids::MapId;
use crate::engine::session::testing::{START_MS, TestNode, run_in_map, script, script_on, sent};
use crate::engine::table::{MapDefaults, MapDefinition};
use std::collections::BTreeSet;

#[test]
fn set_and_its_options() {
    script(
        "
        SET k v => +OK
        GET k => $1 v
        GET none => $-1
        SET k w NX => $-1
        SET k w XX => +OK
        SET new v XX => $-1
        SET k x GET => $1 w
        SET fresh x GET => $-1
        SET k y NX GET => $1 x
        GET k => $1 x
        SET n v NX GET => $-1
        SET k v EX 10 => +OK
        TTL k => :10
        SET k v2 KEEPTTL => +OK
        TTL k => :10
        SET k v3 => +OK
        TTL k => :-1
        SET k v EX 10 NX GET => $2 v3
        TTL k => :-1
        SET k v EX 10 EX 20 => +OK
        TTL k => :20
        SET k v px 1500 xx => +OK
        PTTL k => :1500
        SET k v EXAT 1700000100 => +OK
        TTL k => :100
        SET k v PXAT 1700000000001 => +OK
        @1
        GET k => $-1
        SET k v PXAT 1 => +OK
        GET k => $-1
        DBSIZE => :2
        SET k v EX 10 PX 5 => -ERR syntax error
        SET k v EX 10 KEEPTTL => -ERR syntax error
        SET k v NX XX => -ERR syntax error
        SET k v EX => -ERR syntax error
        SET k v PERSIST => -ERR syntax error
        SET k v EX 0 => -ERR invalid expire time in 'set' command
        SET k v PX -1 => -ERR invalid expire time in 'set' command
        SET k v EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET k v PX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET k v EX ten => -ERR value is not an integer or out of range
        SET k => -ERR wrong number of arguments for 'set' command
        ",
    );
}

#[test]
fn relatives_of_set_and_get() {
    script(
        "
        SETNX k v => :1
        SETNX k w => :0
        SETEX k 10 w => +OK
        TTL k => :10
        SETEX k 0 w => -ERR invalid expire time in 'setex' command
        SETEX k x w => -ERR value is not an integer or out of range
        PSETEX k 1500 w => +OK
        PTTL k => :1500
        PSETEX k -1 w => -ERR invalid expire time in 'psetex' command
        GETSET k x => $1 w
        TTL k => :-1
        GETSET other x => $-1
        GETDEL k => $1 x
        GETDEL k => $-1
        SET k v => +OK
        GETEX k EX 100 => $1 v
        TTL k => :100
        GETEX k => $1 v
        TTL k => :100
        GETEX k PERSIST => $1 v
        TTL k => :-1
        GETEX k PXAT 1 => $1 v
        EXISTS k => :0
        GETEX none EX 0 => $-1
        GETEX none EX 10 PERSIST => -ERR syntax error
        GETEX none KEEPTTL => -ERR syntax error
        SET k v => +OK
        GETEX k EX 0 => -ERR invalid expire time in 'getex' command
        MSET a{t} 1 b{t} 2 => +OK
        MGET a{t} b{t} c{t} => *3 $1 1 $1 2 $-1
        MSET a 1 b 2 c 3 => +OK
        MGET a b nokey c => *4 $1 1 $1 2 $-1 $1 3
        MSET a 1 b => -ERR wrong number of arguments for 'mset' command
        MSETNX a{t} 5 d{t} 6 => :0
        EXISTS d{t} => :0
        MSETNX e{t} 5 d{t} 6 => :1
        MSETNX e{t} 5 d{t} => -ERR wrong number of arguments for 'msetnx' command
        MSETNX x 1 y 2 => -CROSSSLOT Keys in request don't hash to the same slot
        ",
    );
}

#[test]
fn parts_of_strings() {
    script(
        "
        APPEND k Hello => :5
        APPEND k \" World\" => :11
        STRLEN k => :11
        STRLEN none => :0
        GETRANGE k 0 4 => $5 Hello
        GETRANGE k -5 -1 => $5 World
        GETRANGE k 5 1 => $0
        GETRANGE k 0 999 => $11 Hello World
        GETRANGE none 0 -1 => $0
        GETRANGE k x 1 => -ERR value is not an integer or out of range
        SUBSTR k 0 0 => $1 H
        SETRANGE k 6 Redis => :11
        GET k => $11 Hello Redis
        SETRANGE pad 3 x => :4
        GET pad => $4 \u{0}\u{0}\u{0}x
        SETRANGE none 5 '' => :0
        EXISTS none => :0
        SETRANGE k 0 '' => :11
        SETRANGE k -1 x => -ERR offset is out of range
        SETRANGE k 1048576 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE k 9223372036854775807 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE k 1.5 x => -ERR value is not an integer or out of range
        EXPIRE k 100 => :1
        APPEND k ! => :12
        SETRANGE k 0 J => :12
        TTL k => :100
        ",
    );
}

#[test]
fn counters() {
    script(
        "
        INCR c => :1
        INCRBY c 10 => :11
        DECR c => :10
        DECRBY c 3 => :7
        GET c => $1 7
        EXPIRE c 100 => :1
        INCR c => :8
        TTL c => :100
        SET c 9223372036854775807 => +OK
        INCR c => -ERR increment or decrement would overflow
        GET c => $19 9223372036854775807
        SET c -9223372036854775808 => +OK
        DECR c => -ERR increment or decrement would overflow
        DECRBY c -9223372036854775808 => -ERR decrement would overflow
        SET c 007 => +OK
        INCR c => -ERR value is not an integer or out of range
        SET c \" 7\" => +OK
        INCR c => -ERR value is not an integer or out of range
        SET c 1.5 => +OK
        INCR c => -ERR value is not an integer or out of range
        INCRBY c x => -ERR value is not an integer or out of range
        INCRBYFLOAT c 0.1 => $3 1.6
        INCRBYFLOAT c -1.6 => $1 0
        INCRBYFLOAT c 5.0e3 => $4 5000
        INCRBYFLOAT c nan => -ERR value is not a valid float
        INCRBYFLOAT c inf => -ERR increment would produce NaN or Infinity
        SET c abc => +OK
        INCRBYFLOAT c 1 => -ERR value is not a valid float
        ",
    );
}

#[test]
fn keys() {
    script(
        "
        MSET a 1 b 2 c 3 => +OK
        EXISTS a b none a => :3
        TOUCH a none => :1
        DEL a none b => :2
        UNLINK c => :1
        DBSIZE => :0
        SET k v => +OK
        TYPE k => +string
        TYPE none => +none
        RENAME k{t} j{t} => -ERR no such key
        SET k{t} v EX 100 => +OK
        RENAME k{t} j{t} => +OK
        TTL j{t} => :100
        EXISTS k{t} => :0
        RENAME j{t} j{t} => +OK
        SET o{t} w => +OK
        RENAMENX j{t} o{t} => :0
        RENAMENX j{t} p{t} => :1
        RENAMENX p{t} p{t} => :0
        RENAME p{t} o{t} => +OK
        GET o{t} => $1 v
        RENAME a b => -CROSSSLOT Keys in request don't hash to the same slot
        COPY o{t} q{t} => :1
        TTL q{t} => :100
        COPY o{t} q{t} => :0
        COPY o{t} q{t} REPLACE => :1
        COPY none{t} q{t} => :0
        COPY o{t} q{t} DB 0 REPLACE => :1
        COPY o{t} q{t} DB 9 => -ERR DB index is out of range
        COPY o{t} q{t} DB x => -ERR value is not an integer or out of range
        COPY o{t} q{t} FOO => -ERR syntax error
        COPY o{t} o{t} => -ERR source and destination objects are the same
        SET n 12 => +OK
        OBJECT ENCODING n => $3 int
        OBJECT ENCODING k => $6 embstr
        SET long aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa => +OK
        OBJECT ENCODING long => $3 raw
        OBJECT ENCODING none => $-1
        OBJECT REFCOUNT k => :1
        @10000
        OBJECT IDLETIME k => :10
        OBJECT FOO k => -ERR unknown subcommand 'FOO'. Try OBJECT HELP.
        OBJECT => -ERR wrong number of arguments for 'object' command
        OBJECT ENCODING => -ERR wrong number of arguments for 'object|encoding' command
        MEMORY USAGE k => :38
        MEMORY USAGE k SAMPLES 5 => :38
        MEMORY USAGE k FOO => -ERR syntax error
        MEMORY USAGE none => $-1
        FLUSHALL FOO => -ERR syntax error
        FLUSHALL ASYNC => +OK
        DBSIZE => :0
        RANDOMKEY => $-1
        SET only v => +OK
        RANDOMKEY => $4 only
        KEYS o* => *1 $4 only
        KEYS x* => *0
        FLUSHDB => +OK
        ",
    );
}

#[test]
fn expiries() {
    script(
        "
        EXPIRE none 10 => :0
        TTL none => :-2
        SET k v => +OK
        TTL k => :-1
        EXPIRE k 10 XX => :0
        EXPIRE k 10 GT => :0
        EXPIRE k 10 LT => :1
        EXPIRE k 20 NX => :0
        EXPIRE k 5 GT => :0
        EXPIRE k 20 GT => :1
        EXPIRE k 30 LT => :0
        EXPIRE k 15 XX LT => :1
        TTL k => :15
        PTTL k => :15000
        EXPIRETIME k => :1700000015
        PEXPIRETIME k => :1700000015000
        PERSIST k => :1
        PERSIST k => :0
        EXPIRETIME k => :-1
        PEXPIRETIME none => :-2
        PEXPIRE k 1499 => :1
        TTL k => :1
        PEXPIRE k 1500 => :1
        TTL k => :2
        EXPIREAT k 1700000100 => :1
        TTL k => :100
        PEXPIREAT k 1700000000500 => :1
        @499
        EXISTS k => :1
        @1
        EXISTS k => :0
        DBSIZE => :0
        SET k v => +OK
        EXPIRE k -1 => :1
        EXISTS k => :0
        SET k v => +OK
        PEXPIREAT k -9223372036854775808 => :1
        EXISTS k => :0
        SET k v => +OK
        EXPIRE k x => -ERR value is not an integer or out of range
        EXPIRE k 10 FOO => -ERR Unsupported option FOO
        EXPIRE k 10 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 GT LT => -ERR GT and LT options at the same time are not compatible
        EXPIRE k 9223372036854775807 => -ERR invalid expire time in 'expire' command
        EXPIRE k -9223372036854775807 => -ERR invalid expire time in 'expire' command
        PEXPIRE k 9223372036854775807 => -ERR invalid expire time in 'pexpire' command
        EXPIREAT k 9223372036854775807 => -ERR invalid expire time in 'expireat' command
        TTL k => :-1
        ",
    );
}

#[test]
fn versions() {
    let first = START_MS << 16;
    script(&format!(
        "
        RD.GETV k => $-1
        RD.CAS k 5 v => $-1
        RD.CAS k 0 v PX 1000 => :{first}
        PTTL k => :1000
        RD.CAS k 0 w => $-1
        RD.GETV k => *2 $1 v :{first}
        RD.CAS k {first} w => :{}
        TTL k => :-1
        RD.CAS k -1 w => -ERR value is not an integer or out of range
        RD.CAS k 1 w NX => -ERR syntax error
        RD.CAS k {} w PXAT 1 => -ERR invalid expire time in 'rd.cas' command
        RD.SETV k x NX => $-1
        RD.SETV k x KEEPTTL => :{}
        RD.SETV k x GET => -ERR syntax error
        RD.GETSETNX k y => *3 $1 x :{} :0
        DEL k => :1
        RD.GETSETNX k y PX 500 => *3 $1 y :{} :1
        PTTL k => :500
        ",
        first + 1,
        first + 1,
        first + 2,
        first + 2,
        first + 4,
    ));
}

#[test]
fn locks() {
    script(
        "
        RD.LOCK l ann 1000 => *3 :1 :1 :1
        RD.LOCK l bob 1000 => *-1
        @600
        RD.LOCK l ann 1000 => *3 :1 :1 :1
        @600
        RD.LOCKINFO l => *5 $3 ann :1 :1 :1 :400
        RD.EXTEND l bob 5000 => :0
        RD.EXTEND l ann 5000 => :1
        RD.UNLOCK l bob => :0
        TYPE l => +lock
        GET l => -WRONGTYPE Operation against a key holding the wrong kind of value
        SET l v => -WRONGTYPE Operation against a key holding the wrong kind of value
        SET l v GET => -WRONGTYPE Operation against a key holding the wrong kind of value
        SETNX l v => :0
        INCR l => -WRONGTYPE Operation against a key holding the wrong kind of value
        APPEND l v => -WRONGTYPE Operation against a key holding the wrong kind of value
        MGET l => *1 $-1
        MSET l v => -WRONGTYPE Operation against a key holding the wrong kind of value
        EXPIRE l 100 => -WRONGTYPE Operation against a key holding the wrong kind of value
        PERSIST l => -WRONGTYPE Operation against a key holding the wrong kind of value
        RENAME l l => -WRONGTYPE Operation against a key holding the wrong kind of value
        EXISTS l => :1
        RD.UNLOCK l ann => :1
        RD.UNLOCK l ann => :0
        RD.LOCKINFO l => *-1
        RD.LOCK l bob 100 => *3 :1 :1 :24
        @100
        RD.EXTEND l bob 100 => :0
        RD.LOCK l ann 100 => *3 :1 :1 :26
        RD.LOCK l ann 0 => -ERR invalid lease in 'rd.lock' command
        RD.LOCK l ann x => -ERR value is not an integer or out of range
        SET s v => +OK
        RD.LOCK s ann 100 => -WRONGTYPE Operation against a key holding the wrong kind of value
        RD.UNLOCK s ann => -WRONGTYPE Operation against a key holding the wrong kind of value
        DEL l => :1
        ",
    );
}

#[test]
fn a_map_has_its_own_keys_and_defaults() {
    let mut node = TestNode::new(1);
    let defaults = MapDefaults { ttl_ms: 5_000, ..MapDefaults::default() };
    node.table.maps.push(MapDefinition { name: "sessions".into(), defaults });
    let map = MapId(1);
    let mut check = |command: &str, expected: &str| {
        let command: Vec<&str> = command.split(' ').collect();
        assert_eq!(run_in_map(&mut node, map, &command), expected, "{command:?}");
    };
    check("SET k v", "+OK");
    check("PTTL k", ":5000");
    check("SET k v PX 100", "+OK");
    check("PTTL k", ":100");
    check("INCR c", ":1");
    check("PTTL c", ":5000");
    check("RD.GETSETNX g v", &format!("*3 $1 v :{} :1", (START_MS << 16) + 3));
    check("PTTL g", ":5000");
    check("DBSIZE", ":3");
    assert_eq!(run_in_map(&mut node, MapId(0), &["GET", "k"]), "$-1");
    assert_eq!(run_in_map(&mut node, MapId(0), &["KEYS", "*"]), "*0");
    assert_eq!(run_in_map(&mut node, MapId(0), &["SCAN", "0"]).split(' ').next_back(), Some("*0"));
}

#[test]
fn limits() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    let (key, value) = ("k".repeat(65_537), "v".repeat((1 << 20) + 1));
    for (command, expected) in [
        (
            format!("*2\r\n$3\r\nGET\r\n$65537\r\n{key}\r\n"),
            "-ERR key exceeds maximum allowed size (65536 bytes)",
        ),
        (
            format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()),
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ),
        (
            format!("*3\r\n$6\r\nAPPEND\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()),
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
        ),
    ] {
        connection.receive(command.as_bytes(), &mut node);
        assert_eq!(sent(&mut connection), expected);
    }
    script_on(&mut node, &mut connection, "DBSIZE => :0");
}

fn scan_all(node: &mut TestNode, options: &str) -> (Vec<String>, usize) {
    let mut connection = node.connect();
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        connection.receive(format!("SCAN {cursor} {options}\r\n").as_bytes(), node);
        let reply = sent(&mut connection);
        let mut words = reply.split(' ');
        assert_eq!(words.next(), Some("*2"), "{reply}");
        cursor = words.nth(1).expect("a cursor").to_owned();
        let keys = words.skip(1).filter(|word| !word.starts_with('$')).map(str::to_owned);
        found.extend(keys);
        calls += 1;
        assert!(calls < 10_000);
        if cursor == "0" {
            return (found, calls);
        }
    }
}

#[test]
fn scan_visits_every_key_once() {
    for partitions in [1, 16, 1_024] {
        let mut node = TestNode::new(partitions);
        let mut connection = node.connect();
        let keys: BTreeSet<String> = (0..500).map(|n| format!("key:{n}")).collect();
        for key in &keys {
            script_on(&mut node, &mut connection, &format!("SET {key} v => +OK"));
        }
        script_on(&mut node, &mut connection, "RD.LOCK lock me 10000 => *3 :1 :1 :501");
        for options in ["", "COUNT 1", "COUNT 100", "COUNT 100000", "MATCH key:* COUNT 7"] {
            let (found, calls) = scan_all(&mut node, &format!("{options} TYPE string"));
            assert_eq!(found.len(), keys.len(), "{options} {partitions}");
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), keys);
            assert!(options != "COUNT 100000" || calls == 1, "{calls} calls");
        }
        assert_eq!(scan_all(&mut node, "TYPE lock").0, ["lock"]);
        assert_eq!(scan_all(&mut node, "MATCH nothing").0.len(), 0);
        script_on(&mut node, &mut connection, "FLUSHALL => +OK");
        let (found, calls) = scan_all(&mut node, "");
        assert!(
            found.is_empty() && calls == 1,
            "an empty key space is scanned at once, not in {calls} calls"
        );
    }
}

#[test]
fn scan_refuses_what_redis_refuses() {
    script(
        "
        SCAN x => -ERR invalid cursor
        SCAN -1 => -ERR invalid cursor
        SCAN 0 COUNT 0 => -ERR syntax error
        SCAN 0 COUNT x => -ERR value is not an integer or out of range
        SCAN 0 MATCH => -ERR syntax error
        SCAN 0 FOO bar => -ERR syntax error
        SCAN 0 TYPE foo => *2 $1 0 *0
        SCAN 18446744073709551615 => *2 $1 0 *0
        SCAN 281474976710656 => *2 $1 0 *0
        ",
    );
}

#[test]
fn slots() {
    script(
        "
        SET {foo}.a 1 => +OK
        SET {foo}.b 1 => +OK
        SET bar 1 => +OK
        CLUSTER KEYSLOT foo => :12182
        CLUSTER COUNTKEYSINSLOT 12182 => :2
        CLUSTER GETKEYSINSLOT 12182 1 => *1 $7 {foo}.a
        CLUSTER COUNTKEYSINSLOT 16384 => -ERR Invalid slot
        CLUSTER COUNTKEYSINSLOT x => -ERR value is not an integer or out of range
        CLUSTER GETKEYSINSLOT 1 -1 => -ERR Invalid slot or number of keys
        ",
    );
}
