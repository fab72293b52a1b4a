//! See `sim::liar`.
#![no_main]

raft_actor_fuzz::target!(sim::liar, floor: 1 << 20, factor: 1024);
