//! The protocol's state and the one way into it, [`Raft::step`].
//!
//! What all roles share lives here: the term rule, the log, the election timer, and what a step gathers
//! up to hand out at its end. What a role does with its messages is in the file of its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::leader::Leading;
use crate::log::Log;
use crate::rng::Rng;
use crate::writes::Writes;
use crate::{
    Commit, Config, ConfigError, DurableMessage, Effect, Entry, Envelope, HardState,
    HeartbeatResponse, Input, LogIndex, Message, NodeId, OpenMessage, Persist, PreVoteResponse,
    Recovered, RequestId, Role, Status, Term, Violation, Withheld, WriteId,
};

/// One replica's protocol state. See the [crate's documentation](crate).
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) hard_state: HardState,
    pub(crate) role: RoleState,
    pub(crate) leader: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) writes: Writes,
    pub(crate) commit: LogIndex,
    pub(crate) handed_out: LogIndex,
    /// Ticks since the election timer was reset.
    pub(crate) election_elapsed: u32,
    /// The ticks at which it runs out.
    pub(crate) election_timeout: u32,
    pub(crate) rng: Rng,
    /// The name of the last read: never used again, so that no answer is taken for another's.
    pub(crate) reads: RequestId,
    pub(crate) gathered: Gathered,
    halted: bool,
}

/// What a node is, with what only that role knows.
#[derive(Clone, Debug)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate {
        votes: BTreeMap<NodeId, bool>,
    },
    Candidate {
        votes: BTreeMap<NodeId, bool>,
        own_vote: WriteId,
    },
    Leader(Leading),
}

/// What one step has gathered for its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gathered {
    pub(crate) effects: Vec<Effect>,
    pub(crate) hard_state_changed: bool,
    pub(crate) truncate_from: Option<LogIndex>,
    pub(crate) append: Vec<Entry>,
    pub(crate) then: Vec<(NodeId, DurableMessage)>,
}

impl Raft {
    /// A follower that knows what its disk held.
    ///
    /// # Errors
    /// A setting that is out of its range, or a recovered log that cannot be one.
    pub fn new(config: Config, recovered: Recovered) -> Result<Self, ConfigError> {
        config.validate()?;
        recovered.validate().map_err(ConfigError::Recovered)?;
        let log = Log::new(recovered.last, recovered.terms, recovered.tail);
        let mut raft = Self {
            rng: Rng::new(config.seed),
            config,
            hard_state: recovered.hard_state,
            role: RoleState::Follower,
            leader: None,
            writes: Writes::new(log.last().index),
            log,
            commit: LogIndex::ZERO,
            handed_out: LogIndex::ZERO,
            election_elapsed: 0,
            election_timeout: 0,
            reads: RequestId(0),
            gathered: Gathered::default(),
            halted: false,
        };
        raft.reset_election_timer();
        Ok(raft)
    }

    /// Takes in one thing that happened, and says what to do about it, in order.
    ///
    /// After an [`Effect::Halt`] it does nothing any more.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        if self.halted {
            return Vec::new();
        }
        let before = (self.role(), self.term(), self.leader);
        let mut outcome = self.take(input);
        if outcome.is_ok() {
            self.tell_commit();
            self.gather_write();
            self.gather_commit();
            if before != (self.role(), self.term(), self.leader) {
                let (role, term, leader) = (self.role(), self.term(), self.leader);
                self.gathered
                    .effects
                    .push(Effect::RoleChanged { role, term, leader });
            }
            if cfg!(debug_assertions) {
                outcome = self.invariants();
            }
        }
        if let Err(violation) = outcome {
            self.halted = true;
            return vec![Effect::Halt(violation)];
        }
        std::mem::take(&mut self.gathered.effects)
    }

    fn take(&mut self, input: Input) -> Result<(), Violation> {
        match input {
            Input::Tick => self.tick(),
            Input::Received(envelope) => return self.receive(envelope),
            Input::Propose(commands) => self.propose(commands),
            Input::Persisted { through } => self.persisted(through),
            Input::EntriesRead { request, result } => return self.entries_read(request, result),
            Input::PeerUnreachable(peer) => self.peer_unreachable(peer),
            Input::Campaign => {
                if !matches!(self.role, RoleState::Leader(_)) {
                    self.become_pre_candidate();
                }
            }
        }
        Ok(())
    }

    /// What this node is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower => Role::Follower,
            RoleState::PreCandidate { .. } => Role::PreCandidate,
            RoleState::Candidate { .. } => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// This node's id.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The leader of the current term, where it is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The whole picture, for people, metrics and tests.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            role: self.role(),
            term: self.term(),
            voted_for: self.hard_state.voted_for,
            leader: self.leader,
            commit: self.commit,
            handed_out: self.handed_out,
            durable: self.writes.durable(),
            last: self.log.last(),
            voters: self.config.voters.iter().copied().collect(),
            peers: self.peer_statuses(),
        }
    }

    /// The term rule (paper §5.1), once for all messages, then each to the file of its role.
    fn receive(&mut self, Envelope { from, to, message }: Envelope) -> Result<(), Violation> {
        if to != self.config.id || from == to || !self.config.voters.contains(&from) {
            self.ignore(from, "its sender or receiver is not of this cluster");
            return Ok(());
        }
        if let Err(reason) = message.validate() {
            self.ignore(from, reason);
            return Ok(());
        }
        let term = message.term();
        if term > self.term() {
            match &message {
                // Nobody has entered the term that a pre-vote is about (thesis §9.6).
                Message::Open(OpenMessage::PreVote(_))
                | Message::Open(OpenMessage::PreVoteResponse(PreVoteResponse {
                    granted: true,
                    ..
                })) => {}
                // Whoever has a leader lets nobody depose it (thesis §4.2.3).
                Message::Durable(DurableMessage::RequestVote(_)) if self.has_leader() => {
                    return Ok(());
                }
                _ => self.become_follower(term, None),
            }
        } else if term < self.term() {
            self.teach_term(from, &message);
            return Ok(());
        }
        match message {
            Message::Open(OpenMessage::AppendEntries(m)) => return self.append_entries(from, m),
            Message::Open(OpenMessage::Heartbeat(m)) => return self.heartbeat(from, &m),
            Message::Open(OpenMessage::CommitAdvanced(m)) => return self.commit_advanced(from, &m),
            Message::Open(OpenMessage::PreVote(m)) => self.pre_vote(from, &m),
            Message::Durable(DurableMessage::RequestVote(m)) => self.request_vote(from, &m),
            Message::Open(OpenMessage::PreVoteResponse(m)) => self.pre_vote_response(from, &m),
            Message::Durable(DurableMessage::VoteResponse(m)) => self.vote_response(from, &m),
            Message::Open(OpenMessage::HeartbeatResponse(_)) => self.heartbeat_response(from),
            Message::Durable(DurableMessage::AppendResponse(m)) => self.append_response(from, &m),
        }
        Ok(())
    }

    /// Answers a question from an older term with the current one; an answer needs none.
    fn teach_term(&mut self, from: NodeId, message: &Message) {
        let term = self.term();
        match message {
            Message::Open(OpenMessage::PreVote(_)) => {
                self.send(
                    from,
                    OpenMessage::PreVoteResponse(PreVoteResponse {
                        term,
                        granted: false,
                    }),
                );
            }
            Message::Open(
                OpenMessage::AppendEntries(_)
                | OpenMessage::Heartbeat(_)
                | OpenMessage::CommitAdvanced(_),
            )
            | Message::Durable(DurableMessage::RequestVote(_)) => {
                self.send(
                    from,
                    OpenMessage::HeartbeatResponse(HeartbeatResponse { term }),
                );
            }
            _ => {}
        }
    }

    fn tick(&mut self) {
        if matches!(self.role, RoleState::Leader(_)) {
            self.tick_leader();
            return;
        }
        self.election_elapsed += 1;
        if self.election_elapsed >= self.election_timeout {
            self.become_pre_candidate();
        }
    }

    fn persisted(&mut self, through: WriteId) {
        if self.writes.finish(through) {
            self.own_vote_persisted(through);
            self.advance_commit();
        }
    }

    /// Whether this node leads, or has heard from a leader within the shortest election timeout.
    pub(crate) fn has_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_))
            || self.leader.is_some()
                && self.election_elapsed < self.config.election_timeout_ticks_min
    }

    /// Enters `term` if it is a new one, and follows `leader` in it.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.term() {
            self.hard_state = HardState {
                term,
                voted_for: None,
            };
            self.gathered.hard_state_changed = true;
        }
        if leader.is_some() || matches!(self.role, RoleState::Leader(_)) {
            self.reset_election_timer();
        }
        self.role = RoleState::Follower;
        self.leader = leader;
    }

    /// Draws a new timeout and counts from 0 (paper §5.2).
    pub(crate) fn reset_election_timer(&mut self) {
        self.election_elapsed = 0;
        self.election_timeout = self.rng.between(
            self.config.election_timeout_ticks_min,
            self.config.election_timeout_ticks_max,
        );
    }

    /// All other voters, in order.
    pub(crate) fn peers(&self) -> Vec<NodeId> {
        self.config
            .voters
            .iter()
            .copied()
            .filter(|id| *id != self.config.id)
            .collect()
    }

    pub(crate) fn send(&mut self, to: NodeId, message: OpenMessage) {
        self.gathered.effects.push(Effect::Send { to, message });
    }

    /// Says `message` once everything that this step changes is durable.
    pub(crate) fn send_durable(&mut self, to: NodeId, message: DurableMessage) {
        self.gathered.then.push((to, message));
    }

    pub(crate) fn ignore(&mut self, from: NodeId, reason: &'static str) {
        self.gathered.effects.push(Effect::Ignored { from, reason });
    }

    /// Makes one write of all that the step wants durable, ahead of its other effects.
    fn gather_write(&mut self) {
        let gathered = &mut self.gathered;
        let nothing = !gathered.hard_state_changed
            && gathered.truncate_from.is_none()
            && gathered.append.is_empty()
            && gathered.then.is_empty();
        if nothing {
            return;
        }
        let persist = Persist {
            write: self.writes.begin(self.log.last().index),
            hard_state: std::mem::take(&mut gathered.hard_state_changed).then_some(self.hard_state),
            truncate_from: gathered.truncate_from.take(),
            append: Arc::from(std::mem::take(&mut gathered.append)),
            then: Withheld::new(std::mem::take(&mut gathered.then)),
        };
        gathered.effects.insert(0, Effect::Persist(persist));
    }

    /// Hands out what is committed and durable here.
    fn gather_commit(&mut self) {
        let through = self.commit.min(self.writes.durable());
        if through <= self.handed_out {
            return;
        }
        let from = self.handed_out.next().max(self.log.tail_first());
        let entries = if from <= through {
            Arc::from(self.log.slice(from, through, usize::MAX, usize::MAX))
        } else {
            Arc::from([])
        };
        self.handed_out = through;
        self.log.shrink(self.config.tail_bytes_max, through);
        self.gathered
            .effects
            .push(Effect::Commit(Commit { through, entries }));
    }

    /// What must hold after every step; the first that does not is named. Debug builds check it.
    ///
    /// # Errors
    /// [`Violation::Invariant`].
    pub fn invariants(&self) -> Result<(), Violation> {
        let check = |holds: bool, what: &str| {
            if holds {
                Ok(())
            } else {
                Err(Violation::Invariant(format!("{what}: {:?}", self.status())))
            }
        };
        let (last, durable) = (self.log.last().index, self.writes.durable());
        self.log.check().map_err(Violation::Invariant)?;
        check(
            self.handed_out <= self.commit,
            "handed out what is not committed",
        )?;
        check(self.handed_out <= durable, "handed out what is not durable")?;
        check(
            self.commit <= last && durable <= last,
            "committed or durable beyond the log",
        )?;
        check(
            self.log.last().term <= self.term(),
            "an entry of a term that this node has not seen",
        )?;
        let leads = matches!(self.role, RoleState::Leader(_));
        check(
            leads == (self.leader == Some(self.config.id)),
            "leads itself unless it leads",
        )?;
        let stands = leads || matches!(self.role, RoleState::Candidate { .. });
        let own_vote = self.hard_state.voted_for == Some(self.config.id);
        check(!stands || own_vote, "stands without its own vote")?;
        for peer in self.peer_statuses() {
            check(
                peer.matched < peer.next,
                "a peer's next is not behind its match",
            )?;
            check(peer.next <= last.next(), "a peer's next is beyond the log")?;
        }
        Ok(())
    }
}
