//! The models with bounds so small that they are walked in a moment; and that what they look for can be found.

use model::check::{Report, run};
use model::law::Event;
use model::models;
use model::node::Habits;
use model::scene::Scene;

fn scene(model: &str, name: &str) -> Scene {
    let mut found = models::select(true, Some(model), Some(name));
    assert_eq!(found.len(), 1, "{model}, {name}");
    found.remove(0)
}

fn votes(habits: Habits) -> Scene {
    Scene {
        habits,
        ..scene("election", "votes and disks")
    }
}

fn broken(report: &Report) -> &str {
    report
        .violation
        .as_ref()
        .map_or("nothing", |violation| violation.property)
}

#[test]
fn small_bounds_of_all_models_hold() {
    let mut all = models::scenes(true);
    for scene in &mut all {
        let budget = &mut scene.budget;
        // One fault of a kind and a single election: what then cannot be reached any more is not promised.
        budget.campaigns = budget.campaigns.min(1);
        budget.crashes = budget.crashes.min(1);
        budget.heartbeats = budget.heartbeats.min(1);
        budget.proposals = budget.proposals.min(1);
        budget.changes = budget.changes.min(1);
        budget.duplicates = 0;
        scene.promises.clear();
        scene.forgets = model::scene::Forgets::AllStale;
    }
    for scene in all {
        let report = run(scene);
        assert!(report.is_good(), "{report:?}");
        assert!(report.states > 10, "{report:?}");
    }
}

/// Two runs walk the same states.
#[test]
fn counts_are_the_same_twice() {
    let counts = [(); 2].map(|()| {
        let report = run(scene("reads", "read index"));
        (report.states, report.visits, report.depth)
    });
    assert_eq!(counts[0], counts[1]);
}

/// The bug: a disk lets messages go when it begins to write. A vote is heard, and the crash that follows
/// forgets it; after the start the node votes once more (Raft §5.2).
#[test]
fn a_disk_that_answers_before_it_syncs_votes_twice() {
    let habits = Habits {
        hasty_disks: true,
        lies_overlooked: true,
        pre_votes_granted: true,
        ..Habits::default()
    };
    let report = run(votes(habits));
    assert_eq!(broken(&report), "one-vote", "{report:?}");
    let path = report
        .violation
        .map(|violation| violation.path)
        .unwrap_or_default();
    assert!(
        path.iter()
            .any(|line| line.contains("crashes, and starts again")),
        "{path:#?}"
    );
}

/// The same bug is seen at once where claims are held against the disk.
#[test]
fn a_disk_that_answers_before_it_syncs_is_caught_in_the_act() {
    let habits = Habits {
        hasty_disks: true,
        pre_votes_granted: true,
        ..Habits::default()
    };
    assert_eq!(broken(&run(votes(habits))), "durable-before-said");
}

/// A model that does not reach what it promises fails.
#[test]
fn what_is_promised_and_not_reached_is_a_failure() {
    let mut scene = scene("replication", "figure 8");
    scene.budget.campaigns = 1;
    scene.promises = vec![Event::Elected, Event::SnapshotInstalled];
    let report = run(scene);
    assert!(
        !report.is_good() && report.violation.is_none(),
        "{report:?}"
    );
    let missed: Vec<_> = report
        .properties
        .iter()
        .filter(|verdict| !verdict.good)
        .collect();
    assert_eq!(missed.len(), 1, "{missed:?}");
}
