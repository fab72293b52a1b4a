//! One word for those who must decide without understanding: load balancers and supervisors.

use actix::prelude::*;
use raft_core::NodeId;

use crate::{NodeFailure, NodeView, Phase, RaftActor};

/// How many committed entries may wait to be applied on a node that is ready: what a busy cluster commits in a
/// fraction of a second.
const UNAPPLIED_MAX: u64 = 10_000;

/// Can the node be used, and should its process be kept?
///
/// The answer costs a look at what is known, asks neither disk nor network, and comes also when the node's
/// actor is dead. If none comes within a second, the node's thread hangs: take that as neither
/// live nor ready.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "Health")]
pub struct GetHealth;

/// The answer to [`GetHealth`].
///
/// - A supervisor that restarts what is broken looks at [`live`](Self::live). It is true of a node that waits
///   for others, lags or shuts down: a restart would help none of these.
/// - A load balancer looks at [`ready`](Self::ready). It is true where proposals are taken
///   and reads are fresh, on followers as well as on the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The node has not failed. One that has never recovers by itself: restart the process, or look at why.
    pub live: bool,
    /// The node takes part, knows a leader, and has applied what it knows to be committed but for 10,000
    /// entries. Exactly when [`why`](Self::why) is none.
    pub ready: bool,
    /// The leader, where it is known.
    pub leader: Option<NodeId>,
    /// Why it is not ready.
    pub why: Option<NotReady>,
}

/// Why a node should not be asked anything now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Its folder is new, and these have not answered yet.
    #[error("waiting for {}", crate::config::check::ids(.waiting_for))]
    Forming {
        /// They.
        waiting_for: Vec<NodeId>,
    },
    /// There is an election, or this node is cut off.
    #[error("no leader is known")]
    NoLeader,
    /// It has not applied yet what is committed.
    #[error("{unapplied} committed entries are not applied yet")]
    Lagging {
        /// How many entries.
        unapplied: u64,
    },
    /// It is leaving the cluster.
    #[error("the node is leaving the cluster")]
    Leaving,
    /// It is being shut down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// It has failed.
    #[error("the node has failed: {0}")]
    Failed(NodeFailure),
}

impl Health {
    /// Of a node with this view and as many committed entries that are not applied.
    pub(crate) fn of(view: &NodeView, unapplied: u64) -> Self {
        let why = match &view.phase {
            Phase::Forming { waiting_for } => Some(NotReady::Forming {
                waiting_for: waiting_for.iter().map(|(id, _)| *id).collect(),
            }),
            Phase::Leaving => Some(NotReady::Leaving),
            Phase::ShuttingDown => Some(NotReady::ShuttingDown),
            Phase::Failed(failure) => Some(NotReady::Failed(failure.clone())),
            Phase::Running if view.leader.is_none() => Some(NotReady::NoLeader),
            Phase::Running if unapplied > UNAPPLIED_MAX => Some(NotReady::Lagging { unapplied }),
            Phase::Running => None,
        };
        Self {
            live: !matches!(view.phase, Phase::Failed(_)),
            ready: why.is_none(),
            leader: view.leader,
            why,
        }
    }
}

impl Handler<GetHealth> for RaftActor {
    type Result = MessageResult<GetHealth>;

    fn handle(&mut self, _: GetHealth, ctx: &mut Self::Context) -> Self::Result {
        self.breathe(ctx);
        // It need not wait for the next look, a tenth of a second away.
        self.watch_node();
        MessageResult(self.observed.health())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> NodeView {
        NodeView {
            phase: Phase::Running,
            leader: Some(NodeId(2)),
            ..NodeView::unborn()
        }
    }

    fn of(phase: Phase) -> Health {
        Health::of(&NodeView { phase, ..running() }, 0)
    }

    #[test]
    fn a_node_that_takes_part_knows_a_leader_and_keeps_up_is_ready() {
        let health = Health::of(&running(), UNAPPLIED_MAX);
        let leader = Some(NodeId(2));
        let ready = Health {
            live: true,
            ready: true,
            leader,
            why: None,
        };
        assert_eq!(health, ready);
    }

    #[test]
    fn whatever_is_in_the_way_is_named_and_only_a_failure_is_death() {
        let lagging = Health::of(&running(), UNAPPLIED_MAX + 1);
        let no_leader = Health::of(
            &NodeView {
                leader: None,
                ..running()
            },
            0,
        );
        let forming = of(Phase::Forming {
            waiting_for: vec![(NodeId(3), "no answer yet".into())],
        });
        for (health, why) in [
            (lagging, "10001 committed entries are not applied yet"),
            (no_leader, "no leader is known"),
            (forming, "waiting for 3"),
            (of(Phase::Leaving), "the node is leaving the cluster"),
            (of(Phase::ShuttingDown), "the node is shutting down"),
        ] {
            assert!(health.live && !health.ready, "{health:?}");
            assert_eq!(health.why.unwrap().to_string(), why);
        }
        let failed = of(Phase::Failed(NodeFailure::PartStopped("delivery")));
        assert!(!failed.live && !failed.ready, "{failed:?}");
        assert!(
            failed
                .why
                .unwrap()
                .to_string()
                .starts_with("the node has failed: delivery")
        );
    }

    /// Ends the node's actor, as a bug would.
    #[derive(Message)]
    #[rtype(result = "()")]
    struct Panic;

    impl Handler<Panic> for crate::node::Node {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("as the test wants it");
        }
    }

    impl Handler<Panic> for RaftActor {
        type Result = ();

        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            self.node.do_send(Panic);
        }
    }

    #[actix::test]
    async fn a_dead_node_is_answered_for() {
        let port = 11_000 + std::process::id() % 1_000;
        let config = crate::Config::new(NodeId(1))
            .peers([(NodeId(1), format!("127.0.0.1:{port}"))])
            .memory(crate::MemoryDisk::new());
        let raft = RaftActor::spawn(config).unwrap();
        let mut views = raft.send(crate::Watch).await.unwrap();
        views.wait_for(|view| view.leader.is_some()).await.unwrap();
        assert!(raft.send(GetHealth).await.unwrap().ready);
        raft.do_send(Panic);
        let failed = |view: &NodeView| matches!(view.phase, Phase::Failed(_));
        let seen = tokio::time::timeout(std::time::Duration::from_secs(10), views.wait_for(failed));
        seen.await.expect("the failure was not shown").unwrap();
        let health = raft.send(GetHealth).await.unwrap();
        assert!(
            !health.live && !health.ready && health.leader.is_none(),
            "{health:?}"
        );
        raft.send(crate::Shutdown).await.unwrap().unwrap_err();
    }
}
