//! What a seed decides before the run begins: the numbers of the cluster, and how rough its life becomes.
//!
//! Most seeds have a theme, which makes one side of life rougher: what needs two rare things at once would
//! hardly happen in runs that are a little of everything.

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{Config, NodeId};

use crate::random::Random;

/// Units of virtual time in one tick of a clock that is right.
pub(crate) const TICK: u64 = 1_000;

/// Which side of life is rough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Theme {
    /// Little happens.
    Calm,
    /// A little of everything.
    Mixed,
    /// Everything, often.
    Rough,
    /// The network.
    Network,
    /// Disks and crashes.
    Disks,
    /// Members come and go.
    Members,
    /// Snapshots are taken and sent.
    Snapshots,
    /// Reads, often by leases, and pauses.
    Reads,
    /// Leaderships are handed over.
    Transfers,
}

/// How the run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything heals.
    Whole,
    /// All but a minority of nodes, which stay down.
    Minority,
    /// The links of a minority of nodes stay cut, each direction by itself.
    Cuts,
}

/// How often, in 100,000 ticks of the right time, where nothing else is said.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) theme: Theme,
    pub(crate) ending: Ending,
    pub(crate) nodes: u64,
    pub(crate) drift: Option<u32>,
    pub(crate) rates: (u64, u64),
    /// Clocks go at the one end or at the other, leaders lose all their followers at once, and clients do not
    /// wait for them.
    pub(crate) hunts: bool,
    pub(crate) heartbeat: u32,
    pub(crate) timeout: (u32, u32),
    pub(crate) margin: u64,
    /// Entries that a leader's log keeps at most for followers that are heard.
    pub(crate) hold: u64,
    pub(crate) sizes: Sizes,

    /// Per 1,000 messages.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// Per 1,000 messages: one that takes up to ten times as long.
    pub(crate) straggler: u64,
    /// Units.
    pub(crate) delay: (u64, u64),
    /// Whether messages of one link keep their order.
    pub(crate) ordered: bool,

    /// For each node.
    pub(crate) crash: u64,
    /// Per 100,000 steps with several effects.
    pub(crate) crash_between: u64,
    pub(crate) pause: u64,
    pub(crate) stall: u64,
    pub(crate) fsync_failure: u64,
    pub(crate) full: u64,
    pub(crate) wipe: u64,
    /// For each node: its state machine's own disk is lost at its next crash, per 1,000 crashes.
    pub(crate) machine_loss: u64,
    pub(crate) reset: u64,

    pub(crate) cut: u64,
    pub(crate) partition: u64,
    pub(crate) heal: u64,

    pub(crate) change: u64,
    pub(crate) transfer: u64,
    pub(crate) snapshot: u64,
    pub(crate) campaign: u64,

    /// Units that a sync takes.
    pub(crate) sync: (u64, u64),
    /// Units that it takes to read the log.
    pub(crate) read: (u64, u64),
    /// Per 1,000 transfers.
    pub(crate) transfer_failure: u64,
    /// Per 1,000 nodes: the state machine has a disk of its own.
    pub(crate) own_disk: u64,

    pub(crate) clients: usize,
    /// Per 1,000 operations.
    pub(crate) reads: u64,
    /// Ticks between an answer and the next operation.
    pub(crate) think: u64,
    /// Commands without a session.
    pub(crate) bulk: u64,
    /// Per 1,000: a command has some hundred bytes.
    pub(crate) padded: u64,
}

/// The limits in [`Config`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) append_entries: usize,
    pub(crate) append_bytes: usize,
    pub(crate) inflight: usize,
    pub(crate) inflight_bytes: usize,
    pub(crate) uncommitted_bytes: usize,
    pub(crate) tail_bytes: usize,
    pub(crate) reads: usize,
}

impl Fate {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let theme = random.pick(&[
            Theme::Calm,
            Theme::Mixed,
            Theme::Mixed,
            Theme::Rough,
            Theme::Network,
            Theme::Network,
            Theme::Disks,
            Theme::Members,
            Theme::Members,
            Theme::Snapshots,
            Theme::Reads,
            Theme::Reads,
            Theme::Transfers,
        ]);
        let mut fate = Self::mixed(random, theme);
        match theme {
            Theme::Calm => fate.soften(8),
            Theme::Mixed => {}
            Theme::Rough => fate.roughen(),
            Theme::Network => fate.tangle(random),
            Theme::Disks => fate.wear_out(),
            Theme::Members => fate.reshuffle(random),
            Theme::Snapshots => fate.capture(random),
            Theme::Reads => fate.ask(random),
            Theme::Transfers => {
                fate.soften(2);
                fate.transfer = 4_000;
                // TimeoutNow may come when nobody expects it any more.
                fate.straggler = random.pick(&[5, 200]);
                fate.partition = random.pick(&[100, 1_500]);
                (fate.clients, fate.reads, fate.think) = (4, 500, 1);
                fate.change = 400;
                fate.crash = 100;
            }
        }
        fate
    }

    fn mixed(random: &mut Random, theme: Theme) -> Self {
        let leases = random.permille(match theme {
            Theme::Reads => 750,
            Theme::Transfers => 500,
            _ => 150,
        });
        let shortest = random.pick(&[8, 10, 12]);
        let spread = random.between(3, u64::from(shortest)) as u32;
        let drift =
            leases.then(|| random.pick(&[0, 0, 1, shortest / 4, shortest / 2, shortest / 2]));
        Self {
            theme,
            ending: random.pick(&[Ending::Whole, Ending::Whole, Ending::Minority, Ending::Cuts]),
            nodes: random.pick(&[1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 7]),
            drift,
            rates: Self::rates(random, drift, shortest),
            hunts: false,
            // Of the slowest leader, and still often enough for the fastest follower.
            heartbeat: random.between(1, u64::from(shortest) / 6) as u32,
            timeout: (shortest, shortest + spread),
            margin: random.pick(&[0, 3, 30, 10_000]),
            hold: random.pick(&[0, 0, 40, 1_000_000]),
            sizes: Sizes::draw(random),
            loss: random.pick(&[0, 0, 10, 50]),
            duplication: random.pick(&[0, 10, 50]),
            straggler: random.pick(&[0, 5, 30]),
            delay: random.pick(&[(50, 300), (100, 1_000), (300, 2_000)]),
            ordered: random.permille(400),
            crash: random.pick(&[0, 150, 400]),
            crash_between: random.pick(&[0, 150, 500]),
            pause: random.pick(&[0, 100]),
            stall: random.pick(&[0, 100]),
            fsync_failure: random.pick(&[0, 40]),
            full: random.pick(&[0, 40]),
            wipe: random.pick(&[0, 0, 30]),
            machine_loss: random.pick(&[0, 200]),
            reset: random.pick(&[0, 200]),
            cut: random.pick(&[0, 500]),
            partition: random.pick(&[0, 300]),
            heal: 3_000,
            change: random.pick(&[0, 1_000]),
            transfer: random.pick(&[0, 500]),
            snapshot: random.pick(&[500, 3_000]),
            campaign: random.pick(&[0, 100]),
            sync: random.pick(&[(50, 200), (50, 1_500), (500, 3_000)]),
            read: (50, 3_000),
            transfer_failure: random.pick(&[0, 200]),
            own_disk: random.pick(&[0, 500, 1_000]),
            clients: random.between(1, 4) as usize,
            reads: random.pick(&[100, 300]),
            think: random.pick(&[1, 4, 10]),
            bulk: random.pick(&[0, 5_000, 20_000]),
            padded: random.pick(&[0, 50, 300]),
        }
    }

    /// Ticks of the nodes' clocks in 1,000 of the right ones, the least and the most.
    ///
    /// With leases no two clocks drift apart by more than `drift` ticks while either of them counts the
    /// shortest election timeout: the slowest counts at least `shortest - drift` while the fastest counts
    /// `shortest`.
    fn rates(random: &mut Random, drift: Option<u32>, shortest: u32) -> (u64, u64) {
        let Some(drift) = drift else {
            return random.pick(&[(500, 2_000), (800, 1_250), (1_000, 1_000)]);
        };
        let slowest = random.pick(&[500, 800, 1_000]);
        let fastest = slowest * u64::from(shortest) / u64::from(shortest - drift);
        (slowest, fastest)
    }

    /// Nothing goes wrong any more, and all is quick.
    pub(crate) fn heal(&mut self) {
        self.loss = 0;
        self.duplication = 0;
        self.straggler = 0;
        self.delay = (50, 200);
        self.sync = (50, 200);
        self.read = (50, 200);
        self.crash_between = 0;
    }

    fn soften(&mut self, by: u64) {
        for what in [
            &mut self.loss,
            &mut self.crash,
            &mut self.crash_between,
            &mut self.pause,
            &mut self.stall,
            &mut self.fsync_failure,
            &mut self.full,
            &mut self.wipe,
            &mut self.cut,
            &mut self.partition,
        ] {
            *what /= by;
        }
    }

    fn roughen(&mut self) {
        self.crash = self.crash.max(400);
        self.crash_between = self.crash_between.max(500);
        self.pause = self.pause.max(200);
        self.stall = self.stall.max(200);
        self.cut = self.cut.max(1_000);
        self.partition = self.partition.max(500);
        self.loss = self.loss.max(50);
        self.change = self.change.max(1_000);
        self.reset = self.reset.max(200);
    }

    fn tangle(&mut self, random: &mut Random) {
        self.cut = random.pick(&[1_000, 3_000]);
        self.partition = random.pick(&[500, 1_500]);
        self.loss = random.pick(&[0, 50, 200]);
        self.duplication = random.pick(&[50, 200]);
        self.straggler = random.pick(&[10, 100]);
        self.reset = random.pick(&[200, 1_000]);
    }

    fn wear_out(&mut self) {
        self.crash = 500;
        self.crash_between = 1_000;
        self.stall = 400;
        self.fsync_failure = 150;
        self.full = 150;
        self.wipe = self.wipe.max(40);
        self.machine_loss = 300;
    }

    fn reshuffle(&mut self, random: &mut Random) {
        self.change = random.pick(&[3_000, 8_000]);
        self.wipe = self.wipe.max(30);
        self.partition = random.pick(&[100, 800]);
        self.crash = random.pick(&[100, 400]);
        self.nodes = random.pick(&[1, 2, 3, 4, 5]);
    }

    fn capture(&mut self, random: &mut Random) {
        self.snapshot = random.pick(&[5_000, 15_000]);
        self.margin = random.pick(&[0, 2, 10]);
        self.crash = random.pick(&[200, 600]);
        self.partition = random.pick(&[300, 1_000]);
        self.bulk = random.pick(&[10_000, 40_000]);
        self.sizes.tail_bytes = random.pick(&[0, 200]);
        self.transfer_failure = random.pick(&[100, 400]);
    }

    fn ask(&mut self, random: &mut Random) {
        self.clients = 4;
        self.reads = 800;
        self.think = 1;
        self.pause = random.pick(&[200, 800]);
        self.transfer = random.pick(&[0, 800]);
        self.partition = random.pick(&[200, 800]);
        if random.permille(650) {
            self.hunt(random);
        }
    }

    /// All is quick, and leaders lose their followers again and again: the next one may be elected, and may
    /// have committed something, at the earliest moment that the rules of leases allow.
    fn hunt(&mut self, random: &mut Random) {
        self.hunts = true;
        // Left alone, the fastest clock leads; the lease of the slowest is the longest.
        self.transfer = 6_000;
        self.clients = 6;
        self.delay = (10, 120);
        self.sync = (10, 80);
        // Not less: two candidates that need each other must not fall into step for ever.
        self.timeout.1 = self.timeout.0 + 4;
        self.heartbeat = 1;
        (self.loss, self.straggler) = (0, 0);
        self.heal = 8_000;
        self.partition = 3_000;
        match random.below(3) {
            // Whoever has promised to wait comes back without its memory.
            0 => (self.cut, self.crash) = (6_000, 2_500),
            // Another majority decides.
            1 => self.change = 6_000,
            _ => {}
        }
    }

    /// The settings of one node.
    pub(crate) fn config(&self, id: NodeId, initial: Configuration, seed: u64) -> Config {
        let mut config = Config::new(id, []);
        config.initial = initial;
        config.heartbeat_ticks = self.heartbeat;
        (
            config.election_timeout_ticks_min,
            config.election_timeout_ticks_max,
        ) = self.timeout;
        config.append_entries_max = self.sizes.append_entries;
        config.append_bytes_max = self.sizes.append_bytes;
        config.inflight_max = self.sizes.inflight;
        config.inflight_bytes_max = self.sizes.inflight_bytes;
        config.uncommitted_bytes_max = self.sizes.uncommitted_bytes;
        config.tail_bytes_max = self.sizes.tail_bytes;
        config.reads_max = self.sizes.reads;
        config.compaction_margin_entries = self.margin;
        config.compaction_hold_entries_max = self.hold;
        config.lease_drift_ticks = self.drift;
        config.birth = Some(Bytes::from_static(b"birth"));
        config.seed = seed;
        config
    }
}

impl Sizes {
    fn draw(random: &mut Random) -> Self {
        Self {
            append_entries: random.pick(&[1, 3, 64]),
            append_bytes: random.pick(&[1, 300, 10_000]),
            inflight: random.pick(&[1, 3, 16]),
            inflight_bytes: random.pick(&[1, 500, 100_000]),
            uncommitted_bytes: random.pick(&[400, 2_000, 100_000]),
            tail_bytes: random.pick(&[0, 300, 100_000]),
            reads: random.pick(&[2, 100]),
        }
    }
}
