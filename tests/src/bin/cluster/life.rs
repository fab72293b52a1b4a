//! A cluster's life under load: one node, three, five, another one in the place of each, without its leader, three; and all
//! of them restarted at once.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::api::members::{Members, Place};
use tests::api::wire::Ask;
use tests::random::Random;

use crate::load::{Load, Seen, under_load};
use crate::report::Report;

/// Five of the shortest election timeouts.
pub(crate) const GAP_MAX: Duration = Duration::from_millis(5 * 500);

pub(crate) fn run(report: &mut Report, runs: u64) -> Result<()> {
    let (mut lost, mut twice, mut worst) = (0, 0, Duration::ZERO);
    for run in 0..runs {
        let seed = report.seed + run;
        let members = report.members(&format!("life{seed}"))?;
        let (kept, started) = (members.folder.display().to_string(), Instant::now());
        let seen = live(&members, report.quick, Random::new(seed))
            .with_context(|| format!("the life of seed {seed}; logs and data are in {kept}"))?;
        report.say(&format!(
            "seed {seed}: {} marks, {} lost, {} twice, {:.0} s; without an answer at most: {}",
            seen.marks,
            seen.lost,
            seen.twice,
            started.elapsed().as_secs_f64(),
            seen.by_phase(),
        ));
        lost += seen.lost;
        twice += seen.twice;
        worst = worst.max(seen.longest_gap());
        if seen.lost + seen.twice == 0 {
            report.done(members);
        }
    }
    let figures = &mut report.figures;
    figures.exactly("lost", lost, "count", 0);
    figures.exactly("twice", twice, "count", 0);
    figures.exactly("runs", runs, "count", runs);
    let (worst, most) = (worst.as_millis() as u64, GAP_MAX.as_millis() as u64);
    figures.at_most("gap_worst_ms", worst, "ms", most);
    Ok(())
}

fn live(members: &Members, quick: bool, mut random: Random) -> Result<Seen> {
    let first = members.lead()?;
    under_load(members, &mut random, |load, random| {
        let mut life = Life {
            members,
            load,
            present: vec![(first, 1)],
            highest: 1,
        };
        life.come(2)?;
        if quick {
            life.leader_leaves()?;
            life.one_leaves(0)?;
            return life.is_whole();
        }
        life.come(2)?;
        // Each way at least once, and in any order.
        let mut ways: Vec<_> = Way::ALL.into();
        ways.push(Way::ALL[random.below(Way::ALL.len() as u64) as usize]);
        for left in (1..=ways.len()).rev() {
            let way = ways.swap_remove(random.below(left as u64) as usize);
            // The oldest goes, so that each of the five does.
            life.replace(way)?;
            // Something should be under way between two changes, too.
            thread::sleep(Duration::from_millis(random.below(500)));
        }
        life.leader_is_removed()?;
        life.leader_leaves()?;
        life.all_restart()?;
        life.is_whole()
    })
}

/// How a node makes room for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Leaves,
    IsRemoved,
    /// Its process is killed, and the other is told whose place it takes.
    IsReplaced,
    /// Its process is killed and its folder lost, and the other is where it was.
    LosesItsFolder,
}

impl Way {
    const ALL: [Self; 4] = [
        Self::Leaves,
        Self::IsRemoved,
        Self::IsReplaced,
        Self::LosesItsFolder,
    ];
}

struct Life<'a> {
    members: &'a Members,
    load: &'a Load,
    /// Who belongs to the cluster, and where, the oldest first.
    present: Vec<(Arc<Place>, u64)>,
    highest: u64,
}

impl Life<'_> {
    fn ids(&self) -> BTreeSet<u64> {
        self.present.iter().map(|(_, id)| *id).collect()
    }

    /// So many join at once.
    fn come(&mut self, many: u64) -> Result<()> {
        self.load.phase(&format!("{many} join"));
        let joined = (0..many).map(|_| self.members.join(&[]));
        for place in joined.collect::<Result<Vec<_>>>()? {
            self.joined(place)?;
        }
        self.is_settled()
    }

    /// Waits until who has been started in `place` votes.
    fn joined(&mut self, place: Arc<Place>) -> Result<()> {
        let id = self.members.wait_voter(&place)?;
        let known = self.ids();
        ensure!(!known.contains(&id), "node {id} is there twice: {known:?}");
        self.present.push((place, id));
        Ok(())
    }

    /// No other than those who are there belong to the cluster, and whoever came had an id that nobody had before.
    fn is_settled(&mut self) -> Result<()> {
        let ids = self.ids();
        self.members.wait_members(&ids)?;
        let new: Vec<_> = ids
            .iter()
            .copied()
            .filter(|id| *id > self.highest)
            .collect();
        let first = self.highest + 1;
        // Nobody's join was broken off, so that no id was left out.
        ensure!(
            new == (first..first + new.len() as u64).collect::<Vec<_>>(),
            "ids {ids:?}, up to {} were given before",
            self.highest
        );
        self.highest += new.len() as u64;
        Ok(())
    }

    /// Another one takes the place of the oldest.
    fn replace(&mut self, way: Way) -> Result<()> {
        let (old, id) = self.present[0].clone();
        self.load.phase(&format!("node {id} {way:?}"));
        let id_of_it = id.to_string();
        match way {
            Way::Leaves | Way::IsRemoved => {
                let place = self.members.join(&[])?;
                self.joined(place)?;
                match way {
                    Way::Leaves => self.one_leaves(0)?,
                    _ => self.one_is_removed(0)?,
                }
            }
            Way::IsReplaced => {
                old.kill()?;
                self.present.remove(0);
                let place = self.members.join(&["--replace", &id_of_it])?;
                self.joined(place)?;
            }
            Way::LosesItsFolder => {
                old.kill()?;
                old.wipe()?;
                self.present.remove(0);
                let addresses = self.members.addresses();
                self.members.start_by(&old, &["--join", &addresses])?;
                self.joined(old)?;
            }
        }
        self.is_settled()
    }

    fn one_leaves(&mut self, at: usize) -> Result<()> {
        let (place, id) = self.present.remove(at);
        self.load.phase(&format!("node {id} leaves"));
        self.members.insist(&place, &Ask::Leave)?;
        let status = place.wait_exit()?;
        ensure!(
            status.success(),
            "node {id} left with {status}: {}",
            place.tail()
        );
        self.is_settled()
    }

    fn one_is_removed(&mut self, at: usize) -> Result<()> {
        let (place, id) = self.present.remove(at);
        self.load.phase(&format!("node {id} is removed"));
        let remove = Ask::Change {
            remove: vec![id],
            forced: false,
        };
        // By whomever.
        let (by, _) = &self.present[self.present.len() - 1];
        self.members.insist(by, &remove)?;
        self.members
            .wait(&format!("node {id} to know that it was removed"), || {
                let status = place.link.status().ok()?;
                status.is_removed.then_some(())
            })?;
        place.kill()?;
        fs::remove_dir_all(&place.data).context("remove the folder of a node that is out")?;
        self.is_settled()
    }

    /// Where in the list the leader is.
    fn leader(&self) -> Result<usize> {
        let leader = self.members.wait_leader()?;
        let mut present = self.present.iter();
        let at = present.position(|(place, _)| place.number == leader.number);
        at.context("the leader is no member")
    }

    fn leader_leaves(&mut self) -> Result<()> {
        let leader = self.leader()?;
        self.one_leaves(leader)
    }

    fn leader_is_removed(&mut self) -> Result<()> {
        let leader = self.leader()?;
        self.one_is_removed(leader)
    }

    /// All are killed at once, and started as they were.
    fn all_restart(&mut self) -> Result<()> {
        self.load.phase("all are killed and started");
        self.load.outage();
        for (place, _) in &self.present {
            place.strike()?;
        }
        for (place, _) in &self.present {
            place.kill()?;
        }
        for (place, _) in &self.present {
            self.members.start(place, &[])?;
        }
        for (place, id) in &self.present {
            let now = self.members.wait_running(place)?;
            ensure!(now == *id, "node {id} came back as node {now}");
        }
        self.members.wait_leader()?;
        self.is_settled()
    }

    /// All is as it must be at the end.
    fn is_whole(&self) -> Result<()> {
        self.load.phase("end");
        let ids = self.ids();
        let whole = (ids.len() as u64 - 1) / 2;
        self.members
            .wait(&format!("{whole} nodes that may fail"), || {
                let all = self.members.membership().ok()?;
                let are: BTreeSet<_> = all.members.iter().map(|member| member.id).collect();
                (are == ids && all.tolerance == Some(whole)).then_some(())
            })
    }
}
