//! What nodes ask the leader, and its answers, as bytes.
//!
//! ```text
//! request: version u8 | 1 change: (steps [(kind, id, priority)], forced) | 2 transfer: to? | 3 members: nil
//! answer:  version u8 | 1 changed: (index?, configuration, catching up [id]) | 2 transferred: to | 3 members: ..
//!          | 4 not the leader: nil | 5 error: (number, ids, ids)
//! step:    1 remove | 2 promote | 3 demote | 4 priority
//! ```
//!
//! The two numbers are bytes, what follows is MessagePack. A number never changes its meaning.
//!
//! Invariant: no peer can ask for more than a user of its node could: nobody becomes a member by his number, and nobody votes
//! who has not caught up.

use bytes::Bytes;
use raft_core::membership::{ChangeError, Configuration, MEMBERS_MAX, Step};
use raft_core::{Incarnation, LogIndex, NodeId, PeerState, Term};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::{Done, Op, Outcome};
use crate::tolerance::{Tolerance, Why};
use crate::{Changed, CodecError, MemberRole, MemberStatus, Members, MembershipError, Progress};

const VERSION: u8 = 1;

/// Wishes in one change, at most: for each member as many as there are kinds.
pub(crate) const STEPS_MAX: usize = 4 * MEMBERS_MAX;

const CHANGE: u8 = 1;
const TRANSFER: u8 = 2;
const MEMBERS: u8 = 3;
const NOT_LEADER: u8 = 4;
const ERROR: u8 = 5;

const REMOVE: u8 = 1;
const PROMOTE: u8 = 2;
const DEMOTE: u8 = 3;
const PRIORITY: u8 = 4;

/// What cannot be read: another version wrote it, or nobody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl From<CodecError> for Unreadable {
    fn from(_: CodecError) -> Self {
        Self
    }
}

fn encoded<T: Serialize>(kind: u8, body: &T) -> Result<Bytes, CodecError> {
    let mut bytes = vec![VERSION, kind];
    rmp_serde::encode::write(&mut bytes, body)
        .map_err(|error| CodecError::Encode(error.to_string()))?;
    Ok(bytes.into())
}

fn decoded<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    Ok(CodecError::decode(body)?)
}

fn of_version(data: &[u8]) -> Result<(u8, &[u8]), Unreadable> {
    match data {
        [VERSION, kind, body @ ..] => Ok((*kind, body)),
        _ => Err(Unreadable),
    }
}

type WireSteps = Vec<(u8, u64, u32)>;

impl Op {
    pub(super) fn encode(&self) -> Result<Bytes, CodecError> {
        match self {
            Self::Change { steps, forced } => {
                let steps: WireSteps = steps.iter().filter_map(wire_step).collect();
                encoded(CHANGE, &(steps, forced))
            }
            Self::Transfer { to } => encoded(TRANSFER, &to.map(|to| to.0)),
            Self::Members => encoded(MEMBERS, &()),
        }
    }

    pub(crate) fn decode(data: &[u8]) -> Result<Self, Unreadable> {
        let (kind, body) = of_version(data)?;
        Ok(match kind {
            CHANGE => {
                let (steps, forced): (WireSteps, bool) = decoded(body)?;
                if steps.len() > STEPS_MAX {
                    return Err(Unreadable);
                }
                let steps = steps.into_iter().map(step).collect::<Result<_, _>>()?;
                Self::Change { steps, forced }
            }
            TRANSFER => {
                let to: Option<u64> = decoded(body)?;
                let to = to.map(NodeId);
                Self::Transfer { to }
            }
            MEMBERS => {
                let () = decoded(body)?;
                Self::Members
            }
            _ => return Err(Unreadable),
        })
    }
}

/// The steps that a request can have; there are others, which only the leader itself takes.
fn wire_step(step: &Step) -> Option<(u8, u64, u32)> {
    match step {
        Step::Remove(id) => Some((REMOVE, id.0, 0)),
        Step::Join(id) => Some((PROMOTE, id.0, 0)),
        Step::AddLearner(id) => Some((DEMOTE, id.0, 0)),
        Step::SetPriority(id, priority) => Some((PRIORITY, id.0, *priority)),
        Step::AddVoter(_) | Step::Describe(..) => None,
    }
}

fn step((kind, id, priority): (u8, u64, u32)) -> Result<Step, Unreadable> {
    let id = NodeId(id);
    match kind {
        REMOVE => Ok(Step::Remove(id)),
        PROMOTE => Ok(Step::Join(id)),
        DEMOTE => Ok(Step::AddLearner(id)),
        PRIORITY => Ok(Step::SetPriority(id, priority)),
        _ => Err(Unreadable),
    }
}

impl Outcome {
    /// None if it says nothing to another node.
    pub(super) fn encode(&self) -> Option<Result<Bytes, CodecError>> {
        Some(match self {
            Self::Done(Done::Changed(changed)) => {
                let configuration = ByteBuf::from(changed.configuration.encode());
                let index = changed.index.map(|index| index.0);
                let catching_up: Vec<u64> = changed.catching_up.iter().map(|id| id.0).collect();
                encoded(CHANGE, &(index, configuration, catching_up))
            }
            Self::Done(Done::Transferred(to)) => encoded(TRANSFER, &to.0),
            Self::Done(Done::Members(members)) => encoded(MEMBERS, &WireMembers::of(members)),
            Self::NotLeader => encoded(NOT_LEADER, &()),
            Self::Error(error) => encoded(ERROR, &wire_error(error)?),
        })
    }

    pub(super) fn decode(data: &[u8]) -> Result<Self, Unreadable> {
        let (kind, body) = of_version(data)?;
        Ok(match kind {
            CHANGE => {
                let (index, configuration, catching_up): (Option<u64>, ByteBuf, Vec<u64>) =
                    decoded(body)?;
                let configuration =
                    Configuration::decode(&configuration).map_err(|_| Unreadable)?;
                Self::Done(Done::Changed(Changed {
                    index: index.map(LogIndex),
                    configuration,
                    catching_up: catching_up.into_iter().map(NodeId).collect(),
                }))
            }
            TRANSFER => Self::Done(Done::Transferred(NodeId(decoded(body)?))),
            MEMBERS => {
                let members: WireMembers = decoded(body)?;
                Self::Done(Done::Members(members.read()?))
            }
            NOT_LEADER => {
                let () = decoded(body)?;
                Self::NotLeader
            }
            ERROR => Self::Error(error(decoded(body)?)?),
            _ => return Err(Unreadable),
        })
    }
}

type WireError = (u8, Vec<u64>, Vec<u64>);

/// What the leader says of a request that it does not fulfil. The rest is for a node to say of itself.
fn wire_error(error: &MembershipError) -> Option<WireError> {
    use MembershipError as E;
    let list = |ids: &[NodeId]| ids.iter().map(|id| id.0).collect::<Vec<_>>();
    let one = |number, id: u64| (number, vec![id], Vec::new());
    let bare = |number| (number, Vec::new(), Vec::new());
    Some(match error {
        E::NotAMember(id) => one(1, id.0),
        E::IdUsed(id) => one(2, id.0),
        E::NoHealthyQuorum { voters, healthy } => (3, list(voters), list(healthy)),
        E::LastVoter => bare(4),
        E::Alive(id) => one(5, id.0),
        E::NoCandidate => bare(6),
        E::NotTransferred { to } => one(7, to.0),
        E::Busy => bare(8),
        E::Malformed => bare(9),
        E::Change(ChangeError::NodeIdZero) => bare(10),
        E::Change(ChangeError::TooManyMembers(count)) => one(11, *count as u64),
        E::Change(ChangeError::BadAddress(id)) => one(12, id.0),
        E::Change(ChangeError::OtherFolder(id)) => one(13, id.0),
        // Nothing that can be asked for leads to these.
        E::Change(
            ChangeError::AlreadyJoint
            | ChangeError::NotJoint
            | ChangeError::TooManyVoters(_)
            | ChangeError::NoVoters
            | ChangeError::NotAMember(_),
        ) => bare(9),
        E::NoLeader { .. }
        | E::TimedOut { .. }
        | E::Unreachable { .. }
        | E::Refused(_)
        | E::NodeEnded
        | E::Failed(_) => return None,
    })
}

fn error(wire: WireError) -> Result<MembershipError, Unreadable> {
    use MembershipError as E;
    let (number, ids, more) = wire;
    let id = || match ids[..] {
        [id] => Ok(NodeId(id)),
        _ => Err(Unreadable),
    };
    let list = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    Ok(match number {
        1 => E::NotAMember(id()?),
        2 => E::IdUsed(id()?),
        3 => E::NoHealthyQuorum {
            voters: list(&ids),
            healthy: list(&more),
        },
        4 => E::LastVoter,
        5 => E::Alive(id()?),
        6 => E::NoCandidate,
        7 => E::NotTransferred { to: id()? },
        8 => E::Busy,
        9 => E::Malformed,
        10 => E::Change(ChangeError::NodeIdZero),
        11 => {
            let count = usize::try_from(id()?.0).map_err(|_| Unreadable)?;
            E::Change(ChangeError::TooManyMembers(count))
        }
        12 => E::Change(ChangeError::BadAddress(id()?)),
        13 => E::Change(ChangeError::OtherFolder(id()?)),
        _ => return Err(Unreadable),
    })
}

#[derive(Serialize, Deserialize)]
struct WireMembers {
    leader: u64,
    term: u64,
    index: u64,
    committed: bool,
    joint: bool,
    members: Vec<WireMember>,
    tolerance: Option<WireTolerance>,
}

#[derive(Serialize, Deserialize)]
struct WireMember {
    id: u64,
    address: String,
    connected: bool,
    /// 1 voter, 2 learner, 3 joining, 4 leaving.
    role: Option<u8>,
    rounds: u32,
    priority: u32,
    incarnation: Option<[u8; 16]>,
    healthy: Option<bool>,
    /// State (1 probed, 2 replicated, 3 sent a snapshot), matched, next, inflight, active.
    progress: Option<(u8, u64, u64, u32, bool)>,
}

#[derive(Serialize, Deserialize)]
struct WireTolerance {
    now: u32,
    possible: u32,
    voters: u32,
    /// Who; 1 not connected, 2 silent, 3 refuses, 4 is sent a snapshot, 5 behind; the text, and by how much.
    why: Vec<(u64, u8, String, u64)>,
}

/// For what cannot be so many: members, messages under way.
fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl WireMembers {
    fn of(members: &Members) -> Self {
        Self {
            leader: members.leader.0,
            term: members.term.0,
            index: members.index.0,
            committed: members.committed,
            joint: members.joint,
            members: members.members.iter().map(WireMember::of).collect(),
            tolerance: members.tolerance.as_ref().map(WireTolerance::of),
        }
    }

    fn read(self) -> Result<Members, Unreadable> {
        let members = self.members.into_iter().map(WireMember::read);
        Ok(Members {
            leader: NodeId(self.leader),
            term: Term(self.term),
            index: LogIndex(self.index),
            committed: self.committed,
            joint: self.joint,
            members: members.collect::<Result<_, _>>()?,
            tolerance: self.tolerance.map(WireTolerance::read).transpose()?,
        })
    }
}

impl WireMember {
    fn of(member: &MemberStatus) -> Self {
        let (role, rounds) = match member.role {
            None => (None, 0),
            Some(MemberRole::Voter) => (Some(1), 0),
            Some(MemberRole::Learner) => (Some(2), 0),
            Some(MemberRole::Joining { rounds }) => (Some(3), rounds),
            Some(MemberRole::Leaving) => (Some(4), 0),
        };
        let progress = member.progress.as_ref().map(|progress| {
            let state = match progress.state {
                PeerState::Probe => 1,
                PeerState::Replicate => 2,
                PeerState::Snapshot => 3,
            };
            let inflight = small(progress.inflight);
            (
                state,
                progress.matched.0,
                progress.next.0,
                inflight,
                progress.active,
            )
        });
        Self {
            id: member.id.0,
            address: member.address.clone(),
            connected: member.connected,
            role,
            rounds,
            priority: member.priority,
            incarnation: member.incarnation.map(|folder| folder.0.to_be_bytes()),
            healthy: member.healthy,
            progress,
        }
    }

    fn read(self) -> Result<MemberStatus, Unreadable> {
        let role = match self.role {
            None => None,
            Some(1) => Some(MemberRole::Voter),
            Some(2) => Some(MemberRole::Learner),
            Some(3) => Some(MemberRole::Joining {
                rounds: self.rounds,
            }),
            Some(4) => Some(MemberRole::Leaving),
            Some(_) => return Err(Unreadable),
        };
        let progress = |(state, matched, next, inflight, active)| {
            let state = match state {
                1 => PeerState::Probe,
                2 => PeerState::Replicate,
                3 => PeerState::Snapshot,
                _ => return Err(Unreadable),
            };
            Ok(Progress {
                state,
                matched: LogIndex(matched),
                next: LogIndex(next),
                inflight: inflight as usize,
                active,
            })
        };
        let incarnation = self.incarnation.map(u128::from_be_bytes);
        Ok(MemberStatus {
            id: NodeId(self.id),
            address: self.address,
            connected: self.connected,
            role,
            priority: self.priority,
            incarnation: incarnation.map(Incarnation),
            healthy: self.healthy,
            queue: None,
            progress: self
                .progress
                .map(|(s, m, n, i, a): (u8, u64, u64, u32, bool)| progress((s, m, n, i, a)))
                .transpose()?,
        })
    }
}

impl WireTolerance {
    fn of(tolerance: &Tolerance) -> Self {
        let why = |(id, why): &(NodeId, Why)| {
            let (number, text, entries) = match why {
                Why::NotConnected(text) => (1, text.clone(), 0),
                Why::Silent => (2, String::new(), 0),
                Why::Refuses(text) => (3, text.clone(), 0),
                Why::Snapshot => (4, String::new(), 0),
                Why::Behind(entries) => (5, String::new(), *entries),
            };
            (id.0, number, text, entries)
        };
        Self {
            now: small(tolerance.now),
            possible: small(tolerance.possible),
            voters: small(tolerance.voters),
            why: tolerance.why.iter().map(why).collect(),
        }
    }

    fn read(self) -> Result<Tolerance, Unreadable> {
        let why = |(id, number, text, entries): (u64, u8, String, u64)| {
            let why = match number {
                1 => Why::NotConnected(text),
                2 => Why::Silent,
                3 => Why::Refuses(text),
                4 => Why::Snapshot,
                5 => Why::Behind(entries),
                _ => return Err(Unreadable),
            };
            Ok((NodeId(id), why))
        };
        Ok(Tolerance {
            now: self.now as usize,
            possible: self.possible as usize,
            voters: self.voters as usize,
            why: self.why.into_iter().map(why).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests;
