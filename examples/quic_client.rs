//! A tour of the QUIC client: values, options, versions, counters, locks, scans.
//!
//! ```text
//! cargo run --release --example quic_client
//! ```
//!
//! This starts a node of its own. With `-- --seed HOST:PORT` it uses the cluster that has a member
//! there; one with a secret needs `RINGDOVE_SECRET`.

use ringdove::Node;
use ringdove::client::{Client, ClientConfig};
use ringdove::drivers::pki::Secret;
use ringdove::map::{Map, SetOptions, Text};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct City {
    name: String,
    people: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (config, node) = config().await?;
    let client = Client::connect(config).await?;
    let view = client.view().await?;
    println!("{} members, {} partitions", view.members().len(), view.partition_count());

    // A named map is a namespace of its own, with keys and values of any type that serde knows.
    let cities: Map<str, City, Client> = client.map("cities").await?;
    cities.clear().await?;
    cities.set("fr/paris", &City { name: "Paris".into(), people: 2_100_000 }).await?;
    let first = SetOptions::new().only_if_absent().ttl(Duration::from_secs(60));
    let lyon = City { name: "Lyon".into(), people: 520_000 };
    println!("Lyon is new: {}", cities.set_with("fr/lyon", &lyon, first).await?.written);
    println!("Lyon lives: {:?}", cities.ttl("fr/lyon").await?);

    // Compare and swap: writes only if nobody else has in between.
    if let Some(mut paris) = cities.get_versioned("fr/paris").await? {
        paris.value.people += 1;
        let swapped = cities.compare_and_swap("fr/paris", Some(paris.version), &paris.value, None);
        let swapped = swapped.await?.is_some();
        println!("Paris has {} people, swapped: {swapped}", paris.value.people);
    }
    println!("known: {:?}", cities.get_many(["fr/paris", "fr/nice", "fr/lyon"]).await?);

    let mut scan = cities.scan().matching("fr/*");
    while let Some(keys) = scan.next_page().await? {
        keys.iter().for_each(|key| println!("scanned {key}"));
    }

    // A lock has a lease, and a token that only grows: show it to what the lock protects.
    if let Some(lock) = cities.try_lock("census", Duration::from_secs(5)).await? {
        println!("locked with token {}", lock.token());
        lock.unlock().await?;
    }

    // The unnamed map is what Redis clients see: after this, `redis-cli get greeting` works.
    let texts: Map<str, Text, Client> = client.unnamed();
    texts.set("greeting", &Text::from("hello over QUIC")).await?;
    println!("visits so far: {}", texts.increment("visits", 1).await?);
    if let Some(node) = node {
        node.shutdown().await;
    }
    Ok(())
}

/// How to reach the seed of the command line, or else a node that is started here.
async fn config() -> Result<(ClientConfig, Option<Node>), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let seed = match (args.next().as_deref(), args.next(), args.next()) {
        (None, None, None) => {
            let node = Node::builder().ephemeral_ports().start().await?;
            let config = ClientConfig::new([node.client_address().to_string()]);
            return Ok((config, Some(node)));
        }
        (Some("--seed"), Some(seed), None) => seed,
        _ => return Err("usage: quic_client [--seed HOST:PORT]".into()),
    };
    let config = ClientConfig::new([seed]);
    match std::env::var("RINGDOVE_SECRET") {
        Ok(secret) => Ok((config.secret(&Secret::new(secret)?)?, None)),
        Err(_) => Ok((config, None)),
    }
}
