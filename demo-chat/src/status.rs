//! How a node sees itself, as one line of JSON for scripts and as text for people.

use raft_actor::{NodeStatus, Phase};
use serde::Serialize;

use crate::members::{HowMany, Member};

#[derive(Serialize)]
struct Json<'a> {
    id: u64,
    role: String,
    leader: Option<u64>,
    term: u64,
    commit: u64,
    applied: u64,
    members: Vec<Member<'a>>,
    phase: &'static str,
    waiting_for: Vec<Waiting<'a>>,
    failure: Option<String>,
    last: u64,
    cluster: Option<String>,
    proposals_waiting: usize,
    tolerance: Option<HowMany>,
}

#[derive(Serialize)]
struct Waiting<'a> {
    id: u64,
    why: &'a str,
}

/// One word for where the node is in its life.
pub(crate) fn phase(phase: &Phase) -> &'static str {
    match phase {
        Phase::Forming { .. } => "forming",
        Phase::Running => "running",
        Phase::Leaving => "leaving",
        Phase::ShuttingDown => "shutting-down",
        Phase::Failed(_) => "failed",
    }
}

/// `status` as one line of JSON, without a newline.
pub(crate) fn json(status: &NodeStatus) -> String {
    let waiting_for = match &status.phase {
        Phase::Forming { waiting_for } => waiting_for.as_slice(),
        _ => &[],
    };
    let json = Json {
        id: status.id.0,
        role: status.role.to_string(),
        leader: status.leader.map(|leader| leader.0),
        term: status.term.0,
        commit: status.commit.0,
        applied: status.applied.0,
        members: status.members.iter().map(Member::from).collect(),
        phase: phase(&status.phase),
        waiting_for: waiting_for
            .iter()
            .map(|(id, why)| Waiting { id: id.0, why })
            .collect(),
        failure: match &status.phase {
            Phase::Failed(failure) => Some(failure.to_string()),
            _ => None,
        },
        last: status.last.index.0,
        cluster: status.cluster.map(|cluster| cluster.to_string()),
        proposals_waiting: status.proposals_waiting,
        tolerance: status.tolerance.as_ref().map(HowMany::from),
    };
    // Text and numbers always have a form in JSON.
    serde_json::to_string(&json).unwrap_or_default()
}

/// `status` in lines for a person.
pub(crate) fn text(status: &NodeStatus) -> Vec<String> {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "not known".into());
    let mut lines = vec![
        format!("node      {}, {}", status.id, phase(&status.phase)),
        format!("role      {}", status.role),
        format!(
            "leader    {}",
            or_none(status.leader.map(|leader| format!("node {leader}")))
        ),
        format!("term      {}", status.term),
        format!("log       up to {}", status.last.index),
        format!("commit    {}", status.commit),
        format!("applied   {}", status.applied),
        format!("waiting   {} proposals", status.proposals_waiting),
        format!(
            "cluster   {}",
            or_none(status.cluster.map(|cluster| cluster.to_string()))
        ),
    ];
    for member in &status.members {
        let connected = match member.connected {
            _ if member.id == status.id => "this one",
            true => "connected",
            false => "not connected",
        };
        lines.push(format!(
            "node {:<4} {}, {connected}",
            member.id.0, member.address
        ));
    }
    if let Phase::Forming { waiting_for } = &status.phase {
        lines.extend(
            waiting_for
                .iter()
                .map(|(id, why)| format!("waits for node {id}: {why}")),
        );
    }
    lines
}

/// A status to test with: node 1 of three.
#[cfg(test)]
pub(crate) fn example() -> NodeStatus {
    use raft_actor::{
        ClusterId, Configuration, Incarnation, LogId, LogIndex, MemberRole, MemberStatus, NodeId,
        Role, Term,
    };
    NodeStatus {
        id: NodeId(1),
        incarnation: Incarnation(7),
        cluster: Some(ClusterId(0xc0ffee)),
        phase: Phase::Running,
        role: Role::Follower,
        term: Term(3),
        leader: Some(NodeId(2)),
        commit: LogIndex(41),
        applied: LogIndex(40),
        unapplied: 1,
        durable: LogIndex(42),
        last: LogId::new(Term(3), LogIndex(42)),
        log_start: LogIndex::ZERO,
        snapshot: LogIndex::ZERO,
        configuration: Configuration::default(),
        members: (1..=3)
            .map(|id| MemberStatus {
                id: NodeId(id),
                address: format!("127.0.0.1:700{id}"),
                connected: id != 3,
                role: Some(MemberRole::Voter),
                priority: 0,
                incarnation: None,
                healthy: None,
                queue: None,
                progress: None,
            })
            .collect(),
        tolerance: None,
        proposals_waiting: 0,
    }
}

#[cfg(test)]
mod tests {
    use raft_actor::NodeId;

    use super::*;

    #[test]
    fn the_json_line_is_what_scripts_read() {
        assert_eq!(
            json(&example()),
            concat!(
                r#"{"id":1,"role":"follower","leader":2,"term":3,"commit":41,"applied":40,"members":["#,
                r#"{"id":1,"address":"127.0.0.1:7001","connected":true,"role":"voter","priority":0,"healthy":null,"matched":null},"#,
                r#"{"id":2,"address":"127.0.0.1:7002","connected":true,"role":"voter","priority":0,"healthy":null,"matched":null},"#,
                r#"{"id":3,"address":"127.0.0.1:7003","connected":false,"role":"voter","priority":0,"healthy":null,"matched":null}],"#,
                r#""phase":"running","waiting_for":[],"failure":null,"last":42,"#,
                r#""cluster":"00000000000000000000000000c0ffee","proposals_waiting":0,"tolerance":null}"#
            )
        );
    }

    #[test]
    fn a_forming_node_names_whom_it_waits_for() {
        let mut status = example();
        status.leader = None;
        status.cluster = None;
        status.phase = Phase::Forming {
            waiting_for: vec![(NodeId(2), "a \"b\"\n".into())],
        };
        let json = json(&status);
        assert!(
            json.contains(r#""leader":null"#) && json.contains(r#""cluster":null"#),
            "{json}"
        );
        assert!(
            json.contains(r#""phase":"forming","waiting_for":[{"id":2,"why":"a \"b\"\n"}]"#),
            "{json}"
        );
        assert!(
            text(&status)
                .iter()
                .any(|line| line.starts_with("waits for node 2: a"))
        );
    }
}
