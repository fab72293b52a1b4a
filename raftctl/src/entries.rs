//! `raftctl log entries`: streamed, one entry on a line.

use raft_actor::{Birth, Logged, ProposalId};
use raft_core::membership::Configuration;
use raft_core::{Entry, EntryKind, LogIndex};
use raft_storage::offline::{self, Range};
use serde_json::{Value, json};

use crate::args::EntriesArgs;
use crate::out::{Exit, Out};
use crate::text;

/// So much of an entry's data is shown unless all of it is asked for.
const PREVIEW_BYTES: usize = 60;

pub(crate) fn entries(args: &EntriesArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let range = Range {
        from: LogIndex(args.from.unwrap_or(1)),
        through: LogIndex(args.through.unwrap_or(u64::MAX)),
    };
    let mut left = args.limit.unwrap_or(u64::MAX);
    if left == 0 {
        return Ok(Exit::Good);
    }
    let mut failed = None;
    let mut first = true;
    offline::entries(&args.dir, range, |entry| {
        let shown = show(&entry, args.data, std::mem::take(&mut first), out);
        failed = shown.err();
        left -= 1;
        failed.is_none() && left > 0
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Exit::Good),
    }
}

fn show(entry: &Entry, whole: bool, first: bool, out: &mut Out) -> anyhow::Result<()> {
    let (id, size) = (entry.id, entry.data.len());
    let kind = kind(entry.kind);
    let words = in_words(entry);
    // A command is shown without the library's envelope around it; what has none is shown as it is.
    let (name, data) = match command(entry) {
        Some((id, command)) => (id, command),
        None => (None, entry.data.clone()),
    };
    if out.is_json() {
        return out.json(|| {
            let mut value = json!({
                "index": id.index.0,
                "term": id.term.0,
                "kind": kind,
                "bytes": size,
                "preview": text::preview(&data, Some(PREVIEW_BYTES)),
            });
            if let Some(id) = name {
                value["session"] = id.session.0.into();
                value["sequence"] = id.sequence.into();
            }
            if let Some((_, meaning)) = words {
                value["meaning"] = meaning;
            }
            if whole {
                value["data_hex"] = text::hex(&data).into();
            }
            value
        });
    }
    if first {
        let (index, term, kind, bytes) = ("index", "term", "kind", "bytes");
        out.line(format!("{index:>10} {term:>8} {kind:<13} {bytes:>9}  data"))?;
    }
    let data = match words {
        Some((words, _)) => words,
        None => text::preview(&data, (!whole).then_some(PREVIEW_BYTES)),
    };
    out.line(format!(
        "{:>10} {:>8} {kind:<13} {size:>9}  {data}",
        id.index.0, id.term.0
    ))
}

/// The command of an entry that has one, and its name.
fn command(entry: &Entry) -> Option<(Option<ProposalId>, bytes::Bytes)> {
    match (entry.kind, Logged::decode(&entry.data)?) {
        (EntryKind::Command, (_, Logged::Command { id, command })) => Some((id, command)),
        _ => None,
    }
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Noop => "no-op",
        EntryKind::Command => "command",
        EntryKind::Birth => "birth",
        EntryKind::Configuration => "configuration",
    }
}

/// What an entry means that is no command of a user's.
fn in_words(entry: &Entry) -> Option<(String, Value)> {
    match entry.kind {
        EntryKind::Noop => None,
        EntryKind::Command => {
            let (time_ms, words) = match Logged::decode(&entry.data)? {
                (_, Logged::Command { .. }) => return None,
                (time_ms, Logged::OpenSession { timeout_ms }) => {
                    let session = entry.id.index;
                    (
                        time_ms,
                        format!("session {session} is opened, for {timeout_ms} ms"),
                    )
                }
                (time_ms, Logged::CloseSession(session)) => {
                    (time_ms, format!("session {session} is closed"))
                }
                (time_ms, Logged::Cancel(id)) => {
                    let (sequence, session) = (id.sequence, id.session);
                    (
                        time_ms,
                        format!("sequence {sequence} of session {session} is cancelled"),
                    )
                }
            };
            let value = json!({ "log_time_ms": time_ms, "says": words });
            Some((words, value))
        }
        EntryKind::Birth => {
            let Birth { cluster, members } = Birth::decode(&entry.data)?;
            let nodes = members
                .iter()
                .map(|(id, folder)| format!("{id} ({folder})"));
            let nodes: Vec<_> = nodes.collect();
            let words = format!("cluster {cluster} is born of nodes {}", nodes.join(", "));
            let members: serde_json::Map<_, _> = members
                .iter()
                .map(|(id, folder)| (id.to_string(), folder.to_string().into()))
                .collect();
            let cluster = cluster.to_string();
            Some((words, json!({ "cluster": cluster, "members": members })))
        }
        EntryKind::Configuration => {
            let configuration = Configuration::decode(&entry.data).ok()?;
            let words = format!("from here on: {configuration}");
            Some((words, text::json_configuration(&configuration)))
        }
    }
}
