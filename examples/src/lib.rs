//! What the examples share and would only distract in them: free ports, and processes.

mod processes;

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use raft_actor::NodeId;

pub use processes::{Processes, told};

/// The first of three ports in a row that nobody listens on.
///
/// # Errors
/// There are none.
pub fn free_ports() -> io::Result<u16> {
    // Below 32768, where Linux's range of source ports begins: a dial could be given the very port that it dials.
    const FIRST: u16 = 10_000;
    const TRIPLES: u16 = 7_000;
    let start = (std::process::id() % u32::from(TRIPLES)) as u16;
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (0..TRIPLES)
        .map(|n| FIRST + (start + n) % TRIPLES * 3)
        .find(|first| (*first..first + 3).all(is_free))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no three ports in a row are free"))
}

/// The nodes 1, 2 and 3 on three ports in a row, as each of them is told.
pub fn peers(first_port: u16) -> impl Iterator<Item = (NodeId, String)> {
    (1..=3)
        .zip(first_port..)
        .map(|(id, port)| (NodeId(id), format!("127.0.0.1:{port}")))
}
