//! Who asks the replicas: connections that come and go with them, and sessions that outlive both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::machine::{Command, Response};
use super::wire::{Ask, Name, Refused, Reply, Request, Status, Told};

/// Why there was no answer, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The replica is not there, or went away before it answered.
    Gone,
    /// It did not answer in time.
    Late,
    /// It answered that it cannot.
    Refused(Refused),
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("the replica is not there"),
            Self::Late => f.write_str("no answer in time"),
            Self::Refused(refused) => f.write_str(&refused.why),
        }
    }
}

impl std::error::Error for Trouble {}

type Waiting = Arc<Mutex<HashMap<u64, SyncSender<Result<Told, Refused>>>>>;

/// To one replica, whatever process of it runs. Any number of threads may ask at once.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    open: Mutex<Option<Open>>,
    number: AtomicU64,
}

#[derive(Debug)]
struct Open {
    stream: TcpStream,
    waiting: Waiting,
    lost: Arc<AtomicBool>,
}

impl Link {
    /// To the replica whose control connection is at `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            open: Mutex::new(None),
            number: AtomicU64::new(1),
        }
    }

    /// Asks, and waits for the answer for so long.
    pub fn ask(&self, ask: Ask, timeout: Duration) -> Result<Told, Trouble> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let line = serde_json::to_string(&Request { number, ask }).map_err(|_| Trouble::Gone)?;
        let (answer, answered) = sync_channel(1);
        let waiting = {
            let mut open = lock(&self.open);
            if open.as_ref().is_none_or(|o| o.lost.load(Ordering::Relaxed)) {
                *open = Some(connect(self.address).ok_or(Trouble::Gone)?);
            }
            let Some(connection) = open.as_mut() else {
                return Err(Trouble::Gone);
            };
            lock(&connection.waiting).insert(number, answer);
            if connection
                .stream
                .write_all((line + "\n").as_bytes())
                .is_err()
            {
                *open = None;
                return Err(Trouble::Gone);
            }
            Arc::clone(&connection.waiting)
        };
        let answered = answered.recv_timeout(timeout);
        lock(&waiting).remove(&number);
        match answered {
            Ok(told) => told.map_err(Trouble::Refused),
            Err(RecvTimeoutError::Timeout) => Err(Trouble::Late),
            Err(RecvTimeoutError::Disconnected) => Err(Trouble::Gone),
        }
    }

    /// How the node sees itself.
    pub fn status(&self) -> Result<Status, Trouble> {
        match self.ask(Ask::Status, Duration::from_secs(2))? {
            Told::Status(status) => Ok(status),
            _ => Err(Trouble::Gone),
        }
    }

    /// What the node's process has counted and measured.
    pub fn metrics(&self) -> Result<BTreeMap<String, u64>, Trouble> {
        match self.ask(Ask::Metrics, Duration::from_secs(2))? {
            Told::Metrics(metrics) => Ok(metrics),
            _ => Err(Trouble::Gone),
        }
    }

    /// A value that was asked for.
    pub fn value(&self, ask: Ask, timeout: Duration) -> Result<u64, Trouble> {
        match self.ask(ask, timeout)? {
            Told::Value(value) => Ok(value),
            _ => Err(Trouble::Gone),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

fn connect(address: SocketAddr) -> Option<Open> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok()?;
    // A replica that is stopped must not stop who asks it.
    let _ = stream.set_write_timeout(Some(Duration::from_millis(500)));
    let _ = stream.set_nodelay(true);
    let reader = BufReader::new(stream.try_clone().ok()?);
    let waiting = Waiting::default();
    let lost = Arc::new(AtomicBool::new(false));
    let (answers, over) = (Arc::clone(&waiting), Arc::clone(&lost));
    thread::spawn(move || {
        for line in reader.lines() {
            let Ok(Ok(reply)) = line.map(|line| serde_json::from_str::<Reply>(&line)) else {
                break;
            };
            if let Some(answer) = lock(&answers).remove(&reply.number) {
                // Who asked may have given up.
                let _ = answer.try_send(reply.told);
            }
        }
        over.store(true, Ordering::Relaxed);
        lock(&answers).clear();
    });
    Some(Open {
        stream,
        waiting,
        lost,
    })
}

/// A session of a client, used by several threads at once.
#[derive(Debug)]
pub struct Session {
    id: u64,
    sequences: Mutex<Sequences>,
}

#[derive(Debug)]
struct Sequences {
    next: u64,
    outstanding: BTreeSet<u64>,
}

/// A proposal's name, from its first attempt to its outcome.
#[derive(Debug)]
pub struct Named<'s> {
    session: &'s Session,
    sequence: u64,
}

impl Session {
    /// Opens one, at whichever replica takes it.
    pub fn open(links: &[Link], patience: Duration) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let mut last = Trouble::Gone;
        while Instant::now() < deadline {
            for link in links {
                match Self::open_at(link) {
                    Ok(session) => return Ok(session),
                    Err(trouble) => last = trouble,
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("no session could be opened: {last}")
    }

    /// Opens one at this replica.
    pub fn open_at(link: &Link) -> Result<Self, Trouble> {
        match link.ask(Ask::OpenSession, Duration::from_secs(2))? {
            Told::Session(id) => Ok(Self {
                id,
                sequences: Mutex::new(Sequences {
                    next: 1,
                    outstanding: BTreeSet::new(),
                }),
            }),
            _ => Err(Trouble::Gone),
        }
    }

    /// The next name.
    pub fn name(&self) -> Named<'_> {
        let mut sequences = lock(&self.sequences);
        let sequence = sequences.next;
        sequences.next += 1;
        sequences.outstanding.insert(sequence);
        Named {
            session: self,
            sequence,
        }
    }
}

impl Named<'_> {
    /// As it is proposed now.
    #[must_use]
    pub fn now(&self) -> Name {
        let sequences = lock(&self.session.sequences);
        let done_below = sequences.outstanding.first().copied();
        Name::Client {
            session: self.session.id,
            sequence: self.sequence,
            done_below: done_below.unwrap_or(self.sequence),
        }
    }
}

/// Its outcome is known, or nobody will ask for it any more.
impl Drop for Named<'_> {
    fn drop(&mut self) {
        lock(&self.session.sequences)
            .outstanding
            .remove(&self.sequence);
    }
}

/// One attempt: proposes `command` at `link`.
pub fn propose(
    link: &Link,
    command: &Command,
    name: Name,
    timeout: Duration,
) -> Result<(u64, Response), Trouble> {
    let ask = Ask::Propose {
        command: command.clone(),
        name,
        timeout_ms: timeout.as_millis() as u64,
    };
    // The node's own answer, that it is late, is worth a moment.
    match link.ask(ask, timeout + Duration::from_millis(50))? {
        Told::Applied { index, response } => Ok((index, response)),
        _ => Err(Trouble::Gone),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
