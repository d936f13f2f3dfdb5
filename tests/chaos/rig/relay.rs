//! A relay of UDP packets in front of every node, which loses, delays, doubles or swallows them.
//!
//! Nodes know each other only by their relays' addresses. A node's packets come from the very
//! address that it listens on, so a relay knows for each packet who sent it, and for each answer to
//! whom it goes; every directed pair of nodes can be treated differently. Packets of clients pass
//! unharmed.

use rand::RngExt;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

/// Longer than any packet that nodes send.
const PACKET_BYTES_MAX: usize = 65_536;
/// Bursts wait here; what is lost should be lost by the rules.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What happens to packets between nodes.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Share of packets lost, 0 to 1.
    pub loss: f64,
    /// Share of packets sent twice, 0 to 1.
    pub doubled: f64,
    /// Each packet is held up for a random time up to this, so that they overtake each other.
    pub delay_max: Duration,
    /// Directed pairs of nodes between which nothing passes.
    pub cuts: HashSet<(usize, usize)>,
}

impl Rules {
    /// The delays of the copies of a packet that pass.
    fn copies(&self, pair: Option<(usize, usize)>) -> Vec<Duration> {
        let Some(pair) = pair else { return vec![Duration::ZERO] };
        let mut rng = rand::rng();
        if self.cuts.contains(&pair) || rng.random_bool(self.loss) {
            return Vec::new();
        }
        let count = if rng.random_bool(self.doubled) { 2 } else { 1 };
        (0..count).map(|_| self.delay_max.mul_f64(rng.random())).collect()
    }
}

/// The relays of a cluster, on a thread of their own.
pub struct Relays {
    rules: Arc<Mutex<Rules>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Relays {
    /// Starts a relay for each node: packets to `fronts[i]` go to `nodes[i]`.
    pub fn start(fronts: Vec<SocketAddr>, nodes: Vec<SocketAddr>) -> Relays {
        let rules = Arc::new(Mutex::new(Rules::default()));
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = std::sync::mpsc::channel();
        let shared = rules.clone();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let relays = async move {
                let ips: Vec<IpAddr> = nodes.iter().map(SocketAddr::ip).collect();
                for (to, front) in fronts.into_iter().enumerate() {
                    let relay = Relay {
                        to,
                        node: nodes[to],
                        ips: ips.clone(),
                        front: Arc::new(bind(front)),
                        rules: shared.clone(),
                    };
                    spawn_local(relay.run());
                }
                listening.send(()).expect("somebody waits");
                let _stopped = stopped.await;
            };
            tokio::task::LocalSet::new().block_on(&runtime, relays);
        });
        listens.recv().expect("the relays listen");
        Relays { rules, stop: Some(stop), thread: Some(thread) }
    }

    /// Changes the rules.
    pub fn set(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has told why on its own.
            let _panicked = thread.join();
        }
    }
}

fn bind(address: SocketAddr) -> UdpSocket {
    let socket = std::net::UdpSocket::bind(address).expect("the relay's address is free");
    let sized = socket2::SockRef::from(&socket);
    // The system may grant less.
    let _granted = sized.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _granted = sized.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true).expect("a socket");
    UdpSocket::from_std(socket).expect("within a runtime")
}

struct Relay {
    /// The node behind it.
    to: usize,
    node: SocketAddr,
    /// All nodes'.
    ips: Vec<IpAddr>,
    front: Arc<UdpSocket>,
    rules: Arc<Mutex<Rules>>,
}

impl Relay {
    /// Passes packets on, from a socket of its own for each sender, by which answers find back.
    async fn run(self) {
        let mut backs: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut packet = vec![0; PACKET_BYTES_MAX];
        loop {
            // Errors of UDP sockets tell of earlier packets, not of this one.
            let Ok((length, source)) = self.front.recv_from(&mut packet).await else { continue };
            let from = self.ips.iter().position(|&ip| ip == source.ip());
            let back = backs.entry(source).or_insert_with(|| {
                let back = Arc::new(bind(SocketAddr::new([127, 0, 0, 1].into(), 0)));
                let (front, rules) = (self.front.clone(), self.rules.clone());
                let pair = from.map(|from| (self.to, from));
                spawn_local(answer(back.clone(), front, source, pair, rules));
                back
            });
            let pair = from.map(|from| (from, self.to));
            pass(&packet[..length], back, self.node, pair, &self.rules).await;
        }
    }
}

/// Passes answers of a node on to whom it answers.
async fn answer(
    back: Arc<UdpSocket>,
    front: Arc<UdpSocket>,
    to: SocketAddr,
    pair: Option<(usize, usize)>,
    rules: Arc<Mutex<Rules>>,
) {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    loop {
        let Ok(length) = back.recv(&mut packet).await else { continue };
        pass(&packet[..length], &front, to, pair, &rules).await;
    }
}

async fn pass(
    packet: &[u8],
    socket: &Arc<UdpSocket>,
    to: SocketAddr,
    pair: Option<(usize, usize)>,
    rules: &Mutex<Rules>,
) {
    let copies = rules.lock().unwrap_or_else(PoisonError::into_inner).copies(pair);
    for delay in copies {
        if delay.is_zero() {
            // A packet that can't be sent is a packet lost.
            let _sent = socket.send_to(packet, to).await;
        } else {
            let (packet, socket) = (packet.to_vec(), socket.clone());
            spawn_local(async move {
                tokio::time::sleep(delay).await;
                let _sent = socket.send_to(&packet, to).await;
            });
        }
    }
}
