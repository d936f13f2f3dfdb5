//! Connections: session commands, and the order of replies.

use super::testing::{TestNode, script, script_on, sent};
use super::{ClientInfo, Connection, ConnectionId, ConnectionLimits};
use crate::engine::ids::Epoch;
use crate::engine::resp::{Reply, ReplyLimits};

#[test]
fn the_small_ones() {
    script(
        "
        PING => +PONG
        PING hi => $2 hi
        PING a b => -ERR wrong number of arguments for 'ping' command
        ECHO hi => $2 hi
        SELECT 0 => +OK
        SELECT 1 => -ERR DB index is out of range
        SELECT x => -ERR value is not an integer or out of range
        TIME => *2 $10 1700000000 $1 0
        WAIT 1 0 => :1
        WAIT x 0 => -ERR value is not an integer or out of range
        WAIT 1 -1 => -ERR timeout is negative
        WAIT 1 x => -ERR timeout is not an integer or out of range
        READONLY => +OK
        FOO => -ERR unknown command 'FOO', with args beginning with:
        FOO a 'b c' => -ERR unknown command 'FOO', with args beginning with: 'a' 'b c'
        DEBUG SLEEP 0 => -ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.
        RESET => +RESET
        ",
    );
}

#[test]
fn hello() {
    script(
        "
        GET none => $-1
        HELLO 4 => -NOPROTO unsupported protocol version
        HELLO x => -ERR Protocol version is not an integer or out of range
        HELLO 3 FOO => -ERR Syntax error in HELLO option 'FOO'
        HELLO 3 AUTH a => -ERR Syntax error in HELLO option 'AUTH'
        HELLO 3 AUTH a b => -WRONGPASS invalid username-password pair or user is disabled.
        HELLO 3 SETNAME 'a b' => -ERR Client names cannot contain spaces, newlines or special characters.
        GET none => $-1
        HELLO 3 SETNAME me => %7 $6 server $5 redis $7 version $5 7.2.4 $5 proto :3 $2 id :7 $4 mode $7 cluster $4 role $6 master $7 modules *0
        CLIENT GETNAME => $2 me
        GET none => _
        RANDOMKEY => _
        CONFIG GET save => %1 $4 save $0
        HELLO 2 => *14 $6 server $5 redis $7 version $5 7.2.4 $5 proto :2 $2 id :7 $4 mode $7 cluster $4 role $6 master $7 modules *0
        GET none => $-1
        ",
    );
}

#[test]
fn authentication() {
    let mut node = TestNode::new(1);
    node.password = Some(b"secret".to_vec());
    let mut connection = node.connect();
    script_on(
        &mut node,
        &mut connection,
        "
        GET k => -NOAUTH Authentication required.
        PING => -NOAUTH Authentication required.
        GET => -ERR wrong number of arguments for 'get' command
        HELLO 3 => -NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time
        AUTH wrong => -WRONGPASS invalid username-password pair or user is disabled.
        AUTH other secret => -WRONGPASS invalid username-password pair or user is disabled.
        AUTH a b c => -ERR syntax error
        AUTH secret => +OK
        GET k => $-1
        RESET => +RESET
        GET k => -NOAUTH Authentication required.
        AUTH default secret => +OK
        GET k => $-1
        ",
    );
    let mut other = node.connect();
    other.receive(b"*1\r\n$20000\r\n", &mut node);
    assert_eq!(sent(&mut other), "-ERR Protocol error: unauthenticated bulk length");
    assert!(other.is_closed());
    script(
        "AUTH x => -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
    );
}

/// Commands of one read share what was looked up by their name; the second subcommand ran as the first.
#[test]
fn subcommands_in_one_read() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    let commands: [&[&str]; 6] = [
        &["CLIENT", "SETNAME", "me"],
        &["CLIENT", "GETNAME"],
        &["CONFIG", "GET", "maxmemory"],
        &["CONFIG", "SET", "maxmemory", "77"],
        &["CONFIG", "GET", "maxmemory"],
        &["CLIENT", "SETNAME", "a", "b"],
    ];
    let mut bytes = Vec::new();
    for command in commands {
        bytes.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
        for word in command {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }
    connection.receive(&bytes, &mut node);
    let replies = "+OK $2 me *2 $9 maxmemory $1 0 +OK *2 $9 maxmemory $2 77 \
                   -ERR wrong number of arguments for 'client|setname' command";
    assert_eq!(sent(&mut connection), replies);
}

#[test]
fn clients() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    let other =
        ClientInfo { id: ConnectionId(9), remote: "10.0.0.8:1".parse().unwrap(), ..connection.info() };
    node.others.push(other);
    script_on(
        &mut node,
        &mut connection,
        "
        CLIENT ID => :7
        CLIENT GETNAME => $-1
        CLIENT SETNAME 'a b' => -ERR Client names cannot contain spaces, newlines or special characters.
        CLIENT SETNAME me => +OK
        CLIENT GETNAME => $2 me
        CLIENT SETNAME '' => +OK
        CLIENT GETNAME => $-1
        CLIENT SETINFO lib-name redis-py => +OK
        CLIENT SETINFO LIB-VER 5.0 => +OK
        CLIENT SETINFO foo bar => -ERR Unrecognized option 'foo'
        CLIENT SETINFO lib-ver 'a b' => -ERR lib-ver cannot contain spaces, newlines or special characters.
        CLIENT NO-EVICT on => +OK
        CLIENT NO-EVICT foo => -ERR syntax error
        CLIENT LIST TYPE foo => -ERR Unknown client type 'foo'
        CLIENT LIST ID x => -ERR Invalid client ID
        CLIENT LIST ID 8 => $0
        CLIENT LIST TYPE pubsub => $0
        CLIENT LIST foo => -ERR syntax error
        CLIENT KILL ID 999 => :0
        CLIENT KILL ID 0 => -ERR client-id should be greater than 0
        CLIENT KILL USER foo => -ERR No such user 'foo'
        CLIENT KILL SKIPME maybe => -ERR syntax error
        CLIENT KILL foo => -ERR No such client
        CLIENT KILL foo bar => -ERR syntax error
        CLIENT KILL ADDR 10.0.0.8:1 => :1
        CLIENT KILL 10.0.0.8:1 => +OK
        CLIENT KILL TYPE normal => :1
        CLIENT REPLY foo => -ERR syntax error
        CLIENT FOO => -ERR unknown subcommand 'FOO'. Try CLIENT HELP.
        ",
    );
    assert_eq!(node.killed, [ConnectionId(9); 3]);
    connection.receive(b"CLIENT INFO\r\n", &mut node);
    let line = sent(&mut connection);
    for field in [
        "id=7 ",
        "addr=10.0.0.9:5000 ",
        "cmd=client|info ",
        "flags=e ",
        "resp=2 ",
        "lib-name=redis-py ",
        "lib-ver=5.0",
    ] {
        assert!(line.contains(field), "{field} in {line}");
    }
    connection.receive(b"CLIENT LIST\r\n", &mut node);
    assert_eq!(sent(&mut connection).matches("addr=").count(), 2 * 2, "two lines, each with addr and laddr");
    connection.receive(b"CLIENT KILL ID 7 SKIPME no\r\nPING\r\n", &mut node);
    assert_eq!(sent(&mut connection), ":1");
    assert!(connection.is_closed());
}

#[test]
fn reply_modes() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    connection
        .receive(b"CLIENT REPLY OFF\r\nSET k v\r\nGET k\r\nFOO\r\nCLIENT REPLY SKIP\r\nPING\r\n", &mut node);
    assert_eq!(sent(&mut connection), "");
    connection.receive(b"CLIENT REPLY ON\r\nGET k\r\n", &mut node);
    assert_eq!(sent(&mut connection), "+OK $1 v");
    connection.receive(b"CLIENT REPLY SKIP\r\nGET k\r\nECHO on\r\n", &mut node);
    assert_eq!(sent(&mut connection), "$2 on");
    node.deferring = true;
    connection.receive(b"CLIENT REPLY SKIP\r\nGET k\r\nGET k\r\n", &mut node);
    node.release(1, &mut connection);
    assert_eq!(sent(&mut connection), "");
    node.release(0, &mut connection);
    assert_eq!(sent(&mut connection), "$1 v");
}

#[test]
fn configuration() {
    script(
        "
        CONFIG GET max* => *2 $9 maxmemory $1 0
        CONFIG GET MAXMEMORY port => *4 $9 maxmemory $1 0 $4 port $4 6379
        CONFIG GET foo => *0
        CONFIG GET => -ERR wrong number of arguments for 'config|get' command
        CONFIG SET maxmemory 100 => +OK
        CONFIG GET maxmemory => *2 $9 maxmemory $3 100
        CONFIG SET foo bar => -ERR Unknown option or number of arguments for CONFIG SET - 'foo'
        CONFIG SET maxmemory x => -ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
        CONFIG SET maxmemory 1 maxmemory 2 => -ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate parameter
        CONFIG SET port 1 => -ERR CONFIG SET failed (possibly related to argument 'port') - can't set immutable config
        CONFIG SET maxmemory 1 port => -ERR wrong number of arguments for 'config|set' command
        CONFIG SET maxmemory => -ERR wrong number of arguments for 'config|set' command
        CONFIG RESETSTAT => +OK
        CONFIG FOO => -ERR unknown subcommand 'FOO'. Try CONFIG HELP.
        ",
    );
}

#[test]
fn command_tables() {
    script(
        "
        COMMAND GETKEYS MSET a 1 b 2 => *2 $1 a $1 b
        COMMAND GETKEYS OBJECT ENCODING k => *1 $1 k
        COMMAND GETKEYS GET => -ERR wrong number of arguments for 'command|getkeys' command
        COMMAND GETKEYS GET a b => -ERR Invalid number of arguments specified for command
        COMMAND GETKEYS PING a => -ERR The command has no key arguments
        COMMAND GETKEYS FOO a => -ERR Invalid command specified
        COMMAND INFO foo => *1 *-1
        COMMAND LIST FILTERBY PATTERN m*get* => *1 $4 mget
        COMMAND LIST FILTERBY ACLCAT x => *0
        COMMAND LIST foo => -ERR syntax error
        COMMAND DOCS foo => *0
        COMMAND FOO => -ERR unknown subcommand 'FOO'. Try COMMAND HELP.
        COMMAND DOCS get => *2 $3 get *8 $7 summary $22 Get the value of a key $5 since $5 1.0.0 $5 group $6 string $10 complexity $4 O(1)
        COMMAND INFO get => *1 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 *1 *6 $5 flags *2 +RO +access $12 begin_search *4 $4 type $5 index $4 spec *2 $5 index :1 $9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :0 $7 keystep :1 $5 limit :0 *0
        ",
    );
}

/// The one reply to a command, parsed: a check that it is one, of whatever size.
fn parsed(command: &str) -> Reply {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    connection.receive(format!("HELLO 3\r\n{command}\r\n").as_bytes(), &mut node);
    let output = std::mem::take(connection.output());
    let limits = ReplyLimits::default();
    let (_, taken) = Reply::parse(&output, &limits).unwrap().unwrap();
    let (reply, rest) = Reply::parse(&output[taken..], &limits).unwrap().unwrap();
    assert_eq!(taken + rest, output.len(), "{command}");
    reply
}

#[test]
fn long_replies_are_whole() {
    let count = crate::engine::command::all().count();
    assert!(matches!(parsed("COMMAND"), Reply::Array(rows) if rows.len() == count));
    assert!(matches!(parsed("COMMAND INFO"), Reply::Array(rows) if rows.len() == count));
    assert!(matches!(parsed("COMMAND LIST"), Reply::Array(rows) if rows.len() == count));
    assert!(matches!(parsed("COMMAND DOCS"), Reply::Map(rows) if rows.len() == count));
    assert_eq!(parsed("COMMAND COUNT"), Reply::Integer(count as i64));
    for container in ["CLIENT", "CONFIG", "CLUSTER", "COMMAND", "OBJECT", "MEMORY", "DEBUG"] {
        assert!(matches!(parsed(&format!("{container} HELP")), Reply::Array(lines) if lines.len() > 2));
    }
    assert!(matches!(parsed("CLUSTER SHARDS"), Reply::Array(shards) if shards.len() == 2));
}

#[test]
fn info() {
    let text = |command: &str| match parsed(command) {
        Reply::Bulk(text) => String::from_utf8(text).unwrap(),
        other => panic!("{other:?}"),
    };
    let all = text("INFO");
    for line in [
        "# Server",
        "redis_version:7.2.4",
        "role:master",
        "cluster_enabled:1",
        "db0:keys=3,expires=1,avg_ttl=0",
        "used_memory_human:1.50K",
    ] {
        assert!(all.contains(&format!("{line}\r\n")), "{line} in {all}");
    }
    assert_eq!(text("INFO everything"), all);
    assert!(text("INFO keyspace").starts_with("# Keyspace\r\ndb0:"));
    assert_eq!(text("INFO foo"), "");
}

#[test]
fn cluster() {
    let mut node = TestNode::new(4);
    std::sync::Arc::make_mut(&mut node.table.partitions[2]).primary = crate::engine::ids::NodeId(2);
    std::sync::Arc::make_mut(&mut node.table.partitions[3]).epoch = Epoch(0);
    let mut connection = node.connect();
    let (one, two) = (format!("{:016x}{:024}", 1, 0), format!("{:016x}{:024}", 2, 0));
    script_on(
        &mut node,
        &mut connection,
        &format!(
            "
            CLUSTER MYID => $40 {one}
            CLUSTER SLOTS => *2 *3 :0 :8191 *4 $9 127.0.0.1 :6379 $40 {one} *0 *3 :8192 :12287 *4 $9 127.0.0.2 :6379 $40 {two} *0
            CLUSTER FOO => -ERR unknown subcommand 'FOO'. Try CLUSTER HELP.
            "
        ),
    );
    connection.receive(b"CLUSTER NODES\r\n", &mut node);
    let nodes = sent(&mut connection);
    assert!(
        nodes.contains(&format!("{one} 127.0.0.1:6379@7379 myself,master - 0 0 0 connected 0-8191\n")),
        "{nodes}"
    );
    assert!(
        nodes.contains(&format!("{two} 127.0.0.2:6379@7379 master - 0 0 0 connected 8192-12287")),
        "{nodes}"
    );
    connection.receive(b"CLUSTER INFO\r\n", &mut node);
    let info = sent(&mut connection);
    assert!(
        info.contains("cluster_state:fail cluster_slots_assigned:12288 cluster_slots_ok:12288 "),
        "{info}"
    );
}

#[test]
fn redirects() {
    let mut node = TestNode::new(16);
    node.moved = Some("127.0.0.2:6379".parse().unwrap());
    let mut connection = node.connect();
    script_on(&mut node, &mut connection, "GET foo => -MOVED 12182 127.0.0.2:6379\nPING => +PONG");
}

#[test]
fn replies_leave_in_order() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    node.deferring = true;
    connection.receive(b"SET a 1\r\nPING\r\nGET a\r\nMGET a b c\r\nFOO\r\nINCR a\r\n", &mut node);
    assert_eq!(node.waiting.len(), 6, "the parts of MGET are under way together");
    assert!(connection.is_waiting());
    node.release(5, &mut connection);
    node.release(4, &mut connection);
    node.release(3, &mut connection);
    node.release(1, &mut connection);
    assert_eq!(sent(&mut connection), "");
    node.release(0, &mut connection);
    assert_eq!(sent(&mut connection), "+OK +PONG $1 1");
    node.release(0, &mut connection);
    assert_eq!(
        sent(&mut connection),
        "*3 $1 1 $-1 $-1 -ERR unknown command 'FOO', with args beginning with:  :2"
    );
    assert!(!connection.is_waiting());
}

#[test]
fn parts_are_not_overtaken() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    node.deferring = true;
    let keys: Vec<String> = (0..3_000).map(|n| format!("k{n}")).collect();
    connection.receive(format!("DEL {}\r\nSET k2999 v\r\n", keys.join(" ")).as_bytes(), &mut node);
    assert_eq!(node.waiting.len(), 1_024);
    assert!(!connection.wants_input());
    for _ in 0..3_000 {
        node.release(0, &mut connection);
    }
    assert_eq!(sent(&mut connection), ":0");
    node.release(0, &mut connection);
    assert_eq!(sent(&mut connection), "+OK");
    node.deferring = false;
    script_on(&mut node, &mut connection, "GET k2999 => $1 v");
}

#[test]
fn parts_that_reply_at_once_and_parts_that_wait_make_one_reply() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    script_on(&mut node, &mut connection, "MSET a 1 b 2 c 3 d 4 => +OK");
    let commands = [
        ("MGET a none b c d", "*5 $1 1 $-1 $1 2 $1 3 $1 4"),
        ("EXISTS a none b c d", ":4"),
        ("MSET a 1 b 2 c 3 d 4 e 5", "+OK"),
        ("DEL a b none1 none2 none3", ":2"),
    ];
    for (command, expected) in commands {
        for at_once in 0..=5 {
            script_on(&mut node, &mut connection, "MSET a 1 b 2 c 3 d 4 => +OK");
            (node.deferring, node.at_once) = (true, at_once);
            connection.receive(format!("{command}\r\nPING\r\n").as_bytes(), &mut node);
            assert_eq!(node.waiting.len(), 5 - at_once, "{command}");
            while !node.waiting.is_empty() {
                let last = node.waiting.len() - 1;
                node.release(last, &mut connection);
            }
            assert_eq!(sent(&mut connection), format!("{expected} +PONG"), "{command}, {at_once} at once");
            assert!(!connection.is_waiting());
            (node.deferring, node.at_once) = (false, 0);
        }
    }
    connection.receive(b"CLIENT REPLY SKIP\r\nMGET a b\r\nPING\r\n", &mut node);
    assert_eq!(sent(&mut connection), "+PONG");
}

#[test]
fn an_error_of_a_part_wins() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    script_on(
        &mut node,
        &mut connection,
        "
        RD.LOCK b me 1000 => *3 :1 :1 :1
        MSET a 1 b 2 c 3 => -WRONGTYPE Operation against a key holding the wrong kind of value
        ",
    );
}

#[test]
fn whole_cluster_commands_wait_for_all_parts() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    script_on(&mut node, &mut connection, "MSET a 1 b 2 c 3 => +OK");
    node.deferring = true;
    for (command, expected) in
        [("DBSIZE", ":3"), ("SCAN 0 COUNT 100", "*2 $1 0 *3"), ("RANDOMKEY", "$1 "), ("FLUSHALL", "+OK")]
    {
        connection.receive(format!("{command}\r\n").as_bytes(), &mut node);
        assert!(connection.is_waiting());
        while !node.waiting.is_empty() {
            let last = node.waiting.len() - 1;
            node.release(last, &mut connection);
        }
        assert!(sent(&mut connection).starts_with(expected), "{command}");
    }
}

/// A thousand GETs behind the SET of a long value, whose commit they wait for, were a thousand copies of it.
#[test]
fn replies_that_the_node_holds_back_count() {
    let mut node = TestNode::new(16);
    let mut connection = node.connect();
    let value = "v".repeat(300_000);
    let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$300000\r\n{value}\r\n");
    connection.receive(set.as_bytes(), &mut node);
    assert_eq!(sent(&mut connection), "+OK");
    node.deferring = true;
    connection.receive("GET k\r\n".repeat(100).as_bytes(), &mut node);
    assert_eq!(node.waiting.len(), 4, "a mebibyte is full");
    assert!(!connection.wants_input());
    let mut replies = 0;
    while !node.waiting.is_empty() {
        node.release(0, &mut connection);
        assert!(node.waiting.len() <= 4);
        replies += connection.output().len() / value.len();
        connection.output_written();
        connection.process(&mut node);
    }
    assert_eq!(replies, 100);
    assert!(connection.wants_input());
    assert_eq!(connection.info().output_bytes, 0);
}

#[test]
fn limits_hold_commands_back() {
    let mut node = TestNode::new(1);
    let mut connection =
        node.connect_with(ConnectionLimits { pending_max: 3, ..ConnectionLimits::default() });
    node.deferring = true;
    connection.receive(&b"INCR k\r\n".repeat(10), &mut node);
    assert_eq!(node.waiting.len(), 3);
    assert!(!connection.wants_input());
    while !node.waiting.is_empty() {
        node.release(0, &mut connection);
    }
    assert_eq!(sent(&mut connection), ":1 :2 :3 :4 :5 :6 :7 :8 :9 :10");
    assert!(connection.wants_input());

    let mut connection =
        node.connect_with(ConnectionLimits { output_bytes_max: 10, ..ConnectionLimits::default() });
    node.deferring = false;
    connection.receive(&b"PING\r\n".repeat(10), &mut node);
    let mut replies = 0;
    while !connection.output().is_empty() {
        replies += sent(&mut connection).matches("PONG").count();
        connection.process(&mut node);
    }
    assert_eq!(replies, 10);
}

#[test]
fn replies_to_commands_that_came_together_leave_together() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    (node.deferring, node.at_once) = (true, 1);
    connection.receive(&b"INCR k\r\n".repeat(3), &mut node);
    assert!(!connection.output().is_empty() && !connection.output_is_due(), "two more are to come");
    node.release(1, &mut connection);
    assert!(!connection.output_is_due());
    // What came later is not waited for.
    connection.receive(b"INCR k\r\nINCR k\r\n", &mut node);
    connection.receive(b"INCR k\r\n", &mut node);
    node.release(0, &mut connection);
    assert!(connection.output_is_due());
    assert_eq!(connection.output(), b":1\r\n:2\r\n:3\r\n");
    connection.output_written();
    node.release(0, &mut connection);
    assert!(!connection.output_is_due(), "one more came with this one");
    connection.release_output();
    assert!(connection.output_is_due(), "it may take too long");
    connection.output_written();
    node.release(0, &mut connection);
    assert!(connection.output_is_due());
    // Nor do replies that are due wait for those of the next read, which came meanwhile.
    connection.output_written();
    connection.receive(b"INCR k\r\nINCR k\r\n", &mut node);
    node.release(0, &mut connection);
    assert!(connection.output_is_due());
    node.release(0, &mut connection);
    assert!(connection.output_is_due());
    connection.output_written();
    node.at_once = 1;
    node.release(0, &mut connection);
    connection.receive(b"INCR k\r\nINCR k\r\n", &mut node);
    assert!(connection.output_is_due());
}

#[test]
fn a_breach_of_protocol_closes_behind_earlier_replies() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    node.deferring = true;
    connection.receive(b"GET k\r\n*1\r\n:\r\nPING\r\n", &mut node);
    assert!(!connection.is_closed() && !connection.wants_input());
    node.release(0, &mut connection);
    assert_eq!(sent(&mut connection), "$-1 -ERR Protocol error: expected '$', got ':'");
    assert!(connection.is_closed());
}

#[test]
fn quit_closes_and_drops_what_follows() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    connection.receive(b"PING\r\nQUIT\r\nPING\r\n", &mut node);
    assert_eq!(sent(&mut connection), "+PONG +OK");
    assert!(connection.is_closed());
}

#[test]
fn sleep_holds_back_what_follows() {
    let mut node = TestNode::new(1);
    node.debug = true;
    let mut connection = node.connect();
    connection.receive(b"DEBUG SLEEP 0.5\r\nPING\r\n", &mut node);
    assert_eq!(sent(&mut connection), "");
    let [(ticket, 500_000)] = node.slept[..] else { panic!("{:?}", node.slept) };
    connection.complete(ticket, b"+OK\r\n", &mut node);
    assert_eq!(sent(&mut connection), "+OK +PONG");
}

#[test]
fn stale_tickets_are_ignored() {
    let mut node = TestNode::new(1);
    let mut connection: Connection = node.connect();
    connection.complete(super::Ticket(u64::MAX), b"+OK\r\n", &mut node);
    connection.complete(super::Ticket(0), b"+OK\r\n", &mut node);
    assert_eq!(sent(&mut connection), "");
}

#[test]
fn every_split_of_a_pipeline_gives_the_same_replies() {
    let input =
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\nb\n\r\nGET k\r\n*2\r\n$4\r\nMGET\r\n$1\r\nk\r\nPING\r\n";
    for cut in 0..=input.len() {
        let mut node = TestNode::new(4);
        let mut connection = node.connect();
        connection.receive(&input[..cut], &mut node);
        connection.receive(&input[cut..], &mut node);
        assert_eq!(sent(&mut connection), "+OK $5 a b\n *1 $5 a b\n +PONG", "cut at {cut}");
    }
}
