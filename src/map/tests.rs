//! Typed maps against real commands, by way of a fake cluster.

use super::{Coded, Inserted, Map, MapOptions, Raw, SetOptions, SetOutcome, Text, TimeToLive, Versioned};
use crate::client::Client;
use crate::client::fake_cluster::{FakeCluster, Fault};
use crate::error::{Error, WriteOutcome};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user: String,
    visits: u32,
}

fn session(visits: u32) -> Session {
    Session { user: "ann".to_owned(), visits }
}

async fn sessions(cluster: &FakeCluster) -> Map<str, Session, Client> {
    cluster.client().await.map("sessions").await.unwrap()
}

#[tokio::test]
async fn values_of_any_type_come_back() {
    let cluster = FakeCluster::new(3);
    let map = sessions(&cluster).await;
    assert_eq!(map.get("a").await, Ok(None));
    map.set("a", &session(1)).await.unwrap();
    assert_eq!(map.get("a").await, Ok(Some(session(1))));
    assert_eq!(map.contains("a").await, Ok(true));
    assert_eq!(map.delete("a").await, Ok(true));
    assert_eq!(map.delete("a").await, Ok(false));
    assert_eq!(map.contains("a").await, Ok(false));
}

#[tokio::test]
async fn the_unnamed_map_is_what_redis_clients_see() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    let texts: Map<String, Text, Client> = client.unnamed();
    texts.set("user:1", &Text::from("ann")).await.unwrap();
    assert_eq!(client.bytes().get(&b"user:1"[..]).await, Ok(Some(Raw::from("ann"))));
    let numbered: Map<u64, Raw, Client> = client.unnamed();
    numbered.set(&42, &Raw::from("x")).await.unwrap();
    assert_eq!(texts.get("42").await, Ok(Some(Text::from("x"))));
    assert_eq!(sessions(&cluster).await.contains("user:1").await, Ok(false), "a map of its own");
}

#[tokio::test]
async fn sets_keep_to_their_options() {
    let cluster = FakeCluster::new(1);
    let map = sessions(&cluster).await;
    let outcome = |written, old| Ok(SetOutcome { written, old });
    let absent = SetOptions::new().only_if_absent();
    let present = SetOptions::new().only_if_present();
    assert_eq!(map.set_with("a", &session(1), present).await, outcome(false, None));
    assert_eq!(map.set_with("a", &session(1), absent.ttl(SECOND)).await, outcome(true, None));
    assert_eq!(map.set_with("a", &session(2), absent.return_old()).await, outcome(false, Some(session(1))));
    let keep = SetOptions::new().keep_ttl().return_old();
    assert_eq!(map.set_with("a", &session(3), keep).await, outcome(true, Some(session(1))));
    assert_eq!(map.ttl("a").await, Ok(TimeToLive::For(SECOND)));
    cluster.pass(SECOND);
    assert_eq!(map.get("a").await, Ok(None));
}

#[tokio::test]
async fn expiry_is_set_taken_away_and_defaulted() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    let options = MapOptions { ttl: Some(10 * SECOND), ..MapOptions::default() };
    let map: Map<str, u8, Client> = client.map_with("short", options).await.unwrap();
    map.set("a", &1).await.unwrap();
    assert_eq!(map.ttl("a").await, Ok(TimeToLive::For(10 * SECOND)));
    assert_eq!(map.persist("a").await, Ok(true));
    assert_eq!(map.ttl("a").await, Ok(TimeToLive::Forever));
    assert_eq!(map.expire("a", SECOND).await, Ok(true));
    assert_eq!(map.ttl("a").await, Ok(TimeToLive::For(SECOND)));
    assert_eq!(map.expire("b", SECOND).await, Ok(false));
    assert_eq!(map.ttl("b").await, Ok(TimeToLive::NoEntry));
    assert_eq!(map.expire_at("a", std::time::UNIX_EPOCH).await, Ok(true));
    assert_eq!(map.get("a").await, Ok(None));
}

#[tokio::test]
async fn versions_decide_who_swaps() {
    let cluster = FakeCluster::new(1);
    let map = sessions(&cluster).await;
    let first = map.compare_and_swap("a", None, &session(1), None).await.unwrap().unwrap();
    assert_eq!(map.compare_and_swap("a", None, &session(2), None).await, Ok(None));
    assert_eq!(map.get_versioned("a").await, Ok(Some(Versioned { value: session(1), version: first })));
    let second = map.compare_and_swap("a", Some(first), &session(2), Some(SECOND)).await.unwrap().unwrap();
    assert!(second > first);
    assert_eq!(map.compare_and_swap("a", Some(first), &session(3), None).await, Ok(None));
    assert_eq!(map.get_versioned("b").await, Ok(None));
}

#[tokio::test]
async fn a_swap_whose_reply_was_lost_is_not_mistaken_for_a_conflict() {
    let cluster = FakeCluster::new(1);
    let map = sessions(&cluster).await;
    cluster.inject([Fault::LoseReply]);
    assert!(map.compare_and_swap("a", None, &session(1), None).await.unwrap().is_some());
}

#[tokio::test]
async fn the_first_insert_wins() {
    let cluster = FakeCluster::new(1);
    let map = sessions(&cluster).await;
    let Inserted { value, version, inserted } = map.get_or_insert("a", &session(1)).await.unwrap();
    assert_eq!((value, inserted), (session(1), true));
    let again = map.get_or_insert_with_ttl("a", &session(2), SECOND).await;
    assert_eq!(again, Ok(Inserted { value: session(1), version, inserted: false }));
    map.get_or_insert_with_ttl("b", &session(2), SECOND).await.unwrap();
    assert_eq!(map.ttl("b").await, Ok(TimeToLive::For(SECOND)));
}

#[tokio::test]
async fn many_keys_at_once() {
    let cluster = FakeCluster::new(3);
    let map: Map<u32, u32, Client> = cluster.client().await.map("numbers").await.unwrap();
    let entries: Vec<(u32, u32)> = (0..1_000).map(|n| (n, n * n)).collect();
    let written = map.set_many(entries.iter().map(|(key, value)| (key, value)), SetOptions::new()).await;
    assert_eq!(written, Ok(1_000));
    assert_eq!(map.len().await, Ok(1_000));
    let values = map.get_many(&[3, 5_000, 30]).await;
    assert_eq!(values, Ok(vec![Some(9), None, Some(900)]));
    assert_eq!(map.get_many::<u32>(&[]).await, Ok(vec![]));

    let mut seen = BTreeSet::new();
    let mut scan = map.scan().page_size(50);
    while let Some(keys) = scan.next_page().await.unwrap() {
        seen.extend(keys);
    }
    assert_eq!(seen, (0..1_000).collect());
    let mut tens = BTreeSet::new();
    let mut scan = map.scan().matching("*0");
    while let Some(keys) = scan.next_page().await.unwrap() {
        tens.extend(keys);
    }
    assert_eq!(tens.len(), 100);

    assert_eq!(map.delete_many(&[1, 2, 5_000]).await, Ok(2));
    map.clear().await.unwrap();
    assert_eq!(map.is_empty().await, Ok(true));
}

#[tokio::test]
async fn counters_are_integers_as_redis_has_them() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    let map: Map<str, Text, Client> = client.unnamed();
    let counter = map.counter("hits").unwrap();
    assert_eq!(counter.get().await, Ok(0));
    assert_eq!(counter.add(5).await, Ok(5));
    assert_eq!(map.increment("hits", -7).await, Ok(-2));
    assert_eq!(map.get("hits").await, Ok(Some(Text::from("-2"))));
    counter.set(9).await.unwrap();
    assert_eq!(counter.get().await, Ok(9));
    map.set("name", &Text::from("ann")).await.unwrap();
    assert!(matches!(map.increment("name", 1).await, Err(Error::Command(_))));
    assert!(matches!(map.counter("name").unwrap().get().await, Err(Error::Decode(_))));
}

#[tokio::test]
async fn a_lock_has_one_holder_and_tokens_that_grow() {
    let cluster = FakeCluster::new(1);
    let map = sessions(&cluster).await;
    let first = map.try_lock("job", SECOND).await.unwrap().unwrap();
    assert!(map.try_lock("job", SECOND).await.unwrap().is_none());
    assert!(map.lock("job", SECOND, Duration::from_millis(20)).await.unwrap().is_none());
    assert_eq!(first.extend(2 * SECOND).await, Ok(true));
    cluster.pass(2 * SECOND);
    let second = map.lock("job", SECOND, SECOND).await.unwrap().unwrap();
    assert!(second.token() > first.token());
    assert_eq!(first.extend(SECOND).await, Ok(false));
    assert_eq!(first.unlock().await, Ok(false), "it isn't ours any more");
    assert_eq!(second.unlock().await, Ok(true));
    assert!(map.try_lock("job", SECOND).await.unwrap().is_some());
    assert_eq!(map.get("job").await, Err(Error::WrongType));
}

#[tokio::test]
async fn what_is_stored_may_be_of_another_type() {
    let cluster = FakeCluster::new(1);
    let client = cluster.client().await;
    client.bytes().set(&b"a"[..], &Raw(vec![0xff; 3])).await.unwrap();
    let map: Map<str, Session, Client> = client.unnamed();
    let error = map.get("a").await.unwrap_err();
    assert!(matches!(error, Error::Decode(_)));
    let error = map.set_with("a", &session(1), SetOptions::new().return_old()).await.unwrap_err();
    assert_eq!(error.write_outcome(), WriteOutcome::Done);
    let coded: Map<Coded<(u8, String)>, u8, Client> = client.map("coded").await.unwrap();
    coded.set(&Coded((1, "x".to_owned())), &7).await.unwrap();
    let page = coded.scan().next_page().await.unwrap();
    assert_eq!(page, Some(vec![Coded((1, "x".to_owned()))]));
}

#[tokio::test]
async fn maps_can_be_used_from_spawned_tasks() {
    let cluster = FakeCluster::new(2);
    let map = sessions(&cluster).await;
    let task = tokio::spawn({
        let map = map.clone();
        async move {
            map.set("a", &session(1)).await?;
            let keys = ["a", "b"];
            let values = map.get_many(keys).await?;
            map.delete_many(keys).await?;
            Ok::<_, Error>(values)
        }
    });
    assert_eq!(task.await.unwrap(), Ok(vec![Some(session(1)), None]));
}
