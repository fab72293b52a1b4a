//! The members of the cluster, as one line of JSON for scripts and as text for people.

use raft_actor::{MemberRole, MemberStatus, Members, Tolerance};
use serde::Serialize;

#[derive(Serialize)]
struct Json<'a> {
    leader: u64,
    term: u64,
    index: u64,
    committed: bool,
    joint: bool,
    members: Vec<Member<'a>>,
    tolerance: Option<HowMany>,
}

/// A member; what only its leader can know is left out elsewhere.
#[derive(Serialize)]
pub(crate) struct Member<'a> {
    id: u64,
    address: &'a str,
    connected: bool,
    role: Option<&'static str>,
    priority: u32,
    healthy: Option<bool>,
    matched: Option<u64>,
}

/// How many voters may fail, and who is why it is not more.
#[derive(Serialize)]
pub(crate) struct HowMany {
    now: usize,
    possible: usize,
    voters: usize,
    why: Vec<Because>,
}

#[derive(Serialize)]
struct Because {
    id: u64,
    why: String,
}

impl<'a> From<&'a MemberStatus> for Member<'a> {
    fn from(member: &'a MemberStatus) -> Self {
        Self {
            id: member.id.0,
            address: &member.address,
            connected: member.connected,
            role: member.role.map(word),
            priority: member.priority,
            healthy: member.healthy,
            matched: member.progress.as_ref().map(|progress| progress.matched.0),
        }
    }
}

impl From<&Tolerance> for HowMany {
    fn from(tolerance: &Tolerance) -> Self {
        let because = |(id, why): &(raft_actor::NodeId, raft_actor::Why)| Because {
            id: id.0,
            why: why.to_string(),
        };
        Self {
            now: tolerance.now,
            possible: tolerance.possible,
            voters: tolerance.voters,
            why: tolerance.why.iter().map(because).collect(),
        }
    }
}

fn word(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
        MemberRole::Joining { .. } => "joining",
        MemberRole::Leaving => "leaving",
    }
}

/// `members` as one line of JSON, without a newline.
pub(crate) fn json(members: &Members) -> String {
    let json = Json {
        leader: members.leader.0,
        term: members.term.0,
        index: members.index.0,
        committed: members.committed,
        joint: members.joint,
        members: members.members.iter().map(Member::from).collect(),
        tolerance: members.tolerance.as_ref().map(HowMany::from),
    };
    // Text and numbers always have a form in JSON.
    serde_json::to_string(&json).unwrap_or_default()
}

/// `members` in lines for a person.
pub(crate) fn text(members: &Members) -> Vec<String> {
    let mut lines = vec![match &members.tolerance {
        Some(tolerance) => tolerance.to_string(),
        None => "how many may fail is not known yet: the leader has just been elected".to_owned(),
    }];
    if !members.committed || members.joint {
        lines.push("a change is under way".to_owned());
    }
    for member in &members.members {
        let mut line = format!("node {:<4} {}", member.id.0, member.address);
        if let Some(role) = member.role {
            line += &format!(", {}", word(role));
            if let MemberRole::Joining { rounds } = role {
                line += &format!(" (round {})", rounds + 1);
            }
        }
        if member.id == members.leader {
            line += ", leads";
        }
        if member.priority > 0 {
            line += &format!(", priority {}", member.priority);
        }
        if member.healthy == Some(false) {
            line += ", not healthy";
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use raft_actor::{LogIndex, NodeId, Term, Why};

    use super::*;

    fn example() -> Members {
        let roles = [MemberRole::Voter, MemberRole::Joining { rounds: 2 }];
        let member = |(id, role)| MemberStatus {
            id: NodeId(id),
            address: format!("127.0.0.1:700{id}"),
            connected: true,
            queue: None,
            role: Some(role),
            priority: id as u32 - 1,
            incarnation: None,
            healthy: Some(id == 1),
            progress: None,
        };
        Members {
            leader: NodeId(1),
            term: Term(3),
            index: LogIndex(7),
            committed: false,
            joint: false,
            members: (1..).zip(roles).map(member).collect(),
            tolerance: Some(Tolerance {
                now: 0,
                possible: 1,
                voters: 3,
                why: vec![(NodeId(2), Why::Silent)],
            }),
        }
    }

    #[test]
    fn the_json_line_is_what_scripts_read() {
        assert_eq!(
            json(&example()),
            concat!(
                r#"{"leader":1,"term":3,"index":7,"committed":false,"joint":false,"members":["#,
                r#"{"id":1,"address":"127.0.0.1:7001","connected":true,"role":"voter","priority":0,"healthy":true,"matched":null},"#,
                r#"{"id":2,"address":"127.0.0.1:7002","connected":true,"role":"joining","priority":1,"healthy":false,"matched":null}],"#,
                r#""tolerance":{"now":0,"possible":1,"voters":3,"why":[{"id":2,"why":"silent"}]}}"#
            )
        );
    }

    #[test]
    fn people_read_what_matters_first() {
        assert_eq!(
            text(&example()),
            [
                "0 of 3 voters may fail, 1 could: node 2: silent",
                "a change is under way",
                "node 1    127.0.0.1:7001, voter, leads",
                "node 2    127.0.0.1:7002, joining (round 3), priority 1, not healthy",
            ]
        );
    }
}
