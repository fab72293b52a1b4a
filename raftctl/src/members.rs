//! `raftctl members`: who belongs to the cluster, as a folder knows it.
//!
//! A folder knows it twice: what its node has recorded when it took part for the first time, or departed; and what
//! stands in its log, which is newer, but need not be committed.

use std::path::Path;

use raft_core::NodeId;
use raft_core::membership::Configuration;
use raft_storage::offline::{self, Status};
use serde_json::{Map, Value, json};

use crate::out::{Exit, Out};
use crate::text::row;

/// What is said where nothing is recorded.
pub(crate) const NONE: &str = "none yet: it has not met all nodes, or not joined";

pub(crate) fn members(dir: &Path, out: &mut Out) -> anyhow::Result<Exit> {
    let status = offline::status(dir)?;
    let content = status.content.as_ref();
    let known = content.and_then(|content| content.known.as_ref());
    let in_log = content.and_then(|content| content.configuration.as_ref());
    let cluster = content.and_then(|content| content.cluster);
    let departed = departed(&status);
    out.json(|| {
        json!({
            "node": node(&status).map(|node| node.0),
            "departed": departed.is_some(),
            "cluster": cluster.map(|cluster| cluster.to_string()),
            "recorded": known.map(json),
            "log": in_log.map(|(_, configuration)| json(configuration)),
            "since": in_log.map(|(at, _)| at.0),
            "next_id": in_log.map(|(_, configuration)| configuration.next_id().0),
            "refusal": status.refusal.as_ref().map(ToString::to_string),
        })
    })?;
    let mut lines = vec![node_row(&status)];
    if departed.is_some() {
        lines.push(row("", "it has departed from its cluster"));
    }
    match known {
        Some(known) => rows("recorded", known, &mut lines),
        None => lines.push(row("recorded", NONE)),
    }
    match in_log {
        Some((at, configuration)) => {
            rows("in the log", configuration, &mut lines);
            lines.push(row("", format!("since entry {at}")));
        }
        None => lines.push(row("in the log", "no change since the beginning")),
    }
    if let Some(refusal) = &status.refusal {
        lines.push(format!("a node would refuse this folder: {refusal}"));
    }
    for line in lines {
        out.line(line)?;
    }
    Ok(match status.refusal {
        None => Exit::Good,
        Some(_) => Exit::Bad,
    })
}

/// Whose folder it is. When it is given, the database says so before the mark does.
pub(crate) fn node(status: &Status) -> Option<NodeId> {
    let owner = status.content.as_ref().and_then(|content| content.owner);
    let marked = status.mark.and_then(|mark| mark.node);
    owner.and_then(|(node, ..)| node).or(marked)
}

/// Whose folder it is, if that is no member of its cluster any more.
pub(crate) fn departed(status: &Status) -> Option<NodeId> {
    let content = status.content.as_ref()?;
    node(status).filter(|_| content.has_departed())
}

/// That in words.
pub(crate) fn node_row(status: &Status) -> String {
    match node(status) {
        Some(node) => row("node", node),
        None => row("node", "not a member yet: it has no id"),
    }
}

/// The members, one in a row.
pub(crate) fn rows(title: &str, configuration: &Configuration, lines: &mut Vec<String>) {
    for (at, node) in configuration.members().into_iter().enumerate() {
        let title = if at == 0 { title } else { "" };
        lines.push(row(title, member(configuration, node)));
    }
}

/// The members by their ids.
pub(crate) fn json(configuration: &Configuration) -> Map<String, Value> {
    let members = configuration.members().into_iter();
    let members = members.map(|id| (id.to_string(), member_json(configuration, id)));
    members.collect()
}

/// What a member does; none for a voter, as most are.
fn role(configuration: &Configuration, node: NodeId) -> Option<&'static str> {
    if configuration.voters.contains(&node) {
        None
    } else if configuration.votes(node) {
        Some("a voter until the change is done")
    } else if configuration.joining.contains(&node) {
        Some("a learner that joins")
    } else {
        Some("a learner")
    }
}

/// A member, and what is known of it.
fn member(configuration: &Configuration, node: NodeId) -> String {
    let member = configuration.about.get(&node).cloned().unwrap_or_default();
    let mut words = Vec::new();
    words.extend(role(configuration, node).map(str::to_owned));
    if let Some(incarnation) = member.incarnation {
        words.push(format!("incarnation {incarnation}"));
    }
    for (what, value) in [("at", member.address), ("TLS name", member.tls_name)] {
        if !value.is_empty() {
            words.push(format!("{what} {value}"));
        }
    }
    match words.is_empty() {
        true => node.to_string(),
        false => format!("{node} ({})", words.join(", ")),
    }
}

fn member_json(configuration: &Configuration, node: NodeId) -> Value {
    let member = configuration.about.get(&node).cloned().unwrap_or_default();
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    json!({
        "votes": configuration.votes(node),
        "joins": configuration.joining.contains(&node),
        "incarnation": member.incarnation.map(|incarnation| incarnation.to_string()),
        "address": said(member.address),
        "tls_name": said(member.tls_name),
    })
}
