//! Crowds: who comes slowly, who comes and stays, and who comes ten thousand times.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::cluster::Replicas;
use tests::api::memory::look;

use super::PACE;
use super::forge::{connect, frame, kind};
use super::load::{Seen, proposing};
use super::scene::{counted, refused, wait_counted};
use crate::report::Report;

/// Connections that a node keeps in the middle of their handshake: the default of the limits.
const PLACES: usize = 64;
/// Of them, those that drip: none pushes out another.
const SLOW_PER_NODE: usize = 33;
/// What a connection attempt is followed by at the earliest: a thousand in a second.
const ATTEMPT: Duration = Duration::from_millis(1);
/// How many of them are held open.
const HELD: usize = 1_000;

/// One byte a second: how long each is suffered.
pub(crate) fn slow(report: &mut Report, replicas: &Replicas) -> Result<()> {
    let counter = refused("connection", "slow");
    let before = counted(replicas, &counter)?;
    let (times, nodes) = (report.form(100, 100), replicas.ids().count());
    assert!(times / nodes <= SLOW_PER_NODE);
    let mut open = Vec::new();
    for number in 0..times {
        let node = 1 + (number % nodes) as u64;
        let stream = connect(replicas.seat(node).address)?;
        stream.set_nonblocking(true)?;
        open.push((stream, Instant::now()));
    }
    let hello = frame(0, kind::HELLO, 4_000, &[0xc0; 60]);
    let (mut cut, mut next, mut written) = (Vec::new(), Instant::now(), 0);
    while !open.is_empty() && written < hello.len() {
        if Instant::now() >= next {
            next += Duration::from_secs(1);
            for (stream, _) in &mut open {
                // If it has ended, that is seen below.
                let _ = stream.write(&hello[written..=written]);
            }
            written += 1;
        }
        open.retain_mut(|(stream, since)| {
            let mut bytes = [0; 4096];
            let is_open = loop {
                match stream.read(&mut bytes) {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => break error.kind() == std::io::ErrorKind::WouldBlock,
                }
            };
            if !is_open {
                cut.push(since.elapsed());
            }
            is_open
        });
        thread::sleep(Duration::from_millis(1));
    }
    let worst = cut.iter().max().copied().unwrap_or(Duration::MAX);
    let worst = u64::try_from(worst.as_millis()).unwrap_or(u64::MAX);
    report
        .figures
        .at_most("hostile_slow_cut", worst, "ms", 5_000);
    let times = times as u64;
    let named = wait_counted(replicas, &counter, before + times)? - before;
    report
        .figures
        .exactly("hostile_slow_refused", named.min(times), "count", times);
    Ok(())
}

/// Who comes to a node and is not let in.
pub(super) struct Crowd<'a> {
    /// What its figures begin with.
    pub(super) name: &'a str,
    /// What they say who stay.
    pub(super) held: &'a [u8],
    /// What they say who only try, by their number.
    pub(super) attempts: &'a dyn Fn(usize) -> &'a [u8],
}

impl Crowd<'_> {
    /// Connections that say a part of what a handshake may be, and then nothing: what each costs the node.
    pub(super) fn memory(&self, report: &mut Report, replicas: &Replicas, node: u64) -> Result<()> {
        let pid = replicas.pid(node)?;
        let before = look(pid)?.anonymous;
        let mut held = Vec::new();
        for _ in 0..HELD {
            let mut stream = connect(replicas.seat(node).address)?;
            // Those that the node has let go of do not take it.
            let _ = stream.write_all(self.held);
            held.push(stream);
        }
        let mut most = 0;
        for _ in 0..20 {
            most = most.max(look(pid)?.anonymous.saturating_sub(before));
            thread::sleep(Duration::from_millis(50));
        }
        drop(held);
        // Of those that are held open here, the node keeps as many as it has places for.
        let each = most.div_ceil(PLACES as u64);
        let name = format!("{}_connection_memory", self.name);
        report.figures.at_most(&name, each, "KiB", 64);
        Ok(())
    }

    /// Ten thousand attempts under load, a thousand of them held open.
    pub(super) fn flood(&self, report: &mut Report, replicas: &Replicas) -> Result<()> {
        let nodes: Vec<u64> = replicas.ids().collect();
        let rest = Duration::from_secs(report.form(20, 4));
        let quiet = || proposing(replicas, &nodes, PACE, || thread::sleep(rest)).1;
        let before = quiet();
        let attempts = 10_000;
        let (flooded, during) =
            proposing(replicas, &nodes, PACE, || self.attack(replicas, attempts));
        flooded?;
        let after = quiet();
        // The machine may have been faster before than after, or slower.
        let calm = before.median_micros.max(after.median_micros).max(1);
        report.say(&format!(
            "median of a commit: {} µs quiet, {} µs with {attempts} attempts, {} µs after",
            before.median_micros, during.median_micros, after.median_micros
        ));
        let failed: u64 = [before, during, after]
            .iter()
            .map(|seen: &Seen| seen.failed)
            .sum();
        let name = |what| format!("{}_crowd_{what}", self.name);
        let figures = &mut report.figures;
        figures.exactly(&name("failed_proposals"), failed, "count", 0);
        let latency = during.median_micros * 100 / calm;
        figures.at_most(&name("latency"), latency, "%", 200);
        Ok(())
    }

    fn attack(&self, replicas: &Replicas, attempts: usize) -> Result<()> {
        let nodes: Vec<u64> = replicas.ids().collect();
        let mut held: Vec<TcpStream> = Vec::new();
        let mut next = Instant::now();
        for number in 0..attempts {
            let address = replicas.seat(nodes[number % nodes.len()]).address;
            let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2));
            let mut stream = stream.with_context(|| format!("attempt {number}"))?;
            let _ = stream.write_all((self.attempts)(number));
            if held.len() < HELD {
                held.push(stream);
            } else {
                held[number % HELD] = stream;
            }
            next += ATTEMPT;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }
}
