//! What may be sent: the bounds of a frame, which are the same whether it goes over a wire or not.
//!
//! Invariant: what passes here is taken at the other end.

use raft_core::{
    AppendEntries, AppendOutcome, AppendResponse, DurableMessage, Message, OpenMessage,
};

use crate::decode::{NUMBER_MAX, is_reason};
use crate::header::{FrameKind, HEADER_LEN};
use crate::{
    EncodeError, ForwardOutcome, Frame, ITEMS_MAX, MANAGE_LEN_MAX, MANAGED_LEN_MAX, NotApplied,
};

/// What an item costs at most beside its payload.
const ITEM_OVERHEAD_LEN: usize = 40;

/// What there is in a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) kind: FrameKind,
    /// Entries, proposals or answers; 1 in all other frames.
    items: usize,
    /// Bytes in them.
    payload: usize,
}

impl Content {
    pub(crate) fn new(kind: FrameKind, items: usize, payload: usize) -> Self {
        Self {
            kind,
            items,
            payload,
        }
    }

    /// About the length of the frame with its header, and not less.
    pub(crate) fn len_max(&self) -> usize {
        HEADER_LEN + self.payload + (self.items + 1) * ITEM_OVERHEAD_LEN
    }
}

/// Whether `frame` may be sent where frames are no longer than `frame_len_max`, and what is in it.
pub(crate) fn check(frame: &Frame, frame_len_max: usize) -> Result<Content, EncodeError> {
    let content = content(frame);
    if content.items > ITEMS_MAX {
        return Err(EncodeError::TooManyItems {
            items: content.items,
        });
    }
    // Before anything is copied.
    fits(content.payload + HEADER_LEN, frame_len_max)?;
    match frame {
        Frame::Raft(Message::Open(OpenMessage::AppendEntries(message))) => is_run(message)?,
        Frame::Raft(message) => in_range(numbers(message))?,
        Frame::Answers(items) => items.iter().try_for_each(|item| answer(&item.outcome))?,
        Frame::Digest { index, .. } => in_range([index.0])?,
        Frame::Manage { data, .. } => opaque(content.kind, data.len(), MANAGE_LEN_MAX)?,
        Frame::Managed { data, .. } => opaque(content.kind, data.len(), MANAGED_LEN_MAX)?,
        Frame::Forward(_) => {}
    }
    Ok(content)
}

pub(crate) fn fits(len: usize, max: usize) -> Result<(), EncodeError> {
    if len > max {
        return Err(EncodeError::TooLong { len, max });
    }
    Ok(())
}

fn content(frame: &Frame) -> Content {
    let of = Content::new;
    match frame {
        Frame::Raft(Message::Open(OpenMessage::AppendEntries(message))) => {
            let payload = message.entries.iter().map(|entry| entry.data.len()).sum();
            of(FrameKind::AppendEntries, message.entries.len(), payload)
        }
        Frame::Raft(message) => of(kind(message), 1, 0),
        Frame::Forward(items) => {
            let payload = items.iter().map(|item| item.data.len()).sum();
            of(FrameKind::Forward, items.len(), payload)
        }
        Frame::Answers(items) => {
            let payload = items.iter().map(|item| match &item.outcome {
                ForwardOutcome::Committed { response, .. } => response.len(),
                ForwardOutcome::Refused { reason, .. } => reason.len(),
                _ => 0,
            });
            of(FrameKind::Answers, items.len(), payload.sum())
        }
        Frame::Digest { .. } => of(FrameKind::Digest, 1, 0),
        Frame::Manage { data, .. } => of(FrameKind::Manage, 1, data.len()),
        Frame::Managed { data, .. } => of(FrameKind::Managed, 1, data.len()),
    }
}

fn kind(message: &Message) -> FrameKind {
    use DurableMessage as D;
    use FrameKind as K;
    use OpenMessage as O;
    match message {
        Message::Open(O::AppendEntries(_)) => K::AppendEntries,
        Message::Open(O::Heartbeat(_)) => K::Heartbeat,
        Message::Open(O::CommitAdvanced(_)) => K::CommitAdvanced,
        Message::Open(O::HeartbeatResponse(_)) => K::HeartbeatResponse,
        Message::Open(O::PreVote(_)) => K::PreVote,
        Message::Open(O::PreVoteResponse(_)) => K::PreVoteResponse,
        Message::Open(O::TimeoutNow(_)) => K::TimeoutNow,
        Message::Open(O::ReadIndex(_)) => K::ReadIndex,
        Message::Open(O::ReadIndexResponse(_)) => K::ReadIndexResponse,
        Message::Durable(D::RequestVote(_)) => K::RequestVote,
        Message::Durable(D::VoteResponse(_)) => K::VoteResponse,
        Message::Durable(D::AppendResponse(AppendResponse { outcome, .. })) => match outcome {
            AppendOutcome::Accepted { .. } => K::AppendAccepted,
            AppendOutcome::Rejected { .. } => K::AppendRejected,
        },
    }
}

/// The terms, indexes and rounds of a message without entries.
fn numbers(message: &Message) -> [u64; 4] {
    use DurableMessage as D;
    use OpenMessage as O;
    let [first, second, third] = match message {
        Message::Open(O::AppendEntries(m)) => [m.prev.term.0, m.prev.index.0, m.commit.0],
        Message::Open(O::Heartbeat(m)) => [m.commit.0, m.round.0, 0],
        Message::Open(O::CommitAdvanced(m)) => [m.commit.0, 0, 0],
        Message::Open(O::HeartbeatResponse(m)) => [m.round.0, 0, 0],
        Message::Open(O::PreVote(m)) => [m.last.term.0, m.last.index.0, 0],
        Message::Open(O::ReadIndexResponse(m)) => [m.index.map_or(0, |index| index.0), 0, 0],
        Message::Open(O::PreVoteResponse(_) | O::TimeoutNow(_) | O::ReadIndex(_)) => [0; 3],
        Message::Durable(D::RequestVote(m)) => [m.last.term.0, m.last.index.0, 0],
        Message::Durable(D::VoteResponse(_)) => [0; 3],
        Message::Durable(D::AppendResponse(m)) => match m.outcome {
            AppendOutcome::Accepted { matched } => [matched.0, 0, 0],
            AppendOutcome::Rejected { prev, hint } => [prev.0, hint.term.0, hint.index.0],
        },
    };
    [message.term().0, first, second, third]
}

fn in_range(numbers: impl IntoIterator<Item = u64>) -> Result<(), EncodeError> {
    match numbers.into_iter().find(|number| *number > NUMBER_MAX) {
        Some(number) => Err(EncodeError::Number { number }),
        None => Ok(()),
    }
}

fn opaque(kind: FrameKind, len: usize, max: usize) -> Result<(), EncodeError> {
    if len > max {
        return Err(EncodeError::Payload { kind, len, max });
    }
    Ok(())
}

fn answer(outcome: &ForwardOutcome) -> Result<(), EncodeError> {
    use NotApplied as N;
    match outcome {
        ForwardOutcome::Committed { index, term, .. } => in_range([index.0, term.0]),
        ForwardOutcome::Refused {
            index,
            term,
            reason,
        } => {
            is_reason(reason).map_err(|len| EncodeError::Reason { len })?;
            in_range([index.0, term.0])
        }
        ForwardOutcome::NotApplied {
            why: N::AnswerForgotten { index, term } | N::Cancelled { index, term },
        } => in_range([index.0, term.0]),
        _ => Ok(()),
    }
}

fn is_run(message: &AppendEntries) -> Result<(), EncodeError> {
    in_range([
        message.term.0,
        message.prev.term.0,
        message.prev.index.0,
        message.commit.0,
        message
            .prev
            .index
            .0
            .saturating_add(message.entries.len() as u64),
    ])?;
    let mut before = message.prev;
    for entry in message.entries.iter() {
        let follows = entry.id.index == before.index.next()
            && entry.id.term >= before.term
            && entry.id.term <= message.term;
        if !follows {
            return Err(EncodeError::NotARun {
                index: entry.id.index,
            });
        }
        before = entry.id;
    }
    Ok(())
}
