//! Eviction: making room when the memory budget is spent.

use super::entry::KeyRef;
use super::index::Place;
use super::keyspace::{Keyspace, mix};
use crate::engine::ids::MapId;
use std::fmt;
use std::str::FromStr;

/// Entries compared for each one that is evicted.
const SAMPLES: u64 = 16;

/// Which entries go when the memory budget is spent. The names are Redis's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// None: writes that need memory are refused (`OOM`).
    #[default]
    NoEviction,
    /// The least recently used of a sample.
    AllKeysLru,
    /// Among those with an expiry the one that expires next.
    VolatileTtl,
}

impl fmt::Display for Eviction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Eviction::NoEviction => "noeviction",
            Eviction::AllKeysLru => "allkeys-lru",
            Eviction::VolatileTtl => "volatile-ttl",
        })
    }
}

/// The name is not that of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an eviction policy: use noeviction, allkeys-lru or volatile-ttl")]
pub struct UnknownEviction;

impl FromStr for Eviction {
    type Err = UnknownEviction;

    fn from_str(name: &str) -> Result<Eviction, UnknownEviction> {
        match name {
            "noeviction" => Ok(Eviction::NoEviction),
            "allkeys-lru" => Ok(Eviction::AllKeysLru),
            "volatile-ttl" => Ok(Eviction::VolatileTtl),
            _ => Err(UnknownEviction),
        }
    }
}

impl Keyspace<'_> {
    /// Frees memory until [`Arena::bytes_used`](super::Arena::bytes_used) is `bytes_goal` lower or
    /// the policy finds nothing more here, and returns by how much it fell. Every entry that goes
    /// has its delete record.
    ///
    /// One call takes at most a sixteenth of the entries (and may always take 16): a shortage of
    /// the node is to be spread over its partitions, not to empty the first one.
    ///
    /// Named maps over their own budget are trimmed first, whatever the policy: a goal of zero
    /// does only that.
    pub fn evict(&mut self, policy: Eviction, bytes_goal: u64) -> u64 {
        let before = self.arena.bytes_used();
        self.trim_maps();
        let rounds_max = (self.shard.len() / 16).max(16) as u64;
        let mut round = 0;
        while round < rounds_max && before.saturating_sub(self.arena.bytes_used()) < bytes_goal {
            if self.shard.has_trash() {
                self.shard.tidy(self.arena, 64);
                continue;
            }
            round += 1;
            let victim = match policy {
                Eviction::NoEviction => None,
                Eviction::AllKeysLru => self.least_recent(mix(self.context.entropy, round), None),
                Eviction::VolatileTtl => self.shard.index_mut().nearest_due(),
            };
            let Some(victim) = victim else { break };
            self.remove_victim(victim);
        }
        before.saturating_sub(self.arena.bytes_used())
    }

    /// Evicts from named maps that take more than their budget on this node, a bounded number of
    /// entries at a time.
    fn trim_maps(&mut self) {
        const VICTIMS_MAX: u64 = 64;
        let over_budget = |map: &MapId| {
            let bytes_max = self.context.map_defaults(*map).bytes_max;
            bytes_max > 0 && self.arena.map_bytes(*map) > bytes_max
        };
        let maps: Vec<MapId> = self.shard.named_maps().filter(over_budget).collect();
        for map in maps {
            let bytes_max = self.context.map_defaults(map).bytes_max;
            for round in 0..VICTIMS_MAX {
                if self.arena.map_bytes(map) <= bytes_max {
                    break;
                }
                let entropy = mix(self.context.entropy ^ u64::from(map.0), round);
                let Some(victim) = self.least_recent(entropy, Some(map)) else { break };
                self.remove_victim(victim);
            }
        }
    }

    /// The least recently used of a random sample, of one map if it is named.
    fn least_recent(&self, entropy: u64, map: Option<MapId>) -> Option<Place> {
        // A map may be a small part of the shard: more draws to find its entries, within reason.
        let draws = if map.is_some() { SAMPLES * 16 } else { SAMPLES };
        let mut sampled = 0;
        let mut best = None;
        for draw in 0..draws {
            let place = self.shard.index().random(mix(entropy, draw))?;
            let view = self.arena.view(self.shard.id(place));
            if map.is_some_and(|map| map != view.map) {
                continue;
            }
            let rank = if self.is_gone(view.map, view.expire_at_ms, view.accessed_s) {
                (0, 0)
            } else {
                (view.accessed_s.max(1), view.frequency)
            };
            if best.is_none_or(|(best_rank, _)| rank < best_rank) {
                best = Some((rank, place));
            }
            sampled += 1;
            if sampled == SAMPLES {
                break;
            }
        }
        best.map(|(_, place)| place)
    }

    fn remove_victim(&mut self, place: Place) {
        let view = self.arena.view(self.shard.id(place));
        let hash = KeyRef::new(view.map, view.key).hash;
        self.remove(place, hash);
    }
}
