//! `raftctl backup`.

use raft_storage::offline;
use serde_json::json;

use crate::args::BackupArgs;
use crate::out::{Exit, Out};
use crate::text;

/// What a backup is for, and what it is not for.
const PURPOSE: &str = "\
It is for reading, for `raftctl snapshot export` and, when nothing better is left, for `raftctl recover`.
Never start it as the node while others of its cluster live: it has forgotten what the node acknowledged and voted since.
(Peers that remember a start of the node refuse the copy, whose count of starts is 0. They remember while they run.)";

pub(crate) fn backup(args: &BackupArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let copied = offline::backup(&args.dir, &args.to)?;
    out.json(|| {
        json!({
            "to": args.to.display().to_string(),
            "node": copied.node.map(|node| node.0),
            "cluster": copied.cluster.map(|cluster| cluster.to_string()),
            "entries": copied.entries,
            "last": text::json_id(copied.last),
            "snapshot": copied.snapshot.map(text::json_id),
            "purpose": PURPOSE,
        })
    })?;
    let snapshot = match copied.snapshot {
        Some(last) => format!("the snapshot through {last} and "),
        None => String::new(),
    };
    let whose = match copied.node {
        Some(node) => format!("node {node}"),
        None => "nobody yet".to_owned(),
    };
    out.line(format!(
        "{} holds {snapshot}{} entries of {whose}, through {}: checked, synced",
        args.to.display(),
        copied.entries,
        copied.last,
    ))?;
    out.line(PURPOSE)?;
    Ok(Exit::Good)
}
