//! The same commands to ringdove and to a real Redis server: the same replies, byte for byte.

#[path = "../support/command_stream.rs"]
mod command_stream;

use crate::harness::cluster::Cluster;
use crate::harness::resp::Resp;
use crate::harness::tools;
use crate::harness::wait::eventually;
use command_stream::{CommandStream, encode, is_timed};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SEEDS: u64 = 4;
const COMMANDS_PER_SEED: usize = 3_000;

/// A Redis server of our own, without files.
struct RedisServer(Child, SocketAddr);

impl RedisServer {
    fn start(program: &std::path::Path) -> RedisServer {
        // Bound, seen, and given back.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let port = address.port().to_string();
        let folder = std::env::temp_dir();
        let child = Command::new(program)
            .args([
                "--port",
                &port,
                "--bind",
                "127.0.0.1",
                "--databases",
                "1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--dir",
            ])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        let server = RedisServer(child, address);
        eventually("redis-server answers", Duration::from_secs(20), || {
            Resp::connect(address).and_then(|mut resp| resp.words("PING")).map_err(|error| error.to_string())
        });
        server
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn replies_equal_those_of_a_redis_server() {
    let Some(program) = tools::find(&["redis-server"]) else { return };
    let cluster = Cluster::start(1);
    let redis = RedisServer::start(&program);
    for proto in ["2", "3"] {
        for seed in 0..SEEDS {
            let mut theirs = Resp::connect(redis.1).unwrap();
            let mut ours = cluster.connect(0);
            for resp in [&mut theirs, &mut ours] {
                let hello = resp.call(&["HELLO", proto]).unwrap();
                assert!(hello.error().is_none(), "{hello:?}");
                assert!(resp.words("FLUSHALL").unwrap().error().is_none());
            }
            let mut said: Vec<String> = Vec::new();
            for command in CommandStream::new(seed).take(COMMANDS_PER_SEED) {
                said.push(command.join(" "));
                let bytes = encode(&command);
                theirs.send(&bytes).unwrap();
                ours.send(&bytes).unwrap();
                let (expected, actual) = (theirs.reply().unwrap(), ours.reply().unwrap());
                assert!(
                    actual == expected || is_timed(&command),
                    "RESP{proto}, seed {seed}: ringdove says {actual:?}, Redis {expected:?}, after:\n{}",
                    said[said.len().saturating_sub(8)..].join("\n")
                );
            }
        }
    }
}
