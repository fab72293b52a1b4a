//! Clients that mark numbers while something else happens, each number until it is answered; and how long nobody was.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::api::client::{Session, Trouble, propose};
use tests::api::machine::{Command, Marks};
use tests::api::members::{Members, PATIENCE};
use tests::api::wire::{Ask, Told};
use tests::random::Random;

const CLIENTS: usize = 8;
/// Between a client's marks.
const PAUSE: Duration = Duration::from_millis(10);
/// Then it asks another node. A leader may be gone for longer.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What happens beside the clients.
#[derive(Debug, Default)]
pub(crate) struct Load {
    next: AtomicU64,
    stop: AtomicBool,
    answers: Mutex<Vec<Instant>>,
    phases: Mutex<Vec<(Instant, String)>>,
    /// All were killed then.
    outages: Mutex<Vec<Instant>>,
}

impl Load {
    /// What is done from now on.
    pub(crate) fn phase(&self, what: &str) {
        lock(&self.phases).push((Instant::now(), what.to_owned()));
    }

    /// From now on, until somebody is answered again, nobody can be.
    pub(crate) fn outage(&self) {
        lock(&self.outages).push(Instant::now());
    }

    /// Each phase, and the longest time without an answer that began in it.
    fn gaps(&self) -> Vec<(String, Duration)> {
        let (phases, outages) = (lock(&self.phases), lock(&self.outages));
        let mut gaps: Vec<_> = phases
            .iter()
            .map(|(_, what)| (what.clone(), Duration::ZERO))
            .collect();
        let mut answers = lock(&self.answers).clone();
        answers.sort_unstable();
        for pair in answers.windows(2) {
            if outages.iter().any(|at| pair[0] <= *at && *at <= pair[1]) {
                continue;
            }
            let phase = phases.iter().rposition(|(from, _)| *from <= pair[0]);
            if let Some((_, longest)) = phase.map(|phase| &mut gaps[phase]) {
                *longest = (*longest).max(pair[1] - pair[0]);
            }
        }
        gaps
    }
}

/// What became of the marks.
pub(crate) struct Seen {
    pub(crate) marks: u64,
    pub(crate) lost: u64,
    pub(crate) twice: u64,
    /// By phase.
    pub(crate) gaps: Vec<(String, Duration)>,
}

impl Seen {
    pub(crate) fn longest_gap(&self) -> Duration {
        self.gaps
            .iter()
            .map(|(_, gap)| *gap)
            .max()
            .unwrap_or(Duration::MAX)
    }

    pub(crate) fn by_phase(&self) -> String {
        let all = self.gaps.iter();
        let all = all.map(|(what, gap)| format!("{what} {} ms", gap.as_millis()));
        all.collect::<Vec<_>>().join(", ")
    }
}

/// Lets clients mark numbers at whoever runs, while `work` is done; then looks what all nodes have of them.
pub(crate) fn under_load(
    members: &Members,
    random: &mut Random,
    work: impl FnOnce(&Load, &mut Random) -> Result<()>,
) -> Result<Seen> {
    let load = Load::default();
    load.phase("start");
    let leader = members.wait_leader()?;
    let opened = (0..CLIENTS).map(|_| Session::open_at(&leader.link));
    let sessions = opened
        .collect::<Result<Vec<_>, _>>()
        .context("open a session")?;
    let worked = thread::scope(|scope| {
        let clients: Vec<_> = sessions
            .iter()
            .map(|session| {
                let (load, random) = (&load, Random::new(random.number()));
                scope.spawn(move || mark(members, load, session, random))
            })
            .collect();
        // Whatever becomes of it, the clients end.
        let work = std::panic::AssertUnwindSafe(|| work(&load, random));
        let worked = std::panic::catch_unwind(work);
        load.stop.store(true, Ordering::Relaxed);
        let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
        match worked {
            Ok(worked) => worked?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        for client in ended {
            match client {
                Ok(done) => done?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(())
    });
    worked?;
    let marks = load.next.load(Ordering::Relaxed);
    members.converge()?;
    let (mut lost, mut twice) = (0, 0);
    let mut first: Option<Marks> = None;
    for place in members.running() {
        let found = match place.link.ask(Ask::Marks { below: marks }, PATIENCE) {
            Ok(Told::Marks(found)) => found,
            other => bail!("{place}: {other:?}"),
        };
        lost = lost.max(found.missing.len() as u64);
        twice = twice.max(found.twice.len() as u64);
        ensure!(
            first.as_ref().is_none_or(|first| *first == found),
            "{place} has other marks than the first: {found:?}"
        );
        first.get_or_insert(found);
    }
    Ok(Seen {
        marks,
        lost,
        twice,
        gaps: load.gaps(),
    })
}

/// One client.
fn mark(members: &Members, load: &Load, session: &Session, mut random: Random) -> Result<()> {
    while !load.stop.load(Ordering::Relaxed) {
        let number = load.next.fetch_add(1, Ordering::Relaxed);
        let named = session.name();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let running = members.running();
            let trouble = match running.len() {
                0 => Trouble::Gone,
                many => {
                    let place = &running[random.below(many as u64) as usize];
                    match propose(&place.link, &Command::Mark(number), named.now(), ATTEMPT) {
                        Ok(_) => break,
                        Err(trouble) => trouble,
                    }
                }
            };
            if let Trouble::Refused(refused) = &trouble {
                ensure!(!refused.for_good, "a mark lost its name: {}", refused.why);
            }
            ensure!(
                Instant::now() < deadline,
                "mark {number} was not answered in {PATIENCE:?}: {trouble}"
            );
            thread::sleep(Duration::from_millis(5));
        }
        lock(&load.answers).push(Instant::now());
        thread::sleep(PAUSE);
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_gap_belongs_to_the_phase_in_which_it_begins_and_an_outage_is_none() {
        let load = Load::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        *lock(&load.answers) = [0, 10, 300, 2000, 2010, 2500].map(at).into();
        *lock(&load.phases) = vec![
            (at(0), "a".into()),
            (at(200), "b".into()),
            (at(2005), "c".into()),
        ];
        *lock(&load.outages) = vec![at(1000)];
        let gaps = load.gaps();
        let gaps: Vec<_> = gaps
            .iter()
            .map(|(what, gap)| (what.as_str(), gap.as_millis()))
            .collect();
        assert_eq!(gaps, [("a", 290), ("b", 10), ("c", 490)]);
    }
}
