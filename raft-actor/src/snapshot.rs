//! What a snapshot's file holds: the library's own bookkeeping, then what the state machine wrote.
//!
//! ```text
//! version (1 byte) │ has a state machine (1 byte) │ cluster (16 bytes) │ length of the ledger (8 bytes) │ ledger │
//! state machine …
//! ```
//!
//! The file's pieces are checked one by one by the storage; numbers are big-endian.
//!
//! Invariant: neither the whole file nor the whole state is ever in memory here. The ledger is, which is bounded.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use raft_core::{
    ClusterId, InstallSnapshot, LogId, LogIndex, NodeId, SnapshotMeta, TERM_LEAP_MAX, Term, Unsound,
};
use raft_net::{ChunkSink, ChunkSource, SnapshotOffer, SnapshotReceiver};
use raft_storage::{
    CHUNK_BYTES, SnapshotInfo, SnapshotSink, SnapshotSource, Snapshots, StorageError,
};

use crate::ledger::Ledger;
use crate::machine::Capture;

/// The version of this layout.
const VERSION: u8 = 1;
/// The bytes before the ledger.
const HEADER_LEN: usize = 26;
/// The longest ledger that is read. Sessions, outcomes and answers are bounded at an eighth of it; the suppressed
/// indexes of the log's entries, 16 bytes for each run of them, may take the rest.
const LEDGER_BYTES_MAX: u64 = 1 << 30;

/// A state as it was at one moment, on its way to a file.
pub(crate) struct Captured {
    /// The cluster whose state it is, where that is known.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) ledger: Ledger,
    pub(crate) machine: Option<Capture>,
}

impl Captured {
    /// The last entry that it includes.
    pub(crate) fn index(&self) -> LogIndex {
        self.ledger.applied().index
    }

    /// Writes it to a file of its own. Blocks, for as long as that takes.
    ///
    /// # Errors
    /// What the storage or the state machine said. Nothing stays of the file.
    pub(crate) fn write(
        self,
        snapshots: &dyn Snapshots,
        meta: &SnapshotMeta,
    ) -> Result<SnapshotInfo, String> {
        let mut sink = snapshots.create(meta).map_err(text)?;
        let ledger = self.ledger.encode();
        let cluster = self.cluster.map_or(0, |cluster| cluster.0);
        let mut header = vec![VERSION, u8::from(self.machine.is_some())];
        header.extend(cluster.to_be_bytes());
        header.extend((ledger.len() as u64).to_be_bytes());
        sink.write(&header).map_err(text)?;
        sink.write(&ledger).map_err(text)?;
        if let Some(capture) = self.machine {
            let writing = &mut Writing(sink.as_mut());
            capture(writing).map_err(|error| format!("the state machine: {error}"))?;
        }
        sink.finish().map_err(text)
    }
}

fn text(error: StorageError) -> String {
    error.to_string()
}

struct Writing<'s>(&'s mut dyn SnapshotSink);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a snapshot's bytes, piece by piece.
pub(crate) struct Reading {
    source: Box<dyn SnapshotSource>,
    next: u64,
    piece: Bytes,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            if self.next >= self.source.info().chunks() {
                return Ok(0);
            }
            self.piece = self
                .source
                .read_chunk(self.next)
                .map_err(io::Error::other)?;
            self.next += 1;
        }
        let len = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..len]);
        Ok(len)
    }
}

/// A snapshot whose ledger has been read.
pub(crate) struct Opened {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) ledger: Ledger,
    /// The state machine's bytes, if there was one.
    pub(crate) machine: Option<Reading>,
}

/// Opens the snapshot through `last`, and reads its ledger.
///
/// # Errors
/// It is damaged, or not of this library.
pub(crate) fn open(snapshots: &dyn Snapshots, last: LogId) -> Result<Opened, String> {
    let source = snapshots.open(last).map_err(text)?;
    let mut reading = Reading {
        source,
        next: 0,
        piece: Bytes::new(),
    };
    let ledger = |reading: &mut Reading| -> io::Result<(Vec<u8>, bool, u128)> {
        let mut header = [0; HEADER_LEN];
        reading.read_exact(&mut header)?;
        let mut header = header.as_slice();
        let (version, has_machine) = (header.get_u8(), header.get_u8());
        let (cluster, len) = (header.get_u128(), header.get_u64());
        if version != VERSION || has_machine > 1 || len > LEDGER_BYTES_MAX {
            return Err(io::Error::other(
                "it is of no version that this program knows",
            ));
        }
        let mut ledger = Vec::new();
        if reading.take(len).read_to_end(&mut ledger)? as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((ledger, has_machine == 1, cluster))
    };
    let (bytes, has_machine, cluster) = ledger(&mut reading).map_err(|error| error.to_string())?;
    let ledger = Ledger::decode(&bytes).map_err(|error| error.to_string())?;
    if ledger.applied() != last {
        let applied = ledger.applied();
        return Err(format!("its bookkeeping ends at {applied}"));
    }
    Ok(Opened {
        cluster: (cluster != 0).then_some(ClusterId(cluster)),
        ledger,
        machine: has_machine.then_some(reading),
    })
}

/// Sends a snapshot's file.
pub(crate) struct Outgoing(pub(crate) Box<dyn SnapshotSource>);

impl Outgoing {
    /// What the receiver is offered.
    pub(crate) fn offer(&self, message: raft_core::InstallSnapshot) -> SnapshotOffer {
        let info = self.0.info();
        SnapshotOffer {
            message,
            id: info.id,
            bytes: info.bytes,
            chunk_bytes: CHUNK_BYTES as u32,
        }
    }
}

impl ChunkSource for Outgoing {
    fn chunk(&mut self, number: u64) -> Result<Bytes, String> {
        self.0.read_chunk(number).map_err(text)
    }
}

/// Receives snapshots into files.
#[derive(Clone)]
pub(crate) struct Incoming {
    pub(crate) snapshots: Arc<dyn Snapshots>,
    /// Whether this program has a state machine.
    pub(crate) has_machine: bool,
    pub(crate) expected: Arc<Mutex<Expected>>,
}

impl Incoming {
    fn expected(&self) -> Expected {
        // Nothing panics while it holds the lock.
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node knows at the end of each turn, by which the threads that take snapshots in judge what is offered. The
/// protocol judges again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) term: Term,
    pub(crate) leader: Option<NodeId>,
    pub(crate) commit: LogIndex,
    pub(crate) cluster: Option<ClusterId>,
}

impl Expected {
    /// Whether `from` may offer this here. The message is sound.
    fn judge(&self, from: NodeId, message: &InstallSnapshot) -> Result<(), String> {
        let (term, own) = (message.term, self.term);
        if term < own {
            return Err(format!("term {term} is over, this node is in {own}"));
        }
        if term.0 - own.0 > TERM_LEAP_MAX {
            return Err(Unsound::TermBeyond.to_string());
        }
        if term == own && self.leader.is_some_and(|leader| leader != from) {
            return Err(format!("node {from} does not lead term {term}"));
        }
        self.lacks(message.snapshot.last)
    }

    /// What this node has is not replaced, least of all the file of its own snapshot.
    fn lacks(&self, last: LogId) -> Result<(), String> {
        let commit = self.commit;
        if last.index <= commit {
            return Err(format!(
                "this node has all of that: it is committed through {commit}"
            ));
        }
        Ok(())
    }
}

impl SnapshotReceiver for Incoming {
    fn begin(&self, from: NodeId, offer: &SnapshotOffer) -> Result<Box<dyn ChunkSink>, String> {
        self.expected().judge(from, &offer.message)?;
        let sink = self.snapshots.create(&offer.message.snapshot);
        Ok(Box::new(IncomingFile {
            incoming: self.clone(),
            last: offer.message.snapshot.last,
            sink: sink.map_err(text)?,
        }))
    }
}

struct IncomingFile {
    incoming: Incoming,
    last: LogId,
    sink: Box<dyn SnapshotSink>,
}

impl ChunkSink for IncomingFile {
    fn write(&mut self, chunk: &Bytes) -> Result<(), String> {
        self.sink.write(chunk).map_err(text)
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        let Self {
            incoming,
            last,
            sink,
        } = *self;
        let expected = incoming.expected();
        expected.lacks(last)?;
        sink.finish().map_err(text)?;
        // What it holds takes the place of the whole log, which is gone then.
        let opened = open(incoming.snapshots.as_ref(), last);
        let judged = opened.and_then(|opened| match (opened.cluster, expected.cluster) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                Err(format!("it is of cluster {theirs}"))
            }
            _ if opened.machine.is_some() != incoming.has_machine => {
                Err("it is of another program: one of the two has no state machine".to_owned())
            }
            _ => Ok(()),
        });
        judged.inspect_err(|error| {
            tracing::warn!(%last, "a snapshot that came in cannot be used: {error}");
            if let Err(error) = incoming.snapshots.remove(last) {
                tracing::warn!(%last, "cannot remove it: {error}");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use raft_core::membership::Configuration;

    use super::*;

    fn offered(term: u64, last: u64) -> InstallSnapshot {
        let last = LogId::new(Term(term.min(3)), LogIndex(last));
        let configuration = Arc::new(Configuration::of([1, 2, 3].map(NodeId)));
        InstallSnapshot {
            term: Term(term),
            snapshot: SnapshotMeta {
                last,
                configuration,
            },
        }
    }

    /// Whoever may send a snapshot could else have this node's own one replaced, under its name.
    #[test]
    fn an_offer_that_no_leader_makes_here_moves_no_byte() {
        let expected = Expected {
            term: Term(3),
            leader: Some(NodeId(2)),
            commit: LogIndex(100),
            cluster: None,
        };
        let judge = |from, term, last| expected.judge(NodeId(from), &offered(term, last));
        assert_eq!(judge(2, 3, 101), Ok(()));
        assert_eq!(judge(3, 4, 101), Ok(()));
        for (from, term, last, why) in [
            (3, 3, 101, "does not lead"),
            (2, 2, 101, "is over"),
            (2, 4 + TERM_LEAP_MAX, 101, "beyond all elections"),
            (2, 3, 100, "has all of that"),
        ] {
            let error = judge(from, term, last).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
