//! A process is killed at each step of a join and of a leave: who joins or leaves, the leader, or a node that is asked. It
//! is started again as it was, the call is made again, and all is as if nothing had happened.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use raft_actor::Step;
use tests::api::members::{Members, Place};
use tests::api::replica::DEPARTED;
use tests::api::wire::Ask;
use tests::random::Random;

use crate::life::GAP_MAX;
use crate::load::{Load, under_load};
use crate::report::Report;

/// How long a node that is to die may take to answer before.
const ANSWER: Duration = Duration::from_secs(15);

/// Those of the short form: one for each who dies.
const FEW: [Step; 4] = [
    Step::JoinTold,
    Step::HostAppended,
    Step::LeaveAppended,
    Step::LeaveRecorded,
];

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let steps = report.form(&Step::ALL[..], &FEW);
    let members = report.members("kills")?;
    let kept = members.folder.display().to_string();
    let first = members.lead()?;
    let (mut killed, mut phantoms) = (0, 0);
    let mut random = Random::new(report.seed ^ 1 << 40);
    let seen = under_load(&members, &mut random, |load, _| {
        let mut present = vec![first];
        for _ in 0..2 {
            present.push(members.join_and_vote(&[])?.0);
        }
        let mut cluster = Cluster {
            members: &members,
            load,
            present,
            highest: 3,
            phantoms: &mut phantoms,
        };
        for step in steps {
            load.phase(&step.name());
            cluster.dies_at(*step).with_context(|| step.name())?;
            killed += 1;
        }
        if !report.quick {
            for step in [Step::JoinTold, Step::JoinRecorded] {
                cluster
                    .loses_its_folder(step)
                    .with_context(|| format!("its folder lost at {step:?}"))?;
            }
            cluster
                .never_comes_back()
                .context("a joiner that never comes back")?;
        }
        Ok(())
    })
    .with_context(|| format!("kills; logs and data are in {kept}"))?;
    report.say(&format!(
        "{killed} steps, {} marks, {} lost, {} twice; without an answer at most: {}",
        seen.marks,
        seen.lost,
        seen.twice,
        seen.by_phase(),
    ));
    let figures = &mut report.figures;
    figures.exactly("kill_steps", killed, "count", steps.len() as u64);
    figures.exactly("phantoms", phantoms as u64, "count", 0);
    figures.exactly("kill_lost_or_twice", seen.lost + seen.twice, "count", 0);
    let (worst, most) = (seen.longest_gap(), GAP_MAX);
    figures.at_most(
        "kill_gap_worst_ms",
        worst.as_millis() as u64,
        "ms",
        most.as_millis() as u64,
    );
    report.done(members);
    Ok(())
}

struct Cluster<'a> {
    members: &'a Members,
    load: &'a Load,
    /// Where the three are.
    present: Vec<Arc<Place>>,
    /// The highest id that was seen.
    highest: u64,
    /// Members that nobody is.
    phantoms: &'a mut usize,
}

impl Cluster<'_> {
    fn dies_at(&mut self, step: Step) -> Result<()> {
        match step {
            Step::JoinAsked | Step::JoinTold | Step::JoinRecorded | Step::Joined => {
                let place = self.members.join(&["--die-at", &step.name()])?;
                self.died(&place)?;
                self.comes_in(place, None)
            }
            Step::HostAsked
            | Step::HostReached
            | Step::HostAppended
            | Step::HostCommitted
            | Step::Promoting => {
                let leader = self.members.wait_leader()?;
                self.arm(&leader, step)?;
                let place = self.members.join(&[])?;
                self.comes_in(place, Some(leader))
            }
            Step::Redirecting => {
                let asked = self.members.follower()?;
                self.arm(&asked, step)?;
                let place = self
                    .members
                    .place(&["--join", &asked.address.to_string()])?;
                self.members.start(&place, &[])?;
                self.comes_in(place, Some(asked))
            }
            Step::LeaveAsked | Step::LeaveCommitted | Step::LeaveRecorded => {
                let leaver = self.fourth_who_follows()?;
                self.goes(leaver.clone(), leaver, step)
            }
            Step::LeaveTransferred => {
                self.fourth_who_follows()?;
                let leader = self.members.wait_leader()?;
                self.goes(leader.clone(), leader, step)
            }
            Step::LeaveAppended => {
                let leaver = self.fourth_who_follows()?;
                let leader = self.members.wait_leader()?;
                self.goes(leaver, leader, step)
            }
        }
    }

    /// Tells the node in `place` at which step to die.
    fn arm(&self, place: &Place, step: Step) -> Result<()> {
        let step = step.name();
        let told = place.link.ask(Ask::DieAt { step }, ANSWER);
        told.map(drop).with_context(|| format!("arm {place}"))
    }

    /// Waits until the node in `place` has died at its step.
    fn died(&self, place: &Place) -> Result<()> {
        let status = place.wait_exit()?;
        let killed = status.signal() == Some(9);
        ensure!(
            killed,
            "{place} did not die but ended with {status}: {}",
            place.tail()
        );
        Ok(())
    }

    /// Who joins in `place` comes in, though `victim` dies of it, and is started again. What it had been is what it is
    /// when it makes the call once more.
    fn comes_in(&mut self, place: Arc<Place>, victim: Option<Arc<Place>>) -> Result<()> {
        match victim {
            Some(victim) => {
                self.died(&victim)?;
                self.members.start(&victim, &[])?;
                self.members.wait_running(&victim)?;
            }
            None => self.members.start(&place, &[])?,
        }
        let id = self.members.wait_voter(&place)?;
        self.is_new(id)?;
        self.are(&[&place])?;
        place.kill()?;
        self.members.start(&place, &[])?;
        let again = self.members.wait_voter(&place)?;
        ensure!(again == id, "node {id} has joined again as node {again}");
        self.present.push(place);
        self.one_goes()
    }

    /// A fourth member, so that one may go. It does not lead.
    fn fourth_who_follows(&mut self) -> Result<Arc<Place>> {
        let (place, id) = self.members.join_and_vote(&[])?;
        self.is_new(id)?;
        self.present.push(Arc::clone(&place));
        Ok(place)
    }

    /// Who is in `leaver` leaves, though `victim` dies of it, and is started again.
    fn goes(&mut self, leaver: Arc<Place>, victim: Arc<Place>, step: Step) -> Result<()> {
        self.arm(&victim, step)?;
        // Whether it is done the dead cannot say, nor who had to do with them.
        let _ = leaver.link.ask(Ask::Leave, ANSWER);
        self.died(&victim)?;
        self.members.start(&victim, &[])?;
        self.is_gone(&leaver)?;
        self.present.retain(|place| place.number != leaver.number);
        if victim.number != leaver.number {
            self.members.wait_running(&victim)?;
        }
        self.are(&[])
    }

    /// The last that came leaves, so that there are three.
    fn one_goes(&mut self) -> Result<()> {
        let place = self.present.pop().context("somebody is there")?;
        self.members.insist(&place, &Ask::Leave)?;
        let status = place.wait_exit()?;
        ensure!(
            status.success(),
            "{place} left with {status}: {}",
            place.tail()
        );
        self.are(&[])
    }

    /// Asks the node in `place` to leave until it has.
    fn is_gone(&self, place: &Place) -> Result<()> {
        let gone = self.members.wait(&format!("{place} to have left"), || {
            if let Some(status) = place.ended() {
                return Some(Some(status));
            }
            match place.link.status() {
                Ok(status) if status.is_removed => Some(None),
                Ok(status) if status.is_running => {
                    // If not now, then the next time.
                    let _ = place.link.ask(Ask::Leave, ANSWER);
                    None
                }
                _ => None,
            }
        })?;
        match gone {
            // In order, or because it had left before.
            Some(status) => {
                let well = status.success() || status.code() == Some(DEPARTED);
                ensure!(well, "{place} ended with {status}: {}", place.tail());
                self.is_out(place)
            }
            None => {
                place.kill()?;
                self.is_out(place)
            }
        }
    }

    /// The folder of who has left is of no use.
    fn is_out(&self, place: &Place) -> Result<()> {
        self.members.start(place, &[])?;
        let status = place.wait_exit()?;
        ensure!(
            status.code() == Some(DEPARTED),
            "a node that has left was started and ended with {status}: {}",
            place.tail()
        );
        Ok(())
    }

    /// Nobody had this id before.
    fn is_new(&mut self, id: u64) -> Result<()> {
        ensure!(
            id > self.highest,
            "node {} was there before node {id}",
            self.highest
        );
        self.highest = id;
        Ok(())
    }

    /// Exactly those who are present and `more` are members.
    fn are(&mut self, more: &[&Arc<Place>]) -> Result<()> {
        let mut ids = BTreeSet::new();
        for place in self.present.iter().chain(more.iter().copied()) {
            ids.insert(self.members.wait_running(place)?);
        }
        let now = self.members.wait("no change to be under way", || {
            self.members.membership().ok().filter(|all| all.settled)
        })?;
        let phantoms = now
            .members
            .iter()
            .filter(|member| !ids.contains(&member.id));
        *self.phantoms += phantoms.count();
        self.members.wait_members(&ids).map(drop)
    }

    /// Who joins dies at `step` and loses its folder; at the same address it comes in as another, and the one that it had
    /// been is none any more.
    fn loses_its_folder(&mut self, step: Step) -> Result<()> {
        self.load.phase(&format!("{step:?}, folder lost"));
        let place = self.members.join(&["--die-at", &step.name()])?;
        self.died(&place)?;
        place.wipe()?;
        self.members.start(&place, &[])?;
        let id = self.members.wait_voter(&place)?;
        self.is_new(id)?;
        self.are(&[&place])?;
        self.present.push(place);
        self.one_goes()
    }

    /// Who joins dies when it is a member, and stays away. It is removed as any other.
    fn never_comes_back(&mut self) -> Result<()> {
        self.load.phase("stays away");
        let step = Step::JoinTold;
        let place = self.members.join(&["--die-at", &step.name()])?;
        self.died(&place)?;
        let all = self.members.membership().context("the members")?;
        let Some(id) = all.members.iter().map(|member| member.id).max() else {
            bail!("nobody is a member");
        };
        let remove = Ask::Change {
            remove: vec![id],
            forced: false,
        };
        self.members.insist(&*self.members.follower()?, &remove)?;
        self.are(&[])
    }
}
