//! See `raft_net::fuzz::message`.
#![no_main]

raft_actor_fuzz::target!(raft_net::fuzz::message, floor: 32 << 10, factor: 128);
