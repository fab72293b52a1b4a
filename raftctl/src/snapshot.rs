//! `raftctl snapshot export` and `raftctl snapshot import`.

use std::path::Path;

use raft_storage::SnapshotInfo;
use raft_storage::offline::{self, Effect, Export, Form, Import};
use serde_json::{Value, json};

use crate::args::{ExportArgs, ImportArgs};
use crate::out::{Exit, Out};
use crate::text::{self, size};

pub(crate) fn export(args: &ExportArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let form = if args.raw { Form::Raw } else { Form::Framed };
    if args.to == Path::new("-") {
        // The standard output carries the snapshot, and nothing else.
        let mut stdout = std::io::stdout().lock();
        let exported = offline::export(&args.dir, form, Export::Stream(&mut stdout))?;
        eprintln!("raftctl: {}", summary(&exported.info));
        return Ok(Exit::Good);
    }
    let to = Export::File {
        path: &args.to,
        replace: args.force,
    };
    let exported = offline::export(&args.dir, form, to)?;
    out.json(|| {
        let mut value = info_json(&exported.info);
        value["file"] = args.to.display().to_string().into();
        value["file_bytes"] = exported.bytes.into();
        value
    })?;
    let file = args.to.display();
    out.line(format!("{}, is in {file}, synced", summary(&exported.info)))?;
    Ok(Exit::Good)
}

pub(crate) fn import(args: &ImportArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let import = Import::plan(&args.dir, &args.file)?;
    if args.yes {
        import.carry_out()?;
    }
    out.json(|| {
        let mut value = info_json(&import.info);
        value["done"] = args.yes.into();
        value["raises_term"] = import.raises_term.map(|term| term.0).into();
        let (keeps, replaces) = match import.effect {
            Effect::Begins { keeps } => (Some(keeps), false),
            Effect::Replaces { .. } => (None, true),
        };
        value["replaces_log"] = replaces.into();
        value["entries_kept"] = keeps.into();
        value
    })?;
    let dir = args.dir.display();
    out.line(format!("{}:", summary(&import.info)))?;
    let last = import.info.meta.last.index;
    out.line(match import.effect {
        Effect::Begins { keeps } => format!(
            "- the log holds entry {last}, and begins behind it from now on; {keeps} entries stay"
        ),
        Effect::Replaces { last: gone } if gone.index.0 == 0 => {
            format!("- the log is empty, and begins behind entry {last} from now on")
        }
        Effect::Replaces { last: gone } => format!(
            "- the log, which ends at {gone}, does not hold that entry: it goes as a whole, and begins anew behind it"
        ),
    })?;
    if let Some(term) = import.raises_term {
        out.line(format!(
            "- the node's term is raised to {term}, without a vote"
        ))?;
    }
    out.line("- the folder is opened for it, which counts as a start")?;
    if args.yes {
        out.line(format!("done: {dir} holds the snapshot"))?;
        return Ok(Exit::Good);
    }
    out.line("nothing was changed; to do it, add --yes")?;
    Ok(Exit::NotDone)
}

fn summary(info: &SnapshotInfo) -> String {
    let cluster = match info.cluster {
        Some(cluster) => format!("cluster {cluster}"),
        None => "no known cluster".to_owned(),
    };
    let (last, bytes) = (info.meta.last, size(info.bytes));
    format!("the snapshot of {cluster} through {last}, {bytes} of state")
}

fn info_json(info: &SnapshotInfo) -> Value {
    json!({
        "last": text::json_id(info.meta.last),
        "cluster": info.cluster.map(|cluster| cluster.to_string()),
        "configuration": text::json_configuration(&info.meta.configuration),
        "bytes": info.bytes,
    })
}
