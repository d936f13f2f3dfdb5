//! What a run is like, as its seed decides before anything happens.

use super::agreed_log::LogConfig;
use super::clock::Clock;
use super::cluster::Seat;
use super::network::NetworkConfig;
use super::random::Random;
use super::workload::WorkloadConfig;
use crate::engine::config::EngineConfig;
use crate::engine::store::Eviction;
use crate::engine::table::{ClusterSettings, Survival};

/// How far the machines' clocks are from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// Started at any time, and right.
    Right,
    /// Boot-time clocks run as differently as leases allow for; wall clocks are a little off.
    Skewed,
    /// Wall clocks are minutes off, and are stepped while nodes run.
    Jumping,
}

/// The boot-time clocks of two machines differ by no more than twice this: what
/// `PeerConfig::lease_margin_us` makes up for.
const RATE_PPM_MAX: u64 = 15_000;
/// How far wall clocks are off where they jump.
pub(super) const JUMP_MS_MAX: u64 = 60_000;
const SKEW_MS_MAX: u64 = 200;

impl Clocks {
    /// The clocks of one machine.
    pub fn draw(self, random: &mut Random) -> Clock {
        let boot_us = random.below(1 << 40);
        let around = |random: &mut Random, most: u64| random.below(2 * most + 1) as i64 - most as i64;
        match self {
            Clocks::Right => Clock { boot_us, ..Clock::TRUE },
            Clocks::Skewed => Clock {
                boot_us,
                rate_ppm: around(random, RATE_PPM_MAX),
                wall_ahead_ms: around(random, SKEW_MS_MAX),
            },
            Clocks::Jumping => Clock { boot_us, rate_ppm: 0, wall_ahead_ms: around(random, JUMP_MS_MAX) },
        }
    }

    /// How far two wall clocks may be apart, in milliseconds.
    pub fn spread_ms(self) -> u64 {
        match self {
            Clocks::Right => 0,
            Clocks::Skewed => 2 * SKEW_MS_MAX,
            Clocks::Jumping => 2 * JUMP_MS_MAX,
        }
    }
}

/// What kind of trouble a run is about, and with it what clients may hold the cluster to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Within what is promised to be survived: everything acknowledged is there, everything is served.
    Survivable,
    /// Nodes die before copies are full again: what was acknowledged is there, or its partition is dead
    /// for everybody to see.
    Losses,
    /// At most two members at a time, split and joined again: what is lost is what one side alone
    /// acknowledged, and it says so.
    Pair,
}

impl Course {
    fn draw(random: &mut Random) -> Course {
        match random.below(20) {
            0..4 => Course::Losses,
            4..7 => Course::Pair,
            _ => Course::Survivable,
        }
    }
}

/// What a run is like.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What kind of trouble it is about.
    pub course: Course,
    /// Nodes at the start.
    pub nodes: usize,
    /// The first so many of those that join have no data: they are witnesses.
    pub witnesses: usize,
    /// What is fixed when the cluster forms.
    pub settings: ClusterSettings,
    /// The network while things go wrong.
    pub network: NetworkConfig,
    /// The agreed log while things go wrong.
    pub log: LogConfig,
    /// The machines' clocks.
    pub clocks: Clocks,
    /// The engines' bounds.
    pub engine: EngineConfig,
    /// The clients.
    pub workload: WorkloadConfig,
}

impl Terms {
    /// Decides.
    pub fn draw(random: &mut Random) -> Terms {
        let course = Course::draw(random);
        let nodes = match (course, random.below(20)) {
            (Course::Pair, _) => 2,
            (Course::Losses, _) => random.between(4, 6) as usize,
            (Course::Survivable, 0) => 1,
            (Course::Survivable, 1 | 2) => 2,
            (Course::Survivable, _) => random.between(3, 6) as usize,
        };
        let network = NetworkConfig {
            delay_us_min: random.between(30, 300),
            delay_us_max: [500, 1_000, 5_000, 60_000][random.below(4) as usize],
            loss_per_million: [0, 0, 1_000, 10_000, 50_000][random.below(5) as usize],
            duplicate_per_million: [0, 0, 1_000, 20_000][random.below(4) as usize],
            reorder: random.per_million(500_000),
        };
        let log = LogConfig {
            slow_us_max: [0, 0, 300_000, 1_500_000][random.below(4) as usize],
            duplicate_per_million: [0, 20_000][random.below(2) as usize],
            unavailable_until_us: 0,
        };
        let settings = ClusterSettings {
            partitions: [4, 8, 16][random.below(3) as usize],
            replicas: if random.per_million(300_000) { 3 } else { 2 },
            min_copies: 2,
            survival: Survival::Auto,
        };
        let clocks =
            [Clocks::Right, Clocks::Right, Clocks::Skewed, Clocks::Jumping][random.below(4) as usize];
        // Memory runs out in some runs: what has a time to live goes first, or writes are refused.
        let scarce = random.per_million(200_000);
        let eviction = match (scarce, random.below(5)) {
            (true, 0) => Eviction::AllKeysLru,
            (true, 1 | 2) => Eviction::VolatileTtl,
            _ => Eviction::NoEviction,
        };
        // Copying takes its time where nodes die before it is done.
        let lossy = course == Course::Losses;
        let snapshot_bytes_per_s = if lossy { [0, 5_000, 20_000][random.below(3) as usize] } else { 0 };
        let engine = EngineConfig {
            bytes_max: if scarce { 128 << 10 } else { 0 },
            eviction,
            // Small chunks and frequent comparisons, so that a short run sees many of them.
            chunk_bytes: 512,
            snapshot_window_bytes: if lossy { 1_024 } else { 8_192 },
            snapshot_bytes_per_s,
            digest_period_us: 3_000_000,
            ..EngineConfig::default()
        };
        let workload = WorkloadConfig {
            clients: 5,
            think_us_max: [20_000, 60_000, 100_000][random.below(3) as usize],
            value_bytes: if scarce || lossy { 200 } else { 0 },
            clock_spread_ms: clocks.spread_ms(),
            evicts: eviction != Eviction::NoEviction,
            evicts_all: eviction == Eviction::AllKeysLru,
            splits: course == Course::Pair,
        };
        let witnesses = usize::from(nodes >= 3 && random.per_million(100_000));
        Terms { course, nodes, witnesses, settings, network, log, clocks, engine, workload }
    }

    /// The seat of the next machine.
    pub fn seat(&self, random: &mut Random, machine: u16) -> Seat {
        let is_witness = (1..=self.witnesses).contains(&usize::from(machine));
        Seat { machine, weight: if is_witness { 0 } else { 100 }, clock: self.clocks.draw(random) }
    }
}
