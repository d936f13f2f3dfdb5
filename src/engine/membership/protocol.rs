//! [`Membership`]: foca, its timers and the guards around it.

use super::config::MembershipConfig;
use super::counters::MembershipCounters;
use super::effects::{Effect, Effects};
use super::health::LocalHealth;
use super::identity::GossipId;
use super::roster::{Change, MemberState, MemberView, Roster};
use super::suspicion::{Senses, Suspicion, Verdict};
use super::timers::Timers;
use super::wire::{self, Body, Datagram};
use crate::engine::ids::{Incarnation, NodeId};
use crate::engine::time::Now;
use bytes::Bytes;
use foca::{Foca, Identity, Member, Message, PostcardCodec, State, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// The most seeds knocked at in turn.
const SEEDS_MAX: usize = 16;
/// How many nodes a lonely node knocks at a time.
const KNOCK_FANOUT: usize = 3;
/// How often our leaving is told.
const LEAVE_ROUNDS: u8 = 5;

/// Something that should happen outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipOutput {
    /// Send a datagram, unreliably. To be dropped if it can't go at once.
    Send {
        /// The node; the address may have been taken over by another one.
        to: NodeId,
        /// Where it accepts QUIC connections.
        addr: SocketAddr,
        /// At most [`DATAGRAM_BYTES_MAX`](super::DATAGRAM_BYTES_MAX) bytes.
        bytes: Bytes,
    },
    /// A member has joined, or turned out to be alive after all.
    Up(NodeId, SocketAddr),
    /// A member gets no answers through; it may still refute that.
    Suspect(NodeId),
    /// A member has left, or is taken for dead.
    Down(NodeId),
}

#[derive(Debug)]
enum Due {
    Foca(Timer<GossipId>),
    /// Exchange the whole state with a random member (g4).
    PushPull,
    /// Announce ourselves if nobody talks to us.
    Knock,
    /// Tell once more that we leave.
    Leave {
        rounds_left: u8,
    },
}

/// Where the incarnation of the cluster that we use comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownIncarnation {
    /// Nobody has told us. Sent as 0.
    Unknown,
    /// The first one that a datagram addressed to us carried. Keeps a joining node from
    /// mixing two clusters until it is told which one it belongs to.
    Overheard(Incarnation),
    /// Set by [`Membership::set_incarnation`].
    Told(Incarnation),
}

impl KnownIncarnation {
    fn get(self) -> Incarnation {
        match self {
            KnownIncarnation::Unknown => Incarnation(0),
            KnownIncarnation::Overheard(known) | KnownIncarnation::Told(known) => known,
        }
    }
}

/// The membership part of one node.
///
/// Call order: after each call of `join`, `datagram`, `tick`, `leave` or `set_incarnation`, drain
/// [`poll`](Self::poll); then see [`next_wake`](Self::next_wake). After a pause of the process,
/// hand over waiting datagrams before calling [`tick`](Self::tick): they may refute what the
/// timers suspect.
pub struct Membership {
    foca: Foca<GossipId, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
    config: MembershipConfig,
    seed: u64,
    random: StdRng,
    incarnation: KnownIncarnation,
    seeds: Vec<GossipId>,
    timers: Timers<Due>,
    roster: Roster,
    suspicions: BTreeMap<NodeId, Suspicion>,
    links_heard_us: BTreeMap<NodeId, u64>,
    health: LocalHealth,
    /// Our incarnation within the generation, as far as others have made us raise it.
    refuted_up_to: foca::Incarnation,
    heard_us: u64,
    hearing_since_us: u64,
    connected: bool,
    left: bool,
    outputs: VecDeque<MembershipOutput>,
    counters: MembershipCounters,
}

impl Membership {
    /// A node that knows nobody yet. `quic` is the address that others reach it at; `seed` decides
    /// everything that is left to chance.
    pub fn new(me: NodeId, quic: SocketAddr, config: MembershipConfig, seed: u64) -> Membership {
        let identity = GossipId { node: me, generation: 0, quic };
        let mut membership = Membership {
            foca: fresh_foca(identity, &config, seed),
            random: StdRng::seed_from_u64(seed ^ me.0),
            config,
            seed,
            incarnation: KnownIncarnation::Unknown,
            seeds: Vec::new(),
            timers: Timers::default(),
            roster: Roster::default(),
            suspicions: BTreeMap::new(),
            links_heard_us: BTreeMap::new(),
            health: LocalHealth::default(),
            refuted_up_to: 0,
            heard_us: 0,
            hearing_since_us: 0,
            connected: false,
            left: false,
            outputs: VecDeque::new(),
            counters: MembershipCounters::default(),
        };
        membership.timers.submit(0, Due::PushPull);
        membership.timers.submit(0, Due::Knock);
        membership
    }

    /// Our own identity.
    pub fn identity(&self) -> GossipId {
        *self.foca.identity()
    }

    /// Joins the cluster that `seed` belongs to. Only its node and address matter. Knocks again
    /// until somebody answers, and again whenever nobody is left to talk to. Of more than 16
    /// seeds the oldest is forgotten.
    pub fn join(&mut self, now: Now, seed: GossipId) {
        if self.left || seed.node == self.identity().node {
            return;
        }
        self.seeds.retain(|known| known.node != seed.node);
        if self.seeds.len() == SEEDS_MAX {
            self.seeds.remove(0);
        }
        self.seeds.push(seed);
        self.foca_call(now, |foca, effects| foca.announce(seed, effects));
    }

    /// Takes in a datagram that came over the authenticated link from `from`. Whatever is wrong
    /// with it is counted, never fatal.
    pub fn datagram(&mut self, now: Now, from: NodeId, bytes: &[u8]) {
        if self.left {
            self.counters.refused_left += 1;
            return;
        }
        let Some(datagram) = Datagram::decode(bytes) else {
            self.counters.refused_malformed += 1;
            return;
        };
        let me = self.identity();
        let (source, announce, to_me) = match &datagram.body {
            Body::Swim { header, .. } => {
                (header.src, header.message == Message::Announce, header.dst.node == me.node)
            }
            Body::Exchange { from, .. } => (*from, false, true),
        };
        if source.node != from || source.node == me.node {
            self.counters.refused_malformed += 1;
            return;
        }
        if !self.admit_incarnation(datagram.incarnation, announce, to_me) {
            self.counters.refused_incarnation += 1;
            return;
        }
        let news = match &datagram.body {
            Body::Swim { updates, .. } => updates,
            Body::Exchange { members, .. } => members,
        };
        if !self.admit_news(now, source, news) {
            return;
        }
        // As with gossip, a state is only taken from members that are not down.
        let known = self.roster.get(source.node);
        let member = known.is_some_and(|entry| entry.is_active() && entry.id == source);
        if matches!(datagram.body, Body::Exchange { .. }) && !member {
            self.counters.refused_stranger += 1;
            return;
        }
        self.counters.datagrams_in += 1;
        self.hear(now);
        if self.wrongly_alone(source) {
            self.start_over(now);
            self.join(now, source);
        }
        match datagram.body {
            Body::Swim { bytes, .. } => {
                self.foca_call(now, |foca, effects| foca.handle_data(bytes, effects));
            }
            Body::Exchange { answer_wanted, members, .. } => {
                self.foca_call(now, |foca, effects| foca.apply_many(members.into_iter(), true, effects));
                if answer_wanted {
                    self.send_state(now, source, false);
                }
            }
        }
    }

    /// Notes that the QUIC link to `node` last carried something at `last_heard_us` (boot-time
    /// clock). A suspicion against a node with a live link is not carried out (g3).
    pub fn link_live(&mut self, node: NodeId, last_heard_us: u64) {
        if self.roster.get(node).is_some() {
            let heard_us = self.links_heard_us.entry(node).or_default();
            *heard_us = last_heard_us.max(*heard_us);
        }
    }

    /// Fires the timers that are due.
    pub fn tick(&mut self, now: Now) {
        while let Some((due_us, due)) = self.timers.pop_due(now.mono_us) {
            match due {
                Due::Foca(Timer::ChangeSuspectToDown { member_id, incarnation, token }) => {
                    let timer = Timer::ChangeSuspectToDown { member_id, incarnation, token };
                    self.suspicion_due(now, due_us, member_id, timer);
                }
                Due::Foca(timer) => {
                    let probe = matches!(timer, Timer::ProbeRandomMember(_));
                    let open = self.suspicions.len();
                    self.foca_call(now, |foca, effects| foca.handle_timer(timer, effects));
                    if probe && self.suspicions.len() <= open {
                        self.health.probe_answered();
                    }
                }
                Due::PushPull => self.push_pull(now),
                Due::Knock => self.knock(now),
                Due::Leave { rounds_left } => {
                    self.foca_call(now, |foca, effects| foca.gossip(effects));
                    self.schedule_leave(now, rounds_left);
                }
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do next, on the boot-time clock. `None` once a
    /// leaving node has told everybody.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.next_due_us()
    }

    /// Leaves: tells the others that we are gone, for half a second. There is no way back; later
    /// datagrams are ignored.
    pub fn leave(&mut self, now: Now) {
        if self.left {
            return;
        }
        self.left = true;
        self.foca_call(now, |foca, effects| foca.leave_cluster(effects));
        self.timers.retain(|_| false);
        self.schedule_leave(now, LEAVE_ROUNDS);
    }

    /// Sets the incarnation of the cluster, told by somebody trusted (a link's hello, the table).
    /// From now on datagrams of other incarnations are refused. If what a joining node had heard
    /// so far came from another cluster, it is forgotten.
    pub fn set_incarnation(&mut self, now: Now, incarnation: Incarnation) {
        let before = self.incarnation;
        self.incarnation = KnownIncarnation::Told(incarnation);
        if matches!(before, KnownIncarnation::Overheard(heard) if heard != incarnation) {
            self.start_over(now);
        }
    }

    /// The incarnation sent with each datagram; 0 while it is unknown.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation.get()
    }

    /// The next thing that should happen outside.
    pub fn poll(&mut self) -> Option<MembershipOutput> {
        self.outputs.pop_front()
    }

    /// The members that are not down, ourselves not included, in order of their ids.
    pub fn members(&self) -> impl Iterator<Item = MemberView> {
        self.roster.active().map(|entry| MemberView {
            node: entry.id.node,
            quic: entry.id.quic,
            state: match entry.state {
                State::Suspect => MemberState::Suspect,
                State::Alive | State::Down => MemberState::Alive,
            },
        })
    }

    /// Whether a node is a member that is not down. We are, until we leave.
    pub fn is_alive(&self, node: NodeId) -> bool {
        if node == self.identity().node {
            return !self.left;
        }
        self.roster.get(node).is_some_and(|entry| entry.is_active())
    }

    /// What has happened so far.
    pub fn counters(&self) -> MembershipCounters {
        self.counters
    }

    /// Whether a datagram of this incarnation may be taken in. A node that doesn't know its own
    /// listens to the first one that speaks to it; one that does accepts only its own, and 0 from
    /// those who knock.
    fn admit_incarnation(&mut self, theirs: Incarnation, announce: bool, to_me: bool) -> bool {
        let unknown = Incarnation(0);
        if self.incarnation == KnownIncarnation::Unknown && theirs != unknown && to_me {
            self.incarnation = KnownIncarnation::Overheard(theirs);
        }
        let ours = self.incarnation.get();
        theirs == ours || ours == unknown || (theirs == unknown && announce)
    }

    /// Whether news may be taken in: no lies about ourselves, and not more members than may be
    /// known.
    fn admit_news(&mut self, now: Now, source: GossipId, news: &[Member<GossipId>]) -> bool {
        let me = self.identity();
        // Only we raise our generation, and we know where we are.
        let lie = |id: &GossipId| id.node == me.node && (id.generation > me.generation || id.quic != me.quic);
        if news.iter().any(|member| lie(member.id())) {
            self.counters.refused_malformed += 1;
            return false;
        }
        let ids = || news.iter().map(|member| member.id().node).chain([source.node]);
        let unknown = ids().filter(|&node| self.roster.get(node).is_none()).count();
        while self.roster.len() + unknown > self.config.members_max {
            let Some(dead) = self.roster.longest_down() else {
                self.counters.refused_full += 1;
                return false;
            };
            let known = self.roster.len();
            self.foca_call(now, |foca, effects| foca.handle_timer(Timer::RemoveDown(dead), effects));
            debug_assert!(self.roster.len() < known);
            if self.roster.len() >= known {
                return false;
            }
        }
        for member in news.iter().filter(|member| *member.id() == me) {
            if member.state() == State::Suspect && member.incarnation() >= self.refuted_up_to {
                self.refuted_up_to = member.incarnation().saturating_add(1);
                self.health.doubt();
            }
        }
        true
    }

    fn hear(&mut self, now: Now) {
        let gap_us = now.mono_us.saturating_sub(self.heard_us);
        if gap_us > self.config.deaf_after_ms.saturating_mul(1_000) {
            self.hearing_since_us = now.mono_us;
        }
        self.heard_us = self.heard_us.max(now.mono_us);
    }

    /// Whether we have declared everybody down and now hear one of them speak: then it was us who
    /// had been cut off, and what we believe of the others is worth nothing.
    fn wrongly_alone(&self, source: GossipId) -> bool {
        self.roster.active().next().is_none()
            && self
                .roster
                .get(source.node)
                .is_some_and(|entry| entry.declared_by_us && entry.id.generation >= source.generation)
    }

    /// Forgets all members and comes back with the next generation, as the others will have
    /// declared this one down.
    fn start_over(&mut self, now: Now) {
        let Some(identity) = self.identity().renew() else {
            return;
        };
        self.counters.renewals += 1;
        self.foca = fresh_foca(identity, &self.config, self.seed);
        self.refuted_up_to = 0;
        self.connected = false;
        self.suspicions.clear();
        self.timers.retain(|due| !matches!(due, Due::Foca(_)));
        self.look(now);
    }

    fn suspicion_due(&mut self, now: Now, due_us: u64, suspect: GossipId, timer: Timer<GossipId>) {
        let Some(suspicion) = self.suspicions.get(&suspect.node).copied() else {
            self.counters.dropped_refuted += 1;
            return;
        };
        let senses = Senses {
            now_us: now.mono_us,
            due_us,
            heard_us: self.heard_us,
            hearing_since_us: self.hearing_since_us,
            link_heard_us: self.links_heard_us.get(&suspect.node).copied(),
            suspect_us: self.config.suspect_us(self.foca.num_members() + 1),
            active: self.foca.num_members(),
        };
        let entry = self.roster.get(suspect.node);
        let again_us = match suspicion.judge(&self.config, entry, senses) {
            Verdict::Declare => {
                self.suspicions.remove(&suspect.node);
                self.foca_call(now, |foca, effects| foca.handle_timer(timer, effects));
                if let Some(entry) = self.roster.get_mut(suspect.node)
                    && !entry.is_active()
                {
                    entry.declared_by_us = true;
                }
                return;
            }
            Verdict::Refuted => {
                self.suspicions.remove(&suspect.node);
                self.counters.dropped_refuted += 1;
                return;
            }
            Verdict::Deaf { again_us } => {
                self.health.doubt();
                self.counters.postponed_deaf += 1;
                again_us
            }
            Verdict::Linked { again_us } => {
                self.counters.postponed_link += 1;
                again_us
            }
        };
        self.timers.submit(now.mono_us.saturating_add(again_us), Due::Foca(timer));
    }

    /// Sends our whole state to a random member and asks for its (g4).
    fn push_pull(&mut self, now: Now) {
        let after_us = self.config.push_pull_period_ms.max(1).saturating_mul(1_000);
        self.timers.submit(now.mono_us.saturating_add(after_us), Due::PushPull);
        if let Some(member) = self.roster.active().map(|entry| entry.id).choose(&mut self.random) {
            self.send_state(now, member, true);
        }
    }

    fn send_state(&mut self, now: Now, to: GossipId, answer_wanted: bool) {
        let me = self.identity();
        let down_us = self.config.push_pull_down_ms.saturating_mul(1_000);
        let members: Vec<_> = self
            .roster
            .iter()
            .filter(|entry| entry.is_active() || now.mono_us.saturating_sub(entry.down_since_us) < down_us)
            .map(|entry| Member::new(entry.id, entry.incarnation, entry.state))
            .collect();
        let incarnation = self.incarnation.get();
        for bytes in wire::encode_exchange(incarnation, me, answer_wanted, members.iter()) {
            self.send(to, bytes);
        }
    }

    /// While nobody talks to us: announces us to seeds and to whoever was a member once.
    fn knock(&mut self, now: Now) {
        let mut after_ms = self.config.join_period_ms;
        if !self.connected {
            let doors = self.seeds.iter().copied();
            let doors = doors.chain(self.roster.active().map(|entry| entry.id));
            let mut chosen = doors.sample(&mut self.random, KNOCK_FANOUT);
            if chosen.is_empty() {
                after_ms = self.config.announce_down_period_ms;
                let dead = self.roster.down().map(|entry| entry.id);
                chosen = dead.sample(&mut self.random, KNOCK_FANOUT);
            }
            for door in chosen {
                self.foca_call(now, |foca, effects| foca.announce(door, effects));
            }
        }
        let after_us = after_ms.max(1).saturating_mul(1_000);
        self.timers.submit(now.mono_us.saturating_add(after_us), Due::Knock);
    }

    fn schedule_leave(&mut self, now: Now, rounds: u8) {
        if let Some(rounds_left) = rounds.checked_sub(1) {
            let after_us = self.config.gossip_period_ms.max(1).saturating_mul(1_000);
            self.timers.submit(now.mono_us.saturating_add(after_us), Due::Leave { rounds_left });
        }
    }

    /// Calls foca and carries out what it wishes: timers, then reports, then sends.
    fn foca_call(
        &mut self,
        now: Now,
        call: impl FnOnce(
            &mut Foca<GossipId, PostcardCodec, StdRng, foca::NoCustomBroadcast>,
            &mut Effects,
        ) -> Result<(), foca::Error>,
    ) {
        let mut effects = Effects::new(self.incarnation.get());
        if call(&mut self.foca, &mut effects).is_err() {
            self.counters.protocol_errors += 1;
        }
        let mut sends = Vec::new();
        for wish in effects.wishes() {
            match wish {
                Effect::Send(to, bytes) => sends.push((to, bytes)),
                Effect::Schedule(timer, after) => self.schedule(now, timer, after),
                Effect::Connected(connected) => {
                    self.connected = connected;
                    if !connected {
                        self.drop_suspicions();
                    }
                }
                Effect::Renewed => {
                    self.counters.renewals += 1;
                    self.refuted_up_to = 0;
                    self.connected = false;
                    self.drop_suspicions();
                }
            }
        }
        self.look(now);
        for (to, bytes) in sends {
            self.send(to, bytes);
        }
    }

    /// foca ignores the timers from before it lost contact; a suspicion must not wait for one.
    fn drop_suspicions(&mut self) {
        self.suspicions.clear();
        self.timers.retain(|due| !matches!(due, Due::Foca(Timer::ChangeSuspectToDown { .. })));
    }

    /// Keeps a timer of foca's, stretched by our health (g5). Of one suspicion only the first.
    fn schedule(&mut self, now: Now, timer: Timer<GossipId>, after: Duration) {
        let mut after_us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        match &timer {
            Timer::ChangeSuspectToDown { member_id, incarnation, .. } => {
                let members = self.foca.num_members() + 1;
                after_us = self.health.stretch_us(self.config.suspect_us(members));
                let suspicion = Suspicion {
                    generation: member_id.generation,
                    incarnation: *incarnation,
                    first_due_us: now.mono_us.saturating_add(after_us),
                };
                let same = |open: &Suspicion| {
                    (open.generation, open.incarnation) == (suspicion.generation, *incarnation)
                };
                if self.suspicions.get(&member_id.node).is_some_and(same) {
                    return;
                }
                self.suspicions.insert(member_id.node, suspicion);
            }
            // Stretched alike, so that the indirect probe stays within its period.
            Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } => {
                after_us = self.health.stretch_us(after_us);
            }
            Timer::PeriodicAnnounce(_)
            | Timer::PeriodicAnnounceDown(_)
            | Timer::PeriodicGossip(_)
            | Timer::RemoveDown(_) => {}
        }
        self.timers.submit(now.mono_us.saturating_add(after_us), Due::Foca(timer));
    }

    /// Reports what has changed among the members.
    fn look(&mut self, now: Now) {
        let Membership { foca, roster, outputs, counters, .. } = self;
        let mut settled = false;
        let me = foca.identity().node;
        roster.look(me, now.mono_us, foca.iter_membership_state(), |change| match change {
            Change::Up(node, quic) => outputs.push_back(MembershipOutput::Up(node, quic)),
            Change::Suspect(node) => {
                counters.suspicions += 1;
                outputs.push_back(MembershipOutput::Suspect(node));
            }
            Change::Refuted(_) => {
                counters.refuted += 1;
                settled = true;
            }
            Change::Down(node) => {
                counters.downs += 1;
                settled = true;
                outputs.push_back(MembershipOutput::Down(node));
            }
        });
        if settled {
            self.settle_suspicions();
        }
    }

    /// Forgets suspicions that no longer stand. One that we raised and that was refuted says
    /// something about our own senses.
    fn settle_suspicions(&mut self) {
        let Membership { roster, suspicions, links_heard_us, health, .. } = self;
        suspicions.retain(|&node, suspicion| {
            let entry = roster.get(node);
            let stands = suspicion.still_holds(entry);
            if !stands && entry.is_some_and(|entry| entry.is_active()) {
                health.doubt();
            }
            stands
        });
        links_heard_us.retain(|&node, _| roster.get(node).is_some_and(|entry| entry.is_active()));
    }

    /// Hands out a datagram to somebody we know, at the address we know: a message of others must
    /// not make us send anywhere else.
    fn send(&mut self, to: GossipId, bytes: Bytes) {
        let node = to.node;
        let known = self.roster.get(node).map(|entry| entry.id.quic);
        let seed = || self.seeds.iter().find(|seed| seed.node == node).map(|seed| seed.quic);
        match known.or_else(seed) {
            Some(addr) => {
                self.counters.datagrams_out += 1;
                self.outputs.push_back(MembershipOutput::Send { to: node, addr, bytes });
            }
            // Our own earlier generations are members like others to foca.
            None if node == self.identity().node => {}
            None => self.counters.unknown_targets += 1,
        }
    }
}

fn fresh_foca(
    identity: GossipId,
    config: &MembershipConfig,
    seed: u64,
) -> Foca<GossipId, PostcardCodec, StdRng, foca::NoCustomBroadcast> {
    let seed = seed ^ identity.node.0.rotate_left(32) ^ u64::from(identity.generation);
    Foca::new(identity, config.foca(), StdRng::seed_from_u64(seed), PostcardCodec)
}
