//! The replicated state of this node: the state machine and the ledger, always as of the same entry.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use raft_core::{ClusterId, Entry, LogId, LogIndex, Violation};
use raft_storage::Snapshots;

use crate::NodeFailure;
use crate::ledger::{Ledger, OutOfTurn, Settlement, Step};
use crate::machine::{At, Machine};
use crate::snapshot::{self, Captured};

/// See the [module](self).
pub(crate) struct Replica {
    machine: Option<Box<dyn Machine>>,
    /// The cluster whose state it is, as far as a snapshot said so.
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) ledger: Ledger,
}

impl Replica {
    /// One that has applied nothing. Without a machine, commands are only delivered.
    pub(crate) fn new(machine: Option<Box<dyn Machine>>) -> Self {
        Self {
            machine,
            cluster: None,
            ledger: Ledger::new(),
        }
    }

    /// The state as this node left it: what the machine's own disk kept, if it reaches as far as the snapshot;
    /// otherwise the snapshot.
    ///
    /// # Errors
    /// The snapshot or the machine's disk is damaged, or of another program.
    pub(crate) fn recover(
        &mut self,
        snapshots: &dyn Snapshots,
        snapshot: Option<LogId>,
    ) -> Result<(), RecoverError> {
        if let Some(machine) = &mut self.machine
            && machine.bytes().has_own_disk()
        {
            let own_disk = |error: String| RecoverError::OwnDisk(error);
            let kept = guarded(|| machine.bytes().kept()).map_err(own_disk)?;
            let kept = kept.map_err(|error| own_disk(error.to_string()))?;
            if let Some(kept) = kept {
                let ledger = Ledger::decode(&kept).map_err(|error| own_disk(error.to_string()))?;
                if snapshot.is_none_or(|last| ledger.applied() >= last) {
                    self.ledger = ledger;
                    return Ok(());
                }
            }
        }
        match snapshot {
            Some(last) => self
                .restore(snapshots, last)
                .map_err(|why| RecoverError::Snapshot { last, why }),
            None => Ok(()),
        }
    }

    /// Replaces the whole state by that of a snapshot.
    ///
    /// # Errors
    /// Why it cannot. What is left then is neither the old nor the new state.
    pub(crate) fn restore(&mut self, snapshots: &dyn Snapshots, last: LogId) -> Result<(), String> {
        let opened = snapshot::open(snapshots, last)?;
        match (&mut self.machine, opened.machine) {
            (None, None) => {}
            (Some(machine), Some(mut reading)) => {
                let bytes = machine.bytes();
                guarded(|| bytes.restore(&mut reading))?.map_err(|error| error.to_string())?;
            }
            (None, Some(_)) => return Err("it is of a program with a state machine".to_owned()),
            (Some(_), None) => return Err("it is of a program without a state machine".to_owned()),
        }
        self.ledger = opened.ledger;
        self.cluster = opened.cluster.or(self.cluster);
        self.keep().map_err(|failure| failure.to_string())
    }

    /// The last entry that it includes.
    pub(crate) fn applied(&self) -> LogId {
        self.ledger.applied()
    }

    /// Whether there is a machine, so that a snapshot stands for the commands before it.
    pub(crate) fn has_machine(&self) -> bool {
        self.machine.is_some()
    }

    /// For a read that knows the machine's type.
    pub(crate) fn machine(&self) -> Option<&dyn Any> {
        self.machine
            .as_ref()
            .map(|machine| machine.as_ref().as_any())
    }

    /// Applies the next entry of the log. The outcome is that of who proposed it; none for an entry that nobody did.
    ///
    /// # Errors
    /// The machine panicked.
    pub(crate) fn apply(&mut self, entry: &Entry) -> Result<Option<Settlement>, NodeFailure> {
        let bug =
            |error: OutOfTurn| NodeFailure::Violation(Violation::Invariant(error.to_string()));
        match self.ledger.begin(entry).map_err(bug)? {
            Step::Nothing => Ok(None),
            Step::Settled(settlement) => Ok(Some(settlement)),
            Step::Run { command } => {
                let answer = match &mut self.machine {
                    None => Ok(Bytes::new()),
                    Some(machine) => {
                        let at = At {
                            index: entry.id.index,
                            term: entry.id.term,
                            log_time_ms: self.ledger.time_ms(),
                        };
                        let command = entry.data.slice_ref(command);
                        let answer = guarded(|| machine.bytes().apply(at, &command));
                        let answer = answer.map_err(|message| {
                            let index = entry.id.index;
                            NodeFailure::StateMachinePanicked { index, message }
                        })?;
                        answer.map_err(Into::into)
                    }
                };
                self.ledger.ran(answer).map(Some).map_err(bug)
            }
        }
    }

    /// Lets a machine with a disk of its own commit what it has applied.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn keep(&mut self) -> Result<(), NodeFailure> {
        let index = self.applied().index;
        let Some(machine) = &mut self.machine else {
            return Ok(());
        };
        if !machine.bytes().has_own_disk() {
            return Ok(());
        }
        let ledger = self.ledger.encode();
        let kept = guarded(|| machine.bytes().keep(index, &ledger));
        let kept = kept.and_then(|kept| kept.map_err(|error| error.to_string()));
        kept.map_err(|message| NodeFailure::StateMachine { index, message })
    }

    /// Captures the state as it is now.
    ///
    /// # Errors
    /// The machine panicked.
    pub(crate) fn capture(&mut self) -> Result<Captured, NodeFailure> {
        let index = self.applied().index;
        let machine = match &mut self.machine {
            None => None,
            Some(machine) => {
                let captured = guarded(|| machine.bytes().snapshot());
                Some(captured.map_err(|message| NodeFailure::StateMachine { index, message })?)
            }
        };
        Ok(Captured {
            cluster: self.cluster,
            ledger: self.ledger.clone(),
            machine,
        })
    }

    /// The log begins here now.
    pub(crate) fn log_begins_at(&mut self, first: LogIndex) {
        self.ledger.forget_before(first);
    }
}

/// Why a state could not be had back at a start.
pub(crate) enum RecoverError {
    OwnDisk(String),
    Snapshot { last: LogId, why: String },
}

/// Runs the program's code; what a panic in it said is the error.
pub(crate) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        format!(
            "panicked: {}",
            text.as_deref().unwrap_or("without a message")
        )
    })
}
