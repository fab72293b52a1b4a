//! The parts that are counted, one after the other.
//!
//! Invariant: a part's run is the same every time. What depends on time lies outside of its boundaries, or is little: with a
//! node, the ticks that happen to fall into it. Three nodes over loopback were tried, and differed by half: how their
//! messages meet depends on who runs when.

use anyhow::Result;
use parts::BATCH;
use parts::codec::Codec;
use parts::node::Nodes;
use parts::protocol::Protocol;
use parts::storage::Storage;

use crate::callgrind::boundary;

/// Batches that are counted; before them, an eighth as many that are not.
const BATCHES: usize = 200;
/// Commits that are counted for each part.
pub(crate) const COMMITS: u64 = (BATCHES * BATCH) as u64;

/// The parts, in the order in which they are run.
pub(crate) const PARTS: [&str; 6] = [
    // Three cores: a commit is handed out on all three.
    "protocol",
    // The frame that carries a batch to two followers, encoded and decoded.
    "append_entries",
    // The frames that carry a batch from a follower to the leader, and its outcomes back.
    "forwarded",
    // A batch's write to memory, and the synced one to RocksDB.
    "storage_memory",
    "storage_rocksdb",
    // A node alone with one subscriber: all but the network.
    "node",
];

/// Runs all parts.
pub(crate) fn run() -> Result<()> {
    let mut cores = Protocol::new();
    counted(|batches| {
        cores.run(batches, BATCH);
        Ok(())
    })?;

    let mut codec = Codec::new();
    counted(|batches| codec.append_entries(batches, BATCH))?;
    counted(|batches| codec.forwarded(batches, BATCH))?;

    let mut memory = Storage::memory()?;
    counted(|batches| memory.run(batches, BATCH))?;
    let folder = tempfile::tempdir()?;
    let mut rocksdb = Storage::rocksdb(&folder.path().join("data"))?;
    counted(|batches| rocksdb.run(batches, BATCH))?;
    drop(rocksdb);

    let mut node = Nodes::start(1, 1)?;
    // In few large batches: the ticks that fall into the run count with it, and the shorter it is the fewer they are.
    counted(|batches| node.run(batches / 8, 8 * BATCH))
}

/// Warms a part, and then runs it between two boundaries.
fn counted(mut part: impl FnMut(usize) -> Result<()>) -> Result<()> {
    part(BATCHES / 8)?;
    boundary();
    part(BATCHES)?;
    boundary();
    Ok(())
}
