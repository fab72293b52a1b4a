//! The parts, and the figures that they are judged by. What a part left behind is kept when it went wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tests::api::cluster::Replicas;
use tests::figures::Figures;
use tests::programs::Programs;
use tests::random::Random;

/// One thing that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Once,
    Linear,
    Cursor,
    Slow,
    Big,
    Diverge,
    First,
    FirstFromNothing,
}

impl Part {
    /// Those of the long form. The short one leaves out the last, which compiles for minutes.
    const ALL: [Self; 7] = [
        Self::Once,
        Self::Linear,
        Self::Cursor,
        Self::Slow,
        Self::Big,
        Self::Diverge,
        Self::First,
    ];

    /// The parts of a form.
    pub(crate) fn all(quick: bool) -> Vec<Self> {
        let parts = Self::ALL.into_iter();
        parts
            .filter(|part| !(quick && *part == Self::First))
            .collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Linear => "linear",
            Self::Cursor => "cursor",
            Self::Slow => "slow",
            Self::Big => "big",
            Self::Diverge => "diverge",
            Self::First => "first",
            Self::FirstFromNothing => "first-from-nothing",
        }
    }
}

/// What a run has shown so far.
pub(crate) struct Report {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    pub(crate) figures: Figures,
    work: PathBuf,
    seed: u64,
    part: Part,
    /// What went wrong, in words.
    faults: Vec<String>,
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
        println!("api: the {form} form, seed {seed}");
        Ok(Self {
            figures: Figures::new("api", &programs.target()),
            work: programs.target().join("api"),
            programs,
            quick,
            seed,
            part: Part::Once,
            faults: Vec::new(),
            started: Instant::now(),
        })
    }

    pub(crate) fn run(&mut self, part: Part) -> Result<()> {
        self.part = part;
        let started = Instant::now();
        let dir = self.dir();
        if dir.exists() {
            fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
        }
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let faults = self.faults.len();
        let random = Random::new(self.seed ^ (part as u64) << 48);
        match part {
            Part::Once => crate::once::run(self, random),
            Part::Linear => crate::linear::run(self, random),
            Part::Cursor => crate::cursor::run(self, random),
            Part::Slow => crate::slow::run(self),
            Part::Big => crate::big::run(self),
            Part::Diverge => crate::diverge::run(self),
            Part::First => crate::first::run(self, true),
            Part::FirstFromNothing => crate::first::run(self, false),
        }
        .with_context(|| {
            let kept = dir.display();
            format!(
                "{}, seed {}; logs and data are in {kept}",
                part.name(),
                self.seed
            )
        })?;
        self.say(&format!("{:.0} s", started.elapsed().as_secs_f64()));
        if self.faults.len() == faults {
            // What stays is in the way of nobody.
            let _ = fs::remove_dir_all(&dir);
        }
        Ok(())
    }

    /// Where this part works.
    pub(crate) fn dir(&self) -> PathBuf {
        self.work.join(self.part.name())
    }

    /// What the form has of something.
    pub(crate) fn form<T>(&self, long: T, short: T) -> T {
        if self.quick { short } else { long }
    }

    /// A cluster in a folder of this part; its nodes are given `args`.
    pub(crate) fn replicas(&self, name: &str, args: &[&str]) -> Result<Replicas> {
        Replicas::new(&self.programs, &self.dir().join(name), args)
    }

    pub(crate) fn say(&self, words: &str) {
        println!("api {}: {words}", self.part.name());
    }

    /// Says what must not be; the part's folder is kept.
    pub(crate) fn fault(&mut self, what: &str) {
        self.say(&format!(
            "FAULT, seed {}: {what}; kept: {}",
            self.seed,
            self.dir().display()
        ));
        self.faults.push(what.to_owned());
    }

    /// Writes the figures. True when all is as it must be.
    pub(crate) fn end(mut self) -> Result<bool> {
        self.figures
            .exactly("faults", self.faults.len() as u64, "count", 0);
        let ok = self.figures.write()?;
        let seconds = self.started.elapsed().as_secs_f64();
        let verdict = if ok { "ok" } else { "failed" };
        println!("api: {verdict}, {seconds:.0} s, seed {}", self.seed);
        Ok(ok)
    }
}
