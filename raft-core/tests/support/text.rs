//! Effects, messages and entries in words.

use raft_core::membership::Configuration;
use raft_core::{
    AppendOutcome, DurableMessage, Effect, Entry, EntryKind, InstallSnapshot, LogId, LogIndex,
    Message, NodeId, OpenMessage, Persist, Raft, ReadBatch, ReadId, Rejection, Role, SnapshotMeta,
    Status,
};

/// `2@1 "text"`: index, term, command.
pub(crate) fn entry(entry: &Entry) -> String {
    match entry.kind {
        EntryKind::Noop => format!("{} noop", entry.id),
        EntryKind::Birth => format!("{} birth", entry.id),
        EntryKind::Configuration => match Configuration::decode(&entry.data) {
            Ok(configuration) => format!("{} ({configuration})", entry.id),
            Err(error) => format!("{} ({error})", entry.id),
        },
        EntryKind::Command => format!("{} {:?}", entry.id, String::from_utf8_lossy(&entry.data)),
    }
}

/// All of them, or `nothing`.
pub(crate) fn entries(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nothing".into();
    }
    let entries: Vec<_> = entries.iter().map(entry).collect();
    entries.join(", ")
}

/// A message, whole.
pub(crate) fn message(message: &Message) -> String {
    match message {
        Message::Open(message) => open(message),
        Message::Durable(message) => durable(message),
    }
}

fn verdict(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

/// A message that may leave at once.
pub(crate) fn open(message: &OpenMessage) -> String {
    match message {
        OpenMessage::AppendEntries(m) => format!(
            "AppendEntries term {}, after {}: {}; commit {}",
            m.term,
            m.prev,
            entries(&m.entries),
            m.commit
        ),
        OpenMessage::Heartbeat(m) => format!(
            "Heartbeat term {}, commit {}, round {}",
            m.term, m.commit, m.round
        ),
        OpenMessage::HeartbeatResponse(m) if m.round.0 == 0 => {
            format!("HeartbeatResponse term {}", m.term)
        }
        OpenMessage::HeartbeatResponse(m) => {
            format!("HeartbeatResponse term {}, round {}", m.term, m.round)
        }
        OpenMessage::TimeoutNow(m) => format!("TimeoutNow term {}", m.term),
        OpenMessage::ReadIndex(m) => format!("ReadIndex term {}, {}", m.term, batch(&m.batch)),
        OpenMessage::ReadIndexResponse(m) => match m.index {
            Some(index) => format!(
                "ReadIndexResponse term {}, {}: index {index}",
                m.term,
                batch(&m.batch)
            ),
            None => format!(
                "ReadIndexResponse term {}, {}: not now",
                m.term,
                batch(&m.batch)
            ),
        },
        OpenMessage::CommitAdvanced(m) => {
            format!("CommitAdvanced term {}, commit {}", m.term, m.commit)
        }
        OpenMessage::PreVote(m) => {
            let transfer = if m.transfer { ", transfer" } else { "" };
            format!("PreVote term {}, last {}{transfer}", m.term, m.last)
        }
        OpenMessage::PreVoteResponse(m) => {
            format!("PreVoteResponse term {}, {}", m.term, verdict(m.granted))
        }
    }
}

fn batch(batch: &ReadBatch) -> String {
    format!("batch {} of start {}", batch.number, batch.start)
}

/// What a snapshot stands for.
pub(crate) fn snapshot(snapshot: &SnapshotMeta) -> String {
    format!("through {} ({})", snapshot.last, snapshot.configuration)
}

/// A message that goes with a file.
pub(crate) fn install(m: &InstallSnapshot) -> String {
    format!("InstallSnapshot term {}, {}", m.term, snapshot(&m.snapshot))
}

fn reads(reads: &[ReadId]) -> String {
    let reads: Vec<_> = reads.iter().map(ReadId::to_string).collect();
    reads.join(" ")
}

/// A message that waits for a disk.
pub(crate) fn durable(message: &DurableMessage) -> String {
    match message {
        DurableMessage::RequestVote(m) => {
            let transfer = if m.transfer { ", transfer" } else { "" };
            format!("RequestVote term {}, last {}{transfer}", m.term, m.last)
        }
        DurableMessage::VoteResponse(m) => {
            format!("VoteResponse term {}, {}", m.term, verdict(m.granted))
        }
        DurableMessage::AppendResponse(m) => match m.outcome {
            AppendOutcome::Accepted { matched } => {
                format!("AppendResponse term {}, matched {matched}", m.term)
            }
            AppendOutcome::Rejected { prev, hint } => {
                format!(
                    "AppendResponse term {}, refused after {prev}, hint {hint}",
                    m.term
                )
            }
        },
    }
}

/// What a write changes: the parts that it has.
pub(crate) fn write(persist: &Persist) -> String {
    let mut parts = Vec::new();
    if let Some(hard_state) = persist.hard_state {
        let vote = hard_state
            .voted_for
            .map_or("nobody".into(), |id| id.to_string());
        parts.push(format!("term {}, vote {vote}", hard_state.term));
    }
    if let Some(write) = &persist.snapshot {
        let log = if write.replaces_log {
            "in place of the log"
        } else {
            "the log begins"
        };
        let (last, start) = (write.snapshot.last, write.log_start);
        parts.push(format!("snapshot through {last}, {log} behind {start}"));
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

/// An effect of `node` in one or more lines.
pub(crate) fn effect(node: NodeId, effect: &Effect) -> Vec<String> {
    vec![match effect {
        Effect::Persist(persist) => {
            let withheld = persist.then.peek().iter();
            let withheld = withheld
                .map(|(to, message)| format!("  withholds {node}->{to} {}", durable(message)));
            let first = format!("{node} {}", write(persist));
            return std::iter::once(first).chain(withheld).collect();
        }
        Effect::Send { to, message } => format!("{node}->{to} {}", open(message)),
        Effect::Commit(commit) => {
            format!(
                "{node} commits through {}: {}",
                commit.through,
                entries(&commit.entries)
            )
        }
        Effect::SendSnapshot { to, message } => {
            format!("{node}->{to} sends a file: {}", install(message))
        }
        Effect::Restore(meta) => format!("{node} restores the snapshot {}", snapshot(meta)),
        Effect::ReadReady(ready) => {
            let lease = ready.lease_until_ticks;
            let lease = lease.map_or(String::new(), |until| {
                format!(", by its lease until {until}")
            });
            format!(
                "{node} may answer reads {} at {}{lease}",
                reads(&ready.reads),
                ready.index
            )
        }
        Effect::ReadFailed { reads: ids, reason } => {
            format!("{node} cannot answer reads {}: {reason}", reads(ids))
        }
        Effect::ConfigurationChanged(configuration) => format!("{node} goes by {configuration}"),
        Effect::TransferEnded { to } => format!("{node} ends the transfer to {to}"),
        Effect::SteppedDown(why) => format!("{node} steps down: {why}"),
        Effect::Read {
            request,
            from,
            through,
            ..
        } => {
            format!("{node} reads #{request}: {from} to {through}")
        }
        Effect::Appended { first, term, count } => {
            format!("{node} appended {count} from {first}@{term} on")
        }
        Effect::Rejected(Rejection::NotLeader {
            leader: Some(leader),
        }) => {
            format!("{node} rejects: {leader} leads")
        }
        Effect::Rejected(rejection) => format!("{node} rejects: {rejection}"),
        Effect::RoleChanged { role, term, leader } => match (role, leader) {
            (Role::Leader, _) => format!("{node} is leader of term {term}"),
            (_, Some(leader)) => format!("{node} is {role} of {leader} in term {term}"),
            (_, None) => format!("{node} is {role} in term {term}"),
        },
        Effect::Ignored { from, reason } => {
            format!("{node} ignores a message from {from}: {reason}")
        }
        Effect::Halt(violation) => format!("{node} HALTS: {violation}"),
    }]
}

/// Whom a node may have to do with, what it knows of them, and what of all that is for good.
pub(crate) fn members(raft: &Raft) -> Vec<String> {
    let list = |ids: &mut dyn Iterator<Item = NodeId>| {
        let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
        if ids.is_empty() {
            "nobody".into()
        } else {
            ids.join(" ")
        }
    };
    let (latest, committed) = (raft.configuration(), raft.committed_configuration());
    let mut lines = vec![format!(
        "{}: acquainted with {}; next id {}",
        raft.id(),
        list(&mut raft.acquaintances().into_iter()),
        latest.next_id()
    )];
    for (id, member) in &latest.about {
        let folder = member.incarnation.map(|i| format!(", folder {}", i.0));
        let name = Some(&member.tls_name).filter(|name| !name.is_empty());
        let name = name.map(|name| format!(", named {name}"));
        let (folder, name) = (folder.unwrap_or_default(), name.unwrap_or_default());
        lines.push(format!("  {id} is at {}{folder}{name}", member.address));
    }
    if raft.change_is_under_way() {
        let next = committed.next_id();
        lines.push(format!("  committed is {committed}; next id {next}"));
    }
    let all = (1..=committed.highest_id().0).map(NodeId);
    let departed: Vec<_> = all.filter(|id| committed.has_departed(*id)).collect();
    if !departed.is_empty() {
        lines.push(format!("  departed: {}", list(&mut departed.into_iter())));
    }
    lines
}

/// A node's status: a line of its own, and one for each peer that it feeds.
pub(crate) fn status(status: &Status) -> Vec<String> {
    let name = |id: Option<NodeId>| id.map_or("nobody".into(), |id: NodeId| id.to_string());
    let first = format!(
        "{}: {}, term {}, vote {}, leader {}, last {}, durable {}, commit {}, handed out {}",
        status.id,
        status.role,
        status.term,
        name(status.voted_for),
        name(status.leader),
        status.last,
        status.durable,
        status.commit,
        status.handed_out
    );
    let mut more = Vec::new();
    if status.snapshot != LogId::ZERO {
        let (snapshot, start) = (status.snapshot, status.log_start);
        more.push(format!("  snapshot through {snapshot}, log behind {start}"));
    }
    if status.configuration_index > LogIndex::ZERO {
        let (index, configuration) = (status.configuration_index, &status.configuration);
        more.push(format!("  configuration of {index}: {configuration}"));
    }
    more.extend(status.transfer.map(|to| format!("  hands over to {to}")));
    let lease = status.lease_until_ticks;
    more.extend(lease.map(|until| format!("  lease until tick {until}")));
    let peers = status.peers.iter().map(|peer| {
        let joining = status.configuration.joining.contains(&peer.id);
        let rounds = joining.then(|| format!(", rounds {}", peer.rounds));
        format!(
            "  {}: {:?}, matched {}, next {}, in flight {}{}",
            peer.id,
            peer.state,
            peer.matched,
            peer.next,
            peer.inflight,
            rounds.unwrap_or_default()
        )
    });
    std::iter::once(first).chain(more).chain(peers).collect()
}
