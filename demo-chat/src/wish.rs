//! What the cluster is asked to say or to do, and how that came out, in words.

use actix::Addr;
use raft_actor::{
    ChangeMembership, Changed, GetMembers, Invite, Leave, MembershipError, NodeId, RaftActor,
    TransferLeadership,
};

use crate::members;

/// How many wait for their outcome at a time, at most.
pub(crate) const WISHES_MAX: usize = 64;

/// Something that the node, or its leader, is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Who belongs to the cluster?
    Members,
    /// This node goes for good.
    Leave,
    /// That node goes for good; forced, also if too few healthy voters are left.
    Remove(NodeId, bool),
    /// The learner votes.
    Promote(NodeId),
    /// The voter does not; forced as above.
    Demote(NodeId, bool),
    /// Who is to lead rather than others.
    Priority(NodeId, u32),
    /// Somebody else leads.
    Transfer(Option<NodeId>),
    /// The node that waits at an address comes in.
    Add(String),
}

/// What is shown of an outcome.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// The members: a line of JSON for scripts, and lines for people.
    Members { json: String, text: Vec<String> },
    /// `done /leave: …`, or `failed /leave: …`.
    Line(String),
}

impl Wish {
    /// Has it carried out, and says what came of it.
    pub(crate) async fn carry_out(self, raft: Addr<RaftActor>) -> Said {
        let what = self.to_string();
        match self.ask(raft).await {
            Ok(Said::Line(outcome)) => Said::Line(format!("done {what}: {outcome}")),
            Ok(members) => members,
            Err(error) => Said::Line(format!("failed {what}: {error}")),
        }
    }

    async fn ask(self, raft: Addr<RaftActor>) -> Result<Said, MembershipError> {
        let gone = |_| MembershipError::NodeEnded;
        let change = ChangeMembership::new();
        let change = match self {
            Self::Members => {
                let members = raft.send(GetMembers).await.map_err(gone)??;
                let (json, text) = (members::json(&members), members::text(&members));
                return Ok(Said::Members { json, text });
            }
            Self::Leave => {
                raft.send(Leave::default()).await.map_err(gone)??;
                return Ok(Said::Line("this node is a member no more".into()));
            }
            Self::Transfer(to) => {
                let next = raft.send(TransferLeadership { to }).await.map_err(gone)??;
                return Ok(Said::Line(format!("node {next} takes over")));
            }
            Self::Add(address) => {
                let id = raft.send(Invite::new(address)).await.map_err(gone)??;
                return Ok(Said::Line(format!("it is node {id}")));
            }
            Self::Remove(node, true) => change.remove(node).forced(),
            Self::Remove(node, false) => change.remove(node),
            Self::Promote(node) => change.promote(node),
            Self::Demote(node, true) => change.demote(node).forced(),
            Self::Demote(node, false) => change.demote(node),
            Self::Priority(node, priority) => change.priority(node, priority),
        };
        let changed = raft.send(change).await.map_err(gone)??;
        Ok(Said::Line(outcome(&changed)))
    }
}

fn outcome(changed: &Changed) -> String {
    let now = match changed.index {
        Some(index) => format!("since entry {index}: {}", changed.configuration),
        None => format!("it was so already: {}", changed.configuration),
    };
    if changed.catching_up.is_empty() {
        return now;
    }
    let ids: Vec<_> = changed.catching_up.iter().map(NodeId::to_string).collect();
    format!("{now}; catching up before it votes: {}", ids.join(" "))
}

impl std::fmt::Display for Wish {
    /// As it is typed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let force = |forced: &bool| if *forced { " --force" } else { "" };
        match self {
            Self::Members => f.write_str("/members"),
            Self::Leave => f.write_str("/leave"),
            Self::Remove(node, forced) => write!(f, "/remove {node}{}", force(forced)),
            Self::Promote(node) => write!(f, "/promote {node}"),
            Self::Demote(node, forced) => write!(f, "/demote {node}{}", force(forced)),
            Self::Priority(node, priority) => write!(f, "/priority {node} {priority}"),
            Self::Transfer(None) => f.write_str("/transfer"),
            Self::Transfer(Some(node)) => write!(f, "/transfer {node}"),
            Self::Add(address) => write!(f, "/add {address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use raft_actor::{Configuration, LogIndex};

    use super::*;

    #[test]
    fn an_outcome_says_since_when_and_who_is_not_there_yet() {
        let mut changed = Changed {
            index: Some(LogIndex(7)),
            configuration: Configuration {
                voters: [NodeId(1), NodeId(2)].into(),
                ..Configuration::default()
            },
            catching_up: Vec::new(),
        };
        assert_eq!(outcome(&changed), "since entry 7: voters 1 2");
        changed.index = None;
        changed.catching_up = vec![NodeId(3)];
        assert_eq!(
            outcome(&changed),
            "it was so already: voters 1 2; catching up before it votes: 3"
        );
    }

    #[test]
    fn a_wish_is_written_as_it_is_typed() {
        use crate::command::Entry;
        for line in [
            "/members",
            "/leave",
            "/remove 3 --force",
            "/demote 3",
            "/priority 3 7",
            "/transfer",
            "/transfer 3",
            "/add a:1",
        ] {
            let Entry::Wish(wish) = Entry::parse(line) else {
                panic!("{line}");
            };
            assert_eq!(wish.to_string(), line);
        }
    }
}
