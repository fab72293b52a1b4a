//! What an entry costs does not grow with the log: neither what is allocated for it, nor what stays held.
//!
//! Time is measured elsewhere (`make bench-micro`, `make instructions`); allocations are the same every time.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::VecDeque;

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use raft_core::{Config, Effect, Envelope, Input, Message, NodeId, Raft, Recovered, Role};

const PAYLOAD: usize = 256;
const BATCH: usize = 64;
/// The tail that each node keeps in memory, which must be all that it keeps.
const TAIL_BYTES: usize = 1 << 20;

/// Three nodes in one thread, of which the first leads, with disks and a network that take no time.
struct Cluster {
    nodes: Vec<Raft>,
    waiting: VecDeque<(NodeId, Input)>,
    handed_out: [usize; 3],
    payload: Bytes,
}

impl Cluster {
    fn new() -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let node = |id| {
            let mut config = Config::new(id, ids);
            config.tail_bytes_max = TAIL_BYTES;
            Raft::new(config, Recovered::default()).unwrap()
        };
        let mut cluster = Self {
            nodes: ids.map(node).into(),
            waiting: VecDeque::new(),
            handed_out: [0; 3],
            payload: Bytes::from(vec![7; PAYLOAD]),
        };
        cluster.step(NodeId(1), Input::Campaign);
        assert_eq!(cluster.nodes[0].role(), Role::Leader);
        cluster
    }

    fn commit(&mut self, batches: usize) -> AllocationInfo {
        let before = self.handed_out[0];
        let info = measure(|| {
            for _ in 0..batches {
                let commands = vec![self.payload.clone(); BATCH];
                self.step(NodeId(1), Input::Propose(commands));
            }
        });
        assert!(self.handed_out[0] >= before + batches * BATCH);
        assert_eq!(self.handed_out, [self.handed_out[0]; 3]);
        info
    }

    /// Steps until nothing moves.
    fn step(&mut self, id: NodeId, input: Input) {
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
                    Effect::Commit(commit) => self.handed_out[at] += commit.entries.len(),
                    Effect::Halt(violation) => panic!("{violation}"),
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let envelope = Envelope { from, to, message };
        self.waiting.push_back((to, Input::Received(envelope)));
    }
}

#[test]
fn an_entry_costs_the_same_behind_a_long_log_and_leaves_nothing() {
    let mut cluster = Cluster::new();
    // Twice what the tails hold.
    cluster.commit(2 * TAIL_BYTES / PAYLOAD / BATCH);
    let early = cluster.commit(500);
    cluster.commit(2_000);
    let late = cluster.commit(500);
    let (few, many) = (early.count_total, late.count_total);
    assert!(
        many <= few,
        "{few} allocations for 500 batches, and {many} behind 2,000 more"
    );
    // It is 38 for all three, and has nothing to do with how many entries are in the batch.
    assert!(many <= 500 * 40, "{many} allocations for 500 batches");
    let held = late.bytes_current;
    assert!(held < 64 << 10, "{held} bytes more are held");
}
