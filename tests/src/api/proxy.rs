//! The wires between the nodes: a TCP proxy for each ordered pair, which can be cut.
//!
//! A cut wire swallows nothing and closes nothing: what is sent waits, as it does in a network that has lost a link, and
//! new connections open and stay silent. When the wire is mended, what was connected through it is closed, and both
//! sides dial anew.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// How often a thread looks whether its wire was cut or mended.
const GLANCE: Duration = Duration::from_millis(20);

/// One direction of dialling between two nodes; what it carries goes both ways.
#[derive(Debug)]
pub struct Wire {
    state: Arc<State>,
    /// Where the dialling node reaches the other.
    pub address: SocketAddr,
}

#[derive(Debug)]
struct State {
    to: SocketAddr,
    cut: AtomicBool,
    /// How often it was mended: a connection is of the time in which it began.
    mended: AtomicU64,
    gone: AtomicBool,
}

impl Wire {
    /// A wire from `port` on loopback to `to`.
    pub fn new(port: u16, to: SocketAddr) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).with_context(|| format!("bind {address}"))?;
        let state = Arc::new(State {
            to,
            cut: AtomicBool::new(false),
            mended: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.gone.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let state = Arc::clone(&accepting);
                thread::spawn(move || state.carry(stream));
            }
        });
        Ok(Self { state, address })
    }

    /// Cuts it.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    /// Mends it.
    pub fn mend(&self) {
        if self.state.cut.swap(false, Ordering::Relaxed) {
            self.state.mended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.gone.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl State {
    fn carry(self: Arc<Self>, near: TcpStream) {
        let began = self.mended.load(Ordering::Relaxed);
        while self.cut.load(Ordering::Relaxed) && !self.gone.load(Ordering::Relaxed) {
            thread::sleep(GLANCE);
        }
        if self.is_over(began) {
            return;
        }
        let Ok(far) = TcpStream::connect_timeout(&self.to, Duration::from_secs(1)) else {
            return;
        };
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else {
            return;
        };
        let state = Arc::clone(&self);
        let back = thread::spawn(move || state.pump(far_too, near_too, began));
        self.pump(near, far, began);
        // It cannot panic, and ends with its sockets.
        let _ = back.join();
    }

    fn is_over(&self, began: u64) -> bool {
        self.gone.load(Ordering::Relaxed) || self.mended.load(Ordering::Relaxed) != began
    }

    /// Carries bytes until one side is done, and then ends both.
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, began: u64) {
        let mut buffer = vec![0; 64 << 10];
        let _ = from.set_nodelay(true);
        let _ = from.set_read_timeout(Some(GLANCE));
        while !self.is_over(began) {
            if self.cut.load(Ordering::Relaxed) {
                thread::sleep(GLANCE);
                continue;
            }
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    // What was read when the wire was cut is on its way no more.
                    while self.cut.load(Ordering::Relaxed) && !self.is_over(began) {
                        thread::sleep(GLANCE);
                    }
                    if self.is_over(began) || to.write_all(&buffer[..len]).is_err() {
                        break;
                    }
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(_) => break,
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::free_ports;

    #[test]
    fn a_cut_wire_holds_what_it_carries_and_ends_when_it_is_mended() {
        let ports = free_ports(2).unwrap();
        let far = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0])).unwrap();
        let wire = Wire::new(ports[1], far.local_addr().unwrap()).unwrap();
        let soon = Some(Duration::from_secs(5));
        let mut near = TcpStream::connect(wire.address).unwrap();
        let (mut other, _) = far.accept().unwrap();
        near.write_all(b"one").unwrap();
        let mut read = [0; 3];
        other.set_read_timeout(soon).unwrap();
        other.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"one");
        wire.cut();
        near.write_all(b"two").unwrap();
        other
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(other.read_exact(&mut read).is_err());
        wire.mend();
        other.set_read_timeout(soon).unwrap();
        assert_eq!(other.read(&mut read).unwrap_or(0), 0);
        let mut near = TcpStream::connect(wire.address).unwrap();
        let (mut other, _) = far.accept().unwrap();
        near.write_all(b"six").unwrap();
        other.set_read_timeout(soon).unwrap();
        other.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"six");
    }
}
