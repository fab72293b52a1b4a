//! What comes before a node has its id: `lead` and `join`.
//!
//! Both are futures that end when the node runs. They work on the opened folder and the bound listener; dropped, they let
//! go of both (of the address when the runtime next drops what was cancelled, a moment later), and what was not recorded
//! has not happened.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use actix::prelude::*;
use raft_core::membership::{Configuration, Member};
use raft_core::{Incarnation, NodeId};
use raft_net::{Dialled, Limits, Refusal, Tls, Visit, VisitError, Visited, visit};
use raft_storage::Record;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::JoinError;
use super::message::{self, ADDRESSES_MAX, Answer, Ask, Welcome, Wish};
use crate::machine::{BytesStateMachine, Machine};
use crate::node::LISTEN;
use crate::spawn::Prepared;
use crate::step::{Step, Steps};
use crate::{Config, ConfigError, RaftActor, StartError};

/// Visits, and dials, that wait to be looked at.
const WAITING_MAX: usize = 16;
/// The pause after all were asked.
const PAUSE: Duration = Duration::from_millis(200);
/// For so long a refusal is asked again that may pass: a member that is being replaced has just died, and an address
/// has just been given.
const MAY_PASS_MIN: Duration = Duration::from_secs(5);
const NAME_MAY_PASS: Duration = Duration::from_secs(1);
/// For so long a node that goes on asks where the others are.
const WHO: Duration = Duration::from_secs(1);

impl RaftActor {
    /// Starts a cluster of which this node is the first, or goes on with the one that its folder belongs to. Others then
    /// [`join`](Self::join) it.
    ///
    /// The node has the id 1. On an empty folder it takes a second and a half: it listens before it leads, and if a cluster
    /// looks for one of its nodes here, whose folder was lost, it is told so and begins no second one. Call it once, by
    /// hand; scripts that start nodes call [`join`](Self::join), which goes on as well.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); [`JoinError::Expected`] if a cluster has another folder in mind.
    pub async fn lead(config: Config) -> Result<Addr<Self>, StartError> {
        lead(config, None).await
    }

    /// [`lead`](Self::lead), with a state machine. See [`spawn_with`](Self::spawn_with).
    ///
    /// # Errors
    /// As [`lead`](Self::lead); and if the state cannot be had back.
    pub async fn lead_with(
        config: Config,
        machine: impl BytesStateMachine,
    ) -> Result<Addr<Self>, StartError> {
        lead(config, Some(Box::new(machine))).await
    }

    /// Joins the cluster that is found at any of `addresses` (`host:port`, a member's, or a name that leads to several),
    /// or goes on with the one that the folder belongs to; then the addresses serve to find it again.
    ///
    /// The leader gives the node an id that nobody has had before, and the future ends when that is committed and on this
    /// node's disk. From then on it is fed, as a learner, and votes by itself once it has caught up, unless it is to stay
    /// a [`learner`](Config::learner). Broken off at any point, it is repeated by the same call. With no addresses it waits
    /// to be invited ([`Invite`](crate::Invite)).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); and [`JoinError`].
    pub async fn join<A: Into<String>>(
        config: Config,
        addresses: impl IntoIterator<Item = A>,
    ) -> Result<Addr<Self>, StartError> {
        let addresses = addresses.into_iter().map(Into::into).collect();
        join(config, None, addresses).await
    }

    /// [`join`](Self::join), with a state machine. See [`spawn_with`](Self::spawn_with).
    ///
    /// # Errors
    /// As [`join`](Self::join); and if the state cannot be had back.
    pub async fn join_with<A: Into<String>>(
        config: Config,
        addresses: impl IntoIterator<Item = A>,
        machine: impl BytesStateMachine,
    ) -> Result<Addr<Self>, StartError> {
        let addresses = addresses.into_iter().map(Into::into).collect();
        join(config, Some(Box::new(machine)), addresses).await
    }
}

/// Where `addresses` lead: a name may be that of many nodes, of whom one is this one, and another is alone in the dark.
/// What leads nowhere stays as it is; whoever dials it says why.
async fn resolved(addresses: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for address in addresses.iter().take(ADDRESSES_MAX) {
        let found = timeout(WHO, tokio::net::lookup_host(address.as_str())).await;
        let found: Vec<_> = match found {
            Ok(Ok(found)) => found.map(|found| found.to_string()).collect(),
            _ => vec![address.clone()],
        };
        for address in found {
            if !all.contains(&address) && all.len() < ADDRESSES_MAX {
                all.push(address);
            }
        }
    }
    all
}

/// Whose the folder is, if it is a member's.
fn prepared(
    config: Config,
    machine: Option<Box<dyn Machine>>,
) -> Result<(Prepared, Option<NodeId>), StartError> {
    if let Some(id) = config.id {
        return Err(ConfigError::IdGiven { id }.into());
    }
    let prepared = Prepared::new(config, machine)?;
    let identity = &prepared.opened.identity;
    match (identity.node, &identity.known) {
        (Some(id), None) => Err(ConfigError::Unborn { id }.into()),
        (node, _) => Ok((prepared, node)),
    }
}

async fn lead(
    config: Config,
    machine: Option<Box<dyn Machine>>,
) -> Result<Addr<RaftActor>, StartError> {
    let (mut prepared, node) = prepared(config, machine)?;
    if let Some(id) = node {
        return prepared.go(id);
    }
    let incarnation = prepared.opened.identity.incarnation;
    let mut lobby = Lobby::open(&mut prepared)?;
    let looked_for = timeout(LISTEN.max(prepared.config.election_timeout_min), async {
        loop {
            tokio::select! {
                dialled = lobby.dialled.recv() => match dialled {
                    Some(Dialled { from, to: node, cluster: Some(cluster), .. }) => {
                        return JoinError::Expected { from, node, cluster };
                    }
                    Some(_) => {}
                    None => std::future::pending().await,
                },
                visit = lobby.visits.recv() => match visit {
                    Some(visit) => drop(answer(visit, incarnation, false, "this node is about to lead, and does not yet")),
                    None => std::future::pending().await,
                },
            }
        }
    });
    let looked_for = looked_for.await;
    prepared.bound = Some(lobby.door.stop().await);
    if let Ok(error) = looked_for {
        return Err(error.into());
    }
    let id = NodeId(1);
    let config = &prepared.config;
    let mut known = Configuration::of([id]);
    known.about.insert(
        id,
        Member {
            incarnation: Some(incarnation),
            address: config.own_address().unwrap_or_default(),
            tls_name: config.own_tls_name.clone().unwrap_or_default(),
        },
    );
    prepared.record(Record {
        node: Some(id),
        known: Some(known),
        ..Record::default()
    })?;
    prepared.go(id)
}

async fn join(
    config: Config,
    machine: Option<Box<dyn Machine>>,
    addresses: Vec<String>,
) -> Result<Addr<RaftActor>, StartError> {
    let (mut prepared, node) = prepared(config, machine)?;
    if let Some(id) = node {
        find(&mut prepared, &addresses).await?;
        return prepared.go(id);
    }
    let steps = prepared.config.steps;
    let lobby = Lobby::open(&mut prepared)?;
    let joined = Joining::new(&prepared, addresses).come_in(lobby).await?;
    steps.at(Step::JoinTold);
    let Joined {
        welcome,
        address,
        bound,
    } = joined;
    prepared.bound = Some(bound);
    let (id, cluster) = (welcome.id(), welcome.cluster());
    let malformed = |what: &str| JoinError::Malformed {
        address: address.clone(),
        what: what.to_owned(),
    };
    let mut known = welcome
        .configuration()
        .ok_or_else(|| malformed("what it says of the members is no configuration"))?;
    let incarnation = prepared.opened.identity.incarnation;
    let about = known.about.get(&id).and_then(|about| about.incarnation);
    if about != Some(incarnation) {
        return Err(malformed("by what it says, this node is no member").into());
    }
    // Whoever votes by what is recorded was born with its cluster. This one goes by the log that it is sent.
    known.voters.remove(&id);
    known.voters_outgoing.remove(&id);
    known.joining.remove(&id);
    known.learners_next.remove(&id);
    known.learners.insert(id);
    if known.validate().is_some() {
        return Err(malformed("nobody votes there").into());
    }
    tracing::info!(node = %id, %cluster, "joined, by {address}");
    prepared.record(Record {
        node: Some(id),
        known: Some(known),
        cluster: Some(cluster),
        ..Record::default()
    })?;
    steps.at(Step::JoinRecorded);
    prepared.go(id)
}

/// Asks those who may know where the nodes of this node's cluster are by now. Silence is no error; a cluster that is
/// another one is, unless somebody of the right one answers too.
async fn find(prepared: &mut Prepared, addresses: &[String]) -> Result<(), StartError> {
    let Some(ours) = prepared.opened.identity.cluster else {
        return Ok(());
    };
    let addresses = resolved(addresses).await;
    let until = Instant::now() + WHO;
    let asked = addresses.iter().map(|address| {
        let (address, tls) = (address.clone(), prepared.tls.clone());
        let question = Ask::who(ours).encode();
        actix_rt::spawn(async move {
            let limits = Limits::default();
            let asked = visit(&address, question, tls.as_ref(), &limits);
            (address.clone(), timeout_at(until, asked).await)
        })
    });
    let (mut found, mut other) = (false, None);
    for asked in asked.collect::<Vec<_>>() {
        match asked.await {
            Ok((address, Ok(Ok(bytes)))) => match Answer::decode(&bytes) {
                Some(Answer::Nodes(nodes)) => {
                    found = true;
                    let nodes = nodes.into_iter().map(|(id, at)| (NodeId(id), at));
                    prepared.found.extend(nodes.take(ADDRESSES_MAX));
                }
                Some(Answer::Other) => other = Some(JoinError::OtherCluster { address, ours }),
                _ => {}
            },
            Ok((address, Ok(Err(error)))) => tracing::debug!(address, "{error}"),
            Ok((address, Err(_))) => tracing::debug!(address, "no answer"),
            Err(_) => {}
        }
    }
    match other {
        Some(error) if !found => Err(error.into()),
        _ => Ok(()),
    }
}

/// What a node that has no id says to a visitor. One that `waits` to be invited can be.
fn answer(visit: Visit, incarnation: Incarnation, waits: bool, state: &str) -> Option<Invited> {
    let (answer, invited) = match Ask::decode(&visit.data) {
        Some(Ask::Reach(wanted)) if message::incarnation(&wanted) == incarnation => {
            (Ok(Answer::here(incarnation)), None)
        }
        Some(Ask::Invite {
            cluster: _,
            addresses,
            learner,
            replacing,
        }) if waits => {
            let invited = Invited {
                addresses,
                learner,
                replacing: (replacing != 0).then_some(NodeId(replacing)),
            };
            (Ok(Answer::here(incarnation)), Some(invited))
        }
        Some(Ask::Reach(_) | Ask::Invite { .. }) => (Ok(Answer::NotHere), None),
        Some(Ask::Join(_) | Ask::Who(_)) => (Ok(Answer::wait(500, state)), None),
        None => (Err(not_understood()), None),
    };
    // Nobody waits for it any more, if this fails.
    let _ = visit.reply.send(answer.map(|answer| answer.encode()));
    invited
}

pub(super) fn not_understood() -> Refusal {
    Refusal::Malformed {
        what: "a question of another version of this library".to_owned(),
    }
}

/// What a member that invites says.
#[derive(Debug)]
struct Invited {
    addresses: Vec<String>,
    learner: bool,
    replacing: Option<NodeId>,
}

/// Where a node that has no id yet is visited.
struct Lobby {
    door: Visited,
    visits: mpsc::Receiver<Visit>,
    dialled: mpsc::Receiver<Dialled>,
}

impl Lobby {
    fn open(prepared: &mut Prepared) -> Result<Self, StartError> {
        let (visits, visited) = mpsc::channel(WAITING_MAX);
        let (dials, dialled) = mpsc::channel(WAITING_MAX);
        let Some(bound) = prepared.bound.take() else {
            unreachable!("a node that is prepared listens")
        };
        let door = bound.visited(prepared.tls.clone(), Limits::default(), visits, dials)?;
        Ok(Self {
            door,
            visits: visited,
            dialled,
        })
    }
}

/// A node that is asking to be let in.
struct Joining {
    incarnation: Incarnation,
    wish: Wish,
    seeds: Vec<String>,
    tls: Option<Tls>,
    steps: Steps,
    limits: Limits,
    began: Instant,
    timeout: Duration,
    /// For so long a refusal is asked again that may pass.
    may_pass: Duration,
    /// Who was asked, with what came of it last.
    said: Vec<(String, String)>,
    /// Since when a refusal that may pass was heard.
    refused_since: Option<Instant>,
}

struct Joined {
    welcome: Welcome,
    address: String,
    bound: raft_net::BoundListener,
}

/// What comes of one question.
enum Outcome {
    Welcome(Welcome),
    Next(Vec<String>),
    Pause(Duration),
}

impl Joining {
    fn new(prepared: &Prepared, seeds: Vec<String>) -> Self {
        let config = &prepared.config;
        let incarnation = prepared.opened.identity.incarnation;
        let wish = Wish::new(
            incarnation,
            config.own_address().unwrap_or_default(),
            config.own_tls_name.clone().unwrap_or_default(),
            config.learner,
            config.replacing,
        );
        Self {
            incarnation,
            wish,
            seeds,
            tls: prepared.tls.clone(),
            steps: config.steps,
            limits: Limits::default(),
            began: Instant::now(),
            timeout: config.join_timeout,
            may_pass: MAY_PASS_MIN.max(4 * config.election_timeout_max),
            said: Vec::new(),
            refused_since: None,
        }
    }

    /// Asks until somebody lets this node in, and tells visitors meanwhile that it is here.
    async fn come_in(mut self, mut lobby: Lobby) -> Result<Joined, JoinError> {
        let until = self.began + self.timeout;
        let (incarnation, waits) = (self.incarnation, self.seeds.is_empty());
        let (invitations, mut invited) = mpsc::channel(1);
        let mut visits = lobby.visits;
        // Nobody is let in whom the leader cannot visit: this goes on while an answer is waited for.
        let host = actix_rt::spawn(async move {
            loop {
                tokio::select! {
                    visit = visits.recv() => match visit {
                        Some(visit) => {
                            if let Some(said) = answer(visit, incarnation, waits, "this node is joining, and is in no cluster yet") {
                                // One at a time; a second one is as good as the first.
                                let _ = invitations.try_send(said);
                            }
                        }
                        None => return,
                    },
                    dialled = lobby.dialled.recv() => if dialled.is_none() {
                        return;
                    },
                }
            }
        });
        let result = tokio::select! {
            result = self.ask(&mut invited) => result,
            () = sleep_until(until) => Err(None),
        };
        host.abort();
        let bound = lobby.door.stop().await;
        match result {
            Ok((welcome, address)) => Ok(Joined {
                welcome,
                address,
                bound,
            }),
            Err(Some(error)) => Err(error),
            Err(None) => Err(JoinError::TimedOut {
                waited: self.timeout,
                asked: std::mem::take(&mut self.said),
            }),
        }
    }

    /// Asks all who may know, again and again. It ends when one lets it in, or refuses for good.
    async fn ask(
        &mut self,
        invited: &mut mpsc::Receiver<Invited>,
    ) -> Result<(Welcome, String), Option<JoinError>> {
        loop {
            if self.seeds.is_empty() {
                let Some(invitation) = invited.recv().await else {
                    return Err(None);
                };
                self.seeds = invitation.addresses;
                self.seeds.truncate(ADDRESSES_MAX);
                let wish = &self.wish;
                self.wish = Wish::new(
                    self.incarnation,
                    wish.address.clone(),
                    wish.tls_name.clone(),
                    invitation.learner,
                    invitation.replacing,
                );
            }
            let mut next: VecDeque<_> = resolved(&self.seeds).await.into();
            // Each is asked once in a round, but for the leader, to whom all of them may lead.
            let mut asked = BTreeSet::new();
            let mut pause = PAUSE;
            while let Some(address) = next.pop_front() {
                if !asked.insert(address.clone()) || asked.len() > ADDRESSES_MAX {
                    continue;
                }
                match self.ask_at(&address).await.map_err(Some)? {
                    Outcome::Welcome(welcome) => return Ok((welcome, address)),
                    Outcome::Next(addresses) => {
                        for address in addresses.into_iter().take(ADDRESSES_MAX).rev() {
                            next.push_front(address);
                        }
                    }
                    Outcome::Pause(said) => pause = said,
                }
            }
            sleep(pause).await;
        }
    }

    /// Asks at one address.
    async fn ask_at(&mut self, address: &str) -> Result<Outcome, JoinError> {
        self.steps.at(Step::JoinAsked);
        let question = Ask::Join(self.wish.clone()).encode();
        let answer = visit(address, question, self.tls.as_ref(), &self.limits).await;
        let answer = match answer {
            Ok(bytes) => Answer::decode(&bytes),
            Err(VisitError::Refused { refusal, .. }) => {
                self.say(address, refusal.to_string());
                self.refused(address, refusal)?;
                return Ok(Outcome::Pause(PAUSE));
            }
            Err(error) => {
                self.say(address, error.to_string());
                return Ok(Outcome::Pause(PAUSE));
            }
        };
        match answer {
            Some(Answer::Welcome(welcome)) => Ok(Outcome::Welcome(welcome)),
            Some(Answer::Redirect { addresses }) => {
                self.say(
                    address,
                    format!("the leader is at {}", addresses.join(" or ")),
                );
                Ok(Outcome::Next(addresses))
            }
            Some(Answer::Wait { ms, why }) => {
                self.refused_since = None;
                self.say(address, why);
                Ok(Outcome::Pause(Duration::from_millis(ms.clamp(10, 1000))))
            }
            _ => Err(JoinError::Malformed {
                address: address.to_owned(),
                what: "its answer is none to what was asked".to_owned(),
            }),
        }
    }

    /// A refusal ends it, unless it may pass, or says no more than that the node which was asked is no member itself.
    fn refused(&mut self, address: &str, refusal: Refusal) -> Result<(), JoinError> {
        let may_pass = match &refusal {
            Refusal::Joining | Refusal::TooManyConnections | Refusal::Slow { .. } => return Ok(()),
            Refusal::Unreachable { .. } | Refusal::Alive { .. } => self.may_pass,
            // It has one for the id that it would have if another were not just being let in with that.
            Refusal::TlsName { .. } if self.wish.tls_name.is_empty() => NAME_MAY_PASS,
            _ => Duration::ZERO,
        };
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        if since.elapsed() < may_pass {
            return Ok(());
        }
        Err(JoinError::Refused {
            address: address.to_owned(),
            refusal: Box::new(refusal),
        })
    }

    /// Notes what came of a question, and logs it if it is something else than before.
    fn say(&mut self, address: &str, what: String) {
        let found = self.said.iter().position(|(who, _)| who == address);
        if found.is_some_and(|at| self.said[at].1 == what) {
            return;
        }
        tracing::info!("asked {address} to be let in: {what}");
        match found {
            Some(at) => self.said[at].1 = what,
            None if self.said.len() < ADDRESSES_MAX => self.said.push((address.to_owned(), what)),
            None => {}
        }
    }
}
