//! The parts, what each has shown, and the figures that they are judged by.
//!
//! A part that this machine cannot run is skipped by name: the short form passes without it, the long form does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::crash::mounts::Sweeper;
use tests::crash::verdict::{Fault, Verdict};
use tests::crash::watch::Known;
use tests::figures::Figures;
use tests::programs::Programs;
use tests::random::Random;

/// How long a writer may take to end by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One kind of crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Opening,
    Kill,
    Unsynced,
    Lie,
    Tear,
    Damage,
    Fail,
    Full,
}

impl Part {
    pub(crate) const ALL: [Self; 7] = [
        Self::Opening,
        Self::Kill,
        Self::Unsynced,
        Self::Tear,
        Self::Damage,
        Self::Fail,
        Self::Full,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Kill => "kill",
            Self::Unsynced => "unsynced",
            Self::Lie => "lie",
            Self::Tear => "tear",
            Self::Damage => "damage",
            Self::Fail => "fail",
            Self::Full => "full",
        }
    }
}

/// What a run has shown so far.
pub(crate) struct Report {
    pub(crate) programs: Programs,
    pub(crate) quick: bool,
    /// Where folders are crashed; emptied at the start.
    work: PathBuf,
    kept: PathBuf,
    kept_count: u32,
    seed: u64,
    rounds: Option<u64>,
    part: Part,
    faults: BTreeMap<&'static str, u64>,
    figures: Figures,
    skipped: Vec<String>,
    /// How often a node had said why it ends, and then died of its exit.
    aborted_exits: u64,
    started: Instant,
    _sweeper: Sweeper,
}

impl Report {
    pub(crate) fn new(quick: bool, seed: u64, rounds: Option<u64>) -> Result<Self> {
        let harness = std::env::current_exe().context("where this program is")?;
        let programs = Programs {
            demo_chat: harness.clone(),
            harness,
        };
        let work = programs.target().join("crash");
        let kept = programs.target().join("crash-kept");
        fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
        let sweeper = Sweeper::start(&programs, &work)?;
        let form = if quick { "short" } else { "long" };
        println!("crash: the {form} form, seed {seed}");
        Ok(Self {
            figures: Figures::new("crash", &programs.target()),
            programs,
            quick,
            work,
            kept,
            kept_count: 0,
            seed,
            rounds,
            part: Part::Kill,
            faults: BTreeMap::new(),
            skipped: Vec::new(),
            aborted_exits: 0,
            started: Instant::now(),
            _sweeper: sweeper,
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
        self.forget_kept();
        let random = Random::new(self.seed ^ (part as u64) << 48);
        match part {
            Part::Opening => crate::opening::run(self, random),
            Part::Kill => crate::kill::run(self, random),
            Part::Unsynced => crate::unsynced::run(self, random),
            Part::Lie => crate::unsynced::lie(self, random),
            Part::Tear => crate::tear::run(self, random),
            Part::Damage => crate::damage::run(self, random),
            Part::Fail => crate::fail::run(self, random),
            Part::Full => crate::full::run(self, random),
        }
        .with_context(|| format!("{}, seed {}", part.name(), self.seed))?;
        self.say(&format!("{:.0} s", started.elapsed().as_secs_f64()));
        // What is of interest was kept elsewhere.
        let _ = fs::remove_dir_all(&dir);
        Ok(())
    }

    /// Where this part works.
    pub(crate) fn dir(&self) -> PathBuf {
        self.work.join(self.part.name())
    }

    /// How many times: what was asked for, or what the form has.
    pub(crate) fn rounds(&self, long: u64, short: u64) -> u64 {
        let form = if self.quick { short } else { long };
        self.rounds.unwrap_or(form)
    }

    pub(crate) fn say(&self, words: &str) {
        println!("crash {}: {words}", self.part.name());
    }

    /// This part needs what is not here.
    pub(crate) fn skip(&mut self, missing: &str) {
        self.say(&format!("SKIPPED, for want of {missing}"));
        self.skipped
            .push(format!("{} ({missing})", self.part.name()));
    }

    /// A count of this part that must be `wanted`.
    pub(crate) fn figure(&mut self, name: &str, value: u64, wanted: u64) {
        self.figures.exactly(name, value, "count", wanted);
    }

    /// A node had ended by name, and its exit was an abort. It is rare, so that the short form only says it.
    pub(crate) fn aborted_exit(&mut self, what: &str) {
        self.aborted_exits += 1;
        self.say(&format!("ABORTED at its exit: {what}"));
    }

    /// Counts what must not be.
    pub(crate) fn fault(&mut self, name: &'static str, what: &str, evidence: Option<&Path>) {
        *self.faults.entry(name).or_default() += 1;
        let mut line = format!("FAULT {name}, seed {}: {what}", self.seed);
        if let Some(kept) = evidence.and_then(|dir| self.keep(dir)) {
            line.push_str(&format!("; kept: {}", kept.display()));
        }
        self.say(&line);
    }

    /// What an earlier run of this part has kept goes.
    fn forget_kept(&self) {
        let files = fs::read_dir(&self.kept).into_iter().flatten().flatten();
        let ours = format!("{}-", self.part.name());
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with(&ours)) {
            // What stays is only in the way of people who look.
            let _ = fs::remove_dir_all(file.path());
        }
    }

    /// Moves a folder out of the way of the next round.
    fn keep(&mut self, dir: &Path) -> Option<PathBuf> {
        self.kept_count += 1;
        // Enough to see what is wrong.
        if self.kept_count > 20 {
            return None;
        }
        let name = format!("{}-{}-{}", self.part.name(), self.seed, self.kept_count);
        let kept = self.kept.join(name);
        fs::create_dir_all(&self.kept).ok()?;
        let _ = fs::remove_dir_all(&kept);
        fs::rename(dir, &kept)
            .or_else(|_| tests::crash::harm::copy(dir, &kept).map_err(std::io::Error::other))
            .ok()?;
        Some(kept)
    }

    /// Counts a faulty verdict; `what` says how it came to it. True if there was nothing to count.
    pub(crate) fn accept(&mut self, verdict: &Verdict, what: &str, evidence: &Path) -> bool {
        let Verdict::Faulty(fault, why) = verdict else {
            return true;
        };
        let name = match fault {
            Fault::LostAck => "lost_acks",
            Fault::LostVote => "lost_votes",
            Fault::SilentLoss => "silent_losses",
            Fault::NamelessRefusal => "nameless_refusals",
            Fault::WronglyRefused => "wrong_refusals",
            Fault::Died => "died",
        };
        self.fault(name, &format!("{what}: {why}"), Some(evidence));
        false
    }

    /// Counts a writer that found something else than was acknowledged, and takes its word for what is there.
    pub(crate) fn consistent(&mut self, known: &mut Known, what: &str) -> bool {
        let Some(contradiction) = known.contradiction.take() else {
            return true;
        };
        self.fault("silent_losses", &format!("{what}: {contradiction}"), None);
        false
    }

    /// Prints the floors, and writes the figures. True when all is as it must be.
    pub(crate) fn end(mut self) -> Result<bool> {
        for name in [
            "lost_acks",
            "lost_votes",
            "silent_losses",
            "nameless_refusals",
            "wrong_refusals",
            "died",
            "acks_after_failure",
            "ended_late",
            "other_faults",
        ] {
            let count = self.faults.get(name).copied().unwrap_or(0);
            self.figures.exactly(name, count, "count", 0);
        }
        if !self.quick {
            self.figures
                .exactly("aborted_exits", self.aborted_exits, "count", 0);
            self.figures
                .exactly("skipped_parts", self.skipped.len() as u64, "count", 0);
        }
        let ok = self.figures.write()?;
        for skipped in &self.skipped {
            println!("crash: skipped: {skipped}");
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let verdict = if ok { "ok" } else { "failed" };
        println!("crash: {verdict}, {seconds:.0} s, seed {}", self.seed);
        Ok(ok)
    }
}
