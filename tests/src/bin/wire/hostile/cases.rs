//! One thing that is sent a hundred times, and the name under which each must be counted as refused.

use std::net::TcpStream;

use anyhow::{Context as _, Result};
use tests::api::wire::Status;

use super::forge::{connect, kind, send, wait_end};
use super::scene::{Scene, counted, refused, wait_counted};
use crate::report::Report;

/// How it is sent.
pub(crate) enum Way {
    /// Each on a connection of its own, which says nothing before.
    Stranger(fn(&Scene<'_>, u64) -> Vec<u8>),
    /// Each on a connection of the borrowed node, which it ends.
    Frame(fn(&Now) -> Vec<u8>),
    /// All on one connection of the borrowed node to the leader, which does not end.
    Message(fn(&Now) -> Vec<u8>),
    /// Each in a way of its own.
    Own(fn(&Scene<'_>, &Now, u64) -> Result<()>),
}

/// How the cluster stands while it is attacked.
pub(crate) struct Now {
    pub(crate) term: u64,
    pub(crate) commit: u64,
    pub(crate) leader: u64,
    /// The last entry of the leader's snapshot.
    pub(crate) snapshot: u64,
}

impl Now {
    pub(crate) fn of(leader: u64, status: &Status) -> Self {
        Self {
            term: status.term,
            commit: status.commit,
            leader,
            snapshot: status.snapshot,
        }
    }
}

/// See the [module](self).
pub(crate) struct Case {
    /// What is wrong with it, in words.
    pub(crate) name: &'static str,
    /// What is refused: a connection, a frame, a message or a snapshot.
    pub(crate) what: &'static str,
    /// The name of the refusal.
    pub(crate) reason: &'static str,
    pub(crate) way: Way,
}

impl Case {
    pub(crate) const fn new(
        name: &'static str,
        what: &'static str,
        reason: &'static str,
        way: Way,
    ) -> Self {
        Self {
            name,
            what,
            reason,
            way,
        }
    }

    /// Sends it `times` times. Gives how many were counted as refused by their name.
    pub(crate) fn run(&self, scene: &Scene<'_>, report: &mut Report, times: u64) -> Result<u64> {
        let counter = refused(self.what, self.reason);
        let before = counted(scene.replicas, &counter)?;
        // Open until all of it was read: the end of a connection can overtake what came before it.
        let _open = match self.send(scene, times) {
            Ok(open) => open,
            Err(error) => {
                report.fault(&format!("while {} was sent: {error:#}", self.name));
                None
            }
        };
        let after = wait_counted(scene.replicas, &counter, before + times)?;
        let counted = after - before;
        let exactly = counted == times;
        if !exactly {
            report.fault(&format!(
                "{}: of {times}, {counted} were counted as {} refused for {}",
                self.name, self.what, self.reason
            ));
        }
        Ok(counted.min(times))
    }

    fn send(&self, scene: &Scene<'_>, times: u64) -> Result<Option<TcpStream>> {
        let replicas = scene.replicas;
        let leader = replicas.leader(Some(super::scene::BORROWED));
        let leader = leader.context("nobody leads")?;
        let now = Now::of(leader, &replicas.status(leader)?);
        let nodes = scene.nodes();
        let mut open: Option<TcpStream> = None;
        for number in 0..times as usize {
            let node = nodes[number % nodes.len()];
            match self.way {
                Way::Stranger(bytes) => {
                    let mut stream = connect(replicas.seat(node).address)?;
                    send(&mut stream, &bytes(scene, node));
                    wait_end(&mut stream)?;
                }
                Way::Frame(bytes) => {
                    let mut stream = scene.established(node, kind::HELLO)?;
                    send(&mut stream, &bytes(&now));
                    wait_end(&mut stream)?;
                }
                Way::Message(bytes) => {
                    let stream = match &mut open {
                        Some(stream) => stream,
                        None => open.insert(scene.established(leader, kind::HELLO)?),
                    };
                    send(stream, &bytes(&now));
                }
                Way::Own(act) => act(scene, &now, node)?,
            }
        }
        Ok(open)
    }
}
