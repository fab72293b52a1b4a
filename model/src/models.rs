//! The five models, each one or several scenes.

use raft_core::NodeId;
use raft_core::membership::{Change, Step};

use crate::action::Action;
use crate::bounds::Budget;
use crate::law::Event::*;
use crate::node::Habits;
use crate::scene::{Forgets, Scene};
use crate::silence::{self, Silence};

/// The names of the models.
pub const NAMES: [&str; 5] = ["election", "replication", "snapshot", "membership", "reads"];

/// Writes are durable at once, and pre-votes are granted.
const SYNCED: Habits = Habits {
    syncs_at_once: true,
    pre_votes_granted: true,
    hasty_disks: false,
    lies_overlooked: false,
};

/// All scenes, with small bounds if `quick`.
#[must_use]
pub fn scenes(quick: bool) -> Vec<Scene> {
    let all = [
        election(quick),
        replication(quick),
        snapshot(quick),
        membership(quick),
        reads(quick),
    ];
    let scenes = all.into_iter().flatten();
    scenes.map(|scene| Scene { quick, ..scene }).collect()
}

/// The scenes of the model that is named, and of these the one that is named.
#[must_use]
pub fn select(quick: bool, model: Option<&str>, scene: Option<&str>) -> Vec<Scene> {
    let mut scenes = scenes(quick);
    scenes.retain(|s| model.is_none_or(|name| s.model == name));
    scenes.retain(|s| scene.is_none_or(|name| s.name == name));
    scenes
}

fn campaign(id: u64) -> Action {
    Action::Campaign(NodeId(id))
}

fn propose(id: u64) -> Action {
    Action::Propose(NodeId(id))
}

/// Node 1 leads, and everybody knows.
fn node_1_leads() -> Vec<(Action, Silence)> {
    vec![(campaign(1), silence::nothing)]
}

/// Who votes for whom, with disks that forget.
fn election(quick: bool) -> Vec<Scene> {
    let pick = |small: u8, large: u8| if quick { small } else { large };
    let votes = Scene {
        term_max: 3,
        candidates: &[1, 2],
        silence: silence::leaders,
        forgets: Forgets::Nothing,
        budget: Budget {
            campaigns: pick(2, 3),
            crashes: 1,
            duplicates: 1,
            ..Budget::default()
        },
        syncs_first_alone: true,
        crash_keeps: true,
        promises: vec![
            Elected,
            ElectedAgain,
            SplitVote,
            VoteRefused,
            LostVote,
            KeptWrite,
            Duplicated,
            Batched,
        ],
        ..Scene::new("election", "votes and disks")
    };
    let pre_votes = Scene {
        habits: Habits {
            pre_votes_granted: false,
            ..SYNCED
        },
        forgets: if quick {
            Forgets::AllStale
        } else {
            Forgets::StaleAnswers
        },
        silence: silence::commits,
        budget: Budget {
            campaigns: 2,
            ..Budget::default()
        },
        promises: vec![Elected, ElectedAgain, VoteRefused],
        ..Scene::new("election", "pre-votes")
    };
    vec![votes, pre_votes]
}

/// Logs that differ, and become one.
fn replication(quick: bool) -> Vec<Scene> {
    let pick = |small: u8, large: u8| if quick { small } else { large };
    let disks = Scene {
        prologue: node_1_leads(),
        candidates: if quick { &[2] } else { &[1, 2] },
        budget: Budget {
            campaigns: 1,
            proposals: 1,
            crashes: 1,
            ..Budget::default()
        },
        syncs_first_alone: true,
        crash_keeps: true,
        promises: vec![
            Elected,
            Committed,
            LostEntries,
            KeptWrite,
            Batched,
            Overwritten,
        ],
        ..Scene::new("replication", "disks")
    };
    // An entry is cut off and another one written in its place before the first is durable.
    let rewritten = Scene {
        prologue: node_1_leads(),
        candidates: &[2],
        silence: silence::commits,
        forgets: Forgets::AllStale,
        budget: Budget {
            campaigns: 1,
            proposals: pick(1, 2),
            ..Budget::default()
        },
        syncs_first_alone: true,
        promises: vec![Elected, Committed, Batched, Overwritten, DurableOverwritten],
        ..Scene::new("replication", "writes behind each other")
    };
    let suffixes = Scene {
        prologue: node_1_leads(),
        habits: SYNCED,
        forgets: Forgets::Nothing,
        candidates: &[2],
        tail_bytes_max: 0,
        append_entries_max: 1,
        silence: silence::commits,
        budget: Budget {
            campaigns: 1,
            proposals: pick(1, 2),
            duplicates: 0,
            ..Budget::default()
        },
        promises: vec![
            Elected,
            DurableOverwritten,
            AppendRefused,
            ReadFromDisk,
            OlderTermCommitted,
        ],
        ..Scene::new("replication", "conflicting suffixes")
    };
    // Node 1 led term 1 and node 3 term 2, and each has its first entry for itself.
    let crash = |id| (Action::Crash(NodeId(id), 0), silence::leaders as Silence);
    let mut two_led = vec![(campaign(1), silence::leaders as Silence), crash(1)];
    two_led.extend([(campaign(3), silence::leaders as Silence), crash(3)]);
    let figure8 = Scene {
        prologue: two_led,
        habits: SYNCED,
        candidates: &[1, 3],
        append_entries_max: 1,
        silence: silence::commits,
        forgets: if quick {
            Forgets::StaleAnswers
        } else {
            Forgets::Nothing
        },
        budget: Budget {
            campaigns: 2,
            ..Budget::default()
        },
        promises: vec![
            Elected,
            ElectedThrice,
            Overwritten,
            DurableOverwritten,
            OlderTermCommitted,
            OlderTermWaits,
        ],
        ..Scene::new("replication", "figure 8")
    };
    let in_turn = Scene {
        habits: SYNCED,
        candidates: &[1, 3],
        append_entries_max: 1,
        forgets: Forgets::AllStale,
        silence: silence::commits,
        budget: Budget {
            campaigns: pick(3, 4),
            ..Budget::default()
        },
        promises: vec![
            Elected,
            ElectedAgain,
            ElectedThrice,
            Overwritten,
            OlderTermCommitted,
            OlderTermWaits,
        ],
        ..Scene::new("replication", "leaders in turn")
    };
    vec![disks, rewritten, suffixes, figure8, in_turn]
}

/// Logs that are cut at the front.
fn snapshot(quick: bool) -> Vec<Scene> {
    let pick = |small: u8, large: u8| if quick { small } else { large };
    // Node 3 lacks what the others have compacted.
    let mut behind = node_1_leads();
    behind.push((propose(1), silence::node_3));
    behind.push((Action::TakeSnapshot(NodeId(1)), silence::node_3));
    behind.push((propose(1), silence::node_3));
    let install = Scene {
        prologue: behind.clone(),
        candidates: &[2],
        mortals: if quick { &[3] } else { &[1, 3] },
        savers: &[2, 3],
        forgets: Forgets::AllStale,
        silence: silence::commits,
        budget: Budget {
            proposals: pick(0, 1),
            crashes: 1,
            lost_snapshots: 1,
            heartbeats: 2,
            ..Budget::default()
        },
        crash_keeps: true,
        promises: vec![
            SnapshotSent,
            SnapshotLost,
            SnapshotInstalled,
            InstallLost,
            InstallKept,
            FedAfterSnapshot,
        ],
        ..Scene::new("snapshot", "install on a disk")
    };
    // Node 3 led first, and has entries that nobody else ever saw.
    let mut contradicts = vec![(campaign(3), silence::leaders as Silence)];
    contradicts.push((propose(3), silence::node_3));
    contradicts.push((propose(3), silence::node_3));
    contradicts.push((campaign(1), silence::node_3));
    contradicts.push((propose(1), silence::node_3));
    let conflict = Scene {
        prologue: contradicts,
        habits: SYNCED,
        candidates: &[2, 3],
        savers: &[1, 2],
        forgets: if quick {
            Forgets::AllStale
        } else {
            Forgets::Nothing
        },
        silence: silence::commits,
        budget: Budget {
            campaigns: 1,
            proposals: pick(0, 1),
            snapshots: 1,
            heartbeats: 1,
            ..Budget::default()
        },
        promises: vec![Compacted, SnapshotSent, SnapshotInstalled, SnapshotReplaced],
        ..Scene::new("snapshot", "against a conflicting log")
    };
    // Node 3 lacks an entry that the leader no longer has in memory, but on its disk.
    let mut on_disk = node_1_leads();
    on_disk.push((propose(1), silence::node_3));
    let under_way = Scene {
        prologue: on_disk,
        savers: if quick { &[1] } else { &[1, 2] },
        habits: SYNCED,
        candidates: &[2],
        tail_bytes_max: 0,
        append_entries_max: 1,
        forgets: Forgets::AllStale,
        budget: Budget {
            proposals: pick(0, 1),
            snapshots: 1,
            heartbeats: 2,
            ..Budget::default()
        },
        promises: vec![
            Compacted,
            ReadFromDisk,
            ReadCompacted,
            SnapshotSent,
            SnapshotInstalled,
        ],
        ..Scene::new("snapshot", "compaction under a read")
    };
    vec![install, conflict, under_way]
}

/// Members that come and go.
fn membership(quick: bool) -> Vec<Scene> {
    let pick = |small: u8, large: u8| if quick { small } else { large };
    let (add, remove) = (Step::AddVoter, Step::Remove);
    let simple = Scene {
        nodes: 4,
        prologue: node_1_leads(),
        candidates: &[2],
        mortals: &[1],
        silence: silence::commits,
        habits: SYNCED,
        forgets: Forgets::AllStale,
        budget: Budget {
            campaigns: 1,
            changes: pick(1, 2),
            crashes: pick(0, 1),
            ..Budget::default()
        },
        changes: vec![
            Change::Simple(vec![add(NodeId(4))]),
            Change::Simple(vec![remove(NodeId(1))]),
        ],
        promises: vec![VoterAdded, ChangeRolledBack, LeaderRemoved, ElectedAgain],
        ..Scene::new("membership", "one at a time")
    };
    let joint = Scene {
        nodes: 4,
        prologue: node_1_leads(),
        candidates: &[2],
        habits: SYNCED,
        forgets: Forgets::AllStale,
        silence: silence::commits,
        budget: Budget {
            campaigns: 1,
            changes: pick(1, 2),
            ..Budget::default()
        },
        changes: vec![
            Change::Auto(vec![remove(NodeId(1)), add(NodeId(4))]),
            Change::EnterJoint {
                steps: vec![Step::AddLearner(NodeId(3)), add(NodeId(4))],
                auto_leave: false,
            },
            Change::LeaveJoint,
        ],
        promises: vec![
            JointCommitted,
            JointElected,
            JointLeft,
            VoterAdded,
            ChangeRolledBack,
        ],
        ..Scene::new("membership", "joint")
    };
    let learner = Scene {
        voters: &[1, 2],
        prologue: node_1_leads(),
        candidates: if quick { &[2] } else { &[2, 3] },
        mortals: &[1, 2],
        habits: SYNCED,
        forgets: Forgets::AllStale,
        budget: Budget {
            campaigns: 1,
            changes: 1,
            heartbeats: 1,
            crashes: pick(0, 1),
            proposals: 0,
            ..Budget::default()
        },
        changes: vec![Change::Simple(vec![Step::Join(NodeId(3))])],
        promises: vec![LearnerPromoted, UnawareVote, VoterAdded, ElectedAgain],
        ..Scene::new("membership", "learner")
    };
    vec![simple, joint, learner]
}

/// Reads that see all that was written before them, and leaders that hand over.
fn reads(quick: bool) -> Vec<Scene> {
    let pick = |small: u8, large: u8| if quick { small } else { large };
    let mut begun = node_1_leads();
    begun.push((propose(1), silence::nothing));
    let index = Scene {
        prologue: begun.clone(),
        habits: SYNCED,
        candidates: &[2],
        readers: &[1, 3],
        forgets: Forgets::AllStale,
        silence: silence::commits,
        budget: Budget {
            campaigns: 1,
            proposals: 1,
            reads: pick(1, 2),
            ..Budget::default()
        },
        promises: vec![ReadByLeader, ReadByFollower, ReadInLaterTerm, ReadOfDeposed],
        ..Scene::new("reads", "read index")
    };
    let crash = Scene {
        prologue: begun.clone(),
        habits: SYNCED,
        readers: if quick { &[3] } else { &[2, 3] },
        mortals: &[3],
        budget: Budget {
            proposals: pick(1, 0),
            reads: 2,
            crashes: pick(1, 2),
            duplicates: pick(0, 1),
            ..Budget::default()
        },
        silence: silence::commits,
        promises: vec![ReadByFollower],
        ..Scene::new("reads", "a reader that crashes")
    };
    let transfer = Scene {
        prologue: begun,
        habits: SYNCED,
        candidates: &[],
        readers: &[1, 2],
        forgets: Forgets::AllStale,
        silence: if quick {
            silence::commits
        } else {
            silence::nothing
        },
        budget: Budget {
            proposals: 1,
            transfers: 1,
            reads: 1,
            ..Budget::default()
        },
        promises: vec![
            TimeoutNow,
            TransferVote,
            ElectedAgain,
            ReadByLeader,
            ReadByFollower,
        ],
        ..Scene::new("reads", "transfer")
    };
    vec![index, crash, transfer]
}
