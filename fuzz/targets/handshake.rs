//! See `raft_net::fuzz::handshake`.
#![no_main]

raft_actor_fuzz::target!(raft_net::fuzz::handshake, floor: 256 << 10, factor: 64);
