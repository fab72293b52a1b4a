//! The bodies of frames as they travel: structs of this crate's own, so that a change of the core's
//! types cannot change the format behind anybody's back.
//!
//! Invariants: each is a compact MessagePack array of its fields, in order; a body of a released
//! version never changes (the frozen fixtures see to it), a new version gets a new body; payloads
//! are MessagePack binary, and are borrowed out of the frame; a list is bounded
//! while it is read, by [`ITEMS_MAX`](crate::ITEMS_MAX) where nothing narrower is said.

use std::fmt;
use std::marker::PhantomData;

use raft_core::membership::MEMBERS_MAX;
use raft_core::{Entry, LogIndex, Term};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeTuple, Serializer};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;

use crate::limits::{ITEMS_MAX, ITEMS_RESERVED_MAX};
use crate::{Answer, ForwardOutcome, NotApplied};

/// `Hello` and `Welcome`. Frozen over all versions: what a later one adds rides in `extra`, which a
/// program that does not know it ignores.
#[derive(Serialize, Deserialize)]
pub(crate) struct IntroductionBody<'a> {
    pub(crate) version_min: u8,
    pub(crate) version_max: u8,
    pub(crate) cluster: Option<ByteArray<16>>,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) incarnation: ByteArray<16>,
    pub(crate) starts: u64,
    pub(crate) run: u64,
    pub(crate) known: Option<ByteArray<16>>,
    /// The term that the sender's disk held when its process started.
    pub(crate) held_term: u64,
    /// The last entry that it held then.
    pub(crate) held_last_term: u64,
    pub(crate) held_last_index: u64,
    /// The ids of the members that the sender lists, itself included, in order.
    pub(crate) members: List<u64, MEMBERS_MAX>,
    /// Where the sender says that it is dialled; may be empty.
    #[serde(borrow)]
    pub(crate) address: &'a str,
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) extra: &'a [u8],
}

/// `Refuse`. Frozen over all versions: a reason that the reader does not know is shown by its text.
#[derive(Serialize, Deserialize)]
pub(crate) struct RefuseBody<'a> {
    pub(crate) number: u8,
    #[serde(borrow)]
    pub(crate) text: &'a str,
    /// MessagePack of the reason's own fields.
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) details: &'a [u8],
}

/// `Confirm`, `Ping` and `Pong`.
#[derive(Serialize, Deserialize)]
pub(crate) struct PingBody {
    /// The dialling side's name for the ping.
    pub(crate) number: u64,
}

/// `Visit` and `VisitAnswer`.
#[derive(Serialize, Deserialize)]
pub(crate) struct VisitBody<'a> {
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) data: &'a [u8],
}

/// `AppendEntries`. The entries' positions follow from `prev_index`, so that only a consecutive run
/// can be said.
#[derive(Serialize, Deserialize)]
pub(crate) struct AppendEntriesBody<E> {
    pub(crate) term: u64,
    pub(crate) prev_term: u64,
    pub(crate) prev_index: u64,
    pub(crate) commit: u64,
    pub(crate) entries: E,
}

/// One entry.
#[derive(Serialize, Deserialize)]
pub(crate) struct EntryBody<'a> {
    pub(crate) term: u64,
    pub(crate) kind: u8,
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) data: &'a [u8],
}

/// Entries on their way out, written without an intermediate list.
pub(crate) struct Run<'a>(pub(crate) &'a [Entry]);

impl Serialize for Run<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|entry| EntryBody {
            term: entry.id.term.0,
            kind: entry.kind as u8,
            data: &entry.data,
        }))
    }
}

/// `Heartbeat`.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeartbeatBody {
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) round: u64,
}

/// `HeartbeatResponse`.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeartbeatResponseBody {
    pub(crate) term: u64,
    pub(crate) round: u64,
}

/// `CommitAdvanced`.
#[derive(Serialize, Deserialize)]
pub(crate) struct CommitBody {
    pub(crate) term: u64,
    pub(crate) commit: u64,
}

/// `PreVote`.
#[derive(Serialize, Deserialize)]
pub(crate) struct PreVoteBody {
    pub(crate) term: u64,
    pub(crate) last_term: u64,
    pub(crate) last_index: u64,
    pub(crate) transfer: bool,
}

/// `RequestVote`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RequestVoteBody {
    pub(crate) term: u64,
    pub(crate) last_term: u64,
    pub(crate) last_index: u64,
    pub(crate) transfer: bool,
}

/// `PreVoteResponse` and `VoteResponse`.
#[derive(Serialize, Deserialize)]
pub(crate) struct VoteBody {
    pub(crate) term: u64,
    pub(crate) granted: bool,
}

/// `TimeoutNow`.
#[derive(Serialize, Deserialize)]
pub(crate) struct TimeoutNowBody {
    pub(crate) term: u64,
}

/// `ReadIndex`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReadIndexBody {
    pub(crate) term: u64,
    /// The batch's name: which start of the sender's it is of, and its number within that.
    pub(crate) start: u64,
    pub(crate) number: u64,
}

/// `ReadIndexResponse`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReadIndexResponseBody {
    pub(crate) term: u64,
    pub(crate) start: u64,
    pub(crate) number: u64,
    pub(crate) index: Option<u64>,
}

/// `AppendAccepted`.
#[derive(Serialize, Deserialize)]
pub(crate) struct AcceptedBody {
    pub(crate) term: u64,
    pub(crate) matched: u64,
}

/// `AppendRejected`.
#[derive(Serialize, Deserialize)]
pub(crate) struct RejectedBody {
    pub(crate) term: u64,
    pub(crate) prev: u64,
    pub(crate) hint_term: u64,
    pub(crate) hint_index: u64,
}

/// One item of `Forward`, which is a list of them; and the whole of `Manage` and of `Managed`.
#[derive(Serialize, Deserialize)]
pub(crate) struct ForwardedBody<'a> {
    pub(crate) request: u64,
    #[serde(borrow, with = "serde_bytes")]
    pub(crate) data: &'a [u8],
}

/// `Digest`.
#[derive(Serialize, Deserialize)]
pub(crate) struct DigestBody {
    pub(crate) index: u64,
    pub(crate) digest: ByteArray<16>,
    pub(crate) announced: bool,
}

/// A list that is read no further than `MAX`.
pub(crate) struct List<T, const MAX: usize = ITEMS_MAX>(pub(crate) Vec<T>);

impl<T: Serialize, const MAX: usize> Serialize for List<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = List<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let claimed = seq.size_hint().unwrap_or(0);
                if claimed > MAX {
                    return Err(de::Error::invalid_length(claimed, &self));
                }
                let mut items = Vec::with_capacity(claimed.min(ITEMS_RESERVED_MAX));
                while let Some(item) = seq.next_element()? {
                    if items.len() == MAX {
                        return Err(de::Error::invalid_length(MAX + 1, &self));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// One item of `Answers`, on its way out: `[request, number of the outcome, its fields …]`.
pub(crate) struct AnswerOut<'a>(pub(crate) &'a Answer);

const COMMITTED: u8 = 0;
const NOT_LEADER: u8 = 1;
const BUSY: u8 = 2;
const TOO_LARGE: u8 = 3;
const SUPERSEDED: u8 = 4;
const UNKNOWN: u8 = 5;
const REFUSED: u8 = 6;
const NOT_APPLIED: u8 = 7;

const ANSWER_FORGOTTEN: u8 = 0;
const CANCELLED: u8 = 1;
const SESSION_EXPIRED: u8 = 2;
const BEYOND_WINDOW: u8 = 3;
const ACKNOWLEDGED: u8 = 4;
const TOO_MANY_SESSIONS: u8 = 5;
const MALFORMED: u8 = 6;

/// The number that a reason travels by, and the entry that goes with it.
fn not_applied(why: NotApplied) -> (u8, Option<(LogIndex, Term)>) {
    match why {
        NotApplied::AnswerForgotten { index, term } => (ANSWER_FORGOTTEN, Some((index, term))),
        NotApplied::Cancelled { index, term } => (CANCELLED, Some((index, term))),
        NotApplied::SessionExpired => (SESSION_EXPIRED, None),
        NotApplied::BeyondWindow => (BEYOND_WINDOW, None),
        NotApplied::Acknowledged => (ACKNOWLEDGED, None),
        NotApplied::TooManySessions => (TOO_MANY_SESSIONS, None),
        NotApplied::Malformed => (MALFORMED, None),
    }
}

impl Serialize for AnswerOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (number, fields) = match &self.0.outcome {
            ForwardOutcome::Committed { .. } => (COMMITTED, 3),
            ForwardOutcome::NotLeader { .. } => (NOT_LEADER, 1),
            ForwardOutcome::Busy => (BUSY, 0),
            ForwardOutcome::TooLarge { .. } => (TOO_LARGE, 1),
            ForwardOutcome::Superseded => (SUPERSEDED, 0),
            ForwardOutcome::Unknown => (UNKNOWN, 0),
            ForwardOutcome::Refused { .. } => (REFUSED, 3),
            ForwardOutcome::NotApplied { why } => {
                let (_, entry) = not_applied(*why);
                (NOT_APPLIED, if entry.is_some() { 3 } else { 1 })
            }
        };
        let mut tuple = serializer.serialize_tuple(2 + fields)?;
        tuple.serialize_element(&self.0.request)?;
        tuple.serialize_element(&number)?;
        match &self.0.outcome {
            ForwardOutcome::Committed {
                index,
                term,
                response: payload,
            }
            | ForwardOutcome::Refused {
                index,
                term,
                reason: payload,
            } => {
                tuple.serialize_element(&index.0)?;
                tuple.serialize_element(&term.0)?;
                tuple.serialize_element(serde_bytes::Bytes::new(payload))?;
            }
            ForwardOutcome::NotApplied { why } => {
                let (number, entry) = not_applied(*why);
                tuple.serialize_element(&number)?;
                if let Some((index, term)) = entry {
                    tuple.serialize_element(&index.0)?;
                    tuple.serialize_element(&term.0)?;
                }
            }
            ForwardOutcome::NotLeader { leader } => {
                tuple.serialize_element(&leader.map(|leader| leader.0))?;
            }
            ForwardOutcome::TooLarge { max } => tuple.serialize_element(max)?,
            ForwardOutcome::Busy | ForwardOutcome::Superseded | ForwardOutcome::Unknown => {}
        }
        tuple.end()
    }
}

/// One item of `Answers`, on its way in.
pub(crate) struct AnswerBody<'a> {
    pub(crate) request: u64,
    pub(crate) outcome: OutcomeBody<'a>,
}

/// What became of a forwarded proposal, with the response still in the frame.
pub(crate) enum OutcomeBody<'a> {
    Committed {
        index: u64,
        term: u64,
        response: &'a [u8],
    },
    NotLeader {
        leader: Option<u64>,
    },
    Busy,
    TooLarge {
        max: u64,
    },
    Superseded,
    Unknown,
    Refused {
        index: u64,
        term: u64,
        reason: &'a [u8],
    },
    /// Numbers inside are not judged yet.
    NotApplied(NotApplied),
}

impl<'de> Deserialize<'de> for AnswerBody<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        /// The next field, which must be there.
        fn field<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
            seq: &mut A,
            at: usize,
        ) -> Result<T, A::Error> {
            seq.next_element()?
                .ok_or_else(|| de::Error::invalid_length(at, &Fields))
        }

        impl<'de> Visitor<'de> for Fields {
            type Value = AnswerBody<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an answer")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let seq = &mut seq;
                let request = field(seq, 0)?;
                let outcome = match field::<u8, A>(seq, 1)? {
                    COMMITTED => OutcomeBody::Committed {
                        index: field(seq, 2)?,
                        term: field(seq, 3)?,
                        response: field::<&serde_bytes::Bytes, A>(seq, 4)?,
                    },
                    NOT_LEADER => OutcomeBody::NotLeader {
                        leader: field(seq, 2)?,
                    },
                    BUSY => OutcomeBody::Busy,
                    TOO_LARGE => OutcomeBody::TooLarge {
                        max: field(seq, 2)?,
                    },
                    SUPERSEDED => OutcomeBody::Superseded,
                    UNKNOWN => OutcomeBody::Unknown,
                    REFUSED => OutcomeBody::Refused {
                        index: field(seq, 2)?,
                        term: field(seq, 3)?,
                        reason: field::<&serde_bytes::Bytes, A>(seq, 4)?,
                    },
                    NOT_APPLIED => OutcomeBody::NotApplied(match field::<u8, A>(seq, 2)? {
                        ANSWER_FORGOTTEN => NotApplied::AnswerForgotten {
                            index: LogIndex(field(seq, 3)?),
                            term: Term(field(seq, 4)?),
                        },
                        CANCELLED => NotApplied::Cancelled {
                            index: LogIndex(field(seq, 3)?),
                            term: Term(field(seq, 4)?),
                        },
                        SESSION_EXPIRED => NotApplied::SessionExpired,
                        BEYOND_WINDOW => NotApplied::BeyondWindow,
                        ACKNOWLEDGED => NotApplied::Acknowledged,
                        TOO_MANY_SESSIONS => NotApplied::TooManySessions,
                        MALFORMED => NotApplied::Malformed,
                        number => {
                            return Err(de::Error::invalid_value(
                                de::Unexpected::Unsigned(number.into()),
                                &"the number of a reason",
                            ));
                        }
                    }),
                    number => {
                        return Err(de::Error::invalid_value(
                            de::Unexpected::Unsigned(number.into()),
                            &"the number of an outcome",
                        ));
                    }
                };
                Ok(AnswerBody { request, outcome })
            }
        }

        deserializer.deserialize_seq(Fields)
    }
}
