//! See `raft_actor::fuzz::ledger`.
#![no_main]

raft_actor_fuzz::target!(raft_actor::fuzz::ledger, floor: 128 << 10, factor: 128);
