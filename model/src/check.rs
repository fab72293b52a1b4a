//! Runs the models, and says what came of it.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::action::Action;
use crate::cluster::{Cluster, State};
use crate::figures;
use crate::law::Broken;
use crate::scene::Scene;

/// What came of one scene.
#[derive(Debug)]
pub struct Report {
    /// The model.
    pub model: &'static str,
    /// The scene.
    pub scene: &'static str,
    /// Whether its bounds were the small ones.
    pub quick: bool,
    /// How many different states there were.
    pub states: u64,
    /// How often a state was come to, the same ones again included.
    pub visits: u64,
    /// The length of the longest way without a detour.
    pub depth: u64,
    /// How long it took.
    pub time: Duration,
    /// What must never and what must once be found, and whether it is as it must be.
    pub properties: Vec<Verdict>,
    /// How a law was broken.
    pub violation: Option<Violation>,
    /// How many different nodes there were, and different steps of nodes.
    pub worked_out: (usize, usize),
}

/// What came of one property.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Its name.
    pub name: &'static str,
    /// Whether it must hold always; if not, once.
    pub always: bool,
    /// Whether it is as it must be.
    pub good: bool,
}

/// A law that does not hold.
#[derive(Debug)]
pub struct Violation {
    /// The law's name.
    pub property: &'static str,
    /// What holds instead.
    pub by: String,
    /// The way there, one action in each line, between the first state and the last one.
    pub path: Vec<String>,
}

impl Report {
    /// Whether everything is as it must be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.violation.is_none() && self.properties.iter().all(|verdict| verdict.good)
    }

    fn print(&self) {
        let Self {
            model,
            scene,
            states,
            visits,
            depth,
            time,
            worked_out,
            ..
        } = self;
        println!(
            "{model}, {scene}: {states} states, depth {depth}, {:.1} s",
            time.as_secs_f64()
        );
        let (nodes, steps) = worked_out;
        println!(
            "  {visits} visits, made of {nodes} different nodes and {steps} different steps of theirs"
        );
        for verdict in &self.properties {
            println!("  {verdict}");
        }
        if let Some(violation) = &self.violation {
            println!("{} is broken: {}", violation.property, violation.by);
            for line in &violation.path {
                println!("{line}");
            }
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, result) = match (self.always, self.good) {
            (true, true) => ("always   ", "holds"),
            (true, false) => ("always   ", "BROKEN"),
            (false, true) => ("sometimes", "reached"),
            (false, false) => ("sometimes", "MISSED"),
        };
        write!(f, "{what} {}: {result}", self.name)
    }
}

/// Walks every state of `scene`, on one thread: a broken law is then found by a shortest way, and by the same
/// one each time.
#[must_use]
pub fn run(scene: Scene) -> Report {
    let (model, name, quick, begin) = (scene.model, scene.name, scene.quick, Instant::now());
    let cluster = match Cluster::new(scene) {
        Ok(cluster) => cluster,
        Err(broken) => return broken_before(model, name, broken),
    };
    let checker = cluster
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found = checker.discoveries();
    let properties = checker.model().properties().into_iter().map(|property| {
        let always = matches!(property.expectation, Expectation::Always);
        let name = property.name;
        Verdict {
            name,
            always,
            good: found.contains_key(name) != always,
        }
    });
    let properties: Vec<Verdict> = properties.collect();
    let broken = properties
        .iter()
        .find(|verdict| verdict.always && !verdict.good);
    let violation = broken.map(|verdict| {
        let path = found[verdict.name].clone();
        let by = path.last_state().broken().map(|broken| broken.by.clone());
        let (property, by) = (verdict.name, by.unwrap_or_default());
        Violation {
            property,
            by,
            path: tell(&path.into_vec()),
        }
    });
    Report {
        model,
        scene: name,
        quick,
        states: checker.unique_state_count() as u64,
        visits: checker.state_count() as u64,
        depth: checker.max_depth() as u64,
        time: begin.elapsed(),
        properties,
        violation,
        worked_out: checker.model().worked_out(),
    }
}

/// A scene that cannot begin, because what it takes for granted breaks a law already.
fn broken_before(model: &'static str, scene: &'static str, broken: Broken) -> Report {
    let path = vec!["in what the scene takes for granted, before it begins".to_owned()];
    let property = broken.law.name();
    Report {
        model,
        scene,
        quick: false,
        states: 0,
        visits: 0,
        depth: 0,
        time: Duration::ZERO,
        properties: Vec::new(),
        violation: Some(Violation {
            property,
            by: broken.by,
            path,
        }),
        worked_out: (0, 0),
    }
}

/// The way to a state, one action in each line, between its ends.
fn tell(path: &[(State, Option<Action>)]) -> Vec<String> {
    let whole = |state: Option<&(State, Option<Action>)>| -> Vec<String> {
        let state = state
            .map(|(state, _)| format!("{state:?}"))
            .unwrap_or_default();
        state.lines().map(|line| format!("  {line}")).collect()
    };
    let actions = path.iter().filter_map(|(_, action)| action.as_ref());
    let actions = actions
        .zip(1..)
        .map(|(action, n)| format!("{n:4}. {action:?}"));
    let mut lines = whole(path.first());
    lines.extend(actions);
    lines.extend(whole(path.last()));
    lines
}

/// Walks all `scenes`, so many at a time, and prints what comes of each. Ends the program at the first law that
/// is broken: what else is under way does not matter any more.
///
/// # Errors
/// The figures cannot be written.
pub fn run_all(scenes: Vec<Scene>, threads: usize) -> Result<ExitCode> {
    let begin = Instant::now();
    // A panic of the core is a broken law, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    let waiting = Mutex::new(VecDeque::from(scenes));
    let (done, reports) = mpsc::channel();
    let mut all = Vec::new();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (waiting, done) = (&waiting, done.clone());
            scope.spawn(move || {
                let next = || {
                    waiting
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front()
                };
                while let Some(scene) = next() {
                    if done.send(run(scene)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        for report in reports {
            report.print();
            if let Some(violation) = &report.violation {
                let (model, property) = (report.model, violation.property);
                figures::violated();
                println!("VIOLATION model={model} property={property}");
                std::process::exit(1);
            }
            all.push(report);
        }
    });
    let complete = figures::write(&all, begin.elapsed())?;
    let missed = all
        .iter()
        .flat_map(|report| report.properties.iter().map(move |v| (report, v)));
    let mut missed = missed.filter(|(_, verdict)| !verdict.good);
    let Some((report, verdict)) = missed.next() else {
        return Ok(if complete {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    };
    println!(
        "MISSED model={} scene={} property={}",
        report.model, report.scene, verdict.name
    );
    Ok(ExitCode::FAILURE)
}
