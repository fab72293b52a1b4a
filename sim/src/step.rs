//! One step of one core: the input, what it says of the node, the checks, and the effects carried out.
//!
//! The order matters. What the effects do to the node's own picture of itself is taken in at once, for the
//! core believes all of it; then everything is checked; only then are the effects carried out one by one,
//! and between two of them the node may die.

use raft_core::{
    AppendOutcome, DurableMessage, Effect, Input, Message, NodeId, OpenMessage, PreVoteResponse,
    ReadFailure, Role, Term,
};

use crate::broken::Check;
use crate::events::Event;
use crate::node::Seen;
use crate::sets::Quorums;
use crate::world::World;

/// On whose behalf an input is, for those effects that answer it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    None,
    /// A client's write.
    Write {
        client: usize,
        attempt: u64,
    },
    /// A command that nobody waits for.
    Bulk,
    /// A change of members; whether it takes the leader away.
    Change,
    Transfer,
}

/// What the checks must know of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tick,
    Paused,
    PreVote {
        transfer: bool,
    },
    PreVoteGranted,
    PreVoteRefused,
    /// AppendEntries, a heartbeat or a commit index of this term.
    FromLeader(Term),
    AppendRefused,
    TimeoutNow,
    Message,
    SnapshotReceived,
    Propose,
    Read,
    Change,
    Transfer,
    Persisted,
    EntriesRead {
        compacted: bool,
    },
    SnapshotTaken,
    Gone,
    Campaign,
    Other,
}

/// An input, and the node before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) kind: Kind,
    pub(crate) before: Seen,
    /// The leader that the node knew.
    pub(crate) leader: Option<NodeId>,
    /// Whose process is said to be gone.
    pub(crate) gone: Option<NodeId>,
    /// The term of the message, if it is one.
    pub(crate) message_term: Option<Term>,
    /// Whether it was said to wait for its disk.
    pub(crate) awaits_disk: bool,
    /// Who decided before, if this node led.
    pub(crate) quorums: Option<Quorums>,
    pub(crate) context: Context,
}

impl About {
    /// Whether it is what only a leader sends.
    pub(crate) fn is_from_leader(&self) -> bool {
        matches!(
            self.kind,
            Kind::FromLeader(_) | Kind::TimeoutNow | Kind::SnapshotReceived
        )
    }
}

fn kind(input: &Input) -> Kind {
    match input {
        Input::Tick => Kind::Tick,
        Input::Paused { .. } => Kind::Paused,
        Input::Received(envelope) => match &envelope.message {
            Message::Open(OpenMessage::PreVote(m)) => Kind::PreVote {
                transfer: m.transfer,
            },
            Message::Open(OpenMessage::PreVoteResponse(PreVoteResponse { granted, .. })) => {
                match granted {
                    true => Kind::PreVoteGranted,
                    false => Kind::PreVoteRefused,
                }
            }
            Message::Open(OpenMessage::AppendEntries(m)) => Kind::FromLeader(m.term),
            Message::Open(OpenMessage::Heartbeat(m)) => Kind::FromLeader(m.term),
            Message::Open(OpenMessage::CommitAdvanced(m)) => Kind::FromLeader(m.term),
            Message::Open(OpenMessage::TimeoutNow(_)) => Kind::TimeoutNow,
            Message::Durable(DurableMessage::AppendResponse(m)) => match m.outcome {
                AppendOutcome::Rejected { .. } => Kind::AppendRefused,
                AppendOutcome::Accepted { .. } => Kind::Message,
            },
            _ => Kind::Message,
        },
        Input::SnapshotReceived { .. } => Kind::SnapshotReceived,
        Input::Propose(_) => Kind::Propose,
        Input::ReadIndex(_) => Kind::Read,
        Input::ChangeMembership(_) => Kind::Change,
        Input::TransferLeadership { .. } => Kind::Transfer,
        Input::Persisted { .. } => Kind::Persisted,
        Input::EntriesRead { result, .. } => Kind::EntriesRead {
            compacted: matches!(result, Err(ReadFailure::Compacted)),
        },
        Input::SnapshotTaken(_) => Kind::SnapshotTaken,
        Input::PeerGone(_) => Kind::Gone,
        Input::Campaign => Kind::Campaign,
        Input::SnapshotSent { .. } | Input::PeerUnreachable(_) | Input::PeerForgot(_) => {
            Kind::Other
        }
    }
}

impl World {
    /// Hands `input` to the core of a node, if that runs, and carries out what it answers.
    pub(crate) fn step(&mut self, n: usize, input: Input, context: Context) -> Check {
        let node = &mut self.nodes[n];
        let (id, Some(run)) = (node.id, node.run.as_mut()) else {
            return Ok(());
        };
        self.steps += 1;
        let leads = run.seen.role == Role::Leader;
        let about = About {
            kind: kind(&input),
            before: run.seen,
            leader: run.raft.leader(),
            gone: match &input {
                Input::PeerGone(peer) => Some(*peer),
                _ => None,
            },
            message_term: match &input {
                Input::Received(envelope) => Some(envelope.message.term()),
                Input::SnapshotReceived { message, .. } => Some(message.term),
                _ => None,
            },
            awaits_disk: run.raft.awaits_disk(),
            quorums: leads.then(|| Quorums::of(run.raft.configuration())),
            context,
        };
        self.digest = crate::digest::input(self.digest, self.now, n, &input);
        if self.trace {
            println!(
                "{:9.3}  n{id} <- {}",
                self.now as f64 / crate::fate::TICK as f64,
                crate::text::input(&input)
            );
        }
        let effects = run.raft.step(input);
        self.digest = crate::digest::effects(self.digest, &effects);
        if self.trace {
            for line in effects.iter().flat_map(crate::text::effect) {
                println!("           |  {line}");
            }
        }
        self.observe(n, &about, &effects)?;
        self.inspect(n, &about, &effects)?;
        self.witness(n, &about, &effects);
        let run = self.nodes[n].run.as_mut().unwrap();
        run.seen = Seen::of(&run.raft);
        self.carry_out_all(n, &about, effects)
    }

    fn carry_out_all(&mut self, n: usize, about: &About, effects: Vec<Effect>) -> Check {
        let several = effects.len() > 1;
        let dies = several && self.rough && self.random.rarely(self.fate.crash_between);
        let last = match dies {
            true => self.random.below(effects.len() as u64 - 1) as usize + 1,
            false => effects.len(),
        };
        for effect in effects.into_iter().take(last) {
            self.carry_out(n, about, effect)?;
            if !self.nodes[n].is_up() {
                return Ok(());
            }
        }
        if dies && self.may_crash(n) {
            self.count(Event::CrashBetweenEffects);
            self.crash(n)?;
        }
        Ok(())
    }

    /// Counts what the table of events asks for.
    fn witness(&mut self, n: usize, about: &About, effects: &[Effect]) {
        let run = self.nodes[n].run.as_ref().unwrap();
        let (role, ticks, gone_at) = (run.raft.role(), run.ticks, run.gone_at);
        let (term, leader) = (run.raft.term(), run.raft.leader());
        let Seen {
            role: old_role,
            term: old_term,
            ..
        } = about.before;
        let of_own_term = about.message_term == Some(old_term);
        if about.message_term.is_some_and(|message| message < old_term) {
            self.counts.add(Event::OldTermTaught);
        }
        match about.kind {
            Kind::PreVoteRefused => self.counts.add(Event::PreVoteRefused),
            Kind::AppendRefused if of_own_term => self.counts.add(Event::AppendRefused),
            Kind::FromLeader(_) if of_own_term && old_role == Role::Candidate => {
                self.count(Event::CandidateSawLeader);
            }
            Kind::Gone if about.leader.is_some() && leader.is_none() => {
                self.nodes[n].run.as_mut().unwrap().gone_at = Some(ticks);
            }
            Kind::Campaign if role != old_role || term != old_term => {
                self.count(Event::OperatorCampaign);
            }
            _ => {}
        }
        let stands = matches!(role, Role::PreCandidate | Role::Candidate);
        let stood = matches!(old_role, Role::PreCandidate | Role::Candidate);
        let soon = gone_at.is_some_and(|at| ticks <= at + 4);
        if stands && !stood && (soon || about.kind == Kind::Gone) {
            self.nodes[n].run.as_mut().unwrap().gone_at = None;
            self.count(Event::EarlyCampaign);
        }
        let taken = |effect: &Effect| matches!(effect, Effect::Persist(p) if p.snapshot.is_some());
        if matches!(about.kind, Kind::SnapshotTaken | Kind::SnapshotReceived) {
            match effects.iter().any(taken) {
                false => self.count(Event::SnapshotStale),
                true if about.kind == Kind::SnapshotTaken => self.count(Event::SnapshotTaken),
                true => {}
            }
        }
    }
}
