//! What the others say.

use std::sync::Arc;

use bytes::Bytes;
use raft_core::membership::Configuration;
use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Entry, EntryKind,
    Heartbeat, HeartbeatResponse, InstallSnapshot, LogId, LogIndex, Message, NodeId, OpenMessage,
    PreVote, PreVoteResponse, Raft, ReadBatch, ReadIndex, ReadIndexResponse, RequestVote, Round,
    SnapshotMeta, Term, TimeoutNow, VoteResponse,
};

use super::choices::Choices;
use super::written::Written;

/// A message that may well be right.
pub(super) fn message(raft: &Raft, log: &Written, choices: &mut Choices<'_>) -> Option<Message> {
    use DurableMessage as D;
    use OpenMessage as O;
    let (what, term) = (choices.below(14)?, choices.term(raft.term())?);
    Some(match what {
        0..3 => O::AppendEntries(append_entries(term, raft, log, choices)?).into(),
        3 => O::Heartbeat(Heartbeat {
            term,
            commit: choices.index(raft.commit())?,
            round: Round(choices.index(LogIndex::ZERO)?.0),
        })
        .into(),
        4 => O::HeartbeatResponse(HeartbeatResponse {
            term,
            round: Round(choices.index(LogIndex::ZERO)?.0),
        })
        .into(),
        5 => O::CommitAdvanced(CommitAdvanced {
            term,
            commit: choices.index(raft.last().index)?,
        })
        .into(),
        6 => O::PreVote(PreVote {
            term,
            last: id(raft, log, choices)?,
            transfer: choices.flag()?,
        })
        .into(),
        7 => O::PreVoteResponse(PreVoteResponse {
            term,
            granted: choices.flag()?,
        })
        .into(),
        8 => O::TimeoutNow(TimeoutNow { term }).into(),
        9 => {
            let batch = batch(choices)?;
            O::ReadIndex(ReadIndex { term, batch }).into()
        }
        10 => O::ReadIndexResponse(ReadIndexResponse {
            term,
            batch: batch(choices)?,
            index: match choices.flag()? {
                true => Some(choices.index(raft.commit())?),
                false => None,
            },
        })
        .into(),
        11 => D::RequestVote(RequestVote {
            term,
            last: id(raft, log, choices)?,
            transfer: choices.flag()?,
        })
        .into(),
        12 => D::VoteResponse(VoteResponse {
            term,
            granted: choices.flag()?,
        })
        .into(),
        _ => {
            let outcome = match choices.flag()? {
                true => AppendOutcome::Accepted {
                    matched: choices.index(raft.last().index)?,
                },
                false => AppendOutcome::Rejected {
                    prev: choices.index(raft.last().index)?,
                    hint: id(raft, log, choices)?,
                },
            };
            D::AppendResponse(AppendResponse { term, outcome }).into()
        }
    })
}

/// A snapshot that comes in.
pub(super) fn snapshot(
    raft: &Raft,
    log: &Written,
    choices: &mut Choices<'_>,
) -> Option<InstallSnapshot> {
    Some(InstallSnapshot {
        term: choices.term(raft.term())?,
        snapshot: SnapshotMeta {
            last: id(raft, log, choices)?,
            configuration: Arc::new(configuration(choices)?),
        },
    })
}

/// The name of an entry that the node has, or might have.
fn id(raft: &Raft, log: &Written, choices: &mut Choices<'_>) -> Option<LogId> {
    let index = choices.index(raft.last().index)?;
    let wrong = choices.byte()?;
    match log.id_at(index) {
        Some(id) if wrong < 200 => Some(id),
        _ => Some(LogId::new(choices.term(raft.last().term)?, index)),
    }
}

fn append_entries(
    term: Term,
    raft: &Raft,
    log: &Written,
    choices: &mut Choices<'_>,
) -> Option<AppendEntries> {
    let prev = id(raft, log, choices)?;
    let commit = choices.index(raft.commit())?;
    let (mut before, mut entries) = (prev, Vec::new());
    for _ in 0..choices.below(12)? {
        let what = choices.byte()?;
        let term = match what & 3 {
            0 => choices.term(before.term)?,
            _ => Term(before.term.0.max(1)),
        };
        let index = match what {
            250.. => choices.index(before.index)?,
            _ => before.index.next(),
        };
        let (kind, data) = match what >> 2 & 7 {
            0 => {
                let configuration = configuration(choices)?;
                (EntryKind::Configuration, configuration.encode())
            }
            1 => (EntryKind::Noop, Bytes::new()),
            2 if what & 32 != 0 => {
                let kind = EntryKind::from_number(choices.below(4)?)?;
                (kind, Bytes::from_static(b"\x01\x00garbage"))
            }
            _ => (
                EntryKind::Command,
                Bytes::from(vec![what; usize::from(what)]),
            ),
        };
        let entry = Entry::new(term, index, kind, data);
        before = entry.id;
        entries.push(entry);
    }
    let entries = entries.into();
    Some(AppendEntries {
        term,
        prev,
        entries,
        commit,
    })
}

fn batch(choices: &mut Choices<'_>) -> Option<ReadBatch> {
    Some(ReadBatch {
        start: u64::from(choices.below(3)?),
        number: choices.index(LogIndex::ZERO)?.0,
    })
}

/// Any configuration, of few members.
pub(super) fn configuration(choices: &mut Choices<'_>) -> Option<Configuration> {
    let mut any = Configuration::of([1, 2, 3].map(NodeId));
    let shape = choices.byte()?;
    if shape < 64 {
        return Some(any);
    }
    let members = |choices: &mut Choices<'_>| {
        let bits = choices.byte()?;
        Some(
            (0..8)
                .filter(|id| bits >> id & 1 != 0)
                .map(NodeId)
                .collect(),
        )
    };
    any.voters = members(choices)?;
    if shape & 1 != 0 {
        any.voters_outgoing = members(choices)?;
        any.auto_leave = shape & 2 != 0;
    }
    if shape & 4 != 0 {
        any.learners = members(choices)?;
        any.joining = members(choices)?;
    }
    if shape & 8 != 0 {
        any.learners_next = members(choices)?;
    }
    if shape & 16 != 0 {
        let priority = u32::from(choices.byte()?) << 24;
        any.priorities
            .insert(NodeId(choices.below(5)?.into()), priority);
    }
    Some(any)
}
