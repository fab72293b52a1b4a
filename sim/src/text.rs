//! Inputs, effects and messages in words, for traces.

use raft_core::{
    AppendOutcome, DurableMessage, Effect, Entry, EntryKind, Input, Message, NodeId, OpenMessage,
    Persist, Rejection, Role, Status,
};

use crate::machine::Command;

fn entry(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Noop => format!("{} noop", entry.id),
        EntryKind::Birth => format!("{} birth", entry.id),
        EntryKind::Configuration => {
            match raft_core::membership::Configuration::decode(&entry.data) {
                Ok(configuration) => format!("{} [{configuration}]", entry.id),
                Err(error) => format!("{} [{error}]", entry.id),
            }
        }
        EntryKind::Command => match Command::decode(&entry.data) {
            Some(c) => format!("{} s{}#{}", entry.id, c.session, c.sequence),
            None => format!("{} damaged", entry.id),
        },
    }
}

/// Up to four of them, or `nothing`.
fn entries(entries: &[Entry]) -> String {
    match entries {
        [] => "nothing".into(),
        [first, .., last] if entries.len() > 4 => {
            format!(
                "{} .. {} ({} entries)",
                entry(first),
                entry(last),
                entries.len()
            )
        }
        few => few.iter().map(entry).collect::<Vec<_>>().join(", "),
    }
}

fn message(message: &Message) -> String {
    match message {
        Message::Open(message) => open(message),
        Message::Durable(message) => durable(message),
    }
}

fn verdict(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

fn open(message: &OpenMessage) -> String {
    let term = message.term();
    match message {
        OpenMessage::AppendEntries(m) => format!(
            "AppendEntries t{term} after {}: {}; commit {}",
            m.prev,
            entries(&m.entries),
            m.commit
        ),
        OpenMessage::Heartbeat(m) => {
            format!("Heartbeat t{term} round {}, commit {}", m.round, m.commit)
        }
        OpenMessage::HeartbeatResponse(m) => format!("HeartbeatResponse t{term} round {}", m.round),
        OpenMessage::CommitAdvanced(m) => format!("CommitAdvanced t{term} commit {}", m.commit),
        OpenMessage::PreVote(m) => {
            let transfer = if m.transfer { " transfer" } else { "" };
            format!("PreVote t{term} last {}{transfer}", m.last)
        }
        OpenMessage::PreVoteResponse(m) => {
            format!("PreVoteResponse t{term} {}", verdict(m.granted))
        }
        OpenMessage::TimeoutNow(_) => format!("TimeoutNow t{term}"),
        OpenMessage::ReadIndex(m) => format!(
            "ReadIndex t{term} batch {}.{}",
            m.batch.start, m.batch.number
        ),
        OpenMessage::ReadIndexResponse(m) => format!(
            "ReadIndexResponse t{term} batch {}.{}: {:?}",
            m.batch.start, m.batch.number, m.index
        ),
    }
}

/// A message that waits for a disk.
pub(crate) fn durable(message: &DurableMessage) -> String {
    let term = message.term();
    match message {
        DurableMessage::RequestVote(m) => {
            let transfer = if m.transfer { ", for a transfer" } else { "" };
            format!("RequestVote t{term} last {}{transfer}", m.last)
        }
        DurableMessage::VoteResponse(m) => format!("VoteResponse t{term} {}", verdict(m.granted)),
        DurableMessage::AppendResponse(m) => match m.outcome {
            AppendOutcome::Accepted { matched } => {
                format!("AppendResponse t{term} matched {matched}")
            }
            AppendOutcome::Rejected { prev, hint } => {
                format!("AppendResponse t{term} refused after {prev}, hint {hint}")
            }
        },
    }
}

/// An input in one line.
pub(crate) fn input(input: &Input) -> String {
    match input {
        Input::Received(e) => format!("from n{}: {}", e.from, message(&e.message)),
        Input::SnapshotReceived { from, message } => {
            format!(
                "from n{from}: snapshot of {} t{}",
                message.snapshot.last, message.term
            )
        }
        Input::Propose(commands) => format!("propose {} commands", commands.len()),
        Input::EntriesRead {
            request,
            result: Ok(read),
        } => format!("read #{request} gave {}", entries(read)),
        other => format!("{other:?}"),
    }
}

fn write(persist: &Persist) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = persist.hard_state {
        let vote = hard_state
            .voted_for
            .map_or("nobody".into(), |id| format!("n{id}"));
        parts.push(format!("term {}, vote {vote}", hard_state.term));
    }
    if let Some(write) = &persist.snapshot {
        let replaces = if write.replaces_log {
            ", in place of the log"
        } else {
            ""
        };
        let (last, start) = (write.snapshot.last, write.log_start);
        parts.push(format!("snapshot of {last}, log behind {start}{replaces}"));
    }
    if let Some(from) = persist.truncate_from {
        parts.push(format!("cut from {from}"));
    }
    if !persist.append.is_empty() {
        parts.push(format!("append {}", entries(&persist.append)));
    }
    if parts.is_empty() {
        parts.push("nothing".into());
    }
    format!("writes #{}: {}", persist.write, parts.join("; "))
}

/// An effect in one or more lines.
pub(crate) fn effect(effect: &Effect) -> Vec<String> {
    vec![match effect {
        Effect::Persist(persist) => {
            let withheld = persist.then.peek().iter();
            let withheld = withheld.map(|(to, m)| format!("  withholds ->n{to} {}", durable(m)));
            return std::iter::once(write(persist)).chain(withheld).collect();
        }
        Effect::Send { to, message } => format!("->n{to} {}", open(message)),
        Effect::SendSnapshot { to, message } => {
            format!(
                "->n{to} snapshot of {} t{}",
                message.snapshot.last, message.term
            )
        }
        Effect::Commit(commit) => {
            format!(
                "commits through {}: {}",
                commit.through,
                entries(&commit.entries)
            )
        }
        Effect::Restore(meta) => format!("restores the snapshot of {}", meta.last),
        Effect::Read {
            request,
            from,
            through,
            ..
        } => format!("reads #{request}: {from} to {through}"),
        Effect::Appended { first, term, count } => {
            format!("appended {count} from {first}@{term} on")
        }
        Effect::Rejected(Rejection::NotLeader {
            leader: Some(leader),
        }) => format!("rejects: n{leader} leads"),
        Effect::Rejected(rejection) => format!("rejects: {rejection}"),
        Effect::RoleChanged { role, term, leader } => match (role, leader) {
            (Role::Leader, _) => format!("is LEADER of term {term}"),
            (_, Some(leader)) => format!("is {role} of n{leader} in term {term}"),
            (_, None) => format!("is {role} in term {term}"),
        },
        Effect::ConfigurationChanged(configuration) => format!("is in [{configuration}]"),
        Effect::TransferEnded { to } => format!("has ended the handover to n{to}"),
        Effect::SteppedDown(why) => format!("steps down: {why}"),
        Effect::Ignored { from, reason } => format!("ignores a message from n{from}: {reason}"),
        Effect::Halt(violation) => format!("HALTS: {violation}"),
        other => format!("{other:?}"),
    }]
}

/// A node's status: a line of its own, and one for each peer that it feeds.
pub(crate) fn status(status: &Status) -> String {
    let name = |id: Option<NodeId>| id.map_or("nobody".into(), |id: NodeId| format!("n{id}"));
    let mut words = format!(
        "n{}: {}, term {}, vote {}, leader {}, log {} to {}, snapshot {}, durable {}, commit {}, handed out {}, [{}]",
        status.id,
        status.role,
        status.term,
        name(status.voted_for),
        name(status.leader),
        status.log_start,
        status.last,
        status.snapshot,
        status.durable,
        status.commit,
        status.handed_out,
        status.configuration
    );
    for peer in &status.peers {
        words += &format!(
            "\n    n{}: {:?}, matched {}, next {}, in flight {}",
            peer.id, peer.state, peer.matched, peer.next, peer.inflight
        );
    }
    words
}
