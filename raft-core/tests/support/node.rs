//! One node, node 1, driven by hand: its peers are what a test says in their name.

use bytes::Bytes;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, Config, DurableMessage, Effect, Entry, EntryKind,
    Envelope, HardState, Heartbeat, Input, LogId, LogIndex, Message, NodeId, OpenMessage,
    PreVoteResponse, Raft, RequestVote, Role, Round, Term, VoteResponse, WriteId,
};

use super::disk::Disk;

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

pub(crate) fn entry(term: u64, index: u64) -> Entry {
    Entry::new(
        Term(term),
        LogIndex(index),
        EntryKind::Command,
        Bytes::from(format!("{index}@{term}")),
    )
}

pub(crate) fn config(voters: u64) -> Config {
    let mut config = Config::new(NodeId(1), (1..=voters).map(NodeId));
    config.heartbeat_ticks = 2;
    config.election_timeout_ticks_min = 10;
    config.election_timeout_ticks_max = 20;
    config
}

/// A disk with an entry of each of `terms`.
pub(crate) fn disk(term: u64, vote: Option<u64>, terms: &[u64]) -> Disk {
    let mut disk = Disk::default();
    disk.hard_state = HardState {
        term: Term(term),
        voted_for: vote.map(NodeId),
    };
    disk.log = terms.iter().zip(1..).map(|(t, i)| entry(*t, i)).collect();
    disk
}

/// Node 1, and the last write that it began.
pub(crate) struct Node {
    pub(crate) raft: Raft,
    pub(crate) last_write: WriteId,
}

impl Node {
    pub(crate) fn with(config: Config, disk: &Disk) -> Self {
        Self {
            raft: Raft::new(config, disk.recover(usize::MAX)).unwrap(),
            last_write: WriteId(0),
        }
    }

    /// One of three, in `term`, with an entry of each of `terms`.
    pub(crate) fn new(term: u64, vote: Option<u64>, terms: &[u64]) -> Self {
        Self::with(config(3), &disk(term, vote, terms))
    }

    /// The leader of the next term, its own writes not durable yet.
    pub(crate) fn leader(config: Config, term: u64, terms: &[u64]) -> Self {
        let voters = config.initial.voters.len() as u64;
        let mut node = Self::with(config, &disk(term, None, terms));
        let term = Term(term + 1);
        node.step(Input::Campaign);
        for peer in 2..=voters {
            let granted = true;
            node.open(
                peer,
                OpenMessage::PreVoteResponse(PreVoteResponse { term, granted }),
            );
        }
        node.persisted();
        for peer in 2..=voters {
            let granted = true;
            node.durable(
                peer,
                DurableMessage::VoteResponse(VoteResponse { term, granted }),
            );
        }
        assert_eq!(node.raft.role(), Role::Leader);
        node
    }

    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        let effects = self.raft.step(input);
        for effect in &effects {
            if let Effect::Persist(persist) = effect {
                self.last_write = persist.write;
            }
        }
        effects
    }

    pub(crate) fn receive(&mut self, from: u64, message: impl Into<Message>) -> Vec<Effect> {
        let (from, to, message) = (NodeId(from), NodeId(1), message.into());
        self.step(Input::Received(Envelope { from, to, message }))
    }

    pub(crate) fn open(&mut self, from: u64, message: OpenMessage) -> Vec<Effect> {
        self.receive(from, message)
    }

    pub(crate) fn durable(&mut self, from: u64, message: DurableMessage) -> Vec<Effect> {
        self.receive(from, message)
    }

    pub(crate) fn persisted(&mut self) -> Vec<Effect> {
        let through = self.last_write;
        self.step(Input::Persisted { through })
    }

    pub(crate) fn append(
        &mut self,
        from: u64,
        term: u64,
        prev: LogId,
        entries: &[Entry],
        commit: u64,
    ) -> Vec<Effect> {
        let message = AppendEntries {
            term: Term(term),
            prev,
            entries: entries.into(),
            commit: LogIndex(commit),
        };
        self.open(from, OpenMessage::AppendEntries(message))
    }

    pub(crate) fn acknowledge(&mut self, from: u64, matched: u64) -> Vec<Effect> {
        let outcome = AppendOutcome::Accepted {
            matched: LogIndex(matched),
        };
        self.answer(from, outcome)
    }

    pub(crate) fn refuse(&mut self, from: u64, prev: u64, hint: LogId) -> Vec<Effect> {
        let prev = LogIndex(prev);
        self.answer(from, AppendOutcome::Rejected { prev, hint })
    }

    pub(crate) fn answer(&mut self, from: u64, outcome: AppendOutcome) -> Vec<Effect> {
        let term = self.raft.term();
        let response = AppendResponse { term, outcome };
        self.durable(from, DurableMessage::AppendResponse(response))
    }

    pub(crate) fn commit(&self) -> u64 {
        self.raft.status().commit.0
    }
}

pub(crate) fn withheld(effects: &[Effect]) -> Vec<DurableMessage> {
    let persists = effects.iter().filter_map(|effect| match effect {
        Effect::Persist(persist) => Some(persist.then.peek()),
        _ => None,
    });
    persists.flatten().map(|(_, m)| m.clone()).collect()
}

pub(crate) fn sent(effects: &[Effect]) -> Vec<OpenMessage> {
    let sends = effects.iter().filter_map(|effect| match effect {
        Effect::Send { message, .. } => Some(message.clone()),
        _ => None,
    });
    sends.collect()
}

pub(crate) fn outcome(effects: &[Effect]) -> AppendOutcome {
    match &withheld(effects)[..] {
        [DurableMessage::AppendResponse(m)] => m.outcome.clone(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn vote(effects: &[Effect]) -> Option<bool> {
    match &withheld(effects)[..] {
        [DurableMessage::VoteResponse(m)] => Some(m.granted),
        [] => None,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn request_vote(term: u64, last: LogId) -> DurableMessage {
    let term = Term(term);
    let transfer = false;
    DurableMessage::RequestVote(RequestVote {
        term,
        last,
        transfer,
    })
}

pub(crate) fn heartbeat(term: u64, commit: u64) -> OpenMessage {
    let (term, commit) = (Term(term), LogIndex(commit));
    let round = Round(1);
    OpenMessage::Heartbeat(Heartbeat {
        term,
        commit,
        round,
    })
}
