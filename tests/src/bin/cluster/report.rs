//! What a run has shown. What it left behind is kept when something was wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::api::members::Members;
use tests::figures::Figures;
use tests::programs::Programs;

pub(crate) struct Report {
    pub(crate) quick: bool,
    pub(crate) seed: u64,
    pub(crate) figures: Figures,
    programs: Programs,
    work: PathBuf,
    started: Instant,
}

impl Report {
    pub(crate) fn new(quick: bool, seed: u64) -> Result<Self> {
        let harness = std::env::current_exe().context("where this program is")?;
        // In the place of the node that other harnesses start.
        let replica = harness.with_file_name("replica");
        let programs = Programs {
            demo_chat: replica,
            harness,
        };
        ensure!(
            programs.demo_chat.is_file(),
            "{} is not there: build all programs, in the same profile",
            programs.demo_chat.display()
        );
        let form = if quick { "short" } else { "long" };
        println!("cluster: the {form} form, seed {seed}");
        Ok(Self {
            quick,
            seed,
            figures: Figures::new("cluster", &programs.target()),
            work: programs.target().join("cluster"),
            programs,
            started: Instant::now(),
        })
    }

    /// What the form has of something.
    pub(crate) fn form<T>(&self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }

    /// A cluster without members in a folder of this name.
    pub(crate) fn members(&self, name: &str) -> Result<Members> {
        // So that who comes late is sent a snapshot.
        let args = ["--every-entries", "1000", "--margin", "100"];
        Members::new(&self.programs, &self.work.join(name), &args)
    }

    pub(crate) fn say(&self, words: &str) {
        println!("cluster: {words}");
    }

    /// This went well, and its folder is in the way.
    pub(crate) fn done(&self, members: Members) {
        let folder = members.folder.clone();
        drop(members);
        let _ = fs::remove_dir_all(folder);
    }

    /// Writes the figures. True when all is as it must be.
    pub(crate) fn end(self) -> Result<bool> {
        let ok = self.figures.write()?;
        let seconds = self.started.elapsed().as_secs_f64();
        let verdict = if ok { "ok" } else { "failed" };
        println!("cluster: {verdict}, {seconds:.0} s, seed {}", self.seed);
        Ok(ok)
    }
}
