//! Histories of registers, of nine clients at three replicas, under kills, pauses and cuts: with ReadIndex, and with
//! leases. With stale reads, which are switched on deliberately, the checker must find what they broke.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::client::{Session, Trouble, propose};
use tests::api::cluster::{RECOVERY, Replicas};
use tests::api::machine::{Command, Response};
use tests::api::nemesis::{Blow, strike_leader};
use tests::api::wire::{Ask, Name, Told};
use tests::linear::{Answer, Call, INITIAL, Limits, Operation, Verdict, check};
use tests::random::Random;

use crate::report::Report;

const CLIENTS: u64 = 9;
/// Registers that are in use at a time; after a strike others are, so that no history grows for ever.
const REGISTERS: u64 = 4;
/// How long a client repeats a proposal.
const PATIENCE: Duration = Duration::from_secs(8);

pub(crate) fn run(report: &mut Report, mut random: Random) -> Result<()> {
    let strikes = report.form(24, 3);
    let (mut operations, mut violations, mut undecided) = (0, 0, 0);
    for (name, args) in [
        ("readindex", &[][..]),
        ("lease", &["--lease-drift-ms", "50"]),
    ] {
        let way = Way {
            name,
            args,
            stale: false,
            strikes,
        };
        let history = live(report, &way, &mut random)?;
        operations += history.len() as u64;
        match judge(report, name, &history) {
            Verdict::Linearizable => {}
            Verdict::Violated(violation) => {
                violations += 1;
                keep(report, name, &history)?;
                report.fault(&format!("{name}: {violation}"));
            }
            Verdict::Undecided(key, why) => {
                undecided += 1;
                keep(report, name, &history)?;
                report.fault(&format!("{name}: register {key} is undecided: {why}"));
            }
        }
    }
    let floor = report.form(10_000, 500);
    report
        .figures
        .at_least("linear_operations", operations, "count", floor);
    report
        .figures
        .exactly("linear_clients", CLIENTS, "count", CLIENTS);
    report
        .figures
        .exactly("linear_violations", violations, "count", 0);
    report
        .figures
        .exactly("linear_undecided", undecided, "count", 0);

    let way = Way {
        name: "stale",
        args: &[],
        stale: true,
        strikes: 2,
    };
    let history = live(report, &way, &mut random)?;
    let verdict = judge(report, "stale", &history);
    if let Verdict::Violated(violation) = &verdict {
        report.say(&format!("stale reads are found: {violation}"));
    }
    let found = u64::from(matches!(verdict, Verdict::Violated(_)));
    report
        .figures
        .exactly("stale_reads_found", found, "bool", 1);
    Ok(())
}

fn judge(report: &Report, name: &str, history: &[Operation]) -> Verdict {
    let started = Instant::now();
    let verdict = check(history, Limits::default());
    let unknown = history.iter().filter(|o| o.answer.is_none()).count();
    report.say(&format!(
        "{name}: {} operations, {unknown} of unknown outcome, judged in {} ms",
        history.len(),
        started.elapsed().as_millis()
    ));
    verdict
}

/// Writes a history down for somebody to look at.
fn keep(report: &Report, name: &str, history: &[Operation]) -> Result<()> {
    let file = report.dir().join(format!("{name}.history"));
    let mut out = fs::File::create(&file).with_context(|| format!("make {}", file.display()))?;
    for o in history {
        let answered = o.answer.map_or(0, |(at, _)| at);
        writeln!(out, "{} {} {} {answered} {o}", o.key, o.client, o.called)?;
    }
    Ok(())
}

struct Way {
    name: &'static str,
    args: &'static [&'static str],
    stale: bool,
    strikes: u64,
}

fn live(report: &Report, way: &Way, random: &mut Random) -> Result<Vec<Operation>> {
    let replicas = report.replicas(way.name, way.args)?;
    replicas.start_all()?;
    let world = World {
        replicas: &replicas,
        began: Instant::now(),
        stale: way.stale,
        epoch: AtomicU64::new(0),
        values: AtomicU64::new(INITIAL + 1),
        stop: AtomicBool::new(false),
        history: Mutex::new(Vec::new()),
    };
    let sessions: Vec<_> = (0..CLIENTS)
        .map(|_| Session::open(&replicas.links, RECOVERY))
        .collect::<Result<_>>()?;
    thread::scope(|scope| -> Result<()> {
        let world = &world;
        for (number, session) in (0..).zip(&sessions) {
            let random = Random::new(random.number());
            let client = Client {
                number,
                session,
                random,
                world,
            };
            scope.spawn(move || client.live());
        }
        let struck = (0..way.strikes).try_for_each(|strike| {
            thread::sleep(Duration::from_millis(300));
            // A stale read is most likely beside a leader that is cut off and does not know it.
            let blow = if way.stale {
                Blow::CutOff
            } else {
                Blow::number(strike)
            };
            strike_leader(&replicas, blow, random)?;
            world.epoch.fetch_add(1, Ordering::Relaxed);
            if (strike + 1) % 8 == 0 {
                report.say(&format!(
                    "{}: {} of {} struck",
                    way.name,
                    strike + 1,
                    way.strikes
                ));
            }
            Ok(())
        });
        thread::sleep(Duration::from_millis(300));
        world.stop.store(true, Ordering::Relaxed);
        struck
    })?;
    let history = world.history.into_inner();
    Ok(history.unwrap_or_else(PoisonError::into_inner))
}

/// What all clients share.
struct World<'r> {
    replicas: &'r Replicas,
    began: Instant,
    stale: bool,
    epoch: AtomicU64,
    /// No value is written twice.
    values: AtomicU64,
    stop: AtomicBool,
    history: Mutex<Vec<Operation>>,
}

struct Client<'w> {
    number: u64,
    session: &'w Session,
    random: Random,
    world: &'w World<'w>,
}

impl World<'_> {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }
}

impl Client<'_> {
    fn live(mut self) {
        // What this client last saw, to compare with.
        let (mut seen_key, mut seen) = (0, INITIAL);
        while !self.world.stop.load(Ordering::Relaxed) {
            let epoch = self.world.epoch.load(Ordering::Relaxed);
            let key = epoch * REGISTERS + self.random.below(REGISTERS);
            if key != seen_key {
                (seen_key, seen) = (key, INITIAL);
            }
            let new = self.world.values.fetch_add(1, Ordering::Relaxed);
            let call = match self.random.below(4) {
                0 | 1 => Call::Read,
                2 => Call::Write(new),
                _ => Call::Cas(seen, new),
            };
            let called = self.world.now();
            let answered = match call {
                Call::Read => self.read(key),
                Call::Write(value) => self.write(&Command::Write { key, value }),
                Call::Cas(from, to) => self.write(&Command::Cas { key, from, to }),
            };
            let answer = match answered {
                Outcome::Never => {
                    thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Outcome::Unknown => None,
                Outcome::Answer(answer) => Some((self.world.now(), answer)),
            };
            match (call, answer) {
                (_, Some((_, Answer::Value(value)))) => seen = value,
                (Call::Write(value), _)
                | (Call::Cas(_, value), Some((_, Answer::Swapped(true)))) => {
                    seen = value;
                }
                _ => {}
            }
            let operation = Operation {
                client: self.number,
                key,
                call,
                called,
                answer,
            };
            let mut history = self
                .world
                .history
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            history.push(operation);
            drop(history);
            thread::sleep(Duration::from_micros(self.random.below(3000)));
        }
    }

    fn read(&mut self, key: u64) -> Outcome {
        let link = self.world.replicas.link(1 + self.random.below(3));
        let ask = Ask::Read {
            key,
            stale: self.world.stale,
            timeout_ms: 1000,
        };
        match link.ask(ask, Duration::from_millis(1500)) {
            Ok(Told::Value(value)) => Outcome::Answer(Answer::Value(value)),
            // A read that is not answered says nothing.
            _ => Outcome::Never,
        }
    }

    /// Half of the clients' troubles are met by asking again under the same name, the others by going on.
    fn write(&mut self, command: &Command) -> Outcome {
        let name = self.session.name();
        let insists = self.random.below(2) == 0;
        let deadline = Instant::now() + PATIENCE;
        let mut is_certain = true;
        loop {
            match self.attempt(command, name.now()) {
                Ok(Response::Done) => return Outcome::Answer(Answer::Written),
                Ok(Response::Swapped(swapped)) => return Outcome::Answer(Answer::Swapped(swapped)),
                Ok(Response::Sum(_)) => {}
                // Certain of this attempt, and of the name only if it is of all of them.
                Err(Trouble::Refused(refused)) if refused.for_certain => {}
                Err(_) => is_certain = false,
            }
            if !insists || Instant::now() > deadline {
                return if is_certain {
                    Outcome::Never
                } else {
                    Outcome::Unknown
                };
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn attempt(&mut self, command: &Command, name: Name) -> Result<Response, Trouble> {
        let link = self.world.replicas.link(1 + self.random.below(3));
        let timeout = Duration::from_millis(100 + self.random.below(900));
        propose(link, command, name, timeout).map(|(_, response)| response)
    }
}

enum Outcome {
    /// It has no effect, and will have none.
    Never,
    /// It may have one.
    Unknown,
    Answer(Answer),
}
