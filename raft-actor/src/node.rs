//! `Node`: the one shell around the protocol.
//!
//! Each handler is short and synchronous: it hands inputs to [`Raft::step`], carries out the effects in
//! order, and ends its turn by handing what it gathered to the storage and to [`Delivery`], one message
//! each. No future is awaited inside a handler.
//!
//! Invariants:
//! - A message that claims something of the disk is not sent by the node, but by its [disk](crate::disk).
//! - Once the node has failed or is ending, nothing reaches the protocol any more; nor does what a peer's
//!   process said that has ended since, or that came back without what it had acknowledged (`witness.rs`).
//! - Its mailbox holds only what the node's own parts send, each at most a few messages ahead, and reads, of which there
//!   are no more than the front lets in, and which only gather; who proposes is kept at the [`Door`]. So nobody can put a
//!   flood between the node and its timers.
//! - Time comes from a [`Clock`](crate::clock), looked at at the end of every turn.
//! - Every handler that may log does so in the node's span.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use raft_core::{
    ClusterId, Incarnation, Input, LogId, LogIndex, NodeId, OpenMessage, Persist, Raft,
    ReadFailure, Recovered, RequestId, WriteId,
};
use raft_net::{Frame, FrameEncoder, Inbound, Local, PeerEvent, PeerSender};
use raft_storage::LogReads;
use tokio::sync::{Semaphore, watch};

use crate::birth::Forming;
use crate::boot_time::boot_time;
use crate::changing::Changes;
use crate::clock::Clock;
use crate::config::TICK;
use crate::delivery::{Apply, Back, PartFailed, Progress, Told};
use crate::departure::Departure;
use crate::disk::Disk;
use crate::door::{Door, Knock};
use crate::front::{RaftActor, Stop};
use crate::intake::Intake;
use crate::joining::{Hosting, Invitation, Search};
use crate::lag::Lag;
use crate::leaving::Leaving;
use crate::managing::Managing;
use crate::members::Following;
use crate::observe::Observer;
use crate::parts::{Parts, died};
use crate::proposals::OwnSessionOpened;
use crate::reads::{Ask, AskTogether, Unconfirmed};
use crate::refused::Refused;
use crate::reply::{Answer, Later, later};
use crate::snapshot::Expected;
use crate::snapshotting::Snapshotting;
use crate::witness::Greeting;
use crate::{Config, Ended, GetStatus, NodeFailure, Shutdown, UnknownCause};

/// See the [module](self).
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: Option<ClusterId>,
    /// The entry that says which cluster this is, is being read from the log.
    pub(crate) reading_birth: bool,
    pub(crate) core_config: raft_core::Config,
    /// Whether the protocol is told of a process that is gone.
    pub(crate) early_campaign: bool,
    pub(crate) life: Life,
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    pub(crate) own_address: String,
    pub(crate) local: Local,
    pub(crate) following: Following,
    pub(crate) door: Rc<Door>,
    pub(crate) front: Addr<RaftActor>,
    pub(crate) parts: Parts,
    pub(crate) reads: Addr<LogReads>,
    pub(crate) progress: watch::Receiver<Progress>,
    pub(crate) lag: Arc<Lag>,
    /// The last entry that is to be read from the log when its turn to be applied comes.
    pub(crate) left_on_disk: LogIndex,
    pub(crate) hosting: Hosting,
    /// The only voter listens for so many ticks before it leads again: this may be an old copy of it.
    pub(crate) listens: Option<u32>,
    pub(crate) invitations: Vec<Invitation>,
    pub(crate) search: Search,
    pub(crate) snapshotting: Snapshotting,
    pub(crate) unconfirmed: Unconfirmed,
    pub(crate) managing: Managing,
    pub(crate) changes: Changes,
    pub(crate) leaving: Leaving,
    /// When the protocol's clock was at 0, by [`boot_time`](crate::boot_time).
    pub(crate) took_part_since: Duration,
    /// The log's time when this node became leader, and when that was.
    pub(crate) leads_since: Option<(u64, Instant)>,
    pub(crate) encoder: FrameEncoder,
    pub(crate) clock: Clock,
    /// The number of this turn.
    pub(crate) turn: u64,
    pub(crate) intake: Intake,
    pub(crate) greeting: Greeting,
    /// Whether this run of the node has known a leader.
    pub(crate) took_part: bool,
    pub(crate) persists: Vec<Persist>,
    pub(crate) disk: Disk,
    /// How far all is durable, where the snapshots that this names are still to be told.
    pub(crate) written_through: Option<WriteId>,
    pub(crate) observer: Observer,
    pub(crate) to_apply: Vec<Apply>,
    /// What is sent at the end of the turn, or with what is expected next.
    pub(crate) not_urgent: Vec<(NodeId, OpenMessage)>,
    /// By what the threads that take snapshots in judge what is offered.
    pub(crate) expected: Arc<Mutex<Expected>>,
    pub(crate) refused: Refused,
    /// How letting go of everything ended.
    pub(crate) close_result: Option<Ending>,
    /// Who waits for the node's end.
    pub(crate) ended: Vec<Answer<Ending>>,
    /// Who waits for everything to be let go of.
    pub(crate) let_go: Vec<Answer<Ending>>,
}

/// Where a node is in its life.
pub(crate) enum Life {
    /// Its folder is new, and not every listed peer has answered.
    Forming {
        forming: Forming,
        recovered: Recovered,
    },
    /// It takes part.
    Running(Box<Raft>),
    /// It gives what is on its way until the deadline to be committed.
    Draining {
        raft: Option<Box<Raft>>,
        until: Instant,
        /// Nothing is on its way any more, and the leadership is being handed over.
        hands_over: bool,
    },
    /// It closes its parts.
    Closing,
    /// It takes no part any more.
    Failed {
        why: NodeFailure,
        /// Everything has been let go of.
        released: bool,
        /// Whether those who wait for the end are told.
        told: bool,
    },
}

/// For so long a node listens before it founds a cluster, or leads one again alone: nobody who looks for it pauses longer
/// than a second between two dials, which on a busy machine take their time.
pub(crate) const LISTEN: Duration = Duration::from_millis(1500);

/// Digests of one peer on their way to be compared. It says ten in a second.
pub(crate) const DIGESTS_MAX: usize = 16;

/// How a node ended.
pub(crate) type Ending = Result<(), NodeFailure>;

/// A peer as this node sees it.
pub(crate) struct Peer {
    pub(crate) sender: PeerSender,
    /// This node's log does not name it yet: it is here as long as its connection is.
    pub(crate) is_guest: bool,
    pub(crate) connected: bool,
    /// The last turn in which it was sent entries.
    pub(crate) fed_in: u64,
    /// Whether its process may be gone.
    pub(crate) departure: Departure,
    /// What was last heard or seen of it while it was not connected.
    pub(crate) trouble: Option<String>,
    /// It refuses this node, for a reason that will not pass.
    pub(crate) refuses: bool,
    /// It does so because this node is a member no more.
    pub(crate) says_removed: bool,
    /// Places for what it says of its state, [`DIGESTS_MAX`].
    pub(crate) digests: Arc<Semaphore>,
}

/// The answer to a read that the core asked for.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct EntriesRead {
    pub(crate) request: RequestId,
    pub(crate) result: Result<Vec<raft_core::Entry>, ReadFailure>,
}

impl Actor for Node {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |node, ctx| {
            let _span = node.span().entered();
            node.hear_disk(ctx);
            node.watch_parts(ctx);
            node.expire_proposals(ctx);
            node.tend_reads(ctx);
            node.consider_snapshot();
            node.tend_members(ctx);
            node.tend_invitations();
            node.end_turn(ctx);
        });
        let _span = self.span().entered();
        self.begin_to_meet();
        self.observe(boot_time(), ctx);
        self.consider_birth(ctx);
        self.begin_alone(ctx);
        self.end_turn(ctx);
    }
}

impl Node {
    /// The only voter need wait for nobody. But if it has led before, others may have joined since, and this be an old copy.
    fn begin_alone(&mut self, ctx: &mut Context<Self>) {
        let Life::Running(raft) = &self.life else {
            return;
        };
        if !raft.configuration().voters.iter().eq([&self.id]) {
            return;
        }
        if raft.last() == LogId::ZERO {
            self.step(Input::Campaign, ctx);
        } else {
            self.listens = Some(Config::ticks(LISTEN));
        }
    }

    /// Inputs in, effects out, for every handler that brings something for the protocol.
    fn turn(&mut self, ctx: &mut Context<Self>, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            self.step(input, ctx);
        }
        self.end_turn(ctx);
    }
}

impl Handler<Inbound> for Node {
    type Result = ();

    fn handle(&mut self, inbound: Inbound, ctx: &mut Self::Context) {
        let Inbound {
            from,
            starts,
            frames,
        } = inbound;
        let _span = self.span().entered();
        self.forget_lost(ctx);
        self.hear_disk(ctx);
        if !self.peers.contains_key(&from) {
            return; // It has left.
        }
        let hears = self.hears(from, starts, &frames);
        for frame in frames {
            // Proposals and their outcomes are true whoever says them.
            if hears || !matches!(frame, Frame::Raft(_)) {
                self.receive(from, frame, ctx);
            }
        }
        if self.intake.has_work() {
            self.flush(ctx);
        }
        self.end_turn(ctx);
    }
}

impl Handler<EntriesRead> for Node {
    type Result = ();

    fn handle(&mut self, EntriesRead { request, result }: EntriesRead, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.turn(ctx, [Input::EntriesRead { request, result }]);
    }
}

impl Handler<PeerEvent> for Node {
    type Result = ();

    fn handle(&mut self, event: PeerEvent, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.observer.event();
        self.peer_event(event, ctx);
        self.end_turn(ctx);
    }
}

impl Handler<PartFailed> for Node {
    type Result = ();

    fn handle(&mut self, PartFailed(failure): PartFailed, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.fail(failure, ctx);
    }
}

impl Handler<Told> for Node {
    type Result = ();

    fn handle(&mut self, told: Told, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        match told {
            Told::Back(proposals) => {
                for back in proposals {
                    match back {
                        Back::Superseded(proposal) => self.superseded(proposal),
                        Back::Unsure(proposal) => self.unsure(proposal, UnknownCause::NodeEnded),
                        Back::Settled(proposal, settled) => self.settled(proposal, settled),
                    }
                }
                self.flush(ctx);
            }
            Told::Captured(captured) => self.captured(*captured, ctx),
            Told::Cluster(cluster) => self.snapshot_of(cluster, ctx),
            Told::Reads(jobs) => self.reads_again(jobs, ctx),
        }
        self.end_turn(ctx);
    }
}

impl Handler<OwnSessionOpened> for Node {
    type Result = ();

    fn handle(&mut self, opened: OwnSessionOpened, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.own_session_opened(opened, ctx);
        self.end_turn(ctx);
    }
}

impl Handler<Ask> for Node {
    type Result = ();

    fn handle(&mut self, Ask(job): Ask, ctx: &mut Self::Context) {
        self.ask(job, ctx);
    }
}

impl Handler<AskTogether> for Node {
    type Result = ();

    fn handle(&mut self, _: AskTogether, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.ask_together(ctx);
        self.end_turn(ctx);
    }
}

impl Handler<GetStatus> for Node {
    type Result = MessageResult<GetStatus>;

    fn handle(&mut self, _: GetStatus, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        self.hear_disk(ctx);
        MessageResult(self.status())
    }
}

impl Handler<Shutdown> for Node {
    type Result = Later<Ending>;

    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) -> Self::Result {
        let _span = self.span().entered();
        let (later, answer) = later(died);
        self.let_go.push(answer);
        self.shut_down(ctx);
        later
    }
}

impl Handler<Ended> for Node {
    type Result = Later<Ending>;

    fn handle(&mut self, _: Ended, _: &mut Self::Context) -> Self::Result {
        if let Life::Failed {
            why, told: true, ..
        } = &self.life
        {
            return Later::now(Err(why.clone()));
        }
        let (later, answer) = later(died);
        self.ended.push(answer);
        later
    }
}

impl Handler<Stop> for Node {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Knock> for Node {
    type Result = ();

    fn handle(&mut self, _: Knock, ctx: &mut Self::Context) {
        let _span = self.span().entered();
        self.door.answered();
        self.flush(ctx);
        self.end_turn(ctx);
    }
}
