//! Clients: each has a session and one operation at a time, asks any node, follows hints, and asks again
//! with the same sequence when it does not know what became of its write.
//!
//! Invariants, by name:
//! - `linearizable-reads`: a read sees at least what anybody had seen when it was asked; a lease is judged
//!   by the node's own clock at the answer.
//! - `answered-before-committed`: a write is answered when it is committed and applied, with what its first
//!   run gave.
//! - `read-named-twice`: each read is answered once.

use raft_core::{Entry, Input, LogIndex, ReadId, ReadReady, Rejection, Term};

use crate::broken::{Broken, Check, hold};
use crate::events::Event;
use crate::fate::TICK;
use crate::machine::{Command, KEYS, Response, SESSIONS};
use crate::node::{Proposal, Reading, Ready};
use crate::step::{About, Context};
use crate::time::Happening;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Write(Command),
    Read,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Client {
    session: u8,
    sequence: u32,
    operation: Option<Operation>,
    /// Grows with all that it sends or waits for: what belongs to an earlier attempt is over.
    attempt: u64,
    /// How often the operation was sent, and whether its outcome became unknown.
    sent: u32,
    target: usize,
}

impl Client {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            session: number as u8,
            sequence: 0,
            operation: None,
            attempt: 0,
            sent: 0,
            target: 0,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.operation.is_none()
    }
}

impl World {
    /// A client begins something, or has waited for too long.
    pub(crate) fn client_wakes(&mut self, c: usize, attempt: u64) -> Check {
        if self.clients[c].attempt != attempt {
            return Ok(());
        }
        if self.clients[c].operation.is_none() {
            if !self.rough {
                return Ok(());
            }
            self.begin(c);
        }
        let up: Vec<usize> = (0..self.nodes.len())
            .filter(|n| self.nodes[*n].is_up())
            .collect();
        // Whoever thinks that it leads is asked often: that may be somebody who does not any more.
        let leaders = self.leaders();
        let target = match (up.is_empty(), leaders.is_empty()) {
            (true, _) => 0,
            (false, false) if self.random.permille(400) => self.random.pick(&leaders),
            (false, _) => self.random.pick(&up),
        };
        self.send_request(c, target);
        Ok(())
    }

    fn begin(&mut self, c: usize) {
        let reads = self.random.permille(self.fate.reads);
        let (key, delta) = (self.random.below(KEYS as u64), self.random.between(1, 9));
        let client = &mut self.clients[c];
        client.sent = 0;
        client.operation = Some(match reads {
            true => Operation::Read,
            false => {
                client.sequence += 1;
                Operation::Write(Command {
                    session: client.session,
                    sequence: client.sequence,
                    key: key as u8,
                    delta: delta as u32,
                })
            }
        });
    }

    fn send_request(&mut self, c: usize, node: usize) {
        let delay = self.random.between(100, TICK);
        let (least, most) = match (self.rough, self.fate.hunts) {
            (true, true) => (2, 6),
            (true, false) => (10, 40),
            (false, _) => (10, 15),
        };
        let patience = self.random.between(least, most) * TICK;
        let client = &mut self.clients[c];
        client.attempt += 1;
        client.sent += 1;
        client.target = node;
        let attempt = client.attempt;
        if client.sent > 1 {
            let event = match client.operation {
                Some(Operation::Read) => Event::ReadRetried,
                _ => Event::WriteRetried,
            };
            self.counts.add(event);
        }
        let client = c;
        self.plan.at(
            self.now + delay,
            Happening::Request {
                node,
                client,
                attempt,
            },
        );
        self.plan.at(
            self.now + patience,
            Happening::ClientWakes { client, attempt },
        );
    }

    /// A request is at a node's door. Who does not run does not answer.
    pub(crate) fn request(&mut self, n: usize, c: usize, attempt: u64) -> Check {
        let client = &self.clients[c];
        if client.attempt != attempt {
            return Ok(());
        }
        let Some(run) = &mut self.nodes[n].run else {
            return Ok(());
        };
        match client.operation {
            None => Ok(()),
            Some(Operation::Write(command)) => {
                let padding = self.padding();
                let commands = vec![command.encode(padding)];
                let context = Context::Write { client: c, attempt };
                self.step(n, Input::Propose(commands), context)
            }
            Some(Operation::Read) => {
                run.next_read += 1;
                let read = ReadId(run.next_read);
                run.reads.push(Reading {
                    read,
                    client: c,
                    attempt,
                    floor: self.history.visible,
                    asked_tick: run.ticks,
                });
                self.say(n, Input::ReadIndex(read))
            }
        }
    }

    fn padding(&mut self) -> usize {
        match self.random.permille(self.fate.padded) {
            true => 300,
            false => 0,
        }
    }

    /// Commands that nobody waits for, several at once.
    pub(crate) fn propose_bulk(&mut self, n: usize) -> Check {
        let count = self.random.between(1, 5);
        let mut commands = Vec::new();
        for _ in 0..count {
            let padding = self.padding();
            let key = self.random.below(KEYS as u64) as u8;
            let (session, sequence, delta) = (SESSIONS as u8, 0, 1);
            let command = Command {
                session,
                sequence,
                key,
                delta,
            };
            commands.push(command.encode(padding));
        }
        self.step(n, Input::Propose(commands), Context::Bulk)
    }

    /// A node has a client's write in its log.
    pub(crate) fn appended(
        &mut self,
        n: usize,
        about: &About,
        index: LogIndex,
        term: Term,
        _count: usize,
    ) {
        let Context::Write { client, attempt } = about.context else {
            return;
        };
        let run = self.nodes[n].run.as_mut().unwrap();
        run.proposals.push(Proposal {
            client,
            attempt,
            index,
            term,
        });
    }

    /// An entry was applied: whoever waits for its index is answered, or is told that another one stands
    /// there.
    pub(crate) fn answer_writes(
        &mut self,
        n: usize,
        entry: &Entry,
        response: Option<Response>,
    ) -> Check {
        let run = self.nodes[n].run.as_mut().unwrap();
        if run.proposals.is_empty() {
            return Ok(());
        }
        let index = entry.id.index;
        let due: Vec<Proposal> = run
            .proposals
            .iter()
            .copied()
            .filter(|p| p.index == index)
            .collect();
        run.proposals.retain(|proposal| proposal.index != index);
        for Proposal {
            client,
            attempt,
            term,
            ..
        } in due
        {
            if term != entry.id.term {
                self.count(Event::WriteLost);
                self.retry_soon(client, attempt, None);
                continue;
            }
            self.check_answer(n, entry, response)?;
            self.history.visible = self.history.visible.max(index);
            self.finish(client, attempt);
        }
        Ok(())
    }

    fn check_answer(&self, n: usize, entry: &Entry, response: Option<Response>) -> Check {
        let command = Command::decode(&entry.data);
        let first = command.and_then(|c| self.history.answer(c.session, c.sequence));
        hold!(
            first.is_some() && first == response.map(|response| response.value),
            "answered-before-committed",
            "node {} answers {command:?} at {} with {response:?}, and its first run gave {first:?}",
            self.nodes[n].id,
            entry.id
        );
        Ok(())
    }

    fn finish(&mut self, c: usize, attempt: u64) {
        let client = &mut self.clients[c];
        if client.attempt != attempt {
            return;
        }
        client.operation = None;
        client.attempt += 1;
        let attempt = client.attempt;
        let at = self.now + self.random.below(self.fate.think * TICK) + 1;
        self.plan
            .at(at, Happening::ClientWakes { client: c, attempt });
    }

    /// An operation was refused, and did not happen: the client asks the leader, or anybody a little later.
    pub(crate) fn refused(&mut self, c: usize, attempt: u64, n: usize, rejection: Rejection) {
        let leader = match rejection {
            Rejection::NotLeader {
                leader: Some(leader),
            } => Some(leader.0 as usize - 1).filter(|leader| *leader != n),
            _ => None,
        };
        self.retry_soon(c, attempt, leader);
    }

    fn retry_soon(&mut self, c: usize, attempt: u64, hint: Option<usize>) {
        let client = &mut self.clients[c];
        if client.attempt != attempt {
            return;
        }
        if let Some(leader) = hint {
            return self.send_request(c, leader);
        }
        client.attempt += 1;
        let attempt = client.attempt;
        let at = self.now + self.random.between(1, 6) * TICK;
        self.plan
            .at(at, Happening::ClientWakes { client: c, attempt });
    }

    fn take_reading(&mut self, n: usize, read: ReadId) -> Result<Reading, Broken> {
        let node = &mut self.nodes[n];
        let run = node.run.as_mut().unwrap();
        match run.reads.iter().position(|reading| reading.read == read) {
            Some(at) => Ok(run.reads.swap_remove(at)),
            None => Err(Broken {
                invariant: "read-named-twice",
                detail: format!("node {} answers read {read}, which does not wait", node.id),
            }),
        }
    }

    pub(crate) fn reads_ready(&mut self, n: usize, ready: &ReadReady, on_leader: bool) -> Check {
        for read in &ready.reads {
            let reading = self.take_reading(n, *read)?;
            let (index, lease_until) = (ready.index, ready.lease_until_ticks);
            let run = self.nodes[n].run.as_mut().unwrap();
            run.ready.push(Ready {
                reading,
                index,
                lease_until,
                on_leader,
            });
        }
        self.answer_ready_reads(n);
        Ok(())
    }

    pub(crate) fn reads_failed(&mut self, n: usize, reads: &[ReadId], reason: Rejection) -> Check {
        for read in reads {
            let reading = self.take_reading(n, *read)?;
            match reason {
                Rejection::ReadTimedOut => self.count(Event::ReadTimedOut),
                Rejection::Transferring { .. } => self.count(Event::ReadFenced),
                _ => {}
            }
            self.refused(reading.client, reading.attempt, n, reason);
        }
        Ok(())
    }

    /// A read is answered from the state as it is now; if it rests on a lease, the clock decides.
    pub(crate) fn answer_read(&mut self, n: usize, ready: Ready) -> Check {
        let node = &self.nodes[n];
        let (clock, run) = (node.clock(self.now), node.run.as_ref().unwrap());
        let (id, applied, reading) = (node.id, run.machine.applied, ready.reading);
        if ready.lease_until.is_some_and(|until| clock >= until) {
            self.count(Event::LeaseExpired);
            self.retry_soon(reading.client, reading.attempt, None);
            return Ok(());
        }
        hold!(
            applied >= ready.index && applied >= reading.floor,
            "linearizable-reads",
            "node {id} answers a read at {applied} (read index {}, lease until {:?}, clock {clock}), and {} \
             had been seen when it was asked",
            ready.index,
            ready.lease_until,
            reading.floor
        );
        self.history.visible = self.history.visible.max(applied);
        self.count(match (ready.lease_until, ready.on_leader) {
            (Some(_), _) => Event::ReadByLease,
            (None, true) => Event::ReadByQuorum,
            (None, false) => Event::ReadOnFollower,
        });
        self.finish(reading.client, reading.attempt);
        Ok(())
    }
}
