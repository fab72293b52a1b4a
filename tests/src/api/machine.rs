//! The state machine that is replicated: registers, a counter, and a bulk of any size.
//!
//! The bulk is in chunks behind `Arc`, so that a capture copies pointers; what a capture is written from is what it
//! was, whatever is filled anew meanwhile. A restore drops the old bulk before it reads the new one, chunk by chunk.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use raft_actor::{ApplyError, At, Capture, StateMachine};
use serde::{Deserialize, Serialize};

use crate::linear::INITIAL;
use crate::random::Random;

/// The bytes of a chunk of the bulk.
pub const CHUNK: usize = 1 << 20;

/// What changes the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A register gets a value.
    Write {
        /// Which.
        key: u64,
        /// The value.
        value: u64,
    },
    /// A register gets a value if it holds another.
    Cas {
        /// Which.
        key: u64,
        /// What it must hold.
        from: u64,
        /// What it then holds.
        to: u64,
    },
    /// The counter grows.
    Add(u64),
    /// The bulk becomes so many chunks, which follow from the seed.
    Fill {
        /// How many.
        chunks: u32,
        /// What they are made of.
        seed: u64,
    },
    /// Nothing changes; the log grows by this text.
    Note(String),
    /// This number is counted once more.
    Mark(u64),
}

/// What a command is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// It is done.
    Done,
    /// Whether the register held the value.
    Swapped(bool),
    /// The counter, with what was added.
    Sum(u64),
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Machine {
    registers: BTreeMap<u64, u64>,
    counter: u64,
    bulk: Vec<Arc<[u8]>>,
    marks: BTreeMap<u64, u64>,
    /// The next answer is another than it should be.
    flip: Arc<AtomicBool>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    registers: BTreeMap<u64, u64>,
    counter: u64,
    chunks: usize,
    marks: BTreeMap<u64, u64>,
}

/// Which numbers were marked, of those below a bound that all should be once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Below the bound, and not marked.
    pub missing: Vec<u64>,
    /// Marked more than once.
    pub twice: Vec<u64>,
    /// How many were marked, below the bound or not.
    pub all: u64,
}

impl Machine {
    /// An empty one. While `flip` is set, the next answer is falsified and `flip` is cleared.
    #[must_use]
    pub fn new(flip: Arc<AtomicBool>) -> Self {
        Self {
            flip,
            ..Self::default()
        }
    }

    /// What a register holds.
    #[must_use]
    pub fn register(&self, key: u64) -> u64 {
        self.registers.get(&key).copied().unwrap_or(INITIAL)
    }

    /// What was added so far.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.counter
    }

    /// What became of the numbers below `bound`, and of others.
    #[must_use]
    pub fn marks(&self, bound: u64) -> Marks {
        let is_missing = |number: &u64| !self.marks.contains_key(number);
        let twice = self.marks.iter().filter(|(_, times)| **times > 1);
        Marks {
            missing: (0..bound).filter(is_missing).collect(),
            twice: twice.map(|(number, _)| *number).collect(),
            all: self.marks.len() as u64,
        }
    }

    /// A hash over the bulk.
    #[must_use]
    pub fn bulk_hash(&self) -> u64 {
        let mut hash = Hash::default();
        self.bulk.iter().for_each(|chunk| hash.add(chunk));
        hash.0
    }
}

impl StateMachine for Machine {
    type Command = Command;
    type Response = Response;

    fn apply(&mut self, _: At, command: Command) -> Result<Response, ApplyError> {
        let response = match command {
            Command::Write { key, value } => {
                self.registers.insert(key, value);
                Response::Done
            }
            Command::Cas { key, from, to } => {
                let swapped = self.register(key) == from;
                if swapped {
                    self.registers.insert(key, to);
                }
                Response::Swapped(swapped)
            }
            Command::Add(by) => {
                let sum = self.counter.checked_add(by);
                self.counter = sum.ok_or_else(|| ApplyError::new("the counter is full"))?;
                Response::Sum(self.counter)
            }
            Command::Fill { chunks, seed } => {
                self.bulk.clear();
                self.bulk.extend((0..chunks).map(|n| chunk(seed, n)));
                Response::Done
            }
            Command::Note(_) => Response::Done,
            Command::Mark(number) => {
                *self.marks.entry(number).or_default() += 1;
                Response::Done
            }
        };
        if self.flip.swap(false, Ordering::Relaxed) {
            return Ok(match response {
                Response::Done => Response::Swapped(false),
                Response::Swapped(swapped) => Response::Swapped(!swapped),
                Response::Sum(sum) => Response::Sum(sum ^ 1),
            });
        }
        Ok(response)
    }

    fn snapshot(&self) -> Capture {
        let head = Head {
            registers: self.registers.clone(),
            counter: self.counter,
            chunks: self.bulk.len(),
            marks: self.marks.clone(),
        };
        let bulk = self.bulk.clone();
        Box::new(move |to: &mut dyn Write| {
            let head = serde_json::to_vec(&head)?;
            to.write_all(&(head.len() as u64).to_be_bytes())?;
            to.write_all(&head)?;
            bulk.iter().try_for_each(|chunk| to.write_all(chunk))
        })
    }

    fn restore(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.bulk = Vec::new();
        let head = read_head(from)?;
        for _ in 0..head.chunks {
            let mut chunk = vec![0; CHUNK];
            from.read_exact(&mut chunk)?;
            self.bulk.push(chunk.into());
        }
        self.registers = head.registers;
        self.counter = head.counter;
        self.marks = head.marks;
        Ok(())
    }
}

/// What a snapshot holds beside its bulk is at most so long.
const HEAD_BYTES_MAX: u64 = 64 << 20;

fn read_head(from: &mut dyn Read) -> io::Result<Head> {
    let mut len = [0; 8];
    from.read_exact(&mut len)?;
    let len = u64::from_be_bytes(len);
    if len > HEAD_BYTES_MAX {
        return Err(io::Error::other("no head of a snapshot"));
    }
    let mut head = vec![0; len as usize];
    from.read_exact(&mut head)?;
    Ok(serde_json::from_slice(&head)?)
}

/// Reads what a snapshot wrote, and keeps nothing of it: how many chunks, their hash, and the counter.
pub fn survey(from: &mut dyn Read) -> io::Result<(usize, u64, u64)> {
    let head = read_head(from)?;
    let mut hash = Hash::default();
    let mut piece = vec![0; CHUNK];
    for _ in 0..head.chunks {
        from.read_exact(&mut piece)?;
        hash.add(&piece);
    }
    match from.read(&mut piece)? {
        0 => Ok((head.chunks, hash.0, head.counter)),
        _ => Err(io::Error::other("more than a snapshot")),
    }
}

/// Chunk `n` of what follows from `seed`.
fn chunk(seed: u64, n: u32) -> Arc<[u8]> {
    let mut random = Random::new(seed ^ u64::from(n) << 32);
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.into()
}

/// FNV-1a, eight bytes at a time: to tell contents apart that nobody made alike on purpose.
#[derive(Debug)]
pub struct Hash(pub u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    /// Adds bytes; what comes in other pieces has another hash, unless all but the last are multiples of 8.
    pub fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..piece.len()].copy_from_slice(piece);
            let word = u64::from_le_bytes(word) ^ (piece.len() as u64) << 56;
            self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3);
            self.0 ^= self.0 >> 29;
        }
    }

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.add(bytes);
        hash.0
    }
}

#[cfg(test)]
mod tests {
    use raft_actor::{LogIndex, Term};

    use super::*;

    #[test]
    fn a_restored_machine_is_the_one_that_was_captured() {
        let at = At {
            index: LogIndex(1),
            term: Term(1),
            log_time_ms: 0,
        };
        let mut machine = Machine::default();
        let mut does = |command| StateMachine::apply(&mut machine, at, command).unwrap();
        assert_eq!(does(Command::Add(3)), Response::Sum(3));
        does(Command::Write { key: 1, value: 7 });
        let cas = |from| Command::Cas {
            key: 1,
            from,
            to: 9,
        };
        assert_eq!(does(cas(8)), Response::Swapped(false));
        assert_eq!(does(cas(7)), Response::Swapped(true));
        does(Command::Fill { chunks: 3, seed: 5 });
        for number in [1, 1, 3] {
            assert_eq!(does(Command::Mark(number)), Response::Done);
        }
        let captured = StateMachine::snapshot(&machine);
        let hash = machine.bulk_hash();
        // What comes later is not in it.
        StateMachine::apply(&mut machine, at, Command::Add(1)).unwrap();
        let mut written = Vec::new();
        captured(&mut written).unwrap();
        assert_eq!(survey(&mut written.as_slice()).unwrap(), (3, hash, 3));
        let mut other = Machine::default();
        StateMachine::restore(&mut other, &mut written.as_slice()).unwrap();
        assert_eq!((other.register(1), other.counter()), (9, 3));
        assert_eq!(other.bulk_hash(), hash);
        let marks = Marks {
            missing: vec![0, 2],
            twice: vec![1],
            all: 2,
        };
        assert_eq!(other.marks(3), marks);
        assert!(StateMachine::restore(&mut other, &mut &written[..CHUNK]).is_err());
    }

    #[test]
    fn a_flipped_answer_is_flipped_once() {
        let flip = Arc::new(AtomicBool::new(true));
        let mut machine = Machine::new(Arc::clone(&flip));
        let at = At {
            index: LogIndex(1),
            term: Term(1),
            log_time_ms: 0,
        };
        let mut add = || StateMachine::apply(&mut machine, at, Command::Add(2)).unwrap();
        assert_eq!([add(), add()], [Response::Sum(3), Response::Sum(4)]);
    }
}
