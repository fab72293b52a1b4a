//! Three cores of which the first leads, with disks and a network that take no time.
//!
//! An entry counts once it is committed and handed out on all three; what it costs is the cost of all three together.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{Config, Effect, Envelope, Input, Message, NodeId, Raft, Recovered, Role};

use crate::PAYLOAD;

/// The tail that each core keeps in memory, full after some thousand entries.
pub const TAIL_BYTES: usize = 1 << 20;

/// See the [module](self).
pub struct Protocol {
    nodes: Vec<Raft>,
    waiting: VecDeque<(NodeId, Input)>,
    handed_out: [u64; 3],
    payload: Bytes,
}

impl Protocol {
    /// Three cores, elected and with full tails.
    ///
    /// # Panics
    /// The protocol does not elect, or does not commit.
    #[must_use]
    pub fn new() -> Self {
        let ids = [1, 2, 3].map(NodeId);
        let node = |id| {
            let mut config = Config::new(id, ids);
            config.append_entries_max = 2048;
            config.append_bytes_max = 4 << 20;
            config.tail_bytes_max = TAIL_BYTES;
            Raft::new(config, Recovered::default()).expect("the configuration is sound")
        };
        let mut cores = Self {
            nodes: ids.map(node).into(),
            waiting: VecDeque::new(),
            handed_out: [0; 3],
            payload: Bytes::from(vec![7; PAYLOAD]),
        };
        cores.step(NodeId(1), Input::Campaign);
        assert_eq!(cores.nodes[0].role(), Role::Leader);
        cores.run(2 * TAIL_BYTES / PAYLOAD / 64, 64);
        cores
    }

    /// Commits so many batches of `size` commands, one after the other.
    ///
    /// # Panics
    /// Something was not committed everywhere.
    pub fn run(&mut self, batches: usize, size: usize) {
        let before = self.handed_out[0];
        for _ in 0..batches {
            let commands = vec![self.payload.clone(); size];
            self.step(NodeId(1), Input::Propose(commands));
        }
        let done = self.handed_out[0] - before;
        assert!(done >= (batches * size) as u64);
        assert_eq!(self.handed_out, [self.handed_out[0]; 3]);
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
                    Effect::Commit(commit) => self.handed_out[at] += commit.entries.len() as u64,
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

impl Default for Protocol {
    fn default() -> Self {
        Self::new()
    }
}
