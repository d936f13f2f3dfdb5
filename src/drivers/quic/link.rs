//! One connection between two nodes, and the tasks that read and write it.

use super::handshake::{self, CloseCode, DownReason};
use super::hello::Hello;
use super::mesh::{Refusal, RequestError, Shared};
use crate::drivers::wake::Wake;
use crate::engine::frame::{Class, FRAME_PREFIX_BYTES, FrameDecoder, encode_frames};
use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, WriteError};
use std::array;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::spawn_local;

/// Chunks taken from a stream in one read.
const CHUNKS_PER_READ: usize = 64;
/// An outdone link is used to receive for so long before its dialler closes it: by then the other
/// side knows the better one.
const RETIREMENT: Duration = Duration::from_millis(500);
/// Sending what an outdone link still has queued takes at most so long.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The first byte of an answer.
const ANSWERED: u8 = 0;
const REFUSED: u8 = 1;

/// One connection to a peer.
pub(super) struct Link {
    pub(super) connection: Connection,
    /// What the peer said of itself.
    pub(super) hello: Hello,
    pub(super) dialled_by_us: bool,
    /// Among links to one peer, the highest is the one to send on.
    pub(super) rank: (bool, u64),
    /// When anything was last heard, on the boot-time clock.
    pub(super) heard_us: Cell<u64>,
    outboxes: [Outbox; 3],
    retiring: Cell<bool>,
    finishing: Cell<bool>,
    /// Writers that have not finished yet.
    writers: Cell<usize>,
    writer_finished: Notify,
    /// Whether the handler may still be called for it.
    is_up: Cell<bool>,
    /// UDP payload bytes (in, out) counted so far.
    counted: Cell<(u64, u64)>,
}

/// Frames that wait for their stream.
#[derive(Default)]
struct Outbox {
    frames: RefCell<Vec<Bytes>>,
    /// Bytes not taken by QUIC yet, prefixes included.
    bytes: Cell<usize>,
    wake: Wake,
}

impl Link {
    pub(super) fn new(connection: Connection, hello: Hello, dialled_by_us: bool, rank: (bool, u64)) -> Link {
        Link {
            connection,
            hello,
            dialled_by_us,
            rank,
            heard_us: Cell::new(0),
            outboxes: Default::default(),
            retiring: Cell::new(false),
            finishing: Cell::new(false),
            writers: Cell::new(Class::ALL.len()),
            writer_finished: Notify::new(),
            is_up: Cell::new(true),
            counted: Cell::new((0, 0)),
        }
    }

    /// Where the peer's packets come from.
    pub(super) fn addr(&self) -> SocketAddr {
        let addr = self.connection.remote_address();
        SocketAddr::new(addr.ip().to_canonical(), addr.port())
    }

    /// Queues a frame; `false` if there is no room or the frame is too long.
    pub(super) fn enqueue(&self, class: Class, frame: Bytes, bytes_max: usize) -> bool {
        let outbox = &self.outboxes[class.index()];
        let (queued, added) = (outbox.bytes.get(), FRAME_PREFIX_BYTES + frame.len());
        let has_room = queued == 0 || queued + added <= bytes_max;
        if !has_room || frame.len() > class.frame_bytes_max() {
            return false;
        }
        outbox.bytes.set(queued + added);
        let mut frames = outbox.frames.borrow_mut();
        frames.push(frame);
        if frames.len() == 1 {
            outbox.wake.notify();
        }
        true
    }

    pub(super) fn queued_bytes(&self, class: Class) -> usize {
        self.outboxes[class.index()].bytes.get()
    }

    /// Ends the streams after what is queued, and waits until the peer has it all.
    pub(super) async fn flush(&self) {
        self.finishing.set(true);
        for outbox in &self.outboxes {
            outbox.wake.notify();
        }
        while self.writers.get() > 0 {
            self.writer_finished.notified().await;
        }
    }
}

/// Starts the tasks of a link. They end with its connection.
pub(super) fn start(shared: &Rc<Shared>, link: &Rc<Link>) {
    spawn_local(read_streams(shared.clone(), link.clone()));
    spawn_local(read_datagrams(shared.clone(), link.clone()));
    spawn_local(serve_requests(shared.clone(), link.clone()));
    for class in Class::ALL {
        let (shared, link) = (shared.clone(), link.clone());
        spawn_local(async move {
            // It fails only with the connection, and that is noticed below.
            let _lost = write_frames(&shared, &link, class).await;
            link.writers.set(link.writers.get() - 1);
            link.writer_finished.notify_one();
        });
    }
    let (shared, link) = (shared.clone(), link.clone());
    spawn_local(async move {
        let reason = DownReason::from(link.connection.closed().await);
        link.is_up.set(false);
        link.outboxes.iter().for_each(|outbox| outbox.wake.notify());
        count_bytes(&shared, &link);
        shared.bring_down(&link, reason);
    });
}

/// Closes a link that we dialled and that a better one has outdone, unless the better one fails
/// in the meantime.
pub(super) fn retire(shared: &Rc<Shared>, link: Rc<Link>) {
    if link.retiring.replace(true) {
        return;
    }
    let shared = shared.clone();
    spawn_local(async move {
        tokio::time::sleep(RETIREMENT).await;
        let is_current = shared.current(link.hello.node).is_none_or(|current| Rc::ptr_eq(&current, &link));
        if is_current {
            link.retiring.set(false);
            return;
        }
        let _too_slow = tokio::time::timeout(FLUSH_TIMEOUT, link.flush()).await;
        handshake::close(&link.connection, CloseCode::Duplicate, "there is a better link");
    });
}

/// Notices what was heard on all links, and counts their bytes, until the mesh closes.
pub(super) async fn watch(shared: Rc<Shared>) {
    let mut ticks = tokio::time::interval(shared.config.keep_alive / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.is_closed() {
        ticks.tick().await;
        for link in shared.links() {
            if count_bytes(&shared, &link) {
                link.heard_us.set(shared.now_us());
            }
        }
    }
}

/// Adds a link's traffic since the last call to the counters; returns whether anything came in.
fn count_bytes(shared: &Shared, link: &Link) -> bool {
    let stats = link.connection.stats();
    let (bytes_in, bytes_out) = (stats.udp_rx.bytes, stats.udp_tx.bytes);
    let (counted_in, counted_out) = link.counted.replace((bytes_in, bytes_out));
    shared.counters.count(|c| {
        c.bytes_in += bytes_in.saturating_sub(counted_in);
        c.bytes_out += bytes_out.saturating_sub(counted_out);
    });
    bytes_in > counted_in
}

/// Writes one class's queue to its stream: everything that waits in one go.
async fn write_frames(shared: &Shared, link: &Link, class: Class) -> Result<(), WriteError> {
    let outbox = &link.outboxes[class.index()];
    let mut stream: Option<SendStream> = None;
    let (mut frames, mut chunks) = (Vec::new(), Vec::new());
    loop {
        std::mem::swap(&mut frames, &mut *outbox.frames.borrow_mut());
        if frames.is_empty() {
            if link.finishing.get() || !link.is_up.get() {
                break;
            }
            outbox.wake.notified().await;
            continue;
        }
        if stream.is_none() {
            let mut opened = link.connection.open_uni().await?;
            let _already_closed = opened.set_priority(class.priority());
            opened.write_all(&[class.tag()]).await?;
            stream = Some(opened);
        }
        let Some(stream) = &mut stream else { continue };
        encode_frames(&mut frames, &mut chunks);
        let mut rest = &mut chunks[..];
        while !rest.is_empty() {
            let written = stream.write_chunks(rest).await?;
            outbox.bytes.set(outbox.bytes.get().saturating_sub(written.bytes));
            rest = &mut rest[written.chunks..];
        }
        chunks.clear();
        if class == Class::Bulk
            && outbox.bytes.get() == 0
            && let Some(handler) = shared.handler()
        {
            handler.bulk_drained(link.hello.node);
        }
    }
    if let Some(mut stream) = stream {
        let _already_closed = stream.finish();
        let _lost = stream.stopped().await;
    }
    Ok(())
}

async fn read_streams(shared: Rc<Shared>, link: Rc<Link>) {
    while let Ok(stream) = link.connection.accept_uni().await {
        let (shared, link) = (shared.clone(), link.clone());
        spawn_local(async move {
            if let Err(reason) = read_frames(&shared, &link, stream).await {
                tracing::warn!(peer = %link.hello.node, reason, "protocol broken by peer");
                handshake::close(&link.connection, CloseCode::Protocol, &reason);
            }
        });
    }
}

/// Reads frames until the stream or connection ends. The error is a breach of the protocol.
async fn read_frames(shared: &Shared, link: &Link, mut stream: RecvStream) -> Result<(), String> {
    let peer = link.hello.node;
    let mut tag = [0];
    if stream.read_exact(&mut tag).await.is_err() {
        return Ok(());
    }
    let class = Class::from_tag(tag[0]).ok_or_else(|| format!("unknown stream {}", tag[0]))?;
    let mut decoder = FrameDecoder::new(class.frame_bytes_max());
    let mut chunks: [Bytes; CHUNKS_PER_READ] = array::from_fn(|_| Bytes::new());
    let mut frames = Vec::new();
    while let Ok(Some(read)) = stream.read_chunks(&mut chunks).await {
        let mut broken = Ok(());
        for chunk in &mut chunks[..read] {
            broken = decoder.push(std::mem::take(chunk), &mut frames);
            if broken.is_err() {
                break;
            }
        }
        link.heard_us.set(shared.now_us());
        if !frames.is_empty()
            && link.is_up.get()
            && let Some(handler) = shared.handler()
        {
            handler.frames(peer, class, &mut frames);
        }
        frames.clear();
        broken.map_err(|error| error.to_string())?;
    }
    Ok(())
}

async fn read_datagrams(shared: Rc<Shared>, link: Rc<Link>) {
    while let Ok(bytes) = link.connection.read_datagram().await {
        link.heard_us.set(shared.now_us());
        if link.is_up.get()
            && let Some(handler) = shared.handler()
        {
            handler.datagram(link.hello.node, bytes);
        }
    }
}

async fn serve_requests(shared: Rc<Shared>, link: Rc<Link>) {
    while let Ok((send, recv)) = link.connection.accept_bi().await {
        spawn_local(serve_request(shared.clone(), link.clone(), send, recv));
    }
}

async fn serve_request(shared: Rc<Shared>, link: Rc<Link>, mut send: SendStream, mut recv: RecvStream) {
    let bound = shared.config.request_bytes_max;
    // Dropping the streams tells the asker; what it sent is lost or was too long.
    let Ok(body) = recv.read_to_end(bound).await else {
        return;
    };
    let Some(handler) = shared.handler() else {
        return;
    };
    link.heard_us.set(shared.now_us());
    let answer = handler.request(link.hello.node, body.into()).await;
    let (status, body) = match answer {
        Ok(body) if body.len() <= bound => (ANSWERED, body),
        Ok(body) => (REFUSED, format!("an answer of {} bytes is too long", body.len()).into()),
        Err(Refusal(reason)) => (REFUSED, reason.into()),
    };
    let _already_closed = send.set_priority(Class::Control.priority());
    let mut chunks = [Bytes::copy_from_slice(&[status]), body];
    if send.write_all_chunks(&mut chunks).await.is_ok() {
        let _already_closed = send.finish();
    }
}

/// Sends one request and reads its answer, each at most `bound` bytes.
pub(super) async fn ask(connection: &Connection, body: Bytes, bound: usize) -> Result<Bytes, RequestError> {
    let lost = || {
        RequestError::Lost(match connection.close_reason() {
            Some(error) => error.into(),
            None => DownReason::Failed("the peer ended the request".into()),
        })
    };
    let (mut send, mut recv) = connection.open_bi().await.map_err(|_| lost())?;
    let _already_closed = send.set_priority(Class::Control.priority());
    send.write_chunk(body).await.map_err(|_| lost())?;
    let _already_closed = send.finish();
    let mut answer = Bytes::from(recv.read_to_end(bound + 1).await.map_err(|_| lost())?);
    let status = if answer.is_empty() { REFUSED } else { answer.split_to(1)[0] };
    match status {
        ANSWERED => Ok(answer),
        _ => Err(RequestError::Refused(String::from_utf8_lossy(&answer).into_owned())),
    }
}
