//! A node that has no id yet, at its address: it can be visited, and hears who dials it.
//!
//! Members that know its address may dial it before it knows itself who it is. What they say tells it whom they
//! take it for; they are refused for now ([`Refusal::Joining`]), and come back.
//!
//! Invariant: when it is stopped or dropped, no connection and no task is left, and the socket was open all the time.

use std::net::SocketAddr;
use std::sync::Arc;

use raft_core::{ClusterId, Incarnation, NodeId};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use crate::accepting::{Host, accept, enter, last_word, slow, watch};
use crate::cut::Cut;
use crate::decode::FrameDecoder;
use crate::handshake::{Broken, introduction, read_frame};
use crate::header::FrameKind;
use crate::lobby::Place;
use crate::local::Purpose;
use crate::socket::{LINGER_LEN_MAX, configure, farewell};
use crate::stream::Stream;
use crate::visit::{Answer, Visits};
use crate::{BoundListener, Ending, Limits, ListenError, Refusal, Tls, Visit};

/// A node has dialled this one, which has no id yet, and said whom it takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialled {
    /// Who dialled.
    pub from: NodeId,
    /// Whom it wants.
    pub to: NodeId,
    /// The cluster that it is of, if it is born.
    pub cluster: Option<ClusterId>,
    /// The data folder that it knows whom it wants by.
    pub known: Option<Incarnation>,
    /// Where it dialled from.
    pub remote: SocketAddr,
}

/// A listener at which a node that has no id yet is visited. Dropped, it ends, and the socket is closed.
#[derive(Debug)]
pub struct Visited {
    bound: BoundListener,
    stop: DropGuard,
    accepting: JoinHandle<()>,
}

impl BoundListener {
    /// Accepts visits, on the current runtime's thread, until it is stopped. They go to `visits`, and who dialled as a
    /// peer does to `dialled`. What a full channel does not take is dropped: a visitor's connection ends, and who
    /// dialled does so again.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn visited(
        self,
        tls: Option<Tls>,
        limits: Limits,
        visits: mpsc::Sender<Visit>,
        dialled: mpsc::Sender<Dialled>,
    ) -> Result<Visited, ListenError> {
        let socket = self.socket.try_clone();
        let socket = socket.map_err(|source| ListenError::Bind {
            address: self.local_addr.to_string(),
            source,
        })?;
        let stop = CancellationToken::new();
        let (stopped, host) = (
            stop.clone(),
            Arc::new(Joiner {
                tls: tls.clone(),
                limits,
                visits: Visits::to_joiner(visits),
                dialled,
            }),
        );
        let accepting = async move {
            tokio::select! {
                biased;
                ended = accept(socket, &host, &stopped) => if let Err(error) = ended {
                    tracing::error!(%error, "cannot be visited");
                },
                never = watch(tls.as_ref()) => match never {},
            }
        };
        let span = tracing::info_span!("visited", at = %self.local_addr);
        Ok(Visited {
            bound: self,
            stop: stop.drop_guard(),
            accepting: actix_rt::spawn(accepting.instrument(span)),
        })
    }
}

impl Visited {
    /// Ends it, and gives the listener back when no connection is left. Those who come meanwhile wait in its queue.
    pub async fn stop(self) -> BoundListener {
        self.stop.disarm().cancel();
        // Its own panic ends it too.
        let _ = self.accepting.await;
        self.bound
    }
}

/// Who has no id yet.
struct Joiner {
    tls: Option<Tls>,
    limits: Limits,
    visits: Visits,
    dialled: mpsc::Sender<Dialled>,
}

impl Joiner {
    async fn greet(
        &self,
        door: &mut Option<Stream>,
        decoder: &mut FrameDecoder,
        remote: SocketAddr,
    ) -> Result<Answer, Broken> {
        let stream = enter(door, self.tls.as_ref()).await?;
        let frame = read_frame(stream, decoder).await?;
        if frame.kind == FrameKind::Visit {
            return self.visits.receive(&frame, remote, stream.shown()).await;
        }
        let theirs = introduction(&frame, &Purpose::HELLOS)?;
        // When there is no room for it, it is heard of again at its next dial.
        let _ = self.dialled.try_send(Dialled {
            from: theirs.from,
            to: theirs.to,
            cluster: theirs.cluster,
            known: theirs.known,
            remote,
        });
        Err(Broken::Refused(Refusal::Joining))
    }

    /// Ends a connection with what is to be said on it.
    async fn end(&self, stream: Option<Stream>, greeted: Result<Answer, Broken>) {
        let refusal = match greeted {
            Ok(answer) => {
                if let Some(stream) = stream
                    && let Err(ending) = answer.say(stream, &self.limits).await
                {
                    tracing::debug!(%ending, "a visitor was not told");
                }
                return;
            }
            Err(Broken::Refused(refusal)) => refusal,
            Err(Broken::Malformed(error)) => Refusal::malformed(&error),
            Err(Broken::Ended(ending)) => {
                tracing::debug!(%ending, "a visit broke off");
                return;
            }
        };
        tracing::debug!(%refusal, "refused a connection");
        if let Some(mut stream) = stream {
            let frame = refusal.encode(&self.limits);
            farewell(&mut stream, frame, LINGER_LEN_MAX).await;
        }
    }
}

impl Host for Joiner {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn full(&self, stream: Option<Stream>, _: SocketAddr) {
        if let Some(stream) = stream {
            last_word(stream, &Refusal::TooManyConnections, &self.limits);
        }
    }

    async fn serve(self: Arc<Self>, stream: Stream, remote: SocketAddr, cut: Cut, place: Place) {
        if configure(&stream, &self.limits).is_err() {
            return; // It is gone.
        }
        let mut decoder = FrameDecoder::for_handshake(&self.limits);
        let mut door = Some(stream);
        let limit = self.limits.handshake_timeout;
        let greeting = timeout(limit, self.greet(&mut door, &mut decoder, remote));
        let greeted = match cut.guard(async { Ok(greeting.await) }).await {
            Ok(greeted) => greeted.unwrap_or_else(|_| Err(Broken::Refused(slow(&self.limits)))),
            Err(Ending::Evicted) => return self.full(door, remote),
            Err(_) => return,
        };
        let end = async {
            self.end(door, greeted).await;
            Ok(())
        };
        // Whoever is cut off here has had its time.
        let _: Result<(), Ending> = cut.guard(end).await;
        drop(place);
    }
}
