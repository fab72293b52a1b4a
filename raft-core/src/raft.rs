//! The protocol's state and the one way into it, [`Raft::step`].
//!
//! What all roles share lives here: the term rule, the log, the election timer, and what a step gathers
//! up to hand out at its end. What a role does with its messages is in the file of its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::leader::Leading;
use crate::log::Log;
use crate::membership::Configuration;
use crate::reads::Asking;
use crate::rng::Rng;
use crate::roster::Roster;
use crate::writes::Writes;
use crate::{
    Commit, Config, ConfigError, DurableMessage, Effect, Entry, Envelope, HardState,
    HeartbeatResponse, Input, LogId, LogIndex, Message, NodeId, OpenMessage, Persist,
    PreVoteResponse, Recovered, Rejection, RequestId, Role, Round, SnapshotMeta, SnapshotWrite,
    Status, StepDown, Term, Unsound, Violation, Withheld, WriteId,
};

/// One replica's protocol state. See the [crate's documentation](crate).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(crate) config: Config,
    pub(crate) hard_state: HardState,
    pub(crate) role: RoleState,
    pub(crate) leader: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) roster: Roster,
    pub(crate) snapshot: Option<SnapshotMeta>,
    /// The snapshots that are on their way to others, by their last entries, whoever leads meanwhile: one for
    /// each receiver.
    pub(crate) sending: BTreeMap<NodeId, LogIndex>,
    /// A snapshot that replaced the log, and the write with which it becomes this node's state.
    pub(crate) restoring: Option<(WriteId, SnapshotMeta)>,
    pub(crate) writes: Writes,
    pub(crate) commit: LogIndex,
    pub(crate) handed_out: LogIndex,
    /// Ticks that this node lived through.
    pub(crate) ticks: u64,
    /// Ticks since the start, those that it slept through among them.
    pub(crate) clock: u64,
    /// The tick at which it last heard from a leader, of whatever term; at first that of its start, for
    /// who knows what it has heard before.
    pub(crate) heard: u64,
    /// Ticks since the election timer was reset.
    pub(crate) election_elapsed: u32,
    /// The ticks at which it runs out.
    pub(crate) election_timeout: u32,
    /// Ticks until the next pre-vote that does not wait for that timer, because the leader is gone.
    pub(crate) early: Option<u32>,
    pub(crate) rng: Rng,
    /// The name of the last read of the log: never used again, so that no answer is taken for another's.
    pub(crate) reads: RequestId,
    /// What this node asks its leader on behalf of its own reads.
    pub(crate) asking: Asking,
    pub(crate) gathered: Gathered,
    halted: bool,
}

/// What a node is, with what only that role knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RoleState {
    Follower,
    PreCandidate {
        votes: BTreeMap<NodeId, bool>,
        /// Whether the leader wants it (thesis §3.10): then hearing from that leader ends nothing.
        transfer: bool,
    },
    Candidate {
        votes: BTreeMap<NodeId, bool>,
        own_vote: WriteId,
    },
    Leader(Leading),
}

/// What one step has gathered for its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Gathered {
    pub(crate) effects: Vec<Effect>,
    pub(crate) hard_state_changed: bool,
    pub(crate) snapshot: Option<Box<SnapshotWrite>>,
    pub(crate) truncate_from: Option<LogIndex>,
    /// Runs of entries that follow each other.
    pub(crate) append: Vec<Arc<[Entry]>>,
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
        let (at, base) = match &recovered.snapshot {
            Some(snapshot) => (snapshot.last.index, Arc::clone(&snapshot.configuration)),
            None => (LogIndex::ZERO, Arc::new(config.initial.clone())),
        };
        let applied = recovered.applied.max(at);
        let log = Log::new(
            recovered.log_start,
            recovered.last,
            recovered.terms,
            recovered.tail,
        );
        let mut raft = Self {
            rng: Rng::new(config.seed),
            asking: Asking::new(config.start),
            config,
            hard_state: recovered.hard_state,
            role: RoleState::Follower,
            leader: None,
            roster: Roster::new(at, base, recovered.configurations),
            snapshot: recovered.snapshot,
            sending: BTreeMap::new(),
            restoring: None,
            writes: Writes::new(log.last().index),
            log,
            commit: applied,
            handed_out: applied,
            ticks: 0,
            clock: 0,
            heard: 0,
            election_elapsed: 0,
            election_timeout: 0,
            early: None,
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
            self.continue_change();
            self.tell_commit();
            self.resign_if_removed();
            let now = (self.role(), self.term(), self.leader);
            if before != now {
                self.forget_questions();
            }
            self.gather_write();
            self.gather_commit();
            if before != now {
                let (role, term, leader) = now;
                let effect = Effect::RoleChanged { role, term, leader };
                self.gathered.effects.push(effect);
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
            Input::Paused { ticks } => self.clock = self.clock.saturating_add(ticks),
            Input::Received(envelope) => return self.receive(envelope),
            Input::SnapshotReceived { from, message } => {
                self.snapshot_received(from, &message);
            }
            Input::Propose(commands) => self.propose(commands),
            Input::ReadIndex(read) => self.read_index(read),
            Input::ChangeMembership(change) => self.change_membership(&change),
            Input::TransferLeadership { to } => self.transfer_leadership(to),
            Input::Persisted { through } => self.persisted(through),
            Input::EntriesRead { request, result } => return self.entries_read(request, result),
            Input::SnapshotTaken(snapshot) => self.snapshot_taken(snapshot),
            Input::SnapshotSent { to, arrived } => self.snapshot_sent(to, arrived),
            Input::PeerUnreachable(peer) => self.peer_unreachable(peer),
            Input::PeerGone(peer) => self.peer_gone(peer),
            Input::PeerForgot(peer) => self.peer_forgot(peer),
            Input::Campaign => self.campaign(),
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

    /// How far the log is known to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// How far the log has been handed out, by [`Effect::Commit`] and [`Effect::Restore`].
    #[must_use]
    pub fn handed_out(&self) -> LogIndex {
        self.handed_out
    }

    /// How far this node's own log is durable.
    #[must_use]
    pub fn durable(&self) -> LogIndex {
        self.writes.durable()
    }

    /// Whether [`Input::Persisted`] for all that is on its way to the disk would have an effect now. If not, it may come with
    /// the next input, before it: a leader whose followers have not answered needs no word of its own disk yet, nor does a
    /// follower that has heard of no commit behind what it has written.
    #[must_use]
    pub fn awaits_disk(&self) -> bool {
        if self.writes.is_empty() {
            return false;
        }
        let decides = match &self.role {
            RoleState::Follower => false,
            RoleState::PreCandidate { .. } | RoleState::Candidate { .. } => true,
            RoleState::Leader(_) => self.committed_if(self.log.last().index) > self.commit,
        };
        decides || self.restoring.is_some() || self.commit > self.writes.durable()
    }

    /// This node's last entry.
    #[must_use]
    pub fn last(&self) -> LogId {
        self.log.last()
    }

    /// The last entry that the log does not hold any more; [`LogId::ZERO`] if it holds all.
    #[must_use]
    pub fn log_start(&self) -> LogId {
        self.log.start()
    }

    /// The configuration in effect: the last one in the log, committed or not (paper §6).
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        self.roster.latest()
    }

    /// The entry in which that stands; 0 if it is the initial one.
    #[must_use]
    pub fn configuration_index(&self) -> LogIndex {
        self.roster.latest_index()
    }

    /// This node's snapshot, or the one that is on its way to its disk.
    #[must_use]
    pub fn snapshot(&self) -> Option<&SnapshotMeta> {
        self.snapshot.as_ref()
    }

    /// What a snapshot of the state as of `index` stands for. None if that has not been handed out, or is
    /// covered by this node's snapshot, or if this node, which joined later, does not know who belonged to
    /// the cluster then.
    #[must_use]
    pub fn snapshot_at(&self, index: LogIndex) -> Option<SnapshotMeta> {
        let newest = self.snapshot.as_ref().map_or(LogId::ZERO, |s| s.last);
        if index > self.handed_out || index <= newest.index {
            return None;
        }
        let configuration = self.roster.at(index)?;
        if configuration.voters.is_empty() {
            return None;
        }
        Some(SnapshotMeta {
            last: LogId::new(self.log.term_at(index)?, index),
            configuration: Arc::clone(configuration),
        })
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
            log_start: self.log.start(),
            snapshot: self.snapshot.as_ref().map_or(LogId::ZERO, |s| s.last),
            configuration: Configuration::clone(self.roster.latest()),
            configuration_index: self.roster.latest_index(),
            transfer: self.transfer_target(),
            lease_until_ticks: self.lease_until(),
            peers: self.peer_statuses(),
        }
    }

    fn receive(&mut self, envelope: Envelope) -> Result<(), Violation> {
        if let Err(reason) = self.judge(&envelope) {
            self.ignore(envelope.from, reason);
            return Ok(());
        }
        let Envelope { from, message, .. } = envelope;
        if !self.apply_term_rule(from, &message) {
            return Ok(());
        }
        match message {
            Message::Open(OpenMessage::AppendEntries(m)) => return self.append_entries(from, m),
            Message::Open(OpenMessage::Heartbeat(m)) => self.heartbeat(from, &m),
            Message::Open(OpenMessage::CommitAdvanced(m)) => self.commit_advanced(from, &m),
            Message::Open(OpenMessage::TimeoutNow(_)) => self.timeout_now(from),
            Message::Open(OpenMessage::PreVote(m)) => self.pre_vote(from, &m),
            Message::Durable(DurableMessage::RequestVote(m)) => self.request_vote(from, &m),
            Message::Open(OpenMessage::PreVoteResponse(m)) => self.pre_vote_response(from, &m),
            Message::Durable(DurableMessage::VoteResponse(m)) => self.vote_response(from, &m),
            Message::Open(OpenMessage::HeartbeatResponse(m)) => self.heartbeat_response(from, &m),
            Message::Durable(DurableMessage::AppendResponse(m)) => self.append_response(from, &m),
            Message::Open(OpenMessage::ReadIndex(m)) => self.follower_reads(from, &m),
            Message::Open(OpenMessage::ReadIndexResponse(m)) => self.question_answered(from, &m),
        }
        Ok(())
    }

    /// The term rule (paper §5.1), once for all messages. Says whether the message counts.
    fn apply_term_rule(&mut self, from: NodeId, message: &Message) -> bool {
        let term = message.term();
        if let Message::Durable(DurableMessage::RequestVote(m)) = message
            && !m.transfer
            && term > self.term()
            && self.is_bound(from)
        {
            // Whoever has a leader lets nobody depose it (thesis §4.2.3).
            return false;
        }
        if term > self.term() {
            // Who leads must hear that it does no more; anybody else is asked again.
            if self.writes.is_full() && !matches!(self.role, RoleState::Leader(_)) {
                return false;
            }
            match message {
                // Nobody has entered the term that a pre-vote is about (thesis §9.6).
                Message::Open(OpenMessage::PreVote(_))
                | Message::Open(OpenMessage::PreVoteResponse(PreVoteResponse {
                    granted: true,
                    ..
                })) => {}
                _ => self.become_follower(term, None),
            }
        } else if term < self.term() {
            self.teach_term(from, message);
            return false;
        }
        true
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
                | OpenMessage::CommitAdvanced(_)
                | OpenMessage::ReadIndex(_),
            )
            | Message::Durable(DurableMessage::RequestVote(_)) => self.tell_term(from),
            _ => {}
        }
    }

    /// Tells a node of an older term which one it is.
    pub(crate) fn tell_term(&mut self, to: NodeId) {
        let (term, round) = (self.term(), Round(0));
        self.send(
            to,
            OpenMessage::HeartbeatResponse(HeartbeatResponse { term, round }),
        );
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.clock = self.clock.saturating_add(1);
        if matches!(self.role, RoleState::Leader(_)) {
            self.tick_leader();
            return;
        }
        self.tick_questions();
        self.tick_election();
    }

    fn persisted(&mut self, through: WriteId) {
        if self.writes.finish(through, self.ticks) {
            self.own_vote_persisted(through);
            self.advance_commit();
        }
    }

    /// Whether this node leads, or has heard from its leader within the shortest election timeout.
    pub(crate) fn has_leader(&self) -> bool {
        matches!(self.role, RoleState::Leader(_)) || self.leader.is_some() && self.heard_lately()
    }

    /// Whether this node must not help anybody but `candidate`'s rivals: it has a leader, or has promised
    /// one, of whatever term, to wait (thesis §6.4.1).
    pub(crate) fn is_bound(&self, candidate: NodeId) -> bool {
        // Its own leader may ask: then it does not lead any more.
        if self.leader == Some(candidate) {
            return false;
        }
        self.has_leader() || self.config.lease_drift_ticks.is_some() && self.heard_lately()
    }

    /// Whether a leader, of whatever term, was heard within the shortest election timeout. With leases on
    /// the time before the start counts as heard.
    pub(crate) fn heard_lately(&self) -> bool {
        self.ticks - self.heard < u64::from(self.config.election_timeout_ticks_min)
    }

    /// Whether a write waits, and none was finished, for an election timeout. Who cannot write can neither
    /// vote nor lead.
    pub(crate) fn disk_is_stuck(&self) -> bool {
        let patience = u64::from(self.config.election_timeout_ticks_min);
        let since = self.writes.stuck_since();
        since.is_some_and(|since| self.ticks - since >= patience)
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
        let led = matches!(self.role, RoleState::Leader(_));
        if led {
            self.leave_office(StepDown::HigherTerm);
        }
        if leader.is_some() || led {
            self.reset_election_timer();
        }
        if leader.is_some() {
            self.early = None;
        }
        self.role = RoleState::Follower;
        self.leader = leader;
    }

    /// Leads no more, for a reason of its own.
    pub(crate) fn step_down(&mut self, why: StepDown) {
        self.leave_office(why);
        self.reset_election_timer();
        self.role = RoleState::Follower;
        self.leader = None;
    }

    /// Draws a new timeout and counts from 0 (paper §5.2). Who is to leave the lead to a voter of higher
    /// priority lets it go first.
    pub(crate) fn reset_election_timer(&mut self) {
        let (min, max) = (
            self.config.election_timeout_ticks_min,
            self.config.election_timeout_ticks_max,
        );
        let roster = self.roster.latest();
        let own = roster.priority(self.config.id);
        let behind = roster
            .priorities
            .iter()
            .any(|(id, priority)| *priority > own && roster.votes(*id));
        self.election_elapsed = 0;
        let more = if behind { max - min } else { 0 };
        self.election_timeout = self.rng.between(min, max).saturating_add(more);
    }

    /// All other voters, in order.
    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        let roster = self.roster.latest();
        let all = roster.voters.union(&roster.voters_outgoing);
        all.copied().filter(|id| *id != self.config.id).collect()
    }

    pub(crate) fn send(&mut self, to: NodeId, message: OpenMessage) {
        self.gathered.effects.push(Effect::Send { to, message });
    }

    /// Says `message` once everything that this step changes is durable.
    pub(crate) fn send_durable(&mut self, to: NodeId, message: DurableMessage) {
        self.gathered.then.push((to, message));
    }

    pub(crate) fn reject(&mut self, rejection: Rejection) {
        self.gathered.effects.push(Effect::Rejected(rejection));
    }

    pub(crate) fn ignore(&mut self, from: NodeId, reason: Unsound) {
        self.gathered.effects.push(Effect::Ignored { from, reason });
    }

    /// Another configuration is in effect.
    pub(crate) fn configuration_changed(&mut self) {
        let configuration = Arc::clone(self.roster.latest());
        let effect = Effect::ConfigurationChanged(configuration);
        self.gathered.effects.push(effect);
    }

    /// Makes one write of all that the step wants durable, ahead of its other effects.
    fn gather_write(&mut self) {
        let gathered = &mut self.gathered;
        let nothing = !gathered.hard_state_changed
            && gathered.snapshot.is_none()
            && gathered.truncate_from.is_none()
            && gathered.append.is_empty()
            && gathered.then.is_empty();
        if nothing {
            return;
        }
        let append = match &mut gathered.append[..] {
            [one] => Arc::clone(one),
            runs => runs.iter().flat_map(|run| run.iter().cloned()).collect(),
        };
        gathered.append.clear();
        let persist = Persist {
            write: self.writes.begin(self.log.last().index, self.ticks),
            hard_state: std::mem::take(&mut gathered.hard_state_changed).then_some(self.hard_state),
            snapshot: gathered.snapshot.take(),
            truncate_from: gathered.truncate_from.take(),
            append,
            then: Withheld::new(std::mem::take(&mut gathered.then)),
        };
        gathered.effects.insert(0, Effect::Persist(persist));
    }

    /// Hands out what is committed and durable here.
    fn gather_commit(&mut self) {
        if let Some((write, _)) = &self.restoring {
            if !self.writes.is_finished(*write) {
                return;
            }
            if let Some((_, snapshot)) = self.restoring.take() {
                self.handed_out = snapshot.last.index;
                self.gathered.effects.push(Effect::Restore(snapshot));
            }
        }
        let through = self.commit.min(self.writes.durable());
        if through <= self.handed_out {
            return;
        }
        let from = self.handed_out.next().max(self.log.tail_first());
        let entries = if from <= through {
            self.log.slice(from, through, usize::MAX, usize::MAX)
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
        let snapshot = self.snapshot.as_ref().map_or(LogId::ZERO, |s| s.last);
        check(
            self.log.start().index <= snapshot.index && snapshot.index <= self.commit,
            "the log's start, the snapshot and the commit index are out of order",
        )?;
        check(
            self.log.contains(snapshot),
            "the log does not hold the snapshot's end",
        )?;
        check(
            self.handed_out >= snapshot.index || self.restoring.is_some(),
            "a snapshot was never handed out",
        )?;
        check(
            self.roster.latest_index() <= last && self.roster.latest().validate().is_none(),
            "the configuration in effect is none of the log",
        )?;
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
