//! Goes through the documents, and says what is not as they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::figures::Figures;

use crate::document::{Action, Document, Step, Thing};
use crate::ports::Ports;
use crate::stand_in::Repository;
use crate::terminal::{EXPECTED, Terminal};

/// How many of a terminal's last lines are shown when something failed.
const LINES_SHOWN: usize = 12;
/// How long the commands of a fence may take, and a target of make that is named in passing: it may have to be compiled.
const COMMANDS: Duration = Duration::from_secs(180);
const TARGET: Duration = Duration::from_secs(1800);
/// Fewer commands than this in all documents together: they are not found any more.
const COMMANDS_MIN: u64 = 12;

/// How a target that is named in passing is run in its short form, where that is not said by `QUICK=1`; and what one says
/// that does not end by itself.
const SHORT: [(&str, &str, Option<&str>); 5] = [
    ("chat", "ID=1", Some("cannot reach the peer")),
    ("checkers", "HISTORIES=1000", None),
    ("explore", "", Some("http://")),
    (
        "script",
        "FILE=raft-core/tests/scripts/election_vote_only_after_it_is_durable.txt",
        None,
    ),
    ("sequences", "SEQUENCES=2000", None),
];

/// Targets that measure speed. That they run and print their figures is looked at; whether this machine reaches the floors
/// is theirs to say.
const SPEED: [&str; 3] = ["bench", "bench-storage", "peers"];

/// What there was to do, and what was wrong with it.
#[derive(Debug, Default)]
struct Tally {
    commands: u64,
    failed: u64,
}

/// True if every command did what its document says.
pub(crate) fn run(repository: &Repository, only: &[String], quick: bool) -> Result<bool> {
    let folder = repository
        .target()
        .join("docs-check")
        .join(std::process::id().to_string());
    let stand_ins = folder.join("stand-ins");
    repository.write_stand_ins(&stand_ins)?;
    let ports = Ports::free()?;
    let shells = |name: &str| {
        let folder = folder.join(name.replace('/', "-"));
        fs::create_dir_all(folder.join("work"))?;
        anyhow::Ok(Shells {
            repository,
            ports,
            stand_ins: &stand_ins,
            folder,
            open: BTreeMap::new(),
        })
    };
    let mut tally = Tally::default();
    let mut targets = BTreeSet::new();
    for name in documents(&repository.root, only)? {
        let started = Instant::now();
        let text = fs::read_to_string(repository.root.join(&name))
            .with_context(|| format!("cannot read {name}"))?;
        let document = match Document::parse(&text) {
            Ok(document) => document,
            Err(error) => {
                println!("docs: {name}: {error:#}");
                tally.failed += 1;
                continue;
            }
        };
        tally.failed += untrue(repository, &name, &document, &mut targets);
        if document.steps.is_empty() {
            continue;
        }
        let mut shells = shells(&name)?;
        let before = tally.commands;
        let ended = document
            .steps
            .iter()
            .try_for_each(|step| {
                tally.commands += commands(&step.action);
                shells.step(step).map_err(|error| (step.line, error))
            })
            .and_then(|()| shells.end().map_err(|error| (text.lines().count(), error)));
        match ended {
            Ok(()) => println!(
                "docs: {name}: {} commands, {} s",
                tally.commands - before,
                started.elapsed().as_secs()
            ),
            Err((line, error)) => {
                tally.failed += 1;
                println!("docs: {name}:{line}: {error:#}");
                shells.show();
            }
        }
    }
    if only.is_empty() && !quick {
        let mut shells = shells("make")?;
        for target in targets.difference(&repository.tested()) {
            tally.commands += 1;
            let ended = shells.make(target);
            if let Err(error) = ended {
                tally.failed += 1;
                println!("docs: make {target}: {error:#}");
                shells.show();
                shells.open.clear();
            }
        }
    }
    let mut figures = Figures::new("docs", repository.target());
    let floor = if only.is_empty() { COMMANDS_MIN } else { 0 };
    figures.at_least("commands", tally.commands, "count", floor);
    figures.exactly("failed", tally.failed, "count", 0);
    if tally.failed == 0 {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    } else {
        println!("docs: what is left is in {}", folder.display());
    }
    figures.write()
}

/// The documents, in the order in which a reader would come to them.
fn documents(root: &Path, only: &[String]) -> Result<Vec<String>> {
    if !only.is_empty() {
        return Ok(only.to_vec());
    }
    let mut names = vec!["README.md".to_owned()];
    let in_folder = |folder: &str| -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(root.join(folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            names.push(name);
        }
        names.sort();
        Ok(names)
    };
    let is_document = |name: &String| name.ends_with(".md");
    names.extend(
        in_folder("docs")?
            .iter()
            .filter(|name| is_document(name))
            .map(|name| format!("docs/{name}")),
    );
    for name in in_folder(".")? {
        if root.join(&name).join("Cargo.toml").is_file()
            && root.join(&name).join("README.md").is_file()
        {
            names.push(format!("{name}/README.md"));
        } else if is_document(&name) && name != "README.md" {
            names.push(name);
        }
    }
    Ok(names)
}

/// Says which targets and files the document names that are not there, and counts them.
fn untrue<'a>(
    repository: &'a Repository,
    name: &str,
    document: &Document,
    targets: &mut BTreeSet<&'a str>,
) -> u64 {
    let folder = PathBuf::from(name);
    let folder = repository
        .root
        .join(folder.parent().unwrap_or(Path::new("")));
    let mut failed = 0;
    for mention in &document.mentions {
        let wrong = match &mention.what {
            Thing::Target(target) => match repository.targets().get(target.as_str()) {
                Some(target) => {
                    targets.insert(target);
                    continue;
                }
                None => format!("{target} is no target of the Makefile"),
            },
            Thing::Rust if repository.compiles(name) => continue,
            Thing::Rust => "no doctest includes this document".to_owned(),
            Thing::File(file) if folder.join(file).exists() => continue,
            Thing::File(file) => format!("{file} is not there"),
        };
        println!("docs: {name}:{}: {wrong}", mention.line);
        failed += 1;
    }
    failed
}

/// How many commands a step has: lines that are neither empty nor a comment nor the rest of one.
fn commands(action: &Action) -> u64 {
    let lines = match action {
        Action::Run { script, .. } => script,
        Action::Type { lines, .. } => lines,
        Action::Press(_) => return 0,
    };
    let mut goes_on = false;
    let begins = |line: &&str| {
        let is_rest = goes_on;
        goes_on = line.ends_with('\\');
        !is_rest && !line.trim().is_empty() && !line.starts_with(['#', ' '])
    };
    lines.lines().filter(begins).count() as u64
}

/// The terminals of a document.
struct Shells<'a> {
    repository: &'a Repository,
    ports: Ports,
    stand_ins: &'a Path,
    folder: PathBuf,
    open: BTreeMap<u32, Terminal>,
}

impl Shells<'_> {
    fn step(&mut self, step: &Step) -> Result<()> {
        let ports = self.ports;
        let all = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| ports.moved(text)).collect()
        };
        let terminal = self.terminal(step.terminal)?;
        match &step.action {
            Action::Run {
                script,
                until: Some(text),
                ..
            } => terminal.run_until(&ports.moved(script), &ports.moved(text)),
            Action::Run {
                script,
                expect,
                until: None,
                exit,
                goes_on,
            } => {
                let within = if *goes_on { EXPECTED } else { COMMANDS };
                let script = ports.moved(script);
                terminal.run(&script, &all(expect), *exit, *goes_on, within)
            }
            Action::Type {
                lines,
                expect,
                until,
            } => {
                let until = until.as_ref().map(|text| ports.moved(text));
                terminal.type_lines(&ports.moved(lines), &all(expect), until.as_deref())
            }
            Action::Press(key) => terminal.press(*key),
        }
        .with_context(|| format!("in terminal {}", step.terminal))
    }

    /// Runs a target that is named in passing.
    fn make(&mut self, target: &str) -> Result<()> {
        let short = SHORT.iter().find(|(name, _, _)| *name == target);
        let (arguments, says) = short.map_or(("", None), |(_, arguments, says)| (arguments, *says));
        let mut script = format!("make {target} {arguments}");
        let mut expect: Vec<_> = says.into_iter().map(str::to_owned).collect();
        if SPEED.contains(&target) {
            script.push_str(" || true");
            expect.push("FIGURE".to_owned());
        }
        script.push('\n');
        self.terminal(1)?
            .run(&script, &expect, 0, says.is_some(), TARGET)?;
        if says.is_some() {
            self.open.clear();
        }
        Ok(())
    }

    fn terminal(&mut self, number: u32) -> Result<&mut Terminal> {
        if !self.open.contains_key(&number) {
            let command = self.repository.shell(self.stand_ins, self.ports.first())?;
            let control = self.folder.join(format!("terminal{number}"));
            let terminal = Terminal::open(command, &self.folder.join("work"), &control)?;
            self.open.insert(number, terminal);
        }
        self.open.get_mut(&number).context("it was opened")
    }

    /// What has ended by itself did so as it should.
    fn end(&mut self) -> Result<()> {
        for (number, terminal) in &mut self.open {
            terminal
                .end_if_it_came()
                .with_context(|| format!("in terminal {number}"))?;
        }
        Ok(())
    }

    fn show(&self) {
        // What was printed last may still be on its way.
        thread::sleep(Duration::from_millis(100));
        for (number, terminal) in &self.open {
            println!("docs: the last lines of terminal {number}:");
            println!("{}", terminal.last_lines(LINES_SHOWN));
        }
    }
}
