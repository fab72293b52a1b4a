//! What the protocol itself costs: one leader and two followers stepping in one thread, with disks and a
//! network that take no time. `make bench-core` runs it.
//!
//! An entry counts once it is committed and handed out on all three nodes; what it costs is the time, and the
//! allocations, of all three together.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a program that measures; what fails shows itself"
)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Instant;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use raft_core::{Config, Effect, Envelope, Input, NodeId, Raft, Recovered, Role};

const PAYLOAD: usize = 256;
/// The tail that each node keeps in memory: memory must not grow beyond it.
const TAIL_BYTES: usize = 1 << 20;

struct Cluster {
    nodes: Vec<Raft>,
    waiting: VecDeque<(NodeId, Input)>,
    handed_out: [u64; 3],
    payload: Bytes,
}

impl Cluster {
    /// Three nodes of which the first leads.
    fn new() -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let nodes = ids.map(|id| {
            let mut config = Config::new(id, ids);
            config.append_entries_max = 2048;
            config.append_bytes_max = 4 << 20;
            config.tail_bytes_max = TAIL_BYTES;
            Raft::new(config, Recovered::default()).unwrap()
        });
        let mut cluster = Self {
            nodes: nodes.into(),
            waiting: VecDeque::new(),
            handed_out: [0; 3],
            payload: Bytes::from(vec![7; PAYLOAD]),
        };
        cluster.run(NodeId(1), Input::Campaign);
        assert_eq!(cluster.nodes[0].role(), Role::Leader);
        cluster
    }

    /// Steps until nothing moves.
    fn run(&mut self, id: NodeId, input: Input) {
        self.waiting.push_back((id, input));
        while let Some((id, input)) = self.waiting.pop_front() {
            let at = id.0 as usize - 1;
            for effect in self.nodes[at].step(input) {
                match effect {
                    Effect::Persist(persist) => {
                        let through = persist.write;
                        for (to, message) in persist.then.release() {
                            self.send(id, to, message.into());
                        }
                        self.waiting.push_back((id, Input::Persisted { through }));
                    }
                    Effect::Send { to, message } => self.send(id, to, message.into()),
                    Effect::Commit(commit) => self.handed_out[at] += commit.entries.len() as u64,
                    Effect::Halt(violation) => panic!("{violation}"),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: raft_core::Message) {
        let envelope = Envelope { from, to, message };
        self.waiting.push_back((to, Input::Received(envelope)));
    }

    /// Commits `entries` in batches of `batch`.
    fn commit(&mut self, entries: u64, batch: usize) {
        let goal = self.handed_out[0] + entries;
        while self.handed_out[0] < goal {
            let commands = vec![self.payload.clone(); batch];
            self.run(NodeId(1), Input::Propose(commands));
        }
        assert_eq!(self.handed_out, [self.handed_out[0]; 3]);
    }

    /// Nanoseconds for each entry, the median of several pieces.
    fn time(&mut self, entries: u64, batch: usize) -> f64 {
        const PIECES: u64 = 21;
        let mut pieces: Vec<f64> = (0..PIECES)
            .map(|_| {
                let (before, started) = (self.handed_out[0], Instant::now());
                self.commit(entries / PIECES, batch);
                let done = self.handed_out[0] - before;
                started.elapsed().as_nanos() as f64 / done as f64
            })
            .collect();
        pieces.sort_by(f64::total_cmp);
        pieces[pieces.len() / 2]
    }
}

#[derive(Default)]
struct Figures {
    text: String,
    missed: bool,
}

impl Figures {
    /// `most` is the floor: the most that the value may be.
    fn line(&mut self, name: &str, value: f64, unit: &str, most: Option<f64>) {
        let ok = most.is_none_or(|most| value <= most);
        self.missed |= !ok;
        let most = most.map_or("-".into(), |most| most.to_string());
        let verdict = if ok { "ok" } else { "missed" };
        writeln!(
            self.text,
            "FIGURE bench_core.{name} {value:.2} {unit} {most} {verdict}"
        )
        .unwrap();
    }
}

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return; // Under `cargo test`: it was built, and that is all.
    }
    let mut figures = Figures::default();
    Cluster::new().commit(200_000, 64); // Warm.
    for (batch, floor) in [(1, None), (64, Some(300.0)), (1024, None)] {
        let mut cluster = Cluster::new();
        cluster.commit(20_000, batch);
        let nanoseconds = cluster.time(400_000, batch);
        figures.line(&format!("ns_per_entry_{batch}"), nanoseconds, "ns", floor);
        let AllocationInfo {
            count_total,
            bytes_total,
            ..
        } = measure(|| cluster.commit(40_960, batch));
        let each = |total: u64| total as f64 / 40_960.0;
        figures.line(
            &format!("allocations_per_entry_{batch}"),
            each(count_total),
            "count",
            None,
        );
        figures.line(
            &format!("bytes_per_entry_{batch}"),
            each(bytes_total),
            "bytes",
            None,
        );
    }
    // The same cost with a short log behind it and with a long one, measured in turns.
    let mut ratios = Vec::new();
    let mut long = Cluster::new();
    long.commit(1_000_000, 64);
    for _ in 0..5 {
        let mut short = Cluster::new();
        short.commit(1_000, 64);
        // Both have a full tail, or the short one would not yet pay for dropping what falls out of it.
        short.commit(2 * TAIL_BYTES as u64 / PAYLOAD as u64, 64);
        ratios.push(long.time(200_000, 64) / short.time(200_000, 64));
    }
    ratios.sort_by(f64::total_cmp);
    figures.line(
        "cost_at_1e6_to_1e3",
        ratios[ratios.len() / 2],
        "ratio",
        Some(1.1),
    );
    // Memory that is held after ten times the entries, to what was held before.
    let mut cluster = Cluster::new();
    let first = measure(|| cluster.commit(100_000, 64)).bytes_current;
    let later = measure(|| cluster.commit(1_000_000, 64)).bytes_current;
    let growth = later as f64 / first.max(1) as f64;
    figures.line("memory_growth_to_1e6", growth, "ratio", Some(0.1));
    print!("{}", figures.text);
    if let Some(folder) = std::env::var_os("FIGURES_DIR") {
        let folder = std::path::PathBuf::from(folder);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("bench-core.txt"), &figures.text).unwrap();
    }
    if figures.missed {
        std::process::exit(1);
    }
}
