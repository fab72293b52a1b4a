//! The thread on which a [`Raft`](crate::Raft)'s actor system runs.
//!
//! Invariants:
//! - It ends when it is told to leave, which the last handle does, or when the node was shut down; with it end all actors.
//! - The node's end is kept for whoever asks later. If the thread ends without a word, they are told that.

use std::io;
use std::pin::pin;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::{Either, select};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::node::Ending;
use crate::parts::died;
use crate::{Ended, NodeFailure, RaftActor, Shutdown, StartError};

/// How long a node's end is waited for. Its parts have shorter limits of their own, so this one is met only by a node that is
/// broken, or whose thread waits for its disk.
const SHUTDOWN_MAX: Duration = Duration::from_secs(30);

/// What handles share: the node, and the system around it. Dropped, it tells the system to leave.
pub(super) struct Running {
    pub(super) node: Addr<RaftActor>,
    /// The system's thread, for what waits on the program's side.
    pub(super) arbiter: ArbiterHandle,
    leave: CancellationToken,
    ended: watch::Receiver<Option<Ending>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.leave.cancel();
    }
}

impl Running {
    /// Starts a system, and in it what `spawn` spawns. If nobody waits for that any more, it is shut down again, or broken
    /// off.
    pub(super) async fn start<S>(
        spawn: impl FnOnce() -> S + Send + 'static,
    ) -> Result<Self, StartError>
    where
        S: Future<Output = Result<Addr<RaftActor>, StartError>>,
    {
        let (started, start) = oneshot::channel();
        std::thread::Builder::new()
            .name("raft-system".to_owned())
            .spawn(move || run(spawn, started))
            .map_err(StartError::System)?;
        start.await.unwrap_or_else(|_| {
            let died = io::Error::other("its thread ended, probably by a panic");
            Err(StartError::System(died))
        })
    }

    pub(super) async fn ended(&self) -> Ending {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        ended
            .ok()
            .and_then(|ended| ended.clone())
            .unwrap_or(Err(NodeFailure::PartStopped("the actor system")))
    }

    pub(super) async fn shutdown(&self) -> Ending {
        // The node keeps its own limits, unless its thread waits for a disk that does not answer.
        let sent = pin!(self.node.send(Shutdown));
        let answer = match select(sent, self.alarm(SHUTDOWN_MAX)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((Ok(()), _)) => {
                self.leave.cancel();
                return Err(NodeFailure::CloseTimedOut(SHUTDOWN_MAX));
            }
            // The system has ended, and with it the node, which may have answered just before. Or only the clock's task has
            // ended, because the program stopped the system: the node does not know that yet, and is to be asked.
            Either::Right((Err(_), sent)) => sent.await,
        };
        let ending = match answer {
            Ok(ending) => ending,
            // It has gone, for another one's request maybe, and has said how.
            Err(_) => self.ended().await,
        };
        self.leave.cancel();
        ending
    }

    /// Waits, on the system's clock: the program's executor need not have one. Ends early with the system, which whoever
    /// waits then learns from the node.
    pub(super) async fn pause(&self, duration: Duration) {
        let _ = self.alarm(duration).await;
    }

    /// Says so when `duration` is over; an error if the system ends before.
    fn alarm(&self, duration: Duration) -> oneshot::Receiver<()> {
        let (over, wait) = oneshot::channel();
        self.arbiter.spawn(async move {
            tokio::time::sleep(duration).await;
            let _ = over.send(());
        });
        wait
    }
}

fn run<S>(spawn: impl FnOnce() -> S, mut started: oneshot::Sender<Result<Running, StartError>>)
where
    S: Future<Output = Result<Addr<RaftActor>, StartError>>,
{
    let system = System::new();
    let spawned = system.block_on(async {
        tokio::select! {
            biased;
            node = spawn() => Some(node),
            () = started.closed() => None,
        }
    });
    let node = match spawned {
        Some(Ok(node)) => node,
        None => return,
        Some(Err(error)) => {
            // Nothing is left when it is told.
            drop(system);
            let _ = started.send(Err(error));
            return;
        }
    };
    let (kept, ended) = watch::channel(None);
    let leave = CancellationToken::new();
    let running = Running {
        node: node.clone(),
        arbiter: Arbiter::current(),
        leave: leave.clone(),
        ended,
    };
    // One that nobody waits for is dropped here, and so told to leave.
    let _ = started.send(Ok(running));
    system.block_on(serve(&node, &leave, &kept));
    System::current().stop();
    if let Err(error) = system.run() {
        tracing::error!("the actor system: {error}");
    }
}

/// Keeps the node's end, and lets the node go when it is left.
async fn serve(
    node: &Addr<RaftActor>,
    leave: &CancellationToken,
    kept: &watch::Sender<Option<Ending>>,
) {
    let mut ended = pin!(node.send(Ended));
    let ending = tokio::select! {
        biased;
        ending = &mut ended => Some(ending.unwrap_or_else(|_| died())),
        () = leave.cancelled() => None,
    };
    let failed = ending.as_ref().is_some_and(Result::is_err);
    if let Some(ending) = ending {
        kept.send_replace(Some(ending));
        if !failed {
            return;
        }
        // It still says why to whoever asks.
        leave.cancelled().await;
    }
    let shut_down = match timeout(SHUTDOWN_MAX, node.send(Shutdown)).await {
        Ok(Ok(ending)) => ending,
        // It has gone already, and said how just before.
        Ok(Err(_)) if !failed => ended.await.unwrap_or_else(|_| died()),
        Ok(Err(_)) => died(),
        Err(_) => Err(NodeFailure::CloseTimedOut(SHUTDOWN_MAX)),
    };
    if !failed {
        kept.send_replace(Some(shut_down));
    }
}
