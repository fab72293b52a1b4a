//! Between the thread that writes the log and the node: what is durable is said to the peers by that thread itself, and
//! the node learns it with its next input, or at once if it waits for it.
//!
//! A follower's acknowledgement so does without a turn of the node, and what a leader's own disk says costs no turn while
//! no follower has answered: each would be a thread woken between a proposal and its commit, for nothing.
//!
//! Invariants:
//! - What claims something of the disk is said here and nowhere else, behind the sync.
//! - It can be seen here before any peer can have heard it, and the node looks before each input of the protocol: so no
//!   consequence of what was said comes before what made it so.
//! - Once the node has failed or is ending, nothing is said any more but what is being said.
//! - The node is woken for what it [waits for](Disk::awaits) and for a failure; for the rest it looks with every tick.
//!
//! Bound: what the node has not taken in is no more than it has handed over to be written.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use actix::prelude::*;
use raft_core::{DurableMessage, Input, NodeId, Raft, WriteId};
use raft_net::{Frame, FrameEncoder, Limits};
use raft_storage::{Durable, StorageError, WriteListener, Written};

use crate::node::Node;
use crate::observe::raft_of;
use crate::parts::Senders;

/// The node's side.
#[derive(Default)]
pub(crate) struct Disk(Arc<Shared>);

#[derive(Default)]
struct Shared {
    said: Mutex<Said>,
    /// Whether there is something that the node has not taken in.
    is_new: AtomicBool,
}

#[derive(Default)]
struct Said {
    /// How far all is durable, and since when, batch by batch.
    durable: Vec<(WriteId, Instant)>,
    failed: Option<StorageError>,
    /// The node waits for it.
    awaited: bool,
    /// A [`Look`] is on its way to it.
    called: bool,
    /// It takes no part any more, and nothing is said in its name.
    silent: bool,
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        // Nothing panics while it holds the lock.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Said {
    /// Whether the node is to be told to look.
    fn calls(&mut self) -> bool {
        let wanted = self.failed.is_some() || self.awaited && !self.durable.is_empty();
        wanted && !std::mem::replace(&mut self.called, true)
    }
}

/// There is something of the disk that does not wait for another input.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Look;

/// The side of the thread that writes.
pub(crate) struct Speaker {
    shared: Arc<Shared>,
    node: Recipient<Look>,
    own: NodeId,
    senders: Senders,
    encoder: FrameEncoder,
}

impl Disk {
    /// Who is to hear of every write of the storage of the node `own`, for it and for its peers.
    pub(crate) fn speaker(
        &self,
        own: NodeId,
        node: Recipient<Look>,
        senders: Senders,
        limits: &Limits,
    ) -> Speaker {
        Speaker {
            shared: Arc::clone(&self.0),
            node,
            own,
            senders,
            encoder: FrameEncoder::new(limits),
        }
    }

    /// Says whether the node waits for its disk from now on. If so, and there is something already, it is to look.
    fn awaits(&self, awaited: bool) -> bool {
        let mut said = self.0.said();
        said.awaited = awaited;
        said.calls()
    }

    /// Has nothing more said to the peers: the node has failed, or ends.
    pub(crate) fn hush(&self) {
        self.0.said().silent = true;
    }

    /// What was said since the last look.
    fn news(&self) -> (Vec<(WriteId, Instant)>, Option<StorageError>) {
        if !self.0.is_new.load(Ordering::Acquire) {
            return (Vec::new(), None);
        }
        let mut said = self.0.said();
        self.0.is_new.store(false, Ordering::Relaxed);
        (std::mem::take(&mut said.durable), said.failed.take())
    }
}

impl WriteListener for Speaker {
    fn hear(&mut self, Written(result): Written) {
        let mut said = self.shared.said();
        let messages = match result {
            Ok(Durable { through, messages }) => {
                said.durable.push((through, Instant::now()));
                if said.silent { Vec::new() } else { messages }
            }
            Err(error) => {
                said.failed = Some(error);
                Vec::new()
            }
        };
        self.shared.is_new.store(true, Ordering::Release);
        let calls = said.calls();
        drop(said);
        for (to, message) in messages {
            self.say(to, message);
        }
        if calls {
            self.node.do_send(Look);
        }
    }

    fn is_there(&self) -> bool {
        self.node.connected()
    }
}

impl Speaker {
    /// Sends a message of the protocol. One that cannot be sent is lost, which the protocol expects.
    fn say(&mut self, to: NodeId, message: DurableMessage) {
        let Some(sender) = self.senders.of(to) else {
            return;
        };
        match self
            .encoder
            .encode_for(&sender, Frame::Raft(message.into()))
        {
            // The sender counts what it drops.
            Ok(frame) => drop(sender.try_send_now(frame)),
            Err(error) => {
                let own = self.own;
                tracing::error!(node = %own, peer = %to, "cannot encode a message: {error}");
            }
        }
    }
}

impl Node {
    /// Takes in what its disk has said since the last look.
    pub(crate) fn hear_disk(&mut self, ctx: &mut Context<Self>) {
        let (durable, failed) = self.disk.news();
        for (through, at) in &durable {
            self.observer.written(*through, *at);
        }
        if let Some((through, _)) = durable.last() {
            let through = *through;
            self.forget_lost(ctx);
            self.take_in(Input::Persisted { through }, ctx);
            self.written_through = Some(through);
        }
        if let Some(error) = failed {
            self.fail(error.into(), ctx);
        }
    }

    /// At the end of a turn, behind what was handed over in it.
    pub(crate) fn await_disk(&mut self, ctx: &mut Context<Self>) {
        // Behind what it may have given to apply: a snapshot that takes the place of all before.
        if let Some(through) = self.written_through.take() {
            self.named_through(through);
        }
        let awaited =
            self.snapshotting.is_naming() || raft_of(&self.life).is_some_and(Raft::awaits_disk);
        if self.disk.awaits(awaited) {
            ctx.notify(Look);
        }
    }
}

impl Handler<Look> for Node {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.disk.0.said().called = false;
        self.hear_disk(ctx);
        self.end_turn(ctx);
    }
}
