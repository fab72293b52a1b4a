//! The smallest state machine: how many commands there were, and how long they were in all.

use std::io;

use bytes::Bytes;
use raft_actor::{ApplyError, At, BytesStateMachine, Capture, capture, restored};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    commands: u64,
    bytes: u64,
}

impl BytesStateMachine for Tally {
    fn apply(&mut self, _: At, command: &Bytes) -> Result<Bytes, ApplyError> {
        self.commands += 1;
        self.bytes += command.len() as u64;
        Ok(Bytes::new())
    }

    fn snapshot(&self) -> Capture {
        capture((self.commands, self.bytes))
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        (self.commands, self.bytes) = restored(from)?;
        Ok(())
    }
}
