//! A link: the connection to one node, shared by all commands that go there.
//!
//! Callers append their frames to one buffer; a task writes what has gathered with one write, reads
//! the answers and hands each to whom it belongs. The same task watches over the node: while an
//! answer is owed it must say something now and then.

use super::dial::Channel;
use super::nodes::Views;
use crate::engine::client_wire::frame::{self, RequestHead, encode_request};
use crate::engine::client_wire::{ClusterView, FromNode, Outcome, ToNode};
use crate::engine::ids::MapId;
use crate::engine::resp::{Reply, ReplyLimits};
use crate::engine::table::MapDefaults;
use bytes::{Buf, BytesMut};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

/// The longest frame taken from a node, in bytes: many large values in one reply.
const FRAME_BYTES_MAX: usize = 1 << 30;
/// Bytes asked of the stream at once.
const READ_BYTES: usize = 64 << 10;
/// Buffers that grew beyond this are given back, in bytes.
const RETAINED_BYTES_MAX: usize = 1 << 20;
/// Looks at the node a silence; it is pinged at the first that heard nothing.
const WATCHES: u32 = 3;

/// What came of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// It ran; this is its reply.
    Reply(Reply),
    /// It did not run, or is in doubt; with an explanation.
    Other(Outcome, String),
    /// The map has this number.
    MapOpened(MapId),
    /// The link broke first.
    Lost {
        /// Whether the request may have left.
        sent: bool,
    },
}

/// A handle to a link. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    state: Mutex<State>,
    /// Something was appended to `outgoing`.
    appended: Notify,
    /// Reads that brought something.
    heard: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    outgoing: Vec<u8>,
    next_id: u64,
    /// Requests below this were taken to be written.
    taken_below: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

/// An answer to come. Dropped, it is no longer waited for.
#[derive(Debug)]
pub(super) struct Pending {
    shared: Arc<Shared>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Link {
    /// A link over a fresh channel, and the task that drives it until the channel breaks.
    pub(super) fn new(
        address: SocketAddr,
        channel: Channel,
        views: Arc<Views>,
        silence_max: Duration,
    ) -> (Link, impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::new(Shared {
            address,
            state: Mutex::default(),
            appended: Notify::new(),
            heard: AtomicU64::new(0),
        });
        let closing = Closing(shared.clone());
        let task = async move {
            let shared = &*closing.0;
            let Channel { read, write, _connection } = channel;
            let reason = tokio::select! {
                reason = write_requests(shared, write) => reason,
                reason = read_answers(shared, read, &views) => reason,
                reason = watch(shared, silence_max) => reason,
            };
            tracing::debug!(%address, %reason, "link to a node closed");
        };
        (Link { shared }, task)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub(super) fn is_open(&self) -> bool {
        !self.shared.state().closed
    }

    /// Sends a command. `None` if the link is closed. The id in `head` is filled in.
    pub(super) fn send(&self, head: RequestHead, args: &[&[u8]]) -> Option<Pending> {
        self.append(|id, out| encode_request(out, &RequestHead { id, ..head }, args))
    }

    /// Asks for a map's number. `None` if the link is closed.
    pub(super) fn open_map(&self, name: &str, defaults: MapDefaults) -> Option<Pending> {
        self.append(|id, out| ToNode::OpenMap { id, name, defaults }.encode(out))
    }

    /// Asks for the table; it arrives at the views.
    pub(super) fn ask_table(&self) {
        ToNode::TableRequest.encode(&mut self.shared.state().outgoing);
        self.shared.appended.notify_one();
    }

    fn append(&self, encode: impl FnOnce(u64, &mut Vec<u8>)) -> Option<Pending> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.shared.state();
        if state.closed {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        encode(id, &mut state.outgoing);
        state.waiting.insert(id, sender);
        drop(state);
        self.shared.appended.notify_one();
        Some(Pending { shared: self.shared.clone(), id, answer })
    }
}

impl Pending {
    /// Waits for the answer.
    pub(super) async fn answer(mut self) -> Answer {
        (&mut self.answer).await.unwrap_or(Answer::Lost { sent: true })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Answered ones are no longer there.
        self.shared.state().waiting.remove(&self.id);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, id: u64, answer: Answer) {
        let waiting = self.state().waiting.remove(&id);
        if let Some(waiting) = waiting {
            // Nobody may be waiting any more.
            let _ = waiting.send(answer);
        }
    }
}

/// Closes the link when its task ends, however it ends.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        let taken_below = state.taken_below;
        let waiting = std::mem::take(&mut state.waiting);
        state.outgoing = Vec::new();
        drop(state);
        for (id, waiting) in waiting {
            let _ = waiting.send(Answer::Lost { sent: id < taken_below });
        }
    }
}

/// Writes what callers append, all that has gathered with each write.
async fn write_requests(shared: &Shared, mut stream: Box<dyn AsyncWrite + Send + Unpin>) -> String {
    let mut batch = Vec::new();
    loop {
        shared.appended.notified().await;
        {
            let mut state = shared.state();
            std::mem::swap(&mut batch, &mut state.outgoing);
            state.taken_below = state.next_id;
        }
        if let Err(error) = stream.write_all(&batch).await {
            return format!("write: {error}");
        }
        if let Err(error) = stream.flush().await {
            return format!("write: {error}");
        }
        batch.clear();
        if batch.capacity() > RETAINED_BYTES_MAX {
            batch = Vec::new();
        }
    }
}

/// Reads answers and tables and hands them on.
async fn read_answers(
    shared: &Shared,
    mut stream: Box<dyn AsyncRead + Send + Unpin>,
    views: &Views,
) -> String {
    let mut input = BytesMut::new();
    loop {
        if input.is_empty() && input.capacity() > RETAINED_BYTES_MAX {
            input = BytesMut::new();
        }
        input.reserve(READ_BYTES);
        match stream.read_buf(&mut input).await {
            Ok(0) => return "the node closed it".to_owned(),
            Ok(_) => shared.heard.fetch_add(1, Ordering::Relaxed),
            Err(error) => return format!("read: {error}"),
        };
        loop {
            match frame::split(&input, FRAME_BYTES_MAX) {
                Ok(Some((raw, taken))) => {
                    let handled = raw
                        .from_node()
                        .map_err(|error| error.to_string())
                        .and_then(|frame| take_frame(shared, frame, views));
                    if let Err(reason) = handled {
                        return reason;
                    }
                    input.advance(taken);
                }
                Ok(None) => break,
                Err(error) => return error.to_string(),
            }
        }
    }
}

/// Hands one frame to whom it belongs. An error breaks the link.
fn take_frame(shared: &Shared, frame: FromNode<'_>, views: &Views) -> Result<(), String> {
    match frame {
        FromNode::Response { id, outcome: Outcome::Ok, reply } => {
            match Reply::parse(reply, &ReplyLimits::default()) {
                Ok(Some((parsed, taken))) if taken == reply.len() => {
                    shared.answer(id, Answer::Reply(parsed));
                }
                _ => return Err("a reply that isn't RESP".to_owned()),
            }
        }
        FromNode::Response { id, outcome, reply } => {
            let explanation = String::from_utf8_lossy(reply).into_owned();
            shared.answer(id, Answer::Other(outcome, explanation));
        }
        FromNode::Table(bytes) => {
            let view = ClusterView::decode(bytes).map_err(|error| error.to_string())?;
            views.adopt(shared.address, view);
        }
        FromNode::MapOpened { id, map } => shared.answer(id, Answer::MapOpened(map)),
        FromNode::Pong { .. } => {}
    }
    Ok(())
}

/// Ends when the node owes an answer and has been silent for too long.
async fn watch(shared: &Shared, silence_max: Duration) -> String {
    let mut last_heard = 0;
    let mut silent = 0;
    loop {
        tokio::time::sleep(silence_max / WATCHES).await;
        let heard = shared.heard.load(Ordering::Relaxed);
        let owed = !shared.state().waiting.is_empty();
        silent = if heard == last_heard && owed { silent + 1 } else { 0 };
        last_heard = heard;
        if silent >= WATCHES {
            return "the node is silent".to_owned();
        }
        if silent == 1 {
            ToNode::Ping { id: heard }.encode(&mut shared.state().outgoing);
            shared.appended.notify_one();
        }
    }
}
