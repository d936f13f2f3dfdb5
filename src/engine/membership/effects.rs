//! What foca wishes to happen: collected during a call, carried out after it.

use super::identity::GossipId;
use super::wire;
use crate::engine::ids::Incarnation;
use bytes::Bytes;
use foca::{Notification, Timer};
use std::time::Duration;

/// What foca asked for during one call.
pub(super) enum Effect {
    /// Send a datagram.
    Send(GossipId, Bytes),
    /// Fire a timer later.
    Schedule(Timer<GossipId>, Duration),
    /// Whether there is a live member to talk to.
    Connected(bool),
    /// We were declared down and took the next generation.
    Renewed,
}

/// Collects foca's wishes, to be carried out in order once the call is over.
pub(super) struct Effects {
    wishes: Vec<Effect>,
    incarnation: Incarnation,
}

impl Effects {
    /// For one call; datagrams carry `incarnation`.
    pub(super) fn new(incarnation: Incarnation) -> Effects {
        Effects { wishes: Vec::new(), incarnation }
    }

    /// The wishes, in foca's order.
    pub(super) fn wishes(self) -> Vec<Effect> {
        self.wishes
    }
}

impl foca::Runtime<GossipId> for Effects {
    fn notify(&mut self, notification: Notification<'_, GossipId>) {
        match notification {
            Notification::Active => self.wishes.push(Effect::Connected(true)),
            Notification::Idle | Notification::Defunct => {
                self.wishes.push(Effect::Connected(false));
            }
            Notification::Rejoin(_) => self.wishes.push(Effect::Renewed),
            // The roster finds these by comparing, so that what is reported always adds up.
            Notification::MemberUp(_) | Notification::MemberDown(_) | Notification::Rename(_, _) => {}
        }
    }

    fn send_to(&mut self, to: GossipId, data: &[u8]) {
        self.wishes.push(Effect::Send(to, wire::encode_swim(self.incarnation, data)));
    }

    fn submit_after(&mut self, event: Timer<GossipId>, after: Duration) {
        self.wishes.push(Effect::Schedule(event, after));
    }
}
