//! `raftctl log status` and `raftctl log verify`.

use std::path::Path;

use raft_core::HardState;
use raft_storage::Claim;
use raft_storage::offline::{self, Content, Problem, SnapshotStatus, Status, Use};
use serde_json::{Map, Value, json};

use crate::members;
use crate::out::{Exit, Out};
use crate::text::{self, row, size};

/// So many terms are listed for people; scripts get all.
const TERMS_SHOWN: usize = 8;

pub(crate) fn status(dir: &Path, out: &mut Out) -> anyhow::Result<Exit> {
    let status = offline::status(dir)?;
    out.json(|| status_json(&status))?;
    for line in status_lines(&status) {
        out.line(line)?;
    }
    Ok(match status.refusal {
        None if members::departed(&status).is_none() => Exit::Good,
        _ => Exit::Bad,
    })
}

fn status_lines(status: &Status) -> Vec<String> {
    let mut lines = vec![row("data folder", status.dir.display())];
    lines.push(row("in use", in_use(status.used)));
    if let Some(mark) = &status.mark {
        lines.push(members::node_row(status));
        lines.push(row("incarnation", mark.incarnation));
        lines.push(row("mark claims", mark.claim));
    }
    if let Some(content) = &status.content {
        lines.push(row("database has", held(content)));
        content_lines(content, &mut lines);
    }
    if let Some(snapshot) = &status.snapshot {
        lines.push(row("snapshot", snapshot_words(snapshot)));
    }
    let disk = status.disk;
    let (total, database, snapshots) = (disk.total, disk.database, disk.snapshots);
    let parts = format!("database {}, snapshots {}", size(database), size(snapshots));
    lines.push(row("on disk", format!("{} ({parts})", size(total))));
    lines.push(String::new());
    lines.push(match (&status.refusal, members::departed(status)) {
        (Some(refusal), _) => format!("a node would refuse this folder: {refusal}"),
        (None, Some(node)) => format!(
            "a node would not start on this folder: node {node} has departed from its cluster; move the folder away, and it \
             can join again as another node"
        ),
        (None, None) if status.used == Use::Free => "a node would open this folder".to_owned(),
        (None, None) => "a node would open this folder, once it is not in use".to_owned(),
    });
    lines
}

fn content_lines(content: &Content, lines: &mut Vec<String>) {
    match content.cluster {
        Some(cluster) => lines.push(row("cluster", cluster)),
        None => lines.push(row("cluster", "none yet: nothing is known to be committed")),
    }
    match &content.known {
        None => lines.push(row("members", members::NONE)),
        Some(known) => members::rows("members", known, lines),
    }
    if content.has_departed() {
        lines.push(row("", "and not this node: it has departed"));
    }
    let (start, last) = (content.log_start, content.last);
    let compacted = match start.index.0 {
        0 => String::new(),
        _ => format!("; all through {start} is in the snapshot only"),
    };
    let log = match content.entries {
        0 => format!("no entries{compacted}"),
        count => format!(
            "entries {} to {} ({count} of them, {} of data){compacted}",
            start.index.next(),
            last.index,
            size(content.bytes)
        ),
    };
    lines.push(row("log", log));
    let hidden = content.terms.len().saturating_sub(TERMS_SHOWN);
    if hidden > 0 {
        lines.push(row("terms", format!("{hidden} earlier ones, then")));
    }
    for (at, range) in content.terms.iter().skip(hidden).enumerate() {
        let name = if at + hidden == 0 { "terms" } else { "" };
        let words = format!("term {}: {} to {}", range.term, range.first, range.last);
        lines.push(row(name, words));
    }
    let configuration = match &content.configuration {
        None => "the list of peers that the nodes are started with".to_owned(),
        Some((at, configuration)) => format!("{configuration} (since entry {at})"),
    };
    lines.push(row("configuration", configuration));
    if let Some(forced) = &content.forced {
        let (through, configuration) = (forced.through, &forced.configuration);
        let words = format!(
            "{configuration}, in place of all that the log says through {through}: an operator recovered this cluster"
        );
        lines.push(row("forced", words));
    }
    for (at, (name, index)) in content.cursors.iter().enumerate() {
        let title = if at == 0 { "cursors" } else { "" };
        lines.push(row(
            title,
            format!("\"{}\" at {index}", text::preview(name.as_bytes(), None)),
        ));
    }
}

fn in_use(used: Use) -> String {
    match used {
        Use::Free => "no".to_owned(),
        Use::By(None) => "yes".to_owned(),
        Use::By(Some(process)) => format!("by process {process}"),
    }
}

fn held(content: &Content) -> Claim {
    Claim {
        starts: content.owner.map_or(0, |(_, _, starts)| starts),
        records: content.records,
        hard_state: content.hard_state,
        position: content.last,
    }
}

fn snapshot_words(snapshot: &SnapshotStatus) -> String {
    let last = snapshot.last;
    let file = snapshot.file.display();
    match (&snapshot.wrong, snapshot.bytes) {
        (Some(wrong), _) => format!("through {last}, not whole: {wrong}"),
        (None, bytes) => {
            let bytes = size(bytes.unwrap_or(0));
            let cluster = match snapshot.cluster {
                Some(cluster) => format!("of cluster {cluster}"),
                None => "of no known cluster".to_owned(),
            };
            format!("through {last}, {bytes}, {cluster}, whole by its frame: {file}")
        }
    }
}

fn status_json(status: &Status) -> Value {
    let (in_use, process) = match status.used {
        Use::Free => (false, None),
        Use::By(process) => (true, process),
    };
    json!({
        "dir": status.dir.display().to_string(),
        "in_use": in_use,
        "process": process,
        "node": members::node(status).map(|node| node.0),
        "incarnation": status.mark.map(|mark| mark.incarnation.to_string()),
        "mark": status.mark.map(|mark| claim_json(&mark.claim)),
        "database": status.content.as_ref().map(|content| claim_json(&held(content))),
        "content": status.content.as_ref().map(content_json),
        "snapshot": status.snapshot.as_ref().map(|snapshot| json!({
            "file": snapshot.file.display().to_string(),
            "last": text::json_id(snapshot.last),
            "bytes": snapshot.bytes,
            "cluster": snapshot.cluster.map(|cluster| cluster.to_string()),
            "whole": snapshot.wrong.is_none(),
            "wrong": snapshot.wrong.as_ref().map(ToString::to_string),
        })),
        "disk": {
            "bytes": status.disk.total,
            "database_bytes": status.disk.database,
            "snapshots_bytes": status.disk.snapshots,
        },
        "opens": status.refusal.is_none(),
        "departed": members::departed(status).is_some(),
        "refusal": status.refusal.as_ref().map(ToString::to_string),
    })
}

fn claim_json(claim: &Claim) -> Value {
    let HardState { term, voted_for } = claim.hard_state;
    json!({
        "starts": claim.starts,
        "records": claim.records,
        "term": term.0,
        "vote": voted_for.map(|node| node.0),
        "last": text::json_id(claim.position),
    })
}

fn content_json(content: &Content) -> Value {
    let members = content.known.as_ref().map(members::json);
    let terms: Vec<_> = content
        .terms
        .iter()
        .map(|range| json!({ "term": range.term.0, "first": range.first.0, "last": range.last.0 }))
        .collect();
    let cursors: Map<_, _> = content
        .cursors
        .iter()
        .map(|(name, at)| (name.clone(), at.0.into()))
        .collect();
    json!({
        "starts": content.owner.map(|(_, _, starts)| starts),
        "term": content.hard_state.term.0,
        "vote": content.hard_state.voted_for.map(|node| node.0),
        "cluster": content.cluster.map(|cluster| cluster.to_string()),
        "members": members,
        "log": {
            "start": text::json_id(content.log_start),
            "last": text::json_id(content.last),
            "entries": content.entries,
            "bytes": content.bytes,
            "terms": terms,
        },
        "configuration": content.configuration.as_ref().map(|(at, configuration)| {
            let mut value = text::json_configuration(configuration);
            value["since"] = at.0.into();
            value
        }),
        "forced": content.forced.as_ref().map(|forced| {
            let mut value = text::json_configuration(&forced.configuration);
            value["through"] = forced.through.0.into();
            value
        }),
        "cursors": cursors,
    })
}

pub(crate) fn verify(dir: &Path, out: &mut Out) -> anyhow::Result<Exit> {
    let report = match offline::verify(dir) {
        Ok(report) => report,
        Err(error) => {
            out.json(|| json!({ "error": error.to_string() }))?;
            eprintln!("raftctl: {error}");
            return Ok(Exit::NotDone);
        }
    };
    let checked = report.checked;
    out.json(|| {
        let list = |problems: &[Problem]| problems.iter().map(problem_json).collect::<Vec<_>>();
        json!({
            "dir": dir.display().to_string(),
            "whole": report.problems.is_empty(),
            "entries": checked.entries,
            "records": checked.records,
            "chunks": checked.chunks,
            "problems": list(&report.problems),
            "notes": list(&report.notes),
        })
    })?;
    for problem in &report.problems {
        out.line(format!("problem: {problem}"))?;
    }
    for note in &report.notes {
        out.line(format!("note: {note}"))?;
    }
    out.line(format!(
        "{} entries, {} records and {} snapshot chunks are as they were written",
        checked.entries, checked.records, checked.chunks
    ))?;
    Ok(match report.problems.len() {
        0 => {
            out.line("no problem found")?;
            Exit::Good
        }
        1 => {
            out.line("1 problem found")?;
            Exit::Bad
        }
        count => {
            out.line(format!("{count} problems found"))?;
            Exit::Bad
        }
    })
}

fn problem_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file.display().to_string(),
        "item": problem.item,
        "reason": problem.reason,
    })
}
