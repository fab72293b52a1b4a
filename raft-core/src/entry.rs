//! What the log is made of.

use bytes::Bytes;

use crate::{LogId, LogIndex, Term};

/// What an entry's data means. The number is what disks and wires carry; it never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A new leader's first entry: lets it commit what earlier terms left behind (paper §8). No data.
    Noop = 0,
    /// A command that somebody proposed. The core never looks into it.
    Command = 1,
    /// The very first entry of a log, in place of the no-op: who the cluster is. The core never looks
    /// into it; [`Config::birth`](crate::Config::birth) supplies it.
    Birth = 2,
    /// Who belongs to the cluster from here on: a [`Configuration`](crate::membership::Configuration),
    /// encoded. It is in effect as soon as it is appended (paper §6).
    Configuration = 3,
}

impl EntryKind {
    /// The kind that `number` stands for; none for a number that this version does not know.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Noop),
            1 => Some(Self::Command),
            2 => Some(Self::Birth),
            3 => Some(Self::Configuration),
            _ => None,
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its term and position.
    pub id: LogId,
    /// What `data` means.
    pub kind: EntryKind,
    /// The command. Cloning an entry shares it; the core never copies it.
    pub data: Bytes,
}

/// What an entry costs beside its data, in every limit that counts bytes of entries.
pub const ENTRY_OVERHEAD_BYTES: usize = 32;

impl Entry {
    /// An entry of `term` at `index`.
    #[must_use]
    pub fn new(term: Term, index: LogIndex, kind: EntryKind, data: Bytes) -> Self {
        Self {
            id: LogId::new(term, index),
            kind,
            data,
        }
    }

    /// What the entry counts for in every limit in bytes: its data and [`ENTRY_OVERHEAD_BYTES`].
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.data.len() + ENTRY_OVERHEAD_BYTES
    }
}
