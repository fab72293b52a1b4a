//! What goes to the standard output: lines for people, or JSON for scripts.

use std::io::{BufWriter, ErrorKind, Stdout, Write, stdout};

use serde_json::Value;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done, and all is well.
    Good = 0,
    /// Something is wrong with the folder, or it was refused.
    Bad = 1,
    /// The question was wrong, or nothing was done for want of `--yes`.
    NotDone = 2,
}

/// The standard output.
pub(crate) struct Out {
    json: bool,
    to: BufWriter<Stdout>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            to: BufWriter::new(stdout()),
        }
    }

    /// Whether it is JSON that is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people.
    pub(crate) fn line(&mut self, line: impl AsRef<str>) -> anyhow::Result<()> {
        if !self.json {
            writeln!(self.to, "{}", line.as_ref().trim_end())?;
        }
        Ok(())
    }

    /// A value for scripts, on a line of its own.
    pub(crate) fn json(&mut self, value: impl FnOnce() -> Value) -> anyhow::Result<()> {
        if self.json {
            writeln!(self.to, "{}", value())?;
        }
        Ok(())
    }

    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.to.flush()?)
    }
}

/// Whether the reader has gone, which is no failure: `raftctl log entries DIR | head`.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}
