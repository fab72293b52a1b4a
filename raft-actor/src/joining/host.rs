//! The leader's side of a join.
//!
//! Invariants:
//! - At most [`JOINS_MAX`] joins are under way here, each for as long as its visitor waits. What is under way is lost
//!   with the leadership, and asked for again.
//! - The entry that lets a node in is made when its turn has come: of two that join at once each gets an id of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::membership::{Configuration, MEMBERS_MAX, Member, Step as CoreStep};
use raft_core::{Incarnation, NodeId, Raft, Role};
use raft_net::{Limits, Refusal, Shown, Tls, TlsName, Visit, visit};
use tokio::sync::oneshot;

use super::message::{self, ADDRESSES_MAX, Answer, Ask, Welcome, Wish};
use super::prelude::not_understood;
use crate::changing::{Undone, Wanted};
use crate::config::TICK;
use crate::node::{Life, Node};
use crate::observe::raft_of;
use crate::step::{Step, Steps};
use crate::{Config, MembershipError};

/// Joins that are under way at a leader.
const JOINS_MAX: usize = 8;
/// And of them from one host: each makes the leader dial where it says.
const JOINS_OF_HOST_MAX: usize = 2;
/// For so long a leader tries to reach who wants to join.
const REACH: Duration = Duration::from_secs(2);
/// For so long the entry that lets it in may take. (The visitor waits for 4 s in all, and asks again.)
pub(super) const COMMIT: Duration = Duration::from_secs(2);

type Reply = oneshot::Sender<Result<bytes::Bytes, Refusal>>;

/// What a node needs to let others in.
pub(crate) struct Hosting {
    pub(super) joins: bool,
    pub(super) joiner_timeout: Duration,
    pub(crate) steps: Steps,
    pub(crate) tls: Option<Tls>,
    /// Who waits for an outcome, by data folder.
    pub(super) waiting: BTreeMap<Incarnation, (IpAddr, Reply)>,
    /// When this leader let in whom.
    pub(super) let_in: BTreeMap<NodeId, Instant>,
    pub(super) looked: Instant,
    pub(super) described: Option<Instant>,
    /// Since when those who join have not been heard of.
    pub(super) unheard: BTreeMap<NodeId, Instant>,
    /// How many rounds those who join had been fed when that was reported last.
    pub(super) rounds: BTreeMap<NodeId, u32>,
    /// Who was a member, and who voted, when [`Node::report_steps`] looked last.
    pub(super) seen: (Configuration, bool),
}

impl Hosting {
    pub(crate) fn new(config: &Config, tls: Option<Tls>) -> Self {
        Self {
            joins: config.joins,
            joiner_timeout: config.joiner_timeout,
            steps: config.steps,
            tls,
            waiting: BTreeMap::new(),
            let_in: BTreeMap::new(),
            looked: Instant::now(),
            described: None,
            unheard: BTreeMap::new(),
            rounds: BTreeMap::new(),
            seen: (Configuration::default(), false),
        }
    }
}

/// Whether the node that wants to join was found where it says that it is.
#[derive(Message)]
#[rtype(result = "()")]
struct Reached {
    wish: Wish,
    shown: Option<Shown>,
    is_there: bool,
}

/// What is to be said to who wants to join, when nothing is to be done.
enum Judged {
    /// It is in already.
    In(NodeId),
    /// It may come in, in the place of this one.
    Admit { old: Option<NodeId> },
}

/// Why somebody is not let in, as things are.
enum Unfit {
    /// Something must happen first; it asks again.
    Wait(&'static str),
    Refused(Refusal),
}

impl From<Unfit> for MembershipError {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Wait(_) => wait(),
            Unfit::Refused(refusal) => Self::Refused(Box::new(refusal)),
        }
    }
}

impl Handler<Visit> for Node {
    type Result = ();

    fn handle(&mut self, visit: Visit, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        let answer = match Ask::decode(&visit.data) {
            None => Err(not_understood()),
            Some(Ask::Reach(wanted)) if message::incarnation(&wanted) == self.incarnation => {
                Ok(Answer::here(self.incarnation))
            }
            // Invited before, and come: whoever asks again finds it among the members.
            Some(Ask::Invite { cluster, .. })
                if self.cluster == Some(message::cluster(&cluster)) =>
            {
                Ok(Answer::here(self.incarnation))
            }
            Some(Ask::Reach(_) | Ask::Invite { .. }) => Ok(Answer::NotHere),
            Some(Ask::Who(theirs)) => Ok(self.who(message::cluster(&theirs))),
            Some(Ask::Join(wish)) => {
                self.join_asked(wish, visit.shown, visit.remote.ip(), visit.reply, ctx);
                return self.end_turn(ctx);
            }
        };
        // Nobody waits for it any more, if this fails.
        let _ = visit.reply.send(answer.map(|answer| answer.encode()));
    }
}

impl Handler<Reached> for Node {
    type Result = ();

    fn handle(&mut self, reached: Reached, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        let Reached {
            wish,
            shown,
            is_there,
        } = reached;
        if is_there {
            self.hosting.steps.at(Step::HostReached);
            self.let_in(wish, shown, ctx);
        } else {
            let address = wish.address.clone();
            if let Some(suppressed) = self.refused.line() {
                tracing::warn!(
                    suppressed,
                    "who wants to join is not at {address}, where it says that it is"
                );
            }
            self.tell_visitor(wish.incarnation(), Err(Refusal::Unreachable { address }));
        }
        self.end_turn(ctx);
    }
}

impl Node {
    /// Where the nodes of this cluster are, for one of them.
    fn who(&self, theirs: raft_core::ClusterId) -> Answer {
        match self.cluster {
            Some(ours) if ours == theirs => {
                let peers = self.peers.keys().take(ADDRESSES_MAX);
                let at = |id: &NodeId| Some((id.0, self.where_is(*id).into_iter().next()?));
                let own = (self.id.0, self.own_address.clone());
                Answer::Nodes(peers.filter_map(at).chain([own]).collect())
            }
            Some(_) => Answer::Other,
            None => Answer::wait(500, "this node's cluster is not born yet"),
        }
    }

    /// Where a peer was found, or may be.
    pub(super) fn where_is(&self, id: NodeId) -> Vec<String> {
        let peer = self.peers.get(&id).filter(|peer| peer.connected);
        let reached = peer.map(|peer| peer.sender.address());
        let mut all: Vec<_> = reached.into_iter().collect();
        for address in self.local.addresses(id) {
            if !all.contains(&address) {
                all.push(address);
            }
        }
        all
    }

    /// Somebody wants to join.
    fn join_asked(
        &mut self,
        wish: Wish,
        shown: Option<Shown>,
        from: IpAddr,
        reply: Reply,
        ctx: &mut Context<Self>,
    ) {
        if let Err(answer) = self.may_join(&wish, shown.as_ref(), from) {
            // Nobody waits for it any more, if this fails.
            let _ = reply.send((*answer).map(|answer| answer.encode()));
            return;
        }
        let incarnation = wish.incarnation();
        // The visitor that asked before has gone, or it would not ask again.
        if self
            .hosting
            .waiting
            .insert(incarnation, (from, reply))
            .is_some()
        {
            return;
        }
        if let Some(suppressed) = self.refused.line() {
            tracing::info!(suppressed, "a node at {} wants to join", wish.address);
        }
        let (tls, node) = (self.hosting.tls.clone(), ctx.address());
        actix_rt::spawn(async move {
            let question = Ask::reach(incarnation).encode();
            let limits = Limits {
                connect_timeout: REACH,
                ..Limits::default()
            };
            let asked = visit(&wish.address, question, tls.as_ref(), &limits);
            let answer = tokio::time::timeout(REACH, asked).await;
            let answer = answer.ok().and_then(Result::ok);
            let is_there =
                answer.and_then(|bytes| Answer::decode(&bytes)) == Some(Answer::here(incarnation));
            node.do_send(Reached {
                wish,
                shown,
                is_there,
            });
        });
    }

    /// What somebody who wants to join is to be told at once, if anything.
    fn may_join(
        &self,
        wish: &Wish,
        shown: Option<&Shown>,
        from: IpAddr,
    ) -> Result<(), Box<Result<Answer, Refusal>>> {
        let wait = |ms, why| Err(Box::new(Ok(Answer::wait(ms, why))));
        let leader = match &self.life {
            Life::Running(raft) => raft.leader(),
            Life::Forming { .. } => return wait(500, "its cluster is not born yet"),
            _ => return wait(500, "the node is about to end"),
        };
        let Some(leader) = leader else {
            return wait(200, "it knows of no leader");
        };
        if leader != self.id {
            self.hosting.steps.at(Step::Redirecting);
            let addresses = self.where_is(leader);
            if addresses.is_empty() {
                return wait(200, "it does not know where the leader is");
            }
            return Err(Box::new(Ok(Answer::Redirect { addresses })));
        }
        self.hosting.steps.at(Step::HostAsked);
        match self.judge_wish(wish, shown) {
            Err(Unfit::Wait(why)) => return wait(100, why),
            Err(Unfit::Refused(refusal)) => return Err(Box::new(Err(refusal))),
            Ok(Judged::In(id)) => return Err(Box::new(self.welcome(id))),
            Ok(Judged::Admit { .. }) => {}
        }
        let waiting = &self.hosting.waiting;
        let of_host = waiting.values().filter(|(host, _)| *host == from).count();
        let is_full = waiting.len() >= JOINS_MAX || of_host >= JOINS_OF_HOST_MAX;
        if is_full && !waiting.contains_key(&wish.incarnation()) {
            return wait(200, "many nodes are joining");
        }
        Ok(())
    }

    /// What this leader says of a wish as things are: it may be asked again when they are otherwise.
    fn judge_wish(&self, wish: &Wish, shown: Option<&Shown>) -> Result<Judged, Unfit> {
        let Some(raft) = raft_of(&self.life).filter(|raft| raft.role() == Role::Leader) else {
            return Err(Unfit::Wait("it leads no more"));
        };
        let of_folder = |configuration: &Configuration| {
            let folders = configuration.folders();
            let found = folders
                .into_iter()
                .find(|(_, folder)| *folder == wish.incarnation());
            found.map(|(id, _)| id)
        };
        if let Some(id) = of_folder(raft.committed_configuration()) {
            return Ok(Judged::In(id));
        }
        let configuration = raft.configuration();
        if of_folder(configuration).is_some() {
            return Err(Unfit::Wait(
                "the entry that lets it in is not committed yet",
            ));
        }
        if !self.hosting.joins {
            return Err(Unfit::Refused(Refusal::NoJoins));
        }
        let old = self.replaced(raft, wish)?;
        if configuration.members().len() - usize::from(old.is_some()) >= MEMBERS_MAX {
            return Err(Unfit::Refused(Refusal::TooManyMembers));
        }
        self.judge_name(configuration, wish, shown, old)?;
        let member = self.described(wish);
        if !member.is_sound() || member.address.is_empty() {
            let address = wish.address.chars().filter(char::is_ascii_graphic);
            let address = address.take(80).collect();
            return Err(Unfit::Refused(Refusal::Unreachable { address }));
        }
        Ok(Judged::Admit { old })
    }

    fn described(&self, wish: &Wish) -> Member {
        Member {
            incarnation: Some(wish.incarnation()),
            address: wish.address.clone(),
            tls_name: wish.tls_name.clone(),
        }
    }

    /// Who is silent for so long is gone, as far as a leader knows.
    fn patience(&self) -> Duration {
        2 * TICK * self.core_config.election_timeout_ticks_min
    }

    /// Whose place the node takes that wants to join: the one that it says, or one that is gone and was where it is.
    fn replaced(&self, raft: &Raft, wish: &Wish) -> Result<Option<NodeId>, Unfit> {
        let configuration = raft.configuration();
        let old = match wish.replacing() {
            // It was removed before: then there is nobody to replace.
            Some(old) if configuration.has_departed(old) => return Ok(None),
            Some(old) if !configuration.contains(old) => {
                return Err(Unfit::Refused(Refusal::UnknownNode { node: old }));
            }
            Some(old) => Some(old),
            None => configuration.members().into_iter().find(|id| {
                let about = configuration.about.get(id);
                let same = about.is_some_and(|about| match &self.hosting.tls {
                    Some(_) => !wish.tls_name.is_empty() && about.tls_name == wish.tls_name,
                    None => about.address == wish.address,
                });
                same && *id != self.id
            }),
        };
        let Some(old) = old else {
            return Ok(None);
        };
        // Before it has led for a while, a leader has heard of nobody.
        let patience = self.patience();
        let led = self
            .leads_since
            .map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let is_active = old == self.id
            || raft
                .status()
                .peers
                .iter()
                .any(|peer| peer.id == old && peer.active);
        let peer = self.peers.get(&old).filter(|peer| peer.connected);
        let let_in = self.hosting.let_in.get(&old);
        match (is_active, wish.replacing()) {
            (true, Some(_)) => Err(Unfit::Refused(Refusal::Alive { node: old })),
            (true, None) if peer.is_some_and(|peer| peer.sender.address() != wish.address) => {
                Ok(None)
            }
            (true, None) => Err(Unfit::Wait(
                "who was there before it has only just been heard of",
            )),
            (false, _) if led < patience => {
                Err(Unfit::Wait("the leader is too new to know who is gone"))
            }
            // Who has just come in has had no time to be heard.
            (false, _) if let_in.is_some_and(|since| since.elapsed() < patience) => {
                Err(Unfit::Wait("who has that name has just come in"))
            }
            (false, _) => Ok(Some(old)),
        }
    }

    /// With TLS, who joins has shown a certificate for a name that is nobody else's.
    fn judge_name(
        &self,
        configuration: &Configuration,
        wish: &Wish,
        shown: Option<&Shown>,
        old: Option<NodeId>,
    ) -> Result<(), Unfit> {
        if self.hosting.tls.is_none() {
            return Ok(());
        }
        let usual = TlsName::of(configuration.next_id());
        let (name, text) = if wish.tls_name.is_empty() {
            (Ok(usual), Tls::default_name(configuration.next_id()))
        } else {
            (TlsName::new(wish.tls_name.clone()), wish.tls_name.clone())
        };
        let refusal = || Unfit::Refused(Refusal::TlsName { name: text.clone() });
        let name = name.map_err(|_| refusal())?;
        if !shown.is_some_and(|shown| shown.holds(&name)) {
            return Err(refusal());
        }
        let members = configuration.members().into_iter();
        let mut others = members.filter(|id| Some(*id) != old);
        let is_taken = others.any(|id| self.following.name_of(configuration, id) == name);
        // A name of the usual form is that of the node with this id, whenever it comes.
        let numbered = text
            .strip_prefix("node-")
            .is_some_and(|id| id.parse::<u64>().is_ok());
        let is_others = numbered && name != TlsName::of(configuration.next_id());
        if is_taken || is_others {
            return Err(refusal());
        }
        Ok(())
    }

    /// Lets a node in that was reached: its learning, who it is, and the end of whom it replaces are one change.
    fn let_in(&mut self, wish: Wish, shown: Option<Shown>, ctx: &mut Context<Self>) {
        let incarnation = wish.incarnation();
        let steps = move |node: &Node| {
            let Judged::Admit { old } = node.judge_wish(&wish, shown.as_ref())? else {
                return Ok(Vec::new());
            };
            let Some(raft) = raft_of(&node.life) else {
                return Err(wait());
            };
            let configuration = raft.configuration();
            let id = configuration.next_id();
            let join = if wish.learner {
                CoreStep::AddLearner(id)
            } else {
                CoreStep::Join(id)
            };
            let mut steps = vec![join, CoreStep::Describe(id, node.described(&wish))];
            // Members of whom nothing was said yet, so that who comes in finds them.
            let members = configuration.members().into_iter();
            for id in members.filter(|id| Some(*id) != old) {
                let about = configuration.about.get(&id).cloned().unwrap_or_default();
                let found = match id == node.id {
                    true => Some(node.own_address.clone()),
                    false => node.where_is(id).into_iter().next(),
                };
                if about.address.is_empty()
                    && let Some(address) = found
                    && !address.is_empty()
                {
                    steps.push(CoreStep::Describe(id, Member { address, ..about }));
                }
            }
            steps.extend(old.map(CoreStep::Remove));
            Ok(steps)
        };
        let wanted = Wanted {
            by: None,
            steps: Box::new(steps),
            forced: false,
            deadline: Instant::now() + COMMIT,
            then: Box::new(move |node, result, _| node.was_let_in(incarnation, result)),
        };
        self.change(wanted, ctx);
    }

    fn was_let_in<T>(&mut self, incarnation: Incarnation, result: Result<T, Undone>) {
        let answer = match result {
            Ok(_) => {
                self.hosting.steps.at(Step::HostCommitted);
                let raft = raft_of(&self.life);
                let folders = raft.map(|raft| raft.committed_configuration().folders());
                let mut folders = folders.into_iter().flatten();
                match folders.find(|(_, folder)| *folder == incarnation) {
                    Some((id, _)) => {
                        tracing::info!(peer = %id, "let in as node {id}");
                        let (now, patience) = (Instant::now(), self.patience());
                        let let_in = &mut self.hosting.let_in;
                        let_in.retain(|_, since| now - *since < patience);
                        let_in.insert(id, now);
                        self.welcome(id)
                    }
                    None => outcome_of(wait()),
                }
            }
            Err(Undone::NotLeader | Undone::Deposed) => outcome_of(wait()),
            Err(Undone::Error(error)) => outcome_of(error),
        };
        self.tell_visitor(incarnation, answer);
    }

    fn tell_visitor(&mut self, incarnation: Incarnation, answer: Result<Answer, Refusal>) {
        if let Some((_, reply)) = self.hosting.waiting.remove(&incarnation) {
            let _ = reply.send(answer.map(|answer| answer.encode()));
        }
    }

    /// What a member must know that is in, with everybody where this node finds it.
    fn welcome(&self, id: NodeId) -> Result<Answer, Refusal> {
        let (Some(cluster), Some(raft)) = (self.cluster, raft_of(&self.life)) else {
            return outcome_of(wait());
        };
        let mut configuration = raft.committed_configuration().clone();
        for (id, about) in &mut configuration.about {
            if let Some(peer) = self.peers.get(id).filter(|peer| peer.connected) {
                about.address = peer.sender.address();
            }
        }
        let welcome = Welcome::new(id, cluster, &configuration);
        Ok(Answer::Welcome(welcome))
    }
}

/// Something must happen first; it is asked again.
fn wait() -> MembershipError {
    MembershipError::Busy
}

/// What who wants to join is told, when it is not let in.
fn outcome_of(error: MembershipError) -> Result<Answer, Refusal> {
    match error {
        MembershipError::Refused(refusal) => Err(*refusal),
        MembershipError::Alive(node) => Err(Refusal::Alive { node }),
        MembershipError::Busy => Ok(Answer::wait(100, "the leader is busy with another change")),
        other => Ok(Answer::wait(500, other.to_string())),
    }
}
