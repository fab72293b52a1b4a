//! Snapshots: taken of what is applied, written to a file, sent, received, and installed.
//!
//! Invariants, by name:
//! - `snapshot-file`: what a node sends or starts from is a file that it has.
//! - `one-transfer-at-a-time`: to one receiver, in one reign.

use raft_core::{Input, InstallSnapshot, NodeId, SnapshotMeta};

use crate::broken::{Broken, Check, hold};
use crate::events::Event;
use crate::fate::TICK;
use crate::node::File;
use crate::time::{Happening, Transfer};
use crate::world::World;

impl World {
    /// An operator, or the node itself, wants a snapshot of what is applied now.
    pub(crate) fn take_snapshot(&mut self, n: usize) -> Check {
        let node = &mut self.nodes[n];
        let Some(run) = &node.run else { return Ok(()) };
        let machine = run.machine;
        let Some(meta) = run.raft.snapshot_at(machine.applied) else {
            return Ok(());
        };
        self.history.check_snapshot(node.id, &meta)?;
        if node.file(&meta).is_some() {
            return Ok(());
        }
        let durable = false;
        node.files.push(File {
            meta: meta.clone(),
            machine,
            durable,
        });
        let at = self.now + self.random.between(100, 4 * TICK);
        let (node, start) = (n, node.config.start);
        self.plan
            .at(at, Happening::SnapshotWritten { node, start, meta });
        Ok(())
    }

    pub(crate) fn snapshot_written(&mut self, n: usize, meta: SnapshotMeta) -> Check {
        let node = &mut self.nodes[n];
        let Some(file) = node.files.iter_mut().find(|file| file.meta == meta) else {
            return Ok(());
        };
        file.durable = true;
        self.step(
            n,
            Input::SnapshotTaken(meta.clone()),
            crate::step::Context::None,
        )?;
        self.drop_unwanted(n, &meta);
        Ok(())
    }

    /// If the core did not take a snapshot, its file may go.
    fn drop_unwanted(&mut self, n: usize, meta: &SnapshotMeta) {
        let node = &mut self.nodes[n];
        let Some(run) = &node.run else { return };
        let current =
            run.raft.snapshot() == Some(meta) || node.disk.snapshot.as_ref() == Some(meta);
        let pending = node.disk.pending().iter();
        let named = pending
            .filter_map(|p| p.snapshot.as_ref())
            .any(|s| s.snapshot == *meta);
        if !current && !named {
            node.files.retain(|file| file.meta != *meta);
        }
    }

    pub(crate) fn send_snapshot(
        &mut self,
        n: usize,
        to: NodeId,
        message: InstallSnapshot,
    ) -> Check {
        let node = &mut self.nodes[n];
        let run = node.run.as_mut().unwrap();
        let id = node.id;
        let idle = !run.sending.contains(to);
        hold!(
            idle,
            "one-transfer-at-a-time",
            "node {id} sends two snapshots to {to}"
        );
        run.sending.insert(to);
        let start = node.config.start;
        let file = node.file(&message.snapshot).filter(|file| file.durable);
        let Some(machine) = file.map(|file| file.machine) else {
            return Err(Broken {
                invariant: "snapshot-file",
                detail: format!(
                    "node {id} is to send {}, of which it has no file",
                    message.snapshot.last
                ),
            });
        };
        let receiver = to.0 as usize - 1;
        let transfer = Box::new(Transfer {
            from: n,
            from_start: start,
            to: receiver,
            to_start: self.nodes[receiver].config.start,
            message,
            machine,
        });
        let longest = self.random.pick(&[2, 10, 40]) * TICK;
        let at = self.now + self.random.between(self.fate.delay.0, longest);
        self.plan.at(at, Happening::SnapshotArrives(transfer));
        Ok(())
    }

    pub(crate) fn snapshot_arrives(&mut self, transfer: Box<Transfer>) -> Check {
        let (from, to) = (self.nodes[transfer.from].id, self.nodes[transfer.to].id);
        let broken = self.network.is_cut(from, to)
            || self.rough && self.random.permille(self.fate.transfer_failure)
            || !self.runs(transfer.to, transfer.to_start)
            || !self.runs(transfer.from, transfer.from_start);
        if broken {
            self.count(Event::SnapshotFailed);
            self.tell_sent(&transfer, false);
            return Ok(());
        }
        let node = &mut self.nodes[transfer.to];
        if node.file(&transfer.message.snapshot).is_none() {
            node.files.push(File {
                meta: transfer.message.snapshot.clone(),
                machine: transfer.machine,
                durable: false,
            });
        }
        let at = self.now + self.random.between(100, TICK);
        self.plan.at(at, Happening::SnapshotStored(transfer));
        Ok(())
    }

    pub(crate) fn snapshot_stored(&mut self, transfer: Transfer) -> Check {
        if !self.runs(transfer.to, transfer.to_start) {
            self.count(Event::SnapshotFailed);
            self.tell_sent(&transfer, false);
            return Ok(());
        }
        let meta = transfer.message.snapshot.clone();
        let node = &mut self.nodes[transfer.to];
        if let Some(file) = node.files.iter_mut().find(|file| file.meta == meta) {
            file.durable = true;
        } else {
            node.files.push(File {
                meta: meta.clone(),
                machine: transfer.machine,
                durable: true,
            });
        }
        self.tell_sent(&transfer, true);
        let from = self.nodes[transfer.from].id;
        let message = transfer.message;
        self.say(transfer.to, Input::SnapshotReceived { from, message })?;
        self.drop_unwanted(transfer.to, &meta);
        Ok(())
    }

    pub(crate) fn tell_sent(&mut self, transfer: &Transfer, arrived: bool) {
        let (node, start) = (transfer.from, transfer.from_start);
        let to = self.nodes[transfer.to].id;
        let at = self.now + self.random.between(self.fate.delay.0, self.fate.delay.1);
        self.plan.at(
            at,
            Happening::SnapshotSent {
                node,
                start,
                to,
                arrived,
            },
        );
    }

    pub(crate) fn snapshot_sent(&mut self, n: usize, to: NodeId, arrived: bool) -> Check {
        let run = self.nodes[n].run.as_mut().unwrap();
        run.sending.remove(to);
        self.say(n, Input::SnapshotSent { to, arrived })
    }
}
