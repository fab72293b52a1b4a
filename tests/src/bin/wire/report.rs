//! The part that runs, and the figures that it is judged by. What it left behind is kept when it went wrong.
//!
//! A part that this machine cannot run is skipped by name: the short form passes without it, the long form does not.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::figures::Figures;
use tests::programs::Programs;

/// One thing that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Failover {
        /// How often the leader is killed, with the early campaign and without.
        rounds: u64,
    },
    Catchup {
        /// The size of the snapshot.
        mib: u64,
        /// How many bytes of it are sent in a second, if that is said.
        rate: Option<u64>,
    },
    Hostile,
}

impl Part {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Failover { .. } => "failover",
            Self::Catchup { .. } => "catchup",
            Self::Hostile => "hostile",
        }
    }
}

/// What a run has shown so far.
pub(crate) struct Report {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) figures: Figures,
    part: Part,
    dir: PathBuf,
    /// What went wrong, in words.
    faults: Vec<String>,
    started: Instant,
}

impl Report {
    pub(crate) fn new(part: Part, quick: bool) -> Result<Self> {
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
        println!("wire {}: the {form} form", part.name());
        Ok(Self {
            // A file for each part: they are run one by one.
            figures: Figures::of_part("wire", part.name(), &programs.target()),
            dir: programs.target().join("wire").join(part.name()),
            programs,
            quick,
            part,
            faults: Vec::new(),
            started: Instant::now(),
        })
    }

    /// Runs the part and writes its figures. True when all is as it must be.
    pub(crate) fn run(mut self) -> Result<bool> {
        let dir = self.dir.clone();
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        match self.part {
            Part::Failover { rounds } => crate::failover::run(&mut self, rounds),
            Part::Catchup { mib, rate } => crate::catchup::run(&mut self, mib, rate),
            Part::Hostile => crate::hostile::run(&mut self),
        }
        .with_context(|| format!("logs and data are in {}", dir.display()))?;
        let (faults, name) = (self.faults.len() as u64, self.part.name());
        self.figures
            .exactly(&format!("{name}_faults"), faults, "count", 0);
        let ok = self.figures.write()?;
        if ok {
            // What stays is in the way of nobody.
            let _ = fs::remove_dir_all(&dir);
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let verdict = if ok { "ok" } else { "failed" };
        println!("wire {name}: {verdict}, {seconds:.0} s");
        Ok(ok)
    }

    /// Where this part works.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.clone()
    }

    /// What the form has of something.
    pub(crate) fn form<T>(&self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }

    pub(crate) fn say(&self, words: &str) {
        println!("wire {}: {words}", self.part.name());
    }

    /// Says what must not be; the part's folder is kept.
    pub(crate) fn fault(&mut self, what: &str) {
        self.say(&format!("FAULT: {what}; kept: {}", self.dir.display()));
        self.faults.push(what.to_owned());
    }

    /// Says what this machine cannot do. Only the short form passes without it.
    pub(crate) fn skip(&mut self, what: &str, why: &anyhow::Error) {
        self.say(&format!("skipped {what}: {why:#}"));
        if !self.quick {
            self.faults.push(format!("{what} was skipped"));
        }
    }
}
