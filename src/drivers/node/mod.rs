//! One running node: the engine and everything that moves bytes, time and log entries for it.
//!
//! All of it lives on one thread, in a `LocalRuntime`. The tour:
//! - this file: [`NodeCore`], what every task shares; the flusher and the ticker;
//! - [`links`]: the QUIC mesh's events become the engine's inputs;
//! - [`resp`]: connections of Redis clients; [`clients`]: those of QUIC clients,
//!   whose commands are [`calls`];
//! - [`admin`]: answers for the admin server;
//! - [`agreed`]: between the engine and the agreed log;
//! - [`serve`]: binding, seeds, sockets, and the graceful end.
//!
//! Batching comes from the order of tasks: connections that are ready run first and only mark the
//! engine; the flusher, woken by the first of them, runs after them and sends everything at once.

pub mod admin;
pub mod agreed;
pub mod calls;
pub mod clients;
pub mod links;
pub mod resp;
pub mod serve;

use crate::drivers::clock::Clock;
use crate::drivers::process;
use crate::drivers::quic::Mesh;
use crate::drivers::wake::Wake;
use crate::engine::ids::NodeId;
use crate::engine::node::{Engine, Output};
use crate::engine::partition::primary::ReplyBytes;
use crate::engine::table::{Table, TableEntry};
use crate::engine::time::Now;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// Where the replies of a connection's operations go.
pub trait Door {
    /// The operation `number` of this door is answered.
    fn complete(&self, number: u64, reply: ReplyBytes);
}

/// What all tasks of a node share. Cheap to clone.
#[derive(Clone)]
pub struct NodeCore(Rc<Shared>);

struct Shared {
    engine: RefCell<Engine>,
    clock: Clock,
    mesh: OnceCell<Mesh>,
    flush: Wake,
    doors: RefCell<HashMap<u64, Rc<dyn Door>>>,
    next_door: Cell<u64>,
    log_orders: mpsc::UnboundedSender<LogOrder>,
    tables: watch::Sender<Arc<Table>>,
    left: watch::Sender<bool>,
}

/// What the engine wants of the agreed log.
#[derive(Debug)]
pub enum LogOrder {
    /// Propose an entry.
    Propose(TableEntry),
    /// Set the voters.
    Voters(Vec<NodeId>),
    /// Start a group of one from this table.
    Form(Box<Table>),
    /// Leave the group: its incarnation is over.
    Abandon,
}

impl NodeCore {
    /// Wraps an engine. The receiver is for [`agreed::run`].
    pub fn new(engine: Engine, clock: Clock) -> (NodeCore, mpsc::UnboundedReceiver<LogOrder>) {
        // Bounded by the controller: one proposal in flight, voters and forms are rare.
        let (log_orders, receiver) = mpsc::unbounded_channel();
        let (tables, _) = watch::channel(engine.table().clone());
        let (left, _) = watch::channel(false);
        let shared = Shared {
            engine: RefCell::new(engine),
            clock,
            mesh: OnceCell::new(),
            flush: Wake::default(),
            doors: RefCell::new(HashMap::new()),
            next_door: Cell::new(1),
            log_orders,
            tables,
            left,
        };
        (NodeCore(Rc::new(shared)), receiver)
    }

    /// Gives the engine an input. What it leaves to be done is done after the tasks that are ready.
    pub fn with<R>(&self, input: impl FnOnce(&mut Engine, Now) -> R) -> R {
        let mut engine = self.0.engine.borrow_mut();
        let result = input(&mut engine, self.0.clock.now());
        // Reads, and writes that no other copy needs, leave nothing behind.
        if engine.wants_flush() {
            self.0.flush.notify();
        }
        result
    }

    /// Looks at the engine without changing anything.
    pub fn look<R>(&self, look: impl FnOnce(&Engine, Now) -> R) -> R {
        look(&self.0.engine.borrow(), self.0.clock.now())
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.0.clock.now()
    }

    /// The clock.
    pub fn clock(&self) -> Clock {
        self.0.clock.clone()
    }

    /// Sets the mesh, once it is bound.
    pub fn set_mesh(&self, mesh: Mesh) {
        let _already_set = self.0.mesh.set(mesh);
    }

    /// The mesh; `None` before it is bound.
    pub fn mesh(&self) -> Option<&Mesh> {
        self.0.mesh.get()
    }

    /// Every table that comes into force.
    pub fn tables(&self) -> watch::Receiver<Arc<Table>> {
        self.0.tables.subscribe()
    }

    /// Turns true when the node has handed everything over and left.
    pub fn left(&self) -> watch::Receiver<bool> {
        self.0.left.subscribe()
    }

    /// Opens a door: its number is [`Ticket::door`](crate::engine::op::Ticket::door).
    pub fn open_door(&self, door: impl FnOnce(u64) -> Rc<dyn Door>) -> u64 {
        let number = self.0.next_door.get();
        self.0.next_door.set(number + 1);
        self.0.doors.borrow_mut().insert(number, door(number));
        self.update_clients();
        number
    }

    /// Closes a door: replies that are still to come are dropped.
    pub fn close_door(&self, number: u64) {
        self.0.doors.borrow_mut().remove(&number);
        self.update_clients();
    }

    fn update_clients(&self) {
        let clients = self.0.doors.borrow().len() as u32;
        self.0.engine.borrow_mut().set_clients(clients);
    }

    /// Flushes whenever there was input.
    pub async fn run_flusher(self) {
        loop {
            self.0.flush.notified().await;
            self.flush();
        }
    }

    /// Ticks at the engine's pace.
    pub async fn run_ticker(self) {
        const RETURN_PERIOD_US: u64 = 1_000_000;
        let mut returned_us = 0;
        loop {
            let (wake_us, now_us) = self.look(|engine, now| (engine.next_wake_us(), now.mono_us));
            let wait_us = wake_us.saturating_sub(now_us);
            tokio::time::sleep(std::time::Duration::from_micros(wait_us.max(1_000))).await;
            self.with(|engine, now| engine.tick(now));
            // Heartbeats are due by time, not by input.
            self.flush();
            if now_us >= returned_us + RETURN_PERIOD_US {
                returned_us = now_us;
                process::return_freed_memory();
            }
        }
    }

    /// Sends what is to be sent, answers what is answered.
    fn flush(&self) {
        let mut outputs = Vec::new();
        {
            let mut engine = self.0.engine.borrow_mut();
            engine.flush(self.0.clock.now());
            while let Some(output) = engine.poll() {
                outputs.push(output);
            }
        }
        for output in outputs {
            self.act(output);
        }
    }

    fn act(&self, output: Output) {
        match output {
            Output::Complete(ticket, reply) => {
                let door = self.0.doors.borrow().get(&ticket.door).cloned();
                if let Some(door) = door {
                    door.complete(ticket.number, reply);
                }
            }
            Output::Send(peer, class, frame) => {
                if let Some(mesh) = self.mesh() {
                    // A frame that finds no link or a full queue is lost; the engine sends again.
                    mesh.send(peer, class, frame);
                }
            }
            Output::Datagram(peer, _addr, bytes) => {
                if let Some(mesh) = self.mesh() {
                    mesh.send_datagram(peer, bytes);
                }
            }
            Output::Maintain(peer, addr) => {
                if let Some(mesh) = self.mesh() {
                    mesh.maintain(peer, addr);
                }
            }
            Output::Forget(peer) => {
                if let Some(mesh) = self.mesh() {
                    mesh.forget(peer);
                }
            }
            Output::Propose(entry) => self.order(LogOrder::Propose(entry)),
            Output::Voters(voters) => self.order(LogOrder::Voters(voters)),
            Output::Form(table) => self.order(LogOrder::Form(table)),
            Output::Rejoined => self.order(LogOrder::Abandon),
            Output::TableChanged => {
                let table = self.look(|engine, _| engine.table().clone());
                if let Some(mesh) = self.mesh() {
                    mesh.set_incarnation(table.incarnation);
                }
                self.0.tables.send_replace(table);
            }
            Output::Left => {
                self.0.left.send_replace(true);
            }
        }
    }

    fn order(&self, order: LogOrder) {
        // The receiver ends with the node only.
        let _ = self.0.log_orders.send(order);
    }
}
