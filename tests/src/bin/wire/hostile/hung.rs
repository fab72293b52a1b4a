//! A member that reads nothing of what it is sent, and acknowledges all of it: what that costs the leader.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::api::memory::look;

use super::forge::{Body, Introduction, kind, read_frame};
use super::load::{Pace, proposing};
use super::scene::{BORROWED, Scene};
use crate::report::Report;

/// Full load, in bytes too.
const PACE: Pace = Pace {
    threads: 8,
    pause: Duration::ZERO,
    bytes: 16 << 10,
};
/// What may wait for one peer: the default of the limits.
const QUEUE_MIB: u64 = 32;
/// What the leader may take beside it.
const BESIDE_MIB: u64 = 32;

pub(crate) fn run(report: &mut Report, scene: &Scene<'_>) -> Result<()> {
    let replicas = scene.replicas;
    let leader = replicas.leader(Some(BORROWED)).context("nobody leads")?;
    let pid = replicas.pid(leader)?;
    let length = Duration::from_secs(report.form(300, 20));
    let nodes = [leader];
    // Without that peer, under the same load, until the memory has found its level.
    let (before, quiet) = proposing(replicas, &nodes, PACE, || {
        most(pid, length.min(Duration::from_secs(20)) / 2)
    });
    let before = before?;
    let over = AtomicBool::new(false);
    let (during, loud) = thread::scope(|scope| {
        let hangs = scope.spawn(|| hang(scene, leader, &over));
        let seen = proposing(replicas, &nodes, PACE, || most(pid, length));
        over.store(true, Ordering::Relaxed);
        hangs.join().map(|hung| (hung, seen))
    })
    .map_err(|_| anyhow::anyhow!("the hung peer's thread panicked"))
    .and_then(|(hung, (most, seen))| {
        let times = hung?;
        report.say(&format!(
            "the leader dialled the peer that reads nothing {times} times"
        ));
        Ok((most?, seen))
    })?;
    report.say(&format!(
        "commits in a second: {} without, {} with a peer that reads nothing; {} and {} MiB",
        quiet.answered as u64 / (length.min(Duration::from_secs(20)) / 2).as_secs().max(1),
        loud.answered as u64 / length.as_secs().max(1),
        before >> 10,
        during >> 10,
    ));
    let more = during.saturating_sub(before).div_ceil(1 << 10);
    report
        .figures
        .at_most("hostile_hung_memory", more, "MiB", QUEUE_MIB + BESIDE_MIB);
    Ok(())
}

/// The most memory of process `pid` in that time, in KiB.
fn most(pid: i32, length: Duration) -> Result<u64> {
    let until = Instant::now() + length;
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(look(pid)?.anonymous);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(most)
}

/// Is the peer. Says how often it was dialled by the leader.
fn hang(scene: &Scene<'_>, leader: u64, over: &AtomicBool) -> Result<u64> {
    let listener =
        TcpListener::bind(scene.replicas.seat(BORROWED).address).context("its address")?;
    listener.set_nonblocking(true)?;
    // All of them, to the end: nothing of what this peer does ends a connection.
    let mut open: Vec<TcpStream> = Vec::new();
    let (mut speaks, mut dialled) = (None, 0);
    while !over.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept()
            && let Some((from, stream)) = welcome(scene, stream)
        {
            dialled += u64::from(from == leader);
            open.push(stream);
        }
        let status = scene.replicas.status(leader)?;
        let stream = match &mut speaks {
            Some(stream) => stream,
            None => speaks.insert(scene.established(leader, kind::HELLO)?),
        };
        // Alive, and up to date: so it says.
        let heard = Body::array(2)
            .uints(&[status.term, 0])
            .frame(kind::HEARTBEAT_RESPONSE);
        let accepted = Body::array(2)
            .uints(&[status.term, status.commit])
            .frame(kind::APPEND_ACCEPTED);
        if stream.write_all(&[heard, accepted].concat()).is_err() {
            speaks = None;
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(dialled)
}

/// Answers a dial as the borrowed node would.
fn welcome(scene: &Scene<'_>, mut stream: TcpStream) -> Option<(u64, TcpStream)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    let (_, body) = read_frame(&mut stream).ok()?;
    let from = Introduction::read(&body).ok()?.from;
    let ours = scene.introduction(from).frame(kind::WELCOME);
    stream.write_all(&ours).ok()?;
    Some((from, stream))
}
