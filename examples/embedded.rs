//! A node inside this program: typed maps, a counter, a lock with a fencing token.
//!
//! ```text
//! cargo run --release --example embedded
//! ```
//!
//! With `-- --seed HOST:PORT` the node joins the cluster that has a member there, and hands its
//! partitions back to it at the end.

use ringdove::Node;
use ringdove::map::{MapOptions, SetOptions};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::Duration;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Profile {
    name: String,
    visits: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut builder = Node::builder().ephemeral_ports().name("embedded");
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--seed", Some(seed)) => builder = builder.seed(&seed)?,
            _ => return Err(format!("unknown argument {arg}").into()),
        }
    }
    let node = builder.start().await?;
    println!("a node that Redis clients reach at {}", node.addresses().resp);

    // A map has its own defaults: these profiles live for a day unless said otherwise.
    let day = MapOptions { ttl: Some(Duration::from_secs(86_400)), ..MapOptions::default() };
    let profiles = node.map_with::<str, Profile>("profiles", day).await?;
    profiles.set("ada", &Profile { name: "Ada".to_owned(), visits: 1 }).await?;
    let ada = profiles.get("ada").await?;
    println!("stored and read back: {ada:?}");

    // Compare-and-swap by version: only one of two concurrent changes wins.
    if let Some(found) = profiles.get_versioned("ada").await? {
        let visits = found.value.visits + 1;
        let changed = Profile { visits, ..found.value };
        let won = profiles.compare_and_swap("ada", Some(found.version), &changed, None).await?;
        println!("compare-and-swap won: {}", won.is_some());
    }

    let numbers = node.map::<str, u64>("numbers").await?;
    numbers.set_with("short", &7, SetOptions::new().ttl(Duration::from_millis(200))).await?;
    println!("time to live: {:?}", numbers.ttl("short").await?);
    println!("counted: {}", node.unnamed::<str, u64>().increment("hits", 3).await?);

    // A lock's token only grows: a resource that refuses lower tokens can't be fooled by a holder
    // that was away for too long.
    let locks = node.map::<str, u64>("locks").await?;
    if let Some(lock) = locks.try_lock("printer", Duration::from_secs(10)).await? {
        println!("holding the lock with token {}", lock.token());
        lock.unlock().await?;
    }

    println!("handed over and left: {}", node.shutdown().await);
    Ok(())
}
