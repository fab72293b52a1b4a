//! Visits: one question and its answer, between nodes that need not know each other.
//!
//! A node that has no id yet cannot introduce itself as peers do. It dials, says a `Visit`, is told a `VisitAnswer` or
//! why not, and the connection ends. So do those who want to know who is at an address. What is asked and
//! answered is the business of whoever uses this crate, which does not look into it.
//!
//! Invariants:
//! - A visitor is admitted nowhere: nothing of it reaches [`Inbound`](crate::Inbound), and its connection gives way
//!   to those that come after it like any that is in its handshake.
//! - What it makes a node hold is bounded: a question of [`VISIT_LEN_MAX`], an answer of [`VISIT_ANSWER_LEN_MAX`], of
//!   [`VISITS_MAX`] visits at once.
//! - With TLS both sides verify that the other's certificate is of the CA. Which names the visitor's holds is told
//!   ([`Shown::holds`]); who answers may be any node of the CA.
//! - Every wait ends: on the asked side with the time for a handshake, and then as much for the answer to go out;
//!   on the asking side after both.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use actix::{Message, Recipient};
use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::decode::{FrameDecoder, RawFrame, decode_body};
use crate::dial::{dial, resolve};
use crate::handshake::{Broken, read_frame, write_frame};
use crate::header::FrameKind;
use crate::limits::FRAME_OVERHEAD_LEN;
use crate::socket::linger;
use crate::stream::Stream;
use crate::wire::VisitBody;
use crate::{
    DecodeError, DialError, EncodeError, EncodedFrame, Ending, FrameEncoder, Limits, Refusal, Tls,
    TlsName,
};

/// The longest question of a visit, in bytes: with its header it fits a frame of a handshake.
pub const VISIT_LEN_MAX: usize = (4 << 10) - 64;
/// The longest answer to a visit, in bytes: what is to be said of as many members as can be.
pub const VISIT_ANSWER_LEN_MAX: usize = 256 << 10;
/// So many visits are under way at a node at most; a further one is told that there are too many connections.
pub(crate) const VISITS_MAX: usize = 8;

/// A visit that came in.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Visit {
    /// What is asked, in at most [`VISIT_LEN_MAX`] bytes.
    pub data: Bytes,
    /// Where the visitor dialled from.
    pub remote: SocketAddr,
    /// What the visitor has shown of itself; none without TLS.
    pub shown: Option<Shown>,
    /// Takes the answer, of at most [`VISIT_ANSWER_LEN_MAX`] bytes, or why there is none. Nobody waits for it any
    /// more when [`Limits::handshake_timeout`] has passed since the visitor came. Dropped, it ends the connection
    /// without a word.
    pub reply: oneshot::Sender<Result<Bytes, Refusal>>,
}

/// The certificate that the other side has shown. It is one of the CA, and the other side has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(CertificateDer<'static>);

impl Shown {
    /// Whether it is for `name`.
    #[must_use]
    pub fn holds(&self, name: &TlsName) -> bool {
        name.check(Some(&self.0)).is_ok()
    }
}

/// Why a visit brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum VisitError {
    /// Nobody answers there, or the connection broke off.
    #[error(transparent)]
    Unreachable(#[from] DialError),
    /// Who is there refused, or is refused.
    #[error("refused at {address}: {refusal}")]
    Refused {
        /// Where.
        address: String,
        /// Why.
        refusal: Refusal,
    },
    /// Who is there does not know what a visit is, or not what was asked.
    #[error(
        "the program at {address} does not understand what it is asked: run the same version there and here"
    )]
    NotUnderstood {
        /// Where.
        address: String,
    },
    /// What is asked is too long. Nothing was sent.
    #[error(transparent)]
    Question(#[from] EncodeError),
}

/// Asks the node at `address` (`host:port`), and gives its answer. Of a name that leads to several addresses each is
/// asked in turn until one answers; if none does, a refusal tells more than silence.
///
/// It takes at most [`Limits::connect_timeout`] and twice [`Limits::handshake_timeout`] for each address, of
/// which there may be sixteen.
///
/// # Errors
/// See [`VisitError`].
pub async fn visit(
    address: &str,
    data: Bytes,
    tls: Option<&Tls>,
    limits: &Limits,
) -> Result<Bytes, VisitError> {
    let question = encode(FrameKind::Visit, &data, VISIT_LEN_MAX)?;
    let mut failed = None;
    for address in resolve(address, limits).await? {
        match ask(address, &question, tls, limits).await {
            Ok(answer) => return Ok(answer),
            Err(error) => match failed {
                Some(VisitError::Refused { .. }) => {}
                _ => failed = Some(error),
            },
        }
    }
    Err(failed.unwrap_or_else(|| {
        VisitError::Unreachable(DialError::Connect {
            address: address.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
    }))
}

/// Asks who is at one address.
async fn ask(
    address: String,
    question: &EncodedFrame,
    tls: Option<&Tls>,
    limits: &Limits,
) -> Result<Bytes, VisitError> {
    let stream = dial(&address, limits).await?;
    let limit = 2 * limits.handshake_timeout;
    let asked = async {
        let mut decoder = FrameDecoder::for_handshake(limits);
        let mut stream = match tls {
            Some(tls) => tls.connect(None, stream, &mut decoder).await?,
            None => stream,
        };
        write_frame(&mut stream, Ok(question.clone())).await?;
        decoder.establish(VISIT_ANSWER_LEN_MAX + FRAME_OVERHEAD_LEN);
        Ok(read_frame(&mut stream, &mut decoder).await?)
    };
    let broken = |broken| match broken {
        Broken::Refused(refusal) => VisitError::Refused {
            address: address.clone(),
            refusal,
        },
        Broken::Malformed(error) => at(&address, Ending::Malformed(error)),
        Broken::Ended(ending) => at(&address, ending),
    };
    let frame: Result<RawFrame, Broken> = timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(Ending::Stalled(limit).into()));
    let frame = frame.map_err(broken)?;
    let malformed = |error| at(&address, Ending::Malformed(error));
    match frame.kind {
        FrameKind::VisitAnswer => decode(&frame, VISIT_ANSWER_LEN_MAX).map_err(malformed),
        FrameKind::Refuse => match Refusal::decode(&frame).map_err(malformed)? {
            // What was sent is well-formed, to whoever knows it.
            Refusal::Malformed { .. } => Err(VisitError::NotUnderstood { address }),
            refusal => Err(broken(Broken::Refused(refusal))),
        },
        kind => Err(malformed(DecodeError::OutOfPlace { kind })),
    }
}

/// A visit that broke off.
fn at(address: &str, source: Ending) -> VisitError {
    let address = address.to_owned();
    DialError::Handshake { address, source }.into()
}

pub(crate) fn encode(
    kind: FrameKind,
    data: &[u8],
    max: usize,
) -> Result<EncodedFrame, EncodeError> {
    let len = data.len();
    if len > max {
        return Err(EncodeError::Payload { kind, len, max });
    }
    FrameEncoder::for_visits().body(kind, &VisitBody { data }, 1, len)
}

pub(crate) fn decode(frame: &RawFrame, max: usize) -> Result<Bytes, DecodeError> {
    let (kind, body) = (frame.kind, &frame.body);
    let VisitBody { data } = decode_body(kind, body)?;
    let len = data.len();
    if len > max {
        return Err(DecodeError::Payload { kind, len, max });
    }
    Ok(body.slice_ref(data))
}

/// Where visits go that come in.
#[derive(Debug)]
pub(crate) struct Visits {
    to: To,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
enum To {
    Node(Recipient<Visit>),
    Joiner(mpsc::Sender<Visit>),
}

/// What a visitor is told. The visit is under way until it has been said.
pub(crate) struct Answer {
    frame: EncodedFrame,
    _place: OwnedSemaphorePermit,
}

impl Visits {
    pub(crate) fn to_node(node: Recipient<Visit>) -> Self {
        Self::to(To::Node(node))
    }

    pub(crate) fn to_joiner(joiner: mpsc::Sender<Visit>) -> Self {
        Self::to(To::Joiner(joiner))
    }

    fn to(to: To) -> Self {
        let places = Arc::new(Semaphore::new(VISITS_MAX));
        Self { to, places }
    }

    /// Hands over the visit that a connection began with, and waits for what the visitor is told.
    pub(crate) async fn receive(
        &self,
        frame: &RawFrame,
        remote: SocketAddr,
        shown: Option<&CertificateDer<'static>>,
    ) -> Result<Answer, Broken> {
        let data = decode(frame, VISIT_LEN_MAX).map_err(Broken::Malformed)?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Broken::Refused(Refusal::TooManyConnections))?;
        let (reply, replied) = oneshot::channel();
        let shown = shown.cloned().map(Shown);
        let visit = Visit {
            data,
            remote,
            shown,
            reply,
        };
        // If nobody takes it, it is dropped, and `replied` says so.
        match &self.to {
            To::Node(node) => node.do_send(visit),
            To::Joiner(joiner) => drop(joiner.try_send(visit)),
        }
        let answer = replied.await.map_err(|_| Ending::ReceiverGone)?;
        let answer = answer.map_err(Broken::Refused)?;
        let frame = encode(FrameKind::VisitAnswer, &answer, VISIT_ANSWER_LEN_MAX);
        Ok(Answer {
            frame: frame.map_err(io::Error::other)?,
            _place: place,
        })
    }
}

impl Answer {
    /// Tells it, and waits for the visitor to have read it.
    pub(crate) async fn say(self, mut stream: Stream, limits: &Limits) -> Result<(), Ending> {
        let limit = limits.handshake_timeout;
        timeout(limit, write_frame(&mut stream, Ok(self.frame)))
            .await
            .map_err(|_| Ending::Stalled(limit))??;
        linger(&mut stream).await;
        Ok(())
    }
}
