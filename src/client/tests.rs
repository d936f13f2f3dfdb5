//! The client against a fake cluster, with faults.

use super::fake_cluster::{FakeCluster, Fault};
use super::{Client, ClientConfig};
use crate::drivers::clock::Clock;
use crate::drivers::pki::{Secret, Trust};
use crate::drivers::quic::{self, ClientConnection, DownReason, Hello, Links, LocalFuture, Mesh, MeshConfig};
use crate::engine::client_wire::{Outcome, Refusal};
use crate::engine::frame::Class;
use crate::engine::ids::{MapId, NodeId, TableVersion};
use crate::engine::resp::Reply;
use crate::engine::table::MapDefaults;
use crate::error::{Error, WriteOutcome};
use bytes::Bytes;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

async fn run(client: &Client, command: &str) -> Result<Reply, Error> {
    let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
    client.command(&args).await
}

fn ok() -> Result<Reply, Error> {
    Ok(Reply::Simple("OK".to_owned()))
}

fn text(text: &str) -> Result<Reply, Error> {
    Ok(Reply::Bulk(text.as_bytes().to_vec()))
}

/// A key whose primary is `node`.
fn key_at(cluster: &FakeCluster, node: usize) -> String {
    let mut keys = (0..).map(|n| format!("key{n}"));
    keys.find(|key| cluster.primary_of(key.as_bytes()) == node).unwrap()
}

#[tokio::test]
async fn commands_go_straight_to_the_primary() {
    let cluster = FakeCluster::new(3);
    cluster.redirect();
    let client = cluster.client().await;
    for node in 0..3 {
        let key = key_at(&cluster, node);
        assert_eq!(run(&client, &format!("SET {key} {node}")).await, ok());
        assert_eq!(run(&client, &format!("GET {key}")).await, text(&node.to_string()));
    }
    assert_eq!(cluster.commands(), [2, 2, 2]);
    assert_eq!(cluster.dials(), 3);
}

#[tokio::test]
async fn many_commands_share_connections() {
    let cluster = FakeCluster::new(3);
    let client = cluster.client().await;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..2_000 {
        let client = client.clone();
        tasks.spawn(async move { run(&client, &format!("INCRBY key{} 1", n % 10)).await });
    }
    while let Some(result) = tasks.join_next().await {
        assert!(matches!(result.unwrap(), Ok(Reply::Integer(_))));
    }
    for n in 0..10 {
        assert_eq!(run(&client, &format!("GET key{n}")).await, text("200"));
    }
    assert_eq!(cluster.dials(), 3);
}

#[tokio::test]
async fn a_write_whose_reply_was_lost_runs_once() {
    let cluster = FakeCluster::new(2);
    let client = cluster.client().await;
    cluster.inject([Fault::LoseReply, Fault::LoseReply, Fault::LoseRequest]);
    assert_eq!(run(&client, "INCRBY counter 5").await, Ok(Reply::Integer(5)));
    assert_eq!(run(&client, "INCRBY counter 5").await, Ok(Reply::Integer(10)));
    assert_eq!(cluster.executed(), 2);
}

#[tokio::test]
async fn a_numbered_write_that_a_node_doubts_is_asked_again() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    cluster.inject([Fault::AnswerAfter(Outcome::InDoubt)]);
    assert_eq!(run(&client, "INCRBY counter 1").await, Ok(Reply::Integer(1)));
    assert_eq!(cluster.executed(), 1);
}

#[tokio::test]
async fn a_write_in_parts_is_never_sent_twice() {
    let cluster = FakeCluster::new(2);
    let client = cluster.client().await;
    let (here, there) = (key_at(&cluster, 0), key_at(&cluster, 1));
    for fault in [
        Fault::LoseReply,
        Fault::LoseRequest,
        Fault::AnswerAfter(Outcome::InDoubt),
        Fault::AnswerAfter(Outcome::Refused(Refusal::NoReplicas)),
        Fault::AnswerAfter(Outcome::TryAgain { retry_ms: 1 }),
    ] {
        let before: u64 = cluster.commands().iter().sum();
        cluster.inject([fault]);
        let error = run(&client, &format!("MSET {here} 1 {there} 2")).await.unwrap_err();
        assert_eq!(error, Error::InDoubt);
        assert_eq!(error.write_outcome(), WriteOutcome::Unknown);
        assert_eq!(cluster.commands().iter().sum::<u64>(), before + 1);
    }
    cluster.inject([Fault::LoseReply]);
    assert!(run(&client, &format!("MGET {here} {there}")).await.is_ok(), "a read is");
}

#[tokio::test]
async fn a_moved_partition_is_followed_by_news_and_by_redirection() {
    let cluster = FakeCluster::new(2);
    cluster.redirect();
    let client = cluster.client().await;
    let key = key_at(&cluster, 0);
    assert_eq!(run(&client, &format!("SET {key} v")).await, ok());
    cluster.move_key(key.as_bytes(), 1, false);
    assert_eq!(run(&client, &format!("GET {key}")).await, text("v"));
    assert_eq!(cluster.commands(), [2, 1], "redirected once");
    assert_eq!(run(&client, &format!("GET {key}")).await, text("v"));
    assert_eq!(cluster.commands(), [2, 2], "and remembered");
}

#[tokio::test]
async fn refusals_that_pass_are_waited_for() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    cluster.inject([
        Fault::Answer(Outcome::TryAgain { retry_ms: 1 }),
        Fault::Answer(Outcome::Refused(Refusal::ClusterDown)),
        Fault::Answer(Outcome::Refused(Refusal::NoReplicas)),
        Fault::Answer(Outcome::Refused(Refusal::ShuttingDown)),
        Fault::Answer(Outcome::Moved { table_version: TableVersion(1) }),
    ]);
    assert_eq!(run(&client, "SET a 1").await, ok());
    assert_eq!(cluster.commands(), [6]);
}

#[tokio::test]
async fn refusals_that_stay_are_returned_when_the_time_is_up() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client_with(cluster.config().deadline(Duration::from_millis(60))).await;
    let down = Fault::Answer(Outcome::Refused(Refusal::ClusterDown));
    cluster.inject([down; 100]);
    let error = run(&client, "SET a 1").await.unwrap_err();
    assert_eq!(error, Error::ClusterDown);
    assert_eq!(error.write_outcome(), WriteOutcome::NotDone);
}

#[tokio::test]
async fn a_lost_write_that_can_not_be_asked_about_is_in_doubt() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client_with(cluster.config().deadline(Duration::from_millis(60))).await;
    let down = Fault::Answer(Outcome::Refused(Refusal::ClusterDown));
    cluster.inject([Fault::LoseReply].into_iter().chain([down; 100]));
    assert_eq!(run(&client, "SET a 1").await, Err(Error::InDoubt));
}

#[tokio::test]
async fn a_forgotten_write_is_in_doubt_at_once() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    cluster.inject([Fault::Answer(Outcome::Refused(Refusal::Forgotten))]);
    assert_eq!(run(&client, "SET a 1").await, Err(Error::InDoubt));
    assert_eq!(cluster.commands(), [1]);
}

#[tokio::test]
async fn a_killed_node_is_survived_by_any_that_answers() {
    let cluster = FakeCluster::new(3);
    let client = cluster.client().await;
    let key = key_at(&cluster, 0);
    assert_eq!(run(&client, &format!("SET {key} v")).await, ok());
    // The only seed dies; the client knows the others from the table.
    cluster.kill(0, 2);
    assert_eq!(run(&client, &format!("GET {key}")).await, text("v"));
    assert_eq!(run(&client, &format!("INCRBY n{key} 1")).await, Ok(Reply::Integer(1)));
}

#[tokio::test]
async fn a_silent_node_is_given_up_and_its_writes_run_once() {
    let cluster = FakeCluster::new(2);
    let client = cluster.client_with(cluster.config().silence_max(Duration::from_millis(60))).await;
    let key = key_at(&cluster, 1);
    cluster.inject([Fault::Silence]);
    assert_eq!(run(&client, &format!("INCRBY {key} 1")).await, Ok(Reply::Integer(1)));
    assert_eq!(cluster.executed(), 1);
}

#[tokio::test]
async fn error_replies_are_errors() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    assert_eq!(run(&client, "SET a text").await, ok());
    let error = run(&client, "INCR a").await.unwrap_err();
    assert_eq!(error, Error::Command("ERR value is not an integer or out of range".to_owned()));
    assert!(matches!(run(&client, "NOSUCH a").await, Err(Error::Command(_))));
    assert!(matches!(client.command(&[]).await, Err(Error::TooLarge(_))));
}

#[tokio::test]
async fn maps_are_opened_once() {
    let cluster = FakeCluster::new(2);
    let client = cluster.client().await;
    let first = client.open_map("first", MapDefaults::default()).await.unwrap();
    let second = client.open_map("second", MapDefaults::default()).await.unwrap();
    assert_eq!((first, second), (MapId(1), MapId(2)));
    assert_eq!(client.open_map("first", MapDefaults::default()).await, Ok(first));
    assert!(matches!(client.open_map("", MapDefaults::default()).await, Err(Error::MapRefused(_))));
}

#[tokio::test]
async fn nobody_to_talk_to_is_said_with_the_reason() {
    let cluster = FakeCluster::new(1);
    cluster.distrust();
    let config = cluster.config();
    let error = Client::connect_by(config, Box::new(cluster.clone())).await.unwrap_err();
    assert!(matches!(&error, Error::NotAuthorised(why) if why.contains("not trusted")), "{error}");

    let cluster = FakeCluster::new(1);
    let config = ClientConfig::new(["127.0.0.1:9001"]).deadline(Duration::from_millis(30));
    let error = Client::connect_by(config, Box::new(cluster.clone())).await.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(why) if why.contains("nobody there")), "{error}");
}

#[tokio::test]
async fn little_room_is_shared_by_all() {
    let cluster = FakeCluster::new(2);
    let config = cluster.config().in_flight_max(2).in_flight_bytes_max(64 << 10);
    let client = cluster.client_with(config).await;
    let large = "x".repeat(200 << 10);
    let writes = (0..8).map(|n| {
        let (client, value) = (client.clone(), large.clone());
        tokio::spawn(async move { run(&client, &format!("SET key{n} {value}")).await })
    });
    for write in writes.collect::<Vec<_>>() {
        assert_eq!(write.await.unwrap(), ok());
    }
    assert_eq!(run(&client, "STRLEN key3").await, Ok(Reply::Integer(200 << 10)));
}

/// The clients' door of a real node, behind which is the fake cluster.
struct Door(FakeCluster);

impl Links for Door {
    fn client(&self, connection: ClientConnection) {
        let cluster = self.0.clone();
        tokio::task::spawn_local(async move {
            let stream = tokio::io::join(connection.recv, connection.send);
            cluster.serve(0, stream).await;
            ClientConnection::hang_up(&connection.connection, "done");
        });
    }
    fn link_up(&self, _peer: NodeId, _hello: &Hello, _addr: SocketAddr) {}
    fn link_down(&self, _peer: NodeId, _reason: DownReason) {}
    fn frames(&self, _peer: NodeId, _class: Class, _frames: &mut Vec<Bytes>) {}
    fn datagram(&self, _peer: NodeId, _bytes: Bytes) {}
    fn request(&self, _peer: NodeId, _body: Bytes) -> LocalFuture<Result<Bytes, quic::Refusal>> {
        Box::pin(async { Err(quic::Refusal("no requests here".to_owned())) })
    }
    fn accepts(&self, _hello: &Hello) -> Result<(), quic::Refusal> {
        Ok(())
    }
}

fn trust(secret: &str) -> Trust {
    Trust::from_secret(&Secret::new(secret).unwrap()).unwrap()
}

#[tokio::test]
async fn over_quic_it_is_the_same() {
    tokio::task::LocalSet::new().run_until(serve_over_quic()).await;
}

async fn serve_over_quic() {
    let cluster = FakeCluster::new(1);
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = MeshConfig::new(listen, trust("a secret long enough"), NodeId(1), Clock::new());
    let mesh = Mesh::bind(config, Rc::new(Door(cluster.clone()))).unwrap();
    let address = mesh.local_addr().unwrap();
    cluster.locate(0, address);
    let config = || ClientConfig::new([address.to_string()]);

    let client = Client::connect(config().trust(trust("a secret long enough"))).await.unwrap();
    assert_eq!(run(&client, "SET a 1").await, ok());
    cluster.inject([Fault::LoseReply]);
    assert_eq!(run(&client, "INCRBY a 1").await, Ok(Reply::Integer(2)));
    let large = "x".repeat(3 << 20);
    assert_eq!(run(&client, &format!("SET b {large}")).await, ok());
    assert_eq!(run(&client, "GET b").await, text(&large));

    let error = Client::connect(config().trust(trust("another secret altogether"))).await.unwrap_err();
    assert!(matches!(error, Error::NotAuthorised(_)), "{error}");
    mesh.close("done").await;
}
