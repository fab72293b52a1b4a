//! Steps of single nodes, worked out once.
//!
//! The core is deterministic, so what a node does is a function of the node and of what happens to it. The
//! states of the cluster are many, those of one node are few; each of the latter is kept once and shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::node::{Habits, Happening, Node, Outcome};
use crate::packet::digest;

const SHARDS: usize = 16;

type Shard<T> = Mutex<HashMap<(u64, u64), Arc<T>>>;

/// What was worked out so far.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    nodes: [Shard<Node>; SHARDS],
    outcomes: [Shard<Outcome>; SHARDS],
}

impl Memo {
    /// What `happening` makes of `node`.
    pub(crate) fn step(&self, node: &Node, happening: &Happening, habits: &Habits) -> Arc<Outcome> {
        let key = (node.digest(), digest(happening));
        if let Some(known) = get(&self.outcomes, key) {
            return known;
        }
        let mut outcome = node.step(happening, habits);
        outcome.node = self.share(outcome.node);
        put(&self.outcomes, key, Arc::new(outcome))
    }

    /// The one copy of `node`.
    pub(crate) fn share(&self, node: Arc<Node>) -> Arc<Node> {
        put(&self.nodes, (node.digest(), 0), node)
    }

    /// How many different nodes and steps there were.
    pub(crate) fn len(&self) -> (usize, usize) {
        (len(&self.nodes), len(&self.outcomes))
    }
}

fn shard<T>(shards: &[Shard<T>], key: (u64, u64)) -> &Shard<T> {
    &shards[((key.0 ^ key.1) % SHARDS as u64) as usize]
}

fn get<T>(shards: &[Shard<T>], key: (u64, u64)) -> Option<Arc<T>> {
    let known = shard(shards, key)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    known.get(&key).cloned()
}

/// Keeps `value`, unless another thread was faster; then that one's is the one copy.
fn put<T>(shards: &[Shard<T>], key: (u64, u64), value: Arc<T>) -> Arc<T> {
    let mut known = shard(shards, key)
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    Arc::clone(known.entry(key).or_insert(value))
}

fn len<T>(shards: &[Shard<T>]) -> usize {
    let locked = shards
        .iter()
        .map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).len());
    locked.sum()
}
