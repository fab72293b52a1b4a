//! Many seeds: on several threads, with progress, and from where an earlier campaign stopped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::broken::Broken;
use crate::events::{Counts, Event};
use crate::run::{Outcome, run};

/// Seeds that are counted as one line of the state.
const CHUNK: u64 = 25;

/// Which seeds are to be run, and how.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The first seed.
    pub from: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// Where finished chunks are written down, and read again.
    pub state: Option<PathBuf>,
    /// Whether the first violation ends it.
    pub stop_at_first: bool,
    /// Whether each seed is run twice and must give the same digest.
    pub twice: bool,
    /// Whether progress is printed.
    pub progress: bool,
}

/// What a campaign saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that were run, now or before.
    pub seeds: u64,
    /// Steps of all of them.
    pub steps: u64,
    /// The fewest steps of a seed that ended well.
    pub steps_min: u64,
    /// Seeds and steps of this time alone, and how long they took.
    pub fresh_steps: u64,
    /// How long this time took, in seconds.
    pub seconds: f64,
    /// All events.
    pub counts: Counts,
    /// What broke, with its seed, in the order of the seeds.
    pub violations: BTreeMap<u64, Broken>,
}

#[derive(Clone, Debug, Default)]
struct Chunk {
    seeds: u64,
    steps: u64,
    steps_min: u64,
    counts: Counts,
    violations: Vec<(u64, Broken)>,
}

impl Campaign {
    /// Runs it.
    ///
    /// # Errors
    /// The state cannot be read or written, or is of another table of events.
    pub fn run(&self) -> Result<Report> {
        let begun = Instant::now();
        let mut report = Report {
            steps_min: u64::MAX,
            ..Report::default()
        };
        let (mut file, done) = self.open_state(&mut report)?;
        let end = self.from + self.seeds;
        let starts: Vec<u64> = (self.from..end).step_by(CHUNK as usize).collect();
        let starts: Vec<u64> = starts
            .into_iter()
            .filter(|start| !done.contains_key(start))
            .collect();
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let (gathered, failure) = (Mutex::new((&mut report, &mut file)), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..self.threads.max(1) {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                        let Some(start) = starts.get(at).copied() else {
                            break;
                        };
                        let Some(chunk) = self.run_chunk(start, end.min(start + CHUNK), &stop)
                        else {
                            break;
                        };
                        if let Ok(mut gathered) = gathered.lock()
                            && let Err(error) = self.gather(&mut gathered, start, chunk, begun)
                            && let Ok(mut failure) = failure.lock()
                        {
                            *failure = Some(error);
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        report.seconds = begun.elapsed().as_secs_f64();
        match failure.into_inner() {
            Ok(Some(error)) => Err(error),
            _ => Ok(report),
        }
    }

    /// None if it was stopped before its end, and has nothing to tell.
    fn run_chunk(&self, start: u64, end: u64, stop: &AtomicBool) -> Option<Chunk> {
        let mut chunk = Chunk {
            steps_min: u64::MAX,
            ..Chunk::default()
        };
        for seed in start..end {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            let outcome = self.run_seed(seed);
            chunk.seeds += 1;
            chunk.steps += outcome.steps;
            chunk.counts.absorb(&outcome.counts);
            match outcome.broken {
                None => chunk.steps_min = chunk.steps_min.min(outcome.steps),
                Some(broken) => {
                    chunk.violations.push((seed, broken));
                    if self.stop_at_first {
                        stop.store(true, Ordering::Relaxed);
                        break;
                    }
                }
            }
        }
        Some(chunk)
    }

    fn run_seed(&self, seed: u64) -> Outcome {
        let mut outcome = run(seed);
        if self.twice {
            let again = run(seed);
            if outcome.digest != again.digest {
                outcome.broken = Some(Broken {
                    invariant: "same-seed-same-run",
                    detail: format!("digests {:016x} and {:016x}", outcome.digest, again.digest),
                });
            }
        }
        outcome
    }

    fn gather(
        &self,
        (report, file): &mut (&mut Report, &mut Option<File>),
        start: u64,
        chunk: Chunk,
        begun: Instant,
    ) -> Result<()> {
        if let Some(file) = file
            && chunk.violations.is_empty()
        {
            writeln!(file, "{}", line(start, &chunk)).context("cannot write the state")?;
        }
        report.fresh_steps += chunk.steps;
        let seconds = begun.elapsed().as_secs_f64();
        report.take(chunk);
        if self.progress {
            eprintln!(
                "{} of {} seeds, {} violations, {:.0} steps per second",
                report.seeds,
                self.seeds,
                report.violations.len(),
                report.fresh_steps as f64 / seconds.max(0.001)
            );
        }
        Ok(())
    }

    fn open_state(&self, report: &mut Report) -> Result<(Option<File>, BTreeMap<u64, ()>)> {
        let mut done = BTreeMap::new();
        let Some(folder) = &self.state else {
            return Ok((None, done));
        };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("seeds-{}-{}.txt", self.from, self.seeds));
        for text in read_lines(&path)? {
            let Some((start, chunk)) = parse(&text) else {
                bail!(
                    "{}: this line is of another simulation: {text}",
                    path.display()
                );
            };
            if done.insert(start, ()).is_none() {
                report.take(chunk);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        Ok((Some(file), done))
    }
}

impl Report {
    fn take(&mut self, chunk: Chunk) {
        self.seeds += chunk.seeds;
        self.steps += chunk.steps;
        self.steps_min = self.steps_min.min(chunk.steps_min);
        self.counts.absorb(&chunk.counts);
        self.violations.extend(chunk.violations);
    }

    /// Steps in a second, of all threads together.
    #[must_use]
    pub fn steps_per_second(&self) -> u64 {
        (self.fresh_steps as f64 / self.seconds.max(0.001)) as u64
    }
}

fn read_lines(path: &Path) -> Result<Vec<String>> {
    match fs::read_to_string(path) {
        // A line without an end is one that was not finished.
        Ok(text) => Ok(text
            .split_inclusive('\n')
            .filter(|l| l.ends_with('\n'))
            .map(|l| l.trim().to_owned())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A finished chunk without violations: its first seed, its seeds, its steps, the fewest steps, its events.
fn line(start: u64, chunk: &Chunk) -> String {
    let counts: Vec<String> = chunk.counts.numbers().iter().map(u64::to_string).collect();
    let (seeds, steps, least) = (chunk.seeds, chunk.steps, chunk.steps_min);
    format!(
        "{} {start} {seeds} {steps} {least} {}",
        version(),
        counts.join(" ")
    )
}

fn parse(text: &str) -> Option<(u64, Chunk)> {
    let (head, rest) = text.split_once(' ')?;
    if head != version() {
        return None;
    }
    let numbers: Result<Vec<u64>, _> = rest.split(' ').map(str::parse).collect();
    let mut numbers = numbers.ok()?;
    let counts = Counts::from_numbers(numbers.split_off(4))?;
    let chunk = Chunk {
        seeds: numbers[1],
        steps: numbers[2],
        steps_min: numbers[3],
        counts,
        violations: Vec::new(),
    };
    Some((numbers[0], chunk))
}

/// Names the table of events, so that counts of another one are not taken for these.
fn version() -> String {
    let words = Event::ALL.iter().map(|event| event.words());
    let bytes = words.flat_map(str::bytes);
    let sum = bytes.fold(7, |sum, byte| crate::machine::chain(sum, u64::from(byte)));
    format!("{:08x}", sum as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_state_is_read_as_it_was_written() {
        let mut chunk = Chunk {
            seeds: 25,
            steps: 7,
            ..Chunk::default()
        };
        chunk.counts.add(Event::VoteSplit);
        let (start, read) = parse(&line(50, &chunk)).unwrap();
        assert_eq!((start, read.seeds, read.steps), (50, 25, 7));
        assert_eq!(read.counts, chunk.counts);
        assert!(parse("00000000 1 2 3 4").is_none());
    }
}
