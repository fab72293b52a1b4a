//! The handshake, and who is admitted by it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use raft_core::{ClusterId, Incarnation, LogId, LogIndex, NodeId, Term};
use tokio_util::sync::CancellationToken;

use super::{Choices, Pieces, framed};
use crate::cut::Cut;
use crate::decode::{FrameDecoder, RawFrame};
use crate::handshake::{Broken, Introduction, read_introduction};
use crate::header::{VERSION_MAX, VERSION_MIN};
use crate::local::{Admission, GUESTS_MAX, Purpose, Side};
use crate::{Claim, FrameKind, Held, Known, Limits, Local, Refusal};

const US: NodeId = NodeId(1);
const CLUSTER: ClusterId = ClusterId(7);
const KINDS: [FrameKind; 5] = [
    FrameKind::Hello,
    FrameKind::UrgentHello,
    FrameKind::SnapshotHello,
    FrameKind::Welcome,
    FrameKind::Refuse,
];
/// Beyond so many open connections the oldest is closed.
const OPEN_MAX: usize = 12;

/// Handshakes that come in one after another at one node, and what its peers claim in between: what decodes
/// encodes to the same again, a refusal can always be said, and who is admitted is who the node knows.
pub fn handshake(data: &[u8]) {
    let mut choices = Choices(data);
    let Some(flags) = choices.byte() else { return };
    let mut node = Node::new(flags);
    while let Some(what) = choices.byte() {
        if node.one(what, &mut choices).is_none() {
            return;
        }
    }
}

fn known(incarnation: Option<Incarnation>) -> Known {
    Known {
        incarnation,
        address: String::new(),
        tls_name: None,
    }
}

/// An established connection.
struct Open {
    side: Side,
    purpose: Purpose,
    peer: NodeId,
    cut: Cut,
    _admission: Admission,
}

struct Node {
    local: Local,
    cluster: Option<ClusterId>,
    members: BTreeMap<NodeId, Known>,
    highest_id: NodeId,
    open: Vec<Open>,
    limits: Limits,
}

impl Node {
    fn new(flags: u8) -> Self {
        let cluster = (flags & 1 != 0).then_some(CLUSTER);
        let known = |id: u64| known((flags >> id & 1 != 0).then_some(Incarnation(id.into())));
        let members: BTreeMap<_, _> = (1..=4).map(|id| (NodeId(id), known(id))).collect();
        let held = Held {
            term: Term(3),
            last: LogId::new(Term(2), LogIndex(9)),
        };
        let local = Local::new(US, Incarnation(1), 5, cluster, members.clone(), held);
        Self {
            local,
            cluster,
            members,
            highest_id: NodeId(0),
            open: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// One thing that happens; none at the end of the choices.
    fn one(&mut self, what: u8, choices: &mut Choices<'_>) -> Option<()> {
        match what {
            0..128 => {
                let kind = KINDS[usize::from(what) % KINDS.len()];
                let (lengths, body) = (choices.bytes()?, choices.bytes()?);
                self.comes(&framed(kind, body), lengths, what >= 64, choices);
            }
            128..224 => {
                let kind = KINDS[usize::from(what) % 4];
                let introduction = introduction(choices)?;
                let frame = introduction.encode(kind, &self.limits);
                let frame = frame.expect("a short list of members");
                self.comes(frame.as_bytes(), &[], what >= 192, choices);
            }
            224..232 => self.claims(choices)?,
            232..236 => self
                .local
                .committed(Term(choices.number()?), LogIndex(choices.number()?)),
            236..240 => {
                let lost = self.local.take_lost();
                assert!(lost.iter().all(|id| self.knows(*id)));
            }
            240..244 => {
                let ids = (1..=4).filter(|id| what & 3 != (*id & 3) as u8 || *id == US.0);
                let members = ids.map(|id| (NodeId(id), known(Some(Incarnation(id.into())))));
                self.members = members.collect();
                self.highest_id = NodeId(if what & 1 == 0 { 4 } else { 2 });
                self.local
                    .set_members(self.members.clone(), self.highest_id);
                for open in &self.open {
                    let stays = open.cut.fallen().now_or_never().is_none();
                    assert!(!stays || self.knows(open.peer));
                }
            }
            244..248 => {
                self.cluster = Some(CLUSTER);
                self.local.set_cluster(CLUSTER);
            }
            248.. => {
                let at = usize::from(what - 248) % self.open.len().max(1);
                if at < self.open.len() {
                    self.open.remove(at);
                }
            }
        }
        Some(())
    }

    fn claims(&self, choices: &mut Choices<'_>) -> Option<()> {
        let (peer, starts) = (NodeId(choices.number()?), choices.number()?);
        let claim = Claim {
            term: Term(choices.number()?),
            through: LogIndex(choices.number()?),
        };
        let counts = self.local.witness(peer, starts, Some(claim));
        assert!(!counts || self.knows(peer));
        Some(())
    }

    /// Whether `peer` is a member, or a guest that may be there.
    fn knows(&self, peer: NodeId) -> bool {
        let guest = self.cluster.is_some() && peer > self.highest_id;
        self.members.contains_key(&peer) || guest && self.open.iter().any(|open| open.peer == peer)
    }

    /// A connection brings these bytes, in pieces of these lengths.
    fn comes(&mut self, bytes: &[u8], lengths: &[u8], dialled: bool, choices: &mut Choices<'_>) {
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        let mut stream = Pieces::new(bytes, lengths);
        let read = read_introduction(&mut stream, &mut decoder, &KINDS[..4]).now_or_never();
        let room = decoder.buffer_mut().capacity();
        assert!(room <= 3 * self.limits.handshake_frame_len_max, "{room}");
        match read.expect("bytes are there, or the connection ends") {
            Ok((kind, introduction)) => {
                let again = introduction.encode(kind, &self.limits);
                let again = self.frame(again.expect("it came in such a frame").as_bytes());
                let again = Introduction::decode(&again);
                assert_eq!(again.ok().as_ref(), Some(&introduction));
                let asked = NodeId(u64::from(choices.byte().unwrap_or(2)));
                let side = if dialled {
                    Side::Dialled(asked)
                } else {
                    Side::Accepted
                };
                self.introduced(side, kind, &introduction);
            }
            Err(Broken::Refused(refusal)) => self.said_again(&refusal),
            Err(Broken::Malformed(error)) => self.said(&Refusal::malformed(&error)),
            Err(Broken::Ended(_)) => {}
        }
    }

    fn introduced(&mut self, side: Side, kind: FrameKind, theirs: &Introduction) {
        let purpose = Purpose::of(kind);
        let cut = Cut::below(&CancellationToken::new());
        let admission = match self.local.admit(side, purpose, theirs, None, &cut) {
            Ok(admission) => admission,
            Err(refusal) => return self.said(&refusal),
        };
        let from = theirs.from;
        assert!(from != US && theirs.to == US);
        assert!(side == Side::Accepted || side == Side::Dialled(from));
        assert!(theirs.version_min <= VERSION_MAX && theirs.version_max >= VERSION_MIN);
        let known = self.members.get(&from).and_then(|its| its.incarnation);
        assert!(known.is_none_or(|known| known == theirs.incarnation));
        if let (Some(theirs), Some(ours)) = (theirs.cluster, self.cluster) {
            assert_eq!(theirs, ours);
        }
        if side == Side::Accepted {
            let replaced =
                |open: &Open| open.side == side && open.peer == from && open.purpose == purpose;
            let mut replaced = self.open.iter().filter(|open| replaced(open));
            assert!(replaced.all(|open| open.cut.fallen().now_or_never().is_some()));
        }
        self.open.push(Open {
            side,
            purpose,
            peer: from,
            cut,
            _admission: admission,
        });
        assert!(self.knows(from));
        let guests = self.open.iter().map(|open| open.peer);
        let guests = guests.filter(|peer| !self.members.contains_key(peer));
        let admitted = guests.collect::<BTreeSet<_>>().len();
        // Members may have become guests since, and there are four.
        assert!(self.members.contains_key(&from) || admitted <= GUESTS_MAX + 4);
        if self.open.len() > OPEN_MAX {
            self.open.remove(0);
        }
    }

    /// A refusal fits a frame of a handshake, and the other side can read it.
    fn said(&self, refusal: &Refusal) {
        let frame = refusal.encode(&self.limits).expect("a refusal is short");
        let read = Refusal::decode(&self.frame(frame.as_bytes()));
        self.said_again(&read.expect("a refusal can be read"));
    }

    /// A refusal that was read says the same when it is said once more, each side's view in its place.
    fn said_again(&self, refusal: &Refusal) {
        let turned = |refusal: &Refusal| {
            let frame = refusal.encode(&self.limits).expect("a refusal is short");
            Refusal::decode(&self.frame(frame.as_bytes())).expect("a refusal can be read")
        };
        let back = turned(&turned(refusal));
        if matches!(refusal, Refusal::Other { .. }) {
            return; // Its fields are a newer program's.
        }
        assert_eq!(&back, refusal);
    }

    fn frame(&self, bytes: &[u8]) -> RawFrame {
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        decoder.feed(bytes);
        let frame = decoder.next_raw().expect("our own frame");
        frame.expect("it is whole")
    }
}

/// An introduction that may well be right.
fn introduction(choices: &mut Choices<'_>) -> Option<Introduction> {
    let incarnation = |number: u64| Incarnation(number.into());
    let (flags, from) = (choices.byte()?, choices.number()?);
    let (listed, run) = (choices.byte()?, choices.number()?);
    Some(Introduction {
        version_min: if flags & 1 != 0 {
            choices.byte()?
        } else {
            VERSION_MIN
        },
        version_max: if flags & 2 != 0 {
            choices.byte()?
        } else {
            VERSION_MAX
        },
        cluster: match flags & 12 {
            0 => None,
            4 => Some(ClusterId(choices.number()?.into())),
            _ => Some(CLUSTER),
        },
        from: NodeId(from),
        to: if flags & 16 != 0 {
            NodeId(choices.number()?)
        } else {
            US
        },
        incarnation: incarnation(if flags & 32 != 0 {
            choices.number()?
        } else {
            from
        }),
        starts: choices.number()?,
        run,
        known: match flags & 64 {
            0 => None,
            _ => Some(incarnation(choices.number()?)),
        },
        held: Held {
            term: Term(choices.number()? >> 1),
            last: LogId::new(
                Term(choices.number()? >> 1),
                LogIndex(choices.number()? >> 1),
            ),
        },
        members: match listed {
            0..200 => [1, 2, 3, 4].map(NodeId).into(),
            200.. => (0..u64::from(listed)).map(|id| NodeId(id % 7)).collect(),
        },
        nonce: run >> 1,
        address: match flags & 128 {
            0 => String::new(),
            _ => format!("host:{}", listed.max(1)),
        },
    })
}
