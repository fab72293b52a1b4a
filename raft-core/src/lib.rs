//! Raft as a state machine without I/O: the protocol that several nodes speak so that all of them hold
//! the same log, and what was acknowledged survives crashes and the loss of any minority.
//!
//! The sources are *In Search of an Understandable Consensus Algorithm* (extended version), cited as
//! "paper", and Ongaro's dissertation, cited as "thesis".
//!
//! # How to drive it
//!
//! A [`Raft`] is one node. It has one way in, [`Raft::step`], which takes an [`Input`] and answers with
//! [`Effect`]s that the caller carries out in order. It has no clock (time is [`Input::Tick`]), no disk
//! ([`Effect::Persist`], answered by [`Input::Persisted`]), no network ([`Effect::Send`] and
//! [`Input::Received`]) and no source of randomness but [`Config::seed`]: the same inputs give the same
//! effects, always.
//!
//! ```
//! use std::collections::VecDeque;
//!
//! use raft_core::{Config, Effect, EntryKind, Input, NodeId, Raft, Recovered, Role};
//!
//! // A cluster of one elects itself, and commits by itself.
//! let mut raft = Raft::new(Config::new(NodeId(1), [NodeId(1)]), Recovered::default())?;
//! let mut happened = VecDeque::new();
//! let mut delivered = Vec::new();
//! while delivered.is_empty() {
//!     for effect in raft.step(happened.pop_front().unwrap_or(Input::Tick)) {
//!         match effect {
//!             Effect::Persist(persist) => {
//!                 // Write it, sync it; then send what `persist.then.release()` hands out, and say:
//!                 happened.push_back(Input::Persisted { through: persist.write });
//!             }
//!             Effect::RoleChanged { role: Role::Leader, .. } => {
//!                 happened.push_back(Input::Propose(vec!["hello".into()]));
//!             }
//!             Effect::Commit(commit) => {
//!                 let commands = commit.entries.iter().filter(|e| e.kind == EntryKind::Command);
//!                 delivered.extend(commands.map(|entry| entry.data.clone()));
//!             }
//!             other => println!("{other:?}"),
//!         }
//!     }
//! }
//! assert_eq!(delivered, ["hello"]);
//! # Ok::<(), raft_core::ConfigError>(())
//! ```
//!
//! # The protocol
//!
//! **Terms.** Time is divided into [`Term`]s, and each has at most one leader (paper §5.1). Every message
//! carries its sender's term. Who sees a higher one enters it as a follower; who hears from a lower one
//! tells the sender the current one. This rule stands once, at the top of `step`, before any role sees
//! the message.
//!
//! **Roles.** A node is a [`Role::Follower`] until it has not heard from a leader for an election
//! timeout, which each node draws at random again and again so that they rarely run out together (§5.2).
//! Then it becomes a [`Role::PreCandidate`] and asks everybody with [`PreVote`] whether it would be
//! elected (thesis §9.6). This changes nobody's term, so that a node that was merely cut off cannot
//! depose a leader that the others hear. If a majority would, it becomes a [`Role::Candidate`]: it enters
//! the next term, votes for itself, and asks with [`RequestVote`]. A node votes once in a term, for a
//! candidate whose last [`LogId`] is at least its own (§5.4.1), and not at all while it hears a leader
//! (thesis §4.2.3). With the votes of a majority the candidate becomes the [`Role::Leader`].
//!
//! **The log.** The leader alone appends (§5.3). It names each [`Entry`] by a [`LogId`], term and index.
//! What [`Input::Propose`] brings goes to its disk as one [`Persist`] and at the same time to each
//! follower as one [`AppendEntries`], which names the entry `prev` right before. A follower that has
//! `prev` has the same log up to it (Log Matching). It cuts what conflicts, appends what is new, and
//! acknowledges with [`AppendResponse`] how far its log is known to match, once that is durable. A
//! follower that lacks `prev` refuses with a hint that skips a whole conflicting term, and the leader
//! tries there.
//!
//! **Feeding.** To the leader each follower is in [`PeerState::Probe`], one message at a time until one
//! is accepted, or in [`PeerState::Replicate`], where messages follow each other without waiting, up to
//! the limits of [`Config`]. Nothing is resent by a timer of its own. A [`Heartbeat`] goes out regularly;
//! if a follower has answered two of them and acknowledged nothing in between, it is asked with an empty
//! `AppendEntries` what it has. Entries that memory does not hold any more are asked for with
//! [`Effect::Read`]. A follower whose next entry is in nobody's log any more is in
//! [`PeerState::Snapshot`].
//!
//! **Commitment.** An entry that a majority has durable, the leader's own disk counted like any other, is
//! committed if it is of the leader's own term, and with it all before it (§5.4.2). So that this can
//! happen at once a new leader begins with an entry of its own, an [`EntryKind::Noop`] (§8). Followers
//! are told by whatever they are sent next, and by [`CommitAdvanced`] if nothing else is due. Each node
//! hands out with [`Effect::Commit`] what is committed *and* durable on itself.
//!
//! **Snapshots.** When the caller has a snapshot of the applied state it says so
//! ([`Input::SnapshotTaken`]), and the log's beginning goes, but for a margin, and for what followers that are
//! heard still lack (§7). A follower that needs
//! what is gone is sent the snapshot with an [`InstallSnapshot`]; the file travels as the caller pleases,
//! and when it is durable at its receiver it takes the place of that node's log, in one write, unless the
//! log has all of it already. [`Effect::Restore`] then replaces the state.
//!
//! **Membership.** Who votes and who is fed is a [`Configuration`](membership::Configuration), an entry of
//! the log like others; the last one in a node's log is in effect there, committed or not, and goes back
//! when the log is cut (§6). A change of one voter takes one entry; any other goes through a joint
//! configuration, in which both the outgoing and the incoming voters must agree ([`quorum`]), and which
//! the leader leaves as soon as it is committed. There is one change at a time, and none before an entry
//! of the leader's term is committed. Learners are fed and never counted. One that joins
//! ([`Step::Join`](membership::Step::Join)) becomes a voter when it has caught up: in rounds, the last of
//! them shorter than an election timeout (thesis §4.2.1). A node votes for whoever asks rightly, member or
//! not in its own eyes: its log may be behind. Who leaves is fed until it knows. A leader that leaves
//! leads until that is committed, without counting itself. A configuration carries what is to be known of its members,
//! addresses above all ([`Member`](membership::Member)), and how high ids have been, so that whoever gives them out
//! gives none twice ([`next_id`](membership::Configuration::next_id)).
//!
//! **Reads.** [`Input::ReadIndex`] asks, on any node, up to where the state must be applied before a read
//! may be answered. The leader notes its commit index, once an entry of its own term is committed, and
//! shows by a round of heartbeats that it still led when the read came (thesis §6.4); the reads that come
//! in meanwhile share the next round, and so do a follower's, which asks its leader with [`ReadIndex`].
//! With [`Config::lease_drift_ticks`] the leader answers by its lease: whoever answered a heartbeat helps
//! nobody else for an election timeout (§6.4.1).
//!
//! **Handing over.** [`Input::TransferLeadership`] lets a voter catch up and then tells it with
//! [`TimeoutNow`] to stand at once (thesis §3.10); it asks for pre-votes first. Meanwhile the leader takes neither commands nor reads;
//! it ends after an election timeout at the latest. A voter of higher
//! [priority](membership::Configuration::priorities) is handed the leadership by itself, and those of
//! lower priority wait longer before they stand.
//!
//! **Losing office.** A leader that sees a higher term follows. One that has not heard from a majority
//! for an election timeout steps down by itself (check-quorum, thesis §6.2), for it could commit nothing
//! and its clients should look elsewhere. So does one whose own disk has not answered for that long: its
//! heartbeats would keep everybody from electing a node that can write. When a leader's process is known
//! to be gone ([`Input::PeerGone`]) its followers stand for election without waiting for their timers.
//!
//! **Restart.** Term, vote, log and snapshot are on disk ([`Recovered`]); everything else is learnt again.
//! A node comes back as a follower that knows of no commit beyond what it has applied, and hands out its log from
//! there on as it hears how far it is committed.
//!
//! # Durable before said
//!
//! No vote and no acknowledgement may leave before what it claims is on disk, or a crash makes it a lie.
//! The types see to it. Such messages are [`DurableMessage`]s; the core hands them out only inside
//! [`Persist::then`], and only [`Withheld::release`], which the storage calls behind its sync, opens
//! that. [`OpenMessage`]s claim nothing of the disk and may leave at once.
//!
//! Several writes may be under way, first in, first out. The storage answers with the name of the last
//! one that is durable, a [`WriteId`], and not with a position in the log: a position can be written, cut
//! off and written again, and the answer to the first write must not count for the second.
//!
//! # Where it departs from the paper
//!
//! - *Messages, not calls.* Answers come late, twice, out of order or never, and are matched by what they
//!   say. A late one may cost a message; it never moves a match index back.
//! - *A heartbeat is a message of its own* and not an empty AppendEntries. Its answer claims nothing of
//!   the disk and leaves at once, so that a slow disk is not taken for a dead node.
//! - *A leader replicates while its own disk writes* (thesis §10.2.1), and counts itself only afterwards;
//!   a candidate's vote for itself counts when it is durable, too.
//! - *Committed is not enough to be handed out:* the entry must be durable on this node as well, so that
//!   no node has acted on what its own disk may forget.
//! - *An installed snapshot never keeps a part of the log.* If the log has the snapshot's last entry, nothing is
//!   installed: what the snapshot stands for is committed, and the log goes on. Else all of the log goes.
//! - *Configurations are taken for granted when appended* (as in the paper), and are sent as a whole, not as a
//!   difference, so that a node needs no history to know what holds.
//! - *Who is handed the leadership asks for pre-votes first*, which others grant although they hear the leader: a
//!   target that nobody hears deposes nobody.
//! - *A learner's request for a vote is answered like a voter's*, and who is no voter in its own log gives its
//!   vote nevertheless: the candidate counts it only if it is one in the candidate's configuration.
//! - *A leader that was removed hands over* with `TimeoutNow` to the voter with the longest log, instead of
//!   leaving the others to their timers.
//! - *A lease binds across terms.* Stickiness ends when a node enters a new term by whatever message; the
//!   promise on which a lease rests does not.
//! - *A refused term is taught with [`HeartbeatResponse`]*, whatever the question was but a pre-vote: it says
//!   "this is my term" and nothing else. A request for a vote from a higher term that finds a leader is not
//!   answered at all; its sender learns of the leader, and the leader of its term, by the next heartbeat.
//! - *Broken safety ends the node.* A leader that contradicts a committed entry cannot be while all disks keep
//!   their word. Who sees it stops ([`Effect::Halt`]) instead of choosing a side.
//! - *A second leader of a term is not heard* ([`Unsound::AnotherLeads`]). It cannot be either; but to stop at the
//!   word of one member would let that one end all the others, and a term's first leader stays its only one.
//! - *Terms end at [`Term::MAX`], and nobody leaps* ([`TERM_LEAP_MAX`]). A message from beyond is damaged.
//!
//! # What is not here
//!
//! | absent | where it is, or would come from |
//! |---|---|
//! | sessions: a command that is retried runs once | paper §8, thesis §6.3; above the core |
//! | the bytes of a snapshot, and the state | the caller's; the core knows what they stand for |
//! | dialling, certificates, who may connect | the transport; the core knows ids, and carries the rest unread |
//! | giving out ids | the caller's; a member that was removed may be added again, as far as the core is concerned |
//! | forwarding of commands to the leader | the caller's; reads are asked for on any node |
//! | clocks other than ticks | the caller turns time into [`Input::Tick`] and [`Input::Paused`] |
//! | witnesses, hierarchical quorums, several groups on one log | not planned |
//!
//! A member that lies on purpose (Byzantine) is out of scope: it can stop the cluster. What it sends makes no node
//! panic, and what shows itself to be a lie is refused as if it had never come ([`Raft::judge`]).
//!
//! # Where to read on
//!
//! The modules, in this order: [`id`](NodeId), [`entry`](Entry), [`membership`] and [`message`](Message) are
//! the words; [`effect`](Effect) is the boundary; [`config`](Config), [`recovered`](Recovered) and
//! [`status`](Status) are what a caller hands in and sees. `raft` holds what all roles share; `follower`,
//! `candidate` and `leader` are the roles; `feed`, `snapshot`, `change`, `transfer` and `reads` are what a
//! leader does beyond counting; `log`, `tail`, `roster`, `writes`, `progress` and [`quorum`] are their leaves.
//! `tests/scripts` tells the protocol as stories, with each message. The crates `sim` and `model` of the
//! same repository run these lines against lying disks and networks, and through every order of events.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// The words.
mod id;

mod entry;

pub mod membership;

mod message;

// The boundary.
mod effect;

mod config;

mod recovered;

mod status;

// The protocol.
mod raft;

mod judge;

mod follower;

mod candidate;

mod leader;

mod feed;

mod snapshot;

mod change;

mod transfer;

mod reads;

// Its leaves.
mod log;

mod tail;

mod roster;

mod writes;

mod progress;

pub mod quorum;

mod rng;

pub use config::{Config, ConfigError};
pub use effect::{
    Commit, Effect, HardState, Input, Persist, ReadFailure, ReadReady, Rejection, SnapshotWrite,
    StepDown, Withheld,
};
pub use entry::{ENTRY_OVERHEAD_BYTES, Entry, EntryKind};
pub use id::{
    ClusterId, Incarnation, LogId, LogIndex, NodeId, ReadBatch, ReadId, RequestId, Round, Term,
    WriteId,
};
pub use judge::{TERM_LEAP_MAX, Unsound};
pub use message::{
    AppendEntries, AppendOutcome, AppendResponse, CommitAdvanced, DurableMessage, Envelope,
    Heartbeat, HeartbeatResponse, InstallSnapshot, Message, OpenMessage, PreVote, PreVoteResponse,
    ReadIndex, ReadIndexResponse, RequestVote, SnapshotMeta, TimeoutNow, VoteResponse,
};
pub use raft::Raft;
pub use recovered::Recovered;
pub use status::{PeerState, PeerStatus, Role, Status, Violation};
