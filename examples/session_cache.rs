//! A session cache as a web server would have it: sessions that live while they are used, logins
//! that don't overwrite each other, and requests of one session counted on any number of servers.
//!
//! ```text
//! cargo run --release --example session_cache
//! ```
//!
//! This starts a node of its own. With `-- --seed HOST:PORT` it uses the cluster that has a member
//! there; one with a secret needs `RINGDOVE_SECRET`.

use ringdove::Node;
use ringdove::client::{Client, ClientConfig};
use ringdove::drivers::pki::Secret;
use ringdove::map::{Caller, Map, MapOptions};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::time::{Duration, Instant};

/// A session that isn't used for so long is gone.
const SESSION_LIFE: Duration = Duration::from_secs(30 * 60);
const USERS: u32 = 200;
const REQUESTS_PER_USER: u32 = 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user: u32,
    requests: u32,
}

/// The cache. It works the same over a client and inside a node: both are callers.
#[derive(Clone)]
struct SessionCache<C> {
    sessions: Map<str, Session, C>,
}

impl<C: Caller> SessionCache<C> {
    /// The session of a user who logs in. Of two logins at once, on any two servers, the second
    /// finds the session of the first.
    async fn log_in(&self, user: u32) -> Result<String, ringdove::Error> {
        let id = format!("session:{user}");
        let session = Session { user, requests: 0 };
        self.sessions.get_or_insert_with_ttl(&*id, &session, SESSION_LIFE).await?;
        Ok(id)
    }

    /// Counts a request of a session and lets it live on; `None` if it is gone.
    async fn request(&self, id: &str) -> Result<Option<Session>, ringdove::Error> {
        loop {
            let Some(found) = self.sessions.get_versioned(id).await? else { return Ok(None) };
            let session = Session { requests: found.value.requests + 1, ..found.value };
            let (version, life) = (Some(found.version), Some(SESSION_LIFE));
            if self.sessions.compare_and_swap(id, version, &session, life).await?.is_some() {
                return Ok(Some(session));
            }
            // Another request of the same session was faster.
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let (config, node) = config().await?;
    let client = Client::connect(config).await?;
    let options = MapOptions { ttl: Some(SESSION_LIFE), ..MapOptions::default() };
    let cache = SessionCache { sessions: client.map_with("web sessions", options).await? };
    cache.sessions.clear().await?;

    let begun = Instant::now();
    let mut users = tokio::task::JoinSet::new();
    for user in 0..USERS {
        let cache = cache.clone();
        users.spawn(async move {
            let id = cache.log_in(user).await?;
            for _ in 0..REQUESTS_PER_USER {
                cache.request(&id).await?;
            }
            cache.sessions.get(&*id).await
        });
    }
    while let Some(session) = users.join_next().await {
        let session = session??.ok_or("a session is gone")?;
        assert_eq!(session.requests, REQUESTS_PER_USER);
    }
    let requests = USERS * REQUESTS_PER_USER;
    println!("{USERS} users, {requests} requests in {:?}", begun.elapsed());
    println!("{} sessions are open", cache.sessions.len().await?);
    println!("one of them lives for {:?}", cache.sessions.ttl("session:0").await?);
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
        _ => return Err("usage: session_cache [--seed HOST:PORT]".into()),
    };
    let config = ClientConfig::new([seed]);
    match std::env::var("RINGDOVE_SECRET") {
        Ok(secret) => Ok((config.secret(&Secret::new(secret)?)?, None)),
        Err(_) => Ok((config, None)),
    }
}
