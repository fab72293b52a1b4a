//! The cluster under attack, and the member that is not what it says: node 3 is stopped, and this program speaks with its
//! identity, which it has from what the others say to it.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tests::api::cluster::Replicas;

use super::forge::{Introduction, connect, kind, read_frame, send};

/// The node whose identity is borrowed.
pub(crate) const BORROWED: u64 = 3;
/// A start counter that the borrowed node never had.
const STARTS: u64 = 1_000_000;
/// How long a number may take to come to where it is asked for.
const COUNTED: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(crate) struct Scene<'r> {
    pub(crate) replicas: &'r Replicas,
    /// What each of the others said to the borrowed one.
    said: BTreeMap<u64, Introduction>,
    /// A number of this process, as a node would draw it.
    run: u64,
    /// A log that may be the borrowed node's.
    held: [u64; 3],
}

/// What all nodes that run have counted under one name.
pub(crate) fn counted(replicas: &Replicas, name: &str) -> Result<u64> {
    let mut sum = 0;
    for id in replicas.ids().filter(|id| replicas.pid(*id).is_ok()) {
        let metrics = replicas.link(id).metrics();
        let metrics = metrics.with_context(|| format!("the metrics of node {id}"))?;
        sum += metrics.get(name).copied().unwrap_or(0);
    }
    Ok(sum)
}

/// The name under which refusals of one sort are counted.
pub(crate) fn refused(what: &str, reason: &str) -> String {
    format!("raft_refused_total{{reason={reason:?},what={what:?}}}")
}

/// Waits until `name` was counted up to `at_least`, or is not any more; gives how far it came.
pub(crate) fn wait_counted(replicas: &Replicas, name: &str, at_least: u64) -> Result<u64> {
    let until = Instant::now() + COUNTED;
    loop {
        let now = counted(replicas, name)?;
        if now >= at_least || Instant::now() > until {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl<'r> Scene<'r> {
    /// Stops node 3 and takes its place.
    pub(crate) fn borrow(replicas: &'r Replicas) -> Result<Self> {
        let status = replicas.status(BORROWED)?;
        replicas.kill(BORROWED)?;
        let listener = TcpListener::bind(replicas.seat(BORROWED).address).context("its address")?;
        listener.set_nonblocking(true)?;
        let mut said = BTreeMap::new();
        let until = Instant::now() + Duration::from_secs(10);
        while said.len() < 2 {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
                    if let Ok((kind::HELLO, body)) = read_frame(&mut stream) {
                        let hello = Introduction::read(&body)?;
                        said.insert(hello.from, hello);
                    }
                }
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => bail!("nobody dials node {BORROWED}"),
            }
        }
        Ok(Self {
            replicas,
            said,
            run: 7,
            held: [status.term, status.term, status.commit + (1 << 20)],
        })
    }

    /// The nodes that are attacked.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.said.keys().copied().collect()
    }

    /// What the borrowed node would say of itself to `to`.
    pub(crate) fn introduction(&self, to: u64) -> Introduction {
        let theirs = &self.said[&to];
        Introduction {
            versions: theirs.versions,
            cluster: theirs.cluster.clone(),
            from: BORROWED,
            to,
            incarnation: theirs.known.clone(),
            starts: STARTS,
            run: self.run,
            known: theirs.incarnation.clone(),
            held: self.held,
            members: theirs.members.clone(),
            address: String::new(),
            extra: Vec::new(),
        }
    }

    /// What node `of` has said of itself.
    pub(crate) fn said(&self, of: u64) -> &Introduction {
        &self.said[&of]
    }

    /// A connection of the borrowed node to `to`, which takes it for what it says.
    pub(crate) fn established(&self, to: u64, hello: u8) -> Result<TcpStream> {
        self.recorded(to, hello).map(|(stream, _)| stream)
    }

    /// The same, with all that was said to establish it.
    pub(crate) fn recorded(&self, to: u64, hello: u8) -> Result<(TcpStream, Vec<u8>)> {
        let mut stream = connect(self.replicas.seat(to).address)?;
        let mut said = self.introduction(to).frame(hello);
        send(&mut stream, &said);
        match read_frame(&mut stream)? {
            (kind::WELCOME, body) => {
                let confirm = Introduction::read(&body)?.confirm()?;
                send(&mut stream, &confirm);
                said.extend(confirm);
                Ok((stream, said))
            }
            (kind::REFUSE, body) => bail!("node {to} refuses: {}", String::from_utf8_lossy(&body)),
            (other, _) => bail!("node {to} answers with a frame of kind {other}"),
        }
    }
}
