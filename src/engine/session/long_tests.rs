//! Long values: received apart and replied by count, whatever the pieces that commands come in.

use super::testing::{TestNode, sent};
use super::{Connection, ConnectionLimits};
use crate::engine::resp::{DecoderLimits, LONG_BYTES_MIN};
use proptest::prelude::*;

fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn bulk(value: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat()
}

/// A value whose bytes differ from place to place.
fn value(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| ((at ^ (at >> 8)).wrapping_mul(31) + seed) as u8).collect()
}

/// Takes all output, as a driver does.
fn take_output(connection: &mut Connection) -> Vec<u8> {
    let mut output = Vec::new();
    loop {
        let piece = connection.output_piece(output.len());
        if piece.is_empty() {
            break;
        }
        output.extend_from_slice(piece);
    }
    assert_eq!(output.len(), connection.output_len());
    connection.output_written();
    assert_eq!(connection.output_len(), 0);
    output
}

/// Takes output and goes on with the input for as long as there is some.
fn drain(connection: &mut Connection, node: &mut TestNode) -> Vec<u8> {
    let mut output = Vec::new();
    while connection.output_len() > 0 {
        output.extend(take_output(connection));
        connection.process(node);
    }
    output
}

/// Commands of all kinds with long values among short ones, and the replies of all but the last two.
fn conversation() -> (Vec<Vec<u8>>, Vec<u8>) {
    let (a, b) = (value(1, LONG_BYTES_MIN), value(2, LONG_BYTES_MIN + 4_321));
    let commands: Vec<Vec<u8>> = vec![
        command(&[b"SET", b"short", b"1"]),
        command(&[b"SET", b"a", &a]),
        b"GET short\r\n".to_vec(),
        command(&[b"GET", b"a"]),
        command(&[b"SET", b"b", &b, b"EX", b"100"]),
        command(&[b"GETSET", b"a", &b]),
        command(&[b"TTL", b"b"]),
        command(&[b"MSET", b"c", &a, b"short", b"2", b"d", &b]),
        command(&[b"MGET", b"c", b"short", b"d"]),
        command(&[b"GETDEL", b"c"]),
        command(&[b"SET", b"a", b"short again"]),
        command(&[b"GET", b"a"]),
        command(&[b"SETEX", b"short", b"9", &a]),
        command(&[b"STRLEN", b"short"]),
        command(&[b"ECHO", &b]),
        command(&[b"NONSENSE", &b]),
        command(&[b"DBSIZE"]),
    ];
    let replies = [
        &b"+OK\r\n+OK\r\n$1\r\n1\r\n"[..],
        &bulk(&a),
        b"+OK\r\n",
        &bulk(&a),
        b":100\r\n+OK\r\n*3\r\n",
        &bulk(&a),
        &bulk(b"2"),
        &bulk(&b),
        &bulk(&a),
        b"+OK\r\n$11\r\nshort again\r\n+OK\r\n",
        format!(":{}\r\n", a.len()).as_bytes(),
        &bulk(&b),
    ]
    .concat();
    (commands, replies)
}

fn check_pieces(whole: &[u8], expected: &[u8], cuts: &[usize]) {
    let mut node = TestNode::new(4);
    let mut connection = node.connect();
    let (mut from, mut output) = (0, Vec::new());
    for &to in cuts.iter().chain([&whole.len()]) {
        connection.receive(&whole[from..to], &mut node);
        output.extend(drain(&mut connection, &mut node));
        from = to;
    }
    assert!(output.starts_with(expected), "cut at {cuts:?}");
    let rest = String::from_utf8_lossy(&output[expected.len()..]).into_owned();
    assert!(rest.starts_with("-ERR unknown command 'NONSENSE'") && rest.ends_with("\r\n:4\r\n"), "{cuts:?}");
    assert_eq!((connection.info().input_bytes, connection.receives_long()), (0, false));
}

#[test]
fn long_values_in_pieces_cut_around_every_boundary() {
    let (commands, expected) = conversation();
    let whole = commands.concat();
    check_pieces(&whole, &expected, &[]);
    let mut ends = vec![0];
    for command in &commands {
        let start = ends.last().copied().unwrap_or(0);
        if command.len() >= LONG_BYTES_MIN {
            // Where the long arguments begin.
            ends.extend([20, 30, 40].map(|at| start + at));
        }
        ends.push(start + command.len());
    }
    for end in ends {
        for cut in end.saturating_sub(4)..=(end + 3).min(whole.len()) {
            check_pieces(&whole, &expected, &[cut]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn long_values_in_any_pieces(cuts in proptest::collection::btree_set(0usize..2_800_000, 0..40)) {
        let (commands, expected) = conversation();
        let whole = commands.concat();
        let cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut <= whole.len()).collect();
        check_pieces(&whole, &expected, &cuts);
    }
}

#[test]
fn a_long_value_is_kept_and_sent_where_it_was_received() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    let long = value(3, LONG_BYTES_MIN + 7);
    let set = command(&[b"SET", b"k", &long]);
    connection.receive(&set[..1_000], &mut node);
    assert!(connection.receives_long());
    let (received_at, room) = (connection.input().as_ptr(), connection.input().capacity());
    assert_eq!(room, long.len());
    let input_bytes = connection.info().input_bytes;
    assert_eq!(input_bytes, 1_000, "what came is counted, not what is announced");
    connection.receive(&set[1_000..], &mut node);
    assert_eq!(sent(&mut connection), "+OK");
    connection.receive(b"GET k\r\n", &mut node);
    assert_eq!(connection.info().output_bytes, bulk(&long).len());
    let header = connection.output_piece(0).len();
    assert_eq!(connection.output_piece(header).as_ptr(), received_at);
    assert_eq!(take_output(&mut connection), bulk(&long));
}

#[test]
fn a_reply_shows_the_value_as_it_was() {
    for change in [&b"SET k short\r\n"[..], b"DEL k\r\n", b"APPEND k more\r\n", b"FLUSHALL\r\n"] {
        let mut node = TestNode::new(1);
        let (mut reader, mut writer) = (node.connect(), node.connect());
        let long = value(4, LONG_BYTES_MIN);
        writer.receive(&command(&[b"SET", b"k", &long]), &mut node);
        reader.receive(b"GET k\r\n", &mut node);
        writer.receive(change, &mut node);
        reader.receive(b"PING\r\n", &mut node);
        assert_eq!(take_output(&mut reader), [&bulk(&long)[..], b"+PONG\r\n"].concat());
    }
}

#[test]
fn replies_that_wait_are_whole() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    let long = value(5, LONG_BYTES_MIN);
    connection.receive(&command(&[b"SET", b"k", &long]), &mut node);
    assert_eq!(sent(&mut connection), "+OK");
    node.deferring = true;
    connection.receive(b"GET k\r\nPING\r\n", &mut node);
    node.deferring = false;
    // Behind one that waits.
    connection.receive(b"GET k\r\n", &mut node);
    assert_eq!(connection.output_len(), 0);
    node.release(0, &mut connection);
    assert_eq!(take_output(&mut connection), [&bulk(&long)[..], b"+PONG\r\n", &bulk(&long)].concat());
}

#[test]
fn a_command_with_long_values_waits_for_room() {
    let mut node = TestNode::new(1);
    let limits = ConnectionLimits { output_bytes_max: 1_000, ..ConnectionLimits::default() };
    let mut connection = node.connect_with(limits);
    let long = value(6, LONG_BYTES_MIN);
    let set = command(&[b"SET", b"k", &long]);
    connection.receive(&command(&[b"SET", b"l", &[b'x'; 2_000]]), &mut node);
    assert_eq!(sent(&mut connection), "+OK");
    node.deferring = true;
    connection.receive(b"GET l\r\n", &mut node);
    connection.receive(&set[..1_000], &mut node);
    node.deferring = false;
    // A reply takes the room while it is being received.
    node.release(0, &mut connection);
    assert!(!connection.wants_input());
    connection.receive(&set[1_000..set.len() - 1], &mut node);
    connection.receive(&[&set[set.len() - 1..], b"GET k\r\n"].concat(), &mut node);
    for _ in 0..2 {
        connection.process(&mut node);
        assert_eq!(connection.output_len(), 2_009, "it is whole, and has not begun");
    }
    let expected = [&bulk(&[b'x'; 2_000])[..], b"+OK\r\n", &bulk(&long)].concat();
    assert_eq!(drain(&mut connection, &mut node), expected);

    // Replies beyond the bound hold the next command back, also one that is there already.
    let limits = ConnectionLimits { output_bytes_max: LONG_BYTES_MIN, ..ConnectionLimits::default() };
    let mut connection = node.connect_with(limits);
    let mut expected = Vec::new();
    let mut input = Vec::new();
    for _ in 0..3 {
        input.extend_from_slice(&command(&[b"GETSET", b"k", &long]));
        expected.extend_from_slice(&bulk(&long));
    }
    let mut output = Vec::new();
    for piece in input.chunks(50_000) {
        connection.receive(piece, &mut node);
        assert!(connection.output_len() <= bulk(&long).len());
        output.extend(drain(&mut connection, &mut node));
    }
    assert_eq!(output, expected);
}

#[test]
fn long_values_are_bounded_before_any_room_is_made() {
    let mut node = TestNode::new(1);
    let decoder = DecoderLimits {
        bulk_bytes_max: LONG_BYTES_MIN * 2,
        command_bytes_max: LONG_BYTES_MIN * 3,
        ..DecoderLimits::default()
    };
    let limits = ConnectionLimits { decoder, ..ConnectionLimits::default() };
    let mut connection = node.connect_with(limits);
    let announced = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", LONG_BYTES_MIN * 2 + 1);
    connection.receive(announced.as_bytes(), &mut node);
    assert_eq!(sent(&mut connection), "-ERR Protocol error: invalid bulk length");
    assert!(connection.is_closed() && !connection.receives_long());

    // What was received apart counts.
    let mut connection = node.connect_with(limits);
    let long = value(7, LONG_BYTES_MIN * 2);
    let mut input = format!("*5\r\n$4\r\nMSET\r\n$1\r\nk\r\n${}\r\n", long.len()).into_bytes();
    input.extend_from_slice(&long);
    input.extend_from_slice(format!("\r\n$1\r\nl\r\n${}\r\n", LONG_BYTES_MIN).as_bytes());
    for piece in input.chunks(9_999) {
        connection.receive(piece, &mut node);
    }
    assert_eq!(sent(&mut connection), "-ERR Protocol error: too big request");
    assert!(connection.is_closed());

    // As long as the store allows, and no longer.
    let mut connection = node.connect();
    let long = value(8, (1 << 20) + 1);
    connection.receive(&command(&[b"SET", b"k", &long]), &mut node);
    assert!(sent(&mut connection).starts_with("-ERR"));
    assert!(!connection.is_closed());
}

#[test]
fn silenced_replies_leave_no_long_values() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    let long = value(9, LONG_BYTES_MIN);
    connection.receive(&command(&[b"SET", b"k", &long]), &mut node);
    assert_eq!(sent(&mut connection), "+OK");
    connection.receive(b"CLIENT REPLY SKIP\r\nGET k\r\nPING\r\n", &mut node);
    assert_eq!(take_output(&mut connection), b"+PONG\r\n");
}

#[test]
fn a_connection_that_ends_midway_changes_nothing() {
    let mut node = TestNode::new(1);
    let mut connection = node.connect();
    let used = node.bytes_used();
    let set = command(&[b"SET", b"k", &value(10, LONG_BYTES_MIN)]);
    connection.receive(&set[..set.len() - 1], &mut node);
    drop(connection);
    assert_eq!(node.bytes_used(), used);
    let mut connection = node.connect();
    connection.receive(b"GET k\r\n", &mut node);
    assert_eq!(sent(&mut connection), "$-1");
    // Nor does one before its command is whole.
    connection.receive(&set[..40], &mut node);
    assert!(connection.receives_long());
}
