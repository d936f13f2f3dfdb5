//! What is done with hostile bytes, one function a decoder: decode, and assert what must hold of
//! the outcome. The fuzz targets call these, and so does `tests/it/fuzz_smoke.rs`.

// Each target uses one of them.
#![allow(dead_code)]

use bytes::Bytes;
use ringdove::config::{NodeConfig, Settings};
use ringdove::engine::client_wire::{ClusterView, frame};
use ringdove::engine::frame::{Class, FrameDecoder};
use ringdove::engine::message;
use ringdove::engine::record::{self, Limits};
use ringdove::engine::resp::{Decoded, Decoder, DecoderLimits, Reply, ReplyLimits, Trust};
use std::io::Write;

/// Commands of Redis clients: the same commands however the bytes are cut.
pub fn resp(input: &[u8]) {
    for trust in [Trust::Authenticated, Trust::Stranger] {
        let whole = commands(input, trust, input.len().max(1));
        for cut in [1, 2, 7] {
            assert_eq!(commands(input, trust, cut), whole, "cut every {cut} bytes");
        }
    }
}

/// The commands in `input` as it arrives in pieces, and the breach that ended them.
fn commands(input: &[u8], trust: Trust, piece: usize) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
    let limits = DecoderLimits { args_max: 64, bulk_bytes_max: 4_096, command_bytes_max: 16_384 };
    let mut decoder = Decoder::new(limits);
    let (mut buffer, mut found) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece) {
        buffer.extend_from_slice(piece);
        loop {
            match decoder.decode(&buffer, trust) {
                Ok(Decoded::Command { consumed }) => {
                    assert!(0 < consumed && consumed <= buffer.len());
                    found.push(decoder.args(&buffer).iter().map(|arg| arg.to_vec()).collect());
                    buffer.drain(..consumed);
                }
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(0 < needed && needed <= limits.command_bytes_max + 2);
                    break;
                }
                Err(breach) => return (found, Some(breach.to_string())),
            }
        }
    }
    (found, None)
}

/// Replies, as clients read them: a prefix is never a different reply.
pub fn reply(input: &[u8]) {
    let limits = ReplyLimits { bulk_bytes_max: 4_096, entries_max: 1_024 };
    if let Ok(Some((whole, taken))) = Reply::parse(input, &limits) {
        assert!(0 < taken && taken <= input.len());
        let again = Reply::parse(&input[..taken], &limits);
        assert!(matches!(again, Ok(Some((_, same))) if same == taken), "{whole:?}");
        for cut in [0, taken / 2, taken - 1] {
            let part = Reply::parse(&input[..cut], &limits);
            assert!(matches!(part, Ok(None)), "{whole:?} cut at {cut}: {part:?}");
        }
    }
}

/// Frames between nodes, and the messages in them.
pub fn peer(input: &[u8]) {
    let Some((&tag, stream)) = input.split_first() else { return };
    let class = Class::from_tag(tag % 4).unwrap_or(Class::Hot);
    let mut frames = Vec::new();
    let mut decoder = FrameDecoder::new(class.frame_bytes_max());
    // Every other byte count is as good as any to cut at.
    for piece in stream.chunks(usize::from(tag) + 1) {
        if decoder.push(Bytes::copy_from_slice(piece), &mut frames).is_err() {
            break;
        }
    }
    assert!(frames.iter().map(Bytes::len).sum::<usize>() <= stream.len());
    for frame in frames.iter().map(|frame| &frame[..]).chain([stream]) {
        let Some((incarnation, mut rest)) = message::open(frame) else { continue };
        while !rest.is_empty() {
            let before = rest.len();
            let Ok(decoded) = message::next(&mut rest) else { break };
            assert!(rest.len() < before, "a message of no bytes");
            let mut encoded = Vec::new();
            message::begin(incarnation, &mut encoded);
            message::append(&decoded, &mut encoded);
            let (_, mut again) = message::open(&encoded).expect("just begun");
            assert!(message::next(&mut again).is_ok(), "what was decoded can be sent on");
        }
    }
}

/// Records: what decodes encodes to something that decodes to the same.
pub fn record(input: &[u8]) {
    let limits = Limits { key_bytes_max: 1_024, value_bytes_max: 4_096 };
    let mut rest = input;
    while !rest.is_empty() {
        let before = rest.len();
        let Ok(effect) = record::decode(&mut rest, &limits) else { break };
        assert!(rest.len() < before, "a record of no bytes");
        if let Some(key) = effect.key() {
            assert!(key.len() <= 1_024);
        }
        let mut encoded = Vec::new();
        record::encode(&effect, &mut encoded);
        let mut again = &encoded[..];
        assert_eq!(record::decode(&mut again, &limits).as_ref(), Ok(&effect));
        assert!(again.is_empty());
    }
}

/// Frames of QUIC clients, both ways, and the table that nodes send them.
pub fn client_wire(input: &[u8]) {
    let mut rest = input;
    while let Ok(Some((found, taken))) = frame::split(rest, 64 << 10) {
        assert!(0 < taken && taken <= rest.len());
        let _ = found.to_node();
        let _ = found.from_node();
        rest = &rest[taken..];
    }
    if let Ok(view) = ClusterView::decode(input) {
        assert!(ClusterView::decode(&view.encode()).is_ok());
    }
}

/// Configuration files.
pub fn config(input: &[u8]) {
    let mut file = tempfile();
    file.1.write_all(input).expect("a temporary file");
    let nothing = std::iter::empty::<(std::ffi::OsString, std::ffi::OsString)>();
    match NodeConfig::load(Some(file.0.clone()), Settings::default(), nothing) {
        Ok(config) => assert_eq!(config.check(), Ok(())),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    let _gone = std::fs::remove_file(&file.0);
}

/// A file that no other target or thread writes.
fn tempfile() -> (std::path::PathBuf, std::fs::File) {
    let name = format!("ringdove-fuzz-{}-{:?}.toml", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(name);
    let file = std::fs::File::create(&path).expect("a temporary file");
    (path, file)
}
