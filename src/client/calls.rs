//! The handle, and how a command is tried until it is answered or its time is up.

use super::config::ClientConfig;
use super::dial::Dial;
use super::link::{Answer, Link, Pending};
use super::nodes::Nodes;
use super::numbering::{Number, Numbering};
use super::routing::Routing;
use crate::drivers::pki::{Secret, Trust};
use crate::drivers::quic::ClientDialer;
use crate::engine::client_wire::frame::{ARGS_MAX, MAP_NAME_BYTES_MAX, RequestHead, request_bytes};
use crate::engine::client_wire::{ClusterView, Outcome, Refusal};
use crate::engine::ids::{ClientId, MapId, PartitionId};
use crate::engine::resp::Reply;
use crate::engine::table::MapDefaults;
use crate::error::Error;
use crate::map::{Caller, Key, Map, MapOptions, Raw, Value};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// How long to wait for the table that a `Moved` speaks of.
const TABLE_WAIT: Duration = Duration::from_millis(250);
/// The shortest and the longest pause between two tries.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Bytes of requests are counted in units, one permit each.
const UNIT_BYTES: usize = 1 << 10;
/// Answers of doubt after which a numbered write is not asked about again.
const DOUBTS_MAX: u32 = 4;

/// A client of a cluster. Clones are cheap and share connections; it is for use from any task or
/// thread, and its connections live on the tokio runtime it was connected on.
///
/// Each command goes straight to the primary of its key, many of them together. A command that
/// can't be answered now (a partition is changing hands, a node died) is tried again until the
/// deadline. Writes of one partition are numbered, so that a repeated one runs once; what can't be
/// numbered (`MSET` or `DEL` of keys of several slots, `FLUSHALL`) is done in parts and not sent
/// again once a part may have been done.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    nodes: Nodes,
    numbering: Numbering,
    deadline: Duration,
    in_flight: Semaphore,
    in_flight_units: Semaphore,
    units_max: u32,
    maps: Mutex<HashMap<String, MapId>>,
}

/// What is sent, and sent again.
enum Call<'a> {
    Command { map: MapId, args: &'a [&'a [u8]] },
    OpenMap { name: &'a str, defaults: MapDefaults },
}

/// What comes of it.
enum Success {
    Reply(Reply),
    Map(MapId),
}

/// A call under way.
struct Attempts<'a> {
    call: Call<'a>,
    /// The partition of its first key.
    partition: Option<PartitionId>,
    /// Whether it runs at that partition and nowhere else.
    whole: bool,
    /// Sending it again, after it may have run, can't do harm.
    repeatable: bool,
    number: Option<Number<'a>>,
    first_sent: Option<Instant>,
    /// It was sent and may have run, and no answer says otherwise.
    in_doubt: bool,
    /// Answers that said so themselves.
    doubts: u32,
    /// Why the last try failed, if that was a reason to give to the caller.
    last: Option<Error>,
    avoided: Vec<SocketAddr>,
    pause: Duration,
}

/// What to do after a try.
enum Next {
    Done(Result<Success, Error>),
    /// Try again, after so long.
    Again(Duration),
}

impl Client {
    /// Connects by any seed and learns the table.
    ///
    /// # Errors
    /// [`Error::NotAuthorised`] if all seeds turn us away, [`Error::Unreachable`] if none answers
    /// before the deadline, with the last reason.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(mut config: ClientConfig) -> Result<Client, Error> {
        let trust = match config.trust.take() {
            Some(trust) => trust,
            None => Trust::from_secret(&Secret::development())
                .map_err(|error| Error::NotAuthorised(error.to_string()))?,
        };
        let dialer = ClientDialer::bind(&trust, rand::random(), "")
            .map_err(|error| Error::Unreachable(error.to_string()))?;
        Client::connect_by(config, Box::new(dialer)).await
    }

    /// [`connect`](Self::connect), over channels of any kind.
    pub(super) async fn connect_by(config: ClientConfig, dialer: Box<dyn Dial>) -> Result<Client, Error> {
        let units = config.in_flight_bytes_max.div_ceil(UNIT_BYTES);
        let client = Client {
            inner: Arc::new(Inner {
                nodes: Nodes::new(&config, dialer),
                numbering: Numbering::new(ClientId(rand::random())),
                deadline: config.deadline,
                in_flight: Semaphore::new(config.in_flight_max),
                in_flight_units: Semaphore::new(units),
                units_max: u32::try_from(units).unwrap_or(u32::MAX),
                maps: Mutex::default(),
            }),
        };
        client.learn_table(Instant::now() + config.deadline).await?;
        Ok(client)
    }

    /// Runs a command on the unnamed map, which Redis clients see. An error reply is an `Err`.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::write_outcome`] says whether a write was done. Of a write in parts
    /// (keys of several slots, or none) some may have been done whatever the error.
    pub async fn command(&self, args: &[&[u8]]) -> Result<Reply, Error> {
        self.call_map(MapId(0), args).await
    }

    /// A named map, which is defined with no defaults if nobody has.
    ///
    /// # Errors
    /// As [`open_map`](Self::open_map).
    pub async fn map<K: Key + ?Sized, V: Value>(&self, name: &str) -> Result<Map<K, V, Client>, Error> {
        self.map_with(name, MapOptions::default()).await
    }

    /// A named map, which is defined with these options if nobody has.
    ///
    /// # Errors
    /// As [`open_map`](Self::open_map).
    pub async fn map_with<K: Key + ?Sized, V: Value>(
        &self,
        name: &str,
        options: MapOptions,
    ) -> Result<Map<K, V, Client>, Error> {
        Ok(Map::new(self.clone(), self.open_map(name, options.defaults()).await?))
    }

    /// The unnamed map, which Redis clients see, with typed values.
    pub fn unnamed<K: Key + ?Sized, V: Value>(&self) -> Map<K, V, Client> {
        Map::new(self.clone(), MapId(0))
    }

    /// The unnamed map as bytes, as Redis clients see it.
    pub fn bytes(&self) -> Map<[u8], Raw, Client> {
        self.unnamed()
    }

    /// Runs a command on a map.
    pub(super) async fn call_map(&self, map: MapId, args: &[&[u8]]) -> Result<Reply, Error> {
        match self.run(Call::Command { map, args }).await? {
            Success::Reply(reply) => Ok(reply),
            Success::Map(_) => Err(Error::UnexpectedReply("a map for a command".to_owned())),
        }
    }

    /// The number of a named map, which is defined with `defaults` if nobody has.
    ///
    /// # Errors
    /// [`Error::MapRefused`] if the name is no good or there are too many maps, and those of
    /// getting through to the cluster.
    pub async fn open_map(&self, name: &str, defaults: MapDefaults) -> Result<MapId, Error> {
        if name.is_empty() || name.len() > MAP_NAME_BYTES_MAX {
            return Err(Error::MapRefused(format!("a name has 1 to {MAP_NAME_BYTES_MAX} bytes")));
        }
        let maps = || self.inner.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&map) = maps().get(name) {
            return Ok(map);
        }
        match self.run(Call::OpenMap { name, defaults }).await? {
            Success::Map(map) => {
                maps().insert(name.to_owned(), map);
                Ok(map)
            }
            Success::Reply(_) => Err(Error::UnexpectedReply("a reply for a map".to_owned())),
        }
    }

    /// The newest view of the agreed table: members, and who is primary of what.
    ///
    /// # Errors
    /// [`Error::Unreachable`] if none is known and none can be had.
    pub async fn view(&self) -> Result<Arc<ClusterView>, Error> {
        match self.inner.nodes.views.current() {
            Some(view) => Ok(view),
            None => self.learn_table(Instant::now() + self.inner.deadline).await,
        }
    }

    async fn learn_table(&self, deadline: Instant) -> Result<Arc<ClusterView>, Error> {
        let nodes = &self.inner.nodes;
        let mut last = "no seed given".to_owned();
        let learn = async {
            let mut avoided = Vec::new();
            loop {
                match nodes.link_for(None, &mut avoided).await {
                    Ok(link) => {
                        // A node says the table first of all; one that is still to join has none.
                        let wait = tokio::time::timeout(TABLE_WAIT * 4, nodes.views.first());
                        if let Ok(view) = wait.await {
                            return Ok(view);
                        }
                        last = format!("{}: it knows no table", link.address());
                        avoided.push(link.address());
                    }
                    Err(nobody) => {
                        if let Some(why) = nobody.why() {
                            why.clone_into(&mut last);
                        }
                        if nobody.is_hopeless() {
                            return Err(Error::NotAuthorised(last.clone()));
                        }
                        avoided.clear();
                        tokio::time::sleep(PAUSE_MAX / 2).await;
                    }
                }
            }
        };
        match timeout_at(deadline, learn).await {
            Ok(learned) => learned,
            Err(_) => Err(Error::Unreachable(last)),
        }
    }

    async fn run(&self, call: Call<'_>) -> Result<Success, Error> {
        let inner = &*self.inner;
        let deadline = Instant::now() + inner.deadline;
        let (routing, bytes) = match &call {
            Call::Command { args, .. } => {
                if args.is_empty() || args.len() > ARGS_MAX {
                    return Err(Error::TooLarge(format!("{} arguments", args.len())));
                }
                if args.iter().any(|arg| u32::try_from(arg.len()).is_err()) {
                    return Err(Error::TooLarge("an argument of 4 GiB or more".to_owned()));
                }
                (Routing::of(args), request_bytes(args))
            }
            Call::OpenMap { .. } => (Routing::ANYWHERE, UNIT_BYTES),
        };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).min(inner.units_max);
        let partition = match routing.slot {
            Some(slot) => Some(self.view().await?.partition_of(slot)),
            None => None,
        };
        let room = async {
            let number = match partition {
                Some(partition) if routing.is_numbered() => Some(inner.numbering.take(partition).await),
                _ => None,
            };
            // Never closed, so that acquiring has no way to fail.
            (
                number,
                inner.in_flight.acquire().await.ok(),
                inner.in_flight_units.acquire_many(units).await.ok(),
            )
        };
        let (number, _one, _units) = timeout_at(deadline, room).await.map_err(|_| Error::DeadlineExceeded)?;
        let mut attempts = Attempts {
            call,
            partition,
            whole: routing.whole,
            repeatable: !routing.write || number.is_some(),
            number,
            first_sent: None,
            in_doubt: false,
            doubts: 0,
            last: None,
            avoided: Vec::new(),
            pause: PAUSE_MIN,
        };
        loop {
            match timeout_at(deadline, attempts.once(inner)).await {
                Ok(Next::Done(result)) => return result,
                Ok(Next::Again(pause)) => {
                    if timeout_at(deadline, tokio::time::sleep(pause)).await.is_err() {
                        return Err(attempts.give_up());
                    }
                }
                Err(_) => return Err(attempts.give_up()),
            }
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Attempts<'_> {
    /// Tries once.
    async fn once(&mut self, inner: &Inner) -> Next {
        let link = match inner.nodes.link_for(self.partition, &mut self.avoided).await {
            Ok(link) => link,
            Err(nobody) => {
                if let Some(why) = nobody.why() {
                    self.last = Some(Error::Unreachable(why.to_owned()));
                }
                self.avoided.clear();
                return Next::Again(self.next_pause());
            }
        };
        let Some(pending) = self.send(&link) else {
            // It closed in between; the next try dials it anew.
            return Next::Again(Duration::ZERO);
        };
        // Until an answer says otherwise. If the deadline ends the wait, this is what is left.
        let in_doubt_before = self.in_doubt;
        self.in_doubt = true;
        match pending.answer().await {
            Answer::Reply(Reply::Error(text)) => {
                self.after_error(Error::of_reply(&text), link.address(), in_doubt_before)
            }
            Answer::Reply(reply) => Next::Done(Ok(Success::Reply(reply))),
            Answer::MapOpened(map) => Next::Done(Ok(Success::Map(map))),
            Answer::Other(outcome, explanation) => {
                if let Outcome::Moved { table_version } = outcome {
                    self.in_doubt = in_doubt_before;
                    if let Some(view) = inner.nodes.views.current() {
                        link.ask_table();
                        inner.nodes.views.newer(&view, table_version, TABLE_WAIT).await;
                    }
                    self.last = Some(Error::TryAgain);
                    return Next::Again(self.next_pause());
                }
                self.after_outcome(outcome, explanation, link.address(), in_doubt_before)
            }
            Answer::Lost { sent } => {
                self.avoided.push(link.address());
                if !sent {
                    self.in_doubt = in_doubt_before;
                } else if !self.repeatable {
                    return Next::Done(Err(Error::InDoubt));
                }
                self.last = Some(Error::Unreachable(format!("{}: connection lost", link.address())));
                Next::Again(Duration::ZERO)
            }
        }
    }

    fn send(&mut self, link: &Link) -> Option<Pending> {
        let now = Instant::now();
        match &self.call {
            Call::OpenMap { name, defaults } => link.open_map(name, *defaults),
            Call::Command { map, args } => {
                let first_sent = *self.first_sent.get_or_insert(now);
                let exactly_once = self.number.as_ref().map(|number| number.tag(now - first_sent));
                let partition = self.partition.filter(|_| self.whole);
                let head = RequestHead { id: 0, map: *map, partition, exactly_once };
                link.send(head, args)
            }
        }
    }

    /// What follows from an outcome other than a reply or `Moved`.
    fn after_outcome(
        &mut self,
        outcome: Outcome,
        explanation: String,
        from: SocketAddr,
        in_doubt_before: bool,
    ) -> Next {
        if let Outcome::TryAgain { retry_ms } = outcome
            && self.repeatable
        {
            self.in_doubt = in_doubt_before;
            self.last = Some(Error::TryAgain);
            let named = Duration::from_millis(u64::from(retry_ms));
            return Next::Again(named.clamp(PAUSE_MIN, PAUSE_MAX));
        }
        let error = match outcome {
            Outcome::InDoubt => Error::InDoubt,
            Outcome::Refused(Refusal::NoReplicas) => Error::NoReplicas,
            Outcome::Refused(Refusal::ClusterDown) => Error::ClusterDown,
            Outcome::Refused(Refusal::UnknownMap) => Error::UnknownMap,
            Outcome::Refused(Refusal::MapRefused) => Error::MapRefused(explanation),
            Outcome::Refused(Refusal::TooLarge) => Error::TooLarge(explanation),
            Outcome::Refused(Refusal::ShuttingDown) | Outcome::TryAgain { .. } | Outcome::Moved { .. } => {
                Error::TryAgain
            }
            Outcome::Refused(Refusal::Forgotten) => return Next::Done(Err(Error::InDoubt)),
            Outcome::Ok => Error::UnexpectedReply("no reply".to_owned()),
        };
        self.after_error(error, from, in_doubt_before)
    }

    /// What follows from an answer that says the command did not run, or may not have.
    fn after_error(&mut self, error: Error, from: SocketAddr, in_doubt_before: bool) -> Next {
        match error {
            Error::InDoubt => {
                self.doubts += 1;
                if !self.repeatable || self.doubts >= DOUBTS_MAX {
                    return Next::Done(Err(Error::InDoubt));
                }
                self.last = Some(Error::InDoubt);
                // Its reign is over, or it is cut off from those who have to agree.
                self.avoided.push(from);
                Next::Again(self.next_pause())
            }
            // These pass: a failover takes seconds.
            Error::TryAgain | Error::NoReplicas | Error::ClusterDown => {
                if !self.repeatable {
                    // One part met with this; others may have been done.
                    return Next::Done(Err(Error::InDoubt));
                }
                self.in_doubt = in_doubt_before;
                if error == Error::ClusterDown {
                    // Perhaps only this node is cut off.
                    self.avoided.push(from);
                }
                self.last = Some(error);
                Next::Again(self.next_pause())
            }
            // A refusal now doesn't undo what an earlier, lost try may have done; but the primary
            // would have recognised that one, so it did not run.
            error => Next::Done(Err(error)),
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause.mul_f64(rand::random_range(0.5..1.0))
    }

    /// The error when time is up.
    fn give_up(&mut self) -> Error {
        let write = self.number.is_some() || !self.repeatable;
        if write && self.in_doubt {
            Error::InDoubt
        } else {
            self.last.take().unwrap_or(Error::DeadlineExceeded)
        }
    }
}

impl Caller for Client {
    fn call(&self, map: MapId, args: &[&[u8]]) -> impl Future<Output = Result<Reply, Error>> + Send {
        self.call_map(map, args)
    }
}
