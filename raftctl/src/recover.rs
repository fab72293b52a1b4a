//! `raftctl recover`: says what it costs before it does it.

use std::collections::BTreeSet;

use raft_storage::offline::{Recovered, Recovery};
use serde_json::json;

use crate::args::RecoverArgs;
use crate::out::{Exit, Out};
use crate::text::{json_id, list};

pub(crate) fn recover(args: &RecoverArgs, out: &mut Out) -> anyhow::Result<Exit> {
    let voters: BTreeSet<_> = args.voters.iter().copied().collect();
    let recovery = Recovery::plan(&args.dir, &voters)?;
    let costs = if recovery.done {
        Vec::new()
    } else {
        costs(&recovery)
    };
    // Before it is done, and not only before it is told.
    let head = headline(args, &recovery);
    out.line(&head)?;
    for cost in &costs {
        out.line(format!("- {cost}"))?;
    }
    out.finish()?;
    let done = match args.yes {
        true => Some(recovery.carry_out()?),
        false => None,
    };
    let (words, exit) = match done {
        _ if recovery.done => (
            format!(
                "it was recovered with these voters before; nothing was changed. Its cluster is {}",
                recovery.cluster
            ),
            Exit::Good,
        ),
        None => (
            "nothing was changed; to do it, add --yes".to_owned(),
            Exit::NotDone,
        ),
        Some(Recovered::Before | Recovered::Now) => (
            format!(
                "done: it is of cluster {} now, and so must be all that are left, once they are recovered. Start them \
                 with the peers {}",
                recovery.cluster,
                list(&recovery.voters)
            ),
            Exit::Good,
        ),
    };
    out.line(&words)?;
    out.json(|| {
        let ids = |ids: &BTreeSet<raft_core::NodeId>| ids.iter().map(|id| id.0).collect::<Vec<_>>();
        json!({
            "node": recovery.node.0,
            "voters": ids(&recovery.voters),
            "voters_before": ids(&recovery.voters_before),
            "last": json_id(recovery.last),
            "snapshot": json_id(recovery.covered),
            "membership_changes": recovery.changes.iter().map(|at| at.0).collect::<Vec<_>>(),
            "cluster_before": recovery.cluster_before.to_string(),
            "cluster": recovery.cluster.to_string(),
            "costs": costs,
            "done": matches!(done, Some(Recovered::Now)),
            "done_before": recovery.done,
            "says": words,
        })
    })?;
    Ok(exit)
}

fn headline(args: &RecoverArgs, recovery: &Recovery) -> String {
    let left: Vec<_> = recovery
        .voters
        .intersection(&recovery.voters_before)
        .collect();
    format!(
        "{}, of node {}: {} of {} voters are left ({}), and shall decide alone from now on",
        args.dir.display(),
        recovery.node,
        left.len(),
        recovery.voters_before.len(),
        list(left),
    )
}

/// What a recovery costs, said of this one.
fn costs(recovery: &Recovery) -> Vec<String> {
    let before = &recovery.voters_before;
    let left = recovery.voters.intersection(before).count();
    let lost: BTreeSet<_> = before.difference(&recovery.voters).copied().collect();
    let mut costs = Vec::new();
    if left > before.len() / 2 {
        costs.push(format!(
            "{left} of {} are a majority: they can go on WITHOUT this. Just start them",
            before.len()
        ));
    }
    costs.push(
        "entries that only the lost nodes had are gone for good, though clients were told that they are committed"
            .to_owned(),
    );
    costs.push(
        "entries that were never acknowledged may become committed: whatever is in the logs that are left counts"
            .to_owned(),
    );
    costs.push(match lost.is_empty() {
        true => "whoever is not in this list must never come back with its old folder".to_owned(),
        false => format!(
            "the lost nodes ({}) must never come back with their old folders: wipe those, or keep them off the network; \
             a majority of them would go on as the old cluster",
            list(&lost)
        ),
    });
    costs.push(format!(
        "the folder of EACH node that is left ({}) must be recovered with the same list, while all of them are stopped; \
         those that are not are refused as another cluster",
        list(&recovery.voters)
    ));
    costs.push(format!(
        "compare `raftctl log status` of all of them first: here the log ends at {}, and the snapshot covers {}",
        recovery.last, recovery.covered
    ));
    if !recovery.changes.is_empty() {
        let changes: Vec<_> = recovery.changes.iter().map(ToString::to_string).collect();
        costs.push(format!(
            "this log holds changes of membership, at {}: the logs of all that are left must hold the same ones, or \
             one of them could later be undone there",
            changes.join(", ")
        ));
    }
    costs
}
