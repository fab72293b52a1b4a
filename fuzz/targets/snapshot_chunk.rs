//! See `raft_net::fuzz::snapshot_chunk`.
#![no_main]

raft_actor_fuzz::target!(raft_net::fuzz::snapshot_chunk, floor: 128 << 10, factor: 64);
