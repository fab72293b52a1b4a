//! Nodes of one process, connected without a wire: for tests, and to measure what a cluster costs beside its network.
//!
//! Whoever listens at `memory/NAME:PORT` is dialled by that address from anywhere in the process, on whatever thread. What
//! both sides get is a pipe of bytes, and beside it one of frames from who dials to who listens. Handshakes, pings and
//! snapshots are bytes as over TCP; the frames of an established connection are handed over as they are, their payloads
//! shared.
//!
//! Invariants:
//! - An address has one listener at a time, and is free when that is dropped.
//! - A pipe holds at most [`PIPE_LEN_MAX`] bytes each way; who writes more waits for the reader.
//! - What frames may wait in it is bounded by the [queue](crate::queue) that they count in until they are taken.
//! - When one end is dropped, the other reads what was written before, and then the end of the stream.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use raft_core::membership::is_address;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

use crate::outgoing::{Handing, Handings};
use crate::queue::Way;

/// What an address inside this process begins with. No host's name does.
const PREFIX: &str = "memory/";
/// What a pipe holds each way: about what the system's buffers do for a connection over loopback.
const PIPE_LEN_MAX: usize = 256 << 10;
/// So many connections wait to be accepted, as in a socket's queue. Who dials when it is full waits, until its limit of
/// time.
const WAITING_MAX: usize = 128;

/// What stands for this process where an address of the network is wanted: for limits and for people.
pub(crate) const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Whether `address` is one inside its own process (`memory/NAME:PORT`), which no other process reaches.
#[must_use]
pub fn is_within_process(address: &str) -> bool {
    address.starts_with(PREFIX)
}

/// Who listens, by its address.
static LISTENERS: Mutex<BTreeMap<String, mpsc::Sender<Pipe>>> = Mutex::new(BTreeMap::new());

fn listeners() -> MutexGuard<'static, BTreeMap<String, mpsc::Sender<Pipe>>> {
    // Nothing panics while it holds the lock; if it did, what is there is still whole.
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) bytes: DuplexStream,
    frames: Frames,
}

#[derive(Debug)]
enum Frames {
    Out(Handing),
    In(Handings),
    /// Whoever reads has them.
    Elsewhere,
}

impl Pipe {
    fn new(bytes: DuplexStream, frames: Frames) -> Self {
        Self { bytes, frames }
    }

    /// How frames get to the other side.
    pub(crate) fn way(&self) -> Way {
        match &self.frames {
            Frames::Out(handing) => Way::Process(handing.clone()),
            Frames::In(_) | Frames::Elsewhere => Way::Lane,
        }
    }

    /// The frames that come, for who reads them; on the side that listens, and once.
    pub(crate) fn handings(&mut self) -> Option<Handings> {
        match mem::replace(&mut self.frames, Frames::Elsewhere) {
            Frames::In(handings) => Some(handings),
            Frames::Out(_) | Frames::Elsewhere => None,
        }
    }
}

/// Listens at one address until it is dropped. Whoever was not accepted by then sees the end of its connection.
#[derive(Debug)]
pub(crate) struct Listening {
    address: String,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Pipe>>,
}

impl Listening {
    pub(crate) fn bind(address: &str) -> io::Result<Self> {
        if !is_within_process(address) || !is_address(address) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut listeners = listeners();
        if listeners.contains_key(address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (come, waiting) = mpsc::channel(WAITING_MAX);
        listeners.insert(address.to_owned(), come);
        Ok(Self {
            address: address.to_owned(),
            waiting: waiting.into(),
        })
    }

    /// Waits for the next that comes. Dropped before, it has taken nobody.
    pub(crate) async fn accept(&self) -> io::Result<Pipe> {
        let next = self.waiting.lock().await.recv().await;
        next.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        listeners().remove(&self.address);
    }
}

/// Connects to who listens at `address`.
pub(crate) async fn connect(address: &str) -> io::Result<Pipe> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let listener = listeners().get(address).cloned().ok_or_else(refused)?;
    let (near, far) = duplex(PIPE_LEN_MAX);
    let (handing, handings) = mpsc::unbounded_channel();
    let (near, far) = (
        Pipe::new(near, Frames::Out(handing)),
        Pipe::new(far, Frames::In(handings)),
    );
    listener.send(far).await.map_err(|_| refused())?;
    Ok(near)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(address: &str) -> (DuplexStream, DuplexStream) {
        let listening = Listening::bind(address).unwrap();
        let near = connect(address).await.unwrap();
        (near.bytes, listening.accept().await.unwrap().bytes)
    }

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[actix_rt::test]
    async fn an_address_is_one_listeners_for_as_long_as_it_lives() {
        const ADDRESS: &str = "memory/one-at-a-time:1";
        let nobody = connect(ADDRESS).await;
        assert_eq!(kind(nobody), io::ErrorKind::ConnectionRefused);
        let listening = Listening::bind(ADDRESS).unwrap();
        assert_eq!(kind(Listening::bind(ADDRESS)), io::ErrorKind::AddrInUse);
        let mut waits = connect(ADDRESS).await.unwrap();
        drop(listening);
        assert_eq!(
            waits.bytes.read(&mut [0]).await.unwrap(),
            0,
            "nobody accepted it"
        );
        let gone = connect(ADDRESS).await;
        assert_eq!(kind(gone), io::ErrorKind::ConnectionRefused);
        drop(Listening::bind(ADDRESS).unwrap());
        for nonsense in ["memory/x", "memory/x:0", "memory/a b:1", "x:1"] {
            assert_eq!(kind(Listening::bind(nonsense)), io::ErrorKind::InvalidInput);
        }
    }

    #[actix_rt::test]
    async fn who_comes_to_a_full_queue_waits() {
        const ADDRESS: &str = "memory/full:1";
        let listening = Listening::bind(ADDRESS).unwrap();
        let mut came = Vec::new();
        for _ in 0..WAITING_MAX {
            came.push(connect(ADDRESS).await.unwrap());
        }
        let mut next = Box::pin(connect(ADDRESS));
        assert!(next.as_mut().now_or_never().is_none());
        listening.accept().await.unwrap();
        next.await.unwrap();
        let mut never = Box::pin(connect(ADDRESS));
        assert!(never.as_mut().now_or_never().is_none());
        drop(listening);
        assert_eq!(kind(never.await), io::ErrorKind::ConnectionRefused);
    }

    #[actix_rt::test]
    async fn a_writer_waits_for_its_reader() {
        let (mut near, mut far) = pair("memory/waits:1").await;
        let more = vec![7; PIPE_LEN_MAX + 1];
        let mut write = Box::pin(near.write_all(&more));
        assert!(write.as_mut().now_or_never().is_none());
        let mut read = vec![0; PIPE_LEN_MAX];
        far.read_exact(&mut read).await.unwrap();
        assert!(far.read(&mut [0]).now_or_never().is_none(), "it held more");
        write.await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), 7);
    }

    #[actix_rt::test]
    async fn when_one_end_goes_the_other_reads_the_rest_and_then_the_end() {
        let (mut near, mut far) = pair("memory/ends:1").await;
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
        assert_eq!(kind(far.write(b"?").await), io::ErrorKind::BrokenPipe);
    }
}
