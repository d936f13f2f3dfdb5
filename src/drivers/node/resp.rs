//! The RESP front door: TCP (or TLS) connections of Redis clients.
//!
//! One task a connection around the pure [`Connection`]. Each wake reads what is there, runs all
//! whole commands against the engine, and writes what is due with one write.

use super::{Door, NodeCore};
use crate::config::NodeConfig;
use crate::drivers::wake::Wake;
use crate::engine::ids::{NodeId, PartitionId};
use crate::engine::node::Engine;
use crate::engine::op;
use crate::engine::partition::primary::ReplyBytes;
use crate::engine::resp::{DecoderLimits, LONG_BYTES_MIN};
use crate::engine::session::{
    ClientInfo, ConfigRefusal, Connection, ConnectionId, ConnectionLimits, Facts, Host, Op, Stats, Submitted,
    Ticket,
};
use crate::engine::store::Eviction;
use crate::engine::table::Table;
use crate::engine::time::Now;
use bytes::BufMut;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Read so much at a time at least.
const READ_BYTES_MIN: usize = 16 << 10;
/// Reserve so much at most before the bytes have come.
const READ_BYTES_MAX: usize = 1 << 20;
/// Long values are received and sent so much at a time, and others have their turns in between: it takes some 15 µs to
/// copy, to hash, and to touch the memory for.
const TURN_BYTES: usize = 32 << 10;
/// A TLS handshake takes at most so long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a client that doesn't take its replies is looked at.
const STALL: Duration = Duration::from_secs(1);
/// A client that takes none of its replies for so many [`STALL`]s is closed.
const STALLS_MAX: u32 = 60;
/// Replies that clients don't take, in bytes, all of them together. Beyond it a client is closed
/// after the first [`STALL`].
const UNTAKEN_BYTES_MAX: usize = 128 << 20;
/// Replies wait no longer for those that should leave with them; a timer may add a millisecond.
const OUTPUT_HELD_MAX: Duration = Duration::from_millis(1);
/// Closed clients are logged at most so often.
const SLOW_LINE_EVERY_US: u64 = 60_000_000;

/// What all RESP connections of a node share.
pub struct RespFront {
    core: NodeCore,
    config: NodeConfig,
    password: Option<Vec<u8>>,
    redirect: Cell<bool>,
    local: SocketAddr,
    doors: RefCell<BTreeMap<u64, Rc<RespDoor>>>,
    started_us: u64,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    accepted: Cell<u64>,
    rejected: Cell<u64>,
    commands: Cell<u64>,
    input_bytes: Cell<u64>,
    output_bytes: Cell<u64>,
    memory_peak_bytes: Cell<u64>,
    /// Bytes of replies that wait for clients to take them.
    untaken_bytes: Cell<usize>,
    /// Clients closed because they did not take their replies.
    slow_closed: Cell<u64>,
    slow_logged_us: Cell<Option<u64>>,
    /// The engine's hits and misses when they were last set to zero.
    hits_at_reset: Cell<u64>,
    misses_at_reset: Cell<u64>,
    rate: RefCell<Rate>,
}

/// Commands a second over the last whole second or so.
#[derive(Default)]
struct Rate {
    since_us: u64,
    commands: u64,
    per_s: u64,
}

fn add(cell: &Cell<u64>, more: u64) {
    cell.set(cell.get() + more);
}

/// One connection, as replies and other connections see it.
struct RespDoor {
    replies: RefCell<VecDeque<(u64, ReplyBytes)>>,
    wake: Wake,
    info: RefCell<ClientInfo>,
    waits: Cell<bool>,
    killed: Cell<bool>,
}

impl Door for RespDoor {
    fn complete(&self, number: u64, reply: ReplyBytes) {
        self.replies.borrow_mut().push_back((number, reply));
        self.wake.notify();
    }
}

impl RespFront {
    /// A front door that listens at `local`.
    pub fn new(core: NodeCore, config: NodeConfig, local: SocketAddr) -> Rc<RespFront> {
        let started_us = core.now().mono_us;
        let password = config.require_pass.as_ref().map(|password| password.expose().to_vec());
        let redirect = Cell::new(config.resp_redirect);
        Rc::new(RespFront {
            core,
            config,
            password,
            redirect,
            local,
            doors: RefCell::new(BTreeMap::new()),
            started_us,
            counters: Counters::default(),
        })
    }

    /// Accepts connections for as long as the node lives.
    pub async fn accept(self: Rc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        loop {
            let (stream, remote) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: give connections time to end.
                    tracing::warn!(%error, "cannot accept a RESP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            add(&self.counters.accepted, 1);
            tokio::task::spawn_local(self.clone().welcome(stream, remote, tls.clone()));
        }
    }

    async fn welcome(self: Rc<Self>, mut stream: TcpStream, remote: SocketAddr, tls: Option<TlsAcceptor>) {
        // Replies are written whole: waiting for more would only delay them.
        let _best_effort = stream.set_nodelay(true);
        if self.doors.borrow().len() >= self.config.limits.clients_max as usize {
            add(&self.counters.rejected, 1);
            let _ = stream.write_all(b"-ERR max number of clients reached\r\n").await;
            return;
        }
        match tls {
            None => {
                let (read, write) = stream.split();
                self.serve(read, write, remote).await;
            }
            Some(acceptor) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let (read, write) = tokio::io::split(stream);
                    self.serve(read, write, remote).await;
                }
                Ok(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%remote, "TLS handshake timed out"),
            },
        }
    }

    async fn serve(
        self: Rc<Self>,
        read: impl AsyncRead + Unpin,
        write: impl AsyncWrite + Unpin,
        remote: SocketAddr,
    ) {
        let limits = ConnectionLimits {
            decoder: DecoderLimits {
                bulk_bytes_max: self.config.limits.value_bytes_max as usize,
                ..DecoderLimits::default()
            },
            ..ConnectionLimits::default()
        };
        let now = self.core.now();
        let mut opened = None;
        let number = self.core.open_door(|number| {
            let connection = Connection::new(
                ConnectionId(number),
                remote,
                self.local,
                now,
                self.password.as_deref(),
                limits,
            );
            let door = Rc::new(RespDoor {
                replies: RefCell::new(VecDeque::new()),
                wake: Wake::default(),
                info: RefCell::new(connection.info()),
                waits: Cell::new(false),
                killed: Cell::new(false),
            });
            opened = Some((connection, door.clone()));
            door
        });
        let Some((connection, door)) = opened else { return };
        self.doors.borrow_mut().insert(number, door.clone());
        let served = self.converse(read, write, connection, &door, number).await;
        self.doors.borrow_mut().remove(&number);
        self.core.close_door(number);
        if let Err(error) = served {
            tracing::debug!(%remote, %error, "RESP connection ended");
        }
    }

    async fn converse(
        &self,
        mut read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
        mut connection: Connection,
        door: &RespDoor,
        number: u64,
    ) -> std::io::Result<()> {
        // Since when output that is not due is held back.
        let mut held_since: Option<Instant> = None;
        loop {
            if door.killed.get() {
                connection.release_output();
            }
            // What is due is written before anything more is read.
            while connection.output_is_due() {
                self.deliver(&mut write, &mut connection, door).await?;
                held_since = None;
                // Mostly nothing had to wait for room, and nothing came meanwhile.
                if connection.has_input() || !door.replies.borrow().is_empty() {
                    self.advance(&mut connection, door, number);
                } else {
                    connection.update_info(&mut door.info.borrow_mut());
                }
            }
            if connection.is_closed() || door.killed.get() {
                return write.shutdown().await;
            }
            let wants_input = connection.wants_input();
            if !connection.output().is_empty() {
                match held_since {
                    None => held_since = Some(Instant::now()),
                    // Not by the timer alone: as long as input comes, that is not asked.
                    Some(since) if since.elapsed() >= OUTPUT_HELD_MAX => {
                        connection.release_output();
                        continue;
                    }
                    Some(_) => {}
                }
            }
            let (needed, receives_long) = (connection.input_needed(), connection.receives_long());
            let room = if receives_long { connection.input_room().min(TURN_BYTES) } else { usize::MAX };
            let input = connection.input();
            if !receives_long {
                // No more than has come already: announced bytes cost the sender nothing.
                let trusted = input.len().clamp(READ_BYTES_MIN, READ_BYTES_MAX);
                input.reserve(needed.clamp(READ_BYTES_MIN, trusted));
            }
            let mut input = input.limit(room);
            let (mut reading, mut woken) = (pin!(read.read_buf(&mut input)), pin!(door.wake.notified()));
            let event = poll_fn(|context| {
                // Replies are taken after every read, too.
                if wants_input && let Poll::Ready(count) = reading.as_mut().poll(context) {
                    return Poll::Ready(Some(count));
                }
                woken.as_mut().poll(context).map(|()| None)
            });
            let event = match held_since {
                Some(since) => tokio::time::timeout_at(since + OUTPUT_HELD_MAX, event).await,
                None => Ok(event.await),
            };
            let Ok(count) = event else {
                connection.release_output();
                continue;
            };
            match count.transpose()? {
                Some(0) => return self.deliver(&mut write, &mut connection, door).await,
                Some(count) => add(&self.counters.input_bytes, count as u64),
                None => {}
            }
            self.advance(&mut connection, door, number);
            if receives_long {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Writes the output and takes note of it.
    async fn deliver(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        connection: &mut Connection,
        door: &RespDoor,
    ) -> std::io::Result<()> {
        add(&self.counters.output_bytes, connection.output_len() as u64);
        self.write(write, connection, door).await?;
        connection.output_written();
        Ok(())
    }

    /// Writes all of the output, as long as the client takes some of it now and then, and the memory for
    /// what it leaves lying suffices.
    async fn write(
        &self,
        write: &mut (impl AsyncWrite + Unpin),
        connection: &Connection,
        door: &RespDoor,
    ) -> std::io::Result<()> {
        let (mut written, whole) = (0, connection.output_len());
        let turn_bytes = if whole < LONG_BYTES_MIN { whole } else { TURN_BYTES };
        let mut turn_ends = turn_bytes;
        let mut stalls = 0;
        // Mostly the socket takes everything at once.
        let mut untaken = None;
        loop {
            let piece = connection.output_piece(written);
            let piece = &piece[..piece.len().min(turn_bytes)];
            let mut step = pin!(poll_fn(|context| poll_deliver(Pin::new(&mut *write), piece, context)));
            let done = match untaken {
                None => match poll_fn(|context| Poll::Ready(step.as_mut().poll(context))).await {
                    Poll::Ready(done) => Ok(done),
                    Poll::Pending => {
                        untaken = Some(Untaken::new(&self.counters.untaken_bytes, whole - written));
                        continue;
                    }
                },
                Some(_) => tokio::time::timeout(STALL, step).await,
            };
            match done {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(0))) => return Err(std::io::ErrorKind::WriteZero.into()),
                Ok(Ok(Some(count))) => {
                    written += count;
                    stalls = 0;
                    if let Some(untaken) = &mut untaken {
                        untaken.set(whole - written);
                    }
                    if written >= turn_ends && written < whole {
                        turn_ends = written + turn_bytes;
                        tokio::task::yield_now().await;
                    }
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    if door.killed.get() {
                        return Err(std::io::ErrorKind::ConnectionAborted.into());
                    }
                    stalls += 1;
                    if stalls >= STALLS_MAX || self.counters.untaken_bytes.get() > UNTAKEN_BYTES_MAX {
                        self.note_slow(whole - written);
                        return Err(std::io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// Counts a client that is closed because it doesn't take its replies; logs that now and then.
    fn note_slow(&self, left_bytes: usize) {
        let counters = &self.counters;
        add(&counters.slow_closed, 1);
        let now_us = self.core.now().mono_us;
        let logged_us = counters.slow_logged_us.get();
        if logged_us.is_none_or(|at_us| now_us >= at_us + SLOW_LINE_EVERY_US) {
            counters.slow_logged_us.set(Some(now_us));
            let (closed, untaken_bytes) = (counters.slow_closed.get(), counters.untaken_bytes.get());
            tracing::warn!(
                closed,
                left_bytes,
                untaken_bytes,
                "closed Redis clients that don't read their replies"
            );
        }
    }

    /// Files the replies that came and runs the commands that are there.
    fn advance(&self, connection: &mut Connection, door: &RespDoor, number: u64) {
        let before = connection.commands();
        self.core.with(|engine, now| {
            let mut host = RespHost { front: self, engine, now, door: number };
            loop {
                let reply = door.replies.borrow_mut().pop_front();
                let Some((ticket, reply)) = reply else { break };
                connection.complete(Ticket(ticket), &reply, &mut host);
            }
            connection.process(&mut host);
        });
        add(&self.counters.commands, connection.commands() - before);
        door.waits.set(connection.is_waiting());
        connection.update_info(&mut door.info.borrow_mut());
    }

    /// Closes all connections.
    pub fn close_all(&self) {
        for door in self.doors.borrow().values() {
            door.killed.set(true);
            door.wake.notify();
        }
    }
}

/// Writes of `rest` what is taken, and tells how much; `None` when there is nothing left, in the buffers of TLS
/// either.
fn poll_deliver(
    write: Pin<&mut impl AsyncWrite>,
    rest: &[u8],
    context: &mut Context<'_>,
) -> Poll<std::io::Result<Option<usize>>> {
    if rest.is_empty() {
        return write.poll_flush(context).map_ok(|()| None);
    }
    write.poll_write(context, rest).map_ok(Some)
}

/// Replies that one client has not taken, counted among those of all.
struct Untaken<'a> {
    all: &'a Cell<usize>,
    bytes: usize,
}

impl<'a> Untaken<'a> {
    fn new(all: &'a Cell<usize>, bytes: usize) -> Untaken<'a> {
        all.set(all.get() + bytes);
        Untaken { all, bytes }
    }

    fn set(&mut self, bytes: usize) {
        self.all.set(self.all.get() - self.bytes + bytes);
        self.bytes = bytes;
    }
}

impl Drop for Untaken<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// What one connection's commands are run against.
struct RespHost<'a> {
    front: &'a RespFront,
    engine: &'a mut Engine,
    now: Now,
    door: u64,
}

impl Facts for RespHost<'_> {
    fn now(&self) -> Now {
        self.now
    }

    fn me(&self) -> NodeId {
        self.engine.me()
    }

    fn table(&self) -> &Table {
        self.engine.table()
    }

    fn stats(&self) -> Stats {
        let counters = &self.front.counters;
        let stats = self.engine.stats();
        let used = self.engine.bytes_used();
        counters.memory_peak_bytes.set(counters.memory_peak_bytes.get().max(used));
        let process = crate::drivers::process::usage();
        let config = self.engine.config();
        let mut rate = counters.rate.borrow_mut();
        let elapsed_us = self.now.mono_us - rate.since_us;
        if elapsed_us > 1_000_000 {
            let commands = counters.commands.get();
            rate.per_s = (commands - rate.commands.min(commands)) * 1_000_000 / elapsed_us;
            rate.commands = commands;
            rate.since_us = self.now.mono_us;
        }
        Stats {
            process_id: std::process::id(),
            tcp_port: self.front.local.port(),
            uptime_s: (self.now.mono_us - self.front.started_us) / 1_000_000,
            clients: self.front.doors.borrow().len() as u64,
            clients_blocked: self.front.doors.borrow().values().filter(|door| door.waits.get()).count()
                as u64,
            clients_max: u64::from(self.front.config.limits.clients_max),
            memory_used_bytes: used,
            memory_peak_bytes: counters.memory_peak_bytes.get(),
            memory_resident_bytes: process.resident_bytes,
            memory_max_bytes: config.bytes_max,
            memory_policy: policy_name(config.eviction),
            connections_received: counters.accepted.get(),
            connections_rejected: counters.rejected.get(),
            connections_slow: counters.slow_closed.get(),
            commands: counters.commands.get(),
            commands_per_s: rate.per_s,
            input_bytes: counters.input_bytes.get(),
            output_bytes: counters.output_bytes.get(),
            keys_expired: stats.expired,
            keys_evicted: stats.evicted,
            hits: stats.hits - counters.hits_at_reset.get(),
            misses: stats.misses - counters.misses_at_reset.get(),
            cpu_user_us: process.cpu_user_us,
            cpu_system_us: process.cpu_system_us,
            keys: self.engine.load().keys,
            keys_expiring: self.engine.keys_expiring(),
        }
    }

    fn password(&self) -> Option<&[u8]> {
        self.front.password.as_deref()
    }

    fn config(&self, visit: &mut dyn FnMut(&str, &str)) {
        let config = self.engine.config();
        let limits = &self.front.config.limits;
        visit("maxmemory", &config.bytes_max.to_string());
        visit("maxmemory-policy", policy_name(config.eviction));
        visit("maxclients", &limits.clients_max.to_string());
        visit("proto-max-bulk-len", &limits.value_bytes_max.to_string());
        visit("port", &self.front.local.port().to_string());
        visit("bind", &self.front.local.ip().to_string());
        visit("databases", "1");
        visit("timeout", "0");
        visit("save", "");
        visit("appendonly", "no");
        visit("cluster-enabled", "yes");
        visit("ringdove-redirect", if self.front.redirect.get() { "yes" } else { "no" });
    }

    fn clients(&self, visit: &mut dyn FnMut(&ClientInfo)) {
        for (&number, door) in &*self.front.doors.borrow() {
            if number != self.door {
                visit(&door.info.borrow());
            }
        }
    }

    fn debug_allowed(&self) -> bool {
        self.front.config.enable_debug_command
    }
}

fn policy_name(policy: Eviction) -> &'static str {
    match policy {
        Eviction::NoEviction => "noeviction",
        Eviction::AllKeysLru => "allkeys-lru",
        Eviction::VolatileTtl => "volatile-ttl",
    }
}

/// A parameter's new value, checked.
enum Setting {
    BytesMax(u64),
    Policy(Eviction),
    Redirect(bool),
}

fn parse_setting(name: &str, value: &str) -> Result<Setting, ConfigRefusal> {
    let invalid = |reason: &str| ConfigRefusal::Invalid(reason.to_owned());
    match name.to_ascii_lowercase().as_str() {
        "maxmemory" => value
            .parse::<crate::config::ByteSize>()
            .map(|size| Setting::BytesMax(size.0))
            .map_err(|_| invalid("argument must be a memory value")),
        "maxmemory-policy" => match value {
            "noeviction" => Ok(Setting::Policy(Eviction::NoEviction)),
            "allkeys-lru" => Ok(Setting::Policy(Eviction::AllKeysLru)),
            "volatile-ttl" => Ok(Setting::Policy(Eviction::VolatileTtl)),
            _ => Err(invalid("argument must be one of: noeviction, allkeys-lru, volatile-ttl")),
        },
        "ringdove-redirect" => match value {
            "yes" => Ok(Setting::Redirect(true)),
            "no" => Ok(Setting::Redirect(false)),
            _ => Err(invalid("argument must be 'yes' or 'no'")),
        },
        "maxclients" | "proto-max-bulk-len" | "port" | "bind" | "databases" | "timeout" | "save"
        | "appendonly" | "cluster-enabled" => Err(ConfigRefusal::Immutable),
        _ => Err(ConfigRefusal::Unknown),
    }
}

impl Host for RespHost<'_> {
    fn submit(&mut self, ticket: Ticket, op: Op<'_>, out: &mut Vec<u8>) -> Submitted {
        self.engine.submit(self.now, op::Ticket { door: self.door, number: ticket.0 }, &op, out)
    }

    fn touch(&self, keys: &[(PartitionId, u64)], writes: bool) {
        self.engine.touch(keys, writes);
    }

    fn redirect(&self, partition: PartitionId) -> Option<SocketAddr> {
        if !self.front.redirect.get() {
            return None;
        }
        let table = self.engine.table();
        let primary = table.assignment(partition).filter(|assignment| assignment.epoch.0 > 0)?.primary;
        (primary != self.engine.me()).then(|| table.members.get(&primary).map(|member| member.resp))?
    }

    fn entropy(&mut self) -> u64 {
        self.engine.random()
    }

    fn config_set(&mut self, parameters: &[(&str, &str)]) -> Result<(), (usize, ConfigRefusal)> {
        let mut settings = Vec::new();
        for (index, (name, value)) in parameters.iter().enumerate() {
            settings.push(parse_setting(name, value).map_err(|refusal| (index, refusal))?);
        }
        for setting in settings {
            match setting {
                Setting::BytesMax(bytes) => self.engine.config_mut().bytes_max = bytes,
                Setting::Policy(policy) => self.engine.config_mut().eviction = policy,
                Setting::Redirect(redirect) => self.front.redirect.set(redirect),
            }
        }
        Ok(())
    }

    fn reset_stats(&mut self) {
        let counters = &self.front.counters;
        for counter in [
            &counters.accepted,
            &counters.rejected,
            &counters.slow_closed,
            &counters.commands,
            &counters.input_bytes,
            &counters.output_bytes,
        ] {
            counter.set(0);
        }
        counters.hits_at_reset.set(self.engine.stats().hits);
        counters.misses_at_reset.set(self.engine.stats().misses);
        *counters.rate.borrow_mut() = Rate::default();
    }

    fn accept_loss(&mut self) {
        self.engine.accept_loss(self.now);
    }

    fn kill(&mut self, connection: ConnectionId) {
        if let Some(door) = self.front.doors.borrow().get(&connection.0) {
            door.killed.set(true);
            door.wake.notify();
        }
    }

    fn sleep(&mut self, ticket: Ticket, us: u64) {
        let Some(door) = self.front.doors.borrow().get(&self.door).cloned() else { return };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_micros(us)).await;
            door.complete(ticket.0, ReplyBytes::from_slice(b"+OK\r\n"));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::io::{BufWriter, duplex};

    /// The end of a long reply over TLS stayed in its buffer if the socket was full just then.
    #[test]
    fn what_is_delivered_lies_in_no_buffer() {
        let reply = [b'v'; 5_000];
        let (ours, mut theirs) = duplex(1 << 16);
        let mut write = BufWriter::with_capacity(1 << 16, ours);
        let mut rest = &reply[..];
        let mut taken = vec![0; reply.len()];
        let deliver = async {
            while let Some(count) =
                poll_fn(|context| poll_deliver(Pin::new(&mut write), rest, context)).await?
            {
                rest = &rest[count..];
            }
            theirs.read_exact(&mut taken).await
        };
        assert_eq!(deliver.now_or_never().expect("all is there").expect("a pipe"), reply.len());
        assert_eq!(taken, reply);
    }
}
