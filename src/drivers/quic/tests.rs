//! Meshes on loopback: every test awaits what the handlers report, with one deadline over all.

use super::handshake;
use super::hello::{Hello, PROTOCOL_MAX, PROTOCOL_MIN};
use super::transport::{self, Timeouts};
use super::*;
use crate::drivers::clock::Clock;
use crate::drivers::pki::{Role, Secret, Trust};
use crate::engine::frame::Class;
use crate::engine::ids::{Incarnation, NodeId};
use bytes::Bytes;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const C: NodeId = NodeId(3);
const DEADLINE: Duration = Duration::from_secs(30);

/// What a handler heard.
#[derive(Debug)]
enum Event {
    Up(NodeId),
    Down(NodeId, DownReason),
    Frames(NodeId, Class, Vec<Bytes>),
    Datagram(NodeId, Bytes),
    Client(ClientConnection),
    Replaced(NodeId),
}

struct Recorder {
    events: mpsc::UnboundedSender<Event>,
    refuses: Option<NodeId>,
}

impl Recorder {
    fn note(&self, event: Event) {
        // The receiver may have been dropped by a test that has seen enough.
        let _ = self.events.send(event);
    }
}

impl Links for Recorder {
    fn link_up(&self, peer: NodeId, hello: &Hello, _addr: SocketAddr) {
        assert_eq!(hello.node, peer);
        self.note(Event::Up(peer));
    }

    fn link_down(&self, peer: NodeId, reason: DownReason) {
        self.note(Event::Down(peer, reason));
    }

    fn frames(&self, peer: NodeId, class: Class, frames: &mut Vec<Bytes>) {
        self.note(Event::Frames(peer, class, std::mem::take(frames)));
    }

    fn datagram(&self, peer: NodeId, bytes: Bytes) {
        self.note(Event::Datagram(peer, bytes));
    }

    fn request(&self, _peer: NodeId, body: Bytes) -> LocalFuture<Result<Bytes, Refusal>> {
        Box::pin(async move {
            match &body[..] {
                b"never" => std::future::pending().await,
                b"refuse" => Err(Refusal("as you wish".into())),
                _ => Ok([b"echo ", &body[..]].concat().into()),
            }
        })
    }

    fn client(&self, connection: ClientConnection) {
        self.note(Event::Client(connection));
    }

    fn accepts(&self, hello: &Hello) -> Result<(), Refusal> {
        match self.refuses {
            Some(refused) if refused == hello.node => Err(Refusal("not you".into())),
            _ => Ok(()),
        }
    }

    fn replaced(&self, peer: NodeId, _addr: SocketAddr) {
        self.note(Event::Replaced(peer));
    }
}

struct TestNode {
    mesh: Mesh,
    addr: SocketAddr,
    events: RefCell<mpsc::UnboundedReceiver<Event>>,
}

impl TestNode {
    fn start(node: NodeId) -> TestNode {
        TestNode::with(node, |_| {})
    }

    fn with(node: NodeId, change: impl FnOnce(&mut MeshConfig)) -> TestNode {
        TestNode::refusing(node, None, change)
    }

    fn refusing(node: NodeId, refuses: Option<NodeId>, change: impl FnOnce(&mut MeshConfig)) -> TestNode {
        let mut config = MeshConfig::new(any_port(), trust("one secret of the test"), node, Clock::new());
        config.redial_delay = (Duration::from_millis(10), Duration::from_millis(50));
        change(&mut config);
        let (sender, events) = mpsc::unbounded_channel();
        let mesh = Mesh::bind(config, Rc::new(Recorder { events: sender, refuses })).unwrap();
        let addr = mesh.local_addr().unwrap();
        TestNode { mesh, addr, events: RefCell::new(events) }
    }

    /// The next event.
    #[allow(clippy::await_holding_refcell_ref)]
    async fn event(&self) -> Event {
        self.events.borrow_mut().recv().await.expect("the mesh keeps its handler")
    }

    async fn up(&self, peer: NodeId) {
        match self.event().await {
            Event::Up(up) if up == peer => {}
            other => panic!("{other:?} instead of a link to {peer}"),
        }
    }

    async fn down(&self, peer: NodeId) -> DownReason {
        match self.event().await {
            Event::Down(down, reason) if down == peer => reason,
            other => panic!("{other:?} instead of the loss of {peer}"),
        }
    }

    /// Whether there is an event that nobody has looked at.
    fn has_event(&self) -> Option<Event> {
        self.events.borrow_mut().try_recv().ok()
    }

    /// Gathers `count` frames of a class.
    async fn frames(&self, peer: NodeId, class: Class, count: usize) -> Vec<Bytes> {
        let mut gathered = Vec::new();
        while gathered.len() < count {
            match self.event().await {
                Event::Frames(from, of, frames) if (from, of) == (peer, class) => {
                    gathered.extend(frames);
                }
                other => panic!("{other:?} instead of {class:?} frames of {peer}"),
            }
        }
        gathered
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn trust(secret: &str) -> Trust {
    Trust::from_secret(&Secret::new(secret).unwrap()).unwrap()
}

/// Runs a test as the node runs: on one thread.
fn run<F: Future<Output = ()>>(test: F) {
    crate::drivers::runtime().unwrap().block_on(async {
        tokio::time::timeout(DEADLINE, test).await.expect("the test takes too long");
    });
}

/// Lets the runtime work until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn linked() -> (TestNode, TestNode) {
    let (a, b) = (TestNode::start(A), TestNode::start(B));
    assert_eq!(a.mesh.dial(b.addr).await, Ok(B));
    a.up(B).await;
    b.up(A).await;
    (a, b)
}

#[test]
fn a_link_comes_up_on_both_sides_and_goes_down_on_both() {
    run(async {
        let (a, b) = linked().await;
        assert_eq!(a.mesh.peers(), [B]);
        assert!(a.mesh.live(B) && b.mesh.live(A));
        assert!(a.mesh.rtt(B).is_some() && a.mesh.last_heard_us(B).is_some());
        assert_eq!(b.mesh.hello_of(A).unwrap().quic, a.addr);
        assert_eq!(a.mesh.dial(b.addr).await, Ok(B), "the link that is there is used");
        assert_eq!(a.mesh.connections(B), 1);

        a.mesh.close("enough").await;
        let reason = b.down(A).await;
        assert_eq!(reason, DownReason::Closed(Some(CloseCode::Shutdown), "enough".into()));
        assert!(b.mesh.peers().is_empty() && !b.mesh.live(A));
        assert!(!b.mesh.send(A, Class::Hot, Bytes::new()));
        assert!(a.has_event().is_none(), "a closed mesh is silent");
    });
}

#[test]
fn frames_keep_their_order_within_a_class() {
    run(async {
        let (a, b) = linked().await;
        for class in Class::ALL {
            // Sizes from nothing to several megabytes: coalesced, whole and cut into many chunks.
            let sent: Vec<Bytes> = (0..2_000usize)
                .map(|i| Bytes::from(vec![i as u8; if i % 500 == 499 { 3 << 20 } else { i % 300 }]))
                .collect();
            for frame in &sent {
                assert!(a.mesh.send(B, class, frame.clone()));
            }
            assert!(a.mesh.queued_bytes(B, class) > 12 << 20);
            assert_eq!(b.frames(A, class, sent.len()).await, sent);
            until(|| a.mesh.queued_bytes(B, class) == 0).await;
        }
        // And the other way, on the same link.
        assert!(b.mesh.send(A, Class::Hot, Bytes::from_static(b"back")));
        assert_eq!(a.frames(B, Class::Hot, 1).await, ["back"]);
    });
}

#[test]
fn a_value_of_64_mib_fits_in_a_frame_and_control_passes_it() {
    run(async {
        let (a, b) = linked().await;
        let value = Bytes::from(vec![7; (64 << 20) + 1_000]);
        assert!(a.mesh.send(B, Class::Hot, value.clone()));
        assert!(a.mesh.send(B, Class::Control, Bytes::from_static(b"urgent")));
        assert_eq!(b.frames(A, Class::Control, 1).await, ["urgent"]);
        assert!(b.frames(A, Class::Hot, 1).await == [value]);
    });
}

#[test]
fn a_full_queue_and_a_long_frame_are_refused() {
    run(async {
        let a = TestNode::with(A, |config| config.queue_bytes_max = [100; 3]);
        let b = TestNode::start(B);
        a.mesh.dial(b.addr).await.unwrap();
        let frame = Bytes::from_static(&[0; 60]);
        assert!(a.mesh.send(B, Class::Hot, frame.clone()));
        assert!(!a.mesh.send(B, Class::Hot, frame.clone()), "128 bytes with prefixes");
        assert!(a.mesh.send(B, Class::Control, frame), "each class has its own queue");
        let long = Bytes::from(vec![0; Class::Bulk.frame_bytes_max() + 1]);
        assert!(!a.mesh.send(B, Class::Bulk, long));
        assert_eq!(a.mesh.counters().frames_refused, 2);
    });
}

#[test]
fn requests_are_answered_refused_or_time_out() {
    run(async {
        let (a, _b) = linked().await;
        let long = Duration::from_secs(10);
        let ask = |body: &'static [u8], timeout| a.mesh.request(B, Bytes::from_static(body), timeout);
        assert_eq!(ask(b"hi", long).await.unwrap(), "echo hi");
        assert_eq!(ask(b"refuse", long).await, Err(RequestError::Refused("as you wish".into())));
        let short = Duration::from_millis(20);
        assert_eq!(ask(b"never", short).await, Err(RequestError::Timeout));
        let big = Bytes::from(vec![1; 10 << 20]);
        assert_eq!(a.mesh.request(B, big, long).await.unwrap().len(), (10 << 20) + 5);
        let too_big = Bytes::from(vec![1; (16 << 20) + 1]);
        let refused = a.mesh.request(B, too_big, long).await;
        assert!(matches!(refused, Err(RequestError::TooLong { .. })));
        let nobody = a.mesh.request(C, Bytes::new(), long).await;
        assert_eq!(nobody, Err(RequestError::NoLink(C)));
    });
}

#[test]
fn a_request_ends_with_its_link() {
    run(async {
        let (a, b) = linked().await;
        let asked = a.mesh.request(B, Bytes::from_static(b"never"), DEADLINE);
        let (answer, ()) = tokio::join!(asked, b.mesh.close("bye"));
        assert!(matches!(answer, Err(RequestError::Lost(DownReason::Closed(..)))), "{answer:?}");
    });
}

#[test]
fn datagrams_arrive_and_long_ones_are_refused() {
    run(async {
        let (a, b) = linked().await;
        assert!(a.mesh.datagram_bytes_max(B).unwrap() > 1_100);
        assert!(a.mesh.send_datagram(B, Bytes::from_static(b"rumour")));
        match b.event().await {
            Event::Datagram(A, bytes) => assert_eq!(bytes, "rumour"),
            other => panic!("{other:?}"),
        }
        assert!(!a.mesh.send_datagram(B, Bytes::from(vec![0; 60_000])));
        assert!(!a.mesh.send_datagram(C, Bytes::new()));
    });
}

/// A node on a thread of its own, which can die without a word.
fn doomed_node(node: NodeId, listen: SocketAddr) -> (SocketAddr, impl FnOnce()) {
    let (kill, killed) = oneshot::channel::<()>();
    let (report, reported) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = crate::drivers::runtime().unwrap();
        let doomed = runtime.block_on(async {
            let doomed = TestNode::with(node, |config| config.listen = listen);
            report.send(doomed.addr).unwrap();
            let _ = killed.await;
            doomed
        });
        // The runtime goes first: what is dropped after it can't say goodbye.
        drop(runtime);
        drop(doomed);
    });
    let addr = reported.recv().unwrap();
    let die = move || {
        kill.send(()).unwrap();
        thread.join().unwrap();
    };
    (addr, die)
}

fn impatient(config: &mut MeshConfig) {
    config.idle_timeout = Duration::from_millis(500);
    config.keep_alive = Duration::from_millis(100);
}

#[test]
fn a_peer_killed_without_a_word_is_noticed_by_silence() {
    run(async {
        let a = TestNode::with(A, impatient);
        let (addr, die) = doomed_node(B, any_port());
        a.mesh.maintain(B, addr);
        a.up(B).await;
        die();
        assert_eq!(a.down(B).await, DownReason::TimedOut);
        assert_eq!(a.mesh.counters().links_lost, 1);
    });
}

#[test]
fn a_restarted_process_ends_the_links_of_its_predecessor() {
    run(async {
        // Long enough that silence can't be the reason within the deadline.
        let a = TestNode::with(A, |config| config.idle_timeout = 2 * DEADLINE);
        let (addr, die) = doomed_node(B, any_port());
        a.mesh.maintain(B, addr);
        a.up(B).await;
        die();
        let reborn = TestNode::with(C, |config| config.listen = addr);
        assert_eq!(a.down(B).await, DownReason::Reset);
        assert!(matches!(a.event().await, Event::Replaced(B)));
        a.mesh.forget(B);
        a.mesh.maintain(C, addr);
        while !matches!(a.event().await, Event::Up(C)) {}
        reborn.up(A).await;
        assert_eq!(reborn.mesh.counters().links_accepted, 1, "whoever wants B is sent away");
    });
}

#[test]
fn a_lost_link_is_dialled_again() {
    run(async {
        let (a, b) = (TestNode::start(A), TestNode::start(B));
        a.mesh.maintain(B, b.addr);
        a.up(B).await;
        b.up(A).await;
        b.mesh.disconnect(A, "a moment please");
        assert!(matches!(a.down(B).await, DownReason::Closed(Some(CloseCode::Refused), _)));
        assert_eq!(b.down(A).await, DownReason::Local);
        a.up(B).await;
        b.up(A).await;
        a.mesh.forget(B);
        b.mesh.disconnect(A, "and now for good");
        a.down(B).await;
        assert_eq!(a.mesh.counters().links_dialled, 2);
    });
}

#[test]
fn both_dialling_at_once_ends_with_one_link_and_no_flapping() {
    run(async {
        for _ in 0..3 {
            let (a, b) = (TestNode::start(A), TestNode::start(B));
            let (ab, ba) = tokio::join!(a.mesh.dial(b.addr), b.mesh.dial(a.addr));
            assert_eq!((ab, ba), (Ok(B), Ok(A)));
            a.up(B).await;
            b.up(A).await;
            until(|| a.mesh.connections(B) == 1 && b.mesh.connections(A) == 1).await;
            // The survivor is the lower id's, and it works.
            assert!(a.mesh.send(B, Class::Hot, Bytes::from_static(b"on the one link")));
            assert_eq!(b.frames(A, Class::Hot, 1).await, ["on the one link"]);
            assert!(a.mesh.0.current(B).unwrap().dialled_by_us);
            assert!(!b.mesh.0.current(A).unwrap().dialled_by_us);
            assert!(a.has_event().is_none() && b.has_event().is_none());
        }
    });
}

#[test]
fn dialling_twice_from_one_side_ends_with_one_link() {
    run(async {
        let (a, b) = (TestNode::start(A), TestNode::start(B));
        let (first, second) = tokio::join!(b.mesh.dial(a.addr), b.mesh.dial(a.addr));
        assert_eq!((first, second), (Ok(A), Ok(A)));
        until(|| a.mesh.connections(B) == 1 && b.mesh.connections(A) == 1).await;
        a.up(B).await;
        b.up(A).await;
        assert!(a.has_event().is_none() && b.has_event().is_none());
    });
}

#[test]
fn three_nodes_mesh() {
    run(async {
        let nodes = [TestNode::start(A), TestNode::start(B), TestNode::start(C)];
        for one in &nodes {
            for other in &nodes {
                one.mesh.maintain(other.mesh.node(), other.addr);
            }
        }
        until(|| nodes.iter().all(|node| node.mesh.peers().len() == 2)).await;
        assert_eq!(nodes[1].mesh.peers(), [A, C]);
    });
}

#[test]
fn another_secret_is_refused_on_both_sides() {
    run(async {
        let a = TestNode::start(A);
        let stranger = TestNode::with(B, |config| config.trust = trust("quite another secret"));
        assert_eq!(stranger.mesh.dial(a.addr).await, Err(DialError::Untrusted));
        assert_eq!(a.mesh.dial(stranger.addr).await, Err(DialError::Untrusted));
        until(|| a.mesh.counters().refused_untrusted == 2).await;
        until(|| stranger.mesh.counters().refused_untrusted == 2).await;
        let client = connect_client(a.addr, &trust("quite another secret")).await;
        assert!(matches!(client, Err(DialError::Untrusted)));
        assert!(a.has_event().is_none() && stranger.has_event().is_none());
    });
}

/// Dials as somebody who writes their own hello.
async fn dial_with(addr: SocketAddr, role: Role, hello: &Hello) -> Result<NodeId, DialError> {
    let trust = trust("one secret of the test");
    let timeouts = Timeouts { idle_timeout: DEADLINE, keep_alive: DEADLINE };
    let config = transport::client_config(trust.client_config(role).unwrap(), timeouts).unwrap();
    let endpoint = quinn::Endpoint::client(any_port()).unwrap();
    let opened = handshake::open(&endpoint, config, addr, hello, DEADLINE).await;
    opened.map(|opened| opened.hello.node)
}

fn node_hello() -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        role: Role::Node,
        node: B,
        incarnation: Incarnation(0),
        quic: any_port(),
        name: "b".into(),
        expects: None,
        wall_ms: 0,
    }
}

#[test]
fn a_clients_certificate_cannot_act_as_a_node() {
    run(async {
        let a = TestNode::start(A);
        let refused = dial_with(a.addr, Role::Client, &node_hello()).await;
        assert!(matches!(refused, Err(DialError::Refused(_))), "{refused:?}");
        assert!(a.has_event().is_none());
        assert_eq!(a.mesh.counters().refused_hello, 1);
        // The same hello with a node's certificate is welcome.
        assert_eq!(dial_with(a.addr, Role::Node, &node_hello()).await, Ok(A));
    });
}

#[test]
fn versions_identities_and_wishes_are_checked() {
    run(async {
        let a = TestNode::refusing(A, Some(C), |_| {});
        assert_eq!(a.mesh.dial(a.addr).await, Err(DialError::Itself));

        let later = Hello { protocol_min: 90, protocol_max: 99, ..node_hello() };
        let refused = dial_with(a.addr, Role::Node, &later).await;
        assert!(matches!(refused, Err(DialError::Version(_))), "{refused:?}");

        let itself = Hello { node: A, ..node_hello() };
        assert_eq!(dial_with(a.addr, Role::Node, &itself).await, Err(DialError::Itself));

        let lost = Hello { expects: Some(C), ..node_hello() };
        assert_eq!(dial_with(a.addr, Role::Node, &lost).await, Err(DialError::WrongNode));

        let c = TestNode::start(C);
        assert_eq!(c.mesh.dial(a.addr).await, Err(DialError::Refused("not you".into())));
        assert_eq!(a.mesh.dial(c.addr).await, Err(DialError::Refused("not you".into())));
        assert!(a.has_event().is_none());
    });
}

#[test]
fn a_breach_of_the_protocol_ends_the_link() {
    run(async {
        for breach in [&b"\x09"[..], b"\x01\xff\xff\xff\xff"] {
            let (a, b) = linked().await;
            let mut stream = a.mesh.0.current(B).unwrap().connection.open_uni().await.unwrap();
            stream.write_all(breach).await.unwrap();
            let reason = a.down(B).await;
            assert!(matches!(reason, DownReason::Closed(Some(CloseCode::Protocol), _)), "{reason}");
            assert_eq!(b.down(A).await, DownReason::Local);
        }
    });
}

#[test]
fn packets_grow_to_what_the_path_carries() {
    run(async {
        let (a, b) = linked().await;
        // Probes travel with traffic.
        let stats = || a.mesh.0.current(B).unwrap().connection.stats();
        let grown = async {
            while stats().path.current_mtu < 6_400 {
                a.mesh.send(B, Class::Bulk, Bytes::from(vec![0; 100_000]));
                b.frames(A, Class::Bulk, 1).await;
            }
        };
        grown.await;
        assert_eq!(stats().path.black_holes_detected, 0);
    });
}

#[test]
fn a_client_talks_on_the_stream_of_its_hello() {
    run(async {
        let a = TestNode::start(A);
        let dialer = ClientDialer::bind(&trust("one secret of the test"), 42, "cli").unwrap();
        let mut client = dialer.connect(a.addr).await.unwrap();
        assert_eq!(client.hello.node, A);
        let mut served = match a.event().await {
            Event::Client(connection) => connection,
            other => panic!("{other:?}"),
        };
        assert_eq!((served.hello.node, served.hello.role), (NodeId(42), Role::Client));
        assert_eq!(served.hello.name, "cli");
        client.send.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        served.recv.read_exact(&mut bytes).await.unwrap();
        served.send.write_all(&bytes).await.unwrap();
        client.recv.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        assert!(a.mesh.peers().is_empty(), "a client is no peer");
        dialer.close().await;
        served.connection.closed().await;
        until(|| a.mesh.0.clients.get() == 0).await;
    });
}

#[test]
fn clients_and_handshakes_are_bounded() {
    run(async {
        let a = TestNode::with(A, |config| (config.clients_max, config.handshakes_max) = (1, 0));
        let trust = trust("one secret of the test");
        let b = TestNode::start(B);
        assert_eq!(
            tokio::time::timeout(Duration::from_millis(200), b.mesh.dial(a.addr)).await.ok(),
            None,
            "no handshake is answered"
        );
        assert!(a.mesh.counters().refused_busy > 0);

        // From half of the bound on, diallers prove their address first; it still works.
        let a = TestNode::with(A, |config| (config.clients_max, config.handshakes_max) = (1, 1));
        let _one = connect_client(a.addr, &trust).await.unwrap();
        let two = connect_client(a.addr, &trust).await;
        assert!(matches!(two, Err(DialError::Refused(_))), "{two:?}");
    });
}

#[test]
fn nothing_queued_is_lost_by_a_graceful_close() {
    run(async {
        let (a, b) = linked().await;
        for i in 0..1_000u32 {
            assert!(a.mesh.send(B, Class::Hot, Bytes::copy_from_slice(&i.to_le_bytes())));
        }
        a.mesh.close("done").await;
        let frames = b.frames(A, Class::Hot, 1_000).await;
        assert_eq!(frames[999][..], 999u32.to_le_bytes());
    });
}
