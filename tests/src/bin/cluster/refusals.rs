//! Those who must not come in: each is told why, by name, and the cluster goes on as if it had not been asked.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use tests::api::members::{Members, Place};
use tests::api::replica::{DEPARTED, NOT_STARTED};
use tests::api::wire::Ask;

use crate::report::Report;

pub(crate) fn run(report: &mut Report) -> Result<()> {
    let (members, other) = (report.members("refusals")?, report.members("others")?);
    let kept = members.folder.display().to_string();
    let founder = members.lead()?;
    let second = members.join_and_vote(&[])?.0;
    let third = members.join_and_vote(&[])?.0;
    other.lead()?;
    // The founder is not always the one that leads.
    let ours = Ours {
        members: &members,
        founder,
        followers: [second, third],
    };
    let mut refused = 0;
    let mut does = |what: &str, done: Result<()>| -> Result<()> {
        done.with_context(|| format!("{what}; logs and data are in {kept}"))?;
        refused += 1;
        report.say(&format!("refused: {what}"));
        Ok(())
    };
    does("a joiner that nobody reaches", ours.unreachable())?;
    does(
        "one that takes the place of the living",
        ours.replaces_the_living(),
    )?;
    does(
        "the folder of another cluster",
        ours.of_another_cluster(&other),
    )?;
    does("a cluster that lets nobody join", closed(report))?;
    does("a folder that was removed, and its id", ours.removed())?;
    does(
        "a founder that lost its folder, and founds again",
        ours.founds_again(),
    )?;
    does("an old copy of a folder", ours.old_copy())?;
    does("a folder that is in use", ours.in_use())?;
    does("two folders swapped: found where they are", ours.swapped())?;
    report.figures.exactly("refusals", refused, "count", 9);
    report.done(members);
    report.done(other);
    Ok(())
}

struct Ours<'a> {
    members: &'a Members,
    founder: Arc<Place>,
    followers: [Arc<Place>; 2],
}

/// The leader, its term, and the entry that says who the members are.
type Course = (u64, u64, u64);

impl Ours<'_> {
    fn course(&self) -> Result<Course> {
        let all = self.members.wait("no change to be under way", || {
            self.members.membership().ok().filter(|all| all.settled)
        })?;
        Ok((all.leader, all.term, all.index))
    }

    /// While `does` is done, nothing changes for the cluster.
    fn undisturbed<T>(&self, does: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.course()?;
        let done = does()?;
        let after = self.course()?;
        ensure!(
            before == after,
            "leader, term and membership were {before:?}, and are {after:?}"
        );
        Ok(done)
    }

    /// A replica is started, does not come in, and says why.
    fn refused(&self, place: &Place, comes_by: &[&str], why: &str) -> Result<()> {
        self.undisturbed(|| refused(self.members, place, comes_by, why, NOT_STARTED))
    }

    fn unreachable(&self) -> Result<()> {
        let place = self.members.place(&[])?;
        let to = self.members.addresses();
        // Nobody listens there.
        let line = ["--join", &to, "--advertise", "127.0.0.1:1"];
        self.refused(&place, &line, "does not answer at 127.0.0.1:1")
    }

    fn replaces_the_living(&self) -> Result<()> {
        let place = self.members.place(&[])?;
        let to = self.members.addresses();
        let follower = self.members.follower()?;
        let id = self.members.wait_running(&follower)?.to_string();
        self.refused(&place, &["--join", &to, "--replace", &id], "it lives")
    }

    /// A member's folder, with the address of another cluster; and the other way round.
    fn of_another_cluster(&self, other: &Members) -> Result<()> {
        let place = self.members.follower()?;
        let theirs = other.addresses();
        let (their_leader, ours) = (other.wait_leader()?, self.members.addresses());
        place.kill()?;
        self.refused(&place, &["--join", &theirs], "is of cluster")?;
        self.members.start(&place, &[])?;
        self.members.wait_running(&place)?;
        their_leader.kill()?;
        self.undisturbed(|| {
            refused(
                other,
                &their_leader,
                &["--join", &ours],
                "is of cluster",
                NOT_STARTED,
            )
        })?;
        other.start(&their_leader, &[])?;
        other.wait_leader().map(drop)
    }

    fn removed(&self) -> Result<()> {
        let (place, id) = self.members.join_and_vote(&[])?;
        place.kill()?;
        let remove = Ask::Change {
            remove: vec![id],
            forced: false,
        };
        self.members.insist(&*self.members.follower()?, &remove)?;
        self.undisturbed(|| {
            self.members.start(&place, &[])?;
            self.members
                .wait(&format!("node {id} to know that it was removed"), || {
                    let status = place.link.status().ok()?;
                    status.is_removed.then_some(())
                })?;
            place.kill()
        })?;
        self.undisturbed(|| {
            refused(
                self.members,
                &place,
                &["--join", &self.members.addresses()],
                "was removed",
                DEPARTED,
            )
        })?;
        // A fresh folder with its id.
        place.wipe()?;
        let mut peers = format!("{id}={}", place.address);
        for at in self.members.running() {
            peers += &format!(",{}={}", self.members.wait_running(&at)?, at.address);
        }
        self.undisturbed(|| {
            let line = ["--id", &id.to_string(), "--peers", &peers];
            self.members.start_by(&place, &line)?;
            self.members
                .wait(&format!("another node {id} to be refused"), || {
                    place.link.status().ok()?.failure
                })?;
            place.kill()
        })
    }

    fn founds_again(&self) -> Result<()> {
        let place = &self.founder;
        let lost = place.data.with_extension("lost");
        place.kill()?;
        fs::rename(&place.data, &lost).context("lose a folder")?;
        // So that it is not the leader that is missed.
        self.members.wait_leader()?;
        self.refused(place, &["--lead"], "looks here for node 1")?;
        place.wipe()?;
        fs::rename(&lost, &place.data).context("find a folder")?;
        self.members.start(place, &[])?;
        self.members.wait_running(place).map(drop)
    }

    fn old_copy(&self) -> Result<()> {
        let place = self.members.follower()?;
        let (old, new) = (
            place.data.with_extension("old"),
            place.data.with_extension("new"),
        );
        place.kill()?;
        copy(&place.data, &old)?;
        // Two starts that the copy knows nothing of: what it shows as its next was seen.
        for _ in 0..2 {
            self.members.start(&place, &[])?;
            self.members.wait("it to be known to both others", || {
                (place.link.status().ok()?.connected == 2).then_some(())
            })?;
            place.kill()?;
        }
        fs::rename(&place.data, &new).context("put a folder aside")?;
        fs::rename(&old, &place.data).context("put a copy in its place")?;
        self.undisturbed(|| {
            self.members.start(&place, &[])?;
            let failure = self.members.wait("an old copy to be refused", || {
                place.link.status().ok()?.failure
            })?;
            ensure!(failure.contains("old copy"), "{failure}");
            place.kill()
        })?;
        place.wipe()?;
        fs::rename(&new, &place.data).context("put a folder back")?;
        self.members.start(&place, &[])?;
        self.members.wait_running(&place).map(drop)
    }

    fn in_use(&self) -> Result<()> {
        let (place, of) = (self.members.place(&[])?, self.members.follower()?);
        std::os::unix::fs::symlink(&of.data, &place.data).context("link a folder")?;
        let to = self.members.addresses();
        let refused = self.refused(&place, &["--join", &to], "another process");
        fs::remove_file(&place.data).context("unlink a folder")?;
        refused
    }

    /// The folder is the node: each is found at its new address.
    fn swapped(&self) -> Result<()> {
        let [one, two] = &self.followers;
        let id = |place: &Place| self.members.wait_running(place);
        let before = (id(one)?, id(two)?);
        let aside = one.data.with_extension("aside");
        one.kill()?;
        two.kill()?;
        for (from, to) in [
            (&one.data, &aside),
            (&two.data, &one.data),
            (&aside, &two.data),
        ] {
            fs::rename(from, to).context("swap two folders")?;
        }
        self.members.start(one, &[])?;
        self.members.start(two, &[])?;
        ensure!(
            (id(two)?, id(one)?) == before,
            "they are others than before"
        );
        let ids = BTreeSet::from([id(&self.founder)?, before.0, before.1]);
        self.members.wait("all to be healthy where they are", || {
            let all = self.members.membership().ok()?;
            let are: BTreeSet<_> = all.members.iter().map(|member| member.id).collect();
            let at = |place: &Place, id| {
                let mut them = all.members.iter();
                them.any(|m| m.id == id && m.address == place.address.to_string() && m.healthy)
            };
            (are == ids && at(two, before.0) && at(one, before.1)).then_some(())
        })
    }
}

/// A cluster that was told to let nobody join.
fn closed(report: &Report) -> Result<()> {
    let members = report.members("closed")?;
    let place = members.place(&["--lead", "--no-joins"])?;
    members.start(&place, &[])?;
    members.wait_running(&place)?;
    let joiner = members.place(&[])?;
    let to = members.addresses();
    let refused = refused(
        &members,
        &joiner,
        &["--join", &to],
        "does not let nodes join",
        NOT_STARTED,
    );
    report.done(members);
    refused
}

/// A replica is started, ends with this exit code, and says why.
fn refused(
    members: &Members,
    place: &Place,
    comes_by: &[&str],
    why: &str,
    code: i32,
) -> Result<()> {
    members.start_by(place, comes_by)?;
    let status = place.wait_exit()?;
    let said = place.tail();
    ensure!(
        status.code() == Some(code) && said.contains(why),
        "it ended with {status}, and did not say {why:?}, but:\n{said}"
    );
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let (entry, to) = {
            let entry = entry.context("an entry of a folder")?;
            let name = entry.file_name();
            (entry.path(), to.join(name))
        };
        if entry.is_dir() {
            copy(&entry, &to)?;
        } else {
            fs::copy(&entry, &to).with_context(|| format!("copy {}", entry.display()))?;
        }
    }
    Ok(())
}
