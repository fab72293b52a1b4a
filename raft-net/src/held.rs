//! What a peer has said of its disk to this node, and whether what it came back with can be that disk.
//!
//! A disk that loses the end of what it had synced, and with it all that would show the loss, cannot be
//! noticed by its own node. Those to whom the node acknowledged can notice it.
//!
//! - A [`Claim`] is a promise of the disk, not of the process: it binds every later start of the node.
//! - Terms never fall. Who has claimed a term comes back in it or in a later one.
//! - In the same term nothing that its leader was told to be there is cut. In a later one another leader
//!   may rightly have cut it, so that nothing follows from the claim,
//! - except for what was committed: no leader ever cuts that.
//!
//! So a loss that is told is one. Not every loss is seen: what was acknowledged in an older term and was
//! not known to be committed may be cut or lost.

use raft_core::{LogId, LogIndex, Term};

/// What a node's disk held when its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The term.
    pub term: Term,
    /// The last entry of the log.
    pub last: LogId,
}

/// What a message says of its sender's disk. The later term is the greater claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The disk has this term, or a later one.
    pub term: Term,
    /// In this term the log holds all through here, as this term's leader has it; 0 if nothing is said.
    pub through: LogIndex,
}

/// All that a peer has claimed to this node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claims {
    greatest: Claim,
    /// The peer has all through here, and it is committed.
    committed: LogIndex,
}

impl Claims {
    pub(crate) fn note(&mut self, claim: Claim) {
        self.greatest = self.greatest.max(claim);
    }

    /// This node leads `term`, and all through `commit` is committed. Of a claim of another term it is
    /// not known whether it was about the same entries.
    pub(crate) fn commit(&mut self, term: Term, commit: LogIndex) {
        if self.greatest.term == term {
            self.committed = self.committed.max(commit.min(self.greatest.through));
        }
    }

    /// What was claimed and is not there.
    pub(crate) fn missing(&self, held: Held) -> Option<Claim> {
        let Claim { term, through } = self.greatest;
        let all = self.committed.max(through);
        let through = if held.term < term || held.term == term && held.last.index < through {
            all
        } else if held.last.index < self.committed {
            self.committed
        } else {
            return None;
        };
        Some(Claim { term, through })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(term: u64, last: (u64, u64)) -> Held {
        Held {
            term: Term(term),
            last: LogId::new(Term(last.0), LogIndex(last.1)),
        }
    }

    fn claim(term: u64, through: u64) -> Claim {
        Claim {
            term: Term(term),
            through: LogIndex(through),
        }
    }

    fn claims(all: &[(u64, u64)]) -> Claims {
        let mut claims = Claims::default();
        for (term, through) in all {
            claims.note(claim(*term, *through));
        }
        claims
    }

    #[test]
    fn who_comes_back_with_less_in_the_same_term_has_lost_it() {
        let claims = claims(&[(3, 8), (3, 10), (3, 9)]);
        assert_eq!(claims.missing(held(3, (3, 9))), Some(claim(3, 10)));
        assert_eq!(claims.missing(held(3, (2, 9))), Some(claim(3, 10)));
        assert_eq!(claims.missing(held(3, (3, 10))), None);
        assert_eq!(claims.missing(held(3, (3, 12))), None);
    }

    #[test]
    fn who_comes_back_in_an_older_term_has_lost_it_whatever_its_log_is() {
        assert_eq!(
            claims(&[(3, 8)]).missing(held(2, (2, 20))),
            Some(claim(3, 8))
        );
        // A vote, or a refusal, claims the term alone.
        assert_eq!(
            claims(&[(2, 5), (3, 0)]).missing(held(2, (2, 5))),
            Some(claim(3, 0))
        );
        assert_eq!(claims(&[(3, 0)]).missing(held(3, (1, 1))), None);
    }

    #[test]
    fn a_later_leader_may_have_cut_what_was_acknowledged() {
        assert_eq!(claims(&[(3, 10)]).missing(held(4, (2, 7))), None);
        assert_eq!(claims(&[(3, 10), (4, 0)]).missing(held(4, (2, 7))), None);
    }

    #[test]
    fn what_is_committed_nobody_may_have_cut() {
        let mut claims = claims(&[(3, 10)]);
        claims.commit(Term(3), LogIndex(8));
        assert_eq!(claims.missing(held(4, (4, 7))), Some(claim(3, 8)));
        assert_eq!(claims.missing(held(4, (4, 8))), None);
        // More is committed than the peer has said that it has.
        claims.commit(Term(3), LogIndex(12));
        assert_eq!(claims.missing(held(4, (4, 9))), Some(claim(3, 10)));
        assert_eq!(claims.missing(held(4, (4, 10))), None);
        // In another term other entries may stand there.
        let mut claims = self::claims(&[(3, 10)]);
        claims.commit(Term(4), LogIndex(10));
        assert_eq!(claims.missing(held(4, (4, 7))), None);
        // A newer claim takes nothing back.
        claims.commit(Term(3), LogIndex(10));
        claims.note(claim(5, 0));
        assert_eq!(claims.missing(held(6, (4, 7))), Some(claim(5, 10)));
    }
}
