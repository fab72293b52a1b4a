//! See `raft_storage::fuzz::stored`.
#![no_main]

raft_actor_fuzz::target!(raft_storage::fuzz::stored, floor: 128 << 10, factor: 64);
