//! The nodes as a client knows them: the newest view of the table and one link to each.

use super::config::ClientConfig;
use super::dial::{Dial, DialFailure};
use super::link::Link;
use crate::engine::client_wire::ClusterView;
use crate::engine::ids::{PartitionId, TableVersion};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// An address that could not be reached is left alone for so long, so that a crowd of commands
/// doesn't dial it one after the other.
const DIAL_PAUSE: Duration = Duration::from_millis(200);

/// The newest view of the table.
#[derive(Debug)]
pub(super) struct Views {
    current: watch::Sender<Option<Arc<ClusterView>>>,
    /// Take the next view whatever its version: all links were lost, and the cluster may have
    /// started anew since.
    any_version: AtomicBool,
}

impl Views {
    pub(super) fn new() -> Views {
        Views { current: watch::Sender::new(None), any_version: AtomicBool::new(true) }
    }

    /// Takes up a view that a node sent, if it is news.
    pub(super) fn adopt(&self, from: SocketAddr, view: ClusterView) {
        let any_version = self.any_version.swap(false, Ordering::Relaxed);
        self.current.send_if_modified(|current| {
            let news = current
                .as_ref()
                .is_none_or(|current| view.supersedes(current) || (any_version && view != **current));
            if news {
                let (incarnation, version) = (view.incarnation(), view.version());
                tracing::debug!(%from, %incarnation, %version, "new table");
                *current = Some(Arc::new(view));
            }
            news
        });
    }

    /// The newest view; `None` before the first.
    pub(super) fn current(&self) -> Option<Arc<ClusterView>> {
        self.current.borrow().clone()
    }

    /// Waits for the first view.
    pub(super) async fn first(&self) -> Arc<ClusterView> {
        let mut current = self.current.subscribe();
        loop {
            if let Some(view) = current.borrow_and_update().clone() {
                return view;
            }
            if current.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for a view of at least `version`, or of another incarnation than `than`, or for the
    /// time to run out.
    pub(super) async fn newer(&self, than: &ClusterView, version: TableVersion, wait: Duration) {
        let mut current = self.current.subscribe();
        let reached = current.wait_for(|view| {
            view.as_ref()
                .is_some_and(|view| view.version() >= version || view.incarnation() != than.incarnation())
        });
        // Without news the caller tries again with what it knows.
        let _ = tokio::time::timeout(wait, reached).await;
    }
}

/// One link to each node that was needed so far.
pub(super) struct Nodes {
    pub(super) views: Arc<Views>,
    dialer: Box<dyn Dial>,
    seeds: Vec<String>,
    connect_timeout: Duration,
    silence_max: Duration,
    links: Mutex<HashMap<SocketAddr, Running>>,
    /// Per address: held while one caller dials, so that the others wait for its link. When the
    /// last attempt failed, and why.
    dialing: Mutex<HashMap<SocketAddr, Arc<tokio::sync::Mutex<Option<Failed>>>>>,
    /// Links live on the runtime the client was made on, whoever asks for them.
    runtime: tokio::runtime::Handle,
}

/// A failed attempt to dial.
struct Failed {
    at: Instant,
    failure: DialFailure,
}

/// Nobody is left to try: what went wrong with those tried this time, if anybody was.
#[derive(Debug, Default)]
pub(super) struct NobodyLeft(Vec<DialFailure>);

impl NobodyLeft {
    /// What went wrong last.
    pub(super) fn why(&self) -> Option<&str> {
        self.0.last().map(|failure| failure.why.as_str())
    }

    /// Whether all failed for reasons that won't pass.
    pub(super) fn is_hopeless(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|failure| failure.hopeless)
    }
}

/// A link and its task, which ends with it.
struct Running {
    link: Link,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Nodes {
    /// # Panics
    /// Outside a tokio runtime.
    pub(super) fn new(config: &ClientConfig, dialer: Box<dyn Dial>) -> Nodes {
        Nodes {
            views: Arc::new(Views::new()),
            dialer,
            seeds: config.seeds.clone(),
            connect_timeout: config.connect_timeout,
            silence_max: config.silence_max,
            links: Mutex::default(),
            dialing: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        }
    }

    /// A link to where a command for `partition` is best sent: its primary, or else any node, which
    /// will forward it. Addresses that fail are added to `avoided`.
    ///
    /// # Errors
    /// If there is nobody left to try, with what went wrong last.
    pub(super) async fn link_for(
        &self,
        partition: Option<PartitionId>,
        avoided: &mut Vec<SocketAddr>,
    ) -> Result<Link, NobodyLeft> {
        let mut failures = NobodyLeft::default();
        let view = self.views.current();
        let primary = view.as_ref().zip(partition).and_then(|(view, partition)| view.primary(partition));
        if let Some(primary) = primary
            && let Some(link) = self.try_link(primary.quic, avoided, &mut failures).await
        {
            return Ok(link);
        }
        if let Some(link) = self.open_link_but(avoided) {
            return Ok(link);
        }
        let members = view.as_ref().map_or(&[][..], |view| view.members());
        let start = rand::random_range(0..members.len().max(1));
        for member in members[start..].iter().chain(&members[..start]) {
            if let Some(link) = self.try_link(member.quic, avoided, &mut failures).await {
                return Ok(link);
            }
        }
        for seed in &self.seeds {
            let addresses = match tokio::net::lookup_host(seed).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failures.0.push(DialFailure { why: format!("{seed}: {error}"), hopeless: false });
                    continue;
                }
            };
            for address in addresses {
                if let Some(link) = self.try_link(address, avoided, &mut failures).await {
                    return Ok(link);
                }
            }
        }
        Err(failures)
    }

    /// The link to an address that isn't avoided. If it fails, it is from now on.
    async fn try_link(
        &self,
        address: SocketAddr,
        avoided: &mut Vec<SocketAddr>,
        failures: &mut NobodyLeft,
    ) -> Option<Link> {
        if avoided.contains(&address) {
            return None;
        }
        match self.link(address).await {
            Ok(link) => Some(link),
            Err(failure) => {
                avoided.push(address);
                failures.0.push(failure);
                None
            }
        }
    }

    /// The link to an address, dialled if need be.
    async fn link(&self, address: SocketAddr) -> Result<Link, DialFailure> {
        if let Some(link) = self.open_link(address) {
            return Ok(link);
        }
        let turn = lock(&self.dialing).entry(address).or_default().clone();
        let mut failed = turn.lock().await;
        if let Some(link) = self.open_link(address) {
            return Ok(link);
        }
        if let Some(failed) = &*failed
            && failed.at.elapsed() < DIAL_PAUSE
        {
            return Err(failed.failure.clone());
        }
        if !lock(&self.links).values().any(|running| running.link.is_open()) {
            self.views.any_version.store(true, Ordering::Relaxed);
        }
        let dialled = tokio::time::timeout(self.connect_timeout, self.dialer.dial(address)).await;
        let failure = match dialled {
            Ok(Ok(channel)) => {
                *failed = None;
                let (link, task) = Link::new(address, channel, self.views.clone(), self.silence_max);
                let task = self.runtime.spawn(task).abort_handle();
                self.keep(Running { link: link.clone(), task });
                return Ok(link);
            }
            Ok(Err(failure)) => DialFailure { why: format!("{address}: {failure}"), ..failure },
            Err(_) => {
                let why = format!("{address}: no answer in {:?}", self.connect_timeout);
                DialFailure { why, hopeless: false }
            }
        };
        *failed = Some(Failed { at: Instant::now(), failure: failure.clone() });
        Err(failure)
    }

    /// Keeps a new link, and gives up those that are closed.
    fn keep(&self, running: Running) {
        let mut links = lock(&self.links);
        links.retain(|_, running| running.link.is_open());
        links.insert(running.link.address(), running);
    }

    fn open_link(&self, address: SocketAddr) -> Option<Link> {
        let links = lock(&self.links);
        links.get(&address).map(|running| running.link.clone()).filter(Link::is_open)
    }

    fn open_link_but(&self, avoided: &[SocketAddr]) -> Option<Link> {
        let links = lock(&self.links);
        let mut usable =
            links.values().map(|running| &running.link).filter(|link| !avoided.contains(&link.address()));
        usable.find(|link| link.is_open()).cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
