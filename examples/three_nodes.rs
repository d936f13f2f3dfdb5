//! Three nodes in one program: they form a cluster from one seed address, one of them goes, and
//! nothing is lost.
//!
//! ```text
//! cargo run --release --example three_nodes
//! ```

use ringdove::Node;
use std::error::Error;
use std::time::{Duration, Instant};

const KEYS: u32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let builder = || Node::builder().ephemeral_ports().partitions(64);
    let first = builder().name("first").start().await?;
    let seed = first.client_address().to_string();
    let second = builder().name("second").seed(&seed)?.start().await?;
    let third = builder().name("third").seed(&seed)?.start().await?;
    wait_for_members(&first, 3).await?;
    println!("three nodes, one seed: {seed}");

    let numbers = first.unnamed::<str, u32>();
    for key in 0..KEYS {
        numbers.set(&format!("key:{key}"), &key).await?;
    }
    println!("{KEYS} keys written through the first node, each on two of the three");

    let started = Instant::now();
    println!("the third hands over and leaves: {}", third.shutdown().await);
    println!("that took {:.1} s", started.elapsed().as_secs_f64());

    let elsewhere = second.unnamed::<str, u32>();
    let mut found = 0;
    for key in 0..KEYS {
        found += u32::from(elsewhere.get(&format!("key:{key}")).await? == Some(key));
    }
    println!("read back through the second node: {found} of {KEYS}");
    if found != KEYS {
        return Err("keys are missing".into());
    }
    second.shutdown().await;
    first.shutdown().await;
    Ok(())
}

/// Waits until the cluster has so many members and every partition is assigned.
async fn wait_for_members(node: &Node, members: usize) -> Result<(), Box<dyn Error>> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info = node.members().await;
        if info >= members {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("only {info} of {members} members after a minute").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
