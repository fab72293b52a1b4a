//! A few nodes, their disks and the network between them, moved by hand: nothing happens by itself.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use raft_core::{
    Config, Effect, Entry, EntryKind, Envelope, HardState, Input, InstallSnapshot, LogIndex,
    Message, NodeId, Raft, RequestId, Term,
};

use super::disk::Disk;
use super::text;

/// A read that a node waits for.
struct Read {
    request: RequestId,
    from: LogIndex,
    through: LogIndex,
    bytes_max: usize,
}

struct Node {
    config: Config,
    disk: Disk,
    /// None while it is down.
    raft: Option<Raft>,
    reads: Vec<Read>,
    /// How often it was started.
    starts: u64,
}

/// A snapshot on its way.
struct File {
    from: NodeId,
    to: NodeId,
    message: InstallSnapshot,
}

/// Which messages a command means: all, those of one sender, of one receiver, or of one link.
#[derive(Clone, Copy, Default)]
pub(crate) struct Link {
    pub(crate) from: Option<NodeId>,
    pub(crate) to: Option<NodeId>,
}

impl Link {
    fn has(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|id| id == envelope.from) && self.to.is_none_or(|id| id == envelope.to)
    }
}

/// The nodes and what lies between them. What happens is written down, line by line.
#[derive(Default)]
pub(crate) struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    network: Vec<Envelope>,
    files: Vec<File>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    lines: Vec<String>,
}

impl Cluster {
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// What happened since the last call.
    pub(crate) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        let Some(node) = self.nodes.get_mut(&id) else {
            panic!("there is no node {id}");
        };
        node
    }

    pub(crate) fn is_up(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.raft.is_some())
    }

    /// The nodes that are up.
    pub(crate) fn up(&self) -> Vec<NodeId> {
        let mut ids = self.ids();
        ids.retain(|id| self.is_up(*id));
        ids
    }

    /// Adds a node with an empty disk and starts it.
    ///
    /// # Errors
    /// It is there already, or its settings are refused.
    pub(crate) fn add(&mut self, config: Config) -> Result<(), String> {
        let id = config.id;
        if self.nodes.contains_key(&id) {
            return Err(format!("there is a node {id} already"));
        }
        let node = Node {
            config,
            disk: Disk::default(),
            raft: None,
            reads: Vec::new(),
            starts: 0,
        };
        self.nodes.insert(id, node);
        self.restart(id, usize::MAX)
    }

    /// Starts a node anew on a disk that holds an entry of each of `log`'s terms.
    ///
    /// # Errors
    /// There can be no such disk.
    pub(crate) fn set_disk(
        &mut self,
        id: NodeId,
        hard_state: HardState,
        log: &[u64],
    ) -> Result<(), String> {
        let entries = log.iter().zip(1..).map(|(term, index)| {
            let data = Bytes::from(format!("{index}@{term}"));
            Entry::new(Term(*term), LogIndex(index), EntryKind::Command, data)
        });
        let node = self.node(id);
        node.disk = Disk::default();
        node.disk.hard_state = hard_state;
        node.disk.log = entries.collect();
        self.restart(id, usize::MAX)
    }

    /// Starts a node, with the last `tail` entries of its log in memory.
    ///
    /// # Errors
    /// It refuses its settings, or what its disk holds.
    pub(crate) fn restart(&mut self, id: NodeId, tail: usize) -> Result<(), String> {
        let node = self.node(id);
        node.starts += 1;
        node.config.start = node.starts;
        let raft = Raft::new(node.config.clone(), node.disk.recover(tail));
        node.raft = Some(raft.map_err(|error| format!("node {id} does not start: {error}"))?);
        Ok(())
    }

    /// Ends a node; of its pending writes the first `keep` are on its disk nevertheless.
    pub(crate) fn crash(&mut self, id: NodeId, keep: usize) {
        let node = self.node(id);
        node.raft = None;
        node.reads.clear();
        let lost: Vec<_> = node.disk.pending().iter().skip(keep).collect();
        let lost = lost.iter().map(|p| format!("{id} forgets #{}", p.write));
        let lost: Vec<_> = lost.collect();
        node.disk.crash(keep);
        self.lines.extend(lost);
    }

    /// Hands `input` to a node and carries out what it asks for.
    pub(crate) fn step(&mut self, id: NodeId, input: Input) {
        let Some(raft) = &mut self.node(id).raft else {
            return self.lines.push(format!("{id} is down"));
        };
        let effects = raft.step(input);
        for effect in effects {
            self.lines.extend(text::effect(id, &effect));
            match effect {
                Effect::Persist(persist) => self.node(id).disk.write(persist),
                Effect::Send { to, message } => self.transmit(id, to, message.into()),
                Effect::SendSnapshot { to, .. } if !self.nodes.contains_key(&to) => {
                    self.lines.push(format!("  lost: there is no node {to}"));
                }
                Effect::SendSnapshot { to, message } => {
                    let from = id;
                    self.files.push(File { from, to, message });
                }
                Effect::Read {
                    request,
                    from,
                    through,
                    bytes_max,
                } => self.node(id).reads.push(Read {
                    request,
                    from,
                    through,
                    bytes_max,
                }),
                _ => {}
            }
        }
    }

    fn transmit(&mut self, from: NodeId, to: NodeId, message: Message) {
        if !self.nodes.contains_key(&to) {
            return self.lines.push(format!("  lost: there is no node {to}"));
        }
        if self.cuts.contains(&(from, to)) {
            return self.lines.push(format!("  lost: {from}->{to} is cut"));
        }
        self.network.push(Envelope { from, to, message });
    }

    /// Takes a snapshot of what `id` handed out, up to `index`.
    pub(crate) fn take_snapshot(&mut self, id: NodeId, index: Option<LogIndex>) {
        let raft = self.node(id).raft.as_ref();
        let meta = raft.and_then(|raft| raft.snapshot_at(index.unwrap_or(raft.handed_out())));
        match meta {
            Some(meta) => self.step(id, Input::SnapshotTaken(meta)),
            None => self.lines.push(format!("{id} has nothing to take")),
        }
    }

    /// The files on their way to `to` arrive, unless they are to break off, or must.
    pub(crate) fn end_transfer(&mut self, to: NodeId, arrived: bool) {
        let files = std::mem::take(&mut self.files);
        let (ending, left) = files.into_iter().partition(|file| file.to == to);
        self.files = left;
        for File { from, to, message } in ending {
            let arrived = arrived && self.is_up(to) && !self.cuts.contains(&(from, to));
            if arrived {
                let words = text::install(&message);
                self.lines
                    .push(format!("* {from}->{to} the file of {words}"));
                self.step(to, Input::SnapshotReceived { from, message });
            }
            let how = if arrived { "arrived" } else { "broke off" };
            self.lines
                .push(format!("{from} hears that its file to {to} {how}"));
            self.step(from, Input::SnapshotSent { to, arrived });
        }
    }

    /// Syncs the first `count` pending writes of a node; what waited for them leaves.
    pub(crate) fn persist(&mut self, id: NodeId, count: usize) {
        let Some((through, released)) = self.node(id).disk.sync(count) else {
            return;
        };
        self.lines
            .push(format!("{id} has synced through #{through}"));
        for (to, message) in released {
            let words = text::durable(&message);
            self.lines.push(format!("{id}->{to} {words}"));
            self.transmit(id, to, message.into());
        }
        self.step(id, Input::Persisted { through });
    }

    /// Answers a node's reads from its disk.
    pub(crate) fn answer_reads(&mut self, id: NodeId) {
        for read in std::mem::take(&mut self.node(id).reads) {
            let disk = &self.node(id).disk;
            let result = disk.read(read.from, read.through, read.bytes_max);
            let request = read.request;
            self.lines.push(format!("{id} has read #{request}"));
            self.step(id, Input::EntriesRead { request, result });
        }
    }

    /// Delivers the first `count` messages that are on their way on `link` now, but nothing that is sent
    /// because of them; the last ones, from the end, if `newest_first`.
    pub(crate) fn deliver(&mut self, link: Link, count: usize, newest_first: bool) {
        if newest_first {
            self.network.reverse();
        }
        let arriving = self.take_from_network(link, count);
        if newest_first {
            self.network.reverse();
        }
        for envelope in arriving {
            let words = text::message(&envelope.message);
            let (from, to) = (envelope.from, envelope.to);
            self.lines.push(format!("* {from}->{to} {words}"));
            self.step(to, Input::Received(envelope));
        }
    }

    /// Loses the first `count` messages that are on their way on `link`.
    pub(crate) fn drop_messages(&mut self, link: Link, count: usize) {
        for Envelope { from, to, message } in self.take_from_network(link, count) {
            let words = text::message(&message);
            self.lines.push(format!("  lost: {from}->{to} {words}"));
        }
    }

    /// Puts a copy of what is on its way on `link` behind everything else.
    pub(crate) fn duplicate(&mut self, link: Link) {
        let copies: Vec<_> = self
            .network
            .iter()
            .filter(|e| link.has(e))
            .cloned()
            .collect();
        for Envelope { from, to, message } in &copies {
            let words = text::message(message);
            self.lines.push(format!("  twice: {from}->{to} {words}"));
        }
        self.network.extend(copies);
    }

    fn take_from_network(&mut self, link: Link, count: usize) -> Vec<Envelope> {
        let network = std::mem::take(&mut self.network);
        let mut on_link = 0;
        let (taken, left) = network.into_iter().partition(|e| {
            on_link += usize::from(link.has(e));
            link.has(e) && on_link <= count
        });
        self.network = left;
        taken
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Delivers, syncs and reads until nothing moves any more.
    ///
    /// # Errors
    /// It never ends.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for _ in 0..200 {
            self.deliver(Link::default(), usize::MAX, false);
            for id in self.ids() {
                if self.node(id).raft.is_some() {
                    self.persist(id, usize::MAX);
                    self.answer_reads(id);
                }
            }
            for to in self.ids() {
                self.end_transfer(to, true);
            }
            let busy = |node: &Node| !node.disk.pending().is_empty() || !node.reads.is_empty();
            if self.network.is_empty() && self.files.is_empty() && !self.nodes.values().any(busy) {
                return Ok(());
            }
        }
        Err("it never settles".into())
    }

    /// What is on its way.
    pub(crate) fn show_network(&mut self) {
        for Envelope { from, to, message } in &self.network {
            let words = text::message(message);
            self.lines.push(format!("{from}->{to} {words}"));
        }
    }

    pub(crate) fn show_status(&mut self, id: NodeId) {
        let lines = match &self.node(id).raft {
            Some(raft) => text::status(&raft.status()),
            None => vec![format!("{id}: down")],
        };
        self.lines.extend(lines);
    }

    /// Whom a node knows, and what of them.
    pub(crate) fn show_members(&mut self, id: NodeId) {
        let lines = match &self.node(id).raft {
            Some(raft) => text::members(raft),
            None => vec![format!("{id}: down")],
        };
        self.lines.extend(lines);
    }

    /// What is on a node's disk, and what is on its way there.
    pub(crate) fn show_log(&mut self, id: NodeId) {
        let disk = &self.node(id).disk;
        let mut lines = vec![format!("{id} has {}", text::entries(&disk.log))];
        let snapshot = disk.snapshot.iter();
        lines.extend(snapshot.map(|meta| format!("  snapshot {}", text::snapshot(meta))));
        let pending = disk.pending().iter();
        lines.extend(pending.map(|p| format!("  pending: {}", text::write(p))));
        self.lines.extend(lines);
    }
}
