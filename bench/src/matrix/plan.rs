//! What the matrix is made of: groups, each a cluster that is started afresh, and the cells measured on it.

use crate::cluster::{Place, Shape};
use crate::protocol::{Load, Operation};

/// What most is measured with.
pub(super) const PAYLOAD: usize = 256;
/// No load has more bytes on their way: a node would be busy with its bound.
const BYTES_MAX: usize = 32 << 20;

/// A cluster, and what is measured on it, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What is done with a group.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// Loads.
    Loads(Shape, Vec<Cell>),
    /// Replay and restart, with so many entries behind the last snapshot.
    Log { entries: u64 },
    /// A log of so many entries beside one of so many.
    Length { short: u64, long: u64 },
}

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) at: Place,
    pub(super) operation: Operation,
    pub(super) clients: usize,
    pub(super) payload: usize,
}

impl Cell {
    pub(super) fn propose(at: Place, clients: usize) -> Self {
        Self {
            at,
            operation: Operation::Propose,
            clients,
            payload: PAYLOAD,
        }
    }

    pub(super) fn read(at: Place, clients: usize) -> Self {
        Self {
            operation: Operation::Read,
            payload: 0,
            ..Self::propose(at, clients)
        }
    }

    pub(super) fn load(&self, window_ms: u64) -> Load {
        Load {
            node: 0,
            operation: self.operation,
            clients: self.clients,
            in_flight: 1,
            rate: None,
            payload: self.payload,
            warm_up_ms: (window_ms / 3).max(500),
            window_ms,
        }
    }
}

/// The names of groups that figures compare.
pub(super) const THREE: &str = "three nodes";
pub(super) const FIVE: &str = "five nodes";
pub(super) const ONE: &str = "one node";
pub(super) const OUTSIDE: &str = "clients outside";
pub(super) const TLS: &str = "TLS";
pub(super) const THREADS: &str = "a thread for each node";
pub(super) const SUBSCRIBERS: &str = "ten more subscribers";
pub(super) const MEMORY: &str = "memory";
pub(super) const LOG: &str = "log";
pub(super) const LENGTH: &str = "length";

/// All groups, in the order of a first round.
pub(super) fn groups(quick: bool) -> Vec<Group> {
    let all: &[usize] = match quick {
        true => &[1, 64, 256, 1024, 4096],
        false => &[1, 4, 16, 64, 256, 1024, 4096],
    };
    let few: &[usize] = if quick { &[1, 1024] } else { all };
    let many: &[usize] = if quick { &[1024] } else { all };
    let reads: &[usize] = if quick { &[256] } else { all };
    let payloads: &[usize] = match quick {
        true => &[16, 16 << 10],
        false => &[16, 64, 1 << 10, 4 << 10, 16 << 10, 64 << 10],
    };
    let proposals = |at, clients: &[usize]| -> Vec<Cell> {
        let cells = clients.iter().map(|clients| Cell::propose(at, *clients));
        cells.collect()
    };
    // What is compared stands side by side, and what leaves the disks and RocksDB with work for a while behind it.
    let (few_clients, many_clients) = all.split_at(all.partition_point(|clients| *clients <= 256));
    let mut three = proposals(Place::Leader, few_clients);
    for at in [Place::Leader, Place::Follower] {
        three.extend(reads.iter().map(|clients| Cell::read(at, *clients)));
    }
    three.extend(proposals(Place::Leader, many_clients));
    three.extend(proposals(Place::Follower, many));
    for payload in payloads {
        let clients = if quick { &[1024][..] } else { &[64, 1024][..] };
        three.extend(
            clients
                .iter()
                .filter(|clients| *clients * payload <= BYTES_MAX)
                .map(|clients| Cell {
                    payload: *payload,
                    ..Cell::propose(Place::Leader, *clients)
                }),
        );
    }
    // Those of few proposals have a cluster of their own.
    three.sort_by_key(|cell| !cell.load(0).is_few());
    let shape = Shape {
        nodes: 3,
        outside: false,
        memory: false,
        apart: None,
        tls: false,
        subscribers: 1,
        tally: false,
        here: true,
        sync_inline: None,
    };
    let loads = |name, shape, cells| Group {
        name,
        kind: Kind::Loads(shape, cells),
    };
    let with = |nodes| Shape {
        nodes,
        ..shape.clone()
    };
    let outside = Shape {
        outside: true,
        ..shape.clone()
    };
    let tls = Shape {
        tls: true,
        ..shape.clone()
    };
    let subscribers = Shape {
        subscribers: 11,
        ..shape.clone()
    };
    let threads = Shape {
        here: false,
        ..shape.clone()
    };
    let memory = Shape {
        memory: true,
        ..shape.clone()
    };
    let mut groups = vec![
        loads(THREE, shape.clone(), three),
        loads(FIVE, with(5), proposals(Place::Leader, many)),
        loads(OUTSIDE, outside, proposals(Place::Outside, many)),
        loads(SUBSCRIBERS, subscribers, proposals(Place::Leader, &[1024])),
        loads(TLS, tls, proposals(Place::Leader, few)),
        loads(THREADS, threads, proposals(Place::Leader, few)),
        loads(ONE, with(1), proposals(Place::Leader, few)),
        loads(MEMORY, memory, proposals(Place::Leader, few)),
        Group {
            name: LOG,
            kind: Kind::Log { entries: 1_000_000 },
        },
    ];
    if !quick {
        groups.push(Group {
            name: LENGTH,
            kind: Kind::Length {
                short: 1_000_000,
                long: 10_000_000,
            },
        });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_load_asks_for_more_than_a_node_takes_in() {
        for quick in [true, false] {
            for group in groups(quick) {
                if let Kind::Loads(_, cells) = group.kind {
                    assert!(!cells.is_empty(), "{}", group.name);
                    for cell in &cells {
                        assert!(cell.clients * cell.payload <= 64 << 20, "{cell:?}");
                        assert_eq!(cells.iter().filter(|other| *other == cell).count(), 1);
                    }
                }
            }
        }
    }
}
