//! A node that hears of no leader asks those whom it knows where the others are.
//!
//! All may have moved while it was away, and those who lead now may have come since. Who joined is a guest until the log
//! names it; where a member is now is tried beside what is known.

use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{NodeId, Raft};
use raft_net::{Limits, visit};
use tokio::time::timeout;

use super::message::{ADDRESSES_MAX, Answer, Ask};
use crate::node::{Life, Node};
use crate::observe::raft_of;

/// How often it is asked.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take.
const WAIT: Duration = Duration::from_secs(2);
/// So many are asked at once, and so many who are not known yet are dialled.
const ASKED_MAX: usize = 16;

/// What the search for a leader remembers.
#[derive(Default)]
pub(crate) struct Search {
    asked: Option<Instant>,
    /// Who is dialled because somebody has named it.
    found: Vec<NodeId>,
}

/// Where somebody says that the nodes are.
#[derive(Message)]
#[rtype(result = "()")]
struct Found(Vec<(u64, String)>);

impl Node {
    /// Asks, if there is no leader; and lets go of those who were of no use, once there is one.
    pub(crate) fn search(&mut self, ctx: &mut Context<Self>) {
        let (Life::Running(raft), Some(cluster)) = (&self.life, self.cluster) else {
            return;
        };
        if raft.leader().is_some() {
            self.search.asked = None;
            for id in std::mem::take(&mut self.search.found) {
                let peer = self.peers.get(&id);
                if peer.is_some_and(|peer| peer.is_guest && !peer.connected) {
                    self.part_with(id);
                }
            }
            return;
        }
        // An election is over sooner than this.
        let now = Instant::now();
        let asked = self.search.asked.get_or_insert(now);
        if now - *asked < PAUSE {
            return;
        }
        *asked = now;
        let peers: Vec<_> = self.peers.keys().copied().take(ASKED_MAX).collect();
        for id in peers {
            let Some(address) = self.where_is(id).into_iter().next() else {
                continue;
            };
            let (tls, node) = (self.hosting.tls.clone(), ctx.address());
            let question = Ask::who(cluster).encode();
            actix_rt::spawn(async move {
                let limits = Limits::default();
                let asked = visit(&address, question, tls.as_ref(), &limits);
                if let Ok(Ok(bytes)) = timeout(WAIT, asked).await
                    && let Some(Answer::Nodes(nodes)) = Answer::decode(&bytes)
                {
                    node.do_send(Found(nodes));
                }
            });
        }
    }
}

impl Handler<Found> for Node {
    type Result = ();

    fn handle(&mut self, Found(nodes): Found, _: &mut Self::Context) {
        let _span = self.span().entered();
        let Some(raft) = raft_of(&self.life).filter(|raft| raft.leader().is_none()) else {
            return;
        };
        let highest = Raft::committed_configuration(raft).highest_id();
        for (id, address) in nodes.into_iter().take(ADDRESSES_MAX) {
            let id = NodeId(id);
            let is_listed = self.following.listed.contains_key(&id);
            if id == self.id || is_listed || address.is_empty() || !raft_net::is_address(&address) {
                continue;
            }
            let is_new = !self.peers.contains_key(&id);
            if is_new && (id <= highest || self.search.found.len() >= ASKED_MAX) {
                continue;
            }
            if !self.local.addresses(id).contains(&address) {
                tracing::info!(peer = %id, "node {id} is said to be at {address}");
                self.local.list(id, address);
            }
            if is_new {
                self.search.found.push(id);
                self.accepted(id);
            }
        }
    }
}
