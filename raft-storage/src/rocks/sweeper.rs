//! The thread that gives disk space back: table files below the log's beginning, and old snapshots.
//!
//! A thread of its own, because to remove a file of some gigabytes takes a file system longer than a write may
//! wait.
//!
//! Invariants:
//! - It removes only what a durable write has put out of reach. So it may fail, or be interrupted, at any
//!   point: what is left is hidden, and the next sweep takes it.
//! - It has ended when the store is closed.

use std::{
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{Builder, JoinHandle},
};

use super::Shared;
use crate::{StorageError, snapshot::files::SnapshotFiles};

/// The running thread.
pub(super) struct Sweeper {
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    pub(super) fn start(
        shared: Arc<Shared>,
        snapshots: SnapshotFiles,
    ) -> Result<Self, StorageError> {
        let (wake, woken) = mpsc::channel();
        let thread = Builder::new().name("raft-sweeper".to_owned());
        let thread = thread.spawn(move || run(&shared, &snapshots, &woken));
        let thread = thread.map_err(StorageError::io("start a thread for", "the data folder"))?;
        Ok(Self {
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// The log begins later now, or a newer snapshot is named.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It ends only with a panic. Then space is given back at the next start.
            let _ = wake.send(());
        }
    }

    /// Lets it finish what it is at, and no more.
    pub(super) fn stop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, snapshots: &SnapshotFiles, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        // One sweep answers all that asked meanwhile.
        while woken.try_recv().is_ok() {}
        let swept = shared.drop_files().and_then(|()| snapshots.remove_older());
        match swept {
            Ok(()) | Err(StorageError::Closed) => {}
            Err(error) => tracing::warn!(%error, "old files stay until the next compaction"),
        }
    }
}
