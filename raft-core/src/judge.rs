//! What no working node could have sent, as far as a message itself and this node's own state show it.
//!
//! A member is trusted to follow the protocol, and may be broken or captured all the same. What it says can be
//! wrong in ways that only the others know (it says that it leads a new term); that is beyond Raft. What can be
//! seen is refused here, before anything else happens to the message: it deposes nobody, counts as no sign of
//! life, and is no claim of its sender's disk.
//!
//! Invariants: judging changes nothing; what a working node sends is never refused, however late it comes.

use crate::membership::Configuration;
use crate::raft::{Raft, RoleState};
use crate::{
    AppendEntries, AppendOutcome, DurableMessage, EntryKind, Envelope, InstallSnapshot, LogId,
    LogIndex, Message, NodeId, OpenMessage, PreVoteResponse, Term,
};

/// So many terms nobody is ahead of anybody: at two elections a second they take 68 years. Without this bound
/// one message with the highest term would leave no room for any further election.
pub const TERM_LEAP_MAX: u64 = 1 << 32;

macro_rules! unsound {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal, $text:literal;)*) => {
        /// Why the core does not take in a message. Nothing else happens to it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
        #[non_exhaustive]
        pub enum Unsound {
            $($(#[doc = $doc])* #[error($text)] $kind,)*
        }

        impl Unsound {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// One word, for counters.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

unsound! {
    /// It is for another node, or from none.
    Misdirected = "misdirected", "its sender or receiver is not of this cluster";
    /// Nobody acts in term 0.
    TermZero = "term_zero", "it is of term 0";
    /// The term is more than [`TERM_LEAP_MAX`] ahead of this node's, or above [`Term::MAX`].
    TermBeyond = "term_beyond", "its term is beyond all elections";
    /// An index without a term, a term without an index, an index above [`LogIndex::LIMIT`], or a term that is
    /// later than the message's own.
    Position = "position", "it names a position that no log has";
    /// A candidate's last entry is older than the term in which it stands.
    Candidate = "candidate", "its sender has an entry of the term that it would enter";
    /// The entries do not follow `prev` one by one, in terms that never fall and that the leader has seen.
    Run = "run", "its entries are no run behind prev";
    /// A configuration that cannot be read, or cannot be.
    Configuration = "configuration", "one of its entries is no configuration";
    /// A leader says how far the log is committed only as far as its receiver has it.
    Commit = "commit", "it takes for acknowledged what is not in the log";
    /// No round of heartbeats with that number was begun.
    Round = "round", "it answers a heartbeat that was never sent";
    /// The leader's log ends before.
    Acknowledged = "acknowledged", "it acknowledges what was never sent";
    /// A term has one leader (paper §5.2), and this node knows it. Two that were truly elected would mean that a
    /// disk lost a vote: this node stays with the first, and the other one hears nothing from it.
    AnotherLeads = "another_leads", "another node leads its term";
    /// No leader offers such a snapshot.
    Snapshot = "snapshot", "its snapshot cannot be one";
}

impl Raft {
    /// Whether a working node could have sent this, as far as this node can tell. [`step`](Self::step) asks by
    /// itself; a caller who draws conclusions of its own from messages asks first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, envelope: &Envelope) -> Result<(), Unsound> {
        let Envelope { from, to, message } = envelope;
        // Who is no member, as far as this node knows, may be one already: a new leader, or a candidate
        // whose configuration this node has not seen (paper §6).
        if *to != self.config.id || from == to || *from == NodeId(0) {
            return Err(Unsound::Misdirected);
        }
        self.judge_term(message)?;
        let (term, last) = (message.term(), self.log.last().index);
        match message {
            Message::Open(OpenMessage::AppendEntries(m)) => is_run(m)?,
            Message::Open(OpenMessage::PreVote(m)) => stands(m.term, m.last)?,
            Message::Durable(DurableMessage::RequestVote(m)) => stands(m.term, m.last)?,
            Message::Open(OpenMessage::Heartbeat(m)) if m.commit > last => {
                return Err(Unsound::Commit);
            }
            Message::Open(OpenMessage::CommitAdvanced(m)) if m.commit > last => {
                return Err(Unsound::Commit);
            }
            Message::Open(OpenMessage::HeartbeatResponse(m))
                if self.leads(term) && m.round > self.round_in_progress() =>
            {
                return Err(Unsound::Round);
            }
            Message::Open(OpenMessage::ReadIndexResponse(m))
                if m.index.is_some_and(|index| index > LogIndex::LIMIT) =>
            {
                return Err(Unsound::Position);
            }
            Message::Durable(DurableMessage::AppendResponse(m)) => match m.outcome {
                AppendOutcome::Accepted { matched } if self.leads(term) && matched > last => {
                    return Err(Unsound::Acknowledged);
                }
                AppendOutcome::Rejected { prev, hint } => {
                    is_position(hint, term)?;
                    if hint.index > prev {
                        return Err(Unsound::Position);
                    }
                }
                AppendOutcome::Accepted { .. } => {}
            },
            _ => {}
        }
        if is_leaders(message) && term == self.term() {
            self.may_lead(*from)?;
        }
        Ok(())
    }

    /// As [`judge`](Self::judge), of a snapshot.
    pub(crate) fn judge_snapshot(&self, from: NodeId, m: &InstallSnapshot) -> Result<(), Unsound> {
        if from == self.config.id || from == NodeId(0) {
            return Err(Unsound::Misdirected);
        }
        if !m.is_sound() {
            return Err(Unsound::Snapshot);
        }
        self.is_near(m.term)?;
        if m.term == self.term() {
            self.may_lead(from)?;
        }
        Ok(())
    }

    fn judge_term(&self, message: &Message) -> Result<(), Unsound> {
        let refused = matches!(
            message,
            Message::Open(OpenMessage::PreVoteResponse(PreVoteResponse {
                granted: false,
                ..
            }))
        );
        match message.term() {
            // A node that has seen no term yet can only refuse a pre-vote in it.
            Term(0) if !refused => Err(Unsound::TermZero),
            term => self.is_near(term),
        }
    }

    fn is_near(&self, term: Term) -> Result<(), Unsound> {
        let leap = term.0.saturating_sub(self.term().0);
        if term > Term::MAX || leap > TERM_LEAP_MAX {
            return Err(Unsound::TermBeyond);
        }
        Ok(())
    }

    /// Whether `from` may be the leader of the current term.
    fn may_lead(&self, from: NodeId) -> Result<(), Unsound> {
        match self.leader {
            Some(leader) if leader != from => Err(Unsound::AnotherLeads),
            _ => Ok(()),
        }
    }

    fn leads(&self, term: Term) -> bool {
        matches!(self.role, RoleState::Leader(_)) && term == self.term()
    }
}

/// Whether only a leader of the message's term sends such a message.
fn is_leaders(message: &Message) -> bool {
    matches!(
        message,
        Message::Open(
            OpenMessage::AppendEntries(_)
                | OpenMessage::Heartbeat(_)
                | OpenMessage::CommitAdvanced(_)
                | OpenMessage::TimeoutNow(_)
        )
    )
}

/// Whether a log that has seen no term after `term` can have `id`.
fn is_position(id: LogId, term: Term) -> Result<(), Unsound> {
    let whole = (id.term == Term(0)) == (id.index == LogIndex::ZERO);
    if !whole || id.index > LogIndex::LIMIT || id.term > term {
        return Err(Unsound::Position);
    }
    Ok(())
}

/// Whether a node whose log ends with `last` can stand in `term`, which nobody was in before it.
fn stands(term: Term, last: LogId) -> Result<(), Unsound> {
    is_position(last, term)?;
    if last.term == term {
        return Err(Unsound::Candidate);
    }
    Ok(())
}

/// Whether the entries follow `prev` without a gap, in terms that never fall and that the leader has seen,
/// at positions that a log can have; and each configuration among them is one.
fn is_run(m: &AppendEntries) -> Result<(), Unsound> {
    is_position(m.prev, m.term)?;
    let mut before = m.prev;
    for entry in m.entries.iter() {
        let follows = entry.id.index == before.index.next() && entry.id.index > before.index;
        if !follows || entry.id.term < before.term.max(Term(1)) {
            return Err(Unsound::Run);
        }
        let is_configuration = entry.kind == EntryKind::Configuration;
        if is_configuration && Configuration::decode(&entry.data).is_err() {
            return Err(Unsound::Configuration);
        }
        before = entry.id;
    }
    if before.term > m.term || before.index > LogIndex::LIMIT {
        return Err(Unsound::Run);
    }
    Ok(())
}
