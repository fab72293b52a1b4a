//! Bytes from which everything is chosen.

use raft_core::{LogIndex, NodeId, Term};

/// What is left of them. Each choice is none at their end.
#[derive(Debug)]
pub(super) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    pub(super) fn below(&mut self, bound: u8) -> Option<u8> {
        self.byte().map(|byte| byte % bound)
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.byte().map(|byte| byte & 1 != 0)
    }

    /// Any number.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Some(u64::from_be_bytes(bytes))
    }

    /// A number near `base` most of the time, and else one near where some bound is.
    fn near(&mut self, base: u64) -> Option<u64> {
        Some(match self.byte()? {
            byte @ 0..220 => {
                let (up, by) = (byte & 1 == 0, u64::from(byte >> 1 & 15));
                if up {
                    base.saturating_add(by)
                } else {
                    base.saturating_sub(by)
                }
            }
            byte @ 220..228 => u64::from(byte - 220),
            byte @ 228..236 => (1 << 63) - 4 + u64::from(byte - 228),
            byte @ 236..244 => u64::MAX - u64::from(byte - 236),
            byte @ 244..250 => base.saturating_add(1 << (u64::from(byte - 244) * 10)),
            _ => self.number()?,
        })
    }

    pub(super) fn term(&mut self, now: Term) -> Option<Term> {
        // Most of what is said is said in this term, or nothing would ever happen.
        match self.byte()? {
            0..180 => Some(now),
            180..220 => Some(Term(now.0.saturating_add(1))),
            _ => self.near(now.0).map(Term),
        }
    }

    pub(super) fn index(&mut self, base: LogIndex) -> Option<LogIndex> {
        self.near(base.0).map(LogIndex)
    }

    /// A member, most of the time.
    pub(super) fn peer(&mut self) -> Option<NodeId> {
        Some(NodeId(match self.byte()? {
            0..120 => 2,
            120..230 => 3,
            230..240 => 4,
            240..250 => 1,
            _ => self.near(0)?,
        }))
    }
}
