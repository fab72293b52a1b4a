//! Durable before said: each message that claims something of a disk is held against that disk at the
//! moment of its release.
//!
//! - `claimed-before-durable`: term, vote or log of the claim are not on the disk.
//! - `vote-once`: a second vote in a term, over all runs of the node.

use raft_core::{AppendOutcome, DurableMessage, LogId, LogIndex, NodeId, VoteResponse};

use crate::broken::{Check, hold};
use crate::disk::Disk;
use crate::history::History;

/// Node `node`, whose disk is `disk`, says `message` to `to` now.
pub(crate) fn check_release(
    history: &mut History,
    node: NodeId,
    disk: &Disk,
    to: NodeId,
    message: &DurableMessage,
) -> Check {
    let (term, durable) = (message.term(), disk.hard_state);
    hold!(
        term <= durable.term,
        "claimed-before-durable",
        "node {node} speaks of term {term}, and {durable:?} is on its disk"
    );
    let vote = match message {
        DurableMessage::RequestVote(request) => {
            // It need not be the last one any more: more may have been written since.
            hold!(
                disk.holds(request.last),
                "claimed-before-durable",
                "node {node} asks for votes with {}, and its disk ends at {}",
                request.last,
                disk.last()
            );
            Some(node)
        }
        DurableMessage::VoteResponse(VoteResponse { granted: true, .. }) => Some(to),
        DurableMessage::VoteResponse(_) => None,
        DurableMessage::AppendResponse(response) => {
            if let AppendOutcome::Accepted { matched } = response.outcome
                && matched > LogIndex::ZERO
            {
                let theirs = history.entry_of_leader(term, matched);
                hold!(
                    theirs.is_some_and(|id: LogId| disk.holds(id)),
                    "claimed-before-durable",
                    "node {node} acknowledges {matched} in term {term}, where its leader has {theirs:?}, and \
                     its disk has term {:?} there",
                    disk.term_at(matched)
                );
            }
            None
        }
    };
    if let Some(candidate) = vote {
        let on_disk = durable.term > term || durable.voted_for == Some(candidate);
        hold!(
            on_disk,
            "claimed-before-durable",
            "node {node} votes for {candidate} in term {term}, and {durable:?} is on its disk"
        );
        history.voted(node, term, candidate)?;
    }
    Ok(())
}
