//! Laws that hold one node against another, and need no history.

use std::collections::BTreeSet;
use std::sync::Arc;

use raft_core::{AppendOutcome, DurableMessage, Envelope, LogIndex, Message, NodeId, Role};

use crate::disk::Log;
use crate::law::{Broken, Law, demand};
use crate::node::Node;
use crate::packet::{Body, Packet};

/// What a message that has just left claims of its sender's disk must be on it.
pub(crate) fn claims_are_true(
    nodes: &[Arc<Node>],
    node: &Node,
    packet: &Packet,
) -> Result<(), Broken> {
    let Body::Message(Envelope {
        from,
        to,
        message: Message::Durable(message),
    }) = packet.body()
    else {
        return Ok(());
    };
    let (disk, term) = (&node.disk, message.term());
    let hard_state = disk.hard_state;
    let claims = |holds, what: &str| {
        demand(holds, Law::DurableBeforeSaid, || {
            let last = disk.log.last();
            format!(
                "{packet:?} claims {what}, and its sender's disk has {hard_state:?} and a log to {last}"
            )
        })
    };
    claims(hard_state.term >= term, "a term")?;
    let voted = |candidate| hard_state.term > term || hard_state.voted_for == Some(candidate);
    match message {
        DurableMessage::RequestVote(m) => {
            claims(voted(*from), "its own vote")?;
            claims(disk.log.last() >= m.last, "its last entry")
        }
        DurableMessage::VoteResponse(m) => claims(!m.granted || voted(*to), "its vote"),
        DurableMessage::AppendResponse(m) => {
            let AppendOutcome::Accepted { matched } = m.outcome else {
                return Ok(());
            };
            claims(disk.log.last().index >= matched, "entries")?;
            let leader = nodes.iter().find(|node| node.id() == *to);
            let leads =
                |node: &&Arc<Node>| node.view.role == Role::Leader && node.view.term == term;
            let Some(leader) = leader.filter(leads).filter(|_| hard_state.term == term) else {
                return Ok(());
            };
            claims(
                equal_through(&leader.view.log, &disk.log, matched),
                "the leader's entries",
            )
        }
    }
}

/// Whether more than half of `voters` have something; where nobody votes, nobody is missing.
pub(crate) fn majority(voters: &BTreeSet<NodeId>, has: impl Fn(&NodeId) -> bool) -> bool {
    voters.is_empty() || voters.iter().filter(|id| has(id)).count() * 2 > voters.len()
}

/// Whether two logs hold the same through `index`, where both still hold anything.
fn equal_through(a: &Log, b: &Log, index: LogIndex) -> bool {
    let mut entries = a.entries.iter().filter(|entry| entry.id.index <= index);
    a.last().index >= index && b.last().index >= index && entries.all(|entry| b.covers(entry))
}

/// The log of the node at `at` against everybody else's.
pub(crate) fn logs_match(nodes: &[Arc<Node>], at: usize) -> Result<(), Broken> {
    let own = &nodes[at].view.log;
    for (_, other) in nodes.iter().enumerate().filter(|(i, _)| *i != at) {
        let (log, mut common) = (&other.view.log, false);
        for entry in own.entries.iter().rev() {
            let Some(theirs) = log.get(entry.id.index) else {
                continue;
            };
            common |= theirs.id == entry.id;
            demand(!common || theirs == entry, Law::LogMatching, || {
                let (a, b) = (nodes[at].id(), other.id());
                format!("nodes {a} and {b} have an entry in common behind {entry:?} and {theirs:?}")
            })?;
        }
    }
    Ok(())
}

/// Every leader's idea of what its peers have, against their disks.
pub(crate) fn acknowledged_is_durable(nodes: &[Arc<Node>]) -> Result<(), Broken> {
    for leader in nodes.iter().filter(|node| node.view.role == Role::Leader) {
        for (id, matched) in &leader.view.matched {
            let Some(peer) = nodes.iter().find(|node| node.id() == *id) else {
                continue;
            };
            let newer = peer.disk.hard_state.term > leader.view.term;
            let holds = newer || equal_through(&leader.view.log, &peer.disk.log, *matched);
            demand(holds, Law::AcknowledgedIsDurable, || {
                let disk = &peer.disk.log;
                format!(
                    "leader {} believes that {id} has {matched}, and its disk has {disk:?}",
                    leader.id()
                )
            })?;
        }
    }
    Ok(())
}

/// Whether a leader has an entry of an older term that it knows a majority to have, and cannot commit yet.
pub(crate) fn older_term_waits(nodes: &[Arc<Node>], leader: &Node) -> bool {
    let view = &leader.view;
    let own = leader.disk.log.last().index;
    let Some(entry) = view.log.get(view.commit.next()) else {
        return false;
    };
    let has = |id: &NodeId| {
        let matched = view
            .matched
            .iter()
            .find(|(peer, _)| peer == id)
            .map(|(_, matched)| *matched);
        matched.unwrap_or(if *id == leader.id() {
            own
        } else {
            LogIndex::ZERO
        }) >= entry.id.index
    };
    let leads = view.role == Role::Leader && nodes.len() > 1;
    leads && entry.id.term < view.term && majority(&view.configuration.voters, has)
}
