//! Adding a node from a member's side: the node waits at an address, and is told whom to join.

use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{Incarnation, NodeId};
use raft_net::{Limits, visit};

use super::message::{self, ADDRESSES_MAX, Answer, Ask};
use crate::MembershipError;
use crate::door::TIMEOUT_MAX;
use crate::message::Invite;
use crate::node::Node;
use crate::observe::raft_of;
use crate::reply::{Answer as Reply, Later, later};

/// Invitations that wait for their end.
const INVITATIONS_MAX: usize = 64;

/// Who was invited, and who waits for it to be a member.
pub(crate) struct Invitation {
    incarnation: Incarnation,
    since: Instant,
    until: Instant,
    reply: Reply<Result<NodeId, MembershipError>>,
}

/// What the node at the address said.
#[derive(Message)]
#[rtype(result = "()")]
struct Asked {
    address: String,
    said: Result<Answer, String>,
    since: Instant,
    until: Instant,
    reply: Reply<Result<NodeId, MembershipError>>,
}

impl Handler<Invite> for Node {
    type Result = Later<Result<NodeId, MembershipError>>;

    fn handle(&mut self, invite: Invite, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, reply) = later(|| Err(MembershipError::NodeEnded));
        if raft_of(&self.life).is_none() {
            reply.give(Err(MembershipError::NodeEnded));
            return later;
        }
        if self.invitations.len() >= INVITATIONS_MAX {
            reply.give(Err(MembershipError::Busy));
            return later;
        }
        let mut addresses = vec![self.own_address.clone()];
        for id in self.peers.keys() {
            addresses.extend(self.where_is(*id).into_iter().next());
        }
        addresses.retain(|address| !address.is_empty());
        addresses.truncate(ADDRESSES_MAX);
        let Some(cluster) = self.cluster else {
            reply.give(Err(MembershipError::NoLeader {
                waited: Duration::ZERO,
            }));
            return later;
        };
        let question = Ask::Invite {
            cluster: message::number(cluster.0),
            addresses,
            learner: invite.learner,
            replacing: invite.replacing.unwrap_or_default().0,
        };
        let (tls, node) = (self.hosting.tls.clone(), ctx.address());
        let since = Instant::now();
        let until = since + invite.timeout.min(TIMEOUT_MAX);
        actix_rt::spawn(async move {
            let limits = Limits::default();
            let asked = visit(&invite.address, question.encode(), tls.as_ref(), &limits);
            let said = match tokio::time::timeout_at(until.into(), asked).await {
                Ok(Ok(bytes)) => {
                    Answer::decode(&bytes).ok_or_else(|| "its answer is none".to_owned())
                }
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err("no answer".to_owned()),
            };
            node.do_send(Asked {
                address: invite.address,
                said,
                since,
                until,
                reply,
            });
        });
        later
    }
}

impl Handler<Asked> for Node {
    type Result = ();

    fn handle(&mut self, asked: Asked, _: &mut Self::Context) {
        let Asked {
            address,
            said,
            since,
            until,
            reply,
        } = asked;
        let why = match said {
            Ok(Answer::Here(number)) => {
                return self.invitations.push(Invitation {
                    incarnation: message::incarnation(&number),
                    since,
                    until,
                    reply,
                });
            }
            Ok(Answer::NotHere) => {
                "a node is there that has a cluster, or is no longer waiting".to_owned()
            }
            Ok(_) => "its answer is none to what was asked".to_owned(),
            Err(why) => why,
        };
        reply.give(Err(MembershipError::Unreachable { address, why }));
    }
}

impl Node {
    /// Tells those who invited a node that it is a member, or that their time is up.
    pub(crate) fn tend_invitations(&mut self) {
        if self.invitations.is_empty() {
            return;
        }
        let raft = raft_of(&self.life);
        let folders = raft.map(|raft| raft.committed_configuration().folders());
        let folders = folders.unwrap_or_default();
        let now = Instant::now();
        let mut waiting = Vec::new();
        for invitation in self.invitations.drain(..) {
            let mut members = folders.iter();
            let found = members.find(|(_, folder)| **folder == invitation.incarnation);
            if let Some((id, _)) = found {
                invitation.reply.give(Ok(*id));
            } else if now >= invitation.until {
                let waited: Duration = now - invitation.since;
                invitation
                    .reply
                    .give(Err(MembershipError::TimedOut { waited }));
            } else {
                waiting.push(invitation);
            }
        }
        self.invitations = waiting;
    }
}
