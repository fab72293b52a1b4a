//! A pair of channels: commands in, delivered commands out.
//!
//! Invariants:
//! - A command that was taken in is proposed until it is in the log, once, or the node ends. Only while somebody can
//!   still send is that without an end: so the last sender's end ends the task.
//! - At most [`WAITING`] commands wait, and as many are under way; then senders wait.

use actix::Addr;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Event, Events, Position, RETRY, Raft};
use crate::message::Naming;
use crate::{Delivered, Propose, ProposeError, RaftActor, SubscribeError, SubscriptionEnd};

/// Commands that wait to be proposed, at most.
const WAITING: usize = 64;

/// Broadcasts commands; see [`Raft::channels`]. Clones send into the same channel.
#[derive(Clone, Debug)]
pub struct CommandSender {
    commands: mpsc::Sender<Bytes>,
    raft: Raft,
}

/// Receives what everybody broadcasts; see [`Raft::channels`].
#[derive(Debug)]
pub struct CommandReceiver(Events);

pub(super) async fn channels(
    raft: &Raft,
    from: Position,
) -> Result<(CommandSender, CommandReceiver), SubscribeError> {
    let receiver = CommandReceiver(Events::of(raft, from).await?);
    let (commands, waiting) = mpsc::channel(WAITING);
    // The task keeps the node until it has proposed what it took in.
    let raft = raft.clone();
    let proposing = raft.clone();
    raft.running.arbiter.spawn(async move {
        broadcast(&proposing.running.node, waiting).await;
        drop(proposing);
    });
    Ok((CommandSender { commands, raft }, receiver))
}

impl CommandSender {
    /// Hands a command over, and waits for room if many are waiting. It is proposed until it is in the log, in the order of
    /// sending as long as the leader does not change and the node is not busy. There is no answer, but for its delivery.
    ///
    /// # Errors
    /// The command is [too large](ProposeError::TooLarge), or the node has ended.
    pub async fn send(&self, command: impl Into<Bytes>) -> Result<(), ProposeError> {
        let command = command.into();
        let (len, max) = (command.len(), self.raft.command_bytes_max);
        if len > max {
            return Err(ProposeError::TooLarge { len, max });
        }
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ProposeError::ShuttingDown)
    }
}

impl CommandReceiver {
    /// Waits for the next command that is delivered. A wait that is given up takes nothing out.
    ///
    /// # Errors
    /// The subscription has ended: with the node, or because the next commands are
    /// [compacted](SubscriptionEnd::Compacted). Who must go on behind those [subscribes](Raft::subscribe).
    pub async fn recv(&mut self) -> Result<Delivered, SubscriptionEnd> {
        let first = match self.0.recv().await? {
            Event::Delivered(delivered) => return Ok(delivered),
            Event::Snapshot(snapshot) => snapshot.last().index.next(),
            Event::Gap { first, .. } => first,
        };
        let end = SubscriptionEnd::Compacted { first };
        self.0.end_with(end);
        Err(end)
    }
}

/// Proposes what waits, all of it at once, again and again as needed, and then what has come meanwhile.
async fn broadcast(node: &Addr<RaftActor>, mut waiting: mpsc::Receiver<Bytes>) {
    let mut gathered = Vec::new();
    while waiting.recv_many(&mut gathered, WAITING).await > 0 {
        let mut proposals: Vec<_> = gathered.drain(..).map(Propose::new).collect();
        loop {
            // A fresh address for each: one that has filled the mailbox sends the rest only when that is waited for.
            let send = |propose: &Propose| node.clone().send(propose.clone());
            let sent: Vec<_> = proposals.iter().map(send).collect();
            let mut again = Vec::new();
            for (mut propose, sent) in proposals.into_iter().zip(sent) {
                let outcome = sent.await.unwrap_or(Err(ProposeError::ShuttingDown));
                let Err(error) = outcome else { continue };
                match next_try(&mut propose, &error) {
                    Next::Done => {}
                    Next::Again if waiting.is_closed() => {
                        tracing::warn!("a broadcast command was given up with its sender: {error}");
                    }
                    Next::Again => again.push(propose),
                    Next::Ended => {
                        tracing::warn!("broadcast commands were given up: {error}");
                        return;
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            proposals = again;
            tokio::time::sleep(RETRY).await;
        }
    }
}

enum Next {
    Done,
    Again,
    Ended,
}

/// What is to be done after an error, under which name.
fn next_try(propose: &mut Propose, error: &ProposeError) -> Next {
    match error {
        ProposeError::Busy | ProposeError::NoLeader { .. } | ProposeError::Superseded => {
            Next::Again
        }
        ProposeError::Unknown { id: Some(id), .. } => {
            propose.naming = Naming::Client {
                id: *id,
                done_below: 0,
            };
            Next::Again
        }
        ProposeError::ShuttingDown | ProposeError::Failed(_) => Next::Ended,
        // The state machine's word, or that of a cluster which has forgotten its own session.
        error => {
            tracing::warn!("a broadcast command came to nothing: {error}");
            Next::Done
        }
    }
}
