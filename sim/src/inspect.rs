//! What must hold of a node after each of its steps.
//!
//! Invariants, by name:
//! - `core-invariants`: the core's own.
//! - `never-back`: term, commit index, what is handed out, snapshot and start of the log.
//! - `order`: start of the log ≤ snapshot ≤ handed out ≤ commit ≤ last.
//! - `log-as-written`: the log and the configuration that the node believes in are those that it wrote.
//! - `durable-is-durable`: what it takes for durable is on its disk.
//! - `disk-is-awaited`: what its disk confirms has an effect only if it was said to wait for that.
//! - `match-is-durable`: so is what a leader takes for matched, on a peer of the same term.
//! - `limits`: what is under way, and what is not committed.
//! - `pre-vote-leaves-no-mark`: a pre-vote changes no term and writes nothing.
//! - `leader-kept`: a follower forgets its leader only when that is silent for the shortest election timeout, when its
//!   process is gone, for a higher term, or when it was told to stand itself; and grants no pre-vote before. So an
//!   election that comes early deposes no leader whom a majority hears: whoever hears it elects nobody.
//! - `isolated-leader`: a leader that hears no majority steps down within two election timeouts.
//! - `stuck-disk`: a leader whose disk does not answer for an election timeout steps down.
//! - `read-is-answered`, `transfer-ends`: in time.

use raft_core::{Effect, LogIndex, OpenMessage, PeerState, Role};

use crate::broken::{Broken, Check, hold};
use crate::node::Seen;
use crate::sets::{Quorums, Set};
use crate::step::{About, Kind};
use crate::world::World;

impl World {
    pub(crate) fn inspect(&mut self, n: usize, about: &About, effects: &[Effect]) -> Check {
        let node = &self.nodes[n];
        let (id, run) = (node.id, node.run.as_ref().unwrap());
        if let Err(violation) = run.raft.invariants() {
            return Err(Broken {
                invariant: "core-invariants",
                detail: format!("node {id}: {violation}"),
            });
        }
        self.check_order(n, about)?;
        let wrote = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Persist(_)));
        if wrote {
            self.check_log(n)?;
        }
        self.check_durable(n)?;
        hold!(
            about.kind != Kind::Persisted || about.awaits_disk || effects.is_empty(),
            "disk-is-awaited",
            "node {id} did not wait for its disk, which led to {effects:?}"
        );
        self.check_pre_vote(n, about, wrote)?;
        self.check_leader_kept(n, about, effects)?;
        if self.nodes[n].run.as_ref().unwrap().raft.role() == Role::Leader {
            self.check_leader(n, about)?;
        }
        if about.kind == Kind::Tick {
            self.check_patience(n)?;
        }
        Ok(())
    }

    fn check_order(&self, n: usize, about: &About) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let (old, new) = (about.before, Seen::of(&run.raft));
        hold!(
            new.term >= old.term
                && new.commit >= old.commit
                && new.handed_out >= old.handed_out
                && new.snapshot >= old.snapshot
                && new.log_start >= old.log_start,
            "never-back",
            "node {id} goes from {old:?} to {new:?}"
        );
        let last = run.raft.last().index;
        hold!(
            new.log_start <= new.snapshot
                && (new.snapshot <= new.handed_out
                    || run.installing.is_some()
                    || about.kind == Kind::Persisted)
                && new.handed_out <= new.commit
                && new.commit <= last
                && run.machine.applied <= new.handed_out,
            "order",
            "node {id}: {new:?}, applied {}, last {last}",
            run.machine.applied
        );
        Ok(())
    }

    fn check_log(&self, n: usize) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let (raft, shadow) = (&run.raft, &run.shadow);
        hold!(
            raft.last() == shadow.last() && raft.log_start() == shadow.start(),
            "log-as-written",
            "node {id} believes in a log from {} to {}, and wrote one from {} to {}",
            raft.log_start(),
            raft.last(),
            shadow.start(),
            shadow.last()
        );
        hold!(
            raft.configuration() == shadow.configuration(),
            "configuration-in-effect",
            "node {id} follows {}, and {} is the last in its log",
            raft.configuration(),
            shadow.configuration()
        );
        Ok(())
    }

    fn check_durable(&self, n: usize) -> Check {
        let node = &self.nodes[n];
        let run = node.run.as_ref().unwrap();
        let durable = run.raft.durable();
        let entry = run.shadow.id(durable);
        hold!(
            durable <= node.disk.last().index.max(run.shadow.start().index)
                && entry.is_none_or(|entry| node.disk.holds(entry) || entry == run.shadow.start()),
            "durable-is-durable",
            "node {} takes {durable} ({entry:?}) for durable, and its disk ends at {}",
            node.id,
            node.disk.last()
        );
        Ok(())
    }

    fn check_pre_vote(&self, n: usize, about: &About, wrote: bool) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let same = run.raft.term() == about.before.term && !wrote;
        let asked = matches!(about.kind, Kind::PreVote { .. })
            || about.kind == Kind::PreVoteGranted && about.before.role != Role::PreCandidate;
        hold!(
            same || !asked,
            "pre-vote-leaves-no-mark",
            "node {id} answers a pre-vote with a write or a term"
        );
        let asks = run.raft.role() == Role::PreCandidate && about.before.role != Role::PreCandidate;
        let alone = matches!(about.kind, Kind::Tick | Kind::Campaign | Kind::Gone);
        hold!(
            same || !(asks && alone),
            "pre-vote-leaves-no-mark",
            "node {id} asks for pre-votes with a write or a term"
        );
        Ok(())
    }

    fn check_leader_kept(&mut self, n: usize, about: &About, effects: &[Effect]) -> Check {
        let node = &mut self.nodes[n];
        let (id, run) = (node.id, node.run.as_mut().unwrap());
        let (before, leader) = (about.before, run.raft.leader());
        let same_term = run.raft.term() == before.term;
        if about.is_from_leader() && leader.is_some() && about.message_term == Some(run.raft.term())
        {
            run.followed = run.ticks;
        }
        let Some(followed) = about.leader.filter(|leader| same_term && *leader != id) else {
            return Ok(());
        };
        let silent = run.ticks - run.followed;
        let waits = silent < u64::from(self.fate.timeout.0);
        let forgets = leader.is_none();
        // Whom its leader has told to stand hears it, and goes on asking until the timer takes over.
        let stands = before.role == Role::PreCandidate;
        let told = stands || about.kind == Kind::Campaign || about.gone == Some(followed);
        hold!(
            !(forgets && waits && !told),
            "leader-kept",
            "node {id} forgets its leader {followed} after {silent} ticks, on {:?}",
            about.kind
        );
        let granted = |effect: &Effect| matches!(effect, Effect::Send { message: OpenMessage::PreVoteResponse(m), .. } if m.granted);
        let binds = about.kind == Kind::PreVote { transfer: false };
        let to_leader =
            |effect: &Effect| matches!(effect, Effect::Send { to, .. } if *to == followed);
        let grants = effects.iter().any(|e| granted(e) && !to_leader(e));
        hold!(
            !(binds && grants && waits),
            "leader-kept",
            "node {id} grants a pre-vote {silent} ticks after it heard its leader {followed}"
        );
        Ok(())
    }

    fn check_leader(&mut self, n: usize, about: &About) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let (term, commit) = (run.raft.term(), run.raft.commit());
        self.history.check_changes(term, commit)?;
        for peer in &run.raft.status().peers {
            let most = match peer.state {
                PeerState::Probe => 1,
                PeerState::Replicate => self.fate.sizes.inflight,
                PeerState::Snapshot => self.fate.sizes.inflight,
            };
            hold!(
                peer.inflight <= most,
                "limits",
                "leader {id} has {} messages under way to {} in {:?}",
                peer.inflight,
                peer.id,
                peer.state
            );
            if peer.matched > LogIndex::ZERO {
                self.check_match(n, peer.id, peer.matched)?;
            }
        }
        if about.kind == Kind::Tick {
            self.check_isolation(n)?;
            self.check_disk(n)?;
        }
        Ok(())
    }

    fn check_match(&self, n: usize, peer: raft_core::NodeId, matched: LogIndex) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let (term, disk) = (run.raft.term(), &self.nodes[peer.0 as usize - 1].disk);
        let peer_term = disk.hard_state.term;
        hold!(
            peer_term >= term,
            "match-is-durable",
            "leader {id} of term {term} takes {matched} of {peer} for matched, whose disk knows term {peer_term}"
        );
        if peer_term == term {
            let entry = run.shadow.id(matched);
            hold!(
                entry.is_none_or(|entry| disk.holds(entry)) && disk.last().index >= matched,
                "match-is-durable",
                "leader {id} of term {term} takes {entry:?} of {peer} for matched, whose disk ends at {}",
                disk.last()
            );
        }
        Ok(())
    }

    fn check_isolation(&self, n: usize) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let patience = 2 * u64::from(self.fate.timeout.0) + 1;
        if run.ticks < run.settled + patience {
            return Ok(());
        }
        let quorums = Quorums::of(run.raft.configuration());
        let mut heard = Set::default();
        for (other, at) in self.nodes.iter().zip(&run.heard) {
            if *at > 0 && at + patience > run.ticks {
                heard.insert(other.id);
            }
        }
        heard.insert(id);
        hold!(
            quorums.decide(heard),
            "isolated-leader",
            "node {id} still leads and has heard of {:?} only in {patience} ticks",
            heard.ids().collect::<Vec<_>>()
        );
        Ok(())
    }

    fn check_disk(&self, n: usize) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let patience = u64::from(self.fate.timeout.0) + 1;
        let oldest = run
            .unfinished
            .front()
            .filter(|(_, since)| run.finished.max(*since) + patience < run.ticks);
        hold!(
            oldest.is_none(),
            "stuck-disk",
            "node {id} still leads at tick {}, and its write {oldest:?} is not done",
            run.ticks
        );
        Ok(())
    }

    fn check_patience(&self, n: usize) -> Check {
        let (id, run) = (self.nodes[n].id, self.nodes[n].run.as_ref().unwrap());
        let longest = u64::from(self.fate.timeout.1);
        let late = |asked: &&crate::node::Reading| asked.asked_tick + 2 * longest + 2 < run.ticks;
        let late = run.reads.iter().find(late);
        hold!(
            late.is_none(),
            "read-is-answered",
            "node {id} never answers {late:?}, at tick {}",
            run.ticks
        );
        let late = run
            .transfer
            .filter(|(_, since, _)| since + longest + 1 < run.ticks);
        hold!(
            late.is_none(),
            "transfer-ends",
            "node {id} still hands over: {late:?}, at tick {}",
            run.ticks
        );
        Ok(())
    }
}
